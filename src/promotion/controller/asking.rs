//! Requests to the arbiter: one at a time, repeated unchanged until it is answered.

use std::time::Duration;

use super::Controller;
use super::candidate::Stage;
use super::effect::{Act, Bound, ControllerEffect, ControllerTimer, Obstacle, Won};
use super::facts::{Facts, Leaving};
use super::lost::knows_no_store;
use super::planted::PlantedRule;
use crate::promotion::arbiter::{
    ArbiterRecord, Operation, Refused, Reply, Request, RequestId, View,
};
use crate::units::{Generation, Instant};

/// The request under way, and what is due.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Asking {
    number: u64,
    under_way: Option<UnderWay>,
    /// The lease is to be renewed, or the record to be looked at.
    is_due: bool,
    /// The timer for it runs.
    is_timed: bool,
    /// The arbiter refused a moment ago: not before the next look.
    is_put_off: bool,
    /// How often in a row no answer came in time.
    missed: u8,
}

#[derive(Clone, Debug, Hash)]
struct UnderWay {
    request: Box<Request>,
    asked: Instant,
}

impl Controller {
    /// Asks for what is missing, if nothing is being asked for.
    pub(super) fn ask_for_more(&mut self, facts: &Facts<'_>, effects: &mut Vec<ControllerEffect>) {
        if let Some(under_way) = &self.asking.under_way {
            if self.is_wanted_still(&under_way.request.operation, facts) {
                return;
            }
            self.asking.under_way = None;
        }
        if let Some(operation) = self.wanted(facts) {
            self.ask(operation, facts, effects);
        }
        if !self.asking.is_timed {
            self.asking.is_timed = true;
            let after = self.settings.lease / 6;
            self.set_timer(ControllerTimer::Look, after, Bound::Early, effects);
        }
    }

    fn wanted(&self, facts: &Facts<'_>) -> Option<Operation> {
        if self.asking.is_put_off {
            return None;
        }
        let urgent = if self.refused.is_some_and(|why| asks_for_half(why, facts)) {
            self.half(facts).map(Operation::Enroll)
        } else {
            let known = self.known.as_deref();
            known.and_then(|known| {
                self.owner_wants(known, facts).or_else(|| self.candidate_wants(known, facts))
            })
        };
        urgent.or_else(|| {
            let is_new = !self.has_looked;
            let renews = self.wants_lease(facts) && self.owns();
            match (is_new || self.asking.is_due, renews) {
                (true, true) => Some(Operation::Renew),
                (true, false) => Some(Operation::Read),
                (false, _) if self.is_peer_due && self.looks_for_peer(facts) => {
                    self.half(facts).map(Operation::Enroll)
                }
                (false, _) => None,
            }
        })
    }

    fn ask(
        &mut self,
        operation: Operation,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        match &operation {
            Operation::Pair { .. } | Operation::Handover => {
                // What was kept before may be given away by this one.
                self.is_kept = false;
                if !self.settings.is_planted(PlantedRule::SoloOutlivesPair) {
                    self.solo = None;
                }
            }
            Operation::Renew | Operation::Read => self.asking.is_due = false,
            Operation::Enroll(_) => self.is_peer_due = false,
            Operation::Stop => {
                // It ends the lease at the arbiter, whenever it arrives.
                self.leases.give_up_arbiters();
                self.may_be_stopped = true;
            }
            Operation::PreVote { .. }
            | Operation::Solo { .. }
            | Operation::Promote { .. }
            | Operation::Keep
            | Operation::Release { .. }
            | Operation::Force { .. } => {}
        }
        self.asking.number += 1;
        let noted = facts.record.arbitration;
        let known = self.known.as_deref();
        let request = Box::new(Request {
            from: self.settings.side,
            id: RequestId { instance: self.instance, number: self.asking.number },
            arbiter: known.map_or(noted.arbiter, |known| known.arbiter),
            arbiter_epoch: known.map_or(noted.epoch, |known| known.epoch.max(noted.epoch)),
            epoch: known.map_or(noted.epoch, |known| known.epoch),
            lease_ms: self.settings.lease_ms(),
            operation,
        });
        effects.push(ControllerEffect::Ask(request.clone()));
        self.asking.under_way = Some(UnderWay { request, asked: self.now });
        self.set_timer(ControllerTimer::Repeat, REPEAT_AFTER, Bound::Early, effects);
    }

    /// Whether the answer is still of use. A change that was asked for and is not wanted any more
    /// may be made all the same: whoever asks for the next one finds out by its epoch.
    fn is_wanted_still(&self, operation: &Operation, facts: &Facts<'_>) -> bool {
        match operation {
            Operation::Solo { .. } | Operation::Renew => self.wants_lease(facts),
            // Its late success is noticed: the next request finds another epoch.
            Operation::Pair { .. } => self.wants_lease(facts) && self.may_pair(facts),
            Operation::Handover => facts.leaving == Some(Leaving::Handover),
            Operation::Stop => facts.leaving == Some(Leaving::Stop),
            Operation::Keep => self.wants_keep(facts),
            Operation::Promote { .. } => {
                self.candidacy.as_ref().is_some_and(|it| it.stage == Stage::Asking)
            }
            Operation::PreVote { .. } => {
                self.candidacy.as_ref().is_some_and(|it| it.stage == Stage::Voting)
            }
            Operation::Enroll(half) => self.half(facts).as_ref() == Some(half),
            Operation::Force { .. } => self.wants_force(operation, facts),
            Operation::Read | Operation::Release { .. } => true,
        }
    }

    pub(super) fn on_timer(
        &mut self,
        timer: ControllerTimer,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        self.leases.end(timer);
        match timer {
            ControllerTimer::Repeat => self.repeat(effects),
            ControllerTimer::Look => {
                self.asking.is_timed = false;
                self.asking.is_due = true;
                self.is_peer_due = true;
                self.asking.is_put_off = false;
            }
            ControllerTimer::Preference => self.owner_first = false,
            ControllerTimer::Idle => self.nobody_serves = self.waits_for_owner,
            ControllerTimer::StopBudget => self.stops_there = false,
            ControllerTimer::Grace => self.misses_arbiter = self.grace_runs,
            ControllerTimer::ArbiterLease
            | ControllerTimer::PeerLease
            | ControllerTimer::Grant
            | ControllerTimer::HoldDown
            | ControllerTimer::Silence => {}
            ControllerTimer::Fence => self.on_fence_timer(facts, effects),
        }
    }

    /// Nothing is waited for that was asked before; what is of the moment is asked anew.
    pub(super) fn on_arbiter_back(&mut self, effects: &mut Vec<ControllerEffect>) {
        self.asking.missed = 0;
        self.asking.is_due = true;
        self.asking.is_put_off = false;
        self.ask_again(effects);
    }

    fn repeat(&mut self, effects: &mut Vec<ControllerEffect>) {
        let Some(under_way) = &self.asking.under_way else { return };
        self.asking.missed = self.asking.missed.saturating_add(1);
        let operation = &under_way.request.operation;
        let is_vote = matches!(operation, Operation::PreVote { .. });
        let is_force = matches!(operation, Operation::Force { .. });
        if self.is_forcing() && (is_force || operation.is_look()) {
            self.on_force_unanswered();
        } else if is_vote {
            self.on_vote_unanswered();
            self.give_up_for_operator(Obstacle::ArbiterAway, effects);
        }
        self.ask_again(effects);
    }

    fn ask_again(&mut self, effects: &mut Vec<ControllerEffect>) {
        let Some(under_way) = &self.asking.under_way else { return };
        if under_way.request.operation.is_look() {
            self.asking.under_way = None;
            self.asking.is_due = true;
            return;
        }
        effects.push(ControllerEffect::Ask(under_way.request.clone()));
        self.set_timer(ControllerTimer::Repeat, REPEAT_AFTER, Bound::Early, effects);
    }

    /// Why the arbiter cannot be asked for a change of role now.
    pub fn arbiter_obstacle(&self) -> Option<Obstacle> {
        if self.is_arbiter_away() {
            return Some(Obstacle::ArbiterAway);
        }
        self.refused.filter(|why| why.is_no_answer()).map(Obstacle::Arbiter)
    }

    /// Whether the arbiter was asked and has not answered lately.
    pub(super) fn is_arbiter_away(&self) -> bool {
        self.asking.missed >= MISSED_MAX
    }

    /// Whether the arbiter answers, and has a record.
    pub fn hears_arbiter(&self) -> bool {
        self.known.is_some() && self.arbiter_obstacle().is_none()
    }

    /// Whether an answer is waited for.
    pub(super) fn is_asking(&self) -> bool {
        self.asking.under_way.is_some()
    }

    /// A record that the request under way has made is its answer, which may come later or never.
    pub(super) fn on_pushed(
        &mut self,
        record: Box<ArbiterRecord>,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let side = self.settings.side;
        self.asking.missed = 0;
        let asked = self.asking.under_way.as_ref().map(|it| it.request.id);
        let is_by_owner =
            self.settings.is_planted(PlantedRule::AnswerByOwner) && record.owner == side;
        match asked.filter(|id| is_by_owner || record.was_made_by(side, *id)) {
            Some(id) => self.on_reply(id, Reply::Done(record), facts, effects),
            None => self.learn(record, facts),
        }
    }

    pub(super) fn on_reply(
        &mut self,
        id: RequestId,
        reply: Reply,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        self.asking.missed = 0;
        let Some(under_way) = self.asking.under_way.take_if(|it| it.request.id == id) else {
            return; // to a request that nobody waits for
        };
        let UnderWay { request, asked } = under_way;
        // Only its peer can tell a node without a store which record the pair believes.
        let is_untold = knows_no_store(facts) && record_in(&reply).is_some();
        let reply = if is_untold { Reply::Refused(Refused::HalfMissing) } else { reply };
        let noted = facts.record.arbitration.arbiter;
        if record_in(&reply).is_some_and(|record| record.arbiter != noted) {
            self.asking.is_due = true; // asked before this node changed to another store
            return;
        }
        self.on_force_answered();
        let operation = request.operation;
        let was_refused = self.refused.take().is_some();
        match reply {
            Reply::Done(record) => self.on_done(&operation, record, facts, effects),
            Reply::Lease { lease_ms, record } => {
                self.has_looked = true;
                self.learn(record, facts);
                self.on_arbiter_lease(asked, lease_ms, facts, effects);
            }
            Reply::View(view) => self.on_view(&operation, *view, facts, effects),
            Reply::Conflict(record) => {
                self.has_looked = true;
                let is_peers = record.owner != self.settings.side;
                self.learn(record, facts);
                match &operation {
                    Operation::Promote { .. } => self.on_conflict(),
                    Operation::Force { .. } if self.is_forcing() => self.on_conflict(),
                    Operation::Handover | Operation::Keep if is_peers => {
                        self.act(Act::HandedOver, effects);
                    }
                    Operation::Handover
                    | Operation::Keep
                    | Operation::Read
                    | Operation::PreVote { .. }
                    | Operation::Enroll(_)
                    | Operation::Renew
                    | Operation::Solo { .. }
                    | Operation::Pair { .. }
                    | Operation::Stop
                    | Operation::Release { .. }
                    | Operation::Force { .. } => {}
                }
            }
            // There is a record that counts.
            Reply::Refused(Refused::Enrolled) => self.asking.is_due |= was_refused,
            // The peer was looked for, and is to change first.
            Reply::Refused(Refused::MayMove { .. }) if !was_refused => {}
            Reply::Refused(why) => self.on_refused(&operation, why, facts, effects),
        }
    }

    fn on_refused(
        &mut self,
        operation: &Operation,
        why: Refused,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        self.refused = Some(why);
        let is_half = matches!(operation, Operation::Enroll(_));
        let enrolls = !is_half && asks_for_half(why, facts) && self.half(facts).is_some();
        self.asking.is_put_off = !enrolls;
        // Without a record it is made first, if this node can say its part.
        // One that is alone has all halves there are.
        let is_half_missing = why == Refused::HalfMissing;
        let waits = (why.asks_to_enroll() || is_half_missing)
            && self.half(facts).is_some_and(|half| !(is_half_missing && half.alone));
        let is_promotion = match operation {
            Operation::Promote { .. } | Operation::PreVote { .. } => true,
            // Whoever waits for a promotion waits for the record, too.
            Operation::Enroll(_) => self.candidacy.is_some(),
            Operation::Read
            | Operation::Renew
            | Operation::Solo { .. }
            | Operation::Pair { .. }
            | Operation::Handover
            | Operation::Keep
            | Operation::Stop
            | Operation::Release { .. }
            | Operation::Force { .. } => false,
        };
        if self.is_forcing() {
            self.on_force_refused(operation, why, effects);
        } else if is_promotion && !waits {
            self.on_promotion_refused(why, effects);
        }
    }

    fn on_done(
        &mut self,
        operation: &Operation,
        record: Box<ArbiterRecord>,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let epoch = record.epoch;
        self.has_looked = true;
        let was_stopped = self.known().is_some_and(|known| known.stopped);
        self.learn(record, facts);
        match operation {
            Operation::Solo { .. } => self.solo = Some(epoch),
            Operation::Promote { dead, .. } => {
                // The supervisor of a dead run has stopped them before it said so.
                self.let_services_stop(dead.is_none(), effects);
                self.begin_fencing(dead.is_some(), was_stopped, facts, effects);
                self.on_granted(epoch);
            }
            Operation::Force { .. } if self.is_forcing() => self.on_granted(epoch),
            // The record is in line with what an operator decided, and lists this node alone.
            Operation::Force { .. } => self.solo = Some(epoch),
            Operation::Handover => self.act(Act::HandedOver, effects),
            Operation::Keep => (self.is_kept, self.may_be_stopped) = (true, false),
            Operation::Stop => self.act(Act::Stopped, effects),
            Operation::Read
            | Operation::PreVote { .. }
            | Operation::Enroll(_)
            | Operation::Renew
            | Operation::Pair { .. }
            | Operation::Release { .. } => {}
        }
    }

    fn on_view(
        &mut self,
        operation: &Operation,
        view: View,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        self.has_looked = true;
        let is_others = view.record.owner != self.settings.side;
        let is_owner_alive = is_others && view.lease_remaining_ms > 0;
        self.learn(Box::new(view.record), facts);
        if let Operation::PreVote { .. } = operation {
            if self.is_forcing() {
                self.on_forced_vote(view.promotion, is_owner_alive, effects);
            } else {
                self.on_vote(view.promotion, effects);
            }
        }
    }

    /// What an operator types, and what has become possible, is asked for at once.
    pub(super) fn put_off_no_more(&mut self) {
        self.asking.is_put_off = false;
    }

    /// Not before the next look: what stands in the way is not gone at once.
    pub(super) fn put_off(&mut self) {
        self.asking.is_put_off = true;
    }

    fn act(&mut self, act: Act, effects: &mut Vec<ControllerEffect>) {
        self.on_act(act);
        effects.push(ControllerEffect::Act(act));
    }

    /// Tells the operator that waits for a promotion how it ended.
    pub(super) fn tell_operator(
        request: Option<u64>,
        result: Result<Won, Obstacle>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        if let Some(request) = request {
            effects.push(ControllerEffect::Settled { request, result });
        }
    }
}

/// This node's generation and where it came from.
pub(super) fn history(facts: &Facts<'_>) -> Vec<Generation> {
    facts.record.generation.into_iter().chain(facts.record.history.iter().copied()).collect()
}

/// Whether the arbiter's answer is a reason for this node to say its half. One that was made anew
/// says it whatever it finds there.
fn asks_for_half(why: Refused, facts: &Facts<'_>) -> bool {
    why.asks_to_enroll() || (why == Refused::HalfMissing && knows_no_store(facts))
}

/// The record that comes with a reply.
fn record_in(reply: &Reply) -> Option<&ArbiterRecord> {
    match reply {
        Reply::Done(record) | Reply::Conflict(record) | Reply::Lease { record, .. } => Some(record),
        Reply::View(view) => Some(&view.record),
        Reply::Refused(_) => None,
    }
}

/// An arbiter answers within a few milliseconds and a sync: what takes longer was lost.
const REPEAT_AFTER: Duration = Duration::from_millis(500);

/// One answer may be lost by chance; an arbiter that owes so many counts as away.
const MISSED_MAX: u8 = 2;
