//! How much content a comparison reads, and where it goes on.
//!
//! A tree may hold more than can be read before somebody needs the thread that reads it. So a comparison ends as
//! soon as there is something else to do, and reads no more than it may; a file that it was in is gone on with
//! where that was, if it is still the same.

use crate::manifest::{Stamp, TreeClock, is_too_young};
use crate::units::ObjectId;

/// How long a comparison goes on.
pub struct Until<'a> {
    /// Whether there is something else to do. It is asked before each entry, and before each chunk that is read.
    pub stop: &'a dyn Fn() -> bool,
    /// So many entries are looked at in any case: whoever is always called away gets to the end nevertheless.
    pub entries: u64,
    /// Bytes of content that may be read. What would need more is left for another time; all else is compared.
    pub bytes: u64,
}

impl Until<'static> {
    /// All of a tree, however long that takes.
    pub const THE_END: Self = Self { stop: &|| false, entries: 0, bytes: u64::MAX };
}

/// A file that was read up to a chunk, and was as the index has it so far.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Part {
    id: ObjectId,
    stamp: Stamp,
    chunk: u64,
}

/// The reading of one comparison; without an end it goes on for as long as it takes.
pub(super) struct Reading<'a> {
    until: Option<&'a Until<'a>>,
    /// Entries that were passed.
    entries: u64,
    read_bytes: u64,
    part: Option<Part>,
    is_cut: bool,
}

impl<'a> Reading<'a> {
    /// All that is needed.
    pub(super) fn unlimited() -> Self {
        Self { until: None, entries: 0, read_bytes: 0, part: None, is_cut: false }
    }

    /// As `until` allows. `part` is what an earlier one has left.
    pub(super) fn within(until: &'a Until<'a>, part: Option<Part>) -> Self {
        Self { until: Some(until), part, ..Self::unlimited() }
    }

    /// Whether there is something else to do than to look at one more entry.
    pub(super) fn is_stopped(&mut self) -> bool {
        self.entries += 1;
        self.until.is_some_and(|until| self.entries > until.entries && (until.stop)())
    }

    /// Bytes of content that were read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Whether it was stopped within a file.
    pub(super) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What a later one begins with.
    pub(super) fn part(&self) -> Option<Part> {
        self.part
    }

    /// The first chunk of a file that was not read.
    pub(super) fn first_of(&mut self, id: ObjectId, stamp: &Stamp) -> u64 {
        let part = self.part.take_if(|part| part.id == id);
        part.filter(|part| part.stamp == *stamp).map_or(0, |part| part.chunk)
    }

    /// Whether `chunk` of `len` bytes may be read. If not, a later comparison goes on with it, unless a write to
    /// what was read could leave the same `stamp`.
    pub(super) fn may_read(
        &mut self,
        (id, stamp): (ObjectId, &Stamp),
        (chunk, len): (u64, usize),
        clock: &TreeClock,
    ) -> bool {
        let Some(until) = self.until else { return true };
        self.is_cut = (until.stop)();
        let read_bytes = self.read_bytes.saturating_add(len as u64);
        if !self.is_cut && read_bytes <= until.bytes {
            self.read_bytes = read_bytes;
            return true;
        }
        if chunk > 0 && !is_too_young(stamp, clock) {
            self.part = Some(Part { id, stamp: *stamp, chunk });
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{FileTime, Granularity, Identity};
    use std::cell::Cell;

    fn stamp(seconds: i64) -> Stamp {
        let time = FileTime { seconds, nanos: 0 };
        Stamp {
            identity: Identity { inode: 7, birth: None },
            size: 1000,
            mtime: time,
            ctime: time,
            mode: 0o100_644,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: (0, 0),
        }
    }

    const CLOCK: TreeClock =
        TreeClock { now: FileTime { seconds: 100, nanos: 0 }, granularity: Granularity::FINE };
    const ID: ObjectId = ObjectId(9);

    #[test]
    fn a_file_is_gone_on_with_where_the_budget_ended_if_it_is_the_same() {
        let until = Until { stop: &|| false, entries: 0, bytes: 25 };
        let mut reading = Reading::within(&until, None);
        let old = stamp(50);
        assert_eq!(reading.first_of(ID, &old), 0);
        let allowed: Vec<bool> =
            (0..3).map(|chunk| reading.may_read((ID, &old), (chunk, 10), &CLOCK)).collect();
        assert_eq!(allowed, [true, true, false]);
        assert!(!reading.is_cut());
        let mut next = Reading::within(&until, reading.part());
        assert_eq!(next.first_of(ObjectId(8), &old), 0);
        assert_eq!(next.first_of(ID, &old), 2);
        let mut next = Reading::within(&until, reading.part());
        assert_eq!(next.first_of(ID, &stamp(51)), 0);
        // What may be written to without a trace is read from the beginning.
        let mut reading = Reading::within(&until, None);
        assert!(!reading.may_read((ID, &stamp(100)), (5, 30), &CLOCK));
        assert_eq!(reading.part(), None);
    }

    #[test]
    fn something_else_to_do_ends_it_within_a_file() {
        let calls = Cell::new(0);
        let stop = || {
            calls.set(calls.get() + 1);
            calls.get() > 2
        };
        let until = Until { stop: &stop, entries: 0, bytes: u64::MAX };
        let mut reading = Reading::within(&until, None);
        let old = stamp(50);
        assert!((0..2).all(|chunk| reading.may_read((ID, &old), (chunk, 10), &CLOCK)));
        assert!(!reading.is_cut());
        assert!(!reading.may_read((ID, &old), (2, 10), &CLOCK) && reading.is_cut());
        assert_eq!(Reading::within(&until, reading.part()).first_of(ID, &old), 2);
        assert!(Reading::unlimited().may_read((ID, &old), (9, 10), &CLOCK));
    }
}
