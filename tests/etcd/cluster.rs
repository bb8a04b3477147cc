//! Real members of etcd, each a process of its own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use hotpair::config::EtcdEndpoint;
use rustix::process::Signal;
use serde_json::Value;
use socket2::{Socket, Type};
use tempfile::TempDir;

use crate::real::pair::reserve;
use crate::real::process::{self, News, Process, Said};

/// One member.
struct Member {
    clients: SocketAddr,
    peers: SocketAddr,
    process: Option<Process>,
    /// Keep its ports for it.
    _reserved: [Socket; 2],
}

/// A cluster that ends with the test.
pub(crate) struct Cluster {
    members: Vec<Member>,
    pub(crate) news: News,
    folder: TempDir,
    is_encrypted: bool,
}

impl Cluster {
    /// `count` members that have a leader.
    pub(crate) fn start(count: usize) -> Self {
        Self::with(count, false)
    }

    /// A member that speaks TLS with clients, and takes only those with a certificate.
    #[cfg(feature = "_tls")]
    pub(crate) fn start_tls() -> Self {
        Self::with(1, true)
    }

    fn with(count: usize, is_encrypted: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("hotpair-etcd-").tempdir().unwrap();
        let (second, third) = (fastrand::u8(1..=254), fastrand::u8(..));
        let members = (1..).take(count).map(|fourth| {
            let host = Ipv4Addr::new(127, second, third, fourth);
            let (first, clients) = reserve(host, Type::STREAM);
            let (other, peers) = reserve(host, Type::STREAM);
            Member { clients, peers, process: None, _reserved: [first, other] }
        });
        let mut cluster =
            Self { members: members.collect(), news: News::default(), folder, is_encrypted };
        #[cfg(feature = "_tls")]
        if is_encrypted {
            let SocketAddr::V4(address) = cluster.members[0].clients else { unreachable!() };
            crate::tls::make(cluster.folder(), *address.ip());
        }
        for at in 0..count {
            cluster.spawn(at);
        }
        cluster.wait_ready();
        cluster
    }

    /// Where clients reach each member.
    pub(crate) fn endpoints(&self) -> Vec<EtcdEndpoint> {
        let endpoint = |member: &Member| EtcdEndpoint {
            is_encrypted: self.is_encrypted,
            host: member.clients.ip().to_string(),
            port: member.clients.port(),
        };
        self.members.iter().map(endpoint).collect()
    }

    /// As they stand in a configuration.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.endpoints().iter().map(ToString::to_string).collect()
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Files of the authority, the certificate and its key.
    fn pems(&self) -> [String; 3] {
        ["ca.pem", "cert.pem", "key.pem"].map(|name| self.folder().join(name).display().to_string())
    }

    /// Starts a member, for the first time or again.
    pub(crate) fn spawn(&mut self, at: usize) {
        let peers = self.members.iter().enumerate();
        let peers: Vec<_> = peers.map(|(at, it)| format!("m{at}=http://{}", it.peers)).collect();
        let (clients, mine) = (self.members[at].clients, self.members[at].peers);
        let name = format!("m{at}");
        let state = self.folder.path().join(&name).display().to_string();
        let scheme = if self.is_encrypted { "https" } else { "http" };
        let (clients, mine) = (format!("{scheme}://{clients}"), format!("http://{mine}"));
        let [ca, certificate, key] = self.pems();
        let words = [
            "--name",
            &name,
            "--data-dir",
            &state,
            "--listen-client-urls",
            &clients,
            "--advertise-client-urls",
            &clients,
            "--listen-peer-urls",
            &mine,
            "--initial-advertise-peer-urls",
            &mine,
            "--initial-cluster",
            &peers.join(","),
            "--initial-cluster-state",
            "new",
            "--heartbeat-interval",
            "50",
            "--election-timeout",
            "500",
        ];
        let encrypted = [
            "--client-cert-auth",
            "--trusted-ca-file",
            &ca,
            "--cert-file",
            &certificate,
            "--key-file",
            &key,
        ];
        let mut words = words.to_vec();
        words.extend(encrypted.iter().filter(|_| self.is_encrypted));
        let member = &mut self.members[at];
        assert!(member.process.is_none(), "{name} runs already");
        member.process = Some(Process::start(&name, "etcd", &words, &self.news));
    }

    /// Waits until a majority answers.
    pub(crate) fn wait_ready(&self) {
        self.news.wait_for("etcd to have a leader", || {
            let said = self.try_ctl(&["get", "/", "--command-timeout=1s"]);
            (said.code == Some(0)).then_some(())
        });
    }

    /// Runs etcdctl, which asks any member.
    pub(crate) fn try_ctl(&self, words: &[&str]) -> Said {
        let mut all = vec!["--endpoints".to_owned(), self.urls().join(",")];
        all.extend(words.iter().map(|word| (*word).to_owned()));
        if self.is_encrypted {
            let flags = ["--cacert", "--cert", "--key"];
            let pairs = flags.into_iter().zip(self.pems());
            all.extend(pairs.flat_map(|(flag, pem)| [flag.to_owned(), pem]));
        }
        process::run("etcdctl", &all)
    }

    /// As [`Cluster::try_ctl`], for what must succeed.
    pub(crate) fn ctl(&self, words: &[&str]) -> String {
        let Said { code, stdout, stderr } = self.try_ctl(words);
        assert_eq!(code, Some(0), "etcdctl {words:?}: {stdout}{stderr}");
        stdout
    }

    /// The value of a key; empty if there is none.
    pub(crate) fn value(&self, key: &str) -> String {
        self.ctl(&["get", key, "--print-value-only"]).trim_end().to_owned()
    }

    /// The member that leads.
    pub(crate) fn leader(&self) -> usize {
        self.news.wait_for("etcd to have a leader", || {
            (0..self.members.len()).find(|at| self.is_leader(*at))
        })
    }

    fn is_leader(&self, at: usize) -> bool {
        let url = format!("http://{}", self.members[at].clients);
        let words =
            ["--endpoints", &url, "--command-timeout=1s", "endpoint", "status", "-w", "json"];
        let said = process::run("etcdctl", &words);
        let status: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let status = &status[0]["Status"];
        status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
    }

    /// kill -9 of a member.
    pub(crate) fn kill(&mut self, at: usize) {
        self.members[at].process.take().expect("it was started").kill();
    }

    /// SIGSTOP: its connections stay, and nothing answers. Every thread has stopped when this
    /// returns.
    pub(crate) fn pause(&self, at: usize) {
        self.signal(at, Signal::STOP);
        let id = self.members[at].process.as_ref().expect("it was started").id();
        // The state follows the name, which is in parentheses. Source: proc(5).
        let is_stopped = |task: &Path| {
            let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        self.news.wait_for("a member to stop", || {
            let tasks = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
            let mut tasks = tasks.map(|task| task.unwrap().path());
            tasks.all(|task| is_stopped(&task)).then_some(())
        });
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, at: usize) {
        self.signal(at, Signal::CONT);
    }

    fn signal(&self, at: usize, signal: Signal) {
        self.members[at].process.as_ref().expect("it was started").signal(signal);
    }
}
