//! Requests and replies beside the beats: "veto yourself", and that it is done.
//!
//! They have the layout of a beat, with a type of their own, and what they do not need is zero. In the
//! header the number of a datagram stands where a beat has its tick: it counts the requests and replies
//! of a run, the same on all paths. In an entry the number of the ask stands where a beat has the tick
//! that it grants: a reply counts for that ask of that run and for no other.

use super::heartbeat::{
    BeatEntry, BeatHead, HeartbeatKey, KIND_REPLY, KIND_REQUEST, Said, Sender, seal_entries,
};
use crate::units::{Epoch, Instance};

/// Header of a request or reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExchangeHead {
    /// The path that it is sent on, from 0.
    pub path: u8,
    /// The run that it is for.
    pub to: Instance,
    /// Counts requests and replies of the sender's run, from 1.
    pub number: u64,
}

/// One resource in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ExchangeEntry {
    /// Which resource.
    pub tag: u64,
    /// The epoch of the primary that asks.
    pub epoch: Epoch,
    /// In a reply: the epoch below which the sender follows nobody. In a request zero.
    pub promised: Epoch,
    /// Which ask of the primary's run; not 0.
    pub ask: u64,
}

impl ExchangeEntry {
    fn of_beat(self) -> BeatEntry {
        let Self { tag, epoch, promised, ask } = self;
        BeatEntry { tag, epoch, promised, granted: ask, ..BeatEntry::default() }
    }

    fn read(entry: &BeatEntry, is_reply: bool) -> Option<Self> {
        let BeatEntry { tag, epoch, promised, granted: ask, .. } = *entry;
        let it = Self { tag, epoch, promised, ask };
        let may_be = ask != 0 && epoch != Epoch(0) && (is_reply || promised == Epoch(0));
        (may_be && it.of_beat() == *entry).then_some(it)
    }
}

/// Asks the receiver to veto itself, ready to be sent.
///
/// # Panics
/// If there are more than [`super::heartbeat::ENTRIES_MAX`] entries.
pub fn seal_request(
    key: &HeartbeatKey,
    sender: Sender,
    head: ExchangeHead,
    entries: &[ExchangeEntry],
) -> Vec<u8> {
    seal(key, sender, KIND_REQUEST, head, entries)
}

/// Says that the veto of the sender is stable, ready to be sent.
///
/// # Panics
/// As [`seal_request`].
pub fn seal_reply(
    key: &HeartbeatKey,
    sender: Sender,
    head: ExchangeHead,
    entries: &[ExchangeEntry],
) -> Vec<u8> {
    seal(key, sender, KIND_REPLY, head, entries)
}

fn seal(
    key: &HeartbeatKey,
    sender: Sender,
    kind: u8,
    head: ExchangeHead,
    entries: &[ExchangeEntry],
) -> Vec<u8> {
    let ExchangeHead { path, to, number } = head;
    let head = BeatHead { path, to, tick: number, ..BeatHead::default() };
    let entries: Vec<_> = entries.iter().map(|entry| entry.of_beat()).collect();
    seal_entries(key, sender, kind, &head, &entries)
}

/// What header and entries of such a datagram say; `None` if they cannot be.
pub(super) fn read(kind: u8, head: &BeatHead, entries: &[BeatEntry]) -> Option<Said> {
    let BeatHead { path, to, tick: number, .. } = *head;
    let is_bare = *head == BeatHead { path, to, tick: number, ..BeatHead::default() };
    if !is_bare || to.0 == 0 || entries.is_empty() {
        return None;
    }
    let is_reply = kind == KIND_REPLY;
    let all = entries.iter().map(|entry| ExchangeEntry::read(entry, is_reply));
    let all = all.collect::<Option<Vec<_>>>()?;
    let head = ExchangeHead { path, to, number };
    Some(if is_reply { Said::Reply(head, all) } else { Said::Request(head, all) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Side;
    use crate::wire::heartbeat::{Datagram, DatagramError, open, seal_beat};

    fn key() -> HeartbeatKey {
        HeartbeatKey::new(&[9; 32], "office")
    }

    const SENDER: Sender = Sender { cluster: 7, side: Side::First, instance: Instance(5) };
    const HEAD: ExchangeHead = ExchangeHead { path: 1, to: Instance(6), number: 3 };

    fn entry(promised: u64) -> ExchangeEntry {
        ExchangeEntry { tag: 4, epoch: Epoch(8), promised: Epoch(promised), ask: 2 }
    }

    fn opened(bytes: &[u8], me: Side) -> Result<Datagram, DatagramError> {
        open(bytes, 7, me, [key()].iter()).map(|(datagram, _)| datagram)
    }

    #[test]
    fn a_request_and_its_reply_are_opened_by_the_other_end_only() {
        let request = seal_request(&key(), SENDER, HEAD, &[entry(0)]);
        let said = Said::Request(HEAD, vec![entry(0)]);
        assert_eq!(opened(&request, Side::Second), Ok(Datagram { from: Instance(5), said }));
        assert_eq!(opened(&request, Side::First), Err(DatagramError::Seal), "reflected");
        let reply = seal_reply(&key(), SENDER, HEAD, &[entry(8)]);
        let said = Said::Reply(HEAD, vec![entry(8)]);
        assert_eq!(opened(&reply, Side::Second), Ok(Datagram { from: Instance(5), said }));
        let hash = blake3::hash(&[request, reply].concat()).to_hex();
        assert_eq!(&hash[..16], "c4e84623a401ab1c", "bytes of version 1 have changed");
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_is_taken_for_one() {
        for bytes in [
            seal_request(&key(), SENDER, HEAD, &[entry(0)]),
            seal_reply(&key(), SENDER, HEAD, &[entry(8)]),
        ] {
            for len in 0..bytes.len() {
                assert!(opened(&bytes[..len], Side::Second).is_err(), "{len} bytes");
            }
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(opened(&flipped, Side::Second).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn sealed_nonsense_is_refused() {
        let refused =
            |bytes: &[u8]| matches!(opened(bytes, Side::Second), Err(DatagramError::Value(_)));
        let request = |head: ExchangeHead, entries: &[ExchangeEntry]| {
            seal_request(&key(), SENDER, head, entries)
        };
        assert!(!refused(&request(HEAD, &[entry(0)])));
        assert!(refused(&request(HEAD, &[])), "about nothing");
        assert!(refused(&request(HEAD, &[entry(8)])), "a request promises nothing");
        assert!(refused(&request(ExchangeHead { to: Instance(0), ..HEAD }, &[entry(0)])));
        assert!(refused(&request(ExchangeHead { number: 0, ..HEAD }, &[entry(0)])));
        let no_ask = ExchangeEntry { ask: 0, ..entry(0) };
        let no_epoch = ExchangeEntry { epoch: Epoch(0), ..entry(0) };
        assert!(refused(&request(HEAD, &[no_ask])) && refused(&request(HEAD, &[no_epoch])));
        // What only a beat has.
        let head = BeatHead { to: Instance(6), tick: 3, heard: 1, ..BeatHead::default() };
        let beat = [entry(0).of_beat()];
        assert!(refused(&seal_entries(&key(), SENDER, KIND_REQUEST, &head, &beat)));
        let flags = BeatEntry { flags: BeatEntry::VETO, ..entry(0).of_beat() };
        let head = BeatHead { heard: 0, ..head };
        assert!(refused(&seal_entries(&key(), SENDER, KIND_REPLY, &head, &[flags])));
        assert!(!refused(&seal_beat(&key(), SENDER, &head, &[flags])));
    }
}
