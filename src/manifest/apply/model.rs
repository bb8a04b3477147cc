//! A file system for tests: inodes apart from names, and crashes that lose any of the unsynced
//! calls.
//!
//! Directories are reached by their identity, as a held descriptor reaches them. A crash keeps any
//! subset of the calls since the last sync, in order as far as one needs another: a call that the
//! kernel would refuse after what was lost, or that would meet another object, is lost, too.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{FileTime, Identity, Kind, Name, Object};
use super::fate::Side;
use super::place::Place;
use super::redo::{Seen, Sight, Step};
use crate::units::ObjectId;

/// An object of the file system.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Inode {
    pub(super) object: Object,
    pub(super) entries: BTreeMap<Name, Identity>,
}

/// All that is on a disk.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct State {
    pub(super) inodes: BTreeMap<Identity, Inode>,
    pub(super) work: BTreeMap<Place, Identity>,
    pub(super) quarantine: Vec<Identity>,
}

/// What the kernel answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Errno {
    Absent,
    Exists,
    Invalid,
    Permission,
}

/// A call that changed something, with the objects that it met.
#[derive(Clone, Debug)]
enum Call {
    Rename { what: Identity, from: Place, to: Place },
    Exchange { new: Identity, from: Place, old: Identity, at: Place },
    Link { what: Identity, existing: Place, slot: Place },
    Write { what: Identity, object: Object },
    Quarantine { what: Identity, from: Place },
    Make { what: Identity, object: Object, at: Place },
}

/// What a path leads to: the first of all paths of the object, and the object.
pub(super) type View = BTreeMap<Vec<u8>, (Vec<u8>, Object)>;

/// A disk with a tree and a work area.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) now: State,
    synced: State,
    log: Vec<Call>,
    pub(super) root: Identity,
    clock: i64,
    next_inode: u64,
    /// Directories that are found; `None` while descriptors of all are held.
    pub(super) found: Option<BTreeSet<Identity>>,
}

impl State {
    pub(super) fn at(&self, place: &Place) -> Option<Identity> {
        match place {
            Place::Tree { directory, name } => {
                self.inodes.get(directory)?.entries.get(name).copied()
            }
            Place::Stage(_) | Place::Park { .. } | Place::Link { .. } | Place::Undo { .. } => {
                self.work.get(place).copied()
            }
        }
    }

    fn put(&mut self, place: &Place, what: Option<Identity>) {
        let (map, name) = match place {
            Place::Tree { directory, name } => {
                let inode = self.inodes.get_mut(directory).unwrap();
                (&mut inode.entries, name.clone())
            }
            Place::Stage(_) | Place::Park { .. } | Place::Link { .. } | Place::Undo { .. } => {
                match what {
                    Some(what) => self.work.insert(place.clone(), what),
                    None => self.work.remove(place),
                };
                return;
            }
        };
        match what {
            Some(what) => map.insert(name, what),
            None => map.remove(&name),
        };
    }

    /// Number of all names.
    pub(super) fn name_count(&self) -> usize {
        let entries: usize = self.inodes.values().map(|inode| inode.entries.len()).sum();
        entries + self.work.len() + self.quarantine.len()
    }

    /// Every object with a name.
    pub(super) fn named(&self) -> BTreeSet<Identity> {
        let entries = self.inodes.values().flat_map(|inode| inode.entries.values());
        entries.chain(self.work.values()).chain(&self.quarantine).copied().collect()
    }

    /// Whether `place` is in `what` or below it.
    fn is_below(&self, place: &Place, what: Identity) -> bool {
        let Some(directory) = place.directory() else { return false };
        let inside = |at: Identity| self.inodes[&at].entries.values().copied();
        let mut reached = vec![what];
        let mut seen = BTreeSet::new();
        while let Some(at) = reached.pop() {
            if at == directory {
                return true;
            }
            if seen.insert(at) {
                reached.extend(inside(at));
            }
        }
        false
    }

    /// Times of directories as file systems move them: of both parents, and of a directory that
    /// gets another parent.
    fn touch(&mut self, places: [&Place; 2], moved: &[Identity], clock: i64) {
        let parents = places.into_iter().filter_map(Place::directory);
        let moved =
            moved.iter().copied().filter(|it| self.inodes[it].object.kind() == Kind::Directory);
        for directory in parents.chain(moved.collect::<Vec<_>>()) {
            let metadata = &mut self.inodes.get_mut(&directory).unwrap().object.metadata;
            metadata.mtime = FileTime { seconds: 1_000_000 + clock, nanos: 0 };
        }
    }

    fn call(&mut self, call: &Call, clock: i64) -> Result<(), Errno> {
        match call {
            Call::Rename { what, from, to } => {
                self.expect(*what, from)?;
                self.expect_free(to)?;
                if self.is_below(to, *what) {
                    return Err(Errno::Invalid);
                }
                self.put(from, None);
                self.put(to, Some(*what));
                self.touch([from, to], &[*what], clock);
            }
            Call::Exchange { new, from, old, at } => {
                self.expect(*new, from)?;
                self.expect(*old, at)?;
                if self.is_below(at, *new) || self.is_below(from, *old) {
                    return Err(Errno::Invalid);
                }
                self.put(from, Some(*old));
                self.put(at, Some(*new));
                self.touch([from, at], &[*new, *old], clock);
            }
            Call::Link { what, existing, slot } => {
                self.expect(*what, existing)?;
                self.expect_free(slot)?;
                if self.inodes[what].object.kind() == Kind::Directory {
                    return Err(Errno::Permission);
                }
                self.put(slot, Some(*what));
            }
            Call::Write { what, object } => {
                self.inodes.get_mut(what).ok_or(Errno::Absent)?.object = object.clone();
            }
            Call::Quarantine { what, from } => {
                self.expect(*what, from)?;
                self.put(from, None);
                self.quarantine.push(*what);
                self.touch([from, from], &[], clock);
            }
            Call::Make { what, object, at } => {
                let inode = Inode { object: object.clone(), entries: BTreeMap::new() };
                self.inodes.insert(*what, inode);
                self.put(at, Some(*what));
            }
        }
        Ok(())
    }

    fn expect(&self, what: Identity, place: &Place) -> Result<(), Errno> {
        if self.at(place) == Some(what) { Ok(()) } else { Err(Errno::Absent) }
    }

    fn expect_free(&self, place: &Place) -> Result<(), Errno> {
        if self.at(place).is_none() { Ok(()) } else { Err(Errno::Exists) }
    }

    /// What a reader finds below `root`.
    pub(super) fn view(&self, root: Identity) -> View {
        let mut found: Vec<(Vec<u8>, Identity)> = vec![(Vec::new(), root)];
        let mut next = 0;
        while let Some((path, at)) = found.get(next).cloned() {
            let entries = &self.inodes[&at].entries;
            found.extend(entries.iter().map(|(name, it)| (below(&path, name), *it)));
            next += 1;
        }
        grouped(found, |it| self.inodes[&it].object.clone())
    }
}

/// The path of `name` in the directory at `path`.
fn below(path: &[u8], name: &Name) -> Vec<u8> {
    [path, b"/", name.bytes()].concat()
}

fn grouped<Id: Copy + Ord>(mut found: Vec<(Vec<u8>, Id)>, object: impl Fn(Id) -> Object) -> View {
    found.sort();
    let mut first: BTreeMap<Id, Vec<u8>> = BTreeMap::new();
    for (path, id) in &found {
        first.entry(*id).or_insert_with(|| path.clone());
    }
    found.into_iter().map(|(path, id)| (path, (first[&id].clone(), object(id)))).collect()
}

/// What a reader should find.
pub(super) fn view_of(side: &Side) -> View {
    let mut found = vec![(Vec::new(), ObjectId::ROOT)];
    let mut next = 0;
    while let Some((path, at)) = found.get(next).cloned() {
        let inside = side.names.iter().filter(|((directory, _), _)| *directory == at);
        found.extend(inside.map(|((_, name), id)| (below(&path, name), *id)));
        next += 1;
    }
    grouped(found, |id| side.objects[&id].clone())
}

impl Disk {
    /// A disk with the tree of `side`, and the identities of its objects.
    pub(super) fn of(side: &Side) -> (Self, BTreeMap<ObjectId, Identity>) {
        let mut disk = Self {
            now: State::default(),
            synced: State::default(),
            log: Vec::new(),
            root: Identity { inode: 0, birth: None },
            clock: 0,
            next_inode: 100,
            found: None,
        };
        let mut found = BTreeMap::new();
        for (id, object) in &side.objects {
            found.insert(*id, disk.make(object.clone()));
        }
        for ((directory, name), id) in &side.names {
            disk.enter(found[directory], name, found[id]);
        }
        disk.root = found[&ObjectId::ROOT];
        disk.sync();
        (disk, found)
    }

    /// An object without a name. Inode numbers of file systems are used again, births are not.
    pub(super) fn make(&mut self, object: Object) -> Identity {
        self.next_inode += 1;
        let birth = FileTime { seconds: i64::try_from(self.next_inode).unwrap(), nanos: 0 };
        let identity = Identity { inode: self.next_inode % 7, birth: Some(birth) };
        self.now.inodes.insert(identity, Inode { object, entries: BTreeMap::new() });
        identity
    }

    /// A name without any traces in times.
    pub(super) fn enter(&mut self, directory: Identity, name: &Name, what: Identity) {
        self.now.put(&Place::Tree { directory, name: name.clone() }, Some(what));
    }

    /// The same in the work area.
    pub(super) fn enter_work(&mut self, place: &Place, what: Identity) {
        self.now.put(place, Some(what));
    }

    /// Somebody else makes something at `at`, whatever was there.
    pub(super) fn intrude(&mut self, object: Object, at: &Place) -> Identity {
        let what = self.make(object.clone());
        self.called(&Call::Make { what, object, at: at.clone() }).unwrap();
        what
    }

    fn called(&mut self, call: &Call) -> Result<(), Errno> {
        self.clock += 1;
        self.now.call(call, self.clock)?;
        self.log.push(call.clone());
        Ok(())
    }

    /// One step of an apply.
    pub(super) fn carry_out(&mut self, step: &Step) -> Result<(), Errno> {
        let found = |place: &Place| self.now.at(place).ok_or(Errno::Absent);
        let object_at = |what: &Identity, at: &Place| match self.now.at(at) {
            Some(found) if found == *what => Ok(self.now.inodes[what].object.clone()),
            Some(_) | None => Err(Errno::Absent),
        };
        let call = match step.clone() {
            Step::Rename { from, to } => Call::Rename { what: found(&from)?, from, to },
            Step::Exchange { from, at } => {
                Call::Exchange { new: found(&from)?, old: found(&at)?, from, at }
            }
            Step::Link { existing, slot } => Call::Link { what: found(&existing)?, existing, slot },
            Step::Patch { what, at, source } => {
                let mut object = object_at(&what, &at)?;
                object.body = self.now.inodes[&found(&source)?].object.body.clone();
                object.metadata.mtime = FileTime { seconds: 2_000_000, nanos: 0 };
                Call::Write { what, object }
            }
            Step::Set { what, at, metadata } => {
                let object = Object { metadata, ..object_at(&what, &at)? };
                Call::Write { what, object }
            }
            Step::Finish { directory, metadata } => {
                let inode = self.now.inodes.get(&directory).ok_or(Errno::Absent)?;
                let object = Object { metadata, ..inode.object.clone() };
                Call::Write { what: directory, object }
            }
        };
        self.called(&call)
    }

    /// What is at `from` goes to the quarantine.
    pub(super) fn quarantine(&mut self, from: Place) {
        let what = self.now.at(&from).unwrap();
        self.called(&Call::Quarantine { what, from }).unwrap();
    }

    /// All that was called is on disk.
    pub(super) fn sync(&mut self) {
        self.synced = self.now.clone();
        self.log.clear();
    }

    /// How many calls a crash can lose.
    pub(super) fn unsynced_count(&self) -> usize {
        self.log.len()
    }

    /// Power fails: of the unsynced calls those stay for which `keeps` says so.
    pub(super) fn crash(&mut self, keeps: impl Fn(usize) -> bool) {
        let mut state = self.synced.clone();
        for (index, call) in self.log.iter().enumerate().filter(|(index, _)| keeps(*index)) {
            let clock = i64::try_from(index).unwrap();
            // One that another lost call was needed for is lost as well.
            let _ = state.call(call, clock);
        }
        // Objects that lost their name are gone, and nobody holds a descriptor.
        self.now = state;
        self.found = Some(BTreeSet::new());
        self.sync();
    }
}

impl Sight for Disk {
    fn at(&self, place: &Place) -> Seen {
        match place.directory() {
            Some(directory) if !self.has(directory) => Seen::NoDirectory,
            Some(_) | None => self.now.at(place).map_or(Seen::Nothing, Seen::Object),
        }
    }

    fn inside(&self, directory: Identity) -> Option<Name> {
        self.now.inodes.get(&directory)?.entries.keys().next().cloned()
    }

    fn has(&self, directory: Identity) -> bool {
        directory == self.root || self.found.as_ref().is_none_or(|found| found.contains(&directory))
    }
}
