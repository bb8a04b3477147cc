//! How large the parts of a tree may be.
//!
//! Everything that a peer or a disk can make grow has its limit here, beside those of one name or
//! object in `name.rs` and `entry.rs`. A record beyond a limit is refused before it costs memory or
//! time.

use crate::units::{CHUNK_LEN, RESOURCE_LEN_MAX};

/// Longest regular file in bytes. What ext4 can hold with blocks of 4 KiB; as long as the largest
/// block resource, so that a sparse file that says to be longer cannot keep a node hashing holes.
pub const FILE_LEN_MAX: u64 = RESOURCE_LEN_MAX;
/// Most entries of a tree. Source: directory.md 11.
pub const ENTRIES_MAX: u64 = 1 << 32;
/// Chunks of a segment: 64 MiB of content. Source: directory.md 6.
pub const SEGMENT_CHUNKS: u32 = 1024;
/// Longest record in bytes, so that a frame of 1 MiB holds any. The longest is that of an object
/// with all the extended attributes it may have: each costs five bytes beside its name and value,
/// and no name that is kept has less than six bytes.
pub const RECORD_LEN_MAX: usize = 512 << 10;

/// Chunks of a file of `size` bytes; the last may be short.
pub fn chunk_count(size: u64) -> u64 {
    size.div_ceil(CHUNK_LEN)
}

/// Segments of a file of `size` bytes; the last may be short.
pub fn segment_count(size: u64) -> u64 {
    chunk_count(size).div_ceil(u64::from(SEGMENT_CHUNKS))
}

/// Chunks that a target may want and not have got: 32 MiB. Source: directory.md 8.
pub const WANTED_CHUNKS_MAX: u64 = 512;
