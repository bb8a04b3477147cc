//! Which parts of a range are holes.

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use super::DataFile;
use crate::units::ByteRange;

/// A run of bytes that is allocated, or a hole that reads as zero.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Run {
    /// Number of bytes, more than zero.
    pub len: u64,
    /// Not allocated.
    pub is_hole: bool,
}

impl DataFile {
    /// The runs of `range` from its start on, at most `most` of them, so perhaps not all. Where
    /// the file system does not say, everything counts as allocated.
    pub fn runs(&self, range: ByteRange, most: usize) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut at = range.start();
        while at < range.end() && runs.len() < most {
            let (end, is_hole) = match seek(self.file(), SeekFrom::Data(at)) {
                Ok(data) if data > at => (data, true),
                Ok(_) => match seek(self.file(), SeekFrom::Hole(at)) {
                    Ok(hole) if hole > at => (hole, false),
                    Ok(_) | Err(_) => (range.end(), false),
                },
                // No data from here to the end of the file.
                Err(Errno::NXIO) => (range.end(), true),
                Err(_) => (range.end(), false),
            };
            let end = end.min(range.end());
            runs.push(Run { len: end - at, is_hole });
            at = end;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::units::ResourceSize;

    #[test]
    fn runs_cover_the_range_and_no_hole_holds_data() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let size = ResourceSize::new(1 << 20).unwrap();
        DataFile::create(&path, size).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[1; 4096], 512 << 10).unwrap();
        let data = DataFile::open(&path, size).unwrap();
        let runs = data.runs(size.whole(), 100);
        assert_eq!(runs.iter().map(|run| run.len).sum::<u64>(), 1 << 20);
        let mut at = 0;
        for run in runs {
            if run.is_hole {
                assert!(at + run.len <= 512 << 10 || at >= (512 << 10) + 4096, "{at} {run:?}");
            }
            at += run.len;
        }
        let part = ByteRange::new(100, 200, size).unwrap();
        assert_eq!(data.runs(part, 1).len(), 1);
    }
}
