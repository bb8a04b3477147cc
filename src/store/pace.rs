//! Whether the data thread may call the kernel itself, or must ask the pool.
//!
//! Where a file system cannot say beforehand whether a call would block (ext4 and tmpfs refuse
//! `RWF_NOWAIT` for writes), the only way to know is to measure: a call into the page cache takes
//! microseconds, waking another thread and being woken takes fifty of them, and a writer that the
//! kernel throttles waits for milliseconds.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds that a call into the page cache may take at most, besides [`NANOS_PER_BYTE`].
const CALL_NANOS_MAX: u64 = 2_000_000;
/// Allowance for the length of a call: first touches of uncached pages cost up to 10 us per 4 KiB.
const NANOS_PER_BYTE: u64 = 4;
/// So many slow calls with fewer than [`FAST_RUN`] fast ones between them: stop calling inline.
const SLOW_MAX: u32 = 3;
/// So many fast calls in a row: the slow ones before were accidents.
const FAST_RUN: u32 = 64;
/// How long calls go to the pool before the next attempt.
const REST_NANOS: u64 = 1_000_000_000;

/// Watches how long calls on the data thread take.
#[derive(Debug, Default)]
pub(super) struct Pace {
    slow: u32,
    fast_run: u32,
    rests_until: u64,
}

impl Pace {
    /// Whether a call may be made inline at `now`.
    pub(super) fn allows(&self, now: u64) -> bool {
        now >= self.rests_until
    }

    /// Notes a call of `len` bytes that ran from `began` to `ended`.
    pub(super) fn note(&mut self, began: u64, ended: u64, len: usize) {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        let allowed = CALL_NANOS_MAX.saturating_add(len.saturating_mul(NANOS_PER_BYTE));
        if ended.saturating_sub(began) <= allowed {
            self.fast_run += 1;
            if self.fast_run >= FAST_RUN {
                (self.slow, self.fast_run) = (0, 0);
            }
            return;
        }
        self.fast_run = 0;
        self.slow += 1;
        if self.slow >= SLOW_MAX {
            self.rests_until = ended.saturating_add(REST_NANOS);
            // After the rest, one more slow call is enough: the medium is still slow.
            self.slow = SLOW_MAX - 1;
        }
    }
}

/// Nanoseconds of the monotonic clock. Only ever used to choose the thread of a call.
pub(super) fn monotonic_nanos() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: u64 = CALL_NANOS_MAX + 1;

    #[test]
    fn a_few_slow_calls_send_the_next_ones_to_the_pool_for_a_while() {
        let mut pace = Pace::default();
        for _ in 0..SLOW_MAX {
            assert!(pace.allows(0));
            pace.note(0, SLOW, 0);
        }
        assert!(!pace.allows(SLOW));
        assert!(!pace.allows(SLOW + REST_NANOS - 1));
        assert!(pace.allows(SLOW + REST_NANOS));
        let began = SLOW + REST_NANOS;
        pace.note(began, began + SLOW, 0);
        assert!(!pace.allows(began + SLOW), "one more is enough after a rest");
    }

    #[test]
    fn slow_calls_far_apart_are_accidents() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.note(0, SLOW, 0);
            for _ in 0..FAST_RUN {
                pace.note(0, 1, 0);
            }
        }
        assert!(pace.allows(SLOW));
    }

    #[test]
    fn a_long_call_may_take_longer() {
        let mut pace = Pace::default();
        for _ in 0..20 {
            pace.note(0, SLOW, 1 << 20);
        }
        assert!(pace.allows(SLOW));
    }
}
