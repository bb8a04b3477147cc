//! "Veto yourself" by datagram: a primary whose connection is dead asks its peer on the paths of
//! heartbeats, and goes on alone by the peer's veto.
//!
//! What makes an answer safe is its number. The peer lifts its veto only after it has heard a Hello
//! of this node, which is sent only on a new connection. So every ask ends with the next connection,
//! and the one after that has another number: an answer that was given before the veto was lifted
//! answers nothing that is asked any more. The number is of one run; the driver passes on only what is
//! for this run. A veto is answered when it is stable, and not before.

use super::effect::Effect;
use super::records::Change;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::units::{Epoch, Instance, ServeMode, VetoReason};

/// A primary asks its peer to veto itself.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct OutdateAsk {
    /// Which ask of this run, from 1.
    pub number: u64,
    /// The epoch of the primary.
    pub epoch: Epoch,
}

/// Its peer has done so: the veto is stable.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct OutdateAnswer {
    /// The run that asked.
    pub to: Instance,
    /// What it asked.
    pub ask: OutdateAsk,
    /// The epoch below which the peer follows nobody.
    pub promised: Epoch,
}

/// What the driver of datagrams is to do.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OutdateOrder {
    /// Ask until told otherwise; `None`: no more.
    Ask(Option<OutdateAsk>),
    /// Answer once. A peer that did not hear it asks again.
    Answer(OutdateAnswer),
}

/// What came by datagram, sealed by the peer and for this run.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum OutdateNews {
    /// That run of the peer asks.
    Asked {
        /// The run.
        by: Instance,
        /// What.
        ask: OutdateAsk,
    },
    /// The peer answered this run.
    Answered {
        /// What it answers.
        ask: OutdateAsk,
        /// The epoch below which the peer follows nobody.
        promised: Epoch,
    },
}

/// Asks of this node, and of its peer.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Outdating {
    /// Asks of this run so far.
    count: u64,
    asking: Option<OutdateAsk>,
    /// To be answered when the veto is stable.
    asked: Option<(Instance, OutdateAsk)>,
}

impl<M: MapMemory> Replica<M> {
    pub(super) fn on_outdate_news(&mut self, news: OutdateNews, effects: &mut Effects) {
        match news {
            OutdateNews::Asked { by, ask } => self.on_outdate_asked(by, ask),
            OutdateNews::Answered { ask, promised } => {
                let record = self.records.stable();
                // T27: a peer that promised to follow only a later primary speaks of that one.
                let counts = self.outdating.asking == Some(ask)
                    && self.wants_outdate()
                    && ask.epoch == record.epoch
                    && promised <= record.epoch;
                if counts {
                    self.role.peer_vetoed = Some(ask.epoch);
                    self.on_peer_vetoed(effects);
                }
            }
        }
    }

    fn on_outdate_asked(&mut self, by: Instance, ask: OutdateAsk) {
        if !self.may_be_outdated(ask.epoch) {
            return;
        }
        let is_under_way = self.outdating.asked.replace((by, ask)).is_some();
        if self.records.stable().veto.is_none() && !is_under_way {
            let (reason, epoch) = (VetoReason::Evicted, ask.epoch);
            self.records.change(Change::Veto { reason, epoch, is_outdated: true });
        }
    }

    /// T10, as on the connection. A node that has one is asked there; what comes here is late.
    fn may_be_outdated(&self, epoch: Epoch) -> bool {
        let record = self.records.stable();
        let is_bound = self.role.is_primary()
            || self.role.promoting.is_some()
            || self.role.take_over.is_some()
            || self.role.exit.is_some();
        self.background.is_started()
            && self.link.up.is_none()
            && !is_bound
            && !record.split
            && self.may_veto()
            && !self.is_over(epoch, record.promised)
            && !self.records.has_failed()
    }

    /// Asks, stops asking, and answers.
    pub(super) fn pump_outdate(&mut self, effects: &mut Effects) {
        if !self.settings.asks_by_datagram {
            return;
        }
        let epoch = self.records.stable().epoch;
        let is_wanted = self.wants_outdate();
        let goes_on = is_wanted && self.outdating.asking.is_some_and(|ask| ask.epoch == epoch);
        if !goes_on && (is_wanted || self.outdating.asking.is_some()) {
            self.outdating.asking = is_wanted.then(|| {
                self.outdating.count += 1;
                OutdateAsk { number: self.outdating.count, epoch }
            });
            effects.push(Effect::Outdate(OutdateOrder::Ask(self.outdating.asking)));
        }
        if let Some((to, ask)) = self.outdating.asked {
            let record = self.records.stable();
            if !self.may_be_outdated(ask.epoch) {
                self.outdating.asked = None;
            } else if self.records.is_idle() && record.veto.is_some() {
                self.outdating.asked = None;
                let promised = record.promised;
                let answer = OutdateAnswer { to, ask, promised };
                effects.push(Effect::Outdate(OutdateOrder::Answer(answer)));
            }
        }
    }

    /// A primary that holds writes since its peer is gone, and has no permit to go on alone.
    fn wants_outdate(&self) -> bool {
        self.role.is_primary()
            && self.records.stable().serve_mode == ServeMode::Paired
            && self.link.up.is_none()
            && !self.role.is_changing()
            && self.role.exit.is_none()
            && !self.desk.is_stopping()
            && !self.records.has_failed()
            && self.permit_to_go_alone(self.role.peer_vetoed.is_some()).is_none()
    }
}
