//! How chunk hashes look in the tables: by segment, and by themselves.

use super::IndexError;
use super::tables::HashKey;
use crate::manifest::{ChunkHash, ManifestError, SEGMENT_CHUNKS};
use crate::units::TreeNumber;

/// Where a chunk is found by its hash. Half of it keeps the table small, and whoever looks compares all
/// of it with what is read.
pub(super) fn hash_key(hash: &ChunkHash, object: u64, chunk: u32) -> HashKey {
    let (half, _) = hash.0.split_first_chunk::<16>().expect("a hash has 32 bytes");
    (u128::from_le_bytes(*half), object, chunk)
}

/// A generation, then the hashes. Where all are of zeroes there is only their number, so that a file with
/// a large hole has a small index.
pub(super) fn encode_segment(number: TreeNumber, hashes: &[ChunkHash]) -> Vec<u8> {
    let mut bytes = number.0.to_le_bytes().to_vec();
    match u16::try_from(hashes.len()) {
        Ok(count) if hashes.iter().all(|hash| *hash == ChunkHash::ZERO) => {
            bytes.extend(count.to_le_bytes());
        }
        Ok(_) | Err(_) => bytes.extend(hashes.iter().flat_map(|hash| hash.0)),
    }
    bytes
}

pub(super) fn decode_segment(bytes: &[u8]) -> Result<(TreeNumber, Vec<ChunkHash>), IndexError> {
    let none =
        |missing| IndexError::Row { table: "segments", why: ManifestError::Short { missing } };
    let (number, hashes) = bytes.split_first_chunk::<8>().ok_or(none(8))?;
    let number = TreeNumber(u64::from_le_bytes(*number));
    if let [low, high] = hashes {
        let count = u16::from_le_bytes([*low, *high]);
        if u32::from(count) > SEGMENT_CHUNKS {
            return Err(none(0));
        }
        return Ok((number, vec![ChunkHash::ZERO; usize::from(count)]));
    }
    let (hashes, rest) = hashes.as_chunks::<32>();
    if !rest.is_empty() {
        return Err(none(32 - rest.len()));
    }
    Ok((number, hashes.iter().map(|hash| ChunkHash(*hash)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read_as_it_was_written_and_zeroes_take_no_room() {
        let (zero, one) = (ChunkHash::ZERO, ChunkHash([1; 32]));
        let lists = [vec![], vec![zero], vec![one], vec![zero, one, zero], vec![zero; 1024]];
        for hashes in lists {
            let bytes = encode_segment(TreeNumber(7), &hashes);
            assert_eq!(decode_segment(&bytes).unwrap(), (TreeNumber(7), hashes.clone()));
            if hashes.iter().all(|hash| *hash == zero) {
                assert_eq!(bytes.len(), 10);
            }
            for len in (0..bytes.len()).filter(|len| *len != 8 && (len - 8.min(*len)) % 32 != 0) {
                let cut = decode_segment(&bytes[..len]);
                assert!(cut.is_err() || len == 10, "{len} of {}", bytes.len());
            }
        }
        let many = [&7_u64.to_le_bytes()[..], &1025_u16.to_le_bytes()].concat();
        assert!(decode_segment(&many).is_err());
    }
}
