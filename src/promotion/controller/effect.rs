//! What the controller is told beside the facts, and what it wants done.

use std::time::Duration;

use crate::metadata::Asked;
use crate::promotion::arbiter::{ArbiterRecord, Reply, Request, RequestId};
use crate::promotion::fencing::{FenceAnswer, FenceOrder};
use crate::units::{ArbiterId, Epoch, Instance, Instant, VetoReason};

/// One thing the controller is told.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ControllerInput {
    /// The arbiter answered.
    Reply {
        /// Which request.
        id: RequestId,
        /// What.
        reply: Reply,
    },
    /// The arbiter shows a record that changed.
    Pushed(Box<ArbiterRecord>),
    /// There is a way to the arbiter again: what was asked before may be lost.
    ArbiterBack,
    /// A timer fired.
    Timer(ControllerTimer),
    /// Every path to the peer has been silent for `suspect_after`, or no longer is.
    Silent(bool),
    /// The peer, in this run and at this epoch, asks for a lease.
    LeaseAsked {
        /// Its run.
        instance: Instance,
        /// Its epoch.
        epoch: Epoch,
    },
    /// The peer granted the lease that this run asked for at that moment.
    LeaseGranted {
        /// When it was asked for.
        asked: Instant,
    },
    /// That run of the peer serves nothing more, at any epoch up to this one.
    Released {
        /// The run.
        instance: Instance,
        /// The epoch.
        epoch: Epoch,
    },
    /// A run of the fence command ended.
    Fence {
        /// Which.
        run: u64,
        /// How.
        answer: FenceAnswer,
    },
    /// What the peer says of itself in a beat, beside leases.
    PeerTold(PeerWord),
    /// An operator wants this node to be primary.
    Promote {
        /// Echoed in [`ControllerEffect::Settled`].
        request: u64,
    },
    /// An operator vouches that the peer is off, and wants this node to be primary.
    Force {
        /// Echoed in [`ControllerEffect::Settled`].
        request: u64,
        /// What may be missing here is given up.
        accept_data_loss: bool,
    },
}

/// What a node says of itself in each beat, beside leases.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct PeerWord {
    /// How many automatic promotions of the resource count, by what it knows; `None` if it has heard
    /// nothing of the other node since its start.
    pub promotions: Option<u8>,
    /// It is primary.
    pub is_primary: bool,
    /// The arbiter answers it.
    pub hears_arbiter: bool,
}

/// What the controller waits for.
///
/// Drivers fire those that are over in this order. A node that was kept from running finds several at once, and
/// must not act by a lease that ended meanwhile: the ends of its leases come first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ControllerTimer {
    /// The arbiter's lease to this node is over.
    ArbiterLease,
    /// The peer's lease to this node is over.
    PeerLease,
    /// The arbiter has not answered: the request is sent again.
    Repeat,
    /// The lease is to be renewed, or the record to be looked at.
    Look,
    /// This node's lease to the peer is over.
    Grant,
    /// Every lease that this node granted before its start is over.
    HoldDown,
    /// The owner had its time to come back after this node's start.
    Preference,
    /// The owner, which is connected, had its time to serve.
    Idle,
    /// The services of the old owner had their time to stop.
    StopBudget,
    /// The fence command is to be run, for the first time or again.
    Fence,
    /// Without an arbiter and without a fence command: the primary was silent for long enough.
    Silence,
    /// The arbiter has been away for `arbiter_grace`.
    Grace,
}

/// On which side of its time a timer must be when two clocks differ.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Bound {
    /// It fires when either clock has passed: what was granted to us.
    Early,
    /// It fires when both clocks have passed: what we granted.
    Late,
}

/// One thing the controller wants done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ControllerEffect {
    /// Ask the arbiter.
    Ask(Box<Request>),
    /// Fire a timer so long after that moment; one that is set again fires only for the last time.
    SetTimer {
        /// Which.
        timer: ControllerTimer,
        /// The moment.
        from: Instant,
        /// How long after it.
        after: Duration,
        /// On which side.
        bound: Bound,
    },
    /// Tell that run of the peer that its request for a lease is granted.
    GrantLease(Instance),
    /// Make a change of the record stable.
    Record(ArbiterChange),
    /// Do this; it is asked for until the facts show that it is done or under way.
    Act(Act),
    /// Run the fence command.
    Fence(FenceOrder),
    /// Tell whoever listens.
    Event {
        /// Short constant name.
        kind: &'static str,
        /// One sentence.
        reason: String,
    },
    /// An operator's promotion came to an end.
    Settled {
        /// Whose.
        request: u64,
        /// Why not, if not.
        result: Result<Won, Obstacle>,
    },
}

/// How an operator's promotion went well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Won {
    /// Nobody had to give up anything.
    ByRule,
    /// By force.
    ByForce {
        /// Also what may have been missing here.
        accept_data_loss: bool,
    },
}

/// A change of the record that the arbiter's word or a promise to it needs. Each also notes the
/// newest epoch that was learnt from the arbiter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ArbiterChange {
    /// The arbiter's store.
    pub arbiter: ArbiterId,
    /// The epoch of its record.
    pub epoch: Epoch,
    /// The longest lease in milliseconds.
    pub lease_ms: u32,
    /// The run of this node that changed the arbiter's record last: it stays in the list of runs, or
    /// the record would look like an older image of itself one day.
    pub asked_in: Option<Instance>,
    /// What changes beside.
    pub step: RecordStep,
}

/// See [`ArbiterChange`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum RecordStep {
    /// Nothing.
    Learn,
    /// This node owns the resource at the epoch of the arbiter's record.
    Adopt,
    /// It follows nobody below the last of these epochs, since it asks to be promoted to it.
    Promise(Asked),
    /// None of the promotions that it asked for can be granted any more.
    Settle,
    /// The primary lives: it is followed again, at its epoch. What was asked for stays.
    Follow(Epoch),
    /// It vetoes itself.
    Veto(VetoReason),
    /// The veto is void: the arbiter lists this node alone.
    LiftVeto,
    /// The store that is believed from here on.
    Change(ArbiterId),
}

/// What the node does about who serves.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Act {
    /// It was granted a promotion: sync, record, serve alone.
    Promote(Epoch),
    /// An operator forced it, and the arbiter agreed or was out of reach: sync, record, serve alone.
    Force {
        /// The new epoch.
        epoch: Epoch,
        /// What may be missing here is given up.
        accept_data_loss: bool,
    },
    /// It owns the resource and was primary: it goes on as one.
    Resume,
    /// The owner handed the resource over to it: record, serve with the peer.
    TakeOver(Epoch),
    /// Somebody else owns the resource at this epoch: nothing leaves this node any more.
    StepDown(Epoch),
    /// The peer owns the resource now.
    HandedOver,
    /// The peer does not own it, and no late request will make it.
    TakenBack,
    /// The arbiter promotes nobody until an operator says so.
    Stopped,
    /// The peer is the preferred node, and both have been in sync for long: the roles are exchanged as an
    /// operator would.
    FailBack,
}

/// The first thing that stands in the way of a promotion; the words are those of `explain`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum Obstacle {
    /// SIGTERM.
    #[error("this daemon stops")]
    Stopping,
    /// Not configured.
    #[error("`auto` lets only an operator promote this node")]
    NotAutomatic,
    /// An operator demoted the resource.
    #[error("an operator stopped this resource")]
    Stopped,
    /// The copy cannot be served.
    #[error("this copy is not up-to-date")]
    NotUpToDate,
    /// The disk does not answer.
    #[error("the disk of this node does not answer")]
    DiskStalled,
    /// An older image of its record was put back, or the copy that the arbiter lists alone was made anew.
    #[error(
        "an older state of this node's metadata was put back, or its copy was made anew while the arbiter \
         lists it alone: it does not know what it promised, and acknowledged writes may be missing here"
    )]
    RecordLost,
    /// It vetoed itself.
    #[error("this node has vetoed itself: acknowledged writes may be missing here")]
    Vetoed,
    /// It promised the primary not to ask.
    #[error("this node pledged not to ask for promotion while the arbiter was away")]
    Pledged,
    /// Split brain.
    #[error("the split brain is not resolved")]
    SplitBrain,
    /// A lease it granted.
    #[error("the lease that this node granted to the primary is not over")]
    GrantHeld,
    /// It started a moment ago.
    #[error("this node has just started, and waits until every lease it may have granted is over")]
    HoldDown,
    /// The primary is heard.
    #[error("the primary is not silent")]
    PeerHeard,
    /// The peer went on from what this node has.
    #[error("the peer acknowledged writes that are missing here")]
    PeerAhead,
    /// Without an arbiter: it may have missed anything.
    #[error(
        "this node has not followed the primary in sync since it started, so it cannot know what it \
         missed"
    )]
    NotFollowed,
    /// The nodes are connected.
    #[error("the nodes are connected")]
    Connected,
    /// After a start the owner goes first.
    #[error("after a start the owner has the first turn")]
    OwnerFirst,
    /// The old owner is being fenced.
    #[error("the arbiter made this node owner, and the fence command runs")]
    Fencing,
    /// The fence command did not confirm that the old owner is off.
    #[error("the arbiter made this node owner, but the fence command ended with {0}")]
    NotFenced(FenceAnswer),
    /// It was promoted too often.
    #[error("this resource was promoted too often without an operator: `flap_limit`")]
    Flapping,
    /// It is primary already, or becomes it.
    #[error("this node is primary, or about to be")]
    Primary,
    /// The arbiter has not been reached.
    #[error("the arbiter has not answered")]
    ArbiterAway,
    /// A force that it was not asked about.
    #[error(
        "the arbiter's record is older than a promotion by force, which it has not been told of yet"
    )]
    ArbiterBehind,
    /// What force alone does not give up, or never can.
    #[error("{0}")]
    Local(crate::promotion::Refusal),
    /// The arbiter refused.
    #[error("the arbiter: {0}")]
    Arbiter(#[from] crate::promotion::arbiter::Refused),
}
