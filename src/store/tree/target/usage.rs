//! What the folders beside a tree take on the disk.

use std::collections::BTreeMap;

use rustix::fs::{AtFlags, statat};
use rustix::io::Errno;

use super::{Target, TargetError};
use crate::manifest::{Kind, Name};
use crate::store::tree::folder::{Folder, os};

/// What is in the quarantine of a tree, of all epochs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quarantined {
    /// Names of everything but directories.
    pub files: u64,
    /// What they take on the disk, in bytes; a file with several names there counts for each.
    pub bytes: u64,
}

impl Target {
    /// What is in the quarantine. It costs a look at each file there.
    ///
    /// # Errors
    /// [`TargetError::State`].
    pub fn quarantined(&self) -> Result<Quarantined, TargetError> {
        let mut sum = Quarantined::default();
        add_all(self.applier.work().lost(), true, &mut |taken| {
            sum.files += 1;
            sum.bytes = sum.bytes.saturating_add(taken.bytes);
        })
        .map_err(TargetError::State)?;
        Ok(sum)
    }
}

/// Folders that are held at once on the way down; what is deeper is not counted.
const HELD_MAX: usize = 400;

/// What one name of something takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Taken {
    /// On the disk, in bytes.
    pub(super) bytes: u64,
    inode: u64,
    /// Names that it has, wherever they are.
    links: u64,
}

/// Bytes that become free if all below `folder` is removed: what has a name elsewhere stays.
pub(super) fn freed_with(folder: &Folder) -> Result<u64, Errno> {
    let mut sum = 0_u64;
    let mut names_left: BTreeMap<u64, u64> = BTreeMap::new();
    add_all(folder, false, &mut |taken| {
        let left = names_left.entry(taken.inode).or_insert(taken.links);
        *left = left.saturating_sub(1);
        if *left == 0 {
            sum = sum.saturating_add(taken.bytes);
            names_left.remove(&taken.inode);
        }
    })?;
    Ok(sum)
}

/// Gives what each entry below `folder` takes that is no directory. `is_top` says that it is the quarantine
/// itself, in whose folders our own file is.
pub(super) fn add_all(
    folder: &Folder,
    is_top: bool,
    add: &mut dyn FnMut(Taken),
) -> Result<(), Errno> {
    let mut way: Vec<(Folder, Vec<Name>)> = vec![(folder.again()?, folder.list()?.names)];
    while let Some((_, names)) = way.last_mut() {
        let Some(name) = names.pop() else {
            way.pop();
            continue;
        };
        let is_ours = is_top && way.len() == 2 && name.bytes() == b"WHY.jsonl";
        let (folder, _) = way.last().expect("it was there just now");
        match folder.look(&name)? {
            None => {}
            Some(found) if found.kind == Some(Kind::Directory) && way.len() >= HELD_MAX => {}
            Some(found) if found.kind == Some(Kind::Directory) => match folder.child(&name) {
                Ok(child) => {
                    let names = child.list()?.names;
                    way.push((child, names));
                }
                Err(Errno::NOENT | Errno::XDEV) => {}
                Err(errno) => return Err(errno),
            },
            Some(_) if is_ours => {}
            Some(found) => {
                let blocks = statat(folder, os(&name), AtFlags::SYMLINK_NOFOLLOW)?.st_blocks;
                add(Taken {
                    bytes: u64::try_from(blocks).unwrap_or(0).saturating_mul(512),
                    inode: found.stamp.identity.inode,
                    links: found.stamp.nlink,
                });
            }
        }
    }
    Ok(())
}
