//! Changes that were seen and are complete nowhere else, as few numbers as possible.
//!
//! Whatever is merged or not known is counted as older than it is, never as younger.

use std::time::Duration;

use crate::manifest::{Pending, lag};
use crate::units::{Instant, TreeNumber};

/// Generations that are counted one by one; of more the oldest are counted as one.
const CLOSED_MAX: usize = 16;

#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// In no generation, as told last.
    dirty: Option<Instant>,
    /// Taken by the capture that runs.
    capturing: Option<Instant>,
    /// Taken by captures that failed. Their hints are in the dirty set again, but younger.
    failed: Option<Instant>,
    /// In closed generations that are not complete.
    closed: Vec<Pending>,
    /// In those that were complete once: a peer may come back without them.
    settled: Option<Pending>,
}

impl Changes {
    /// What is in the dirty set, or was taken out by the capture that runs.
    pub(super) fn on_facts(&mut self, oldest: Option<Instant>, is_capturing: bool) {
        self.dirty = oldest;
        if is_capturing {
            self.capturing = older(self.capturing, oldest);
        }
    }

    /// A capture takes what is in the dirty set.
    pub(super) fn on_begin(&mut self) {
        self.capturing = self.dirty;
    }

    /// The capture that ran made no generation, and took hints from `oldest` on.
    pub(super) fn on_failure(&mut self, oldest: Option<Instant>) {
        self.failed = older(older(self.failed, self.capturing.take()), oldest);
    }

    /// The capture that ran from `began` on found no difference to the newest generation.
    pub(super) fn on_nothing_new(&mut self) {
        self.capturing = None;
        self.failed = None;
    }

    /// It closed a generation, and took hints from `oldest` on.
    pub(super) fn on_closed(
        &mut self,
        number: TreeNumber,
        oldest: Option<Instant>,
        began: Instant,
    ) {
        let oldest = older(older(self.capturing.take(), self.failed.take()), oldest);
        // What no hint told of was seen when it was looked at.
        self.add(number, oldest.unwrap_or(began));
    }

    /// A generation is closed that has changes from `oldest` on.
    pub(super) fn add(&mut self, number: TreeNumber, oldest: Instant) {
        self.closed.push(Pending { number: Some(number), oldest });
        if self.closed.len() > CLOSED_MAX {
            let first = self.closed.remove(0);
            if let Some(second) = self.closed.first_mut() {
                *second = merged(first, *second);
            }
        }
    }

    /// The peer has this generation, complete.
    pub(super) fn on_complete(&mut self, number: TreeNumber) {
        let (done, open) = self.closed.iter().partition(|it| it.number <= Some(number));
        self.closed = open;
        let done: Vec<Pending> = done;
        self.settled = self.settled.into_iter().chain(done).reduce(merged);
    }

    /// See [`lag`].
    pub(super) fn lag(&self, complete: Option<TreeNumber>, now: Instant) -> Duration {
        let open = [self.dirty, self.capturing, self.failed].into_iter().flatten();
        let open = open.map(|oldest| Pending { number: None, oldest });
        let all: Vec<Pending> =
            open.chain(self.closed.iter().copied()).chain(self.settled).collect();
        lag(&all, complete, now)
    }
}

fn older(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Both as one, which is complete once the later one is.
fn merged(one: Pending, other: Pending) -> Pending {
    Pending { number: one.number.max(other.number), oldest: one.oldest.min(other.oldest) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn lag_of(changes: &Changes, complete: Option<u64>, now: u64) -> u64 {
        changes.lag(complete.map(TreeNumber), at(now)).as_secs()
    }

    #[test]
    fn what_a_capture_took_counts_until_its_generation_is_complete() {
        let mut changes = Changes::default();
        changes.on_facts(Some(at(1)), false);
        changes.on_begin();
        changes.on_facts(None, true);
        assert_eq!(lag_of(&changes, Some(0), 5), 4);
        changes.on_closed(TreeNumber(3), None, at(2));
        assert_eq!(lag_of(&changes, Some(2), 6), 5);
        changes.on_complete(TreeNumber(3));
        assert_eq!(lag_of(&changes, Some(3), 7), 0);
        assert_eq!(lag_of(&changes, Some(2), 7), 6, "a peer that lost it");
        assert_eq!(lag_of(&changes, None, 7), 6);
    }

    #[test]
    fn hints_that_come_while_a_capture_runs_count_as_taken_by_it() {
        let mut changes = Changes::default();
        changes.on_begin();
        changes.on_facts(Some(at(2)), true);
        changes.on_facts(None, true);
        assert_eq!(lag_of(&changes, Some(0), 5), 3);
        changes.on_closed(TreeNumber(1), Some(at(1)), at(0));
        assert_eq!(lag_of(&changes, Some(0), 5), 4, "what it says it took may be older");
    }

    #[test]
    fn a_failed_capture_does_not_make_changes_younger() {
        let mut changes = Changes::default();
        changes.on_facts(Some(at(1)), false);
        changes.on_begin();
        changes.on_failure(Some(at(2)));
        changes.on_facts(Some(at(4)), false);
        assert_eq!(lag_of(&changes, Some(0), 5), 4);
        changes.on_begin();
        changes.on_facts(None, true);
        changes.on_nothing_new();
        assert_eq!(lag_of(&changes, Some(0), 5), 0);
    }

    #[test]
    fn many_generations_are_counted_as_few_and_none_as_younger() {
        let mut changes = Changes::default();
        for number in 1..=100 {
            changes.add(TreeNumber(number), at(number));
        }
        assert!(changes.closed.len() <= CLOSED_MAX);
        for complete in 0..=100 {
            let truth = if complete == 100 { 0 } else { 200 - (complete + 1) };
            assert!(lag_of(&changes, Some(complete), 200) >= truth, "{complete}");
        }
        changes.on_complete(TreeNumber(99));
        assert_eq!(lag_of(&changes, Some(99), 200), 100);
        changes.on_complete(TreeNumber(100));
        assert_eq!(lag_of(&changes, Some(100), 200), 0);
    }

    #[test]
    fn a_generation_without_hints_is_as_old_as_the_look_that_found_it() {
        let mut changes = Changes::default();
        changes.on_begin();
        changes.on_closed(TreeNumber(1), None, at(3));
        assert_eq!(lag_of(&changes, None, 5), 2);
    }
}
