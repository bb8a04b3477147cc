//! Directory trees for tests: made, changed, put under load, and judged.
//!
//! Nothing here knows hotpair or shares code with it, so that what it gets wrong is not judged by
//! the same mistake. [`judge`] says whether two trees are the same, [`fidelity`] makes one with
//! everything that is kept, [`operations`] changes one at random, [`loads`] are what applications
//! do, and files of [`stamped`] tell a reader whether they are whole.

#![allow(dead_code, reason = "each test that includes this module uses a part of it")]

pub(crate) mod fidelity;
pub(crate) mod judge;
pub(crate) mod loads;
pub(crate) mod operations;
pub(crate) mod stamped;
pub(crate) mod tool;
