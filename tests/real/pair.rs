//! Two real daemons on the loopback, in a folder of their own.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::lab::Lab;
use super::load::Load;
use super::nbd_client::NbdClient;
use super::process::{self, News, Process, Said};
use super::record::Record;
use super::relay::Relay;
use super::witness::Witness;

/// The resource of every pair.
pub(crate) const RESOURCE: &str = "r";
/// Operations that a load has in flight.
const DEPTH: usize = 32;

/// What a pair looks like.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Size of the resource in bytes.
    pub(crate) size: u64,
    pub(crate) mode: &'static str,
    /// `tls` or `none`.
    pub(crate) encryption: &'static str,
    /// The nodes talk through relays that the test holds.
    pub(crate) has_relays: bool,
    /// Where each node keeps data and metadata, if not in the pair's own folder.
    pub(crate) folders: [Option<PathBuf>; 2],
    /// The resource is a directory; `size` and `mode` mean nothing.
    pub(crate) is_directory: bool,
    /// More lines for the resource's section.
    pub(crate) resource_lines: &'static str,
    /// A third party says who serves: nodes promote themselves.
    pub(crate) has_witness: bool,
    /// Members of etcd that say who serves, if no witness does.
    pub(crate) etcd: Vec<String>,
    /// The command that cuts the other node off: nodes promote themselves when it has.
    pub(crate) fence: Option<PathBuf>,
    /// How often nodes may promote themselves, as the configuration says it.
    pub(crate) flap_limit: &'static str,
    /// Pacemaker says who serves: the test does its work, and `fence` is its script.
    pub(crate) under_pacemaker: bool,
    /// More lines for the section `[promotion]`, or after it.
    pub(crate) promotion_lines: &'static str,
    /// More sections, at the end.
    pub(crate) tail: String,
    /// Words before the command line of each node and of the witness: what they run under.
    pub(crate) wrappers: [Vec<String>; 3],
    /// The hosts of both nodes and of the witness, if each has one of its own.
    pub(crate) lab: Option<Lab>,
}

impl Default for Plan {
    fn default() -> Self {
        // An odd tail: the last block is short.
        let size = (32 << 20) + 1536;
        Self {
            size,
            mode: "sync",
            encryption: "tls",
            has_relays: false,
            folders: [None, None],
            is_directory: false,
            resource_lines: "",
            has_witness: false,
            etcd: Vec::new(),
            fence: None,
            flap_limit: OFTEN,
            under_pacemaker: false,
            promotion_lines: "",
            tail: String::new(),
            wrappers: Default::default(),
            lab: None,
        }
    }
}

impl Plan {
    /// The words before the command line of a node (0, 1) or of the witness (2).
    fn wrapper(&self, at: usize) -> Vec<String> {
        let mut words = self.lab.as_ref().map_or_else(Vec::new, |lab| lab.wrapper(at));
        words.extend_from_slice(&self.wrappers[at]);
        words
    }

    pub(crate) fn has_arbiter(&self) -> bool {
        self.has_witness || !self.etcd.is_empty()
    }
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) config: PathBuf,
    /// Data file, or the directory.
    pub(crate) data: PathBuf,
    /// Keys and metadata.
    pub(crate) state_dir: PathBuf,
    /// Where clients connect.
    pub(crate) export: PathBuf,
    pub(crate) control: PathBuf,
    pub(crate) replication: SocketAddr,
    /// Where heartbeats go out and come in.
    heartbeat: [SocketAddr; 2],
    /// Keep the addresses for the daemon.
    _reserved: Vec<Socket>,
    /// Words before the daemon's own command line, to run it in a world of its own.
    pub(crate) wrapper: Vec<String>,
    daemon: Option<Process>,
    news: News,
}

/// Both nodes. They end with it.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    /// `relays[0]` is what the second node dials to reach the first.
    pub(crate) relays: Option<[Relay; 2]>,
    pub(crate) witness: Option<Witness>,
    pub(crate) news: News,
    pub(crate) plan: Plan,
    folder: TempDir,
}

/// The binary under test.
pub(crate) fn binary() -> String {
    std::env::var("HOTPAIR_BINARY").unwrap_or_else(|_| env!("CARGO_BIN_EXE_hotpair").to_owned())
}

impl Pair {
    /// Makes the configuration and the keys; no metadata, no data, no daemon yet.
    pub(crate) fn prepare(plan: Plan) -> Self {
        let folder = tempfile::Builder::new().prefix("hotpair-").tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let news = News::default();
        // A network of its own for each pair, so that tests side by side never meet.
        let (second, third) = (fastrand::u8(1..=254), fastrand::u8(..));
        let host = |fourth: u8| match &plan.lab {
            Some(lab) => lab.address(fourth),
            None => Ipv4Addr::new(127, second, third, fourth),
        };
        let node = |at: usize, name: &'static str, fourth: u8| {
            let mut reserved = Vec::new();
            let mut address = |fourth: u8, kind: Type, port: u16| {
                if plan.lab.is_some() {
                    // Nobody else is on that host.
                    return SocketAddr::from((host(fourth), port));
                }
                let (socket, address) = reserve(host(fourth), kind);
                // Of two sockets for datagrams on one port only the newer one would get any.
                reserved.extend((kind == Type::STREAM).then_some(socket));
                address
            };
            let replication = address(fourth, Type::STREAM, 7788);
            let heartbeat =
                [address(fourth, Type::DGRAM, 7789), address(fourth + 10, Type::DGRAM, 7789)];
            let home = plan.folders[at].clone().unwrap_or_else(|| folder.path().join(name));
            fs::create_dir_all(&home).unwrap();
            Node {
                name,
                config: folder.path().join(format!("{name}.toml")),
                data: home.join(if plan.is_directory { "tree" } else { "data.img" }),
                state_dir: home.join("state"),
                export: folder.path().join(format!("{name}.nbd")),
                control: folder.path().join(format!("{name}.control")),
                replication,
                heartbeat,
                _reserved: reserved,
                wrapper: plan.wrapper(at),
                daemon: None,
                news: news.clone(),
            }
        };
        let nodes = [node(0, "alpha", 1), node(1, "beta", 2)];
        let relays = plan
            .has_relays
            .then(|| [Relay::to(nodes[0].replication), Relay::to(nodes[1].replication)]);
        let witness = plan.has_witness.then(|| {
            let listen = SocketAddr::from((host(3), if plan.lab.is_some() { 7787 } else { 0 }));
            Witness::start(folder.path(), listen, plan.encryption, plan.wrapper(2), &news)
        });
        let pair = Self { nodes, relays, witness, news, plan, folder };
        let identities = [0, 1].map(|at| pair.nodes[at].identity());
        for at in [0, 1] {
            write_private(&pair.nodes[at].config, &pair.config_of(at, &identities));
        }
        pair
    }

    /// A running pair whose first node holds `image`, both up to date, the first one primary.
    pub(crate) fn start(plan: Plan, image: &[u8]) -> Self {
        let mut pair = Self::prepare(plan);
        fs::write(&pair.nodes[0].data, image).unwrap();
        pair.nodes[0].well(&["init", RESOURCE, "--from", "this"]);
        pair.nodes[1].well(&["init", RESOURCE, "--from", "peer"]);
        pair.nodes[0].run();
        pair.nodes[1].run();
        pair.wait_in_sync();
        pair.begin();
        pair
    }

    /// Makes the first node primary, or waits until the arbiter has.
    fn begin(&mut self) {
        if self.plan.has_arbiter() {
            self.wait_serves(0);
        } else {
            self.nodes[0].as_agent(&["promote", RESOURCE]);
        }
    }

    /// Waits until a node serves.
    pub(crate) fn wait_serves(&self, at: usize) {
        let node = &self.nodes[at];
        let what = format!("{} to serve", node.name);
        self.news.wait_for(&what, || {
            let status = node.status()?;
            (status["role"] == "primary" && status["serving"] == true).then_some(())
        });
    }

    /// As [`Pair::start`], with a resource that is all zero and takes no space.
    pub(crate) fn start_empty(plan: Plan) -> Self {
        let mut pair = Self::prepare(plan);
        pair.nodes[0].well(&["init", RESOURCE, "--from", "empty"]);
        pair.nodes[1].well(&["init", RESOURCE, "--from", "peer"]);
        pair.nodes[0].run();
        pair.nodes[1].run();
        pair.wait_in_sync();
        pair.begin();
        pair
    }

    /// The configuration as the node `reader` has it. The two differ only where a relay stands in
    /// for the peer.
    pub(crate) fn config_of(&self, reader: usize, identities: &[String; 2]) -> String {
        let mut text = format!(
            "cluster = \"test\"\n[link]\nencryption = \"{}\"\n{}",
            self.plan.encryption,
            self.resource_section(),
        );
        if let Some(witness) = &self.witness {
            let _ = write!(
                text,
                "[promotion]\nauto = \"arbiter\"\narbiter = \"witness\"\nwitness = \"{}\"\n\
                 flap_limit = \"{}\"\n{}{}\n",
                witness.address,
                self.plan.flap_limit,
                witness.identity_line,
                self.plan.promotion_lines,
            );
        }
        if !self.plan.etcd.is_empty() {
            let _ = write!(
                text,
                "[promotion]\nauto = \"arbiter\"\narbiter = \"etcd\"\netcd = {:?}\n\
                 flap_limit = \"{}\"\n{}\n",
                self.plan.etcd, self.plan.flap_limit, self.plan.promotion_lines,
            );
        }
        if let Some(fence) = &self.plan.fence {
            let auto = if self.plan.under_pacemaker {
                "arbiter\"\narbiter = \"pacemaker"
            } else {
                "fenced"
            };
            let fence = fence.display();
            let _ = writeln!(text, "[promotion]\nauto = \"{auto}\"\nfence = \"{fence}\"");
            if self.plan.under_pacemaker {
                let _ = writeln!(text, "unfence = \"{fence}\"");
            }
            let _ = writeln!(text, "{}", self.plan.promotion_lines);
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let relay = self.relays.as_ref().filter(|_| at != reader).map(|relays| &relays[at]);
            let _ = write!(
                text,
                "[node.{}]\nreplication = \"{}\"\nidentity = \"{}\"\nstate_dir = \"{}\"\n\
                 control = \"{}\"\n",
                node.name,
                relay.map_or(node.replication, Relay::address),
                identities[at],
                node.state_dir.display(),
                node.control.display(),
            );
            let has_arbiter = self.witness.is_some() || !self.plan.etcd.is_empty();
            if has_arbiter || self.plan.fence.is_some() || self.plan.under_pacemaker {
                let [first, second] = node.heartbeat;
                let _ = writeln!(text, "heartbeat = [\"{first}\", \"{second}\"]");
            }
        }
        text.push_str(&self.plan.tail);
        text
    }

    fn resource_section(&self) -> String {
        let [mine, theirs] = [0, 1].map(|at| self.nodes[at].data.display());
        let lines = self.plan.resource_lines;
        if self.plan.is_directory {
            return format!(
                "[resource.{RESOURCE}]\nkind = \"directory\"\npath = \"{mine}\"\n{lines}\n\
                 [resource.{RESOURCE}.on.beta]\npath = \"{theirs}\"\n",
            );
        }
        let [exported, theirs_exported] = [0, 1].map(|at| self.nodes[at].export.display());
        format!(
            "[resource.{RESOURCE}]\nkind = \"block\"\npath = \"{mine}\"\nsize = \"{}B\"\n\
             mode = \"{}\"\nexport = \"unix:{exported}\"\n{lines}\n\
             [resource.{RESOURCE}.on.beta]\npath = \"{theirs}\"\nexport = \"unix:{theirs_exported}\"\n",
            self.plan.size, self.plan.mode,
        )
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Waits until both nodes say that they hold the same, up-to-date data.
    pub(crate) fn wait_in_sync(&self) {
        self.news.wait_for("both nodes to be in sync", || {
            self.nodes.iter().all(Node::is_in_sync).then_some(())
        });
    }

    /// Waits until the two nodes talk again.
    pub(crate) fn wait_connected(&self) {
        self.news.wait_for("both nodes to be connected", || {
            self.nodes.iter().all(|node| node.field("/peer/link") == "connected").then_some(())
        });
    }

    /// Starts a load on the export of one node, as soon as that takes clients.
    pub(crate) fn load(&self, at: usize, record: Record) -> Load {
        drop(self.nodes[at].connect());
        Load::start(&self.nodes[at].export, RESOURCE, DEPTH, record, &self.news)
    }

    /// Cuts the cable between the nodes. Both must have noticed when this returns.
    pub(crate) fn cut(&self) {
        self.relays.as_ref().expect("a plan with relays").iter().for_each(Relay::cut);
        self.news.wait_for("both nodes to notice the cut", || {
            self.nodes.iter().all(|node| node.field("/peer/link") != "connected").then_some(())
        });
    }

    pub(crate) fn heal(&self) {
        self.relays.as_ref().expect("a plan with relays").iter().for_each(Relay::heal);
    }

    /// Both data files, byte for byte.
    pub(crate) fn images(&self) -> [Vec<u8>; 2] {
        [0, 1].map(|at| fs::read(&self.nodes[at].data).unwrap())
    }

    /// Panics unless both data files are equal; returns what they hold.
    pub(crate) fn equal_image(&self) -> Vec<u8> {
        let [mine, theirs] = self.images();
        assert_eq!(mine.len(), theirs.len(), "lengths of the data files");
        let is_different = |at: &usize| mine[*at] != theirs[*at];
        if let Some(at) = (0..mine.len()).find(is_different) {
            let count = (0..mine.len()).filter(is_different).count();
            panic!("the data files differ in {count} bytes, the first one at {at}");
        }
        mine
    }
}

impl Node {
    /// Runs a command of this node's command line to its end.
    pub(crate) fn say(&self, words: &[&str]) -> Said {
        let config = self.config.to_str().expect("an ASCII path");
        let mut arguments = vec!["--config", config, "--node", self.name];
        arguments.splice(0..0, words.iter().copied());
        process::run(&binary(), &arguments)
    }

    /// As [`Node::say`], typed as the resource agent of a cluster does it.
    pub(crate) fn say_as_agent(&self, words: &[&str]) -> Said {
        let config = self.config.to_str().expect("an ASCII path");
        let (binary, instance) = (binary(), format!("OCF_RESOURCE_INSTANCE={RESOURCE}:0"));
        let mut arguments = vec![instance.as_str(), binary.as_str()];
        arguments.extend(words);
        arguments.extend(["--config", config, "--node", self.name]);
        process::run("env", &arguments)
    }

    /// As [`Node::say_as_agent`], for a command that must succeed.
    pub(crate) fn as_agent(&self, words: &[&str]) {
        let Said { code, stdout, stderr } = self.say_as_agent(words);
        assert_eq!(code, Some(0), "{} on {}: {stdout}{stderr}", words.join(" "), self.name);
    }

    /// As [`Node::say`], for a command that must succeed; returns its standard output.
    pub(crate) fn well(&self, words: &[&str]) -> String {
        let said = self.say(words);
        let Said { code, stdout, stderr } = said;
        assert_eq!(code, Some(0), "{} on {}: {stdout}{stderr}", words.join(" "), self.name);
        stdout
    }

    /// As [`Node::say`], for a command that must be refused with a reason and a way out; returns
    /// what it said.
    pub(crate) fn refused(&self, words: &[&str]) -> String {
        let said = self.say(words);
        let Said { code, stdout, stderr } = said;
        assert_eq!(code, Some(1), "{} on {}: {stdout}{stderr}", words.join(" "), self.name);
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    }

    fn identity(&self) -> String {
        let state_dir = self.state_dir.to_str().expect("an ASCII path");
        let text = process::run_well(&binary(), &["identity", "--state-dir", state_dir]);
        let pin = text.split_whitespace().find(|word| word.starts_with("sha256//"));
        pin.unwrap_or_else(|| panic!("no key in {text:?}")).to_owned()
    }

    /// Starts the daemon and waits until it takes commands.
    pub(crate) fn run(&mut self) {
        self.spawn();
        let what = format!("the daemon of {} to take commands", self.name);
        let news = self.news.clone();
        news.wait_for(&what, || {
            let daemon = self.daemon.as_mut().expect("just started");
            assert!(daemon.is_running(), "the daemon of {} ended: {:?}", self.name, daemon.lines());
            self.status().map(drop)
        });
    }

    /// Starts the daemon, and waits for nothing.
    pub(crate) fn spawn(&mut self) {
        assert!(self.daemon.is_none(), "{} runs already", self.name);
        let binary = binary();
        let config = self.config.to_str().expect("an ASCII path");
        let daemon = [&binary, "run", "--config", config, "--node", self.name];
        let words: Vec<&str> = self.wrapper.iter().map(String::as_str).chain(daemon).collect();
        self.daemon = Some(Process::start(self.name, words[0], &words[1..], &self.news));
    }

    pub(crate) fn is_started(&self) -> bool {
        self.daemon.is_some()
    }

    pub(crate) fn daemon(&mut self) -> &mut Process {
        self.daemon.as_mut().expect("it was started")
    }

    /// kill -9 of the supervisor. Nobody but the kernel ends its worker then, and this waits for that.
    pub(crate) fn kill(&mut self) {
        let daemon = self.daemon.take().expect("it was started");
        let worker = worker_of(daemon.id());
        daemon.kill();
        if let Some(worker) = worker {
            wait_for_end(worker, &self.news);
        }
    }

    /// kill -9 of the supervisor and of the worker, so that neither tells of the other.
    pub(crate) fn lose(&mut self) {
        self.daemon().signal(Signal::STOP);
        self.try_kill_worker();
        self.kill();
    }

    /// kill -9 of the worker: its supervisor lives.
    pub(crate) fn kill_worker(&mut self) {
        let worker = self.worker();
        rustix::process::kill_process(worker, Signal::KILL).unwrap();
    }

    /// As [`Node::kill_worker`], if there is one.
    pub(crate) fn try_kill_worker(&mut self) {
        if let Some(worker) = worker_of(self.daemon().id()) {
            // It may be gone already.
            let _ = rustix::process::kill_process(worker, Signal::KILL);
        }
    }

    /// The process that does the work, if that is another one than its supervisor.
    pub(crate) fn worker(&mut self) -> Pid {
        worker_of(self.daemon().id()).expect("a supervisor with a worker")
    }

    /// SIGTERM, and waits for the end, which must be a good one.
    pub(crate) fn stop(&mut self) {
        self.daemon().signal(Signal::TERM);
        self.wait_stopped();
    }

    /// Waits for the end of a daemon that has got SIGTERM.
    pub(crate) fn wait_stopped(&mut self) {
        let mut daemon = self.daemon.take().expect("it was started");
        let what = format!("{} to end after SIGTERM", self.name);
        let status = self.news.wait_for(&what, || daemon.ended());
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// `status --json` of the one resource; `None` while the daemon cannot be reached.
    pub(crate) fn status(&self) -> Option<Value> {
        let said = self.say(&["status", "--json"]);
        match said.code {
            Some(0) => {
                let whole: Value = serde_json::from_str(&said.stdout).unwrap();
                Some(whole["resources"][0].clone())
            }
            Some(3) => None,
            _ => panic!("status on {}: {}{}", self.name, said.stdout, said.stderr),
        }
    }

    /// Whether it has a connection to its arbiter.
    pub(crate) fn reaches_arbiter(&self) -> bool {
        let said = self.say(&["status", "--json"]);
        let whole: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        whole["arbiter"]["reachable"] == true
    }

    /// One field of the status by its JSON pointer; null while the daemon cannot be reached.
    pub(crate) fn field(&self, pointer: &str) -> Value {
        self.status().and_then(|status| status.pointer(pointer).cloned()).unwrap_or(Value::Null)
    }

    pub(crate) fn is_in_sync(&self) -> bool {
        self.status().is_some_and(|status| {
            status["disk"] == "up-to-date"
                && status["peer"]["disk"] == "up-to-date"
                && status["peer"]["replication"] == "established"
                && (status["out_of_sync_bytes"] == 0 || status["kind"] == "directory")
        })
    }

    /// Waits until the export takes clients, and connects.
    pub(crate) fn connect(&self) -> NbdClient {
        let what = format!("the export of {}", self.name);
        self.news.wait_for(&what, || NbdClient::connect(&self.export, RESOURCE).ok())
    }
}

/// The child of a supervisor.
fn worker_of(supervisor: u32) -> Option<Pid> {
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = fs::read_to_string(children).ok()?;
    children.split_whitespace().next().and_then(|id| id.parse().ok()).and_then(Pid::from_raw)
}

/// Waits until a process that is not ours has ended, whether somebody has asked how or not.
fn wait_for_end(process: Pid, news: &News) {
    let path = format!("/proc/{}/stat", process.as_raw_nonzero());
    news.wait_for("the worker to be gone", || match fs::read_to_string(&path) {
        // The state follows the name, which is in parentheses. Source: proc(5).
        Ok(stat) => {
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')).then_some(())
        }
        Err(_) => Some(()),
    });
}

/// A port of `host` for whoever asks for it by number, as a daemon does. The kernel lets one listener
/// share it with this socket, which is bound and does not listen (`SO_REUSEADDR`, which daemons set
/// too: socket(7)), and gives it to nobody who asks for any port.
pub(crate) fn reserve(host: Ipv4Addr, kind: Type) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, kind, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((host, 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().expect("an address of IPv4");
    (socket, address)
}

/// Writes a file that only its owner may read.
fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// A test loses nodes oftener than anybody would stand.
const OFTEN: &str = "100 in 1s";
