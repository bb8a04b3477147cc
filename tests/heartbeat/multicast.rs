//! A group as one more path, on the loopback. `tests/failover` has it between hosts.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use hotpair::heartbeat::{HeartbeatNews, HeartbeatSettings};
use socket2::{Domain, Socket, Type};

use crate::harness::{Node, of_names, settings};
use crate::relay::Relay;

/// A group that no other test has, at a port that was free a moment ago.
fn group() -> SocketAddr {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let ip = Ipv4Addr::new(239, 255, fastrand::u8(..), fastrand::u8(..));
    SocketAddr::from((ip, free.local_addr().unwrap().port()))
}

fn with_group(at: usize, relay: &Relay, group: SocketAddr) -> HeartbeatSettings {
    let mut settings = settings(at, relay.address(at), of_names());
    settings.multicast = Some((group, settings.paths[0].0.ip()));
    settings
}

#[tokio::test]
async fn a_group_holds_when_the_cable_is_cut_and_is_a_path_by_itself() {
    let relay = Relay::start().await;
    let group = group();
    let mut nodes = [0, 1].map(|at| Node::start_with(with_group(at, &relay, group)));
    for node in &mut nodes {
        let shown =
            node.shows(|it| it.paths.len() == 2 && it.paths.iter().all(|it| it.is_up)).await;
        assert_eq!(shown.paths[1].to, group);
        let own = shown.dropped;
        assert_eq!(
            (own.seal, own.value),
            (0, 0),
            "its own datagrams come back, and are not looked at"
        );
    }
    relay.cut(0);
    relay.cut(1);
    for node in &mut nodes {
        node.shows(|it| !it.paths[0].is_up && it.paths[1].is_up).await;
        // Not silent: the peer is heard in the group.
        node.told_nothing();
    }
    relay.heal(0);
    relay.heal(1);
    for node in &mut nodes {
        node.is_up().await;
    }
}

#[tokio::test]
async fn who_is_in_the_group_has_no_more_to_say_than_who_is_on_the_cable() {
    let relay = Relay::start().await;
    let group = group();
    let mut nodes = [0, 1].map(|at| Node::start_with(with_group(at, &relay, group)));
    for node in &mut nodes {
        node.shows(|it| it.paths.len() == 2 && it.paths.iter().all(|it| it.is_up)).await;
    }
    nodes[1].told_nothing();
    let stranger = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    stranger.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    // What was said on another path is nothing here: its number is sealed with it.
    let good = relay.recorded(1).pop().unwrap();
    let mut forged = good.clone();
    forged[48] ^= 1;
    for (bytes, is_forged) in [(&good, false), (&forged, true), (&good[..90].to_vec(), false)] {
        let before = nodes[1].status.borrow().dropped;
        stranger.send_to(bytes, &group.into()).unwrap();
        nodes[1]
            .shows(|it| match (is_forged, bytes.len()) {
                (_, 90) => it.dropped.length > before.length,
                (true, _) => it.dropped.seal > before.seal,
                (false, _) => it.dropped.value > before.value,
            })
            .await;
    }
    nodes[1].told_nothing();
    nodes[1].is_up().await;
}

/// Nobody passes it on, as a switch that tracks groups and hears no member.
#[tokio::test]
async fn a_group_that_reaches_nobody_changes_nothing() {
    let relay = Relay::start().await;
    let mut nodes = [0, 1].map(|at| Node::start_with(with_group(at, &relay, group())));
    for node in &mut nodes {
        node.shows(|it| it.paths.len() == 2 && it.paths[0].is_up && !it.paths[1].is_up).await;
        while let Ok(news) = node.news.try_recv() {
            assert_ne!(news, HeartbeatNews::Silent(true));
        }
    }
}
