//! The NBD server, rule by rule, spoken to in raw bytes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use support::memory_server::MemoryServer;
use support::raw_client::{Ask, BLOCK_STATUS, READ, REQ_ONE, RawClient};

#[test]
fn what_is_written_is_read_back() {
    let server = MemoryServer::start(1 << 20);
    let mut client = RawClient::simple(&server);
    client.write(5, b"hello");
    assert_eq!(client.read(4, 7), b"\0hello\0");
}

/// Requests of all clients that may be unanswered at the same time.
const UNANSWERED_MAX: usize = 4096;

fn many(ask: Ask, count: u64) -> Vec<u8> {
    (0..count).flat_map(|cookie| Ask { cookie, ..ask }.bytes()).collect()
}

#[test]
fn questions_about_allocation_are_limited_like_reads() {
    let server = MemoryServer::start(1 << 20);
    server.withhold();
    let ask = Ask { command: BLOCK_STATUS, flags: REQ_ONE, len: 4096, ..Ask::default() };
    let mut clients: Vec<_> = (0..20).map(|_| RawClient::structured(&server)).collect();
    for client in &mut clients {
        client.send(&many(ask, 1024));
    }
    for _ in 0..200 {
        server.seen();
    }
    let seen = server.wait_until(|seen| seen.withheld >= UNANSWERED_MAX);
    assert_eq!(seen.withheld, UNANSWERED_MAX);
    server.release();
    for client in &mut clients {
        client.send(&many(ask, 1));
    }
}

#[test]
fn who_breaks_off_still_occupies_what_it_asked_for() {
    let server = MemoryServer::start(1 << 20);
    server.withhold();
    let ask = Ask { command: READ, len: 4096, ..Ask::default() };
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = RawClient::simple(&server);
        // No request begins like this.
        client.send(&[many(ask, 1000), vec![0; 28]].concat());
        clients.push(client);
    }
    for _ in 0..200 {
        server.seen();
    }
    let seen = server.seen();
    assert!(seen.withheld <= UNANSWERED_MAX, "{seen:?}");
    server.release();
    for client in &mut clients {
        client.rest();
    }
    server.wait_until(|seen| seen.clients == 0);
    assert_eq!(RawClient::simple(&server).read(0, 512), [0; 512]);
}
