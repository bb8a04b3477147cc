//! Which operation is next.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::model::{BOTTOM_LEN, Model, Object};
use super::{Allowed, Limits, Operation, Successor};

/// Few names, so that they are met, replaced and swapped often. Some are no text.
const NAMES: [&[u8]; 20] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"e",
    b"f",
    b"g",
    b"h",
    b"i",
    b"j",
    b"k",
    b"l",
    b"name with space",
    b"-rf",
    b"new\nline",
    b"\xff\xfe",
    b"...",
    b"A",
    b"*",
    b".x",
];
/// None keeps its owner from reading and writing, so a storm without root goes on.
const FILE_MODES: [u32; 7] = [0o644, 0o600, 0o640, 0o755, 0o4755, 0o2711, 0o666];
const FOLDER_MODES: [u32; 5] = [0o755, 0o700, 0o1777, 0o2775, 0o750];
const OWNERS: [u32; 4] = [0, 1000, 12_345, 65_534];
const XATTRS: [&str; 3] = ["user.one", "user.two", "user.three"];
const TARGETS: [&[u8]; 6] = [b"a", b"../b", b"/nowhere", b"c/d", b"\xff", b"."];
/// Pieces of files are as long as this; lengths beside it are where they go wrong.
const PIECE_LEN: u64 = 64 << 10;
/// Draws before something simple is done.
const ATTEMPTS: usize = 64;

/// How often a choice is drawn, and what plans it; nothing if the tree has no place for it.
type Choice = (u32, fn(&mut Planner<'_>) -> Option<Operation>);

const CHOICES: [Choice; 22] = [
    (12, |it| it.create()),
    (5, |it| it.append()),
    (8, |it| it.overwrite()),
    (4, |it| it.truncate()),
    (2, |it| it.punch()),
    (3, |it| it.copy()),
    (6, |it| it.save()),
    (9, |it| it.rename()),
    (4, |it| it.exchange()),
    (3, |it| it.cycle()),
    (2, |it| it.invert()),
    (5, |it| it.link()),
    (7, |it| it.remove()),
    (2, |it| it.remove_all()),
    (4, |it| it.chmod()),
    (3, |it| it.chown()),
    (4, |it| it.set_xattr()),
    (2, |it| it.remove_xattr()),
    (4, |it| it.symlink_or_fifo()),
    (5, |it| it.replace()),
    (3, |it| it.make_deep()),
    (4, |it| it.touch()),
];

/// Draws an operation that fits the tree.
pub(super) struct Planner<'a> {
    pub(super) model: &'a Model,
    pub(super) random: &'a mut fastrand::Rng,
    pub(super) limits: Limits,
    pub(super) allowed: Allowed,
}

impl Planner<'_> {
    /// The next operation; there always is one.
    pub(super) fn next(&mut self) -> Operation {
        let is_full =
            self.model.len() >= self.limits.names || self.model.bytes() >= self.limits.bytes;
        if is_full && let Some(operation) = self.remove_all().or_else(|| self.remove()) {
            return operation;
        }
        let total: u32 = CHOICES.iter().map(|(weight, _)| weight).sum();
        for _ in 0..ATTEMPTS {
            let mut drawn = self.random.u32(0..total);
            for (weight, choice) in CHOICES {
                if drawn < weight {
                    if let Some(operation) = choice(self) {
                        return operation;
                    }
                    break;
                }
                drawn -= weight;
            }
        }
        let path = PathBuf::from(format!("new-{}", self.random.u64(..)));
        Operation::Create { path, len: 0, seed: 0 }
    }

    fn create(&mut self) -> Option<Operation> {
        let path = self.free_path()?;
        Some(Operation::Create { path, len: self.draw_len(), seed: self.random.u64(..) })
    }

    fn append(&mut self) -> Option<Operation> {
        let (path, len) = self.any_file()?;
        let most = self.limits.file_len.saturating_sub(len).min(PIECE_LEN);
        let len = self.random.u64(0..=most);
        Some(Operation::Append { path, len, seed: self.random.u64(..) })
    }

    fn overwrite(&mut self) -> Option<Operation> {
        let (path, size) = self.any_file()?;
        let (at, len) = self.draw_range(size)?;
        let seed = self.random.u64(..);
        Some(Operation::Overwrite { path, at, len, seed, keeps_mtime: self.random.bool() })
    }

    fn truncate(&mut self) -> Option<Operation> {
        let (path, size) = self.any_file()?;
        let len = if self.random.bool() { self.random.u64(0..=size) } else { self.draw_len() };
        Some(Operation::Truncate { path, len })
    }

    fn punch(&mut self) -> Option<Operation> {
        let (path, size) = self.any_file()?;
        let (at, len) = self.draw_range(size)?;
        Some(Operation::Punch { path, at, len })
    }

    fn copy(&mut self) -> Option<Operation> {
        let (from, _) = self.any_file()?;
        Some(Operation::Copy { from, to: self.free_path()? })
    }

    fn save(&mut self) -> Option<Operation> {
        let path = if self.random.u8(0..4) == 0 { self.free_path()? } else { self.any_file()?.0 };
        Some(Operation::Save { path, len: self.draw_len(), seed: self.random.u64(..) })
    }

    fn rename(&mut self) -> Option<Operation> {
        let from = self.any_path()?;
        let is_folder = self.model.object(&from) == Some(Object::Folder);
        let to = if self.random.u8(0..3) > 0 {
            self.free_path()?
        } else if is_folder {
            self.draw(|model, path, _| model.is_empty_folder(path))?
        } else {
            self.draw(|_, _, object| object != Object::Folder)?
        };
        // The rename of one name of an object over another one does nothing.
        let fits = !self.model.are_one(&from, &to)
            && !to.starts_with(&from)
            && !from.starts_with(&to)
            && self.fits(&from, &to);
        fits.then_some(Operation::Rename { from, to })
    }

    fn exchange(&mut self) -> Option<Operation> {
        let (one, other) = (self.any_path()?, self.any_path()?);
        let fits = are_apart(&[&one, &other]) && self.fits(&one, &other) && self.fits(&other, &one);
        fits.then_some(Operation::Exchange { one, other })
    }

    fn cycle(&mut self) -> Option<Operation> {
        let paths = [self.any_path()?, self.any_path()?, self.any_path()?];
        let [a, b, c] = &paths;
        let fits = are_apart(&[a, b, c]) && self.fits(a, b) && self.fits(b, c) && self.fits(c, a);
        fits.then_some(Operation::Cycle { paths })
    }

    fn invert(&mut self) -> Option<Operation> {
        let child = self.draw(|model, path, object| {
            let parent = path.parent().filter(|parent| *parent != Path::new(""));
            let Some((parent, name)) = parent.zip(path.file_name()) else { return false };
            let below = parent.file_name().unwrap_or_default();
            object == Object::Folder
                && model.object(&parent.with_file_name(name)).is_none()
                && model.object(&path.join(below)).is_none()
        })?;
        let parent = child.parent()?.to_owned();
        // What was beside the child is one level deeper now.
        let fits = self.fits(&parent, &parent.join("x"));
        fits.then_some(Operation::Invert { parent, child })
    }

    fn link(&mut self) -> Option<Operation> {
        let from = self.draw(|_, _, object| object != Object::Folder)?;
        Some(Operation::Link { from, to: self.free_path()? })
    }

    fn remove(&mut self) -> Option<Operation> {
        let path =
            self.draw(|model, path, it| it != Object::Folder || model.is_empty_folder(path))?;
        Some(Operation::Remove { path })
    }

    fn remove_all(&mut self) -> Option<Operation> {
        let path = self.draw(|_, _, object| object == Object::Folder)?;
        Some(Operation::RemoveAll { path })
    }

    fn chmod(&mut self) -> Option<Operation> {
        let path = self.draw(|_, _, object| object != Object::Symlink)?;
        let is_folder = self.model.object(&path) == Some(Object::Folder);
        let modes: &[u32] = if is_folder { &FOLDER_MODES } else { &FILE_MODES };
        let mode = modes[self.random.usize(..modes.len())];
        Some(Operation::Chmod { path, mode })
    }

    fn chown(&mut self) -> Option<Operation> {
        self.allowed.owners.then_some(())?;
        let path = self.any_path()?;
        let mut owner = || OWNERS[self.random.usize(..OWNERS.len())];
        Some(Operation::Chown { path, uid: owner(), gid: owner() })
    }

    fn set_xattr(&mut self) -> Option<Operation> {
        let (path, name) = self.draw_xattr()?;
        let mut value = vec![0; self.random.usize(..200)];
        self.random.fill(&mut value);
        Some(Operation::SetXattr { path, name, value })
    }

    fn remove_xattr(&mut self) -> Option<Operation> {
        let (path, name) = self.draw_xattr()?;
        Some(Operation::RemoveXattr { path, name })
    }

    fn symlink_or_fifo(&mut self) -> Option<Operation> {
        let path = self.free_path()?;
        if self.random.u8(0..3) == 0 {
            return Some(Operation::Fifo { path });
        }
        Some(Operation::Symlink { path, target: self.draw_target() })
    }

    fn replace(&mut self) -> Option<Operation> {
        let path = self.any_path()?;
        let by = match (self.random.u8(0..3), self.model.object(&path)?) {
            (0, Object::Folder | Object::Symlink | Object::Other) => {
                Successor::File { len: self.draw_len(), seed: self.random.u64(..) }
            }
            (1, Object::File { .. } | Object::Symlink | Object::Other) => Successor::Folder,
            (2, Object::Folder | Object::File { .. } | Object::Other) => {
                Successor::Symlink { target: self.draw_target() }
            }
            (_, Object::Folder | Object::File { .. } | Object::Symlink | Object::Other) => {
                return None;
            }
        };
        Some(Operation::Replace { path, by })
    }

    fn make_deep(&mut self) -> Option<Operation> {
        let path = self.free_path()?;
        let most = self.limits.depth.saturating_sub(path.components().count());
        let levels = self.random.u32(1..=u32::try_from(most).ok()?.max(1));
        debug_assert!(BOTTOM_LEN <= self.limits.file_len);
        Some(Operation::MakeDeep { path, levels, seed: self.random.u64(..) })
    }

    fn touch(&mut self) -> Option<Operation> {
        let path = self.any_path()?;
        let seconds = self.random.i64(-1_000_000_000..4_000_000_000);
        Some(Operation::Touch { path, seconds, nanoseconds: self.random.i64(0..1_000_000_000) })
    }

    /// One of the paths that `is_wanted` takes, each as likely as the others.
    fn draw(&mut self, is_wanted: impl Fn(&Model, &Path, Object) -> bool) -> Option<PathBuf> {
        let paths: Vec<&Path> = self
            .model
            .entries()
            .filter(|(path, object)| is_wanted(self.model, path, *object))
            .map(|(path, _)| path)
            .collect();
        (!paths.is_empty()).then(|| paths[self.random.usize(..paths.len())].to_owned())
    }

    fn any_path(&mut self) -> Option<PathBuf> {
        self.draw(|_, _, _| true)
    }

    /// A file and its length.
    fn any_file(&mut self) -> Option<(PathBuf, u64)> {
        let path = self.draw(|_, _, object| matches!(object, Object::File { .. }))?;
        match self.model.object(&path)? {
            Object::File { len } => Some((path, len)),
            Object::Folder | Object::Symlink | Object::Other => None,
        }
    }

    /// A name that nothing has, in a folder that is not too deep.
    fn free_path(&mut self) -> Option<PathBuf> {
        let depth_max = self.limits.depth;
        let folder = self.draw(|_, path, object| {
            object == Object::Folder && path.components().count() < depth_max
        });
        let folder = folder.filter(|_| self.random.u8(0..6) > 0).unwrap_or_default();
        let name = NAMES[self.random.usize(..NAMES.len())];
        let path = folder.join(OsStr::from_bytes(name));
        self.model.object(&path).is_none().then_some(path)
    }

    /// What is at `from` does not become too deep at `to`.
    fn fits(&self, from: &Path, to: &Path) -> bool {
        let depths = self.model.subtree(from).map(|path| path.components().count());
        let height = depths.max().unwrap_or(0) - from.components().count();
        to.components().count() + height <= self.limits.depth + 1
    }

    /// Mostly small, at times at the edge of a piece.
    fn draw_len(&mut self) -> u64 {
        let len = match self.random.u8(0..10) {
            0 => 0,
            1..=6 => self.random.u64(1..10_000),
            7 => PIECE_LEN * self.random.u64(1..4),
            8 => PIECE_LEN * self.random.u64(1..4) + 1,
            _ => self.random.u64(10_000..300_000),
        };
        len.min(self.limits.file_len)
    }

    /// A part of a file of `size` bytes: offset and length.
    fn draw_range(&mut self, size: u64) -> Option<(u64, u64)> {
        let at = self.random.u64(0..size.max(1));
        let len = self.random.u64(1..=PIECE_LEN).min(size.checked_sub(at)?);
        (len > 0).then_some((at, len))
    }

    fn draw_target(&mut self) -> Vec<u8> {
        TARGETS[self.random.usize(..TARGETS.len())].to_vec()
    }

    /// Something that can have an attribute of a user, and the name of one.
    fn draw_xattr(&mut self) -> Option<(PathBuf, &'static str)> {
        self.allowed.xattrs.then_some(())?;
        let path =
            self.draw(|_, _, object| matches!(object, Object::File { .. } | Object::Folder))?;
        Some((path, XATTRS[self.random.usize(..XATTRS.len())]))
    }
}

/// None of the paths is, or leads through, another one.
fn are_apart(paths: &[&PathBuf]) -> bool {
    let mut pairs = paths.iter().enumerate().flat_map(|(at, one)| {
        paths
            .iter()
            .enumerate()
            .filter(move |(other, _)| *other != at)
            .map(move |(_, it)| (one, it))
    });
    pairs.all(|(one, other)| !one.starts_with(other))
}
