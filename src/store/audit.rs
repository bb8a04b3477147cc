//! The file of the audit log: lines that are appended, made stable, and kept within a bound.
//!
//! The file is opened for each line. Operators type rarely, and so it may be moved away or removed at
//! any time, also by another process of ours, as of a command that runs beside the daemon.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{
    FlockOperation, Mode, OFlags, fchmod, fdatasync, flock, fstat, ftruncate, openat, renameat,
};
use rustix::io::Errno;

use super::StoreError;
use super::files::{make_folder, sync_folder};
use super::map::check_ours;

/// Name of the log in the folder.
const FILE: &str = "audit.log";
/// Name of the one older log.
const OLDER_FILE: &str = "audit.log.1";
/// Length in bytes at which a log becomes the older one: about 3000 lines.
const AUDIT_LEN_MAX: u64 = 1 << 20;
/// Longest line in bytes; whoever makes one keeps its fields short.
const AUDIT_LINE_LEN_MAX: usize = 16 << 10;

/// The audit log of a folder.
#[derive(Clone, Debug)]
pub struct AuditLog {
    folder: PathBuf,
    len_max: u64,
}

impl AuditLog {
    /// The log in `folder`, which need not be there yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), len_max: AUDIT_LEN_MAX }
    }

    /// Where the lines are.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Appends a line, without its end, and makes it stable. One that could not be written whole is
    /// taken back as far as the disk lets us.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Io`], [`StoreError::NotOurs`]. A sync that failed says
    /// nothing of the next line, which has a sync of its own.
    ///
    /// # Panics
    /// If the line is longer than `AUDIT_LINE_LEN_MAX` or has an end in it.
    pub fn append(&self, line: &[u8]) -> Result<(), StoreError> {
        assert!(line.len() <= AUDIT_LINE_LEN_MAX && !line.contains(&b'\n'), "one bounded line");
        let path = self.path();
        let directory = make_folder(&self.folder)?;
        // Another process must neither put its line into ours nor move the file away meanwhile.
        lock(&directory, &self.folder)?;
        let (mut file, mut len) = open(&directory, &path)?;
        if len > 0 && len + u64::try_from(line.len()).expect("bounded") >= self.len_max {
            renameat(&directory, FILE, &directory, OLDER_FILE)
                .map_err(|errno| StoreError::from_errno(&path, "rename", errno))?;
            (file, len) = open(&directory, &path)?;
        }
        let failed = |action| {
            let path = path.clone();
            move |source: std::io::Error| match source.raw_os_error() {
                Some(code) => StoreError::from_errno(&path, action, Errno::from_raw_os_error(code)),
                None => StoreError::Io { path, action, source },
            }
        };
        // A line that a loss of power cut short stays what it is; the next one begins behind it.
        let mut bytes = Vec::with_capacity(line.len() + 2);
        if len > 0 && last_byte(&mut file).map_err(failed("read"))? != b'\n' {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        if let Err(source) = file.write_all(&bytes) {
            // Whatever is left of it is no line, so what becomes of this changes nothing.
            let _ = ftruncate(&file, len);
            return Err(failed("write")(source));
        }
        // Orders the line, and with it the file's length, ahead of the action that it tells of.
        fdatasync(&file).map_err(|errno| StoreError::from_sync(&path, errno))?;
        if len == 0 {
            // A new file: its name, too. After a rotation also that of the older one.
            sync_folder(&directory, &self.folder)?;
        }
        Ok(())
    }
}

/// Waits for whoever appends at this moment; it does so for no longer than a sync.
fn lock(directory: &File, folder: &Path) -> Result<(), StoreError> {
    loop {
        match flock(directory, FlockOperation::LockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(StoreError::from_errno(folder, "lock", errno)),
        }
    }
}

/// The file, which only we may open, and its length.
fn open(directory: &File, path: &Path) -> Result<(File, u64), StoreError> {
    let flags = OFlags::RDWR
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let file = openat(directory, FILE, flags, Mode::RUSR | Mode::WUSR)
        .map(File::from)
        .map_err(|errno| StoreError::from_open(path, "open", errno))?;
    let failed = |action| move |errno| StoreError::from_errno(path, action, errno);
    if fstat(&file).map_err(failed("look at"))?.st_size == 0 {
        // Whatever the umask of this process took from the owner.
        fchmod(&file, Mode::RUSR | Mode::WUSR).map_err(failed("chmod"))?;
    }
    let len = check_ours(&file, path)?;
    Ok((file, u64::try_from(len).expect("a length of a file")))
}

fn last_byte(file: &mut File) -> std::io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::End(-1))?;
    if file.read(&mut byte)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(byte[0])
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn log(folder: &tempfile::TempDir, len_max: u64) -> AuditLog {
        AuditLog { len_max, ..AuditLog::new(&folder.path().join("state")) }
    }

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_appended_to_a_file_that_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder, 1000);
        log.append(b"one").unwrap();
        log.append(b"two").unwrap();
        assert_eq!(lines(&log.path()), ["one", "two"]);
        let mode = fs::metadata(log.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        fs::set_permissions(log.path(), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(log.append(b"three"), Err(StoreError::NotOurs { .. })));
    }

    #[test]
    fn there_are_never_more_than_two_files_of_bounded_length() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder, 100);
        for number in 0..100 {
            log.append(format!("line {number:04}").as_bytes()).unwrap();
        }
        let older = log.path().with_file_name(OLDER_FILE);
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 2);
        for path in [&log.path(), &older] {
            assert!(fs::metadata(path).unwrap().len() <= 100, "{path:?}");
        }
        let all = [lines(&older), lines(&log.path())].concat();
        assert_eq!(all.last().unwrap(), "line 0099");
        let first: usize = all[0].strip_prefix("line ").unwrap().parse().unwrap();
        assert_eq!(all.len(), 100 - first, "none is missing in between");
    }

    #[test]
    fn a_line_that_was_cut_short_does_not_spoil_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder, 1000);
        log.append(b"one").unwrap();
        fs::write(log.path(), b"one\ntw").unwrap();
        log.append(b"three").unwrap();
        assert_eq!(lines(&log.path()), ["one", "tw", "three"]);
    }

    #[test]
    fn neither_a_link_nor_a_pipe_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder, 1000);
        let target = folder.path().join("target");
        fs::write(&target, "").unwrap();
        fs::create_dir(folder.path().join("state")).unwrap();
        std::os::unix::fs::symlink(&target, log.path()).unwrap();
        assert!(log.append(b"one").is_err());
        assert_eq!(fs::read(&target).unwrap(), b"");
        fs::remove_file(log.path()).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, log.path(), Mode::RUSR | Mode::WUSR).unwrap();
        assert!(log.append(b"one").is_err(), "and nobody waits for a reader");
    }

    #[test]
    fn processes_that_append_at_the_same_time_do_not_lose_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let log = log(&folder, 1 << 20);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let log = log.clone();
                scope.spawn(move || {
                    for number in 0..25 {
                        log.append(format!("{writer} {number}").as_bytes()).unwrap();
                    }
                });
            }
        });
        let mut all = lines(&log.path());
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 100);
    }
}
