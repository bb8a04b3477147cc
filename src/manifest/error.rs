//! Why a record, or what records say together, is not allowed.

use super::limits::{ENTRIES_MAX, FILE_LEN_MAX, RECORD_LEN_MAX};
use super::{NameError, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX};
use crate::units::ObjectId;

/// Why these bytes are no record, or these records no change of this tree. From a peer it means:
/// refuse the generation and close the link. From a disk: the index or journal is damaged.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ManifestError {
    /// The bytes end within a field.
    #[error("a record is cut off: {missing} more bytes are needed")]
    Short {
        /// How many are missing of the field that was being read.
        missing: usize,
    },
    /// Bytes follow where a record ends.
    #[error("{len} bytes follow the end of a record")]
    Trailing {
        /// How many.
        len: usize,
    },
    /// Longer than [`RECORD_LEN_MAX`].
    #[error("a record has {len} bytes, at most {RECORD_LEN_MAX} are allowed")]
    RecordTooLong {
        /// Its length.
        len: usize,
    },
    /// No record has this number.
    #[error("unknown kind of record: {found}")]
    RecordKind {
        /// What stands there.
        found: u8,
    },
    /// No object has this number.
    #[error("unknown kind of object: {found}")]
    Kind {
        /// What stands there.
        found: u8,
    },
    /// A field that says yes or no says something else.
    #[error("a flag is {found}, it can be 0 or 1")]
    Flag {
        /// What stands there.
        found: u8,
    },
    /// Bits beyond permissions, setuid, setgid, sticky; or a mode of a symbolic link.
    #[error("mode {found:#o} is not one that is kept")]
    Mode {
        /// What stands there.
        found: u16,
    },
    /// A second has no more than 1,000,000,000 nanoseconds.
    #[error("a time has {found} nanoseconds beside its seconds")]
    Nanos {
        /// What stands there.
        found: u32,
    },
    /// Longer than [`FILE_LEN_MAX`].
    #[error("a file has {found} bytes, at most {FILE_LEN_MAX} are allowed")]
    FileTooLong {
        /// Its length.
        found: u64,
    },
    /// The name of an extended attribute is empty, longer than 255 bytes, holds NUL, or
    /// is of no kind that is kept.
    #[error("the name of an extended attribute, {len} bytes long, is none that is kept")]
    XattrName {
        /// Its length.
        len: usize,
    },
    /// Longer than [`XATTR_VALUE_LEN_MAX`].
    #[error("an extended attribute has {len} bytes, at most {XATTR_VALUE_LEN_MAX} are allowed")]
    XattrValue {
        /// Length of the value.
        len: usize,
    },
    /// Names of extended attributes do not rise, or one is there twice.
    #[error("extended attributes are not in rising order")]
    XattrOrder,
    /// More than [`XATTRS_LEN_MAX`].
    #[error("extended attributes have {len} bytes or more, at most {XATTRS_LEN_MAX} are allowed")]
    Xattrs {
        /// Bytes of names and values up to where the limit was met.
        len: usize,
    },
    /// The target of a symbolic link is empty, too long, or holds NUL.
    #[error("the target of a symbolic link, {len} bytes long, cannot be one")]
    Target {
        /// Length of the target.
        len: usize,
    },
    /// A name or a path that cannot be one.
    #[error("{0}")]
    Name(NameError),
    /// Objects have numbers from one on.
    #[error("object number zero")]
    ObjectZero,
    /// And they end far below what 64 bits hold.
    #[error("object number {found}, the highest is {highest}", highest = crate::units::ObjectId::MAX)]
    ObjectTooHigh {
        /// The number.
        found: u64,
    },
    /// A directory has one name, so it needs no path in its record.
    #[error("the record of a directory has a path")]
    DirectoryPath,
    /// A list of chunk hashes is empty, reaches over the end of a segment, or holds the zero
    /// chunk's.
    #[error("chunks from {first} on are not written as they have to be")]
    Chunks {
        /// The first of them.
        first: u64,
    },
    /// Records, names or chunks do not rise strictly, or two neighbours should be one.
    #[error("records are not in rising order")]
    Order,
    /// Chunks of an object that was not described just before, or is no regular file.
    #[error("chunks of object {id}, whose record does not come right before them")]
    ChunksOfOther {
        /// Whose they say to be.
        id: ObjectId,
    },
    /// Chunks behind the end of a file, or a short last chunk within a run of whole zero chunks.
    #[error("object {id} has chunks behind its end")]
    ChunksBeyond {
        /// Whose.
        id: ObjectId,
    },
    /// A new or longer file without the hashes of all its new chunks.
    #[error("object {id} lacks the hash of chunk {chunk}")]
    ChunkMissing {
        /// Whose.
        id: ObjectId,
        /// The first that is missing.
        chunk: u64,
    },
    /// The chunks of a file do not have the content hash of its record.
    #[error("the chunks of object {id} are not those of its content hash")]
    Content {
        /// Whose.
        id: ObjectId,
    },
    /// The root is no directory, has a name, or is not there.
    #[error("the root of the tree is not one directory without a name")]
    Root,
    /// An object of the tree turned into another kind: it is another object then.
    #[error("object {id} changes its kind")]
    KindChanged {
        /// Which.
        id: ObjectId,
    },
    /// A name points to an object that nothing describes.
    #[error("a name points to object {id}, which is not there")]
    Unknown {
        /// Which.
        id: ObjectId,
    },
    /// A record describes an object that has no name in the result.
    #[error("object {id} has no name")]
    Nameless {
        /// Which.
        id: ObjectId,
    },
    /// A directory would have two names.
    #[error("directory {id} has {names} names")]
    SecondName {
        /// Which.
        id: ObjectId,
        /// How many.
        names: u64,
    },
    /// A name stands in an object that is not there or is no directory.
    #[error("a name stands in object {directory}, which is no directory of the tree")]
    Parent {
        /// In which.
        directory: ObjectId,
    },
    /// A directory goes, but what is in it stays.
    #[error("directory {directory} goes with {entries} entries left in it")]
    NotEmpty {
        /// Which.
        directory: ObjectId,
        /// What is left.
        entries: u64,
    },
    /// A name goes that is not there, or is said to be what it is already.
    #[error("a name in directory {directory} does not change")]
    NoChange {
        /// In which.
        directory: ObjectId,
    },
    /// A directory would be below itself.
    #[error("directory {id} would be below itself")]
    Cycle {
        /// One of those in the ring.
        id: ObjectId,
    },
    /// More objects and names than whoever asked for the check allows.
    #[error("a delta has more records than are allowed")]
    TooMany,
    /// More than [`ENTRIES_MAX`].
    #[error("a tree has {found} entries, at most {ENTRIES_MAX} are allowed")]
    Entries {
        /// How many it would have.
        found: u64,
    },
}

impl From<NameError> for ManifestError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}
