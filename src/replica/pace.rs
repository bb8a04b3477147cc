//! How fast a resync goes: it fills an idle link, yields to clients and always moves.
//!
//! The window is the number of chunks in motion. Every 100 ms it grows while clients are quiet or
//! their latency is near what it was without a resync, else it is halved. A cap in bytes per
//! second is applied on top, if one is configured.

use std::time::Duration;

use super::settings::Settings;
use crate::units::Instant;

/// State of the controller.
#[derive(Clone, Debug, Hash)]
pub(super) struct Pace {
    window: usize,
    budget: i64,
    last: Instant,
    latency_sum: Duration,
    latency_count: u32,
    baseline: Option<Duration>,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            window: WINDOW_START,
            budget: 0,
            last: now,
            latency_sum: Duration::ZERO,
            latency_count: 0,
            baseline: None,
        }
    }

    /// Chunks that may be in motion.
    pub(super) fn window(&self, settings: &Settings) -> usize {
        self.window.clamp(1, settings.resync_chunks_max)
    }

    /// Whether the cap, if there is one, leaves room.
    pub(super) fn has_budget(&self, settings: &Settings) -> bool {
        settings.resync_rate.is_none() || self.budget > 0
    }

    pub(super) fn spend(&mut self, len: u64) {
        self.budget = self.budget.saturating_sub_unsigned(len);
    }

    /// A client's write took this long.
    pub(super) fn note_latency(&mut self, latency: Duration) {
        self.latency_sum += latency;
        self.latency_count += 1;
    }

    /// Adapts window and budget. `last_request` is when a client asked last.
    pub(super) fn tick(
        &mut self,
        now: Instant,
        last_request: Instant,
        is_resyncing: bool,
        settings: &Settings,
    ) {
        let passed = now.since(self.last);
        if passed < PERIOD {
            return;
        }
        self.last = now;
        if let Some(rate) = settings.resync_rate {
            let granted = u128::from(rate) * passed.as_millis() / 1000;
            let granted = i64::try_from(granted).unwrap_or(i64::MAX);
            let most = i64::try_from(rate).unwrap_or(i64::MAX).max(1);
            self.budget = self.budget.saturating_add(granted).min(most);
        }
        let mean = self.latency_sum.checked_div(self.latency_count);
        self.latency_sum = Duration::ZERO;
        self.latency_count = 0;
        if !is_resyncing {
            self.window = WINDOW_START;
            if let Some(mean) = mean {
                self.baseline = Some(self.baseline.map_or(mean, |base| base.min(mean)));
            }
            return;
        }
        let is_idle = now.since(last_request) >= Duration::from_secs(1);
        let bound = self.baseline.map(|base| (base * 2).max(base + Duration::from_millis(1)));
        self.window = match (mean, bound) {
            (None, _) if is_idle => self.window + WINDOW_START,
            (Some(mean), Some(bound)) if mean > bound => self.window / 2,
            (Some(_) | None, _) => self.window + 2,
        }
        .clamp(1, settings.resync_chunks_max);
    }
}

/// 1 MiB.
const WINDOW_START: usize = 16;
const PERIOD: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_yields_to_slow_clients_and_never_closes() {
        let settings = Settings::default();
        let mut pace = Pace::new(Instant(0));
        let at = |ms: u64| Instant(ms * 1_000_000);
        pace.note_latency(Duration::from_micros(100));
        pace.tick(at(100), at(100), false, &settings);
        for round in 2..12 {
            pace.note_latency(Duration::from_millis(20));
            pace.tick(at(round * 100), at(round * 100), true, &settings);
        }
        assert_eq!(pace.window(&settings), 1);
        pace.tick(at(9_000), at(1_200), true, &settings);
        assert!(pace.window(&settings) > WINDOW_START);
    }

    #[test]
    fn a_cap_is_kept_over_time() {
        let settings = Settings { resync_rate: Some(1 << 20), ..Settings::default() };
        let mut pace = Pace::new(Instant(0));
        let mut sent = 0u64;
        for round in 1..=100u64 {
            pace.tick(Instant(round * 100_000_000), Instant(0), true, &settings);
            while pace.has_budget(&settings) {
                pace.spend(65_536);
                sent += 65_536;
            }
        }
        assert!(sent <= 11 << 20, "{sent} bytes in ten seconds");
        assert!(sent >= 9 << 20, "{sent} bytes in ten seconds");
    }
}
