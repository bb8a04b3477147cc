//! One client in transmission: requests in, replies out, nothing decided.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use super::clients::Incoming;
use super::handshake::Opened;
use super::inbound::{Arriving, Inbound, Progress, part_count};
use super::outbound::Outbound;
use super::protocol::option::BASE_ALLOCATION_ID;
use super::protocol::transmission::{
    Command, EXTENT_COUNT_MAX, ErrorCode, Extent, Fault, REQUEST_LEN, RequestHeader, StatusAsked,
    put_block_status, put_data_chunk, put_error_chunk, put_none_chunk, put_simple_reply,
};
use super::protocol::{PAYLOAD_LEN_MAX, Terms};
use super::socket::{self, Socket};
use super::usage::{Room, Usage};
use crate::replica::{
    Request, RequestError, RequestId, RequestKind, RequestResult, ZERO_PART_LEN_MAX,
};
use crate::units::ByteRange;
use crate::wire::BufferPool;

/// Most requests in flight on one connection.
pub(super) const IN_FLIGHT_MAX: usize = 1024;
/// A client that takes none of its replies, or sends none of a payload that others wait for, is
/// closed after this time.
pub(super) const STALL_MAX: Duration = Duration::from_secs(30);
/// Requests taken from one connection before others have their turn.
const TURN_REQUESTS_MAX: usize = 64;
/// Bytes read from one connection before others have their turn.
const TURN_BYTES_MAX: usize = 2 << 20;
/// Bits of a [`RequestId`] that number the requests of one connection.
const SLOT_BITS: u32 = IN_FLIGHT_MAX.trailing_zeros();
const EXTENTS_MAX: u64 = EXTENT_COUNT_MAX as u64;

/// What a turn of reading shares between connections.
pub(super) struct Turn<'a> {
    pub(super) pool: &'a BufferPool,
    pub(super) room: Room,
    /// A connection stopped although it had more: a reply must leave first.
    pub(super) waits: bool,
    pub(super) out: &'a mut VecDeque<Incoming>,
}

/// One client.
#[derive(Debug)]
pub(super) struct Connection {
    serial: u64,
    socket: Socket,
    terms: Terms,
    inbound: Inbound,
    receiving: Receiving,
    asked: Slots,
    outbound: Outbound,
    usage: Usage,
    state: State,
    read_stall: Stall,
    write_stall: Stall,
    _seat: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Receiving {
    /// A header is next.
    Header,
    /// The payload of a valid write.
    Payload { cookie: u64, range: ByteRange, fua: bool, arriving: Arriving },
    /// The payload of a refused write.
    Refused { cookie: u64, left: usize, fault: Fault },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Open,
    /// No further request is read; what is under way is answered.
    Ending,
    /// Nothing more passes in either direction; what is under way still occupies the disk.
    Gone,
    /// The same, and nobody waits for what is under way: it will not be answered.
    Over,
}

/// A request that was not answered yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    cookie: u64,
    kind: AskedKind,
}

#[derive(Clone, Copy, Debug)]
enum AskedKind {
    /// Answered by success or failure alone.
    Plain {
        usage: Usage,
    },
    Read {
        range: ByteRange,
    },
    Status {
        range: ByteRange,
        single: bool,
    },
}

/// How far the bytes at hand go.
enum Taken {
    /// Another read may bring a request.
    NeedsBytes,
    /// A reply must leave first, or room must be made.
    Waits,
    /// Others have their turn.
    TurnEnds,
    /// No more requests are read.
    Ended,
}

impl Connection {
    /// Takes over a negotiated connection. Call it on the data thread.
    ///
    /// # Errors
    /// The socket cannot be watched.
    pub(super) fn new(serial: u64, opened: Opened) -> io::Result<Self> {
        Ok(Self {
            serial,
            socket: Socket::watch(opened.socket)?,
            terms: opened.terms,
            inbound: Inbound::new(&opened.early),
            receiving: Receiving::Header,
            asked: Slots::default(),
            outbound: Outbound::default(),
            usage: Usage::default(),
            state: State::Open,
            read_stall: Stall::default(),
            write_stall: Stall::default(),
            _seat: opened.seat,
        })
    }

    /// The connection that `request` came from, by its serial number.
    pub(super) fn serial_of(request: RequestId) -> u64 {
        request.0 >> SLOT_BITS
    }

    /// What it occupies.
    pub(super) fn usage(&self) -> Usage {
        self.usage.plus_unsent(self.outbound.len())
    }

    /// Whether it can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        match self.state {
            State::Open => false,
            State::Ending => self.asked.is_empty() && self.outbound.is_empty(),
            State::Gone => self.asked.is_empty(),
            State::Over => true,
        }
    }

    /// Reads no further request; answers what is under way, then closes.
    pub(super) fn end(&mut self) {
        if self.state == State::Open {
            self.state = State::Ending;
            self.drop_payload();
        }
    }

    /// Lets nothing more pass, and forgets what is under way.
    pub(super) fn cut(&mut self) {
        self.state = State::Over;
        self.socket.shut_down();
    }

    /// Lets nothing more pass. What the client asked for cannot be called back, so its share stays
    /// occupied until that has ended: else whoever breaks off again and again gets ever more.
    fn leave(&mut self) {
        if !matches!(self.state, State::Open | State::Ending) {
            return;
        }
        self.state = State::Gone;
        self.socket.shut_down();
        self.drop_payload();
        self.outbound = Outbound::default();
    }

    /// Takes requests until the socket is empty, room is missing or others must have their turn.
    /// Ready means that there may be more at once.
    pub(super) fn poll_requests(&mut self, cx: &mut Context<'_>, turn: &mut Turn<'_>) -> Poll<()> {
        let mut bytes_left = TURN_BYTES_MAX;
        let out_max = turn.out.len() + TURN_REQUESTS_MAX;
        loop {
            match self.take_requests(turn, out_max) {
                Taken::NeedsBytes => {}
                Taken::TurnEnds => return Poll::Ready(()),
                Taken::Waits => {
                    turn.waits = true;
                    return Poll::Pending;
                }
                Taken::Ended => return Poll::Pending,
            }
            if bytes_left == 0 {
                return Poll::Ready(());
            }
            match ready!(self.poll_fill(cx, turn.pool)) {
                Ok(0) => self.on_end_of_stream(),
                Ok(count) => bytes_left = bytes_left.saturating_sub(count),
                Err(error) => self.fail(&error),
            }
        }
    }

    fn take_requests(&mut self, turn: &mut Turn<'_>, out_max: usize) -> Taken {
        loop {
            if self.state != State::Open {
                return Taken::Ended;
            }
            let goes_on = match self.receiving {
                Receiving::Header => {
                    if turn.out.len() >= out_max {
                        return Taken::TurnEnds;
                    }
                    match self.take_header(turn) {
                        Ok(goes_on) => goes_on,
                        Err(Waits) => return Taken::Waits,
                    }
                }
                Receiving::Payload { .. } => self.take_payload(turn),
                Receiving::Refused { .. } => self.take_refused(),
            };
            if !goes_on {
                return Taken::NeedsBytes;
            }
        }
    }

    /// Takes a header. False if it is not there yet.
    fn take_header(&mut self, turn: &mut Turn<'_>) -> Result<bool, Waits> {
        let Some(bytes) = self.inbound.peek::<REQUEST_LEN>() else {
            return Ok(false);
        };
        let Some(header) = RequestHeader::decode(bytes) else {
            self.violated("wrong magic number of a request");
            return Ok(true);
        };
        if header.payload_len() > PAYLOAD_LEN_MAX {
            self.violated("payload above 32 MiB");
            return Ok(true);
        }
        let checked = header.check(&self.terms);
        let usage = match &checked {
            Ok(Some(command)) => usage_of(command),
            Ok(None) | Err(_) => Usage::default(),
        };
        if self.asked.is_full() || !turn.room.admits(self.usage(), usage) {
            return Err(Waits);
        }
        self.inbound.take(REQUEST_LEN);
        match checked {
            Ok(Some(command)) => {
                turn.room.take(usage);
                self.usage.add(usage);
                self.on_command(header.cookie, command, usage, turn);
            }
            Ok(None) => self.put_success(header.cookie, header.is_read()),
            Err(fault) if header.payload_len() > 0 => {
                let left = usize::try_from(header.payload_len()).expect("32 MiB at most");
                self.receiving = Receiving::Refused { cookie: header.cookie, left, fault };
            }
            Err(fault) => self.put_fault(header.cookie, &fault),
        }
        Ok(true)
    }

    fn on_command(&mut self, cookie: u64, command: Command, usage: Usage, turn: &mut Turn<'_>) {
        let plain = AskedKind::Plain { usage };
        let (asked, kind) = match command {
            Command::Disconnect => return self.end(),
            Command::Write { range, fua } => {
                let arriving = Arriving::new(range);
                self.receiving = Receiving::Payload { cookie, range, fua, arriving };
                return;
            }
            Command::Read { range } => (AskedKind::Read { range }, RequestKind::Read { range }),
            Command::Zero { range, kind, fua, fast_only } => {
                (plain, RequestKind::Zero { range, kind, fua, fast_only })
            }
            Command::Flush => (plain, RequestKind::Flush),
            Command::Cache { range } => {
                let id = self.ask(cookie, plain);
                turn.out.push_back(Incoming::Cache { id, range });
                return;
            }
            Command::BlockStatus { range, single } => {
                let id = self.ask(cookie, AskedKind::Status { range, single });
                turn.out.push_back(Incoming::BlockStatus { id, range, single });
                return;
            }
        };
        let id = self.ask(cookie, asked);
        turn.out.push_back(Incoming::Request(Request { id, kind }));
    }

    fn ask(&mut self, cookie: u64, kind: AskedKind) -> RequestId {
        let slot = self.asked.insert(Asked { cookie, kind });
        RequestId(self.serial << SLOT_BITS | u64::from(slot))
    }

    /// Takes what is there of a payload. False if that is not all.
    fn take_payload(&mut self, turn: &mut Turn<'_>) -> bool {
        let Receiving::Payload { cookie, range, fua, arriving } = &mut self.receiving else {
            return true;
        };
        let parts = loop {
            let missing = arriving.missing(turn.pool);
            let bytes = self.inbound.take(missing.len());
            missing[..bytes.len()].copy_from_slice(bytes);
            arriving.note(bytes.len());
            match arriving.progress() {
                Progress::PartMissing => return false,
                Progress::PartDone => {}
                Progress::Whole(parts) => break parts,
            }
        };
        let (cookie, range, fua) = (*cookie, *range, *fua);
        self.receiving = Receiving::Header;
        self.read_stall = Stall::default();
        let id = self.ask(cookie, AskedKind::Plain { usage: usage_of_write(range) });
        let kind = RequestKind::Write { range, parts, fua };
        turn.out.push_back(Incoming::Request(Request { id, kind }));
        true
    }

    /// Drops what is there of the payload of a refused write. False if that is not all.
    fn take_refused(&mut self) -> bool {
        let Receiving::Refused { cookie, left, fault } = &mut self.receiving else {
            return true;
        };
        *left -= self.inbound.take(*left).len();
        if *left > 0 {
            return false;
        }
        let (cookie, fault) = (*cookie, *fault);
        self.receiving = Receiving::Header;
        self.put_fault(cookie, &fault);
        true
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, pool: &BufferPool) -> Poll<io::Result<usize>> {
        let (is_payload, first) = match &mut self.receiving {
            Receiving::Payload { arriving, .. } => (true, arriving.missing(pool)),
            Receiving::Header | Receiving::Refused { .. } => (false, <&mut [u8]>::default()),
        };
        let first_len = first.len();
        let inbound = &mut self.inbound;
        let read =
            self.socket.poll_read(cx, |fd| inbound.fill(first, |places| socket::read(fd, places)));
        let Poll::Ready(read) = read else {
            self.read_stall.is_starved = is_payload;
            return Poll::Pending;
        };
        self.read_stall = Stall::default();
        if let (Ok(count), Receiving::Payload { arriving, .. }) = (&read, &mut self.receiving) {
            arriving.note(first_len.min(*count));
        }
        Poll::Ready(read)
    }

    /// N42: what was admitted goes on, and the client may still read: it closed one direction.
    fn on_end_of_stream(&mut self) {
        self.end();
    }

    /// Answers a request that needs no data.
    pub(super) fn reply(&mut self, request: RequestId, result: RequestResult) {
        let Some(asked) = self.answer(request) else { return };
        match (result, asked.kind) {
            (Ok(()), AskedKind::Plain { .. }) => self.put_success(asked.cookie, false),
            (Ok(()), AskedKind::Read { .. } | AskedKind::Status { .. }) => {
                unreachable!("a request for data is answered with data")
            }
            (Err(error), _) => {
                let code = match error {
                    RequestError::NoSpace => ErrorCode::NoSpace,
                    RequestError::Io => ErrorCode::Io,
                    RequestError::NotFast => ErrorCode::NotSupported,
                };
                self.put_error(asked.cookie, code, || error.to_string());
            }
        }
    }

    /// Answers a READ. Together `data` must be as long as what was asked for.
    pub(super) fn reply_data(&mut self, request: RequestId, data: impl IntoIterator<Item = Bytes>) {
        let Some(asked) = self.answer(request) else { return };
        let AskedKind::Read { range } = asked.kind else {
            unreachable!("only a READ is answered with data");
        };
        let structured = self.terms.structured;
        self.outbound.push_head(|out| {
            if structured {
                let len = u32::try_from(range.len()).expect("READ is at most 32 MiB");
                put_data_chunk(out, asked.cookie, range.start(), len);
            } else {
                put_simple_reply(out, asked.cookie, None);
            }
        });
        let before = self.outbound.len();
        data.into_iter().for_each(|part| self.outbound.push_data(part));
        assert_eq!(self.outbound.len() - before, range.len(), "a READ is answered in full");
    }

    /// Answers a `BLOCK_STATUS`.
    pub(super) fn reply_extents(&mut self, request: RequestId, extents: &[Extent]) {
        let Some(asked) = self.answer(request) else { return };
        let AskedKind::Status { range, single } = asked.kind else {
            unreachable!("only BLOCK_STATUS is answered with extents");
        };
        let status = StatusAsked { context_id: BASE_ALLOCATION_ID, range, single };
        self.outbound.push_head(|out| put_block_status(out, asked.cookie, &status, extents));
    }

    /// Takes off a request that is about to be answered; `None` if nobody waits for the answer.
    fn answer(&mut self, request: RequestId) -> Option<Asked> {
        if self.state == State::Over {
            return None;
        }
        let slot = usize::try_from(request.0 & ((1 << SLOT_BITS) - 1)).expect("10 bits");
        let asked = self.asked.remove(slot);
        self.usage.remove(match asked.kind {
            AskedKind::Plain { usage } => usage,
            AskedKind::Read { range } => usage_of_read(range),
            AskedKind::Status { range, single } => usage_of_status(range, single),
        });
        (self.state != State::Gone).then_some(asked)
    }

    fn put_success(&mut self, cookie: u64, is_read: bool) {
        let in_chunks = is_read && self.terms.structured;
        self.outbound.push_head(|out| {
            if in_chunks {
                put_none_chunk(out, cookie);
            } else {
                put_simple_reply(out, cookie, None);
            }
        });
    }

    fn put_fault(&mut self, cookie: u64, fault: &Fault) {
        self.put_error(cookie, fault.code(), || fault.to_string());
    }

    /// With structured replies every error is a chunk, since only that can carry a text.
    fn put_error(&mut self, cookie: u64, code: ErrorCode, text: impl FnOnce() -> String) {
        let structured = self.terms.structured;
        self.outbound.push_head(|out| {
            if structured {
                put_error_chunk(out, cookie, code, &text());
            } else {
                put_simple_reply(out, cookie, Some(code));
            }
        });
    }

    /// Sends what the socket takes. Ready when all has left.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.outbound.is_empty() && matches!(self.state, State::Open | State::Ending) {
            let outbound = &mut self.outbound;
            let sent =
                self.socket.poll_write(cx, |fd| outbound.send(|pieces| socket::write(fd, pieces)));
            match ready!(sent) {
                Ok(_) => self.write_stall = Stall::default(),
                Err(error) => self.fail(&error),
            }
        }
        Poll::Ready(())
    }

    /// Notes that `passed` since the last time, and closes a client that stalls. One that is
    /// behind with a payload does so only while `others_wait`.
    pub(super) fn on_time(&mut self, passed: Duration, others_wait: bool) {
        self.read_stall.on_time(passed);
        self.write_stall.on_time(passed);
        self.write_stall.is_starved = !self.outbound.is_empty();
        if self.write_stall.lasts >= STALL_MAX {
            self.violated("it took none of its replies for too long");
        } else if others_wait && self.read_stall.lasts >= STALL_MAX {
            self.violated("it sent nothing of a payload for too long, and others wait");
        }
    }

    fn violated(&mut self, why: &str) {
        debug!(serial = self.serial, why, "client closed");
        self.leave();
    }

    fn fail(&mut self, error: &io::Error) {
        debug!(serial = self.serial, %error, "client lost");
        self.leave();
    }

    /// Gives up a payload that will not arrive.
    fn drop_payload(&mut self) {
        if let Receiving::Payload { range, .. } = self.receiving {
            self.usage.remove(usage_of_write(range));
        }
        self.receiving = Receiving::Header;
    }
}

/// A header has to wait for room.
struct Waits;

fn usage_of(command: &Command) -> Usage {
    match command {
        Command::Read { range } => usage_of_read(*range),
        Command::Write { range, .. } => usage_of_write(*range),
        Command::Zero { range, .. } => usage_of_zero(*range),
        Command::Flush => Usage { parts: 1, ..Usage::default() },
        Command::BlockStatus { range, single } => usage_of_status(*range, *single),
        Command::Cache { .. } | Command::Disconnect => Usage::default(),
    }
}

/// The longest answer: the disk says something else of every block.
fn usage_of_status(range: ByteRange, single: bool) -> Usage {
    let runs = if single { 1 } else { range.blocks().block_count().min(EXTENTS_MAX) };
    Usage { parts: 1, reply_bytes: 24 + 8 * runs, ..Usage::default() }
}

fn usage_of_zero(range: ByteRange) -> Usage {
    let parts = range.parts(ZERO_PART_LEN_MAX).count();
    Usage { parts: u64::try_from(parts).expect("65 parts at most"), ..Usage::default() }
}

fn usage_of_read(range: ByteRange) -> Usage {
    Usage { parts: 1, reply_bytes: range.len(), ..Usage::default() }
}

fn usage_of_write(range: ByteRange) -> Usage {
    let parts = part_count(range.start(), range.len());
    Usage { parts, payload_bytes: range.len(), ..Usage::default() }
}

/// How long a client kept us waiting.
#[derive(Clone, Copy, Debug, Default)]
struct Stall {
    /// It does so since we last looked.
    is_starved: bool,
    lasts: Duration,
}

impl Stall {
    fn on_time(&mut self, passed: Duration) {
        if std::mem::take(&mut self.is_starved) {
            self.lasts += passed;
        }
    }
}

/// The requests in flight, numbered from zero; numbers are used again.
#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<Asked>>,
    free: Vec<u16>,
}

impl Slots {
    fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    fn is_full(&self) -> bool {
        self.slots.len() - self.free.len() >= IN_FLIGHT_MAX
    }

    fn insert(&mut self, asked: Asked) -> u16 {
        if let Some(slot) = self.free.pop() {
            self.slots[usize::from(slot)] = Some(asked);
            return slot;
        }
        let slot = u16::try_from(self.slots.len()).expect("IN_FLIGHT_MAX fits");
        self.slots.push(Some(asked));
        slot
    }

    fn remove(&mut self, slot: usize) -> Asked {
        let asked = self.slots.get_mut(slot).and_then(Option::take);
        self.free.push(u16::try_from(slot).expect("IN_FLIGHT_MAX fits"));
        asked.expect("a request is answered once")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{ResourceSize, ZeroKind};

    #[test]
    fn a_request_counts_as_many_parts_as_it_is_cut_into() {
        let size = ResourceSize::new(1 << 40).unwrap();
        let parts = |start, len| {
            let range = ByteRange::new(start, len, size).unwrap();
            let (kind, fua, fast_only) = (ZeroKind::Trim, false, false);
            usage_of(&Command::Zero { range, kind, fua, fast_only }).parts
        };
        assert_eq!(parts(0, 512), 1);
        assert_eq!(parts(4096, u64::from(u32::MAX) - 4095), 64);
        assert_eq!(parts((64 << 20) - 1, u64::from(u32::MAX)), 65);
    }
}
