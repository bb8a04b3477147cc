//! Real trees become other ones, and themselves again, from wherever they were stopped.

use std::os::unix::ffi::OsStrExt as _;

use fastrand::Rng;
use rustix::fs::{CWD, renameat};
use rustix::io::Errno;

use super::super::folder::os;
use super::super::work_area::WorkArea;
use super::world::{Contents, MOMENT, World, followed, is_root, name, random_side, recovered, run};
use super::{ApplyError, Outcome, REGISTER_LEN, Steps};
use crate::manifest::apply::{Change, Journal, JournalNumber, Operation, Side, rollback};
use crate::manifest::{Body, FileTime, Kind, Metadata, Object};
use crate::units::{ObjectId, TreeNumber, TreePosition};

const ROOT: ObjectId = ObjectId::ROOT;

/// Two states of a tree that have much in common.
pub(super) struct Case {
    seed: u64,
    contents: Contents,
    pub(super) base: Side,
    target: Side,
}

impl Case {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut contents = Contents::default();
        let base = random_side(&mut rng, &mut contents, None);
        let target = random_side(&mut rng, &mut contents, Some(&base));
        Self { seed, contents, base, target }
    }

    /// A node that has the base, and is to get the target.
    pub(super) fn prepared(&self) -> (World, Change, Journal) {
        let mut world = World::new(&self.base, &self.contents);
        let (change, journal) = world.prepare(&self.target, self.seed.is_multiple_of(2));
        (world, change, journal)
    }

    /// How many steps a commit takes, and an apply.
    pub(super) fn steps(&self) -> (u64, u64) {
        let (world, _, journal) = self.prepared();
        let mut applier = world.start();
        applier.commit(&journal, &[1; REGISTER_LEN]).unwrap();
        let commit = applier.steps().taken();
        applier.apply(MOMENT, &mut followed).unwrap();
        (commit, applier.steps().taken() - commit)
    }

    pub(super) fn told(&self, more: &str) -> String {
        format!("seed {}, {more}", self.seed)
    }
}

pub(super) fn is_applied(outcome: &Result<Outcome, ApplyError>) -> bool {
    matches!(outcome, Ok(Outcome::Applied(_)))
}

pub(super) fn is_undone(outcome: &Result<Outcome, ApplyError>) -> bool {
    matches!(outcome, Ok(Outcome::Undone { .. }))
}

#[test]
fn a_tree_becomes_any_other_one_and_is_rolled_back_to_the_very_objects_it_was() {
    for seed in 0..100 {
        let case = Case::new(seed);
        let (mut world, change, journal) = case.prepared();
        let (outcome, _) = run(&world, &journal, Steps::unlimited());
        assert!(is_applied(&outcome), "{}: {outcome:?}", case.told(""));
        world.check_target(&change, &case.told("applied"));
        assert!(world.quarantined().is_empty(), "{}", case.told(""));

        let mut applier = world.start();
        assert_eq!(applier.records().applied.position, journal.target);
        assert_eq!(applier.records().register, [1; REGISTER_LEN]);
        assert!(matches!(applier.apply(MOMENT, &mut followed), Ok(Outcome::Rest)));
        let number = applier.next_number().unwrap();
        let kept = applier.journal(journal.number).unwrap().unwrap();
        let again = TreePosition { number: TreeNumber(9), ..journal.base };
        let back = rollback(&kept, number, again);
        let (outcome, _) = run(&world, &back, Steps::unlimited());
        assert!(is_applied(&outcome), "{}: {outcome:?}", case.told("rollback"));
        world.check_base(&change, &case.told("rolled back"));

        // And on from there to a third state, with the folders of the earlier ones in place.
        let mut contents = case.contents.clone();
        let third = random_side(&mut Rng::with_seed(!seed), &mut contents, Some(&case.base));
        world.contents = contents;
        let (change, journal) = world.prepare(&third, true);
        let (outcome, _) = run(&world, &journal, Steps::unlimited());
        assert!(is_applied(&outcome), "{}: {outcome:?}", case.told("third"));
        world.check_target(&change, &case.told("third"));
        world.became(&change);
        let mut applier = world.start();
        for number in applier.kept().unwrap() {
            applier.remove_undo(number).unwrap();
        }
        assert_eq!(applier.kept().unwrap(), []);
        assert_eq!(std::fs::read_dir(world.path(".work/undo")).unwrap().count(), 0);
        world.check_target(&change, &case.told("without undo"));
        assert!(matches!(recovered(&world, Steps::unlimited()), Ok(Outcome::Rest)));
    }
}

#[test]
fn on_the_file_system_of_temporary_files_it_is_the_same() {
    for seed in 500..512 {
        let case = Case::new(seed);
        let mut world = World::on_disk(&case.base, &case.contents);
        let (change, journal) = world.prepare(&case.target, seed.is_multiple_of(2));
        let (outcome, _) = run(&world, &journal, Steps::until(seed % 7 + 8));
        assert!(matches!(outcome, Err(ApplyError::Stopped)) || is_applied(&outcome));
        let is_committed = world.start().records().committed.journal == journal.number;
        recovered(&world, Steps::unlimited()).unwrap();
        if is_committed {
            world.check_target(&change, &case.told("recovered"));
        } else {
            world.check_base(&change, &case.told("not committed"));
        }
    }
}

fn journal_files(world: &World) -> usize {
    let names = std::fs::read_dir(world.path("state")).unwrap();
    let is_journal = |name: &[u8]| name.starts_with(b"journal-") || name.starts_with(b"back-");
    names.filter(|it| is_journal(it.as_ref().unwrap().file_name().as_bytes())).count()
}

#[test]
fn stopped_before_the_commit_record_nothing_has_changed_and_it_can_be_tried_again() {
    for seed in 0..8 {
        let case = Case::new(seed);
        let (commit, _) = case.steps();
        for stop in 0..commit {
            let told = case.told(&format!("stopped at {stop}"));
            let (mut world, change, journal) = case.prepared();
            let (outcome, _) = run(&world, &journal, Steps::until(stop));
            assert!(matches!(outcome, Err(ApplyError::Stopped)), "{told}: {outcome:?}");
            world.check_base(&change, &told);
            let outcome = recovered(&world, Steps::unlimited());
            assert!(matches!(outcome, Ok(Outcome::Rest)), "{told}: {outcome:?}");
            world.check_base(&change, &told);
            assert_eq!(world.start().records().register, [0; REGISTER_LEN]);
            assert_eq!(journal_files(&world), 0, "{told}");
            let (change, journal) = world.prepare(&case.target, false);
            assert!(is_applied(&run(&world, &journal, Steps::unlimited()).0), "{told}");
            world.check_target(&change, &told);
        }
    }
}

#[test]
fn stopped_at_any_step_it_is_brought_to_the_target_however_often_it_is_stopped_again() {
    let mut count = 0;
    for seed in 0..20 {
        let case = Case::new(seed);
        let (commit, apply) = case.steps();
        for stop in commit..commit + apply {
            let mut rng = Rng::with_seed(seed << 32 | stop);
            let again = rng.u64(..apply);
            let told = case.told(&format!("stopped at {stop} and {again}"));
            let (world, change, journal) = case.prepared();
            let (outcome, _) = run(&world, &journal, Steps::until(stop));
            assert!(matches!(outcome, Err(ApplyError::Stopped)), "{told}: {outcome:?}");
            if stop % 3 > 0 {
                // Stopped in the recovery, and in the recovery of that.
                let _ = recovered(&world, Steps::until(again));
                let _ = recovered(&world, Steps::until(rng.u64(..apply)));
            }
            recovered(&world, Steps::unlimited()).unwrap_or_else(|error| panic!("{told}: {error}"));
            world.check_target(&change, &told);
            assert!(world.quarantined().is_empty(), "{told}");
            assert!(matches!(recovered(&world, Steps::unlimited()), Ok(Outcome::Rest)), "{told}");
            count += 1;
        }
    }
    assert!(count > 500, "{count}");
}

#[test]
fn stopped_at_any_step_it_is_taken_back_to_the_very_objects_it_was() {
    for seed in 100..112 {
        let case = Case::new(seed);
        let (commit, apply) = case.steps();
        for stop in commit..commit + apply {
            let mut rng = Rng::with_seed(seed << 32 | stop);
            let again = rng.u64(..2 * apply);
            let told = case.told(&format!("stopped at {stop}, taken back, stopped at {again}"));
            let (mut world, change, journal) = case.prepared();
            let (outcome, _) = run(&world, &journal, Steps::until(stop));
            assert!(matches!(outcome, Err(ApplyError::Stopped)), "{told}: {outcome:?}");
            let mut applier = world.start();
            applier.limit(Steps::until(again));
            let _ = applier.turn_back(MOMENT, &mut followed);
            drop(applier);
            let outcome = world.start().turn_back(MOMENT, &mut followed);
            assert!(matches!(outcome, Ok(Outcome::Undone { .. } | Outcome::Rest)), "{told}");
            world.check_base(&change, &told);
            assert!(world.quarantined().is_empty(), "{told}");
            let at_rest = world.start().records().applied;
            assert_eq!(at_rest.position, journal.base, "{told}");
            assert!(at_rest.journal > journal.number, "{told}");
            assert_eq!(journal_files(&world), 0, "{told}");
            // What was staged is still there, so the same can be had without making it again.
            if stop.is_multiple_of(5) {
                let (change, journal) = world.prepare(&case.target, true);
                assert!(is_applied(&run(&world, &journal, Steps::unlimited()).0), "{told}");
                world.check_target(&change, &told);
            }
        }
    }
}

#[test]
fn without_space_it_is_as_before_and_goes_on_once_there_is_some() {
    for seed in 200..208 {
        let case = Case::new(seed);
        let (commit, apply) = case.steps();
        for stop in 0..commit + apply {
            let told = case.told(&format!("no space at {stop}"));
            let (mut world, change, journal) = case.prepared();
            let mut applier = world.start();
            applier.limit(Steps::failing(stop, Errno::NOSPC));
            let outcome = applier
                .commit(&journal, &[1; REGISTER_LEN])
                .and_then(|()| applier.apply(MOMENT, &mut followed));
            match outcome {
                Ok(Outcome::Undone { position, why: Some(why) }) => {
                    assert!(matches!(*why, ApplyError::NoSpace { .. }), "{told}: {why}");
                    assert_eq!(position, journal.base, "{told}");
                }
                Err(ApplyError::NoSpace { .. }) => assert!(stop < commit, "{told}"),
                // A sync that failed is final, whatever it failed of.
                Err(ApplyError::Failed { action: "sync", .. }) => {
                    let later = applier.apply(MOMENT, &mut followed);
                    assert!(matches!(later, Err(ApplyError::FailedBefore)), "{told}");
                    let later = applier.write_register(&[2; REGISTER_LEN]);
                    assert!(matches!(later, Err(ApplyError::FailedBefore)), "{told}");
                    continue;
                }
                other => panic!("{told}: {other:?}"),
            }
            drop(applier);
            world.check_base(&change, &told);
            let (change, journal) = world.prepare(&case.target, true);
            assert!(is_applied(&run(&world, &journal, Steps::unlimited()).0), "{told}");
            world.check_target(&change, &told);
        }
    }
}

#[test]
fn a_disk_that_failed_is_not_used_until_a_start_and_a_start_finds_what_counts() {
    for seed in 300..305 {
        let case = Case::new(seed);
        let (commit, apply) = case.steps();
        for stop in 0..commit + apply {
            let told = case.told(&format!("failed at {stop}"));
            let (world, change, journal) = case.prepared();
            let mut applier = world.start();
            applier.limit(Steps::failing(stop, Errno::IO));
            let outcome = applier
                .commit(&journal, &[1; REGISTER_LEN])
                .and_then(|()| applier.apply(MOMENT, &mut followed));
            assert!(matches!(outcome, Err(ApplyError::Failed { .. })), "{told}: {outcome:?}");
            let later = applier.apply(MOMENT, &mut followed);
            assert!(matches!(later, Err(ApplyError::FailedBefore)), "{told}");
            let later = applier.commit(&journal, &[0; REGISTER_LEN]);
            assert!(matches!(later, Err(ApplyError::FailedBefore | ApplyError::OutOfTurn { .. })));
            drop(applier);
            recovered(&world, Steps::unlimited()).unwrap();
            if stop < commit {
                world.check_base(&change, &told);
            } else {
                world.check_target(&change, &told);
            }
        }
    }
}

#[test]
fn an_index_that_does_not_follow_is_asked_again() {
    let case = Case::new(1);
    let (world, change, journal) = case.prepared();
    let mut applier = world.start();
    applier.commit(&journal, &[1; REGISTER_LEN]).unwrap();
    let mut calls = Vec::new();
    for is_ready in [false, false, true] {
        let outcome = applier.apply(MOMENT, &mut |journal| {
            calls.push(journal.target);
            if is_ready { Ok(()) } else { Err("not now".into()) }
        });
        assert_eq!(is_applied(&outcome), is_ready, "{outcome:?}");
        world.check_target(&change, "the index did not follow");
        let at = if is_ready { journal.target } else { journal.base };
        assert_eq!(applier.records().applied.position, at);
    }
    assert_eq!(calls, [journal.target; 3]);
}

#[test]
fn a_journal_out_of_turn_is_refused_and_so_is_one_whose_objects_are_not_staged() {
    let case = Case::new(3);
    let (world, change, journal) = case.prepared();
    let mut applier = world.start();
    let refused = |result| matches!(result, Err(ApplyError::OutOfTurn { .. }));
    let register = &[1; REGISTER_LEN];
    assert!(refused(
        applier.commit(&Journal { number: JournalNumber(0), ..journal.clone() }, register)
    ));
    let base = journal.target;
    assert!(refused(applier.commit(&Journal { base, ..journal.clone() }, register)));
    let staged = std::fs::read_dir(world.path(".work/stage")).unwrap().next().unwrap().unwrap();
    let aside = world.path("aside");
    renameat(CWD, staged.path(), CWD, &aside).unwrap();
    let result = applier.commit(&journal, register);
    assert!(
        matches!(result, Err(ApplyError::Missing(_) | ApplyError::Refused { .. })),
        "{result:?}"
    );
    renameat(CWD, &aside, CWD, staged.path()).unwrap();
    world.check_base(&change, "refused");
    applier.commit(&journal, register).unwrap();
    assert!(refused(applier.commit(&journal, register)));
    assert!(matches!(applier.remove_undo(journal.number), Err(ApplyError::Needed(_))));
    applier.apply(MOMENT, &mut followed).unwrap();
    assert!(refused(applier.commit(&journal, register)));
    let later = JournalNumber(journal.number.0 + 1);
    assert!(matches!(applier.remove_undo(later), Err(ApplyError::Needed(_))));
    // A way back that is under way needs the folder of what it takes back, and no older one.
    let back = rollback(&journal, later, journal.base);
    std::fs::create_dir(world.path(".work/undo/0")).unwrap();
    applier.commit(&back, register).unwrap();
    assert!(matches!(applier.remove_undo(journal.number), Err(ApplyError::Needed(_))));
    assert!(matches!(applier.remove_undo(later), Err(ApplyError::Needed(_))));
    applier.remove_undo(JournalNumber(0)).unwrap();
    applier.apply(MOMENT, &mut followed).unwrap();
    world.check_base(&change, "rolled back");
    applier.remove_undo(journal.number).unwrap();
    applier.remove_undo(later).unwrap();
    world.check_base(&change, "without undo");
}

#[test]
fn a_journal_that_is_not_what_was_committed_is_damage_and_nothing_is_touched() {
    let case = Case::new(5);
    let (world, change, journal) = case.prepared();
    let mut applier = world.start();
    applier.commit(&journal, &[1; REGISTER_LEN]).unwrap();
    let path = world.path(&format!("state/journal-{}", journal.number.0));
    let whole = std::fs::read(&path).unwrap();
    for at in [0, whole.len() / 2, whole.len() - 1] {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let outcome = recovered(&world, Steps::unlimited());
        assert!(matches!(outcome, Err(ApplyError::Damage(_))), "{outcome:?}");
    }
    std::fs::remove_file(&path).unwrap();
    let outcome = recovered(&world, Steps::unlimited());
    assert!(matches!(outcome, Err(ApplyError::Damage(_))), "{outcome:?}");
    assert!(matches!(applier.remove_undo(JournalNumber(0)), Err(ApplyError::Needed(_))));
    world.check_base(&change, "damaged");
    std::fs::write(&path, &whole).unwrap();
    assert!(is_applied(&recovered(&world, Steps::unlimited())));
    world.check_target(&change, "whole again");
}

#[test]
fn another_root_is_not_touched() {
    let case = Case::new(7);
    let (world, change, journal) = case.prepared();
    world.start().commit(&journal, &[1; REGISTER_LEN]).unwrap();
    let aside = world.path("aside");
    renameat(CWD, world.tree(), CWD, &aside).unwrap();
    std::fs::create_dir(world.tree()).unwrap();
    std::fs::write(world.path("tree/a"), "other").unwrap();
    let outcome = recovered(&world, Steps::unlimited());
    assert!(matches!(outcome, Err(ApplyError::OtherRoot { .. })), "{outcome:?}");
    assert_eq!(std::fs::read(world.path("tree/a")).unwrap(), b"other");
    std::fs::remove_dir_all(world.tree()).unwrap();
    renameat(CWD, &aside, CWD, world.tree()).unwrap();
    assert!(is_applied(&recovered(&world, Steps::unlimited())));
    world.check_target(&change, "its own root");
}

#[test]
fn more_directories_than_are_held_and_deeper_ones_than_that_are_all_found() {
    let mut contents = Contents::default();
    let mut rng = Rng::with_seed(2);
    let donor = random_side(&mut rng, &mut contents, None);
    let plain = |kind: Body, seconds| Object {
        metadata: Metadata {
            mode: 0o755,
            mtime: FileTime { seconds, nanos: 1 },
            xattrs: Vec::new(),
            ..donor.objects[&ROOT].metadata.clone()
        },
        body: kind,
    };
    // 700 directories beside each other and 500 in each other, with a pipe in each.
    let side = |which: &[u8], seconds| {
        let mut side = Side::default();
        side.objects.insert(ROOT, plain(Body::Directory, seconds));
        let mut above = ROOT;
        for index in 0..1200_u64 {
            let directory = ObjectId(1000 + index);
            let pipe = ObjectId(5000 + index);
            side.objects.insert(directory, plain(Body::Directory, seconds));
            side.objects.insert(pipe, plain(Body::Fifo, 5));
            let parent = if index < 700 { ROOT } else { above };
            side.names.insert((parent, name(format!("{index}").as_bytes())), directory);
            side.names.insert((directory, name(which)), pipe);
            above = directory;
        }
        side
    };
    let mut world = World::new(&side(b"p", 7), &contents);
    let (change, journal) = world.prepare(&side(b"q", 8), false);
    let (outcome, _) = run(&world, &journal, Steps::until(2000));
    assert!(matches!(outcome, Err(ApplyError::Stopped)), "{outcome:?}");
    assert!(is_applied(&recovered(&world, Steps::unlimited())));
    world.check_target(&change, "moved");
    let mut applier = world.start();
    let number = applier.next_number().unwrap();
    let back = rollback(&journal, number, journal.base);
    applier.commit(&back, &[1; REGISTER_LEN]).unwrap();
    assert!(is_applied(&applier.apply(MOMENT, &mut followed)));
    world.check_base(&change, "back");
}

#[test]
fn setuid_bits_and_capabilities_survive_other_owners_and_patches() {
    if !is_root() {
        return; // nobody else may give files away
    }
    let with = |owner: u32, side: &Side| {
        let mut side = side.clone();
        for object in side.objects.values_mut().filter(|it| it.kind() == Kind::Regular) {
            let capability = [&[1, 0, 0, 2, 0, 4, 0, 0][..], &[0; 12]].concat();
            let mut xattrs = vec![(b"security.capability".as_slice().into(), capability.into())];
            xattrs.push((b"user.x".as_slice().into(), vec![u8::try_from(owner).unwrap()].into()));
            let mtime = object.metadata.mtime;
            object.metadata = Metadata { mode: 0o6755, uid: owner, gid: owner, mtime, xattrs };
        }
        side
    };
    let prepared = (0..50).map(|seed| {
        let case = Case::new(seed);
        let mut world = World::on_disk(&with(3, &case.base), &case.contents);
        let (change, journal) = world.prepare(&with(4, &case.target), true);
        (world, change, journal)
    });
    let (world, change, journal) = prepared.into_iter().find(|it| it.1.patches.len() > 1).unwrap();
    for stop in [Some(30), None] {
        let _ = run(&world, &journal, stop.map_or_else(Steps::unlimited, Steps::until));
    }
    recovered(&world, Steps::unlimited()).unwrap();
    world.check_target(&change, "other owners");
    let applier = world.start();
    let back = rollback(&journal, applier.next_number().unwrap(), journal.base);
    drop(applier);
    assert!(is_applied(&run(&world, &back, Steps::unlimited()).0));
    world.check_base(&change, "the first owners");
}

#[test]
fn patches_that_rotted_are_noticed_and_the_tree_goes_back() {
    let mut count = 0;
    for seed in (1100..1140).step_by(2) {
        let case = Case::new(seed);
        let (world, change, journal) = case.prepared();
        let source = journal.operations().find_map(|operation| match operation {
            Operation::Patch(it) => WorkArea::name_of(&it.source),
            _ => None,
        });
        let Some(source) = source else { continue };
        let path = world.path(".work/stage").join(os(&source));
        let mut bytes = std::fs::read(&path).unwrap();
        if bytes.len() < 100 {
            continue;
        }
        *bytes.last_mut().unwrap() ^= 1;
        world.start().commit(&journal, &[1; REGISTER_LEN]).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let outcome = recovered(&world, Steps::unlimited());
        let Ok(Outcome::Undone { why: Some(why), .. }) = outcome else {
            panic!("{}: {outcome:?}", case.told(""));
        };
        assert!(matches!(*why, ApplyError::Patch { .. }), "{why}");
        world.check_base(&change, &case.told("a patch rotted"));
        count += 1;
    }
    assert!(count > 3, "{count}");
}

#[test]
fn what_cannot_be_moved_stops_the_apply_with_its_path_and_the_tree_goes_back() {
    let case = Case::new(9);
    let (world, change, journal) = case.prepared();
    let mut applier = world.start();
    applier.commit(&journal, &[1; REGISTER_LEN]).unwrap();
    applier.limit(Steps::failing(3, Errno::PERM));
    let outcome = applier.apply(MOMENT, &mut followed);
    let Ok(Outcome::Undone { why: Some(why), .. }) = outcome else { panic!("{outcome:?}") };
    let ApplyError::Refused { path, errno: Errno::PERM, .. } = &*why else { panic!("{why}") };
    assert!(!path.is_empty(), "{why}");
    world.check_base(&change, "refused");
}
