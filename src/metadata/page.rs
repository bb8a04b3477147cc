//! The first page of every metadata file but the superblock: what the file is and whose it is.
//!
//! All of it lies in the first sector, so that a rewrite after a resize is old or new, never torn.

use zerocopy::little_endian::{U32, U64, U128};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::damage::Damage;
use super::superblock::FORMAT;
use crate::units::{ReplicaId, ResourceId};

/// Length of a page in bytes: of a header, of a slot, of a record, and of a unit of sums.
pub const PAGE_LEN: usize = 4096;

/// Whose file it is.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct FileIds {
    /// The resource; zero in files that were made while the replica was fresh.
    pub resource_id: ResourceId,
    /// The replica.
    pub replica_id: ReplicaId,
}

/// What tells one kind of file from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageKind {
    pub(super) file: &'static str,
    pub(super) magic: [u8; 8],
    /// Bytes of the resource that one entry stands for.
    pub(super) unit: u64,
}

impl PageKind {
    /// The header page of a file with `count` entries.
    pub(super) fn encode(&self, ids: &FileIds, count: u64) -> [u8; PAGE_LEN] {
        let mut header = RawHeader {
            magic: self.magic,
            format: U32::new(FORMAT),
            unit: U32::new(u32::try_from(self.unit).expect("units are below 4 GiB")),
            resource_id: U128::new(ids.resource_id.0),
            replica_id: U128::new(ids.replica_id.0),
            count: U64::new(count),
            zero: U32::ZERO,
            sum: U32::ZERO,
        };
        header.sum = U32::new(header.computed_sum());
        let mut page = [0; PAGE_LEN];
        header.write_to_prefix(&mut page).expect("a header is shorter than a page");
        page
    }

    /// Reads the header page at the start of `bytes`.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Header, Damage> {
        let file = self.file;
        let short = || Damage::Short { file, len: bytes.len() as u64, needed: PAGE_LEN as u64 };
        if bytes.len() < PAGE_LEN {
            return Err(short());
        }
        let (raw, _) = RawHeader::read_from_prefix(bytes).map_err(|_| short())?;
        if raw.magic != self.magic {
            return Err(Damage::BadMagic { file });
        }
        if raw.sum.get() != raw.computed_sum() {
            return Err(Damage::Checksum { file });
        }
        if raw.format.get() > FORMAT {
            return Err(Damage::Format { file, found: raw.format.get(), newest: FORMAT });
        }
        let ids = FileIds {
            resource_id: ResourceId(raw.resource_id.get()),
            replica_id: ReplicaId(raw.replica_id.get()),
        };
        let header = Header { ids, count: raw.count.get() };
        let again = self.encode(&header.ids, header.count);
        if RawHeader::read_from_prefix(&again).is_ok_and(|(it, _)| it.as_bytes() != raw.as_bytes())
        {
            return Err(Damage::Value { file, field: "the header" });
        }
        Ok(header)
    }
}

/// What a header page says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub(super) ids: FileIds,
    pub(super) count: u64,
}

impl Header {
    /// The file must be of the replica `expected`, and of its resource unless it was made before
    /// the replica had one.
    pub(super) fn check_owner(&self, file: &'static str, expected: &FileIds) -> Result<(), Damage> {
        let Self { ids: FileIds { resource_id, replica_id }, .. } = *self;
        if replica_id != expected.replica_id {
            let (found, expected) = (replica_id.0, expected.replica_id.0);
            return Err(Damage::Foreign { file, found, expected });
        }
        if resource_id != expected.resource_id && resource_id != ResourceId(0) {
            return Err(Damage::Value { file, field: "the resource's id" });
        }
        Ok(())
    }
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    format: U32,
    unit: U32,
    resource_id: U128,
    replica_id: U128,
    count: U64,
    zero: U32,
    sum: U32,
}

impl RawHeader {
    fn computed_sum(&self) -> u32 {
        let (covered, _) = self.as_bytes().split_at(size_of::<Self>() - size_of::<U32>());
        crc32c::crc32c(covered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: PageKind = PageKind { file: "test", magic: *b"HPTEST01", unit: 7 };
    const IDS: FileIds = FileIds { resource_id: ResourceId(1), replica_id: ReplicaId(2) };

    #[test]
    fn a_header_survives_and_no_truncation_and_no_flipped_bit_does() {
        let page = KIND.encode(&IDS, 9);
        assert_eq!(KIND.decode(&page), Ok(Header { ids: IDS, count: 9 }));
        assert!((0..PAGE_LEN).all(|len| KIND.decode(&page[..len]).is_err()));
        for bit in 0..size_of::<RawHeader>() * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(KIND.decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_file_of_another_replica_is_refused() {
        let header = Header { ids: IDS, count: 0 };
        assert_eq!(header.check_owner("test", &IDS), Ok(()));
        let other = FileIds { replica_id: ReplicaId(3), ..IDS };
        assert!(matches!(header.check_owner("test", &other), Err(Damage::Foreign { .. })));
        let fresh = Header { ids: FileIds { resource_id: ResourceId(0), ..IDS }, count: 0 };
        assert_eq!(fresh.check_owner("test", &IDS), Ok(()));
        let adopted = FileIds { resource_id: ResourceId(8), ..IDS };
        assert!(header.check_owner("test", &adopted).is_err());
    }
}
