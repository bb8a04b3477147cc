//! What goes wrong, and when. Only what hotpair must survive: never the last complete copy.

use std::time::Duration;

use hotpair::units::ReplicationMode;

use crate::broken::Checked;
use crate::net::Time;
use crate::world::{Event, World, millis, nanos};

/// A class of faults.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Fault {
    Kill,
    Power,
    PowerBoth,
    Pause,
    Cut,
    Reset,
    Flip,
    DiskError,
    SyncError,
    MetadataError,
    NoSpace,
    Stall,
    ClientLeaves,
}

const ALL: [Fault; 13] = [
    Fault::Kill,
    Fault::Power,
    Fault::PowerBoth,
    Fault::Pause,
    Fault::Cut,
    Fault::Reset,
    Fault::Flip,
    Fault::DiskError,
    Fault::SyncError,
    Fault::MetadataError,
    Fault::NoSpace,
    Fault::Stall,
    Fault::ClientLeaves,
];

impl World {
    /// Schedules the first fault of each class that this seed has.
    pub(crate) fn begin_faults(&mut self) {
        for fault in ALL {
            self.schedule_fault(fault);
        }
    }

    fn schedule_fault(&mut self, fault: Fault) {
        if let Some(mean) = self.mean_of(fault) {
            let delay = self.process_rng.u64(0..2 * nanos(mean));
            self.after(delay, Event::Fault(fault));
        }
    }

    fn mean_of(&self, fault: Fault) -> Option<Duration> {
        let faults = &self.plan.faults;
        match fault {
            Fault::Kill => faults.kill,
            Fault::Power => faults.power,
            Fault::PowerBoth => faults.power_both,
            Fault::Pause => faults.pause,
            Fault::Cut => faults.cut,
            Fault::Reset => faults.reset,
            Fault::Flip => faults.flip,
            Fault::DiskError => faults.disk_error,
            Fault::SyncError => faults.sync_error,
            Fault::MetadataError => faults.metadata_error,
            Fault::NoSpace => faults.no_space,
            Fault::Stall => faults.stall,
            Fault::ClientLeaves => faults.client_leaves,
        }
    }

    pub(crate) fn on_fault(&mut self, fault: Fault) -> Checked {
        if self.is_healing {
            return Ok(());
        }
        self.schedule_fault(fault);
        let at = usize::from(self.process_rng.bool());
        let until = self.now + self.process_rng.u64(millis(50)..millis(6_000));
        match fault {
            Fault::Kill => self.kill(at, false),
            Fault::Power => self.kill(at, true),
            Fault::PowerBoth => {
                self.kill(at, true)?;
                self.kill(1 - at, true)
            }
            Fault::Pause => {
                self.pause(at, until - self.now);
                Ok(())
            }
            Fault::Cut => {
                self.cut(until - self.now);
                Ok(())
            }
            Fault::Reset => {
                self.net.reset_any(self.now);
                Ok(())
            }
            Fault::Flip => {
                self.net.flip_next();
                Ok(())
            }
            Fault::ClientLeaves => {
                self.client_leaves();
                Ok(())
            }
            Fault::DiskError | Fault::SyncError | Fault::MetadataError => {
                self.break_disk(at, fault);
                Ok(())
            }
            Fault::NoSpace => {
                if self.is_in_sync() {
                    self.nodes[at].trouble.full_until = until;
                }
                Ok(())
            }
            Fault::Stall => {
                self.nodes[at].trouble.stalled_until = until;
                Ok(())
            }
        }
    }

    /// A disk may fail only while the other copy is complete, and stays the only one until this one
    /// is whole again.
    fn break_disk(&mut self, at: usize, fault: Fault) {
        if !self.is_in_sync() || self.operator.broken_disk.is_some() {
            return;
        }
        self.operator.broken_disk = Some(at);
        let trouble = &mut self.nodes[at].trouble;
        match fault {
            Fault::SyncError => trouble.fail_next_sync = true,
            Fault::MetadataError => trouble.fail_next_metadata = true,
            _ => trouble.fail_next_io = true,
        }
    }

    pub(crate) fn pause(&mut self, at: usize, length: Time) {
        if let Some(process) = &mut self.nodes[at].process
            && !process.is_paused
        {
            process.is_paused = true;
            self.excuse_services(at);
            self.after(length, Event::Resume(at));
        }
    }

    fn cut(&mut self, length: Time) {
        let which = self.process_rng.u8(..4);
        for from in 0..2 {
            if which >= 2 || usize::from(which) == from {
                self.net.cut(from);
                self.after(length, Event::Mend(from));
            }
        }
    }

    /// The process is killed, or the machine loses power. It comes back by itself.
    pub(crate) fn kill(&mut self, at: usize, is_power: bool) -> Checked {
        if self.nodes[at].process.is_none() && !is_power {
            return Ok(());
        }
        // The one complete copy stays.
        if self.operator.broken_disk == Some(1 - at) {
            return Ok(());
        }
        self.trace.note(&[self.now, 92], || format!("{} {at}: dies, power: {is_power}", self.now));
        let was_in_sync = self.is_in_sync();
        let is_secondary = self.nodes[at].process.as_ref().is_some_and(|it| it.export.is_none());
        if is_secondary && self.plan.mode == ReplicationMode::MemSync {
            self.ghost.memory_lost(at);
        }
        // The supervisor lives on, but not without power.
        let word = self.last_word(at).filter(|_| !is_power);
        self.end_process(at, is_power)?;
        if let Some(word) = word {
            self.worker_died(at, word);
        }
        if is_power {
            self.services_lose_power(at);
            self.nodes[at].lose_power(&mut self.disk_rng);
            self.ghost.power_lost(at, was_in_sync);
            self.collect_changes(at)?;
        }
        let delay = match self.process_rng.u8(..4) {
            0 => self.process_rng.u64(millis(5)..millis(50)),
            1..=2 => self.process_rng.u64(millis(100)..millis(2_000)),
            _ => self.process_rng.u64(millis(2_000)..millis(15_000)),
        };
        self.after(delay, Event::Start(at));
        Ok(())
    }

    /// The process of a node is gone from here on.
    pub(crate) fn end_process(&mut self, at: usize, is_silent: bool) -> Checked {
        self.excuse_services(at);
        self.disconnect_clients(at);
        self.net.node_gone(self.now, at, is_silent);
        self.nodes[at].crash(&mut self.disk_rng);
        self.counts_on_veto[at] = false;
        self.collect_changes(at)?;
        // What was in flight is no excuse any more.
        self.check_all_differences()
    }
}
