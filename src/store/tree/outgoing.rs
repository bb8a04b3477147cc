//! What a peer is sent of a generation: its records, and the chunks that it asks for.
//!
//! Chunks are read from the tree when they are wanted, and sent only if they still have the hash that the
//! generation says: whatever was written since goes into a later one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::Errno;

use super::folder::{Folder, look_at};
use super::index::{Delta, IndexError, Rows, View};
use crate::manifest::{Body, ChunkHash, Kind, Record, SEGMENT_CHUNKS, chunk_count, segment_of};
use crate::units::{CHUNK_LEN, ObjectId, TreeNumber, TreePosition};

/// Why a chunk is not sent.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The file does not hold it any more: it changed, moved or went since the generation was captured.
    #[error("chunk {chunk} of object {object} is not what it was")]
    Gone {
        /// Which file.
        object: ObjectId,
        /// Which of its chunks.
        chunk: u64,
    },
    /// The generation has no such chunk: whoever asks for it does not go by the records.
    #[error("object {object} has no chunk {chunk}")]
    Unknown {
        /// Which file.
        object: ObjectId,
        /// Which of its chunks.
        chunk: u64,
    },
    /// The disk could not read it.
    #[error("chunk {chunk} of object {object} cannot be read: {errno}")]
    Unreadable {
        /// Which file.
        object: ObjectId,
        /// Which of its chunks.
        chunk: u64,
        /// What the kernel says.
        errno: Errno,
    },
}

/// A file from which chunks are read.
struct Open {
    object: ObjectId,
    size: u64,
    file: File,
    /// The segment of its chunk hashes that was read last.
    segment: Option<(u32, Vec<ChunkHash>)>,
}

/// One generation on its way to a peer.
pub struct Outgoing<'r> {
    view: Arc<View>,
    root: &'r Folder,
    open: Option<Open>,
}

impl<'r> Outgoing<'r> {
    /// The newest generation of the index that `view` shows, of the tree at `root`.
    pub fn new(view: impl Into<Arc<View>>, root: &'r Folder) -> Self {
        Self { view: view.into(), root, open: None }
    }

    /// Which generation it is.
    ///
    /// # Errors
    /// [`OutgoingError::Index`].
    pub fn position(&self) -> Result<TreePosition, OutgoingError> {
        Ok(self.view.position()?)
    }

    /// Gives the bytes of all records of what changed after generation `base` to `take`, whole records
    /// together, at most `len_max` bytes or a single one at a time.
    ///
    /// # Errors
    /// What `take` returns, and [`OutgoingError::Index`].
    pub fn records<E: From<OutgoingError>>(
        &self,
        base: TreeNumber,
        len_max: usize,
        mut take: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut batch = Vec::new();
        let delta = Delta::since(&self.view, base).map_err(OutgoingError::from)?;
        delta
            .records(|record: Record| -> Result<(), Either<E>> {
                let before = batch.len();
                record.encode(&mut batch);
                if batch.len() > len_max && before > 0 {
                    let last = batch.split_off(before);
                    take(std::mem::replace(&mut batch, last)).map_err(Either)?;
                }
                Ok(())
            })
            .map_err(|Either(error)| error)?;
        if batch.is_empty() { Ok(()) } else { take(batch) }
    }

    /// Reads one chunk into `buffer`, which is emptied before.
    ///
    /// # Errors
    /// [`OutgoingError`].
    pub fn chunk(
        &mut self,
        object: ObjectId,
        chunk: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<(), OutgoingError> {
        let mut open = match self.open.take().filter(|open| open.object == object) {
            Some(open) => open,
            None => self.open(object, chunk)?,
        };
        if chunk >= chunk_count(open.size) {
            return Err(OutgoingError::Unknown { object, chunk });
        }
        let expected = self.hash_of(&mut open, chunk)?;
        let at = chunk * CHUNK_LEN;
        let len = (open.size - at).min(CHUNK_LEN);
        buffer.clear();
        buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        match open.file.read_exact_at(buffer, at) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(OutgoingError::Gone { object, chunk });
            }
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                return Err(OutgoingError::Unreadable { object, chunk, errno });
            }
        }
        if *blake3::hash(buffer).as_bytes() != expected.0 {
            return Err(OutgoingError::Gone { object, chunk });
        }
        self.open = Some(open);
        Ok(())
    }

    /// The hash that the generation has for a chunk.
    fn hash_of(&self, open: &mut Open, chunk: u64) -> Result<ChunkHash, OutgoingError> {
        let segment = segment_of(chunk);
        if open.segment.as_ref().is_none_or(|(number, _)| *number != segment) {
            open.segment = Some((segment, self.view.segment(open.object, segment)?.1));
        }
        let index = usize::try_from(chunk % u64::from(SEGMENT_CHUNKS)).unwrap_or(usize::MAX);
        let hashes = open.segment.as_ref().map(|(_, hashes)| hashes);
        let hash = hashes.and_then(|hashes| hashes.get(index)).copied();
        hash.ok_or(OutgoingError::Unknown { object: open.object, chunk })
    }

    /// Opens a file under any of its names in the generation, if that is still the same file.
    fn open(&self, object: ObjectId, chunk: u64) -> Result<Open, OutgoingError> {
        let row = self.view.object(object)?;
        let row = row.filter(|row| row.entry.object().kind() == Kind::Regular);
        let row = row.ok_or(OutgoingError::Unknown { object, chunk })?;
        let Body::Regular { size, .. } = row.entry.object().body else {
            return Err(OutgoingError::Unknown { object, chunk });
        };
        for (directory, name) in self.view.places_of(object, usize::MAX)? {
            let names = self.view.names_above(directory)?;
            let Ok(mut folder) = self.root.again() else { continue };
            let is_there = names.iter().all(|name| match folder.child(name) {
                Ok(inner) => {
                    folder = inner;
                    true
                }
                Err(_) => false,
            });
            if !is_there {
                continue;
            }
            let Ok(file) = folder.file(&name) else { continue };
            let is_it = look_at(&file).is_ok_and(|it| it.stamp.identity == row.stamp.identity);
            if is_it {
                return Ok(Open { object, size, file, segment: None });
            }
        }
        Err(OutgoingError::Gone { object, chunk })
    }
}

/// An error of whoever takes records, or of the index that they come from.
struct Either<E>(E);

impl<E: From<OutgoingError>> From<IndexError> for Either<E> {
    fn from(error: IndexError) -> Self {
        Self(OutgoingError::Index(error).into())
    }
}
