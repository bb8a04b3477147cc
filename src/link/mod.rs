//! The connection to the peer: identity, TLS, frames in and out, in order of their lanes.
//!
//! A [`Listener`] or a [`Dialler`] of the control runtime makes connections. Each goes as a
//! [`Handover`] to the data thread of its resource, which attaches it and polls the
//! [`Connection`]. Nothing here knows what frames mean, and nothing decides: who is trusted is
//! configured, what is said comes from the core.

mod connection;
mod dial;
mod error;
#[cfg(all(feature = "_tls", feature = "etcd"))]
mod etcd;
#[cfg(feature = "_tls")]
pub mod identity;
mod inbox;
mod listen;
mod outbox;
mod refusals;
mod security;
mod socket;
#[cfg(feature = "_tls")]
pub mod tls;
mod transport;
mod trouble;
#[cfg(feature = "_tls")]
mod witness;

pub use connection::{Connection, Counters, Handover};
pub use dial::{Dialler, dials};
pub use error::{HandshakeError, LinkError};
#[cfg(all(feature = "_tls", feature = "etcd"))]
pub use etcd::{EtcdKeys, NoEtcdKeys, etcd_client};
pub use listen::{HANDSHAKE_TIMEOUT, ListenSettings, Listener, Route};
pub use refusals::{Cause, Refusals};
pub use security::{IdentityError, Security, fingerprint_of};
pub use trouble::{Mismatch, Trouble};
#[cfg(feature = "_tls")]
pub use witness::{WitnessClient, WitnessServer, witness_client, witness_server};
