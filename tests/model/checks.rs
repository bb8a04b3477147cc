//! What must hold in every state, seen from above both nodes.

use hotpair::replica::{Input, LinkStatus, ReplicationStatus, Status};
use hotpair::units::DiskState;
use hotpair::wire::message::{AckStage, Message};

use crate::disk::Work;
use crate::ghost::{Broken, have_diverged};
use crate::node::Node;
use crate::pair::Pair;

/// Looks at a state from all sides.
pub(crate) fn look(pair: &Pair) -> Result<(), Broken> {
    let [a, b] = &pair.nodes;
    let is_known = is_comparable(pair) && pair.ghost.is_old == [false; 2];
    if a.files.data.shown() != b.files.data.shown() && is_known {
        let is_marked = a.files.map.is_marked() || b.files.map.is_marked();
        if !is_marked && ![a, b].into_iter().any(is_in_flight) {
            return Err("NoUnmarkedDifference");
        }
    }
    // With an arbiter it may be its answer that is missing.
    if pair.third.is_none() && pair.is_quiet() { look_at_rest(pair) } else { Ok(()) }
}

/// Whether the two copies have met, so that what differs must be known. A node that lost power
/// knows it only after its recovery.
fn is_comparable(pair: &Pair) -> bool {
    pair.nodes.iter().all(|node| {
        let record = &node.files.record;
        let runs = node.core().is_some();
        let is_recovered = runs || record.place == node.files.place();
        is_recovered && record.generation.is_some() && record.peer_replica_id.0 != 0
    })
}

fn is_in_flight(node: &Node) -> bool {
    node.core().is_some_and(|core| !core.in_flight().is_empty())
}

impl Pair {
    /// Nothing is under way, and nothing but people, clients and faults changes that.
    fn is_quiet(&self) -> bool {
        let is_idle = |node: &Node| node.process.as_ref().is_some_and(|it| it.works.is_empty());
        self.nodes.iter().all(is_idle)
            && self.net.is_quiet()
            && !(0..2).any(|at| self.tick_matters(at))
    }

    fn status(&self, at: usize) -> Status {
        let core = self.nodes[at].core().expect("both run");
        core.status(self.now())
    }
}

/// Both nodes are connected and nothing is under way.
fn look_at_rest(pair: &Pair) -> Result<(), Broken> {
    let [a, b] = [pair.status(0), pair.status(1)];
    let is_split = a.link == LinkStatus::StandAlone && b.link == LinkStatus::StandAlone;
    if have_diverged(&pair.nodes) {
        let both_say_so = a.split_brain.is_some() && b.split_brain.is_some();
        return if is_split && both_say_so { Ok(()) } else { Err("SplitIsReported") };
    }
    if a.split_brain.is_some() || b.split_brain.is_some() {
        return Err("VerdictTrue");
    }
    let is_in_sync = |status: &Status| {
        status.disk == DiskState::UpToDate
            && status.replication == ReplicationStatus::Established
            && !status.solo
            && status.out_of_sync_bytes == Some(0)
    };
    if !is_in_sync(&a) || !is_in_sync(&b) {
        return Err("Converges");
    }
    if pair.nodes[0].files.data.shown() != pair.nodes[1].files.data.shown() {
        return Err("HonestStatus");
    }
    let is_answered = |node: &Node| node.process.as_ref().is_some_and(|it| it.asked.is_empty());
    if pair.nodes.iter().all(is_answered) { Ok(()) } else { Err("RequestsAreAnswered") }
}

/// Whether the peer says with this that something is stable there.
pub(crate) fn says_durable(input: &Input) -> bool {
    let Input::Peer { frame, .. } = input else { return false };
    match &frame.message {
        Message::FlushDone(_) => true,
        Message::Acks(acks) => acks.iter().any(|ack| ack.stage == AckStage::Durable),
        _ => false,
    }
}

/// Node `at` cleared its mark because the peer said that something is stable: it must be what was
/// written last.
pub(crate) fn clear_by_version(at: usize, nodes: &[Node; 2]) -> Result<(), Broken> {
    let works = nodes[at].process.iter().flat_map(|process| &process.works);
    let in_flight = works.rev().find_map(|(_, work)| match work {
        Work::Write(value) => Some(*value),
        _ => None,
    });
    let newest = in_flight.unwrap_or(nodes[at].files.data.shown());
    let there = &nodes[1 - at].files.data;
    let is_there = there.version_count() == 1 && there.shown() == newest;
    if is_there { Ok(()) } else { Err("ClearByVersion") }
}
