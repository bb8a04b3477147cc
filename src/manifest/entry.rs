//! What a tree is made of, and what of it is kept: kinds, metadata, content, stamps.
//!
//! An *object* is what names point to. What is here of it is what both nodes agree on; a [`Stamp`] is
//! what one node's file system says of it, and never leaves that node.

use serde::{Deserialize, Serialize};

/// Longest target of a symbolic link in bytes. Source: directory.md 11, `PATH_MAX` of Linux without NUL.
pub const TARGET_LEN_MAX: usize = 4095;
/// Longest name of an extended attribute in bytes: `XATTR_NAME_MAX` of Linux.
pub const XATTR_NAME_LEN_MAX: usize = 255;
/// Longest value of an extended attribute in bytes: `XATTR_SIZE_MAX` of Linux.
pub const XATTR_VALUE_LEN_MAX: usize = 64 << 10;
/// Most bytes of the names and values of all extended attributes of an object. Source: directory.md 11.
pub const XATTRS_LEN_MAX: usize = 256 << 10;
/// The bits of a mode that are kept: permissions, setuid, setgid, sticky.
pub const MODE_MASK: u16 = 0o7777;
/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: u32 = 1_000_000_000;

/// What an object is. The numbers are those of the canonical record.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    Regular = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link, which is never followed.
    Symlink = 3,
    /// A named pipe.
    Fifo = 4,
    /// A socket; on the other node it is dead until somebody binds it again.
    Socket = 5,
    /// A character device.
    CharDevice = 6,
    /// A block device.
    BlockDevice = 7,
}

impl Kind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::Regular,
        Self::Directory,
        Self::Symlink,
        Self::Fifo,
        Self::Socket,
        Self::CharDevice,
        Self::BlockDevice,
    ];

    /// Its number in the canonical record.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The kind that has a number, if one has.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// A point in time as file systems have it: seconds since 1970, which may be negative, and nanoseconds
/// that always count forward.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct FileTime {
    /// Whole seconds.
    pub seconds: i64,
    /// The rest, below [`NANOS_PER_SECOND`].
    pub nanos: u32,
}

/// Extended attributes that are kept, ACLs and capabilities among them: name and value, in rising order
/// of the names, each once.
pub type Xattrs = Vec<(Box<[u8]>, Box<[u8]>)>;

/// What is kept of an object beside its content.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct Metadata {
    /// Within [`MODE_MASK`]; zero for symbolic links, whose mode means nothing.
    pub mode: u16,
    /// Owner, as a number.
    pub uid: u32,
    /// Group, as a number.
    pub gid: u32,
    /// When its content changed last, as the file system says.
    pub mtime: FileTime,
    /// Extended attributes.
    pub xattrs: Xattrs,
}

/// BLAKE3 over the size and the segment hashes of a regular file: see `content.rs`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ContentHash(pub [u8; 32]);

/// What an object is and holds.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Body {
    /// A regular file.
    Regular {
        /// Length in bytes.
        size: u64,
        /// Its bytes.
        content: ContentHash,
    },
    /// A directory; what is in it are entries of their own.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, byte for byte: 1 to [`TARGET_LEN_MAX`] bytes without NUL.
        target: Box<[u8]>,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Its driver.
        major: u32,
        /// Which of the driver's.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Its driver.
        major: u32,
        /// Which of the driver's.
        minor: u32,
    },
}

impl Body {
    /// Without what it holds.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Regular { .. } => Kind::Regular,
            Self::Directory => Kind::Directory,
            Self::Symlink { .. } => Kind::Symlink,
            Self::Fifo => Kind::Fifo,
            Self::Socket => Kind::Socket,
            Self::CharDevice { .. } => Kind::CharDevice,
            Self::BlockDevice { .. } => Kind::BlockDevice,
        }
    }
}

/// What both nodes keep of one object.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Object {
    /// Beside its content.
    pub metadata: Metadata,
    /// What it is and holds.
    pub body: Body,
}

impl Object {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }
}

/// Which object of a file system it is: the inode number, and the time of birth, because numbers are used
/// again. File systems that know no births say `None`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Identity {
    /// Inode number.
    pub inode: u64,
    /// When it was made.
    pub birth: Option<FileTime>,
}

/// What one node's file system says of an object: if all of it is as it was, so is the object, as far
/// as the clock of the file system is fine enough (`judge.rs`).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Stamp {
    /// Which object.
    pub identity: Identity,
    /// Length in bytes.
    pub size: u64,
    /// When the content changed last; applications can set it.
    pub mtime: FileTime,
    /// When anything changed last; applications cannot set it.
    pub ctime: FileTime,
    /// File type and permissions, `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of names.
    pub nlink: u64,
    /// Which device it is, if it is one: major and minor.
    pub rdev: (u32, u32),
}
