//! Automatic failover with an arbiter: who serves when one of the three is lost or cut off.
//!
//! The numbers in the comments are those of the design's list of scenarios.

use hotpair::promotion::arbiter::Eligible;
use hotpair::replica::{Command, LinkStatus};
use hotpair::units::{DiskState, ReplicationMode, Role, ServeMode, Side, VetoReason};

use crate::plan::Plan;
use crate::script::{A, B, Script, force, promote};
use crate::witness::WitnessPlan;
use crate::world::World;

/// A pair in sync that the witness knows, A serving, both eligible.
pub(super) fn pair() -> Script {
    pair_of(ReplicationMode::Sync, WitnessPlan::calm())
}

pub(super) fn pair_of(mode: ReplicationMode, witness: WitnessPlan) -> Script {
    let mut script =
        Script::with_plan(Plan { witness: Some(witness), ..Plan::calm(mode, 16 << 20) });
    until_eligible(&mut script, Eligible::Both);
    script.write(0, 8);
    script
}

pub(super) fn until_eligible(script: &mut Script, eligible: Eligible) {
    script.until("the witness says who is eligible", |world| {
        world.witness_record().is_some_and(|record| record.eligible == eligible)
    });
}

pub(super) fn owner(script: &Script) -> Side {
    script.world.witness_record().unwrap().owner
}

/// Whether the node has clients.
pub(super) fn serves(script: &Script, at: usize) -> bool {
    script.world.nodes[at].process.as_ref().is_some_and(|process| process.export.is_some())
}

/// The service's address is where the newest export is, so the client gets there.
pub(super) fn connect_to_newest(script: &mut Script) {
    let epoch_of = |script: &Script, at: usize| {
        script.world.nodes[at].process.as_ref().and_then(|process| process.export)
    };
    let newest = if epoch_of(script, A) > epoch_of(script, B) { A } else { B };
    while epoch_of(script, newest).is_some() && script.world.clients.node_of(0) != Some(newest) {
        script.world.disconnect_client(0);
        script.pass(200);
    }
}

/// The dead or cut off node is back: both are in sync again and nothing was lost.
pub(super) fn is_whole_again(script: &mut Script) {
    script.until_in_sync();
    until_eligible(script, Eligible::Both);
    script.check_copies();
}

// 2 and 3.
#[test]
fn a_dead_primary_is_replaced_when_its_lease_is_over() {
    for is_power in [false, true] {
        let mut script = pair();
        let before = script.world.now;
        if is_power {
            script.lose_power(A);
        } else {
            script.kill(A);
        }
        script.until_serving(B);
        // The lease is 3 s and the grant lasts 3.08 s; it was renewed within 0.5 s.
        let took = (script.world.now - before) / 1_000_000;
        assert!((2_400..4_000).contains(&took), "{took} ms");
        script.read(0, 8);
        script.write(4, 8);
        assert_eq!(owner(&script), Side::Second);
        script.start(A);
        is_whole_again(&mut script);
        assert!(serves(&script, B));
    }
}

// 4.
#[test]
fn a_dead_secondary_stops_writes_no_longer_than_it_takes_to_suspect_it() {
    let mut script = pair();
    script.kill(B);
    let before = script.world.now;
    script.write(2, 4);
    let took = (script.world.now - before) / 1_000_000;
    assert!(took < 1_300, "{took} ms");
    until_eligible(&mut script, Eligible::Owner);
    script.start(B);
    is_whole_again(&mut script);
}

// 5.
#[test]
fn a_dead_witness_changes_nothing() {
    let mut script = pair();
    script.world.kill_witness();
    script.pass(20_000);
    script.write(3, 5);
    script.read(0, 8);
    assert!(serves(&script, A));
}

// 6, without a pledge: nobody may go on alone, and nobody does.
#[test]
fn without_the_witness_a_lost_secondary_stops_writes_and_then_reads() {
    let mut script = pair();
    script.world.kill_witness();
    script.kill(B);
    script.pass(10_000);
    let write = script.begin_write(3, 5);
    let read = script.begin_read(0, 2);
    script.pass(20_000);
    assert!(!script.world.clients.is_settled(write), "nobody permitted it");
    assert!(!script.world.clients.is_settled(read), "no lease holds");
    script.world.heal_witness();
    script.until("both are answered", |world| {
        world.clients.is_settled(write) && world.clients.is_settled(read)
    });
    script.start(B);
    is_whole_again(&mut script);
}

// 8.
#[test]
fn a_primary_that_dies_while_the_witness_is_away_is_replaced_when_it_is_back() {
    let mut script = pair();
    script.world.kill_witness();
    script.kill(A);
    script.pass(20_000);
    assert!(!serves(&script, B), "it cannot know whether A went on alone");
    script.world.heal_witness();
    script.until_serving(B);
    script.start(A);
    is_whole_again(&mut script);
}

// 9.
#[test]
fn of_two_nodes_that_miss_each_other_the_primary_goes_on() {
    let mut script = pair();
    script.cut();
    script.write(4, 4);
    script.pass(20_000);
    assert!(serves(&script, A) && !serves(&script, B));
    assert_eq!(owner(&script), Side::First);
    script.mend();
    is_whole_again(&mut script);
}

// 10 and 11.
#[test]
fn one_node_that_misses_the_witness_changes_nothing() {
    for node in [A, B] {
        let mut script = pair();
        script.world.cut_witness(node, 0);
        script.world.cut_witness(node, 1);
        script.pass(20_000);
        script.write(5, 5);
        script.read(0, 8);
        assert!(serves(&script, A));
        assert_eq!(script.world.witness_record().unwrap().eligible, Eligible::Both);
    }
}

// 12.
#[test]
fn an_isolated_primary_answers_nothing_and_is_replaced() {
    let mut script = pair();
    let before = script.world.witness_record().unwrap().epoch;
    script.cut();
    script.world.cut_witness(A, 0);
    script.world.cut_witness(A, 1);
    let write = script.begin_write(6, 2);
    script.until("B owns the resource", |world| {
        world.witness_record().is_some_and(|record| record.epoch > before)
    });
    script.until("B serves", |world| {
        world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
    });
    assert!(!script.world.clients.is_settled(write), "it may be answered by nobody");
    script.mend();
    script.world.heal_witness();
    script.until("A follows", |world| {
        world.status(A).is_some_and(|status| status.role == Role::Secondary)
    });
    is_whole_again(&mut script);
}

// 13.
#[test]
fn an_isolated_secondary_costs_nothing_but_redundancy() {
    let mut script = pair();
    script.cut();
    script.world.cut_witness(B, 0);
    script.world.cut_witness(B, 1);
    script.write(6, 2);
    assert!(serves(&script, A));
    script.mend();
    script.world.heal_witness();
    is_whole_again(&mut script);
}

// 14.
#[test]
fn with_all_three_apart_nobody_acknowledges() {
    let mut script = pair();
    script.cut();
    for node in [A, B] {
        script.world.cut_witness(node, 0);
        script.world.cut_witness(node, 1);
    }
    let write = script.begin_write(6, 2);
    script.pass(30_000);
    assert!(!script.world.clients.is_settled(write));
    assert!(!serves(&script, B));
    script.mend();
    script.world.heal_witness();
    script.until("it is answered", |world| world.clients.is_settled(write));
    is_whole_again(&mut script);
}

// 15 and 17.
#[test]
fn a_primary_that_goes_on_alone_needs_nobody() {
    let mut script = pair();
    script.cut();
    script.write(6, 2);
    script.world.cut_witness(A, 0);
    script.world.cut_witness(A, 1);
    script.pass(30_000);
    script.write(7, 2);
    script.read(7, 2);
    assert!(serves(&script, A) && !serves(&script, B));
    script.mend();
    script.world.heal_witness();
    is_whole_again(&mut script);
}

// 16, and every other directed topology of three: which of the six directions are cut.
#[test]
fn each_of_the_64_topologies_serves_where_it_must_and_never_twice() {
    for topology in 0..64u8 {
        let cuts = |bit: u8| topology >> bit & 1 == 1;
        let mut script = pair();
        for from in [A, B] {
            let bit = u8::try_from(from).unwrap();
            if cuts(bit) {
                script.world.net.cut(from);
            }
            for way in 0..2 {
                if cuts(2 + 2 * bit + u8::try_from(way).unwrap()) {
                    script.world.cut_witness(from, way);
                }
            }
        }
        let link = !cuts(0) && !cuts(1);
        let [a_to_w, b_to_w] = [!cuts(2) && !cuts(3), !cuts(4) && !cuts(5)];
        script.pass(15_000);
        let text = format!("topology {topology:06b}, link {link}, witness {a_to_w} {b_to_w}");
        let answers = |script: &mut Script| {
            let write = script.begin_write(1, 2);
            let end = script.world.now + 5_000_000_000;
            while script.world.now < end && !script.world.clients.is_settled(write) {
                script.pass(50);
            }
            script.world.clients.is_settled(write)
        };
        connect_to_newest(&mut script);
        let is_connected = script.world.clients.node_of(0).is_some();
        if link || a_to_w || b_to_w {
            assert!(is_connected && answers(&mut script), "{text}: nobody serves");
        } else {
            assert!(!is_connected || !answers(&mut script), "{text}: somebody serves");
        }
        script.mend();
        script.world.heal_witness();
        is_whole_again(&mut script);
    }
}

// 21 and 22.
#[test]
fn a_paused_primary_is_replaced_only_if_it_sleeps_longer_than_its_lease() {
    for (seconds, is_replaced) in [(2, false), (10, true)] {
        let mut script = pair();
        script.pause(A, seconds * 1_000);
        script.pass(seconds * 1_000 + 5_000);
        let expected = if is_replaced { Side::Second } else { Side::First };
        assert_eq!(owner(&script), expected, "after {seconds} s");
        script.write(3, 3);
        is_whole_again(&mut script);
    }
}

// 24.
#[test]
fn a_paused_secondary_is_left_behind_and_comes_back() {
    let mut script = pair();
    script.pause(B, 10_000);
    script.write(3, 3);
    script.pass(12_000);
    is_whole_again(&mut script);
    assert_eq!(owner(&script), Side::First);
}

// 31, with a disk that fails.
#[test]
fn the_peer_of_a_primary_whose_disk_failed_is_promoted() {
    let mut script = pair();
    script.world.operator.broken_disk = Some(A);
    script.world.nodes[A].trouble.fail_next_io = true;
    let _lost = script.begin_write(6, 2);
    script.until("B serves", |world| {
        world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
    });
    assert_eq!(owner(&script), Side::Second);
    script.until_serving(B);
    script.write(7, 2);
}

#[test]
fn a_node_promises_nothing_while_its_promotion_may_still_be_granted() {
    for stops in [false, true] {
        let mut script = pair();
        script.cut();
        for way in 0..2 {
            script.world.cut_witness(A, way);
        }
        let asked = |world: &World| world.nodes[B].superblock().arbitration.asked.is_some();
        script.until_exactly("B has promised", asked);
        script.world.cut_witness(B, 0);
        script.mend();
        script.until("B follows A again", |world| {
            world.status(B).is_some_and(|status| status.disk == DiskState::UpToDate)
                && world.is_in_sync()
        });
        assert!(asked(&script.world), "nothing has settled it");
        let command = if stops { Command::Stop } else { Command::Disconnect };
        script.world.command(B, command).unwrap_or_else(|broken| panic!("{broken}"));
        script.pass(300);
        assert_eq!(script.world.nodes[B].superblock().veto, None);
        if !stops {
            script.world.heal_witness();
            script.command(B, Command::Connect).unwrap();
        }
        script.world.heal_witness();
        script.pass(5_000);
        is_whole_again(&mut script);
    }
}

/// It owns the resource and does not know what it has; the other one has everything, and is not listed.
#[test]
fn an_owner_that_lost_power_before_it_served_is_filled_by_its_peer() {
    for is_granted_late in [false, true] {
        let mut script = pair();
        script.write(1, 4);
        script.cut();
        for way in 0..2 {
            script.world.cut_witness(A, way);
        }
        if is_granted_late {
            script.until_exactly("B has promised", |world| {
                world.nodes[B].superblock().arbitration.asked.is_some()
            });
            script.world.cut_witness(B, 1);
        }
        script.until_exactly("the arbiter has promoted B", |world| {
            world.witness_record().is_some_and(|record| record.owner == Side::Second)
        });
        script.lose_power(B);
        script.mend();
        script.world.heal_witness();
        script.pass(5_000);
        assert!(!serves(&script, A), "B may have served");
        script.start(B);
        is_whole_again(&mut script);
    }
}

#[test]
fn a_daemon_stops_although_the_arbiter_is_away_in_a_handover() {
    let mut script = pair();
    script.world.kill_witness();
    let life = script.world.nodes[A].life;
    script.world.command(A, Command::Switchover).unwrap_or_else(|broken| panic!("{broken}"));
    script.pass(2_000);
    script.world.command(A, Command::Stop).unwrap_or_else(|broken| panic!("{broken}"));
    script.until("A has stopped", |world| world.nodes[A].life != life);
    script.world.heal_witness();
    is_whole_again(&mut script);
}

// 23.
#[test]
fn a_read_that_ends_after_the_lease_is_not_answered() {
    reads_across_a_pause(WitnessPlan::calm());
}

/// The primary sleeps in the middle of a read until the other one serves.
pub(crate) fn reads_across_a_pause(witness: WitnessPlan) {
    let mut script = pair_of(ReplicationMode::Sync, witness);
    let _unanswered = script.begin_read(0, 2);
    script.pause(A, 10_000);
    script.pass(9_000);
    assert!(serves(&script, B));
    // Every answer is checked against who serves.
    script.pass(6_000);
}

#[test]
fn nobody_is_promoted_while_a_lease_of_its_own_may_hold() {
    promotes_before_its_grant_is_over(WitnessPlan::calm());
}

/// The witness has not heard the primary for long, but this node granted it a lease a moment ago.
pub(crate) fn promotes_before_its_grant_is_over(witness: WitnessPlan) {
    let mut script = pair_of(ReplicationMode::Sync, witness);
    cut_off_witness(&mut script, A);
    script.pass(6_000);
    script.cut();
    script.pass(1_500);
    assert!(script.command(B, promote()).is_err(), "A may read by its lease");
}

#[test]
fn a_restart_forgets_no_lease() {
    promotes_after_a_restart(WitnessPlan::calm());
}

/// As before, but this node was started again since.
pub(crate) fn promotes_after_a_restart(witness: WitnessPlan) {
    let mut script = pair_of(ReplicationMode::Sync, witness);
    cut_off_witness(&mut script, A);
    script.pass(6_000);
    script.kill(B);
    script.cut();
    script.start(B);
    script.pass(1_000);
    assert!(script.command(B, promote()).is_err(), "A may read by its lease");
}

#[test]
fn an_answer_that_was_lost_permits_nothing() {
    loses_the_answer_to_pair(WitnessPlan::calm());
}

/// The peer was made eligible again, the answer is lost, and then the peer.
pub(crate) fn loses_the_answer_to_pair(witness: WitnessPlan) {
    let mut script = pair_of(ReplicationMode::Sync, witness);
    script.cut();
    script.write(4, 4);
    script.mend();
    script.until_exactly("B is eligible", |world| {
        world.witness_record().is_some_and(|record| record.eligible == Eligible::Both)
    });
    script.world.cut_witness(A, 1);
    script.world.cut_witness(A, 0);
    script.cut();
    let write = script.begin_write(4, 1);
    script.pass(20_000);
    assert!(!script.world.clients.is_settled(write));
    assert_eq!(owner(&script), Side::Second);
}

/// A has given up its role on its disk, and asks the arbiter.
fn begin_handing_over(script: &mut Script) {
    script.world.command(A, Command::Switchover).unwrap_or_else(|broken| panic!("{broken}"));
    script.until("the role leaves", |world| {
        world.nodes[A].superblock().serve_mode == ServeMode::HandingOver
    });
}

pub(super) fn cut_off_witness(script: &mut Script, node: usize) {
    script.world.cut_witness(node, 0);
    script.world.cut_witness(node, 1);
}

// 37 and 38.
#[test]
fn the_one_that_comes_back_alone_serves_only_if_it_has_everything() {
    for was_alone in [false, true] {
        let mut script = pair();
        if was_alone {
            script.kill(B);
            script.write(5, 2);
            script.kill(A);
        } else {
            script.kill(A);
            script.kill(B);
        }
        script.start(B);
        script.pass(30_000);
        assert_eq!(serves(&script, B), !was_alone);
        script.start(A);
        script.until("somebody serves", |world| {
            world
                .nodes
                .iter()
                .any(|node| node.process.as_ref().is_some_and(|process| process.export.is_some()))
        });
        is_whole_again(&mut script);
    }
}

// 41.
#[test]
fn a_switchover_goes_through_the_arbiter() {
    let mut script = pair();
    for round in 0..6 {
        let (from, to, side) =
            if round % 2 == 0 { (A, B, Side::Second) } else { (B, A, Side::First) };
        script.command(from, Command::Switchover).unwrap();
        script.until_serving(to);
        assert_eq!(owner(&script), side);
        script.write(round, 3);
        is_whole_again(&mut script);
    }
}

#[test]
fn a_demoted_resource_waits_for_an_operator() {
    let mut script = pair();
    script.command(A, Command::Demote).unwrap();
    script.kill(A);
    script.pass(30_000);
    assert!(!serves(&script, B), "an operator stopped it");
    script.command(B, promote()).unwrap();
    script.until_serving(B);
    script.start(A);
    is_whole_again(&mut script);
}

#[test]
fn a_demoted_primary_that_died_before_it_knew_does_not_resume_with_its_peer() {
    let mut script = pair();
    script.world.command(A, Command::Demote).unwrap_or_else(|broken| panic!("{broken}"));
    script.until_exactly("the witness has stopped it", |world| {
        world.witness_record().is_some_and(|record| record.stopped)
    });
    script.kill(A);
    assert!(!script.world.nodes[A].superblock().stopped, "it has not heard the answer");
    script.start(A);
    script.until("the nodes meet", World::is_in_sync);
    script.pass(5_000);
    assert!(!serves(&script, A) && !serves(&script, B), "an operator stopped it");
    script.command(A, promote()).unwrap();
    script.until_serving(A);
    is_whole_again(&mut script);
}

#[test]
fn while_the_arbiter_is_away_no_planned_change_of_role_begins() {
    let mut script = pair();
    script.world.kill_witness();
    script.pass(3_000);
    let before = script.world.now;
    for (at, command) in [(A, Command::Demote), (A, Command::Switchover), (B, Command::Switchover)]
    {
        let refused = script.command(at, command).unwrap_err();
        assert!(refused.why.contains("arbiter"), "{refused:?}");
        assert_eq!(script.world.clients.node_of(0), Some(A), "clients are not disturbed");
    }
    assert!((script.world.now - before) / 1_000_000 < 100);
    script.write(3, 3);
    script.world.heal_witness();
    script.pass(3_000);
    script.command(A, Command::Switchover).unwrap();
    script.until_serving(B);
    is_whole_again(&mut script);
}

// The request is lost, or only its answer.
#[test]
fn a_demotion_that_the_arbiter_does_not_answer_is_taken_back() {
    for is_granted in [false, true] {
        let mut script = pair();
        script.world.cut_witness(A, 1);
        if !is_granted {
            script.world.cut_witness(A, 0);
        }
        let before = script.world.now;
        let refused = script.command(A, Command::Demote).unwrap_err();
        assert!(refused.why.contains("arbiter"), "{refused:?}");
        assert!((script.world.now - before) / 1_000_000 < 9_500, "three leases");
        assert_eq!(script.world.witness_record().unwrap().stopped, is_granted);
        script.until_serving(A);
        script.write(3, 3);
        script.world.heal_witness();
        script.until("it is not stopped", |world| !world.witness_record().unwrap().stopped);
        script.read(0, 8);
        is_whole_again(&mut script);
        script.kill(A);
        script.until_serving(B);
        script.start(A);
        is_whole_again(&mut script);
    }
}

// It wakes when the time to ask is over, and its lease as well: it must not serve by that before it notices.
#[test]
fn a_demotion_that_sleeps_past_its_lease_is_not_taken_back_by_that() {
    let mut script = pair();
    script.world.cut_witness(A, 0);
    script.world.cut_witness(A, 1);
    script.world.command(A, Command::Demote).unwrap_or_else(|broken| panic!("{broken}"));
    script.pass(50);
    script.pause(A, 20_000);
    script.until_serving(B);
    script.pass(25_000);
    script.world.heal_witness();
    script.write(3, 3);
    is_whole_again(&mut script);
    assert_eq!(owner(&script), Side::Second);
}

// The same after a restart, which forgets that anything was asked.
#[test]
fn a_primary_that_serves_is_not_left_stopped_at_the_arbiter() {
    let mut script = pair();
    script.world.command(A, Command::Demote).unwrap_or_else(|broken| panic!("{broken}"));
    script.until_exactly("the witness has stopped it", |world| {
        world.witness_record().is_some_and(|record| record.stopped)
    });
    script.kill(A);
    cut_off_witness(&mut script, A);
    script.start(A);
    script.until_serving(A);
    script.world.heal_witness();
    script.until("it is not stopped", |world| !world.witness_record().unwrap().stopped);
    is_whole_again(&mut script);
}

#[test]
fn a_handover_that_cannot_be_taken_back_yet_says_so_and_goes_on_with_the_arbiter() {
    let mut script = pair();
    begin_handing_over(&mut script);
    script.world.kill_witness();
    script.pass(15_000);
    let status = script.status(A);
    assert_eq!(status.state, "handover");
    assert!(status.explain.why.contains("arbiter"), "{:?}", status.explain);
    assert!(!serves(&script, A) && !serves(&script, B), "nobody knows who owns the resource");
    script.world.heal_witness();
    script.until_serving(A);
    script.write(3, 3);
    is_whole_again(&mut script);
}

#[test]
fn the_peer_that_took_over_is_answer_enough_for_the_old_owner() {
    let mut script = pair();
    let typed = script.world.command(A, Command::Switchover);
    script.until_exactly("B owns the resource", |world| {
        world.witness_record().is_some_and(|record| record.owner == Side::Second)
    });
    cut_off_witness(&mut script, A);
    script.until_serving(B);
    script.until("A follows", |world| {
        world.status(A).is_some_and(|status| status.state == "following")
    });
    let answer = script.world.operator.take_answer(typed.unwrap_or_else(|it| panic!("{it}")));
    assert!(matches!(answer, Some(Ok(_))), "{answer:?}");
    script.command(A, Command::Disconnect).unwrap();
}

/// A was started again since the image of its superblock that is returned, and has gone on alone.
fn after_an_image(script: &mut Script) -> crate::disk::File {
    let image = script.world.nodes[A].files.superblock.clone();
    script.kill(A);
    script.start(A);
    script.until_serving(A);
    script.cut();
    script.write(4, 4);
    until_eligible(script, Eligible::Owner);
    image
}

// 28.
#[test]
fn a_primary_whose_record_is_an_old_image_does_not_serve_and_is_filled_by_its_peer() {
    let mut script = pair();
    let image = after_an_image(&mut script);
    script.mend();
    is_whole_again(&mut script);
    assert_eq!(owner(&script), Side::First);
    script.kill(A);
    script.world.nodes[A].files.superblock = image;
    script.start(A);
    script.until("somebody serves", |world| {
        world.nodes.iter().any(|it| it.process.as_ref().is_some_and(|it| it.export.is_some()))
    });
    assert!(serves(&script, B), "A does not know what it acknowledged");
    is_whole_again(&mut script);
    script.command(B, Command::Switchover).unwrap();
    script.until_serving(A);
    is_whole_again(&mut script);
}

#[test]
fn an_old_image_of_the_one_that_was_alone_is_served_by_nobody() {
    let mut script = pair();
    let image = after_an_image(&mut script);
    script.kill(A);
    script.kill(B);
    script.world.nodes[A].files.superblock = image;
    script.mend();
    script.start(A);
    script.start(B);
    script.pass(30_000);
    assert!(!serves(&script, A) && !serves(&script, B));
    for at in [A, B] {
        script.command(at, promote()).unwrap_err();
    }
    let veto = script.world.nodes[A].superblock().veto;
    assert_eq!(veto.map(|veto| veto.reason), Some(VetoReason::RecordLost));
    let refused = script.command(A, force()).unwrap_err();
    assert!(refused.next.contains("--accept-data-loss"), "{refused:?}");
    assert_eq!(refused, script.status(A).explain);
}

#[test]
fn a_secondary_that_left_on_purpose_does_not_stop_the_primary() {
    let mut script = pair();
    script.command(B, Command::Disconnect).unwrap();
    let before = script.world.now;
    script.write(2, 2);
    assert!((script.world.now - before) / 1_000_000 < 500);
    until_eligible(&mut script, Eligible::Owner);
    script.command(B, Command::Connect).unwrap();
    script.until("connected", |world| {
        world.status(B).is_some_and(|status| status.link == LinkStatus::Connected)
    });
    is_whole_again(&mut script);
}

#[test]
fn nothing_is_handed_to_a_node_that_does_not_hear_the_arbiter() {
    let mut script = pair();
    cut_off_witness(&mut script, B);
    script.pass(5_000);
    let refused = script.command(A, Command::Switchover).unwrap_err();
    assert!(refused.why.contains("does not hear the arbiter"), "{refused:?}");
    assert!(serves(&script, A));
    script.write(1, 2);
    script.world.heal_witness();
    script.pass(3_000);
    script.command(A, Command::Switchover).unwrap();
    script.until_serving(B);
}

/// The owner that the arbiter names does not hear it, and the old one does not serve: whoever hears
/// both takes the resource back.
#[test]
fn a_handover_that_the_new_owner_does_not_hear_of_is_taken_back() {
    let mut script = pair();
    begin_handing_over(&mut script);
    cut_off_witness(&mut script, B);
    script.pass(30_000);
    assert!(serves(&script, A) || serves(&script, B), "nobody serves, though A hears both");
    script.mend();
    script.world.heal_witness();
    is_whole_again(&mut script);
}
