//! What a node that starts makes of the commit record, the applied record and the journal.
//!
//! The records are in the superblock; the commit record alone decides. Numbers of journals are
//! compared and not tree generations: a commit record that leads back to the base of an apply which
//! never ended has the same position as what was applied last, but the tree is between the two.

use super::journal::{JournalError, JournalHash, decode};
use super::operation::Journal;
use super::place::JournalNumber;
use crate::units::TreePosition;

/// The commit record: from here on the tree is on the way to `target`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Committed {
    /// Which journal leads there.
    pub journal: JournalNumber,
    /// Of all its bytes.
    pub hash: JournalHash,
    /// Where it starts.
    pub base: TreePosition,
    /// Where it leads.
    pub target: TreePosition,
}

/// The applied record: the tree was this at its last rest.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Applied {
    /// The journal that was carried out to its end.
    pub journal: JournalNumber,
    /// What the tree is.
    pub position: TreePosition,
}

/// What to begin with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Recovery {
    /// The tree is at rest, and no journal waits.
    Clean,
    /// Carry the journal out: the tree is on the way to a generation.
    Redo(Box<Journal>),
    /// Carry the journal out: the tree is on the way back to the generation that was applied last.
    Undo(Box<Journal>),
    /// The tree is at rest; a journal was written, but never committed. It is dropped, and what
    /// is staged is kept.
    Drop,
    /// The tree is between two generations, and nothing here leads to either: the disk is
    /// inconsistent, and is rebuilt from the peer.
    Damage(RecoveryDamage),
}

/// Why a tree cannot be brought to a generation.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecoveryDamage {
    /// There is a commit record, but no journal.
    #[error("journal {} is missing", .0.0)]
    Missing(JournalNumber),
    /// It is not the one that was committed.
    #[error("journal {} has another hash than its commit record", .0.0)]
    Hash(JournalNumber),
    /// It has the right hash, but cannot be read: it was written by something else.
    #[error("journal {} cannot be read", .number.0)]
    Journal {
        /// Which.
        number: JournalNumber,
        /// Why.
        source: JournalError,
    },
    /// The commit record, the applied record and the journal contradict each other.
    #[error("the records of journal {} contradict each other", .0.0)]
    Records(JournalNumber),
}

/// What the records and the bytes of the newest journal, if there are any, call for.
pub fn recover(committed: &Committed, applied: &Applied, journal: Option<&[u8]>) -> Recovery {
    let number = committed.journal;
    let damage = Recovery::Damage;
    if number < applied.journal {
        return damage(RecoveryDamage::Records(number));
    }
    if number == applied.journal {
        return match journal {
            _ if committed.target != applied.position => damage(RecoveryDamage::Records(number)),
            None => Recovery::Clean,
            Some(bytes) if JournalHash::of(bytes) == committed.hash => Recovery::Clean,
            Some(_) => Recovery::Drop,
        };
    }
    let Some(bytes) = journal else { return damage(RecoveryDamage::Missing(number)) };
    if JournalHash::of(bytes) != committed.hash {
        return damage(RecoveryDamage::Hash(number));
    }
    let journal = match decode(bytes) {
        Ok(journal) => Box::new(journal),
        Err(source) => return damage(RecoveryDamage::Journal { number, source }),
    };
    let is_told = journal.number == number
        && journal.base == committed.base
        && journal.target == committed.target;
    match applied.position {
        _ if !is_told => damage(RecoveryDamage::Records(number)),
        position if position == journal.base => Recovery::Redo(journal),
        position if position == journal.target => Recovery::Undo(journal),
        _ => damage(RecoveryDamage::Records(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::journal::encode;
    use super::super::operation::Direction;
    use super::*;
    use crate::manifest::Identity;
    use crate::units::{TreeNumber, TreeRoot};

    fn position(number: u64) -> TreePosition {
        TreePosition { number: TreeNumber(number), root: TreeRoot([1; 32]) }
    }

    fn journal(number: u64, base: u64, target: u64) -> Journal {
        Journal {
            number: JournalNumber(number),
            direction: Direction::Forward,
            base: position(base),
            target: position(target),
            root: Identity { inode: 2, birth: None },
            anchors: Vec::new(),
            lists: Default::default(),
        }
    }

    fn committed(journal: &Journal) -> Committed {
        Committed {
            journal: journal.number,
            hash: JournalHash::of(&encode(journal)),
            base: journal.base,
            target: journal.target,
        }
    }

    fn applied(journal: u64, number: u64) -> Applied {
        Applied { journal: JournalNumber(journal), position: position(number) }
    }

    #[test]
    fn a_tree_at_rest_is_clean_whether_its_journal_is_kept_or_not() {
        let last = journal(3, 10, 11);
        for bytes in [None, Some(encode(&last))] {
            let found = recover(&committed(&last), &applied(3, 11), bytes.as_deref());
            assert_eq!(found, Recovery::Clean);
        }
        let new = recover(&Committed::default(), &Applied::default(), None);
        assert_eq!(new, Recovery::Clean);
    }

    #[test]
    fn a_journal_that_was_never_committed_is_dropped_even_if_it_is_torn() {
        let (last, next) = (journal(3, 10, 11), encode(&journal(4, 11, 12)));
        for len in 0..=next.len() {
            let found = recover(&committed(&last), &applied(3, 11), Some(&next[..len]));
            assert_eq!(found, Recovery::Drop);
        }
    }

    #[test]
    fn a_committed_journal_is_redone() {
        let next = journal(4, 11, 12);
        let found = recover(&committed(&next), &applied(3, 11), Some(&encode(&next)));
        assert_eq!(found, Recovery::Redo(Box::new(next)));
    }

    #[test]
    fn an_undo_is_carried_on_although_its_target_was_applied_before() {
        let back = journal(5, 12, 11);
        let found = recover(&committed(&back), &applied(3, 11), Some(&encode(&back)));
        assert_eq!(found, Recovery::Undo(Box::new(back)));
    }

    #[test]
    fn nothing_is_guessed_from_a_committed_journal_that_is_not_whole() {
        let next = journal(4, 11, 12);
        let bytes = encode(&next);
        let number = next.number;
        let found = |bytes: Option<&[u8]>| recover(&committed(&next), &applied(3, 11), bytes);
        assert_eq!(found(None), Recovery::Damage(RecoveryDamage::Missing(number)));
        for len in 0..bytes.len() {
            let damage = Recovery::Damage(RecoveryDamage::Hash(number));
            assert_eq!(found(Some(&bytes[..len])), damage);
        }
        let short = Committed { hash: JournalHash::of(b""), ..committed(&next) };
        let source = JournalError::Short;
        assert_eq!(
            recover(&short, &applied(3, 11), Some(b"")),
            Recovery::Damage(RecoveryDamage::Journal { number, source })
        );
    }

    #[test]
    fn records_that_contradict_each_other_are_damage() {
        let next = journal(4, 11, 12);
        let bytes = encode(&next);
        let damage = Recovery::Damage(RecoveryDamage::Records(next.number));
        let right = committed(&next);
        let wrong = [
            (right, applied(5, 12)),
            (right, applied(4, 11)),
            (right, applied(3, 10)),
            (Committed { base: position(10), ..right }, applied(3, 11)),
            (Committed { target: position(13), ..right }, applied(3, 11)),
        ];
        for (committed, applied) in wrong {
            assert_eq!(recover(&committed, &applied, Some(&bytes)), damage, "{applied:?}");
        }
        let journal = JournalNumber(6);
        let other = recover(&Committed { journal, ..right }, &applied(3, 11), Some(&bytes));
        assert_eq!(other, Recovery::Damage(RecoveryDamage::Records(journal)));
    }
}
