//! When a generation is captured.

use std::time::Duration;

use super::terms::{DirtyFacts, SourceSettings};
use crate::units::Instant;

/// Longest pause between two attempts at what failed.
const RETRY_MAX: Duration = Duration::from_mins(1);
/// Pauses double so many times at most.
const DOUBLINGS_MAX: u32 = 16;

/// A pause that doubles with each failure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    failures: u32,
    until: Instant,
}

impl Pause {
    /// It failed.
    pub(super) fn on_failure(&mut self, now: Instant, first: Duration) {
        let longer = first.saturating_mul(1 << self.failures.min(DOUBLINGS_MAX));
        self.until = now.plus(longer.min(RETRY_MAX));
        self.failures = self.failures.saturating_add(1);
    }

    /// It was done.
    pub(super) fn on_success(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until <= now
    }
}

/// A capture that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    pub(super) began: Instant,
    everything: bool,
    /// A generation could not be sent, and this one will be sent in its place.
    is_again: bool,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Captures {
    running: Option<Running>,
    facts: DirtyFacts,
    /// When everything is to be looked at again.
    scan_at: Instant,
    /// When the last look at everything began that was finished.
    scanned: Option<Instant>,
    /// A generation cannot be sent any more: a capture that begins from here on replaces it.
    again: bool,
    pause: Pause,
    pub(super) is_halted: bool,
}

impl Captures {
    /// Begins anew, as if nothing was ever looked at; a capture that runs is not forgotten, nor that what is
    /// newest cannot be sent.
    pub(super) fn restart(&mut self, now: Instant) {
        let Self { running, again, .. } = *self;
        *self = Self { running, again, scan_at: now, ..Self::default() };
    }

    /// Whatever could not be sent may be tried once more.
    pub(super) fn on_try_again(&mut self) {
        self.again = false;
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// When the last finished look at everything began.
    pub(super) fn scanned(&self) -> Option<Instant> {
        self.scanned
    }

    /// Whether what is newest may be sent.
    pub(super) fn allows_sending(&self) -> bool {
        !self.is_halted && !self.again && !self.running.is_some_and(|it| it.is_again)
    }

    pub(super) fn on_facts(&mut self, facts: DirtyFacts) {
        self.facts = facts;
    }

    /// What is newest cannot be sent.
    pub(super) fn on_gone(&mut self) {
        self.again = true;
    }

    /// Begins one if it is time; says whether to look at everything. A sync does not wait for a pause to end:
    /// somebody may have mended what was wrong.
    pub(super) fn begin(
        &mut self,
        now: Instant,
        settings: &SourceSettings,
        is_sync: bool,
    ) -> Option<bool> {
        if self.running.is_some() {
            return None;
        }
        let is_scan = self.scan_at <= now;
        let is_due = is_scan || self.again || self.has_settled(now, settings);
        let is_time = is_due && self.pause.is_over(now);
        if !is_sync && !is_time {
            return None;
        }
        let everything = is_sync || is_scan;
        self.running = Some(Running { began: now, everything, is_again: self.again });
        self.again = false;
        self.facts = DirtyFacts::default();
        Some(everything)
    }

    fn has_settled(&self, now: Instant, settings: &SourceSettings) -> bool {
        let too_old = self.facts.oldest.map(|oldest| oldest.plus(settings.pace.oldest_max));
        let next = self.facts.next_due.into_iter().chain(too_old).min();
        self.facts.count > 0 && next.is_some_and(|next| next <= now)
    }

    /// It made a generation, or found nothing new. Gives what ran.
    pub(super) fn on_captured(
        &mut self,
        now: Instant,
        settings: &SourceSettings,
        was_full: bool,
    ) -> Option<Running> {
        let ran = self.running.take()?;
        // What was told meanwhile may have been taken: whether it is due is told anew.
        self.facts = DirtyFacts::default();
        self.is_halted = false;
        if was_full {
            self.scanned = Some(ran.began);
            self.scan_at = now.plus(settings.full_scan);
        }
        if ran.everything && !was_full {
            // Wanted and not done: as good as failed.
            self.pause.on_failure(now, settings.pace.settle);
        } else {
            self.pause.on_success();
        }
        Some(ran)
    }

    /// It made none.
    pub(super) fn on_failure(&mut self, now: Instant, settings: &SourceSettings) {
        let Some(ran) = self.running.take() else { return };
        self.facts = DirtyFacts::default();
        self.again |= ran.is_again;
        self.pause.on_failure(now, settings.pace.settle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_a_minute() {
        let mut pause = Pause::default();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            let now = Instant(7);
            pause.on_failure(now, Duration::from_millis(200));
            pauses.push(pause.until.since(now));
        }
        assert_eq!(pauses[0], Duration::from_millis(200));
        assert_eq!(pauses[1], Duration::from_millis(400));
        assert!(pauses.is_sorted() && pauses[39] == RETRY_MAX);
        assert!(!pause.is_over(Instant(8)));
        pause.on_success();
        assert!(pause.is_over(Instant(0)));
    }
}
