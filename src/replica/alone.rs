//! A pair without an arbiter that promotes by itself: what `promotion::alone` orders, carried out.
//! With an arbiter, and with `auto = "off"`, nothing here happens.

use super::promote::Promoting;
use super::role::AckNeed;
use super::session::Standing;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion::alone::{Alone, AloneBy, Seen};
use crate::promotion::controller::ControllerInput;
use crate::promotion::{self, Permit};
use crate::units::{Epoch, ServeMode};

impl<M: MapMemory> Replica<M> {
    /// From here on this run looks after who serves.
    pub(super) fn start_alone(&mut self) {
        self.alone = self.settings.alone.clone().map(|settings| Box::new(Alone::new(settings)));
    }

    pub(super) fn on_alone(&mut self, input: &ControllerInput, effects: &mut Effects) {
        let Some(mut alone) = self.alone.take() else { return };
        let mut orders = Vec::new();
        alone.step(self.now, input, &self.seen_alone(), &mut orders);
        self.alone = Some(alone);
        self.carry_out(orders, effects);
    }

    /// Lets it see what has changed.
    pub(super) fn pump_alone(&mut self, effects: &mut Effects) {
        let Some(mut alone) = self.alone.take() else { return };
        let mut orders = Vec::new();
        alone.settle(self.now, &self.seen_alone(), &mut orders);
        self.alone = Some(alone);
        self.carry_out(orders, effects);
    }

    fn seen_alone(&self) -> Seen<'_> {
        Seen {
            facts: self.facts(),
            holds_writes: self.lacks_permit(),
            link_heard: self.link.up.as_ref().map(|up| up.last_heard),
            agent_waits: self.role.promoting.as_ref().is_some_and(Promoting::waits_for_fence),
        }
    }

    /// Whether this primary holds writes, and nothing that the peer said lets it go on alone.
    fn lacks_permit(&self) -> bool {
        let vetoed = self.role.peer_vetoed.is_some();
        self.ack_need() == AckNeed::Hold
            && self.role.is_primary()
            && self.role.exit.is_none()
            && self.records.stable().serve_mode == ServeMode::Paired
            && self.link.standing() == Standing::Down
            && promotion::solo_permit(self.records.durable(), vetoed).is_none()
    }

    /// The permit of a pair without an arbiter.
    pub(super) fn permit_without_arbiter(&self, vetoed: bool) -> Option<Permit> {
        promotion::solo_permit(self.records.durable(), vetoed)
            .or_else(|| self.alone.as_ref().and_then(|alone| alone.permit()))
    }

    /// Whether what let this node begin to go on alone is void: the peer is heard again.
    pub(super) fn has_lost_permit(&self) -> bool {
        let vetoed = self.role.peer_vetoed.is_some();
        self.alone.is_some() && self.permit_to_go_alone(vetoed).is_none()
    }

    /// The epoch of a primary that goes on alone since the peer is off, or taken for it: above
    /// whatever it shared with the peer.
    pub(super) fn own_epoch(&self) -> Option<Epoch> {
        match self.alone.as_ref()?.permit()? {
            Permit::Fenced | Permit::Pacemaker | Permit::AssumedDead => {
                let record = self.records.stable();
                Some(record.epoch.max(record.promised).next_by(self.settings.side))
            }
            Permit::PeerVeto
            | Permit::PeerNeverPromotes
            | Permit::ArbiterSolo
            | Permit::Pledged
            | Permit::Forced => None,
        }
    }

    /// Whether Pacemaker says who serves: no node promotes itself, and what a resource agent asks for
    /// is carried out where it is safe.
    pub(super) fn is_under_pacemaker(&self) -> bool {
        self.settings.alone.as_ref().is_some_and(|alone| alone.by == AloneBy::Pacemaker)
    }

    /// Whether this node may promote itself without an operator, so that the peer must not count on
    /// the opposite.
    pub(super) fn never_promotes(&self) -> bool {
        self.settings.controller.is_none() && self.settings.alone.is_none()
    }
}
