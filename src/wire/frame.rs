//! Messages as bytes: header, body, payload.
//!
//! The first 16 bytes of a BLAKE3 cover the header and, through the hash of body and payload in
//! it, all the rest. What is accepted has one encoding only: encoding it again gives the bytes
//! that were read.

use bytes::Bytes;
use serde::Serialize;

use super::body::{self, ChunkBlocks};
use super::kind::{ACKS_MAX, CHUNK_ACKS_MAX, HEAT_MAX, Kind, MAP_PAGE_LEN, flag};
use super::message::{
    Ack, AckStage, ChunkData, Flush, Frame, MapPart, Message, TreeMessage, Write, Zero,
};
use super::payload::Payload;
use crate::units::{ExtentIndex, Sequence, SessionId, ZeroKind};

pub use super::decode::decode;
pub use super::header::{HEADER_LEN, Header, Limits, MAGIC, decode_header};

/// A frame as it is sent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EncodedFrame {
    /// Header and body.
    pub head: Vec<u8>,
    /// What follows them; never copied.
    pub payload: Option<Bytes>,
}

/// The id of a session: the first 8 bytes of a BLAKE3 over both nonces, that of the node that
/// sorts first in front, and what TLS exports for this connection (zeroes without TLS).
pub fn session_id(
    nonce_first: &[u8; 32],
    nonce_second: &[u8; 32],
    exporter: &[u8; 32],
) -> SessionId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(nonce_first).update(nonce_second).update(exporter);
    let hash = hasher.finalize();
    let id = u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a BLAKE3 is longer"));
    // Zero means "no session".
    SessionId(id.max(1))
}

/// Encodes one frame.
///
/// # Panics
/// As [`encode_into`].
pub fn encode(frame: &Frame) -> EncodedFrame {
    let mut head = Vec::new();
    let payload = encode_into(frame, &mut head);
    EncodedFrame { head, payload }
}

/// Appends header and body to `out` and returns the payload, which is sent behind them. Lists of
/// acknowledgements and extents that are too long for one frame become several, one behind the
/// other, which mean the same.
///
/// # Panics
/// If a message breaks a limit of its type that a peer would refuse: the core that made it is
/// wrong.
pub fn encode_into(frame: &Frame, out: &mut Vec<u8>) -> Option<Bytes> {
    let header = Header::blank(Kind::of(&frame.message), frame.session, frame.epoch);
    match &frame.message {
        Message::Write(write) => return Some(put_write(header, write, out)),
        Message::Zero(zero) => put_zero(header, zero, out),
        Message::Flush(flush) | Message::FlushDone(flush) => put_flush(header, *flush, out),
        Message::MapPart(part) => return put_map_part(header, part, out),
        Message::ChunkData(data) => return Some(put_chunk_data(header, data, out)),
        Message::Tree(tree) => return put_tree(header, tree, out),
        Message::Acks(acks) => {
            for part in parts(acks, ACKS_MAX) {
                put(Header { length: count(part), ..header }, out, |out| put_acks(part, out));
            }
        }
        Message::Heat(extents) => {
            for part in parts(extents, HEAT_MAX) {
                put(Header { length: count(part), ..header }, out, |out| put_heat(part, out));
            }
        }
        Message::ChunkAcks(acks) => {
            for part in parts(acks, CHUNK_ACKS_MAX) {
                put(header, out, |out| body::put(part, out));
            }
        }
        message => put(header, out, |out| put_body(message, out)),
    }
    None
}

/// Appends a frame without payload.
fn put(header: Header, out: &mut Vec<u8>, put_body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    put_body(out);
    let digest = content_digest(after_header(out, start), &[]);
    finish(Header { digest, ..header }, out, start);
}

/// Fills in the header of the frame that begins at `start` and whose body ends `out`.
fn finish(header: Header, out: &mut [u8], start: usize) {
    let body_len = u32::try_from(after_header(out, start).len()).expect("a body is below 4 GiB");
    let (least, most) = header.kind.rules().body;
    assert!(
        (least..=most).contains(&body_len),
        "body of {:?} has {body_len} bytes, allowed are {least} to {most}",
        header.kind,
    );
    let bytes = Header { body_len, ..header }.encode();
    out.get_mut(start..start + HEADER_LEN).expect("reserved").copy_from_slice(&bytes);
}

fn after_header(out: &[u8], start: usize) -> &[u8] {
    out.get(start + HEADER_LEN..).expect("a header was reserved")
}

/// The hash in the header: of the body, then the payload.
pub(super) fn content_digest(body: &[u8], payload: &[u8]) -> [u8; 32] {
    match (body, payload) {
        ([], []) => EMPTY_DIGEST,
        ([], only) | (only, []) => *blake3::hash(only).as_bytes(),
        _ => *blake3::Hasher::new().update(body).update(payload).finalize().as_bytes(),
    }
}

/// BLAKE3 of nothing.
const EMPTY_DIGEST: [u8; 32] = [
    0xaf, 0x13, 0x49, 0xb9, 0xf5, 0xf9, 0xa1, 0xa6, 0xa0, 0x40, 0x4d, 0xea, 0x36, 0xdc, 0xc9, 0x49,
    0x9b, 0xcb, 0x25, 0xc9, 0xad, 0xc1, 0x12, 0xb7, 0xcc, 0x9a, 0x93, 0xca, 0xe4, 0x1f, 0x32, 0x62,
];

/// The hot path: one append, no allocation, and the hash is the one that the client's bytes got.
fn put_write(header: Header, write: &Write, out: &mut Vec<u8>) -> Bytes {
    let len = payload_len(write.payload.bytes(), &header);
    assert_eq!(u64::from(len), write.range.len(), "a write is as long as its payload");
    let header = Header {
        flags: if write.fua { flag::FUA } else { 0 },
        sequence: write.sequence,
        after: write.after,
        offset: write.range.start(),
        length: len,
        payload_len: len,
        digest: write.payload.digest(),
        ..header
    };
    out.extend_from_slice(&header.encode());
    write.payload.bytes().clone()
}

fn put_zero(header: Header, zero: &Zero, out: &mut Vec<u8>) {
    let kind = match zero.kind {
        ZeroKind::Trim => flag::TRIM,
        ZeroKind::Punch => 0,
        ZeroKind::Keep => flag::NO_HOLE,
    };
    let header = Header {
        flags: kind | if zero.fua { flag::FUA } else { 0 },
        sequence: zero.sequence,
        after: zero.after,
        offset: zero.range.start(),
        length: u32::try_from(zero.range.len()).expect("the core cuts at 64 MiB"),
        digest: EMPTY_DIGEST,
        ..header
    };
    out.extend_from_slice(&header.encode());
}

fn put_flush(header: Header, flush: Flush, out: &mut Vec<u8>) {
    let header = Header {
        sequence: Sequence(flush.request),
        after: flush.covers,
        digest: EMPTY_DIGEST,
        ..header
    };
    out.extend_from_slice(&header.encode());
}

fn put_map_part(header: Header, part: &MapPart, out: &mut Vec<u8>) -> Option<Bytes> {
    let header = Header {
        flags: if part.last { flag::LAST } else { 0 },
        offset: part.first_page,
        length: u32::try_from(part.pages.len() / MAP_PAGE_LEN).expect("at most 16"),
        payload_len: payload_len(&part.pages, &header),
        digest: content_digest(&[], &part.pages),
        ..header
    };
    out.extend_from_slice(&header.encode());
    (!part.pages.is_empty()).then(|| part.pages.clone())
}

fn put_chunk_data(header: Header, data: &ChunkData, out: &mut Vec<u8>) -> Bytes {
    let &ChunkData { chunk, mask, hash, more, ref payload } = data;
    put_with_payload(header, &ChunkBlocks { chunk, mask, hash, more }, payload, out)
}

fn put_tree(header: Header, tree: &TreeMessage, out: &mut Vec<u8>) -> Option<Bytes> {
    let payload = put_with_payload(header, &tree.note, &tree.payload, out);
    (!payload.is_empty()).then_some(payload)
}

/// Appends header and body, and returns the payload, which only this frame's hash covers.
fn put_with_payload<T: Serialize>(
    header: Header,
    body: &T,
    payload: &Payload,
    out: &mut Vec<u8>,
) -> Bytes {
    let start = out.len();
    out.resize(start + HEADER_LEN, 0);
    body::put(body, out);
    let header = Header {
        payload_len: payload_len(payload.bytes(), &header),
        digest: content_digest(after_header(out, start), payload.bytes()),
        ..header
    };
    finish(header, out, start);
    payload.bytes().clone()
}

fn payload_len(payload: &Bytes, header: &Header) -> u32 {
    let (least, most) = header.kind.rules().payload;
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    assert!(
        (least..=most).contains(&len),
        "payload of {:?} has {len} bytes, allowed are {least} to {most}",
        header.kind,
    );
    len
}

/// The bodies that bincode writes.
fn put_body(message: &Message, out: &mut Vec<u8>) {
    match message {
        Message::Hello(hello) => body::put(hello.as_ref(), out),
        Message::Verdict(verdict) => body::put(verdict, out),
        Message::Refusal(refusal) => body::put(refusal, out),
        Message::Ping(beat) | Message::Pong(beat) => body::put(beat, out),
        Message::HashOffer(hashes) => body::put(hashes, out),
        Message::HashNeed(needs) => body::put(needs, out),
        Message::ChunkZero(zero) => body::put(zero, out),
        Message::ResyncStart(start) => body::put(start, out),
        Message::ResyncReady => {}
        Message::ResyncPause(paused) => body::put(paused, out),
        Message::ResyncEnd(end) | Message::ResyncDone(end) => body::put(end, out),
        Message::SettleAsk(ask) => body::put(ask, out),
        Message::SettleTell(tell) => body::put(tell, out),
        Message::Outdate(outdate) | Message::OutdateDone(outdate) | Message::Leave(outdate) => {
            body::put(outdate, out);
        }
        Message::HandOver(hand) | Message::HandReady(hand) | Message::HandDone(hand) => {
            body::put(hand, out);
        }
        Message::Ask(ask) => body::put(ask, out),
        Message::Told(told) => body::put(told, out),
        Message::Pledge(pledge) | Message::Pledged(pledge) => body::put(pledge, out),
        Message::Write(_)
        | Message::Zero(_)
        | Message::Flush(_)
        | Message::FlushDone(_)
        | Message::MapPart(_)
        | Message::ChunkData(_)
        | Message::Tree(_)
        | Message::Acks(_)
        | Message::Heat(_)
        | Message::ChunkAcks(_) => unreachable!("encoded without bincode, or in parts"),
    }
}

fn put_acks(acks: &[Ack], out: &mut Vec<u8>) {
    for ack in acks {
        let stage = match ack.stage {
            AckStage::Received => 1,
            AckStage::Applied => 2,
            AckStage::Durable => 3,
            AckStage::Failed => 4,
        };
        out.extend_from_slice(&ack.sequence.0.to_le_bytes());
        out.extend_from_slice(&[stage, 0, 0, 0, 0, 0, 0, 0]);
    }
}

fn put_heat(extents: &[ExtentIndex], out: &mut Vec<u8>) {
    for extent in extents {
        out.extend_from_slice(&extent.0.to_le_bytes());
    }
}

/// Cuts a list; an empty one is one part.
fn parts<T>(list: &[T], len_max: usize) -> impl Iterator<Item = &[T]> {
    list.is_empty().then_some(list).into_iter().chain(list.chunks(len_max))
}

fn count<T>(part: &[T]) -> u32 {
    u32::try_from(part.len()).expect("parts are short")
}
