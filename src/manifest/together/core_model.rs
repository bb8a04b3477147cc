//! As much of the core as the register needs: who has which, and who is excluded.

use super::world::{Event, Wire, World};
use crate::manifest::source::{Register, SourceInput};

impl World {
    pub(super) fn core_writes(&mut self, number: u64, register: Register) {
        if let Some(position) = register.position() {
            assert!(self.session.is_some(), "a generation is recorded in a session");
            assert!(self.source.staged.contains(&position), "and only if it was staged in it");
            if std::mem::take(&mut self.source.is_excluded) {
                self.seen.note("joined");
            }
        } else {
            assert!(self.session.is_none(), "nothing is opened in a session");
        }
        self.source.register = Some(register);
        self.source.pending.push((number, register));
        assert!(self.source.pending.len() <= 12, "{:?}", self.source.pending);
        if self.session.is_none() {
            self.after(3000, Event::Exclude);
        } else if self.source.is_peer_in_sync || self.source.is_gate_open {
            self.send(Wire::Register { number, register });
        }
    }

    pub(super) fn transfer_register(&mut self) {
        let number = self.source.pending.last().map_or(0, |(number, _)| *number);
        if self.source.register == self.target.register {
            // What is equal on both nodes is not sent.
            self.register_done(number, true);
        } else if let Some(register) = self.source.register {
            self.send(Wire::Register { number, register });
        }
    }

    pub(super) fn register_done(&mut self, number: u64, is_done: bool) {
        if !is_done {
            self.lose_session();
            return;
        }
        self.acknowledge(number);
        if self.source.pending.is_empty() {
            self.source.is_peer_in_sync = true;
            self.source.is_alone = false;
        }
    }

    fn acknowledge(&mut self, number: u64) {
        let (done, open) = self.source.pending.iter().partition(|(it, _)| *it <= number);
        self.source.pending = open;
        let done: Vec<(u64, Register)> = done;
        for (number, _) in done {
            self.tell_source(SourceInput::Recorded { number });
        }
    }

    /// The arbiter excludes the peer, so that the core acknowledges alone.
    pub(super) fn exclude(&mut self) {
        if self.session.is_some() || !self.source.is_serving || self.source.pending.is_empty() {
            return;
        }
        if self.is_faulty && self.dice.percent(40) {
            self.after(3000, Event::Exclude);
            return;
        }
        self.seen.note("alone");
        self.source.is_alone = true;
        self.source.is_peer_in_sync = false;
        let number = self.source.pending.last().map_or(0, |(number, _)| *number);
        if self.dice.percent(50) {
            self.tell_source(SourceInput::BecameAlone);
            self.acknowledge(number);
        } else {
            self.acknowledge(number);
            self.tell_source(SourceInput::BecameAlone);
        }
    }

    pub(super) fn source_met(&mut self) {
        let source = &mut self.source;
        source.staged.clear();
        source.is_gate_open = false;
        source.is_peer_in_sync = source.pending.is_empty()
            && !source.is_alone
            && source.register == self.target.register;
    }

    /// The session is over: what the core wrote waits for the next, or until the peer is excluded.
    pub(super) fn source_left(&mut self) {
        self.source.staged.clear();
        self.source.is_gate_open = false;
        if !self.source.pending.is_empty() {
            self.after(3000, Event::Exclude);
        }
    }
}
