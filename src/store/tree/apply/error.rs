//! Why a journal could not be committed, or not be carried out to its end.

use std::error::Error;

use rustix::io::Errno;

use crate::manifest::Identity;
use crate::manifest::apply::{JournalNumber, RecoveryDamage};
use crate::metadata::Damage;

/// Why a tree is not where it was to go. Paths are relative to the tree, and escaped.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The disk failed: nothing from it counts any more, and nobody tries again before a start.
    #[error("{path}: cannot {action}, the disk failed: {errno}")]
    Failed {
        /// Where.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// It failed before. A later success of the same call would prove nothing.
    #[error(
        "the disk of the tree failed before, and is not used until the daemon is started again"
    )]
    FailedBefore,
    /// There is no space. Once there is some, the same call may succeed.
    #[error("{path}: cannot {action}: no space is left")]
    NoSpace {
        /// Where.
        path: String,
        /// What was tried.
        action: &'static str,
    },
    /// The kernel refused; whoever may change that has to.
    #[error("{path}: cannot {action}: {errno}")]
    Refused {
        /// Where.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// An object that the tree needs is at none of its places: somebody else moved or removed it.
    #[error("the object with inode {} is not where it was left", .0.inode)]
    Missing(Identity),
    /// Another directory is at the path of the tree than the one the journal is about.
    #[error("the root of the tree is inode {found}, the journal is about inode {expected}")]
    OtherRoot {
        /// What is held.
        found: u64,
        /// What the journal says.
        expected: u64,
    },
    /// Nothing on this node leads to a generation.
    #[error(transparent)]
    Damage(#[from] RecoveryDamage),
    /// The records cannot be read.
    #[error("{0}")]
    Records(Damage),
    /// Staged chunks or a pre-image are not what was written.
    #[error("{path}: {why}")]
    Patch {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A journal that does not follow on what the tree is.
    #[error("journal {} cannot be committed: {why}", .number.0)]
    OutOfTurn {
        /// Which.
        number: JournalNumber,
        /// Why not.
        why: &'static str,
    },
    /// What is not applied yet, or is under way, cannot be given up.
    #[error("journal {} is still needed", .0.0)]
    Needed(JournalNumber),
    /// The index did not take the generation.
    #[error("the index of the tree did not follow")]
    Index {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The budget of steps is used up.
    #[error("stopped")]
    Stopped,
}

impl ApplyError {
    /// A call that failed. What the kernel says of a medium that is broken is final.
    pub(super) fn kernel(action: &'static str, path: impl Into<String>, errno: Errno) -> Self {
        let path = path.into();
        match errno {
            Errno::IO | Errno::UCLEAN | Errno::BADMSG => Self::Failed { path, action, errno },
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace { path, action },
            errno => Self::Refused { path, action, errno },
        }
    }

    /// A sync that failed, whatever the kernel says of it: what was to be written may be gone from
    /// the page cache, so the next sync would find nothing to complain of.
    pub(super) fn sync(path: impl Into<String>, errno: Errno) -> Self {
        Self::Failed { path: path.into(), action: "sync", errno }
    }

    /// Whether the way back may be open where the way on is not.
    pub(super) fn turns_back(&self) -> bool {
        match self {
            Self::NoSpace { .. } | Self::Refused { .. } | Self::Missing(_) | Self::Patch { .. } => {
                true
            }
            Self::Failed { .. }
            | Self::FailedBefore
            | Self::OtherRoot { .. }
            | Self::Damage(_)
            | Self::Records(_)
            | Self::OutOfTurn { .. }
            | Self::Needed(_)
            | Self::Index { .. }
            | Self::Stopped => false,
        }
    }
}
