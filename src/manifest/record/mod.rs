//! Canonical bytes of what is hashed and of what is sent: one way to write each thing, by hand.
//!
//! An [`Entry`] is what a name in a tree stands for, as the hash of its directory sees it: without
//! the number of the object, which is no part of what the tree is. A [`Record`] is one change, as a
//! delta carries it. All numbers are little endian. What can be read is written back as the same
//! bytes; everything else is an error.

use super::bytes::{Reader, Writer};
use super::content::ChunkHash;
use super::fold::DirectoryHash;
use super::kept::{check_object, keeps_xattr};
use super::limits::{RECORD_LEN_MAX, SEGMENT_CHUNKS, chunk_count};
use super::{Body, ContentHash, FileTime, Kind, ManifestError, Metadata, Name, Object, TreePath};
use crate::manifest::limits::FILE_LEN_MAX;
use crate::units::ObjectId;

/// What the record of an entry has beside the object itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Beside {
    /// Nothing: an object with one name.
    Nothing,
    /// What is in the directory that it is.
    Inside(DirectoryHash),
    /// The byte-wise smallest path of an object with several names: so which names belong together
    /// is part of the hash.
    Smallest(TreePath),
}

/// What a name stands for, as it is hashed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    object: Object,
    beside: Beside,
}

impl Entry {
    /// Puts the two together.
    ///
    /// # Errors
    /// What [`check_object`] finds, and [`ManifestError::DirectoryPath`] if `beside` is not what
    /// that kind of object has.
    pub fn new(object: Object, beside: Beside) -> Result<Self, ManifestError> {
        check_object(&object)?;
        let is_directory = object.kind() == Kind::Directory;
        if is_directory != matches!(beside, Beside::Inside(_)) {
            return Err(ManifestError::DirectoryPath);
        }
        Ok(Self { object, beside })
    }

    /// The object.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// What its record has beside it.
    pub fn beside(&self) -> &Beside {
        &self.beside
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_object(&self.object, &mut Writer::new(&mut out));
        let mut to = Writer::new(&mut out);
        match &self.beside {
            Beside::Inside(hash) => to.bytes(&hash.0),
            Beside::Nothing => to.u8(0),
            Beside::Smallest(path) => {
                to.u8(1);
                to.medium(path.bytes());
            }
        }
        out
    }

    /// Reads bytes that are one entry and nothing else.
    ///
    /// # Errors
    /// [`ManifestError`] if they are not, or not as [`Entry::encode`] writes them.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > RECORD_LEN_MAX {
            return Err(ManifestError::RecordTooLong { len: bytes.len() });
        }
        let mut from = Reader::new(bytes);
        let object = take_object(&mut from)?;
        let beside = if object.kind() == Kind::Directory {
            Beside::Inside(DirectoryHash(from.array()?))
        } else {
            match from.u8()? {
                0 => Beside::Nothing,
                1 => Beside::Smallest(TreePath::new(from.medium()?)?),
                found => return Err(ManifestError::Flag { found }),
            }
        };
        let rest = from.rest();
        if !rest.is_empty() {
            return Err(ManifestError::Trailing { len: rest.len() });
        }
        Self::new(object, beside)
    }
}

/// One change of a tree. In a delta objects come first, in rising order of their numbers, each
/// followed by its chunks that changed; then names, in rising order of directory and name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Record {
    /// An object is new, or not what it was.
    Object {
        /// Which.
        id: ObjectId,
        /// What it is.
        object: Object,
    },
    /// Chunks of a regular file that are new or changed, within one segment, none of them
    /// [`ChunkHash::ZERO`]. They are no part of the object's record because those of a large file
    /// do not fit a frame.
    Chunks {
        /// Of which object.
        id: ObjectId,
        /// The first of them.
        first: u64,
        /// Their hashes.
        hashes: Vec<ChunkHash>,
    },
    /// A run of whole chunks that are zeroes now, as long as it can be.
    Zeroes {
        /// Of which object.
        id: ObjectId,
        /// The first of them.
        first: u64,
        /// How many, at least one.
        count: u64,
    },
    /// A name is new, or points to another object.
    Name {
        /// In which directory.
        directory: ObjectId,
        /// Which name.
        name: Name,
        /// To which object.
        id: ObjectId,
    },
    /// A name goes.
    Gone {
        /// In which directory.
        directory: ObjectId,
        /// Which name.
        name: Name,
    },
}

/// Numbers of the kinds of record.
const OBJECT: u8 = 1;
const CHUNKS: u8 = 2;
const ZEROES: u8 = 3;
const NAME: u8 = 4;
const GONE: u8 = 5;

impl Record {
    /// Appends its bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut to = Writer::new(out);
        match self {
            Self::Object { id, object } => {
                to.u8(OBJECT);
                to.u64(id.0);
                put_object(object, &mut to);
            }
            Self::Chunks { id, first, hashes } => {
                to.u8(CHUNKS);
                to.u64(id.0);
                to.u64(*first);
                to.u16(u16::try_from(hashes.len()).expect("they are of one segment"));
                for hash in hashes {
                    to.bytes(&hash.0);
                }
            }
            Self::Zeroes { id, first, count } => {
                to.u8(ZEROES);
                to.u64(id.0);
                to.u64(*first);
                to.u64(*count);
            }
            Self::Name { directory, name, id } => {
                to.u8(NAME);
                to.u64(directory.0);
                to.short(name.bytes());
                to.u64(id.0);
            }
            Self::Gone { directory, name } => {
                to.u8(GONE);
                to.u64(directory.0);
                to.short(name.bytes());
            }
        }
    }

    /// Reads one record from the front of `bytes`; gives what follows it too.
    ///
    /// # Errors
    /// [`ManifestError`] if there is none, or not as [`Record::encode`] writes it.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), ManifestError> {
        let (window, behind) = bytes.split_at(bytes.len().min(RECORD_LEN_MAX));
        let mut from = Reader::new(window);
        let record = match take_record(&mut from) {
            Err(ManifestError::Short { missing }) if !behind.is_empty() => {
                return Err(ManifestError::RecordTooLong { len: RECORD_LEN_MAX + missing });
            }
            result => result?,
        };
        let used = window.len() - from.rest().len();
        Ok((record, bytes.get(used..).unwrap_or_default()))
    }
}

fn take_record(from: &mut Reader<'_>) -> Result<Record, ManifestError> {
    Ok(match from.u8()? {
        OBJECT => Record::Object { id: take_id(from)?, object: take_object(from)? },
        CHUNKS => {
            let (id, first) = (take_id(from)?, from.u64()?);
            let count = from.u16()?;
            check_chunks(first, u64::from(count))?;
            let end = first % u64::from(SEGMENT_CHUNKS) + u64::from(count);
            if end > u64::from(SEGMENT_CHUNKS) {
                return Err(ManifestError::Chunks { first });
            }
            let (hashes, odd) = from.bytes(usize::from(count) * 32)?.as_chunks::<32>();
            debug_assert!(odd.is_empty(), "as many bytes as hashes have");
            let hashes: Vec<_> = hashes.iter().map(|hash| ChunkHash(*hash)).collect();
            if hashes.contains(&ChunkHash::ZERO) {
                return Err(ManifestError::Chunks { first });
            }
            Record::Chunks { id, first, hashes }
        }
        ZEROES => {
            let (id, first, count) = (take_id(from)?, from.u64()?, from.u64()?);
            check_chunks(first, count)?;
            Record::Zeroes { id, first, count }
        }
        NAME => {
            let (directory, name) = (take_id(from)?, Name::new(from.short()?)?);
            Record::Name { directory, name, id: take_id(from)? }
        }
        GONE => Record::Gone { directory: take_id(from)?, name: Name::new(from.short()?)? },
        found => return Err(ManifestError::RecordKind { found }),
    })
}

fn check_chunks(first: u64, count: u64) -> Result<(), ManifestError> {
    let is_within = first.checked_add(count).is_some_and(|end| end <= chunk_count(FILE_LEN_MAX));
    if count == 0 || !is_within {
        return Err(ManifestError::Chunks { first });
    }
    Ok(())
}

fn take_id(from: &mut Reader<'_>) -> Result<ObjectId, ManifestError> {
    match from.u64()? {
        0 => Err(ManifestError::ObjectZero),
        found if found > ObjectId::MAX.0 => Err(ManifestError::ObjectTooHigh { found }),
        id => Ok(ObjectId(id)),
    }
}

fn put_object(object: &Object, to: &mut Writer<'_>) {
    let Metadata { mode, uid, gid, mtime, xattrs } = &object.metadata;
    to.u8(object.kind().number());
    to.u16(*mode);
    to.u32(*uid);
    to.u32(*gid);
    to.i64(mtime.seconds);
    to.u32(mtime.nanos);
    to.u32(u32::try_from(xattrs.len()).expect("their bytes are limited, and so is their number"));
    for (name, value) in xattrs {
        to.short(name);
        to.long(value);
    }
    match &object.body {
        Body::Regular { size, content } => {
            to.u64(*size);
            to.bytes(&content.0);
        }
        Body::Symlink { target } => to.medium(target),
        Body::CharDevice { major, minor } | Body::BlockDevice { major, minor } => {
            to.u32(*major);
            to.u32(*minor);
        }
        Body::Directory | Body::Fifo | Body::Socket => {}
    }
}

fn take_object(from: &mut Reader<'_>) -> Result<Object, ManifestError> {
    let kind = from.u8()?;
    let kind = Kind::of_number(kind).ok_or(ManifestError::Kind { found: kind })?;
    let (mode, uid, gid) = (from.u16()?, from.u32()?, from.u32()?);
    let mtime = FileTime { seconds: from.i64()?, nanos: from.u32()? };
    let mut xattrs = Vec::new();
    for _ in 0..from.u32()? {
        let name = from.short()?;
        // Before it is kept, so that many names that are none cost nothing.
        if !keeps_xattr(name) {
            return Err(ManifestError::XattrName { len: name.len() });
        }
        xattrs.push((name.into(), from.long()?.into()));
    }
    let body = match kind {
        Kind::Regular => Body::Regular { size: from.u64()?, content: ContentHash(from.array()?) },
        Kind::Directory => Body::Directory,
        Kind::Symlink => Body::Symlink { target: from.medium()?.into() },
        Kind::Fifo => Body::Fifo,
        Kind::Socket => Body::Socket,
        Kind::CharDevice => Body::CharDevice { major: from.u32()?, minor: from.u32()? },
        Kind::BlockDevice => Body::BlockDevice { major: from.u32()?, minor: from.u32()? },
    };
    let object = Object { metadata: Metadata { mode, uid, gid, mtime, xattrs }, body };
    check_object(&object)?;
    Ok(object)
}

#[cfg(test)]
mod tests;
