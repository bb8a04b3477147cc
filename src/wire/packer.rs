//! Content of a tree as blocks of LZ4 and back, and the only use of `lz4_flex`.
//!
//! Whether it is worth it shows a sample, so content that does not shrink costs little. It takes
//! milliseconds: a data thread does neither. The hashes of chunks are those of their content, whatever
//! travels.

use bytes::Bytes;
use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size,
};

use super::kind::TREE_PAYLOAD_LEN_MAX;
use super::packing::Packing;

/// Longest content, in bytes.
const CONTENT_LEN_MAX: usize = TREE_PAYLOAD_LEN_MAX as usize;
/// Length of each of the two parts of a sample, in bytes.
const SAMPLE_LEN: usize = 16 << 10;

/// Compresses content. It keeps what it needs for the next one.
pub struct Packer {
    table: CompressTable,
    block: Vec<u8>,
}

impl Default for Packer {
    fn default() -> Self {
        Self { table: CompressTable::large(), block: Vec::new() }
    }
}

impl Packer {
    /// What travels instead of `content`; `None`: it travels as it is.
    ///
    /// It is compressed if a sample of its beginning and its middle shrinks by a tenth, and used if the whole
    /// came out smaller. What is not longer than a sample has to shrink by a tenth itself.
    pub fn pack(&mut self, content: &[u8]) -> Option<(Packing, Bytes)> {
        let raw_len = u32::try_from(content.len()).ok()?;
        if raw_len > TREE_PAYLOAD_LEN_MAX {
            return None;
        }
        let len = match sample(content) {
            Some([first, middle]) => {
                let sampled = self.compress(first)? + self.compress(middle)?;
                if !shrinks(sampled, first.len() + middle.len()) {
                    return None;
                }
                self.compress(content).filter(|len| *len < content.len())?
            }
            None => self.compress(content).filter(|len| shrinks(*len, content.len()))?,
        };
        // A copy, so that what waits for the connection is no larger than what is sent.
        let block = Bytes::copy_from_slice(self.block.get(..len)?);
        Some((Packing::Lz4 { raw_len }, block))
    }

    /// Length of the block that `content` becomes.
    fn compress(&mut self, content: &[u8]) -> Option<usize> {
        let most = get_maximum_output_size(content.len());
        if self.block.len() < most {
            self.block.resize(most, 0);
        }
        compress_into_with_table(content, &mut self.block, &mut self.table).ok()
    }
}

/// What is tried first; `None`: that would be as much work as the whole.
fn sample(content: &[u8]) -> Option<[&[u8]; 2]> {
    if content.len() <= 2 * SAMPLE_LEN {
        return None;
    }
    let middle = content.len() / 2;
    Some([content.get(..SAMPLE_LEN)?, content.get(middle..middle + SAMPLE_LEN)?])
}

/// Whether what has `raw_len` bytes is a tenth smaller with `len`.
fn shrinks(len: usize, raw_len: usize) -> bool {
    len * 10 <= raw_len * 9
}

impl Packing {
    /// The content of `packed`, made in `buffer` if it travelled compressed. The buffer stays for the next one,
    /// and is never longer than the longest content. `None`: the bytes are not what they say.
    pub fn content<'b>(self, packed: &'b [u8], buffer: &'b mut Vec<u8>) -> Option<&'b [u8]> {
        let Self::Lz4 { raw_len } = self else { return Some(packed) };
        let raw_len = usize::try_from(raw_len).ok().filter(|len| *len <= CONTENT_LEN_MAX)?;
        if buffer.len() < raw_len {
            buffer.resize(raw_len, 0);
        }
        let content = buffer.get_mut(..raw_len)?;
        // Counted are bytes that this block gave: none is left over from an earlier content.
        let made = decompress_into(packed, content).ok()?;
        (made == raw_len).then_some(&*content)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn text(len: usize) -> Vec<u8> {
        let line = |number| format!("{number}: the quick brown fox jumps over the lazy dog\n");
        (0..).flat_map(|number: u32| line(number).into_bytes()).take(len).collect()
    }

    fn put(at: usize, part: &[u8], mut content: Vec<u8>) -> Vec<u8> {
        content[at..at + part.len()].copy_from_slice(part);
        content
    }

    fn content_of(packing: Packing, packed: &[u8]) -> Option<Vec<u8>> {
        packing.content(packed, &mut Vec::new()).map(<[u8]>::to_vec)
    }

    fn lz4(raw_len: usize) -> Packing {
        Packing::Lz4 { raw_len: u32::try_from(raw_len).unwrap() }
    }

    #[test]
    fn what_shrinks_arrives_as_it_was_whatever_its_length() {
        let (mut packer, mut buffer) = (Packer::default(), Vec::new());
        let lens = [200, 5000, 32 << 10, (32 << 10) + 1, 65_535, 65_536, 300_001, 1 << 20];
        for len in lens.into_iter().chain(lens) {
            let content = text(len);
            let (packing, block) = packer.pack(&content).unwrap();
            assert_eq!(packing, lz4(len));
            assert!(block.len() < len && packing.check(block.len()).is_ok(), "{len}");
            assert_eq!(packing.content(&block, &mut buffer), Some(&content[..]), "{len}");
        }
        assert_eq!(buffer.len(), 1 << 20);
        assert!(packer.block.len() <= get_maximum_output_size(1 << 20));
    }

    #[test]
    fn what_does_not_shrink_travels_as_it_is() {
        let mut packer = Packer::default();
        for len in [0, 1, 12, 200, 5000, 32 << 10, (32 << 10) + 1, 65_536, 1 << 20] {
            assert_eq!(packer.pack(&noise(len)), None, "{len}");
        }
        assert_eq!(packer.pack(&text((1 << 20) + 1)), None, "no message has that");
        assert_eq!(
            packer.block.len(),
            get_maximum_output_size(32 << 10),
            "only samples were tried"
        );
        let raw = noise(9);
        assert_eq!(content_of(Packing::Raw, &raw), Some(raw));
    }

    #[test]
    fn a_sample_of_the_beginning_and_the_middle_decides() {
        let mut packer = Packer::default();
        let len = 1 << 20;
        let zeroes = vec![0; SAMPLE_LEN];
        let begins = put(0, &zeroes, noise(len));
        let in_the_middle = put(len / 2, &zeroes, noise(len));
        assert!(packer.pack(&begins).is_some() && packer.pack(&in_the_middle).is_some());
        for at in [SAMPLE_LEN, len / 2 - SAMPLE_LEN, len - SAMPLE_LEN] {
            assert_eq!(packer.pack(&put(at, &zeroes, noise(len))), None, "{at} was not looked at");
        }
        let random = noise(SAMPLE_LEN);
        let both = put(0, &random, put(len / 2, &random, text(len)));
        assert_eq!(packer.pack(&both), None);
    }

    #[test]
    fn what_shrinks_in_the_sample_alone_travels_as_it_is() {
        let mut packer = Packer::default();
        let len = 1 << 20;
        // Less than a tenth of the sample, and more than that.
        for (zeroes, tried) in [(2000, SAMPLE_LEN), (3600, len)] {
            assert_eq!(packer.pack(&put(0, &vec![0; zeroes], noise(len))), None);
            assert_eq!(packer.block.len(), get_maximum_output_size(tried), "{zeroes}");
        }
    }

    #[test]
    fn a_tenth_is_a_tenth() {
        assert!(shrinks(90, 100) && shrinks(0, 1));
        assert!(!shrinks(91, 100) && !shrinks(1, 1) && !shrinks(110, 100));
    }

    #[test]
    fn a_block_that_gives_more_or_less_than_it_says_is_refused() {
        let content = text(70_000);
        let (_, packed) = Packer::default().pack(&content).unwrap();
        for said in [0, 1, 69_999, 70_001, 1 << 20] {
            assert_eq!(content_of(lz4(said), &packed), None, "{said}");
        }
        let longer = [&packed[..], &[0]].concat();
        assert_eq!(content_of(lz4(70_000), &longer), None);
        assert_eq!(content_of(lz4(70_000), &[]), None);
    }

    #[test]
    fn no_truncation_is_taken_for_a_block() {
        let content = text(3000);
        let (packing, packed) = Packer::default().pack(&content).unwrap();
        for len in 0..packed.len() {
            assert_eq!(content_of(packing, &packed[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_longest_content() {
        // One literal, and then it again for as often as 64 KiB can say.
        let bomb = [&[0x1f, 0x77, 1, 0][..], &vec![0xff; 1 << 16], &[0]].concat();
        let mut buffer = Vec::new();
        for said in [TREE_PAYLOAD_LEN_MAX, TREE_PAYLOAD_LEN_MAX + 1, u32::MAX] {
            assert_eq!(Packing::Lz4 { raw_len: said }.content(&bomb, &mut buffer), None);
            assert!(buffer.capacity() <= CONTENT_LEN_MAX, "{said}");
        }
        assert!(Packing::Lz4 { raw_len: TREE_PAYLOAD_LEN_MAX + 1 }.check(bomb.len()).is_err());
    }

    #[test]
    fn nothing_of_an_earlier_content_is_seen() {
        let mut buffer = vec![0x55; 4096];
        let (packing, packed) = Packer::default().pack(&[7; 4096]).unwrap();
        assert_eq!(packing.content(&packed, &mut buffer), Some(&[7; 4096][..]));
        // A reference to what lies in front of the content.
        assert_eq!(lz4(300).content(&[0x1f, 0x77, 2, 0, 0xff, 0x14], &mut buffer), None);
        assert_eq!(lz4(300).content(&[0x0f, 1, 0, 0xff, 0xff], &mut buffer), None);
    }

    proptest! {
        #[test]
        fn any_content_arrives_as_it_was(
            parts in proptest::collection::vec((any::<u8>(), 1..200_usize, any::<bool>()), 0..600),
        ) {
            let mut content = Vec::new();
            for (byte, len, is_noise) in parts {
                let at = usize::from(byte);
                content.extend(if is_noise { noise(at + len).split_off(at) } else { vec![byte; len] });
            }
            if let Some((packing, packed)) = Packer::default().pack(&content) {
                prop_assert!(packing.check(packed.len()).is_ok());
                prop_assert_eq!(content_of(packing, &packed), Some(content));
            }
        }

        #[test]
        fn any_bytes_are_a_block_of_their_length_or_none(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            raw_len in 0..5000_usize,
        ) {
            let content = content_of(lz4(raw_len), &bytes);
            prop_assert!(content.is_none_or(|content| content.len() == raw_len));
        }

        #[test]
        fn a_damaged_block_is_refused_or_has_its_length(at in 0..1000_usize, byte in any::<u8>()) {
            let (packing, packed) = Packer::default().pack(&text(20_000)).unwrap();
            let mut packed = packed.to_vec();
            let at = at % packed.len();
            packed[at] = byte;
            prop_assert!(content_of(packing, &packed).is_none_or(|content| content.len() == 20_000));
        }
    }
}
