//! A held directory and what is in it.
//!
//! Each call names one entry of the held directory. Directories are opened with `openat2` and all that
//! it can forbid; objects with `O_NOFOLLOW`. So a link that is swapped in meanwhile leads nowhere, and a
//! file system that is mounted over an entry is not entered.

use std::ffi::OsStr;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxAttributes, StatxFlags,
    StatxTimestamp, open, openat2, readlinkat, statx,
};
use rustix::io::{Errno, Result};

use crate::manifest::{FileTime, Identity, Kind, Name, Stamp};

/// How directories and objects are opened: by one name, in this mount, through no link.
pub(super) const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);
/// Bytes of entries that are read at once.
const LISTING_LEN: usize = 64 << 10;

/// A directory that is held open. It stays the same directory, wherever it is moved.
#[derive(Debug)]
pub struct Folder(OwnedFd);

/// What the file system says of an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Found {
    /// `None` for a kind that the kernel may learn to make one day.
    pub kind: Option<Kind>,
    /// Everything that tells whether it is as it was.
    pub stamp: Stamp,
    /// The mount that it is in; another one than its directory's if it is a mount point.
    pub mount: u64,
    /// It is immutable or append-only, which is not kept.
    pub has_flags: bool,
}

/// The entries of a directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Listing {
    /// In order of their names.
    pub names: Vec<Name>,
    /// Entries whose names are longer than any that can be kept.
    pub too_long: usize,
}

impl Folder {
    /// Opens the directory at `path`, which must be one itself and no link to one.
    ///
    /// # Errors
    /// `NOTDIR` or `LOOP` if it is something else, else what the kernel says.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).map(Self)
    }

    /// Another handle of this directory.
    ///
    /// # Errors
    /// What the kernel says: `MFILE` if too many are held.
    pub fn again(&self) -> Result<Self> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 0).map(Self)
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// `XDEV` if another file system is mounted there, `NOTDIR` or `LOOP` if it is no directory.
    pub fn child(&self, name: &Name) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.open_entry(name, flags).map(Self)
    }

    /// Opens a regular file for reading. What else has that name by now is opened without waiting for
    /// anybody at its other end: look at the stamp before the content.
    ///
    /// # Errors
    /// `LOOP` if it is a link, else what the kernel says.
    pub fn file(&self, name: &Name) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Reading must not look like use; whoever does not own the file may not ask for that.
        match self.open_entry(name, flags | OFlags::NOATIME) {
            Err(Errno::PERM) => self.open_entry(name, flags).map(File::from),
            opened => opened.map(File::from),
        }
    }

    /// Holds an object of any kind, without opening it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn object(&self, name: &Name) -> Result<OwnedFd> {
        self.open_entry(name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
    }

    /// What the file system says of an entry; `None` if there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn look(&self, name: &Name) -> Result<Option<Found>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        match statx(&self.0, os(name), flags, LOOK) {
            Ok(found) => Ok(Some(Found::from(&found))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What the file system says of this directory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn look_at_self(&self) -> Result<Found> {
        look_at(&self.0)
    }

    /// Where a symbolic link points, byte for byte.
    ///
    /// # Errors
    /// `INVAL` if it is none.
    pub fn target(&self, name: &Name) -> Result<Box<[u8]>> {
        let target = readlinkat(&self.0, os(name), Vec::new())?;
        Ok(target.into_bytes().into())
    }

    /// All entries. Those that come or go meanwhile may be in or not.
    ///
    /// # Errors
    /// What the kernel says; then nothing is known of what is in it.
    pub fn list(&self) -> Result<Listing> {
        // Where this handle has been read to belongs to all who hold it: a new one begins anew.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fresh = openat2(&self.0, c".", flags, Mode::empty(), BENEATH)?;
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_LEN];
        let mut entries = RawDir::new(fresh, &mut buffer);
        let mut listing = Listing::default();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if matches!(bytes, b"." | b"..") {
                continue;
            }
            match Name::new(bytes) {
                Ok(name) => listing.names.push(name),
                Err(_) => listing.too_long += 1,
            }
        }
        listing.names.sort_unstable();
        Ok(listing)
    }

    fn open_entry(&self, name: &Name, flags: OFlags) -> Result<OwnedFd> {
        openat2(&self.0, os(name), flags, Mode::empty(), BENEATH)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the file system says of what is held.
///
/// # Errors
/// What the kernel says.
pub(super) fn look_at(held: impl AsFd) -> Result<Found> {
    let found = statx(held, c"", AtFlags::EMPTY_PATH | AtFlags::NO_AUTOMOUNT, LOOK)?;
    Ok(Found::from(&found))
}

const LOOK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

impl From<&Statx> for Found {
    fn from(found: &Statx) -> Self {
        let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
        let birth = has_birth.then(|| time(found.stx_btime));
        let flags = StatxAttributes::IMMUTABLE | StatxAttributes::APPEND;
        Self {
            kind: kind(FileType::from_raw_mode(found.stx_mode.into())),
            stamp: Stamp {
                identity: Identity { inode: found.stx_ino, birth },
                size: found.stx_size,
                mtime: time(found.stx_mtime),
                ctime: time(found.stx_ctime),
                mode: found.stx_mode.into(),
                uid: found.stx_uid,
                gid: found.stx_gid,
                nlink: found.stx_nlink.into(),
                rdev: (found.stx_rdev_major, found.stx_rdev_minor),
            },
            mount: found.stx_mnt_id,
            has_flags: found.stx_attributes.intersects(flags),
        }
    }
}

fn kind(file_type: FileType) -> Option<Kind> {
    match file_type {
        FileType::RegularFile => Some(Kind::Regular),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::Fifo => Some(Kind::Fifo),
        FileType::Socket => Some(Kind::Socket),
        FileType::CharacterDevice => Some(Kind::CharDevice),
        FileType::BlockDevice => Some(Kind::BlockDevice),
        FileType::Unknown => None,
    }
}

fn time(stamp: StatxTimestamp) -> FileTime {
    FileTime { seconds: stamp.tv_sec, nanos: stamp.tv_nsec }
}

pub(super) fn os(name: &Name) -> &OsStr {
    OsStr::from_bytes(name.bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::CWD;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_folder_lists_all_its_entries_in_order_and_again() {
        let outer = tempfile::tempdir().unwrap();
        for index in 0..3000 {
            std::fs::write(outer.path().join(format!("file-{index:04}")), "").unwrap();
        }
        let folder = Folder::open(outer.path()).unwrap();
        for _ in 0..2 {
            let listing = folder.list().unwrap();
            assert_eq!((listing.names.len(), listing.too_long), (3000, 0));
            assert!(listing.names.is_sorted());
        }
    }

    #[test]
    fn no_link_is_followed_and_no_directory_left() {
        let outer = tempfile::tempdir().unwrap();
        let (inside, outside) = (outer.path().join("in"), outer.path().join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("canary"), "x").unwrap();
        symlink(&outside, inside.join("to-dir")).unwrap();
        symlink(outside.join("canary"), inside.join("to-file")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        assert!(matches!(folder.child(&name("to-dir")), Err(Errno::LOOP | Errno::NOTDIR)));
        assert_eq!(folder.file(&name("to-file")).unwrap_err(), Errno::LOOP);
        assert_eq!(*folder.target(&name("to-dir")).unwrap(), *outside.as_os_str().as_bytes());
        let found = folder.look(&name("to-file")).unwrap().unwrap();
        assert_eq!(found.kind, Some(Kind::Symlink));
        symlink(&inside, outer.path().join("root")).unwrap();
        assert!(Folder::open(&outer.path().join("root")).is_err());
    }

    #[test]
    fn a_stamp_says_what_the_file_system_says() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a");
        std::fs::write(&path, "hello").unwrap();
        std::fs::hard_link(&path, outer.path().join("b")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let folder = Folder::open(outer.path()).unwrap();
        let found = folder.look(&name("a")).unwrap().unwrap();
        assert_eq!(found.kind, Some(Kind::Regular));
        assert_eq!((found.stamp.size, found.stamp.nlink), (5, 2));
        assert_eq!(found.stamp.mode, 0o100_640);
        assert_eq!(found.mount, folder.look_at_self().unwrap().mount);
        assert_eq!(folder.look(&name("b")).unwrap().unwrap().stamp, found.stamp);
        assert_eq!(look_at(folder.file(&name("a")).unwrap()).unwrap(), found);
        assert_eq!(look_at(folder.object(&name("a")).unwrap()).unwrap(), found);
        assert_eq!(folder.look(&name("c")), Ok(None));
    }

    #[test]
    fn a_pipe_is_opened_without_waiting_for_a_writer() {
        let outer = tempfile::tempdir().unwrap();
        let folder = Folder::open(outer.path()).unwrap();
        rustix::fs::mkfifoat(CWD, outer.path().join("p"), Mode::RUSR).unwrap();
        let held = folder.file(&name("p")).unwrap();
        assert_eq!(look_at(held).unwrap().kind, Some(Kind::Fifo));
    }
}
