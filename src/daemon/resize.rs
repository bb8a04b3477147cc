//! `hotpair resize` while the daemon is stopped: a longer data file, and metadata that says so.
//!
//! The new part is marked, so that the next session compares it: what lay behind the old end of a
//! file or device may be anything, and another thing on each node.

use super::error::DaemonError;
use crate::config::NodeResource;
use crate::metadata::{Crash, DirtyMap, Found, Recovered, Superblock, recover};
use crate::store::{DataFile, MappedMap, Sidecar, place};
use crate::units::{BlockRange, ResourceSize};

/// What a resize would do.
#[derive(Debug)]
pub struct ResizePlan {
    resource: NodeResource,
    sidecar: Sidecar,
    data: DataFile,
    record: Superblock,
    dirty: DirtyMap<MappedMap>,
    size: ResourceSize,
    /// What happens, in sentences; empty if it has that size already.
    pub says: Vec<String>,
}

/// Says what it means for this node's copy to have `size_bytes`, and locks it until then.
///
/// # Errors
/// If a daemon runs or did not stop cleanly, if it would become smaller, or if metadata or data
/// file cannot be used; nothing was changed then.
pub fn plan_resize(resource: &NodeResource, size_bytes: u64) -> Result<ResizePlan, DaemonError> {
    let failed = DaemonError::store(&resource.name);
    let name = || resource.name.clone();
    let folder = &resource.metadata_dir;
    if !Sidecar::exists(folder).map_err(&failed)? {
        return Err(DaemonError::NotInitialised { resource: name(), folder: folder.clone() });
    }
    let sidecar = Sidecar::open(folder).map_err(&failed)?;
    let damaged = |source| DaemonError::Damaged {
        resource: name(),
        folder: resource.metadata_dir.clone(),
        source,
    };
    let slots = sidecar.read_superblock().map_err(&failed)?;
    let recorded = Superblock::newest(&slots).map_err(damaged)?.size;
    let old = ResourceSize::new(recorded).expect("a valid record has a valid size");
    let size = ResourceSize::new(size_bytes).filter(|size| *size >= old);
    let size =
        size.ok_or_else(|| DaemonError::BadSize { resource: name(), recorded, asked: size_bytes })?;
    let data = DataFile::open(&resource.local.path, old).map_err(&failed)?;
    let Recovered { superblock: record, dirty, crash, .. } = recover(Found {
        superblock: &slots,
        dirty_map: sidecar.map().map_err(&failed)?,
        dirty_sum: &sidecar.read_dirty_sum().map_err(&failed)?,
        activity_log: &sidecar.read_activity_log().map_err(&failed)?,
        place: place(&data, folder).map_err(&failed)?,
        canary_copy: None,
        data_len: data.len_bytes().map_err(&failed)?,
    })
    .map_err(damaged)?;
    if crash != Crash::Clean {
        return Err(DaemonError::NotClean { resource: name() });
    }
    let mut says = Vec::new();
    if size_bytes > recorded {
        let shown = resource.local.path.display();
        says.push(format!("{shown} grows from {recorded} to {size_bytes} bytes"));
        says.push("the new part is compared with the peer's when both run again".to_owned());
    }
    Ok(ResizePlan { resource: resource.clone(), sidecar, data, record, dirty, size, says })
}

impl ResizePlan {
    /// Carries it out. The record comes last: until then the copy has its old size, and a longer
    /// file and a longer map do no harm.
    ///
    /// # Errors
    /// [`DaemonError::Store`]; the copy has its old size then.
    pub fn execute(mut self) -> Result<(), DaemonError> {
        let failed = DaemonError::store(&self.resource.name);
        let old = ResourceSize::new(self.record.size).expect("a valid record has a valid size");
        if self.size == old {
            return Ok(());
        }
        self.data.grow(old, self.size).map_err(&failed)?;
        let dirty = &mut self.dirty;
        self.sidecar.grow(old, self.size).map_err(&failed)?;
        dirty.grow(self.sidecar.map().map_err(&failed)?, self.size);
        // The last block of the old size may have been a short one: its rest is new.
        let first = old.bytes() / crate::units::BLOCK_LEN;
        dirty.set_range(BlockRange { first, end: self.size.block_count() });
        let pages = dirty.take_changed_pages();
        let sums: Vec<_> = pages.into_iter().map(|page| (page, dirty.page_sum(page))).collect();
        let size = self.size.bytes();
        let counter = self.record.counter + 1;
        let record = Superblock { counter, size, size_next: 0, ..self.record };
        self.sidecar.save(&sums, &record).map_err(&failed)
    }
}
