//! The copy of the dirty map's canary on a file system in memory.
//!
//! It survives the process and nothing else: a copy that agrees with the map shows that the
//! machine did not stop between, so the map is exact.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fstatfs, open, unlink};

use super::StoreError;
use super::data_file::lock;
use super::files::make_folder;
use super::map::{MappedMap, check_ours};
use crate::metadata::MapMemory;

/// Length of the file: one page, of which the first 8 bytes count.
const LEN: usize = 4096;
/// What `statfs` calls file systems in memory: tmpfs, ramfs. Source: statfs(2).
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// An open, locked, mapped copy of the canary.
#[derive(Debug)]
pub struct CanaryCopy {
    memory: MappedMap,
    path: PathBuf,
}

impl CanaryCopy {
    /// Opens the copy at the first of `paths` that can hold one, and answers what an earlier
    /// process stored there; `None` if none did since the machine started. The name of the file
    /// must belong to one replica only.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if a second daemon has it; else why the last of `paths` could not be
    /// used. Without a copy every crash counts as a power loss, which is safe.
    pub fn open(paths: &[PathBuf]) -> Result<(Self, Option<u64>), StoreError> {
        let mut last = StoreError::Missing { path: PathBuf::new() };
        for (index, path) in paths.iter().enumerate() {
            match Self::open_one(path) {
                Ok(opened) => {
                    // Left behind by a run that chose otherwise, they would vouch for the past.
                    for other in paths.iter().skip(index + 1) {
                        let _ = unlink(other);
                    }
                    return Ok(opened);
                }
                Err(locked @ StoreError::Locked { .. }) => return Err(locked),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// What the daemon that used the first usable of `paths` stored there last, without changing
    /// anything; `None` if there is no copy that counts.
    pub fn peek(paths: &[PathBuf]) -> Option<u64> {
        paths.iter().find_map(|path| Self::peek_one(path))
    }

    fn peek_one(path: &Path) -> Option<u64> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(open(path, flags, Mode::empty()).ok()?);
        let kind = u64::try_from(fstatfs(&file).ok()?.f_type).ok()?;
        let is_a_copy = IN_MEMORY.contains(&kind) && check_ours(&file, path).ok()? == LEN;
        let mut first = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut first, 0).ok()?;
        is_a_copy.then_some(u64::from_le_bytes(first))
    }

    fn open_one(path: &Path) -> Result<(Self, Option<u64>), StoreError> {
        let failed = |action| move |errno| StoreError::from_errno(path, action, errno);
        let folder = make_folder(path.parent().unwrap_or(Path::new("/")))?;
        let kind = fstatfs(&folder).map_err(failed("look at"))?.f_type;
        if !u64::try_from(kind).is_ok_and(|kind| IN_MEMORY.contains(&kind)) {
            let why = "not on a file system in memory, so it would survive a power loss";
            return Err(StoreError::NotOurs { path: path.to_owned(), why });
        }
        // In a folder that all may write, a link or a file of another user may wait for us: the
        // first is not followed, the second is refused below.
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(failed("open"))?;
        let file = Arc::new(File::from(file));
        lock(&file, path)?;
        let found = match check_ours(&file, path)? {
            LEN => true,
            0 => {
                let len = super::transfer::offset(LEN);
                fallocate(&file, FallocateFlags::empty(), 0, len).map_err(failed("allocate"))?;
                false
            }
            _ => return Err(StoreError::other(path, "use", ErrorKind::InvalidData)),
        };
        let copy = Self { memory: MappedMap::open(&file, path)?, path: path.to_owned() };
        let value = found.then(|| copy.value());
        Ok((copy, value))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was stored last, by this process or by one before it.
    pub fn value(&self) -> u64 {
        let first = self.memory.bytes().first_chunk().expect("a page was mapped");
        u64::from_le_bytes(*first)
    }

    /// Stores `value`, without a system call.
    pub fn store(&mut self, value: u64) {
        let first = self.memory.bytes_mut().first_chunk_mut().expect("a page was mapped");
        *first = value.to_le_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_memory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").expect("/dev/shm is a tmpfs")
    }

    #[test]
    fn the_copy_tells_the_next_process_what_was_stored() {
        let folder = in_memory();
        let paths = [folder.path().join("made/hotpair.canary")];
        let (mut copy, found) = CanaryCopy::open(&paths).unwrap();
        assert_eq!(found, None);
        copy.store(41);
        copy.store(42);
        assert!(matches!(CanaryCopy::open(&paths), Err(StoreError::Locked { .. })));
        drop(copy);
        let (copy, found) = CanaryCopy::open(&paths).unwrap();
        assert_eq!((found, copy.value()), (Some(42), 42));
    }

    #[test]
    fn a_look_at_the_copy_changes_nothing() {
        let folder = in_memory();
        let paths = [folder.path().join("none"), folder.path().join("canary")];
        assert_eq!(CanaryCopy::peek(&paths), None);
        CanaryCopy::open(&paths[1..]).unwrap().0.store(7);
        assert_eq!(CanaryCopy::peek(&paths), Some(7));
        assert_eq!(CanaryCopy::open(&paths[1..]).unwrap().1, Some(7));
        assert!(!paths[0].exists());
        std::fs::write(&paths[1], "short").unwrap();
        assert_eq!(CanaryCopy::peek(&paths), None);
    }

    #[test]
    fn only_memory_can_hold_it_and_the_next_place_is_tried() {
        let (disk, memory) = (tempfile::tempdir_in(".").unwrap(), in_memory());
        let paths = [disk.path().join("canary"), memory.path().join("canary")];
        match CanaryCopy::open(&paths[..1]) {
            Err(StoreError::NotOurs { .. }) => {}
            Ok(_) => println!("skipped: the sources are on a file system in memory"),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(CanaryCopy::open(&paths).unwrap().0.path(), paths[1]);
    }

    #[test]
    fn places_that_are_not_chosen_keep_no_copy() {
        let folder = in_memory();
        let paths = [folder.path().join("first"), folder.path().join("second")];
        CanaryCopy::open(&paths[1..]).unwrap().0.store(7);
        assert_eq!(CanaryCopy::open(&paths).unwrap().1, None);
        assert!(!paths[1].exists());
    }

    #[test]
    fn a_link_is_not_followed() {
        let folder = in_memory();
        let (path, target) = (folder.path().join("canary"), folder.path().join("target"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(CanaryCopy::open(&[path]).is_err());
        assert!(!target.exists());
    }
}
