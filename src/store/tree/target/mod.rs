//! The tree of a secondary: takes generations, one after the other, and is each of them in turn.
//!
//! A generation is received, staged and planned without a change to the tree. From the commit on the tree
//! goes to it, across any crash; then the index follows. The records of a delta stay in the state folder
//! until then, because a start goes on with a commit and has nothing else to write the index from.
//!
//! Where the index is not what the tree is, nobody knows which generation that is: `reconcile.rs` leads on from
//! there. `follow.rs` brings the index along. Here `keep.rs` says which earlier generations are kept,
//! `roll_back.rs` leads to one of them, `foreign.rs` finds what somebody else has written, `space.rs` asks for
//! room, `usage.rs` says what all of that takes.

mod foreign;
mod keep;
mod roll_back;
mod space;
mod usage;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat2};
use rustix::io::Errno;

use tracing::warn;

use super::apply::{
    Applier, ApplyError, Folders, IndexFailure, Moment, Outcome, REGISTER_LEN, Records, RecordsFile,
};
use super::capture::CaptureError;
use super::exclude::Exclude;
use super::folder::{BENEATH, Folder, os};
use super::follow::IndexSite;
use super::index::{Index, IndexError, Rows};
use super::kept::KeptError;
use super::receive::{
    Base, ForeignWhy, Incoming, Limits, Prepare, Prepared, ReceiveError, Received, Rest, Sides,
    Staging,
};
pub use keep::{KeptGeneration, Pruned};
pub use space::UNKNOWN_BYTES;
pub use usage::Quarantined;

use crate::manifest::apply::JournalNumber;
use crate::manifest::{LeftOut, Name, Scope, TreePath};
use crate::units::{ObjectId, TreeNumber, TreePosition};

/// Name of the file in the state folder that keeps the records of the newest delta.
pub(super) const DELTA_FILE: &str = "tree.delta";

/// Why a secondary cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The disk, or what is on it.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The delta, or what it needs of this node.
    #[error(transparent)]
    Receive(Box<ReceiveError>),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Nobody knows which generation the tree is: only records of all of a tree lead on from there.
    #[error("nobody knows which generation the tree is")]
    Unknown,
    /// Nobody has looked at the tree whose generation is not known.
    #[error("the tree was not surveyed")]
    NotSurveyed,
    /// The look at it failed.
    #[error(transparent)]
    Survey(#[from] CaptureError),
    /// What is kept of earlier generations.
    #[error(transparent)]
    Kept(#[from] KeptError),
    /// No such generation is kept.
    #[error("tree generation {0} is not kept")]
    NotKept(TreeNumber),
    /// Content of an earlier generation cannot be found.
    #[error("chunk {chunk} of object {object}, as it was then, is held nowhere")]
    NotHeld {
        /// Which file.
        object: ObjectId,
        /// Which of its chunks.
        chunk: u64,
    },
    /// The tree is on its way to another generation.
    #[error("what was committed is not applied yet")]
    UnderWay,
    /// The kernel refused.
    #[error("the state folder: {0}")]
    State(Errno),
}

impl From<ReceiveError> for TargetError {
    fn from(error: ReceiveError) -> Self {
        Self::Receive(Box::new(error))
    }
}

/// What both nodes agree on, ready for use.
#[derive(Debug)]
pub struct Agreement {
    /// All of it, as it goes into the root.
    pub scope: Scope,
    /// `scope.exclude`.
    pub exclude: Exclude,
    /// `scope.leave_out`.
    pub left_out: LeftOut,
}

/// What the index is worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Knowledge {
    /// It is the generation that the records have.
    Known,
    /// It is what the tree was when it was surveyed, since the start.
    Surveyed,
    /// Nothing.
    None,
}

/// A secondary's tree with all that belongs to it.
pub struct Target {
    pub(super) applier: Applier,
    pub(super) index: Arc<Index>,
    pub(super) agreement: Agreement,
    pub(super) state: Folder,
    pub(super) knowledge: Knowledge,
    /// What the folders of journals in `undo/` take, in bytes.
    held: RefCell<BTreeMap<JournalNumber, u64>>,
    /// What a look for foreign writes has left for the next one.
    uncompared: Rest,
}

impl Target {
    /// Opens the tree, and brings it to rest: what was committed is carried out first. Gives what that was.
    /// If the index is not what the tree is by then, [`Target::is_known`] says so, and nothing else is changed.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn open(
        folders: Folders,
        index: Index,
        agreement: Agreement,
        moment: Moment,
    ) -> Result<(Self, Outcome), TargetError> {
        let state = folders.state.again().map_err(TargetError::State)?;
        let records = match RecordsFile::open(&state)? {
            Some(records) => records,
            None => RecordsFile::make(&state, &Records::default())?,
        };
        let applier = Applier::new(folders, records, agreement.left_out.clone());
        let (index, knowledge) = (Arc::new(index), Knowledge::None);
        let (held, uncompared) = (RefCell::default(), Rest::default());
        let mut target = Self { applier, index, agreement, state, knowledge, held, uncompared };
        let outcome = target.apply_received(None, moment)?;
        target.remove_leftovers()?;
        target.note_knowledge()?;
        Ok((target, outcome))
    }

    /// The generation that the tree is at rest, as a peer may build on it; zero if that is not known.
    pub fn position(&self) -> TreePosition {
        match self.knowledge {
            Knowledge::Known => self.applier.records().applied.position,
            Knowledge::Surveyed | Knowledge::None => TreePosition::default(),
        }
    }

    /// Whether the index is the generation that the tree is, or both are empty. If not, only the records of all
    /// of a tree lead on: [`Target::survey`], then [`Target::begin_whole`].
    pub fn is_known(&self) -> bool {
        self.knowledge == Knowledge::Known
    }

    /// What carries journals out.
    pub fn applier(&self) -> &Applier {
        &self.applier
    }

    /// The same, to limit or to prune it.
    pub fn applier_mut(&mut self) -> &mut Applier {
        &mut self.applier
    }

    /// The index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Begins to take a delta to the generation that the tree is. What was kept of an earlier one is gone.
    ///
    /// # Errors
    /// [`TargetError::Unknown`] if that is not known, else what failed.
    pub fn begin(&self, limits: Limits) -> Result<Incoming, TargetError> {
        if !self.is_known() {
            return Err(TargetError::Unknown);
        }
        let base = Arc::new(Base::new(self.index.view()?)?);
        let left_out = self.agreement.left_out.clone();
        Ok(Incoming::new(base, left_out, limits, self.delta_file()?)?)
    }

    /// The delta ends; it leads to `to`.
    ///
    /// # Errors
    /// [`TargetError::Receive`].
    pub fn end(&self, incoming: Incoming, to: TreePosition) -> Result<Received, TargetError> {
        if incoming.keep().is_some() {
            return self.end_whole(incoming, to);
        }
        Ok(incoming.finish((self.position(), to), |path| self.is_excluded(path))?)
    }

    /// Begins to stage what was received.
    ///
    /// # Errors
    /// [`TargetError`]; [`ReceiveError::NoRoom`] before anything is staged. [`TargetError::missing_bytes`] says
    /// whether it is for want of room.
    pub fn stage(&self, received: Received) -> Result<Staging<'_>, TargetError> {
        self.check_room(&received)?;
        let kept: BTreeSet<JournalNumber> = self.applier.kept()?.into_iter().collect();
        Ok(Staging::new(received, self.site(), &kept)?)
    }

    /// Plans what is staged.
    ///
    /// # Errors
    /// [`TargetError::Receive`]; what is staged stays.
    pub fn prepare<'t>(&'t self, staging: Staging<'t>) -> Result<Prepare<'t>, TargetError> {
        let number = self.applier.next_number()?;
        let clock = self.applier.work().clock().map_err(TargetError::State)?;
        let made = staging.received().reconciled().map(|it| Arc::clone(&it.index));
        let index = made.as_ref().unwrap_or(&self.index);
        let mut prepare = staging.prepare(index, &self.agreement.scope, number, &clock)?;
        if let Prepare::Foreign(_, found) = &mut prepare
            && self.knowledge == Knowledge::Surveyed
        {
            // The survey did not see it, and no later one will.
            for unseen in found.iter_mut().filter(|it| it.why == ForeignWhy::Occupied) {
                unseen.why = ForeignWhy::InTheWay;
            }
        }
        Ok(prepare)
    }

    /// Makes what is prepared, and all that it needs, stable, so that little is left for the commit.
    ///
    /// # Errors
    /// [`TargetError`]; if the disk did not fail, nothing has changed.
    pub fn make_ready(&mut self, prepared: &Prepared) -> Result<(), TargetError> {
        // A start that finds the commit record finds the records that the index is written from.
        prepared.received.sync()?;
        self.commit_whole(prepared)?;
        self.write_kept(prepared)?;
        Ok(self.applier.make_ready(&prepared.journal)?)
    }

    /// Somebody may have written to the tree, so nobody knows what it is.
    pub fn doubt(&mut self) {
        self.knowledge = Knowledge::None;
    }

    /// What both nodes agree on.
    pub fn agreement(&self) -> &Agreement {
        &self.agreement
    }

    /// From here on the tree goes to the generation that was prepared. `register` is stable with that.
    ///
    /// # Errors
    /// [`TargetError`]; if the disk did not fail, nothing was committed.
    pub fn commit(
        &mut self,
        prepared: &Prepared,
        register: &[u8; REGISTER_LEN],
    ) -> Result<(), TargetError> {
        if !self.applier.is_ready(prepared.journal.number) {
            self.make_ready(prepared)?;
        }
        Ok(self.applier.commit(&prepared.journal, register)?)
    }

    /// Brings the tree to what was committed, and the index with it.
    ///
    /// # Errors
    /// [`TargetError`]; the next start goes on, unless it says that the tree is damaged.
    pub fn apply(&mut self, prepared: Prepared, moment: Moment) -> Result<Outcome, TargetError> {
        let outcome = self.apply_received(Some((prepared.received, prepared.sides)), moment)?;
        self.note_knowledge()?;
        Ok(outcome)
    }

    /// Brings to the quarantine what a generation took from this node for good, if that is not all there.
    /// Gives how much that was. [`Target::open`] and [`Target::apply`] do it, too, but go on where there is no
    /// space for it: then it waits.
    ///
    /// # Errors
    /// [`TargetError::Apply`].
    pub fn bring_displaced(&mut self, moment: Moment) -> Result<u64, TargetError> {
        Ok(self.applier.bring_displaced(moment)?)
    }

    /// `received` is what the newest journal was made from; a start reads it from its file.
    fn apply_received(
        &mut self,
        received: Option<(Received, Sides)>,
        moment: Moment,
    ) -> Result<Outcome, TargetError> {
        let Self { applier, index, agreement, state, .. } = self;
        let root = applier.root().again().map_err(TargetError::State)?;
        let clock = applier.work().clock().map_err(TargetError::State)?;
        let mut site = IndexSite { root, clock, index, agreement, state };
        let mut received = received;
        let outcome = applier.apply(moment, &mut |journal| {
            site.follow(journal, &mut received).map_err(|error| Box::new(error) as IndexFailure)
        })?;
        match applier.bring_displaced(moment) {
            Ok(_) => {}
            // The tree is what it should be, and what waits in `undo/` is lost to nobody.
            Err(error @ (ApplyError::NoSpace { .. } | ApplyError::Refused { .. })) => {
                warn!(error = %error, "what was displaced waits for the quarantine");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(outcome)
    }

    /// Compares the index with the records.
    pub(super) fn note_knowledge(&mut self) -> Result<(), TargetError> {
        let (mine, tree) =
            (self.index.view()?.position()?, self.applier.records().applied.position);
        let is_known = mine == tree && (tree.number > TreeNumber(0) || self.is_empty()?);
        if !is_known {
            warn!(index = mine.number.0, tree = tree.number.0, "nobody knows what the tree is");
        }
        self.knowledge = if is_known { Knowledge::Known } else { Knowledge::None };
        Ok(())
    }

    /// Whether nothing is in the tree that would be looked at.
    fn is_empty(&self) -> Result<bool, TargetError> {
        let listing = self.applier.root().list().map_err(TargetError::State)?;
        let is_kept =
            |name: &Name| !name.is_reserved_at_top() && !self.agreement.exclude.matches(&[], name);
        Ok(listing.too_long == 0 && !listing.names.iter().any(is_kept))
    }

    pub(super) fn is_excluded(&self, path: &TreePath) -> bool {
        is_excluded(&self.agreement.exclude, path)
    }

    pub(super) fn delta_file(&self) -> Result<File, TargetError> {
        file_in(&self.state, DELTA_FILE).map_err(TargetError::State)
    }
}

/// Whether a path, or one of a directory above it, is left alone.
pub(super) fn is_excluded(exclude: &Exclude, path: &TreePath) -> bool {
    let bytes = path.bytes();
    let cuts = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    cuts.chain([bytes.len()]).any(|end| {
        let part = &bytes[..end];
        let slash = part.iter().rposition(|byte| *byte == b'/');
        let (above, name) = match slash {
            Some(at) => (&part[..at], &part[at + 1..]),
            None => (&[][..], part),
        };
        Name::new(name).is_ok_and(|name| exclude.matches(above, &name))
    })
}

/// A file of ours in the state folder, made if it is missing.
pub(super) fn file_in(state: &Folder, name: &str) -> Result<File, Errno> {
    let name = Name::new(name.as_bytes()).expect("a word is a name");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(state, os(&name), flags, Mode::RUSR | Mode::WUSR, BENEATH).map(File::from)
}
