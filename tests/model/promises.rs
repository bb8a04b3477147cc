//! What must hold with an arbiter, seen from above all three.

use std::cmp::Ordering;

use hotpair::metadata::Superblock;
use hotpair::promotion::arbiter::{ArbiterRecord, Eligible, Operation, Request};
use hotpair::replica::ReplicationStatus;
use hotpair::units::{DiskReason, DiskState, ServeMode};

use crate::bounds::Bounds;
use crate::ghost::Broken;
use crate::pair::{Pair, side};
use crate::third::Third;

/// Looks at a state from all sides.
pub(crate) fn look(pair: &Pair, bounds: &Bounds) -> Result<(), Broken> {
    let Some(third) = &pair.third else { return Ok(()) };
    if !(0..2).all(|at| has_true_epoch(pair, third, at)) {
        bounds.breaks("NoFabricatedEpoch")?;
    }
    if pair.ghost.is_split {
        return Ok(());
    }
    for at in 0..2 {
        if !reads_are_fresh(pair, at) {
            bounds.breaks("FreshRead")?;
        }
        if goes_alone(pair, at) && !may_be_alone(pair, third, at) {
            bounds.breaks("VetoBeforeSolo")?;
        }
        if let Some(record) = &third.disk
            && !is_whole_if_listed(pair, record, at)
        {
            bounds.breaks("EligibleInSync")?;
        }
    }
    if goes_alone(pair, 0) && goes_alone(pair, 1) {
        bounds.breaks("OneWriter")?;
    }
    if bounds.comes_back && !(pair.comes_back(bounds)? && pair.comes_back_alone(bounds)?) {
        bounds.breaks("ServiceComesBack")?;
    }
    Ok(())
}

/// An epoch at which a node owns the resource was made by the arbiter for it, or by itself.
fn has_true_epoch(pair: &Pair, third: &Third, at: usize) -> bool {
    let record = &pair.nodes[at].files.record;
    if record.owner != Some(side(at)) || record.epoch.0 == 0 {
        return true;
    }
    if !record.epoch.is_by_arbiter() {
        return [1, 2][at] == record.epoch.0 & 3;
    }
    third.disk.as_ref().is_none_or(|known| match known.epoch.cmp(&record.epoch) {
        Ordering::Less => false,
        Ordering::Equal => known.owner == side(at),
        Ordering::Greater => true,
    })
}

/// Whoever may answer reads has every acknowledged write.
fn reads_are_fresh(pair: &Pair, at: usize) -> bool {
    let node = &pair.nodes[at];
    let Some(process) = &node.process else { return true };
    let may_read = process.export.is_some() && process.core.may_answer_reads();
    !may_read || node.files.data.shown() >= pair.ghost.floor[0].max(pair.ghost.floor[1])
}

/// Whether the node acknowledges writes that its peer does not have.
fn goes_alone(pair: &Pair, at: usize) -> bool {
    let node = &pair.nodes[at];
    node.core()
        .is_some_and(|core| core.is_primary() && core.superblock().serve_mode == ServeMode::Solo)
}

fn may_be_alone(pair: &Pair, third: &Third, at: usize) -> bool {
    let [mine, theirs] = [at, 1 - at].map(|node| &pair.nodes[node].files.record);
    let is_forced = mine.forced && !mine.epoch.is_by_arbiter();
    let is_out = theirs.veto.is_some() || theirs.disk != DiskState::UpToDate;
    third.lists_only(at) || is_forced || is_out || is_pledged(theirs, 1 - at)
}

/// Whether that node pledged not to ask for promotion.
pub(crate) fn is_pledged(record: &Superblock, at: usize) -> bool {
    record.hold && record.owner != Some(side(at))
}

/// Who is listed beside the owner, is not doubtful and has no veto is up-to-date and has every
/// acknowledged write.
fn is_whole_if_listed(pair: &Pair, record: &ArbiterRecord, at: usize) -> bool {
    let node = &pair.nodes[at];
    let mine = &node.files.record;
    let counts = record.owner != side(at)
        && record.eligible == Eligible::Both
        && mine.place == node.files.place() // else it learns at its start what it is worth
        && mine.veto.is_none()
        && !is_doubtful(mine)
        && !mine.hold
        && !may_be_old(pair, at);
    let has_all = || node.files.data.shown() >= pair.ghost.floor[1 - at];
    !counts || (mine.disk == DiskState::UpToDate && has_all())
}

/// Whether a node knows that it may lack acknowledged writes.
fn is_doubtful(record: &Superblock) -> bool {
    let reason = record.disk_reason;
    record.disk == DiskState::Outdated
        && matches!(reason, DiskReason::LostPower | DiskReason::HeldInMemory)
}

/// Whether an old image was put back there, and the node may not know it: it finds out before it is
/// taken as in sync, and before it asks for anything.
fn may_be_old(pair: &Pair, at: usize) -> bool {
    let is_in_sync = pair.nodes[at]
        .core()
        .is_some_and(|core| core.status(pair.now()).replication == ReplicationStatus::Established);
    pair.ghost.is_old[at] && !is_in_sync
}

impl Pair {
    /// Whether neither copy can lose anything that was acknowledged.
    fn is_flushed(&self) -> bool {
        let floor = self.ghost.floor[0].max(self.ghost.floor[1]);
        self.nodes.iter().all(|node| node.files.data.lowest() >= floor)
    }

    /// Whether the peer's run may count a lease of that node still.
    fn has_granted(&self, at: usize) -> bool {
        let granted = self.third.as_ref().and_then(|third| third.granted_to[at]);
        granted.is_some() && self.instance(1 - at) == granted
    }

    /// A node asks the arbiter.
    pub(crate) fn asks_third(
        &mut self,
        at: usize,
        request: Box<Request>,
        bounds: &Bounds,
    ) -> Result<(), Broken> {
        let mine = &self.nodes[at].files.record;
        match request.operation {
            Operation::Force { .. } if self.has_granted(at) => {
                bounds.breaks("RevokeBeforeGrant")?;
            }
            Operation::Promote { .. } => {
                let next = request.epoch.next_by_arbiter();
                let has_asked = mine.arbitration.asked.is_some_and(|asked| asked.last == next);
                if !has_asked || mine.promised < next {
                    bounds.breaks("PromiseBeforeAsking")?;
                }
                if self.ghost.is_old[at] {
                    bounds.breaks("EligibleInSync")?;
                }
                if self.has_granted(at) {
                    bounds.breaks("RevokeBeforeGrant")?;
                }
            }
            Operation::Pair { .. } if mine.serve_mode != ServeMode::Paired => {
                bounds.breaks("PairedBeforeEligible")?;
            }
            Operation::Handover if !self.is_flushed() => {
                bounds.breaks("FlushedBeforeHandover")?;
            }
            _ => {}
        }
        let third = self.third();
        if !third.is_away[at] {
            third.asks[at].push_back(request);
        }
        Ok(())
    }
}
