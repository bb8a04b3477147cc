//! From what a tree is now to its next generation in the index.
//!
//! Events are hints, a look is the truth. A capture looks at what the hints name, or at everything, and
//! writes what it finds into the index in one transaction. Then it looks again at all of that, and at what
//! was said meanwhile: a pass that finds nothing new closes the generation. Between the first looks and
//! the second ones there is an instant at which the whole tree was what the index says.
//!
//! `walk.rs` goes through directories and compares them with the index, `read.rs` reads objects,
//! `report.rs` is what the capture says of itself, `skip.rs` what is no part of a generation.

mod read;
mod report;
mod skip;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::io::Errno;

pub use report::{Captured, Fuzzy, Skipped, SkippedWhy};
pub(super) use skip::{Named, judge_path, kept_kind};

use super::exclude::Exclude;
use super::folder::Folder;
use super::index::{Index, IndexError, Rows, Tables};
use super::observer::Observer;
use crate::manifest::{Deletes, Due, Guard, LeftOut, Name, Scope, TreeClock};
use crate::units::{FuzzyWhy, ObjectId, TreeNumber, TreePosition};

/// Passes after which a generation is closed as it is. Source: directory.md 1.
const PASSES_MAX: u32 = 3;
/// Up to so many names are synced one by one; beyond it the whole file system is. Source: directory.md 4.7.
const SYNCED_ALONE_MAX: usize = 64;

/// Why there is no generation.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The root cannot be read.
    #[error("the root of the tree cannot be read: {0}")]
    Root(Errno),
    /// A sync failed: the disk has failed, and what it says afterwards counts for nothing.
    #[error("a sync of the tree failed: {0}")]
    Sync(Errno),
    /// No file could be made in the work area, or its event did not come.
    #[error("the work area: {0}")]
    Cookie(Errno),
    /// A guard forbids it; the index is as it was.
    #[error("halted: {guard:?}")]
    Halted {
        /// What it says.
        guard: Guard,
    },
    /// Somebody asked for it.
    #[error("stopped")]
    Stopped,
}

/// How far a capture is, for whoever looks on; and how it is stopped.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries looked at.
    pub entries: AtomicU64,
    /// Bytes read.
    pub bytes: AtomicU64,
    /// It is to end as soon as it can, without a generation.
    pub stop: AtomicBool,
}

impl Progress {
    fn note(&self, entries: u64, bytes: u64) -> Result<(), CaptureError> {
        self.entries.fetch_add(entries, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if self.stop.load(Ordering::Relaxed) { Err(CaptureError::Stopped) } else { Ok(()) }
    }
}

/// Which tree is captured, and what of it.
pub struct Subject<'a> {
    /// Its root.
    pub root: &'a Folder,
    /// What both nodes agree on.
    pub scope: &'a Scope,
    /// `scope.exclude`, ready for use.
    pub exclude: &'a Exclude,
    /// `scope.leave_out`, ready for use.
    pub left_out: &'a LeftOut,
    /// Whether so many deletes may be sent.
    pub guard: &'a dyn Fn(Deletes) -> Guard,
}

/// Captures a generation: what `due` names, and whatever is said meanwhile. It is stable in the index
/// when this returns.
///
/// # Errors
/// [`CaptureError`]; the index is as it was, and all that was to be looked at is due again.
pub fn capture(
    index: &Index,
    subject: &Subject<'_>,
    observer: &mut Observer,
    mut due: Due,
    progress: &Progress,
) -> Result<Captured, CaptureError> {
    let mut failed = None;
    let changed = index.change(|tables| {
        let base = tables.position()?;
        let mut capture = Capture::new(subject, tables, base, progress);
        capture.run(observer, &mut due).map_err(|error| match error {
            CaptureError::Index(error) => error,
            other => {
                failed = Some(other);
                IndexError::Abandoned
            }
        })
    });
    match changed {
        Ok((captured, gone)) => {
            for directory in gone {
                observer.forget(directory);
            }
            observer.dealt_with();
            Ok(captured)
        }
        Err(error) => {
            // What was said meanwhile is in it, too: nobody else knows of that.
            observer.put_back(due);
            Err(failed.unwrap_or(CaptureError::Index(error)))
        }
    }
}

/// A capture on its way.
struct Capture<'c, 't> {
    subject: &'c Subject<'c>,
    tables: &'c mut Tables<'t>,
    base: TreePosition,
    number: TreeNumber,
    progress: &'c Progress,
    /// The mount of the root: what is in another one is not entered.
    mount: u64,
    /// What the file system called now when this pass began.
    clock: TreeClock,
    /// Whether all that changed before `clock` was synced since.
    is_synced: bool,
    /// Differences that this pass found.
    changes: u64,
    /// Where they were, as far as they fit a list of fuzzy entries.
    moving: Fuzzy,
    fuzzy: Fuzzy,
    skipped: Skipped,
    /// Names that objects lost.
    lost_names: BTreeMap<ObjectId, u64>,
    /// The first object that is new in this capture.
    first_new: Option<ObjectId>,
    unwatched: u64,
    /// Directories that were not found where the index has them.
    missing: BTreeSet<ObjectId>,
    buffer: Vec<u8>,
}

impl<'c, 't> Capture<'c, 't> {
    fn new(
        subject: &'c Subject<'c>,
        tables: &'c mut Tables<'t>,
        base: TreePosition,
        progress: &'c Progress,
    ) -> Self {
        Self {
            subject,
            tables,
            base,
            number: TreeNumber(base.number.0 + 1),
            progress,
            mount: 0,
            clock: TreeClock::default(),
            is_synced: false,
            changes: 0,
            moving: Fuzzy::default(),
            fuzzy: Fuzzy::default(),
            skipped: Skipped::default(),
            lost_names: BTreeMap::new(),
            first_new: None,
            unwatched: 0,
            missing: BTreeSet::new(),
            buffer: Vec::new(),
        }
    }

    /// All passes; also gives the directories that are gone.
    fn run(
        &mut self,
        observer: &mut Observer,
        due: &mut Due,
    ) -> Result<(Captured, Vec<ObjectId>), CaptureError> {
        self.mount = self.subject.root.look_at_self().map_err(CaptureError::Root)?.mount;
        let (mut is_closed, mut change_seen) = (false, false);
        for pass in 1..=PASSES_MAX {
            self.begin_pass(observer, due, pass, &mut is_closed)?;
            self.pass(due, observer)?;
            change_seen |= pass > 1 && self.changes > 0;
            is_closed &= self.changes == 0;
            if is_closed {
                break;
            }
        }
        if !is_closed {
            self.fuzzy.add(std::mem::take(&mut self.moving));
        }
        let (deleted, gone) = self.sweep()?;
        let is_pinned = self.judge_deletes(deleted)?;
        let root = self.tables.fold(self.subject.scope)?;
        let is_new = self.base.number == TreeNumber(0) || root != self.base.root;
        let position = if is_new { TreePosition { number: self.number, root } } else { self.base };
        self.tables.put_position(position)?;
        let captured = Captured {
            position,
            is_new,
            is_closed,
            change_seen,
            fuzzy: std::mem::take(&mut self.fuzzy),
            skipped: std::mem::take(&mut self.skipped),
            deleted,
            is_pinned,
            unwatched: self.unwatched,
            needs_scan: !self.missing.is_empty(),
        };
        Ok((captured, gone))
    }

    /// All that changed before now is in `due` and on its way to the disk. Whether this pass may be the
    /// last depends on what was said since the one before.
    fn begin_pass(
        &mut self,
        observer: &mut Observer,
        due: &mut Due,
        pass: u32,
        may_close: &mut bool,
    ) -> Result<(), CaptureError> {
        self.clock = observer.cookie().map_err(CaptureError::Cookie)?;
        let said = observer.take_all();
        *may_close = pass > 1 && said.is_empty();
        self.moving = Fuzzy::default();
        if pass == PASSES_MAX {
            // There is no pass after this one that could find that they hold still.
            self.moving.note_said(&said);
        }
        due.merge(said);
        let is_large =
            due.everything || !due.directories.is_empty() || due.names.len() > SYNCED_ALONE_MAX;
        if is_large {
            // What is read from here on has been written out, and a store into a page of it moves the
            // times of the file: none goes unseen.
            rustix::fs::syncfs(self.subject.root).map_err(CaptureError::Sync)?;
        }
        self.is_synced = is_large;
        self.changes = 0;
        self.fuzzy = Fuzzy::default();
        self.skipped = Skipped::default();
        self.unwatched = 0;
        self.missing.clear();
        Ok(())
    }

    /// An entry is not what the index has.
    fn changed(&mut self, directory: ObjectId, name: &Name) {
        self.changes += 1;
        self.moving.note(directory, name.clone(), FuzzyWhy::Skewed);
    }

    /// A directory itself is not what the index has, or not where.
    fn directory_changed(&mut self, id: ObjectId) -> Result<(), CaptureError> {
        self.changes += 1;
        match self.tables.places_of(id, 1)?.pop() {
            Some((above, name)) => self.moving.note(above, name, FuzzyWhy::Skewed),
            // The root has no name.
            None => self.moving.note_nameless(),
        }
        Ok(())
    }

    /// A number for a new object.
    fn new_object(&mut self) -> Result<ObjectId, CaptureError> {
        let id = self.tables.new_object()?;
        self.first_new.get_or_insert(id);
        Ok(id)
    }

    /// An object has a name less.
    fn lose_name(&mut self, id: ObjectId) {
        *self.lost_names.entry(id).or_default() += 1;
    }

    /// Objects without a name leave the index, and whatever is below them. Gives the number of names that
    /// went with them, and the directories among them.
    fn sweep(&mut self) -> Result<(u64, Vec<ObjectId>), CaptureError> {
        let (mut deleted, mut gone) = (0, Vec::new());
        while let Some((id, names)) = self.lost_names.pop_first() {
            let is_there = self.tables.object(id)?.is_some();
            if !is_there || !self.tables.places_of(id, 1)?.is_empty() {
                continue;
            }
            for (name, inner) in self.tables.entries(id, &[], usize::MAX)? {
                self.tables.remove_name(self.number, id, &name)?;
                self.lose_name(inner);
            }
            self.tables.drop_object(id)?;
            gone.push(id);
            if self.first_new.is_none_or(|first| id < first) {
                deleted += names;
            }
        }
        Ok((deleted, gone))
    }

    /// Whether the generation before is to be kept.
    fn judge_deletes(&self, count: u64) -> Result<bool, CaptureError> {
        let known = self.tables.name_count()? + count;
        match (self.subject.guard)(Deletes { count, known, accepted: None }) {
            Guard::Go => Ok(false),
            Guard::Pin => Ok(true),
            guard @ Guard::Halt { .. } => Err(CaptureError::Halted { guard }),
        }
    }
}
