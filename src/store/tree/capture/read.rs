//! What an object is and holds, read so that a change meanwhile is seen.
//!
//! The order makes it so: look, sync, read, look again through the same descriptor. After the sync the
//! pages of the file are clean, so a store into one, also through a mapping, moves its times. If both looks
//! agree, no store fell between them, and each one after them will be seen.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::fsync;
use rustix::io::{Errno, read};

use super::super::attributes::read_xattrs;
use super::super::folder::{Found, look_at};
use super::super::index::{IndexError, Rows};
use super::walk::Spot;
use super::{Capture, CaptureError};
use crate::manifest::{
    Beside, Body, ChunkHash, ContentHash, DirectoryHash, Entry, Judgement, Kind, ManifestError,
    Metadata, Name, Object, Row, SEGMENT_CHUNKS, Stamp, Xattrs, directory_hash, is_too_young,
    judge, rehash, segment_count, segment_hash,
};
use crate::units::{CHUNK_LEN, FuzzyWhy, ObjectId};

/// A file that does not hold still is read so often, and then taken as it is. Source: directory.md 5.
const ATTEMPTS: u32 = 3;
/// Bytes that are read at once: whole chunks.
const READ_LEN: usize = 1 << 20;

/// What was read of an object.
struct Seen {
    object: Object,
    stamp: Stamp,
    /// It is of several instants.
    is_mixed: bool,
}

/// Why nothing was read.
enum Trouble {
    /// The kernel said so; another object stands there if it says `STALE`.
    Kernel(Errno),
    /// The capture ends.
    Fatal(CaptureError),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Kernel(errno)
    }
}

impl From<CaptureError> for Trouble {
    fn from(error: CaptureError) -> Self {
        Self::Fatal(error)
    }
}

impl From<IndexError> for Trouble {
    fn from(error: IndexError) -> Self {
        Self::Fatal(error.into())
    }
}

impl Capture<'_, '_> {
    /// Reads an object that the index has once more.
    pub(super) fn refresh(
        &mut self,
        spot: &Spot,
        name: &Name,
        (id, old): (ObjectId, &Row),
        found: &Found,
    ) -> Result<(), CaptureError> {
        let seen = match self.read(spot, name, id, found) {
            Ok(seen) => seen,
            Err(Trouble::Kernel(errno)) => {
                self.not_read(spot, name, errno);
                return Ok(());
            }
            Err(Trouble::Fatal(error)) => return Err(error),
        };
        if seen.is_mixed {
            self.fuzzy.note(spot.id, name.clone(), FuzzyWhy::Mixed);
        }
        if self.update(id, old, seen)? {
            self.changed(spot.id, name);
        }
        Ok(())
    }

    /// Reads a new object, and gives it a number and its name; `None` if it was gone before.
    pub(super) fn bear(
        &mut self,
        spot: &Spot,
        name: &Name,
        found: &Found,
    ) -> Result<Option<(ObjectId, bool)>, CaptureError> {
        let id = self.new_object()?;
        let seen = match self.read(spot, name, id, found) {
            Ok(seen) => seen,
            Err(Trouble::Kernel(errno)) => {
                self.not_read(spot, name, errno);
                return Ok(None);
            }
            Err(Trouble::Fatal(error)) => return Err(error),
        };
        if seen.is_mixed {
            self.fuzzy.note(spot.id, name.clone(), FuzzyWhy::Mixed);
        }
        self.put_new(id, seen)?;
        self.name_it(spot, name, id)?;
        Ok(Some((id, true)))
    }

    /// A directory itself, after its entries: whatever comes and goes in it moves its times.
    pub(super) fn directory(&mut self, spot: &Spot) -> Result<(), CaptureError> {
        let found = spot.folder.look_at_self().map_err(CaptureError::Root)?;
        let row = self.tables.object(spot.id)?;
        let is_same = row
            .as_ref()
            .is_some_and(|row| judge(&row.indexed(), &found.stamp, &self.clock) == Judgement::Same);
        if is_same {
            return Ok(());
        }
        if self.must_sync(&found.stamp) {
            // The names in it are on disk before a peer has them.
            fsync(&spot.folder).map_err(CaptureError::Sync)?;
        }
        let xattrs = read_xattrs(&spot.folder, self.subject.left_out);
        let metadata = match xattrs {
            Ok(xattrs) => self.metadata(&found.stamp, xattrs),
            Err(errno) if spot.id == ObjectId::ROOT => return Err(CaptureError::Root(errno)),
            // The look from above says so, too.
            Err(_) => return Ok(()),
        };
        let object = Object { metadata, body: Body::Directory };
        let seen = Seen { object, stamp: found.stamp, is_mixed: false };
        match row {
            None => {
                self.put_new(spot.id, seen)?;
                self.directory_changed(spot.id)
            }
            Some(old) if self.update(spot.id, &old, seen)? => self.directory_changed(spot.id),
            Some(_) => Ok(()),
        }
    }

    /// Whether what has this stamp was not written out since this pass began.
    fn must_sync(&self, stamp: &Stamp) -> bool {
        !self.is_synced || is_too_young(stamp, &self.clock)
    }

    /// Writes a row again. Whether anything but its certainty is another.
    fn update(&mut self, id: ObjectId, old: &Row, seen: Seen) -> Result<bool, CaptureError> {
        let entry = Entry::new(seen.object, old.entry.beside().clone()).map_err(tree)?;
        let is_changed = entry != old.entry;
        let row = Row {
            changed_in: if is_changed { self.number } else { old.changed_in },
            is_unsure: seen.is_mixed || is_too_young(&seen.stamp, &self.clock),
            stamp: seen.stamp,
            entry,
        };
        if row != *old {
            self.tables.put_object(id, &row)?;
        }
        Ok(is_changed || row.stamp != old.stamp)
    }

    fn put_new(&mut self, id: ObjectId, seen: Seen) -> Result<(), CaptureError> {
        let beside = match seen.object.kind() {
            Kind::Directory => Beside::Inside(empty()),
            Kind::Regular
            | Kind::Symlink
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice
            | Kind::BlockDevice => Beside::Nothing,
        };
        let row = Row {
            changed_in: self.number,
            is_unsure: seen.is_mixed || is_too_young(&seen.stamp, &self.clock),
            stamp: seen.stamp,
            entry: Entry::new(seen.object, beside).map_err(tree)?,
        };
        self.tables.put_object(id, &row)?;
        Ok(())
    }

    fn read(
        &mut self,
        spot: &Spot,
        name: &Name,
        id: ObjectId,
        found: &Found,
    ) -> Result<Seen, Trouble> {
        if found.kind == Some(Kind::Regular) {
            return self.read_regular(spot, name, id, found);
        }
        let held = spot.folder.object(name)?;
        let before = same(held.as_fd(), found)?;
        let body = match found.kind {
            Some(Kind::Directory) => Body::Directory,
            Some(Kind::Symlink) => Body::Symlink { target: spot.folder.target(name)? },
            Some(Kind::Fifo) => Body::Fifo,
            Some(Kind::Socket) => Body::Socket,
            Some(Kind::CharDevice) => {
                Body::CharDevice { major: before.stamp.rdev.0, minor: before.stamp.rdev.1 }
            }
            Some(Kind::BlockDevice) => {
                Body::BlockDevice { major: before.stamp.rdev.0, minor: before.stamp.rdev.1 }
            }
            Some(Kind::Regular) | None => return Err(Trouble::Kernel(Errno::STALE)),
        };
        let xattrs = read_xattrs(&held, self.subject.left_out)?;
        // The target was read by its name: if another link stood there for a moment, the times differ.
        let after = spot.folder.look(name)?.ok_or(Errno::NOENT)?;
        if after.stamp != before.stamp {
            return Err(Trouble::Kernel(Errno::STALE));
        }
        let metadata = self.metadata(&after.stamp, xattrs);
        Ok(Seen { object: Object { metadata, body }, stamp: after.stamp, is_mixed: false })
    }

    fn read_regular(
        &mut self,
        spot: &Spot,
        name: &Name,
        id: ObjectId,
        found: &Found,
    ) -> Result<Seen, Trouble> {
        let mut attempt = 1;
        loop {
            let file = spot.folder.file(name)?;
            let before = same(file.as_fd(), found)?;
            if self.must_sync(&before.stamp) {
                // A power cut does not take this node back behind what its peer has by then.
                fsync(&file).map_err(CaptureError::Sync)?;
            }
            let xattrs = read_xattrs(&file, self.subject.left_out)?;
            let (size, content) = self.read_content(&file, id, before.stamp.size)?;
            let after = look_at(&file)?;
            let is_whole = after.stamp == before.stamp && size == before.stamp.size;
            if is_whole || attempt == ATTEMPTS {
                let metadata = self.metadata(&after.stamp, xattrs);
                let object = Object { metadata, body: Body::Regular { size, content } };
                return Ok(Seen { object, stamp: after.stamp, is_mixed: !is_whole });
            }
            attempt += 1;
        }
    }

    /// Reads up to `size` bytes and puts the hashes of their chunks into the index. Gives how many there
    /// were, and their hash.
    fn read_content(
        &mut self,
        file: &File,
        id: ObjectId,
        size: u64,
    ) -> Result<(u64, ContentHash), Trouble> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(READ_LEN, 0);
        let result = self.read_chunks(file, id, size, &mut buffer);
        self.buffer = buffer;
        result
    }

    fn read_chunks(
        &mut self,
        file: &File,
        id: ObjectId,
        size: u64,
        buffer: &mut [u8],
    ) -> Result<(u64, ContentHash), Trouble> {
        let mut done = 0;
        let mut chunks: Vec<ChunkHash> = Vec::new();
        let mut segments = Vec::new();
        loop {
            let want = usize::try_from(size - done).unwrap_or(usize::MAX).min(buffer.len());
            let len = fill(file, &mut buffer[..want])?;
            self.progress.note(0, len as u64)?;
            for chunk in buffer[..len].chunks(CHUNK_BYTES) {
                chunks.push(chunk_hash(chunk));
                if chunks.len() == SEGMENT_CHUNKS as usize {
                    segments.push(segment_hash(&chunks));
                    self.put_segment(id, segments.len() - 1, &std::mem::take(&mut chunks))?;
                }
            }
            done += len as u64;
            if len < buffer.len() || done == size {
                break;
            }
        }
        if !chunks.is_empty() {
            segments.push(segment_hash(&chunks));
            self.put_segment(id, segments.len() - 1, &chunks)?;
        }
        let count = u32::try_from(segment_count(done)).unwrap_or(u32::MAX);
        self.tables.cut_segments(id, count)?;
        let content = rehash(done, segments, &BTreeMap::new()).map_err(tree)?;
        Ok((done, content.expect("each segment was hashed")))
    }

    fn put_segment(
        &mut self,
        id: ObjectId,
        segment: usize,
        chunks: &[ChunkHash],
    ) -> Result<(), Trouble> {
        let segment = u32::try_from(segment).unwrap_or(u32::MAX);
        if self.tables.segment(id, segment)?.1 != chunks {
            self.tables.put_segment(self.number, (id, segment), chunks)?;
        }
        Ok(())
    }

    fn metadata(&self, stamp: &Stamp, xattrs: Xattrs) -> Metadata {
        let left_out = self.subject.left_out;
        let (uid, gid) = left_out.owner(stamp.uid, stamp.gid);
        let is_link = stamp.mode & 0o170_000 == 0o120_000;
        let mode = u16::try_from(stamp.mode & 0o7777).unwrap_or_default();
        let mode = if is_link { 0 } else { left_out.mode(mode) };
        Metadata { mode, uid, gid, mtime: stamp.mtime, xattrs }
    }
}

/// Length of a chunk in memory.
const CHUNK_BYTES: usize = 64 << 10;
const _: () = assert!(CHUNK_BYTES as u64 == CHUNK_LEN);

fn chunk_hash(bytes: &[u8]) -> ChunkHash {
    ChunkHash(*blake3::hash(bytes).as_bytes())
}

/// Hash of a directory without entries; those that it has are folded in later.
fn empty() -> DirectoryHash {
    directory_hash([])
}

/// What is held now, if it is the object that was found.
fn same(held: BorrowedFd<'_>, found: &Found) -> Result<Found, Errno> {
    let now = look_at(held)?;
    let is_same = now.stamp.identity == found.stamp.identity && now.kind == found.kind;
    if is_same { Ok(now) } else { Err(Errno::STALE) }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &File, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut len = 0;
    while len < buffer.len() {
        match read(file, &mut buffer[len..]) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(len)
}

fn tree(why: ManifestError) -> CaptureError {
    CaptureError::Index(why.into())
}
