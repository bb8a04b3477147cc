//! The way back from a generation, which is a journal like any other.
//!
//! Old and new change places in every operation, and the operations of a phase go in reverse order.
//! Nothing is copied: what the apply put into `undo/` goes back from there. An inverse also works
//! on a tree that is only half at its base, because [`redo`](super::redo()) looks where objects are.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::super::Identity;
use super::operation::{Exchange, Finish, Journal, Move, Operation, Patch, Phase, Set};
use super::place::{JournalNumber, Place, Slot};
use crate::units::TreePosition;

/// The journal that undoes `journal`, which may be carried out in part or in whole: back to its
/// base. New objects return to where they were staged, so that a second attempt finds them.
pub fn undo(journal: &Journal, number: JournalNumber) -> Journal {
    Journal {
        number,
        direction: journal.direction.reversed(),
        base: journal.target,
        target: journal.base,
        root: journal.root,
        anchors: journal.anchors.clone(),
        lists: Phase::ALL.map(|phase| inverse(phase, journal.list(phase))),
    }
}

/// The journal that takes a tree back from the target of `journal`, which was carried out in whole,
/// to what its base held; `target` is the new generation that holds it again. What the tree loses
/// goes to the folder of the new journal, so that of the old one is not needed afterwards.
pub fn rollback(journal: &Journal, number: JournalNumber, target: TreePosition) -> Journal {
    let mut result = Journal { target, ..undo(journal, number) };
    // Further names are there, and stay names when they leave the tree: they are never made again.
    let links = &mut result.lists[usize::from(Phase::Links as u8)];
    links.retain(|operation| !matches!(operation, Operation::Link(_)));
    let mut moved = BTreeMap::new();
    for to in result.lists.iter_mut().flatten().filter_map(destination) {
        match to {
            Place::Stage(_) | Place::Link { .. } | Place::Undo { .. } => {
                let slot = Slot(moved.len() as u64 + 1);
                let here = Place::Undo { journal: number, slot };
                moved.insert(std::mem::replace(to, here.clone()), here);
            }
            Place::Tree { .. } | Place::Park { .. } => {}
        }
    }
    for place in result.lists.iter_mut().flatten().flat_map(whereabouts) {
        if let Some(here) = moved.get(place) {
            *place = here.clone();
        }
    }
    result
}

/// Where an operation puts what loses its name.
fn destination(operation: &mut Operation) -> Option<&mut Place> {
    match operation {
        Operation::Move(it) => Some(&mut it.to),
        Operation::Exchange(it) => Some(&mut it.to),
        Operation::Link(_)
        | Operation::Patch(_)
        | Operation::Set(_)
        | Operation::Empty { .. }
        | Operation::Finish(_) => None,
    }
}

/// Where an operation looks for objects that others have moved.
fn whereabouts(operation: &mut Operation) -> Vec<&mut Place> {
    match operation {
        Operation::Move(it) => it.before.iter_mut().chain(&mut it.after).collect(),
        Operation::Exchange(it) => it.before.iter_mut().chain(&mut it.after).collect(),
        Operation::Patch(it) => it.at.iter_mut().collect(),
        Operation::Set(it) => it.at.iter_mut().collect(),
        Operation::Link(_) | Operation::Empty { .. } | Operation::Finish(_) => Vec::new(),
    }
}

/// The operations of one phase, inverted, in the order of the way back.
fn inverse(phase: Phase, list: &[Operation]) -> Vec<Operation> {
    let mut result: Vec<Operation> = list.iter().rev().map(inverse_of).collect();
    if phase == Phase::Finish {
        // Bottom-up again, but by where directories were.
        result.sort_by_key(order);
    }
    result
}

fn order(operation: &Operation) -> Option<(Reverse<Option<u16>>, Identity)> {
    match operation {
        Operation::Finish(it) => Some(it.order()),
        Operation::Move(_)
        | Operation::Exchange(_)
        | Operation::Link(_)
        | Operation::Patch(_)
        | Operation::Set(_)
        | Operation::Empty { .. } => None,
    }
}

fn inverse_of(operation: &Operation) -> Operation {
    match operation.clone() {
        Operation::Move(it) => Operation::Move(Move {
            what: it.what,
            before: it.after,
            from: it.to,
            to: it.from,
            after: it.before,
        }),
        Operation::Exchange(it) => Operation::Exchange(Exchange {
            new: it.old,
            before: it.after,
            from: it.to,
            at: it.at,
            old: it.new,
            to: it.from,
            after: it.before,
        }),
        Operation::Patch(it) => {
            Operation::Patch(Patch { source: it.back, back: it.source, what: it.what, at: it.at })
        }
        Operation::Set(it) => {
            Operation::Set(Set { old: it.new, new: it.old, what: it.what, at: it.at })
        }
        Operation::Finish(it) => {
            Operation::Finish(Finish { directory: it.directory, old: it.new, new: it.old })
        }
        it @ (Operation::Link(_) | Operation::Empty { .. }) => it,
    }
}
