//! What becomes of each object between two states of a tree, and where new ones are born.
//!
//! A [`Change`] describes the touched part of both states, not the whole tree: every name that
//! differs; all names of an object that gets a new inode or further names; and the name of every
//! directory on the way from the root to one of these. More does no harm, the whole tree included.

use std::collections::BTreeMap;

use super::super::{Body, Identity, Kind, Name, Object};
use super::operation::PlanError;
use super::place::{Place, Slot};
use crate::units::ObjectId;

/// The touched part of one state of a tree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Side {
    /// Directory and name, and which object is there.
    pub names: BTreeMap<(ObjectId, Name), ObjectId>,
    /// What each of these objects is, and the root.
    pub objects: BTreeMap<ObjectId, Object>,
}

impl Side {
    /// The names of each object in rising order.
    pub(super) fn names_by_object(&self) -> BTreeMap<ObjectId, Vec<(ObjectId, Name)>> {
        let mut result: BTreeMap<ObjectId, Vec<_>> = BTreeMap::new();
        for (name, object) in &self.names {
            result.entry(*object).or_default().push(name.clone());
        }
        result
    }

    fn is_directory(&self, id: ObjectId) -> bool {
        self.objects.get(&id).is_some_and(|object| object.kind() == Kind::Directory)
    }
}

/// An object that was born in the work area for the target.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Staged {
    /// What the file system calls it.
    pub identity: Identity,
    /// Its name in `stage/`, if [`birth_of`] says that it has one.
    pub slot: Option<Slot>,
}

/// Two states of a tree, and the objects that take it from one to the other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Change {
    /// What the tree is.
    pub base: Side,
    /// What it is to be.
    pub target: Side,
    /// Identities of the objects of the base, as they were found when the generation was prepared.
    pub found: BTreeMap<ObjectId, Identity>,
    /// Objects of the target that are new, or that get a new inode.
    pub staged: BTreeMap<ObjectId, Staged>,
    /// Files that are patched in place: where the new chunks are staged and the old ones are saved.
    pub patches: BTreeMap<ObjectId, (Place, Place)>,
}

impl Change {
    /// Identity of an object of the target.
    ///
    /// # Errors
    /// [`PlanError`] if it is not described, not found or not staged.
    pub fn identity_in_target(&self, id: ObjectId) -> Result<Identity, PlanError> {
        match turn_of(self, id)? {
            Turn::Born | Turn::Replaced => {
                Ok(self.staged.get(&id).ok_or(PlanError::Unstaged(id))?.identity)
            }
            Turn::Kept | Turn::Patched | Turn::Gone => self.identity_in_base(id),
        }
    }

    /// Identity of an object of the base.
    ///
    /// # Errors
    /// [`PlanError::Unfound`].
    pub fn identity_in_base(&self, id: ObjectId) -> Result<Identity, PlanError> {
        self.found.get(&id).copied().ok_or(PlanError::Unfound(id))
    }
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// Only the target has it.
    Born,
    /// Only the base has it.
    Gone,
    /// It stays the inode that it is; names and metadata may change.
    Kept,
    /// It stays the inode that it is, with chunks written over.
    Patched,
    /// All its names lead to a new inode afterwards: other content, or other metadata of something
    /// whose metadata cannot be set on a held descriptor.
    Replaced,
}

/// What becomes of object `id`.
///
/// # Errors
/// [`PlanError`] if neither side describes it, or both do, differently in kind.
pub fn turn_of(change: &Change, id: ObjectId) -> Result<Turn, PlanError> {
    match (change.base.objects.get(&id), change.target.objects.get(&id)) {
        (None, None) => Err(PlanError::Undescribed(id)),
        (None, Some(_)) => Ok(Turn::Born),
        (Some(_), None) => Ok(Turn::Gone),
        (Some(old), Some(new)) if old.kind() != new.kind() => Err(PlanError::OtherKind(id)),
        (Some(old), Some(new)) => Ok(match &new.body {
            Body::Directory => Turn::Kept,
            Body::Regular { .. } if old.body == new.body => Turn::Kept,
            Body::Regular { .. } if change.patches.contains_key(&id) => Turn::Patched,
            Body::Regular { .. } => Turn::Replaced,
            Body::Symlink { .. }
            | Body::Fifo
            | Body::Socket
            | Body::CharDevice { .. }
            | Body::BlockDevice { .. } => {
                if old == new {
                    Turn::Kept
                } else {
                    Turn::Replaced
                }
            }
        }),
    }
}

/// Where a new object is born.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Birth {
    /// Under a name of its own in `stage/`; `name` is the first name in the tree that it gets.
    Slot {
        /// Directory and name.
        name: (ObjectId, Name),
    },
    /// In a new directory, which takes it along into the tree.
    Within {
        /// Directory and name.
        name: (ObjectId, Name),
    },
}

/// Where object `id` is born, if it is; `names` are its names in the target, in rising order. Its
/// other names, if there are any, are made by the apply.
pub fn birth_of(change: &Change, id: ObjectId, names: &[(ObjectId, Name)]) -> Option<Birth> {
    let is_born = matches!(turn_of(change, id), Ok(Turn::Born | Turn::Replaced));
    let first = names.first().filter(|_| is_born)?;
    let is_new = |directory| {
        change.target.is_directory(directory) && !change.base.objects.contains_key(&directory)
    };
    // A name that the object has already comes first: whoever reads it sees the new version then.
    let had = |name: &&(ObjectId, Name)| change.base.names.get(*name) == Some(&id);
    let lasting = |name: &&(ObjectId, Name)| !is_new(name.0);
    let outside = names.iter().find(had).or_else(|| names.iter().find(lasting));
    Some(match outside {
        Some(name) => Birth::Slot { name: name.clone() },
        None => Birth::Within { name: first.clone() },
    })
}
