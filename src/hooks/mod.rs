//! What starts and stops with the role: commands, units of systemd, a virtual address.
//!
//! Reading order: `plan.rs` says what a run of hooks consists of, `command.rs` runs one of them, `run.rs`
//! all of them in order, `driver.rs` carries out what the core orders for one resource,
//! `fence.rs` runs the command that cuts the other node off, `virtual_ip.rs` tells the network where an address
//! is, `neighbours.rs` does for IPv6.

mod command;
mod driver;
mod fence;
mod neighbours;
mod plan;
mod run;
mod virtual_ip;

#[cfg(test)]
mod tests;

pub use command::{HookError, kill_group};
pub use driver::{Driver, HookNews, Lease, Leaving, LeftBehind};
pub use fence::{FenceNews, Fencer};
pub use plan::{Plan, Scene, Step};
pub use run::{Told, run};
