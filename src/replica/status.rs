//! What people are told: status, split-brain show. Why it is so is in `explain.rs`.

use super::Replica;
use super::operator::{
    AtRisk, LinkStatus, PeerStatus, ReplicationStatus, ResyncStatus, SplitBrain, Status,
};
use super::role::AckNeed;
use super::session::{Phase, Session, SessionPart, Standing};
use crate::metadata::MapMemory;
use crate::units::{BLOCK_LEN, DiskState, Generation, Instant, Outcome, ServeMode, Transfer};

/// Blocks of a transfer at its target.
struct TargetBlocks {
    total: u64,
    /// At most `total`.
    remaining: u64,
}

impl<M: MapMemory> Replica<M> {
    /// What `status` shows at `now`.
    pub fn status(&self, now: Instant) -> Status {
        let record = self.records.stable();
        let (writes, bytes, oldest) = self.writes.at_risk();
        let age = oldest.map_or(0, |at| now.since(at).as_millis());
        let age_ms = u64::try_from(age).unwrap_or(u64::MAX);
        let link = self.link_status();
        Status {
            role: self.role_now(),
            disk: self.disk_state(),
            disk_reason: record.disk_reason,
            disk_answers: self.disk_answers(),
            serving: self.role.is_exported(),
            solo: self.role.is_primary() && record.serve_mode == ServeMode::Solo,
            state: self.state_name(),
            epoch: record.epoch,
            generation: record.generation,
            size_bytes: self.size.bytes(),
            out_of_sync_bytes: self.out_of_sync_bytes(),
            at_risk: AtRisk { writes, bytes, age_ms },
            link,
            replication: self.replication_status(),
            peer: self
                .link
                .peer_hello()
                .map(|hello| PeerStatus { role: hello.role, disk: self.peer_disk(hello.disk) }),
            resync: self.resync_status(now),
            last_verify: self.verify.last.clone(),
            verify_progress: self.verify.compared().map(|done| (done, self.size.chunk_count())),
            split_brain: self.split_brain(),
            promotion: self.promotion_status(),
            services: self.service_status(),
            explain: self.explain(),
        }
    }

    /// The peer's Hello is as old as the session; what the session achieved since is known.
    fn peer_disk(&self, said: DiskState) -> DiskState {
        match self.link.session().map(|session| (&session.part, session.transfer)) {
            Some((SessionPart::Source(source), _)) if source.is_complete() => DiskState::UpToDate,
            Some((SessionPart::Source(_), Transfer::Resync | Transfer::ResyncAll)) => {
                DiskState::Inconsistent
            }
            Some(_) | None => said,
        }
    }

    /// What may differ from the peer, as far as this node can know: marks that neither a write in
    /// flight nor the unflushed window accounts for. The target of a transfer lacks what the source
    /// has marked. A secondary without a session cannot know what the other node did meanwhile.
    pub(super) fn out_of_sync_bytes(&self) -> Option<u64> {
        match self.link.session() {
            None if !self.role.is_primary() => None,
            Some(Session { part: SessionPart::Target(target), .. }) if !target.is_complete() => {
                Some(self.target_blocks()?.remaining * BLOCK_LEN)
            }
            None | Some(_) => Some(self.marked_bytes()),
        }
    }

    /// What the transfer to this node is about.
    fn target_blocks(&self) -> Option<TargetBlocks> {
        let target = self.link.target()?;
        if target.is_started() {
            let (total, remaining) = (target.total_blocks, target.remaining_blocks());
            return Some(TargetBlocks { total, remaining });
        }
        // Until the source says so itself, what both said when they met.
        let all = self.size.block_count();
        let total = match self.link.session()?.transfer {
            Transfer::ResyncAll => all,
            Transfer::Replay | Transfer::Resync => {
                let theirs = self.link.peer_hello().map_or(0, |hello| hello.marks);
                theirs.saturating_add(self.dirty.count()).min(all)
            }
        };
        Some(TargetBlocks { total, remaining: total })
    }

    pub(super) fn marked_bytes(&self) -> u64 {
        let in_flight: u64 = if self.ack_need() == AckNeed::Peer {
            0
        } else {
            self.writes.in_flight().map(crate::units::BlockRange::block_count).sum()
        };
        self.hard_marks().saturating_sub(in_flight) * BLOCK_LEN
    }

    fn link_status(&self) -> LinkStatus {
        if self.records.stable().stand_alone {
            return LinkStatus::StandAlone;
        }
        match self.link.up.as_ref().map(|up| &up.phase) {
            None | Some(Phase::Draining | Phase::Waiting { .. }) => LinkStatus::Connecting,
            Some(Phase::Apart(Outcome::SplitBrain | Outcome::Unrelated)) => LinkStatus::StandAlone,
            Some(Phase::Apart(_) | Phase::Session(_)) => LinkStatus::Connected,
        }
    }

    fn replication_status(&self) -> ReplicationStatus {
        if self.verify.compared().is_some() {
            return ReplicationStatus::Verify;
        }
        match self.link.session().map(|session| &session.part) {
            None => ReplicationStatus::Off,
            Some(SessionPart::Idle) => ReplicationStatus::Established,
            Some(SessionPart::Source(source)) if source.is_complete() => {
                ReplicationStatus::Established
            }
            Some(SessionPart::Source(_)) => ReplicationStatus::SyncSource,
            Some(SessionPart::Target(target)) if target.is_complete() => {
                ReplicationStatus::Established
            }
            Some(SessionPart::Target(_)) => ReplicationStatus::SyncTarget,
        }
    }

    pub(super) fn resync_status(&self, now: Instant) -> Option<ResyncStatus> {
        let rate = |done: u64, since: Instant| {
            let ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            (done * 1000).checked_div(ms).unwrap_or(0)
        };
        if let Some(source) = self.link.source().filter(|source| !source.is_complete()) {
            let remaining = self.hard_marks() * BLOCK_LEN;
            let total = (source.total_blocks * BLOCK_LEN).max(remaining);
            return Some(ResyncStatus {
                is_source: true,
                total_bytes: total,
                remaining_bytes: remaining,
                rate_bytes_per_s: rate(total - remaining, source.since),
                paused: source.is_paused(),
                payload_bytes: source.payload_bytes,
            });
        }
        let target = self.link.target().filter(|target| !target.is_complete())?;
        let TargetBlocks { total, remaining } = self.target_blocks()?;
        Some(ResyncStatus {
            is_source: false,
            total_bytes: total * BLOCK_LEN,
            remaining_bytes: remaining * BLOCK_LEN,
            rate_bytes_per_s: rate((total - remaining) * BLOCK_LEN, target.since),
            paused: target.is_paused(),
            payload_bytes: target.payload_bytes,
        })
    }

    /// Found now, or on record from an earlier meeting.
    pub(super) fn is_split(&self) -> bool {
        self.records.stable().split || self.must_choose()
    }

    fn split_brain(&self) -> Option<SplitBrain> {
        if !self.is_split() {
            return None;
        }
        let record = self.records.stable();
        let mine = record.generation?;
        // After a start the record tells of it before the peer has said anything.
        let theirs = self.link.last_hello.as_ref();
        let is_theirs = |generation: &&Generation| {
            let mut line = theirs.iter().flat_map(|it| it.generation.iter().chain(&it.history));
            line.any(|other| other.id == generation.id)
        };
        let common = Some(&mine).into_iter().chain(&record.history).find(is_theirs).copied();
        Some(SplitBrain {
            mine,
            theirs: theirs.and_then(|hello| hello.generation),
            common,
            my_bytes: self.dirty.count() * BLOCK_LEN,
            their_bytes: theirs.map(|hello| hello.marks * BLOCK_LEN),
        })
    }

    /// The state's name in `promotion`.
    pub(super) fn state_name(&self) -> &'static str {
        let standing = self.link.standing();
        let record = self.records.stable();
        if self.is_split() && standing == Standing::Apart {
            return "split-brain";
        }
        if self.role.promoting.is_some() {
            return "promoting";
        }
        if self.role.is_primary() && self.role.exit.is_some() || self.asks_arbiter().is_some() {
            return "handover";
        }
        if let Some(state) = self.state_by_arbiter() {
            return state;
        }
        if self.role.is_primary() {
            return match (record.serve_mode, self.ack_need()) {
                (ServeMode::Solo, AckNeed::Peer) => "pairing",
                (ServeMode::Solo, AckNeed::Alone | AckNeed::Hold) => "solo",
                (_, AckNeed::Peer) if self.is_in_sync() => "paired",
                (_, AckNeed::Peer) => "pairing",
                (_, AckNeed::Hold | AckNeed::Alone) => "frozen",
            };
        }
        match standing {
            Standing::Down | Standing::Meeting if record.veto.is_some() => "outdated",
            Standing::Down | Standing::Meeting => "isolated",
            Standing::Apart => "isolated",
            Standing::Running { .. } if self.is_in_sync() => "following",
            Standing::Running { .. } => "syncing",
        }
    }
}
