//! The secrets that heartbeats are sealed with: one from each TLS session of the nodes, kept over
//! restarts of either.
//!
//! Both nodes get the same secret from a session, each adds it to its ring, and each sends with the
//! newest one that the peer has shown in this run. Until the peer has shown one, each tick takes the
//! next of the ring, so one that both have comes up within a ring's length of ticks, and a node that
//! lost its ring is heard again after the next session. The one in use is never forgotten.

use std::collections::VecDeque;

use crate::wire::heartbeat::HeartbeatKey;

/// Secrets that a node remembers.
const KEYS_MAX: usize = 8;
const MAGIC: [u8; 8] = *b"HPBKEYS1";
const SECRET_LEN: usize = 32;
/// Longest ring in bytes: magic, secrets, hash.
pub const RING_LEN_MAX: usize = MAGIC.len() + KEYS_MAX * SECRET_LEN + 32;

/// The secrets of one pair, oldest first.
#[derive(Debug)]
pub struct KeyRing {
    cluster: String,
    keys: VecDeque<(Secret, HeartbeatKey)>,
    /// The newest that the peer has shown.
    shown: Option<HeartbeatKey>,
    /// Sessions of the nodes bring new ones.
    grows: bool,
}

#[derive(Clone, Copy, Eq, PartialEq)]
struct Secret([u8; SECRET_LEN]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl KeyRing {
    /// The ring that was kept as `bytes`; an empty one if those are none.
    pub fn kept(bytes: &[u8], cluster: &str) -> Self {
        let key = |secret: Secret| (secret, HeartbeatKey::new(&secret.0, cluster));
        let keys = read(bytes).unwrap_or_default().into_iter().map(key).collect();
        Self { cluster: cluster.to_owned(), keys, shown: None, grows: true }
    }

    /// Whether there is no secret yet.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Without encryption: whoever knows the names can send, so this keeps pairs apart and no more.
    pub fn in_the_clear(cluster: &str, nodes: [&str; 2]) -> Self {
        let names = format!("{cluster}\n{}\n{}", nodes[0], nodes[1]);
        let secret = Secret(blake3::derive_key("hotpair heartbeat plain v1", names.as_bytes()));
        let key = HeartbeatKey::new(&secret.0, cluster);
        let keys = VecDeque::from([(secret, key)]);
        Self { cluster: cluster.to_owned(), keys, shown: None, grows: false }
    }

    /// The nodes have a new session, from which both know `exporter`. Returns the bytes that are to
    /// be kept, if they have changed.
    pub(super) fn add(&mut self, exporter: &[u8; 32]) -> Option<Vec<u8>> {
        let secret = Secret(blake3::derive_key("hotpair heartbeat secret v1", exporter));
        if !self.grows || self.keys.iter().any(|(known, _)| *known == secret) {
            return None;
        }
        if self.keys.len() == KEYS_MAX {
            let in_use = self.shown.as_ref();
            let oldest = self.keys.iter().position(|(_, key)| Some(key) != in_use);
            self.keys.remove(oldest.unwrap_or(0));
        }
        self.keys.push_back((secret, HeartbeatKey::new(&secret.0, &self.cluster)));
        let mut bytes = MAGIC.to_vec();
        for (Secret(secret), _) in &self.keys {
            bytes.extend_from_slice(secret);
        }
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        Some(bytes)
    }

    /// Every key, by which the peer may have sealed what comes.
    pub(super) fn all(&self) -> impl Iterator<Item = &HeartbeatKey> {
        self.keys.iter().map(|(_, key)| key)
    }

    /// The peer sealed something with this key.
    pub(super) fn note_shown(&mut self, key: &HeartbeatKey) {
        let age = |wanted: &HeartbeatKey| self.keys.iter().position(|(_, key)| key == wanted);
        let is_newer = self.shown.as_ref().is_none_or(|shown| age(key) > age(shown));
        if is_newer {
            self.shown = Some(key.clone());
        }
    }

    /// What this tick is sealed with; `None` before the first session.
    pub(super) fn current(&self, tick: u64) -> Option<&HeartbeatKey> {
        if let Some(shown) = &self.shown {
            return Some(shown);
        }
        // The newest one first.
        let count = u64::try_from(self.keys.len()).expect("at most 8");
        let turn = usize::try_from(tick.checked_rem(count)?).expect("below 8");
        self.keys.iter().rev().nth(turn).map(|(_, key)| key)
    }
}

/// The secrets in the bytes of a ring; `None` if it is none.
fn read(bytes: &[u8]) -> Option<Vec<Secret>> {
    let (content, hash) = bytes.split_last_chunk::<32>()?;
    let (secrets, rest) = content.strip_prefix(&MAGIC)?.as_chunks::<SECRET_LEN>();
    let is_whole = blake3::hash(content) == *hash && rest.is_empty() && secrets.len() <= KEYS_MAX;
    is_whole.then(|| secrets.iter().copied().map(Secret).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(ring: &mut KeyRing, number: u8) -> (HeartbeatKey, Vec<u8>) {
        let bytes = ring.add(&[number; 32]).unwrap();
        (ring.keys.back().unwrap().1.clone(), bytes)
    }

    #[test]
    fn a_ring_outlives_its_process_and_a_damaged_one_is_empty() {
        let mut first = KeyRing::kept(&[], "office");
        assert!(first.current(1).is_none() && first.is_empty());
        let (keys, kept): (Vec<_>, Vec<_>) = (1..=3).map(|number| add(&mut first, number)).unzip();
        assert!(first.add(&[3; 32]).is_none(), "it is known");
        let again = KeyRing::kept(&kept[2], "office");
        assert_eq!(again.all().cloned().collect::<Vec<_>>(), keys);
        // Until the peer shows one, each in turn, the newest first.
        let turns: Vec<_> = (3..6).map(|tick| again.current(tick).unwrap().clone()).collect();
        assert_eq!(turns, [keys[2].clone(), keys[1].clone(), keys[0].clone()]);
        let mut bytes = kept[2].clone();
        bytes[20] ^= 1;
        assert!(KeyRing::kept(&bytes, "office").is_empty());
        for len in 0..kept[2].len() {
            assert!(KeyRing::kept(&kept[2][..len], "office").is_empty());
        }
    }

    #[test]
    fn what_the_peer_shows_is_used_and_never_forgotten() {
        let mut ring = KeyRing::kept(&[], "office");
        let (old, _) = add(&mut ring, 1);
        let (new, _) = add(&mut ring, 2);
        ring.note_shown(&new);
        ring.note_shown(&old);
        assert_eq!(ring.current(9), Some(&new), "the newest that it has shown");
        for number in 3..30 {
            let (_, kept) = add(&mut ring, number);
            assert!(kept.len() <= RING_LEN_MAX);
        }
        assert_eq!(ring.current(9), Some(&new));
        assert_eq!(ring.all().count(), KEYS_MAX);
        assert!(ring.all().any(|key| *key == new));
    }

    #[test]
    fn a_node_that_lost_its_ring_is_heard_after_one_session() {
        let [mut here, mut there] = [(); 2].map(|()| KeyRing::kept(&[], "office"));
        let (common, _) = add(&mut here, 1);
        here.note_shown(&common);
        assert!(there.current(1).is_none());
        let (mine, _) = add(&mut here, 2);
        let (theirs, _) = add(&mut there, 2);
        assert_eq!(mine, theirs);
        // It sends with what it has, which is newer than what was in use.
        here.note_shown(&there.current(1).unwrap().clone());
        assert_eq!(here.current(1), there.current(1));
    }

    #[test]
    fn without_encryption_the_names_make_the_key() {
        let ring = |cluster| KeyRing::in_the_clear(cluster, ["alpha", "beta"]);
        assert_eq!(ring("office").current(1), ring("office").current(2));
        assert_ne!(ring("office").current(1), ring("lab").current(1));
        assert!(ring("office").add(&[1; 32]).is_none());
    }
}
