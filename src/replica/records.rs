//! What must be stable before it is relied upon: changes of the one record of this node.
//!
//! A change is queued, written with all others that wait, and acted upon when it is stable. One
//! write is under way at a time, so what a reader of [`Records::stable`] sees is always on disk.

use std::hash::{Hash, Hasher};

use super::effect::{Effect, MetadataFailed, Ticket};
use super::planted::Planted;
use super::role::Promoted;
use super::{Effects, Replica};
use crate::metadata::{Durable, HISTORY_LEN_MAX, INSTANCES_LEN_MAX, MapMemory, Place, Superblock};
use crate::promotion::controller::{ArbiterChange, RecordStep};
use crate::units::{
    Applied, DiskReason, DiskState, Epoch, Generation, Instance, ReplicaId, ReplicationMode,
    Resolution, ResourceId, ServeMode, Side, Transfer, Veto, VetoReason,
};

/// One change of the record.
#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) enum Change {
    /// A new run: the clean flag goes before anything changes, doubt is recorded before Hello.
    Start { instance: Instance, place: Place, doubt: Option<DiskReason>, never_promotes: bool },
    /// The peer's state as this session found it.
    Join(Box<Join>),
    /// The peer is known as it is from here on: its marks and ours cover what can differ.
    Acquaint(Acquaintance),
    /// The source has all its marks stable: a transfer that is interrupted goes on from them.
    Resumable { source: Generation },
    /// This node goes on alone.
    Solo { generation: Option<Generation> },
    /// This primary makes an epoch of its own.
    OwnEpoch(Epoch),
    /// This node acknowledges what the peer lacks: its data is another from here on.
    Generation(Generation),
    /// Every acknowledgement needs the peer again.
    Paired,
    /// A transfer to this node is complete.
    Complete { generation: Generation, history: Vec<Generation>, follows: bool },
    /// A transfer from this node is complete.
    SourceComplete,
    /// This node becomes primary.
    Promote(Promoted),
    /// It serves no more.
    StepDown { owner: Option<Side>, promised: Epoch, veto: Option<VetoReason>, stopped: bool },
    /// It vetoes itself.
    Veto { reason: VetoReason, epoch: Epoch, is_outdated: bool },
    /// A secondary promises not to ask for promotion, or a primary relies on that; or no longer.
    Pledge(bool),
    /// Ownership leaves.
    HandingOver,
    /// An operator keeps it apart, or no longer.
    StandAlone(bool),
    /// The disk failed.
    DiskFailed(DiskReason),
    /// The disk of a secondary is full.
    OutOfSpace,
    /// All of it is to be compared.
    Invalidate,
    /// Split brain was found.
    Split,
    /// Split brain was settled by the operator.
    Resolve(Resolution),
    /// What is stable, here and at the peer.
    Checkpoint { applied: Applied, peer_applied: Applied },
    /// There is room for this many bytes; zero takes it back.
    SizeNext(u64),
    /// The resource has this many bytes.
    Size(u64),
    /// What the arbiter said, or is about to be asked.
    Arbiter(ArbiterChange),
    /// The daemon stops, and everything is stable.
    Clean,
}

/// What a node notes of the other before anything of a session is written.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug, Hash, PartialEq)]
pub(super) struct Join {
    pub(super) resource_id: ResourceId,
    /// What both have from here on, in bytes: a resize goes forward or back.
    pub(super) size: u64,
    /// `None` on a source that has to mark everything first: until then the next meeting must find
    /// the same.
    pub(super) acquaintance: Option<Acquaintance>,
    pub(super) peer_never_promotes: bool,
    /// The highest epoch that the peer knows: a later promotion here is above it.
    pub(super) peer_promised: Epoch,
    /// The peer is primary at this epoch, or was promoted since.
    pub(super) follows: Option<(Side, Epoch)>,
    /// This node is the target of such a transfer from that generation.
    pub(super) target: Option<(Transfer, Generation)>,
    /// The peer is a candidate throughout, so that every acknowledgement of this primary needs it
    /// from here on.
    pub(super) needs_peer: bool,
    pub(super) memsync_secondary: bool,
    /// A write is whole or not there, so that no transfer makes the copy inconsistent.
    pub(super) is_register: bool,
}

/// What a node stores of the other, to tell later whether that is still what it met.
#[derive(Clone, Copy, Debug, Hash, PartialEq)]
pub(super) struct Acquaintance {
    pub(super) replica_id: ReplicaId,
    pub(super) instance: Instance,
    pub(super) applied: Applied,
}

/// The record, and what waits to be written.
#[derive(Clone, Debug)]
pub(super) struct Records {
    record: Durable<Superblock>,
    queued: Vec<Change>,
    writing: Vec<Change>,
    ticket: Option<Ticket>,
    has_failed: bool,
}

/// Without the counter of the record and the number of the write: see `fingerprint.rs`.
impl Hash for Records {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for record in [Some(self.record.get()), self.record.writing()] {
            record.map(|record| Superblock { counter: 0, ..record.clone() }).hash(state);
        }
        (&self.queued, &self.writing, self.ticket.is_some()).hash(state);
    }
}

impl Records {
    pub(super) fn new(record: Superblock) -> Self {
        let record = Durable::new(record);
        Self { record, queued: Vec::new(), writing: Vec::new(), ticket: None, has_failed: false }
    }

    /// What is on disk.
    pub(super) fn stable(&self) -> &Superblock {
        self.record.get()
    }

    /// For the rules of `promotion`, which rely on nothing that is not stable.
    pub(super) fn durable(&self) -> &Durable<Superblock> {
        &self.record
    }

    /// Whether nothing is being written or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.ticket.is_none() && self.queued.is_empty()
    }

    /// Whether nothing more will become stable.
    pub(super) fn is_settled(&self) -> bool {
        self.has_failed || self.is_idle()
    }

    /// Changes that wait for the write under way.
    pub(super) fn waiting_count(&self) -> usize {
        self.queued.len()
    }

    /// Whether a change is on its way that makes this node primary.
    pub(super) fn brings_role(&self) -> bool {
        let mut coming = self.queued.iter().chain(&self.writing);
        coming.any(|change| matches!(change, Change::Promote(_)))
    }

    /// Whether nothing more can be written.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// Metadata cannot be written any more.
    pub(super) fn fail(&mut self) {
        self.has_failed = true;
    }

    /// Queues a change.
    pub(super) fn change(&mut self, change: Change) {
        self.queued.push(change);
    }
}

impl<M: MapMemory> Replica<M> {
    /// Writes what is queued, unless a write is under way.
    pub(super) fn pump_records(&mut self, effects: &mut Effects) {
        if self.records.ticket.is_some()
            || self.records.has_failed
            || self.records.queued.is_empty()
        {
            return;
        }
        let mut next = self.records.stable().clone();
        next.counter += 1;
        let side = self.settings.side;
        let queued = std::mem::take(&mut self.records.queued);
        for change in &queued {
            apply(change, side, &mut next);
        }
        next.memsync_secondary &= self.settings.mode == ReplicationMode::MemSync;
        // Two records that cannot be read back leave none. It costs little beside the sync.
        assert_eq!(
            Superblock::decode(&next.encode()).as_ref(),
            Ok(&next),
            "a record that is written is one that can be read"
        );
        self.records.writing = queued;
        let ticket = self.io.ticket();
        self.records.ticket = Some(ticket);
        effects.push(Effect::WriteSuperblock { ticket, record: Box::new(next.clone()) });
        self.records.record.begin(next);
    }

    /// A write of metadata ended.
    pub(super) fn on_metadata(
        &mut self,
        ticket: Ticket,
        result: Result<(), MetadataFailed>,
        effects: &mut Effects,
    ) {
        self.io.end_ticket(ticket);
        if result.is_err() {
            self.on_metadata_failed(effects);
            return;
        }
        if self.records.ticket == Some(ticket) {
            self.records.ticket = None;
            let arbiter = self.records.stable().arbitration.arbiter;
            self.records.record.written();
            self.tell_arbiter(arbiter);
            self.adopt_size();
            for change in std::mem::take(&mut self.records.writing) {
                self.on_record_stable(&change, effects);
            }
        } else {
            self.on_background_metadata(ticket);
        }
    }

    /// A change is stable: go on with what waited for it.
    fn on_record_stable(&mut self, change: &Change, effects: &mut Effects) {
        match change {
            Change::Start { .. } => self.on_start_recorded(effects),
            Change::Join(_) => self.on_joined(effects),
            Change::Solo { generation } => self.on_solo_recorded(generation.is_some()),
            Change::Generation(_) => self.on_generation_recorded(),
            Change::Paired => self.on_paired_recorded(effects),
            Change::Complete { .. } => self.on_complete_recorded(effects),
            Change::Promote(promoted) => self.on_promoted(promoted, effects),
            Change::StepDown { .. } => self.on_stepped_down(effects),
            Change::Veto { reason, epoch, .. } => self.on_veto_recorded(*reason, *epoch, effects),
            Change::HandingOver => self.on_handing_over_recorded(effects),
            Change::StandAlone(is_apart) => self.on_stand_alone_recorded(*is_apart, effects),
            Change::Invalidate => self.on_invalidated(effects),
            Change::Resolve(_) => self.on_resolution_recorded(effects),
            Change::SizeNext(_) => self.on_room_recorded(effects),
            Change::Size(_) => self.on_size_recorded(effects),
            Change::Arbiter(change) => self.on_arbiter_recorded(change.step),
            Change::Clean => self.on_clean_recorded(effects),
            Change::Acquaint(_)
            | Change::Pledge(_)
            | Change::Resumable { .. }
            | Change::OwnEpoch(_)
            | Change::DiskFailed(_)
            | Change::OutOfSpace
            | Change::SourceComplete
            | Change::Split
            | Change::Checkpoint { .. } => {}
        }
        self.writes.recheck();
    }

    /// A random id for a new generation; another one is drawn at once.
    pub(super) fn next_generation(&mut self, effects: &mut Effects) -> Option<Generation> {
        let id = self.fresh_ids.pop_front()?;
        effects.push(Effect::DrawId);
        let parent = self.records.stable().generation.map_or(0, |parent| parent.number);
        Some(Generation { number: parent + 1, id })
    }

    /// Whether a bug is planted; see [`Planted`].
    pub(super) fn is_planted(&self, bug: Planted) -> bool {
        self.settings.is_planted(bug)
    }
}

fn apply(change: &Change, side: Side, record: &mut Superblock) {
    match change {
        Change::Start { instance, place, doubt, never_promotes } => {
            record.never_promotes = *never_promotes;
            start(*instance, *place, *doubt, record);
        }
        Change::Join(join) => apply_join(join, side, record),
        Change::Acquaint(acquaintance) => acquaint(*acquaintance, record),
        Change::Resumable { source } => {
            if record.disk == DiskState::Inconsistent {
                record.resync_source = Some(*source);
            }
        }
        Change::Solo { generation } => {
            record.serve_mode = ServeMode::Solo;
            record.served_epoch = record.epoch;
            if let Some(generation) = generation {
                adopt_child(record, *generation);
            }
        }
        Change::OwnEpoch(epoch) => {
            record.epoch = record.epoch.max(*epoch);
            record.promised = record.promised.max(*epoch);
        }
        Change::Generation(generation) => adopt_child(record, *generation),
        Change::Paired => {
            record.serve_mode = ServeMode::Paired;
            // Each acknowledgement needs the peer now: what it promised before is asked for anew.
            record.hold = false;
            record.served_epoch = record.epoch;
            record.resolution = None;
            record.split = false;
        }
        Change::Complete { generation, history, follows } => {
            complete(record, *generation, history, *follows);
        }
        Change::SourceComplete => {
            record.resolution = None;
            record.split = false;
            record.veto = None;
        }
        Change::Promote(promoted) => promote(promoted, side, record),
        Change::StepDown { owner, promised, veto, stopped } => {
            // Only what this node relied upon; what it promised stays.
            record.hold &= record.owner != Some(side);
            record.owner = *owner;
            record.stopped |= *stopped;
            step_down(*promised, *veto, record);
        }
        Change::Veto { reason, epoch, is_outdated } => {
            record.veto = Some(Veto { reason: *reason, epoch: *epoch });
            record.promised = record.promised.max(*epoch);
            if *is_outdated {
                outdate(DiskReason::None, record);
            }
        }
        Change::Pledge(on) => record.hold = *on,
        Change::HandingOver => record.serve_mode = ServeMode::HandingOver,
        Change::StandAlone(is_apart) => record.stand_alone = *is_apart,
        Change::DiskFailed(reason) => fail_disk(*reason, record),
        Change::OutOfSpace => outdate(DiskReason::NoSpace, record),
        Change::Invalidate => invalidate(record),
        Change::Split => record.split = true,
        Change::Resolve(resolution) => resolve(*resolution, side, record),
        Change::Checkpoint { applied, peer_applied } => {
            // Of two checkpoints the older one may end last. What went back would look like a copy
            // of yesterday to the peer.
            record.applied = record.applied.max(*applied);
            record.peer_applied = record.peer_applied.max(*peer_applied);
        }
        Change::SizeNext(bytes) => record.size_next = *bytes,
        Change::Size(bytes) => have_size(*bytes, record),
        Change::Arbiter(change) => arbitrate(*change, side, record),
        Change::Clean => record.clean = true,
    }
}

fn arbitrate(change: ArbiterChange, side: Side, record: &mut Superblock) {
    let noted = &mut record.arbitration;
    noted.arbiter = change.arbiter;
    noted.epoch = noted.epoch.max(change.epoch);
    noted.lease_ms = noted.lease_ms.max(change.lease_ms);
    if let Some(run) = change.asked_in {
        keep_run(run, &mut record.instances);
    }
    let noted = &mut record.arbitration;
    match change.step {
        RecordStep::Learn => {}
        RecordStep::Adopt => {
            record.owner = Some(side);
            record.epoch = record.epoch.max(change.epoch);
            record.promised = record.promised.max(record.epoch);
            if record.serve_mode == ServeMode::HandingOver {
                record.serve_mode = ServeMode::Paired;
            }
            record.served_epoch = record.epoch;
        }
        RecordStep::Promise(asked) => {
            noted.asked = Some(asked);
            record.promised = record.promised.max(asked.last);
        }
        RecordStep::Settle => noted.asked = None,
        RecordStep::Follow(epoch) => record.promised = epoch.max(record.epoch),
        RecordStep::Veto(reason) => {
            record.veto = Some(Veto { reason, epoch: change.epoch });
            if reason == VetoReason::RecordLost {
                record.promised = record.promised.max(change.epoch);
            }
        }
        RecordStep::LiftVeto => record.veto = None,
        // The store is in each change.
        RecordStep::Change(_) => {}
    }
}

/// Puts a run right behind the one that is running, so that the next starts do not push it out.
fn keep_run(run: Instance, instances: &mut Vec<Instance>) {
    if instances.first() != Some(&run) {
        instances.retain(|instance| *instance != run);
        instances.insert(instances.len().min(1), run);
        instances.truncate(INSTANCES_LEN_MAX);
    }
}

fn outdate(reason: DiskReason, record: &mut Superblock) {
    if record.disk == DiskState::UpToDate {
        record.disk = DiskState::Outdated;
        record.disk_reason = reason;
    }
}

/// Only a whole copy can be given up: one that a resync began to fill since it was asked for is a
/// mix, which nothing may call outdated.
fn invalidate(record: &mut Superblock) {
    if matches!(record.disk, DiskState::UpToDate | DiskState::Outdated) {
        record.disk = DiskState::Outdated;
        record.disk_reason = DiskReason::Invalidated;
    }
}

fn have_size(bytes: u64, record: &mut Superblock) {
    record.size = bytes;
    record.size_next = 0;
}

fn start(instance: Instance, place: Place, doubt: Option<DiskReason>, record: &mut Superblock) {
    record.instances.insert(0, instance);
    record.instances.truncate(INSTANCES_LEN_MAX);
    record.place = place;
    record.clean = false;
    match record.disk {
        DiskState::UpToDate => {
            if let Some(reason) = doubt {
                record.disk = DiskState::Outdated;
                record.disk_reason = reason;
            }
        }
        // New descriptors and an empty cache: what was hot when it failed is marked by now.
        DiskState::Failed | DiskState::Missing if record.generation.is_some() => {
            record.disk = DiskState::Outdated;
            record.disk_reason = DiskReason::LostPower;
        }
        DiskState::Failed | DiskState::Missing => record.disk = DiskState::Inconsistent,
        DiskState::Outdated | DiskState::Inconsistent => {}
    }
}

fn apply_join(join: &Join, side: Side, record: &mut Superblock) {
    record.resource_id = join.resource_id;
    have_size(join.size, record);
    if let Some(acquaintance) = join.acquaintance {
        acquaint(acquaintance, record);
    }
    record.peer_never_promotes = join.peer_never_promotes;
    record.promised = record.promised.max(join.peer_promised);
    record.memsync_secondary = join.memsync_secondary;
    record.split = false;
    if let Some((owner, epoch)) = join.follows {
        // What it relied upon as primary is no promise of its own.
        record.hold &= record.owner != Some(side);
        if record.owner == Some(side) && record.serve_mode != ServeMode::None {
            record.veto = Some(Veto { reason: VetoReason::Superseded, epoch });
        }
        record.owner = Some(owner);
        record.serve_mode = ServeMode::None;
        record.epoch = record.epoch.max(epoch);
        record.promised = record.promised.max(epoch);
    }
    if join.needs_peer && record.serve_mode == ServeMode::Solo {
        record.serve_mode = ServeMode::Paired;
        record.hold = false;
    }
    if join.target.is_none() {
        // Nobody has what this node lacks, so no veto says so any more; but for one that does not
        // know what it lacks.
        record.veto = record.veto.filter(|veto| veto.reason == VetoReason::RecordLost);
        if record.disk == DiskState::Outdated {
            record.disk = DiskState::UpToDate;
            record.disk_reason = DiskReason::None;
        }
    }
    match join.target {
        Some((Transfer::Resync | Transfer::ResyncAll, _))
            if join.is_register && is_whole(record) =>
        {
            record.disk = DiskState::Outdated;
            record.disk_reason = DiskReason::Resync;
            record.veto = Some(Veto { reason: VetoReason::Superseded, epoch: record.promised });
        }
        Some((transfer @ (Transfer::Resync | Transfer::ResyncAll), source)) => {
            record.disk = DiskState::Inconsistent;
            record.disk_reason = DiskReason::Resync;
            // All of it begins anew until the source's marks are stable.
            record.resync_source = (transfer == Transfer::Resync).then_some(source);
            record.veto = Some(Veto { reason: VetoReason::Inconsistent, epoch: record.promised });
        }
        Some((Transfer::Replay, _)) | None => {}
    }
}

/// Whether this copy is one that clients could have seen.
fn is_whole(record: &Superblock) -> bool {
    record.generation.is_some() && matches!(record.disk, DiskState::UpToDate | DiskState::Outdated)
}

fn fail_disk(reason: DiskReason, record: &mut Superblock) {
    record.disk = DiskState::Failed;
    record.disk_reason = reason;
    // It acknowledged nothing alone, and never will by what it relied upon.
    record.hold &= record.serve_mode != ServeMode::Paired;
    record.serve_mode = ServeMode::None;
    record.veto = Some(Veto { reason: VetoReason::IoError, epoch: record.promised });
}

fn step_down(promised: Epoch, veto: Option<VetoReason>, record: &mut Superblock) {
    record.serve_mode = ServeMode::None;
    record.promised = record.promised.max(promised);
    if let Some(reason) = veto {
        record.veto = Some(Veto { reason, epoch: record.promised });
    }
}

/// Whose data is dropped gives up its claim with it: it neither resumes nor is promoted before it
/// has the data that is kept.
fn resolve(resolution: Resolution, side: Side, record: &mut Superblock) {
    record.resolution = Some(resolution);
    if record.generation == Some(resolution.dropped) {
        record.hold &= record.owner != Some(side);
        record.owner = Some(side.other());
        step_down(record.promised, Some(VetoReason::Superseded), record);
    }
}

fn acquaint(acquaintance: Acquaintance, record: &mut Superblock) {
    record.peer_replica_id = acquaintance.replica_id;
    record.peer_instance = acquaintance.instance;
    record.peer_applied = acquaintance.applied;
}

fn complete(
    record: &mut Superblock,
    generation: Generation,
    history: &[Generation],
    follows: bool,
) {
    record.generation = Some(generation);
    record.history = history.to_vec();
    record.history_dropped = 0;
    record.disk = DiskState::UpToDate;
    record.disk_reason = DiskReason::None;
    record.resync_source = None;
    record.veto = None;
    record.resolution = None;
    record.split = false;
    record.forced = false;
    if follows {
        record.stopped = false;
    }
}

fn promote(promoted: &Promoted, side: Side, record: &mut Superblock) {
    record.epoch = promoted.epoch;
    record.promised = promoted.epoch;
    record.served_epoch = promoted.epoch;
    record.owner = Some(side);
    record.arbitration.asked = None;
    record.serve_mode = promoted.mode;
    record.veto = None;
    record.hold = false;
    record.stopped = false;
    record.forced |= promoted.is_forced;
    record.disk = DiskState::UpToDate;
    record.disk_reason = DiskReason::None;
    if let Some(generation) = promoted.generation {
        adopt_child(record, generation);
    }
}

/// A new generation whose parent is the current one. The birth generation, the last of the
/// history, is never dropped.
fn adopt_child(record: &mut Superblock, generation: Generation) {
    if let Some(parent) = record.generation.replace(generation) {
        record.history.insert(0, parent);
        if record.history.len() > HISTORY_LEN_MAX {
            record.history.remove(HISTORY_LEN_MAX - 1);
            record.history_dropped = record.history_dropped.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::{Birth, Newborn, recovered_at_birth};
    use crate::units::{Applied, ResourceSize, Sequence};

    fn newborn() -> Newborn {
        Newborn {
            resource_id: ResourceId(1),
            replica_id: ReplicaId(2),
            generation_id: 3,
            size: ResourceSize::new(1 << 20).unwrap(),
            place: Place::default(),
        }
    }

    #[test]
    fn a_copy_that_a_resync_began_to_fill_is_not_given_up() {
        for disk in [DiskState::UpToDate, DiskState::Outdated, DiskState::Inconsistent] {
            let born = recovered_at_birth(Birth::This, &newborn()).superblock;
            let mut record = Superblock { disk, disk_reason: DiskReason::Resync, ..born };
            apply(&Change::Invalidate, Side::First, &mut record);
            let is_given_up = record.disk_reason == DiskReason::Invalidated;
            assert_eq!(is_given_up, disk != DiskState::Inconsistent, "{disk}");
            assert_eq!(record.disk == DiskState::Inconsistent, !is_given_up);
        }
    }

    #[test]
    fn a_checkpoint_that_was_overtaken_takes_nothing_back() {
        let mut record = recovered_at_birth(Birth::This, &newborn()).superblock;
        let at = |sequence| Applied { epoch: Epoch(6), sequence: Sequence(sequence) };
        for (applied, peer_applied) in [(at(25), at(24)), (at(21), at(20))] {
            apply(&Change::Checkpoint { applied, peer_applied }, Side::First, &mut record);
        }
        assert_eq!((record.applied, record.peer_applied), (at(25), at(24)));
    }
}
