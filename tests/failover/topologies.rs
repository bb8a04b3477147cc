//! The six directions in which three hosts talk, each cut or not.

#![expect(clippy::print_stdout, reason = "tools/failover reads these lines")]

use std::time::Duration;

use super::rivals::{Rivals, Seen};
use super::scene::{Scene, cycles};
use crate::real::lab::Lab;
use crate::real::pair::Plan;

/// The directions, as (from, to): bit N of a topology says that the Nth one is cut.
const DIRECTIONS: [(usize, usize); 6] = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];

/// Short timers, so that many topologies pass in a bounded time: those of a fast network.
const FAST: &str = "lease = \"1s\"\n[heartbeat]\ninterval = \"50ms\"\nsuspect_after = \"300ms\"";

/// Time for the three to find out who serves: a lease and its margin, twice, and what a loaded
/// machine adds.
const SETTLED: Duration = Duration::from_secs(5);

/// From a pair in sync or a primary alone, on either node: where two of the three hear each other
/// somebody serves, elsewhere at most one does, and never two.
pub(crate) fn each() {
    let lab = Lab::new();
    let plan = Plan {
        has_witness: true,
        promotion_lines: FAST,
        lab: Some(lab.clone()),
        ..Plan::default()
    };
    let mut scene = Scene::with(plan, 21);
    let seen = Seen::new(scene.pair.plan.size);
    let mut rng = fastrand::Rng::new();
    // 64 topologies from each of 4 states. Fewer than all of them are drawn.
    let count = cycles(6);
    for turn in 0..count {
        let which = if count >= 256 { turn % 256 } else { rng.u64(..256) };
        let topology = u8::try_from(which % 64).unwrap();
        let is_alone = which / 64 % 2 == 1;
        println!(
            "topology {topology:06b} from {} {}",
            scene.primary,
            if is_alone { "alone" } else { "in sync" }
        );
        one(&mut scene, &seen, topology, is_alone);
        println!("topologies: cycles={} failures=0", turn + 1);
        // The next one starts from the other node every time.
        if turn % 2 == 1 {
            let old = scene.primary;
            scene.pair.nodes[old].well(&["switchover", crate::real::pair::RESOURCE]);
            scene.serves_all(1 - old);
            scene.is_whole_again();
        }
    }
}

fn one(scene: &mut Scene, seen: &Seen, topology: u8, is_alone: bool) {
    let lab = scene.pair.plan.lab.clone().expect("hosts");
    let (primary, other) = (scene.primary, 1 - scene.primary);
    if is_alone {
        scene.pair.nodes[other].kill();
    }
    let load = scene.pair.load(primary, scene.record.take().unwrap());
    load.wait_for_answers(200);
    let rivals = Rivals::start(&scene.pair, seen);
    rivals.wait_for_answer(primary);
    for (bit, (from, to)) in DIRECTIONS.into_iter().enumerate() {
        if topology >> bit & 1 == 1 {
            lab.cut(from, to);
        }
    }
    if is_alone {
        // It was away, so it has no say before it was resynced.
        scene.pair.nodes[other].run();
    }
    let is_whole = |one: usize, two: usize| {
        DIRECTIONS.into_iter().enumerate().all(|(bit, (from, to))| {
            let joins = (from, to) == (one, two) || (from, to) == (two, one);
            !joins || topology >> bit & 1 == 0
        })
    };
    let has_majority = is_whole(0, 1) || is_whole(0, 2) || is_whole(1, 2);
    let news = scene.pair.news.clone();
    let nodes = &scene.pair.nodes;
    let serves = |at: usize| {
        nodes[at].status().is_some_and(|status| {
            status["serving"] == true
                && status["promotion"]["state"] != "withheld"
                && status["promotion"]["state"] != "frozen"
        })
    };
    // Whoever serves now may stop to: what counts is where it settles.
    let never = news.wait_within(SETTLED, || None::<()>);
    assert_eq!(never, None);
    if has_majority || is_alone {
        news.wait_for("somebody to serve", || (serves(0) || serves(1)).then_some(()));
    }
    let serving = [serves(0), serves(1)];
    assert_ne!(serving, [true, true], "two primaries");
    if !has_majority && !is_alone {
        assert_eq!(serving, [false, false], "served without a word of anybody else");
    }
    let now = if serving[other] { other } else { primary };
    lab.heal();
    let ended = if now == primary && (has_majority || is_alone) {
        load.wait_for_answers(100);
        load.stop()
    } else if now == other {
        load.join()
    } else {
        // Nobody served; the owner goes on once the others are back, or was replaced meanwhile.
        news.wait_for("somebody to serve again", || (serves(0) || serves(1)).then_some(()));
        if serves(other) { load.join() } else { load.stop() }
    };
    rivals.stop();
    ended.record.check_errors("no answer rather than an error");
    scene.record = Some(ended.record);
    let now = usize::from(serves(1));
    scene.serves_all(now);
    scene.is_whole_again();
    seen.check(&mut scene.pair.nodes[now].connect());
}
