//! The advertisement by which the neighbours of an IPv6 address learn which network card has it now.
//!
//! The kernel sends one only for an address that it has asked for duplicates first, which takes a second in
//! which the address cannot be used. So ours is added without that, and announced here.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddrV6};

use socket2::{Domain, Protocol, Socket, Type};

/// Tells all neighbours on the network of `device` that `address` is there.
///
/// # Errors
/// What the kernel says: the address or the card is gone, or this process may open no raw socket.
pub(super) fn advertise(address: Ipv6Addr, device: &str) -> io::Result<()> {
    let read = |name: &str| fs::read_to_string(format!("/sys/class/net/{device}/{name}"));
    let strange = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("{device}: {what}"));
    let index: u32 = read("ifindex")?.trim().parse().map_err(|_| strange("no index"))?;
    let card = card(read("address")?.trim()).ok_or_else(|| strange("not a card of Ethernet"))?;
    let forwarding = format!("/proc/sys/net/ipv6/conf/{device}/forwarding");
    let is_router = fs::read_to_string(forwarding)?.trim() != "0";
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    socket.bind(&SocketAddrV6::new(address, 0, 0, index).into())?;
    // Neighbours drop what may have come from further away. Source: RFC 4861, 7.1.2.
    socket.set_multicast_hops_v6(255)?;
    socket.set_multicast_if_v6(index)?;
    let packet = advertisement(address, card, is_router);
    socket.send_to(&packet, &SocketAddrV6::new(ALL_NODES, 0, 0, index).into())?;
    Ok(())
}

/// All nodes on the link. Source: RFC 4291, 2.7.1.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A card's address as sysfs has it.
fn card(text: &str) -> Option<[u8; 6]> {
    let mut card = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut card {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(card)
}

/// An advertisement that nobody asked for, and that takes the place of what neighbours knew. The kernel
/// fills in the checksum. Source: RFC 4861, 4.4 and 7.2.6; RFC 3542, 3.1.
fn advertisement(address: Ipv6Addr, card: [u8; 6], is_router: bool) -> [u8; 32] {
    let mut packet = [0; 32];
    packet[0] = TYPE;
    packet[4] = OVERRIDE | if is_router { ROUTER } else { 0 };
    packet[8..24].copy_from_slice(&address.octets());
    packet[24] = TARGET_CARD;
    packet[25] = 1; // in units of 8 bytes
    packet[26..].copy_from_slice(&card);
    packet
}

/// Type of a neighbour advertisement.
const TYPE: u8 = 136;
/// The flags of its fifth byte.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;
/// The option that holds the address of the target's card.
const TARGET_CARD: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertisement_says_what_the_rfc_says() {
        let address = "2001:db8::a".parse().unwrap();
        let wanted = [
            136, 0, 0, 0, 0x20, 0, 0, 0, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0x0a, 2, 1, 2, 0, 0x5e, 0x10, 0, 1,
        ];
        let here = card("02:00:5e:10:00:01").unwrap();
        assert_eq!(advertisement(address, here, false), wanted);
        assert_eq!(advertisement(address, here, true)[4], 0xa0);
    }

    #[test]
    fn only_cards_of_ethernet_have_such_an_address() {
        for strange in ["", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "02:00:5e:10:00:xx"] {
            assert_eq!(card(strange), None, "{strange}");
        }
    }
}
