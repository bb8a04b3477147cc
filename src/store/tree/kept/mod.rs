//! What is kept of each generation that a tree has left, so that it can be gone back to.
//!
//! Beside the journal of an apply stands a file (`file.rs`) with what is to be told of the generation, and with
//! the generation before it as a difference: the rows of the index that the apply changed, and where in
//! `undo/` the bytes are that it took out of the tree. `compose.rs` puts the differences of several applies
//! together, back to any generation that is kept; `held.rs` finds chunks in `undo/`.
//!
//! Going back is a delta like any other, so nothing that is kept is used up by it.

mod compose;
mod file;
mod held;
#[cfg(test)]
mod tests;

pub(super) use compose::Compose;
pub use file::{About, KeptError};
pub(super) use file::{FILE_PREFIX, Head, Hold, Kept, Writer, head, number_of};
pub(super) use held::Held;
