//! `hotpair check --offline`: examines a replica without a daemon, and changes nothing.

use super::error::DaemonError;
use super::open::canary_paths;
use crate::config::NodeResource;
use crate::metadata::{Crash, DIRTY_MAP_FILE, Damage, Found, MapMemory, Superblock, recover};
use crate::store::{CanaryCopy, DataFile, Sidecar, place, read_file};
use crate::units::{BLOCK_LEN, RESOURCE_LEN_MAX, ResourceSize};

/// One thing that was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// It is as it should be.
    pub is_good: bool,
    /// What was found, as a sentence.
    pub text: String,
    /// What to type, if it is not.
    pub next: Option<String>,
}

impl Finding {
    fn good(text: String) -> Self {
        Self { is_good: true, text, next: None }
    }

    /// What the daemon refuses, with its way out.
    fn refused(text: String, error: &DaemonError) -> Self {
        Self { is_good: false, text, next: error.mend() }
    }

    /// What the daemon mends by itself.
    fn mends_itself(text: &str) -> Self {
        Self { is_good: false, text: text.to_owned(), next: Some("hotpair run".to_owned()) }
    }
}

/// Examines metadata and data file of `resource`.
///
/// # Errors
/// If they cannot even be opened: a daemon runs, a file is missing, or others could change it.
pub fn check_offline(resource: &NodeResource) -> Result<Vec<Finding>, DaemonError> {
    let failed = DaemonError::store(&resource.name);
    let folder = &resource.metadata_dir;
    if !Sidecar::exists(folder).map_err(&failed)? {
        return Err(DaemonError::NotInitialised {
            resource: resource.name.clone(),
            folder: folder.clone(),
        });
    }
    let sidecar = Sidecar::open(folder).map_err(&failed)?;
    let slots = sidecar.read_superblock().map_err(&failed)?;
    let damaged = |what: &str, source: Damage| {
        let text = format!("{what}: {source}");
        let (resource, folder) = (resource.name.clone(), folder.clone());
        Finding::refused(text, &DaemonError::Damaged { resource, folder, source })
    };
    let record = match Superblock::newest(&slots) {
        Ok(record) => record,
        Err(damage) => return Ok(vec![damaged("superblock", damage)]),
    };
    let mut findings = vec![Finding::good(format!(
        "superblock: disk {}, epoch {}, {}",
        record.disk,
        record.epoch,
        record.generation.map_or("no generation yet".to_owned(), |g| format!("generation {g}")),
    ))];
    let recorded = ResourceSize::new(record.size).expect("a valid record has a valid size");
    findings.extend(size_finding(resource, &record));
    if record.size_next != 0 {
        let text = format!("size: a resize to {} bytes is under way", record.size_next);
        findings.push(Finding::good(text));
    }
    let data = DataFile::open(&resource.local.path, recorded).map_err(&failed)?;
    let map_path = folder.join(DIRTY_MAP_FILE);
    let map = read_file(&map_path, map_len_max()).map_err(&failed)?;
    let recovered = recover(Found {
        superblock: &slots,
        dirty_map: map,
        dirty_sum: &sidecar.read_dirty_sum().map_err(&failed)?,
        activity_log: &sidecar.read_activity_log().map_err(&failed)?,
        place: place(&data, folder).map_err(&failed)?,
        canary_copy: CanaryCopy::peek(&canary_paths(record.replica_id)),
        data_len: data.len_bytes().map_err(&failed)?,
    });
    match recovered {
        Err(damage) => findings.push(damaged("metadata", damage)),
        Ok(recovered) => {
            findings.push(log_finding(recovered.log_lost, recovered.hot.len()));
            if recovered.sums_lost {
                let text = "sums of the dirty map: damaged; the next start makes them anew";
                findings.push(Finding::mends_itself(text));
            }
            findings.push(Finding::good(match recovered.crash {
                Crash::Clean => "the daemon stopped cleanly".to_owned(),
                Crash::Process => {
                    "the daemon ended without a stop: the dirty map is exact".to_owned()
                }
                Crash::Power => {
                    "power was lost, or it looks like it: the next start recovers".to_owned()
                }
            }));
            findings.push(marks_finding(&recovered.dirty));
        }
    }
    Ok(findings)
}

/// What is wrong with the size in the configuration.
fn size_finding(resource: &NodeResource, record: &Superblock) -> Option<Finding> {
    let (configured, recorded) = (resource.size.bytes(), record.size);
    if [recorded, record.size_next].contains(&configured) {
        return None;
    }
    let text = format!("size: the configuration says {configured} bytes, the metadata {recorded}");
    let resource = resource.name.clone();
    Some(Finding::refused(text, &DaemonError::Size { resource, configured, recorded }))
}

/// A map may be longer than its resource needs, after a resize that did not come to its end; not
/// longer than that of the largest.
fn map_len_max() -> usize {
    let largest = ResourceSize::new(RESOURCE_LEN_MAX).expect("it is the largest size");
    usize::try_from(crate::metadata::DirtyMap::<Vec<u8>>::file_len(largest))
        .expect("the map of the largest resource fits in memory")
}

fn log_finding(is_lost: bool, hot: usize) -> Finding {
    if is_lost {
        Finding::mends_itself("activity log: unreadable; the next start marks every block")
    } else {
        Finding::good(format!("activity log: {hot} extents were in motion"))
    }
}

fn marks_finding<M: MapMemory>(dirty: &crate::metadata::DirtyMap<M>) -> Finding {
    let bytes = dirty.count() * BLOCK_LEN;
    Finding::good(format!("dirty map: {bytes} bytes may differ from the peer"))
}
