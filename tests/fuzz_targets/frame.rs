//! A stream of frames from a peer.

use bytes::Bytes;
use hotpair::units::ResourceSize;
use hotpair::wire::frame::{HEADER_LEN, Limits, decode, decode_header, encode};
#[cfg(feature = "directory")]
use hotpair::wire::{Message, TreeNote};

/// Size of the resource that the recorded frames are about.
const RESOURCE_LEN: u64 = (200 << 20) + 5000;

/// Reads frames one behind the other until one is refused or cut short.
pub(crate) fn run(mut bytes: &[u8]) {
    let size = ResourceSize::new(RESOURCE_LEN).unwrap();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let Ok(header) = decode_header(header, &Limits { size }) else { return };
        assert!(header.body_len() <= 64 << 10, "a body is limited before it is read");
        assert!(header.payload_len() <= 1 << 20, "a payload is limited before it is read");
        let Some((body, rest)) = rest.split_at_checked(header.body_len()) else { return };
        let Some((payload, rest)) = rest.split_at_checked(header.payload_len()) else { return };
        let payload = (!payload.is_empty()).then(|| Bytes::copy_from_slice(payload));
        let Ok(frame) = decode(header, body, payload, size) else { return };
        let encoded = encode(&frame);
        let again = [&encoded.head[..], encoded.payload.as_deref().unwrap_or_default()].concat();
        assert!(again == bytes[..bytes.len() - rest.len()], "{frame:?} encodes to other bytes");
        #[cfg(feature = "directory")]
        unpack(&frame.message);
        bytes = rest;
    }
}

/// Reads what travelled compressed, as the thread that uses it does.
#[cfg(feature = "directory")]
fn unpack(message: &Message) {
    let Message::Tree(tree) = message else { return };
    let (TreeNote::DeltaRecords { packing } | TreeNote::Chunks { packing, .. }) = &tree.note else {
        return;
    };
    let mut buffer = Vec::new();
    if let Some(content) = packing.content(tree.payload.bytes(), &mut buffer) {
        assert!(content.len() <= 1 << 20, "content is limited before it is made");
    }
    assert!(buffer.capacity() <= 1 << 20, "memory is limited before content is made");
}

/// Gives every frame the hashes that a peer that means harm would give it.
pub(crate) fn repair(mut bytes: &mut [u8]) {
    while let Some((header, rest)) = bytes.split_first_chunk_mut::<HEADER_LEN>() {
        let len_at = |at: usize| {
            let field = header[at..at + 4].try_into().unwrap();
            usize::try_from(u32::from_le_bytes(field)).unwrap()
        };
        let content_len = len_at(52).saturating_add(len_at(56));
        let content = rest.get(..content_len).unwrap_or(rest);
        header[64..96].copy_from_slice(blake3::hash(content).as_bytes());
        let hash = blake3::hash(&header[..112]);
        header[112..].copy_from_slice(&hash.as_bytes()[..16]);
        bytes = rest.split_at_mut_checked(content_len).map_or(&mut [], |(_, rest)| rest);
    }
}
