//! The NBD server: `protocol.rs` turns bytes into types, the rest serves connections.
