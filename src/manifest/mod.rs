//! The pure core of directory resources: what a tree is, how two differ, and how one becomes the other.
//!
//! It does no I/O and knows no database: trees come as sorted iterators, plans go out as lists of
//! operations, and what a crash may leave is enumerated in tests. Reading order: `name.rs` and `entry.rs`
//! say what a tree is made of.

#![deny(clippy::wildcard_enum_match_arm)]

mod dirty;
mod entry;
mod leave_out;
mod name;

pub use dirty::{DIRECTORY_NAMES_MAX, DirtySet, Due, NAMES_MAX, Pace};
pub use entry::{
    Body, ContentHash, FileTime, Identity, Kind, MODE_MASK, Metadata, NANOS_PER_SECOND, Object,
    Stamp, TARGET_LEN_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX, Xattrs,
};
pub use leave_out::{LeaveOut, MARKER};
pub use name::{NAME_LEN_MAX, Name, NameError, PATH_DEPTH_MAX, PATH_LEN_MAX, RESERVED, TreePath};
