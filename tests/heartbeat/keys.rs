//! Secrets of sessions, and what survives a restart.

use hotpair::heartbeat::KeyRing;
use hotpair::units::Instance;

use crate::harness::{Node, settings};
use crate::relay::Relay;

fn start(at: usize, run: u64, relay: &Relay, kept: &[u8]) -> Node {
    let mut settings = settings(at, relay.address(at), KeyRing::kept(kept, "office"));
    settings.instance = Instance(run);
    Node::start_with(settings)
}

async fn session(nodes: &[&Node], number: u8) {
    for node in nodes {
        node.sessions.send([number; 32]).await.unwrap();
    }
}

/// Ends it, and returns the ring that it kept, or `kept` if that has not changed.
async fn stop(node: Node, kept: &[u8]) -> Vec<u8> {
    let bytes = node.keys.borrow().clone();
    node.stop().await;
    if bytes.is_empty() { kept.to_vec() } else { bytes }
}

#[tokio::test]
async fn a_session_is_enough_and_its_secret_survives_a_restart_of_both() {
    let relay = Relay::start().await;
    let mut kept = [Vec::new(), Vec::new()];
    for run in 0..2 {
        let mut first = start(0, 10 + run, &relay, &kept[0]);
        let mut second = start(1, 20 + run, &relay, &kept[1]);
        if run == 0 {
            session(&[&first, &second], 1).await;
        }
        first.is_up().await;
        second.is_up().await;
        kept = [stop(first, &kept[0]).await, stop(second, &kept[1]).await];
    }
}

#[tokio::test]
async fn a_node_with_a_newer_secret_than_the_other_comes_together_with_it() {
    let relay = Relay::start().await;
    let mut first = start(0, 10, &relay, &[]);
    let mut second = start(1, 20, &relay, &[]);
    session(&[&first, &second], 1).await;
    first.is_up().await;
    second.is_up().await;
    let kept = [stop(first, &[]).await, stop(second, &[]).await];
    // A session that only one end saw, as when the other one died in the middle of it.
    let mut first = start(0, 11, &relay, &kept[0]);
    session(&[&first], 2).await;
    session(&[&first], 3).await;
    let mut second = start(1, 21, &relay, &kept[1]);
    first.is_up().await;
    second.is_up().await;
}

#[tokio::test]
async fn a_node_that_lost_its_ring_is_back_after_the_next_session() {
    let relay = Relay::start().await;
    let mut first = start(0, 10, &relay, &[]);
    let mut second = start(1, 20, &relay, &[]);
    session(&[&first, &second], 1).await;
    first.is_up().await;
    second.is_up().await;
    second.stop().await;
    let mut second = start(1, 21, &relay, b"damaged");
    session(&[&first, &second], 2).await;
    second.is_up().await;
    first.is_up().await;
}
