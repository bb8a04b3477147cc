//! What has moved is moved, not sent again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use crate::pair::{Shipped, Source, Terms, ship, target};
use crate::trees::judge;
use hotpair::store::tree::target::Target;

struct World {
    outer: TempDir,
    source: Source,
    target: Target,
}

impl World {
    fn new(make: impl FnOnce(&Path)) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let mut source = Source::new(&outer.path().join("a"), &Terms::default());
        make(&source.tree);
        source.scan().unwrap();
        let (mut target, _) = target(&outer.path().join("b"), &Terms::default()).unwrap();
        ship(&source, &mut target).unwrap();
        let world = Self { outer, source, target };
        world.check();
        world
    }

    fn check(&self) {
        judge::equal(&self.source.tree, &self.outer.path().join("b/tree")).unwrap();
    }

    /// Changes the source; what it cost to bring that over.
    fn after(&mut self, change: impl FnOnce(&Path)) -> Shipped {
        change(&self.source.tree);
        self.source.capture().unwrap();
        let shipped = ship(&self.source, &mut self.target).unwrap();
        self.check();
        shipped
    }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// Test 13.
#[test]
fn names_that_change_places_send_no_content() {
    let mut world = World::new(|tree| {
        for name in ["a", "b", "c"] {
            fs::write(tree.join(name), name.repeat(100_000)).unwrap();
        }
        fs::create_dir_all(tree.join("d/e")).unwrap();
        fs::write(tree.join("d/e/f"), "deep").unwrap();
        fs::create_dir(tree.join("dir")).unwrap();
    });
    let changes: [&dyn Fn(&Path); 7] = [
        &|tree| exchange(&tree.join("a"), &tree.join("b")),
        &|tree| {
            exchange(&tree.join("a"), &tree.join("b"));
            exchange(&tree.join("b"), &tree.join("c"));
        },
        // d/e becomes e/d.
        &|tree| {
            fs::rename(tree.join("d/e"), tree.join("e")).unwrap();
            fs::rename(tree.join("d"), tree.join("e/d")).unwrap();
        },
        // A file over a directory, and back.
        &|tree| exchange(&tree.join("dir"), &tree.join("a")),
        &|tree| exchange(&tree.join("dir"), &tree.join("a")),
        &|tree| {
            fs::remove_dir(tree.join("dir")).unwrap();
            symlink("e", tree.join("dir")).unwrap();
        },
        &|tree| {
            fs::remove_file(tree.join("dir")).unwrap();
            fs::rename(tree.join("e"), tree.join("dir")).unwrap();
        },
    ];
    for (index, change) in changes.iter().enumerate() {
        let shipped = world.after(change);
        assert_eq!(shipped.payload, 0, "change {index}");
    }
}

/// Test 14, with fewer names, and the target of section 17 for a directory that is renamed.
#[test]
fn a_directory_of_ten_thousand_files_is_renamed_by_two_names() {
    let mut world = World::new(|tree| {
        fs::create_dir(tree.join("many")).unwrap();
        for index in 0..10_000 {
            fs::write(tree.join(format!("many/{index}")), index.to_string()).unwrap();
        }
    });
    let shipped = world.after(|tree| fs::rename(tree.join("many"), tree.join("other")).unwrap());
    assert_eq!(shipped.payload, 0);
    assert!(shipped.records < 1000, "{shipped:?}");
}

/// Test 21.
#[test]
fn copies_send_no_content_and_a_change_one_chunk() {
    let words = (0..10_u32 << 20).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes());
    let content: Vec<u8> = words.flatten().collect();
    let mut world = World::new(|tree| fs::write(tree.join("large"), &content).unwrap());
    let copied = world.after(|tree| {
        fs::copy(tree.join("large"), tree.join("copy")).unwrap();
        fs::rename(tree.join("large"), tree.join("moved")).unwrap();
    });
    assert_eq!(copied.payload, 0);
    let changed = world.after(|tree| {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(tree.join("copy")).unwrap();
        file.write_all_at(&[1; 4096], 5 << 20).unwrap();
    });
    assert_eq!((changed.chunks, changed.payload), (1, 64 << 10));
}

/// Test 15.
#[test]
fn hard_links_are_made_broken_and_moved() {
    let mut world = World::new(|tree| {
        fs::create_dir_all(tree.join("d/e")).unwrap();
        fs::write(tree.join("one"), "linked").unwrap();
        fs::hard_link(tree.join("one"), tree.join("d/two")).unwrap();
    });
    let changes: [&dyn Fn(&Path); 5] = [
        &|tree| fs::hard_link(tree.join("one"), tree.join("d/e/three")).unwrap(),
        &|tree| fs::rename(tree.join("d/two"), tree.join("d/e/two")).unwrap(),
        &|tree| fs::write(tree.join("one"), "changed by one of its names").unwrap(),
        // One name gets a file of its own with the same content.
        &|tree| {
            fs::copy(tree.join("one"), tree.join("new")).unwrap();
            fs::rename(tree.join("new"), tree.join("one")).unwrap();
        },
        &|tree| fs::remove_dir_all(tree.join("d")).unwrap(),
    ];
    for change in changes {
        world.after(change);
    }
}
