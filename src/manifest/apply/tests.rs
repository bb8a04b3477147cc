//! Every small change of a tree, applied, undone, and cut by every crash.

use proptest::prelude::*;

use super::super::{Identity, Kind, Name, Object};
use super::fate::{Change, Side, Turn, turn_of};
use super::inverse::{rollback, undo};
use super::journal::{decode, encode};
use super::model::{Disk, State, view_of};
use super::operation::{Journal, Operation};
use super::place::{JournalNumber, Place};
use super::small::{D, E, Ended, F, G, L, Node, carry_out, name, object, position, tree, trees};
use crate::units::ObjectId;

const ROOT: ObjectId = ObjectId::ROOT;
/// Entries of the trees of which every pair is tried.
const ENTRIES: [(ObjectId, &str); 4] = [(ROOT, "x"), (ROOT, "y"), (D, "x"), (E, "x")];
/// The same with every crash.
const FEW_ENTRIES: [(ObjectId, &str); 3] = [(ROOT, "x"), (ROOT, "y"), (D, "x")];
/// Entries of the trees that are drawn.
const MANY_ENTRIES: [(ObjectId, &str); 8] =
    [(ROOT, "x"), (ROOT, "y"), (ROOT, "z"), (D, "x"), (D, "y"), (E, "x"), (E, "y"), (E, "z")];

fn applied(node: &Node, target: &Side, patched: &[ObjectId]) -> (Node, Change, Journal) {
    let mut node = node.clone();
    let (change, journal) = node.prepare(target, 1, patched);
    (node, change, journal)
}

/// Nothing loses its last name, and no name is lost.
fn check_kept(before: &State, after: &State) {
    assert!(after.name_count() >= before.name_count());
    assert!(before.named().is_subset(&after.named()));
}

/// Applies and undoes, with all that must hold on the way.
fn check_apply(node: &Node, target: &Side, patched: &[ObjectId]) {
    let (mut node, change, journal) = applied(node, target, patched);
    let before = node.disk.now.clone();
    let lasting = lasting_files(&change);
    let root = node.disk.root;
    let ended = carry_out(&mut node.disk, &journal, usize::MAX, |disk| {
        check_readers(&change, &lasting, disk);
    });
    assert_eq!(ended, Ended::Whole, "{change:?}");
    assert_eq!(node.disk.now.view(root), view_of(target), "{change:?}\n{journal:?}");
    assert!(node.disk.now.quarantine.is_empty(), "{change:?}");
    check_kept(&before, &node.disk.now);

    let done = node.disk.now.clone();
    assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
    assert_eq!(node.disk.now, done, "a redo of what is done changes something: {change:?}");

    let back = undo(&journal, JournalNumber(2));
    assert_eq!(undo(&back, journal.number), journal);
    assert_eq!(carry_out(&mut node.disk, &back, usize::MAX, |_| ()), Ended::Whole, "{change:?}");
    assert_eq!(node.disk.now.view(root), view_of(&change.base), "{change:?}\n{journal:?}");
    check_kept(&before, &node.disk.now);

    let again = undo(&back, JournalNumber(3));
    assert_eq!(carry_out(&mut node.disk, &again, usize::MAX, |_| ()), Ended::Whole, "{change:?}");
    assert_eq!(node.disk.now.view(root), view_of(target), "{change:?}\n{journal:?}");
    assert!(node.disk.now.quarantine.is_empty(), "{change:?}");
}

/// Paths of regular files in both states, whose object does not move, nor a directory above.
fn lasting_files(change: &Change) -> Vec<Vec<u8>> {
    let (old, new) = (view_of(&change.base), view_of(&change.target));
    let is_file = |object: &Object| object.kind() == Kind::Regular;
    let stays = |path: &[u8]| {
        let mut at = ROOT;
        let mut parts = path.split(|byte| *byte == b'/').skip(1).peekable();
        while let Some(part) = parts.next() {
            let key = (at, Name::new(part).unwrap());
            let (before, after) = (change.base.names[&key], change.target.names[&key]);
            if parts.peek().is_some() {
                if before != after {
                    return false;
                }
                at = before;
                continue;
            }
            let turn = turn_of(change, before).unwrap();
            let is_moved = before != after && matches!(turn, Turn::Kept | Turn::Patched);
            return !is_moved;
        }
        true
    };
    let both = old.iter().filter(|(path, (_, object))| {
        is_file(object) && new.get(*path).is_some_and(|(_, object)| is_file(object))
    });
    both.map(|(path, _)| path.clone()).filter(|path| stays(path)).collect()
}

fn check_readers(change: &Change, lasting: &[Vec<u8>], disk: &Disk) {
    let view = disk.now.view(disk.root);
    for path in lasting {
        let found = view
            .get(path)
            .unwrap_or_else(|| panic!("{} is absent for a while: {change:?}", path.escape_ascii()));
        assert_eq!(found.1.kind(), Kind::Regular);
    }
}

/// A redo after a crash that kept `mask`, then an undo after the same crash.
fn check_crash(node: &Node, change: &Change, journal: &Journal, mask: u64) {
    let mut redone = node.clone();
    redone.disk.crash(|index| mask >> index & 1 == 1);
    let mut undone = redone.clone();
    let root = node.disk.root;
    let told = || format!("mask {mask:#b}: {change:?}\n{journal:?}");
    assert_eq!(
        carry_out(&mut redone.disk, journal, usize::MAX, |_| ()),
        Ended::Whole,
        "{}",
        told()
    );
    assert_eq!(redone.disk.now.view(root), view_of(&change.target), "{}", told());
    assert!(redone.disk.now.quarantine.is_empty(), "{}", told());

    let back = undo(journal, JournalNumber(2));
    assert_eq!(carry_out(&mut undone.disk, &back, usize::MAX, |_| ()), Ended::Whole, "{}", told());
    assert_eq!(undone.disk.now.view(root), view_of(&change.base), "{}", told());
    assert!(undone.disk.now.quarantine.is_empty(), "{}", told());
}

#[test]
fn every_small_tree_becomes_every_other_one_and_itself_again() {
    let objects = [D, E, F, G];
    let bases = trees(&ENTRIES, &objects, |_| 0);
    let mut count = 0;
    for version in 0..4 {
        let targets = trees(&ENTRIES, &objects, |_| version);
        for (row, base) in bases.iter().enumerate() {
            let node = Node::new(base);
            for (column, target) in targets.iter().enumerate() {
                check_apply(&node, target, if (row + column) % 3 == 0 { &[F] } else { &[] });
                count += 1;
            }
        }
    }
    assert_eq!(count, 4 * 99 * 99);
}

#[test]
fn a_crash_that_loses_any_renames_is_redone_and_undone() {
    let objects = [D, F, L];
    let bases = trees(&FEW_ENTRIES, &objects, |_| 0);
    let mut count = 0_u64;
    for (row, base) in bases.iter().enumerate() {
        let node = Node::new(base);
        for version in [0, 3] {
            for (column, target) in trees(&FEW_ENTRIES, &objects, |_| version).iter().enumerate() {
                let patched: &[ObjectId] = if (row + column) % 4 == 0 { &[F] } else { &[] };
                let (mut node, change, journal) = applied(&node, target, patched);
                assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
                // A crash before the last step is one that keeps nothing of the later ones.
                for mask in 0..1_u64 << node.disk.unsynced_count() {
                    check_crash(&node, &change, &journal, mask);
                    count += 1;
                }
            }
        }
    }
    assert!(count > 10_000, "{count}");
}

/// A shape and the versions of the objects in it, from drawn numbers.
fn drawn(occupants: &[u8], versions: u64) -> Side {
    let objects = [None, Some(D), Some(E), Some(F), Some(G), Some(L), Some(F), Some(G)];
    let version = |id: ObjectId| u8::try_from(versions >> (2 * id.0) & 3).unwrap();
    let mut wanted: Vec<_> = occupants.iter().map(|it| objects[usize::from(it & 7)]).collect();
    // What is no tree becomes one by taking directories out; the empty tree is one.
    loop {
        if let Some(side) = tree(&MANY_ENTRIES, &wanted, version) {
            return side;
        }
        let last = wanted.iter().rposition(|it| matches!(it, Some(id) if *id == D || *id == E));
        match last {
            Some(last) => wanted[last] = None,
            // Something is in a directory that is nowhere.
            None => wanted[3..].fill(None),
        }
    }
}

prop_compose! {
    fn any_side()(occupants in prop::collection::vec(any::<u8>(), 8), versions: u64) -> Side {
        drawn(&occupants, versions)
    }
}

/// Through its bytes, as a node does after a start.
fn reread(journal: &Journal) -> Journal {
    let read = decode(&encode(journal)).unwrap();
    assert_eq!(read, *journal);
    read
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_larger_tree_becomes_any_other_one(base in any_side(), target in any_side(), patch: bool) {
        check_apply(&Node::new(&base), &target, if patch { &[F, G] } else { &[] });
    }

    #[test]
    fn a_larger_apply_survives_any_crash(
        base in any_side(),
        target in any_side(),
        masks in prop::collection::vec(any::<u64>(), 8),
    ) {
        let (mut node, change, journal) = applied(&Node::new(&base), &target, &[F]);
        let journal = reread(&journal);
        prop_assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
        for mask in masks {
            check_crash(&node, &change, &journal, mask);
        }
    }

    #[test]
    fn a_crash_in_the_recovery_of_a_recovery_is_survived(
        base in any_side(),
        target in any_side(),
        crashes in prop::collection::vec((0_usize..24, any::<u64>()), 3),
        turns_back: bool,
    ) {
        let (mut node, change, journal) = applied(&Node::new(&base), &target, &[G]);
        let root = node.disk.root;
        for (steps, mask) in crashes {
            carry_out(&mut node.disk, &journal, steps, |_| ());
            node.disk.crash(|index| mask >> index & 1 == 1);
        }
        // Half way the node turns back, and is cut again on the way.
        if turns_back {
            let back = reread(&undo(&journal, JournalNumber(2)));
            carry_out(&mut node.disk, &back, 3, |_| ());
            node.disk.crash(|index| index % 2 == 1);
            prop_assert_eq!(carry_out(&mut node.disk, &back, usize::MAX, |_| ()), Ended::Whole);
            prop_assert_eq!(node.disk.now.view(root), view_of(&change.base));
        } else {
            prop_assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
            prop_assert_eq!(node.disk.now.view(root), view_of(&change.target));
        }
        prop_assert!(node.disk.now.quarantine.is_empty());
    }

    #[test]
    fn any_kept_generation_is_rolled_back_to_and_forward_again(
        sides in prop::collection::vec(any_side(), 4),
        mask: u64,
    ) {
        let mut node = Node::new(&sides[0]);
        let root = node.disk.root;
        let mut journals = Vec::new();
        for (number, side) in (1..).zip(&sides[1..]) {
            let (change, journal) = node.prepare(side, number, &[F]);
            prop_assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
            node.became(&change);
            journals.push(journal);
        }
        let mut number = 10;
        let mut forward = Vec::new();
        for (journal, side) in journals.iter().rev().zip(sides[..3].iter().rev()) {
            number += 1;
            let back = rollback(journal, JournalNumber(number), position(number));
            prop_assert_eq!(carry_out(&mut node.disk, &back, usize::MAX, |_| ()), Ended::Whole);
            node.disk.crash(|index| mask >> index & 1 == 1);
            let back = reread(&back);
            // Half way the node would rather stay where it was, and then not.
            let mut turned = node.clone();
            let stay = undo(&back, JournalNumber(99));
            prop_assert_eq!(carry_out(&mut turned.disk, &stay, usize::MAX, |_| ()), Ended::Whole);
            prop_assert_eq!(turned.disk.now.view(root), view_of(&node.side));
            prop_assert!(turned.disk.now.quarantine.is_empty());
            prop_assert_eq!(carry_out(&mut node.disk, &back, usize::MAX, |_| ()), Ended::Whole);
            prop_assert_eq!(node.disk.now.view(root), view_of(side));
            node.disk.sync();
            node.side = side.clone();
            check_folder(&node.disk, journal.number);
            forward.push(back);
        }
        for (journal, side) in forward.iter().rev().zip(&sides[1..]) {
            number += 1;
            let again = rollback(journal, JournalNumber(number), position(number));
            prop_assert_eq!(carry_out(&mut node.disk, &again, usize::MAX, |_| ()), Ended::Whole);
            prop_assert_eq!(node.disk.now.view(root), view_of(side));
            check_folder(&node.disk, journal.number);
        }
        prop_assert!(node.disk.now.quarantine.is_empty());
    }

    #[test]
    fn what_is_foreign_goes_to_the_quarantine_and_the_apply_goes_on(
        base in any_side(),
        target in any_side(),
        at in any::<prop::sample::Index>(),
        mask: u64,
    ) {
        let (mut node, change, journal) = applied(&Node::new(&base), &target, &[]);
        let root = node.disk.root;
        let places: Vec<&Place> = journal.operations().filter_map(filled).collect();
        if places.is_empty() {
            return Ok(());
        }
        let place = places[at.index(places.len())];
        prop_assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
        node.disk.crash(|index| mask >> index & 1 == 1);
        let occupied = node.disk.now.at(place).is_some();
        if occupied || !node.disk.now.inodes.contains_key(&place.directory().unwrap()) {
            return Ok(());
        }
        let stranger = node.disk.intrude(object(G, 1), place);
        prop_assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
        prop_assert_eq!(&node.disk.now.quarantine, &vec![stranger]);
        prop_assert_eq!(node.disk.now.view(root), view_of(&change.target));
    }

    #[test]
    fn a_foreign_version_of_what_is_replaced_goes_to_the_quarantine(
        base in any_side(),
        target in any_side(),
        which in any::<prop::sample::Index>(),
    ) {
        let (mut node, change, journal) = applied(&Node::new(&base), &target, &[]);
        let root = node.disk.root;
        let is_file = |what: &Identity| {
            node.disk.now.inodes[what].object.kind() != Kind::Directory
        };
        let replaced: Vec<&Place> =
            journal.operations().filter_map(exchanged).filter(|it| is_file(&it.1)).map(|it| it.0)
            .collect();
        if replaced.is_empty() {
            return Ok(());
        }
        let stranger = node.disk.intrude(object(G, 1), replaced[which.index(replaced.len())]);
        prop_assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
        prop_assert_eq!(&node.disk.now.quarantine, &vec![stranger]);
        prop_assert_eq!(node.disk.now.view(root), view_of(&change.target));
        prop_assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
        prop_assert_eq!(node.disk.now.view(root), view_of(&change.target));
    }

    #[test]
    fn what_is_left_in_a_directory_that_goes_is_quarantined(
        base in any_side(),
        target in any_side(),
        which in any::<prop::sample::Index>(),
    ) {
        let (mut node, change, journal) = applied(&Node::new(&base), &target, &[]);
        let root = node.disk.root;
        let going: Vec<_> = journal
            .operations()
            .filter_map(emptied)
            .collect();
        if going.is_empty() {
            return Ok(());
        }
        let directory = going[which.index(going.len())];
        let at = Place::Tree { directory, name: name("excluded") };
        let stranger = node.disk.intrude(object(G, 1), &at);
        node.disk.sync();
        prop_assert_eq!(carry_out(&mut node.disk, &journal, usize::MAX, |_| ()), Ended::Whole);
        prop_assert_eq!(&node.disk.now.quarantine, &vec![stranger]);
        prop_assert_eq!(node.disk.now.view(root), view_of(&change.target));
        let back = undo(&journal, JournalNumber(2));
        prop_assert_eq!(carry_out(&mut node.disk, &back, usize::MAX, |_| ()), Ended::Whole);
        prop_assert_eq!(node.disk.now.view(root), view_of(&change.base));
    }
}

#[test]
fn an_object_that_somebody_replaced_before_it_moved_is_damage_and_the_other_one_is_kept() {
    let entries = [(ROOT, "x"), (ROOT, "y")];
    let base = tree(&entries, &[Some(F), None], |_| 0).unwrap();
    let target = tree(&entries, &[None, Some(F)], |_| 0).unwrap();
    let (mut node, change, journal) = applied(&Node::new(&base), &target, &[]);
    let directory = node.disk.root;
    let stranger = node.disk.intrude(object(G, 1), &Place::Tree { directory, name: name("x") });
    let moved = change.identity_in_base(F).unwrap();
    let ended = carry_out(&mut node.disk, &journal, usize::MAX, |_| ());
    assert_eq!(ended, Ended::Damaged(moved));
    assert_eq!(node.disk.now.quarantine, [stranger]);
}

#[test]
fn a_tree_whose_root_holds_none_of_its_directories_is_damage_and_nothing_is_touched() {
    let base = tree(&ENTRIES, &[Some(D), None, Some(F), None], |_| 0).unwrap();
    let target = tree(&ENTRIES, &[Some(D), None, Some(F), None], |_| 1).unwrap();
    let (mut node, change, journal) = applied(&Node::new(&base), &target, &[]);
    let directory = node.disk.root;
    let at = Place::Tree { directory, name: name("x") };
    node.disk.intrude(object(E, 0), &at);
    node.disk.sync();
    node.disk.crash(|_| true);
    let before = node.disk.now.clone();
    let missing = change.identity_in_base(D).unwrap();
    let ended = carry_out(&mut node.disk, &journal, usize::MAX, |_| ());
    assert_eq!(ended, Ended::Damaged(missing));
    assert_eq!(node.disk.now, before);
}

/// The name that an operation exchanges, and the object that loses it.
fn exchanged(operation: &Operation) -> Option<(&Place, Identity)> {
    match operation {
        Operation::Exchange(it) => Some((&it.at, it.old)),
        Operation::Move(_)
        | Operation::Empty { .. }
        | Operation::Link(_)
        | Operation::Patch(_)
        | Operation::Set(_)
        | Operation::Finish(_) => None,
    }
}

/// The directory that an operation makes sure to be empty.
fn emptied(operation: &Operation) -> Option<Identity> {
    match operation {
        Operation::Empty { directory } => Some(*directory),
        Operation::Move(_)
        | Operation::Exchange(_)
        | Operation::Link(_)
        | Operation::Patch(_)
        | Operation::Set(_)
        | Operation::Finish(_) => None,
    }
}

/// The place in the tree that an operation fills.
fn filled(operation: &Operation) -> Option<&Place> {
    let place = match operation {
        Operation::Move(it) => &it.to,
        Operation::Exchange(it) => &it.at,
        Operation::Link(_)
        | Operation::Patch(_)
        | Operation::Set(_)
        | Operation::Empty { .. }
        | Operation::Finish(_) => return None,
    };
    place.directory().map(|_| place)
}

/// What a rollback used of the folder of a journal, it used up: but for chunks of patches.
fn check_folder(disk: &Disk, number: JournalNumber) {
    let left = disk.now.work.keys().filter(|place| match place {
        Place::Undo { journal, slot } => *journal == number && slot.0 < 1_000_000,
        Place::Park { .. } => true,
        Place::Tree { .. } | Place::Stage(_) | Place::Link { .. } => false,
    });
    assert_eq!(left.count(), 0);
}
