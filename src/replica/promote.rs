//! Becoming primary: typed by an operator, or handed over by the peer.

use super::desk::{answer, refuse};
use super::effect::Effect;
use super::io::Purpose;
use super::records::Change;
use super::role::Promoted;
use super::session::{Fault, Standing};
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::metadata::generation::{Lineage, Relation};
use crate::promotion::controller::ControllerInput;
use crate::promotion::controller::planted::PlantedRule;
use crate::promotion::services::ServiceReason;
use crate::promotion::{self, Peer, PromoteHow, PromotePlan};
use crate::units::{Epoch, Instant, Sequence, ServeMode, SessionId, VetoReason};
use crate::wire::message::{HandOver, Message, Outdate};

/// A promotion under way.
#[derive(Clone, Debug, Hash)]
pub(super) struct Promoting {
    /// `None` if the controller tells who asked.
    request: Option<u64>,
    how: PromoteHow,
    plan: PromotePlan,
    mode: ServeMode,
    step: Step,
    since: Instant,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Step {
    /// The peer was asked in this session, and will not answer in another one.
    Consent(Option<SessionId>),
    /// Pacemaker is to be kept from promoting the peer, which is away.
    Fencing,
    Consented,
    Syncing(u64),
    Synced,
    Recording,
}

impl Promoting {
    /// Who waits for it.
    pub(super) fn asker(&self) -> Option<u64> {
        self.request
    }

    /// Whether nothing but the fence command is missing.
    pub(super) fn waits_for_fence(&self) -> bool {
        self.step == Step::Fencing
    }

    /// Whether the promotion can no longer be taken back.
    pub(super) fn is_recording(&self) -> bool {
        match self.step {
            Step::Consent(_) | Step::Fencing => false,
            Step::Consented | Step::Syncing(_) | Step::Synced | Step::Recording => true,
        }
    }
}

/// The peer hands its role over.
#[derive(Clone, Debug, Hash)]
pub(super) struct TakeOver {
    hand: HandOver,
    step: TakeStep,
}

impl TakeOver {
    /// Whether everything is here: an arbiter may make this node the owner from here on, also if the
    /// peer never says that it did.
    pub(super) fn is_ready(&self) -> bool {
        self.step == TakeStep::Ready
    }

    /// Whether the peer may have given it up and offer it again: no sync is under way for it, and
    /// this node does not own the resource yet.
    fn may_begin_anew(&self) -> bool {
        match self.step {
            TakeStep::Applying | TakeStep::Ready => true,
            TakeStep::Syncing(_) | TakeStep::Recording => false,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum TakeStep {
    Applying,
    Syncing(u64),
    Ready,
    Recording,
}

impl<M: MapMemory> Replica<M> {
    /// What is known of the peer, for the guards of a promotion.
    pub(super) fn peer_for_promotion(&self) -> Peer {
        let Some(theirs) = self.link.peer_hello() else { return Peer::Away };
        match self.link.standing() {
            Standing::Down => Peer::Away,
            Standing::Meeting | Standing::Apart | Standing::Running { .. } => Peer::Connected {
                role: theirs.role,
                epoch: theirs.epoch.max(theirs.promised),
                in_sync: self.is_in_sync(),
                behind: self.peer_is_behind(),
            },
        }
    }

    /// Whether the peer said, in this connection or an earlier one, that it went on from what this node
    /// has: then it acknowledged writes that are missing here.
    pub(super) fn peer_is_ahead(&self) -> bool {
        let record = self.records.stable();
        let mine = record.generation.map(|current| Lineage { current, history: &record.history });
        let theirs = self.link.last_hello.as_ref().and_then(|hello| {
            hello.generation.map(|current| Lineage { current, history: &hello.history })
        });
        match (mine, theirs) {
            (Some(mine), Some(theirs)) => theirs.relation_to(&mine) == Relation::Ahead,
            (None, _) | (_, None) => false,
        }
    }

    pub(super) fn on_promote(&mut self, request: u64, how: PromoteHow, effects: &mut Effects) {
        if self.role.is_primary() {
            answer(request, "this node is primary already", effects);
            return;
        }
        if self.has_controller() {
            let accept_data_loss = how.accept_data_loss;
            let input = if how.force {
                ControllerInput::Force { request, accept_data_loss }
            } else {
                ControllerInput::Promote { request }
            };
            self.on_controller(input, effects);
            return;
        }
        if self.role.promoting.is_some() || self.role.take_over.is_some() {
            let next = format!("hotpair status {}", self.settings.resource);
            refuse(request, "a promotion is under way", &next, effects);
            return;
        }
        if !how.force && self.link.is_vetoed() {
            // Two that consent to each other are both outdated, and neither is promoted.
            let why = format!("this node has consented to the promotion of {}", self.settings.peer);
            refuse(request, &why, &format!("hotpair status {}", self.settings.resource), effects);
            return;
        }
        let peer = self.peer_for_promotion();
        match self.check_promotion(how) {
            Err(refusal) => {
                let result = Err(self.explain_promotion(refusal));
                effects.push(Effect::Answer { request, result });
            }
            Ok(plan) => {
                let mode = match peer {
                    Peer::Connected { in_sync: true, .. } if plan.needs_consent => {
                        ServeMode::Paired
                    }
                    Peer::Connected { .. } | Peer::Away => ServeMode::Solo,
                };
                let step = if plan.needs_consent {
                    Step::Consent(self.session_now())
                } else if how.by_pacemaker && !how.force && self.was_paired() {
                    // Pacemaker must not promote the peer when it lacks what is written here.
                    Step::Fencing
                } else {
                    Step::Consented
                };
                if plan.needs_consent {
                    let outdate = Outdate { epoch: plan.epoch, reason: VetoReason::Evicted };
                    self.send(Message::Outdate(outdate), effects);
                }
                let request = Some(request);
                self.role.promoting =
                    Some(Promoting { request, how, plan, mode, step, since: self.now });
            }
        }
    }

    /// Whether the peer may have a copy that could be served.
    fn was_paired(&self) -> bool {
        self.records.stable().peer_replica_id.0 != 0
    }

    /// The peer made its veto durable.
    pub(super) fn on_outdate_done(&mut self, outdate: Outdate, effects: &mut Effects) {
        self.role.peer_vetoed = Some(outdate.epoch);
        if let Some(promoting) = &mut self.role.promoting
            && matches!(promoting.step, Step::Consent(_))
            && promoting.plan.epoch == outdate.epoch
        {
            promoting.step = Step::Consented;
        }
        self.on_peer_vetoed(effects);
    }

    /// The peer asks this node to veto itself.
    pub(super) fn on_outdate(&mut self, outdate: Outdate, effects: &mut Effects) {
        let record = self.records.stable();
        let is_bound = self.role.promoting.is_some() || self.role.take_over.is_some();
        if self.role.is_primary() || is_bound || !self.may_veto() {
            self.refuse_link("this node serves or is being promoted", effects);
            return;
        }
        if self.is_over(outdate.epoch, record.promised) {
            self.refuse_old_epoch(effects);
            return;
        }
        self.link.note_veto();
        self.records.change(Change::Veto {
            reason: outdate.reason,
            epoch: outdate.epoch,
            is_outdated: true,
        });
    }

    /// This node's veto is stable: whoever asked for it is told.
    pub(super) fn on_veto_recorded(
        &mut self,
        reason: VetoReason,
        epoch: Epoch,
        effects: &mut Effects,
    ) {
        let outdate = Outdate { epoch, reason };
        if reason == VetoReason::Left {
            self.on_leave_recorded(outdate, effects);
        } else {
            self.send(Message::OutdateDone(outdate), effects);
        }
    }

    /// Goes on with a promotion: consent, sync, record.
    pub(super) fn pump_promoting(&mut self, effects: &mut Effects) {
        let Some(promoting) = &self.role.promoting else { return };
        match promoting.step {
            Step::Consent(session) => {
                let request = promoting.request;
                let is_late = self.now.since(promoting.since) >= self.settings.io_timeout;
                if self.link.standing() == Standing::Down || is_late {
                    self.role.promoting = None;
                    self.restart_session(); // which lifts the veto that the peer may have by now
                    self.refuse_promotion(request, promotion::Refusal::PeerAway, effects);
                } else if session != self.session_now() {
                    self.role.promoting = None;
                    let why = "the nodes began to meet again before the peer consented";
                    let next = format!("hotpair promote {}", self.settings.resource);
                    if let Some(request) = request {
                        refuse(request, why, &next, effects);
                    }
                }
            }
            Step::Fencing => self.pump_agents_fence(effects),
            Step::Consented => {
                // What this node received is applied before it serves, and stable before it may
                // acknowledge alone.
                if self.io.write_count() > 0 || !self.applier.is_empty() || !self.records.is_idle()
                {
                    return;
                }
                let sync = self.role.name_sync();
                let io = self.io.start(Purpose::Role(sync));
                effects.push(Effect::SyncData { io });
                self.set_promotion_step(Step::Syncing(sync));
            }
            // A copy of a register that fell back meanwhile is one that does not count, once that is recorded.
            Step::Synced if self.settings.is_register && !self.records.is_idle() => {}
            Step::Synced => {
                let (plan, mode) = (promoting.plan, promoting.mode);
                if let Err(refusal) = self.check_promotion_again() {
                    let request = promoting.request;
                    self.role.promoting = None;
                    if plan.needs_consent {
                        self.restart_session(); // which lifts the peer's veto
                    }
                    self.refuse_promotion(request, refusal, effects);
                    return;
                }
                let generation = if plan.forced { self.next_generation(effects) } else { None };
                if plan.forced && generation.is_none() {
                    return; // no random id is left; one is on its way
                }
                self.set_promotion_step(Step::Recording);
                self.records.change(Change::Promote(Promoted {
                    epoch: plan.epoch,
                    mode,
                    generation,
                    is_forced: plan.forced,
                }));
            }
            Step::Syncing(_) | Step::Recording => {}
        }
    }

    /// The fence command ended that a promotion by a resource agent waits for, or the peer is back.
    fn pump_agents_fence(&mut self, effects: &mut Effects) {
        let Some(request) = self.role.promoting.as_ref().map(Promoting::asker) else { return };
        let (why, next) = if self.desk.is_stopping() {
            ("this daemon stops".to_owned(), "pcs status".to_owned())
        } else if self.link.standing() != Standing::Down {
            ("the nodes began to meet meanwhile".to_owned(), self.way_to_promote())
        } else {
            match self.alone.as_ref().and_then(|alone| alone.agents_fence()) {
                None => return,
                Some(Ok(_)) => return self.set_promotion_step(Step::Consented),
                Some(Err(answer)) => (
                    format!(
                        "Pacemaker may promote {} later, which would lack what is written here: the fence \
                         command ended with {answer}",
                        self.settings.peer
                    ),
                    "pcs constraint config; hotpair events shows what the command said".to_owned(),
                ),
            }
        };
        self.role.promoting = None;
        if let Some(request) = request {
            refuse(request, &why, &next, effects);
        }
    }

    fn refuse_promotion(
        &self,
        request: Option<u64>,
        refusal: promotion::Refusal,
        effects: &mut Effects,
    ) {
        if let Some(request) = request {
            let result = Err(self.explain_promotion(refusal));
            effects.push(Effect::Answer { request, result });
        }
    }

    /// What was decided before the wait is decided again: the peer may have become primary, or
    /// this node the target of a resync. A consent that was given stays good.
    fn check_promotion_again(&self) -> Result<(), promotion::Refusal> {
        let Some(promoting) = &self.role.promoting else { return Ok(()) };
        let record = self.records.stable();
        let peer = self.peer_for_promotion();
        if promoting.request.is_none() && !promoting.plan.forced {
            if self.alone.is_some()
                && matches!(peer, Peer::Connected { role: crate::units::Role::Primary, .. })
            {
                return Err(promotion::Refusal::PeerIsPrimary); // it lives
            }
            // The arbiter asked nobody else since, and no primary has a lease.
            return if record.disk == crate::units::DiskState::UpToDate && record.veto.is_none() {
                Ok(())
            } else {
                Err(promotion::Refusal::Outdated)
            };
        }
        if promoting.plan.needs_consent {
            if let Peer::Connected { role: crate::units::Role::Primary, .. } = peer {
                return Err(promotion::Refusal::PeerIsPrimary);
            }
            if record.disk != crate::units::DiskState::UpToDate {
                return Err(promotion::Refusal::NotInSync);
            }
            return Ok(());
        }
        let how = promoting.how;
        if how.by_pacemaker && !how.force && peer != Peer::Away {
            return Err(promotion::Refusal::NotInSync); // it is back, and was not asked
        }
        self.check_promotion(how).map(|_| ())
    }

    /// Everything that stands in the way of a promotion now.
    pub(super) fn check_promotion(
        &self,
        how: PromoteHow,
    ) -> Result<PromotePlan, promotion::Refusal> {
        let (record, peer) = (self.records.stable(), self.peer_for_promotion());
        let plan =
            promotion::check_promote(record, self.settings.side, peer, self.peer_is_ahead(), how)?;
        let may_lack = how.by_pacemaker
            && !how.force
            && peer == Peer::Away
            && self.alone.as_ref().is_some_and(|it| !it.may_serve_without_peer(&self.facts()));
        if may_lack { Err(promotion::Refusal::NotFollowed) } else { Ok(plan) }
    }

    fn set_promotion_step(&mut self, step: Step) {
        if let Some(promoting) = &mut self.role.promoting {
            promoting.step = step;
        }
    }

    pub(super) fn on_promoting_synced(&mut self, sync: u64) {
        if self.role.promoting.as_ref().is_some_and(|p| p.step == Step::Syncing(sync)) {
            self.set_promotion_step(Step::Synced);
        }
    }

    /// The record of a promotion is stable.
    pub(super) fn on_promoted(&mut self, promoted: &Promoted, effects: &mut Effects) {
        let promoting = self.role.promoting.take();
        let how = promoting.as_ref().map(|promoting| promoting.how);
        let is_by_stonith = promoting.as_ref().is_some_and(|promoting| {
            let PromoteHow { force, by_pacemaker, .. } = promoting.how;
            by_pacemaker && !force && !promoting.plan.needs_consent
        });
        let asker = promoting.and_then(|promoting| promoting.request);
        let is_handed = self.role.take_over.take().is_some();
        if is_handed || promoted.mode == ServeMode::Paired {
            // The arbiter may tell of it before the peer does.
            self.answer_switchover(effects);
        }
        let (why, reason) = if promoted.is_forced {
            ("forced by an operator", ServiceReason::Forced)
        } else if self.role.is_first_owner {
            ("the arbiter's first record names it", ServiceReason::Start)
        } else if is_handed || promoted.mode == ServeMode::Paired && asker.is_none() {
            ("the peer handed the role over", ServiceReason::Switchover)
        } else if asker.is_none() && self.alone.is_some() {
            ("the peer was lost", ServiceReason::Failover)
        } else if asker.is_none()
            && self.controller.as_ref().is_some_and(|controller| !controller.is_operators())
        {
            ("by the arbiter", ServiceReason::Failover)
        } else if how.is_some_and(|how| how.by_pacemaker) {
            ("by Pacemaker", ServiceReason::Manual)
        } else {
            ("by an operator", ServiceReason::Manual)
        };
        self.role.is_first_owner = false;
        self.become_primary(why, reason);
        if is_by_stonith && let Some(alone) = &mut self.alone {
            alone.note_agents_promotion();
            let permit = promotion::Permit::Pacemaker;
            self.event("going-solo", format!("the peer is away; permit: {permit:?}"));
        }
        if promoted.generation.is_some() {
            self.has_own_generation();
        }
        if let Some(how) = how.filter(|_| promoted.is_forced) {
            self.event("forced", self.forced_words(how.accept_data_loss));
        }
        if let Some(request) = asker {
            let text = format!("this node is primary at epoch {}", promoted.epoch);
            answer(request, &text, effects);
        }
    }

    /// The arbiter granted a promotion, or an operator forced one without it: sync, record, serve
    /// alone.
    pub(super) fn begin_granted_promotion(&mut self, epoch: Epoch, how: PromoteHow) {
        self.role.take_over = None;
        self.role.promoting = Some(Promoting {
            request: None,
            how,
            plan: PromotePlan { epoch, needs_consent: false, forced: how.force },
            mode: ServeMode::Solo,
            step: Step::Consented,
            since: self.now,
        });
    }

    /// The arbiter's record makes this node owner, with the peer eligible: what the old primary
    /// acknowledged is here, and stable.
    pub(super) fn take_over_by_arbiter(&mut self, epoch: Epoch) {
        self.role.is_first_owner = self.records.stable().owner.is_none();
        self.records.change(Change::Promote(Promoted {
            epoch,
            mode: ServeMode::Paired,
            generation: None,
            is_forced: false,
        }));
    }

    /// The primary asks whether this node has everything up to `hand.last`.
    pub(super) fn on_hand_over(&mut self, hand: HandOver, effects: &mut Effects) {
        let record = self.records.stable();
        let can_take = self.is_in_sync()
            && !self.role.is_primary()
            && self.role.promoting.is_none()
            && self.role.take_over.as_ref().is_none_or(TakeOver::may_begin_anew)
            && record.generation == Some(hand.generation)
            && record.promised <= hand.epoch;
        if !can_take {
            self.refuse_link("this node cannot take over: it is not in sync", effects);
            return;
        }
        self.role.take_over = Some(TakeOver { hand, step: TakeStep::Applying });
    }

    /// Goes on with taking over: apply all, sync, say so.
    pub(super) fn pump_take_over(&mut self, effects: &mut Effects) {
        let Some(take) = &self.role.take_over else { return };
        let last: Sequence = take.hand.last;
        if take.step == TakeStep::Applying
            && !self.records.stable().hold
            && self.hears_arbiter_or_has_none()
            && self.applied_through().is_none_or(|through| through >= last)
            && self.io.write_count() == 0
        {
            let sync = self.role.name_sync();
            if self.has_planted_rule(PlantedRule::HandoverUnflushed) {
                self.set_take_step(TakeStep::Syncing(sync));
                self.on_take_over_synced(sync, effects);
                return;
            }
            let io = self.io.start(Purpose::Role(sync));
            effects.push(Effect::SyncData { io });
            self.set_take_step(TakeStep::Syncing(sync));
        }
    }

    fn set_take_step(&mut self, step: TakeStep) {
        if let Some(take) = &mut self.role.take_over {
            take.step = step;
        }
    }

    pub(super) fn on_take_over_synced(&mut self, sync: u64, effects: &mut Effects) {
        let Some(take) = &mut self.role.take_over else { return };
        if take.step == TakeStep::Syncing(sync) {
            take.step = TakeStep::Ready;
            let hand = take.hand;
            self.send(Message::HandReady(hand), effects);
        }
    }

    /// The old primary serves no more: this node owns the resource from here on.
    pub(super) fn on_hand_done(&mut self, hand: HandOver) -> Result<(), Fault> {
        match &mut self.role.take_over {
            Some(take) if take.step == TakeStep::Ready && take.hand == hand => {
                take.step = TakeStep::Recording;
            }
            Some(_) | None => return Err(Fault::Unexpected { message: "HandDone" }),
        }
        if self.has_controller() {
            // The arbiter's record says so, too, and at which epoch.
            self.role.take_over = None;
            return Ok(());
        }
        let epoch = self.records.stable().promised.max(hand.epoch).next_by(self.settings.side);
        self.records.change(Change::Promote(Promoted {
            epoch,
            mode: ServeMode::Paired,
            generation: None,
            is_forced: false,
        }));
        Ok(())
    }

    /// The session is over: a promise of the peer that was not kept in it never will be.
    pub(super) fn end_take_over(&mut self) {
        if self.role.take_over.as_ref().is_some_and(|take| take.step != TakeStep::Recording) {
            self.role.take_over = None;
        }
    }
}
