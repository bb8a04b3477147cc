//! What applications do to a tree, and how to tell afterwards that it is whole.

pub(crate) mod maildir;
pub(crate) mod many_files;
pub(crate) mod repository;
