//! What the controller is shown of its node before each step.

use crate::metadata::Superblock;
use crate::promotion::resume::Claim;
use crate::units::{Instance, Role};

/// The node as it is now. What is in the record is stable; what is not must not be relied upon.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Facts<'a> {
    /// The stable record.
    pub record: &'a Superblock,
    /// A change of the record is on its way: what was decided from it may be void soon.
    pub is_recording: bool,
    /// This node is primary.
    pub is_primary: bool,
    /// Its disk failed, or has not answered for longer than the I/O timeout.
    pub is_disk_unfit: bool,
    /// An order to become primary is being carried out.
    pub is_promoting: bool,
    /// What may be done with the peer.
    pub peer: Standing,
    /// What the peer said of itself on this connection.
    pub claim: Option<Claim>,
    /// What this node said that it is, by which the peer goes on this connection.
    pub said: Option<Role>,
    /// The peer said that its disk is gone or its record lost: it serves nothing by itself.
    pub peer_cannot_serve: bool,
    /// It was heard to have gone on from what this node has.
    pub peer_is_ahead: bool,
    /// The run of the peer that said all that.
    pub peer_instance: Option<Instance>,
    /// The daemon was told to stop: it becomes primary no more.
    pub is_stopping: bool,
    /// The primary leaves, and waits for the arbiter's word.
    pub leaving: Option<Leaving>,
}

/// How the two nodes stand to each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// There is no connection.
    Away,
    /// The nodes are finding out what they have.
    Meeting,
    /// They are connected, and nothing is replicated.
    Apart,
    /// The secondary is being filled: no acknowledgement needs it.
    Behind,
    /// Every acknowledgement needs the secondary; it is not complete yet.
    Needed,
    /// Every acknowledgement needs the secondary, and both are the same.
    InSync,
}

impl Standing {
    /// Whether the secondary follows the primary in a session.
    pub fn is_session(self) -> bool {
        match self {
            Self::Behind | Self::Needed | Self::InSync => true,
            Self::Away | Self::Meeting | Self::Apart => false,
        }
    }

    /// Whether this primary cannot count on the secondary.
    pub(super) fn is_lost(self) -> bool {
        match self {
            Self::Away | Self::Apart | Self::Behind => true,
            Self::Meeting | Self::Needed | Self::InSync => false,
        }
    }
}

/// Why a primary that serves no more asks the arbiter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Leaving {
    /// The peer has everything and is ready to own the resource.
    Handover,
    /// The handover failed, and nobody may find it done later.
    TakeBack,
    /// An operator demotes it.
    Stop,
    /// Nothing is asked: the record is on its way that says how it leaves.
    Recording,
}
