//! From the files of a replica to its core and its disk.

use std::path::PathBuf;

use tracing::{info, warn};

use super::error::DaemonError;
use super::tree::{OpenedTree, TreeDesk, open_tree, register_path};
use super::{clock, random};
use crate::config::{NodeConfig, NodeResource};
use crate::metadata::{Crash, Found, Recovered, Superblock, recover, sum_head};
use crate::replica::{Replica, Settings, Start};
use crate::store::{CanaryCopy, DataFile, MappedMap, Sidecar, Store, Threads, place};
use crate::units::{Instance, ReplicaId, ResourceSize};
use crate::wire::BufferPool;

/// One resource of this node, ready to be driven.
pub(super) struct Opened {
    pub(super) core: Replica<MappedMap>,
    pub(super) store: Store,
    /// Without it the next start counts as a power loss, which is safe.
    pub(super) canary: Option<CanaryCopy>,
    pub(super) pool: BufferPool,
    /// Of a directory: its desk, and why its tree fell back at this start, if it did.
    pub(super) tree: Option<(TreeDesk, Option<String>)>,
}

/// Opens, locks and recovers everything of one resource, for this run of the daemon.
///
/// # Errors
/// [`DaemonError`] says what is missing or cannot be believed; nothing was changed then.
pub(super) fn open(
    node: &NodeConfig,
    resource: &NodeResource,
    instance: Instance,
) -> Result<Opened, DaemonError> {
    let failed = DaemonError::store(&resource.name);
    let folder = &resource.metadata_dir;
    if !Sidecar::exists(folder).map_err(DaemonError::store(&resource.name))? {
        return Err(DaemonError::NotInitialised {
            resource: resource.name.clone(),
            folder: folder.clone(),
        });
    }
    let damaged = |source| DaemonError::Damaged {
        resource: resource.name.clone(),
        folder: folder.clone(),
        source,
    };
    let sidecar = Sidecar::open(folder).map_err(&failed)?;
    let slots = sidecar.read_superblock().map_err(&failed)?;
    let newest = Superblock::newest(&slots).map_err(damaged)?;
    // A resize that did not end goes forward or back when the nodes meet: both sizes are right.
    if ![newest.size, newest.size_next].contains(&resource.size.bytes()) {
        return Err(DaemonError::Size {
            resource: resource.name.clone(),
            configured: resource.size.bytes(),
            recorded: newest.size,
        });
    }
    let size = ResourceSize::new(newest.size).expect("the record was validated");
    // It says what the tree is, which has to come to rest before.
    let mut tree = open_tree(node, resource, newest.epoch)?;
    let path = match &tree {
        Some(_) => register_path(resource),
        None => resource.local.path.clone(),
    };
    let data = DataFile::open(&path, size).map_err(&failed)?;
    let place = place(&data, folder).map_err(&failed)?;
    let (canary, canary_copy) = match CanaryCopy::open(&canary_paths(newest.replica_id)) {
        Ok((canary, copy)) => (Some(canary), copy),
        Err(error) => {
            warn!(resource = %resource.name, error = &error as &dyn std::error::Error,
                "no canary in memory: the next start will count as a power loss");
            (None, None)
        }
    };
    let recovered: Recovered<MappedMap> = recover(Found {
        superblock: &slots,
        dirty_map: sidecar.map().map_err(&failed)?,
        dirty_sum: &sidecar.read_dirty_sum().map_err(&failed)?,
        activity_log: &sidecar.read_activity_log().map_err(&failed)?,
        place,
        canary_copy,
        data_len: data.len_bytes().map_err(&failed)?,
    })
    .map_err(damaged)?;
    if recovered.sums_lost {
        warn!(resource = %resource.name,
            "the sums of the dirty map are damaged: they count for nothing and are made anew");
        let head = sum_head(size, &recovered.superblock.ids());
        sidecar.remake_dirty_sum(size, &head).map_err(&failed)?;
    }
    info!(resource = %resource.name, crash = ?recovered.crash, doubtful = recovered.doubtful,
        marked_blocks = recovered.dirty.count(), "recovered");
    if let (Some(tree), Crash::Power) = (&mut tree, recovered.crash) {
        note_lost_power(resource, tree)?;
    }
    let settings = settings(node, resource, data.zeroing_is_cheap());
    let start =
        Start { instance, fresh_ids: vec![random::id()?, random::id()?], now: clock::now(), place };
    let pool = BufferPool::new(crate::wire::payload::PoolLimits::default());
    let store = Store::new(data, sidecar, pool.clone(), threads()).map_err(&failed)?;
    let tree = tree.map(|tree| OpenedTree::start(tree, &resource.name)).transpose();
    let tree = tree.map_err(&failed)?;
    Ok(Opened { core: Replica::new(settings, recovered, start), store, canary, pool, tree })
}

fn threads() -> Threads {
    match std::env::var_os("HOTPAIR_ONE_THREAD") {
        Some(_) => Threads::None,
        None => Threads::default(),
    }
}

fn note_lost_power(resource: &NodeResource, tree: &mut OpenedTree) -> Result<(), DaemonError> {
    tree.note_lost_power().map_err(|source| DaemonError::Tree {
        resource: resource.name.clone(),
        path: resource.local.path.clone(),
        source: Box::new(source),
    })
}

/// Where the copy of the canary may be: file systems that a power loss empties.
pub(super) fn canary_paths(replica: ReplicaId) -> [PathBuf; 2] {
    let name = format!("hotpair-canary-{:032x}", replica.0);
    [PathBuf::from("/run/hotpair").join(&name), PathBuf::from("/dev/shm").join(&name)]
}

fn settings(node: &NodeConfig, resource: &NodeResource, zeroing_is_cheap: bool) -> Settings {
    let local = &resource.local;
    Settings {
        side: node.side,
        cluster: node.cluster.clone(),
        node: node.node.name.clone(),
        peer: node.peer.name.clone(),
        resource: resource.name.clone(),
        mode: resource.mode,
        flush_both: resource.flush_both,
        at_risk_bytes: local.at_risk_bytes,
        at_risk_age: local.at_risk_age,
        resync_rate: local.resync_rate,
        settings_hash: resource.settings_hash,
        zeroing_is_cheap,
        ping_interval: node.interval,
        suspect_after: node.suspect_after,
        io_timeout: node.io_timeout(),
        prefer: resource.prefer,
        is_register: resource.directory.is_some(),
        has_services: resource.local.hooks.is_some(),
        asks_by_datagram: !node.node.heartbeat.is_empty(),
        controller: super::arbiter::controller_settings(node, resource),
        alone: super::fence::alone_settings(node),
        ..Settings::default()
    }
}
