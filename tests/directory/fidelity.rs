//! What is kept, and that all of it arrives.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::pair::{Source, Terms, ship, target};
use crate::trees::{fidelity, judge};

/// Bytes by which a copy may take more space: a chunk at each end of a hole.
const LAYOUT_TOLERANCE: u64 = 128 << 10;

/// What is sparse is sparse in the copy.
fn is_no_fuller(there: &Path, here: &Path) {
    for entry in fs::read_dir(there).unwrap() {
        let name = entry.unwrap().file_name();
        let space = |folder: &Path| folder.join(&name).symlink_metadata().unwrap().blocks() * 512;
        assert!(space(here) <= space(there) + LAYOUT_TOLERANCE, "{}", name.display());
    }
}

/// Tests 1 and 2.
#[test]
fn the_tree_of_everything_arrives() {
    let outer = tempfile::tempdir().unwrap();
    let (there, here) = (outer.path().join("a"), outer.path().join("b"));
    let mut source = Source::new(&there, &Terms::default());
    for skipped in fidelity::make(&source.tree) {
        println!("skipped: {skipped}");
    }
    let captured = source.scan().unwrap();
    assert_eq!((captured.fuzzy.count(), captured.skipped.paths.len()), (0, 0), "{captured:?}");
    let (mut target, _) = target(&here, &Terms::default()).unwrap();
    let shipped = ship(&source, &mut target).unwrap();
    assert!(shipped.chunks > 0);
    assert_eq!(target.position(), source.position());
    judge::equal(&source.tree, &here.join("tree")).unwrap();
    is_no_fuller(&source.tree.join("contents/holes"), &here.join("tree/contents/holes"));
}

/// Test 1: what reading and writing needs must not show in what is kept.
#[test]
fn an_empty_tree_becomes_one_with_other_rights() {
    let outer = tempfile::tempdir().unwrap();
    let mut source = Source::new(&outer.path().join("a"), &Terms::default());
    fs::set_permissions(&source.tree, fs::Permissions::from_mode(0o1750)).unwrap();
    source.scan().unwrap();
    let (mut target, _) = target(&outer.path().join("b"), &Terms::default()).unwrap();
    ship(&source, &mut target).unwrap();
    judge::equal(&source.tree, &outer.path().join("b/tree")).unwrap();
}

/// Test 2: deeper than any path the kernel takes.
#[test]
fn a_tree_beyond_the_longest_path_arrives() {
    let outer = tempfile::tempdir().unwrap();
    let mut source = Source::new(&outer.path().join("a"), &Terms::default());
    fidelity::make_beyond_longest_path(&source.tree);
    source.scan().unwrap();
    let (mut target, _) = target(&outer.path().join("b"), &Terms::default()).unwrap();
    ship(&source, &mut target).unwrap();
    judge::equal_to_walk(&source.tree, &outer.path().join("b/tree")).unwrap();
}

/// Test 3.
#[test]
fn directories_in_directories_are_found_by_events_alone() {
    let outer = tempfile::tempdir().unwrap();
    let mut source = Source::new(&outer.path().join("a"), &Terms::default());
    source.scan().unwrap();
    for round in 0..200 {
        let folder = source.tree.join(format!("{round}/1/2/3/4/5/6/7/8/9/10"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("bottom"), round.to_string()).unwrap();
        if round % 10 == 0 {
            source.capture().unwrap();
        }
    }
    source.capture().unwrap();
    let (mut target, _) = target(&outer.path().join("b"), &Terms::default()).unwrap();
    ship(&source, &mut target).unwrap();
    judge::equal(&source.tree, &outer.path().join("b/tree")).unwrap();
}
