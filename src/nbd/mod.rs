//! The NBD server: what clients of a resource speak.
//!
//! On the control runtime a [`Listener`] accepts and haggles; what comes out is an [`Opened`]
//! connection, which moves to the data thread of its resource. There [`Clients`] holds all of
//! them: it turns bytes into requests for the core and the core's answers into bytes. Nothing here
//! decides who may serve: a listener exists and an answer is given only when the daemon, which has
//! a grant, says so.

mod clients;
mod connection;
mod exports;
mod handshake;
mod inbound;
mod listener;
mod negotiation;
mod outbound;
pub mod protocol;
mod socket;
mod usage;

pub use clients::{Clients, Incoming};
pub use exports::{CONNECTIONS_MAX, Export};
pub use handshake::{HandshakeError, Opened};
pub use listener::{ListenError, Listener};
pub use protocol::transmission::Extent;
