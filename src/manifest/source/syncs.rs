//! Operators that wait until a generation of after their call is applied on the peer.

use super::terms::{Closed, SourceEffect, SyncError};
use crate::units::TreeNumber;

/// Syncs that wait at once.
const SYNCS_MAX: usize = 64;

/// How far one is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// No capture began after it was asked for.
    Asked,
    /// The capture that runs may be the one.
    Capturing,
    /// It waits for this generation.
    Captured(Closed),
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    request: u64,
    freeze: bool,
    step: Step,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Syncs {
    waiting: Vec<Waiting>,
}

impl Syncs {
    /// Takes one up, unless too many wait.
    pub(super) fn ask(&mut self, request: u64, freeze: bool) -> Result<(), SyncError> {
        if self.waiting.len() >= SYNCS_MAX {
            return Err(SyncError::Busy);
        }
        self.waiting.push(Waiting { request, freeze, step: Step::Asked });
        Ok(())
    }

    /// Nobody waits for it any more.
    pub(super) fn give_up(&mut self, request: u64) {
        self.waiting.retain(|it| it.request != request);
    }

    /// Whether a full capture is wanted, and if so whether with hooks.
    pub(super) fn wanted(&self) -> Option<bool> {
        let asked = self.waiting.iter().filter(|it| it.step == Step::Asked);
        asked.map(|it| it.freeze).reduce(|one, other| one | other)
    }

    /// A capture begins as [`Self::wanted`] has it: whoever asked before is content with it.
    pub(super) fn on_begin(&mut self) {
        for it in &mut self.waiting {
            if it.step == Step::Asked {
                it.step = Step::Capturing;
            }
        }
    }

    /// The capture ended, and looked at everything.
    pub(super) fn on_captured(&mut self, newest: Closed) {
        for it in &mut self.waiting {
            if it.step == Step::Capturing {
                it.step = Step::Captured(newest);
            }
        }
    }

    /// The capture made no generation, or did not look at everything.
    pub(super) fn on_failure(&mut self, effects: &mut Vec<SourceEffect>) {
        self.waiting.retain(|it| {
            let stays = it.step != Step::Capturing;
            if !stays {
                effects.push(answer(it.request, Err(SyncError::Failed)));
            }
            stays
        });
    }

    /// The peer's tree is generation `applied`, of which `known` is what is known.
    pub(super) fn on_applied(
        &mut self,
        applied: TreeNumber,
        known: Option<Closed>,
        effects: &mut Vec<SourceEffect>,
    ) {
        self.waiting.retain(|it| match it.step {
            Step::Captured(own) if own.position.number <= applied => {
                effects.push(answer(it.request, Ok(known.unwrap_or(own))));
                false
            }
            Step::Captured(_) | Step::Asked | Step::Capturing => true,
        });
    }

    /// None of them can be done.
    pub(super) fn fail(&mut self, error: SyncError, effects: &mut Vec<SourceEffect>) {
        let all = std::mem::take(&mut self.waiting);
        effects.extend(all.into_iter().map(|it| answer(it.request, Err(error))));
    }
}

pub(super) fn answer(request: u64, result: Result<Closed, SyncError>) -> SourceEffect {
    SourceEffect::AnswerSync { request, result }
}
