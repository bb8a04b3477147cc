//! Promotions by force of a pair that has an arbiter.
//!
//! The number is that of the design's list of scenarios.

use hotpair::promotion::arbiter::Eligible;
use hotpair::replica::Command;
use hotpair::units::{Role, Side, VetoReason};

use super::failover::{
    connect_to_newest, cut_off_witness, is_whole_again, owner, pair, serves, until_eligible,
};
use crate::script::{A, B, Script, force, promote};
use crate::world::World;

/// `hotpair promote --force --peer-is-fenced --accept-data-loss`.
fn force_and_lose() -> Command {
    Command::Promote { force: true, accept_data_loss: true }
}

/// The arbiter's record names that node, at the epoch at which it serves.
fn until_in_line(script: &mut Script, at: usize, side: Side) {
    script.until("the witness has followed", |world| {
        let epoch = world.nodes[at].superblock().epoch;
        world.witness_record().is_some_and(|it| it.owner == side && it.epoch == epoch)
    });
}

// 43.
#[test]
fn a_primary_that_lives_is_not_forced_out() {
    let mut script = pair();
    script.cut();
    until_eligible(&mut script, Eligible::Owner);
    script.pass(5_000);
    let before = script.world.witness_record().cloned();
    for command in [force(), force_and_lose()] {
        let refused = script.command(B, command).unwrap_err();
        assert!(refused.why.contains("alpha is alive"), "{refused:?}");
        assert!(refused.next.contains("hotpair switchover vm1"), "{refused:?}");
    }
    assert_eq!(script.world.witness_record().cloned(), before);
    script.write(4, 4);
    script.mend();
    is_whole_again(&mut script);
    assert_eq!(owner(&script), Side::First);
}

#[test]
fn a_force_needs_words_for_what_is_missing_and_goes_through_the_arbiter() {
    let mut script = pair();
    script.cut();
    script.write(4, 4);
    until_eligible(&mut script, Eligible::Owner);
    script.kill(A);
    script.pass(5_000);
    let refused = script.command(B, force()).unwrap_err();
    assert!(refused.next.contains("--accept-data-loss"), "{refused:?}");
    accept_any_loss(&mut script);
    let answer = script.command(B, force_and_lose()).unwrap();
    assert!(answer.text.contains("given up: what only alpha has acknowledged"), "{answer:?}");
    assert!(answer.text.contains("missing here"), "{answer:?}");
    assert!(script.world.witness_record().unwrap().forced && owner(&script) == Side::Second);
    script.until_serving(B);
    script.write(6, 2);
    script.start(A);
    script.mend();
    shows_split_brain(&mut script);
    assert!(serves(&script, B) && !serves(&script, A));
}

// A was alone, and its disk is lost: it is filled from B, which lacks what A wrote. Nobody serves before an
// operator gives that up, and both nodes say so.
#[test]
fn a_copy_that_is_lost_is_given_up_by_word_alone() {
    let mut script = pair();
    script.kill(B);
    until_eligible(&mut script, Eligible::Owner);
    script.until_serving(A);
    script.write(4, 4);
    script.kill(A);
    script.world.make_anew(A);
    for node in [A, B] {
        script.start(node);
    }
    script.until("A knows what the witness lists", |world| {
        world.nodes[A].superblock().veto.is_some_and(|it| it.reason == VetoReason::RecordLost)
    });
    script.pass(5_000);
    assert!(!serves(&script, A) && !serves(&script, B));
    for node in [A, B] {
        let refused = script.command(node, promote()).unwrap_err();
        assert!(refused.next.contains("--accept-data-loss"), "{node}: {refused:?}");
    }
    script.world.ghost.excuse = crate::ghost::Excuse::Accepted;
    let answer = script.command(B, force_and_lose()).unwrap();
    assert!(answer.text.contains("given up: what only alpha has acknowledged"), "{answer:?}");
    until_clients_are_at_b(&mut script);
    script.write(6, 2);
    is_whole_again(&mut script);
    assert!(serves(&script, B) && !serves(&script, A));
}

/// A loss, or two histories, are made on purpose.
fn accept_any_loss(script: &mut Script) {
    script.world.operator.split_is_explained = true;
    script.world.ghost.excuse = crate::ghost::Excuse::Accepted;
    script.world.ghost.is_split = true;
}

/// The service's address is where the operator has forced it.
fn until_clients_are_at_b(script: &mut Script) {
    script.until("B serves", |world| {
        world.nodes[B].process.as_ref().is_some_and(|it| it.export.is_some())
    });
    connect_to_newest(script);
}

/// Both say so, and neither copy was changed by the other.
fn shows_split_brain(script: &mut Script) {
    let before = [A, B].map(|at| script.world.nodes[at].files.data.clone());
    script.until("both show split brain", |world| {
        [A, B].iter().all(|at| world.status(*at).is_some_and(|it| it.split_brain.is_some()))
    });
    script.pass(5_000);
    for (at, before) in [A, B].into_iter().zip(before) {
        let data = &script.world.nodes[at].files.data;
        assert!(data.blocks().all(|block| data.has_same_block(&before, block)), "merged on {at}");
    }
}

// 43, with the witness away.
#[test]
fn without_the_witness_a_force_serves_and_its_record_follows() {
    for is_restarted in [false, true] {
        let mut script = pair();
        script.world.kill_witness();
        script.kill(A);
        script.pass(10_000);
        assert!(!serves(&script, B));
        let before = script.world.now;
        let answer = script.command(B, force()).unwrap();
        let took = (script.world.now - before) / 1_000_000;
        assert!(took < 2_000, "{took} ms");
        assert!(answer.text.contains("the arbiter was out of reach"), "{answer:?}");
        script.until_serving(B);
        script.write(4, 4);
        let status = script.status(B);
        assert_eq!(status.promotion.unwrap().permit, Some("forced"));
        assert!(status.explain.why.contains("by force"), "{:?}", status.explain);
        assert_eq!(status.epoch.0 & 0xffff, 2, "of its own making");
        if is_restarted {
            script.kill(B);
            script.start(B);
            script.pass(5_000);
            assert!(!serves(&script, B), "it cannot know that nobody was promoted since");
        }
        script.world.heal_witness();
        until_in_line(&mut script, B, Side::Second);
        script.until_serving(B);
        script.write(6, 2);
        script.start(A);
        is_whole_again(&mut script);
        assert!(serves(&script, B));
        script.kill(B);
        script.until_serving(A);
    }
}

// The other node is back before the witness, and follows; the pair is whole without the witness.
#[test]
fn nobody_is_promoted_by_a_witness_that_does_not_know_of_a_force() {
    for (forced, other, side) in [(B, A, Side::Second), (A, B, Side::First)] {
        let mut script = pair();
        script.world.kill_witness();
        script.kill(A);
        if forced == A {
            script.kill(B);
            script.start(A);
        }
        script.pass(5_000);
        script.command(forced, force()).unwrap();
        script.until_serving(forced);
        script.write(4, 4);
        script.start(other);
        script.until_in_sync();
        script.write(5, 2);
        let refused = script.command(forced, Command::Switchover).unwrap_err();
        assert!(refused.why.contains("arbiter"), "{refused:?}");
        // The witness lists the other node, too, but at an epoch that it is past.
        cut_off_witness(&mut script, forced);
        script.world.heal_witness_for(other);
        script.pass(2_000);
        script.kill(forced);
        script.pass(20_000);
        assert!(!serves(&script, other), "what it promised is above what the witness knows");
        script.world.heal_witness();
        script.start(forced);
        until_in_line(&mut script, forced, side);
        is_whole_again(&mut script);
    }
}

// 43, with the witness away and a primary that lives behind a cut.
#[test]
fn an_old_primary_that_was_frozen_behind_a_cut_steps_down() {
    let mut script = pair();
    script.world.kill_witness();
    script.cut();
    script.pass(10_000);
    script.world.operator.split_is_explained = true;
    script.command(B, force()).unwrap();
    until_clients_are_at_b(&mut script);
    script.write(4, 4);
    script.mend();
    script.until("A follows", |world: &World| {
        world.status(A).is_some_and(|status| status.role == Role::Secondary)
    });
    script.world.heal_witness();
    until_in_line(&mut script, B, Side::Second);
    is_whole_again(&mut script);
    assert!(serves(&script, B) && owner(&script) == Side::Second);
    script.read(4, 4);
}

// The same with one that went on alone: nobody can know which history is to stay.
#[test]
fn an_old_primary_that_went_on_alone_behind_a_cut_shows_split_brain() {
    let mut script = pair();
    script.cut();
    script.write(4, 4);
    until_eligible(&mut script, Eligible::Owner);
    script.pass(5_000);
    script.world.kill_witness();
    accept_any_loss(&mut script);
    script.command(B, force_and_lose()).unwrap();
    until_clients_are_at_b(&mut script);
    script.write(4, 4);
    script.mend();
    shows_split_brain(&mut script);
    assert!(serves(&script, B) && !serves(&script, A));
}

// The witness hears the old primary, which has gone on; only the operator's node did not reach it.
#[test]
fn a_force_beside_an_owner_that_lives_waits_for_its_lease_to_line_up() {
    let mut script = pair();
    script.cut();
    cut_off_witness(&mut script, B);
    script.pass(5_000);
    accept_any_loss(&mut script);
    script.command(B, force()).unwrap();
    script.world.heal_witness();
    script.pass(3_000);
    assert_eq!(owner(&script), Side::First, "it has a lease");
    assert!(serves(&script, B), "the operator said so");
    script.mend();
    script.until("A follows", |world: &World| {
        world.status(A).is_some_and(|status| status.role == Role::Secondary)
    });
    until_in_line(&mut script, B, Side::Second);
    script.until_in_sync();
    until_eligible(&mut script, Eligible::Both);
}
