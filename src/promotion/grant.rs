//! The right to serve, and the right to acknowledge alone.

use crate::metadata::{Durable, Superblock};
use crate::units::{DiskState, Epoch, ServeMode, Side};

/// The right to serve clients at one epoch. When it was made, the other node could not
/// acknowledge writes: it had followed, consented durably, or an operator vouched that it is off.
///
/// In this mode it has no end of its own: the core revokes it by closing the export.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ServeGrant {
    epoch: Epoch,
}

impl ServeGrant {
    /// The epoch that every client connection carries.
    pub fn epoch(self) -> Epoch {
        self.epoch
    }
}

/// Makes the grant that the *stable* record allows: this node owns the resource, in a mode that
/// serves, with a disk that is up-to-date.
pub fn grant(record: &Durable<Superblock>, side: Side) -> Option<ServeGrant> {
    let record = record.get();
    let serves = match record.serve_mode {
        ServeMode::Paired | ServeMode::Gated | ServeMode::Solo => true,
        ServeMode::None | ServeMode::HandingOver => false,
    };
    (serves && record.owner == Some(side) && record.disk == DiskState::UpToDate)
        .then_some(ServeGrant { epoch: record.epoch })
}

/// Why a primary may acknowledge writes that the peer does not have.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Permit {
    /// The peer said that its veto against itself (or its incomplete copy) is durable.
    PeerVeto,
    /// The peer said, durably, that it never promotes itself, and our stable record notes it.
    PeerNeverPromotes,
    /// The arbiter's record says that only this node is eligible.
    ArbiterSolo,
    /// The fence command confirmed that the peer is off, or durably outdated.
    Fenced,
    /// Pacemaker promoted this node while the peer was away, which it does only after it stopped or
    /// fenced that one, and the fence command then kept the peer from being promoted.
    Pacemaker,
    /// Every path to the peer is silent, and an operator chose to take that for its death.
    AssumedDead,
    /// The peer promised, durably, not to ask for promotion while the arbiter is away, and our stable
    /// record notes it.
    Pledged,
    /// An operator vouched that the peer is off while the arbiter was out of reach, and the record
    /// says so.
    Forced,
}

impl Permit {
    /// As `status` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PeerVeto => "peer-veto",
            Self::PeerNeverPromotes => "peer-never-promotes",
            Self::ArbiterSolo => "arbiter",
            Self::Fenced => "fenced",
            Self::Pacemaker => "pacemaker",
            Self::AssumedDead => "assumed-dead",
            Self::Pledged => "pledged",
            Self::Forced => "forced",
        }
    }
}

/// The permit to go on alone, if there is one. `peer_vetoed` is what the peer confirmed at this
/// epoch: a durable veto, or a copy that is durably outdated, inconsistent or failed.
pub fn solo_permit(record: &Durable<Superblock>, peer_vetoed: bool) -> Option<Permit> {
    if peer_vetoed {
        Some(Permit::PeerVeto)
    } else if record.get().peer_never_promotes {
        Some(Permit::PeerNeverPromotes)
    } else {
        None
    }
}

/// The permit of a primary whose peer pledged not to ask for promotion.
pub fn pledged_permit(record: &Durable<Superblock>, side: Side) -> Option<Permit> {
    let record = record.get();
    let serves = matches!(record.serve_mode, ServeMode::Paired | ServeMode::Solo);
    (record.hold && serves && record.owner == Some(side)).then_some(Permit::Pledged)
}

/// The permit of an operator who forced a promotion that no arbiter knows of yet. It is for as long
/// as this node has been alone since.
pub fn forced_permit(record: &Durable<Superblock>) -> Option<Permit> {
    let record = record.get();
    let is_alone = record.serve_mode == ServeMode::Solo;
    (record.forced && is_alone && !record.epoch.is_by_arbiter()).then_some(Permit::Forced)
}
