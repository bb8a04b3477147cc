//! How NBD looks byte by byte: bytes to types and back, without I/O.
//!
//! [`option`] is what is said before an export is open, [`transmission`] what is said then, and
//! [`client`] the other half of both. Every number is big endian. What a valid message means, and
//! which one is allowed when, is left to the rest of `nbd`. Rules are cited by their number in the
//! design page (N1 to N51); their source is the NBD protocol document.

#![deny(clippy::indexing_slicing)]

pub mod client;
pub mod option;
pub mod transmission;

use crate::units::ResourceSize;

/// Longest payload of a request or of an answer to READ in bytes. Source: NBD protocol, "Block
/// size constraints", the most that a portable client sends.
pub const PAYLOAD_LEN_MAX: u32 = 32 << 20;
/// Longest name, description, query or error text in bytes. Source: NBD protocol, "Strings".
pub const TEXT_LEN_MAX: usize = 4096;

/// What client and server agreed on for one connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Terms {
    /// The size that the client was told; requests beyond it fail (N51).
    pub size: ResourceSize,
    /// READ is answered in chunks (N28).
    pub structured: bool,
    /// `BLOCK_STATUS` answers for `base:allocation`; only with structured replies (N19).
    pub base_allocation: bool,
}

impl Terms {
    /// The transmission flags of the export (N25).
    pub fn flags(&self) -> u16 {
        transmission_flags(self.structured)
    }
}

/// The transmission flags of any export here (N25).
pub fn transmission_flags(structured: bool) -> u16 {
    const HAS_FLAGS: u16 = 1;
    const SEND_FLUSH: u16 = 1 << 2;
    const SEND_FUA: u16 = 1 << 3;
    const SEND_TRIM: u16 = 1 << 5;
    const SEND_WRITE_ZEROES: u16 = 1 << 6;
    const SEND_DF: u16 = 1 << 7;
    const CAN_MULTI_CONN: u16 = 1 << 8;
    const SEND_CACHE: u16 = 1 << 10;
    const SEND_FAST_ZERO: u16 = 1 << 11;
    let always = HAS_FLAGS
        | SEND_FLUSH
        | SEND_FUA
        | SEND_TRIM
        | SEND_WRITE_ZEROES
        | CAN_MULTI_CONN
        | SEND_CACHE
        | SEND_FAST_ZERO;
    if structured { always | SEND_DF } else { always }
}

/// Takes one field after the other from the front of some bytes.
#[derive(Clone, Copy, Debug)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn bytes(&mut self, len: u32) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(head)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

/// The start of `text` that fits into [`TEXT_LEN_MAX`], without a NUL (N5, N33).
fn sendable(text: &str) -> &str {
    let text = text.split('\0').next().unwrap_or_default();
    let mut len = text.len().min(TEXT_LEN_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.get(..len).unwrap_or_default()
}

/// A length that was bounded by [`sendable`] or by another limit far below 4 GiB.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("limits keep every message far below 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_before_a_nul() {
        assert_eq!(sendable("abc\0def"), "abc");
        let long = "\u{20ac}".repeat(2000);
        assert_eq!(sendable(&long).len(), 4095);
    }

    /// N25.
    #[test]
    fn df_is_offered_with_structured_replies_only() {
        assert_eq!(transmission_flags(true), 0b1101_1110_1101);
        assert_eq!(transmission_flags(false), 0b1101_0110_1101);
    }
}
