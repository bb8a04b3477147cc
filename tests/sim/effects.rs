//! Carrying out effects: in random order within one step, since their order means nothing.

use hotpair::replica::{Closing, DiskOutcome, Effect, Input, RequestId, RequestResult};
use hotpair::units::{DiskState, Epoch, ServeMode};
use hotpair::wire::message::Message;

use crate::broken::{Broken, Checked};
use crate::ghost::Opening;
use crate::io::Work;
use crate::load::Ask;
use crate::witness::{self, Party};
use crate::world::{Event, World};

impl World {
    /// Carries out what a step answered.
    pub(crate) fn carry_out(&mut self, at: usize, effects: Vec<Effect>) -> Checked {
        let mut is_drained = false;
        for effect in self.shuffled(effects) {
            let numbers = [self.now, effect_code(&effect)];
            self.trace.note(&numbers, || format!("{} {at} -> {effect:?}", self.now));
            self.marks.see(&effect);
            if matches!(effect, Effect::CloseExport(Closing::Drained)) {
                // Replies of this step still leave: the driver closes when its buffers are empty.
                is_drained = true;
            } else {
                self.carry_out_one(at, effect)?;
            }
        }
        if is_drained {
            self.close_export(at, Closing::Drained)?;
        }
        Ok(())
    }

    /// Any order, but that what goes to the link stays in its own.
    fn shuffled(&mut self, effects: Vec<Effect>) -> Vec<Effect> {
        let is_for_link =
            |effect: &Effect| matches!(effect, Effect::Send { .. } | Effect::CloseLink { .. });
        let mut order: Vec<bool> = effects.iter().map(is_for_link).collect();
        let (for_link, mut others): (Vec<_>, Vec<_>) = effects.into_iter().partition(is_for_link);
        self.order_rng.shuffle(&mut order);
        self.order_rng.shuffle(&mut others);
        let (mut for_link, mut others) = (for_link.into_iter(), others.into_iter());
        let next = |is_for_link| if is_for_link { for_link.next() } else { others.next() };
        order.into_iter().filter_map(next).collect()
    }

    fn carry_out_one(&mut self, at: usize, effect: Effect) -> Checked {
        if let Some(work) = Work::begin(&effect, &self.nodes[at].files) {
            self.begin_work(at, work);
            return Ok(());
        }
        match effect {
            Effect::Send { link, frame } => {
                self.check_send(at, &frame)?;
                self.check_epoch(at, &frame)?;
                self.net.send(self.now, at, link, &frame);
            }
            Effect::CloseLink { link, back_off } => {
                self.net.close(self.now, at, link);
                if let Some(process) = &mut self.nodes[at].process
                    && process.link == Some(link)
                {
                    process.link = None;
                }
                if back_off {
                    self.back_off_until = self.now + 10_000_000_000;
                }
            }
            Effect::Connect(wanted) => {
                if let Some(process) = &mut self.nodes[at].process {
                    process.wants_link = wanted;
                }
            }
            Effect::OpenExport(grant) => self.open_export(at, grant.epoch())?,
            Effect::CloseExport(closing) => self.close_export(at, closing)?,
            Effect::Reply { request, result } => self.reply(at, request, result)?,
            Effect::AskArbiter(request) => {
                self.check_asked(at, &request)?;
                let heard = self.nodes[at].process.as_ref().map_or(0, |it| it.witness_heard);
                let witness = self.witness_of(at);
                self.say(Party::Node(at), witness, &witness::Message::Ask(request, heard));
            }
            Effect::SetTimer { timer, from, after, bound: _ } => {
                self.set_timer(at, timer, from, after);
            }
            Effect::GrantLease(_) => self.grant_lease(at),
            Effect::Outdate(order) => self.order_outdate(at, order),
            Effect::Services(order) => self.order_services(at, order)?,
            Effect::Fence(order) => self.order_fence(at, order),
            Effect::DrawId => self.draw_id(at),
            Effect::Answer { request, result } => self.operator.answered(request, result),
            Effect::Event(event) if event.kind == "protocol-error" => {
                let detail = format!("node {at} blames an honest peer: {}", event.reason);
                return Err(Broken::new("HonestPeer", detail));
            }
            // What it acknowledged and could not make stable may be gone.
            Effect::Event(event) if event.kind == "disk-failed" => {
                let is_other_whole = self.nodes[1 - at].superblock().disk == DiskState::UpToDate
                    && self.nodes[at].superblock().serve_mode != ServeMode::Solo;
                self.ghost.power_lost(at, is_other_whole);
            }
            Effect::Event(event) => self.note_event(at, &event),
            Effect::Settle => self.settle(at),
            Effect::Write { .. }
            | Effect::Zero { .. }
            | Effect::ReadForClient { .. }
            | Effect::ReadRange { .. }
            | Effect::HashChunk { .. }
            | Effect::SyncData { .. }
            | Effect::Probe { .. }
            | Effect::WriteSuperblock { .. }
            | Effect::AppendLog { .. }
            | Effect::SyncMap { .. }
            | Effect::Grow { .. } => unreachable!("these are work"),
        }
        Ok(())
    }

    fn begin_work(&mut self, at: usize, work: Work) {
        let delay =
            work.duration(self.plan.faults.slow_disk && !self.is_healing, &mut self.disk_rng);
        let life = self.nodes[at].life;
        let Some(process) = &mut self.nodes[at].process else { return };
        let io = process.next_io;
        process.next_io += 1;
        process.io.insert(io, work);
        self.after(delay, Event::Io { node: at, life, io });
    }

    fn open_export(&mut self, at: usize, epoch: Epoch) -> Checked {
        self.check_opens(at, epoch)?;
        if let Some(process) = &mut self.nodes[at].process {
            process.export = Some(epoch);
        }
        let opening = self.ghost.opens(at, epoch, &self.nodes[at].files.data)?;
        self.marks.add(match opening {
            Opening::Again => "export opens again",
            Opening::Elsewhere => "failover",
            Opening::AfterLoss => "loss excused",
        });
        Ok(())
    }

    fn close_export(&mut self, at: usize, closing: Closing) -> Checked {
        let life = self.nodes[at].life;
        let Some(process) = &mut self.nodes[at].process else { return Ok(()) };
        let open = process.export.take();
        let unanswered = process.admitted.values().filter(|epoch| Some(**epoch) == open).count();
        if closing == Closing::Drained && unanswered > 0 {
            let detail = format!("node {at} closes as drained, {unanswered} requests unanswered");
            return Err(Broken::new("Drained", detail));
        }
        self.disconnect_clients(at);
        let delay = self.process_rng.u64(1_000..2_000_000);
        self.after(delay, Event::ClientsGone { node: at, life });
        Ok(())
    }

    fn reply(&mut self, at: usize, request: RequestId, result: RequestResult) -> Checked {
        let Some(process) = &mut self.nodes[at].process else { return Ok(()) };
        let found = process.found.remove(&request);
        let Some(epoch) = process.admitted.remove(&request) else {
            let detail = format!("node {at} answers {request:?} which nobody waits for");
            return Err(Broken::new("OneReply", detail));
        };
        if process.export != Some(epoch) {
            // Its connection is gone.
            return Ok(());
        }
        let asked = self.clients.asked(request).filter(|_| result.is_ok());
        self.check_reply(at, epoch, result, matches!(asked, Some(Ask::Read(_))))?;
        self.check_success(at, asked)?;
        self.on_reply(at, request, result, found)?;
        self.check_budget(at, asked)
    }

    /// Ends a process whose stop was answered.
    pub(crate) fn end_if_stopped(&mut self, at: usize) -> Checked {
        let Some(process) = &self.nodes[at].process else { return Ok(()) };
        let Some(request) = process.is_stopping else { return Ok(()) };
        if !self.operator.take_success(request) {
            return Ok(());
        }
        self.trace.note(&[self.now, 91], || format!("{} {at} has stopped", self.now));
        self.end_process(at, false)?;
        let delay = self.process_rng.u64(100_000_000..3_000_000_000);
        self.after(delay, Event::Start(at));
        Ok(())
    }
}

/// A number that tells inputs apart, for the hash of the trace.
pub(crate) fn input_code(input: &Input) -> u64 {
    match input {
        Input::Started => 1,
        Input::Request { request, .. } => 2 + (request.id.0 << 8),
        Input::ClientsGone => 3,
        Input::Disk { io, outcome } => {
            let kind = match outcome {
                DiskOutcome::Done => 0,
                DiskOutcome::Bytes(_) => 1,
                DiskOutcome::Hashes { .. } => 2,
                DiskOutcome::NoSpace => 3,
                DiskOutcome::Failed => 4,
            };
            4 + (kind << 8) + (io.0 << 16)
        }
        Input::Metadata { ticket, result } => {
            5 + (ticket.0 << 16) + (u64::from(result.is_ok()) << 8)
        }
        Input::LinkUp { link, .. } => 6 + (link.0 << 8),
        Input::Peer { link, frame } => 7 + (link.0 << 40) + (message_code(&frame.message) << 8),
        Input::LinkLost { link } => 8 + (link.0 << 8),
        Input::Tick => 9,
        Input::DiskGone => 10,
        Input::FreshId(_) => 11,
        Input::Operator { request, .. } => 12 + (request << 8),
        Input::Controller(_) => 14,
        Input::Outdate(_) => 16,
        Input::ServicesEnded { run, result } => 15 + (run << 8) + (u64::from(result.is_ok()) << 40),
        Input::Grown { ticket, result } => 13 + (ticket.0 << 16) + (u64::from(result.is_ok()) << 8),
        // Only a driver with a network says it.
        Input::NoLink { .. } => 14,
        Input::Heard { link } => 17 + (link.0 << 8),
        Input::Admit => 18,
        Input::FellBack { .. } => 19,
        Input::Settled { result } => 44 + (u64::from(result.is_ok()) << 8),
    }
}

fn effect_code(effect: &Effect) -> u64 {
    match effect {
        Effect::Write { io, range, .. } => 20 + (io.0 << 8) + (range.start() << 24),
        Effect::Zero { io, range, .. } => 21 + (io.0 << 8) + (range.start() << 24),
        Effect::ReadForClient { io, .. } => 22 + (io.0 << 8),
        Effect::ReadRange { io, .. } => 23 + (io.0 << 8),
        Effect::HashChunk { io, chunk } => 24 + (io.0 << 8) + (chunk.0 << 32),
        Effect::SyncData { io } => 25 + (io.0 << 8),
        Effect::Probe { io } => 60 + (io.0 << 8),
        Effect::WriteSuperblock { ticket, .. } => 26 + (ticket.0 << 8),
        Effect::AppendLog { ticket, .. } => 27 + (ticket.0 << 8),
        Effect::SyncMap { ticket, .. } => 28 + (ticket.0 << 8),
        Effect::Send { link, frame } => 29 + (link.0 << 40) + (message_code(&frame.message) << 8),
        Effect::CloseLink { link, .. } => 30 + (link.0 << 8),
        Effect::Connect(wanted) => 31 + (u64::from(*wanted) << 8),
        Effect::OpenExport(grant) => 32 + (grant.epoch().0 << 8),
        Effect::CloseExport(_) => 33,
        Effect::Settle => 45,
        Effect::Reply { request, result } => {
            34 + (request.0 << 8) + (u64::from(result.is_ok()) << 40)
        }
        Effect::DrawId => 35,
        Effect::Answer { request, result } => {
            36 + (request << 8) + (u64::from(result.is_ok()) << 40)
        }
        Effect::Event(_) => 37,
        Effect::AskArbiter(request) => 39 + (request.id.number << 8),
        Effect::SetTimer { timer, .. } => 40 + ((*timer as u64) << 8),
        Effect::GrantLease(_) => 41,
        Effect::Outdate(_) => 43,
        Effect::Services(order) => 42 + (order.run << 8),
        Effect::Fence(order) => 43 + (order.run << 8),
        Effect::Grow { ticket, new, .. } => 38 + (ticket.0 << 8) + (new.bytes() << 24),
    }
}

fn message_code(message: &Message) -> u64 {
    match message {
        Message::Write(write) => 1 + (write.sequence.0 << 8),
        Message::Zero(zero) => 2 + (zero.sequence.0 << 8),
        Message::Flush(flush) | Message::FlushDone(flush) => 3 + (flush.request << 8),
        Message::Acks(acks) => 4 + (acks.last().map_or(0, |ack| ack.sequence.0) << 8),
        Message::HashOffer(offer) => 5 + (offer.first().map_or(0, |it| it.chunk.0) << 8),
        Message::ChunkData(data) => 6 + (data.chunk.0 << 8),
        Message::ChunkZero(zero) => 7 + (zero.chunk.0 << 8),
        other => 8 + (u64::from(other.lane() == hotpair::wire::message::Lane::Control) << 8),
    }
}
