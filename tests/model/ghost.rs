//! The truth, known to nobody but the checker: what clients were told, and what that asks of a copy.
//!
//! Values count up in the order in which writes were admitted, so "at least the value v" means
//! "everything up to v, or something newer that nobody was told of".

use hotpair::metadata::Superblock;
use hotpair::units::{DiskState, Epoch, Generation, ServeMode};

use crate::disk::Value;
use crate::node::Node;

/// What must hold, and what excuses that it does not.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct Ghost {
    /// The newest value a client asked to write.
    pub(crate) asked: Value,
    /// What clients were told that each node must show if it serves.
    pub(crate) floor: [Value; 2],
    /// What each node must show even if both lost power.
    pub(crate) flushed: [Value; 2],
    /// What each node has had, a bit for each value, whatever a power loss or an old image took of it.
    had: [u128; 2],
    /// A power loss took something, and the node was not compared since.
    pub(crate) has_lost: [bool; 2],
    /// An old image was put back at each node, which was not filled since.
    pub(crate) is_old: [bool; 2],
    /// What clients had been told, written and flushed, when each node said last that every
    /// acknowledgement needs its peer: a target that becomes complete has at least that.
    owed: [(Value, Value); 2],
    /// Each node went alone since it said that.
    went_alone: [bool; 2],
    /// Each node goes on alone because its peer cannot be a candidate, as it was told.
    pub(crate) counts_on_veto: [bool; 2],
    /// Who served last.
    served: Option<(Epoch, usize)>,
    /// An operator promoted a node by force that lacks what the other one acknowledged alone, or
    /// lied about that one: each node answers for itself until one was overwritten.
    pub(crate) is_split: bool,
    /// One was.
    pub(crate) is_settled: bool,
    /// An operator promoted the peer of that node by force, and the arbiter was not asked: if it
    /// serves again before it knows, each answers for itself.
    is_vouched_for: [bool; 2],
}

/// How a promotion by force came about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForcedBy {
    /// The operator lied: the peer serves.
    pub(crate) peer_serves: bool,
    /// The arbiter was not asked.
    pub(crate) is_unheard: bool,
}

/// The name of a property that does not hold.
pub(crate) type Broken = &'static str;

impl Ghost {
    /// Node `at` wrote `value`. If its peer has had that, it stands for what the peer had before it,
    /// too: a copy has the newest only.
    pub(crate) fn wrote(&mut self, at: usize, value: Value) {
        let peers = self.had[1 - at];
        let before = if peers & bit(value) == 0 { 0 } else { peers & (bit(value) - 1) };
        self.had[at] |= bit(value) | before;
    }

    /// Node `at` is about to serve.
    pub(crate) fn opens(
        &mut self,
        at: usize,
        epoch: Epoch,
        nodes: &[Node; 2],
        has_arbiter: bool,
    ) -> Result<(), Broken> {
        let files = &nodes[at].files;
        self.is_split |= self.is_vouched_for[at] && epoch < nodes[1 - at].files.record.epoch;
        if files.record.disk != DiskState::UpToDate {
            return Err("DoubtfulNeverServes");
        }
        let other = nodes[1 - at].process.as_ref().and_then(|process| process.export);
        // With an arbiter a node that is cut off keeps its export and answers nothing.
        if other.is_some() && !self.is_split && !has_arbiter {
            return Err("OneWriter");
        }
        let is_older = self
            .served
            .is_some_and(|(served, node)| served > epoch || (served == epoch && node != at));
        if is_older && !self.is_split {
            return Err("EpochMono");
        }
        self.served = Some((epoch, at));
        if files.data.shown() < self.needed(at) { Err("NoLostAck") } else { Ok(()) }
    }

    /// What node `at` must show if it serves.
    fn needed(&self, at: usize) -> Value {
        if self.is_split { self.floor[at] } else { self.floor[0].max(self.floor[1]) }
    }

    /// Node `at` tells a client that `value` was written, or that it is what a read found.
    pub(crate) fn told(
        &mut self,
        at: usize,
        value: Value,
        nodes: &[Node; 2],
    ) -> Result<(), Broken> {
        let [mine, theirs] = [&nodes[at].files.record, &nodes[1 - at].files.record];
        let is_alone = mine.serve_mode == ServeMode::Solo;
        let peer_has_it = value == 0 || self.had[1 - at] & bit(value) != 0;
        let newer = nodes[1 - at].process.as_ref().and_then(|process| process.export);
        // What the peer has may be answered late.
        let is_late = mine.arbitration.epoch.0 > 0 && peer_has_it;
        if newer.is_some_and(|newer| newer > mine.epoch) && !self.is_split && !is_late {
            return Err("OneWriter");
        }
        // A read may end later than this node was alone, and find what it acknowledged then.
        let is_news = value > self.floor[at];
        if !peer_has_it && !is_alone && is_news {
            return Err("AckRule");
        }
        if !peer_has_it && is_news && descends(theirs, mine.generation) {
            return Err("GenerationBeforeAck");
        }
        self.floor[at] = self.floor[at].max(value);
        if !is_alone && peer_has_it {
            self.floor[1 - at] = self.floor[1 - at].max(value);
        }
        Ok(())
    }

    /// A read of node `at` found `value`.
    pub(crate) fn read(
        &mut self,
        at: usize,
        value: Value,
        nodes: &[Node; 2],
    ) -> Result<(), Broken> {
        if value < self.needed(at) {
            return Err("FreshRead");
        }
        self.told(at, value, nodes)
    }

    /// Node `at` tells a client that everything up to `value` is stable.
    pub(crate) fn flushed(
        &mut self,
        at: usize,
        value: Value,
        nodes: &[Node; 2],
    ) -> Result<(), Broken> {
        let is_alone = nodes[at].files.record.serve_mode == ServeMode::Solo;
        let is_stable = |node: usize| nodes[node].files.data.lowest() >= value;
        if !is_stable(at) || !(is_alone || is_stable(1 - at)) {
            return Err("FlushOnBoth");
        }
        self.flushed[at] = self.flushed[at].max(value);
        if !is_alone {
            self.flushed[1 - at] = self.flushed[1 - at].max(value);
        }
        Ok(())
    }

    /// Node `at` lost power, which took something if `has_lost`. What it had acknowledged alone is
    /// given up but for what was flushed, also when the other one was being filled: that could not
    /// serve what it had of it.
    pub(crate) fn lost_power(&mut self, at: usize, has_lost: bool, nodes: &[Node; 2]) {
        let [mine, theirs] = [&nodes[at].files.record, &nodes[1 - at].files.record];
        let is_alone = mine.serve_mode == ServeMode::Solo || theirs.disk == DiskState::Inconsistent;
        self.has_lost[at] |= has_lost;
        // With an arbiter it is the owner that both are made equal to, whatever the other one has.
        let has_owner = theirs.arbitration.epoch.0 > 0;
        let is_doubtful = |node: usize| {
            let Node { files, .. } = &nodes[node];
            files.record.disk == DiskState::Outdated || files.record.place != files.place()
        };
        let are_doubtful = has_owner && is_doubtful(1 - at) && self.has_lost.contains(&true);
        if self.has_lost == [true; 2] || are_doubtful {
            self.floor = [0, 1].map(|node| self.floor[node].min(self.flushed[node]));
            self.has_lost = [false; 2];
        } else if self.has_lost[at] && is_alone {
            self.floor[at] = self.floor[at].min(self.flushed[at]);
            self.has_lost[at] = false;
        }
    }

    /// An image was put back at node `at`, with `shown`. What that one acknowledged alone is given up.
    pub(crate) fn was_put_back(&mut self, at: usize, shown: Value, was_alone: bool) {
        self.is_old[at] = true;
        if was_alone {
            self.floor[at] = self.floor[at].min(shown);
            self.flushed[at] = self.flushed[at].min(shown);
        } else {
            self.has_lost[at] = true;
        }
    }

    /// Node `at` was promoted by force: what it lacks is given up, if the operator said so.
    pub(crate) fn forced(&mut self, at: usize, accepts_loss: bool, shown: Value, by: ForcedBy) {
        if accepts_loss {
            self.floor[at] = self.floor[at].min(shown);
            self.flushed[at] = self.flushed[at].min(shown);
            self.has_lost[at] = false;
        }
        let ForcedBy { peer_serves, is_unheard } = by;
        self.is_split |= peer_serves || self.floor[1 - at] > self.floor[at];
        self.is_vouched_for[1 - at] = is_unheard;
    }

    /// The record of node `at` changed from `old` to the one it has. It may be the only one that
    /// the arbiter's record lists.
    pub(crate) fn recorded(
        &mut self,
        at: usize,
        old: &Superblock,
        nodes: &[Node; 2],
        is_only_one: bool,
    ) -> Result<(), Broken> {
        let [mine, theirs] = [&nodes[at].files.record, &nodes[1 - at].files.record];
        // Whoever asked for a promotion follows the primary again, if that lives: what it promises from
        // then on is the epoch of that one, or was.
        let follows =
            old.arbitration.asked.is_some() && (mine.epoch..=theirs.epoch).contains(&mine.promised);
        if mine.epoch < old.epoch || (mine.promised < old.promised && !follows) {
            return Err("EpochMono");
        }
        let lowest = [0, 1].map(|node| nodes[node].files.data.lowest());
        let goes = |from: ServeMode, to: ServeMode| old.serve_mode == from && mine.serve_mode == to;
        let is_same_term = mine.epoch == old.epoch; // else it was promoted by force
        if is_same_term && goes(ServeMode::Paired, ServeMode::Solo) {
            let is_out = theirs.veto.is_some() || theirs.disk != DiskState::UpToDate;
            let is_vetoed = is_out || is_only_one;
            let is_vetoed = is_vetoed || self.is_split;
            if (self.counts_on_veto[at] || !mine.peer_never_promotes) && !is_vetoed {
                return Err("VetoBeforeSolo");
            }
            // What is acknowledged while the record is on its way is in the peer's file too, and a
            // peer that is being filled is no candidate in any case.
            if theirs.disk == DiskState::UpToDate && lowest[at] < self.floor[at] {
                return Err("StableBeforeSolo");
            }
            self.flushed[at] = self.flushed[at].max(self.floor[at].min(lowest[at]));
        }
        if old.serve_mode != ServeMode::Paired && mine.serve_mode == ServeMode::Paired {
            self.owed[at] = (self.floor[at], self.flushed[at]);
            self.went_alone[at] = false;
        }
        self.went_alone[at] |= mine.serve_mode == ServeMode::Solo;
        if old.disk == DiskState::Inconsistent && mine.disk == DiskState::UpToDate {
            let (floor, flushed) = self.owed_to(at);
            // What was flushed there alone is flushed here; the rest is at least written.
            let has_all = lowest[at] >= flushed && nodes[at].files.data.shown() >= floor;
            let is_alone = theirs.serve_mode == ServeMode::Solo && self.counts_on_veto[1 - at];
            if is_alone || !has_all {
                return Err("PairedBeforeCandidate");
            }
            self.floor[at] = floor;
            self.flushed[at] = flushed;
            self.has_lost = [false; 2];
            self.is_old = [false; 2];
            self.is_settled |= self.is_split;
            self.is_split = false;
            self.is_vouched_for = [false; 2];
        }
        if old.disk == DiskState::Outdated && mine.disk == DiskState::UpToDate {
            self.has_lost[at] = false;
        }
        Ok(())
    }
}

impl Ghost {
    /// What node `at` must have when it says that it is complete. The other one may have gone on
    /// alone since it sent the end, because this one never promotes itself: what it acknowledged
    /// from then on is not in that end.
    fn owed_to(&self, at: usize) -> (Value, Value) {
        let (floor, flushed) = (self.floor[1 - at], self.flushed[1 - at]);
        if !self.went_alone[1 - at] {
            return (floor, flushed);
        }
        let owed = self.owed[1 - at];
        (owed.0.max(self.floor[at]).min(floor), owed.1.max(self.flushed[at]).min(flushed))
    }
}

/// The place of a value among what a node has had.
fn bit(value: Value) -> u128 {
    1 << value
}

/// Whether `generation` is the one of `record` or one that it came from.
fn descends(record: &Superblock, generation: Option<Generation>) -> bool {
    generation.is_none_or(|it| record.generation == Some(it) || record.history.contains(&it))
}

/// Whether each of two copies has what the other lacks.
pub(crate) fn have_diverged(nodes: &[Node; 2]) -> bool {
    let [a, b] = [0, 1].map(|node| &nodes[node].files.record);
    !descends(a, b.generation) && !descends(b, a.generation)
}
