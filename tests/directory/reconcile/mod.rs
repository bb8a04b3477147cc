//! Trees of which nobody knows what generation they are: seeded by hand, with a lost index, of a node that
//! served before.

mod refused;
mod stops;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use hotpair::manifest::{Keep, Preview};
use hotpair::store::tree::apply::Outcome;
use hotpair::store::tree::capture::Progress;
use hotpair::store::tree::receive::Limits;
use hotpair::store::tree::reconcile::Reading;
use hotpair::store::tree::target::{Target, TargetError};
use hotpair::units::{TreeNumber, TreePosition};
use tempfile::TempDir;

use crate::pair::{Shipped, Source, Terms, ship, ship_whole, target};
use crate::trees::judge;
use crate::trees::operations::Storm;

const BOTH: [Keep; 2] = [Keep::Undo, Keep::Quarantine];

struct World {
    outer: TempDir,
    source: Source,
}

impl World {
    /// A source with what `make` makes.
    fn new(make: impl FnOnce(&Path)) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let mut source = Source::new(&outer.path().join("a"), &Terms::default());
        make(&source.tree);
        source.scan().unwrap();
        Self { outer, source }
    }

    /// A source whose tree a storm went through.
    fn stormy(seed: u64, steps: usize) -> Self {
        Self::new(|tree| Storm::new(tree, seed).run(steps))
    }

    fn here(&self) -> PathBuf {
        self.outer.path().join("b")
    }

    fn tree(&self) -> PathBuf {
        self.here().join("tree")
    }

    fn state(&self, file: &str) -> PathBuf {
        self.here().join("state").join(file)
    }

    fn lost(&self, path: &str) -> PathBuf {
        self.here().join(".hotpair-target/lost+hotpair/3").join(path)
    }

    /// The tree of the source is copied to the other node, by hand.
    fn seed(&self) {
        fs::create_dir_all(self.here()).unwrap();
        copy(&self.source.tree, &self.tree());
    }

    fn open(&self) -> Target {
        target(&self.here(), &Terms::default()).unwrap().0
    }

    /// A target at the generation of the source, not open.
    fn settled(self) -> Self {
        ship(&self.source, &mut self.open()).unwrap();
        self
    }

    /// Opens a target that is not known, and looks at it.
    fn surveyed(&self, reading: Reading) -> Target {
        let mut there = self.open();
        assert!(!there.is_known());
        assert_eq!(there.position(), TreePosition::default());
        assert!(matches!(there.begin(Limits::default()), Err(TargetError::Unknown)));
        let whole = there.begin_whole(Limits::default(), Keep::Undo);
        assert!(matches!(whole, Err(TargetError::NotSurveyed)));
        let captured = there.survey(reading, TreeNumber(70), &Progress::default()).unwrap();
        assert!(captured.is_closed && captured.fuzzy.count() == 0, "{captured:?}");
        there
    }

    /// The target becomes what the source is.
    fn take(&self, there: &mut Target, keep: Keep) -> (Shipped, Preview) {
        let result = ship_whole(&self.source, there, keep).unwrap();
        self.check(there);
        result
    }

    /// The target is what the source is, and goes on from there as any other.
    fn check(&self, there: &Target) {
        judge::equal(&self.source.tree, &self.tree()).unwrap();
        assert!(there.is_known());
        assert_eq!(there.position(), self.source.position());
    }

    fn take_and_go_on(&mut self, mut there: Target, keep: Keep) -> (Shipped, Preview) {
        let result = self.take(&mut there, keep);
        drop(there);
        let (mut there, outcome) = target(&self.here(), &Terms::default()).unwrap();
        assert!(matches!(outcome, Outcome::Rest), "{outcome:?}");
        self.check(&there);
        let later = self.source.tree.join("later");
        fs::create_dir_all(&later).unwrap();
        Storm::new(&later, 5).run(20);
        for entry in fs::read_dir(&self.source.tree).unwrap() {
            let path = entry.unwrap().path();
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
        self.source.scan().unwrap();
        ship(&self.source, &mut there).unwrap();
        self.check(&there);
        let names: Vec<String> = fs::read_dir(self.here().join("state"))
            .unwrap()
            .map(|it| it.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("journal-") && !name.starts_with("kept-"))
            .collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.retain(|name| *name != "index.redb.damaged");
        assert_eq!(names, ["index.redb", "tree.delta", "tree.records"]);
        result
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

fn counts(preview: Preview) -> [u64; 5] {
    let Preview { identical, changed, replaced, deleted, new } = preview;
    [identical, changed, replaced, deleted, new]
}

/// Inode and times of all that is below a folder.
fn stamps(path: &Path) -> BTreeMap<PathBuf, (u64, i64, i64, i64, i64)> {
    let mut stamps = BTreeMap::new();
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let it = path.symlink_metadata().unwrap();
        if it.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let times = (it.ino(), it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec());
        stamps.insert(path, times);
    }
    stamps
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

/// Files of two and a half chunks in some folders.
fn many(tree: &Path) {
    for number in 0..10 {
        let folder = tree.join(format!("d{number}"));
        fs::create_dir(&folder).unwrap();
        for file in 0..20 {
            let content = noise(number * 100 + file, 160 << 10);
            fs::write(folder.join(format!("f{file}")), content).unwrap();
        }
    }
}

#[test]
fn a_tree_that_was_copied_by_hand_is_taken_as_it_is() {
    for keep in BOTH {
        let mut world = World::stormy(1, 150);
        world.seed();
        let before = stamps(&world.tree());
        let mut there = world.surveyed(Reading::Everything);
        assert_eq!(there.generation().unwrap(), None);
        let (shipped, preview) = world.take(&mut there, keep);
        assert_eq!((shipped.chunks, shipped.payload), (0, 0));
        assert_eq!(counts(preview), [before.len() as u64 - 1, 0, 0, 0, 0]);
        assert_eq!(stamps(&world.tree()), before);
        drop(there);
        fs::write(world.source.tree.join("one more"), "one more").unwrap();
        world.source.capture().unwrap();
        let mut there = world.open();
        ship(&world.source, &mut there).unwrap();
        world.check(&there);
    }
}

/// One name in a hundred differs, in each way that there is.
fn differ(tree: &Path) {
    let path = |text: &str| tree.join(text);
    let edited = OpenOptions::new().write(true).open(path("d0/f0")).unwrap();
    edited.write_all_at(b"other", 70_000).unwrap();
    fs::write(path("d1/f1"), "shorter").unwrap();
    fs::set_permissions(path("d2/f2"), Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(path("d3/f3")).unwrap();
    fs::write(path("d4/added"), noise(99, 100_000)).unwrap();
    fs::rename(path("d5/f5"), path("d5/renamed")).unwrap();
    fs::remove_file(path("d6/f6")).unwrap();
    fs::create_dir(path("d6/f6")).unwrap();
    fs::write(path("d6/f6/inner"), "inner").unwrap();
    fs::remove_file(path("d7/f7")).unwrap();
    symlink("elsewhere", path("d7/f7")).unwrap();
    fs::remove_dir_all(path("d8")).unwrap();
    fs::write(path("d8"), "a file").unwrap();
    fs::remove_file(path("d9/f9")).unwrap();
    fs::hard_link(path("d9/f8"), path("d9/f9")).unwrap();
    fs::create_dir_all(path("added/empty/deep")).unwrap();
    fs::create_dir(path("added/full")).unwrap();
    fs::write(path("added/full/f"), "only here").unwrap();
}

#[test]
fn what_differs_is_mended_and_only_unknown_chunks_are_sent() {
    for keep in BOTH {
        let mut world = World::new(many);
        world.seed();
        differ(&world.tree());
        let saved = world.outer.path().join("saved");
        copy(&world.tree(), &saved);
        let there = world.surveyed(Reading::Everything);
        let (shipped, preview) = world.take_and_go_on(there, keep);
        // A chunk of what was edited, three of what was shortened, and all of 3, 6, 7 and 9, and of a folder.
        assert_eq!(shipped.chunks, 1 + 3 + 4 * 3 + 20 * 3, "{keep:?}");
        let (new, deleted, replaced) = (2 + 20, 2 + 1 + 5, 6);
        // A mode, and the times of folders in which names came and went.
        let changed = 1 + 6;
        let identical = 10 + 200 - new - replaced - changed;
        assert_eq!(counts(preview), [identical, changed, replaced, deleted, new], "{keep:?}");
        if keep == Keep::Undo {
            assert!(!world.lost("").exists());
            continue;
        }
        let kept =
            ["d0/f0", "d1/f1", "d4/added", "d5/renamed", "d6/f6/inner", "d8", "added/full/f"];
        for path in kept {
            assert_eq!(
                fs::read(world.lost(path)).unwrap(),
                fs::read(saved.join(path)).unwrap(),
                "{path}"
            );
        }
        assert_eq!(fs::read_link(world.lost("d7/f7")).unwrap(), Path::new("elsewhere"));
        assert!(world.lost("added/empty/deep").is_dir());
        // A further name of a file that stays is nothing that is lost.
        assert!(!world.lost("d9").exists());
        assert!(!world.lost("d2").exists());
        let why = fs::read_to_string(world.lost("WHY.jsonl")).unwrap();
        assert_eq!(why.lines().count(), 7 + 1 + 1);
        let undo = fs::read_dir(world.here().join(".hotpair-target/undo")).unwrap();
        let left: Vec<_> = undo.map(|it| it.unwrap().file_name()).collect();
        assert!(!left.contains(&"1".into()), "{left:?}");
        assert!(!world.state("journal-1").exists());
    }
}

#[test]
fn a_tree_with_nothing_in_common_is_replaced_whole() {
    for keep in BOTH {
        let mut world = World::stormy(3, 60);
        let other = World::stormy(4, 60);
        fs::create_dir_all(world.here()).unwrap();
        copy(&other.source.tree, &world.tree());
        let there = world.surveyed(Reading::Everything);
        world.take_and_go_on(there, keep);
    }
}

#[test]
fn an_empty_tree_needs_no_survey() {
    let mut world = World::stormy(5, 60);
    let mut there = world.open();
    assert!(there.is_known());
    let (_, preview) = world.take(&mut there, Keep::Quarantine);
    let names = stamps(&world.source.tree).len() as u64 - 1;
    assert_eq!(counts(preview), [0, 0, 0, 0, names]);
    // Where the source does not know the position, a tree that is known takes all of it, too.
    fs::write(world.source.tree.join("later"), "later").unwrap();
    world.source.capture().unwrap();
    let (shipped, preview) = world.take(&mut there, Keep::Undo);
    assert_eq!((shipped.chunks, preview.new, preview.deleted), (1, 1, 0));
}

#[test]
fn a_lost_index_is_made_from_the_tree() {
    for is_damaged in [false, true] {
        let mut world = World::stormy(6, 80).settled();
        if is_damaged {
            fs::write(world.state("index.redb"), "no database").unwrap();
        } else {
            fs::remove_file(world.state("index.redb")).unwrap();
        }
        let before = stamps(&world.tree());
        let there = world.surveyed(Reading::Everything);
        assert_eq!(world.state("index.redb.damaged").exists(), is_damaged);
        // It can be served, though not built on.
        assert_eq!(there.generation().unwrap(), Some(world.source.position()));
        let (shipped, preview) = world.take_and_go_on(there, Keep::Quarantine);
        assert_eq!(shipped.chunks, 0);
        assert_eq!(counts(preview), [before.len() as u64 - 1, 0, 0, 0, 0]);
        assert!(!world.lost("").exists());
    }
}

#[test]
fn an_index_of_another_generation_than_the_records_is_not_believed() {
    for (file, reading) in [
        ("index.redb", Reading::Everything),
        ("index.redb", Reading::Changes),
        ("tree.records", Reading::Everything),
        ("tree.records", Reading::Changes),
    ] {
        let mut world = World::stormy(7, 60).settled();
        let old = world.outer.path().join("old");
        copy(&world.state(file), &old);
        fs::write(world.source.tree.join("second"), "second").unwrap();
        world.source.capture().unwrap();
        ship(&world.source, &mut world.open()).unwrap();
        fs::rename(&old, world.state(file)).unwrap();
        let there = world.surveyed(reading);
        let is_behind = file == "index.redb";
        assert_eq!(there.generation().unwrap().is_some(), is_behind, "{file} {reading:?}");
        let (shipped, preview) = world.take_and_go_on(there, Keep::Quarantine);
        assert_eq!((shipped.chunks, preview.replaced + preview.deleted + preview.new), (0, 0));
    }
}

#[test]
fn what_was_renamed_on_either_side_is_not_sent() {
    for keep in BOTH {
        let mut world = World::new(many);
        world.seed();
        fs::rename(world.source.tree.join("d0"), world.source.tree.join("there")).unwrap();
        fs::rename(world.source.tree.join("d1/f1"), world.source.tree.join("d2/moved")).unwrap();
        world.source.capture().unwrap();
        fs::rename(world.tree().join("d3"), world.tree().join("d4/here")).unwrap();
        fs::rename(world.tree().join("d5/f5"), world.tree().join("d5/g")).unwrap();
        let inodes = |path: PathBuf| fs::metadata(path).unwrap().ino();
        let moved = inodes(world.tree().join("d4/here/f7"));
        let there = world.surveyed(Reading::Everything);
        let (shipped, _) = world.take_and_go_on(there, keep);
        assert_eq!(shipped.chunks, 0);
        let is_moved = inodes(world.tree().join("d3/f7")) == moved;
        assert_eq!(is_moved, keep == Keep::Undo);
    }
}

#[test]
fn hard_links_are_grouped_as_they_are_there() {
    for keep in BOTH {
        let mut world = World::new(|tree| {
            for name in ["a", "b", "c", "d", "e"] {
                fs::write(tree.join(name), "the same").unwrap();
            }
            fs::remove_file(tree.join("b")).unwrap();
            fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
            fs::create_dir(tree.join("dir")).unwrap();
            fs::hard_link(tree.join("c"), tree.join("dir/c")).unwrap();
        });
        fs::create_dir_all(world.tree().join("dir")).unwrap();
        for name in ["a", "c"] {
            fs::write(world.tree().join(name), "the same").unwrap();
        }
        for (from, to) in [("a", "d"), ("a", "dir/c"), ("c", "b"), ("c", "e"), ("a", "x")] {
            fs::hard_link(world.tree().join(from), world.tree().join(to)).unwrap();
        }
        let there = world.surveyed(Reading::Everything);
        let (shipped, _) = world.take_and_go_on(there, keep);
        assert_eq!(shipped.chunks, 0);
    }
}

/// Test 33.
#[test]
fn a_node_that_served_before_loses_nothing_that_only_it_had() {
    let mut world = World::new(many).settled();
    let mut old = Source::new(&world.here(), &Terms::default());
    differ(&old.tree);
    old.scan().unwrap();
    let tail = old.position();
    drop(old);
    // Meanwhile the other one served.
    let tree = world.source.tree.clone();
    fs::write(tree.join("d1/f1"), "of the new one").unwrap();
    fs::write(tree.join("d4/added"), "added there, too").unwrap();
    fs::remove_dir_all(tree.join("d2")).unwrap();
    world.source.capture().unwrap();
    let saved = world.outer.path().join("saved");
    copy(&world.tree(), &saved);
    let there = world.surveyed(Reading::Changes);
    assert_ne!(tail, world.source.position());
    world.take_and_go_on(there, Keep::Quarantine);
    let edited = ["d0/f0", "d1/f1", "d8"];
    let others = ["d2/f2", "d2/f3", "d4/added", "d5/renamed", "d6/f6/inner", "added/full/f"];
    for path in edited.into_iter().chain(others) {
        let kept = fs::read(world.lost(path)).unwrap();
        assert_eq!(kept, fs::read(saved.join(path)).unwrap(), "{path}");
        let names = fs::metadata(world.lost(path)).unwrap().nlink();
        assert_eq!(names, 1, "{path} is a file of the tree");
    }
    let mode = fs::metadata(world.lost("d2/f2")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_applications_noted_beside_a_content_is_kept_with_it() {
    let mut world = World::new(|tree| fs::write(tree.join("f"), "the same").unwrap());
    world.seed();
    let note = |path: &Path| {
        let held = fs::File::open(path).unwrap();
        rustix::fs::fsetxattr(held, "user.note", b"mine", rustix::fs::XattrFlags::empty()).unwrap();
    };
    note(&world.tree().join("f"));
    let there = world.surveyed(Reading::Everything);
    let (_, preview) = world.take_and_go_on(there, Keep::Quarantine);
    assert_eq!(counts(preview), [0, 0, 1, 0, 0]);
    let mut value = [0; 16];
    let held = fs::File::open(world.lost("f")).unwrap();
    let len = rustix::fs::fgetxattr(held, "user.note", &mut value).unwrap();
    assert_eq!(&value[..len], b"mine");
}

#[test]
fn a_node_that_goes_from_source_to_target_knows_what_it_captured() {
    let world = World::stormy(8, 40).settled();
    let mut old = Source::new(&world.here(), &Terms::default());
    fs::write(world.tree().join("of mine"), "mine").unwrap();
    let last = old.scan().unwrap().position;
    drop(old);
    let mut there = world.open();
    assert!(!there.is_known());
    assert_eq!(there.adopt(None).unwrap(), last);
    assert_eq!(there.position(), last);
    drop(there);
    let there = world.open();
    assert!(there.is_known());
    assert_eq!(there.position(), last);
}

/// The other node takes over: who has the same generation goes on with what changed, who has none gets all.
#[test]
fn a_node_that_was_reconciled_serves_as_any_other() {
    let mut world = World::stormy(13, 60);
    world.seed();
    fs::write(world.tree().join("mine"), "mine").unwrap();
    let mut there = world.surveyed(Reading::Everything);
    world.take(&mut there, Keep::Quarantine);
    drop(there);
    let second = world.outer.path().join("second");
    ship(&world.source, &mut target(&second, &Terms::default()).unwrap().0).unwrap();
    let was = world.source.position();
    world.source = Source::new(&world.here(), &Terms::default());
    fs::write(world.tree().join("new"), "new").unwrap();
    world.source.scan().unwrap();
    assert_eq!(world.source.position().number.0, was.number.0 + 1);
    for outer in [second, world.outer.path().join("third")] {
        let (mut there, _) = target(&outer, &Terms::default()).unwrap();
        let shipped = ship(&world.source, &mut there).unwrap();
        judge::equal(&world.tree(), &outer.join("tree")).unwrap();
        assert_eq!(shipped.chunks == 1, outer.ends_with("second"));
    }
}
