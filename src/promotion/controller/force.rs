//! A promotion by force: an operator vouches that the peer is off.
//!
//! The arbiter is asked all the same, since it knows whether the owner lives. One that does not
//! answer is done without: the node then makes an epoch of its own, far above what it knows, and
//! brings the arbiter's record in line when that is back.

use super::Controller;
use super::asking::history;
use super::candidate::{Candidacy, Stage};
use super::effect::{Act, ControllerEffect, Obstacle};
use super::facts::{Facts, Standing};
use crate::promotion::arbiter::{ArbiterRecord, Operation, Refused};
use crate::promotion::{Peer, PromoteHow, check_promote};
use crate::units::{Epoch, Role, ServeMode};

/// What an operator typed, and how it goes.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Force {
    /// `--accept-data-loss`.
    pub(super) accept_data_loss: bool,
    /// How often the arbiter was asked about it without an answer in time.
    unanswered: u8,
}

impl Controller {
    pub(super) fn on_force(
        &mut self,
        request: u64,
        accept_data_loss: bool,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let is_asked_for = self.candidacy.as_ref().is_some_and(|it| it.request.is_some());
        let obstacle = if is_asked_for {
            Some(Obstacle::Primary)
        } else {
            self.bar_to_force(facts, accept_data_loss)
        };
        if let Some(obstacle) = obstacle {
            Self::tell_operator(Some(request), Err(obstacle), effects);
            return;
        }
        // One that cannot be asked is as good as away.
        let cannot_be_asked = matches!(self.arbiter_obstacle(), Some(Obstacle::Arbiter(_)));
        let stage = if cannot_be_asked { Stage::Alone } else { Stage::Voting };
        let force = Some(Force { accept_data_loss, unanswered: 0 });
        self.candidacy = Some(Candidacy { request: Some(request), stage, force });
        self.put_off_no_more();
    }

    /// The first thing that stands in the way of a promotion by force. What the arbiter would say to
    /// it is not known here.
    pub(super) fn obstacle_to_force(
        &self,
        facts: &Facts<'_>,
        accept_data_loss: bool,
    ) -> Option<Obstacle> {
        self.bar_to_force(facts, accept_data_loss)
            .or_else(|| self.lack(facts).filter(|_| !accept_data_loss))
    }

    /// The same before the arbiter has said whether the owner lives, which is told first.
    pub(super) fn bar_to_force(
        &self,
        facts: &Facts<'_>,
        accept_data_loss: bool,
    ) -> Option<Obstacle> {
        if facts.is_primary || facts.is_promoting || facts.leaving.is_some() {
            return Some(Obstacle::Primary);
        }
        if facts.is_stopping {
            return Some(Obstacle::Stopping);
        }
        let peer = facts.claim.map_or(Peer::Away, |claim| Peer::Connected {
            role: claim.role,
            epoch: claim.epoch.max(claim.promised),
            in_sync: facts.peer == Standing::InSync,
            behind: false,
        });
        let how = PromoteHow { force: true, accept_data_loss, by_pacemaker: false };
        let side = self.settings.side;
        if let Err(refusal) = check_promote(facts.record, side, peer, facts.peer_is_ahead, how) {
            return Some(Obstacle::Local(refusal));
        }
        if self.leases.is_in_hold_down() {
            return Some(Obstacle::HoldDown);
        }
        self.leases.is_granted().then_some(Obstacle::GrantHeld)
    }

    /// Why acknowledged writes may be missing on a copy that is up-to-date by itself.
    fn lack(&self, facts: &Facts<'_>) -> Option<Obstacle> {
        let record = facts.record;
        let lists_me = |known: &ArbiterRecord| {
            known.lists(self.settings.side) && history(facts).contains(&known.generation)
        };
        if self.is_record_lost(facts) {
            Some(Obstacle::RecordLost)
        } else if self.is_bound_by_pledge(facts) {
            Some(Obstacle::Pledged)
        } else if record.veto.is_some() {
            Some(Obstacle::Vetoed)
        } else {
            let is_out = self.known().is_some_and(|known| !lists_me(known));
            is_out.then_some(Obstacle::Arbiter(Refused::NotEligible))
        }
    }

    /// Whether the candidate is one by force.
    pub(super) fn is_forcing(&self) -> bool {
        self.force().is_some()
    }

    fn force(&self) -> Option<Force> {
        self.candidacy.as_ref()?.force
    }

    /// The epoch that the arbiter makes for this promotion, above all that this node knows. The
    /// promise for it stays good as long as the record is the one that it was made for.
    pub(super) fn forced_epoch(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> Epoch {
        let promised = facts.record.arbitration.asked.filter(|asked| {
            asked.last.is_forced_by_arbiter()
                && asked.first == known.epoch.next_by_arbiter()
                && asked.last == facts.record.promised
        });
        promised.map_or_else(|| self.newest_epoch(facts).forced_by_arbiter(), |asked| asked.last)
    }

    /// The highest epoch that this node has heard of.
    fn newest_epoch(&self, facts: &Facts<'_>) -> Epoch {
        let record = facts.record;
        let mine = record.epoch.max(record.promised).max(record.arbitration.epoch);
        let known = self.known().map_or(mine, |known| known.epoch.max(mine));
        facts.claim.map_or(known, |claim| known.max(claim.epoch).max(claim.promised))
    }

    /// What is asked for a candidate by force whose promise is stable.
    pub(super) fn force_request(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> Operation {
        // The arbiter makes the next multiple above it.
        Operation::Force { floor: Epoch(self.forced_epoch(known, facts).0 - 1) }
    }

    /// What the arbiter says of the record binds nobody who is forced, but that the owner lives.
    pub(super) fn on_forced_vote(
        &mut self,
        vote: Result<(), Refused>,
        is_owner_alive: bool,
        effects: &mut Vec<ControllerEffect>,
    ) {
        if is_owner_alive {
            self.on_promotion_refused(Refused::PeerAlive, effects);
        } else if vote.is_err_and(Refused::is_no_answer) {
            self.set_stage(Stage::Alone);
        } else {
            self.set_stage(Stage::Promising);
        }
    }

    /// The arbiter refused something while it is asked about a force.
    pub(super) fn on_force_refused(
        &mut self,
        operation: &Operation,
        why: Refused,
        effects: &mut Vec<ControllerEffect>,
    ) {
        if !self.waits_to_force() {
            return; // it was granted, or goes without
        }
        let is_about_it = matches!(operation, Operation::PreVote { .. } | Operation::Force { .. });
        if why.is_no_answer() {
            self.set_stage(Stage::Alone);
        } else if is_about_it {
            self.on_promotion_refused(why, effects);
        }
    }

    /// Whether the arbiter's word on a force is waited for.
    fn waits_to_force(&self) -> bool {
        self.candidacy.as_ref().is_some_and(|candidacy| match candidacy.stage {
            Stage::Voting | Stage::Promising | Stage::Asking => candidacy.force.is_some(),
            Stage::Granted(_) | Stage::Alone => false,
        })
    }

    pub(super) fn on_force_answered(&mut self) {
        if let Some(force) = self.candidacy.as_mut().and_then(|it| it.force.as_mut()) {
            force.unanswered = 0;
        }
    }

    /// No answer came in time, to whatever was asked. What was asked may be done all the same: it
    /// lies below the epoch that this node makes of its own.
    pub(super) fn on_force_unanswered(&mut self) {
        if !self.waits_to_force() {
            return;
        }
        let Some(candidacy) = &mut self.candidacy else { return };
        if let Some(force) = &mut candidacy.force {
            force.unanswered += 1;
            if force.unanswered >= UNANSWERED_MAX {
                candidacy.stage = Stage::Alone;
            }
        }
    }

    /// Carries it out, once the arbiter has done so or is done without.
    pub(super) fn force_act(&self, facts: &Facts<'_>) -> Option<Act> {
        let candidacy = self.candidacy.as_ref()?;
        let accept_data_loss = candidacy.force?.accept_data_loss;
        let epoch = match candidacy.stage {
            Stage::Granted(epoch) => {
                let is_so = |known: &ArbiterRecord| known.epoch == epoch && self.owns();
                self.known().filter(|known| is_so(known)).map(|known| known.epoch)?
            }
            Stage::Alone => self.newest_epoch(facts).forced_by(self.settings.side),
            Stage::Voting | Stage::Promising | Stage::Asking => return None,
        };
        let is_open = self.obstacle_to_force(facts, accept_data_loss).is_none();
        is_open.then_some(Act::Force { epoch, accept_data_loss })
    }

    /// Whether this node owns the resource by a force that the arbiter was not asked about, and is
    /// yet to be told of.
    pub fn is_out_of_line(&self, facts: &Facts<'_>) -> bool {
        let record = facts.record;
        let is_own = record.forced
            && record.owner == Some(self.settings.side)
            && record.serve_mode != ServeMode::None
            && !record.epoch.is_by_arbiter();
        is_own && self.known().is_none_or(|known| known.epoch < record.epoch)
    }

    /// The arbiter's record is brought in line with what an operator decided.
    pub(super) fn line_up(&self, facts: &Facts<'_>) -> Option<Operation> {
        let is_bound = facts.is_primary || facts.leaving.is_some() || self.may_resume(facts);
        (is_bound && !facts.is_promoting && self.is_out_of_line(facts))
            .then_some(Operation::Force { floor: facts.record.epoch })
    }

    /// Whether this force is wanted still.
    pub(super) fn wants_force(&self, operation: &Operation, facts: &Facts<'_>) -> bool {
        let is_candidates = self
            .candidacy
            .as_ref()
            .is_some_and(|it| it.force.is_some() && it.stage == Stage::Asking);
        is_candidates || self.line_up(facts).as_ref() == Some(operation)
    }

    /// Whether this node has promised or followed an epoch that the arbiter's record cannot have got
    /// to: nobody is promoted by it but by force. It is so only after a force that the arbiter was
    /// not asked about.
    pub(super) fn is_arbiter_behind(&self, facts: &Facts<'_>) -> bool {
        let is_older =
            |known: &ArbiterRecord| known.epoch.next_by_arbiter() < facts.record.promised;
        self.has_looked && self.known().is_some_and(is_older)
    }

    /// Whether the peer is primary at an epoch above this node's and the arbiter's.
    pub(super) fn is_superseded(&self, facts: &Facts<'_>) -> bool {
        let known = self.known().map_or(Epoch(0), |known| known.epoch);
        let mine = facts.record.epoch.max(known);
        facts.claim.is_some_and(|claim| claim.role == Role::Primary && claim.epoch > mine)
    }
}

/// One answer may be lost by chance.
const UNANSWERED_MAX: u8 = 2;
