//! What was written and acknowledged, and what must therefore be read.

use super::stamp::{self, Block, Foreign};

/// Every block with its writes.
#[derive(Debug)]
pub(super) struct Ledger {
    run: u64,
    blocks: Vec<Entry>,
    draw: fastrand::Rng,
    /// Writes that were acknowledged.
    pub(super) acknowledged: u64,
}

/// One block.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The newest version that was acknowledged; 0 is what was there at the start.
    acknowledged: u64,
    /// A newer one that is under way.
    in_flight: Option<u64>,
    /// A newer one whose answer never came: it happened, or not, or in part.
    unanswered: Option<u64>,
}

/// One write of a whole block.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Write {
    pub(super) block: u64,
    version: u64,
}

/// What a look at blocks found, all of it allowed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Found {
    /// Blocks.
    pub(super) blocks: u64,
    /// Blocks that hold a write which was acknowledged.
    pub(super) rewritten: u64,
    /// Of the unanswered writes, those that did not happen, happened, and did in part.
    pub(super) unanswered: [u64; 3],
}

/// What is not allowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Wrong {
    /// An acknowledged write is gone.
    #[error("block {block} holds version {found}, but version {acknowledged} was acknowledged")]
    Lost { block: u64, found: u64, acknowledged: u64 },
    /// Garbage.
    #[error(transparent)]
    Foreign(#[from] Foreign),
}

impl Ledger {
    /// A ledger of `blocks` blocks, all of version 0.
    pub(super) fn new(run: u64, blocks: u64) -> Self {
        let count = usize::try_from(blocks).expect("the demo's file has a limit");
        let blocks = vec![Entry::default(); count];
        Self { run, blocks, draw: fastrand::Rng::with_seed(run), acknowledged: 0 }
    }

    pub(super) fn len(&self) -> u64 {
        u64::try_from(self.blocks.len()).expect("usize fits into u64")
    }

    /// Chooses a block that no write is under way to.
    pub(super) fn next_write(&mut self) -> Write {
        loop {
            let block = self.draw.u64(..self.len());
            let entry = self.entry(block);
            if entry.in_flight.is_none() {
                let version = entry.acknowledged.max(entry.unanswered.unwrap_or(0)) + 1;
                entry.in_flight = Some(version);
                return Write { block, version };
            }
        }
    }

    /// The bytes of a write.
    pub(super) fn bytes(&self, write: Write) -> Block {
        stamp::block(self.run, write.block, write.version)
    }

    /// What the block holds at the start.
    pub(super) fn first_bytes(&self, block: u64) -> Block {
        stamp::block(self.run, block, 0)
    }

    /// The answer came.
    pub(super) fn acknowledge(&mut self, write: Write) {
        self.acknowledged += 1;
        *self.entry(write.block) =
            Entry { acknowledged: write.version, in_flight: None, unanswered: None };
    }

    /// The answer will not come.
    pub(super) fn lose(&mut self, write: Write) {
        let entry = self.entry(write.block);
        entry.in_flight = None;
        entry.unanswered = Some(write.version);
    }

    /// Compares the bytes of a block with what was written.
    ///
    /// # Errors
    /// [`Wrong`] if a write that was acknowledged is gone, or anything else is there.
    pub(super) fn check(&self, block: u64, bytes: &Block, found: &mut Found) -> Result<(), Wrong> {
        let versions = stamp::versions(self.run, block, bytes)?;
        let entry = &self.blocks[usize::try_from(block).expect("it is within the file")];
        let acknowledged = entry.acknowledged;
        let is_new = |version: u64| Some(version) == entry.unanswered;
        let lost = versions.iter().find(|version| **version != acknowledged && !is_new(**version));
        if let Some(&version) = lost {
            return Err(Wrong::Lost { block, found: version, acknowledged });
        }
        found.blocks += 1;
        found.rewritten += u64::from(acknowledged > 0);
        if entry.unanswered.is_some() {
            let new = versions.iter().filter(|version| is_new(**version)).count();
            let kind = match new {
                0 => 0,
                all if all == versions.len() => 1,
                _ => 2,
            };
            found.unanswered[kind] += 1;
        }
        Ok(())
    }

    fn entry(&mut self, block: u64) -> &mut Entry {
        &mut self.blocks[usize::try_from(block).expect("it is within the file")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(ledger: &Ledger, block: u64, bytes: &Block) -> Result<Found, Wrong> {
        let mut found = Found::default();
        ledger.check(block, bytes, &mut found).map(|()| found)
    }

    #[test]
    fn an_acknowledged_write_must_be_there_and_an_unanswered_one_may_be() {
        let mut ledger = Ledger::new(5, 1);
        let first = ledger.next_write();
        ledger.acknowledge(first);
        let old = ledger.first_bytes(0);
        let lost = Wrong::Lost { block: 0, found: 0, acknowledged: 1 };
        assert_eq!(look(&ledger, 0, &old), Err(lost));

        let second = ledger.next_write();
        ledger.lose(second);
        let (before, after) = (ledger.bytes(first), ledger.bytes(second));
        assert_eq!(look(&ledger, 0, &before).unwrap().unanswered, [1, 0, 0]);
        assert_eq!(look(&ledger, 0, &after).unwrap().unanswered, [0, 1, 0]);
        let mut mixed = before;
        mixed[..512].copy_from_slice(&after[..512]);
        assert_eq!(look(&ledger, 0, &mixed).unwrap().unanswered, [0, 0, 1]);
        mixed[..500].copy_from_slice(&before[..500]);
        assert!(matches!(look(&ledger, 0, &mixed), Err(Wrong::Foreign(_))));

        let third = ledger.next_write();
        ledger.acknowledge(third);
        assert!(look(&ledger, 0, &after).is_err());
        assert_eq!(
            look(&ledger, 0, &ledger.bytes(third)),
            Ok(Found { blocks: 1, rewritten: 1, unanswered: [0; 3] })
        );
    }

    #[test]
    fn no_two_writes_of_one_block_are_under_way() {
        let mut ledger = Ledger::new(5, 8);
        let mut writes: Vec<_> = (0..8).map(|_| ledger.next_write()).collect();
        writes.sort_unstable();
        let blocks: Vec<_> = writes.iter().map(|write| write.block).collect();
        assert_eq!(blocks, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
