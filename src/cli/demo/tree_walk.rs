//! A tree as it is: what every name stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use blake3::{Hash, Hasher};

/// What a name stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Folder,
    File {
        len: u64,
        hash: Hash,
    },
    Link {
        target: PathBuf,
    },
    /// Nothing that the demo makes.
    Other,
}

/// All that is compared of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    mode: u32,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// The first of all names of the same object: names that have this in common are links.
    pub(super) first: PathBuf,
}

/// The object that a name leads to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Object(u64);

/// Entries by path; that of the root is empty.
pub(super) type Entries = BTreeMap<PathBuf, Entry>;

/// What is at `path` below `root`, as the only name of its object; `None` if nothing is.
pub(super) fn look(root: &Path, path: &Path) -> io::Result<Option<(Object, Entry)>> {
    let Some(found) = stat(root, path)? else { return Ok(None) };
    let entry = Entry {
        kind: kind(&place(root, path), &found)?,
        mode: found.mode() & MODE_MASK,
        modified: (found.mtime(), found.mtime_nsec()),
        first: path.to_owned(),
    };
    Ok(Some((Object(found.ino()), entry)))
}

/// Which object is at `path` below `root`.
pub(super) fn object(root: &Path, path: &Path) -> io::Result<Option<Object>> {
    Ok(stat(root, path)?.map(|found| Object(found.ino())))
}

fn place(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

fn stat(root: &Path, path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(place(root, path)) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Everything below `root`, and the root itself. The tree must rest meanwhile.
pub(super) async fn walk(root: &Path) -> io::Result<Entries> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let Some((object, entry)) = look(root, &path)? else { continue };
        if entry.kind == Kind::Folder {
            for below in fs::read_dir(root.join(&path))? {
                waiting.push(path.join(below?.file_name()));
            }
        }
        found.push((object, entry));
        // Whoever interrupts the demo need not wait for the end of the tree.
        tokio::task::yield_now().await;
    }
    let mut firsts: BTreeMap<Object, PathBuf> = BTreeMap::new();
    for (object, entry) in &found {
        let first = firsts.entry(*object).or_insert_with(|| entry.first.clone());
        if entry.first < *first {
            first.clone_from(&entry.first);
        }
    }
    let entries = found.into_iter().map(|(object, entry)| {
        let first = firsts.get(&object).cloned().unwrap_or_default();
        (entry.first.clone(), Entry { first, ..entry })
    });
    Ok(entries.collect())
}

/// The names at which two trees differ, with what is there.
pub(super) fn differences(one: &Entries, other: &Entries) -> Vec<String> {
    let paths: BTreeSet<&PathBuf> = one.keys().chain(other.keys()).collect();
    let differ = paths.into_iter().filter(|path| one.get(*path) != other.get(*path));
    let told =
        |path: &PathBuf| format!("{}: {:?}, {:?}", path.display(), one.get(path), other.get(path));
    differ.map(told).collect()
}

/// One hash over all of a tree.
pub(super) fn hash(entries: &Entries) -> Hash {
    let mut hasher = Hasher::new();
    for (path, entry) in entries {
        hasher.update(path.as_os_str().as_encoded_bytes());
        hasher.update(format!("\0{entry:?}\n").as_bytes());
    }
    hasher.finalize()
}

/// Bytes of all files; a file with several names counts once.
pub(super) fn bytes(entries: &Entries) -> u64 {
    entries.iter().filter(|(path, entry)| entry.first == **path).map(|(_, entry)| entry.len()).sum()
}

impl Entry {
    /// Bytes of a file; 0 of anything else.
    pub(super) fn len(&self) -> u64 {
        match &self.kind {
            Kind::File { len, .. } => *len,
            Kind::Folder | Kind::Link { .. } | Kind::Other => 0,
        }
    }

    /// What a file holds, if it holds anything.
    pub(super) fn content(&self) -> Option<Hash> {
        match &self.kind {
            Kind::File { len, hash } if *len > 0 => Some(*hash),
            Kind::File { .. } | Kind::Folder | Kind::Link { .. } | Kind::Other => None,
        }
    }
}

fn kind(place: &Path, found: &Metadata) -> io::Result<Kind> {
    let kind = found.file_type();
    Ok(if kind.is_dir() {
        Kind::Folder
    } else if kind.is_file() {
        let hash = Hasher::new().update_reader(File::open(place)?)?.finalize();
        Kind::File { len: found.len(), hash }
    } else if kind.is_symlink() {
        Kind::Link { target: fs::read_link(place)? }
    } else {
        Kind::Other
    })
}

/// What chmod sets.
const MODE_MASK: u32 = 0o7777;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::client::block_on;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("below")).unwrap();
        fs::write(root.join("below/file"), "text").unwrap();
        fs::hard_link(root.join("below/file"), root.join("again")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("link")).unwrap();
        folder
    }

    fn walked(root: &Path) -> Entries {
        let mut entries = Entries::new();
        block_on(async {
            entries = walk(root).await.unwrap();
            Ok(())
        })
        .unwrap();
        entries
    }

    /// Names whose entries differ after a change.
    fn changed(change: impl FnOnce(&Path)) -> Vec<String> {
        let folder = tree();
        let before = walked(folder.path());
        change(folder.path());
        let after = walked(folder.path());
        assert_eq!(hash(&before) == hash(&after), before == after);
        let lines = differences(&before, &after);
        lines.iter().map(|line| line.split(": ").next().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_walk_sees_every_name_and_which_of_them_are_one_object() {
        let folder = tree();
        let entries = walked(folder.path());
        let paths: Vec<_> = entries.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(paths, ["", "again", "below", "below/file", "link"]);
        assert_eq!(entries[Path::new("below/file")].first, Path::new("again"));
        assert_eq!(bytes(&entries), 4);
        let target = PathBuf::from("nowhere");
        assert_eq!(entries[Path::new("link")].kind, Kind::Link { target });
    }

    #[test]
    fn a_difference_of_each_kind_is_seen() {
        assert_eq!(changed(|_| ()), Vec::<String>::new());
        let mode = |root: &Path| {
            fs::set_permissions(root.join("below"), fs::Permissions::from_mode(0o700)).unwrap();
        };
        assert_eq!(changed(mode), ["below"]);
        let content = |root: &Path| {
            let place = root.join("again");
            let modified = fs::metadata(&place).unwrap().modified().unwrap();
            fs::write(&place, "TEXT").unwrap();
            File::options().write(true).open(&place).unwrap().set_modified(modified).unwrap();
        };
        assert_eq!(changed(content), ["again", "below/file"]);
        // The same content under the same names, but no more one object.
        let unlinked = |root: &Path| {
            let place = root.join("again");
            let modified = [root.to_owned(), place.clone()]
                .map(|place| fs::metadata(place).unwrap().modified().unwrap());
            fs::remove_file(&place).unwrap();
            fs::write(&place, "text").unwrap();
            for (place, modified) in [&place, root].into_iter().zip([modified[1], modified[0]]) {
                File::open(place).unwrap().set_modified(modified).unwrap();
            }
        };
        assert_eq!(changed(unlinked), ["below/file"]);
        assert_eq!(changed(|root| fs::remove_file(root.join("link")).unwrap()), ["", "link"]);
    }
}
