//! What a pair does that misses its witness for long: the secondary pledges not to ask for promotion, and
//! the primary goes on whatever becomes of the secondary (6 and 7 of the design's list).

use std::time::Duration;

use hotpair::promotion::arbiter::Eligible;
use hotpair::replica::Command;
use hotpair::units::{ReplicationMode, Side};

use super::failover::{is_whole_again, owner, pair_of, serves, until_eligible};
use crate::script::{A, B, Script, promote};
use crate::witness::WitnessPlan;

const GRACE: Duration = Duration::from_secs(10);

fn pair() -> Script {
    pair_of(ReplicationMode::Sync, WitnessPlan { grace: Some(GRACE), ..WitnessPlan::calm() })
}

fn holds(script: &Script) -> [bool; 2] {
    [A, B].map(|at| script.world.nodes[at].superblock().hold)
}

/// The witness is gone, and the pledge is given.
fn pledged() -> Script {
    let mut script = pair();
    script.world.kill_witness();
    script.pass(9_000);
    assert_eq!(holds(&script), [false; 2], "the time of grace is not over");
    until_pledged(&mut script);
    script
}

fn until_pledged(script: &mut Script) {
    script.until("the pledge is given and relied upon", |world| {
        [A, B].iter().all(|at| world.nodes[*at].superblock().hold)
    });
}

fn until_free(script: &mut Script) {
    script.until("nobody is bound", |world| {
        [A, B].iter().all(|at| !world.nodes[*at].superblock().hold)
    });
}

#[test]
fn a_primary_whose_peer_pledged_goes_on_alone() {
    let mut script = pledged();
    script.kill(B);
    script.write(3, 5);
    assert_eq!(script.status(A).promotion.unwrap().permit, Some("pledged"));
    // Nothing ends it: neither a lease nor a restart.
    script.pass(20_000);
    script.write(3, 5);
    script.read(0, 8);
    script.kill(A);
    script.start(A);
    script.until_serving(A);
    script.write(1, 2);
    script.world.heal_witness();
    until_eligible(&mut script, Eligible::Owner);
    script.start(B);
    is_whole_again(&mut script);
    until_free(&mut script);
    assert_eq!(owner(&script), Side::First);
}

#[test]
fn who_pledged_is_promoted_by_an_operator_only() {
    let mut script = pledged();
    script.kill(A);
    script.pass(5_000);
    script.world.heal_witness();
    script.pass(20_000);
    assert!(!serves(&script, B), "A may have gone on alone");
    let refused = script.command(B, promote()).unwrap_err();
    assert!(refused.why.contains("pledged"), "{refused:?}");
    let force = |accept_data_loss| Command::Promote { force: true, accept_data_loss };
    let refused = script.command(B, force(false)).unwrap_err();
    assert!(refused.next.contains("--accept-data-loss"), "{refused:?}");
    script.command(B, force(true)).unwrap();
    script.until_serving(B);
    assert_eq!(holds(&script), [true, false], "what A relied upon is on its disk");
    script.write(3, 3);
    script.start(A);
    is_whole_again(&mut script);
    assert_eq!((holds(&script), owner(&script)), ([false; 2], Side::Second));
}

#[test]
fn the_pledge_is_void_when_the_witness_is_back() {
    let mut script = pledged();
    script.world.heal_witness();
    until_free(&mut script);
    script.write(3, 3);
    script.kill(A);
    script.until_serving(B);
    script.start(A);
    is_whole_again(&mut script);
}

#[test]
fn nobody_pledges_while_one_node_reaches_the_witness() {
    for node in [A, B] {
        let mut script = pair();
        script.world.cut_witness(node, 0);
        script.world.cut_witness(node, 1);
        script.pass(30_000);
        assert_eq!(holds(&script), [false; 2]);
        // Then it is missed by both.
        script.world.cut_witness(1 - node, 0);
        script.world.cut_witness(1 - node, 1);
        until_pledged(&mut script);
        // And by one of them no longer.
        script.world.heal_witness_for(1 - node);
        until_free(&mut script);
        script.pass(20_000);
        assert_eq!(holds(&script), [false; 2]);
        script.write(2, 2);
    }
}

#[test]
fn who_went_on_by_a_pledge_asks_for_it_anew_when_it_is_paired() {
    let mut script = pledged();
    script.kill(B);
    script.write(3, 5);
    script.start(B);
    script.until_in_sync();
    until_pledged(&mut script);
    script.kill(B);
    script.write(4, 5);
    script.start(B);
    script.until_in_sync();
    script.world.heal_witness();
    is_whole_again(&mut script);
    until_free(&mut script);
}

#[test]
fn a_pledge_that_is_void_permits_nothing() {
    loses_its_peer_when_the_pledge_is_void(WitnessPlan::calm());
}

/// The secondary reaches the witness again, and then the nodes lose each other.
pub(crate) fn loses_its_peer_when_the_pledge_is_void(witness: WitnessPlan) {
    let mut witness = witness;
    witness.grace = Some(GRACE);
    let mut script = pair_of(ReplicationMode::Sync, witness);
    for (node, way) in [(A, 0), (A, 1), (B, 0), (B, 1)] {
        script.world.cut_witness(node, way);
    }
    script.pass(20_000);
    script.world.heal_witness_for(B);
    script.pass(5_000);
    script.cut();
    let _held = script.begin_write(3, 3);
    script.pass(15_000);
    assert!(serves(&script, B), "B is bound by nothing, and A goes on by nothing");
}

#[test]
fn a_pledge_to_a_primary_that_cannot_serve_any_more_binds_nobody() {
    // Its disk fails while they are paired, and the witness comes back.
    let mut script = pledged();
    script.world.operator.broken_disk = Some(A);
    script.world.nodes[A].trouble.fail_next_io = true;
    script.begin_write(6, 2);
    script.pass(5_000);
    assert!(!serves(&script, B), "the witness is away");
    script.world.heal_witness();
    script.until_serving(B);
    assert_eq!(holds(&script), [false; 2]);
    script.write(2, 2);
}

#[test]
fn nodes_with_the_same_data_rely_on_nothing() {
    let mut script = pledged();
    // What failed is usable after a restart, and the one that was primary cannot resume by itself.
    script.world.nodes[A].trouble.fail_next_sync = true;
    script.begin_flush();
    script.pass(500);
    script.kill(A);
    script.start(A);
    script.pass(5_000);
    script.world.heal_witness();
    until_free(&mut script);
    script.until_in_sync();
    script.write(2, 2);
}

#[test]
fn who_was_alone_by_a_pledge_is_not_alone_without_it() {
    let mut script = pledged();
    script.kill(B);
    script.until("A is alone", |world| world.status(A).is_some_and(|status| status.solo));
    // Nothing was written since: when they meet again, both have the same.
    script.kill(A);
    script.start(B);
    script.start(A);
    script.until_in_sync();
    script.cut();
    script.world.heal_witness_for(B);
    let _held = script.begin_write(3, 3);
    script.pass(20_000);
}

#[test]
fn who_failed_while_it_was_alone_by_a_pledge_binds_nobody_for_ever() {
    let mut script = pledged();
    script.kill(B);
    script.write(3, 5);
    script.world.operator.broken_disk = Some(A);
    script.world.nodes[A].trouble.fail_next_sync = true;
    script.begin_flush();
    script.pass(500);
    script.kill(A);
    script.world.operator.broken_disk = None;
    script.start(B);
    script.start(A);
    script.pass(10_000);
    script.world.heal_witness();
    script.until("somebody serves", |world| {
        [A, B].iter().any(|at| world.status(*at).is_some_and(|status| status.serving))
    });
    until_free(&mut script);
}

#[test]
fn a_role_is_handed_over_after_the_pledge_is_lifted() {
    let mut script = pledged();
    script.world.heal_witness();
    // As soon as the primary relies on nothing, whatever the secondary still has to lift.
    script.until_exactly("A relies on nothing", |world| {
        world.nodes[A].core().is_some_and(|core| !core.superblock().hold)
    });
    script.command(A, Command::Switchover).unwrap();
    script.until_serving(B);
    assert!(!script.world.nodes[B].superblock().hold);
}
