//! Bytes of one client on their way in: a small buffer for headers, and payloads that go straight
//! to where they stay.
//!
//! One read takes as many requests as the client has sent. What of a payload is in the small
//! buffer by then is copied out of it, the rest is read by the kernel into its own buffer together
//! with the headers behind it.

use std::io::{self, IoSliceMut};

use super::socket::Transferred;
use crate::units::ByteRange;
use crate::wire::{Buffer, BufferPool, Payload};

/// Length of the buffer for headers, in bytes: 16 writes of 4 KiB fit.
const BUFFER_LEN: usize = 128 << 10;
/// Longest part of a payload; parts are cut at multiples of it. Source: `wire`, a frame carries
/// one part.
pub(super) const PART_LEN: u64 = crate::replica::PART_LEN_MAX;

/// Received and not yet taken bytes.
#[derive(Debug)]
pub(super) struct Inbound {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Inbound {
    /// Begins with what was already read.
    pub(super) fn new(early: &[u8]) -> Self {
        let mut buffer = vec![0; BUFFER_LEN.max(early.len())].into_boxed_slice();
        buffer[..early.len()].copy_from_slice(early);
        Self { buffer, start: 0, end: early.len() }
    }

    /// The first `N` bytes, if there are as many.
    pub(super) fn peek<const N: usize>(&self) -> Option<&[u8; N]> {
        self.buffer[self.start..self.end].first_chunk()
    }

    /// Takes at most `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> &[u8] {
        let from = self.start;
        self.start = self.end.min(from + len);
        &self.buffer[from..self.start]
    }

    /// Calls `read` with the places for what comes next: `first`, then the small buffer.
    pub(super) fn fill(
        &mut self,
        first: &mut [u8],
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> io::Result<Transferred>,
    ) -> io::Result<Transferred> {
        self.make_room();
        let wanted = first.len();
        let spare = &mut self.buffer[self.end..];
        let transferred = if wanted == 0 {
            read(&mut [IoSliceMut::new(spare)])?
        } else {
            read(&mut [IoSliceMut::new(first), IoSliceMut::new(spare)])?
        };
        self.end += transferred.count.saturating_sub(wanted);
        Ok(transferred)
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }
}

/// The payload of one write while it arrives.
#[derive(Debug)]
pub(super) struct Arriving {
    range: ByteRange,
    parts: Vec<Payload>,
    /// The part that arrives; `None` before its first byte and behind the last part.
    current: Option<Buffer>,
    /// Bytes of `current` that are there.
    filled: usize,
    /// Where the part behind `current` starts.
    next: u64,
}

impl Arriving {
    /// Begins the payload of a write to `range`.
    pub(super) fn new(range: ByteRange) -> Self {
        let count = part_count(range.start(), range.len());
        let parts = Vec::with_capacity(usize::try_from(count).expect("33 parts at most"));
        Self { range, parts, current: None, filled: 0, next: range.start() }
    }

    /// Where its next bytes go; empty when all are there.
    pub(super) fn missing(&mut self, pool: &BufferPool) -> &mut [u8] {
        if self.current.is_none() && self.next < self.range.end() {
            let end = self.range.end().min((self.next / PART_LEN + 1) * PART_LEN);
            let len = usize::try_from(end - self.next).expect("a part is at most 1 MiB");
            self.current = Some(pool.get(len));
            self.next = end;
        }
        self.current.as_mut().map_or(&mut [], |part| &mut part[self.filled..])
    }

    /// Notes that the first `count` of the [`missing`](Self::missing) bytes are there.
    pub(super) fn note(&mut self, count: usize) {
        self.filled += count;
    }

    /// How much of it is there.
    pub(super) fn progress(&mut self) -> Progress {
        let Some(part) = self.current.take_if(|part| part.len() == self.filled) else {
            return Progress::PartMissing;
        };
        self.filled = 0;
        self.parts.push(Payload::hash(part.freeze()));
        if self.next < self.range.end() {
            return Progress::PartDone;
        }
        Progress::Whole(std::mem::take(&mut self.parts))
    }
}

/// How much of a payload is there.
#[derive(Debug)]
pub(super) enum Progress {
    /// Bytes of the part that arrives are missing.
    PartMissing,
    /// A part is whole, others are missing.
    PartDone,
    /// All parts.
    Whole(Vec<Payload>),
}

/// Number of parts of a write of `len` bytes at `start`.
pub(super) fn part_count(start: u64, len: u64) -> u64 {
    start.saturating_add(len).div_ceil(PART_LEN).saturating_sub(start / PART_LEN)
}
