//! A primary whose daemon is told to stop hands its role over first, if the peer can have it.

use hotpair::promotion::arbiter::Eligible;
use hotpair::replica::Command;
use hotpair::units::{Role, ServeMode, Side, VetoReason};

use super::failover::{self, cut_off_witness, is_whole_again, owner, serves, until_eligible};
use crate::script::{A, B, Script};

/// A pair in sync, A serving, and each has heard that the witness answers the other.
fn pair() -> Script {
    let mut script = failover::pair();
    script.pass(1_000);
    script
}

/// Tells a daemon to stop; it stays down.
fn begin_stop(script: &mut Script, at: usize) -> u64 {
    script.world.nodes[at].is_held_down = true;
    let life = script.world.nodes[at].life;
    script.world.command(at, Command::Stop).unwrap_or_else(|broken| panic!("{broken}"));
    life
}

fn until_stopped(script: &mut Script, at: usize, life: u64) {
    script.until("it has stopped", |world| world.nodes[at].life != life);
}

#[test]
fn a_primary_that_is_told_to_stop_hands_its_role_over() {
    let mut script = pair();
    let write = script.begin_write(3, 5);
    let before = script.world.now;
    let life = begin_stop(&mut script, A);
    script.until_exactly("B serves", |world| {
        world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
    });
    let took = (script.world.now - before) / 1_000_000;
    assert!(took < 500, "{took} ms");
    assert!(script.world.clients.is_settled(write), "what was asked before is answered");
    assert_eq!(owner(&script), Side::Second);
    until_stopped(&mut script, A, life);
    // It left as a secondary does, so the new primary waits for nothing.
    let record = script.world.nodes[A].superblock();
    assert_eq!(record.veto.map(|veto| veto.reason), Some(VetoReason::Left));
    until_eligible(&mut script, Eligible::Owner);
    assert!(script.world.now - before < 2_000_000_000);
    script.until_serving(B);
    script.write(4, 8);
    script.read(0, 8);
    script.start(A);
    is_whole_again(&mut script);
    assert!(serves(&script, B));
}

#[test]
fn a_stop_goes_on_without_a_peer_that_cannot_take_over() {
    // The peer is dead, or no node reaches the arbiter.
    for is_dead in [true, false] {
        let mut script = pair();
        if is_dead {
            script.kill(B);
            script.write(1, 2);
        } else {
            script.world.kill_witness();
            script.pass(2_000);
        }
        let before = script.world.now;
        let life = begin_stop(&mut script, A);
        until_stopped(&mut script, A, life);
        let took = (script.world.now - before) / 1_000_000;
        assert!(took < 1_000, "{took} ms");
        assert_eq!(script.world.nodes[A].superblock().owner, Some(Side::First));
        script.world.heal_witness();
        script.start(A);
        if is_dead {
            script.start(B);
        }
        is_whole_again(&mut script);
    }
}

#[test]
fn a_stop_waits_for_the_peer_no_longer_than_a_lease() {
    // The arbiter is lost at each moment of it.
    for delay in [0, 5, 10, 15, 20, 25, 30, 40, 60, 100] {
        let mut script = pair();
        let before = script.world.now;
        let life = begin_stop(&mut script, A);
        script.pass(delay);
        script.world.kill_witness();
        until_stopped(&mut script, A, life);
        let took = (script.world.now - before) / 1_000_000;
        assert!(took < 4_500, "{took} ms; {delay} ms");
        script.world.heal_witness();
        script.start(A);
        is_whole_again(&mut script);
        script.write(4, 8);
    }
}

#[test]
fn a_stop_does_not_wait_for_a_peer_that_misses_the_arbiter() {
    // It is known, or happens at this moment.
    for known in [true, false] {
        let mut script = pair();
        cut_off_witness(&mut script, B);
        script.pass(if known { 2_000 } else { 10 });
        let before = script.world.now;
        let life = begin_stop(&mut script, A);
        until_stopped(&mut script, A, life);
        let took = (script.world.now - before) / 1_000_000;
        assert!(took < if known { 200 } else { 4_500 }, "{took} ms");
        script.world.heal_witness();
        script.until_serving(B);
        script.start(A);
        is_whole_again(&mut script);
    }
}

#[test]
fn a_stop_goes_on_when_the_peer_is_lost_in_the_middle() {
    for delay in [0, 2, 4, 6, 8, 10, 15, 20, 30, 50, 100] {
        let mut script = pair();
        script.write(2, 8);
        let life = begin_stop(&mut script, A);
        script.pass(delay);
        script.kill(B);
        until_stopped(&mut script, A, life);
        script.start(A);
        script.start(B);
        is_whole_again(&mut script);
        script.read(0, 8);
        script.write(4, 8);
    }
}

#[test]
fn an_operators_switchover_goes_on_when_the_daemon_is_told_to_stop() {
    let mut script = pair();
    script.world.command(A, Command::Switchover).unwrap_or_else(|broken| panic!("{broken}"));
    let life = begin_stop(&mut script, A);
    until_stopped(&mut script, A, life);
    script.until_serving(B);
    assert_eq!(script.world.nodes[B].superblock().owner, Some(Side::Second));
    script.start(A);
    is_whole_again(&mut script);
}

#[test]
fn both_daemons_may_be_told_to_stop_at_once() {
    for delay in [0, 3, 7, 12, 20, 40] {
        let mut script = pair();
        let lives = [begin_stop(&mut script, A), {
            script.pass(delay);
            begin_stop(&mut script, B)
        }];
        for at in [A, B] {
            until_stopped(&mut script, at, lives[at]);
        }
        for at in [A, B] {
            script.start(at);
        }
        is_whole_again(&mut script);
        script.write(4, 8);
    }
}

#[test]
fn a_primary_alone_stops_as_before() {
    let mut script = pair();
    script.kill(B);
    script.write(1, 2);
    let life = begin_stop(&mut script, A);
    until_stopped(&mut script, A, life);
    assert_eq!(script.world.nodes[A].superblock().serve_mode, ServeMode::Solo);
    script.start(A);
    script.until_serving(A);
    script.start(B);
    is_whole_again(&mut script);
    assert_eq!(script.status(A).role, Role::Primary);
}
