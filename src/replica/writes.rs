//! The primary's write path: admission, order, acknowledgement.
//!
//! A part of a request waits while it overlaps one in flight, so both nodes apply overlapping
//! writes in one order. When its extents are in the activity log, its blocks are marked, and the
//! local write and the frame to the peer go out together. What "acknowledged" means is decided in
//! one place, [`Replica::part_outcome`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::effect::{DiskOutcome, Effect};
use super::io::Purpose;
use super::parts::{Intervals, Local, Op, Part, PartId};
use super::planted::Planted;
use super::request::{Request, RequestError, RequestId, RequestKind, ZERO_PART_LEN_MAX};
use super::role::AckNeed;
use super::session::Fault;
use super::{Effects, Replica};
use crate::metadata::{MapMemory, Want};
use crate::units::{
    BlockRange, ByteRange, EXTENT_LEN, Epoch, ExtentIndex, Instant, ReplicationMode, Sequence,
};
use crate::wire::message::{Ack, AckStage, Message, Write, Zero};

/// Requests of clients that are not answered yet, and frames the peer has not applied.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Writes {
    next_part: u64,
    parts: BTreeMap<PartId, Part>,
    intervals: Intervals,
    waiting: VecDeque<Waiting>,
    /// Reads of clients under way: a write to the same blocks waits, or they could find what may
    /// be taken back.
    reading: BTreeMap<RequestId, BlockRange>,
    /// Reads of them that ended while no lease held: they are answered when one does.
    read: Vec<RequestId>,
    cold: VecDeque<PartId>,
    /// Blocks of the cold ones: they will be in the unflushed window.
    cold_blocks: usize,
    requests: BTreeMap<RequestId, Pending>,
    bytes: u64,
    last_sequence: Sequence,
    unanswered: BTreeSet<Sequence>,
    /// The highest that was answered.
    answered_max: Sequence,
    sent: BTreeMap<Sequence, Sent>,
    /// Payload bytes of what was sent.
    sent_bytes: u64,
    at_risk_bytes: u64,
    at_risk_count: u64,
    /// `async`: since when something is at risk that was sent in a session that is over.
    stranded_since: Option<Instant>,
    /// Extents that the peer was told of since the last batch of the log.
    heated: BTreeSet<ExtentIndex>,
    recheck: bool,
    rescan: bool,
    last_request: Instant,
}

/// A request that is not answered.
#[derive(Clone, Debug, Hash)]
struct Pending {
    parts_left: usize,
    error: Option<RequestError>,
}

/// What may not start yet.
#[derive(Clone, Debug, Hash)]
enum Waiting {
    Write(Box<Part>),
    Read { request: RequestId, range: ByteRange },
}

/// A frame that the peer has not applied.
#[derive(Clone, Debug, Hash)]
struct Sent {
    blocks: BlockRange,
    len: u64,
    /// Its share of the peer's credit in bytes.
    payload_len: u64,
    /// The peer makes it stable, and says so.
    fua: bool,
    at: Instant,
    part: PartId,
    /// `async`: it was answered before the peer applied it, at this moment.
    answered: Option<Instant>,
}

/// What can be said of a part.
enum PartOutcome {
    /// Not yet.
    Held,
    /// It is acknowledged.
    Acknowledged,
    /// It failed here.
    Failed(RequestError),
}

impl Writes {
    /// Parts admitted and not answered, started or not, reads not counted.
    pub(super) fn part_count(&self) -> usize {
        self.parts.len() + self.waiting.len()
    }

    /// Bytes of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether every request was answered.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Whether a write is in flight.
    pub(super) fn has_parts(&self) -> bool {
        !self.parts.is_empty()
    }

    /// The last sequence given out in this session.
    pub(super) fn last_sequence(&self) -> Sequence {
        self.last_sequence
    }

    /// Blocks in flight here, or at the peer.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = BlockRange> {
        let parts = self.parts.values().filter(|part| part.local != Local::Cold);
        parts.map(|part| part.blocks).chain(self.sent.values().map(|sent| sent.blocks))
    }

    /// Whether a write to `blocks` is in flight here, held ones not counted, or at the peer.
    pub(super) fn is_in_motion(&self, blocks: BlockRange) -> bool {
        self.sent.values().any(|sent| sent.blocks.overlaps(blocks))
            || (self.intervals.overlaps(blocks)
                && self
                    .parts
                    .values()
                    .any(|part| part.local == Local::Writing && part.blocks.overlaps(blocks)))
    }

    /// All writes of this epoch up to this one were answered.
    pub(super) fn answered_through(&self) -> Sequence {
        match self.unanswered.first() {
            Some(first) => Sequence(first.0 - 1),
            None => self.last_sequence,
        }
    }

    /// Writes of an epoch that goes on are numbered behind all that were given out before.
    pub(super) fn number_from(&mut self, sequence: Sequence) {
        self.last_sequence = sequence;
        self.answered_max = Sequence(0);
    }

    /// Whether a local write is under way.
    pub(super) fn is_writing(&self) -> bool {
        self.parts.values().any(|part| part.local == Local::Writing)
    }

    /// Everything before this one is written here, as far as it was sent in this session.
    pub(super) fn written_before(&self) -> Sequence {
        let writing = self.parts.values().filter(|part| part.local == Local::Writing);
        writing.filter_map(|part| part.sequence).min().unwrap_or(Sequence(u64::MAX))
    }

    /// Whether a write began that is not answered.
    pub(super) fn has_submitted(&self) -> bool {
        self.parts.values().any(|part| part.local != Local::Cold)
    }

    /// When the oldest frame that the peer has not applied was sent.
    pub(super) fn oldest_sent(&self) -> Option<Instant> {
        self.sent.values().next().map(|sent| sent.at)
    }

    /// `async`: writes and bytes that only this node has, and since when.
    pub(super) fn at_risk(&self) -> (u64, u64, Option<Instant>) {
        let sent = || self.sent.values().find_map(|sent| sent.answered);
        (self.at_risk_count, self.at_risk_bytes, self.stranded_since.or_else(sent))
    }

    /// The peer has all that was answered before this session: at risk is what was sent in it.
    pub(super) fn nothing_is_stranded(&mut self) {
        let at_risk = || self.sent.values().filter(|sent| sent.answered.is_some());
        self.at_risk_bytes = at_risk().map(|sent| sent.len).sum();
        self.at_risk_count = at_risk().count() as u64;
        self.stranded_since = None;
    }

    /// This node goes on alone: the risk has another name.
    pub(super) fn nothing_is_at_risk(&mut self) {
        (self.at_risk_count, self.at_risk_bytes, self.stranded_since) = (0, 0, None);
        for sent in self.sent.values_mut() {
            sent.answered = None;
        }
    }

    /// When the last request came.
    pub(super) fn last_request(&self) -> Instant {
        self.last_request
    }

    /// Looks at every held write again at the end of this step.
    pub(super) fn recheck(&mut self) {
        self.recheck = true;
        self.rescan = true;
    }

    /// A batch of the log is stable: what is cold from here on is announced again.
    pub(super) fn log_was_written(&mut self) {
        self.heated.clear();
        self.rescan = true;
    }

    /// Looks at everything that waits again at the end of this step.
    pub(super) fn rescan(&mut self) {
        self.rescan = true;
    }

    /// The session is over: nothing that was acknowledged in it counts any more.
    pub(super) fn end_session(&mut self) {
        for part in self.parts.values_mut() {
            part.sequence = None;
            part.peer = None;
        }
        self.stranded_since = self.at_risk().2;
        self.sent.clear();
        self.sent_bytes = 0;
        self.unanswered.clear();
        self.recheck();
    }

    /// The grant is lost: held requests are dropped with their connections.
    pub(super) fn drop_all(&mut self) -> Vec<ByteRange> {
        let pinned = self
            .parts
            .values()
            .filter(|part| part.local != Local::Cold)
            .map(|part| part.range)
            .collect();
        let last_request = self.last_request;
        let (next_part, last_sequence) = (self.next_part, self.last_sequence);
        *self = Self { next_part, last_sequence, last_request, ..Self::default() };
        pinned
    }
}

impl<M: MapMemory> Replica<M> {
    pub(super) fn on_request(&mut self, epoch: Epoch, request: Request, effects: &mut Effects) {
        if !self.role.serves(epoch) {
            return; // its connection is being closed without an answer
        }
        self.writes.last_request = self.now;
        let id = request.id;
        match request.kind {
            RequestKind::Read { range } => {
                self.writes.requests.insert(id, Pending { parts_left: 1, error: None });
                self.writes.waiting.push_back(Waiting::Read { request: id, range });
            }
            RequestKind::Write { range, parts, fua } => {
                let mut start = range.start();
                let count = parts.len();
                self.writes.requests.insert(id, Pending { parts_left: count, error: None });
                for payload in parts {
                    let len = u64::try_from(payload.len()).expect("a part is at most 1 MiB");
                    let range = ByteRange::new(start, len, self.size)
                        .expect("the driver cuts a checked range");
                    start += len;
                    self.admit(id, range, Op::Write(payload), fua);
                }
            }
            RequestKind::Zero { fast_only: true, .. } if !self.zeroing_is_cheap_on_both() => {
                effects.push(Effect::Reply { request: id, result: Err(RequestError::NotFast) });
            }
            RequestKind::Zero { range, kind, fua, fast_only: _ } => {
                let fua = fua && !self.settings.is_planted(Planted::FuaIgnoredOnZeroes);
                let parts: Vec<_> = range.parts(self.zero_part_len()).collect();
                self.writes.requests.insert(id, Pending { parts_left: parts.len(), error: None });
                for part in parts {
                    self.admit(id, part, Op::Zero(kind), fua);
                }
            }
            RequestKind::Flush => self.on_flush_request(id, effects),
        }
        self.writes.rescan = true;
    }

    fn zeroing_is_cheap_on_both(&self) -> bool {
        let there = self.link.last_hello.as_ref().is_none_or(|hello| hello.zeroing_is_cheap);
        self.settings.zeroing_is_cheap && there
    }

    /// A part must fit into the activity log with room to spare.
    fn zero_part_len(&self) -> u64 {
        let slots = u64::try_from(self.log.slots()).expect("a small number");
        ZERO_PART_LEN_MAX.min((slots / 4).max(1) * EXTENT_LEN)
    }

    fn admit(&mut self, request: RequestId, range: ByteRange, op: Op, fua: bool) {
        if matches!(op, Op::Write(_)) {
            self.writes.bytes += range.len();
        }
        self.writes.waiting.push_back(Waiting::Write(Box::new(Part {
            request,
            range,
            blocks: range.blocks(),
            op,
            fua,
            admitted: self.now,
            local: Local::Cold,
            is_synced: false,
            sequence: None,
            peer: None,
        })));
    }

    /// Starts whatever may start, and answers whatever may be answered.
    pub(super) fn pump_writes(&mut self, effects: &mut Effects) {
        if self.writes.recheck {
            self.writes.recheck = false;
            let ids: Vec<_> = self.writes.parts.keys().copied().collect();
            for id in ids {
                self.check_part(id, effects);
            }
        }
        if self.writes.rescan {
            self.writes.rescan = false;
            self.scan_waiting(effects);
            self.scan_cold(effects);
        }
    }

    /// Requests start in order, but for those that overlap an earlier one that waits.
    fn scan_waiting(&mut self, effects: &mut Effects) {
        if !self.may_admit() {
            return;
        }
        let mut blocked = Intervals::default();
        let mut still = VecDeque::new();
        while let Some(waiting) = self.writes.waiting.pop_front() {
            match waiting {
                Waiting::Read { request, range } => {
                    let blocks = range.blocks();
                    if (blocked.overlaps(blocks) || !self.may_read(blocks))
                        && !self.settings.is_planted(Planted::ReadOvertakesWrite)
                    {
                        still.push_back(Waiting::Read { request, range });
                    } else {
                        let io = self.io.start(Purpose::Read(request));
                        self.writes.reading.insert(request, blocks);
                        effects.push(Effect::ReadForClient { io, request, range });
                    }
                }
                Waiting::Write(part) => {
                    if blocked.overlaps(part.blocks) || !self.may_write(part.blocks) {
                        blocked.merge(part.blocks);
                        still.push_back(Waiting::Write(part));
                    } else {
                        self.start_part(*part);
                    }
                }
            }
        }
        self.writes.waiting = still;
    }

    fn may_read(&self, blocks: BlockRange) -> bool {
        if self.writes.intervals.overlaps(blocks) {
            return false;
        }
        !self.role.marks_unproven()
            || blocks.iter().all(|b| !self.dirty.is_set(b) || self.window.contains(b))
    }

    fn may_write(&self, blocks: BlockRange) -> bool {
        !self.writes.intervals.overlaps(blocks)
            && !self.writes.reading.values().any(|read| read.overlaps(blocks))
            && self.window.len() + self.writes.cold_blocks < self.settings.unflushed_blocks_max
            && !self.verify.locks(blocks)
            && self.may_send_past_transfer(blocks)
    }

    /// A write that the peer must acknowledge waits for a chunk on its way: frame and chunk would
    /// be written there in any order.
    fn may_send_past_transfer(&self, blocks: BlockRange) -> bool {
        self.ack_need() == AckNeed::Alone || !self.link.moves(blocks)
    }

    fn start_part(&mut self, part: Part) {
        self.writes.next_part += 1;
        let id = PartId(self.writes.next_part);
        self.writes.intervals.insert(part.blocks);
        self.writes.cold_blocks += part.block_count();
        self.writes.parts.insert(id, part);
        self.writes.cold.push_back(id);
    }

    /// Submits every part whose extents are in the activity log; asks for those that are not.
    fn scan_cold(&mut self, effects: &mut Effects) {
        if !self.may_admit() {
            return;
        }
        let mut still = VecDeque::new();
        let mut is_full = false;
        while let Some(id) = self.writes.cold.pop_front() {
            let (range, blocks) = (self.writes.parts[&id].range, self.writes.parts[&id].blocks);
            if !self.may_send_past_transfer(blocks) {
                // It was not in the way when this part began to wait for the log.
                still.push_back(id);
                continue;
            }
            let payload_len = self.writes.parts[&id].op.payload_len();
            if self.ack_need() == AckNeed::Peer && !self.has_credit(payload_len) {
                // Acknowledgements bring it; the order of what waits stays.
                still.push_back(id);
                still.append(&mut self.writes.cold);
                break;
            }
            if !self.settings.is_planted(Planted::AckBeforeActivityLog)
                && !self.heat(range, &mut is_full)
            {
                self.announce_heat(range, effects);
                still.push_back(id);
                continue;
            }
            for extent in range.extents() {
                self.log.pin(extent);
            }
            self.submit(id, effects);
        }
        self.writes.cold = still;
    }

    /// Whether all extents of `range` are in the log. Those that are not are asked for, in order:
    /// once the log is full nothing further takes a slot, so the oldest is served first.
    pub(super) fn heat(&mut self, range: ByteRange, is_full: &mut bool) -> bool {
        let mut is_hot = true;
        for extent in range.extents() {
            if self.log.is_hot(extent) {
                self.log.touch(extent, self.now);
                continue;
            }
            is_hot = false;
            if *is_full {
                continue;
            }
            match self.log.want(extent, self.now) {
                Want::Hot | Want::Pending => {}
                Want::Full => {
                    *is_full = true;
                    self.background.cool_now();
                }
            }
        }
        is_hot
    }

    /// The peer logs the same extents while this node does.
    fn announce_heat(&mut self, range: ByteRange, effects: &mut Effects) {
        if self.ack_need() != AckNeed::Peer {
            return;
        }
        let cold: Vec<_> = range
            .extents()
            .filter(|extent| !self.log.is_hot(*extent) && self.writes.heated.insert(*extent))
            .collect();
        if !cold.is_empty() {
            self.send(Message::Heat(cold), effects);
        }
    }

    fn submit(&mut self, id: PartId, effects: &mut Effects) {
        let part = &self.writes.parts[&id];
        let (range, blocks, fua) = (part.range, part.blocks, part.fua);
        self.writes.cold_blocks -= part.block_count();
        let op = part.op.clone();
        let sequence = self.sequence_for(blocks, op.payload_len());
        self.mark(range, sequence);
        if let Some(sequence) = sequence {
            let after = self.writes.answered_max;
            self.writes.unanswered.insert(sequence);
            let payload_len = op.payload_len();
            self.writes.sent_bytes += payload_len;
            let (len, at) = (range.len(), self.now);
            let sent = Sent { blocks, len, payload_len, fua, at, part: id, answered: None };
            self.writes.sent.insert(sequence, sent);
            let message = match &op {
                Op::Write(payload) => {
                    Message::Write(Write { sequence, after, range, fua, payload: payload.clone() })
                }
                Op::Zero(kind) => Message::Zero(Zero { sequence, after, range, fua, kind: *kind }),
            };
            self.send(message, effects);
        } else {
            self.spoil(blocks);
        }
        let part = self.writes.parts.get_mut(&id).expect("it was just looked up");
        part.local = Local::Writing;
        part.sequence = sequence;
        let io = self.io.start(Purpose::Part(id));
        effects.push(match op {
            Op::Write(payload) => Effect::Write { io, range, bytes: payload.bytes().clone() },
            Op::Zero(kind) => Effect::Zero { io, range, kind },
        });
    }

    /// The place in the session of a write to `blocks`, or `None` if it stays here: there is no
    /// session, or the peer gets these blocks by the resync.
    fn sequence_for(&mut self, blocks: BlockRange, payload_len: u64) -> Option<Sequence> {
        let is_sent = match self.ack_need() {
            AckNeed::Peer => true,
            AckNeed::Hold => false,
            AckNeed::Alone => {
                self.session_is_running()
                    && !self.link.moves(blocks)
                    && !self.has_hard_marks_near(blocks)
                    && self.has_credit(payload_len)
            }
        };
        is_sent.then(|| {
            self.writes.last_sequence = self.writes.last_sequence.next();
            self.writes.last_sequence
        })
    }

    /// Whether the peer has room for one more frame with so many bytes.
    fn has_credit(&self, payload_len: u64) -> bool {
        let credit = self.link.session().map(|session| session.client_credit);
        credit.is_some_and(|credit| {
            self.writes.sent.len() < usize::try_from(credit.frames).unwrap_or(usize::MAX)
                && self.writes.sent_bytes + payload_len <= u64::from(credit.bytes)
        })
    }

    /// Whether a chunk that `blocks` touches still waits for the resync.
    fn has_hard_marks_near(&self, blocks: BlockRange) -> bool {
        let first = crate::units::BlockIndex(blocks.first).chunk();
        let last = crate::units::BlockIndex(blocks.end - 1).chunk();
        (first.0..=last.0).any(|chunk| {
            let chunk = crate::units::ChunkIndex(chunk);
            chunk
                .blocks(self.size)
                .iter()
                .any(|block| self.dirty.is_set(block) && !self.window.contains(block))
        })
    }

    /// Marks what `range` touches before anything is written or sent.
    fn mark(&mut self, range: ByteRange, sequence: Option<Sequence>) {
        let whole = range.whole_blocks(self.size);
        let skip = self.settings.is_planted(Planted::BitClearedOnSend) && sequence.is_some();
        for block in range.blocks().iter() {
            let was_marked = if skip { false } else { !self.dirty.set(block) };
            match sequence {
                Some(sequence) => {
                    let is_whole = whole.is_some_and(|w| w.first <= block.0 && block.0 < w.end);
                    if !was_marked || is_whole || self.window.contains(block) {
                        self.window.note(block, sequence);
                    }
                }
                None => self.window.harden(block),
            }
        }
        self.has_marked = true;
        self.spoil_comparisons(range.blocks());
        if let Some(sequence) = sequence {
            self.window.sent(self.now, sequence, range.blocks());
        }
    }

    /// The local half of a part ended.
    pub(super) fn on_part_written(
        &mut self,
        id: PartId,
        outcome: &DiskOutcome,
        effects: &mut Effects,
    ) {
        let Some(part) = self.writes.parts.get_mut(&id) else { return };
        let (blocks, fua) = (part.blocks, part.fua);
        match outcome {
            DiskOutcome::Done => {
                part.local = Local::Done;
                if fua {
                    let io = self.io.start(Purpose::Fua(id));
                    effects.push(Effect::SyncData { io });
                }
            }
            DiskOutcome::NoSpace => {
                // The peer may have these bytes and we may not: ours are sent again.
                part.local = Local::NoSpace;
                for block in blocks.iter() {
                    self.dirty.set(block);
                    self.window.harden(block);
                }
                self.event("no-space", "a write failed: no space is left on the disk");
                self.restart_session();
            }
            DiskOutcome::Failed | DiskOutcome::Bytes(_) | DiskOutcome::Hashes { .. } => {
                self.on_disk_failed(effects);
                return;
            }
        }
        self.check_part(id, effects);
    }

    /// A write that is answered when stable is stable here.
    pub(super) fn on_part_synced(&mut self, id: PartId, effects: &mut Effects) {
        if let Some(part) = self.writes.parts.get_mut(&id) {
            part.is_synced = true;
            self.check_part(id, effects);
        }
    }

    /// A client's read ended; the reply leaves only while the grant holds.
    pub(super) fn on_read_done(
        &mut self,
        request: RequestId,
        outcome: &DiskOutcome,
        effects: &mut Effects,
    ) {
        if !self.writes.requests.contains_key(&request) {
            return;
        }
        self.writes.read.push(request);
        if *outcome != DiskOutcome::Done {
            self.on_disk_failed(effects); // which drops every request
        } else if self.may_answer_reads() {
            self.release_reads(effects);
        }
    }

    /// A lease holds again: nobody was promoted meanwhile, and what was read is still current, since
    /// no write of these blocks began.
    pub(super) fn release_reads(&mut self, effects: &mut Effects) {
        for request in std::mem::take(&mut self.writes.read) {
            self.writes.requests.remove(&request);
            self.writes.reading.remove(&request);
            self.writes.rescan = true;
            effects.push(Effect::Reply { request, result: Ok(()) });
        }
    }

    /// The peer says how far writes got there.
    pub(super) fn on_acks(&mut self, acks: &[Ack], effects: &mut Effects) -> Result<(), Fault> {
        for ack in acks {
            if ack.sequence > self.writes.last_sequence || ack.sequence == Sequence(0) {
                return Err(Fault::UnknownSequence { sequence: ack.sequence.0 });
            }
            match ack.stage {
                AckStage::Failed => {
                    self.peer_disk_failed();
                    return Ok(());
                }
                AckStage::Received | AckStage::Applied | AckStage::Durable => {
                    self.on_ack(*ack, effects);
                }
            }
        }
        if self.settings.mode == ReplicationMode::Async {
            self.writes.recheck();
        }
        Ok(())
    }

    fn on_ack(&mut self, ack: Ack, effects: &mut Effects) {
        let Some(sent) = self.writes.sent.get(&ack.sequence) else { return };
        let (id, blocks) = (sent.part, sent.blocks);
        if ack.stage >= AckStage::Applied {
            let is_over = ack.stage == AckStage::Durable || !sent.fua;
            if let Some(sent) = self.writes.sent.get_mut(&ack.sequence)
                && sent.answered.take().is_some()
            {
                self.writes.at_risk_bytes -= sent.len;
                self.writes.at_risk_count -= 1;
            }
            if is_over && let Some(sent) = self.writes.sent.remove(&ack.sequence) {
                self.writes.sent_bytes -= sent.payload_len;
            }
        }
        if ack.stage == AckStage::Durable && ack.sequence < self.writes.written_before() {
            for block in self.window.durable(ack.sequence, blocks) {
                self.dirty.clear(block);
            }
        }
        if let Some(part) = self.writes.parts.get_mut(&id) {
            part.peer = part.peer.max(Some(ack.stage));
            self.check_part(id, effects);
        }
        self.writes.rescan = true;
    }

    /// Answers a part if it may be answered.
    fn check_part(&mut self, id: PartId, effects: &mut Effects) {
        let Some(part) = self.writes.parts.get(&id) else { return };
        match self.part_outcome(part) {
            PartOutcome::Held => {}
            PartOutcome::Acknowledged => self.finish_part(id, None, effects),
            PartOutcome::Failed(error) => self.finish_part(id, Some(error), effects),
        }
    }

    /// What "acknowledged" means (the invariant AckRule): the write is in the local file, and the
    /// peer has it as the mode asks, or the record says durably that this node goes on alone and
    /// the generation that only it has is stable.
    fn part_outcome(&self, part: &Part) -> PartOutcome {
        match part.local {
            Local::Cold | Local::Writing => return PartOutcome::Held,
            Local::NoSpace => return PartOutcome::Failed(RequestError::NoSpace),
            Local::Done => {}
        }
        let is_synced = !part.fua || part.is_synced;
        let is_complete = match self.ack_need() {
            AckNeed::Hold => false,
            AckNeed::Alone => is_synced && self.role.may_acknowledge_alone(),
            AckNeed::Peer => is_synced && self.peer_has(part),
        };
        if is_complete { PartOutcome::Acknowledged } else { PartOutcome::Held }
    }

    /// Whether the peer has the part as the mode asks.
    fn peer_has(&self, part: &Part) -> bool {
        if self.settings.is_planted(Planted::AckBeforePeer) {
            return true;
        }
        if part.sequence.is_none() {
            // Sent in no frame of this session: replayed blocks are unmarked once they are stable.
            return !self.dirty.any_in(part.blocks);
        }
        let wanted = if part.fua && self.settings.flush_both {
            AckStage::Durable
        } else {
            match self.settings.mode {
                ReplicationMode::Sync => AckStage::Applied,
                ReplicationMode::MemSync => AckStage::Received,
                ReplicationMode::Async => return self.fits_the_budget(part),
            }
        };
        part.peer >= Some(wanted)
    }

    fn fits_the_budget(&self, part: &Part) -> bool {
        if part.peer >= Some(AckStage::Applied)
            || self.settings.is_planted(Planted::BudgetNotEnforced)
        {
            return true;
        }
        let (_, bytes, oldest) = self.writes.at_risk();
        bytes + part.range.len() <= self.settings.at_risk_bytes
            && oldest.is_none_or(|at| self.now.since(at) < self.settings.at_risk_age)
    }

    fn finish_part(&mut self, id: PartId, error: Option<RequestError>, effects: &mut Effects) {
        let part = self.writes.parts.remove(&id).expect("the caller looked it up");
        self.writes.intervals.remove(part.blocks);
        self.writes.rescan = true;
        for extent in part.range.extents() {
            self.log.unpin(extent);
        }
        if matches!(part.op, Op::Write(_)) {
            self.writes.bytes -= part.range.len();
        }
        self.background.note_latency(self.now.since(part.admitted));
        if let Some(sequence) = part.sequence {
            self.writes.unanswered.remove(&sequence);
            self.writes.answered_max = self.writes.answered_max.max(sequence);
            if self.settings.mode == ReplicationMode::Async
                && part.peer < Some(AckStage::Applied)
                && let Some(sent) = self.writes.sent.get_mut(&sequence)
            {
                sent.answered = Some(self.now);
                self.writes.at_risk_bytes += sent.len;
                self.writes.at_risk_count += 1;
            }
        }
        let Some(pending) = self.writes.requests.get_mut(&part.request) else { return };
        pending.parts_left -= 1;
        pending.error = pending.error.or(error);
        if pending.parts_left == 0 {
            let result = pending.error.map_or(Ok(()), Err);
            self.writes.requests.remove(&part.request);
            effects.push(Effect::Reply { request: part.request, result });
        }
    }

    /// The session is over: what the peer was sent counts as not sent.
    pub(super) fn end_write_session(&mut self) {
        if self.settings.is_planted(Planted::InFlightForgottenAtDisconnect) {
            let blocks: Vec<_> = self.writes.sent.values().map(|sent| sent.blocks).collect();
            for block in blocks.into_iter().flat_map(|blocks| blocks.iter().collect::<Vec<_>>()) {
                self.dirty.clear(block);
            }
        }
        if self.settings.is_planted(Planted::UnflushedWindowForgotten) {
            for block in self.window.durable_through(self.now, self.writes.last_sequence) {
                self.dirty.clear(block);
            }
        }
        self.writes.end_session();
        self.window.clear();
    }
}
