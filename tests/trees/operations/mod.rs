//! Random operations on a tree: what programs and people do to one, and what is rare but allowed.
//!
//! A storm knows what is in its tree by itself, and picks from that with numbers drawn from its
//! seed; it asks the system nothing. So one seed in equal trees does the same, whatever inode
//! numbers, order of folders or times of the machine are. It is alone in its folder: several
//! storms have folders of their own, or one after the other has the whole.

mod apply;
mod model;
mod plan;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use model::Model;
use plan::Planner;

/// One change. Paths are relative to the tree; contents follow from `seed` and length.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    Create {
        path: PathBuf,
        len: u64,
        seed: u64,
    },
    Append {
        path: PathBuf,
        len: u64,
        seed: u64,
    },
    /// In place, within the size. With `keeps_mtime` only ctime tells.
    Overwrite {
        path: PathBuf,
        at: u64,
        len: u64,
        seed: u64,
        keeps_mtime: bool,
    },
    /// Shorter, or longer by a hole.
    Truncate {
        path: PathBuf,
        len: u64,
    },
    Punch {
        path: PathBuf,
        at: u64,
        len: u64,
    },
    Copy {
        from: PathBuf,
        to: PathBuf,
    },
    /// As editors save: a new file beside it, synced, then renamed over it, if it was there.
    Save {
        path: PathBuf,
        len: u64,
        seed: u64,
    },
    /// To a free name, or over what it may replace.
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Exchange {
        one: PathBuf,
        other: PathBuf,
    },
    /// The first becomes the second, that the third, that the first.
    Cycle {
        paths: [PathBuf; 3],
    },
    /// `a/b` becomes `b/a`.
    Invert {
        parent: PathBuf,
        child: PathBuf,
    },
    Link {
        from: PathBuf,
        to: PathBuf,
    },
    /// One name, or an empty folder.
    Remove {
        path: PathBuf,
    },
    RemoveAll {
        path: PathBuf,
    },
    Chmod {
        path: PathBuf,
        mode: u32,
    },
    Chown {
        path: PathBuf,
        uid: u32,
        gid: u32,
    },
    SetXattr {
        path: PathBuf,
        name: &'static str,
        value: Vec<u8>,
    },
    RemoveXattr {
        path: PathBuf,
        name: &'static str,
    },
    Symlink {
        path: PathBuf,
        target: Vec<u8>,
    },
    Fifo {
        path: PathBuf,
    },
    /// Whatever is there, with all that is in it, gives way to another kind.
    Replace {
        path: PathBuf,
        by: Successor,
    },
    /// Folder in folder as `mkdir -p` makes them, and a file in the last one.
    MakeDeep {
        path: PathBuf,
        levels: u32,
        seed: u64,
    },
    /// Sets the mtime to a given one, as unpacking does.
    Touch {
        path: PathBuf,
        seconds: i64,
        nanoseconds: i64,
    },
}

/// What takes the place of something of another kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Successor {
    File { len: u64, seed: u64 },
    Folder,
    Symlink { target: Vec<u8> },
}

/// How large a tree may become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Names, of all kinds.
    pub(crate) names: usize,
    /// Bytes of all files together, about.
    pub(crate) bytes: u64,
    /// Longest file in bytes.
    pub(crate) file_len: u64,
    /// Folders in folders.
    pub(crate) depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { names: 300, bytes: 16 << 20, file_len: 256 << 10, depth: 12 }
    }
}

/// What the user and the file system allow.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    owners: bool,
    xattrs: bool,
}

/// An operation that failed. The storm may be out of step with its tree from then on.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) operation: Operation,
    pub(crate) error: io::Error,
}

/// Random operations, one after the other.
#[derive(Debug)]
pub(crate) struct Storm {
    root: PathBuf,
    seed: u64,
    random: fastrand::Rng,
    limits: Limits,
    allowed: Allowed,
    model: Model,
}

impl Storm {
    /// A storm over the tree as it is now, which may hold anything but devices.
    pub(crate) fn new(root: &Path, seed: u64) -> Self {
        Self::with_limits(root, seed, Limits::default())
    }

    /// As [`Storm::new`], for another size of tree.
    pub(crate) fn with_limits(root: &Path, seed: u64, limits: Limits) -> Self {
        let mut none = [0_u8; 1];
        let asked = rustix::fs::lgetxattr(root, "user.absent", &mut none);
        let allowed = Allowed {
            owners: rustix::process::geteuid().is_root(),
            xattrs: asked != Err(rustix::io::Errno::NOTSUP),
        };
        let model = Model::of(root).unwrap();
        let random = fastrand::Rng::with_seed(seed);
        Self { root: root.to_owned(), seed, random, limits, allowed, model }
    }

    /// Does one operation.
    ///
    /// # Errors
    /// The operation, and what the system said: somebody else changed the tree, made it read-only
    /// or filled the disk. A new storm takes the tree as it then is.
    pub(crate) fn step(&mut self) -> Result<Operation, Failed> {
        let mut planner = Planner {
            model: &self.model,
            random: &mut self.random,
            limits: self.limits,
            allowed: self.allowed,
        };
        let operation = planner.next();
        if let Err(error) = apply::apply(&self.root, &operation) {
            return Err(Failed { operation, error });
        }
        self.model.on_applied(&operation);
        Ok(operation)
    }

    /// Does `count` operations, and panics if one fails.
    pub(crate) fn run(&mut self, count: usize) {
        for number in 0..count {
            if let Err(failed) = self.step() {
                panic!("seed {}, operation {number}: {failed:?}", self.seed);
            }
        }
    }

    /// Whether the tree is what the storm takes it for.
    ///
    /// # Errors
    /// The first name at which it is not, or why it cannot be read.
    pub(crate) fn check(&self) -> Result<(), String> {
        let found = Model::of(&self.root).map_err(|err| err.to_string())?;
        self.model.check_equal(&found)
    }
}
