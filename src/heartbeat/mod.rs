//! Heartbeats: datagrams over one or more paths that say whether the peer lives, and by which the
//! nodes grant each other leases.
//!
//! [`Heartbeat`] sends a tick on every path each `heartbeat.interval`, for all resources at once.
//! `hearing.rs` is what it concludes from what it hears, told the time and without I/O; `keys.rs`
//! the secrets that make a datagram one of the peer, `paths.rs` the sockets, `exchange.rs` requests and replies.

mod driver;
mod exchange;
mod hearing;
mod keys;
mod paths;

pub use driver::{
    Advert, Dropped, Heartbeat, HeartbeatError, HeartbeatNews, HeartbeatSettings, HeartbeatStatus,
    LastWord, PathStatus, ResourceEnds, Surroundings,
};
pub use exchange::OutdateSays;
pub use keys::{KeyRing, RING_LEN_MAX};
