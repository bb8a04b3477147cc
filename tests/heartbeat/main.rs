//! Heartbeats over real sockets: two nodes, and a relay between them that holds the cables.
//!
//! Ports are chosen by the kernel, and every wait is for what a node shows or is told. What depends
//! on exact times is tested in virtual time beside the code.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod harness;
mod keys;
mod life;
mod multicast;
mod outdate;
mod relay;
mod strangers;
