//! The witness: takes connections, asks the desk, and carries out what it says.
//!
//! Everything that comes from outside has a limit: connections, the time for a handshake, for a
//! Hello and between two letters, the length of a letter, and what waits for a node that does not
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, error, info, warn};

use super::desk::{ConnectionId, Desk, Effect, Key, RECORDS_MAX, STRANGERS_MAX, Stock};
use super::error::{ArbiterError, in_one_line};
use super::security::ServerSecurity;
use super::stream::{Reader, Writer, split, tune};
use crate::promotion::Clocks;
use crate::promotion::arbiter::{Allowed, ArbiterRecord, Ask, Hello, Tell};
use crate::units::ArbiterId;

/// What a witness must know.
pub struct WitnessSettings {
    /// Its store.
    pub id: ArbiterId,
    /// The records of its store.
    pub records: Vec<(Key, ArbiterRecord)>,
    /// Records that cannot be read.
    pub damaged: BTreeSet<Key>,
    /// Who may make records; `None`: everybody.
    pub allowed: Option<Vec<Allowed>>,
    /// How connections are protected.
    pub security: ServerSecurity,
    /// Reads both clocks.
    pub clock: Arc<dyn Fn() -> Clocks + Send + Sync>,
    /// How long nodes may take.
    pub patience: Patience,
}

/// How long nodes may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the TLS handshake, and again for the Hello.
    pub greeting: Duration,
    /// From one letter to the end of the next, and to take a letter.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { greeting: Duration::from_secs(5), silence: Duration::from_mins(1) }
    }
}

/// A record to be made stable.
#[derive(Debug)]
pub struct StoreOrder {
    /// Whose.
    pub key: Key,
    /// What to store.
    pub record: Box<ArbiterRecord>,
}

/// What became of a [`StoreOrder`].
#[derive(Debug)]
pub struct Stored {
    /// Whose.
    pub key: Key,
    /// It is stable.
    pub is_stable: bool,
}

/// The way to the disk and back. An order is given only when the last one for its record was
/// answered, so a queue of [`RECORDS_MAX`] never overflows.
#[derive(Debug)]
pub struct Disk {
    /// Carries orders out, one after the other.
    pub orders: mpsc::Sender<StoreOrder>,
    /// Says what became of them.
    pub stored: mpsc::Receiver<Stored>,
}

/// Orders that may wait for the disk.
pub const STORE_ORDERS_MAX: usize = RECORDS_MAX + STRANGERS_MAX;

/// Connections that have not said who they are.
const GREETINGS_MAX: usize = 64;
/// Connections at all: two nodes for each record, and strangers.
const CONNECTIONS_MAX: usize = 2 * RECORDS_MAX + STRANGERS_MAX + GREETINGS_MAX;
/// Letters of all nodes that wait for the desk; beyond it they are not read.
const EVENTS_MAX: usize = 256;
/// Letters that wait for one node; beyond it the connection is closed.
const LETTERS_MAX: usize = 2048;
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a connection tells the desk.
enum Event {
    Hello { from: ConnectionId, hello: Hello, key: [u8; 32], letters: mpsc::Sender<Tell> },
    Ask(ConnectionId, Ask),
    Gone(ConnectionId),
}

/// A witness that listens.
pub struct Witness {
    socket: TcpListener,
    settings: WitnessSettings,
}

impl Witness {
    /// Listens on `address`.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub async fn bind(address: SocketAddr, settings: WitnessSettings) -> io::Result<Self> {
        Ok(Self { socket: TcpListener::bind(address).await?, settings })
    }

    /// The address that it got: the port is another one if zero was asked for.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is dropped, or the disk's thread is gone; every connection ends with it.
    pub async fn run(self, storage: Disk) {
        let Disk { orders, mut stored } = storage;
        let Self { socket, settings } = self;
        let WitnessSettings { id, records, damaged, allowed, security, clock, patience } = settings;
        let desk = Desk::new(clock(), Stock { id, records, damaged, allowed });
        let (events, mut events_out) = mpsc::channel(EVENTS_MAX);
        let gate = Gate {
            security,
            patience,
            events,
            greetings: Arc::new(Semaphore::new(GREETINGS_MAX)),
            places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        let mut office = Office { desk, letters: BTreeMap::new(), orders, clock };
        let mut connections = JoinSet::new();
        let mut count = 0_u64;
        loop {
            tokio::select! {
                Some(event) = events_out.recv() => office.on_event(event),
                done = stored.recv() => match done {
                    Some(done) => office.on_stored(&done),
                    None => return,
                },
                accepted = socket.accept() => match accepted {
                    Ok((socket, remote)) => {
                        count += 1;
                        gate.admit(&mut connections, socket, remote, ConnectionId(count));
                    }
                    Err(error) => {
                        // Out of descriptors or memory: others need them, too.
                        warn!(error = &error as &dyn std::error::Error, "cannot accept nodes");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// The desk, and the ways from it.
struct Office {
    desk: Desk,
    letters: BTreeMap<ConnectionId, mpsc::Sender<Tell>>,
    orders: mpsc::Sender<StoreOrder>,
    clock: Arc<dyn Fn() -> Clocks + Send + Sync>,
}

impl Office {
    fn on_event(&mut self, event: Event) {
        let mut effects = Vec::new();
        match event {
            Event::Hello { from, hello, key, letters } => {
                self.letters.insert(from, letters);
                self.desk.on_hello(from, hello, key, &mut effects);
            }
            // What was read before a connection was closed counts for nothing.
            Event::Ask(from, _) if !self.letters.contains_key(&from) => {}
            Event::Ask(from, ask) => self.desk.on_ask((self.clock)(), from, ask, &mut effects),
            Event::Gone(from) => {
                self.letters.remove(&from);
                self.desk.on_gone(from);
            }
        }
        self.carry_out(effects);
    }

    fn on_stored(&mut self, stored: &Stored) {
        let Stored { key, is_stable } = stored;
        let mut effects = Vec::new();
        self.desk.on_stored((self.clock)(), key, *is_stable, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Tell(to, tell) => self.tell(to, tell),
                Effect::Close(connection) => {
                    self.letters.remove(&connection);
                }
                Effect::Store(key, record) => {
                    let (cluster, resource, epoch) = (&key.cluster, &key.resource, record.epoch);
                    let owner = record.owner;
                    info!(cluster, resource, epoch = epoch.0, ?owner, "record changes");
                    if let Err(order) = self.orders.try_send(StoreOrder { key, record }) {
                        // The thread of the disk is gone; the witness ends.
                        let key = &order.into_inner().key;
                        error!(cluster = key.cluster, resource = key.resource, "cannot store");
                    }
                }
            }
        }
    }

    /// A node that does not read is given up, so that what waits for it has a limit.
    fn tell(&mut self, to: ConnectionId, tell: Tell) {
        let Some(letters) = self.letters.get(&to) else { return };
        if letters.try_send(tell).is_err() {
            self.letters.remove(&to);
            self.desk.on_gone(to);
        }
    }
}

/// What every connection goes through.
struct Gate {
    security: ServerSecurity,
    patience: Patience,
    events: mpsc::Sender<Event>,
    greetings: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

impl Gate {
    fn admit(
        &self,
        connections: &mut JoinSet<()>,
        socket: TcpStream,
        remote: SocketAddr,
        id: ConnectionId,
    ) {
        let greeting = Arc::clone(&self.greetings).try_acquire_owned();
        let place = Arc::clone(&self.places).try_acquire_owned();
        let (Ok(greeting), Ok(place)) = (greeting, place) else {
            debug!(%remote, "too many connections");
            return;
        };
        let visitor = Visitor {
            id,
            security: self.security.clone(),
            patience: self.patience,
            events: self.events.clone(),
        };
        connections.spawn(async move {
            let error = visitor.serve(socket, greeting).await;
            let reason = in_one_line(&error);
            debug!(%remote, reason, "connection of a node ended");
            // The desk is told last, and waits for nobody.
            let _ = visitor.events.send(Event::Gone(id)).await;
            drop(place);
        });
    }
}

/// One connection.
struct Visitor {
    id: ConnectionId,
    security: ServerSecurity,
    patience: Patience,
    events: mpsc::Sender<Event>,
}

impl Visitor {
    /// Serves until one of both ends gives up.
    async fn serve(&self, socket: TcpStream, greeting: OwnedSemaphorePermit) -> ArbiterError {
        let (mut reader, mut writer, letters, desk) = match self.greet(socket).await {
            Ok(greeted) => greeted,
            Err(error) => return error,
        };
        drop(greeting);
        tokio::select! {
            error = self.read_all(&mut reader, &desk) => error,
            error = self.write_all(&mut writer, letters) => error,
        }
    }

    /// Finds out who is there.
    async fn greet(
        &self,
        socket: TcpStream,
    ) -> Result<(Reader, Writer, mpsc::Receiver<Tell>, mpsc::WeakSender<Tell>), ArbiterError> {
        let limit = self.patience.greeting;
        let failed = |source| ArbiterError::Io { action: "set up the connection to", source };
        tune(&socket, self.patience.silence).map_err(failed)?;
        let (stream, key) = self.security.accept(socket, limit).await?;
        let (mut reader, mut writer) = split(stream);
        let hello = match timeout(limit, reader.next(Ask::open_hello)).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(error)) => {
                if let ArbiterError::Letter(broken) = &error {
                    let farewell = Tell::Farewell(broken.to_string());
                    // Whether it arrives changes nothing.
                    let _ = writer.send(&farewell, limit).await;
                    writer.close(limit).await;
                }
                return Err(error);
            }
            Err(_) => return Err(ArbiterError::Slow { what: "said who it is", limit }),
        };
        let (letters, letters_out) = mpsc::channel(LETTERS_MAX);
        let desk = letters.downgrade();
        let hello = Event::Hello { from: self.id, hello, key, letters };
        self.events.send(hello).await.map_err(|_| ArbiterError::Closed)?;
        Ok((reader, writer, letters_out, desk))
    }

    /// Reads until the desk gives the connection up: then there may be somebody who sends and does
    /// not read, for whom the writer would wait long.
    async fn read_all(&self, reader: &mut Reader, desk: &mpsc::WeakSender<Tell>) -> ArbiterError {
        let limit = self.patience.silence;
        loop {
            match timeout(limit, reader.next(Ask::open)).await {
                Ok(Ok(_)) if desk.strong_count() == 0 => return ArbiterError::Closed,
                Ok(Ok(ask)) => {
                    if self.events.send(Event::Ask(self.id, ask)).await.is_err() {
                        return ArbiterError::Closed;
                    }
                }
                Ok(Err(error)) => return error,
                Err(_) => return ArbiterError::Slow { what: "said anything", limit },
            }
        }
    }

    /// Sends what the desk says, until it closes.
    async fn write_all(
        &self,
        writer: &mut Writer,
        mut letters: mpsc::Receiver<Tell>,
    ) -> ArbiterError {
        let limit = self.patience.silence;
        while let Some(letter) = letters.recv().await {
            if let Err(error) = writer.send(&letter, limit).await {
                return error;
            }
        }
        writer.close(limit).await;
        ArbiterError::Closed
    }
}
