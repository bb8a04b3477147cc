//! FLUSH: what was answered before it is stable on both nodes, or the peer is durably excluded.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::Effect;
use super::io::Purpose;
use super::planted::Planted;
use super::request::{RequestError, RequestId};
use super::role::AckNeed;
use super::session::Fault;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::units::{Instant, Sequence};
use crate::wire::message::{Flush, Message};

/// Flushes that are not answered, and those asked of the peer.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Flushes {
    next: u64,
    tickets: BTreeMap<u64, FlushTicket>,
    asked: BTreeMap<u64, Asked>,
    window_asked: bool,
}

/// A client's flush.
#[derive(Clone, Debug, Hash)]
struct FlushTicket {
    request: RequestId,
    is_local_done: bool,
    peer: PeerFlush,
}

/// How far a flush is at the peer, in the current session.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum PeerFlush {
    NotAsked,
    Asked,
    Done,
}

/// A flush that the peer was asked for.
#[derive(Clone, Debug, Hash)]
struct Asked {
    covers: Sequence,
    at: Instant,
    why: FlushWhy,
}

/// Who waits for the peer's flush.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum FlushWhy {
    /// A client: the number of its ticket.
    Ticket(u64),
    /// The unflushed window is full or old.
    Window,
    /// The end of a transfer.
    Barrier,
    /// A change of role.
    Role,
}

impl Flushes {
    /// Flushes of clients that are not answered.
    pub(super) fn ticket_count(&self) -> usize {
        self.tickets.len()
    }

    /// When the oldest flush that the peer has not answered was asked for.
    pub(super) fn oldest_asked(&self) -> Option<Instant> {
        self.asked.values().next().map(|asked| asked.at)
    }

    /// The session is over: nothing that was asked in it counts any more.
    pub(super) fn end_session(&mut self) {
        self.asked.clear();
        self.window_asked = false;
        for ticket in self.tickets.values_mut() {
            ticket.peer = PeerFlush::NotAsked;
        }
    }

    /// The grant is lost: they are dropped with their connections.
    pub(super) fn drop_tickets(&mut self) {
        self.tickets.clear();
    }
}

impl<M: MapMemory> Replica<M> {
    pub(super) fn on_flush_request(&mut self, request: RequestId, effects: &mut Effects) {
        self.flushes.next += 1;
        let id = self.flushes.next;
        let ticket = FlushTicket { request, is_local_done: false, peer: PeerFlush::NotAsked };
        self.flushes.tickets.insert(id, ticket);
        let io = self.io.start(Purpose::Flush(id));
        effects.push(Effect::SyncData { io });
    }

    /// The local half of a flush is done.
    pub(super) fn on_flush_synced(&mut self, id: u64) {
        if let Some(ticket) = self.flushes.tickets.get_mut(&id) {
            ticket.is_local_done = true;
        }
    }

    /// Asks the peer to make everything sent so far stable.
    pub(super) fn ask_flush(&mut self, why: FlushWhy, effects: &mut Effects) {
        self.flushes.next += 1;
        let request = self.flushes.next;
        let covers = self.writes.last_sequence();
        self.flushes.asked.insert(request, Asked { covers, at: self.now, why });
        self.send(Message::Flush(Flush { request, covers }), effects);
    }

    /// The peer made everything up to `done.covers` stable.
    pub(super) fn on_flush_done(
        &mut self,
        done: Flush,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        let Some(asked) = self.flushes.asked.remove(&done.request) else {
            return Err(Fault::UnknownRequest { request: done.request });
        };
        // What is not written here yet stays marked: this process may end before it is.
        let written = Sequence(self.writes.written_before().0 - 1);
        if self.settings.is_planted(Planted::BitClearedDespiteNewerWrite) {
            self.window.forget_newer(asked.covers.min(written));
        }
        for block in self.window.durable_through(self.now, asked.covers.min(written)) {
            self.dirty.clear(block);
        }
        match asked.why {
            FlushWhy::Ticket(id) => {
                if let Some(ticket) = self.flushes.tickets.get_mut(&id) {
                    ticket.peer = PeerFlush::Done;
                }
            }
            FlushWhy::Window => self.flushes.window_asked = false,
            FlushWhy::Barrier => self.on_barrier_done(effects),
            FlushWhy::Role => self.role.peer_is_flushed(),
        }
        self.writes.rescan();
        Ok(())
    }

    /// Sends what is due and answers what is complete.
    pub(super) fn pump_flushes(&mut self, effects: &mut Effects) {
        let need = self.ack_need();
        if need == AckNeed::Peer && !self.has_hard_marks() {
            let due: Vec<u64> = self
                .flushes
                .tickets
                .iter()
                .filter(|(_, ticket)| ticket.peer == PeerFlush::NotAsked)
                .map(|(id, _)| *id)
                .collect();
            if self.settings.flush_both {
                for id in due {
                    self.ask_flush(FlushWhy::Ticket(id), effects);
                    if let Some(ticket) = self.flushes.tickets.get_mut(&id) {
                        ticket.peer = PeerFlush::Asked;
                    }
                }
            }
        }
        self.bound_the_window(effects);
        let only_local =
            !self.settings.flush_both || self.settings.is_planted(Planted::FlushOnlyLocal);
        let complete: BTreeSet<u64> = self
            .flushes
            .tickets
            .iter()
            .filter(|(_, ticket)| {
                ticket.is_local_done
                    && match need {
                        AckNeed::Hold => false,
                        AckNeed::Alone => self.role.may_flush_alone(),
                        AckNeed::Peer => ticket.peer == PeerFlush::Done || only_local,
                    }
            })
            .map(|(id, _)| *id)
            .collect();
        for id in complete {
            if let Some(ticket) = self.flushes.tickets.remove(&id) {
                effects.push(Effect::Reply { request: ticket.request, result: Ok(()) });
            }
        }
    }

    /// The peer is asked to flush before the window is full or old.
    fn bound_the_window(&mut self, effects: &mut Effects) {
        let is_old = self
            .window
            .oldest()
            .is_some_and(|at| self.now.since(at) >= self.settings.unflushed_age);
        let is_large = self.window.len() * 2 >= self.settings.unflushed_blocks_max;
        if !(is_old || is_large) || self.flushes.window_asked || !self.session_is_running() {
            return;
        }
        // What is not written here stays marked anyway: while the first of it waits for a slow
        // disk a flush of the peer would clear nothing, and the next one would follow at once.
        if self.window.first().is_some_and(|first| first < self.writes.written_before()) {
            self.flushes.window_asked = true;
            self.ask_flush(FlushWhy::Window, effects);
        }
    }

    /// Fails every waiting flush: the disk is gone.
    pub(super) fn fail_flushes(&mut self, effects: &mut Effects) {
        for (_, ticket) in std::mem::take(&mut self.flushes.tickets) {
            let result = Err(RequestError::Io);
            effects.push(Effect::Reply { request: ticket.request, result });
        }
    }
}
