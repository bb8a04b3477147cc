//! What a delta takes of the file system before it can be applied.

use super::super::Folder;
use super::content::{Piece, Pieces};
use super::patch::{HUGE_LEN, changed_chunks};
use super::{ReceiveError, Received, failed};
use crate::manifest::ChunkHash;
use crate::units::{CHUNK_LEN, ObjectId};

/// A patched chunk is staged, written into the patch, and saved as it was.
const PATCH_COPIES: u64 = 3;
/// The part of a file system that stays free: one of so many. Source: directory.md 9.
const RESERVE: u64 = 20;

/// Size of the file system of a tree, and what is free in it, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) struct Room {
    pub(in super::super) total: u64,
    pub(in super::super) free: u64,
}

impl Room {
    /// Of the file system that `folder` is in.
    pub(in super::super) fn of(folder: &Folder) -> rustix::io::Result<Self> {
        let found = rustix::fs::fstatvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self { total: bytes(found.f_blocks), free: bytes(found.f_bavail) })
    }

    /// Whether as much is free as is to stay free.
    pub(in super::super) fn has_reserve(self) -> bool {
        self.free >= self.total / RESERVE
    }

    /// Whether `needed` bytes can be had, of which `staged` are there already.
    pub(in super::super) fn check(self, needed: u64, staged: u64) -> Result<(), ReceiveError> {
        let more = needed.saturating_sub(staged);
        let wanted = more.saturating_add(self.total / RESERVE);
        if more == 0 || wanted <= self.free {
            return Ok(());
        }
        Err(ReceiveError::NoRoom { needed: wanted, free: self.free })
    }
}

impl Received {
    /// Bytes that are needed to stage it, at most: what shares its blocks with the old version needs none, but
    /// only the file system knows that.
    pub(in super::super) fn needed_bytes(&self) -> Result<u64, ReceiveError> {
        let mut sum = 0_u64;
        for id in self.files()? {
            sum = sum.saturating_add(self.needed_for(id)?);
        }
        Ok(sum)
    }

    fn needed_for(&self, id: ObjectId) -> Result<u64, ReceiveError> {
        let size = self.size(id);
        if size < HUGE_LEN {
            return Ok(size);
        }
        let is_there = self.base_size(id)? > 0;
        if is_there && let Some(changed) = changed_chunks(self, id)? {
            return Ok(changed.len() as u64 * CHUNK_LEN * PATCH_COPIES);
        }
        let mut chunks = 0;
        let mut pieces = Pieces::new(self, id)?;
        while let Some(piece) = pieces.next(self.base().view(), self.spool())? {
            if let Piece::Segment { hashes, .. } = piece {
                chunks += hashes.iter().filter(|hash| **hash != ChunkHash::ZERO).count() as u64;
            }
        }
        Ok(size.min(chunks * CHUNK_LEN))
    }
}

/// What the file system has.
pub(in super::super) fn room(folder: &Folder) -> Result<Room, ReceiveError> {
    Room::of(folder).map_err(failed("ask what room the file system of the tree has"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_stays_free_unless_nothing_is_needed() {
        let room = Room { total: 1000, free: 100 };
        for (needed, staged, is_room) in
            [(50, 0, true), (51, 0, false), (51, 1, true), (0, 0, true), (500, 450, true)]
        {
            assert_eq!(room.check(needed, staged).is_ok(), is_room, "{needed}, {staged}");
        }
        let full = Room { total: 1000, free: 0 };
        assert!(full.check(0, 0).is_ok() && full.check(7, 7).is_ok() && full.check(1, 0).is_err());
        assert!(full.check(u64::MAX, 0).is_err());
    }
}
