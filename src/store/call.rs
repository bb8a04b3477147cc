//! One operation that may block, and how it ends. The same code runs on a thread of the pool, or
//! inline where there are none.

use bytes::Bytes;
use tracing::{error, warn};

use super::{DataFile, MappedMap, Run, Shortage, Sidecar, StoreError, Via, open_to_others};
use crate::replica::{DiskOutcome, GrowFailed, IoId, MetadataFailed, RequestId, Ticket};
use crate::units::{ByteRange, ChunkIndex, ResourceSize, ZeroKind};
use crate::wire::{Buffer, BufferPool};

/// How an effect ended; each is answered by exactly one.
#[derive(Debug)]
pub enum Completion {
    /// Of the data file.
    Disk {
        /// Which.
        io: IoId,
        /// How.
        outcome: DiskOutcome,
    },
    /// A read for a client.
    ClientRead {
        /// Which.
        io: IoId,
        /// The buffer that was handed in; filled, if the outcome is done.
        buffer: Buffer,
        /// How.
        outcome: DiskOutcome,
    },
    /// Of the metadata.
    Metadata {
        /// Which.
        ticket: Ticket,
        /// Whether it is stable.
        result: Result<(), MetadataFailed>,
    },
    /// What of a range is allocated, as a client asked.
    Runs {
        /// Whose request it answers.
        request: RequestId,
        /// From the start of the range on, never none.
        runs: Vec<Run>,
    },
    /// Whether the path still leads to the data file.
    Identity {
        /// Why not.
        result: Result<(), StoreError>,
        /// Whether there is less room than the file has holes.
        shortage: Option<Shortage>,
        /// The permission bits of the metadata's folder, if others have any.
        open_to_others: Option<u32>,
    },
    /// Of making room for a longer resource.
    Grown {
        /// Which.
        ticket: Ticket,
        /// The longer map, mapped anew.
        result: Result<MappedMap, GrowFailed>,
    },
}

/// One operation that may block.
#[derive(Debug)]
pub(super) enum Call {
    /// Bytes to the data file, the first `done` of which are there.
    Write { io: IoId, start: u64, bytes: Bytes, done: usize },
    /// Zeroes to the data file.
    Zero { io: IoId, range: ByteRange, kind: ZeroKind },
    /// Bytes for a client, the first `done` of which are there.
    ReadForClient { io: IoId, start: u64, buffer: Buffer, done: usize },
    /// Bytes for the core, the first `done` of which are there.
    ReadRange { io: IoId, start: u64, buffer: Buffer, done: usize },
    /// Hashes of a chunk.
    Hash { io: IoId, chunk: ChunkIndex, via: Via },
    /// The data file made stable.
    SyncData { io: IoId },
    /// A look whether the disk answers.
    Probe { io: IoId },
    /// One slot of the superblock.
    Superblock { ticket: Ticket, start: u64, record: Box<[u8]> },
    /// An entry of the activity log.
    Append { ticket: Ticket, start: u64, bytes: Vec<u8> },
    /// The dirty map and its sums.
    SyncMap { ticket: Ticket, sums: Vec<(u64, u32)> },
    /// What of `range` is allocated.
    Runs { request: RequestId, range: ByteRange, most: usize },
    /// A look at the path of the data file.
    Identity,
    /// Room for a longer resource.
    Grow { ticket: Ticket, old: ResourceSize, new: ResourceSize },
}

/// Which threads make a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Lane {
    Io,
    Sync,
    Metadata,
}

impl Lane {
    pub(super) fn index(self) -> usize {
        match self {
            Self::Io => 0,
            Self::Sync => 1,
            Self::Metadata => 2,
        }
    }

    /// At most 15 bytes: the kernel cuts the rest.
    pub(super) fn thread_name(self) -> &'static str {
        match self {
            Self::Io => "store-io",
            Self::Sync => "store-sync",
            Self::Metadata => "store-metadata",
        }
    }
}

impl Call {
    pub(super) fn lane(&self) -> Lane {
        match self {
            // Checkpoints take long, and no client waits for one.
            Self::Write { .. }
            | Self::Zero { .. }
            | Self::ReadForClient { .. }
            | Self::ReadRange { .. }
            | Self::Hash { .. }
            | Self::Probe { .. }
            | Self::SyncMap { .. }
            | Self::Runs { .. }
            | Self::Identity
            | Self::Grow { .. } => Lane::Io,
            Self::SyncData { .. } => Lane::Sync,
            Self::Superblock { .. } | Self::Append { .. } => Lane::Metadata,
        }
    }
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) data: DataFile,
    pub(super) sidecar: Sidecar,
    pub(super) buffers: BufferPool,
}

impl Disk {
    /// Makes `call`, however long that takes.
    pub(super) fn run(&self, call: Call) -> Completion {
        match call {
            Call::Write { io, start, bytes, done } => {
                disk(io, self.data.write_from(start, &bytes, done))
            }
            Call::Zero { io, range, kind } => disk(io, self.data.zero(range, kind)),
            Call::ReadForClient { io, start, mut buffer, done } => {
                let outcome = outcome(self.data.read_from(start, &mut buffer, done));
                Completion::ClientRead { io, buffer, outcome }
            }
            Call::ReadRange { io, start, mut buffer, done } => {
                let read = self.data.read_from(start, &mut buffer, done);
                bytes_read(io, read.map(|()| buffer))
            }
            Call::Hash { io, chunk, via } => {
                let hashes = self.data.hash(chunk, via, &self.buffers);
                let outcome = hashes.unwrap_or_else(|error| failed(&error));
                Completion::Disk { io, outcome }
            }
            Call::SyncData { io } => disk(io, self.data.sync()),
            Call::Probe { io } => disk(io, self.probe()),
            Call::Superblock { ticket, start, record } => {
                metadata(ticket, self.sidecar.write_superblock(start, &record))
            }
            Call::Append { ticket, start, bytes } => {
                metadata(ticket, self.sidecar.append_log(start, &bytes))
            }
            Call::SyncMap { ticket, sums } => metadata(ticket, self.sidecar.sync_map(&sums)),
            Call::Runs { request, range, most } => {
                Completion::Runs { request, runs: self.data.runs(range, most) }
            }
            Call::Identity => Completion::Identity {
                result: self.data.check_identity(),
                shortage: self.data.shortage(),
                open_to_others: open_to_others(self.sidecar.folder()),
            },
            Call::Grow { ticket, old, new } => Completion::Grown {
                ticket,
                result: self.grow(old, new).map_err(|error| grow_failed(&error)),
            },
        }
    }

    /// A block of the data file past the page cache, and a small write that is made stable where the
    /// metadata is: the two may be on different disks. The data file itself is never written to.
    fn probe(&self) -> Result<(), StoreError> {
        self.data.probe(&self.buffers)?;
        self.sidecar.probe()
    }

    /// Metadata first: it takes space, which may be missing, and then the data is as it was.
    fn grow(&self, old: ResourceSize, new: ResourceSize) -> Result<MappedMap, StoreError> {
        self.sidecar.grow(old, new)?;
        self.data.grow(old, new)?;
        self.sidecar.map()
    }

    /// Makes one sync for all of `calls`.
    pub(super) fn sync_for(&self, calls: Vec<Call>) -> impl Iterator<Item = Completion> {
        let answer = outcome(self.data.sync());
        calls.into_iter().map(move |call| match call {
            Call::SyncData { io } => Completion::Disk { io, outcome: answer.clone() },
            other => panic!("not a sync: {other:?}"),
        })
    }
}

/// The completion of an operation without an answer of its own.
pub(super) fn disk(io: IoId, result: Result<(), StoreError>) -> Completion {
    Completion::Disk { io, outcome: outcome(result) }
}

/// The completion of a read for the core.
pub(super) fn bytes_read(io: IoId, result: Result<Buffer, StoreError>) -> Completion {
    let outcome = match result {
        Ok(buffer) => DiskOutcome::Bytes(buffer.freeze()),
        Err(error) => failed(&error),
    };
    Completion::Disk { io, outcome }
}

/// What the core is told; the words go to the log.
pub(super) fn outcome(result: Result<(), StoreError>) -> DiskOutcome {
    match result {
        Ok(()) => DiskOutcome::Done,
        Err(error) => failed(&error),
    }
}

fn failed(error: &StoreError) -> DiskOutcome {
    match error {
        StoreError::NoSpace { .. } => return DiskOutcome::NoSpace,
        // Said once, when it failed.
        StoreError::FailedBefore { .. } => {}
        error => error!(error = error as &dyn std::error::Error, "disk failed"),
    }
    DiskOutcome::Failed
}

fn grow_failed(error: &StoreError) -> GrowFailed {
    warn!(error = error as &dyn std::error::Error, "no room for a longer resource");
    match error {
        StoreError::NoSpace { .. } => GrowFailed::NoSpace,
        StoreError::Shorter { found_bytes, .. } => GrowFailed::DeviceTooSmall { len: *found_bytes },
        _ => GrowFailed::Failed,
    }
}

fn metadata(ticket: Ticket, result: Result<(), StoreError>) -> Completion {
    let result = result.map_err(|error| {
        if !matches!(error, StoreError::FailedBefore { .. }) {
            error!(error = &error as &dyn std::error::Error, "metadata failed");
        }
        MetadataFailed
    });
    Completion::Metadata { ticket, result }
}
