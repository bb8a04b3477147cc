//! A node's driver, without the node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hotpair::arbiter::{EtcdSecurity, EtcdSettings, Login, News, Order, run_etcd};
use hotpair::promotion::arbiter::{
    ArbiterRecord, Asked, Half, Operation, Reply, Request, RequestId,
};
use hotpair::units::{ArbiterId, Epoch, Generation, Instance, Side};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::cluster::Cluster;
use crate::real::process::{self, PATIENCE};

pub(crate) const A: Side = Side::First;
pub(crate) const B: Side = Side::Second;
pub(crate) const RESOURCE: &str = "vm1";
pub(crate) const RECORD: &str = "/hotpair/v1/office/vm1/record";
pub(crate) const SERVING: &str = "/hotpair/v1/office/vm1/serving";
pub(crate) const LEASE: Duration = Duration::from_secs(2);
const LEASE_MS: u32 = 2_000;
/// A core asks again so often what got no answer.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

static COUNT: AtomicU64 = AtomicU64::new(1);

/// One run of one node.
pub(crate) struct Node {
    runtime: Runtime,
    orders: mpsc::Sender<Order>,
    news: mpsc::Receiver<News>,
    pub(crate) side: Side,
    /// What it asks about.
    pub(crate) resource: &'static str,
    pub(crate) instance: Instance,
    pub(crate) arbiter: ArbiterId,
    pub(crate) epoch: Epoch,
    /// What was pushed.
    pub(crate) pushed: Vec<ArbiterRecord>,
    /// Why the resource cannot be used, if it cannot.
    pub(crate) spoiled: Option<String>,
    /// Another store answers than at first.
    pub(crate) is_lost: bool,
    /// Why nothing answers, if so.
    pub(crate) trouble: Option<String>,
}

pub(crate) fn settings(cluster: &Cluster) -> EtcdSettings {
    EtcdSettings {
        endpoints: cluster.endpoints(),
        security: EtcdSecurity::Plain,
        login: None,
        cluster: "office".to_owned(),
        nodes: ["alpha".to_owned(), "beta".to_owned()],
        resources: vec![RESOURCE.to_owned()],
        lease: LEASE,
        limit: Duration::from_secs(1),
        fresh_id: fastrand::u128(1..),
    }
}

pub(crate) fn login(user: &str, password: &str) -> Login {
    Login { user: user.to_owned(), password: password.to_owned() }
}

pub(crate) fn generation(number: u64) -> Generation {
    Generation { number, id: u128::from(number) }
}

pub(crate) fn half() -> Half {
    Half {
        identities: [[1; 32], [2; 32]],
        epoch: Epoch(9),
        owner: A,
        in_sync: true,
        generation: generation(3),
        alone: false,
        stopped: false,
        store: ArbiterId(0),
    }
}

/// As an eligible node asks.
pub(crate) fn promote(dead: Option<Instance>) -> Operation {
    Operation::Promote { history: vec![generation(3)], dead, by_operator: false }
}

/// As the owner asks when it drops the other one.
pub(crate) fn solo() -> Operation {
    Operation::Solo { generation: generation(3) }
}

impl Node {
    pub(crate) fn start(cluster: &Cluster, side: Side) -> Self {
        Self::with(settings(cluster), side)
    }

    pub(crate) fn with(settings: EtcdSettings, side: Side) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
        let (orders, orders_out) = mpsc::channel(64);
        let (news_in, news) = mpsc::channel(64);
        runtime.spawn(run_etcd(settings, orders_out, news_in));
        let instance = Instance(fastrand::u64(1..));
        let (arbiter, epoch) = (ArbiterId::default(), Epoch(0));
        let pushed = Vec::new();
        let (spoiled, trouble) = (None, None);
        let is_lost = false;
        let mut node = Self {
            runtime,
            orders,
            news,
            side,
            resource: RESOURCE,
            instance,
            arbiter,
            epoch,
            pushed,
            spoiled,
            is_lost,
            trouble,
        };
        node.wait("a word of etcd", |node| {
            node.trouble.is_some() || node.arbiter != ArbiterId::default()
        });
        node
    }

    /// The next thing that the driver says within a time.
    fn hear(&mut self, limit: Duration) -> Option<News> {
        let heard = self.runtime.block_on(async { timeout(limit, self.news.recv()).await });
        let news = heard.ok()?.expect("a driver");
        match &news {
            News::Reachable { arbiter } => {
                self.trouble = None;
                if self.arbiter == ArbiterId::default() {
                    self.arbiter = *arbiter;
                }
                self.is_lost = self.arbiter != *arbiter;
            }
            News::Unreachable { why } => self.trouble = Some(why.clone()),
            News::Spoiled { why, .. } => self.spoiled.clone_from(why),
            News::Changed { record, .. } => self.pushed.push((**record).clone()),
            News::Answer { .. } => {}
        }
        Some(news)
    }

    /// Listens until something is so.
    pub(crate) fn wait(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let until = process::now() + PATIENCE;
        while !is_so(self) {
            assert!(process::now() < until, "waited {PATIENCE:?} for {what}");
            self.hear(AGAIN_AFTER);
        }
    }

    /// A half that names no store is said of the one that this node is connected to.
    pub(crate) fn request(&self, mut operation: Operation) -> Request {
        if let Operation::Enroll(half) = &mut operation
            && half.store == ArbiterId(0)
        {
            half.store = self.arbiter;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Request {
            from: self.side,
            id: RequestId { instance: self.instance, number },
            arbiter: self.arbiter,
            arbiter_epoch: self.epoch,
            epoch: self.epoch,
            lease_ms: LEASE_MS,
            operation,
        }
    }

    /// Asks, without a wait for the answer.
    pub(crate) fn order(&self, request: &Request) {
        let asked = Asked { resource: self.resource.to_owned(), request: request.clone() };
        self.orders.blocking_send(Order::Ask(asked)).unwrap();
    }

    /// Asks, and asks again as a core does until there is an answer.
    pub(crate) fn answer_to(&mut self, request: &Request) -> Reply {
        let until = process::now() + PATIENCE;
        while process::now() < until {
            self.order(request);
            let again = process::now() + AGAIN_AFTER;
            while let Some(left) = again.checked_duration_since(process::now())
                && let Some(news) = self.hear(left)
            {
                if let News::Answer { id, reply, .. } = news
                    && id == request.id
                {
                    self.learn(&reply);
                    return reply;
                }
            }
        }
        panic!("no answer to {request:?}: {:?}", self.trouble);
    }

    /// The answer to anything that comes before a core would ask again, if one does.
    pub(crate) fn next_answer(&mut self) -> Option<Reply> {
        let again = process::now() + AGAIN_AFTER;
        while let Some(left) = again.checked_duration_since(process::now())
            && let Some(news) = self.hear(left)
        {
            if let News::Answer { reply, .. } = news {
                return Some(reply);
            }
        }
        None
    }

    pub(crate) fn ask(&mut self, operation: Operation) -> Reply {
        let request = self.request(operation);
        self.answer_to(&request)
    }

    /// Asks for a lease until there is one; returns when it was asked for, and its length.
    pub(crate) fn lease(&mut self) -> (Instant, Duration) {
        let until = process::now() + PATIENCE;
        while process::now() < until {
            let asked = process::now();
            if let Reply::Lease { lease_ms, .. } = self.ask(Operation::Renew) {
                return (asked, Duration::from_millis(lease_ms.into()));
            }
        }
        panic!("no lease");
    }

    /// Asks for something until it is done.
    pub(crate) fn insist(&mut self, operation: &Operation) -> ArbiterRecord {
        let until = process::now() + PATIENCE;
        loop {
            let reply = self.ask(operation.clone());
            if let Reply::Done(record) = reply {
                return *record;
            }
            assert!(process::now() < until, "refused for {PATIENCE:?}: {reply:?}");
        }
    }

    fn learn(&mut self, reply: &Reply) {
        match reply {
            Reply::Done(record) | Reply::Conflict(record) | Reply::Lease { record, .. } => {
                self.epoch = self.epoch.max(record.epoch);
            }
            Reply::View(view) => self.epoch = self.epoch.max(view.record.epoch),
            Reply::Refused(_) => {}
        }
    }
}

/// Both nodes, with a record that lists both; the first one owns it.
pub(crate) fn enrolled(cluster: &Cluster) -> [Node; 2] {
    let mut nodes = [Node::start(cluster, A), Node::start(cluster, B)];
    enroll(&mut nodes);
    nodes
}

/// Makes the record. A half that a node says before it knows its store counts for nothing, so both are said
/// until there is a record.
pub(crate) fn enroll(nodes: &mut [Node; 2]) {
    let [a, b] = nodes;
    let until = process::now() + PATIENCE;
    loop {
        a.ask(Operation::Enroll(half()));
        let reply = b.ask(Operation::Enroll(half()));
        if let Reply::Done(_) = reply {
            break;
        }
        assert!(process::now() < until, "refused for {PATIENCE:?}: {reply:?}");
    }
    a.ask(Operation::Read);
}
