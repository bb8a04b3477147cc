//! Whether a former primary resumes, and who steps down when both claim to be one.

use crate::metadata::Superblock;
use crate::units::{DiskState, Epoch, Role, ServeMode, Side};

/// What the peer's Hello says about its right to serve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Claim {
    /// What it is.
    pub role: Role,
    /// Its epoch.
    pub epoch: Epoch,
    /// It refuses everything below.
    pub promised: Epoch,
}

/// Whether a node that was primary before it went away may go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resume {
    /// It owns the resource and nobody was promoted since.
    Yes,
    /// It never was primary, or stepped down.
    WasNotPrimary,
    /// The peer is primary, or promised a higher epoch.
    Superseded,
    /// Its copy must be compared first.
    NotWhole,
}

/// Decides whether the node with `record` resumes as primary now that a peer is there.
///
/// A silent peer is no reason to resume: alone, a node cannot know that it was not superseded.
pub fn may_resume(record: &Superblock, side: Side, peer: Claim) -> Resume {
    let was_primary = record.owner == Some(side)
        && match record.serve_mode {
            ServeMode::Paired | ServeMode::Gated | ServeMode::Solo | ServeMode::HandingOver => true,
            ServeMode::None => false,
        };
    if !was_primary {
        Resume::WasNotPrimary
    } else if peer.role == Role::Primary || peer.promised > record.epoch {
        Resume::Superseded
    } else if record.disk != DiskState::UpToDate {
        Resume::NotWhole
    } else {
        Resume::Yes
    }
}

/// Of two nodes that both claim to be primary, the one with the lower epoch steps down. Epochs of
/// two nodes are never equal, since their low bits differ.
pub fn must_step_down(mine: Epoch, peer: Claim) -> bool {
    peer.role == Role::Primary && peer.epoch > mine
}

/// Whether a primary at `mine` was superseded by a peer that is not primary now, since it was away, but
/// was at a higher epoch and has not stepped down: it follows nobody below, and resumes once this node is
/// secondary. The arbiter says so as well, if it can be asked still.
pub fn is_superseded(mine: Epoch, peer: Claim, peer_mode: ServeMode) -> bool {
    let was_primary = match peer_mode {
        ServeMode::Paired | ServeMode::Gated | ServeMode::Solo | ServeMode::HandingOver => true,
        ServeMode::None => false,
    };
    peer.role == Role::Secondary && was_primary && peer.epoch > mine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_former_primary_supersedes_what_is_below_it_unless_it_stepped_down() {
        for (role, epoch, mode, is_over) in [
            (Role::Secondary, 40, ServeMode::Solo, true),
            (Role::Secondary, 40, ServeMode::Paired, true),
            (Role::Secondary, 40, ServeMode::Gated, true),
            (Role::Secondary, 40, ServeMode::HandingOver, true),
            (Role::Secondary, 40, ServeMode::None, false),
            (Role::Secondary, 36, ServeMode::Solo, false),
            (Role::Secondary, 32, ServeMode::Solo, false),
            // Of two primaries the one with the lower epoch steps down at once.
            (Role::Primary, 40, ServeMode::Solo, false),
        ] {
            // What it only promised makes it no owner.
            let peer = Claim { role, epoch: Epoch(epoch), promised: Epoch(44) };
            assert_eq!(is_superseded(Epoch(36), peer, mode), is_over, "{peer:?} {mode:?}");
        }
    }
}
