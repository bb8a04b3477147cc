//! What a delta is judged against: the index as it is when the delta begins.

use std::sync::{Mutex, PoisonError};

use super::super::index::{IndexError, Rows, View};
use crate::manifest::{self, Name, Object};
use crate::units::{ObjectId, TreePosition};

/// The index at one generation. Looking something up cannot fail for whoever checks records: the first
/// error is kept, and nothing counts before it was asked for.
pub struct Base {
    view: View,
    position: TreePosition,
    failed: Mutex<Option<IndexError>>,
}

impl Base {
    /// The index as `view` has it.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn new(view: View) -> Result<Self, IndexError> {
        let position = view.position()?;
        Ok(Self { view, position, failed: Mutex::new(None) })
    }

    /// Which generation it is.
    pub fn position(&self) -> TreePosition {
        self.position
    }

    /// The rows themselves.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The first error of what was looked up so far.
    ///
    /// # Errors
    /// That one.
    pub fn check(&self) -> Result<(), IndexError> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.take().map_or(Ok(()), Err)
    }

    fn keep<T: Default>(&self, looked_up: Result<T, IndexError>) -> T {
        looked_up.unwrap_or_else(|error| {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
            T::default()
        })
    }
}

impl manifest::View for Base {
    fn object(&self, id: ObjectId) -> Option<Object> {
        let row = self.keep(self.view.object(id));
        row.map(|row| row.entry.object().clone())
    }

    fn links(&self, id: ObjectId) -> u64 {
        self.keep(self.view.links(id))
    }

    fn name(&self, directory: ObjectId, name: &Name) -> Option<ObjectId> {
        self.keep(self.view.name(directory, name))
    }

    fn place(&self, directory: ObjectId) -> Option<(ObjectId, Name)> {
        self.keep(self.view.places_of(directory, 1)).pop()
    }

    fn count(&self, directory: ObjectId) -> u64 {
        self.keep(self.view.count(directory))
    }

    fn next_name(&self, directory: ObjectId, after: Option<&Name>) -> Option<(Name, ObjectId)> {
        // The least bytes above a name are the name and a zero.
        let from = after.map(|name| [name.bytes(), &[0]].concat()).unwrap_or_default();
        self.keep(self.view.entries(directory, &from, 1)).pop()
    }

    fn entries(&self) -> u64 {
        self.keep(self.view.name_count())
    }
}
