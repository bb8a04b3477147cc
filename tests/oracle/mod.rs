//! What clients may see, and what a copy may hold.
//!
//! Shared by every test that writes to a resource: the simulator, and the tests with real
//! processes. It knows nothing of hotpair: only what was written, what was answered and what was
//! found. [`stamp`] makes bytes that say where they came from, [`history`] decides whether answers
//! fit together, [`ledger`] which values may be found on a disk.

#![allow(dead_code, reason = "each test that includes this module uses a part of it")]

pub(crate) mod history;
pub(crate) mod ledger;
pub(crate) mod stamp;

/// A moment of a run: a counter that no two calls or answers share, so that order is never a tie.
pub(crate) type Moment = u64;

/// What one write leaves in a register: the number of its operation, which is unique.
pub(crate) type Value = u64;

/// The value of a register before any operation.
pub(crate) const INITIAL: Value = 0;

/// The value of a register that reads as zero. A register is zeroed at most once per history.
pub(crate) const ZEROED: Value = u64::MAX;
