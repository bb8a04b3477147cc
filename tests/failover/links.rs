//! Networks that lose, repeat and hold up what they carry, and links that come and go.

#![expect(clippy::print_stdout, reason = "tools/failover reads how far it got")]

use std::time::Duration;

use super::scene::{Scene, WAIT_MAX, first_seed, number};
use crate::real::lab::Lab;
use crate::real::pair::{Plan, RESOURCE};
use crate::real::process::{self, News};

/// The time in which nothing may happen: longer than a lease and its margin.
const WHILE: Duration = Duration::from_secs(4);

/// Half of the time between two flaps: once a second the link goes and comes back.
const HALF: Duration = Duration::from_millis(500);

fn scene(lab: &Lab, flap_limit: Option<&'static str>, seed: u64) -> Scene {
    let mut plan = Plan { has_witness: true, lab: Some(lab.clone()), ..Plan::default() };
    plan.flap_limit = flap_limit.unwrap_or(plan.flap_limit);
    Scene::with(plan, seed)
}

/// Lets this much time pass: it is part of what is tested.
fn pass(news: &News, time: Duration) {
    news.wait_within(time, || None::<()>);
}

impl Scene {
    /// Promotions without an operator that a node knows of.
    fn promotions(&self, at: usize) -> Option<u64> {
        self.pair.nodes[at].field("/promotion/promotions").as_u64()
    }

    /// The first node serves, and nobody was promoted, while the load goes on for some time.
    fn goes_on_while(&mut self, bad: impl FnOnce(), good: impl FnOnce()) {
        let load = self.pair.load(0, self.record.take().unwrap());
        load.wait_for_answers(300);
        bad();
        let until = process::now() + WHILE;
        while process::now() < until {
            load.wait_for_answers(20);
        }
        load.wait_for_answers(100);
        assert_eq!(self.pair.nodes[0].field("/role"), "primary");
        good();
        load.wait_for_answers(300);
        let ended = load.stop();
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        ended.record.check_errors("the client must not notice");
        self.record = Some(ended.record);
        self.serves_all(0);
        self.is_whole_again();
        assert_eq!([self.promotions(0), self.promotions(1)], [Some(0); 2], "promotions");
    }
}

/// Of 100 packets 30 are lost and 5 come twice, in each direction between each two hosts: heartbeats go
/// two ways, often, and that is enough. The link breaks now and then, which the witness hears of.
pub(crate) fn lossy() {
    let lab = Lab::new();
    let mut scene = scene(&lab, None, 45);
    scene.goes_on_while(
        || lab.lose_and_repeat(30, 5),
        || {
            for (what, count) in [("lost", lab.lost()), ("repeated", lab.repeated())] {
                assert!(count > 0, "{count} packets were {what}");
            }
            lab.heal();
        },
    );
}

/// A queue before each card that is full as long as there is a load: what is said comes half a second
/// late.
pub(crate) fn slow() {
    let lab = Lab::new();
    let mut scene = scene(&lab, None, 46);
    scene.goes_on_while(
        || (0..3).for_each(|host| lab.slow(host, "8mbit", "500ms")),
        || {
            assert!(lab.held_up(0) > 0, "the primary sends less than the queue lets pass");
            lab.heal();
        },
    );
}

/// Once a second a link goes and comes back, another one each time, or all of a host: nobody is away
/// for as long as it takes to be given up. `HOTPAIR_FLAP_SECONDS` says for how long, else 8.
pub(crate) fn flapping() {
    let lab = Lab::new();
    let mut scene = scene(&lab, None, 44);
    let news = scene.pair.news.clone();
    let mut rng = fastrand::Rng::with_seed(first_seed());
    let mut lost = 0;
    let load = scene.pair.load(0, scene.record.take().unwrap());
    for turn in 0..number("HOTPAIR_FLAP_SECONDS", 8) {
        load.wait_for_answers(20);
        // A link each, then all links of a host.
        let links: &[(usize, usize)] = match rng.u8(..6) {
            0 => &[(0, 1)],
            1 => &[(0, 2)],
            2 => &[(1, 2)],
            3 => &[(0, 1), (0, 2)],
            4 => &[(0, 1), (1, 2)],
            _ => &[(0, 2), (1, 2)],
        };
        for (one, two) in links {
            lab.cut(*one, *two);
            lab.cut(*two, *one);
        }
        pass(&news, HALF);
        lost += lab.lost();
        lab.heal();
        pass(&news, HALF);
        println!("flapping links: cycles={} failures=0", turn + 1);
    }
    assert!(lost > 0, "nobody said anything while a link was cut");
    load.wait_for_answers(300);
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    ended.record.check_errors("the client must not notice");
    ended.check_waits(WAIT_MAX);
    scene.record = Some(ended.record);
    scene.serves_all(0);
    scene.is_whole_again();
    assert_eq!([scene.promotions(0), scene.promotions(1)], [Some(0); 2], "promotions");
}

/// A primary that is cut off for longer than its lease, again and again: the role moves as often as the
/// limit allows, and not once more. Then the primary serves when it is back, and nobody else.
pub(crate) fn flap_limit() {
    let lab = Lab::new();
    let mut scene = scene(&lab, Some("2 in 10m"), 47);
    let isolate = |host: usize| {
        for other in (0..3).filter(|other| *other != host) {
            lab.cut(host, other);
            lab.cut(other, host);
        }
    };
    let news = scene.pair.news.clone();
    for moves in [1, 2] {
        let (old, new) = (scene.primary, 1 - scene.primary);
        let load = scene.pair.load(old, scene.record.take().unwrap());
        load.wait_for_answers(200);
        isolate(old);
        scene.pair.wait_serves(new);
        lab.heal();
        let ended = load.join();
        ended.record.check_errors("no answer, and no error either");
        scene.record = Some(ended.record);
        scene.serves_all(new);
        scene.pair.wait_in_sync();
        // The one that was not promoted is told by a heartbeat.
        news.wait_for("both nodes to count the promotion", || {
            let both = [scene.promotions(0), scene.promotions(1)];
            (both == [Some(moves); 2]).then_some(())
        });
    }
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(200);
    isolate(0);
    let other = &scene.pair.nodes[1];
    let moved =
        scene.pair.news.wait_within(WHILE, || (other.field("/role") == "primary").then_some(()));
    assert!(moved.is_none(), "promoted more often than the limit allows");
    let said = other.well(&["explain", RESOURCE]);
    assert!(said.contains("flap_limit"), "{said}");
    lab.heal();
    load.wait_for_answers(300);
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    ended.record.check_errors("no answer for a while, and no error");
    scene.record = Some(ended.record);
    scene.serves_all(0);
    scene.pair.wait_in_sync();
}
