//! NBD listeners: each exists exactly while something is served at its address.

use std::collections::BTreeMap;

use tokio::sync::mpsc;
use tracing::{error, info};

use crate::config::Export as Address;
use crate::nbd::{Export, Listener};

/// What the data threads want of the listeners.
#[derive(Debug)]
pub(super) enum ExportOrder {
    /// Take clients.
    Open {
        /// Name of the resource.
        resource: String,
        /// What is offered, and where connections go.
        export: Box<Export>,
    },
    /// Take no more.
    Close {
        /// Name of the resource.
        resource: String,
    },
}

/// Carries the orders out until every data thread is gone.
pub(super) async fn serve(
    addresses: BTreeMap<String, Address>,
    peer: String,
    mut orders: mpsc::Receiver<ExportOrder>,
) {
    let mut listeners: BTreeMap<String, Listener> = BTreeMap::new();
    while let Some(order) = orders.recv().await {
        match order {
            ExportOrder::Open { resource, export } => {
                let Some(address) = addresses.get(&resource) else { continue };
                let key = address.to_string();
                if !listeners.contains_key(&key) {
                    match Listener::bind(address) {
                        Ok(listener) => {
                            listeners.insert(key.clone(), listener);
                        }
                        Err(error) => {
                            error!(
                                resource,
                                error = &error as &dyn std::error::Error,
                                "nobody can connect: the export cannot be opened"
                            );
                            continue;
                        }
                    }
                }
                info!(resource, export = %address, "export opened");
                if let Some(listener) = listeners.get(&key) {
                    listener.offer(*export);
                }
            }
            ExportOrder::Close { resource } => {
                let Some(address) = addresses.get(&resource) else { continue };
                let key = address.to_string();
                let is_idle = listeners.get(&key).is_some_and(|listener| {
                    listener.withdraw(&resource, Some(&peer));
                    listener.is_idle()
                });
                if is_idle {
                    listeners.remove(&key);
                }
                info!(resource, export = %address, "export closed");
            }
        }
    }
}
