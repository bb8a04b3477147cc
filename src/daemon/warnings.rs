//! What is worth saying about the surroundings of a resource, in sentences for people.

use std::path::Path;

use crate::config::NodeConfig;
use crate::store::{Shortage, open_to_others};

/// The file system has too little room.
pub(super) fn shortage(shortage: Shortage, path: &Path) -> String {
    let Shortage { holes_bytes, free_bytes } = shortage;
    format!(
        "{} has holes of {holes_bytes} bytes, and its file system has {free_bytes} bytes free: \
         writes will find the disk full; make room there",
        path.display()
    )
}

/// Others have the permission bits of `mode` on the folder of the metadata. The files in it stay
/// theirs alone; who may write to the folder can take them away.
pub(super) fn open_folder(mode: u32, folder: &Path) -> String {
    let can = if mode & 0o022 == 0 { "look into" } else { "remove files from" };
    let shown = folder.display();
    format!("others can {can} {shown} (mode {mode:04o}), the metadata: chmod 700 {shown}")
}

/// What `config check` says of a node beyond its file. What this user cannot see is not looked at.
pub fn of_node(node: &NodeConfig) -> Vec<String> {
    let folders = node.resources.iter().map(|resource| resource.metadata_dir.as_path());
    folders.filter_map(|folder| Some(open_folder(open_to_others(folder)?, folder))).collect()
}
