//! What a source is told, and what it answers.

use std::time::Duration;

use crate::manifest::{Pace, Standing};
use crate::units::{Instant, Label, ObjectId, TreePosition};
use crate::wire::{TreeNote, WantedChunks};

/// What the operator set, and what both nodes agree on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SourceSettings {
    /// How far the secondary may be behind and take over all the same.
    pub max_lag: Duration,
    /// When a hint is looked at.
    pub pace: Pace,
    /// Time between two looks at everything.
    pub full_scan: Duration,
    /// BLAKE3 of what is excluded and left out; the peer's must be the same.
    pub scope_digest: [u8; 32],
}

/// A generation that the index has, stable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Closed {
    /// Which.
    pub position: TreePosition,
    /// How much it promises.
    pub label: Label,
    /// Entries that did not hold still.
    pub fuzzy_count: u64,
}

/// What the register says of the tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Register {
    /// This generation is complete on whoever has the register.
    Complete {
        /// Which.
        position: TreePosition,
        /// How much it promises.
        label: Label,
    },
    /// There may be changes in the primary's tree that nobody else has.
    Open,
}

impl Register {
    pub(in crate::manifest) fn of(closed: &Closed) -> Self {
        Self::Complete { position: closed.position, label: closed.label }
    }

    /// The generation that it names.
    pub fn position(&self) -> Option<TreePosition> {
        match self {
            Self::Complete { position, .. } => Some(*position),
            Self::Open => None,
        }
    }
}

/// What a source begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Serving {
    /// The newest generation of the index.
    pub newest: Option<Closed>,
    /// What the register says, as it is on this node.
    pub register: Option<Register>,
    /// Whether the peer does not follow and was excluded, so that this node goes on alone.
    pub is_alone: bool,
    /// Since when there may be changes that are in no complete generation; now, if nobody knows better.
    pub since: Instant,
}

/// What is known to differ from the index.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DirtyFacts {
    /// When the oldest hint came: of those in the dirty set, *and of those that a capture which runs took out
    /// of it*. Without these the lag would be told too low for as long as the capture takes.
    pub oldest: Option<Instant>,
    /// When a hint of the set will have settled.
    pub next_due: Option<Instant>,
    /// Hints in the set.
    pub count: usize,
}

/// What became of a capture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CaptureEnd {
    /// The newest generation of the index.
    pub closed: Closed,
    /// Whether this capture made it.
    pub is_new: bool,
    /// When the oldest hint came that the capture took.
    pub oldest: Option<Instant>,
    /// Whether everything was looked at, all of it after the capture began.
    pub was_full: bool,
}

/// Something that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SourceInput {
    /// This node serves from here on.
    Serve(Serving),
    /// It does not serve, and will not change the tree, but the peer follows it: what the register names is
    /// brought to the peer, and nothing else.
    Lend {
        /// The generation that the register names, which is the tree.
        newest: Closed,
    },
    /// It does neither any more; the session with the peer ends, too.
    StopServing,
    /// Time has passed. Comes at least every twentieth part of `max_lag`, and when a hint has settled.
    Tick(DirtyFacts),
    /// A capture ended.
    Captured(CaptureEnd),
    /// A capture ended without a generation; what it took is in the dirty set again.
    CaptureFailed {
        /// When the oldest hint came that it took. In the dirty set it may count as younger.
        oldest: Option<Instant>,
    },
    /// So did one because a guard forbids it.
    Halted {
        /// As above.
        oldest: Option<Instant>,
    },
    /// The peer said its position: the first note of a session, or a later one.
    Position {
        /// What it has.
        position: TreePosition,
        /// What it leaves out.
        scope_digest: [u8; 32],
        /// Whether the index has that generation and all changes since.
        is_known: bool,
    },
    /// The session is over.
    PeerLost,
    /// The peer said something else.
    Said(TreeNote),
    /// So many of the chunks that it wants were sent.
    ChunksSent {
        /// How many.
        count: u64,
    },
    /// A chunk that it wants is not what it was. A hint about the file is in the dirty set.
    ChunkGone {
        /// Of which file.
        object: ObjectId,
        /// Which of its chunks.
        chunk: u64,
    },
    /// The core acknowledged this write of the register, and all before it.
    Recorded {
        /// As in [`SourceEffect::Record`].
        number: u64,
    },
    /// The core goes on alone: the peer is durably excluded.
    BecameAlone,
    /// An operator wants a generation of now applied on the peer.
    Sync {
        /// Number of the request.
        request: u64,
        /// Whether the hooks that hold writers are to be run.
        freeze: bool,
    },
    /// Nobody waits for this request any more.
    SyncGivenUp {
        /// Number of the request.
        request: u64,
    },
}

/// Why a sync is not done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SyncError {
    /// No session with a peer that takes generations.
    #[error("the peer is not connected, or does not take this tree")]
    PeerLost,
    /// A guard forbids to send anything.
    #[error("the source is halted")]
    Halted,
    /// The tree could not be captured.
    #[error("the tree could not be captured")]
    Failed,
    /// This node does not serve.
    #[error("this node does not serve the resource")]
    Stopped,
    /// Too many wait already.
    #[error("too many syncs wait")]
    Busy,
}

/// Something to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SourceEffect {
    /// Capture a generation; answered by one of `Captured`, `CaptureFailed`, `Halted`. The view of the index
    /// that the last capture closed is kept until then.
    Capture {
        /// Look at everything, else at what the hints name.
        everything: bool,
        /// Run the hooks around it.
        freeze: bool,
    },
    /// Send the records of a generation, then serve what is wanted of it.
    Send {
        /// Which: always the newest that was captured.
        to: Closed,
        /// From where; `None`: all of the tree.
        base: Option<TreePosition>,
    },
    /// Stop that; nothing of it is wanted any more.
    StopSending,
    /// Send chunks of the generation that is being sent.
    SendChunks(Vec<WantedChunks>),
    /// Say something about the tree.
    Say(TreeNote),
    /// Write the register.
    Record {
        /// Counts these writes; a higher one replaces what the lower ones said.
        number: u64,
        /// What it is to say.
        register: Register,
    },
    /// The peer can commit what the register says or is about to say: a transfer of it may go on.
    Admit,
    /// Drop the session: the peer is too far behind. A record that a generation is open follows, which the
    /// core acknowledges once the peer is durably excluded.
    Exclude,
    /// Answer a sync.
    AnswerSync {
        /// Number of the request.
        request: u64,
        /// The generation that is applied there.
        result: Result<Closed, SyncError>,
    },
    /// Whether the secondary may take over has changed.
    Standing(Standing),
    /// The peer broke a rule: close the link.
    Close {
        /// Which.
        what: &'static str,
    },
}
