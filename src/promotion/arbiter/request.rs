//! What nodes ask of an arbiter, and what it answers.

use serde::{Deserialize, Serialize};

use super::record::ArbiterRecord;
use crate::metadata::HISTORY_LEN_MAX;
use crate::units::{ArbiterId, Epoch, Generation, Instance, Side};
use crate::wire::list_at_most;

/// Longest list of a generation and where it came from.
pub(super) const LINEAGE_LEN_MAX: usize = HISTORY_LEN_MAX + 1;

/// Names a request, also when it is repeated.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct RequestId {
    /// The run of the daemon that asks.
    pub instance: Instance,
    /// Counts its requests; the first one is 1.
    pub number: u64,
}

/// One request about one resource.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Request {
    /// Who asks.
    pub from: Side,
    /// Repeated unchanged until it is answered.
    pub id: RequestId,
    /// The store that the node knows; ignored by [`Operation::Enroll`].
    pub arbiter: ArbiterId,
    /// The highest epoch that the node learnt from that store.
    pub arbiter_epoch: Epoch,
    /// The epoch on which the guard is: what is there must be exactly this.
    pub epoch: Epoch,
    /// The lease of the node's configuration in milliseconds.
    pub lease_ms: u32,
    /// What to do.
    pub operation: Operation,
}

/// What to do; the epoch is checked for all but the first three, and "owner" for all but those,
/// [`Self::Promote`] and [`Self::Force`].
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Operation {
    /// Tell the record.
    Read,
    /// Tell whether [`Self::Promote`] would be granted.
    PreVote {
        /// The caller's generation, and where it came from.
        #[serde(deserialize_with = "list_at_most::<_, _, LINEAGE_LEN_MAX>")]
        history: Vec<Generation>,
    },
    /// Make a record: both nodes say their half, or one whose replica was never paired.
    Enroll(Half),
    /// Grant a lease to this run of the owner.
    Renew,
    /// The owner alone is eligible from here on.
    Solo {
        /// What it has.
        generation: Generation,
    },
    /// An eligible node takes over.
    Promote {
        /// Its generation, and where it came from.
        #[serde(deserialize_with = "list_at_most::<_, _, LINEAGE_LEN_MAX>")]
        history: Vec<Generation>,
        /// The run of the owner that is known to serve nothing more.
        dead: Option<Instance>,
        /// An operator typed it.
        by_operator: bool,
    },
    /// The peer is in sync: both are eligible.
    Pair {
        /// What both have.
        generation: Generation,
        /// The peer's generation, and where it came from.
        #[serde(deserialize_with = "list_at_most::<_, _, LINEAGE_LEN_MAX>")]
        history: Vec<Generation>,
    },
    /// The owner, which is drained, makes the other node owner.
    Handover,
    /// The owner goes on: a late [`Self::Handover`] or [`Self::Stop`] finds another epoch and fails,
    /// and a stop that was granted already is taken back.
    Keep,
    /// The owner, which is drained, serves no more until an operator says so.
    Stop,
    /// A run of the owner, the caller's or an older one, serves nothing more: its lease is over.
    Release {
        /// That run.
        instance: Instance,
    },
    /// An operator makes the caller owner, whatever the record says; but it is the record that the
    /// caller has seen.
    Force {
        /// Above this and above the record lies the new epoch.
        floor: Epoch,
    },
}

impl Operation {
    /// Whether it changes no record: what it tells is of the moment in which it is asked, so it is
    /// asked anew rather than again.
    pub fn is_look(&self) -> bool {
        match self {
            Self::Read | Self::PreVote { .. } | Self::Renew => true,
            Self::Enroll(_)
            | Self::Solo { .. }
            | Self::Promote { .. }
            | Self::Pair { .. }
            | Self::Handover
            | Self::Keep
            | Self::Stop
            | Self::Release { .. }
            | Self::Force { .. } => false,
        }
    }
}

/// What one node knows of a pair that has no record.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Half {
    /// Its fingerprint and the peer's, in order of [`Side`].
    pub identities: [[u8; 32]; 2],
    /// The highest epoch that it took part in or promised.
    pub epoch: Epoch,
    /// Who serves or did last.
    pub owner: Side,
    /// Whether both are in sync.
    pub in_sync: bool,
    /// What it has.
    pub generation: Generation,
    /// Its replica was never paired: there is no other half.
    pub alone: bool,
    /// Nobody serves, and nobody shall before an operator says so.
    pub stopped: bool,
    /// The store that its stable record names, the only one that it believes; 0: none yet.
    pub store: ArbiterId,
}

/// The answer to a request.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Reply {
    /// It is done, and stable: this is the record now.
    Done(Box<ArbiterRecord>),
    /// The lease of so many milliseconds counts from when the request was *sent*.
    Lease {
        /// At most what was asked for and at most what the record allows.
        lease_ms: u32,
        /// The record.
        record: Box<ArbiterRecord>,
    },
    /// To [`Operation::Read`] and [`Operation::PreVote`].
    View(Box<View>),
    /// The epoch is another one: this is the record.
    Conflict(Box<ArbiterRecord>),
    /// It is not done.
    Refused(Refused),
}

/// What the arbiter knows.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct View {
    /// What stands in the way of a promotion of the caller.
    pub promotion: Result<(), Refused>,
    /// Until the last lease of the owner is over, in milliseconds; for people and for the next try.
    pub lease_remaining_ms: u32,
    /// Since it heard the owner, in milliseconds; `None` if not since its start.
    pub owner_last_seen_ms: Option<u32>,
    /// The record.
    pub record: ArbiterRecord,
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize, thiserror::Error)]
pub enum Refused {
    /// There is no record of this resource.
    #[error(
        "the arbiter has no record of this resource: both nodes enroll when they are connected"
    )]
    NoRecord,
    /// There is one already.
    #[error("the arbiter has a record of this resource already")]
    Enrolled,
    /// The other half is missing, or says something else.
    #[error("the other node has not said the same of this resource yet")]
    HalfMissing,
    /// The keys are not those of the record.
    #[error("the arbiter's record belongs to nodes with other keys")]
    OtherIdentity,
    /// The store was replaced.
    #[error("this is another arbiter, or one that was made anew")]
    WrongStore,
    /// The store was restored from an older copy.
    #[error("the arbiter's record is older than what this node learnt from it")]
    RolledBack,
    /// Only the owner may.
    #[error("the other node owns this resource")]
    NotOwner,
    /// The record does not list the caller.
    #[error("this node is not eligible: acknowledged writes may be missing here")]
    NotEligible,
    /// The caller's data does not descend from the record's.
    #[error("this node does not have the data of the arbiter's record")]
    OtherGeneration,
    /// The pair is in another state than the operation needs.
    #[error("this does not fit who is eligible now")]
    OtherState,
    /// An operator demoted the owner.
    #[error("an operator stopped this resource: type `hotpair promote`")]
    Stopped,
    /// The owner may still serve.
    #[error("the lease of the other node is not over")]
    LeaseHeld,
    /// The arbiter started a moment ago and does not know which leases it had granted.
    #[error(
        "the arbiter has just started, and waits until every lease it may have granted is over"
    )]
    HoldDown,
    /// A forced promotion while the owner has a lease.
    #[error("the other node is alive: it has a lease")]
    PeerAlive,
    /// Several runs of the caller have leases: it restarts faster than they end.
    #[error("too many runs of this node have a lease: wait until one is over")]
    TooManyRuns,
    /// Somebody decided who may enroll there.
    #[error("the arbiter's file `allow` lists neither this cluster nor the key of this node")]
    NotAllowed,
    /// There is a limit to what an arbiter remembers.
    #[error("the arbiter has as many records as it takes: enroll at another one")]
    NoRoom,
    /// The record could not be made stable.
    #[error("the arbiter could not make its record stable")]
    DiskFailed,
    /// Somebody else wrote where the record is.
    #[error(
        "what the arbiter has stored of this resource was not written by this release of hotpair"
    )]
    Unreadable,
    /// To an enrolment: both nodes say the same, and believe another store.
    #[error("this is another arbiter, or one that was made anew: both nodes may change to it")]
    MayMove {
        /// The store that says so.
        store: ArbiterId,
    },
    /// To an enrolment: both nodes say the same, and the other one believes this store already.
    #[error("this is another arbiter, or one that was made anew: the other node has changed to it")]
    PeerMoved {
        /// The store that says so.
        store: ArbiterId,
    },
}

impl Refused {
    /// Whether the arbiter has no record that counts: the nodes make one, if both say the same.
    pub fn asks_to_enroll(self) -> bool {
        matches!(
            self,
            Self::NoRecord
                | Self::WrongStore
                | Self::RolledBack
                | Self::MayMove { .. }
                | Self::PeerMoved { .. }
        )
    }

    /// Whether this arbiter says nothing that counts: it is as good as out of reach.
    pub fn is_no_answer(self) -> bool {
        match self {
            Self::NoRecord
            | Self::HalfMissing
            | Self::OtherIdentity
            | Self::WrongStore
            | Self::MayMove { .. }
            | Self::PeerMoved { .. }
            | Self::RolledBack
            | Self::DiskFailed
            | Self::Unreadable => true,
            Self::Enrolled
            | Self::NotOwner
            | Self::NotEligible
            | Self::OtherGeneration
            | Self::OtherState
            | Self::Stopped
            | Self::LeaseHeld
            | Self::HoldDown
            | Self::PeerAlive
            | Self::TooManyRuns
            | Self::NotAllowed
            | Self::NoRoom => false,
        }
    }
}
