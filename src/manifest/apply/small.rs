//! Small trees for tests, and a driver that carries journals out on the model.

use std::collections::BTreeMap;

use super::super::{Body, ContentHash, FileTime, Identity, Kind, Metadata, Name, Object};
use super::fate::{Birth, Change, Side, Staged, Turn, birth_of, turn_of};
use super::locate::locate;
use super::model::Disk;
use super::operation::Journal;
use super::place::{JournalNumber, Place, Slot};
use super::plan::plan;
use super::redo::{Redo, redo};
use crate::units::{ObjectId, TreeNumber, TreePosition};

/// Two directories, two files and a symbolic link.
pub(super) const D: ObjectId = ObjectId(2);
pub(super) const E: ObjectId = ObjectId(3);
pub(super) const F: ObjectId = ObjectId(4);
pub(super) const G: ObjectId = ObjectId(5);
pub(super) const L: ObjectId = ObjectId(6);

pub(super) fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// Object `id`, in one of four versions: content differs by bit 0, metadata by bit 1.
pub(super) fn object(id: ObjectId, version: u8) -> Object {
    let metadata = Metadata {
        mode: 0o640 + u16::from(version & 2),
        uid: u32::try_from(id.0).unwrap(),
        mtime: FileTime { seconds: i64::from(version & 3) + 10, nanos: 5 },
        ..Metadata::default()
    };
    let body = match id {
        ObjectId::ROOT | D | E => Body::Directory,
        L => Body::Symlink { target: Box::new([b't', b'0' + (version & 1)]) },
        ObjectId(_) => Body::Regular {
            size: u64::from(version & 1),
            content: ContentHash([u8::try_from(id.0).unwrap() * 2 + (version & 1); 32]),
        },
    };
    Object { metadata, body }
}

/// The tree in which the entries lead to the occupants, each object in a version; `None` if it is
/// no tree.
pub(super) fn tree(
    entries: &[(ObjectId, &str)],
    occupants: &[Option<ObjectId>],
    version: impl Fn(ObjectId) -> u8,
) -> Option<Side> {
    let mut side = Side::default();
    side.objects.insert(ObjectId::ROOT, object(ObjectId::ROOT, version(ObjectId::ROOT)));
    for ((directory, text), occupant) in entries.iter().zip(occupants) {
        let Some(id) = occupant else { continue };
        let described = side.objects.insert(*id, object(*id, version(*id)));
        if described.is_some() && side.objects[id].kind() == Kind::Directory {
            return None;
        }
        side.names.insert((*directory, name(text)), *id);
    }
    let is_reached = |mut at: ObjectId| {
        for _ in 0..entries.len() {
            match side.names.iter().find(|(_, id)| **id == at) {
                Some(((directory, _), _)) => at = *directory,
                None => break,
            }
        }
        at == ObjectId::ROOT
    };
    side.names.keys().all(|(directory, _)| is_reached(*directory)).then_some(side)
}

/// Every way to fill as many entries with `objects` or nothing.
pub(super) fn fillings(len: usize, objects: &[ObjectId]) -> Vec<Vec<Option<ObjectId>>> {
    let mut result = vec![Vec::new()];
    for _ in 0..len {
        result = result
            .into_iter()
            .flat_map(|filling: Vec<Option<ObjectId>>| {
                let choices = [None].into_iter().chain(objects.iter().copied().map(Some));
                choices.map(move |it| [filling.clone(), vec![it]].concat()).collect::<Vec<_>>()
            })
            .collect();
    }
    result
}

/// Every tree of which `entries` lead to `objects` or nothing.
pub(super) fn trees(
    entries: &[(ObjectId, &str)],
    objects: &[ObjectId],
    version: impl Fn(ObjectId) -> u8,
) -> Vec<Side> {
    let fillings = fillings(entries.len(), objects);
    fillings.iter().filter_map(|it| tree(entries, it, &version)).collect()
}

pub(super) fn position(number: u64) -> TreePosition {
    TreePosition { number: TreeNumber(number), ..TreePosition::default() }
}

/// A node with a tree: what is on its disk, and what its index says of it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) disk: Disk,
    pub(super) side: Side,
    pub(super) found: BTreeMap<ObjectId, Identity>,
    next_slot: u64,
}

impl Node {
    pub(super) fn new(side: &Side) -> Self {
        let (disk, found) = Disk::of(side);
        Self { disk, side: side.clone(), found, next_slot: 0 }
    }

    /// Stages what `target` needs, and plans. Files of `patched` are patched if they can be.
    pub(super) fn prepare(
        &mut self,
        target: &Side,
        number: u64,
        patched: &[ObjectId],
    ) -> (Change, Journal) {
        let mut change = Change {
            base: self.side.clone(),
            target: target.clone(),
            found: self.found.clone(),
            ..Change::default()
        };
        for id in patched {
            let (Some(old), Some(new)) =
                (change.base.objects.get(id), change.target.objects.get(id))
            else {
                continue;
            };
            if old.body != new.body {
                let journal = JournalNumber(number);
                let places = (
                    Place::Stage(Slot(1_000_000 + 10 * number + id.0)),
                    Place::Undo { journal, slot: Slot(1_000_000 + id.0) },
                );
                for (place, object) in [(&places.0, new), (&places.1, old)] {
                    let what = self.disk.make(object.clone());
                    self.disk.enter_work(place, what);
                }
                change.patches.insert(*id, places);
            }
        }
        self.stage(&mut change);
        self.disk.sync();
        let journal =
            plan(&change, JournalNumber(number), position(number - 1), position(number)).unwrap();
        (change, journal)
    }

    fn stage(&mut self, change: &mut Change) {
        let names = change.target.names_by_object();
        for (id, object) in change.target.objects.clone() {
            if matches!(turn_of(change, id).unwrap(), Turn::Born | Turn::Replaced) {
                let identity = self.disk.make(object);
                change.staged.insert(id, Staged { identity, slot: None });
            }
        }
        for (id, staged) in change.staged.clone() {
            match birth_of(change, id, &names[&id]).unwrap() {
                Birth::Slot { .. } => {
                    self.next_slot += 1;
                    let slot = Slot(self.next_slot);
                    change.staged.get_mut(&id).unwrap().slot = Some(slot);
                    self.disk.enter_work(&Place::Stage(slot), staged.identity);
                }
                Birth::Within { name: (directory, name) } => {
                    let parent = change.staged[&directory].identity;
                    self.disk.enter(parent, &name, staged.identity);
                }
            }
        }
    }

    /// The apply has ended: the index follows.
    pub(super) fn became(&mut self, change: &Change) {
        let ids = change.target.objects.keys();
        self.found = ids.map(|id| (*id, change.identity_in_target(*id).unwrap())).collect();
        self.side = change.target.clone();
        self.disk.sync();
    }
}

/// How an apply ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Ended {
    Whole,
    /// After as many steps as it was given.
    Early,
    Damaged(Identity),
}

/// Carries `journal` out, at most `steps` of it. `seen` looks at the disk after each.
pub(super) fn carry_out(
    disk: &mut Disk,
    journal: &Journal,
    mut steps: usize,
    mut seen: impl FnMut(&Disk),
) -> Ended {
    if disk.found.is_some() {
        let found = locate(journal, |place| disk.now.at(place));
        disk.found = Some(found.into_keys().collect());
    }
    for operation in journal.operations() {
        loop {
            let step = match redo(journal.direction, operation, disk) {
                Redo::Done => break,
                Redo::Damage(what) => return Ended::Damaged(what),
                Redo::Do(step) => Some(step),
                Redo::Foreign(at) => {
                    disk.quarantine(at);
                    None
                }
            };
            if steps == 0 {
                return Ended::Early;
            }
            steps -= 1;
            if let Some(step) = step {
                disk.carry_out(&step).unwrap_or_else(|errno| panic!("{errno:?}: {step:?}"));
                seen(disk);
                if step.ends() {
                    break;
                }
            }
        }
    }
    Ended::Whole
}
