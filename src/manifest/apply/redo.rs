//! What is missing of an operation, given where its objects are.
//!
//! After a crash any of the renames since the last sync may be on disk, in any order, so an
//! operation cannot be judged by the ones before it. It is judged by its own objects alone: each is
//! looked for by its identity at the few places where this journal can have put it. What is at a
//! place and is neither of them is foreign and is never written over.

use super::super::{Identity, Metadata, Name};
use super::operation::{Direction, Exchange, Finish, Link, Move, Operation};
use super::place::Place;

/// What is at a place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// No such name.
    Nothing,
    /// This object.
    Object(Identity),
    /// The directory that the name should be in is at none of its places.
    NoDirectory,
}

/// How [`redo`] looks at a disk.
pub trait Sight {
    /// What is at `place`.
    fn at(&self, place: &Place) -> Seen;
    /// Any one entry of `directory`; `None` if it is empty or not found.
    fn inside(&self, directory: Identity) -> Option<Name>;
    /// Whether `directory` is at one of its places.
    fn has(&self, directory: Identity) -> bool;
}

/// One call of the kernel, or what comes close to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Rename; never over something (`RENAME_NOREPLACE`).
    Rename {
        /// The name that goes.
        from: Place,
        /// The name that comes.
        to: Place,
    },
    /// Both names exist, and lead to each other's objects afterwards (`RENAME_EXCHANGE`).
    Exchange {
        /// One name.
        from: Place,
        /// The other one.
        at: Place,
    },
    /// A further name.
    Link {
        /// The name that exists.
        existing: Place,
        /// The name that comes.
        slot: Place,
    },
    /// The chunks in `source` are written into the file, which gets the length that they say.
    Patch {
        /// The file.
        what: Identity,
        /// Where it is.
        at: Place,
        /// The chunks.
        source: Place,
    },
    /// Owner, extended attributes, mode and times, in this order: a change of the owner drops
    /// setuid and capabilities.
    Set {
        /// The file; whoever opens it looks whether it is this one.
        what: Identity,
        /// Where it is.
        at: Place,
        /// All of it.
        metadata: Metadata,
    },
    /// The same for a directory.
    Finish {
        /// The directory.
        directory: Identity,
        /// All of it.
        metadata: Metadata,
    },
}

impl Step {
    /// Whether the operation is complete with it. What cannot be seen from outside to be done is
    /// done again by each redo, and ends its operation.
    pub fn ends(&self) -> bool {
        match self {
            Self::Patch { .. } | Self::Set { .. } | Self::Finish { .. } => true,
            Self::Rename { .. } | Self::Exchange { .. } | Self::Link { .. } => false,
        }
    }
}

/// What is missing of an operation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Redo {
    /// Nothing.
    Done,
    /// This.
    Do(Step),
    /// Something is at this place that no journal put there. It goes to the quarantine, and
    /// the operation is looked at again.
    Foreign(Place),
    /// This object is at none of its places, and the target needs it.
    Damage(Identity),
}

/// What is missing of `operation`, of a journal that goes in `direction`.
pub fn redo(direction: Direction, operation: &Operation, sight: &impl Sight) -> Redo {
    match (operation, direction) {
        (Operation::Move(it), Direction::Forward | Direction::Back) => redo_move(it, sight),
        (Operation::Exchange(it), Direction::Forward | Direction::Back) => redo_exchange(it, sight),
        (Operation::Link(it), Direction::Forward) => redo_link(it, sight),
        (Operation::Empty { directory }, Direction::Forward) => redo_empty(*directory, sight),
        (Operation::Link(_) | Operation::Empty { .. }, Direction::Back) => Redo::Done,
        (Operation::Patch(it), Direction::Forward | Direction::Back) => {
            held(it.what, &it.at, sight, |at| Step::Patch {
                what: it.what,
                at,
                source: it.source.clone(),
            })
        }
        (Operation::Set(it), Direction::Forward | Direction::Back) => {
            held(it.what, &it.at, sight, |at| Step::Set {
                what: it.what,
                at,
                metadata: it.new.clone(),
            })
        }
        (Operation::Finish(it), Direction::Forward | Direction::Back) => redo_finish(it, sight),
    }
}

fn is_at(what: Identity, place: &Place, sight: &impl Sight) -> bool {
    sight.at(place) == Seen::Object(what)
}

fn is_at_any<'a>(
    what: Identity,
    places: impl IntoIterator<Item = &'a Place>,
    sight: &impl Sight,
) -> bool {
    places.into_iter().any(|place| is_at(what, place, sight))
}

/// A rename, unless something else is in the way.
fn rename(from: &Place, to: &Place, sight: &impl Sight) -> Redo {
    match sight.at(to) {
        Seen::Nothing => Redo::Do(Step::Rename { from: from.clone(), to: to.clone() }),
        Seen::Object(_) => Redo::Foreign(to.clone()),
        Seen::NoDirectory => match to.directory() {
            Some(directory) => Redo::Damage(directory),
            None => Redo::Do(Step::Rename { from: from.clone(), to: to.clone() }),
        },
    }
}

fn redo_move(it: &Move, sight: &impl Sight) -> Redo {
    let is_there = is_at_any(it.what, [&it.to].into_iter().chain(&it.after), sight);
    match (sight.at(&it.from), is_there) {
        // One rename would not leave both names: the stale one is no part of any generation.
        (Seen::Object(found), true) if found == it.what => Redo::Foreign(it.from.clone()),
        (_, true) => Redo::Done,
        (Seen::Object(found), false) if found == it.what => rename(&it.from, &it.to, sight),
        // The way back from an apply that had not made the further name yet. What is at `from`
        // can be what the base has there.
        (_, false) if matches!(it.to, Place::Link { .. }) => Redo::Done,
        (Seen::Object(_), false) if it.from.directory().is_some() => Redo::Foreign(it.from.clone()),
        // Somebody else removed what is to be removed. The target lacks nothing; the way back from
        // there will say what it lacks.
        (Seen::Nothing, false) if matches!(it.to, Place::Undo { .. }) => Redo::Done,
        (Seen::Nothing | Seen::Object(_) | Seen::NoDirectory, false) => Redo::Damage(it.what),
    }
}

fn redo_exchange(it: &Exchange, sight: &impl Sight) -> Redo {
    if is_at(it.new, &it.at, sight) {
        return if is_at(it.old, &it.from, sight) {
            rename(&it.from, &it.to, sight)
        } else {
            Redo::Done
        };
    }
    // It is at `to` where the other direction was left in the middle of the same exchange.
    let Some(from) = [&it.from, &it.to].into_iter().find(|place| is_at(it.new, place, sight))
    else {
        return Redo::Damage(it.new);
    };
    if is_at(it.old, &it.at, sight) {
        return Redo::Do(Step::Exchange { from: from.clone(), at: it.at.clone() });
    }
    rename(from, &it.at, sight)
}

fn redo_link(it: &Link, sight: &impl Sight) -> Redo {
    if is_at_any(it.what, [&it.slot, &it.after], sight) {
        return Redo::Done;
    }
    if sight.at(&it.slot) != Seen::Nothing {
        return Redo::Foreign(it.slot.clone());
    }
    if !is_at(it.what, &it.existing, sight) {
        return Redo::Damage(it.what);
    }
    Redo::Do(Step::Link { existing: it.existing.clone(), slot: it.slot.clone() })
}

fn redo_empty(directory: Identity, sight: &impl Sight) -> Redo {
    match sight.inside(directory) {
        Some(name) => Redo::Foreign(Place::Tree { directory, name }),
        None => Redo::Done,
    }
}

fn redo_finish(it: &Finish, sight: &impl Sight) -> Redo {
    match &it.new {
        None => Redo::Done,
        Some(_) if !sight.has(it.directory) => Redo::Damage(it.directory),
        Some((_, metadata)) => {
            Redo::Do(Step::Finish { directory: it.directory, metadata: metadata.clone() })
        }
    }
}

/// A step on an object that stays what it is, wherever it is.
fn held(
    what: Identity,
    places: &[Place],
    sight: &impl Sight,
    step: impl FnOnce(Place) -> Step,
) -> Redo {
    match places.iter().find(|place| is_at(what, place, sight)) {
        Some(at) => Redo::Do(step(at.clone())),
        None => Redo::Damage(what),
    }
}
