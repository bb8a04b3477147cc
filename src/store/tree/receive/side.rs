//! What of a tree a delta touches, before and afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::super::index::Rows;
use super::{ReceiveError, Received};
use crate::manifest::apply::Side;
use crate::manifest::{Kind, Name};
use crate::units::ObjectId;

/// The touched part of the base and of the target, as a plan needs them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sides {
    /// The base. It lacks the root if the index has none.
    pub base: Side,
    /// The target.
    pub target: Side,
    /// Objects whose own state matters: they change, win or lose a name, or hold such names. The others
    /// only lead to these.
    pub touched: BTreeSet<ObjectId>,
}

impl Sides {
    /// What `received` touches: all names of each object that it tells of, and all directories above.
    ///
    /// # Errors
    /// [`ReceiveError::Index`].
    pub fn of(received: &Received) -> Result<Self, ReceiveError> {
        let mut sides = Self::default();
        let mut won: BTreeMap<ObjectId, Vec<&(ObjectId, Name)>> = BTreeMap::new();
        sides.touched.extend(received.objects().keys());
        for (key, id) in received.names() {
            sides.touched.insert(key.0);
            sides.touched.extend(received.base().view().name(key.0, &key.1)?);
            if let Some(id) = id {
                sides.touched.insert(*id);
                won.entry(*id).or_default().push(key);
            }
        }
        let mut pending = sides.touched.clone();
        pending.insert(ObjectId::ROOT);
        let mut known = BTreeSet::new();
        while let Some(id) = pending.pop_first() {
            known.insert(id);
            let won = won.get(&id).map(Vec::as_slice).unwrap_or_default();
            let above = sides.include(received, id, won)?;
            pending.extend(above.difference(&known));
        }
        Ok(sides)
    }

    /// Puts one object into both sides; gives the directories in which it has names.
    fn include(
        &mut self,
        received: &Received,
        id: ObjectId,
        won: &[&(ObjectId, Name)],
    ) -> Result<BTreeSet<ObjectId>, ReceiveError> {
        let mut above = BTreeSet::new();
        let mut is_there = id == ObjectId::ROOT;
        if let Some(object) = received.base_object(id)? {
            self.base.objects.insert(id, object);
            for key in received.base().view().places_of(id, usize::MAX)? {
                above.insert(key.0);
                if !received.names().contains_key(&key) {
                    is_there = true;
                    self.target.names.insert(key.clone(), id);
                }
                self.base.names.insert(key, id);
            }
        }
        for key in won {
            above.insert(key.0);
            is_there = true;
            self.target.names.insert((*key).clone(), id);
        }
        if is_there && let Some(object) = received.object(id)? {
            self.target.objects.insert(id, object);
        }
        Ok(above)
    }
}

/// Where each directory of one side stands.
pub(super) fn places_in(side: &Side) -> BTreeMap<ObjectId, (ObjectId, Name)> {
    let is_directory =
        |id: &ObjectId| side.objects.get(id).is_some_and(|it| it.kind() == Kind::Directory);
    let directories = side.names.iter().filter(|(_, id)| is_directory(id));
    directories.map(|(key, id)| (*id, key.clone())).collect()
}
