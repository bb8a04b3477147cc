//! A witness that lost its store, was replaced, or came back with an older copy (49 of the design's list):
//! the nodes make a new record, one after the other, and nobody is promoted by the word of the old store.

use hotpair::promotion::arbiter::Eligible;
use hotpair::promotion::controller::Moving;
use hotpair::replica::Command;
use hotpair::units::{ArbiterId, ReplicationMode, ServeMode, Side};

use super::failover::{
    connect_to_newest, cut_off_witness, is_whole_again, pair_of, serves, until_eligible,
};
use crate::script::{A, B, Script, force};
use crate::witness::WitnessPlan;
use crate::world::World;

const OLD: ArbiterId = ArbiterId(77);
const NEW: ArbiterId = ArbiterId(78);

fn pair() -> Script {
    pair_that_prefers(None)
}

fn pair_that_prefers(prefer: Option<Side>) -> Script {
    let moving = Moving { prefer, ..Moving::default() };
    let mut script = pair_of(ReplicationMode::Sync, WitnessPlan { moving, ..WitnessPlan::calm() });
    until_eligible(&mut script, Eligible::Both);
    until_believed(&mut script, [OLD; 2]);
    script
}

fn believe(world: &World, stores: [ArbiterId; 2]) -> bool {
    [A, B].iter().all(|at| world.nodes[*at].superblock().arbitration.arbiter.is_of(stores[*at]))
}

fn until_believed(script: &mut Script, stores: [ArbiterId; 2]) {
    script.until_exactly("the nodes believe these stores", |world| believe(world, stores));
}

/// Both nodes find another witness where the old one was.
fn replace(script: &mut Script) {
    script.world.replace_witness();
    for node in [A, B] {
        script.world.lead_to_store(node, 1);
    }
}

/// The primary dies, and the other node is promoted by the witness that is there now.
fn fails_over(script: &mut Script) {
    fails_over_at(script, script.world.newest_store());
}

/// The same by the store that both nodes are led to.
fn fails_over_at(script: &mut Script, store: usize) {
    let (dies, follows) = if serves(script, A) { (A, B) } else { (B, A) };
    script.kill(dies);
    script.until_serving(follows);
    connect_to_newest(script);
    script.write(2, 3);
    script.start(dies);
    script.until_in_sync();
    script.check_copies();
    script.until("both are eligible again", |world| {
        let record = world.witness_record_of_store(store);
        record.is_some_and(|record| record.eligible == Eligible::Both)
    });
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
        script.world.lead_to_store(node, 1);
        for _ in 0..20 {
            script.pass(1_000);
            script.write(1, 4);
        }
        assert!(believe(&script.world, [OLD; 2]) && serves(&script, A));
        script.world.lead_to_store(node, 0);
        script.pass(3_000);
        script.kill(A);
        script.until_serving(B);
    }
}

#[test]
fn a_primary_goes_on_alone_with_the_new_store_if_its_peer_has_changed_to_it() {
    let mut script = pair();
    replace(&mut script);
    until_believed(&mut script, [NEW; 2]);
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
    until_believed(&mut script, [OLD, NEW]);
    // The old store would let it.
    let old = script.world.witness_record_of(A).unwrap();
    assert_eq!((old.eligible, old.stopped), (Eligible::Both, false));
    script.world.lead_to_store(B, 0);
    script.kill(A);
    script.pass(30_000);
    assert!(!serves(&script, B) && believe(&script.world, [OLD, NEW]));
    script.world.lead_to_store(B, 1);
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
    assert!(believe(&script.world, [OLD; 2]));
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
        script.world.lead_to_store(node, 0);
    }
    until_believed(&mut script, [OLD; 2]);
    script.until("its record is newer than any before", |world| {
        world.witness_record_of(A).is_some_and(|it| it.epoch > newest && it.epoch > at_first)
    });
    script.kill(A);
    script.until_serving(B);
}

/// The secondary had changed to a second store and said its half there; then the pair changed to a third
/// one. What lies at the second binds nobody any more.
#[test]
fn a_half_that_was_said_before_the_peer_changed_on_makes_no_record() {
    let mut script = pair();
    let third = ArbiterId(79);
    replace(&mut script);
    until_believed(&mut script, [OLD, NEW]);
    script.world.lead_to_store(A, 0);
    script.pass(1_000);
    script.world.replace_witness();
    for node in [A, B] {
        script.world.lead_to_store(node, 2);
    }
    until_believed(&mut script, [third; 2]);
    until_eligible(&mut script, Eligible::Both);
    script.write(0, 4);
    // One node alone finds the second store.
    script.world.lead_to_store(A, 1);
    for _ in 0..10 {
        script.pass(1_000);
        script.write(1, 4);
    }
    assert!(believe(&script.world, [third; 2]));
    script.cut();
    script.until("B is promoted", |world| world.status(B).is_some_and(|status| status.solo));
    script.mend();
    script.world.heal_witness();
    is_whole_again(&mut script);
}

/// Each node finds the second store for a while, one after the other, as in a rolling change of the
/// configuration that is taken back: nobody is left that could not be promoted.
#[test]
fn a_store_that_the_nodes_find_one_after_the_other_changes_nothing() {
    let mut script = pair();
    script.world.replace_witness();
    for node in [A, B] {
        script.world.lead_to_store(node, 1);
        script.pass(5_000);
        script.world.lead_to_store(node, 0);
        script.pass(5_000);
    }
    until_believed(&mut script, [OLD; 2]);
    script.kill(A);
    script.until_serving(B);
}

/// The change to a new store is taken back after the secondary has made it.
#[test]
fn a_pair_that_goes_back_in_the_middle_of_a_change_fails_over() {
    let mut script = pair();
    replace(&mut script);
    until_believed(&mut script, [OLD, NEW]);
    for node in [A, B] {
        script.world.lead_to_store(node, 0);
    }
    script.pass(200);
    let status = script.status(B).promotion.unwrap();
    assert!(status.arbiter_refused.is_some() && !status.takes_over, "{status:?}");
    until_believed(&mut script, [OLD; 2]);
    script
        .until("the record is of what they believe", |world| world.witness_record_of(B).is_some());
    script.pass(2_000);
    script.kill(A);
    script.until_serving(B);
}

/// A has given up its role on its disk, and the store dies that it asked for it: before it granted that,
/// or after, and nobody has heard of it.
fn lose_the_store_in_a_handover(script: &mut Script, is_granted: bool) {
    script.world.command(A, Command::Switchover).unwrap_or_else(|broken| panic!("{broken}"));
    script.until_exactly("the role leaves", |world| {
        let owner = world.witness_record().unwrap().owner;
        let has_left = world.nodes[A].superblock().serve_mode == ServeMode::HandingOver;
        if is_granted { owner == Side::Second } else { has_left && owner == Side::First }
    });
    for node in [A, B] {
        cut_off_witness(script, node);
    }
    script.pass(12_000);
    assert_eq!(script.status(A).state, "handover");
    assert!(!serves(script, A) && !serves(script, B), "nobody knows who owns the resource");
}

/// Both nodes reach another witness, and no other one any more.
fn replace_for_good(script: &mut Script) {
    script.world.replace_witness();
    script.world.heal_witness();
}

#[test]
fn a_handover_that_the_old_store_answers_no_more_ends_at_the_new_one() {
    for prefer in [None, Some(Side::First), Some(Side::Second)] {
        for (is_granted, meets_again) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let mut script = pair_that_prefers(prefer);
            lose_the_store_in_a_handover(&mut script, is_granted);
            if meets_again {
                script.cut();
                script.pass(2_000);
                script.mend();
                script.pass(2_000);
            }
            replace_for_good(&mut script);
            until_believed(&mut script, [NEW; 2]);
            script.until("somebody serves", |world| world.clients.node_of(0).is_some());
            connect_to_newest(&mut script);
            script.write(1, 4);
            is_whole_again(&mut script);
            fails_over(&mut script);
        }
    }
}

#[test]
fn a_handover_is_taken_back_alone_if_the_peer_has_changed_to_the_new_store() {
    for is_granted in [false, true] {
        let mut script = pair();
        lose_the_store_in_a_handover(&mut script, is_granted);
        replace_for_good(&mut script);
        until_believed(&mut script, [NEW; 2]);
        assert_eq!(script.world.witness_record(), None, "there is no record yet");
        script.kill(B);
        script.until_serving(A);
        script.write(3, 5);
        script.start(B);
        is_whole_again(&mut script);
        fails_over(&mut script);
    }
}

/// The old store gave the resource to B, which finds it again at whichever moment: it takes over, or has
/// changed to the new store and does not. Never do both nodes serve.
#[test]
fn a_grant_that_the_peer_finds_at_whichever_moment_makes_one_owner() {
    for moment in 0..40 {
        let mut script = pair();
        lose_the_store_in_a_handover(&mut script, true);
        replace_for_good(&mut script);
        script.pass(moment * 10);
        script.world.lead_to_store(B, 0);
        script.pass(5_000);
        assert!(!serves(&script, A) || !serves(&script, B));
        script.world.lead_to_store(B, 1);
        script.until("somebody serves", |world| world.clients.node_of(0).is_some());
        connect_to_newest(&mut script);
        script.write(1, 4);
        is_whole_again(&mut script);
        until_believed(&mut script, [NEW; 2]);
    }
}

/// An operator keeps the old primary off until the arbiter names the new one. The store that could do so
/// is gone, and so is the word by which the old primary could go on.
#[test]
fn a_primary_by_force_whose_store_is_gone_needs_its_peer_to_make_a_record() {
    let mut script = pair();
    script.world.kill_witness();
    script.kill(A);
    script.pass(5_000);
    script.command(B, force()).unwrap();
    script.until_serving(B);
    script.write(2, 3);
    replace_for_good(&mut script);
    script.pass(10_000);
    let explain = script.status(B).explain;
    assert!(explain.why.contains("made anew"), "{explain:?}");
    assert!(explain.next.contains("is gone for good, bring alpha back"), "{explain:?}");
    script.start(A);
    until_believed(&mut script, [NEW; 2]);
    is_whole_again(&mut script);
    assert!(serves(&script, B) && !serves(&script, A));
    fails_over(&mut script);
}

/// The pair has left a store whose record lists both, and B's copy is filled anew before the new store could
/// list A alone. Then only B finds the old store, which would promote it at the epoch at which A serves.
#[test]
fn a_node_that_was_made_anew_is_not_promoted_by_a_store_that_its_peer_has_left() {
    let mut script = pair();
    replace(&mut script);
    until_believed(&mut script, [NEW; 2]);
    until_eligible(&mut script, Eligible::Both);
    script.pass(1_000);
    cut_off_witness(&mut script, A);
    script.kill(B);
    script.world.make_anew(B);
    script.world.lead_to_store(B, 0);
    script.start(B);
    script.until_in_sync();
    script.pass(5_000);
    script.world.heal_witness();
    script.world.lead_to_store(B, 0);
    script.pass(5_000);
    assert_eq!(script.world.nodes[B].superblock().arbitration.arbiter, ArbiterId(0));
    let old = script.world.witness_record_of_store(0).unwrap();
    assert_eq!((old.eligible, old.stopped), (Eligible::Both, false));
    script.cut();
    script.until_serving(A);
    script.write(3, 5);
    script.pass(30_000);
    assert!(serves(&script, A) && !serves(&script, B));
    script.mend();
    script.world.lead_to_store(B, 1);
    is_whole_again(&mut script);
    until_believed(&mut script, [NEW; 2]);
    fails_over(&mut script);
}

/// A lost its disk while nobody could promote B, and both are led back to an older store.
#[test]
fn a_node_that_was_made_anew_makes_a_record_with_a_peer_that_believes_another_store() {
    let mut script = pair();
    replace(&mut script);
    until_believed(&mut script, [NEW; 2]);
    until_eligible(&mut script, Eligible::Both);
    script.world.kill_witness();
    for node in [A, B] {
        script.kill(node);
    }
    script.world.make_anew(A);
    script.world.heal_witness();
    for node in [A, B] {
        script.world.lead_to_store(node, 0);
        script.start(node);
    }
    script.until("somebody serves", |world| world.clients.node_of(0).is_some());
    until_believed(&mut script, [OLD; 2]);
    connect_to_newest(&mut script);
    script.write(2, 3);
    script.until_in_sync();
    script.check_copies();
    script.pass(3_000);
    fails_over_at(&mut script, 0);
}

/// B was promoted while A heard neither it nor the arbiter, and died. The store that knows of it is gone when
/// the nodes meet: A learns it by what B says of itself.
#[test]
fn a_primary_whose_peer_was_promoted_by_a_store_that_is_gone_follows_it() {
    for writes_alone in [false, true] {
        let mut script = pair();
        cut_off_witness(&mut script, A);
        script.cut();
        script.until("B is promoted", |world| world.status(B).is_some_and(|status| status.solo));
        if writes_alone {
            connect_to_newest(&mut script);
            script.write(2, 3);
        }
        script.kill(B);
        replace_for_good(&mut script);
        script.mend();
        script.start(B);
        until_believed(&mut script, [NEW; 2]);
        script.until("B goes on", |world| {
            world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
        });
        assert!(!serves(&script, A));
        connect_to_newest(&mut script);
        script.write(3, 4);
        is_whole_again(&mut script);
        fails_over(&mut script);
    }
}
