//! Whether what was found is the tree that is replicated, and whether so many deletes are meant.
//!
//! A root that was unmounted, replaced or emptied by accident looks like a tree whose owner deleted
//! everything. A halt ships nothing; a pin ships, and keeps the generation before.

/// What was found where the tree should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RootFacts {
    /// Whether the root carries the marker of this resource.
    pub has_marker: bool,
    /// Whether it is on the file system that it was on.
    pub is_on_filesystem: bool,
    /// Whether it has the inode and the time of birth that it had.
    pub is_same_object: bool,
    /// How many names are in it; those below are not counted.
    pub names: u64,
}

/// What the operator chose for a generation that deletes more than `max_delete`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MassDelete {
    /// It ships, and the one before is kept until the deletes are accepted.
    Pin,
    /// It does not ship.
    Halt,
}

/// Entries that go, and those that were there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Deletes {
    /// Entries of the last generation that are not in the tree.
    pub count: u64,
    /// Entries of the last generation.
    pub known: u64,
    /// How many the operator accepted, word for word.
    pub accepted: Option<u64>,
}

/// What the operator allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Allowed {
    /// Deletes up to this part of the known entries are ordinary, in percent: `max_delete`.
    pub percent: u8,
    /// What happens above.
    pub beyond: MassDelete,
}

/// Why the source ships nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HaltReason {
    /// No marker, or one of another resource.
    #[error("the root does not carry the marker of this resource")]
    Marker,
    /// On another file system: not mounted, or something mounted over it.
    #[error("the root is on another file system than before")]
    Filesystem,
    /// Another directory of the same file system.
    #[error("the root is another directory than before")]
    Replaced,
    /// It had many entries and has none.
    #[error("the root is empty and had {known} entries")]
    Emptied {
        /// How many it had.
        known: u64,
    },
    /// More deletes than are allowed without a word.
    #[error("{count} of {known} entries would be deleted")]
    Deletes {
        /// How many would go.
        count: u64,
        /// Of how many.
        known: u64,
    },
}

/// What the operator can do, beside bringing the tree back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Remedy {
    /// `hotpair resume-resync R --accept-deletes COUNT`, with exactly this count.
    AcceptDeletes {
        /// The count.
        count: u64,
    },
    /// `hotpair init R --from this|peer --rebuild`.
    Rebuild,
}

/// Whether a generation may be captured and sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// It may.
    Go,
    /// It may, and the generation before is not pruned until the deletes are accepted.
    Pin,
    /// It may not.
    Halt {
        /// Why.
        reason: HaltReason,
        /// What to do.
        next: Remedy,
    },
}

/// Entries up to which a tree may lose all of them: small trees are emptied every day. Source:
/// directory.md 4.11.
const FEW: u64 = 100;

/// Judges the root, then the deletes. Nothing that was accepted makes another root the right one.
pub fn guard(root: &RootFacts, deletes: &Deletes, allowed: &Allowed) -> Guard {
    let rebuild = |reason| Guard::Halt { reason, next: Remedy::Rebuild };
    // Another file system or directory says more than the missing marker that goes with it.
    if !root.is_on_filesystem {
        return rebuild(HaltReason::Filesystem);
    }
    if !root.is_same_object {
        return rebuild(HaltReason::Replaced);
    }
    if !root.has_marker {
        return rebuild(HaltReason::Marker);
    }
    let Deletes { count, known, accepted } = *deletes;
    if accepted == Some(count) {
        return Guard::Go;
    }
    let halt = |reason| Guard::Halt { reason, next: Remedy::AcceptDeletes { count } };
    if root.names == 0 && known > FEW {
        return halt(HaltReason::Emptied { known });
    }
    let is_many = u128::from(count) * 100 > u128::from(known) * u128::from(allowed.percent);
    match (is_many && count > FEW, allowed.beyond) {
        (false, _) => Guard::Go,
        (true, MassDelete::Pin) => Guard::Pin,
        (true, MassDelete::Halt) => halt(HaltReason::Deletes { count, known }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: RootFacts =
        RootFacts { has_marker: true, is_on_filesystem: true, is_same_object: true, names: 3 };
    const PIN: Allowed = Allowed { percent: 50, beyond: MassDelete::Pin };
    const HALT: Allowed = Allowed { percent: 50, beyond: MassDelete::Halt };

    fn deletes(count: u64, known: u64) -> Deletes {
        Deletes { count, known, accepted: None }
    }

    #[test]
    fn another_root_halts_whatever_was_accepted() {
        let accepted = Deletes { accepted: Some(0), ..deletes(0, 1000) };
        let cases = [
            (RootFacts { has_marker: false, ..ROOT }, HaltReason::Marker),
            (RootFacts { is_on_filesystem: false, ..ROOT }, HaltReason::Filesystem),
            (RootFacts { is_same_object: false, ..ROOT }, HaltReason::Replaced),
            (
                RootFacts { has_marker: false, is_on_filesystem: false, ..ROOT },
                HaltReason::Filesystem,
            ),
        ];
        for (root, reason) in cases {
            let halt = Guard::Halt { reason, next: Remedy::Rebuild };
            assert_eq!(guard(&root, &accepted, &PIN), halt);
        }
    }

    #[test]
    fn an_emptied_root_halts_if_it_had_more_than_a_hundred_entries() {
        let empty = RootFacts { names: 0, ..ROOT };
        assert_eq!(guard(&empty, &deletes(100, 100), &PIN), Guard::Go);
        let halt = Guard::Halt {
            reason: HaltReason::Emptied { known: 101 },
            next: Remedy::AcceptDeletes { count: 101 },
        };
        assert_eq!(guard(&empty, &deletes(101, 101), &PIN), halt);
        assert_eq!(guard(&ROOT, &deletes(0, 101), &PIN), Guard::Go, "a tree that comes back");
        let accepted = Deletes { accepted: Some(101), ..deletes(101, 101) };
        assert_eq!(guard(&empty, &accepted, &PIN), Guard::Go);
    }

    #[test]
    fn many_deletes_pin_or_halt() {
        for (count, known, is_many) in [
            (0, 0, false),
            (100, 100, false),
            (101, 101, true),
            (500, 1000, false),
            (501, 1000, true),
            (101, 201, true),
            (u64::MAX, u64::MAX, true),
        ] {
            let pinned = guard(&ROOT, &deletes(count, known), &PIN);
            assert_eq!(pinned == Guard::Pin, is_many, "{count} of {known}");
            let halted = Guard::Halt {
                reason: HaltReason::Deletes { count, known },
                next: Remedy::AcceptDeletes { count },
            };
            let found = guard(&ROOT, &deletes(count, known), &HALT);
            assert_eq!(found == halted, is_many, "{count} of {known}");
        }
    }

    #[test]
    fn only_the_exact_count_is_accepted() {
        for accepted in [Some(600), Some(602), None] {
            let deletes = Deletes { accepted, ..deletes(601, 1000) };
            assert_ne!(guard(&ROOT, &deletes, &HALT), Guard::Go);
        }
        let exact = Deletes { accepted: Some(601), ..deletes(601, 1000) };
        assert_eq!(guard(&ROOT, &exact, &HALT), Guard::Go);
    }
}
