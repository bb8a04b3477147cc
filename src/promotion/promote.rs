//! What stands in the way of a promotion typed by an operator.
//!
//! The guards are one function, used by the command and by `explain`, so that the explanation
//! cannot drift from the behaviour.

use crate::metadata::Superblock;
use crate::units::{DiskReason, DiskState, Epoch, Role, ServeMode, Side, VetoReason};

/// What is known of the peer when a promotion is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// There is no connection.
    Away,
    /// It is there.
    Connected {
        /// What it is.
        role: Role,
        /// Highest epoch that it knows or promised.
        epoch: Epoch,
        /// Both copies are known to be the same.
        in_sync: bool,
        /// Its copy cannot be used or is being filled from here: it lacks nothing that we lack.
        behind: bool,
    },
}

/// What the operator typed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PromoteHow {
    /// `--force --peer-is-fenced`.
    pub force: bool,
    /// `--accept-data-loss`.
    pub accept_data_loss: bool,
    /// Pacemaker's resource agent asks: Pacemaker has stopped or fenced a peer that is away.
    pub by_pacemaker: bool,
}

/// How a promotion that is allowed goes on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct PromotePlan {
    /// The new epoch.
    pub epoch: Epoch,
    /// The peer must make its veto durable first.
    pub needs_consent: bool,
    /// It is forced: a new generation at once, and the record says so.
    pub forced: bool,
}

/// The first guard that stands in the way.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The peer serves.
    #[error("the peer is connected and primary")]
    PeerIsPrimary,
    /// Ownership is on its way to the peer, and the peer has not said what became of it.
    #[error("ownership was on its way to the peer, which has not said whether it took it")]
    HandingOver,
    /// The copy was never filled.
    #[error("this copy was never filled")]
    Fresh,
    /// The copy is a mix of old and new.
    #[error("this copy is inconsistent: a resync to it has not ended")]
    Inconsistent,
    /// The disk failed or is missing.
    #[error("the local disk failed")]
    DiskFailed,
    /// The copy may lack acknowledged writes.
    #[error("this copy is outdated: acknowledged writes may be missing")]
    Outdated,
    /// This node lost power while writes were in motion, and has not been compared with the peer.
    #[error("this node lost power: acknowledged writes may be missing until it is compared")]
    Doubtful,
    /// The peer is not there to consent.
    #[error("the peer is not connected, so it cannot consent")]
    PeerAway,
    /// The peer is there, but the copies are not known to be the same.
    #[error("the copies are not in sync")]
    NotInSync,
    /// Split brain is not settled.
    #[error("the split brain is not resolved")]
    SplitBrain,
    /// It vetoed itself, and the peer cannot lift that.
    #[error("this node has vetoed itself: the peer may have gone on without it")]
    Vetoed,
    /// Pacemaker has it promoted without its peer, and it can have missed anything.
    #[error(
        "this node was neither in sync with the peer nor primary since it started, and did not serve \
         alone before: the peer may have gone on without it"
    )]
    NotFollowed,
}

/// Checks every guard of `hotpair promote`, in order. `peer_is_ahead` says that the peer was heard to
/// have written what is missing here.
///
/// # Errors
/// The first guard that fails.
pub fn check_promote(
    record: &Superblock,
    side: Side,
    peer: Peer,
    peer_is_ahead: bool,
    how: PromoteHow,
) -> Result<PromotePlan, Refusal> {
    let serves_there = matches!(peer, Peer::Connected { role: Role::Primary, .. });
    match check_disk(record, peer_is_ahead, how) {
        // What is missing here is there, and is sent: nobody must be told to give it up.
        Err(Refusal::Outdated | Refusal::Doubtful) if serves_there => {
            return Err(Refusal::PeerIsPrimary);
        }
        checked => checked?,
    }
    let mut epoch = record.epoch.max(record.promised);
    match peer {
        Peer::Connected { role: Role::Primary, .. } => return Err(Refusal::PeerIsPrimary),
        Peer::Connected { role: Role::Secondary, epoch: theirs, in_sync, behind } => {
            epoch = epoch.max(theirs);
            if !how.force {
                if record.split {
                    return Err(Refusal::SplitBrain);
                }
                if !in_sync && !behind {
                    return Err(Refusal::NotInSync);
                }
            }
        }
        Peer::Away if how.force => {}
        Peer::Away if record.serve_mode == ServeMode::HandingOver => {
            return Err(Refusal::HandingOver);
        }
        Peer::Away if was_never_paired(record) => {}
        Peer::Away if how.by_pacemaker => check_agents(record)?,
        Peer::Away => return Err(Refusal::PeerAway),
    }
    let needs_consent = matches!(peer, Peer::Connected { .. }) && !how.force;
    let epoch = if how.force { epoch.forced_by(side) } else { epoch.next_by(side) };
    Ok(PromotePlan { epoch, needs_consent, forced: how.force })
}

/// Checks whether `hotpair switchover` may start on the primary.
///
/// # Errors
/// The first guard that fails.
pub fn check_switchover(peer: Peer) -> Result<(), Refusal> {
    match peer {
        Peer::Away => Err(Refusal::PeerAway),
        Peer::Connected { role: Role::Primary, .. } => Err(Refusal::PeerIsPrimary),
        Peer::Connected { role: Role::Secondary, in_sync: true, .. } => Ok(()),
        Peer::Connected { role: Role::Secondary, in_sync: false, .. } => Err(Refusal::NotInSync),
    }
}

/// What keeps Pacemaker from promoting a node whose peer it has stopped or fenced. The copy was looked at
/// before.
fn check_agents(record: &Superblock) -> Result<(), Refusal> {
    if record.split {
        Err(Refusal::SplitBrain)
    } else if record.veto.is_some() {
        Err(Refusal::Vetoed)
    } else {
        Ok(())
    }
}

fn check_disk(record: &Superblock, peer_is_ahead: bool, how: PromoteHow) -> Result<(), Refusal> {
    let accepts = how.force && how.accept_data_loss;
    match record.disk {
        DiskState::UpToDate if (peer_is_ahead || is_behind(record)) && !accepts => {
            Err(Refusal::Outdated)
        }
        DiskState::UpToDate => Ok(()),
        DiskState::Outdated if accepts => Ok(()),
        DiskState::Outdated => match record.disk_reason {
            DiskReason::LostPower | DiskReason::HeldInMemory => Err(Refusal::Doubtful),
            DiskReason::None
            | DiskReason::Invalidated
            | DiskReason::Rebuilt
            | DiskReason::Fresh
            | DiskReason::IoError
            | DiskReason::NoSpace
            | DiskReason::Resync => Err(Refusal::Outdated),
        },
        DiskState::Inconsistent if record.generation.is_none() => Err(Refusal::Fresh),
        DiskState::Inconsistent => Err(Refusal::Inconsistent),
        DiskState::Failed | DiskState::Missing => Err(Refusal::DiskFailed),
    }
}

/// A veto that says somebody else went on: the copy then lacks what was written since.
fn is_behind(record: &Superblock) -> bool {
    record.veto.is_some_and(|veto| match veto.reason {
        VetoReason::Superseded
        | VetoReason::Inconsistent
        | VetoReason::IoError
        | VetoReason::RecordLost => true,
        VetoReason::Evicted
        | VetoReason::Left
        | VetoReason::NotEligible
        | VetoReason::PowerLoss => false,
    })
}

fn was_never_paired(record: &Superblock) -> bool {
    record.peer_replica_id.0 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Birth, Newborn, Place, recovered_at_birth};
    use crate::units::{ReplicaId, ResourceId, ResourceSize};

    #[test]
    fn nobody_is_told_to_give_up_what_a_connected_primary_has() {
        let newborn = Newborn {
            resource_id: ResourceId(1),
            replica_id: ReplicaId(2),
            generation_id: 3,
            size: ResourceSize::new(4096).unwrap(),
            place: Place { boot_id: 4, sidecar_mount: 5, data_mount: 6, device: 7, inode: 8 },
        };
        let born = recovered_at_birth(Birth::This, &newborn).superblock;
        let role = Role::Primary;
        let peer = Peer::Connected { role, epoch: Epoch(7), in_sync: false, behind: false };
        for disk_reason in [DiskReason::None, DiskReason::LostPower] {
            let record = Superblock { disk: DiskState::Outdated, disk_reason, ..born.clone() };
            for (force, accept_data_loss) in [(false, false), (true, false), (true, true)] {
                let how = PromoteHow { force, accept_data_loss, by_pacemaker: false };
                let found = check_promote(&record, Side::First, peer, false, how);
                assert_eq!(found, Err(Refusal::PeerIsPrimary), "{how:?} {disk_reason:?}");
            }
            let (force, accept_data_loss) = (true, false);
            let how = PromoteHow { force, accept_data_loss, by_pacemaker: false };
            let found = check_promote(&record, Side::First, Peer::Away, false, how);
            assert!(matches!(found, Err(Refusal::Outdated | Refusal::Doubtful)), "{found:?}");
        }
    }

    #[test]
    fn force_alone_does_not_give_up_what_the_peer_was_heard_to_have() {
        let newborn = Newborn {
            resource_id: ResourceId(1),
            replica_id: ReplicaId(2),
            generation_id: 3,
            size: ResourceSize::new(4096).unwrap(),
            place: Place { boot_id: 4, sidecar_mount: 5, data_mount: 6, device: 7, inode: 8 },
        };
        let record = recovered_at_birth(Birth::This, &newborn).superblock;
        let (role, epoch) = (Role::Secondary, Epoch(7));
        let there = Peer::Connected { role, epoch, in_sync: false, behind: false };
        for peer in [Peer::Away, there] {
            for (peer_is_ahead, accept_data_loss, is_let) in
                [(false, false, true), (true, false, false), (true, true, true)]
            {
                let how = PromoteHow { force: true, accept_data_loss, by_pacemaker: false };
                let found = check_promote(&record, Side::First, peer, peer_is_ahead, how);
                assert_eq!(found.is_ok(), is_let, "{peer:?} {how:?}: {found:?}");
            }
        }
    }
}
