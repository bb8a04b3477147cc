//! One core, a disk in memory, and a peer whose every word the test chooses.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use hotpair::metadata::{Birth, Newborn, Place, Superblock, recovered_at_birth};
use hotpair::replica::{
    Command, DiskOutcome, Effect, GrowFailed, Input, IoId, LinkId, Replica, Settings, Start,
};
use hotpair::units::{
    BLOCK_LEN, ChunkIndex, Epoch, Generation, Instance, Instant, Outcome, ReplicaId, ResourceId,
    ResourceSize, Role, ServeMode, SessionId, Side,
};
use hotpair::wire::frame::{HEADER_LEN, Limits, decode, decode_header, encode};
use hotpair::wire::{Frame, Hello, Message, ProtocolError, Verdict};

/// Length of the resource: sixteen chunks.
const LEN: usize = 1 << 20;
/// What the peer has.
pub(crate) const GENERATION: Generation = Generation { number: 3, id: 0xabc };
/// What this node made when it was born, where it was.
pub(crate) const OWN_GENERATION: Generation = Generation { number: 1, id: 0xdef };
/// Epoch of the peer while it is primary.
pub(crate) const EPOCH: Epoch = Epoch(9);

/// A core, what it asked for, and what it said.
pub(crate) struct Rig {
    pub(crate) core: Replica<Vec<u8>>,
    pub(crate) data: Vec<u8>,
    /// Effects that the disk keeps waiting.
    pub(crate) held: Vec<Effect>,
    /// Which effects it keeps waiting.
    pub(crate) holds: fn(&Effect) -> bool,
    /// Everything said on the current connection.
    pub(crate) said: Vec<Message>,
    /// Why the core closed the connection, as it told the peer.
    pub(crate) refusals: Vec<String>,
    pub(crate) replies: usize,
    pub(crate) is_open: bool,
    /// Epoch in the headers of what the peer says.
    pub(crate) epoch: Epoch,
    session: SessionId,
    /// What the core last said of itself.
    heard: Option<Hello>,
    links: u64,
    pub(crate) now: Instant,
    inputs: VecDeque<Input>,
}

impl Rig {
    /// A started core of the node that sorts last.
    pub(crate) fn new(kind: Birth) -> Self {
        Self::with(kind, LEN, |_| {})
    }

    /// The same with a resource of `len` bytes and other settings.
    pub(crate) fn with(kind: Birth, len: usize, edit: impl FnOnce(&mut Settings)) -> Self {
        let size = ResourceSize::new(len as u64).unwrap();
        let place = Place { boot_id: 1, sidecar_mount: 1, data_mount: 2, device: 3, inode: 4 };
        let newborn = Newborn {
            resource_id: ResourceId(0x77),
            replica_id: ReplicaId(0x22),
            generation_id: OWN_GENERATION.id,
            size,
            place,
        };
        let mut settings = Settings {
            side: Side::Second,
            cluster: "office".to_owned(),
            node: "beta".to_owned(),
            peer: "alpha".to_owned(),
            resource: "vm1".to_owned(),
            ..Settings::default()
        };
        edit(&mut settings);
        let now = Instant(1_000_000_000);
        let start = Start { instance: Instance(5), fresh_ids: vec![0x1001, 0x1002], now, place };
        let mut rig = Self {
            core: Replica::new(settings, recovered_at_birth(kind, &newborn), start),
            data: vec![0; len],
            held: Vec::new(),
            holds: |_| false,
            said: Vec::new(),
            refusals: Vec::new(),
            replies: 0,
            is_open: false,
            epoch: EPOCH,
            session: SessionId(0),
            heard: None,
            links: 0,
            now,
            inputs: VecDeque::new(),
        };
        rig.input(Input::Started);
        rig
    }

    /// A target in the middle of a transfer of everything from a primary.
    pub(crate) fn target() -> Self {
        let mut rig = Self::new(Birth::Peer);
        rig.meet(|_| {});
        rig.start_transfer();
        rig
    }

    /// A secondary that is in sync with a primary.
    pub(crate) fn secondary() -> Self {
        let mut rig = Self::target();
        rig.end_transfer();
        rig
    }

    /// Becomes a copy that is in sync, after it met a peer that has one.
    pub(crate) fn fill(&mut self) {
        self.start_transfer();
        self.end_transfer();
    }

    fn end_transfer(&mut self) {
        let end = hotpair::wire::ResyncEnd { generation: GENERATION, history: Vec::new() };
        self.say(Message::ResyncEnd(end)).unwrap();
        assert!(self.said.iter().any(|it| matches!(it, Message::ResyncDone(_))), "{:?}", self.said);
    }

    /// A primary whose secondary is in sync with it.
    pub(crate) fn primary() -> Self {
        Self::primary_with(LEN, |_| {})
    }

    /// The same with a resource of `len` bytes and other settings.
    pub(crate) fn primary_with(len: usize, edit: impl FnOnce(&mut Settings)) -> Self {
        let mut rig = Self::with(Birth::This, len, edit);
        let command = Command::Promote { force: false, accept_data_loss: false };
        rig.input(Input::Operator { request: 1, command });
        rig.epoch = rig.core.superblock().epoch;
        rig.meet(|hello| {
            hello.role = Role::Secondary;
            hello.generation = None;
            hello.resource_id = ResourceId(0);
            hello.disk = hotpair::units::DiskState::Inconsistent;
            hello.disk_reason = hotpair::units::DiskReason::Fresh;
            (hello.epoch, hello.promised, hello.served_epoch) = (Epoch(0), Epoch(0), Epoch(0));
            hello.serve_mode = ServeMode::None;
        });
        rig.say(Message::MapPart(hotpair::wire::MapPart {
            first_page: 0,
            pages: Bytes::new(),
            last: true,
        }))
        .unwrap();
        rig.say(Message::ResyncReady).unwrap();
        rig.follow_as_target();
        rig
    }

    /// Says what a target says until the source has nothing more to send.
    fn follow_as_target(&mut self) {
        let mut heard = 0;
        for _ in 0..100_000 {
            let Some(message) = self.said.get(heard).cloned() else {
                if self.said.iter().any(|it| matches!(it, Message::ResyncEnd(_))) {
                    return;
                }
                self.tick(Duration::from_millis(50));
                self.say(Message::Pong(hotpair::wire::Beat::default())).unwrap();
                continue;
            };
            heard += 1;
            match message {
                Message::HashOffer(offers) => {
                    let same = |offer: &hotpair::wire::ChunkHash| hotpair::wire::ChunkNeed {
                        chunk: offer.chunk,
                        blocks: None,
                    };
                    self.say(Message::HashNeed(offers.iter().map(same).collect())).unwrap();
                }
                Message::Flush(flush) => self.say(Message::FlushDone(flush)).unwrap(),
                Message::ResyncEnd(end) => self.say(Message::ResyncDone(end)).unwrap(),
                _ => {}
            }
        }
        panic!("the transfer does not end");
    }

    /// Connects, and says a Hello and the verdict that mirrors the core's. The peer is the primary
    /// of [`GENERATION`] unless `edit` makes it something else.
    pub(crate) fn meet(&mut self, edit: impl FnOnce(&mut Hello)) {
        self.connect();
        let mut hello = self.hello();
        edit(&mut hello);
        self.say(Message::Hello(Box::new(hello))).unwrap();
        self.mirror();
    }

    /// Says the verdict that mirrors the core's last one.
    pub(crate) fn mirror(&mut self) {
        let verdict = self.mirrored();
        self.say(Message::Verdict(verdict)).unwrap();
        assert!(self.is_open, "{:?}", self.refusals);
    }

    /// What the core concluded last on this connection, if it did.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.said.iter().rev().find_map(|it| match it {
            Message::Verdict(verdict) => Some(verdict.outcome),
            _ => None,
        })
    }

    /// The verdict that mirrors the core's last one.
    pub(crate) fn mirrored(&self) -> Verdict {
        let mine = self.said.iter().rev().find_map(|it| match it {
            Message::Verdict(verdict) => Some(verdict.clone()),
            _ => None,
        });
        let mine = mine.expect("the core concluded");
        let verdict = Verdict {
            outcome: mine.outcome.mirrored(),
            mine: mine.theirs,
            theirs: mine.mine,
            ..mine
        };
        assert!(
            matches!(verdict.outcome, Outcome::Source(_) | Outcome::Target(_) | Outcome::InSync),
            "{verdict:?}"
        );
        verdict
    }

    pub(crate) fn connect(&mut self) {
        self.links += 1;
        self.is_open = true;
        self.said.clear();
        self.input(Input::LinkUp {
            link: LinkId(self.links),
            nonce: [u8::try_from(self.links % 251).unwrap(); 32],
            exporter: [0; 32],
        });
    }

    /// The peer's Hello, made from what the core said of itself.
    pub(crate) fn hello(&self) -> Hello {
        let mine = self.heard.clone().expect("the core says Hello first");
        Hello {
            node: "alpha".to_owned(),
            nonce: [0xaa; 32],
            counter: 1,
            resource_id: ResourceId(0x77),
            replica_id: ReplicaId(0x11),
            peer_replica_id: ReplicaId(0),
            epoch: EPOCH,
            promised: EPOCH,
            served_epoch: EPOCH,
            generation: Some(GENERATION),
            history: Vec::new(),
            disk: hotpair::units::DiskState::UpToDate,
            disk_reason: hotpair::units::DiskReason::None,
            role: Role::Primary,
            serve_mode: ServeMode::Solo,
            veto: None,
            marks: 0,
            instances: vec![Instance(8)],
            peer_instance: Instance(0),
            boot_id: 9,
            resync_source: None,
            ..mine
        }
    }

    fn start_transfer(&mut self) {
        self.say(Message::ResyncStart(hotpair::wire::ResyncStart {
            transfer: hotpair::units::Transfer::ResyncAll,
            generation: GENERATION,
            blocks: LEN as u64 / BLOCK_LEN,
        }))
        .unwrap();
        assert!(self.said.iter().any(|it| matches!(it, Message::ResyncReady)), "{:?}", self.said);
    }

    /// The peer says `message`, as bytes.
    pub(crate) fn say(&mut self, message: Message) -> Result<(), ProtocolError> {
        let opens = matches!(message, Message::Hello(_) | Message::Refusal(_));
        let session = if opens { SessionId(0) } else { self.session };
        let encoded = encode(&Frame { session, epoch: self.epoch, message });
        let mut head = &encoded.head[..];
        let mut payload = encoded.payload;
        let size = self.core.size();
        while let Some((header, rest)) = head.split_first_chunk::<HEADER_LEN>() {
            let header = decode_header(header, &Limits { size })?;
            let (body, rest) = rest.split_at(header.body_len());
            head = rest;
            let frame = decode(header, body, payload.take(), size)?;
            self.input(Input::Peer { link: LinkId(self.links), frame });
        }
        Ok(())
    }

    /// The core refused the last message and closed the connection.
    #[track_caller]
    pub(crate) fn assert_closed(&self, why: &str) {
        assert!(!self.is_open, "the connection is still open");
        let last = self.refusals.last().map_or("", |text| text);
        assert!(last.contains(why), "closed for another reason: {last:?}");
    }

    /// Steps the core with `input` and with all that follows from it.
    pub(crate) fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let mut effects = Vec::new();
            self.core.step(self.now, input, &mut effects);
            for effect in effects {
                if (self.holds)(&effect) {
                    self.held.push(effect);
                } else {
                    self.carry_out(effect);
                }
            }
        }
    }

    /// The disk does what it kept waiting.
    pub(crate) fn release(&mut self) {
        self.holds = |_| false;
        for effect in std::mem::take(&mut self.held) {
            self.carry_out(effect);
        }
        let now = self.now;
        self.tick(now.since(now));
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, passed: Duration) {
        self.now = self.now.plus(passed);
        self.input(Input::Tick);
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Write { io, range, bytes } => {
                let start = usize::try_from(range.start()).unwrap();
                self.data[start..start + bytes.len()].copy_from_slice(&bytes);
                self.done(io, DiskOutcome::Done);
            }
            Effect::Zero { io, range, .. } => {
                let (start, end) = (range.start(), range.end());
                let range = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                self.data[range].fill(0);
                self.done(io, DiskOutcome::Done);
            }
            Effect::ReadRange { io, range } => {
                let start = usize::try_from(range.start()).unwrap();
                let bytes = &self.data[start..usize::try_from(range.end()).unwrap()];
                self.done(io, DiskOutcome::Bytes(Bytes::copy_from_slice(bytes)));
            }
            Effect::HashChunk { io, chunk } => {
                let (chunk, blocks) = self.hashes(chunk);
                self.done(io, DiskOutcome::Hashes { chunk, blocks });
            }
            Effect::ReadForClient { io, .. } | Effect::SyncData { io } | Effect::Probe { io } => {
                self.done(io, DiskOutcome::Done);
            }
            Effect::WriteSuperblock { ticket, record } => {
                assert_eq!(Superblock::decode(&record.encode()), Ok(*record));
                self.inputs.push_back(Input::Metadata { ticket, result: Ok(()) });
            }
            Effect::AppendLog { ticket, .. } | Effect::SyncMap { ticket, .. } => {
                self.inputs.push_back(Input::Metadata { ticket, result: Ok(()) });
            }
            Effect::Grow { ticket, .. } => {
                let result = Err(GrowFailed::NoSpace);
                self.inputs.push_back(Input::Grown { ticket, result });
            }
            Effect::Send { frame, .. } => {
                if frame.session != SessionId(0) {
                    self.session = frame.session;
                }
                if let Message::Refusal(refusal) = &frame.message {
                    self.refusals.push(refusal.text.clone());
                }
                if let Message::Hello(hello) = &frame.message {
                    self.heard = Some((**hello).clone());
                }
                self.said.push(frame.message);
            }
            Effect::CloseLink { link, .. } => self.is_open &= link != LinkId(self.links),
            Effect::DrawId => {
                let id = 0x2000 + u128::from(self.links);
                self.inputs.push_back(Input::FreshId(id));
            }
            Effect::Reply { .. } => self.replies += 1,
            Effect::Event(_)
            | Effect::AskArbiter(_)
            | Effect::SetTimer { .. }
            | Effect::GrantLease(_)
            | Effect::Services(_)
            | Effect::Fence(_)
            | Effect::Outdate(_)
            | Effect::Connect(_)
            | Effect::OpenExport(_)
            | Effect::Settle
            | Effect::CloseExport(_)
            | Effect::Answer { .. } => {}
        }
    }

    fn done(&mut self, io: IoId, outcome: DiskOutcome) {
        self.inputs.push_back(Input::Disk { io, outcome });
    }

    /// BLAKE3 of a chunk of the data, and of its blocks.
    pub(crate) fn hashes(&self, chunk: ChunkIndex) -> ([u8; 32], Vec<[u8; 32]>) {
        let range = chunk.range(self.core.size()).unwrap();
        let start = usize::try_from(range.start()).unwrap();
        let bytes = &self.data[start..usize::try_from(range.end()).unwrap()];
        let block_len = usize::try_from(BLOCK_LEN).unwrap();
        let blocks = bytes.chunks(block_len).map(|block| *blake3::hash(block).as_bytes());
        (*blake3::hash(bytes).as_bytes(), blocks.collect())
    }
}
