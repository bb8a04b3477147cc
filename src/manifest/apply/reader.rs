//! Values of a journal, read from bytes that may be anything.
//!
//! What can be written in one way only is read in that way only. Nothing is believed to be longer
//! than the bytes that are there, so no length in them can make this node allocate more.

use std::ops::RangeInclusive;

use super::journal::JournalError;
use super::operation::{Exchange, Finish, Link, Move, Operation, Patch, Set};
use super::place::{JournalNumber, Place, Slot};
use crate::manifest::{
    FileTime, Identity, MODE_MASK, Metadata, NANOS_PER_SECOND, Name, XATTR_VALUE_LEN_MAX,
    XATTRS_LEN_MAX, Xattrs,
};
use crate::units::{TreeNumber, TreePosition, TreeRoot};

/// Bytes of which the first ones are read next.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    record: u64,
}

impl<'a> Reader<'a> {
    /// Of `bytes`; `record` is named by errors.
    pub(super) fn new(bytes: &'a [u8], record: u64) -> Self {
        Self { rest: bytes, record }
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// `field` has a value that nobody writes.
    pub(super) fn error(&self, field: &'static str) -> JournalError {
        JournalError::Value { record: self.record, field }
    }

    /// Everything was read.
    pub(super) fn end(&self, field: &'static str) -> Result<(), JournalError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error(field)) }
    }

    /// As many bytes.
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], JournalError> {
        let (first, rest) = self.rest.split_at_checked(len).ok_or(JournalError::Short)?;
        self.rest = rest;
        Ok(first)
    }

    fn array<const LEN: usize>(&mut self) -> Result<[u8; LEN], JournalError> {
        let (first, rest) = self.rest.split_first_chunk().ok_or(JournalError::Short)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn u8(&mut self) -> Result<u8, JournalError> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Result<u16, JournalError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, JournalError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, JournalError> {
        self.array().map(u64::from_le_bytes)
    }

    fn is_there(&mut self, field: &'static str) -> Result<bool, JournalError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.error(field)),
        }
    }

    fn time(&mut self) -> Result<FileTime, JournalError> {
        let seconds = self.array().map(i64::from_le_bytes)?;
        let nanos = self.u32()?;
        if nanos >= NANOS_PER_SECOND {
            return Err(self.error("the nanoseconds"));
        }
        Ok(FileTime { seconds, nanos })
    }

    pub(super) fn identity(&mut self) -> Result<Identity, JournalError> {
        let inode = self.u64()?;
        let birth = if self.is_there("the birth")? { Some(self.time()?) } else { None };
        Ok(Identity { inode, birth })
    }

    pub(super) fn place(&mut self) -> Result<Place, JournalError> {
        Ok(match self.u8()? {
            1 => Place::Stage(Slot(self.u64()?)),
            2 => Place::Park { slot: Slot(self.u64()?), journal: JournalNumber(self.u64()?) },
            3 => Place::Link { slot: Slot(self.u64()?), journal: JournalNumber(self.u64()?) },
            4 => Place::Undo { slot: Slot(self.u64()?), journal: JournalNumber(self.u64()?) },
            5 => {
                let directory = self.identity()?;
                let bytes = self.short()?;
                let name = Name::new(bytes).map_err(|_| self.error("the name"))?;
                Place::Tree { directory, name }
            }
            _ => return Err(self.error("the place")),
        })
    }

    fn places(&mut self, counts: RangeInclusive<u8>) -> Result<Vec<Place>, JournalError> {
        let count = self.u8()?;
        if !counts.contains(&count) {
            return Err(self.error("the count of places"));
        }
        (0..count).map(|_| self.place()).collect()
    }

    fn short(&mut self) -> Result<&'a [u8], JournalError> {
        let len = self.u8()?;
        self.bytes(usize::from(len))
    }

    fn metadata(&mut self) -> Result<Metadata, JournalError> {
        let mode = self.u16()?;
        if mode & !MODE_MASK != 0 {
            return Err(self.error("the mode"));
        }
        let (uid, gid, mtime) = (self.u32()?, self.u32()?, self.time()?);
        let mut xattrs = Xattrs::new();
        let mut len_bytes = 0;
        for _ in 0..self.u32()? {
            let name = self.short()?;
            let len = usize::try_from(self.u32()?).map_err(|_| JournalError::Short)?;
            let value = self.bytes(len)?;
            len_bytes += name.len() + value.len();
            let is_rising = xattrs.last().is_none_or(|(last, _)| **last < *name);
            let is_short = len <= XATTR_VALUE_LEN_MAX && len_bytes <= XATTRS_LEN_MAX;
            if name.is_empty() || !is_rising || !is_short {
                return Err(self.error("an extended attribute"));
            }
            xattrs.push((name.into(), value.into()));
        }
        Ok(Metadata { mode, uid, gid, mtime, xattrs })
    }

    fn side(&mut self) -> Result<Option<(u16, Metadata)>, JournalError> {
        if !self.is_there("the side")? {
            return Ok(None);
        }
        Ok(Some((self.u16()?, self.metadata()?)))
    }
}

/// A position of a tree.
pub(super) fn position(from: &mut Reader<'_>) -> Result<TreePosition, JournalError> {
    let number = TreeNumber(from.u64()?);
    Ok(TreePosition { number, root: TreeRoot(from.array()?) })
}

/// An operation, behind its phase.
pub(super) fn operation(from: &mut Reader<'_>) -> Result<Operation, JournalError> {
    Ok(match from.u8()? {
        1 => Operation::Move(Move {
            what: from.identity()?,
            before: from.places(0..=2)?,
            from: from.place()?,
            to: from.place()?,
            after: from.places(0..=2)?,
        }),
        2 => Operation::Exchange(Exchange {
            new: from.identity()?,
            before: from.places(0..=2)?,
            from: from.place()?,
            at: from.place()?,
            old: from.identity()?,
            to: from.place()?,
            after: from.places(0..=2)?,
        }),
        3 => Operation::Link(Link {
            what: from.identity()?,
            existing: from.place()?,
            slot: from.place()?,
            after: from.place()?,
        }),
        4 => Operation::Patch(Patch {
            what: from.identity()?,
            at: from.places(1..=4)?,
            source: from.place()?,
            back: from.place()?,
        }),
        5 => Operation::Set(Set {
            what: from.identity()?,
            at: from.places(1..=4)?,
            old: from.metadata()?,
            new: from.metadata()?,
        }),
        6 => Operation::Empty { directory: from.identity()? },
        7 => {
            let directory = from.identity()?;
            match (from.side()?, from.side()?) {
                (None, None) => return Err(from.error("the sides of a directory")),
                (old, new) => Operation::Finish(Finish { directory, old, new }),
            }
        }
        _ => return Err(from.error("the operation")),
    })
}
