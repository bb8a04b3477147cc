//! How two generations are related.

use crate::units::Generation;

/// A generation and where it came from. Only ids count: the numbers are for people.
#[derive(Clone, Copy, Debug)]
pub struct Lineage<'a> {
    /// The data as it is.
    pub current: Generation,
    /// What it was made from, newest first.
    pub history: &'a [Generation],
}

/// How one lineage stands to another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Relation {
    /// The same generation.
    Equal,
    /// The other's current generation is in this one's history.
    Ahead,
    /// This one's current generation is in the other's history.
    Behind,
    /// They have a common past, and each went on without the other.
    Diverged,
    /// They have nothing in common.
    Unrelated,
}

impl Lineage<'_> {
    /// How this one stands to `other`. Two that contradict each other count as diverged.
    pub fn relation_to(&self, other: &Lineage<'_>) -> Relation {
        if self.current.id == other.current.id {
            return Relation::Equal;
        }
        match (self.came_from(other.current), other.came_from(self.current)) {
            (true, false) => Relation::Ahead,
            (false, true) => Relation::Behind,
            (true, true) => Relation::Diverged,
            (false, false) if self.common_ancestor(other).is_some() => Relation::Diverged,
            (false, false) => Relation::Unrelated,
        }
    }

    /// Each claims to have been made from the other: one of the records is not genuine.
    pub fn contradicts(&self, other: &Lineage<'_>) -> bool {
        self.current.id != other.current.id
            && self.came_from(other.current)
            && other.came_from(self.current)
    }

    /// The newest generation that is in both.
    pub fn common_ancestor(&self, other: &Lineage<'_>) -> Option<Generation> {
        std::iter::once(&self.current).chain(self.history).copied().find(|&g| other.contains(g))
    }

    /// Whether `generation` is the current one or one that it was made from.
    pub fn contains(&self, generation: Generation) -> bool {
        self.current.id == generation.id || self.came_from(generation)
    }

    fn came_from(&self, generation: Generation) -> bool {
        self.history.iter().any(|entry| entry.id == generation.id)
    }
}
