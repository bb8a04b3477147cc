//! The sums of the dirty map's pages, as of the last checkpoint.
//!
//! They are written after the map itself is stable. A page that differs from its sum changed
//! since, or was torn: after a power loss all its bits count as set.

use super::dirty_map::pages_of;
use super::page::{FileIds, PAGE_LEN, PageKind};
use super::{DIRTY_SUM_FILE, Damage};
use crate::units::ResourceSize;

/// Length of the file in bytes.
pub fn sum_file_len(size: ResourceSize) -> u64 {
    sum_offset(pages_of(size)).next_multiple_of(PAGE_LEN as u64)
}

/// Where the sum of a page of the map lies: a little-endian u32.
pub fn sum_offset(page: u64) -> u64 {
    PAGE_LEN as u64 + page * SUM_LEN
}

/// The file for a map without marks; the rest of its length is zero.
pub fn sum_image(size: ResourceSize, ids: &FileIds) -> Vec<u8> {
    let mut image = sum_head(size, ids).to_vec();
    let clean = crc32c::crc32c(&[0; PAGE_LEN]).to_le_bytes();
    for _ in 0..pages_of(size) {
        image.extend_from_slice(&clean);
    }
    image
}

/// The head of a file without sums; what follows it is zero, which vouches for no page.
pub fn sum_head(size: ResourceSize, ids: &FileIds) -> [u8; PAGE_LEN] {
    KIND.encode(ids, pages_of(size))
}

/// What is written to the file that was made longer for a resource that grows from `old` to `new`:
/// a new header over `head`, and sums of pages without marks, each with its offset.
///
/// # Errors
/// Why `head` is not the start of such a file.
pub fn grown_sums(
    head: &[u8],
    old: ResourceSize,
    new: ResourceSize,
) -> Result<[(u64, Vec<u8>); 2], Damage> {
    let header = KIND.decode(head)?;
    // A resize to more that was taken back may have left a greater number.
    let page = KIND.encode(&header.ids, header.count.max(pages_of(new)));
    let clean = crc32c::crc32c(&[0; PAGE_LEN]).to_le_bytes();
    let added = pages_of(old)..pages_of(new);
    let offset = sum_offset(added.start);
    Ok([(0, page.to_vec()), (offset, added.flat_map(|_| clean).collect())])
}

/// The stored sums as they lie in the file; none of them counts if the file cannot be trusted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums<'a>(&'a [u8]);

impl<'a> Sums<'a> {
    /// # Errors
    /// If the file is another replica's or a newer release's. Damage is no error: the sums are
    /// there to doubt the map.
    pub(super) fn open(bytes: &'a [u8], ids: &FileIds) -> Result<Self, Damage> {
        match KIND.decode(bytes) {
            Ok(header) => {
                header.check_owner(DIRTY_SUM_FILE, ids)?;
                Ok(Self(bytes))
            }
            Err(newer @ Damage::Format { .. }) => Err(newer),
            Err(_) => Ok(Self(&[])),
        }
    }

    /// Whether there is a place for the sum of each page.
    pub(super) fn are_whole(self, size: ResourceSize) -> bool {
        self.0.len() as u64 >= sum_file_len(size)
    }

    /// The stored sum of a page.
    pub(super) fn of_page(self, page: u64) -> Option<u32> {
        let at = usize::try_from(sum_offset(page)).ok()?;
        self.0.get(at..)?.first_chunk().map(|it| u32::from_le_bytes(*it))
    }
}

const SUM_LEN: u64 = 4;
const KIND: PageKind =
    PageKind { file: DIRTY_SUM_FILE, magic: *b"HPDSUMS1", unit: PAGE_LEN as u64 };
