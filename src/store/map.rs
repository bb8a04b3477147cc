//! Memory-mapped metadata: the only `unsafe` of the crate.
//!
//! Contract: the file is ours alone (0600, locked), as long as the mapping, fully allocated (no
//! store meets a full disk) and never shortened while mapped. It is read once with `pread` before
//! it is mapped and populated, because populating reports no errors: a bad sector is found at
//! start. A SIGBUS after that is a failed disk: the process ends, and the peer takes over.
//!
//! Only the thread that owns a [`MappedMap`] touches its memory. Other threads make it stable by
//! the file's descriptor: `fdatasync` writes the dirty pages of a mapping too, and needs no
//! reference to them.
#![expect(unsafe_code, reason = "a mapping is unsafe by nature; the contract is above")]

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::{FallocateFlags, FileType, Mode, fallocate, fstat};
use rustix::io::{Errno, pread};
use rustix::process::geteuid;

use super::StoreError;
use crate::metadata::MapMemory;

/// How much is read at a time before mapping.
const READ_LEN: usize = 1 << 20;

/// A whole file, mapped for reading and writing. What is stored here survives the process at once
/// and the machine after a sync of the file.
#[derive(Debug)]
pub struct MappedMap {
    memory: MmapMut,
    /// Keeps the lock of the file while it is mapped.
    _file: Arc<File>,
    is_resident: bool,
}

impl MappedMap {
    /// Maps all of `file`, which must be locked by its opener. `path` is for messages.
    ///
    /// # Errors
    /// [`StoreError::NotOurs`] if others could reach or shorten it, [`StoreError::NoSpace`] if it
    /// cannot be allocated, [`StoreError::Io`] if it cannot be read or mapped.
    pub(super) fn open(file: &Arc<File>, path: &Path) -> Result<Self, StoreError> {
        let len = check_ours(file, path)?;
        allocate(file, path, len)?;
        read_once(file, path, len)?;
        // SAFETY: the file is a regular one of ours that nobody else may open (checked above),
        // locked against a second daemon (by the opener) and never shortened by us while it is
        // mapped, so the memory stays valid and only changes by the owner of this value.
        let memory = unsafe { MmapOptions::new().populate().map_mut(&**file) };
        let memory = memory.map_err(|source| StoreError::Io {
            path: path.to_owned(),
            action: "map",
            source,
        })?;
        if memory.len() != len {
            return Err(StoreError::other(path, "map", ErrorKind::UnexpectedEof));
        }
        // Spares the data thread page faults that read the disk. Without CAP_IPC_LOCK only a few
        // MiB may be locked; then memory pressure costs latency, nothing else.
        let is_resident = memory.lock().is_ok();
        Ok(Self { memory, _file: Arc::clone(file), is_resident })
    }

    /// Whether it is locked in memory.
    pub fn is_resident(&self) -> bool {
        self.is_resident
    }
}

impl MapMemory for MappedMap {
    fn bytes(&self) -> &[u8] {
        &self.memory
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory
    }
}

/// Checks that the file is a regular one with no other name, and that only we may open it.
/// Answers its length.
pub(super) fn check_ours(file: &File, path: &Path) -> Result<usize, StoreError> {
    let status = fstat(file).map_err(|errno| StoreError::from_errno(path, "look at", errno))?;
    let not_ours = |why| StoreError::NotOurs { path: path.to_owned(), why };
    if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
        return Err(not_ours("not a regular file"));
    }
    if status.st_uid != geteuid().as_raw() {
        return Err(not_ours("belongs to another user: chown it to the user of the daemon"));
    }
    if Mode::from_raw_mode(status.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        return Err(not_ours("can be opened by other users: chmod 600"));
    }
    if status.st_nlink != 1 {
        return Err(not_ours("has a second name, or none"));
    }
    usize::try_from(status.st_size)
        .map_err(|_| StoreError::other(path, "map", ErrorKind::FileTooLarge))
}

/// Gives a sparse file its space. On copy-on-write file systems no call can promise that; there a
/// full disk is met later and ends the process as a failed disk does.
fn allocate(file: &File, path: &Path, len: usize) -> Result<(), StoreError> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, super::transfer::offset(len.max(1))) {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => Err(StoreError::from_errno(path, "allocate", errno)),
    }
}

fn read_once(file: &File, path: &Path, len: usize) -> Result<(), StoreError> {
    let mut buffer = vec![0; READ_LEN.min(len.max(1))];
    let mut done = 0;
    while done < len {
        match pread(file, &mut buffer, super::transfer::offset(done)) {
            Ok(0) => return Err(StoreError::other(path, "read", ErrorKind::UnexpectedEof)),
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(StoreError::from_errno(path, "read", errno)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

    use super::*;

    fn file(path: &Path, bytes: &[u8]) -> Arc<File> {
        use std::io::Write;
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    #[test]
    fn what_is_stored_in_the_map_is_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dirty.map");
        let file = file(&path, &[7; 10_000]);
        let mut map = MappedMap::open(&file, &path).unwrap();
        assert_eq!(map.bytes(), [7; 10_000]);
        map.bytes_mut()[9_999] = 8;
        assert_eq!(std::fs::read(&path).unwrap()[9_998..], [7, 8]);
        drop(map);
        assert_eq!(std::fs::read(&path).unwrap()[9_998..], [7, 8]);
    }

    #[test]
    fn a_file_that_others_can_reach_is_not_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dirty.map");
        let file = file(&path, &[0; 4096]);
        let refused = |expected: &str| {
            let error = MappedMap::open(&file, &path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        refused("chmod 600");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::hard_link(&path, folder.path().join("second")).unwrap();
        refused("second name");
    }

    #[test]
    fn a_sparse_file_gets_its_space_before_it_is_mapped() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dirty.map");
        let file = file(&path, &[]);
        file.set_len(1 << 20).unwrap();
        let map = MappedMap::open(&file, &path).unwrap();
        assert_eq!(map.bytes().len(), 1 << 20);
        assert!(file.metadata().unwrap().blocks() * 512 >= 1 << 20);
    }
}
