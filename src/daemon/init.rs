//! `hotpair init`: makes the metadata of a replica, and its data file where that is absent.
//!
//! It is in two steps: a plan, which says what would happen to data and refuses what would lose
//! some, and its execution.

use std::fs::File;
use std::io::Read;

use super::error::DaemonError;
use super::init_tree::{make_tree, plan_tree};
use super::random;
use super::tree::{capture_first, prepare_register, register_path};
use crate::config::{NodeConfig, NodeResource};
use crate::metadata::{Birth, Newborn, birth};
use crate::store::{DataFile, Existing, Sidecar, StoreError, is_there, place};
use crate::units::{ReplicaId, ResourceId};

/// Where the data comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InitFrom {
    /// What lies in the file is the resource.
    This,
    /// The peer sends it.
    Peer,
    /// Zeroes are the resource.
    Empty,
}

/// What `init` would do.
#[derive(Debug)]
pub struct InitPlan {
    cluster: String,
    resource: NodeResource,
    from: InitFrom,
    existing: Existing,
    creates_file: bool,
    /// What happens to data, in sentences.
    pub says: Vec<String>,
}

/// Says what `init` would do with `resource`.
///
/// # Errors
/// If there is metadata already and `rebuild` was not asked for, or the data file does not fit.
pub fn plan_init(
    node: &NodeConfig,
    resource: &NodeResource,
    from: InitFrom,
    rebuild: bool,
) -> Result<InitPlan, DaemonError> {
    let failed = DaemonError::store(&resource.name);
    let folder = &resource.metadata_dir;
    let path = &resource.local.path;
    let mut says = Vec::new();
    let existing = match (Sidecar::exists(folder).map_err(&failed)?, rebuild) {
        (true, false) => {
            let path = folder.join(crate::metadata::SUPERBLOCK_FILE);
            return Err(failed(StoreError::Exists { path }));
        }
        (true, true) => {
            says.push(format!("the metadata in {} is given up and made anew", folder.display()));
            Existing::Replace
        }
        (false, _) => {
            says.push(format!("metadata is made in {}", folder.display()));
            Existing::Keep
        }
    };
    if resource.directory.is_some() {
        plan_tree(resource, from, &mut says)?;
        let (cluster, resource) = (node.cluster.clone(), resource.clone());
        return Ok(InitPlan { cluster, resource, from, existing, creates_file: false, says });
    }
    let creates_file = !is_there(path).map_err(&failed)?;
    if let Some(parent) = path.parent().filter(|_| creates_file && from != InitFrom::This)
        && !is_there(parent).map_err(&failed)?
    {
        return Err(failed(StoreError::NoFolder { path: parent.to_owned() }));
    }
    let size = resource.size.bytes();
    let shown = path.display();
    match (from, creates_file) {
        (InitFrom::This, true) => {
            return Err(failed(StoreError::Missing { path: path.clone() }));
        }
        (InitFrom::This, false) => {
            says.push(format!("the first {size} bytes of {shown} are kept: they are the resource"));
        }
        (InitFrom::Empty | InitFrom::Peer, true) => {
            says.push(format!("{shown} is made, {size} bytes, all zero, without space allocated"));
        }
        (InitFrom::Empty, false) => {
            says.push(format!("{shown} is kept if all of it reads as zero, else refused"));
        }
        (InitFrom::Peer, false) => says.push(format!(
            "{shown} WILL BE OVERWRITTEN by the peer's data wherever the two differ"
        )),
    }
    if !creates_file {
        // Everything that would refuse the file later refuses it now.
        DataFile::open(path, resource.size).map_err(failed)?;
    }
    let (cluster, resource) = (node.cluster.clone(), resource.clone());
    Ok(InitPlan { cluster, resource, from, existing, creates_file, says })
}

impl InitPlan {
    /// Carries it out. `progress` is told bytes checked and bytes in all.
    ///
    /// # Errors
    /// [`DaemonError::Store`]; there is no metadata then, unless there was before.
    pub fn execute(self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), DaemonError> {
        let name = self.resource.name.clone();
        let failed = DaemonError::store(&name);
        let mut path = self.resource.local.path.clone();
        if self.resource.directory.is_some() {
            make_tree(&self.resource)?;
            prepare_register(&self.cluster, &self.resource)?;
            if self.from != InitFrom::Peer {
                capture_first(&self.cluster, &self.resource)?;
            }
            path = register_path(&self.resource);
        }
        let path = &path;
        if self.creates_file {
            DataFile::create(path, self.resource.size).map_err(&failed)?;
        }
        let data = DataFile::open(path, self.resource.size).map_err(&failed)?;
        if self.from == InitFrom::Empty && !self.creates_file && self.resource.directory.is_none() {
            self.check_zero(progress)?;
        }
        let kind = match (self.from, self.existing) {
            (InitFrom::This, _) => Birth::This,
            (InitFrom::Empty, _) => Birth::Empty,
            (InitFrom::Peer, Existing::Keep) => Birth::Peer,
            (InitFrom::Peer, Existing::Replace) => Birth::Rebuilt,
        };
        let newborn = Newborn {
            resource_id: ResourceId(random::id()?),
            replica_id: ReplicaId(random::id()?),
            generation_id: random::id()?,
            size: self.resource.size,
            place: place(&data, &self.resource.metadata_dir).map_err(&failed)?,
        };
        let files = birth(kind, &newborn);
        Sidecar::create(&self.resource.metadata_dir, &files, self.existing).map_err(&failed)
    }

    /// Reads all of the file: a hole is only a hint, and a wrong one would be lost data.
    fn check_zero(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), DaemonError> {
        let path = &self.resource.local.path;
        let total = self.resource.size.bytes();
        let failed = |source| {
            let source = StoreError::Io { path: path.clone(), action: "read", source };
            DaemonError::Store { resource: self.resource.name.clone(), source }
        };
        let mut file = File::open(path).map_err(failed)?;
        let mut buffer = vec![0; READ_LEN];
        let mut done = 0u64;
        while done < total {
            let left = usize::try_from(total - done).unwrap_or(READ_LEN).min(READ_LEN);
            let count = file.read(&mut buffer[..left]).map_err(failed)?;
            if count == 0 {
                break;
            }
            if let Some(index) = buffer[..count].iter().position(|byte| *byte != 0) {
                return Err(DaemonError::NotEmpty {
                    resource: self.resource.name.clone(),
                    path: path.clone(),
                    offset: done + u64::try_from(index).unwrap_or(0),
                });
            }
            done += u64::try_from(count).unwrap_or(0);
            progress(done, total);
        }
        Ok(())
    }
}

/// Bytes read at a time.
const READ_LEN: usize = 1 << 20;
