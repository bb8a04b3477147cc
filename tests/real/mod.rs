//! What the tests of real processes share: daemons, clients, disks that fail, and a small harness.
//!
//! Nothing here knows how hotpair works inside; it knows the command line, the files and the NBD
//! protocol. Every wait has a limit and names what it waited for. Only processes that a test
//! started are ended.

#![allow(dead_code, reason = "each test that includes this module uses a part of it")]

pub(crate) mod harness;
pub(crate) mod lab;
pub(crate) mod load;
pub(crate) mod nbd_client;
pub(crate) mod pair;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod relay;
pub(crate) mod volume;
pub(crate) mod witness;
pub(crate) mod worlds;
