//! Facts about all messages at once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;

use super::frame::{HEADER_LEN, Limits, decode, decode_header, encode, session_id};
use super::kind::{ACKS_MAX, Kind};
use super::message::{Ack, AckStage, Frame, Message, Refusal, RefusalCode};
use super::samples::{any_frame, samples, size};
use super::{ProtocolError, WRITE_LEN_MAX};
use crate::units::{Epoch, Sequence, SessionId};

/// Header, body and payload one behind the other, as they are on the wire.
fn on_the_wire(frame: &Frame) -> Vec<u8> {
    let encoded = encode(frame);
    let mut bytes = encoded.head;
    bytes.extend_from_slice(&encoded.payload.unwrap_or_default());
    bytes
}

/// Reads as the link does; `None` where it would wait for more.
fn read(bytes: &[u8]) -> Option<Result<(Frame, usize), ProtocolError>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let header = match decode_header(header, &Limits { size: size() }) {
        Ok(header) => header,
        Err(error) => return Some(Err(error)),
    };
    let (body, rest) = rest.split_at_checked(header.body_len())?;
    let payload = rest.get(..header.payload_len())?;
    let payload = (!payload.is_empty()).then(|| Bytes::copy_from_slice(payload));
    let used = HEADER_LEN + header.body_len() + header.payload_len();
    Some(decode(header, body, payload, size()).map(|frame| (frame, used)))
}

/// Makes the hashes of a changed header right again, as a malicious peer would.
fn sign(bytes: &mut [u8]) {
    let hash = blake3::hash(&bytes[..112]);
    bytes[112..128].copy_from_slice(&hash.as_bytes()[..16]);
}

#[test]
fn every_type_has_a_sample() {
    let kinds: BTreeSet<_> = samples().iter().map(|(_, frame)| Kind::of(&frame.message)).collect();
    assert_eq!(kinds.len(), Kind::ALL.len());
}

#[test]
fn the_bytes_of_every_message_are_those_of_the_first_release() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/frame");
    let bless = std::env::var_os("HOTPAIR_BLESS").is_some();
    for (name, frame) in samples() {
        let bytes = on_the_wire(&frame);
        let path = folder.join(format!("v1-{name}"));
        if bless {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(bytes == golden, "{name} looks different: make it a new version");
        assert_eq!(read(&golden), Some(Ok((frame, golden.len()))), "{name}");
    }
}

#[test]
fn no_truncation_is_taken_for_a_frame() {
    for (name, frame) in samples() {
        let bytes = on_the_wire(&frame);
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_none(), "{name} cut to {len}");
        }
    }
}

#[test]
fn no_flipped_bit_is_taken_for_a_frame() {
    for (name, frame) in samples() {
        let mut bytes = on_the_wire(&frame);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(read(&bytes), Some(Err(_))), "{name} with bit {bit} flipped");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn a_flipped_and_signed_header_bit_is_refused_or_means_what_it_says() {
    for (name, frame) in samples() {
        let good = on_the_wire(&frame);
        for bit in 0..112 * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            sign(&mut bytes);
            if let Some(Ok((changed, used))) = read(&bytes) {
                assert_ne!(changed, frame, "{name} with bit {bit} flipped");
                assert_eq!(on_the_wire(&changed), bytes[..used], "{name} with bit {bit} flipped");
            }
        }
    }
}

#[test]
fn no_length_is_believed_beyond_what_its_type_allows() {
    for (name, frame) in samples() {
        let good = on_the_wire(&frame);
        for (at, limit) in [(52, 65_536), (56, WRITE_LEN_MAX)] {
            for len in [limit + 1, u32::MAX] {
                let mut bytes = good.clone();
                bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
                sign(&mut bytes);
                let header = bytes.first_chunk().unwrap();
                let error = decode_header(header, &Limits { size: size() }).unwrap_err();
                let is_about_length = matches!(
                    error,
                    ProtocolError::BodyLength { .. } | ProtocolError::PayloadLength { .. }
                );
                assert!(is_about_length, "{name}: {error}");
            }
        }
    }
}

#[test]
fn a_frame_of_an_unknown_version_is_refused_by_both_numbers() {
    let frame = Frame { session: SessionId(1), epoch: Epoch(1), message: Message::ResyncReady };
    let mut bytes = on_the_wire(&frame);
    bytes[4] = 2;
    sign(&mut bytes);
    let error = read(&bytes).unwrap().unwrap_err();
    assert_eq!(error.to_string(), "protocol version 2 in ResyncReady, this build speaks 1 to 1");
}

#[test]
fn a_hello_of_another_release_is_refused_by_its_versions_even_if_nothing_else_is_readable() {
    let (_, frame) = samples().into_iter().find(|(name, _)| *name == "hello").unwrap();
    let mut bytes = on_the_wire(&frame)[..HEADER_LEN].to_vec();
    let body = [2, 0, 3, 0, 0xff, 0xff, 0xff];
    bytes.extend_from_slice(&body);
    bytes[52..56].copy_from_slice(&7_u32.to_le_bytes());
    bytes[64..96].copy_from_slice(blake3::hash(&body).as_bytes());
    sign(&mut bytes);
    let error = read(&bytes).unwrap().unwrap_err();
    assert!(matches!(error, ProtocolError::NoCommonVersion { their_newest: 3, .. }), "{error}");
}

#[test]
fn a_list_too_long_for_one_frame_becomes_several() {
    let acks: Vec<_> = (1..=2 * 4096 + 1)
        .map(|sequence| Ack { sequence: Sequence(sequence), stage: AckStage::Applied })
        .collect();
    let message = Message::Acks(acks.clone());
    let bytes = on_the_wire(&Frame { session: SessionId(1), epoch: Epoch(1), message });
    let mut rest = &bytes[..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (frame, used) = read(rest).unwrap().unwrap();
        let Message::Acks(part) = frame.message else { panic!("{frame:?}") };
        assert!(part.len() <= ACKS_MAX);
        found.extend(part);
        rest = &rest[used..];
    }
    assert_eq!(found, acks);
}

#[test]
fn a_text_too_long_for_a_message_arrives_cut() {
    let refusal = Refusal { code: RefusalCode::Protocol, text: "x".repeat(2000) };
    let message = Message::Refusal(refusal);
    let bytes = on_the_wire(&Frame { session: SessionId(0), epoch: Epoch(1), message });
    let (frame, _) = read(&bytes).unwrap().unwrap();
    assert!(matches!(frame.message, Message::Refusal(refusal) if refusal.text.len() == 512));
}

#[test]
fn a_write_needs_no_allocation_beside_its_header() {
    let (_, frame) = samples().into_iter().find(|(name, _)| *name == "write").unwrap();
    let mut out = Vec::with_capacity(HEADER_LEN);
    let payload = super::frame::encode_into(&frame, &mut out).unwrap();
    assert_eq!((out.len(), out.capacity()), (HEADER_LEN, HEADER_LEN));
    let Message::Write(write) = &frame.message else { panic!("{frame:?}") };
    assert_eq!(payload.as_ptr(), write.payload.bytes().as_ptr(), "the payload is shared");
}

#[test]
fn a_session_depends_on_all_three_of_its_parts() {
    let (a, b, c) = ([1; 32], [2; 32], [3; 32]);
    let ids: BTreeSet<_> = [(a, b, c), (b, a, c), (a, b, a), (a, c, c), (c, b, c)]
        .iter()
        .map(|(x, y, z)| session_id(x, y, z))
        .collect();
    assert_eq!(ids.len(), 5);
    let whole = blake3::hash(&[a, b, c].concat());
    let id = u64::from_le_bytes(*whole.as_bytes().first_chunk().unwrap());
    assert_eq!(session_id(&a, &b, &c), SessionId(id));
}

proptest! {
    #[test]
    fn a_frame_survives_the_wire(frame in any_frame()) {
        let bytes = on_the_wire(&frame);
        prop_assert_eq!(read(&bytes), Some(Ok((frame, bytes.len()))));
    }

    #[test]
    fn any_signed_header_is_refused_or_encodes_back(
        frame in any_frame(),
        at in 0..112_usize,
        change in any::<[u8; 4]>(),
    ) {
        let mut bytes = on_the_wire(&frame);
        let end = (at + 4).min(112);
        bytes[at..end].copy_from_slice(&change[..end - at]);
        sign(&mut bytes);
        if let Some(Ok((changed, used))) = read(&bytes) {
            prop_assert_eq!(on_the_wire(&changed), &bytes[..used]);
        }
    }
}
