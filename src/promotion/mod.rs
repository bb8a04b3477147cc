//! Who may serve.
//!
//! Only this folder makes a [`ServeGrant`], and the NBD driver cannot serve without one, so two
//! writers are prevented here or not at all. It does no I/O and keeps no state: it is shown the
//! stable record and what the peer said, and it answers.

mod grant;

pub use grant::{Permit, ServeGrant, grant, solo_permit};
