//! What the parts cost that every write goes through: `cargo bench --bench hot`.
//!
//! Nothing here does I/O. Compare figures of one run on one machine only; what a client sees is
//! measured by `tools/bench`.

#![allow(missing_docs, reason = "criterion's macros make functions without any")]
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed bench")]

#[path = "hot/pair.rs"]
mod pair;

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use hotpair::metadata::{DirtyMap, FileIds};
use hotpair::units::{
    BlockIndex, ByteRange, Epoch, ReplicaId, ResourceId, ResourceSize, Sequence, SessionId,
};
use hotpair::wire::frame::{self, HEADER_LEN, Limits};
use hotpair::wire::message::{Ack, AckStage, Frame, Message, Write};
use hotpair::wire::payload::Payload;
use pair::Pair;

const GIB: u64 = 1 << 30;

criterion_group!(benches, hashing, frames, dirty_map, writes);
criterion_main!(benches);

/// The BLAKE3 of a write, made once and checked once.
fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("hash");
    for (name, len) in [("4 KiB", 4096), ("64 KiB", 65_536)] {
        let bytes = Bytes::from(vec![7; len]);
        group.throughput(Throughput::Bytes(len.try_into().unwrap()));
        group.bench_function(name, |b| b.iter(|| Payload::hash(black_box(bytes.clone()))));
    }
    group.finish();
}

/// A frame to bytes and back. Decoding a write includes the check of its hash.
fn frames(c: &mut Criterion) {
    let size = ResourceSize::new(20 * GIB).unwrap();
    let write = |len: usize| {
        let payload = Payload::hash(vec![7; len].into());
        let range = ByteRange::new(GIB, len.try_into().unwrap(), size).unwrap();
        let (sequence, after) = (Sequence(9), Sequence(4));
        Message::Write(Write { sequence, after, range, fua: false, payload })
    };
    let ack = |sequence| Ack { sequence: Sequence(sequence), stage: AckStage::Applied };
    let messages = [
        ("write 4 KiB", write(4096)),
        ("write 64 KiB", write(65_536)),
        ("64 acks", Message::Acks((1..=64).map(ack).collect())),
    ];
    let mut group = c.benchmark_group("frame");
    for (name, message) in messages {
        let frame = Frame { session: SessionId(5), epoch: Epoch(3), message };
        let mut head = Vec::new();
        group.bench_function(format!("encode {name}"), |b| {
            b.iter(|| {
                head.clear();
                frame::encode_into(black_box(&frame), &mut head)
            });
        });
        let encoded = frame::encode(&frame);
        let (header, body) = encoded.head.split_first_chunk::<HEADER_LEN>().unwrap();
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| {
                let header = frame::decode_header(black_box(header), &Limits { size }).unwrap();
                frame::decode(header, body, encoded.payload.clone(), size).unwrap()
            });
        });
    }
    group.finish();
}

/// The map of a resource of 20 GiB.
fn dirty_map(c: &mut Criterion) {
    let size = ResourceSize::new(20 * GIB).unwrap();
    let ids = FileIds { resource_id: ResourceId(1), replica_id: ReplicaId(2) };
    let mut memory = DirtyMap::<Vec<u8>>::format(size, &ids).to_vec();
    memory.resize(DirtyMap::<Vec<u8>>::file_len(size).try_into().unwrap(), 0);
    let mut map = DirtyMap::open(memory, size).unwrap();

    let mut group = c.benchmark_group("dirty map");
    // An odd stride meets every page.
    let mut at = 0;
    group.bench_function("set and clear a block", |b| {
        b.iter(|| {
            at = (at + 7919) % size.block_count();
            map.set(BlockIndex(at)) && map.clear(BlockIndex(at))
        });
    });
    let large = ByteRange::new(GIB, 1 << 20, size).unwrap().blocks();
    group.bench_function("set and clear 1 MiB", |b| {
        b.iter(|| map.set_range(large) + map.clear_range(large));
    });
    for (name, stride) in
        [("find the marks, 1 of 64 blocks", 64), ("find the marks, 1 GiB apart", GIB / 4096)]
    {
        map.clear_all();
        for block in (0..size.block_count()).step_by(usize::try_from(stride).unwrap()) {
            map.set(BlockIndex(block));
        }
        group.throughput(Throughput::Elements(map.count()));
        group.bench_function(name, |b| {
            b.iter(|| {
                let first = map.next_set(BlockIndex(0));
                let next = |last: &BlockIndex| map.next_set(BlockIndex(last.0 + 1));
                std::iter::successors(first, next).count()
            });
        });
    }
    group.finish();
}

/// One replicated write in mode `sync`, from the request to the reply: every step of both cores,
/// with disks, peer and network that answer at once. Its hash is made before.
fn writes(c: &mut Criterion) {
    let mut group = c.benchmark_group("replicated write");
    for (name, len) in [("4 KiB", 4096), ("64 KiB", 65_536)] {
        let mut pair = Pair::in_sync(ResourceSize::new(GIB).unwrap());
        let payload = Payload::hash(vec![7; len].into());
        group.bench_function(name, |b| b.iter(|| pair.write(payload.clone())));
    }
    group.finish();
}
