//! Foreign writes to a secondary, and earlier generations.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::nodes::{assert_equal, meet, plan, start, sync, tree_field, trees, watched};
use crate::real::pair::{Node, Pair, Plan, RESOURCE};
use crate::trees::judge;
use crate::trees::operations::Storm;

/// A plan whose secondary looks often whether its tree is what it should be.
fn looking() -> Plan {
    Plan { resource_lines: "max_lag = \"60s\"\nfull_scan = \"10s\"", ..plan() }
}

/// What a quarantine has at `path`, whatever epoch it was brought there in.
fn quarantined(node: &Node, path: &str) -> Option<Vec<u8>> {
    let lost = PathBuf::from(tree_field(node, "work_dir").as_str()?).join("lost+hotpair");
    let epochs = fs::read_dir(lost).ok()?;
    epochs.into_iter().find_map(|epoch| fs::read(epoch.unwrap().path().join(path)).ok())
}

fn wait_for_heal(pair: &Pair) {
    let [first, second] = trees(pair);
    pair.news.wait_for("the secondary to be healed", || judge::equal(&first, &second).ok());
    pair.wait_in_sync();
}

/// Test 35: the secondary meets it where the next generation changes something.
pub(crate) fn a_foreign_write_is_healed_by_the_next_generation() {
    let pair = start(plan(), |tree| {
        fs::create_dir(tree.join("dir")).unwrap();
        for name in ["dir/edited", "dir/gone", "calm"] {
            fs::write(tree.join(name), format!("{name} of the primary")).unwrap();
        }
    });
    sync(&pair.nodes[0]);
    let [first, second] = trees(&pair);
    let mut edited = OpenOptions::new().append(true).open(second.join("dir/edited")).unwrap();
    edited.write_all(b", edited").unwrap();
    fs::remove_file(second.join("dir/gone")).unwrap();
    fs::write(second.join("dir/added"), "mine").unwrap();
    for name in ["dir/edited", "dir/gone"] {
        fs::write(first.join(name), format!("{name}, changed by the primary")).unwrap();
    }
    wait_for_heal(&pair);
    sync(&pair.nodes[0]);
    assert_equal(&pair);
    let secondary = &pair.nodes[1];
    let expected = b"dir/edited of the primary, edited".to_vec();
    assert_eq!(quarantined(secondary, "dir/edited"), Some(expected));
    assert_eq!(quarantined(secondary, "dir/added"), Some(b"mine".to_vec()));
    assert_eq!(quarantined(secondary, "calm"), None);
    assert!(tree_field(secondary, "quarantine/files").as_u64().unwrap() >= 2);
    // It is as good as before: it takes over.
    secondary.well(&["switchover", RESOURCE]);
    pair.wait_serves(1);
}

/// Test 35: nothing changes at the primary, and the secondary looks by itself.
pub(crate) fn a_foreign_write_is_found_although_nothing_changes() {
    let pair = start(looking(), |tree| fs::write(tree.join("calm"), "calm").unwrap());
    sync(&pair.nodes[0]);
    let [_, second] = trees(&pair);
    fs::write(second.join("added"), "mine").unwrap();
    wait_for_heal(&pair);
    assert_eq!(quarantined(&pair.nodes[1], "added"), Some(b"mine".to_vec()));
}

/// Rows of `generations`, as JSON.
fn generations(node: &Node) -> Vec<Value> {
    let text = node.well(&["generations", RESOURCE, "--json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    answer["generations"].as_array().unwrap().clone()
}

fn copy(from: &Path, to: &Path) {
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// Tests 43 and 44: the secondary lists what it keeps, and keeps no more than it was told to.
pub(crate) fn earlier_generations_are_listed_and_gone_back_to() {
    let resource_lines = "max_lag = \"60s\"\nkeep_generations = 2";
    let pair = start(Plan { resource_lines, ..plan() }, |_| ());
    let [first, second] = trees(&pair);
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut storm = Storm::new(&first, seed);
    for round in 0..5_u8 {
        storm.run(30);
        fs::write(first.join("round"), [round]).unwrap();
        sync(&pair.nodes[0]);
    }
    let secondary = &pair.nodes[1];
    let kept = pair.news.wait_for("old generations to be given up", || {
        Some(generations(secondary)).filter(|kept| kept.len() == 3)
    });
    let numbers: Vec<u64> = kept.iter().map(|it| it["number"].as_u64().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] > pair[1]), "{numbers:?}");
    assert_eq!((&kept[0]["kept"], &kept[1]["kept"]), (&"current".into(), &"recent".into()));
    assert_eq!(kept[0]["root"], tree_field(secondary, "root"));
    assert!(kept.iter().all(|it| it["captured_at"].is_string() && it["entries"].is_u64()));
    assert_eq!(tree_field(secondary, "undo/generations"), Value::from(2));
    // Whoever serves goes back to nothing.
    assert_eq!(generations(&pair.nodes[0]).len(), 1);
    let to = numbers[2].to_string();
    let back = ["rollback", RESOURCE, "--to", &to];
    assert!(pair.nodes[0].refused(&back).contains("hotpair demote"));
    assert!(secondary.refused(&back).contains("on the other node"));
    // Both rest, and one of them goes back.
    let before = pair.folder().join("before");
    copy(&second, &before);
    pair.nodes[0].well(&["demote", RESOURCE]);
    assert!(secondary.refused(&["rollback", RESOURCE, "--to", "1000000"]).contains("not kept"));
    secondary.well(&back);
    assert_eq!(generations(secondary)[0]["root"], kept[2]["root"]);
    secondary.well(&["promote", RESOURCE]);
    pair.wait_serves(1);
    pair.wait_in_sync();
    sync(secondary);
    assert_equal(&pair);
    assert!(judge::equal(&before, &second).is_err());
}

/// The note of the primary was `old`, then `new`; nobody serves, and the tree of the second node has the old one.
fn go_back_to_old(pair: &Pair) {
    let [first, second] = trees(pair);
    let write = |text: &str| {
        fs::write(first.join("note"), text).unwrap();
        sync(&pair.nodes[0]);
        pair.nodes[1].field("/tree_generation").as_u64().unwrap()
    };
    let old = write("old").to_string();
    write("new");
    pair.nodes[0].well(&["demote", RESOURCE]);
    pair.nodes[1].well(&["rollback", RESOURCE, "--to", &old]);
    assert_eq!(fs::read(second.join("note")).unwrap(), b"old");
}

/// A rollback that nobody served is one although the daemon was killed since.
pub(crate) fn a_rollback_survives_the_daemon() {
    let mut pair = start(plan(), |_| ());
    let [first, _] = trees(&pair);
    go_back_to_old(&pair);
    pair.nodes[1].kill();
    pair.nodes[1].run();
    pair.wait_connected();
    pair.nodes[1].well(&["promote", RESOURCE]);
    pair.wait_serves(1);
    pair.wait_in_sync();
    sync(&pair.nodes[1]);
    assert_eq!(fs::read(first.join("note")).unwrap(), b"old");
    assert_equal(&pair);
}

/// Whoever is promoted decides: the node that went back follows it.
pub(crate) fn a_rollback_that_the_other_node_overtakes_is_gone() {
    let pair = start(plan(), |_| ());
    let [first, second] = trees(&pair);
    go_back_to_old(&pair);
    pair.nodes[0].well(&["promote", RESOURCE]);
    pair.wait_serves(0);
    fs::write(first.join("more"), "more").unwrap();
    // The second node meets it anew, as a copy that does not count.
    pair.news.wait_for("the second node to follow", || {
        (pair.nodes[0].say(&["sync", RESOURCE, "--wait"]).code == Some(0)).then_some(())
    });
    assert_eq!(fs::read(second.join("note")).unwrap(), b"new");
    assert_equal(&pair);
    // Only this node had what it went back to, and nothing leads there any more.
    let secondary = &pair.nodes[1];
    assert_eq!(quarantined(secondary, "note"), Some(b"old".to_vec()));
    // It counts again.
    pair.wait_in_sync();
    secondary.well(&["switchover", RESOURCE]);
    pair.wait_serves(1);
}

/// A witness promotes nobody after a demotion, so there is time to go back.
pub(crate) fn a_rollback_is_served_with_a_witness() {
    let pair = meet(watched(), |_| ());
    pair.wait_in_sync();
    pair.wait_serves(0);
    let [first, _] = trees(&pair);
    go_back_to_old(&pair);
    pair.news.wait_for("the lease of the first node to be over", || {
        (pair.nodes[1].say(&["promote", RESOURCE]).code == Some(0)).then_some(())
    });
    // The first node may have to meet it again, as one that lacks what it serves.
    pair.wait_connected();
    pair.wait_in_sync();
    sync(&pair.nodes[1]);
    assert_eq!(fs::read(first.join("note")).unwrap(), b"old");
    assert_equal(&pair);
}
