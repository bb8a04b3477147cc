//! Heartbeats: datagrams of a fixed layout, each sealed with a key of its direction.
//!
//! 96 bytes of header, 72 for each resource, 32 of keyed BLAKE3 over everything before; little
//! endian; at most 1,208 bytes, so that no path cuts one in pieces. The seal is checked before
//! anything else is looked at, and what is open afterwards is one of two types: a
//! [`Said::Beat`], or the statement that a run of the node serves nothing more. Source: the design of promotion, 14.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::outdate::{ExchangeEntry, ExchangeHead};
use crate::units::{Epoch, Instance, Side};

/// Length of the header in bytes.
const HEADER_LEN: usize = 96;
/// Length of an entry in bytes.
const ENTRY_LEN: usize = 72;
/// Length of the seal in bytes.
const SEAL_LEN: usize = 32;
/// Most entries in a datagram; further resources travel in further parts of the same tick.
pub const ENTRIES_MAX: usize = 15;
/// Longest datagram in bytes: below 1,232, which every path of IPv6 takes whole.
pub const DATAGRAM_LEN_MAX: usize = HEADER_LEN + ENTRIES_MAX * ENTRY_LEN + SEAL_LEN;

const MAGIC: [u8; 4] = *b"HPB1";
const VERSION: u8 = 1;
const KIND_BEAT: u8 = 0;
const KIND_RELEASE: u8 = 1;
pub(super) const KIND_REQUEST: u8 = 2;
pub(super) const KIND_REPLY: u8 = 3;

/// A secret that both nodes know, and the key of each direction that is made from it.
#[derive(Clone, Eq, PartialEq)]
pub struct HeartbeatKey {
    id: u16,
    /// By the side that sends.
    keys: [[u8; 32]; 2],
}

impl std::fmt::Debug for HeartbeatKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeartbeatKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl HeartbeatKey {
    /// The keys of a cluster. That of one direction opens nothing of the other one, so a datagram
    /// that is sent back is none.
    pub fn new(secret: &[u8; 32], cluster: &str) -> Self {
        let key = |from: u8| {
            let mut hasher = blake3::Hasher::new_derive_key("hotpair heartbeat v1");
            hasher.update(secret).update(&[from, 1 - from]).update(cluster.as_bytes());
            *hasher.finalize().as_bytes()
        };
        let id = blake3::derive_key("hotpair heartbeat key id v1", secret);
        let id = *id.first_chunk().expect("32 bytes have 2");
        Self { id: u16::from_le_bytes(id), keys: [key(0), key(1)] }
    }

    /// What `from` seals with.
    fn of(&self, from: Side) -> &[u8; 32] {
        let [first, second] = &self.keys;
        match from {
            Side::First => first,
            Side::Second => second,
        }
    }

    /// Tells keys apart that a node knows; two may have the same.
    pub fn id(&self) -> u16 {
        self.id
    }
}

/// The number by which datagrams name a cluster.
pub fn cluster_tag(cluster: &str) -> u128 {
    let hash = blake3::derive_key("hotpair cluster tag v1", cluster.as_bytes());
    u128::from_le_bytes(*hash.first_chunk().expect("32 bytes have 16"))
}

/// The number by which datagrams name a resource.
pub fn resource_tag(resource: &str) -> u64 {
    let hash = blake3::derive_key("hotpair resource tag v1", resource.as_bytes());
    u64::from_le_bytes(*hash.first_chunk().expect("32 bytes have 8"))
}

/// What a node says of itself in every tick, on every path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BeatHead {
    /// The path that it is sent on, from 0.
    pub path: u8,
    /// Which part of the tick: resources beyond [`ENTRIES_MAX`] are in further parts.
    pub part: u8,
    /// Hash of the settings that both nodes must have.
    pub config: u32,
    /// The run of the receiver that it is for; 0 if that is not known yet.
    pub to: Instance,
    /// Number of the tick in this run, from 1; the same on all paths.
    pub tick: u64,
    /// The newest tick of the receiver that was heard on this path; 0 if none was.
    pub heard: u64,
    /// Time in microseconds since that was heard.
    pub held_us: u32,
    /// Which of the 32 ticks before that one were heard; bit 0 is the one just before.
    pub mask: u32,
    /// [`BeatHead::ARBITER_REACHABLE`], [`BeatHead::TILT`], [`BeatHead::LEAVING`].
    pub flags: u32,
}

impl BeatHead {
    /// The arbiter answers.
    pub const ARBITER_REACHABLE: u32 = 1;
    /// The node did not run for a while, or its clocks moved apart.
    pub const TILT: u32 = 2;
    /// The daemon stops.
    pub const LEAVING: u32 = 4;
    const FLAGS: u32 = 7;
}

/// What a node says of one resource.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct BeatEntry {
    /// Which resource: [`resource_tag`].
    pub tag: u64,
    /// Its epoch.
    pub epoch: Epoch,
    /// What it promised to follow nobody below of.
    pub promised: Epoch,
    /// The newest tick of the receiver whose request for a lease this grants; 0 if none is granted.
    pub granted: u64,
    /// A combination of the flags below.
    pub flags: u32,
    /// One more than the automatic promotions that count, by what this node knows; 0 if it has not
    /// heard of the receiver since its start, so that it may have forgotten some.
    pub promotions: u8,
}

impl BeatEntry {
    /// It asks for a lease.
    pub const WANTS_LEASE: u32 = 1;
    /// It has vetoed itself.
    pub const VETO: u32 = 2;
    /// It acknowledges alone.
    pub const SOLO: u32 = 4;
    /// Nobody serves before an operator says so.
    pub const STOPPED: u32 = 8;
    /// Two histories.
    pub const SPLIT: u32 = 16;
    /// It is primary.
    pub const PRIMARY: u32 = 32;
    /// Its copy is up-to-date.
    pub const UP_TO_DATE: u32 = 64;
    const FLAGS: u32 = 127;
}

/// A datagram that was sealed by the peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Datagram {
    /// The run that sent it.
    pub from: Instance,
    /// What it says.
    pub said: Said,
}

/// See [`Datagram`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// The node lives.
    Beat(BeatHead, Vec<BeatEntry>),
    /// The run that is named as the sender serves nothing more of each resource, at any epoch up to
    /// this one. That stays true for ever, so it has neither tick nor receiver.
    Release(Vec<(u64, Epoch)>),
    /// The receiver is to veto itself.
    Request(ExchangeHead, Vec<ExchangeEntry>),
    /// The sender has vetoed itself, as it was asked to.
    Reply(ExchangeHead, Vec<ExchangeEntry>),
}

/// Why bytes are no datagram of the peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DatagramError {
    /// Too short or too long for any.
    #[error("a datagram of {0} bytes")]
    Length(usize),
    /// No key with that number.
    #[error("a datagram with the key {0:04x}, which is not known")]
    UnknownKey(u16),
    /// It was made or changed by somebody without the key, or comes back to its sender.
    #[error("a datagram that is not sealed by the peer")]
    Seal,
    /// Sealed, and not what this release or this cluster says.
    #[error("a datagram with {0}")]
    Value(&'static str),
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct HeaderLayout {
    magic: [u8; 4],
    version: u8,
    kind: u8,
    key: U16,
    cluster: U128,
    source: u8,
    destination: u8,
    path: u8,
    entries: u8,
    config: U32,
    from: U64,
    to: U64,
    tick: U64,
    heard: U64,
    held_us: U32,
    mask: U32,
    flags: U32,
    reserved: [u8; 12],
    part: u8,
    reserved_too: [u8; 7],
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct EntryLayout {
    tag: U64,
    epoch: U64,
    promised: U64,
    granted: U64,
    flags: U32,
    reserved: [u8; 7],
    promotions: u8,
    reserved_too: [u8; 28],
}

const _: () = assert!(size_of::<HeaderLayout>() == HEADER_LEN);
const _: () = assert!(size_of::<EntryLayout>() == ENTRY_LEN);

/// Who sends, and in which cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sender {
    /// See [`cluster_tag`].
    pub cluster: u128,
    /// Its place in the pair.
    pub side: Side,
    /// Its run.
    pub instance: Instance,
}

/// A beat, ready to be sent.
///
/// # Panics
/// If there are more than [`ENTRIES_MAX`] entries.
pub fn seal_beat(
    key: &HeartbeatKey,
    sender: Sender,
    head: &BeatHead,
    entries: &[BeatEntry],
) -> Vec<u8> {
    seal_entries(key, sender, KIND_BEAT, head, entries)
}

/// What has the layout of a beat.
pub(super) fn seal_entries(
    key: &HeartbeatKey,
    sender: Sender,
    kind: u8,
    head: &BeatHead,
    entries: &[BeatEntry],
) -> Vec<u8> {
    let layouts = entries.iter().map(|entry| EntryLayout {
        tag: entry.tag.into(),
        epoch: entry.epoch.0.into(),
        promised: entry.promised.0.into(),
        granted: entry.granted.into(),
        flags: entry.flags.into(),
        reserved: [0; 7],
        promotions: entry.promotions,
        reserved_too: [0; 28],
    });
    seal(key, sender, kind, head, layouts)
}

/// The statement that this run serves nothing more, ready to be sent by somebody without a key.
///
/// # Panics
/// If there are more than [`ENTRIES_MAX`] entries.
pub fn seal_release(key: &HeartbeatKey, sender: Sender, entries: &[(u64, Epoch)]) -> Vec<u8> {
    let layouts = entries.iter().map(|(tag, epoch)| EntryLayout {
        tag: (*tag).into(),
        epoch: epoch.0.into(),
        promised: 0.into(),
        granted: 0.into(),
        flags: 0.into(),
        reserved: [0; 7],
        promotions: 0,
        reserved_too: [0; 28],
    });
    seal(key, sender, KIND_RELEASE, &BeatHead::default(), layouts)
}

fn seal(
    key: &HeartbeatKey,
    sender: Sender,
    kind: u8,
    head: &BeatHead,
    entries: impl ExactSizeIterator<Item = EntryLayout>,
) -> Vec<u8> {
    let count = entries.len();
    assert!(count <= ENTRIES_MAX, "{count} entries do not fit into a datagram");
    let header = HeaderLayout {
        magic: MAGIC,
        version: VERSION,
        kind,
        key: key.id.into(),
        cluster: sender.cluster.into(),
        source: side_number(sender.side),
        destination: side_number(sender.side.other()),
        path: head.path,
        entries: u8::try_from(count).expect("at most 15"),
        config: head.config.into(),
        from: sender.instance.0.into(),
        to: head.to.0.into(),
        tick: head.tick.into(),
        heard: head.heard.into(),
        held_us: head.held_us.into(),
        mask: head.mask.into(),
        flags: head.flags.into(),
        reserved: [0; 12],
        part: head.part,
        reserved_too: [0; 7],
    };
    let mut bytes = Vec::with_capacity(DATAGRAM_LEN_MAX);
    bytes.extend_from_slice(header.as_bytes());
    for entry in entries {
        bytes.extend_from_slice(entry.as_bytes());
    }
    let seal = blake3::keyed_hash(key.of(sender.side), &bytes);
    bytes.extend_from_slice(seal.as_bytes());
    bytes
}

fn side_number(side: Side) -> u8 {
    match side {
        Side::First => 0,
        Side::Second => 1,
    }
}

/// Opens a datagram of the peer of `me`, and says which of `keys` it was sealed with.
///
/// # Errors
/// [`DatagramError`] says why it is none. Nothing of it was believed then.
pub fn open<'a>(
    bytes: &[u8],
    cluster: u128,
    me: Side,
    keys: impl Iterator<Item = &'a HeartbeatKey>,
) -> Result<(Datagram, &'a HeartbeatKey), DatagramError> {
    let length = DatagramError::Length(bytes.len());
    if bytes.len() > DATAGRAM_LEN_MAX {
        return Err(length);
    }
    let (sealed, seal) = bytes.split_last_chunk::<SEAL_LEN>().ok_or(length)?;
    let (header, rest) = HeaderLayout::read_from_prefix(sealed).map_err(|_| length)?;
    let id = header.key.get();
    let mut is_known = false;
    let is_sealed_with = |key: &&HeartbeatKey| {
        // BLAKE3's comparison takes the same time wherever the two differ.
        blake3::keyed_hash(key.of(me.other()), sealed) == *seal
    };
    let mut candidates = keys.filter(|key| key.id == id).inspect(|_| is_known = true);
    let found = candidates.find(is_sealed_with);
    drop(candidates);
    let Some(key) = found else {
        return Err(if is_known { DatagramError::Seal } else { DatagramError::UnknownKey(id) });
    };
    Ok((read(&header, rest, cluster, me)?, key))
}

fn read(
    header: &HeaderLayout,
    rest: &[u8],
    cluster: u128,
    me: Side,
) -> Result<Datagram, DatagramError> {
    let wrong = |what| Err(DatagramError::Value(what));
    if header.magic != MAGIC || header.version != VERSION {
        return wrong("another version");
    }
    if header.cluster.get() != cluster {
        return wrong("another cluster");
    }
    let sides = (header.source, header.destination);
    if sides != (side_number(me.other()), side_number(me)) {
        return wrong("other nodes");
    }
    let is_reserved = header.reserved == [0; 12] && header.reserved_too == [0; 7];
    let count = usize::from(header.entries);
    if !is_reserved || count > ENTRIES_MAX || rest.len() != count * ENTRY_LEN {
        return wrong("another layout");
    }
    let from = Instance(header.from.get());
    if from.0 == 0 {
        return wrong("no run");
    }
    let (chunks, _) = rest.as_chunks::<ENTRY_LEN>();
    let entries = chunks.iter().map(|chunk| -> EntryLayout { zerocopy::transmute!(*chunk) });
    let said = match header.kind {
        KIND_BEAT | KIND_REQUEST | KIND_REPLY => {
            let head = BeatHead {
                path: header.path,
                part: header.part,
                config: header.config.get(),
                to: Instance(header.to.get()),
                tick: header.tick.get(),
                heard: header.heard.get(),
                held_us: header.held_us.get(),
                mask: header.mask.get(),
                flags: header.flags.get(),
            };
            if head.tick == 0 || head.flags & !BeatHead::FLAGS != 0 {
                return wrong("a header that cannot be");
            }
            let mut all = Vec::with_capacity(count);
            for entry in entries {
                all.push(
                    read_entry(&entry).ok_or(DatagramError::Value("an entry that cannot be"))?,
                );
            }
            if header.kind == KIND_BEAT {
                Said::Beat(head, all)
            } else {
                let said = super::outdate::read(header.kind, &head, &all);
                said.ok_or(DatagramError::Value("a request or reply that cannot be"))?
            }
        }
        KIND_RELEASE => {
            let all = entries.map(|entry| (entry.tag.get(), Epoch(entry.epoch.get())));
            Said::Release(all.collect())
        }
        _ => return wrong("another type"),
    };
    Ok(Datagram { from, said })
}

fn read_entry(entry: &EntryLayout) -> Option<BeatEntry> {
    let flags = entry.flags.get();
    let is_reserved = entry.reserved == [0; 7] && entry.reserved_too == [0; 28];
    let may_be = is_reserved && flags & !BeatEntry::FLAGS == 0;
    may_be.then(|| BeatEntry {
        tag: entry.tag.get(),
        epoch: Epoch(entry.epoch.get()),
        promised: Epoch(entry.promised.get()),
        granted: entry.granted.get(),
        flags,
        promotions: entry.promotions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: u128 = 7;

    fn sender(side: Side) -> Sender {
        Sender { cluster: CLUSTER, side, instance: Instance(5) }
    }

    fn key() -> HeartbeatKey {
        HeartbeatKey::new(&[9; 32], "office")
    }

    fn entry(tag: u64) -> BeatEntry {
        let flags = BeatEntry::WANTS_LEASE | BeatEntry::PRIMARY;
        let (epoch, promised, granted, promotions) = (Epoch(8), Epoch(8), 12, 3);
        BeatEntry { tag, epoch, promised, granted, flags, promotions }
    }

    fn head() -> BeatHead {
        let (to, tick, heard) = (Instance(6), 13, 12);
        BeatHead { path: 1, part: 0, config: 3, to, tick, heard, held_us: 40, mask: 5, flags: 1 }
    }

    fn beat() -> Vec<u8> {
        seal_beat(&key(), sender(Side::First), &head(), &[entry(1), entry(2)])
    }

    fn opened(bytes: &[u8], me: Side) -> Result<Datagram, DatagramError> {
        open(bytes, CLUSTER, me, [key()].iter()).map(|(datagram, _)| datagram)
    }

    #[test]
    fn what_is_sealed_is_opened_by_the_other_end_only() {
        let expected = Said::Beat(head(), vec![entry(1), entry(2)]);
        let expected = Datagram { from: Instance(5), said: expected };
        assert_eq!(opened(&beat(), Side::Second), Ok(expected));
        assert_eq!(opened(&beat(), Side::First), Err(DatagramError::Seal), "reflected");
        let release = seal_release(&key(), sender(Side::Second), &[(1, Epoch(8))]);
        let expected = Datagram { from: Instance(5), said: Said::Release(vec![(1, Epoch(8))]) };
        assert_eq!(opened(&release, Side::First), Ok(expected));
    }

    /// The peer may run another release: what is sent today is read tomorrow.
    #[test]
    fn the_layout_is_the_documented_one() {
        let hash = blake3::hash(&beat()).to_hex();
        assert_eq!(&hash[..16], "d4d9418d821c37eb", "bytes of version 1 have changed");
        // A release that counts no promotions leaves a zero there.
        let entries = [1, 2].map(|tag| BeatEntry { promotions: 0, ..entry(tag) });
        let older = seal_beat(&key(), sender(Side::First), &head(), &entries);
        assert_eq!(&blake3::hash(&older).to_hex()[..16], "16413cc804e30a96");
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_is_taken_for_a_datagram() {
        let bytes = beat();
        for len in 0..bytes.len() {
            assert!(opened(&bytes[..len], Side::Second).is_err(), "{len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(opened(&flipped, Side::Second).is_err(), "bit {bit}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(opened(&longer, Side::Second).is_err());
    }

    #[test]
    fn other_secrets_other_clusters_and_other_names_open_nothing() {
        let other_secret = HeartbeatKey::new(&[8; 32], "office");
        let other_name = HeartbeatKey::new(&[9; 32], "lab");
        let open_with = |key: &HeartbeatKey, cluster| {
            open(&beat(), cluster, Side::Second, std::iter::once(key)).map(|_| ())
        };
        assert!(matches!(open_with(&other_secret, CLUSTER), Err(DatagramError::UnknownKey(_))));
        assert_eq!(open_with(&other_name, CLUSTER), Err(DatagramError::Seal));
        assert_eq!(open_with(&key(), 8), Err(DatagramError::Value("another cluster")));
        assert_eq!(open_with(&key(), CLUSTER), Ok(()));
    }

    #[test]
    fn a_full_datagram_fits_into_every_path() {
        let entries = [entry(3); ENTRIES_MAX];
        let bytes = seal_beat(&key(), sender(Side::First), &head(), &entries);
        assert_eq!(bytes.len(), DATAGRAM_LEN_MAX);
        const { assert!(DATAGRAM_LEN_MAX <= 1232) };
        assert!(opened(&bytes, Side::Second).is_ok());
    }

    #[test]
    fn sealed_nonsense_is_refused() {
        let sealed_with = |change: &dyn Fn(&mut HeaderLayout)| {
            let bytes = beat();
            let (mut header, rest) = HeaderLayout::read_from_prefix(&bytes).unwrap();
            change(&mut header);
            let mut bytes = header.as_bytes().to_vec();
            bytes.extend_from_slice(&rest[..rest.len() - SEAL_LEN]);
            let seal = blake3::keyed_hash(&key().keys[0], &bytes);
            bytes.extend_from_slice(seal.as_bytes());
            opened(&bytes, Side::Second)
        };
        assert!(sealed_with(&|_| ()).is_ok());
        let changes: [&dyn Fn(&mut HeaderLayout); 8] = [
            &|header| header.version = 2,
            &|header| header.kind = 9,
            &|header| header.entries = 1,
            &|header| header.entries = 200,
            &|header| header.tick = 0.into(),
            &|header| header.from = 0.into(),
            &|header| header.flags = 8.into(),
            &|header| header.reserved[3] = 1,
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let refused = sealed_with(change);
            assert!(matches!(refused, Err(DatagramError::Value(_))), "{number}: {refused:?}");
        }
    }
}
