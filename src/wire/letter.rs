//! Letters: what a node and a witness say to each other, each checked before it is read.
//!
//! 24 bytes (magic, length, hash), then a body that bincode wrote. The length is bounded before
//! anything is reserved for it, the hash covers length and body, and what is accepted has one
//! encoding only. Which letters there are is known to whoever sends them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::body;

/// Length of what is in front of a body, in bytes.
pub const HEAD_LEN: usize = 24;
/// Longest letter, in bytes.
pub const LETTER_LEN_MAX: usize = 64 << 10;

const MAGIC: [u8; 4] = *b"HPW1";

/// Why these bytes are no letter.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LetterError {
    /// Something else than hotpair is at the other end, or one end encrypts and the other does not.
    #[error("not a letter of hotpair: it starts with {found:02x?}")]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The length cannot be.
    #[error("a letter of {found} bytes, at most {LETTER_LEN_MAX} are allowed")]
    Length {
        /// What it says.
        found: u64,
    },
    /// It was damaged on its way.
    #[error("a letter does not match its hash")]
    Hash,
    /// It is none that this build knows.
    #[error("a letter cannot be read")]
    Body,
    /// The releases are too far apart.
    #[error(
        "no common protocol version: the other end speaks {their_oldest} to {their_newest}, this \
         build {VERSION}; update the older one"
    )]
    Version {
        /// Oldest version that it speaks.
        their_oldest: u16,
        /// Newest version that it speaks.
        their_newest: u16,
    },
    /// It says something that nobody who keeps to the rules can say.
    #[error("a letter names {what}")]
    Value {
        /// What it names.
        what: &'static str,
    },
}

/// The version of the letters that this build speaks. History: 1, the first.
pub const VERSION: u16 = 1;

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    magic: [u8; 4],
    /// Of the body.
    len: U32,
    hash: [u8; 16],
}

/// A checked head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    len: u32,
    hash: [u8; 16],
}

impl Head {
    /// Bytes of body behind the head.
    pub fn body_len(self) -> usize {
        usize::try_from(self.len).expect("checked: at most 64 KiB")
    }
}

/// Seals a letter.
///
/// # Panics
/// If it is longer than [`LETTER_LEN_MAX`]: its lists and texts are bounded so that none is.
pub fn seal<T: Serialize>(letter: &T) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_LEN];
    body::put(letter, &mut bytes);
    assert!(bytes.len() <= LETTER_LEN_MAX, "a letter of {} bytes is too long", bytes.len());
    let (head, body) = bytes.split_first_chunk_mut::<HEAD_LEN>().expect("reserved");
    let len = u32::try_from(body.len()).expect("at most 64 KiB");
    let layout = Layout { magic: MAGIC, len: len.into(), hash: hash_of(len, body) };
    *head = zerocopy::transmute!(layout);
    bytes
}

/// Checks a head. Nothing was reserved for its body before this.
///
/// # Errors
/// [`LetterError::BadMagic`], [`LetterError::Length`].
pub fn open_head(bytes: &[u8; HEAD_LEN]) -> Result<Head, LetterError> {
    let layout: Layout = zerocopy::transmute!(*bytes);
    if layout.magic != MAGIC {
        return Err(LetterError::BadMagic { found: layout.magic });
    }
    let len = layout.len.get();
    let found = u64::from(len) + HEAD_LEN as u64;
    if found > LETTER_LEN_MAX as u64 {
        return Err(LetterError::Length { found });
    }
    Ok(Head { len, hash: layout.hash })
}

/// Reads what is behind a head.
///
/// # Errors
/// [`LetterError::Hash`], [`LetterError::Body`].
pub fn open_body<T: DeserializeOwned>(head: Head, body: &[u8]) -> Result<T, LetterError> {
    check_body(head, body)?;
    body::whole(body).ok_or(LetterError::Body)
}

/// Reads only how a body starts, which is `len` bytes: what follows may be of another version.
///
/// # Errors
/// As [`open_body`].
pub fn open_start<T: DeserializeOwned>(
    head: Head,
    body: &[u8],
    len: usize,
) -> Result<T, LetterError> {
    check_body(head, body)?;
    body.get(..len).and_then(body::whole).ok_or(LetterError::Body)
}

fn check_body(head: Head, body: &[u8]) -> Result<(), LetterError> {
    if body.len() == head.body_len() && hash_of(head.len, body) == head.hash {
        return Ok(());
    }
    Err(LetterError::Hash)
}

fn hash_of(len: u32, body: &[u8]) -> [u8; 16] {
    let hash = *blake3::Hasher::new().update(&len.to_le_bytes()).update(body).finalize().as_bytes();
    *hash.first_chunk().expect("a BLAKE3 is longer than that")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, LetterError> {
        let (head, body) = bytes.split_first_chunk().ok_or(LetterError::Body)?;
        open_body(open_head(head)?, body)
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_is_taken_for_a_letter() {
        let letter = (7_u32, "seven".to_owned());
        let bytes = seal(&letter);
        assert_eq!(open(&bytes), Ok(letter));
        assert!((0..bytes.len()).all(|len| open::<(u32, String)>(&bytes[..len]).is_err()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open::<(u32, String)>(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_length_is_refused_by_the_head_alone() {
        let mut head = [0; HEAD_LEN];
        head[..4].copy_from_slice(&MAGIC);
        let most = u32::try_from(LETTER_LEN_MAX - HEAD_LEN).unwrap();
        for (len, is_taken) in [(0, true), (most, true), (most + 1, false), (u32::MAX, false)] {
            head[4..8].copy_from_slice(&len.to_le_bytes());
            assert_eq!(open_head(&head).is_ok(), is_taken, "{len}");
        }
    }

    #[test]
    fn a_start_is_read_whatever_follows_it() {
        let bytes = seal(&(0_u32, (3_u16, 9_u16), "of a later version"));
        let (head, body) = bytes.split_first_chunk().unwrap();
        let head = open_head(head).unwrap();
        assert_eq!(open_start(head, body, 8), Ok((0_u32, (3_u16, 9_u16))));
        assert_eq!(open_start::<u64>(head, body, 4000), Err(LetterError::Body));
    }
}
