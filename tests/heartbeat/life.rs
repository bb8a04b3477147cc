//! Whether the peer lives, and leases.

use hotpair::heartbeat::{Heartbeat, HeartbeatNews};
use hotpair::units::{Epoch, Instance, Instant};
use std::time::Duration;

use crate::harness::{Node, clocks, of_names, pair, settings};
use crate::relay::Relay;

#[tokio::test]
async fn two_nodes_hear_each_other() {
    let (relay, mut nodes) = pair().await;
    for (at, node) in nodes.iter_mut().enumerate() {
        let shown = node.shows(|it| it.paths[0].rtt.is_some()).await;
        assert_eq!(shown.paths[0].to, relay.address(at));
        assert!(shown.paths[0].rtt.unwrap() < Duration::from_secs(1));
        assert!(!shown.config_differs);
    }
}

#[tokio::test]
async fn a_path_that_passes_one_way_is_none_for_both() {
    let (relay, mut nodes) = pair().await;
    for to in [0, 1] {
        relay.cut(to);
        for node in &mut nodes {
            node.told(|news| *news == HeartbeatNews::Silent(true)).await;
            node.is_down().await;
        }
        relay.heal(to);
        for node in &mut nodes {
            node.told(|news| *news == HeartbeatNews::Silent(false)).await;
            node.is_up().await;
        }
    }
}

#[tokio::test]
async fn what_was_granted_to_an_earlier_run_is_granted_to_nobody_else() {
    let (_relay, mut nodes) = pair().await;
    nodes[0].asks_at(8);
    let (_, asked) = nodes[1].told(|news| matches!(news, HeartbeatNews::LeaseAsked { .. })).await;
    let HeartbeatNews::LeaseAsked { tick, .. } = asked else { panic!("{asked:?}") };
    // A run that is over counted ticks, too.
    nodes[1].advert.send_modify(|advert| advert.granted = (Instance(7), tick));
    let mut grants = Vec::new();
    for _ in 0..10 {
        let (before, _) =
            nodes[1].told(|news| matches!(news, HeartbeatNews::LeaseAsked { .. })).await;
        grants.extend(before);
    }
    nodes[0].told_nothing();
}

/// The datagrams come, but the thread that serves the resource does not run.
#[tokio::test]
async fn a_node_whose_data_thread_hangs_counts_as_silent() {
    let (_relay, mut nodes) = pair().await;
    nodes[0].advert.send_modify(|advert| advert.alive = clocks().boottime);
    nodes[1].told(|news| *news == HeartbeatNews::Silent(true)).await;
    nodes[1].is_up().await;
    nodes[0].advert.send_modify(|advert| advert.alive = Instant(u64::MAX));
    nodes[1].told(|news| *news == HeartbeatNews::Silent(false)).await;
}

#[tokio::test]
async fn a_lease_is_asked_for_and_granted() {
    let (_relay, mut nodes) = pair().await;
    let before = clocks();
    nodes[0].asks_at(8);
    let (_, asked) = nodes[1].told(|news| matches!(news, HeartbeatNews::LeaseAsked { .. })).await;
    let HeartbeatNews::LeaseAsked { instance, epoch, tick } = asked else { panic!("{asked:?}") };
    assert_eq!((instance, epoch), (Instance(100), Epoch(8)));
    nodes[1].advert.send_modify(|advert| advert.granted = (instance, tick));
    let (_, granted) =
        nodes[0].told(|news| matches!(news, HeartbeatNews::LeaseGranted { .. })).await;
    let HeartbeatNews::LeaseGranted { asked } = granted else { panic!("{granted:?}") };
    let after = clocks();
    assert!(asked.boottime >= before.boottime && asked.boottime <= after.boottime);
    assert!(asked.raw >= before.raw && asked.raw <= after.raw);
}

#[tokio::test]
async fn a_restarted_node_is_heard_and_what_its_last_run_sent_is_not() {
    let (relay, [first, mut second]) = pair().await;
    first.asks_at(8);
    second.told(|news| matches!(news, HeartbeatNews::LeaseAsked { .. })).await;
    first.stop().await;
    let of_last_run = relay.recorded(1);
    second.is_down().await;
    let mut again = settings(0, relay.address(0), of_names());
    again.instance = Instance(999);
    let mut first = Node::start_with(again);
    first.asks_at(12);
    first.is_up().await;
    let is_of_new_run = |news: &HeartbeatNews| matches!(news, HeartbeatNews::LeaseAsked { instance, .. } if *instance == Instance(999));
    second.told(is_of_new_run).await;
    let before = second.is_up().await.dropped.other_run;
    for bytes in &of_last_run {
        relay.send(1, bytes).await;
    }
    second.shows(|it| it.dropped.other_run > before).await;
    first.asks_at(16);
    let is_at_16 =
        |news: &HeartbeatNews| matches!(news, HeartbeatNews::LeaseAsked { epoch: Epoch(16), .. });
    let (meanwhile, _) = second.told(is_at_16).await;
    let of_last = |news: &HeartbeatNews| matches!(news, HeartbeatNews::LeaseAsked { instance, .. } if *instance == Instance(100));
    assert!(!meanwhile.iter().any(of_last), "{meanwhile:?}");
    second.is_up().await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let relay = Relay::start().await;
    let taken = std::net::UdpSocket::bind("127.0.0.13:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut settings = settings(0, relay.address(0), of_names());
    settings.paths[0].0 = address;
    let error = Heartbeat::bind(settings, Vec::new()).unwrap_err();
    assert_eq!(error.address, address);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

/// What a supervisor sends when the process is dead.
#[tokio::test]
async fn the_last_word_of_a_dead_node_is_told() {
    let (relay, [mut first, mut second]) = pair().await;
    let will = first.will.wait_for(|will| !will.is_empty()).await.unwrap().clone();
    first.stop().await;
    second.told(|news| *news == HeartbeatNews::Silent(true)).await;
    for word in will {
        assert_eq!(word.to, relay.address(0));
        relay.send(1, &word.bytes).await;
    }
    let (_, released) = second.told(|news| matches!(news, HeartbeatNews::Released { .. })).await;
    let HeartbeatNews::Released { instance, epoch } = released else { panic!("{released:?}") };
    assert_eq!((instance, epoch), (Instance(100), Epoch(0)));
}

/// A will of an older epoch is of no use to the peer, and a tick may be long in coming.
#[tokio::test]
async fn a_will_follows_the_epoch_at_once() {
    let relay = Relay::start().await;
    let hour = std::time::Duration::from_hours(1);
    let mut settings = settings(0, relay.address(0), of_names());
    (settings.interval, settings.suspect_after) = (hour, 4 * hour);
    let mut node = Node::start_with(settings);
    let old = node.will.wait_for(|will| !will.is_empty()).await.unwrap().clone();
    node.advert.send_modify(|advert| advert.epoch = Epoch(16));
    node.epochs.notify_one();
    node.will.wait_for(|will| *will != old).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn nobody_at_the_other_end_ends_nothing() {
    // The kernel answers what is sent to a port that nobody has with an error.
    let nobody = {
        let socket = std::net::UdpSocket::bind("127.0.0.14:0").unwrap();
        socket.local_addr().unwrap()
    };
    let mut node = Node::start_with(settings(0, nobody, of_names()));
    node.told(|news| *news == HeartbeatNews::Silent(true)).await;
    node.stop().await;
}
