//! The judges find each kind of difference by itself, and nothing in a true copy.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, Timespec, makedev, mknodat};

use super::mutations::{ATTRIBUTES, By, ENTRIES, METADATA, Mutation, SAME};
use super::mutations::{chmod, date_of, later, run, set_date, xattr};
use super::*;

#[test]
fn each_difference_alone_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let tree = sample(folder.path());
    let original = Snapshot::of(&tree).unwrap();
    for mutation in ENTRIES.iter().chain(METADATA).chain(ATTRIBUTES) {
        let Some(copy) = mutated(&tree, mutation) else { continue };
        let found = original.differences(&Snapshot::of(&copy).unwrap());
        assert_eq!(found.len(), 1, "{}: {found:#?}", mutation.name);
        let start = format!("{}: {}", mutation.path, mutation.word);
        assert!(found[0].starts_with(&start), "{}: {found:?}", mutation.name);
        if mutation.by == By::Both {
            let said = equal_to_rsync(&tree, &copy).expect_err(mutation.name);
            assert!(said.starts_with("rsync: 1 differences\n"), "{}: {said}", mutation.name);
        }
        let whole = equal(&tree, &copy).unwrap_err();
        assert!(whole.contains(&start), "{}: {whole}", mutation.name);
        fs::remove_dir_all(copy).unwrap();
    }
    equal(&tree, &tree).unwrap();
}

#[test]
fn what_is_not_kept_is_no_difference() {
    let folder = tempfile::tempdir().unwrap();
    let tree = sample(folder.path());
    for mutation in SAME {
        let Some(copy) = mutated(&tree, mutation) else { continue };
        let found = equal(&tree, &copy);
        assert_eq!(found, Ok(()), "{}", mutation.name);
        assert_eq!(equal(&copy, &tree), Ok(()), "{}", mutation.name);
        fs::remove_dir_all(copy).unwrap();
    }
}

#[test]
fn two_groups_of_links_are_told_apart_where_all_else_is_equal() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name: &str, pairs: [[&str; 2]; 2]| {
        let root = folder.path().join(name);
        fs::create_dir(&root).unwrap();
        for [one, other] in pairs {
            fs::write(root.join(one), "equal").unwrap();
            fs::hard_link(root.join(one), root.join(other)).unwrap();
        }
        for path in ["a", "b", "c", "d", ""] {
            set_date(&root.join(path), Timespec { tv_sec: 7, tv_nsec: 7 });
        }
        root
    };
    let one = make("one", [["a", "b"], ["c", "d"]]);
    let other = make("other", [["a", "c"], ["d", "b"]]);
    let found = equal_to_walk(&one, &other).unwrap_err();
    assert!(found.contains("b: link of a, b") && found.contains("c: link of c, a"), "{found}");
    equal(&one, &make("third", [["b", "a"], ["d", "c"]])).unwrap();
}

#[test]
fn a_filled_hole_and_a_new_one_are_found_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    for root in [&one, &other] {
        fs::create_dir(root).unwrap();
    }
    let sparse = fs::File::create(one.join("file")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    let full = fs::File::create(other.join("file")).unwrap();
    full.write_all_at(&vec![0; 1 << 20], 0).unwrap();
    full.sync_all().unwrap();
    for root in [&one, &other] {
        set_date(&root.join("file"), Timespec { tv_sec: 7, tv_nsec: 7 });
        set_date(root, Timespec { tv_sec: 7, tv_nsec: 7 });
    }
    equal(&one, &other).unwrap();
    equally_sparse(&one, &other, 128 << 10).unwrap_err();
    equally_sparse(&other, &one, 128 << 10).unwrap_err();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&full, punch, 65_536, (1 << 20) - 65_536).unwrap();
    full.sync_all().unwrap();
    equally_sparse(&one, &other, 128 << 10).unwrap();
    equally_sparse(&one, &other, 32 << 10).unwrap_err();
}

#[test]
fn a_tree_deeper_than_a_path_may_be_long_is_walked() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    fs::create_dir(&root).unwrap();
    super::super::fidelity::make_beyond_longest_path(&root);
    let snapshot = Snapshot::of(&root).unwrap();
    let (longest, entry) = snapshot.entries().max_by_key(|(path, _)| path.len()).unwrap();
    assert!(longest.len() > 5000 && longest.ends_with(b"/bottom"));
    assert!(matches!(entry.kind, Kind::Regular { size: 12, .. }));
}

#[test]
fn a_tree_that_does_not_rest_is_not_judged() {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::create(folder.path().join("file")).unwrap();
    file.write_all_at(&vec![1; 4 << 20], 0).unwrap();
    let is_over = AtomicBool::new(false);
    let found = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                file.write_all_at(b"x", 1000).unwrap();
            }
        });
        let found = (0..1000).find_map(|_| Snapshot::of(folder.path()).err());
        is_over.store(true, Ordering::Relaxed);
        found
    });
    assert_eq!(found.as_deref(), Some("file: changed while it was read"));
}

#[test]
fn a_report_names_the_first_differences_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    fs::create_dir(&one).unwrap();
    fs::create_dir(&other).unwrap();
    for number in 0..30 {
        fs::write(one.join(format!("{number:02}\n\x1b[31m")), "").unwrap();
    }
    set_date(&other, date_of(&one));
    let found = equal_to_walk(&one, &other).unwrap_err();
    assert!(found.starts_with("walk: 30 differences\n  00\\n\\x1b[31m: only in the first\n"));
    assert_eq!(found.lines().count(), 1 + REPORTED_MAX + 1);
    assert!(found.is_ascii() && !found.contains('\x1b'));
    let found = equal(&one, &other).unwrap_err();
    assert!(found.contains("rsync: 30 differences") && found.contains("walk: 30 differences"));
    equal_to_walk(&one, &folder.path().join("absent")).unwrap_err();
    equal_to_rsync(&one, &folder.path().join("absent")).unwrap_err();
}

#[test]
fn a_snapshot_is_of_its_moment() {
    let folder = tempfile::tempdir().unwrap();
    let tree = sample(folder.path());
    let before = Snapshot::of(&tree).unwrap();
    before.check_equal(&Snapshot::of(&tree).unwrap()).unwrap();
    later(&tree, "d", 5, 5);
    let after = Snapshot::of(&tree).unwrap();
    before.check_equal(&after).unwrap_err();
    before.without_times().check_equal(&after.without_times()).unwrap();
}

/// A small tree with one of each.
fn sample(folder: &Path) -> PathBuf {
    let root = folder.join("tree");
    for path in ["", "d", "empty", "links"] {
        fs::create_dir(root.join(path)).unwrap();
        chmod(&root, path, 0o755);
    }
    for (path, content) in [
        ("d/file", "some text"),
        ("acl", "guarded"),
        ("links/a", "linked"),
        ("links/twin-1", "twins"),
        ("links/twin-2", "twins"),
    ] {
        fs::write(root.join(path), content).unwrap();
        chmod(&root, path, 0o644);
    }
    xattr(&root, "d/file", "user.a", b"1");
    run("setfacl", &["-m", "u:12345:rw-"], &root.join("acl"));
    fs::hard_link(root.join("links/a"), root.join("links/b")).unwrap();
    std::os::unix::fs::symlink("d/file", root.join("link")).unwrap();
    std::os::unix::fs::symlink("target", root.join("links/symlink-1")).unwrap();
    fs::hard_link(root.join("links/symlink-1"), root.join("links/symlink-2")).unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from(0o640), 0).unwrap();
    chmod(&root, "fifo", 0o640);
    if rustix::process::geteuid().is_root() {
        let number = makedev(1, 3);
        let mode = Mode::from(0o600);
        mknodat(CWD, root.join("device"), FileType::CharacterDevice, mode, number).unwrap();
    }
    // So that equal objects are equal in their dates.
    let paths: Vec<PathBuf> = all_paths(&root);
    for path in paths {
        set_date(&path, Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 });
    }
    root
}

/// A copy with that difference, or nothing where it cannot be made.
fn mutated(tree: &Path, mutation: &Mutation) -> Option<PathBuf> {
    if mutation.needs_root && !rustix::process::geteuid().is_root() {
        tool::say_skipped(mutation.name, "not root");
        return None;
    }
    let copy = tree.with_file_name("copy");
    tool::output_of(tool::command("cp").arg("-a").arg(tree).arg(&copy)).unwrap();
    equal(tree, &copy).unwrap();
    let dates: Vec<(PathBuf, Timespec)> =
        all_paths(&copy).into_iter().map(|path| (path.clone(), date_of(&path))).collect();
    (mutation.make)(&copy);
    if mutation.word != "mtime" {
        // What was changed in it dates a folder as well.
        for (path, date) in dates.iter().filter(|(path, _)| path.symlink_metadata().is_ok()) {
            set_date(path, *date);
        }
    }
    Some(copy)
}

fn all_paths(root: &Path) -> Vec<PathBuf> {
    let snapshot = Snapshot::of(root).unwrap();
    let paths = snapshot.entries().map(|(path, _)| std::str::from_utf8(path).unwrap());
    paths.map(|path| root.join(path)).collect()
}
