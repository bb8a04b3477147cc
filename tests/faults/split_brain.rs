//! Both nodes took writes while apart: shown on both, nothing moves, and one command ends it.

use crate::oracle::ledger::Floor;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::record::Record;

/// The operator forces a promotion although the other node lives. Whatever node the command that
/// resolves it is typed on, the data of the node that was named stays.
pub(crate) fn split_brain_is_shown_and_resolved() {
    for (seed, keep, typed_on) in [(5, 1, 0), (6, 0, 0), (7, 1, 1)] {
        let plan = Plan { has_relays: true, ..Plan::default() };
        let mut first = Record::new(plan.size, seed);
        let pair = Pair::start(plan, &first.first_image());
        let load = pair.load(0, first);
        load.wait_for_answers(200);
        first = load.stop().record;

        pair.cut();
        let mut second = first.fork();
        pair.nodes[1].well(&["promote", RESOURCE, "--force", "--peer-is-fenced"]);
        second.epoch_serves();
        let loads = [pair.load(0, first), pair.load(1, second)];
        for load in &loads {
            load.wait_for_answers(300);
        }
        let records = loads.map(|load| load.stop().record);
        let before = pair.images();

        pair.heal();
        pair.news.wait_for("both nodes to show the split brain", || {
            pair.nodes.iter().all(|node| node.field("/peer/link") == "stand-alone").then_some(())
        });
        for node in &pair.nodes {
            let text = node.well(&["split-brain", "show", RESOURCE]);
            for name in ["alpha", "beta"] {
                let way_out = format!("hotpair split-brain resolve {RESOURCE} --keep {name}");
                assert!(text.contains(&way_out), "no way out is shown: {text}");
            }
            let text = node.well(&["explain", RESOURCE]);
            assert!(text.contains("hotpair split-brain show"), "no way out is shown: {text}");
        }
        for (at, image) in pair.images().iter().enumerate() {
            assert!(*image == before[at], "the data of {} moved", pair.nodes[at].name);
        }

        let name = pair.nodes[keep].name;
        pair.nodes[typed_on].well(&["split-brain", "resolve", RESOURCE, "--keep", name]);
        pair.wait_in_sync();
        let image = pair.equal_image();
        records[keep].check_reads();
        records[keep].check_image("both data files", &image, Floor::Acknowledged);
    }
}
