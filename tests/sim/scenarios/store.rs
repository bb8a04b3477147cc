//! A witness that lost its store, was replaced, or came back with an older copy (49 of the design's list):
//! the nodes make a new record, one after the other, and nobody is promoted by the word of the old store.

use hotpair::promotion::arbiter::Eligible;
use hotpair::replica::Command;
use hotpair::units::{ArbiterId, ReplicationMode};

use super::failover::{connect_to_newest, is_whole_again, pair_of, serves, until_eligible};
use crate::script::{A, B, Script};
use crate::witness::WitnessPlan;

const OLD: ArbiterId = ArbiterId(77);
const NEW: ArbiterId = ArbiterId(78);

fn pair() -> Script {
    let mut script = pair_of(ReplicationMode::Sync, WitnessPlan::calm());
    until_eligible(&mut script, Eligible::Both);
    until_believed(&mut script, [OLD; 2]);
    script
}

fn believed(script: &Script) -> [ArbiterId; 2] {
    [A, B].map(|at| script.world.nodes[at].superblock().arbitration.arbiter)
}

fn until_believed(script: &mut Script, stores: [ArbiterId; 2]) {
    script.until("the nodes believe these stores", |world| {
        [A, B].map(|at| world.nodes[at].superblock().arbitration.arbiter) == stores
    });
}

/// Both nodes find another witness where the old one was.
fn replace(script: &mut Script) {
    script.world.replace_witness();
    for node in [A, B] {
        script.world.route_to_witness(node, true);
    }
}

/// The primary dies, and the other node is promoted by the witness that is there now.
fn fails_over(script: &mut Script) {
    let (dies, follows) = if serves(script, A) { (A, B) } else { (B, A) };
    script.kill(dies);
    script.until_serving(follows);
    connect_to_newest(script);
    script.write(2, 3);
    script.start(dies);
    is_whole_again(script);
    until_eligible(script, Eligible::Both);
}

#[test]
fn a_pair_in_sync_changes_to_a_witness_that_took_the_place_of_the_old_one() {
    let mut script = pair();
    let before = script.world.witness_record().unwrap().epoch;
    replace(&mut script);
    until_believed(&mut script, [NEW; 2]);
    until_eligible(&mut script, Eligible::Both);
    assert!(script.world.witness_record().unwrap().epoch > before);
    script.write(1, 4);
    fails_over(&mut script);
}

#[test]
fn a_store_that_only_one_node_finds_changes_nothing() {
    for node in [A, B] {
        let mut script = pair();
        script.world.replace_witness();
        script.world.route_to_witness(node, true);
        for _ in 0..20 {
            script.pass(1_000);
            script.write(1, 4);
        }
        assert_eq!((believed(&script), serves(&script, A)), ([OLD; 2], true));
        script.world.route_to_witness(node, false);
        script.pass(3_000);
        script.kill(A);
        script.until_serving(B);
    }
}

#[test]
fn a_primary_goes_on_alone_with_the_new_store_if_its_peer_has_changed_to_it() {
    let mut script = pair();
    replace(&mut script);
    script.until("the primary has changed", |world| {
        world.nodes[A].superblock().arbitration.arbiter == NEW
    });
    assert_eq!(script.world.witness_record(), None, "there is no record yet");
    script.kill(B);
    script.write(3, 5);
    script.pass(10_000);
    script.write(3, 5);
    assert_eq!(script.world.witness_record().unwrap().eligible, Eligible::Owner);
    script.start(B);
    is_whole_again(&mut script);
    until_eligible(&mut script, Eligible::Both);
    fails_over(&mut script);
}

#[test]
fn whoever_has_changed_is_not_promoted_by_the_old_store() {
    let mut script = pair();
    replace(&mut script);
    script.until("the secondary has changed", |world| {
        world.nodes[B].superblock().arbitration.arbiter == NEW
    });
    // The old store would let it.
    script.world.route_to_witness(B, false);
    script.kill(A);
    script.pass(30_000);
    assert!(!serves(&script, B) && believed(&script) == [OLD, NEW]);
    script.world.route_to_witness(B, true);
    script.start(A);
    is_whole_again(&mut script);
    until_believed(&mut script, [NEW; 2]);
    until_eligible(&mut script, Eligible::Both);
}

#[test]
fn whatever_dies_at_whichever_moment_of_the_change_the_pair_comes_back() {
    const WITNESS: usize = 2;
    for victim in [A, B, WITNESS] {
        for moment in 0..40 {
            let mut script = pair();
            replace(&mut script);
            script.pass(moment * 50);
            if victim == WITNESS {
                script.world.kill_witness();
                script.pass(2_000);
                script.world.heal_witness();
            } else {
                script.kill(victim);
                script.pass(2_000);
                script.start(victim);
            }
            is_whole_again(&mut script);
            until_believed(&mut script, [NEW; 2]);
            until_eligible(&mut script, Eligible::Both);
            fails_over(&mut script);
        }
    }
}

#[test]
fn an_older_copy_of_the_store_counts_for_nothing_until_both_have_made_a_new_record() {
    let mut script = pair();
    let old = script.world.witness_record().unwrap().clone();
    script.command(A, Command::Switchover).unwrap();
    script.until_serving(B);
    connect_to_newest(&mut script);
    script.write(2, 3);
    let newest = script.world.witness_record().unwrap().epoch;
    script.world.kill_witness();
    script.world.roll_witness_back(old);
    script.world.heal_witness();
    script.until("a new record is made", |world| {
        world.witness_record().is_some_and(|record| record.epoch > newest)
    });
    assert!(serves(&script, B));
    assert_eq!(believed(&script), [OLD; 2]);
    fails_over(&mut script);
}

#[test]
fn a_pair_that_comes_back_to_an_old_witness_makes_a_new_record_there() {
    let mut script = pair();
    let at_first = script.world.witness_record().unwrap().epoch;
    replace(&mut script);
    until_believed(&mut script, [NEW; 2]);
    until_eligible(&mut script, Eligible::Both);
    let newest = script.world.witness_record().unwrap().epoch;
    for node in [A, B] {
        script.world.route_to_witness(node, false);
    }
    until_believed(&mut script, [OLD; 2]);
    script.until("its record is newer than any before", |world| {
        world.witness_record_of(A).is_some_and(|it| it.epoch > newest && it.epoch > at_first)
    });
    script.kill(A);
    script.until_serving(B);
}
