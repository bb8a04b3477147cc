//! Where directories are, of which a journal knows the identity.
//!
//! A driver that applies a plan at once holds a descriptor of each directory that the plan names,
//! opened before the first rename: a descriptor stays right whatever is renamed. After a start it
//! has none. Then a directory is found by the few places that the journal can have put it at,
//! beginning at the root and at the work area, of which descriptors are held: a name is looked at
//! only in a directory that was found before, by one call that resolves a single name without
//! following links, and what is there counts only if it has the right identity. Nothing is ever
//! walked by path, and nobody has to know which renames reached the disk.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Identity;
use super::operation::{Journal, Operation};
use super::place::Place;

/// Where each directory is.
pub type Whereabouts = BTreeMap<Identity, Place>;

/// Where the directories are that the operations of `journal` name. The root is held and not among
/// them. `look` gives the identity of what is at a place, whose directory is the root, or one that
/// it gave the identity of before.
///
/// A directory is in the answer after the one it is in was looked at; one that is missing there is
/// at none of its places.
pub fn locate(journal: &Journal, mut look: impl FnMut(&Place) -> Option<Identity>) -> Whereabouts {
    let mut by_parent: BTreeMap<Option<Identity>, BTreeSet<(Place, Identity)>> = BTreeMap::new();
    for (directory, place) in candidates(journal) {
        by_parent.entry(place.directory()).or_default().insert((place, directory));
    }
    let mut found = Whereabouts::new();
    let mut reached = vec![None, Some(journal.root)];
    while let Some(parent) = reached.pop() {
        for (place, directory) in by_parent.remove(&parent).into_iter().flatten() {
            if !found.contains_key(&directory) && look(&place) == Some(directory) {
                found.insert(directory, place);
                reached.push(Some(directory));
            }
        }
    }
    found
}

/// The directories that places of `operations` are in, and those that are operated on as such.
pub(super) fn directories_of<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
) -> BTreeSet<Identity> {
    let mut result = BTreeSet::new();
    for operation in operations {
        match operation {
            Operation::Empty { directory } => {
                result.insert(*directory);
            }
            Operation::Finish(it) => {
                result.insert(it.directory);
            }
            Operation::Move(_)
            | Operation::Exchange(_)
            | Operation::Link(_)
            | Operation::Patch(_)
            | Operation::Set(_) => {}
        }
        result.extend(places_of(operation).into_iter().filter_map(|(_, place)| place.directory()));
    }
    result
}

/// Each directory that is named or on the way to one, with each of its places.
fn candidates(journal: &Journal) -> Vec<(Identity, Place)> {
    let moving = journal.operations().flat_map(places_of);
    let mut result: Vec<(Identity, Place)> =
        moving.map(|(object, place)| (object, place.clone())).collect();
    let directories: BTreeSet<Identity> = directories_of(journal.operations())
        .into_iter()
        .chain(journal.anchors.iter().filter_map(|anchor| anchor.at.directory()))
        .collect();
    result.retain(|(object, _)| directories.contains(object));
    result.extend(journal.anchors.iter().map(|anchor| (anchor.directory, anchor.at.clone())));
    result
}

/// The objects of an operation, each with each place where it can be.
fn places_of(operation: &Operation) -> Vec<(Identity, &Place)> {
    match operation {
        Operation::Move(it) => {
            let places = [&it.from, &it.to].into_iter().chain(&it.before).chain(&it.after);
            places.map(|place| (it.what, place)).collect()
        }
        Operation::Exchange(it) => {
            let between = [&it.from, &it.at, &it.to];
            let new = between.into_iter().chain(&it.before).map(|place| (it.new, place));
            let old = between.into_iter().chain(&it.after).map(|place| (it.old, place));
            new.chain(old).collect()
        }
        Operation::Link(it) => {
            [&it.existing, &it.slot, &it.after].into_iter().map(|place| (it.what, place)).collect()
        }
        Operation::Patch(it) => it.at.iter().map(|place| (it.what, place)).collect(),
        Operation::Set(it) => it.at.iter().map(|place| (it.what, place)).collect(),
        Operation::Empty { .. } | Operation::Finish(_) => Vec::new(),
    }
}
