//! Two daemons and a witness on the loopback in which the commands of a page are typed.
//!
//! Names, paths and sizes of the page are replaced by those of the test. Stage directions:
//!
//! | direction | what happens |
//! |---|---|
//! | `new` | three hosts, two of them with the page's configuration, and nothing else |
//! | `pair` | as well a running pair in sync whose node alpha is primary |
//! | `pair as configured` | the same with the block of TOML above it; under Pacemaker with a cluster made of files |
//! | `pair with a witness` | the same with README.md's configuration of a witness, which runs; beta takes over if alpha is lost |
//! | `new directory`, `pair of a directory`, `pair of a directory as configured` | the same with README.md's directory in the place of the block file; it is empty at first |
//! | `configure` | both hosts get the configuration with the keys that the nodes have |
//! | `configure with the above` | the same with the block of TOML above it |
//! | `configure with a witness` | the same with README.md's witness |
//! | `start NODE`, `stop NODE`, `kill NODE` | the daemon: started, SIGTERM, kill -9 |
//! | `kill witness`, `start witness` | the same of the witness |
//! | `crash NODE` | kill -9 of the worker only |
//! | `lose disk NODE`, `lose node NODE` | the data file, or the directory, is gone; with it, keys and metadata |
//! | `lose witness` | it was stopped, and its folder is gone |
//! | `rot NODE` | 3 bytes of the data file change behind the daemon's back |
//! | `cut`, `heal` | the cable between the nodes |
//! | `write NODE MIB` | a client writes so many MiB and flushes |
//! | `files NODE COUNT` | so many files are made in the directory of a node, in a new folder `batch-1`, `batch-2` and so on |
//! | `generation NUMBER NODE` | from here on the page calls the newest complete generation of a node so |
//! | `wait in sync`, `wait NODE POINTER VALUE` | until `status --json` says so |

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;

use serde_json::Value;
use toml::Table;

use crate::cluster::Cluster;
use crate::page::{self, Page, Section, Typed, WITNESS, What};
use crate::real::nbd_client::NbdClient;
use crate::real::pair::{self, Pair, Plan};
use crate::real::process::{self, Process, Said};
use crate::real::witness::Witness;

/// The block resource of the pages.
pub(crate) const RESOURCE: &str = "vm1";
/// The directory of the pages.
const DIRECTORY: &str = "uploads";
/// Sizes of the pages, and what the test uses for them.
const SIZES: &[(&str, &str)] = &[("20GiB", "16MiB"), ("30GiB", "24MiB")];
const NODES: [&str; 2] = ["alpha", "beta"];

/// First words of commands that cannot run here, and why.
pub(crate) const NOT_RUN: &[(&str, &str)] = &[
    ("cargo ", "this test runs under cargo, which built the binary already"),
    ("bash tools/test", "it is the gate that runs this test"),
    ("apt-get ", "needs root and changes the machine"),
    ("install ", "writes to /usr/local/bin"),
    ("systemctl daemon-reload", "the test has no unit files"),
    ("journalctl ", "the daemons of the test are no units"),
    ("nbd-client ", "needs root and the kernel's nbd module"),
    ("qemu-img ", "needs a package"),
    ("nbdfuse ", "needs a package and /dev/fuse"),
    ("pcs ", "needs a cluster"),
];

/// What the commands of one section are typed into.
pub(crate) struct World {
    pair: Pair,
    resource: &'static str,
    is_running: [bool; 2],
    base: Table,
    writes: u8,
    /// A number of a generation in the page, and what it is here.
    generation: Option<(String, String)>,
    /// Every key of every status that was seen.
    seen: BTreeSet<String>,
}

/// Types what a section shows, in order, and answers which keys of a status were seen.
pub(crate) fn follow(page: &Page, section: &Section, base: &Table) -> BTreeSet<String> {
    let mut world: Option<World> = None;
    let mut toml = Table::new();
    let mut seen = BTreeSet::new();
    for piece in &section.pieces {
        let place = format!("{}:{}: {}", page.name, piece.line, section.title);
        match &piece.what {
            What::Toml(text) => toml = text.parse().unwrap_or_else(|err| panic!("{place}: {err}")),
            What::Other(..) => {}
            What::Stage(stage) => {
                if stage == "configure with the above" {
                    let world = world.as_mut().unwrap_or_else(|| panic!("{place}: no world"));
                    world.base = merged(&world.base, &toml);
                    world.configure();
                    continue;
                }
                let fresh = match stage.as_str() {
                    "new" => Some(World::new(base.clone())),
                    "pair" => Some(World::running(base.clone())),
                    "pair as configured" => Some(World::running(merged(base, &toml))),
                    "pair with a witness" => Some(World::running(merged(base, &witness_config()))),
                    "new directory" => Some(World::new(of_directory(base))),
                    "pair of a directory" => Some(World::running(of_directory(base))),
                    "pair of a directory as configured" => {
                        Some(World::running(merged(&of_directory(base), &toml)))
                    }
                    _ => None,
                };
                if let Some(fresh) = fresh {
                    seen.extend(world.replace(fresh).map(|old| old.seen).unwrap_or_default());
                } else {
                    world
                        .as_mut()
                        .unwrap_or_else(|| panic!("{place}: no world"))
                        .act(stage, &place);
                }
            }
            What::Typed(typed) if why_not_run(&typed.command).is_some() => {}
            What::Typed(typed) => {
                let world =
                    world.as_mut().unwrap_or_else(|| panic!("{place}: no world to type in"));
                world.check(typed, &place);
            }
        }
    }
    seen.extend(world.map(|world| world.seen).unwrap_or_default());
    seen
}

/// Why a command is not run, if it is not.
pub(crate) fn why_not_run(command: &str) -> Option<&'static str> {
    NOT_RUN.iter().find(|(start, _)| command.starts_with(start)).map(|(_, why)| *why)
}

/// `base` with the values of `change` over it.
pub(crate) fn merged(base: &Table, change: &Table) -> Table {
    let mut result = base.clone();
    for (key, value) in change {
        let value = match (result.get(key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => {
                toml::Value::Table(merged(old, new))
            }
            _ => value.clone(),
        };
        result.insert(key.clone(), value);
    }
    result
}

/// The configuration of the page, as it is shown there.
pub(crate) fn base_config() -> Table {
    config_with("cluster = ").expect("README.md shows a whole configuration")
}

/// What the page adds for a witness.
fn witness_config() -> Table {
    config_with("[promotion]").expect("README.md shows the configuration of a witness")
}

/// `base` with the directory of the page instead of the block file.
fn of_directory(base: &Table) -> Table {
    let mut table = base.clone();
    table.remove("resource");
    let directory = config_with("kind = \"directory\"");
    merged(&table, &directory.expect("README.md shows the configuration of a directory"))
}

/// The first block of TOML in README.md that has `word`.
fn config_with(word: &str) -> Option<Table> {
    let readme = Page::read("README.md");
    let sections = readme.sections();
    sections.iter().flat_map(|section| &section.pieces).find_map(|piece| {
        let What::Toml(text) = &piece.what else { return None };
        text.contains(word).then(|| text.parse().unwrap())
    })
}

impl World {
    /// Two hosts with a configuration and keys, and one more.
    fn new(base: Table) -> Self {
        let is_directory = base["resource"].get(DIRECTORY).is_some();
        let resource = if is_directory { DIRECTORY } else { RESOURCE };
        let pair = Pair::prepare(Plan { has_relays: true, is_directory, ..Plan::default() });
        let seen = BTreeSet::new();
        let (is_running, writes, generation) = ([false; 2], 0, None);
        let mut world = Self { pair, resource, is_running, base, writes, generation, seen };
        world.configure();
        world
    }

    fn running(base: Table) -> Self {
        let mut world = Self::new(base);
        let resource = world.resource;
        world.pair.nodes[0].well(&["init", resource, "--from", "empty"]);
        world.pair.nodes[1].well(&["init", resource, "--from", "peer"]);
        world.start(0);
        world.start(1);
        if resource == DIRECTORY {
            // Whoever serves a tree fills the other one.
            world.pair.wait_connected();
        } else {
            world.pair.wait_in_sync();
        }
        if world.pair.witness.is_some() {
            world.pair.wait_serves(0);
            let takes_over = || world.pair.nodes[1].field("/promotion/takes_over") == true;
            world.pair.news.wait_for("beta to take over", || takes_over().then_some(()));
        } else {
            world.pair.nodes[0].as_agent(&["promote", resource]);
        }
        world.pair.wait_in_sync();
        world
    }

    /// Where the witness keeps what it knows.
    fn witness_dir(&self) -> String {
        self.pair.folder().join("witness").display().to_string()
    }

    fn start_witness(&mut self) {
        if let Some(witness) = &mut self.pair.witness {
            witness.run();
            return;
        }
        // Another host of the pair's own network; the port is any that is free.
        let mut listen = self.pair.nodes[0].replication;
        listen.set_port(0);
        let folder = self.pair.folder();
        let news = &self.pair.news;
        self.pair.witness = Some(Witness::start(folder, listen, "tls", Vec::new(), news));
    }

    fn witness(&mut self) -> &mut Witness {
        self.pair.witness.as_mut().expect("it was started")
    }

    /// Writes the page's configuration for both nodes, with addresses and paths of the test.
    fn configure(&mut self) {
        let arbiter = self.base.get("promotion").and_then(|it| it.get("arbiter"));
        let has_cluster = arbiter.and_then(toml::Value::as_str) == Some("pacemaker");
        if self.base.contains_key("promotion") && !has_cluster && self.pair.witness.is_none() {
            self.start_witness();
        }
        self.pair.plan.under_pacemaker = has_cluster;
        let fence = has_cluster.then(|| {
            Cluster::new(self.pair.folder(), RESOURCE).fence_command().display().to_string()
        });
        let identities = [0, 1].map(|at| {
            let state_dir = self.pair.nodes[at].state_dir.to_str().unwrap().to_owned();
            process::run_well(&pair::binary(), &["identity", "--state-dir", &state_dir])
                .trim()
                .to_owned()
        });
        for reader in [0, 1] {
            let local: Table = self.pair.config_of(reader, &identities).parse().unwrap();
            let mut table = self.base.clone();
            for name in NODES {
                let mut node = local["node"][name].as_table().unwrap().clone();
                let shown = table["node"][name].as_table().unwrap();
                if !shown.contains_key("heartbeat") {
                    node.remove("heartbeat");
                }
                table["node"][name] = toml::Value::Table(merged(shown, &node));
            }
            if let Some(promotion) = table.get_mut("promotion").and_then(toml::Value::as_table_mut)
            {
                if let Some(fence) = &fence {
                    promotion["fence"] = fence.clone().into();
                } else {
                    for key in ["witness", "witness_identity"] {
                        promotion[key] = local["promotion"][key].clone();
                    }
                }
            }
            let resource = table["resource"][self.resource].as_table_mut().unwrap();
            for (at, node) in self.pair.nodes.iter().enumerate() {
                let path = ("path".to_owned(), node.data.to_str().unwrap().into());
                let export = format!("unix:{}", node.export.display());
                let is_block = !self.pair.plan.is_directory;
                let export = is_block.then(|| ("export".to_owned(), export.into()));
                let own: Vec<(String, toml::Value)> = [path].into_iter().chain(export).collect();
                if at == 0 {
                    resource.extend(own);
                } else {
                    let own = toml::Value::Table(own.into_iter().collect());
                    resource.insert(
                        "on".to_owned(),
                        Table::from_iter([("beta".to_owned(), own)]).into(),
                    );
                }
            }
            let text = with_sizes(&toml::to_string(&table).unwrap());
            let path = &self.pair.nodes[reader].config;
            fs::write(path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn start(&mut self, at: usize) {
        self.pair.nodes[at].run();
        self.is_running[at] = true;
    }

    fn stop(&mut self, at: usize) {
        self.pair.nodes[at].stop();
        self.is_running[at] = false;
    }

    /// Follows a stage direction.
    fn act(&mut self, stage: &str, place: &str) {
        let words: Vec<&str> = stage.split_whitespace().collect();
        match words.as_slice() {
            ["configure"] => self.configure(),
            ["configure", "with", "a", "witness"] => {
                self.base = merged(&self.base, &witness_config());
                self.configure();
            }
            ["configure", "without", "a", "witness"] => {
                self.base.remove("promotion");
                self.configure();
            }
            ["start", "witness"] => self.start_witness(),
            ["kill", "witness"] => self.witness().kill(),
            ["lose", "witness"] => fs::remove_dir_all(self.witness_dir()).unwrap(),
            ["crash", node] => self.pair.nodes[index(node)].kill_worker(),
            ["start", node] => self.start(index(node)),
            ["stop", node] => self.stop(index(node)),
            ["kill", node] => {
                self.pair.nodes[index(node)].kill();
                self.is_running[index(node)] = false;
            }
            ["lose", what, node] => {
                let node = &self.pair.nodes[index(node)];
                if node.data.is_dir() {
                    fs::remove_dir_all(&node.data).unwrap();
                } else {
                    fs::remove_file(&node.data).unwrap();
                }
                if *what == "node" {
                    fs::remove_dir_all(&node.state_dir).unwrap();
                }
            }
            ["rot", node] => {
                let data = &self.pair.nodes[index(node)].data;
                let file = fs::OpenOptions::new().write(true).open(data).unwrap();
                file.write_all_at(b"rot", 5 * 4096).unwrap();
            }
            ["cut"] => self.pair.cut(),
            ["heal"] => self.pair.heal(),
            ["write", node, mib] => self.write(index(node), mib.parse().unwrap()),
            ["files", node, count] => self.make_files(index(node), count.parse().unwrap()),
            ["generation", number, node] => {
                let here = self.pair.nodes[index(node)].field("/tree_generation").to_string();
                self.generation = Some(((*number).to_owned(), here));
            }
            ["wait", "in", "sync"] => self.pair.wait_in_sync(),
            ["wait", node, pointer, value] => {
                let node = &self.pair.nodes[index(node)];
                let value: Value = serde_json::from_str(value).unwrap_or_else(|_| (*value).into());
                let what = format!("{place}: {stage}");
                let found = || (node.field(pointer) == value).then_some(());
                self.pair.news.wait_for(&what, found);
            }
            _ => panic!("{place}: there is no stage direction {stage:?}"),
        }
    }

    fn write(&mut self, at: usize, mib: u64) {
        let export = self.pair.nodes[at].export.clone();
        let connect = || NbdClient::connect(&export, RESOURCE).ok();
        let mut client = self.pair.news.wait_for("the export", connect);
        self.writes += 1;
        let piece = vec![self.writes; 1 << 20];
        for index in 0..mib {
            client.write(index << 20, &piece).unwrap();
        }
        client.flush().unwrap();
    }

    fn make_files(&mut self, at: usize, count: u32) {
        self.writes += 1;
        let folder = self.pair.nodes[at].data.join(format!("batch-{}", self.writes));
        fs::create_dir(&folder).unwrap();
        for number in 0..count {
            fs::write(folder.join(number.to_string()), format!("file {number}\n")).unwrap();
        }
    }

    /// Types one command, which must end and show as the page says.
    fn check(&mut self, typed: &Typed, place: &str) {
        let at = typed.at.unwrap_or(0);
        let words: Vec<String> =
            page::words(&typed.command).iter().map(|word| self.local(at, word)).collect();
        let shown: Vec<String> = typed.shown.iter().map(|line| self.local(at, line)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let is_right = |said: &Said| {
            let output = format!("{}{}", said.stdout, said.stderr);
            said.code == Some(typed.exit) && shown.iter().all(|line| page::is_shown(line, &output))
        };
        let wrong = |said: &Said| -> ! {
            let Said { code, stdout, stderr } = said;
            let shown = shown.join("\n");
            panic!(
                "{place}\n{}\nshall exit with {} and show\n{shown}\nbut it exits with {code:?}: \
                 \n{stdout}{stderr}",
                typed.command, typed.exit
            )
        };
        if is_endless(&words) {
            self.watch(at, &words[1..], &shown, place);
        } else if only_looks(&words) {
            // Whoever looks too early looks again.
            let mut last = None;
            let news = self.pair.news.clone();
            let found = news.wait_within(process::PATIENCE, || {
                let said = self.run(at, &words, place);
                let answer = is_right(&said).then_some(());
                last = Some(said);
                answer
            });
            if found.is_none() {
                wrong(&last.expect("it was run"));
            }
        } else {
            let said = self.run(at, &words, place);
            if !is_right(&said) {
                wrong(&said);
            }
        }
        self.note_keys();
    }

    fn run(&mut self, at: usize, words: &[&str], place: &str) -> Said {
        let is_done = || Said { code: Some(0), stdout: String::new(), stderr: String::new() };
        match words {
            ["hotpair", rest @ ..] if at == WITNESS => process::run(&pair::binary(), rest),
            ["hotpair", rest @ ..] => self.pair.nodes[at].say(rest),
            ["OCF_RESOURCE_INSTANCE=vm1", "hotpair", rest @ ..] => {
                self.pair.nodes[at].say_as_agent(rest)
            }
            ["systemctl", verb, .., "hotpair-witness"] if at == WITNESS => {
                match *verb {
                    "start" | "enable" => self.start_witness(),
                    "stop" => self.witness().stop(),
                    _ => panic!("{place}: systemctl {verb} is neither run nor in NOT_RUN"),
                }
                is_done()
            }
            ["curl", rest @ ..] => ask(rest),
            ["cp" | "mkdir" | "tar" | "rm" | "tail" | "mv" | "ls", rest @ ..] => {
                process::run(words[0], rest)
            }
            ["systemctl", verb, .., "hotpair"] => {
                match *verb {
                    "start" | "enable" => self.start(at),
                    "stop" => self.stop(at),
                    "restart" => {
                        self.stop(at);
                        self.start(at);
                    }
                    _ => panic!("{place}: systemctl {verb} is neither run nor in NOT_RUN"),
                }
                is_done()
            }
            _ => panic!("{place}: {words:?} is neither run nor in NOT_RUN"),
        }
    }

    /// Starts a command that ends with its terminal, and waits until it has shown all.
    fn watch(&self, at: usize, words: &[&str], shown: &[String], place: &str) {
        let words = match self.pair.nodes.get(at) {
            Some(node) => {
                let config = node.config.to_str().unwrap();
                [words, &["--config", config, "--node", node.name]].concat()
            }
            None => words.to_vec(),
        };
        let watch = Process::start("watch", &pair::binary(), &words, &self.pair.news);
        self.pair.news.wait_for(&format!("{place}: {words:?} to show {shown:?}"), || {
            let output = watch.lines().join("\n");
            let is_right =
                !output.is_empty() && shown.iter().all(|line| page::is_shown(line, &output));
            is_right.then_some(())
        });
        watch.kill();
    }

    /// A word of the page as it is here.
    fn local(&self, at: usize, text: &str) -> String {
        let mut text = with_sizes(text);
        if let Some((shown, here)) = &self.generation {
            text = text.replace(shown, here);
        }
        text = text
            .replace("/root", self.pair.folder().to_str().unwrap())
            .replace("/var/lib/hotpair-witness", &self.witness_dir());
        if let Some(witness) = &self.pair.witness {
            text = text.replace("192.0.2.3:7787", &witness.address.to_string());
        }
        let Some(node) = self.pair.nodes.get(at) else { return text };
        let work_area = node.data.with_file_name(format!(".hotpair-{DIRECTORY}"));
        for (shown, here) in [
            ("/srv/uploads", &node.data),
            ("/srv/.hotpair-uploads", &work_area),
            ("/etc/hotpair/hotpair.toml", &node.config),
            ("/srv/vm1.img", &node.data),
            ("/run/hotpair/control.sock", &node.control),
            ("/run/hotpair/vm1.nbd", &node.export),
            ("/var/lib/hotpair", &node.state_dir),
        ] {
            text = text.replace(shown, here.to_str().unwrap());
        }
        text
    }

    fn note_keys(&mut self) {
        for at in [0, 1] {
            if self.is_running[at] {
                let status = self.pair.nodes[at].status().unwrap_or_default();
                push_keys(&mut self.seen, "", &status);
            }
        }
    }
}

/// Keys of nested objects, joined by dots; of lists, those of their elements.
pub(crate) fn push_keys(keys: &mut BTreeSet<String>, above: &str, value: &Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let key = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
                push_keys(keys, &key, value);
                keys.insert(key);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| push_keys(keys, above, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn with_sizes(text: &str) -> String {
    SIZES.iter().fold(text.to_owned(), |text, (shown, here)| text.replace(shown, here))
}

fn index(node: &str) -> usize {
    NODES.iter().position(|name| *name == node).unwrap_or_else(|| panic!("no node {node}"))
}

fn is_endless(words: &[&str]) -> bool {
    let has = |word: &str| words.contains(&word);
    let is_endless = match words[1] {
        "events" => !has("--no-follow"),
        "witness" => true,
        _ => has("--watch"),
    };
    words[0] == "hotpair" && is_endless
}

fn only_looks(words: &[&str]) -> bool {
    let has = |word: &str| words.contains(&word);
    match words {
        ["hotpair", "status" | "events" | "explain" | "check", ..] => true,
        ["hotpair", "split-brain", "show", ..] => true,
        ["curl", ..] => !has("-d"),
        _ => false,
    }
}

/// What `curl -s --unix-socket PATH [-d BODY] URL` says.
fn ask(words: &[&str]) -> Said {
    let after = |flag: &str| {
        words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1)).copied()
    };
    let socket = after("--unix-socket").expect("a socket");
    let url = words.iter().find_map(|word| word.strip_prefix("http://localhost")).expect("a URL");
    let (method, body) = after("-d").map_or(("GET", ""), |body| ("POST", body));
    let stdout = request(socket, method, url, body).1;
    Said { code: Some(0), stdout, stderr: String::new() }
}

/// Status and body of an answer.
pub(crate) fn request(socket: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(process::PATIENCE)).unwrap();
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
