//! The winner fences the old owner: after the arbiter's word, so that two nodes that miss each other
//! never fence each other.
//!
//! Where it is required nothing is served before the command has confirmed that the old owner is off,
//! or before that is back and says itself that it serves nothing. Else it is tried once, and a success
//! ends the time that the services of the old owner have to stop.

use std::time::Duration;

use super::Controller;
use super::candidate::Stage;
use super::effect::{Bound, ControllerEffect, ControllerTimer, Obstacle};
use super::facts::{Facts, Standing};
use crate::promotion::fencing::{FenceAction, FenceAnswer, FenceOrder, FenceStep};
use crate::units::Role;

/// What the fence command is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FenceUse {
    /// Nothing is served before it has confirmed.
    Required,
    /// Its success makes a promotion faster.
    BestEffort,
}

impl Controller {
    /// A promotion was granted. `is_released` says that the old owner is known to serve nothing more,
    /// and `was_stopped` that an operator had it drained before.
    pub(super) fn begin_fencing(
        &mut self,
        is_released: bool,
        was_stopped: bool,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        self.fencing.stop();
        self.must_fence = false;
        // The record of this node says who served last also if an answer of the arbiter was lost.
        let was_peers = facts.record.owner == Some(self.settings.side.other());
        if !was_peers || was_stopped || is_harmless(facts) {
            return;
        }
        match self.settings.fence {
            None => return,
            Some(FenceUse::BestEffort) if is_released => return,
            Some(FenceUse::BestEffort) => {}
            Some(FenceUse::Required) => self.must_fence = true,
        }
        let step = self.fencing.begin(Duration::ZERO);
        self.take_fence_step(step, facts, effects);
    }

    /// Ends what is not needed any more: the old owner is back and serves nothing, or the promotion is
    /// given up.
    pub(super) fn settle_fencing(&mut self, facts: &Facts<'_>) {
        let is_granted = self.candidacy.as_ref().is_some_and(|candidacy| {
            candidacy.force.is_none() && matches!(candidacy.stage, Stage::Granted(_))
        });
        if is_harmless(facts) || !is_granted {
            self.must_fence = false;
            self.fencing.stop();
        }
    }

    /// Whether the old owner is known to be off, or need not be.
    pub(super) fn is_fenced(&self) -> bool {
        !self.must_fence || self.fencing.confirmed().is_some()
    }

    /// What the fence command answered that keeps this node from serving.
    pub fn fence_obstacle(&self) -> Option<Obstacle> {
        if self.is_fenced() {
            return None;
        }
        Some(self.fencing.failed().map_or(Obstacle::Fencing, Obstacle::NotFenced))
    }

    pub(super) fn on_fence_timer(
        &mut self,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let step = self.fencing.on_timer();
        self.take_fence_step(step, facts, effects);
    }

    pub(super) fn on_fence_answer(
        &mut self,
        run: u64,
        answer: FenceAnswer,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        match self.fencing.on_answer(run, answer, FenceAnswer::is_off) {
            None => {}
            Some(Ok(())) => {
                self.stops_there = false;
                let reason =
                    format!("the old primary is replaced; the fence command ended with {answer}");
                effects.push(ControllerEffect::Event { kind: "fenced", reason });
            }
            Some(Err(step)) => {
                let goes_on = if self.must_fence {
                    "nobody serves before it confirms, and it is run again"
                } else {
                    "what runs beside the old primary has its time to stop"
                };
                let reason = format!("the fence command ended with {answer}; {goes_on}");
                effects.push(ControllerEffect::Event { kind: "fence-failed", reason });
                if self.must_fence {
                    self.take_fence_step(Some(step), facts, effects);
                    // The promotion goes on without whoever waits for it.
                    let request = self.candidacy.as_mut().and_then(|it| it.request.take());
                    Self::tell_operator(request, Err(Obstacle::NotFenced(answer)), effects);
                } else {
                    self.fencing.stop();
                }
            }
        }
    }

    fn take_fence_step(
        &self,
        step: Option<FenceStep>,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        match step {
            None => {}
            Some(FenceStep::Wait(after)) => {
                self.set_timer(ControllerTimer::Fence, after, Bound::Late, effects);
            }
            Some(FenceStep::Run(run)) => {
                let reason = "the arbiter made this node owner: the fence command runs".to_owned();
                effects.push(ControllerEffect::Event { kind: "fencing", reason });
                let epoch = self.known().map_or(facts.record.epoch, |known| known.epoch);
                let action = FenceAction::Fence;
                effects.push(ControllerEffect::Fence(FenceOrder { action, run, epoch }));
            }
        }
    }
}

/// Whether the old owner is connected and says that it serves nothing.
fn is_harmless(facts: &Facts<'_>) -> bool {
    facts.peer != Standing::Away && facts.claim.is_some_and(|claim| claim.role == Role::Secondary)
}
