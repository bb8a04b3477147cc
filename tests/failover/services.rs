//! Hooks and the virtual address: they are where the resource is served, and nowhere else.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::scene::Scene;
use crate::real::lab::Lab;
use crate::real::pair::{Plan, RESOURCE};
use crate::real::process;

/// The address that moves with the role, and its network.
type Address = (&'static str, u8);
const IPV4: Address = ("10.77.0.100", 24);
const IPV6: Address = ("fd77::100", 64);
/// What the third host is called in the network of that one.
const NEIGHBOUR: &str = "fd77::3/64";

/// Three hosts, a pair with hooks, and what the hooks wrote down.
struct Stage {
    lab: Lab,
    scene: Scene,
    folder: tempfile::TempDir,
    /// Lines of the log that were waited for.
    seen: Cell<usize>,
    address: &'static str,
}

impl Stage {
    /// Both nodes in sync, the services of the first one run.
    fn new((address, prefix): Address, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let [start, stop] = ["start", "stop"].map(|name| {
            let path = folder.path().join(name);
            let own = folder.path().join(format!("{name}-$HOTPAIR_NODE"));
            let text = format!(
                "#!/bin/sh\necho \"$HOTPAIR_NODE $HOTPAIR_ACTION $HOTPAIR_REASON\" >> {}\n\
                 if [ -e {own} ]; then . {own}; fi\n",
                log.display(),
                own = own.display()
            );
            write_script(&path, &text);
            path
        });
        let lab = Lab::new();
        let tail = format!(
            "[resource.{RESOURCE}.hooks]\npromote = [\"{}\"]\ndemote = [\"{}\"]\n\
             virtual_ip = {{ address = \"{address}/{prefix}\", device = \"eth0\" }}\nstop_within = \"2s\"\n",
            start.display(),
            stop.display(),
        );
        let plan = Plan { has_witness: true, lab: Some(lab.clone()), tail, ..Plan::default() };
        let scene = Scene::with(plan, seed);
        let stage = Self { lab, scene, folder, seen: Cell::new(0), address };
        stage.wait_log(&["alpha demote start", "beta demote start", "alpha promote start"]);
        stage.wait_address([true, false]);
        stage
    }

    /// What the hooks of a node do next, as a line of shell.
    fn next(&self, name: &str, node: &str, line: &str) {
        fs::write(self.folder.path().join(format!("{name}-{node}")), line).unwrap();
    }

    /// The lines that nobody has waited for yet.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        text.lines().skip(self.seen.get()).map(str::to_owned).collect()
    }

    /// Waits until the hooks of each node have said these lines in this order, and no others. Lines of one
    /// node and of the other may come in any order: they are returned as they came.
    fn wait_log(&self, lines: &[&str]) -> Vec<String> {
        let wanted = by_node(lines.iter().map(|line| (*line).to_owned()).collect());
        let log = self.scene.pair.news.wait_for(&format!("{lines:?} in the log"), || {
            let log = self.log();
            (by_node(log.clone()) == wanted).then_some(log)
        });
        self.seen.set(self.seen.get() + log.len());
        log
    }

    /// As [`Stage::wait_log`], where one node has stopped its services before the other starts them.
    fn wait_moved(&self, lines: &[&str]) {
        let log = self.wait_log(lines);
        assert_eq!(log[0], lines[0], "services run on both nodes: {log:?}");
    }

    fn has_address(&self, host: usize) -> bool {
        let show = ["ip", "address", "show", "dev", "eth0", "to", self.address];
        self.run_at(host, &show).contains(self.address)
    }

    fn run_at(&self, host: usize, words: &[&str]) -> String {
        let mut all = self.lab.wrapper(host);
        all.extend(words.iter().map(|word| (*word).to_owned()));
        process::run_well(&all[0], &all[1..])
    }

    fn wait_address(&self, at: [bool; 2]) {
        self.scene.pair.news.wait_for(&format!("the address at {at:?}"), || {
            ([0, 1].map(|host| self.has_address(host)) == at).then_some(())
        });
    }

    fn wait_services(&self, at: usize, state: &str) {
        let node = &self.scene.pair.nodes[at];
        self.scene.pair.news.wait_for(&format!("services that are {state}"), || {
            (node.field("/services/state") == state).then_some(())
        });
    }

    /// The third host sends something to the address, so that its kernel knows whose card has it.
    fn neighbour_talks(&self) {
        self.run_at(2, &["bash", "-c", &format!("echo > /dev/udp/{}/9", self.address)]);
        self.wait_neighbour(0);
    }

    /// Waits until the third host knows that the address is at that node. It asks nobody.
    fn wait_neighbour(&self, at: usize) {
        let card = self.run_at(at, &["cat", "/sys/class/net/eth0/address"]);
        let show = ["ip", "neighbour", "show", "to", self.address, "dev", "eth0"];
        self.scene.pair.news.wait_for("the third host to know the card", || {
            self.run_at(2, &show).contains(card.trim()).then_some(())
        });
    }
}

/// The lines of one node, then those of the other.
fn by_node(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_by_key(|line| line.split(' ').next().map(str::to_owned));
    lines
}

fn write_script(path: &PathBuf, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(Path::new(path), fs::Permissions::from_mode(0o755)).unwrap();
}

/// As planned, after a crash of the worker, and after the loss of a node.
pub(crate) fn follow_the_role() {
    follow(Stage::new(IPV4, 31));
}

/// The same with an address of IPv6, whose neighbours learn of it in another way.
pub(crate) fn follow_the_role_by_ipv6() {
    let stage = Stage::new(IPV6, 33);
    stage.run_at(2, &["ip", "address", "add", NEIGHBOUR, "dev", "eth0", "nodad"]);
    follow(stage);
}

fn follow(mut stage: Stage) {
    stage.neighbour_talks();
    stage.scene.pair.nodes[0].well(&["switchover", RESOURCE]);
    stage.wait_moved(&["alpha demote switchover", "beta promote switchover"]);
    stage.wait_address([false, true]);
    stage.wait_services(1, "running");
    stage.wait_neighbour(1);
    stage.scene.serves_all(1);
    stage.scene.is_whole_again();
    // The supervisor stops them before it says that its worker is dead.
    stage.scene.pair.nodes[1].kill_worker();
    stage.wait_moved(&["beta demote failover", "alpha promote failover", "beta demote start"]);
    stage.wait_address([true, false]);
    stage.wait_neighbour(0);
    stage.scene.serves_all(0);
    stage.scene.is_whole_again();
    // Nobody stops them on a node whose daemon is gone at once, until it is started again.
    stage.scene.pair.nodes[0].kill();
    stage.wait_log(&["beta promote failover"]);
    stage.scene.serves_all(1);
    assert!(stage.has_address(0));
    stage.wait_neighbour(1);
    stage.scene.pair.nodes[0].run();
    stage.wait_log(&["alpha demote start"]);
    stage.wait_address([false, true]);
    stage.scene.is_whole_again();
}

/// A hook that fails keeps the role, and says so; one that hangs does not keep the other node from
/// serving.
pub(crate) fn that_do_not_stop() {
    let mut stage = Stage::new(IPV4, 32);
    stage.next("stop", "alpha", "echo disk is busy; exit 7");
    let refused = stage.scene.pair.nodes[0].refused(&["switchover", RESOURCE]);
    assert!(refused.contains("do not stop: ") && refused.contains("exit status: 7"), "{refused}");
    // Tried three times, and what it stopped halfway is started again.
    let tries = ["alpha demote switchover"; 3];
    stage.wait_log(&[tries[0], tries[1], tries[2], "alpha promote resumed"]);
    stage.wait_address([true, false]);
    stage.scene.serves_all(0);
    let lines = stage.scene.pair.nodes[0].daemon().lines();
    assert!(lines.iter().any(|line| line.contains("disk is busy")), "{lines:#?}");
    stage.next("stop", "alpha", "sleep 60");
    for host in [1, 2] {
        stage.lab.cut(0, host);
        stage.lab.cut(host, 0);
    }
    stage.wait_moved(&["alpha demote lease-lost", "beta promote failover"]);
    // The address goes first, and in time.
    stage.wait_address([false, true]);
    stage.wait_services(0, "failed");
    let why = stage.scene.pair.nodes[0].field("/services/failure").to_string();
    assert!(why.contains("was killed"), "{why}");
    stage.scene.serves_all(1);
    stage.next("stop", "alpha", "true");
    stage.lab.heal();
    stage.scene.is_whole_again();
}
