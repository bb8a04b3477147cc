//! Leases: a bounded right to answer reads, granted by the arbiter or by the peer.
//!
//! The holder counts from when it asked, the grantor from when it granted and longer, so the
//! holder stops first, whatever the delay (the lease lemma of the design).

use std::time::Duration;

use super::Controller;
use super::effect::{Bound, ControllerEffect, ControllerTimer};
use super::facts::{Facts, Standing};
use super::planted::PlantedRule;
use crate::promotion::arbiter::grant_end;
use crate::units::{Epoch, Instance, Instant, Role, ServeMode};

/// What this node holds and has granted.
#[derive(Clone, Debug, Hash)]
pub(super) struct Leases {
    from_arbiter: bool,
    from_peer: bool,
    granted: Option<Granted>,
    hold_down: bool,
}

/// A lease that this node granted.
#[derive(Clone, Copy, Debug, Hash)]
struct Granted {
    instance: Instance,
    epoch: Epoch,
}

impl Leases {
    pub(super) fn new(granted_before: bool) -> Self {
        Self { from_arbiter: false, from_peer: false, granted: None, hold_down: granted_before }
    }

    pub(super) fn is_in_hold_down(&self) -> bool {
        self.hold_down
    }

    /// Whether this node holds a lease.
    pub(super) fn is_held(&self) -> bool {
        self.from_arbiter || self.from_peer
    }

    /// Whether this node granted a lease that may not be over.
    pub(super) fn is_granted(&self) -> bool {
        self.granted.is_some()
    }

    /// That run of the peer serves nothing more up to this epoch; above it may.
    pub(super) fn release(&mut self, instance: Instance, epoch: Epoch) {
        self.granted =
            self.granted.filter(|granted| granted.instance != instance || granted.epoch > epoch);
    }

    /// The peer is in this run now: older ones serve nothing.
    pub(super) fn keep_only(&mut self, instance: Instance) {
        self.granted = self.granted.filter(|granted| granted.instance == instance);
    }

    /// This node serves nothing more: what it holds is of no use.
    pub(super) fn give_up(&mut self) {
        (self.from_arbiter, self.from_peer) = (false, false);
    }

    /// The arbiter may count its lease as over.
    pub(super) fn give_up_arbiters(&mut self) {
        self.from_arbiter = false;
    }

    pub(super) fn end(&mut self, timer: ControllerTimer) {
        match timer {
            ControllerTimer::ArbiterLease => self.from_arbiter = false,
            ControllerTimer::PeerLease => self.from_peer = false,
            ControllerTimer::Grant => self.granted = None,
            ControllerTimer::HoldDown => self.hold_down = false,
            ControllerTimer::Repeat
            | ControllerTimer::Look
            | ControllerTimer::Preference
            | ControllerTimer::Idle
            | ControllerTimer::StopBudget
            | ControllerTimer::Fence
            | ControllerTimer::Silence
            | ControllerTimer::Grace => {}
        }
    }
}

/// The word of a run of the peer, or of its supervisor, that it serves nothing more. It stays true
/// for ever, but says nothing about what that run does at a higher epoch.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Released {
    pub(super) instance: Instance,
    pub(super) epoch: Epoch,
}

impl Released {
    /// Whether it is about that run, which was heard to serve at `served`.
    pub(super) fn holds_of(self, instance: Instance, served: Option<Epoch>) -> bool {
        self.instance == instance && served.is_none_or(|served| served <= self.epoch)
    }
}

impl Controller {
    /// The peer serves nothing more in that run up to this epoch. A release that was sent earlier
    /// may come later, and takes nothing back.
    pub(super) fn on_released(&mut self, instance: Instance, epoch: Epoch) {
        let newest = self.released.filter(|it| it.instance == instance).map(|it| it.epoch);
        let epoch = newest.map_or(epoch, |newest| newest.max(epoch));
        // What was refused because of a lease is asked for again: whoever holds it is dead. The same word
        // comes many times, and counts once.
        if newest != Some(epoch) {
            self.put_off_no_more();
        }
        self.released = Some(Released { instance, epoch });
        self.leases.release(instance, epoch);
    }

    /// Whether reads may be answered: nobody else can have been promoted.
    pub fn may_read(&self, mode: ServeMode) -> bool {
        match mode {
            ServeMode::Solo => true,
            ServeMode::Paired if self.settings.is_planted(PlantedRule::LeaseNotNeeded) => true,
            // As long as the arbiter lists this node alone, no lease is needed.
            ServeMode::Paired | ServeMode::Gated => {
                self.leases.is_held() || self.permit().is_some()
            }
            ServeMode::None | ServeMode::HandingOver => false,
        }
    }

    /// Whether reads may be answered only by a lease.
    pub fn needs_lease(&self, mode: ServeMode) -> bool {
        matches!(mode, ServeMode::Paired | ServeMode::Gated) && self.permit().is_none()
    }

    /// Whether this primary wants the peer to grant it a lease.
    pub fn wants_lease(&self, facts: &Facts<'_>) -> bool {
        facts.is_primary && facts.leaving.is_none()
    }

    pub(super) fn on_lease_asked(
        &mut self,
        instance: Instance,
        epoch: Epoch,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let follows = !facts.is_primary
            && !facts.is_promoting
            && facts.peer.is_session()
            && facts.peer_instance == Some(instance)
            && facts.claim.is_some_and(|claim| claim.role == Role::Primary);
        let is_noted = facts.record.arbitration.lease_ms >= self.settings.lease_ms();
        let is_open = self.candidacy.is_none()
            && !self.is_silent
            && !facts.is_recording
            && !self.is_record_lost(facts);
        let is_late = self.released.is_some_and(|it| it.holds_of(instance, Some(epoch)));
        if follows && is_noted && is_open && !is_late && epoch >= facts.record.promised {
            // It may be promoted, be released, and serve again in the same run.
            self.released = None;
            self.leases.granted = Some(Granted { instance, epoch });
            let after = grant_end(self.settings.lease_ms());
            self.set_timer(ControllerTimer::Grant, after, Bound::Late, effects);
            effects.push(ControllerEffect::GrantLease(instance));
        }
    }

    pub(super) fn on_peer_lease(
        &mut self,
        asked: Instant,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        if self.wants_lease(facts) && facts.peer != Standing::Away {
            let lease_ms = self.settings.lease_ms();
            self.leases.from_peer |=
                self.hold(ControllerTimer::PeerLease, asked, lease_ms, effects);
        }
    }

    pub(super) fn on_arbiter_lease(
        &mut self,
        asked: Instant,
        lease_ms: u32,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        if self.wants_lease(facts) {
            let lease_ms = lease_ms.min(self.settings.lease_ms());
            self.leases.from_arbiter |=
                self.hold(ControllerTimer::ArbiterLease, asked, lease_ms, effects);
        }
    }

    /// Whether a lease that was asked for then holds still. A grant that comes after its own end, to a
    /// node that slept, must not count for a moment; the two clocks are left a hundredth apart.
    fn hold(
        &self,
        timer: ControllerTimer,
        asked: Instant,
        lease_ms: u32,
        effects: &mut Vec<ControllerEffect>,
    ) -> bool {
        let lease = Duration::from_millis(u64::from(lease_ms));
        let is_given_back = self.gave_way.is_some() && asked <= self.gave_way_at;
        if is_given_back || self.now.since(asked) + lease / 100 >= lease {
            return false;
        }
        let (from, after, bound) = (asked, lease, Bound::Early);
        effects.push(ControllerEffect::SetTimer { timer, from, after, bound });
        true
    }
}
