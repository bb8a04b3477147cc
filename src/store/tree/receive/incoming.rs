//! The records of a delta, taken one by one.
//!
//! Each is judged before anything is kept of it. In memory are the objects and names that the delta tells
//! of, and where in the spool the chunks of each file are: hashes never.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use super::content::{Pieces, content_of};
use super::spool::{Records, Spool};
use super::whole::Reconciled;
use super::{Base, ReceiveError};
use crate::manifest::{
    self, Body, Check, Keep, Kind, LeaveOut, LeftOut, ManifestError, Name, Object, PATH_DEPTH_MAX,
    Record, TreePath, View as _,
};
use crate::units::{ObjectId, TreeNumber, TreePosition};

/// How much a delta may cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Objects and names.
    pub records: u64,
    /// Bytes of memory for them, about.
    pub memory: u64,
    /// Bytes of all records in the spool.
    pub spool: u64,
}

impl Default for Limits {
    /// Four million objects and names in 1 GiB; 32 GiB of records, which tell of 64 TiB of content.
    fn default() -> Self {
        Self { records: 4 << 20, memory: 1 << 30, spool: 32 << 30 }
    }
}

/// Bytes that an object takes in memory beside what grows, and a name: with their places in the maps.
const OBJECT_LEN: usize = 256;
const NAME_LEN: usize = 128;

/// An object of the delta.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) object: Object,
    /// Where in the spool the records of its chunks are.
    chunks: Range<u64>,
}

/// Takes a delta.
pub struct Incoming {
    check: Check<Arc<Base>>,
    left_out: LeftOut,
    memory_left: u64,
    /// How many more records may say nothing new.
    idle_left: u64,
    received: Received,
    /// The file whose chunks may follow.
    open: Option<ObjectId>,
    /// A file that is what it was: its chunks say nothing new.
    unchanged: Option<ObjectId>,
    /// It leads from a tree of which nobody has to know which generation it is.
    is_unordered: bool,
    /// What becomes of what only this node has, if it tells of all of a tree.
    pub(super) whole: Option<Keep>,
    pub(super) limits: Limits,
}

/// A whole delta that a tree can take, as far as records can say.
pub struct Received {
    base: Arc<Base>,
    target: TreePosition,
    objects: BTreeMap<ObjectId, Described>,
    /// `None` for a name that goes.
    names: BTreeMap<(ObjectId, Name), Option<ObjectId>>,
    spool: Spool,
    /// How it was made of all of a tree, if it was.
    pub(super) reconciled: Option<Reconciled>,
}

impl Incoming {
    /// Takes a delta to `base`. The records go to `spool`, a file of ours that can be read and written, and
    /// that is emptied.
    ///
    /// # Errors
    /// [`ReceiveError::Kernel`].
    pub fn new(
        base: Arc<Base>,
        left_out: LeftOut,
        limits: Limits,
        spool: File,
    ) -> Result<Self, ReceiveError> {
        Ok(Self::with(base, left_out, limits, Spool::new(spool, limits.spool)?))
    }

    /// Takes the records that an earlier run kept in `spool`, so that the index can follow a journal that
    /// was committed then.
    ///
    /// # Errors
    /// [`ReceiveError::Spool`] if they are damaged, else as [`Incoming::push`].
    pub fn again(
        base: Arc<Base>,
        left_out: LeftOut,
        limits: Limits,
        spool: File,
    ) -> Result<Self, ReceiveError> {
        let spool = Spool::of(spool)?;
        let mut records = Records::new(0..spool.len());
        let mut incoming = Self::with(base, left_out, limits, spool);
        loop {
            let start = records.at();
            match records.next(&incoming.received.spool)? {
                Some(record) => incoming.take(record, start..records.at())?,
                None => return Ok(incoming),
            }
        }
    }

    fn with(base: Arc<Base>, left_out: LeftOut, limits: Limits, spool: Spool) -> Self {
        let target = base.position();
        let received = Received {
            base: Arc::clone(&base),
            target,
            objects: BTreeMap::new(),
            names: BTreeMap::new(),
            spool,
            reconciled: None,
        };
        let check = Check::new(base, limits.records);
        let (memory_left, idle_left) = (limits.memory, limits.records);
        Self {
            check,
            left_out,
            memory_left,
            idle_left,
            received,
            open: None,
            unchanged: None,
            is_unordered: false,
            whole: None,
            limits,
        }
    }

    /// What it leads from and what it leads to have no order, so their numbers are not compared.
    pub(in crate::store::tree) fn unordered(self) -> Self {
        Self { is_unordered: true, ..self }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`ReceiveError::Manifest`], [`ReceiveError::LeftOut`], [`ReceiveError::TooLarge`]: the delta is
    /// refused. Else the index or the spool failed.
    pub fn push(&mut self, record: Record) -> Result<(), ReceiveError> {
        if self.is_idle(&record)? {
            let left = self.idle_left.checked_sub(1);
            self.idle_left = left.ok_or(ReceiveError::TooLarge { what: "records of no change" })?;
            return Ok(());
        }
        let span = self.received.spool.push(&record)?;
        self.take(record, span)
    }

    /// Takes whole records one behind the other.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_all(&mut self, mut records: &[u8]) -> Result<(), ReceiveError> {
        while !records.is_empty() {
            let (record, rest) = Record::decode(records)?;
            self.push(record)?;
            records = rest;
        }
        Ok(())
    }

    /// Whether a record says what the base is already. A source that knows only when something changed
    /// last tells of a name that came and went after the base, and of content that was changed and put
    /// back.
    fn is_idle(&mut self, record: &Record) -> Result<bool, ReceiveError> {
        let base = &self.received.base;
        let is_idle = match record {
            Record::Object { id, object } => {
                let old = manifest::View::object(&**base, *id);
                let is_same = old.is_some_and(|old| old.body == object.body);
                self.unchanged = is_same.then_some(*id);
                false
            }
            Record::Chunks { id, .. } | Record::Zeroes { id, .. } => self.unchanged == Some(*id),
            Record::Name { directory, name, id } => base.name(*directory, name) == Some(*id),
            Record::Gone { directory, name } => base.name(*directory, name).is_none(),
        };
        base.check()?;
        Ok(is_idle)
    }

    fn take(&mut self, record: Record, span: Range<u64>) -> Result<(), ReceiveError> {
        let checked = self.check.push(&record);
        // What cannot be looked up is no fault of the record.
        self.received.base.check()?;
        checked?;
        match record {
            Record::Object { id, object } => {
                self.close_file()?;
                self.take_object(id, object, span.end)?;
            }
            Record::Chunks { id, .. } | Record::Zeroes { id, .. } => {
                let described = self.received.objects.get_mut(&id);
                described.ok_or(ManifestError::ChunksOfOther { id })?.chunks.end = span.end;
            }
            Record::Name { directory, name, id } => self.take_name((directory, name), Some(id))?,
            Record::Gone { directory, name } => self.take_name((directory, name), None)?,
        }
        Ok(())
    }

    fn take_object(&mut self, id: ObjectId, object: Object, end: u64) -> Result<(), ReceiveError> {
        let is_device = matches!(object.kind(), Kind::CharDevice | Kind::BlockDevice);
        let has_device = is_device && self.left_out.0.contains(&LeaveOut::Devices);
        if has_device || !self.left_out.allows(&object.metadata) {
            return Err(ReceiveError::LeftOut { id });
        }
        let xattrs = object.metadata.xattrs.iter();
        let mut len: usize = xattrs.map(|(name, value)| name.len() + value.len() + 64).sum();
        match &object.body {
            Body::Symlink { target } => len += target.len(),
            Body::Regular { .. } => self.open = Some(id),
            Body::Directory
            | Body::Fifo
            | Body::Socket
            | Body::CharDevice { .. }
            | Body::BlockDevice { .. } => {}
        }
        self.spend(len + OBJECT_LEN)?;
        self.received.objects.insert(id, Described { object, chunks: end..end });
        Ok(())
    }

    fn take_name(
        &mut self,
        key: (ObjectId, Name),
        id: Option<ObjectId>,
    ) -> Result<(), ReceiveError> {
        self.close_file()?;
        self.spend(key.1.bytes().len() + NAME_LEN)?;
        self.received.names.insert(key, id);
        Ok(())
    }

    fn spend(&mut self, len: usize) -> Result<(), ReceiveError> {
        let left = self.memory_left.checked_sub(len as u64);
        self.memory_left = left.ok_or(ReceiveError::TooLarge { what: "bytes of objects" })?;
        Ok(())
    }

    /// All chunks of a file were told: they have to be those of its content.
    fn close_file(&mut self) -> Result<(), ReceiveError> {
        let Some(id) = self.open.take() else { return Ok(()) };
        let received = &self.received;
        if !received.has_new_content(id)? {
            return Ok(());
        }
        let Some(Body::Regular { size, content }) = received.body(id) else { return Ok(()) };
        let pieces = Pieces::new(received, id)?;
        let found = content_of(pieces, size, received.base.view(), &received.spool)?;
        if found != Some(content) {
            return Err(ManifestError::Content { id }.into());
        }
        Ok(())
    }

    /// The delta ends; it is said to lead from `from` to `to`. `is_excluded` says of a path that this node
    /// leaves it alone.
    ///
    /// # Errors
    /// As [`Incoming::push`], and [`ReceiveError::Position`].
    pub fn finish(
        mut self,
        (from, to): (TreePosition, TreePosition),
        is_excluded: impl Fn(&TreePath) -> bool,
    ) -> Result<Received, ReceiveError> {
        self.close_file()?;
        let mine = self.received.base.position();
        let is_later = to.number > mine.number || (self.is_unordered && to != mine);
        if from != mine || !is_later || to.number == TreeNumber(0) {
            return Err(ReceiveError::Position { from, to, mine });
        }
        let checked = self.check.finish();
        self.received.base.check()?;
        checked?;
        let mut received = self.received;
        received.spool.flush()?;
        received.target = to;
        received.check_excluded(is_excluded)?;
        Ok(received)
    }
}

impl Received {
    /// The index that it is for.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Where it leads to.
    pub fn target(&self) -> TreePosition {
        self.target
    }

    /// How it was made, if it was made of all of a tree.
    pub fn reconciled(&self) -> Option<&Reconciled> {
        self.reconciled.as_ref()
    }

    /// Objects and names that it tells of.
    pub fn count(&self) -> usize {
        self.objects.len() + self.names.len()
    }

    /// Makes the records stable, so that [`Incoming::again`] finds them after any crash.
    ///
    /// # Errors
    /// [`ReceiveError::Kernel`]; it is final.
    pub fn sync(&self) -> Result<(), ReceiveError> {
        self.spool.sync()
    }

    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub(super) fn objects(&self) -> &BTreeMap<ObjectId, Described> {
        &self.objects
    }

    pub(super) fn names(&self) -> &BTreeMap<(ObjectId, Name), Option<ObjectId>> {
        &self.names
    }

    /// An object as the target has it, if it has it.
    pub(super) fn object(&self, id: ObjectId) -> Result<Option<Object>, ReceiveError> {
        if let Some(described) = self.objects.get(&id) {
            return Ok(Some(described.object.clone()));
        }
        self.base_object(id)
    }

    pub(super) fn base_object(&self, id: ObjectId) -> Result<Option<Object>, ReceiveError> {
        let object = manifest::View::object(&*self.base, id);
        self.base.check()?;
        Ok(object)
    }

    fn body(&self, id: ObjectId) -> Option<Body> {
        self.objects.get(&id).map(|described| described.object.body.clone())
    }

    /// Whether it is a regular file of the delta with another content than in the base.
    pub(super) fn has_new_content(&self, id: ObjectId) -> Result<bool, ReceiveError> {
        let Some(body @ Body::Regular { .. }) = self.body(id) else { return Ok(false) };
        Ok(self.base_object(id)?.is_none_or(|old| old.body != body))
    }

    /// Files with new content, in rising order: all of it comes together in `stage/`.
    pub(super) fn files(&self) -> Result<Vec<ObjectId>, ReceiveError> {
        let mut files = Vec::new();
        for id in self.objects.keys() {
            if self.has_new_content(*id)? {
                files.push(*id);
            }
        }
        Ok(files)
    }

    /// Length of a file of the delta; zero of what is none.
    pub(super) fn size(&self, id: ObjectId) -> u64 {
        self.objects.get(&id).map_or(0, |described| size_of(&described.object))
    }

    /// Length of a file in the base; zero of what is none there.
    pub(super) fn base_size(&self, id: ObjectId) -> Result<u64, ReceiveError> {
        Ok(self.base_object(id)?.map_or(0, |object| size_of(&object)))
    }

    pub(super) fn chunks_of(&self, id: ObjectId) -> Range<u64> {
        self.objects.get(&id).map_or(0..0, |described| described.chunks.clone())
    }

    /// Where a directory stands in the target, if the delta moves it or it is there already.
    fn place(
        &self,
        moved: &BTreeMap<ObjectId, (ObjectId, &Name)>,
        id: ObjectId,
    ) -> Result<Option<(ObjectId, Name)>, ReceiveError> {
        if let Some((directory, name)) = moved.get(&id) {
            return Ok(Some((*directory, (*name).clone())));
        }
        let place = self.base.place(id);
        self.base.check()?;
        Ok(place)
    }

    fn check_excluded(&self, is_excluded: impl Fn(&TreePath) -> bool) -> Result<(), ReceiveError> {
        let told =
            self.names.iter().filter_map(|((up, name), id)| Some((*id.as_ref()?, (*up, name))));
        let moved: BTreeMap<ObjectId, (ObjectId, &Name)> = told.collect();
        let mut above: (Option<ObjectId>, Vec<Name>) = (None, Vec::new());
        for ((directory, name), id) in &self.names {
            let Some(id) = id else { continue };
            if above.0 != Some(*directory) {
                above = (Some(*directory), self.way(&moved, *directory)?);
            }
            let path = TreePath::of(above.1.iter().chain([name])).map_err(ManifestError::from)?;
            if is_excluded(&path) {
                return Err(ReceiveError::LeftOut { id: *id });
            }
        }
        Ok(())
    }

    /// The names that lead to a directory of the target.
    fn way(
        &self,
        moved: &BTreeMap<ObjectId, (ObjectId, &Name)>,
        directory: ObjectId,
    ) -> Result<Vec<Name>, ReceiveError> {
        let mut names = Vec::new();
        let mut at = directory;
        while at != ObjectId::ROOT {
            let place = self.place(moved, at)?;
            let (up, name) = place.ok_or(ManifestError::Parent { directory: at })?;
            names.push(name);
            if names.len() > PATH_DEPTH_MAX {
                return Err(ManifestError::Cycle { id: directory }.into());
            }
            at = up;
        }
        names.reverse();
        Ok(names)
    }
}

/// Length of a regular file; zero of anything else.
pub(super) fn size_of(object: &Object) -> u64 {
    match object.body {
        Body::Regular { size, .. } => size,
        Body::Directory
        | Body::Symlink { .. }
        | Body::Fifo
        | Body::Socket
        | Body::CharDevice { .. }
        | Body::BlockDevice { .. } => 0,
    }
}
