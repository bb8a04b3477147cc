//! Whole small files and folders: made, replaced and read so that a crash leaves no halves.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, fallocate, fsync, mkdir, open, openat, renameat, stat,
    unlinkat,
};
use rustix::io::{Errno, pwrite};

use super::StoreError;
use super::transfer::offset;

/// A file to be made: `head`, then zeroes up to `len`.
#[derive(Clone, Copy)]
pub(super) struct NewFile<'a> {
    pub(super) name: &'a str,
    pub(super) head: &'a [u8],
    pub(super) len: u64,
}

/// Makes a file under another name and gives it its own once it is stable, so that under its name
/// it is whole.
pub(super) fn write_new(
    directory: &File,
    folder: &Path,
    new_file: NewFile<'_>,
) -> Result<(), StoreError> {
    let new = format!("{}.new", new_file.name);
    let path = folder.join(&new);
    let failed = |action| {
        let path = path.clone();
        move |errno| StoreError::from_errno(&path, action, errno)
    };
    match unlinkat(directory, &new, AtFlags::empty()) {
        // Left behind by an attempt that was interrupted.
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(failed("remove")(errno)),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, &new, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(failed("create"))?;
    write_at(&file, &path, 0, new_file.head)?;
    fill(&file, &path, offset(new_file.head.len())..new_file.len)?;
    // Its bytes and its space are stable before it has its name.
    fsync(&file).map_err(|errno| StoreError::from_sync(&path, errno))?;
    renameat(directory, &new, directory, new_file.name).map_err(failed("rename"))
}

pub(super) fn write_at(
    file: &File,
    path: &Path,
    start: u64,
    bytes: &[u8],
) -> Result<(), StoreError> {
    let mut done = 0;
    while done < bytes.len() {
        match pwrite(file, &bytes[done..], start + offset(done)) {
            Ok(0) => return Err(StoreError::other(path, "write", ErrorKind::WriteZero)),
            Ok(more) => done += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(StoreError::from_errno(path, "write", errno)),
        }
    }
    Ok(())
}

/// Allocates `span` and fills it with zeroes. Written, not only allocated: else the first sync of
/// each page would have to write the file system's books as well.
pub(super) fn fill(file: &File, path: &Path, span: Range<u64>) -> Result<(), StoreError> {
    if span.is_empty() {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), span.start, span.end - span.start) {
        // Writing all of it allocates as well, where this cannot.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        Err(errno) => return Err(StoreError::from_errno(path, "allocate", errno)),
    }
    let zeroes = vec![0; 1 << 20];
    let mut start = span.start;
    while start < span.end {
        let len = offset(zeroes.len()).min(span.end - start);
        let part = &zeroes[..usize::try_from(len).expect("at most 1 MiB")];
        write_at(file, path, start, part)?;
        start += len;
    }
    Ok(())
}

/// Replaces the file at `path` by one with `bytes`, readable by us alone: after a crash it is the
/// old one or the new one, and after this returned the new one.
///
/// # Errors
/// [`StoreError::NoSpace`], [`StoreError::Io`]; then the old one is still there.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = folder_of(path);
    let directory = open_folder(folder)?;
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| StoreError::other(path, "name", ErrorKind::InvalidInput))?;
    write_new(&directory, folder, NewFile { name, head: bytes, len: offset(bytes.len()) })?;
    // The new name is stable before the caller relies on the new content.
    sync_folder(&directory, folder)
}

/// Whether something has this name; a link counts, wherever it leads.
///
/// # Errors
/// [`StoreError::Io`] if nobody can tell: that must not pass for an answer.
pub fn is_there(path: &Path) -> Result<bool, StoreError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => Err(StoreError::Io { path: path.to_owned(), action: "look for it", source }),
    }
}

/// The permission bits of `folder`, if others than its owner have any: it is ours alone as `init`
/// makes it. `None` also if nobody can tell.
pub fn open_to_others(folder: &Path) -> Option<u32> {
    let mode = Mode::from_raw_mode(stat(folder).ok()?.st_mode);
    mode.intersects(Mode::RWXG | Mode::RWXO).then(|| mode.bits() & 0o7777)
}

/// Makes the names in the folder of `path` stable.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), StoreError> {
    let folder = folder_of(path);
    sync_folder(&open_folder(folder)?, folder)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn open_folder(folder: &Path) -> Result<File, StoreError> {
    open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map(File::from)
        .map_err(|errno| StoreError::from_open(folder, "open", errno))
}

/// Makes a folder that only we may enter, and the folders above it; one that is there is used.
pub(super) fn make_folder(folder: &Path) -> Result<File, StoreError> {
    match mkdir(folder, Mode::RWXU) {
        Ok(()) => {
            // Its own name is stable before what is put into it.
            sync_folder_of(folder)?;
        }
        Err(Errno::EXIST) => {}
        Err(Errno::NOENT) if folder_of(folder) != folder => {
            make_folder(folder_of(folder))?;
            return make_folder(folder);
        }
        Err(errno) => return Err(StoreError::from_errno(folder, "create", errno)),
    }
    open_folder(folder)
}

pub(super) fn sync_folder(directory: &File, folder: &Path) -> Result<(), StoreError> {
    fsync(directory).map_err(|errno| StoreError::from_sync(folder, errno))
}

/// Reads a small file of ours whole, for example one written by [`replace_file`].
///
/// # Errors
/// [`StoreError::Missing`] if it is not there, [`StoreError::Io`] if it cannot be read or is longer
/// than `len_max`.
pub fn read_file(path: &Path, len_max: usize) -> Result<Vec<u8>, StoreError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty())
        .map(File::from)
        .map_err(|errno| StoreError::from_open(path, "open", errno))?;
    let mut bytes = Vec::new();
    file.take(offset(len_max) + 1).read_to_end(&mut bytes).map_err(|source| StoreError::Io {
        path: path.to_owned(),
        action: "read",
        source,
    })?;
    if bytes.len() > len_max {
        return Err(StoreError::other(path, "read", ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_we_make_is_ours_alone_until_somebody_opens_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/vm1");
        make_folder(&path).unwrap();
        assert_eq!(open_to_others(&path), None);
        assert_eq!(open_to_others(path.parent().unwrap()), None);
        for mode in [0o755, 0o770, 0o701, 0o777] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_to_others(&path), Some(mode));
        }
        assert_eq!(open_to_others(&folder.path().join("none")), None);
    }

    #[test]
    fn a_replaced_file_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        for bytes in [&b"first, and long"[..], b"second", b""] {
            replace_file(&path, bytes).unwrap();
            assert_eq!(read_file(&path, 100).unwrap(), bytes);
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        replace_file(&path, b"four").unwrap();
        assert!(read_file(&path, 3).is_err());
        let missing = read_file(&folder.path().join("none"), 3);
        assert!(matches!(missing, Err(StoreError::Missing { .. })));
    }
}
