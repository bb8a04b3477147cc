//! What a second look at an object says: is it what it was?
//!
//! A stamp proves only what the clock of the file system is fine enough to tell. Two changes within
//! one tick leave the same stamp, so a stamp that is as young as a tick proves nothing yet: the
//! object is read again.

use super::entry::{FileTime, NANOS_PER_SECOND, Stamp};

/// How fine the clock of a file system is, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Granularity(pub u64);

impl Granularity {
    /// ext4, XFS, btrfs, tmpfs: two ticks of the slowest kernel clock. Source: directory.md 4.6.
    pub const FINE: Self = Self(20_000_000);
    /// Everything else: FAT counts in two seconds. Source: directory.md 4.6.
    pub const COARSE: Self = Self(2_000_000_000);
}

/// The clock of the tree: only it can be compared with stamps.
#[derive(Clone, Copy, Debug, Default)]
pub struct TreeClock {
    /// The ctime of a file that was made just then.
    pub now: FileTime,
    /// How fine it is.
    pub granularity: Granularity,
}

/// What the index knows of an object.
#[derive(Clone, Copy, Debug)]
pub struct Indexed {
    /// Its stamp when it was read last.
    pub stamp: Stamp,
    /// Whether its content may be another than the one that is known: its stamp was too young when
    /// it was read, or the node lost power since.
    pub is_unsure: bool,
}

/// What has to be done with what was found under a name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Judgement {
    /// It is what it was: nothing to read.
    Same,
    /// The stamp is the same and proves nothing: read again.
    Unsure,
    /// The same object, and its content may be another: read again.
    Changed,
    /// The same object, and nothing speaks of other content: it got another name, mode, owner or
    /// attribute. It is read again all the same, a huge one later.
    Moved,
    /// Another object stands there.
    Other,
}

/// Judges an object by its stamps.
pub fn judge(indexed: &Indexed, found: &Stamp, clock: &TreeClock) -> Judgement {
    let was = &indexed.stamp;
    if was.identity != found.identity || file_type(was) != file_type(found) {
        return Judgement::Other;
    }
    if (was.size, was.mtime, was.rdev) != (found.size, found.mtime, found.rdev) {
        return Judgement::Changed;
    }
    let is_unsure = indexed.is_unsure || is_too_young(found, clock);
    match (was == found, is_unsure) {
        (true, false) => Judgement::Same,
        (true, true) => Judgement::Unsure,
        (false, false) => Judgement::Moved,
        // A ctime within the tick can hide a write that came after the read, also one that put the
        // mtime back.
        (false, true) => Judgement::Changed,
    }
}

/// Whether a stamp is so young, or so far in the future, that a later change could leave the same
/// one. What is indexed with such a stamp is unsure until it was read again.
pub fn is_too_young(stamp: &Stamp, clock: &TreeClock) -> bool {
    let newest = stamp.mtime.max(stamp.ctime);
    nanos(newest) + i128::from(clock.granularity.0) > nanos(clock.now)
}

fn nanos(time: FileTime) -> i128 {
    i128::from(time.seconds) * i128::from(NANOS_PER_SECOND) + i128::from(time.nanos)
}

/// The part of a mode that says what the object is: `S_IFMT` of inode(7).
fn file_type(stamp: &Stamp) -> u32 {
    stamp.mode & 0o170_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Identity;

    const FILE: u32 = 0o100_644;

    fn at(seconds: i64, nanos: u32) -> FileTime {
        FileTime { seconds, nanos }
    }

    fn stamp() -> Stamp {
        Stamp {
            identity: Identity { inode: 7, birth: Some(at(50, 0)) },
            size: 10,
            mtime: at(90, 0),
            ctime: at(90, 5),
            mode: FILE,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: (0, 0),
        }
    }

    fn clock() -> TreeClock {
        TreeClock { now: at(100, 0), granularity: Granularity::FINE }
    }

    fn verdict(change: impl Fn(&mut Stamp)) -> [Judgement; 2] {
        let mut found = stamp();
        change(&mut found);
        [false, true]
            .map(|is_unsure| judge(&Indexed { stamp: stamp(), is_unsure }, &found, &clock()))
    }

    #[test]
    fn each_field_of_a_stamp_counts() {
        use Judgement::{Changed, Moved, Other, Same, Unsure};
        assert_eq!(verdict(|_| ()), [Same, Unsure]);
        assert_eq!(verdict(|found| found.identity.inode = 8), [Other; 2]);
        assert_eq!(verdict(|found| found.identity.birth = Some(at(60, 0))), [Other; 2]);
        assert_eq!(verdict(|found| found.identity.birth = None), [Other; 2]);
        assert_eq!(verdict(|found| found.mode = 0o120_777), [Other; 2]);
        assert_eq!(verdict(|found| found.size = 11), [Changed; 2]);
        assert_eq!(verdict(|found| found.mtime = at(90, 1)), [Changed; 2]);
        assert_eq!(verdict(|found| found.mtime = at(80, 0)), [Changed; 2]);
        assert_eq!(verdict(|found| found.rdev = (1, 0)), [Changed; 2]);
        assert_eq!(verdict(|found| found.ctime = at(91, 0)), [Moved, Changed]);
        assert_eq!(verdict(|found| found.mode = 0o100_600), [Moved, Changed]);
        assert_eq!(verdict(|found| found.uid = 1), [Moved, Changed]);
        assert_eq!(verdict(|found| found.gid = 1), [Moved, Changed]);
        assert_eq!(verdict(|found| found.nlink = 2), [Moved, Changed]);
    }

    #[test]
    fn an_mtime_that_was_put_back_does_not_hide_an_edit() {
        let [sure, _] = verdict(|found| found.ctime = at(95, 0));
        assert_ne!(sure, Judgement::Same);
        let [young, _] = verdict(|found| found.ctime = at(99, 990_000_000));
        assert_eq!(young, Judgement::Changed);
    }

    #[test]
    fn a_stamp_of_the_same_tick_or_the_future_proves_nothing() {
        let cases = [
            (at(99, 979_999_999), Granularity::FINE, false),
            (at(99, 980_000_000), Granularity::FINE, false),
            (at(99, 980_000_001), Granularity::FINE, true),
            (at(100, 0), Granularity::FINE, true),
            (at(4_102_444_800, 0), Granularity::FINE, true),
            (at(98, 0), Granularity::COARSE, false),
            (at(98, 1), Granularity::COARSE, true),
            (at(-5, 0), Granularity::COARSE, false),
            (at(i64::MAX, 999_999_999), Granularity::COARSE, true),
            (at(i64::MIN, 0), Granularity::COARSE, false),
        ];
        for (time, granularity, expected) in cases {
            let clock = TreeClock { granularity, ..clock() };
            for is_mtime in [false, true] {
                let mut one = stamp();
                *(if is_mtime { &mut one.mtime } else { &mut one.ctime }) = time;
                if time < at(0, 0) {
                    (one.mtime, one.ctime) = (time, time);
                }
                assert_eq!(is_too_young(&one, &clock), expected, "{time:?}");
                let indexed = Indexed { stamp: one, is_unsure: false };
                let same = judge(&indexed, &one, &clock);
                assert_eq!(same == Judgement::Unsure, expected, "{time:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_went_back_makes_only_what_is_ahead_of_it_unsure() {
        let back = TreeClock { now: at(80, 0), ..clock() };
        let young = Indexed { stamp: stamp(), is_unsure: false };
        assert_eq!(judge(&young, &stamp(), &back), Judgement::Unsure);
        let old = Stamp { mtime: at(70, 0), ctime: at(70, 0), ..stamp() };
        let indexed = Indexed { stamp: old, is_unsure: false };
        assert_eq!(judge(&indexed, &old, &back), Judgement::Same);
    }
}
