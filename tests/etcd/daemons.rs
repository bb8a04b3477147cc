//! A pair of real daemons with etcd.

use crate::cluster::Cluster;
use crate::oracle::ledger::Floor;
use crate::real::pair::{Node, Pair, Plan, RESOURCE};
use crate::real::record::Record;

const RECORD: &str = "/hotpair/v1/test/r/record";

/// Both nodes in sync, the first one primary.
fn pair(cluster: &Cluster, record: &Record) -> Pair {
    let plan = Plan { etcd: cluster.urls(), ..Plan::default() };
    let pair = Pair::start(plan, &record.first_image());
    wait_eligible(&pair, 1);
    pair
}

/// Waits until a node could take over: both are in sync and the arbiter knows.
fn wait_eligible(pair: &Pair, at: usize) {
    pair.wait_in_sync();
    pair.news.wait_for("the secondary to be eligible", || {
        let is_ready = pair.nodes.iter().all(Node::reaches_arbiter)
            && pair.nodes[at].field("/promotion/takes_over") == true;
        is_ready.then_some(())
    });
}

/// Waits until a node serves; returns which one.
fn wait_somebody_serves(pair: &Pair) -> usize {
    pair.news.wait_for("a node to serve", || {
        let serves = |node: &Node| {
            let status = node.status()?;
            (status["role"] == "primary" && status["serving"] == true).then_some(())
        };
        pair.nodes.iter().position(|node| serves(node).is_some())
    })
}

fn new_record(seed: u64) -> Record {
    Record::new(Plan::default().size, seed)
}

/// Under load: the worker dies, then the whole daemon, then the secondary, then a leader of etcd.
/// What was acknowledged is there, and both nodes come back.
pub(crate) fn a_pair_fails_over() {
    let mut cluster = Cluster::start(3);
    let mut record = new_record(1);
    let mut pair = pair(&cluster, &record);
    let mut primary = 0;
    for only_worker in [true, false] {
        let load = pair.load(primary, record);
        load.wait_for_answers(500);
        if only_worker {
            pair.nodes[primary].kill_worker();
        } else {
            pair.nodes[primary].kill();
        }
        record = load.join().record;
        record.check_errors("errors from a healthy pair");
        // A supervisor starts its worker again: it may be back before the other node took over.
        let serves = wait_somebody_serves(&pair);
        assert!(only_worker || serves != primary, "nobody runs there");
        let mut client = pair.nodes[serves].connect();
        record.epoch_serves();
        record.read_whole(&client.read_all().unwrap());
        record.check_reads();
        drop(client);
        if !only_worker {
            pair.nodes[primary].run();
        }
        primary = serves;
        wait_eligible(&pair, 1 - primary);
    }
    let other = 1 - primary;
    let load = pair.load(primary, record);
    load.wait_for_answers(300);
    let leader = cluster.leader();
    cluster.kill(leader);
    pair.nodes[other].kill();
    load.wait_for_answers(300);
    cluster.spawn(leader);
    pair.nodes[other].run();
    load.wait_for_answers(300);
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    record = ended.record;
    record.check_errors("the client must not notice");
    wait_eligible(&pair, other);
    pair.nodes[primary].well(&["switchover", RESOURCE]);
    pair.wait_serves(other);
    wait_eligible(&pair, primary);
    let image = pair.equal_image();
    record.check_image("both data files", &image, Floor::Acknowledged);
}

/// A value of a stranger: whoever serves goes on, nobody is promoted, and both nodes name the key.
pub(crate) fn garbage_halts_safely() {
    let cluster = Cluster::start(1);
    let record = new_record(2);
    let mut pair = pair(&cluster, &record);
    let sound = cluster.value(RECORD);
    cluster.ctl(&["put", RECORD, "garbage"]);
    let load = pair.load(0, record);
    for node in &pair.nodes {
        pair.news.wait_for("status to name the key", || {
            node.say(&["status"]).stdout.contains(RECORD).then_some(())
        });
    }
    load.wait_for_answers(500);
    pair.nodes[0].kill();
    let record = load.join().record;
    let other = &pair.nodes[1];
    pair.news.wait_for("explain to say why", || {
        let said = other.well(&["explain", RESOURCE]);
        (said.contains("was not written by this release") && said.contains("hotpair status"))
            .then_some(())
    });
    assert_eq!(other.field("/role"), "secondary");
    assert!(other.refused(&["promote", RESOURCE]).contains("was not written by this release"));
    assert_eq!(cluster.value(RECORD), "garbage");
    cluster.ctl(&["put", RECORD, &sound]);
    pair.wait_serves(1);
    let mut client = pair.nodes[1].connect();
    let mut record = record;
    record.epoch_serves();
    record.read_whole(&client.read_all().unwrap());
    record.check_reads();
    assert!(!pair.nodes[1].say(&["status"]).stdout.contains(RECORD));
}

/// A file that etcd needs and that cannot be used: the daemon says which key names it, and what to do.
pub(crate) fn a_bad_file_is_named() {
    for (promotion_lines, said, next) in [
        (
            "etcd_user = \"u\"\netcd_password_file = \"/nonexistent/password\"",
            "`etcd_password_file` /nonexistent/password: No such file",
            "correct `etcd_password_file`",
        ),
        (
            "etcd_user = \"u\"\netcd_password_file = \"/etc/passwd\"",
            "`etcd_password_file` /etc/passwd: others can read or write it (mode 644)",
            "chmod 600 /etc/passwd",
        ),
    ] {
        let etcd = vec!["http://127.0.0.1:1".to_owned()];
        let pair = Pair::prepare(Plan { etcd, promotion_lines, ..Plan::default() });
        pair.nodes[0].well(&["init", RESOURCE, "--from", "empty"]);
        let refused = pair.nodes[0].refused(&["run"]);
        assert!(refused.contains(said) && refused.contains(next), "{refused}");
    }
}
