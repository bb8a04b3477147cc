//! How a resource moves by itself: back to the node that it prefers, and not too often.

use std::time::Duration;

use hotpair::promotion::arbiter::Eligible;
use hotpair::promotion::controller::{FlapLimit, Moving};
use hotpair::replica::Command;
use hotpair::units::{ReplicationMode, Role, Side};

use super::failover::{is_whole_again, owner, serves, until_eligible};
use crate::plan::Plan;
use crate::script::{A, B, Script, promote};
use crate::witness::WitnessPlan;
use crate::world::World;

/// A pair in sync that the witness knows, A serving.
fn pair(moving: Moving) -> Script {
    let witness = WitnessPlan { moving, ..WitnessPlan::calm() };
    let calm = Plan::calm(ReplicationMode::Sync, 16 << 20);
    let mut script = Script::with_plan(Plan { witness: Some(witness), ..calm });
    until_eligible(&mut script, Eligible::Both);
    script.write(0, 8);
    script
}

fn moves_back(prefer: Side, seconds: u64) -> Moving {
    let failback = Some(Duration::from_secs(seconds));
    Moving { prefer: Some(prefer), failback, flap_limit: None }
}

fn limit(promotions: u8, seconds: u64) -> FlapLimit {
    FlapLimit { promotions, within: Duration::from_secs(seconds) }
}

fn epoch(script: &Script) -> u64 {
    script.world.witness_record().unwrap().epoch.0
}

fn promotions(script: &Script, at: usize) -> usize {
    script.status(at).promotion.unwrap().promotions
}

fn is_paused(script: &Script, at: usize) -> bool {
    script.status(at).promotion.unwrap().promotions_paused_min.is_some()
}

fn somebody_serves(world: &World) -> bool {
    world.nodes.iter().any(|node| node.process.as_ref().is_some_and(|it| it.export.is_some()))
}

/// The primary dies, the other one serves, and the first one comes back.
fn fail_over(script: &mut Script, from: usize) {
    script.kill(from);
    script.until_serving(1 - from);
    script.start(from);
    is_whole_again(script);
}

#[test]
fn a_resource_moves_back_once_nothing_has_happened_for_long() {
    let mut script = pair(moves_back(Side::First, 60));
    fail_over(&mut script, A);
    assert!(serves(&script, B));
    script.pass(50_000);
    assert!(serves(&script, B), "not before its time");
    let why = script.status(B).explain.why;
    assert!(why.contains("alpha is preferred, and becomes primary in"), "{why}");
    script.pass(15_000);
    assert!(serves(&script, A) && !serves(&script, B));
    assert_eq!(owner(&script), Side::First);
    is_whole_again(&mut script);
    let before = epoch(&script);
    script.pass(200_000);
    assert_eq!(epoch(&script), before, "it stays there");
}

#[test]
fn an_event_makes_it_wait_again() {
    let mut script = pair(moves_back(Side::First, 60));
    fail_over(&mut script, A);
    for _ in 0..4 {
        script.pass(40_000);
        script.cut();
        script.pass(1_500);
        script.mend();
        is_whole_again(&mut script);
        assert!(serves(&script, B), "a connection that is lost is an event");
    }
    script.pass(40_000);
    script.world.kill_witness();
    script.pass(30_000);
    assert!(serves(&script, B), "an arbiter that is away is one, too");
    script.world.heal_witness();
    script.pass(70_000);
    assert!(serves(&script, A));
}

#[test]
fn by_hand_it_only_says_where_it_would_rather_be() {
    let moving = Moving { prefer: Some(Side::Second), ..Moving::default() };
    let mut script = pair(moving);
    script.pass(700_000);
    assert!(serves(&script, A));
    let explain = script.status(A).explain;
    assert!(explain.why.contains("beta is preferred"), "{explain:?}");
    assert_eq!(explain.next, "hotpair switchover vm1");
    script.command(A, Command::Switchover).unwrap();
    is_whole_again(&mut script);
    let why = script.status(B).explain.why;
    assert!(!why.contains("preferred"), "{why}");
}

#[test]
fn nothing_moves_to_a_node_that_misses_the_witness() {
    let mut script = pair(moves_back(Side::Second, 60));
    script.pass(50_000);
    super::failover::cut_off_witness(&mut script, B);
    script.pass(300_000);
    assert_eq!(script.world.marks.count("failback"), 0);
    script.world.heal_witness();
    script.pass(70_000);
    assert!(serves(&script, B));
    is_whole_again(&mut script);
}

#[test]
fn a_move_back_that_fails_is_tried_again_after_as_long() {
    let mut script = pair(moves_back(Side::Second, 60));
    script.pass(50_000);
    script.until_exactly("it begins", |world| world.marks.count("failback") == 1);
    script.cut();
    script.until("it failed", |world| world.marks.count("failback failed") == 1);
    script.mend();
    is_whole_again(&mut script);
    assert!(serves(&script, A));
    script.pass(55_000);
    assert_eq!(script.world.marks.count("failback"), 1, "not at once again");
    script.pass(10_000);
    assert_eq!(script.world.marks.count("failback"), 2);
    script.until_serving(B);
    is_whole_again(&mut script);
}

#[test]
fn a_node_that_was_promoted_too_often_waits_for_an_operator() {
    let mut script = pair(Moving { flap_limit: Some(limit(2, 600)), ..Moving::default() });
    fail_over(&mut script, A);
    script.pass(2_000);
    assert_eq!([A, B].map(|at| promotions(&script, at)), [1, 1]);
    assert!(!is_paused(&script, A));
    // Whoever starts again has forgotten its own promotion, and hears of it.
    fail_over(&mut script, B);
    script.pass(5_000);
    assert_eq!([A, B].map(|at| promotions(&script, at)), [2, 2]);
    assert!(is_paused(&script, A) && is_paused(&script, B));
    let why = script.status(B).explain.why;
    assert!(why.contains("2 times without an operator within 10 min"), "{why}");
    assert!(!script.status(B).promotion.unwrap().takes_over);
    script.kill(A);
    script.pass(60_000);
    assert!(!serves(&script, B));
    let explain = script.status(B).explain;
    assert!(explain.why.contains("for another") && explain.why.contains("min"), "{explain:?}");
    assert_eq!(explain.next, "hotpair promote vm1");
    script.command(B, promote()).unwrap();
    script.until_serving(B);
    script.start(A);
    is_whole_again(&mut script);
    // An operator decided: what was before does not count on either node.
    script.pass(2_000);
    assert_eq!([A, B].map(|at| promotions(&script, at)), [0, 0]);
    fail_over(&mut script, B);
}

#[test]
fn the_pause_ends_by_itself_after_an_hour() {
    let mut script = pair(Moving { flap_limit: Some(limit(1, 60)), ..Moving::default() });
    fail_over(&mut script, A);
    script.pass(2_000);
    assert!(is_paused(&script, A) && is_paused(&script, B));
    script.pass(3_500_000);
    assert!(is_paused(&script, A));
    script.kill(B);
    script.pass(10_000);
    assert!(!somebody_serves(&script.world));
    script.pass(70_000);
    script.until("an hour has passed", somebody_serves);
    script.pass(20_000);
    script.until_serving(A);
    script.start(B);
    is_whole_again(&mut script);
}

#[test]
fn an_owner_that_comes_back_is_no_promotion() {
    let mut script = pair(Moving { flap_limit: Some(limit(1, 600)), ..Moving::default() });
    fail_over(&mut script, A);
    script.pass(2_000);
    // The limit is reached, and the owner resumes all the same.
    for _ in 0..3 {
        script.kill(B);
        script.pass(4_000);
        script.start(B);
        script.until_serving(B);
        is_whole_again(&mut script);
    }
    let serving = script.status(B).role;
    assert_eq!(serving, Role::Primary);
}

// 44.
#[test]
fn a_link_that_flaps_changes_the_role_seldom() {
    for seconds in [0, 60] {
        let prefer = Some(Side::First);
        let failback = (seconds > 0).then(|| Duration::from_secs(seconds));
        let mut script = pair(Moving { prefer, failback, flap_limit: Some(limit(2, 600)) });
        let mut roles = vec![A];
        for round in 0..600 {
            if round % 2 == 0 {
                script.cut();
                // Now and then the primary loses the witness as well, so that it is replaced.
                let serving = *roles.last().unwrap();
                if round % 10 == 0 {
                    super::failover::cut_off_witness(&mut script, serving);
                }
            } else {
                script.mend();
            }
            script.pass(1_000);
            if round % 10 == 6 {
                script.world.heal_witness();
            }
            if let Some(now) = [A, B].into_iter().find(|at| {
                script.world.nodes[*at].process.as_ref().is_some_and(|it| it.export.is_some())
            }) && roles.last() != Some(&now)
            {
                roles.push(now);
            }
        }
        script.mend();
        script.world.heal_witness();
        script.pass(20_000);
        assert!(roles.len() <= 4, "{roles:?}");
        is_whole_again(&mut script);
    }
}

#[test]
fn moves_back_never_use_up_the_limit() {
    let prefer = Some(Side::First);
    let failback = Some(Duration::from_mins(1));
    let mut script = pair(Moving { prefer, failback, flap_limit: Some(limit(2, 600)) });
    // The preferred node dies each time it is primary, and the other one always takes over.
    for _ in 0..3 {
        fail_over(&mut script, A);
        script.pass(5_000);
        assert!(!is_paused(&script, A) && !is_paused(&script, B));
        script.pass(500_000);
        assert!(serves(&script, B), "a failover still counts");
        script.pass(200_000);
        assert!(serves(&script, A));
        is_whole_again(&mut script);
    }
}
