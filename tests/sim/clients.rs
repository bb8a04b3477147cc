//! Clients: they connect to whichever node serves, ask, and remember what they were told.

use std::collections::BTreeMap;

use bytes::Bytes;
use fastrand::Rng;
use hotpair::replica::{Input, Request, RequestError, RequestId, RequestResult};
use hotpair::units::{Epoch, ResourceSize};

use crate::broken::{Broken, Checked};
use crate::load::{self, Ask, Spot};
use crate::net::Time;
use crate::oracle::{INITIAL, Moment, Value, ZEROED};
use crate::plan::{Load, Plan};
use crate::world::{Event, World, millis, nanos};

/// All clients and what they wait for.
#[derive(Debug)]
pub(crate) struct Clients {
    rng: Rng,
    run: u32,
    load: Load,
    spots: Vec<Spot>,
    connections: Vec<Option<Connection>>,
    /// Asked and not answered.
    open: BTreeMap<RequestId, Operation>,
    next_request: u64,
    next_value: Value,
    /// Operations that were answered with success.
    pub(crate) answered: u64,
    /// No new operations.
    pub(crate) are_quiet: bool,
}

/// A client's connection to a serving node.
#[derive(Clone, Copy, Debug)]
struct Connection {
    node: usize,
    epoch: Epoch,
    /// As the client was told.
    size: ResourceSize,
}

/// One question without an answer.
#[derive(Clone, Copy, Debug)]
struct Operation {
    client: usize,
    ask: Ask,
    value: Value,
    called: Moment,
    asked_at: Time,
}

impl Clients {
    pub(crate) fn new(plan: &Plan, run: u32, spots: Vec<Spot>, rng: Rng) -> Self {
        Self {
            rng,
            run,
            load: plan.load.clone(),
            spots,
            connections: vec![None; plan.load.clients],
            open: BTreeMap::new(),
            next_request: 1,
            next_value: INITIAL + 1,
            answered: 0,
            are_quiet: false,
        }
    }

    /// The question that waits longest, and since when.
    pub(crate) fn oldest(&self) -> Option<(RequestId, Time)> {
        self.open.iter().map(|(id, op)| (*id, op.asked_at)).min_by_key(|(_, at)| *at)
    }

    /// What was asked, while it is not answered.
    pub(crate) fn asked(&self, id: RequestId) -> Option<Ask> {
        self.open.get(&id).map(|operation| operation.ask)
    }

    /// What the writes leave that this node owes an answer. Some are in parts, and each counts by
    /// itself. A write that the other node still owes has been decided by a failover since.
    pub(crate) fn unanswered(&self, at: usize) -> impl Iterator<Item = Value> {
        let is_owed = move |operation: &&Operation| self.node_of(operation.client) == Some(at);
        self.open.values().filter(is_owed).filter_map(|operation| match operation.ask {
            Ask::Write { registers, .. } if registers.are_one_part() => Some(operation.value),
            Ask::Write { .. } | Ask::Zero { .. } | Ask::Read(_) | Ask::Flush => None,
        })
    }

    /// Whether nobody waits for this answer any more.
    pub(crate) fn is_settled(&self, id: RequestId) -> bool {
        !self.open.contains_key(&id)
    }

    /// The node that a client is connected to.
    pub(crate) fn node_of(&self, client: usize) -> Option<usize> {
        self.connections[client].map(|connection| connection.node)
    }

    fn depth(&self, client: usize) -> usize {
        self.open.values().filter(|op| op.client == client).count()
    }
}

impl World {
    /// A client connects, or asks its next question.
    pub(crate) fn on_client_turn(&mut self, client: usize) -> Checked {
        let clients = &mut self.clients;
        let pause = if clients.connections[client].is_some() {
            let mean = nanos(clients.load.pause);
            clients.rng.u64(0..=2 * mean)
        } else {
            clients.rng.u64(millis(10)..millis(150))
        };
        self.after(pause + 1_000, Event::Client(client));
        if self.clients.connections[client].is_none() {
            self.connect_client(client);
            return Ok(());
        }
        let clients = &self.clients;
        let is_done = clients.next_value > clients.load.operations_max;
        if clients.are_quiet || is_done || clients.depth(client) >= clients.load.depth_max {
            return Ok(());
        }
        self.ask(client)
    }

    fn connect_client(&mut self, client: usize) {
        let first = usize::from(self.clients.rng.bool());
        for node in [first, 1 - first] {
            let export = self.nodes[node].awake().and_then(|process| process.export);
            if let Some(epoch) = export {
                let size = self.nodes[node].size;
                self.clients.connections[client] = Some(Connection { node, epoch, size });
                return;
            }
        }
    }

    fn ask(&mut self, client: usize) -> Checked {
        let clients = &mut self.clients;
        let Some(Connection { size, .. }) = clients.connections[client] else { return Ok(()) };
        let ask = load::draw_ask(&clients.load, &clients.spots, size, &mut clients.rng);
        self.ask_this(client, ask).map(|_| ())
    }

    /// A client asks this; `None` if it is not connected.
    pub(crate) fn ask_this(
        &mut self,
        client: usize,
        mut ask: Ask,
    ) -> Result<Option<RequestId>, Broken> {
        let Some(connection) = self.clients.connections[client] else { return Ok(None) };
        let clients = &mut self.clients;
        let mut value = clients.next_value;
        if let Ask::Zero { registers, fua, .. } = ask {
            if self.ghost.claim_zeroing(registers) {
                value = ZEROED;
            } else {
                ask = Ask::Write { registers, fua };
            }
        }
        clients.next_value += 1;
        let id = RequestId(clients.next_request);
        clients.next_request += 1;
        let called = self.ghost.moment();
        if let Ask::Write { registers, .. } | Ask::Zero { registers, .. } = ask {
            self.ghost.write_called(registers, value);
        }
        let operation = Operation { client, ask, value, called, asked_at: self.now };
        self.clients.open.insert(id, operation);
        if let Some(process) = &mut self.nodes[connection.node].process {
            process.unread.push_back(id);
        }
        if self.nodes[connection.node].awake().is_some() {
            self.pump_requests(connection.node)?;
        }
        Ok(Some(id))
    }

    /// The driver reads requests while the core takes them.
    pub(crate) fn pump_requests(&mut self, at: usize) -> Checked {
        loop {
            let Some(process) = &mut self.nodes[at].process else { return Ok(()) };
            if process.export.is_none() || !process.core.accepts_requests() {
                return Ok(());
            }
            let Some(id) = process.unread.pop_front() else { return Ok(()) };
            let Some(operation) = self.clients.open.get(&id).copied() else { continue };
            let connection = self.clients.connections[operation.client];
            let Connection { epoch, size, .. } = connection.expect("who left has nothing open");
            process.admitted.insert(id, epoch);
            let stamp = load::stamp(self.clients.run, operation.client, operation.value, epoch.0);
            let kind = load::request_kind(operation.ask, stamp, size);
            let request = Request { id, kind };
            self.step(at, Input::Request { epoch, request })?;
        }
    }

    /// A client is answered.
    pub(crate) fn on_reply(
        &mut self,
        at: usize,
        id: RequestId,
        result: RequestResult,
        found: Option<Bytes>,
    ) -> Checked {
        let Some(operation) = self.clients.open.remove(&id) else { return Ok(()) };
        let Operation { ask, value, called, .. } = operation;
        match (result, ask) {
            (Ok(()), Ask::Read(registers)) => {
                let bytes = found.ok_or_else(|| {
                    Broken::new("OneReply", format!("{id:?}: a read is answered before it is done"))
                })?;
                let values = self.ghost.read_answered(registers, called, &bytes)?;
                self.check_stands(at, &values)?;
            }
            (Ok(()), Ask::Write { registers, fua } | Ask::Zero { registers, fua, .. }) => {
                self.ghost.write_answered(registers, value, fua);
            }
            (Ok(()), Ask::Flush) => self.ghost.flush_answered(called),
            (Err(RequestError::NotFast), Ask::Zero { registers, fast_only: true, .. }) => {
                self.ghost.write_refused(registers, value);
            }
            (Err(error), ask) => return self.on_error_reply(error, ask, value),
        }
        self.clients.answered += 1;
        Ok(())
    }

    fn on_error_reply(&mut self, error: RequestError, ask: Ask, value: Value) -> Checked {
        let faults = &self.plan.faults;
        let is_allowed = match error {
            RequestError::NoSpace => faults.no_space.is_some(),
            RequestError::Io => {
                faults.disk_error.is_some()
                    || faults.sync_error.is_some()
                    || faults.metadata_error.is_some()
            }
            RequestError::NotFast => false,
        };
        self.marks.add(match error {
            RequestError::NoSpace => "client is told: no space",
            RequestError::Io => "client is told: failed",
            RequestError::NotFast => "client is told: not fast",
        });
        if !is_allowed {
            let detail = format!("{ask:?} is answered {error:?}, no fault explains it");
            return Err(Broken::new("HonestErrors", detail));
        }
        if let Ask::Write { registers, .. } | Ask::Zero { registers, .. } = ask {
            self.ghost.write_abandoned(registers, value);
        }
        Ok(())
    }

    /// Every client of a node loses its connection. What it had not read was never begun.
    pub(crate) fn disconnect_clients(&mut self, at: usize) {
        let is_here = |connection: &Option<Connection>| connection.is_some_and(|it| it.node == at);
        let gone: Vec<usize> = (0..self.clients.connections.len())
            .filter(|client| is_here(&self.clients.connections[*client]))
            .collect();
        for client in gone {
            self.disconnect_client(client);
        }
    }

    /// A client's connection ends: its questions stay without an answer.
    pub(crate) fn disconnect_client(&mut self, client: usize) {
        let Some(connection) = self.clients.connections[client].take() else { return };
        let mine: Vec<RequestId> = self
            .clients
            .open
            .iter()
            .filter(|(_, op)| op.client == client)
            .map(|(id, _)| *id)
            .collect();
        for id in mine {
            let Some(operation) = self.clients.open.remove(&id) else { continue };
            let process = self.nodes[connection.node].process.as_mut();
            let was_read = process.is_none_or(|process| {
                let before = process.unread.len();
                process.unread.retain(|unread| *unread != id);
                before == process.unread.len()
            });
            if let Ask::Write { registers, .. } | Ask::Zero { registers, .. } = operation.ask {
                if was_read {
                    self.ghost.write_abandoned(registers, operation.value);
                } else {
                    self.ghost.write_refused(registers, operation.value);
                }
            }
        }
    }

    /// A client that leaves by itself.
    pub(crate) fn client_leaves(&mut self) {
        let count = self.clients.connections.len();
        let client = self.clients.rng.usize(..count);
        self.disconnect_client(client);
    }
}
