//! Whether a node hears the witness.
//!
//! What a node asks may arrive while nothing comes back: it would change the record, make the other
//! node ineligible, and never learn it, so that nobody could serve. Each request therefore says how
//! many letters the node has heard, and whoever has missed one for long is not listened to. It asks
//! again, so nothing is lost.

use std::collections::VecDeque;
use std::time::Duration;

use crate::promotion::Clocks;

/// What a node was told over one connection, and what of it may not have arrived.
#[derive(Debug)]
pub(super) struct Hearing {
    /// Letters that it was told.
    told: u64,
    unheard: VecDeque<Batch>,
}

/// Letters that were told shortly one after the other.
#[derive(Clone, Copy, Debug)]
struct Batch {
    /// The number of the last one; the Welcome is the first letter of all.
    last: u64,
    /// When the first one was told.
    since: Clocks,
}

/// A node that has not heard for so long what it was told is not listened to. Less than the silence
/// after which a primary takes its peer for lost, and asks to go on alone.
pub(super) const HEARD_MAX: Duration = Duration::from_millis(800);

/// Letters within this time count as told at once.
const BATCH_SPAN: Duration = Duration::from_millis(50);

/// More batches than are told within [`HEARD_MAX`].
const BATCHES_MAX: usize = 32;

impl Hearing {
    /// Of a node that is about to be told the Welcome: it asks nothing before it has heard that.
    pub(super) fn begin() -> Self {
        Self { told: 1, unheard: VecDeque::new() }
    }

    /// It is told one more letter.
    pub(super) fn tell(&mut self, now: Clocks) {
        self.told += 1;
        let is_full = self.unheard.len() >= BATCHES_MAX;
        match self.unheard.back_mut() {
            Some(batch) if is_full || now.most_since(batch.since) < BATCH_SPAN => {
                batch.last = self.told;
            }
            Some(_) | None => self.unheard.push_back(Batch { last: self.told, since: now }),
        }
    }

    /// It has heard so many letters. Returns whether that can be.
    pub(super) fn hear(&mut self, heard: u64) -> bool {
        while self.unheard.front().is_some_and(|batch| batch.last <= heard) {
            self.unheard.pop_front();
        }
        heard <= self.told
    }

    /// Whether it has missed something for too long.
    pub(super) fn is_deaf(&self, now: Clocks) -> bool {
        self.unheard.front().is_some_and(|batch| now.most_since(batch.since) > HEARD_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Instant;

    fn at(ms: u64) -> Clocks {
        Clocks::default().plus(Duration::from_millis(ms))
    }

    #[test]
    fn whoever_missed_one_letter_for_long_is_deaf_until_it_has_heard_it() {
        let mut hearing = Hearing::begin();
        assert!(hearing.hear(1) && !hearing.is_deaf(at(1 << 30)), "there was nothing to hear");
        for (ms, number) in [(0, 2), (100, 3), (700, 4)] {
            hearing.tell(at(ms));
            assert_eq!(hearing.told, number);
        }
        assert!(!hearing.is_deaf(at(800)) && hearing.is_deaf(at(801)));
        assert!(hearing.hear(3) && !hearing.is_deaf(at(801)));
        assert!(hearing.is_deaf(at(1_501)));
        assert!(hearing.hear(4) && !hearing.is_deaf(at(1 << 30)));
        assert!(!hearing.hear(5), "it was never told");
    }

    #[test]
    fn either_clock_is_enough_and_what_is_remembered_has_a_limit() {
        let mut hearing = Hearing::begin();
        for ms in 0..10_000 {
            hearing.tell(at(ms));
        }
        assert_eq!(hearing.unheard.len(), BATCHES_MAX);
        assert!(hearing.hear(hearing.told) && hearing.unheard.is_empty());
        hearing.tell(at(0));
        let slept = Clocks { boottime: at(900).boottime, raw: Instant(0) };
        assert!(hearing.is_deaf(slept));
    }
}
