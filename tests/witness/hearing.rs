//! A cable that carries what a node asks, and not what it is told.

use std::net::SocketAddr;
use std::time::Duration;

use hotpair::arbiter::{ClientSettings, News};
use hotpair::promotion::arbiter::Operation;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::harness::{A, B, Home, Node, Pair, Security, done};

/// Whoever connects is connected to the witness.
struct Cable {
    address: SocketAddr,
    /// What the witness says is held back.
    holds: watch::Sender<bool>,
}

impl Cable {
    async fn to(witness: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (holds, held) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((node, _)) = listener.accept().await {
                let onward = TcpStream::connect(witness).await.unwrap();
                carry(node, onward, held.clone());
            }
        });
        Self { address, holds }
    }
}

fn carry(node: TcpStream, witness: TcpStream, mut held: watch::Receiver<bool>) {
    let (mut from_node, mut to_node) = split(node);
    let (mut from_witness, mut to_witness) = split(witness);
    tokio::spawn(async move { copy(&mut from_node, &mut to_witness).await });
    tokio::spawn(async move {
        let mut bytes = vec![0; 64 << 10];
        while let Ok(len @ 1..) = from_witness.read(&mut bytes).await {
            let is_let_go = held.wait_for(|holds| !holds).await.is_ok();
            if !is_let_go || to_node.write_all(&bytes[..len]).await.is_err() {
                return;
            }
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hears_nothing_changes_nothing_until_it_hears_again() {
    for security in Security::each() {
        let home = Home::new(security);
        let witness = home.start(&[]);
        let pair = Pair::new(security);
        let cable = Cable::to(witness.address).await;
        let ping_every = Duration::from_millis(100);
        let settings = pair.settings(A, &witness);
        let mut alpha =
            Node::start(ClientSettings { address: cable.address, ping_every, ..settings });
        let News::Reachable { arbiter } = alpha.said().await else { panic!("{security:?}") };
        alpha.arbiter = arbiter;
        let mut beta = pair.node(B, &witness).await;
        let enroll = Operation::Enroll(pair.half(false));
        alpha.ask_for(enroll.clone()).await;
        let record = done(beta.ask_for(enroll).await);
        (alpha.epoch, beta.epoch) = (record.epoch, record.epoch);
        beta.pushed.clear();
        cable.holds.send_replace(true);
        // What is asked right after that is carried out: who could know?
        let mut carried_out = 0;
        let keep = loop {
            let keep = alpha.request(Operation::Keep);
            alpha.order("vm1", &keep).await;
            match timeout(Duration::from_secs(2), beta.push()).await {
                Ok(record) => alpha.epoch = record.epoch,
                Err(_) => break keep,
            }
            carried_out += 1;
            assert!(carried_out < 30, "it is listened to for ever");
            let pause = Duration::from_millis(200);
            assert!(timeout(pause, beta.push()).await.is_err(), "one change, one record");
        };
        cable.holds.send_replace(false);
        // It asks again, as its core does, and has lost nothing.
        let reply = loop {
            alpha.order("vm1", &keep).await;
            let answer = alpha.answer_to(keep.id);
            if let Ok(reply) = timeout(Duration::from_millis(500), answer).await {
                break reply;
            }
        };
        assert!(done(reply).epoch > keep.epoch);
    }
}
