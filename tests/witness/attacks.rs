//! What strangers achieve: they are cut off, and those that a record names are served on.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use hotpair::arbiter::{Disk, Patience, ServerSecurity, Witness, WitnessSettings};
use hotpair::promotion::Clocks;
use hotpair::promotion::arbiter::{
    Ask, Asked, Half, Hello, Operation, Refused, Reply, Request, RequestId, Tell,
};
use hotpair::units::{ArbiterId, Epoch, Instance};
use hotpair::wire::letter::{HEAD_LEN, LETTER_LEN_MAX, VERSION, open_head, seal};
use tokio::sync::mpsc;

use crate::harness::{A, B, Home, LEASE_MS, Node, Pair, Security};
use crate::process::PATIENCE;

/// A socket that is never waited for without end.
fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Says `bytes` and nothing more; what it is told until it is cut off.
fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(address);
    // The other end may have closed already, which is what is to be found out.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(Shutdown::Write);
    rest(&mut socket)
}

/// Everything until the other end closes, or breaks the connection off.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut told = Vec::new();
    match socket.read_to_end(&mut told) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            panic!("not cut off within {PATIENCE:?}")
        }
        _ => told,
    }
}

fn letters(mut bytes: &[u8]) -> Vec<Tell> {
    let mut letters = Vec::new();
    while let Some((head, behind)) = bytes.split_first_chunk::<HEAD_LEN>() {
        let head = open_head(head).unwrap();
        let (body, behind) = behind.split_at(head.body_len());
        letters.push(Tell::open(head, body).unwrap());
        bytes = behind;
    }
    letters
}

fn next_letter(socket: &mut TcpStream) -> Tell {
    let mut head = [0; HEAD_LEN];
    socket.read_exact(&mut head).unwrap();
    let head = open_head(&head).unwrap();
    let mut body = vec![0; head.body_len()];
    socket.read_exact(&mut body).unwrap();
    Tell::open(head, &body).unwrap()
}

fn hello() -> Ask {
    Ask::Hello(Hello {
        versions: (VERSION, VERSION),
        cluster: "office".to_owned(),
        node: "alpha".to_owned(),
        side: A,
        instance: Instance(5),
    })
}

/// Things that are no letter, or none that may come now.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let good = seal(&hello());
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let mut oversized = good.clone();
    oversized[4..8].copy_from_slice(&u32::try_from(LETTER_LEN_MAX).unwrap().to_le_bytes());
    let mut endless = good.clone();
    endless[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    vec![
        ("nothing", Vec::new()),
        ("half a head", good[..HEAD_LEN / 2].to_vec()),
        ("half a letter", good[..good.len() - 1].to_vec()),
        ("zeroes", vec![0; 4096]),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: witness\r\n\r\n".to_vec()),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
        ("a flipped bit", flipped),
        ("one that is too long", oversized),
        ("one without end", endless),
        ("no Hello", seal(&Ask::Ping(1))),
        ("a later version", seal(&(0_u32, (7_u16, 9_u16), "x"))),
        ("a name with a path", seal(&(0_u32, (1_u16, 1_u16), "../up", "alpha", 0_u32, 5_u64))),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_strangers_say_they_are_cut_off_and_the_pair_is_served_on() {
    for security in Security::each() {
        let home = Home::new(security);
        let witness = home.start(&[]);
        let pair = Pair::new(security);
        let (mut alpha, _beta) = pair.enrolled(&witness).await;
        for (what, bytes) in garbage() {
            let told = say(witness.address, &bytes);
            if security == Security::Plain {
                let letters = letters(&told);
                let is_told = letters.iter().all(|it| matches!(it, Tell::Farewell(_)));
                assert!(is_told && letters.len() <= 1, "{what}: {letters:?}");
            }
            let reply = alpha.ask_for(Operation::Renew).await;
            assert!(matches!(reply, Reply::Lease { .. }), "{what}: {reply:?}");
        }
        witness.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_breaks_the_rules_later_is_cut_off_too() {
    let home = Home::new(Security::Plain);
    let witness = home.start(&[]);
    let asked = |from, operation| {
        let id = RequestId { instance: Instance(5), number: 1 };
        let request = Request {
            from,
            id,
            arbiter: ArbiterId(0),
            arbiter_epoch: Epoch(0),
            epoch: Epoch(0),
            lease_ms: LEASE_MS,
            operation,
        };
        Asked { resource: "vm1".to_owned(), request }
    };
    let request = |asked| Ask::Request { heard: 1, asked: Box::new(asked) };
    let keep = asked(A, Operation::Keep);
    let mut too_long = seal(&Ask::Ping(1));
    too_long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let force = asked(A, Operation::Force { floor: Epoch(u64::MAX) });
    for (what, bytes) in [
        ("a second Hello", seal(&hello())),
        ("the other side", seal(&request(asked(B, Operation::Read)))),
        ("another operation among renewals", seal(&Ask::Renew { heard: 1, all: vec![keep] })),
        ("an epoch that overflows", seal(&request(force))),
        ("too long", too_long),
        ("garbage", vec![7; 100]),
    ] {
        let mut socket = connect(witness.address);
        socket.write_all(&seal(&hello())).unwrap();
        assert!(matches!(next_letter(&mut socket), Tell::Welcome { .. }), "{what}");
        socket.write_all(&bytes).unwrap();
        let told = letters(&rest(&mut socket));
        assert!(told.iter().all(|it| matches!(it, Tell::Farewell(_))), "{what}: {told:?}");
    }
    witness.stop();
}

#[cfg(feature = "_tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_key_gets_nothing_of_a_record_and_cannot_take_its_place() {
    let home = Home::new(Security::Tls);
    let witness = home.start(&[]);
    let pair = Pair::new(Security::Tls);
    let (mut alpha, _beta) = pair.enrolled(&witness).await;
    let stranger = Pair::new(Security::Tls);
    for side in [A, B] {
        let mut node = stranger.node(side, &witness).await;
        node.epoch = alpha.epoch;
        let enroll = Half { identities: pair.identities, ..stranger.half(true) };
        for operation in [
            Operation::Read,
            Operation::Renew,
            Operation::Keep,
            Operation::Force { floor: Epoch(0) },
            Operation::Enroll(enroll),
            Operation::Enroll(stranger.half(true)),
        ] {
            let reply = node.ask_for(operation.clone()).await;
            assert_eq!(reply, Reply::Refused(Refused::OtherIdentity), "{side:?} {operation:?}");
        }
    }
    // The key of the one node does not speak for the other.
    let mut crossed = pair.settings(B, &witness);
    crossed.security = pair.client_security(A, &witness.fingerprint);
    let mut crossed = Node::start(crossed);
    crossed.said().await;
    assert_eq!(crossed.ask_for(Operation::Read).await, Reply::Refused(Refused::OtherIdentity));
    let reply = alpha.ask_for(Operation::Renew).await;
    assert!(matches!(reply, Reply::Lease { .. }), "{reply:?}");
}

#[cfg(feature = "_tls")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_impostor_at_the_address_of_the_witness_is_not_asked() {
    use hotpair::arbiter::{ClientSettings, News};

    let (real, fake) = (Home::new(Security::Tls), Home::new(Security::Tls));
    let (real, fake) = (real.start(&[]), fake.start(&[]));
    let pair = Pair::new(Security::Tls);
    let settings = pair.settings(A, &real);
    let mut node = Node::start(ClientSettings { address: fake.address, ..settings.clone() });
    match node.said().await {
        News::Unreachable { why } => assert!(why.contains(&fake.fingerprint), "{why}"),
        other => panic!("{other:?}"),
    }
    // Neither does a node that encrypts talk to a witness that does not, nor the other way round.
    let plain_home = Home::new(Security::Plain);
    let plain = plain_home.start(&[]);
    let mut node = Node::start(ClientSettings { address: plain.address, ..settings });
    assert!(matches!(node.said().await, News::Unreachable { .. }));
    let plain_pair = Pair::new(Security::Plain);
    let mut node = Node::start(plain_pair.settings(A, &real));
    assert!(matches!(node.said().await, News::Unreachable { .. }));
}

/// A witness in this process that has little patience, and a disk that always works.
async fn impatient(patience: Patience) -> SocketAddr {
    let settings = WitnessSettings {
        id: ArbiterId(7),
        records: Vec::new(),
        damaged: std::collections::BTreeSet::new(),
        allowed: None,
        security: ServerSecurity::Plain,
        clock: Arc::new(Clocks::default),
        patience,
    };
    let witness = Witness::bind("127.0.0.1:0".parse().unwrap(), settings).await.unwrap();
    let address = witness.local_addr().unwrap();
    let (orders, mut orders_out) = mpsc::channel::<hotpair::arbiter::StoreOrder>(64);
    let (stored_in, stored) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Some(order) = orders_out.recv().await {
            let done = hotpair::arbiter::Stored { key: order.key, is_stable: true };
            if stored_in.send(done).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(witness.run(Disk { orders, stored }));
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_slow_to_say_who_it_is_is_cut_off() {
    let patience = Patience { greeting: Duration::from_millis(50), silence: PATIENCE };
    let address = impatient(patience).await;
    let hello = seal(&hello());
    for len in [0, 1, HEAD_LEN, hello.len() - 1] {
        let mut socket = connect(address);
        socket.write_all(&hello[..len]).unwrap();
        assert_eq!(rest(&mut socket), b"", "{len} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_silent_in_the_middle_of_a_letter_is_cut_off() {
    let patience = Patience { greeting: PATIENCE, silence: Duration::from_millis(500) };
    let address = impatient(patience).await;
    let ping = seal(&Ask::Ping(1));
    for len in [0, 1, ping.len() - 1] {
        let mut socket = connect(address);
        socket.write_all(&seal(&hello())).unwrap();
        assert!(matches!(next_letter(&mut socket), Tell::Welcome { .. }));
        let _ = socket.write_all(&ping[..len]);
        assert_eq!(rest(&mut socket), b"", "{len} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_read_is_given_up() {
    let patience = Patience { greeting: PATIENCE, silence: PATIENCE };
    let address = impatient(patience).await;
    let mut socket = connect(address);
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(&seal(&hello())).unwrap();
    let many: Vec<u8> = (0..10_000).flat_map(|number| seal(&Ask::Ping(number))).collect();
    let mut written = 0_u64;
    // The answers fill the buffers of the kernel, then the queue of the witness.
    while socket.write_all(&many).is_ok() {
        written += 1;
        assert!(written < 1_000, "100 MiB were answered to nobody");
    }
}
