//! Checked headers and the bytes behind them as messages.

use bytes::Bytes;

use super::body::{self, ChunkBlocks};
use super::error::ProtocolError;
use super::frame::content_digest;
use super::header::{ACK_LEN, HEAT_LEN, Header};
use super::kind::{CHUNK_ACKS_MAX, CHUNK_HASHES_MAX, Kind, flag};
use super::message::{
    Ack, AckStage, ChunkAck, ChunkData, ChunkHash, ChunkNeed, ChunkZero, Flush, Frame, Hello,
    MapPart, Message, SettleAsk, SettleTell, TreeMessage, Write, Zero,
};
use super::payload::Payload;
use super::plausible;
use crate::units::{ChunkIndex, ExtentIndex, ResourceSize, Sequence, ZeroKind};

/// Makes a message of a checked header and what was read behind it.
///
/// # Errors
/// [`ProtocolError`] if lengths or hash are not those of the header, or the content breaks a rule
/// of its type.
pub fn decode(
    header: Header,
    body: &[u8],
    payload: Option<Bytes>,
    size: ResourceSize,
) -> Result<Frame, ProtocolError> {
    let payload = payload.unwrap_or_default();
    if body.len() != header.body_len() {
        return Err(header.bad_body_length(body.len()));
    }
    if payload.len() != header.payload_len() {
        return Err(header.bad_payload_length(payload.len()));
    }
    let message = if header.kind == Kind::Write {
        Message::Write(take_write(&header, payload, size)?)
    } else if content_digest(body, &payload) == header.digest {
        let message = take_message(&header, body, payload, size)?;
        plausible::check(header.kind, &message, size)?;
        message
    } else {
        return Err(ProtocolError::ContentHash { kind: header.kind });
    };
    Ok(Frame { session: header.session, epoch: header.epoch, message })
}

fn take_write(header: &Header, payload: Bytes, size: ResourceSize) -> Result<Write, ProtocolError> {
    let payload = Payload::check(payload, &header.digest)
        .ok_or(ProtocolError::ContentHash { kind: header.kind })?;
    Ok(Write {
        sequence: header.sequence,
        after: header.after,
        range: header.range(size)?,
        fua: header.has(flag::FUA),
        payload,
    })
}

fn take_message(
    header: &Header,
    body: &[u8],
    payload: Bytes,
    size: ResourceSize,
) -> Result<Message, ProtocolError> {
    let kind = header.kind;
    let flush = Flush { request: header.sequence.0, covers: header.after };
    Ok(match kind {
        Kind::Hello => Message::Hello(take_hello(body)?),
        Kind::Verdict => Message::Verdict(body::take(kind, body)?),
        Kind::Refusal => Message::Refusal(body::take(kind, body)?),
        Kind::Ping => Message::Ping(body::take(kind, body)?),
        Kind::Pong => Message::Pong(body::take(kind, body)?),
        Kind::Write => Message::Write(take_write(header, payload, size)?),
        Kind::Zero => Message::Zero(take_zero(header, size)?),
        Kind::Acks => Message::Acks(take_acks(body)?),
        Kind::Flush => Message::Flush(flush),
        Kind::FlushDone => Message::FlushDone(flush),
        Kind::Heat => Message::Heat(take_heat(header, body, size)?),
        Kind::MapPart => Message::MapPart(MapPart {
            first_page: header.offset,
            pages: payload,
            last: header.has(flag::LAST),
        }),
        Kind::HashOffer => Message::HashOffer(take_offer(header, body, size)?),
        Kind::HashNeed => Message::HashNeed(take_need(header, body, size)?),
        Kind::ChunkData => Message::ChunkData(take_chunk_data(header, body, payload, size)?),
        Kind::ChunkZero => Message::ChunkZero(take_chunk_zero(header, body, size)?),
        Kind::ChunkAcks => Message::ChunkAcks(take_chunk_acks(header, body, size)?),
        Kind::ResyncStart => Message::ResyncStart(body::take(kind, body)?),
        Kind::ResyncReady => Message::ResyncReady,
        Kind::ResyncPause => Message::ResyncPause(body::take(kind, body)?),
        Kind::ResyncEnd => Message::ResyncEnd(body::take(kind, body)?),
        Kind::ResyncDone => Message::ResyncDone(body::take(kind, body)?),
        Kind::SettleAsk => {
            let ask: SettleAsk = body::take(kind, body)?;
            check_chunk(header, ask.chunk, size)?;
            Message::SettleAsk(ask)
        }
        Kind::SettleTell => {
            let tell: SettleTell = body::take(kind, body)?;
            check_block_hashes(header, tell.chunk, tell.blocks.as_deref(), size)?;
            Message::SettleTell(tell)
        }
        Kind::Tree => Message::Tree(TreeMessage {
            note: body::take(kind, body)?,
            payload: Payload::unhashed(payload),
        }),
        Kind::Outdate => Message::Outdate(body::take(kind, body)?),
        Kind::OutdateDone => Message::OutdateDone(body::take(kind, body)?),
        Kind::Leave => Message::Leave(body::take(kind, body)?),
        Kind::HandOver => Message::HandOver(body::take(kind, body)?),
        Kind::HandReady => Message::HandReady(body::take(kind, body)?),
        Kind::HandDone => Message::HandDone(body::take(kind, body)?),
        Kind::Ask => Message::Ask(body::take(kind, body)?),
        Kind::Told => Message::Told(body::take(kind, body)?),
        Kind::Pledge => Message::Pledge(body::take(kind, body)?),
        Kind::Pledged => Message::Pledged(body::take(kind, body)?),
    })
}

fn take_hello(body: &[u8]) -> Result<Box<Hello>, ProtocolError> {
    body::check_versions(body)?;
    body::take(Kind::Hello, body)
}

fn take_zero(header: &Header, size: ResourceSize) -> Result<Zero, ProtocolError> {
    let kind = match (header.has(flag::TRIM), header.has(flag::NO_HOLE)) {
        (true, _) => ZeroKind::Trim,
        (false, true) => ZeroKind::Keep,
        (false, false) => ZeroKind::Punch,
    };
    Ok(Zero {
        sequence: header.sequence,
        after: header.after,
        range: header.range(size)?,
        fua: header.has(flag::FUA),
        kind,
    })
}

fn take_acks(body: &[u8]) -> Result<Vec<Ack>, ProtocolError> {
    let (entries, _) = body.as_chunks::<ACK_LEN>();
    entries.iter().map(take_ack).collect()
}

fn take_ack(entry: &[u8; ACK_LEN]) -> Result<Ack, ProtocolError> {
    let [s0, s1, s2, s3, s4, s5, s6, s7, stage, reserved @ ..] = *entry;
    let stage = match stage {
        1 => AckStage::Received,
        2 => AckStage::Applied,
        3 => AckStage::Durable,
        4 => AckStage::Failed,
        _ => return Err(ProtocolError::Body { kind: Kind::Acks }),
    };
    if reserved != [0; 7] {
        return Err(ProtocolError::NotZero { kind: Kind::Acks });
    }
    let sequence = Sequence(u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]));
    Ok(Ack { sequence, stage })
}

fn take_heat(
    header: &Header,
    body: &[u8],
    size: ResourceSize,
) -> Result<Vec<ExtentIndex>, ProtocolError> {
    let (entries, _) = body.as_chunks::<HEAT_LEN>();
    entries
        .iter()
        .map(|entry| {
            let index = u32::from_le_bytes(*entry);
            if u64::from(index) >= size.extent_count() {
                return Err(header.outside(index.into(), 1, size));
            }
            Ok(ExtentIndex(index))
        })
        .collect()
}

fn take_offer(
    header: &Header,
    body: &[u8],
    size: ResourceSize,
) -> Result<Vec<ChunkHash>, ProtocolError> {
    let hashes = body::take_list::<ChunkHash, CHUNK_HASHES_MAX>(header.kind, body)?;
    hashes.iter().try_for_each(|hash| check_chunk(header, hash.chunk, size))?;
    Ok(hashes)
}

fn take_need(
    header: &Header,
    body: &[u8],
    size: ResourceSize,
) -> Result<Vec<ChunkNeed>, ProtocolError> {
    let needs = body::take_list::<ChunkNeed, CHUNK_HASHES_MAX>(header.kind, body)?;
    for need in &needs {
        check_block_hashes(header, need.chunk, need.blocks.as_deref(), size)?;
    }
    Ok(needs)
}

fn take_chunk_data(
    header: &Header,
    body: &[u8],
    payload: Bytes,
    size: ResourceSize,
) -> Result<ChunkData, ProtocolError> {
    let blocks: ChunkBlocks = body::take(header.kind, body)?;
    let ChunkBlocks { chunk, mask, hash, more } = blocks;
    let len_bytes = masked_len(header, chunk, mask, size)?;
    if u64::from(header.payload_len) != len_bytes {
        return Err(ProtocolError::Mask { kind: header.kind, chunk: chunk.0, mask });
    }
    Ok(ChunkData { chunk, mask, hash, more, payload: Payload::unhashed(payload) })
}

fn take_chunk_zero(
    header: &Header,
    body: &[u8],
    size: ResourceSize,
) -> Result<ChunkZero, ProtocolError> {
    let zero: ChunkZero = body::take(header.kind, body)?;
    masked_len(header, zero.chunk, zero.mask, size)?;
    Ok(zero)
}

fn take_chunk_acks(
    header: &Header,
    body: &[u8],
    size: ResourceSize,
) -> Result<Vec<ChunkAck>, ProtocolError> {
    let acks = body::take_list::<ChunkAck, CHUNK_ACKS_MAX>(header.kind, body)?;
    acks.iter().try_for_each(|ack| check_chunk(header, ack.chunk, size))?;
    Ok(acks)
}

/// Hashes of blocks are those of all blocks of their chunk.
fn check_block_hashes(
    header: &Header,
    chunk: ChunkIndex,
    hashes: Option<&[[u8; 32]]>,
    size: ResourceSize,
) -> Result<(), ProtocolError> {
    check_chunk(header, chunk, size)?;
    let block_count = chunk.blocks(size).iter().count();
    if hashes.is_some_and(|hashes| hashes.len() != block_count) {
        return Err(ProtocolError::Body { kind: header.kind });
    }
    Ok(())
}

fn check_chunk(
    header: &Header,
    chunk: ChunkIndex,
    size: ResourceSize,
) -> Result<(), ProtocolError> {
    if chunk.0 >= size.chunk_count() {
        return Err(header.outside(chunk.0, 1, size));
    }
    Ok(())
}

/// Bytes of the blocks in `mask`, which must name some, and none behind the resource.
fn masked_len(
    header: &Header,
    chunk: ChunkIndex,
    mask: u16,
    size: ResourceSize,
) -> Result<u64, ProtocolError> {
    check_chunk(header, chunk, size)?;
    chunk.masked_len(mask, size).ok_or(ProtocolError::Mask {
        kind: header.kind,
        chunk: chunk.0,
        mask,
    })
}
