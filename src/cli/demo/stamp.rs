//! Bytes that say which write put them there.
//!
//! Each sector of 512 bytes is filled with one mark: the run of the demo, its own number and the
//! version of its block. So a sector alone says whether it is lost, torn, misplaced or foreign.

use crate::units::BLOCK_LEN;

/// A block as bytes.
pub(super) type Block = [u8; BLOCK];

/// What is written at once by any disk; a block that is interrupted may be old and new by sector.
const SECTOR: usize = 512;
const MARK: usize = 32;
const BLOCK: usize = 4096;
const SECTORS: usize = BLOCK / SECTOR;
const _: () = assert!(BLOCK as u64 == BLOCK_LEN);

/// Bytes that no write of this run left where they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("sector {sector} of block {block} holds bytes that nobody wrote there")]
pub(super) struct Foreign {
    /// The block.
    block: u64,
    /// Its sector.
    sector: usize,
}

/// What version `version` of `block` looks like.
pub(super) fn block(run: u64, block: u64, version: u64) -> Block {
    let mut bytes = [0; BLOCK];
    for (sector, part) in bytes.chunks_exact_mut(SECTOR).enumerate() {
        let mark = mark(run, block, sector, version);
        part.chunks_exact_mut(MARK).for_each(|cell| cell.copy_from_slice(&mark));
    }
    bytes
}

/// The versions that the sectors of `block` hold, given its bytes.
///
/// # Errors
/// [`Foreign`] names the first sector that no write left so.
pub(super) fn versions(run: u64, block: u64, bytes: &Block) -> Result<[u64; SECTORS], Foreign> {
    let mut versions = [0; SECTORS];
    for (sector, (part, version)) in bytes.chunks_exact(SECTOR).zip(versions.iter_mut()).enumerate()
    {
        let number = part[VERSION_AT..VERSION_AT + 8].first_chunk().expect("eight bytes");
        *version = u64::from_le_bytes(*number);
        let is_ours = part[..MARK] == mark(run, block, sector, *version);
        // Every cell equals the one before it: one comparison of the whole sector.
        if !is_ours || part[MARK..] != part[..SECTOR - MARK] {
            return Err(Foreign { block, sector });
        }
    }
    Ok(versions)
}

const VERSION_AT: usize = 16;

fn mark(run: u64, block: u64, sector: usize, version: u64) -> [u8; MARK] {
    let sector = u64::try_from(sector).expect("there are eight");
    let mut mark = [0; MARK];
    mark[..8].copy_from_slice(&run.to_le_bytes());
    mark[8..VERSION_AT].copy_from_slice(&(block * SECTORS as u64 + sector).to_le_bytes());
    mark[VERSION_AT..24].copy_from_slice(&version.to_le_bytes());
    let sum = crc32c::crc32c(&mark[..24]);
    mark[24..28].copy_from_slice(&sum.to_le_bytes());
    mark
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_says_its_version_by_sector() {
        let mut bytes = block(7, 3, 9);
        assert_eq!(versions(7, 3, &bytes), Ok([9; SECTORS]));
        bytes[..SECTOR].copy_from_slice(&block(7, 3, 10)[..SECTOR]);
        assert_eq!(versions(7, 3, &bytes), Ok([10, 9, 9, 9, 9, 9, 9, 9]));
    }

    #[test]
    fn what_is_torn_misplaced_or_foreign_is_found() {
        let bytes = block(7, 3, 9);
        assert_eq!(versions(7, 4, &bytes), Err(Foreign { block: 4, sector: 0 }));
        assert_eq!(versions(8, 3, &bytes), Err(Foreign { block: 3, sector: 0 }));
        assert_eq!(versions(7, 3, &[0; BLOCK]), Err(Foreign { block: 3, sector: 0 }));
        for at in 0..BLOCK {
            let mut broken = bytes;
            broken[at] ^= 1;
            assert_eq!(versions(7, 3, &broken), Err(Foreign { block: 3, sector: at / SECTOR }));
        }
        let mut torn = bytes;
        torn[SECTOR + 100..2 * SECTOR].copy_from_slice(&block(7, 3, 10)[SECTOR + 100..2 * SECTOR]);
        assert_eq!(versions(7, 3, &torn), Err(Foreign { block: 3, sector: 1 }));
    }
}
