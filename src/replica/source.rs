//! The source of a transfer: sends what differs, and nothing else.
//!
//! The marks are the cursor. A chunk with hard marks is hashed and offered; the target answers
//! "the same" or the hashes of its blocks; only blocks that differ are sent. A mark is cleared by
//! equal hashes or by the target's durable acknowledgement, and only if no write touched the chunk
//! meanwhile. An interrupted transfer goes on from the marks that are left.

use std::collections::BTreeMap;

use super::effect::{DiskOutcome, Effect};
use super::flush::FlushWhy;
use super::io::Purpose;
use super::planted::Planted;
use super::records::Change;
use super::session::{Fault, SessionPart};
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion::controller::planted::PlantedRule;
use crate::units::{
    BLOCK_LEN, BLOCKS_PER_CHUNK, BlockIndex, BlockRange, CHUNK_LEN, ChunkIndex, Instant, ServeMode,
    Transfer,
};
use crate::wire::message::{
    ChunkAck, ChunkData, ChunkHash, ChunkNeed, ChunkStage, ChunkZero, MapPart, Message, ResyncEnd,
    ResyncStart,
};
use crate::wire::payload::Payload;

/// State of a transfer at its source.
#[derive(Clone, Debug, Default, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about both sides")]
pub(super) struct Source {
    stage: Stage,
    maps_are_here: bool,
    target_is_ready: bool,
    gated: bool,
    /// Of a register: the target has staged what it says.
    is_admitted: bool,
    cursor: u64,
    motion: BTreeMap<ChunkIndex, Motion>,
    offers: Vec<ChunkHash>,
    pub(super) paused_here: bool,
    pub(super) paused_there: bool,
    /// Blocks that could differ when it began.
    pub(super) total_blocks: u64,
    pub(super) payload_bytes: u64,
    pub(super) since: Instant,
    pass_start: u64,
    again: BTreeMap<ChunkIndex, u32>,
}

#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
enum Stage {
    /// Waiting for the target's marks.
    #[default]
    Mapping,
    /// The merged marks are being made stable.
    Merging,
    Running,
    /// Nothing differs: the target makes stable what it has.
    Barrier,
    /// The record says that every acknowledgement needs the peer.
    Recording,
    /// The target makes its record say that it is complete.
    Ending,
    Complete,
}

/// A chunk on its way.
#[derive(Clone, Debug, Hash)]
struct Motion {
    step: Step,
    /// A client wrote to it meanwhile: nothing is cleared for it.
    is_spoiled: bool,
    hash: [u8; 32],
    blocks: Vec<[u8; 32]>,
    mask: u16,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Step {
    Hashing,
    Offered,
    Reading,
    Sent,
}

impl Source {
    /// Whether writes go to the target.
    pub(super) fn is_running(&self) -> bool {
        !matches!(self.stage, Stage::Mapping | Stage::Merging)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    /// Whether every acknowledgement needs the target already.
    pub(super) fn is_gated(&self) -> bool {
        self.gated || !matches!(self.stage, Stage::Mapping | Stage::Merging | Stage::Running)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_here || self.paused_there
    }

    /// Whether a chunk that `blocks` touches is on its way.
    pub(super) fn moves(&self, blocks: BlockRange) -> bool {
        if self.motion.is_empty() {
            return false;
        }
        let first = BlockIndex(blocks.first).chunk();
        let last = BlockIndex(blocks.end - 1).chunk();
        self.motion.range(first..=last).next().is_some()
    }
}

impl<M: MapMemory> Replica<M> {
    /// Marks that no window accounts for: what the target lacks, as far as is known.
    pub(super) fn hard_marks(&self) -> u64 {
        self.dirty.count().saturating_sub(u64::try_from(self.window.len()).unwrap_or(0))
    }

    pub(super) fn has_hard_marks(&self) -> bool {
        self.hard_marks() > 0
    }

    /// Announces the transfer.
    pub(super) fn start_source(&mut self, effects: &mut Effects) {
        let Some(session) = self.link.session() else { return };
        let transfer = session.transfer;
        let generation = self.records.stable().generation.unwrap_or_default();
        let blocks = match transfer {
            Transfer::ResyncAll => self.size.block_count(),
            Transfer::Replay | Transfer::Resync => self.dirty.count(),
        };
        self.send(Message::ResyncStart(ResyncStart { transfer, generation, blocks }), effects);
    }

    /// Marks of the target: from here on they are ours.
    pub(super) fn on_map_part(&mut self, part: &MapPart) -> Result<(), Fault> {
        let merges = !self.is_planted(Planted::PeerBitsNotMerged);
        let Some(source) = self.link.source_mut() else {
            return Err(Fault::Unexpected { message: "MapPart" });
        };
        if source.stage != Stage::Mapping || source.maps_are_here {
            return Err(Fault::Unexpected { message: "MapPart" });
        }
        source.maps_are_here = part.last;
        let page_len = crate::metadata::PAGE_LEN;
        for (index, page) in (part.first_page..).zip(part.pages.chunks(page_len)) {
            if index >= self.dirty.page_count() || page.len() != page_len {
                return Err(Fault::Outside { what: "page", index });
            }
            if merges {
                self.dirty.merge_page(index, page);
            }
        }
        Ok(())
    }

    /// The target may be overwritten: its record says so durably.
    pub(super) fn on_resync_ready(&mut self) -> Result<(), Fault> {
        let epoch = self.records.stable().epoch;
        let Some(session) = self.link.session_mut() else { return Ok(()) };
        let transfer = session.transfer;
        let SessionPart::Source(source) = &mut session.part else {
            return Err(Fault::Unexpected { message: "ResyncReady" });
        };
        source.target_is_ready = true;
        if transfer != Transfer::Replay {
            self.role.peer_vetoed = Some(epoch);
        }
        Ok(())
    }

    /// What the register says is staged on the target.
    pub(super) fn on_admit(&mut self) {
        if let Some(source) = self.link.source_mut() {
            source.is_admitted = true;
        }
    }

    pub(super) fn on_resync_pause(&mut self, is_paused: bool) {
        if let Some(source) = self.link.source_mut() {
            source.paused_there = is_paused;
        }
        if let Some(target) = self.link.target_mut() {
            target.paused_there = is_paused;
        }
    }

    /// Goes on with the transfer, on either side.
    pub(super) fn pump_transfer(&mut self, effects: &mut Effects) {
        self.pump_target(effects);
        let Some(source) = self.link.source() else { return };
        match source.stage {
            Stage::Mapping if source.maps_are_here && source.target_is_ready => {
                self.merge_marks();
            }
            Stage::Running => self.run_source(effects),
            Stage::Mapping
            | Stage::Merging
            | Stage::Barrier
            | Stage::Recording
            | Stage::Ending
            | Stage::Complete => {}
        }
    }

    /// The merged marks are stable before the first of them is cleared.
    fn merge_marks(&mut self) {
        let transfer = self.link.session().map(|session| session.transfer);
        if transfer == Some(Transfer::ResyncAll) {
            self.dirty.set_all();
        }
        self.set_source_stage(Stage::Merging);
        if self.dirty.has_changed_pages() {
            self.sync_map(super::background::MapSync::Merge);
        } else {
            self.on_marks_merged();
        }
    }

    pub(super) fn on_marks_merged(&mut self) {
        let total = self.hard_marks();
        let now = self.now;
        if let Some(source) = self.link.source_mut()
            && source.stage == Stage::Merging
        {
            source.stage = Stage::Running;
            source.total_blocks = total;
            source.pass_start = total;
            source.since = now;
            self.writes.recheck();
            self.acquaint();
            if total > 0 {
                self.event("transfer-started", format!("{} bytes may differ", total * BLOCK_LEN));
            }
        }
    }

    /// Everything is marked, stable: the target may be taken for what it is.
    fn acquaint(&mut self) {
        let transfer = self.link.session().map(|session| session.transfer);
        if transfer == Some(Transfer::ResyncAll)
            && let Some(theirs) = self.link.peer_hello()
        {
            let acquaintance = super::meet::acquaintance_of(theirs);
            self.records.change(Change::Acquaint(acquaintance));
        }
    }

    fn set_source_stage(&mut self, stage: Stage) {
        if let Some(source) = self.link.source_mut() {
            source.stage = stage;
        }
    }

    fn run_source(&mut self, effects: &mut Effects) {
        let hard = self.hard_marks();
        self.maybe_gate(hard);
        if hard > 0 {
            self.pick_chunks(effects);
        }
        let Some(source) = self.link.source_mut() else { return };
        let offers = std::mem::take(&mut source.offers);
        let is_empty = source.motion.is_empty();
        for part in offers.chunks(OFFERS_MAX) {
            self.send(Message::HashOffer(part.to_vec()), effects);
        }
        if hard == 0 && is_empty {
            self.role.marks_are_proven();
            self.writes.nothing_is_stranded();
            self.writes.rescan();
            self.set_source_stage(Stage::Barrier);
            if self.is_planted(Planted::EndBeforeTargetSynced) {
                self.on_barrier_done(effects);
            } else {
                self.ask_flush(FlushWhy::Barrier, effects);
            }
        }
    }

    /// Near the end, or when a pass did not halve what remains, a primary lets clients wait for
    /// the target, so that what remains can only shrink.
    fn maybe_gate(&mut self, hard: u64) {
        let gate_blocks = self.settings.gate_bytes / BLOCK_LEN;
        let is_register = self.settings.is_register;
        let Some(session) = self.link.session_mut() else { return };
        let SessionPart::Source(source) = &mut session.part else { return };
        if source.gated || session.transfer == Transfer::Replay {
            return;
        }
        // It may take long until the target can follow, and clients need not wait for that.
        if is_register && !source.is_admitted {
            return;
        }
        if hard <= gate_blocks {
            source.gated = true;
            self.writes.recheck();
        }
    }

    /// Offers as many chunks as the window allows, in order, wrapping.
    fn pick_chunks(&mut self, effects: &mut Effects) {
        let window = self.background.resync_window(&self.settings);
        let Some(session) = self.link.session() else { return };
        let window = window.min(usize::try_from(session.resync_credit.frames).unwrap_or(window));
        let Some(source) = self.link.source() else { return };
        let is_admitted = source.is_admitted || !self.settings.is_register;
        if !is_admitted || source.is_paused() || source.motion.len() >= window {
            return;
        }
        let mut room = window - source.motion.len();
        let mut from = source.cursor;
        let mut wrapped = from == 0;
        let mut budget = PICK_BUDGET;
        while room > 0 && budget > 0 {
            budget -= 1;
            let next = self.dirty.next_set(BlockIndex(from * BLOCKS_PER_CHUNK));
            let Some(block) = next else {
                if wrapped {
                    break;
                }
                self.note_pass_end();
                wrapped = true;
                from = 0;
                continue;
            };
            let chunk = block.chunk();
            from = chunk.0 + 1;
            if self.may_pick(chunk) {
                self.hash_for_offer(chunk, effects);
                room -= 1;
            }
        }
        if let Some(source) = self.link.source_mut() {
            source.cursor = from;
        }
    }

    fn note_pass_end(&mut self) {
        let hard = self.hard_marks();
        if let Some(source) = self.link.source_mut() {
            if hard * 2 > source.pass_start && hard > 0 && !source.is_paused() {
                source.gated = true;
                self.writes.recheck();
            } else {
                source.pass_start = hard;
            }
        }
    }

    fn may_pick(&self, chunk: ChunkIndex) -> bool {
        let blocks = chunk.blocks(self.size);
        let is_moving = self.link.source().is_some_and(|s| s.motion.contains_key(&chunk));
        !is_moving
            && blocks.iter().any(|b| self.dirty.is_set(b) && !self.window.contains(b))
            && !self.writes.is_in_motion(blocks)
            && !self.verify.locks(blocks)
            && self.resync_has_budget()
    }

    fn hash_for_offer(&mut self, chunk: ChunkIndex, effects: &mut Effects) {
        let io = self.io.start(Purpose::SourceHash(chunk));
        effects.push(Effect::HashChunk { io, chunk });
        self.background.spend_resync(CHUNK_LEN);
        if let Some(source) = self.link.source_mut() {
            source.motion.insert(
                chunk,
                Motion {
                    step: Step::Hashing,
                    is_spoiled: false,
                    hash: [0; 32],
                    blocks: Vec::new(),
                    mask: 0,
                },
            );
        }
    }

    /// A client wrote here alone: chunks in motion there were hashed or sent as they were before.
    pub(super) fn spoil(&mut self, blocks: BlockRange) {
        if self.is_planted(Planted::SpoiledChunkCleared) {
            return;
        }
        let Some(source) = self.link.source_mut() else { return };
        let first = BlockIndex(blocks.first).chunk();
        let last = BlockIndex(blocks.end - 1).chunk();
        for (_, motion) in source.motion.range_mut(first..=last) {
            motion.is_spoiled = true;
        }
    }

    /// The source's own hash of a chunk is there.
    pub(super) fn on_source_hashed(
        &mut self,
        chunk: ChunkIndex,
        outcome: DiskOutcome,
        effects: &mut Effects,
    ) {
        let DiskOutcome::Hashes { chunk: hash, blocks } = outcome else {
            self.on_disk_failed(effects);
            return;
        };
        let Some(source) = self.link.source_mut() else { return };
        let Some(motion) = source.motion.get_mut(&chunk) else { return };
        motion.hash = hash;
        motion.blocks = blocks;
        motion.step = Step::Offered;
        source.offers.push(ChunkHash { chunk, hash });
    }

    /// The target says which blocks of the offered chunks it lacks.
    pub(super) fn on_hash_need(
        &mut self,
        needs: &[ChunkNeed],
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        for need in needs {
            let Some(source) = self.link.source_mut() else { return Ok(()) };
            let Some(motion) = source.motion.get_mut(&need.chunk) else {
                return Err(Fault::Outside { what: "chunk", index: need.chunk.0 });
            };
            if motion.step != Step::Offered {
                return Err(Fault::Unexpected { message: "HashNeed" });
            }
            let Some(theirs) = &need.blocks else {
                self.end_motion(need.chunk);
                continue;
            };
            if theirs.len() != motion.blocks.len() {
                return Err(Fault::Outside { what: "blocks of chunk", index: need.chunk.0 });
            }
            let mut mask = 0u16;
            for (index, (mine, theirs)) in motion.blocks.iter().zip(theirs).enumerate() {
                if mine != theirs {
                    mask |= 1 << index;
                }
            }
            if mask == 0 || motion.is_spoiled {
                // Spoiled: it is picked again, with what the client wrote.
                self.end_motion(need.chunk);
                continue;
            }
            motion.mask = mask;
            motion.step = Step::Reading;
            let range = need.chunk.range(self.size).expect("it was offered");
            let io = self.io.start(Purpose::SourceRead(need.chunk));
            effects.push(Effect::ReadRange { io, range });
        }
        Ok(())
    }

    /// The bytes of a chunk are there: the blocks that differ are sent, zero ones as zeroes.
    pub(super) fn on_source_read(
        &mut self,
        chunk: ChunkIndex,
        outcome: DiskOutcome,
        effects: &mut Effects,
    ) {
        let DiskOutcome::Bytes(bytes) = outcome else {
            self.on_disk_failed(effects);
            return;
        };
        let Some(source) = self.link.source_mut() else { return };
        let Some(motion) = source.motion.get_mut(&chunk) else { return };
        if motion.is_spoiled {
            self.end_motion(chunk);
            return;
        }
        motion.step = Step::Sent;
        let (mask, hash) = (motion.mask, motion.hash);
        let block_len = usize::try_from(BLOCK_LEN).expect("4 KiB");
        let (mut zeroes, mut data) = (0u16, 0u16);
        let mut payload = Vec::new();
        for (index, block) in bytes.chunks(block_len).enumerate() {
            let bit = 1u16 << index;
            if mask & bit == 0 {
                continue;
            }
            if block.iter().all(|byte| *byte == 0) {
                zeroes |= bit;
            } else {
                data |= bit;
                payload.extend_from_slice(block);
            }
        }
        source.payload_bytes += u64::try_from(payload.len()).unwrap_or(0);
        if zeroes != 0 {
            let more = data != 0;
            self.send(Message::ChunkZero(ChunkZero { chunk, mask: zeroes, hash, more }), effects);
        }
        if data != 0 {
            let payload = Payload::hash(payload.into());
            let data = ChunkData { chunk, mask: data, hash, more: false, payload };
            self.send(Message::ChunkData(data), effects);
        }
    }

    /// What became of chunks at the target.
    pub(super) fn on_chunk_acks(&mut self, acks: &[ChunkAck]) -> Result<(), Fault> {
        for ack in acks {
            let Some(source) = self.link.source_mut() else { return Ok(()) };
            let is_sent = source.motion.get(&ack.chunk).is_some_and(|m| m.step == Step::Sent);
            if !is_sent {
                return Err(Fault::Outside { what: "chunk", index: ack.chunk.0 });
            }
            match ack.stage {
                ChunkStage::Durable => self.end_motion(ack.chunk),
                ChunkStage::Again => {
                    source.motion.remove(&ack.chunk);
                    let count = source.again.entry(ack.chunk).or_default();
                    *count += 1;
                    if *count >= AGAIN_MAX {
                        return Err(Fault::Credit { what: "repeats", limit: AGAIN_MAX.into() });
                    }
                    self.writes.rescan();
                }
            }
        }
        Ok(())
    }

    /// The target has the chunk as it was when it was hashed: clears its marks, unless a client
    /// wrote to it meanwhile. What the window accounts for stays until it is flushed.
    fn end_motion(&mut self, chunk: ChunkIndex) {
        let Some(source) = self.link.source_mut() else { return };
        let Some(motion) = source.motion.remove(&chunk) else { return };
        source.again.remove(&chunk);
        let is_same = motion.step == Step::Sent || motion.mask == 0;
        if !motion.is_spoiled && is_same {
            for block in chunk.blocks(self.size).iter() {
                if !self.window.contains(block) {
                    self.dirty.clear(block);
                }
            }
        }
        self.background.note_change();
        self.writes.recheck();
    }

    /// The target made everything stable: first the record says that every acknowledgement needs
    /// it, then it may become a candidate (the invariant `PairedBeforeCandidate`).
    pub(super) fn on_barrier_done(&mut self, effects: &mut Effects) {
        if self.link.source().is_none_or(|source| source.stage != Stage::Barrier) {
            return;
        }
        if self.has_hard_marks() {
            self.set_source_stage(Stage::Running);
            return;
        }
        let mode = self.records.stable().serve_mode;
        if self.role.is_primary() && (mode != ServeMode::Paired || self.role.is_changing()) {
            self.records.change(Change::Paired);
            if self.has_planted_rule(PlantedRule::VetoLiftedBeforePaired) {
                self.end_source(effects);
                return;
            }
            self.set_source_stage(Stage::Recording);
        } else {
            self.end_source(effects);
        }
    }

    pub(super) fn on_paired_recorded(&mut self, effects: &mut Effects) {
        self.forget_own_generation();
        if self.link.source().is_some_and(|source| source.stage == Stage::Recording) {
            self.end_source(effects);
        }
    }

    /// Says that nothing differs any more. From here on the target may be a candidate at any
    /// moment, so what it said before is no permit to go on alone.
    fn end_source(&mut self, effects: &mut Effects) {
        self.set_source_stage(Stage::Ending);
        self.role.peer_may_be_complete();
        let record = self.records.stable();
        let end = ResyncEnd {
            generation: record.generation.unwrap_or_default(),
            history: record.history.clone(),
        };
        self.send(Message::ResyncEnd(end), effects);
    }

    /// The target is complete, durably.
    pub(super) fn on_resync_done(&mut self, end: &ResyncEnd) -> Result<(), Fault> {
        let generation = self.records.stable().generation;
        let Some(source) = self.link.source_mut() else {
            return Err(Fault::Unexpected { message: "ResyncDone" });
        };
        if source.stage != Stage::Ending || generation != Some(end.generation) {
            return Err(Fault::Unexpected { message: "ResyncDone" });
        }
        source.stage = Stage::Complete;
        let sent = source.payload_bytes;
        self.role.peer_vetoed = None;
        self.records.change(Change::SourceComplete);
        self.event("in-sync", format!("the peer is up-to-date; {sent} bytes were sent"));
        self.writes.recheck();
        Ok(())
    }
}

/// Chunks in one `HashOffer`.
const OFFERS_MAX: usize = 64;
/// Marks looked at in one step, so that a step stays short.
const PICK_BUDGET: usize = 4096;
/// Times that a chunk may not have the announced hash after it was written.
const AGAIN_MAX: u32 = 3;
