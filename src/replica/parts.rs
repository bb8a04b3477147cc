//! Parts of requests, and the ranges that are in flight.

use std::collections::BTreeMap;

use super::request::RequestId;
use crate::units::{BlockRange, ByteRange, Instant, Sequence, ZeroKind};
use crate::wire::message::AckStage;
use crate::wire::payload::Payload;

/// Names one part of a client's write; counts up in the order of admission.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct PartId(pub(super) u64);

/// One part of a client's write: what is applied, sent and acknowledged as a whole.
#[derive(Clone, Debug, Hash)]
pub(super) struct Part {
    /// Whose it is.
    pub(super) request: RequestId,
    /// Which bytes.
    pub(super) range: ByteRange,
    /// The blocks that it touches: no other part in flight touches them.
    pub(super) blocks: BlockRange,
    /// What happens to them.
    pub(super) op: Op,
    /// Answered when stable.
    pub(super) fua: bool,
    /// When it was admitted.
    pub(super) admitted: Instant,
    /// How far it is here.
    pub(super) local: Local,
    /// `fua`: it is stable here.
    pub(super) is_synced: bool,
    /// Its place in the current session; `None` if it was not sent in it.
    pub(super) sequence: Option<Sequence>,
    /// How far it is at the peer, in the current session.
    pub(super) peer: Option<AckStage>,
}

impl Part {
    /// Number of blocks that it touches.
    pub(super) fn block_count(&self) -> usize {
        usize::try_from(self.blocks.block_count()).expect("a part is at most 64 MiB")
    }
}

/// What happens to the bytes of a part.
#[derive(Clone, Debug, Hash)]
pub(super) enum Op {
    /// They are replaced.
    Write(Payload),
    /// They read as zero.
    Zero(ZeroKind),
}

impl Op {
    /// Bytes that travel with it.
    pub(super) fn payload_len(&self) -> u64 {
        match self {
            Self::Write(payload) => u64::try_from(payload.len()).expect("a part is at most 1 MiB"),
            Self::Zero(_) => 0,
        }
    }
}

/// How far a part is on this node.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Local {
    /// Its extents are not all in the activity log yet, or it may not start.
    Cold,
    /// It is being written.
    Writing,
    /// It is in the file.
    Done,
    /// The disk is full.
    NoSpace,
}

/// Disjoint ranges of blocks, each owned by one part.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Intervals {
    by_first: BTreeMap<u64, u64>,
}

impl Intervals {
    /// Whether `blocks` touches one of them.
    pub(super) fn overlaps(&self, blocks: BlockRange) -> bool {
        self.by_first.range(..blocks.end).next_back().is_some_and(|(_, end)| *end > blocks.first)
    }

    /// Adds a range that overlaps none of them.
    pub(super) fn insert(&mut self, blocks: BlockRange) {
        assert!(!self.overlaps(blocks), "overlapping writes in flight");
        self.by_first.insert(blocks.first, blocks.end);
    }

    /// Adds a range that may overlap others; afterwards they are one.
    pub(super) fn merge(&mut self, mut blocks: BlockRange) {
        while let Some((&first, &end)) = self.by_first.range(..blocks.end).next_back() {
            if end <= blocks.first {
                break;
            }
            self.by_first.remove(&first);
            blocks.first = blocks.first.min(first);
            blocks.end = blocks.end.max(end);
        }
        self.by_first.insert(blocks.first, blocks.end);
    }

    /// Removes a range that was inserted.
    pub(super) fn remove(&mut self, blocks: BlockRange) {
        self.by_first.remove(&blocks.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_ranges_cover_what_either_covered() {
        let ranges = |list: &[(u64, u64)]| {
            let mut set = Intervals::default();
            for &(first, end) in list {
                set.merge(BlockRange { first, end });
            }
            set
        };
        let list = [(2, 4), (6, 8), (3, 7), (0, 1), (9, 12), (10, 11)];
        let set = ranges(&list);
        for first in 0..14 {
            let block = BlockRange { first, end: first + 1 };
            let expected = list.iter().any(|&(a, b)| a <= first && first < b);
            assert_eq!(set.overlaps(block), expected, "block {first}");
        }
    }
}
