//! Moments at which something else happens: each was a bug once.

use std::time::Duration;

use hotpair::replica::Command;
use hotpair::units::{BlockIndex, DiskState, ReplicationMode, ServeMode};

use crate::disk::File;
use crate::plan::Plan;
use crate::script::{A, B, Script, force, promote};
use crate::world::{World, millis};

const SYNC: ReplicationMode = ReplicationMode::Sync;

/// A pair whose disks and network take other times than those of another number.
fn pair(mode: ReplicationMode, seed: u64) -> Script {
    Script::with_plan(Plan { seed, ..Plan::calm(mode, 16 << 20) })
}

fn is_solo(world: &World) -> bool {
    world.status(A).is_some_and(|status| status.solo)
}

#[test]
fn a_source_that_sent_the_end_does_not_count_on_the_veto_of_its_target() {
    for seed in 1..=10 {
        let mut script = pair(SYNC, seed);
        script.write(0, 32);
        script.kill(B);
        script.write(100, 50);
        script.until("solo", is_solo);
        script.start(B);
        script.until_exactly("the end is sent", |world| {
            let [a, b] = [A, B].map(|at| world.nodes[at].superblock());
            a.serve_mode == ServeMode::Paired && b.disk == DiskState::Inconsistent
        });
        // The end arrives, and what it did is never heard of.
        script.world.net.cut(B);
        script.until("solo again", is_solo);
        assert_eq!(script.status(B).disk, DiskState::UpToDate);
        script.write(200, 4);
        script.mend();
        script.until_in_sync();
        script.check_copies();
    }
}

#[test]
fn what_a_memsync_secondary_received_is_applied_after_the_link_is_lost() {
    let mut script = pair(ReplicationMode::MemSync, 1);
    script.write(0, 32);
    script.flush();
    script.world.nodes[B].trouble.stalled_until = script.world.now + millis(4_000);
    for block in 0..8 {
        script.write(block, 2);
    }
    assert!(script.world.differences.count() > 0, "B wrote at once");
    script.kill(A);
    script.pass(1_000);
    script.command(B, force()).unwrap();
    script.until_serving(B);
    script.read(0, 32);
    script.start(A);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_write_that_waits_for_the_log_is_not_sent_past_a_chunk_in_motion() {
    for seed in 1..=20 {
        let mut script = pair(SYNC, seed);
        script.kill(B);
        script.write(0, 1000);
        script.until("solo", is_solo);
        script.flush();
        script.until("the extent is cold", |world| {
            world.nodes[A].core().is_some_and(|core| core.hot_extents().is_empty())
        });
        script.start(B);
        script.until_exactly("the transfer runs", |world| {
            world.status(A).is_some_and(|status| status.resync.is_some_and(|it| it.total_bytes > 0))
        });
        for block in 0..30 {
            script.begin_write(block * 32 + seed % 16, 2);
            script.world.run_until(script.world.now + 50_000).unwrap();
        }
        script.until_in_sync();
        script.check_copies();
    }
}

#[test]
fn an_async_secondary_applies_overlapping_writes_in_their_order() {
    for seed in 1..=5 {
        let mut script = pair(ReplicationMode::Async, seed);
        for round in 0..200 {
            script.begin_write(round % 8, 2);
            script.world.run_until(script.world.now + 400_000).unwrap();
        }
        script.until_in_sync();
        script.check_copies();
    }
}

/// A write that the target of a comparison has in its cache only, and that was flushed here alone.
pub(crate) fn flushes_alone_near_the_end(plan: Plan) {
    let mut plan = plan;
    plan.limits.gate_bytes = 0;
    plan.limits.unflushed_age = Duration::from_mins(1);
    plan.limits.resync_rate = Some(1 << 20);
    let mut script = Script::with_plan(plan);
    script.write(0, 64);
    script.kill(B);
    script.write(0, 8);
    script.until("solo", is_solo);
    script.world.make_anew(B);
    script.start(B);
    script.until("the first chunk is done, and most are not", |world| {
        let marks = world.nodes[A].core().map(hotpair::replica::Replica::dirty);
        marks.is_some_and(|marks| !marks.is_set(BlockIndex(0)) && marks.count() > 1_000)
    });
    script.write(2, 1);
    script.flush();
    assert!(script.status(A).solo, "{:#?}", script.status(A));
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_target_is_complete_when_what_was_flushed_alone_is_stable_there() {
    flushes_alone_near_the_end(Plan::calm(SYNC, 16 << 20));
}

#[test]
fn a_former_primary_that_consents_to_another_promotion_does_not_resume() {
    for seed in 1..=10 {
        let mut script = pair(SYNC, seed);
        script.write(0, 32);
        script.flush();
        script.until_in_sync();
        script.kill(A);
        script.pass(1_500);
        script.start(A);
        script.until_exactly("B has joined", |world| {
            world.status(B).is_some_and(|status| status.state == "following")
        });
        // Whatever A has on its way to the record comes after the consent that B asks for.
        script.world.nodes[A].trouble.stalled_until = script.world.now + millis(20);
        script.world.command(B, promote()).unwrap();
        script.pass(3_000);
        script.until("one node serves", |world| world.clients.node_of(0).is_some());
        script.write(0, 8);
        script.until_in_sync();
        script.check_copies();
    }
}

#[test]
fn a_comparison_of_everything_that_was_cut_off_begins_anew() {
    for seed in 1..=10 {
        let mut script = pair(SYNC, seed);
        script.write(0, 64);
        script.flush();
        script.until_in_sync();
        script.kill(B);
        script.world.make_anew(B);
        script.world.nodes[B].files.data = File::default();
        script.world.compare_all();
        script.start(B);
        script.until_exactly("B is a target", |world| {
            let record = world.nodes[B].superblock();
            record.generation.is_none() && record.peer_replica_id.0 != 0
        });
        let now = script.world.now;
        script.world.net.reset_any(now);
        script.until_in_sync();
        script.check_copies();
    }
}

#[test]
fn a_failed_sync_is_on_record_although_the_process_dies_at_once() {
    for seed in 1..=10 {
        let mut script = pair(SYNC, seed);
        script.write(0, 32);
        script.world.nodes[B].trouble.fail_next_sync = true;
        script.write(32, 32);
        script.until_exactly("the sync fails", |world| {
            world.status(B).is_some_and(|status| status.disk == DiskState::Failed)
        });
        script.kill(B);
        script.kill(A);
        script.start(B);
        script.pass(1_000);
        assert_ne!(script.status(B).disk, DiskState::UpToDate);
        assert!(script.command(B, force()).is_err());
        script.start(A);
        script.until_serving(A);
        script.until_in_sync();
        script.check_copies();
    }
}

/// A was primary and died, B was promoted and served at a higher epoch: when A is back it does not
/// serve at the old one.
pub(crate) fn comes_back_after_a_promotion(plan: Plan) {
    let mut script = Script::with_plan(plan);
    script.write(0, 32);
    script.kill(A);
    script.pass(2_000);
    script.command(B, force()).unwrap();
    script.until_serving(B);
    script.command(B, Command::Demote).unwrap();
    script.start(A);
    script.until_in_sync();
    script.pass(2_000);
    assert!([A, B].iter().all(|at| !script.status(*at).serving));
    script.command(A, promote()).unwrap();
    script.until_serving(A);
    script.check_copies();
}

#[test]
fn a_former_primary_does_not_resume_below_the_epoch_of_its_successor() {
    comes_back_after_a_promotion(Plan::calm(SYNC, 16 << 20));
}

#[test]
fn a_node_that_met_a_higher_epoch_is_promoted_above_it() {
    let mut script = pair(SYNC, 1);
    script.write(0, 32);
    script.command(A, Command::Demote).unwrap();
    script.kill(A);
    script.pass(1_500);
    script.command(B, force()).unwrap();
    script.until_serving(B);
    script.write(0, 8);
    script.command(B, Command::Demote).unwrap();
    script.start(A);
    script.until_in_sync();
    script.kill(B);
    script.pass(1_500);
    script.command(A, force()).unwrap();
    script.until_serving(A);
    script.write(8, 8);
    script.start(B);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_promotion_that_is_given_up_leaves_no_node_outdated() {
    let mut script = Script::pair(ReplicationMode::Sync);
    script.write(0, 32);
    script.command(A, Command::Demote).unwrap();
    script.pass(2_000);
    script.until_in_sync();
    let now = script.world.now;
    script.world.nodes[B].trouble.stalled_until = now + millis(4_000);
    let asked = script.world.command(A, promote()).unwrap();
    script.pass(100);
    // The consent is on its way to the record: to ask for another one would leave both without.
    let refused = script.command(B, promote()).unwrap_err();
    assert!(refused.why.contains("has consented"), "{refused:?}");
    script.until("the promotion is given up", |world| {
        world.status(A).is_some_and(|it| it.disk == DiskState::UpToDate && !it.serving)
            && world.status(B).is_some_and(|it| it.disk == DiskState::Outdated)
    });
    script.until("the veto is lifted", |world| {
        [A, B].iter().all(|at| world.status(*at).is_some_and(|it| it.disk == DiskState::UpToDate))
    });
    assert!(script.world.operator.take_answer(asked).is_some_and(|answer| answer.is_err()));
    script.command(B, promote()).unwrap();
    script.until_serving(B);
    script.check_copies();
}

#[test]
fn a_sync_that_fails_after_its_session_still_fails_the_disk() {
    let mut script = Script::pair(SYNC);
    script.write(0, 32);
    let now = script.world.now;
    script.world.nodes[B].trouble.stalled_until = now + millis(2_000);
    script.world.nodes[B].trouble.fail_next_sync = true;
    script.begin_flush();
    script.pass(50);
    script.cut();
    script.until("the disk of B failed", |world| {
        world.status(B).is_some_and(|status| status.disk == DiskState::Failed)
    });
}

#[test]
fn a_switchover_that_is_given_up_does_not_bind_the_peer() {
    let mut script = Script::pair(SYNC);
    script.write(0, 32);
    script.until_in_sync();
    script.pass(1_000);
    let asked = script.world.command(A, Command::Switchover).unwrap();
    script.until_exactly("B is asked to take over", |world| {
        format!("{:?}", world.nodes[A].core().unwrap()).contains("AskingPeer")
    });
    let now = script.world.now;
    script.world.nodes[B].trouble.stalled_until = now + millis(12_000);
    script.pass(20_000);
    script.until_in_sync();
    let answer = script.world.operator.take_answer(asked).unwrap();
    assert!(answer.unwrap_err().why.contains("does not answer"));
    script.command(A, Command::Switchover).unwrap();
    script.until_serving(B);
    script.check_copies();
}

#[test]
fn zeroes_with_fua_survive_a_power_loss_of_both() {
    zeroes_before_both_lose_power(Plan::calm(ReplicationMode::Sync, 16 << 20));
}

/// Zeroes with FUA are the last thing before both nodes lose power, several times: what a disk keeps of
/// what was not synced is drawn.
pub(crate) fn zeroes_before_both_lose_power(plan: Plan) {
    let mut script = Script::with_plan(plan);
    script.write(0, 64);
    script.flush();
    for round in 0..8 {
        script.zero_with_fua(round * 8, 4);
        script.lose_power(A);
        script.lose_power(B);
        script.start(A);
        script.start(B);
        script.until_in_sync();
        script.until_serving(A);
        script.check_copies();
    }
}
