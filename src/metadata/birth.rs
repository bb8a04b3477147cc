//! The files of a new replica, as `hotpair init` makes them.

use super::activity_log::ActivityLog;
use super::dirty_map::DirtyMap;
use super::dirty_sum::{sum_file_len, sum_image};
use super::recover::{Found, Recovered, recover};
use super::superblock::{Arbitration, Place, SUPERBLOCK_FILE_LEN, Superblock};
use super::{ACTIVITY_LOG_FILE, DIRTY_MAP_FILE, DIRTY_SUM_FILE, SUPERBLOCK_FILE};
use crate::units::{
    Applied, DiskReason, DiskState, Epoch, Generation, Instance, ReplicaId, ResourceId,
    ResourceSize, ServeMode,
};

/// Where the data of a new replica comes from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Birth {
    /// `--from this`: what lies in the data file is the resource.
    This,
    /// `--from empty`: zeroes are the resource.
    Empty,
    /// `--from peer`: the peer sends it; what lies here is a seed that hashes may match.
    Peer,
    /// `--rebuild --from peer`: as before, and it held data of the resource already.
    Rebuilt,
}

/// What a new replica is told.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Newborn {
    /// Random; unused with [`Birth::Peer`] and [`Birth::Rebuilt`], which take the peer's.
    pub resource_id: ResourceId,
    /// Random.
    pub replica_id: ReplicaId,
    /// Random, for the generation of its birth; unused as above.
    pub generation_id: u128,
    /// Size of the resource.
    pub size: ResourceSize,
    /// Where it is made.
    pub place: Place,
}

/// A file to be made: `head`, then zeroes up to `len`, all allocated.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BirthFile {
    /// Its name in the folder of the replica.
    pub name: &'static str,
    /// Its length in bytes.
    pub len: u64,
    /// What it starts with.
    pub head: Vec<u8>,
}

impl BirthFile {
    /// All its bytes.
    pub fn image(&self) -> Vec<u8> {
        let mut image = self.head.clone();
        image.resize(usize::try_from(self.len).expect("it fits in memory"), 0);
        image
    }
}

/// The files of a new replica in the order to make them: each is synced before the next, and
/// without the last one, the superblock, there is no replica.
///
/// # Panics
/// If an id that is used is zero.
pub fn birth(kind: Birth, newborn: &Newborn) -> [BirthFile; 4] {
    let record = first_record(kind, newborn);
    let ids = record.ids();
    let size = newborn.size;
    // Both slots from the start, so that one that rots does not leave none.
    let mut slots = Superblock { counter: 0, ..record.clone() }.encode().to_vec();
    slots.extend_from_slice(&record.encode());
    [
        BirthFile {
            name: DIRTY_MAP_FILE,
            len: DirtyMap::<Vec<u8>>::file_len(size),
            head: DirtyMap::<Vec<u8>>::format(size, &ids).to_vec(),
        },
        BirthFile { name: DIRTY_SUM_FILE, len: sum_file_len(size), head: sum_image(size, &ids) },
        BirthFile {
            name: ACTIVITY_LOG_FILE,
            len: ActivityLog::file_len(),
            head: ActivityLog::format(&ids),
        },
        BirthFile { name: SUPERBLOCK_FILE, len: SUPERBLOCK_FILE_LEN, head: slots },
    ]
}

/// A new replica as its first start finds it, in plain memory.
pub fn recovered_at_birth(kind: Birth, newborn: &Newborn) -> Recovered<Vec<u8>> {
    let [map, sum, log, superblock] = birth(kind, newborn).map(|file| file.image());
    let found = Found {
        superblock: &superblock,
        dirty_map: map,
        dirty_sum: &sum,
        activity_log: &log,
        place: newborn.place,
        canary_copy: None,
        data_len: newborn.size.bytes(),
    };
    recover(found).expect("what was just made is valid")
}

fn first_record(kind: Birth, newborn: &Newborn) -> Superblock {
    assert!(newborn.replica_id != ReplicaId(0), "zero is no identity");
    let (resource_id, generation, disk, disk_reason) = match kind {
        Birth::This | Birth::Empty => {
            let Newborn { resource_id, generation_id, .. } = *newborn;
            assert!(resource_id != ResourceId(0) && generation_id != 0, "zero is no identity");
            let generation = Generation { number: 1, id: generation_id };
            (resource_id, Some(generation), DiskState::UpToDate, DiskReason::None)
        }
        Birth::Peer => (ResourceId(0), None, DiskState::Inconsistent, DiskReason::Fresh),
        Birth::Rebuilt => (ResourceId(0), None, DiskState::Inconsistent, DiskReason::Rebuilt),
    };
    Superblock {
        counter: 1,
        resource_id,
        replica_id: newborn.replica_id,
        peer_replica_id: ReplicaId(0),
        size: newborn.size.bytes(),
        size_next: 0,
        epoch: Epoch(0),
        promised: Epoch(0),
        served_epoch: Epoch(0),
        owner: None,
        generation,
        history: Vec::new(),
        history_dropped: 0,
        disk,
        disk_reason,
        serve_mode: ServeMode::None,
        veto: None,
        hold: false,
        never_promotes: false,
        peer_never_promotes: false,
        stopped: false,
        forced: false,
        split: false,
        stand_alone: false,
        clean: true,
        resync_source: None,
        undo_base: None,
        resolution: None,
        applied: Applied::default(),
        peer_applied: Applied::default(),
        place: newborn.place,
        memsync_secondary: false,
        instances: Vec::new(),
        peer_instance: Instance(0),
        arbitration: Arbitration::default(),
    }
}
