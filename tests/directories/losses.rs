//! Nodes are lost.

use std::fs;

use super::nodes::{plan, start, sync, trees};
use crate::real::pair::RESOURCE;
use crate::trees::judge;
use crate::trees::operations::Storm;

/// What the tree was when it was synced is what the other node serves, or something later.
pub(crate) fn what_was_synced_survives() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    for round in 0..3_u64 {
        let mut pair = start(plan(), |_| ());
        let [first, second] = trees(&pair);
        Storm::new(&first, seed.wrapping_add(round)).run(100);
        sync(&pair.nodes[0]);
        pair.nodes[0].lose();
        pair.nodes[1].well(&["promote", RESOURCE, "--force", "--peer-is-fenced"]);
        judge::equal(&first, &second).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Either daemon is killed at random moments; each time the pair finds together again, and what is synced
/// then is equal.
pub(crate) fn killed_daemons_leave_a_generation() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pair = start(plan(), |_| ());
    let [first, second] = trees(&pair);
    let mut storm = Storm::new(&first, seed);
    for round in 0..8 {
        storm.run(40);
        fs::write(first.join("large"), vec![round; 3 << 20]).unwrap();
        let at = random.usize(..2);
        let steps = random.usize(..30);
        storm.run(steps);
        pair.nodes[at].kill();
        storm.run(20);
        pair.nodes[at].run();
        pair.wait_connected();
        pair.wait_serves(0);
        pair.wait_in_sync();
        sync(&pair.nodes[0]);
        judge::equal(&first, &second).unwrap_or_else(|why| panic!("round {round}: {why}"));
    }
}
