//! Connections that the peer opens.
//!
//! Everything until the Hello was read happens here, with a limit on time and number, so that
//! strangers reach neither a data thread nor a link that works. Whether the peer's *state* fits is
//! for the core to say.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::warn;

use super::connection::{Connection, End, Handover};
use super::error::LinkError;
use super::refusals::{Cause, Refusals, in_one_line};
use super::security::{Proof, Security};
use super::socket;
use super::trouble::{Mismatch, Trouble};
use crate::units::{Epoch, SessionId};
use crate::wire::message::{Frame, Hello, Message, Refusal, RefusalCode};

/// What a listener must know.
#[derive(Debug)]
pub struct ListenSettings {
    /// Name of the cluster.
    pub cluster: String,
    /// How connections are protected.
    pub security: Security,
    /// Silence after which a connection counts as dead.
    pub suspect_after: Duration,
    /// Time for the TLS handshake, and again for the Hello.
    pub handshake_timeout: Duration,
    /// Where the peers should come from: strangers cannot take the last places from them.
    pub peer_addresses: Vec<IpAddr>,
    /// Where connections go, by name of the resource.
    pub routes: BTreeMap<String, Route>,
    /// Why the last connection from one of `peer_addresses` was turned away, if both configurations
    /// have to do with it. For people. Whoever comes from elsewhere is none of theirs.
    pub trouble: watch::Sender<Option<Trouble>>,
}

/// Time for the TLS handshake, and again for the Hello, outside of tests.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the connections of one resource go.
#[derive(Clone, Debug)]
pub struct Route {
    /// The node that has the other replica.
    pub peer: String,
    /// To the data thread. When it is full, connections are refused.
    pub connections: mpsc::Sender<Handover>,
}

/// The `replication` address of this node.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: ListenSettings,
    /// Places for whoever has not said who it is yet.
    strangers: Arc<Semaphore>,
    /// As `strangers`, for those who come from a peer's address.
    expected: Arc<Semaphore>,
    refusals: Arc<Refusals>,
}

/// Connections that may be without a Hello at one time: enough for every resource of a pair to
/// connect at once, with retries, and a bound on what strangers can make us hold.
const GREETINGS_MAX: usize = 16;

impl Listener {
    /// Listens on `address`.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn bind(address: SocketAddr, settings: ListenSettings) -> io::Result<Self> {
        let shared = Shared {
            settings,
            strangers: Arc::new(Semaphore::new(GREETINGS_MAX)),
            expected: Arc::new(Semaphore::new(GREETINGS_MAX)),
            refusals: Arc::new(Refusals::default()),
        };
        Ok(Self { socket: TcpListener::bind(address).await?, shared: Arc::new(shared) })
    }

    /// The address it got: the port is another one if zero was asked for.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// How many connections were turned away, and why.
    pub fn refusals(&self) -> Arc<Refusals> {
        Arc::clone(&self.shared.refusals)
    }

    /// Accepts until it is dropped; every handshake ends with it.
    pub async fn run(self) {
        let mut greetings = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((socket, remote)) => self.admit(&mut greetings, socket, remote),
                    Err(error) => {
                        // Out of descriptors or memory: others need them, too.
                        warn!(error = &error as &dyn std::error::Error, "cannot accept peers");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = greetings.join_next() => {}
            }
        }
    }

    fn admit(&self, greetings: &mut JoinSet<()>, socket: TcpStream, remote: SocketAddr) {
        let shared = &self.shared;
        let from_peer = shared.settings.peer_addresses.contains(&remote.ip().to_canonical());
        let places = if from_peer { &shared.expected } else { &shared.strangers };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => {
                let greeting = Greeting { remote, from_peer, _place: place };
                greetings.spawn(greet(Arc::clone(shared), socket, greeting));
            }
            Err(_) => shared.refusals.add(
                Cause::TooMany,
                remote,
                &format_args!("{GREETINGS_MAX} others have not said who they are yet"),
            ),
        }
    }
}

/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a connection goes no further.
struct Dismissal {
    cause: Cause,
    reason: String,
    /// What it says of the other end's configuration, and of ours.
    trouble: Option<Trouble>,
    /// What the other end is told, if it is one that understands.
    farewell: Option<(Connection, Refusal)>,
}

impl Dismissal {
    fn silent(cause: Cause, reason: String) -> Self {
        Self { cause, reason, trouble: None, farewell: None }
    }
}

/// A connection that has not said who it is.
struct Greeting {
    remote: SocketAddr,
    from_peer: bool,
    /// Taken for as long as this lasts.
    _place: OwnedSemaphorePermit,
}

/// Finds out who is there and passes the connection on, or turns it away.
async fn greet(shared: Arc<Shared>, socket: TcpStream, greeting: Greeting) {
    let Greeting { remote, from_peer, .. } = greeting;
    if let Err(dismissal) = shared.receive(socket, remote).await {
        shared.refusals.add(dismissal.cause, remote, &dismissal.reason);
        if let Some(trouble) = dismissal.trouble.filter(|_| from_peer) {
            shared.settings.trouble.send_replace(Some(trouble));
        }
        if let Some((mut connection, refusal)) = dismissal.farewell {
            let message = Message::Refusal(refusal);
            connection.send(&Frame { session: SessionId(0), epoch: Epoch(0), message });
            let farewell = std::future::poll_fn(|cx| connection.poll_close(cx));
            // Closed either way when this ends.
            let _ = timeout(shared.settings.handshake_timeout, farewell).await;
        }
    }
}

impl Shared {
    async fn receive(&self, socket: TcpStream, remote: SocketAddr) -> Result<(), Dismissal> {
        let settings = &self.settings;
        let limit = settings.handshake_timeout;
        let too_slow = |what| {
            let reason = format!("no {what} within {limit:?}");
            move |_| Dismissal::silent(Cause::Silent, reason)
        };
        let broken =
            |error: &dyn std::error::Error| Dismissal::silent(Cause::Handshake, in_one_line(error));
        socket::tune(&SockRef::from(&socket), settings.suspect_after).map_err(|e| broken(&e))?;
        let address = remote.to_string();
        let (transport, proof) = timeout(limit, settings.security.accept(socket, &address))
            .await
            .map_err(too_slow("TLS handshake"))?
            .map_err(|error| Dismissal { trouble: Some(error.trouble()), ..broken(&error) })?;

        let mut connection = Connection::new(transport, End::default());
        let frame = timeout(limit, connection.hello()).await.map_err(too_slow("Hello"))?.map_err(
            |error| {
                let cause = cause_of(&error);
                let trouble = (cause == Cause::NotHello)
                    .then(|| error.trouble(&address, settings.security.fingerprint().as_deref()));
                Dismissal { trouble, ..Dismissal::silent(cause, in_one_line(&error)) }
            },
        )?;
        let Message::Hello(hello) = &frame.message else {
            unreachable!("Connection::hello gives nothing else");
        };
        let route = match self.route(hello, &proof) {
            Ok(route) => route,
            Err((cause, refusal)) => {
                let reason = refusal.text.clone();
                // A resource that only one node has says nothing about the other ones.
                let trouble = (cause != Cause::UnknownResource).then(|| Trouble {
                    why: format!("{address} was refused: {reason}"),
                    mismatch: Some(Mismatch::Names),
                });
                let farewell = Some((connection, refusal));
                return Err(Dismissal { cause, reason, trouble, farewell });
            }
        };
        let Ok(room) = route.connections.try_reserve() else {
            let text = format!("resource {:?} takes no connection now", hello.resource);
            let refusal = Refusal { code: RefusalCode::NotReady, text: text.clone() };
            let farewell = Some((connection, refusal));
            let (cause, reason) = (Cause::NotReady, text);
            return Err(Dismissal { cause, reason, trouble: None, farewell });
        };
        room.send(Handover::new(connection, proof, Some(frame)).map_err(|error| broken(&error))?);
        Ok(())
    }

    /// Where a connection with this Hello belongs. Every name in the answer is one of ours, or
    /// shown escaped and cut.
    fn route(&self, hello: &Hello, proof: &Proof) -> Result<&Route, (Cause, Refusal)> {
        let refuse = |cause, text| Err((cause, Refusal { code: RefusalCode::WrongPeer, text }));
        let Hello { cluster, node, resource, .. } = hello;
        if *cluster != self.settings.cluster {
            let text = format!(
                "this is cluster {:?}, not {}: check `cluster` and `replication` on both nodes",
                self.settings.cluster,
                shown(cluster),
            );
            return refuse(Cause::OtherCluster, text);
        }
        if let Some(proved) = proof.peer.as_ref().filter(|proved| *proved != node) {
            let text = format!(
                "the key is that of node {proved:?}, the Hello that of {}: check `identity`",
                shown(node),
            );
            return refuse(Cause::OtherNode, text);
        }
        let Some(route) = self.settings.routes.get(resource) else {
            let text = format!(
                "the node that was dialled has no resource {} in its configuration",
                shown(resource),
            );
            return refuse(Cause::UnknownResource, text);
        };
        if route.peer != *node {
            let text = format!(
                "the other replica of {resource:?} is on node {:?}, not on {}",
                route.peer,
                shown(node),
            );
            return refuse(Cause::OtherNode, text);
        }
        Ok(route)
    }
}

fn cause_of(error: &LinkError) -> Cause {
    if matches!(error, LinkError::NotHello | LinkError::Protocol(_)) {
        Cause::NotHello
    } else {
        Cause::Handshake
    }
}

/// A name as the peer sent it: in quotes, escaped, and no longer than a name of ours can be.
fn shown(name: &str) -> String {
    let quoted = format!("\"{}\"", name.escape_default());
    match quoted.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}..", &quoted[..end]),
        None => quoted,
    }
}

/// Characters of a foreign name that are shown. Three of them leave room in a Refusal.
const SHOWN_MAX: usize = 66;
