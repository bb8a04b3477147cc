//! How far behind the secondary is, and whether it is fit to take over; what a window makes of a
//! generation.

use std::time::Duration;

use crate::units::{Instant, Label, TreeNumber};

/// Who held the writers while a generation was captured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Held {
    /// Nobody.
    Nobody,
    /// The kernel, or a snapshot was read.
    Kernel,
    /// The application itself promised not to write.
    Application,
}

/// What happened between the begin of a capture and the end of its last check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Window {
    /// Who held the writers.
    pub held: Held,
    /// Whether a change was seen while they were held: what was promised is not so.
    pub change_seen: bool,
    /// Whether the closing check found each entry as the first look had, with no event lost.
    pub is_closed: bool,
    /// Entries that did not hold still, are not verified or cannot be read.
    pub fuzzy_count: u64,
}

/// The best label that is true of a window. Whoever held the writers, the check must have closed:
/// labels are checked, not believed.
pub fn label(window: &Window) -> Label {
    if window.fuzzy_count > 0 || !window.is_closed {
        return Label::Fuzzy;
    }
    match (window.held, window.change_seen) {
        (Held::Nobody, _) => Label::Stable,
        (Held::Kernel | Held::Application, true) => Label::Fuzzy,
        (Held::Kernel, false) => Label::Frozen,
        (Held::Application, false) => Label::Quiesced,
    }
}

/// Changes that were seen, and in which generation they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pending {
    /// The generation that has them; `None` if none does yet.
    pub number: Option<TreeNumber>,
    /// When the oldest of them was seen.
    pub oldest: Instant,
}

/// The age of the oldest change seen that is in no complete generation; zero if there is none.
pub fn lag(pending: &[Pending], complete: Option<TreeNumber>, now: Instant) -> Duration {
    let is_open = |one: &&Pending| one.number.is_none_or(|number| Some(number) > complete);
    let oldest = pending.iter().filter(is_open).map(|one| one.oldest).min();
    oldest.map_or(Duration::ZERO, |oldest| now.since(oldest))
}

/// What decides whether the secondary may take over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fitness {
    /// See [`lag`].
    pub lag: Duration,
    /// Bound that the operator set.
    pub max_lag: Duration,
    /// The newest generation that is complete on the secondary.
    pub complete: Option<TreeNumber>,
    /// The newest generation that the source closed.
    pub newest: TreeNumber,
    /// Whether the secondary's tree is not what its index says.
    pub is_inconsistent: bool,
    /// Whether content on the secondary was not read again since a power loss.
    pub is_unsure: bool,
    /// Whether a guard halted the source.
    pub is_halted: bool,
}

/// Why the secondary is not fit.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum UnfitWhy {
    /// It holds no complete generation.
    Nothing,
    /// Its tree is not what its index says.
    Inconsistent,
    /// It lost power, and content was not read again yet.
    Unsure,
    /// A guard halted the source.
    Halted,
    /// It is too far behind.
    Lag,
}

impl UnfitWhy {
    /// As `explain` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "no complete generation",
            Self::Inconsistent => "inconsistent",
            Self::Unsure => "unsure after a power loss",
            Self::Halted => "the source is halted",
            Self::Lag => "too far behind",
        }
    }
}

/// Whether the secondary may take over, as the source says it to `promotion`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// It may.
    Fit,
    /// It may not.
    Unfit {
        /// Why; what it became unfit for, as long as nothing graver is the case.
        why: UnfitWhy,
        /// Since when nothing speaks against it any more, if so. It must last [`CALM`].
        calm_since: Option<Instant>,
    },
}

/// How long a secondary that was unfit must be well before it is fit again. Source: directory.md
/// 13.
pub const CALM: Duration = Duration::from_secs(30);

/// The standing after `before`. What excludes is decided at 80 % of the bound, because the round
/// trip that excludes takes the rest; what admits again at half of it and after [`CALM`], so that
/// it does not flap.
pub fn standing(before: Standing, facts: &Fitness, now: Instant) -> Standing {
    let obstacle = obstacle(facts);
    let before_since = match (before, obstacle) {
        (_, Some(why)) => return Standing::Unfit { why, calm_since: None },
        (Standing::Fit, None) => return Standing::Fit,
        (Standing::Unfit { why, calm_since }, None) => (why, calm_since),
    };
    let (why, calm_since) = before_since;
    let is_calm = facts.lag < facts.max_lag / 2 && facts.complete >= Some(facts.newest);
    if !is_calm {
        return Standing::Unfit { why, calm_since: None };
    }
    let since = calm_since.unwrap_or(now);
    if now.since(since) >= CALM {
        return Standing::Fit;
    }
    Standing::Unfit { why, calm_since: Some(since) }
}

/// What speaks against it, the gravest first.
fn obstacle(facts: &Fitness) -> Option<UnfitWhy> {
    let is_late = facts.lag > facts.max_lag / 5 * 4;
    [
        (facts.complete.is_none(), UnfitWhy::Nothing),
        (facts.is_inconsistent, UnfitWhy::Inconsistent),
        (facts.is_unsure, UnfitWhy::Unsure),
        (facts.is_halted, UnfitWhy::Halted),
        (is_late, UnfitWhy::Lag),
    ]
    .into_iter()
    .find_map(|(is_so, why)| is_so.then_some(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_LAG: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    fn well() -> Fitness {
        Fitness {
            lag: Duration::ZERO,
            max_lag: MAX_LAG,
            complete: Some(TreeNumber(5)),
            newest: TreeNumber(5),
            is_inconsistent: false,
            is_unsure: false,
            is_halted: false,
        }
    }

    #[test]
    fn a_label_says_no_more_than_what_was_seen() {
        use Held::{Application, Kernel, Nobody};
        let all = [
            (Nobody, false, true, 0, Label::Stable),
            (Nobody, true, true, 0, Label::Stable),
            (Kernel, false, true, 0, Label::Frozen),
            (Application, false, true, 0, Label::Quiesced),
            (Kernel, true, true, 0, Label::Fuzzy),
            (Application, true, true, 0, Label::Fuzzy),
        ];
        for (held, change_seen, is_closed, fuzzy_count, expected) in all {
            let window = Window { held, change_seen, is_closed, fuzzy_count };
            assert_eq!(label(&window), expected, "{window:?}");
            assert_eq!(label(&Window { fuzzy_count: 1, ..window }), Label::Fuzzy);
            assert_eq!(label(&Window { is_closed: false, ..window }), Label::Fuzzy);
        }
    }

    #[test]
    fn lag_is_the_age_of_the_oldest_change_that_is_nowhere_complete() {
        let of = |number, second| Pending { number, oldest: at(second) };
        let pending = [of(Some(TreeNumber(4)), 1), of(Some(TreeNumber(5)), 3), of(None, 7)];
        let lag_at = |complete: Option<u64>| lag(&pending, complete.map(TreeNumber), at(10));
        assert_eq!(lag_at(None), Duration::from_secs(9));
        assert_eq!(lag_at(Some(3)), Duration::from_secs(9));
        assert_eq!(lag_at(Some(4)), Duration::from_secs(7));
        assert_eq!(lag_at(Some(9)), Duration::from_secs(3), "a change in no generation counts");
        assert_eq!(lag(&pending[..2], Some(TreeNumber(5)), at(10)), Duration::ZERO);
        assert_eq!(lag(&[], None, at(10)), Duration::ZERO);
    }

    #[test]
    fn each_obstacle_alone_makes_unfit_and_the_gravest_is_named() {
        let bad = |change: fn(&mut Fitness)| {
            let mut facts = well();
            change(&mut facts);
            facts
        };
        let cases = [
            (bad(|facts| facts.complete = None), UnfitWhy::Nothing),
            (bad(|facts| facts.is_inconsistent = true), UnfitWhy::Inconsistent),
            (bad(|facts| facts.is_unsure = true), UnfitWhy::Unsure),
            (bad(|facts| facts.is_halted = true), UnfitWhy::Halted),
            (bad(|facts| facts.lag = Duration::from_millis(8001)), UnfitWhy::Lag),
        ];
        for (facts, why) in cases {
            let unfit = Standing::Unfit { why, calm_since: None };
            assert_eq!(standing(Standing::Fit, &facts, at(0)), unfit);
            let calm = Standing::Unfit { why: UnfitWhy::Nothing, calm_since: Some(at(0)) };
            assert_eq!(standing(calm, &facts, at(100)), unfit, "an obstacle ends the calm");
        }
        let all = Fitness { complete: None, is_halted: true, lag: MAX_LAG, ..well() };
        let Standing::Unfit { why, .. } = standing(Standing::Fit, &all, at(0)) else {
            panic!("fit")
        };
        assert_eq!(why, UnfitWhy::Nothing);
    }

    #[test]
    fn a_fit_secondary_stays_fit_up_to_four_fifths_of_the_bound() {
        let facts = Fitness { lag: Duration::from_secs(8), newest: TreeNumber(9), ..well() };
        assert_eq!(standing(Standing::Fit, &facts, at(0)), Standing::Fit);
    }

    #[test]
    fn an_unfit_secondary_is_fit_after_half_a_minute_below_half_the_bound() {
        let unfit = |calm| Standing::Unfit { why: UnfitWhy::Lag, calm_since: calm };
        let calm = unfit(Some(at(100)));
        assert_eq!(standing(unfit(None), &well(), at(100)), calm);
        assert_eq!(standing(calm, &well(), at(129)), calm);
        assert_eq!(standing(calm, &well(), at(130)), Standing::Fit);
        let half = Fitness { lag: MAX_LAG / 2, ..well() };
        assert_eq!(standing(calm, &half, at(200)), unfit(None), "half is not below half");
        let newer = Fitness { newest: TreeNumber(6), ..well() };
        assert_eq!(standing(calm, &newer, at(200)), unfit(None), "the newest must be complete");
    }
}
