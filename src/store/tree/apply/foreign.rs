//! Somebody else changes the tree while it becomes another one: what is theirs is kept, and nothing
//! outside is touched.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use rustix::fs::{CWD, renameat};

use super::super::folder::os;
use super::tests::{Case, is_applied, is_undone};
use super::world::{
    Contents, MOMENT, View, World, followed, name, paths_of, random_side, recovered, run, view,
};
use super::{ApplyError, Outcome, REGISTER_LEN, Steps};
use crate::manifest::apply::{Journal, Operation, Place, Side};
use crate::manifest::{Body, FileTime, Identity, Kind, Metadata, Object};
use crate::units::ObjectId;

const ROOT: ObjectId = ObjectId::ROOT;

/// The path that a directory has now.
fn path_of(all: &View, directory: Identity) -> Option<PathBuf> {
    all.iter().find(|(_, it)| it.identity == directory).map(|(path, _)| path.clone())
}

/// The places in the tree that operations fill.
fn filled(journal: &Journal) -> Vec<&Place> {
    journal.operations().filter_map(place_of).filter(|it| it.directory().is_some()).collect()
}

fn place_of(operation: &Operation) -> Option<&Place> {
    match operation {
        Operation::Move(it) => Some(&it.to),
        Operation::Exchange(it) => Some(&it.at),
        Operation::Link(_)
        | Operation::Patch(_)
        | Operation::Set(_)
        | Operation::Empty { .. }
        | Operation::Finish(_) => None,
    }
}

const FOREIGN: &[u8] = b"nobody's but mine";

fn occupy(path: &Path, which: u64) {
    if which.is_multiple_of(2) {
        std::fs::write(path, FOREIGN).unwrap();
    } else {
        std::fs::create_dir(path).unwrap();
        std::fs::write(path.join("inner"), FOREIGN).unwrap();
    }
}

#[test]
fn what_is_in_the_way_goes_to_the_quarantine_byte_for_byte_and_the_apply_goes_on() {
    let mut count = 0;
    for seed in 400..480 {
        let case = Case::new(seed);
        let (commit, apply) = case.steps();
        let (world, change, journal) = case.prepared();
        let mut rng = Rng::with_seed(seed);
        let stop = commit + rng.u64(..apply);
        let _ = run(&world, &journal, Steps::until(stop));
        let now = view(&world.tree());
        let places = filled(&journal);
        let free = places.iter().find_map(|place| {
            let Place::Tree { directory, name } = place else { return None };
            let path = path_of(&now, *directory)?.join(os(name));
            (!now.contains_key(&path)).then_some(path)
        });
        let Some(path) = free else { continue };
        occupy(&world.tree().join(&path), seed);
        let told = case.told(&format!("stopped at {stop}, {} is taken", path.display()));
        let mut applier = world.start();
        let outcome = applier.apply(MOMENT, &mut followed);
        assert!(is_applied(&outcome), "{told}: {outcome:?}");
        assert_eq!(applier.quarantined(), 1, "{told}");
        world.check_target(&change, &told);
        let quarantined = world.quarantined();
        assert_eq!(quarantined.values().collect::<Vec<_>>(), [FOREIGN], "{told}");
        let kept = quarantined.keys().next().unwrap();
        let kept = if seed.is_multiple_of(2) { kept.as_path() } else { kept.parent().unwrap() };
        assert_eq!(kept.file_name(), path.file_name(), "{told}: {}", kept.display());
        let why = std::fs::read_to_string(world.path(".work/lost+hotpair/8/WHY.jsonl")).unwrap();
        let line: serde_json::Value = serde_json::from_str(why.trim_end()).unwrap();
        let said = kept.strip_prefix("8").unwrap().as_os_str().as_bytes().escape_ascii();
        assert_eq!(line["path"], said.to_string(), "{told}");
        // Once it is away, a redo finds nothing more to do.
        assert!(matches!(recovered(&world, Steps::unlimited()), Ok(Outcome::Rest)));
        count += 1;
    }
    assert!(count > 25, "{count}");
}

#[test]
fn what_is_in_a_directory_that_waits_in_the_work_area_is_kept_under_the_name_it_gets() {
    let mut contents = Contents::default();
    let donor = random_side(&mut Rng::with_seed(4), &mut contents, None);
    let plain =
        Metadata { xattrs: Vec::new(), mode: 0o700, ..donor.objects[&ROOT].metadata.clone() };
    let (moved, pipe) = (ObjectId(2), ObjectId(13));
    let side = |text: &[u8], has_pipe: bool| {
        let mut side = Side::default();
        for (id, body) in [(ROOT, Body::Directory), (moved, Body::Directory), (pipe, Body::Fifo)] {
            side.objects.insert(id, Object { metadata: plain.clone(), body });
        }
        side.names.insert((ROOT, name(text)), moved);
        side.names.insert((moved, name(b"pipe")), pipe);
        if !has_pipe {
            side.names.remove(&(moved, name(b"pipe")));
            side.objects.remove(&pipe);
        }
        side
    };
    let mut world = World::new(&side(b"before", false), &contents);
    let (change, journal) = world.prepare(&side(b"after", true), false);
    world.start().commit(&journal, &[1; REGISTER_LEN]).unwrap();
    std::fs::write(world.path("tree/before/pipe"), FOREIGN).unwrap();
    assert!(is_applied(&recovered(&world, Steps::unlimited())));
    world.check_target(&change, "moved");
    let kept: Vec<PathBuf> = world.quarantined().into_keys().collect();
    assert_eq!(kept, [Path::new("8/after/pipe")]);
}

#[test]
fn a_foreign_version_of_what_is_replaced_goes_to_the_quarantine() {
    let mut count = 0;
    for seed in 600..660 {
        let case = Case::new(seed);
        let (world, change, journal) = case.prepared();
        let now = view(&world.tree());
        let replaced = journal.operations().find_map(|operation| match operation {
            Operation::Exchange(it) => {
                let Place::Tree { directory, name } = &it.at else { return None };
                let path = path_of(&now, *directory)?.join(os(name));
                let found = now.get(&path)?;
                (found.identity == it.old && found.object.kind() != Kind::Directory).then_some(path)
            }
            _ => None,
        });
        let Some(path) = replaced else { continue };
        let told = case.told(&format!("{} is replaced", path.display()));
        world.start().commit(&journal, &[1; REGISTER_LEN]).unwrap();
        std::fs::remove_file(world.tree().join(&path)).unwrap();
        occupy(&world.tree().join(&path), seed);
        let outcome = recovered(&world, Steps::unlimited());
        assert!(is_applied(&outcome), "{told}: {outcome:?}");
        world.check_target(&change, &told);
        assert_eq!(world.quarantined().values().collect::<Vec<_>>(), [FOREIGN], "{told}");
        count += 1;
    }
    assert!(count > 15, "{count}");
}

#[test]
fn what_is_left_in_a_directory_that_goes_is_quarantined_and_the_rest_can_be_taken_back() {
    let mut count = 0;
    for seed in 700..760 {
        let case = Case::new(seed);
        let (world, change, journal) = case.prepared();
        let now = view(&world.tree());
        let going = journal.operations().find_map(|operation| match operation {
            Operation::Empty { directory } => path_of(&now, *directory),
            _ => None,
        });
        let Some(path) = going else { continue };
        let told = case.told(&format!("{} goes", path.display()));
        for index in 0..300 {
            let path = world.tree().join(&path).join(format!("left-{index}"));
            std::fs::write(path, FOREIGN).unwrap();
        }
        world.start().commit(&journal, &[1; REGISTER_LEN]).unwrap();
        let _ = recovered(&world, Steps::until(seed % 40));
        if seed.is_multiple_of(2) {
            let outcome = recovered(&world, Steps::unlimited());
            assert!(is_applied(&outcome), "{told}: {outcome:?}");
            world.check_target(&change, &told);
            let quarantined = world.quarantined();
            assert_eq!(quarantined.len(), 300, "{told}");
            assert!(quarantined.values().all(|bytes| bytes == FOREIGN), "{told}");
            count += 1;
        } else {
            let outcome = world.start().turn_back(MOMENT, &mut followed);
            assert!(is_undone(&outcome), "{told}: {outcome:?}");
            let all = view(&world.tree()).len() + world.quarantined().len();
            assert_eq!(all, paths_of(&change.base).len() + 300, "{told}");
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn what_somebody_took_away_is_missed_the_tree_goes_back_and_the_rest_is_what_it_was() {
    // Moved by the target, but removed and made anew by somebody else before.
    let mut contents = Contents::default();
    let mut rng = Rng::with_seed(1);
    let donor = random_side(&mut rng, &mut contents, None);
    let root = donor.objects[&ROOT].clone();
    let file =
        Object { metadata: Metadata { mode: 0o600, ..root.metadata.clone() }, body: Body::Fifo };
    let file = Object { metadata: Metadata { xattrs: Vec::new(), ..file.metadata }, ..file };
    let side = |text: &[u8]| Side {
        names: BTreeMap::from([((ROOT, name(text)), ObjectId(13))]),
        objects: BTreeMap::from([(ROOT, root.clone()), (ObjectId(13), file.clone())]),
    };
    let mut world = World::new(&side(b"a"), &contents);
    let (_, journal) = world.prepare(&side(b"b"), false);
    world.start().commit(&journal, &[1; REGISTER_LEN]).unwrap();
    std::fs::remove_file(world.path("tree/a")).unwrap();
    std::fs::write(world.path("tree/a"), FOREIGN).unwrap();
    let outcome = recovered(&world, Steps::unlimited());
    assert!(matches!(outcome, Err(ApplyError::Missing(_))), "{outcome:?}");
    assert_eq!(world.quarantined().values().collect::<Vec<_>>(), [FOREIGN]);
    let outcome = recovered(&world, Steps::unlimited());
    assert!(matches!(outcome, Err(ApplyError::Missing(_))), "{outcome:?}");
    assert_eq!(world.start().records().applied.position, journal.base);
}

/// All of the canary, with what any access but reading would change. It counts from where it is:
/// what is moved whole is not touched.
fn canary(world: &World, directory: Identity) -> Vec<(PathBuf, Identity, FileTime, Object)> {
    use std::os::unix::fs::MetadataExt as _;
    let all = view(world.outer.path());
    let top = world.outer.path().join(path_of(&all, directory).unwrap());
    let entries = view(&top).into_iter().map(|(path, leads)| {
        let found = top.join(&path).symlink_metadata().unwrap();
        let nanos = u32::try_from(found.ctime_nsec()).unwrap();
        let ctime = FileTime { seconds: found.ctime(), nanos };
        // Whoever moves a directory touches that one.
        let ctime = if path.iter().count() == 0 { FileTime::default() } else { ctime };
        (path, leads.identity, ctime, leads.object)
    });
    entries.collect()
}

/// Outside is the same tree, so that every name of the plan would be found there.
fn make_canary(world: &World, side: &Side) -> Identity {
    for (path, _) in paths_of(side) {
        let (from, to) = (world.tree().join(&path), world.path("canary").join(&path));
        if from.symlink_metadata().unwrap().is_dir() {
            let _ = std::fs::create_dir(&to);
        } else {
            std::fs::write(&to, FOREIGN).unwrap();
        }
    }
    view(&world.path("canary"))[Path::new("")].identity
}

/// Puts something that leads to the canary in the place of a directory of the tree.
fn swap(outer: &Path, which: u64, is_link: bool) -> bool {
    let now = view(&outer.join("tree"));
    let is_inner = |path: &PathBuf| path.iter().count() > 0;
    let directories: Vec<&PathBuf> = now
        .iter()
        .filter(|(path, it)| it.object.kind() == Kind::Directory && is_inner(path))
        .map(|(path, _)| path)
        .collect();
    let index = usize::try_from(which).unwrap() % directories.len().max(1);
    let Some(path) = directories.get(index) else { return false };
    let target = outer.join("tree").join(path);
    renameat(CWD, &target, CWD, outer.join("aside")).unwrap();
    if is_link {
        let to = outer.join("canary").join(path);
        let to = if to.is_dir() { to } else { outer.join("canary") };
        std::os::unix::fs::symlink(to, &target).unwrap();
    } else {
        renameat(CWD, outer.join("canary"), CWD, &target).unwrap();
    }
    true
}

#[test]
fn directories_swapped_while_the_apply_stands_are_not_entered() {
    let mut count = 0;
    for seed in 800..960 {
        let case = Case::new(seed);
        let (_, apply) = case.steps();
        let (world, _, journal) = case.prepared();
        let directory = make_canary(&world, &case.base);
        let before = canary(&world, directory);
        let mut applier = world.start();
        applier.commit(&journal, &[1; REGISTER_LEN]).unwrap();
        let (outer, is_link) = (world.outer.path().to_owned(), seed % 3 > 0);
        let is_done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let done = std::sync::Arc::clone(&is_done);
        applier.limit(Steps::disturbed(seed % apply, move || {
            done.store(swap(&outer, seed, is_link), std::sync::atomic::Ordering::Relaxed);
        }));
        let outcome = applier.apply(MOMENT, &mut followed);
        if let Err(error) = &outcome {
            assert!(error.turns_back(), "seed {seed}: {error}");
        }
        assert_eq!(canary(&world, directory), before, "seed {seed}: {outcome:?}");
        // Once more as after a start, with nothing held.
        let _ = recovered(&world, Steps::unlimited());
        assert_eq!(canary(&world, directory), before, "seed {seed}");
        count += u64::from(is_done.load(std::sync::atomic::Ordering::Relaxed));
    }
    assert!(count > 60, "{count}");
}

#[test]
fn directories_swapped_before_a_start_are_not_entered() {
    let mut count = 0;
    for seed in 960..1000 {
        let case = Case::new(seed);
        let (commit, apply) = case.steps();
        let (world, _, journal) = case.prepared();
        let directory = make_canary(&world, &case.base);
        let before = canary(&world, directory);
        let _ = run(&world, &journal, Steps::until(commit + seed % apply));
        count += u64::from(swap(world.outer.path(), seed, seed.is_multiple_of(2)));
        let outcome = recovered(&world, Steps::unlimited());
        assert_eq!(canary(&world, directory), before, "seed {seed}: {outcome:?}");
    }
    assert!(count > 20, "{count}");
}

#[test]
fn files_swapped_for_links_are_not_written_through() {
    let mut count = 0;
    for seed in (1000..1100).step_by(2) {
        let case = Case::new(seed);
        let (world, change, journal) = case.prepared();
        std::fs::write(world.path("canary/file"), FOREIGN).unwrap();
        let directory = view(&world.path("canary"))[Path::new("")].identity;
        let before = canary(&world, directory);
        let now = view(&world.tree());
        let changed: Vec<PathBuf> = journal
            .operations()
            .filter_map(|operation| match operation {
                Operation::Patch(it) => Some(it.what),
                Operation::Set(it) => Some(it.what),
                _ => None,
            })
            .filter_map(|what| path_of(&now, what))
            .collect();
        if changed.is_empty() {
            continue;
        }
        let tree = world.tree();
        let target = world.path("canary/file");
        let mut applier = world.start();
        applier.commit(&journal, &[1; REGISTER_LEN]).unwrap();
        applier.limit(Steps::disturbed(0, move || {
            let mut done = std::collections::BTreeSet::new();
            for (index, path) in changed.iter().filter(|it| done.insert(*it)).enumerate() {
                let path = tree.join(path);
                let aside = tree.join(format!("../aside-{index}"));
                renameat(CWD, &path, CWD, &aside).unwrap();
                std::os::unix::fs::symlink(&target, &path).unwrap();
            }
        }));
        let _ = applier.apply(MOMENT, &mut followed);
        assert_eq!(canary(&world, directory), before, "seed {seed}: {change:?}");
        let _ = recovered(&world, Steps::unlimited());
        assert_eq!(canary(&world, directory), before, "seed {seed}");
        count += 1;
    }
    assert!(count > 10, "{count}");
}
