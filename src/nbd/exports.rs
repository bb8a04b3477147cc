//! What a listener offers.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::handshake::Opened;
use super::protocol::option::AskedName;
use crate::units::{Epoch, ResourceSize};

/// Most connections to one export.
pub const CONNECTIONS_MAX: usize = 64;

/// A resource that is served here, under one grant.
#[derive(Clone, Debug)]
pub struct Export {
    pub(super) name: Arc<str>,
    pub(super) description: Arc<str>,
    pub(super) size: ResourceSize,
    pub(super) epoch: Epoch,
    pub(super) clients: mpsc::Sender<Opened>,
    seats: Arc<Semaphore>,
}

impl Export {
    /// An export named like its resource. Connections that were negotiated go to `clients`.
    pub fn new(
        name: &str,
        size: ResourceSize,
        epoch: Epoch,
        clients: mpsc::Sender<Opened>,
    ) -> Self {
        Self {
            name: name.into(),
            description: format!("hotpair resource {name}").into(),
            size,
            epoch,
            clients,
            seats: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }

    /// The same export with another size, for clients that connect from here on.
    #[must_use]
    pub fn with_size(self, size: ResourceSize) -> Self {
        Self { size, ..self }
    }

    /// A place among the [`CONNECTIONS_MAX`], free again when dropped.
    pub(super) fn take_seat(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.seats).try_acquire_owned().ok()
    }
}

/// All exports of one listener.
#[derive(Debug, Default)]
pub(super) struct Exports {
    pub(super) served: Vec<Export>,
    elsewhere: Vec<Elsewhere>,
    /// No export is opened any more (N11).
    pub(super) is_closing: bool,
}

/// A resource that has this listener's address but is not served here.
#[derive(Debug)]
struct Elsewhere {
    name: String,
    primary: Option<String>,
}

impl Exports {
    /// Serves `export`, in place of an earlier one of that name.
    pub(super) fn offer(&mut self, export: Export) {
        self.forget(&export.name.clone());
        self.served.push(export);
    }

    /// Serves `name` no longer; clients that ask are told who does.
    pub(super) fn withdraw(&mut self, name: &str, primary: Option<&str>) {
        self.forget(name);
        let primary = primary.map(str::to_owned);
        self.elsewhere.push(Elsewhere { name: name.to_owned(), primary });
    }

    fn forget(&mut self, name: &str) {
        self.served.retain(|export| *export.name != *name);
        self.elsewhere.retain(|export| export.name != name);
    }

    /// The export of that name. The empty name means the only resource of the listener.
    ///
    /// # Errors
    /// Why it is unknown, for the client.
    pub(super) fn find(&self, name: AskedName<'_>) -> Result<&Export, String> {
        let AskedName::Text(name) = name else {
            return Err("no export has a name that is not UTF-8 text without NUL".to_owned());
        };
        if name.is_empty() {
            return match (self.served.as_slice(), self.elsewhere.as_slice()) {
                ([export], []) => Ok(export),
                ([], [only]) => Err(only.explain()),
                _ => Err("the empty name is ambiguous here: name the export".to_owned()),
            };
        }
        if let Some(export) = self.served.iter().find(|export| *export.name == *name) {
            return Ok(export);
        }
        match self.elsewhere.iter().find(|export| export.name == name) {
            Some(export) => Err(export.explain()),
            None => Err(format!("there is no export {name:?} here")),
        }
    }
}

impl Elsewhere {
    fn explain(&self) -> String {
        match &self.primary {
            Some(primary) => format!("{} is not served here, its primary is {primary}", self.name),
            None => format!("{} is not served here, and its primary is not known", self.name),
        }
    }
}
