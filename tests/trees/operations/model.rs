//! What a storm knows of its tree: names, which of them lead to one object, kinds and lengths.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Operation, Successor};

/// The name of the file below the folders of [`Operation::MakeDeep`].
pub(super) const BOTTOM: &str = "bottom";
/// Each of the folders of [`Operation::MakeDeep`] but the first.
pub(super) const LEVEL: &str = "d";
/// Bytes of the file at the bottom.
pub(super) const BOTTOM_LEN: u64 = 100;

/// An object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Object {
    File { len: u64 },
    Folder,
    Symlink,
    Other,
}

/// The tree, without its root.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Paths are ordered by their parts, so what is in a folder follows it.
    names: BTreeMap<PathBuf, u64>,
    objects: BTreeMap<u64, Object>,
    next_object: u64,
}

impl Model {
    /// The tree below `root` as it is.
    pub(super) fn of(root: &Path) -> io::Result<Self> {
        let mut model = Self::default();
        let mut seen: BTreeMap<(u64, u64), u64> = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let listed: io::Result<Vec<_>> = fs::read_dir(root.join(&folder))?.collect();
            let mut names: Vec<_> = listed?.into_iter().map(|entry| entry.file_name()).collect();
            names.sort();
            for name in names {
                let path = folder.join(name);
                let stat = root.join(&path).symlink_metadata()?;
                let kind = stat.file_type();
                let object = if kind.is_dir() {
                    folders.push(path.clone());
                    Object::Folder
                } else if kind.is_file() {
                    Object::File { len: stat.len() }
                } else if kind.is_symlink() {
                    Object::Symlink
                } else {
                    Object::Other
                };
                let known = seen.get(&(stat.dev(), stat.ino())).copied();
                let id = known.unwrap_or_else(|| model.add_object(object));
                seen.insert((stat.dev(), stat.ino()), id);
                model.names.insert(path, id);
            }
        }
        Ok(model)
    }

    /// All paths with what they lead to.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&Path, Object)> {
        self.names.iter().map(|(path, id)| (path.as_path(), self.objects[id]))
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let lens = self.objects.values().map(|object| match object {
            Object::File { len } => *len,
            Object::Folder | Object::Symlink | Object::Other => 0,
        });
        lens.sum()
    }

    pub(super) fn object(&self, path: &Path) -> Option<Object> {
        Some(self.objects[self.names.get(path)?])
    }

    /// Both lead to one object.
    pub(super) fn are_one(&self, one: &Path, other: &Path) -> bool {
        let id = self.names.get(one);
        id.is_some() && id == self.names.get(other)
    }

    /// `path` and all below it.
    pub(super) fn subtree(&self, path: &Path) -> impl Iterator<Item = &PathBuf> {
        let from = self.names.range(path.to_owned()..).map(|(path, _)| path);
        from.take_while(move |below| below.starts_with(path))
    }

    pub(super) fn is_empty_folder(&self, path: &Path) -> bool {
        self.object(path) == Some(Object::Folder) && self.subtree(path).count() == 1
    }

    /// Follows an operation that was done.
    pub(super) fn on_applied(&mut self, operation: &Operation) {
        match operation {
            Operation::Create { path, len, .. } | Operation::Save { path, len, .. } => {
                self.put(path, Object::File { len: *len });
            }
            Operation::Append { path, len, .. } => {
                let before = self.len_of(path);
                self.set_len(path, before + len);
            }
            Operation::Truncate { path, len } => self.set_len(path, *len),
            Operation::Copy { from, to } => self.put(to, Object::File { len: self.len_of(from) }),
            Operation::Rename { from, to } => {
                self.remove(to);
                self.shift(from, to);
            }
            Operation::Exchange { one, other } => self.permute(&[one, other]),
            Operation::Cycle { paths: [a, b, c] } => self.permute(&[a, b, c]),
            Operation::Invert { parent, child } => {
                let aside = PathBuf::from("aside of invert");
                let name = child.file_name().expect("a child has a name");
                let place = parent.with_file_name(name);
                self.shift(child, &aside);
                let below = parent.file_name().expect("it is not the root");
                self.shift(parent, &aside.join(below));
                self.shift(&aside, &place);
            }
            Operation::Link { from, to } => {
                let id = self.names[from];
                self.names.insert(to.clone(), id);
            }
            Operation::Remove { path } | Operation::RemoveAll { path } => self.remove(path),
            Operation::Symlink { path, .. } => self.put(path, Object::Symlink),
            Operation::Fifo { path } => self.put(path, Object::Other),
            Operation::Replace { path, by } => {
                self.remove(path);
                self.put(
                    path,
                    match by {
                        Successor::File { len, .. } => Object::File { len: *len },
                        Successor::Folder => Object::Folder,
                        Successor::Symlink { .. } => Object::Symlink,
                    },
                );
            }
            Operation::MakeDeep { path, levels, .. } => {
                let mut path = path.clone();
                self.put(&path, Object::Folder);
                for _ in 1..*levels {
                    path.push(LEVEL);
                    self.put(&path, Object::Folder);
                }
                self.put(&path.join(BOTTOM), Object::File { len: BOTTOM_LEN });
            }
            Operation::Overwrite { .. }
            | Operation::Punch { .. }
            | Operation::Chmod { .. }
            | Operation::Chown { .. }
            | Operation::SetXattr { .. }
            | Operation::RemoveXattr { .. }
            | Operation::Touch { .. } => {}
        }
    }

    /// Both have the same names, links, kinds and lengths.
    pub(super) fn check_equal(&self, other: &Self) -> Result<(), String> {
        let (mine, others) = (self.described(), other.described());
        for (path, known) in &mine {
            let found = others.get(path);
            if found != Some(known) {
                return Err(format!("{}: {known:?}, found {found:?}", path.display()));
            }
        }
        if let Some(path) = others.keys().find(|path| !mine.contains_key(*path)) {
            return Err(format!("{}: nobody made it", path.display()));
        }
        // One without a name would count as bytes of the tree.
        let (mine, others) = (self.objects.len(), other.objects.len());
        if mine == others { Ok(()) } else { Err(format!("{mine} objects known, {others} found")) }
    }

    /// Each path with the first one that leads to the same object, and that object.
    fn described(&self) -> BTreeMap<&Path, (&Path, Object)> {
        let mut firsts: BTreeMap<u64, &Path> = BTreeMap::new();
        for (path, id) in &self.names {
            firsts.entry(*id).or_insert(path);
        }
        let names = self.names.iter();
        names.map(|(path, id)| (path.as_path(), (firsts[id], self.objects[id]))).collect()
    }

    fn add_object(&mut self, object: Object) -> u64 {
        self.next_object += 1;
        self.objects.insert(self.next_object, object);
        self.next_object
    }

    /// A new object at `path`, instead of what was there.
    fn put(&mut self, path: &Path, object: Object) {
        let id = self.add_object(object);
        let old = self.names.insert(path.to_owned(), id);
        self.forget(old);
    }

    fn remove(&mut self, path: &Path) {
        let paths: Vec<PathBuf> = self.subtree(path).cloned().collect();
        for path in paths {
            let old = self.names.remove(&path);
            self.forget(old);
        }
    }

    /// Drops an object without names.
    fn forget(&mut self, id: Option<u64>) {
        if let Some(id) = id
            && !self.names.values().any(|other| *other == id)
        {
            self.objects.remove(&id);
        }
    }

    /// What is at `from` and below it is at `to`, where nothing is.
    fn shift(&mut self, from: &Path, to: &Path) {
        let paths: Vec<PathBuf> = self.subtree(from).cloned().collect();
        for path in paths {
            let rest = path.strip_prefix(from).expect("it is below");
            let target = if rest == Path::new("") { to.to_owned() } else { to.join(rest) };
            let id = self.names.remove(&path).expect("it was listed");
            self.names.insert(target, id);
        }
    }

    /// Each takes the place of the next, the last that of the first.
    fn permute(&mut self, paths: &[&PathBuf]) {
        let aside = |index: usize| PathBuf::from(format!("aside {index}"));
        for (index, path) in paths.iter().enumerate() {
            self.shift(path, &aside(index));
        }
        for index in 0..paths.len() {
            self.shift(&aside(index), paths[(index + 1) % paths.len()]);
        }
    }

    fn len_of(&self, path: &Path) -> u64 {
        match self.object(path) {
            Some(Object::File { len }) => len,
            other => panic!("{}: {other:?} has no length", path.display()),
        }
    }

    fn set_len(&mut self, path: &Path, len: u64) {
        let id = self.names[path];
        self.objects.insert(id, Object::File { len });
    }
}
