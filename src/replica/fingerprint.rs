//! What of a core matters for what it does next: a model checker knows a state by this hash.
//!
//! Left out are what never changes after the start, and names that only count up: of an I/O or a
//! write of metadata only its place in the order of beginning matters, not its number. The daemon
//! never asks for this hash.

use std::hash::{Hash, Hasher};

use super::Replica;
use crate::metadata::MapMemory;

impl<M: MapMemory> Hash for Replica<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.records, &self.dirty, &self.log, &self.io).hash(state);
        (&self.role, &self.controller, &self.link, &self.writes, &self.window).hash(state);
        (&self.flushes, &self.background, &self.verify, &self.desk, &self.services).hash(state);
        (&self.fresh_ids, &self.orphaned, self.now, self.size, &self.resize, &self.outdating)
            .hash(state);
    }
}
