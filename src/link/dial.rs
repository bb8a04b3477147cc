//! Connections that this node opens.
//!
//! Of a pair, the node whose name sorts first dials and the other listens, so connections never
//! cross. A dialler keeps one connection: it opens the next when it is told that the last ended,
//! after a pause that grows while nothing comes of it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::connection::{Connection, End, EndReport, Handover};
use super::error::HandshakeError;
use super::security::{Proof, Security, failed};
use super::socket;
use super::trouble::Trouble;

/// Whether `node` dials its `peer`, and not the other way round.
pub fn dials(node: &str, peer: &str) -> bool {
    node < peer
}

/// Opens the connections of one resource to its peer.
#[derive(Debug)]
pub struct Dialler {
    /// The peer's `replication`.
    pub address: SocketAddr,
    /// Where to dial from: the address part of this node's `replication`.
    pub source: Option<IpAddr>,
    /// The peer's name.
    pub peer: String,
    /// How connections are protected.
    pub security: Security,
    /// Silence after which a connection counts as dead.
    pub suspect_after: Duration,
    /// To the data thread.
    pub connections: mpsc::Sender<Handover>,
    /// Whether there should be a connection.
    pub wanted: watch::Receiver<bool>,
    /// Why there is none; `None` while there is one, or none is wanted. For people.
    pub trouble: watch::Sender<Option<Trouble>>,
}

impl Dialler {
    /// Dials until the sender of `wanted`, or the data thread, is gone. When no connection is
    /// wanted any more it stops trying; one that was handed over is for its owner to close.
    pub async fn run(mut self) {
        let mut pause = Pause::new();
        loop {
            if self.wanted.wait_for(|wanted| *wanted).await.is_err() {
                return;
            }
            let Some(report) = self.attempt().await else {
                self.report(None);
                pause = Pause::new();
                continue;
            };
            if self.connections.is_closed() {
                return;
            }
            let delay = pause.after(report, fastrand::f64());
            debug!(peer = %self.peer, address = %self.address, ?delay, "next connection");
            tokio::select! {
                biased;
                stopped = self.wanted.wait_for(|wanted| !wanted) => {
                    if stopped.is_err() {
                        return;
                    }
                    self.trouble.send_replace(None);
                    pause = Pause::new();
                }
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Opens one connection and waits for its end; `None` if it is no longer wanted.
    async fn attempt(&mut self) -> Option<EndReport> {
        let mut wanted = self.wanted.clone();
        let dialled = tokio::select! {
            biased;
            _ = wanted.wait_for(|wanted| !wanted) => return None,
            dialled = self.dial() => dialled,
        };
        match dialled {
            Ok(ended) => {
                self.report(None);
                // The sender reports when it is dropped, whatever happens to the connection.
                Some(ended.await.unwrap_or_default())
            }
            Err(error) => {
                self.report(Some(error.trouble()));
                Some(EndReport::default())
            }
        }
    }

    /// Says why there is no connection, once per reason.
    fn report(&self, trouble: Option<Trouble>) {
        self.trouble.send_if_modified(|last| {
            let is_new = *last != trouble;
            if let Some(Trouble { why: reason, .. }) = trouble.as_ref().filter(|_| is_new) {
                warn!(peer = %self.peer, address = %self.address, reason, "cannot connect to peer");
            }
            *last = trouble;
            is_new
        });
    }

    async fn dial(&self) -> Result<tokio::sync::oneshot::Receiver<EndReport>, HandshakeError> {
        let address = &self.address.to_string();
        let too_slow = |action| {
            let (address, seconds) = (address.clone(), STEP_TIMEOUT.as_secs());
            move |_| HandshakeError::Timeout { action, address, seconds }
        };
        let socket = timeout(STEP_TIMEOUT, self.connect())
            .await
            .map_err(too_slow("accept a connection"))?
            .map_err(failed("connect to", address))?;
        let (transport, proof) = timeout(STEP_TIMEOUT, self.security.connect(socket, address))
            .await
            .map_err(too_slow("do its TLS handshake"))??;
        self.check(&proof)?;
        let (end, ended) = End::watched();
        let connection = Connection::new(transport, end);
        let handover =
            Handover::new(connection, proof, None).map_err(failed("hand over", address))?;
        self.connections.try_send(handover).map_err(|_| HandshakeError::NotTaken)?;
        Ok(ended)
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket =
            if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Before connecting, since the first segments are to obey them, too.
        socket::tune(&SockRef::from(&socket), self.suspect_after)?;
        if let Some(source) = self.source
            && let Err(error) = socket.bind(SocketAddr::new(source, 0))
        {
            // Behind an address translation it is none of ours; then the kernel chooses.
            debug!(%source, error = &error as &dyn std::error::Error, "cannot dial from there");
        }
        socket.connect(self.address).await
    }

    fn check(&self, proof: &Proof) -> Result<(), HandshakeError> {
        match &proof.peer {
            Some(found) if *found != self.peer => Err(HandshakeError::OtherNode {
                address: self.address.to_string(),
                found: found.clone(),
                expected: self.peer.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// Time for connecting, and again for TLS.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt.
#[derive(Debug)]
struct Pause {
    next: Duration,
}

const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// After a refusal: what is wrong has to be mended by somebody.
const PAUSE_REFUSED: Duration = Duration::from_secs(10);

impl Pause {
    fn new() -> Self {
        Self { next: PAUSE_MIN }
    }

    /// The pause after an attempt that ended so; `chance` from 0 to 1 spreads it, so that many
    /// resources do not dial in step.
    fn after(&mut self, report: EndReport, chance: f64) -> Duration {
        let base = if report.back_off {
            PAUSE_REFUSED
        } else {
            if report.heard {
                self.next = PAUSE_MIN;
            }
            let base = self.next;
            self.next = (base * 2).min(PAUSE_MAX);
            base
        };
        base.mul_f64(1.0 + chance / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: EndReport = EndReport { heard: false, back_off: false };

    #[test]
    fn exactly_one_of_two_nodes_dials() {
        assert!(dials("alpha", "beta") && !dials("beta", "alpha"));
    }

    #[test]
    fn the_pause_doubles_up_to_its_limit() {
        let mut pause = Pause::new();
        let seen: Vec<_> = (0..7).map(|_| pause.after(NOTHING, 0.0).as_millis()).collect();
        assert_eq!(seen, [200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn a_connection_that_worked_is_replaced_soon_and_a_refused_one_is_not() {
        let mut pause = Pause::new();
        for _ in 0..9 {
            pause.after(NOTHING, 1.0);
        }
        let worked = EndReport { heard: true, back_off: false };
        let refused = EndReport { heard: true, back_off: true };
        assert_eq!(pause.after(worked, 0.0), PAUSE_MIN);
        assert_eq!(pause.after(refused, 0.0), PAUSE_REFUSED);
        assert!(pause.after(refused, 1.0) > PAUSE_REFUSED);
    }
}
