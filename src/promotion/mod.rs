//! Who may serve.
//!
//! Only this folder makes a [`ServeGrant`], and the NBD driver cannot serve without one, so two
//! writers are prevented here or not at all. It does no I/O and keeps no state: it is shown the
//! stable record and what the peer said, and it answers. `promote` and `resume` are for a pair without
//! an arbiter: an operator promotes, with the connected peer's durable consent or by force. [`alone`] is
//! how such a pair promotes by itself, by a fence command ([`fencing`]) or by silence. With an arbiter,
//! [`arbiter`] is its rule and [`controller`] a node's side.

#![deny(clippy::wildcard_enum_match_arm)]

pub mod alone;
pub mod arbiter;
mod clocks;
pub mod controller;
pub mod fencing;
mod grant;
mod promote;
mod resume;
pub mod services;

pub use clocks::{Clocks, Early, Late};
pub use grant::{Permit, ServeGrant, forced_permit, grant, pledged_permit, solo_permit};
pub use promote::{Peer, PromoteHow, PromotePlan, Refusal, check_promote, check_switchover};
pub use resume::{Claim, Resume, is_superseded, may_resume, must_step_down};
