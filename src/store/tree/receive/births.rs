//! New objects are made complete in `stage/`, and new directories with all that is new in them.
//!
//! Content is there already. Whatever else an object has is set while it stands in `stage/` itself; then it
//! goes into its directory, if that is new too, and that one's metadata is set when nothing more comes into
//! it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rustix::io::Errno;
use std::os::fd::AsFd;

use super::super::{Folder, set_metadata};
use super::part::{part_name, remove};
use super::reclaim::{Born, made_name, new_name, slot_of, write_log};
use super::side::places_in;
use super::staging::Site;
use super::{ReceiveError, failed};
use crate::manifest::apply::{Birth, Change, JournalNumber, Staged, birth_of};
use crate::manifest::{Kind, Name, Object};
use crate::units::ObjectId;

/// Counts the slots of one journal.
#[derive(Debug)]
pub(super) struct Slots {
    journal: JournalNumber,
    used: u32,
}

impl Slots {
    pub(super) fn new(journal: JournalNumber) -> Self {
        Self { journal, used: 0 }
    }

    pub(super) fn next(&mut self) -> Result<crate::manifest::apply::Slot, ReceiveError> {
        self.used =
            self.used.checked_add(1).ok_or(ReceiveError::TooLarge { what: "new objects" })?;
        Ok(slot_of(self.journal, self.used))
    }
}

/// Makes every object that `change` needs, and notes them in it.
pub(super) fn bear(
    site: Site<'_>,
    change: &mut Change,
    (journal, slots): (JournalNumber, &mut Slots),
) -> Result<(), ReceiveError> {
    let mut names: BTreeMap<ObjectId, Vec<(ObjectId, Name)>> = BTreeMap::new();
    for (key, id) in &change.target.names {
        names.entry(*id).or_default().push(key.clone());
    }
    let mut born = BTreeMap::new();
    for (id, names) in &names {
        match birth_of(change, *id, names) {
            None => {}
            Some(Birth::Slot { name: _ }) => {
                born.insert(*id, Born::Slot(slots.next()?));
            }
            Some(Birth::Within { name: (directory, name) }) => {
                born.insert(*id, Born::Within(directory, name));
            }
        }
    }
    let stage = site.work.stage();
    write_log(stage, journal, &born)?;
    let mut bearer = Bearer { site, stage, change, born: &born };
    bearer.objects()?;
    bearer.directories()?;
    bearer.slots()
}

struct Bearer<'a> {
    site: Site<'a>,
    stage: &'a Folder,
    change: &'a mut Change,
    born: &'a BTreeMap<ObjectId, Born>,
}

impl Bearer<'_> {
    fn object(&self, id: ObjectId) -> Option<&Object> {
        self.change.target.objects.get(&id)
    }

    /// Everything but directories.
    fn objects(&mut self) -> Result<(), ReceiveError> {
        for id in self.born.keys() {
            match self.object(*id).map(Object::kind) {
                None | Some(Kind::Directory) => continue,
                Some(Kind::Regular) => {}
                Some(
                    Kind::Symlink
                    | Kind::Fifo
                    | Kind::Socket
                    | Kind::CharDevice
                    | Kind::BlockDevice,
                ) => self.make(*id)?,
            }
            self.complete(*id)?;
        }
        Ok(())
    }

    /// New directories, the deepest first, each filled before it is complete.
    fn directories(&mut self) -> Result<(), ReceiveError> {
        let places = places_in(&self.change.target);
        let is_directory =
            |id: &&ObjectId| self.object(**id).is_some_and(|it| it.kind() == Kind::Directory);
        let mut deepest: Vec<(Reverse<usize>, ObjectId)> = Vec::new();
        for id in self.born.keys().filter(is_directory) {
            let mut depth = 0;
            let mut at = id;
            while let Some((up, _)) = places.get(at).filter(|_| depth <= places.len()) {
                (at, depth) = (up, depth + 1);
            }
            deepest.push((Reverse(depth), *id));
        }
        deepest.sort_unstable();
        let mut inside: BTreeMap<ObjectId, Vec<(&Name, ObjectId)>> = BTreeMap::new();
        for (id, place) in self.born {
            match place {
                Born::Slot(_) => {}
                Born::Within(directory, name) => {
                    inside.entry(*directory).or_default().push((name, *id));
                }
            }
        }
        for (_, id) in deepest {
            self.make(id)?;
            let folder =
                self.stage.child(&made_name(id)).map_err(failed("open a staged directory"))?;
            for (name, inner) in inside.remove(&id).unwrap_or_default() {
                let moved = self.stage.rename(&self.name_of(inner), &folder, name);
                moved.map_err(failed("put a staged object into its directory"))?;
            }
            self.complete(id)?;
        }
        Ok(())
    }

    /// Whatever has a slot of its own gets it.
    fn slots(&mut self) -> Result<(), ReceiveError> {
        for (id, place) in self.born {
            match place {
                Born::Within(..) => {}
                Born::Slot(slot) => {
                    remove(self.stage, &new_name(*slot))?;
                    let renamed =
                        self.stage.rename(&self.name_of(*id), self.stage, &new_name(*slot));
                    renamed.map_err(failed("name a staged object"))?;
                    if let Some(staged) = self.change.staged.get_mut(id) {
                        staged.slot = Some(*slot);
                    }
                }
            }
        }
        Ok(())
    }

    /// What it is called until it is complete.
    fn name_of(&self, id: ObjectId) -> Name {
        match self.object(id).map(Object::kind) {
            Some(Kind::Regular) => part_name(id),
            None
            | Some(
                Kind::Directory
                | Kind::Symlink
                | Kind::Fifo
                | Kind::Socket
                | Kind::CharDevice
                | Kind::BlockDevice,
            ) => made_name(id),
        }
    }

    fn make(&self, id: ObjectId) -> Result<(), ReceiveError> {
        let Some(object) = self.object(id) else { return Ok(()) };
        let name = made_name(id);
        remove(self.stage, &name)?;
        self.stage.make(&name, &object.body).map_err(failed("make an object"))
    }

    /// Gives an object all that is kept beside its content, and notes its identity.
    fn complete(&mut self, id: ObjectId) -> Result<(), ReceiveError> {
        let Some(object) = self.object(id) else { return Ok(()) };
        let held = match self.stage.object(&self.name_of(id)) {
            Err(Errno::NOENT) => return Err(ReceiveError::Incomplete { id }),
            held => held.map_err(failed("open a staged object"))?,
        };
        let is_link = object.kind() == Kind::Symlink;
        let set = set_metadata(held.as_fd(), &object.metadata, is_link, self.site.left_out);
        set.map_err(failed("set owner, attributes, mode or times of a staged object"))?;
        let found =
            super::super::folder::look_at(&held).map_err(failed("look at what is staged"))?;
        let staged = Staged { identity: found.stamp.identity, slot: None };
        self.change.staged.insert(id, staged);
        Ok(())
    }
}
