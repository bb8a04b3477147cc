//! Making a range read as zero.
//!
//! The aligned middle is punched (or, to stay allocated, zeroed in the file system's books), the
//! edges are written. Where the file system or device cannot, everything is written: that is
//! always right, only slower. A discard is never used: what it leaves behind is undefined.

use std::fs::File;
use std::io::{ErrorKind, IoSlice};
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fstat, major, minor, open};
use rustix::io::{Errno, pwritev};

use super::data_file::Kind;
use super::transfer::offset;
use super::{DataFile, StoreError};
use crate::units::{BLOCK_LEN, ByteRange, ZeroKind};

/// What zeroes are written from.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
/// Most slices of [`ZEROES`] in one call: 1 MiB.
const SLICES_MAX: usize = 16;

impl DataFile {
    /// Makes `range` read as zero. May block.
    pub(super) fn zero(&self, range: ByteRange, kind: ZeroKind) -> Result<(), StoreError> {
        self.check_usable()?;
        let [head, middle, tail] = split(range);
        self.write_zeroes(head)?;
        self.write_zeroes(tail)?;
        if middle.is_empty() {
            return Ok(());
        }
        match fallocate(&self.file, mode_of(kind), middle.start, middle.end - middle.start) {
            Ok(()) => Ok(()),
            Err(errno) if may_be_written_instead(errno) => self.write_zeroes(middle),
            Err(errno) => {
                self.sticky(Err(StoreError::from_errno(&self.path, "zero a range", errno)))
            }
        }
    }

    fn write_zeroes(&self, span: std::ops::Range<u64>) -> Result<(), StoreError> {
        let mut start = span.start;
        while start < span.end {
            let written = pwritev(&self.file, &slices(span.end - start), start);
            match written {
                Ok(0) => {
                    let error = StoreError::other(&self.path, "write", ErrorKind::WriteZero);
                    return self.sticky(Err(error));
                }
                Ok(more) => start += offset(more),
                Err(Errno::INTR) => {}
                Err(errno) => {
                    let error = StoreError::from_errno(&self.path, "write", errno);
                    return self.sticky(Err(error));
                }
            }
        }
        Ok(())
    }
}

/// The unaligned head, the whole blocks, the unaligned tail; any of them may be empty.
fn split(range: ByteRange) -> [std::ops::Range<u64>; 3] {
    let (start, end) = (range.start(), range.end());
    let first = start.next_multiple_of(BLOCK_LEN).min(end);
    let last = (end / BLOCK_LEN * BLOCK_LEN).max(first);
    [start..first, first..last, last..end]
}

/// At most 1 MiB of zeroes, and not more than `len`.
fn slices(len: u64) -> Vec<IoSlice<'static>> {
    let mut rest = usize::try_from(len).unwrap_or(usize::MAX);
    let mut slices = Vec::with_capacity(SLICES_MAX);
    while rest > 0 && slices.len() < SLICES_MAX {
        let part = rest.min(ZEROES.len());
        slices.push(IoSlice::new(&ZEROES[..part]));
        rest -= part;
    }
    slices
}

fn mode_of(kind: ZeroKind) -> FallocateFlags {
    match kind {
        ZeroKind::Trim | ZeroKind::Punch => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
        ZeroKind::Keep => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
    }
}

/// Unknown here, or not for such a range; or the books are full, where plain zeroes may still fit.
fn may_be_written_instead(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::NODEV
            | Errno::INVAL
            | Errno::INTR
            | Errno::NOSPC
            | Errno::DQUOT
    )
}

/// Whether both ways of zeroing work without writing zeroes. The data file itself is not touched:
/// of a file, an unnamed one beside it is tried; of a device, the kernel's books are read.
pub(super) fn probe(file: &File, path: &Path, kind: Kind, device: u64) -> bool {
    match kind {
        Kind::File => probe_beside(file, path).unwrap_or(false),
        Kind::Device => {
            let folder = format!("/sys/dev/block/{}:{}", major(device), minor(device));
            // The second is that of the disk, for a partition.
            ["queue", "../queue"].iter().any(|queue| {
                std::fs::read_to_string(format!("{folder}/{queue}/write_zeroes_max_bytes"))
                    .is_ok_and(|text| text.trim().parse().is_ok_and(|bytes: u64| bytes > 0))
            })
        }
    }
}

fn probe_beside(file: &File, path: &Path) -> rustix::io::Result<bool> {
    let target = std::fs::canonicalize(path).map_err(|_| Errno::NOENT)?;
    let folder = target.parent().ok_or(Errno::NOENT)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let beside = open(folder, flags, Mode::RUSR | Mode::WUSR)?;
    if fstat(&beside)?.st_dev != fstat(file)?.st_dev {
        return Ok(false);
    }
    let len = 16 * BLOCK_LEN;
    fallocate(&beside, FallocateFlags::empty(), 0, len)?;
    fallocate(&beside, mode_of(ZeroKind::Keep), 0, len)?;
    fallocate(&beside, mode_of(ZeroKind::Punch), 0, len)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;
    use crate::units::ResourceSize;

    fn size(len: u64) -> ResourceSize {
        ResourceSize::new(len).unwrap()
    }

    #[test]
    fn a_range_is_cut_at_whole_blocks() {
        let size = size(1 << 20);
        let cut = |start, len| split(ByteRange::new(start, len, size).unwrap());
        assert_eq!(cut(0, 8192), [0..0, 0..8192, 8192..8192]);
        assert_eq!(cut(1, 8192), [1..4096, 4096..8192, 8192..8193]);
        assert_eq!(cut(5, 10), [5..15, 15..15, 15..15]);
        assert_eq!(cut(4000, 200), [4000..4096, 4096..4096, 4096..4200]);
        assert_eq!(cut(4000, 96), [4000..4096, 4096..4096, 4096..4096]);
        assert_eq!(cut(4096, 1), [4096..4096, 4096..4096, 4096..4097]);
    }

    #[test]
    fn zeroing_touches_the_range_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let len = 70_001_u64;
        let ones = vec![0xff; usize::try_from(len).unwrap()];
        for kind in [ZeroKind::Trim, ZeroKind::Punch, ZeroKind::Keep] {
            for (start, count) in
                [(0, len), (1, 4096), (4096, 65_536), (4095, 2), (69_632, 369), (100, 60_000)]
            {
                std::fs::write(&path, &ones).unwrap();
                let data = DataFile::open(&path, size(len)).unwrap();
                data.zero(ByteRange::new(start, count, size(len)).unwrap(), kind).unwrap();
                let found = std::fs::read(&path).unwrap();
                assert_eq!(found.len(), ones.len(), "{kind:?} {start}+{count}");
                let zeroed =
                    usize::try_from(start).unwrap()..usize::try_from(start + count).unwrap();
                for (at, byte) in found.iter().enumerate() {
                    let expected = if zeroed.contains(&at) { 0 } else { 0xff };
                    assert_eq!(*byte, expected, "{kind:?} {start}+{count} at {at}");
                }
            }
        }
    }

    #[test]
    fn a_trim_gives_space_back_and_keep_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, vec![1; 1 << 20]).unwrap();
        let data = DataFile::open(&path, size(1 << 20)).unwrap();
        if !data.zeroing_is_cheap() {
            println!("skipped: {} has no holes", folder.path().display());
            return;
        }
        data.sync().unwrap();
        let before = data.file.metadata().unwrap().blocks();
        data.zero(size(1 << 20).whole(), ZeroKind::Keep).unwrap();
        assert_eq!(data.file.metadata().unwrap().blocks(), before);
        data.zero(size(1 << 20).whole(), ZeroKind::Punch).unwrap();
        assert!(data.file.metadata().unwrap().blocks() < before);
        assert_eq!(std::fs::read(&path).unwrap(), vec![0; 1 << 20]);
    }

    #[test]
    fn zeroes_are_written_where_they_cannot_be_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, vec![7; 3 << 20]).unwrap();
        let data = DataFile::open(&path, size(3 << 20)).unwrap();
        data.write_zeroes(5..(2 << 20) + 7).unwrap();
        let mut found = vec![0; (2 << 20) + 4];
        data.file.read_exact_at(&mut found, 4).unwrap();
        assert_eq!((found[0], found[found.len() - 1]), (7, 7));
        assert!(found[1..found.len() - 1].iter().all(|byte| *byte == 0));
    }
}
