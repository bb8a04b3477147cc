//! Replies on their way to one client.
//!
//! Heads and short replies share one buffer, data is attached without a copy, and all of it leaves
//! in as few system calls as the socket allows.

use std::collections::VecDeque;
use std::io::{self, IoSlice};

use bytes::{Buf, Bytes};

use super::socket::Transferred;

/// Most pieces handed to the kernel at once.
const SLICES_MAX: usize = 64;
/// Beyond this many sent bytes the buffer of heads is moved up, although some are unsent.
const HEADS_SENT_MAX: usize = 64 << 10;

/// What was not sent yet, in order.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    heads: Vec<u8>,
    /// How much of `heads` is sent.
    heads_sent: usize,
    pieces: VecDeque<Piece>,
    /// How much of all pieces is unsent, in bytes.
    len: u64,
}

#[derive(Debug)]
enum Piece {
    /// As many bytes of `heads`, behind those of the pieces before.
    Heads(usize),
    Data(Bytes),
}

impl Outbound {
    /// Unsent bytes.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends what `put` writes.
    pub(super) fn push_head(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        let before = self.heads.len();
        put(&mut self.heads);
        let added = self.heads.len() - before;
        self.len += u64::try_from(added).expect("a length fits 64 bits");
        if let Some(Piece::Heads(len)) = self.pieces.back_mut() {
            *len += added;
        } else if added > 0 {
            self.pieces.push_back(Piece::Heads(added));
        }
    }

    /// Appends `data`.
    pub(super) fn push_data(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.len += u64::try_from(data.len()).expect("a length fits 64 bits");
            self.pieces.push_back(Piece::Data(data));
        }
    }

    /// Calls `send` with the front of what is unsent, and takes off as much as was sent.
    pub(super) fn send(
        &mut self,
        send: impl FnOnce(&[IoSlice<'_>]) -> io::Result<Transferred>,
    ) -> io::Result<Transferred> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut head_at = self.heads_sent;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            let bytes = match piece {
                Piece::Heads(len) => {
                    let bytes = &self.heads[head_at..head_at + len];
                    head_at += len;
                    bytes
                }
                Piece::Data(data) => data,
            };
            *slice = IoSlice::new(bytes);
            count += 1;
        }
        let transferred = send(&slices[..count])?;
        self.advance(transferred.count);
        Ok(transferred)
    }

    fn advance(&mut self, mut sent: usize) {
        self.len -= u64::try_from(sent).expect("a length fits 64 bits");
        while sent > 0 {
            let Some(piece) = self.pieces.front_mut() else {
                unreachable!("no more was sent than was offered");
            };
            let (now, is_done) = match piece {
                Piece::Heads(len) => {
                    let now = sent.min(*len);
                    self.heads_sent += now;
                    *len -= now;
                    (now, *len == 0)
                }
                Piece::Data(data) => {
                    let now = sent.min(data.len());
                    data.advance(now);
                    (now, data.is_empty())
                }
            };
            sent -= now;
            if is_done {
                self.pieces.pop_front();
            }
        }
        if self.heads_sent == self.heads.len() {
            self.heads.clear();
            self.heads_sent = 0;
        } else if self.heads_sent > HEADS_SENT_MAX {
            self.heads.drain(..self.heads_sent);
            self.heads_sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_leaves_in_order_whatever_a_send_takes() {
        for step in 1..40 {
            let mut outbound = Outbound::default();
            let mut expected = Vec::new();
            for round in 0..20_u8 {
                outbound.push_head(|out| out.extend_from_slice(&[round, 1, 2]));
                expected.extend_from_slice(&[round, 1, 2]);
                if round % 3 == 0 {
                    outbound.push_data(Bytes::from(vec![round; 7]));
                    expected.extend_from_slice(&[round; 7]);
                }
            }
            let mut got = Vec::new();
            while !outbound.is_empty() {
                let send = |slices: &[IoSlice<'_>]| {
                    let all: Vec<u8> =
                        slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                    let now = step.min(all.len());
                    got.extend_from_slice(&all[..now]);
                    Ok(Transferred { count: now, room: all.len() })
                };
                outbound.send(send).unwrap();
            }
            assert_eq!(got, expected);
            assert!(outbound.heads.is_empty() && outbound.pieces.is_empty());
        }
    }
}
