//! The unflushed window: blocks that the peer applied or is about to, and has not made durable.
//!
//! They stay marked, since the peer loses them when it loses power. A mark of the window is
//! cleared by the peer's durable acknowledgement of the block's *last* version; every other mark
//! (a *hard* one) only by a comparison. A block written in part joins the window only if it was
//! clean before, or is in it already.

use std::collections::{BTreeMap, VecDeque};

use crate::units::{BlockIndex, BlockRange, Instant, Sequence};

/// Blocks with the sequence of their last write in this session.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Window {
    last: BTreeMap<u64, Sequence>,
    order: VecDeque<(Sequence, BlockRange)>,
    oldest: Option<Instant>,
}

impl Window {
    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.last.len()
    }

    /// Since when something is in it.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.oldest
    }

    /// The first write that the peer has not made durable.
    pub(super) fn first(&self) -> Option<Sequence> {
        self.order.front().map(|(sequence, _)| *sequence)
    }

    /// Whether the mark of `block` is one of the window's.
    pub(super) fn contains(&self, block: BlockIndex) -> bool {
        self.last.contains_key(&block.0)
    }

    /// `block` was written with `sequence`.
    pub(super) fn note(&mut self, block: BlockIndex, sequence: Sequence) {
        self.last.insert(block.0, sequence);
    }

    /// All blocks of one write were noted.
    pub(super) fn sent(&mut self, now: Instant, sequence: Sequence, blocks: BlockRange) {
        self.order.push_back((sequence, blocks));
        self.oldest.get_or_insert(now);
    }

    /// The mark of `block` is a hard one from now on.
    pub(super) fn harden(&mut self, block: BlockIndex) {
        self.last.remove(&block.0);
    }

    /// The peer made everything up to `covers` durable: the blocks whose last write that was.
    pub(super) fn durable_through(&mut self, now: Instant, covers: Sequence) -> Vec<BlockIndex> {
        let mut cleared = Vec::new();
        while let Some(&(sequence, blocks)) = self.order.front() {
            if sequence > covers {
                break;
            }
            self.order.pop_front();
            self.take(sequence, blocks, &mut cleared);
        }
        self.oldest = (!self.order.is_empty()).then_some(now);
        cleared
    }

    /// The peer made this one write durable: the blocks whose last write that was.
    pub(super) fn durable(&mut self, sequence: Sequence, blocks: BlockRange) -> Vec<BlockIndex> {
        let mut cleared = Vec::new();
        self.take(sequence, blocks, &mut cleared);
        cleared
    }

    /// The planted bug `BitClearedDespiteNewerWrite`: what `covers` names counts as each block's
    /// last version.
    pub(super) fn forget_newer(&mut self, covers: Sequence) {
        for &(sequence, blocks) in self.order.iter().filter(|(sequence, _)| *sequence <= covers) {
            for block in blocks.iter() {
                if let Some(last) = self.last.get_mut(&block.0) {
                    *last = sequence;
                }
            }
        }
    }

    /// Every mark is a hard one from now on: the session is over.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn take(&mut self, sequence: Sequence, blocks: BlockRange, cleared: &mut Vec<BlockIndex>) {
        for block in blocks.iter() {
            if self.last.get(&block.0) == Some(&sequence) {
                self.last.remove(&block.0);
                cleared.push(block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_version_of_a_block_clears_it() {
        let mut window = Window::default();
        let range = BlockRange { first: 0, end: 2 };
        let half = BlockRange { first: 1, end: 2 };
        for (sequence, blocks) in [(1, range), (2, half)] {
            for block in blocks.iter() {
                window.note(block, Sequence(sequence));
            }
            window.sent(Instant(0), Sequence(sequence), blocks);
        }
        assert_eq!(window.durable_through(Instant(1), Sequence(1)), [BlockIndex(0)]);
        assert!(window.contains(BlockIndex(1)));
        assert_eq!(window.durable_through(Instant(2), Sequence(2)), [BlockIndex(1)]);
        assert_eq!(window.len(), 0);
    }

    #[test]
    fn a_hardened_block_is_not_cleared() {
        let mut window = Window::default();
        let range = BlockRange { first: 7, end: 8 };
        window.note(BlockIndex(7), Sequence(1));
        window.sent(Instant(0), Sequence(1), range);
        window.harden(BlockIndex(7));
        assert_eq!(window.durable_through(Instant(1), Sequence(1)), []);
    }
}
