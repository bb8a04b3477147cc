//! How often a resource may be promoted without an operator.
//!
//! Each such promotion counts for the time of the limit. Once there are as many as it allows, there
//! are no more for an hour, or until the role moves as planned: an operator promotes or switches over,
//! or the primary's daemon is told to stop and hands over. The counts are in memory
//! only, but both nodes have them: a beat carries how many its node knows of. A secondary takes over
//! what its primary says, whichever way that goes. A node that starts takes what the peer says first, as of
//! then; so the hour may begin anew with a restart, and the count is lost only if both nodes start, or one
//! starts while the other is away.
//!
//! Nothing safe hangs on these times, so they are compared with the clock of the replica.

use std::time::Duration;

use super::{Controller, Facts, PeerWord};
use crate::units::{Instant, Side};

/// So many promotions in such a time, and no more.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FlapLimit {
    /// How many; at least 1.
    pub promotions: u8,
    /// In which time.
    pub within: Duration,
}

/// What is known of promotions without an operator.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Flapping {
    /// When each was made, or was told of; never more than can be told.
    at: Vec<Instant>,
    /// Since when there are as many as the limit allows.
    since: Option<Instant>,
    /// The peer was heard in this run, or an operator decided: what is known here counts.
    is_informed: bool,
    /// A promotion is under way that moves the role here, and nobody asked for it.
    is_moving: bool,
}

impl Flapping {
    /// Whether nothing counts against the limit.
    pub(super) fn is_untouched(&self) -> bool {
        self.at.is_empty()
    }

    fn set(&mut self, count: usize, now: Instant) {
        self.at.drain(..self.at.len().saturating_sub(count));
        self.at.resize(count, now);
    }

    fn settle(&mut self, now: Instant, limit: FlapLimit) {
        match self.since {
            // What led there counts as long as the pause lasts, so that a node that starts hears of it.
            Some(since) if now.since(since) < PAUSE => {}
            Some(_) => (self.at, self.since) = (Vec::new(), None),
            None => self.at.retain(|at| now.since(*at) < limit.within),
        }
        let is_reached = self.at.len() >= usize::from(limit.promotions);
        self.since = self.since.or(Some(now)).filter(|_| is_reached);
    }
}

impl Controller {
    /// Lets what is older than the limit's time count no more.
    pub(super) fn note_flapping(&mut self) {
        if let Some(limit) = self.settings.moving.flap_limit {
            self.flapping.settle(self.now, limit);
        }
    }

    /// The peer says how many automatic promotions it knows of.
    pub(super) fn on_promotions_told(&mut self, word: PeerWord, facts: &Facts<'_>) {
        let is_first = !std::mem::replace(&mut self.flapping.is_informed, true);
        let follows = word.is_primary && !facts.is_primary && !facts.is_promoting;
        let Some(told) = word.promotions.map(usize::from) else { return };
        let count = if follows { told } else { self.flapping.at.len().max(told) };
        if follows || is_first {
            self.flapping.set(count, self.now);
        }
    }

    /// What beats say of this node.
    pub fn word(&self, facts: &Facts<'_>) -> PeerWord {
        PeerWord {
            promotions: self.promotions_known(),
            is_primary: facts.is_primary,
            hears_arbiter: self.hears_arbiter(),
        }
    }

    /// How many promotions without an operator it knows of, once that says something.
    pub(super) fn promotions_known(&self) -> Option<u8> {
        let count = u8::try_from(self.flapping.at.len()).unwrap_or(PROMOTIONS_MAX);
        let counts = self.flapping.is_informed && self.settings.moving.flap_limit.is_some();
        counts.then_some(count.min(PROMOTIONS_MAX))
    }

    /// How many automatic promotions count now.
    pub fn promotions_counted(&self) -> usize {
        self.flapping.at.len()
    }

    /// How long nobody is promoted without an operator; `None` if somebody may be.
    pub fn flap_pause(&self) -> Option<Duration> {
        self.flapping.since.map(|since| PAUSE.saturating_sub(self.now.since(since)))
    }

    /// A granted promotion is carried out: it counts if it moves the role, and no operator asked.
    pub(super) fn begin_counting(&mut self, by_operator: bool, owner: Option<Side>) {
        self.flapping.is_moving |= !by_operator && owner != Some(self.settings.side);
    }

    /// This node is primary by a promotion.
    pub(super) fn count_promotion(&mut self, by_operator: bool) {
        let is_counted = std::mem::take(&mut self.flapping.is_moving);
        if by_operator {
            self.forget_promotions();
        } else if is_counted
            && self.settings.moving.flap_limit.is_some()
            && self.flapping.at.len() < usize::from(PROMOTIONS_MAX)
        {
            self.flapping.at.push(self.now);
        }
    }

    /// An operator moved the role: what was before does not count.
    pub(super) fn forget_promotions(&mut self) {
        self.flapping = Flapping { is_informed: true, ..Flapping::default() };
    }
}

/// How long nobody is promoted without an operator once the limit is reached.
const PAUSE: Duration = Duration::from_hours(1);
/// Most promotions that a beat can tell of.
const PROMOTIONS_MAX: u8 = 254;
