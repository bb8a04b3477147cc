//! A storm does the same for one seed, knows its tree, and does everything.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::judge::Snapshot;
use super::*;

fn storm_of(root: &Path, seed: u64, count: usize) -> (Storm, Vec<Operation>) {
    let mut storm = Storm::new(root, seed);
    let operations = (0..count).map(|_| storm.step().unwrap()).collect();
    (storm, operations)
}

#[test]
fn one_seed_makes_one_tree() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let mut ends = Vec::new();
    for (folder, seed) in folders.iter().zip([1, 1, 2]) {
        let (_, operations) = storm_of(folder.path(), seed, 600);
        let tree = Snapshot::of(folder.path()).unwrap().without_times();
        ends.push((operations, tree));
    }
    assert_eq!(ends[0].0, ends[1].0);
    ends[0].1.check_equal(&ends[1].1).unwrap();
    assert_ne!(ends[0].0, ends[2].0);
    ends[0].1.check_equal(&ends[2].1).unwrap_err();
}

#[test]
fn a_storm_knows_its_tree_after_each_operation() {
    for seed in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let mut storm = Storm::new(folder.path(), seed);
        for number in 0..400 {
            let operation = storm.step().unwrap();
            storm.check().unwrap_or_else(|err| panic!("{seed}, {number}: {operation:?}: {err}"));
        }
    }
}

#[test]
fn a_storm_does_everything_within_its_limits() {
    let small = Limits { names: 25, depth: 6, ..Limits::default() };
    let light = Limits { names: 200, bytes: 512 << 10, depth: 6, ..Limits::default() };
    let mut kinds = BTreeSet::new();
    for limits in [small, light] {
        let folder = tempfile::tempdir().unwrap();
        let mut storm = Storm::with_limits(folder.path(), 3, limits);
        for _ in 0..1500 {
            let operation = storm.step().unwrap();
            kinds.insert(kind_of(&operation));
            // One operation may go beyond: a deep folder by its levels, a file by its length.
            assert!(storm.model.len() <= limits.names + 8);
            assert!(storm.model.bytes() <= limits.bytes + (256 << 10));
            let depths = storm.model.entries().map(|(path, _)| path.components().count());
            assert!(depths.max().unwrap_or(0) <= limits.depth + 2);
        }
        storm.check().unwrap();
    }
    let is_root = rustix::process::geteuid().is_root();
    let expected = 23 + 3 - usize::from(!is_root);
    assert_eq!(kinds.len(), expected, "{kinds:?}");
}

#[test]
fn a_storm_goes_on_in_the_tree_that_another_one_left() {
    let folder = tempfile::tempdir().unwrap();
    storm_of(folder.path(), 1, 300);
    let (storm, _) = storm_of(folder.path(), 2, 300);
    storm.check().unwrap();
}

#[test]
fn an_operation_that_fails_is_named_and_a_strange_tree_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    std::fs::create_dir(&root).unwrap();
    let (mut storm, _) = storm_of(&root, 1, 50);
    std::fs::write(root.join("nobody"), "").unwrap();
    assert_eq!(storm.check(), Err("nobody: nobody made it".to_owned()));
    std::fs::remove_dir_all(&root).unwrap();
    storm.check().unwrap_err();
    let failed = storm.step().unwrap_err();
    assert_eq!(failed.error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_cycle_turns_three_and_an_inversion_two() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for name in ["a", "b", "c"] {
        std::fs::write(root.join(name), name).unwrap();
    }
    let path = |name: &str| PathBuf::from(name);
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let cycle = Operation::Cycle { paths: [path("a"), path("b"), path("c")] };
    apply::apply(root, &cycle).unwrap();
    assert_eq!(["a", "b", "c"].map(read), ["c", "a", "b"]);
    std::fs::create_dir_all(root.join("x/y")).unwrap();
    std::fs::write(root.join("x/of-x"), "").unwrap();
    std::fs::write(root.join("x/y/of-y"), "").unwrap();
    apply::apply(root, &Operation::Invert { parent: path("x"), child: path("x/y") }).unwrap();
    assert!(root.join("y/of-y").is_file() && root.join("y/x/of-x").is_file());
    assert!(!root.join("x").exists());
}

#[test]
fn an_overwrite_that_keeps_its_mtime_only_moves_ctime() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![b'x'; 1000]).unwrap();
    let before = rustix::fs::lstat(&path).unwrap();
    for (keeps_mtime, seed) in [(true, 5), (false, 6)] {
        let (path, at) = (PathBuf::from("file"), 500);
        let operation = Operation::Overwrite { path, at, len: 100, seed, keeps_mtime };
        apply::apply(folder.path(), &operation).unwrap();
        let after = rustix::fs::lstat(folder.path().join("file")).unwrap();
        let times = |it: &rustix::fs::Stat| (it.st_mtime, it.st_mtime_nsec);
        assert_eq!(times(&before) == times(&after), keeps_mtime);
        assert_eq!(after.st_size, 1000);
    }
    let bytes = std::fs::read(path).unwrap();
    assert!(bytes[..500].iter().chain(&bytes[600..]).all(|byte| *byte == b'x'));
    assert!(bytes[500..600].iter().any(|byte| *byte != b'x'));
}

/// The name of the operation, and of the kind that replaces.
fn kind_of(operation: &Operation) -> String {
    let text = format!("{operation:?}");
    let name = text.split(' ').next().unwrap().to_owned();
    match operation {
        Operation::Replace { by, .. } => {
            format!("{name} {}", format!("{by:?}").split(' ').next().unwrap())
        }
        Operation::Overwrite { keeps_mtime, .. } => format!("{name} {keeps_mtime}"),
        _ => name,
    }
}
