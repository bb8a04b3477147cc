//! The NBD server, rule by rule, spoken to in raw bytes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use support::memory_server::MemoryServer;
use support::raw_client::RawClient;

#[test]
fn what_is_written_is_read_back() {
    let server = MemoryServer::start(1 << 20);
    let mut client = RawClient::simple(&server);
    client.write(5, b"hello");
    assert_eq!(client.read(4, 7), b"\0hello\0");
}
