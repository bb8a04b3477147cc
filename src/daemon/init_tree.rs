//! What `hotpair init` says and does of a directory.

use std::path::Path;

use super::error::DaemonError;
use super::init::InitFrom;
use crate::config::NodeResource;
use crate::store::is_there;

/// Names of ours at the top of a tree.
const OURS: &str = ".hotpair";

/// Says what becomes of the tree; refuses what would lose some of it.
pub(super) fn plan_tree(
    resource: &NodeResource,
    from: InitFrom,
    says: &mut Vec<String>,
) -> Result<(), DaemonError> {
    let path = &resource.local.path;
    let shown = path.display();
    let is_made = !is_there(path).map_err(DaemonError::store(&resource.name))?;
    let is_empty = is_made || first_entry(resource, path)?.is_none();
    match from {
        InitFrom::This if is_made => {
            return Err(failed(resource, path)(std::io::Error::from(std::io::ErrorKind::NotFound)));
        }
        InitFrom::This => says.push(format!(
            "what is in {shown} is kept: it is the resource; all of it is read now"
        )),
        InitFrom::Empty | InitFrom::Peer if is_made => {
            says.push(format!("the directory {shown} is made"));
        }
        InitFrom::Empty | InitFrom::Peer if is_empty => {
            says.push(format!("{shown} is empty, and is used"));
        }
        InitFrom::Empty => {
            let entry = first_entry(resource, path)?.unwrap_or_default();
            return Err(DaemonError::TreeNotEmpty {
                resource: resource.name.clone(),
                path: path.clone(),
                entry,
            });
        }
        InitFrom::Peer => says.push(format!(
            "what the peer has in its tree TAKES THE PLACE of what is in {shown}; what differs or is only \
             here is set aside in lost+hotpair in the work area"
        )),
    }
    Ok(())
}

/// Makes the directory if it is not there.
pub(super) fn make_tree(resource: &NodeResource) -> Result<(), DaemonError> {
    let path = &resource.local.path;
    if is_there(path).map_err(DaemonError::store(&resource.name))? {
        return Ok(());
    }
    std::fs::create_dir(path).map_err(failed(resource, path))
}

/// Something in the tree that is not ours, escaped.
fn first_entry(resource: &NodeResource, path: &Path) -> Result<Option<String>, DaemonError> {
    for entry in std::fs::read_dir(path).map_err(failed(resource, path))? {
        let name = entry.map_err(failed(resource, path))?.file_name();
        if name != OURS && name != "lost+found" {
            return Ok(Some(name.to_string_lossy().escape_debug().to_string()));
        }
    }
    Ok(None)
}

fn failed<'a>(
    resource: &'a NodeResource,
    path: &'a Path,
) -> impl Fn(std::io::Error) -> DaemonError + 'a {
    move |source| DaemonError::Tree {
        resource: resource.name.clone(),
        path: path.to_owned(),
        source: Box::new(source),
    }
}
