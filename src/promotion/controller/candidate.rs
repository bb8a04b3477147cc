//! How a secondary is promoted: guards, a look at the arbiter, a promise, the request.
//!
//! The guards are one list, used here and by `explain`, so that the explanation cannot drift from
//! the behaviour.

use super::Controller;
use super::asking::history;
use super::effect::{Bound, ControllerEffect, ControllerTimer, Obstacle, RecordStep, Won};
use super::facts::{Facts, Standing};
use super::force::Force;
use super::planted::PlantedRule;
use crate::metadata::Asked;
use crate::promotion::arbiter::{ArbiterRecord, Eligible, Operation, Refused, grant_end};
use crate::units::{DiskState, Epoch, Instance, Role, ServeMode};

/// A promotion under way.
#[derive(Clone, Debug, Hash)]
pub(super) struct Candidacy {
    /// The operator who asked for it.
    pub(super) request: Option<u64>,
    pub(super) stage: Stage,
    /// The operator vouched that the peer is off.
    pub(super) force: Option<Force>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Stage {
    /// The arbiter is asked whether it would grant it. That binds nobody.
    Voting,
    /// It would: the promise to follow nobody below is being made stable.
    Promising,
    /// The arbiter is asked to grant it.
    Asking,
    /// It is granted at this epoch.
    Granted(Epoch),
    /// By force, and without an arbiter that is out of reach.
    Alone,
}

/// One condition of a promotion.
#[derive(Debug)]
pub(super) struct Guard {
    /// What stands in the way if it does not hold.
    obstacle: Obstacle,
    /// Whether an operator's promotion needs it, too.
    binds_operator: bool,
    holds: fn(&Controller, &Facts<'_>) -> bool,
}

/// Every condition of a promotion, in the order in which they are told.
const GUARDS: &[Guard] = &[
    guard(Obstacle::Primary, true, |_, facts| {
        !facts.is_primary && !facts.is_promoting && facts.leaving.is_none()
    }),
    guard(Obstacle::Stopping, true, |_, facts| !facts.is_stopping),
    guard(Obstacle::NotAutomatic, false, |it, _| it.settings.promotes),
    guard(Obstacle::Stopped, false, |it, facts| {
        !facts.record.stopped && !it.known.as_ref().is_some_and(|known| known.stopped)
    }),
    guard(Obstacle::SplitBrain, true, |_, facts| !facts.record.split),
    guard(Obstacle::DiskStalled, true, |_, facts| !facts.is_disk_unfit),
    // A copy that is outdated since it vetoed itself is told of by its veto.
    guard(Obstacle::NotUpToDate, true, |_, facts| match facts.record.disk {
        DiskState::UpToDate => true,
        DiskState::Outdated => facts.record.veto.is_some(),
        DiskState::Inconsistent | DiskState::Failed | DiskState::Missing => false,
    }),
    guard(Obstacle::RecordLost, true, |it, facts| !it.is_record_lost(facts)),
    guard(Obstacle::Vetoed, true, |_, facts| facts.record.veto.is_none()),
    guard(Obstacle::Pledged, true, |it, facts| !it.is_bound_by_pledge(facts)),
    guard(Obstacle::ArbiterBehind, true, |it, facts| !it.is_arbiter_behind(facts)),
    guard(Obstacle::Connected, true, |_, facts| {
        facts.claim.is_none_or(|claim| claim.role != Role::Primary)
    }),
    guard(Obstacle::Connected, false, |it, facts| {
        facts.peer == Standing::Away || it.is_alone_in_turn(facts) || it.nobody_serves
    }),
    guard(Obstacle::PeerHeard, false, |it, facts| {
        it.is_silent || it.is_released() || it.is_alone_in_turn(facts) || it.nobody_serves
    }),
    guard(Obstacle::HoldDown, true, |it, _| !it.leases.is_in_hold_down()),
    guard(Obstacle::GrantHeld, true, |it, _| {
        !it.leases.is_granted() || it.settings.is_planted(PlantedRule::GrantsIgnored)
    }),
    guard(Obstacle::OwnerFirst, false, |it, facts| {
        !it.owner_first || it.is_released() || it.is_alone_in_turn(facts) || it.nobody_serves
    }),
    // What the arbiter says is this node's own is no move.
    guard(Obstacle::Flapping, false, |it, _| it.flap_pause().is_none() || it.owns()),
];

const fn guard(
    obstacle: Obstacle,
    binds_operator: bool,
    holds: fn(&Controller, &Facts<'_>) -> bool,
) -> Guard {
    Guard { obstacle, binds_operator, holds }
}

impl Controller {
    /// The first thing that stands in the way of an automatic promotion, or of an operator's.
    pub fn obstacle(&self, facts: &Facts<'_>, by_operator: bool) -> Option<Obstacle> {
        let is_checked = |guard: &&Guard| guard.binds_operator || !by_operator;
        let fails = |guard: &&Guard| !(guard.holds)(self, facts);
        GUARDS.iter().filter(is_checked).find(fails).map(|guard| guard.obstacle)
    }

    /// What would stand in the way if the primary were lost now; the time that its leases have left
    /// is not looked at.
    pub fn obstacle_after_loss(&self, facts: &Facts<'_>) -> Option<Obstacle> {
        let passes_with_it = |guard: &&Guard| match guard.obstacle {
            Obstacle::Connected | Obstacle::PeerHeard | Obstacle::GrantHeld => true,
            Obstacle::Primary
            | Obstacle::Stopping
            | Obstacle::NotAutomatic
            | Obstacle::Stopped
            | Obstacle::NotUpToDate
            | Obstacle::RecordLost
            | Obstacle::Vetoed
            | Obstacle::Pledged
            | Obstacle::SplitBrain
            | Obstacle::DiskStalled
            | Obstacle::HoldDown
            | Obstacle::OwnerFirst
            | Obstacle::PeerAhead
            | Obstacle::Fencing
            | Obstacle::NotFenced(_)
            | Obstacle::NotFollowed
            | Obstacle::Flapping
            | Obstacle::ArbiterAway
            | Obstacle::ArbiterBehind
            | Obstacle::Local(_)
            | Obstacle::Arbiter(_) => false,
        };
        let fails = |guard: &&Guard| !passes_with_it(guard) && !(guard.holds)(self, facts);
        let lists_me = |known: &ArbiterRecord| known.lists(self.settings.side);
        GUARDS.iter().find(fails).map(|guard| guard.obstacle).or_else(|| match self.known() {
            None => Some(Obstacle::ArbiterAway),
            Some(_) if self.arbiter_obstacle().is_some() => self.arbiter_obstacle(),
            Some(known) if lists_me(known) => None,
            Some(_) => Some(Obstacle::Arbiter(Refused::NotEligible)),
        })
    }

    /// Whether the arbiter says that this node owns the resource: nobody else has a turn.
    pub(super) fn owns(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.owner == self.settings.side)
    }

    /// Whether nobody else has a turn, heard or not: this node owns the resource, or the peer cannot
    /// serve it.
    fn is_alone_in_turn(&self, facts: &Facts<'_>) -> bool {
        self.owns() || facts.peer_cannot_serve
    }

    /// The epoch at which a promotion was granted; one by force has its own act.
    pub(super) fn granted_epoch(&self) -> Option<Epoch> {
        match self.candidacy.as_ref().filter(|it| it.force.is_none())?.stage {
            Stage::Granted(epoch) => Some(epoch),
            Stage::Voting | Stage::Promising | Stage::Asking | Stage::Alone => None,
        }
    }

    /// Whether a promotion is under way that an arbiter granted, or that an operator forced.
    pub(super) fn is_granted_or_forced(&self) -> bool {
        self.candidacy.as_ref().is_some_and(|it| match it.stage {
            Stage::Granted(_) | Stage::Alone => true,
            Stage::Voting | Stage::Promising | Stage::Asking => it.force.is_some(),
        })
    }

    pub(super) fn on_promote(
        &mut self,
        request: u64,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let is_asked_for =
            self.candidacy.as_ref().is_some_and(|candidacy| candidacy.request.is_some());
        let obstacle =
            if is_asked_for { Some(Obstacle::Primary) } else { self.obstacle(facts, true) };
        if let Some(obstacle) = obstacle {
            Self::tell_operator(Some(request), Err(obstacle), effects);
            return;
        }
        match &mut self.candidacy {
            Some(candidacy) => candidacy.request = Some(request),
            None => self.candidacy = Some(Candidacy::begin(Some(request))),
        }
    }

    /// Begins, gives up or ends a promotion as the facts say.
    pub(super) fn settle_candidacy(
        &mut self,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let Some(candidacy) = &self.candidacy else {
            let is_open = self.obstacle(facts, false).is_none() && !facts.is_recording;
            // What the arbiter showed last says whether it is worth while.
            let lists_me = self.known.as_ref().is_none_or(|known| known.lists(self.settings.side));
            if is_open && lists_me && !self.takes_over(facts) {
                self.candidacy = Some(Candidacy::begin(None));
            }
            return;
        };
        let request = candidacy.request;
        match candidacy.stage {
            Stage::Granted(_) | Stage::Alone if facts.is_primary => {
                let won = candidacy.won();
                self.candidacy = None;
                self.count_promotion(request.is_some());
                Self::tell_operator(request, Ok(won), effects);
            }
            // The record has changed since: it is asked about anew.
            Stage::Granted(epoch) if self.known().is_some_and(|known| known.epoch > epoch) => {
                self.set_stage(Stage::Voting);
            }
            // The grant is of no use to a copy that cannot be served.
            Stage::Granted(_) | Stage::Alone => {
                let obstacle = match candidacy.force {
                    Some(_) if facts.is_promoting => None, // it is checked again on its way
                    Some(force) => self.obstacle_to_force(facts, force.accept_data_loss),
                    None if self.is_grant_void(facts) => self.refused.map(Obstacle::Arbiter),
                    None => obstacle_to_serving(facts),
                };
                if let Some(obstacle) = obstacle {
                    self.candidacy = None;
                    Self::tell_operator(request, Err(obstacle), effects);
                }
            }
            Stage::Voting | Stage::Promising | Stage::Asking => {
                if let Some(obstacle) = self.obstacle_to(candidacy, facts) {
                    self.candidacy = None;
                    Self::tell_operator(request, Err(obstacle), effects);
                } else if candidacy.stage == Stage::Promising && self.has_promised(facts) {
                    self.set_stage(Stage::Asking);
                } else if candidacy.stage == Stage::Asking
                    && !self.is_asking()
                    && !self.is_asked_about(facts)
                {
                    self.set_stage(Stage::Voting);
                }
            }
        }
    }

    fn obstacle_to(&self, candidacy: &Candidacy, facts: &Facts<'_>) -> Option<Obstacle> {
        match candidacy.force {
            Some(force) if candidacy.stage == Stage::Voting => {
                self.bar_to_force(facts, force.accept_data_loss)
            }
            Some(force) => self.obstacle_to_force(facts, force.accept_data_loss),
            None => self.obstacle(facts, candidacy.request.is_some()),
        }
    }

    /// Whether the arbiter's record makes this node owner without a promotion of its own.
    fn takes_over(&self, facts: &Facts<'_>) -> bool {
        let Some(known) = self.known.as_deref() else { return false };
        let is_mine = known.owner == self.settings.side && !known.stopped;
        let asked = facts.record.arbitration.asked.is_some();
        is_mine
            && !asked
            && if facts.record.owner == Some(self.settings.side) {
                facts.record.serve_mode != ServeMode::None // it resumes
            } else {
                known.eligible == Eligible::Both
            }
    }

    /// The lowest epoch that the promotion which is asked for can have.
    fn next_epoch(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> Epoch {
        if self.is_forcing() {
            self.forced_epoch(known, facts)
        } else {
            known.epoch.next_by_arbiter()
        }
    }

    fn has_promised(&self, facts: &Facts<'_>) -> bool {
        if self.settings.is_planted(PlantedRule::AskedBeforePromise) {
            return true;
        }
        !facts.is_recording && self.is_asked_about(facts)
    }

    /// Whether the promise is for the record as it is now.
    fn is_asked_about(&self, facts: &Facts<'_>) -> bool {
        let Some(known) = self.known.as_deref() else { return false };
        let next = self.next_epoch(known, facts);
        facts.record.promised >= next
            && facts.record.arbitration.asked.is_some_and(|asked| asked.last == next)
    }

    pub(super) fn candidate_wants(
        &self,
        known: &ArbiterRecord,
        facts: &Facts<'_>,
    ) -> Option<Operation> {
        let candidacy = self.candidacy.as_ref()?;
        match candidacy.stage {
            Stage::Voting => Some(Operation::PreVote { history: history(facts) }),
            Stage::Asking if candidacy.force.is_some() && self.has_promised(facts) => {
                Some(self.force_request(known, facts))
            }
            // The promise is for the record that is asked about, and no other.
            Stage::Asking if self.has_promised(facts) => Some(Operation::Promote {
                history: history(facts),
                dead: self.dead(known),
                by_operator: candidacy.request.is_some(),
            }),
            Stage::Asking | Stage::Promising | Stage::Granted(_) | Stage::Alone => None,
        }
    }

    /// The run of the owner that is known to serve nothing more at the epoch of the record.
    fn dead(&self, known: &ArbiterRecord) -> Option<Instance> {
        self.released.filter(|it| it.epoch >= known.epoch).map(|it| it.instance)
    }

    /// Whether the owner is known to serve nothing more, as far as the record is known.
    pub fn is_released(&self) -> bool {
        match self.known.as_deref() {
            Some(known) => self.dead(known).is_some(),
            None => self.released.is_some(),
        }
    }

    /// What must be stable before the arbiter is asked.
    pub(super) fn candidate_step(
        &self,
        known: &ArbiterRecord,
        facts: &Facts<'_>,
    ) -> Option<RecordStep> {
        let candidacy = self.candidacy.as_ref()?;
        let is_due = candidacy.stage == Stage::Promising
            && !self.has_promised(facts)
            && self.obstacle_to(candidacy, facts).is_none();
        let last = self.next_epoch(known, facts);
        let first = match facts.record.arbitration.asked {
            Some(asked) if candidacy.force.is_none() => asked.first,
            // Whatever was asked for is void once the record has another epoch than now.
            Some(_) | None => known.epoch.next_by_arbiter(),
        };
        is_due.then_some(RecordStep::Promise(Asked { first, last }))
    }

    /// Promotions that were asked for are settled once the arbiter's record is past them and
    /// another node's. One that made this node owner is not: it is asked for anew from there.
    pub(super) fn settle_step(
        &self,
        known: &ArbiterRecord,
        facts: &Facts<'_>,
    ) -> Option<RecordStep> {
        let asked = facts.record.arbitration.asked?;
        // A force is asked for at the epoch right below the first: the record that is there has to
        // be that one.
        let last = if asked.last.is_forced_by_arbiter() { asked.first } else { asked.last };
        let is_over = known.epoch >= last && known.owner != self.settings.side;
        (is_over && self.candidacy.is_none() && !facts.is_promoting).then_some(RecordStep::Settle)
    }

    /// The primary lives, so it is followed again. What was asked for stays: should it be granted
    /// all the same, this node does not serve by it.
    pub(super) fn follow_step(&self, facts: &Facts<'_>) -> Option<RecordStep> {
        let record = facts.record;
        let claim = facts.claim.filter(|claim| claim.role == Role::Primary)?;
        let is_free = !facts.is_promoting && !facts.is_primary;
        let is_below = record.promised > claim.epoch && claim.epoch >= record.epoch;
        (record.arbitration.asked.is_some() && self.candidacy.is_none() && is_free && is_below)
            .then_some(RecordStep::Follow(claim.epoch))
    }

    /// The bug to be found: the arbiter does not answer, and this node is promoted all the same.
    pub(super) fn on_vote_unanswered(&mut self) {
        if self.settings.is_planted(PlantedRule::PromotedBySilence)
            && let Some(known) = self.known()
        {
            self.set_stage(Stage::Granted(known.epoch));
        }
    }

    pub(super) fn on_vote(
        &mut self,
        vote: Result<(), Refused>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let by_operator = self.candidacy.as_ref().is_some_and(|it| it.request.is_some());
        match vote {
            Err(_) if self.settings.is_planted(PlantedRule::PromotedBySilence) => {
                self.on_vote_unanswered();
            }
            Ok(()) => self.set_stage(Stage::Promising),
            // The lease is that of a run that is known to be dead: the request itself names it.
            Err(Refused::LeaseHeld) if self.known().and_then(|it| self.dead(it)).is_some() => {
                self.set_stage(Stage::Promising);
            }
            Err(Refused::Stopped) if by_operator => self.set_stage(Stage::Promising),
            Err(why) => self.on_promotion_refused(why, effects),
        }
    }

    /// Somebody changed the record: the arbiter is asked about the new one.
    pub(super) fn on_conflict(&mut self) {
        self.set_stage(Stage::Voting);
    }

    /// The services of the old owner have their time to stop from the grant on: its leases were over
    /// then (the invariant `StopBeforeStart`).
    pub(super) fn let_services_stop(&mut self, may_run: bool, effects: &mut Vec<ControllerEffect>) {
        let budget = self.settings.stop_budget;
        self.stops_there = may_run && !budget.is_zero();
        if self.stops_there && !self.settings.is_planted(PlantedRule::NoStopBudget) {
            let after = grant_end(u32::try_from(budget.as_millis()).unwrap_or(u32::MAX));
            self.set_timer(ControllerTimer::StopBudget, after, Bound::Late, effects);
        } else {
            self.stops_there = false;
        }
    }

    pub(super) fn on_granted(&mut self, epoch: Epoch) {
        self.set_stage(Stage::Granted(epoch));
    }

    /// What passes by itself is waited for; an operator is told at once.
    pub(super) fn on_promotion_refused(
        &mut self,
        why: Refused,
        effects: &mut Vec<ControllerEffect>,
    ) {
        self.refused = Some(why);
        self.put_off();
        let request = self.candidacy.as_ref().and_then(|candidacy| candidacy.request);
        let passes = matches!(why, Refused::LeaseHeld | Refused::HoldDown);
        if request.is_some() || !passes {
            self.candidacy = None;
            Self::tell_operator(request, Err(Obstacle::Arbiter(why)), effects);
        } else {
            self.set_stage(Stage::Voting);
        }
    }

    /// An operator does not wait for what may never come; an automatic promotion does.
    pub(super) fn give_up_for_operator(
        &mut self,
        obstacle: Obstacle,
        effects: &mut Vec<ControllerEffect>,
    ) {
        if let Some(candidacy) = self.candidacy.take_if(|it| it.request.is_some()) {
            Self::tell_operator(candidacy.request, Err(obstacle), effects);
        }
    }

    pub(super) fn set_stage(&mut self, stage: Stage) {
        if let Some(candidacy) = &mut self.candidacy {
            candidacy.stage = stage;
        }
    }
}

fn obstacle_to_serving(facts: &Facts<'_>) -> Option<Obstacle> {
    let record = facts.record;
    if record.disk != DiskState::UpToDate {
        Some(Obstacle::NotUpToDate)
    } else if record.veto.is_some() {
        Some(Obstacle::Vetoed)
    } else {
        None
    }
}

impl Candidacy {
    fn begin(request: Option<u64>) -> Self {
        Self { request, stage: Stage::Voting, force: None }
    }

    fn won(&self) -> Won {
        match self.force {
            Some(Force { accept_data_loss, .. }) => Won::ByForce { accept_data_loss },
            None => Won::ByRule,
        }
    }
}
