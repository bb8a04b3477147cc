//! The controller's timers, counted by two clocks.
//!
//! They are looked at before the core is told anything, so that a thread that was kept from running
//! learns that a lease is over before it learns what it missed. Nothing has to wake for them: the
//! tick of the data thread is short against every one of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::promotion::controller::{Bound, ControllerTimer};
use crate::promotion::{Clocks, Early, Late};
use crate::units::Instant;

/// Which timers run.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeMap<ControllerTimer, Timer>,
    /// Moments from which a timer may be counted later: when something was asked for.
    marks: VecDeque<Clocks>,
}

#[derive(Clone, Copy, Debug)]
enum Timer {
    Early(Early),
    Late(Late),
}

/// Moments that are remembered. Requests are repeated every 500 ms and beats leave every
/// `heartbeat.interval`; whatever is answered after so many of them is of no use.
const MARKS_MAX: usize = 128;

impl Timers {
    /// Remembers what both clocks showed when something was asked for.
    pub(super) fn mark(&mut self, asked: Clocks) {
        if self.marks.back() == Some(&asked) {
            return;
        }
        if self.marks.len() == MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(asked);
    }

    /// Fires `timer` so long after `from`, which is this moment or one that was marked.
    pub(super) fn set(
        &mut self,
        now: Clocks,
        timer: ControllerTimer,
        (from, after): (Instant, Duration),
        bound: Bound,
    ) {
        let since = if from == now.boottime {
            now
        } else {
            let marked = self.marks.iter().rev().find(|mark| mark.boottime == from);
            // A moment that nobody remembers: whatever was granted then is over by the other clock.
            marked.copied().unwrap_or(Clocks { boottime: from, raw: Instant(0) })
        };
        let made = match bound {
            Bound::Early => Timer::Early(Early::new(since, after)),
            Bound::Late => Timer::Late(Late::new(since, after)),
        };
        self.set.insert(timer, made);
    }

    /// The end of a lease that runs.
    pub(super) fn end_of(&self, timer: ControllerTimer) -> Option<Early> {
        match self.set.get(&timer) {
            Some(Timer::Early(early)) => Some(*early),
            Some(Timer::Late(_)) | None => None,
        }
    }

    /// The next timer that is over; it does not run any more.
    pub(super) fn fire(&mut self, now: Clocks) -> Option<ControllerTimer> {
        let is_over = |timer: &Timer| match timer {
            Timer::Early(early) => early.is_over(now),
            Timer::Late(late) => late.is_over(now),
        };
        let fired = self.set.iter().find(|(_, timer)| is_over(timer)).map(|(which, _)| *which)?;
        self.set.remove(&fired);
        Some(fired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boottime: u64, raw: u64) -> Clocks {
        Clocks { boottime: Instant(boottime), raw: Instant(raw) }
    }

    const AFTER: Duration = Duration::from_nanos(100);

    #[test]
    fn a_lease_counts_from_when_it_was_asked_for_by_either_clock() {
        let mut timers = Timers::default();
        timers.mark(at(1_000, 500));
        timers.mark(at(1_010, 510));
        let from = (Instant(1_000), AFTER);
        // Meanwhile the first clock was slow.
        timers.set(at(1_020, 580), ControllerTimer::PeerLease, from, Bound::Early);
        assert_eq!(timers.fire(at(1_030, 599)), None);
        assert_eq!(timers.fire(at(1_031, 600)), Some(ControllerTimer::PeerLease));
        assert_eq!(timers.fire(at(9_999, 9_999)), None, "it fires once");
    }

    #[test]
    fn of_what_is_over_at_once_the_ends_of_leases_fire_first() {
        let mut timers = Timers::default();
        let now = at(1_000, 1_000);
        let later = [ControllerTimer::Repeat, ControllerTimer::Look, ControllerTimer::Grace];
        let leases = [ControllerTimer::ArbiterLease, ControllerTimer::PeerLease];
        for timer in later.into_iter().chain(leases) {
            timers.set(now, timer, (now.boottime, AFTER), Bound::Early);
        }
        let fired: Vec<_> = std::iter::from_fn(|| timers.fire(at(9_000, 9_000))).collect();
        assert_eq!(fired, leases.into_iter().chain(later).collect::<Vec<_>>());
    }

    #[test]
    fn a_lease_that_was_asked_for_at_a_forgotten_moment_is_over() {
        let mut timers = Timers::default();
        for step in 0..=u64::try_from(MARKS_MAX).unwrap() {
            timers.mark(at(1_000 + step, 1_000 + step));
        }
        let from = (Instant(1_000), AFTER);
        timers.set(at(1_050, 1_050), ControllerTimer::ArbiterLease, from, Bound::Early);
        assert_eq!(timers.fire(at(1_050, 1_050)), Some(ControllerTimer::ArbiterLease));
    }

    #[test]
    fn a_grant_ends_when_both_clocks_say_so_and_the_last_setting_counts() {
        let mut timers = Timers::default();
        let set = |timers: &mut Timers, now: Clocks| {
            timers.set(now, ControllerTimer::Grant, (now.boottime, AFTER), Bound::Late);
        };
        set(&mut timers, at(1_000, 1_000));
        set(&mut timers, at(1_050, 1_050));
        assert_eq!(timers.fire(at(1_120, 1_120)), None);
        assert_eq!(timers.fire(at(1_200, 1_149)), None);
        assert_eq!(timers.fire(at(1_150, 1_150)), Some(ControllerTimer::Grant));
    }
}
