//! Whether service comes back: from a state on, nothing fails any more, and time passes.

use crate::bounds::{Bounds, Left, Quick};
use crate::pair::{Action, Pair, Wanted};
use crate::third::{ThirdLeft, Word};
use hotpair::promotion::controller::ControllerTimer;
use hotpair::units::{DiskReason, DiskState, VetoReason};

/// So often everything that waits for time is due.
const ROUNDS_MAX: usize = 24;
/// What follows from one thing ends after so many steps, or never.
const STEPS_MAX: usize = 300;

impl Pair {
    /// Whether a write is answered in the end, if every node starts, every message arrives and
    /// every timer fires.
    pub(crate) fn comes_back(&self, bounds: &Bounds) -> bool {
        self.clone().serves_again(bounds)
    }

    /// The same with the arbiter's owner alone: its peer never starts again. That need not be so
    /// if it lost power with writes that it had not flushed, or if its copy or its record is lost.
    pub(crate) fn comes_back_alone(&self, bounds: &Bounds) -> bool {
        let Some(third) = &self.third else { return true };
        let Some(record) = &third.disk else { return true };
        let at = record.owner.index();
        if record.stopped || third.is_away[at] || self.is_excused(at) {
            return true;
        }
        let mut pair = self.clone();
        if pair.nodes[1 - at].process.is_some() {
            pair.leave_will(1 - at);
            pair.crash(1 - at, false);
        }
        pair.is_dead[1 - at] = true;
        pair.serves_again(bounds)
    }

    /// Whether that node may need its peer. One that lost power takes all for doubtful that its log
    /// names, flushed or not.
    fn is_excused(&self, at: usize) -> bool {
        let files = &self.nodes[at].files;
        let record = &files.record;
        let has_lost_power =
            record.place != files.place() || record.disk_reason == DiskReason::LostPower;
        let is_hopeless = match record.veto.map(|veto| veto.reason) {
            Some(
                VetoReason::PowerLoss
                | VetoReason::RecordLost
                | VetoReason::IoError
                | VetoReason::Inconsistent,
            ) => true,
            Some(
                VetoReason::Evicted
                | VetoReason::Left
                | VetoReason::NotEligible
                | VetoReason::Superseded,
            )
            | None => false,
        };
        let is_incomplete = !matches!(record.disk, DiskState::UpToDate | DiskState::Outdated);
        has_lost_power || is_hopeless || is_incomplete
    }

    fn serves_again(mut self, bounds: &Bounds) -> bool {
        let (looks, beats) = (u8::MAX, u8::MAX);
        let third = ThirdLeft {
            looks,
            beats,
            repeats: 200,
            waits: 200,
            epochs: 200,
            ..ThirdLeft::default()
        };
        let bounds = Bounds {
            quick: Quick { data: true, records: true, frames: true, words: true },
            comes_back: false,
            only: None,
            third: Some(third),
            ..bounds.clone()
        };
        let pair = &mut self;
        let next_request = pair.left.next_request;
        pair.left = Left { connections: 100, writes: 50, time: 1, next_request, ..Left::default() };
        pair.third().left = third;
        for at in 0..2 {
            if pair.third().is_away[at] {
                pair.third().left.returns = 1;
                pair.goes_if_it_can(Action::Word(Word::Return { at }), &bounds);
            }
        }
        for round in 0..ROUNDS_MAX {
            pair.runs_on(&bounds);
            if pair.broken.is_some() || pair.answers_a_write(&bounds) {
                return true; // what is broken is told by another name
            }
            pair.time_passes(round, &bounds);
        }
        false
    }

    fn goes_if_it_can(&mut self, action: Action, bounds: &Bounds) {
        match self.happens(action, bounds) {
            Some(next) => *self = next,
            // The nodes repeat themselves on this connection: the next one is another try.
            None => self.net.cut(),
        }
    }

    fn runs_on(&mut self, bounds: &Bounds) {
        for _ in 0..STEPS_MAX {
            let mut actions = Vec::new();
            self.progress(&mut actions);
            let is_first =
                |action: &&Action| !matches!(action, Action::Word(Word::AskTwice { .. }));
            let Some(action) = actions.iter().find(is_first) else { return };
            if self.broken.is_some() {
                return;
            }
            self.goes_if_it_can(*action, bounds);
        }
    }

    fn answers_a_write(&mut self, bounds: &Bounds) -> bool {
        (0..2).any(|at| {
            let process = self.nodes[at].process.as_ref();
            let takes = process.is_some_and(|it| it.export.is_some() && it.core.accepts_requests());
            if !takes || self.left.writes == 0 {
                return false;
            }
            self.goes_if_it_can(Action::Ask { at, what: Wanted::Write }, bounds);
            self.runs_on(bounds);
            self.nodes[at].process.as_ref().is_some_and(|it| it.asked.is_empty())
        })
    }

    fn time_passes(&mut self, round: usize, bounds: &Bounds) {
        let leases_end = round.is_multiple_of(6);
        if leases_end && !self.has_lease() && self.left.time > 0 {
            self.goes_if_it_can(Action::PassTime, bounds);
        }
        let mut actions = Vec::new();
        self.words_of_time(bounds, &mut actions);
        for action in actions {
            let is_meant = match action {
                Action::Word(Word::Fire {
                    timer: ControllerTimer::ArbiterLease | ControllerTimer::PeerLease,
                    ..
                }) => leases_end,
                Action::Word(Word::Fire { .. } | Word::FireThird { .. } | Word::Beat { .. }) => {
                    true
                }
                _ => false,
            };
            let mut due = Vec::new();
            self.words_of_time(bounds, &mut due);
            if is_meant && due.contains(&action) {
                self.goes_if_it_can(action, bounds);
                self.runs_on(bounds);
            }
        }
    }
}
