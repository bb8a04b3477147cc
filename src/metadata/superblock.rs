//! What a replica must remember before it may act: one 4 KiB record in two slots.
//!
//! A record is written to the slot that does not hold its predecessor, so a torn write leaves the
//! predecessor. Every byte counts: what is read must be exactly what this format would write.

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::SUPERBLOCK_FILE;
use super::damage::Damage;
use super::page::{FileIds, PAGE_LEN};
use super::slots::{TWO_SLOTS_LEN, newest_of_two, slot_offset};
use crate::units::{
    Applied, ArbiterId, DiskReason, DiskState, Epoch, Generation, Instance, ReplicaId, Resolution,
    ResourceId, ResourceSize, Sequence, ServeMode, Side, Veto, VetoReason,
};

/// The newest record of a replica. Fields that limit the future are stable before anything relies
/// on them: the record is only ever read through [`super::Durable`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, on disk too")]
pub struct Superblock {
    /// Counts the writes of this record; slot = counter mod 2, the newest valid one wins.
    pub counter: u64,
    /// Identity of the resource; zero while the replica is fresh.
    pub resource_id: ResourceId,
    /// Identity of this replica.
    pub replica_id: ReplicaId,
    /// The replica it was last paired with; zero if it never was.
    pub peer_replica_id: ReplicaId,
    /// Size in bytes.
    pub size: u64,
    /// Size in bytes after the resize under way; zero if there is none.
    pub size_next: u64,
    /// Highest epoch it took part in.
    pub epoch: Epoch,
    /// It refuses everything below.
    pub promised: Epoch,
    /// The last epoch in which it served.
    pub served_epoch: Epoch,
    /// Who served last, as far as it knows.
    pub owner: Option<Side>,
    /// Which data it has; `None` while it is fresh.
    pub generation: Option<Generation>,
    /// Where that came from, newest first, at most 64; the birth generation is never dropped.
    pub history: Vec<Generation>,
    /// Older entries that no longer fit the history.
    pub history_dropped: u16,
    /// What the copy is worth.
    pub disk: DiskState,
    /// Why.
    pub disk_reason: DiskReason,
    /// How it may acknowledge.
    pub serve_mode: ServeMode,
    /// Its veto against itself.
    pub veto: Option<Veto>,
    /// Reserved for the pledge of the arbiter modes.
    pub hold: bool,
    /// It never promotes itself (`auto = "off"`, `arbiter = "none"`).
    pub never_promotes: bool,
    /// The peer said, durably, that it never promotes itself.
    pub peer_never_promotes: bool,
    /// An operator demoted it; only an operator's promote ends that.
    pub stopped: bool,
    /// It was promoted by force.
    pub forced: bool,
    /// Split brain was found and is not settled.
    pub split: bool,
    /// An operator disconnected it; it does not connect until told.
    pub stand_alone: bool,
    /// The daemon stopped cleanly: maps and log are exact and nothing is hot.
    pub clean: bool,
    /// While inconsistent: the generation it is being filled from.
    pub resync_source: Option<Generation>,
    /// The generation that the undo log goes back to; stage integrity.
    pub undo_base: Option<Generation>,
    /// The operator's settlement of a split brain.
    pub resolution: Option<Resolution>,
    /// Its stable applied version, as of the last checkpoint.
    pub applied: Applied,
    /// The peer's stable applied version, as of the last checkpoint.
    pub peer_applied: Applied,
    /// The machine and files it was written on.
    pub place: Place,
    /// It was running in `memsync` as a secondary when it was written.
    pub memsync_secondary: bool,
    /// Its last runs, newest first, at most 64. The one that changed the arbiter's record last is
    /// moved up before it would fall off.
    pub instances: Vec<Instance>,
    /// The peer's last run.
    pub peer_instance: Instance,
    /// What it knows of its arbiter and owes it.
    pub arbitration: Arbitration,
}

/// What a node must remember of its arbiter; all zero if it has none.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Arbitration {
    /// The arbiter's store.
    pub arbiter: ArbiterId,
    /// The highest epoch that it learnt from that store.
    pub epoch: Epoch,
    /// Promotions that it asked for and that may still be granted.
    pub asked: Option<Asked>,
    /// The longest lease, in milliseconds, that it may have granted or held.
    pub lease_ms: u32,
}

/// The epochs that promotions which are not settled would make.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Asked {
    /// The lowest.
    pub first: Epoch,
    /// The highest.
    pub last: Epoch,
}

/// Where a record was written: another place at the next start means a power loss at least.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Place {
    /// The kernel's boot id.
    pub boot_id: u128,
    /// Mount id of the folder of the metadata.
    pub sidecar_mount: u64,
    /// Mount id of the data file; of a block device, the number that the kernel gave it when it was
    /// attached, or zero if it gave none.
    pub data_mount: u64,
    /// Device number of the data file.
    pub device: u64,
    /// Inode of the data file.
    pub inode: u64,
}

/// Version of all metadata files. History: 1, the first.
pub const FORMAT: u32 = 1;
/// Longest history of generations.
pub const HISTORY_LEN_MAX: usize = 64;
/// Longest list of own runs.
pub const INSTANCES_LEN_MAX: usize = 64;
/// Length of the superblock's file in bytes: two slots.
pub const SUPERBLOCK_FILE_LEN: u64 = TWO_SLOTS_LEN;

impl Superblock {
    /// Where the record with this counter is written.
    pub fn slot_offset(counter: u64) -> u64 {
        slot_offset(counter)
    }

    /// Whose it is.
    pub fn ids(&self) -> FileIds {
        FileIds { resource_id: self.resource_id, replica_id: self.replica_id }
    }

    /// The slot's bytes.
    ///
    /// # Panics
    /// If the history or the list of runs is longer than its place.
    pub fn encode(&self) -> [u8; PAGE_LEN] {
        let mut slot = RawSlot::new_zeroed();
        slot.magic = MAGIC;
        slot.format = U32::new(FORMAT);
        slot.oldest_reader = U32::new(FORMAT);
        slot.counter = U64::new(self.counter);
        slot.resource_id = U128::new(self.resource_id.0);
        slot.replica_id = U128::new(self.replica_id.0);
        slot.peer_replica_id = U128::new(self.peer_replica_id.0);
        slot.size = U64::new(self.size);
        slot.size_next = U64::new(self.size_next);
        slot.epoch = U64::new(self.epoch.0);
        slot.promised = U64::new(self.promised.0);
        slot.served_epoch = U64::new(self.served_epoch.0);
        self.encode_data_state(&mut slot);
        self.encode_permission(&mut slot);
        slot.boot_id = U128::new(self.place.boot_id);
        slot.sidecar_mount = U64::new(self.place.sidecar_mount);
        slot.data_mount = U64::new(self.place.data_mount);
        slot.device = U64::new(self.place.device);
        slot.inode = U64::new(self.place.inode);
        assert!(self.instances.len() <= INSTANCES_LEN_MAX, "the list of runs is cut before");
        for (place, instance) in slot.instances.iter_mut().zip(&self.instances) {
            *place = U64::new(instance.0);
        }
        slot.peer_instance = U64::new(self.peer_instance.0);
        self.encode_arbitration(&mut slot);
        slot.sum = U32::new(slot.computed_sum());
        let mut bytes = [0; PAGE_LEN];
        bytes.copy_from_slice(slot.as_bytes());
        bytes
    }

    fn encode_data_state(&self, slot: &mut RawSlot) {
        slot.generation = RawGeneration::encode(self.generation);
        slot.resync_source = RawGeneration::encode(self.resync_source);
        slot.undo_base = RawGeneration::encode(self.undo_base);
        slot.kept = RawGeneration::encode(self.resolution.map(|it| it.kept));
        slot.dropped = RawGeneration::encode(self.resolution.map(|it| it.dropped));
        slot.disk = code(&DISK_STATES, &self.disk);
        slot.reason = code(&DISK_REASONS, &self.disk_reason);
        slot.applied = RawApplied::encode(self.applied);
        slot.peer_applied = RawApplied::encode(self.peer_applied);
        assert!(self.history.len() <= HISTORY_LEN_MAX, "the history is cut before");
        slot.history_len = U16::new(u16::try_from(self.history.len()).expect("at most 64"));
        slot.history_dropped = U16::new(self.history_dropped);
        for (place, generation) in slot.history.iter_mut().zip(&self.history) {
            *place = RawGeneration::encode(Some(*generation));
        }
    }

    fn encode_arbitration(&self, slot: &mut RawSlot) {
        let Arbitration { arbiter, epoch, asked, lease_ms } = self.arbitration;
        slot.arbiter = U128::new(arbiter.0);
        slot.arbiter_epoch = U64::new(epoch.0);
        slot.asked_first = U64::new(asked.map_or(0, |asked| asked.first.0));
        slot.asked_last = U64::new(asked.map_or(0, |asked| asked.last.0));
        slot.lease_ms = U32::new(lease_ms);
    }

    fn encode_permission(&self, slot: &mut RawSlot) {
        slot.mode = code(&SERVE_MODES, &self.serve_mode);
        slot.flags = bits(&[self.clean, self.hold, self.forced]);
        if let Some(veto) = self.veto {
            slot.veto = 1;
            slot.veto_reason = code(&VETO_REASONS, &veto.reason);
            slot.veto_epoch = U64::new(veto.epoch.0);
        }
        slot.owner = code(&OWNERS, &self.owner);
        slot.more_flags = bits(&[
            self.never_promotes,
            self.peer_never_promotes,
            self.stopped,
            self.split,
            self.stand_alone,
            self.memsync_secondary,
        ]);
    }

    /// Reads one slot.
    ///
    /// # Errors
    /// [`Damage::Short`], [`Damage::BadMagic`], [`Damage::Checksum`] and [`Damage::Value`] if the
    /// bytes are no record; [`Damage::Format`] if they are one of a newer release.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let file = SUPERBLOCK_FILE;
        let slot = RawSlot::ref_from_bytes(bytes).map_err(|_| Damage::Short {
            file,
            len: bytes.len() as u64,
            needed: PAGE_LEN as u64,
        })?;
        if slot.magic != MAGIC {
            return Err(Damage::BadMagic { file });
        }
        if slot.sum.get() != slot.computed_sum() {
            return Err(Damage::Checksum { file });
        }
        if slot.format.get() > FORMAT {
            return Err(Damage::Format { file, found: slot.format.get(), newest: FORMAT });
        }
        let record = decode_fields(slot).map_err(|field| Damage::Value { file, field })?;
        if record.encode() != bytes {
            return Err(Damage::Value { file, field: "a reserved byte" });
        }
        Ok(record)
    }

    /// The newest valid record of the two slots.
    ///
    /// # Errors
    /// As [`newest_of_two`].
    pub fn newest(slots: &[u8]) -> Result<Self, Damage> {
        newest_of_two(SUPERBLOCK_FILE, slots, Self::decode, |record| record.counter)
    }
}

/// The error is the field with an impossible value.
fn decode_fields(slot: &RawSlot) -> Result<Superblock, &'static str> {
    let (size, size_next) = decode_sizes(slot)?;
    let history_len = usize::from(slot.history_len.get());
    let history = slot.history.get(..history_len).ok_or("the history's length")?;
    let resolution = match (slot.kept.decode(), slot.dropped.decode()) {
        (None, None) => None,
        (Some(kept), Some(dropped)) => Some(Resolution { kept, dropped }),
        _ => return Err("the resolution"),
    };
    let veto = match slot.veto {
        0 => None,
        1 => Some(Veto {
            reason: *from_code(&VETO_REASONS, slot.veto_reason).ok_or("the veto's reason")?,
            epoch: Epoch(slot.veto_epoch.get()),
        }),
        _ => return Err("the veto"),
    };
    Ok(Superblock {
        counter: slot.counter.get(),
        resource_id: ResourceId(slot.resource_id.get()),
        replica_id: ReplicaId(slot.replica_id.get()),
        peer_replica_id: ReplicaId(slot.peer_replica_id.get()),
        size,
        size_next,
        epoch: Epoch(slot.epoch.get()),
        promised: Epoch(slot.promised.get()),
        served_epoch: Epoch(slot.served_epoch.get()),
        owner: *from_code(&OWNERS, slot.owner).ok_or("the owner")?,
        generation: slot.generation.decode(),
        history: history
            .iter()
            .map(|it| it.decode().ok_or("the history"))
            .collect::<Result<_, _>>()?,
        history_dropped: slot.history_dropped.get(),
        disk: *from_code(&DISK_STATES, slot.disk).ok_or("the disk state")?,
        disk_reason: *from_code(&DISK_REASONS, slot.reason).ok_or("the disk's reason")?,
        serve_mode: *from_code(&SERVE_MODES, slot.mode).ok_or("the mode")?,
        veto,
        hold: slot.flags & HOLD != 0,
        never_promotes: slot.more_flags & NEVER_PROMOTES != 0,
        peer_never_promotes: slot.more_flags & PEER_NEVER_PROMOTES != 0,
        stopped: slot.more_flags & STOPPED != 0,
        forced: slot.flags & FORCED != 0,
        split: slot.more_flags & SPLIT != 0,
        stand_alone: slot.more_flags & STAND_ALONE != 0,
        clean: slot.flags & CLEAN != 0,
        resync_source: slot.resync_source.decode(),
        undo_base: slot.undo_base.decode(),
        resolution,
        applied: slot.applied.decode(),
        peer_applied: slot.peer_applied.decode(),
        place: Place {
            boot_id: slot.boot_id.get(),
            sidecar_mount: slot.sidecar_mount.get(),
            data_mount: slot.data_mount.get(),
            device: slot.device.get(),
            inode: slot.inode.get(),
        },
        memsync_secondary: slot.more_flags & MEMSYNC_SECONDARY != 0,
        instances: slot
            .instances
            .iter()
            .map(|it| Instance(it.get()))
            .take_while(|it| *it != Instance(0))
            .collect(),
        peer_instance: Instance(slot.peer_instance.get()),
        arbitration: decode_arbitration(slot)?,
    })
}

fn decode_arbitration(slot: &RawSlot) -> Result<Arbitration, &'static str> {
    let asked = match (slot.asked_first.get(), slot.asked_last.get()) {
        (0, 0) => None,
        (first, last) if first != 0 && first <= last => {
            Some(Asked { first: Epoch(first), last: Epoch(last) })
        }
        _ => return Err("the promotions that were asked for"),
    };
    Ok(Arbitration {
        arbiter: ArbiterId(slot.arbiter.get()),
        epoch: Epoch(slot.arbiter_epoch.get()),
        asked,
        lease_ms: slot.lease_ms.get(),
    })
}

fn decode_sizes(slot: &RawSlot) -> Result<(u64, u64), &'static str> {
    let (size, size_next) = (slot.size.get(), slot.size_next.get());
    ResourceSize::new(size).ok_or("the size")?;
    if size_next != 0 && (size_next < size || ResourceSize::new(size_next).is_none()) {
        return Err("the size after a resize");
    }
    Ok((size, size_next))
}

const MAGIC: [u8; 8] = *b"HPSUPER1";

const CLEAN: u8 = 1;
const HOLD: u8 = 2;
const FORCED: u8 = 4;

const NEVER_PROMOTES: u8 = 1;
const PEER_NEVER_PROMOTES: u8 = 2;
const STOPPED: u8 = 4;
const SPLIT: u8 = 8;
const STAND_ALONE: u8 = 16;
const MEMSYNC_SECONDARY: u8 = 32;

/// The place in its list is the code on disk: the lists only grow at their ends.
const DISK_STATES: [DiskState; 5] = [
    DiskState::UpToDate,
    DiskState::Outdated,
    DiskState::Inconsistent,
    DiskState::Failed,
    DiskState::Missing,
];
const DISK_REASONS: [DiskReason; 9] = [
    DiskReason::None,
    DiskReason::LostPower,
    DiskReason::HeldInMemory,
    DiskReason::Invalidated,
    DiskReason::Rebuilt,
    DiskReason::Fresh,
    DiskReason::IoError,
    DiskReason::NoSpace,
    DiskReason::Resync,
];
const SERVE_MODES: [ServeMode; 5] =
    [ServeMode::None, ServeMode::Paired, ServeMode::Gated, ServeMode::Solo, ServeMode::HandingOver];
const VETO_REASONS: [VetoReason; 8] = [
    VetoReason::Evicted,
    VetoReason::Left,
    VetoReason::NotEligible,
    VetoReason::Superseded,
    VetoReason::PowerLoss,
    VetoReason::RecordLost,
    VetoReason::IoError,
    VetoReason::Inconsistent,
];
const OWNERS: [Option<Side>; 3] = [None, Some(Side::First), Some(Side::Second)];

fn code<T: PartialEq>(list: &[T], value: &T) -> u8 {
    let place = list.iter().position(|it| it == value).expect("the list has every value");
    u8::try_from(place).expect("the lists are short")
}

fn from_code<T>(list: &[T], code: u8) -> Option<&T> {
    list.get(usize::from(code))
}

/// The first claim is bit 0.
fn bits(claims: &[bool]) -> u8 {
    claims.iter().rev().fold(0, |bits, claim| bits << 1 | u8::from(*claim))
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawGeneration {
    number: U64,
    id: U128,
}

impl RawGeneration {
    fn encode(generation: Option<Generation>) -> Self {
        let Generation { number, id } = generation.unwrap_or_default();
        Self { number: U64::new(number), id: U128::new(id) }
    }

    /// No generation has the id zero.
    fn decode(self) -> Option<Generation> {
        let generation = Generation { number: self.number.get(), id: self.id.get() };
        (generation.id != 0).then_some(generation)
    }
}

#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawApplied {
    epoch: U64,
    sequence: U64,
}

impl RawApplied {
    fn encode(applied: Applied) -> Self {
        Self { epoch: U64::new(applied.epoch.0), sequence: U64::new(applied.sequence.0) }
    }

    fn decode(self) -> Applied {
        Applied { epoch: Epoch(self.epoch.get()), sequence: Sequence(self.sequence.get()) }
    }
}

/// A slot byte for byte. What is zero now is the place of later stages.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSlot {
    magic: [u8; 8],
    format: U32,
    oldest_reader: U32,
    counter: U64,
    resource_id: U128,
    replica_id: U128,
    peer_replica_id: U128,
    size: U64,
    size_next: U64,
    epoch: U64,
    promised: U64,
    served_epoch: U64,
    generation: RawGeneration,
    resync_source: RawGeneration,
    undo_base: RawGeneration,
    kept: RawGeneration,
    dropped: RawGeneration,
    disk: u8,
    reason: u8,
    mode: u8,
    flags: u8,
    veto: u8,
    veto_reason: u8,
    zero: U16,
    veto_epoch: U64,
    boot_id: U128,
    sidecar_mount: U64,
    data_mount: U64,
    device: U64,
    inode: U64,
    applied: RawApplied,
    peer_applied: RawApplied,
    history_len: U16,
    history_dropped: U16,
    zero_2: U32,
    history: [RawGeneration; HISTORY_LEN_MAX],
    owner: u8,
    more_flags: u8,
    zero_4: [u8; 6],
    arbiter: U128,
    arbiter_epoch: U64,
    asked_first: U64,
    asked_last: U64,
    lease_ms: U32,
    promotion: [u8; 124],
    directory: [u8; 1024],
    instances: [U64; INSTANCES_LEN_MAX],
    peer_instance: U64,
    zero_3: [u8; 500],
    sum: U32,
}

const _: () = {
    assert!(size_of::<RawSlot>() == PAGE_LEN, "a slot is a page");
    assert!(std::mem::offset_of!(RawSlot, generation) == 112);
    assert!(std::mem::offset_of!(RawSlot, disk) == 232);
    assert!(std::mem::offset_of!(RawSlot, boot_id) == 248);
    assert!(std::mem::offset_of!(RawSlot, history_len) == 328);
    assert!(std::mem::offset_of!(RawSlot, owner) == 1872);
    assert!(std::mem::offset_of!(RawSlot, arbiter) == 1880);
    assert!(std::mem::offset_of!(RawSlot, directory) == 2048);
    assert!(std::mem::offset_of!(RawSlot, peer_instance) == 3584);
    assert!(std::mem::offset_of!(RawSlot, sum) == 4092);
};

impl RawSlot {
    fn computed_sum(&self) -> u32 {
        let (covered, _) = self.as_bytes().split_at(PAGE_LEN - size_of::<U32>());
        crc32c::crc32c(covered)
    }
}
