//! The seats of a witness and the nodes in front of them: who is connected, whose request it is,
//! who is told. It waits for nothing and touches neither socket nor disk.
//!
//! Timers fire when they matter: those that are over do so before the next request is looked at.

use std::collections::{BTreeMap, BTreeSet};

use super::hearing::Hearing;
use crate::promotion::arbiter::{
    Allowed, Arbiter, ArbiterEffect, ArbiterInput, ArbiterRecord, ArbiterTimer, Ask, Asked, Hello,
    Operation, Refused, Reply, Request, RequestId, Tell, check_identity, no_record,
};
use crate::promotion::{Clocks, Late};
use crate::units::{ArbiterId, Side};
use crate::wire::letter::VERSION;

/// One connection, as long as the witness runs.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ConnectionId(pub(super) u64);

/// A resource of a cluster.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Key {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the resource.
    pub resource: String,
}

/// What is to be carried out, in this order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Effect {
    /// Send a letter.
    Tell(ConnectionId, Tell),
    /// Make a record stable, and say so.
    Store(Key, Box<ArbiterRecord>),
    /// Send what is queued, then close.
    Close(ConnectionId),
}

/// What the desk starts with.
#[derive(Debug)]
pub(super) struct Stock {
    /// The store.
    pub(super) id: ArbiterId,
    /// Its records.
    pub(super) records: Vec<(Key, ArbiterRecord)>,
    /// Records that cannot be read: nothing is answered about them.
    pub(super) damaged: BTreeSet<Key>,
    /// Who may enroll; `None`: everybody.
    pub(super) allowed: Option<Vec<Allowed>>,
}

#[derive(Debug)]
pub(super) struct Desk {
    id: ArbiterId,
    seats: BTreeMap<Key, Seat>,
    damaged: BTreeSet<Key>,
    nodes: BTreeMap<ConnectionId, Node>,
    allowed: Option<Vec<Allowed>>,
}

/// One resource.
#[derive(Debug)]
struct Seat {
    arbiter: Arbiter,
    timers: BTreeMap<ArbiterTimer, Late>,
    /// Where the last request of each side came from: its answer goes there.
    asked_by: [Option<ConnectionId>; 2],
    is_storing: bool,
}

/// One node that said who it is.
#[derive(Debug)]
struct Node {
    cluster: String,
    side: Side,
    /// Fingerprint of the key that it proved; zeroes without encryption.
    key: [u8; 32],
    /// No record named it when it said who it is; it may have enrolled since.
    was_stranger: bool,
    hearing: Hearing,
}

/// Most records of one witness.
pub const RECORDS_MAX: usize = 1024;

/// Most connections of nodes that no record names; each may enroll.
pub const STRANGERS_MAX: usize = 64;

/// Resources that are being enrolled over one connection, and have no record yet.
const ENROLLING_MAX: usize = 256;

impl Desk {
    /// Nobody is promoted before every lease is over that was granted before `now`.
    pub(super) fn new(now: Clocks, stock: Stock) -> Self {
        let Stock { id, records, damaged, allowed } = stock;
        let seats = records.into_iter().map(|(key, record)| {
            let seat = Seat::new(id, Some(record), now);
            (key, seat)
        });
        Self { id, seats: seats.collect(), damaged, nodes: BTreeMap::new(), allowed }
    }

    /// A node said who it is, and proved `key`.
    pub(super) fn on_hello(
        &mut self,
        from: ConnectionId,
        hello: Hello,
        key: [u8; 32],
        effects: &mut Vec<Effect>,
    ) {
        let Hello { cluster, side, .. } = hello;
        let hearing = Hearing::begin();
        let mut node = Node { cluster, side, key, was_stranger: false, hearing };
        node.was_stranger = !self.is_known(&node);
        let older = self.nodes.iter().find(|(_, it)| it.is_same(&node)).map(|(id, _)| *id);
        if let Some(older) = older {
            self.dismiss(older, "another connection of this node took its place", effects);
        }
        let is_stranger = |it: &&Node| it.was_stranger && !self.is_known(it);
        if node.was_stranger && self.nodes.values().filter(is_stranger).count() >= STRANGERS_MAX {
            let why = format!("{STRANGERS_MAX} nodes without a record are connected already");
            effects.push(Effect::Tell(from, Tell::Farewell(why)));
            effects.push(Effect::Close(from));
            return;
        }
        self.nodes.insert(from, node);
        let welcome = Tell::Welcome { version: VERSION, arbiter: self.id };
        effects.push(Effect::Tell(from, welcome));
    }

    /// A node said something.
    pub(super) fn on_ask(
        &mut self,
        now: Clocks,
        from: ConnectionId,
        ask: Ask,
        effects: &mut Vec<Effect>,
    ) {
        let before = effects.len();
        match ask {
            Ask::Hello(_) => self.dismiss(from, "a second Hello", effects),
            Ask::Ping(number) => effects.push(Effect::Tell(from, Tell::Pong(number))),
            Ask::Request { heard, asked } => {
                if self.is_heard_by(now, from, heard, effects) {
                    self.on_asked(now, from, *asked, effects);
                }
            }
            Ask::Renew { heard, all } => {
                if self.is_heard_by(now, from, heard, effects) {
                    for asked in all {
                        self.on_asked(now, from, asked, effects);
                    }
                }
            }
        }
        self.note_told(now, &effects[before..]);
    }

    /// Whether a node hears what it is told. What it asks is else dropped without a word: it would
    /// not hear the answer, and asks again.
    fn is_heard_by(
        &mut self,
        now: Clocks,
        from: ConnectionId,
        heard: u64,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(node) = self.nodes.get_mut(&from) else { return false };
        if !node.hearing.hear(heard) {
            self.dismiss(from, "more was heard than was said", effects);
            return false;
        }
        !node.hearing.is_deaf(now)
    }

    fn note_told(&mut self, now: Clocks, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Tell(to, _) = effect
                && let Some(node) = self.nodes.get_mut(to)
            {
                node.hearing.tell(now);
            }
        }
    }

    /// A connection ended.
    pub(super) fn on_gone(&mut self, connection: ConnectionId) {
        self.nodes.remove(&connection);
        for seat in self.seats.values_mut() {
            for side in [Side::First, Side::Second] {
                if seat.asked_by[side.index()] == Some(connection) {
                    seat.arbiter.forget_half(side);
                }
            }
        }
        let nodes = &self.nodes;
        // Half a record is remembered as long as somebody is there to hear what became of it.
        self.seats.retain(|_, seat| {
            let mut asked_by = seat.asked_by.iter().flatten();
            seat.arbiter.record().is_some()
                || seat.is_storing
                || asked_by.any(|connection| nodes.contains_key(connection))
        });
    }

    /// A record is stable, or could not be made so.
    pub(super) fn on_stored(
        &mut self,
        now: Clocks,
        key: &Key,
        is_stable: bool,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(seat) = self.seats.get_mut(key) {
            seat.is_storing = false;
            let steps = seat.step(now, ArbiterInput::Stored(is_stable));
            let before = effects.len();
            self.carry_out(now, key, steps, effects);
            self.note_told(now, &effects[before..]);
        }
    }

    fn on_asked(
        &mut self,
        now: Clocks,
        from: ConnectionId,
        asked: Asked,
        effects: &mut Vec<Effect>,
    ) {
        let Asked { resource, request } = asked;
        let Some(node) = self.nodes.get(&from) else { return };
        if request.from != node.side {
            self.dismiss(from, "a request of the other node's side", effects);
            return;
        }
        let key = Key { cluster: node.cluster.clone(), resource };
        if let Err(refused) = self.admit(from, &key, &request) {
            effects.push(Effect::Tell(from, answer(&key, request.id, Reply::Refused(refused))));
            return;
        }
        let seat = self.seats.entry(key.clone()).or_insert_with(|| Seat::new(self.id, None, now));
        seat.asked_by[request.from.index()] = Some(from);
        let steps = seat.step(now, ArbiterInput::Request(Box::new(request)));
        self.carry_out(now, &key, steps, effects);
    }

    /// Whether a request reaches its seat, which is made for it if it enrolls.
    fn admit(&self, from: ConnectionId, key: &Key, request: &Request) -> Result<(), Refused> {
        if self.damaged.contains(key) {
            return Err(Refused::DiskFailed);
        }
        let node = self.nodes.get(&from).ok_or(Refused::OtherIdentity)?;
        let seat = self.seats.get(key);
        check_identity(seat.and_then(|seat| seat.arbiter.record()), request, &node.key)?;
        if !matches!(request.operation, Operation::Enroll(_)) {
            // Whoever asks about nothing leaves nothing behind.
            return seat.map(|_| ()).ok_or_else(|| no_record(self.id, request.arbiter));
        }
        let may_enroll = |allowed: &Vec<Allowed>| {
            allowed.iter().any(|line| line.allows(&node.cluster, &node.key))
        };
        if !self.allowed.as_ref().is_none_or(may_enroll) {
            return Err(Refused::NotAllowed);
        }
        let is_enrolling =
            |seat: &&Seat| seat.arbiter.record().is_none() && seat.asked_by.contains(&Some(from));
        if seat.is_none()
            && (self.seats.len() + self.damaged.len() >= RECORDS_MAX
                || self.seats.values().filter(is_enrolling).count() >= ENROLLING_MAX)
        {
            return Err(Refused::NoRoom);
        }
        Ok(())
    }

    fn carry_out(
        &mut self,
        now: Clocks,
        key: &Key,
        steps: Vec<ArbiterEffect>,
        effects: &mut Vec<Effect>,
    ) {
        for step in steps {
            let Some(seat) = self.seats.get_mut(key) else { return };
            match step {
                ArbiterEffect::SetTimer { timer, after } => {
                    seat.timers.insert(timer, Late::new(now, after));
                }
                ArbiterEffect::Store(record) => {
                    seat.is_storing = true;
                    effects.push(Effect::Store(key.clone(), record));
                }
                ArbiterEffect::Reply { to, id, reply } => {
                    // Whoever is gone asks again.
                    if let Some(connection) = seat.asked_by[to.index()]
                        && self.nodes.contains_key(&connection)
                    {
                        effects.push(Effect::Tell(connection, answer(key, id, reply)));
                    }
                }
                ArbiterEffect::Push(record) => {
                    for (connection, node) in &self.nodes {
                        if node.cluster == key.cluster && node.speaks_in(&record) {
                            let resource = key.resource.clone();
                            let changed = Tell::Changed { resource, record: record.clone() };
                            effects.push(Effect::Tell(*connection, changed));
                        }
                    }
                }
            }
        }
    }

    /// Tells a node why, and closes.
    fn dismiss(&mut self, connection: ConnectionId, why: &str, effects: &mut Vec<Effect>) {
        effects.push(Effect::Tell(connection, Tell::Farewell(why.to_owned())));
        effects.push(Effect::Close(connection));
        self.on_gone(connection);
    }

    /// Whether a record names it.
    fn is_known(&self, node: &Node) -> bool {
        let of_cluster = Key { cluster: node.cluster.clone(), resource: String::new() };
        self.seats
            .range(of_cluster..)
            .take_while(|(key, _)| key.cluster == node.cluster)
            .filter_map(|(_, seat)| seat.arbiter.record())
            .any(|record| node.speaks_in(record))
    }
}

impl Node {
    fn is_same(&self, other: &Self) -> bool {
        (&self.cluster, self.side, self.key) == (&other.cluster, other.side, other.key)
    }

    fn speaks_in(&self, record: &ArbiterRecord) -> bool {
        record.identities[self.side.index()] == self.key
    }
}

impl Seat {
    fn new(id: ArbiterId, record: Option<ArbiterRecord>, now: Clocks) -> Self {
        let mut steps = Vec::new();
        let arbiter = Arbiter::new(id, record, &mut steps);
        let timers = steps.into_iter().filter_map(|step| match step {
            ArbiterEffect::SetTimer { timer, after } => Some((timer, Late::new(now, after))),
            ArbiterEffect::Store(_) | ArbiterEffect::Reply { .. } | ArbiterEffect::Push(_) => None,
        });
        let timers = timers.collect();
        Self { arbiter, timers, asked_by: [None; 2], is_storing: false }
    }

    /// Fires what is over, then goes one step.
    fn step(&mut self, now: Clocks, input: ArbiterInput) -> Vec<ArbiterEffect> {
        let mut steps = Vec::new();
        let over = self.timers.extract_if(.., |_, late| late.is_over(now));
        for (timer, _) in over {
            self.arbiter.step(now.boottime, ArbiterInput::Timer(timer), &mut steps);
        }
        self.arbiter.step(now.boottime, input, &mut steps);
        steps
    }
}

fn answer(key: &Key, id: RequestId, reply: Reply) -> Tell {
    Tell::Answer { resource: key.resource.clone(), id, reply }
}
