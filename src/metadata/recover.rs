//! What may be believed of the metadata that a start finds.
//!
//! It writes nothing but marks into the map's memory, and more marks are always safe; so it can
//! be interrupted and repeated. The daemon makes its findings stable before it relies on them.

use std::collections::BTreeSet;

use super::activity_log::ActivityLog;
use super::damage::Damage;
use super::dirty_map::{DirtyMap, MapMemory};
use super::dirty_sum::Sums;
use super::page::FileIds;
use super::superblock::{Place, Superblock};
use super::{ACTIVITY_LOG_FILE, DIRTY_MAP_FILE};
use crate::units::{DiskReason, ExtentIndex, ResourceSize, ServeMode};

/// The files of a replica as a start finds them.
#[derive(Debug)]
pub struct Found<'a, M> {
    /// Both slots.
    pub superblock: &'a [u8],
    /// The whole file, mapped.
    pub dirty_map: M,
    /// The whole file.
    pub dirty_sum: &'a [u8],
    /// The whole file.
    pub activity_log: &'a [u8],
    /// Where this start is.
    pub place: Place,
    /// The canary's copy on the tmpfs, if there is one.
    pub canary_copy: Option<u64>,
    /// Length of the data file in bytes.
    pub data_len: u64,
}

/// How the last run ended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Crash {
    /// It stopped: nothing was in motion.
    Clean,
    /// The process ended, the page cache is the one it wrote to: the map is exact.
    Process,
    /// Power was lost, or it cannot be told from that.
    Power,
}

/// Metadata that was validated; only this can become a replica.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Recovered<M: MapMemory> {
    /// As it was read; what was found is not in it yet.
    pub superblock: Superblock,
    /// Every block that may differ from the peer is marked, but for hot extents after a process
    /// crash, whose marks are exact.
    pub dirty: DirtyMap<M>,
    /// The log, going on where it ended.
    pub log: ActivityLog,
    /// How the last run ended.
    pub crash: Crash,
    /// Acknowledged writes may be missing here and present on the peer.
    pub doubtful: bool,
    /// Extents that were hot. If the log was lost every extent was, and this is empty.
    pub hot: BTreeSet<ExtentIndex>,
    /// The log could not be read: every block is marked.
    pub log_lost: bool,
    /// The file of the sums is damaged or too short: none of what it lacks counted, and it must be
    /// made anew before a sum is written to it.
    pub sums_lost: bool,
}

impl<M: MapMemory> Recovered<M> {
    /// Why the disk must count as outdated, if it is doubtful.
    pub fn doubt(&self) -> Option<DiskReason> {
        let reason = match self.crash {
            Crash::Process if !self.log_lost => DiskReason::HeldInMemory,
            Crash::Clean | Crash::Process | Crash::Power => DiskReason::LostPower,
        };
        self.doubtful.then_some(reason)
    }
}

/// Validates what a start found and says what may be believed.
///
/// # Errors
/// Why this metadata cannot be used with this data file; nothing was touched then.
pub fn recover<M: MapMemory>(found: Found<'_, M>) -> Result<Recovered<M>, Damage> {
    let superblock = Superblock::newest(found.superblock)?;
    let size = ResourceSize::new(superblock.size).expect("the record was validated");
    check_data_file(&superblock, &found.place, found.data_len)?;
    let ids = superblock.ids();
    let sums = Sums::open(found.dirty_sum, &ids)?;
    let sums_lost = !sums.are_whole(size);
    let (mut log, log_lost) = match ActivityLog::recover(found.activity_log, &ids) {
        Ok(log) => (log, false),
        Err(Damage::LogUnreadable) => (ActivityLog::begin_anew(found.activity_log, &ids), true),
        Err(damage) => return Err(damage),
    };
    check_log_len(found.activity_log)?;
    let (mut dirty, is_map_whole) = open_map(found.dirty_map, size, &ids)?;

    log.keep_below(size.extent_count());
    let hot = log.hot();
    let is_same_memory = is_map_whole
        && !dirty.is_distrusted()
        && found.place == superblock.place
        && found.place.data_mount != UNKNOWN_MOUNT
        && found.canary_copy.is_some_and(|copy| dirty.canary().wrapping_sub(copy) <= 1);
    let crash = if superblock.clean && hot.is_empty() && !log_lost {
        Crash::Clean
    } else if is_same_memory {
        Crash::Process
    } else {
        Crash::Power
    };
    compare_sums(&mut dirty, sums, crash);
    if crash == Crash::Power {
        for extent in &hot {
            dirty.set_range(extent.blocks(size));
        }
    }
    if log_lost {
        dirty.set_all();
    }
    let doubtful = match (superblock.serve_mode, crash) {
        (ServeMode::Solo | ServeMode::Gated, _) | (_, Crash::Clean) => false,
        (_, Crash::Process) => superblock.memsync_secondary || log_lost,
        (_, Crash::Power) => superblock.memsync_secondary || log_lost || !hot.is_empty(),
    };
    Ok(Recovered { superblock, dirty, log, crash, doubtful, hot, log_lost, sums_lost })
}

/// Nobody can say whether the data is where it was.
const UNKNOWN_MOUNT: u64 = 0;

/// The data file must be the recorded one. Across a boot, and for another mount, the device's
/// number may be another one; the inode may not.
fn check_data_file(superblock: &Superblock, place: &Place, len: u64) -> Result<(), Damage> {
    let recorded = superblock.place;
    let is_same_mount =
        place.boot_id == recorded.boot_id && place.data_mount == recorded.data_mount;
    if place.inode != recorded.inode || (is_same_mount && place.device != recorded.device) {
        return Err(Damage::OtherData {
            device: place.device,
            inode: place.inode,
            recorded_device: recorded.device,
            recorded_inode: recorded.inode,
        });
    }
    if len < superblock.size {
        return Err(Damage::DataShort { len, size: superblock.size });
    }
    Ok(())
}

/// Appends would otherwise make the file longer, on a disk that may be full by then.
fn check_log_len(log: &[u8]) -> Result<(), Damage> {
    let (len, needed) = (log.len() as u64, ActivityLog::file_len());
    if len < needed {
        return Err(Damage::Short { file: ACTIVITY_LOG_FILE, len, needed });
    }
    Ok(())
}

/// The map, and whether its header was whole. Without one it is made anew with every bit set.
fn open_map<M: MapMemory>(
    memory: M,
    size: ResourceSize,
    ids: &FileIds,
) -> Result<(DirtyMap<M>, bool), Damage> {
    match DirtyMap::check(&memory, size) {
        Ok(header) => {
            header.check_owner(DIRTY_MAP_FILE, ids)?;
            Ok((DirtyMap::open(memory, size)?, true))
        }
        Err(Damage::BadMagic { .. } | Damage::Checksum { .. } | Damage::Value { .. }) => {
            Ok((DirtyMap::remake(memory, size, ids), false))
        }
        Err(damage) => Err(damage),
    }
}

/// A page that differs from its sum changed since the last checkpoint: after a process crash that
/// is how it should be, else nothing of it counts and all its bits are set.
fn compare_sums<M: MapMemory>(dirty: &mut DirtyMap<M>, sums: Sums<'_>, crash: Crash) {
    for page in 0..dirty.page_count() {
        if sums.of_page(page) == Some(dirty.page_sum(page)) {
            continue;
        }
        dirty.note_changed(page);
        match crash {
            Crash::Process => {}
            Crash::Clean | Crash::Power => dirty.set_page(page),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::birth::{Birth, Newborn, birth};
    use super::*;
    use crate::units::{ReplicaId, ResourceId};

    const PLACE: Place = Place { boot_id: 1, sidecar_mount: 2, data_mount: 3, device: 4, inode: 5 };

    /// The files of a replica whose daemon did not stop.
    struct Files {
        superblock: Vec<u8>,
        map: Vec<u8>,
        sum: Vec<u8>,
        log: Vec<u8>,
        place: Place,
    }

    impl Files {
        fn of_a_crash(place: Place) -> Self {
            let newborn = Newborn {
                resource_id: ResourceId(6),
                replica_id: ReplicaId(7),
                generation_id: 8,
                size: ResourceSize::new(1 << 30).unwrap(),
                place,
            };
            let [map, sum, log, superblock] = birth(Birth::This, &newborn).map(|file| file.image());
            let record = Superblock::newest(&superblock).unwrap();
            let record = Superblock { clean: false, counter: 2, ..record };
            let superblock = [&record.encode()[..], &superblock[4096..]].concat();
            Self { superblock, map, sum, log, place }
        }

        fn recover(&self) -> Recovered<Vec<u8>> {
            recover(Found {
                superblock: &self.superblock,
                dirty_map: self.map.clone(),
                dirty_sum: &self.sum,
                activity_log: &self.log,
                place: self.place,
                canary_copy: Some(0),
                data_len: 1 << 30,
            })
            .unwrap()
        }
    }

    #[test]
    fn without_sums_the_map_counts_after_a_process_crash_and_for_nothing_after_a_power_loss() {
        let breaks: [fn(&mut Vec<u8>); 4] = [
            |sum| sum.clear(),
            |sum| sum.truncate(4096 + 5),
            |sum| sum[9] ^= 1,
            |sum| sum[..4096].fill(0),
        ];
        let whole = Files::of_a_crash(PLACE).recover();
        assert!(!whole.sums_lost && whole.crash == Crash::Process && whole.dirty.count() == 0);
        for damage in breaks {
            let mut files = Files::of_a_crash(PLACE);
            damage(&mut files.sum);
            let found = files.recover();
            assert!(found.sums_lost);
            assert_eq!((found.crash, found.dirty.count()), (Crash::Process, 0));
            assert!(found.dirty.has_changed_pages(), "all sums are written with the next ones");
            files.place.boot_id += 1;
            let found = files.recover();
            assert!(found.sums_lost);
            assert_eq!(found.crash, Crash::Power);
            assert!(found.dirty.count() > 0);
        }
    }

    #[test]
    fn a_map_whose_header_was_made_anew_is_not_believed_when_recovery_is_interrupted() {
        let mut files = Files::of_a_crash(PLACE);
        files.map[0] ^= 1;
        let first = files.recover();
        assert_eq!(first.crash, Crash::Power);
        files.map.clone_from(first.dirty.memory());
        assert_eq!(files.recover().crash, Crash::Power);
    }

    #[test]
    fn a_disk_that_has_no_number_counts_as_attached_anew() {
        let unknown = Place { data_mount: UNKNOWN_MOUNT, ..PLACE };
        assert_eq!(Files::of_a_crash(unknown).recover().crash, Crash::Power);
    }

    #[test]
    fn a_map_longer_than_its_resource_needs_is_read() {
        let mut files = Files::of_a_crash(PLACE);
        files.map.resize(files.map.len() + 8192, 0);
        assert_eq!(files.recover().crash, Crash::Process);
    }
}
