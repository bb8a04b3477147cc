//! What nodes say to each other: bytes to types and back.
//!
//! [`message`] has the types, [`frame`] the header in front of every message, [`payload`] the bytes
//! of users. Nothing here decides anything: a frame that breaks a rule of its own type is a
//! [`ProtocolError`], whether it fits the moment is for the cores to say.
//!
//! Reading goes in this order, so that a length is never believed before it is checked: the 128
//! bytes of the header, [`frame::decode_header`] (magic, hash, type, limits), then body and payload
//! into buffers, then [`frame::decode`] (their hash, their rules).
//!
//! What nodes of a directory resource say about its tree is one type with many notes, in `tree.rs`; how its
//! bytes are compressed, in `packing.rs` and `packer.rs`.
//!
//! What a node and a witness say to each other travels in a [`letter`]; that a node lives, in
//! [`heartbeat`]s.
#![deny(clippy::indexing_slicing)]

mod body;
mod bounded;
mod decode;
mod error;
pub mod frame;
mod header;
pub mod heartbeat;
mod kind;
pub mod letter;
pub mod message;
pub mod outdate;
#[cfg(feature = "directory")]
mod packer;
mod packing;
pub mod payload;
mod plausible;
mod tree;
pub mod version;

pub(crate) use bounded::{TEXT_LEN_MAX, cut_text, list_at_most, text_at_most};
pub use error::ProtocolError;
pub use kind::{
    ACKS_MAX, CHUNK_ACKS_MAX, CHUNK_HASHES_MAX, HEAT_MAX, Kind, MAP_PAGE_LEN, MAP_PAGES_MAX,
    TREE_CHUNKS_MAX, TREE_PAYLOAD_LEN_MAX, TREE_RECORDS_AHEAD_MAX, WRITE_LEN_MAX, ZERO_LEN_MAX,
};
pub use message::{
    Ack, AckStage, Ask, Beat, ChunkAck, ChunkData, ChunkHash, ChunkNeed, ChunkPlace, ChunkStage,
    ChunkZero, Credit, Flush, Frame, HandOver, Hello, Lane, MapPart, Message, Outdate, PeerCommand,
    Pledge, Refusal, RefusalCode, ResyncEnd, ResyncStart, SettleAsk, SettleTell, Told, TreeMessage,
    TreeNote, TreeRefusal, Verdict, WantedChunks, Write, Zero,
};
#[cfg(feature = "directory")]
pub use packer::Packer;
pub use packing::Packing;
pub use payload::{Buffer, BufferPool, Payload, PoolLimits};
pub(crate) use plausible::{Checked, check_epoch, check_generation};
pub use version::Version;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
