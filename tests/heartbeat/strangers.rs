//! What somebody achieves who can send from the peer's address, and has no key.

use hotpair::heartbeat::{Dropped, HeartbeatNews};
use hotpair::units::{Epoch, Instance, Side};
use hotpair::wire::heartbeat::{HeartbeatKey, Sender, cluster_tag, resource_tag, seal_release};

use crate::harness::pair;

type Counter = fn(&Dropped) -> u64;

/// A datagram of somebody who knows the layout and has a key of his own.
fn release(secret: u8) -> Vec<u8> {
    let key = HeartbeatKey::new(&[secret; 32], "office");
    let cluster = cluster_tag("office");
    let sender = Sender { cluster, side: Side::First, instance: Instance(100) };
    seal_release(&key, sender, &[(resource_tag("vm1"), Epoch(400))])
}

#[tokio::test]
async fn whatever_is_no_datagram_of_the_peer_is_counted_and_changes_nothing() {
    let (relay, mut nodes) = pair().await;
    nodes[1].told_nothing();
    let good = relay.recorded(1).pop().unwrap();
    let reflected = relay.recorded(0).pop().unwrap();
    let mut forged = good.clone();
    forged[48] ^= 1;
    let mut too_long = good.clone();
    too_long.resize(2_000, 0);
    let cases: [(Vec<u8>, Counter); 8] = [
        (Vec::new(), |it| it.length),
        (good[..127].to_vec(), |it| it.length),
        (good[..good.len() - 1].to_vec(), |it| it.seal),
        (too_long, |it| it.length),
        (forged, |it| it.seal),
        (reflected, |it| it.seal),
        (good, |it| it.replayed),
        (release(9), |it| it.unknown_key),
    ];
    for (bytes, counter) in cases {
        let before = counter(&nodes[1].is_up().await.dropped);
        relay.send(1, &bytes).await;
        nodes[1].shows(|it| counter(&it.dropped) > before).await;
    }
    nodes[1].is_up().await;
    nodes[1].told_nothing();
}

#[tokio::test]
async fn a_replay_of_everything_brings_no_dead_peer_back() {
    let counted = |it: &Dropped| it.replayed + it.other_run;
    let (relay, [first, mut second]) = pair().await;
    first.stop().await;
    second.told(|news| *news == HeartbeatNews::Silent(true)).await;
    second.is_down().await;
    let before = counted(&second.status.borrow().dropped);
    for bytes in relay.recorded(1) {
        relay.send(1, &bytes).await;
    }
    let shown = second.shows(|it| counted(&it.dropped) > before).await;
    assert!(!shown.paths[0].is_up);
    second.told_nothing();
}
