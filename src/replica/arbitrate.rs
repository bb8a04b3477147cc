//! The arbiter's word carried out: what `promotion::controller` orders, in the order that safety
//! needs. A resource without an arbiter has no controller: `alone.rs` is for it.

use std::time::Duration;

use super::effect::Effect;
use super::exit::ExitWhy;
use super::records::Change;
use super::session::{SessionPart, Standing};
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion::arbiter::Eligible;
use crate::promotion::controller::planted::PlantedRule;
use crate::promotion::controller::{
    self, Act, Controller, ControllerEffect, ControllerInput, Facts, Leaving, RecordStep,
};
use crate::promotion::services::ServiceReason;
use crate::promotion::{PromoteHow, forced_permit};
use crate::units::{ArbiterId, DiskState, Instance, ServeMode, VetoReason};

/// Kind of the event that says that another store of the arbiter is asked from here on.
pub const ARBITER_CHANGED: &str = "arbiter-changed";

impl<M: MapMemory> Replica<M> {
    /// The controller's first step, once the record says that this run began.
    pub(super) fn start_controller(&mut self, effects: &mut Effects) {
        let Some(settings) = self.settings.controller.clone() else { return self.start_alone() };
        let mut controller = Controller::new(settings, self.start.instance, &self.facts());
        let mut orders = Vec::new();
        controller.start(self.now, &self.facts(), &mut orders);
        self.controller = Some(Box::new(controller));
        self.carry_out(orders, effects);
    }

    pub(super) fn on_controller(&mut self, input: ControllerInput, effects: &mut Effects) {
        let Some(mut controller) = self.controller.take() else {
            return self.on_alone(&input, effects);
        };
        let mut orders = Vec::new();
        let was_released = controller.is_released();
        let was_flapping = controller.flap_pause().is_some();
        controller.step(self.now, input, &self.facts(), &mut orders);
        if controller.is_released() && !was_released {
            let peer = self.settings.peer.clone();
            self.event("peer-dead", format!("{peer} says: its last run serves nothing more"));
        }
        self.controller = Some(controller);
        self.tell_flapping(was_flapping);
        self.carry_out(orders, effects);
    }

    /// Lets the controller see what has changed. What it orders changes the facts again.
    pub(super) fn pump_controller(&mut self, effects: &mut Effects) {
        let Some(mut controller) = self.controller.take() else { return self.pump_alone(effects) };
        let mut orders = Vec::new();
        let was_flapping = controller.flap_pause().is_some();
        controller.settle(self.now, &self.facts(), &mut orders);
        let may_read = controller.may_read(self.records.stable().serve_mode);
        self.controller = Some(controller);
        self.tell_flapping(was_flapping);
        if may_read {
            self.release_reads(effects);
        }
        self.carry_out(orders, effects);
    }

    /// Whether reads may be answered now.
    pub fn may_answer_reads(&self) -> bool {
        let mode = self.records.stable().serve_mode;
        self.controller.as_ref().is_none_or(|controller| controller.may_read(mode))
    }

    /// Whether this node may promise the peer not to be promoted: not while it asks for a promotion
    /// itself, which could be granted later, and not if it does not know what it promised before.
    pub(super) fn may_veto(&self) -> bool {
        let is_bound = self
            .controller
            .as_ref()
            .is_some_and(|it| it.is_candidate() || it.is_record_lost(&self.facts()));
        if self.has_planted_rule(PlantedRule::VetoWhileAsking) {
            return !is_bound && !self.records.brings_role();
        }
        !is_bound
            && self.records.stable().arbitration.asked.is_none()
            && !self.records.brings_role()
    }

    /// Whether this node, which is about to resume, was alone by a word that it does not have any more: the
    /// arbiter lists the peer, as far as it is known, and the peer is not known to be bound. Then it needs
    /// the peer until it is permitted anew.
    pub(super) fn goes_alone_by_old_word(&self) -> bool {
        let Some(controller) = &self.controller else { return false };
        let record = self.records.stable();
        let lists_peer = controller.known().is_none_or(|known| known.eligible == Eligible::Both);
        let is_permitted = record.hold || forced_permit(self.records.durable()).is_some();
        record.serve_mode == ServeMode::Solo && lists_peer && !is_permitted
    }

    /// What the controller is shown.
    pub(super) fn facts(&self) -> Facts<'_> {
        let hello = self.link.peer_hello();
        Facts {
            record: self.records.stable(),
            is_recording: !self.records.is_idle(),
            is_primary: self.role.is_primary(),
            is_disk_unfit: self.disk_watch.is_stalled() || self.background.disk_has_failed(),
            is_promoting: self.role.promoting.is_some()
                || self.role.take_over.as_ref().is_some_and(|take| !take.is_ready()),
            peer: self.standing_for_controller(),
            claim: hello.map(super::meet::claim_of),
            said: self.link.up.as_ref().and_then(|up| up.mine.as_ref()).map(|mine| mine.role),
            peer_cannot_serve: hello
                .is_some_and(|hello| matches!(hello.disk, DiskState::Failed | DiskState::Missing))
                || self.peer_lost_its_record(),
            peer_is_ahead: self.peer_is_ahead(),
            peer_instance: hello.and_then(|hello| hello.instances.first().copied()),
            is_stopping: self.desk.is_stopping(),
            leaving: self.asks_arbiter(),
        }
    }

    /// What the arbiter is asked for a primary that leaves.
    pub(super) fn asks_arbiter(&self) -> Option<Leaving> {
        self.role.exit.as_ref().and_then(super::exit::Exit::asks_arbiter)
    }

    /// Whether the peer said so, and nothing has filled it since.
    fn peer_lost_its_record(&self) -> bool {
        let stands_still = match self.link.session() {
            Some(session) => matches!(session.part, SessionPart::Idle),
            None => self.link.standing() == Standing::Apart,
        };
        let veto = self.link.peer_hello().and_then(|hello| hello.veto);
        stands_still && veto.is_some_and(|veto| veto.reason == VetoReason::RecordLost)
    }

    fn standing_for_controller(&self) -> controller::Standing {
        match self.link.standing() {
            Standing::Down => controller::Standing::Away,
            Standing::Meeting => controller::Standing::Meeting,
            Standing::Apart => controller::Standing::Apart,
            Standing::Running { .. } if self.is_in_sync() => controller::Standing::InSync,
            Standing::Running { peer_acknowledges: false } => controller::Standing::Behind,
            Standing::Running { peer_acknowledges: true } => {
                let is_being_filled = self.link.session().is_some_and(|session| {
                    matches!(session.part, SessionPart::Target(_))
                        && session.transfer != crate::units::Transfer::Replay
                });
                if is_being_filled {
                    controller::Standing::Behind
                } else {
                    controller::Standing::Needed
                }
            }
        }
    }

    pub(super) fn carry_out(&mut self, orders: Vec<ControllerEffect>, effects: &mut Effects) {
        for order in orders {
            match order {
                ControllerEffect::Ask(request) => effects.push(Effect::AskArbiter(request)),
                ControllerEffect::SetTimer { timer, from, after, bound } => {
                    effects.push(Effect::SetTimer { timer, from, after, bound });
                }
                ControllerEffect::GrantLease(instance) => {
                    effects.push(Effect::GrantLease(instance));
                }
                ControllerEffect::Record(change) => {
                    self.records.change(Change::Arbiter(change));
                }
                ControllerEffect::Act(act) => self.on_act(act, effects),
                ControllerEffect::Fence(order) => effects.push(Effect::Fence(order)),
                ControllerEffect::Event { kind, reason } => self.event(kind, reason),
                ControllerEffect::Settled { request, result } => {
                    let result = result
                        .map(|won| super::operator::Answer::new(self.tell_of(won)))
                        .map_err(|obstacle| self.explain_obstacle(obstacle));
                    effects.push(Effect::Answer { request, result });
                }
            }
        }
    }

    fn on_act(&mut self, act: Act, effects: &mut Effects) {
        if let Act::Promote(_) | Act::Force { .. } | Act::Resume | Act::TakeOver(_) = act {
            // An earlier handover whose end nobody told.
            self.abort_exit("this node owns the resource again", effects);
        }
        match act {
            Act::Promote(epoch) => {
                let (force, accept_data_loss) = (false, false);
                let how = PromoteHow { force, accept_data_loss, by_pacemaker: false };
                self.begin_granted_promotion(epoch, how);
            }
            Act::Force { epoch, accept_data_loss } => {
                let how = PromoteHow { force: true, accept_data_loss, by_pacemaker: false };
                self.begin_granted_promotion(epoch, how);
            }
            // It comes again once the record says so.
            Act::Resume if self.goes_alone_by_old_word() => self.records.change(Change::Paired),
            Act::Resume => {
                let why = "it was primary, and the arbiter says it owns it";
                self.become_primary(why, ServiceReason::Resumed);
            }
            Act::TakeOver(epoch) => self.take_over_by_arbiter(epoch),
            Act::StepDown(epoch) => {
                self.step_down(epoch, format!("the peer is primary at epoch {epoch}"), effects);
            }
            Act::HandedOver => self.on_handed_over(effects),
            Act::TakenBack => self.on_taken_back(effects),
            Act::Stopped => self.on_stop_granted(),
            Act::FailBack => self.on_failback(effects),
        }
    }

    /// Says that the record names another store of the arbiter than `before`: it is stable by now.
    pub(super) fn tell_arbiter(&mut self, before: ArbiterId) {
        let now = self.records.stable().arbitration.arbiter;
        if now != before {
            let text = format!("the arbiter's store is {:032x} from here on", now.0);
            let was = (before != ArbiterId(0)).then(|| format!("; it was {:032x}", before.0));
            self.event(ARBITER_CHANGED, text + &was.unwrap_or_default());
        }
    }

    /// What was promised or taken back is stable.
    pub(super) fn on_arbiter_recorded(&mut self, step: RecordStep) {
        match step {
            // The peer was told of a promise that is void.
            RecordStep::Follow(_) => self.restart_session(),
            // The peer may be promoted, and what was agreed on rests on nothing.
            RecordStep::Veto(VetoReason::RecordLost) => self.restart_session(),
            RecordStep::Learn
            | RecordStep::Adopt
            | RecordStep::Promise(_)
            | RecordStep::Settle
            | RecordStep::Veto(_)
            | RecordStep::LiftVeto
            | RecordStep::Change(_) => {}
        }
    }

    /// The arbiter's grant of a promotion or a handover names the epoch.
    pub(super) fn has_controller(&self) -> bool {
        self.controller.is_some()
    }

    /// Why the end of the role cannot be asked for: nothing is begun then, and no client disturbed.
    pub(super) fn why_not_asked(&self, why: ExitWhy) -> Option<String> {
        let controller = self.controller.as_ref().filter(|_| self.asks_before(why))?;
        let is_out_of_line = controller.is_out_of_line(&self.facts());
        let behind = is_out_of_line.then_some(controller::Obstacle::ArbiterBehind);
        controller.arbiter_obstacle().or(behind).map(|obstacle| obstacle.to_string())
    }

    /// What keeps the peer from taking over, though it is in sync.
    pub(super) fn why_peer_cannot_follow(&self) -> Option<&'static str> {
        if !self.is_free_of_pledges() {
            return Some("the pledge that the peer gave while the arbiter was away is not lifted");
        }
        let is_deaf = self.controller.as_ref().is_some_and(|it| !it.peer_hears_arbiter());
        is_deaf.then_some(
            "the peer does not hear the arbiter, and would not learn that it owns the resource",
        )
    }

    /// Whether this node would learn from the arbiter that it owns the resource.
    pub(super) fn hears_arbiter_or_has_none(&self) -> bool {
        self.controller.as_ref().is_none_or(|it| it.hears_arbiter())
    }

    /// How long the arbiter may take to answer for the end of a role.
    pub(super) fn patience_with_arbiter(&self) -> Duration {
        self.settings.controller.as_ref().map_or(Duration::ZERO, |settings| 3 * settings.lease)
    }

    /// Whether the end of the role needs the arbiter's word first.
    pub(super) fn asks_before(&self, why: ExitWhy) -> bool {
        self.has_controller()
            && match why {
                ExitWhy::Demote | ExitWhy::Switchover => true,
                ExitWhy::Stop => false,
            }
    }

    /// Whether this node serves by a lease, and not without an end.
    pub fn needs_lease(&self) -> bool {
        let mode = self.records.stable().serve_mode;
        self.controller.as_ref().is_some_and(|controller| controller.needs_lease(mode))
    }

    /// Whether this primary asks the peer for a lease with its heartbeats.
    pub fn wants_lease(&self) -> bool {
        self.controller.as_ref().is_some_and(|controller| controller.wants_lease(&self.facts()))
    }

    /// Whether this node is primary now.
    pub fn is_primary(&self) -> bool {
        self.role.is_primary()
    }

    /// This run of the daemon.
    pub fn instance(&self) -> Instance {
        self.start.instance
    }
}
