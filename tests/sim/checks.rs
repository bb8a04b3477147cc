//! What must hold after every event, seen from above both nodes.

use std::collections::BTreeSet;

use hotpair::replica::{LinkStatus, Replica, ReplicationStatus, RequestResult, Status};
use hotpair::units::{BlockRange, DiskReason, DiskState, Epoch};
use hotpair::wire::message::{Frame, Message};

use crate::broken::{Broken, Checked};
use crate::node::Node;
use crate::world::World;

/// The blocks that differ between the two data files, kept up to date as they change.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    blocks: BTreeSet<u64>,
}

impl Differences {
    /// Compares the two files whole.
    pub(crate) fn begin(&mut self, nodes: &mut [Node; 2]) {
        let [one, two] = nodes;
        let all: BTreeSet<u64> = one.files.data.blocks().chain(two.files.data.blocks()).collect();
        let differs = |block: &u64| !one.files.data.has_same_block(&two.files.data, *block);
        self.blocks = all.into_iter().filter(differs).collect();
        one.files.data.take_changed();
        two.files.data.take_changed();
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.blocks.len()
    }

    fn update(&mut self, block: u64, nodes: &[Node; 2]) -> bool {
        let differs = !nodes[0].files.data.has_same_block(&nodes[1].files.data, block);
        if differs {
            self.blocks.insert(block);
        } else {
            self.blocks.remove(&block);
        }
        differs
    }
}

impl World {
    /// Takes note of what changed on a node, and checks that no difference is unmarked.
    pub(crate) fn collect_changes(&mut self, at: usize) -> Checked {
        let changed = self.nodes[at].files.data.take_changed();
        let cleared = self.nodes[at].absorb_map();
        for block in changed {
            if self.differences.update(block, &self.nodes) {
                self.check_marked(block)?;
            }
        }
        for block in cleared {
            if self.differences.blocks.contains(&block) {
                self.check_marked(block)?;
            }
        }
        Ok(())
    }

    /// Checks every block that differs.
    pub(crate) fn check_all_differences(&self) -> Checked {
        if !self.is_comparable() {
            return Ok(());
        }
        self.differences.blocks.iter().try_for_each(|block| self.check_marked(*block))
    }

    fn check_marked(&self, block: u64) -> Checked {
        let is_marked = self.nodes.iter().any(|node| node.is_marked(block));
        if is_marked || self.is_in_flight(block) || !self.is_comparable() {
            return Ok(());
        }
        let detail = format!(
            "block {block} differs and nobody knows (generations {:?}, {:?})",
            self.nodes[0].superblock().generation,
            self.nodes[1].superblock().generation,
        );
        Err(Broken::new("NoUnmarkedDifference", detail))
    }

    /// Whether a write of the block is under way on a node that runs.
    fn is_in_flight(&self, block: u64) -> bool {
        let covers = |range: &BlockRange| (range.first..range.end).contains(&block);
        self.nodes.iter().filter_map(Node::core).any(|core| core.in_flight().iter().any(covers))
    }

    /// Whether the two copies have met, so that what differs must be known.
    fn is_comparable(&self) -> bool {
        if self.nodes.iter().any(|node| node.is_power_lost) {
            return false;
        }
        let records = [self.nodes[0].superblock(), self.nodes[1].superblock()];
        let is_unknown = |reason| {
            matches!(reason, DiskReason::Fresh | DiskReason::Rebuilt | DiskReason::Invalidated)
        };
        let is_gone = |disk| matches!(disk, DiskState::Failed | DiskState::Missing);
        records.iter().all(|record| {
            record.generation.is_some()
                && !is_unknown(record.disk_reason)
                && !is_gone(record.disk)
                && record.peer_replica_id.0 != 0
        })
    }

    /// What is looked at from time to time: what a node says of itself.
    pub(crate) fn check_tick(&mut self, at: usize) -> Checked {
        self.check_all_differences()?;
        let Some(status) = self.status(at) else { return Ok(()) };
        if status.split_brain.is_some() && !self.operator.split_is_explained {
            let detail = format!("node {at} reports {:?}", status.split_brain);
            return Err(Broken::new("VerdictTrue", detail));
        }
        if status.solo {
            self.marks.add("tick while solo");
        }
        if let Some(verify) = &status.last_verify
            && verify.differences > 0
        {
            let detail = format!("node {at} verifies {verify:?}");
            return Err(Broken::new("FalseDifference", detail));
        }
        if self.is_in_sync() {
            self.check_honest(at, &status)?;
            if self.nodes.iter().any(|node| node.core().is_some() && is_serving(node)) {
                self.ghost.in_sync();
            }
        }
        Ok(())
    }

    /// A node's own words.
    pub(crate) fn status(&self, at: usize) -> Option<Status> {
        let node = &self.nodes[at];
        node.core().map(|core| core.status(node.clock(self.now)))
    }

    /// Whether both nodes run and say that both copies are complete.
    pub(crate) fn is_in_sync(&self) -> bool {
        (0..2).all(|at| {
            let is_awake = self.nodes[at].awake().is_some();
            is_awake && self.status(at).is_some_and(|status| says_in_sync(&status))
        })
    }

    /// Nothing differs but what is in flight, or the count says so.
    fn check_honest(&self, at: usize, status: &Status) -> Checked {
        if status.out_of_sync_bytes != Some(0) {
            return Ok(());
        }
        let in_flight: Vec<BlockRange> =
            self.nodes.iter().filter_map(Node::core).flat_map(Replica::in_flight).collect();
        let is_moving =
            |block: u64| in_flight.iter().any(|range| (range.first..range.end).contains(&block));
        match self.differences.blocks.iter().find(|block| !is_moving(**block)) {
            Some(block) => {
                let detail = format!("node {at} says in sync, block {block} differs");
                Err(Broken::new("HonestStatus", detail))
            }
            None => Ok(()),
        }
    }

    /// Nothing of the data moves in a split brain.
    pub(crate) fn check_send(&self, at: usize, frame: &Frame) -> Checked {
        let moves = matches!(
            frame.message,
            Message::Write(_) | Message::Zero(_) | Message::ChunkData(_) | Message::ChunkZero(_)
        );
        let is_settled = self.nodes[at].superblock().resolution.is_some();
        let is_split = self.status(at).is_some_and(|status| status.split_brain.is_some());
        if moves && is_split && !is_settled {
            let detail = format!("node {at} sends {:?} in a split brain", frame.message);
            return Err(Broken::new("DivergedStandsStill", detail));
        }
        Ok(())
    }

    /// Only complete data is served, by one node at a time.
    pub(crate) fn check_opens(&self, at: usize, epoch: Epoch) -> Checked {
        let disk = self.nodes[at].superblock().disk;
        if disk != DiskState::UpToDate {
            let detail = format!("node {at} serves, its disk is {disk}");
            return Err(Broken::new("DoubtfulNeverServes", detail));
        }
        let Some(process) = &self.nodes[at].process else { return Ok(()) };
        if let Some(open) = process.export {
            let detail = format!("node {at} opens {epoch} while {open} is open");
            return Err(Broken::new("OldEpochCut", detail));
        }
        let other = self.nodes[1 - at].process.as_ref().and_then(|process| process.export);
        match other {
            // With an arbiter a node that is cut off keeps its export and answers nothing.
            Some(other) if !self.ghost.is_split && self.plan.witness.is_none() => {
                let detail = format!("node {at} opens {epoch} while the other one serves {other}");
                Err(Broken::new("OneWriter", detail))
            }
            _ => Ok(()),
        }
    }

    /// Nobody acknowledges in an epoch that is over.
    ///
    /// With an arbiter, a write that the peer acknowledged before it promised to follow nobody may
    /// be answered late: the history says whether that is true.
    pub(crate) fn check_reply(
        &self,
        at: usize,
        epoch: Epoch,
        result: RequestResult,
        is_read: bool,
    ) -> Checked {
        let may_be_late = self.plan.witness.is_some() && !is_read;
        if result.is_err() || self.ghost.is_split || may_be_late {
            return Ok(());
        }
        let other = self.nodes[1 - at].process.as_ref().and_then(|process| process.export);
        match other {
            Some(newer) if newer > epoch => {
                let detail = format!("node {at} answers in epoch {epoch}, {newer} is open");
                Err(Broken::new("OneWriter", detail))
            }
            _ => Ok(()),
        }
    }
}

fn says_in_sync(status: &Status) -> bool {
    status.disk == DiskState::UpToDate
        && status.link == LinkStatus::Connected
        && matches!(status.replication, ReplicationStatus::Established | ReplicationStatus::Verify)
        && !status.solo
        && status.split_brain.is_none()
}

fn is_serving(node: &Node) -> bool {
    node.process.as_ref().is_some_and(|process| process.export.is_some())
}
