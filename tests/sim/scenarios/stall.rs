//! A disk that does not answer, or fails, under a primary: its peer goes on without waiting for the
//! lease (31 of the design's list), or nobody does who cannot.

use std::time::Duration;

use hotpair::promotion::arbiter::Eligible;
use hotpair::units::{ReplicationMode, Role, Side};

use super::failover::{is_whole_again, owner, pair, serves, until_eligible};
use crate::plan::Plan;
use crate::script::{A, B, Script};
use crate::services::ServicesPlan;
use crate::witness::WitnessPlan;
use crate::world::millis;

/// The disk of A answers nothing for so many milliseconds.
fn stall(script: &mut Script, length: u64) {
    let now = script.world.now;
    script.world.nodes[A].trouble.stalled_until = now + millis(length);
}

fn took_ms(script: &Script, since: u64) -> u64 {
    (script.world.now - since) / 1_000_000
}

#[test]
fn a_primary_whose_disk_stalls_gives_way_before_its_lease_is_over() {
    let mut script = pair();
    script.pass(2_000);
    let before = script.world.now;
    stall(&mut script, 20_000);
    script.begin_write(3, 3);
    script.until_serving(B);
    // The I/O timeout is 3 s; the lease would take as long again.
    let took = took_ms(&script, before);
    assert!((3_000..4_000).contains(&took), "{took} ms");
    assert_eq!(owner(&script), Side::Second);
    let status = script.status(A);
    assert_eq!(status.disk_answers.name(), "stalled");
    assert!(status.explain.why.contains("does not answer"), "{:?}", status.explain);
    script.write(3, 3);
    script.pass(16_000);
    is_whole_again(&mut script);
    assert_eq!(script.status(A).disk_answers.name(), "ok");
}

#[test]
fn a_stall_is_found_although_no_client_waits() {
    let mut script = pair();
    script.pass(10_000);
    let before = script.world.now;
    stall(&mut script, 20_000);
    script.until("B serves", |world| {
        world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
    });
    let took = took_ms(&script, before);
    assert!((3_000..5_000).contains(&took), "{took} ms");
}

#[test]
fn a_stall_that_is_short_changes_nothing() {
    let mut script = pair();
    stall(&mut script, 2_800);
    script.write(3, 3);
    script.pass(5_000);
    assert_eq!(owner(&script), Side::First);
    assert_eq!(script.status(A).role, Role::Primary);
}

#[test]
fn the_peer_of_a_primary_whose_disk_failed_does_not_wait_for_the_lease() {
    let mut script = pair();
    script.pass(2_000);
    script.world.operator.broken_disk = Some(A);
    let before = script.world.now;
    script.world.nodes[A].trouble.fail_next_io = true;
    script.begin_write(6, 2);
    script.until_serving(B);
    let took = took_ms(&script, before);
    assert!(took < 1_000, "{took} ms");
}

#[test]
fn who_gave_way_to_a_peer_that_cannot_serve_goes_on_at_a_new_epoch() {
    let mut script = pair();
    script.pass(2_000);
    let epoch = script.world.nodes[A].superblock().epoch;
    stall(&mut script, 20_000);
    script.begin_write(3, 3);
    // The last that A heard of B is that the witness answers it.
    script.pass(2_800);
    script.world.cut_witness(B, 0);
    script.world.cut_witness(B, 1);
    script.pass(12_000);
    assert!(!serves(&script, A) && !serves(&script, B));
    script.until_serving(A);
    assert!(script.world.nodes[A].superblock().epoch > epoch);
    script.write(3, 3);
    assert_eq!(owner(&script), Side::First);
    script.world.heal_witness();
    is_whole_again(&mut script);
    // What was said of the old epoch is void: the peer waits for the lease like any other.
    let before = script.world.now;
    script.pause(A, 20_000);
    script.until_serving(B);
    let took = took_ms(&script, before);
    assert!(took > 2_400, "{took} ms");
}

#[test]
fn a_primary_without_a_peer_waits_for_its_disk() {
    let mut script = pair();
    script.kill(B);
    until_eligible(&mut script, Eligible::Owner);
    script.write(2, 2);
    stall(&mut script, 20_000);
    let write = script.begin_write(3, 3);
    script.pass(10_000);
    assert!(serves(&script, A) && !script.world.clients.is_settled(write));
    assert_eq!(script.status(A).disk_answers.name(), "stalled");
    script.until("it is answered", |world| world.clients.is_settled(write));
    script.start(B);
    is_whole_again(&mut script);
    assert_eq!(owner(&script), Side::First);
}

#[test]
fn services_stop_before_the_peer_is_told() {
    let services = ServicesPlan { stop_within: Duration::from_secs(5), failures: 0, is_slow: true };
    let calm = Plan::calm(ReplicationMode::Sync, 16 << 20);
    let witness = Some(WitnessPlan::calm());
    let mut script = Script::with_plan(Plan { witness, services: Some(services), ..calm });
    until_eligible(&mut script, Eligible::Both);
    script.until("the services of A run", |world| world.services_run(A));
    script.write(0, 8);
    stall(&mut script, 20_000);
    script.begin_write(3, 3);
    // The invariant `StopBeforeStart` looks at every step.
    script.until("the services of B run", |world| world.services_run(B));
    assert!(!script.world.services_run(A));
    is_whole_again(&mut script);
}

#[test]
fn nobody_gives_way_to_a_peer_that_cannot_be_promoted() {
    let mut script = pair();
    script.world.cut_witness(B, 0);
    script.world.cut_witness(B, 1);
    script.pass(3_000);
    stall(&mut script, 10_000);
    let write = script.begin_write(3, 3);
    script.pass(8_000);
    assert!(serves(&script, A), "nobody else can");
    script.until("it is answered", |world| world.clients.is_settled(write));
    assert_eq!(owner(&script), Side::First);
}
