//! `multicast` of `[heartbeat]`: one more path, on the network of a path that there is.

use std::net::{IpAddr, SocketAddr};

use super::Node;
use super::check::{Check, of};
use super::file::File;
use super::mistake::Mistake;
use super::values::Text;

/// The group in which heartbeats travel by multicast, as one node sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Multicast {
    /// The group and its port.
    pub group: SocketAddr,
    /// The node's address on the network on which it sends to the group and joins it.
    pub local: SocketAddr,
}

/// A group that stays within the network of the sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group(pub(super) SocketAddr);

impl Text for Group {
    const EXPECTED: &'static str = "a group of 239.0.0.0/8 or ff02::/16 and a port, such as \"239.255.77.88:7790\" or \
         \"[ff02::7790]:7790\"";

    fn read(text: &str) -> Option<Self> {
        let address: SocketAddr = text.parse().ok()?;
        let is_group = match address.ip() {
            IpAddr::V4(ip) => ip.octets()[0] == 239,
            IpAddr::V6(ip) => ip.segments()[0] == 0xff02,
        };
        (is_group && address.port() != 0).then_some(Self(address))
    }
}

/// How to mend a group that would be the only path, or one of a family that no path has.
pub(super) fn mend(group: Option<SocketAddr>) -> String {
    let Some(group) = group else {
        return "switches may swallow what is sent to a group: give both nodes `heartbeat` as well"
            .to_owned();
    };
    let (family, example) = if group.is_ipv4() {
        ("IPv6", "[ff02::7790]:7790")
    } else {
        ("IPv4", "239.255.77.88:7790")
    };
    format!("name a group of {family}, such as \"{example}\", or add such a path")
}

impl Check {
    /// The group, if one is named. It is never the only path: switches that track groups and have
    /// nobody who asks for members swallow what is sent to one.
    pub(super) fn multicast(&mut self, file: &File, nodes: &[Node; 2]) -> Option<SocketAddr> {
        let written = file.heartbeat.multicast.as_ref()?;
        let Group(group) = *of(written);
        if nodes.iter().any(|node| node.heartbeat.is_empty()) {
            self.wrong(written.span(), Mistake::OnlyMulticast);
        } else if nodes.iter().any(|node| node.heartbeat_of_family(group).is_none()) {
            self.wrong(written.span(), Mistake::MulticastFamily { group });
        }
        Some(group)
    }
}

impl Node {
    /// Its first address for heartbeats of the family of `group`.
    pub(super) fn heartbeat_of_family(&self, group: SocketAddr) -> Option<SocketAddr> {
        self.heartbeat.iter().copied().find(|address| address.is_ipv4() == group.is_ipv4())
    }
}
