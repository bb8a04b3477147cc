//! Directories are compared with the index, entry by entry.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::iter::Peekable;
use std::vec::IntoIter;

use rustix::io::Errno;

use super::super::folder::{Folder, Found};
use super::super::index::{IndexError, Rows, Tables};
use super::super::observer::Observer;
use super::super::watch::{Watch, WatchError};
use super::report::SkippedWhy;
use super::skip::{Named, judge_path, kept_kind};
use super::{Capture, CaptureError};
use crate::manifest::{Due, Judgement, Kind, Name, PATH_DEPTH_MAX, judge};
use crate::units::{FuzzyWhy, ObjectId};

/// Names of the index that are read at once.
const PAGE_LEN: usize = 1024;

/// A directory that is looked at.
pub(super) struct Spot {
    pub(super) id: ObjectId,
    pub(super) folder: Folder,
    /// From the root, with slashes; empty for the root.
    pub(super) path: Vec<u8>,
}

impl Spot {
    pub(super) fn path_of(&self, name: &Name) -> Vec<u8> {
        let slash: &[u8] = if self.path.is_empty() { b"" } else { b"/" };
        [&self.path, slash, name.bytes()].concat()
    }
}

/// A directory of which every entry is looked at: those that are there, and those of the index.
struct Frame {
    spot: Spot,
    there: Peekable<IntoIter<Name>>,
    known: VecDeque<Name>,
    /// The next page of the index begins here; `None` behind the last one.
    from: Option<Vec<u8>>,
}

impl Frame {
    fn next(&mut self, tables: &Tables<'_>) -> Result<Option<Name>, CaptureError> {
        if let Some(from) = self.from.take_if(|_| self.known.is_empty()) {
            let page = tables.entries(self.spot.id, &from, PAGE_LEN)?;
            if page.len() == PAGE_LEN {
                self.from = page.last().map(|(name, _)| [name.bytes(), &[0]].concat());
            }
            self.known.extend(page.into_iter().map(|(name, _)| name));
        }
        let is_there_first = match (self.there.peek(), self.known.front()) {
            (Some(there), Some(known)) => {
                if there == known {
                    self.known.pop_front();
                    return Ok(self.there.next());
                }
                there < known
            }
            (there, _) => there.is_some(),
        };
        Ok(if is_there_first { self.there.next() } else { self.known.pop_front() })
    }
}

/// A directory that was found under a name.
struct Met {
    id: ObjectId,
    found: Found,
    is_new: bool,
}

impl Capture<'_, '_> {
    /// Looks at all that is due.
    pub(super) fn pass(&mut self, due: &Due, observer: &Observer) -> Result<(), CaptureError> {
        let watch = observer.watch();
        let root = self.subject.root.again().map_err(CaptureError::Root)?;
        if due.everything || self.tables.object(ObjectId::ROOT)?.is_none() {
            let spot = Spot { id: ObjectId::ROOT, folder: root, path: Vec::new() };
            self.directory(&spot)?;
            return match self.frame(spot, watch) {
                Ok(frame) => self.walk(frame, true, watch),
                Err(errno) => Err(CaptureError::Root(errno)),
            };
        }
        let mut names: BTreeMap<ObjectId, BTreeSet<&Name>> = BTreeMap::new();
        for (directory, name) in &due.names {
            names.entry(*directory).or_default().insert(name);
        }
        let whole: BTreeSet<ObjectId> = due.directories.iter().copied().collect();
        let mut left: Vec<ObjectId> = names.keys().copied().chain(whole.iter().copied()).collect();
        // What is in a directory that has moved is found once its new name was looked at.
        for _ in 0..2 {
            let mut missing = Vec::new();
            for directory in left {
                match self.find(directory)? {
                    Some(spot) if whole.contains(&directory) => match self.frame(spot, watch) {
                        Ok(frame) => self.walk(frame, false, watch)?,
                        Err(_) => missing.push(directory),
                    },
                    Some(spot) => {
                        for name in names.get(&directory).into_iter().flatten() {
                            self.look_below(&spot, name, watch)?;
                        }
                        self.directory(&spot)?;
                    }
                    None => missing.push(directory),
                }
            }
            left = missing;
        }
        for directory in left {
            // One that lost its last name is gone; any other stands where the index does not have it.
            if self.way_to(directory)?.is_some() {
                self.directory_changed(directory)?;
                self.missing.insert(directory);
            }
        }
        self.look_at_survivors()
    }

    /// Objects that lost a name and have others: they may have been changed through the one that is gone,
    /// which gave no event for these.
    fn look_at_survivors(&mut self) -> Result<(), CaptureError> {
        let mut lost: Vec<ObjectId> = self.lost_names.keys().copied().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = lost.pop() {
            if !seen.insert(id) {
                continue;
            }
            let mut is_alive = false;
            for (directory, name) in self.tables.places_of(id, usize::MAX)? {
                if let Some(spot) = self.find(directory)? {
                    self.entry(&spot, &name)?;
                    is_alive = true;
                    break;
                }
            }
            if !is_alive {
                // With a directory all names below it have gone.
                let inner = self.tables.entries(id, &[], usize::MAX)?;
                lost.extend(inner.into_iter().map(|(_, inner)| inner));
            }
        }
        Ok(())
    }

    /// Opens a directory where the index has it; `None` if it is not there.
    fn find(&self, id: ObjectId) -> Result<Option<Spot>, CaptureError> {
        let Some(row) = self.tables.object(id)? else { return Ok(None) };
        let mut folder = self.subject.root.again().map_err(CaptureError::Root)?;
        let mut path = Vec::new();
        let Some(names) = self.way_to(id)? else { return Ok(None) };
        for name in names {
            let Ok(inner) = folder.child(&name) else { return Ok(None) };
            folder = inner;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.bytes());
        }
        let found = folder.look_at_self().ok();
        let is_it = found.is_some_and(|found| found.stamp.identity == row.stamp.identity);
        Ok(is_it.then_some(Spot { id, folder, path }))
    }

    /// The names that lead to a directory; `None` if it, or one above it, has lost its name.
    fn way_to(&self, id: ObjectId) -> Result<Option<Vec<Name>>, CaptureError> {
        match self.tables.names_above(id) {
            Ok(names) => Ok(Some(names)),
            Err(IndexError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All of a directory; the events of what is done there from here on are read.
    fn frame(&mut self, spot: Spot, watch: Option<&Watch>) -> Result<Frame, Errno> {
        if let Some(watch) = watch.filter(|watch| !watch.has(spot.id)) {
            match watch.add(spot.id, &spot.folder) {
                Ok(()) => {}
                Err(WatchError::TooMany) => self.unwatched += 1,
                Err(WatchError::Kernel(errno)) => return Err(errno),
            }
        }
        let listing = spot.folder.list()?;
        for _ in 0..listing.too_long {
            self.skipped.note(SkippedWhy::Path, || spot.path.clone());
        }
        Ok(Frame {
            spot,
            there: listing.names.into_iter().peekable(),
            known: VecDeque::new(),
            from: Some(Vec::new()),
        })
    }

    /// Looks at every entry of a directory; goes down into all directories, or into new ones alone.
    fn walk(
        &mut self,
        first: Frame,
        is_deep: bool,
        watch: Option<&Watch>,
    ) -> Result<(), CaptureError> {
        let mut way = vec![first];
        while let Some(frame) = way.last_mut() {
            let Some(name) = frame.next(self.tables)? else {
                self.directory(&frame.spot)?;
                way.pop();
                continue;
            };
            let met = self.entry(&frame.spot, &name)?;
            if let Some(met) = met.filter(|met| is_deep || met.is_new)
                && let Some(inner) = self.enter(&frame.spot, &name, &met, watch)?
            {
                way.push(inner);
            }
        }
        Ok(())
    }

    /// Looks at one entry, and at all that is below it if it is a new directory.
    fn look_below(
        &mut self,
        spot: &Spot,
        name: &Name,
        watch: Option<&Watch>,
    ) -> Result<(), CaptureError> {
        if let Some(met) = self.entry(spot, name)?
            && (met.is_new || watch.is_some_and(|watch| !watch.has(met.id)))
            && let Some(frame) = self.enter(spot, name, &met, watch)?
        {
            self.walk(frame, false, watch)?;
        }
        Ok(())
    }

    /// Opens a directory that was found; `None` if it cannot be read or is another one by now.
    fn enter(
        &mut self,
        spot: &Spot,
        name: &Name,
        met: &Met,
        watch: Option<&Watch>,
    ) -> Result<Option<Frame>, CaptureError> {
        let folder = match spot.folder.child(name) {
            Ok(folder) => folder,
            Err(errno) => {
                self.not_read(spot, name, errno);
                return Ok(None);
            }
        };
        let found = folder.look_at_self().map_err(CaptureError::Root)?;
        if found.stamp.identity != met.found.stamp.identity {
            self.changed(spot.id, name);
            return Ok(None);
        }
        let inner = Spot { id: met.id, folder, path: spot.path_of(name) };
        match self.frame(inner, watch) {
            Ok(frame) => Ok(Some(frame)),
            Err(errno) => {
                self.not_read(spot, name, errno);
                Ok(None)
            }
        }
    }

    /// Compares one entry with the index. Gives the directory that it is, if it is one to go down into.
    fn entry(&mut self, spot: &Spot, name: &Name) -> Result<Option<Met>, CaptureError> {
        self.progress.note(1, 0)?;
        let known = self.tables.name(spot.id, name)?;
        let found = if self.is_kept(spot, name) {
            match spot.folder.look(name) {
                Ok(found) => found,
                Err(errno) => {
                    self.not_read(spot, name, errno);
                    return Ok(None);
                }
            }
        } else {
            None
        };
        let Some((found, kind)) = found.and_then(|found| self.kind_of(spot, name, found)) else {
            if known.is_some() {
                self.vanish(spot, name)?;
            }
            return Ok(None);
        };
        let judged = match known {
            None => None,
            Some(id) => self.tables.object(id)?.map(|row| (id, row)),
        };
        let (id, is_new) = match judged {
            Some((id, row)) => match judge(&row.indexed(), &found.stamp, &self.clock) {
                Judgement::Same => (id, false),
                Judgement::Unsure | Judgement::Changed | Judgement::Moved => {
                    self.refresh(spot, name, (id, &row), &found)?;
                    (id, false)
                }
                Judgement::Other => match self.stand(spot, name, &found, kind)? {
                    Some(stood) => stood,
                    None => return Ok(None),
                },
            },
            None => match self.stand(spot, name, &found, kind)? {
                Some(stood) => stood,
                None => return Ok(None),
            },
        };
        let is_inside = kind == Kind::Directory && found.mount == self.mount;
        Ok(is_inside.then_some(Met { id, found, is_new }))
    }

    /// Whether an entry is looked at at all.
    fn is_kept(&mut self, spot: &Spot, name: &Name) -> bool {
        match judge_path(self.subject.exclude, &spot.path, name) {
            Named::Kept => true,
            Named::LeftAlone => false,
            Named::TooLong => {
                self.skipped.note(SkippedWhy::Path, || spot.path_of(name));
                false
            }
        }
    }

    /// The kind of what was found, if it is kept.
    fn kind_of(&mut self, spot: &Spot, name: &Name, found: Found) -> Option<(Found, Kind)> {
        let kind = match kept_kind(self.subject.left_out, self.mount, &found) {
            Ok(kind) => kind,
            Err(why) => {
                self.skipped.note(why, || spot.path_of(name));
                return None;
            }
        };
        if found.mount != self.mount {
            // The root of a file system that is mounted there is all that can be seen.
            self.skipped.note(SkippedWhy::Mount, || spot.path_of(name));
        }
        if found.has_flags {
            self.skipped.note(SkippedWhy::Flags, || spot.path_of(name));
        }
        Some((found, kind))
    }

    /// A name of the index is not there.
    fn vanish(&mut self, spot: &Spot, name: &Name) -> Result<(), CaptureError> {
        if let Some(id) = self.tables.name(spot.id, name)? {
            self.tables.remove_name(self.number, spot.id, name)?;
            self.lose_name(id);
            self.changed(spot.id, name);
        }
        Ok(())
    }

    /// Another object stands under a name than the index has: a known one, or one that is new. Gives it,
    /// and whether it is new; `None` if it was gone again.
    fn stand(
        &mut self,
        spot: &Spot,
        name: &Name,
        found: &Found,
        kind: Kind,
    ) -> Result<Option<(ObjectId, bool)>, CaptureError> {
        let known = match self.tables.by_identity(found.stamp.identity)? {
            None => None,
            Some(id) => self.tables.object(id)?.map(|row| (id, row)),
        };
        let Some((id, row)) = known.filter(|(_, row)| row.entry.object().kind() == kind) else {
            return self.bear(spot, name, found);
        };
        if kind == Kind::Directory && !self.leave_places(spot, name, id)? {
            return Ok(None);
        }
        self.name_it(spot, name, id)?;
        if judge(&row.indexed(), &found.stamp, &self.clock) != Judgement::Same {
            self.refresh(spot, name, (id, &row), found)?;
        }
        Ok(Some((id, false)))
    }

    /// A directory has one name: the one that was seen last. `false` if it would be its own parent, as
    /// moves during the walk can make it look.
    fn leave_places(
        &mut self,
        spot: &Spot,
        name: &Name,
        id: ObjectId,
    ) -> Result<bool, CaptureError> {
        let mut above = spot.id;
        for _ in 0..PATH_DEPTH_MAX {
            if above == id {
                self.changed(spot.id, name);
                return Ok(false);
            }
            match self.tables.places_of(above, 1)?.pop() {
                Some((parent, _)) => above = parent,
                None => break,
            }
        }
        for (directory, old) in self.tables.places_of(id, usize::MAX)? {
            self.tables.remove_name(self.number, directory, &old)?;
            self.lose_name(id);
            self.changed(directory, &old);
        }
        Ok(true)
    }

    /// A name leads to an object.
    pub(super) fn name_it(
        &mut self,
        spot: &Spot,
        name: &Name,
        id: ObjectId,
    ) -> Result<(), CaptureError> {
        if let Some(old) = self.tables.name(spot.id, name)? {
            self.lose_name(old);
        }
        self.tables.put_name(self.number, (spot.id, name), id)?;
        self.changed(spot.id, name);
        Ok(())
    }

    /// An entry, or what is below it, could not be read: what is known of it stays.
    pub(super) fn not_read(&mut self, spot: &Spot, name: &Name, errno: Errno) {
        match errno {
            // It was replaced or removed meanwhile; the next pass sees what is there now.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE => {
                self.changed(spot.id, name);
            }
            // Somebody mounted something just now.
            Errno::XDEV => self.changed(spot.id, name),
            _ => self.fuzzy.note(spot.id, name.clone(), FuzzyWhy::Unreadable),
        }
    }
}
