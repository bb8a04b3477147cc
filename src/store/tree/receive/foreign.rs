//! Whether the touched part of a tree is what the index says.
//!
//! A stamp that is as it was proves it. One that is not may have an innocent reason: a name in `undo/` that
//! was removed, an excluded file in a directory. So what is kept of the object is compared then, its content
//! read and hashed. Only what really is another version was written by somebody else.

use std::collections::{BTreeMap, BTreeSet};

use super::super::index::{Rows, View};
use super::super::{Folder, Found, read_xattrs};
use super::content::number;
use super::doors::Doors;
use super::incoming::size_of;
use super::sources::read_verified;
use super::staging::Site;
use super::{Base, ReceiveError, Sides, failed, span_of};
use crate::manifest::{
    Body, Identity, Judgement, Kind, LeftOut, Name, Row, SEGMENT_CHUNKS, TreeClock, judge,
    segment_count,
};
use crate::units::ObjectId;

/// Most foreign writes that are listed: when those are dealt with, the next attempt lists the others.
const FOREIGN_MAX: usize = 10_000;

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
    /// Something has a name that is to be given to another object.
    Occupied,
    /// It is immutable or append-only, so that it cannot be changed.
    Flags,
}

/// What was found of the base.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Identities of its objects.
    pub(super) found: BTreeMap<ObjectId, Identity>,
    pub(super) foreign: Vec<Foreign>,
}

/// Compares the touched part of a tree with its index.
pub(super) fn look(
    site: Site<'_>,
    base: &Base,
    sides: &Sides,
    clock: &TreeClock,
) -> Result<Look, ReceiveError> {
    let mut looker = Looker {
        left_out: site.left_out,
        base,
        touched: &sides.touched,
        clock,
        judged: BTreeMap::new(),
        look: Look::default(),
    };
    let root = site.tree.look_at_self().map_err(failed("look at the root of the tree"))?;
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
        let why = found.map(|_| ForeignWhy::Occupied);
        looker.note((*directory, Some(name)), None, why);
    }
    Ok(looker.look)
}

struct Looker<'a> {
    left_out: &'a LeftOut,
    base: &'a Base,
    touched: &'a BTreeSet<ObjectId>,
    clock: &'a TreeClock,
    /// Objects that were compared: one with many names is read once.
    judged: BTreeMap<ObjectId, Option<ForeignWhy>>,
    look: Look,
}

impl Looker<'_> {
    fn note(
        &mut self,
        (directory, name): (ObjectId, Option<&Name>),
        object: Option<ObjectId>,
        why: Option<ForeignWhy>,
    ) {
        if let Some(why) = why
            && self.look.foreign.len() < FOREIGN_MAX
        {
            self.look.foreign.push(Foreign { directory, name: name.cloned(), object, why });
        }
    }

    fn row(&self, id: ObjectId) -> Result<Row, ReceiveError> {
        let row = self.base.view().object(id)?;
        let missing = super::IndexError::Missing { table: "objects", object: id.0 };
        row.ok_or(ReceiveError::Index(missing))
    }

    fn look_at(
        &mut self,
        folder: Option<&Folder>,
        name: &Name,
        id: ObjectId,
    ) -> Result<Option<ForeignWhy>, ReceiveError> {
        let Some(folder) = folder else { return Ok(Some(ForeignWhy::Missing)) };
        let found = folder.look(name).map_err(failed("look at an entry of the tree"))?;
        let Some(found) = found else { return Ok(Some(ForeignWhy::Missing)) };
        let row = self.row(id)?;
        if row.stamp.identity != found.stamp.identity {
            return Ok(Some(ForeignWhy::Replaced));
        }
        self.look.found.insert(id, found.stamp.identity);
        if let Some(why) = self.judged.get(&id) {
            return Ok(*why);
        }
        let why = self.judge((folder, Some(name)), id, &row, &found)?;
        self.judged.insert(id, why);
        Ok(why)
    }

    fn judge(
        &self,
        (folder, name): (&Folder, Option<&Name>),
        id: ObjectId,
        row: &Row,
        found: &Found,
    ) -> Result<Option<ForeignWhy>, ReceiveError> {
        let judgement = judge(&row.indexed(), &found.stamp, self.clock);
        if judgement == Judgement::Other || found.kind != Some(row.entry.object().kind()) {
            return Ok(Some(ForeignWhy::Replaced));
        }
        if !self.touched.contains(&id) {
            return Ok(None);
        }
        if found.has_flags {
            return Ok(Some(ForeignWhy::Flags));
        }
        Ok(match judgement {
            Judgement::Other => Some(ForeignWhy::Replaced),
            // An equal stamp: what it may hide is found when content is read.
            Judgement::Same | Judgement::Unsure => None,
            Judgement::Changed | Judgement::Moved => {
                let is_same = self.is_as_indexed((folder, name), id, row, found)?;
                (!is_same).then_some(ForeignWhy::Changed)
            }
        })
    }

    /// Whether all that is kept of an object is what the index has, whatever its stamp says.
    fn is_as_indexed(
        &self,
        (folder, name): (&Folder, Option<&Name>),
        id: ObjectId,
        row: &Row,
        found: &Found,
    ) -> Result<bool, ReceiveError> {
        let (object, stamp) = (row.entry.object(), &found.stamp);
        let metadata = &object.metadata;
        let is_link = object.kind() == Kind::Symlink;
        let mode = self.left_out.mode(u16::try_from(stamp.mode & 0o7777).unwrap_or(0));
        let has_owner = self.left_out.owner(stamp.uid, stamp.gid) == (metadata.uid, metadata.gid);
        // Who adds an excluded file to a directory moves its time.
        let has_time = object.kind() == Kind::Directory || stamp.mtime == metadata.mtime;
        if !has_owner || !has_time || (!is_link && mode != metadata.mode) {
            return Ok(false);
        }
        let Some(name) = name else {
            return Ok(read_xattrs(folder, self.left_out).is_ok_and(|it| it == metadata.xattrs));
        };
        let Ok(held) = folder.object(name) else { return Ok(false) };
        if read_xattrs(&held, self.left_out).ok().as_ref() != Some(&metadata.xattrs) {
            return Ok(false);
        }
        Ok(match &object.body {
            Body::Regular { size, .. } => {
                *size == stamp.size && has_content(folder, name, (id, row), self.base.view())?
            }
            Body::Symlink { target } => folder.target(name).is_ok_and(|it| it == *target),
            Body::CharDevice { major, minor } | Body::BlockDevice { major, minor } => {
                stamp.rdev == (*major, *minor)
            }
            Body::Directory | Body::Fifo | Body::Socket => true,
        })
    }
}

/// Whether a file has the chunks that the index has.
fn has_content(
    folder: &Folder,
    name: &Name,
    (id, row): (ObjectId, &Row),
    view: &View,
) -> Result<bool, ReceiveError> {
    let Ok(file) = folder.file(name) else { return Ok(false) };
    let size = size_of(row.entry.object());
    for segment in 0..segment_count(size) {
        let first = segment * u64::from(SEGMENT_CHUNKS);
        for (chunk, hash) in (first..).zip(view.segment(id, number(segment))?.1) {
            let (start, len) = span_of(chunk, size);
            if read_verified(&file, start, len, &hash).is_none() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
