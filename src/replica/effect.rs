//! What the core of a resource is told, and what it answers.
//!
//! Effects of one step are unordered: what must follow something else is emitted when the
//! completion of that arrives. Each effect with an [`IoId`] or a ticket is answered by exactly one
//! input, in any order; the others are not answered.

use std::time::Duration;

use bytes::Bytes;

use super::operator::{Answer, Command, Event, Refused};
use super::outdate::{OutdateNews, OutdateOrder};
use super::request::{Request, RequestId, RequestResult};
use crate::metadata::{LogAppend, Superblock};
use crate::promotion::ServeGrant;
use crate::promotion::arbiter::Request as ArbiterRequest;
use crate::promotion::controller::{Bound, ControllerInput, ControllerTimer};
use crate::promotion::fencing::FenceOrder;
use crate::promotion::services::ServiceOrder;
use crate::units::{ByteRange, ChunkIndex, Epoch, Instance, Instant, ResourceSize, ZeroKind};
use crate::wire::message::Frame;

/// Names one I/O on the data file.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IoId(pub u64);

/// Names one write of metadata.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub u64);

/// Names one connection to the peer; counts up, never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u64);

/// One thing the core is told.
#[derive(Clone, Debug)]
pub enum Input {
    /// The first input of all, once metadata was recovered.
    Started,
    /// A client's request, admitted under the grant of `epoch`. Only while
    /// `Resource::accepts_requests()`.
    Request {
        /// Epoch of the client's connection.
        epoch: Epoch,
        /// What it wants.
        request: Request,
    },
    /// Every connection of clients is closed, after [`Effect::CloseExport`].
    ClientsGone,
    /// An I/O on the data file ended.
    Disk {
        /// Which.
        io: IoId,
        /// How.
        outcome: DiskOutcome,
    },
    /// A write of metadata ended.
    Metadata {
        /// Which.
        ticket: Ticket,
        /// Whether it is stable.
        result: Result<(), MetadataFailed>,
    },
    /// A [`Effect::Grow`] ended. If it went well, `Replica::hand_map` was called before.
    Grown {
        /// Which.
        ticket: Ticket,
        /// Whether there is room, stable.
        result: Result<(), GrowFailed>,
    },
    /// A connection to the peer is there (identities are already checked).
    LinkUp {
        /// Its name.
        link: LinkId,
        /// Random, for our Hello.
        nonce: [u8; 32],
        /// Key material that only the two ends of this connection know; zeroes without TLS.
        exporter: [u8; 32],
    },
    /// The peer said something.
    Peer {
        /// On which connection.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// The peer said something that is none of the core's business, so it lives.
    Heard {
        /// On which connection.
        link: LinkId,
    },
    /// The connection broke, or the peer broke the protocol.
    LinkLost {
        /// Which.
        link: LinkId,
    },
    /// No connection to the peer came about, or one ended before the peer said who it is. Nothing
    /// follows from it: it is for people who ask.
    NoLink {
        /// Why, as far as the driver can tell.
        why: String,
        /// What to type, if it can tell that.
        next: Option<String>,
    },
    /// Time passed. At least every 50 ms while the daemon runs.
    Tick,
    /// The data file was replaced, shortened or removed behind our back, or the daemon's probe
    /// found the disk failed.
    DiskGone,
    /// A random id, as asked for by [`Effect::DrawId`].
    FreshId(u128),
    /// The arbiter, a timer, a heartbeat or the fence command; where nobody is promoted by itself there
    /// is none of them.
    Controller(ControllerInput),
    /// A request or reply of the peer by datagram.
    Outdate(OutdateNews),
    /// The peer of this session has staged what the register names: it may be transferred. Only with
    /// [`Settings::is_register`](super::Settings::is_register).
    Admit,
    /// What was reported as written had to be taken back: this copy is what it was before.
    FellBack {
        /// For people.
        why: String,
    },
    /// Answer to [`Effect::Settle`].
    Settled {
        /// Why the peer does not have all that clients did, if so.
        result: Result<(), String>,
    },
    /// A run of hooks ended; it was the newest when it did.
    ServicesEnded {
        /// Which.
        run: u64,
        /// Why it failed, if it did.
        result: Result<(), String>,
    },
    /// An operator's command.
    Operator {
        /// Echoed in the answer.
        request: u64,
        /// What was typed.
        command: Command,
    },
}

/// How an I/O on the data file ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DiskOutcome {
    /// Written, zeroed or synced; or a client's read, whose bytes the driver holds.
    Done,
    /// The bytes of a [`Effect::ReadRange`].
    Bytes(Bytes),
    /// Answer to a [`Effect::HashChunk`].
    Hashes {
        /// BLAKE3 of the chunk.
        chunk: [u8; 32],
        /// BLAKE3 of each block of it, in order.
        blocks: Vec<[u8; 32]>,
    },
    /// There is no space; what is in the range is undefined.
    NoSpace,
    /// The medium failed; nothing from it counts any more.
    Failed,
}

/// A write of metadata failed: the disk counts as failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MetadataFailed;

/// Why there is no room for a longer resource. What it has now is none the worse.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum GrowFailed {
    /// The file system is full, or has no files that long.
    #[error("there is no space for it")]
    NoSpace,
    /// The device does not grow.
    #[error("the device is too small, it has {len} bytes")]
    DeviceTooSmall {
        /// Its length in bytes.
        len: u64,
    },
    /// The medium failed; the daemon's log says what the kernel said.
    #[error("data or metadata cannot be made longer: an I/O error, see the daemon's log")]
    Failed,
}

/// One thing the core wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Write `bytes`, exactly as long as `range`, to the data file.
    Write {
        /// Answered by [`Input::Disk`].
        io: IoId,
        /// Where.
        range: ByteRange,
        /// What.
        bytes: Bytes,
    },
    /// Make `range` of the data file read as zero.
    Zero {
        /// Answered by [`Input::Disk`].
        io: IoId,
        /// Where.
        range: ByteRange,
        /// What becomes of the space.
        kind: ZeroKind,
    },
    /// Read `range` of the data file for a client; the driver keeps the bytes until
    /// [`Effect::Reply`] and drops them when that is not a success.
    ReadForClient {
        /// Answered by [`Input::Disk`].
        io: IoId,
        /// Whose.
        request: RequestId,
        /// Where.
        range: ByteRange,
    },
    /// Read `range` of the data file; the bytes come back.
    ReadRange {
        /// Answered by [`Input::Disk`].
        io: IoId,
        /// Where; at most one chunk.
        range: ByteRange,
    },
    /// Read and hash a chunk and its blocks. Never inline on the data thread.
    HashChunk {
        /// Answered by [`Input::Disk`].
        io: IoId,
        /// Which.
        chunk: ChunkIndex,
    },
    /// Make everything written to the data file so far stable. Never inline on the data thread;
    /// one fdatasync may serve all that were asked for before it began.
    SyncData {
        /// Answered by [`Input::Disk`].
        io: IoId,
    },
    /// See whether the disk answers: read a block of the data file past every cache, write a few
    /// bytes beside the metadata and make them stable (one at a time).
    Probe {
        /// Answered by [`Input::Disk`].
        io: IoId,
    },
    /// Make this record stable (one at a time).
    WriteSuperblock {
        /// Answered by [`Input::Metadata`].
        ticket: Ticket,
        /// The record.
        record: Box<Superblock>,
    },
    /// Append to the activity log and make it stable (one at a time).
    AppendLog {
        /// Answered by [`Input::Metadata`].
        ticket: Ticket,
        /// Offset and bytes.
        append: LogAppend,
    },
    /// Make the mapped dirty map stable, and then the sums of its pages.
    SyncMap {
        /// Answered by [`Input::Metadata`].
        ticket: Ticket,
        /// Page index and its crc32c, for `dirty.sum`; the other sums stay.
        sums: Vec<(u64, u32)>,
    },
    /// Make data file, dirty map and sums long enough for a resource that grows from `old` to
    /// `new`: the new part reads as zero and has no marks, all of it stable. Nothing of the old part
    /// changes. To be repeated as often as asked (one at a time).
    Grow {
        /// Answered by [`Input::Grown`].
        ticket: Ticket,
        /// Size now.
        old: ResourceSize,
        /// Size wanted.
        new: ResourceSize,
    },
    /// Say this to the peer.
    Send {
        /// On which connection; dropped if that is gone.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// Close the connection to the peer, after what was sent before left.
    CloseLink {
        /// Which. No [`Input::LinkLost`] need follow.
        link: LinkId,
        /// Wait at least 10 s before the next one, since it would end the same way.
        back_off: bool,
    },
    /// Connect to the peer whenever there is no connection (true), or stay apart (false).
    Connect(bool),
    /// Accept clients.
    OpenExport(ServeGrant),
    /// Bring what clients did up to now to the peer, by further requests; answered by
    /// [`Input::Settled`]. What runs beside the primary has stopped. A later one takes the place of an
    /// earlier one. Only with [`Settings::is_register`](super::Settings::is_register).
    Settle,
    /// Take no more requests and close every client. `Drained`: all requests were answered, what
    /// is unread was never begun. `Fenced`: no reply may leave from this instant.
    CloseExport(Closing),
    /// Answer a client.
    Reply {
        /// Whom.
        request: RequestId,
        /// What.
        result: RequestResult,
    },
    /// Draw a random, non-zero u128.
    DrawId,
    /// Answer an operator.
    Answer {
        /// Whom.
        request: u64,
        /// What.
        result: Result<Answer, Refused>,
    },
    /// Ask the arbiter; answered by [`Input::Controller`], or never.
    AskArbiter(Box<ArbiterRequest>),
    /// Fire a timer of the controller; one that is set again fires only for the last time.
    SetTimer {
        /// Which.
        timer: ControllerTimer,
        /// It counts from here,
        from: Instant,
        /// so long.
        after: Duration,
        /// On which side of it, if two clocks differ.
        bound: Bound,
    },
    /// Tell that run of the peer that the lease that it asked for is granted.
    GrantLease(Instance),
    /// Run the fence command; answered by [`Input::Controller`], unless a newer order takes its place
    /// first.
    Fence(FenceOrder),
    /// Ask the peer to veto itself, or answer that this node did, by datagram.
    Outdate(OutdateOrder),
    /// Start or stop what runs beside a primary; answered by [`Input::ServicesEnded`], unless a newer
    /// order takes its place first.
    Services(ServiceOrder),
    /// Tell whoever listens.
    Event(Event),
}

/// How an export closes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Closing {
    /// Everything admitted was answered.
    Drained,
    /// The grant is lost: unanswered requests stay unanswered.
    Fenced,
}
