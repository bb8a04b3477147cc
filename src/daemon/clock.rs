//! The only clocks that decide anything.

use rustix::time::{ClockId, clock_gettime};

use crate::promotion::Clocks;
use crate::units::Instant;

/// Time since the machine started, suspended time included, so that a node that slept finds its
/// peer's silence as long as it was.
pub(super) fn now() -> Instant {
    read(ClockId::Boottime)
}

/// Both clocks by which leases are counted.
pub(super) fn both() -> Clocks {
    Clocks { boottime: read(ClockId::Boottime), raw: read(ClockId::MonotonicRaw) }
}

fn read(clock: ClockId) -> Instant {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
