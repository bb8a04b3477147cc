//! Processes and machines that are lost.

use std::time::Duration;

use rustix::process::Signal;

use super::scene::{Scene, WAIT_MAX, cycles, measured, since};
use crate::real::pair::RESOURCE;
use crate::real::process;

/// The time in which nothing may happen, long against every lease of these tests.
const WHILE: Duration = Duration::from_secs(8);

/// The supervisor says that the worker is dead, and nobody waits for a lease.
pub(crate) fn a_crashed_worker_is_replaced_at_once() {
    let mut scene = Scene::new(1);
    let count = cycles(2);
    for turn in 0..count {
        let (old, new) = (scene.primary, 1 - scene.primary);
        let load = scene.pair.load(old, scene.record.take().unwrap());
        load.wait_for_answers(500);
        let start = process::now();
        scene.pair.nodes[old].kill_worker();
        let ended = load.join();
        assert!(ended.broken.is_some(), "the client of a dead worker saw no end");
        ended.record.check_errors("errors from a healthy pair");
        scene.record = Some(ended.record);
        drop(scene.pair.nodes[new].connect());
        measured("crash", since(start));
        let news = scene.pair.news.clone();
        news.wait_for("a word of the supervisor", || scene.is_told(new).then_some(()));
        scene.serves_all(new);
        scene.is_whole_again();
        // A supervisor waits longer each time before it starts a worker again. A new one does not.
        if turn + 1 < count {
            scene.pair.nodes[old].stop();
            scene.pair.nodes[old].run();
            scene.wait_eligible();
        }
    }
}

/// Worker and supervisor are lost together: without a word a node is replaced once its lease is over.
pub(crate) fn a_lost_node_is_replaced() {
    let mut scene = Scene::new(2);
    for _ in 0..cycles(2) {
        let (old, new) = (scene.primary, 1 - scene.primary);
        let load = scene.pair.load(old, scene.record.take().unwrap());
        load.wait_for_answers(500);
        let start = process::now();
        scene.pair.nodes[old].lose();
        let ended = load.join();
        ended.record.check_errors("errors from a healthy pair");
        scene.record = Some(ended.record);
        drop(scene.pair.nodes[new].connect());
        measured("node-loss", since(start));
        scene.waited_for_lease(new, start);
        scene.serves_all(new);
        // It goes on alone, and the other one comes back while it does.
        let load = scene.pair.load(new, scene.record.take().unwrap());
        load.wait_for_answers(300);
        scene.pair.nodes[old].run();
        load.wait_for_answers(300);
        let ended = load.stop();
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        ended.record.check_errors("errors while the other node came back");
        scene.record = Some(ended.record);
        scene.is_whole_again();
    }
}

/// `systemctl stop` on the primary: what was admitted is answered, and the other node goes on.
pub(crate) fn a_stopped_daemon_is_replaced() {
    let mut scene = Scene::new(9);
    for _ in 0..cycles(1) {
        let (old, new) = (scene.primary, 1 - scene.primary);
        let load = scene.pair.load(old, scene.record.take().unwrap());
        load.wait_for_answers(500);
        // The daemon takes its time to end, and nobody waits for that.
        let start = process::now();
        scene.pair.nodes[old].daemon().signal(Signal::TERM);
        let ended = load.join();
        ended.record.check_errors("a planned end sends no errors");
        scene.record = Some(ended.record);
        drop(scene.pair.nodes[new].connect());
        measured("stop", since(start));
        scene.pair.nodes[old].wait_stopped();
        scene.serves_all(new);
        scene.pair.nodes[old].run();
        scene.is_whole_again();
    }
}

/// Writes wait until the witness excludes the dead node, and go on.
pub(crate) fn a_lost_secondary_stops_nobody() {
    let mut scene = Scene::new(3);
    for _ in 0..cycles(2) {
        let load = scene.pair.load(0, scene.record.take().unwrap());
        load.wait_for_answers(500);
        let start = process::now();
        scene.pair.nodes[1].kill();
        // More than can be in flight: some of them began after the loss.
        load.wait_for_answers(100);
        measured("secondary-loss", since(start));
        scene.pair.nodes[1].run();
        load.wait_for_answers(300);
        let ended = load.stop();
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        ended.record.check_errors("the client must not notice");
        ended.check_waits(WAIT_MAX);
        scene.record = Some(ended.record);
        scene.is_whole_again();
    }
}

/// The nodes grant each other leases; the witness is needed only for a change.
pub(crate) fn a_lost_witness_stops_nobody() {
    let mut scene = Scene::new(4);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(300);
    scene.pair.witness.as_mut().unwrap().kill();
    let until = process::now() + WHILE;
    while process::now() < until {
        load.wait_for_answers(100);
    }
    scene.pair.witness.as_mut().unwrap().run();
    load.wait_for_answers(300);
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    ended.record.check_errors("the client must not notice");
    ended.check_waits(WAIT_MAX);
    scene.record = Some(ended.record);
    scene.is_whole_again();
}

/// A secondary that hears nobody serves nobody; when the witness is back it takes over.
pub(crate) fn without_the_witness_nobody_is_promoted() {
    let mut scene = Scene::new(5);
    scene.pair.witness.as_mut().unwrap().kill();
    scene.pair.nodes[0].kill();
    let other = &scene.pair.nodes[1];
    let served = scene
        .pair
        .news
        .wait_within(WHILE, || other.status().filter(|status| status["role"] == "primary"));
    assert!(served.is_none(), "promoted without a word of the witness: {served:?}");
    let said = other.well(&["explain", RESOURCE]);
    assert!(said.contains("arbiter"), "{said}");
    scene.pair.witness.as_mut().unwrap().run();
    scene.pair.wait_serves(1);
    scene.serves_all(1);
    scene.pair.nodes[0].run();
    scene.is_whole_again();
}

/// A planned change of roles answers every admitted write.
pub(crate) fn a_switchover_under_load_has_no_error() {
    let mut scene = Scene::new(6);
    for _ in 0..cycles(4) {
        let (old, new) = (scene.primary, 1 - scene.primary);
        let load = scene.pair.load(old, scene.record.take().unwrap());
        load.wait_for_answers(300);
        let start = process::now();
        scene.pair.nodes[0].well(&["switchover", RESOURCE]);
        let ended = load.join();
        ended.record.check_errors("a planned change sends no errors");
        scene.record = Some(ended.record);
        drop(scene.pair.nodes[new].connect());
        measured("switchover", since(start));
        scene.serves_all(new);
        scene.is_whole_again();
    }
}

/// `demote` outlives the loss of either node: only `promote` lets somebody serve again.
pub(crate) fn a_stopped_resource_waits() {
    let mut scene = Scene::new(7);
    scene.pair.nodes[0].well(&["demote", RESOURCE]);
    scene.pair.wait_in_sync();
    scene.pair.nodes[0].kill();
    let other = &scene.pair.nodes[1];
    let served = scene
        .pair
        .news
        .wait_within(WHILE, || other.status().filter(|status| status["role"] == "primary"));
    assert!(served.is_none(), "an operator stopped it: {served:?}");
    scene.pair.nodes[0].run();
    scene.pair.wait_in_sync();
    scene.pair.nodes[1].well(&["promote", RESOURCE]);
    scene.serves_all(1);
    scene.is_whole_again();
}

/// After the loss of both nodes the one that was primary goes on.
pub(crate) fn both_nodes_lost_resume() {
    let mut scene = Scene::new(8);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(500);
    scene.pair.nodes[1].kill();
    scene.pair.nodes[0].kill();
    scene.record = Some(load.join().record);
    scene.pair.nodes[1].run();
    scene.pair.nodes[0].run();
    scene.pair.wait_serves(0);
    scene.serves_all(0);
    scene.is_whole_again();
}
