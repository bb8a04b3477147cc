//! What changed in a tree since one of its generations, as the records that a peer is sent.
//!
//! Names that went are remembered for a while, so a peer whose position is known gets the changes alone.
//! Chunk hashes come by whole segments: the peer finds out which of their chunks it has.

use std::collections::BTreeSet;

use redb::ReadableTable;

use super::tables::{Rows, View, name_of};
use super::{IndexError, lost};
use crate::manifest::{
    Body, ChunkHash, Name, Record, Row, SEGMENT_CHUNKS, segment_count, whole_chunk_count,
};
use crate::units::{ObjectId, TreeNumber};

/// Walks over everything that changed after one generation.
pub struct Delta<'v> {
    view: &'v View,
    base: TreeNumber,
    objects: BTreeSet<ObjectId>,
    names: BTreeSet<(ObjectId, Name)>,
}

impl<'v> Delta<'v> {
    /// What changed after generation `base`. Its memory is that of the numbers of changed objects and of
    /// the changed names.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn since(view: &'v View, base: TreeNumber) -> Result<Self, IndexError> {
        let mut objects = BTreeSet::new();
        for row in view.changed().range((base.0 + 1, 0)..).map_err(lost)? {
            objects.insert(ObjectId(row.map_err(lost)?.0.value().1));
        }
        let mut names = BTreeSet::new();
        for row in view.changed_names().range((base.0 + 1, 0, &[][..])..).map_err(lost)? {
            let key = row.map_err(lost)?.0;
            let (_, directory, name) = key.value();
            names.insert((ObjectId(directory), name_of("changed names", name)?));
        }
        Ok(Self { view, base, objects, names })
    }

    /// Objects and names that it tells of.
    pub fn count(&self) -> usize {
        self.objects.len() + self.names.len()
    }

    /// Gives all records in their order to `take`, one by one.
    ///
    /// # Errors
    /// [`IndexError`], and what `take` returns.
    pub fn records<E: From<IndexError>>(
        &self,
        mut take: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        for id in &self.objects {
            let Some(row) = self.view.object(*id)? else { continue };
            self.chunks(*id, &row, &mut take)?;
        }
        for (directory, name) in &self.names {
            let (directory, name) = (*directory, name.clone());
            take(match self.view.name(directory, &name)? {
                Some(id) => Record::Name { directory, name, id },
                None => Record::Gone { directory, name },
            })?;
        }
        Ok(())
    }

    /// The record of an object, and those of its chunks.
    fn chunks<E: From<IndexError>>(
        &self,
        id: ObjectId,
        row: &Row,
        take: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let object = row.entry.object().clone();
        let size = match object.body {
            Body::Regular { size, .. } => size,
            Body::Directory
            | Body::Symlink { .. }
            | Body::Fifo
            | Body::Socket
            | Body::CharDevice { .. }
            | Body::BlockDevice { .. } => 0,
        };
        take(Record::Object { id, object })?;
        let mut runs = Runs::new(id, size);
        for segment in 0..segment_count(size) {
            let segment = u32::try_from(segment).unwrap_or(u32::MAX);
            let (number, hashes) = self.view.segment(id, segment)?;
            if number > self.base {
                runs.segment(segment, hashes, take)?;
            }
        }
        runs.end(take)
    }
}

/// Chunk hashes as records: lists of those that are none of zeroes, and runs of zeroes.
pub struct Runs {
    id: ObjectId,
    /// The next chunk, if no segment is left out.
    next: u64,
    /// Chunks of the file that are whole: a short last one is in no run.
    whole: u64,
    list: Option<(u64, Vec<ChunkHash>)>,
    zeroes: Option<(u64, u64)>,
}

impl Runs {
    /// Of a file of `size` bytes.
    pub fn new(id: ObjectId, size: u64) -> Self {
        Self { id, next: 0, whole: whole_chunk_count(size), list: None, zeroes: None }
    }

    /// The hashes of the next segment; those that are left out are not told of.
    ///
    /// # Errors
    /// What `take` returns.
    pub fn segment<E>(
        &mut self,
        segment: u32,
        hashes: Vec<ChunkHash>,
        take: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let first = u64::from(segment) * u64::from(SEGMENT_CHUNKS);
        if first != self.next {
            self.end(take)?;
        }
        self.next = first + u64::from(SEGMENT_CHUNKS);
        self.end_list(take)?;
        for (chunk, hash) in (first..).zip(hashes) {
            self.push(chunk, hash, take)?;
        }
        Ok(())
    }

    fn push<E>(
        &mut self,
        chunk: u64,
        hash: ChunkHash,
        take: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        if hash == ChunkHash::ZERO && chunk < self.whole {
            self.end_list(take)?;
            self.zeroes.get_or_insert((chunk, 0)).1 += 1;
        } else {
            self.end_zeroes(take)?;
            self.list.get_or_insert((chunk, Vec::new())).1.push(hash);
        }
        Ok(())
    }

    /// Nothing follows.
    ///
    /// # Errors
    /// What `take` returns.
    pub fn end<E>(&mut self, take: &mut impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        self.end_list(take)?;
        self.end_zeroes(take)
    }

    fn end_list<E>(&mut self, take: &mut impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        match self.list.take() {
            Some((first, hashes)) => take(Record::Chunks { id: self.id, first, hashes }),
            None => Ok(()),
        }
    }

    fn end_zeroes<E>(&mut self, take: &mut impl FnMut(Record) -> Result<(), E>) -> Result<(), E> {
        match self.zeroes.take() {
            Some((first, count)) => take(Record::Zeroes { id: self.id, first, count }),
            None => Ok(()),
        }
    }
}
