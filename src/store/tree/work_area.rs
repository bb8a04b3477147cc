//! The folder beside a tree in which objects are born, wait, and are kept for the way back.
//!
//! It lies on the mount of the tree, since a rename crosses none. Only we may enter it, so nothing in it
//! can be exchanged under our hands. The names in it are ours, never the peer's.

use rustix::fs::fstatfs;
use rustix::io::Errno;

use super::folder::{Folder, Found, look_at};
use crate::manifest::apply::{JournalNumber, Place, Slot};
use crate::manifest::{Body, Granularity, Name, TreeClock};

/// File systems whose clock is that of the kernel, by their magic numbers of statfs(2): ext4, XFS, btrfs,
/// tmpfs.
const FINE: [u64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// Why a work area cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkAreaError {
    /// The kernel refused.
    #[error("the work area: {0}")]
    Kernel(#[from] Errno),
    /// A rename between the two would fail.
    #[error(
        "the work area is not in the mount of the tree: set work_dir to a folder of the same mount"
    )]
    OtherMount,
}

/// The folder, and those in it.
#[derive(Debug)]
pub struct WorkArea {
    stage: Folder,
    undo: Folder,
    lost: Folder,
    cookies: Folder,
}

impl WorkArea {
    /// Opens the work area `name` in `parent`, and makes what is missing of it. `tree` is the root of the
    /// tree.
    ///
    /// # Errors
    /// [`WorkAreaError`].
    pub fn open(parent: &Folder, name: &Name, tree: &Found) -> Result<Self, WorkAreaError> {
        let area = folder_in(parent, name)?;
        if area.look_at_self()?.mount != tree.mount {
            return Err(WorkAreaError::OtherMount);
        }
        Ok(Self {
            stage: folder_in(&area, &our_name("stage"))?,
            undo: folder_in(&area, &our_name("undo"))?,
            lost: folder_in(&area, &our_name("lost+hotpair"))?,
            cookies: folder_in(&area, &our_name("cookies"))?,
        })
    }

    /// Where objects are born, and where those wait that move.
    pub fn stage(&self) -> &Folder {
        &self.stage
    }

    /// Where each journal has a folder for what it took out of the tree.
    pub fn undo(&self) -> &Folder {
        &self.undo
    }

    /// Where that goes which no journal knows of.
    pub fn lost(&self) -> &Folder {
        &self.lost
    }

    /// Where files are made whose events say that all earlier ones were read.
    pub fn cookies(&self) -> &Folder {
        &self.cookies
    }

    /// What the file system of the tree calls now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn clock(&self) -> Result<TreeClock, Errno> {
        let name = our_name("clock");
        match self.cookies.remove_file(&name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
        let now = look_at(self.cookies.make_file(&name)?)?.stamp.ctime;
        self.cookies.remove_file(&name)?;
        Ok(TreeClock { now, granularity: self.granularity()? })
    }

    /// How fine the clock of that file system is.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn granularity(&self) -> Result<Granularity, Errno> {
        let magic = u64::try_from(fstatfs(&self.cookies)?.f_type).unwrap_or_default();
        Ok(if FINE.contains(&magic) { Granularity::FINE } else { Granularity::COARSE })
    }

    /// The folder of one journal in `undo/`, which is made if it is missing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn undo_of(&self, journal: JournalNumber) -> Result<Folder, Errno> {
        folder_in(&self.undo, &our_name(&journal.0.to_string()))
    }

    /// The name of a place within its folder; `None` for one in the tree.
    pub fn name_of(place: &Place) -> Option<Name> {
        let text = match place {
            Place::Stage(Slot(slot)) => format!("new-{slot}"),
            Place::Park { journal, slot } => format!("park-{}-{}", journal.0, slot.0),
            Place::Link { journal, slot } => format!("link-{}-{}", journal.0, slot.0),
            Place::Undo { journal: _, slot: Slot(slot) } => slot.to_string(),
            Place::Tree { .. } => return None,
        };
        Some(our_name(&text))
    }
}

/// A name that we made up.
fn our_name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("words and numbers are names")
}

fn folder_in(parent: &Folder, name: &Name) -> Result<Folder, Errno> {
    match parent.make(name, &Body::Directory) {
        Ok(()) => parent.sync()?,
        Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno),
    }
    parent.child(name)
}
