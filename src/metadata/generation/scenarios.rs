//! The worked scenarios of the design: A is the primary and sorts first, B its secondary.

use super::tests::{generation, node};
use super::*;
use crate::units::{Sequence, Transfer};

fn a() -> Standpoint {
    node(Side::First)
}

fn b() -> Standpoint {
    Standpoint { served_epoch: Epoch(2), ..node(Side::Second) }
}

/// It wrote alone: a new generation and marks.
fn wrote_alone(before: Standpoint, id: u128) -> Standpoint {
    let history = before.generation.into_iter().chain(before.history).collect();
    let epoch = Epoch(before.epoch.0 + 4);
    Standpoint {
        generation: Some(generation(id)),
        history,
        role: Role::Primary,
        serve_mode: ServeMode::Solo,
        epoch,
        served_epoch: epoch,
        marks: 9,
        ..before
    }
}

/// It runs and had writes in flight when the link went.
fn cut_off(before: Standpoint) -> Standpoint {
    Standpoint { role: Role::Primary, serve_mode: ServeMode::Paired, marks: 3, ..before }
}

fn lost_power(before: Standpoint) -> Standpoint {
    Standpoint {
        role: Role::Secondary,
        disk: DiskState::Outdated,
        disk_reason: DiskReason::LostPower,
        marks: 1024,
        ..before
    }
}

/// What A sees, by which row.
fn verdict(a: &Standpoint, b: &Standpoint) -> (Outcome, u8) {
    let decision = decide(a, b);
    assert_eq!(decide(b, a).outcome, decision.outcome.mirrored());
    (decision.outcome, decision.row)
}

const A_REPLAYS: Outcome = Outcome::Source(Transfer::Replay);
const A_SENDS: Outcome = Outcome::Source(Transfer::Resync);
const A_SENDS_ALL: Outcome = Outcome::Source(Transfer::ResyncAll);
const B_SENDS: Outcome = Outcome::Target(Transfer::Resync);

#[test]
fn a_link_blip_with_writes_in_flight_is_replayed() {
    assert_eq!(verdict(&cut_off(a()), &b()), (A_REPLAYS, 19));
}

#[test]
fn a_link_blip_in_async_with_something_at_risk_is_resynced() {
    let mode = ReplicationMode::Async;
    let a = Standpoint { mode, at_risk_bytes: 4096, ..cut_off(a()) };
    assert_eq!(verdict(&a, &Standpoint { mode, ..b() }), (A_SENDS, 19));
}

#[test]
fn b_away_while_a_wrote_alone_is_resynced() {
    assert_eq!(verdict(&wrote_alone(a(), 2), &b()), (A_SENDS, 14));
}

#[test]
fn b_away_while_a_wrote_nothing_is_replayed() {
    let a = Standpoint { serve_mode: ServeMode::Solo, ..cut_off(a()) };
    assert_eq!(verdict(&a, &b()), (A_REPLAYS, 19));
}

#[test]
fn b_lost_power_and_is_resynced_whether_a_went_on_or_not() {
    assert_eq!(verdict(&wrote_alone(a(), 2), &lost_power(b())), (A_SENDS, 14));
    assert_eq!(verdict(&cut_off(a()), &lost_power(b())), (A_SENDS, 18));
}

#[test]
fn a_killed_and_b_promoted_and_written_to_is_resynced_to_a() {
    let a = Standpoint { marks: 3, ..a() };
    assert_eq!(verdict(&a, &wrote_alone(b(), 2)), (B_SENDS, 15));
    let mode = ReplicationMode::Async;
    let a = Standpoint { mode, at_risk_bytes: 4096, ..a };
    assert_eq!(verdict(&a, &Standpoint { mode, ..wrote_alone(b(), 2) }), (B_SENDS, 15));
}

#[test]
fn a_killed_and_b_promoted_without_writes_undoes_what_a_never_acknowledged() {
    let a = Standpoint { marks: 3, ..a() };
    let b = Standpoint { role: Role::Primary, epoch: Epoch(9), served_epoch: Epoch(9), ..b() };
    assert_eq!(verdict(&a, &b), (B_SENDS, 19));
}

#[test]
fn a_killed_and_back_at_once_is_replayed_because_it_served_last() {
    assert_eq!(verdict(&Standpoint { marks: 3, ..a() }, &b()), (A_REPLAYS, 20));
}

#[test]
fn a_lost_power_and_is_filled_from_b_which_has_what_was_acknowledged() {
    assert_eq!(verdict(&lost_power(a()), &b()), (B_SENDS, 18));
}

#[test]
fn both_lost_power_and_a_served_last() {
    let (a, b) = (lost_power(a()), lost_power(b()));
    assert_eq!(verdict(&a, &b), (A_SENDS, 20));
    let reason = decide(&b, &a).reason;
    assert_eq!(reason, "both lost power; unflushed writes may be missing; the peer served last");
}

#[test]
fn a_wrote_alone_and_b_was_forced_and_wrote_is_a_split_brain() {
    let (a, b) = (wrote_alone(a(), 2), wrote_alone(b(), 3));
    assert_eq!(verdict(&a, &b), (Outcome::SplitBrain, 8));
    let a = Standpoint { role: Role::Secondary, ..a };
    assert_eq!(verdict(&a, &b), (Outcome::SplitBrain, 13));
    let reason = decide(&a, &b).reason;
    assert!(reason.ends_with("(7-0000000000000002 here, 7-0000000000000003 on the peer, both from 7-0000000000000001)"), "{reason}");
}

#[test]
fn an_old_image_of_b_is_found_and_compared_whole() {
    let by_instance = Standpoint { instances: vec![Instance(4)], ..b() };
    let older = Applied { epoch: Epoch(5), sequence: Sequence(7) };
    let by_version = Standpoint { applied: older, ..b() };
    let a = cut_off(a());
    assert_eq!(verdict(&a, &by_instance), (A_SENDS_ALL, 17));
    assert_eq!(verdict(&a, &by_version), (A_SENDS_ALL, 17));
    assert_eq!(verdict(&a, &lost_power(b())), (A_SENDS, 18), "younger than the checkpoint");
    let ahead = wrote_alone(a, 2);
    assert_eq!(verdict(&ahead, &by_instance), (A_SENDS_ALL, 14));
}

#[test]
fn a_resync_that_was_cut_goes_on() {
    let a = wrote_alone(a(), 2);
    let b = Standpoint {
        disk: DiskState::Inconsistent,
        disk_reason: DiskReason::Resync,
        resync_source: a.generation,
        ..b()
    };
    assert_eq!(verdict(&a, &b), (A_SENDS, 9));
    assert_eq!(verdict(&wrote_alone(a, 3), &b), (A_SENDS, 9));
}

#[test]
fn a_resync_whose_source_lost_its_generation_is_a_split_brain() {
    let b = Standpoint {
        disk: DiskState::Inconsistent,
        disk_reason: DiskReason::Resync,
        resync_source: Some(generation(2)),
        ..b()
    };
    assert_eq!(verdict(&a(), &b), (Outcome::SplitBrain, 10));
}

#[test]
fn the_end_of_a_resync_that_b_never_heard_of_is_sent_again() {
    let a = Standpoint { marks: 0, serve_mode: ServeMode::Paired, ..wrote_alone(a(), 2) };
    let b = Standpoint {
        disk: DiskState::Inconsistent,
        disk_reason: DiskReason::Resync,
        resync_source: a.generation,
        ..b()
    };
    assert_eq!(verdict(&a, &b), (A_SENDS, 9));
    let complete = Standpoint {
        disk: DiskState::UpToDate,
        disk_reason: DiskReason::None,
        generation: a.generation,
        history: a.history.clone(),
        resync_source: None,
        ..b
    };
    assert_eq!(verdict(&a, &complete), (Outcome::InSync, 16));
}

#[test]
fn the_deleted_metadata_of_b_means_that_all_of_it_is_compared() {
    for disk_reason in [DiskReason::Fresh, DiskReason::Rebuilt] {
        let b = Standpoint {
            resource_id: ResourceId(0),
            replica_id: ReplicaId(44),
            peer_replica_id: ReplicaId(0),
            generation: None,
            disk: DiskState::Inconsistent,
            disk_reason,
            instances: vec![Instance(1)],
            peer_instance: Instance(0),
            ..b()
        };
        assert_eq!(verdict(&cut_off(a()), &b), (A_SENDS_ALL, 5));
        let a = Standpoint { generation: None, disk: DiskState::Inconsistent, ..a() };
        assert_eq!(verdict(&a, &b), (Outcome::Refused, 4));
    }
}

#[test]
fn the_disk_of_another_pair_is_refused_with_both_ids() {
    let other = Standpoint { resource_id: ResourceId(0xbeef), ..b() };
    assert_eq!(verdict(&a(), &other), (Outcome::Unrelated, 1));
    let reason = decide(&a(), &other).reason;
    assert!(reason.contains("0001 here") && reason.contains("beef on the peer"), "{reason}");
    let nothing_shared = Standpoint { generation: Some(generation(9)), ..b() };
    assert_eq!(verdict(&a(), &nothing_shared), (Outcome::Unrelated, 11));
}
