//! What goes on beside the data path: cooling, checkpoints, the end of I/O, time.
//!
//! An extent leaves the activity log only when its data is stable here, and stable on the peer or
//! still marked, and the marks are stable: sync the data, sync the map, then let it leave.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use super::effect::{DiskOutcome, Effect, IoId, Ticket};
use super::io::Purpose;
use super::operator::Answer;
use super::pace::Pace;
use super::planted::Planted;
use super::records::Change;
use super::settings::Settings;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion::controller::planted::PlantedRule;
use crate::units::{Applied, ExtentIndex, Instant};

/// What is not a client's or the peer's business.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts about one node")]
pub(super) struct Background {
    is_started: bool,
    disk_failed: bool,
    cooling: Option<Vec<ExtentIndex>>,
    cool_now: bool,
    last_cooling: Instant,
    last_checkpoint: Instant,
    has_changed: bool,
    checkpoint: Applied,
    log_ticket: Option<Ticket>,
    map_ticket: Option<(Ticket, Vec<MapSync>)>,
    map_wanted: Vec<MapSync>,
    stopping: Stopping,
    pace: Pace,
}

/// Why the map is made stable.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum MapSync {
    /// Extents may leave the log.
    Cool,
    /// The marks of both nodes were merged.
    Merge,
    /// Now and then, so that a power loss costs little.
    Checkpoint,
    /// The log was lost: the marks that recovery made take its place.
    Recovery,
    /// The daemon stops.
    Stop,
}

/// How far a clean stop is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Stopping {
    No,
    Cooling,
    Mapping,
    Recording,
}

/// Without the numbers of writes, and without the pace, which moves with the clock alone: see
/// `fingerprint.rs`.
impl Hash for Background {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.is_started, self.disk_failed, &self.cooling, self.cool_now).hash(state);
        (self.last_cooling, self.last_checkpoint, self.has_changed, self.checkpoint).hash(state);
        (self.log_ticket.is_some(), self.map_ticket.as_ref().map(|(_, why)| why)).hash(state);
        (&self.map_wanted, self.stopping).hash(state);
    }
}

impl Background {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_started: false,
            disk_failed: false,
            cooling: None,
            cool_now: false,
            last_cooling: now,
            last_checkpoint: now,
            has_changed: false,
            checkpoint: Applied::default(),
            log_ticket: None,
            map_ticket: None,
            map_wanted: Vec::new(),
            stopping: Stopping::No,
            pace: Pace::new(now),
        }
    }

    pub(super) fn is_started(&self) -> bool {
        self.is_started
    }

    pub(super) fn disk_has_failed(&self) -> bool {
        self.disk_failed
    }

    pub(super) fn fail_disk(&mut self) {
        self.disk_failed = true;
    }

    /// The log is full: extents leave before they are idle.
    pub(super) fn cool_now(&mut self) {
        self.cool_now = true;
    }

    /// Something changed that the next checkpoint covers.
    pub(super) fn note_change(&mut self) {
        self.has_changed = true;
    }

    pub(super) fn note_latency(&mut self, latency: Duration) {
        self.has_changed = true;
        self.pace.note_latency(latency);
    }

    pub(super) fn resync_window(&self, settings: &Settings) -> usize {
        self.pace.window(settings)
    }

    pub(super) fn spend_resync(&mut self, len: u64) {
        self.pace.spend(len);
    }
}

impl<M: MapMemory> Replica<M> {
    pub(super) fn on_started(&mut self, _effects: &mut Effects) {
        let was_primary = self.records.stable().owner == Some(self.settings.side);
        let is_forgotten = self.is_planted(Planted::DoubtForgotten)
            || was_primary && self.has_planted_rule(PlantedRule::DoubtfulResumes);
        let doubt = if is_forgotten { None } else { self.doubt };
        let (instance, place) = (self.start.instance, self.start.place);
        let never_promotes = self.never_promotes();
        self.records.change(Change::Start { instance, place, doubt, never_promotes });
        if self.log.waits_for_marks() {
            self.sync_map(MapSync::Recovery);
        }
    }

    /// This run is on record: the nodes may meet.
    pub(super) fn on_start_recorded(&mut self, effects: &mut Effects) {
        self.background.is_started = true;
        self.dirty.trust();
        let record = self.records.stable();
        let is_apart = record.stand_alone;
        let (disk, epoch) = (record.disk, record.epoch);
        self.event("started", format!("disk {disk}, epoch {epoch}"));
        effects.push(Effect::Connect(!is_apart));
        self.start_controller(effects);
    }

    pub(super) fn resync_has_budget(&self) -> bool {
        self.background.pace.has_budget(&self.settings)
    }

    /// An I/O on the data file ended.
    pub(super) fn on_disk(&mut self, io: IoId, outcome: DiskOutcome, effects: &mut Effects) {
        let Some(purpose) = self.io.finish(io) else { return };
        self.unpin_orphans();
        match purpose {
            Purpose::Part(id) => self.on_part_written(id, &outcome, effects),
            Purpose::Read(request) => self.on_read_done(request, &outcome, effects),
            Purpose::Flush(_) | Purpose::Fua(_) | Purpose::Cool | Purpose::Checkpoint(_)
                if outcome != DiskOutcome::Done =>
            {
                self.on_disk_failed(effects);
            }
            Purpose::Flush(id) => self.on_flush_synced(id),
            Purpose::Fua(id) => self.on_part_synced(id, effects),
            Purpose::Role(sync) => self.on_role_synced(sync, &outcome, effects),
            Purpose::Cool => self.on_cool_synced(),
            Purpose::Checkpoint(applied) => {
                self.background.checkpoint = applied;
                self.sync_map(MapSync::Checkpoint);
            }
            Purpose::Apply(sequence) => self.on_applied(sequence, &outcome, effects),
            Purpose::ApplySync => self.on_apply_synced(&outcome, effects),
            Purpose::SourceHash(chunk) => self.on_source_hashed(chunk, outcome, effects),
            Purpose::SourceRead(chunk) => self.on_source_read(chunk, outcome, effects),
            Purpose::TargetHash(chunk) => self.on_target_hashed(chunk, outcome, effects),
            Purpose::TargetWrite(chunk) => self.on_target_written(chunk, &outcome, effects),
            Purpose::TargetCheck(chunk) => self.on_target_checked(chunk, &outcome, effects),
            Purpose::TargetSync => self.on_target_synced(&outcome, effects),
            Purpose::VerifyMine(chunk) => self.on_verify_mine(chunk, outcome, effects),
            Purpose::VerifyForPeer(chunk) => self.on_verify_for_peer(chunk, outcome, effects),
            Purpose::Probe => self.on_probed(&outcome, effects),
            // Full or not, the source still has the mark.
            Purpose::Orphan if matches!(outcome, DiskOutcome::Done | DiskOutcome::NoSpace) => {}
            Purpose::OrphanSync if outcome == DiskOutcome::Done => {}
            Purpose::Orphan | Purpose::OrphanSync => self.on_disk_failed(effects),
            Purpose::Forgotten => {}
        }
    }

    pub(super) fn on_tick(&mut self, effects: &mut Effects) {
        self.tick_link(effects);
        let is_resyncing = self.link.source().is_some_and(super::source::Source::is_running)
            && self.has_hard_marks();
        let last_request = self.writes.last_request();
        self.background.pace.tick(self.now, last_request, is_resyncing, &self.settings);
        if self.settings.mode == crate::units::ReplicationMode::Async {
            self.writes.recheck();
        }
        self.tick_desk(effects);
        self.watch_disk(effects);
    }

    /// Cooling and checkpoints, when they are due.
    pub(super) fn pump_background(&mut self, effects: &mut Effects) {
        if self.background.disk_failed && self.records.is_settled() {
            self.answer_stop("stopped; the disk failed, so the next start compares", effects);
        }
        if !self.background.is_started || self.background.disk_failed {
            return;
        }
        self.begin_cooling(effects);
        self.begin_checkpoint(effects);
        self.pump_stop();
        self.pump_map(effects);
    }

    fn begin_cooling(&mut self, effects: &mut Effects) {
        let is_stopping = self.background.stopping == Stopping::Cooling;
        let is_due = self.now.since(self.background.last_cooling) >= COOLING_PERIOD
            || self.background.cool_now
            || is_stopping;
        if self.background.cooling.is_some() || !is_due {
            return;
        }
        self.background.last_cooling = self.now;
        self.background.cool_now = false;
        let idle = if is_stopping { Duration::ZERO } else { self.settings.cool_after };
        let extents = self.log.cooling_candidates(self.now, idle);
        if extents.is_empty() {
            return;
        }
        if self.is_planted(Planted::CooledBeforeSync) {
            self.log.leave(&extents);
            return;
        }
        self.background.cooling = Some(extents);
        let io = self.io.start(Purpose::Cool);
        effects.push(Effect::SyncData { io });
    }

    fn on_cool_synced(&mut self) {
        if self.background.cooling.is_some() {
            self.sync_map(MapSync::Cool);
        }
    }

    /// What was applied is made stable before the record says so.
    fn begin_checkpoint(&mut self, effects: &mut Effects) {
        let since = self.now.since(self.background.last_checkpoint);
        if self.background.has_changed && since >= self.settings.checkpoint_every {
            self.background.has_changed = false;
            self.background.last_checkpoint = self.now;
            let applied = self.applied_here();
            let io = self.io.start(Purpose::Checkpoint(applied));
            effects.push(Effect::SyncData { io });
        }
    }

    /// The last write of an epoch before which nothing is missing in the file.
    fn applied_here(&self) -> Applied {
        let stored = self.records.stable().applied;
        let sequence = if self.role.is_primary() {
            Some(self.writes.answered_through())
        } else {
            self.applied_through()
        };
        let epoch = match self.link.session() {
            Some(session) => session.epoch,
            None => self.records.stable().epoch,
        };
        sequence.map_or(stored, |sequence| stored.max(Applied { epoch, sequence }))
    }

    /// Makes the map stable, with the sums of its pages.
    pub(super) fn sync_map(&mut self, why: MapSync) {
        self.background.map_wanted.push(why);
    }

    fn pump_map(&mut self, effects: &mut Effects) {
        if self.background.map_ticket.is_some() || self.background.map_wanted.is_empty() {
            return;
        }
        let wanted = std::mem::take(&mut self.background.map_wanted);
        let pages = self.dirty.take_changed_pages();
        let sums = pages.into_iter().map(|page| (page, self.dirty.page_sum(page))).collect();
        let ticket = self.io.ticket();
        self.background.map_ticket = Some((ticket, wanted));
        effects.push(Effect::SyncMap { ticket, sums });
    }

    /// Writes what waits for the activity log: one batch at a time.
    ///
    /// Not before this run is on record: a log made anew forgets why its node is doubtful, and the
    /// record must say so first.
    pub(super) fn pump_log(&mut self, effects: &mut Effects) {
        if !self.background.is_started {
            return;
        }
        if self.background.log_ticket.is_some() || self.background.disk_failed {
            return;
        }
        if let Some(append) = self.log.next_append() {
            let ticket = self.io.ticket();
            self.background.log_ticket = Some(ticket);
            effects.push(Effect::AppendLog { ticket, append });
        }
    }

    /// A write of the log or the map is stable.
    pub(super) fn on_background_metadata(&mut self, ticket: Ticket) {
        if self.background.log_ticket == Some(ticket) {
            self.background.log_ticket = None;
            self.log.appended();
            self.writes.log_was_written();
            return;
        }
        let Some((waiting, _)) = &self.background.map_ticket else { return };
        if *waiting != ticket {
            return;
        }
        let Some((_, done)) = self.background.map_ticket.take() else { return };
        for why in done {
            match why {
                MapSync::Cool => {
                    let extents = self.background.cooling.take().unwrap_or_default();
                    self.log.leave(&extents);
                    self.writes.rescan();
                }
                MapSync::Merge => self.on_marks_merged(),
                MapSync::Checkpoint => self.record_checkpoint(),
                MapSync::Recovery => self.log.marks_are_stable(),
                MapSync::Stop => {
                    self.background.stopping = Stopping::Recording;
                    self.records.change(Change::Clean);
                }
            }
        }
    }

    fn record_checkpoint(&mut self) {
        let applied = self.background.checkpoint;
        // What the stable record says may be of another replica: the change that says so may be on its way.
        let peer_applied = self.link.peer_stable;
        self.records.change(Change::Checkpoint { applied, peer_applied });
    }

    /// Everything is made stable, nothing stays hot, and the record says so.
    pub(super) fn begin_clean_stop(&mut self) {
        if self.background.stopping == Stopping::No {
            self.background.stopping = Stopping::Cooling;
        }
    }

    fn pump_stop(&mut self) {
        let is_cold = self.log.hot_count() == 0
            && self.background.log_ticket.is_none()
            && self.background.cooling.is_none()
            && self.applier.is_empty()
            && self.io.write_count() == 0;
        if self.background.stopping == Stopping::Cooling && is_cold {
            self.background.stopping = Stopping::Mapping;
            self.sync_map(MapSync::Stop);
        }
    }

    /// The clean flag is stable: the process may end.
    pub(super) fn on_clean_recorded(&mut self, effects: &mut Effects) {
        self.answer_stop("stopped cleanly", effects);
        self.role.exit = None;
    }

    /// The process may end.
    fn answer_stop(&mut self, text: &str, effects: &mut Effects) {
        for request in self.desk_stop_askers() {
            let result = Ok(Answer::new(text));
            effects.push(Effect::Answer { request, result });
        }
    }

    /// Local invariants, in every build.
    pub(super) fn check_invariants(&self) {
        assert!(
            self.window.len() <= self.settings.unflushed_blocks_max + WINDOW_SLACK,
            "the unflushed window is bounded"
        );
        assert!(
            !self.role.is_exported() || self.role.is_primary(),
            "DoubtfulNeverServes: only a primary exports"
        );
    }
}

/// Time between looks for extents that may leave the log.
const COOLING_PERIOD: Duration = Duration::from_secs(1);
/// A part that starts when the window has one block of room may be this long.
const WINDOW_SLACK: usize = 1 << 15;
