//! The secondary: applies the primary's writes in an order that clients could have seen.
//!
//! A write names in `after` the last one that was answered when it began, and is applied when all
//! up to that one are applied, the rest in parallel; so this copy always is a state that clients
//! could have seen, and overlapping writes are applied in one order. Its extents are in this node's
//! activity log first. Nothing is marked here: the primary marks. What was received is applied
//! also when the session is over, and before anything new begins: in `memsync` it may have been
//! acknowledged.

use std::collections::BTreeMap;

use super::effect::{DiskOutcome, Effect};
use super::io::Purpose;
use super::parts::Op;
use super::planted::Planted;
use super::promote::TakeOver;
use super::records::Change;
use super::session::Fault;
use super::{Effects, Replica};
use crate::metadata::{MapMemory, Want};
use crate::units::{
    BlockRange, ByteRange, Epoch, ExtentIndex, ReplicationMode, Sequence, VetoReason,
};
use crate::wire::message::{Ack, AckStage, Flush, Message, Write, Zero};

/// Writes of the primary that are not applied, and what waits for a sync.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Applier {
    /// The last one received; the first of a session sets it.
    last: Option<Sequence>,
    applied_through: Sequence,
    /// Runs of applied writes behind one that is not, by their first: between two of them is a
    /// write that waits, so there are not more than of those.
    applied_beyond: BTreeMap<Sequence, Sequence>,
    entries: BTreeMap<Sequence, Entry>,
    bytes: u64,
    flushes: Vec<Flush>,
    fua: Vec<Sequence>,
    syncing: Option<Syncing>,
    acks: Vec<Ack>,
}

/// A write that is not applied.
#[derive(Clone, Debug, Hash)]
struct Entry {
    after: Sequence,
    range: ByteRange,
    op: Op,
    fua: bool,
    is_writing: bool,
}

/// Whom the sync under way answers.
#[derive(Clone, Debug, Default, Hash)]
struct Syncing {
    flushes: Vec<Flush>,
    fua: Vec<Sequence>,
}

impl Applier {
    /// All up to this one are in the file; `None` if nothing came in this session.
    fn applied_through(&self) -> Option<Sequence> {
        self.last.map(|_| self.applied_through)
    }

    /// Whether all that was received is in the file.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The session is over: nobody waits for an answer, but what was received is still applied.
    pub(super) fn end_session(&mut self) {
        self.flushes.clear();
        self.fua.clear();
        self.acks.clear();
        self.syncing = None;
    }

    /// The disk failed: nothing is applied any more.
    pub(super) fn give_up(&mut self) {
        *self = Self::default();
    }

    /// Blocks of writes that were received and are not applied.
    pub(super) fn blocks(&self) -> impl Iterator<Item = BlockRange> {
        self.entries.values().map(|entry| entry.range.blocks())
    }

    /// FUA writes that are applied and wait for a sync.
    fn unsynced_fua(&self) -> usize {
        self.fua.len() + self.syncing.as_ref().map_or(0, |syncing| syncing.fua.len())
    }

    /// Ranges that are being written: their extents are pinned.
    fn pinned(&self) -> impl Iterator<Item = ByteRange> {
        self.entries.values().filter(|entry| entry.is_writing).map(|entry| entry.range)
    }

    fn note_applied(&mut self, sequence: Sequence) {
        let (mut first, mut last) = (sequence, sequence);
        if let Some((&before, end)) = self.applied_beyond.range(..sequence).next_back()
            && end.next() == sequence
        {
            first = before;
        }
        if let Some(end) = self.applied_beyond.remove(&sequence.next()) {
            last = end;
        }
        if first == self.applied_through.next() {
            self.applied_beyond.remove(&first);
            self.applied_through = last;
        } else {
            self.applied_beyond.insert(first, last);
        }
    }
}

impl<M: MapMemory> Replica<M> {
    pub(super) fn on_write(
        &mut self,
        epoch: Epoch,
        write: Write,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let entry = Entry {
            after: write.after,
            range: write.range,
            op: Op::Write(write.payload),
            fua: write.fua,
            is_writing: false,
        };
        self.receive(epoch, write.sequence, entry, effects)
    }

    pub(super) fn on_zero(
        &mut self,
        epoch: Epoch,
        zero: Zero,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let entry = Entry {
            after: zero.after,
            range: zero.range,
            op: Op::Zero(zero.kind),
            fua: zero.fua,
            is_writing: false,
        };
        self.receive(epoch, zero.sequence, entry, effects)
    }

    fn receive(
        &mut self,
        epoch: Epoch,
        sequence: Sequence,
        entry: Entry,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        if !self.may_apply(epoch, effects) {
            return Err(Fault::Unexpected { message: "Write" });
        }
        let (parts_max, bytes_max) =
            (self.settings.in_flight_parts_max, self.settings.in_flight_bytes_max);
        let is_memsync = self.settings.mode == ReplicationMode::MemSync;
        let applier = &mut self.applier;
        match applier.last {
            Some(last) if sequence != last.next() => {
                return Err(Fault::SequenceGap { found: sequence.0, last: last.0 });
            }
            Some(_) => {}
            None => applier.applied_through = Sequence(sequence.0 - 1),
        }
        applier.last = Some(sequence);
        if let Op::Write(payload) = &entry.op {
            applier.bytes += u64::try_from(payload.len()).unwrap_or(u64::MAX);
        }
        if applier.entries.len() >= parts_max {
            return Err(Fault::Credit { what: "writes", limit: parts_max as u64 });
        }
        if applier.unsynced_fua() >= 2 * parts_max {
            return Err(Fault::Credit { what: "unsynced writes", limit: 2 * parts_max as u64 });
        }
        if applier.bytes > bytes_max + super::PART_LEN_MAX {
            return Err(Fault::Credit { what: "bytes", limit: bytes_max });
        }
        applier.entries.insert(sequence, entry);
        if is_memsync {
            applier.acks.push(Ack { sequence, stage: AckStage::Received });
        }
        Ok(())
    }

    /// Whether frames of a primary at `epoch` count here.
    fn may_apply(&mut self, epoch: Epoch, _effects: &mut Effects) -> bool {
        let promised = self.records.stable().promised;
        let Some(session) = self.link.session() else { return false };
        let is_of_session = session.is_joined
            && session.epoch == epoch
            && matches!(session.part, super::session::SessionPart::Target(_));
        is_of_session && !self.is_over(epoch, promised) && !self.role.is_primary()
    }

    pub(super) fn on_flush(&mut self, flush: Flush) -> Result<(), Fault> {
        let limit = 2 * self.settings.in_flight_parts_max + OWN_FLUSHES;
        let applier = &mut self.applier;
        if applier.last.is_some_and(|last| flush.covers > last) {
            return Err(Fault::UnknownSequence { sequence: flush.covers.0 });
        }
        if applier.flushes.len() >= limit {
            return Err(Fault::Credit { what: "flushes", limit: limit as u64 });
        }
        applier.flushes.push(flush);
        Ok(())
    }

    /// The primary is about to write these extents.
    pub(super) fn on_heat(&mut self, extents: &[ExtentIndex]) -> Result<(), Fault> {
        let count = self.size.extent_count();
        for extent in extents {
            if u64::from(extent.0) >= count {
                return Err(Fault::Outside { what: "extent", index: u64::from(extent.0) });
            }
            if !self.log.is_hot(*extent) && self.log.want(*extent, self.now) == Want::Full {
                break;
            }
        }
        Ok(())
    }

    /// Applies what may be applied, syncs what waits for it, and acknowledges in one frame.
    pub(super) fn pump_applier(&mut self, effects: &mut Effects) {
        self.apply_due(effects);
        self.sync_applied(effects);
        let acks = std::mem::take(&mut self.applier.acks);
        if !acks.is_empty() && self.link.session().is_some() {
            self.send(Message::Acks(acks), effects);
        }
    }

    fn apply_due(&mut self, effects: &mut Effects) {
        let ignores_order = self.is_planted(Planted::OverlapReordered);
        let through = self.applier.applied_through;
        let mut due: Vec<(Sequence, ByteRange)> = self
            .applier
            .entries
            .iter()
            .filter(|(_, entry)| !entry.is_writing && (entry.after <= through || ignores_order))
            .map(|(sequence, entry)| (*sequence, entry.range))
            .collect();
        if ignores_order {
            due.reverse();
        }
        let mut is_full = false;
        for (sequence, range) in due {
            if !self.heat(range, &mut is_full) {
                continue;
            }
            for extent in range.extents() {
                self.log.pin(extent);
            }
            if self.is_planted(Planted::TrimNotReplicated) && self.is_zero(sequence) {
                self.finish_applied(sequence);
                continue;
            }
            let io = self.io.start(Purpose::Apply(sequence));
            let Some(entry) = self.applier.entries.get_mut(&sequence) else { continue };
            entry.is_writing = true;
            effects.push(match &entry.op {
                Op::Write(payload) => Effect::Write { io, range, bytes: payload.bytes().clone() },
                Op::Zero(kind) => Effect::Zero { io, range, kind: *kind },
            });
        }
    }

    /// A write of the primary is in the file, or failed.
    pub(super) fn on_applied(
        &mut self,
        sequence: Sequence,
        outcome: &DiskOutcome,
        effects: &mut Effects,
    ) {
        match outcome {
            DiskOutcome::Done => self.finish_applied(sequence),
            DiskOutcome::NoSpace => self.on_secondary_full(effects),
            DiskOutcome::Failed | DiskOutcome::Bytes(_) | DiskOutcome::Hashes { .. } => {
                self.on_disk_failed(effects);
            }
        }
    }

    /// This copy cannot take what the primary writes, so it is outdated and out of the way. It
    /// comes back by itself, as a target, after the pause that follows a refusal.
    pub(super) fn on_secondary_full(&mut self, effects: &mut Effects) {
        if self.link.session().is_none() && self.applier.is_empty() {
            return; // another write of the same session said so
        }
        if self.settings.is_register {
            self.event("fell-behind", "the primary goes on without this copy");
            self.records.change(Change::Veto {
                reason: VetoReason::Evicted,
                epoch: self.records.stable().promised,
                is_outdated: true,
            });
        } else {
            self.event("no-space", "no space is left on the disk: this copy falls behind");
            self.records.change(Change::OutOfSpace);
        }
        self.tell_peer_disk_failed(effects);
        self.orphaned.extend(self.applier.pinned());
        self.applier.give_up();
        // A register is not offered again before this node is ready for it.
        self.close_link(!self.settings.is_register, effects);
    }

    /// What this node reported as written, and maybe as stable, is not there any more. The driver says so
    /// again at each start until the peer has filled it. A node that serves, or cannot be kept from it any more,
    /// serves what it has: nobody else may.
    pub(super) fn on_fallen_back(&mut self, why: &str, effects: &mut Effects) {
        let is_taking_over = self.records.brings_role()
            || self.role.take_over.as_ref().is_some_and(TakeOver::is_ready);
        if !self.settings.is_register || self.role.is_primary() || is_taking_over {
            return;
        }
        self.event("fell-back", why);
        self.dirty.set_all();
        self.background.note_change();
        self.has_marked = true;
        self.records.change(Change::OutOfSpace);
        if self.link.session().is_some() {
            self.tell_peer_disk_failed(effects);
            self.applier.give_up();
            self.close_link(true, effects);
        }
    }

    fn is_zero(&self, sequence: Sequence) -> bool {
        let entry = self.applier.entries.get(&sequence);
        entry.is_some_and(|entry| matches!(entry.op, Op::Zero(_)))
    }

    fn finish_applied(&mut self, sequence: Sequence) {
        let applier = &mut self.applier;
        let Some(entry) = applier.entries.remove(&sequence) else { return };
        if let Op::Write(payload) = &entry.op {
            applier.bytes -= u64::try_from(payload.len()).unwrap_or(u64::MAX);
        }
        applier.note_applied(sequence);
        applier.acks.push(Ack { sequence, stage: AckStage::Applied });
        if entry.fua {
            applier.fua.push(sequence);
        }
        for extent in entry.range.extents() {
            self.log.unpin(extent);
        }
        self.background.note_change();
    }

    /// One sync answers every flush and every FUA write whose data was written before it began.
    fn sync_applied(&mut self, effects: &mut Effects) {
        if self.link.session().is_none() || self.applier.syncing.is_some() {
            return;
        }
        let applier = &mut self.applier;
        let through = applier.applied_through();
        let due = |flush: &Flush| through.is_none_or(|through| flush.covers <= through);
        let flushes: Vec<Flush> = applier.flushes.iter().copied().filter(due).collect();
        let fua = std::mem::take(&mut applier.fua);
        if flushes.is_empty() && fua.is_empty() {
            return;
        }
        applier.flushes.retain(|flush| !due(flush));
        applier.syncing = Some(Syncing { flushes, fua });
        let io = self.io.start(Purpose::ApplySync);
        effects.push(Effect::SyncData { io });
    }

    /// What the sync covers is stable.
    pub(super) fn on_apply_synced(&mut self, outcome: &DiskOutcome, effects: &mut Effects) {
        if *outcome != DiskOutcome::Done {
            self.on_disk_failed(effects);
            return;
        }
        let applier = &mut self.applier;
        let Some(done) = applier.syncing.take() else { return };
        let durable = |sequence| Ack { sequence, stage: AckStage::Durable };
        applier.acks.extend(done.fua.into_iter().map(durable));
        for flush in done.flushes {
            self.send(Message::FlushDone(flush), effects);
        }
    }

    /// This node's disk failed: the primary is told before anything else.
    pub(super) fn tell_peer_disk_failed(&mut self, effects: &mut Effects) {
        if let Some(sequence) = self.applier.last
            && self.link.session().is_some()
        {
            let ack = Ack { sequence, stage: AckStage::Failed };
            self.send(Message::Acks(vec![ack]), effects);
        }
    }

    /// All writes up to this one are in the file; `None` if nothing came in this session.
    pub(super) fn applied_through(&self) -> Option<Sequence> {
        self.link.session().and_then(|_| self.applier.applied_through())
    }

    /// Chunks that were being written outlive the session: their extents stay in the log until
    /// those writes end.
    pub(super) fn orphan_session_writes(&mut self) {
        let target = self.link.target().into_iter().flat_map(super::target::Target::pinned);
        let size = self.size;
        let ranges: Vec<ByteRange> = target.filter_map(|chunk| chunk.range(size)).collect();
        self.orphaned.extend(ranges);
        self.unpin_orphans();
    }

    /// No write is under way: nothing needs to stay in the log for one.
    pub(super) fn unpin_orphans(&mut self) {
        if self.io.write_count() > 0 {
            return;
        }
        for range in std::mem::take(&mut self.orphaned) {
            for extent in range.extents() {
                self.log.unpin(extent);
            }
        }
    }
}

/// Flushes that a primary asks for beside those of its clients: for the window, for the end of a
/// transfer, for a change of role.
const OWN_FLUSHES: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_applied_behind_one_that_waits_are_runs_and_join_it_when_it_is_applied() {
        let mut applier = Applier { applied_through: Sequence(9), ..Applier::default() };
        for sequence in [12, 14, 13, 17, 11, 16] {
            applier.note_applied(Sequence(sequence));
            assert_eq!(applier.applied_through, Sequence(9));
        }
        let runs = [(Sequence(11), Sequence(14)), (Sequence(16), Sequence(17))];
        assert_eq!(applier.applied_beyond, BTreeMap::from(runs));
        applier.note_applied(Sequence(10));
        assert_eq!(applier.applied_through, Sequence(14));
        applier.note_applied(Sequence(15));
        assert_eq!(applier.applied_through, Sequence(17));
        assert!(applier.applied_beyond.is_empty());
    }

    #[test]
    fn a_million_writes_behind_one_that_waits_are_one_run() {
        let mut applier = Applier::default();
        (2..=1_000_000).map(Sequence).for_each(|sequence| applier.note_applied(sequence));
        assert_eq!(applier.applied_beyond.len(), 1);
        applier.note_applied(Sequence(1));
        assert_eq!(applier.applied_through, Sequence(1_000_000));
    }
}
