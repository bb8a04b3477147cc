//! What operators are told when two nodes do not go on together, and that what they are told to
//! type helps: two real daemons on the loopback.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[allow(unused_imports, reason = "loads of the other tests use it")]
mod oracle;
mod real;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use real::pair::{self, Node, Pair, Plan, RESOURCE};
use real::process;

fn small() -> Plan {
    Plan { size: 8 << 20, ..Plan::default() }
}

/// A pair whose copies were made and that does not run.
fn made(plan: Plan) -> Pair {
    let pair = Pair::prepare(plan);
    pair.nodes[0].well(&["init", RESOURCE, "--from", "empty"]);
    pair.nodes[1].well(&["init", RESOURCE, "--from", "peer"]);
    pair
}

fn running() -> Pair {
    let mut pair = made(small());
    pair.nodes[0].run();
    pair.nodes[1].run();
    pair.wait_in_sync();
    pair
}

/// Why, and what is next.
fn explained(node: &Node) -> (String, String) {
    let said: Value = serde_json::from_str(&node.well(&["explain", RESOURCE, "--json"])).unwrap();
    let text = |key: &str| said[key].as_str().unwrap().to_owned();
    (text("why"), text("next"))
}

/// Waits until a node explains itself with all of these words.
fn wait_explained(pair: &Pair, at: usize, why: &[&str], next: &[&str]) {
    let mut last = None;
    let news = pair.news.clone();
    let found = news.wait_within(process::PATIENCE, || {
        let said = explained(&pair.nodes[at]);
        let is_said = |text: &str, words: &[&str]| words.iter().all(|word| text.contains(word));
        let is_right = is_said(&said.0, why) && is_said(&said.1, next);
        last = Some(said);
        is_right.then_some(())
    });
    assert!(found.is_some(), "{} lacks {why:?} or {next:?}: {last:?}", pair.nodes[at].name);
}

/// Changes the configuration of one node.
fn reconfigure(node: &Node, from: &str, to: &str) {
    let text = fs::read_to_string(&node.config).unwrap();
    assert!(text.contains(from), "no {from:?} in {text}");
    fs::write(&node.config, text.replace(from, to)).unwrap();
}

/// The `next:` of a command that is refused.
fn next_of_refusal(node: &Node, words: &[&str]) -> String {
    let text = node.refused(words);
    let next = text.lines().find_map(|line| line.trim_start().strip_prefix("next: "));
    next.unwrap_or_else(|| panic!("no next in {text}")).to_owned()
}

#[test]
fn a_key_that_does_not_fit_is_named_on_both_nodes_until_it_is_mended() {
    for wrong_at in [0, 1] {
        let mut pair = made(small());
        let other = 1 - wrong_at;
        let key_of = |folder: &std::path::Path| {
            let words = ["identity", "--state-dir", folder.to_str().unwrap()];
            process::run_well(&pair::binary(), &words).trim().to_owned()
        };
        let found = key_of(&pair.nodes[other].state_dir);
        let expected = key_of(&pair.folder().join("stranger"));
        reconfigure(&pair.nodes[wrong_at], &found, &expected);
        // First there is an older reason.
        pair.nodes[0].run();
        wait_explained(&pair, 0, &["Connection refused"], &[]);
        pair.nodes[1].run();
        let section = format!("[node.{}]", pair.nodes[other].name);
        let mend = ["hotpair identity", section.as_str(), "both nodes"];
        wait_explained(&pair, wrong_at, &[&found, &expected], &mend);
        wait_explained(&pair, other, &["does not accept the key", &found], &mend);

        reconfigure(&pair.nodes[wrong_at], &expected, &found);
        pair.nodes[wrong_at].stop();
        pair.nodes[wrong_at].run();
        pair.wait_in_sync();
        for at in [0, 1] {
            wait_explained(&pair, at, &["can be promoted"], &["hotpair promote"]);
        }
        // What was mended is not the reason for what happens later.
        pair.nodes[wrong_at].stop();
        let (why, next) = explained(&pair.nodes[other]);
        assert!(!why.contains("key") && !next.contains("identity"), "{why} {next}");
    }
}

#[test]
fn a_node_that_encrypts_and_one_that_does_not_are_told_apart() {
    for plain_at in [0, 1] {
        let mut pair = made(small());
        let encrypted_at = 1 - plain_at;
        reconfigure(&pair.nodes[plain_at], "encryption = \"tls\"", "encryption = \"none\"");
        pair.nodes[0].run();
        pair.nodes[1].run();
        // The one that listens sees what comes; the one that dials may only see that it ends.
        let mend = ["`encryption` under [link]", "hotpair config check"];
        wait_explained(&pair, 1, &["TLS"], &mend);
        let next = if plain_at == 0 { mend.as_slice() } else { &["on beta: hotpair explain r"] };
        wait_explained(&pair, 0, &["TLS"], next);
        reconfigure(&pair.nodes[plain_at], "encryption = \"none\"", "encryption = \"tls\"");
        pair.nodes[plain_at].stop();
        pair.nodes[plain_at].run();
        pair.wait_in_sync();
        let (why, _) = explained(&pair.nodes[encrypted_at]);
        assert!(!why.contains("TLS"), "{why}");
    }
}

#[test]
fn settings_that_differ_are_named_with_their_section_and_node() {
    let mut pair = made(small());
    let heartbeat = "\n[heartbeat]\ninterval = \"100ms\"\n";
    let text = fs::read_to_string(&pair.nodes[1].config).unwrap();
    fs::write(&pair.nodes[1].config, text.clone() + heartbeat).unwrap();
    pair.nodes[0].run();
    pair.nodes[1].run();
    let mend = ["one configuration file on both nodes", "hotpair config check"];
    for at in [0, 1] {
        wait_explained(&pair, at, &["`interval`", "[heartbeat]"], &mend);
    }
    let next = next_of_refusal(&pair.nodes[1], &["promote", RESOURCE]);
    assert!(next.contains("hotpair config check"), "{next}");
    pair.nodes[1].stop();
    fs::write(&pair.nodes[1].config, text).unwrap();
    reconfigure(&pair.nodes[1], "mode = \"sync\"", "mode = \"memsync\"");
    pair.nodes[1].run();
    for at in [0, 1] {
        let why = ["`mode` of [resource.r]", "sync on alpha", "memsync on beta"];
        wait_explained(&pair, at, &why, &mend);
    }
}

#[test]
fn a_metadata_folder_that_others_can_enter_is_a_warning_until_it_is_closed() {
    let mut pair = made(small());
    let folder = pair.nodes[0].state_dir.join(RESOURCE);
    let open_to = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    open_to(0o755);
    pair.nodes[0].run();
    let node = &pair.nodes[0];
    let found = || Some(node.field("/warnings/0").as_str()?.to_owned());
    let warning = pair.news.wait_for("a warning", found);
    let mend = format!("chmod 700 {}", folder.display());
    assert!(warning.contains("0755") && warning.contains(&mend), "{warning}");
    open_to(0o700);
    pair.news.wait_for("no warning", || node.field("/warnings/0").is_null().then_some(()));
    let lines = pair.nodes[0].daemon().lines().join("\n");
    assert!(lines.contains("others can enter the folder of the metadata"), "{lines}");
}

#[test]
fn promote_on_a_node_that_stands_alone_names_connect_first() {
    let pair = running();
    pair.nodes[0].well(&["promote", RESOURCE]);
    pair.wait_in_sync();
    let connect = format!("hotpair connect {RESOURCE}");
    // One that left a primary is outdated, one that left a secondary is not.
    pair.nodes[1].well(&["disconnect", RESOURCE]);
    let next = next_of_refusal(&pair.nodes[1], &["promote", RESOURCE]);
    assert!(next.starts_with(&connect) && next.contains("--accept-data-loss"), "{next}");
    // The other node knows where that has to be typed.
    wait_explained(&pair, 0, &["beta"], &[&connect]);
    pair.nodes[1].well(&["connect", RESOURCE]);
    pair.wait_in_sync();
    pair.nodes[0].well(&["demote", RESOURCE]);
    pair.wait_in_sync();
    pair.nodes[1].well(&["disconnect", RESOURCE]);
    let next = next_of_refusal(&pair.nodes[1], &["promote", RESOURCE]);
    assert!(next.starts_with(&connect) && next.contains("--peer-is-fenced"), "{next}");
    pair.nodes[1].well(&["connect", RESOURCE]);
    wait_explained(&pair, 1, &["can be promoted"], &["hotpair promote"]);
    pair.nodes[1].well(&["promote", RESOURCE]);
}
