//! What this node is, and under which conditions it may acknowledge.
//!
//! `promotion` says what is allowed; this file carries it out in the order that safety needs:
//! the disk is synced, the record says so durably, then writes are answered.

use super::effect::{Closing, DiskOutcome, Effect};
use super::exit::Exit;
use super::io::Purpose;
use super::planted::Planted;
use super::promote::{Promoting, TakeOver};
use super::records::Change;
use super::session::{SessionPart, Standing};
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion::services::ServiceReason;
use crate::promotion::{self, Resume};
use crate::units::{DiskReason, DiskState, Epoch, Generation, Sequence, ServeMode, VetoReason};

/// What a promotion writes into the record.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Promoted {
    pub(super) epoch: Epoch,
    pub(super) mode: ServeMode,
    pub(super) generation: Option<Generation>,
    pub(super) is_forced: bool,
}

/// What an acknowledgement needs now.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum AckNeed {
    /// Nothing is acknowledged: the peer is away and no permit is stable.
    Hold,
    /// The peer must have the write.
    Peer,
    /// The record says durably that this node goes on alone.
    Alone,
}

/// This node's part in who serves.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct RoleState {
    pub(super) primary: Option<Primary>,
    pub(super) promoting: Option<Promoting>,
    pub(super) take_over: Option<TakeOver>,
    /// It takes over what nobody owned before.
    pub(super) is_first_owner: bool,
    /// Why this node is primary, or was last, as hooks are told.
    pub(super) why_primary: ServiceReason,
    pub(super) exit: Option<Exit>,
    /// The peer confirmed, in or since the last session, that it vetoed itself at this epoch.
    pub(super) peer_vetoed: Option<Epoch>,
    /// Clients of an export that was opened may still be there.
    pub(super) has_clients: bool,
    next_sync: u64,
}

/// What only a primary has.
#[derive(Clone, Debug, Hash)]
pub(super) struct Primary {
    pub(super) epoch: Epoch,
    is_exported: bool,
    solo: SoloStep,
    generation: OwnGeneration,
    /// Marks are left from before it became primary or from the last session: what they cover may
    /// be taken back, so it is not read before it was replayed.
    marks_unproven: bool,
    told_no_permit: bool,
}

/// How far this node is on its way to acknowledge alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum SoloStep {
    No,
    Syncing(u64),
    Recording,
}

/// Whether this node's data has a generation of its own since it went alone.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum OwnGeneration {
    No,
    Recording,
    Stable,
}

impl RoleState {
    pub(super) fn is_primary(&self) -> bool {
        self.primary.is_some()
    }

    /// Whether clients of `epoch` are served.
    pub(super) fn serves(&self, epoch: Epoch) -> bool {
        self.primary.as_ref().is_some_and(|p| p.epoch == epoch && p.is_exported)
    }

    /// Whether clients are accepted now.
    pub(super) fn is_exported(&self) -> bool {
        self.primary.as_ref().is_some_and(|p| p.is_exported)
    }

    /// Whether new requests are taken.
    pub(super) fn intake_is_open(&self) -> bool {
        self.is_exported() && self.exit.as_ref().is_none_or(Exit::takes_requests)
    }

    pub(super) fn marks_unproven(&self) -> bool {
        self.primary.as_ref().is_some_and(|p| p.marks_unproven)
    }

    /// No mark needs to be replayed any more.
    pub(super) fn marks_are_proven(&mut self) {
        if let Some(primary) = &mut self.primary {
            primary.marks_unproven = false;
        }
    }

    /// A new session begins with a replay: what was in flight may be taken back until then.
    pub(super) fn distrust_marks(&mut self) {
        if let Some(primary) = &mut self.primary {
            primary.marks_unproven = true;
        }
    }

    /// Whether the generation that only this node has is stable.
    pub(super) fn may_acknowledge_alone(&self) -> bool {
        self.primary.as_ref().is_some_and(|p| p.generation == OwnGeneration::Stable)
    }

    /// A flush adds nothing that the peer lacks, so it needs no new generation.
    pub(super) fn may_flush_alone(&self) -> bool {
        self.is_primary()
    }

    /// Whether a step towards solo is under way; no Hello is sent meanwhile.
    pub(super) fn is_changing(&self) -> bool {
        self.promoting.as_ref().is_some_and(Promoting::is_recording)
            || self
                .primary
                .as_ref()
                .is_some_and(|p| p.solo != SoloStep::No || p.generation == OwnGeneration::Recording)
    }

    /// The peer is about to be a candidate: its veto or its incomplete copy permits nothing more,
    /// not even a step that began.
    pub(super) fn peer_may_be_complete(&mut self) {
        self.peer_vetoed = None;
        if let Some(primary) = &mut self.primary
            && let SoloStep::Syncing(_) = primary.solo
        {
            primary.solo = SoloStep::No;
        }
    }

    /// Names a sync that precedes a change of role.
    pub(super) fn name_sync(&mut self) -> u64 {
        self.next_sync += 1;
        self.next_sync
    }
}

impl<M: MapMemory> Replica<M> {
    /// What an acknowledgement needs now.
    pub(super) fn ack_need(&self) -> AckNeed {
        if !self.role.is_primary() {
            return AckNeed::Hold;
        }
        match self.records.stable().serve_mode {
            ServeMode::None | ServeMode::HandingOver => AckNeed::Hold,
            ServeMode::Paired | ServeMode::Gated => match self.link.standing() {
                Standing::Running { peer_acknowledges: true } => AckNeed::Peer,
                Standing::Running { peer_acknowledges: false }
                | Standing::Down
                | Standing::Apart
                | Standing::Meeting => {
                    if self.is_planted(Planted::SoloBeforeRecord)
                        && self.link.standing() == Standing::Down
                    {
                        return AckNeed::Alone;
                    }
                    AckNeed::Hold
                }
            },
            ServeMode::Solo => match self.link.standing() {
                Standing::Running { peer_acknowledges: true } => AckNeed::Peer,
                Standing::Running { peer_acknowledges: false }
                | Standing::Down
                | Standing::Apart
                | Standing::Meeting => AckNeed::Alone,
            },
        }
    }

    /// Whether writes and reads that wait may start. While the nodes meet nothing starts, so that
    /// what was said in a Hello stays true until the session runs.
    pub(super) fn may_admit(&self) -> bool {
        self.ack_need() != AckNeed::Hold && self.link.standing() != Standing::Meeting
    }

    /// Goes on with every change of role that has become possible.
    pub(super) fn pump_role(&mut self, effects: &mut Effects) {
        self.pump_promoting(effects);
        self.pump_take_over(effects);
        self.pump_resume(effects);
        self.pump_export(effects);
        self.pump_solo(effects);
        self.pump_generation(effects);
        self.pump_exit(effects);
    }

    /// Becomes primary as the stable record says.
    pub(super) fn become_primary(&mut self, why: &str, reason: ServiceReason) {
        self.role.why_primary = reason;
        let record = self.records.stable();
        let (epoch, is_solo) = (record.epoch, record.serve_mode == ServeMode::Solo);
        self.role.primary = Some(Primary {
            epoch,
            is_exported: false,
            solo: SoloStep::No,
            generation: OwnGeneration::No,
            marks_unproven: !is_solo,
            told_no_permit: false,
        });
        let applied = self.records.stable().applied;
        if applied.epoch == epoch {
            self.writes.number_from(Sequence(applied.sequence.0 + SEQUENCE_JUMP));
        } else {
            self.writes.number_from(Sequence(0));
        }
        self.event("role-changed", format!("this node is primary at epoch {epoch}: {why}"));
        self.restart_session();
        self.writes.recheck();
    }

    /// The export opens when the last client of an older epoch is gone.
    fn pump_export(&mut self, effects: &mut Effects) {
        if self.role.has_clients || self.role.exit.is_some() || self.role.is_exported() {
            return;
        }
        // Whoever begins to serve knows that nobody else does; later a lease may lapse and come back.
        if !self.may_answer_reads() {
            return;
        }
        let Some(primary) = &mut self.role.primary else { return };
        if let Some(grant) = promotion::grant(self.records.durable(), self.settings.side) {
            primary.is_exported = true;
            // The arbiter may have named a higher one since this node became primary.
            primary.epoch = grant.epoch();
            self.role.has_clients = true;
            effects.push(Effect::OpenExport(grant));
        }
    }

    /// Closes the export; [`super::Input::ClientsGone`] follows.
    pub(super) fn close_export(&mut self, closing: Closing, effects: &mut Effects) {
        if let Some(primary) = &mut self.role.primary {
            primary.is_exported = false;
        }
        if self.role.has_clients {
            effects.push(Effect::CloseExport(closing));
        }
        if closing == Closing::Fenced {
            self.drop_requests();
        }
    }

    /// Unanswered requests stay unanswered; the blocks of those that began stay marked.
    fn drop_requests(&mut self) {
        let ranges = self.writes.drop_all();
        self.orphaned.extend(ranges);
        self.unpin_orphans();
        self.flushes.drop_tickets();
    }

    pub(super) fn on_clients_gone(&mut self, effects: &mut Effects) {
        self.role.has_clients = false;
        self.on_exit_clients_gone(effects);
    }

    /// The peer is away or cannot be a candidate: sync, record, then acknowledge alone. The order
    /// is the invariant `StableBeforeSolo`: when the peer stops being needed, nothing acknowledged
    /// exists only in its cache.
    fn pump_solo(&mut self, effects: &mut Effects) {
        let record = self.records.stable();
        if !self.peer_is_not_needed()
            || record.serve_mode != ServeMode::Paired
            || !self.records.is_idle()
        {
            return;
        }
        let vetoed = self.role.peer_vetoed.is_some();
        let permit = self.permit_to_go_alone(vetoed);
        let Some(primary) = &mut self.role.primary else { return };
        if primary.solo != SoloStep::No {
            return;
        }
        let Some(permit) = permit else {
            if !primary.told_no_permit {
                primary.told_no_permit = true;
                self.event("writes-held", "the peer is away and gave neither veto nor consent");
            }
            return;
        };
        let sync = self.role.name_sync();
        if let Some(primary) = &mut self.role.primary {
            primary.solo = SoloStep::Syncing(sync);
        }
        self.event("going-solo", format!("the peer is away or incomplete; permit: {permit:?}"));
        let io = self.io.start(Purpose::Role(sync));
        effects.push(Effect::SyncData { io });
    }

    /// With an arbiter the peer may promote itself whatever it said of itself before.
    pub(super) fn permit_to_go_alone(&self, vetoed: bool) -> Option<promotion::Permit> {
        let Some(controller) = &self.controller else {
            return self.permit_without_arbiter(vetoed);
        };
        vetoed
            .then_some(promotion::Permit::PeerVeto)
            .or_else(|| controller.permit())
            .or_else(|| promotion::pledged_permit(self.records.durable(), self.settings.side))
            .or_else(|| promotion::forced_permit(self.records.durable()))
    }

    /// Whether the peer is away or not a candidate, so that this node may try to go on alone.
    fn peer_is_not_needed(&self) -> bool {
        match self.link.standing() {
            Standing::Down | Standing::Apart => true,
            Standing::Running { peer_acknowledges } => !peer_acknowledges,
            Standing::Meeting => false,
        }
    }

    /// A sync that a change of role waits for ended.
    pub(super) fn on_role_synced(
        &mut self,
        sync: u64,
        outcome: &DiskOutcome,
        effects: &mut Effects,
    ) {
        if *outcome != DiskOutcome::Done {
            self.on_disk_failed(effects);
            return;
        }
        let is_for_solo =
            self.role.primary.as_ref().is_some_and(|p| p.solo == SoloStep::Syncing(sync));
        let is_leaving = self.role.exit.as_ref().is_some_and(Exit::is_recording);
        let is_void = is_leaving || !self.peer_is_not_needed() || self.has_lost_permit();
        if is_for_solo && is_void {
            // The peer came back, or has all of it, or the record that ends the role is on its
            // way: what was decided before the sync is void.
            if let Some(primary) = &mut self.role.primary {
                primary.solo = SoloStep::No;
            }
        } else if is_for_solo {
            let makes_one =
                self.writes.has_parts() && !self.is_planted(Planted::SoloWithoutNewGeneration);
            let generation = if makes_one { self.next_generation(effects) } else { None };
            if let Some(primary) = &mut self.role.primary {
                primary.solo = SoloStep::Recording;
            }
            if let Some(epoch) = self.own_epoch() {
                self.records.change(Change::OwnEpoch(epoch));
            }
            self.records.change(Change::Solo { generation });
        }
        self.on_promoting_synced(sync);
        self.on_take_over_synced(sync, effects);
        self.on_exit_synced(sync);
    }

    pub(super) fn on_solo_recorded(&mut self, has_generation: bool) {
        self.writes.nothing_is_at_risk();
        if let Some(primary) = &mut self.role.primary {
            primary.solo = SoloStep::No;
            primary.marks_unproven = false;
            primary.generation =
                if has_generation { OwnGeneration::Stable } else { OwnGeneration::No };
            self.event("solo", "writes are acknowledged by this node alone");
        }
    }

    /// A new generation is stable before the first acknowledgement that only this node backs.
    fn pump_generation(&mut self, effects: &mut Effects) {
        if self.ack_need() != AckNeed::Alone || !self.writes.has_parts() {
            return;
        }
        let is_missing =
            self.role.primary.as_ref().is_some_and(|p| p.generation == OwnGeneration::No);
        if is_missing && self.is_planted(Planted::SoloWithoutNewGeneration) {
            self.set_generation(OwnGeneration::Stable);
            self.writes.recheck();
        } else if is_missing && let Some(generation) = self.next_generation(effects) {
            self.set_generation(OwnGeneration::Recording);
            self.records.change(Change::Generation(generation));
        }
    }

    fn set_generation(&mut self, generation: OwnGeneration) {
        if let Some(primary) = &mut self.role.primary {
            primary.generation = generation;
        }
    }

    pub(super) fn on_generation_recorded(&mut self) {
        self.set_generation(OwnGeneration::Stable);
    }

    /// A forced promotion made its generation in the same write.
    pub(super) fn has_own_generation(&mut self) {
        self.set_generation(OwnGeneration::Stable);
    }

    /// Both nodes hold the same again: what is acknowledged alone later is another generation.
    pub(super) fn forget_own_generation(&mut self) {
        self.set_generation(OwnGeneration::No);
    }

    /// A former primary that has met its peer goes on if nobody was promoted since. Nothing may be
    /// on its way to the record: it may be the consent to somebody else's promotion.
    fn pump_resume(&mut self, effects: &mut Effects) {
        let has_met = self.link.session().is_some_and(|session| {
            session.is_joined
                && match &session.part {
                    SessionPart::Idle | SessionPart::Source(_) => true,
                    SessionPart::Target(target) => target.is_complete(),
                }
        });
        let is_free = !self.role.is_primary()
            && self.role.promoting.is_none()
            && self.role.take_over.is_none()
            && self.may_veto()
            && self.role.exit.as_ref().is_none_or(Exit::is_unanswered)
            && !self.desk.is_stopping()
            // A consent that was given in this session is one that the peer counts on.
            && !self.link.is_vetoed()
            && self.records.is_idle();
        let record = self.records.stable();
        // A late request of its own may still give the resource away: the arbiter is asked first.
        let may_be_given = self.has_controller() && record.serve_mode == ServeMode::HandingOver;
        let says_otherwise =
            self.controller.as_ref().is_some_and(|it| !it.may_resume_in_session(&self.facts()));
        let is_pacemakers = self.is_under_pacemaker(); // which promotes it, or the other one
        if !has_met || !is_free || record.stopped || may_be_given || says_otherwise || is_pacemakers
        {
            return;
        }
        let Some(mut peer) = self.link.peer_hello().map(super::meet::claim_of) else { return };
        if self.is_planted(Planted::LowerEpochAccepted) {
            peer.promised = record.epoch;
        }
        match promotion::may_resume(record, self.settings.side, peer) {
            Resume::Yes => {
                if self.goes_alone_by_old_word() {
                    self.records.change(Change::Paired);
                    return;
                }
                if record.serve_mode == ServeMode::HandingOver {
                    self.records.change(Change::Paired);
                }
                self.take_hand_over_back(effects);
                let why = "it was primary, and the peer was not promoted since";
                self.become_primary(why, ServiceReason::Resumed);
            }
            Resume::WasNotPrimary | Resume::Superseded | Resume::NotWhole => {}
        }
    }

    /// The peer was promoted at a higher epoch: nothing leaves this node any more.
    pub(super) fn step_down(&mut self, epoch: Epoch, why: String, effects: &mut Effects) {
        self.close_export(Closing::Fenced, effects);
        self.refuse_waiting_operators("the peer was promoted", effects);
        self.role.primary = None;
        self.event("role-changed", why);
        self.records.change(Change::StepDown {
            owner: Some(self.settings.side.other()),
            promised: epoch,
            veto: Some(VetoReason::Superseded),
            stopped: false,
        });
    }

    /// Nothing of this disk counts any more.
    pub(super) fn on_disk_failed(&mut self, effects: &mut Effects) {
        if self.background.disk_has_failed() {
            return;
        }
        self.background.fail_disk();
        self.event("disk-failed", "a read, write or sync of the data file failed");
        if self.disk_watch.end() {
            // What it could not say while it gave way it says now.
            effects.push(Effect::Connect(!self.records.stable().stand_alone));
        }
        if self.role.is_primary() {
            self.close_export(Closing::Fenced, effects);
            self.role.primary = None;
            self.serve_no_more();
        } else {
            self.fail_flushes(effects);
        }
        self.refuse_waiting_operators("the local disk failed", effects);
        self.tell_peer_disk_failed(effects);
        self.applier.give_up();
        // What was hot may or may not be there, and no acknowledgement clears a mark any more.
        for extent in self.log.hot() {
            self.dirty.set_range(extent.blocks(self.size));
        }
        self.dirty.distrust();
        self.records.change(Change::DiskFailed(DiskReason::IoError));
        self.restart_session();
    }

    /// A write of metadata failed: nothing that must be stable can be any more.
    pub(super) fn on_metadata_failed(&mut self, effects: &mut Effects) {
        self.event("disk-failed", "a write of metadata failed");
        self.records.fail();
        if self.background.disk_has_failed() {
            self.leave_link(effects);
            return;
        }
        self.background.fail_disk();
        self.close_export(Closing::Fenced, effects);
        self.role.primary = None;
        self.serve_no_more();
        self.refuse_waiting_operators("metadata cannot be written", effects);
        self.tell_peer_disk_failed(effects);
        self.applier.give_up();
        self.leave_link(effects);
    }

    /// What the copy is worth, whether or not that could be recorded. The peer is told only what could.
    pub(super) fn disk_state(&self) -> DiskState {
        if self.background.disk_has_failed() {
            DiskState::Failed
        } else {
            self.records.stable().disk
        }
    }
}

/// A primary that resumes its epoch does not know which numbers it gave out since the last
/// checkpoint; it goes on this far behind them.
const SEQUENCE_JUMP: u64 = 1 << 40;
