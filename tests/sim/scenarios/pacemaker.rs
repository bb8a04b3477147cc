//! A pair under Pacemaker: what its agent asks for, what its fence script answers, and a cluster that
//! fences one node before it promotes the other.
//!
//! The numbers in the comments are those of the design's list of scenarios.

use hotpair::replica::{AgentCommand, Answer, Command, Refused};
use hotpair::units::{ReplicationMode, Role, ServeMode, Side};

use super::failover::serves;
use crate::alone::{AlonePlan, FencePlan};
use crate::plan::Plan;
use crate::script::{A, B, Script, force, promote};

/// A pair in sync, A serving, whose scripts answer like this. The cluster does nothing by itself.
fn pair(fence: [FencePlan; 2]) -> Script {
    let alone = AlonePlan { fence, ..AlonePlan::pacemaker() };
    let plan = Plan { alone: Some(alone), ..Plan::calm(ReplicationMode::Sync, 16 << 20) };
    let mut script = Script::with_plan(plan);
    script.world.cluster.shares_cable = false;
    script.write(0, 8);
    script
}

fn by_agent(script: &mut Script, at: usize, asked: AgentCommand) -> Result<Answer, Refused> {
    script.command(at, Command::Agent(asked))
}

const PROMOTE: AgentCommand = AgentCommand::Promote { force: false, accept_data_loss: false };

fn count(script: &Script, mark: &str) -> u64 {
    script.world.marks.count(mark)
}

/// Both are in sync again with nothing that keeps one of them from being promoted.
fn is_whole_again(script: &mut Script, serving: usize) {
    script.until_in_sync();
    script.until("the constraint is lifted", |world| world.cluster.only.is_none());
    assert!(serves(script, serving) && !serves(script, 1 - serving));
    script.check_copies();
}

// 51: exit codes 4 and 7.
#[test]
fn a_primary_that_loses_its_peer_goes_on_once_that_cannot_be_promoted() {
    let mut script = pair([FencePlan::Works; 2]);
    for is_member in [true, false, false, false, false] {
        assert_eq!(script.world.cluster.only, None);
        if is_member {
            script.cut();
        } else {
            script.kill(B);
        }
        script.write(4, 4);
        assert!(matches!(script.world.cluster.only, Some((A, _))), "before the first answer");
        assert_eq!(script.status(A).promotion.unwrap().permit, Some("fenced"));
        script.mend();
        if !is_member {
            script.start(B);
        }
        is_whole_again(&mut script, A);
    }
    let codes = ["fence script: 4", "fence script: 7"].map(|mark| count(&script, mark));
    assert!(codes[0] > 0 && codes[1] > 0, "{codes:?}");
}

// 51: exit code 5 keeps it frozen for as long as it comes.
#[test]
fn a_peer_that_may_serve_keeps_the_primary_frozen() {
    let mut script = pair([FencePlan::Unreachable; 2]);
    script.cut();
    let write = script.begin_write(4, 4);
    script.pass(200_000);
    assert!(!script.world.clients.is_settled(write));
    let status = script.status(A);
    assert_eq!((status.state, status.role), ("frozen", Role::Primary));
    assert!(status.explain.why.contains("the fence command ended with"), "{:?}", status.explain);
    assert!(status.explain.next.contains("pcs "), "{:?}", status.explain);
    assert!(!serves(&script, B) && script.world.cluster.only.is_none());
    script.mend();
    script.until("the held write is answered", |world| world.clients.is_settled(write));
}

// 51: exit code 6: the other node has what is missing here.
#[test]
fn of_two_nodes_the_one_that_the_constraint_names_goes_on() {
    let mut script = pair([FencePlan::Works; 2]);
    script.cut();
    script.write(4, 4);
    script.kill(A);
    script.pass(3_000);
    let refused = by_agent(&mut script, B, PROMOTE).unwrap_err();
    assert!(
        refused.why.contains("exit code 6"),
        "a cluster that forgot its constraint: {refused:?}"
    );
    assert!(!serves(&script, B));
    script.start(A);
    script.pass(1_000);
    assert_eq!(script.status(A).role, Role::Secondary, "no node promotes itself");
    script.mend();
    script.until("both know each other", |world| {
        world.status(A).is_some_and(|status| status.peer.is_some())
    });
    script.until_in_sync();
    by_agent(&mut script, A, PROMOTE).unwrap();
    script.until_serving(A);
    script.read(4, 4);
    is_whole_again(&mut script, A);
}

#[test]
fn a_node_is_promoted_by_the_agent_after_its_peer_was_fenced() {
    for is_power in [false, true] {
        let mut script = pair([FencePlan::Works; 2]);
        if is_power {
            script.lose_power(A);
        } else {
            script.kill(A);
        }
        script.pass(20_000);
        assert!(!serves(&script, B), "no node promotes itself");
        let epoch = script.world.nodes[B].superblock().epoch;
        by_agent(&mut script, B, PROMOTE).unwrap();
        script.until_serving(B);
        let record = script.world.nodes[B].superblock();
        assert!(record.epoch > epoch && record.serve_mode == ServeMode::Solo);
        assert!(matches!(script.world.cluster.only, Some((B, _))));
        assert_eq!(script.status(B).promotion.unwrap().permit, Some("pacemaker"));
        script.read(0, 8);
        script.write(4, 8);
        script.start(A);
        is_whole_again(&mut script, B);
    }
}

// A switchover of Pacemaker.
#[test]
fn a_node_is_demoted_here_and_the_other_one_promoted_there() {
    let mut script = pair([FencePlan::Works; 2]);
    for (from, to) in [(A, B), (B, A)] {
        by_agent(&mut script, from, AgentCommand::Demote).unwrap();
        script.pass(5_000);
        assert!(!serves(&script, A) && !serves(&script, B));
        let explain = script.status(to).explain;
        assert!(explain.next.contains("pcs status"), "{explain:?}");
        let epoch = script.world.nodes[from].superblock().epoch;
        by_agent(&mut script, to, PROMOTE).unwrap();
        assert!(script.world.nodes[to].superblock().epoch > epoch);
        script.until_serving(to);
        script.read(0, 8);
        script.write(3, 3);
        is_whole_again(&mut script, to);
    }
    // With the other one stopped in between, too.
    by_agent(&mut script, A, AgentCommand::Demote).unwrap();
    script.pass(1_000);
    script.kill(A);
    script.pass(2_000);
    by_agent(&mut script, B, PROMOTE).unwrap();
    script.until_serving(B);
    script.write(6, 3);
    script.start(A);
    is_whole_again(&mut script, B);
}

#[test]
fn what_is_typed_by_hand_is_refused_and_names_pcs() {
    let mut script = pair([FencePlan::Works; 2]);
    for (at, command) in [
        (A, Command::Demote),
        (A, Command::Switchover),
        (B, Command::Switchover),
        (B, promote()),
        (B, force()),
    ] {
        let refused = script.command(at, command.clone()).unwrap_err();
        assert!(refused.next.starts_with("pcs "), "{command:?}: {refused:?}");
    }
    assert!(serves(&script, A));
    let refused = by_agent(&mut script, B, PROMOTE).unwrap_err();
    assert!(refused.why.contains("primary") && refused.next.starts_with("pcs "), "{refused:?}");
}

#[test]
fn a_node_that_may_lack_something_is_not_promoted() {
    // It left, and the primary went on.
    let mut script = pair([FencePlan::Works; 2]);
    script.command(B, Command::Disconnect).unwrap();
    script.write(4, 4);
    let vetoed = script.status(B).promotion.unwrap();
    assert_eq!((vetoed.veto, vetoed.takes_over), (Some("left"), false));
    script.kill(A);
    assert!(by_agent(&mut script, B, PROMOTE).is_err());
    // It lost power together with the primary, which does not come back.
    let mut script = pair([FencePlan::Works; 2]);
    script.begin_write(4, 64);
    script.pass(1);
    script.lose_power(A);
    script.lose_power(B);
    script.start(A);
    script.pass(3_000);
    let status = script.status(A);
    assert!(status.promotion.unwrap().doubtful, "{status:#?}");
    let refused = by_agent(&mut script, A, PROMOTE).unwrap_err();
    assert!(refused.why.contains("lost power"), "{refused:?}");
    // The script does not know what became of the peer.
    let mut script = pair([FencePlan::Unreachable; 2]);
    script.kill(A);
    script.pass(3_000);
    let refused = by_agent(&mut script, B, PROMOTE).unwrap_err();
    assert!(refused.why.contains("fence command"), "{refused:?}");
    assert!(!serves(&script, B));
}

#[test]
fn a_primary_that_comes_back_waits_for_the_agent() {
    let mut script = pair([FencePlan::Works; 2]);
    script.kill(A);
    script.start(A);
    script.until_in_sync();
    script.pass(20_000);
    assert!(!serves(&script, A) && !serves(&script, B));
    assert!(!script.status(A).promotion.unwrap().stopped);
    by_agent(&mut script, B, PROMOTE).unwrap();
    script.until_serving(B);
    script.read(0, 8);
    is_whole_again(&mut script, B);
}

// `stop` without `demote` before: what was asked is answered, and nobody takes over.
#[test]
fn a_primary_that_is_told_to_stop_hands_nothing_over() {
    let mut script = pair([FencePlan::Works; 2]);
    let write = script.begin_write(3, 5);
    script.world.nodes[A].is_held_down = true;
    let life = script.world.nodes[A].life;
    script.world.command(A, Command::Stop).unwrap_or_else(|broken| panic!("{broken}"));
    script.until("A has stopped", |world| world.nodes[A].life != life);
    assert!(script.world.clients.is_settled(write), "what was asked before is answered");
    script.pass(20_000);
    assert!(!serves(&script, B) && script.world.cluster.only.is_none());
    by_agent(&mut script, B, PROMOTE).unwrap();
    script.until_serving(B);
    script.start(A);
    is_whole_again(&mut script, B);
}

#[test]
fn a_constraint_that_cannot_be_lifted_is_told() {
    let mut script = pair([FencePlan::Works; 2]);
    script.cut();
    script.write(4, 4);
    // From here on nothing of the cluster works.
    script.world.plan.alone.as_mut().unwrap().fence = [FencePlan::Unreachable; 2];
    script.mend();
    script.until_in_sync();
    script.until("it is told", |world| {
        world.status(A).is_some_and(|status| status.explain.next.contains("pcs constraint delete"))
    });
    assert!(serves(&script, A));
    script.world.plan.alone.as_mut().unwrap().fence = [FencePlan::Works; 2];
    is_whole_again(&mut script, A);
    assert_eq!(script.world.cluster.only, None);
}

/// A promotion was refused since the nodes met again while the script ran. Nothing was written on either
/// node, so neither is kept from being promoted.
#[test]
fn a_refused_promotion_keeps_nobody_from_being_promoted() {
    let slow = FencePlan::WorksAfter(std::time::Duration::from_secs(3));
    let mut script = pair([slow; 2]);
    by_agent(&mut script, A, AgentCommand::Demote).unwrap();
    script.cut();
    script.pass(2_000);
    let typed = script.world.command(B, Command::Agent(PROMOTE)).unwrap();
    script.pass(500);
    script.mend();
    script.pass(10_000);
    let refused = script.world.operator.take_answer(typed).unwrap().unwrap_err();
    assert!(refused.why.contains("meet"), "{refused:?}");
    assert_eq!(script.world.cluster.only, None);
    script.kill(B);
    script.pass(5_000);
    by_agent(&mut script, A, PROMOTE).unwrap();
    script.until_serving(A);
}

/// The primary is demoted while its script runs: it wrote nothing alone.
#[test]
fn a_demotion_while_the_script_runs_keeps_nobody_from_being_promoted() {
    let slow = FencePlan::WorksAfter(std::time::Duration::from_secs(3));
    let mut script = pair([slow; 2]);
    script.cut();
    script.pass(2_500);
    by_agent(&mut script, A, AgentCommand::Demote).unwrap();
    script.pass(10_000);
    assert_eq!(script.world.cluster.only, None);
    script.kill(A);
    script.pass(5_000);
    by_agent(&mut script, B, PROMOTE).unwrap();
    script.until_serving(B);
}

/// The secondary was off when the constraint was placed, so the cluster's configuration on its disk does
/// not have it. Then the primary, which went on alone, is lost, and the other node starts with a quorum of
/// its own, as a quorum device gives it. It followed nobody in this run, and lacks what was acknowledged.
#[test]
fn a_node_that_was_off_when_the_constraint_was_placed_is_not_promoted() {
    for is_power in [true, false] {
        let mut script = pair([FencePlan::Works; 2]);
        // Nothing was in motion for a while.
        script.pass(600_000);
        if is_power {
            script.lose_power(B);
        } else {
            script.kill(B);
        }
        script.write(4, 4);
        assert!(matches!(script.world.cluster.only, Some((A, _))));
        script.lose_power(A);
        script.start(B);
        assert_eq!(script.world.cluster.only, None, "its configuration is older");
        script.pass(5_000);
        let answer = by_agent(&mut script, B, PROMOTE);
        let refused = answer.expect_err("it lacks what was acknowledged");
        assert!(
            refused.why.contains("without it") && refused.next.contains("--force"),
            "power lost: {is_power}: {refused:?}"
        );
        assert!(!script.status(B).promotion.unwrap().takes_over);
        // The one that has everything is promoted, also without the other.
        script.kill(B);
        script.start(A);
        script.pass(5_000);
        by_agent(&mut script, A, PROMOTE).unwrap();
        script.until_serving(A);
        script.read(4, 4);
        script.start(B);
        is_whole_again(&mut script, A);
    }
}

/// What is given up is the primary's: it would stop serving without Pacemaker's word.
#[test]
fn a_split_brain_is_not_settled_against_the_primary_by_hand() {
    let mut script = pair([FencePlan::Works; 2]);
    script.part_ways();
    script.kill(A);
    let forced = AgentCommand::Promote { force: true, accept_data_loss: true };
    by_agent(&mut script, B, forced).unwrap();
    script.until_serving(B);
    script.write(16, 8);
    script.mend();
    script.start(A);
    script.until("the split brain is found", |world| {
        (0..2).all(|at| world.status(at).is_some_and(|status| status.split_brain.is_some()))
    });
    let primary = [A, B].into_iter().find(|at| script.status(*at).role == Role::Primary).unwrap();
    let keep = if primary == A { Side::Second } else { Side::First };
    for at in [A, B] {
        let refused = script.command(at, Command::Resolve { keep }).unwrap_err();
        assert!(refused.next.starts_with("pcs resource ban "), "{refused:?}");
    }
    assert_eq!(script.status(primary).role, Role::Primary);
    let keep = if primary == A { Side::First } else { Side::Second };
    script.command(A, Command::Resolve { keep }).unwrap();
    script.until_in_sync();
    assert!(serves(&script, primary));
}
