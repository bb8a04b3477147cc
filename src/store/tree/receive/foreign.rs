//! Whether the touched part of a tree is what the index says.
//!
//! A stamp that is as it was proves it. One that is not may have an innocent reason: a name in `undo/` that
//! was removed, an excluded file in a directory. So what is kept of the object is compared then, its content
//! read and hashed. Only what really is another version was written by somebody else.

use std::collections::{BTreeMap, BTreeSet};

use super::super::capture::kept_kind;
use super::super::index::Rows;
use super::super::{Folder, Found, read_xattrs};
use super::content::number;
use super::doors::Doors;
use super::incoming::size_of;
use super::reading::Reading;
use super::sources::read_verified;
use super::staging::Site;
use super::{Base, ReceiveError, Sides, failed, span_of};
use crate::manifest::{
    Body, Identity, Judgement, Kind, LeftOut, Name, Row, SEGMENT_CHUNKS, Stamp, TreeClock,
    is_too_young, judge, segment_count,
};
use crate::units::ObjectId;

/// Most foreign writes that are listed: when those are dealt with, the next attempt lists the others.
const FOREIGN_MAX: usize = 10_000;
/// Most objects whose new stamps are noted at once: a comparison ends there, and goes on after that.
const SETTLED_MAX: usize = 4096;

/// Something in the tree that is not what the index says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Foreign {
    /// In which directory; the root's own is the root.
    pub directory: ObjectId,
    /// Under which name; `None` for the root itself.
    pub name: Option<Name>,
    /// What the index has there, if anything.
    pub object: Option<ObjectId>,
    /// What is wrong with it.
    pub why: ForeignWhy,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ForeignWhy {
    /// It is not there.
    Missing,
    /// Another object has its name.
    Replaced,
    /// It is the same object with other content or metadata.
    Changed,
    /// Something has a name that no object of the index has there.
    Occupied,
    /// It is immutable or append-only, so that it cannot be changed.
    Flags,
    /// Another file system is mounted there, so that it cannot be moved or replaced.
    Mount,
    /// It is nothing that a generation has, so that none takes it away.
    InTheWay,
}

impl ForeignWhy {
    /// Whether no generation can be brought there before somebody takes it away. It says nothing of what the rest
    /// of the tree is.
    pub fn is_obstacle(self) -> bool {
        match self {
            Self::Flags | Self::Mount | Self::InTheWay => true,
            Self::Missing | Self::Replaced | Self::Changed | Self::Occupied => false,
        }
    }
}

/// What was found of the base.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Identities of its objects.
    pub(super) found: BTreeMap<ObjectId, Identity>,
    pub(super) foreign: Vec<Foreign>,
}

/// Whether a time is the one that was set. A file system that cannot hold it keeps another one, which is what the
/// index noted after the apply.
fn has_time_of(stamp: &Stamp, row: &Row) -> bool {
    stamp.mtime == row.entry.object().metadata.mtime || stamp.mtime == row.stamp.mtime
}

/// Compares the touched part of a tree with its index.
pub(super) fn look(
    site: Site<'_>,
    base: &Base,
    sides: &Sides,
    clock: &TreeClock,
) -> Result<Look, ReceiveError> {
    let root = site.tree.look_at_self().map_err(failed("look at the root of the tree"))?;
    let mut looker = Looker::new(site.left_out, base, clock, root.mount);
    looker.touched = Some(&sides.touched);
    looker.look.found.insert(ObjectId::ROOT, root.stamp.identity);
    if sides.base.objects.contains_key(&ObjectId::ROOT) {
        let row = looker.row(ObjectId::ROOT)?;
        let why = looker.judge((site.tree, None), ObjectId::ROOT, &row, &root)?;
        looker.note((ObjectId::ROOT, None), Some(ObjectId::ROOT), why);
    }
    let mut doors = Doors::new(site.tree);
    for ((directory, name), id) in &sides.base.names {
        let folder = doors.folder(*directory, base)?;
        let why = looker.look_at(folder, name, *id)?;
        looker.note((*directory, Some(name)), Some(*id), why);
    }
    let is_there = |id: &ObjectId| *id == ObjectId::ROOT || sides.base.objects.contains_key(id);
    let is_new = |key: &&(ObjectId, Name)| is_there(&key.0) && !sides.base.names.contains_key(*key);
    for (directory, name) in sides.target.names.keys().filter(is_new) {
        let Some(folder) = doors.folder(*directory, base)? else { continue };
        let found = folder.look(name).map_err(failed("look at an entry of the tree"))?;
        let why = found.map(|found| looker.judge_occupant(&found));
        looker.note((*directory, Some(name)), None, why);
    }
    Ok(looker.look)
}

/// Compares entries one by one.
pub(super) struct Looker<'a> {
    left_out: &'a LeftOut,
    base: &'a Base,
    /// Objects that matter, and whose identities are wanted; `None` if all do and no identities are wanted.
    touched: Option<&'a BTreeSet<ObjectId>>,
    clock: &'a TreeClock,
    /// That of the root: what is in another one cannot be moved, and is no part of the tree.
    mount: u64,
    pub(super) reading: Reading<'a>,
    /// Objects that were compared: one with many names is read once.
    judged: BTreeMap<ObjectId, Option<ForeignWhy>>,
    pub(super) look: Look,
    /// Objects that are what the index says although their stamps did not prove it, with the stamps that do.
    pub(super) settled: Vec<(ObjectId, Stamp, bool)>,
}

impl<'a> Looker<'a> {
    pub(super) fn new(
        left_out: &'a LeftOut,
        base: &'a Base,
        clock: &'a TreeClock,
        mount: u64,
    ) -> Self {
        let (judged, look, settled) = (BTreeMap::new(), Look::default(), Vec::new());
        let (touched, reading) = (None, Reading::unlimited());
        Self { left_out, base, touched, clock, mount, reading, judged, look, settled }
    }

    pub(super) fn base(&self) -> &'a Base {
        self.base
    }

    /// Whether no more can be noted.
    pub(super) fn is_full(&self) -> bool {
        self.look.foreign.len() >= FOREIGN_MAX
    }

    /// Whether what was found is to be noted before more is looked at.
    pub(super) fn is_laden(&self) -> bool {
        self.settled.len() >= SETTLED_MAX
    }

    pub(super) fn note(
        &mut self,
        (directory, name): (ObjectId, Option<&Name>),
        object: Option<ObjectId>,
        why: Option<ForeignWhy>,
    ) {
        if let Some(why) = why
            && !self.is_full()
        {
            self.look.foreign.push(Foreign { directory, name: name.cloned(), object, why });
        }
    }

    pub(super) fn row(&self, id: ObjectId) -> Result<Row, ReceiveError> {
        let row = self.base.view().object(id)?;
        let missing = super::IndexError::Missing { table: "objects", object: id.0 };
        row.ok_or(ReceiveError::Index(missing))
    }

    pub(super) fn look_at(
        &mut self,
        folder: Option<&Folder>,
        name: &Name,
        id: ObjectId,
    ) -> Result<Option<ForeignWhy>, ReceiveError> {
        let Some(folder) = folder else { return Ok(Some(ForeignWhy::Missing)) };
        let found = folder.look(name).map_err(failed("look at an entry of the tree"))?;
        let Some(found) = found else { return Ok(Some(ForeignWhy::Missing)) };
        if found.mount != self.mount {
            // Of the object below it nothing can be said.
            return Ok(self.touched.is_some().then_some(ForeignWhy::Mount));
        }
        let row = self.row(id)?;
        if row.stamp.identity != found.stamp.identity {
            return Ok(Some(ForeignWhy::Replaced));
        }
        if self.touched.is_some() {
            self.look.found.insert(id, found.stamp.identity);
        }
        if let Some(why) = self.judged.get(&id) {
            return Ok(*why);
        }
        let why = self.judge((folder, Some(name)), id, &row, &found)?;
        if self.touched.is_some() || found.stamp.nlink > 1 {
            self.judged.insert(id, why);
        }
        Ok(why)
    }

    /// What stands where the index has nothing.
    fn judge_occupant(&self, found: &Found) -> ForeignWhy {
        if found.mount != self.mount {
            return ForeignWhy::Mount;
        }
        match kept_kind(self.left_out, self.mount, found) {
            Ok(_) => ForeignWhy::Occupied,
            Err(_) => ForeignWhy::InTheWay,
        }
    }

    /// Whether somebody has added an entry, of which a generation could know.
    pub(super) fn is_added(&self, folder: &Folder, name: &Name) -> Result<bool, ReceiveError> {
        let found = folder.look(name).map_err(failed("look at an entry of the tree"))?;
        Ok(found.is_some_and(|found| self.judge_occupant(&found) == ForeignWhy::Occupied))
    }

    pub(super) fn judge(
        &mut self,
        (folder, name): (&Folder, Option<&Name>),
        id: ObjectId,
        row: &Row,
        found: &Found,
    ) -> Result<Option<ForeignWhy>, ReceiveError> {
        let judgement = judge(&row.indexed(), &found.stamp, self.clock);
        if judgement == Judgement::Other || found.kind != Some(row.entry.object().kind()) {
            return Ok(Some(ForeignWhy::Replaced));
        }
        if self.touched.is_some_and(|touched| !touched.contains(&id)) {
            return Ok(None);
        }
        if found.has_flags && self.touched.is_some() {
            return Ok(Some(ForeignWhy::Flags));
        }
        match judgement {
            Judgement::Other | Judgement::Same => return Ok(None),
            // An equal stamp: what it may hide is found when content is read.
            Judgement::Unsure if self.touched.is_some() => return Ok(None),
            Judgement::Unsure | Judgement::Changed | Judgement::Moved => {}
        }
        // What was not read to its end proves nothing, and is read another time.
        let Some(is_same) = self.is_as_indexed((folder, name), id, row, found)? else {
            return Ok(None);
        };
        let has_time = has_time_of(&found.stamp, row);
        if is_same && has_time && self.touched.is_none() {
            self.settled.push((id, found.stamp, is_too_young(&found.stamp, self.clock)));
        }
        Ok((!is_same).then_some(ForeignWhy::Changed))
    }

    /// Whether all that is kept of an object is what the index has, whatever its stamp says; `None` if that was
    /// not found out.
    fn is_as_indexed(
        &mut self,
        (folder, name): (&Folder, Option<&Name>),
        id: ObjectId,
        row: &Row,
        found: &Found,
    ) -> Result<Option<bool>, ReceiveError> {
        let (object, stamp) = (row.entry.object(), &found.stamp);
        let metadata = &object.metadata;
        let is_link = object.kind() == Kind::Symlink;
        let mode = self.left_out.mode(u16::try_from(stamp.mode & 0o7777).unwrap_or(0));
        let has_owner = self.left_out.owner(stamp.uid, stamp.gid) == (metadata.uid, metadata.gid);
        // Who adds an excluded file to a directory moves its time.
        let may_have_moved = object.kind() == Kind::Directory;
        let has_time = may_have_moved || has_time_of(stamp, row);
        if !has_owner || !has_time || (!is_link && mode != metadata.mode) {
            return Ok(Some(false));
        }
        let Some(name) = name else {
            let found = read_xattrs(folder, self.left_out);
            return Ok(Some(found.is_ok_and(|it| it == metadata.xattrs)));
        };
        let Ok(held) = folder.object(name) else { return Ok(Some(false)) };
        if read_xattrs(&held, self.left_out).ok().as_ref() != Some(&metadata.xattrs) {
            return Ok(Some(false));
        }
        Ok(Some(match &object.body {
            Body::Regular { size, .. } if *size == stamp.size => {
                return self.has_content((folder, name), (id, row), stamp);
            }
            Body::Regular { .. } => false,
            Body::Symlink { target } => folder.target(name).is_ok_and(|it| it == *target),
            Body::CharDevice { major, minor } | Body::BlockDevice { major, minor } => {
                stamp.rdev == (*major, *minor)
            }
            Body::Directory | Body::Fifo | Body::Socket => true,
        }))
    }

    /// Whether a file has the chunks that the index has; `None` if not all were read.
    fn has_content(
        &mut self,
        (folder, name): (&Folder, &Name),
        (id, row): (ObjectId, &Row),
        stamp: &Stamp,
    ) -> Result<Option<bool>, ReceiveError> {
        let Ok(file) = folder.file(name) else { return Ok(Some(false)) };
        let size = size_of(row.entry.object());
        let begin = self.reading.first_of(id, stamp);
        for segment in begin / u64::from(SEGMENT_CHUNKS)..segment_count(size) {
            let first = segment * u64::from(SEGMENT_CHUNKS);
            let hashes = self.base.view().segment(id, number(segment))?.1;
            for (chunk, hash) in (first..).zip(hashes).filter(|(chunk, _)| *chunk >= begin) {
                let (start, len) = span_of(chunk, size);
                if !self.reading.may_read((id, stamp), (chunk, len), self.clock) {
                    return Ok(None);
                }
                if read_verified(&file, start, len, &hash).is_none() {
                    return Ok(Some(false));
                }
            }
        }
        Ok(Some(true))
    }
}
