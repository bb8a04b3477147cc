//! The pledge: while the arbiter is away for long, the secondary promises not to ask for promotion, so
//! that a primary that loses it then goes on.
//!
//! It is a promise between the two nodes (`replica/pledge.rs`). Here is when either of them wants it:
//! if neither has reached the arbiter for `arbiter_grace`, which each says of itself only.

use super::Controller;
use super::effect::{Act, Bound, ControllerEffect, ControllerTimer};
use super::facts::Facts;
use crate::units::ServeMode;

impl Controller {
    /// Whether this node has missed the arbiter for so long that the pledge is wanted of the secondary.
    pub fn misses_arbiter(&self) -> bool {
        self.misses_arbiter
    }

    /// Whether this node has pledged not to ask for promotion. An owner's flag says the opposite: that its
    /// peer has.
    pub(super) fn is_bound_by_pledge(&self, facts: &Facts<'_>) -> bool {
        facts.record.hold && facts.record.owner != Some(self.settings.side)
    }

    pub(super) fn count_grace(&mut self, effects: &mut Vec<ControllerEffect>) {
        let Some(grace) = self.settings.arbiter_grace else { return };
        if self.arbiter_obstacle().is_none() {
            (self.grace_runs, self.misses_arbiter) = (false, false);
        } else if !self.grace_runs {
            self.grace_runs = true;
            self.set_timer(ControllerTimer::Grace, grace, Bound::Late, effects);
        }
    }

    /// A primary that restarts while the arbiter is away, and whose peer pledged not to ask for
    /// promotion, goes on: nobody else can have been promoted but by force.
    pub(super) fn pledged_act(&self, facts: &Facts<'_>) -> Option<Act> {
        let is_alone_or_paired =
            matches!(facts.record.serve_mode, ServeMode::Paired | ServeMode::Solo);
        let goes_on = facts.record.hold
            && is_alone_or_paired
            && self.misses_arbiter
            && self.may_resume(facts)
            && self.gave_way.is_none_or(|epoch| facts.record.epoch > epoch)
            && !facts.record.stopped;
        goes_on.then_some(Act::Resume)
    }
}
