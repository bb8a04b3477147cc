//! Which earlier generations of a secondary are kept.
//!
//! The way back to a generation leads through all that came after it, so what is dropped is always
//! the oldest ones, without a gap.

use crate::units::{Label, TreeNumber};

/// A generation that the secondary can go back to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Kept {
    /// Its number.
    pub number: TreeNumber,
    /// How much it promises.
    pub label: Label,
    /// What is held only to get back to it, in bytes; zero for the current one.
    pub held_bytes: u64,
    /// Whether deletes after it wait to be accepted by the operator.
    pub is_pinned: bool,
    /// Whether an apply that is under way may have to go back to it.
    pub is_in_use: bool,
}

/// What the operator wants, and what the disk allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// How many before the current one are kept in any case: `keep_generations`.
    pub keep: usize,
    /// How many bytes may be held to have one labelled stable or better: `keep_limit`.
    pub limit_bytes: u64,
    /// Bytes that must become free for an apply to go on; 1 if it is not known how many.
    pub wanted_bytes: u64,
}

/// The generations to be dropped, oldest first. `generations` come with the current one first,
/// numbers falling. For want of room none is given up if all that may go would not make enough of it.
pub fn retain(generations: &[Kept], policy: &Policy) -> Vec<TreeNumber> {
    let wanted = kept_count(generations, policy);
    let loose = generations.iter().skip(1).rev().take_while(|one| !one.is_pinned && !one.is_in_use);
    let loose_bytes = loose.fold(0_u64, |sum, one| sum.saturating_add(one.held_bytes));
    let wanted_bytes = if loose_bytes >= policy.wanted_bytes { policy.wanted_bytes } else { 0 };
    let mut dropped = Vec::new();
    let mut freed_bytes = 0_u64;
    for (at, one) in generations.iter().enumerate().skip(1).rev() {
        let is_spare = at >= wanted || freed_bytes < wanted_bytes;
        if one.is_pinned || one.is_in_use || !is_spare {
            break;
        }
        freed_bytes = freed_bytes.saturating_add(one.held_bytes);
        dropped.push(one.number);
    }
    dropped
}

/// Why a generation is kept.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Reason {
    /// The tree is this one.
    Current,
    /// Deletes after it wait to be accepted.
    Pinned,
    /// It is one of the `keep_generations` before the current one.
    Recent,
    /// It is the newest that is labelled stable or better, or between that one and the others.
    Stable,
    /// The way back to a pinned one leads through it.
    OnTheWay,
    /// It is not any more: the next pruning takes it.
    Spare,
}

impl Reason {
    /// As `generations` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Pinned => "pinned",
            Self::Recent => "recent",
            Self::Stable => "stable",
            Self::OnTheWay => "on the way to a pinned one",
            Self::Spare => "spare",
        }
    }
}

/// Why each of `generations`, which are as [`retain`] takes them, is kept.
pub fn reasons(generations: &[Kept], policy: &Policy) -> Vec<Reason> {
    let wanted = kept_count(generations, policy);
    let oldest_pin = generations.iter().rposition(|one| one.is_pinned || one.is_in_use);
    let reason = |(at, one): (usize, &Kept)| match at {
        0 => Reason::Current,
        _ if one.is_pinned => Reason::Pinned,
        _ if at <= policy.keep => Reason::Recent,
        _ if at < wanted => Reason::Stable,
        _ if oldest_pin.is_some_and(|pin| at < pin) => Reason::OnTheWay,
        _ => Reason::Spare,
    };
    generations.iter().enumerate().map(reason).collect()
}

/// How many from the current one on are wanted if there is room.
fn kept_count(generations: &[Kept], policy: &Policy) -> usize {
    let in_any_case = policy.keep.saturating_add(1).min(generations.len());
    let stable = generations.iter().position(|one| one.label >= Label::Stable);
    let Some(stable) = stable.filter(|at| *at >= in_any_case) else { return in_any_case };
    let way = generations.iter().take(stable + 1);
    let held = way.fold(0_u64, |sum, one| sum.saturating_add(one.held_bytes));
    if held <= policy.limit_bytes { stable + 1 } else { in_any_case }
}

#[cfg(test)]
mod tests {
    use super::Reason::{Current, OnTheWay, Pinned, Recent, Spare, Stable};
    use super::*;

    const POLICY: Policy = Policy { keep: 2, limit_bytes: 100, wanted_bytes: 0 };

    fn generations(labels: &[Label]) -> Vec<Kept> {
        let numbers = (0..labels.len() as u64).rev();
        let row = |(number, label): (u64, &Label)| Kept {
            number: TreeNumber(number),
            label: *label,
            held_bytes: 10,
            is_pinned: false,
            is_in_use: false,
        };
        numbers.zip(labels).map(row).collect()
    }

    fn dropped(generations: &[Kept], policy: &Policy) -> Vec<u64> {
        retain(generations, policy).into_iter().map(|number| number.0).collect()
    }

    #[test]
    fn the_current_one_and_as_many_before_it_as_asked_for_are_kept() {
        let all = generations(&[Label::Stable; 6]);
        assert_eq!(dropped(&all, &POLICY), [0, 1, 2]);
        assert_eq!(dropped(&all, &Policy { keep: 0, ..POLICY }), [0, 1, 2, 3, 4]);
        assert_eq!(dropped(&all, &Policy { keep: usize::MAX, ..POLICY }), [0; 0]);
        assert_eq!(dropped(&all[..1], &POLICY), [0; 0]);
        assert_eq!(dropped(&[], &POLICY), [0; 0]);
    }

    #[test]
    fn more_are_kept_up_to_a_stable_one_if_the_limit_allows_it() {
        let mut labels = [Label::Fuzzy; 6];
        labels[4] = Label::Stable;
        let all = generations(&labels);
        assert_eq!(dropped(&all, &POLICY), [0]);
        assert_eq!(dropped(&all, &Policy { limit_bytes: 50, ..POLICY }), [0]);
        assert_eq!(dropped(&all, &Policy { limit_bytes: 49, ..POLICY }), [0, 1, 2]);
        assert_eq!(dropped(&generations(&[Label::Fuzzy; 6]), &POLICY), [0, 1, 2]);
    }

    #[test]
    fn a_pinned_one_and_one_in_use_stay_with_all_after_them() {
        let mut all = generations(&[Label::Stable; 6]);
        all[4].is_pinned = true;
        assert_eq!(dropped(&all, &POLICY), [0]);
        all[5].is_in_use = true;
        assert_eq!(dropped(&all, &Policy { wanted_bytes: u64::MAX, ..POLICY }), [0; 0]);
    }

    #[test]
    fn each_generation_has_a_reason_and_what_is_dropped_is_spare() {
        let mut labels = [Label::Fuzzy; 7];
        labels[4] = Label::Stable;
        let mut all = generations(&labels);
        let expected = [Current, Recent, Recent, Stable, Stable, Spare, Spare];
        assert_eq!(reasons(&all, &POLICY), expected);
        assert_eq!(dropped(&all, &POLICY), [0, 1]);
        all[6].is_pinned = true;
        let expected = [Current, Recent, Recent, Stable, Stable, OnTheWay, Pinned];
        assert_eq!(reasons(&all, &POLICY), expected);
        assert_eq!(dropped(&all, &POLICY), [0; 0]);
    }

    #[test]
    fn short_of_space_the_oldest_go_first_and_the_current_one_never() {
        let all = generations(&[Label::Stable; 3]);
        assert_eq!(dropped(&all, &Policy { wanted_bytes: 10, ..POLICY }), [0]);
        assert_eq!(dropped(&all, &Policy { wanted_bytes: 11, ..POLICY }), [0, 1]);
        assert_eq!(dropped(&all, &Policy { wanted_bytes: 20, ..POLICY }), [0, 1]);
        // How many bytes are missing is not known: the oldest goes.
        assert_eq!(dropped(&all, &Policy { wanted_bytes: 1, ..POLICY }), [0]);
    }

    #[test]
    fn nothing_is_given_up_for_room_that_cannot_be_made() {
        let mut all = generations(&[Label::Stable; 4]);
        let two = Policy { keep: 3, wanted_bytes: 31, ..POLICY };
        assert_eq!(dropped(&all, &two), [0; 0]);
        assert_eq!(dropped(&all, &Policy { wanted_bytes: 30, ..two }), [0, 1, 2]);
        all[1].is_pinned = true;
        assert_eq!(dropped(&all, &Policy { wanted_bytes: 30, ..two }), [0; 0]);
        assert_eq!(dropped(&all, &Policy { wanted_bytes: 20, ..two }), [0, 1]);
        // What nobody wants goes all the same.
        assert_eq!(dropped(&all, &Policy { keep: 2, ..two }), [0]);
        for one in &mut all {
            (one.held_bytes, one.is_pinned) = (0, false);
        }
        assert_eq!(dropped(&all, &Policy { wanted_bytes: 1, ..two }), [0; 0]);
    }
}
