//! A primary that is told to stop lets its peer go on first (T34 of the design).
//!
//! Where `auto` promotes, the peer would be promoted anyway once this process is gone. A switchover
//! before that costs clients less: what they asked is answered, services stop in order, and nobody has to
//! find out that this node is dead. It is tried for as long as a lease, and no longer: by then the
//! peer could have been promoted after a crash. Then the daemon stops as it would without a peer,
//! and its supervisor's word lets the other node take over.

use std::time::Duration;

use super::exit::{Exit, ExitWhy};
use super::session::Standing;
use super::{Effects, Replica};
use crate::metadata::MapMemory;

impl<M: MapMemory> Replica<M> {
    /// The end of a primary whose daemon stops: by a switchover if the peer can take over.
    pub(super) fn begin_last_exit(&mut self, effects: &mut Effects) {
        let can_hand_over = self.succession_max().is_some()
            && self.is_in_sync()
            && self.controller.as_ref().is_none_or(|it| it.peer_hears_arbiter())
            && self.why_not_asked(ExitWhy::Switchover).is_none();
        let why = if can_hand_over { ExitWhy::Switchover } else { ExitWhy::Stop };
        self.begin_exit(why, None, effects);
    }

    /// Whether a switchover that an operator asked for goes on although the daemon was told to stop: it
    /// is what a stop would begin with.
    pub(super) fn keeps_switchover_for_stop(&mut self) -> bool {
        let exit = self.role.exit.as_ref();
        let exit = exit.filter(|exit| exit.is_switchover() && !exit.is_given_up());
        let Some(exit) = exit.filter(|_| self.succession_max().is_some()) else { return false };
        if exit.is_before_drain() {
            return self.is_in_sync();
        }
        self.bound_succession();
        true
    }

    /// From here on no client is served: the peer has so long to take over.
    pub(super) fn bound_succession(&mut self) {
        let is_it = self.desk.is_stopping()
            && self.role.exit.as_ref().is_some_and(Exit::is_switchover)
            && self.desk.succession_ends.is_none();
        if let Some(max) = self.succession_max().filter(|_| is_it) {
            self.desk.succession_ends = Some(self.now.plus(max));
        }
    }

    /// How long the peer may take: a lease, or as long as an I/O where there are no leases. `None`: the
    /// peer is not promoted without an operator.
    fn succession_max(&self) -> Option<Duration> {
        match (&self.settings.controller, &self.settings.alone) {
            (Some(controller), _) => controller.promotes.then_some(controller.lease),
            (None, Some(_)) if self.is_under_pacemaker() => None,
            (None, Some(_)) => Some(self.settings.io_timeout),
            (None, None) => None,
        }
    }

    /// Whether that time is over.
    pub(super) fn is_succession_late(&self) -> bool {
        self.desk.succession_ends.is_some_and(|end| self.now >= end)
    }

    /// The peer did not take over in time. What was asked of the arbiter may be granted later: its record
    /// says so at the next start, and tells the peer at once.
    pub(super) fn give_up_succession(&mut self, effects: &mut Effects) {
        if self.role.exit.as_ref().is_some_and(Exit::is_switchover) && !self.is_exit_recording() {
            self.abort_exit("the peer did not take over in time", effects);
        }
    }

    /// The record that gives the role away is on its way: it is waited for, as at any stop.
    fn is_exit_recording(&self) -> bool {
        self.role.is_primary() && self.role.exit.as_ref().is_some_and(Exit::is_recording)
    }

    /// A switchover that a stop began with cannot be had: the stop goes on without it, and nobody is served
    /// again for a moment. Returns whether that is so.
    pub(super) fn goes_on_without_successor(&mut self, why: &str, effects: &mut Effects) -> bool {
        if !self.desk.is_stopping() || !self.role.is_primary() {
            return false;
        }
        let now = self.now;
        let Some(askers) = self.role.exit.as_mut().and_then(|exit| exit.turn_into_stop(now)) else {
            return false;
        };
        let peer = &self.settings.peer;
        self.event(
            "stop-without-switchover",
            format!("{peer} is not made primary before this daemon stops: {why}"),
        );
        for asker in askers {
            self.answer_refused(asker, why, effects);
        }
        self.writes.recheck();
        true
    }

    /// Whether this node, which has handed its role over, still has to tell the new primary that it
    /// leaves, as each secondary does that stops: then that one waits for nothing.
    pub(super) fn leaves_successor(&mut self) -> bool {
        if self.desk.succession_ends.is_none() || self.is_succession_late() {
            return false;
        }
        match self.link.standing() {
            Standing::Meeting => true,
            Standing::Running { .. } if self.link.peer_is_primary() && self.may_veto() => {
                self.desk.succession_ends = None;
                self.veto_before_leaving();
                true
            }
            Standing::Running { .. } | Standing::Down | Standing::Apart => false,
        }
    }
}
