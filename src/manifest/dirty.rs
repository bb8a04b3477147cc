//! What in a tree may differ from the index: hints, to be looked at once they have settled.
//!
//! An event names a directory and an entry of it, and says no more than that somebody should look
//! there. Hints are never replayed, so several about one name are one. The set is bounded: too many
//! names of one directory become a hint about the whole directory, too many in all become the
//! suspicion that anything may have changed, which a scan of everything answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::name::Name;
use crate::units::{Instant, ObjectId};

/// Names of one directory that are remembered one by one. Source: directory.md 4.
pub const DIRECTORY_NAMES_MAX: usize = 65_536;
/// Names that are remembered one by one in all directories. Source: directory.md 4.
pub const NAMES_MAX: usize = 262_144;
/// Names that rest because it takes long to read them; beyond it they rest no more.
const RESTING_MAX: usize = 4096;
/// A name rests so many times as long as its last capture took. Source: directory.md 4.
const REST_FACTOR: u32 = 5;

/// When a hint is looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pace {
    /// Once nothing was said of it for so long.
    pub settle: Duration,
    /// At the latest so long after the first thing that was said.
    pub oldest_max: Duration,
}

/// When something was said of a place.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct Touched {
    first: Instant,
    last: Instant,
}

impl Touched {
    fn at(now: Instant) -> Self {
        Self { first: now, last: now }
    }

    fn due_at(self, pace: Pace) -> Instant {
        self.last.plus(pace.settle).min(self.first.plus(pace.oldest_max))
    }
}

/// What is to be looked at, taken out of the set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Due {
    /// All of the tree.
    pub everything: bool,
    /// Directories of which any entry may differ, and everything below those of them that are new.
    pub directories: Vec<ObjectId>,
    /// Single entries, in order.
    pub names: Vec<(ObjectId, Name)>,
    /// When the first thing was said of any of these.
    pub oldest: Option<Instant>,
}

impl Due {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.directories.is_empty() && self.names.is_empty()
    }

    /// Adds what else is to be looked at.
    pub fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.directories.extend(other.directories);
        self.directories.sort_unstable();
        self.directories.dedup();
        self.names.extend(other.names);
        self.names.sort_unstable();
        self.names.dedup();
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
    }

    fn note(&mut self, touched: Touched) {
        self.oldest = Some(self.oldest.map_or(touched.first, |oldest| oldest.min(touched.first)));
    }
}

/// The hints that nobody has looked at.
#[derive(Clone, Debug, Default)]
pub struct DirtySet {
    names: BTreeMap<ObjectId, BTreeMap<Name, Touched>>,
    name_count: usize,
    directories: BTreeMap<ObjectId, Touched>,
    everything: Option<Touched>,
    /// Not to be looked at before then.
    resting: BTreeMap<(ObjectId, Name), Instant>,
}

impl DirtySet {
    /// An entry of a directory may differ.
    pub fn touch(&mut self, now: Instant, directory: ObjectId, name: Name) {
        if let Some(touched) = &mut self.everything {
            touched.last = now;
            return;
        }
        if let Some(touched) = self.directories.get_mut(&directory) {
            touched.last = now;
            return;
        }
        let names = self.names.entry(directory).or_default();
        if let Some(touched) = names.get_mut(&name) {
            touched.last = now;
            return;
        }
        names.insert(name, Touched::at(now));
        self.name_count += 1;
        if names.len() > DIRECTORY_NAMES_MAX {
            self.touch_directory(now, directory);
        } else if self.name_count > NAMES_MAX {
            self.suspect(now);
        }
    }

    /// Any entry of a directory may differ, and if it is new, everything below.
    pub fn touch_directory(&mut self, now: Instant, directory: ObjectId) {
        if let Some(touched) = &mut self.everything {
            touched.last = now;
            return;
        }
        let first = self.take_names(directory).unwrap_or(now);
        let touched = self.directories.entry(directory).or_insert(Touched { first, last: now });
        touched.first = touched.first.min(first);
        touched.last = now;
        if self.directories.len() > DIRECTORY_NAMES_MAX {
            self.suspect(now);
        }
    }

    /// Anything may differ: events were lost, or the node comes from a power loss.
    pub fn suspect(&mut self, now: Instant) {
        let oldest = self.oldest().unwrap_or(now);
        self.names.clear();
        self.name_count = 0;
        self.directories.clear();
        let touched = self.everything.get_or_insert(Touched::at(now));
        touched.first = touched.first.min(oldest);
        touched.last = now;
    }

    /// Takes back what was taken out and not dealt with. It is as old as it was.
    pub fn put_back(&mut self, now: Instant, due: Due) {
        let first = due.oldest.unwrap_or(now);
        if due.everything {
            self.suspect(first);
        }
        for directory in due.directories {
            self.touch_directory(first, directory);
        }
        for (directory, name) in due.names {
            self.touch(first, directory, name);
        }
        // What was touched since may cover it, and is younger: all counts as old as that.
        for touched in self.everything.iter_mut().chain(self.directories.values_mut()) {
            touched.first = touched.first.min(first);
        }
        for touched in self.names.values_mut().flat_map(BTreeMap::values_mut) {
            touched.first = touched.first.min(first);
        }
    }

    /// A directory is gone, and with it what was said of its entries.
    pub fn forget_directory(&mut self, directory: ObjectId) {
        self.take_names(directory);
        self.directories.remove(&directory);
    }

    /// Reading this entry took so long that it is not read again at once, should it change.
    pub fn rest(&mut self, now: Instant, directory: ObjectId, name: Name, took: Duration) {
        self.resting.retain(|_, until| *until > now);
        if self.resting.len() < RESTING_MAX {
            self.resting.insert((directory, name), now.plus(took * REST_FACTOR));
        }
    }

    /// Takes out what has settled.
    pub fn take_due(&mut self, now: Instant, pace: Pace) -> Due {
        let mut due = Due::default();
        if let Some(touched) = self.everything.take_if(|it| it.due_at(pace) <= now) {
            due.everything = true;
            due.note(touched);
        }
        self.directories.retain(|directory, touched| {
            let is_due = touched.due_at(pace) <= now;
            if is_due {
                due.directories.push(*directory);
                due.note(*touched);
            }
            !is_due
        });
        let resting = &self.resting;
        let mut left = 0;
        self.names.retain(|directory, names| {
            names.retain(|name, touched| {
                let key = (*directory, name.clone());
                let is_due = touched.due_at(pace) <= now
                    && resting.get(&key).is_none_or(|until| *until <= now);
                if is_due {
                    due.names.push(key);
                    due.note(*touched);
                }
                !is_due
            });
            left += names.len();
            !names.is_empty()
        });
        self.name_count = left;
        due
    }

    /// When something will have settled, if nothing more is said; a name that rests may be later.
    pub fn next_due(&self, pace: Pace) -> Option<Instant> {
        self.all().map(|touched| touched.due_at(pace)).min()
    }

    /// When the first thing was said that nobody has looked at.
    pub fn oldest(&self) -> Option<Instant> {
        self.all().map(|touched| touched.first).min()
    }

    /// Entries that may differ, where they are known one by one; directories count as one.
    pub fn count(&self) -> usize {
        self.name_count + self.directories.len() + usize::from(self.everything.is_some())
    }

    /// Whether nothing is known to differ.
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn all(&self) -> impl Iterator<Item = Touched> {
        let names = self.names.values().flat_map(BTreeMap::values).copied();
        names.chain(self.directories.values().copied()).chain(self.everything)
    }

    /// Forgets the single names of a directory, and says when the first was touched.
    fn take_names(&mut self, directory: ObjectId) -> Option<Instant> {
        let names = self.names.remove(&directory)?;
        self.name_count -= names.len();
        names.values().map(|touched| touched.first).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace =
        Pace { settle: Duration::from_millis(200), oldest_max: Duration::from_millis(2500) };

    fn ms(count: u64) -> Instant {
        Instant(0).plus(Duration::from_millis(count))
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_name_is_due_once_it_was_quiet() {
        let mut dirty = DirtySet::default();
        dirty.touch(ms(0), ObjectId(1), name("a"));
        dirty.touch(ms(150), ObjectId(1), name("a"));
        assert_eq!(dirty.next_due(PACE), Some(ms(350)));
        assert!(dirty.take_due(ms(349), PACE).is_empty());
        let due = dirty.take_due(ms(350), PACE);
        assert_eq!(due.names, [(ObjectId(1), name("a"))]);
        assert_eq!(due.oldest, Some(ms(0)));
        assert!(dirty.is_empty());
    }

    #[test]
    fn a_name_that_is_never_quiet_is_due_all_the_same() {
        let mut dirty = DirtySet::default();
        for at in (0..2500).step_by(100) {
            dirty.touch(ms(at), ObjectId(1), name("a"));
            assert!(dirty.take_due(ms(at), PACE).is_empty());
        }
        assert_eq!(dirty.take_due(ms(2500), PACE).names.len(), 1);
    }

    #[test]
    fn too_many_names_of_a_directory_are_one_hint() {
        let mut dirty = DirtySet::default();
        dirty.touch(ms(3), ObjectId(2), name("x"));
        for index in 0..=DIRECTORY_NAMES_MAX {
            dirty.touch(ms(5), ObjectId(1), name(&index.to_string()));
        }
        assert_eq!(dirty.count(), 2);
        dirty.touch(ms(9), ObjectId(1), name("later"));
        let due = dirty.take_due(ms(9000), PACE);
        assert_eq!(due.directories, [ObjectId(1)]);
        assert_eq!(due.names, [(ObjectId(2), name("x"))]);
        assert_eq!(due.oldest, Some(ms(3)));
    }

    #[test]
    fn too_many_names_in_all_are_a_suspicion() {
        let mut dirty = DirtySet::default();
        for index in 0..=NAMES_MAX {
            let directory = ObjectId(1 + u64::try_from(index % 8).unwrap());
            dirty.touch(ms(5), directory, name(&index.to_string()));
        }
        assert_eq!(dirty.count(), 1);
        let due = dirty.take_due(ms(300), PACE);
        assert!(due.everything && due.names.is_empty());
        assert_eq!(due.oldest, Some(ms(5)));
    }

    #[test]
    fn a_suspicion_covers_what_was_said_before_and_after() {
        let mut dirty = DirtySet::default();
        dirty.touch(ms(1), ObjectId(1), name("a"));
        dirty.touch_directory(ms(2), ObjectId(2));
        dirty.suspect(ms(4));
        dirty.touch(ms(5), ObjectId(3), name("b"));
        dirty.touch_directory(ms(5), ObjectId(3));
        assert_eq!((dirty.count(), dirty.oldest()), (1, Some(ms(1))));
    }

    #[test]
    fn what_is_slow_to_read_rests() {
        let mut dirty = DirtySet::default();
        dirty.rest(ms(0), ObjectId(1), name("big"), Duration::from_secs(1));
        dirty.touch(ms(0), ObjectId(1), name("big"));
        dirty.touch(ms(0), ObjectId(1), name("small"));
        assert_eq!(dirty.take_due(ms(4999), PACE).names, [(ObjectId(1), name("small"))]);
        assert_eq!(dirty.take_due(ms(5000), PACE).names, [(ObjectId(1), name("big"))]);
    }

    #[test]
    fn the_entries_of_a_directory_that_is_gone_are_forgotten() {
        let mut dirty = DirtySet::default();
        dirty.touch(ms(0), ObjectId(7), name("a"));
        dirty.touch_directory(ms(0), ObjectId(7));
        dirty.touch(ms(0), ObjectId(8), name("b"));
        dirty.forget_directory(ObjectId(7));
        assert_eq!(dirty.count(), 1);
    }
}
