//! Both nodes are well: what is changed on one is on the other.

use std::fs;

use super::nodes::{assert_equal, plan, start, sync, tree_field, trees};
use crate::real::pair::RESOURCE;
use crate::trees::fidelity;
use crate::trees::operations::Storm;

pub(crate) fn everything_is_equal() {
    let pair = start(plan(), |tree| {
        // What this file system does not have is not there on either side.
        fidelity::make(tree);
    });
    sync(&pair.nodes[0]);
    assert_equal(&pair);
    let roots = [0, 1].map(|at| tree_field(&pair.nodes[at], "root"));
    assert!(roots[0].is_string() && roots[0] == roots[1], "{roots:?}");
}

pub(crate) fn what_shrinks_travels_compressed() {
    let line = |number| format!("{number}: a line of a log that looks like the one before it\n");
    let text: String = (0..200_000_u32).map(line).collect();
    let pair = start(plan(), |tree| fs::write(tree.join("log"), &text).unwrap());
    sync(&pair.nodes[0]);
    assert_equal(&pair);
    let sent = || tree_field(&pair.nodes[0], "sent_bytes").as_u64().unwrap();
    let (first, text_len) = (sent(), text.len() as u64);
    assert!(first > 0 && first < text_len / 2, "{first} bytes were sent for {text_len}");
    let mut random = vec![0; 4 << 20];
    fastrand::fill(&mut random);
    fs::write(pair.nodes[0].data.join("random"), &random).unwrap();
    sync(&pair.nodes[0]);
    assert_equal(&pair);
    let (second, random_len) = (sent() - first, random.len() as u64);
    let most = random_len + random_len / 10;
    assert!((random_len..most).contains(&second), "{second} bytes were sent for {random_len}");
    println!("{text_len} bytes of text: {first} sent; {random_len} random ones: {second}");
}

pub(crate) fn a_storm_is_equal() {
    let pair = start(plan(), |_| ());
    let [tree, _] = trees(&pair);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut storm = Storm::new(&tree, seed);
    for _ in 0..6 {
        storm.run(150);
        sync(&pair.nodes[0]);
        assert_equal(&pair);
    }
}

pub(crate) fn changes_arrive_by_themselves() {
    let pair = start(plan(), |_| ());
    let [first, second] = trees(&pair);
    for round in 0..10_u32 {
        let text = format!("round {round}");
        fs::write(first.join("note"), &text).unwrap();
        pair.news.wait_for("the note to arrive", || {
            let found = fs::read_to_string(second.join("note")).unwrap_or_default();
            (found == text).then_some(())
        });
    }
}

pub(crate) fn a_switchover_hands_over_every_change() {
    let pair = start(plan(), |_| ());
    for round in 0..4_usize {
        let at = round % 2;
        let tree = &pair.nodes[at].data;
        fs::write(tree.join(format!("by-{round}")), round.to_string()).unwrap();
        let _ = fs::remove_file(tree.join(format!("by-{}", round.wrapping_sub(2))));
        pair.nodes[at].well(&["switchover", RESOURCE]);
        pair.wait_serves(1 - at);
        assert_equal(&pair);
        pair.wait_in_sync();
    }
}
