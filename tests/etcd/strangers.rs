//! Something else than etcd at its address.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use hotpair::arbiter::{EtcdSecurity, EtcdSettings};
use hotpair::config::EtcdEndpoint;

use crate::node::{A, LEASE, Node, RESOURCE};

/// What is said to every request: a head, and a body so many times.
struct Answer {
    head: &'static str,
    body: String,
    times: usize,
}

/// Says the same to whoever connects, as long as the test runs.
fn listen(answer: Answer) -> EtcdEndpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 4096]);
            let Ok(()) = socket.write_all(answer.head.as_bytes()) else { continue };
            for _ in 0..answer.times {
                if socket.write_all(answer.body.as_bytes()).is_err() {
                    break;
                }
            }
        }
    });
    EtcdEndpoint { is_encrypted: false, host: "127.0.0.1".to_owned(), port }
}

fn settings(endpoint: EtcdEndpoint) -> EtcdSettings {
    EtcdSettings {
        endpoints: vec![endpoint],
        security: EtcdSecurity::Plain,
        login: None,
        cluster: "office".to_owned(),
        nodes: ["alpha".to_owned(), "beta".to_owned()],
        resources: vec![RESOURCE.to_owned()],
        lease: LEASE,
        limit: Duration::from_secs(20),
        fresh_id: 1,
    }
}

/// Each is told apart, in one line without control characters, and nothing else happens.
pub(crate) fn strangers_harm_nobody() {
    const OK: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    const SHORT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n";
    const BAD: &str = "HTTP/1.1 500 No\r\nconnection: close\r\n\r\n";
    let mib = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
    let deep = "[".repeat(100_000);
    for (head, body, times, said) in [
        ("SSH-2.0-OpenSSH\r\n", String::new(), 0, "the connection ended"),
        ("", String::new(), 0, "the connection ended"),
        (OK, mib, 1 << 20, "has more than 8388608 bytes"),
        (SHORT, "{}".to_owned(), 1, "is none of etcd"),
        (SHORT, "[]".to_owned(), 1, "is none of etcd"),
        (BAD, deep, 1, "status 500: no reason given"),
        (BAD, r#"{"message":"a\u001b[31m\nb"}"#.to_owned(), 1, "status 500: a [31m b"),
    ] {
        let node = Node::with(settings(listen(Answer { head, body, times })), A);
        let why = node.trouble.clone().expect("it was taken for etcd");
        assert!(why.contains(said), "{said}: {why}");
        assert!(!why.contains(char::is_control), "{why:?}");
    }
}
