//! One delta on its way from the first record to a plan that can be committed.

use std::collections::BTreeSet;

use super::terms::{Attempt, TargetEffect};
use crate::manifest::limits::WANTED_CHUNKS_MAX;
use crate::units::{ObjectId, TreeNumber, TreePosition};
use crate::wire::{ChunkPlace, TREE_CHUNKS_MAX, TreeNote, WantedChunks};

/// How far it is.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Records come.
    Receiving,
    /// All have come and are being checked.
    Checking,
    /// Chunks are looked for, and come.
    Staging(Wanted),
    /// All chunks are there; the apply of the generation before may have to end first.
    Whole,
    /// It is being planned.
    Preparing,
    /// It can be committed.
    Prepared,
}

/// A delta that was begun.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) attempt: Attempt,
    /// What it starts from; `None`: it describes the whole tree.
    pub(super) base: Option<TreePosition>,
    pub(super) number: TreeNumber,
    /// Where it leads, once all records have come.
    pub(super) to: Option<TreePosition>,
    pub(super) step: Step,
}

impl Stage {
    /// Whether nothing more of it has to come from the peer.
    pub(super) fn is_whole(&self) -> bool {
        match self.step {
            Step::Whole | Step::Preparing | Step::Prepared => true,
            Step::Receiving | Step::Checking | Step::Staging(_) => false,
        }
    }

    /// Where it leads, if it can be committed.
    pub(super) fn prepared(&self) -> Option<TreePosition> {
        self.to.filter(|_| matches!(self.step, Step::Prepared))
    }
}

/// Chunks that are wanted from the peer.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Those that have not come; at most [`WANTED_CHUNKS_MAX`].
    missing: BTreeSet<(ObjectId, u64)>,
    /// A driver looks for more.
    is_asked: bool,
    /// Nothing more will be wanted.
    is_all: bool,
}

impl Wanted {
    /// Asks for more once half of the credit is free, so that the peer never waits for a note.
    pub(super) fn ask(&mut self, attempt: Attempt, effects: &mut Vec<TargetEffect>) {
        let missing = u64::try_from(self.missing.len()).unwrap_or(u64::MAX);
        if self.is_asked || self.is_all || missing > WANTED_CHUNKS_MAX / 2 {
            return;
        }
        self.is_asked = true;
        let chunks_max = WANTED_CHUNKS_MAX - missing;
        effects.push(TargetEffect::StageMore { attempt, chunks_max });
    }

    /// What a driver found to be missing; says it to the peer if there is one. Whether that is no more than
    /// it was asked for.
    pub(super) fn on_found(
        &mut self,
        chunks: &[WantedChunks],
        is_all: bool,
        effects: &mut Vec<TargetEffect>,
    ) -> bool {
        self.is_asked = false;
        self.is_all = is_all;
        for run in chunks {
            let room = WANTED_CHUNKS_MAX.saturating_sub(self.missing.len() as u64);
            if u64::from(run.count) > room {
                return false;
            }
            let end = run.first.saturating_add(u64::from(run.count));
            self.missing.extend((run.first..end).map(|chunk| (run.object, chunk)));
        }
        for part in chunks.chunks(TREE_CHUNKS_MAX) {
            effects.push(TargetEffect::Say(TreeNote::Want { chunks: part.to_vec() }));
        }
        true
    }

    /// Whether something that was wanted is still to come.
    pub(super) fn is_missing_some(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Chunks came; whether all of them were wanted.
    pub(super) fn on_chunks(&mut self, table: &[ChunkPlace]) -> bool {
        table.iter().all(|place| self.missing.remove(&(place.object, place.chunk)))
    }
}
