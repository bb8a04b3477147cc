//! A disk that does not answer: noticed by the age of what waits for it, and by a probe.
//!
//! A primary whose disk stalls answers nobody, whatever its peer could do. If the peer has everything
//! and the arbiter would promote it, this node gives way: it closes its clients, lets its services
//! stop, and says that this run serves nothing more. Nothing of that needs the disk. No write was
//! acknowledged that the peer lacks, and what hangs here is compared when the nodes meet again.

use std::time::Duration;

use super::effect::{Closing, DiskOutcome, Effect};
use super::exit::Exit;
use super::io::Purpose;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::units::{Epoch, Instant};

/// What is known of how the disk answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct DiskWatch {
    is_stalled: bool,
    /// When the probe under way began.
    probing: Option<Instant>,
    last_probe: Instant,
    /// How long the last probe took.
    took: Duration,
    last_tick: Instant,
    /// The process has run without a longer pause since then.
    awake: Instant,
}

impl DiskWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            is_stalled: false,
            probing: None,
            last_probe: now,
            took: Duration::ZERO,
            last_tick: now,
            awake: now,
        }
    }

    /// The disk failed, which is more; whether it had stalled.
    pub(super) fn end(&mut self) -> bool {
        std::mem::take(&mut self.is_stalled)
    }

    /// Whether something has waited for the disk longer than the I/O timeout.
    pub(super) fn is_stalled(self) -> bool {
        self.is_stalled
    }
}

/// How the disk answers, for `status`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DiskAnswers {
    /// In time.
    Ok,
    /// The last probe took longer than it should.
    Slow,
    /// Something has waited for it longer than the I/O timeout.
    Stalled,
    /// It failed.
    Failed,
}

impl DiskAnswers {
    /// As `status` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slow => "slow",
            Self::Stalled => "stalled",
            Self::Failed => "failed",
        }
    }
}

impl<M: MapMemory> Replica<M> {
    /// Looks at the age of what waits for the disk, and probes it now and then.
    pub(super) fn watch_disk(&mut self, effects: &mut Effects) {
        let watch = &mut self.disk_watch;
        // What was answered while this process slept is still to be heard.
        if self.now.since(watch.last_tick) >= PAUSE {
            watch.awake = self.now;
        }
        watch.last_tick = self.now;
        if self.background.disk_has_failed() {
            return;
        }
        let age = self.io.oldest_age(watch.awake, self.settings.is_register);
        let is_stalled = age >= self.settings.io_timeout;
        if is_stalled != watch.is_stalled {
            watch.is_stalled = is_stalled;
            self.on_stall_changed(effects);
        }
        if is_stalled {
            self.give_way_if_stalled(effects);
        }
        self.probe_disk(effects);
    }

    fn on_stall_changed(&mut self, effects: &mut Effects) {
        let limit = self.settings.io_timeout.as_millis();
        if self.disk_watch.is_stalled {
            let what = "a read, write or sync of the data file or of its metadata";
            self.event("disk-stalled", format!("{what} has not ended within {limit} ms"));
        } else {
            self.event("disk-back", "nothing waits for the disk for long any more");
            let is_apart = self.records.stable().stand_alone;
            effects.push(Effect::Connect(!is_apart));
        }
    }

    fn give_way_if_stalled(&mut self, effects: &mut Effects) {
        let can = self.controller.as_ref().is_some_and(|it| it.can_give_way(&self.facts()));
        let is_leaving = self.role.exit.as_ref().is_some_and(Exit::is_recording);
        if !can || is_leaving {
            return;
        }
        let peer = &self.settings.peer;
        let why = format!("its disk stalls: {peer} is to go on");
        self.event("role-changed", why.clone());
        self.close_export(Closing::Fenced, effects);
        self.refuse_waiting_operators(&why, effects);
        self.role.primary = None;
        self.serve_no_more();
        self.refuse_link(&why, effects);
        effects.push(Effect::Connect(false));
    }

    /// The role ended without the peer's or the arbiter's word: once nothing is served any more the
    /// peer is told, so that it need not wait for the lease.
    pub(super) fn serve_no_more(&mut self) {
        let Some(mut controller) = self.controller.take() else { return };
        controller.give_way(self.now, &self.facts());
        self.controller = Some(controller);
    }

    /// Up to which epoch this run serves nothing more: to be said in every beat. Not before the last
    /// client is gone and the services have stopped.
    pub fn released(&self) -> Option<Epoch> {
        let epoch = self.controller.as_ref()?.gave_way()?;
        let record = self.records.stable();
        let is_over = !self.role.is_primary() && !self.role.has_clients;
        let is_free = self.services_are_off() == Ok(true);
        (is_over && is_free && record.epoch <= epoch).then_some(epoch)
    }

    fn probe_disk(&mut self, effects: &mut Effects) {
        let period = self.settings.io_timeout / 3;
        let is_due = self.now.since(self.disk_watch.last_probe) >= period;
        if self.disk_watch.probing.is_some() || !is_due || !self.background.is_started() {
            return;
        }
        self.disk_watch.last_probe = self.now;
        self.disk_watch.probing = Some(self.now);
        let io = self.io.start(Purpose::Probe);
        effects.push(Effect::Probe { io });
    }

    pub(super) fn on_probed(&mut self, outcome: &DiskOutcome, effects: &mut Effects) {
        if let Some(since) = self.disk_watch.probing.take() {
            self.disk_watch.took = self.now.since(since);
        }
        match outcome {
            // A full disk answers.
            DiskOutcome::Done | DiskOutcome::NoSpace => {}
            DiskOutcome::Failed | DiskOutcome::Bytes(_) | DiskOutcome::Hashes { .. } => {
                self.on_disk_failed(effects);
            }
        }
    }

    /// How the disk answers.
    pub(super) fn disk_answers(&self) -> DiskAnswers {
        let watch = self.disk_watch;
        let waits = watch.probing.map_or(Duration::ZERO, |since| self.now.since(since));
        if self.background.disk_has_failed() {
            DiskAnswers::Failed
        } else if watch.is_stalled {
            DiskAnswers::Stalled
        } else if watch.took.max(waits) >= self.settings.io_timeout / 3 {
            DiskAnswers::Slow
        } else {
            DiskAnswers::Ok
        }
    }
}

/// Ticks come every 50 ms: a longer gap means that the process slept.
const PAUSE: Duration = Duration::from_millis(500);

/// What to do about a disk that does not answer.
pub(super) const LOOK_AT_DISK: &str = "the kernel's log says more of the disk (dmesg); when it \
    answers again, this node goes on by itself";
