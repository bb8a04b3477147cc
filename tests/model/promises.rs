//! What must hold with an arbiter, seen from above all three.

use hotpair::metadata::Superblock;
use hotpair::promotion::arbiter::{ArbiterRecord, Eligible, Operation, Request};
use hotpair::units::{DiskState, ServeMode};

use crate::bounds::Bounds;
use crate::ghost::Broken;
use crate::pair::{Pair, side};
use crate::third::Third;

/// Looks at a state from all sides.
pub(crate) fn look(pair: &Pair, bounds: &Bounds) -> Result<(), Broken> {
    let Some(third) = &pair.third else { return Ok(()) };
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
    if bounds.comes_back && !(pair.comes_back(bounds) && pair.comes_back_alone(bounds)) {
        bounds.breaks("ServiceComesBack")?;
    }
    Ok(())
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

/// Who is listed beside the owner, is whole and has no veto has every acknowledged write.
fn is_whole_if_listed(pair: &Pair, record: &ArbiterRecord, at: usize) -> bool {
    let node = &pair.nodes[at];
    let mine = &node.files.record;
    let counts = record.owner != side(at)
        && record.eligible == Eligible::Both
        && mine.disk == DiskState::UpToDate
        && mine.place == node.files.place() // else it learns at its start what it is worth
        && mine.veto.is_none()
        && !mine.hold
        && !pair.ghost.is_old[at]; // it finds out before it asks for anything
    !counts || node.files.data.shown() >= pair.ghost.floor[1 - at]
}

impl Pair {
    /// Whether neither copy can lose anything that was acknowledged.
    fn is_flushed(&self) -> bool {
        let floor = self.ghost.floor[0].max(self.ghost.floor[1]);
        self.nodes.iter().all(|node| node.files.data.lowest() >= floor)
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
            Operation::Promote { .. } => {
                let next = request.epoch.next_by_arbiter();
                let has_asked = mine.arbitration.asked.is_some_and(|asked| asked.last == next);
                if !has_asked || mine.promised < next {
                    bounds.breaks("PromiseBeforeAsking")?;
                }
                let granted = self.third.as_ref().and_then(|third| third.granted_to[at]);
                if granted.is_some() && self.instance(1 - at) == granted {
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
