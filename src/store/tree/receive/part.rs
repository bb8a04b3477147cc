//! A file in `stage/` in which the content of an object comes together.
//!
//! It is called by the object, so that what an earlier attempt has staged is found again, also if that was
//! for another generation: each chunk of it is hashed before it counts.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, ioctl_ficlone, openat2};
use rustix::io::Errno;

use super::super::Folder;
use super::super::folder::{BENEATH, look_at, os};
use super::sources::{hash_of, read_verified};
use super::{ReceiveError, failed};
use crate::manifest::{ChunkHash, Kind, Name};
use crate::units::{CHUNK_LEN, ObjectId};

/// How its name begins.
pub(super) const PART: &str = "part-";

/// The file of one object.
#[derive(Debug)]
pub(super) struct Part {
    file: File,
    /// It may hold bytes where it is to have none.
    pub(super) may_hold_old: bool,
}

/// Its name in `stage/`.
pub(super) fn part_name(id: ObjectId) -> Name {
    Name::new(format!("{PART}{id}").as_bytes()).expect("a word and a number are a name")
}

impl Part {
    /// Opens the one that is there, or makes one.
    pub(super) fn open(stage: &Folder, id: ObjectId) -> Result<Self, ReceiveError> {
        let name = part_name(id);
        match stage.make_file(&name) {
            Ok(file) => Ok(Self { file, may_hold_old: false }),
            Err(Errno::EXIST) => {
                let opened = open_part(stage, &name).map_err(failed("open a staged file"))?;
                if let Some(file) = opened {
                    return Ok(Self { file, may_hold_old: true });
                }
                remove(stage, &name)?;
                let file = stage.make_file(&name).map_err(failed("make a staged file"))?;
                Ok(Self { file, may_hold_old: false })
            }
            Err(errno) => Err(failed("make a staged file")(errno)),
        }
    }

    /// Makes it share all that `old` holds. Whether the file system can do that.
    pub(super) fn clone_from(&mut self, old: &File) -> bool {
        let is_cloned = ioctl_ficlone(&self.file, old).is_ok();
        self.may_hold_old |= is_cloned;
        is_cloned
    }

    /// Makes it `size` bytes long.
    pub(super) fn resize(&self, size: u64) -> Result<(), ReceiveError> {
        self.file.set_len(size).map_err(failed("set the length of a staged file"))
    }

    /// Whether a chunk has this hash already.
    pub(super) fn has(&self, start: u64, len: usize, hash: &ChunkHash) -> bool {
        read_verified(&self.file, start, len, hash).is_some()
    }

    /// The bytes of a chunk with this hash.
    pub(super) fn read(&self, start: u64, len: usize, hash: &ChunkHash) -> Option<Vec<u8>> {
        read_verified(&self.file, start, len, hash)
    }

    /// Writes the bytes of a chunk.
    pub(super) fn write(&self, start: u64, bytes: &[u8]) -> Result<(), ReceiveError> {
        self.file.write_all_at(bytes, start).map_err(failed("write a staged file"))
    }

    /// Makes a hole of whole chunks, where there may be bytes.
    pub(super) fn clear(&self, first: u64, count: u64) -> Result<(), ReceiveError> {
        if !self.may_hold_old || count == 0 {
            return Ok(());
        }
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, mode, first * CHUNK_LEN, count * CHUNK_LEN) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.clear_by_hand(first, count),
            Err(errno) => Err(failed("make a hole in a staged file")(errno)),
        }
    }

    fn clear_by_hand(&self, first: u64, count: u64) -> Result<(), ReceiveError> {
        let zeroes = vec![0; usize::try_from(CHUNK_LEN).expect("a chunk is short")];
        for chunk in first..first + count {
            let start = chunk * CHUNK_LEN;
            if !self.has(start, zeroes.len(), &ChunkHash::ZERO) {
                self.write(start, &zeroes)?;
            }
        }
        Ok(())
    }
}

/// Whether bytes are those of a chunk.
pub(super) fn are_of(bytes: &[u8], len: usize, hash: &ChunkHash) -> bool {
    bytes.len() == len && hash_of(bytes) == *hash
}

/// Removes whatever has that name in `stage/`, if anything has.
pub(super) fn remove(stage: &Folder, name: &Name) -> Result<(), ReceiveError> {
    let removed = match stage.remove_file(name) {
        Err(Errno::ISDIR) => stage.remove_tree(name),
        removed => removed,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove what is staged")(errno)),
    }
}

/// Opens a staged file; `None` if it is not one of ours alone: what has further names, a tree may have.
fn open_part(stage: &Folder, name: &Name) -> Result<Option<File>, Errno> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat2(stage, os(name), flags, Mode::empty(), BENEATH) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP | Errno::ISDIR | Errno::NXIO) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let found = look_at(&file)?;
    let is_ours = found.kind == Some(Kind::Regular) && found.stamp.nlink == 1;
    Ok(is_ours.then_some(file))
}
