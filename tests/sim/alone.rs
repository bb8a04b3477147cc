//! A pair without an arbiter that promotes by itself, and its fence device.
//!
//! The device never lies: when it says that a machine is off, it was off at that moment. It may come
//! back at any time.

use std::time::Duration;

use fastrand::Rng;
use hotpair::promotion::alone::{AloneBy, AloneSettings};
use hotpair::promotion::controller::{ControllerInput, FenceUse};
use hotpair::promotion::fencing::{FenceAnswer, FenceOrder};
use hotpair::replica::Input;
use hotpair::units::Side;

use crate::broken::Checked;
use crate::world::{Event, World, millis};

/// How a pair promotes without an arbiter, and what its fence devices do.
#[derive(Clone, Debug)]
pub(crate) struct AlonePlan {
    pub(crate) by: AloneBy,
    /// Of each node's command.
    pub(crate) fence: [FencePlan; 2],
    /// The bug to be found.
    #[cfg(feature = "planted-bugs")]
    pub(crate) planted: Option<hotpair::promotion::controller::planted::PlantedRule>,
}

/// What a fence device does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FencePlan {
    /// It switches the machine off.
    Works,
    /// It does so after this time.
    WorksAfter(Duration),
    /// It cannot reach it.
    Unreachable,
    /// It works or fails by chance.
    Flaky,
}

impl AlonePlan {
    pub(crate) fn fenced() -> Self {
        Self {
            by: AloneBy::Fence { delay: Duration::from_secs(5) },
            fence: [FencePlan::Works; 2],
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    pub(crate) fn heartbeat_only() -> Self {
        Self { by: AloneBy::Silence { lease: Duration::from_secs(3) }, ..Self::fenced() }
    }

    pub(crate) fn pacemaker() -> Self {
        Self { by: AloneBy::Pacemaker, ..Self::fenced() }
    }

    pub(crate) fn is_pacemaker(&self) -> bool {
        self.by == AloneBy::Pacemaker
    }

    /// Under Pacemaker, whose script may fail.
    pub(crate) fn draw_pacemaker(rng: &mut Rng) -> Self {
        let mut fence = || match rng.u8(..8) {
            0 => FencePlan::Unreachable,
            1..=4 => FencePlan::Flaky,
            _ => FencePlan::Works,
        };
        let fence = [fence(), fence()];
        Self { fence, ..Self::pacemaker() }
    }

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let by = if rng.u8(..4) == 0 {
            AloneBy::Silence { lease: Duration::from_millis(rng.u64(3_000..=5_000)) }
        } else {
            AloneBy::Fence { delay: Duration::from_millis(rng.u64(2_000..=5_000)) }
        };
        let mut fence = || match rng.u8(..8) {
            0 => FencePlan::Unreachable,
            1..=4 => FencePlan::Flaky,
            _ => FencePlan::Works,
        };
        let fence = [fence(), fence()];
        let mut plan = Self::fenced();
        (plan.by, plan.fence) = (by, fence);
        plan
    }

    pub(crate) fn settings(&self, side: Side) -> AloneSettings {
        AloneSettings {
            side,
            by: self.by,
            suspect_after: Duration::from_secs(1),
            #[cfg(feature = "planted-bugs")]
            planted: self.planted,
        }
    }
}

/// What a fence command is for in a seed with an arbiter, and what it does.
pub(crate) fn draw_fence(rng: &mut Rng) -> Option<(FenceUse, FencePlan)> {
    let fence = *rng.choice(&[FencePlan::Works, FencePlan::Flaky, FencePlan::Unreachable]).unwrap();
    match rng.u8(..6) {
        0 => Some((FenceUse::Required, fence)),
        1 => Some((FenceUse::BestEffort, fence)),
        _ => None,
    }
}

impl World {
    /// A core runs its fence command.
    pub(crate) fn order_fence(&mut self, at: usize, order: FenceOrder) {
        let device = self.fence_plan(at);
        if self.has_cluster() {
            return self.order_script(at, device, order);
        }
        let rng = &mut self.witness.rng;
        let answer = match device {
            FencePlan::Works | FencePlan::WorksAfter(_) => {
                FenceAnswer::Exit(*rng.choice(&[0, 7]).unwrap())
            }
            FencePlan::Unreachable => FenceAnswer::Exit(5),
            FencePlan::Flaky => *rng
                .choice(&[
                    FenceAnswer::Exit(0),
                    FenceAnswer::Exit(7),
                    FenceAnswer::Exit(3),
                    FenceAnswer::Exit(5),
                    FenceAnswer::Exit(6),
                    FenceAnswer::TookTooLong,
                    FenceAnswer::Broken,
                ])
                .unwrap(),
        };
        let delay = match device {
            FencePlan::WorksAfter(span) => crate::world::nanos(span),
            _ => rng.u64(millis(1)..millis(3_000)),
        };
        let life = self.nodes[at].life;
        self.fence_runs[at] = order.run;
        self.after(delay, Event::FenceCuts { node: at, life, run: order.run, answer });
    }

    fn fence_plan(&self, at: usize) -> FencePlan {
        let by_witness = self.plan.witness.as_ref().and_then(|plan| plan.fence.map(|(_, it)| it));
        let alone = self.plan.alone.as_ref().map(|plan| plan.fence[at]);
        by_witness.or(alone).unwrap_or(FencePlan::Unreachable)
    }

    /// The device does what it does. The process that asked for it may be gone by now.
    pub(crate) fn on_fence_cuts(
        &mut self,
        (at, life, run): (usize, u64, u64),
        mut answer: FenceAnswer,
    ) -> Checked {
        if self.nodes[at].life == life && self.fence_runs[at] != run {
            return Ok(()); // it was killed for a newer one
        }
        // The last complete copy is not thrown away by a test.
        let is_only_copy = self.operator.broken_disk == Some(at);
        if answer.is_off() && is_only_copy {
            answer = FenceAnswer::Exit(5);
        }
        // A device that fails may have switched the machine off all the same.
        let cuts = answer.is_off()
            || !is_only_copy && answer == FenceAnswer::TookTooLong && self.witness.rng.bool();
        if cuts {
            self.marks.add("fenced");
            self.trace.note(&[self.now, 95], || format!("{} {at}: fences", self.now));
            let is_power = self.witness.rng.u8(..4) == 0;
            self.kill(1 - at, is_power)?;
        }
        let delay = self.witness.rng.u64(millis(1)..millis(2_000));
        self.after(delay, Event::FenceAnswers { node: at, life, run, answer });
        Ok(())
    }

    pub(crate) fn on_fence_answers(&mut self, at: usize, run: u64, answer: FenceAnswer) -> Checked {
        if self.fence_runs[at] != run {
            return Ok(());
        }
        self.feed(at, Input::Controller(ControllerInput::Fence { run, answer }))
    }

    /// A node takes a silent peer for dead. If that lives there are two primaries, as an operator chose;
    /// nothing else is excused, and nothing at all if it is dead.
    pub(crate) fn note_assumed_dead(&mut self, at: usize) {
        if self.nodes[1 - at].process.is_some() {
            self.marks.add("assumed dead, and alive");
            self.ghost.is_split = true;
            self.operator.split_is_explained = true;
        } else {
            self.marks.add("assumed dead");
        }
    }
}
