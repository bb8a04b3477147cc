//! The tree has what it says, is the same each time, and survives a copy by those who can.

use std::collections::BTreeMap;
use std::path::Path;

use tempfile::TempDir;

use super::super::judge::{self, Entry, Kind, Snapshot};
use super::super::tool;
use super::{make, make_beyond_longest_path};

/// A memory file system, if there is one: it takes other things than the one of `/tmp`.
const MEMORY: &str = "/dev/shm";

/// Whether an entry is what is looked for, given its path.
type Test = fn(&[u8], &Entry) -> bool;

#[test]
fn the_tree_is_the_same_each_time_to_the_nanosecond() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_eq!(make(one.path()), make(other.path()));
    // The mode of a temporary folder is not ours.
    judge::equal(one.path(), other.path()).unwrap();
    judge::equally_sparse(one.path(), other.path(), 8192).unwrap();
}

#[test]
fn rsync_and_cp_copy_all_of_it() {
    for place in [std::env::temp_dir().as_path(), Path::new(MEMORY)] {
        if !place.is_dir() {
            tool::say_skipped("a copy of the fidelity tree", &format!("no {}", place.display()));
            continue;
        }
        let folder = TempDir::new_in(place).unwrap();
        let tree = folder.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        make(&tree);
        let copy = folder.path().join("by-rsync");
        let mut rsync = tool::command("rsync");
        rsync.args(["-aHAXS", "--numeric-ids"]).arg(tree.join("")).arg(&copy);
        tool::output_of(&mut rsync).unwrap();
        judge::equal(&tree, &copy).unwrap();
        let copy = folder.path().join("by-cp");
        tool::output_of(tool::command("cp").arg("-a").arg(&tree).arg(&copy)).unwrap();
        judge::equal(&tree, &copy).unwrap();
        judge::equal(&copy, &tree).unwrap();
    }
}

#[test]
fn nothing_but_what_the_file_system_cannot_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let skipped = make(folder.path());
    let may_be_refused = |line: &&String| {
        // ext4 keeps attributes in one block, and dates up to the year 2446.
        let is_large = line.starts_with("xattr user.large of ");
        let is_far = line.starts_with("mtime 253402300799: became ");
        !is_large && !is_far && rustix::process::geteuid().is_root()
    };
    let strange: Vec<&String> = skipped.iter().filter(may_be_refused).collect();
    assert!(strange.is_empty(), "{strange:#?}");
}

#[test]
fn everything_of_the_list_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let tree = Snapshot::of(folder.path()).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let wanted: [(&str, bool, Test); 26] = [
        ("fifo", false, |_, it| it.kind == Kind::Fifo),
        ("socket", false, |_, it| it.kind == Kind::Socket),
        ("character device", true, |_, it| matches!(it.kind, Kind::CharacterDevice(_))),
        ("block device", true, |_, it| matches!(it.kind, Kind::BlockDevice(_))),
        ("longest target", false, |_, it| target_of(it).len() == 4095),
        ("absolute target", false, |_, it| target_of(it).starts_with(b"/")),
        ("target that is no text", false, |_, it| std::str::from_utf8(target_of(it)).is_err()),
        ("link to itself", false, |path, it| {
            path.ends_with(b"/itself") && target_of(it) == b"itself"
        }),
        ("empty file", false, |_, it| matches!(it.kind, Kind::Regular { size: 0, .. })),
        ("file beyond a piece", false, |_, it| {
            matches!(it.kind, Kind::Regular { size: 65_537, .. })
        }),
        ("setuid", false, |_, it| it.kind != Kind::Directory && it.mode & 0o4000 != 0),
        ("sticky folder", false, |_, it| it.kind == Kind::Directory && it.mode & 0o1000 != 0),
        ("no mode at all", true, |_, it| it.mode == 0),
        ("last owner", true, |_, it| (it.uid, it.gid) == (u32::MAX - 1, u32::MAX - 1)),
        ("setuid of another", true, |_, it| it.mode == 0o6755 && it.uid == 12_345),
        ("date before 1970", false, |_, it| it.mtime == (-1, 999_999_999)),
        ("folder before 1970", false, |_, it| it.kind == Kind::Directory && it.mtime.0 < 0),
        ("link before 1970", false, |_, it| it.mtime.0 < 0 && !target_of(it).is_empty()),
        ("date of 2100", false, |_, it| it.mtime == (4_102_444_800, 123_456_789)),
        ("empty attribute", false, |_, it| it.xattrs.values().any(Vec::is_empty)),
        ("large attribute", false, |_, it| it.xattrs.values().any(|value| value.len() >= 1000)),
        ("attribute of a link", true, |_, it| !it.xattrs.is_empty() && !target_of(it).is_empty()),
        ("ACL", false, |_, it| it.xattrs.contains_key(&b"system.posix_acl_access"[..])),
        ("default ACL", false, |_, it| it.xattrs.contains_key(&b"system.posix_acl_default"[..])),
        ("capability", true, |_, it| it.xattrs.contains_key(&b"security.capability"[..])),
        ("depth", false, |path, _| path.split(|byte| *byte == b'/').count() == 102),
    ];
    for (what, needs_root, is_it) in wanted {
        let is_there = tree.entries().any(|(path, entry)| is_it(path, entry));
        assert!(is_there || (needs_root && !is_root), "{what}");
    }
    check_names(&tree);
    check_groups(&tree);
    check_holes(&tree);
}

#[test]
fn no_two_dates_that_nobody_chose_are_equal() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let tree = Snapshot::of(folder.path()).unwrap();
    let mut dates = BTreeMap::new();
    for (path, entry) in tree.entries() {
        if path.starts_with(b"dates/") || entry.first_path != path {
            continue;
        }
        let other = dates.insert(entry.mtime, path);
        assert!(other.is_none(), "{} {}", path.escape_ascii(), other.unwrap().escape_ascii());
    }
}

#[test]
fn a_tree_beyond_the_longest_path_is_the_same_each_time() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_beyond_longest_path(one.path());
    make_beyond_longest_path(other.path());
    let snapshots = [&one, &other].map(|it| Snapshot::of(it.path()).unwrap().without_times());
    snapshots[0].check_equal(&snapshots[1]).unwrap();
}

fn target_of(entry: &Entry) -> &[u8] {
    match &entry.kind {
        Kind::Symlink { target } => target,
        Kind::Directory
        | Kind::Regular { .. }
        | Kind::Fifo
        | Kind::Socket
        | Kind::CharacterDevice(_)
        | Kind::BlockDevice(_) => b"",
    }
}

fn check_names(tree: &Snapshot) {
    let names: Vec<&[u8]> =
        tree.entries().filter_map(|(path, _)| path.rsplit(|byte| *byte == b'/').next()).collect();
    for byte in (1..=255).filter(|byte| *byte != b'/' && *byte != b'.') {
        assert!(names.contains(&&[byte][..]), "{byte}");
    }
    for (what, count) in [
        ("255 bytes", names.iter().filter(|name| name.len() == 255).count()),
        ("newlines", names.iter().filter(|name| name.contains(&b'\n')).count()),
        ("no text", names.iter().filter(|name| std::str::from_utf8(name).is_err()).count()),
        ("dashes", names.iter().filter(|name| name.starts_with(b"-")).count()),
    ] {
        assert!(count >= 4, "{what}: {count}");
    }
    assert!(tree.entries().any(|(path, _)| path.len() > 3500));
}

/// Link groups of files, of links and of fifos, within and across folders.
fn check_groups(tree: &Snapshot) {
    let mut groups: BTreeMap<&[u8], Vec<(&[u8], &Entry)>> = BTreeMap::new();
    for (path, entry) in tree.entries() {
        groups.entry(&entry.first_path).or_default().push((path, entry));
    }
    let sizes: Vec<usize> = groups.values().map(Vec::len).filter(|len| *len > 1).collect();
    assert!(sizes.contains(&300) && sizes.contains(&4) && sizes.len() >= 9, "{sizes:?}");
    for kind in [Kind::Fifo, Kind::Socket, Kind::Symlink { target: b"target".into() }] {
        let is_there = groups.values().any(|group| group.len() == 2 && group[0].1.kind == kind);
        assert!(is_there, "{kind:?}");
    }
    assert_eq!(tree.entry("links/up").unwrap().first_path, b"links/a/up");
}

fn check_holes(tree: &Snapshot) {
    let allocated = |name: &str| tree.entry(format!("contents/holes/{name}")).unwrap().allocated;
    assert_eq!(allocated("only-a-hole"), 0);
    assert!((218_576..300_000).contains(&allocated("hole-in-the-middle")));
    assert!(allocated("every-other-piece") < 5 * 65_536);
    assert!(allocated("zeros") >= 131_072);
    assert!(allocated("punched") <= 140_000);
}
