//! The connection between the nodes: one pipe per direction, in order, real bytes.
//!
//! A pipe delivers what was put in, or its beginning: it can stall for any time, end inside a
//! frame, be reset, and change a bit. It never repeats or reorders. Frames wait in their lanes
//! until the pipe has room, as in `link`: lane 0 first, then 1, then 2.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;
use hotpair::replica::LinkId;
use hotpair::units::ResourceSize;
use hotpair::wire::frame::{self, HEADER_LEN, Limits};
use hotpair::wire::message::{Frame, Lane, Message};

/// Nanoseconds of virtual time.
pub(crate) type Time = u64;

/// Bytes of the client lane after which the resync lane gets one frame.
const RESYNC_TURN_BYTES: usize = 1 << 20;

/// Something that will happen to a connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum NetEvent {
    /// Bytes reach this node.
    Arrive { link: LinkId, to: usize },
    /// This node learns that the other end is gone.
    Reset { link: LinkId, at: usize },
}

/// What a node finds in its socket.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) frames: Vec<Frame>,
    /// The stream ended, or what came is no frame.
    pub(crate) is_over: bool,
}

/// How long and how wide the wire is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) latency_max: Time,
    pub(crate) bytes_per_ms: u64,
    /// Bytes that are under way at most; more waits in the lanes.
    pub(crate) window: usize,
}

/// The network between the two nodes.
#[derive(Debug)]
pub(crate) struct Net {
    wire: Wire,
    rng: Rng,
    connections: BTreeMap<LinkId, Connection>,
    next_link: u64,
    /// Nothing that node `i` sends arrives while `is_cut[i]`.
    is_cut: [bool; 2],
    /// Events that wait for the end of a cut, by sender.
    held: [Vec<NetEvent>; 2],
    /// To be scheduled by the world.
    pub(crate) due: Vec<(Time, NetEvent)>,
    /// The next bytes to arrive have one bit changed.
    flip_next: bool,
    /// This host has no power: it does not even refuse.
    is_dark: [bool; 2],
    /// Payload bytes of resyncs that were sent.
    pub(crate) resync_bytes: u64,
}

#[derive(Debug, Default)]
struct Connection {
    /// Whether node `i` still holds its end.
    is_open: [bool; 2],
    /// By sender.
    pipes: [Pipe; 2],
}

#[derive(Debug, Default)]
struct Pipe {
    lanes: [VecDeque<Bytes>; 3],
    client_bytes: usize,
    under_way: VecDeque<Bytes>,
    under_way_bytes: usize,
    /// The sender closed its end; behind the last byte comes the end of the stream.
    is_closing: bool,
    has_ended: bool,
    last_arrival: Time,
    unread: Vec<u8>,
}

impl Net {
    pub(crate) fn new(wire: Wire, rng: Rng) -> Self {
        Self {
            wire,
            rng,
            connections: BTreeMap::new(),
            next_link: 1,
            is_cut: [false; 2],
            held: [Vec::new(), Vec::new()],
            due: Vec::new(),
            flip_next: false,
            is_dark: [false; 2],
            resync_bytes: 0,
        }
    }

    /// Whether nothing that node `from` sends arrives.
    pub(crate) fn is_cut_from(&self, from: usize) -> bool {
        self.is_cut[from]
    }

    /// Makes a connection, unless the nodes cannot reach each other.
    pub(crate) fn connect(&mut self) -> Option<LinkId> {
        if self.is_cut.contains(&true) {
            return None;
        }
        let link = LinkId(self.next_link);
        self.next_link += 1;
        self.connections.insert(link, Connection { is_open: [true; 2], ..Connection::default() });
        Some(link)
    }

    /// Node `from` says `frame`.
    pub(crate) fn send(&mut self, now: Time, from: usize, link: LinkId, frame: &Frame) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        if !connection.is_open[from] {
            return;
        }
        if let Message::ChunkData(data) = &frame.message {
            self.resync_bytes += u64::try_from(data.payload.len()).unwrap();
        }
        let encoded = frame::encode(frame);
        let mut bytes = encoded.head;
        bytes.extend_from_slice(&encoded.payload.unwrap_or_default());
        let lane = match frame.message.lane() {
            Lane::Control => 0,
            Lane::Client => 1,
            Lane::Resync => 2,
        };
        connection.pipes[from].lanes[lane].push_back(bytes.into());
        self.pump(now, from, link);
    }

    /// Node `at` closes its end, once what it sent has left.
    pub(crate) fn close(&mut self, now: Time, at: usize, link: LinkId) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        connection.is_open[at] = false;
        connection.pipes[at].is_closing = true;
        self.pump(now, at, link);
    }

    /// The process of node `at` is gone. What its kernel has still arrives, then the end of the
    /// stream; after a power loss nothing does, and the other node must find out.
    pub(crate) fn node_gone(&mut self, now: Time, at: usize, is_silent: bool) {
        self.is_dark[at] = is_silent;
        let links: Vec<LinkId> = self.connections.keys().copied().collect();
        for link in links {
            let Some(connection) = self.connections.get_mut(&link) else { continue };
            if !std::mem::take(&mut connection.is_open[at]) {
                continue;
            }
            let pipe = &mut connection.pipes[at];
            pipe.lanes = <[VecDeque<Bytes>; 3]>::default();
            if is_silent {
                let kept = self.rng.usize(..=pipe.under_way.len());
                pipe.under_way.truncate(kept);
                pipe.has_ended = true;
            } else {
                pipe.is_closing = true;
                self.pump(now, at, link);
            }
        }
    }

    /// The host of node `at` runs again.
    pub(crate) fn node_back(&mut self, at: usize) {
        self.is_dark[at] = false;
    }

    /// Node `at` gives its end up: the other one is told.
    pub(crate) fn drop_end(&mut self, now: Time, at: usize, link: LinkId) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        connection.is_open[at] = false;
        connection.pipes[at].has_ended = true;
        let delay = self.latency();
        self.due.push((now + delay, NetEvent::Reset { link, at: 1 - at }));
    }

    /// Both ends lose the connection; what is under way arrives in part.
    pub(crate) fn reset(&mut self, now: Time, link: LinkId) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        for pipe in &mut connection.pipes {
            let kept = self.rng.usize(..=pipe.under_way.len());
            pipe.under_way.truncate(kept);
            if let Some(last) = pipe.under_way.back_mut() {
                *last = last.slice(..self.rng.usize(..=last.len()));
            }
            pipe.lanes = <[VecDeque<Bytes>; 3]>::default();
            pipe.has_ended = true;
        }
        for at in 0..2 {
            let after = connection.pipes[1 - at].last_arrival.max(now);
            let delay = self.rng.u64(0..=self.wire.latency_max);
            self.due.push((after + delay, NetEvent::Reset { link, at }));
        }
    }

    /// Resets whatever connection there is.
    pub(crate) fn reset_any(&mut self, now: Time) {
        if let Some(link) = self.connections.keys().next_back().copied() {
            self.reset(now, link);
        }
    }

    /// The next bytes that arrive anywhere have one bit changed.
    pub(crate) fn flip_next(&mut self) {
        self.flip_next = true;
    }

    /// From now on nothing that `from` sends arrives.
    pub(crate) fn cut(&mut self, from: usize) {
        self.is_cut[from] = true;
    }

    /// Everything that waited goes on.
    pub(crate) fn mend(&mut self, now: Time, from: usize) {
        self.is_cut[from] = false;
        let held = std::mem::take(&mut self.held[from]);
        let at = now + self.latency();
        self.due.extend(held.into_iter().map(|event| (at, event)));
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.contains(&true)
    }

    /// Whether node `at` still holds its end.
    pub(crate) fn is_open(&self, at: usize, link: LinkId) -> bool {
        self.connections.get(&link).is_some_and(|connection| connection.is_open[at])
    }

    /// Whether the event may happen now; else it waits for the end of the cut.
    pub(crate) fn lets_through(&mut self, event: NetEvent) -> bool {
        let from = match event {
            NetEvent::Arrive { to, .. } => 1 - to,
            NetEvent::Reset { at, .. } => 1 - at,
        };
        if self.is_cut[from] {
            self.held[from].push(event);
        }
        !self.is_cut[from]
    }

    /// Node `to` reads what came.
    pub(crate) fn arrive(
        &mut self,
        now: Time,
        to: usize,
        link: LinkId,
        size: ResourceSize,
    ) -> Received {
        let Some(connection) = self.connections.get_mut(&link) else { return Received::default() };
        let is_open = connection.is_open[to];
        let pipe = &mut connection.pipes[1 - to];
        let Some(bytes) = pipe.under_way.pop_front() else {
            let is_over = is_open && pipe.has_ended && pipe.is_closing;
            return Received { frames: Vec::new(), is_over };
        };
        pipe.under_way_bytes -= bytes.len();
        let mut received = Received::default();
        if is_open {
            let start = pipe.unread.len();
            pipe.unread.extend_from_slice(&bytes);
            if !bytes.is_empty() && std::mem::take(&mut self.flip_next) {
                let at = start + self.rng.usize(..bytes.len());
                pipe.unread[at] ^= 1 << self.rng.u8(..8);
            }
            received = take_frames(&mut pipe.unread, size);
        } else if !pipe.has_ended && !self.is_dark[to] {
            // Nobody listens: the sender's kernel is told.
            pipe.has_ended = true;
            let delay = self.latency();
            self.due.push((now + delay, NetEvent::Reset { link, at: 1 - to }));
        }
        self.pump(now, 1 - to, link);
        received
    }

    /// Forgets connections that nobody holds.
    pub(crate) fn forget_closed(&mut self) {
        self.connections.retain(|_, connection| {
            connection.is_open.contains(&true)
                || connection.pipes.iter().any(|pipe| !pipe.under_way.is_empty())
        });
    }

    /// The longest way of a byte that is not held up.
    pub(crate) fn latency_max(&self) -> Time {
        self.wire.latency_max
    }

    fn latency(&mut self) -> Time {
        self.rng.u64(self.wire.latency_max / 8..=self.wire.latency_max)
    }

    /// Puts frames from the lanes on the wire while there is room.
    fn pump(&mut self, now: Time, from: usize, link: LinkId) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        let pipe = &mut connection.pipes[from];
        while !pipe.has_ended && pipe.under_way_bytes < self.wire.window {
            let Some(bytes) = pipe.next_frame() else { break };
            let len = bytes.len();
            let cut = if self.rng.u8(..16) == 0 { self.rng.usize(1..len) } else { len };
            for part in [bytes.slice(..cut), bytes.slice(cut..)] {
                if part.is_empty() {
                    continue;
                }
                let sent = u64::try_from(part.len()).unwrap() * 1_000_000 / self.wire.bytes_per_ms;
                let earliest = self.rng.u64(self.wire.latency_max / 8..=self.wire.latency_max);
                let at = (now + earliest).max(pipe.last_arrival) + sent;
                pipe.last_arrival = at;
                pipe.under_way_bytes += part.len();
                pipe.under_way.push_back(part);
                self.due.push((at, NetEvent::Arrive { link, to: 1 - from }));
            }
        }
        let is_empty = pipe.lanes.iter().all(VecDeque::is_empty);
        if pipe.is_closing && !pipe.has_ended && is_empty {
            pipe.has_ended = true;
            let at = pipe.last_arrival.max(now) + self.wire.latency_max;
            self.due.push((at, NetEvent::Arrive { link, to: 1 - from }));
        }
    }
}

impl Pipe {
    fn next_frame(&mut self) -> Option<Bytes> {
        let is_resyncs_turn = self.client_bytes >= RESYNC_TURN_BYTES && !self.lanes[2].is_empty();
        if is_resyncs_turn && self.lanes[0].is_empty() {
            self.client_bytes = 0;
            return self.lanes[2].pop_front();
        }
        let lane = self.lanes.iter().position(|lane| !lane.is_empty())?;
        let bytes = self.lanes[lane].pop_front()?;
        if lane == 1 {
            self.client_bytes += bytes.len();
        }
        Some(bytes)
    }
}

/// Takes every whole frame from the front of `unread`.
fn take_frames(unread: &mut Vec<u8>, size: ResourceSize) -> Received {
    let mut received = Received::default();
    let mut at = 0;
    while let Some(header_bytes) = unread[at..].first_chunk::<HEADER_LEN>() {
        let Ok(header) = frame::decode_header(header_bytes, &Limits { size }) else {
            received.is_over = true;
            break;
        };
        let body_at = at + HEADER_LEN;
        let payload_at = body_at + header.body_len();
        let end = payload_at + header.payload_len();
        if unread.len() < end {
            break;
        }
        let payload = (payload_at < end).then(|| Bytes::copy_from_slice(&unread[payload_at..end]));
        let Ok(frame) = frame::decode(header, &unread[body_at..payload_at], payload, size) else {
            received.is_over = true;
            break;
        };
        received.frames.push(frame);
        at = end;
    }
    unread.drain(..at);
    received
}
