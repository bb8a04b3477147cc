//! Carries the operations of one journal out, step by step.
//!
//! What is missing is said by `redo()`, which is asked again after each step, so what somebody else
//! changes in between is met as what it is by then. An object that is opened is looked at before it
//! is changed; a rename that met another object than the one that was looked at shows at the next
//! look, and what it moved goes to the quarantine.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::super::attributes::path_of;
use super::super::folder::{Folder, look_at};
use super::super::make::set_metadata;
use super::super::work_area::WorkArea;
use super::error::ApplyError;
use super::folders::{Folders, any_entry};
use super::patch::apply_patch;
use super::quarantine::Quarantine;
use super::steps::Steps;
use crate::manifest::apply::{Journal, Operation, Place, Redo, Seen, Sight, Step, redo};
use crate::manifest::{Identity, Kind, LeftOut, Metadata, Name, PATH_DEPTH_MAX, RESERVED};

/// How often in a row something may change between a look and the step that goes by it.
const RACES_MAX: u32 = 64;
/// How often one operation is looked at: somebody who brings foreign things faster than they can be
/// taken away must not keep an apply for ever.
const LOOKS_MAX: u32 = 1 << 24;

/// One journal on its way.
#[derive(Debug)]
pub(super) struct Carrier<'a> {
    journal: &'a Journal,
    folders: Folders<'a>,
    left_out: &'a LeftOut,
    steps: &'a Steps,
    quarantine: Quarantine<'a>,
    /// Where objects are that are in the work area for a while.
    homes: OnceCell<BTreeMap<Identity, Place>>,
    /// What went wrong while `redo()` looked, which cannot say it.
    fault: RefCell<Option<ApplyError>>,
}

/// A step that was tried.
enum Tried {
    Done,
    /// Somebody changed something since the look; it says where, and what the kernel said.
    Raced(Place, Errno),
}

/// What is held of an object.
enum Holds {
    /// The object.
    It(OwnedFd, Kind),
    /// It is not where it was looked at.
    Nothing(Errno),
}

/// What a journal is carried out on.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) root: &'a Folder,
    pub(super) work: &'a WorkArea,
    pub(super) left_out: &'a LeftOut,
    pub(super) steps: &'a Steps,
}

impl<'a> Carrier<'a> {
    /// Finds the directories of `journal`.
    pub(super) fn new(
        ground: &Ground<'a>,
        quarantine: Quarantine<'a>,
        journal: &'a Journal,
    ) -> Result<Self, ApplyError> {
        let Ground { root, work, left_out, steps } = *ground;
        let failed = |errno| ApplyError::kernel("look at the root", ".", errno);
        let found = root.look_at_self().map_err(failed)?.stamp.identity;
        if found != journal.root {
            let (found, expected) = (found.inode, journal.root.inode);
            return Err(ApplyError::OtherRoot { found, expected });
        }
        let folders = Folders::find(root, work, journal).map_err(|(place, errno)| {
            // Which directories lead there is what was being found out.
            let path = match place {
                Some(Place::Tree { directory: _, name }) => name.to_string(),
                Some(place) => {
                    WorkArea::name_of(&place).map_or_else(String::new, |it| it.to_string())
                }
                None => ".".to_owned(),
            };
            ApplyError::kernel("find the directories of the journal", path, errno)
        })?;
        Ok(Self {
            journal,
            folders,
            left_out,
            steps,
            quarantine,
            homes: OnceCell::new(),
            fault: RefCell::new(None),
        })
    }

    /// How many things were brought to the quarantine.
    pub(super) fn quarantined(&self) -> u64 {
        self.quarantine.count()
    }

    /// Carries all operations out.
    pub(super) fn carry_out(&mut self) -> Result<(), ApplyError> {
        let journal = self.journal;
        for operation in journal.operations() {
            self.carry_out_one(operation)?;
        }
        Ok(())
    }

    fn carry_out_one(&mut self, operation: &Operation) -> Result<(), ApplyError> {
        let mut races = 0;
        for _ in 0..LOOKS_MAX {
            let answer = redo(self.journal.direction, operation, self);
            // An answer that was found without seeing everything is none.
            if let Some(fault) = self.fault.take() {
                return Err(fault);
            }
            let tried = match &answer {
                Redo::Done => return Ok(()),
                Redo::Damage(what) => return Err(ApplyError::Missing(*what)),
                Redo::Foreign(place) => self.bring(place)?,
                Redo::Do(step) => self.take(step)?,
            };
            match tried {
                Tried::Done if matches!(&answer, Redo::Do(step) if step.ends()) => return Ok(()),
                Tried::Done => races = 0,
                Tried::Raced(..) if races < RACES_MAX => races += 1,
                Tried::Raced(place, errno) => {
                    let path = self.folders.path_of(&place);
                    return Err(ApplyError::kernel(action_of(&answer), path, errno));
                }
            }
        }
        let path = "the tree: somebody else changes it all the time";
        Err(ApplyError::kernel("carry the journal out", path, Errno::BUSY))
    }

    /// One step.
    fn take(&mut self, step: &Step) -> Result<Tried, ApplyError> {
        match step {
            Step::Rename { from, to } => self.call("rename", from, to, Folder::rename),
            Step::Exchange { from, at } => self.call("exchange", from, at, Folder::exchange),
            Step::Link { existing, slot } => self.call("link", existing, slot, Folder::link),
            Step::Patch { what, at, source } => self.patch(*what, at, source),
            Step::Set { what, at, metadata } => match self.hold(*what, at)? {
                Holds::It(held, kind) => {
                    let path = self.folders.path_of(at);
                    self.set(held.as_fd(), metadata, kind == Kind::Symlink, &path)?;
                    Ok(Tried::Done)
                }
                Holds::Nothing(errno) => Ok(Tried::Raced(at.clone(), errno)),
            },
            Step::Finish { directory, metadata } => self.finish(*directory, metadata),
        }
    }

    /// A call with two names.
    fn call(
        &mut self,
        action: &'static str,
        from: &Place,
        to: &Place,
        call: impl FnOnce(&Folder, &Name, &Folder, &Name) -> Result<(), Errno>,
    ) -> Result<Tried, ApplyError> {
        let path = |folders: &Folders<'_>| {
            folders.path_of(if from.directory().is_some() { from } else { to })
        };
        let entries = self
            .folders
            .entry(from)
            .and_then(|from| Ok((from, self.folders.entry(to)?)))
            .map_err(|errno| ApplyError::kernel(action, path(&self.folders), errno))?;
        let (Some((old_folder, old_name)), Some((new_folder, new_name))) = entries else {
            return Ok(Tried::Raced(to.clone(), Errno::NOENT));
        };
        self.steps.take(action, || path(&self.folders))?;
        match call(&old_folder, &old_name, &new_folder, &new_name) {
            Ok(()) => {}
            Err(errno @ (Errno::NOENT | Errno::EXIST | Errno::NOTDIR)) => {
                return Ok(Tried::Raced(to.clone(), errno));
            }
            Err(errno) => return Err(ApplyError::kernel(action, path(&self.folders), errno)),
        }
        for place in [from, to] {
            let noted = self.folders.note(place);
            noted.map_err(|errno| ApplyError::kernel("look", path(&self.folders), errno))?;
        }
        Ok(Tried::Done)
    }

    /// Holds the object `what` at `at`, without opening it.
    fn hold(&self, what: Identity, at: &Place) -> Result<Holds, ApplyError> {
        let failed = |errno| ApplyError::kernel("open", self.folders.path_of(at), errno);
        let Some((folder, name)) = self.folders.entry(at).map_err(failed)? else {
            return Ok(Holds::Nothing(Errno::NOENT));
        };
        let held = match folder.object(&name) {
            Ok(held) => held,
            Err(errno @ (Errno::NOENT | Errno::XDEV)) => return Ok(Holds::Nothing(errno)),
            Err(errno) => return Err(failed(errno)),
        };
        let found = look_at(&held).map_err(failed)?;
        Ok(match found.kind {
            Some(kind) if found.stamp.identity == what => Holds::It(held, kind),
            Some(_) | None => Holds::Nothing(Errno::STALE),
        })
    }

    fn patch(&self, what: Identity, at: &Place, source: &Place) -> Result<Tried, ApplyError> {
        let path = self.folders.path_of(at);
        let failed = |errno| ApplyError::kernel("open it to patch it", &*path, errno);
        let held = match self.hold(what, at)? {
            Holds::It(held, Kind::Regular) => held,
            Holds::It(..) => return Err(failed(Errno::INVAL)),
            Holds::Nothing(errno) => return Ok(Tried::Raced(at.clone(), errno)),
        };
        let source_path = self.folders.path_of(source);
        let source_failed = |errno| ApplyError::kernel("open", &*source_path, errno);
        let Some((folder, name)) = self.folders.entry(source).map_err(source_failed)? else {
            return Err(source_failed(Errno::NOENT));
        };
        let chunks = folder.file(&name).map_err(source_failed)?;
        // What is held was looked at; by its name it could be another object by now.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open(path_of(&held), flags, Mode::empty()).map(File::from).map_err(failed)?;
        apply_patch(self.steps, &source_path, chunks, &file)?;
        Ok(Tried::Done)
    }

    fn finish(&self, directory: Identity, metadata: &Metadata) -> Result<Tried, ApplyError> {
        let path = self.directory_path(directory);
        let failed = |errno| ApplyError::kernel("open", &*path, errno);
        match self.folders.folder(directory).map_err(failed)? {
            Some(folder) => {
                self.set(folder.as_fd(), metadata, false, &path)?;
                Ok(Tried::Done)
            }
            None => Err(ApplyError::Missing(directory)),
        }
    }

    fn set(
        &self,
        held: BorrowedFd<'_>,
        metadata: &Metadata,
        is_link: bool,
        path: &str,
    ) -> Result<(), ApplyError> {
        self.steps.take("set the metadata", || path.to_owned())?;
        set_metadata(held, metadata, is_link, self.left_out)
            .map_err(|errno| ApplyError::kernel("set the metadata", path, errno))
    }

    fn directory_path(&self, directory: Identity) -> String {
        self.folders
            .place_of(directory)
            .map_or_else(|| ".".to_owned(), |place| self.folders.path_of(place))
    }

    /// Brings what is at `place` to the quarantine.
    fn bring(&mut self, place: &Place) -> Result<Tried, ApplyError> {
        let path = self.folders.path_of(place);
        let failed = |errno| ApplyError::kernel("bring it to the quarantine", &*path, errno);
        let Some((folder, name)) = self.folders.entry(place).map_err(failed)? else {
            return Ok(Tried::Raced(place.clone(), Errno::NOENT));
        };
        let Some(found) = folder.look(&name).map_err(failed)? else {
            return Ok(Tried::Raced(place.clone(), Errno::NOENT));
        };
        let above = self.above(place);
        let why = match place {
            Place::Tree { .. } => "no journal put it there, and the apply needed its name",
            Place::Stage(_) | Place::Park { .. } | Place::Link { .. } | Place::Undo { .. } => {
                "no journal put it into the work area"
            }
        };
        let brought = self.quarantine.bring(self.steps, (&folder, &name), &above, why);
        match brought {
            Ok(()) => {}
            Err(ApplyError::Refused { errno: Errno::NOENT, .. }) => {
                return Ok(Tried::Raced(place.clone(), Errno::NOENT));
            }
            Err(error) => return Err(error),
        }
        if found.kind == Some(Kind::Directory) {
            self.folders.forget(found.stamp.identity);
        }
        Ok(Tried::Done)
    }

    /// The directories that lead to `place` from the root of the tree, or would if everything were
    /// at its place in there already.
    fn above(&self, place: &Place) -> Vec<Name> {
        let reserved = || Name::new(RESERVED).expect("our own word is a name");
        let mut names = Vec::new();
        let mut at = Some(place);
        while let Some(place) = at.filter(|_| names.len() <= 2 * PATH_DEPTH_MAX) {
            let Place::Tree { directory, name: _ } = place else {
                // Nothing in the tree has this name.
                names.push(reserved());
                break;
            };
            at = self.folders.place_of(*directory).map(|place| match place {
                Place::Tree { .. } => place,
                _ => self.homes().get(directory).unwrap_or(place),
            });
            names.extend(at.map(|place| match place {
                Place::Tree { directory: _, name } => name.clone(),
                place => WorkArea::name_of(place).unwrap_or_else(reserved),
            }));
        }
        names.reverse();
        names
    }

    /// For each object that this journal moves: its place in the tree, the one that it gets if it
    /// gets one.
    fn homes(&self) -> &BTreeMap<Identity, Place> {
        self.homes.get_or_init(|| {
            let mut homes = BTreeMap::new();
            for operation in self.journal.operations() {
                let (what, from, to) = match operation {
                    Operation::Move(it) => (it.what, &it.from, &it.to),
                    Operation::Exchange(it) => (it.new, &it.from, &it.at),
                    Operation::Link(_)
                    | Operation::Patch(_)
                    | Operation::Set(_)
                    | Operation::Empty { .. }
                    | Operation::Finish(_) => continue,
                };
                if to.directory().is_some() {
                    homes.insert(what, to.clone());
                } else if from.directory().is_some() {
                    homes.entry(what).or_insert_with(|| from.clone());
                }
            }
            homes
        })
    }

    /// What was seen, or nothing if that cannot be told: then it is told what went wrong.
    fn seen<T>(&self, place: impl FnOnce() -> String, found: Result<T, Errno>) -> Option<T> {
        found
            .map_err(|errno| {
                let fault = ApplyError::kernel("look", place(), errno);
                self.fault.borrow_mut().get_or_insert(fault);
            })
            .ok()
    }
}

impl Sight for Carrier<'_> {
    fn at(&self, place: &Place) -> Seen {
        let found = self.folders.entry(place).and_then(|entry| match entry {
            None => Ok(Seen::NoDirectory),
            Some((folder, name)) => Ok(match folder.look(&name)? {
                None => Seen::Nothing,
                Some(found) => Seen::Object(found.stamp.identity),
            }),
        });
        self.seen(|| self.folders.path_of(place), found).unwrap_or(Seen::NoDirectory)
    }

    fn inside(&self, directory: Identity) -> Option<Name> {
        let found = self.folders.folder(directory).and_then(|folder| match folder {
            None => Ok(None),
            Some(folder) => any_entry(&folder),
        });
        self.seen(|| self.directory_path(directory), found)?
    }

    fn has(&self, directory: Identity) -> bool {
        let found = self.folders.folder(directory);
        self.seen(|| self.directory_path(directory), found).is_some_and(|folder| folder.is_some())
    }
}

/// What an answer of `redo()` calls for.
fn action_of(answer: &Redo) -> &'static str {
    match answer {
        Redo::Do(Step::Rename { .. }) => "rename",
        Redo::Do(Step::Exchange { .. }) => "exchange",
        Redo::Do(Step::Link { .. }) => "link",
        Redo::Do(Step::Patch { .. }) => "patch",
        Redo::Do(Step::Set { .. } | Step::Finish { .. }) => "set the metadata",
        Redo::Foreign(_) => "bring it to the quarantine",
        Redo::Done | Redo::Damage(_) => "look",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::patch::PatchWriter;
    use super::super::world::{Contents, MOMENT, World, name, random_side};
    use super::*;
    use crate::manifest::apply::Slot;
    use crate::units::ObjectId;

    /// The step was told of another object than the one that is there by now.
    #[test]
    fn an_object_that_was_swapped_since_it_was_looked_at_is_not_changed() {
        let mut contents = Contents::default();
        let side = random_side(&mut fastrand::Rng::with_seed(3), &mut contents, None);
        let mut world = World::new(&side, &contents);
        let (_, journal) = world.prepare(&side, false);
        let (tree, canary) = (world.tree(), world.path("canary/file"));
        std::fs::write(tree.join("mine"), "mine").unwrap();
        std::fs::write(&canary, "canary").unwrap();
        let applier = world.start();
        let found = applier.root().look(&name(b"mine")).unwrap().unwrap().stamp.identity;
        let stage = applier.work().stage();
        let source = Place::Stage(Slot(77));
        let mut patch = PatchWriter::new(stage, &WorkArea::name_of(&source).unwrap(), 3).unwrap();
        patch.append(0, b"new").unwrap();
        patch.end().unwrap();
        let (left_out, steps) = (LeftOut::default(), Steps::unlimited());
        let (root, work) = (applier.root(), applier.work());
        let ground = Ground { root, work, left_out: &left_out, steps: &steps };
        let quarantine = Quarantine::new(work.lost(), MOMENT);
        let mut carrier = Carrier::new(&ground, quarantine, &journal).unwrap();
        let at = Place::Tree { directory: journal.root, name: name(b"mine") };
        let metadata = Metadata { mode: 0o600, ..side.objects[&ObjectId::ROOT].metadata.clone() };
        let set = Step::Set { what: found, at: at.clone(), metadata };
        let patch = Step::Patch { what: found, at, source };
        std::fs::remove_file(tree.join("mine")).unwrap();
        for is_link in [true, false] {
            if is_link {
                symlink(&canary, tree.join("mine")).unwrap();
            } else {
                std::fs::remove_file(tree.join("mine")).unwrap();
                std::fs::hard_link(&canary, tree.join("mine")).unwrap();
            }
            let before = super::super::world::view(&world.path("canary"));
            for step in [&set, &patch] {
                assert!(matches!(carrier.take(step), Ok(Tried::Raced(..))), "{step:?}");
            }
            assert_eq!(super::super::world::view(&world.path("canary")), before);
        }
        assert_eq!(steps.taken(), 0);
    }
}
