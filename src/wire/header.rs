//! The 128 bytes in front of every message.
//!
//! Magic and hash come first: until they fit, not one of the other fields is looked at. Then the
//! limits of the type, so that whoever reads a body or a payload reserves no more than it needs.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::ProtocolError;
use super::kind::{Kind, MAP_PAGE_LEN, Rules, ZERO_LEN_MAX, field, flag};
use super::plausible::{check_epoch, check_sequence};
use super::version::Version;
use crate::units::{BLOCK_LEN, ByteRange, Epoch, ResourceSize, Sequence, SessionId};

/// Length of a header in bytes.
pub const HEADER_LEN: usize = 128;
/// Length of an acknowledgement in an `Acks` body.
pub(super) const ACK_LEN: usize = 16;
/// Length of an extent in a `Heat` body.
pub(super) const HEAT_LEN: usize = 4;

/// What every frame begins with.
pub const MAGIC: [u8; 4] = *b"HPF1";

/// What a frame is checked against.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Size of the resource: no frame may name anything outside it.
    pub size: ResourceSize,
}

/// A header that was checked by itself: what follows it is as long as it says, and its type may be
/// that long. Whether session and epoch are the right ones is for the reader to say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) session: SessionId,
    pub(super) epoch: Epoch,
    pub(super) sequence: Sequence,
    pub(super) after: Sequence,
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) body_len: u32,
    pub(super) payload_len: u32,
    pub(super) digest: [u8; 32],
}

/// The header as it is sent; all of it little endian.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct Layout {
    magic: [u8; 4],
    version: U16,
    kind: u8,
    flags: u8,
    session: U64,
    epoch: U64,
    sequence: U64,
    after: U64,
    offset: U64,
    length: U32,
    body_len: U32,
    payload_len: U32,
    zero: U32,
    digest: [u8; 32],
    zeroes: [u8; 16],
    hash: [u8; 16],
}

impl Header {
    /// A header of this type in which everything else is still zero.
    pub(super) fn blank(kind: Kind, session: SessionId, epoch: Epoch) -> Self {
        Self {
            kind,
            flags: 0,
            session,
            epoch,
            sequence: Sequence(0),
            after: Sequence(0),
            offset: 0,
            length: 0,
            body_len: 0,
            payload_len: 0,
            digest: [0; 32],
        }
    }

    /// Type of the frame.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Session it was sent in; zero before there is one.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The sender's epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Bytes of body behind the header.
    pub fn body_len(&self) -> usize {
        usize::try_from(self.body_len).expect("checked: at most 64 KiB")
    }

    /// Bytes of payload behind the body.
    pub fn payload_len(&self) -> usize {
        usize::try_from(self.payload_len).expect("checked: at most 1 MiB")
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// As it is sent.
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let version = if self.kind.is_versionless() { 0 } else { Version::NEWEST.number() };
        let mut layout = Layout {
            magic: MAGIC,
            version: version.into(),
            kind: self.kind.rules().number,
            flags: self.flags,
            session: self.session.0.into(),
            epoch: self.epoch.0.into(),
            sequence: self.sequence.0.into(),
            after: self.after.0.into(),
            offset: self.offset.into(),
            length: self.length.into(),
            body_len: self.body_len.into(),
            payload_len: self.payload_len.into(),
            zero: 0.into(),
            digest: self.digest,
            zeroes: [0; 16],
            hash: [0; 16],
        };
        layout.hash = layout.own_hash();
        zerocopy::transmute!(layout)
    }

    /// The bytes that a write, zero or trim names.
    ///
    /// # Errors
    /// [`ProtocolError::OutsideResource`].
    pub(super) fn range(&self, size: ResourceSize) -> Result<ByteRange, ProtocolError> {
        let len = u64::from(self.length);
        ByteRange::new(self.offset, len, size).ok_or(self.outside(self.offset, len, size))
    }

    pub(super) fn outside(&self, first: u64, count: u64, size: ResourceSize) -> ProtocolError {
        ProtocolError::OutsideResource { kind: self.kind, first, count, size: size.bytes() }
    }

    pub(super) fn bad_body_length(&self, found: usize) -> ProtocolError {
        let (least, most) = self.kind.rules().body;
        ProtocolError::BodyLength { kind: self.kind, found: wide(found), least, most }
    }

    pub(super) fn bad_payload_length(&self, found: usize) -> ProtocolError {
        let (least, most) = self.kind.rules().payload;
        ProtocolError::PayloadLength { kind: self.kind, found: wide(found), least, most }
    }

    /// Where `sequence` is the number of a request, it is only echoed.
    fn check_numbers(&self) -> Result<(), ProtocolError> {
        let numbers = match self.kind {
            Kind::Write | Kind::Zero => check_sequence(self.sequence),
            Kind::Flush | Kind::FlushDone => check_sequence(self.after),
            _ => Ok(()),
        };
        check_epoch(self.epoch)
            .and(numbers)
            .map_err(|what| ProtocolError::Value { kind: self.kind, what })
    }

    fn check_lengths(&self, rules: &Rules) -> Result<(), ProtocolError> {
        if !(rules.body.0..=rules.body.1).contains(&self.body_len) {
            return Err(self.bad_body_length(self.body_len()));
        }
        if !(rules.payload.0..=rules.payload.1).contains(&self.payload_len) {
            return Err(self.bad_payload_length(self.payload_len()));
        }
        let count = u64::from(self.length);
        let (body_len, payload_len) = (u64::from(self.body_len), u64::from(self.payload_len));
        match self.kind {
            Kind::Acks if body_len != count * wide(ACK_LEN) => {
                Err(self.bad_body_length(self.body_len()))
            }
            Kind::Heat if body_len != count * wide(HEAT_LEN) => {
                Err(self.bad_body_length(self.body_len()))
            }
            Kind::Write if payload_len != count => Err(self.bad_payload_length(self.payload_len())),
            Kind::MapPart if payload_len != count * wide(MAP_PAGE_LEN) => {
                Err(self.bad_payload_length(self.payload_len()))
            }
            Kind::MapPart if count == 0 && !self.has(flag::LAST) => Err(self.bad_payload_length(0)),
            Kind::Zero if self.length > ZERO_LEN_MAX => Err(ProtocolError::PayloadLength {
                kind: self.kind,
                found: count,
                least: 1,
                most: ZERO_LEN_MAX,
            }),
            _ => Ok(()),
        }
    }

    /// Checks what the header itself names.
    fn check_place(&self, size: ResourceSize) -> Result<(), ProtocolError> {
        match self.kind {
            Kind::Write | Kind::Zero => {
                self.range(size)?;
                if self.sequence <= self.after {
                    return Err(ProtocolError::Order {
                        kind: self.kind,
                        sequence: self.sequence.0,
                        after: self.after.0,
                    });
                }
                Ok(())
            }
            Kind::MapPart => {
                let blocks_per_page = wide(MAP_PAGE_LEN) * 8;
                let page_count = size.bytes().div_ceil(BLOCK_LEN * blocks_per_page);
                let count = u64::from(self.length);
                let end = self.offset.checked_add(count);
                if end.is_none_or(|end| end > page_count) {
                    return Err(self.outside(self.offset, count, size));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Layout {
    fn own_hash(&self) -> [u8; 16] {
        let (covered, _) =
            self.as_bytes().split_first_chunk::<112>().expect("a header is longer than that");
        let hash = blake3::hash(covered);
        *hash.as_bytes().first_chunk().expect("a BLAKE3 is longer than that")
    }

    /// Whether a field that this type does not use says something.
    fn has_stray_field(&self, rules: &Rules) -> bool {
        let stray = |field, value: u64| rules.fields & field == 0 && value != 0;
        self.zero.get() != 0
            || self.zeroes != [0; 16]
            || stray(field::SEQUENCE, self.sequence.get())
            || stray(field::AFTER, self.after.get())
            || stray(field::OFFSET, self.offset.get())
            || stray(field::LENGTH, self.length.get().into())
    }
}

/// Checks a header by itself. Nothing was reserved for its frame before this, and what it then
/// says about lengths can be believed.
///
/// # Errors
/// Any [`ProtocolError`] but those about bodies and payloads.
pub fn decode_header(bytes: &[u8; HEADER_LEN], limits: &Limits) -> Result<Header, ProtocolError> {
    let layout: Layout = zerocopy::transmute!(*bytes);
    if layout.magic != MAGIC {
        return Err(ProtocolError::BadMagic { found: layout.magic });
    }
    if layout.hash != layout.own_hash() {
        return Err(ProtocolError::HeaderHash);
    }
    let kind = Kind::from_number(layout.kind)?;
    let rules = kind.rules();
    check_version(kind, layout.version.get())?;
    let both_kinds_of_zero = flag::TRIM | flag::NO_HOLE;
    if layout.flags & !rules.flags != 0 || layout.flags & both_kinds_of_zero == both_kinds_of_zero {
        return Err(ProtocolError::Flags { kind, flags: layout.flags });
    }
    if layout.has_stray_field(&rules) {
        return Err(ProtocolError::NotZero { kind });
    }
    let header = Header {
        flags: layout.flags,
        sequence: Sequence(layout.sequence.get()),
        after: Sequence(layout.after.get()),
        offset: layout.offset.get(),
        length: layout.length.get(),
        body_len: layout.body_len.get(),
        payload_len: layout.payload_len.get(),
        digest: layout.digest,
        ..Header::blank(kind, SessionId(layout.session.get()), Epoch(layout.epoch.get()))
    };
    header.check_numbers()?;
    header.check_lengths(&rules)?;
    header.check_place(limits.size)?;
    Ok(header)
}

fn check_version(kind: Kind, found: u16) -> Result<(), ProtocolError> {
    let (oldest, newest) = if kind.is_versionless() { (0, 0) } else { Version::offer() };
    if (oldest..=newest).contains(&found) {
        return Ok(());
    }
    Err(ProtocolError::FrameVersion { kind, found, oldest, newest })
}

fn wide(len: usize) -> u64 {
    u64::try_from(len).expect("a length in memory fits 64 bits")
}
