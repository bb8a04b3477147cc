//! Keeps a connection to one member, and moves to the next one when that does not answer.
//!
//! As with a witness, what gets no answer is dropped, and the core asks again with the same id: if
//! the first one was carried out all the same, the record says so.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::{debug, info, warn};

use super::EtcdSettings;
use super::error::EtcdError;
use super::http::Link;
use super::keys::Keys;
use super::lane::{Answered, Did, Lane, introduce};
use super::plan::{Entry, Spoiled};
use super::watch;
use crate::arbiter::client::{News, Order};
use crate::arbiter::error::in_one_line;
use crate::promotion::arbiter::{Asked, Refused, Reply};

/// Pauses after all members were asked in vain.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Requests that are answered from one look. etcd takes 128 operations in one transaction: the key
/// `id`, and four keys of each resource.
const BATCH_MAX: usize = 30;
/// Ticks of a connection after which it was steady; the first one comes at once.
const STEADY_TICKS: u64 = 1;

/// Whoever is served is gone: break.
type OrGone<T> = ControlFlow<(), T>;

/// Keeps a connection to etcd until the sender of `orders` or the receiver of `news` is gone.
pub async fn run_etcd(
    settings: EtcdSettings,
    orders: mpsc::Receiver<Order>,
    news: mpsc::Sender<News>,
) {
    let keys = Keys::of(&settings.cluster, settings.nodes.clone());
    let mut driver = Driver {
        lane: Lane { keys, leases: BTreeMap::new(), settings },
        orders,
        news,
        trouble: None,
        spoiled: BTreeMap::new(),
        shown: BTreeMap::new(),
    };
    let mut failures = 0;
    let mut pause = PAUSE_MIN;
    for at in (0..driver.lane.settings.endpoints.len()).cycle() {
        let (was_steady, error) = match driver.session(at).await {
            ControlFlow::Break(()) => return,
            ControlFlow::Continue(ended) => ended,
        };
        if was_steady {
            (failures, pause) = (0, PAUSE_MIN);
        }
        failures += 1;
        debug!(why = in_one_line(&error), "a member of etcd does not answer");
        if failures < driver.lane.settings.endpoints.len() {
            continue;
        }
        if driver.report(&error).await.is_break() {
            return;
        }
        let spread = pause.mul_f64(1.0 + fastrand::f64() / 4.0);
        pause = (pause * 2).min(PAUSE_MAX);
        if driver.meanwhile(sleep(spread)).await.is_break() {
            return;
        }
    }
}

struct Driver {
    lane: Lane,
    orders: mpsc::Receiver<Order>,
    news: mpsc::Sender<News>,
    /// Why nobody answers, as it was said last.
    trouble: Option<String>,
    /// Resources with a value that is none of ours, as they were named last.
    spoiled: BTreeMap<String, String>,
    /// The revision of each record that was shown last.
    shown: BTreeMap<String, u64>,
}

/// A watch that runs.
struct Bell {
    task: JoinHandle<()>,
    rings: mpsc::Receiver<()>,
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Driver {
    /// Serves over one connection; returns why it ended, and whether it was steady before. One that
    /// fails at its first requests is not: else members that refuse a request would be asked in turn
    /// without a pause.
    async fn session(&mut self, at: usize) -> OrGone<(bool, EtcdError)> {
        let (settings, keys) = (self.lane.settings.clone(), self.lane.keys.clone());
        let endpoint = settings.endpoints[at].clone();
        let opening = async {
            let mut link = Link::open(&settings, &endpoint).await?;
            let arbiter = introduce(&mut link, &settings, &keys).await?;
            Ok((link, arbiter))
        };
        let (mut link, arbiter) = match self.meanwhile(opening).await? {
            Ok(opened) => opened,
            Err(error) => return ControlFlow::Continue((false, error)),
        };
        info!(%endpoint, "etcd is reachable");
        self.trouble = None;
        self.tell(News::Reachable { arbiter }).await?;
        let listen = || {
            let (rings, rings_out) = mpsc::channel(1);
            let ring = watch::ring(settings.clone(), endpoint.clone(), keys.clone(), rings);
            Bell { task: tokio::spawn(ring), rings: rings_out }
        };
        let mut bell = Some(listen());
        let mut tick_count = 0_u64;
        let mut ticks = interval(settings.limit / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                biased;
                () = self.news.closed() => return ControlFlow::Break(()),
                order = self.orders.recv() => {
                    let Some(order) = order else { return ControlFlow::Break(()) };
                    let batch = self.batch(order);
                    self.answer_all(&mut link, batch).await?
                }
                ring = next_ring(bell.as_mut()) => {
                    if ring.is_none() {
                        bell = None;
                    }
                    self.look(&mut link).await?
                }
                _ = ticks.tick() => {
                    tick_count += 1;
                    bell = bell.or_else(|| Some(listen()));
                    self.look(&mut link).await?
                }
            };
            if let Err(error) = done {
                return ControlFlow::Continue((tick_count > STEADY_TICKS, error));
            }
        }
    }

    /// An order, and those that wait behind it.
    fn batch(&mut self, first: Order) -> Vec<Asked> {
        let mut batch = asked_of(first);
        while batch.len() < BATCH_MAX
            && let Ok(more) = self.orders.try_recv()
        {
            batch.extend(asked_of(more));
        }
        batch
    }

    async fn answer_all(&mut self, link: &mut Link, batch: Vec<Asked>) -> OrGone<Did<()>> {
        for part in batch.chunks(BATCH_MAX) {
            let mut leases = Vec::new();
            for asked in part {
                match self.lane.keep_lease(link, asked).await {
                    Ok(lease) => leases.push(lease),
                    Err(error) => return ControlFlow::Continue(Err(error)),
                }
            }
            let resources: Vec<&str> = part.iter().map(|asked| asked.resource.as_str()).collect();
            let found = match self.lane.look(link, &resources).await {
                Ok(found) => found,
                Err(error) => return ControlFlow::Continue(Err(error)),
            };
            for (asked, lease) in part.iter().zip(leases) {
                let answered = self.lane.answer(link, lease, asked, &found).await;
                match answered {
                    Ok(Answered::Reply(reply)) => {
                        self.is_sound(&asked.resource).await?;
                        self.reply(asked, reply).await?;
                    }
                    Ok(Answered::Spoiled(spoiled)) => {
                        self.is_spoiled(&asked.resource, &spoiled).await?;
                        self.reply(asked, Reply::Refused(Refused::Unreadable)).await?;
                    }
                    // The core asks again.
                    Ok(Answered::Unsettled) => {}
                    Err(error) => return ControlFlow::Continue(Err(error)),
                }
            }
        }
        ControlFlow::Continue(Ok(()))
    }

    /// Shows each record that changed.
    async fn look(&mut self, link: &mut Link) -> OrGone<Did<()>> {
        let settings = self.lane.settings.clone();
        for resources in settings.resources.chunks(BATCH_MAX) {
            let names: Vec<&str> = resources.iter().map(String::as_str).collect();
            let found = match self.lane.look(link, &names).await {
                Ok(found) => found,
                Err(error) => return ControlFlow::Continue(Err(error)),
            };
            for resource in resources {
                match self.lane.entry(resource, &found) {
                    Err(spoiled) => self.is_spoiled(resource, &spoiled).await?,
                    Ok(entry) => {
                        self.is_sound(resource).await?;
                        self.show(resource, &entry).await?;
                    }
                }
            }
        }
        ControlFlow::Continue(Ok(()))
    }

    async fn show(&mut self, resource: &str, entry: &Entry) -> OrGone<()> {
        // A record of another store is none.
        let record = entry.record().filter(|(record, _)| record.arbiter.is_of(entry.arbiter()));
        let Some((record, revision)) = record else { return ControlFlow::Continue(()) };
        if self.shown.get(resource) == Some(&revision) {
            return ControlFlow::Continue(());
        }
        self.shown.insert(resource.to_owned(), revision);
        let (resource, record) = (resource.to_owned(), Box::new(record.clone()));
        self.tell(News::Changed { resource, record }).await
    }

    async fn is_spoiled(&mut self, resource: &str, spoiled: &Spoiled) -> OrGone<()> {
        let why = spoiled.to_string();
        if self.spoiled.get(resource) == Some(&why) {
            return ControlFlow::Continue(());
        }
        warn!(resource, why, "etcd has something else than a record");
        self.spoiled.insert(resource.to_owned(), why.clone());
        let resource = resource.to_owned();
        self.tell(News::Spoiled { resource, why: Some(why) }).await
    }

    async fn is_sound(&mut self, resource: &str) -> OrGone<()> {
        if self.spoiled.remove(resource).is_none() {
            return ControlFlow::Continue(());
        }
        info!(resource, "etcd has a record again");
        self.tell(News::Spoiled { resource: resource.to_owned(), why: None }).await
    }

    async fn reply(&self, asked: &Asked, reply: Reply) -> OrGone<()> {
        let (resource, id) = (asked.resource.clone(), asked.request.id);
        self.tell(News::Answer { resource, id, reply }).await
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

    async fn report(&mut self, error: &EtcdError) -> OrGone<()> {
        let why = in_one_line(error);
        if self.trouble.as_ref() == Some(&why) {
            return ControlFlow::Continue(());
        }
        warn!(why, "etcd is not reachable");
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

fn asked_of(order: Order) -> Vec<Asked> {
    match order {
        Order::Ask(asked) => vec![asked],
        Order::Renew(all) => all,
    }
}

/// The next ring; never, without a bell.
async fn next_ring(bell: Option<&mut Bell>) -> Option<()> {
    match bell {
        Some(bell) => bell.rings.recv().await,
        None => std::future::pending().await,
    }
}
