//! Generations that are kept: listed, given up, gone back to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::pair::{Source, Terms, moment, ship_as, ship_whole, target};
use crate::trees::judge;
use crate::trees::operations::Storm;
use hotpair::manifest::Reason::{Current, OnTheWay, Pinned, Recent, Spare, Stable};
use hotpair::manifest::{FileTime, Keep, Policy, Reason};
use hotpair::store::tree::apply::{Outcome, Steps};
use hotpair::store::tree::capture::Progress;
use hotpair::store::tree::receive::Prepare;
use hotpair::store::tree::reconcile::Reading;
use hotpair::store::tree::target::{Pruned, Target, TargetError};
use hotpair::units::{Label, TreeNumber};

const ALL: Policy = Policy { keep: usize::MAX, limit_bytes: u64::MAX, wanted_bytes: 0 };

fn now() -> FileTime {
    FileTime { seconds: 1_000_000, nanos: 0 }
}

fn copy(from: &Path, to: &Path) {
    let mut copy = Command::new("cp");
    assert!(copy.arg("-a").arg(from).arg(to).status().unwrap().success());
}

struct World {
    outer: TempDir,
    source: Source,
    target: Target,
    /// Copies of the trees of all generations.
    saved: BTreeMap<TreeNumber, PathBuf>,
}

impl World {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let mut source = Source::new(&outer.path().join("a"), &Terms::default());
        source.scan().unwrap();
        let (there, _) = target(&outer.path().join("b"), &Terms::default()).unwrap();
        Self { outer, source, target: there, saved: BTreeMap::new() }
    }

    fn tree(&self) -> PathBuf {
        self.outer.path().join("b/tree")
    }

    fn start(&mut self) -> Outcome {
        // The index is locked as long as it is open.
        let (elsewhere, _) = target(&self.outer.path().join("c"), &Terms::default()).unwrap();
        drop(std::mem::replace(&mut self.target, elsewhere));
        let (there, outcome) = target(&self.outer.path().join("b"), &Terms::default()).unwrap();
        drop(std::mem::replace(&mut self.target, there));
        outcome
    }

    fn save(&mut self) {
        let number = self.target.position().number;
        let to = self.outer.path().join(format!("saved-{number}"));
        copy(&self.tree(), &to);
        self.saved.insert(number, to);
    }

    fn next(&mut self, label: Label, change: impl FnOnce(&Path)) {
        change(&self.source.tree);
        self.source.scan().unwrap();
        ship_as(&self.source, &mut self.target, |prepared| {
            prepared.label = label;
            prepared.captured_at = FileTime { seconds: 999_000, nanos: 7 };
        })
        .unwrap();
        self.save();
    }

    fn numbers(&self, policy: &Policy) -> Vec<(u64, Reason)> {
        let all = self.target.generations(policy, now()).unwrap();
        all.iter().map(|it| (it.about.position.number.0, it.why)).collect()
    }

    fn kept(&self) -> Vec<TreeNumber> {
        self.numbers(&ALL).into_iter().map(|(number, _)| TreeNumber(number)).collect()
    }

    /// Goes back to the content of a generation.
    fn back(&mut self, to: TreeNumber) -> Result<(), TargetError> {
        let before = self.target.position().number;
        let Prepare::Ready(prepared) = self.target.roll_back(to, TreeNumber(0))? else {
            panic!("nobody else writes here");
        };
        self.target.commit(&prepared, &[3; 512])?;
        let outcome = self.target.apply(*prepared, moment())?;
        assert!(matches!(outcome, Outcome::Applied(_)), "{outcome:?}");
        assert!(self.target.position().number > before);
        judge::equal(&self.saved[&to], &self.tree()).unwrap();
        assert_eq!(self.target.find_foreign().unwrap(), []);
        let saved = self.saved[&to].clone();
        self.saved.insert(self.target.position().number, saved);
        Ok(())
    }

    fn undo_folders(&self) -> usize {
        fs::read_dir(self.outer.path().join("b/.hotpair-target/undo")).unwrap().count()
    }

    /// Names in the state folder that begin so.
    fn state_files(&self, prefix: &str) -> usize {
        let names = fs::read_dir(self.outer.path().join("b/state")).unwrap();
        names
            .filter(|it| it.as_ref().unwrap().file_name().to_string_lossy().starts_with(prefix))
            .count()
    }
}

/// Test 43.
#[test]
fn each_kept_generation_can_be_gone_back_to_and_that_as_well() {
    for seed in 40..43 {
        let mut world = World::new();
        let mut storm = Storm::new(&world.source.tree, seed);
        for _ in 0..5 {
            world.next(Label::Stable, |_| storm.run(25));
        }
        let kept = world.kept();
        assert_eq!(kept.len(), 5, "seed {seed}");
        for to in kept.iter().copied().chain(kept.iter().rev().copied()) {
            if to == world.target.position().number {
                continue;
            }
            world.back(to).unwrap_or_else(|error| panic!("seed {seed}, to {to}: {error}"));
            if to.0 % 2 == 0 {
                world.start();
            }
        }
        // Those that the ways back made are kept, too.
        let more = world.kept();
        assert!(more.len() > 10, "seed {seed}: {more:?}");
        for to in [more[3], more[more.len() - 2], more[7]] {
            world.back(to).unwrap_or_else(|error| panic!("seed {seed}, to {to}: {error}"));
        }
        let policy = Policy { keep: 2, ..ALL };
        world.target.prune(&policy).unwrap();
        assert_eq!(world.kept().len(), 3, "seed {seed}");
        let oldest = world.kept()[2];
        world.back(oldest).unwrap();
    }
}

/// Files that are patched in place are gone back to chunk by chunk.
#[test]
fn a_huge_file_is_gone_back_to_by_the_chunks_that_changed() {
    let mut world = World::new();
    let len = 70 << 20;
    let write = |tree: &Path, at: u64, byte: u8| {
        let file = fs::OpenOptions::new().write(true).open(tree.join("huge")).unwrap();
        file.write_all_at(&[byte; 100], at).unwrap();
    };
    world.next(Label::Stable, |tree| {
        let words = (0..len / 4_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes());
        fs::write(tree.join("huge"), words.flatten().collect::<Vec<u8>>()).unwrap();
    });
    for round in 1..4_u8 {
        world.next(Label::Stable, |tree| write(tree, u64::from(round) * 9_000_000, round));
    }
    world.next(Label::Stable, |tree| {
        let file = fs::OpenOptions::new().write(true).open(tree.join("huge")).unwrap();
        file.set_len(u64::from(len) - 300_000).unwrap();
    });
    world.next(Label::Stable, |tree| write(tree, 90 << 20, 5));
    world.next(Label::Stable, |tree| fs::remove_file(tree.join("huge")).unwrap());
    let kept = world.kept();
    for to in [kept[6], kept[1], kept[4], kept[0], kept[5], kept[2], kept[3]] {
        world.back(to).unwrap_or_else(|error| panic!("to {to}: {error}"));
    }
}

#[test]
fn what_is_told_of_a_generation_survives_a_start_and_what_is_spare_is_given_up() {
    let mut world = World::new();
    for round in 0..6 {
        let label = if round == 1 { Label::Stable } else { Label::Fuzzy };
        world.next(label, |tree| {
            fs::write(tree.join("a"), vec![round + 1; 100_000]).unwrap();
            fs::write(tree.join(format!("{round}")), "x").unwrap();
            if round > 0 {
                fs::remove_file(tree.join(format!("{}", round - 1))).unwrap();
            }
        });
    }
    let policy = Policy { keep: 2, limit_bytes: 1 << 30, wanted_bytes: 0 };
    let mut expected = None;
    for _ in 0..2 {
        let all = world.target.generations(&policy, now()).unwrap();
        let numbers: Vec<u64> = all.iter().map(|it| it.about.position.number.0).collect();
        assert_eq!(numbers, [7, 6, 5, 4, 3, 2]);
        let why: Vec<Reason> = all.iter().map(|it| it.why).collect();
        assert_eq!(why, [Current, Recent, Recent, Stable, Stable, Spare]);
        let one = &all[1];
        assert_eq!((one.about.label, one.about.captured_at.nanos), (Label::Fuzzy, 7));
        assert_eq!(one.age.map(|age| age.as_secs()), Some(1000));
        assert_eq!((one.about.entries, one.about.deleted), (2, 1));
        assert!(one.held_bytes >= 100_000 && all[0].held_bytes == 0);
        assert_eq!(all[4].about.label, Label::Stable);
        assert_eq!(*expected.get_or_insert(all.clone()), all);
        world.start();
    }
    let pruned = world.target.prune(&policy).unwrap();
    assert_eq!(pruned.dropped, [TreeNumber(2)]);
    assert!(pruned.freed_bytes >= 100_000);
    assert_eq!((world.kept().len(), world.undo_folders(), world.state_files("kept-")), (5, 4, 4));
    assert!(world.target.prune(&policy).unwrap().dropped.is_empty());
    let refused = world.back(TreeNumber(2)).unwrap_err();
    assert!(matches!(refused, TargetError::NotKept(TreeNumber(2))), "{refused}");
    // Short of space all go, the oldest first, and what the tree is is still known.
    let held = world.target.generations(&policy, now()).unwrap();
    let wanted_bytes: u64 = held.iter().map(|it| it.held_bytes).sum();
    let more = Policy { wanted_bytes: wanted_bytes + 1, ..policy };
    assert_eq!(world.target.prune(&more).unwrap().dropped, [], "it would not be enough");
    let wanted = Policy { wanted_bytes, ..policy };
    let dropped = world.target.prune(&wanted).unwrap().dropped;
    assert_eq!(dropped, [3, 4, 5, 6].map(TreeNumber));
    assert_eq!(
        (world.undo_folders(), world.state_files("kept-"), world.state_files("journal-")),
        (0, 1, 0)
    );
    world.start();
    let last = world.target.generations(&policy, now()).unwrap();
    assert_eq!((last.len(), last[0].about.captured_at.nanos), (1, 7));
    world.next(Label::Stable, |tree| fs::write(tree.join("more"), "x").unwrap());
    let before = world.kept()[1];
    world.back(before).unwrap();
}

#[test]
fn a_pinned_generation_stays_until_the_deletes_are_accepted() {
    let mut world = World::new();
    world.next(Label::Stable, |tree| fs::write(tree.join("a"), vec![1; 50_000]).unwrap());
    fs::remove_file(world.source.tree.join("a")).unwrap();
    world.source.scan().unwrap();
    ship_as(&world.source, &mut world.target, |prepared| prepared.pins_base = true).unwrap();
    world.save();
    for round in 0..3 {
        world.next(Label::Stable, |tree| fs::write(tree.join("b"), [round; 9]).unwrap());
    }
    let none = Policy { keep: 0, limit_bytes: 0, wanted_bytes: u64::MAX };
    world.start();
    assert!(world.target.prune(&none).unwrap().dropped.is_empty());
    let numbers = world.numbers(&none);
    assert_eq!(numbers, [(6, Current), (5, OnTheWay), (4, OnTheWay), (3, OnTheWay), (2, Pinned)]);
    world.back(TreeNumber(2)).unwrap();
    world.target.unpin().unwrap();
    world.start();
    assert_eq!(world.target.prune(&none).unwrap().dropped.len(), 5);
    assert_eq!((world.kept().len(), world.state_files("pinned-")), (1, 0));
}

/// A stop within the removal is made good by the next one; one within the apply of a way back by the next start.
#[test]
fn a_stop_while_a_generation_is_given_up_or_gone_back_to_leaves_whole_ones() {
    for stop in 0.. {
        let mut world = World::new();
        let mut storm = Storm::new(&world.source.tree, 9);
        for _ in 0..4 {
            world.next(Label::Stable, |_| storm.run(15));
        }
        world.target.applier_mut().limit(Steps::until(stop));
        let policy = Policy { keep: 1, ..ALL };
        let policy = Policy { limit_bytes: 0, ..policy };
        let pruned = world.target.prune(&policy);
        world.start();
        for to in world.kept().into_iter().skip(1) {
            world.back(to).unwrap_or_else(|error| panic!("stop {stop}: {error}"));
        }
        let numbers = world.kept().len();
        world.target.prune(&policy).unwrap();
        assert_eq!((world.kept().len(), world.undo_folders()), (2, 1), "stop {stop} of {numbers}");
        if pruned.is_ok() {
            break;
        }
    }
    for stop in 0.. {
        let mut world = World::new();
        let mut storm = Storm::new(&world.source.tree, 10);
        for _ in 0..3 {
            world.next(Label::Stable, |_| storm.run(15));
        }
        let (to, from) = (world.kept()[2], world.kept()[0]);
        world.target.applier_mut().limit(Steps::until(stop));
        let done = world.back(to);
        world.start();
        let now = world.target.position().number;
        let expected = if now == from { from } else { to };
        judge::equal(&world.saved[&expected], &world.tree()).unwrap();
        if done.is_ok() {
            assert!(stop > 5);
            break;
        }
        if now == from {
            world.back(to).unwrap();
        }
    }
}

#[test]
fn what_is_damaged_or_gone_in_undo_is_refused_before_anything_changes() {
    let mut world = World::new();
    world.next(Label::Stable, |tree| fs::write(tree.join("a"), vec![1; 150_000]).unwrap());
    world.next(Label::Stable, |tree| fs::write(tree.join("a"), vec![2; 150_000]).unwrap());
    let folder = world.outer.path().join("b/.hotpair-target/undo/2");
    let held = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&held).unwrap();
    let mut rotten = whole.clone();
    rotten[80_000] ^= 1;
    fs::write(&held, rotten).unwrap();
    let refused = world.back(TreeNumber(2)).unwrap_err();
    assert!(matches!(refused, TargetError::NotHeld { chunk: 1, .. }), "{refused}");
    judge::equal(&world.saved[&TreeNumber(3)], &world.tree()).unwrap();
    fs::write(&held, whole).unwrap();
    // What is told of it, damaged: it is not listed, and the next one is.
    let path = world.outer.path().join("b/state/kept-2");
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 30;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let refused = world.back(TreeNumber(2)).unwrap_err();
    assert!(matches!(refused, TargetError::Kept(_)), "{refused}");
    bytes[last] ^= 1;
    bytes[30] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(world.kept(), [TreeNumber(3)]);
    bytes[30] ^= 1;
    fs::write(&path, &bytes).unwrap();
    world.back(TreeNumber(2)).unwrap();
}

/// The newest one says what the tree is, and leads to all others.
#[test]
fn a_file_that_cannot_be_read_costs_nothing_at_once_and_what_it_costs_is_told() {
    let mut world = World::new();
    for round in 0..4 {
        world.next(Label::Stable, |tree| fs::write(tree.join("a"), [round; 9]).unwrap());
    }
    let kept = world.kept();
    let path = world.outer.path().join("b/state/kept-4");
    let flip = || {
        let mut bytes = fs::read(&path).unwrap();
        bytes[30] ^= 1;
        fs::write(&path, &bytes).unwrap();
    };
    flip();
    let policy = Policy { keep: 2, limit_bytes: 0, wanted_bytes: 0 };
    for _ in 0..2 {
        assert_eq!(world.target.prune(&policy).unwrap(), Pruned::default());
        assert_eq!(world.kept().len(), 1);
        world.start();
    }
    // The disk reads it after all.
    flip();
    assert_eq!(world.kept(), kept);
    world.back(kept[3]).unwrap();
    flip();
    // As long as fewer than wanted are kept without it, what is behind it stays.
    assert_eq!(world.target.prune(&policy).unwrap().cut_off, []);
    world.back(kept[0]).unwrap();
    let cut_off = world.target.prune(&policy).unwrap().cut_off;
    assert_eq!(cut_off, [kept[3], kept[2]]);
    assert_eq!((world.kept().len(), world.state_files("journal-")), (3, 2));
}

/// A file with a further name in the tree takes its room there.
#[test]
fn what_has_a_name_in_the_tree_is_not_held_for_an_earlier_generation() {
    let mut world = World::new();
    world.next(Label::Stable, |tree| {
        fs::write(tree.join("a"), vec![1; 300_000]).unwrap();
        fs::hard_link(tree.join("a"), tree.join("b")).unwrap();
    });
    world.next(Label::Stable, |tree| fs::remove_file(tree.join("b")).unwrap());
    let held = |world: &World| world.target.generations(&ALL, now()).unwrap()[1].held_bytes;
    assert_eq!(held(&world), 0);
    // With all its names it is, once.
    world.next(Label::Stable, |tree| {
        fs::write(tree.join("c"), vec![2; 300_000]).unwrap();
        fs::hard_link(tree.join("c"), tree.join("d")).unwrap();
    });
    world.next(Label::Stable, |tree| {
        fs::remove_file(tree.join("c")).unwrap();
        fs::remove_file(tree.join("d")).unwrap();
    });
    let bytes = held(&world);
    assert!((300_000..600_000).contains(&bytes), "{bytes}");
}

/// Where the records of a whole tree were taken, objects have other numbers before and after.
#[test]
fn nothing_leads_back_behind_the_records_of_a_whole_tree() {
    let mut world = World::new();
    for round in 0..3 {
        world.next(Label::Stable, |tree| fs::write(tree.join("a"), [round; 9]).unwrap());
    }
    assert_eq!(world.kept().len(), 3);
    fs::write(world.source.tree.join("a"), "other").unwrap();
    world.source.scan().unwrap();
    for keep in [Keep::Undo, Keep::Quarantine] {
        world.target.doubt();
        let progress = Progress::default();
        world.target.survey(Reading::Changes, TreeNumber(0), &progress).unwrap();
        fs::write(world.source.tree.join("b"), format!("{keep:?}")).unwrap();
        world.source.scan().unwrap();
        ship_whole(&world.source, &mut world.target, keep).unwrap();
        let now = world.target.position().number;
        assert_eq!(world.kept(), [now]);
        for is_first in [true, false] {
            let cut_off = world.target.prune(&ALL).unwrap().cut_off;
            let expected: &[u64] = if is_first && keep == Keep::Undo { &[2, 3] } else { &[] };
            assert_eq!(cut_off.iter().map(|it| it.0).collect::<Vec<_>>(), expected);
            assert_eq!((world.kept(), world.undo_folders()), (vec![now], 0));
            world.start();
        }
        let refused = world.target.roll_back(TreeNumber(2), TreeNumber(0)).err();
        assert!(matches!(refused, Some(TargetError::NotKept(_))), "{refused:?}");
    }
    // From there on everything is as before.
    world.save();
    world.next(Label::Stable, |tree| fs::write(tree.join("a"), "more").unwrap());
    let before = world.kept()[1];
    world.back(before).unwrap();
}
