//! The generation before several applies, as the records of a delta from what the tree is.
//!
//! The newest apply comes first: what an older one says of the same thing is nearer to the generation that is
//! gone back to. In memory are its objects and names, and where in the files its chunk hashes are.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::super::folder::Folder;
use super::super::index::{IndexError, Rows, Runs, View};
use super::file::{Head, Hold, Kept, KeptError, Reader};
use crate::manifest::apply::JournalNumber;
use crate::manifest::{Body, ChunkHash, Name, Object, Record, segment_count};
use crate::units::ObjectId;

/// Bytes of a segment in front of its hashes: tag, object, number.
const SEGMENT_HEADER_LEN: u64 = 13;

/// Where chunk hashes are.
#[derive(Clone, Copy, Debug)]
struct At {
    file: usize,
    offset: u64,
    count: usize,
}

/// Puts what several applies have changed together.
#[derive(Debug, Default)]
pub(in super::super) struct Compose {
    files: Vec<File>,
    objects: BTreeMap<ObjectId, Object>,
    segments: BTreeMap<(ObjectId, u32), At>,
    names: BTreeMap<(ObjectId, Name), Option<ObjectId>>,
    holds: Vec<(JournalNumber, Hold)>,
}

/// A whole way back: from the generation of an index to an earlier one.
#[derive(Debug)]
pub(in super::super) struct Way {
    compose: Compose,
}

impl Compose {
    /// Adds what the journal changed that comes before all that were added.
    pub(in super::super) fn add(
        &mut self,
        state: &Folder,
        journal: JournalNumber,
    ) -> Result<Head, KeptError> {
        let missing = || KeptError::Kernel {
            path: super::file::name_of(journal).to_string(),
            action: "open",
            errno: Errno::NOENT,
        };
        let (mut reader, head) = Reader::open(state, journal)?.ok_or_else(missing)?;
        while let Some((kept, at)) = reader.next()? {
            match kept {
                Kept::Born(id) => self.forget(id),
                Kept::Object(id, object) => {
                    self.objects.insert(id, object);
                }
                Kept::Segment(id, segment, hashes) => {
                    let offset = at + SEGMENT_HEADER_LEN;
                    let at = At { file: self.files.len(), offset, count: hashes.len() };
                    self.segments.insert((id, segment), at);
                }
                Kept::Name(directory, name, id) => {
                    self.names.insert((directory, name), id);
                }
                Kept::Hold(hold) => self.holds.push((journal, hold)),
            }
        }
        self.files.push(reader.into_file());
        Ok(head)
    }

    /// What a later apply says of an object is of no use before it was there.
    fn forget(&mut self, id: ObjectId) {
        self.objects.remove(&id);
        let segments = self.segments.range((id, 0)..=(id, u32::MAX)).map(|(key, _)| *key);
        for key in segments.collect::<Vec<_>>() {
            self.segments.remove(&key);
        }
    }

    /// All that is needed was added.
    pub(in super::super) fn end(self) -> Way {
        Way { compose: self }
    }
}

impl Way {
    /// Where content is held, the oldest first: what an apply took out of a file is what the file had since the
    /// one before.
    pub(in super::super) fn holds(&self) -> impl Iterator<Item = (JournalNumber, Hold)> {
        self.compose.holds.iter().rev().copied()
    }

    /// Gives the records that lead there from what `view` shows, in their order.
    ///
    /// # Errors
    /// What `take` returns, and what cannot be read.
    pub(in super::super) fn records<E: From<IndexError> + From<KeptError>>(
        &self,
        view: &View,
        mut take: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        for (id, object) in &self.compose.objects {
            let now = view.object(*id)?;
            let now = now.as_ref().map(|row| row.entry.object());
            if now == Some(object) {
                continue;
            }
            take(Record::Object { id: *id, object: object.clone() })?;
            if let Body::Regular { size, .. } = object.body
                && now.is_none_or(|now| now.body != object.body)
            {
                self.chunks(*id, size, &mut take)?;
            }
        }
        for ((directory, name), id) in &self.compose.names {
            if view.name(*directory, name)? == *id {
                continue;
            }
            let (directory, name) = (*directory, name.clone());
            take(match id {
                Some(id) => Record::Name { directory, name, id: *id },
                None => Record::Gone { directory, name },
            })?;
        }
        Ok(())
    }

    /// The chunks of the segments that are not what they are now.
    fn chunks<E: From<KeptError>>(
        &self,
        id: ObjectId,
        size: u64,
        take: &mut impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut runs = Runs::new(id, size);
        let count = u32::try_from(segment_count(size)).unwrap_or(u32::MAX);
        for ((_, segment), at) in self.compose.segments.range((id, 0)..(id, count)) {
            runs.segment(*segment, self.hashes(*at)?, take)?;
        }
        runs.end(take)
    }

    fn hashes(&self, at: At) -> Result<Vec<ChunkHash>, KeptError> {
        let mut bytes = vec![0; 32 * at.count];
        let path = || "a file of what is kept".to_owned();
        let gone = || KeptError::Damaged { path: path(), why: "it is gone" };
        let file = self.compose.files.get(at.file).ok_or_else(gone)?;
        file.read_exact_at(&mut bytes, at.offset).map_err(|error| KeptError::Kernel {
            path: path(),
            action: "read",
            errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
        })?;
        Ok(bytes.as_chunks::<32>().0.iter().map(|hash| ChunkHash(*hash)).collect())
    }
}
