//! Where a replica is: what tells a restart of the process from one of the machine.

use std::path::Path;

use super::data_file::mount_id;
use super::files::{open_folder, read_file};
use super::{DataFile, StoreError};
use crate::metadata::Place;

/// Drawn by the kernel at each boot. Source: random(4).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Length of a boot id as text, with its line end and some room.
const BOOT_ID_LEN_MAX: usize = 64;

/// Where the replica in `data` with its metadata in `folder` is now. The folder need not be there
/// yet: it will be made on the mount of what is above it.
///
/// # Errors
/// [`StoreError::Io`] if the kernel does not say.
pub fn place(data: &DataFile, folder: &Path) -> Result<Place, StoreError> {
    let identity = data.identity();
    Ok(Place {
        boot_id: boot_id()?,
        sidecar_mount: mount_of(folder)?,
        data_mount: identity.mount,
        device: identity.device,
        inode: identity.inode,
    })
}

fn boot_id() -> Result<u128, StoreError> {
    let path = Path::new(BOOT_ID);
    let bytes = read_file(path, BOOT_ID_LEN_MAX)?;
    let digits: String =
        bytes.iter().copied().map(char::from).filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16)
        .map_err(|_| StoreError::other(path, "understand", std::io::ErrorKind::InvalidData))
}

fn mount_of(folder: &Path) -> Result<u64, StoreError> {
    // The empty path stands above a relative one, and means the working folder.
    let here = Path::new(".");
    let folders = folder.ancestors().map(|it| if it.as_os_str().is_empty() { here } else { it });
    for folder in folders {
        match open_folder(folder) {
            Err(StoreError::Missing { .. }) => {}
            opened => return mount_id(&opened?, folder),
        }
    }
    Err(StoreError::Missing { path: folder.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::ResourceSize;

    #[test]
    fn a_place_is_the_same_before_and_after_its_folder_is_made() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("data");
        let size = ResourceSize::new(1).unwrap();
        DataFile::create(&path, size).unwrap();
        let data = DataFile::open(&path, size).unwrap();
        let folder = outer.path().join("state/vm1");
        let before = place(&data, &folder).unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        assert_eq!(place(&data, &folder).unwrap(), before);
        assert!(before.boot_id != 0 && before.inode != 0 && before.sidecar_mount != 0);
        assert_eq!(before.sidecar_mount, before.data_mount);
        assert_ne!(mount_of(Path::new("no/such/folder")).unwrap(), 0);
    }
}
