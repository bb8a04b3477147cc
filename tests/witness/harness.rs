//! A witness, its folder, and nodes that ask it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hotpair::arbiter::{ClientSecurity, ClientSettings, News as Said, Order, run_client};
use hotpair::promotion::arbiter::{
    ArbiterRecord, Asked, Half, Operation, Reply, Request, RequestId,
};
use hotpair::units::{ArbiterId, Epoch, Generation, Instance, Side};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::process::{News, PATIENCE, Process};

pub(crate) const A: Side = Side::First;
pub(crate) const B: Side = Side::Second;

/// Longer than any test: nothing ends by itself.
pub(crate) const LEASE_MS: u32 = 600_000;

/// Whether a witness and its nodes encrypt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Security {
    Plain,
    #[cfg(feature = "_tls")]
    Tls,
}

impl Security {
    /// All that this build has.
    pub(crate) fn each() -> Vec<Self> {
        vec![
            Self::Plain,
            #[cfg(feature = "_tls")]
            Self::Tls,
        ]
    }
}

/// The folder of a witness, between its runs.
pub(crate) struct Home {
    folder: TempDir,
    news: News,
    security: Security,
}

/// A witness that runs.
pub(crate) struct Running {
    process: Process,
    news: News,
    pub(crate) address: SocketAddr,
    /// As printed.
    pub(crate) fingerprint: String,
    /// As printed.
    pub(crate) store: String,
}

impl Home {
    pub(crate) fn new(security: Security) -> Self {
        let folder = tempfile::Builder::new().prefix("hotpair-witness-").tempdir().unwrap();
        Self { folder, news: News::default(), security }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn news(&self) -> &News {
        &self.news
    }

    fn launch(&self, under: &[&str], flags: &[&str]) -> Process {
        let folder = self.state_dir();
        let mut words = under.to_vec();
        words.push(env!("CARGO_BIN_EXE_hotpair"));
        words.extend(["witness", "--listen", "127.0.0.1:0", "--state-dir"]);
        words.push(folder.to_str().unwrap());
        if self.security == Security::Plain {
            words.extend(["--encryption", "none"]);
        }
        words.extend(flags);
        Process::start("witness", words[0], &words[1..], &self.news)
    }

    /// Starts a witness and waits until it is ready.
    pub(crate) fn start(&self, flags: &[&str]) -> Running {
        self.start_under(&[], flags)
    }

    /// As [`Home::start`], as the child of another program.
    pub(crate) fn start_under(&self, under: &[&str], flags: &[&str]) -> Running {
        let mut process = self.launch(under, flags);
        let lines = self.news.wait_for("the witness to be ready", || {
            assert!(process.is_running(), "{:?}", process.lines());
            let lines = process.lines();
            lines.iter().any(|line| line == "ready").then_some(lines)
        });
        let word = |start: &str| {
            let line = lines.iter().find_map(|line| line.strip_prefix(start)).unwrap();
            line.to_owned()
        };
        Running {
            address: word("listening ").parse().unwrap(),
            fingerprint: word("identity "),
            store: word("store "),
            news: self.news.clone(),
            process,
        }
    }

    /// Starts a witness that must not start; what it says.
    pub(crate) fn refused(&self, flags: &[&str]) -> String {
        let mut process = self.launch(&[], flags);
        let code = self.news.wait_for("the witness to end", || process.ended());
        assert_eq!(code.code(), Some(1), "{:?}", process.lines());
        self.news.wait_for("what it says", || {
            let text = process.lines().join("\n");
            text.contains("next: ").then_some(text)
        })
    }
}

impl Running {
    pub(crate) fn kill(self) {
        self.process.kill();
    }

    /// As [`Running::kill`], of the child of the program that it was started under, which ends when
    /// that is gone.
    pub(crate) fn kill_child(mut self) {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        for child in children.unwrap_or_default().split_whitespace() {
            let child = child.parse().ok().and_then(Pid::from_raw).unwrap();
            // It may have ended meanwhile.
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
        self.news.wait_for("the end of the witness", || self.process.ended());
    }

    /// SIGTERM; it ends well.
    pub(crate) fn stop(self) {
        let news = self.news.clone();
        assert_eq!(self.process.stop(&news).code(), Some(0));
    }
}

/// The two nodes of a pair, and their keys.
pub(crate) struct Pair {
    security: Security,
    folders: [TempDir; 2],
    pub(crate) identities: [[u8; 32]; 2],
}

impl Pair {
    pub(crate) fn new(security: Security) -> Self {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let identities = folders.each_ref().map(|folder| key_in(folder, security));
        Self { security, folders, identities }
    }

    pub(crate) fn settings(&self, side: Side, witness: &Running) -> ClientSettings {
        ClientSettings {
            address: witness.address,
            security: self.client_security(side, &witness.fingerprint),
            cluster: "office".to_owned(),
            node: ["alpha", "beta"][side.index()].to_owned(),
            side,
            instance: Instance(100 + side.index() as u64),
            ping_every: Duration::from_secs(1),
            dead_after: PATIENCE,
        }
    }

    #[cfg_attr(not(feature = "_tls"), expect(unused_variables, reason = "there are no keys"))]
    pub(crate) fn client_security(&self, side: Side, pin: &str) -> ClientSecurity {
        match self.security {
            Security::Plain => ClientSecurity::Plain,
            #[cfg(feature = "_tls")]
            Security::Tls => {
                let folder = self.folders[side.index()].path();
                let made = hotpair::link::witness_client(folder, pin).unwrap();
                let (config, is_witness) = (made.config, made.is_witness);
                ClientSecurity::Tls { config, is_witness, other_key: made.other_key }
            }
        }
    }

    /// Connects a node.
    pub(crate) async fn node(&self, side: Side, witness: &Running) -> Node {
        let mut node = Node::start(self.settings(side, witness));
        match node.said().await {
            Said::Reachable { arbiter } => node.arbiter = arbiter,
            other => panic!("{other:?}"),
        }
        node
    }

    pub(crate) fn half(&self, alone: bool) -> Half {
        Half {
            identities: self.identities,
            epoch: Epoch(9),
            owner: A,
            in_sync: !alone,
            generation: generation(3),
            alone,
            stopped: false,
            store: ArbiterId(0),
        }
    }

    /// Both nodes connect and enroll `vm1`, in sync.
    pub(crate) async fn enrolled(&self, witness: &Running) -> (Node, Node) {
        let mut alpha = self.node(A, witness).await;
        let mut beta = self.node(B, witness).await;
        let enroll = Operation::Enroll(self.half(false));
        let first = alpha.ask_for(enroll.clone()).await;
        assert!(matches!(first, Reply::Refused(_)), "{first:?}");
        let record = done(beta.ask_for(enroll).await);
        alpha.epoch = record.epoch;
        beta.epoch = record.epoch;
        (alpha, beta)
    }
}

#[cfg_attr(not(feature = "_tls"), expect(unused_variables, reason = "there are no keys"))]
fn key_in(folder: &TempDir, security: Security) -> [u8; 32] {
    match security {
        Security::Plain => [0; 32],
        #[cfg(feature = "_tls")]
        Security::Tls => {
            let text = hotpair::link::fingerprint_of(folder.path()).unwrap();
            text.parse::<hotpair::link::identity::Fingerprint>().unwrap().bytes()
        }
    }
}

/// Numbers of requests: none is used twice, also not over a restart of a node.
static COUNT: AtomicU64 = AtomicU64::new(1);

/// One node's connection, kept by the driver that a daemon uses.
pub(crate) struct Node {
    pub(crate) orders: mpsc::Sender<Order>,
    news: mpsc::Receiver<Said>,
    side: Side,
    instance: Instance,
    pub(crate) arbiter: ArbiterId,
    /// The epoch that requests are made for.
    pub(crate) epoch: Epoch,
    /// Records that were shown without being asked for.
    pub(crate) pushed: Vec<ArbiterRecord>,
}

impl Node {
    pub(crate) fn start(settings: ClientSettings) -> Self {
        let (orders, orders_out) = mpsc::channel(64);
        let (news_in, news) = mpsc::channel(64);
        let (side, instance) = (settings.side, settings.instance);
        tokio::spawn(run_client(settings, orders_out, news_in));
        let (arbiter, epoch) = (ArbiterId::default(), Epoch(0));
        Self { orders, news, side, instance, arbiter, epoch, pushed: Vec::new() }
    }

    /// The next thing that the driver says.
    pub(crate) async fn said(&mut self) -> Said {
        timeout(PATIENCE, self.news.recv()).await.expect("news in time").expect("a driver")
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

    pub(crate) async fn order(&self, resource: &str, request: &Request) {
        let asked = Asked { resource: resource.to_owned(), request: request.clone() };
        self.orders.send(Order::Ask(asked)).await.unwrap();
    }

    /// Waits for the answer to a request.
    pub(crate) async fn answer_to(&mut self, wanted: RequestId) -> Reply {
        self.answer_or_end(wanted).await.unwrap_or_else(|why| panic!("{why}"))
    }

    /// Waits for the answer to a request, or why there is none.
    pub(crate) async fn answer_or_end(&mut self, wanted: RequestId) -> Result<Reply, String> {
        loop {
            match self.said().await {
                Said::Answer { id, reply, .. } if id == wanted => return Ok(reply),
                Said::Answer { .. } | Said::Reachable { .. } | Said::Spoiled { .. } => {}
                Said::Changed { record, .. } => self.pushed.push(*record),
                Said::Unreachable { why } => return Err(why),
            }
        }
    }

    pub(crate) async fn ask(&mut self, resource: &str, request: &Request) -> Reply {
        self.order(resource, request).await;
        self.answer_to(request.id).await
    }

    /// Asks for `vm1` at the epoch that it knows.
    pub(crate) async fn ask_for(&mut self, operation: Operation) -> Reply {
        let request = self.request(operation);
        self.ask("vm1", &request).await
    }

    /// Asks for `vm1`, gets it, and goes on at the new epoch.
    pub(crate) async fn change(&mut self, operation: Operation) -> ArbiterRecord {
        let record = done(self.ask_for(operation).await);
        self.epoch = record.epoch;
        record
    }

    /// The next record that is shown.
    pub(crate) async fn push(&mut self) -> ArbiterRecord {
        while self.pushed.is_empty() {
            match self.said().await {
                Said::Changed { record, .. } => self.pushed.push(*record),
                Said::Answer { .. } | Said::Reachable { .. } | Said::Spoiled { .. } => {}
                Said::Unreachable { why } => panic!("{why}"),
            }
        }
        self.pushed.remove(0)
    }
}

pub(crate) fn done(reply: Reply) -> ArbiterRecord {
    match reply {
        Reply::Done(record) => *record,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn generation(number: u64) -> Generation {
    Generation { number, id: u128::from(number) }
}

pub(crate) fn promote(by_operator: bool) -> Operation {
    Operation::Promote { history: vec![generation(3)], dead: None, by_operator }
}

pub(crate) fn solo() -> Operation {
    Operation::Solo { generation: generation(3) }
}
