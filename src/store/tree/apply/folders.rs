//! The directories that a journal names, found by their identity.
//!
//! A journal can name a hundred thousand directories, more than a process may hold open. So only
//! where each one is is kept, and a few hundred that were used last are held. One that is not is
//! opened again on the way from the root or the work area, name by name, and counts only if it is
//! still the same one. It is the same way before the first rename and after any crash.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::mem::MaybeUninit;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, RawDir, openat2};
use rustix::io::Errno;

use super::super::folder::{BENEATH, Folder, Found};
use super::super::work_area::WorkArea;
use crate::manifest::apply::{Journal, JournalNumber, Place, Whereabouts, locate};
use crate::manifest::{Identity, Kind, Name, PATH_DEPTH_MAX};

/// Most directories that are held open at a time. A process may hold 1,024 descriptors unless its
/// administrator says otherwise.
const HELD_MAX: usize = 256;
/// Bytes of entries that are read to find any one of them.
const ENTRY_LEN: usize = 4 << 10;

/// Where directories are, and the few that are held.
#[derive(Debug)]
pub(super) struct Folders<'a> {
    root: Rc<Folder>,
    root_identity: Identity,
    work: &'a WorkArea,
    stage: Rc<Folder>,
    places: Whereabouts,
    held: RefCell<Held>,
}

/// What was used last.
#[derive(Debug, Default)]
struct Held {
    folders: BTreeMap<Identity, (u64, Rc<Folder>)>,
    used: BTreeMap<u64, Identity>,
    uses: u64,
    undo: BTreeMap<JournalNumber, Rc<Folder>>,
}

impl Held {
    fn find(&mut self, directory: Identity) -> Option<Rc<Folder>> {
        let (use_number, folder) = self.folders.get_mut(&directory)?;
        self.used.remove(use_number);
        self.uses += 1;
        *use_number = self.uses;
        self.used.insert(self.uses, directory);
        Some(Rc::clone(folder))
    }

    fn keep(&mut self, directory: Identity, folder: Rc<Folder>) {
        self.forget(directory);
        if self.folders.len() >= HELD_MAX
            && let Some((_, oldest)) = self.used.pop_first()
        {
            self.folders.remove(&oldest);
        }
        self.uses += 1;
        self.folders.insert(directory, (self.uses, folder));
        self.used.insert(self.uses, directory);
    }

    fn forget(&mut self, directory: Identity) {
        if let Some((use_number, _)) = self.folders.remove(&directory) {
            self.used.remove(&use_number);
        }
    }
}

impl<'a> Folders<'a> {
    /// Finds the directories of `journal`. `root` is the root of the tree.
    ///
    /// # Errors
    /// What the kernel says, with the place it says it of.
    pub(super) fn find(
        root: &Folder,
        work: &'a WorkArea,
        journal: &Journal,
    ) -> Result<Self, (Option<Place>, Errno)> {
        let again = |folder: &Folder| folder.again().map(Rc::new).map_err(|errno| (None, errno));
        let mut folders = Self {
            root: again(root)?,
            root_identity: journal.root,
            work,
            stage: again(work.stage())?,
            places: Whereabouts::new(),
            held: RefCell::default(),
        };
        let mut fault = None;
        let found = locate(journal, |place| match folders.look(place) {
            Ok(Some(found)) if found.kind == Some(Kind::Directory) => {
                let identity = found.stamp.identity;
                // What is looked at next may be in it.
                folders.places.insert(identity, place.clone());
                Some(identity)
            }
            Ok(_) => None,
            Err(errno) => {
                fault.get_or_insert_with(|| (Some(place.clone()), errno));
                None
            }
        });
        if let Some(fault) = fault {
            return Err(fault);
        }
        folders.places = found;
        Ok(folders)
    }

    /// A directory of the tree; `None` if it is not where it was found, or was not found.
    pub(super) fn folder(&self, directory: Identity) -> Result<Option<Rc<Folder>>, Errno> {
        let mut way = Vec::new();
        let mut at = directory;
        let mut folder = loop {
            if at == self.root_identity {
                break Rc::clone(&self.root);
            }
            if let Some(held) = self.held.borrow_mut().find(at) {
                break held;
            }
            // On the way a tree can be twice as deep as at rest; more is no tree.
            let Some(place) = self.places.get(&at).filter(|_| way.len() <= 2 * PATH_DEPTH_MAX)
            else {
                return Ok(None);
            };
            let Place::Tree { directory, name } = place else {
                let (folder, name) = self.work_place(place)?;
                way.push((at, name));
                break folder;
            };
            way.push((at, name.clone()));
            at = *directory;
        };
        while let Some((identity, name)) = way.pop() {
            folder = match folder.child(&name) {
                Ok(child) if child.look_at_self()?.stamp.identity == identity => Rc::new(child),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {
                    return Ok(None);
                }
                Err(errno) => return Err(errno),
            };
            self.held.borrow_mut().keep(identity, Rc::clone(&folder));
        }
        Ok(Some(folder))
    }

    /// The folder and the name in it that `place` means; `None` if the directory is not found.
    pub(super) fn entry(&self, place: &Place) -> Result<Option<(Rc<Folder>, Name)>, Errno> {
        match place {
            Place::Tree { directory, name } => {
                Ok(self.folder(*directory)?.map(|folder| (folder, name.clone())))
            }
            Place::Stage(_) | Place::Park { .. } | Place::Link { .. } | Place::Undo { .. } => {
                self.work_place(place).map(Some)
            }
        }
    }

    /// What is at `place`; `None` if nothing is, or the directory is not found.
    pub(super) fn look(&self, place: &Place) -> Result<Option<Found>, Errno> {
        match self.entry(place)? {
            Some((folder, name)) => folder.look(&name),
            None => Ok(None),
        }
    }

    /// Something was renamed to `place`: a directory of the journal is found there from now on.
    pub(super) fn note(&mut self, place: &Place) -> Result<(), Errno> {
        let found = self.look(place)?.filter(|found| found.kind == Some(Kind::Directory));
        if let Some(found) = found
            && let Some(at) = self.places.get_mut(&found.stamp.identity)
        {
            *at = place.clone();
        }
        Ok(())
    }

    /// A directory left the tree and the work area: nothing is looked for in it any more.
    pub(super) fn forget(&mut self, directory: Identity) {
        self.places.remove(&directory);
        self.held.borrow_mut().forget(directory);
    }

    /// Where a directory is.
    pub(super) fn place_of(&self, directory: Identity) -> Option<&Place> {
        self.places.get(&directory)
    }

    /// `place` for people: a path from the root of the tree or of the work area, escaped.
    pub(super) fn path_of(&self, place: &Place) -> String {
        let mut parts = Vec::new();
        let mut at = Some(place);
        while let Some(place) = at.filter(|_| parts.len() <= 2 * PATH_DEPTH_MAX) {
            let Place::Tree { directory, name } = place else {
                parts.extend(WorkArea::name_of(place).map(|name| name.to_string()));
                parts.push("(work area)".to_owned());
                break;
            };
            parts.push(name.to_string());
            at = self.places.get(directory);
        }
        parts.reverse();
        parts.join("/")
    }

    fn work_place(&self, place: &Place) -> Result<(Rc<Folder>, Name), Errno> {
        let name = WorkArea::name_of(place).ok_or(Errno::INVAL)?;
        let folder = match place {
            Place::Undo { journal, slot: _ } => self.undo_of(*journal)?,
            Place::Stage(_) | Place::Park { .. } | Place::Link { .. } | Place::Tree { .. } => {
                Rc::clone(&self.stage)
            }
        };
        Ok((folder, name))
    }

    fn undo_of(&self, journal: JournalNumber) -> Result<Rc<Folder>, Errno> {
        let mut held = self.held.borrow_mut();
        if let Some(folder) = held.undo.get(&journal) {
            return Ok(Rc::clone(folder));
        }
        let folder = Rc::new(self.work.undo_of(journal)?);
        // A journal speaks of its own folder and of that of the one it takes back.
        if held.undo.len() >= 4 {
            held.undo.clear();
        }
        held.undo.insert(journal, Rc::clone(&folder));
        Ok(folder)
    }
}

/// Any one entry of a directory, by as few reads as it takes.
///
/// # Errors
/// `NAMETOOLONG` if it has one that we cannot name, else what the kernel says.
pub(super) fn any_entry(folder: &Folder) -> Result<Option<Name>, Errno> {
    // A handle of its own begins at the first entry.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fresh = openat2(folder, c".", flags, Mode::empty(), BENEATH)?;
    let mut buffer = [MaybeUninit::uninit(); ENTRY_LEN];
    let mut entries = RawDir::new(fresh, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let bytes = entry.file_name().to_bytes();
        if !matches!(bytes, b"." | b"..") {
            return Name::new(bytes).map(Some).map_err(|_| Errno::NAMETOOLONG);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::super::folder::Folder;
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn few_are_held_however_many_are_asked_for_and_the_last_ones_are() {
        let outer = tempfile::tempdir().unwrap();
        let folder = Rc::new(Folder::open(outer.path()).unwrap());
        let identity = |inode| Identity { inode, birth: None };
        let mut held = Held::default();
        for inode in 0..1000 {
            held.keep(identity(inode), Rc::clone(&folder));
            held.keep(identity(inode), Rc::clone(&folder));
            // One that is used all the time stays.
            assert!(held.find(identity(0)).is_some());
            assert_eq!(held.folders.len(), held.used.len());
            assert!(held.folders.len() <= HELD_MAX);
        }
        assert!(held.find(identity(999)).is_some() && held.find(identity(800)).is_some());
        assert!(held.find(identity(1)).is_none());
        held.forget(identity(999));
        assert!(held.find(identity(999)).is_none());
        assert_eq!(held.folders.len(), held.used.len());
    }

    #[test]
    fn any_entry_is_one_of_them_until_there_is_none() {
        let outer = tempfile::tempdir().unwrap();
        let folder = Folder::open(outer.path()).unwrap();
        for index in 0..100 {
            std::fs::write(outer.path().join(format!("{index:0>200}")), "").unwrap();
        }
        for _ in 0..100 {
            folder.remove_file(&any_entry(&folder).unwrap().unwrap()).unwrap();
        }
        assert_eq!(any_entry(&folder), Ok(None));
        folder.make_file(&name("last")).unwrap();
        assert_eq!(any_entry(&folder), Ok(Some(name("last"))));
    }
}
