//! Owns the cores: one data thread per resource, one control runtime for everything else.
//!
//! `node.rs` starts and stops a node, `data_thread.rs` feeds one core and carries its effects to
//! the drivers, `controller.rs` does so for the part that asks the arbiter, `exports.rs` opens and closes NBD listeners, `open.rs` turns files into a core.
//! `guide.rs` says what to type when the nodes do not come together, `warnings.rs`
//! what status warns of, `audit.rs` writes down what operators do. `init.rs`, `resize.rs` and
//! `check.rs` work without a daemon. `supervisor.rs` is the parent of a daemon, and `will.rs` what
//! it hears. `witness.rs` runs the third party.

mod arbiter;
mod audit;
mod check;
mod clock;
mod controller;
mod data_thread;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod exports;
mod fence;
mod guide;
mod heartbeat;
mod init;
mod init_tree;
mod node;
mod open;
mod outdate;
mod random;
mod reads;
mod resize;
mod services;
mod supervisor;
mod timers;
#[cfg(feature = "directory")]
mod tree;
#[cfg(not(feature = "directory"))]
#[path = "no_tree.rs"]
mod tree;
mod warnings;
mod will;
mod witness;

pub use audit::OfflineAction;
pub use check::{Finding, check_offline};
pub use error::DaemonError;
pub use init::{InitFrom, InitPlan, plan_init};
pub use node::run;
pub use resize::{ResizePlan, plan_resize};
pub use supervisor::supervise;
pub use warnings::of_node as warnings_of_node;
pub use witness::{WitnessPlan, WitnessStarted, run_witness};
