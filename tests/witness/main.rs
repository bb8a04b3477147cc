//! The witness as a process, and what nodes and strangers get from it.
//!
//! Real processes on ports that the kernel chose, with and without TLS. What depends on time is
//! tested with made-up clocks beside the code; here every wait is for an event.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../real/process.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest")]
mod process;

mod attacks;
mod client;
mod disk;
mod harness;
mod hearing;
mod kill_points;
mod life;
