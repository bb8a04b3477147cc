//! Nodes that die under load, and the other one that goes on.

use super::cycles::repeat;
use crate::oracle::ledger::Floor;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::record::Record;

/// Kills the primary in the middle of writes, promotes the other node by hand, lets the dead one
/// come back, and compares everything that was acknowledged with both files; then the other way
/// round.
pub(crate) fn kill_and_promote_loses_nothing() {
    let plan = Plan::default();
    let mut pair: Option<(Pair, Record)> = None;
    let mut primary = 0;
    repeat("kill", 10, |seed| {
        let (mut both, mut record) = pair.take().unwrap_or_else(|| {
            let record = Record::new(plan.size, seed);
            primary = 0;
            (Pair::start(plan.clone(), &record.first_image()), record)
        });
        let answers = 1 + record.draw(3_000);
        let load = both.load(primary, record);
        load.wait_for_answers(answers);
        both.nodes[primary].kill();
        let ended = load.join();
        record = ended.record;
        assert!(ended.broken.is_some(), "the client of a dead node saw no end");
        record.check_errors("errors from a healthy pair");

        let (old, new) = (primary, 1 - primary);
        let word = both.nodes[new].refused(&["promote", RESOURCE]);
        assert!(word.contains("--force"), "the refusal shows no way out: {word}");
        both.nodes[new].well(&["promote", RESOURCE, "--force", "--peer-is-fenced"]);
        let mut client = both.nodes[new].connect();
        record.epoch_serves();
        record.read_whole(&client.read_all().unwrap());
        record.check_reads();

        // The new primary works alone, and the old one comes back while it does.
        let load = both.load(new, record);
        load.wait_for_answers(500);
        both.nodes[old].run();
        load.wait_for_answers(500);
        both.wait_connected();
        let ended = load.stop();
        record = ended.record;
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        record.check_errors("errors while the other node came back");
        primary = new;
        check(&both, &mut record);
        pair = Some((both, record));
    });
}

/// A secondary that dies is missed by nobody, and catches up when it is back.
pub(crate) fn a_killed_secondary_comes_back() {
    let plan = Plan::default();
    let mut record = Record::new(plan.size, 1);
    let mut pair = Pair::start(plan, &record.first_image());
    for _ in 0..3 {
        let load = pair.load(0, record);
        load.wait_for_answers(500);
        pair.nodes[1].kill();
        load.wait_for_answers(500);
        pair.nodes[1].run();
        load.wait_for_answers(500);
        let ended = load.stop();
        record = ended.record;
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        record.check_errors("the client must not notice");
        check(&pair, &mut record);
    }
}

/// A planned change of roles answers every admitted write and loses none.
pub(crate) fn switchover_under_load_loses_nothing() {
    let plan = Plan::default();
    let mut record = Record::new(plan.size, 2);
    let pair = Pair::start(plan, &record.first_image());
    let mut primary = 0;
    for _ in 0..4 {
        let load = pair.load(primary, record);
        load.wait_for_answers(300);
        // Typed on the first node every time: once it gives the role away, once it takes it.
        pair.nodes[0].well(&["switchover", RESOURCE]);
        let ended = load.join();
        record = ended.record;
        record.check_errors("a planned change sends no errors");
        primary = 1 - primary;
        let mut client = pair.nodes[primary].connect();
        record.epoch_serves();
        record.read_whole(&client.read_all().unwrap());
        check(&pair, &mut record);
    }
}

/// Everything that must hold at a quiet point.
fn check(pair: &Pair, record: &mut Record) {
    record.check_reads();
    pair.wait_in_sync();
    let image = pair.equal_image();
    record.check_image("both data files", &image, Floor::Acknowledged);
    record.settle(&image);
}
