//! How a tree became what it is, change by change, and which of these moments another tree is.
//!
//! After each system call of an application the ledger looks at the names that it touched. So it knows
//! what the tree was between any two of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::tree_walk::{Entries, Entry, Object, look, object, walk};

/// A tree and its past.
#[derive(Debug)]
pub(super) struct Ledger {
    root: PathBuf,
    now: BTreeMap<PathBuf, (Object, Entry)>,
    names: BTreeMap<Object, BTreeSet<PathBuf>>,
    /// What each name stood for, from the version on that is named.
    past: BTreeMap<PathBuf, Vec<(Version, Option<Entry>)>>,
    /// When each change happened.
    changes: Vec<Instant>,
}

/// So many changes were made.
pub(super) type Version = usize;

/// What of a tree survived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Survived {
    /// All of it, as it was at this moment.
    Whole(Version),
    /// Not all files are of one moment. None is older than what had to survive.
    Fuzzy {
        /// The oldest moment of any.
        oldest: Version,
        /// Names that are not what they were at any moment since.
        in_part: usize,
    },
}

/// What is not allowed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Wrong {
    /// It is one moment of the tree, and too early.
    #[error("the tree is what it was after {found} changes, but {synced} of them were synced")]
    TooOld { found: Version, synced: Version },
    /// It is no moment of the tree, though it is called one.
    #[error("the tree is what it was at no moment: {0:?} does not fit to the rest")]
    Mixed(PathBuf),
    /// A file that was synced and not changed since is not what it was.
    #[error("{0:?} was synced and not changed since, and is not what it was")]
    Lost(PathBuf),
}

impl Ledger {
    /// The ledger of the tree at `root` from now on.
    pub(super) async fn begin(root: &Path) -> io::Result<Self> {
        let mut ledger = Self {
            root: root.to_owned(),
            now: BTreeMap::new(),
            names: BTreeMap::new(),
            past: BTreeMap::new(),
            changes: Vec::new(),
        };
        let paths = walk(root).await?.into_keys().collect();
        ledger.look_at(&paths)?;
        Ok(ledger)
    }

    /// How many changes were made.
    pub(super) fn version(&self) -> Version {
        self.changes.len()
    }

    /// When the tree ceased to be what it was at that version; `None` if it is that still.
    pub(super) fn left_at(&self, version: Version) -> Option<Instant> {
        self.changes.get(version).copied()
    }

    /// The paths of what there is now.
    pub(super) fn paths(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.now.iter().map(|(path, (_, entry))| (path.as_path(), entry))
    }

    /// What there is at a path now.
    pub(super) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.now.get(path).map(|(_, entry)| entry)
    }

    /// The tree as it is now.
    pub(super) fn entries(&self) -> Entries {
        self.paths().map(|(path, entry)| (path.to_owned(), entry.clone())).collect()
    }

    /// A system call touched these paths.
    pub(super) fn note<'a>(
        &mut self,
        touched: impl IntoIterator<Item = &'a Path>,
    ) -> io::Result<()> {
        self.changes.push(Instant::now());
        let mut paths = BTreeSet::new();
        for path in touched {
            paths.insert(path.to_owned());
            // A folder says when a name in it came or went.
            paths.extend(path.parent().map(Path::to_owned));
        }
        self.look_at(&paths)
    }

    fn look_at(&mut self, paths: &BTreeSet<PathBuf>) -> io::Result<()> {
        // Other names of what was and what is there change with it.
        let mut all = paths.clone();
        for path in paths {
            let was = self.now.get(path).map(|(object, _)| *object);
            let is = object(&self.root, path)?;
            for object in was.into_iter().chain(is) {
                all.extend(self.names.get(&object).into_iter().flatten().cloned());
            }
        }
        for path in &all {
            if let Some((object, _)) = self.now.remove(path) {
                let names = self.names.get_mut(&object);
                let is_last = names.is_some_and(|names| names.remove(path) && names.is_empty());
                if is_last {
                    self.names.remove(&object);
                }
            }
        }
        for path in &all {
            if let Some((object, entry)) = look(&self.root, path)? {
                self.names.entry(object).or_default().insert(path.clone());
                self.now.insert(path.clone(), (object, entry));
            }
        }
        let version = self.version();
        for path in all {
            let entry = self.now.get_mut(&path).map(|(object, entry)| {
                let first = self.names.get(object).and_then(BTreeSet::first);
                entry.first.clone_from(first.unwrap_or(&path));
                entry.clone()
            });
            let past = self.past.entry(path).or_default();
            if past.last().and_then(|(_, last)| last.as_ref()) != entry.as_ref() {
                past.push((version, entry));
            }
        }
        Ok(())
    }

    /// Compares a tree with the past of this one: nothing that was there at `synced` may be lost.
    /// `is_fuzzy`: its files need not be of one moment.
    ///
    /// # Errors
    /// [`Wrong`].
    pub(super) fn judge(
        &self,
        found: &Entries,
        synced: Version,
        is_fuzzy: bool,
    ) -> Result<Survived, Wrong> {
        match self.moments(found) {
            Ok(version) if version >= synced => return Ok(Survived::Whole(version)),
            Ok(version) => return Err(Wrong::TooOld { found: version, synced }),
            Err(path) if !is_fuzzy => return Err(Wrong::Mixed(path)),
            Err(_) => {}
        }
        let (mut oldest, mut in_part) = (self.version(), 0);
        for path in self.all_paths(found) {
            let versions = self.versions(path, found.get(path));
            if let Some(newest) = versions.last().filter(|versions| versions.end > synced) {
                oldest = oldest.min(newest.end - 1);
                continue;
            }
            let last = self.past.get(path).and_then(|past| past.last());
            if last.is_none_or(|(version, _)| *version <= synced) {
                return Err(Wrong::Lost(path.clone()));
            }
            in_part += 1;
        }
        Ok(Survived::Fuzzy { oldest, in_part })
    }

    /// The last version at which the whole tree was as `found`, or a path that does not fit.
    fn moments(&self, found: &Entries) -> Result<Version, PathBuf> {
        let mut left: Vec<_> = std::iter::once(0..self.version() + 1).collect();
        for path in self.all_paths(found) {
            left = common(&left, &self.versions(path, found.get(path)));
            if left.is_empty() {
                return Err(path.clone());
            }
        }
        Ok(left.last().map_or(0, |versions| versions.end - 1))
    }

    fn all_paths<'a>(&'a self, found: &'a Entries) -> BTreeSet<&'a PathBuf> {
        self.past.keys().chain(found.keys()).collect()
    }

    /// When a path was `entry`, in order.
    fn versions(&self, path: &Path, entry: Option<&Entry>) -> Vec<Range<Version>> {
        let past = self.past.get(path).map(Vec::as_slice).unwrap_or_default();
        let end = self.version() + 1;
        let mut versions = Vec::new();
        let born = past.first().map_or(end, |(version, _)| *version);
        if entry.is_none() && born > 0 {
            versions.push(0..born);
        }
        for (at, (from, was)) in past.iter().enumerate() {
            if was.as_ref() == entry {
                versions.push(*from..past.get(at + 1).map_or(end, |(next, _)| *next));
            }
        }
        versions
    }
}

/// What two lists of ranges have in common; both are in order.
fn common(one: &[Range<Version>], other: &[Range<Version>]) -> Vec<Range<Version>> {
    let mut both = Vec::new();
    for left in one {
        for right in other {
            let (start, end) = (left.start.max(right.start), left.end.min(right.end));
            if start < end {
                both.push(start..end);
            }
        }
    }
    both
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cli::client::block_on;

    /// A tree that changes four times, and what it was each time.
    fn past() -> (Ledger, Vec<Entries>) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let (one, two) = (Path::new("one"), Path::new("two"));
        let mut made = None;
        block_on(async {
            fs::write(root.join(one), "a").unwrap();
            let mut ledger = Ledger::begin(&root).await.unwrap();
            let mut moments = vec![walk(&root).await.unwrap()];
            fs::write(root.join(one), "bb").unwrap();
            ledger.note([one]).unwrap();
            moments.push(walk(&root).await.unwrap());
            fs::write(root.join(two), "c").unwrap();
            ledger.note([two]).unwrap();
            moments.push(walk(&root).await.unwrap());
            fs::remove_file(root.join(two)).unwrap();
            fs::hard_link(root.join(one), root.join(two)).unwrap();
            ledger.note([two]).unwrap();
            moments.push(walk(&root).await.unwrap());
            fs::write(root.join(two), "dddd").unwrap();
            ledger.note([two]).unwrap();
            moments.push(walk(&root).await.unwrap());
            made = Some((ledger, moments));
            Ok(())
        })
        .unwrap();
        made.unwrap()
    }

    #[test]
    fn each_moment_is_known_again_and_must_not_be_too_old() {
        let (ledger, moments) = past();
        assert_eq!((ledger.version(), moments.len()), (4, 5));
        assert_eq!(ledger.entries(), moments[4]);
        for (version, moment) in moments.iter().enumerate() {
            assert_eq!(ledger.judge(moment, version, false), Ok(Survived::Whole(version)));
            let wrong = Wrong::TooOld { found: version, synced: version + 1 };
            assert_eq!(ledger.judge(moment, version + 1, true), Err(wrong));
            assert_eq!(ledger.left_at(version).is_none(), version == 4);
        }
    }

    #[test]
    fn a_mixture_is_found_and_is_allowed_only_of_what_changed_since() {
        let (ledger, moments) = past();
        // The file of the second moment beside that of the first.
        let mut mixed = moments[2].clone();
        mixed.insert(PathBuf::from("one"), moments[0][Path::new("one")].clone());
        assert!(matches!(ledger.judge(&mixed, 0, false), Err(Wrong::Mixed(_))));
        let fuzzy = |oldest, in_part| Ok(Survived::Fuzzy { oldest, in_part });
        assert_eq!(ledger.judge(&mixed, 0, true), fuzzy(0, 0));
        // It changed after the sync: nobody promised what it is.
        assert_eq!(ledger.judge(&mixed, 1, true), fuzzy(2, 1));
        assert!(matches!(ledger.judge(&mixed, 4, true), Err(Wrong::Lost(_))));
    }

    #[test]
    fn what_nobody_made_is_found() {
        let (ledger, moments) = past();
        let mut foreign = moments[4].clone();
        foreign.insert(PathBuf::from("three"), foreign[Path::new("one")].clone());
        for is_fuzzy in [false, true] {
            assert!(ledger.judge(&foreign, 0, is_fuzzy).is_err());
        }
        let mut lost = moments[4].clone();
        lost.remove(Path::new("one"));
        assert_eq!(ledger.judge(&lost, 4, true), Err(Wrong::Lost(PathBuf::from("one"))));
    }
}
