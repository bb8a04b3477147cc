//! Bytes of users: where they are kept, and the hash that travels with them.
//!
//! They are copied once from a socket or disk into an aligned buffer, hashed once, and from then
//! on shared: nothing here or above it can change them, so what was hashed is what is sent.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// How many buffers of each class a [`BufferPool`] keeps for the next user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PoolLimits {
    /// Of 4 KiB.
    pub small: usize,
    /// Of 64 KiB.
    pub medium: usize,
    /// Of 1 MiB.
    pub large: usize,
}

impl Default for PoolLimits {
    /// 44 MiB: small ones for a full queue of 4 KiB writes, few large ones.
    fn default() -> Self {
        Self { small: 4096, medium: 256, large: 12 }
    }
}

/// Free buffers, shared by all its clones. It never waits and never runs out: what it does not
/// have is allocated, what it has no room for is freed. It limits what is kept, not what is used.
#[derive(Clone)]
pub struct BufferPool {
    shelves: Arc<[Shelf; 3]>,
}

/// Free buffers of one size.
struct Shelf {
    page_count: usize,
    put: Sender<Box<[Page]>>,
    free: Receiver<Box<[Page]>>,
}

impl Shelf {
    fn take(&self) -> Box<[Page]> {
        self.free.try_recv().unwrap_or_else(|_| zeroed(self.page_count))
    }
}

/// The unit of allocation; its alignment is what direct I/O asks for.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_LEN]);

const PAGE_LEN: usize = 4096;

impl BufferPool {
    /// An empty pool that keeps at most as many buffers as `limits` says.
    pub fn new(limits: PoolLimits) -> Self {
        let shelf = |page_count, keep| {
            let (put, free) = crossbeam_channel::bounded(keep);
            Shelf { page_count, put, free }
        };
        Self {
            shelves: Arc::new([
                shelf(1, limits.small),
                shelf(16, limits.medium),
                shelf(256, limits.large),
            ]),
        }
    }

    /// A buffer of `len` bytes. What is in it is unspecified, maybe bytes of an earlier use: fill
    /// all of it before anyone else sees it.
    pub fn get(&self, len: usize) -> Buffer {
        let page_count = len.div_ceil(PAGE_LEN);
        let fitting = self.shelves.iter().find(|shelf| shelf.page_count >= page_count);
        let pages = fitting.map_or_else(|| zeroed(page_count), Shelf::take);
        Buffer { pages, len, home: Some(self.clone()) }
    }

    /// A buffer with a copy of `bytes`.
    pub fn copy_of(&self, bytes: &[u8]) -> Buffer {
        let mut buffer = self.get(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    fn put_back(&self, pages: Box<[Page]>) {
        if let Some(shelf) = self.shelves.iter().find(|shelf| shelf.page_count == pages.len()) {
            // A full shelf hands the buffer back in the error, which frees it.
            drop(shelf.put.try_send(pages));
        }
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shelves.iter().map(|shelf| shelf.put.len())).finish()
    }
}

fn zeroed(page_count: usize) -> Box<[Page]> {
    <[Page]>::new_box_zeroed_with_elems(page_count).expect("memory for a buffer")
}

/// Bytes at a multiple of 4096 that go back to their pool when dropped.
pub struct Buffer {
    pages: Box<[Page]>,
    len: usize,
    home: Option<BufferPool>,
}

impl Buffer {
    /// Ends changing it. The bytes are shared from here on, and the buffer goes back to its pool
    /// with the last of them.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.pages.as_bytes().get(..self.len).expect("allocated at least `len` bytes")
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages.as_mut_bytes().get_mut(..self.len).expect("allocated at least `len` bytes")
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.put_back(std::mem::take(&mut self.pages));
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len)
    }
}

/// Bytes that no longer change, with their BLAKE3. Equal means equal bytes.
#[derive(Clone)]
pub struct Payload {
    bytes: Bytes,
    digest: OnceLock<[u8; 32]>,
}

impl Payload {
    /// Hashes `bytes`.
    pub fn hash(bytes: Bytes) -> Self {
        let digest = OnceLock::from(*blake3::hash(&bytes).as_bytes());
        Self { bytes, digest }
    }

    /// Takes `bytes` if they have the `expected` BLAKE3.
    pub fn check(bytes: Bytes, expected: &[u8; 32]) -> Option<Self> {
        let payload = Self::hash(bytes);
        (payload.digest() == *expected).then_some(payload)
    }

    /// Takes `bytes` whose own hash is wanted by nobody so far, because another one covers them:
    /// that of a frame with a body, or that of their chunk.
    pub fn unhashed(bytes: Bytes) -> Self {
        Self { bytes, digest: OnceLock::new() }
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Their BLAKE3.
    pub fn digest(&self) -> [u8; 32] {
        *self.digest.get_or_init(|| *blake3::hash(&self.bytes).as_bytes())
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Payload {}

impl Hash for Payload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

/// Never the bytes themselves: they belong to users.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> BufferPool {
        BufferPool::new(PoolLimits { small: 2, medium: 1, large: 1 })
    }

    #[test]
    fn a_buffer_is_aligned_and_exactly_as_long_as_asked() {
        for len in [0, 1, 4095, 4096, 4097, 65_536, 65_537, 1 << 20, (1 << 20) + 1] {
            let mut buffer = pool().get(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().addr() % 4096, 0);
            buffer.fill(7);
            assert!(buffer.freeze().iter().all(|&byte| byte == 7));
        }
    }

    #[test]
    fn a_buffer_comes_back_once_nobody_shares_it() {
        let pool = pool();
        let mut buffer = pool.get(5000);
        buffer.fill(1);
        let place = buffer.as_ptr().addr();
        let bytes = buffer.freeze();
        let part = bytes.slice(..10);
        drop(bytes);
        let another = pool.get(5000);
        assert_ne!(another.as_ptr().addr(), place, "it is still shared");
        drop(part);
        assert_eq!(pool.get(5000).as_ptr().addr(), place);
    }

    #[test]
    fn a_pool_keeps_no_more_than_its_limits() {
        let pool = pool();
        drop((0..9).map(|_| [pool.get(1), pool.get(9000), pool.get(99_000)]).collect::<Vec<_>>());
        drop((0..3).map(|_| pool.get(2 << 20)).collect::<Vec<_>>());
        assert_eq!(format!("{pool:?}"), "[2, 1, 1]");
    }

    #[test]
    fn a_payload_is_only_taken_with_its_own_hash() {
        let bytes = Bytes::from_static(b"some bytes");
        let payload = Payload::hash(bytes.clone());
        assert_eq!(payload.digest(), *blake3::hash(&bytes).as_bytes());
        assert_eq!(Payload::check(bytes.clone(), &payload.digest()), Some(payload.clone()));
        assert_eq!(Payload::check(bytes.slice(1..), &payload.digest()), None);
        assert_eq!(Payload::unhashed(bytes).digest(), payload.digest());
    }

    #[test]
    fn bytes_of_users_never_reach_a_log() {
        let payload = Payload::hash(Bytes::from_static(b"secret"));
        assert_eq!(format!("{payload:?}"), "Payload(6 bytes)");
    }
}
