//! One message of every type, and any message at all, for tests.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::kind::{MAP_PAGE_LEN, WRITE_LEN_MAX};
use super::message::*;
use super::packing::Packing;
use super::payload::Payload;
use crate::units::*;

/// The resource that all of them are about; its last block, chunk and extent are short.
pub(super) fn size() -> ResourceSize {
    ResourceSize::new((200 << 20) + 5000).unwrap()
}

/// Each type once, and again where a flag or an option changes the bytes.
pub(super) fn samples() -> Vec<(&'static str, Frame)> {
    let mut all = state_samples();
    all.extend(client_samples());
    all.extend(resync_samples());
    all.extend(command_samples());
    all.extend(tree_samples());
    all.into_iter()
        .map(|(name, message)| {
            let opens = matches!(message, Message::Hello(_) | Message::Refusal(_));
            let session = SessionId(if opens { 0 } else { 0x0123_4567_89ab_cdef });
            (name, Frame { session, epoch: Epoch(0x0001_0002), message })
        })
        .collect()
}

fn state_samples() -> Vec<(&'static str, Message)> {
    let beat =
        Beat { sent_at: 1_000_000_007, stable: Applied { epoch: Epoch(5), sequence: Sequence(9) } };
    vec![
        ("hello", Message::Hello(Box::new(hello()))),
        ("hello-fresh", Message::Hello(Box::new(fresh_hello()))),
        (
            "verdict",
            Message::Verdict(Verdict {
                outcome: Outcome::Source(Transfer::Resync),
                reason: "this node has newer data".into(),
                mine: 1,
                theirs: 2,
                client_credit: Credit { frames: 4096, bytes: 64 << 20 },
                resync_credit: Credit { frames: 128, bytes: 8 << 20 },
            }),
        ),
        (
            "refusal",
            Message::Refusal(Refusal {
                code: RefusalCode::Settings,
                text: "mode differs: sync here, async there".into(),
            }),
        ),
        ("ping", Message::Ping(beat)),
        ("pong", Message::Pong(beat)),
    ]
}

fn hello() -> Hello {
    Hello {
        versions: (1, 1),
        cluster: "office".into(),
        node: "alpha".into(),
        resource: "vm1".into(),
        nonce: std::array::from_fn(|i| u8::try_from(i).unwrap()),
        counter: 3,
        resource_id: ResourceId(0x1111_2222),
        replica_id: ReplicaId(0x3333),
        peer_replica_id: ReplicaId(0x4444),
        size: size().bytes(),
        size_next: 1 << 30,
        epoch: Epoch(9),
        promised: Epoch(10),
        served_epoch: Epoch(5),
        generation: Some(generation(3)),
        history: vec![generation(2), generation(1)],
        disk: DiskState::Outdated,
        disk_reason: DiskReason::LostPower,
        role: Role::Secondary,
        serve_mode: ServeMode::None,
        mode: ReplicationMode::MemSync,
        settings: 0xfeed_beef,
        veto: Some(Veto { reason: VetoReason::PowerLoss, epoch: Epoch(9) }),
        hold: false,
        never_promotes: true,
        stopped: false,
        marks: 17,
        at_risk_bytes: 4096,
        applied: Applied { epoch: Epoch(5), sequence: Sequence(88) },
        peer_applied: Applied { epoch: Epoch(5), sequence: Sequence(87) },
        instances: vec![Instance(7), Instance(6)],
        peer_instance: Instance(8),
        boot_id: 0x5555_6666,
        resync_source: Some(generation(4)),
        resolution: Some(Resolution { kept: generation(3), dropped: generation(4) }),
        zeroing_is_cheap: true,
    }
}

fn fresh_hello() -> Hello {
    Hello {
        resource_id: ResourceId(0),
        generation: None,
        history: Vec::new(),
        disk: DiskState::Inconsistent,
        disk_reason: DiskReason::Fresh,
        veto: None,
        instances: Vec::new(),
        resync_source: None,
        resolution: None,
        zeroing_is_cheap: false,
        ..hello()
    }
}

fn client_samples() -> Vec<(&'static str, Message)> {
    let range = |start, len| ByteRange::new(start, len, size()).unwrap();
    let zero = |kind, fua| {
        let sequence = Sequence(12);
        Message::Zero(Zero { sequence, after: Sequence(11), range: range(8192, 9000), fua, kind })
    };
    let write = |start, bytes: &'static [u8], fua| {
        Message::Write(Write {
            sequence: Sequence(11),
            after: Sequence(4),
            range: range(start, u64::try_from(bytes.len()).unwrap()),
            fua,
            payload: Payload::hash(Bytes::from_static(bytes)),
        })
    };
    let stages = [AckStage::Received, AckStage::Applied, AckStage::Durable, AckStage::Failed];
    let acks = (1..).map(Sequence).zip(stages).map(|(sequence, stage)| Ack { sequence, stage });
    let flush = Flush { request: 6, covers: Sequence(11) };
    vec![
        ("write", write(4096, &[0xa5; 512], false)),
        ("write-fua-at-the-end", write(size().bytes() - 3, b"end", true)),
        ("zero", zero(ZeroKind::Punch, false)),
        ("zero-trim", zero(ZeroKind::Trim, false)),
        ("zero-keep-fua", zero(ZeroKind::Keep, true)),
        ("acks", Message::Acks(acks.collect())),
        ("flush", Message::Flush(flush)),
        ("flush-done", Message::FlushDone(flush)),
        ("heat", Message::Heat(vec![ExtentIndex(0), ExtentIndex(50)])),
    ]
}

fn resync_samples() -> Vec<(&'static str, Message)> {
    let hash = [0x5a; 32];
    let last_chunk = ChunkIndex(size().chunk_count() - 1);
    let end = ResyncEnd { generation: generation(4), history: vec![generation(3)] };
    let pages = Bytes::from_static(&[3; MAP_PAGE_LEN]);
    let data = |chunk, mask, len: usize, more| {
        let payload = Payload::hash(Bytes::from(vec![9; len]));
        Message::ChunkData(ChunkData { chunk, mask, hash, more, payload })
    };
    vec![
        ("map-part", Message::MapPart(MapPart { first_page: 1, pages, last: false })),
        (
            "map-part-last",
            Message::MapPart(MapPart { first_page: 2, pages: Bytes::new(), last: true }),
        ),
        ("hash-offer", Message::HashOffer(vec![ChunkHash { chunk: ChunkIndex(7), hash }])),
        (
            "hash-need",
            Message::HashNeed(vec![
                ChunkNeed { chunk: ChunkIndex(7), blocks: None },
                ChunkNeed { chunk: last_chunk, blocks: Some(vec![[1; 32], [2; 32]]) },
            ]),
        ),
        ("chunk-data", data(ChunkIndex(7), 0b1000_0000_0000_0001, 8192, true)),
        ("chunk-data-short-last-block", data(last_chunk, 0b10, 904, false)),
        (
            "chunk-zero",
            Message::ChunkZero(ChunkZero { chunk: ChunkIndex(7), mask: 6, hash, more: false }),
        ),
        (
            "chunk-acks",
            Message::ChunkAcks(vec![
                ChunkAck { chunk: ChunkIndex(7), stage: ChunkStage::Durable },
                ChunkAck { chunk: last_chunk, stage: ChunkStage::Again },
            ]),
        ),
        (
            "resync-start",
            Message::ResyncStart(ResyncStart {
                transfer: Transfer::ResyncAll,
                generation: generation(4),
                blocks: 51_202,
            }),
        ),
        ("resync-ready", Message::ResyncReady),
        ("resync-pause", Message::ResyncPause(true)),
        ("resync-end", Message::ResyncEnd(end.clone())),
        ("resync-done", Message::ResyncDone(end)),
        (
            "settle-ask",
            Message::SettleAsk(SettleAsk { chunk: ChunkIndex(1), sequence: Sequence(3) }),
        ),
        (
            "settle-tell",
            Message::SettleTell(SettleTell { chunk: ChunkIndex(1), blocks: Some(vec![hash; 16]) }),
        ),
        (
            "settle-tell-unreadable",
            Message::SettleTell(SettleTell { chunk: last_chunk, blocks: None }),
        ),
    ]
}

fn command_samples() -> Vec<(&'static str, Message)> {
    let outdate = Outdate { epoch: Epoch(9), reason: VetoReason::Evicted };
    let hand = HandOver { epoch: Epoch(9), last: Sequence(77), generation: generation(3) };
    let ask = |command| Message::Ask(Ask { request: 4, command });
    vec![
        ("outdate", Message::Outdate(outdate)),
        ("outdate-done", Message::OutdateDone(outdate)),
        ("leave", Message::Leave(Outdate { reason: VetoReason::Left, ..outdate })),
        ("pledge", Message::Pledge(Pledge { number: 2, on: true })),
        ("pledged", Message::Pledged(Pledge { number: 2, on: false })),
        ("hand-over", Message::HandOver(hand)),
        ("hand-ready", Message::HandReady(hand)),
        ("hand-done", Message::HandDone(hand)),
        ("ask-switchover", ask(PeerCommand::Switchover)),
        ("ask-verify", ask(PeerCommand::Verify { repair: true })),
        (
            "ask-resolve",
            ask(PeerCommand::Resolve(Resolution { kept: generation(3), dropped: generation(4) })),
        ),
        ("ask-resize-prepare", ask(PeerCommand::ResizePrepare(1 << 30))),
        ("ask-resize-commit", ask(PeerCommand::ResizeCommit(1 << 30))),
        ("told", told(None, None)),
        ("told-refused", told(Some("not primary".into()), None)),
        (
            "told-verified",
            told(None, Some(Verified { differences: 3, ranges: vec![(0, 8192), (65_536, 4096)] })),
        ),
    ]
}

fn tree_samples() -> Vec<(&'static str, Message)> {
    let position = TreePosition { number: TreeNumber(12), root: TreeRoot([0x6b; 32]) };
    let base = TreePosition { number: TreeNumber(9), root: TreeRoot([0x4d; 32]) };
    let (object, chunk) = (ObjectId(0x1234), 3);
    let scope_digest = [0x2e; 32];
    let want = |first, count| WantedChunks { object, first, count };
    let place = |chunk, len| ChunkPlace { object, chunk, len };
    let table = vec![place(0, 200), place(7, 100)];
    let packed = Packing::Lz4 { raw_len: 300 };
    let note = |name, note| (name, Message::Tree(TreeMessage::bare(note)));
    let with = |name, note, bytes: &'static [u8]| {
        let payload = Payload::unhashed(Bytes::from_static(bytes));
        (name, Message::Tree(TreeMessage { note, payload }))
    };
    vec![
        note(
            "tree-position",
            TreeNote::Position {
                position,
                scope_digest,
                staged_bytes: 70_000,
                free_bytes: 1 << 40,
            },
        ),
        note(
            "tree-position-fresh",
            TreeNote::Position {
                position: TreePosition::default(),
                scope_digest,
                staged_bytes: 0,
                free_bytes: 4096,
            },
        ),
        note(
            "tree-delta-open",
            TreeNote::DeltaOpen { base, number: position.number, entries: 40, bytes: 90_000 },
        ),
        with("tree-delta-records", TreeNote::DeltaRecords { packing: Packing::Raw }, &[0x77; 300]),
        with("tree-delta-records-packed", TreeNote::DeltaRecords { packing: packed }, &BLOCK),
        note(
            "tree-delta-end",
            TreeNote::DeltaEnd { position, label: Label::Stable, fuzzy_count: 0 },
        ),
        note("tree-want", TreeNote::Want { chunks: vec![want(0, 1), want(7, 512)] }),
        with(
            "tree-chunks",
            TreeNote::Chunks { table: table.clone(), packing: Packing::Raw },
            &[0x31; 300],
        ),
        with("tree-chunks-packed", TreeNote::Chunks { table, packing: packed }, &BLOCK),
        note("tree-chunk-gone", TreeNote::ChunkGone { object, chunk }),
        note("tree-staged", TreeNote::Staged { position }),
        note("tree-committed", TreeNote::Committed { position }),
        note("tree-applied", TreeNote::Applied { position }),
        note("tree-records-taken", TreeNote::RecordsTaken { count: 8 }),
        note(
            "tree-refused",
            TreeNote::TreeRefused { why: TreeRefusal::Space, words: "no room for 9 GiB".into() },
        ),
    ]
}

/// 300 bytes of 0x77: one of them, it 294 times more, and five behind that.
pub(super) const BLOCK: [u8; 12] =
    [0x1f, 0x77, 0x01, 0x00, 0xff, 0x14, 0x50, 0x77, 0x77, 0x77, 0x77, 0x77];

fn told(refused: Option<String>, verified: Option<Verified>) -> Message {
    Message::Told(Told { request: 4, refused, verified })
}

fn generation(number: u64) -> Generation {
    Generation { number, id: u128::from(number) << 64 | 0x1234 }
}

/// A frame of any type with any content that its type allows.
pub(super) fn any_frame() -> impl Strategy<Value = Frame> {
    let message = prop_oneof![
        4 => any_client_message(),
        4 => any_resync_message(),
        4 => any_tree_message(),
        2 => proptest::sample::select(samples()).prop_map(|(_, frame)| frame.message),
        1 => any_state_message(),
    ];
    (any::<u64>(), 0..=Epoch::TAKEN_MAX.0, message).prop_map(|(session, epoch, message)| Frame {
        session: SessionId(session),
        epoch: Epoch(epoch),
        message,
    })
}

fn any_client_message() -> impl Strategy<Value = Message> {
    let last = Sequence::TAKEN_MAX.0;
    let order = (0..last).prop_flat_map(move |after| (Just(after), after + 1..=last));
    let kind = prop_oneof![Just(ZeroKind::Trim), Just(ZeroKind::Punch), Just(ZeroKind::Keep)];
    let stage = proptest::sample::select(vec![
        AckStage::Received,
        AckStage::Applied,
        AckStage::Durable,
        AckStage::Failed,
    ]);
    let ack =
        (0..=last, stage).prop_map(|(sequence, stage)| Ack { sequence: Sequence(sequence), stage });
    let extent = (0..51_u32).prop_map(ExtentIndex);
    prop_oneof![
        (order.clone(), any::<bool>(), 0..=size().bytes() - 1, vec(any::<u8>(), 1..9000)).prop_map(
            |((after, sequence), fua, start, mut bytes)| {
                let rest = size().bytes() - start;
                bytes.truncate(usize::try_from(rest.min(WRITE_LEN_MAX.into())).unwrap());
                let len = u64::try_from(bytes.len()).unwrap();
                Message::Write(Write {
                    sequence: Sequence(sequence),
                    after: Sequence(after),
                    range: ByteRange::new(start, len, size()).unwrap(),
                    fua,
                    payload: Payload::hash(bytes.into()),
                })
            }
        ),
        (order, any::<bool>(), kind, 0..=size().bytes() - 1, 1..=64_u64 << 20).prop_map(
            |((after, sequence), fua, kind, start, len)| {
                let len = len.min(size().bytes() - start);
                Message::Zero(Zero {
                    sequence: Sequence(sequence),
                    after: Sequence(after),
                    range: ByteRange::new(start, len, size()).unwrap(),
                    fua,
                    kind,
                })
            }
        ),
        vec(ack, 0..200).prop_map(Message::Acks),
        vec(extent, 0..200).prop_map(Message::Heat),
        (any::<u64>(), 0..=last).prop_map(|(request, covers)| {
            Message::Flush(Flush { request, covers: Sequence(covers) })
        }),
    ]
}

fn any_resync_message() -> impl Strategy<Value = Message> {
    let chunk = || (0..size().chunk_count()).prop_map(ChunkIndex);
    let hash = any::<[u8; 32]>;
    let need = (chunk(), any::<bool>(), hash()).prop_map(|(chunk, differs, hash)| {
        let blocks = chunk.blocks(size()).iter().map(|_| hash).collect();
        ChunkNeed { chunk, blocks: differs.then_some(blocks) }
    });
    prop_oneof![
        (chunk(), 1..=u16::MAX, hash(), any::<(bool, u8)>()).prop_map(
            |(chunk, mask, hash, (more, byte))| {
                let whole = chunk.blocks(size()).block_count();
                let mask = mask & u16::try_from((1_u32 << whole) - 1).unwrap();
                let mask = mask.max(1);
                let len = chunk.masked_len(mask, size()).unwrap();
                let payload = Payload::hash(vec![byte; usize::try_from(len).unwrap()].into());
                Message::ChunkData(ChunkData { chunk, mask, hash, more, payload })
            }
        ),
        vec((chunk(), hash()).prop_map(|(chunk, hash)| ChunkHash { chunk, hash }), 0..=64)
            .prop_map(Message::HashOffer),
        vec(need, 0..=64).prop_map(Message::HashNeed),
        vec(chunk().prop_map(|chunk| ChunkAck { chunk, stage: ChunkStage::Durable }), 0..=256)
            .prop_map(Message::ChunkAcks),
        (0..=1_u64, any::<u8>(), any::<bool>()).prop_map(|(first_page, byte, last)| {
            let pages = vec![byte; MAP_PAGE_LEN * usize::try_from(2 - first_page).unwrap()];
            Message::MapPart(MapPart { first_page, pages: pages.into(), last })
        }),
    ]
}

fn any_tree_message() -> impl Strategy<Value = Message> {
    let position = || {
        (1..=TreeNumber::MAX.0, 1..=u8::MAX).prop_map(|(number, byte)| TreePosition {
            number: TreeNumber(number),
            root: TreeRoot([byte; 32]),
        })
    };
    let object = || (1..=ObjectId::MAX.0).prop_map(ObjectId);
    let want = (object(), 0..1_u64 << 20, 1..1000_u32)
        .prop_map(|(object, first, count)| WantedChunks { object, first, count });
    let place = (object(), 0..1_u64 << 20, 1..200_u32)
        .prop_map(|(object, chunk, len)| ChunkPlace { object, chunk, len });
    let note = |note| Message::Tree(TreeMessage::bare(note));
    let packing = |len, more| match more {
        0 => Packing::Raw,
        more => Packing::Lz4 { raw_len: u32::try_from(len).unwrap() + more },
    };
    let filled = |note, len| {
        let payload = Payload::unhashed(vec![0x5c; len].into());
        Message::Tree(TreeMessage { note, payload })
    };
    prop_oneof![
        (position(), any::<[u8; 32]>(), 0..1_u64 << 62).prop_map(
            move |(position, scope_digest, bytes)| {
                let (staged_bytes, free_bytes) = (bytes / 2, bytes);
                note(TreeNote::Position { position, scope_digest, staged_bytes, free_bytes })
            }
        ),
        (position(), 0..1_u64 << 34).prop_map(move |(base, entries)| {
            let number = TreeNumber((base.number.0 + 1).min(TreeNumber::MAX.0));
            let from = if number > base.number { base } else { TreePosition::default() };
            note(TreeNote::DeltaOpen { base: from, number, entries, bytes: entries })
        }),
        (1..5000_usize, 0..5000_u32).prop_map(move |(len, more)| {
            filled(TreeNote::DeltaRecords { packing: packing(len, more) }, len)
        }),
        vec(want, 1..=300).prop_map(move |chunks| note(TreeNote::Want { chunks })),
        (vec(place, 1..=300), any::<u32>()).prop_map(move |(table, part)| {
            let len: u32 = table.iter().map(|place| place.len).sum();
            let packed_len = part % len;
            let (packing, len) = match packed_len {
                0 => (Packing::Raw, len),
                packed_len => (Packing::Lz4 { raw_len: len }, packed_len),
            };
            filled(TreeNote::Chunks { table, packing }, usize::try_from(len).unwrap())
        }),
        position().prop_map(move |position| note(TreeNote::Applied { position })),
    ]
}

fn any_state_message() -> impl Strategy<Value = Message> {
    let generation = || {
        (1..=Generation::NUMBER_TAKEN_MAX, 1..=u128::MAX)
            .prop_map(|(number, id)| Generation { number, id })
    };
    prop_oneof![
        (
            "[a-z]{0,255}",
            vec(generation(), 0..=HISTORY_LEN_MAX),
            vec((1..=u64::MAX).prop_map(Instance), 0..=INSTANCES_LEN_MAX),
            (0..=RESOURCE_LEN_MAX / BLOCK_LEN, size().bytes()..=RESOURCE_LEN_MAX, any::<u128>()),
        )
            .prop_map(|(name, history, instances, (marks, size_next, boot_id))| {
                Message::Hello(Box::new(Hello {
                    cluster: name.clone(),
                    node: name.clone(),
                    resource: name,
                    history,
                    instances,
                    marks,
                    size_next,
                    boot_id,
                    ..hello()
                }))
            }),
        "[^\\p{C}\u{2028}\u{2029}]{0,128}"
            .prop_map(|text| { Message::Refusal(Refusal { code: RefusalCode::Protocol, text }) }),
        (generation(), vec(generation(), 0..=HISTORY_LEN_MAX)).prop_map(|(generation, history)| {
            Message::ResyncEnd(ResyncEnd { generation, history })
        }),
    ]
}
