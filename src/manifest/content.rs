//! The hash of a file's content, from the hashes of its chunks.
//!
//! A chunk is 64 KiB of a file, the last one as short as it is; its hash is the plain BLAKE3 that
//! its payload carries too. 1,024 chunk hashes make a segment hash, the size and all segment hashes
//! make the content hash. So after a change of one chunk the new content hash follows from stored
//! hashes: the file is not read again.

use std::collections::BTreeMap;

use super::limits::{FILE_LEN_MAX, SEGMENT_CHUNKS, chunk_count, segment_count};
use super::{ContentHash, ManifestError};
use crate::units::CHUNK_LEN;

/// BLAKE3 of the bytes of one chunk.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ChunkHash(pub [u8; 32]);

impl ChunkHash {
    /// That of a whole chunk of zeroes: a hole, or what could be one.
    pub const ZERO: Self = Self(ZERO_CHUNK);
}

/// Hash over the chunk hashes of one segment of a file.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SegmentHash(pub [u8; 32]);

/// What makes a segment hash another kind of hash than all others. Changing it changes every root.
const SEGMENT_CONTEXT: &str = "hotpair tree segment v1";
/// The same for content hashes.
const CONTENT_CONTEXT: &str = "hotpair tree content v1";

/// Hash of the segment that has these chunks, at most [`SEGMENT_CHUNKS`].
pub fn segment_hash(chunks: &[ChunkHash]) -> SegmentHash {
    let mut hasher = blake3::Hasher::new_derive_key(SEGMENT_CONTEXT);
    for chunk in chunks {
        hasher.update(&chunk.0);
    }
    SegmentHash(*hasher.finalize().as_bytes())
}

/// Which segment holds a chunk. Files are limited, so the number fits.
pub fn segment_of(chunk: u64) -> u32 {
    u32::try_from(chunk / u64::from(SEGMENT_CHUNKS)).unwrap_or(u32::MAX)
}

/// Takes the chunk hashes of a file one by one and gives its content hash, in memory that does not
/// depend on its size.
#[derive(Debug)]
pub struct ContentBuilder {
    size: u64,
    hasher: blake3::Hasher,
    /// Chunks taken so far.
    taken: u64,
    segment: Vec<ChunkHash>,
    /// The hash of a segment of zeroes, once it was needed: holes can be long.
    zero_segment: Option<SegmentHash>,
}

impl ContentBuilder {
    /// For a file of `size` bytes.
    ///
    /// # Errors
    /// [`ManifestError::FileTooLong`].
    pub fn new(size: u64) -> Result<Self, ManifestError> {
        Ok(Self {
            size,
            hasher: content_hasher(size)?,
            taken: 0,
            segment: Vec::new(),
            zero_segment: None,
        })
    }

    /// Takes the next chunk. Where that ends a segment, gives its hash, for the index.
    pub fn push(&mut self, chunk: ChunkHash) -> Option<SegmentHash> {
        self.segment.push(chunk);
        self.taken += 1;
        let is_full = self.segment.len() as u64 == u64::from(SEGMENT_CHUNKS);
        (is_full || self.taken == chunk_count(self.size)).then(|| {
            let hash = segment_hash(&self.segment);
            self.close(hash)
        })
    }

    /// Takes a run of whole zero chunks.
    pub fn push_zeroes(&mut self, mut count: u64) {
        let whole = u64::from(SEGMENT_CHUNKS);
        while count > 0 {
            if self.segment.is_empty() && count >= whole {
                let zeroes = || segment_hash(&vec![ChunkHash::ZERO; SEGMENT_CHUNKS as usize]);
                let hash = *self.zero_segment.get_or_insert_with(zeroes);
                self.taken += whole;
                count -= whole;
                self.close(hash);
            } else {
                self.push(ChunkHash::ZERO);
                count -= 1;
            }
        }
    }

    fn close(&mut self, hash: SegmentHash) -> SegmentHash {
        self.segment.clear();
        self.hasher.update(&hash.0);
        hash
    }

    /// The content hash; `None` if the chunks are not as many as the size says.
    pub fn finish(self) -> Option<ContentHash> {
        let is_whole = self.taken == chunk_count(self.size) && self.segment.is_empty();
        is_whole.then(|| ContentHash(*self.hasher.finalize().as_bytes()))
    }
}

/// Content hash of a file of `size` bytes of which some segments changed: `stored` are the hashes
/// of its segments before, from the first on, and `changed` those to be taken instead. A file that
/// grew lacks some in `stored`, one that shrank has some left over. `None` if a segment is in
/// neither.
///
/// # Errors
/// [`ManifestError::FileTooLong`].
pub fn rehash(
    size: u64,
    stored: impl IntoIterator<Item = SegmentHash>,
    changed: &BTreeMap<u32, SegmentHash>,
) -> Result<Option<ContentHash>, ManifestError> {
    let mut hasher = content_hasher(size)?;
    let mut stored = stored.into_iter();
    for segment in 0..segment_count(size) {
        let old = stored.next();
        let new = u32::try_from(segment).ok().and_then(|segment| changed.get(&segment).copied());
        let Some(hash) = new.or(old) else { return Ok(None) };
        hasher.update(&hash.0);
    }
    Ok(Some(ContentHash(*hasher.finalize().as_bytes())))
}

fn content_hasher(size: u64) -> Result<blake3::Hasher, ManifestError> {
    if size > FILE_LEN_MAX {
        return Err(ManifestError::FileTooLong { found: size });
    }
    let mut hasher = blake3::Hasher::new_derive_key(CONTENT_CONTEXT);
    hasher.update(&size.to_le_bytes());
    Ok(hasher)
}

/// How many chunks of a file of `size` bytes are whole: only those can be in a run of zeroes.
pub fn whole_chunk_count(size: u64) -> u64 {
    size / CHUNK_LEN
}

/// BLAKE3 of 65,536 zero bytes; a test computes it.
const ZERO_CHUNK: [u8; 32] = [
    0x3b, 0xde, 0xaf, 0x8f, 0x8e, 0x98, 0x78, 0x0b, 0x31, 0x81, 0x06, 0xaa, 0xfd, 0xc3, 0xca, 0x25,
    0x7f, 0x73, 0xdf, 0x12, 0x3d, 0x97, 0xb6, 0x91, 0x12, 0xb2, 0x60, 0x44, 0xc9, 0x1a, 0x7d, 0x56,
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn chunk(number: u64) -> ChunkHash {
        ChunkHash(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn content(size: u64, chunks: &[ChunkHash]) -> Option<ContentHash> {
        let mut builder = ContentBuilder::new(size).unwrap();
        for chunk in chunks {
            builder.push(*chunk);
        }
        builder.finish()
    }

    fn segments(chunks: &[ChunkHash]) -> Vec<SegmentHash> {
        chunks.chunks(SEGMENT_CHUNKS as usize).map(segment_hash).collect()
    }

    #[test]
    fn the_zero_chunk_has_the_hash_that_its_bytes_have() {
        let zeroes = vec![0; usize::try_from(CHUNK_LEN).unwrap()];
        assert_eq!(ChunkHash::ZERO.0, *blake3::hash(&zeroes).as_bytes());
    }

    #[test]
    fn the_size_is_part_of_the_content() {
        let one = [chunk(1)];
        assert_ne!(content(CHUNK_LEN, &one), content(CHUNK_LEN - 1, &one));
        assert!(content(0, &[]).is_some());
        assert_eq!(content(CHUNK_LEN + 1, &one), None, "a chunk is missing");
        assert_eq!(content(0, &one), None, "a chunk too many");
    }

    #[test]
    fn a_hash_of_one_kind_is_never_one_of_another() {
        let chunks = [chunk(1)];
        let mut plain = blake3::Hasher::new();
        plain.update(&chunks[0].0);
        assert_ne!(segment_hash(&chunks).0, *plain.finalize().as_bytes());
        assert_ne!(content(0, &[]).unwrap().0, segment_hash(&[]).0);
    }

    #[test]
    fn a_run_of_zeroes_is_what_its_chunks_are_one_by_one() {
        for (before, zeroes) in [(0, 1), (0, 1024), (3, 1021), (3, 1022), (1023, 4000), (5, 0)] {
            let mut chunks: Vec<_> = (0..before).map(chunk).collect();
            chunks.resize(chunks.len() + usize::try_from(zeroes).unwrap(), ChunkHash::ZERO);
            let size = (before + zeroes) * CHUNK_LEN;
            let mut builder = ContentBuilder::new(size).unwrap();
            for number in 0..before {
                builder.push(chunk(number));
            }
            builder.push_zeroes(zeroes);
            assert_eq!(builder.finish(), content(size, &chunks), "{before}, {zeroes}");
        }
    }

    #[test]
    fn a_hole_as_long_as_a_file_can_be_is_hashed_all_the_same() {
        let mut builder = ContentBuilder::new(FILE_LEN_MAX).unwrap();
        builder.push_zeroes(chunk_count(FILE_LEN_MAX));
        assert!(builder.finish().is_some());
        assert!(ContentBuilder::new(FILE_LEN_MAX + 1).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 64,
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Sizes around one, two and three segments, changed, cut and grown.
        #[test]
        fn what_follows_from_stored_segments_is_what_reading_again_gives(
            old_len in 0..3100_u64,
            new_len in 0..3100_u64,
            edits in vec((any::<prop::sample::Index>(), any::<u64>()), 0..6),
        ) {
            let old: Vec<_> = (0..old_len).map(chunk).collect();
            let mut new: Vec<_> = (0..new_len).map(chunk).collect();
            for (at, value) in &edits {
                if !new.is_empty() {
                    let at = at.index(new.len());
                    new[at] = chunk(*value);
                }
            }
            let (was, is) = (segments(&old), segments(&new));
            let changed = is
                .iter()
                .enumerate()
                .filter(|(at, hash)| was.get(*at) != Some(*hash))
                .map(|(at, hash)| (u32::try_from(at).unwrap(), *hash))
                .collect();
            let size = new_len * CHUNK_LEN;
            prop_assert_eq!(rehash(size, was, &changed).unwrap(), content(size, &new));
        }
    }

    #[test]
    fn a_segment_that_nobody_knows_is_not_made_up() {
        let known = BTreeMap::from([(1, segment_hash(&[]))]);
        assert_eq!(rehash(CHUNK_LEN, [], &known).unwrap(), None);
        let size = FILE_LEN_MAX + 1;
        assert_eq!(rehash(size, [], &known), Err(ManifestError::FileTooLong { found: size }));
    }
}
