//! The target of a transfer: says what it lacks, takes it, checks it, makes it stable.
//!
//! Before the first byte it makes durable that it is inconsistent (a replay leaves it consistent
//! throughout, so it does not). It is complete only when its own record says so: that record, and
//! no message, proves the end.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::effect::{DiskOutcome, Effect};
use super::io::Purpose;
use super::records::Change;
use super::session::{Fault, SessionPart};
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::units::{
    BLOCK_LEN, BlockIndex, ByteRange, CHUNK_LEN, ChunkIndex, Generation, Instant, Transfer,
    ZeroKind,
};
use crate::wire::message::{
    ChunkAck, ChunkData, ChunkHash, ChunkNeed, ChunkStage, ChunkZero, MapPart, Message, ResyncEnd,
    ResyncStart,
};

/// State of a transfer at its target.
#[derive(Clone, Debug, Default, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about both sides")]
pub(super) struct Target {
    is_started: bool,
    is_ready: bool,
    is_offered: bool,
    end: Option<ResyncEnd>,
    is_completing: bool,
    is_complete: bool,
    /// What the source's end must be, or descend from: as its Hello and `ResyncStart` said.
    began_as: Vec<Generation>,
    offers: BTreeMap<ChunkIndex, [u8; 32]>,
    asked: BTreeMap<ChunkIndex, Asked>,
    asked_count: u64,
    incoming: BTreeMap<ChunkIndex, Incoming>,
    needs: Vec<ChunkNeed>,
    acks: Vec<ChunkAck>,
    unsynced: BTreeSet<ChunkIndex>,
    syncing: Option<BTreeSet<ChunkIndex>>,
    unsynced_since: Option<Instant>,
    pub(super) paused_here: bool,
    pub(super) paused_there: bool,
    /// Blocks that could differ when it began: those that the source had marked, and ours.
    pub(super) total_blocks: u64,
    /// Of these, the ones that were settled; too few rather than too many.
    done_blocks: u64,
    pub(super) payload_bytes: u64,
    pub(super) since: Instant,
}

/// A chunk of which blocks were asked for, and nothing came. A client may have written to it at
/// the source: then nothing comes, and it is offered again.
#[derive(Clone, Copy, Debug, Hash)]
struct Asked {
    hash: [u8; 32],
    serial: u64,
}

/// A chunk that is being written.
#[derive(Clone, Debug, Hash)]
struct Incoming {
    hash: [u8; 32],
    /// Blocks that came; none comes twice.
    mask: u16,
    /// What is to be written, in the order it came.
    pieces: Vec<Piece>,
    /// Writes under way.
    writing: usize,
    /// Nothing more follows.
    is_whole: bool,
    is_pinned: bool,
}

#[derive(Clone, Debug, Hash)]
enum Piece {
    Data { mask: u16, bytes: Bytes },
    Zero { mask: u16 },
}

impl Piece {
    fn mask(&self) -> u16 {
        match self {
            Self::Data { mask, .. } | Self::Zero { mask } => *mask,
        }
    }
}

impl Target {
    /// Chunks that are being written.
    pub(super) fn chunks(&self) -> impl Iterator<Item = ChunkIndex> {
        self.incoming.keys().copied()
    }

    /// Those whose extents are pinned.
    pub(super) fn pinned(&self) -> impl Iterator<Item = ChunkIndex> {
        self.incoming.iter().filter(|(_, incoming)| incoming.is_pinned).map(|(chunk, _)| *chunk)
    }

    /// Whether the source was told nothing yet of what became of `chunk`: it cannot offer it now.
    fn has_in_hand(&self, chunk: ChunkIndex) -> bool {
        self.offers.contains_key(&chunk)
            || self.incoming.contains_key(&chunk)
            || self.unsynced.contains(&chunk)
            || self.syncing.as_ref().is_some_and(|syncing| syncing.contains(&chunk))
    }

    fn in_hand_count(&self) -> usize {
        let syncing = self.syncing.as_ref().map_or(0, BTreeSet::len);
        self.offers.len() + self.incoming.len() + self.unsynced.len() + syncing
    }

    /// Blocks of `chunk` are asked for. Of those for which nothing comes the oldest are forgotten:
    /// the source has given them up long ago.
    fn ask_for(&mut self, chunk: ChunkIndex, hash: [u8; 32], limit: usize) {
        self.asked_count += 1;
        self.asked.insert(chunk, Asked { hash, serial: self.asked_count });
        if self.asked.len() > limit {
            let half = u64::try_from(limit / 2).expect("a small number");
            let oldest = self.asked_count - half;
            self.asked.retain(|_, asked| asked.serial > oldest);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Whether the source has said what is to come.
    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    /// Blocks that may still differ, as far as this side can tell. Only the source knows which; none
    /// are left when the record says so, unless there were none at all.
    pub(super) fn remaining_blocks(&self) -> u64 {
        let least = self.total_blocks.min(1);
        self.total_blocks.saturating_sub(self.done_blocks).max(least)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused_here || self.paused_there
    }
}

impl<M: MapMemory> Replica<M> {
    pub(super) fn on_resync_start(&mut self, start: &ResyncStart) -> Result<(), Fault> {
        let now = self.now;
        let source = self.link.peer_hello().and_then(|hello| hello.generation);
        let (mine, all) = (self.dirty.count(), self.size.block_count());
        let Some(session) = self.link.session_mut() else { return Ok(()) };
        let transfer = session.transfer;
        let SessionPart::Target(target) = &mut session.part else {
            return Err(Fault::Unexpected { message: "ResyncStart" });
        };
        if target.is_started || start.transfer != transfer {
            return Err(Fault::Unexpected { message: "ResyncStart" });
        }
        target.is_started = true;
        target.began_as = source.into_iter().chain([start.generation]).collect();
        target.total_blocks = start.blocks.saturating_add(mine).min(all);
        target.since = now;
        Ok(())
    }

    /// Goes on with the transfer at its target.
    pub(super) fn pump_target(&mut self, effects: &mut Effects) {
        let Some(session) = self.link.session() else { return };
        let is_joined = session.is_joined;
        let SessionPart::Target(target) = &session.part else { return };
        if target.is_started && !target.is_ready && is_joined {
            self.send_marks(effects);
        }
        self.write_incoming(effects);
        self.sync_chunks(effects);
        self.complete_target();
        let Some(target) = self.link.target_mut() else { return };
        let needs = std::mem::take(&mut target.needs);
        let acks = std::mem::take(&mut target.acks);
        for part in needs.chunks(NEEDS_MAX) {
            self.send(Message::HashNeed(part.to_vec()), effects);
        }
        if !acks.is_empty() {
            self.send(Message::ChunkAcks(acks), effects);
        }
    }

    /// The source gets this node's marks, and may begin.
    fn send_marks(&mut self, effects: &mut Effects) {
        let mut part: Option<(u64, Vec<u8>)> = None;
        let mut parts = Vec::new();
        for page in 0..self.dirty.page_count() {
            if self.dirty.page_is_clean(page) {
                parts.extend(part.take());
                continue;
            }
            let bits = self.dirty.page(page);
            match &mut part {
                Some((_, pages)) if pages.len() < MAP_PART_LEN => pages.extend_from_slice(bits),
                Some(_) | None => {
                    parts.extend(part.take());
                    part = Some((page, bits.to_vec()));
                }
            }
        }
        parts.extend(part);
        for (first_page, pages) in parts {
            let part = MapPart { first_page, pages: pages.into(), last: false };
            self.send(Message::MapPart(part), effects);
        }
        let last = MapPart { first_page: 0, pages: Bytes::new(), last: true };
        self.send(Message::MapPart(last), effects);
        self.send(Message::ResyncReady, effects);
        if let Some(target) = self.link.target_mut() {
            target.is_ready = true;
        }
    }

    /// Chunks as the source has them.
    pub(super) fn on_hash_offer(
        &mut self,
        offers: &[ChunkHash],
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        self.note_resumable();
        let limit = self.settings.resync_chunks_max;
        for offer in offers {
            if offer.chunk.range(self.size).is_none() {
                return Err(Fault::Outside { what: "chunk", index: offer.chunk.0 });
            }
            self.check_read_room()?;
            let Some(target) = self.link.target_mut() else {
                return Err(Fault::Unexpected { message: "HashOffer" });
            };
            if !target.is_ready || target.end.is_some() || target.has_in_hand(offer.chunk) {
                return Err(Fault::Unexpected { message: "HashOffer" });
            }
            target.asked.remove(&offer.chunk);
            if target.in_hand_count() >= 2 * limit {
                return Err(Fault::Credit { what: "chunks", limit: 2 * limit as u64 });
            }
            target.offers.insert(offer.chunk, offer.hash);
            let io = self.io.start(Purpose::TargetHash(offer.chunk));
            effects.push(Effect::HashChunk { io, chunk: offer.chunk });
        }
        Ok(())
    }

    /// The first offer proves that the source's marks are stable: from here on an interrupted
    /// transfer of everything goes on where it was.
    fn note_resumable(&mut self) {
        let source = self.link.peer_hello().and_then(|hello| hello.generation);
        let Some(target) = self.link.target_mut() else { return };
        if !std::mem::replace(&mut target.is_offered, true)
            && self.records.stable().resync_source.is_none()
            && let Some(source) = source
        {
            self.records.change(Change::Resumable { source });
        }
    }

    /// This node's hash of an offered chunk is there.
    pub(super) fn on_target_hashed(
        &mut self,
        chunk: ChunkIndex,
        outcome: DiskOutcome,
        effects: &mut Effects,
    ) {
        let DiskOutcome::Hashes { chunk: mine, blocks } = outcome else {
            self.on_disk_failed(effects);
            return;
        };
        let asked_max = ASKED_PER_CHUNK * self.settings.resync_chunks_max;
        let Some(target) = self.link.target_mut() else { return };
        let Some(theirs) = target.offers.remove(&chunk) else { return };
        let is_same = mine == theirs;
        let blocks = (!is_same).then_some(blocks);
        target.needs.push(ChunkNeed { chunk, blocks });
        if is_same {
            self.clear_chunk(chunk);
            self.count_done(chunk, 0);
        } else {
            target.ask_for(chunk, theirs, asked_max);
        }
    }

    /// This node's own marks of a chunk say nothing any more: the source has them.
    fn clear_chunk(&mut self, chunk: ChunkIndex) {
        let blocks = chunk.blocks(self.size);
        self.dirty.clear_range(blocks);
        self.background.note_change();
    }

    /// A chunk is settled, and so many blocks of it were different. How many were marked is known to
    /// the source alone: all of them, if it sends everything, else at least those and at least one.
    fn count_done(&mut self, chunk: ChunkIndex, different: u32) {
        let all = chunk.blocks(self.size).block_count();
        let Some(session) = self.link.session_mut() else { return };
        let sends_all = session.transfer == Transfer::ResyncAll;
        if let SessionPart::Target(target) = &mut session.part {
            target.done_blocks += if sends_all { all } else { u64::from(different).clamp(1, all) };
        }
    }

    pub(super) fn on_chunk_data(&mut self, data: &ChunkData) -> Result<(), Fault> {
        let len = u64::try_from(data.payload.len()).unwrap_or(u64::MAX);
        let piece = Piece::Data { mask: data.mask, bytes: data.payload.bytes().clone() };
        self.take_piece(data.chunk, data.hash, data.more, piece)?;
        if let Some(target) = self.link.target_mut() {
            target.payload_bytes += len;
        }
        Ok(())
    }

    pub(super) fn on_chunk_zero(&mut self, zero: ChunkZero) -> Result<(), Fault> {
        self.take_piece(zero.chunk, zero.hash, zero.more, Piece::Zero { mask: zero.mask })
    }

    fn take_piece(
        &mut self,
        chunk: ChunkIndex,
        hash: [u8; 32],
        more: bool,
        piece: Piece,
    ) -> Result<(), Fault> {
        let Some(target) = self.link.target_mut() else {
            return Err(Fault::Unexpected { message: "ChunkData" });
        };
        if let Some(asked) = target.asked.remove(&chunk) {
            let incoming = Incoming {
                hash: asked.hash,
                mask: 0,
                pieces: Vec::new(),
                writing: 0,
                is_whole: false,
                is_pinned: false,
            };
            target.incoming.insert(chunk, incoming);
        }
        let Some(incoming) = target.incoming.get_mut(&chunk) else {
            return Err(Fault::Outside { what: "chunk", index: chunk.0 });
        };
        if incoming.hash != hash || incoming.is_whole || incoming.mask & piece.mask() != 0 {
            return Err(Fault::Unexpected { message: "ChunkData" });
        }
        incoming.mask |= piece.mask();
        incoming.pieces.push(piece);
        incoming.is_whole = !more;
        Ok(())
    }

    /// Writes what came for whole chunks, once their extents are in the log.
    fn write_incoming(&mut self, effects: &mut Effects) {
        let Some(target) = self.link.target() else { return };
        let due: Vec<ChunkIndex> = target
            .incoming
            .iter()
            .filter(|(_, incoming)| incoming.is_whole && !incoming.pieces.is_empty())
            .map(|(chunk, _)| *chunk)
            .collect();
        let mut is_full = false;
        for chunk in due {
            let range = chunk.range(self.size).expect("it was offered");
            if !self.heat(range, &mut is_full) {
                continue;
            }
            for extent in range.extents() {
                self.log.pin(extent);
            }
            let Some(incoming) =
                self.link.target_mut().and_then(|target| target.incoming.get_mut(&chunk))
            else {
                continue;
            };
            incoming.is_pinned = true;
            let pieces = std::mem::take(&mut incoming.pieces);
            for piece in pieces {
                self.write_piece(chunk, piece, effects);
            }
        }
    }

    fn write_piece(&mut self, chunk: ChunkIndex, piece: Piece, effects: &mut Effects) {
        let blocks = chunk.blocks(self.size);
        let (mask, mut bytes) = match piece {
            Piece::Data { mask, bytes } => (mask, Some(bytes)),
            Piece::Zero { mask } => (mask, None),
        };
        for (index, block) in blocks.iter().enumerate() {
            if mask & (1 << index) == 0 {
                continue;
            }
            let range = self.block_range(block);
            let io = self.io.start(Purpose::TargetWrite(chunk));
            let effect = match &mut bytes {
                Some(bytes) => {
                    let len = usize::try_from(range.len()).expect("a block");
                    Effect::Write { io, range, bytes: bytes.split_to(len.min(bytes.len())) }
                }
                None => Effect::Zero { io, range, kind: ZeroKind::Punch },
            };
            effects.push(effect);
            if let Some(incoming) =
                self.link.target_mut().and_then(|target| target.incoming.get_mut(&chunk))
            {
                incoming.writing += 1;
            }
        }
    }

    fn block_range(&self, block: BlockIndex) -> ByteRange {
        let start = block.0 * BLOCK_LEN;
        let len = BLOCK_LEN.min(self.size.bytes() - start);
        ByteRange::new(start, len, self.size).expect("a block of the resource")
    }

    /// Blocks of a chunk are in the file: once all are, its hash is checked.
    pub(super) fn on_target_written(
        &mut self,
        chunk: ChunkIndex,
        outcome: &DiskOutcome,
        effects: &mut Effects,
    ) {
        match outcome {
            DiskOutcome::Done => {}
            DiskOutcome::NoSpace => return self.on_secondary_full(effects),
            DiskOutcome::Failed | DiskOutcome::Bytes(_) | DiskOutcome::Hashes { .. } => {
                return self.on_disk_failed(effects);
            }
        }
        let Some(target) = self.link.target_mut() else { return };
        let Some(incoming) = target.incoming.get_mut(&chunk) else { return };
        incoming.writing -= 1;
        if incoming.writing == 0 {
            let io = self.io.start(Purpose::TargetCheck(chunk));
            effects.push(Effect::HashChunk { io, chunk });
        }
    }

    /// The hash of what was written is there.
    pub(super) fn on_target_checked(
        &mut self,
        chunk: ChunkIndex,
        outcome: &DiskOutcome,
        effects: &mut Effects,
    ) {
        let DiskOutcome::Hashes { chunk: hash, .. } = *outcome else {
            self.on_disk_failed(effects);
            return;
        };
        let now = self.now;
        let Some(target) = self.link.target_mut() else { return };
        let Some(incoming) = target.incoming.remove(&chunk) else { return };
        if hash == incoming.hash {
            target.unsynced.insert(chunk);
            target.unsynced_since.get_or_insert(now);
            self.count_done(chunk, incoming.mask.count_ones());
        } else {
            target.acks.push(ChunkAck { chunk, stage: ChunkStage::Again });
        }
        let range = chunk.range(self.size).expect("it was offered");
        for extent in range.extents() {
            self.log.unpin(extent);
        }
    }

    /// Makes chunks stable: in batches while more comes, at once when nothing does.
    fn sync_chunks(&mut self, effects: &mut Effects) {
        let now = self.now;
        let Some(target) = self.link.target_mut() else { return };
        if target.syncing.is_some() || target.unsynced.is_empty() {
            return;
        }
        let is_quiet =
            target.incoming.is_empty() && target.offers.is_empty() && target.asked.is_empty();
        let many = u64::try_from(target.unsynced.len()).unwrap_or(u64::MAX) * CHUNK_LEN;
        let age = target.unsynced_since.map_or(0, |since| now.since(since).as_millis());
        if !is_quiet && many < SYNC_BATCH_LEN && age < SYNC_AGE_MS {
            return;
        }
        target.unsynced_since = None;
        target.syncing = Some(std::mem::take(&mut target.unsynced));
        let io = self.io.start(Purpose::TargetSync);
        effects.push(Effect::SyncData { io });
    }

    pub(super) fn on_target_synced(&mut self, outcome: &DiskOutcome, effects: &mut Effects) {
        if *outcome != DiskOutcome::Done {
            self.on_disk_failed(effects);
            return;
        }
        let Some(target) = self.link.target_mut() else { return };
        let Some(synced) = target.syncing.take() else { return };
        for chunk in &synced {
            target.acks.push(ChunkAck { chunk: *chunk, stage: ChunkStage::Durable });
        }
        for chunk in synced {
            self.clear_chunk(chunk);
        }
    }

    /// Nothing differs any more. What this copy becomes is what the source had when it began, or
    /// what came of that when the source went on alone meanwhile.
    pub(super) fn on_resync_end(&mut self, end: ResyncEnd) -> Result<(), Fault> {
        let is_of = |past: &Generation| end.generation == *past || end.history.contains(past);
        let Some(target) = self.link.target_mut() else {
            return Err(Fault::Unexpected { message: "ResyncEnd" });
        };
        if !target.is_ready || target.end.is_some() || !target.began_as.iter().all(is_of) {
            return Err(Fault::Unexpected { message: "ResyncEnd" });
        }
        target.end = Some(end);
        Ok(())
    }

    /// The record says that this copy is complete, in one write with the source's generation.
    fn complete_target(&mut self) {
        let peer_is_primary = self.link.peer_is_primary();
        if self.link.is_vetoed() {
            return;
        }
        let Some(target) = self.link.target_mut() else { return };
        let is_quiet = target.in_hand_count() == 0;
        let Some(end) = &target.end else { return };
        if target.is_completing || !is_quiet {
            return;
        }
        target.is_completing = true;
        let change = Change::Complete {
            generation: end.generation,
            history: end.history.clone(),
            follows: peer_is_primary,
        };
        self.records.change(change);
    }

    /// The record says so: only now the source is told.
    pub(super) fn on_complete_recorded(&mut self, effects: &mut Effects) {
        self.dirty.clear_all();
        self.background.note_change();
        let Some(target) = self.link.target_mut() else { return };
        target.is_complete = true;
        let Some(end) = target.end.clone() else { return };
        let received = target.payload_bytes;
        self.send(Message::ResyncDone(end), effects);
        self.event("in-sync", format!("this copy is up-to-date; {received} bytes were received"));
    }

    /// An operator pauses or resumes: the other side is told.
    pub(super) fn pause_transfer(&mut self, is_paused: bool, effects: &mut Effects) {
        if let Some(source) = self.link.source_mut() {
            source.paused_here = is_paused;
        }
        if let Some(target) = self.link.target_mut() {
            target.paused_here = is_paused;
        }
        self.send(Message::ResyncPause(is_paused), effects);
    }
}

/// Answers in one `HashNeed`: 64 chunks of 16 hashes.
const NEEDS_MAX: usize = 64;
/// Chunks for which nothing came that are remembered, per chunk that may be in motion: more than
/// were offered since any that still is.
const ASKED_PER_CHUNK: usize = 64;
/// Length of one `MapPart` in bytes.
const MAP_PART_LEN: usize = 16 * crate::metadata::PAGE_LEN;
/// Chunks are synced after this many bytes, or after this long.
const SYNC_BATCH_LEN: u64 = 16 << 20;
const SYNC_AGE_MS: u128 = 250;
