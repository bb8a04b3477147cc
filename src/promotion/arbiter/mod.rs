//! The arbiter: what a third party remembers of one resource, and the rule by which that changes.
//!
//! Of two nodes that each see only silence, it answers one: a change is a compare-and-set on the
//! epoch, and stable before it is answered. [`Arbiter`] is one resource at a witness; the same
//! [`judge`] is what a node asks before it sends a compare-and-set to etcd.
//!
//! [`StoredRecord`] is the record on a witness's disk, [`Ask`] and [`Tell`] are what a node and a
//! witness say to each other, [`check_identity`] says who may ask.

mod access;
mod letter;
mod record;
mod request;
mod rule;
mod seat;
mod stored;

pub use access::{Allowed, check_identity, parse_allowed};
pub use letter::{Ask, Asked, Hello, LEASE_MS_MAX, RENEWALS_MAX, Tell, check_half, check_record};
pub use record::{ArbiterRecord, Eligible};
pub use request::{Half, Operation, Refused, Reply, Request, RequestId, View};
pub use rule::{Known, LeaseChange, Ruling, enroll, judge};
pub use seat::{Arbiter, ArbiterEffect, ArbiterInput, ArbiterTimer, grant_end, no_record};
pub use stored::{StoredRecord, is_name};

#[cfg(test)]
mod tests;
