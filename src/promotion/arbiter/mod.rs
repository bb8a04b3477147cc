//! The arbiter: what a third party remembers of one resource, and the rule by which that changes.
//!
//! Of two nodes that each see only silence, it answers one: a change is a compare-and-set on the
//! epoch, and stable before it is answered. [`Arbiter`] is one resource at a witness; the same
//! [`judge`] is what a node asks before it sends a compare-and-set to etcd.

mod record;
mod request;
mod rule;
mod seat;

pub use record::{ArbiterRecord, Eligible};
pub use request::{Half, Operation, Refused, Reply, Request, RequestId, View};
pub use rule::{Known, LeaseChange, Ruling, judge};
pub use seat::{Arbiter, ArbiterEffect, ArbiterInput, ArbiterTimer, grant_end};

#[cfg(test)]
mod tests;
