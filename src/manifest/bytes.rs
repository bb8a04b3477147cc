//! Fields to bytes and back: little endian, lengths before what they count.
//!
//! Reading reserves nothing that the input does not hold, and takes each field in one way only.

use super::ManifestError;

/// Takes fields from the front of bytes.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What was not read.
    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// The next `len` bytes as they are.
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], ManifestError> {
        let missing = || ManifestError::Short { missing: len.saturating_sub(self.rest.len()) };
        let (field, rest) = self.rest.split_at_checked(len).ok_or_else(missing)?;
        self.rest = rest;
        Ok(field)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ManifestError> {
        let missing = || ManifestError::Short { missing: N.saturating_sub(self.rest.len()) };
        let (field, rest) = self.rest.split_first_chunk().ok_or_else(missing)?;
        self.rest = rest;
        Ok(*field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ManifestError> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ManifestError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, ManifestError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, ManifestError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, ManifestError> {
        self.array().map(i64::from_le_bytes)
    }

    /// Bytes behind a length of one byte.
    pub(super) fn short(&mut self) -> Result<&'a [u8], ManifestError> {
        let len = self.u8()?;
        self.bytes(usize::from(len))
    }

    /// Bytes behind a length of two bytes.
    pub(super) fn medium(&mut self) -> Result<&'a [u8], ManifestError> {
        let len = self.u16()?;
        self.bytes(usize::from(len))
    }

    /// Bytes behind a length of four bytes.
    pub(super) fn long(&mut self) -> Result<&'a [u8], ManifestError> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).unwrap_or(usize::MAX))
    }
}

/// Puts fields behind each other.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.bytes(&value.to_le_bytes());
    }

    /// Bytes behind their length in one byte.
    pub(super) fn short(&mut self, bytes: &[u8]) {
        self.u8(u8::try_from(bytes.len()).expect("what has so short a length was checked"));
        self.bytes(bytes);
    }

    /// Bytes behind their length in two bytes.
    pub(super) fn medium(&mut self, bytes: &[u8]) {
        self.u16(u16::try_from(bytes.len()).expect("what has such a length was checked"));
        self.bytes(bytes);
    }

    /// Bytes behind their length in four bytes.
    pub(super) fn long(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).expect("what has such a length was checked"));
        self.bytes(bytes);
    }
}
