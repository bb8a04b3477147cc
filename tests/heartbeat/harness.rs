//! Nodes that run, and ways to wait for what they show.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hotpair::heartbeat::{
    Advert, Heartbeat, HeartbeatNews, HeartbeatSettings, HeartbeatStatus, KeyRing, LastWord,
    OutdateSays, ResourceEnds, Surroundings,
};
use hotpair::promotion::Clocks;
use hotpair::replica::OutdateNews;
use hotpair::units::{Epoch, Instance, Instant, Side};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::relay::Relay;

pub(crate) const NAMES: [&str; 2] = ["alpha", "beta"];
/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Node {
    pub(crate) advert: watch::Sender<Advert>,
    pub(crate) news: mpsc::Receiver<HeartbeatNews>,
    pub(crate) outdate: watch::Sender<OutdateSays>,
    pub(crate) outdate_news: mpsc::Receiver<OutdateNews>,
    pub(crate) sessions: mpsc::Sender<[u8; 32]>,
    /// The bytes of its ring of keys, for its next run.
    pub(crate) keys: watch::Receiver<Vec<u8>>,
    pub(crate) will: watch::Receiver<Vec<LastWord>>,
    pub(crate) status: watch::Receiver<HeartbeatStatus>,
    pub(crate) epochs: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

pub(crate) fn clocks() -> Clocks {
    let read = |clock| {
        let time = clock_gettime(clock);
        let seconds = Duration::from_secs(time.tv_sec.try_into().unwrap());
        Instant(0).plus(seconds + Duration::from_nanos(time.tv_nsec.try_into().unwrap()))
    };
    Clocks { boottime: read(ClockId::Boottime), raw: read(ClockId::MonotonicRaw) }
}

pub(crate) fn of_names() -> KeyRing {
    KeyRing::in_the_clear("office", NAMES)
}

pub(crate) fn settings(at: usize, peer: SocketAddr, keys: KeyRing) -> HeartbeatSettings {
    let own: SocketAddr = format!("127.0.0.{}:0", 11 + at).parse().unwrap();
    HeartbeatSettings {
        cluster: "office".to_owned(),
        peer: NAMES[1 - at].to_owned(),
        side: [Side::First, Side::Second][at],
        instance: Instance(100 + at as u64),
        paths: vec![(own, peer)],
        multicast: None,
        interval: Duration::from_millis(20),
        // Long, since the machine may be busy: a beat that is late by a quarter of it is a tilt.
        suspect_after: Duration::from_secs(1),
        config: 5,
        clock: Arc::new(clocks),
        keys,
    }
}

impl Node {
    pub(crate) fn start(at: usize, relay: &Relay, keys: KeyRing) -> Self {
        Self::start_with(settings(at, relay.address(at), keys))
    }

    pub(crate) fn start_with(settings: HeartbeatSettings) -> Self {
        // Its data thread runs for ever.
        let alive = Instant(u64::MAX);
        let (advert, advert_out) = watch::channel(Advert { alive, ..Advert::default() });
        let (news_in, news) = mpsc::channel(64);
        let (sessions, sessions_out) = mpsc::channel(8);
        let (status_in, status) = watch::channel(HeartbeatStatus::default());
        let (keys_in, keys) = watch::channel(Vec::new());
        let (will_in, will) = watch::channel(Vec::new());
        let epochs = Arc::new(Notify::new());
        let (outdate, outdate_out) = watch::channel(OutdateSays::default());
        let (outdate_news_in, outdate_news) = mpsc::channel(64);
        let ends = ResourceEnds {
            name: "vm1".to_owned(),
            advert: advert_out,
            news: news_in,
            outdate: outdate_out,
            outdate_news: outdate_news_in,
        };
        let heartbeat = Heartbeat::bind(settings, vec![ends]).unwrap();
        let stop = CancellationToken::new();
        let around = Surroundings {
            sessions: sessions_out,
            keys: keys_in,
            status: status_in,
            will: will_in,
            epochs: Arc::clone(&epochs),
        };
        let task = tokio::spawn(heartbeat.run(around, stop.clone()));
        Self {
            advert,
            news,
            outdate,
            outdate_news,
            sessions,
            keys,
            will,
            status,
            epochs,
            stop,
            task,
        }
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("an end in time").unwrap();
    }

    /// Waits until what is shown fits, and returns it.
    pub(crate) async fn shows(
        &mut self,
        fits: impl FnMut(&HeartbeatStatus) -> bool,
    ) -> HeartbeatStatus {
        let shown = timeout(PATIENCE, self.status.wait_for(fits)).await.expect("shown in time");
        shown.unwrap().clone()
    }

    pub(crate) async fn is_up(&mut self) -> HeartbeatStatus {
        self.shows(|it| !it.paths.is_empty() && it.paths.iter().all(|path| path.is_up)).await
    }

    pub(crate) async fn is_down(&mut self) {
        self.shows(|it| it.paths.iter().all(|path| !path.is_up)).await;
    }

    /// Waits until it is told what is wanted, and returns what it was told before.
    pub(crate) async fn told(
        &mut self,
        mut is_wanted: impl FnMut(&HeartbeatNews) -> bool,
    ) -> (Vec<HeartbeatNews>, HeartbeatNews) {
        let mut before = Vec::new();
        loop {
            let news = timeout(PATIENCE, self.news.recv()).await.expect("news in time").unwrap();
            if is_wanted(&news) {
                return (before, news);
            }
            before.push(news);
        }
    }

    /// It was told nothing that was not looked at, but for what the peer says of itself.
    pub(crate) fn told_nothing(&mut self) {
        while let Ok(news) = self.news.try_recv() {
            assert!(matches!(news, HeartbeatNews::Word(_)), "{news:?}");
        }
    }

    pub(crate) fn asks_at(&self, epoch: u64) {
        self.advert.send_modify(|advert| {
            advert.epoch = Epoch(epoch);
            advert.wants_lease = true;
        });
    }
}

/// Two nodes that hear each other.
pub(crate) async fn pair() -> (Relay, [Node; 2]) {
    let relay = Relay::start().await;
    let first = Node::start(0, &relay, of_names());
    let second = Node::start(1, &relay, of_names());
    let mut nodes = [first, second];
    for node in &mut nodes {
        node.is_up().await;
    }
    (relay, nodes)
}
