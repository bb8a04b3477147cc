//! Starts the heartbeats of a node, with an end for each resource, and keeps their keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::clock;
use super::error::DaemonError;
use super::outdate::OutdateEnds;
use super::will::LastWord;
use crate::config::{Encryption, NodeConfig};
use crate::control::{PathDrops, PathState, Paths};
use crate::heartbeat::{
    Advert, Heartbeat, HeartbeatNews, HeartbeatSettings, HeartbeatStatus, KeyRing, OutdateSays,
    RING_LEN_MAX, ResourceEnds, Surroundings,
};
use crate::store::{StoreError, read_file, replace_file};
use crate::units::Instance;

/// What a data thread says and hears.
#[derive(Debug)]
pub(super) struct HeartbeatEnds {
    pub(super) advert: watch::Sender<Advert>,
    pub(super) news: mpsc::Receiver<HeartbeatNews>,
    /// Where it brings what a new session of the nodes is known by.
    /// `None` where another resource does so.
    pub(super) sessions: Option<mpsc::Sender<[u8; 32]>>,
    /// Told when the advert has another epoch.
    pub(super) epochs: Arc<Notify>,
}

/// The heartbeats of a node: for the data thread of each resource, and for `status`.
#[derive(Debug)]
pub(super) struct HeartbeatWay {
    pub(super) resources: BTreeMap<String, HeartbeatEnds>,
    pub(super) outdate: BTreeMap<String, OutdateEnds>,
    pub(super) paths: watch::Receiver<Paths>,
}

/// News that may wait; a tick brings two or three.
const NEWS_MAX: usize = 64;
/// Sessions that may wait. One that does not fit brings no secret; another one will.
const SESSIONS_MAX: usize = 16;
/// The secrets, in the folder of the node's keys.
const KEYS_FILE: &str = "heartbeat-keys";

/// Starts them, if the node has paths. Call it on the control runtime.
///
/// # Errors
/// If an address cannot be used.
pub(super) fn start_heartbeat(
    node: &NodeConfig,
    instance: Instance,
    will: watch::Sender<Vec<LastWord>>,
    stop: CancellationToken,
) -> Result<Option<HeartbeatWay>, DaemonError> {
    if node.node.heartbeat.is_empty() {
        return Ok(None);
    }
    let mine = node.node.heartbeat.iter().copied();
    let settings = HeartbeatSettings {
        cluster: node.cluster.clone(),
        peer: node.peer.name.clone(),
        side: node.side,
        instance,
        paths: mine.zip(node.peer.heartbeat.iter().copied()).collect(),
        multicast: node.multicast.map(|it| (it.group, it.local.ip())),
        interval: node.interval,
        suspect_after: node.suspect_after,
        config: config_hash(node),
        clock: Arc::new(clock::both),
        keys: keys(node),
    };
    let (sessions, sessions_out) = mpsc::channel(SESSIONS_MAX);
    let (status, status_out) = watch::channel(HeartbeatStatus::default());
    let (kept, kept_out) = watch::channel(Vec::new());
    let mut ends = Vec::new();
    let mut resources = BTreeMap::new();
    let mut outdate = BTreeMap::new();
    // One resource brings the secrets: with many, each node would keep others of them.
    let mut sessions = Some(sessions);
    let epochs = Arc::new(Notify::new());
    for resource in &node.resources {
        let (advert, advert_out) = watch::channel(Advert::default());
        let (news, news_out) = mpsc::channel(NEWS_MAX);
        let (says, says_out) = watch::channel(OutdateSays::default());
        let (outdate_news, outdate_news_out) = mpsc::channel(NEWS_MAX);
        ends.push(ResourceEnds {
            name: resource.name.clone(),
            advert: advert_out,
            news,
            outdate: says_out,
            outdate_news,
        });
        let epochs = Arc::clone(&epochs);
        let asks = OutdateEnds {
            says,
            news: outdate_news_out,
            wake: Arc::clone(&epochs),
            sessions: sessions.clone(),
        };
        outdate.insert(resource.name.clone(), asks);
        let mine = HeartbeatEnds { advert, news: news_out, sessions: sessions.take(), epochs };
        resources.insert(resource.name.clone(), mine);
    }
    let heartbeat =
        Heartbeat::bind(settings, ends).map_err(|source| DaemonError::Heartbeat { source })?;
    keep_keys(node.node.state_dir.join(KEYS_FILE), kept_out)?;
    let (last_words, last_words_out) = watch::channel(Vec::new());
    tokio::spawn(hand_on_will(last_words_out, will));
    let around =
        Surroundings { sessions: sessions_out, keys: kept, status, will: last_words, epochs };
    tokio::spawn(heartbeat.run(around, stop));
    let (paths, paths_out) = watch::channel(Paths::default());
    tokio::spawn(show(status_out, paths));
    Ok(Some(HeartbeatWay { resources, outdate, paths: paths_out }))
}

/// Shows what heartbeats tell as `status` has it.
async fn show(mut status: watch::Receiver<HeartbeatStatus>, shown: watch::Sender<Paths>) {
    while status.changed().await.is_ok() {
        let HeartbeatStatus { paths, config_differs, dropped } = status.borrow_and_update().clone();
        let paths = paths.into_iter().map(|path| PathState {
            to: path.to.to_string(),
            up: path.is_up,
            // Rounded to what a clock is worth.
            rtt_ms: path.rtt.map(|rtt| (rtt.as_secs_f64() * 100_000.0).round() / 100.0),
            loss_percent: path.loss_percent,
        });
        let dropped = PathDrops {
            length: dropped.length,
            unknown_key: dropped.unknown_key,
            seal: dropped.seal,
            value: dropped.value,
            replayed: dropped.replayed,
            other_run: dropped.other_run,
            one_way: dropped.one_way,
        };
        let dropped = Some(dropped);
        shown.send_replace(Paths { paths: paths.collect(), config_differs, dropped });
    }
}

/// Of the settings of every resource, in order of name. A sum of sums would be blind to what changes
/// all of them alike.
fn config_hash(node: &NodeConfig) -> u32 {
    let mut hasher = blake3::Hasher::new();
    for resource in &node.resources {
        hasher.update(&resource.settings_hash.to_le_bytes());
    }
    u32::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("32 bytes have 4"))
}

/// The ring that was kept, or what the names make without encryption.
fn keys(node: &NodeConfig) -> KeyRing {
    if node.encryption == Encryption::None {
        let mut names = [node.node.name.as_str(), node.peer.name.as_str()];
        names.sort_unstable();
        return KeyRing::in_the_clear(&node.cluster, names);
    }
    let path = node.node.state_dir.join(KEYS_FILE);
    let bytes = match read_file(&path, RING_LEN_MAX) {
        Ok(bytes) => bytes,
        Err(StoreError::Missing { .. }) => return KeyRing::kept(&[], &node.cluster),
        Err(error) => {
            say_lost(&path, &error);
            return KeyRing::kept(&[], &node.cluster);
        }
    };
    let keys = KeyRing::kept(&bytes, &node.cluster);
    if keys.is_empty() {
        warn!(path = %path.display(), "the keys of heartbeats are damaged: a new one is made with \
            the next connection of the nodes");
    }
    keys
}

fn say_lost(path: &Path, error: &StoreError) {
    warn!(path = %path.display(), error = error as &dyn std::error::Error,
        "the keys of heartbeats cannot be read: a new one is made with the next connection");
}

/// Writes each new ring on a thread of its own: a disk that hangs must not silence the node. A ring
/// that is lost costs nothing but the time to the next connection of the nodes.
fn keep_keys(path: PathBuf, mut rings: watch::Receiver<Vec<u8>>) -> Result<(), DaemonError> {
    let (ring, ring_out) = std::sync::mpsc::sync_channel::<Vec<u8>>(1);
    tokio::spawn(async move {
        while rings.changed().await.is_ok() {
            let bytes = rings.borrow_and_update().clone();
            // While the disk hangs, the next one is enough.
            let _ = ring.try_send(bytes);
        }
    });
    let write = move || {
        while let Ok(bytes) = ring_out.recv() {
            match replace_file(&path, &bytes) {
                Ok(()) => info!(path = %path.display(), "a new key of heartbeats is kept"),
                Err(error) => {
                    warn!(path = %path.display(), error = &error as &dyn std::error::Error,
                        "the keys of heartbeats are not kept");
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("heartbeat-keys".to_owned())
        .spawn(write)
        .map(drop)
        .map_err(|source| DaemonError::System { action: "start the thread of keys", source })
}

async fn hand_on_will(
    mut words: watch::Receiver<Vec<crate::heartbeat::LastWord>>,
    will: watch::Sender<Vec<LastWord>>,
) {
    while words.changed().await.is_ok() {
        let all = words.borrow_and_update().clone();
        let all = all.into_iter();
        let all = all.map(|word| LastWord { from: word.from, to: word.to, bytes: word.bytes });
        will.send_replace(all.collect());
    }
}
