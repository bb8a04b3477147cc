//! What the peer did wrong.

use super::kind::Kind;

/// Why these bytes are no message of this protocol. The peer is to blame, or the link between: the
/// connection is closed, the error counted, and nothing changes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProtocolError {
    /// Something else than hotpair is at the other end.
    #[error("not a hotpair frame: it starts with {found:02x?}")]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The header was damaged on its way.
    #[error("the frame's header does not match its hash")]
    HeaderHash,
    /// Body or payload were damaged on their way.
    #[error("content of {kind:?} does not match its hash")]
    ContentHash {
        /// Type of the frame.
        kind: Kind,
    },
    /// A type that no version this build speaks has.
    #[error("unknown frame type {found}")]
    UnknownKind {
        /// The type byte.
        found: u8,
    },
    /// The frame belongs to a version that was not agreed on.
    #[error("protocol version {found} in {kind:?}, this build speaks {oldest} to {newest}")]
    FrameVersion {
        /// Type of the frame.
        kind: Kind,
        /// What the header says.
        found: u16,
        /// Oldest version this build speaks.
        oldest: u16,
        /// Newest version this build speaks.
        newest: u16,
    },
    /// The nodes run releases that are too far apart: update the older one.
    #[error(
        "no common protocol version: the peer speaks {their_oldest} to {their_newest}, this build \
         {oldest} to {newest}; update the older node"
    )]
    NoCommonVersion {
        /// Oldest version the peer speaks.
        their_oldest: u16,
        /// Newest version the peer speaks.
        their_newest: u16,
        /// Oldest version this build speaks.
        oldest: u16,
        /// Newest version this build speaks.
        newest: u16,
    },
    /// A flag that this type does not have, or two that exclude each other.
    #[error("flags {flags:#04x} in {kind:?}")]
    Flags {
        /// Type of the frame.
        kind: Kind,
        /// The flag byte.
        flags: u8,
    },
    /// A byte that must be zero is not.
    #[error("a reserved or unused field of {kind:?} is not zero")]
    NotZero {
        /// Type of the frame.
        kind: Kind,
    },
    /// The body is longer or shorter than this type can be.
    #[error("body of {kind:?} has {found} bytes, allowed are {least} to {most}")]
    BodyLength {
        /// Type of the frame.
        kind: Kind,
        /// What the header says, or what was read.
        found: u64,
        /// Shortest body of this type.
        least: u32,
        /// Longest body of this type.
        most: u32,
    },
    /// The payload is longer or shorter than this type can have.
    #[error("payload of {kind:?} has {found} bytes, allowed are {least} to {most}")]
    PayloadLength {
        /// Type of the frame.
        kind: Kind,
        /// What the header says, or what was read.
        found: u64,
        /// Shortest payload of this type.
        least: u32,
        /// Longest payload of this type.
        most: u32,
    },
    /// It names bytes, chunks, extents or pages that the resource does not have.
    #[error("{kind:?} names {first}+{count}, outside the resource of {size} bytes")]
    OutsideResource {
        /// Type of the frame.
        kind: Kind,
        /// First byte or index, in the unit of the type.
        first: u64,
        /// How many.
        count: u64,
        /// Size of the resource in bytes.
        size: u64,
    },
    /// A write without number, or one that is to come after itself.
    #[error("{kind:?} {sequence} cannot come after {after}")]
    Order {
        /// Type of the frame.
        kind: Kind,
        /// Its number.
        sequence: u64,
        /// What it waits for.
        after: u64,
    },
    /// An epoch, a sequence, a generation or a count that no node can have made.
    #[error("{kind:?} names {what}")]
    Value {
        /// Type of the frame.
        kind: Kind,
        /// What it names.
        what: &'static str,
    },
    /// The body is not what this type's body looks like.
    #[error("body of {kind:?} cannot be read")]
    Body {
        /// Type of the frame.
        kind: Kind,
    },
    /// The block mask does not fit the chunk or the payload.
    #[error("{kind:?} of chunk {chunk} with block mask {mask:#06x} does not fit")]
    Mask {
        /// Type of the frame.
        kind: Kind,
        /// The chunk.
        chunk: u64,
        /// Its blocks, one bit each.
        mask: u16,
    },
}
