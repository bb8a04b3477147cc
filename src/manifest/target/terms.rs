//! What a target is told, and what it answers.

use crate::units::{Label, TreeNumber, TreePosition};
use crate::wire::{ChunkPlace, Packing, Payload, TreeMessage, TreeNote, TreeRefusal, WantedChunks};

/// A request of the core to the disk, echoed when it is done.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Io(pub u64);

/// Counts deltas that were begun, so that what a driver reports of an earlier one is told apart.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Attempt(pub u64);

/// Room for generations, in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Space {
    /// What is staged.
    pub staged_bytes: u64,
    /// What is free.
    pub free_bytes: u64,
}

/// Why a delta is not taken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The kind.
    pub why: TreeRefusal,
    /// For people.
    pub words: String,
}

/// What became of an attempt to prepare.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Preparation {
    /// It can be committed.
    Ready,
    /// The tree was not what the index says. What is foreign was set aside, and the delta is to be taken anew.
    Foreign,
    /// It cannot be.
    Refused(Refusal),
}

/// What became of a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommitEnd {
    /// The commit record is stable.
    Done,
    /// Nothing was committed, and the disk is well.
    Refused(Refusal),
    /// The disk has failed.
    Failed,
}

/// What became of an apply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ApplyEnd {
    /// Tree and index are the generation, durably.
    Done,
    /// They are again what they were at this position.
    Undone {
        /// What the tree is.
        position: TreePosition,
        /// Why.
        refusal: Refusal,
    },
    /// The disk has failed, or the tree is damaged.
    Failed,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is done, stable.
    Done,
    /// The register names a generation that cannot be committed here.
    NotStaged,
    /// Too many wait.
    Busy,
    /// The generation that was committed last had to be undone.
    Undone,
    /// The disk has failed.
    Failed,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetInput {
    /// A session with a source begins.
    SessionUp {
        /// What the tree is, if it is at rest.
        position: TreePosition,
        /// What room there is.
        space: Space,
        /// The generation that the register of this node names. After a crash of a node that served, the tree may
        /// be another one.
        register: Option<TreePosition>,
    },
    /// It is over.
    SessionLost,
    /// The source said something.
    Said(TreeMessage),
    /// The records of a delta are all right and whole; or one is not, which may be told before the end.
    Checked {
        /// Of which delta.
        attempt: Attempt,
        /// What is wrong.
        result: Result<(), Refusal>,
    },
    /// These chunks are found nowhere on this node.
    Wants {
        /// Of which delta.
        attempt: Attempt,
        /// Runs of them: no more in all than were asked for.
        chunks: Vec<WantedChunks>,
        /// Nothing else will be wanted.
        is_all: bool,
    },
    /// All chunks are there.
    AllStaged {
        /// Of which delta.
        attempt: Attempt,
    },
    /// It cannot be staged.
    StageFailed {
        /// Which delta.
        attempt: Attempt,
        /// Why.
        refusal: Refusal,
    },
    /// Records or chunks of it travelled as compressed bytes that are not what they say.
    Garbled {
        /// Of which delta.
        attempt: Attempt,
    },
    /// An attempt to prepare ended.
    Prepared {
        /// Of which delta.
        attempt: Attempt,
        /// How.
        result: Preparation,
    },
    /// The core writes the register.
    RegisterAsked {
        /// The request.
        io: Io,
        /// The generation that it names; none if it says that one is open.
        position: Option<TreePosition>,
    },
    /// The commit ended.
    Committed(CommitEnd),
    /// The apply ended.
    Applied {
        /// How.
        end: ApplyEnd,
        /// What room there is after it.
        space: Space,
    },
    /// The core wants everything stable that it was told to be done.
    SyncAsked {
        /// The request.
        io: Io,
    },
}

/// Something to be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum TargetEffect {
    /// Say something about the tree.
    Say(TreeNote),
    /// Begin to take a delta.
    Begin {
        /// Which.
        attempt: Attempt,
        /// From which generation; `None`: it describes the whole tree.
        base: Option<TreePosition>,
        /// To which.
        number: TreeNumber,
    },
    /// Check these records and keep them.
    Push {
        /// Of which delta.
        attempt: Attempt,
        /// What the bytes are.
        packing: Packing,
        /// Whole canonical records.
        records: Payload,
    },
    /// All records have come; answered by `Checked`.
    End {
        /// Of which delta.
        attempt: Attempt,
        /// Where they lead.
        position: TreePosition,
        /// How much that promises.
        label: Label,
        /// Entries that did not hold still.
        fuzzy_count: u64,
    },
    /// Look for chunks on this node; answered by `Wants`.
    StageMore {
        /// Of which delta.
        attempt: Attempt,
        /// How many may be wanted from the peer, at most.
        chunks_max: u64,
    },
    /// Stage these chunks, if they have their hashes.
    Put {
        /// Of which delta.
        attempt: Attempt,
        /// Which they are.
        table: Vec<ChunkPlace>,
        /// What the bytes are.
        packing: Packing,
        /// Their bytes.
        bytes: Payload,
    },
    /// Plan the delta, and make what it needs complete; answered by `Prepared`.
    Prepare {
        /// Which.
        attempt: Attempt,
    },
    /// Make the register and the commit record stable, together; answered by `Committed`.
    Commit {
        /// The request whose bytes the register gets; `None`: it says so already.
        io: Option<Io>,
        /// Of which delta.
        attempt: Attempt,
        /// Where the tree goes.
        position: TreePosition,
    },
    /// Make the register stable, and answer the request: the tree is already what it says.
    Store {
        /// The request.
        io: Io,
    },
    /// Answer a request of the core.
    Complete {
        /// Which.
        io: Io,
        /// How.
        outcome: Outcome,
    },
    /// Bring tree and index to what was committed; answered by `Applied`.
    Apply,
    /// Forget the delta. Chunks that are staged stay: a later one may need them.
    Drop {
        /// Which.
        attempt: Attempt,
    },
    /// The peer broke a rule: close the link.
    Close {
        /// Which.
        what: &'static str,
    },
}
