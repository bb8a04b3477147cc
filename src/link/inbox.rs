//! Bytes from the peer, cut into frames.
//!
//! Bytes are read into one buffer; a payload that is not there yet as a whole is read straight
//! into the pooled buffer that it stays in. No length is used before the hash of the header that
//! has it was checked, and nothing is reserved for a frame beyond what its type may have.

use std::io::IoSliceMut;

use crate::units::ResourceSize;
use crate::wire::frame::{HEADER_LEN, Header, Limits, MAGIC, decode, decode_header};
use crate::wire::message::Frame;
use crate::wire::payload::{Buffer, BufferPool};
use crate::wire::{Kind, ProtocolError};

/// The receiving half of a connection, without the connection.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Box<[u8]>,
    /// `bytes[start..end]` was received and not yet taken.
    start: usize,
    end: usize,
    header: Option<Header>,
    payload: Option<Arriving>,
    pool: BufferPool,
    size: ResourceSize,
}

/// A payload of which `filled` bytes are here.
#[derive(Debug)]
struct Arriving {
    buffer: Buffer,
    filled: usize,
}

impl Inbox {
    /// Payloads go into buffers of `pool`, ranges must lie inside `size`.
    pub(super) fn new(pool: BufferPool, size: ResourceSize) -> Self {
        let bytes = vec![0; INBOX_LEN].into_boxed_slice();
        Self { bytes, start: 0, end: 0, header: None, payload: None, pool, size }
    }

    /// From the next frame on, other buffers and another size.
    pub(super) fn adopt(&mut self, pool: BufferPool, size: ResourceSize) {
        self.pool = pool;
        self.size = size;
    }

    /// From the next frame on, ranges must lie inside `size`.
    pub(super) fn set_size(&mut self, size: ResourceSize) {
        self.size = size;
    }

    /// Where bytes from the socket go: first what a payload lacks, then the buffer. Both may be
    /// empty only while a whole frame waits to be taken.
    pub(super) fn room(&mut self) -> [IoSliceMut<'_>; 2] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.bytes.len() - self.end < HEAD_LEN_MAX {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let rest = match &mut self.payload {
            Some(arriving) => &mut arriving.buffer[arriving.filled..],
            None => &mut [],
        };
        [IoSliceMut::new(rest), IoSliceMut::new(&mut self.bytes[self.end..])]
    }

    /// The first `len` bytes of the [room](Self::room) were filled.
    pub(super) fn filled(&mut self, mut len: usize) {
        if let Some(arriving) = &mut self.payload {
            let part = len.min(arriving.buffer.len() - arriving.filled);
            arriving.filled += part;
            len -= part;
        }
        self.end += len;
    }

    /// Type of the next frame, once its header is here.
    ///
    /// # Errors
    /// If the header breaks the protocol.
    pub(super) fn next_kind(&mut self) -> Result<Option<Kind>, ProtocolError> {
        if self.header.is_none() {
            let received = &self.bytes[self.start..self.end];
            let Some(bytes) = received.first_chunk::<HEADER_LEN>() else { return Ok(None) };
            self.header = Some(decode_header(bytes, &Limits { size: self.size })?);
        }
        Ok(self.header.as_ref().map(Header::kind))
    }

    /// The first bytes of what came and is no frame yet, if none of ours begins like that.
    pub(super) fn foreign_start(&self) -> Option<[u8; 4]> {
        let received = &self.bytes[self.start..self.end];
        let found = *received.first_chunk::<4>()?;
        (self.header.is_none() && found != MAGIC).then_some(found)
    }

    /// The next frame, if all of it is here.
    ///
    /// # Errors
    /// If it breaks the protocol; nothing of the connection can be used any more.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, ProtocolError> {
        self.next_kind()?;
        let Some(header) = self.header else { return Ok(None) };
        let body_start = self.start + HEADER_LEN;
        let body_end = body_start + header.body_len();
        if body_end > self.end {
            return Ok(None);
        }
        let payload_len = header.payload_len();
        let mut frame_end = body_end;
        let payload = match self.payload.take() {
            Some(arriving) => Some(arriving),
            None if payload_len == 0 => None,
            None => {
                let mut buffer = self.pool.get(payload_len);
                let filled = payload_len.min(self.end - body_end);
                buffer[..filled].copy_from_slice(&self.bytes[body_end..body_end + filled]);
                if filled == payload_len {
                    frame_end += filled;
                } else {
                    self.end = body_end;
                }
                Some(Arriving { buffer, filled })
            }
        };
        if payload.as_ref().is_some_and(|arriving| arriving.filled < payload_len) {
            self.payload = payload;
            return Ok(None);
        }
        self.header = None;
        let payload = payload.map(|arriving| arriving.buffer.freeze());
        let frame = decode(header, &self.bytes[body_start..body_end], payload, self.size)?;
        self.start = frame_end;
        Ok(Some(frame))
    }
}

/// Longest header and body: so much has to fit in one piece.
const HEAD_LEN_MAX: usize = HEADER_LEN + (64 << 10);

/// Bytes that one system call can bring.
const INBOX_LEN: usize = 256 << 10;
