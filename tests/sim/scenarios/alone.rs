//! A pair without an arbiter that promotes by itself: by a fence command, or by silence.
//!
//! The numbers in the comments are those of the design's list of scenarios.

use std::time::Duration;

use hotpair::promotion::controller::FenceUse;
use hotpair::replica::Command;
use hotpair::units::{ReplicationMode, Role, ServeMode, Side};

use super::failover::{connect_to_newest, serves};
use crate::alone::{AlonePlan, FencePlan};
use crate::plan::Plan;
use crate::script::{A, B, Script, promote};
use crate::services::ServicesPlan;
use crate::witness::WitnessPlan;
use crate::world::World;

/// A pair in sync, A serving, that promotes like this.
fn pair(alone: AlonePlan) -> Script {
    let plan = Plan { alone: Some(alone), ..Plan::calm(ReplicationMode::Sync, 16 << 20) };
    let mut script = Script::with_plan(plan);
    script.write(0, 8);
    script
}

fn fenced(fence: [FencePlan; 2]) -> Script {
    pair(AlonePlan { fence, ..AlonePlan::fenced() })
}

fn count(script: &Script, mark: &str) -> bool {
    let list = script.world.marks.list();
    list.split(", ").any(|word| word.starts_with(&format!("{mark} ")))
}

fn milliseconds(script: &Script, since: u64) -> u64 {
    (script.world.now - since) / 1_000_000
}

/// Both are in sync again, one serves, and nothing was lost.
fn is_whole_again(script: &mut Script) {
    script.until_in_sync();
    script.until("one node serves", |world| {
        let serving = world
            .nodes
            .iter()
            .filter(|node| node.process.as_ref().is_some_and(|process| process.export.is_some()));
        serving.count() == 1
    });
    script.check_copies();
}

// 40, `fenced`: the primary is lost.
#[test]
fn a_dead_primary_is_fenced_and_replaced() {
    for is_power in [false, true] {
        let mut script = fenced([FencePlan::Works; 2]);
        let before = script.world.now;
        if is_power {
            script.lose_power(A);
        } else {
            script.kill(A);
        }
        script.until_serving(B);
        // Silence for 1 s, 5 s of delay, and the command.
        let took = milliseconds(&script, before);
        assert!((6_000..12_000).contains(&took), "{took} ms");
        script.read(0, 8);
        script.write(4, 8);
        script.start(A);
        is_whole_again(&mut script);
        assert!(serves(&script, B));
    }
}

// 40, `fenced`: the secondary is lost.
#[test]
fn a_dead_secondary_is_fenced_before_the_primary_goes_on() {
    let mut script = fenced([FencePlan::Works; 2]);
    script.kill(B);
    let before = script.world.now;
    let write = script.begin_write(2, 4);
    script.until("the write is answered", |world| world.clients.is_settled(write));
    let took = milliseconds(&script, before);
    assert!((900..7_000).contains(&took), "{took} ms");
    assert_eq!(script.status(A).promotion.unwrap().permit, Some("fenced"));
    script.start(B);
    is_whole_again(&mut script);
    assert!(serves(&script, A));
}

// 40, `fenced`: the nodes miss each other. The primary fences first.
#[test]
fn of_two_nodes_that_miss_each_other_the_primary_fences_first() {
    let mut script = fenced([FencePlan::Works; 2]);
    let life = script.world.nodes[B].life;
    script.cut();
    script.write(4, 4);
    assert!(script.world.nodes[B].process.is_none() || script.world.nodes[B].life > life);
    script.pass(30_000);
    assert!(serves(&script, A) && !serves(&script, B));
    script.mend();
    is_whole_again(&mut script);
}

// 40, `fenced`: the primary cannot fence, and the secondary can.
#[test]
fn a_primary_that_cannot_fence_gives_way_to_a_secondary_that_can() {
    let mut script = fenced([FencePlan::Unreachable, FencePlan::Works]);
    script.write(0, 4);
    script.cut();
    script.begin_write(4, 4);
    script.until("B serves", |world| {
        world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
    });
    assert!(!serves(&script, A));
    script.pass(30_000);
    script.mend();
    is_whole_again(&mut script);
    assert!(serves(&script, B));
}

// 51, exit code 5, for ever: nobody goes on, and the pair is whole when the nodes meet again.
#[test]
fn what_cannot_be_reached_is_not_off() {
    let mut script = fenced([FencePlan::Unreachable; 2]);
    script.cut();
    let write = script.begin_write(4, 4);
    script.pass(300_000);
    assert!(!script.world.clients.is_settled(write), "exit code 5 permits nothing");
    assert!(!serves(&script, B));
    let status = script.status(A);
    assert_eq!((status.state, status.role), ("frozen", Role::Primary));
    assert!(status.explain.why.contains("exit code 5"), "{:?}", status.explain);
    let status = script.status(B);
    assert_eq!(status.role, Role::Secondary);
    assert!(status.explain.why.contains("exit code 5"), "{:?}", status.explain);
    assert!(!count(&script, "fenced"));
    script.mend();
    script.until("the held write is answered", |world| world.clients.is_settled(write));
    is_whole_again(&mut script);
    assert!(serves(&script, A));
}

#[test]
fn a_fence_race_has_at_most_one_winner() {
    let slow = FencePlan::WorksAfter(Duration::from_secs(12));
    for fence in [[slow, FencePlan::Works], [FencePlan::Works, slow], [slow, slow]] {
        let mut script = fenced(fence);
        script.cut();
        script.begin_write(4, 4);
        script.until("one of them goes on", |world| {
            let serves =
                |at: usize| world.nodes[at].process.as_ref().is_some_and(|it| it.export.is_some());
            serves(B) || world.nodes[A].superblock().serve_mode == ServeMode::Solo
        });
        script.pass(60_000);
        assert!(!(serves(&script, A) && serves(&script, B)));
        script.mend();
        is_whole_again(&mut script);
    }
}

/// Both devices fail, and nobody may go on. Also for the planted bugs.
pub(crate) fn cannot_fence(plan: &AlonePlan) {
    let mut script = pair(AlonePlan { fence: [FencePlan::Unreachable; 2], ..plan.clone() });
    script.cut();
    script.begin_write(4, 4);
    script.pass(60_000);
    let is_solo = script.world.nodes[A].superblock().serve_mode == ServeMode::Solo;
    assert!(!is_solo && !serves(&script, B), "nothing was confirmed");
}

#[test]
fn without_a_confirmation_nobody_goes_on() {
    cannot_fence(&AlonePlan::fenced());
}

// 39 and G12: a node that has just started neither fences nor promotes itself.
#[test]
fn a_node_that_starts_alone_waits_for_the_other_or_an_operator() {
    for plan in [AlonePlan::fenced(), AlonePlan::heartbeat_only()] {
        for first in [A, B] {
            let mut script = pair(plan.clone());
            script.kill(A);
            script.kill(B);
            script.start(first);
            script.pass(120_000);
            assert!(!serves(&script, first) && !count(&script, "fenced"));
            let status = script.status(first);
            assert_eq!(status.role, Role::Secondary);
            script.start(1 - first);
            script.until_serving(A);
            is_whole_again(&mut script);
        }
    }
}

#[test]
fn a_connection_that_breaks_while_heartbeats_go_on_fences_nobody() {
    for plan in [AlonePlan::fenced(), AlonePlan::heartbeat_only()] {
        let mut script = pair(plan);
        for turn in 0..20 {
            script.world.net.reset_any(script.world.now);
            script.write(turn, 2);
            script.pass(700);
        }
        assert!(!count(&script, "fenced") && serves(&script, A));
        is_whole_again(&mut script);
    }
}

#[test]
fn a_secondary_that_leaves_as_planned_is_not_fenced() {
    for plan in [AlonePlan::fenced(), AlonePlan::heartbeat_only()] {
        let mut script = pair(plan);
        script.command(B, Command::Disconnect).unwrap();
        script.write(4, 4);
        script.pass(60_000);
        assert!(!count(&script, "fenced") && !count(&script, "assumed dead"));
        assert!(!serves(&script, B));
        script.command(B, Command::Connect).unwrap();
        is_whole_again(&mut script);
    }
}

#[test]
fn a_demoted_pair_stays_demoted_whatever_is_lost() {
    for plan in [AlonePlan::fenced(), AlonePlan::heartbeat_only()] {
        let mut script = pair(plan);
        script.command(A, Command::Demote).unwrap();
        script.pass(1_000);
        script.until("both say so", World::is_in_sync);
        script.kill(A);
        script.pass(60_000);
        assert!(!serves(&script, B) && !count(&script, "fenced"));
        script.start(A);
        script.until("both are there", World::is_in_sync);
        script.pass(1_000);
        script.command(B, promote()).unwrap();
        script.until_serving(B);
        is_whole_again(&mut script);
    }
}

// 41, 40: planned changes work as in every pair, and the new primary is replaced, too.
#[test]
fn after_a_switchover_the_other_node_is_replaced() {
    for plan in [AlonePlan::fenced(), AlonePlan::heartbeat_only()] {
        let mut script = pair(plan);
        script.command(A, Command::Switchover).unwrap();
        script.until_serving(B);
        script.write(3, 3);
        script.until_in_sync();
        script.kill(B);
        script.until_serving(A);
        script.read(0, 8);
        script.start(B);
        is_whole_again(&mut script);
    }
}

// 40, `heartbeat-only`: a node is really dead.
#[test]
fn a_silent_primary_is_replaced_without_a_fence_command() {
    let mut script = pair(AlonePlan::heartbeat_only());
    let before = script.world.now;
    script.kill(A);
    script.until_serving(B);
    let took = milliseconds(&script, before);
    assert!((3_900..6_000).contains(&took), "{took} ms");
    assert!(!script.world.ghost.is_split, "A was dead: nothing is excused");
    script.read(0, 8);
    script.start(A);
    is_whole_again(&mut script);
    let before = script.world.now;
    script.kill(A);
    script.write(2, 4);
    let took = milliseconds(&script, before);
    assert!((900..3_000).contains(&took), "{took} ms");
    assert_eq!(script.status(B).promotion.unwrap().permit, Some("assumed-dead"));
    assert!(!script.world.ghost.is_split, "A was dead: nothing is excused");
    script.start(A);
    is_whole_again(&mut script);
}

// 40, `heartbeat-only`: the nodes miss each other, and both serve. At first contact one stops, and
// nothing is merged.
#[test]
fn two_primaries_by_silence_are_a_split_brain_that_is_settled_by_hand() {
    let mut script = pair(AlonePlan::heartbeat_only());
    script.cut();
    script.write(4, 4);
    script.until("B serves, too", |world| {
        world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
    });
    assert!(script.world.ghost.is_split && serves(&script, A));
    script.world.disconnect_client(0);
    connect_to_newest(&mut script);
    script.write(6, 4);
    script.world.disconnect_client(0);
    script.until("a client on the other one", |world| world.clients.node_of(0).is_some());
    let epochs = [A, B].map(|at| script.world.nodes[at].superblock().epoch);
    assert_ne!(epochs[A], epochs[B], "no epoch has two makers");
    let higher = if epochs[A] > epochs[B] { A } else { B };
    script.mend();
    script.until("one stops", |world| {
        let lower = &world.nodes[1 - higher];
        lower.process.as_ref().is_some_and(|process| process.export.is_none())
    });
    script.pass(20_000);
    assert!(serves(&script, higher) && !serves(&script, 1 - higher));
    for at in [A, B] {
        let status = script.status(at);
        assert!(status.split_brain.is_some(), "{status:#?}");
    }
    let keep = if higher == A { Side::First } else { Side::Second };
    script.command(higher, Command::Resolve { keep }).unwrap();
    script.until_in_sync();
    assert!(serves(&script, higher));
}

fn with_witness(fence: FenceUse, device: FencePlan, services: Option<ServicesPlan>) -> Script {
    let witness = WitnessPlan { fence: Some((fence, device)), ..WitnessPlan::calm() };
    let plan =
        Plan { witness: Some(witness), services, ..Plan::calm(ReplicationMode::Sync, 16 << 20) };
    let mut script = Script::with_plan(plan);
    super::failover::until_eligible(&mut script, hotpair::promotion::arbiter::Eligible::Both);
    script.write(0, 8);
    script
}

// T24, O7: only the winner fences, and serves when the command has confirmed.
#[test]
fn with_an_arbiter_the_winner_fences_before_it_serves() {
    let mut script = with_witness(FenceUse::Required, FencePlan::Works, None);
    let life = script.world.nodes[A].life;
    script.cut();
    script.write(4, 4);
    script.pass(30_000);
    assert!(serves(&script, A), "the arbiter let the primary go on");
    assert!(!count(&script, "fenced") && script.world.nodes[B].life == 1);
    script.mend();
    super::failover::is_whole_again(&mut script);
    // Only the link and the primary's way to the arbiter: the arbiter lets B have it.
    script.world.cut_witness(A, 0);
    script.world.cut_witness(A, 1);
    script.cut();
    script.until("B serves", |world| {
        world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
    });
    assert!(count(&script, "fenced") && script.world.nodes[A].life > life || !serves(&script, A));
    script.mend();
    script.world.heal_witness();
    super::failover::is_whole_again(&mut script);
}

// T24: without a confirmation nobody serves, until the old primary says itself that it does not.
#[test]
fn with_an_arbiter_nobody_serves_before_the_command_confirms() {
    let mut script = with_witness(FenceUse::Required, FencePlan::Unreachable, None);
    script.kill(A);
    script.pass(120_000);
    assert!(!serves(&script, B));
    let explain = script.status(B).explain;
    assert!(explain.why.contains("exit code 5"), "{explain:?}");
    script.start(A);
    script.until_serving(B);
    super::failover::is_whole_again(&mut script);
    assert!(!count(&script, "fenced"));
}

// `auto = "arbiter"`: a success takes the place of the time to stop, and a failure costs nothing.
#[test]
fn with_an_arbiter_a_fence_command_can_make_it_faster() {
    let stop_within = Duration::from_secs(20);
    let services = || Some(ServicesPlan { stop_within, failures: 0, is_slow: false });
    let mut took = Vec::new();
    for device in [FencePlan::Works, FencePlan::Unreachable] {
        let mut script = with_witness(FenceUse::BestEffort, device, services());
        let before = script.world.now;
        script.kill(A);
        script.until_serving(B);
        took.push(milliseconds(&script, before));
        script.start(A);
        super::failover::is_whole_again(&mut script);
    }
    assert!(took[0] < 12_000 && took[1] > 20_000, "{took:?}");
}

#[test]
fn a_primary_that_is_told_to_stop_hands_over_and_is_not_fenced() {
    let mut script = fenced([FencePlan::Works; 2]);
    let write = script.begin_write(3, 5);
    script.world.nodes[A].is_held_down = true;
    let life = script.world.nodes[A].life;
    script.world.command(A, Command::Stop).unwrap_or_else(|broken| panic!("{broken}"));
    script.until_serving(B);
    assert!(script.world.clients.is_settled(write), "what was asked before is answered");
    script.until("A has stopped", |world| world.nodes[A].life != life);
    script.write(4, 8);
    script.pass(20_000);
    assert!(!count(&script, "fenced"), "it said that it leaves");
    script.start(A);
    is_whole_again(&mut script);
    assert!(serves(&script, B));
}
