//! The pure core of directory resources: what a tree is, how two differ, and how one becomes the other.
//!
//! It does no I/O and knows no database: trees come as sorted iterators, plans go out as lists of
//! operations, and what a crash may leave is enumerated in tests. Reading order: `name.rs` and `entry.rs`
//! say what a tree is made of; `record` how that looks as bytes; `content.rs` and `fold.rs` how it is
//! hashed; `diff.rs` what makes one tree another, `check` whether a tree may become what a peer says;
//! `reconcile.rs` which objects of two trees are the same; `judge.rs`, `standing.rs`, `retain.rs` and
//! `guard.rs` are decisions; `apply` is how one becomes the next across a crash. `source` and `target` say
//! when all that is done, on the node that serves and on the other.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod apply;
mod bytes;
mod check;
mod content;
mod diff;
mod dirty;
mod entry;
mod error;
mod fold;
mod guard;
mod judge;
mod kept;
mod leave_out;
mod limits;
mod name;
mod reconcile;
mod record;
mod register;
mod retain;
mod row;
pub mod source;
mod standing;
pub mod target;
#[cfg(test)]
mod together;
mod tree;

pub use check::{Check, View, check};
pub use content::{
    ChunkHash, ContentBuilder, SegmentHash, rehash, segment_hash, segment_of, whole_chunk_count,
};
pub use diff::{Segments, diff_names, diff_objects};
pub use dirty::{DIRECTORY_NAMES_MAX, DirtySet, Due, NAMES_MAX, Pace};
pub use entry::{
    Body, ContentHash, FileTime, Identity, Kind, MODE_MASK, Metadata, NANOS_PER_SECOND, Object,
    Stamp, TARGET_LEN_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX, Xattrs,
};
pub use error::ManifestError;
pub use fold::{
    Bucket, BucketHash, Buckets, DirectoryHash, EntryHash, Scope, directory_hash, ends_bucket, fold,
};
pub use guard::{Allowed, Deletes, Guard, HaltReason, MassDelete, Remedy, RootFacts, guard};
pub use judge::{Granularity, Indexed, Judgement, TreeClock, is_too_young, judge};
pub use kept::{LeaveOut, MARKER, check_object, keeps_xattr};
pub use leave_out::LeftOut;
pub use limits::{
    ENTRIES_MAX, FILE_LEN_MAX, RECORD_LEN_MAX, SEGMENT_CHUNKS, WANTED_CHUNKS_MAX, chunk_count,
    segment_count,
};
pub use name::{NAME_LEN_MAX, Name, NameError, PATH_DEPTH_MAX, PATH_LEN_MAX, RESERVED, TreePath};
pub use reconcile::{Keep, Numbers, Preview, Wanted, Whole};
pub use record::{Beside, Entry, Record};
pub use register::{NoRegister, REGISTER_BLOCK_LEN, decode_register, encode_register};
pub use retain::{Kept, Policy, Reason, reasons, retain};
pub use row::Row;
pub use standing::{
    CALM, Fitness, Held, Pending, Standing, UnfitWhy, Window, label, lag, standing,
};
pub use tree::{Node, Tree, apply};
