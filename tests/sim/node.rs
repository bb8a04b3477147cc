//! One machine: its files, its clock, and the process that runs the core on them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use fastrand::Rng;
use hotpair::metadata::{self, Birth, Found, Newborn, Place, Superblock};
use hotpair::promotion::controller::ControllerTimer;
use hotpair::replica::{LinkId, OutdateAsk, Replica, RequestId, Settings, Start};
use hotpair::units::{BlockIndex, Epoch, Instance, Instant, ResourceSize};

use crate::broken::Broken;
use crate::disk::{Damage, File, SECTOR};
use crate::io::Work;
use crate::net::Time;
use crate::world::Event;

/// Where the bits begin in the file of the dirty map.
const MAP_BITS_AT: usize = 4096;

/// A machine.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) size: ResourceSize,
    pub(crate) files: Files,
    pub(crate) place: Place,
    /// The copy of the map's canary in memory that a process crash leaves.
    canary_copy: Option<u64>,
    /// Counts starts of the process: events of an older one mean nothing.
    pub(crate) life: u64,
    pub(crate) process: Option<Box<Process>>,
    /// Power was lost and recovery has not run since.
    pub(crate) is_power_lost: bool,
    /// The operator keeps it from starting.
    pub(crate) is_held_down: bool,
    clock: Clock,
    pub(crate) trouble: Trouble,
}

/// The clock of a machine: another start, and another rate.
#[derive(Clone, Copy, Debug)]
struct Clock {
    base: u64,
    rate: u64,
}

/// The files of a replica. The dirty map is mapped: what the core changes is in the page cache.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) data: File,
    pub(crate) superblock: File,
    pub(crate) map: File,
    pub(crate) sum: File,
    pub(crate) log: File,
    /// The mapped bytes as they were after the last step.
    pub(crate) mapped: Vec<u8>,
    pub(crate) sum_len: usize,
    log_len: usize,
    /// Length of the data file in bytes.
    pub(crate) data_len: u64,
}

/// Faults of the disk that wait for their moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) fail_next_io: bool,
    pub(crate) fail_next_sync: bool,
    pub(crate) fail_next_metadata: bool,
    pub(crate) full_until: Time,
    pub(crate) stalled_until: Time,
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) core: Replica<Vec<u8>>,
    pub(crate) wants_link: bool,
    pub(crate) link: Option<LinkId>,
    /// Accepting clients in this epoch.
    pub(crate) export: Option<Epoch>,
    pub(crate) io: BTreeMap<u64, Work>,
    pub(crate) next_io: u64,
    /// What reads of clients found, until they are answered.
    pub(crate) found: BTreeMap<RequestId, Bytes>,
    /// Requests in the sockets of clients.
    pub(crate) unread: VecDeque<RequestId>,
    /// Requests that the core has.
    pub(crate) admitted: BTreeMap<RequestId, Epoch>,
    pub(crate) is_paused: bool,
    /// What happened while it was paused.
    pub(crate) deferred: VecDeque<Event>,
    /// The answer to a stop came: it ends.
    pub(crate) is_stopping: Option<u64>,
    /// Timers of the core, by the node's clock.
    pub(crate) timers: BTreeMap<ControllerTimer, Instant>,
    /// When the last heartbeat of the peer came.
    pub(crate) last_heard: Time,
    /// When the last one came that says that the peer hears this node.
    pub(crate) last_up: Time,
    pub(crate) last_beat: Time,
    /// When anything of the witness came.
    pub(crate) witness_heard: Time,
    pub(crate) is_silent: bool,
    /// When the peer asked for the lease that is about to be granted.
    pub(crate) lease_asked: Option<Instant>,
    /// What it asks its peer with each heartbeat.
    pub(crate) outdate_asked: Option<OutdateAsk>,
}

impl Node {
    /// A machine with a new replica on it.
    pub(crate) fn new(settings: Settings, size: ResourceSize, rate: u64, rng: &mut Rng) -> Self {
        let clock = Clock { base: rng.u64(1..1 << 50), rate };
        let place =
            Place { boot_id: id(rng), sidecar_mount: 1, data_mount: 2, device: 3, inode: 4 };
        Self {
            settings,
            size,
            files: Files::default(),
            place,
            canary_copy: None,
            life: 0,
            process: None,
            is_power_lost: false,
            is_held_down: false,
            clock,
            trouble: Trouble::default(),
        }
    }

    /// `hotpair init`: makes the metadata; the data file is left as it is.
    pub(crate) fn init(&mut self, kind: Birth, resource_id: u128, rng: &mut Rng) {
        let newborn = Newborn {
            resource_id: hotpair::units::ResourceId(resource_id),
            replica_id: hotpair::units::ReplicaId(id(rng)),
            generation_id: id(rng),
            size: self.size,
            place: self.place,
        };
        let data = std::mem::take(&mut self.files.data);
        let [map, sum, log, superblock] = metadata::birth(kind, &newborn);
        self.files = Files {
            data,
            superblock: File::stable(&superblock.image()),
            map: File::stable(&map.head),
            sum: File::stable(&sum.head),
            log: File::stable(&log.head),
            mapped: map.image(),
            sum_len: usize::try_from(sum.len).unwrap(),
            log_len: usize::try_from(log.len).unwrap(),
            data_len: self.files.data_len.max(self.size.bytes()),
        };
    }

    /// The node's own clock at that moment.
    pub(crate) fn clock(&self, now: Time) -> Instant {
        Instant(self.clock.base + now / 1000 * self.clock.rate)
    }

    /// The core, if the process runs and is not paused.
    pub(crate) fn core(&self) -> Option<&Replica<Vec<u8>>> {
        self.process.as_ref().map(|process| &process.core)
    }

    /// The core of a process that is neither dead nor paused.
    pub(crate) fn awake(&self) -> Option<&Process> {
        self.process.as_deref().filter(|process| !process.is_paused)
    }

    /// What the disk or the running core says is stable.
    pub(crate) fn superblock(&self) -> Superblock {
        match self.core() {
            Some(core) => core.superblock().clone(),
            None => Superblock::newest(&self.files.superblock.read(0, 8192))
                .expect("no fault leaves both slots damaged"),
        }
    }

    /// Starts the process: recovery on what is there, then a core.
    pub(crate) fn start(
        &mut self,
        now: Time,
        log_slots: usize,
        rng: &mut Rng,
    ) -> Result<(), Broken> {
        self.files.data.drop_cache();
        let superblock = self.files.superblock.read(0, 8192);
        let sum = self.files.sum.read(0, self.files.sum_len);
        let log = self.files.log.read(0, self.files.log_len);
        let found = Found {
            superblock: &superblock,
            dirty_map: self.files.mapped.clone(),
            dirty_sum: &sum,
            activity_log: &log,
            place: self.place,
            canary_copy: self.canary_copy,
            data_len: self.files.data_len,
        };
        let mut recovered = metadata::recover(found)
            .map_err(|damage| Broken::new("OldOrNewMetadata", damage.to_string()))?;
        recovered.log.limit_slots(log_slots);
        let start = Start {
            instance: Instance(rng.u64(1..)),
            fresh_ids: vec![id(rng), id(rng)],
            now: self.clock(now),
            place: self.place,
        };
        let core = Replica::new(self.settings.clone(), recovered, start);
        self.size = core.size();
        self.is_power_lost = false;
        self.life += 1;
        self.process = Some(Box::new(Process::new(core, now)));
        self.absorb_map();
        Ok(())
    }

    /// The process ends, by itself or by kill -9: what was under way happens, in part or not.
    pub(crate) fn crash(&mut self, rng: &mut Rng) {
        let Some(process) = self.process.take() else { return };
        self.life += 1;
        let mut works: Vec<Work> = process.io.into_values().collect();
        rng.shuffle(&mut works);
        for work in works {
            work.interrupted(&mut self.files, rng);
        }
        self.trouble = Trouble::default();
    }

    /// Power is lost, after [`Node::crash`].
    pub(crate) fn lose_power(&mut self, rng: &mut Rng) {
        let damage = Damage::draw(rng);
        let files = &mut self.files;
        for file in
            [&mut files.data, &mut files.superblock, &mut files.map, &mut files.sum, &mut files.log]
        {
            file.lose_power(damage, rng);
        }
        let len = files.mapped.len();
        files.mapped = files.map.read(0, len).to_vec();
        self.place.boot_id = id(rng);
        self.canary_copy = None;
        self.is_power_lost = true;
    }

    /// Notes what the core changed in the mapped map. Returns the blocks whose marks went.
    pub(crate) fn absorb_map(&mut self) -> Vec<u64> {
        let Some(process) = &self.process else { return Vec::new() };
        let dirty = process.core.dirty();
        self.canary_copy = Some(dirty.canary());
        let memory: &[u8] = dirty.memory();
        if memory == self.files.mapped.as_slice() {
            return Vec::new();
        }
        let mut cleared = Vec::new();
        // While the file is longer than the memory, its header is the file's own.
        let first = usize::from(memory.len() < self.files.mapped.len());
        let sectors = memory.chunks(SECTOR).zip(self.files.mapped.chunks_mut(SECTOR)).enumerate();
        for (index, (new, old)) in sectors.skip(first).filter(|(_, (new, old))| new != old) {
            let at = index * SECTOR;
            let offset = u64::try_from(at).unwrap();
            self.files.map.write(offset, &Bytes::copy_from_slice(new), &mut |_| true);
            if at >= MAP_BITS_AT {
                note_cleared(old, new, (at - MAP_BITS_AT) * 8, &mut cleared);
            }
            old.copy_from_slice(new);
        }
        self.files.map.take_changed();
        cleared
    }

    /// Whether the block is marked in this node's map, running or not.
    pub(crate) fn is_marked(&self, block: u64) -> bool {
        if block >= self.size.block_count() {
            return false;
        }
        if let Some(core) = self.core() {
            return core.dirty().is_set(BlockIndex(block));
        }
        let at = MAP_BITS_AT + usize::try_from(block / 8).unwrap();
        self.files.mapped[at] >> (block % 8) & 1 == 1
    }
}

impl Process {
    fn new(core: Replica<Vec<u8>>, now: Time) -> Self {
        Self {
            core,
            wants_link: false,
            link: None,
            export: None,
            io: BTreeMap::new(),
            next_io: 0,
            found: BTreeMap::new(),
            unread: VecDeque::new(),
            admitted: BTreeMap::new(),
            is_paused: false,
            deferred: VecDeque::new(),
            is_stopping: None,
            timers: BTreeMap::new(),
            last_heard: now,
            last_up: now,
            witness_heard: now,
            last_beat: now,
            is_silent: false,
            lease_asked: None,
            outdate_asked: None,
        }
    }
}

fn note_cleared(old: &[u8], new: &[u8], first_bit: usize, cleared: &mut Vec<u64>) {
    for (at, (old, new)) in old.iter().zip(new).enumerate() {
        let gone = old & !new;
        for bit in (0..8).filter(|bit| gone >> bit & 1 == 1) {
            cleared.push(u64::try_from(first_bit + at * 8 + bit).unwrap());
        }
    }
}

/// A random id that is not zero.
pub(crate) fn id(rng: &mut Rng) -> u128 {
    rng.u128(1..)
}
