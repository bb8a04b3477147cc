//! Which blocks may differ from the peer: one bit each, in mapped memory.
//!
//! The page cache keeps the map exact across a crash of the process, without a system call per
//! write. After a power loss a page counts only if its sum matches (`dirty_sum.rs`). The canary in
//! the first page tells a start whether this is the memory that the last run left.

use std::hash::{Hash, Hasher};

use super::DIRTY_MAP_FILE;
use super::damage::Damage;
use super::page::{FileIds, Header, PAGE_LEN, PageKind};
use crate::units::{BLOCK_LEN, BlockIndex, BlockRange, ChunkIndex, ResourceSize};

/// Memory that holds a file: a mapping, or a plain vector in tests.
pub trait MapMemory {
    /// All bytes of the file.
    fn bytes(&self) -> &[u8];
    /// The same, to be changed.
    fn bytes_mut(&mut self) -> &mut [u8];
}

impl MapMemory for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// The marks of a replica: a set bit says "this block may differ from the peer's".
///
/// Blocks outside the resource are impossible for whoever has a checked range, so they panic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DirtyMap<M> {
    memory: M,
    size: ResourceSize,
    count: u64,
    /// Set bits per page: lets scans skip clean pages.
    page_counts: Vec<u16>,
    /// One bit per page: its sum in `dirty.sum` is old.
    changed: Vec<u64>,
}

impl<M: MapMemory> DirtyMap<M> {
    /// Length of the file in bytes.
    pub fn file_len(size: ResourceSize) -> u64 {
        PAGE_LEN as u64 + pages_of(size) * PAGE_LEN as u64
    }

    /// First page of a new file; the rest is zero: no marks.
    pub fn format(size: ResourceSize, ids: &FileIds) -> [u8; PAGE_LEN] {
        KIND.encode(ids, size.block_count())
    }

    /// The first bytes of a file that was made longer for a resource of `size`, given those it has.
    /// They are stable before a record says that size. The canary lies behind them.
    ///
    /// # Errors
    /// Why `head` is not the start of a dirty map.
    pub fn grown_head(head: &[u8], size: ResourceSize) -> Result<Vec<u8>, Damage> {
        let header = KIND.decode(head)?;
        // A resize to more that was taken back may have left a greater number.
        let page = KIND.encode(&header.ids, header.count.max(size.block_count()));
        let (head, _) = page.split_at(CANARY_AT);
        Ok(head.to_vec())
    }

    /// Takes a map as it is. The file may be longer than `size` needs, after a resize that did not
    /// end.
    ///
    /// # Errors
    /// Why the bytes are not a dirty map that covers `size`.
    pub fn open(memory: M, size: ResourceSize) -> Result<Self, Damage> {
        Self::check(&memory, size)?;
        Ok(Self::take(memory, size))
    }

    /// What the header says, if this is a dirty map that covers `size`.
    pub(super) fn check(memory: &M, size: ResourceSize) -> Result<Header, Damage> {
        let len = memory.bytes().len() as u64;
        let needed = Self::file_len(size);
        if len < needed {
            return Err(Damage::Short { file: DIRTY_MAP_FILE, len, needed });
        }
        let header = KIND.decode(memory.bytes())?;
        if header.count < size.block_count() {
            return Err(Damage::Value { file: DIRTY_MAP_FILE, field: "the number of blocks" });
        }
        Ok(header)
    }

    /// Writes a new header over a damaged one and sets every bit. `memory` is long enough. Until
    /// this start is on record, the next one must not take the new header for one that was whole.
    pub(super) fn remake(mut memory: M, size: ResourceSize, ids: &FileIds) -> Self {
        let page = Self::format(size, ids);
        let (first, _) = memory.bytes_mut().split_at_mut(PAGE_LEN);
        first.copy_from_slice(&page);
        let mut map = Self::take(memory, size);
        map.set_all();
        map.distrust();
        map
    }

    fn take(memory: M, size: ResourceSize) -> Self {
        let page_count = index(pages_of(size));
        let mut map = Self {
            memory,
            size,
            count: 0,
            page_counts: Vec::with_capacity(page_count),
            changed: vec![0; page_count.div_ceil(64)],
        };
        clear_from(map.memory.bytes_mut(), size.block_count());
        for page in 0..page_count as u64 {
            let (words, _) = map.page(page).as_chunks::<8>();
            let set: u32 = words.iter().map(|it| u64::from_le_bytes(*it).count_ones()).sum();
            map.page_counts.push(u16::try_from(set).expect("a page has 32,768 bits"));
            map.count += u64::from(set);
        }
        map
    }

    /// Sets a block's bit; says whether it was clear.
    pub fn set(&mut self, block: BlockIndex) -> bool {
        self.check_inside(block.0 + 1);
        self.change_word(block.0 / 64, 1 << (block.0 % 64), Change::Set) > 0
    }

    /// Clears a block's bit; says whether it was set.
    pub fn clear(&mut self, block: BlockIndex) -> bool {
        self.check_inside(block.0 + 1);
        self.change_word(block.0 / 64, 1 << (block.0 % 64), Change::Clear) > 0
    }

    /// Whether a block's bit is set.
    pub fn is_set(&self, block: BlockIndex) -> bool {
        self.check_inside(block.0 + 1);
        self.word(block.0 / 64) >> (block.0 % 64) & 1 == 1
    }

    /// Sets the bits of a range; says how many were clear.
    pub fn set_range(&mut self, blocks: BlockRange) -> u64 {
        self.change_range(blocks, Change::Set)
    }

    /// Clears the bits of a range; says how many were set.
    pub fn clear_range(&mut self, blocks: BlockRange) -> u64 {
        self.change_range(blocks, Change::Clear)
    }

    /// Sets every bit.
    pub fn set_all(&mut self) {
        self.set_range(self.all());
    }

    /// Clears every bit.
    pub fn clear_all(&mut self) {
        self.clear_range(self.all());
    }

    /// Number of set bits.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Size of the resource.
    pub fn size(&self) -> ResourceSize {
        self.size
    }

    /// Whether a bit of the range is set.
    pub fn any_in(&self, blocks: BlockRange) -> bool {
        self.next_set(BlockIndex(blocks.first)).is_some_and(|block| block.0 < blocks.end)
    }

    /// The first set bit at or after `from`.
    pub fn next_set(&self, from: BlockIndex) -> Option<BlockIndex> {
        let words = self.page_count() * WORDS_PER_PAGE;
        let mut at = from.0 / 64;
        let mut mask = u64::MAX << (from.0 % 64);
        while at < words {
            if self.page_is_clean(at / WORDS_PER_PAGE) {
                at = (at / WORDS_PER_PAGE + 1) * WORDS_PER_PAGE;
            } else {
                let found = self.word(at) & mask;
                if found != 0 {
                    return Some(BlockIndex(at * 64 + u64::from(found.trailing_zeros())));
                }
                at += 1;
            }
            mask = u64::MAX;
        }
        None
    }

    /// The bits of a chunk's blocks; bit 0 is its first block.
    pub fn chunk_mask(&self, chunk: ChunkIndex) -> u16 {
        let first = chunk.blocks(self.size).first;
        self.check_inside(first + 1);
        let [low, high, ..] = (self.word(first / 64) >> (first % 64)).to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Number of pages of bits; the last one may go beyond the resource.
    pub fn page_count(&self) -> u64 {
        self.page_counts.len() as u64
    }

    /// A page of bits, [`PAGE_LEN`] bytes. Bits behind the end of the resource are zero.
    pub fn page(&self, page: u64) -> &[u8] {
        let start = PAGE_LEN + index(page) * PAGE_LEN;
        self.memory.bytes().get(start..start + PAGE_LEN).expect("a page of the map")
    }

    /// Whether a page has no set bit. A page behind the end has none.
    pub fn page_is_clean(&self, page: u64) -> bool {
        self.page_counts.get(index(page)).is_none_or(|count| *count == 0)
    }

    /// Sets every bit that is set in `bits`, a page of another map of this resource; says how many
    /// were clear. Bits behind the end of the resource count for nothing.
    pub fn merge_page(&mut self, page: u64, bits: &[u8]) -> u64 {
        let blocks = self.size.block_count();
        let mut newly = 0;
        for (at, word) in (page * WORDS_PER_PAGE..).zip(bits.as_chunks::<8>().0) {
            let inside = match blocks.saturating_sub(at * 64) {
                0 => break,
                left @ 1..64 => (1 << left) - 1,
                _ => u64::MAX,
            };
            newly += self.change_word(at, u64::from_le_bytes(*word) & inside, Change::Set);
        }
        newly
    }

    /// Sets every bit of a page.
    pub(super) fn set_page(&mut self, page: u64) {
        let first = page * BLOCKS_PER_PAGE;
        let end = (first + BLOCKS_PER_PAGE).min(self.size.block_count());
        self.set_range(BlockRange { first, end });
    }

    /// crc32c of a page of bits, for `dirty.sum`.
    pub fn page_sum(&self, page: u64) -> u32 {
        crc32c::crc32c(self.page(page))
    }

    /// The pages that changed since this was asked last: their sums are to be written, once the
    /// map itself is stable.
    pub fn take_changed_pages(&mut self) -> Vec<u64> {
        let mut pages = Vec::new();
        for (at, word) in self.changed.iter_mut().enumerate() {
            let mut left = std::mem::take(word);
            while left != 0 {
                pages.push(at as u64 * 64 + u64::from(left.trailing_zeros()));
                left &= left - 1;
            }
        }
        pages
    }

    /// Whether a page changed since [`DirtyMap::take_changed_pages`].
    pub fn has_changed_pages(&self) -> bool {
        self.changed.iter().any(|word| *word != 0)
    }

    /// The sum of this page in `dirty.sum` does not count.
    pub(super) fn note_changed(&mut self, page: u64) {
        let word = self.changed.get_mut(index(page / 64)).expect("a page of the map");
        *word |= 1 << (page % 64);
    }

    /// Raises the canary and returns it. Before that, the marks of this turn are set; after it, the
    /// copy on the tmpfs is written: so the canary is the copy or one ahead.
    pub fn raise_canary(&mut self) -> u64 {
        let canary = match self.canary() {
            DISTRUSTED => DISTRUSTED,
            canary => (canary + 1) % DISTRUSTED,
        };
        self.set_canary(canary);
        canary
    }

    /// The disk failed, or the header was lost: whatever the next start finds, it counts as a power
    /// loss, since the page cache may have dropped what could not be written. It takes effect at once, whether or not
    /// anything can still be recorded.
    pub fn distrust(&mut self) {
        self.set_canary(DISTRUSTED);
    }

    /// The doubt that [`DirtyMap::distrust`] asked for is on record.
    pub fn trust(&mut self) {
        if self.is_distrusted() {
            self.set_canary(0);
        }
    }

    /// Whether the disk failed in the run that left this map, or its header was made anew.
    pub(super) fn is_distrusted(&self) -> bool {
        self.canary() == DISTRUSTED
    }

    fn set_canary(&mut self, canary: u64) {
        let place = self.memory.bytes_mut().get_mut(CANARY_AT..CANARY_AT + 8);
        place.expect("in the header page").copy_from_slice(&canary.to_le_bytes());
    }

    /// What the canary says.
    pub fn canary(&self) -> u64 {
        u64::from_le_bytes(read_word(self.memory.bytes(), CANARY_AT))
    }

    /// Goes over to `memory`, which holds the same file made longer, for a resource that grew to
    /// `size`. What was marked since that memory was made is taken along, should the two not be one
    /// file. The new part has no marks.
    ///
    /// # Panics
    /// If the resource would shrink or `memory` is too short.
    pub fn grow(&mut self, memory: M, size: ResourceSize) {
        assert!(size >= self.size, "a resource only grows");
        assert!(
            memory.bytes().len() as u64 >= Self::file_len(size),
            "the file is made longer first"
        );
        let ids = KIND.decode(memory.bytes()).expect("the header was read before").ids;
        let mut memory = memory;
        take_along(self.memory.bytes(), Self::file_len(self.size), memory.bytes_mut());
        clear_from(memory.bytes_mut(), self.size.block_count());
        // Only the first sector: the canary is another one's.
        let header = Self::format(size, &ids);
        let (head, _) = header.split_at(CANARY_AT);
        memory.bytes_mut().split_at_mut(CANARY_AT).0.copy_from_slice(head);
        let mut grown = Self::take(memory, size);
        for (new, old) in grown.changed.iter_mut().zip(&self.changed) {
            *new = *old;
        }
        for page in self.page_count()..grown.page_count() {
            grown.note_changed(page);
        }
        *self = grown;
    }

    /// The memory, to make a longer copy of it.
    pub fn memory(&self) -> &M {
        &self.memory
    }

    fn all(&self) -> BlockRange {
        BlockRange { first: 0, end: self.size.block_count() }
    }

    fn check_inside(&self, end: u64) {
        let count = self.size.block_count();
        assert!(end <= count, "block {end} is behind the end of {count} blocks");
    }

    fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(read_word(self.memory.bytes(), PAGE_LEN + index(at) * 8))
    }

    fn change_range(&mut self, blocks: BlockRange, change: Change) -> u64 {
        if blocks.first >= blocks.end {
            return 0;
        }
        self.check_inside(blocks.end);
        let last = (blocks.end - 1) / 64;
        let mut changed = 0;
        for at in blocks.first / 64..=last {
            let from = blocks.first.saturating_sub(at * 64);
            let behind = if at == last { 63 - (blocks.end - 1) % 64 } else { 0 };
            changed += self.change_word(at, u64::MAX << from & u64::MAX >> behind, change);
        }
        changed
    }

    /// The only place where bits change: keeps the counts and the changed pages.
    fn change_word(&mut self, at: u64, mask: u64, change: Change) -> u64 {
        let old = self.word(at);
        let new = match change {
            Change::Set => old | mask,
            Change::Clear => old & !mask,
        };
        if new == old {
            return 0;
        }
        let start = PAGE_LEN + index(at) * 8;
        let place = self.memory.bytes_mut().get_mut(start..start + 8);
        place.expect("a word of the map").copy_from_slice(&new.to_le_bytes());
        let page = at / WORDS_PER_PAGE;
        self.note_changed(page);
        let changed = (new ^ old).count_ones();
        let bits = u16::try_from(changed).expect("a word has 64 bits");
        let page_count = self.page_counts.get_mut(index(page)).expect("a page of the map");
        match change {
            Change::Set => {
                *page_count += bits;
                self.count += u64::from(changed);
            }
            Change::Clear => {
                *page_count -= bits;
                self.count -= u64::from(changed);
            }
        }
        u64::from(changed)
    }
}

/// Only words with set bits are hashed: a model checker does this for every state. The canary only
/// counts up, so it is left out.
impl<M: MapMemory> Hash for DirtyMap<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.size, self.count, &self.changed).hash(state);
        for at in 0..self.page_count() * WORDS_PER_PAGE {
            if !self.page_is_clean(at / WORDS_PER_PAGE) {
                let word = self.word(at);
                if word != 0 {
                    (at, word).hash(state);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Change {
    Set,
    Clear,
}

const KIND: PageKind = PageKind { file: DIRTY_MAP_FILE, magic: *b"HPDIRTY1", unit: BLOCK_LEN };
/// A sector of its own, so that it is never torn together with the header.
const CANARY_AT: usize = 512;
/// A canary that equals no copy.
const DISTRUSTED: u64 = u64::MAX;
const WORDS_PER_PAGE: u64 = PAGE_LEN as u64 / 8;
const BLOCKS_PER_PAGE: u64 = PAGE_LEN as u64 * 8;

/// Pages of bits for a resource of this size.
pub(super) fn pages_of(size: ResourceSize) -> u64 {
    size.block_count().div_ceil(BLOCKS_PER_PAGE)
}

/// Copies the first `len` bytes of `old`, but for what is the same already: pages of a mapping stay
/// clean. The header is left as it is.
fn take_along(old: &[u8], len: u64, new: &mut [u8]) {
    let pages = old.chunks(PAGE_LEN).zip(new.chunks_mut(PAGE_LEN)).take(index(len) / PAGE_LEN);
    for (at, (old, new)) in pages.enumerate() {
        let kept = if at == 0 { CANARY_AT } else { 0 };
        let (old, new) = (old.split_at(kept).1, new.split_at_mut(kept).1);
        if old != new {
            new.copy_from_slice(old);
        }
    }
}

/// Clears every bit of a map file from `block` to the end of the file.
fn clear_from(file: &mut [u8], block: u64) {
    let start = PAGE_LEN + index(block / 8);
    let Some((first, rest)) = file.get_mut(start..).and_then(<[u8]>::split_first_mut) else {
        return;
    };
    let kept = (1 << (block % 8)) - 1;
    // Reading first leaves clean pages of a mapping clean.
    if *first & !kept != 0 {
        *first &= kept;
    }
    for byte in rest.iter_mut().filter(|byte| **byte != 0) {
        *byte = 0;
    }
}

fn read_word(bytes: &[u8], at: usize) -> [u8; 8] {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk).expect("a word of the map");
    *word
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("a map is shorter than the address space")
}
