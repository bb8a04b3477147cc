//! Where a resource would rather be, and how it gets back there by itself.
//!
//! The primary that is not the preferred node waits until nothing has happened for long: in sync, by a
//! lease, with an arbiter that answers both and lists both, and with no automatic promotion that counts
//! against `flap_limit`. So a node that fails again and again is moved back to no oftener than a
//! failover is allowed, and the two never use up the budget in turns. Then an ordinary switchover is
//! ordered. Whether it succeeds or not, the wait begins anew with the order.
//!
//! Nothing safe hangs on these times, so they are compared with the clock of the replica.

use std::time::Duration;

use super::flapping::FlapLimit;
use super::{Controller, Facts, Standing};
use crate::promotion::arbiter::{ArbiterRecord, Eligible};
use crate::units::{Instant, ServeMode, Side};

/// How a resource moves by itself, beside a failover.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Moving {
    /// The node that should serve it while both are well.
    pub prefer: Option<Side>,
    /// It moves back there after so long without an event; `None`: an operator moves it.
    pub failback: Option<Duration>,
    /// How often it may be promoted without an operator; `None`: as often as it takes.
    pub flap_limit: Option<FlapLimit>,
}

/// Since when nothing has happened.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct Quiet {
    since: Option<Instant>,
}

impl Controller {
    /// Notes whether anything happens that a move back waits for.
    pub(super) fn note_quiet(&mut self, facts: &Facts<'_>) {
        let is_quiet = self.is_away_from_home() && self.is_quiet(facts);
        self.quiet.since = if is_quiet { self.quiet.since.or(Some(self.now)) } else { None };
    }

    /// Whether the role is to move to the preferred node now.
    pub(super) fn is_failback_due(&self) -> bool {
        let waits = self.settings.moving.failback;
        let since = self.quiet.since;
        waits.zip(since).is_some_and(|(waits, since)| self.now.since(since) >= waits)
    }

    /// It was ordered: the next one is not before the same time is over again.
    pub(super) fn on_failback(&mut self) {
        self.quiet.since = None;
    }

    /// How long nothing may happen still before the role moves back; `None` if it will not by itself.
    pub fn failback_in(&self) -> Option<Duration> {
        let waits = self.settings.moving.failback?;
        Some(waits.saturating_sub(self.now.since(self.quiet.since?)))
    }

    /// Whether the arbiter answers the peer, which learns from it that it owns the resource.
    pub fn peer_hears_arbiter(&self) -> bool {
        self.peer_hears_arbiter
    }

    /// Whether something moves the role back from here, sooner or later.
    fn is_away_from_home(&self) -> bool {
        let moving = self.settings.moving;
        moving.failback.is_some() && moving.prefer == Some(self.settings.side.other())
    }

    fn is_quiet(&self, facts: &Facts<'_>) -> bool {
        let side = self.settings.side;
        let is_paired = |known: &ArbiterRecord| {
            known.owner == side && known.eligible == Eligible::Both && !known.stopped
        };
        facts.is_primary
            && facts.leaving.is_none()
            && !facts.is_stopping
            && facts.peer == Standing::InSync
            && facts.record.serve_mode == ServeMode::Paired
            && self.known().is_some_and(is_paired)
            && self.leases.is_held()
            && !self.is_silent
            && self.arbiter_obstacle().is_none()
            && self.peer_hears_arbiter
            && self.flapping.is_untouched()
    }
}
