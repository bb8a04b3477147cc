//! Whether two trees are the same, in everything that a replica keeps.
//!
//! Two judges that share nothing: rsync, which many trust, and a walk of our own, which sees what
//! rsync does not, such as two equal files that became one. What neither looks at: atime, ctime,
//! birth time, inode numbers, sizes of directories, and the layout of files, which has a question
//! of its own ([`equally_sparse`]).

mod entry;
#[cfg(test)]
mod mutations;
mod snapshot;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use super::tool;

pub(crate) use entry::{Entry, Kind};
pub(crate) use snapshot::Snapshot;

/// The name at the top of a tree that is no part of it.
const RESERVED: &[u8] = b".hotpair";
/// The attribute of the root that is no part of the tree.
const MARKER: &[u8] = b"user.hotpair.resource";
/// Differences that one judge reports.
const REPORTED_MAX: usize = 20;

/// Both judges agree that `a` and `b` are the same.
///
/// # Errors
/// What differs, by escaped path, as each of them found it; or why they could not look.
pub(crate) fn equal(a: &Path, b: &Path) -> Result<(), String> {
    match (equal_to_rsync(a, b), equal_to_walk(a, b)) {
        (Ok(()), Ok(())) => Ok(()),
        (Err(found), Ok(())) | (Ok(()), Err(found)) => Err(found),
        (Err(one), Err(other)) => Err(format!("{one}\n{other}")),
    }
}

/// rsync would change nothing in `b` to make it as `a`. It cannot look at paths of 4096 bytes or
/// more, and does not see that separate files became one, or a character device a block device.
///
/// # Errors
/// What it would change, or why it could not look.
pub(crate) fn equal_to_rsync(a: &Path, b: &Path) -> Result<(), String> {
    let mut rsync = tool::command("rsync");
    rsync.args(["-aHAXS", "--checksum", "--delete", "--dry-run", "--itemize-changes"]);
    // Nanoseconds; by itself it compares seconds only.
    rsync.args(["--numeric-ids", "--modify-window=-1", "--exclude=/.hotpair"]);
    // With a filter for names of attributes, that of the system has to be given as well.
    for name in ["system.*", "security.ima", "security.evm", "trusted.overlay.*"] {
        rsync.arg(format!("--filter=-x {name}"));
    }
    rsync.arg(format!("--filter=-x {}", MARKER.escape_ascii()));
    rsync.arg("--").arg(with_slash(a)).arg(with_slash(b));
    let said = tool::output_of(&mut rsync)?;
    let lines: Vec<String> = said
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| line.escape_ascii().to_string())
        .collect();
    report("rsync", &lines)
}

/// Our own walk finds no difference.
///
/// # Errors
/// The differences, or why it could not look: it needs trees that rest.
pub(crate) fn equal_to_walk(a: &Path, b: &Path) -> Result<(), String> {
    report("walk", &Snapshot::of(a)?.differences(&Snapshot::of(b)?))
}

/// Files that are sparse in `a` are sparse in `b`, and files that are not are not. Two files may
/// differ by `tolerance` bytes of allocated space, because pieces of other sizes are kept as
/// holes, and for what a file system needs itself.
///
/// # Errors
/// The files, and the space that they take.
pub(crate) fn equally_sparse(a: &Path, b: &Path, tolerance: u64) -> Result<(), String> {
    report("layout", &Snapshot::of(a)?.layout_differences(&Snapshot::of(b)?, tolerance))
}

/// Ok if there are none, else the first of them.
pub(crate) fn report(judge: &str, differences: &[String]) -> Result<(), String> {
    if differences.is_empty() {
        return Ok(());
    }
    let mut text = format!("{judge}: {} differences", differences.len());
    for difference in differences.iter().take(REPORTED_MAX) {
        text.push_str("\n  ");
        text.push_str(difference);
    }
    if differences.len() > REPORTED_MAX {
        text.push_str("\n  ...");
    }
    Err(text)
}

/// The content of the folder rather than the folder, in the words of rsync.
fn with_slash(path: &Path) -> PathBuf {
    path.join("")
}
