//! The tree of a secondary: takes generations, one after the other, and is each of them in turn.
//!
//! A generation is received, staged and planned without a change to the tree. From the commit on the tree
//! goes to it, across any crash; then the index follows. The records of a delta stay in the state folder
//! until then, because a start goes on with a commit and has nothing else to write the index from.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat2};
use rustix::io::Errno;

use super::apply::{
    Applier, ApplyError, Folders, IndexFailure, Moment, Outcome, REGISTER_LEN, Records, RecordsFile,
};
use super::exclude::Exclude;
use super::folder::{BENEATH, Folder, os};
use super::index::{Index, IndexError, Rows};
use super::receive::{
    Base, Incoming, Limits, Prepare, Prepared, ReceiveError, Received, Sides, Site, Staging,
    look_again, write_index,
};
use crate::manifest::apply::{Direction, Journal, JournalNumber};
use crate::manifest::{LeftOut, Name, Scope, TreeClock, TreePath};
use crate::units::TreePosition;

/// Name of the file in the state folder that keeps the records of the newest delta.
const DELTA_FILE: &str = "tree.delta";

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
    /// The index is neither what the tree was nor what it becomes: it has to be made anew from the tree.
    #[error("the index of the tree is at generation {index}, the tree at {tree}",
        index = index.number, tree = tree.number)]
    IndexLost {
        /// What the index says.
        index: TreePosition,
        /// What the records say.
        tree: TreePosition,
    },
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

/// A secondary's tree with all that belongs to it.
pub struct Target {
    applier: Applier,
    index: Index,
    agreement: Agreement,
    state: Folder,
}

impl Target {
    /// Opens the tree, and brings it to rest: what was committed is carried out first. Gives what that was.
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
        let mut target = Self { applier, index, agreement, state };
        let outcome = target.apply_received(None, moment)?;
        let (mine, tree) = (target.index.view()?.position()?, target.position());
        if mine != tree {
            return Err(TargetError::IndexLost { index: mine, tree });
        }
        Ok((target, outcome))
    }

    /// The generation that the tree is, at rest.
    pub fn position(&self) -> TreePosition {
        self.applier.records().applied.position
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
    /// [`TargetError`].
    pub fn begin(&self, limits: Limits) -> Result<Incoming, TargetError> {
        let base = Arc::new(Base::new(self.index.view()?)?);
        let left_out = self.agreement.left_out.clone();
        Ok(Incoming::new(base, left_out, limits, self.delta_file()?)?)
    }

    /// The delta ends; it leads to `to`.
    ///
    /// # Errors
    /// [`TargetError::Receive`].
    pub fn end(&self, incoming: Incoming, to: TreePosition) -> Result<Received, TargetError> {
        Ok(incoming.finish((self.position(), to), |path| self.is_excluded(path))?)
    }

    /// Begins to stage what was received.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn stage(&self, received: Received) -> Result<Staging<'_>, TargetError> {
        let kept: BTreeSet<JournalNumber> = self.applier.kept()?.into_iter().collect();
        let site = Site {
            tree: self.applier.root(),
            work: self.applier.work(),
            left_out: &self.agreement.left_out,
        };
        Ok(Staging::new(received, site, &kept)?)
    }

    /// Plans what is staged.
    ///
    /// # Errors
    /// [`TargetError::Receive`]; what is staged stays.
    pub fn prepare<'t>(&'t self, staging: Staging<'t>) -> Result<Prepare<'t>, TargetError> {
        let number = self.applier.next_number()?;
        let clock = self.applier.work().clock().map_err(TargetError::State)?;
        Ok(staging.prepare(&self.index, &self.agreement.scope, number, &clock)?)
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
        // A start that finds the commit record finds the records that the index is written from.
        prepared.received.sync()?;
        Ok(self.applier.commit(&prepared.journal, register)?)
    }

    /// Brings the tree to what was committed, and the index with it.
    ///
    /// # Errors
    /// [`TargetError`]; the next start goes on, unless it says that the tree is damaged.
    pub fn apply(&mut self, prepared: Prepared, moment: Moment) -> Result<Outcome, TargetError> {
        self.apply_received(Some((prepared.received, prepared.sides)), moment)
    }

    /// `received` is what the newest journal was made from; a start reads it from its file.
    fn apply_received(
        &mut self,
        received: Option<(Received, Sides)>,
        moment: Moment,
    ) -> Result<Outcome, TargetError> {
        let Self { applier, index, agreement, state } = self;
        let root = applier.root().again().map_err(TargetError::State)?;
        let clock = applier.work().clock().map_err(TargetError::State)?;
        let site = IndexSite { root, clock, index, agreement, state };
        let mut received = received;
        let outcome = applier.apply(moment, &mut |journal| {
            site.follow(journal, &mut received).map_err(|error| Box::new(error) as IndexFailure)
        })?;
        Ok(outcome)
    }

    fn is_excluded(&self, path: &TreePath) -> bool {
        is_excluded(&self.agreement.exclude, path)
    }

    fn delta_file(&self) -> Result<File, TargetError> {
        delta_file(&self.state).map_err(TargetError::State)
    }
}

/// What brings the index to where a journal has brought the tree.
struct IndexSite<'t> {
    root: Folder,
    clock: TreeClock,
    index: &'t Index,
    agreement: &'t Agreement,
    state: &'t Folder,
}

impl IndexSite<'_> {
    fn follow(
        &self,
        journal: &Journal,
        received: &mut Option<(Received, Sides)>,
    ) -> Result<(), TargetError> {
        let mine = self.index.view()?.position()?;
        if mine == journal.target {
            // It followed before the apply was cut; or the tree went back to where the index is.
            return Ok(());
        }
        // What led to the target of a way back is not kept.
        if mine != journal.base || journal.direction == Direction::Back {
            return Err(TargetError::IndexLost { index: mine, tree: journal.base });
        }
        let (received, sides) = match received.take() {
            Some(received) => received,
            None => self.again(journal)?,
        };
        let looks = look_again(&self.root, &sides.target, &self.clock)?;
        Ok(write_index(self.index, &self.agreement.scope, &received, &looks)?)
    }

    /// Takes the records of the delta from where they were kept.
    fn again(&self, journal: &Journal) -> Result<(Received, Sides), TargetError> {
        let base = Arc::new(Base::new(self.index.view()?)?);
        let left_out = self.agreement.left_out.clone();
        let spool = delta_file(self.state).map_err(TargetError::State)?;
        let incoming = Incoming::again(base, left_out, Limits::default(), spool)?;
        let ends = (journal.base, journal.target);
        let exclude = &self.agreement.exclude;
        let received = incoming.finish(ends, |path| is_excluded(exclude, path))?;
        let sides = Sides::of(&received)?;
        Ok((received, sides))
    }
}

fn is_excluded(exclude: &Exclude, path: &TreePath) -> bool {
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

fn delta_file(state: &Folder) -> Result<File, Errno> {
    let name = Name::new(DELTA_FILE.as_bytes()).expect("a word is a name");
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(state, os(&name), flags, Mode::RUSR | Mode::WUSR, BENEATH).map(File::from)
}
