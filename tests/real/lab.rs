//! Three hosts with a network between them, each a network namespace of its own.
//!
//! What one host says to another can be cut, one way at a time, by a rule at the listener's end. The
//! namespaces are gone when the last owner is.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::harness::Need;
use super::process;

/// What a machine needs for a lab.
pub(crate) const LAB: Need = Need::All(&[
    Need::Root,
    Need::Program("ip"),
    Need::Program("nft"),
    Need::Program("setpriv"),
    Need::Program("timeout"),
]);

/// What a slow network needs.
pub(crate) const SLOW: Need =
    Need::All(&[LAB, Need::Program("tc"), Need::Queue("tbf rate 1mbit burst 32kb latency 1s")]);

/// What a lossy network needs.
pub(crate) const LOSSY: Need = Need::All(&[
    LAB,
    Need::Rules(
        "add table netdev lab; \
         add chain netdev lab input { type filter hook ingress device lo priority 0; }; \
         add rule netdev lab input numgen random mod 100 < 5 dup to lo",
    ),
]);

/// Hosts 0 and 1 are the nodes, host 2 the witness.
#[derive(Clone, Debug)]
pub(crate) struct Lab {
    hosts: Arc<Hosts>,
}

#[derive(Debug)]
struct Hosts {
    /// The switch and the three hosts.
    names: [String; 4],
}

impl Lab {
    /// Makes the hosts, all connected.
    pub(crate) fn new() -> Self {
        sweep();
        let (process, id) = (std::process::id(), fastrand::u32(..));
        let name = |part: &str| format!("hotpair-{process}-{id:08x}-{part}");
        let hosts = Hosts { names: [name("switch"), name("a"), name("b"), name("w")] };
        let [switch, ..] = &hosts.names;
        for name in &hosts.names {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        ip(&["-n", switch, "link", "add", "bridge", "type", "bridge"]);
        ip(&["-n", switch, "link", "set", "bridge", "up"]);
        for (host, name) in hosts.names[1..].iter().enumerate() {
            let port = format!("port{host}");
            ip(&[
                "-n", switch, "link", "add", &port, "type", "veth", "peer", "eth0", "netns", name,
            ]);
            ip(&["-n", switch, "link", "set", &port, "master", "bridge", "up"]);
            for fourth in addresses_of(host) {
                let address = format!("{}/24", address(fourth));
                ip(&["-n", name, "address", "add", &address, "dev", "eth0"]);
            }
            ip(&["-n", name, "link", "set", "eth0", "up"]);
            nft(name, &["add", "table", "inet", "lab"]);
            let chain = "{ type filter hook input priority 0; }";
            nft(name, &["add", "chain", "inet", "lab", "input", chain]);
        }
        Self { hosts: Arc::new(hosts) }
    }

    /// The address of a node (1, 2), of its second path (11, 12), or of the witness (3).
    #[expect(clippy::unused_self, reason = "only who has a lab has its addresses")]
    pub(crate) fn address(&self, fourth: u8) -> Ipv4Addr {
        address(fourth)
    }

    /// The words that run a program on a host.
    pub(crate) fn wrapper(&self, host: usize) -> Vec<String> {
        let name = &self.hosts.names[1 + host];
        ["ip", "netns", "exec", name].map(str::to_owned).to_vec()
    }

    /// Nothing passes from one host to another any more.
    pub(crate) fn cut(&self, from: usize, to: usize) {
        for fourth in addresses_of(from) {
            let source = address(fourth).to_string();
            let rule =
                ["add", "rule", "inet", "lab", "input", "ip", "saddr", &source, "counter", "drop"];
            nft(&self.hosts.names[1 + to], &rule);
        }
    }

    /// What fits the words of a rule no longer reaches a host.
    pub(crate) fn drop_input(&self, host: usize, what: &[&str]) {
        let mut rule = vec!["add", "rule", "inet", "lab", "input"];
        rule.extend_from_slice(what);
        rule.push("drop");
        nft(&self.hosts.names[1 + host], &rule);
    }

    /// Of all that hosts say to each other so many of 100 packets are lost, and so many come twice.
    pub(crate) fn lose_and_repeat(&self, lost: u8, repeated: u8) {
        let [switch, hosts @ ..] = &self.hosts.names;
        let (lost, repeated) = (lost.to_string(), repeated.to_string());
        let of_100 = ["numgen", "random", "mod", "100", "<"];
        nft(switch, &["add", "table", "netdev", "lab"]);
        for (to, name) in hosts.iter().enumerate() {
            let mut rule = vec!["add", "rule", "inet", "lab", "input"];
            rule.extend(of_100);
            rule.extend([lost.as_str(), "counter", "drop"]);
            nft(name, &rule);
            let port = format!("port{to}");
            for from in (0..hosts.len()).filter(|from| *from != to) {
                let chain = format!("from{from}");
                let hook = format!("{{ type filter hook ingress device port{from} priority 0; }}");
                nft(switch, &["add", "chain", "netdev", "lab", &chain, &hook]);
                for fourth in addresses_of(to) {
                    let target = address(fourth).to_string();
                    let mut rule = vec!["add", "rule", "netdev", "lab", &chain];
                    rule.extend(["ip", "daddr", &target]);
                    rule.extend(of_100);
                    rule.extend([repeated.as_str(), "counter", "dup", "to", &port]);
                    nft(switch, &rule);
                }
            }
        }
    }

    /// Packets that were lost since all passed.
    pub(crate) fn lost(&self) -> u64 {
        self.hosts.names[1..].iter().map(|name| counted(name, "inet")).sum()
    }

    /// Packets that came twice so far.
    pub(crate) fn repeated(&self) -> u64 {
        counted(&self.hosts.names[0], "netdev")
    }

    /// Packets of a host that its queue could not send at once so far.
    pub(crate) fn held_up(&self, host: usize) -> u64 {
        let name = &self.hosts.names[1 + host];
        let words = ["netns", "exec", name, "tc", "-s", "qdisc", "show", "dev", "eth0"];
        number_after(&process::run_well("ip", &words), "overlimits ").sum()
    }

    /// Whatever a host sends goes through a queue that holds it up for as long as `latency`.
    pub(crate) fn slow(&self, host: usize, rate: &str, latency: &str) {
        let name = &self.hosts.names[1 + host];
        let queue = ["tbf", "rate", rate, "burst", "32kb", "latency", latency];
        let mut words = vec!["netns", "exec", name, "tc", "qdisc", "add", "dev", "eth0", "root"];
        words.extend(queue);
        ip(&words);
    }

    /// Everything passes again, at full speed.
    pub(crate) fn heal(&self) {
        let [switch, hosts @ ..] = &self.hosts.names;
        for name in hosts {
            nft(name, &["flush", "chain", "inet", "lab", "input"]);
            // There is nothing to remove from a card that was never slow.
            process::run(
                "ip",
                &["netns", "exec", name, "tc", "qdisc", "delete", "dev", "eth0", "root"],
            );
        }
        process::run("ip", &["netns", "exec", switch, "nft", "delete", "table", "netdev", "lab"]);
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            drop(process::run("ip", &["netns", "delete", name]));
        }
    }
}

/// Removes the hosts of tests that were killed.
fn sweep() {
    let list = process::run("ip", &["netns", "list"]).stdout;
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let parts: Vec<&str> = name.split('-').collect();
        if matches!(parts[..], ["hotpair", process, _, _] if process::is_over(process)) {
            process::run("ip", &["netns", "delete", name]);
        }
    }
}

fn addresses_of(host: usize) -> Vec<u8> {
    match host {
        0 => vec![1, 11],
        1 => vec![2, 12],
        _ => vec![3],
    }
}

fn address(fourth: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, fourth)
}

fn ip(words: &[&str]) {
    process::run_well("ip", words);
}

fn nft(host: &str, words: &[&str]) {
    let mut all = vec!["netns", "exec", host, "nft"];
    all.extend_from_slice(words);
    process::run_well("ip", &all);
}

/// What the counters of a table counted, all of them together.
fn counted(host: &str, family: &str) -> u64 {
    let words = ["netns", "exec", host, "nft", "list", "table", family, "lab"];
    number_after(&process::run_well("ip", &words), "counter packets ").sum()
}

fn number_after<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = u64> + 'a {
    let number = |rest: &str| rest.split_whitespace().next()?.parse().ok();
    text.split(word).skip(1).filter_map(number)
}
