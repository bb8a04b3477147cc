//! What each type of frame may look like: its number, its fields, its lengths.
//!
//! This table is checked before a length is used. That a limit fits the type means that nothing a
//! peer says makes this node reserve more than the type needs.

use super::error::ProtocolError;
use super::message::Message;

/// Longest write in one frame, in bytes; the core cuts longer ones.
pub const WRITE_LEN_MAX: u32 = 1 << 20;
/// Longest trim or write of zeroes in one frame, in bytes; the core cuts longer ones.
pub const ZERO_LEN_MAX: u32 = 64 << 20;
/// Acknowledgements in one frame; a longer list becomes several frames.
pub const ACKS_MAX: usize = 4096;
/// Extents in one frame: all that can be hot. A longer list becomes several frames.
pub const HEAT_MAX: usize = 2048;
/// Chunk acknowledgements in one frame; a longer list becomes several frames.
pub const CHUNK_ACKS_MAX: usize = 256;
/// Chunks in one `HashOffer` or `HashNeed`.
pub const CHUNK_HASHES_MAX: usize = 64;
/// Length of a page of the dirty map in bytes.
pub const MAP_PAGE_LEN: usize = 4096;
/// Pages in one `MapPart`.
pub const MAP_PAGES_MAX: usize = 16;

/// Longest payload of a [`Kind::Tree`], in bytes.
pub const TREE_PAYLOAD_LEN_MAX: u32 = 1 << 20;
/// Runs of chunks in one `Want`, and chunks in one `Chunks`, of a tree.
pub const TREE_CHUNKS_MAX: usize = 2048;

/// Most batches of records of a tree that were sent and not taken.
pub const TREE_RECORDS_AHEAD_MAX: u32 = 8;

/// Longest chunk, in bytes.
const CHUNK_LEN: u32 = 64 << 10;

/// Type of a frame. The numbers never change and are never used again.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(missing_docs, reason = "each is the message of its name")]
pub enum Kind {
    Hello,
    Verdict,
    Refusal,
    Ping,
    Pong,
    Write,
    Zero,
    Acks,
    Flush,
    FlushDone,
    Heat,
    MapPart,
    HashOffer,
    HashNeed,
    ChunkData,
    ChunkZero,
    ChunkAcks,
    ResyncStart,
    ResyncReady,
    ResyncPause,
    ResyncEnd,
    ResyncDone,
    SettleAsk,
    SettleTell,
    Tree,
    Outdate,
    OutdateDone,
    Leave,
    HandOver,
    HandReady,
    HandDone,
    Ask,
    Told,
    Pledge,
    Pledged,
}

/// What a frame of one type may look like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Number of the type.
    pub(super) number: u8,
    /// Shortest and longest body.
    pub(super) body: (u32, u32),
    /// Shortest and longest payload.
    pub(super) payload: (u32, u32),
    /// Flags that may be set.
    pub(super) flags: u8,
    /// Header fields that may be other than zero; see [`field`].
    pub(super) fields: u8,
}

/// Flags of a header.
pub(super) mod flag {
    /// Write, Zero: answered when durable.
    pub(in super::super) const FUA: u8 = 1;
    /// Zero: a TRIM.
    pub(in super::super) const TRIM: u8 = 2;
    /// Zero: stays allocated.
    pub(in super::super) const NO_HOLE: u8 = 4;
    /// `MapPart`: no part follows.
    pub(in super::super) const LAST: u8 = 8;
}

/// Header fields that only some types use.
pub(super) mod field {
    /// Of a write, or number of a request.
    pub(in super::super) const SEQUENCE: u8 = 1;
    /// `after` or `covers`.
    pub(in super::super) const AFTER: u8 = 2;
    /// Byte offset or first index.
    pub(in super::super) const OFFSET: u8 = 4;
    /// Length in bytes or count.
    pub(in super::super) const LENGTH: u8 = 8;
}

impl Kind {
    /// Every type.
    pub const ALL: [Self; 35] = [
        Self::Hello,
        Self::Verdict,
        Self::Refusal,
        Self::Ping,
        Self::Pong,
        Self::Write,
        Self::Zero,
        Self::Acks,
        Self::Flush,
        Self::FlushDone,
        Self::Heat,
        Self::MapPart,
        Self::HashOffer,
        Self::HashNeed,
        Self::ChunkData,
        Self::ChunkZero,
        Self::ChunkAcks,
        Self::ResyncStart,
        Self::ResyncReady,
        Self::ResyncPause,
        Self::ResyncEnd,
        Self::ResyncDone,
        Self::SettleAsk,
        Self::SettleTell,
        Self::Tree,
        Self::Outdate,
        Self::OutdateDone,
        Self::Leave,
        Self::HandOver,
        Self::HandReady,
        Self::HandDone,
        Self::Ask,
        Self::Told,
        Self::Pledge,
        Self::Pledged,
    ];

    /// The type with this number.
    pub(super) fn from_number(found: u8) -> Result<Self, ProtocolError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.rules().number == found)
            .ok_or(ProtocolError::UnknownKind { found })
    }

    /// Whether frames of this type look the same in every version: those that a node reads before
    /// it knows which one is used.
    pub(super) fn is_versionless(self) -> bool {
        matches!(self, Self::Hello | Self::Refusal)
    }

    /// The type of a message.
    pub fn of(message: &Message) -> Self {
        match message {
            Message::Hello(_) => Self::Hello,
            Message::Verdict(_) => Self::Verdict,
            Message::Refusal(_) => Self::Refusal,
            Message::Ping(_) => Self::Ping,
            Message::Pong(_) => Self::Pong,
            Message::Write(_) => Self::Write,
            Message::Zero(_) => Self::Zero,
            Message::Acks(_) => Self::Acks,
            Message::Flush(_) => Self::Flush,
            Message::FlushDone(_) => Self::FlushDone,
            Message::Heat(_) => Self::Heat,
            Message::MapPart(_) => Self::MapPart,
            Message::HashOffer(_) => Self::HashOffer,
            Message::HashNeed(_) => Self::HashNeed,
            Message::ChunkData(_) => Self::ChunkData,
            Message::ChunkZero(_) => Self::ChunkZero,
            Message::ChunkAcks(_) => Self::ChunkAcks,
            Message::ResyncStart(_) => Self::ResyncStart,
            Message::ResyncReady => Self::ResyncReady,
            Message::ResyncPause(_) => Self::ResyncPause,
            Message::ResyncEnd(_) => Self::ResyncEnd,
            Message::ResyncDone(_) => Self::ResyncDone,
            Message::SettleAsk(_) => Self::SettleAsk,
            Message::SettleTell(_) => Self::SettleTell,
            Message::Tree(_) => Self::Tree,
            Message::Outdate(_) => Self::Outdate,
            Message::OutdateDone(_) => Self::OutdateDone,
            Message::Leave(_) => Self::Leave,
            Message::HandOver(_) => Self::HandOver,
            Message::HandReady(_) => Self::HandReady,
            Message::HandDone(_) => Self::HandDone,
            Message::Ask(_) => Self::Ask,
            Message::Told(_) => Self::Told,
            Message::Pledge(_) => Self::Pledge,
            Message::Pledged(_) => Self::Pledged,
        }
    }

    /// The table. Bodies of fixed layout have one length, the others room for their lists and
    /// texts.
    pub(super) fn rules(self) -> Rules {
        let range = field::SEQUENCE | field::AFTER | field::OFFSET | field::LENGTH;
        match self {
            Self::Hello => body(1, (4, 8192)),
            Self::Verdict => body(2, (1, 1024)),
            Self::Refusal => body(3, (1, 1024)),
            Self::Ping => body(4, (24, 24)),
            Self::Pong => body(5, (24, 24)),
            Self::Write => Rules {
                payload: (1, WRITE_LEN_MAX),
                flags: flag::FUA,
                fields: range,
                ..body(16, (0, 0))
            },
            Self::Zero => Rules {
                flags: flag::FUA | flag::TRIM | flag::NO_HOLE,
                fields: range,
                ..body(17, (0, 0))
            },
            Self::Acks => Rules { fields: field::LENGTH, ..body(18, (0, 65_536)) },
            Self::Flush => Rules { fields: field::SEQUENCE | field::AFTER, ..body(19, (0, 0)) },
            Self::FlushDone => Rules { fields: field::SEQUENCE | field::AFTER, ..body(20, (0, 0)) },
            Self::Heat => Rules { fields: field::LENGTH, ..body(21, (0, 8192)) },
            Self::MapPart => Rules {
                payload: (0, 65_536),
                flags: flag::LAST,
                fields: field::OFFSET | field::LENGTH,
                ..body(32, (0, 0))
            },
            Self::HashOffer => body(33, (8, 4096)),
            Self::HashNeed => body(34, (8, 40_960)),
            Self::ChunkData => Rules { payload: (1, CHUNK_LEN), ..body(35, (43, 43)) },
            Self::ChunkZero => body(36, (43, 43)),
            Self::ChunkAcks => body(37, (8, 4096)),
            Self::ResyncStart => body(38, (36, 36)),
            Self::ResyncReady => body(39, (0, 0)),
            Self::ResyncPause => body(40, (1, 1)),
            Self::ResyncEnd => body(41, (24, 2048)),
            Self::ResyncDone => body(42, (24, 2048)),
            Self::SettleAsk => body(43, (16, 16)),
            Self::SettleTell => body(44, (9, 529)),
            Self::Tree => Rules { payload: (0, TREE_PAYLOAD_LEN_MAX), ..body(45, (4, 40_980)) },
            Self::Outdate => body(64, (12, 12)),
            Self::OutdateDone => body(65, (12, 12)),
            Self::Leave => body(66, (12, 12)),
            Self::HandOver => body(67, (40, 40)),
            Self::HandReady => body(68, (40, 40)),
            Self::HandDone => body(69, (40, 40)),
            Self::Ask => body(70, (12, 64)),
            Self::Told => body(71, (10, 2048)),
            Self::Pledge => body(72, (9, 9)),
            Self::Pledged => body(73, (9, 9)),
        }
    }
}

/// The rules of a type that has only a body.
fn body(number: u8, body: (u32, u32)) -> Rules {
    Rules { number, body, payload: (0, 0), flags: 0, fields: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_own_number_and_possible_lengths() {
        let mut numbers: Vec<_> = Kind::ALL.iter().map(|kind| kind.rules().number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let rules = kind.rules();
            assert!(rules.body.0 <= rules.body.1 && rules.body.1 <= 65_536, "{kind:?}");
            assert!(rules.payload.0 <= rules.payload.1 && rules.payload.1 <= 1 << 20, "{kind:?}");
            assert_eq!(Kind::from_number(rules.number), Ok(kind));
        }
        assert_eq!(Kind::from_number(0), Err(ProtocolError::UnknownKind { found: 0 }));
    }
}
