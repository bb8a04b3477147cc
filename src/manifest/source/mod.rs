//! What the source of a tree does when: capture, send, record, exclude, answer.
//!
//! It is told what happened ([`SourceInput`]) and answers what to do ([`SourceEffect`]), in order. Drivers
//! capture, read and send; the core of the resource writes the register and decides who serves. Here is
//! decided only when, by three rules: the newest closed generation is what is sent; the register names a
//! generation only once the target has said in this session that it can commit it; and a target that
//! is too far behind is excluded before it could take over.
//!
//! A node that does not serve can be what its peer follows, too: in a new pair, or when the peer missed the end
//! of serving. It sends what its register names and captures nothing, so the register stays as it is.
//!
//! `terms.rs` has inputs and effects, `changes.rs` says how old what is not complete is, `captures.rs` when to
//! capture, `syncs.rs` who waits for what, `peer.rs` what follows from notes of the target.

mod captures;
mod changes;
mod peer;
mod syncs;
mod terms;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use terms::{
    CaptureEnd, Closed, DirtyFacts, Register, Serving, SourceEffect, SourceInput, SourceSettings,
    SyncError,
};

use super::{Fitness, Standing, UnfitWhy, standing};
use crate::units::{Instant, TreeNumber};
use captures::{Captures, Pause};
use changes::Changes;
use peer::Peer;
use syncs::{Syncs, answer};

/// Writes of the register that the core has not acknowledged. Each but the last is left behind by a session
/// that was lost.
const RECORDS_MAX: u64 = 8;

/// Whether the core may count the peer among those that could take over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Membership {
    /// It may: lag is watched.
    In {
        /// It does so only from this generation on, if it was out before and has not committed that yet.
        joining: Option<TreeNumber>,
    },
    /// It does not, until a generation is recorded that the peer has staged.
    Out {
        /// When it was excluded for its lag, if it was.
        since: Option<Instant>,
    },
}

/// A write of the register that the core has.
#[derive(Clone, Copy, Debug)]
struct Record {
    register: Register,
    /// The session in which it was given is over, or the peer gave up what it had staged: the next may replace it.
    is_stale: bool,
}

/// What of a source a node is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Service {
    /// Nothing.
    Off,
    /// It only sends what the register names.
    Lending,
    /// It serves.
    On,
}

/// The source of one tree, on the node that serves.
#[derive(Clone, Debug)]
pub struct Source {
    settings: SourceSettings,
    service: Service,
    newest: Option<Closed>,
    /// As the core acknowledged it last.
    register: Option<Register>,
    record: Option<Record>,
    /// Writes of the register so far, and those that were acknowledged.
    recorded: u64,
    acknowledged: u64,
    membership: Membership,
    /// The peer gave up what the register says: it is written once more when that is staged again.
    is_given_up: bool,
    /// The newest generation that is complete on the peer, as far as it said.
    complete: Option<TreeNumber>,
    changes: Changes,
    captures: Captures,
    syncs: Syncs,
    peer: Option<Peer>,
    /// Until when nothing is sent after a refusal.
    sends: Pause,
    /// What the peer has does not lead to the announced root: the whole tree is sent.
    sends_whole: bool,
    standing: Option<Standing>,
}

impl Source {
    /// A source that does not serve.
    pub fn new(settings: SourceSettings) -> Self {
        Self {
            settings,
            service: Service::Off,
            newest: None,
            register: None,
            record: None,
            recorded: 0,
            acknowledged: 0,
            membership: Membership::Out { since: None },
            is_given_up: false,
            complete: None,
            changes: Changes::default(),
            captures: Captures::default(),
            syncs: Syncs::default(),
            peer: None,
            sends: Pause::default(),
            sends_whole: false,
            standing: None,
        }
    }

    /// Takes one input and appends what follows from it to `effects`.
    pub fn step(&mut self, now: Instant, input: SourceInput, effects: &mut Vec<SourceEffect>) {
        match input {
            SourceInput::Serve(serving) => self.on_serve(now, serving, effects),
            SourceInput::Lend { newest } => self.on_lend(now, newest),
            SourceInput::StopServing => self.on_stop_serving(effects),
            SourceInput::Tick(facts) => self.on_tick(facts),
            SourceInput::Captured(end) => self.on_captured(now, &end, effects),
            SourceInput::CaptureFailed { oldest } => {
                self.on_capture_failed(now, oldest, effects);
            }
            SourceInput::Halted { oldest } => self.on_halted(now, oldest, effects),
            SourceInput::Position { position, scope_digest, is_known } => {
                self.on_position(position, scope_digest, is_known, effects);
            }
            SourceInput::PeerLost => self.lose_peer(effects),
            SourceInput::Said(note) => self.on_said(now, note, effects),
            SourceInput::ChunksSent { count } => self.on_chunks_sent(count),
            SourceInput::ChunkGone { object, chunk } => {
                self.on_chunk_gone(now, (object, chunk), effects);
            }
            SourceInput::Recorded { number } => self.on_recorded(number),
            SourceInput::BecameAlone => self.on_became_alone(effects),
            SourceInput::Sync { request, freeze } => self.on_sync(request, freeze, effects),
            SourceInput::SyncGivenUp { request } => self.syncs.give_up(request),
        }
        if self.is_serving() {
            self.exclude(now, effects);
            self.record(now, effects);
            self.send(now, effects);
            self.capture(now, effects);
            self.tell_standing(now, effects);
        } else if self.service == Service::Lending
            && let Some(newest) = self.newest
        {
            self.send(now, effects);
            self.admit(newest.position, effects);
        }
    }

    /// The age of the oldest change seen that is in no complete generation; zero if there is none.
    pub fn lag(&self, now: Instant) -> Duration {
        self.changes.lag(self.complete, now)
    }

    /// How old a change may be that nobody saw: the time since the last finished look at everything began, and
    /// since the start if there was none.
    pub fn unseen_bound(&self, now: Instant) -> Duration {
        now.since(self.captures.scanned().unwrap_or_default())
    }

    /// Whether the secondary may take over, as it was told last.
    pub fn standing(&self) -> Option<Standing> {
        self.standing
    }

    fn on_serve(&mut self, now: Instant, serving: Serving, effects: &mut Vec<SourceEffect>) {
        let Serving { newest, register, is_alone, since } = serving;
        self.service = Service::On;
        self.newest = newest;
        self.register = register;
        let position = register.as_ref().and_then(Register::position);
        self.complete = match &self.peer {
            Some(peer) => peer.complete(),
            None => position.map(|it| it.number),
        };
        self.membership = match position {
            Some(_) => Membership::In { joining: None },
            None => Membership::Out { since: None },
        };
        self.is_given_up = false;
        self.changes = Changes::default();
        self.captures.restart(now);
        if let Some(newest) = newest {
            self.changes.add(newest.position.number, since);
        }
        if let Some(number) = self.complete {
            self.on_complete(number);
        }
        self.sends = Pause::default();
        self.sends_whole = false;
        if is_alone {
            self.on_became_alone(effects);
        }
    }

    fn on_lend(&mut self, now: Instant, newest: Closed) {
        if self.is_serving() {
            return;
        }
        self.service = Service::Lending;
        self.newest = Some(newest);
        self.register = Some(Register::of(&newest));
        self.record = None;
        self.is_given_up = false;
        self.captures.restart(now);
        self.captures.on_try_again();
        self.sends = Pause::default();
        self.sends_whole = false;
    }

    fn on_stop_serving(&mut self, effects: &mut Vec<SourceEffect>) {
        self.syncs.fail(SyncError::Stopped, effects);
        self.lose_peer(effects);
        self.service = Service::Off;
        self.record = None;
        self.standing = None;
    }

    fn on_tick(&mut self, facts: DirtyFacts) {
        self.captures.on_facts(facts);
        self.changes.on_facts(facts.oldest, self.captures.is_running());
    }

    fn on_captured(&mut self, now: Instant, end: &CaptureEnd, effects: &mut Vec<SourceEffect>) {
        let Some(ran) = self.captures.on_captured(now, &self.settings, end.was_full) else {
            return;
        };
        let is_new = self.newest.is_none_or(|it| it.position != end.closed.position);
        if is_new || end.is_new {
            self.newest = Some(end.closed);
            self.changes.on_closed(end.closed.position.number, end.oldest, ran.began);
        } else {
            self.changes.on_nothing_new();
        }
        let Some(newest) = self.newest else { return };
        if end.was_full {
            self.syncs.on_captured(newest);
        } else {
            self.syncs.on_failure(effects);
        }
        self.answer_applied(effects);
    }

    fn on_capture_failed(
        &mut self,
        now: Instant,
        oldest: Option<Instant>,
        effects: &mut Vec<SourceEffect>,
    ) {
        self.captures.on_failure(now, &self.settings);
        self.changes.on_failure(oldest);
        self.syncs.on_failure(effects);
    }

    fn on_halted(
        &mut self,
        now: Instant,
        oldest: Option<Instant>,
        effects: &mut Vec<SourceEffect>,
    ) {
        self.on_capture_failed(now, oldest, effects);
        self.captures.is_halted = true;
        self.syncs.fail(SyncError::Halted, effects);
    }

    fn on_sync(&mut self, request: u64, freeze: bool, effects: &mut Vec<SourceEffect>) {
        let taken = match (self.is_serving(), &self.peer) {
            (false, _) => Err(SyncError::Stopped),
            (true, None) => Err(SyncError::PeerLost),
            (true, Some(_)) => self.syncs.ask(request, freeze),
        };
        if let Err(error) = taken {
            effects.push(answer(request, Err(error)));
        }
    }

    fn on_recorded(&mut self, number: u64) {
        if number <= self.acknowledged || number > self.recorded {
            return;
        }
        self.acknowledged = number;
        if number == self.recorded
            && let Some(record) = self.record.take()
        {
            self.register = Some(record.register);
        }
    }

    /// Whatever is written from here on, only this node has.
    fn on_became_alone(&mut self, effects: &mut Vec<SourceEffect>) {
        if !self.is_serving() {
            return;
        }
        if self.is_member() {
            self.membership = Membership::Out { since: None };
        }
        self.open(effects);
    }

    /// A target that is too far behind must not take over.
    fn exclude(&mut self, now: Instant, effects: &mut Vec<SourceEffect>) {
        if !self.is_member() || !self.is_late(now) {
            return;
        }
        self.membership = Membership::Out { since: Some(now) };
        effects.push(SourceEffect::Exclude);
        self.lose_peer(effects);
        self.open(effects);
    }

    fn is_serving(&self) -> bool {
        self.service == Service::On
    }

    fn is_member(&self) -> bool {
        matches!(self.membership, Membership::In { .. })
    }

    /// The oldest generation with which the peer could take over, or will once it is counted.
    fn counted(&self) -> Option<TreeNumber> {
        match self.membership {
            Membership::In { joining } => self.complete.max(joining),
            Membership::Out { .. } => self.complete.max(self.held().map(|it| it.position.number)),
        }
    }

    /// Lag alone excludes: a halt or a peer that has nothing yet does so by its lag.
    fn is_late(&self, now: Instant) -> bool {
        let facts = Fitness {
            complete: Some(TreeNumber(0)),
            is_halted: false,
            ..self.fitness(self.counted(), now)
        };
        let late = Standing::Unfit { why: UnfitWhy::Lag, calm_since: None };
        standing(Standing::Fit, &facts, now) == late
    }

    /// What decides about a peer on which generation `complete` is complete, or would be once it is
    /// recorded. Whether there is a newer one says nothing of it: under load there always is.
    fn fitness(&self, complete: Option<TreeNumber>, now: Instant) -> Fitness {
        Fitness {
            lag: self.changes.lag(complete, now),
            max_lag: self.settings.max_lag,
            complete,
            newest: complete.unwrap_or_default(),
            is_inconsistent: false,
            is_unsure: false,
            is_halted: self.captures.is_halted,
        }
    }

    fn standing_now(&self, now: Instant) -> Standing {
        let facts = self.fitness(self.counted(), now);
        let Membership::Out { since } = self.membership else {
            return standing(Standing::Fit, &facts, now);
        };
        let before = Standing::Unfit { why: UnfitWhy::Lag, calm_since: since };
        let after = standing(before, &facts, now);
        match (after, since) {
            // It was not excluded for its lag, so there is nothing to get calm from.
            (Standing::Unfit { calm_since: Some(_), .. }, None) => Standing::Fit,
            (after, _) => after,
        }
    }

    fn tell_standing(&mut self, now: Instant, effects: &mut Vec<SourceEffect>) {
        let found = self.standing_now(now);
        // It is fit once that is recorded; before, it has only staged what would make it so.
        let told = match (self.membership, found) {
            (Membership::Out { since }, Standing::Fit) => {
                Standing::Unfit { why: UnfitWhy::Lag, calm_since: since }
            }
            (Membership::In { .. } | Membership::Out { .. }, found) => found,
        };
        if self.standing != Some(told) {
            self.standing = Some(told);
            effects.push(SourceEffect::Standing(told));
        }
    }

    fn capture(&mut self, now: Instant, effects: &mut Vec<SourceEffect>) {
        let wanted = self.syncs.wanted();
        let Some(everything) = self.captures.begin(now, &self.settings, wanted.is_some()) else {
            return;
        };
        self.changes.on_begin();
        self.syncs.on_begin();
        effects.push(SourceEffect::Capture { everything, freeze: wanted.unwrap_or(false) });
    }
}
