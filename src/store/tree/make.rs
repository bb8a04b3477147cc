//! Entries of a held directory are made, moved, linked and removed here.
//!
//! Each call takes single names and follows no link. Objects are made with no rights for anybody else;
//! what they are to have is set while they stand in the private work area, so nobody can put a link in
//! their place meanwhile.

use std::fs::File;
use std::os::fd::BorrowedFd;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid,
    chownat, linkat, makedev, mkdirat, mknodat, openat2, renameat_with, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::{Errno, Result};

use super::attributes::{path_of, write_xattrs};
use super::folder::{BENEATH, Folder, os};
use crate::manifest::{Body, FileTime, LeaveOut, LeftOut, Metadata, Name};

/// Rights of a new object: the owner's, who is the daemon.
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
const PRIVATE_DIRECTORY: Mode = Mode::RWXU;

impl Folder {
    /// Makes an empty regular file, for writing.
    ///
    /// # Errors
    /// `EXIST` if the name is taken, else what the kernel says.
    pub fn make_file(&self, name: &Name) -> Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat2(self, os(name), flags, PRIVATE_FILE, BENEATH).map(File::from)
    }

    /// Makes an object of any kind. A regular file is empty, whatever `body` says it holds.
    ///
    /// # Errors
    /// `EXIST` if the name is taken, else what the kernel says: `PERM` for a device without
    /// `CAP_MKNOD`.
    pub fn make(&self, name: &Name, body: &Body) -> Result<()> {
        let node = |kind, device| mknodat(self, os(name), kind, PRIVATE_FILE, device);
        match body {
            Body::Regular { .. } => self.make_file(name).map(drop),
            Body::Directory => mkdirat(self, os(name), PRIVATE_DIRECTORY),
            Body::Symlink { target } => symlinkat(&**target, self, os(name)),
            Body::Fifo => node(FileType::Fifo, 0),
            Body::Socket => node(FileType::Socket, 0),
            Body::CharDevice { major, minor } => {
                node(FileType::CharacterDevice, makedev(*major, *minor))
            }
            Body::BlockDevice { major, minor } => {
                node(FileType::BlockDevice, makedev(*major, *minor))
            }
        }
    }

    /// Renames an entry into another directory of the same mount, or to another name in this one.
    ///
    /// # Errors
    /// `EXIST` if that name is taken, else what the kernel says.
    pub fn rename(&self, name: &Name, to: &Self, new: &Name) -> Result<()> {
        renameat_with(self, os(name), to, os(new), RenameFlags::NOREPLACE)
    }

    /// Two entries change places.
    ///
    /// # Errors
    /// `NOENT` if one of them is not there, `INVAL` if the file system cannot do it.
    pub fn exchange(&self, name: &Name, with: &Self, other: &Name) -> Result<()> {
        renameat_with(self, os(name), with, os(other), RenameFlags::EXCHANGE)
    }

    /// Gives an object a further name.
    ///
    /// # Errors
    /// `EXIST` if that name is taken, `MLINK` if the object has as many as it can, else what the kernel
    /// says.
    pub fn link(&self, name: &Name, to: &Self, new: &Name) -> Result<()> {
        linkat(self, os(name), to, os(new), AtFlags::empty())
    }

    /// Removes an entry that is no directory.
    ///
    /// # Errors
    /// `ISDIR` if it is one, else what the kernel says.
    pub fn remove_file(&self, name: &Name) -> Result<()> {
        unlinkat(self, os(name), AtFlags::empty())
    }

    /// Removes a directory and all that is in it; it must be ours alone.
    ///
    /// # Errors
    /// What the kernel says; some of it may be gone by then.
    pub fn remove_tree(&self, name: &Name) -> Result<()> {
        let mut way = vec![(name.clone(), self.child(name)?)];
        while let Some((_, folder)) = way.last() {
            let mut inner = None;
            for name in folder.list()?.names {
                match folder.remove_file(&name) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR) => {
                        inner = Some((name.clone(), folder.child(&name)?));
                        break;
                    }
                    Err(errno) => return Err(errno),
                }
            }
            if let Some(inner) = inner {
                way.push(inner);
            } else if let Some((name, _)) = way.pop() {
                let above = way.last().map_or(self, |(_, folder)| folder);
                unlinkat(above, os(&name), AtFlags::REMOVEDIR)?;
            }
        }
        Ok(())
    }

    /// Asks the disk to keep the entries of this directory.
    ///
    /// # Errors
    /// What the kernel says; it is final.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::fsync(self)
    }
}

/// Gives an object its owner, extended attributes, mode and times, in this order: a change of owner drops
/// setuid and capabilities, and whatever came before would move the times. `held` may be opened with
/// `O_PATH`; `is_link` says that it is a symbolic link, which has no mode.
///
/// # Errors
/// What the kernel says; some of it may be set by then.
pub fn set_metadata(
    held: BorrowedFd<'_>,
    metadata: &Metadata,
    is_link: bool,
    left_out: &LeftOut,
) -> Result<()> {
    let path = path_of(&held);
    if !left_out.0.contains(&LeaveOut::Owner) {
        let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
        chownat(held, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    }
    write_xattrs(held, &metadata.xattrs, left_out)?;
    if !is_link {
        // Through the folder of our own descriptors: what is held by O_PATH takes no fchmod.
        rustix::fs::chmod(&*path, Mode::from_raw_mode(metadata.mode.into()))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: timespec(metadata.mtime),
    };
    if is_link {
        utimensat(held, "", &times, AtFlags::EMPTY_PATH)
    } else {
        utimensat(CWD, &*path, &times, AtFlags::empty())
    }
}

fn timespec(time: FileTime) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() }
}
