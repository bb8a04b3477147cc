//! The target's side of a generation, from the records of a delta to a plan that can be committed.
//!
//! `incoming.rs` takes the records, judges them against the index (`base.rs`) and keeps those of chunks in a
//! file (`spool.rs`). `staging.rs` decides for each chunk of each new content where it comes from:
//! `sources.rs` finds it on this node, what is left is wanted from the peer; `part.rs` is the file in
//! `stage/` where it goes, `room.rs` says what all of it takes of the file system. `side.rs` says what of the
//! tree is touched, `foreign.rs` whether that is still what the index says, and `compare.rs` looks for that in
//! the whole tree, with as much of it at once as `reading.rs` says. `births.rs` makes objects complete, `patch.rs` writes what huge files are patched with, and
//! `prepare.rs` puts it all into a plan; `before.rs` says what that will leave behind. `write_index.rs` is the
//! index afterwards; `reclaim.rs` takes up what an earlier attempt has left. `whole.rs` makes a delta of records
//! that tell of all of a tree.
//!
//! Nothing in the tree is changed here. Whatever stands in `stage/` counts only after its bytes were
//! hashed, so nothing of it has to be synced before a commit.

mod base;
mod before;
mod births;
mod compare;
mod content;
mod doors;
mod foreign;
mod incoming;
mod part;
mod patch;
mod prepare;
mod reading;
mod reclaim;
mod room;
mod side;
mod sources;
mod spool;
mod staging;
#[cfg(test)]
mod tests;
mod whole;
mod write_index;

use std::io;

pub use base::Base;
pub use compare::{Compared, Rest, compare};
pub use foreign::{Foreign, ForeignWhy};
pub use incoming::{Incoming, Limits, Received};
pub use prepare::{Prepare, Prepared};
pub use reading::Until;
pub(super) use room::room;
pub use side::Sides;
pub use staging::{Site, Staging, Wants};
pub use whole::{Here, Reconciled};
pub use write_index::{Looks, look_again, write_index};

use super::apply::ApplyError;
use super::index::IndexError;
use crate::manifest::ManifestError;
use crate::manifest::apply::PlanError;
use crate::units::{CHUNK_LEN, ObjectId, TreePosition, TreeRoot};

/// Why a delta is not taken. What the peer cannot mend ends the generation, not the link.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// A record, or what they say together, is not allowed.
    #[error(transparent)]
    Manifest(ManifestError),
    /// The peer sends what this node was configured to leave out or to exclude.
    #[error("object {id} has something that is left out or excluded on this node")]
    LeftOut {
        /// Which.
        id: ObjectId,
    },
    /// Taking it would cost more than [`Limits`] allow.
    #[error("a delta has too many {what}")]
    TooLarge {
        /// Of what.
        what: &'static str,
    },
    /// It is for another generation than this tree is at, or does not lead to a later one.
    #[error("the delta leads from tree generation {from} to {to}, this tree is at {mine}",
        from = from.number, to = to.number, mine = mine.number)]
    Position {
        /// What it is for.
        from: TreePosition,
        /// What it leads to.
        to: TreePosition,
        /// What this tree is.
        mine: TreePosition,
    },
    /// The result would not be what was announced.
    #[error("the delta leads to root {found}, announced was {announced}")]
    Root {
        /// By the peer.
        announced: TreeRoot,
        /// What it would be.
        found: TreeRoot,
    },
    /// A chunk that nobody asked for.
    #[error("chunk {chunk} of object {id} was not asked for")]
    NotWanted {
        /// Of which object.
        id: ObjectId,
        /// Which.
        chunk: u64,
    },
    /// Bytes that do not have the hash of their chunk, or not its length.
    #[error("the bytes of chunk {chunk} of object {id} are not those of its hash")]
    WrongBytes {
        /// Of which object.
        id: ObjectId,
        /// Which.
        chunk: u64,
    },
    /// It would not fit: what it takes to stage it, and a twentieth of the file system.
    #[error(
        "{needed} bytes are needed in the file system of the tree, of which a twentieth stays free, and {free} are \
         free"
    )]
    NoRoom {
        /// Bytes that have to be free.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// Not all chunks are staged.
    #[error("chunks of object {id} are not staged")]
    Incomplete {
        /// One of those that are not whole.
        id: ObjectId,
    },
    /// What was kept of the records is not what was written.
    #[error("the records of the delta are damaged: {0}")]
    Spool(ManifestError),
    /// The index cannot be used.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The kernel refused. `NOSPC` ends when there is room again.
    #[error("cannot {action}")]
    Kernel {
        /// To do what.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The chunks of a huge file cannot be kept.
    #[error(transparent)]
    Patch(#[from] ApplyError),
    /// There is no plan: a fault of the index.
    #[error(transparent)]
    Plan(#[from] PlanError),
}

impl From<ManifestError> for ReceiveError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest(error)
    }
}

/// What the kernel refused.
fn failed<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> ReceiveError {
    move |error| ReceiveError::Kernel { action, source: error.into() }
}

/// Where a chunk begins in its file, and its length in a file of `size` bytes.
fn span_of(chunk: u64, size: u64) -> (u64, usize) {
    let start = chunk.saturating_mul(CHUNK_LEN);
    let len = size.saturating_sub(start).min(CHUNK_LEN);
    (start, usize::try_from(len).expect("a chunk is short"))
}
