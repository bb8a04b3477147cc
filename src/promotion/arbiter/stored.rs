//! The record of one resource as it lies on a witness's disk.
//!
//! Two slots, written alternately, as a replica's superblock: a torn write leaves the predecessor.
//! What is read must be exactly what this format would write.

use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::record::{ArbiterRecord, Eligible};
use super::request::RequestId;
use crate::metadata::{Damage, PAGE_LEN, newest_of_two};
use crate::units::{ArbiterId, Epoch, Generation, Instance, Side};

/// A record, and which resource it is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredRecord {
    /// Counts the writes; slot = counter mod 2, the newest valid one wins.
    pub counter: u64,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the resource.
    pub resource: String,
    /// What is remembered.
    pub record: ArbiterRecord,
}

/// What such a file is called in errors.
const FILE: &str = "arbiter record";
/// Version of the format. History: 1, the first.
const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"HPARBIT1";

/// Longest name of a cluster or resource that an arbiter takes, in bytes.
pub(super) const NAME_LEN_MAX: usize = 64;

/// Whether an arbiter takes this name of a cluster, node or resource: letters, digits, `.`, `_` and
/// `-`, the first one a letter or digit. So it can stand in the name of a file.
pub fn is_name(text: &str) -> bool {
    let starts_well = text.starts_with(|letter: char| letter.is_ascii_alphanumeric());
    let is_clean = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    starts_well && is_clean && text.len() <= NAME_LEN_MAX
}

impl StoredRecord {
    /// The slot's bytes.
    ///
    /// # Panics
    /// If a name is none that [`is_name`] takes: the witness checks them before.
    pub fn encode(&self) -> [u8; PAGE_LEN] {
        let record = &self.record;
        let mut slot = RawRecord::new_zeroed();
        slot.magic = MAGIC;
        slot.format = U32::new(FORMAT);
        slot.counter = U64::new(self.counter);
        slot.arbiter = U128::new(record.arbiter.0);
        slot.epoch = U64::new(record.epoch.0);
        slot.generation_number = U64::new(record.generation.number);
        slot.generation_id = U128::new(record.generation.id);
        slot.lease_ms = U32::new(record.lease_ms);
        slot.owner = code_of(record.owner);
        slot.eligible = match record.eligible {
            Eligible::Owner => 0,
            Eligible::Both => 1,
        };
        slot.flags =
            if record.stopped { STOPPED } else { 0 } | if record.forced { FORCED } else { 0 };
        slot.changed_by = code_of(record.changed_by);
        slot.identities = record.identities;
        slot.requests = record.requests.map(RawRequestId::encode);
        (slot.cluster_len, slot.cluster) = encode_name(&self.cluster);
        (slot.resource_len, slot.resource) = encode_name(&self.resource);
        slot.sum = U32::new(slot.computed_sum());
        let mut page = [0; PAGE_LEN];
        slot.write_to_prefix(&mut page).expect("a record is shorter than a page");
        page
    }

    /// Reads one slot.
    ///
    /// # Errors
    /// [`Damage::Short`], [`Damage::BadMagic`], [`Damage::Checksum`] and [`Damage::Value`] if the
    /// bytes are no record; [`Damage::Format`] if they are one of a newer release.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let file = FILE;
        let short = || Damage::Short { file, len: bytes.len() as u64, needed: PAGE_LEN as u64 };
        if bytes.len() != PAGE_LEN {
            return Err(short());
        }
        let (slot, _) = RawRecord::ref_from_prefix(bytes).map_err(|_| short())?;
        if slot.magic != MAGIC {
            return Err(Damage::BadMagic { file });
        }
        if slot.sum.get() != slot.computed_sum() {
            return Err(Damage::Checksum { file });
        }
        if slot.format.get() > FORMAT {
            return Err(Damage::Format { file, found: slot.format.get(), newest: FORMAT });
        }
        let stored = decode_fields(slot).map_err(|field| Damage::Value { file, field })?;
        if stored.encode() != bytes {
            return Err(Damage::Value { file, field: "a reserved byte" });
        }
        Ok(stored)
    }

    /// The newest valid record of the two slots of a file.
    ///
    /// # Errors
    /// As [`newest_of_two`].
    pub fn newest(slots: &[u8]) -> Result<Self, Damage> {
        newest_of_two(FILE, slots, Self::decode, |stored| stored.counter)
    }
}

const STOPPED: u8 = 1;
const FORCED: u8 = 2;

fn code_of(side: Side) -> u8 {
    match side {
        Side::First => 0,
        Side::Second => 1,
    }
}

fn side_of(code: u8) -> Option<Side> {
    match code {
        0 => Some(Side::First),
        1 => Some(Side::Second),
        _ => None,
    }
}

fn encode_name(name: &str) -> (u8, [u8; NAME_LEN_MAX]) {
    assert!(is_name(name), "{name:?} was checked before");
    let mut place = [0; NAME_LEN_MAX];
    place[..name.len()].copy_from_slice(name.as_bytes());
    (u8::try_from(name.len()).expect("names are short"), place)
}

fn decode_name(len: u8, place: &[u8; NAME_LEN_MAX]) -> Option<String> {
    let name = str::from_utf8(place.get(..usize::from(len))?).ok()?;
    is_name(name).then(|| name.to_owned())
}

/// The error is the field with an impossible value.
fn decode_fields(slot: &RawRecord) -> Result<StoredRecord, &'static str> {
    let epoch = Epoch(slot.epoch.get());
    if epoch.0 > EPOCH_MAX {
        return Err("the epoch");
    }
    let record = ArbiterRecord {
        arbiter: ArbiterId(slot.arbiter.get()),
        epoch,
        owner: side_of(slot.owner).ok_or("the owner")?,
        eligible: match slot.eligible {
            0 => Eligible::Owner,
            1 => Eligible::Both,
            _ => return Err("who is eligible"),
        },
        generation: Generation {
            number: slot.generation_number.get(),
            id: slot.generation_id.get(),
        },
        lease_ms: slot.lease_ms.get(),
        stopped: slot.flags & STOPPED != 0,
        forced: slot.flags & FORCED != 0,
        identities: slot.identities,
        requests: slot.requests.map(RawRequestId::decode),
        changed_by: side_of(slot.changed_by).ok_or("who changed it")?,
    };
    Ok(StoredRecord {
        counter: slot.counter.get(),
        cluster: decode_name(slot.cluster_len, &slot.cluster).ok_or("the cluster")?,
        resource: decode_name(slot.resource_len, &slot.resource).ok_or("the resource")?,
        record,
    })
}

/// What is read can be counted on from without an overflow. Requests are taken up to
/// [`Epoch::TAKEN_MAX`], and each adds 131,072 at most.
const EPOCH_MAX: u64 = 1 << 63;

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRequestId {
    instance: U64,
    number: U64,
}

impl RawRequestId {
    fn encode(id: RequestId) -> Self {
        Self { instance: U64::new(id.instance.0), number: U64::new(id.number) }
    }

    fn decode(self) -> RequestId {
        RequestId { instance: Instance(self.instance.get()), number: self.number.get() }
    }
}

/// The record byte for byte; zeroes follow it to the end of its page.
#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecord {
    magic: [u8; 8],
    format: U32,
    zero: U32,
    counter: U64,
    arbiter: U128,
    epoch: U64,
    generation_number: U64,
    generation_id: U128,
    lease_ms: U32,
    owner: u8,
    eligible: u8,
    flags: u8,
    changed_by: u8,
    identities: [[u8; 32]; 2],
    requests: [RawRequestId; 2],
    cluster_len: u8,
    resource_len: u8,
    zero_2: [u8; 6],
    cluster: [u8; NAME_LEN_MAX],
    resource: [u8; NAME_LEN_MAX],
    zero_3: [u8; 196],
    sum: U32,
}

const _: () = {
    assert!(size_of::<RawRecord>() == 512, "a record is one sector");
    assert!(std::mem::offset_of!(RawRecord, arbiter) == 24);
    assert!(std::mem::offset_of!(RawRecord, lease_ms) == 72);
    assert!(std::mem::offset_of!(RawRecord, identities) == 80);
    assert!(std::mem::offset_of!(RawRecord, requests) == 144);
    assert!(std::mem::offset_of!(RawRecord, cluster) == 184);
    assert!(std::mem::offset_of!(RawRecord, sum) == 508);
};

impl RawRecord {
    fn computed_sum(&self) -> u32 {
        let (covered, _) = self.as_bytes().split_at(size_of::<Self>() - size_of::<U32>());
        crc32c::crc32c(covered)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(counter: u64) -> StoredRecord {
        let id = |number| RequestId { instance: Instance(7 + number), number };
        StoredRecord {
            counter,
            cluster: "office".to_owned(),
            resource: "vm-1.root".to_owned(),
            record: ArbiterRecord {
                arbiter: ArbiterId(0x0102_0304),
                epoch: Epoch(44 + 4 * counter),
                owner: Side::Second,
                eligible: Eligible::Both,
                generation: Generation { number: 9, id: 0xfeed },
                lease_ms: 3_000,
                stopped: true,
                forced: false,
                identities: [[0x11; 32], [0x22; 32]],
                requests: [id(1), id(2)],
                changed_by: Side::First,
            },
        }
    }

    fn file(first: &[u8], second: &[u8]) -> Vec<u8> {
        [first, second].concat()
    }

    #[test]
    fn a_record_survives_and_no_truncation_and_no_flipped_bit_does() {
        let stored = sample(3);
        let page = stored.encode();
        assert_eq!(StoredRecord::decode(&page), Ok(stored));
        assert!((0..PAGE_LEN).all(|len| StoredRecord::decode(&page[..len]).is_err()));
        for bit in 0..PAGE_LEN * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(StoredRecord::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_bytes_are_those_of_format_1() {
        let page = sample(1).encode();
        assert_eq!(&page[..16], b"HPARBIT1\x01\0\0\0\0\0\0\0");
        assert_eq!(page[16..24], 1_u64.to_le_bytes());
        assert_eq!(page[40..48], 48_u64.to_le_bytes());
        assert_eq!(page[72..80], [0xb8, 0x0b, 0, 0, 1, 1, 1, 0]);
        assert_eq!((page[176], page[177]), (6, 9));
        assert_eq!(&page[184..190], b"office");
        assert_eq!(&page[248..257], b"vm-1.root");
        assert_eq!(page[508..512], crc32c::crc32c(&page[..508]).to_le_bytes());
    }

    #[test]
    fn the_newest_whole_slot_wins_and_a_torn_write_leaves_its_predecessor() {
        let (old, new) = (sample(4), sample(5));
        assert_eq!(StoredRecord::newest(&file(&old.encode(), &new.encode())), Ok(new.clone()));
        for torn_at in 0..512 {
            let mut torn = sample(3).encode();
            torn[..torn_at].copy_from_slice(&new.encode()[..torn_at]);
            let found = StoredRecord::newest(&file(&old.encode(), &torn)).unwrap();
            assert_eq!(found, old, "torn at {torn_at}");
        }
        // Written to the wrong place.
        let misplaced = file(&new.encode(), &old.encode());
        assert!(matches!(StoredRecord::newest(&misplaced), Err(Damage::BothSlots { .. })));
        let zeroes = [0; PAGE_LEN];
        assert!(matches!(
            StoredRecord::newest(&file(&zeroes, &zeroes)),
            Err(Damage::BadMagic { .. })
        ));
    }

    #[test]
    fn a_newer_format_is_refused_even_if_the_other_slot_is_ours() {
        let mut newer = sample(5).encode();
        newer[8] = 2;
        let sum = crc32c::crc32c(&newer[..508]).to_le_bytes();
        newer[508..512].copy_from_slice(&sum);
        let found = StoredRecord::newest(&file(&sample(4).encode(), &newer));
        assert!(matches!(found, Err(Damage::Format { found: 2, .. })), "{found:?}");
    }

    #[test]
    fn a_name_cannot_lead_out_of_the_folder() {
        for good in ["a", "vm1", "9.x_y-z", &"n".repeat(64)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "../a", "a\0", "a b", "\u{e9}", "a@b"] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(!is_name(&"n".repeat(65)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut page in proptest::collection::vec(any::<u8>(), PAGE_LEN)) {
            let _ = StoredRecord::decode(&page);
            page[..8].copy_from_slice(&MAGIC);
            page[8..16].fill(0);
            let sum = crc32c::crc32c(&page[..508]).to_le_bytes();
            page[508..512].copy_from_slice(&sum);
            let _ = StoredRecord::decode(&page);
            page[508 + 4..].fill(0);
            let _ = StoredRecord::decode(&page);
        }
    }
}
