//! What is no part of any generation, although it is in the tree.
//!
//! Who captures a tree and who compares one with its index ask the same: what the one leaves out the other must
//! not take for a foreign write, because no generation will ever bring it or take it away.

use super::super::exclude::Exclude;
use super::super::folder::Found;
use super::report::SkippedWhy;
use crate::manifest::{Kind, LeaveOut, LeftOut, Name, PATH_DEPTH_MAX, PATH_LEN_MAX};

/// What becomes of an entry by its path alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) enum Named {
    /// It is looked at.
    Kept,
    /// It is hotpair's own, or the operator wants it left alone.
    LeftAlone,
    /// Its path is longer or deeper than what can be kept.
    TooLong,
}

/// Judges the entry `name` in the directory with the path `above`, which is empty for the root.
pub(in super::super) fn judge_path(exclude: &Exclude, above: &[u8], name: &Name) -> Named {
    if (above.is_empty() && name.is_reserved_at_top()) || exclude.matches(above, name) {
        return Named::LeftAlone;
    }
    let depth = above.split(|byte| *byte == b'/').count() + 1;
    let len = above.len() + 1 + name.bytes().len();
    if depth > PATH_DEPTH_MAX || len > PATH_LEN_MAX { Named::TooLong } else { Named::Kept }
}

/// The kind of what was found in a tree on `mount`, or why nothing of it is kept. Where another file system is
/// mounted on a directory, that is kept as an empty one.
pub(in super::super) fn kept_kind(
    left_out: &LeftOut,
    mount: u64,
    found: &Found,
) -> Result<Kind, SkippedWhy> {
    let kind = found.kind.ok_or(SkippedWhy::Kind)?;
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    if is_device && left_out.0.contains(&LeaveOut::Devices) {
        return Err(SkippedWhy::Device);
    }
    if found.mount != mount && kind != Kind::Directory {
        return Err(SkippedWhy::Mount);
    }
    Ok(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{FileTime, Identity, Stamp};

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_path_decides_before_anything_is_looked_at() {
        let exclude = Exclude::new(&["*.tmp".to_owned()].into()).unwrap();
        let judged = |above: &[u8], text: &str| judge_path(&exclude, above, &name(text));
        assert_eq!(judged(b"", "a"), Named::Kept);
        assert_eq!(judged(b"dir", "x.tmp"), Named::LeftAlone);
        assert_eq!(judged(b"", ".hotpair"), Named::LeftAlone);
        assert_eq!(judged(b"dir", ".hotpair"), Named::Kept);
        let deep = vec!["d"; PATH_DEPTH_MAX - 1].join("/");
        assert_eq!(judged(deep.as_bytes(), "a"), Named::Kept);
        let deeper = format!("{deep}/d");
        assert_eq!(judged(deeper.as_bytes(), "a"), Named::TooLong);
        let long = vec!["n".repeat(200); PATH_LEN_MAX / 201].join("/");
        assert_eq!(judged(long.as_bytes(), &"n".repeat(250)), Named::TooLong);
    }

    #[test]
    fn what_cannot_be_kept_is_told_apart_by_its_kind_and_its_mount() {
        let stamp = Stamp {
            identity: Identity { inode: 7, birth: None },
            size: 0,
            mtime: FileTime::default(),
            ctime: FileTime::default(),
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: (0, 0),
        };
        let found = |kind, mount| Found { kind, stamp, mount, has_flags: false };
        let (all, few) = (LeftOut::default(), LeftOut([LeaveOut::Devices].into()));
        let device = found(Some(Kind::CharDevice), 1);
        assert_eq!(kept_kind(&all, 1, &device), Ok(Kind::CharDevice));
        assert_eq!(kept_kind(&few, 1, &device), Err(SkippedWhy::Device));
        assert_eq!(kept_kind(&all, 1, &found(None, 1)), Err(SkippedWhy::Kind));
        let file = found(Some(Kind::Regular), 2);
        assert_eq!(kept_kind(&all, 1, &file), Err(SkippedWhy::Mount));
        let directory = found(Some(Kind::Directory), 2);
        assert_eq!(kept_kind(&all, 1, &directory), Ok(Kind::Directory));
    }
}
