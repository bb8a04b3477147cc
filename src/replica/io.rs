//! Which completion belongs to what.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::effect::{IoId, Ticket};
use super::parts::PartId;
use super::request::RequestId;
use crate::units::{Applied, ChunkIndex, Instant, Sequence};

/// What an I/O on the data file is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Purpose {
    /// The local half of a client's write.
    Part(PartId),
    /// A client's read.
    Read(RequestId),
    /// The local half of a flush.
    Flush(u64),
    /// The local half of a write that is answered when stable.
    Fua(PartId),
    /// The sync that precedes a change of role.
    Role(u64),
    /// The sync that lets extents cool.
    Cool,
    /// The sync that a checkpoint of this version waits for.
    Checkpoint(Applied),
    /// A write of the primary, on the secondary.
    Apply(Sequence),
    /// The sync that answers flushes and FUA writes of the primary.
    ApplySync,
    /// Resync: the source hashes a chunk.
    SourceHash(ChunkIndex),
    /// Resync: the source reads a chunk.
    SourceRead(ChunkIndex),
    /// Resync: the target hashes a chunk that was offered.
    TargetHash(ChunkIndex),
    /// Resync: the target writes blocks of a chunk.
    TargetWrite(ChunkIndex),
    /// Resync: the target checks what it wrote.
    TargetCheck(ChunkIndex),
    /// Resync: the target makes chunks stable.
    TargetSync,
    /// Verify: this node's hash of a chunk.
    VerifyMine(ChunkIndex),
    /// Verify: this node's hash of a chunk for the peer.
    VerifyForPeer(ChunkIndex),
    /// The look whether the disk answers.
    Probe,
    /// A write of a session that is over; only its end matters.
    Orphan,
    /// A sync of a session that is over; if it fails, what was written since the last one is lost.
    OrphanSync,
    /// A read of a session that is over; it only occupies a thread of the driver until it ends.
    Forgotten,
}

impl Purpose {
    /// Whether it makes the data file stable.
    fn is_sync(self) -> bool {
        match self {
            Self::Flush(_)
            | Self::Fua(_)
            | Self::Role(_)
            | Self::Cool
            | Self::Checkpoint(_)
            | Self::ApplySync
            | Self::TargetSync
            | Self::OrphanSync => true,
            Self::Part(_)
            | Self::Read(_)
            | Self::Apply(_)
            | Self::SourceHash(_)
            | Self::SourceRead(_)
            | Self::TargetHash(_)
            | Self::TargetWrite(_)
            | Self::TargetCheck(_)
            | Self::VerifyMine(_)
            | Self::VerifyForPeer(_)
            | Self::Probe
            | Self::Orphan
            | Self::Forgotten => false,
        }
    }

    /// Whether it changes the data file, or tells whether what changed it is lost.
    fn writes(self) -> bool {
        match self {
            Self::Part(_)
            | Self::Apply(_)
            | Self::TargetWrite(_)
            | Self::Orphan
            | Self::OrphanSync => true,
            Self::Read(_)
            | Self::Flush(_)
            | Self::Fua(_)
            | Self::Role(_)
            | Self::Cool
            | Self::Checkpoint(_)
            | Self::ApplySync
            | Self::SourceHash(_)
            | Self::SourceRead(_)
            | Self::TargetHash(_)
            | Self::TargetCheck(_)
            | Self::TargetSync
            | Self::VerifyMine(_)
            | Self::VerifyForPeer(_)
            | Self::Probe
            | Self::Forgotten => false,
        }
    }

    /// Whether the peer's word began it, and it is read for the session only.
    fn reads_for_session(self) -> bool {
        match self {
            Self::SourceHash(_)
            | Self::SourceRead(_)
            | Self::TargetHash(_)
            | Self::TargetCheck(_)
            | Self::VerifyMine(_)
            | Self::VerifyForPeer(_)
            | Self::Forgotten => true,
            Self::Part(_)
            | Self::Read(_)
            | Self::Flush(_)
            | Self::Fua(_)
            | Self::Role(_)
            | Self::Cool
            | Self::Checkpoint(_)
            | Self::Apply(_)
            | Self::ApplySync
            | Self::TargetWrite(_)
            | Self::TargetSync
            | Self::Probe
            | Self::Orphan
            | Self::OrphanSync => false,
        }
    }

    /// Whether it belongs to a session, and means nothing once that is over.
    fn is_of_session(self) -> bool {
        match self {
            Self::ApplySync
            | Self::SourceHash(_)
            | Self::SourceRead(_)
            | Self::TargetHash(_)
            | Self::TargetWrite(_)
            | Self::TargetCheck(_)
            | Self::TargetSync
            | Self::VerifyMine(_)
            | Self::VerifyForPeer(_) => true,
            Self::Part(_)
            | Self::Read(_)
            | Self::Flush(_)
            | Self::Fua(_)
            | Self::Role(_)
            | Self::Cool
            | Self::Checkpoint(_)
            | Self::Apply(_)
            | Self::Probe
            | Self::Orphan
            | Self::OrphanSync
            | Self::Forgotten => false,
        }
    }
}

/// I/O under way.
#[derive(Clone, Debug, Default)]
pub(super) struct IoTable {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    /// When each write of metadata under way began.
    tickets: BTreeMap<u64, Instant>,
    now: Instant,
    writes: usize,
    session_reads: usize,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
struct Pending {
    purpose: Purpose,
    since: Instant,
}

/// Without the numbers, and without times, which only the watch over the disk looks at: see
/// `fingerprint.rs`.
impl Hash for IoTable {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pending.len().hash(state);
        self.session_reads.hash(state);
        self.pending.values().for_each(|pending| pending.purpose.hash(state));
    }
}

impl IoTable {
    /// What is named from here on begins now.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
    }

    /// Names a new I/O.
    pub(super) fn start(&mut self, purpose: Purpose) -> IoId {
        self.next += 1;
        self.pending.insert(self.next, Pending { purpose, since: self.now });
        self.writes += usize::from(purpose.writes());
        self.session_reads += usize::from(purpose.reads_for_session());
        IoId(self.next)
    }

    /// Names a new write of metadata.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.next += 1;
        self.tickets.insert(self.next, self.now);
        Ticket(self.next)
    }

    /// Names what changes the metadata and may take as long as it wants.
    pub(super) fn slow_ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// A write of metadata ended.
    pub(super) fn end_ticket(&mut self, ticket: Ticket) {
        self.tickets.remove(&ticket.0);
    }

    /// How long the oldest of all that is under way has been so since `awake`. Syncs of a register may
    /// wait for the tree to come to rest, which says nothing of the disk.
    pub(super) fn oldest_age(&self, awake: Instant, is_register: bool) -> Duration {
        // Numbers only count up, so the first is the oldest.
        let mut counted =
            self.pending.values().filter(|pending| !is_register || !pending.purpose.is_sync());
        let oldest = counted.next().map(|pending| pending.since);
        let oldest = oldest.into_iter().chain(self.tickets.values().next().copied()).min();
        oldest.map_or(Duration::ZERO, |since| self.now.since(since.max(awake)))
    }

    /// What the I/O that ended was for; `None` if nobody waits for it any more.
    pub(super) fn finish(&mut self, io: IoId) -> Option<Purpose> {
        let Pending { purpose, .. } = self.pending.remove(&io.0)?;
        self.writes -= usize::from(purpose.writes());
        self.session_reads -= usize::from(purpose.reads_for_session());
        Some(purpose)
    }

    /// Writes to the data file under way.
    pub(super) fn write_count(&self) -> usize {
        self.writes
    }

    /// Reads under way that a session asked for, this one or one that is over: what the peer can
    /// make this node do at once, however often it begins anew.
    pub(super) fn session_read_count(&self) -> usize {
        self.session_reads
    }

    /// Forgets what for it was that belonged to the session that is over; its writes and syncs are
    /// still waited for, its reads still counted.
    pub(super) fn end_session(&mut self) {
        let pending = self.pending.values_mut().map(|pending| &mut pending.purpose);
        for purpose in pending.filter(|purpose| purpose.is_of_session()) {
            *purpose = if purpose.writes() {
                Purpose::Orphan
            } else if purpose.reads_for_session() {
                Purpose::Forgotten
            } else {
                self.writes += 1;
                Purpose::OrphanSync
            };
        }
    }
}
