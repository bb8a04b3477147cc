//! Hello and Verdict: how two nodes find out what each has and agree on what follows.
//!
//! Hello is sent when nothing is under way here, so it says what is stable. Both nodes conclude
//! from both Hellos, tell each other, and go on only if the two verdicts mirror each other. A
//! verdict belongs to one pair of Hellos, by their counters; any other is ignored.

use super::apply::Applier;
use super::effect::Closing;
use super::explain::Obstacle;
use super::records::{Acquaintance, Change, Join};
use super::request::PART_LEN_MAX;
use super::role::AckNeed;
use super::session::{Fault, Phase, Session, SessionPart};
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::metadata::generation::{RESOURCE, Standpoint, decide};
use crate::promotion::{self, Claim};
use crate::units::{
    CHUNK_LEN, DiskState, Outcome, ReplicationMode, ResourceId, Role, ServeMode, SessionId, Side,
    Transfer,
};
use crate::wire::frame::session_id;
use crate::wire::message::{Credit, Hello, Message, RefusalCode, Verdict};
use crate::wire::version::Version;

impl<M: MapMemory> Replica<M> {
    /// Sends Hello when nothing of the last session is under way.
    pub(super) fn pump_session(&mut self, effects: &mut Effects) {
        let Some(up) = &self.link.up else { return };
        if !matches!(up.phase, Phase::Draining) || !self.is_drained() {
            return;
        }
        if self.records.stable().serve_mode != ServeMode::Solo {
            // Whoever hears this may lift the veto that it gave before.
            self.role.peer_vetoed = None;
        }
        let mut hello = self.hello();
        if let Some(up) = &mut self.link.up {
            up.counter += 1;
            hello.counter = up.counter;
            hello.nonce = up.nonce;
            up.mine = Some(hello.clone());
            up.phase = Phase::Waiting { verdict: None };
        }
        self.send(Message::Hello(Box::new(hello)), effects);
        self.conclude(effects);
    }

    /// What was received is applied or dropped, own writes are complete, records are stable:
    /// nothing old can land later.
    fn is_drained(&self) -> bool {
        let answers_alone = self.ack_need() == AckNeed::Alone && self.writes.has_submitted();
        self.background.is_started()
            && self.io.write_count() == 0
            && self.applier.is_empty()
            && self.records.is_idle()
            && !self.role.is_changing()
            && !answers_alone
            && !self.writes.is_writing()
    }

    fn hello(&self) -> Hello {
        let record = self.records.stable();
        let role = if self.role.is_primary() { Role::Primary } else { Role::Secondary };
        let (_, at_risk_bytes, _) = self.writes.at_risk();
        Hello {
            versions: Version::offer(),
            cluster: self.settings.cluster.clone(),
            node: self.settings.node.clone(),
            resource: self.settings.resource.clone(),
            nonce: [0; 32],
            counter: 0,
            resource_id: record.resource_id,
            replica_id: record.replica_id,
            peer_replica_id: record.peer_replica_id,
            size: record.size,
            size_next: record.size_next,
            epoch: record.epoch,
            promised: record.promised,
            served_epoch: record.served_epoch,
            generation: record.generation,
            history: record.history.clone(),
            disk: self.disk_state(),
            disk_reason: record.disk_reason,
            role,
            serve_mode: record.serve_mode,
            mode: self.settings.mode,
            settings: self.settings.settings_hash,
            veto: record.veto,
            hold: record.hold,
            never_promotes: record.never_promotes,
            stopped: record.stopped,
            marks: self.dirty.count(),
            at_risk_bytes,
            applied: record.applied,
            peer_applied: record.peer_applied,
            instances: record.instances.clone(),
            peer_instance: record.peer_instance,
            boot_id: record.place.boot_id,
            resync_source: record.resync_source,
            resolution: record.resolution,
            zeroing_is_cheap: self.settings.zeroing_is_cheap,
        }
    }

    pub(super) fn on_hello(&mut self, hello: Hello, effects: &mut Effects) {
        if let Err((code, text)) = self.check_hello(&hello) {
            let next = self.way_out(code, false);
            self.link.obstacle = Some(Obstacle { why: text.clone(), next });
            self.event("refused", text.clone());
            self.send_refusal(code, &text, effects);
            self.close_link(true, effects);
            return;
        }
        let claim = claim_of(&hello);
        let was_primary = claim.role == Role::Primary;
        self.link.last_hello = Some(hello.clone());
        self.link.obstacle = None;
        if let Some(up) = &mut self.link.up {
            up.theirs = Some(hello);
        }
        if was_primary {
            self.on_peer_is_primary(effects);
        }
        let mine = self.records.stable().epoch;
        if self.role.is_primary() && promotion::must_step_down(mine, claim) {
            let why = format!("the peer is primary at epoch {}", claim.epoch);
            self.step_down(claim.epoch, why, effects);
        }
        let is_waiting =
            self.link.up.as_ref().is_some_and(|up| matches!(up.phase, Phase::Waiting { .. }));
        let is_draining =
            self.link.up.as_ref().is_some_and(|up| matches!(up.phase, Phase::Draining));
        if is_waiting && self.records.is_idle() {
            self.conclude(effects);
        } else if !is_draining {
            self.restart_session();
        }
    }

    /// The peer must be the one that is configured, and speak of the same things.
    fn check_hello(&self, hello: &Hello) -> Result<(), (RefusalCode, String)> {
        let settings = &self.settings;
        // Both nodes show it: what is "here" on one of them is not on the other.
        let (here, there) = (&settings.node, &hello.node);
        let wrong = |what: &str, found: &str, wanted: &str| {
            let text = format!("{what} is {found:?} on {there} and {wanted:?} on {here}");
            Err((RefusalCode::WrongPeer, text))
        };
        if let Err(error) = Version::common(hello.versions) {
            return Err((RefusalCode::Version, error.to_string()));
        }
        if hello.cluster != settings.cluster {
            return wrong("the cluster", &hello.cluster, &settings.cluster);
        }
        if hello.node != settings.peer {
            let text = format!("a node called {there} came, and {here} expects {}", settings.peer);
            return Err((RefusalCode::WrongPeer, text));
        }
        if hello.resource != settings.resource {
            return wrong("the resource", &hello.resource, &settings.resource);
        }
        if hello.mode != settings.mode {
            let (theirs, mine, resource) = (hello.mode, settings.mode, &settings.resource);
            let text = format!(
                "`mode` of [resource.{resource}] is {theirs} on {there} and {mine} on {here}"
            );
            return Err((RefusalCode::Settings, text));
        }
        if hello.settings != settings.settings_hash {
            return Err((RefusalCode::Settings, self.settings_that_differ()));
        }
        Ok(())
    }

    /// Which settings have another hash at the peer, as far as that tells: names, mode and
    /// encryption are the same, or it would not have come to comparing hashes.
    fn settings_that_differ(&self) -> String {
        let of_async = match self.settings.mode {
            ReplicationMode::Async => {
                format!(", `flush` or `at_risk_budget` of [resource.{}]", self.settings.resource)
            }
            ReplicationMode::Sync | ReplicationMode::MemSync => String::new(),
        };
        format!(
            "settings differ that must be the same on both nodes: `interval` or `suspect_after` of \
             [heartbeat]{of_async}"
        )
    }

    /// Concludes from both Hellos and tells the peer.
    fn conclude(&mut self, effects: &mut Effects) {
        let Some(up) = &self.link.up else { return };
        let (Some(mine), Some(theirs)) = (&up.mine, &up.theirs) else { return };
        if !self.has_room_for_meeting(mine, theirs) {
            self.make_room_for_meeting(effects);
            // What was concluded from an older Hello of the peer is void.
            if let Some(up) = &mut self.link.up {
                up.phase = Phase::Waiting { verdict: None };
            }
            return;
        }
        let (outcome, reason) = self.judge(mine, theirs);
        let credit = Credit {
            frames: u32::try_from(self.settings.in_flight_parts_max).unwrap_or(u32::MAX),
            bytes: u32::try_from(self.settings.in_flight_bytes_max.max(PART_LEN_MAX))
                .unwrap_or(u32::MAX),
        };
        let chunks = u32::try_from(self.settings.resync_chunks_max).unwrap_or(u32::MAX);
        let chunk_len = u32::try_from(CHUNK_LEN).expect("64 KiB");
        let resync_credit = Credit { frames: chunks, bytes: chunks.saturating_mul(chunk_len) };
        let verdict = Verdict {
            outcome,
            reason,
            mine: mine.counter,
            theirs: theirs.counter,
            client_credit: credit,
            resync_credit,
        };
        let session = self.session_of(mine, theirs, up.exporter);
        if let Some(up) = &mut self.link.up {
            if let Some(old) = up.session.replace(session)
                && old != session
            {
                up.end(old);
            }
            up.phase = Phase::Waiting { verdict: Some(Box::new(verdict.clone())) };
        }
        self.send(Message::Verdict(verdict), effects);
    }

    fn session_of(&self, mine: &Hello, theirs: &Hello, exporter: [u8; 32]) -> SessionId {
        let (first, second) = match self.settings.side {
            Side::First => (mine, theirs),
            Side::Second => (theirs, mine),
        };
        let base = session_id(&first.nonce, &second.nonce, &exporter);
        let meeting = (u64::from(first.counter) << 32) | u64::from(second.counter);
        SessionId(base.0.wrapping_add(meeting).max(1))
    }

    fn judge(&self, mine: &Hello, theirs: &Hello) -> (Outcome, String) {
        let first = standpoint(mine, self.settings.side);
        let second = standpoint(theirs, self.settings.side.other());
        let decision = decide(&first, &second);
        let moves = decision.outcome.moves();
        for (a, b) in [(mine, theirs), (theirs, mine)] {
            if moves && a.role == Role::Primary && self.is_over(a.epoch, b.promised) {
                let reason = format!(
                    "{} is primary at epoch {}, but {} promised epoch {}: type `hotpair demote {}` \
                     on {}, and promote the one that is to go on",
                    a.node, a.epoch, b.node, b.promised, self.settings.resource, a.node
                );
                return (Outcome::Refused, reason);
            }
        }
        let reason = decision.reason.replace(RESOURCE, &self.settings.resource);
        if decision.outcome == Outcome::Refused {
            return (Outcome::Refused, self.why_refused(reason));
        }
        (decision.outcome, reason)
    }

    pub(super) fn on_verdict(
        &mut self,
        theirs: &Verdict,
        effects: &mut Effects,
    ) -> Result<(), Fault> {
        check_grants(theirs)?;
        let Some(up) = &self.link.up else { return Ok(()) };
        let Phase::Waiting { verdict: Some(mine) } = &up.phase else { return Ok(()) };
        if theirs.mine != mine.theirs || theirs.theirs != mine.mine {
            return Ok(()); // it was made from an older Hello
        }
        if theirs.outcome != mine.outcome.mirrored() {
            let (here, there) = (&self.settings.node, &self.settings.peer);
            let text = format!(
                "the nodes conclude differently: {} ({}) on {here}, {} ({}) on {there}",
                mine.outcome, mine.reason, theirs.outcome, theirs.reason
            );
            self.event("refused", text.clone());
            self.send_refusal(RefusalCode::VerdictsDiffer, &text, effects);
            self.close_link(true, effects);
            return Ok(());
        }
        let (outcome, reason) = (mine.outcome, mine.reason.clone());
        self.event("verdict", format!("{outcome}: {reason}"));
        if self.role.promoting.is_some() || self.role.take_over.is_some() {
            self.restart_session();
            return Ok(());
        }
        match outcome {
            Outcome::InSync => self.join(None, theirs, reason),
            Outcome::Source(transfer) => self.join(Some((transfer, true)), theirs, reason),
            Outcome::Target(transfer) => self.join(Some((transfer, false)), theirs, reason),
            Outcome::SplitBrain | Outcome::Unrelated | Outcome::Refused => {
                self.stay_apart(outcome, reason, effects);
            }
        }
        Ok(())
    }

    /// Nothing moves: each keeps what it has, and an operator decides.
    fn stay_apart(&mut self, outcome: Outcome, reason: String, effects: &mut Effects) {
        let next = self.way_out_of_verdict();
        self.link.obstacle = Some(Obstacle { why: reason.clone(), next });
        let peer_is_useless = self.link.peer_hello().is_some_and(|hello| {
            matches!(hello.disk, DiskState::Failed | DiskState::Missing | DiskState::Inconsistent)
        });
        if peer_is_useless {
            self.role.peer_vetoed = Some(self.records.stable().epoch);
        }
        if let Some(up) = &mut self.link.up {
            up.phase = Phase::Apart(outcome);
        }
        self.abort_switchover("the nodes are not in sync", effects);
        if outcome == Outcome::SplitBrain && !self.records.stable().split {
            self.event("split-brain", reason);
            self.records.change(Change::Split);
        }
        self.let_former_primary_go_on(effects);
    }

    /// The peer was promoted at a higher epoch, and has been away since: it will not follow this node, so this
    /// one follows it if the two then agree. An arbiter that knows of it may be gone for good.
    fn let_former_primary_go_on(&mut self, effects: &mut Effects) {
        let Some(up) = &self.link.up else { return };
        let (Some(mine), Some(theirs)) = (&up.mine, &up.theirs) else { return };
        let claim = claim_of(theirs);
        let epoch = self.records.stable().epoch;
        let is_superseded = promotion::is_superseded(epoch, claim, theirs.serve_mode);
        // Pacemaker promotes it, or the other one.
        if !self.role.is_primary() || !is_superseded || self.is_under_pacemaker() {
            return;
        }
        let mut first = standpoint(mine, self.settings.side);
        first.role = Role::Secondary;
        let second = standpoint(theirs, self.settings.side.other());
        if decide(&first, &second).outcome.moves() {
            let why = format!("the peer was promoted at epoch {}, and is to go on", claim.epoch);
            self.step_down(claim.epoch, why, effects);
        }
    }

    /// Both agree: what was found is made durable before anything of the session is written.
    fn join(&mut self, transfer: Option<(Transfer, bool)>, verdict: &Verdict, reason: String) {
        let Some(theirs) = self.link.peer_hello().cloned() else { return };
        let record = self.records.stable();
        let i_am_primary = self.role.is_primary();
        let peer_is_primary = theirs.role == Role::Primary;
        let (transfer, part) = match transfer {
            Some((transfer, true)) => (transfer, SessionPart::Source(Box::default())),
            Some((transfer, false)) => (transfer, SessionPart::Target(Box::default())),
            None if i_am_primary => (Transfer::Replay, SessionPart::Source(Box::default())),
            None if peer_is_primary => (Transfer::Replay, SessionPart::Target(Box::default())),
            None => (Transfer::Replay, SessionPart::Idle),
        };
        let is_target = matches!(part, SessionPart::Target(_));
        let source_generation = theirs.generation.unwrap_or_default();
        let superseded = self.is_over(record.epoch, theirs.promised)
            && record.owner == Some(self.settings.side)
            && !i_am_primary;
        let follows = if peer_is_primary {
            Some((self.settings.side.other(), theirs.epoch))
        } else {
            superseded.then(|| (self.settings.side.other(), theirs.promised))
        };
        let own_id = record.resource_id;
        let join = Join {
            resource_id: if own_id == ResourceId::default() { theirs.resource_id } else { own_id },
            size: self.size_after_meeting(),
            acquaintance: (is_target || transfer != Transfer::ResyncAll)
                .then(|| acquaintance_of(&theirs)),
            peer_never_promotes: theirs.never_promotes,
            peer_promised: theirs.epoch.max(theirs.promised),
            follows,
            target: is_target.then_some((transfer, source_generation)),
            needs_peer: i_am_primary && transfer == Transfer::Replay,
            memsync_secondary: peer_is_primary && self.settings.mode == ReplicationMode::MemSync,
            is_register: self.settings.is_register,
        };
        // As it was said: an arbiter may have named a higher one since.
        let said = self.link.up.as_ref().and_then(|up| up.mine.as_ref()).map(|mine| mine.epoch);
        let own = said.unwrap_or(record.epoch);
        let epoch = if peer_is_primary { theirs.epoch } else { own };
        if let Some(up) = &mut self.link.up {
            up.phase = Phase::Session(Box::new(Session {
                epoch,
                transfer,
                part,
                is_joined: false,
                is_vetoed: false,
                pledge: super::pledge::PledgeTalk::default(),
                client_credit: verdict.client_credit,
                resync_credit: verdict.resync_credit,
            }));
        }
        self.applier = Applier::default();
        self.link.peer_stable = theirs.applied;
        self.link.obstacle = None;
        self.role.peer_vetoed = None;
        if transfer == Transfer::Replay && !is_target {
            self.role.distrust_marks();
        }
        self.event("joined", reason);
        self.records.change(Change::Join(Box::new(join)));
    }

    /// What this session found is stable.
    pub(super) fn on_joined(&mut self, effects: &mut Effects) {
        let Some(session) = self.link.session_mut() else { return };
        session.is_joined = true;
        if !matches!(self.link.session(), Some(Session { part: SessionPart::Source(_), .. })) {
            return;
        }
        self.start_source(effects);
    }

    /// A serving loser of a split brain lets its clients go at once.
    pub(super) fn stop_serving_for_resolution(&mut self, effects: &mut Effects) {
        if !self.role.is_primary() {
            return;
        }
        self.close_export(Closing::Fenced, effects);
        self.refuse_waiting_operators("this node's data is given up", effects);
        self.role.primary = None;
        self.records.change(Change::StepDown {
            owner: Some(self.settings.side.other()),
            promised: self.records.stable().promised,
            veto: Some(crate::units::VetoReason::Superseded),
            stopped: false,
        });
    }
}

/// A write waits for credit, so there must be some for every frame that can be sent.
fn check_grants(verdict: &Verdict) -> Result<(), Fault> {
    for (what, credit, at_least) in [
        ("writes", verdict.client_credit, PART_LEN_MAX),
        ("chunks", verdict.resync_credit, CHUNK_LEN),
    ] {
        if credit.frames == 0 || u64::from(credit.bytes) < at_least {
            return Err(Fault::NoCredit { what, frames: credit.frames, bytes: credit.bytes });
        }
    }
    Ok(())
}

/// What is stored of the peer that said `hello`.
pub(super) fn acquaintance_of(hello: &Hello) -> Acquaintance {
    Acquaintance {
        replica_id: hello.replica_id,
        instance: hello.instances.first().copied().unwrap_or_default(),
        applied: hello.applied,
    }
}

/// What a Hello claims about the right to serve.
pub(super) fn claim_of(hello: &Hello) -> Claim {
    Claim { role: hello.role, epoch: hello.epoch, promised: hello.promised }
}

/// What `decide` looks at.
pub(super) fn standpoint(hello: &Hello, side: Side) -> Standpoint {
    Standpoint {
        side,
        resource_id: hello.resource_id,
        replica_id: hello.replica_id,
        peer_replica_id: hello.peer_replica_id,
        size: hello.size,
        size_next: hello.size_next,
        generation: hello.generation,
        history: hello.history.clone(),
        disk: hello.disk,
        disk_reason: hello.disk_reason,
        role: hello.role,
        serve_mode: hello.serve_mode,
        epoch: hello.epoch,
        served_epoch: hello.served_epoch,
        marks: hello.marks,
        at_risk_bytes: hello.at_risk_bytes,
        mode: hello.mode,
        applied: hello.applied,
        peer_applied: hello.peer_applied,
        instances: hello.instances.clone(),
        peer_instance: hello.peer_instance,
        resync_source: hello.resync_source,
        resolution: hello.resolution,
    }
}
