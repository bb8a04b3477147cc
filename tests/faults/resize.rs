//! A resource that grows while its daemons run.

use std::fs;

use crate::oracle::ledger::Floor;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::record::Record;

/// Typed on either node while clients write; those that connect again see the new size, and both
/// daemons start again with the new configuration.
pub(crate) fn a_pair_grows_under_load() {
    let plan = Plan::default();
    let old = plan.size;
    // More than one page of the dirty map, and a short last block; then a whole one.
    let sizes = [old + (150 << 20) + 100, 256 << 20];
    let record = Record::new(old, 6);
    let mut pair = Pair::start(plan, &record.first_image());
    let before = pair.nodes[0].connect();
    let load = pair.load(0, record);
    load.wait_for_answers(500);
    for (at, size) in [1, 0].into_iter().zip(sizes) {
        let said = resize(&pair, at, size);
        assert!(said.contains(&written(size)), "it does not say what to write: {said}");
        load.wait_for_answers(500);
        for node in &pair.nodes {
            assert_eq!(node.field("/size_bytes"), size);
        }
        assert_eq!(pair.nodes[0].connect().size, size);
    }
    assert_eq!(before.size, old, "a client keeps what it was told");
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    let record = ended.record;
    record.check_errors("errors while it grew");
    record.check_reads();

    let size = sizes[1];
    let mut client = pair.nodes[0].connect();
    assert!(client.read(old, 1 << 20).unwrap().iter().all(|byte| *byte == 0));
    client.write(old - 10, &[7; 5000]).unwrap();
    client.write(size - 4096, &[8; 4096]).unwrap();
    client.flush().unwrap();
    drop(client);
    let word = pair.nodes[1].refused(&["resize", RESOURCE, "--size", "32MiB"]);
    assert!(word.contains("only grows"), "{word}");

    for at in [0, 1] {
        pair.nodes[at].stop();
        let word = pair.nodes[at].refused(&["run"]);
        assert!(word.contains("`size`") && word.contains(&written(size)), "{word}");
        configure(&pair, at, old, size);
        let text = pair.nodes[at].well(&["check", "--offline"]);
        assert!(text.contains("stopped cleanly"), "{text}");
        pair.nodes[at].run();
        pair.wait_in_sync();
    }
    let image = pair.equal_image();
    assert_eq!(u64::try_from(image.len()).unwrap(), size);
    let end = usize::try_from(old).unwrap();
    let kept = end - 10;
    assert!(image[kept..kept + 5000].iter().all(|byte| *byte == 7));
    assert!(image[image.len() - 4096..].iter().all(|byte| *byte == 8));
}

/// The size as it is written in a configuration: the largest unit that is exact.
fn written(size: u64) -> String {
    let mebibyte = 1 << 20;
    if size.is_multiple_of(mebibyte) {
        format!("{}MiB", size / mebibyte)
    } else {
        format!("{size}B")
    }
}

/// The other node cannot make its file longer: both keep the size they have, and go on.
pub(crate) fn a_node_without_space_refuses_to_grow() {
    let plan = Plan::default();
    let old = plan.size;
    let record = Record::new(old, 7);
    let mut pair = Pair::prepare(plan);
    fs::write(&pair.nodes[0].data, record.first_image()).unwrap();
    pair.nodes[0].well(&["init", RESOURCE, "--from", "this"]);
    pair.nodes[1].well(&["init", RESOURCE, "--from", "peer"]);
    // No file longer than 64 MiB; what a file system does that has no longer ones.
    let words = ["sh", "-c", "trap '' XFSZ; ulimit -f 131072; exec \"$@\"", "sh"];
    pair.nodes[1].wrapper = words.map(str::to_owned).to_vec();
    pair.nodes[0].run();
    pair.nodes[1].run();
    pair.wait_in_sync();
    pair.nodes[0].well(&["promote", RESOURCE]);
    let load = pair.load(0, record);
    load.wait_for_answers(200);
    for at in [0, 1] {
        let word = pair.nodes[at].refused(&["resize", RESOURCE, "--size", "300MiB"]);
        assert!(word.contains("no space"), "{word}");
        load.wait_for_answers(200);
        for node in &pair.nodes {
            assert_eq!(node.field("/size_bytes"), old);
            assert!(node.field("/disk") == "up-to-date", "{:?}", node.status());
        }
        assert_eq!(pair.nodes[0].connect().size, old);
    }
    let size = 48 << 20;
    resize(&pair, 0, size);
    load.wait_for_answers(200);
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    ended.record.check_errors("errors beside a refused resize");
    ended.record.check_reads();
    pair.wait_in_sync();
    let [mut mine, theirs] = pair.images();
    // The first node had made its own file longer before the other one refused.
    mine.truncate(theirs.len());
    assert_eq!(u64::try_from(theirs.len()).unwrap(), size);
    assert!(mine == theirs, "the data files differ");
    let end = usize::try_from(old).unwrap();
    ended.record.check_image("both data files", &mine[..end], Floor::Acknowledged);
}

/// A primary that is alone grows; the other node follows when it is back, and gets what was
/// written behind its end.
pub(crate) fn a_node_that_was_away_grows() {
    let plan = Plan { has_relays: true, ..Plan::default() };
    let record = Record::new(plan.size, 8);
    let pair = Pair::start(plan, &record.first_image());
    pair.cut();
    pair.news.wait_for("the primary to go on alone", || {
        (pair.nodes[0].field("/solo") == true).then_some(())
    });
    let size = 64 << 20;
    resize(&pair, 0, size);
    let mut client = pair.nodes[0].connect();
    assert_eq!(client.size, size);
    client.write(size - 4096, &[9; 4096]).unwrap();
    client.flush().unwrap();
    pair.heal();
    pair.wait_in_sync();
    assert_eq!(pair.nodes[1].field("/size_bytes"), size);
    let image = pair.equal_image();
    assert_eq!(u64::try_from(image.len()).unwrap(), size);
    assert!(image[image.len() - 4096..].iter().all(|byte| *byte == 9));
}

fn resize(pair: &Pair, at: usize, size: u64) -> String {
    pair.nodes[at].well(&["resize", RESOURCE, "--size", &format!("{size}B")])
}

fn configure(pair: &Pair, at: usize, old: u64, new: u64) {
    let config = &pair.nodes[at].config;
    let text = fs::read_to_string(config).unwrap();
    let line = format!("size = \"{old}B\"");
    assert!(text.contains(&line), "{text}");
    fs::write(config, text.replace(&line, &format!("size = \"{new}B\""))).unwrap();
}
