//! An export without a resource behind it: the real NBD server, answered from memory.
//!
//! It runs on one thread of its own, in turns like a data thread. Tests can withhold answers,
//! let time pass for the server alone, and close the export in both ways.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use hotpair::config;
use hotpair::nbd::{Clients, Export, Extent, Incoming, Listener, Opened};
use hotpair::replica::{Closing, Request, RequestError, RequestId, RequestKind};
use hotpair::units::{ByteRange, Epoch, Instant, ResourceSize, ZeroKind};
use hotpair::wire::payload::{BufferPool, PoolLimits};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};

/// Unit of allocation of the memory, in bytes.
pub(crate) const CELL_LEN: u64 = 64 << 10;

/// A running server; it ends when this is dropped.
pub(crate) struct MemoryServer {
    folder: TempDir,
    tcp: Option<SocketAddr>,
    orders: mpsc::Sender<Order>,
    thread: Option<JoinHandle<()>>,
}

/// What the server tells of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Open connections.
    pub(crate) clients: usize,
    /// Requests that were not answered yet.
    pub(crate) withheld: usize,
    /// Writes among them.
    pub(crate) withheld_writes: usize,
    /// Flushes and writes with FUA that were answered since the start.
    pub(crate) synced: usize,
    /// Bytes asked to be read ahead.
    pub(crate) cached_bytes: u64,
}

enum Order {
    /// From now on, answer nothing (true), or all, in reverse order (false).
    Withhold(bool),
    /// Let the server believe that a second passed.
    PassSecond,
    Close(Closing),
    /// Offer no export any more, but listen.
    ShutDown,
    /// Serve the next epoch on a new listener.
    Reopen,
    /// Zeroing is slow from now on.
    SlowZero,
    /// Everything from this byte on is unreadable, and there is no space for it.
    FailFrom(u64),
    Tell(oneshot::Sender<Seen>),
}

impl MemoryServer {
    /// Serves `len` bytes of zeroes as `vm1` on a unix socket.
    pub(crate) fn start(len: u64) -> Self {
        Self::start_at(len, false)
    }

    /// The same on a TCP port that the system chooses.
    pub(crate) fn start_tcp(len: u64) -> Self {
        Self::start_at(len, true)
    }

    fn start_at(len: u64, tcp: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let address = if tcp {
            config::Export::Tcp("127.0.0.1:0".parse().unwrap())
        } else {
            config::Export::Unix(folder.path().join("vm1.nbd"))
        };
        let (orders, ordered) = mpsc::channel(16);
        let (ready, started) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let mut server = Server::new(len, address, ordered);
                ready.send(server.listener.as_ref().and_then(Listener::tcp_address)).unwrap();
                std::future::poll_fn(|cx| server.poll(cx)).await;
            });
        });
        let tcp = started.recv().unwrap();
        Self { folder, tcp, orders, thread: Some(thread) }
    }

    /// Path of the unix socket.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("vm1.nbd")
    }

    /// The TCP address, if it has one.
    pub(crate) fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// How clients name the export.
    pub(crate) fn uri(&self) -> String {
        match self.tcp {
            Some(address) => format!("nbd://{address}/vm1"),
            None => format!("nbd+unix:///vm1?socket={}", self.path().display()),
        }
    }

    /// Answers nothing until [`release`](Self::release).
    pub(crate) fn withhold(&self) {
        self.order(Order::Withhold(true));
    }

    /// Answers what was withheld, the last one first.
    pub(crate) fn release(&self) {
        self.order(Order::Withhold(false));
    }

    /// Lets the server believe that so many seconds passed.
    pub(crate) fn pass_seconds(&self, seconds: u32) {
        for _ in 0..seconds {
            self.order(Order::PassSecond);
            // An answer proves that a turn was made in between.
            self.seen();
        }
    }

    /// Closes the export.
    pub(crate) fn close(&self, closing: Closing) {
        self.order(Order::Close(closing));
    }

    /// Opens no further export, as before a stop.
    pub(crate) fn shut_down(&self) {
        self.order(Order::ShutDown);
    }

    /// Serves the next epoch.
    pub(crate) fn reopen(&self) {
        self.order(Order::Reopen);
    }

    /// Zeroing is slow from here on.
    pub(crate) fn make_zeroing_slow(&self) {
        self.order(Order::SlowZero);
    }

    /// Reads fail, and writes find no space, from `offset` on.
    pub(crate) fn fail_from(&self, offset: u64) {
        self.order(Order::FailFrom(offset));
    }

    /// What the server says of itself.
    pub(crate) fn seen(&self) -> Seen {
        let (tell, told) = oneshot::channel();
        self.order(Order::Tell(tell));
        told.blocking_recv().unwrap()
    }

    /// Asks until what the server says of itself is as expected.
    pub(crate) fn wait_until(&self, mut holds: impl FnMut(Seen) -> bool) -> Seen {
        loop {
            let seen = self.seen();
            if holds(seen) {
                return seen;
            }
            std::thread::yield_now();
        }
    }

    fn order(&self, order: Order) {
        self.orders.blocking_send(order).unwrap();
    }
}

impl Drop for MemoryServer {
    fn drop(&mut self) {
        let (orders, _) = mpsc::channel(1);
        self.orders = orders;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server panicked");
        }
    }
}

/// What runs on the server's thread.
struct Server {
    address: config::Export,
    listener: Option<Listener>,
    clients: Clients,
    opened: mpsc::Receiver<Opened>,
    ordered: mpsc::Receiver<Order>,
    incoming: VecDeque<Incoming>,
    withheld: Option<Vec<Incoming>>,
    memory: Memory,
    now: Instant,
    epoch: Epoch,
    synced: usize,
    cached_bytes: u64,
}

impl Server {
    fn new(len: u64, address: config::Export, ordered: mpsc::Receiver<Order>) -> Self {
        let (_, opened) = mpsc::channel(1);
        let mut server = Self {
            address,
            listener: None,
            clients: Clients::new(BufferPool::new(PoolLimits::default())),
            opened,
            ordered,
            incoming: VecDeque::new(),
            withheld: None,
            memory: Memory::new(ResourceSize::new(len).unwrap()),
            now: Instant(0),
            epoch: Epoch(0),
            synced: 0,
            cached_bytes: 0,
        };
        server.open();
        server
    }

    fn open(&mut self) {
        self.listener = None;
        self.epoch = Epoch(self.epoch.0 + 4);
        let (clients, opened) = mpsc::channel(64);
        let listener = Listener::bind(&self.address).unwrap();
        listener.offer(Export::new("vm1", self.memory.size, self.epoch, clients));
        self.clients.open(self.epoch);
        self.opened = opened;
        self.listener = Some(listener);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut again = false;
            match self.ordered.poll_recv(cx) {
                Poll::Ready(Some(order)) => {
                    self.carry_out(order);
                    again = true;
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            while let Poll::Ready(Some(opened)) = self.opened.poll_recv(cx) {
                self.clients.admit(opened);
            }
            again |= self.clients.poll_requests(cx, &mut self.incoming).is_ready();
            while let Some(incoming) = self.incoming.pop_front() {
                match &mut self.withheld {
                    Some(withheld) => withheld.push(incoming),
                    None => self.answer(incoming),
                }
            }
            let _ = self.clients.poll_flush(cx);
            if !again {
                return Poll::Pending;
            }
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Withhold(true) => self.withheld = Some(Vec::new()),
            Order::Withhold(false) => {
                let withheld = self.withheld.take().unwrap_or_default();
                withheld.into_iter().rev().for_each(|incoming| self.answer(incoming));
            }
            Order::PassSecond => {
                self.now = self.now.plus(Duration::from_secs(1));
                self.clients.tick(self.now);
            }
            Order::Close(closing) => {
                self.listener = None;
                self.clients.close(closing);
            }
            Order::ShutDown => self.listener.as_ref().unwrap().shut_down(),
            Order::Reopen => self.open(),
            Order::SlowZero => self.memory.zeroes_fast = false,
            Order::FailFrom(offset) => self.memory.fails_from = offset,
            Order::Tell(tell) => {
                let withheld = self.withheld.as_deref().unwrap_or_default();
                let is_write = |incoming: &&Incoming| {
                    matches!(incoming, Incoming::Request(request)
                        if matches!(request.kind, RequestKind::Write { .. }))
                };
                let _ = tell.send(Seen {
                    clients: self.clients.count(),
                    withheld: withheld.len(),
                    withheld_writes: withheld.iter().filter(is_write).count(),
                    synced: self.synced,
                    cached_bytes: self.cached_bytes,
                });
            }
        }
    }

    fn answer(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Request(request) => self.answer_request(request),
            Incoming::BlockStatus { id, range, .. } => {
                self.clients.reply_extents(id, &self.memory.extents(range));
            }
            Incoming::Cache { id, range } => {
                self.cached_bytes += range.len();
                self.clients.reply(id, Ok(()));
            }
        }
    }

    fn answer_request(&mut self, Request { id, kind }: Request) {
        let fails = |range: &ByteRange| range.end() > self.memory.fails_from;
        let result = match kind {
            RequestKind::Read { range } if fails(&range) => Err(RequestError::Io),
            RequestKind::Read { range } => return self.read(id, range),
            RequestKind::Write { range, .. } if fails(&range) => Err(RequestError::NoSpace),
            RequestKind::Write { range, parts, fua } => {
                let mut at = range.start();
                for part in &parts {
                    assert!(part.len() <= 1 << 20, "a part is at most 1 MiB");
                    assert!(at == range.start() || at.is_multiple_of(1 << 20));
                    self.memory.write(at, part.bytes());
                    at += u64::try_from(part.len()).unwrap();
                }
                assert_eq!(at, range.end());
                self.synced += usize::from(fua);
                Ok(())
            }
            RequestKind::Zero { fast_only: true, .. } if !self.memory.zeroes_fast => {
                Err(RequestError::NotFast)
            }
            RequestKind::Zero { range, kind, fua, .. } => {
                self.memory.zero(range, kind);
                self.synced += usize::from(fua);
                Ok(())
            }
            RequestKind::Flush => {
                self.synced += 1;
                Ok(())
            }
        };
        self.clients.reply(id, result);
    }

    fn read(&mut self, id: RequestId, range: ByteRange) {
        let parts: Vec<_> = range.parts(1 << 20).map(|part| self.memory.read(part)).collect();
        self.clients.reply_data(id, parts);
    }
}

/// Sparse memory.
struct Memory {
    size: ResourceSize,
    cells: BTreeMap<u64, Box<[u8]>>,
    zeroes_fast: bool,
    fails_from: u64,
}

impl Memory {
    fn new(size: ResourceSize) -> Self {
        Self { size, cells: BTreeMap::new(), zeroes_fast: true, fails_from: u64::MAX }
    }

    fn read(&self, range: ByteRange) -> Bytes {
        let mut bytes = Vec::new();
        for part in range.parts(CELL_LEN) {
            let (from, len) = within_cell(part.start(), part.len());
            match self.cells.get(&(part.start() / CELL_LEN)) {
                Some(cell) => bytes.extend_from_slice(&cell[from..from + len]),
                None => bytes.resize(bytes.len() + len, 0),
            }
        }
        bytes.into()
    }

    fn write(&mut self, start: u64, bytes: &[u8]) {
        let len = u64::try_from(bytes.len()).unwrap();
        let mut bytes = bytes;
        for part in ByteRange::new(start, len, self.size).unwrap().parts(CELL_LEN) {
            let (from, len) = within_cell(part.start(), part.len());
            let cell = self.cell(part.start() / CELL_LEN);
            cell[from..from + len].copy_from_slice(&bytes[..len]);
            bytes = &bytes[len..];
        }
    }

    fn zero(&mut self, range: ByteRange, kind: ZeroKind) {
        for part in range.parts(CELL_LEN) {
            let (from, len) = within_cell(part.start(), part.len());
            let index = part.start() / CELL_LEN;
            if kind == ZeroKind::Keep {
                self.cell(index)[from..from + len].fill(0);
            } else if part.len() == CELL_LEN {
                self.cells.remove(&index);
            } else if let Some(cell) = self.cells.get_mut(&index) {
                cell[from..from + len].fill(0);
            }
        }
    }

    fn cell(&mut self, index: u64) -> &mut [u8] {
        let len = usize::try_from(CELL_LEN).unwrap();
        self.cells.entry(index).or_insert_with(|| vec![0; len].into_boxed_slice())
    }

    fn extents(&self, range: ByteRange) -> Vec<Extent> {
        let is_hole = |start: u64| !self.cells.contains_key(&(start / CELL_LEN));
        range
            .parts(CELL_LEN)
            .map(|part| Extent { len: part.len(), is_hole: is_hole(part.start()) })
            .collect()
    }
}

fn within_cell(start: u64, len: u64) -> (usize, usize) {
    (usize::try_from(start % CELL_LEN).unwrap(), usize::try_from(len).unwrap())
}
