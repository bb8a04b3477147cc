//! Random changes of a source, generation after generation.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::CHUNK;
use super::world::{Pair, assert_same, noise};
use crate::manifest::apply::Place;
use crate::manifest::{Kind, Name};
use crate::store::tree::Folder;
use crate::store::tree::receive::reclaim::new_name;
use crate::units::ObjectId;

struct Storm {
    random: fastrand::Rng,
    root: PathBuf,
}

impl Storm {
    /// All directories and all else, as paths.
    fn all(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let (mut directories, mut others) = (vec![self.root.clone()], Vec::new());
        let mut at = 0;
        while let Some(folder) = directories.get(at).cloned() {
            at += 1;
            let mut entries: Vec<_> =
                fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            entries.sort();
            for path in entries {
                let is_directory = path.symlink_metadata().unwrap().is_dir();
                if is_directory { directories.push(path) } else { others.push(path) }
            }
        }
        (directories, others)
    }

    fn pick(&mut self, paths: &[PathBuf]) -> Option<PathBuf> {
        (!paths.is_empty()).then(|| paths[self.random.usize(..paths.len())].clone())
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = [0, 10, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 9][self.random.usize(..6)];
        let mut bytes = noise(self.random.u64(..20), len);
        if len > 2 * CHUNK && self.random.bool() {
            bytes[CHUNK..2 * CHUNK].fill(0);
        }
        bytes
    }

    fn step(&mut self) {
        let (directories, others) = self.all();
        let folder = self.pick(&directories).unwrap();
        let path = folder.join(format!("n{}", self.random.u32(..12)));
        let is_free = path.symlink_metadata().is_err();
        let old = self.pick(&others);
        match (self.random.u32(..14), old) {
            (0..3, _) if is_free => fs::write(path, self.bytes()).unwrap(),
            (3, _) if is_free => fs::create_dir(path).unwrap(),
            (4, _) if is_free => symlink(format!("t{}", self.random.u32(..9)), path).unwrap(),
            (5, Some(old)) if is_free => fs::hard_link(old, path).unwrap(),
            (6, Some(old)) => rename(&old, &path),
            (7, _) => {
                if let Some(from) = self.pick(&directories[1..])
                    && !path.starts_with(&from)
                {
                    rename(&from, &path);
                }
            }
            (8, Some(old)) => fs::remove_file(old).unwrap(),
            (9, _) if directories.len() > 4 => {
                let gone = self.pick(&directories[1..]).unwrap();
                fs::remove_dir_all(gone).unwrap();
            }
            (10, Some(old)) if !old.is_symlink() => fs::write(&old, self.bytes()).unwrap(),
            (11, Some(old)) if !old.is_symlink() => {
                let mode = fs::Permissions::from_mode(0o600 + self.random.u32(..0o100));
                fs::set_permissions(old, mode).unwrap();
            }
            (12, _) => {
                let mode = fs::Permissions::from_mode(0o700 + self.random.u32(..0o100));
                fs::set_permissions(folder, mode).unwrap();
            }
            _ => {}
        }
    }
}

/// As far as the kernel allows.
fn rename(from: &std::path::Path, to: &std::path::Path) {
    let _ = rustix::fs::rename(from, to);
}

/// Where an object stands in the source, by its names.
fn folder_of(pair: &Pair, names: &[(ObjectId, Name)]) -> (Folder, Name) {
    use crate::manifest::View as _;
    let base = super::super::Base::new(pair.source.index.view().unwrap()).unwrap();
    let (mut at, last) = names[0].clone();
    let mut way = Vec::new();
    while at != ObjectId::ROOT {
        let (up, name) = base.place(at).unwrap();
        way.push(name);
        at = up;
    }
    let mut folder = Folder::open(&pair.source.path(".")).unwrap();
    while let Some(name) = way.pop() {
        folder = folder.child(&name).unwrap();
    }
    (folder, last)
}

#[test]
fn random_generations_are_staged_as_the_source_has_them() {
    for seed in 0..4 {
        let mut pair = Pair::new();
        let root = pair.source.path(".");
        let mut storm = Storm { random: fastrand::Rng::with_seed(seed), root };
        let mut births = 0;
        for _ in 0..25 {
            for _ in 0..storm.random.usize(1..25) {
                storm.step();
            }
            let before = pair.position;
            pair.capture();
            if pair.position.root == before.root {
                continue;
            }
            let prepared = pair.prepare();
            births += prepared.change.staged.len();
            check(&pair, &prepared.change);
            // The index by the same records, which also compares the root.
            pair.mirror();
        }
        assert!(births > 20, "seed {seed}: {births}");
    }
}

/// Every object with a slot is as in the source; of a new directory those that are born within.
fn check(pair: &Pair, change: &crate::manifest::apply::Change) {
    let stage = pair.target.work.stage();
    for (id, staged) in &change.staged {
        let Some(slot) = staged.slot else { continue };
        let name = crate::store::tree::WorkArea::name_of(&Place::Stage(slot)).unwrap();
        assert_eq!(name, new_name(slot));
        let found = stage.look(&name).unwrap().unwrap();
        assert_eq!(found.stamp.identity, staged.identity);
        let names: Vec<_> =
            change.target.names.iter().filter(|(_, it)| *it == id).map(|it| it.0.clone()).collect();
        let (folder, last) = folder_of(pair, &names);
        compare((&folder, &last), (stage, &name));
    }
}

fn compare(source: (&Folder, &Name), staged: (&Folder, &Name)) {
    let found = staged.0.look(staged.1).unwrap().unwrap();
    if found.kind != Some(Kind::Directory) {
        return assert_same(source, staged);
    }
    let (source, staged) = (source.0.child(source.1).unwrap(), staged.0.child(staged.1).unwrap());
    let (one, other) = (source.look_at_self().unwrap().stamp, staged.look_at_self().unwrap().stamp);
    assert_eq!((one.mode, one.mtime), (other.mode, other.mtime));
    // Moved entries and further names come later.
    for name in staged.list().unwrap().names {
        compare((&source, &name), (&staged, &name));
    }
}
