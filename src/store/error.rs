//! Why the medium cannot be used.
//!
//! One variant per thing that a caller does differently; what the operator can do about it is in
//! the text.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::metadata::Damage;

/// Why a data file or a metadata file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium failed: nothing from it counts any more, and nobody tries again.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// There is no space; what is in the range is undefined, the rest is not touched.
    #[error("{path}: cannot {action}: no space is left", path = path.display())]
    NoSpace {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
    },
    /// It failed before. A later success of the same call would prove nothing.
    #[error("{path}: failed before, is not used until the daemon is started again", path = path.display())]
    FailedBefore {
        /// Which file.
        path: PathBuf,
    },
    /// Another process holds it.
    #[error("{path}: in use by another process: is a second daemon running, or is it mounted?", path = path.display())]
    Locked {
        /// Which file.
        path: PathBuf,
    },
    /// It is neither a regular file nor a block device.
    #[error("{path}: neither a regular file nor a block device", path = path.display())]
    NotBlocks {
        /// Which file.
        path: PathBuf,
    },
    /// It does not hold the whole resource, or no longer does.
    #[error("{path}: {found_bytes} bytes long, the resource has {expected_bytes}; it is never extended with zeroes", path = path.display())]
    Shorter {
        /// Which file.
        path: PathBuf,
        /// Its length.
        found_bytes: u64,
        /// The least that it must have.
        expected_bytes: u64,
    },
    /// What is at the path is not what was opened.
    #[error("{path}: was removed or replaced while it was in use", path = path.display())]
    Replaced {
        /// Which file.
        path: PathBuf,
    },
    /// It is not what it should be, and nobody but an operator may give it up.
    #[error("{path}: cannot be used: {source}", path = path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Damage,
    },
    /// It must not be there yet.
    #[error("{path}: is there already; nothing was changed", path = path.display())]
    Exists {
        /// Which file.
        path: PathBuf,
    },
    /// It is not there.
    #[error("{path}: is not there", path = path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The folder of a file that is to be made is not there.
    #[error("{path}: this folder is not there", path = path.display())]
    NoFolder {
        /// Which folder.
        path: PathBuf,
    },
    /// Others could change it, or put it there.
    #[error("{path}: {why}", path = path.display())]
    NotOurs {
        /// Which file.
        path: PathBuf,
        /// What gives others a hand in it.
        why: &'static str,
    },
    /// The file system offers no reads past the page cache.
    #[error("{path}: its file system has no direct reads (O_DIRECT)", path = path.display())]
    NoDirectReads {
        /// Which file.
        path: PathBuf,
    },
}

impl StoreError {
    /// Takes what the kernel said for what it means to us.
    pub(super) fn from_errno(path: &Path, action: &'static str, errno: Errno) -> Self {
        let path = path.to_owned();
        match errno {
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::NoSpace { path, action },
            errno => Self::Io { path, action, source: errno.into() },
        }
    }

    /// As [`Self::from_errno`], where a missing file is an answer rather than a failure.
    pub(super) fn from_open(path: &Path, action: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::Missing { path: path.to_owned() },
            Errno::EXIST => Self::Exists { path: path.to_owned() },
            errno => Self::from_errno(path, action, errno),
        }
    }

    /// A failed sync: never a full disk, whatever the number says. Pages that could not be written
    /// are clean afterwards, so the next sync would succeed without them.
    pub(super) fn from_sync(path: &Path, errno: Errno) -> Self {
        Self::Io { path: path.to_owned(), action: "sync", source: errno.into() }
    }

    /// A failure although the kernel reported none.
    pub(super) fn other(path: &Path, action: &'static str, kind: io::ErrorKind) -> Self {
        Self::Io { path: path.to_owned(), action, source: kind.into() }
    }
}
