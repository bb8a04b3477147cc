//! I/O of a node: under way, done, failed, or cut short by the end of its process.

use std::sync::LazyLock;

use bytes::Bytes;
use fastrand::Rng;
use hotpair::metadata::{
    DirtyMap, LogAppend, PAGE_LEN, Superblock, grown_sums, sum_file_len, sum_offset,
};
use hotpair::replica::{
    DiskOutcome, Effect, GrowFailed, Input, IoId, MetadataFailed, RequestId, Ticket,
};
use hotpair::units::{BLOCK_LEN, ByteRange, CHUNK_LEN, ChunkIndex, ResourceSize};

use crate::disk::File;
use crate::net::Time;
use crate::node::{Files, Node};

/// One I/O that was begun.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Write { io: IoId, range: ByteRange, bytes: Bytes },
    Zero { io: IoId, range: ByteRange },
    ReadForClient { io: IoId, request: RequestId, range: ByteRange },
    Read { io: IoId, range: ByteRange },
    Hash { io: IoId, chunk: ChunkIndex },
    Sync { io: IoId, covered: u64 },
    Probe { io: IoId },
    Record { ticket: Ticket, offset: u64, bytes: Bytes },
    Append { ticket: Ticket, offset: u64, bytes: Bytes },
    Map { ticket: Ticket, covered: u64, sums: Vec<(u64, u32)> },
    Grow { ticket: Ticket, old: ResourceSize, new: ResourceSize },
}

/// How an I/O ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    Well,
    NoSpace,
    Failed,
}

/// What a finished I/O means.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) input: Input,
    /// What a client's read found.
    pub(crate) found: Option<(RequestId, Bytes)>,
    /// The longer map.
    pub(crate) map: Option<Vec<u8>>,
}

impl Work {
    /// Begins what an effect asks for, if it is I/O.
    pub(crate) fn begin(effect: &Effect, files: &Files) -> Option<Self> {
        Some(match effect {
            Effect::Write { io, range, bytes } => {
                assert_eq!(u64::try_from(bytes.len()).unwrap(), range.len(), "a write's length");
                Self::Write { io: *io, range: *range, bytes: bytes.clone() }
            }
            Effect::Zero { io, range, .. } => Self::Zero { io: *io, range: *range },
            Effect::ReadForClient { io, request, range } => {
                Self::ReadForClient { io: *io, request: *request, range: *range }
            }
            Effect::ReadRange { io, range } => Self::Read { io: *io, range: *range },
            Effect::HashChunk { io, chunk } => Self::Hash { io: *io, chunk: *chunk },
            Effect::SyncData { io } => Self::Sync { io: *io, covered: files.data.newest() },
            Effect::Probe { io } => Self::Probe { io: *io },
            Effect::WriteSuperblock { ticket, record } => Self::Record {
                ticket: *ticket,
                offset: Superblock::slot_offset(record.counter),
                bytes: Bytes::copy_from_slice(&record.encode()),
            },
            Effect::AppendLog { ticket, append: LogAppend { offset, bytes, .. } } => Self::Append {
                ticket: *ticket,
                offset: *offset,
                bytes: Bytes::copy_from_slice(bytes),
            },
            Effect::SyncMap { ticket, sums } => {
                Self::Map { ticket: *ticket, covered: files.map.newest(), sums: sums.clone() }
            }
            Effect::Grow { ticket, old, new } => {
                Self::Grow { ticket: *ticket, old: *old, new: *new }
            }
            _ => return None,
        })
    }

    /// How long it takes.
    pub(crate) fn duration(&self, is_slow: bool, rng: &mut Rng) -> Time {
        let micros = match self {
            Self::Write { .. } | Self::Zero { .. } => rng.u64(1..300),
            Self::ReadForClient { .. } | Self::Read { .. } => rng.u64(1..200),
            Self::Hash { .. } => rng.u64(20..400),
            // Draws nothing: it comes with the clock, whatever a scenario is about.
            Self::Probe { .. } => return 1_000_000,
            Self::Sync { .. } | Self::Record { .. } | Self::Append { .. } | Self::Map { .. } => {
                rng.u64(100..5_000)
            }
            Self::Grow { .. } => rng.u64(1_000..50_000),
        };
        let factor = match rng.u8(..) {
            0 if is_slow => 200,
            0..=40 if is_slow => 20,
            0 => 20,
            _ => 1,
        };
        micros * factor * 1000
    }

    /// How it ends, as the disk's troubles are.
    pub(crate) fn draw_end(&self, now: Time, node: &mut Node, rng: &mut Rng) -> End {
        let trouble = &mut node.trouble;
        let is_failed = match self {
            Self::Write { .. }
            | Self::Zero { .. }
            | Self::ReadForClient { .. }
            | Self::Read { .. }
            | Self::Hash { .. }
            | Self::Probe { .. } => std::mem::take(&mut trouble.fail_next_io),
            Self::Sync { .. } => std::mem::take(&mut trouble.fail_next_sync),
            Self::Record { .. } | Self::Append { .. } | Self::Map { .. } | Self::Grow { .. } => {
                std::mem::take(&mut trouble.fail_next_metadata)
            }
        };
        let takes_space =
            matches!(self, Self::Write { .. } | Self::Zero { .. } | Self::Grow { .. });
        if is_failed {
            End::Failed
        } else if takes_space && now < trouble.full_until && rng.bool() {
            End::NoSpace
        } else {
            End::Well
        }
    }

    /// It ends: the files change, and the core is told.
    pub(crate) fn finish(self, end: End, node: &mut Node, rng: &mut Rng) -> Done {
        let size = node.size;
        let files = &mut node.files;
        match (end, self) {
            (End::Well, Self::Write { io, range, bytes }) => {
                files.data.write(range.start(), &bytes, &mut |_| true);
                disk(io, DiskOutcome::Done)
            }
            (End::Well, Self::Zero { io, range }) => {
                files.data.zero(range.start(), range.len(), &mut |_| true);
                disk(io, DiskOutcome::Done)
            }
            (End::Well, Self::ReadForClient { io, request, range }) => {
                let found = Some((request, read(&files.data, range)));
                Done { found, ..disk(io, DiskOutcome::Done) }
            }
            (End::Well, Self::Read { io, range }) => {
                disk(io, DiskOutcome::Bytes(read(&files.data, range)))
            }
            (End::Well, Self::Hash { io, chunk }) => disk(io, hash(&files.data, chunk, size)),
            (End::Well, Self::Sync { io, covered }) => {
                files.data.sync(covered);
                disk(io, DiskOutcome::Done)
            }
            (End::Well, Self::Probe { io }) => disk(io, DiskOutcome::Done),
            (End::Well, Self::Record { ticket, offset, bytes }) => {
                put_stable(&mut files.superblock, offset, &bytes);
                metadata(ticket, Ok(()))
            }
            (End::Well, Self::Append { ticket, offset, bytes }) => {
                put_stable(&mut files.log, offset, &bytes);
                metadata(ticket, Ok(()))
            }
            (End::Well, Self::Map { ticket, covered, sums }) => {
                files.map.sync(covered);
                put_sums(&mut files.sum, &sums, &mut |_| true);
                files.sum.sync(files.sum.newest());
                metadata(ticket, Ok(()))
            }
            (End::Well, Self::Grow { ticket, old, new }) => {
                make_longer(files, old, new, &mut |_| true);
                files.map.sync(files.map.newest());
                files.sum.sync(files.sum.newest());
                Done { map: Some(files.mapped.clone()), ..grown(ticket, Ok(())) }
            }
            (End::NoSpace | End::Failed, work) => work.fail(end, files, rng),
        }
    }

    fn fail(self, end: End, files: &mut Files, rng: &mut Rng) -> Done {
        if let Self::Sync { .. } = self {
            files.data.fail_sync(rng);
        }
        let answer = match self {
            Self::Write { io, .. } | Self::Zero { io, .. } => disk(io, bad_outcome(end)),
            Self::ReadForClient { io, .. }
            | Self::Read { io, .. }
            | Self::Hash { io, .. }
            | Self::Sync { io, .. }
            | Self::Probe { io } => disk(io, DiskOutcome::Failed),
            Self::Record { ticket, .. }
            | Self::Append { ticket, .. }
            | Self::Map { ticket, .. } => metadata(ticket, Err(MetadataFailed)),
            Self::Grow { ticket, .. } if end == End::NoSpace => {
                grown(ticket, Err(GrowFailed::NoSpace))
            }
            Self::Grow { ticket, .. } => grown(ticket, Err(GrowFailed::Failed)),
        };
        self.interrupted(files, rng);
        answer
    }

    /// Nobody waits for it any more: it happened in whole, in part or not.
    pub(crate) fn interrupted(self, files: &mut Files, rng: &mut Rng) {
        let share = *rng.choice(&[0, 4, 8]).unwrap();
        let is_stable = rng.bool();
        let mut lands = |_| rng.u8(..8) < share;
        match self {
            Self::Write { range, bytes, .. } => files.data.write(range.start(), &bytes, &mut lands),
            Self::Zero { range, .. } => files.data.zero(range.start(), range.len(), &mut lands),
            Self::ReadForClient { .. }
            | Self::Read { .. }
            | Self::Hash { .. }
            | Self::Probe { .. } => {}
            Self::Sync { covered, .. } if is_stable => files.data.sync(covered),
            Self::Sync { .. } => {}
            Self::Record { offset, bytes, .. } => {
                files.superblock.write(offset, &bytes, &mut lands);
            }
            Self::Append { offset, bytes, .. } => files.log.write(offset, &bytes, &mut lands),
            Self::Map { covered, sums, .. } if is_stable => {
                files.map.sync(covered);
                put_sums(&mut files.sum, &sums, &mut lands);
            }
            Self::Map { .. } => {}
            Self::Grow { old, new, .. } => make_longer(files, old, new, &mut lands),
        }
    }
}

/// Data, map and sums for a longer resource, all of it or some.
fn make_longer(
    files: &mut Files,
    old: ResourceSize,
    new: ResourceSize,
    lands: &mut dyn FnMut(u64) -> bool,
) {
    files.data_len = files.data_len.max(new.bytes());
    files.sum_len = files.sum_len.max(usize::try_from(sum_file_len(new)).unwrap());
    let map_len = usize::try_from(DirtyMap::<Vec<u8>>::file_len(new)).unwrap();
    files.mapped.resize(map_len.max(files.mapped.len()), 0);
    let head = DirtyMap::<Vec<u8>>::grown_head(&files.mapped, new).expect("the map is whole");
    if lands(0) {
        files.mapped[..head.len()].copy_from_slice(&head);
        files.map.write(0, &Bytes::from(head), &mut |_| true);
    }
    let sums = grown_sums(&files.sum.read(0, PAGE_LEN), old, new).expect("the sums are whole");
    for (start, bytes) in sums {
        files.sum.write(start, &Bytes::from(bytes), lands);
    }
}

fn disk(io: IoId, outcome: DiskOutcome) -> Done {
    Done { input: Input::Disk { io, outcome }, found: None, map: None }
}

fn grown(ticket: Ticket, result: Result<(), GrowFailed>) -> Done {
    Done { input: Input::Grown { ticket, result }, found: None, map: None }
}

fn metadata(ticket: Ticket, result: Result<(), MetadataFailed>) -> Done {
    Done { input: Input::Metadata { ticket, result }, found: None, map: None }
}

fn bad_outcome(end: End) -> DiskOutcome {
    if end == End::NoSpace { DiskOutcome::NoSpace } else { DiskOutcome::Failed }
}

fn read(file: &File, range: ByteRange) -> Bytes {
    file.read(range.start(), usize::try_from(range.len()).unwrap())
}

fn hash(file: &File, chunk: ChunkIndex, size: ResourceSize) -> DiskOutcome {
    let range = chunk.range(size).expect("the core names chunks inside the resource");
    if range.len() == CHUNK_LEN && file.is_zero(range.start(), range.len()) {
        return hash_of_zeroes();
    }
    let bytes = read(file, range);
    let block_len = usize::try_from(BLOCK_LEN).unwrap();
    DiskOutcome::Hashes {
        chunk: *blake3::hash(&bytes).as_bytes(),
        blocks: bytes.chunks(block_len).map(|block| *blake3::hash(block).as_bytes()).collect(),
    }
}

/// Most of a device is never written; its hash is made once.
fn hash_of_zeroes() -> DiskOutcome {
    static CHUNK: LazyLock<[[u8; 32]; 2]> = LazyLock::new(|| {
        [CHUNK_LEN, BLOCK_LEN].map(|len| {
            let zeroes = vec![0; usize::try_from(len).unwrap()];
            *blake3::hash(&zeroes).as_bytes()
        })
    });
    let block_count = usize::try_from(CHUNK_LEN / BLOCK_LEN).unwrap();
    DiskOutcome::Hashes { chunk: CHUNK[0], blocks: vec![CHUNK[1]; block_count] }
}

fn put_stable(file: &mut File, offset: u64, bytes: &Bytes) {
    file.write(offset, bytes, &mut |_| true);
    file.sync(file.newest());
}

fn put_sums(file: &mut File, sums: &[(u64, u32)], lands: &mut dyn FnMut(u64) -> bool) {
    for (page, sum) in sums {
        let bytes = Bytes::copy_from_slice(&sum.to_le_bytes());
        file.write(sum_offset(*page), &bytes, lands);
    }
}
