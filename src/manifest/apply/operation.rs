//! What an apply consists of: operations in phases, each with all places where its objects can be.
//!
//! Every object has its identity before the commit, because new ones are born in the work area. An
//! operation says which object goes where; `redo.rs` says what is missing of it. All are their own
//! inverse with old and new exchanged, which is why each one also holds what only the way back
//! needs.

use std::cmp::Reverse;

use super::super::{Identity, Metadata};
use super::place::{JournalNumber, Place};
use crate::units::{ObjectId, TreePosition};

/// The phases of an apply. Source: directory.md 9.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Phase {
    /// Objects that move leave the tree, deepest first: swaps, cycles and a parent that goes below
    /// its child are then like any other move.
    Park = 0,
    /// New directories, each with all that is new in it.
    Directories = 1,
    /// New, replaced and patched files, and whatever else is no directory.
    Files = 2,
    /// Parked objects go to their new names, parents first; then further names of objects.
    Links = 3,
    /// Metadata of files that stay the object they are.
    Metadata = 4,
    /// What the generation does not have goes to `undo/`, children first.
    Deletes = 5,
    /// Metadata of directories, bottom-up: nothing touches them afterwards.
    Finish = 6,
}

impl Phase {
    /// All of them, by their numbers.
    pub const ALL: [Self; 7] = [
        Self::Park,
        Self::Directories,
        Self::Files,
        Self::Links,
        Self::Metadata,
        Self::Deletes,
        Self::Finish,
    ];
}

/// Which way the phases go.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Direction {
    /// As planned.
    Forward = 1,
    /// The inverse of a plan: names go back in reverse order. Metadata is last both ways, because
    /// renames and patches change times.
    Back = 2,
}

impl Direction {
    /// The phases in the order in which they are carried out.
    pub fn phases(self) -> [Phase; 7] {
        match self {
            Self::Forward => Phase::ALL,
            Self::Back => [
                Phase::Deletes,
                Phase::Links,
                Phase::Files,
                Phase::Directories,
                Phase::Park,
                Phase::Metadata,
                Phase::Finish,
            ],
        }
    }

    /// The other one.
    #[must_use]
    pub fn reversed(self) -> Self {
        match self {
            Self::Forward => Self::Back,
            Self::Back => Self::Forward,
        }
    }
}

/// One object gets another name; nothing is ever replaced by it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Move {
    /// The object.
    pub what: Identity,
    /// Where it can have been before `from`, if an earlier operation of this journal brought it
    /// there.
    pub before: Vec<Place>,
    /// The name it loses.
    pub from: Place,
    /// The name it gets.
    pub to: Place,
    /// Where a later operation of this journal takes it from `to`: a name, and if that is exchanged
    /// the place where the object is in the middle of the exchange on the way back.
    pub after: Vec<Place>,
}

/// One object takes the name of another one, without an instant at which the name is absent.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Exchange {
    /// The object that gets the name.
    pub new: Identity,
    /// Where it was before `from`, if an earlier operation of this journal brought it there.
    pub before: Vec<Place>,
    /// Where it is taken from.
    pub from: Place,
    /// The name.
    pub at: Place,
    /// The object that loses the name.
    pub old: Identity,
    /// Where it is put. In between it is at `from`.
    pub to: Place,
    /// Where a later operation of this journal takes it from `to`.
    pub after: Vec<Place>,
}

/// A further name of an object is made in the work area, and goes from there into the tree.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Link {
    /// The object; never a directory.
    pub what: Identity,
    /// A name that it has by then.
    pub existing: Place,
    /// The further name.
    pub slot: Place,
    /// Where a later operation takes it.
    pub after: Place,
}

/// Chunks of a huge file are written over in place.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Patch {
    /// The file.
    pub what: Identity,
    /// Where it can be, one to four places.
    pub at: Vec<Place>,
    /// The staged chunks. They stay as long as the journal does.
    pub source: Place,
    /// The chunks before, which were saved when the generation was prepared.
    pub back: Place,
}

/// The metadata of a file is set.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Set {
    /// The file.
    pub what: Identity,
    /// Where it can be, one to four places.
    pub at: Vec<Place>,
    /// Before.
    pub old: Metadata,
    /// After.
    pub new: Metadata,
}

/// The metadata of a directory is set, after all of its entries are as they will be.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Finish {
    /// The directory.
    pub directory: Identity,
    /// Before, and how deep it was; `None` if the base does not have it.
    pub old: Option<(u16, Metadata)>,
    /// After, and how deep it is; `None` if the target does not have it: then there is nothing to
    /// do, but the way back needs `old`.
    pub new: Option<(u16, Metadata)>,
}

impl Finish {
    /// What comes first: the deeper one, by where directories are afterwards.
    pub(super) fn order(&self) -> (Reverse<Option<u16>>, Identity) {
        (Reverse(self.new.as_ref().map(|(depth, _)| *depth)), self.directory)
    }
}

/// One step of an apply.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Operation {
    /// An object gets another name.
    Move(Move),
    /// An object takes the name of another one.
    Exchange(Exchange),
    /// A further name is made. On the way back there is nothing to do: the name went back to its
    /// slot.
    Link(Link),
    /// Chunks are written over.
    Patch(Patch),
    /// Metadata of a file.
    Set(Set),
    /// A directory that goes holds nothing any journal put there: what is left in it is excluded or
    /// foreign, and goes to the quarantine. On the way back there is nothing to do.
    Empty {
        /// The directory.
        directory: Identity,
    },
    /// Metadata of a directory.
    Finish(Finish),
}

/// A directory that keeps its parent and its name throughout an apply, and is on the way to a place
/// that an operation names.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Anchor {
    /// The directory.
    pub directory: Identity,
    /// Always an entry of a directory of the tree.
    pub at: Place,
}

/// What an apply goes by, from the commit on: it is all that a node needs to get from the base to
/// the target, or back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Journal {
    /// Its number.
    pub number: JournalNumber,
    /// Which way the phases go.
    pub direction: Direction,
    /// What the tree was.
    pub base: TreePosition,
    /// What it becomes.
    pub target: TreePosition,
    /// The root of the tree.
    pub root: Identity,
    /// Directories that do not move but lead to some that are named, in rising order.
    pub anchors: Vec<Anchor>,
    /// The operations: one list per phase, to which a plan only ever appends.
    pub lists: [Vec<Operation>; 7],
}

impl Journal {
    /// The operations of one phase.
    pub fn list(&self, phase: Phase) -> &[Operation] {
        &self.lists[usize::from(phase as u8)]
    }

    /// All operations in the order in which they are carried out.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.direction.phases().into_iter().flat_map(|phase| self.list(phase))
    }
}

/// Why there is no plan. Each is a fault of the caller or of what the index says, not of the tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// A name leads to an object, or lies in a directory, of which nothing else is said.
    #[error("object {0} is named, but not described")]
    Undescribed(ObjectId),
    /// The base has it, but it was not found in the tree.
    #[error("object {0} has no known identity")]
    Unfound(ObjectId),
    /// The target needs it, but it was not born.
    #[error("object {0} is not staged")]
    Unstaged(ObjectId),
    /// An object never becomes one of another kind: it is another object then.
    #[error("object {0} changes its kind")]
    OtherKind(ObjectId),
    /// Its parents do not lead to the root.
    #[error("directory {0} does not lie below the root")]
    Adrift(ObjectId),
}
