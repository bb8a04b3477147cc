//! Bodies of control messages, and the only use of bincode.
//!
//! Its limit matters: without one, a length sent by the peer would be allocated as it stands. A
//! body must be used up by what is read from it, so that a message has one encoding only.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bounded::AtMost;
use super::error::ProtocolError;
use super::kind::Kind;
use super::version::Version;
use crate::units::ChunkIndex;

/// Longest body of all types, in bytes.
pub(super) const BODY_LEN_MAX: usize = 65_536;

/// Blocks of a chunk, all but their bytes; of `ChunkData` and `ChunkZero`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct ChunkBlocks {
    pub(super) chunk: ChunkIndex,
    pub(super) mask: u16,
    pub(super) hash: [u8; 32],
    pub(super) more: bool,
}

/// Appends `body` to `out`.
pub(super) fn put<T: Serialize + ?Sized>(body: &T, out: &mut Vec<u8>) {
    bincode::serde::encode_into_std_write(body, out, config())
        .expect("memory takes every byte and our types have no unsized parts");
}

/// Reads a body, all of it.
///
/// # Errors
/// [`ProtocolError::Body`] if it is something else, or something more.
pub(super) fn take<T: DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, ProtocolError> {
    whole(body).ok_or(ProtocolError::Body { kind })
}

/// Reads a value that uses up `body`; `None` if it is something else, or something more.
pub(super) fn whole<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    match bincode::serde::decode_from_slice(body, config()) {
        Ok((value, used)) if used == body.len() => Some(value),
        Ok(_) | Err(_) => None,
    }
}

/// Reads a body that is one list of at most `MAX` elements.
///
/// # Errors
/// As [`take`].
pub(super) fn take_list<T: DeserializeOwned, const MAX: usize>(
    kind: Kind,
    body: &[u8],
) -> Result<Vec<T>, ProtocolError> {
    take::<AtMost<T, MAX>>(kind, body).map(|list| list.0)
}

/// Checks the offered versions at the start of a Hello. They are where they are in every version;
/// what follows them may be unreadable to this one.
///
/// # Errors
/// [`ProtocolError::NoCommonVersion`], or [`ProtocolError::Body`] if it is too short for them.
pub(super) fn check_versions(body: &[u8]) -> Result<Version, ProtocolError> {
    let start = body.get(..4).ok_or(ProtocolError::Body { kind: Kind::Hello })?;
    Version::common(take(Kind::Hello, start)?)
}

fn config() -> Configuration<LittleEndian, Fixint, Limit<BODY_LEN_MAX>> {
    bincode::config::legacy().with_limit::<BODY_LEN_MAX>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_longer_than_allowed_is_refused_by_its_length_alone() {
        for announced in [65_u64, 1 << 20, u64::MAX] {
            let body = announced.to_le_bytes();
            let list = take_list::<u64, 64>(Kind::HashOffer, &body);
            assert_eq!(list, Err(ProtocolError::Body { kind: Kind::HashOffer }));
        }
    }

    #[test]
    fn a_byte_left_over_is_not_overlooked() {
        let mut body = Vec::new();
        put(&7_u64, &mut body);
        assert_eq!(take::<u64>(Kind::Ask, &body), Ok(7));
        body.push(0);
        assert_eq!(take::<u64>(Kind::Ask, &body), Err(ProtocolError::Body { kind: Kind::Ask }));
    }
}
