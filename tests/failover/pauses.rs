//! Processes that do not run for a while, as of a machine that is overloaded or was moved.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::scene::{Scene, WAIT_MAX};
use crate::real::process;

/// Stops or continues all processes of a node.
fn send(scene: &mut Scene, at: usize, signal: Signal) {
    let node = &mut scene.pair.nodes[at];
    let worker = node.worker();
    let supervisor = i32::try_from(node.daemon().id()).ok().and_then(Pid::from_raw).unwrap();
    for id in [worker, supervisor] {
        kill_process(id, signal).unwrap();
    }
}

/// A primary that sleeps longer than its lease is replaced. What its clients asked meanwhile is
/// never answered: the other node may have written since.
pub(crate) fn a_paused_primary() {
    let mut scene = Scene::new(11);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(500);
    send(&mut scene, 0, Signal::STOP);
    // The load has requests in the sockets of the sleeper.
    scene.pair.wait_serves(1);
    let mut client = scene.pair.nodes[1].connect();
    let written = client.read_all().unwrap();
    send(&mut scene, 0, Signal::CONT);
    let ended = load.join();
    assert!(ended.broken.is_some(), "a replaced primary must let its clients go");
    ended.record.check_errors("no answer, and no error either");
    let mut record = ended.record;
    record.epoch_serves();
    record.read_whole(&written);
    scene.record = Some(record);
    scene.serves_all(1);
    scene.is_whole_again();
}

/// A pause below the lease changes nothing.
pub(crate) fn a_short_pause() {
    let mut scene = Scene::new(12);
    for at in [0, 1] {
        let load = scene.pair.load(0, scene.record.take().unwrap());
        load.wait_for_answers(300);
        send(&mut scene, at, Signal::STOP);
        let until = process::now() + Duration::from_millis(500);
        let news = scene.pair.news.clone();
        news.wait_for("half a second", || (process::now() >= until).then_some(()));
        send(&mut scene, at, Signal::CONT);
        load.wait_for_answers(300);
        let ended = load.stop();
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        ended.record.check_errors("the client must not notice");
        ended.check_waits(WAIT_MAX);
        scene.record = Some(ended.record);
        scene.is_whole_again();
        assert_eq!(scene.pair.nodes[0].field("/role"), "primary");
    }
}
