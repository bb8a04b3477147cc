//! Directories of the tree, held open by their objects.
//!
//! A directory is opened name by name from the root down, each by one call that follows no link. Some
//! stay open, so that neighbours cost one call.

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::super::Folder;
use super::{Base, ReceiveError, failed};
use crate::manifest::{Name, PATH_DEPTH_MAX};
use crate::units::ObjectId;

/// Directories that are held open at once, at most: a process has 1,024 descriptors, unless it asked for
/// more.
const OPEN_MAX: usize = 128;

/// Says where directories stand.
pub(super) trait Places {
    /// The parent and the name of a directory.
    fn place(&self, directory: ObjectId) -> Result<Option<(ObjectId, Name)>, ReceiveError>;
}

impl Places for Base {
    fn place(&self, directory: ObjectId) -> Result<Option<(ObjectId, Name)>, ReceiveError> {
        let place = crate::manifest::View::place(self, directory);
        self.check()?;
        Ok(place)
    }
}

impl Places for BTreeMap<ObjectId, (ObjectId, Name)> {
    fn place(&self, directory: ObjectId) -> Result<Option<(ObjectId, Name)>, ReceiveError> {
        Ok(self.get(&directory).cloned())
    }
}

/// The held directories of one tree.
#[derive(Debug)]
pub(super) struct Doors<'t> {
    root: &'t Folder,
    open: BTreeMap<ObjectId, Folder>,
}

impl<'t> Doors<'t> {
    pub(super) fn new(root: &'t Folder) -> Self {
        Self { root, open: BTreeMap::new() }
    }

    /// A directory; `None` if it is not where it should be.
    pub(super) fn folder(
        &mut self,
        id: ObjectId,
        places: &impl Places,
    ) -> Result<Option<&Folder>, ReceiveError> {
        let mut way = Vec::new();
        let mut at = id;
        while at != ObjectId::ROOT && !self.open.contains_key(&at) {
            let Some((up, name)) = places.place(at)? else { return Ok(None) };
            way.push((at, name));
            if way.len() > PATH_DEPTH_MAX {
                return Ok(None);
            }
            at = up;
        }
        if way.is_empty() {
            return Ok(Some(self.held(id)));
        }
        let mut last: Option<Folder> = None;
        while let Some((inner, name)) = way.pop() {
            let opened = last.as_ref().unwrap_or_else(|| self.held(at)).child(&name);
            let opened = match opened {
                Ok(opened) => opened,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
                Err(errno) => return Err(failed("open a directory of the tree")(errno)),
            };
            if let Some(above) = last.replace(opened) {
                self.keep(at, above);
            }
            at = inner;
        }
        if let Some(last) = last {
            self.keep(id, last);
        }
        Ok(Some(self.held(id)))
    }

    fn held(&self, id: ObjectId) -> &Folder {
        self.open.get(&id).unwrap_or(self.root)
    }

    fn keep(&mut self, id: ObjectId, folder: Folder) {
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(id, folder);
    }
}
