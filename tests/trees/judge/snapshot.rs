//! A whole tree as it is now, to be compared with another one, or with itself later.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, open, openat};
use rustix::io::Errno;

use super::entry::{self, Entry, Found, Kind, shown};
use super::{RESERVED, report};

/// The entries of a tree by path; that of the root is empty.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    entries: BTreeMap<Vec<u8>, Entry>,
}

impl Snapshot {
    /// Reads the tree below `root`, which must rest meanwhile. Its depth is limited by the number
    /// of files that the process may have open, not by the length of a path.
    ///
    /// # Errors
    /// What cannot be read, or changed while it was read.
    pub(crate) fn of(root: &Path) -> Result<Self, String> {
        let at = |err: Errno| format!("{}: {err}", root.display());
        let folder = open(root, FOLDER, Mode::empty()).map_err(at)?;
        let mut walk = Walk::default();
        walk.add(entry::look(folder.as_fd(), entry::SELF, b"")?, b"");
        walk.enter(folder.as_fd(), b"")?;
        Ok(walk.finish())
    }

    /// All entries, in order of their paths.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_slice(), entry))
    }

    /// The entry at `path`; that of the root is empty.
    pub(crate) fn entry(&self, path: impl AsRef<[u8]>) -> Option<&Entry> {
        self.entries.get(path.as_ref())
    }

    /// Takes away all mtimes, for trees that were made at different times.
    pub(crate) fn without_times(mut self) -> Self {
        for entry in self.entries.values_mut() {
            entry.mtime = (0, 0);
        }
        self
    }

    /// Ok if there is no difference.
    ///
    /// # Errors
    /// The first differences.
    pub(crate) fn check_equal(&self, other: &Self) -> Result<(), String> {
        report("walk", &self.differences(other))
    }

    /// A line for each path and thing that differs.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, entry) in &self.entries {
            match other.entries.get(path) {
                None => found.push(format!("{}: only in the first", shown(path))),
                Some(another) => {
                    let lines = entry.differences(another).into_iter();
                    found.extend(lines.map(|line| format!("{}: {line}", shown(path))));
                }
            }
        }
        let only = other.entries.keys().filter(|path| !self.entries.contains_key(*path));
        found.extend(only.map(|path| format!("{}: only in the second", shown(path))));
        found
    }

    /// A line for each file that is in both trees, sparse in only one, and takes more than
    /// `tolerance` bytes less there.
    pub(crate) fn layout_differences(&self, other: &Self, tolerance: u64) -> Vec<String> {
        let mut found = Vec::new();
        for (path, entry) in &self.entries {
            let Some(another) = other.entries.get(path) else { continue };
            let (one, two) = (entry.allocated, another.allocated);
            let is_file = matches!(entry.kind, Kind::Regular { .. });
            if is_file && one.abs_diff(two) > tolerance {
                found.push(format!("{}: {one} bytes allocated, {two}", shown(path)));
            }
        }
        found
    }
}

const FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A tree that is being read.
#[derive(Default)]
struct Walk {
    entries: BTreeMap<Vec<u8>, Entry>,
    /// The paths that lead to each object.
    objects: BTreeMap<(u64, u64), Vec<Vec<u8>>>,
}

impl Walk {
    fn add(&mut self, found: Found, path: &[u8]) {
        self.objects.entry(found.object).or_default().push(path.to_vec());
        self.entries.insert(path.to_vec(), found.entry);
    }

    /// Reads what is in `folder`, which is at `path`.
    fn enter(&mut self, folder: BorrowedFd<'_>, path: &[u8]) -> Result<(), String> {
        let at = |err: Errno| format!("{}: {err}", shown(path));
        for listed in Dir::read_from(folder).map_err(at)? {
            let listed = listed.map_err(at)?;
            let name = listed.file_name().to_bytes();
            let is_itself = name == b"." || name == b"..";
            if is_itself || (path.is_empty() && name == RESERVED) {
                continue;
            }
            let below = joined(path, name);
            let found = entry::look(folder, name, &below)?;
            let is_directory = found.entry.kind == Kind::Directory;
            self.add(found, &below);
            if is_directory {
                let at = |err: Errno| format!("{}: {err}", shown(&below));
                let folder = openat(folder, name, FOLDER, Mode::empty()).map_err(at)?;
                self.enter(folder.as_fd(), &below)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Snapshot {
        for paths in self.objects.values_mut().filter(|paths| paths.len() > 1) {
            paths.sort_unstable();
            for path in &*paths {
                let entry = self.entries.get_mut(path).expect("each path was added with its entry");
                entry.first_path.clone_from(&paths[0]);
            }
        }
        Snapshot { entries: self.entries }
    }
}

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, name].join(&b'/') }
}
