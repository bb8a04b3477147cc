//! A primary that cannot serve, and whose peer can: it gives way without waiting for its lease.
//!
//! Its run says that it serves nothing more, as its supervisor would if it were dead. That stays true
//! for ever, so the same run serves again only at an epoch that it asked for afterwards.

use super::Controller;
use super::facts::{Facts, Standing};
use crate::promotion::arbiter::Eligible;
use crate::units::{Epoch, Instant, ServeMode};

impl Controller {
    /// Whether the peer has everything and is promoted without an operator once this run says that it
    /// serves nothing more.
    pub fn can_give_way(&self, facts: &Facts<'_>) -> bool {
        let is_mine = self.known.as_ref().is_some_and(|known| {
            known.owner == self.settings.side && known.eligible == Eligible::Both && !known.stopped
        });
        let is_paired = facts.record.serve_mode == ServeMode::Paired
            && facts.peer == Standing::InSync
            && facts.is_primary
            && facts.leaving.is_none();
        let may_ask = self.settings.promotes
            && self.arbiter_obstacle().is_none()
            && self.peer_hears_arbiter()
            && self.flap_pause().is_none();
        is_mine && is_paired && may_ask && !facts.record.hold
    }

    /// This run serves nothing more at any epoch that it or the arbiter has made so far.
    pub fn give_way(&mut self, now: Instant, facts: &Facts<'_>) {
        self.gave_way_at = now;
        let known = self.known.as_ref().map_or(Epoch(0), |known| known.epoch);
        let newest = known.max(facts.record.epoch);
        self.gave_way = Some(self.gave_way.map_or(newest, |epoch| epoch.max(newest)));
        self.leases.give_up();
        (self.solo, self.is_kept) = (None, false);
    }

    /// Up to which epoch this run serves nothing more, if it said so; the caller sees to it that
    /// nothing is served.
    pub fn gave_way(&self) -> Option<Epoch> {
        self.gave_way
    }

    /// Whether this run has to ask for a new epoch before it serves.
    pub(super) fn must_serve_anew(&self) -> bool {
        let known = self.known.as_ref().map_or(Epoch(0), |known| known.epoch);
        self.gave_way.is_some_and(|epoch| known <= epoch)
    }
}
