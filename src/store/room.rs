//! Whether the file system has room for what a sparse data file does not take yet.

use rustix::fs::{fstat, fstatvfs};

use super::DataFile;
use super::data_file::Kind;

/// The file system has less room than the data file has holes: some later write finds it full.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shortage {
    /// Bytes of the resource that have no space yet.
    pub holes_bytes: u64,
    /// Bytes that the file system has left for users without privileges.
    pub free_bytes: u64,
}

impl DataFile {
    /// How far the file system falls short of the holes of this file, if it does. A device has none;
    /// where the kernel does not say, nothing is known to be short. May block: not for the data
    /// thread.
    pub fn shortage(&self) -> Option<Shortage> {
        if self.kind == Kind::Device {
            return None;
        }
        let file = fstat(self.file()).ok()?;
        let system = fstatvfs(self.file()).ok()?;
        let taken_bytes = u64::try_from(file.st_blocks).ok()?.saturating_mul(SECTOR_LEN);
        let holes_bytes = self.size().bytes().saturating_sub(taken_bytes);
        let free_bytes = system.f_bavail.saturating_mul(system.f_frsize);
        (free_bytes < holes_bytes).then_some(Shortage { holes_bytes, free_bytes })
    }
}

/// Unit of `st_blocks`, whatever the file system's own is. Source: stat(3type).
const SECTOR_LEN: u64 = 512;

#[cfg(test)]
mod tests {
    use rustix::fs::statvfs;

    use super::*;
    use crate::units::ResourceSize;

    #[test]
    fn a_file_with_more_holes_than_there_is_room_falls_short() {
        let folder = tempfile::tempdir().unwrap();
        let system = statvfs(folder.path()).unwrap();
        let free_bytes = system.f_bavail * system.f_frsize;
        // Others may free some of it meanwhile, but not as much again.
        let size = ResourceSize::new(2 * free_bytes + (1 << 30)).unwrap();
        let path = folder.path().join("data");
        DataFile::create(&path, size).unwrap();
        let data = DataFile::open(&path, size).unwrap();
        let shortage = data.shortage().unwrap();
        assert!(shortage.free_bytes < shortage.holes_bytes, "{shortage:?}");
        assert!(shortage.holes_bytes.abs_diff(size.bytes()) < 1 << 20, "{shortage:?}");
    }

    #[test]
    fn a_file_that_fits_or_has_no_holes_falls_short_of_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let size = ResourceSize::new(1 << 20).unwrap();
        DataFile::create(&path, size).unwrap();
        assert_eq!(DataFile::open(&path, size).unwrap().shortage(), None);
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        assert_eq!(DataFile::open(&path, size).unwrap().shortage(), None);
    }
}
