//! A tree with everything that a replica keeps, and with the names, sizes and numbers at which
//! copies go wrong.
//!
//! The same tree each time, to the nanosecond. What this file system or this user may not have is
//! left out, and named.

mod attributes;
mod contents;
mod kinds;
mod names;
#[cfg(test)]
mod tests;

use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, openat, utimensat};
use rustix::io::Errno;

/// Makes the tree in the empty folder `root`, and says what could not be had: what, and why.
///
/// Root sees all of it. The largest file has 4 MiB, and all of it some 12 MiB.
pub(crate) fn make(root: &Path) -> Vec<String> {
    let is_root = rustix::process::geteuid().is_root();
    let mut maker = Maker { root, is_root, skipped: Vec::new(), dates: Vec::new() };
    contents::make(&mut maker);
    kinds::make(&mut maker);
    names::make(&mut maker);
    attributes::make(&mut maker);
    maker.set_all_dates();
    maker.skipped
}

/// Makes folders in `root` so deep that no path leads to the file at their end: its path has about
/// 5000 bytes, the system takes 4095. Only the walk can judge it.
pub(crate) fn make_beyond_longest_path(root: &Path) {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut folder = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    for level in 0..20_usize {
        let name = format!("{level:0>250}");
        rustix::fs::mkdirat(&folder, &name, Mode::RWXU).unwrap();
        folder = openat(&folder, &name, flags, Mode::empty()).unwrap();
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&folder, "bottom", flags, Mode::RUSR | Mode::WUSR).unwrap();
    rustix::io::write(file, b"out of reach").unwrap();
}

/// A tree that is being made.
struct Maker<'a> {
    root: &'a Path,
    is_root: bool,
    skipped: Vec<String>,
    /// Dates that entries must have; all others get one from their path.
    dates: Vec<(PathBuf, Timespec)>,
}

impl Maker<'_> {
    /// Makes a folder of the tree, with those above it.
    fn folder(&self, path: &str) -> PathBuf {
        let path = self.root.join(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Remembers `what` if it was refused.
    fn attempt<T>(&mut self, what: &str, done: Result<T, Errno>) -> Option<T> {
        match done {
            Ok(value) => Some(value),
            Err(errno) => {
                self.skip(what, &errno.to_string());
                None
            }
        }
    }

    fn skip(&mut self, what: &str, why: &str) {
        self.skipped.push(format!("{what}: {why}"));
    }

    /// Gives `path` its date in the end.
    fn date(&mut self, path: PathBuf, seconds: i64, nanoseconds: i64) {
        self.dates.push((path, Timespec { tv_sec: seconds, tv_nsec: nanoseconds }));
    }

    /// Dates everything, after nothing more is made. No two entries share a date by chance, so one
    /// that got the date of another is found.
    fn set_all_dates(&mut self) {
        for path in paths_below(self.root) {
            let mut hasher = DefaultHasher::new();
            let relative = path.strip_prefix(self.root).expect("it is below the root");
            hasher.write(relative.as_os_str().as_bytes());
            let hash = hasher.finish();
            let seconds = 1_500_000_000 + i64::try_from(hash >> 36).expect("28 bits");
            let nanoseconds = i64::try_from(hash % 1_000_000_000).expect("30 bits");
            set_date(&path, Timespec { tv_sec: seconds, tv_nsec: nanoseconds }).unwrap();
        }
        for (path, date) in std::mem::take(&mut self.dates) {
            set_date(&path, date).unwrap();
            let found = rustix::fs::lstat(&path).unwrap().st_mtime;
            if found != date.tv_sec {
                // Such dates are cut without an error.
                self.skip(&format!("mtime {}", date.tv_sec), &format!("became {found}"));
            }
        }
    }
}

fn set_date(path: &Path, date: Timespec) -> Result<(), Errno> {
    let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omitted, last_modification: date };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// All entries, the root too, in order of their paths.
fn paths_below(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        if path.symlink_metadata().unwrap().is_dir() {
            let listed = fs::read_dir(path).unwrap();
            found.extend(listed.map(|entry| entry.unwrap().path()).collect::<Vec<_>>());
        }
        next += 1;
    }
    found.sort();
    found
}
