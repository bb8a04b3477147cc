//! The file of the register: each write of it is stable before anybody hears of it, one at a time.

use std::collections::VecDeque;

use crate::manifest::REGISTER_BLOCK_LEN;
use crate::replica::{DiskOutcome, IoId};

/// Numbers of I/O from here on are ours; those of the core count from zero.
const OURS: u64 = 1 << 63;

/// The block of a register.
pub(super) type Block = Box<[u8; REGISTER_BLOCK_LEN]>;

/// What to do with the file next.
#[derive(Debug)]
pub(super) enum Step {
    Write(IoId, Block),
    Sync(IoId),
}

/// A write that ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Who asked for it: the core, or this driver for itself.
    pub(super) io: Option<IoId>,
    pub(super) outcome: DiskOutcome,
}

#[derive(Debug, Default)]
pub(super) struct RegisterFile {
    /// The one that is under way first.
    queue: VecDeque<(Option<IoId>, Block)>,
    is_busy: bool,
    last: u64,
    /// The number of the call under way, and whether that is the sync.
    call: Option<(IoId, bool)>,
}

impl RegisterFile {
    /// Whether an I/O is one of this file's.
    pub(super) fn is_ours(io: IoId) -> bool {
        io.0 >= OURS
    }

    /// Asks for a write.
    pub(super) fn write(&mut self, io: Option<IoId>, block: Block) {
        self.queue.push_back((io, block));
    }

    /// Whether something that this driver asked for itself is not stable yet. Writes of the core come between,
    /// and say nothing of that.
    pub(super) fn has_own(&self) -> bool {
        self.queue.iter().any(|(io, _)| io.is_none())
    }

    /// What is to be done now.
    pub(super) fn next(&mut self) -> Option<Step> {
        if self.is_busy {
            return None;
        }
        let block = self.queue.front()?.1.clone();
        self.is_busy = true;
        let io = self.name();
        self.call = Some((io, false));
        Some(Step::Write(io, block))
    }

    /// A call ended.
    pub(super) fn on_done(
        &mut self,
        io: IoId,
        outcome: DiskOutcome,
    ) -> (Option<Step>, Option<Ended>) {
        let Some((call, is_sync)) = self.call.take_if(|(call, _)| *call == io) else {
            return (None, None);
        };
        debug_assert_eq!(call, io, "one at a time");
        if outcome == DiskOutcome::Done && !is_sync {
            // Whoever is told that the register says something must find it so after any crash.
            let io = self.name();
            self.call = Some((io, true));
            return (Some(Step::Sync(io)), None);
        }
        self.is_busy = false;
        let ended = self.queue.pop_front().map(|(io, _)| Ended { io, outcome });
        (None, ended)
    }

    fn name(&mut self) -> IoId {
        self.last += 1;
        IoId(OURS + self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(byte: u8) -> Block {
        Box::new([byte; REGISTER_BLOCK_LEN])
    }

    #[test]
    fn a_write_is_reported_once_it_was_synced_and_the_next_waits_for_that() {
        let mut file = RegisterFile::default();
        file.write(Some(IoId(3)), block(1));
        file.write(None, block(2));
        let Some(Step::Write(first, bytes)) = file.next() else { panic!("a write") };
        assert!(bytes[0] == 1 && RegisterFile::is_ours(first) && !RegisterFile::is_ours(IoId(3)));
        assert!(file.next().is_none());
        let (Some(Step::Sync(sync)), None) = file.on_done(first, DiskOutcome::Done) else {
            panic!("a sync")
        };
        assert!(file.next().is_none() && file.has_own());
        let (None, Some(ended)) = file.on_done(sync, DiskOutcome::Done) else { panic!("its end") };
        assert_eq!((ended.io, ended.outcome), (Some(IoId(3)), DiskOutcome::Done));
        let Some(Step::Write(second, bytes)) = file.next() else { panic!("the next") };
        assert_eq!(bytes[0], 2);
        let (None, Some(ended)) = file.on_done(second, DiskOutcome::Failed) else {
            panic!("no sync of what failed")
        };
        assert_eq!((ended.io, ended.outcome), (None, DiskOutcome::Failed));
        assert!(!file.has_own() && file.next().is_none());
    }

    #[test]
    fn what_this_driver_asked_for_is_stable_though_the_core_wants_more() {
        let mut file = RegisterFile::default();
        file.write(None, block(1));
        file.write(None, block(2));
        file.write(Some(IoId(3)), block(2));
        for is_last in [false, true] {
            let Some(Step::Write(write, _)) = file.next() else { panic!("a write") };
            let (Some(Step::Sync(sync)), None) = file.on_done(write, DiskOutcome::Done) else {
                panic!("a sync")
            };
            let (None, Some(ended)) = file.on_done(sync, DiskOutcome::Done) else {
                panic!("an end")
            };
            assert_eq!((ended.io, file.has_own()), (None, !is_last));
        }
        assert!(file.next().is_some());
    }
}
