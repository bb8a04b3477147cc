//! The data file and the metadata files of a resource: every fsync rule lives here.
//!
//! A [`Store`] carries out one effect of the core and reports one [`Completion`]: at once, if the
//! kernel could do it without waiting for the disk, else by [`Store::poll_completions`]. It never
//! orders operations. The core does not begin one that must follow another before that has ended,
//! and never has two in flight that overlap.
//!
//! A failure is final: what failed once answers every later call with a failure.

mod audit;
mod call;
mod canary;
mod data_file;
mod error;
mod extents;
mod files;
mod hash;
mod map;
mod pace;
mod place;
mod pool;
mod room;
mod sidecar;
mod transfer;
pub mod tree;
mod witness;
mod zero;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

pub use audit::AuditLog;
pub use call::Completion;
use call::{Call, Disk};
pub use canary::CanaryCopy;
pub use data_file::{DataFile, Identity};
pub use error::StoreError;
pub use extents::Run;
pub use files::{is_there, open_to_others, read_file, replace_file};
pub use hash::Via;
pub use map::MappedMap;
pub use place::place;
use pool::Pool;
pub use room::Shortage;
pub use sidecar::{Existing, Sidecar};
use transfer::Inline;
pub use witness::{FoundRecord, WitnessFolder, WitnessStart};

use crate::replica::{DiskOutcome, IoId, RequestId, Ticket};
use crate::units::{ByteRange, ChunkIndex, ResourceSize, ZeroKind};
use crate::wire::{Buffer, BufferPool};

/// Who waits for the disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Threads {
    /// The caller: nothing is ever left for later (`HOTPAIR_ONE_THREAD`, for debugging).
    None,
    /// So many threads for reads and writes, at least one, besides one for syncs and one for
    /// metadata.
    Pool(usize),
}

impl Default for Threads {
    /// Enough to keep a disk busy with cold reads.
    fn default() -> Self {
        Self::Pool(4)
    }
}

/// The disk of one resource, as its data thread sees it.
pub struct Store {
    // Declared first: dropped first, so no thread is left when the files go.
    pool: Option<Pool>,
    inline: Inline,
    disk: Arc<Disk>,
}

impl Store {
    /// Combines the files of a resource. Bytes that are read come from `buffers`.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a thread cannot be started.
    pub fn new(
        data: DataFile,
        sidecar: Sidecar,
        buffers: BufferPool,
        threads: Threads,
    ) -> Result<Self, StoreError> {
        let disk = Arc::new(Disk { data, sidecar, buffers });
        let pool = match threads {
            Threads::None => None,
            Threads::Pool(count) => Some(Pool::start(&disk, count)?),
        };
        Ok(Self { pool, inline: Inline::new(), disk })
    }

    /// The data file.
    pub fn data(&self) -> &DataFile {
        &self.disk.data
    }

    /// The metadata files.
    pub fn sidecar(&self) -> &Sidecar {
        &self.disk.sidecar
    }

    /// Writes `bytes`, exactly as long as `range`.
    ///
    /// # Panics
    /// If they are not.
    pub fn write(&mut self, io: IoId, range: ByteRange, bytes: Bytes) -> Option<Completion> {
        let start = range.start();
        assert_eq!(transfer::offset(bytes.len()), range.len(), "a write is as long as its range");
        match self.inline.write(&self.disk.data, start, &bytes) {
            Ok(done) if done == bytes.len() => Some(call::disk(io, Ok(()))),
            Ok(done) => self.leave(Call::Write { io, start, bytes, done }),
            Err(error) => Some(call::disk(io, Err(error))),
        }
    }

    /// Makes `range` read as zero.
    pub fn zero(&mut self, io: IoId, range: ByteRange, kind: ZeroKind) -> Option<Completion> {
        self.leave(Call::Zero { io, range, kind })
    }

    /// Reads `range` into `buffer`, exactly as long, which comes back with the completion.
    ///
    /// # Panics
    /// If it is not.
    pub fn read_for_client(
        &mut self,
        io: IoId,
        range: ByteRange,
        mut buffer: Buffer,
    ) -> Option<Completion> {
        let start = range.start();
        assert_eq!(transfer::offset(buffer.len()), range.len(), "a buffer is as long as its range");
        let outcome = match self.inline.read(&self.disk.data, start, &mut buffer) {
            Ok(done) if done == buffer.len() => DiskOutcome::Done,
            Ok(done) => return self.leave(Call::ReadForClient { io, start, buffer, done }),
            Err(error) => call::outcome(Err(error)),
        };
        Some(Completion::ClientRead { io, buffer, outcome })
    }

    /// Reads `range` for the core.
    ///
    /// # Panics
    /// If `range` does not fit the memory of the machine.
    pub fn read_range(&mut self, io: IoId, range: ByteRange) -> Option<Completion> {
        let start = range.start();
        let len = usize::try_from(range.len()).expect("at most a chunk");
        let mut buffer = self.disk.buffers.get(len);
        match self.inline.read(&self.disk.data, start, &mut buffer) {
            Ok(done) if done < len => self.leave(Call::ReadRange { io, start, buffer, done }),
            result => Some(call::bytes_read(io, result.map(|_| buffer))),
        }
    }

    /// Reads and hashes a chunk and its blocks. `Via::Medium` fails where the file system has no
    /// direct reads: ask [`DataFile::direct`] first.
    pub fn hash_chunk(&mut self, io: IoId, chunk: ChunkIndex, via: Via) -> Option<Completion> {
        self.leave(Call::Hash { io, chunk, via })
    }

    /// Makes everything stable whose completion was reported before.
    pub fn sync_data(&mut self, io: IoId) -> Option<Completion> {
        self.leave(Call::SyncData { io })
    }

    /// Finds out whether the disks of data and metadata answer.
    pub fn probe(&mut self, io: IoId) -> Option<Completion> {
        self.leave(Call::Probe { io })
    }

    /// Writes `record`, an encoded superblock, to the slot at `start` and makes it stable.
    pub fn write_superblock(
        &mut self,
        ticket: Ticket,
        start: u64,
        record: Box<[u8]>,
    ) -> Option<Completion> {
        self.leave(Call::Superblock { ticket, start, record })
    }

    /// Writes `bytes` to `start` of the activity log and makes them stable.
    pub fn append_log(&mut self, ticket: Ticket, start: u64, bytes: Vec<u8>) -> Option<Completion> {
        self.leave(Call::Append { ticket, start, bytes })
    }

    /// Makes the mapped dirty map stable, and then `sums`, the crc32c of some of its pages.
    pub fn sync_map(&mut self, ticket: Ticket, sums: Vec<(u64, u32)>) -> Option<Completion> {
        self.leave(Call::SyncMap { ticket, sums })
    }

    /// Finds out what of `range` is allocated, at most `most` runs of it: the file system may have
    /// to read its books for that.
    pub fn runs(
        &mut self,
        request: RequestId,
        range: ByteRange,
        most: usize,
    ) -> Option<Completion> {
        self.leave(Call::Runs { request, range, most })
    }

    /// Looks whether the path still leads to the data file, whether there is room for its holes, and
    /// who may enter the folder of the metadata; any folder on the way may be on a disk or a server
    /// that hangs.
    pub fn check_identity(&mut self) -> Option<Completion> {
        self.leave(Call::Identity)
    }

    /// Makes room for a resource that grows from `old` to `new`, stable, and maps the longer map.
    pub fn grow(
        &mut self,
        ticket: Ticket,
        old: ResourceSize,
        new: ResourceSize,
    ) -> Option<Completion> {
        self.leave(Call::Grow { ticket, old, new })
    }

    /// Adds what ended since the last call to `completions`; pending if nothing did.
    pub fn poll_completions(
        &mut self,
        cx: &mut Context<'_>,
        completions: &mut Vec<Completion>,
    ) -> Poll<()> {
        match &mut self.pool {
            None => Poll::Pending,
            Some(pool) => pool.poll(cx, completions),
        }
    }

    /// Leaves a call to the pool; without one, makes it now.
    fn leave(&mut self, call: Call) -> Option<Completion> {
        let Some(pool) = &mut self.pool else { return Some(self.disk.run(call)) };
        pool.submit(call);
        None
    }
}

#[cfg(test)]
mod tests;
