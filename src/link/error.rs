//! Why a connection between the nodes ended, or never began.

use std::io;

use crate::wire::ProtocolError;
use crate::wire::message::Lane;

/// Why a connection to the peer cannot be used any more. It is closed; the next one is another.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The other end closed it, or the kernel found it dead.
    #[error("the peer closed the connection")]
    Closed,
    /// The network failed.
    #[error("cannot {action} the connection")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The peer broke the rules of TLS, or somebody between the nodes did.
    #[cfg(feature = "_tls")]
    #[error("the encrypted connection was broken into, or is damaged")]
    Tls(#[source] rustls::Error),
    /// The peer broke the rules of the protocol.
    #[error("the peer broke the protocol")]
    Protocol(#[source] ProtocolError),
    /// It began with something else than who it is.
    #[error("the first frame is not a Hello")]
    NotHello,
    /// The peer takes nothing while more and more is to be said to it.
    #[error("the peer takes too little: {queued_bytes} bytes wait in lane {lane:?}")]
    Stalled {
        /// Where they wait.
        lane: Lane,
        /// How many.
        queued_bytes: usize,
    },
}

impl LinkError {
    /// What an error of the transport means.
    pub(super) fn of_io(action: &'static str, source: io::Error) -> Self {
        #[cfg(feature = "_tls")]
        if let Some(broken) = source.get_ref().and_then(|inner| inner.downcast_ref()) {
            return Self::Tls(rustls::Error::clone(broken));
        }
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Closed;
        }
        Self::Io { action, source }
    }

    /// Whether the peer, not the network, is to blame.
    pub fn is_protocol_error(&self) -> bool {
        match self {
            #[cfg(feature = "_tls")]
            Self::Tls(_) => true,
            Self::Protocol(_) | Self::NotHello | Self::Stalled { .. } => true,
            Self::Closed | Self::Io { .. } => false,
        }
    }
}

/// Why no two nodes came together on a fresh connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The network failed, or TLS did: the error inside says which.
    #[error("cannot {action} {address}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The other end.
        address: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody is there and says nothing.
    #[error("{address} did not finish to {action} within {seconds} s")]
    Timeout {
        /// What was tried.
        action: &'static str,
        /// The other end.
        address: String,
        /// How long it had.
        seconds: u64,
    },
    /// TLS works, but it is not a hotpair of ours.
    #[error("{address} proved no configured key for this protocol")]
    NotOurs {
        /// The other end.
        address: String,
    },
    /// A key that is not configured. Somebody else has that address, or the node a new identity.
    #[error("{address} has the key {shown}, which is not the `identity` of {expected}")]
    UnknownKey {
        /// The other end.
        address: String,
        /// The fingerprint of the key.
        shown: String,
        /// Who is expected there, with what is configured.
        expected: String,
    },
    /// The other end does not trust us.
    #[error("{address} does not accept the key of this node, {mine}")]
    OurKey {
        /// The other end.
        address: String,
        /// Our fingerprint.
        mine: String,
    },
    /// Something else than TLS came.
    #[error("{address} does not speak TLS, and this node has encryption = \"tls\"")]
    NotTls {
        /// The other end.
        address: String,
    },
    /// It closed in the middle of the handshake, as one does that does not speak TLS.
    #[error("{address} closed the connection during the TLS handshake")]
    HungUp {
        /// The other end.
        address: String,
    },
    /// Another node than the one that is configured there.
    #[error("{address} is node {found:?}, not {expected:?}: check `replication` and `identity`")]
    OtherNode {
        /// The other end.
        address: String,
        /// Whose key it proved.
        found: String,
        /// Whose address it is.
        expected: String,
    },
    /// This node's data thread does not take it.
    #[error("the resource is not ready for a connection")]
    NotTaken,
}
