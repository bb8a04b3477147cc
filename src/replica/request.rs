//! What a client can ask of a resource.

use crate::units::{ByteRange, ZeroKind};
use crate::wire::payload::Payload;

/// Names a client's request; unique while it is unanswered.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RequestId(pub u64);

/// One request.
#[derive(Clone, Debug, Hash)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// What is asked.
    pub kind: RequestKind,
}

/// What is asked.
#[derive(Clone, Debug, Hash)]
pub enum RequestKind {
    /// Read a range; at most 32 MiB.
    Read {
        /// Which bytes.
        range: ByteRange,
    },
    /// Write a range. The driver cuts at [`PART_LEN_MAX`] and sends one payload per part, in
    /// order; each is at most 1 MiB and the parts are one behind the other.
    Write {
        /// Which bytes.
        range: ByteRange,
        /// The parts, one behind the other.
        parts: Vec<Payload>,
        /// Answer when it is stable.
        fua: bool,
    },
    /// Make a range read as zero.
    Zero {
        /// Which bytes.
        range: ByteRange,
        /// What becomes of the space.
        kind: ZeroKind,
        /// Answer when it is stable.
        fua: bool,
        /// Refuse at once unless both stores zero without writing.
        fast_only: bool,
    },
    /// Make every write answered so far, on any connection, stable.
    Flush,
}

/// Longest part of a write in bytes; a frame carries one part.
pub const PART_LEN_MAX: u64 = 1 << 20;
/// Longest part of a trim or zero in bytes.
pub const ZERO_PART_LEN_MAX: u64 = 64 << 20;

/// The answer to a request.
pub type RequestResult = Result<(), RequestError>;

/// Why a request failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The local disk is full.
    #[error("no space is left on the primary's disk")]
    NoSpace,
    /// There is no good copy.
    #[error("the disk failed")]
    Io,
    /// `fast_only`, and zeroing means writing here or on the peer.
    #[error("zeroing is not fast on both nodes")]
    NotFast,
}
