//! Leases are counted by two clocks, so that none of them alone can make one longer or shorter.
//!
//! `CLOCK_MONOTONIC_RAW` is not slewed but stands still while the machine is suspended;
//! `CLOCK_BOOTTIME` counts that, but is slewed. Who *holds* something believes that it is over as
//! soon as either clock says so, who *grants* it only when both do. Reading them is left to
//! `daemon`.

use std::time::Duration;

use crate::units::Instant;

/// What both clocks showed at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Clocks {
    /// `CLOCK_BOOTTIME`.
    pub boottime: Instant,
    /// `CLOCK_MONOTONIC_RAW`.
    pub raw: Instant,
}

impl Clocks {
    /// Both moved on by the same time.
    #[must_use]
    pub fn plus(self, after: Duration) -> Self {
        Self { boottime: self.boottime.plus(after), raw: self.raw.plus(after) }
    }

    /// The least time that can have passed since `earlier`.
    pub fn least_since(self, earlier: Self) -> Duration {
        self.boottime.since(earlier.boottime).min(self.raw.since(earlier.raw))
    }

    /// The most time that can have passed since `earlier`.
    pub fn most_since(self, earlier: Self) -> Duration {
        self.boottime.since(earlier.boottime).max(self.raw.since(earlier.raw))
    }
}

/// A timer of a grantor: over only when both clocks say so.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Late {
    since: Clocks,
    after: Duration,
}

impl Late {
    /// Starts at `since`.
    pub fn new(since: Clocks, after: Duration) -> Self {
        Self { since, after }
    }

    /// Whether it is over.
    pub fn is_over(self, now: Clocks) -> bool {
        now.least_since(self.since) >= self.after
    }
}

/// A timer of a holder: over as soon as one clock says so.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Early {
    since: Clocks,
    after: Duration,
}

impl Early {
    /// Starts at `since`.
    pub fn new(since: Clocks, after: Duration) -> Self {
        Self { since, after }
    }

    /// Whether it is over.
    pub fn is_over(self, now: Clocks) -> bool {
        now.most_since(self.since) >= self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Clocks = Clocks { boottime: Instant(5_000), raw: Instant(900) };

    fn later(boottime: u64, raw: u64) -> Clocks {
        Clocks { boottime: Instant(START.boottime.0 + boottime), raw: Instant(START.raw.0 + raw) }
    }

    #[test]
    fn a_grantor_waits_for_the_slower_clock_and_a_holder_for_the_faster_one() {
        let after = Duration::from_nanos(100);
        let (late, early) = (Late::new(START, after), Early::new(START, after));
        for (boottime, raw, late_is_over, early_is_over) in [
            (0, 0, false, false),
            (99, 99, false, false),
            (100, 99, false, true),
            (99, 100, false, true),
            (100, 100, true, true),
            // Suspended: only one of them counts that.
            (1_000_000, 3, false, true),
            (3, 1_000_000, false, true),
        ] {
            let now = later(boottime, raw);
            assert_eq!(late.is_over(now), late_is_over, "{boottime} {raw}");
            assert_eq!(early.is_over(now), early_is_over, "{boottime} {raw}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_ends_nothing_for_a_grantor() {
        let late = Late::new(START, Duration::from_nanos(1));
        let back = Clocks { boottime: Instant(0), raw: Instant(START.raw.0 + 500) };
        assert!(!late.is_over(back));
    }

    #[test]
    fn a_holder_that_started_no_later_never_outlives_its_grantor() {
        let after = Duration::from_nanos(50);
        for boottime in 0..80 {
            for raw in 0..80 {
                let now = later(boottime, raw);
                let held = !Early::new(START, after).is_over(now);
                let granted = !Late::new(START, after).is_over(now);
                assert!(!held || granted, "{boottime} {raw}");
            }
        }
    }
}
