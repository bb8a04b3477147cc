//! All clients of one resource, on its data thread.

use std::collections::{BTreeMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tracing::debug;

use super::connection::{Connection, Turn};
use super::handshake::Opened;
use super::protocol::transmission::Extent;
use super::usage::{Room, Usage};
use crate::replica::{Closing, Request, RequestId, RequestResult};
use crate::units::{ByteRange, Epoch, Instant};
use crate::wire::BufferPool;

/// More time than this between two looks at the clock was not a client's fault.
const TICK_MAX: Duration = Duration::from_secs(1);

/// What a client asked. Each is answered once, in any order, by one of the `reply` functions of
/// [`Clients`].
#[derive(Clone, Debug)]
pub enum Incoming {
    /// For the core; answered by [`Clients::reply`], a read that succeeds by
    /// [`Clients::reply_data`].
    Request(Request),
    /// What is allocated; answered by [`Clients::reply_extents`], or by [`Clients::reply`] with an
    /// error.
    BlockStatus {
        /// Its name.
        id: RequestId,
        /// Where.
        range: ByteRange,
        /// One extent is enough.
        single: bool,
    },
    /// Read ahead; answered by [`Clients::reply`].
    Cache {
        /// Its name.
        id: RequestId,
        /// Where.
        range: ByteRange,
    },
}

/// All connections of one resource. Poll it in each turn of the data thread: requests last, and
/// only while the core takes them, then [`poll_flush`](Self::poll_flush) for what was answered.
#[derive(Debug)]
pub struct Clients {
    connections: BTreeMap<u64, Connection>,
    next_serial: u64,
    pool: BufferPool,
    /// The grant under which connections are taken.
    epoch: Option<Epoch>,
    /// A request was left unread for want of room.
    waits_for_room: bool,
    /// The same, since the last tick.
    was_short: bool,
    /// Something was answered since the last flush.
    answered: bool,
    last_tick: Option<Instant>,
}

impl Clients {
    /// None so far, and none are taken. Payloads arrive in buffers of `pool`.
    pub fn new(pool: BufferPool) -> Self {
        Self {
            connections: BTreeMap::new(),
            next_serial: 0,
            pool,
            epoch: None,
            waits_for_room: false,
            was_short: false,
            answered: false,
            last_tick: None,
        }
    }

    /// Takes connections that were negotiated under the grant of `epoch`.
    ///
    /// # Panics
    /// If connections of an earlier grant are left: close them first.
    pub fn open(&mut self, epoch: Epoch) {
        assert!(self.connections.is_empty() || self.epoch == Some(epoch), "one epoch at a time");
        self.epoch = Some(epoch);
    }

    /// Takes a connection; one of another epoch, or while closed, is dropped. Call it on the data
    /// thread.
    pub fn admit(&mut self, opened: Opened) {
        if self.epoch != Some(opened.epoch) {
            debug!(epoch = %opened.epoch, "client of another epoch closed");
            return;
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        match Connection::new(serial, opened) {
            Ok(connection) => {
                self.connections.insert(serial, connection);
            }
            Err(error) => debug!(%error, "client not taken"),
        }
    }

    /// Takes requests from all clients, in order of each and in turns. Ready means that there may
    /// be more at once: poll again before the thread sleeps.
    pub fn poll_requests(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut VecDeque<Incoming>,
    ) -> Poll<()> {
        let mut turn =
            Turn { pool: &self.pool, room: Room::beside(self.usage()), waits: false, out };
        let mut more = Poll::Pending;
        let mut ended = false;
        for connection in self.connections.values_mut() {
            if connection.poll_requests(cx, &mut turn).is_ready() {
                more = Poll::Ready(());
            }
            ended |= connection.is_over();
        }
        self.was_short |= turn.room.is_short;
        self.waits_for_room |= turn.waits;
        if ended {
            self.forget_ended();
        }
        more
    }

    /// Answers a request by success or failure. The grant was checked by the caller just before.
    pub fn reply(&mut self, request: RequestId, result: RequestResult) {
        if let Some(connection) = self.asker(request) {
            connection.reply(request, result);
        }
    }

    /// Answers a read; the parts of `data` lie one behind the other.
    ///
    /// # Panics
    /// If they are not as long as what was asked for.
    pub fn reply_data(&mut self, request: RequestId, data: impl IntoIterator<Item = Bytes>) {
        if let Some(connection) = self.asker(request) {
            connection.reply_data(request, data);
        }
    }

    /// Answers a `BLOCK_STATUS`: what is allocated from the start of the range on. It may say less
    /// than was asked, or more.
    ///
    /// # Panics
    /// If there are none.
    pub fn reply_extents(&mut self, request: RequestId, extents: &[Extent]) {
        if let Some(connection) = self.asker(request) {
            connection.reply_extents(request, extents);
        }
    }

    /// The client that still waits for the answer to `request`.
    fn asker(&mut self, request: RequestId) -> Option<&mut Connection> {
        self.answered = true;
        self.connections.get_mut(&Connection::serial_of(request))
    }

    /// Sends what the sockets take. Ready when all has left. What is left goes out when this is
    /// polled after the next wake-up.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut all_left = Poll::Ready(());
        let mut ended = false;
        let before = if self.waits_for_room { self.usage() } else { Usage::default() };
        for connection in self.connections.values_mut() {
            if connection.poll_flush(cx).is_pending() {
                all_left = Poll::Pending;
            }
            ended |= connection.is_over();
        }
        if self.waits_for_room && (self.answered || self.usage() != before) {
            self.waits_for_room = false;
            cx.waker().wake_by_ref();
        }
        self.answered = false;
        if ended {
            self.forget_ended();
        }
        all_left
    }

    /// Looks for clients that stall. Call it often: more than a second between two calls counts
    /// as one second.
    pub fn tick(&mut self, now: Instant) {
        let passed = self.last_tick.map_or(Duration::ZERO, |last| now.since(last)).min(TICK_MAX);
        self.last_tick = Some(now);
        let others_wait = std::mem::take(&mut self.was_short);
        for connection in self.connections.values_mut() {
            connection.on_time(passed, others_wait);
        }
        self.forget_ended();
    }

    /// Takes no connections and no requests any more. `Drained`: replies still leave, then each
    /// connection closes. `Fenced`: all are closed at once, and nothing leaves.
    pub fn close(&mut self, closing: Closing) {
        self.epoch = None;
        match closing {
            Closing::Drained => self.connections.values_mut().for_each(Connection::end),
            Closing::Fenced => self.connections.values_mut().for_each(Connection::cut),
        }
        self.forget_ended();
    }

    /// Connections that are open.
    pub fn count(&self) -> usize {
        self.connections.len()
    }

    fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.connections.values().for_each(|connection| usage.add(connection.usage()));
        usage
    }

    fn forget_ended(&mut self) {
        self.connections.retain(|_, connection| !connection.is_over());
    }
}
