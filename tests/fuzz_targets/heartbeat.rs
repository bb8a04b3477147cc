//! A datagram of heartbeats, as the peer or somebody in its place may have sent it.

use hotpair::units::{Epoch, Instance, Side};
use hotpair::wire::heartbeat::{
    BeatEntry, BeatHead, DATAGRAM_LEN_MAX, ENTRIES_MAX, HeartbeatKey, Said, Sender, cluster_tag,
    open, seal_beat, seal_release,
};
use hotpair::wire::outdate::{ExchangeEntry, ExchangeHead, seal_reply, seal_request};

const SECRET: [u8; 32] = [7; 32];
const CLUSTER: &str = "office";
const SEAL_LEN: usize = 32;

fn sender(instance: Instance) -> Sender {
    Sender { cluster: cluster_tag(CLUSTER), side: Side::First, instance }
}

pub(crate) fn run(bytes: &[u8]) {
    let key = HeartbeatKey::new(&SECRET, CLUSTER);
    let opened = open(bytes, cluster_tag(CLUSTER), Side::Second, std::iter::once(&key));
    let Ok((datagram, _)) = opened else { return };
    assert!(bytes.len() <= DATAGRAM_LEN_MAX);
    let from = sender(datagram.from);
    match &datagram.said {
        Said::Beat(head, entries) => {
            assert!(entries.len() <= ENTRIES_MAX);
            let again = seal_beat(&key, from, head, entries);
            assert!(again == bytes, "{datagram:?} encodes to other bytes");
        }
        Said::Request(head, entries) => {
            let again = seal_request(&key, from, *head, entries);
            assert!(again == bytes, "{datagram:?} encodes to other bytes");
        }
        Said::Reply(head, entries) => {
            let again = seal_reply(&key, from, *head, entries);
            assert!(again == bytes, "{datagram:?} encodes to other bytes");
        }
        Said::Release(entries) => {
            let again = seal_release(&key, from, entries);
            let opened = open(&again, cluster_tag(CLUSTER), Side::Second, std::iter::once(&key));
            assert_eq!(opened.unwrap().0, datagram);
        }
    }
}

/// Seals what was broken as the peer would, with its key.
pub(crate) fn repair(bytes: &mut [u8]) {
    let Some(len) = bytes.len().checked_sub(SEAL_LEN) else { return };
    let (sealed, seal) = bytes.split_at_mut(len);
    let mut hasher = blake3::Hasher::new_derive_key("hotpair heartbeat v1");
    hasher.update(&SECRET).update(&[0, 1]).update(CLUSTER.as_bytes());
    let key = *hasher.finalize().as_bytes();
    seal.copy_from_slice(blake3::keyed_hash(&key, sealed).as_bytes());
}

pub(crate) fn made() -> Vec<Vec<u8>> {
    let key = HeartbeatKey::new(&SECRET, CLUSTER);
    let from = sender(Instance(5));
    let head = BeatHead { to: Instance(6), tick: 9, heard: 8, mask: 7, ..BeatHead::default() };
    let flags = BeatEntry::WANTS_LEASE | BeatEntry::PRIMARY;
    let (epoch, promised, granted, promotions) = (Epoch(8), Epoch(8), 4, 2);
    let entry = BeatEntry { tag: 3, epoch, promised, granted, flags, promotions };
    let exchange = ExchangeHead { path: 1, to: Instance(6), number: 2 };
    let asked = ExchangeEntry { tag: 3, epoch: Epoch(8), promised: Epoch(8), ask: 1 };
    vec![
        seal_beat(&key, from, &head, &[]),
        seal_beat(&key, from, &head, &[entry; ENTRIES_MAX]),
        seal_release(&key, from, &[(3, Epoch(8)), (4, Epoch(12))]),
        seal_request(&key, from, exchange, &[ExchangeEntry { promised: Epoch(0), ..asked }]),
        seal_reply(&key, from, exchange, &[asked; ENTRIES_MAX]),
    ]
}
