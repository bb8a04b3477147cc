//! The file or block device that holds a resource: opening it, and knowing that it is still the
//! same one.
//!
//! It is never mapped and never opened with `O_DIRECT` for clients: two copies written through
//! different caches could differ. Reading and writing are in `transfer.rs`, zeroing in `zero.rs`.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{
    Advice, AtFlags, FileType, FlockOperation, Mode, OFlags, StatxFlags, fadvise, flock, fstat,
    fsync, ftruncate, open, stat, statx,
};
use rustix::io::Errno;

use super::StoreError;
use super::files::read_file;
use crate::units::{ByteRange, ResourceSize, ZeroKind};

/// Which file it is: another one at the next start is another disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Device that holds the file; of a block device, the device itself.
    pub device: u64,
    /// Its inode; zero for a block device, whose node is made anew at each boot.
    pub inode: u64,
    /// The mount it was reached by, unique since boot where the kernel says so (Linux 6.8). Of a
    /// block device, the number that the kernel gave this disk when it was attached (Linux 5.15);
    /// zero if it does not say, which no disk has.
    pub mount: u64,
}

/// Whether it is a file or a device. Nobody outside this folder knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    /// A regular file.
    File,
    /// A block device.
    Device,
}

/// An open, exclusively locked data file.
#[derive(Debug)]
pub struct DataFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    identity: Identity,
    size: AtomicU64,
    zeroing_is_cheap: bool,
    /// A second descriptor that reads past the page cache, made when first asked for.
    direct: OnceLock<Option<File>>,
    /// Set by the first failure, never unset.
    failed: AtomicBool,
    /// Calls of fdatasync that were begun.
    pub(super) syncs: AtomicU64,
}

impl DataFile {
    /// Opens and locks the data file of a resource of `size`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::NotBlocks`], [`StoreError::Locked`] if a second
    /// daemon or a mount holds it, [`StoreError::Shorter`] if the resource does not fit,
    /// [`StoreError::Io`] for the rest.
    pub fn open(path: &Path, size: ResourceSize) -> Result<Self, StoreError> {
        let (file, kind) = open_locked(path)?;
        // Read-ahead would leave large folios in the page cache, which make a 4 KiB write 15 to 35
        // times dearer on ext4. A refusal costs speed only.
        let _ = fadvise(&file, 0, None, Advice::Random);
        let identity = identify(&file, path, kind)?;
        let zeroing_is_cheap = super::zero::probe(&file, path, kind, identity.device);
        let data = Self {
            file,
            path: path.to_owned(),
            kind,
            identity,
            size: AtomicU64::new(size.bytes()),
            zeroing_is_cheap,
            direct: OnceLock::new(),
            failed: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
        };
        data.check_len(data.len_bytes()?)?;
        Ok(data)
    }

    /// Makes an absent data file of `size`, all zero and without space allocated.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if something is there, [`StoreError::NoSpace`] or
    /// [`StoreError::Io`] if it cannot be made stable.
    pub fn create(path: &Path, size: ResourceSize) -> Result<(), StoreError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| StoreError::from_open(path, "create", errno))?;
        ftruncate(&file, size.bytes())
            .map_err(|errno| StoreError::from_errno(path, "set its length", errno))?;
        // Its length is stable before metadata says that the resource has one.
        fsync(&file).map_err(|errno| StoreError::from_sync(path, errno))?;
        super::files::sync_folder_of(path)
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Its descriptor.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size that the resource has in it.
    pub fn size(&self) -> ResourceSize {
        ResourceSize::new(self.size.load(Ordering::Relaxed)).expect("only sizes are stored")
    }

    /// Its length now, at least that of the resource unless somebody shortened it.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the kernel does not say.
    pub fn len_bytes(&self) -> Result<u64, StoreError> {
        match self.kind {
            Kind::File => {
                let status = fstat(&self.file)
                    .map_err(|errno| StoreError::from_errno(&self.path, "look at", errno))?;
                Ok(u64::try_from(status.st_size).unwrap_or(0))
            }
            // Transfers name their offset, so the position of the descriptor is nobody's.
            Kind::Device => (&self.file).seek(SeekFrom::End(0)).map_err(|source| StoreError::Io {
                path: self.path.clone(),
                action: "look at",
                source,
            }),
        }
    }

    /// Whether ranges are zeroed without writing them.
    pub fn zeroing_is_cheap(&self) -> bool {
        self.zeroing_is_cheap
    }

    /// Whether it failed, at any time since it was opened.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// How many calls of fdatasync were begun; fewer than the core asked for when they are shared.
    pub fn sync_count(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Checks that the path still leads to this file and that the file still holds the resource.
    /// To be called each second: nothing else finds out before a read or a restart does.
    ///
    /// # Errors
    /// [`StoreError::Replaced`], [`StoreError::Shorter`], [`StoreError::Io`]: the disk has failed.
    pub fn check_identity(&self) -> Result<(), StoreError> {
        self.sticky(self.compare_identity())
    }

    fn compare_identity(&self) -> Result<(), StoreError> {
        let look = |errno| StoreError::from_errno(&self.path, "look at", errno);
        let replaced = || StoreError::Replaced { path: self.path.clone() };
        let found = match stat(&self.path) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(replaced()),
            found => found.map_err(look)?,
        };
        let opened = fstat(&self.file).map_err(look)?;
        let same = match self.kind {
            Kind::File => {
                opened.st_nlink > 0
                    && (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)
            }
            Kind::Device => {
                FileType::from_raw_mode(found.st_mode) == FileType::BlockDevice
                    && found.st_rdev == opened.st_rdev
            }
        };
        if !same {
            return Err(replaced());
        }
        self.check_len(self.len_bytes()?)
    }

    fn check_len(&self, found_bytes: u64) -> Result<(), StoreError> {
        let expected_bytes = self.size().bytes();
        if found_bytes < expected_bytes {
            return Err(StoreError::Shorter {
                path: self.path.clone(),
                found_bytes,
                expected_bytes,
            });
        }
        Ok(())
    }

    /// Makes room for a resource that grows from `old` to `new`, and makes that stable. The new part
    /// reads as zero: a file is extended without space, and what lies behind the old end already is
    /// zeroed. The resource has its old size until [`DataFile::set_size`]. Blocks: not for the data
    /// thread.
    ///
    /// # Errors
    /// [`StoreError::Shorter`] for a device that is too small, else [`StoreError::NoSpace`] or
    /// [`StoreError::Io`].
    pub fn grow(&self, old: ResourceSize, new: ResourceSize) -> Result<(), StoreError> {
        self.check_usable()?;
        let (found_bytes, expected_bytes) = (self.len_bytes()?, new.bytes());
        if self.kind == Kind::Device && found_bytes < expected_bytes {
            let path = self.path.clone();
            return Err(StoreError::Shorter { path, found_bytes, expected_bytes });
        }
        // Nobody's until now: left by an older use of the disk.
        let behind = found_bytes.min(expected_bytes).saturating_sub(old.bytes());
        if let Some(range) = ByteRange::new(old.bytes(), behind, new) {
            self.zero(range, ZeroKind::Punch)?;
        }
        if found_bytes < expected_bytes {
            ftruncate(&self.file, expected_bytes)
                .map_err(|errno| StoreError::from_errno(&self.path, "set its length", errno))?;
        }
        // Length and zeroes are stable before metadata says that the resource has them.
        let synced = fsync(&self.file).map_err(|errno| StoreError::from_sync(&self.path, errno));
        self.sticky(synced)
    }

    /// From here on the resource has `size`, for which [`DataFile::grow`] made room.
    pub fn set_size(&self, size: ResourceSize) {
        self.size.store(size.bytes(), Ordering::Relaxed);
    }

    /// The descriptor that reads past the page cache.
    ///
    /// # Errors
    /// [`StoreError::NoDirectReads`] where the file system has none; the disk is none the worse.
    pub fn direct(&self) -> Result<&File, StoreError> {
        let opened = self.direct.get_or_init(|| {
            let flags = OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC;
            // By descriptor, so that it is the same file whatever the path leads to meanwhile.
            let same = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file));
            open(same, flags, Mode::empty()).ok().map(File::from)
        });
        opened.as_ref().ok_or_else(|| StoreError::NoDirectReads { path: self.path.clone() })
    }

    /// Refuses a file that failed before.
    pub(super) fn check_usable(&self) -> Result<(), StoreError> {
        if self.has_failed() {
            return Err(StoreError::FailedBefore { path: self.path.clone() });
        }
        Ok(())
    }

    /// Remembers a failure for good. Neither a full disk nor a missing feature is one.
    pub(super) fn sticky<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(error) = &result
            && !matches!(error, StoreError::NoSpace { .. } | StoreError::NoDirectReads { .. })
        {
            self.failed.store(true, Ordering::Release);
        }
        result
    }

    /// Wraps any descriptor, so that tests can meet devices that fail.
    #[cfg(test)]
    pub(super) fn from_parts(path: &Path, size: ResourceSize) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        Self {
            file,
            path: path.to_owned(),
            kind: Kind::File,
            identity: Identity { device: 0, inode: 0, mount: 0 },
            size: AtomicU64::new(size.bytes()),
            zeroing_is_cheap: false,
            direct: OnceLock::new(),
            failed: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
        }
    }
}

fn open_locked(path: &Path) -> Result<(File, Kind), StoreError> {
    let status = stat(path).map_err(|errno| StoreError::from_open(path, "look at", errno))?;
    // Neither a FIFO nor a tape is opened just to find out that it is one.
    let expected =
        kind(status.st_mode).ok_or_else(|| StoreError::NotBlocks { path: path.to_owned() })?;
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC;
    if expected == Kind::Device {
        // Claims the device from mounts, from device mapper and from whoever else claims.
        flags |= OFlags::EXCL;
    }
    let file = match open(path, flags, Mode::empty()) {
        Err(Errno::BUSY) => return Err(StoreError::Locked { path: path.to_owned() }),
        opened => File::from(opened.map_err(|errno| StoreError::from_open(path, "open", errno))?),
    };
    let status = fstat(&file).map_err(|errno| StoreError::from_errno(path, "look at", errno))?;
    let found =
        kind(status.st_mode).ok_or_else(|| StoreError::NotBlocks { path: path.to_owned() })?;
    lock(&file, path)?;
    Ok((file, found))
}

fn kind(mode: rustix::fs::RawMode) -> Option<Kind> {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Some(Kind::File),
        FileType::BlockDevice => Some(Kind::Device),
        _ => None,
    }
}

/// Takes the exclusive lock that a second daemon would need. It is held until the last descriptor
/// of this opening is closed, so no I/O of ours outlives it.
pub(super) fn lock(file: &File, path: &Path) -> Result<(), StoreError> {
    flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
        Errno::WOULDBLOCK => StoreError::Locked { path: path.to_owned() },
        errno => StoreError::from_errno(path, "lock", errno),
    })
}

fn identify(file: &File, path: &Path, kind: Kind) -> Result<Identity, StoreError> {
    let status = fstat(file).map_err(|errno| StoreError::from_errno(path, "look at", errno))?;
    Ok(match kind {
        Kind::File => {
            Identity { device: status.st_dev, inode: status.st_ino, mount: mount_id(file, path)? }
        }
        Kind::Device => {
            let device = status.st_rdev;
            Identity { device, inode: 0, mount: disk_sequence(device).unwrap_or(0) }
        }
    })
}

/// The number of the disk behind a block device: another one for each disk that was attached since
/// boot. The mount of its node would not change when it is detached and another takes its number.
fn disk_sequence(device: u64) -> Option<u64> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let folder = format!("/sys/dev/block/{major}:{minor}");
    // That of a partition is its disk's.
    ["diskseq", "../diskseq"].into_iter().find_map(|name| {
        let bytes = read_file(&Path::new(&folder).join(name), DISK_SEQUENCE_LEN_MAX).ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    })
}

/// Length of a disk's number as text, with its line end and some room.
const DISK_SEQUENCE_LEN_MAX: usize = 64;

/// The mount that `file` was reached by. Unique ids are never used again; the others may be, which
/// hides a remount, so the kernel's best answer is asked for.
pub(super) fn mount_id(file: &File, path: &Path) -> Result<u64, StoreError> {
    // STATX_MNT_ID_UNIQUE, Linux 6.8; older kernels ignore it and answer the other one.
    let unique = StatxFlags::from_bits_retain(0x4000);
    let wanted = StatxFlags::MNT_ID | unique;
    match statx(file, "", AtFlags::EMPTY_PATH, wanted) {
        Ok(found) => Ok(found.stx_mnt_id),
        Err(Errno::NOSYS) => Ok(0),
        Err(errno) => Err(StoreError::from_errno(path, "look at", errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(len: u64) -> ResourceSize {
        ResourceSize::new(len).unwrap()
    }

    fn made(len: u64) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        DataFile::create(&path, size(len)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_made_file_has_its_length_and_is_never_made_twice() {
        let (_folder, path) = made(10_001);
        let data = DataFile::open(&path, size(10_001)).unwrap();
        assert_eq!(data.len_bytes().unwrap(), 10_001);
        assert!(matches!(DataFile::create(&path, size(1)), Err(StoreError::Exists { .. })));
    }

    #[test]
    fn a_second_opening_is_refused_until_the_first_is_closed() {
        let (_folder, path) = made(4096);
        let first = DataFile::open(&path, size(4096)).unwrap();
        let error = DataFile::open(&path, size(4096)).unwrap_err();
        assert!(matches!(error, StoreError::Locked { .. }));
        assert!(error.to_string().contains("second daemon"), "{error}");
        drop(first);
        DataFile::open(&path, size(4096)).unwrap();
    }

    #[test]
    fn what_is_missing_short_or_no_file_is_refused_by_name() {
        let (folder, path) = made(4095);
        let short = DataFile::open(&path, size(4096)).unwrap_err();
        assert!(matches!(short, StoreError::Shorter { found_bytes: 4095, .. }), "{short}");
        let missing = DataFile::open(&folder.path().join("none"), size(1)).unwrap_err();
        assert!(matches!(missing, StoreError::Missing { .. }), "{missing}");
        for odd in [folder.path(), Path::new("/dev/full")] {
            let error = DataFile::open(odd, size(1)).unwrap_err();
            assert!(matches!(error, StoreError::NotBlocks { .. }), "{error}");
        }
    }

    #[test]
    fn the_same_file_stays_the_same() {
        let (_folder, path) = made(4096);
        let data = DataFile::open(&path, size(4096)).unwrap();
        data.check_identity().unwrap();
        let identity = data.identity();
        assert!(identity.inode != 0 && identity.mount != 0);
        drop(data);
        assert_eq!(DataFile::open(&path, size(4096)).unwrap().identity(), identity);
    }

    #[test]
    fn a_file_that_was_removed_replaced_or_shortened_has_failed() {
        type Harm = fn(&Path);
        let harms: [Harm; 3] = [
            |path| std::fs::remove_file(path).unwrap(),
            |path| {
                std::fs::remove_file(path).unwrap();
                std::fs::write(path, [0; 4096]).unwrap();
            },
            |path| File::options().write(true).open(path).unwrap().set_len(4095).unwrap(),
        ];
        for harm in harms {
            let (_folder, path) = made(4096);
            let data = DataFile::open(&path, size(4096)).unwrap();
            harm(&path);
            assert!(data.check_identity().is_err());
            assert!(data.has_failed());
            assert!(matches!(data.sync(), Err(StoreError::FailedBefore { .. })));
        }
    }

    #[test]
    fn a_failed_sync_sticks() {
        // A device that refuses to sync, whatever is written to it.
        let data = DataFile::from_parts(Path::new("/dev/full"), size(4096));
        assert!(matches!(data.sync(), Err(StoreError::Io { .. })));
        assert!(matches!(data.sync(), Err(StoreError::FailedBefore { .. })));
        assert_eq!(data.sync_count(), 1, "it is not tried again");
        let mut buffer = [0; 1];
        assert!(matches!(data.read_from(0, &mut buffer, 0), Err(StoreError::FailedBefore { .. })));
        assert!(matches!(data.write_from(0, &[0], 0), Err(StoreError::FailedBefore { .. })));
    }

    #[test]
    fn a_full_disk_is_no_failure() {
        let data = DataFile::from_parts(Path::new("/dev/full"), size(4096));
        assert!(matches!(data.write_from(0, &[1; 10], 0), Err(StoreError::NoSpace { .. })));
        assert!(!data.has_failed());
    }

    #[test]
    fn growing_adds_zeroes_and_never_shortens() {
        let (_folder, path) = made(4096);
        let data = DataFile::open(&path, size(4096)).unwrap();
        data.grow(size(4096), size(10_000)).unwrap();
        assert_eq!((data.size().bytes(), data.len_bytes().unwrap()), (4096, 10_000));
        data.grow(size(4096), size(5000)).unwrap();
        assert_eq!((data.size().bytes(), data.len_bytes().unwrap()), (4096, 10_000));
        data.set_size(size(5000));
        assert_eq!(data.size().bytes(), 5000);
    }

    #[test]
    fn what_lies_behind_the_old_end_reads_as_zero_once_the_resource_has_it() {
        let (_folder, path) = made(20_000);
        std::fs::write(&path, vec![7; 20_000]).unwrap();
        let data = DataFile::open(&path, size(4000)).unwrap();
        data.grow(size(4000), size(15_000)).unwrap();
        let found = std::fs::read(&path).unwrap();
        assert!(found[..4000].iter().all(|byte| *byte == 7));
        assert!(found[4000..15_000].iter().all(|byte| *byte == 0));
        assert!(found[15_000..].iter().all(|byte| *byte == 7), "not the resource's");
    }
}
