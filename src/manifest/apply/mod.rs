//! How a tree becomes its next generation, or the one before, across any crash.
//!
//! `plan.rs` turns the difference of two states into operations. They go into a journal
//! (`journal.rs`), whose hash is in the commit record. From then on the tree is brought to the
//! target by the journal alone: `redo.rs` says for each operation what is missing of it, given
//! where its objects are, so a crash may have kept any of the renames. `inverse.rs` is the way
//! back, `recover.rs` what a start finds. Reading order: `place.rs`, `operation.rs`, `fate.rs`,
//! then as above; `locate.rs` finds directories that have moved.
//!
//! A driver that carries out a journal goes through [`Journal::operations`] in order. For each it
//! asks [`redo()`] until the answer is [`Redo::Done`] or a step that [ends](Step::ends) the operation;
//! what is [foreign](Redo::Foreign) it takes to the quarantine, and asks again. It syncs when all are
//! done, not before: no order among the renames is needed. Nothing is ever unlinked.

mod fate;
mod inverse;
mod journal;
mod locate;
mod operation;
mod place;
mod plan;
mod reader;
mod recover;
mod redo;

#[cfg(test)]
mod model;
#[cfg(test)]
mod small;
#[cfg(test)]
mod tests;

pub use fate::{Birth, Change, Side, Staged, Turn, birth_of, turn_of};
pub use inverse::{rollback, undo};
pub use journal::{JOURNAL_FORMAT, JournalError, JournalHash, RECORD_LEN_MAX, decode, encode};
pub use locate::{Whereabouts, locate};
pub use operation::{
    Anchor, Direction, Exchange, Finish, Journal, Link, Move, Operation, Patch, Phase, PlanError,
    Set,
};
pub use place::{JournalNumber, Place, Slot};
pub use plan::plan;
pub use recover::{Applied, Committed, Recovery, RecoveryDamage, recover};
pub use redo::{Redo, Seen, Sight, Step, redo};
