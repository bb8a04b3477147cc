//! The sockets of the paths: one for each pair of addresses, and one for a group of multicast.
//!
//! A group is a path like any other, with a number of its own; the seal and the rules against replay
//! are the same. What a node sends to its group comes back to it, and is passed over by its source:
//! a pair on one host needs the way back, and a datagram that is not looked at costs nothing.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::task::Poll;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// One path, as its driver has it.
#[derive(Debug)]
pub(super) struct PathSocket {
    socket: UdpSocket,
    /// The peer, or the group.
    pub(super) to: SocketAddr,
    /// Of a group: where this node's own datagrams come from.
    own: Option<IpAddr>,
}

impl PathSocket {
    /// A path to one address, which hears nobody else.
    pub(super) fn unicast(mine: SocketAddr, theirs: SocketAddr) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(mine)?;
        socket.set_nonblocking(true)?;
        // Whoever is further away than the next host has less left.
        if mine.is_ipv4() {
            socket.set_ttl(255)?;
        }
        socket.connect(theirs)?;
        Ok(Self { socket: UdpSocket::from_std(socket)?, to: theirs, own: None })
    }

    /// A path to whoever joined `group` on the network that the interface with `local` is on. No
    /// router passes it on.
    pub(super) fn multicast(group: SocketAddr, local: IpAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(group), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        // Others on this host may have joined it, too; each gets every datagram.
        socket.set_reuse_address(true)?;
        let to = match (group, local) {
            (SocketAddr::V4(address), IpAddr::V4(local)) => {
                // Bound to the group, so that nothing comes that was sent to this host only.
                socket.bind(&group.into())?;
                socket.set_multicast_if_v4(&local)?;
                socket.set_multicast_ttl_v4(1)?;
                socket.set_multicast_loop_v4(true)?;
                socket.join_multicast_v4(address.ip(), &local)?;
                group
            }
            (SocketAddr::V6(mut address), IpAddr::V6(local)) => {
                let interface = interface_of(local)?;
                address.set_scope_id(interface);
                socket.set_only_v6(true)?;
                socket.bind(&SocketAddr::V6(address).into())?;
                socket.set_multicast_if_v6(interface)?;
                socket.set_multicast_hops_v6(1)?;
                socket.set_multicast_loop_v6(true)?;
                socket.join_multicast_v6(address.ip(), interface)?;
                SocketAddr::V6(address)
            }
            (SocketAddr::V4(_), IpAddr::V6(_)) | (SocketAddr::V6(_), IpAddr::V4(_)) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        let socket = UdpSocket::from_std(socket.into())?;
        Ok(Self { socket, to, own: Some(local) })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Whether it is a group.
    pub(super) fn is_group(&self) -> bool {
        self.own.is_some()
    }

    pub(super) fn try_send(&self, bytes: &[u8]) -> io::Result<()> {
        if self.is_group() {
            self.socket.try_send_to(bytes, self.to).map(drop)
        } else {
            self.socket.try_send(bytes).map(drop)
        }
    }

    /// A datagram that is there; `None` if it was one of ours.
    pub(super) fn try_recv(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(own) = self.own else { return self.socket.try_recv(buffer).map(Some) };
        let (len, from) = self.socket.try_recv_from(buffer)?;
        Ok((from.ip() != own).then_some(len))
    }
}

/// Waits until there is something to take on any path.
pub(super) async fn readable(paths: &[PathSocket]) {
    let polls = std::future::poll_fn(|cx| {
        for path in paths {
            if path.socket.poll_recv_ready(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    });
    polls.await;
}

/// Where the kernel lists the addresses of interfaces. Source: `net/ipv6/addrconf.c`, address,
/// number of the interface, then what is of no interest here; hexadecimal.
const INTERFACES: &str = "/proc/net/if_inet6";

fn interface_of(local: Ipv6Addr) -> io::Result<u32> {
    let list = std::fs::read_to_string(INTERFACES)?;
    interface_in(&list, local).ok_or_else(|| {
        io::Error::new(io::ErrorKind::AddrNotAvailable, format!("no interface has {local}"))
    })
}

fn interface_in(list: &str, local: Ipv6Addr) -> Option<u32> {
    let wanted = format!("{:032x}", local.to_bits());
    list.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_it = words.next()? == wanted;
        is_it.then(|| u32::from_str_radix(words.next()?, 16).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_of_an_address_is_found() {
        let list = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fe80000000000000021122fffe334455 1f 40 20 80     eth0\nbroken\n";
        assert_eq!(interface_in(list, Ipv6Addr::LOCALHOST), Some(1));
        assert_eq!(interface_in(list, "fe80::211:22ff:fe33:4455".parse().unwrap()), Some(31));
        assert_eq!(interface_in(list, "2001:db8::1".parse().unwrap()), None);
    }
}
