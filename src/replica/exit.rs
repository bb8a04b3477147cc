//! Leaving the primary role as planned: demote, switchover, disconnect, a clean stop.
//!
//! No further request is read, admitted ones finish and are answered, both disks are flushed, and
//! only then the clients are let go. Until the record changes everything can be taken back.

use super::desk::{answer, refuse};
use super::effect::{Closing, Effect};
use super::explain::Obstacle;
use super::flush::FlushWhy;
use super::io::Purpose;
use super::records::Change;
use super::role::AckNeed;
use super::session::{Fault, Standing};
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion;
use crate::promotion::controller::Leaving;
use crate::promotion::controller::planted::PlantedRule;
use crate::promotion::services::ServiceReason;
use crate::units::{Instant, VetoReason};
use crate::wire::message::{HandOver, Message, Outdate};

/// A planned end of serving.
#[derive(Clone, Debug, Hash)]
pub(super) struct Exit {
    why: ExitWhy,
    answers: Vec<Asker>,
    stage: Stage,
    since: Instant,
    hand: Option<HandOver>,
    /// What the peer was asked to take over before the daemon went on without that.
    void_hand: Option<HandOver>,
    /// Nobody asked: the resource moves back to the node that it prefers.
    pub(super) is_failback: bool,
}

/// Why a primary stops.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum ExitWhy {
    Demote,
    Switchover,
    Stop,
}

/// Who waits for the end of it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Asker {
    /// An operator on this node.
    Local(u64),
    /// An operator on the peer, by its request number.
    Peer(u64),
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Stage {
    /// The last transfer is about to end: clients are served until it has.
    Pairing,
    /// What runs beside the primary stops first, while clients are served.
    StoppingServices,
    /// Of a register: the last of what clients did goes to the peer.
    Settling,
    Draining,
    Flushing {
        sync: u64,
        is_local_done: bool,
        is_peer_done: bool,
    },
    AskingPeer,
    PeerReady,
    ClosingClients,
    /// The arbiter is asked whether the role may end so.
    AskingArbiter,
    /// The arbiter is asked to let no late request give the resource away.
    TakingBack,
    Recording,
    HandedOver,
    /// The session ended before the peer said that it took over: the next one tells.
    Unanswered,
}

impl Exit {
    /// Whether ownership left, and the peer has not said that it has it.
    pub(super) fn is_unanswered(&self) -> bool {
        self.stage == Stage::Unanswered
    }

    /// The session is over.
    pub(super) fn end_session(&mut self) {
        match self.stage {
            Stage::HandedOver => self.stage = Stage::Unanswered,
            // It cannot be taken back any more, and there is nobody to tell.
            Stage::Recording | Stage::AskingArbiter | Stage::TakingBack => self.hand = None,
            Stage::Pairing
            | Stage::StoppingServices
            | Stage::Settling
            | Stage::Draining
            | Stage::Flushing { .. }
            | Stage::AskingPeer
            | Stage::PeerReady
            | Stage::ClosingClients
            | Stage::Unanswered => {}
        }
    }

    /// What the arbiter is asked for the primary that leaves.
    pub(super) fn asks_arbiter(&self) -> Option<Leaving> {
        match (self.stage, self.why) {
            (Stage::AskingArbiter, ExitWhy::Switchover) => Some(Leaving::Handover),
            (Stage::AskingArbiter, ExitWhy::Demote) => Some(Leaving::Stop),
            (Stage::TakingBack, _) => Some(Leaving::TakeBack),
            (Stage::Recording, ExitWhy::Demote | ExitWhy::Switchover) => Some(Leaving::Recording),
            (_, _) => None,
        }
    }

    /// Whether the peer can own the resource before it is known here.
    fn may_be_peers(&self) -> bool {
        match self.asks_arbiter() {
            Some(Leaving::Handover | Leaving::TakeBack) => true,
            Some(Leaving::Stop | Leaving::Recording) | None => {
                matches!(self.stage, Stage::HandedOver | Stage::Unanswered)
            }
        }
    }

    /// Whether requests are still taken.
    pub(super) fn takes_requests(&self) -> bool {
        matches!(self.stage, Stage::Pairing | Stage::StoppingServices | Stage::Settling)
    }

    /// Why the services beside the primary stop, once they do.
    pub(super) fn stops_services(&self) -> Option<ExitWhy> {
        (self.stage != Stage::Pairing).then_some(self.why)
    }
}

impl Exit {
    /// Whether the record that ends the role is on its way, or stable.
    pub(super) fn is_recording(&self) -> bool {
        matches!(
            self.stage,
            Stage::Recording | Stage::HandedOver | Stage::AskingArbiter | Stage::TakingBack
        )
    }
}

impl super::role::RoleState {
    /// The peer made everything stable that a change of role waits for.
    pub(super) fn peer_is_flushed(&mut self) {
        if let Some(Exit { stage: Stage::Flushing { is_peer_done, .. }, .. }) = &mut self.exit {
            *is_peer_done = true;
        }
    }
}

impl<M: MapMemory> Replica<M> {
    pub(super) fn on_demote(&mut self, asker: Asker, effects: &mut Effects) {
        match self.why_not_asked(ExitWhy::Demote) {
            Some(why) => self.answer_refused(asker, &why, effects),
            None => self.begin_exit(ExitWhy::Demote, Some(asker), effects),
        }
    }

    /// Begins a planned end of serving.
    pub(super) fn begin_exit(&mut self, why: ExitWhy, asker: Option<Asker>, effects: &mut Effects) {
        self.begin_exit_at(Stage::StoppingServices, why, asker, effects);
    }

    fn begin_exit_at(
        &mut self,
        stage: Stage,
        why: ExitWhy,
        asker: Option<Asker>,
        effects: &mut Effects,
    ) {
        if let Some(exit) = &mut self.role.exit {
            if exit.why == why && exit.answers.len() < ASKERS_MAX {
                exit.answers.extend(asker);
            } else if let Some(asker) = asker {
                self.answer_refused(asker, "another change of role is under way", effects);
            }
            return;
        }
        if let Some(services) = &mut self.services {
            services.try_again();
        }
        self.role.exit = Some(Exit {
            why,
            answers: asker.into_iter().collect(),
            stage,
            since: self.now,
            hand: None,
            void_hand: None,
            is_failback: false,
        });
    }

    /// Goes on with it.
    pub(super) fn pump_exit(&mut self, effects: &mut Effects) {
        if self.is_succession_late() {
            self.give_up_succession(effects);
        }
        let Some(exit) = &self.role.exit else { return };
        let (why, stage) = (exit.why, exit.stage);
        let age = self.now.since(exit.since);
        let is_late = age >= 3 * self.settings.io_timeout;
        match stage {
            // Nothing is stopped before the peer may take over.
            Stage::Pairing if self.is_in_sync() => match self.why_peer_cannot_follow() {
                None => self.set_exit_stage(Stage::StoppingServices),
                Some(obstacle) if is_late => self.abort_exit(obstacle, effects),
                Some(_) => {}
            },
            Stage::Pairing if is_late || !self.is_pairing() => {
                self.abort_exit("the copies are not in sync", effects);
            }
            Stage::StoppingServices if why == ExitWhy::Switchover && !self.is_in_sync() => {
                self.abort_exit("the peer is not in sync any more", effects);
            }
            // The peer is not asked to take over before it may.
            Stage::StoppingServices => match self.why_peer_cannot_follow() {
                Some(obstacle) if why == ExitWhy::Switchover => {
                    if is_late {
                        self.abort_exit(obstacle, effects);
                    }
                }
                _ => self.wait_for_services(why, effects),
            },
            Stage::Settling if why == ExitWhy::Switchover && !self.is_in_sync() => {
                self.abort_exit("the peer is not in sync any more", effects);
            }
            Stage::Draining | Stage::Flushing { .. } | Stage::AskingPeer
                if why == ExitWhy::Switchover && (is_late || !self.is_in_sync()) =>
            {
                self.abort_exit("the peer is not in sync any more, or does not answer", effects);
            }
            Stage::Draining if is_late => self.give_up_draining(why, effects),
            Stage::Draining => {
                if self.writes.is_empty() && self.flushes.ticket_count() == 0 {
                    self.flush_before_exit(effects);
                }
            }
            Stage::Flushing { is_local_done: true, is_peer_done: true, .. } => {
                if why == ExitWhy::Switchover {
                    self.ask_peer_to_take_over(effects);
                } else {
                    self.close_clients(effects);
                }
            }
            // The peer went away: what it has not flushed stays marked.
            Stage::Flushing { is_peer_done: false, .. }
                if self.ack_need() != AckNeed::Peer && why != ExitWhy::Switchover =>
            {
                self.role.peer_is_flushed();
            }
            Stage::PeerReady => self.close_clients(effects),
            Stage::AskingArbiter if age >= self.patience_with_arbiter() => {
                self.give_up_asking(why, effects);
            }
            Stage::AskingArbiter | Stage::TakingBack => {}
            Stage::Pairing
            | Stage::Settling
            | Stage::Flushing { .. }
            | Stage::AskingPeer
            | Stage::ClosingClients
            | Stage::Recording
            | Stage::HandedOver
            | Stage::Unanswered => {}
        }
    }

    /// Clients are let go only when what runs beside the primary has stopped: it may be a client
    /// itself. A daemon that was told to stop does not wait for what does not stop.
    fn wait_for_services(&mut self, why: ExitWhy, effects: &mut Effects) {
        match (self.services_are_off(), why) {
            (Ok(false), _) => {}
            (Ok(true), _) | (Err(_), ExitWhy::Stop) => {
                if self.settings.is_register && self.role.is_exported() {
                    self.set_exit_stage(Stage::Settling);
                    effects.push(Effect::Settle);
                } else {
                    self.drain(effects);
                }
            }
            (Err(why), ExitWhy::Demote | ExitWhy::Switchover) => self.abort_exit(&why, effects),
        }
    }

    /// The driver of a register brought the last of what clients did to the peer, or could not. Who is
    /// told to stop, or has no peer to hand over to, stops all the same: then the record says that this
    /// node has what the peer lacks.
    pub(super) fn on_settled(&mut self, result: Result<(), String>, effects: &mut Effects) {
        let Some(exit) = &self.role.exit else { return };
        if exit.stage != Stage::Settling {
            return;
        }
        match (result, exit.why) {
            (Ok(()), _) | (Err(_), ExitWhy::Stop) => self.drain(effects),
            (Err(_), ExitWhy::Demote) if self.ack_need() == AckNeed::Alone => self.drain(effects),
            (Err(why), ExitWhy::Demote | ExitWhy::Switchover) => self.abort_exit(&why, effects),
        }
    }

    fn drain(&mut self, effects: &mut Effects) {
        if let Some(exit) = &mut self.role.exit {
            (exit.stage, exit.since) = (Stage::Draining, self.now);
        }
        self.bound_succession();
        self.pump_exit(effects);
    }

    /// Writes are held and nothing that would release them comes: a demotion is taken back, but a
    /// daemon that was told to stop leaves them unanswered, as if it had been killed.
    fn give_up_draining(&mut self, why: ExitWhy, effects: &mut Effects) {
        match why {
            ExitWhy::Demote | ExitWhy::Switchover => {
                self.abort_exit("writes are held until the peer is back", effects);
            }
            ExitWhy::Stop => {
                self.event("requests-dropped", "held writes stay unanswered: the daemon stops");
                self.set_exit_stage(Stage::ClosingClients);
                if self.role.has_clients {
                    self.close_export(Closing::Fenced, effects);
                } else {
                    self.on_exit_clients_gone(effects);
                }
            }
        }
    }

    /// The arbiter does not answer, and may have granted all the same what it was asked. A demotion
    /// gave nothing away, so the clients are served again while the controller sees to it. A handover
    /// did: nobody serves until its end was asked for and answered, but nobody waits for that.
    fn give_up_asking(&mut self, why: ExitWhy, effects: &mut Effects) {
        match why {
            ExitWhy::Demote => self.abort_exit(NO_ANSWER, effects),
            ExitWhy::Switchover | ExitWhy::Stop => {
                self.set_exit_stage(Stage::TakingBack);
                self.event(
                    "handover-unanswered",
                    format!("{NO_ANSWER}; nobody serves until it does"),
                );
                let askers = self.role.exit.as_mut().map(|exit| std::mem::take(&mut exit.answers));
                for asker in askers.into_iter().flatten() {
                    let why = format!("{NO_ANSWER}; this node goes on as primary when it does");
                    self.answer_refused(asker, &why, effects);
                }
            }
        }
    }

    /// The arbiter has so long to answer from here on.
    fn ask_arbiter_for_exit(&mut self) {
        if let Some(exit) = &mut self.role.exit {
            (exit.stage, exit.since) = (Stage::AskingArbiter, self.now);
        }
    }

    fn set_exit_stage(&mut self, stage: Stage) {
        if let Some(exit) = &mut self.role.exit {
            exit.stage = stage;
        }
    }

    fn flush_before_exit(&mut self, effects: &mut Effects) {
        let is_handover = self.role.exit.as_ref().is_some_and(Exit::is_switchover);
        if is_handover && self.has_planted_rule(PlantedRule::HandoverUnflushed) {
            self.ask_peer_to_take_over(effects);
            return;
        }
        let asks_peer = self.ack_need() == AckNeed::Peer;
        if asks_peer {
            self.ask_flush(FlushWhy::Role, effects);
        }
        let sync = self.role.name_sync();
        let io = self.io.start(Purpose::Role(sync));
        effects.push(Effect::SyncData { io });
        let (is_local_done, is_peer_done) = (false, !asks_peer);
        self.set_exit_stage(Stage::Flushing { sync, is_local_done, is_peer_done });
    }

    pub(super) fn on_exit_synced(&mut self, done: u64) {
        if let Some(Exit { stage: Stage::Flushing { sync, is_local_done, .. }, .. }) =
            &mut self.role.exit
            && *sync == done
        {
            *is_local_done = true;
        }
    }

    fn ask_peer_to_take_over(&mut self, effects: &mut Effects) {
        let record = self.records.stable();
        let hand = HandOver {
            epoch: record.epoch,
            last: self.writes.last_sequence(),
            generation: record.generation.unwrap_or_default(),
        };
        if let Some(exit) = &mut self.role.exit {
            exit.hand = Some(hand);
            exit.stage = Stage::AskingPeer;
        }
        self.send(Message::HandOver(hand), effects);
    }

    /// The peer has applied and synced everything.
    pub(super) fn on_hand_ready(&mut self, hand: HandOver) -> Result<(), Fault> {
        match &mut self.role.exit {
            Some(exit) if exit.stage == Stage::AskingPeer && exit.hand == Some(hand) => {
                exit.stage = Stage::PeerReady;
                Ok(())
            }
            Some(exit) if exit.void_hand == Some(hand) => Ok(()), // it crossed the end of the asking
            Some(_) | None => Err(Fault::Unexpected { message: "HandReady" }),
        }
    }

    fn close_clients(&mut self, effects: &mut Effects) {
        let why = self.role.exit.as_ref().and_then(|exit| self.why_not_asked(exit.why));
        if let Some(why) = why {
            self.abort_exit(&why, effects);
            return;
        }
        self.set_exit_stage(Stage::ClosingClients);
        if self.role.has_clients {
            self.close_export(Closing::Drained, effects);
        } else {
            self.on_exit_clients_gone(effects);
        }
    }

    pub(super) fn on_exit_clients_gone(&mut self, effects: &mut Effects) {
        let Some(exit) = &self.role.exit else { return };
        if exit.stage != Stage::ClosingClients {
            return;
        }
        let why = exit.why;
        if why == ExitWhy::Demote && self.asks_before(why) {
            self.ask_arbiter_for_exit();
            return;
        }
        self.set_exit_stage(Stage::Recording);
        match why {
            ExitWhy::Demote => self.records.change(Change::StepDown {
                owner: None,
                promised: self.records.stable().promised,
                veto: None,
                stopped: true,
            }),
            ExitWhy::Switchover => self.records.change(Change::HandingOver),
            ExitWhy::Stop => {
                // The record still says that it owns the resource: it resumes with its peer.
                self.role.primary = None;
                self.close_link(false, effects);
                self.begin_clean_stop();
            }
        }
    }

    /// Ownership may leave: this node serves no more and tells the peer so.
    pub(super) fn on_handing_over_recorded(&mut self, effects: &mut Effects) {
        self.role.primary = None;
        self.event("role-changed", "the role was handed over to the peer");
        if self.has_controller() && self.role.exit.is_some() {
            self.ask_arbiter_for_exit();
            return;
        }
        self.tell_handed_over(effects);
    }

    fn tell_handed_over(&mut self, effects: &mut Effects) {
        match &mut self.role.exit {
            Some(Exit { stage, hand: Some(hand), .. }) => {
                *stage = Stage::HandedOver;
                let hand = *hand;
                self.send(Message::HandDone(hand), effects);
            }
            // The next Hello says what became of it.
            Some(_) | None => self.abort_exit(UNANSWERED, effects),
        }
    }

    /// The arbiter's record says that the peer owns the resource.
    pub(super) fn on_handed_over(&mut self, effects: &mut Effects) {
        if self.role.exit.as_ref().is_some_and(|exit| exit.asks_arbiter().is_some()) {
            self.tell_handed_over(effects);
        }
    }

    /// No late request gives the resource away any more: this node goes on as primary.
    pub(super) fn on_taken_back(&mut self, effects: &mut Effects) {
        self.records.change(Change::Paired);
        self.abort_exit("the arbiter or the peer did not answer in time", effects);
        self.become_primary("the handover was taken back", ServiceReason::Resumed);
    }

    /// The arbiter promotes nobody until an operator says so: the role may end.
    pub(super) fn on_stop_granted(&mut self) {
        let is_asking =
            self.role.exit.as_ref().is_some_and(|exit| exit.stage == Stage::AskingArbiter);
        if is_asking {
            self.set_exit_stage(Stage::Recording);
            self.records.change(Change::StepDown {
                owner: None,
                promised: self.records.stable().promised,
                veto: None,
                stopped: true,
            });
        }
    }

    /// A planned end without a successor is recorded.
    pub(super) fn on_stepped_down(&mut self, effects: &mut Effects) {
        if self.role.exit.as_ref().is_some_and(|exit| exit.why == ExitWhy::Demote) {
            self.role.primary = None;
            self.event("role-changed", "this node is secondary: demoted by an operator");
            self.finish_exit("this node is secondary", effects);
        }
        self.restart_session();
    }

    /// The peer's Hello says that it is primary: a handover is complete.
    pub(super) fn on_peer_is_primary(&mut self, effects: &mut Effects) {
        if self.role.exit.as_ref().is_some_and(Exit::may_be_peers) {
            self.finish_exit("the peer is primary", effects);
        }
    }

    /// This node resumes: the peer did not take over.
    pub(super) fn take_hand_over_back(&mut self, effects: &mut Effects) {
        if self.role.exit.as_ref().is_some_and(Exit::is_unanswered) {
            self.abort_exit("the peer did not take over", effects);
        }
    }

    /// Everybody who waits for the end is told.
    pub(super) fn finish_exit(&mut self, text: &str, effects: &mut Effects) {
        let Some(exit) = self.role.exit.take() else { return };
        for asker in exit.answers {
            match asker {
                Asker::Local(request) => answer(request, text, effects),
                Asker::Peer(request) => self.tell(request, Ok(None), effects),
            }
        }
    }

    /// Takes a planned end back: the clients are served again.
    pub(super) fn abort_exit(&mut self, why: &str, effects: &mut Effects) {
        if !self.goes_on_without_successor(why, effects) {
            self.drop_exit(why, effects);
        }
    }

    fn drop_exit(&mut self, why: &str, effects: &mut Effects) {
        let Some(exit) = self.role.exit.take() else { return };
        if exit.is_failback {
            self.tell_failback_failed(why);
        }
        for asker in exit.answers {
            self.answer_refused(asker, why, effects);
        }
        self.writes.recheck();
        if exit.hand.is_some() && self.is_in_sync() {
            // The peer prepares to take over; it stops that with the session, and what it says of
            // it means nothing then.
            self.restart_session();
        }
    }

    /// As [`Self::abort_exit`], of what needs the peer.
    pub(super) fn abort_switchover(&mut self, why: &str, effects: &mut Effects) {
        if self.role.exit.as_ref().is_some_and(|exit| exit.why == ExitWhy::Switchover) {
            self.abort_exit(why, effects);
        }
    }

    /// The link is lost while a handover is under way.
    pub(super) fn exit_lost_link(&mut self, effects: &mut Effects) {
        let Some(exit) = &self.role.exit else { return };
        if exit.why != ExitWhy::Switchover {
            return;
        }
        match exit.stage {
            Stage::Pairing
            | Stage::StoppingServices
            | Stage::Settling
            | Stage::Draining
            | Stage::Flushing { .. }
            | Stage::AskingPeer
            | Stage::PeerReady
            | Stage::ClosingClients => self.abort_exit("the connection was lost", effects),
            // The clients are gone and the record is on its way: this goes on to its end.
            Stage::Recording | Stage::AskingArbiter | Stage::TakingBack => {}
            Stage::HandedOver | Stage::Unanswered => self.abort_exit(UNANSWERED, effects),
        }
    }

    /// Operators that wait for something that cannot come any more are told why.
    pub(super) fn refuse_waiting_operators(&mut self, why: &str, effects: &mut Effects) {
        self.drop_exit(why, effects);
        if let Some(promoting) = self.role.promoting.take() {
            let next = format!("hotpair status {}", self.settings.resource);
            if let Some(asker) = promoting.asker() {
                refuse(asker, why, &next, effects);
            }
        }
    }

    pub(super) fn on_switchover(&mut self, asker: Asker, effects: &mut Effects) {
        if let Some(why) = self.why_not_asked(ExitWhy::Switchover) {
            self.answer_refused(asker, &why, effects);
            return;
        }
        match promotion::check_switchover(self.peer_for_promotion()) {
            Ok(()) => self.begin_exit_at(Stage::Pairing, ExitWhy::Switchover, Some(asker), effects),
            Err(promotion::Refusal::NotInSync) if self.is_pairing() => {
                self.begin_exit_at(Stage::Pairing, ExitWhy::Switchover, Some(asker), effects);
            }
            Err(refusal) => self.answer_refused(asker, &refusal.to_string(), effects),
        }
    }

    /// Whether both copies are about to be in sync: the nodes meet, or nothing but the end of a
    /// replay is missing.
    fn is_pairing(&self) -> bool {
        match self.link.standing() {
            Standing::Meeting => true,
            Standing::Running { peer_acknowledges } => peer_acknowledges && !self.has_hard_marks(),
            Standing::Down | Standing::Apart => false,
        }
    }

    /// The peer leaves as planned and has vetoed itself.
    pub(super) fn on_leave(&mut self, outdate: Outdate, effects: &mut Effects) {
        self.role.peer_vetoed = Some(outdate.epoch);
        self.event("peer-left", "the peer stops or was disconnected by an operator");
        self.drop_link(effects);
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let why = format!("{peer} was stopped, or an operator disconnected it");
        let next =
            format!("start hotpair on {peer}; if it runs, type there: hotpair connect {resource}");
        self.link.obstacle = Some(Obstacle { why, next: Some(next) });
    }

    /// `disconnect`, or a stop, of a secondary: it vetoes itself first, so that the primary need
    /// not wait for anything.
    pub(super) fn veto_before_leaving(&mut self) {
        let primary_is_there = self.link.peer_is_primary();
        let epoch = self.records.stable().promised;
        self.link.note_veto();
        self.records.change(Change::Veto {
            reason: VetoReason::Left,
            epoch,
            is_outdated: primary_is_there,
        });
    }
}

impl Exit {
    /// Whether the peer is to own the resource.
    pub(super) fn is_switchover(&self) -> bool {
        self.why == ExitWhy::Switchover
    }

    /// Whether the services beside the primary are still to be stopped.
    pub(super) fn is_before_drain(&self) -> bool {
        matches!(self.stage, Stage::Pairing | Stage::StoppingServices | Stage::Settling)
    }

    /// Whether it is given up, or nobody knows how it ended: there is nothing to wait for.
    pub(super) fn is_given_up(&self) -> bool {
        matches!(self.stage, Stage::TakingBack | Stage::Unanswered)
    }

    /// What is left of a switchover once the daemon stops without it: nothing is given away yet, so
    /// the way on is that of a stop. Whoever waits for the switchover is returned.
    pub(super) fn turn_into_stop(&mut self, now: Instant) -> Option<Vec<Asker>> {
        let stage = match self.stage {
            Stage::Pairing | Stage::StoppingServices => Stage::StoppingServices,
            Stage::Draining | Stage::AskingPeer | Stage::PeerReady => Stage::Draining,
            // Both go on as they are: a stop flushes and lets its clients go, too.
            stage @ (Stage::Settling | Stage::Flushing { .. } | Stage::ClosingClients) => stage,
            Stage::AskingArbiter
            | Stage::TakingBack
            | Stage::Recording
            | Stage::HandedOver
            | Stage::Unanswered => return None,
        };
        let is_mine = self.why == ExitWhy::Switchover;
        is_mine.then(|| {
            (self.why, self.stage, self.since) = (ExitWhy::Stop, stage, now);
            self.void_hand = self.hand.take();
            self.is_failback = false;
            std::mem::take(&mut self.answers)
        })
    }
}

/// Operators, here and at the peer, who wait for one change of role.
const ASKERS_MAX: usize = 64;

/// Why a planned end was given up that the arbiter must agree to.
const NO_ANSWER: &str = "the arbiter did not answer in time";

/// Why a handover is not known to have succeeded.
const UNANSWERED: &str = "the connection was lost before the peer said that it took over";
