//! Extended attributes of an object of any kind, ACLs and capabilities among them.
//!
//! Symbolic links, pipes and devices cannot be opened for that, so the object is held by `O_PATH` and
//! named through the folder of our own descriptors: a link there leads to the held object itself, not
//! to where that one may point.

use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::{Errno, Result};

use crate::manifest::{LeftOut, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX, Xattrs};

/// Longest list of names in bytes: `XATTR_LIST_MAX` of Linux.
const LIST_LEN_MAX: usize = 64 << 10;

/// What is kept of the attributes of a held object, in order of their names.
///
/// # Errors
/// `TOOBIG` if they are larger than what is kept of one object, else what the kernel says.
pub fn read_xattrs(held: impl AsFd, left_out: &LeftOut) -> Result<Xattrs> {
    let path = path_of(&held);
    let names = match listed(&path) {
        // A file system without any.
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut xattrs = Xattrs::new();
    let mut len = 0;
    let kept = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    for name in kept.filter(|name| left_out.keeps_xattr(name)) {
        let mut value = Vec::with_capacity(XATTR_VALUE_LEN_MAX);
        match getxattr(&path, name, rustix::buffer::spare_capacity(&mut value)) {
            Ok(_) => {}
            // Removed meanwhile.
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno),
        }
        len += name.len() + value.len();
        if len > XATTRS_LEN_MAX {
            return Err(Errno::TOOBIG);
        }
        xattrs.push((name.into(), value.into()));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

/// Makes the kept attributes of a held object exactly `xattrs`. Those that are not kept stay.
///
/// # Errors
/// What the kernel says; some may be set by then.
pub fn write_xattrs(held: impl AsFd, xattrs: &Xattrs, left_out: &LeftOut) -> Result<()> {
    let found = read_xattrs(&held, left_out)?;
    let path = path_of(&held);
    for (name, _) in &found {
        if xattrs.binary_search_by(|(it, _)| it.cmp(name)).is_err() {
            removexattr(&path, &**name)?;
        }
    }
    for (name, value) in xattrs.iter().filter(|it| found.binary_search(it).is_err()) {
        setxattr(&path, &**name, value, XattrFlags::empty())?;
    }
    Ok(())
}

fn listed(path: &str) -> Result<Vec<u8>> {
    let mut names = Vec::with_capacity(LIST_LEN_MAX);
    listxattr(path, rustix::buffer::spare_capacity(&mut names))?;
    Ok(names)
}

pub(super) fn path_of(held: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", held.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::super::Folder;
    use super::*;
    use crate::manifest::{LeaveOut, Name};

    fn pair(name: &str, value: &[u8]) -> (Box<[u8]>, Box<[u8]>) {
        (name.as_bytes().into(), value.into())
    }

    #[test]
    fn attributes_become_exactly_what_they_should_be() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("f"), "x").unwrap();
        let folder = Folder::open(outer.path()).unwrap();
        let held = folder.object(&Name::new(b"f").unwrap()).unwrap();
        let all = &LeftOut::default();
        if write_xattrs(&held, &vec![pair("user.probe", b"1")], all) == Err(Errno::NOTSUP) {
            return; // no attributes of users on this file system
        }
        let first = vec![pair("user.a", b"\x00\xff"), pair("user.b", b""), pair("user.c", b"3")];
        write_xattrs(&held, &first, all).unwrap();
        assert_eq!(read_xattrs(&held, all).unwrap(), first);
        let second = vec![pair("user.b", b"2"), pair("user.c", b"3")];
        write_xattrs(&held, &second, all).unwrap();
        assert_eq!(read_xattrs(&held, all).unwrap(), second);
        assert_eq!(read_xattrs(&held, &LeftOut([LeaveOut::Xattr].into())).unwrap(), Vec::new());
    }

    #[test]
    fn the_marker_of_a_root_is_no_attribute_of_it() {
        let outer = tempfile::tempdir().unwrap();
        let folder = Folder::open(outer.path()).unwrap();
        let path = path_of(&folder);
        if setxattr(&path, crate::manifest::MARKER, b"id", XattrFlags::empty()).is_err() {
            return; // no attributes of users on this file system
        }
        assert_eq!(read_xattrs(&folder, &LeftOut::default()).unwrap(), Vec::new());
        write_xattrs(&folder, &Vec::new(), &LeftOut::default()).unwrap();
        let mut value = Vec::with_capacity(16);
        let spare = rustix::buffer::spare_capacity(&mut value);
        assert_eq!(getxattr(&path, crate::manifest::MARKER, spare), Ok(2));
    }
}
