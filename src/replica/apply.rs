//! The secondary: applies the primary's writes in an order that clients could have seen.
//!
//! A write is applied when everything it names in `after` is applied, the rest in parallel; so
//! this copy always is a state that clients could have seen. Its extents are in this node's
//! activity log first. Nothing is marked here: the primary marks.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::{DiskOutcome, Effect};
use super::io::Purpose;
use super::parts::Op;
use super::planted::Planted;
use super::session::Fault;
use super::{Effects, Replica};
use crate::metadata::{MapMemory, Want};
use crate::units::{BlockRange, ByteRange, Epoch, ExtentIndex, ReplicationMode, Sequence};
use crate::wire::message::{Ack, AckStage, Flush, Message, Write, Zero};

/// Writes of the primary that are not applied, and what waits for a sync.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Applier {
    /// The last one received; the first of a session sets it.
    last: Option<Sequence>,
    applied_through: Sequence,
    applied_beyond: BTreeSet<Sequence>,
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
    pub(super) fn applied_through(&self) -> Option<Sequence> {
        self.last.map(|_| self.applied_through)
    }

    /// Blocks of writes that were received and are not applied.
    pub(super) fn blocks(&self) -> impl Iterator<Item = BlockRange> {
        self.entries.values().map(|entry| entry.range.blocks())
    }

    /// Ranges that are being written: their extents are pinned.
    pub(super) fn pinned(&self) -> impl Iterator<Item = ByteRange> {
        self.entries.values().filter(|entry| entry.is_writing).map(|entry| entry.range)
    }

    fn note_applied(&mut self, sequence: Sequence) {
        self.applied_beyond.insert(sequence);
        while self.applied_beyond.remove(&self.applied_through.next()) {
            self.applied_through = self.applied_through.next();
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
        let Some(applier) = self.link.applier_mut() else { return Ok(()) };
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
        let is_current = epoch >= promised || self.is_planted(Planted::LowerEpochAccepted);
        is_of_session && is_current && !self.role.is_primary()
    }

    pub(super) fn on_flush(&mut self, flush: Flush) -> Result<(), Fault> {
        let limit = self.settings.in_flight_parts_max;
        let Some(applier) = self.link.applier_mut() else { return Ok(()) };
        if applier.last.is_some_and(|last| flush.covers > last) {
            return Err(Fault::UnknownSequence { sequence: flush.covers.0 });
        }
        if applier.flushes.len() >= 2 * limit {
            return Err(Fault::Credit { what: "flushes", limit: 2 * limit as u64 });
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
        if let Some(applier) = self.link.applier_mut()
            && !applier.acks.is_empty()
        {
            let acks = std::mem::take(&mut applier.acks);
            self.send(Message::Acks(acks), effects);
        }
    }

    fn apply_due(&mut self, effects: &mut Effects) {
        let ignores_order = self.is_planted(Planted::OverlapReordered);
        let Some(applier) = self.link.applier() else { return };
        let through = applier.applied_through;
        let mut due: Vec<(Sequence, ByteRange)> = applier
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
            let Some(entry) =
                self.link.applier_mut().and_then(|applier| applier.entries.get_mut(&sequence))
            else {
                continue;
            };
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
        if *outcome != DiskOutcome::Done {
            // A full disk is as good as none here: what is acknowledged must have no hole.
            self.on_disk_failed(effects);
            return;
        }
        self.finish_applied(sequence);
    }

    fn is_zero(&self, sequence: Sequence) -> bool {
        let entry = self.link.applier().and_then(|applier| applier.entries.get(&sequence));
        entry.is_some_and(|entry| matches!(entry.op, Op::Zero(_)))
    }

    fn finish_applied(&mut self, sequence: Sequence) {
        let Some(applier) = self.link.applier_mut() else { return };
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
        let Some(applier) = self.link.applier_mut() else { return };
        if applier.syncing.is_some() {
            return;
        }
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
        let Some(applier) = self.link.applier_mut() else { return };
        let Some(done) = applier.syncing.take() else { return };
        let durable = |sequence| Ack { sequence, stage: AckStage::Durable };
        applier.acks.extend(done.fua.into_iter().map(durable));
        for flush in done.flushes {
            self.send(Message::FlushDone(flush), effects);
        }
    }

    /// This node's disk failed: the primary is told before anything else.
    pub(super) fn tell_peer_disk_failed(&mut self, effects: &mut Effects) {
        let Some(applier) = self.link.applier() else { return };
        if let Some(sequence) = applier.last {
            let ack = Ack { sequence, stage: AckStage::Failed };
            self.send(Message::Acks(vec![ack]), effects);
        }
    }

    /// Writes that were being applied or transferred outlive the session: their extents stay in
    /// the log until they end.
    pub(super) fn orphan_session_writes(&mut self) {
        let applying = self.link.applier().into_iter().flat_map(Applier::pinned);
        let target = self.link.target().into_iter().flat_map(super::target::Target::pinned);
        let size = self.size;
        let ranges: Vec<ByteRange> =
            applying.chain(target.filter_map(|chunk| chunk.range(size))).collect();
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
