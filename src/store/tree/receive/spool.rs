//! The records of a delta in a file, as they came.
//!
//! Chunk hashes of large files do not fit into memory, and a node that finds a committed journal at its
//! start needs the records again to bring its index to what the tree is by then. So they are written
//! behind each other, and an object remembers where those of its chunks are.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::{ReceiveError, failed};
use crate::manifest::{ChunkHash, RECORD_LEN_MAX, Record};
use crate::units::ObjectId;

/// Bytes that are written at once.
const WRITE_LEN: usize = 1 << 20;
/// Bytes that are read at once: the records of one small file fit.
const READ_LEN: usize = 4 << 10;

/// All records so far.
#[derive(Debug)]
pub(super) struct Spool {
    file: File,
    /// Bytes that are in the file.
    written: u64,
    /// What follows them.
    buffer: Vec<u8>,
    len_max: u64,
}

impl Spool {
    /// An empty one in `file`, which is emptied.
    pub(super) fn new(file: File, len_max: u64) -> Result<Self, ReceiveError> {
        file.set_len(0).map_err(failed("empty the file of records"))?;
        Ok(Self { file, written: 0, buffer: Vec::new(), len_max })
    }

    /// The one that `file` is.
    pub(super) fn of(file: File) -> Result<Self, ReceiveError> {
        let written = file.metadata().map_err(failed("look at the file of records"))?.len();
        Ok(Self { file, written, buffer: Vec::new(), len_max: written })
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends a record; gives where it is.
    pub(super) fn push(&mut self, record: &Record) -> Result<Range<u64>, ReceiveError> {
        let start = self.len();
        record.encode(&mut self.buffer);
        if self.len() > self.len_max {
            return Err(ReceiveError::TooLarge { what: "bytes of records" });
        }
        if self.buffer.len() >= WRITE_LEN {
            self.flush()?;
        }
        Ok(start..self.len())
    }

    /// Writes what is in memory.
    pub(super) fn flush(&mut self) -> Result<(), ReceiveError> {
        let written = self.file.write_all_at(&self.buffer, self.written);
        written.map_err(failed("write the records of a delta"))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Makes the records stable.
    pub(super) fn sync(&self) -> Result<(), ReceiveError> {
        // Before the commit record: whoever finds that one after a crash needs these for its index.
        self.file.sync_data().map_err(failed("sync the records of a delta"))
    }

    /// Appends up to `len` bytes from `at` on to `out`, at least one.
    fn read(&self, at: u64, len: usize, out: &mut Vec<u8>) -> Result<(), ReceiveError> {
        let short = ReceiveError::Spool(crate::manifest::ManifestError::Short { missing: 1 });
        if let Some(start) = at.checked_sub(self.written) {
            let start = usize::try_from(start).unwrap_or(usize::MAX);
            let rest = self.buffer.get(start..).unwrap_or_default();
            let some = rest.get(..len.min(rest.len())).unwrap_or_default();
            out.extend_from_slice(some);
            return if some.is_empty() { Err(short) } else { Ok(()) };
        }
        let len = usize::try_from(self.written - at).map_or(len, |rest| rest.min(len));
        let before = out.len();
        out.resize(before + len, 0);
        let target = out.get_mut(before..).unwrap_or_default();
        self.file.read_exact_at(target, at).map_err(failed("read the records of a delta"))
    }
}

/// Reads the records of a part of the spool one by one.
#[derive(Debug)]
pub(super) struct Records {
    /// What was not read into memory.
    rest: Range<u64>,
    window: Vec<u8>,
    used: usize,
    /// Bytes that the next reading takes: it grows with what there is to read.
    len: usize,
}

impl Records {
    pub(super) fn new(part: Range<u64>) -> Self {
        Self { rest: part, window: Vec::new(), used: 0, len: READ_LEN }
    }

    /// Where the next record begins.
    pub(super) fn at(&self) -> u64 {
        self.rest.start - (self.window.len() - self.used) as u64
    }

    pub(super) fn next(&mut self, spool: &Spool) -> Result<Option<Record>, ReceiveError> {
        loop {
            let window = self.window.get(self.used..).unwrap_or_default();
            if window.is_empty() && self.rest.is_empty() {
                return Ok(None);
            }
            match Record::decode(window) {
                Ok((record, after)) => {
                    self.used = self.window.len() - after.len();
                    return Ok(Some(record));
                }
                Err(why) if self.rest.is_empty() || window.len() >= RECORD_LEN_MAX => {
                    return Err(ReceiveError::Spool(why));
                }
                // Perhaps only its beginning is in memory.
                Err(_) => self.fill(spool)?,
            }
        }
    }

    fn fill(&mut self, spool: &Spool) -> Result<(), ReceiveError> {
        self.window.drain(..self.used);
        self.used = 0;
        let len = usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX);
        let before = self.window.len();
        spool.read(self.rest.start, len.min(self.len), &mut self.window)?;
        self.rest.start += (self.window.len() - before) as u64;
        self.len = (self.len * 4).min(RECORD_LEN_MAX);
        Ok(())
    }
}

/// Some chunks of one file, as its records have them.
#[derive(Debug)]
pub(super) enum Told {
    /// Their hashes, from the first on.
    Hashes(u64, Vec<ChunkHash>),
    /// As many whole chunks of zeroes.
    Zeroes(u64, u64),
}

impl Told {
    pub(super) fn first(&self) -> u64 {
        match self {
            Self::Hashes(first, _) | Self::Zeroes(first, _) => *first,
        }
    }

    pub(super) fn end(&self) -> u64 {
        match self {
            Self::Hashes(first, hashes) => first.saturating_add(hashes.len() as u64),
            Self::Zeroes(first, count) => first.saturating_add(*count),
        }
    }

    /// From a record that stands behind that of object `id`.
    pub(super) fn of(record: Record, id: ObjectId) -> Result<Self, ReceiveError> {
        match record {
            Record::Chunks { id: of, first, hashes } if of == id => Ok(Self::Hashes(first, hashes)),
            Record::Zeroes { id: of, first, count } if of == id => Ok(Self::Zeroes(first, count)),
            Record::Chunks { .. }
            | Record::Zeroes { .. }
            | Record::Object { .. }
            | Record::Name { .. }
            | Record::Gone { .. } => {
                Err(ReceiveError::Spool(crate::manifest::ManifestError::ChunksOfOther { id }))
            }
        }
    }
}
