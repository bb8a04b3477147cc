//! Which of two copies is right, and how the other one gets there.
//!
//! When two nodes meet, each has told the other its [`Standpoint`]: which data it has, what its
//! disk is worth, what it is. [`decide`] turns the two into a verdict, on both nodes the same one,
//! seen from its own side. It is pure and total; who then does what is for the replicas to say.

mod lineage;
mod reason;
mod verdict;

#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;

pub use lineage::{Lineage, Relation};

use crate::units::{
    Applied, DiskReason, DiskState, Epoch, Generation, Instance, Outcome, ReplicaId,
    ReplicationMode, Resolution, ResourceId, Role, ServeMode, Side,
};
use reason::Why;
use verdict::{Pair, Ruling};

/// What a node says of itself in its Hello, as far as the verdict needs it: all of it stable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standpoint {
    /// Its place in the pair.
    pub side: Side,
    /// Identity of the resource; zero while the replica is fresh.
    pub resource_id: ResourceId,
    /// Identity of this replica.
    pub replica_id: ReplicaId,
    /// The replica it was last paired with: the one that its marks are about. Zero if none.
    pub peer_replica_id: ReplicaId,
    /// Size in bytes.
    pub size: u64,
    /// Size in bytes after the resize under way; zero if there is none.
    pub size_next: u64,
    /// Which data it has; `None` as long as it was never complete.
    pub generation: Option<Generation>,
    /// Where that came from, newest first.
    pub history: Vec<Generation>,
    /// What its copy is worth.
    pub disk: DiskState,
    /// Why.
    pub disk_reason: DiskReason,
    /// What it is.
    pub role: Role,
    /// How it may acknowledge.
    pub serve_mode: ServeMode,
    /// Highest epoch it took part in.
    pub epoch: Epoch,
    /// The last epoch in which it served.
    pub served_epoch: Epoch,
    /// Marks in its dirty map, in blocks.
    pub marks: u64,
    /// What it acknowledged and the peer had not applied when they parted, in bytes.
    pub at_risk_bytes: u64,
    /// Mode of the last session.
    pub mode: ReplicationMode,
    /// Its stable applied version.
    pub applied: Applied,
    /// The stable applied version of the peer, as stored here.
    pub peer_applied: Applied,
    /// Its last runs, newest first.
    pub instances: Vec<Instance>,
    /// The peer's last run, as stored here; zero if none.
    pub peer_instance: Instance,
    /// While inconsistent: the generation it is being filled from.
    pub resync_source: Option<Generation>,
    /// The operator's settlement of a split brain.
    pub resolution: Option<Resolution>,
}

impl Standpoint {
    /// Its generation with where that came from, if it was ever complete.
    pub fn lineage(&self) -> Option<Lineage<'_>> {
        self.generation.map(|current| Lineage { current, history: &self.history })
    }

    /// There is no data of this resource here that could be missed: nothing yet, or metadata lost.
    /// A first resync that was interrupted is not this; it goes on where it was.
    pub fn is_fresh(&self) -> bool {
        let is_being_filled = self.disk == DiskState::Inconsistent
            && self.disk_reason == DiskReason::Resync
            && self.resync_source.is_some();
        self.generation.is_none() && !is_being_filled
    }

    /// Acknowledged writes that were not flushed may be missing here and present on the peer.
    pub fn is_doubtful(&self) -> bool {
        self.disk == DiskState::Outdated
            && matches!(self.disk_reason, DiskReason::LostPower | DiskReason::HeldInMemory)
    }

    /// It holds a state that clients could have seen.
    fn is_consistent(&self) -> bool {
        matches!(self.disk, DiskState::UpToDate | DiskState::Outdated) && self.generation.is_some()
    }

    /// No mark of it or about it means anything: it is older than the peer knows it, or an
    /// operator says that it cannot be trusted.
    fn is_back_in_time(&self, peer: &Self) -> bool {
        rolled_back(self, peer)
            || matches!(self.disk_reason, DiskReason::Invalidated | DiskReason::Rebuilt)
    }
}

/// Whether `me` is older than it was when `peer` last met it: a restored image, a snapshot. What
/// the peer stored of another replica says nothing about this one.
pub fn rolled_back(me: &Standpoint, peer: &Standpoint) -> bool {
    if peer.peer_replica_id != me.replica_id {
        return false;
    }
    let was_met = peer.peer_instance != Instance::default();
    (was_met && !me.instances.contains(&peer.peer_instance)) || me.applied < peer.peer_applied
}

/// What follows from two standpoints, seen from one of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decision {
    /// What follows.
    pub outcome: Outcome,
    /// Why, in a sentence for people. [`RESOURCE`] in it stands for the name of the resource.
    pub reason: String,
    /// Row of the decision table that matched, for logs and tests; 0 where its target is primary.
    pub row: u8,
}

/// In a [`Decision::reason`], where the commands to type name the resource.
pub const RESOURCE: &str = "RESOURCE";
/// In what [`mend`] says, where the peer is named.
pub const PEER: &str = "PEER";

/// Decides what two nodes do that meet. Both compute the verdict for the pair in order of the
/// nodes and then look at it from their own side, so the two decisions always mirror each other.
pub fn decide(mine: &Standpoint, theirs: &Standpoint) -> Decision {
    let ruling = rule(mine, theirs);
    Decision {
        outcome: ruling.outcome(mine.side),
        reason: ruling.why.sentence(mine, theirs),
        row: ruling.row,
    }
}

/// What to type on `mine` about what [`decide`] says, if an operator has to do something. [`RESOURCE`]
/// and [`PEER`] in it stand for names.
pub fn mend(mine: &Standpoint, theirs: &Standpoint) -> Option<String> {
    rule(mine, theirs).why.mend(mine, theirs)
}

fn rule(mine: &Standpoint, theirs: &Standpoint) -> Ruling {
    if mine.side == theirs.side {
        return Ruling::refused(2, Why::SamePlace);
    }
    let pair = match mine.side {
        Side::First => Pair { first: mine, second: theirs },
        Side::Second => Pair { first: theirs, second: mine },
    };
    pair.rule()
}
