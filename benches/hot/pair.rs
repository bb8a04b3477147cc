//! Two cores that are told at once that all they asked for went well.

use std::collections::VecDeque;
use std::time::Duration;

use hotpair::metadata::{Birth, Newborn, Place, recovered_at_birth};
use hotpair::replica::{
    Command, DiskOutcome, Effect, Effects, Input, LinkId, Replica, Request, RequestId, RequestKind,
    Settings, Start,
};
use hotpair::units::{
    BLOCK_LEN, ByteRange, CHUNK_LEN, DiskState, EXTENT_LEN, Epoch, Instance, Instant, ReplicaId,
    ResourceId, ResourceSize, Side,
};
use hotpair::wire::payload::Payload;

/// The only connection.
const LINK: LinkId = LinkId(1);
/// Time between two ticks.
const TICK: Duration = Duration::from_millis(50);
/// Time that one write takes, so that what depends on time happens as often as in life.
const WRITE_TIME: Duration = Duration::from_micros(20);
/// Part of the resource that is written to: its extents stay in the activity log.
const WRITTEN_LEN: u64 = 16 * EXTENT_LEN;

struct Node {
    core: Replica<Vec<u8>>,
    inputs: VecDeque<Input>,
    /// Clients are served in this epoch.
    export: Option<Epoch>,
    /// Counts ids.
    last_id: u128,
}

/// A pair, the first node of which is primary.
pub(crate) struct Pair {
    nodes: [Node; 2],
    now: Instant,
    last_tick: Instant,
    effects: Effects,
    /// Hashes of a chunk and a block of zeroes, which is all that the disks hold.
    zeroes: ([u8; 32], [u8; 32]),
    requests: u64,
    replies: u64,
    next_start: u64,
}

impl Pair {
    /// A new pair whose nodes have met, with everything compared.
    pub(crate) fn in_sync(size: ResourceSize) -> Self {
        let now = Instant(1 << 40);
        let hash = |len: u64| *blake3::hash(&vec![0; len.try_into().unwrap()]).as_bytes();
        let mut pair = Self {
            nodes: [Node::new(0, Birth::Empty, size, now), Node::new(1, Birth::Peer, size, now)],
            now,
            last_tick: now,
            effects: Vec::new(),
            zeroes: (hash(CHUNK_LEN), hash(BLOCK_LEN)),
            requests: 0,
            replies: 0,
            next_start: 0,
        };
        for (at, node) in pair.nodes.iter_mut().enumerate() {
            let nonce = [u8::try_from(at + 1).unwrap(); 32];
            let met = Input::LinkUp { link: LINK, nonce, exporter: [0; 32] };
            node.inputs.extend([Input::Started, met]);
        }
        pair.wait("both copies to be equal", |pair| {
            pair.nodes.iter().all(|node| {
                let status = node.core.status(pair.now);
                status.disk == DiskState::UpToDate && status.out_of_sync_bytes == Some(0)
            })
        });
        let command = Command::Promote { force: false, accept_data_loss: false };
        pair.nodes[0].inputs.push_back(Input::Operator { request: 1, command });
        pair.wait("the first node to serve", |pair| pair.nodes[0].export.is_some());
        // From here on every extent is in the activity log.
        for _ in 0..WRITTEN_LEN / EXTENT_LEN {
            pair.next_start += EXTENT_LEN - BLOCK_LEN;
            pair.write(Payload::hash(vec![7; 4096].into()));
        }
        pair
    }

    /// One write of a client to the next place, up to its reply.
    pub(crate) fn write(&mut self, payload: Payload) {
        let len = payload.len().try_into().unwrap();
        if self.next_start + len > WRITTEN_LEN {
            self.next_start = 0;
        }
        let range = ByteRange::new(self.next_start, len, self.nodes[0].core.size()).unwrap();
        self.next_start += len;
        self.requests += 1;
        let kind = RequestKind::Write { range, parts: vec![payload], fua: false };
        let request = Request { id: RequestId(self.requests), kind };
        let epoch = self.nodes[0].export.expect("it serves");
        self.nodes[0].inputs.push_back(Input::Request { epoch, request });
        self.now = self.now.plus(WRITE_TIME);
        self.run();
        assert_eq!(self.replies, self.requests, "a write without an answer");
    }

    /// Lets time pass until `is_so`.
    fn wait(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..TICKS_MAX {
            self.now = self.now.plus(TICK);
            self.run();
            if is_so(self) {
                return;
            }
        }
        panic!("waited for {what} in vain");
    }

    /// Carries out everything that was begun, and what follows from it.
    fn run(&mut self) {
        if self.now.since(self.last_tick) >= TICK {
            self.last_tick = self.now;
            self.nodes.iter_mut().for_each(|node| node.inputs.push_back(Input::Tick));
        }
        while let Some(at) = (0..2).find(|&at| !self.nodes[at].inputs.is_empty()) {
            let mut effects = std::mem::take(&mut self.effects);
            while let Some(input) = self.nodes[at].inputs.pop_front() {
                self.nodes[at].core.step(self.now, input, &mut effects);
                effects.drain(..).for_each(|effect| self.carry_out(at, effect));
            }
            self.effects = effects;
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        let (chunk, block) = self.zeroes;
        let node = &mut self.nodes[at];
        let input = match effect {
            Effect::Write { io, .. }
            | Effect::Zero { io, .. }
            | Effect::ReadForClient { io, .. }
            | Effect::SyncData { io }
            | Effect::Probe { io } => Input::Disk { io, outcome: DiskOutcome::Done },
            Effect::ReadRange { io, range } => {
                let zeroes = vec![0; range.len().try_into().unwrap()];
                Input::Disk { io, outcome: DiskOutcome::Bytes(zeroes.into()) }
            }
            Effect::HashChunk { io, .. } => {
                let blocks = vec![block; (CHUNK_LEN / BLOCK_LEN).try_into().unwrap()];
                Input::Disk { io, outcome: DiskOutcome::Hashes { chunk, blocks } }
            }
            Effect::WriteSuperblock { ticket, .. }
            | Effect::AppendLog { ticket, .. }
            | Effect::SyncMap { ticket, .. } => Input::Metadata { ticket, result: Ok(()) },
            Effect::DrawId => {
                node.last_id += 1;
                Input::FreshId(node.last_id)
            }
            Effect::Send { link, frame } => {
                return self.nodes[1 - at].inputs.push_back(Input::Peer { link, frame });
            }
            Effect::OpenExport(grant) => return node.export = Some(grant.epoch()),
            Effect::Reply { result, .. } => {
                result.expect("a disk that never fails");
                return self.replies += 1;
            }
            Effect::Answer { result, .. } => {
                return drop(result.expect("a command that is not refused"));
            }
            Effect::Connect(_) | Effect::Event(_) => return,
            Effect::Grow { .. }
            | Effect::CloseLink { .. }
            | Effect::Settle
            | Effect::CloseExport(_)
            | Effect::AskArbiter(_)
            | Effect::SetTimer { .. }
            | Effect::GrantLease(_)
            | Effect::Services(_)
            | Effect::Fence(_)
            | Effect::Outdate(_) => {
                panic!("nothing here asks for {effect:?}")
            }
        };
        node.inputs.push_back(input);
    }
}

/// Ticks that a pair may take to meet.
const TICKS_MAX: u32 = 10_000;

impl Node {
    fn new(at: usize, birth: Birth, size: ResourceSize, now: Instant) -> Self {
        let last_id = [1 << 64, 2 << 64][at];
        let newborn = Newborn {
            resource_id: ResourceId(1),
            replica_id: ReplicaId(last_id),
            generation_id: 1,
            size,
            place: Place { boot_id: 1, ..Place::default() },
        };
        let name = |at: usize| ["a", "b"][at].to_owned();
        let settings = Settings {
            side: [Side::First, Side::Second][at],
            node: name(at),
            peer: name(1 - at),
            ..Settings::default()
        };
        let start = Start {
            instance: Instance([1, 2][at]),
            fresh_ids: vec![last_id],
            now,
            place: newborn.place,
        };
        let core = Replica::new(settings, recovered_at_birth(birth, &newborn), start);
        Self { core, inputs: VecDeque::new(), export: None, last_id }
    }
}
