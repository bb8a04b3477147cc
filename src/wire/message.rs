//! What one node can say to the other.
//!
//! Only types: how they look as bytes is in `frame.rs` and `body.rs`, what they cause is decided
//! by the cores. Every message belongs to a [`Lane`], which says what may overtake what.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bounded;
use super::payload::Payload;
pub use super::tree::{ChunkPlace, TreeMessage, TreeNote, TreeRefusal, WantedChunks};
use crate::units::{
    Applied, ByteRange, ChunkIndex, DiskReason, DiskState, Epoch, ExtentIndex, Generation,
    Instance, Outcome, ReplicaId, ReplicationMode, Resolution, ResourceId, Role, Sequence,
    ServeMode, SessionId, Transfer, Veto, VetoReason, ZeroKind,
};

/// One message with the session and epoch it was said in.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Frame {
    /// Zero before the session exists: in Hello, and in a Refusal that answers one.
    pub session: SessionId,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// What is said.
    pub message: Message,
}

/// Order of sending: a lower lane goes first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// Answers, liveness, changes of state.
    Control,
    /// What clients wait for.
    Client,
    /// Resync and verify.
    Resync,
}

/// Everything one node can say to the other.
#[derive(Clone, Debug, Hash, PartialEq)]
pub enum Message {
    /// Who I am and what I have; opens a session, and opens it anew after a change of state.
    Hello(Box<Hello>),
    /// What I conclude from both Hellos.
    Verdict(Verdict),
    /// Why I do not go on; the connection is closed after it.
    Refusal(Refusal),
    /// Are you there? Sent when nothing else was.
    Ping(Beat),
    /// Yes.
    Pong(Beat),
    /// Apply these bytes.
    Write(Write),
    /// Make this range read as zero.
    Zero(Zero),
    /// Writes received, applied, made durable or failed.
    Acks(Vec<Ack>),
    /// Make everything up to `covers` durable.
    Flush(Flush),
    /// It is.
    FlushDone(Flush),
    /// These extents are about to be written: log them now.
    Heat(Vec<ExtentIndex>),
    /// Pages of the sender's dirty map.
    MapPart(MapPart),
    /// Chunks as the source has them.
    HashOffer(Vec<ChunkHash>),
    /// Which of them, or which blocks of them, the target lacks.
    HashNeed(Vec<ChunkNeed>),
    /// Blocks of one chunk.
    ChunkData(ChunkData),
    /// Blocks of one chunk that read as zero.
    ChunkZero(ChunkZero),
    /// What became of chunks.
    ChunkAcks(Vec<ChunkAck>),
    /// The source is about to send what differs.
    ResyncStart(ResyncStart),
    /// The target may now be overwritten: it made that durable.
    ResyncReady,
    /// The sender's operator paused (true) or resumed (false) the resync.
    ResyncPause(bool),
    /// Nothing differs any more, and what the target has is durable there.
    ResyncEnd(ResyncEnd),
    /// The target is complete, durably.
    ResyncDone(ResyncEnd),
    /// Compare one chunk (verify).
    SettleAsk(SettleAsk),
    /// The answer.
    SettleTell(SettleTell),
    /// About the tree of a directory resource.
    Tree(TreeMessage),
    /// Veto yourself: durable before the answer.
    Outdate(Outdate),
    /// The veto is durable.
    OutdateDone(Outdate),
    /// I stop cleanly and have vetoed myself.
    Leave(Outdate),
    /// Take over: everything up to this is what I acknowledged.
    HandOver(HandOver),
    /// All of it is applied and durable here.
    HandReady(HandOver),
    /// You are the owner from here on: I serve no more.
    HandDone(HandOver),
    /// An operator's command typed on the other node.
    Ask(Ask),
    /// What became of it.
    Told(Told),
    /// The primary wants the secondary's pledge, or relies on it no more.
    Pledge(Pledge),
    /// It is given, durably; or the arbiter answers the secondary, so it is not needed.
    Pledged(Pledge),
}

impl Message {
    /// The lane it is sent in.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Write(_) | Self::Zero(_) | Self::Flush(_) | Self::Heat(_) => Lane::Client,
            Self::MapPart(_)
            | Self::HashOffer(_)
            | Self::HashNeed(_)
            | Self::ChunkData(_)
            | Self::ChunkZero(_)
            | Self::ChunkAcks(_)
            | Self::ResyncEnd(_)
            | Self::SettleAsk(_)
            | Self::SettleTell(_)
            | Self::Tree(_) => Lane::Resync,
            Self::Hello(_)
            | Self::Verdict(_)
            | Self::Refusal(_)
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Acks(_)
            | Self::FlushDone(_)
            | Self::ResyncStart(_)
            | Self::ResyncReady
            | Self::ResyncPause(_)
            | Self::ResyncDone(_)
            | Self::Outdate(_)
            | Self::OutdateDone(_)
            | Self::Leave(_)
            | Self::HandOver(_)
            | Self::HandReady(_)
            | Self::HandDone(_)
            | Self::Ask(_)
            | Self::Told(_)
            | Self::Pledge(_)
            | Self::Pledged(_) => Lane::Control,
        }
    }
}

/// Who the sender is and what it has, as it is stable on its disk.
#[derive(Clone, Debug, Deserialize, Hash, PartialEq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "a record of independent facts, as stored")]
pub struct Hello {
    /// Oldest and newest protocol version that the sender speaks.
    pub versions: (u16, u16),
    /// Name of the cluster.
    #[serde(deserialize_with = "bounded::text_at_most::<_, { bounded::NAME_LEN_MAX }>")]
    pub cluster: String,
    /// Name of the sending node.
    #[serde(deserialize_with = "bounded::text_at_most::<_, { bounded::NAME_LEN_MAX }>")]
    pub node: String,
    /// Name of the resource.
    #[serde(deserialize_with = "bounded::text_at_most::<_, { bounded::NAME_LEN_MAX }>")]
    pub resource: String,
    /// Drawn by the sender for this connection.
    pub nonce: [u8; 32],
    /// Counts the sender's Hellos on this connection, from 1.
    pub counter: u32,
    /// Identity of the resource; zero while the replica is fresh.
    pub resource_id: ResourceId,
    /// Identity of the sender's replica.
    pub replica_id: ReplicaId,
    /// The replica it was last paired with; zero if none.
    pub peer_replica_id: ReplicaId,
    /// Size in bytes.
    pub size: u64,
    /// Size in bytes after the resize under way; zero if there is none.
    pub size_next: u64,
    /// Highest epoch it took part in.
    pub epoch: Epoch,
    /// It refuses everything below.
    pub promised: Epoch,
    /// The last epoch in which it served.
    pub served_epoch: Epoch,
    /// Which data it has; `None` while the replica is fresh.
    pub generation: Option<Generation>,
    /// Where that came from, newest first, at most [`HISTORY_LEN_MAX`].
    #[serde(deserialize_with = "bounded::list_at_most::<_, _, HISTORY_LEN_MAX>")]
    pub history: Vec<Generation>,
    /// What the copy is worth.
    pub disk: DiskState,
    /// Why.
    pub disk_reason: DiskReason,
    /// What it is now. A claim: it is believed only as far as epochs allow.
    pub role: Role,
    /// How it may acknowledge.
    pub serve_mode: ServeMode,
    /// The configured mode; both must agree.
    pub mode: ReplicationMode,
    /// Hash of the other settings that both must agree on.
    pub settings: u32,
    /// Its veto against itself.
    pub veto: Option<Veto>,
    /// A pledge not to ask for promotion: given by the sender, or, where it is primary, relied upon.
    pub hold: bool,
    /// It never promotes itself; durable there.
    pub never_promotes: bool,
    /// It was demoted by an operator.
    pub stopped: bool,
    /// Marks in its dirty map, in blocks.
    pub marks: u64,
    /// Acknowledged writes that the peer had not applied when they parted (`async`), in bytes.
    pub at_risk_bytes: u64,
    /// Its stable applied version.
    pub applied: Applied,
    /// The peer's stable applied version, as stored here.
    pub peer_applied: Applied,
    /// Its last runs, newest first, at most [`INSTANCES_LEN_MAX`].
    #[serde(deserialize_with = "bounded::list_at_most::<_, _, INSTANCES_LEN_MAX>")]
    pub instances: Vec<Instance>,
    /// The peer's last run, as stored here; zero if none.
    pub peer_instance: Instance,
    /// The kernel's boot id.
    pub boot_id: u128,
    /// While inconsistent: the generation it is being filled from.
    pub resync_source: Option<Generation>,
    /// The operator's settlement of a split brain.
    pub resolution: Option<Resolution>,
    /// Its store zeroes ranges without writing them.
    pub zeroing_is_cheap: bool,
}

/// Longest history a Hello may carry.
pub const HISTORY_LEN_MAX: usize = 64;
/// Longest list of runs a Hello may carry.
pub const INSTANCES_LEN_MAX: usize = 64;
/// Most hashes a [`ChunkNeed`] may carry: one per block of a chunk.
const CHUNK_BLOCKS: usize = 16;

/// What one node concludes from both Hellos; it counts only when the other's mirrors it.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Verdict {
    /// What follows for the sender.
    pub outcome: Outcome,
    /// For people; cut to 512 bytes when sent.
    #[serde(
        deserialize_with = "bounded::text_at_most::<_, { bounded::TEXT_LEN_MAX }>",
        serialize_with = "bounded::cut_text"
    )]
    pub reason: String,
    /// Counter of the sender's Hello it was made from.
    pub mine: u32,
    /// Counter of the receiver's Hello it was made from.
    pub theirs: u32,
    /// What the sender can take in the client lane.
    pub client_credit: Credit,
    /// What the sender can take in the resync lane.
    pub resync_credit: Credit,
}

/// What a receiver is ready to take, beyond what it took.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Credit {
    /// Frames (client lane) or chunks (resync lane).
    pub frames: u32,
    /// Payload bytes.
    pub bytes: u32,
}

/// Why a node does not go on, in a form that the other one can act on.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Refusal {
    /// The kind.
    pub code: RefusalCode,
    /// For people; cut to 512 bytes when sent.
    #[serde(
        deserialize_with = "bounded::text_at_most::<_, { bounded::TEXT_LEN_MAX }>",
        serialize_with = "bounded::cut_text"
    )]
    pub text: String,
}

/// Kinds of refusals; the list only grows.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum RefusalCode {
    /// No common protocol version.
    Version,
    /// Other cluster, node or resource than configured.
    WrongPeer,
    /// A setting that both must agree on differs.
    Settings,
    /// The verdicts do not mirror each other.
    VerdictsDiffer,
    /// The sender promised a higher epoch.
    OldEpoch,
    /// The sender's operator disconnected the resource.
    Disconnected,
    /// The sender is not ready, or stops.
    NotReady,
    /// A limit or a rule of the protocol was broken.
    Protocol,
}

/// Liveness, and what is stable where.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Beat {
    /// The pinging node's clock in nanoseconds; echoed in the Pong.
    pub sent_at: u64,
    /// The sender's stable applied version.
    pub stable: Applied,
}

/// A client's write on its way to the secondary.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct Write {
    /// Its place in the session.
    pub sequence: Sequence,
    /// All up to this one were answered when it was admitted: it must not be applied before them.
    pub after: Sequence,
    /// Where it goes; exactly as long as the payload.
    pub range: ByteRange,
    /// It is answered when durable.
    pub fua: bool,
    /// What is written.
    pub payload: Payload,
}

/// A client's trim or write of zeroes on its way to the secondary.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Zero {
    /// Its place in the session.
    pub sequence: Sequence,
    /// As in [`Write`].
    pub after: Sequence,
    /// What reads as zero afterwards.
    pub range: ByteRange,
    /// It is answered when durable.
    pub fua: bool,
    /// What becomes of the space.
    pub kind: ZeroKind,
}

/// What became of one write; 16 raw bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ack {
    /// Which write.
    pub sequence: Sequence,
    /// How far it got.
    pub stage: AckStage,
}

/// How far a write got on the secondary.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum AckStage {
    /// Its hash was checked; it is in memory.
    Received,
    /// It is in the file.
    Applied,
    /// It survives a power loss.
    Durable,
    /// The secondary's disk failed.
    Failed,
}

/// A flush, or its completion.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Flush {
    /// Number of the request, echoed.
    pub request: u64,
    /// All writes up to this one are covered.
    pub covers: Sequence,
}

/// Pages of a dirty map.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct MapPart {
    /// Index of the first page; pages are 4 KiB of bits (32,768 blocks).
    pub first_page: u64,
    /// Whole pages, one behind the other; at most 16. May be empty in the last part.
    pub pages: Bytes,
    /// No part follows.
    pub last: bool,
}

/// A chunk as the source has it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ChunkHash {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// BLAKE3 of its bytes.
    pub hash: [u8; 32],
}

/// What the target lacks of an offered chunk.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ChunkNeed {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// `None`: the target has the same. Else the BLAKE3 of each of its blocks, at most 16.
    #[serde(deserialize_with = "bounded::maybe_list_at_most::<_, _, CHUNK_BLOCKS>")]
    pub blocks: Option<Vec<[u8; 32]>>,
}

/// Blocks of one chunk.
#[derive(Clone, Debug, Hash, PartialEq)]
pub struct ChunkData {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// Bit i: block i of the chunk is in the payload, in order.
    pub mask: u16,
    /// BLAKE3 that the whole chunk must have once all that was sent for it is written.
    pub hash: [u8; 32],
    /// Further messages for this chunk follow before it is complete.
    pub more: bool,
    /// The blocks, one behind the other.
    pub payload: Payload,
}

/// Blocks of one chunk that read as zero.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ChunkZero {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// Bit i: block i of the chunk becomes zero.
    pub mask: u16,
    /// As in [`ChunkData`].
    pub hash: [u8; 32],
    /// As in [`ChunkData`].
    pub more: bool,
}

/// What became of one chunk at the target.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ChunkAck {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// How far it got.
    pub stage: ChunkStage,
}

/// How far a chunk got at the target.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum ChunkStage {
    /// It survives a power loss.
    Durable,
    /// Its bytes do not have the announced hash: send it again.
    Again,
}

/// Announces a transfer.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ResyncStart {
    /// Replay or resync.
    pub transfer: Transfer,
    /// The source's generation.
    pub generation: Generation,
    /// Blocks that may differ.
    pub blocks: u64,
}

/// The end of a transfer: what the target adopts.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ResyncEnd {
    /// The source's generation.
    pub generation: Generation,
    /// Where it came from, newest first.
    #[serde(deserialize_with = "bounded::list_at_most::<_, _, HISTORY_LEN_MAX>")]
    pub history: Vec<Generation>,
}

/// Compare one chunk: the source read it with no write in flight, up to `sequence` applied.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct SettleAsk {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// Writes that must be applied before it is read.
    pub sequence: Sequence,
}

/// The peer's hashes of one chunk.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct SettleTell {
    /// Which chunk.
    pub chunk: ChunkIndex,
    /// BLAKE3 of each of its blocks, at most 16; `None` if the disk could not read it.
    #[serde(deserialize_with = "bounded::maybe_list_at_most::<_, _, CHUNK_BLOCKS>")]
    pub blocks: Option<Vec<[u8; 32]>>,
}

/// A veto asked for, confirmed or announced.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Outdate {
    /// Epoch of the sender; the veto is given at it.
    pub epoch: Epoch,
    /// Why.
    pub reason: VetoReason,
}

/// A secondary's promise not to ask for promotion while the arbiter is away.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Pledge {
    /// Counts what the primary asked for in this session, from 1; an answer repeats it.
    pub number: u64,
    /// Given or to be given; else lifted, or not needed.
    pub on: bool,
}

/// Ownership on its way.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct HandOver {
    /// Epoch of the old owner.
    pub epoch: Epoch,
    /// Last write of the old owner.
    pub last: Sequence,
    /// The data handed over.
    pub generation: Generation,
}

/// A command typed on the node that cannot carry it out alone.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Ask {
    /// Number of the request, echoed.
    pub request: u64,
    /// What was typed.
    pub command: PeerCommand,
}

/// Commands that one node passes on to the other.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum PeerCommand {
    /// Hand the primary role over to me.
    Switchover,
    /// Compare both copies.
    Verify {
        /// What differs is sent from the primary.
        repair: bool,
    },
    /// Settle the split brain.
    Resolve(Resolution),
    /// Grow to this size in bytes: extend the file, then confirm.
    ResizePrepare(u64),
    /// Both files are long enough: make it the size.
    ResizeCommit(u64),
}

/// What became of an [`Ask`].
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Told {
    /// Number of the request.
    pub request: u64,
    /// `None`: done. Else why not, for people; cut to 512 bytes when sent.
    #[serde(deserialize_with = "bounded::maybe_text", serialize_with = "bounded::maybe_cut_text")]
    pub refused: Option<String>,
    /// What a verify found, where that was asked for.
    pub verified: Option<Verified>,
}

/// What a comparison of both copies found.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Verified {
    /// Blocks that differ.
    pub differences: u64,
    /// The first differing ranges, as (byte offset, length).
    #[serde(deserialize_with = "bounded::list_at_most::<_, _, { VERIFIED_RANGES_MAX }>")]
    pub ranges: Vec<(u64, u64)>,
}

/// Differing ranges that are named.
pub const VERIFIED_RANGES_MAX: usize = 64;
