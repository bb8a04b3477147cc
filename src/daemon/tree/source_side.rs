//! What a node does that serves its tree: capture, send, record, answer.

use super::orders::{Order, SendOrder, Sent};
use super::{
    Around, Deed, EARLY_SYNCS_MAX, NOTES_MAX, Service, TreeDesk, Waits, decode_register,
    encode_register,
};
use crate::manifest::REGISTER_BLOCK_LEN;
use crate::manifest::source::{
    CaptureEnd, Closed, DirtyFacts, Register, Serving, SourceEffect, SourceInput,
};
use crate::replica::{Answer, Input, Refused, Request, RequestId, RequestKind};
use crate::store::tree::DirtyLook;
use crate::store::tree::capture::Captured;
use crate::units::{BLOCK_LEN, ByteRange, ResourceSize, ServeMode};
use crate::wire::{Payload, TreeMessage, TreeNote};

impl TreeDesk {
    pub(super) fn facts(&self) -> DirtyFacts {
        let Some(look) = &self.look else { return DirtyFacts::default() };
        DirtyFacts {
            oldest: look.oldest(),
            next_due: look.next_due(self.pace),
            count: look.count(),
        }
    }

    /// The worker watches the tree.
    pub(super) fn on_serves(&mut self, newest: Option<Closed>, look: DirtyLook) {
        if self.service != Service::Starting {
            return;
        }
        self.service = Service::On;
        self.look = Some(look);
        let serving =
            Serving { newest, register: self.register, is_alone: self.is_alone, since: self.now };
        self.tell_source(SourceInput::Serve(serving));
        let facts = self.facts();
        self.tell_source(SourceInput::Tick(facts));
        self.take_notes();
        self.take_early_syncs();
        if std::mem::take(&mut self.settles_later) {
            self.on_settle();
        }
    }

    /// The peer follows, and nobody serves: it gets what the register names, if the tree is that.
    pub(super) fn lend(&mut self) {
        let is_source = self.session.is_some_and(|session| session.is_source);
        if is_source && self.service == Service::Off {
            self.service = Service::Looking;
            self.order(Order::Lend);
        }
    }

    pub(super) fn on_lends(&mut self, newest: Option<Closed>) {
        // Of a session that is over, or this node serves by now.
        if self.service != Service::Looking {
            return;
        }
        let named = self.register.as_ref().and_then(Register::position);
        if let Some(newest) = newest.filter(|newest| named == Some(newest.position)) {
            self.service = Service::Lending;
            self.tell_source(SourceInput::Lend { newest });
            self.take_notes();
        }
    }

    pub(super) fn stop_lending(&mut self) {
        if matches!(self.service, Service::Looking | Service::Lending) {
            self.service = Service::Off;
            self.tell_source(SourceInput::StopServing);
        }
    }

    pub(super) fn on_captured(&mut self, end: CaptureEnd, captured: &Captured, entries: u64) {
        self.view.captured(end, captured, entries);
        self.tell_source(SourceInput::Captured(end));
        let facts = self.facts();
        self.tell_source(SourceInput::Tick(facts));
    }

    /// Whether this node goes on without its peer.
    pub(super) fn note_alone(&mut self, serve_mode: ServeMode) {
        let is_alone = serve_mode == ServeMode::Solo;
        if std::mem::replace(&mut self.is_alone, is_alone) != is_alone
            && is_alone
            && self.service == Service::On
        {
            self.tell_source(SourceInput::BecameAlone);
        }
    }

    /// A note of the target. What follows on its position waits until that is understood.
    pub(super) fn on_note(&mut self, note: TreeNote) {
        // What the position means is known only to who has looked at the index to serve it.
        if self.is_asking || !self.takes_notes() {
            if self.notes.len() == NOTES_MAX {
                let what = "the target does not wait for an answer";
                self.deeds.push_back(Deed::CloseLink { what });
            } else {
                self.notes.push_back(note);
            }
            return;
        }
        match note {
            TreeNote::Position { position, scope_digest, .. } => {
                self.is_asking = true;
                let session = self.session_number;
                self.order_sender(SendOrder::Know { session, position, scope_digest });
            }
            TreeNote::RecordsTaken { count } => {
                self.order_sender(SendOrder::Taken { session: self.session_number, count });
            }
            note => {
                if let TreeNote::TreeRefused { why, words } = &note {
                    let reason = format!("the peer takes no generation ({}): {words}", why.name());
                    self.deeds.push_back(Deed::Event { kind: "generation-refused", reason });
                }
                self.tell_source(SourceInput::Said(note));
            }
        }
    }

    /// What waited until something else was understood.
    fn take_notes(&mut self) {
        while !self.is_asking
            && let Some(note) = self.notes.pop_front()
        {
            self.on_note(note);
        }
    }

    pub(super) fn on_sent(&mut self, sent: Sent) {
        match sent {
            Sent::Known { session, position, scope_digest, is_known }
                if session == self.session_number =>
            {
                self.is_asking = false;
                self.tell_source(SourceInput::Position { position, scope_digest, is_known });
                self.take_notes();
            }
            Sent::Message { session, message } if session == self.session_number => {
                self.say(message);
            }
            Sent::Chunks { session, count } if session == self.session_number => {
                self.tell_source(SourceInput::ChunksSent { count });
            }
            Sent::Gone { session, object, chunk } if session == self.session_number => {
                if self.service == Service::Lending {
                    let reason = "the tree was changed while nobody served it, so it is not sent;                                   promote this node"
                        .to_owned();
                    self.deeds.push_back(Deed::Event { kind: "tree-changed", reason });
                }
                // No event may have told of it.
                self.order(Order::Touch { object });
                self.tell_source(SourceInput::ChunkGone { object, chunk });
            }
            Sent::Wrong { session, what } if session == self.session_number => {
                self.deeds.push_back(Deed::CloseLink { what });
            }
            Sent::Failed { why } => {
                self.deeds.push_back(Deed::Event { kind: "tree-failed", reason: why });
                self.input(Input::DiskGone);
            }
            // Of a session that is over.
            Sent::Known { .. }
            | Sent::Message { .. }
            | Sent::Chunks { .. }
            | Sent::Gone { .. }
            | Sent::Wrong { .. } => {}
        }
    }

    pub(super) fn carry_out_source(&mut self, effect: SourceEffect) {
        let session = self.session_number;
        match effect {
            SourceEffect::Capture { everything, freeze: _ } => {
                let is_quiesced = self.settling_since.is_some();
                self.order(Order::Capture { everything, is_quiesced });
            }
            SourceEffect::Send { to, base } => {
                self.order_sender(SendOrder::Send { session, to, base });
            }
            SourceEffect::StopSending => self.order_sender(SendOrder::Stop),
            SourceEffect::SendChunks(chunks) => {
                self.order_sender(SendOrder::Chunks { session, chunks });
            }
            SourceEffect::Say(note) => self.say(TreeMessage::bare(note)),
            SourceEffect::Record { number, register } => self.record(number, register),
            SourceEffect::Admit => self.admits = true,
            // The peer outdates itself when it is given the register that follows, or is excluded
            // while it is away: either way the core learns of it before it acknowledges that.
            SourceEffect::Exclude => {
                let reason = "the secondary is too far behind to take over".to_owned();
                self.deeds.push_back(Deed::Event { kind: "excluded", reason });
            }
            SourceEffect::AnswerSync { request, result } => {
                let result = result.map_err(|error| error.to_string());
                match self.syncs.remove(&request) {
                    Some(Waits::Operator(request)) => self.answer_sync(request, result),
                    Some(Waits::Settling) => self.end_settling(result),
                    None => {}
                }
            }
            SourceEffect::Standing(standing) => self.view.standing = Some(standing),
            SourceEffect::Close { what } => self.deeds.push_back(Deed::CloseLink { what }),
        }
    }

    /// The register is to say something else. It is in the file before the core has it, so that a
    /// transfer that runs already sends nothing older.
    fn record(&mut self, number: u64, register: Register) {
        self.block = encode_register(Some(&register));
        self.register = Some(register);
        self.record = Some(number);
        self.is_record_ready = false;
        let block = self.block.clone();
        self.file.write(None, block);
    }

    /// Gives the core what is stable in the file.
    pub(super) fn pump_record(&mut self, around: Around) {
        if self.service == Service::Lending && std::mem::take(&mut self.admits) {
            self.input(Input::Admit);
        }
        if self.service != Service::On || (self.record.is_some() && !self.is_record_ready) {
            return;
        }
        if let Some(number) = self.record {
            let Some(epoch) = around.export_epoch.filter(|_| around.accepts_requests) else {
                return;
            };
            self.record = None;
            self.last_request += 1;
            let id = RequestId(self.last_request);
            self.requests.insert(id.0, number);
            let size = ResourceSize::new(BLOCK_LEN).expect("one block is a size");
            let range = ByteRange::new(0, BLOCK_LEN, size).expect("the block");
            let block: [u8; REGISTER_BLOCK_LEN] = *self.block;
            let parts = vec![Payload::hash(bytes::Bytes::copy_from_slice(&block))];
            let kind = RequestKind::Write { range, parts, fua: false };
            self.input(Input::Request { epoch, request: Request { id, kind } });
        }
        if std::mem::take(&mut self.admits) {
            self.input(Input::Admit);
        }
    }

    /// An operator wants a generation of now applied on the peer.
    pub(super) fn on_sync_command(&mut self, request: u64, freeze: bool) {
        match self.service {
            Service::On => self.ask_sync(Waits::Operator(request), freeze),
            // Whoever types it right after a promotion need not know that the tree is not watched yet.
            Service::Starting if self.early_syncs.len() < EARLY_SYNCS_MAX => {
                self.early_syncs.push((request, freeze));
            }
            Service::Off
            | Service::Looking
            | Service::Lending
            | Service::Starting
            | Service::Stopping => self.refuse_to_serve(request),
        }
    }

    fn refuse_to_serve(&mut self, request: u64) {
        let why = "this node does not serve the resource".to_owned();
        let next = format!("hotpair status {}", self.name);
        self.refuse(request, why, next);
    }

    /// The tree is watched, or will not be.
    pub(super) fn take_early_syncs(&mut self) {
        for (request, freeze) in std::mem::take(&mut self.early_syncs) {
            if self.service == Service::On {
                self.ask_sync(Waits::Operator(request), freeze);
            } else {
                self.refuse_to_serve(request);
            }
        }
    }

    /// The operator means the deletes that halted the source.
    pub(super) fn on_accept_deletes(&mut self, request: u64, count: u64) {
        if self.service != Service::On || self.view.halted.is_none() {
            let why = "nothing waits for deletes to be accepted on this node".to_owned();
            let next = format!("hotpair status {}", self.name);
            self.refuse(request, why, next);
            return;
        }
        self.order(Order::AcceptDeletes { count });
        let text = format!("{count} deletes are accepted, if that is how many there are");
        self.deeds.push_back(Deed::Answer { request, result: Ok(Answer::new(text)) });
    }

    fn answer_sync(&mut self, request: u64, result: Result<Closed, String>) {
        match result {
            Ok(Closed { position, label, fuzzy_count: _ }) => {
                let text = format!(
                    "generation {} ({}) is applied on the other node, root {}",
                    position.number,
                    label.name(),
                    position.root
                );
                self.deeds.push_back(Deed::Answer { request, result: Ok(Answer::new(text)) });
            }
            Err(why) => {
                let next = format!("hotpair explain {}", self.name);
                self.refuse(request, why, next);
            }
        }
    }

    pub(super) fn refuse(&mut self, request: u64, why: String, next: String) {
        let result = Err(Refused { why, next });
        self.deeds.push_back(Deed::Answer { request, result });
    }

    fn ask_sync(&mut self, waits: Waits, freeze: bool) {
        self.last_sync += 1;
        let request = self.last_sync;
        self.syncs.insert(request, waits);
        self.tell_source(SourceInput::Sync { request, freeze });
    }

    /// The end of serving is planned: what was changed up to now goes to the peer, if there is one.
    pub(in crate::daemon) fn on_settle(&mut self) {
        self.syncs.retain(|_, waits| *waits != Waits::Settling);
        self.settled = None;
        let is_following = self.session.is_some_and(|session| session.is_source);
        if self.service == Service::Starting {
            // Nobody has looked at the tree yet.
            self.settles_later = true;
            return;
        }
        if self.service != Service::On || (self.is_alone && !is_following) {
            // There is nobody to bring it to, and the register says so.
            self.input(Input::Settled { result: Ok(()) });
            return;
        }
        self.settling_since = Some(self.now);
        self.ask_sync(Waits::Settling, false);
    }

    pub(super) fn end_settling(&mut self, result: Result<Closed, String>) {
        if self.settling_since.take().is_none() {
            return;
        }
        self.syncs.retain(|_, waits| *waits != Waits::Settling);
        self.settled = result.as_ref().ok().copied();
        self.input(Input::Settled { result: result.map(|_| ()) });
    }

    /// What the file of the register says at a start.
    pub(super) fn read_block(block: &[u8; REGISTER_BLOCK_LEN]) -> Option<Register> {
        decode_register(block).ok().flatten()
    }
}
