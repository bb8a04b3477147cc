//! A pair that keeps a directory.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::real::pair::{Node, Pair, Plan, RESOURCE};
use crate::trees::judge;

/// A plan for a directory.
pub(crate) fn plan() -> Plan {
    // A busy disk takes its time to sync, which must not exclude anybody here.
    Plan { is_directory: true, resource_lines: "max_lag = \"60s\"", ..Plan::default() }
}

/// The same, with a witness that says who serves.
pub(crate) fn watched() -> Plan {
    Plan { has_witness: true, ..plan() }
}

/// A new pair that runs, with what `fill` put into the tree of its first node. Nobody was promoted.
pub(crate) fn meet(plan: Plan, fill: impl FnOnce(&Path)) -> Pair {
    let mut pair = Pair::prepare(plan);
    fs::create_dir(&pair.nodes[0].data).unwrap();
    fill(&pair.nodes[0].data);
    pair.nodes[0].well(&["init", RESOURCE, "--from", "this", "--yes"]);
    pair.nodes[1].well(&["init", RESOURCE, "--from", "peer", "--yes"]);
    pair.nodes[0].run();
    pair.nodes[1].run();
    pair.wait_connected();
    pair
}

/// A pair whose first node is primary, with what `fill` put into its tree.
pub(crate) fn start(plan: Plan, fill: impl FnOnce(&Path)) -> Pair {
    let pair = meet(plan, fill);
    pair.nodes[0].well(&["promote", RESOURCE]);
    pair.wait_in_sync();
    pair
}

/// Brings what is in the tree of the primary now to the other node.
pub(crate) fn sync(node: &Node) {
    node.well(&["sync", RESOURCE, "--wait"]);
}

pub(crate) fn trees(pair: &Pair) -> [PathBuf; 2] {
    [0, 1].map(|at| pair.nodes[at].data.clone())
}

/// Panics unless both trees are equal for both judges.
pub(crate) fn assert_equal(pair: &Pair) {
    let [first, second] = trees(pair);
    judge::equal(&first, &second).unwrap_or_else(|why| panic!("{why}"));
}

/// One field of what the status says of the tree.
pub(crate) fn tree_field(node: &Node, name: &str) -> Value {
    node.field(&format!("/tree/{name}"))
}
