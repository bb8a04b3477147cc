//! Words and measures that every layer shares.
//!
//! Nothing here does anything: these are the types that keep three index units, two kinds of
//! version and a handful of states apart. Words that are both sent and stored live here, too.

mod tree;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use tree::{FuzzyWhy, Label, ObjectId, TreeNumber, TreePosition, TreeRoot};

/// Length of a block in bytes: one bit of the dirty map.
pub const BLOCK_LEN: u64 = 4 << 10;
/// Length of a chunk in bytes: the unit that a resync compares by hash.
pub const CHUNK_LEN: u64 = 64 << 10;
/// Length of an extent in bytes: one entry of the activity log.
pub const EXTENT_LEN: u64 = 4 << 20;
/// Blocks in a chunk.
pub const BLOCKS_PER_CHUNK: u64 = CHUNK_LEN / BLOCK_LEN;
/// Largest resource in bytes; beyond it an extent index would not fit the activity log's entries
/// (31 bits of extents would allow more, this keeps the dirty map below 512 MiB).
pub const RESOURCE_LEN_MAX: u64 = 16 << 40;

/// Size of a resource in bytes: any number from 1 to [`RESOURCE_LEN_MAX`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ResourceSize(u64);

impl ResourceSize {
    /// Takes `len_bytes` as a size, unless it is zero or above [`RESOURCE_LEN_MAX`].
    pub fn new(len_bytes: u64) -> Option<Self> {
        (1..=RESOURCE_LEN_MAX).contains(&len_bytes).then_some(Self(len_bytes))
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Number of blocks, the last of which may be short.
    pub fn block_count(self) -> u64 {
        self.0.div_ceil(BLOCK_LEN)
    }

    /// Number of chunks, the last of which may be short.
    pub fn chunk_count(self) -> u64 {
        self.0.div_ceil(CHUNK_LEN)
    }

    /// Number of extents, the last of which may be short.
    pub fn extent_count(self) -> u64 {
        self.0.div_ceil(EXTENT_LEN)
    }

    /// Everything.
    pub fn whole(self) -> ByteRange {
        ByteRange { start: 0, len: self.0 }
    }
}

/// A number of bytes as an operator writes it: in the largest unit that is exact.
pub fn written_size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let exact = units.into_iter().find(|(_, shift)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match exact {
        Some((unit, shift)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// A range of bytes of a resource: not empty, inside the resource, without overflow.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ByteRange {
    start: u64,
    len: u64,
}

impl ByteRange {
    /// The range of `len` bytes from `start`, if it is not empty and lies inside `size`.
    pub fn new(start: u64, len: u64, size: ResourceSize) -> Option<Self> {
        let end = start.checked_add(len)?;
        (len > 0 && end <= size.bytes()).then_some(Self { start, len })
    }

    /// First byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// Number of bytes, never zero.
    pub fn len(self) -> u64 {
        self.len
    }

    /// Never: a range has at least one byte.
    pub fn is_empty(self) -> bool {
        false
    }

    /// The first byte behind it.
    pub fn end(self) -> u64 {
        self.start + self.len
    }

    /// The blocks that it touches.
    pub fn blocks(self) -> BlockRange {
        BlockRange { first: self.start / BLOCK_LEN, end: self.end().div_ceil(BLOCK_LEN) }
    }

    /// The blocks that it covers whole. The resource's last block counts as whole when the range
    /// reaches the end of the resource.
    pub fn whole_blocks(self, size: ResourceSize) -> Option<BlockRange> {
        let first = self.start.div_ceil(BLOCK_LEN);
        let end =
            if self.end() == size.bytes() { size.block_count() } else { self.end() / BLOCK_LEN };
        (first < end).then_some(BlockRange { first, end })
    }

    /// The chunks that it touches, in order.
    pub fn chunks(self) -> impl Iterator<Item = ChunkIndex> {
        (self.start / CHUNK_LEN..self.end().div_ceil(CHUNK_LEN)).map(ChunkIndex)
    }

    /// The extents that it touches, in order.
    pub fn extents(self) -> impl Iterator<Item = ExtentIndex> {
        let first = self.start / EXTENT_LEN;
        let end = self.end().div_ceil(EXTENT_LEN);
        (first..end).map(|index| ExtentIndex(u32::try_from(index).expect("RESOURCE_LEN_MAX")))
    }

    /// Cuts it into parts of at most `part_len` bytes, at multiples of `part_len`.
    pub fn parts(self, part_len: u64) -> impl Iterator<Item = Self> {
        let end = self.end();
        let mut start = self.start;
        std::iter::from_fn(move || {
            if start >= end {
                return None;
            }
            let stop = end.min((start / part_len + 1) * part_len);
            let part = Self { start, len: stop - start };
            start = stop;
            Some(part)
        })
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.len)
    }
}

/// A run of blocks: `first` up to, without, `end`. Never empty when made from a [`ByteRange`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockRange {
    /// First block.
    pub first: u64,
    /// The block behind the last one.
    pub end: u64,
}

impl BlockRange {
    /// Number of blocks.
    pub fn block_count(self) -> u64 {
        self.end - self.first
    }

    /// Each block in order.
    pub fn iter(self) -> impl Iterator<Item = BlockIndex> {
        (self.first..self.end).map(BlockIndex)
    }

    /// Whether both share a block.
    pub fn overlaps(self, other: Self) -> bool {
        self.first < other.end && other.first < self.end
    }
}

/// Number of a 4 KiB block inside its resource.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct BlockIndex(pub u64);

impl BlockIndex {
    /// The chunk that holds it.
    pub fn chunk(self) -> ChunkIndex {
        ChunkIndex(self.0 / BLOCKS_PER_CHUNK)
    }

    /// The extent that holds it.
    pub fn extent(self) -> ExtentIndex {
        let index = self.0 / (EXTENT_LEN / BLOCK_LEN);
        ExtentIndex(u32::try_from(index).expect("RESOURCE_LEN_MAX"))
    }
}

/// Number of a 64 KiB chunk inside its resource.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ChunkIndex(pub u64);

impl ChunkIndex {
    /// Its bytes; `None` if it lies behind the end of the resource.
    pub fn range(self, size: ResourceSize) -> Option<ByteRange> {
        let start = self.0.checked_mul(CHUNK_LEN)?;
        ByteRange::new(start, CHUNK_LEN.min(size.bytes().checked_sub(start)?), size)
    }

    /// Its blocks, those behind the end of the resource not counted.
    pub fn blocks(self, size: ResourceSize) -> BlockRange {
        let first = self.0 * BLOCKS_PER_CHUNK;
        BlockRange { first, end: (first + BLOCKS_PER_CHUNK).min(size.block_count()) }
    }

    /// Length in bytes of those of its blocks whose bit is set in `mask` (bit i: block i). `None`
    /// if there are none, or some lie behind the end of the resource.
    pub fn masked_len(self, mask: u16, size: ResourceSize) -> Option<u64> {
        let start = self.range(size)?.start();
        let end = size.bytes() - start;
        let mut len_bytes = 0;
        for block in (0..BLOCKS_PER_CHUNK).filter(|block| mask >> block & 1 == 1) {
            let block_start = block * BLOCK_LEN;
            len_bytes += BLOCK_LEN.min(end.checked_sub(block_start).filter(|&len| len > 0)?);
        }
        (len_bytes > 0).then_some(len_bytes)
    }
}

/// Number of a 4 MiB extent inside its resource.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ExtentIndex(pub u32);

impl ExtentIndex {
    /// Its blocks, those behind the end of the resource not counted.
    pub fn blocks(self, size: ResourceSize) -> BlockRange {
        let per_extent = EXTENT_LEN / BLOCK_LEN;
        let first = u64::from(self.0) * per_extent;
        BlockRange { first, end: (first + per_extent).min(size.block_count()) }
    }
}

/// A fencing token: every change of who may serve makes a higher one. Its low two bits name the
/// maker (0 the arbiter, 1 and 2 the nodes in order of name), so no two makers make the same one.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The highest epoch that is taken from a peer. A change of who may serve adds 131,072 at most,
    /// so no pair gets there; and what is made above it neither overflows nor wraps to a lower one.
    pub const TAKEN_MAX: Self = Self(1 << 62);

    /// The smallest epoch above this one that `side` may make.
    #[must_use]
    pub fn next_by(self, side: Side) -> Self {
        let bits = side.epoch_bits();
        let candidate = (self.0 & !3) | bits;
        Self(if candidate > self.0 { candidate } else { candidate + 4 })
    }

    /// The smallest epoch above this one that the arbiter may make: its low bits are zero.
    #[must_use]
    pub fn next_by_arbiter(self) -> Self {
        Self((self.0 & !3) + 4)
    }

    /// The epoch that the arbiter makes for a forced promotion: the next multiple of 65,536.
    ///
    /// # Panics
    /// If there is no such epoch: a lower one would undo the fencing.
    #[must_use]
    pub fn forced_by_arbiter(self) -> Self {
        Self((self.0 | 0xffff).checked_add(1).expect("no epoch gets near the end of 64 bits"))
    }

    /// Whether an arbiter made it.
    pub fn is_by_arbiter(self) -> bool {
        self.0.is_multiple_of(4)
    }

    /// Whether an arbiter made it for a forced promotion.
    pub fn is_forced_by_arbiter(self) -> bool {
        self.0 > 0 && self.0.is_multiple_of(65_536)
    }

    /// The epoch of a forced promotion: above the next multiple of 65,536, so that it stands out
    /// and lies far above what the other node can have made meanwhile.
    ///
    /// # Panics
    /// If there is no such epoch: a lower one would undo the fencing.
    #[must_use]
    pub fn forced_by(self, side: Side) -> Self {
        let above =
            (self.0 | 0xffff).checked_add(1).expect("no epoch gets near the end of 64 bits");
        Self(above | side.epoch_bits())
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Order of writes within one epoch and session; the first one is 1.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The highest sequence that is taken from a peer. At a million writes per second an epoch gets
    /// there in a hundred thousand years, and counting on from it does not overflow.
    pub const TAKEN_MAX: Self = Self(1 << 62);

    /// The one behind it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The version of a block or of a whole replica: the last write applied to it.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Applied {
    /// Epoch of that write.
    pub epoch: Epoch,
    /// Its number in that epoch.
    pub sequence: Sequence,
}

/// Which data this is. Two equal ids are one history; the number orders it for people only.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Generation {
    /// Its parent's number plus one; the first one is 1.
    pub number: u64,
    /// Drawn at random; never zero.
    pub id: u128,
}

impl Generation {
    /// The highest number that is taken from a peer. Each generation adds one, so no history gets
    /// there, and counting on from it does not overflow.
    pub const NUMBER_TAKEN_MAX: u64 = 1 << 62;
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, (self.id >> 64) as u64)
    }
}

/// Identity of a resource, drawn when its first replica is made.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct ResourceId(pub u128);

/// Identity of one replica of a resource, drawn by `hotpair init`.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct ReplicaId(pub u128);

/// Identity of an arbiter's store; a store that was replaced or restored has another one.
///
/// The low 96 bits are the store's. Where a pair names the store that it believes, the high 32 bits are its
/// turn: they grow each time that a node changes to a store, also to one that it believed before. So a
/// node never believes the same twice, and what it said of itself at an earlier turn binds nobody.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct ArbiterId(pub u128);

impl ArbiterId {
    const STORE_BITS: u32 = 96;

    /// How often nodes of the pair have changed to a store.
    pub fn turn(self) -> u32 {
        u32::try_from(self.0 >> Self::STORE_BITS).unwrap_or(u32::MAX)
    }

    /// Whether this names `store`, at whatever turn.
    pub fn is_of(self, store: Self) -> bool {
        (self.0 ^ store.0) << u128::BITS.saturating_sub(Self::STORE_BITS) == 0
    }

    /// `store` at the turn after `turn`.
    #[must_use]
    pub fn at_turn_after(store: Self, turn: u32) -> Self {
        let low = store.0 & ((1 << Self::STORE_BITS) - 1);
        Self(low | u128::from(turn.saturating_add(1)) << Self::STORE_BITS)
    }
}

/// One run of the daemon: drawn at each start, never zero.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct Instance(pub u64);

/// One meeting of the two nodes on one connection; frames of another session are refused.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct SessionId(pub u64);

/// Place of a node in the pair: the node whose name sorts first, or the other one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Side {
    /// The node whose name sorts first; it dials.
    First,
    /// The other one; it listens.
    Second,
}

impl Side {
    /// The other place.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// 0 for the first node, 1 for the other one.
    pub fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }

    fn epoch_bits(self) -> u64 {
        match self {
            Self::First => 1,
            Self::Second => 2,
        }
    }
}

/// Nanoseconds since some start; virtual in the simulator.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Instant(pub u64);

impl Instant {
    /// The time from `earlier` to this one; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `after` this one.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Whether a node serves a resource.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It serves clients, or may once its writes are allowed again.
    Primary,
    /// It follows.
    Secondary,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        })
    }
}

/// What the local copy is worth.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// Complete and current, as far as this node can know.
    UpToDate,
    /// Consistent, but acknowledged writes may be missing.
    Outdated,
    /// A mix of old and new: a resync has begun and not ended, or it was never filled.
    Inconsistent,
    /// The medium failed; nothing from it counts.
    Failed,
    /// There is no medium.
    Missing,
}

impl fmt::Display for DiskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UpToDate => "up-to-date",
            Self::Outdated => "outdated",
            Self::Inconsistent => "inconsistent",
            Self::Failed => "failed",
            Self::Missing => "missing",
        })
    }
}

/// Why the disk is in its state.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum DiskReason {
    /// Nothing special.
    #[default]
    None,
    /// Power was lost (or the start looks like it) while extents were hot: *doubtful*.
    LostPower,
    /// The process of a `memsync` secondary ended while it held writes in memory: *doubtful*.
    HeldInMemory,
    /// `hotpair invalidate`: compare all of it.
    Invalidated,
    /// Metadata was made anew from the data.
    Rebuilt,
    /// `hotpair init --from peer`: there is no data of this resource here yet.
    Fresh,
    /// A read, write or sync failed.
    IoError,
    /// No space was left while a secondary applied a write.
    NoSpace,
    /// A resync is under way.
    Resync,
}

/// How many copies a write needs before it is acknowledged; DRBD's protocols C, B and A.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicationMode {
    /// Both nodes wrote it.
    Sync,
    /// The primary wrote it, the secondary received and checked it.
    MemSync,
    /// The primary wrote it, and the at-risk budget has room.
    Async,
}

impl fmt::Display for ReplicationMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::MemSync => "memsync",
            Self::Async => "async",
        })
    }
}

/// How a primary may acknowledge; part of its durable record.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ServeMode {
    /// It does not serve.
    #[default]
    None,
    /// Every acknowledgement needs the peer.
    Paired,
    /// As paired, at the end of a resync: the peer is not complete yet.
    Gated,
    /// It acknowledges alone; the peer may not serve.
    Solo,
    /// Ownership is on its way to the peer.
    HandingOver,
}

/// Why a node may not serve although nobody asked it to stop.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VetoReason {
    /// The primary went on without it.
    Evicted,
    /// It left by `disconnect` or a clean stop.
    Left,
    /// The arbiter's record does not list it.
    NotEligible,
    /// The other node became primary.
    Superseded,
    /// It lost power.
    PowerLoss,
    /// Its own record cannot be trusted.
    RecordLost,
    /// Its disk failed.
    IoError,
    /// It is the target of a resync.
    Inconsistent,
}

impl VetoReason {
    /// As `status` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Left => "left",
            Self::NotEligible => "not-eligible",
            Self::Superseded => "superseded",
            Self::PowerLoss => "power-loss",
            Self::RecordLost => "record-lost",
            Self::IoError => "io-error",
            Self::Inconsistent => "inconsistent",
        }
    }
}

/// A node's durable "I neither serve nor ask to, until a primary lifts this".
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Veto {
    /// Why.
    pub reason: VetoReason,
    /// The epoch it was given at.
    pub epoch: Epoch,
}

/// What follows from two states, seen from one node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Outcome {
    /// Both hold the same.
    InSync,
    /// I send what differs.
    Source(Transfer),
    /// I am sent what differs.
    Target(Transfer),
    /// Both have what the other lacks: an operator must choose.
    SplitBrain,
    /// These were never the same data.
    Unrelated,
    /// It cannot be decided as things are.
    Refused,
}

impl Outcome {
    /// The same, seen from the other node.
    #[must_use]
    pub fn mirrored(self) -> Self {
        match self {
            Self::Source(transfer) => Self::Target(transfer),
            Self::Target(transfer) => Self::Source(transfer),
            Self::InSync | Self::SplitBrain | Self::Unrelated | Self::Refused => self,
        }
    }

    /// Whether the two go on together.
    pub fn moves(self) -> bool {
        match self {
            Self::InSync | Self::Source(_) | Self::Target(_) => true,
            Self::SplitBrain | Self::Unrelated | Self::Refused => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InSync => f.write_str("in sync"),
            Self::Source(transfer) => write!(f, "source of a {transfer}"),
            Self::Target(transfer) => write!(f, "target of a {transfer}"),
            Self::SplitBrain => f.write_str("split brain"),
            Self::Unrelated => f.write_str("unrelated"),
            Self::Refused => f.write_str("refused"),
        }
    }
}

/// How the target gets what differs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Transfer {
    /// Only writes that were in flight can differ: the target stays consistent throughout.
    Replay,
    /// The marked blocks: the target is inconsistent until the end.
    Resync,
    /// Everything is compared: all blocks are marked first.
    ResyncAll,
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replay => "replay",
            Self::Resync => "resync",
            Self::ResyncAll => "resync of everything",
        })
    }
}

/// An operator's settlement of a split brain: both nodes store the same one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Resolution {
    /// The generation that is kept.
    pub kept: Generation,
    /// The one that is given up.
    pub dropped: Generation,
}

/// What becomes of the space of a zeroed range.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum ZeroKind {
    /// TRIM: given back where that is possible.
    Trim,
    /// `WRITE_ZEROES`: given back where that is possible.
    Punch,
    /// `WRITE_ZEROES` with `NO_HOLE`: stays allocated.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(len: u64) -> ResourceSize {
        ResourceSize::new(len).unwrap()
    }

    #[test]
    fn a_range_never_leaves_its_resource() {
        let size = size(10_000);
        assert!(ByteRange::new(0, 0, size).is_none());
        assert!(ByteRange::new(9_999, 2, size).is_none());
        assert!(ByteRange::new(u64::MAX, 2, size).is_none());
        assert!(ByteRange::new(9_999, 1, size).is_some());
    }

    #[test]
    fn the_short_last_block_counts_as_whole_when_reached() {
        let size = size(10_000);
        let tail = ByteRange::new(8_192, 1_808, size).unwrap();
        assert_eq!(tail.whole_blocks(size), Some(BlockRange { first: 2, end: 3 }));
        let part = ByteRange::new(8_192, 1_807, size).unwrap();
        assert_eq!(part.whole_blocks(size), None);
    }

    #[test]
    fn parts_are_cut_at_multiples_and_cover_the_range() {
        let size = size(1 << 20);
        let range = ByteRange::new(100, 10_000, size).unwrap();
        let parts: Vec<_> = range.parts(4096).map(|p| (p.start(), p.len())).collect();
        assert_eq!(parts, [(100, 3996), (4096, 4096), (8192, 1908)]);
    }

    #[test]
    fn a_mask_counts_the_short_last_block_as_short_and_none_behind_it() {
        let size = size(CHUNK_LEN + 10_000);
        assert_eq!(ChunkIndex(0).masked_len(0xffff, size), Some(CHUNK_LEN));
        assert_eq!(ChunkIndex(1).masked_len(0b101, size), Some(4096 + 1808));
        assert_eq!(ChunkIndex(1).masked_len(0b1001, size), None);
        assert_eq!(ChunkIndex(1).masked_len(0, size), None);
        assert_eq!(ChunkIndex(2).masked_len(1, size), None);
        assert_eq!(ChunkIndex(u64::MAX).masked_len(1, size), None);
    }

    #[test]
    fn no_two_makers_make_the_same_epoch() {
        for e in 0..64 {
            let first = Epoch(e).next_by(Side::First);
            let second = Epoch(e).next_by(Side::Second);
            assert!(first > Epoch(e) && second > Epoch(e) && first != second);
            assert!(first.0 - e <= 4 && second.0 - e <= 4);
        }
        assert_eq!(Epoch(7).forced_by(Side::Second), Epoch(65_538));
    }

    #[test]
    fn an_epoch_made_above_the_highest_that_is_taken_is_higher() {
        for side in [Side::First, Side::Second] {
            assert!(Epoch::TAKEN_MAX.next_by(side) > Epoch::TAKEN_MAX);
            assert!(Epoch::TAKEN_MAX.forced_by(side) > Epoch::TAKEN_MAX);
        }
    }

    #[test]
    #[should_panic(expected = "no epoch gets near")]
    fn a_forced_epoch_never_wraps_to_a_lower_one() {
        let _ = Epoch(u64::MAX - 5).forced_by(Side::First);
    }
}
