//! What a replica must remember before it may act: one 4 KiB record in two slots.

use crate::units::{
    Applied, DiskReason, DiskState, Epoch, Generation, Instance, ReplicaId, Resolution,
    ResourceId, ServeMode, Side, Veto,
};

/// The newest record of a replica. Fields that limit the future are stable before anything relies
/// on them: the record is only ever read through [`super::Durable`].
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
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
    /// Its last runs, newest first, at most 64.
    pub instances: Vec<Instance>,
    /// The peer's last run.
    pub peer_instance: Instance,
}

/// Where a record was written: another place at the next start means a power loss at least.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Place {
    /// The kernel's boot id.
    pub boot_id: u128,
    /// Mount id of the folder of the metadata.
    pub sidecar_mount: u64,
    /// Mount id of the data file.
    pub data_mount: u64,
    /// Device number of the data file.
    pub device: u64,
    /// Inode of the data file.
    pub inode: u64,
}
