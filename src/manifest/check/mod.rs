//! Whether a delta from a peer is one that a tree can take: the rules of directory.md 11.
//!
//! Records are taken one by one. What one record says alone, its order and its chunks are judged at
//! once; what the result must be like is judged at the end against a [`View`] of the base. Memory
//! grows with the objects and directories that the delta names, never with the tree.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use super::kept::check_object;
use super::limits::{ENTRIES_MAX, SEGMENT_CHUNKS, chunk_count};
use super::{
    Body, Kind, ManifestError, Name, NameError, Object, PATH_DEPTH_MAX, PATH_LEN_MAX, Record,
    whole_chunk_count,
};
use crate::units::ObjectId;

/// What can be looked up in the tree that a delta is for. One that cannot read says that there is
/// nothing, keeps the error, and is asked for it before the answer of the check counts.
pub trait View {
    /// What an object is; `None` if there is none.
    fn object(&self, id: ObjectId) -> Option<Object>;
    /// How many names an object has.
    fn links(&self, id: ObjectId) -> u64;
    /// What a name points to.
    fn name(&self, directory: ObjectId, name: &Name) -> Option<ObjectId>;
    /// Where a directory stands; `None` for the root.
    fn place(&self, directory: ObjectId) -> Option<(ObjectId, Name)>;
    /// How many names are in a directory.
    fn count(&self, directory: ObjectId) -> u64;
    /// The name in a directory that comes after another, or the first.
    fn next_name(&self, directory: ObjectId, after: Option<&Name>) -> Option<(Name, ObjectId)>;
    /// Names of the whole tree.
    fn entries(&self) -> u64;
}

/// Checks a whole delta of at most `records_max` objects and names.
///
/// # Errors
/// [`ManifestError`] names the first rule that it breaks.
pub fn check(
    delta: impl IntoIterator<Item = Record>,
    base: &impl View,
    records_max: u64,
) -> Result<(), ManifestError> {
    let mut check = Check::new(base, records_max);
    for record in delta {
        check.push(&record)?;
    }
    check.finish()
}

/// An object that the delta describes.
#[derive(Clone, Copy, Debug)]
struct Described {
    id: ObjectId,
    kind: Kind,
    is_new: bool,
}

/// A regular file whose chunks may follow.
#[derive(Clone, Copy, Debug)]
struct OpenFile {
    id: ObjectId,
    size: u64,
    /// Where the next chunk record may begin at the earliest.
    next: u64,
    /// Chunks up to here are known: those of the base, and those of the delta without a gap.
    covered: u64,
    /// Whether the record before was a run of zeroes.
    after_zeroes: bool,
    /// Whether chunks may follow at all.
    is_changed: bool,
}

/// A directory in which names come or go.
#[derive(Clone, Copy, Debug, Default)]
struct Touched {
    added: u64,
    gone: u64,
    /// Length of the longest name that comes.
    longest: usize,
}

/// How deep a directory is, and how long its path; zero and zero for the root.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Reach {
    depth: usize,
    len: usize,
}

impl Reach {
    /// Of an entry in it.
    fn below(self, name_len: usize) -> Self {
        let slash = usize::from(self.depth > 0);
        Self { depth: self.depth + 1, len: self.len + slash + name_len }
    }

    fn check(self) -> Result<(), ManifestError> {
        if self.depth > PATH_DEPTH_MAX {
            return Err(NameError::TooDeep.into());
        }
        if self.len > PATH_LEN_MAX {
            return Err(NameError::PathTooLong { len: self.len }.into());
        }
        Ok(())
    }
}

/// Takes a delta record by record. `B` leads to the base, which is borrowed or shared.
#[derive(Debug)]
pub struct Check<B> {
    base: B,
    /// How many more objects and names may come: each takes memory until the end.
    room: u64,
    /// In rising order, as they came.
    described: Vec<Described>,
    file: Option<OpenFile>,
    /// The name before; none while objects come.
    last: Option<(ObjectId, Name)>,
    touched: BTreeMap<ObjectId, Touched>,
    /// Names that objects won and lost.
    links: BTreeMap<ObjectId, (u64, u64)>,
    /// Where directories stand that the delta names, and how long their new names are.
    placed: BTreeMap<ObjectId, (ObjectId, usize)>,
    /// Names of the base that go or point elsewhere.
    replaced: BTreeSet<(ObjectId, Name)>,
}

impl<B: Deref<Target: View>> Check<B> {
    /// For a delta to `base` of at most `records_max` objects and names, each of which takes some
    /// hundred bytes at most until the check is finished.
    pub fn new(base: B, records_max: u64) -> Self {
        Self {
            base,
            room: records_max,
            described: Vec::new(),
            file: None,
            last: None,
            touched: BTreeMap::new(),
            links: BTreeMap::new(),
            placed: BTreeMap::new(),
            replaced: BTreeSet::new(),
        }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`ManifestError`] if it cannot stand there.
    pub fn push(&mut self, record: &Record) -> Result<(), ManifestError> {
        match record {
            Record::Object { id, object } => {
                self.take_room()?;
                self.on_object(*id, object)
            }
            Record::Chunks { id, first, hashes } => {
                let count = hashes.len() as u64;
                self.on_chunks(*id, *first, count, false)
            }
            Record::Zeroes { id, first, count } => self.on_chunks(*id, *first, *count, true),
            Record::Name { directory, name, id } => {
                self.take_room()?;
                self.on_name(*directory, name, Some(*id))
            }
            Record::Gone { directory, name } => {
                self.take_room()?;
                self.on_name(*directory, name, None)
            }
        }
    }

    fn take_room(&mut self) -> Result<(), ManifestError> {
        self.room = self.room.checked_sub(1).ok_or(ManifestError::TooMany)?;
        Ok(())
    }

    fn on_object(&mut self, id: ObjectId, object: &Object) -> Result<(), ManifestError> {
        self.close_file()?;
        let is_rising = self.described.last().is_none_or(|last| last.id < id);
        if self.last.is_some() || !is_rising {
            return Err(ManifestError::Order);
        }
        if id == ObjectId(0) {
            return Err(ManifestError::ObjectZero);
        }
        check_object(object)?;
        let (kind, old) = (object.kind(), self.base.object(id));
        if id == ObjectId::ROOT && kind != Kind::Directory {
            return Err(ManifestError::Root);
        }
        if old.as_ref().is_some_and(|old| old.kind() != kind) {
            return Err(ManifestError::KindChanged { id });
        }
        if let Body::Regular { size, .. } = object.body {
            let old_size = old.as_ref().map_or(0, |old| match old.body {
                Body::Regular { size, .. } => size,
                Body::Directory
                | Body::Symlink { .. }
                | Body::Fifo
                | Body::Socket
                | Body::CharDevice { .. }
                | Body::BlockDevice { .. } => 0,
            });
            let is_changed = old.as_ref().is_none_or(|old| old.body != object.body);
            let covered = chunk_count(old_size);
            self.file =
                Some(OpenFile { id, size, next: 0, covered, after_zeroes: false, is_changed });
        }
        self.described.push(Described { id, kind, is_new: old.is_none() });
        Ok(())
    }

    fn on_chunks(
        &mut self,
        id: ObjectId,
        first: u64,
        count: u64,
        are_zeroes: bool,
    ) -> Result<(), ManifestError> {
        let whole = u64::from(SEGMENT_CHUNKS);
        let file = self.file.as_mut().filter(|file| file.id == id && file.is_changed);
        let file = file.ok_or(ManifestError::ChunksOfOther { id })?;
        let is_rising = first >= file.next;
        // Neighbours of one kind are one record, but that a list of hashes ends with its segment.
        let is_one = file.next > 0 && first == file.next && are_zeroes == file.after_zeroes;
        if !is_rising || (is_one && (are_zeroes || !first.is_multiple_of(whole))) {
            return Err(ManifestError::Order);
        }
        let end = first.saturating_add(count);
        let end_max =
            if are_zeroes { whole_chunk_count(file.size) } else { chunk_count(file.size) };
        if count == 0 || (!are_zeroes && first % whole + count > whole) {
            return Err(ManifestError::Chunks { first });
        }
        if end > end_max {
            return Err(ManifestError::ChunksBeyond { id });
        }
        if first > file.covered {
            return Err(ManifestError::ChunkMissing { id, chunk: file.covered });
        }
        (file.next, file.after_zeroes) = (end, are_zeroes);
        file.covered = file.covered.max(end);
        Ok(())
    }

    /// No more chunks come: all that are new must be there.
    fn close_file(&mut self) -> Result<(), ManifestError> {
        let Some(OpenFile { id, size, covered, .. }) = self.file.take() else { return Ok(()) };
        if covered < chunk_count(size) {
            return Err(ManifestError::ChunkMissing { id, chunk: covered });
        }
        Ok(())
    }

    fn on_name(
        &mut self,
        directory: ObjectId,
        name: &Name,
        id: Option<ObjectId>,
    ) -> Result<(), ManifestError> {
        self.close_file()?;
        let key = (directory, name.clone());
        if self.last.as_ref().is_some_and(|last| *last >= key) {
            return Err(ManifestError::Order);
        }
        if directory == ObjectId::ROOT && name.is_reserved_at_top() {
            return Err(NameError::Reserved.into());
        }
        if id == Some(ObjectId::ROOT) {
            return Err(ManifestError::Root);
        }
        let old = self.base.name(directory, name);
        if old == id {
            return Err(ManifestError::NoChange { directory });
        }
        self.last = Some(key.clone());
        let touched = self.touched.entry(directory).or_default();
        if let Some(old) = old {
            touched.gone += 1;
            self.links.entry(old).or_default().1 += 1;
            self.replaced.insert(key);
        }
        if let Some(id) = id {
            touched.added += 1;
            touched.longest = touched.longest.max(name.bytes().len());
            self.links.entry(id).or_default().0 += 1;
            let kind = self.kind(id).ok_or(ManifestError::Unknown { id })?;
            if kind == Kind::Directory {
                self.placed.insert(id, (directory, name.bytes().len()));
            }
        }
        Ok(())
    }

    /// Judges the result.
    ///
    /// # Errors
    /// [`ManifestError`] if it would be no tree within the limits.
    pub fn finish(mut self) -> Result<(), ManifestError> {
        self.close_file()?;
        if self.kind(ObjectId::ROOT) != Some(Kind::Directory) {
            return Err(ManifestError::Root);
        }
        self.check_links()?;
        self.check_parents()?;
        self.check_reach()
    }

    /// What an object of the result is, named or not.
    fn kind(&self, id: ObjectId) -> Option<Kind> {
        let at = self.described.binary_search_by_key(&id, |one| one.id).ok();
        let described = at.and_then(|at| self.described.get(at)).map(|one| one.kind);
        described.or_else(|| self.base.object(id).map(|object| object.kind()))
    }

    /// How many names an object has in the result.
    fn names_of(&self, id: ObjectId) -> u64 {
        let (won, lost) = self.links.get(&id).copied().unwrap_or_default();
        (self.base.links(id) + won).saturating_sub(lost)
    }

    /// Every object has a name, no directory has two, and none goes that is not empty.
    fn check_links(&self) -> Result<(), ManifestError> {
        for Described { id, .. } in &self.described {
            if *id != ObjectId::ROOT && self.names_of(*id) == 0 {
                return Err(ManifestError::Nameless { id: *id });
            }
        }
        for id in self.links.keys() {
            let names = self.names_of(*id);
            if self.kind(*id) != Some(Kind::Directory) {
                continue;
            }
            if names > 1 {
                return Err(ManifestError::SecondName { id: *id, names });
            }
            let entries = self.entries_of(*id);
            if names == 0 && entries > 0 {
                return Err(ManifestError::NotEmpty { directory: *id, entries });
            }
        }
        Ok(())
    }

    /// How many names a directory holds in the result.
    fn entries_of(&self, directory: ObjectId) -> u64 {
        let Touched { added, gone, .. } = self.touched.get(&directory).copied().unwrap_or_default();
        (self.base.count(directory) + added).saturating_sub(gone)
    }

    fn check_parents(&self) -> Result<(), ManifestError> {
        let (mut added, mut gone) = (0, 0);
        for (directory, touched) in &self.touched {
            if self.kind(*directory) != Some(Kind::Directory) {
                return Err(ManifestError::Parent { directory: *directory });
            }
            added += touched.added;
            gone += touched.gone;
        }
        let found = (self.base.entries() + added).saturating_sub(gone);
        if found > ENTRIES_MAX {
            return Err(ManifestError::Entries { found });
        }
        Ok(())
    }

    /// No cycle, no path too deep or too long, for what the delta names and for what moves with it.
    fn check_reach(&self) -> Result<(), ManifestError> {
        let mut known = BTreeMap::from([(ObjectId::ROOT, Reach::default())]);
        for id in self.placed.keys() {
            self.reach(*id, &mut known)?;
        }
        for (directory, touched) in &self.touched {
            if touched.added > 0 {
                self.reach(*directory, &mut known)?.below(touched.longest).check()?;
            }
        }
        for id in self.placed.keys().filter(|id| self.is_old(**id)) {
            let (new, old) = (self.reach(*id, &mut known)?, self.base_reach(*id));
            if new.depth > old.depth || new.len > old.len {
                self.check_below(*id, new)?;
            }
        }
        Ok(())
    }

    fn is_old(&self, id: ObjectId) -> bool {
        let at = self.described.binary_search_by_key(&id, |one| one.id).ok();
        at.and_then(|at| self.described.get(at)).is_none_or(|one| !one.is_new)
    }

    /// Where a directory stands in the result.
    fn parent(&self, id: ObjectId) -> Option<(ObjectId, usize)> {
        let placed = self.placed.get(&id).copied();
        placed.or_else(|| self.base.place(id).map(|(up, name)| (up, name.bytes().len())))
    }

    /// How far down a directory of the result is. `known` keeps what was found out, so that a chain
    /// is followed once.
    fn reach(
        &self,
        id: ObjectId,
        known: &mut BTreeMap<ObjectId, Reach>,
    ) -> Result<Reach, ManifestError> {
        let mut chain: Vec<(ObjectId, usize)> = Vec::new();
        let mut at = id;
        let mut reach = loop {
            if let Some(reach) = known.get(&at) {
                break *reach;
            }
            let is_ring = chain.iter().any(|(one, _)| *one == at);
            if is_ring || chain.len() > PATH_DEPTH_MAX {
                let error = if is_ring { ManifestError::Cycle { id: at } } else { deep() };
                return Err(error);
            }
            let (up, name_len) = self.parent(at).ok_or(ManifestError::Parent { directory: at })?;
            chain.push((at, name_len));
            at = up;
        };
        for (one, name_len) in chain.into_iter().rev() {
            reach = reach.below(name_len);
            reach.check()?;
            known.insert(one, reach);
        }
        Ok(reach)
    }

    fn base_reach(&self, id: ObjectId) -> Reach {
        let mut reach = Reach::default();
        let mut at = id;
        while let Some((up, name)) = self.base.place(at).filter(|_| reach.depth <= PATH_DEPTH_MAX) {
            reach = reach.below(name.bytes().len());
            at = up;
        }
        reach
    }

    /// Looks at what is below a directory that moved further down, but for what the delta names
    /// itself: that is looked at on its own. Remembers one name per level.
    fn check_below(&self, top: ObjectId, reach: Reach) -> Result<(), ManifestError> {
        let mut open: Vec<(ObjectId, Reach, Option<Name>)> = vec![(top, reach, None)];
        while let Some((directory, reach, after)) = open.pop() {
            let Some((name, id)) = self.base.next_name(directory, after.as_ref()) else { continue };
            let below = reach.below(name.bytes().len());
            let key = (directory, name);
            let is_there = !self.replaced.contains(&key);
            open.push((directory, reach, Some(key.1)));
            if is_there {
                below.check()?;
                if self.kind(id) == Some(Kind::Directory) {
                    open.push((id, below, None));
                }
            }
        }
        Ok(())
    }
}

fn deep() -> ManifestError {
    NameError::TooDeep.into()
}

#[cfg(test)]
mod tests;
