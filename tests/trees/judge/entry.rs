//! What is kept of one entry of a tree, as the system shows it.

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, getxattr, listxattr, openat};
use rustix::io::Errno;

use super::MARKER;

/// Longest list of names of attributes in bytes: `XATTR_LIST_MAX` of Linux.
const LIST_LEN_MAX: usize = 64 << 10;
/// Longest value of an attribute in bytes: `XATTR_SIZE_MAX` of Linux.
const VALUE_LEN_MAX: usize = 64 << 10;
const READ_LEN: usize = 128 << 10;

/// Attributes, by their names.
pub(crate) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What an entry is, and what only that kind has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Directory,
    /// A hash of 64 bits finds what went wrong by accident; nobody attacks the judge.
    Regular {
        size: u64,
        content: u64,
    },
    Symlink {
        target: Vec<u8>,
    },
    Fifo,
    Socket,
    /// The number is major and minor together.
    CharacterDevice(u64),
    BlockDevice(u64),
}

/// What is kept of one entry.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// The lower twelve bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u64),
    /// ACLs and capabilities among them.
    pub(crate) xattrs: Xattrs,
    /// The smallest path of the tree that leads to the same object.
    pub(crate) first_path: Vec<u8>,
    /// Bytes of space that the object takes: its layout, not its content.
    pub(crate) allocated: u64,
}

/// An entry that was looked at, and which object it is.
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) object: (u64, u64),
}

/// Looks at `name` of `folder`, which is the entry at `path`.
pub(super) fn look(folder: BorrowedFd<'_>, name: &[u8], path: &[u8]) -> Result<Found, String> {
    let at = |err: Errno| format!("{}: {err}", shown(path));
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = openat(folder, name, flags, Mode::empty()).map_err(at)?;
    let stat = fstat(&held).map_err(at)?;
    let kind = kind_of(folder, name, &held, &stat).map_err(at)?;
    let xattrs = xattrs_of(&held, path.is_empty()).map_err(at)?;
    let after = fstat(&held).map_err(at)?;
    if stamp(&after) != stamp(&stat) {
        return Err(format!("{}: changed while it was read", shown(path)));
    }
    let entry = Entry {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        xattrs,
        first_path: path.to_vec(),
        allocated: stat.st_blocks.cast_unsigned() * 512,
    };
    Ok(Found { entry, object: (stat.st_dev, stat.st_ino) })
}

/// What changes with each change of an object.
fn stamp(stat: &Stat) -> (i64, u64, i64, u64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec, stat.st_size)
}

fn kind_of(
    folder: BorrowedFd<'_>,
    name: &[u8],
    held: &OwnedFd,
    stat: &Stat,
) -> Result<Kind, Errno> {
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => {
            // An empty name is the held link itself.
            let target = rustix::fs::readlinkat(held, "", Vec::new())?;
            Kind::Symlink { target: target.into_bytes() }
        }
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharacterDevice(stat.st_rdev),
        FileType::BlockDevice => Kind::BlockDevice(stat.st_rdev),
        FileType::RegularFile | FileType::Unknown => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(folder, name, flags, Mode::empty())?;
            let other = fstat(&file)?;
            if (other.st_dev, other.st_ino) != (stat.st_dev, stat.st_ino) {
                return Err(Errno::STALE);
            }
            let (size, content) = content_of(&mut File::from(file))?;
            Kind::Regular { size, content }
        }
    })
}

/// Length and hash of all bytes.
fn content_of(file: &mut File) -> Result<(u64, u64), Errno> {
    let mut hasher = DefaultHasher::new();
    let mut buffer = Vec::with_capacity(READ_LEN);
    let mut size = 0;
    loop {
        buffer.clear();
        // Full pieces, so that the hash does not depend on how much a read returns.
        let len = file.by_ref().take(READ_LEN as u64).read_to_end(&mut buffer);
        let len = len.map_err(|err| Errno::from_io_error(&err).unwrap_or(Errno::IO))?;
        if len == 0 {
            return Ok((size, hasher.finish()));
        }
        hasher.write(&buffer);
        size += len as u64;
    }
}

/// Attributes of a held object of any kind.
fn xattrs_of(held: &OwnedFd, is_root: bool) -> Result<Xattrs, Errno> {
    // A held object cannot be asked itself; the link to it leads there, not beyond it.
    let path = format!("/proc/self/fd/{}", held.as_fd().as_raw_fd());
    let mut names = Vec::with_capacity(LIST_LEN_MAX);
    match listxattr(&path, rustix::buffer::spare_capacity(&mut names)) {
        // A file system without any.
        Err(Errno::NOTSUP) => return Ok(Xattrs::new()),
        len => drop(len?),
    }
    let mut xattrs = Xattrs::new();
    for name in names.split(|byte| *byte == 0) {
        if name.is_empty() || !is_kept(name) || (is_root && name == MARKER) {
            continue;
        }
        let mut value = Vec::with_capacity(VALUE_LEN_MAX);
        getxattr(&path, name, rustix::buffer::spare_capacity(&mut value))?;
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}

/// Some attributes belong to an inode or a node.
fn is_kept(name: &[u8]) -> bool {
    name != b"security.ima" && name != b"security.evm" && !name.starts_with(b"trusted.overlay.")
}

impl Entry {
    /// What differs in `other`, and how, in the words of a report.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut differ = |what: &str, one: String, another: String| {
            if one != another {
                found.push(format!("{what} {one}, {another}"));
            }
        };
        differ("kind", self.kind.shown(), other.kind.shown());
        differ("mode", format!("{:04o}", self.mode), format!("{:04o}", other.mode));
        differ("uid", self.uid.to_string(), other.uid.to_string());
        differ("gid", self.gid.to_string(), other.gid.to_string());
        differ("mtime", shown_time(self.mtime), shown_time(other.mtime));
        differ("link of", shown(&self.first_path), shown(&other.first_path));
        let names = self.xattrs.keys().chain(other.xattrs.keys());
        let names: std::collections::BTreeSet<&Vec<u8>> = names.collect();
        for name in names {
            let (one, another) = (self.xattrs.get(name), other.xattrs.get(name));
            if one != another {
                let (one, another) = (shown_value(one), shown_value(another));
                found.push(format!("xattr {} {one}, {another}", name.escape_ascii()));
            }
        }
        found
    }
}

impl Kind {
    /// In words that are equal only if the kinds are.
    fn shown(&self) -> String {
        match self {
            Self::Directory => "directory".to_owned(),
            Self::Regular { size, content } => format!("file of {size} bytes #{content:016x}"),
            Self::Symlink { target } => format!("link to {}", target.escape_ascii()),
            Self::Fifo => "fifo".to_owned(),
            Self::Socket => "socket".to_owned(),
            Self::CharacterDevice(number) => format!("character device {number:#x}"),
            Self::BlockDevice(number) => format!("block device {number:#x}"),
        }
    }
}

/// A path that can be printed; the root is a dot.
pub(super) fn shown(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { path.escape_ascii().to_string() }
}

fn shown_time((seconds, nanoseconds): (i64, u64)) -> String {
    format!("{seconds}+{nanoseconds:09}")
}

fn shown_value(value: Option<&Vec<u8>>) -> String {
    match value {
        None => "absent".to_owned(),
        Some(value) if value.len() <= 64 => format!("\"{}\"", value.escape_ascii()),
        Some(value) => format!("{} bytes", value.len()),
    }
}

/// For [`look`] at the root itself.
pub(super) const SELF: &[u8] = b".";
