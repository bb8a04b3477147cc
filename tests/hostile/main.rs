//! A peer that proved its identity and then went mad: it neither ends this node, nor makes it keep
//! more than its limits, nor writes into its record what cannot be read back.
//!
//! A real core is driven by hand-made frames. Every frame goes through the wire's own encoding, so
//! what a test says is what a peer can say.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod clients;
mod records;
mod rig;
mod session;
mod sizes;
mod transfer;
