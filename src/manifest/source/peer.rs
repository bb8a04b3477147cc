//! What follows from what the target says, and what it is sent.

use super::terms::{Closed, Register, SourceEffect, SyncError};
use super::{Membership, RECORDS_MAX, Record, Source};
use crate::manifest::Standing;
use crate::manifest::limits::WANTED_CHUNKS_MAX;
use crate::units::{Instant, ObjectId, TreeNumber, TreePosition};
use crate::wire::{TreeNote, TreeRefusal};

/// The target, as long as a session lasts.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// What it said to have.
    position: TreePosition,
    /// Whether the index reaches back to that.
    is_known: bool,
    /// What its tree is, at rest.
    applied: Option<TreeNumber>,
    /// What it can commit.
    staged: Option<Closed>,
    sending: Option<Closed>,
    /// Chunks that it wants and that were not sent.
    wanted: u64,
    /// A transfer was given up for this chunk. Until the target repeats that, it may want chunks of it.
    gone: Option<(ObjectId, u64)>,
    /// The core may transfer the register to it.
    is_admitted: bool,
}

impl Peer {
    /// The generation that is complete there, if it is one of ours.
    pub(super) fn complete(&self) -> Option<TreeNumber> {
        (self.is_known && self.position.number > TreeNumber(0)).then_some(self.position.number)
    }

    /// Whether it can commit `position`, or did.
    fn holds(&self, position: TreePosition) -> bool {
        let is_staged = self.staged.is_some_and(|it| it.position == position);
        is_staged || (self.is_known && self.position == position)
    }
}

impl Source {
    pub(super) fn on_position(
        &mut self,
        position: TreePosition,
        scope_digest: [u8; 32],
        is_known: bool,
        effects: &mut Vec<SourceEffect>,
    ) {
        if scope_digest != self.settings.scope_digest {
            self.lose_peer(effects);
            let words = "what is excluded or left out differs between the nodes".to_owned();
            let why = TreeRefusal::Scope;
            effects.push(SourceEffect::Say(TreeNote::TreeRefused { why, words }));
            return;
        }
        // Equal roots prove equal trees, whatever became of the rows that lead there.
        let is_newest = self.newest.is_some_and(|it| it.position == position);
        let staged = self.peer.as_ref().and_then(|peer| peer.staged);
        let is_known = is_known || is_newest || staged.is_some_and(|it| it.position == position);
        let peer = match &mut self.peer {
            Some(peer) => peer,
            none @ None => none.insert(Peer {
                position,
                is_known,
                applied: None,
                staged: None,
                sending: None,
                wanted: 0,
                gone: None,
                is_admitted: false,
            }),
        };
        (peer.position, peer.is_known) = (position, is_known);
        // It went back.
        peer.applied = peer.applied.filter(|applied| *applied <= position.number);
        self.complete = peer.complete();
        if let Some(number) = self.complete {
            self.on_complete(number);
        }
    }

    /// This generation is complete on the peer.
    pub(super) fn on_complete(&mut self, number: TreeNumber) {
        self.complete = Some(number);
        self.changes.on_complete(number);
        if let Membership::In { joining } = &mut self.membership {
            *joining = joining.filter(|joining| *joining > number);
        }
    }

    pub(super) fn lose_peer(&mut self, effects: &mut Vec<SourceEffect>) {
        self.stop_sending(effects);
        self.peer = None;
        if let Some(record) = &mut self.record {
            record.is_stale = true;
        }
        self.syncs.fail(SyncError::PeerLost, effects);
    }

    fn stop_sending(&mut self, effects: &mut Vec<SourceEffect>) {
        let Some(peer) = &mut self.peer else { return };
        peer.wanted = 0;
        if peer.sending.take().is_some() {
            effects.push(SourceEffect::StopSending);
        }
    }

    pub(super) fn on_said(
        &mut self,
        now: Instant,
        note: TreeNote,
        effects: &mut Vec<SourceEffect>,
    ) {
        match note {
            // Said before the target knew that this session is over for the source.
            _ if self.peer.is_none() => {}
            TreeNote::Want { chunks } => {
                let count = chunks.iter().map(|it| u64::from(it.count)).sum::<u64>();
                self.on_want(count, SourceEffect::SendChunks(chunks), effects);
            }
            TreeNote::Staged { position } => self.on_staged(position, effects),
            TreeNote::Committed { position } => self.on_committed(position, effects),
            TreeNote::Applied { position } => self.on_applied(position, effects),
            TreeNote::TreeRefused { why, .. } => self.on_refused(now, why, effects),
            // It comes as an input of its own, with what the index says of it.
            TreeNote::Position { .. } => {}
            // Whoever sends records goes by it.
            TreeNote::RecordsTaken { .. } => {}
            TreeNote::ChunkGone { object, chunk } => {
                if let Some(peer) = &mut self.peer {
                    peer.gone = peer.gone.filter(|gone| *gone != (object, chunk));
                }
            }
            TreeNote::DeltaOpen { .. }
            | TreeNote::DeltaRecords { .. }
            | TreeNote::DeltaEnd { .. }
            | TreeNote::Chunks { .. } => {
                effects.push(SourceEffect::Close { what: "the target says what a source says" });
            }
        }
    }

    fn on_want(&mut self, count: u64, send: SourceEffect, effects: &mut Vec<SourceEffect>) {
        let Some(peer) = self.peer.as_mut().filter(|peer| peer.sending.is_some()) else { return };
        peer.wanted = peer.wanted.saturating_add(count);
        if peer.wanted > WANTED_CHUNKS_MAX {
            let what = "the target wants more chunks at once than it may";
            effects.push(SourceEffect::Close { what });
            return;
        }
        effects.push(send);
    }

    pub(super) fn on_chunks_sent(&mut self, count: u64) {
        if let Some(peer) = &mut self.peer {
            peer.wanted = peer.wanted.saturating_sub(count);
        }
    }

    /// What it staged in an earlier session counts if it is still the newest.
    fn on_staged(&mut self, position: TreePosition, effects: &mut Vec<SourceEffect>) {
        let Some(peer) = &mut self.peer else { return };
        let ours = peer.sending.into_iter().chain(self.newest);
        let Some(closed) = ours.into_iter().find(|it| it.position == position) else { return };
        peer.staged = Some(closed);
        self.stop_sending(effects);
        self.sends.on_success();
    }

    fn on_committed(&mut self, position: TreePosition, effects: &mut Vec<SourceEffect>) {
        let Some(peer) = &mut self.peer else { return };
        // It may have had what it is being sent, whatever was known of that.
        let is_sent = peer.sending.is_some_and(|it| it.position == position);
        if is_sent || peer.staged.is_some_and(|it| it.position == position) {
            (peer.position, peer.is_known) = (position, true);
            self.sends_whole = false;
            if is_sent {
                self.stop_sending(effects);
            }
        } else if peer.position != position {
            let what = "the target has a generation that it did not stage";
            effects.push(SourceEffect::Close { what });
            return;
        }
        if let Some(number) = self.peer.as_ref().and_then(Peer::complete) {
            self.on_complete(number);
        }
    }

    fn on_applied(&mut self, position: TreePosition, effects: &mut Vec<SourceEffect>) {
        self.on_committed(position, effects);
        if let Some(peer) = &mut self.peer
            && peer.position == position
        {
            // The number of a generation that the index does not know says nothing.
            peer.applied = peer.complete();
            self.answer_applied(effects);
        }
    }

    /// Answers the syncs whose generation, or a later one, is the tree of the target.
    pub(super) fn answer_applied(&mut self, effects: &mut Vec<SourceEffect>) {
        let Some(peer) = &self.peer else { return };
        let Some(applied) = peer.applied else { return };
        let known = peer.staged.into_iter().chain(self.newest);
        let known = known.into_iter().find(|it| it.position.number == applied);
        self.syncs.on_applied(applied, known, effects);
    }

    fn on_refused(&mut self, now: Instant, why: TreeRefusal, effects: &mut Vec<SourceEffect>) {
        self.stop_sending(effects);
        if let Some(peer) = &mut self.peer {
            peer.staged = None;
        }
        if let Some(record) = &mut self.record {
            record.is_stale = true;
        }
        self.is_given_up = true;
        self.sends_whole |= why == TreeRefusal::Root;
        self.sends.on_failure(now, self.settings.pace.settle);
    }

    /// What is being sent cannot be sent to its end. The next capture finds what became of the file.
    pub(super) fn on_chunk_gone(
        &mut self,
        now: Instant,
        (object, chunk): (ObjectId, u64),
        effects: &mut Vec<SourceEffect>,
    ) {
        if self.peer.as_ref().is_none_or(|peer| peer.sending.is_none()) {
            return;
        }
        self.stop_sending(effects);
        effects.push(SourceEffect::Say(TreeNote::ChunkGone { object, chunk }));
        if let Some(peer) = &mut self.peer {
            peer.gone = Some((object, chunk));
        }
        self.captures.on_gone();
        self.sends.on_failure(now, self.settings.pace.settle);
    }

    /// The newest generation that the peer can commit or did.
    pub(super) fn held(&self) -> Option<Closed> {
        let peer = self.peer.as_ref()?;
        let newest = self.newest.filter(|it| peer.is_known && it.position == peer.position);
        newest.or(peer.staged)
    }

    /// Sends the newest generation to a peer that lacks it.
    pub(super) fn send(&mut self, now: Instant, effects: &mut Vec<SourceEffect>) {
        let Some(newest) = self.newest else { return };
        let is_recording = self.is_recording();
        let Some(peer) = &mut self.peer else { return };
        let is_free = peer.sending.is_none() && peer.gone.is_none() && !is_recording;
        let may_send = self.captures.allows_sending() && self.sends.is_over(now);
        if !is_free || !may_send || peer.holds(newest.position) {
            return;
        }
        let base = peer.complete().filter(|_| !self.sends_whole).map(|_| peer.position);
        peer.staged = None;
        peer.sending = Some(newest);
        effects.push(SourceEffect::Send { to: newest, base });
    }

    /// Whether the peer is told to commit something, and did not say that it has: the next delta starts from
    /// that. That the core acknowledged it may be known before the peer's word comes.
    fn is_recording(&self) -> bool {
        let Some(peer) = &self.peer else { return false };
        let written = self.written().and_then(|it| it.position());
        let staged = peer.staged.map(|it| it.position);
        staged.is_some() && staged == written && staged != Some(peer.position)
    }

    /// What the register says, or will say once the core has acknowledged it.
    fn written(&self) -> Option<Register> {
        self.record.map(|it| it.register).or(self.register)
    }

    /// Records what the peer can commit, if it may be counted on.
    pub(super) fn record(&mut self, now: Instant, effects: &mut Vec<SourceEffect>) {
        let written = self.written();
        let is_in = self.is_member();
        if is_in && let Some(position) = written.as_ref().and_then(Register::position) {
            self.admit(position, effects);
        }
        let Some(held) = self.held() else { return };
        let is_written = is_in && !self.is_given_up && written == Some(Register::of(&held));
        let is_busy = self.record.is_some_and(|it| !it.is_stale);
        let may_join = is_in || self.standing_now(now) == Standing::Fit;
        if is_written || is_busy || !may_join || self.recorded - self.acknowledged >= RECORDS_MAX {
            return;
        }
        self.write(Register::of(&held), effects);
        // From here on the core may acknowledge it at any moment.
        if self.membership != (Membership::In { joining: None }) {
            self.membership = Membership::In { joining: Some(held.position.number) };
        }
        self.admit(held.position, effects);
    }

    /// The core may transfer what the register says, if the peer can take it.
    pub(super) fn admit(&mut self, position: TreePosition, effects: &mut Vec<SourceEffect>) {
        if let Some(peer) = &mut self.peer
            && peer.holds(position)
            && !peer.is_admitted
        {
            peer.is_admitted = true;
            effects.push(SourceEffect::Admit);
        }
    }

    /// Records that changes may be nowhere else.
    pub(super) fn open(&mut self, effects: &mut Vec<SourceEffect>) {
        if self.written() != Some(Register::Open) {
            self.write(Register::Open, effects);
        }
    }

    fn write(&mut self, register: Register, effects: &mut Vec<SourceEffect>) {
        self.recorded += 1;
        self.is_given_up = false;
        let is_stale = register == Register::Open;
        // It belongs to no session, so the next one may replace it at once.
        self.record = Some(Record { register, is_stale });
        effects.push(SourceEffect::Record { number: self.recorded, register });
    }
}
