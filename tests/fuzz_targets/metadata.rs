//! The files of a replica as a start finds them, one behind the other.

use hotpair::metadata::{
    ActivityLog, Birth, Damage, DirtyMap, Found, Newborn, PAGE_LEN, Place, Recovered, Superblock,
    birth, recover,
};
use hotpair::units::{
    BlockIndex, ExtentIndex, Generation, Instance, Instant, ReplicaId, ResourceId, ResourceSize,
    ServeMode,
};

/// Pages of the superblock, the map, the sums; what is behind them is the log.
const PAGES: [usize; 3] = [2, 3, 2];
const PLACE: Place = Place { boot_id: 1, sidecar_mount: 2, data_mount: 3, device: 4, inode: 5 };
/// Two pages of bits, the last of them short.
const LEN: u64 = (4096 * 8 + 100) * 4096 + 5;

/// The files that `bytes` are.
struct Files {
    superblock: Vec<u8>,
    map: Vec<u8>,
    sum: Vec<u8>,
    log: Vec<u8>,
}

impl Files {
    fn of(mut bytes: &[u8]) -> Self {
        let mut take = |pages: usize| {
            let (file, rest) = bytes.split_at(bytes.len().min(pages * PAGE_LEN));
            bytes = rest;
            file.to_vec()
        };
        let [superblock, map, sum] = PAGES.map(&mut take);
        let mut log = bytes.to_vec();
        // Most of a log is empty. One that was cut inside its first page stays cut.
        if log.len() >= PAGE_LEN {
            log.resize(usize::try_from(ActivityLog::file_len()).unwrap(), 0);
        }
        Self { superblock, map, sum, log }
    }

    fn recover(&self, place: Place) -> Result<Recovered<Vec<u8>>, Damage> {
        recover(Found {
            superblock: &self.superblock,
            dirty_map: self.map.clone(),
            dirty_sum: &self.sum,
            activity_log: &self.log,
            place,
            canary_copy: Some(0),
            data_len: LEN,
        })
    }
}

pub(crate) fn run(bytes: &[u8]) {
    let mut files = Files::of(bytes);
    for slot in files.superblock.chunks(PAGE_LEN) {
        if let Ok(record) = Superblock::decode(slot) {
            assert_eq!(record.encode(), *slot, "a record has one encoding");
        }
    }
    for place in [PLACE, Place { boot_id: 2, ..PLACE }] {
        let Ok(first) = files.recover(place) else { continue };
        // Interrupted, and begun anew on the map as it was left.
        files.map.clone_from(first.dirty.memory());
        let second = files.recover(place).expect("what was recovered once is again");
        assert_eq!(first.superblock, second.superblock);
        assert_eq!(first.dirty.memory(), second.dirty.memory());
        assert_eq!(first.log, second.log);
        assert_eq!((first.hot, first.log_lost), (second.hot, second.log_lost));
        assert!(second.doubtful || !first.doubtful);
    }
}

/// Gives every page the sums that a bad disk or a stranger would have to hit.
pub(crate) fn repair(bytes: &mut [u8]) {
    let (pages, _) = bytes.as_chunks_mut::<PAGE_LEN>();
    for page in pages {
        let last = PAGE_LEN - 4;
        if page.starts_with(b"HPSUPER1") {
            let sum = crc32c::crc32c(&page[..last]).to_le_bytes();
            page[last..].copy_from_slice(&sum);
        } else if page.starts_with(b"HP") {
            let sum = crc32c::crc32c(&page[..60]).to_le_bytes();
            page[60..64].copy_from_slice(&sum);
        } else {
            let sum = crc32c::crc32c(&page[..last]).to_le_bytes();
            page[last..].copy_from_slice(&sum);
        }
    }
}

pub(crate) fn made() -> Vec<Vec<u8>> {
    let newborn = Newborn {
        resource_id: ResourceId(6),
        replica_id: ReplicaId(7),
        generation_id: 8,
        size: ResourceSize::new(LEN).unwrap(),
        place: PLACE,
    };
    let mut all = Vec::new();
    for kind in [Birth::This, Birth::Peer] {
        let [map, sum, log, superblock] = birth(kind, &newborn).map(|file| file.image());
        let put = |superblock: &[u8], map: &[u8], log: &[u8]| {
            assert_eq!([superblock.len(), map.len(), sum.len()], PAGES.map(|it| it * PAGE_LEN));
            [superblock, map, &sum, &log[..12 * PAGE_LEN]].concat()
        };
        all.push(put(&superblock, &map, &log));
        let newest = Superblock::newest(&superblock).unwrap();
        let used = Superblock {
            counter: newest.counter + 1,
            clean: false,
            serve_mode: ServeMode::Paired,
            history: vec![Generation { number: 1, id: 3 }],
            instances: vec![Instance(4), Instance(5)],
            ..newest
        };
        let slots = [&used.encode()[..], &superblock[PAGE_LEN..]].concat();
        let mut dirty = DirtyMap::open(map.clone(), newborn.size).unwrap();
        dirty.set(BlockIndex(77));
        let files = Files { superblock: slots, map: dirty.memory().clone(), sum: sum.clone(), log };
        all.push(put(&files.superblock, &files.map, &files.log));
        all.push(put(&files.superblock, &files.map, &with_hot_extents(&files)));
    }
    all
}

/// The log of `files` once some extents are hot.
fn with_hot_extents(files: &Files) -> Vec<u8> {
    let mut log = files.recover(PLACE).unwrap().log;
    let mut bytes = files.log.clone();
    for extent in [0, 3, 9] {
        let _ = log.want(ExtentIndex(extent), Instant(1));
        while let Some(append) = log.next_append() {
            let at = usize::try_from(append.offset).unwrap();
            bytes[at..at + append.bytes.len()].copy_from_slice(&append.bytes);
            log.appended();
        }
    }
    bytes
}
