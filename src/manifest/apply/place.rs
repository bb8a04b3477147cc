//! Where an object can be while a tree is on its way to the next generation.
//!
//! A place is a directory and a single name in it, never a path: directories move as well, and the
//! kernel gets single names only (directory.md 11). Which directory is said by its identity, so a
//! place means the same however often the directory itself has been renamed. How a driver finds a
//! directory by its identity is in `locate.rs`.

use super::super::{Identity, Name};

/// Number of a journal on this node. They rise, and none is used twice, which the numbers of tree
/// generations do not give: one can be undone and applied again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct JournalNumber(pub u64);

/// Number of a name in one of the folders of the work area. It is ours, never the peer's.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u64);

/// One name, in the tree or in the work area. The quarantine is not among them: what goes there is
/// foreign, so no journal knows of it, and the driver gives it a name when it meets it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Place {
    /// An entry of a directory of the tree, wherever that directory is.
    Tree {
        /// The directory.
        directory: Identity,
        /// The name in it.
        name: Name,
    },
    /// In `stage/`: where a new object was born.
    Stage(Slot),
    /// In `stage/`: where an object waits that moves.
    Park {
        /// The journal that moves it.
        journal: JournalNumber,
        /// The name.
        slot: Slot,
    },
    /// In `stage/`: where a further name of an object is made. An apply that is undone leaves it
    /// there.
    Link {
        /// The journal that makes it.
        journal: JournalNumber,
        /// The name.
        slot: Slot,
    },
    /// In `undo/`, in the folder of one journal: where that which was replaced or deleted is kept.
    Undo {
        /// The folder.
        journal: JournalNumber,
        /// The name in it.
        slot: Slot,
    },
}

impl Place {
    /// The directory of the tree that the name is in; `None` in the work area.
    pub fn directory(&self) -> Option<Identity> {
        match self {
            Self::Tree { directory, name: _ } => Some(*directory),
            Self::Stage(_) | Self::Park { .. } | Self::Link { .. } | Self::Undo { .. } => None,
        }
    }
}
