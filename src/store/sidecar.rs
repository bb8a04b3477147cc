//! The sidecar folder of a resource: its metadata files, and how each byte of them gets stable.
//!
//! Making them is all or nothing: the superblock is written last, so a folder without one holds
//! no metadata, whatever else is in it. What the bytes mean is known to `metadata` alone.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, fdatasync, fsync, openat, unlinkat};

use super::StoreError;
use super::data_file::{lock, mount_id};
use super::files::{
    NewFile, fill, is_there, make_folder, open_folder, sync_folder, write_at, write_new,
};
use super::map::{MappedMap, check_ours};
use super::transfer::offset;
use crate::metadata::{
    ACTIVITY_LOG_FILE, BirthFile, DIRTY_MAP_FILE, DIRTY_SUM_FILE, DirtyMap, PAGE_LEN,
    SUPERBLOCK_FILE, Superblock, grown_sums, sum_file_len, sum_offset,
};
use crate::units::ResourceSize;

/// What becomes of metadata that is there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Existing {
    /// It is kept, and making new metadata is refused.
    Keep,
    /// It is given up (`init --rebuild`).
    Replace,
}

/// One open, locked metadata file.
#[derive(Debug)]
struct SideFile {
    file: Arc<File>,
    path: PathBuf,
    len_bytes: AtomicU64,
    failed: AtomicBool,
}

/// The open metadata files of one resource.
#[derive(Debug)]
pub struct Sidecar {
    superblock: SideFile,
    dirty_map: SideFile,
    dirty_sum: SideFile,
    activity_log: SideFile,
    /// `None` where it cannot be made.
    probe: Option<File>,
    mount: u64,
    folder: PathBuf,
}

impl Sidecar {
    /// Whether `folder` holds metadata.
    ///
    /// # Errors
    /// [`StoreError::Io`] if nobody can tell, as for want of permission.
    pub fn exists(folder: &Path) -> Result<bool, StoreError> {
        is_there(&folder.join(SUPERBLOCK_FILE))
    }

    /// Makes `folder` if it is not there, for what lies beside the metadata.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn make_folder(folder: &Path) -> Result<(), StoreError> {
        make_folder(folder).map(|_| ())
    }

    /// Makes all files in `folder`, which is made too if it is not there, and makes them stable.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is metadata and it is to be kept, [`StoreError::Locked`] if
    /// a daemon uses it, [`StoreError::NoSpace`], [`StoreError::Io`]. Then there is no metadata
    /// in the folder, but for the first two.
    pub fn create(
        folder: &Path,
        files: &[BirthFile; 4],
        existing: Existing,
    ) -> Result<(), StoreError> {
        let directory = make_folder(folder)?;
        if Self::exists(folder)? {
            let path = folder.join(SUPERBLOCK_FILE);
            match existing {
                Existing::Keep => return Err(StoreError::Exists { path }),
                Existing::Replace => {
                    // Held until the new superblock is there, against a daemon that starts.
                    let _old = SideFile::open(&directory, folder, SUPERBLOCK_FILE)?;
                    unlinkat(&directory, SUPERBLOCK_FILE, AtFlags::empty())
                        .map_err(|errno| StoreError::from_errno(&path, "remove", errno))?;
                    // The old superblock is gone before a file that it describes changes.
                    sync_folder(&directory, folder)?;
                    return write_all(&directory, folder, files);
                }
            }
        }
        write_all(&directory, folder, files)
    }

    /// Opens and locks all files.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if one is not there, [`StoreError::Locked`] if a second daemon has
    /// them, [`StoreError::NotOurs`] if others could change them, [`StoreError::Io`].
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let directory = open_folder(folder)?;
        let superblock = SideFile::open(&directory, folder, SUPERBLOCK_FILE)?;
        let mount = mount_id(&superblock.file, &superblock.path)?;
        Ok(Self {
            superblock,
            dirty_map: SideFile::open(&directory, folder, DIRTY_MAP_FILE)?,
            dirty_sum: SideFile::open(&directory, folder, DIRTY_SUM_FILE)?,
            activity_log: SideFile::open(&directory, folder, ACTIVITY_LOG_FILE)?,
            probe: open_probe(&directory),
            mount,
            folder: folder.to_owned(),
        })
    }

    /// The folder that holds them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The mount that holds them, as [`super::Identity::mount`].
    pub fn mount(&self) -> u64 {
        self.mount
    }

    /// Reads the superblock file, both slots.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn read_superblock(&self) -> Result<Vec<u8>, StoreError> {
        self.superblock.read()
    }

    /// Reads the sums of the dirty map's pages.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn read_dirty_sum(&self) -> Result<Vec<u8>, StoreError> {
        self.dirty_sum.read()
    }

    /// Reads the activity log.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn read_activity_log(&self) -> Result<Vec<u8>, StoreError> {
        self.activity_log.read()
    }

    /// Maps the dirty map. Only one mapping at a time may be used.
    ///
    /// # Errors
    /// As [`MappedMap`]: [`StoreError::NotOurs`], [`StoreError::NoSpace`], [`StoreError::Io`].
    pub fn map(&self) -> Result<MappedMap, StoreError> {
        MappedMap::open(&self.dirty_map.file, &self.dirty_map.path)
    }

    /// Makes the dirty map and its sums long enough for a resource that grows from `old` to `new`,
    /// without marks in the new part, and makes that stable: a power loss after it finds both whole,
    /// whichever size the record says. Blocks: not for the data thread. The map is to be mapped
    /// again afterwards.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], after which all is as before, or [`StoreError::Io`].
    pub fn grow(&self, old: ResourceSize, new: ResourceSize) -> Result<(), StoreError> {
        self.dirty_map.grow(DirtyMap::<MappedMap>::file_len(new))?;
        self.dirty_sum.grow(sum_file_len(new))?;
        let head = DirtyMap::<MappedMap>::grown_head(&self.dirty_map.read_head()?, new)
            .map_err(|_| self.dirty_map.is_damaged())?;
        let sums = grown_sums(&self.dirty_sum.read_head()?, old, new)
            .map_err(|_| self.dirty_sum.is_damaged())?;
        for (start, bytes) in sums {
            self.dirty_sum.write(start, &bytes)?;
        }
        self.dirty_sum.sync()?;
        self.dirty_map.write(0, &head)?;
        // Orders header and sums ahead of the record that says the new size.
        self.dirty_map.sync()
    }

    /// Makes the file of the sums anew, without any: `head`, then zeroes. Blocks: not for the data
    /// thread.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] or [`StoreError::Io`]; then it is as damaged as before.
    pub fn remake_dirty_sum(&self, size: ResourceSize, head: &[u8]) -> Result<(), StoreError> {
        let sums = &self.dirty_sum;
        sums.grow(sum_file_len(size))?;
        fill(&sums.file, &sums.path, offset(head.len())..sums.len_bytes())?;
        sums.write(0, head)?;
        // It is whole before the first sum is written to it.
        sums.sync()
    }

    /// Makes the mapped dirty map, the sums of these pages, and then a record stable. For commands
    /// that work without a daemon.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the record is the old one then, or the new one.
    pub fn save(&self, sums: &[(u64, u32)], record: &Superblock) -> Result<(), StoreError> {
        self.sync_map(sums)?;
        self.write_superblock(Superblock::slot_offset(record.counter), &record.encode())
    }

    /// Writes one slot of the superblock and makes it stable; the other one is not touched, so one
    /// of the two is whole at any time.
    pub(super) fn write_superblock(&self, start: u64, record: &[u8]) -> Result<(), StoreError> {
        self.superblock.write(start, record)?;
        // Orders the record ahead of every message and acknowledgement that relies on it.
        self.superblock.sync()
    }

    /// Appends to the activity log and makes that stable.
    pub(super) fn append_log(&self, start: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.activity_log.write(start, bytes)?;
        // Orders the entry ahead of the first write to its extents, here and on the peer.
        self.activity_log.sync()
    }

    /// Writes a few bytes and makes them stable, to see whether the disk answers.
    pub(super) fn probe(&self) -> Result<(), StoreError> {
        let Some(file) = &self.probe else { return Ok(()) };
        let path = self.folder.join(PROBE_FILE);
        write_at(file, &path, 0, PROBE)?;
        // Orders nothing: that it comes back is what is asked.
        fdatasync(file).map_err(|errno| StoreError::from_sync(&path, errno))
    }

    /// Makes the mapped dirty map stable, and then the sums of its pages.
    pub(super) fn sync_map(&self, sums: &[(u64, u32)]) -> Result<(), StoreError> {
        // Orders the marks ahead of their sums, so that a sum never vouches for bits that are not
        // there; and ahead of extents that leave the log because their marks are stable.
        self.dirty_map.sync()?;
        let mut run = Vec::new();
        let mut first = 0;
        for &(page, sum) in sums {
            if !run.is_empty() && first + offset(run.len() / 4) != page {
                self.dirty_sum.write(sum_offset(first), &run)?;
                run.clear();
            }
            if run.is_empty() {
                first = page;
            }
            run.extend_from_slice(&sum.to_le_bytes());
        }
        if run.is_empty() {
            return Ok(());
        }
        self.dirty_sum.write(sum_offset(first), &run)?;
        // Orders the sums ahead of the superblock that says "clean", which trusts them.
        self.dirty_sum.sync()
    }
}

/// A file that holds nothing of the resource. Without it the disk is watched by what it is asked
/// anyway.
fn open_probe(directory: &File) -> Option<File> {
    let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(directory, PROBE_FILE, flags, Mode::RUSR | Mode::WUSR).ok().map(File::from)
}

const PROBE_FILE: &str = "probe";
/// What is written to it, again and again.
const PROBE: &[u8] = b"hotpair writes this to see whether the disk answers\n";

impl SideFile {
    fn open(directory: &File, folder: &Path, name: &str) -> Result<Self, StoreError> {
        let path = folder.join(name);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::empty())
            .map_err(|errno| StoreError::from_open(&path, "open", errno))?;
        let file = File::from(file);
        let len = check_ours(&file, &path)?;
        lock(&file, &path)?;
        let failed = AtomicBool::new(false);
        let len_bytes = AtomicU64::new(offset(len));
        Ok(Self { file: Arc::new(file), path, len_bytes, failed })
    }

    fn len_bytes(&self) -> u64 {
        self.len_bytes.load(Ordering::Acquire)
    }

    /// Makes it at least `len_bytes` long; the new part is zero, allocated and stable.
    fn grow(&self, len_bytes: u64) -> Result<(), StoreError> {
        let old = self.len_bytes();
        if len_bytes <= old {
            return Ok(());
        }
        // What is in use lies before it, so a full disk is no failure here.
        fill(&self.file, &self.path, old..len_bytes)?;
        self.sticky(|| {
            // The new part and its space are there before a record says that the resource has it.
            fsync(&self.file).map_err(|errno| StoreError::from_sync(&self.path, errno))
        })?;
        self.len_bytes.store(len_bytes, Ordering::Release);
        Ok(())
    }

    fn read(&self) -> Result<Vec<u8>, StoreError> {
        let len = usize::try_from(self.len_bytes()).expect("a usize when it was opened or grown");
        self.read_first(len)
    }

    /// Its first page.
    fn read_head(&self) -> Result<Vec<u8>, StoreError> {
        self.read_first(PAGE_LEN)
    }

    /// An error for bytes that are not what they should be.
    fn is_damaged(&self) -> StoreError {
        StoreError::other(&self.path, "make longer", ErrorKind::InvalidData)
    }

    fn read_first(&self, len: usize) -> Result<Vec<u8>, StoreError> {
        let failed = |source| StoreError::Io { path: self.path.clone(), action: "read", source };
        let mut bytes = vec![0; len];
        std::os::unix::fs::FileExt::read_exact_at(&*self.file, &mut bytes, 0).map_err(failed)?;
        Ok(bytes)
    }

    /// Writes inside the length that was allocated when the file was made.
    fn write(&self, start: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let end = start.saturating_add(offset(bytes.len()));
        assert!(end <= self.len_bytes(), "metadata is never written behind its end");
        self.sticky(|| write_at(&self.file, &self.path, start, bytes))
    }

    fn sync(&self) -> Result<(), StoreError> {
        // The length never changes after the file was made, so fdatasync is enough.
        self.sticky(|| {
            fdatasync(&self.file).map_err(|errno| StoreError::from_sync(&self.path, errno))
        })
    }

    /// Makes a call unless one failed before: after a failed sync a later success proves nothing.
    /// A full disk is a failure too, since the space was allocated.
    fn sticky(&self, call: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::FailedBefore { path: self.path.clone() });
        }
        let result = call();
        if result.is_err() {
            self.failed.store(true, Ordering::Release);
        }
        result
    }
}

fn write_all(directory: &File, folder: &Path, files: &[BirthFile; 4]) -> Result<(), StoreError> {
    let [others @ .., superblock] = files;
    assert_eq!(superblock.name, SUPERBLOCK_FILE, "it says that the others are whole");
    for file in others {
        write_new(directory, folder, new_file(file))?;
    }
    // All that the superblock describes is there before it is.
    sync_folder(directory, folder)?;
    write_new(directory, folder, new_file(superblock))?;
    // It is there before anything relies on it.
    sync_folder(directory, folder)
}

fn new_file(birth: &BirthFile) -> NewFile<'_> {
    NewFile { name: birth.name, head: &birth.head, len: birth.len }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::super::tests::births;
    use super::*;
    use crate::metadata::{Birth, MapMemory, Newborn, Place, birth};
    use crate::units::{BlockIndex, ReplicaId, ResourceId};

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn made_files_are_ours_alone_allocated_and_read_back() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("state/vm1");
        assert!(!Sidecar::exists(&folder).unwrap());
        Sidecar::create(&folder, &births(), Existing::Keep).unwrap();
        assert!(Sidecar::exists(&folder).unwrap());
        assert_eq!(
            names(&folder),
            [ACTIVITY_LOG_FILE, DIRTY_MAP_FILE, DIRTY_SUM_FILE, SUPERBLOCK_FILE]
        );
        for name in names(&folder) {
            let status = folder.join(name).metadata().unwrap();
            assert_eq!(status.permissions().mode() & 0o777, 0o600);
            assert!(status.blocks() * 512 >= status.len());
        }
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let sidecar = Sidecar::open(&folder).unwrap();
        assert_eq!(sidecar.read_superblock().unwrap(), births()[3].head);
        assert_eq!(sidecar.read_activity_log().unwrap(), vec![3; 16_384]);
        let map = sidecar.map().unwrap();
        assert_eq!(map.bytes().len(), 3 * 4096);
        assert_eq!((map.bytes()[0], map.bytes()[4095], map.bytes()[4096]), (2, 2, 0));
        assert_ne!(sidecar.mount(), 0);
    }

    #[test]
    fn metadata_is_given_up_only_on_purpose_and_never_while_in_use() {
        let folder = tempfile::tempdir().unwrap();
        Sidecar::create(folder.path(), &births(), Existing::Keep).unwrap();
        let again = Sidecar::create(folder.path(), &births(), Existing::Keep);
        assert!(matches!(again, Err(StoreError::Exists { .. })));
        let sidecar = Sidecar::open(folder.path()).unwrap();
        assert!(matches!(Sidecar::open(folder.path()), Err(StoreError::Locked { .. })));
        let in_use = Sidecar::create(folder.path(), &births(), Existing::Replace);
        assert!(matches!(in_use, Err(StoreError::Locked { .. })));
        drop(sidecar);
        let mut other = births();
        (other[2].head, other[2].len) = (vec![9; 4096], 4096);
        Sidecar::create(folder.path(), &other, Existing::Replace).unwrap();
        let log = Sidecar::open(folder.path()).unwrap().read_activity_log().unwrap();
        assert_eq!(log, vec![9; 4096]);
    }

    #[test]
    fn an_interrupted_making_leaves_no_metadata_and_can_be_repeated() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("dirty.map"), "half").unwrap();
        std::fs::write(folder.path().join("dirty.sum.new"), "half").unwrap();
        assert!(!Sidecar::exists(folder.path()).unwrap());
        assert!(matches!(Sidecar::open(folder.path()), Err(StoreError::Missing { .. })));
        Sidecar::create(folder.path(), &births(), Existing::Keep).unwrap();
        assert_eq!(
            names(folder.path()),
            [ACTIVITY_LOG_FILE, DIRTY_MAP_FILE, DIRTY_SUM_FILE, SUPERBLOCK_FILE]
        );
    }

    #[test]
    fn each_write_lands_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        Sidecar::create(folder.path(), &births(), Existing::Keep).unwrap();
        let sidecar = Sidecar::open(folder.path()).unwrap();
        sidecar.write_superblock(4096, &[0xee; 4096]).unwrap();
        let slots = sidecar.read_superblock().unwrap();
        assert_eq!(slots[..4096], births()[3].head[..4096]);
        assert_eq!(slots[4096..], [0xee; 4096]);
        sidecar.append_log(8192, &[0xdd; 4096]).unwrap();
        let log = sidecar.read_activity_log().unwrap();
        assert_eq!((log[8191], log[8192], log[12_287], log[12_288]), (3, 0xdd, 0xdd, 3));
        let sums = [(0, 1), (1, 2), (5, 6), (3, u32::MAX)];
        sidecar.sync_map(&sums).unwrap();
        sidecar.sync_map(&[]).unwrap();
        let found = sidecar.read_dirty_sum().unwrap();
        let sum = |page: usize| &found[4096 + page * 4..][..4];
        assert_eq!(
            [sum(0), sum(1), sum(5), sum(3)],
            [&1_u32.to_le_bytes(), &2_u32.to_le_bytes(), &6_u32.to_le_bytes(), &[0xff; 4]]
        );
        assert_eq!([sum(2), sum(4), sum(6)], [[0; 4]; 3]);
    }

    #[test]
    fn grown_files_keep_what_they_have_and_have_no_marks_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let old = ResourceSize::new(1 << 20).unwrap();
        let newborn = Newborn {
            resource_id: ResourceId(1),
            replica_id: ReplicaId(2),
            generation_id: 3,
            size: old,
            place: Place::default(),
        };
        let born = birth(Birth::This, &newborn);
        Sidecar::create(folder.path(), &born, Existing::Keep).unwrap();
        let sidecar = Sidecar::open(folder.path()).unwrap();
        let size = ResourceSize::new(1 << 40).unwrap();
        let mut before = DirtyMap::open(sidecar.map().unwrap(), old).unwrap();
        before.set(BlockIndex(255));
        sidecar.grow(old, size).unwrap();
        let map = sidecar.map().unwrap();
        assert_eq!(map.bytes().len() as u64, DirtyMap::<MappedMap>::file_len(size));
        before.set(BlockIndex(3));
        before.grow(map, size);
        assert!(before.is_set(BlockIndex(3)) && before.is_set(BlockIndex(255)));
        assert_eq!(before.count(), 2);
        drop(before);
        let map_file = || std::fs::read(folder.path().join(DIRTY_MAP_FILE)).unwrap();
        let again = DirtyMap::open(map_file(), size).unwrap();
        assert_eq!(again.count(), 2);
        let sums = sidecar.read_dirty_sum().unwrap();
        assert_eq!(sums.len() as u64, sum_file_len(size));
        let sum = |page: u64| {
            let at = usize::try_from(sum_offset(page)).unwrap();
            u32::from_le_bytes(sums[at..at + 4].try_into().unwrap())
        };
        assert_eq!(sum(1), again.page_sum(1));
        assert_eq!(sum(8191), again.page_sum(8191));
        // Taken back: the longer files serve the old size as well.
        let shorter = DirtyMap::open(map_file(), old).unwrap();
        assert_eq!(shorter.count(), 2);
    }

    #[test]
    fn sums_that_were_cut_or_damaged_are_made_anew_without_any() {
        let size = ResourceSize::new(1 << 30).unwrap();
        for len in [0, 100, 4096, 5000, sum_file_len(size) + 4096] {
            let folder = tempfile::tempdir().unwrap();
            Sidecar::create(folder.path(), &births(), Existing::Keep).unwrap();
            let path = folder.path().join(DIRTY_SUM_FILE);
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(len).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 64], 0).unwrap();
            drop(file);
            let sidecar = Sidecar::open(folder.path()).unwrap();
            sidecar.remake_dirty_sum(size, &[7; 4096]).unwrap();
            let sums = sidecar.read_dirty_sum().unwrap();
            assert_eq!(sums.len() as u64, len.max(sum_file_len(size)));
            assert!(sums[..4096].iter().all(|byte| *byte == 7));
            assert!(sums[4096..].iter().all(|byte| *byte == 0));
            sidecar.sync_map(&[(7, 1)]).unwrap();
        }
    }

    #[test]
    fn a_metadata_file_that_failed_once_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        Sidecar::create(folder.path(), &births(), Existing::Keep).unwrap();
        let mut sidecar = Sidecar::open(folder.path()).unwrap();
        let full = File::options().read(true).write(true).open("/dev/full").unwrap();
        sidecar.activity_log.file = Arc::new(full);
        let append = |sidecar: &Sidecar| sidecar.append_log(0, &[0; 4096]);
        assert!(matches!(append(&sidecar), Err(StoreError::NoSpace { .. })));
        assert!(matches!(append(&sidecar), Err(StoreError::FailedBefore { .. })));
        // What remains can still record that failure.
        sidecar.write_superblock(0, &[1; 4096]).unwrap();
    }
}
