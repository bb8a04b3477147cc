//! Online verify: both nodes read every chunk, and the primary compares.
//!
//! A chunk that a client wrote to meanwhile is compared again; after some tries writes to it wait
//! for one comparison, so that there is no false difference under load. What differs is reported;
//! with `--repair` it is marked, and the primary's bytes are sent.

use std::collections::BTreeMap;

use super::effect::{DiskOutcome, Effect};
use super::exit::Asker;
use super::io::Purpose;
use super::operator::VerifyStatus;
use super::session::Fault;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::units::{BLOCK_LEN, BlockRange, ChunkIndex, Instant};
use crate::wire::message::{Message, SettleAsk, SettleTell, VERIFIED_RANGES_MAX, Verified};

/// Verify, on the node that compares and on the one that is asked.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct VerifyState {
    run: Option<Run>,
    /// Chunks that the peer wants hashed, with the write that must precede.
    asked: Vec<SettleAsk>,
    pub(super) last: Option<VerifyStatus>,
}

/// A comparison of everything.
#[derive(Clone, Debug, Hash)]
struct Run {
    asker: Asker,
    repair: bool,
    next: u64,
    compared: u64,
    motion: BTreeMap<ChunkIndex, Comparison>,
    differences: u64,
    ranges: Vec<(u64, u64)>,
}

/// One chunk being compared.
#[derive(Clone, Debug, Default, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one comparison")]
struct Comparison {
    mine: Option<Vec<[u8; 32]>>,
    theirs: Option<Vec<[u8; 32]>>,
    is_asked: bool,
    is_spoiled: bool,
    is_locked: bool,
    is_started: bool,
    tries: u32,
}

impl VerifyState {
    /// Whether writes to `blocks` wait for a comparison.
    pub(super) fn locks(&self, blocks: BlockRange) -> bool {
        let Some(run) = &self.run else { return false };
        let first = crate::units::BlockIndex(blocks.first).chunk();
        let last = crate::units::BlockIndex(blocks.end - 1).chunk();
        run.motion.range(first..=last).any(|(_, c)| c.is_locked && c.is_started)
    }

    /// Chunks compared, of the run under way.
    pub(super) fn compared(&self) -> Option<u64> {
        self.run.as_ref().map(|run| run.compared)
    }

    /// A comparison ended, here or at the peer for somebody here.
    pub(super) fn note_result(&mut self, now: Instant, found: Verified) {
        let Verified { differences, ranges } = found;
        self.last = Some(VerifyStatus { ended: now, differences, ranges });
    }

    pub(super) fn end_session(&mut self) {
        self.asked.clear();
    }
}

impl<M: MapMemory> Replica<M> {
    /// Begins to compare everything with the peer.
    pub(super) fn begin_verify(&mut self, asker: Asker, repair: bool, effects: &mut Effects) {
        if !self.is_in_sync() {
            let why = "both copies must be connected and in sync";
            self.answer_refused(asker, why, effects);
        } else if self.verify.run.is_some() {
            self.answer_refused(asker, "a verify is running", effects);
        } else if self.is_resizing() {
            self.answer_refused(asker, "a resize is under way", effects);
        } else {
            self.verify.run = Some(Run {
                asker,
                repair,
                next: 0,
                compared: 0,
                motion: BTreeMap::new(),
                differences: 0,
                ranges: Vec::new(),
            });
            self.event("verify-started", "both copies are compared");
        }
    }

    /// Goes on with it.
    pub(super) fn pump_verify(&mut self, effects: &mut Effects) {
        self.hash_for_peer(effects);
        if self.verify.run.is_none() {
            return;
        }
        if !self.is_in_sync() {
            self.fail_verify("the nodes are not in sync any more", effects);
            return;
        }
        self.start_comparisons(effects);
        self.ask_comparisons(effects);
        let is_done = self
            .verify
            .run
            .as_ref()
            .is_some_and(|run| run.motion.is_empty() && run.next >= self.size.chunk_count());
        if is_done {
            self.finish_verify(effects);
        }
    }

    fn start_comparisons(&mut self, effects: &mut Effects) {
        let window = self.background.resync_window(&self.settings);
        let count = self.size.chunk_count();
        let Some(run) = &mut self.verify.run else { return };
        while run.motion.len() < window && run.next < count {
            run.motion.insert(ChunkIndex(run.next), Comparison::default());
            run.next += 1;
        }
        let due: Vec<ChunkIndex> =
            run.motion.iter().filter(|(_, c)| !c.is_started).map(|(chunk, _)| *chunk).collect();
        for chunk in due {
            if self.writes.is_in_motion(chunk.blocks(self.size)) {
                continue;
            }
            let io = self.io.start(Purpose::VerifyMine(chunk));
            effects.push(Effect::HashChunk { io, chunk });
            if let Some(comparison) = self.comparison(chunk) {
                comparison.is_started = true;
            }
        }
    }

    fn comparison(&mut self, chunk: ChunkIndex) -> Option<&mut Comparison> {
        self.verify.run.as_mut()?.motion.get_mut(&chunk)
    }

    fn ask_comparisons(&mut self, effects: &mut Effects) {
        let sequence = self.writes.last_sequence();
        let Some(run) = &mut self.verify.run else { return };
        let due: Vec<ChunkIndex> = run
            .motion
            .iter_mut()
            .filter(|(_, c)| c.mine.is_some() && !c.is_asked)
            .map(|(chunk, c)| {
                c.is_asked = true;
                *chunk
            })
            .collect();
        for chunk in due {
            self.send(Message::SettleAsk(SettleAsk { chunk, sequence }), effects);
        }
    }

    /// A client writes here: what is being compared there is compared again.
    pub(super) fn spoil_comparisons(&mut self, blocks: BlockRange) {
        let Some(run) = &mut self.verify.run else { return };
        let first = crate::units::BlockIndex(blocks.first).chunk();
        let last = crate::units::BlockIndex(blocks.end - 1).chunk();
        for (_, comparison) in run.motion.range_mut(first..=last) {
            comparison.is_spoiled |= comparison.is_started;
        }
    }

    pub(super) fn on_verify_mine(
        &mut self,
        chunk: ChunkIndex,
        outcome: DiskOutcome,
        effects: &mut Effects,
    ) {
        match outcome {
            DiskOutcome::Hashes { blocks, .. } => {
                if let Some(comparison) = self.comparison(chunk) {
                    comparison.mine = Some(blocks);
                }
            }
            DiskOutcome::Done
            | DiskOutcome::Bytes(_)
            | DiskOutcome::NoSpace
            | DiskOutcome::Failed => self.on_disk_failed(effects),
        }
    }

    /// The peer wants a chunk compared.
    pub(super) fn on_settle_ask(&mut self, ask: SettleAsk) -> Result<(), Fault> {
        let limit = 2 * self.settings.resync_chunks_max;
        self.check_read_room()?;
        if ask.chunk.range(self.size).is_none() {
            return Err(Fault::Outside { what: "chunk", index: ask.chunk.0 });
        }
        if self.verify.asked.len() >= limit {
            return Err(Fault::Credit { what: "comparisons", limit: limit as u64 });
        }
        self.verify.asked.push(ask);
        Ok(())
    }

    fn hash_for_peer(&mut self, effects: &mut Effects) {
        let through = self.applied_through();
        let is_due = |ask: &SettleAsk| through.is_none_or(|through| through >= ask.sequence);
        let due: Vec<SettleAsk> = self.verify.asked.iter().copied().filter(is_due).collect();
        self.verify.asked.retain(|ask| !is_due(ask));
        for ask in due {
            let io = self.io.start(Purpose::VerifyForPeer(ask.chunk));
            effects.push(Effect::HashChunk { io, chunk: ask.chunk });
        }
    }

    pub(super) fn on_verify_for_peer(
        &mut self,
        chunk: ChunkIndex,
        outcome: DiskOutcome,
        effects: &mut Effects,
    ) {
        let blocks = match outcome {
            DiskOutcome::Hashes { blocks, .. } => Some(blocks),
            DiskOutcome::Done
            | DiskOutcome::Bytes(_)
            | DiskOutcome::NoSpace
            | DiskOutcome::Failed => None,
        };
        let is_failed = blocks.is_none();
        self.send(Message::SettleTell(SettleTell { chunk, blocks }), effects);
        if is_failed {
            self.on_disk_failed(effects);
        }
    }

    pub(super) fn on_settle_tell(
        &mut self,
        tell: &SettleTell,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let Some(comparison) = self.comparison(tell.chunk) else {
            return Ok(()); // the run was ended here meanwhile
        };
        if !comparison.is_asked {
            return Err(Fault::Unexpected { message: "SettleTell" });
        }
        if let Some(blocks) = &tell.blocks {
            comparison.theirs = Some(blocks.clone());
            self.compare(tell.chunk);
        } else {
            // What cannot be read is not different: there is no result.
            self.fail_verify("the peer could not read its copy", effects);
        }
        Ok(())
    }

    fn compare(&mut self, chunk: ChunkIndex) {
        let size = self.size;
        let Some(run) = &mut self.verify.run else { return };
        let Some(comparison) = run.motion.remove(&chunk) else { return };
        if comparison.is_spoiled {
            let tries = comparison.tries + 1;
            let is_locked = tries >= TRIES_MAX;
            let again = Comparison { is_locked, tries, ..Comparison::default() };
            run.motion.insert(chunk, again);
            return;
        }
        run.compared += 1;
        self.writes.rescan();
        let mine = comparison.mine.unwrap_or_default();
        let theirs = comparison.theirs.unwrap_or_default();
        let blocks = chunk.blocks(size);
        for (index, block) in blocks.iter().enumerate() {
            if mine.get(index) == theirs.get(index) {
                continue;
            }
            run.differences += 1;
            let start = block.0 * BLOCK_LEN;
            let len = BLOCK_LEN.min(size.bytes() - start);
            let has_room = run.ranges.len() < VERIFIED_RANGES_MAX;
            match run.ranges.last_mut() {
                Some((first, length)) if *first + *length == start => *length += len,
                Some(_) | None if has_room => run.ranges.push((start, len)),
                Some(_) | None => {}
            }
            if run.repair {
                self.dirty.set(block);
            }
        }
    }

    fn finish_verify(&mut self, effects: &mut Effects) {
        let Some(mut run) = self.verify.run.take() else { return };
        run.ranges.sort_unstable();
        let text = format!("verify ended: {} blocks differ", run.differences);
        self.event("verify-ended", text.clone());
        let found = Verified { differences: run.differences, ranges: run.ranges };
        self.verify.note_result(self.now, found.clone());
        match run.asker {
            Asker::Local(request) => super::desk::answer(request, &text, effects),
            Asker::Peer(request) => self.tell(request, Ok(Some(found)), effects),
        }
        if run.repair && run.differences > 0 {
            // The marks are transferred like any others, from the primary.
            self.restart_session();
        }
    }

    fn fail_verify(&mut self, why: &str, effects: &mut Effects) {
        let Some(run) = self.verify.run.take() else { return };
        self.event("verify-ended", why);
        self.answer_refused(run.asker, why, effects);
    }
}

/// Comparisons of one chunk before writes to it wait.
const TRIES_MAX: u32 = 8;
