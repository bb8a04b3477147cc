//! Pairs with a witness, and pairs in which nobody serves.

use std::fs;

use super::nodes::{assert_equal, meet, plan, sync, trees, watched};
use crate::real::pair::{Node, Pair, RESOURCE};
use crate::trees::judge;
use crate::trees::operations::Storm;

/// The second node gets the tree before anybody serves.
pub(crate) fn a_new_pair_is_equal_before_anybody_serves() {
    let pair = meet(plan(), |tree| {
        Storm::new(tree, 1).run(100);
        fs::write(tree.join("large"), vec![7; 5 << 20]).unwrap();
    });
    pair.wait_in_sync();
    assert_equal(&pair);
    // What is written from now on is in the first generation that is captured.
    let [first, _] = trees(&pair);
    fs::write(first.join("late"), "before the promotion").unwrap();
    pair.nodes[0].well(&["promote", RESOURCE]);
    sync(&pair.nodes[0]);
    assert_equal(&pair);
}

/// A tree that somebody wrote to before the peer had it is sent once this node serves, not before.
pub(crate) fn a_tree_that_nobody_serves_and_somebody_writes_to_waits() {
    let mut pair = Pair::prepare(plan());
    let [first, _] = trees(&pair);
    fs::create_dir(&first).unwrap();
    fs::write(first.join("file"), "read by init").unwrap();
    pair.nodes[0].well(&["init", RESOURCE, "--from", "this", "--yes"]);
    pair.nodes[1].well(&["init", RESOURCE, "--from", "peer", "--yes"]);
    fs::write(first.join("file"), "never read by anybody").unwrap();
    pair.nodes[0].run();
    pair.nodes[1].run();
    pair.wait_connected();
    pair.news.wait_for("the first node to say that the tree was changed", || {
        let events = pair.nodes[0].well(&["events", "--no-follow"]);
        events.contains("tree-changed").then_some(())
    });
    assert!(!pair.nodes[1].is_in_sync(), "{}", pair.nodes[1].well(&["status", RESOURCE]));
    pair.nodes[0].well(&["promote", RESOURCE]);
    pair.wait_in_sync();
    sync(&pair.nodes[0]);
    assert_equal(&pair);
}

fn start_watched() -> Pair {
    let pair = meet(watched(), |tree| Storm::new(tree, 5).run(60));
    pair.wait_in_sync();
    pair.wait_serves(0);
    wait_eligible(&pair, 1);
    pair
}

fn wait_eligible(pair: &Pair, at: usize) {
    pair.news.wait_for("the secondary to be eligible", || {
        let reaches = pair.nodes.iter().all(Node::reaches_arbiter);
        (reaches && pair.nodes[at].field("/promotion/takes_over") == true).then_some(())
    });
}

/// 31 with an arbiter: the node that is left serves what was synced, by itself; the one that was lost
/// follows when it is back.
pub(crate) fn the_loss_of_a_primary_needs_nobody() {
    let mut pair = start_watched();
    let [first, second] = trees(&pair);
    Storm::new(&first, 17).run(100);
    sync(&pair.nodes[0]);
    pair.nodes[0].lose();
    pair.wait_serves(1);
    judge::equal(&first, &second).unwrap_or_else(|why| panic!("{why}"));
    Storm::new(&second, 18).run(60);
    pair.nodes[0].run();
    pair.wait_connected();
    pair.wait_in_sync();
    sync(&pair.nodes[1]);
    assert_equal(&pair);
}

/// A worker that dies is replaced by the other node, which has what was synced.
pub(crate) fn each_node_in_turn_takes_over() {
    let mut pair = start_watched();
    let trees = trees(&pair);
    for round in 0..4 {
        let (primary, other) = (round % 2, 1 - round % 2);
        wait_eligible(&pair, other);
        fs::write(trees[primary].join(format!("round-{round}")), "x").unwrap();
        sync(&pair.nodes[primary]);
        pair.nodes[primary].kill();
        pair.wait_serves(other);
        judge::equal(&trees[0], &trees[1]).unwrap_or_else(|why| panic!("round {round}: {why}"));
        pair.nodes[primary].run();
        pair.wait_connected();
        pair.wait_in_sync();
    }
}
