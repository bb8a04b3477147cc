//! Files that tell a reader whether they are whole.
//!
//! Each block of 4 KiB says, again and again, to which file, version and place it belongs, and how
//! long the file is. So a file that is half of one version and half of another is found, from a
//! single reading, and so is one that is short, that has holes, or that is another file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Shortest file: one stamp.
pub(crate) const LEN_MIN: u64 = STAMP_LEN as u64;

const BLOCK_LEN: usize = 4096;
const STAMP_LEN: usize = 32;
const MAGIC: u32 = 0x5452_4545;

/// What is wrong with a file.
#[derive(Debug)]
pub(crate) enum Torn {
    /// It cannot be read; whether its name may be absent is for the caller to say.
    Unreadable(io::Error),
    /// Shorter than any version.
    Short { len: u64 },
    /// It begins like no version of any file.
    Foreign,
    /// A version of another file.
    OtherFile { id: u64, version: u64 },
    /// Of the version that its beginning says, but not as long.
    Length { version: u64, expected: u64, found: u64 },
    /// A later block is not of the version that the first one is.
    Mixed { block: u64, version: u64, found: Option<u64> },
}

/// One stamp, as it is repeated over a block.
#[derive(Clone, Copy)]
struct Stamp {
    block: u32,
    id: u64,
    version: u64,
    len: u64,
}

/// Writes a version of file `id` over what is at `path`, in place and block by block, so that a
/// reader may see parts of two.
///
/// # Errors
/// What the system says.
pub(crate) fn write_version(path: &Path, id: u64, version: u64, len: u64) -> io::Result<()> {
    assert!(len >= LEN_MIN, "a file of {len} bytes cannot hold a stamp");
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    let bytes = bytes_of(id, version, len);
    for (block, part) in bytes.chunks(BLOCK_LEN).enumerate() {
        file.write_all_at(part, (block * BLOCK_LEN) as u64)?;
    }
    file.set_len(len)
}

/// Makes `path` a version of file `id` at once: a new file beside it, synced, renamed over it. A
/// reader never sees parts.
///
/// # Errors
/// What the system says.
pub(crate) fn replace_version(path: &Path, id: u64, version: u64, len: u64) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".next-");
    name.push(path.file_name().unwrap_or_default());
    let aside = path.with_file_name(name);
    write_version(&aside, id, version, len)?;
    // The content is on disk before the name leads to it.
    File::open(&aside)?.sync_all()?;
    Ok(rustix::fs::rename(aside, path)?)
}

/// The version of file `id` that is at `path`.
///
/// # Errors
/// It is no whole version of it.
pub(crate) fn check_whole(path: &Path, id: u64) -> Result<u64, Torn> {
    check_open(File::open(path).map_err(Torn::Unreadable)?, id)
}

/// As [`check_whole`], of a file that is open, from where it is read next.
///
/// # Errors
/// As [`check_whole`].
pub(crate) fn check_open(mut file: File, id: u64) -> Result<u64, Torn> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(Torn::Unreadable)?;
    let found = bytes.len() as u64;
    if found < LEN_MIN {
        return Err(Torn::Short { len: found });
    }
    let first = Stamp::decode(&bytes).ok_or(Torn::Foreign)?;
    let Stamp { version, len, .. } = first;
    if first.id != id {
        return Err(Torn::OtherFile { id: first.id, version });
    }
    for (number, part) in bytes.chunks(BLOCK_LEN).enumerate() {
        let block = u32::try_from(number).map_err(|_| Torn::Foreign)?;
        let expected = Stamp { block, ..first }.fill();
        if part != &expected[..part.len()] {
            let found = Stamp::decode(part).map(|stamp| stamp.version);
            return Err(Torn::Mixed { block: block.into(), version, found });
        }
    }
    if found == len { Ok(version) } else { Err(Torn::Length { version, expected: len, found }) }
}

/// All bytes of a version.
fn bytes_of(id: u64, version: u64, len: u64) -> Vec<u8> {
    let blocks = len.div_ceil(BLOCK_LEN as u64);
    let blocks = u32::try_from(blocks).expect("such a file is below 16 TiB");
    let mut bytes: Vec<u8> =
        (0..blocks).flat_map(|block| Stamp { block, id, version, len }.fill()).collect();
    bytes.truncate(usize::try_from(len).expect("it was allocated"));
    bytes
}

impl Stamp {
    fn fill(self) -> [u8; BLOCK_LEN] {
        let mut stamp = [0; STAMP_LEN];
        stamp[..4].copy_from_slice(&MAGIC.to_le_bytes());
        stamp[4..8].copy_from_slice(&self.block.to_le_bytes());
        stamp[8..16].copy_from_slice(&self.id.to_le_bytes());
        stamp[16..24].copy_from_slice(&self.version.to_le_bytes());
        stamp[24..].copy_from_slice(&self.len.to_le_bytes());
        let mut block = [0; BLOCK_LEN];
        for part in block.chunks_mut(STAMP_LEN) {
            part.copy_from_slice(&stamp);
        }
        block
    }

    /// The stamp at the front of `bytes`, if there is one.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<4>()?;
        let (block, rest) = rest.split_first_chunk::<4>()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<8>()?;
        let (len, _) = rest.split_first_chunk::<8>()?;
        (u32::from_le_bytes(*magic) == MAGIC).then(|| Self {
            block: u32::from_le_bytes(*block),
            id: u64::from_le_bytes(*id),
            version: u64::from_le_bytes(*version),
            len: u64::from_le_bytes(*len),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u64 = 7;
    const LENS: [u64; 6] = [LEN_MIN, 100, 4096, 4097, 4128, 40_000];

    #[test]
    fn a_whole_file_tells_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for (version, len) in LENS.into_iter().rev().enumerate() {
            write_version(&path, ID, version as u64, len).unwrap();
            assert_eq!(check_whole(&path, ID).unwrap(), version as u64, "{len} bytes");
            replace_version(&path, ID, 100 + version as u64, len).unwrap();
            assert_eq!(check_whole(&path, ID).unwrap(), 100 + version as u64, "{len} bytes");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing stays beside it");
    }

    #[test]
    fn no_prefix_and_no_longer_file_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes = bytes_of(ID, 3, 9000);
        for len in (0..9000).step_by(61).chain([4096, 8192, 8999]) {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert!(check_whole(&path, ID).is_err(), "the first {len} bytes");
        }
        std::fs::write(&path, [&*bytes, &bytes[808..809]].concat()).unwrap();
        assert!(matches!(check_whole(&path, ID), Err(Torn::Length { found: 9001, .. })));
    }

    #[test]
    fn a_mixture_of_two_versions_is_found_at_every_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (old, new) = (bytes_of(ID, 1, 20_000), bytes_of(ID, 2, 20_000));
        // In the last stamp, what follows the version is equal in both.
        for cut in [32, 100, 4095, 4096, 5000, 8192, 16_384, 19_968] {
            std::fs::write(&path, [&new[..cut], &old[cut..]].concat()).unwrap();
            let torn = check_whole(&path, ID);
            assert!(matches!(torn, Err(Torn::Mixed { version: 2, .. })), "{cut}: {torn:?}");
        }
        let mut moved = new.clone();
        moved.copy_within(8192..12_288, 4096);
        std::fs::write(&path, moved).unwrap();
        let torn = check_whole(&path, ID);
        assert!(matches!(torn, Err(Torn::Mixed { block: 1, found: Some(2), .. })), "{torn:?}");
    }

    #[test]
    fn other_files_and_holes_are_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_version(&path, ID + 1, 5, 5000).unwrap();
        assert!(matches!(check_whole(&path, ID), Err(Torn::OtherFile { id: 8, version: 5 })));
        std::fs::write(&path, [0; 5000]).unwrap();
        assert!(matches!(check_whole(&path, ID), Err(Torn::Foreign)));
        let mut bytes = bytes_of(ID, 5, 12_288);
        bytes[4096..8192].fill(0);
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(check_whole(&path, ID), Err(Torn::Mixed { block: 1, found: None, .. })));
        let absent = check_whole(&folder.path().join("absent"), ID);
        assert!(matches!(absent, Err(Torn::Unreadable(_))));
    }
}
