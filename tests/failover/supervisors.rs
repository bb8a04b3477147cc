//! The parent of a worker, lost or asleep: without its word only the lease decides.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::scene::{Scene, since};
use crate::real::process;

/// The time in which nothing may happen: longer than a lease and its margin.
const WHILE: Duration = Duration::from_secs(4);

/// Less than what is left of a lease of 3 s when its holder is lost.
const LEASE_LEFT: Duration = Duration::from_secs(2);

impl Scene {
    /// Whether somebody told a node that its peer serves nothing more.
    pub(crate) fn is_told(&mut self, at: usize) -> bool {
        let lines = self.pair.nodes[at].daemon().lines();
        lines.iter().any(|line| line.contains("kind=\"peer-dead\""))
    }

    /// A node serves that nobody told, and only since the lease of the other is over, which was lost at
    /// `start`. Its last heartbeat may have been a while before.
    pub(crate) fn waited_for_lease(&mut self, at: usize, start: Instant) {
        let took = since(start);
        assert!(!self.is_told(at), "a worker that was not waited for was said to be dead");
        assert!(took >= LEASE_LEFT, "replaced after {took:?}, before its lease was over");
    }
}

/// kill -9 of the supervisor alone: the kernel ends its worker, and the peer waits for the lease.
pub(crate) fn a_lost_supervisor() {
    let mut scene = Scene::new(13);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(500);
    let start = process::now();
    scene.pair.nodes[0].kill();
    let ended = load.join();
    assert!(ended.broken.is_some(), "the worker outlived its supervisor");
    ended.record.check_errors("errors from a healthy pair");
    scene.record = Some(ended.record);
    drop(scene.pair.nodes[1].connect());
    scene.waited_for_lease(1, start);
    scene.serves_all(1);
    scene.pair.nodes[0].run();
    scene.is_whole_again();
}

/// A supervisor that sleeps says nothing of its worker, be that alive or dead. When it wakes up its
/// word is true, and comes late.
pub(crate) fn a_paused_supervisor() {
    let mut scene = Scene::new(14);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(300);
    scene.pair.nodes[0].daemon().signal(Signal::STOP);
    let until = process::now() + WHILE;
    while process::now() < until {
        load.wait_for_answers(100);
    }
    assert_eq!(scene.pair.nodes[1].field("/role"), "secondary");
    assert!(!scene.is_told(1), "the worker lives");

    let worker = scene.pair.nodes[0].worker();
    kill_process(worker, Signal::KILL).unwrap();
    let ended = load.join();
    assert!(ended.broken.is_some(), "the client of a dead worker saw no end");
    ended.record.check_errors("errors from a healthy pair");
    scene.record = Some(ended.record);
    scene.serves_all(1);
    assert!(!scene.is_told(1), "by a supervisor that does not run");

    // The other node serves clients while it hears of a run before its own.
    let load = scene.pair.load(1, scene.record.take().unwrap());
    load.wait_for_answers(300);
    scene.pair.nodes[0].daemon().signal(Signal::CONT);
    let news = scene.pair.news.clone();
    news.wait_for("the supervisor to tell of its worker", || {
        let lines = scene.pair.nodes[0].daemon().lines();
        lines.iter().any(|line| line.contains("the worker is dead; the peer is told")).then_some(())
    });
    load.wait_for_answers(300);
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    ended.record.check_errors("errors while the other node came back");
    scene.record = Some(ended.record);
    scene.is_whole_again();
    assert_eq!(scene.pair.nodes[1].field("/role"), "primary");
}
