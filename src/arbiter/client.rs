//! A node's connection to the witness: one for all its resources.
//!
//! It passes on what the core asks and what the witness says, keeps the connection up, and says
//! when there is one. It remembers nothing: what is asked while there is none is dropped, and what
//! was asked before a connection ended is not asked again. The core asks again, with the same id.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{info, warn};

use super::error::{ArbiterError, in_one_line};
use super::security::ClientSecurity;
use super::stream::{Reader, Writer, split, tune};
use crate::promotion::arbiter::{
    ArbiterRecord, Ask, Asked, Hello, RENEWALS_MAX, Reply, RequestId, Tell,
};
use crate::units::{ArbiterId, Instance, Side};
use crate::wire::letter::VERSION;

/// A node, and the witness that it asks.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Where the witness listens.
    pub address: SocketAddr,
    /// How the connection is protected.
    pub security: ClientSecurity,
    /// Name of the cluster.
    pub cluster: String,
    /// Name of this node.
    pub node: String,
    /// Its place in the pair.
    pub side: Side,
    /// This run of its daemon.
    pub instance: Instance,
    /// Time between two pings.
    pub ping_every: Duration,
    /// Silence after which the connection counts as dead; more than `ping_every`.
    pub dead_after: Duration,
}

/// What the core wants from the witness.
#[derive(Clone, Debug)]
pub enum Order {
    /// A request about one resource.
    Ask(Asked),
    /// Renewals of every resource whose lease is due, in one letter.
    Renew(Vec<Asked>),
}

/// What comes of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// The witness takes requests from here on: whatever has no answer is to be asked again.
    Reachable {
        /// Its store.
        arbiter: ArbiterId,
    },
    /// It takes none; said again only for another reason.
    Unreachable {
        /// For people.
        why: String,
    },
    /// The answer to a request.
    Answer {
        /// Name of the resource.
        resource: String,
        /// Of the request.
        id: RequestId,
        /// What it gets.
        reply: Reply,
    },
    /// What the arbiter has stored of a resource is none of ours; said again when that changes. Its
    /// requests are refused.
    Spoiled {
        /// Name of the resource.
        resource: String,
        /// For people; `None` once it is well again.
        why: Option<String>,
    },
    /// The record of a resource changed.
    Changed {
        /// Name of the resource.
        resource: String,
        /// The record.
        record: Box<ArbiterRecord>,
    },
}

/// Keeps a connection to the witness until the sender of `orders` or the receiver of `news` is
/// gone.
pub async fn run_client(
    settings: ClientSettings,
    orders: mpsc::Receiver<Order>,
    news: mpsc::Sender<News>,
) {
    let mut client = Client { settings, orders, news, trouble: None };
    let mut pause = PAUSE_MIN;
    loop {
        let mut was_reachable = false;
        let error = match client.connect().await {
            ControlFlow::Break(()) => return,
            ControlFlow::Continue(Ok(connected)) => {
                was_reachable = true;
                match client.talk(connected).await {
                    ControlFlow::Break(()) => return,
                    ControlFlow::Continue(error) => error,
                }
            }
            ControlFlow::Continue(Err(error)) => error,
        };
        if was_reachable {
            pause = PAUSE_MIN;
        }
        if client.report(&error).await.is_break() {
            return;
        }
        let spread = pause.mul_f64(1.0 + fastrand::f64() / 4.0);
        pause = (pause * 2).min(PAUSE_MAX);
        if client.meanwhile(sleep(spread)).await.is_break() {
            return;
        }
    }
}

/// Pauses between two attempts.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Least time for connecting, again for TLS, and again for the Welcome. What is lost while a network
/// is down is sent again by the kernel ever later, so an attempt must not outlive the trouble.
const STEP_MIN: Duration = Duration::from_secs(1);

struct Client {
    settings: ClientSettings,
    orders: mpsc::Receiver<Order>,
    news: mpsc::Sender<News>,
    /// Why there is no connection, as it was said last.
    trouble: Option<String>,
}

struct Connected {
    reader: Reader,
    writer: Writer,
}

/// Whoever is served is gone: break.
type OrGone<T> = ControlFlow<(), T>;

impl Client {
    async fn connect(&mut self) -> OrGone<Result<Connected, ArbiterError>> {
        let settings = self.settings.clone();
        let (connected, arbiter) = match self.meanwhile(dial(&settings)).await? {
            Ok(dialled) => dialled,
            Err(error) => return ControlFlow::Continue(Err(error)),
        };
        info!(address = %settings.address, "the witness is reachable");
        self.trouble = None;
        self.tell(News::Reachable { arbiter }).await?;
        ControlFlow::Continue(Ok(connected))
    }

    /// Waits, and drops what is asked meanwhile.
    async fn meanwhile<T>(&mut self, waiting: impl Future<Output = T>) -> OrGone<T> {
        let mut waiting = pin!(waiting);
        loop {
            tokio::select! {
                done = &mut waiting => return ControlFlow::Continue(done),
                () = self.news.closed() => return ControlFlow::Break(()),
                order = self.orders.recv() => {
                    if order.is_none() {
                        return ControlFlow::Break(());
                    }
                }
            }
        }
    }

    /// Passes letters on until the connection ends.
    async fn talk(&mut self, connected: Connected) -> OrGone<ArbiterError> {
        let Connected { mut reader, mut writer } = connected;
        let ClientSettings { ping_every, dead_after, .. } = self.settings;
        let mut pings = interval(ping_every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        // The Welcome is the first letter.
        let mut letters_heard = 1;
        let mut silence = pin!(sleep(dead_after));
        loop {
            // What has arrived is read before anything is asked: a request says how much was heard.
            let asks = tokio::select! {
                biased;
                heard = reader.next(Tell::open) => {
                    letters_heard += 1;
                    silence.as_mut().reset(Instant::now() + dead_after);
                    match heard {
                        Ok(tell) => {
                            if let Err(error) = self.on_tell(tell).await? {
                                return ControlFlow::Continue(error);
                            }
                        }
                        Err(error) => return ControlFlow::Continue(error),
                    }
                    continue;
                }
                order = self.orders.recv() => match order {
                    Some(order) => letters_of(order, letters_heard),
                    None => return ControlFlow::Break(()),
                },
                _ = pings.tick() => {
                    number += 1;
                    vec![Ask::Ping(number)]
                }
                () = &mut silence => {
                    let what = "said anything";
                    return ControlFlow::Continue(ArbiterError::Slow { what, limit: dead_after });
                }
                () = self.news.closed() => return ControlFlow::Break(()),
            };
            for ask in asks {
                if let Err(error) = writer.send(&ask, dead_after).await {
                    return ControlFlow::Continue(error);
                }
            }
        }
    }

    async fn on_tell(&mut self, tell: Tell) -> OrGone<Result<(), ArbiterError>> {
        let news = match tell {
            Tell::Answer { resource, id, reply } => News::Answer { resource, id, reply },
            Tell::Changed { resource, record } => News::Changed { resource, record },
            Tell::Pong(_) => return ControlFlow::Continue(Ok(())),
            Tell::Farewell(why) => {
                return ControlFlow::Continue(Err(ArbiterError::Dismissed { why }));
            }
            Tell::Welcome { .. } => return ControlFlow::Continue(Err(ArbiterError::NoWelcome)),
        };
        self.tell(news).await?;
        ControlFlow::Continue(Ok(()))
    }

    async fn report(&mut self, error: &ArbiterError) -> OrGone<()> {
        let why = in_one_line(error);
        if self.trouble.as_ref() == Some(&why) {
            return ControlFlow::Continue(());
        }
        warn!(address = %self.settings.address, why, "the witness is not reachable");
        self.trouble = Some(why.clone());
        self.tell(News::Unreachable { why }).await
    }

    async fn tell(&self, news: News) -> OrGone<()> {
        match self.news.send(news).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

fn letters_of(order: Order, heard: u64) -> Vec<Ask> {
    match order {
        Order::Ask(asked) => vec![Ask::Request { heard, asked: Box::new(asked) }],
        Order::Renew(all) => {
            all.chunks(RENEWALS_MAX).map(|some| Ask::Renew { heard, all: some.into() }).collect()
        }
    }
}

/// Opens a connection and says who this is.
async fn dial(settings: &ClientSettings) -> Result<(Connected, ArbiterId), ArbiterError> {
    let failed = |action| move |source| ArbiterError::Io { action, source };
    let limit = settings.dead_after.max(STEP_MIN);
    let socket = match timeout(limit, TcpStream::connect(settings.address)).await {
        Ok(socket) => socket.map_err(failed("connect to"))?,
        Err(_) => return Err(ArbiterError::Slow { what: "accepted a connection", limit }),
    };
    tune(&socket, settings.dead_after).map_err(failed("set up the connection to"))?;
    let stream = settings.security.connect(socket, limit).await?;
    let (mut reader, mut writer) = split(stream);
    let hello = Hello {
        versions: (VERSION, VERSION),
        cluster: settings.cluster.clone(),
        node: settings.node.clone(),
        side: settings.side,
        instance: settings.instance,
    };
    writer.send(&Ask::Hello(hello), limit).await?;
    match timeout(limit, reader.next(Tell::open)).await {
        Ok(Ok(Tell::Welcome { arbiter, .. })) => Ok((Connected { reader, writer }, arbiter)),
        Ok(Ok(Tell::Farewell(why))) => Err(ArbiterError::Dismissed { why }),
        Ok(Ok(Tell::Answer { .. } | Tell::Changed { .. } | Tell::Pong(_))) => {
            Err(ArbiterError::NoWelcome)
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(ArbiterError::Slow { what: "answered the Hello", limit }),
    }
}
