//! Whether the searches with an arbiter find broken rules: each by the property that it endangers.

use hotpair::promotion::controller::planted::PlantedRule;
use hotpair::replica::planted::Planted;

use crate::bounds::{Bounds, Left};
use crate::search::search;
use crate::third::ThirdLeft;
use crate::wider::{deaf, followed, forced, handed, left_alone, pledging, put_back};
use crate::witnessed::{LITTLE, blackout, cut_off, records, repairing, secondary_restart};

/// A rule of promotion is broken: this property must fail.
fn finds(rule: PlantedRule, property: &'static str, bounds: &Bounds) {
    let bounds = Bounds { rule: Some(rule), ..bounds.clone() };
    finds_in(&format!("{rule:?}"), property, &bounds);
}

fn finds_in(bug: &str, property: &'static str, bounds: &Bounds) {
    let bounds = Bounds { only: Some(property), expected: &[], ..bounds.clone() };
    let broken = search(&bounds);
    println!("model: planted {bug} breaks {broken:?}");
    assert_eq!(broken, Some(property), "{bug}");
}

#[test]
fn m1_a_candidate_does_not_wait_for_its_grants() {
    finds(PlantedRule::GrantsIgnored, "FreshRead", &cut_off());
}

#[test]
fn m2_the_arbiter_ignores_the_lease() {
    finds(PlantedRule::LeaseIgnored, "FreshRead", &cut_off());
}

#[test]
fn m3_a_restart_forgets_what_was_granted() {
    finds(PlantedRule::GrantsForgotten, "FreshRead", &secondary_restart());
}

#[test]
fn m4_a_veto_is_lifted_before_the_peer_is_needed() {
    finds(PlantedRule::VetoLiftedBeforePaired, "PairedBeforeCandidate", &left_alone());
}

#[test]
fn m5_a_node_is_eligible_before_it_is_needed() {
    finds(PlantedRule::PairBeforePaired, "PairedBeforeEligible", &repairing());
}

#[test]
fn m6_a_late_pair_finds_the_epoch_of_a_solo() {
    finds(PlantedRule::SoloKeepsEpoch, "VetoBeforeSolo", &repairing());
}

#[test]
fn m6_a_grant_outlives_the_request_after_it() {
    finds(PlantedRule::SoloOutlivesPair, "VetoBeforeSolo", &repairing());
}

#[test]
fn m7_a_silent_peer_counts_as_dead() {
    let third = cut_off().third.map(|left| ThirdLeft { suspicions: 2, ..left });
    finds(PlantedRule::PeerAssumedDead, "OneWriter", &Bounds { third, ..cut_off() });
}

#[test]
fn m8_a_silent_owner_is_replaced_without_the_arbiter() {
    finds(PlantedRule::PromotedBySilence, "OneWriter", &deaf());
}

#[test]
fn m9_held_writes_are_answered_before_the_record() {
    let bounds = Bounds { planted: Some(Planted::SoloBeforeRecord), ..records() };
    finds_in("SoloBeforeRecord", "AckRule", &bounds);
}

#[test]
fn m10_a_record_of_the_same_owner_counts_as_an_answer() {
    finds(PlantedRule::AnswerByOwner, "VetoBeforeSolo", &repairing());
}

#[test]
fn m11_a_doubtful_primary_resumes() {
    let third = Some(ThirdLeft { looks: 1, epochs: 1, ..LITTLE });
    let left = Left { power_losses: 1, ..Left::default() };
    let bounds = Bounds { left, third, mortal: &[0], flushes_at_once: false, ..blackout() };
    finds(PlantedRule::DoubtfulResumes, "NoLostAck", &bounds);
}

#[test]
fn m12_a_doubtful_secondary_is_promoted() {
    let bounds = Bounds { mortal: &[1], ..doubt() };
    finds_in("DoubtForgotten", "NoLostAck", &bounds);
}

#[test]
fn m13_the_secondary_lifts_its_pledge_by_itself() {
    finds(PlantedRule::PledgeLiftedAlone, "VetoBeforeSolo", &pledging());
}

#[test]
fn m14_a_lost_record_counts() {
    finds(PlantedRule::LostRecordTrusted, "NoLostAck", &put_back());
}

#[test]
fn a_force_while_the_owner_has_a_lease() {
    finds(PlantedRule::LeaseIgnored, "RevokeBeforeGrant", &Bounds { lies: true, ..forced() });
}

#[test]
fn m15_the_pledge_is_lifted_while_the_primary_relies_on_it() {
    finds(PlantedRule::PledgeLiftedEarly, "VetoBeforeSolo", &pledging());
}

#[test]
fn m16_a_veto_is_given_while_a_promotion_is_asked_for() {
    let bounds = Bounds { comes_back: true, ..followed() };
    finds(PlantedRule::VetoWhileAsking, "ServiceComesBack", &bounds);
}

#[test]
fn m17_a_role_is_handed_over_unflushed() {
    finds(PlantedRule::HandoverUnflushed, "FlushedBeforeHandover", &handed());
}

#[test]
fn a_promise_is_stable_before_the_arbiter_is_asked() {
    finds(PlantedRule::AskedBeforePromise, "PromiseBeforeAsking", &records());
}

#[test]
fn reads_need_a_lease() {
    finds(PlantedRule::LeaseNotNeeded, "FreshRead", &cut_off());
}

/// A node forgets that it lost power with a write that it had not flushed.
fn doubt() -> Bounds {
    let third = blackout().third.map(|left| ThirdLeft { looks: 2, ..left });
    let planted = Some(Planted::DoubtForgotten);
    Bounds { third, planted, flushes_at_once: false, ..blackout() }
}
