//! How the activity log lies on disk.
//!
//! Behind the header are two areas of 256 blocks. An area is a snapshot (three blocks), then
//! records; each block carries the sum of the one before. When an area is full, a snapshot opens
//! the other one under the next number. The valid area with the highest number counts, with its
//! records as long as number, index and chain match. A block with committed entries is never
//! written again, so only the last block can be torn; one that is damaged while a later one is
//! whole was committed, and makes the log unreadable.

use std::collections::BTreeSet;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::activity_log::SLOTS;
use super::page::{FileIds, PAGE_LEN, PageKind};
use super::{ACTIVITY_LOG_FILE, Damage};
use crate::units::{EXTENT_LEN, ExtentIndex};

/// Most entries of one block.
pub(super) const BLOCK_ENTRIES_MAX: usize = 1000;
/// Length of the file in bytes: the header and two areas of 1 MiB.
pub(super) const FILE_LEN: u64 = (PAGE_LEN + 2 * AREA_BLOCKS as usize * PAGE_LEN) as u64;

/// One entry of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    /// It is hot from here on.
    Joins(ExtentIndex),
    /// It is not any more.
    Leaves(ExtentIndex),
}

/// Where the next block goes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) struct Position {
    /// Number of the area.
    area: u64,
    /// Block inside it.
    next: u32,
    /// Sum of the block before.
    chain: u32,
    /// The header is written with the next snapshot.
    anew: bool,
}

impl Position {
    /// The next thing is a snapshot, under a number above all that lie around in `damaged`.
    pub(super) fn anew(damaged: &[u8]) -> Self {
        let blocks = damaged.as_chunks::<PAGE_LEN>().0.iter();
        let highest = blocks.filter_map(|it| RawBlock::check(it)).map(|it| it.area.get()).max();
        // An odd one: the next area is the first one of the file, right behind the header.
        let area = highest.map_or(1, |highest| highest | 1);
        Self { area, next: AREA_BLOCKS, chain: 0, anew: true }
    }

    /// The area has no block left.
    pub(super) fn is_full(&self) -> bool {
        self.next == AREA_BLOCKS
    }

    /// A record behind the last block: offset, bytes and the position after it.
    pub(super) fn encode_record(&self, entries: &[Entry]) -> (u64, Vec<u8>, Self) {
        let words = entries.iter().map(|entry| match entry {
            Entry::Joins(extent) => extent.0,
            Entry::Leaves(extent) => extent.0 | LEAVES,
        });
        let block = RawBlock::new(KIND_RECORD, self, words);
        let after = Self { next: self.next + 1, chain: block.sum.get(), ..*self };
        (block_offset(self.area, self.next), block.as_bytes().to_vec(), after)
    }

    /// A snapshot that opens the next area: offset, bytes and the position after it.
    pub(super) fn encode_snapshot(
        &self,
        entries: &BTreeSet<ExtentIndex>,
        ids: &FileIds,
    ) -> (u64, Vec<u8>, Self) {
        let mut at = Self { area: self.area + 1, next: 0, chain: 0, anew: false };
        let mut words = entries.iter().map(|extent| extent.0);
        let mut bytes = Vec::with_capacity((SNAPSHOT_BLOCKS as usize + 1) * PAGE_LEN);
        let mut offset = block_offset(at.area, 0);
        if self.anew {
            bytes.extend_from_slice(&KIND.encode(ids, SLOTS as u64));
            offset -= PAGE_LEN as u64;
        }
        while at.next < SNAPSHOT_BLOCKS {
            let block = RawBlock::new(KIND_SNAPSHOT, &at, words.by_ref().take(BLOCK_ENTRIES_MAX));
            bytes.extend_from_slice(block.as_bytes());
            at = Self { next: at.next + 1, chain: block.sum.get(), ..at };
        }
        assert!(words.next().is_none(), "there are fewer slots than a snapshot has entries");
        (offset, bytes, at)
    }
}

/// The start of a new file; the rest is zero.
pub(super) fn new_image(ids: &FileIds) -> Vec<u8> {
    Position::anew(&[]).encode_snapshot(&BTreeSet::new(), ids).1
}

/// What a log says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct LogImage {
    pub(super) hot: BTreeSet<ExtentIndex>,
    pub(super) position: Position,
}

impl LogImage {
    /// Reads the whole file.
    pub(super) fn read(bytes: &[u8], ids: &FileIds) -> Result<Self, Damage> {
        match KIND.decode(bytes) {
            Ok(header) => header.check_owner(ACTIVITY_LOG_FILE, ids)?,
            Err(newer @ Damage::Format { .. }) => return Err(newer),
            Err(_) => return Err(Damage::LogUnreadable),
        }
        let (pages, _) = bytes.as_chunks::<PAGE_LEN>();
        let blocks = pages.get(1..=2 * AREA_BLOCKS as usize).ok_or(Damage::LogUnreadable)?;
        let (even, odd) = blocks.split_at(AREA_BLOCKS as usize);
        let even = Area::read(even, 0);
        let odd = Area::read(odd, 1);
        let newer = if even.opened > odd.opened { &even } else { &odd };
        // A record is only written once its area's snapshot is stable: that snapshot rotted.
        let is_hidden = even.highest_record.max(odd.highest_record) > newer.opened;
        match newer.image.clone() {
            Some(image) if !is_hidden && !newer.is_broken => Ok(image),
            _ => Err(Damage::LogUnreadable),
        }
    }
}

/// What one area says.
#[derive(Debug)]
struct Area {
    /// Its number, if its snapshot is whole.
    opened: Option<u64>,
    image: Option<LogImage>,
    /// A committed record is damaged.
    is_broken: bool,
    /// Highest number of any whole record here.
    highest_record: Option<u64>,
}

impl Area {
    fn read(blocks: &[[u8; PAGE_LEN]], parity: u64) -> Self {
        let (snapshot, records) = blocks.split_at(SNAPSHOT_BLOCKS as usize);
        let highest_record =
            records.iter().filter_map(|it| RawBlock::check(it)).map(|it| it.area.get()).max();
        let mut area = Self { opened: None, image: None, is_broken: false, highest_record };
        let Some(mut image) = read_snapshot(snapshot, parity) else { return area };
        let number = image.position.area;
        area.opened = Some(number);
        let mut records = records.iter().map(|it| RawBlock::check(it));
        for block in records.by_ref() {
            let Some(block) = block.filter(|it| it.follows(KIND_RECORD, &image.position)) else {
                break;
            };
            for word in block.entries() {
                let extent = ExtentIndex(word & !LEAVES);
                if word & LEAVES == 0 {
                    image.hot.insert(extent);
                } else {
                    image.hot.remove(&extent);
                }
            }
            image.position.next += 1;
            image.position.chain = block.sum.get();
        }
        area.is_broken = records.flatten().any(|it| it.area.get() == number);
        area.image = Some(image);
        area
    }
}

fn read_snapshot(blocks: &[[u8; PAGE_LEN]], parity: u64) -> Option<LogImage> {
    let number = RawBlock::check(blocks.first()?)?.area.get();
    let mut position = Position { area: number, next: 0, chain: 0, anew: false };
    let mut hot = BTreeSet::new();
    for block in blocks {
        let block = RawBlock::check(block)?;
        if !block.follows(KIND_SNAPSHOT, &position) {
            return None;
        }
        hot.extend(block.entries().map(ExtentIndex));
        position = Position { next: position.next + 1, chain: block.sum.get(), ..position };
    }
    (number % 2 == parity).then_some(LogImage { hot, position })
}

const KIND: PageKind = PageKind { file: ACTIVITY_LOG_FILE, magic: *b"HPACTLG1", unit: EXTENT_LEN };
const AREA_BLOCKS: u32 = SNAPSHOT_BLOCKS + 253;
const SNAPSHOT_BLOCKS: u32 = 3;
/// No log gets there; what is read must leave room to count on.
const AREA_MAX: u64 = 1 << 62;
const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"HPAL");
const KIND_SNAPSHOT: u32 = 1;
const KIND_RECORD: u32 = 2;
/// Set in an entry: the extent leaves.
const LEAVES: u32 = 1 << 31;

fn block_offset(area: u64, block: u32) -> u64 {
    PAGE_LEN as u64 + (area % 2 * u64::from(AREA_BLOCKS) + u64::from(block)) * PAGE_LEN as u64
}

/// A block byte for byte.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBlock {
    magic: U32,
    kind: U32,
    area: U64,
    index: U32,
    count: U32,
    /// Sum of the block before; zero in an area's first one.
    chain: U32,
    entries: [U32; BLOCK_ENTRIES_MAX],
    zero: [u8; 64],
    sum: U32,
}

const _: () = assert!(size_of::<RawBlock>() == PAGE_LEN, "a block is a page");

impl RawBlock {
    fn new(kind: u32, at: &Position, words: impl Iterator<Item = u32>) -> Box<Self> {
        let mut block = Box::new(Self::new_zeroed());
        block.magic = U32::new(BLOCK_MAGIC);
        block.kind = U32::new(kind);
        block.area = U64::new(at.area);
        block.index = U32::new(at.next);
        block.chain = U32::new(at.chain);
        let mut count = 0;
        for (place, word) in block.entries.iter_mut().zip(words) {
            *place = U32::new(word);
            count += 1;
        }
        block.count = U32::new(count);
        block.sum = U32::new(block.computed_sum());
        block
    }

    /// The block, if its sum matches.
    fn check(bytes: &[u8; PAGE_LEN]) -> Option<&Self> {
        let block = Self::ref_from_bytes(bytes).ok()?;
        let is_whole = block.magic.get() == BLOCK_MAGIC
            && block.sum.get() == block.computed_sum()
            && block.area.get() < AREA_MAX
            && block.count.get() as usize <= BLOCK_ENTRIES_MAX;
        is_whole.then_some(block)
    }

    fn follows(&self, kind: u32, at: &Position) -> bool {
        self.kind.get() == kind
            && self.area.get() == at.area
            && self.index.get() == at.next
            && self.chain.get() == at.chain
    }

    fn entries(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().take(self.count.get() as usize).map(|it| it.get())
    }

    fn computed_sum(&self) -> u32 {
        let (covered, _) = self.as_bytes().split_at(PAGE_LEN - size_of::<U32>());
        crc32c::crc32c(covered)
    }
}
