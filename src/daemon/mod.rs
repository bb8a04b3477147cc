//! Owns the cores: one data thread per resource, one control runtime for everything else.
//!
//! `node.rs` starts and stops a node, `data_thread.rs` feeds one core and carries its effects to
//! the drivers, `exports.rs` opens and closes NBD listeners, `open.rs` turns files into a core.
//! `init.rs`, `resize.rs` and `check.rs` work without a daemon. `witness.rs` runs the third party.

mod check;
mod clock;
mod data_thread;
mod error;
mod exports;
mod init;
mod node;
mod open;
mod random;
mod reads;
mod resize;
mod witness;

pub use check::{Finding, check_offline};
pub use error::DaemonError;
pub use init::{InitFrom, InitPlan, plan_init};
pub use node::run;
pub use resize::{ResizePlan, plan_resize};
pub use witness::{WitnessPlan, WitnessStarted, run_witness};
