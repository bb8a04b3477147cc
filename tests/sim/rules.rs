//! What an answer, a frame and a change of the record need, seen from above both nodes.
//!
//! The core asserts most of this of itself, from what it knows. Here it is checked against what the
//! other node really has, at the moment when it counts, and not only when a failover shows it.

use std::collections::BTreeSet;

use hotpair::metadata::Superblock;
use hotpair::promotion::arbiter::{Eligible, Operation, Request};
use hotpair::replica::{Event, Status};
use hotpair::units::{BLOCK_LEN, BlockRange, DiskState, ReplicationMode, ServeMode};
use hotpair::wire::message::{Frame, Message};

use crate::broken::{Broken, Checked};
use crate::load::{Ask, Registers};
use crate::plan::side;
use crate::world::World;

impl World {
    /// A request is about to be answered with success.
    pub(crate) fn check_success(&self, at: usize, asked: Option<Ask>) -> Checked {
        match asked {
            Some(Ask::Write { registers, .. } | Ask::Zero { registers, .. })
                if !self.ghost.is_split =>
            {
                self.check_alone(at, registers)
            }
            Some(Ask::Write { .. } | Ask::Zero { .. } | Ask::Read(_) | Ask::Flush) | None => Ok(()),
        }
    }

    /// Who acknowledges what the other node lacks goes on alone, durably, and its data has a
    /// generation that the other node does not know.
    fn check_alone(&self, at: usize, registers: Registers) -> Checked {
        let is_linked = self.nodes[at].process.as_ref().is_some_and(|it| it.link.is_some());
        if is_linked || self.peer_has(at, registers) {
            return Ok(());
        }
        let [mine, theirs] = [at, 1 - at].map(|node| self.nodes[node].superblock());
        if mine.serve_mode != ServeMode::Solo {
            let detail = format!("node {at} answers alone, its mode is {:?}", mine.serve_mode);
            return Err(Broken::new("AckRule", detail));
        }
        let is_known = mine.generation.is_none_or(|generation| {
            theirs.generation == Some(generation) || theirs.history.contains(&generation)
        });
        if is_known {
            let detail = format!("node {at} answers alone in a known {:?}", mine.generation);
            return Err(Broken::new("GenerationBeforeAck", detail));
        }
        Ok(())
    }

    /// Whether the other node has the same there, in its file or on the way to it.
    fn peer_has(&self, at: usize, registers: Registers) -> bool {
        let [mine, theirs] = [&self.nodes[at], &self.nodes[1 - at]];
        let in_flight: Vec<BlockRange> =
            theirs.core().map(hotpair::replica::Replica::in_flight).unwrap_or_default();
        let end = registers.start + registers.len_bytes();
        let blocks = registers.start / BLOCK_LEN..end.div_ceil(BLOCK_LEN);
        blocks.into_iter().all(|block| {
            mine.files.data.has_same_block(&theirs.files.data, block)
                || in_flight.iter().any(|range| (range.first..range.end).contains(&block))
        })
    }

    /// `async`: what was acknowledged and is not in the other node's file fits the budget, unless
    /// this node goes on alone. A failover takes it only if the other one is a candidate.
    pub(crate) fn check_budget(&mut self, at: usize, answered: Option<Ask>) -> Checked {
        let Some(Ask::Write { registers, .. } | Ask::Zero { registers, .. }) = answered else {
            return Ok(());
        };
        let is_alone = self.nodes[at].superblock().serve_mode == ServeMode::Solo;
        if self.plan.mode != ReplicationMode::Async || is_alone || self.ghost.is_split {
            self.ghost.nothing_is_at_risk();
            return Ok(());
        }
        self.ghost.note_at_risk(registers);
        // A disk that failed may have lost what was acknowledged a moment ago, recorded or not.
        let is_whole = |status: Status| status.disk == DiskState::UpToDate;
        if !self.status(1 - at).is_some_and(is_whole) {
            return Ok(());
        }
        self.ghost.check_budget(&self.nodes[1 - at].files.data)
    }

    /// A read may not find what was not answered: a failover could take it back.
    pub(crate) fn check_stands(&self, at: usize, found: &BTreeSet<u64>) -> Checked {
        match self.clients.unanswered(at).find(|value| found.contains(value)) {
            Some(value) if !self.ghost.is_split => {
                let detail = format!("node {at} tells of write {value}, which is not answered");
                Err(Broken::new("ReadsStand", detail))
            }
            _ => Ok(()),
        }
    }

    /// Who takes writes of a primary has promised no higher epoch.
    pub(crate) fn check_epoch(&self, at: usize, frame: &Frame) -> Checked {
        let is_answer = matches!(frame.message, Message::Acks(_) | Message::HandReady(_));
        let promised = self.nodes[at].superblock().promised;
        if is_answer && frame.epoch < promised {
            let detail = format!("node {at} promised {promised} and follows epoch {}", frame.epoch);
            return Err(Broken::new("EpochMono", detail));
        }
        Ok(())
    }

    /// Takes note of why a node goes on alone.
    pub(crate) fn note_event(&mut self, at: usize, event: &Event) {
        match event.kind {
            "going-solo" => self.counts_on_veto[at] = event.reason.contains("PeerVeto"),
            "role-changed" => self.counts_on_veto[at] = false,
            "peer-assumed-dead" => self.note_assumed_dead(at),
            _ => {}
        }
    }

    /// The record of a node is another one, stable.
    pub(crate) fn check_record(&self, at: usize, old: &Superblock) -> Checked {
        let Some(core) = self.nodes[at].core() else { return Ok(()) };
        let new = core.superblock();
        if (old.serve_mode, old.disk, old.veto) == (new.serve_mode, new.disk, new.veto) {
            return Ok(());
        }
        let needs_it = self.nodes[1 - at].superblock().serve_mode == ServeMode::Paired;
        if old.disk == DiskState::Inconsistent && new.disk == DiskState::UpToDate && needs_it {
            // A target that becomes a candidate has all that was flushed, stable. Its record may
            // take so long that the other one went on alone since, as it may: this one never
            // promotes itself.
            self.ghost.check_stable(&self.nodes[at].files.data)?;
        }
        self.check_solo(at, old)?;
        self.check_pledge()?;
        self.check_lone_primary()?;
        self.check_veto_of(0)?;
        self.check_veto_of(1)
    }

    /// A candidate asks only for what it has promised durably, and a primary makes the peer eligible
    /// only when each acknowledgement already needs it.
    pub(crate) fn check_asked(&self, at: usize, request: &Request) -> Checked {
        let mine = self.nodes[at].superblock();
        let invariant = match request.operation {
            Operation::Promote { .. } => {
                let next = request.epoch.next_by_arbiter();
                let has_asked = mine.arbitration.asked.is_some_and(|asked| asked.last == next);
                (!has_asked || mine.promised < next).then_some("PromiseBeforeAsking")
            }
            Operation::Force { floor } if mine.serve_mode == ServeMode::None => {
                let next = request.epoch.max(floor).forced_by_arbiter();
                let has_asked = mine.arbitration.asked.is_some_and(|asked| asked.last == next);
                (!has_asked || mine.promised < next).then_some("PromiseBeforeAsking")
            }
            Operation::Pair { .. } => {
                (mine.serve_mode != ServeMode::Paired).then_some("PairedBeforeEligible")
            }
            _ => None,
        };
        if let Some(invariant) = invariant {
            let detail = format!("node {at} asks {request:?}, its record is {mine:?}");
            return Err(Broken::new(invariant, detail));
        }
        Ok(())
    }

    /// With an arbiter: who begins to go on alone is the only one that its record lists, or the
    /// other one has vetoed itself.
    fn check_solo(&self, at: usize, old: &Superblock) -> Checked {
        // By its word the other one may be promoted; where it has none, the word that this one has counts.
        let word = self.witness_record_of(1 - at).or_else(|| self.witness_record_of(at));
        let Some(arbiters) = word else { return Ok(()) };
        let [mine, theirs] = [at, 1 - at].map(|node| self.nodes[node].superblock());
        let begins = mine.serve_mode == ServeMode::Solo && old.serve_mode != ServeMode::Solo;
        let is_only_one = arbiters.owner == side(at) && arbiters.eligible == Eligible::Owner;
        // An operator forced it without the arbiter: the ghost says whether that was right.
        let is_forced = mine.forced && !mine.epoch.is_by_arbiter();
        let is_bound = theirs.hold && theirs.owner != Some(side(1 - at));
        let is_other_out =
            is_forced || is_bound || theirs.veto.is_some() || theirs.disk != DiskState::UpToDate;
        if begins && !is_only_one && !is_other_out && !self.ghost.is_split {
            let detail = format!("node {at} goes on alone, the arbiter says {arbiters:?}");
            return Err(Broken::new("VetoBeforeSolo", detail));
        }
        Ok(())
    }

    /// With an arbiter: while a primary acknowledges alone and the arbiter lists the other one as well, that
    /// one is bound by its own word. Not only when it begins to.
    pub(crate) fn check_lone_primary(&self) -> Checked {
        self.check_two_alone()?;
        for at in 0..2 {
            // By its word the other one may be promoted.
            let Some(arbiters) = self.witness_record_of(1 - at) else { continue };
            let [mine, theirs] = [at, 1 - at].map(|node| self.nodes[node].superblock());
            let serves = self.nodes[at].core().is_some_and(hotpair::replica::Replica::is_primary);
            let is_listed = arbiters.owner == side(at) && arbiters.eligible == Eligible::Both;
            let is_out = theirs.veto.is_some()
                || theirs.hold
                || theirs.disk != DiskState::UpToDate
                || theirs.epoch > mine.epoch;
            let is_excused = mine.forced || self.ghost.is_split;
            let is_alone = serves && mine.serve_mode == ServeMode::Solo;
            if is_alone && is_listed && !is_out && !is_excused {
                let detail =
                    format!("node {at} is alone, and the arbiter lists both: {arbiters:?}");
                return Err(Broken::new("VetoBeforeSolo", detail));
            }
        }
        Ok(())
    }

    /// With an arbiter no two nodes acknowledge alone at once, at whatever epochs.
    fn check_two_alone(&self) -> Checked {
        let is_alone = |at: usize| {
            let record = self.nodes[at].superblock();
            let is_primary =
                self.nodes[at].core().is_some_and(hotpair::replica::Replica::is_primary);
            is_primary && record.serve_mode == ServeMode::Solo && !record.forced
        };
        let is_excused = self.plan.witness.is_none() || self.ghost.is_split;
        if is_excused || !is_alone(0) || !is_alone(1) {
            return Ok(());
        }
        let epochs = [0, 1].map(|at| self.nodes[at].superblock().epoch);
        Err(Broken::new("OneWriter", format!("both nodes are alone, at epochs {epochs:?}")))
    }

    /// What a primary relies upon, its peer has promised, unless an operator made that one primary.
    fn check_pledge(&self) -> Checked {
        for at in 0..2 {
            let [mine, theirs] = [at, 1 - at].map(|node| self.nodes[node].superblock());
            let relies = mine.hold && mine.owner == Some(side(at));
            let is_bound = theirs.hold || theirs.epoch > mine.epoch || self.ghost.is_split;
            if relies && !is_bound {
                let detail = format!("node {at} relies on a pledge that the other one lifted");
                return Err(Broken::new("VetoBeforeSolo", detail));
            }
        }
        Ok(())
    }

    /// Who goes on alone because the other node cannot be a candidate is right about that.
    fn check_veto_of(&self, at: usize) -> Checked {
        if !self.counts_on_veto[at] || self.ghost.is_split {
            return Ok(());
        }
        let [mine, theirs] = [at, 1 - at].map(|node| self.nodes[node].superblock());
        let is_candidate = theirs.disk == DiskState::UpToDate
            && theirs.veto.is_none()
            && theirs.owner != Some(side(1 - at));
        if mine.serve_mode == ServeMode::Solo && is_candidate {
            let detail = format!("node {at} counts on a veto that the other one has not");
            return Err(Broken::new("VetoBeforeSolo", detail));
        }
        Ok(())
    }
}
