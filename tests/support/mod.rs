//! What tests of the NBD server share.

pub(crate) mod memory_server;
pub(crate) mod raw_client;
