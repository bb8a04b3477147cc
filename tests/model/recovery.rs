//! Whether service comes back: from a state on, nothing fails any more, and time passes.

use crate::bounds::{Bounds, Left, Quick};
use crate::ghost::Broken;
use crate::pair::{Action, Pair, Wanted};
use crate::third::{ThirdLeft, Word};
use hotpair::promotion::controller::ControllerTimer;
use hotpair::replica::Replica;
use hotpair::units::{DiskReason, DiskState, VetoReason};

/// So often everything that waits for time is due.
const ROUNDS_MAX: usize = 24;
/// What follows from one thing ends after so many steps, or never.
const STEPS_MAX: usize = 300;

impl Pair {
    /// Whether a write is acknowledged in the end, if every node starts, every message arrives and
    /// every timer fires. What breaks on the way there is told by its own name.
    pub(crate) fn comes_back(&self, bounds: &Bounds) -> Result<bool, Broken> {
        self.clone().serves_again(None, bounds)
    }

    /// The same with the arbiter's owner alone: its peer never starts again, whether or not somebody
    /// says of it that it serves nothing more. That need not be so of an owner which knows that it
    /// needs its peer.
    pub(crate) fn comes_back_alone(&self, bounds: &Bounds) -> Result<bool, Broken> {
        let record = self.third.as_ref().and_then(|third| third.disk.as_ref());
        let Some(record) = record.filter(|record| !record.stopped) else { return Ok(true) };
        let (at, peer) = (record.owner.index(), 1 - record.owner.index());
        let process = self.nodes[peer].core();
        let (is_running, serves) = (process.is_some(), process.is_some_and(Replica::is_primary));
        // Only of a primary somebody may say so.
        for has_will in [serves, false] {
            let mut pair = self.clone();
            if has_will {
                pair.leave_will(peer);
            }
            if is_running {
                pair.crash(peer, false);
            }
            pair.is_dead[peer] = true;
            if !pair.serves_again(Some(at), bounds)? {
                return Ok(false);
            }
            if !has_will {
                break;
            }
        }
        Ok(true)
    }

    /// Whether that node says, once it runs, that it needs its peer.
    fn is_excused(&self, at: usize) -> bool {
        let record = &self.nodes[at].files.record;
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
        let is_doubtful = record.disk_reason == DiskReason::LostPower;
        let is_incomplete = !matches!(record.disk, DiskState::UpToDate | DiskState::Outdated);
        is_doubtful || is_hopeless || is_incomplete
    }

    /// Whether somebody serves in the end, or the only one that may knows that it cannot.
    fn serves_again(mut self, alone: Option<usize>, bounds: &Bounds) -> Result<bool, Broken> {
        let (looks, beats) = (u8::MAX, u8::MAX);
        let third = ThirdLeft {
            looks,
            beats,
            repeats: 200,
            waits: 200,
            epochs: 200,
            ..ThirdLeft::default()
        };
        let outer = bounds;
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
            let is_excused = alone.is_some_and(|at| pair.is_excused(at));
            if is_excused || pair.acknowledges_a_write(&bounds) {
                return Ok(true);
            }
            pair.time_passes(round, &bounds);
            if let Some(broken) = pair.broken {
                // A search that looks for one name only does not see what broke.
                return if outer.is_of_interest(Some(broken)) { Err(broken) } else { Ok(true) };
            }
        }
        Ok(false)
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

    /// Whether a client is told that its write is there: an error, a closed export or a request that
    /// is refused is no service.
    fn acknowledges_a_write(&mut self, bounds: &Bounds) -> bool {
        (0..2).any(|at| {
            let process = self.nodes[at].process.as_ref();
            let takes = process.is_some_and(|it| it.export.is_some() && it.core.accepts_requests());
            if !takes || self.left.writes == 0 {
                return false;
            }
            let before = self.ghost.asked;
            self.goes_if_it_can(Action::Ask { at, what: Wanted::Write }, bounds);
            let value = self.ghost.asked;
            self.runs_on(bounds);
            self.broken.is_none() && self.ghost.floor[at] >= value && value > before
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
