//! The sockets and the clock of heartbeats.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::exchange::{Exchange, OutdateSays};
use super::hearing::{Heard, Hearing, HearingSettings, Ignored};
use super::keys::KeyRing;
use super::paths::{PathSocket, readable};
use crate::promotion::Clocks;
use crate::promotion::controller::PeerWord;
use crate::replica::OutdateNews;
use crate::units::{Epoch, Instance, Instant, Side};
use crate::wire::heartbeat::{
    BeatEntry, BeatHead, DATAGRAM_LEN_MAX, Datagram, DatagramError, ENTRIES_MAX, Said, Sender,
    cluster_tag, open, resource_tag, seal_beat, seal_release,
};

/// What heartbeats need to know.
pub struct HeartbeatSettings {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the peer, for people.
    pub peer: String,
    /// This node's place in the pair.
    pub side: Side,
    /// This run of the daemon.
    pub instance: Instance,
    /// Each path: our address and the peer's.
    pub paths: Vec<(SocketAddr, SocketAddr)>,
    /// One more path: a group, and our address on its network.
    pub multicast: Option<(SocketAddr, IpAddr)>,
    /// Time between two ticks.
    pub interval: Duration,
    /// Silence after which the peer is suspected.
    pub suspect_after: Duration,
    /// Hash of the settings that both nodes must have.
    pub config: u32,
    /// Both clocks.
    pub clock: Arc<dyn Fn() -> Clocks + Send + Sync>,
    /// The secrets.
    pub keys: KeyRing,
}

impl std::fmt::Debug for HeartbeatSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeartbeatSettings").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// What one resource says in each beat; its data thread writes it.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Advert {
    /// Its epoch.
    pub epoch: Epoch,
    /// What it promised.
    pub promised: Epoch,
    /// It is primary, and wants a lease.
    pub wants_lease: bool,
    /// It is primary.
    pub is_primary: bool,
    /// It acknowledges alone.
    pub is_solo: bool,
    /// It has vetoed itself.
    pub has_veto: bool,
    /// Nobody serves before an operator says so.
    pub is_stopped: bool,
    /// Two histories.
    pub is_split: bool,
    /// Its copy is up-to-date.
    pub is_up_to_date: bool,
    /// The run of the peer that a lease is granted to, and the newest tick in which it asked; zeroes
    /// if none is.
    pub granted: (Instance, u64),
    /// How many automatic promotions it knows of; `None` before it has heard the peer.
    pub promotions: Option<u8>,
    /// The arbiter answers.
    pub hears_arbiter: bool,
    /// This run serves nothing more up to that epoch: the peer need not wait for its lease.
    pub released: Option<Epoch>,
    /// When its data thread ran last, by `CLOCK_BOOTTIME`. What does not run is not told of.
    pub alive: Instant,
}

/// What the data thread of a resource is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeartbeatNews {
    /// Every path is silent, or no longer all of them.
    Silent(bool),
    /// The peer asks for a lease.
    LeaseAsked {
        /// Its run.
        instance: Instance,
        /// Its epoch.
        epoch: Epoch,
        /// The tick, to be named when it is granted.
        tick: u64,
    },
    /// The peer granted a lease.
    LeaseGranted {
        /// What both clocks showed before it was asked for.
        asked: Clocks,
    },
    /// What the peer says of itself, beside leases.
    Word(PeerWord),
    /// A run of the peer serves nothing more at any epoch up to this one.
    Released {
        /// The run.
        instance: Instance,
        /// The epoch.
        epoch: Epoch,
    },
}

/// The ends of one resource.
#[derive(Debug)]
pub struct ResourceEnds {
    /// Its name.
    pub name: String,
    /// What it says.
    pub advert: watch::Receiver<Advert>,
    /// What it is told. Bounded; a change of silence that does not fit is told again.
    pub news: mpsc::Sender<HeartbeatNews>,
    /// What it asks its peer, and answers it.
    pub outdate: watch::Receiver<OutdateSays>,
    /// What the peer asks, and answers. Bounded; what does not fit is asked again.
    pub outdate_news: mpsc::Sender<OutdateNews>,
}

/// A datagram that says, once this process is dead, that it serves nothing more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LastWord {
    /// The address that it must come from.
    pub from: SocketAddr,
    /// Where it goes.
    pub to: SocketAddr,
    /// Ready to be sent.
    pub bytes: Vec<u8>,
}

/// What `status` shows.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeartbeatStatus {
    /// In the order of the configuration; the group comes last.
    pub paths: Vec<PathStatus>,
    /// The settings of the peer differ.
    pub config_differs: bool,
    /// Datagrams that changed nothing.
    pub dropped: Dropped,
}

/// One path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PathStatus {
    /// The peer's address, or the group.
    pub to: SocketAddr,
    /// Both nodes hear each other on it.
    pub is_up: bool,
    /// Time there and back.
    pub rtt: Option<Duration>,
    /// Of our last ticks, those that the peer did not hear.
    pub loss_percent: u8,
}

/// Datagrams that changed nothing, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Dropped {
    /// Of a length that none has.
    pub length: u64,
    /// Sealed with a key that is not known.
    pub unknown_key: u64,
    /// Not sealed by the peer.
    pub seal: u64,
    /// Sealed, and nothing that this release knows.
    pub value: u64,
    /// Taken before.
    pub replayed: u64,
    /// Of a run that is over, or for one.
    pub other_run: u64,
    /// A request on a path that may pass one way only.
    pub one_way: u64,
}

/// Why heartbeats cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot send heartbeats from {address}")]
pub struct HeartbeatError {
    /// Which address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// The heartbeats of a node.
#[derive(Debug)]
pub struct Heartbeat {
    settings: HeartbeatSettings,
    sender: Sender,
    sockets: Vec<PathSocket>,
    resources: Vec<ResourceEnds>,
    tags: Vec<u64>,
    hearing: Hearing,
    exchange: Exchange,
    /// What each resource was told last.
    told_silent: Vec<bool>,
    status: HeartbeatStatus,
    /// What the will says now.
    willed: Vec<Epoch>,
}

/// What heartbeats are connected with.
#[derive(Debug)]
pub struct Surroundings {
    /// Exporters of new sessions of the nodes; none without encryption.
    pub sessions: mpsc::Receiver<[u8; 32]>,
    /// The bytes of the ring of keys, to be kept for the next run.
    pub keys: watch::Sender<Vec<u8>>,
    /// For `status`.
    pub status: watch::Sender<HeartbeatStatus>,
    /// For the supervisor.
    pub will: watch::Sender<Vec<LastWord>>,
    /// A resource has another epoch, or has something to ask or answer: a will of an older one is of no
    /// use to the peer, and who asks holds writes, so it does not wait for the next tick.
    pub epochs: Arc<Notify>,
}

/// Datagrams that are taken before the clock is looked at again.
const BATCH: usize = 32;

impl Heartbeat {
    /// Opens a socket for each path.
    ///
    /// # Errors
    /// [`HeartbeatError`] names the address that cannot be used.
    pub fn bind(
        settings: HeartbeatSettings,
        resources: Vec<ResourceEnds>,
    ) -> Result<Self, HeartbeatError> {
        let named = |address| move |source| HeartbeatError { address, source };
        let unicast = settings.paths.iter();
        let unicast =
            unicast.map(|(mine, theirs)| PathSocket::unicast(*mine, *theirs).map_err(named(*mine)));
        let multicast = settings.multicast.iter();
        let multicast = multicast
            .map(|(group, local)| PathSocket::multicast(*group, *local).map_err(named(*group)));
        let sockets = unicast.chain(multicast).collect::<Result<Vec<_>, _>>()?;
        let tags: Vec<u64> = resources.iter().map(|ends| resource_tag(&ends.name)).collect();
        let hearing = HearingSettings {
            me: settings.instance,
            interval: settings.interval,
            suspect_after: settings.suspect_after,
            paths: sockets.len(),
            resources: tags.clone(),
        };
        let sender = Sender {
            cluster: cluster_tag(&settings.cluster),
            side: settings.side,
            instance: settings.instance,
        };
        Ok(Self {
            hearing: Hearing::new(hearing, (settings.clock)()),
            exchange: Exchange::new(tags.clone()),
            told_silent: vec![false; resources.len()],
            willed: Vec::new(),
            status: HeartbeatStatus::default(),
            settings,
            sender,
            sockets,
            resources,
            tags,
        })
    }

    /// The addresses that are used, in the order of the paths.
    ///
    /// # Errors
    /// If a socket has none.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(PathSocket::local_addr).collect()
    }

    /// Sends and hears until `stop`.
    pub async fn run(mut self, mut around: Surroundings, stop: CancellationToken) {
        let mut ticks = interval(self.settings.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = [0; DATAGRAM_LEN_MAX + 1];
        let mut has_sessions = true;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = ticks.tick() => {
                    // What has come must be heard before its sender is called silent.
                    self.take(&mut buffer);
                    self.tick();
                    self.say_exchanges(true);
                }
                session = around.sessions.recv(), if has_sessions => match session {
                    Some(exporter) => self.add_key(&exporter, &around),
                    None => has_sessions = false,
                },
                () = around.epochs.notified() => {
                    self.say_releases();
                    self.say_exchanges(false);
                }
                () = readable(&self.sockets) => self.take(&mut buffer),
            }
            self.publish(&around);
        }
    }

    fn add_key(&mut self, exporter: &[u8; 32], around: &Surroundings) {
        if let Some(bytes) = self.settings.keys.add(exporter) {
            around.keys.send_replace(bytes);
            self.willed.clear();
        }
    }

    /// Takes the datagrams that are there.
    fn take(&mut self, buffer: &mut [u8]) {
        for path in 0..self.sockets.len() {
            for _ in 0..BATCH {
                match self.sockets[path].try_recv(buffer) {
                    Ok(Some(len)) => self.on_datagram(path, &buffer[..len]),
                    Ok(None) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An answer that nobody listens there; the next one may be a datagram.
                    Err(_) => {}
                }
            }
        }
    }

    fn on_datagram(&mut self, path: usize, bytes: &[u8]) {
        let now = (self.settings.clock)();
        let opened = open(bytes, self.sender.cluster, self.settings.side, self.settings.keys.all());
        let (datagram, key) = match opened {
            Ok((datagram, key)) => (datagram, key.clone()),
            Err(error) => return self.drop_bytes(path, &error),
        };
        match self.hearing.hear(now, path, &datagram) {
            Ok(heard) => {
                if let Datagram { said: Said::Beat(head, _), .. } = &datagram {
                    self.settings.keys.note_shown(&key);
                    self.note_config(head);
                }
                for heard in heard {
                    self.tell(heard);
                }
            }
            Err(Ignored::Stranger) => {
                // It has this key, though it does not know this run yet.
                self.settings.keys.note_shown(&key);
                self.status.dropped.other_run += 1;
            }
            Err(Ignored::Replayed) => self.status.dropped.replayed += 1,
            Err(Ignored::OtherRun) => self.status.dropped.other_run += 1,
            Err(Ignored::OneWay) => self.status.dropped.one_way += 1,
            Err(Ignored::Strange) => self.status.dropped.value += 1,
        }
    }

    fn drop_bytes(&mut self, path: usize, error: &DatagramError) {
        let to = self.sockets[path].to;
        debug!(from = %to, %error, "a heartbeat was dropped");
        let dropped = &mut self.status.dropped;
        *match error {
            DatagramError::Length(_) => &mut dropped.length,
            DatagramError::UnknownKey(_) => &mut dropped.unknown_key,
            DatagramError::Seal => &mut dropped.seal,
            DatagramError::Value(_) => &mut dropped.value,
        } += 1;
    }

    fn note_config(&mut self, head: &BeatHead) {
        let differs = head.config != self.settings.config;
        if differs != self.status.config_differs {
            self.status.config_differs = differs;
            let peer = &self.settings.peer;
            if differs {
                warn!(peer, "the configurations of the nodes differ");
            } else {
                info!(peer, "the configurations of the nodes are the same");
            }
        }
    }

    fn tell(&self, heard: Heard) {
        let (resource, news) = match heard {
            Heard::LeaseAsked { resource, instance, epoch, tick } => {
                (resource, HeartbeatNews::LeaseAsked { instance, epoch, tick })
            }
            Heard::LeaseGranted { resource, asked } => {
                (resource, HeartbeatNews::LeaseGranted { asked })
            }
            Heard::Word { resource, word } => (resource, HeartbeatNews::Word(word)),
            Heard::Outdate { resource, news } => {
                let _ = self.resources[resource].outdate_news.try_send(news);
                return;
            }
            Heard::Released { resource, instance, epoch } => {
                (resource, HeartbeatNews::Released { instance, epoch })
            }
        };
        // A data thread that does not keep up is asked again with the next tick.
        let _ = self.resources[resource].news.try_send(news);
    }

    /// Sends what is due: replies on every path, requests where a reply would find its way back.
    fn say_exchanges(&mut self, is_tick: bool) {
        let now = (self.settings.clock)();
        let says: Vec<OutdateSays> =
            self.resources.iter().map(|ends| *ends.outdate.borrow()).collect();
        for due in self.exchange.due(&says, self.hearing.peer(), is_tick) {
            // A peer whose run is known has shown a key.
            let Some(key) = self.settings.keys.current(0) else { return };
            for (path, socket) in self.sockets.iter().enumerate() {
                if !due.is_reply && !self.hearing.is_fresh(now, path) {
                    continue;
                }
                if let Err(error) = socket.try_send(&due.seal(key, self.sender, path)) {
                    debug!(to = %socket.to, %error, "a request or reply was not sent");
                }
            }
        }
    }

    /// Says on every path that this node lives.
    fn tick(&mut self) {
        let now = (self.settings.clock)();
        let adverts: Vec<Advert> =
            self.resources.iter().map(|ends| *ends.advert.borrow()).collect();
        let wants = adverts.iter().map(|advert| advert.wants_lease);
        self.hearing.begin_tick(now, wants.collect());
        // A data thread that hangs serves nobody: its peer must not take this node for well.
        let runs = |advert: &Advert| now.boottime.since(advert.alive) < self.settings.suspect_after;
        let entries: Vec<BeatEntry> = self
            .tags
            .iter()
            .zip(&adverts)
            .filter(|(_, advert)| runs(advert))
            .map(|(tag, advert)| entry(*tag, advert, self.hearing.to()))
            .collect();
        // One that is not enrolled yet does not say that the others are cut off.
        let is_heard = adverts.iter().any(|advert| advert.hears_arbiter);
        let reach = if is_heard { BeatHead::ARBITER_REACHABLE } else { 0 };
        for (path, socket) in self.sockets.iter().enumerate() {
            let head = self.hearing.head(now, path);
            let (config, flags) = (self.settings.config, head.flags | reach);
            let head = BeatHead { config, flags, ..head };
            let Some(key) = self.settings.keys.current(head.tick) else { break };
            // A node without resources lives, too.
            let parts = entries.len().div_ceil(ENTRIES_MAX).max(1);
            for part in 0..parts {
                let some = entries.chunks(ENTRIES_MAX).nth(part).unwrap_or_default();
                let head = BeatHead { part: u8::try_from(part).expect("at most 18"), ..head };
                let bytes = seal_beat(key, self.sender, &head, some);
                if let Err(error) = socket.try_send(&bytes) {
                    // A path that is down shows as one that is not up.
                    debug!(to = %socket.to, %error, "a heartbeat was not sent");
                }
            }
        }
        self.say_releases();
        let resources = self.resources.iter().zip(&mut self.told_silent);
        for (resource, (ends, told)) in resources.enumerate() {
            let is_silent = self.hearing.is_silent(now, resource);
            if *told != is_silent && ends.news.try_send(HeartbeatNews::Silent(is_silent)).is_ok() {
                *told = is_silent;
            }
        }
        let paths = self.hearing.paths(now).zip(&self.sockets);
        self.status.paths = paths
            .map(|(state, socket)| PathStatus {
                to: socket.to,
                is_up: state.is_up,
                rtt: state.rtt,
                loss_percent: state.loss_percent,
            })
            .collect();
    }

    fn publish(&mut self, around: &Surroundings) {
        let status = &self.status;
        around.status.send_if_modified(|shown| {
            let has_changed = shown != status;
            if has_changed {
                shown.clone_from(status);
            }
            has_changed
        });
        let epochs: Vec<Epoch> =
            self.resources.iter().map(|ends| ends.advert.borrow().epoch).collect();
        if epochs != self.willed
            && let Some(will) = self.will(&epochs)
        {
            around.will.send_replace(will);
            self.willed = epochs;
        }
    }

    /// What is to be said once this process is dead.
    fn will(&self, epochs: &[Epoch]) -> Option<Vec<LastWord>> {
        let entries: Vec<(u64, Epoch)> =
            self.tags.iter().copied().zip(epochs.iter().copied()).collect();
        self.releases(&entries)
    }

    /// What this run serves no more although it lives: again in each tick, since it may be lost.
    fn say_releases(&self) {
        let released = |(tag, ends): (&u64, &ResourceEnds)| {
            ends.advert.borrow().released.map(|epoch| (*tag, epoch))
        };
        let entries: Vec<_> = self.tags.iter().zip(&self.resources).filter_map(released).collect();
        for word in self.releases(&entries).into_iter().flatten() {
            let path = self.settings.paths.iter().position(|path| *path == (word.from, word.to));
            if let Some(path) = path {
                // One that is lost is said again.
                let _ = self.sockets[path].try_send(&word.bytes);
            }
        }
    }

    /// The datagrams that say so, for each path; `None` without a key.
    fn releases(&self, entries: &[(u64, Epoch)]) -> Option<Vec<LastWord>> {
        let key = self.settings.keys.current(0)?;
        let mut will = Vec::new();
        for some in entries.chunks(ENTRIES_MAX) {
            let bytes = seal_release(key, self.sender, some);
            // Not to the group: whoever sends it has no socket that knows which network is meant.
            for (from, to) in &self.settings.paths {
                will.push(LastWord { from: *from, to: *to, bytes: bytes.clone() });
            }
        }
        Some(will)
    }
}

fn entry(tag: u64, advert: &Advert, to: Instance) -> BeatEntry {
    let (granted_to, granted) = advert.granted;
    let flag = |is_set: bool, flag: u32| if is_set { flag } else { 0 };
    BeatEntry {
        tag,
        epoch: advert.epoch,
        promised: advert.promised,
        // A tick number means something to the run that counted it.
        granted: if granted_to == to { granted } else { 0 },
        promotions: advert.promotions.map_or(0, |count| count.saturating_add(1)),
        flags: flag(advert.wants_lease, BeatEntry::WANTS_LEASE)
            | flag(advert.is_primary, BeatEntry::PRIMARY)
            | flag(advert.is_solo, BeatEntry::SOLO)
            | flag(advert.has_veto, BeatEntry::VETO)
            | flag(advert.is_stopped, BeatEntry::STOPPED)
            | flag(advert.is_split, BeatEntry::SPLIT)
            | flag(advert.is_up_to_date, BeatEntry::UP_TO_DATE),
    }
}
