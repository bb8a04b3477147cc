//! The keys of a witness and of the nodes that ask it, as values for `arbiter`.
//!
//! A witness has an identity as a node has, in its state folder. It takes any key that a node
//! proves, since it knows none before; a node trusts only the key that is configured.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::identity::{Fingerprint, Identity};
use super::security::IdentityError;
use super::tls::{self, HandshakeFailure};

/// How a witness does its part of a handshake.
#[derive(Clone, Debug)]
pub struct WitnessServer {
    /// Shows the key of the witness.
    pub config: Arc<rustls::ServerConfig>,
    /// The fingerprint of the key that a node proved.
    pub key_of: fn(&rustls::ServerConnection) -> Option<[u8; 32]>,
    /// What nodes must have as `witness_identity`.
    pub fingerprint: Fingerprint,
}

/// How a node does its part.
#[derive(Clone, Debug)]
pub struct WitnessClient {
    /// Shows the key of the node, and trusts that of the witness.
    pub config: Arc<rustls::ClientConfig>,
    /// Whether the other end speaks the protocol of a witness.
    pub is_witness: fn(&rustls::ClientConnection) -> bool,
    /// The key for which a handshake was given up, if that was why.
    pub other_key: fn(&io::Error) -> Option<String>,
}

/// For the witness whose identity is in `state_dir`; it is made first if there is none.
///
/// # Errors
/// If the identity cannot be made, read or trusted; the error says how to mend it.
pub fn witness_server(state_dir: &Path) -> Result<WitnessServer, IdentityError> {
    let identity = Identity::load_or_make(state_dir)?;
    let fingerprint = identity.fingerprint();
    let config = tls::witness_server(identity).map_err(|error| unusable(&error))?;
    Ok(WitnessServer { config, key_of: tls::key_of_node, fingerprint })
}

/// For the node whose identity is in `state_dir` and whose configuration has `pin` as
/// `witness_identity`.
///
/// # Errors
/// If the identity or the fingerprint cannot be used; the error says how to mend it.
pub fn witness_client(state_dir: &Path, pin: &str) -> Result<WitnessClient, IdentityError> {
    let identity = Identity::load(state_dir)?;
    let config = tls::witness_client(identity, pin.parse()?).map_err(|error| unusable(&error))?;
    let other_key = |error: &io::Error| match HandshakeFailure::of(error)? {
        HandshakeFailure::UnknownKey(key) => Some(key.to_string()),
        HandshakeFailure::OurKey | HandshakeFailure::NotTls | HandshakeFailure::HungUp => None,
    };
    Ok(WitnessClient { config, is_witness: tls::is_witness, other_key })
}

fn unusable(error: &rustls::Error) -> IdentityError {
    IdentityError::Draw { reason: error.to_string() }
}
