//! Why etcd says nothing that counts.

use std::io;
use std::time::Duration;

use super::plan::Spoiled;

/// What went wrong with one member.
#[derive(Debug, thiserror::Error)]
pub(super) enum EtcdError {
    /// The network failed, or TLS did.
    #[error("{endpoint}: cannot {action}")]
    Io {
        /// Which member.
        endpoint: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel or TLS said.
        source: io::Error,
    },
    /// The connection ended, or carried something else than HTTP.
    #[error("{endpoint}: the connection ended")]
    Http {
        /// Which member.
        endpoint: String,
        /// What hyper said.
        source: hyper::Error,
    },
    /// No answer: the member is stopped, or cut off from the others.
    #[error("{endpoint}: no answer to {path} within {limit:?}")]
    Slow {
        /// Which member.
        endpoint: String,
        /// What was asked.
        path: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// An answer that is longer than anything we have stored.
    #[error("{endpoint}: the answer to {path} has more than {max} bytes: look at our keys there")]
    TooLong {
        /// Which member.
        endpoint: String,
        /// What was asked.
        path: &'static str,
        /// The limit.
        max: usize,
    },
    /// It refuses.
    #[error("{endpoint}: {path} is refused with status {status}: {message}")]
    Refused {
        /// Which member.
        endpoint: String,
        /// What was asked.
        path: &'static str,
        /// Of HTTP.
        status: u16,
        /// Its words, cut short.
        message: String,
    },
    /// Something else than etcd answers there.
    #[error("{endpoint}: the answer to {path} is none of etcd")]
    NoSense {
        /// Which member.
        endpoint: String,
        /// What was asked.
        path: &'static str,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// etcd did something that it cannot do.
    #[error("{endpoint}: {what}")]
    Odd {
        /// Which member.
        endpoint: String,
        /// What.
        what: &'static str,
    },
    /// The key that says which store this is has a value that is none of ours.
    #[error(transparent)]
    Spoiled(Spoiled),
}

impl EtcdError {
    /// Whether a put was refused because its lease is over.
    pub(super) fn is_of_lease(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains("requested lease not found"))
    }
}
