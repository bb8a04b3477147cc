//! Chunks that are offered, sent and offered again.

use hotpair::replica::Effect;
use hotpair::units::{ChunkIndex, DiskState};
use hotpair::wire::{ChunkData, ChunkHash, Message, Payload, ResyncEnd};

use crate::rig::{GENERATION, Rig};

const CHUNK: ChunkIndex = ChunkIndex(3);
const CHUNK_LEN: usize = 64 << 10;

/// A chunk of the source that the target lacks, and its hash.
fn other_chunk() -> (Vec<u8>, [u8; 32]) {
    let bytes = vec![0x5a; CHUNK_LEN];
    let hash = *blake3::hash(&bytes).as_bytes();
    (bytes, hash)
}

fn offer(hash: [u8; 32]) -> Message {
    Message::HashOffer(vec![ChunkHash { chunk: CHUNK, hash }])
}

fn data(bytes: &[u8], mask: u16, hash: [u8; 32], more: bool) -> Message {
    let payload = Payload::hash(bytes.to_vec().into());
    Message::ChunkData(ChunkData { chunk: CHUNK, mask, hash, more, payload })
}

fn end() -> Message {
    Message::ResyncEnd(ResyncEnd { generation: GENERATION, history: Vec::new() })
}

fn is_write(effect: &Effect) -> bool {
    matches!(effect, Effect::Write { .. })
}

fn is_hash(effect: &Effect) -> bool {
    matches!(effect, Effect::HashChunk { .. })
}

#[test]
fn a_chunk_that_is_being_written_cannot_be_offered_again() {
    let mut rig = Rig::target();
    let (bytes, hash) = other_chunk();
    rig.say(offer(hash)).unwrap();
    rig.holds = is_write;
    rig.say(data(&bytes, u16::MAX, hash, false)).unwrap();
    assert_eq!(rig.held.len(), 16);
    rig.say(offer(hash)).unwrap();
    rig.assert_closed("HashOffer");
    rig.release();
    assert_eq!(rig.core.in_flight(), []);
}

#[test]
fn a_chunk_whose_hash_is_on_its_way_cannot_be_offered_again() {
    let mut rig = Rig::target();
    rig.holds = is_hash;
    rig.say(offer([1; 32])).unwrap();
    rig.say(offer([2; 32])).unwrap();
    rig.assert_closed("HashOffer");
    assert_eq!(rig.held.len(), 1);
}

#[test]
fn a_chunk_for_which_nothing_came_is_offered_again_and_sent() {
    let mut rig = Rig::target();
    let (bytes, hash) = other_chunk();
    rig.say(offer([9; 32])).unwrap();
    // A client wrote to it at the source meanwhile: nothing is sent for the first offer.
    rig.say(offer(hash)).unwrap();
    rig.say(data(&bytes, u16::MAX, hash, false)).unwrap();
    rig.tick(std::time::Duration::from_millis(300));
    assert!(rig.said.iter().any(|it| matches!(it, Message::ChunkAcks(_))), "{:?}", rig.said);
    rig.say(end()).unwrap();
    assert_eq!(rig.core.superblock().disk, DiskState::UpToDate);
}

#[test]
fn a_chunk_for_which_nothing_came_may_be_the_same_when_it_is_offered_again() {
    let mut rig = Rig::target();
    rig.say(offer([9; 32])).unwrap();
    let (same, _) = rig.hashes(CHUNK);
    rig.say(offer(same)).unwrap();
    rig.say(end()).unwrap();
    assert_eq!(rig.core.superblock().disk, DiskState::UpToDate, "{:?}", rig.said);
}

#[test]
fn a_block_of_a_chunk_comes_once() {
    let mut rig = Rig::target();
    let (bytes, hash) = other_chunk();
    rig.say(offer(hash)).unwrap();
    rig.say(data(&bytes[..4096], 1, hash, true)).unwrap();
    assert!(rig.is_open);
    rig.say(data(&bytes[..8192], 3, hash, true)).unwrap();
    rig.assert_closed("ChunkData");
}

#[test]
fn a_transfer_cannot_end_while_a_chunk_is_in_hand() {
    let mut rig = Rig::target();
    let (bytes, hash) = other_chunk();
    rig.say(offer(hash)).unwrap();
    rig.holds = is_write;
    rig.say(data(&bytes, u16::MAX, hash, false)).unwrap();
    rig.say(end()).unwrap();
    assert_eq!(rig.core.superblock().disk, DiskState::Inconsistent);
    rig.release();
    rig.tick(std::time::Duration::from_millis(300));
    assert_eq!(rig.core.superblock().disk, DiskState::UpToDate);
}

#[test]
fn offers_are_limited_while_the_disk_is_slow() {
    let mut rig = Rig::target();
    rig.holds = is_hash;
    for chunk in (0..16).map(ChunkIndex) {
        rig.say(Message::HashOffer(vec![ChunkHash { chunk, hash: [1; 32] }])).unwrap();
    }
    assert!(rig.is_open);
    assert_eq!(rig.held.len(), 16);
}
