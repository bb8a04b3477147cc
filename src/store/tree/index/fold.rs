//! From what changed in the index to the new root of the tree, with no look at what did not.
//!
//! A bucket ends where its last name says so, whatever else is in the directory. So after a change the
//! buckets around the changed names are computed again until one ends where the next began before; the
//! hash of the directory follows from the hashes of its buckets, and changes its parent's bucket in turn.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

use super::tables::{Rows, Stale, Tables};
use super::{IndexError, lost};
use crate::manifest::{
    Beside, BucketHash, Buckets, Entry, EntryHash, Kind, ManifestError, Name, Row, Scope, TreePath,
    directory_hash,
};
use crate::units::{ObjectId, TreeRoot};

/// Entries that are read at once.
const READ_COUNT: usize = 1024;
/// Above every name.
const BEHIND_ALL: &[u8] = &[0xff; 256];

impl Tables<'_> {
    /// Brings all hashes up to date, and gives the root.
    ///
    /// # Errors
    /// [`IndexError`]; [`IndexError::Tree`] if a path is too long or too deep.
    pub fn fold(&mut self, scope: &Scope) -> Result<TreeRoot, IndexError> {
        self.name_smallest()?;
        // Deepest first: the hash of a directory is part of its parent's.
        let mut by_depth: BTreeMap<usize, BTreeSet<ObjectId>> = BTreeMap::new();
        for directory in self.stale.keys().copied().collect::<Vec<_>>() {
            if self.object(directory)?.is_some() {
                by_depth.entry(self.depth(directory)?).or_default().insert(directory);
            }
        }
        while let Some((depth, directories)) = by_depth.pop_last() {
            for directory in directories {
                let names = self.stale.remove(&directory).unwrap_or_default();
                self.rebucket(directory, &names)?;
                if self.fold_directory(directory)? {
                    let parents = self.places_of(directory, 1)?;
                    let above = parents.into_iter().map(|(parent, _)| parent);
                    by_depth.entry(depth.saturating_sub(1)).or_default().extend(above);
                }
            }
        }
        self.stale.clear();
        let root = self.row(ObjectId::ROOT)?;
        Ok(scope.root(EntryHash::of(&root.entry)))
    }

    /// Objects with several names hold the smallest of their paths. It changes with their names, and
    /// with those of the directories above.
    fn name_smallest(&mut self) -> Result<(), IndexError> {
        let mut due = std::mem::take(&mut self.relinked);
        let mut has_moved = false;
        for id in std::mem::take(&mut self.displaced) {
            let row = self.object(id)?;
            has_moved |= row.is_some_and(|row| row.entry.object().kind() == Kind::Directory);
        }
        if has_moved {
            for row in self.linked.iter().map_err(lost)? {
                due.insert(ObjectId(row.map_err(lost)?.0.value()));
            }
        }
        for id in due {
            if let Some(row) = self.object(id)?.filter(|row| !is_directory(row)) {
                self.name_smallest_of(id, row)?;
            }
        }
        Ok(())
    }

    fn name_smallest_of(&mut self, id: ObjectId, mut row: Row) -> Result<(), IndexError> {
        let places = self.places_of(id, usize::MAX)?;
        let mut paths = Vec::new();
        if places.len() > 1 {
            self.linked.insert(id.0, ()).map_err(lost)?;
            for (directory, name) in places {
                paths.push(self.path(directory, name)?);
            }
        } else {
            self.linked.remove(id.0).map_err(lost)?;
        }
        let beside = paths.into_iter().min().map_or(Beside::Nothing, Beside::Smallest);
        if *row.entry.beside() != beside {
            row.entry = Entry::new(row.entry.object().clone(), beside)?;
            self.put_object(id, &row)?;
        }
        Ok(())
    }

    /// Computes buckets again.
    fn rebucket(&mut self, directory: ObjectId, stale: &Stale) -> Result<(), IndexError> {
        let names = match stale {
            Stale::Names(names) => names,
            Stale::All => return self.cut_from(directory, Vec::new(), None).map(drop),
        };
        let mut done = Vec::new();
        for name in names {
            if name.bytes() >= done.as_slice() {
                let start = self.bucket_at(directory, name)?;
                done = self.cut_from(directory, start, Some(name))?;
            }
        }
        Ok(())
    }

    /// The first name of the bucket that holds, or would hold, `name`; nothing if it is the first one.
    fn bucket_at(&self, directory: ObjectId, name: &Name) -> Result<Vec<u8>, IndexError> {
        let range = (directory.0, &[][..])..=(directory.0, name.bytes());
        let last = self.buckets.range(range).map_err(lost)?.next_back();
        Ok(match last {
            None => Vec::new(),
            Some(row) => row.map_err(lost)?.0.value().1.to_vec(),
        })
    }

    /// Cuts buckets from `start`, where one begins, up to the first that ends behind `name` where one
    /// began before, or all of them. Gives the beginning of what was not looked at.
    fn cut_from(
        &mut self,
        directory: ObjectId,
        start: Vec<u8>,
        name: Option<&Name>,
    ) -> Result<Vec<u8>, IndexError> {
        let mut buckets = Buckets::default();
        let mut from = start;
        loop {
            let page = self.entries(directory, &from, READ_COUNT)?;
            for (at, id) in &page {
                let is_behind = name.is_some_and(|name| at > name);
                if is_behind && buckets.is_empty() && self.begins_bucket(directory, at)? {
                    return Ok(at.bytes().to_vec());
                }
                let hash = self.entry_hash(*id)?;
                // Buckets that began behind the entry before, and here: they are cut anew.
                let next = [at.bytes(), &[0]].concat();
                self.forget_buckets(directory, &from, &next)?;
                from = next;
                if let Some(bucket) = buckets.push(at, hash)? {
                    self.put_bucket(directory, &bucket.first, bucket.hash)?;
                }
            }
            if page.len() < READ_COUNT {
                break;
            }
        }
        self.forget_buckets(directory, &from, BEHIND_ALL)?;
        if let Some(bucket) = buckets.finish() {
            self.put_bucket(directory, &bucket.first, bucket.hash)?;
        }
        Ok(BEHIND_ALL.to_vec())
    }

    fn begins_bucket(&self, directory: ObjectId, name: &Name) -> Result<bool, IndexError> {
        let found = self.buckets.get((directory.0, name.bytes())).map_err(lost)?;
        Ok(found.is_some())
    }

    fn forget_buckets(
        &mut self,
        directory: ObjectId,
        from: &[u8],
        to: &[u8],
    ) -> Result<(), IndexError> {
        self.buckets.retain_in((directory.0, from)..(directory.0, to), |_, _| false).map_err(lost)
    }

    fn put_bucket(
        &mut self,
        directory: ObjectId,
        first: &Name,
        hash: BucketHash,
    ) -> Result<(), IndexError> {
        self.buckets.insert((directory.0, first.bytes()), hash.0).map_err(lost)?;
        Ok(())
    }

    /// Computes the hash of a directory from its buckets; whether it changed.
    fn fold_directory(&mut self, directory: ObjectId) -> Result<bool, IndexError> {
        let mut hashes = Vec::new();
        let range = (directory.0, &[][..])..(directory.0 + 1, &[][..]);
        for row in self.buckets.range(range).map_err(lost)? {
            hashes.push(BucketHash(row.map_err(lost)?.1.value()));
        }
        let inside = Beside::Inside(directory_hash(hashes));
        let mut row = self.row(directory)?;
        let has_changed = *row.entry.beside() != inside;
        if has_changed {
            row.entry = Entry::new(row.entry.object().clone(), inside)?;
            self.put_object(directory, &row)?;
        }
        // What else of it changed has marked its parent before.
        Ok(has_changed)
    }

    fn entry_hash(&self, id: ObjectId) -> Result<EntryHash, IndexError> {
        Ok(EntryHash::of(&self.row(id)?.entry))
    }

    fn row(&self, id: ObjectId) -> Result<Row, IndexError> {
        self.object(id)?.ok_or(IndexError::Missing { table: "objects", object: id.0 })
    }

    /// How far below the root a directory is.
    fn depth(&self, directory: ObjectId) -> Result<usize, IndexError> {
        Ok(self.names_above(directory)?.len())
    }

    /// The path of an entry.
    fn path(&self, directory: ObjectId, name: Name) -> Result<TreePath, IndexError> {
        let mut names = self.names_above(directory)?;
        names.push(name);
        let path = TreePath::of(&names);
        path.map_err(|why| IndexError::Tree(ManifestError::from(why)))
    }
}

fn is_directory(row: &Row) -> bool {
    row.entry.object().kind() == Kind::Directory
}
