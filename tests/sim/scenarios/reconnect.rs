//! What two nodes conclude when they meet again: the worked scenarios of the design.

use std::time::Duration;

use hotpair::promotion::arbiter::Eligible;
use hotpair::replica::{Command, ReplicationStatus};
use hotpair::units::{DiskState, ReplicationMode, Role, Side, VetoReason};

use super::failover::{is_whole_again, until_eligible};
use crate::ghost::Excuse;
use crate::io::Work;
use crate::plan::{Limits, Plan};
use crate::script::{A, B, Script, force, promote};
use crate::witness::WitnessPlan;
use crate::world::{World, millis};

const SYNC: ReplicationMode = ReplicationMode::Sync;

#[test]
fn after_a_blip_without_writes_the_secondary_stays_a_candidate() {
    let mut script = Script::pair(SYNC);
    script.write(0, 4);
    let now = script.world.now;
    script.world.net.reset_any(now);
    for _ in 0..400 {
        script.pass(5);
        assert_eq!(script.status(B).disk, DiskState::UpToDate);
    }
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_write_in_flight_at_a_blip_is_answered_once_it_is_safe() {
    let mut script = Script::pair(SYNC);
    script.write(0, 4);
    let request = script.begin_write(8, 16);
    let now = script.world.now;
    script.world.net.reset_any(now);
    script.until("the write is answered", |world| world.clients.is_settled(request));
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_secondary_that_was_away_gets_only_what_was_written_meanwhile() {
    let mut script = Script::pair(SYNC);
    script.write(0, 512);
    script.flush();
    script.kill(B);
    script.write(100, 50);
    script.until("solo", |world| world.status(A).is_some_and(|status| status.solo));
    let before = script.world.net.resync_bytes;
    script.start(B);
    script.until_in_sync();
    let sent = script.world.net.resync_bytes - before;
    assert!(sent <= 50 * 4096 * 102 / 100, "{sent} bytes were sent");
    assert!(!script.status(A).solo);
    script.check_copies();
}

#[test]
fn the_target_of_a_resync_never_says_that_less_differs_than_does() {
    let calm = Plan::calm(SYNC, 16 << 20);
    let limits = Limits { resync_rate: Some(4 << 20), ..calm.limits.clone() };
    let mut script = Script::with_plan(Plan { limits, ..calm });
    script.write(0, 512);
    script.flush();
    script.kill(B);
    // One block of each chunk, and then all of some.
    for chunk in 0..60 {
        script.write(chunk * 16, 1);
    }
    script.write(1024, 64);
    script.start(B);
    let is_target = |script: &Script| script.status(B).replication == ReplicationStatus::SyncTarget;
    script.until("a resync runs", |world| {
        world.status(B).is_some_and(|it| it.replication == ReplicationStatus::SyncTarget)
    });
    let (mut looks, mut last) = (0, u64::MAX);
    while is_target(&script) {
        let status = script.status(B);
        let differs = status.out_of_sync_bytes.unwrap();
        let resync = status.resync.unwrap();
        assert_eq!(resync.remaining_bytes, differs);
        let differing = u64::try_from(script.world.differences.count()).unwrap();
        assert!(differs >= 4096 * differing, "{status:?}");
        assert!(0 < differs && differs <= last, "{status:?}");
        (looks, last) = (looks + 1, differs);
        script.pass(5);
    }
    assert!(looks > 10, "{looks} looks");
    script.until_in_sync();
    assert_eq!(script.status(B).out_of_sync_bytes, Some(0));
    // What the other node does while it is away, a secondary cannot know.
    script.cut();
    script.until("B misses A", |world| {
        world.status(B).is_some_and(|it| it.out_of_sync_bytes.is_none())
    });
    assert!(script.status(A).out_of_sync_bytes.is_some());
}

#[test]
fn a_secondary_that_missed_nothing_comes_back_without_a_byte() {
    let mut script = Script::pair(SYNC);
    script.write(0, 64);
    script.flush();
    script.pass(2_000);
    script.kill(B);
    script.pass(5_000);
    let before = script.world.net.resync_bytes;
    script.start(B);
    script.until_in_sync();
    assert_eq!(script.world.net.resync_bytes, before);
    script.check_copies();
}

#[test]
fn a_secondary_that_lost_power_gets_back_what_it_had_not_flushed() {
    let mut script = Script::pair(SYNC);
    script.write(0, 128);
    script.lose_power(B);
    script.write(300, 10);
    script.start(B);
    script.until_in_sync();
    assert_eq!(script.status(A).role, Role::Primary);
    script.check_copies();
}

#[test]
fn a_promoted_survivor_overwrites_what_the_dead_primary_had_alone() {
    for writes in [false, true] {
        let mut script = Script::pair(SYNC);
        script.write(0, 32);
        script.begin_write(64, 32);
        script.kill(A);
        script.pass(2_000);
        script.command(B, force()).unwrap();
        script.until_serving(B);
        if writes {
            script.write(16, 32);
        } else {
            script.read(64, 32);
        }
        script.start(A);
        script.until_in_sync();
        assert_eq!(script.status(B).role, Role::Primary);
        assert_eq!(script.status(A).role, Role::Secondary);
        script.check_copies();
    }
}

#[test]
fn an_async_failover_loses_at_most_the_budget_and_no_order() {
    let mut script = Script::pair(ReplicationMode::Async);
    for block in 0..20 {
        script.begin_write(block * 4, 4);
    }
    script.pass(1);
    script.kill(A);
    script.pass(2_000);
    script.command(B, force()).unwrap();
    script.until_serving(B);
    script.write(200, 4);
    script.start(A);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_primary_that_restarts_at_once_serves_again_and_replays() {
    let mut script = Script::pair(SYNC);
    script.write(0, 32);
    script.begin_write(64, 32);
    script.kill(A);
    script.start(A);
    script.until_serving(A);
    script.read(64, 32);
    script.until_in_sync();
    assert_eq!(script.status(B).disk, DiskState::UpToDate);
    script.check_copies();
}

#[test]
fn a_primary_that_lost_power_is_compared_before_it_serves() {
    let mut script = Script::pair(SYNC);
    script.write(0, 128);
    script.lose_power(A);
    script.cut();
    script.start(A);
    script.pass(5_000);
    assert_eq!(script.status(A).disk, DiskState::Outdated);
    assert!(!script.status(A).serving);
    script.mend();
    script.until("A is whole", |world| {
        world.status(A).is_some_and(|status| status.disk == DiskState::UpToDate)
    });
    if script.status(A).role == Role::Secondary && script.status(B).role == Role::Secondary {
        script.command(A, promote()).unwrap();
    }
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn after_a_power_cut_of_both_what_was_flushed_is_there() {
    let mut script = Script::pair(SYNC);
    script.write(0, 128);
    script.flush();
    script.write(64, 128);
    script.lose_power(A);
    script.lose_power(B);
    script.start(A);
    script.start(B);
    script.pass(3_000);
    if script.status(A).role == Role::Secondary {
        script.command(A, promote()).unwrap();
    }
    script.until_serving(A);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn two_histories_are_a_split_brain_and_stand_still_until_resolved() {
    let mut script = Script::pair(SYNC);
    script.part_ways();
    let accept = Command::Promote { force: true, accept_data_loss: true };
    script.command(B, accept).unwrap();
    script.world.disconnect_clients(A);
    script.until("B serves", |world| world.status(B).is_some_and(|status| status.serving));
    while script.world.clients.node_of(0) != Some(B) {
        script.world.disconnect_clients(A);
        script.pass(50);
    }
    script.write(16, 8);
    let data = [A, B].map(|at| script.world.nodes[at].files.data.clone());
    script.mend();
    script.until("both say split brain", |world| {
        [A, B].iter().all(|at| world.status(*at).is_some_and(|it| it.split_brain.is_some()))
    });
    script.pass(5_000);
    for at in [A, B] {
        assert_eq!(script.status(at).replication, ReplicationStatus::Off);
        for block in 0..64 {
            assert!(script.world.nodes[at].files.data.has_same_block(&data[at], block));
        }
    }
    script.command(A, Command::Resolve { keep: Side::Second }).unwrap();
    script.until_in_sync();
    for block in 0..64 {
        assert!(script.world.nodes[A].files.data.has_same_block(&data[B], block), "{block}");
    }
}

#[test]
fn an_image_of_yesterday_is_found_and_filled_up() {
    let mut script = Script::pair(SYNC);
    script.write(0, 32);
    script.flush();
    script.pass(2_000);
    let saved = script.world.nodes[B].files.clone();
    script.kill(B);
    script.start(B);
    script.until_in_sync();
    script.write(8, 64);
    script.flush();
    script.pass(3_000);
    script.lose_power(B);
    script.world.nodes[B].files = saved;
    script.world.compare_all();
    script.start(B);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_resync_that_is_cut_goes_on_and_its_target_cannot_be_promoted() {
    let mut script = Script::pair(SYNC);
    script.kill(B);
    script.write(0, 1000);
    script.start(B);
    script.until("a resync runs", |world| {
        world.status(B).is_some_and(|status| status.disk == DiskState::Inconsistent)
    });
    script.kill(A);
    script.pass(2_000);
    let accept = Command::Promote { force: true, accept_data_loss: true };
    assert!(script.command(B, accept).is_err());
    script.start(A);
    script.until_serving(A);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_replica_made_anew_is_compared_whole_and_gets_only_what_differs() {
    let mut script = Script::pair(SYNC);
    script.write(0, 512);
    script.flush();
    script.pass(2_000);
    script.kill(B);
    script.write(512, 20);
    script.world.make_anew(B);
    let before = script.world.net.resync_bytes;
    script.start(B);
    script.until_in_sync();
    let sent = script.world.net.resync_bytes - before;
    assert!(sent <= 20 * 4096 * 102 / 100, "{sent} bytes were sent");
    script.check_copies();
}

/// A checkpoint that is under way when a replica takes the place of another one says nothing of the new one.
#[test]
fn what_was_known_of_a_replica_that_is_gone_is_not_said_of_the_one_made_anew() {
    for period in 1..=30 {
        let mut plan = Plan::calm(SYNC, 16 << 20);
        plan.limits.checkpoint_every = Duration::from_millis(period);
        let mut script = Script::with_plan(plan);
        script.write(0, 512);
        script.flush();
        script.pass(2_000);
        script.kill(B);
        script.world.make_anew(B);
        script.start(B);
        let is_filling = |world: &World| {
            world.status(B).is_some_and(|status| {
                status.disk == DiskState::Inconsistent && status.resync.is_some()
            })
        };
        let mut block = 0;
        while !is_filling(&script.world) {
            block = (block + 1) % 1000;
            script.begin_write(block, 1);
            script.pass(1);
        }
        script.until_in_sync();
        let [known, mine] = [A, B].map(|at| script.world.nodes[at].superblock().clone());
        assert_eq!(known.peer_replica_id, mine.replica_id);
        assert!(known.peer_applied <= mine.applied, "every {period} ms: {known:?}");
    }
}

/// Both lost power, and both operators distrust their copy: nobody may choose but they, and what they
/// are told to type ends it.
#[test]
fn two_copies_that_were_both_given_up_are_one_again_after_what_explain_says() {
    for rebuilt in [A, B] {
        let mut script = Script::pair(SYNC);
        script.write(0, 64);
        script.flush();
        script.begin_write(64, 64);
        script.pass(1);
        script.lose_power(A);
        script.lose_power(B);
        script.cut();
        for at in [A, B] {
            script.start(at);
            script.pass(1_000);
            script.command(at, Command::Invalidate).unwrap();
        }
        script.mend();
        let says = |script: &Script, at: usize, words: &str| {
            script.status(at).explain.next.contains(words)
        };
        script.until("both wait for an operator", |world| {
            [A, B]
                .iter()
                .all(|at| world.status(*at).is_some_and(|it| it.explain.next.contains("--rebuild")))
        });
        for at in [A, B] {
            assert!(says(&script, at, "stop hotpair") && says(&script, at, "--from peer"));
            assert!(script.command(at, promote()).is_err());
        }
        script.kill(rebuilt);
        script.world.make_anew(rebuilt);
        script.start(rebuilt);
        script.until("both are whole", World::is_in_sync);
        if script.status(A).role == Role::Secondary && script.status(B).role == Role::Secondary {
            script.command(A, promote()).unwrap();
        }
        script.until_in_sync();
        script.check_copies();
    }
}

#[test]
fn a_copy_that_is_being_filled_cannot_be_given_up_and_so_become_a_whole_one() {
    let mut script = Script::pair(SYNC);
    script.kill(B);
    script.write(0, 1000);
    script.start(B);
    script.until("a resync runs", |world| {
        world.status(B).is_some_and(|status| status.disk == DiskState::Inconsistent)
    });
    script.kill(A);
    script.pass(2_000);
    assert!(script.command(B, Command::Invalidate).is_err());
    let accept = Command::Promote { force: true, accept_data_loss: true };
    assert!(script.command(B, accept).is_err());
    assert_eq!(script.status(B).disk, DiskState::Inconsistent);
    script.start(A);
    script.until_serving(A);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_write_that_only_the_peer_has_stays_marked_until_it_is_here_too() {
    let mut script = Script::pair(SYNC);
    script.write(0, 32);
    script.flush();
    script.world.nodes[A].trouble.stalled_until = u64::MAX;
    for block in 0..16 {
        script.begin_write(2 * block, 1);
    }
    script.until("the peer has them", |world| world.differences.count() == 16);
    // Longer than the unflushed window waits: the peer has made them stable and said so.
    script.pass(2_000);
    script.kill(A);
    script.start(A);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_read_never_finds_a_write_that_a_failover_takes_back() {
    let mut script = Script::pair(SYNC);
    script.write(0, 32);
    script.flush();
    script.cut();
    for block in 0..32 {
        script.begin_read(block, 1);
        script.begin_write(block, 1);
    }
    script.pass(50);
    script.kill(A);
    script.pass(3_000);
    script.command(B, force()).unwrap();
    script.until_serving(B);
    script.read(0, 32);
    script.world.ghost.check_history().unwrap_or_else(|broken| panic!("{broken}"));
}

#[test]
fn a_primary_that_leaves_while_both_meet_makes_the_other_say_that_it_is_behind() {
    let mut script = Script::pair(SYNC);
    script.write(0, 32);
    let now = script.world.now;
    script.world.net.reset_any(now);
    let is_meeting = |script: &Script| {
        let core = script.world.nodes[A].core().unwrap();
        format!("{core:?}").contains("phase: Waiting")
    };
    while !is_meeting(&script) {
        let next = script.world.now + millis(1) / 10;
        script.world.run_until(next).unwrap();
    }
    script.command(A, Command::Disconnect).unwrap();
    script.write(64, 8);
    let veto = script.world.nodes[B].superblock().veto;
    assert_eq!(veto.map(|veto| veto.reason), Some(VetoReason::Evicted));
    script.command(A, Command::Connect).unwrap();
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn what_both_acknowledged_in_a_replay_survives_the_power_loss_of_one() {
    for seed in 1..=16 {
        let calm = Plan::calm(SYNC, 16 << 20);
        let limits = Limits { resync_rate: Some(1 << 20), ..calm.limits.clone() };
        let mut script = Script::with_plan(Plan { seed, limits, ..calm });
        script.write(0, 900);
        script.cut();
        script.until("solo", |world| world.status(A).is_some_and(|status| status.solo));
        script.mend();
        script.until("a replay runs", |world| {
            world.status(A).is_some_and(|it| it.replication == ReplicationStatus::SyncSource)
        });
        script.write(1000, 16);
        assert!(!script.world.is_in_sync());
        assert_eq!(script.status(B).disk, DiskState::UpToDate);
        script.lose_power(A);
        // B has all of it, and kept its power.
        script.world.ghost.excuse = Excuse::None;
        script.start(A);
        script.until_serving(A);
        script.until_in_sync();
        script.check_copies();
    }
}

#[test]
fn a_secondary_whose_disk_hangs_does_not_keep_the_primary_from_going_on_alone() {
    let mut script = Script::pair(SYNC);
    script.write(0, 32);
    script.world.nodes[B].trouble.stalled_until = u64::MAX;
    let request = script.begin_write(0, 32);
    // A sync that begins when the link is lost takes longer than the pause before the next one.
    let (began, mut connected) = (script.world.now, script.world.now);
    while script.world.now - began < millis(60_000) {
        script.pass(1);
        let now = script.world.now;
        if script.world.nodes[A].awake().is_none_or(|it| it.link.is_none()) {
            connected = now;
        } else if now - connected > millis(2_000) {
            script.world.nodes[A].trouble.stalled_until = now + millis(500);
        }
    }
    assert!(script.world.clients.is_settled(request), "the write is held for a minute");
    // And then the one that hangs does not stop it each time that they are connected.
    let began = script.world.now;
    let mut count = 0_u64;
    while script.world.now - began < millis(60_000) {
        script.write(8, 1);
        script.pass(10);
        count += 1;
    }
    assert!(count > 1_000, "{count} writes in a minute");
}

/// B gets ready to meet late, and hears meanwhile what A has made stable since its Hello. Beside that Hello it
/// would make A a copy of yesterday.
#[test]
fn what_becomes_stable_while_the_nodes_meet_makes_no_old_copy() {
    let mut plan = Plan { witness: Some(WitnessPlan::calm()), ..Plan::calm(SYNC, 16 << 20) };
    plan.limits.checkpoint_every = Duration::from_secs(1);
    let mut script = Script::with_plan(plan);
    until_eligible(&mut script, Eligible::Both);
    script.kill(B);
    script.world.nodes[B].settings.checkpoint_every = Duration::from_millis(300);
    script.start(B);
    is_whole_again(&mut script);
    script.world.kill_witness();
    // B makes a checkpoint, and A will make its next one while they meet.
    let is_due = |world: &World, since: u64| {
        let process = world.nodes[B].process.as_ref().unwrap();
        let writes_map = process.io.values().any(|work| matches!(work, Work::Map { .. }));
        writes_map && (millis(20)..millis(500)).contains(&(world.now - since))
    };
    let (mut recorded, mut since) = (script.world.nodes[A].superblock().applied, 0);
    for block in (0..64).cycle().take(2_000) {
        let write = script.begin_write(block, 1);
        script.until_exactly("a write is answered, or B writes its map", |world| {
            world.clients.is_settled(write) || is_due(world, since)
        });
        if is_due(&script.world, since) {
            break;
        }
        let newest = script.world.nodes[A].superblock().applied;
        if newest != recorded {
            (recorded, since) = (newest, script.world.now);
        }
    }
    assert!(is_due(&script.world, since));
    script.world.nodes[B].trouble.stalled_until = script.world.now + millis(2_500);
    script.begin_write(70, 1);
    script.pass(2);
    let now = script.world.now;
    script.world.net.reset_any(now);
    script.until_in_sync();
    script.check_copies();
    assert!(script.status(A).role == Role::Primary);
}
