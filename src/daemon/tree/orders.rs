//! What the data thread of a directory resource asks of the threads that work on the tree, and hears.

use std::sync::atomic::AtomicBool;

use super::keeping::Usage;
use crate::manifest::source::{CaptureEnd, Closed};
use crate::manifest::target::{ApplyEnd, Attempt, CommitEnd, Preparation, Refusal, Space};
use crate::replica::KeptGeneration;
use crate::store::tree::DirtyLook;
use crate::store::tree::apply::REGISTER_LEN;
use crate::store::tree::capture::Captured;
use crate::units::{Instant, Label, ObjectId, TreeNumber, TreePosition};
use crate::wire::{ChunkPlace, Packing, Payload, TreeMessage, WantedChunks};

/// What the worker is to know before it comes to the orders that wait.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// This node serves the tree, or is about to.
    pub(super) serves: AtomicBool,
}

/// What is asked of the worker. It does one after the other.
#[derive(Debug)]
pub(super) enum Order {
    /// This node serves the tree from here on: watch it.
    Serve,
    /// It does not serve, but the peer follows it: say what the tree is.
    Lend,
    /// It does not any more. `at`: nobody has written to it since it was captured as this generation.
    Rest {
        at: Option<Closed>,
    },
    /// Capture a generation.
    Capture {
        everything: bool,
        /// Whoever writes to the tree has stopped.
        is_quiesced: bool,
    },
    /// An operator means it: the next generation may delete exactly so many entries.
    AcceptDeletes {
        count: u64,
    },
    /// An entry differs of which no event told.
    Touch {
        object: ObjectId,
    },
    Begin {
        attempt: Attempt,
        base: Option<TreePosition>,
    },
    Push {
        attempt: Attempt,
        packing: Packing,
        records: Payload,
    },
    End {
        attempt: Attempt,
        position: TreePosition,
        label: Label,
    },
    StageMore {
        attempt: Attempt,
        chunks_max: u64,
    },
    Put {
        attempt: Attempt,
        table: Vec<ChunkPlace>,
        packing: Packing,
        bytes: Payload,
    },
    Prepare {
        attempt: Attempt,
    },
    Commit {
        attempt: Attempt,
        register: Box<[u8; REGISTER_LEN]>,
    },
    Apply,
    Drop {
        attempt: Attempt,
    },
    /// Look whether the tree is what the index says.
    Compare,
    /// Say what the tree can go back to.
    Generations {
        request: u64,
    },
    /// Bring the content of an earlier generation back.
    RollBack {
        request: u64,
        to: TreeNumber,
    },
}

/// What the worker says.
pub(super) enum Report {
    /// The tree is watched.
    Serves {
        newest: Option<Closed>,
        look: DirtyLook,
    },
    /// What the tree is, ready to be sent; `None`: nobody knows.
    Lends {
        newest: Option<Closed>,
    },
    /// It is not watched any more, and is this generation; zero: nobody knows.
    Rests {
        position: TreePosition,
    },
    Captured {
        end: CaptureEnd,
        captured: Box<Captured>,
        entries: u64,
    },
    CaptureFailed {
        oldest: Option<Instant>,
        why: String,
    },
    Halted {
        oldest: Option<Instant>,
        why: String,
        next: String,
    },
    /// A batch of records was taken.
    Taken,
    Checked {
        attempt: Attempt,
        result: Result<(), Refusal>,
    },
    Wants {
        attempt: Attempt,
        chunks: Vec<WantedChunks>,
        is_all: bool,
    },
    AllStaged {
        attempt: Attempt,
    },
    StageFailed {
        attempt: Attempt,
        refusal: Refusal,
    },
    /// Compressed bytes of the peer are not what they say; the delta is given up.
    Garbled {
        attempt: Attempt,
    },
    Prepared {
        attempt: Attempt,
        result: Preparation,
    },
    Committed(CommitEnd),
    Applied {
        end: ApplyEnd,
        space: Space,
    },
    /// Somebody else has written to the tree: nobody knows what it is.
    Foreign {
        count: usize,
        first: String,
    },
    /// What is in the folders beside the tree.
    Usage(Usage),
    /// Earlier generations were given up, because there was no room for the next one.
    Dropped {
        numbers: Vec<u64>,
        freed_bytes: u64,
    },
    /// Nothing led back to these any more, so they are gone.
    CutOff {
        numbers: Vec<u64>,
    },
    Generations {
        request: u64,
        result: Result<Vec<KeptGeneration>, String>,
    },
    /// The tree went back, as this generation, to that one.
    WentBack {
        request: u64,
        result: Result<(TreePosition, TreeNumber), String>,
    },
    /// The tree, its records or its index cannot be relied on any more.
    Failed {
        why: String,
    },
}

/// What is asked of the thread that reads for the peer. `session` tells apart what belongs to one that
/// is over.
#[derive(Debug)]
pub(super) enum SendOrder {
    /// Whether the newest index tells of all that changed since this generation.
    Know {
        session: u64,
        position: TreePosition,
        scope_digest: [u8; 32],
    },
    /// Send the records of a generation.
    Send {
        session: u64,
        to: Closed,
        base: Option<TreePosition>,
    },
    /// The peer took so many batches of records.
    Taken {
        session: u64,
        count: u32,
    },
    Chunks {
        session: u64,
        chunks: Vec<WantedChunks>,
    },
    Stop,
}

/// What that thread says.
pub(super) enum Sent {
    Known {
        session: u64,
        position: TreePosition,
        scope_digest: [u8; 32],
        is_known: bool,
    },
    /// Something for the peer.
    Message {
        session: u64,
        message: TreeMessage,
    },
    /// So many chunks were handed over in messages.
    Chunks {
        session: u64,
        count: u64,
    },
    Gone {
        session: u64,
        object: ObjectId,
        chunk: u64,
    },
    /// The peer asks for what the generation does not have.
    Wrong {
        session: u64,
        what: &'static str,
    },
    Failed {
        why: String,
    },
}
