//! The decision table: the first row that matches.
//!
//! It is read for the pair, not for one of its nodes. Every question is put to both nodes alike,
//! so no row can prefer a node but by its state; only the last one falls back to the order.

use super::reason::Why;
use super::{Relation, Standpoint};
use crate::units::{
    DiskReason, DiskState, Outcome, ReplicationMode, Resolution, Role, Side, Transfer,
};

/// Two nodes that meet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair<'a> {
    pub(super) first: &'a Standpoint,
    pub(super) second: &'a Standpoint,
}

/// What a row says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Ruling {
    pub(super) row: u8,
    pub(super) why: Why,
    verdict: Verdict,
}

/// A verdict for the pair.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    InSync,
    /// This node is the source.
    From(Side, Transfer),
    SplitBrain,
    Unrelated,
    Refused,
}

impl Ruling {
    pub(super) fn refused(row: u8, why: Why) -> Self {
        Self { row, why, verdict: Verdict::Refused }
    }

    /// `source` sends all blocks, whatever is marked.
    fn everything_from(row: u8, source: Side, why: Why) -> Self {
        Self { row, why, verdict: Verdict::From(source, Transfer::ResyncAll) }
    }

    fn split_brain(row: u8, why: Why) -> Self {
        Self { row, why, verdict: Verdict::SplitBrain }
    }

    fn unrelated(row: u8, why: Why) -> Self {
        Self { row, why, verdict: Verdict::Unrelated }
    }

    /// The verdict as the node at `side` sees it.
    pub(super) fn outcome(self, side: Side) -> Outcome {
        match self.verdict {
            Verdict::InSync => Outcome::InSync,
            Verdict::From(source, transfer) if source == side => Outcome::Source(transfer),
            Verdict::From(_, transfer) => Outcome::Target(transfer),
            Verdict::SplitBrain => Outcome::SplitBrain,
            Verdict::Unrelated => Outcome::Unrelated,
            Verdict::Refused => Outcome::Refused,
        }
    }
}

impl Pair<'_> {
    /// The first row that matches.
    pub(super) fn rule(&self) -> Ruling {
        let ruling = self
            .rule_on_identity()
            .or_else(|| self.rule_on_usable_disks())
            .or_else(|| self.rule_on_resolution())
            .or_else(|| self.rule_on_two_primaries())
            .or_else(|| self.rule_on_interrupted_resync())
            .unwrap_or_else(|| self.rule_on_lineage());
        match ruling.verdict {
            Verdict::From(source, _) if self.at(source.other()).role == Role::Primary => {
                Ruling::refused(0, Why::TargetIsPrimary(source.other()))
            }
            _ => ruling,
        }
    }

    /// Rows 1 and 2: is this the right peer at all?
    fn rule_on_identity(&self) -> Option<Ruling> {
        let (first, second) = (self.first, self.second);
        // A node that was never complete takes the identity of its source.
        let have_identity = self.both(|node| node.generation.is_some());
        if have_identity && first.resource_id != second.resource_id {
            return Some(Ruling::unrelated(1, Why::OtherResource));
        }
        if first.replica_id == second.replica_id {
            return Some(Ruling::refused(2, Why::SameReplica));
        }
        let sizes_fit = first.size == second.size
            || first.size == second.size_next
            || first.size_next == second.size;
        if !sizes_fit {
            return Some(Ruling::refused(2, Why::Size));
        }
        let contradict = match (first.lineage(), second.lineage()) {
            (Some(first), Some(second)) => first.contradicts(&second),
            (None, _) | (_, None) => false,
        };
        contradict.then_some(Ruling::refused(2, Why::Contradiction))
    }

    /// Rows 3 to 6: is there a copy to start from? After them at most one node is inconsistent,
    /// and none is fresh.
    fn rule_on_usable_disks(&self) -> Option<Ruling> {
        let is_dead =
            |node: &Standpoint| matches!(node.disk, DiskState::Failed | DiskState::Missing);
        if let Some(side) = self.any(is_dead) {
            return Some(Ruling::refused(3, Why::NoDisk(side)));
        }
        if self.both(Standpoint::is_fresh) {
            return Some(Ruling::refused(4, Why::BothFresh));
        }
        let fresh = self.only(Standpoint::is_fresh);
        if let Some(side) = fresh {
            let source = side.other();
            if self.at(source).is_consistent() {
                return Some(Ruling::everything_from(5, source, Why::Fresh(side)));
            }
        }
        let is_incomplete = |node: &Standpoint| !node.is_consistent();
        self.both(is_incomplete).then_some(Ruling::refused(6, Why::NoUsableCopy))
    }

    /// Row 7: an operator has chosen between exactly these two.
    fn rule_on_resolution(&self) -> Option<Ruling> {
        let resolution = match (self.first.resolution, self.second.resolution) {
            (Some(one), Some(other)) if one != other => None,
            // The one that was told while the link was down speaks for both.
            (one, other) => one.or(other),
        }?;
        let (first, second) = (self.first.generation?, self.second.generation?);
        let Resolution { kept, dropped } = resolution;
        let source = if (kept.id, dropped.id) == (first.id, second.id) {
            Side::First
        } else if (kept.id, dropped.id) == (second.id, first.id) {
            Side::Second
        } else {
            return None;
        };
        if kept.id == dropped.id || !self.at(source).is_consistent() {
            return None;
        }
        // Marks cover what was written since both were the same. If they never were, or the loser
        // was being filled from elsewhere, nothing is known.
        let loser = self.at(source.other());
        let marks_cover_all = self.relation() != Some(Relation::Unrelated) && loser.is_consistent();
        Some(if marks_cover_all {
            self.marked_from(7, source, Why::Resolved(source))
        } else {
            Ruling::everything_from(7, source, Why::Resolved(source))
        })
    }

    /// Row 8.
    fn rule_on_two_primaries(&self) -> Option<Ruling> {
        if !self.both(|node| node.role == Role::Primary) {
            return None;
        }
        Some(if self.relation() == Some(Relation::Diverged) {
            Ruling::split_brain(8, Why::Diverged)
        } else {
            Ruling::refused(8, Why::BothPrimary)
        })
    }

    /// Rows 9 and 10: one copy is a mix.
    fn rule_on_interrupted_resync(&self) -> Option<Ruling> {
        let side = self.only(|node| !node.is_consistent())?;
        let (target, source) = (self.at(side), self.at(side.other()));
        let lineage = source.lineage()?;
        if let Some(from) = target.resync_source {
            if lineage.contains(from) {
                return Some(self.marked_from(9, side.other(), Why::Resume(side)));
            }
        } else if target.generation.is_some_and(|generation| lineage.contains(generation)) {
            // It does not say what it was being filled from, but the other has all it ever had.
            return Some(Ruling::everything_from(9, side.other(), Why::Resume(side)));
        }
        Some(if self.relation().is_none_or(|relation| relation == Relation::Unrelated) {
            Ruling::unrelated(10, Why::FilledFromElsewhere(side))
        } else {
            Ruling::split_brain(10, Why::SourceWentBack(side))
        })
    }

    /// Rows 11 to 15: both are consistent; who has more? Row 12 needs hash trees: without them
    /// nothing proves that two generations hold the same bytes.
    fn rule_on_lineage(&self) -> Ruling {
        match self.relation() {
            None | Some(Relation::Unrelated) => Ruling::unrelated(11, Why::Unrelated),
            Some(Relation::Diverged) => Ruling::split_brain(13, Why::Diverged),
            Some(Relation::Ahead) => self.marked_from(14, Side::First, Why::Ahead(Side::First)),
            Some(Relation::Behind) => self.marked_from(15, Side::Second, Why::Ahead(Side::Second)),
            Some(Relation::Equal) => self.rule_on_equals(),
        }
    }

    /// Rows 16 to 22: one generation, and maybe writes that only one of them has.
    fn rule_on_equals(&self) -> Ruling {
        let (first, second) = (self.first, self.second);
        let is_clean = |node: &Standpoint| node.marks == 0 && node.at_risk_bytes == 0;
        if self.both(is_clean) && self.marks_can_be_trusted() {
            return Ruling { row: 16, why: Why::Proven, verdict: Verdict::InSync };
        }
        let back_in_time = self.back_in_time();
        if back_in_time == (true, true) {
            return Ruling::refused(17, Why::BothBackInTime);
        }
        if let Some(side) = only(back_in_time) {
            return self.marked_from(17, side.other(), Why::BackInTime(side));
        }
        if let Some(side) = self.only(Standpoint::is_doubtful) {
            return self.marked_from(18, side.other(), Why::Doubtful(side));
        }
        if let Some(side) = self.only(|node| node.role == Role::Primary) {
            return self.marked_from(19, side, Why::Primary(side));
        }
        if let Some(side) = higher(first.served_epoch, second.served_epoch) {
            let both_doubtful = self.both(Standpoint::is_doubtful);
            let why = if both_doubtful { Why::BothLostPower(side) } else { Why::ServedLast(side) };
            return self.marked_from(20, side, why);
        }
        if let Some(side) = self.only(|node| node.disk == DiskState::UpToDate) {
            return self.marked_from(21, side, Why::UpToDate(side));
        }
        match higher(first.applied, second.applied) {
            Some(side) => self.marked_from(22, side, Why::AppliedMore(side)),
            None => self.marked_from(22, Side::First, Why::NothingTellsApart(Side::First)),
        }
    }

    /// `source` sends the blocks that either has marked, or all of them if the marks are not about
    /// these two copies.
    fn marked_from(&self, row: u8, source: Side, why: Why) -> Ruling {
        let transfer = if !self.marks_can_be_trusted() {
            Transfer::ResyncAll
        } else if self.is_replay(source) {
            Transfer::Replay
        } else {
            Transfer::Resync
        };
        Ruling { row, why, verdict: Verdict::From(source, transfer) }
    }

    /// Whether all differences are writes that were never acknowledged, or that the target has
    /// acknowledged itself: then every block that is sent takes it from one state that clients
    /// could have seen to another. Marks of its own say otherwise: its unacknowledged writes are
    /// undone, and until that is complete it must not serve them again.
    fn is_replay(&self, source: Side) -> bool {
        let target = self.at(source.other());
        self.relation() == Some(Relation::Equal)
            && target.is_consistent()
            && !target.is_doubtful()
            && target.disk_reason != DiskReason::NoSpace
            && target.marks == 0
            && !self.both_or_one_async()
            && self.at(source).at_risk_bytes == 0
    }

    fn both_or_one_async(&self) -> bool {
        self.any(|node| node.mode == ReplicationMode::Async).is_some()
    }

    /// Whether the marks of both cover all that can differ: each knows the other replica, and
    /// neither is older than the other knows it.
    fn marks_can_be_trusted(&self) -> bool {
        let (first, second) = (self.first, self.second);
        first.peer_replica_id == second.replica_id
            && second.peer_replica_id == first.replica_id
            && self.back_in_time() == (false, false)
    }

    fn back_in_time(&self) -> (bool, bool) {
        let (first, second) = (self.first, self.second);
        (first.is_back_in_time(second), second.is_back_in_time(first))
    }

    fn relation(&self) -> Option<Relation> {
        Some(self.first.lineage()?.relation_to(&self.second.lineage()?))
    }

    fn at(&self, side: Side) -> &Standpoint {
        match side {
            Side::First => self.first,
            Side::Second => self.second,
        }
    }

    fn both(&self, claim: impl Fn(&Standpoint) -> bool) -> bool {
        claim(self.first) && claim(self.second)
    }

    /// A node of which `claim` is true; the first one if it is true of both.
    fn any(&self, claim: impl Fn(&Standpoint) -> bool) -> Option<Side> {
        if claim(self.first) {
            return Some(Side::First);
        }
        claim(self.second).then_some(Side::Second)
    }

    /// The node of which `claim` is true, if it is not true of the other.
    fn only(&self, claim: impl Fn(&Standpoint) -> bool) -> Option<Side> {
        only((claim(self.first), claim(self.second)))
    }
}

fn only(claims: (bool, bool)) -> Option<Side> {
    match claims {
        (true, false) => Some(Side::First),
        (false, true) => Some(Side::Second),
        (true, true) | (false, false) => None,
    }
}

fn higher<T: Copy + Ord>(first: T, second: T) -> Option<Side> {
    only((first > second, second > first))
}
