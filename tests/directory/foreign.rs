//! Somebody else writes to the tree of a target: it is found, what they wrote is kept, and the tree is healed.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::pair::{Mount, ShipError, Source, Terms, ship, ship_whole, target};
use crate::trees::judge;
use hotpair::manifest::{Keep as WhatToKeep, LeaveOut};
use hotpair::store::tree::capture::Progress;
use hotpair::store::tree::receive::{ForeignWhy, Until};
use hotpair::store::tree::reconcile::Reading;
use hotpair::store::tree::target::Target;
use hotpair::units::TreeNumber;

struct World {
    outer: TempDir,
    source: Source,
    target: Target,
}

fn content(seed: u32, len: usize) -> Vec<u8> {
    let words =
        (0..=u32::try_from(len / 4).unwrap()).map(|at| (at ^ seed).wrapping_mul(2_654_435_761));
    words.flat_map(u32::to_le_bytes).take(len).collect()
}

fn make(tree: &Path) {
    fs::create_dir_all(tree.join("dir/deep/er")).unwrap();
    for (at, path) in ["a", "b", "dir/c", "dir/deep/d", "dir/deep/er/e"].iter().enumerate() {
        fs::write(tree.join(path), content(u32::try_from(at).unwrap(), 200_000)).unwrap();
    }
    fs::hard_link(tree.join("a"), tree.join("dir/a-too")).unwrap();
    symlink("dir/c", tree.join("link")).unwrap();
    fs::create_dir(tree.join("empty")).unwrap();
}

impl World {
    fn new(terms: &Terms) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let mut source = Source::new(&outer.path().join("a"), terms);
        make(&source.tree);
        source.scan().unwrap();
        let (mut there, _) = target(&outer.path().join("b"), terms).unwrap();
        ship(&source, &mut there).unwrap();
        let world = Self { outer, source, target: there };
        world.check();
        world
    }

    fn tree(&self) -> PathBuf {
        self.outer.path().join("b/tree")
    }

    fn lost(&self) -> PathBuf {
        self.outer.path().join("b/.hotpair-target/lost+hotpair/3")
    }

    fn check(&self) {
        judge::equal(&self.source.tree, &self.tree()).unwrap();
        assert_eq!(self.target.find_foreign().unwrap(), []);
    }

    /// Nobody knows what the tree is, so the whole of the source leads on.
    fn heal(&mut self) {
        self.target.doubt();
        let progress = Progress::default();
        self.target.survey(Reading::Changes, TreeNumber(0), &progress).unwrap();
        ship_whole(&self.source, &mut self.target, WhatToKeep::Quarantine).unwrap();
        self.check();
    }
}

/// Test 35: what was done to the tree, and the names in the quarantine with what is there byte for byte.
type Case = (&'static str, fn(&Path), &'static [Kept]);
type Kept = (&'static str, fn() -> Vec<u8>);

const CASES: [Case; 14] = [
    (
        "a new file",
        |tree| fs::write(tree.join("dir/new"), "mine").unwrap(),
        &[("dir/new", || b"mine".to_vec())],
    ),
    (
        "a new directory",
        |tree| {
            fs::create_dir(tree.join("new")).unwrap();
            fs::write(tree.join("new/x"), "mine").unwrap();
        },
        &[("new/x", || b"mine".to_vec())],
    ),
    (
        "an edited file",
        |tree| {
            let mut bytes = content(1, 200_000);
            bytes[70_000] ^= 1;
            // In place, so that it is the same object.
            let file = fs::OpenOptions::new().write(true).open(tree.join("b")).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
        },
        &[("b", || {
            let mut bytes = content(1, 200_000);
            bytes[70_000] ^= 1;
            bytes
        })],
    ),
    (
        "a file that an editor has replaced",
        |tree| {
            fs::write(tree.join("dir/.c.swp"), "other").unwrap();
            rustix::fs::renameat(
                rustix::fs::CWD,
                tree.join("dir/.c.swp"),
                rustix::fs::CWD,
                tree.join("dir/c"),
            )
            .unwrap();
        },
        &[("dir/c", || b"other".to_vec())],
    ),
    ("a deleted file", |tree| fs::remove_file(tree.join("dir/deep/d")).unwrap(), &[]),
    (
        "another mode",
        |tree| fs::set_permissions(tree.join("b"), fs::Permissions::from_mode(0o604)).unwrap(),
        &[],
    ),
    (
        "another mode of a directory",
        |tree| fs::set_permissions(tree.join("dir"), fs::Permissions::from_mode(0o701)).unwrap(),
        &[],
    ),
    (
        "another mode of the root",
        |tree| fs::set_permissions(tree, fs::Permissions::from_mode(0o701)).unwrap(),
        &[],
    ),
    ("a further name that is gone", |tree| fs::remove_file(tree.join("dir/a-too")).unwrap(), &[]),
    (
        "a file with two names edited by one",
        |tree| {
            let file = fs::OpenOptions::new().append(true).open(tree.join("a")).unwrap();
            std::io::Write::write_all(&mut &file, b"more").unwrap();
        },
        &[
            ("a", || [content(0, 200_000), b"more".to_vec()].concat()),
            ("dir/a-too", || [content(0, 200_000), b"more".to_vec()].concat()),
        ],
    ),
    (
        "a replaced directory",
        |tree| {
            fs::remove_dir_all(tree.join("dir")).unwrap();
            fs::create_dir(tree.join("dir")).unwrap();
            fs::write(tree.join("dir/c"), "mine").unwrap();
        },
        &[("dir/c", || b"mine".to_vec())],
    ),
    (
        "a directory that was renamed, and another one in its place",
        |tree| {
            let (from, to) = (tree.join("dir"), tree.join("aaa"));
            rustix::fs::renameat(rustix::fs::CWD, from, rustix::fs::CWD, to).unwrap();
            fs::create_dir(tree.join("dir")).unwrap();
            fs::write(tree.join("dir/c"), "mine").unwrap();
            fs::write(tree.join("aaa/deep/d"), "edited").unwrap();
        },
        &[("dir/c", || b"mine".to_vec()), ("aaa/deep/d", || b"edited".to_vec())],
    ),
    (
        "a link in place of a directory",
        |tree| {
            fs::remove_dir_all(tree.join("dir/deep")).unwrap();
            symlink("/etc", tree.join("dir/deep")).unwrap();
        },
        &[],
    ),
    (
        "a file moved to another name",
        |tree| {
            let (from, to) = (tree.join("b"), tree.join("dir/b"));
            rustix::fs::renameat(rustix::fs::CWD, from, rustix::fs::CWD, to).unwrap();
        },
        &[("dir/b", || content(1, 200_000))],
    ),
];

fn check_quarantine(world: &World, told: &str, expected: &[Kept]) {
    for (path, bytes) in expected {
        let found = fs::read(world.lost().join(path));
        assert!(found.is_ok_and(|found| found == bytes()), "{told}: {path}");
    }
}

/// Test 35.
#[test]
fn what_somebody_else_wrote_is_found_by_a_scan_set_aside_and_healed() {
    for (told, act, expected) in &CASES {
        // Something else changes, and the same thing changes.
        for path in ["empty/elsewhere", "b", "dir/c", "dir/deep/d", "a"] {
            let mut world = World::new(&Terms::default());
            act(&world.tree());
            assert!(!world.target.find_foreign().unwrap().is_empty(), "{told}");
            fs::write(world.source.tree.join(path), content(99, 1000)).unwrap();
            world.source.scan().unwrap();
            world.heal();
            check_quarantine(&world, told, expected);
            let counted = world.target.quarantined().unwrap();
            assert!(counted.files >= expected.len() as u64, "{told}: {counted:?}");
        }
    }
}

/// A tree that has what its source has, and more, is the generation of its source once that is set aside.
#[test]
fn what_somebody_else_wrote_is_healed_although_nothing_has_changed_at_the_source() {
    for (told, act, expected) in &CASES {
        let mut world = World::new(&Terms::default());
        act(&world.tree());
        world.heal();
        check_quarantine(&world, told, expected);
    }
}

#[test]
fn what_is_foreign_where_a_generation_changes_something_is_found_without_a_scan() {
    for (told, act, expected) in &CASES[2..6] {
        let mut world = World::new(&Terms::default());
        act(&world.tree());
        for path in ["b", "dir/c", "dir/deep/d"] {
            fs::write(world.source.tree.join(path), content(7, 5000)).unwrap();
        }
        world.source.capture().unwrap();
        let refused = ship(&world.source, &mut world.target).unwrap_err();
        assert!(matches!(refused, ShipError::Foreign(_)), "{told}: {refused}");
        world.heal();
        check_quarantine(&world, told, expected);
    }
}

/// Somebody else has put something in the place of what the generation removes.
#[test]
fn what_comes_where_something_was_lost_is_found_without_a_scan() {
    let mut world = World::new(&Terms::default());
    let path = world.tree().join("dir/deep/d");
    fs::remove_file(&path).unwrap();
    fs::write(&path, "again").unwrap();
    fs::remove_file(world.source.tree.join("dir/deep/d")).unwrap();
    world.source.capture().unwrap();
    let refused = ship(&world.source, &mut world.target).unwrap_err();
    assert!(matches!(refused, ShipError::Foreign(_)), "{refused}");
    world.heal();
    check_quarantine(&world, "put there again", &[("dir/deep/d", || b"again".to_vec())]);
}

#[test]
fn excluded_files_are_nobody_elses_business() {
    let terms = Terms { exclude: ["*.tmp".to_owned()].into(), ..Terms::default() };
    let world = World::new(&terms);
    let path = world.tree().join("dir/x.tmp");
    fs::write(&path, "mine").unwrap();
    assert_eq!(world.target.find_foreign().unwrap(), []);
    assert_eq!(fs::read(path).unwrap(), b"mine");
    assert_eq!(world.target.quarantined().unwrap().files, 0);
}

/// What is wrong with what a generation touches.
fn obstacles(refused: Result<impl Sized, ShipError>) -> Vec<ForeignWhy> {
    match refused {
        Ok(_) => panic!("it was brought there"),
        Err(ShipError::Foreign(found)) => found.iter().map(|it| it.why).collect(),
        Err(error) => panic!("{error}"),
    }
}

#[expect(clippy::print_stdout, reason = "the gate counts these lines")]
fn make_device(path: &Path) -> bool {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    let private = Mode::from_raw_mode(0o600);
    match mknodat(CWD, path, FileType::CharacterDevice, private, makedev(1, 3)) {
        Ok(()) => true,
        Err(errno) => {
            println!("skipped: mknod: {errno}");
            false
        }
    }
}

/// Nobody's generation brings or removes a device where devices are left out.
#[test]
fn what_no_generation_keeps_is_no_foreign_write_and_is_told_of_where_it_is_in_the_way() {
    let terms = Terms { leave_out: [LeaveOut::Devices].into(), ..Terms::default() };
    let mut world = World::new(&terms);
    if !make_device(&world.tree().join("dir/null")) {
        return;
    }
    assert_eq!(world.target.find_foreign().unwrap(), []);
    fs::write(world.source.tree.join("dir/c"), "other").unwrap();
    world.source.scan().unwrap();
    ship(&world.source, &mut world.target).unwrap();
    // The other node has a file of that name.
    fs::write(world.source.tree.join("dir/null"), "a file").unwrap();
    world.source.scan().unwrap();
    assert_eq!(obstacles(ship(&world.source, &mut world.target)), [ForeignWhy::InTheWay]);
    assert_eq!(world.target.find_foreign().unwrap(), []);
    // The records of the whole tree do not lead past it either.
    world.target.doubt();
    world.target.survey(Reading::Changes, TreeNumber(0), &Progress::default()).unwrap();
    let refused = ship_whole(&world.source, &mut world.target, WhatToKeep::Quarantine);
    assert_eq!(obstacles(refused), [ForeignWhy::InTheWay]);
    fs::remove_file(world.tree().join("dir/null")).unwrap();
    world.heal();
}

/// What another survey would not see either must not be taken for a foreign write that one leads past.
#[test]
fn what_a_survey_did_not_see_is_in_the_way() {
    let mut world = World::new(&Terms::default());
    world.target.doubt();
    world.target.survey(Reading::Changes, TreeNumber(0), &Progress::default()).unwrap();
    fs::write(world.tree().join("late"), "mine").unwrap();
    fs::write(world.source.tree.join("late"), "of the primary").unwrap();
    world.source.scan().unwrap();
    let refused = ship_whole(&world.source, &mut world.target, WhatToKeep::Quarantine);
    assert_eq!(obstacles(refused), [ForeignWhy::InTheWay]);
    world.heal();
    check_quarantine(&world, "late", &[("late", || b"mine".to_vec())]);
}

#[test]
fn a_file_system_that_is_mounted_in_the_tree_is_no_foreign_write_and_is_not_moved() {
    let mut world = World::new(&Terms::default());
    let (new, known) = (world.tree().join("dir/new"), world.tree().join("empty"));
    let mut mounts = Vec::new();
    for path in [&new, &known] {
        match Mount::new(path, "size=1m") {
            Ok(mount) => mounts.push(mount),
            Err(why) => {
                println!("skipped: mount: {why}");
                return;
            }
        }
        fs::write(path.join("inside"), "mine").unwrap();
    }
    assert_eq!(world.target.find_foreign().unwrap(), []);
    fs::write(world.source.tree.join("b"), "other").unwrap();
    world.source.scan().unwrap();
    ship(&world.source, &mut world.target).unwrap();
    // Nothing can take its place or move it, and nothing is begun.
    fs::create_dir(world.source.tree.join("dir/new")).unwrap();
    fs::remove_dir(world.source.tree.join("empty")).unwrap();
    world.source.scan().unwrap();
    let found = obstacles(ship(&world.source, &mut world.target));
    assert_eq!(found, [ForeignWhy::Mount, ForeignWhy::Mount]);
    assert_eq!(world.target.find_foreign().unwrap(), []);
    // A survey takes what is mounted on a new directory for an empty one, which no generation has.
    world.target.doubt();
    world.target.survey(Reading::Changes, TreeNumber(0), &Progress::default()).unwrap();
    fs::remove_dir(world.source.tree.join("dir/new")).unwrap();
    world.source.scan().unwrap();
    let refused = ship_whole(&world.source, &mut world.target, WhatToKeep::Quarantine);
    assert!(obstacles(refused).iter().all(|why| *why == ForeignWhy::Mount));
    assert_eq!(fs::read(new.join("inside")).unwrap(), b"mine");
    drop(mounts);
    world.heal();
}

/// All that was brought is read once, in as many pieces as it takes.
#[test]
fn a_look_that_is_cut_again_and_again_comes_to_the_end() {
    for allowed in [7, 11, 50] {
        let mut world = World::new(&Terms::default());
        fs::write(world.tree().join("dir/deep/er/zzz"), "mine").unwrap();
        let mut rounds = 0;
        let found = loop {
            let asked = Cell::new(0);
            let stop = || {
                asked.set(asked.get() + 1);
                asked.get() > allowed
            };
            let until = Until { stop: &stop, entries: 0, bytes: u64::MAX };
            let (found, is_all) = world.target.look_for_foreign(&until).unwrap();
            rounds += 1;
            // It is asked once more whether to go on with the next part.
            assert!(asked.get() <= allowed + 2 && rounds < 100, "{allowed}");
            if is_all || !found.is_empty() {
                break found;
            }
        };
        assert_eq!(found.iter().map(|it| it.why).collect::<Vec<_>>(), [ForeignWhy::Occupied]);
        assert!(rounds > 1 || allowed == 50, "{allowed}: {rounds}");
        // The next one begins at the root again.
        fs::write(world.tree().join("aaa"), "mine").unwrap();
        let (found, _) = world.target.look_for_foreign(&Until::THE_END).unwrap();
        assert!(!found.is_empty(), "{allowed}");
    }
}

#[test]
fn where_no_content_may_be_read_all_else_is_compared() {
    let mut world = World::new(&Terms::default());
    let nothing = Until { stop: &|| false, entries: 0, bytes: 0 };
    assert_eq!(world.target.look_for_foreign(&nothing).unwrap(), (Vec::new(), true));
    for (path, text) in [("added", "mine"), ("dir/c", "edited")] {
        fs::write(world.tree().join(path), text).unwrap();
    }
    fs::remove_file(world.tree().join("dir/deep/d")).unwrap();
    let (found, is_all) = world.target.look_for_foreign(&nothing).unwrap();
    let mut found: Vec<ForeignWhy> = found.iter().map(|it| it.why).collect();
    found.sort_unstable();
    assert!(is_all);
    assert_eq!(found, [ForeignWhy::Missing, ForeignWhy::Changed, ForeignWhy::Occupied]);
}
