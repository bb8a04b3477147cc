//! Doing an operation to a tree.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, lchown};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FallocateFlags, FileType, Mode, RenameFlags, Timespec, Timestamps, UTIME_OMIT,
    XattrFlags, linkat, lremovexattr, lsetxattr, mknodat, rename, renameat_with, utimensat,
};
use rustix::io::Errno;

use super::model::{BOTTOM, BOTTOM_LEN, LEVEL};
use super::{Operation, Successor};

/// Names for the middle of an operation, which no operation has for anything else.
const ASIDE: &str = ".aside";

/// Does it.
pub(super) fn apply(root: &Path, operation: &Operation) -> io::Result<()> {
    let at = |path: &PathBuf| root.join(path);
    match operation {
        Operation::Create { path, len, seed } => OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(at(path))?
            .write_all(&bytes(*seed, *len)),
        Operation::Append { path, len, seed } => {
            OpenOptions::new().append(true).open(at(path))?.write_all(&bytes(*seed, *len))
        }
        Operation::Overwrite { path, at: offset, len, seed, keeps_mtime } => {
            overwrite(&at(path), *offset, &bytes(*seed, *len), *keeps_mtime)
        }
        Operation::Truncate { path, len } => open_to_write(&at(path))?.set_len(*len),
        Operation::Punch { path, at: offset, len } => punch(&at(path), *offset, *len),
        Operation::Copy { from, to } => fs::copy(at(from), at(to)).map(drop),
        Operation::Save { path, len, seed } => save(&at(path), &bytes(*seed, *len)),
        Operation::Rename { from, to } => Ok(rename(at(from), at(to))?),
        Operation::Exchange { one, other } => {
            Ok(renameat_with(CWD, at(one), CWD, at(other), RenameFlags::EXCHANGE)?)
        }
        Operation::Cycle { paths: [a, b, c] } => {
            let aside = root.join(ASIDE);
            Ok([(at(a), aside.clone()), (at(c), at(a)), (at(b), at(c)), (aside, at(b))]
                .into_iter()
                .try_for_each(|(from, to)| rename_to_free(&from, &to))?)
        }
        Operation::Invert { parent, child } => invert(&at(parent), &at(child)),
        Operation::Link { from, to } => Ok(linkat(CWD, at(from), CWD, at(to), AtFlags::empty())?),
        Operation::Remove { path } => remove(&at(path)),
        Operation::RemoveAll { path } => remove_all(&at(path)),
        Operation::Chmod { path, mode } => Ok(rustix::fs::chmod(at(path), Mode::from(*mode))?),
        Operation::Chown { path, uid, gid } => lchown(at(path), Some(*uid), Some(*gid)),
        Operation::SetXattr { path, name, value } => {
            Ok(lsetxattr(at(path), *name, value, XattrFlags::empty())?)
        }
        Operation::RemoveXattr { path, name } => match lremovexattr(at(path), *name) {
            Err(Errno::NODATA) => Ok(()),
            done => Ok(done?),
        },
        Operation::Symlink { path, target } => Ok(rustix::fs::symlink(target, at(path))?),
        Operation::Fifo { path } => {
            Ok(mknodat(CWD, at(path), FileType::Fifo, Mode::from(0o640), 0)?)
        }
        Operation::Replace { path, by } => replace(&at(path), by),
        Operation::MakeDeep { path, levels, seed } => make_deep(&at(path), *levels, *seed),
        Operation::Touch { path, seconds, nanoseconds } => {
            touch(&at(path), Timespec { tv_sec: *seconds, tv_nsec: *nanoseconds })
        }
    }
}

/// The bytes of a seed. One in three are compressible, and one in twelve are zeros.
fn bytes(seed: u64, len: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; usize::try_from(len).expect("files of a storm are small")];
    match seed % 12 {
        0 => {}
        1..=3 => bytes.fill_with(|| random.u8(b'a'..=b'c')),
        _ => random.fill(&mut bytes),
    }
    bytes
}

fn open_to_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn overwrite(path: &Path, at: u64, bytes: &[u8], keeps_mtime: bool) -> io::Result<()> {
    let before = rustix::fs::lstat(path)?;
    open_to_write(path)?.write_all_at(bytes, at)?;
    if keeps_mtime {
        let nanoseconds = i64::try_from(before.st_mtime_nsec).expect("below a second");
        touch(path, Timespec { tv_sec: before.st_mtime, tv_nsec: nanoseconds })?;
    }
    Ok(())
}

fn punch(path: &Path, at: u64, len: u64) -> io::Result<()> {
    let file = open_to_write(path)?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(&file, flags, at, len) {
        // A file system without holes.
        Err(Errno::NOTSUP) => {
            file.write_all_at(&vec![0; usize::try_from(len).expect("files are small")], at)
        }
        done => Ok(done?),
    }
}

fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_file_name(ASIDE);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&aside)?;
    file.write_all(bytes)?;
    // The content is on disk before its name is, as editors do it.
    file.sync_all()?;
    Ok(rename(aside, path)?)
}

/// A rename that must not replace anything: the storm takes the name for free.
fn rename_to_free(from: &Path, to: &Path) -> Result<(), Errno> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without the flag.
        Err(Errno::INVAL) => rename(from, to),
        done => done,
    }
}

fn invert(parent: &Path, child: &Path) -> io::Result<()> {
    let aside = parent.with_file_name(ASIDE);
    let name = child.file_name().expect("a child has a name");
    let below = aside.join(parent.file_name().expect("it is not the root"));
    rename_to_free(child, &aside)?;
    rename_to_free(parent, &below)?;
    Ok(rename_to_free(&aside, &parent.with_file_name(name))?)
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) }
}

fn remove_all(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn replace(path: &Path, by: &Successor) -> io::Result<()> {
    remove_all(path)?;
    match by {
        Successor::File { len, seed } => fs::write(path, bytes(*seed, *len)),
        Successor::Folder => fs::create_dir(path),
        Successor::Symlink { target } => {
            std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path)
        }
    }
}

fn make_deep(path: &Path, levels: u32, seed: u64) -> io::Result<()> {
    let mut path = path.to_owned();
    fs::create_dir(&path)?;
    for _ in 1..levels {
        path.push(LEVEL);
        fs::create_dir(&path)?;
    }
    fs::write(path.join(BOTTOM), bytes(seed, BOTTOM_LEN))
}

fn touch(path: &Path, date: Timespec) -> io::Result<()> {
    let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: omitted, last_modification: date };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
