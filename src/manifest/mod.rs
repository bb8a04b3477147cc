//! The pure core of directory resources: what a tree is, how two differ, and how one becomes the other.
//!
//! It does no I/O and knows no database: trees come as sorted iterators, plans go out as lists of
//! operations, and what a crash may leave is enumerated in tests. Reading order: `name.rs` and `entry.rs`
//! say what a tree is made of; `apply/` is how one becomes the next.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod apply;
mod entry;
mod name;

pub use entry::{
    Body, ContentHash, FileTime, Identity, Kind, MODE_MASK, Metadata, NANOS_PER_SECOND, Object,
    Stamp, TARGET_LEN_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX, Xattrs,
};
pub use name::{NAME_LEN_MAX, Name, NameError, PATH_DEPTH_MAX, PATH_LEN_MAX, RESERVED, TreePath};
