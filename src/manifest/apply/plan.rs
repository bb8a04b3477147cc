//! From two states of a tree to the operations that lead from one to the other.
//!
//! Objects that move are parked, so every name that is to be filled is either free or holds
//! something that goes: then the two are exchanged. That is all: swaps, cycles, other kinds at a
//! name and parents below their children need no case of their own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::super::{Identity, Kind, Name, PATH_DEPTH_MAX};
use super::fate::{Birth, Change, Side, Turn, birth_of, turn_of};
use super::locate::directories_of;
use super::operation::{
    Anchor, Direction, Exchange, Finish, Journal, Link, Move, Operation, Patch, Phase, PlanError,
    Set,
};
use super::place::{JournalNumber, Place, Slot};
use crate::units::{ObjectId, TreePosition};

/// A directory and a name in it.
type Key = (ObjectId, Name);

/// The journal numbered `number` that takes a tree from `base` to `target`, as `change` has them.
///
/// # Errors
/// [`PlanError`] if `change` contradicts itself or leaves something out.
pub fn plan(
    change: &Change,
    number: JournalNumber,
    base: TreePosition,
    target: TreePosition,
) -> Result<Journal, PlanError> {
    let mut planner = Planner::new(change, number)?;
    planner.find_sources()?;
    planner.find_exchanges();
    planner.park()?;
    planner.place()?;
    planner.change_in_place()?;
    planner.delete()?;
    planner.finish()?;
    let anchors = planner.anchors()?;
    Ok(Journal {
        number,
        direction: Direction::Forward,
        base,
        target,
        root: change.identity_in_base(ObjectId::ROOT)?,
        anchors,
        lists: planner.lists,
    })
}

/// Where the object comes from that gets a name.
#[derive(Clone, Debug)]
enum Source {
    /// Born under this name in `stage/`.
    Stage(Place),
    /// Parked, having had this name before.
    Park { slot: Place, before: Place },
    /// A further name, made of this one.
    Link { slot: Place, existing: Place },
}

/// What is known of a plan in the making.
struct Planner<'a> {
    change: &'a Change,
    number: JournalNumber,
    old_names: BTreeMap<ObjectId, Vec<Key>>,
    new_names: BTreeMap<ObjectId, Vec<Key>>,
    old_depths: BTreeMap<ObjectId, u16>,
    new_depths: BTreeMap<ObjectId, u16>,
    /// Names of the target whose object is not there yet.
    sources: BTreeMap<Key, Source>,
    /// Names of the base whose object is parked: where, and which name it gets.
    parked: BTreeMap<Key, (Place, Key)>,
    /// Names of the target that are exchanged: where the object goes that has the name in the base.
    exchanged: BTreeMap<Key, Place>,
    /// Names of new objects that come into the tree with their directory.
    born_within: BTreeSet<Key>,
    /// Directories that lose or get an entry, or a parent.
    stirred: BTreeSet<ObjectId>,
    parks: u64,
    links: u64,
    undos: u64,
    lists: [Vec<Operation>; 7],
}

impl<'a> Planner<'a> {
    fn new(change: &'a Change, number: JournalNumber) -> Result<Self, PlanError> {
        Ok(Self {
            change,
            number,
            old_names: change.base.names_by_object(),
            new_names: change.target.names_by_object(),
            old_depths: depths(&change.base)?,
            new_depths: depths(&change.target)?,
            sources: BTreeMap::new(),
            parked: BTreeMap::new(),
            exchanged: BTreeMap::new(),
            born_within: BTreeSet::new(),
            stirred: BTreeSet::new(),
            parks: 0,
            links: 0,
            undos: 0,
            lists: Default::default(),
        })
    }

    fn append(&mut self, phase: Phase, operation: Operation) {
        self.lists[usize::from(phase as u8)].push(operation);
    }

    fn next_park(&mut self) -> Place {
        self.parks += 1;
        Place::Park { journal: self.number, slot: Slot(self.parks) }
    }

    fn next_link(&mut self) -> Place {
        self.links += 1;
        Place::Link { journal: self.number, slot: Slot(self.links) }
    }

    fn next_undo(&mut self) -> Place {
        self.undos += 1;
        Place::Undo { journal: self.number, slot: Slot(self.undos) }
    }

    /// The place in the tree that `key` means. A directory that both sides have is one inode.
    fn place_of(&self, key: &Key) -> Result<Place, PlanError> {
        let directory = self.identity_of_directory(key.0)?;
        Ok(Place::Tree { directory, name: key.1.clone() })
    }

    fn identity_of_directory(&self, id: ObjectId) -> Result<Identity, PlanError> {
        if self.change.base.objects.contains_key(&id) {
            self.change.identity_in_base(id)
        } else {
            self.change.identity_in_target(id)
        }
    }

    /// For every name of the target whose object is not there: where it comes from.
    fn find_sources(&mut self) -> Result<(), PlanError> {
        let (old, new) = (&self.change.base.objects, &self.change.target.objects);
        let ids: BTreeSet<ObjectId> = old.keys().chain(new.keys()).copied().collect();
        for id in ids.into_iter().filter(|id| *id != ObjectId::ROOT) {
            match turn_of(self.change, id)? {
                Turn::Gone => {}
                Turn::Kept | Turn::Patched => self.find_moves(id)?,
                Turn::Born | Turn::Replaced => self.find_births(id)?,
            }
        }
        Ok(())
    }

    /// An object that stays: names that it loses and names that it gets are paired to moves;
    /// further ones that it gets are links.
    fn find_moves(&mut self, id: ObjectId) -> Result<(), PlanError> {
        let old = self.old_names.get(&id).cloned().ok_or(PlanError::Undescribed(id))?;
        let new = self.new_names.get(&id).cloned().ok_or(PlanError::Undescribed(id))?;
        // Both are in rising order, and an object may have tens of thousands of names.
        let lost: Vec<&Key> = old.iter().filter(|key| new.binary_search(key).is_err()).collect();
        let won: Vec<&Key> = new.iter().filter(|key| old.binary_search(key).is_err()).collect();
        for (from, to) in lost.iter().zip(&won) {
            let slot = self.next_park();
            let before = self.place_of(from)?;
            self.sources.insert((*to).clone(), Source::Park { slot: slot.clone(), before });
            self.parked.insert((*from).clone(), (slot, (*to).clone()));
        }
        let existing =
            old.iter().find(|key| new.binary_search(key).is_ok()).or(won.first().copied());
        for key in won.iter().skip(lost.len()) {
            let existing = self.place_of(existing.ok_or(PlanError::Undescribed(id))?)?;
            let slot = self.next_link();
            self.sources.insert((*key).clone(), Source::Link { slot, existing });
        }
        Ok(())
    }

    /// An object that is born: its first name comes from `stage/`, or with its directory; all
    /// others are links to that.
    fn find_births(&mut self, id: ObjectId) -> Result<(), PlanError> {
        let names = self.new_names.get(&id).cloned().unwrap_or_default();
        let staged = self.change.staged.get(&id).ok_or(PlanError::Unstaged(id))?;
        let first = match birth_of(self.change, id, &names) {
            None => return Err(PlanError::Undescribed(id)),
            Some(Birth::Slot { name }) => {
                let slot = staged.slot.ok_or(PlanError::Unstaged(id))?;
                self.sources.insert(name.clone(), Source::Stage(Place::Stage(slot)));
                name
            }
            Some(Birth::Within { name }) => {
                self.born_within.insert(name.clone());
                name
            }
        };
        for key in names.iter().filter(|key| **key != first) {
            let source = Source::Link { slot: self.next_link(), existing: self.place_of(&first)? };
            self.sources.insert(key.clone(), source);
        }
        Ok(())
    }

    /// Names that are to be filled, and that hold something which is not parked: it goes to
    /// `undo/`.
    fn find_exchanges(&mut self) {
        let base = &self.change.base.names;
        let filled: Vec<Key> = self.sources.keys().cloned().collect();
        for key in filled {
            if base.contains_key(&key) && !self.parked.contains_key(&key) {
                let slot = self.next_undo();
                self.exchanged.insert(key, slot);
            }
        }
    }

    /// Phase 0, deepest first.
    fn park(&mut self) -> Result<(), PlanError> {
        let mut parked: Vec<(Key, (Place, Key))> =
            self.parked.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        parked.sort_by_key(|(key, _)| Reverse(self.old_depths.get(&key.0).copied()));
        for (key, (slot, to)) in parked {
            let id = self.change.base.names[&key];
            self.stirred.extend([key.0, id]);
            let operation = Operation::Move(Move {
                what: self.change.identity_in_base(id)?,
                before: Vec::new(),
                from: self.place_of(&key)?,
                to: slot,
                after: self.places_after(&to)?,
            });
            self.append(Phase::Park, operation);
        }
        Ok(())
    }

    /// Where the object that gets the name `to` can be once it is not parked any more.
    fn places_after(&self, to: &Key) -> Result<Vec<Place>, PlanError> {
        let at = self.place_of(to)?;
        Ok([at].into_iter().chain(self.exchanged.get(to).cloned()).collect())
    }

    /// Phases 1 to 3: every name of the target whose object is not there, parents first.
    fn place(&mut self) -> Result<(), PlanError> {
        let mut names: Vec<(Key, Source)> =
            self.sources.iter().map(|(key, source)| (key.clone(), source.clone())).collect();
        names.sort_by_key(|(key, source)| {
            (matches!(source, Source::Link { .. }), self.new_depths.get(&key.0).copied())
        });
        for (key, source) in names {
            self.place_one(&key, source)?;
        }
        Ok(())
    }

    fn place_one(&mut self, key: &Key, source: Source) -> Result<(), PlanError> {
        let id = self.change.target.names[key];
        let new = self.change.identity_in_target(id)?;
        let at = self.place_of(key)?;
        self.stirred.extend([key.0, id]);
        let (phase, from, before) = match source {
            Source::Stage(slot) if self.is_directory(id) => (Phase::Directories, slot, Vec::new()),
            Source::Stage(slot) => (Phase::Files, slot, Vec::new()),
            Source::Park { slot, before } => (Phase::Links, slot, vec![before]),
            Source::Link { slot, existing } => {
                let link = Link { what: new, existing, slot: slot.clone(), after: at.clone() };
                self.append(Phase::Links, Operation::Link(link));
                (Phase::Links, slot, Vec::new())
            }
        };
        let operation = match self.exchanged.get(key) {
            None => Operation::Move(Move { what: new, before, from, to: at, after: Vec::new() }),
            Some(to) => Operation::Exchange(Exchange {
                new,
                before,
                from,
                at,
                old: self.change.identity_in_base(self.change.base.names[key])?,
                to: to.clone(),
                after: Vec::new(),
            }),
        };
        self.append(phase, operation);
        Ok(())
    }

    fn is_directory(&self, id: ObjectId) -> bool {
        self.change.target.objects.get(&id).is_some_and(|it| it.kind() == Kind::Directory)
    }

    /// Patches of phase 2, and phase 4: files that stay the inode that they are.
    fn change_in_place(&mut self) -> Result<(), PlanError> {
        let change = self.change;
        for (id, new) in &change.target.objects {
            let Some(old) = change.base.objects.get(id) else { continue };
            let turn = turn_of(change, *id)?;
            let is_set = turn == Turn::Patched || turn == Turn::Kept && old != new;
            if !is_set || new.kind() == Kind::Directory {
                continue;
            }
            let what = change.identity_in_base(*id)?;
            let at = self.places_throughout(*id)?;
            if turn == Turn::Patched {
                let (source, back) = change.patches[id].clone();
                let patch = Patch { what, at: at.clone(), source, back };
                self.append(Phase::Files, Operation::Patch(patch));
            }
            let set = Set { what, at, old: old.metadata.clone(), new: new.metadata.clone() };
            self.append(Phase::Metadata, Operation::Set(set));
        }
        Ok(())
    }

    /// Where a file that stays can be, at any time of the apply: a name that it keeps, or the
    /// places of one of its moves.
    fn places_throughout(&self, id: ObjectId) -> Result<Vec<Place>, PlanError> {
        let names = self.old_names.get(&id).map(Vec::as_slice).unwrap_or_default();
        let kept = names.iter().find(|key| self.change.target.names.get(*key) == Some(&id));
        if let Some(key) = kept {
            return Ok(vec![self.place_of(key)?]);
        }
        let moved = names.iter().find_map(|key| Some((key, self.parked.get(key)?)));
        let (from, (slot, to)) = moved.ok_or(PlanError::Undescribed(id))?;
        let mut places = vec![self.place_of(from)?, slot.clone()];
        places.extend(self.places_after(to)?);
        Ok(places)
    }

    /// Phase 5, children first.
    fn delete(&mut self) -> Result<(), PlanError> {
        let change = self.change;
        let mut names: Vec<(&Key, ObjectId)> =
            change.base.names.iter().map(|(key, id)| (key, *id)).collect();
        names.sort_by_key(|(key, _)| Reverse(self.old_depths.get(&key.0).copied()));
        for (key, id) in names {
            let what = change.identity_in_base(id)?;
            let is_gone_directory =
                self.old_depths.contains_key(&id) && !change.target.objects.contains_key(&id);
            if is_gone_directory {
                self.stirred.insert(id);
                self.append(Phase::Deletes, Operation::Empty { directory: what });
            }
            if self.parked.contains_key(key) || change.target.names.contains_key(key) {
                continue;
            }
            self.stirred.insert(key.0);
            let operation = Operation::Move(Move {
                what,
                before: Vec::new(),
                from: self.place_of(key)?,
                to: self.next_undo(),
                after: Vec::new(),
            });
            self.append(Phase::Deletes, operation);
        }
        Ok(())
    }

    /// Phase 6, bottom-up.
    fn finish(&mut self) -> Result<(), PlanError> {
        let (old, new) = (&self.change.base.objects, &self.change.target.objects);
        let ids: BTreeSet<ObjectId> =
            self.old_depths.keys().chain(self.new_depths.keys()).copied().collect();
        let mut list = Vec::new();
        for id in ids {
            let differs = match (old.get(&id), new.get(&id)) {
                (Some(old), Some(new)) => old.metadata != new.metadata,
                (None, _) | (_, None) => false,
            };
            if !differs && !self.stirred.contains(&id) {
                continue;
            }
            let side = |depths: &BTreeMap<ObjectId, u16>, side: &Side| {
                Some((*depths.get(&id)?, side.objects.get(&id)?.metadata.clone()))
            };
            list.push(Finish {
                directory: self.identity_of_directory(id)?,
                old: side(&self.old_depths, &self.change.base),
                new: side(&self.new_depths, &self.change.target),
            });
        }
        list.sort_by_key(Finish::order);
        for it in list {
            self.append(Phase::Finish, Operation::Finish(it));
        }
        Ok(())
    }

    /// Directories that keep parent and name, among those which the operations name and all above
    /// them.
    fn anchors(&self) -> Result<Vec<Anchor>, PlanError> {
        let mut pending: BTreeSet<ObjectId> = BTreeSet::new();
        let named = directories_of(self.lists.iter().flatten());
        for id in self.old_depths.keys().chain(self.new_depths.keys()) {
            if named.contains(&self.identity_of_directory(*id)?) {
                pending.insert(*id);
            }
        }
        let mut anchors = BTreeMap::new();
        let mut known = BTreeSet::new();
        while let Some(id) = pending.pop_first() {
            let only_name = |names: &'_ BTreeMap<ObjectId, Vec<Key>>| {
                names.get(&id).and_then(|names| names.first()).cloned()
            };
            let (old, new) = (only_name(&self.old_names), only_name(&self.new_names));
            known.insert(id);
            pending.extend(
                [&old, &new]
                    .into_iter()
                    .flatten()
                    .map(|key| key.0)
                    .filter(|id| !known.contains(id)),
            );
            let lasting = match (old, new) {
                (Some(old), Some(new)) if old == new => Some(new),
                (None, Some(new)) if self.born_within.contains(&new) => Some(new),
                (_, _) => None,
            };
            if let Some(key) = lasting {
                anchors.insert(self.identity_of_directory(id)?, self.place_of(&key)?);
            }
        }
        Ok(anchors.into_iter().map(|(directory, at)| Anchor { directory, at }).collect())
    }
}

/// How deep each directory of `side` lies; the root is at zero.
///
/// # Errors
/// [`PlanError::Adrift`] for a directory that is not below the root by exactly one way, and for one
/// that is no directory, but has entries; [`PlanError::Undescribed`].
fn depths(side: &Side) -> Result<BTreeMap<ObjectId, u16>, PlanError> {
    let mut inside: BTreeMap<ObjectId, Vec<ObjectId>> = BTreeMap::new();
    let mut directory_count = 1;
    for ((directory, _), id) in &side.names {
        let object = side.objects.get(id).ok_or(PlanError::Undescribed(*id))?;
        if object.kind() == Kind::Directory {
            inside.entry(*directory).or_default().push(*id);
            directory_count += 1;
        }
    }
    let mut depths = BTreeMap::from([(ObjectId::ROOT, 0)]);
    let mut level = vec![ObjectId::ROOT];
    for depth in 1..=PATH_DEPTH_MAX {
        let depth = u16::try_from(depth).expect("the most names in a path is small");
        level = level.iter().filter_map(|id| inside.get(id)).flatten().copied().collect();
        depths.extend(level.iter().map(|id| (*id, depth)));
        if level.is_empty() || depths.len() == directory_count {
            break;
        }
    }
    let adrift = side.names.iter().find_map(|((directory, _), id)| {
        let is_directory = side.objects[id].kind() == Kind::Directory;
        [*directory]
            .into_iter()
            .chain(is_directory.then_some(*id))
            .find(|id| !depths.contains_key(id))
    });
    match adrift {
        Some(id) => Err(PlanError::Adrift(id)),
        None if depths.len() < directory_count => Err(PlanError::Adrift(ObjectId::ROOT)),
        None => Ok(depths),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fate::Staged;
    use super::super::small::{D, E, F, G, Node, name, object, tree};
    use super::*;

    const ROOT: ObjectId = ObjectId::ROOT;

    fn side(entries: &[(ObjectId, &str, ObjectId)], version: u8) -> Side {
        let names: Vec<(ObjectId, &str)> = entries.iter().map(|it| (it.0, it.1)).collect();
        let occupants: Vec<Option<ObjectId>> = entries.iter().map(|it| Some(it.2)).collect();
        tree(&names, &occupants, |_| version).unwrap()
    }

    /// How many operations of each phase it takes.
    fn counts(base: &Side, target: &Side, patched: &[ObjectId]) -> [usize; 7] {
        let (_, journal) = Node::new(base).prepare(target, 1, patched);
        journal.lists.map(|list| list.len())
    }

    #[test]
    fn what_is_the_same_takes_no_operation() {
        let same = side(&[(ROOT, "x", D), (D, "x", F), (D, "y", F), (ROOT, "y", G)], 0);
        assert_eq!(counts(&same, &same, &[]), [0; 7]);
    }

    #[test]
    fn a_new_subtree_takes_one_rename_and_a_renamed_directory_two() {
        let empty = side(&[], 0);
        let full = side(&[(ROOT, "x", D), (D, "x", E), (E, "x", F), (E, "y", G)], 0);
        assert_eq!(counts(&empty, &full, &[]), [0, 1, 0, 0, 0, 0, 2]);
        let renamed = side(&[(ROOT, "z", D), (D, "x", E), (E, "x", F), (E, "y", G)], 0);
        assert_eq!(counts(&full, &renamed, &[]), [1, 0, 0, 1, 0, 0, 2]);
    }

    #[test]
    fn a_changed_file_is_exchanged_or_patched_and_one_with_other_metadata_is_set() {
        let names = [(ROOT, "x", F), (ROOT, "y", F)];
        let (old, new) = (side(&names, 0), side(&names, 1));
        // The second name: a link and an exchange.
        assert_eq!(counts(&old, &new, &[]), [0, 0, 1, 2, 0, 0, 1]);
        assert_eq!(counts(&old, &new, &[F]), [0, 0, 1, 0, 1, 0, 1]);
        assert_eq!(counts(&old, &side(&names, 2), &[]), [0, 0, 0, 0, 1, 0, 1]);
    }

    #[test]
    fn a_change_that_contradicts_itself_has_no_plan() {
        let base = side(&[(ROOT, "x", D), (D, "x", F)], 0);
        let target = side(&[(ROOT, "x", D), (D, "x", G)], 0);
        let (right, _) = Node::new(&base).prepare(&target, 1, &[]);
        let at = TreePosition::default();
        let check = |change: &Change, error| {
            assert_eq!(plan(change, JournalNumber(1), at, at).err(), Some(error));
        };
        let with = |edit: fn(&mut Change)| {
            let mut change = right.clone();
            edit(&mut change);
            change
        };
        check(&with(|it| it.staged.clear()), PlanError::Unstaged(G));
        let slotless = with(|it| {
            let identity = it.staged[&G].identity;
            it.staged.insert(G, Staged { identity, slot: None });
        });
        check(&slotless, PlanError::Unstaged(G));
        check(
            &with(|it| {
                it.found.remove(&F);
            }),
            PlanError::Unfound(F),
        );
        check(
            &with(|it| {
                it.target.objects.remove(&G);
            }),
            PlanError::Undescribed(G),
        );
        check(
            &with(|it| {
                it.target.names.remove(&(D, name("x")));
            }),
            PlanError::Undescribed(G),
        );
        let other = with(|it| {
            it.target.objects.insert(D, object(F, 0));
        });
        check(&other, PlanError::Adrift(D));
        let kind = with(|it| {
            it.target.objects.insert(F, object(E, 0));
        });
        check(&kind, PlanError::OtherKind(F));
        let ring = with(|it| {
            it.target.objects.insert(E, object(E, 0));
            it.target.names.insert((E, name("x")), E);
        });
        check(&ring, PlanError::Adrift(E));
        let twice = with(|it| {
            it.target.names.insert((ROOT, name("y")), D);
        });
        check(&twice, PlanError::Adrift(ROOT));
    }
}
