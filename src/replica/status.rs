//! What people are told: status, explain, split-brain show.

use super::Replica;
use super::operator::{
    AtRisk, LinkStatus, PeerStatus, Refused, ReplicationStatus, ResyncStatus, SplitBrain, Status,
};
use super::role::AckNeed;
use super::session::{Phase, SessionPart, Standing};
use crate::metadata::MapMemory;
use crate::promotion::{self, PromoteHow};
use crate::units::{BLOCK_LEN, DiskState, Instant, Outcome, Role, ServeMode, Side, Transfer};

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

    /// Marks that neither a write in flight nor the unflushed window accounts for.
    fn out_of_sync_bytes(&self) -> u64 {
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

    fn resync_status(&self, now: Instant) -> Option<ResyncStatus> {
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
        let total = target.total_blocks * BLOCK_LEN;
        let done = (target.done_blocks * BLOCK_LEN).min(total);
        Some(ResyncStatus {
            is_source: false,
            total_bytes: total,
            remaining_bytes: total - done,
            rate_bytes_per_s: rate(done, target.since),
            paused: target.is_paused(),
            payload_bytes: target.payload_bytes,
        })
    }

    /// Found now, or on record from an earlier meeting.
    fn is_split(&self) -> bool {
        self.records.stable().split || self.must_choose()
    }

    fn split_brain(&self) -> Option<SplitBrain> {
        let record = self.records.stable();
        let theirs = self.link.last_hello.as_ref()?;
        if !self.is_split() {
            return None;
        }
        let mine = record.generation?;
        let their_line = || theirs.generation.iter().chain(&theirs.history);
        let my_line = || Some(&mine).into_iter().chain(&record.history);
        let common = my_line().find(|g| their_line().any(|other| other.id == g.id)).copied();
        Some(SplitBrain {
            mine,
            theirs: theirs.generation.unwrap_or_default(),
            common,
            my_bytes: self.dirty.count() * BLOCK_LEN,
            their_bytes: theirs.marks * BLOCK_LEN,
        })
    }

    /// The state's name in `promotion`.
    fn state_name(&self) -> &'static str {
        let standing = self.link.standing();
        let record = self.records.stable();
        if self.is_split() && standing == Standing::Apart {
            return "split-brain";
        }
        if self.role.promoting.is_some() {
            return "promoting";
        }
        if self.role.is_primary() {
            if self.role.exit.is_some() {
                return "handover";
            }
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

    /// Why this node is (not) in sync or promotable, and what to type.
    fn explain(&self) -> Refused {
        let resource = &self.settings.resource;
        let peer = &self.settings.peer;
        let record = self.records.stable();
        let refused = |why: String, next: String| Refused { why, next };
        if record.stand_alone {
            let why = "an operator disconnected this node".to_owned();
            return refused(why, format!("hotpair connect {resource}"));
        }
        if let Some(refused) = self.explain_left_behind() {
            return refused;
        }
        if self.is_split() {
            return refused(
                format!("both nodes have data that the other lacks: {}", self.apart_reason()),
                format!("hotpair split-brain show {resource}"),
            );
        }
        match self.disk_state() {
            DiskState::Failed | DiskState::Missing => {
                return self.explain_promotion(promotion::Refusal::DiskFailed);
            }
            DiskState::UpToDate | DiskState::Outdated | DiskState::Inconsistent => {}
        }
        if let Some(resync) = self.resync_status(self.now).filter(|resync| resync.paused) {
            let why =
                format!("{} bytes still differ; the resync is paused", resync.remaining_bytes);
            let next = format!("hotpair resume-resync {resource}");
            let is_theirs = self.is_paused_there();
            return refused(why, if is_theirs { format!("on {peer}: {next}") } else { next });
        }
        if self.role.is_primary() {
            return self.explain_primary();
        }
        let how = PromoteHow { force: false, accept_data_loss: false };
        let peer_now = self.peer_for_promotion();
        match promotion::check_promote(record, self.settings.side, peer_now, how) {
            Ok(_) => refused(
                "this node is secondary and can be promoted".to_owned(),
                format!("hotpair promote {resource}"),
            ),
            Err(promotion::Refusal::PeerIsPrimary) if self.is_in_sync() => {
                refused(format!("in sync; {peer} is primary"), String::new())
            }
            Err(refusal) => {
                let mut refused = self.explain_promotion(refusal);
                refused.why.push_str(&self.because());
                refused
            }
        }
    }

    fn explain_primary(&self) -> Refused {
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let (why, next) = match (self.is_in_sync(), self.link.standing()) {
            (true, _) => ("in sync; this node serves".to_owned(), String::new()),
            (false, Standing::Running { .. }) => (
                format!("{} bytes still differ; a resync is running", self.out_of_sync_bytes()),
                format!("hotpair status {resource} --watch"),
            ),
            (false, Standing::Down | Standing::Meeting) => (
                format!("{peer} is not connected{}", self.because()),
                format!("start hotpair on {peer}, or look at the network"),
            ),
            (false, Standing::Apart) => (
                format!("connected to {peer}, but nothing is replicated{}", self.because()),
                format!("on {peer}: hotpair explain {resource}"),
            ),
        };
        Refused { why, next }
    }

    /// The primary that the other node has promised not to follow, if that is all that keeps the
    /// nodes apart.
    fn left_behind(&self) -> Option<Side> {
        let is_refused = matches!(
            self.link.up.as_ref().map(|up| &up.phase),
            Some(Phase::Apart(Outcome::Refused))
        );
        let theirs = self.link.peer_hello().filter(|_| is_refused)?;
        let record = self.records.stable();
        let side = self.settings.side;
        if self.role.is_primary() && theirs.promised > record.epoch {
            Some(side)
        } else if theirs.role == Role::Primary && record.promised > theirs.epoch {
            Some(side.other())
        } else {
            None
        }
    }

    fn explain_left_behind(&self) -> Option<Refused> {
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let command = format!("hotpair demote {resource}");
        let is_here = self.left_behind()? == self.settings.side;
        let next = if is_here { command } else { format!("on {peer}: {command}") };
        Some(Refused { why: self.apart_reason().to_owned(), next })
    }

    fn apart_reason(&self) -> &str {
        self.link.refusal.as_deref().unwrap_or("the peer is not connected now")
    }

    fn because(&self) -> String {
        self.link.refusal.as_ref().map_or_else(String::new, |reason| format!(": {reason}"))
    }
}
