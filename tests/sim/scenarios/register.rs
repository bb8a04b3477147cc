//! The core over the register of a directory: what waits for its driver, and what stays whole.

use hotpair::replica::{Command, ReplicationStatus};
use hotpair::units::{DiskState, ReplicationMode, Role};

use crate::plan::Plan;
use crate::script::{A, B, Script, promote};
use crate::world::{Event, RegisterSays, World};

fn pair() -> Script {
    let plan = Plan { is_register: true, ..Plan::calm(ReplicationMode::Sync, 16 << 20) };
    Script::with_plan(plan)
}

/// B misses writes and is back, and is not ready for them.
fn with_b_behind() -> Script {
    let mut script = pair();
    script.write(0, 4);
    script.flush();
    script.world.admits = false;
    script.kill(B);
    script.write(0, 4);
    script.start(B);
    script.until("B is to be filled", |world| {
        let status = world.status(A);
        status.is_some_and(|status| status.replication == ReplicationStatus::SyncSource)
    });
    script
}

#[test]
fn a_transfer_waits_until_the_target_is_ready_and_nobody_waits_for_it() {
    let mut script = with_b_behind();
    let before = script.world.net.resync_bytes;
    for round in 0..40 {
        script.write(round % 8, 1);
        script.pass(200);
    }
    assert_eq!(script.world.net.resync_bytes, before, "nothing was sent");
    assert!(script.status(A).solo && !script.world.is_in_sync());
    script.world.admits = true;
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_copy_that_is_to_be_filled_stays_one_that_clients_could_have_seen() {
    let mut script = with_b_behind();
    let status = script.status(B);
    assert_eq!(status.disk, DiskState::Outdated, "{status:#?}");
    let refused = script.command(B, promote()).unwrap_err();
    assert!(!refused.why.is_empty());
    script.kill(A);
    script.pass(2_000);
    assert!(script.command(B, promote()).is_err(), "it lacks what A acknowledged alone");
    script.world.operator.split_is_explained = true;
    script.world.ghost.excuse = crate::ghost::Excuse::Accepted;
    script.world.ghost.is_split = true;
    let accept = Command::Promote { force: true, accept_data_loss: true };
    script.command(B, accept).unwrap();
    script.until_serving(B);
}

#[test]
fn a_planned_end_of_serving_waits_for_the_last_of_what_clients_did() {
    let mut script = pair();
    script.world.settles = None;
    let typed = script.world.command(A, Command::Switchover).unwrap();
    script.pass(2_000);
    assert_eq!(script.status(A).role, Role::Primary);
    // Clients are served as long as that takes.
    script.write(0, 1);
    assert!(script.world.operator.take_answer(typed).is_none());
    let says = RegisterSays::Settled(Ok(()));
    let life = script.world.nodes[A].life;
    script.world.after(0, Event::Register { node: A, life, says });
    script.until("B serves", |world| {
        world.status(B).is_some_and(|status| status.role == Role::Primary)
    });
    script.until_in_sync();
}

#[test]
fn what_cannot_be_settled_is_not_handed_over() {
    let mut script = pair();
    script.world.settles = Some(Err("the peer takes nothing".to_owned()));
    for command in [Command::Switchover, Command::Demote] {
        let refused = script.command(A, command).unwrap_err();
        assert!(refused.why.contains("the peer takes nothing"), "{refused:?}");
        script.write(0, 1);
    }
    // A daemon that is told to stop stops, and a node without a peer has nobody to wait for.
    script.kill(B);
    script.write(0, 1);
    script.command(A, Command::Demote).unwrap();
    assert_eq!(script.status(A).role, Role::Secondary);
}

#[test]
fn a_copy_that_falls_back_does_not_count_until_it_was_filled_again() {
    let mut script = pair();
    script.write(0, 4);
    script.flush();
    script.world.admits = false;
    let life = script.world.nodes[B].life;
    let says = RegisterSays::FellBack;
    script.world.after(0, Event::Register { node: B, life, says });
    script.until("B does not count", |world| {
        world.status(B).is_some_and(|status| status.disk == DiskState::Outdated)
    });
    script.write(0, 4);
    assert!(script.status(A).solo);
    script.world.admits = true;
    script.until("B is filled again", World::is_in_sync);
    script.check_copies();
}

/// Whoever is about to serve cannot be kept from it any more, so it must not be taken for one that does not count.
#[test]
fn a_copy_that_falls_back_while_it_takes_over_counts_or_does_not_serve() {
    let mut by_b = 0;
    for step in 0..100 {
        let mut script = pair();
        script.write(0, 4);
        script.flush();
        script.world.command(A, Command::Switchover).unwrap();
        let life = script.world.nodes[B].life;
        let says = RegisterSays::FellBack;
        script.world.after(step * 500_000, Event::Register { node: B, life, says });
        script.pass(3_000);
        let is_primary = |at: &usize| script.status(*at).role == Role::Primary;
        let serving: Vec<usize> = [A, B].into_iter().filter(is_primary).collect();
        let [serving] = serving[..] else { panic!("step {step}: {serving:?}") };
        assert_eq!(script.status(serving).disk, DiskState::UpToDate, "step {step}: {serving}");
        by_b += usize::from(serving == B);
    }
    assert!((1..100).contains(&by_b), "{by_b}");
}

#[test]
fn a_register_that_lost_power_is_not_doubted() {
    let mut script = pair();
    script.begin_write(0, 64);
    script.pass(1);
    script.lose_power(B);
    script.start(B);
    script.pass(100);
    let status = script.status(B);
    assert_eq!(status.disk, DiskState::UpToDate, "{:?}", status.disk_reason);
}
