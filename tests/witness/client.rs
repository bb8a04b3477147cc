//! The driver that a node's daemon uses: reconnects, forgets, and says what it knows.

use std::time::Duration;

use hotpair::arbiter::{ClientSecurity, ClientSettings, News, Order};
use hotpair::promotion::arbiter::{Ask, Asked, Operation, Reply, Tell};
use hotpair::units::{ArbiterId, Instance};
use hotpair::wire::letter::{HEAD_LEN, VERSION, open_head, seal};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::harness::{A, Home, Node, Pair, Security};
use crate::process::PATIENCE;

/// A witness that says what the test says.
struct Scripted(TcpListener);

impl Scripted {
    async fn listen() -> (Self, ClientSettings) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = ClientSettings {
            address: listener.local_addr().unwrap(),
            security: ClientSecurity::Plain,
            cluster: "office".to_owned(),
            node: "alpha".to_owned(),
            side: A,
            instance: Instance(5),
            ping_every: Duration::from_secs(1),
            dead_after: PATIENCE,
        };
        (Self(listener), settings)
    }

    /// Takes a connection, and welcomes it.
    async fn welcome(&self) -> TcpStream {
        let (mut socket, _) = timeout(PATIENCE, self.0.accept()).await.unwrap().unwrap();
        assert!(matches!(heard(&mut socket).await, Ask::Hello(_)));
        say(&mut socket, &Tell::Welcome { version: VERSION, arbiter: ArbiterId(7) }).await;
        socket
    }
}

async fn say(socket: &mut TcpStream, tell: &Tell) {
    socket.write_all(&seal(tell)).await.unwrap();
}

async fn heard(socket: &mut TcpStream) -> Ask {
    let mut head = [0; HEAD_LEN];
    timeout(PATIENCE, socket.read_exact(&mut head)).await.unwrap().unwrap();
    let head = open_head(&head).unwrap();
    let mut body = vec![0; head.body_len()];
    timeout(PATIENCE, socket.read_exact(&mut body)).await.unwrap().unwrap();
    Ask::open(head, &body).unwrap()
}

/// The next letter that is no ping.
async fn heard_of(socket: &mut TcpStream) -> Ask {
    loop {
        match heard(socket).await {
            Ask::Ping(number) => say(socket, &Tell::Pong(number)).await,
            other => return other,
        }
    }
}

#[tokio::test]
async fn what_was_asked_before_a_connection_ended_is_not_asked_again_by_itself() {
    let (witness, settings) = Scripted::listen().await;
    let mut node = Node::start(settings);
    let mut socket = witness.welcome().await;
    assert_eq!(node.said().await, News::Reachable { arbiter: ArbiterId(7) });
    let first = node.request(Operation::Keep);
    node.order("vm1", &first).await;
    assert!(matches!(heard_of(&mut socket).await, Ask::Request { .. }));
    drop(socket);
    assert!(matches!(node.said().await, News::Unreachable { .. }));
    // Nor what is asked while there is none.
    let second = node.request(Operation::Keep);
    node.order("vm1", &second).await;
    let mut socket = witness.welcome().await;
    assert_eq!(node.said().await, News::Reachable { arbiter: ArbiterId(7) });
    let third = node.request(Operation::Keep);
    node.order("vm1", &third).await;
    match heard_of(&mut socket).await {
        Ask::Request { asked, .. } => assert_eq!(asked.request.id, third.id),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_dead_connection_is_noticed_by_its_silence() {
    let (witness, settings) = Scripted::listen().await;
    let (ping_every, dead_after) = (Duration::from_millis(20), Duration::from_millis(100));
    let mut node = Node::start(ClientSettings { ping_every, dead_after, ..settings });
    let silent = witness.welcome().await;
    assert!(matches!(node.said().await, News::Reachable { .. }));
    match node.said().await {
        News::Unreachable { why } => assert!(why.contains("said anything"), "{why}"),
        other => panic!("{other:?}"),
    }
    drop(silent);
}

#[tokio::test]
async fn a_farewell_is_told_with_its_reason() {
    let (witness, settings) = Scripted::listen().await;
    let mut node = Node::start(settings);
    let mut socket = witness.welcome().await;
    assert!(matches!(node.said().await, News::Reachable { .. }));
    say(&mut socket, &Tell::Farewell("no room".to_owned())).await;
    match node.said().await {
        News::Unreachable { why } => assert!(why.contains("no room"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_witness_that_talks_nonsense_is_left() {
    for nonsense in [
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n".to_vec(),
        seal(&Tell::Pong(1)),
        seal(&Tell::Welcome { version: 9, arbiter: ArbiterId(7) }),
        vec![0xff; 100_000],
    ] {
        let (witness, settings) = Scripted::listen().await;
        let mut node = Node::start(settings);
        let (mut socket, _) = witness.0.accept().await.unwrap();
        let _ = socket.write_all(&nonsense).await;
        assert!(matches!(node.said().await, News::Unreachable { .. }));
    }
}

#[tokio::test]
async fn all_leases_that_are_due_are_renewed_by_one_letter() {
    let (witness, settings) = Scripted::listen().await;
    let mut node = Node::start(settings);
    let mut socket = witness.welcome().await;
    node.said().await;
    let mut all = Vec::new();
    for number in 0..300 {
        let request = node.request(Operation::Renew);
        all.push(Asked { resource: format!("vm{number}"), request });
    }
    node.orders.send(Order::Renew(all.clone())).await.unwrap();
    let mut heard = Vec::new();
    for expected in [256, 44] {
        match heard_of(&mut socket).await {
            Ask::Renew { all: some, .. } => {
                assert_eq!(some.len(), expected);
                heard.extend(some);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, all);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_leases_are_renewed_at_a_real_witness() {
    for security in Security::each() {
        let home = Home::new(security);
        let witness = home.start(&[]);
        let pair = Pair::new(security);
        let mut alpha = pair.node(A, &witness).await;
        let names: Vec<String> = (0..20).map(|number| format!("vm{number}")).collect();
        for name in &names {
            let enroll = alpha.request(Operation::Enroll(pair.half(true)));
            let Reply::Done(record) = alpha.ask(name, &enroll).await else { panic!("{name}") };
            alpha.epoch = record.epoch;
        }
        let renew = |name: &String| {
            let request = alpha.request(Operation::Renew);
            Asked { resource: name.clone(), request }
        };
        let all: Vec<Asked> = names.iter().map(renew).collect();
        alpha.orders.send(Order::Renew(all.clone())).await.unwrap();
        for asked in all {
            let reply = alpha.answer_to(asked.request.id).await;
            assert!(matches!(reply, Reply::Lease { .. }), "{reply:?}");
        }
    }
}

#[tokio::test]
async fn the_driver_ends_with_whoever_it_serves() {
    let (witness, settings) = Scripted::listen().await;
    let node = Node::start(settings);
    let mut socket = witness.welcome().await;
    drop(node);
    let mut byte = [0; 1];
    while socket.read(&mut byte).await.unwrap_or(0) > 0 {}
}
