//! What the index of a tree keeps of an object, as bytes.
//!
//! An [`Entry`] as it is hashed, and what this node alone knows of it: the stamp that it had when it was
//! read, and in which generation it changed last.

use super::bytes::{Reader, Writer};
use super::{Entry, FileTime, Identity, Indexed, ManifestError, Stamp};
use crate::units::TreeNumber;

/// One object of the index.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    /// The generation that it changed last in.
    pub changed_in: TreeNumber,
    /// Its content may be another than the one that is known.
    pub is_unsure: bool,
    /// What the file system said of it when it was read.
    pub stamp: Stamp,
    /// What it is.
    pub entry: Entry,
}

impl Row {
    /// As it is compared with what is found.
    pub fn indexed(&self) -> Indexed {
        Indexed { stamp: self.stamp, is_unsure: self.is_unsure }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut to = Writer::new(&mut out);
        let Stamp { identity, size, mtime, ctime, mode, uid, gid, nlink, rdev } = &self.stamp;
        to.u64(self.changed_in.0);
        to.u8(u8::from(self.is_unsure));
        to.u64(identity.inode);
        to.u8(u8::from(identity.birth.is_some()));
        put_time(identity.birth.unwrap_or_default(), &mut to);
        to.u64(*size);
        put_time(*mtime, &mut to);
        put_time(*ctime, &mut to);
        to.u32(*mode);
        to.u32(*uid);
        to.u32(*gid);
        to.u64(*nlink);
        to.u32(rdev.0);
        to.u32(rdev.1);
        out.extend(self.entry.encode());
        out
    }

    /// Reads bytes that are one row and nothing else.
    ///
    /// # Errors
    /// [`ManifestError`] if they are not as [`Row::encode`] writes them.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut from = Reader::new(bytes);
        let changed_in = TreeNumber(from.u64()?);
        let is_unsure = take_flag(&mut from)?;
        let inode = from.u64()?;
        let has_birth = take_flag(&mut from)?;
        let birth = take_time(&mut from)?;
        let size = from.u64()?;
        let (mtime, ctime) = (take_time(&mut from)?, take_time(&mut from)?);
        let (mode, uid, gid) = (from.u32()?, from.u32()?, from.u32()?);
        let (nlink, rdev) = (from.u64()?, (from.u32()?, from.u32()?));
        if !has_birth && birth != FileTime::default() {
            return Err(ManifestError::Flag { found: 0 });
        }
        let identity = Identity { inode, birth: has_birth.then_some(birth) };
        let stamp = Stamp { identity, size, mtime, ctime, mode, uid, gid, nlink, rdev };
        Ok(Self { changed_in, is_unsure, stamp, entry: Entry::decode(from.rest())? })
    }
}

fn put_time(time: FileTime, to: &mut Writer<'_>) {
    to.i64(time.seconds);
    to.u32(time.nanos);
}

fn take_time(from: &mut Reader<'_>) -> Result<FileTime, ManifestError> {
    Ok(FileTime { seconds: from.i64()?, nanos: from.u32()? })
}

fn take_flag(from: &mut Reader<'_>) -> Result<bool, ManifestError> {
    match from.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(ManifestError::Flag { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{Beside, Body, Metadata, Object, TreePath};

    fn row(birth: Option<FileTime>) -> Row {
        let time = FileTime { seconds: -2, nanos: 7 };
        let object = Object { metadata: Metadata::default(), body: Body::Fifo };
        let beside = Beside::Smallest(TreePath::new(b"a/b").unwrap());
        Row {
            changed_in: TreeNumber(9),
            is_unsure: true,
            stamp: Stamp {
                identity: Identity { inode: 5, birth },
                size: 1 << 40,
                mtime: time,
                ctime: FileTime { seconds: 3, nanos: 4 },
                mode: 0o010_644,
                uid: 1,
                gid: 2,
                nlink: 3,
                rdev: (8, 1),
            },
            entry: Entry::new(object, beside).unwrap(),
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        for birth in [None, Some(FileTime { seconds: 1, nanos: 2 })] {
            let row = row(birth);
            assert_eq!(Row::decode(&row.encode()), Ok(row));
        }
    }

    #[test]
    fn what_is_read_is_written_as_the_same_bytes() {
        let bytes = row(None).encode();
        assert!((0..bytes.len()).all(|len| Row::decode(&bytes[..len]).is_err()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(row) = Row::decode(&flipped) {
                assert_eq!(row.encode(), flipped, "bit {bit}");
            }
        }
    }
}
