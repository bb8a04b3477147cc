//! What a capture has to say beside the generation itself.

use std::collections::BTreeMap;

use crate::manifest::{Due, Name};
use crate::units::{FuzzyWhy, ObjectId, TreePosition};

/// Most entries that are listed one by one. Source: directory.md 15.
const LISTED_MAX: usize = 10_000;
/// Most paths of things that are not kept. Source: directory.md 2.
const SKIPPED_MAX: usize = 100;

/// Entries that did not hold still, or could not be read.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Fuzzy {
    listed: BTreeMap<(ObjectId, Name), FuzzyWhy>,
    unlisted: u64,
}

impl Fuzzy {
    /// Notes an entry.
    pub(super) fn note(&mut self, directory: ObjectId, name: Name, why: FuzzyWhy) {
        let key = (directory, name);
        if self.listed.len() < LISTED_MAX || self.listed.contains_key(&key) {
            self.listed.insert(key, why);
        } else {
            self.unlisted += 1;
        }
    }

    /// Notes what was touched since it was looked at. What is touched as a whole has no list of names.
    pub(super) fn note_said(&mut self, said: &Due) {
        for (directory, name) in &said.names {
            self.note(*directory, name.clone(), FuzzyWhy::Skewed);
        }
        self.unlisted += said.directories.len() as u64 + u64::from(said.everything);
    }

    /// Notes what has no name to be listed by.
    pub(super) fn note_nameless(&mut self) {
        self.unlisted += 1;
    }

    /// Notes all that `other` has, also what it has no list of.
    pub(super) fn add(&mut self, other: Self) {
        for ((directory, name), why) in other.listed {
            self.note(directory, name, why);
        }
        self.unlisted += other.unlisted;
    }

    /// Those that are listed.
    pub fn listed(&self) -> impl Iterator<Item = (&(ObjectId, Name), FuzzyWhy)> {
        self.listed.iter().map(|(key, why)| (key, *why))
    }

    /// How many there are, listed or not.
    pub fn count(&self) -> u64 {
        self.listed.len() as u64 + self.unlisted
    }
}

/// Why an entry is not in the manifest, or not all of it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SkippedWhy {
    /// Another file system is mounted there: kept as an empty directory.
    Mount,
    /// It is immutable or append-only, which is not kept.
    Flags,
    /// The kernel knows a kind of object that we do not.
    Kind,
    /// A device, where devices are left out.
    Device,
    /// Its name or its path is longer, or deeper, than what can be kept.
    Path,
}

impl SkippedWhy {
    /// As `status` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mount => "mounts",
            Self::Flags => "flags",
            Self::Kind => "kinds",
            Self::Device => "devices",
            Self::Path => "paths",
        }
    }
}

/// What is not kept: how much of each, and the first paths.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Skipped {
    /// How many of each kind were met.
    pub counts: BTreeMap<SkippedWhy, u64>,
    /// The first paths, byte for byte.
    pub paths: Vec<(SkippedWhy, Vec<u8>)>,
}

impl Skipped {
    pub(super) fn note(&mut self, why: SkippedWhy, path: impl FnOnce() -> Vec<u8>) {
        *self.counts.entry(why).or_default() += 1;
        if self.paths.len() < SKIPPED_MAX {
            self.paths.push((why, path()));
        }
    }
}

/// What became of a capture.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Captured {
    /// The generation; the one before if nothing has changed.
    pub position: TreePosition,
    /// Whether it is a new one.
    pub is_new: bool,
    /// Whether the last pass found each entry as the one before had, with no event in between.
    pub is_closed: bool,
    /// Whether any pass but the first found a change.
    pub change_seen: bool,
    /// Entries that did not hold still, or could not be read.
    pub fuzzy: Fuzzy,
    /// What is not kept, of what was looked at.
    pub skipped: Skipped,
    /// Names that went, without those of objects that have others now.
    pub deleted: u64,
    /// So many names went that the generation before is to be kept until the operator accepts that.
    pub is_pinned: bool,
    /// Directories without a watch, because the kernel allows no more.
    pub unwatched: u64,
    /// Something was not found where it should be: only a look at everything tells.
    pub needs_scan: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_touched_as_a_whole_is_counted_though_nothing_of_it_is_listed() {
        let name = Name::new(b"file").unwrap();
        let said = [
            Due { everything: true, ..Due::default() },
            Due { directories: vec![ObjectId(3), ObjectId(4)], ..Due::default() },
            Due { names: vec![(ObjectId(3), name)], ..Due::default() },
        ];
        let mut all = Fuzzy::default();
        for (said, count) in said.iter().zip([1, 3, 4]) {
            let mut moving = Fuzzy::default();
            moving.note_said(said);
            all.add(moving);
            assert_eq!(all.count(), count);
        }
        assert_eq!(all.listed().count(), 1);
    }
}
