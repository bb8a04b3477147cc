//! What we ask of the kernel for a connection between the nodes.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tracing::debug;

/// Sets everything a connection between the nodes needs. `suspect_after`: unacknowledged bytes
/// that are older end it, and silence of that length is probed.
///
/// # Errors
/// If the kernel refuses an option that safety or latency relies on. Congestion control is only
/// asked for: what is permitted is up to the machine.
pub(super) fn tune(socket: &SockRef<'_>, suspect_after: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
    socket.set_tcp_user_timeout(Some(suspect_after))?;
    // The kernel counts these in whole seconds.
    let seconds = Duration::from_secs(suspect_after.as_secs().max(1));
    let keepalive = TcpKeepalive::new()
        .with_time(seconds)
        .with_interval(Duration::from_secs(1))
        .with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    prefer_loss_based(socket);
    Ok(())
}

/// Bytes that may wait in the kernel unsent. What is ours to order stays ours until then: a ping
/// never waits behind more.
const NOTSENT_LOWAT: u32 = 128 << 10;

/// Unanswered probes that end an idle connection.
const KEEPALIVE_PROBES: u32 = 3;

/// Model-based congestion control probes for bandwidth by holding back, which a link of small
/// writes and answers pays in latency.
fn prefer_loss_based(socket: &SockRef<'_>) {
    let wanted: [&[u8]; 2] = [b"cubic", b"reno"];
    match socket.tcp_congestion() {
        Ok(name)
            if wanted.iter().any(|wanted| name.split(|byte| *byte == 0).next() == Some(wanted)) => {
        }
        _ => {
            if !wanted.iter().any(|name| socket.set_tcp_congestion(name).is_ok()) {
                debug!("neither cubic nor reno is permitted for the peer connection");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_taken() {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        tune(&SockRef::from(&socket), Duration::from_millis(1500)).unwrap();
        assert!(socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), NOTSENT_LOWAT);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(1500)));
        assert!(socket.keepalive().unwrap());
        let name = socket.tcp_congestion().unwrap();
        assert!(!name.starts_with(b"bbr"), "{name:?}");
    }
}
