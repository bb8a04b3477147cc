//! One connection to the peer, as its data thread sees it: frames in, frames out.
//!
//! It never waits and holds no task of its own; whoever owns it polls it. It does not know what
//! frames mean. The first error is the last thing that it says.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use socket2::SockRef;
use tokio::sync::oneshot;

use super::error::LinkError;
use super::inbox::Inbox;
use super::outbox::{self, Outbox, Queued, SLICES_MAX};
use super::security::Proof;
use super::transport::{Detached, Transport};
use crate::units::{RESOURCE_LEN_MAX, ResourceSize};
use crate::wire::frame;
use crate::wire::message::Frame;
use crate::wire::payload::{BufferPool, PoolLimits};
use crate::wire::{Kind, ProtocolError};

/// A connection to the peer. Dropping it closes it at once; [`poll_close`](Self::poll_close)
/// sends what waits first.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    inbox: Inbox,
    outbox: Outbox,
    counters: Counters,
    /// Says the connection's end to who dialled it.
    end: End,
    /// The peer's first frame, where somebody else had to look at it first.
    hello: Option<Frame>,
    /// What the next poll reports: an error that came behind whole frames.
    failure: Option<LinkError>,
    /// As `failure`, from a `send`.
    stalled: Option<LinkError>,
    closing: Closing,
}

/// What went over a connection so far. Lanes are in order: control, client, resync.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Bytes received, without what TLS adds.
    pub bytes_in: u64,
    /// Bytes sent, without what TLS adds.
    pub bytes_out: u64,
    /// Whole frames received.
    pub frames_in: u64,
    /// Frames sent, at least in part.
    pub frames_out: u64,
    /// Payload bytes of the frames received, by lane.
    pub payload_in: [u64; 3],
    /// Payload bytes of the frames sent, by lane.
    pub payload_out: [u64; 3],
    /// Rules broken by the peer; one is enough to end the connection.
    pub protocol_errors: u64,
}

/// How far a farewell got.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Closing {
    No,
    /// Our last words are on their way.
    Saying,
    /// Everything is said; the other end has not closed yet.
    Said,
}

/// Most that one poll takes in: the other sources of a data thread wait meanwhile.
#[derive(Clone, Copy)]
struct Budget {
    frames: usize,
    bytes: usize,
}

const TURN: Budget = Budget { frames: 256, bytes: 1 << 20 };

impl Connection {
    pub(super) fn new(transport: Transport, end: End) -> Self {
        // Only a Hello is read before the pool and the size are known, and it needs neither.
        let pool = BufferPool::new(PoolLimits { small: 0, medium: 0, large: 0 });
        let size = ResourceSize::new(RESOURCE_LEN_MAX).expect("the greatest one");
        Self {
            transport,
            inbox: Inbox::new(pool, size),
            outbox: Outbox::default(),
            counters: Counters::default(),
            end,
            hello: None,
            failure: None,
            stalled: None,
            closing: Closing::No,
        }
    }

    /// Adds the frames that are there to `frames`, up to about 1 MiB of them.
    ///
    /// Ready means that there was at least one; there may be more, so poll again before waiting.
    ///
    /// # Errors
    /// When the connection cannot be used any more. Frames that came whole before are handed over
    /// first.
    pub fn poll_frames(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut Vec<Frame>,
    ) -> Poll<Result<(), LinkError>> {
        if let Some(error) = self.stalled.take() {
            return Poll::Ready(Err(error));
        }
        let already = frames.len();
        frames.extend(self.hello.take());
        if self.failure.is_none()
            && let Poll::Ready(Err(error)) = self.poll_take(cx, TURN, frames)
        {
            self.failure = Some(error);
        }
        if frames.len() > already {
            return Poll::Ready(Ok(()));
        }
        match self.failure.take() {
            Some(error) => Poll::Ready(Err(error)),
            None => Poll::Pending,
        }
    }

    /// Takes frames until `budget` is used up (ready) or nothing more is there (pending).
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        budget: Budget,
        frames: &mut Vec<Frame>,
    ) -> Poll<Result<(), LinkError>> {
        let frames_max = frames.len() + budget.frames;
        let bytes_max = self.counters.bytes_in.saturating_add(wide(budget.bytes));
        loop {
            while let Some(frame) = self.inbox.next().map_err(|error| {
                self.counters.protocol_errors += 1;
                LinkError::Protocol(error)
            })? {
                self.counters.frames_in += 1;
                self.counters.payload_in[outbox::index(frame.message.lane())] +=
                    wide(payload_len(&frame));
                self.end.report.heard = true;
                frames.push(frame);
                if frames.len() >= frames_max {
                    return Poll::Ready(Ok(()));
                }
            }
            if self.counters.bytes_in >= bytes_max {
                // Nothing else would wake the task for what the socket still holds.
                cx.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
            let read = self.transport.poll_read(cx, &mut self.inbox.room());
            let len = ready!(read).map_err(|error| self.failed("read from", error))?;
            if len == 0 {
                return Poll::Ready(Err(self.closed()));
            }
            self.inbox.filled(len);
            self.counters.bytes_in += wide(len);
        }
    }

    /// Waits for one frame, which has to be a Hello. What came behind it stays for later.
    pub(super) async fn hello(&mut self) -> Result<Frame, LinkError> {
        std::future::poll_fn(|cx| self.poll_hello(cx)).await
    }

    fn poll_hello(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, LinkError>> {
        loop {
            let kind = self.inbox.next_kind().map_err(LinkError::Protocol)?;
            if kind.is_some_and(|kind| kind != Kind::Hello) {
                return Poll::Ready(Err(LinkError::NotHello));
            }
            if let Some(frame) = self.inbox.next().map_err(LinkError::Protocol)? {
                self.counters.frames_in += 1;
                self.end.report.heard = true;
                return Poll::Ready(Ok(frame));
            }
            let read = self.transport.poll_read(cx, &mut self.inbox.room());
            let len = ready!(read).map_err(|error| self.failed("read from", error))?;
            if len == 0 {
                return Poll::Ready(Err(LinkError::Closed));
            }
            self.inbox.filled(len);
            self.counters.bytes_in += wide(len);
        }
    }

    /// Queues `frame` behind those of its lane; nothing is sent before
    /// [`poll_flush`](Self::poll_flush). If more waits than a peer that reads can leave, the
    /// connection ends with the next poll.
    pub fn send(&mut self, frame: &Frame) {
        let lane = frame.message.lane();
        let encoded = frame::encode(frame);
        let queued = Queued { head: Bytes::from(encoded.head), payload: encoded.payload };
        if let Err(error) = self.outbox.push(lane, queued) {
            self.counters.protocol_errors += 1;
            self.stalled.get_or_insert(error);
        }
    }

    /// Sends what waits, until there is nothing (ready) or the network takes no more (pending).
    /// A good time is after each turn's last [`send`](Self::send).
    ///
    /// # Errors
    /// When the connection cannot be used any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), LinkError>> {
        if let Some(error) = self.stalled.take() {
            return Poll::Ready(Err(error));
        }
        loop {
            let Self { outbox, counters, .. } = self;
            outbox.choose(|lane, payload_len| {
                counters.frames_out += 1;
                counters.payload_out[outbox::index(lane)] += wide(payload_len);
            });
            let mut room = [IoSlice::new(&[]); SLICES_MAX];
            let count = self.outbox.slices(&mut room);
            if count == 0 {
                break;
            }
            let written = ready!(self.transport.poll_write(cx, &room[..count]));
            let len = written.map_err(|error| self.failed("write to", error))?;
            self.outbox.advance(len);
            self.counters.bytes_out += wide(len);
        }
        let flushed = ready!(self.transport.poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| self.failed("write to", error)))
    }

    /// Sends what waits, says that nothing follows, and is ready when the other end has closed,
    /// too. What it still says is dropped. The owner has to give up after a while by dropping the
    /// connection.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing == Closing::No {
            if ready!(self.poll_flush(cx)).is_err() {
                return Poll::Ready(());
            }
            self.transport.say_goodbye();
            self.closing = Closing::Saying;
        }
        if self.closing == Closing::Saying {
            let said = ready!(self.transport.poll_flush(cx));
            let shut =
                || SockRef::from(self.transport.socket()).shutdown(std::net::Shutdown::Write);
            if said.and_then(|()| shut()).is_err() {
                return Poll::Ready(());
            }
            self.closing = Closing::Said;
        }
        // Closing while bytes are unread would throw away what the other end has not read yet.
        let mut dropped = [0; 4096];
        loop {
            let mut room = [io::IoSliceMut::new(&mut dropped)];
            match ready!(self.transport.poll_read(cx, &mut room)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Bytes that wait to be sent.
    pub fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes()
    }

    /// What went over it so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// From the next frame on, ranges must lie inside `size`: the resource has grown.
    pub fn set_size(&mut self, size: ResourceSize) {
        self.inbox.set_size(size);
    }

    /// Whoever dialled waits at least 10 s before the next attempt, which would end the same way.
    pub fn back_off(&mut self) {
        self.end.report.back_off = true;
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// If it is gone.
    pub fn remote(&self) -> io::Result<SocketAddr> {
        self.transport.socket().peer_addr()
    }

    /// The other end closed. What speaks something else, as TLS, may have said too little of it for
    /// a header.
    fn closed(&mut self) -> LinkError {
        match self.inbox.foreign_start() {
            Some(found) if self.counters.frames_in == 0 => {
                self.counters.protocol_errors += 1;
                LinkError::Protocol(ProtocolError::BadMagic { found })
            }
            Some(_) | None => LinkError::Closed,
        }
    }

    fn failed(&mut self, action: &'static str, source: io::Error) -> LinkError {
        let error = LinkError::of_io(action, source);
        if error.is_protocol_error() {
            self.counters.protocol_errors += 1;
        }
        error
    }
}

fn payload_len(frame: &Frame) -> usize {
    use crate::wire::message::Message;
    match &frame.message {
        Message::Write(write) => write.payload.len(),
        Message::ChunkData(data) => data.payload.len(),
        Message::MapPart(part) => part.pages.len(),
        _ => 0,
    }
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits 64 bits")
}

/// A connection on its way from the runtime that made it to the data thread of its resource.
#[derive(Debug)]
pub struct Handover {
    /// Key material that only the two ends of this connection know; zeroes without TLS.
    pub exporter: [u8; 32],
    /// The node whose key the other end proved; `None` without TLS.
    pub peer: Option<String>,
    /// Address of the other end.
    pub remote: SocketAddr,
    transport: Detached,
    inbox: Inbox,
    hello: Option<Frame>,
    counters: Counters,
    end: End,
}

impl Handover {
    /// Takes a connection out of its runtime, with the `hello` that was read from it.
    pub(super) fn new(
        connection: Connection,
        proof: Proof,
        hello: Option<Frame>,
    ) -> io::Result<Self> {
        let remote = connection.remote()?;
        let Connection { transport, inbox, counters, end, .. } = connection;
        let transport = transport.detach()?;
        let Proof { exporter, peer } = proof;
        Ok(Self { exporter, peer, remote, transport, inbox, hello, counters, end })
    }

    /// Goes on in the runtime that this is called in: payloads go into buffers of `pool`, ranges
    /// must lie inside `size`. A Hello that was read already is the first frame.
    ///
    /// # Errors
    /// If the kernel refuses to watch one more socket.
    pub fn attach(self, pool: BufferPool, size: ResourceSize) -> io::Result<Connection> {
        let mut connection = Connection::new(self.transport.attach()?, self.end);
        connection.inbox = self.inbox;
        connection.inbox.adopt(pool, size);
        connection.hello = self.hello;
        connection.counters = self.counters;
        Ok(connection)
    }
}

/// How a connection ended, for who dialled it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct EndReport {
    /// A frame came from the peer.
    pub(super) heard: bool,
    /// The next attempt is not to come soon.
    pub(super) back_off: bool,
}

/// Reports the end of a connection when dropped with it.
#[derive(Debug, Default)]
pub(super) struct End {
    report: EndReport,
    listener: Option<oneshot::Sender<EndReport>>,
}

impl End {
    /// One that somebody waits for.
    pub(super) fn watched() -> (Self, oneshot::Receiver<EndReport>) {
        let (sender, receiver) = oneshot::channel();
        (Self { report: EndReport::default(), listener: Some(sender) }, receiver)
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            // Nobody waits any more: the daemon stops.
            let _ = listener.send(self.report);
        }
    }
}
