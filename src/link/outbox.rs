//! What waits to be sent, and in which order it goes.
//!
//! Lane 0 first, then 1, then 2; but lane 2 gets one frame after every 1 MiB of lane 1, so that a
//! resync goes on under load. Little is chosen ahead of time: what is chosen cannot be overtaken.
//! Payloads are shared, never copied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes};

use super::error::LinkError;
use crate::wire::message::Lane;

/// Frames waiting by lane, and the slices of those whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lanes: [VecDeque<Queued>; LANES.len()],
    waiting_bytes: [usize; LANES.len()],
    chosen: VecDeque<Bytes>,
    chosen_bytes: usize,
    /// Bytes of lane 1 that went since lane 2 had a turn.
    client_run: usize,
}

/// One encoded frame.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) head: Bytes,
    pub(super) payload: Option<Bytes>,
}

impl Queued {
    fn len(&self) -> usize {
        self.head.len() + self.payload_len()
    }

    fn payload_len(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len)
    }
}

impl Outbox {
    /// Queues a frame behind those of its lane.
    ///
    /// # Errors
    /// [`LinkError::Stalled`] if more waits there than the peer can have granted; the frame is
    /// dropped, as the connection has to be.
    pub(super) fn push(&mut self, lane: Lane, frame: Queued) -> Result<(), LinkError> {
        let queued_bytes = self.waiting_bytes[index(lane)] + frame.len();
        if queued_bytes > LANE_BYTES_MAX[index(lane)] {
            return Err(LinkError::Stalled { lane, queued_bytes });
        }
        self.waiting_bytes[index(lane)] = queued_bytes;
        self.lanes[index(lane)].push_back(frame);
        Ok(())
    }

    /// Bytes that wait, those already chosen included.
    pub(super) fn queued_bytes(&self) -> usize {
        self.chosen_bytes + self.waiting_bytes.iter().sum::<usize>()
    }

    /// Chooses what goes next until there is enough for one system call. Tells `sent` the lane and
    /// payload length of each frame that it chooses.
    pub(super) fn choose(&mut self, mut sent: impl FnMut(Lane, usize)) {
        while self.chosen.len() + 2 <= SLICES_MAX && self.chosen_bytes < CHOSEN_BYTES {
            let Some(lane) = self.next_lane() else { return };
            let frame = self.lanes[index(lane)].pop_front().expect("next_lane found one");
            self.waiting_bytes[index(lane)] -= frame.len();
            self.chosen_bytes += frame.len();
            match lane {
                Lane::Control => {}
                Lane::Client => self.client_run = self.client_run.saturating_add(frame.len()),
                Lane::Resync => self.client_run = 0,
            }
            sent(lane, frame.payload_len());
            self.chosen.push_back(frame.head);
            self.chosen.extend(frame.payload);
        }
    }

    fn next_lane(&self) -> Option<Lane> {
        let has = |lane: Lane| !self.lanes[index(lane)].is_empty();
        if has(Lane::Resync) && self.client_run >= CLIENT_RUN && !has(Lane::Control) {
            return Some(Lane::Resync);
        }
        LANES.into_iter().find(|lane| has(*lane))
    }

    /// What was chosen and is not sent yet, as slices for one system call; empty if nothing is.
    pub(super) fn slices<'a>(&'a self, room: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut count = 0;
        for (slot, bytes) in room.iter_mut().zip(&self.chosen) {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// The first `len` bytes of what was chosen are sent.
    pub(super) fn advance(&mut self, mut len: usize) {
        self.chosen_bytes -= len;
        while len > 0 {
            let first = self.chosen.front_mut().expect("no more is sent than was chosen");
            if first.len() > len {
                first.advance(len);
                return;
            }
            len -= first.len();
            self.chosen.pop_front();
        }
    }
}

/// Slices in one system call.
pub(super) const SLICES_MAX: usize = 64;

/// Enough for one system call, in bytes: as much as the kernel takes before it lets us wait.
const CHOSEN_BYTES: usize = 128 << 10;

/// Bytes of lane 1 after which lane 2 gets a turn.
const CLIENT_RUN: usize = 1 << 20;

/// Most that may wait in a lane, in bytes. The peer's credit keeps lanes 1 and 2 far below it;
/// what it has to answer keeps lane 0 there, unless it asks and never reads.
const LANE_BYTES_MAX: [usize; LANES.len()] = [16 << 20, 128 << 20, 128 << 20];

/// In order of sending.
const LANES: [Lane; 3] = [Lane::Control, Lane::Client, Lane::Resync];

/// Place of a lane in arrays.
pub(super) fn index(lane: Lane) -> usize {
    match lane {
        Lane::Control => 0,
        Lane::Client => 1,
        Lane::Resync => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Queued {
        Queued { head: vec![0; 128].into(), payload: (len > 0).then(|| vec![0; len].into()) }
    }

    fn drain(outbox: &mut Outbox) -> Vec<Lane> {
        let mut order = Vec::new();
        while outbox.queued_bytes() > 0 {
            outbox.choose(|lane, _| order.push(lane));
            outbox.advance(outbox.chosen_bytes);
        }
        order
    }

    #[test]
    fn control_goes_before_clients_and_clients_before_resync() {
        let mut outbox = Outbox::default();
        for lane in [Lane::Resync, Lane::Client, Lane::Control, Lane::Resync, Lane::Control] {
            outbox.push(lane, frame(10)).unwrap();
        }
        let mut wanted = drain(&mut outbox);
        assert_eq!(wanted.len(), 5);
        assert!(wanted.is_sorted(), "{wanted:?}");
        wanted.clear();
    }

    #[test]
    fn resync_gets_one_frame_after_every_mebibyte_of_clients() {
        let mut outbox = Outbox::default();
        for _ in 0..64 {
            outbox.push(Lane::Client, frame(128 << 10)).unwrap();
        }
        for _ in 0..8 {
            outbox.push(Lane::Resync, frame(64 << 10)).unwrap();
        }
        let order = drain(&mut outbox);
        let turns: Vec<_> = order.split(|lane| *lane == Lane::Resync).map(<[_]>::len).collect();
        assert_eq!(turns, [8, 8, 8, 8, 8, 8, 8, 8, 0]);
    }

    #[test]
    fn what_is_chosen_is_finished_before_anything_overtakes_it() {
        let mut outbox = Outbox::default();
        outbox.push(Lane::Resync, frame(1000)).unwrap();
        let mut order = Vec::new();
        outbox.choose(|lane, _| order.push(lane));
        outbox.advance(100);
        outbox.push(Lane::Control, frame(0)).unwrap();
        outbox.choose(|lane, _| order.push(lane));
        assert_eq!(order, [Lane::Resync, Lane::Control]);
        let mut room = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbox.slices(&mut room);
        let lens: Vec<_> = room[..count].iter().map(|slice| slice.len()).collect();
        assert_eq!(lens, [28, 1000, 128]);
    }

    #[test]
    fn every_length_that_was_sent_leaves_the_rest() {
        for sent in 0..=(2 * 128 + 30) {
            let mut outbox = Outbox::default();
            outbox.push(Lane::Client, frame(30)).unwrap();
            outbox.push(Lane::Control, frame(0)).unwrap();
            outbox.choose(|_, _| {});
            outbox.advance(sent);
            let mut room = [IoSlice::new(&[]); SLICES_MAX];
            let count = outbox.slices(&mut room);
            let left: usize = room[..count].iter().map(|slice| slice.len()).sum();
            assert_eq!(left, 2 * 128 + 30 - sent);
            assert_eq!(outbox.queued_bytes(), left);
        }
    }

    #[test]
    fn a_lane_that_is_never_emptied_ends_the_connection_instead_of_the_memory() {
        for lane in LANES {
            let mut outbox = Outbox::default();
            let full = loop {
                if let Err(error) = outbox.push(lane, frame(1 << 20)) {
                    break error;
                }
            };
            assert!(matches!(full, LinkError::Stalled { lane: l, .. } if l == lane), "{full}");
            assert!(outbox.queued_bytes() <= LANE_BYTES_MAX[index(lane)]);
        }
    }
}
