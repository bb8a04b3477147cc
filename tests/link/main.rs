//! The link between two nodes over real sockets: what arrives, and what strangers achieve.
//!
//! A listener and a dialler are joined over the loopback device, with and without TLS. Attackers
//! speak raw bytes. Nothing here waits for time to pass: every wait is for an event.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod frames;
mod harness;
mod plain_attacks;
mod reconnect;
#[cfg(feature = "_tls")]
mod tls_attacks;
