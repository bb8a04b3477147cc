//! Whether the simulator finds bugs: each planted one must break an invariant within some seeds, or
//! make a scenario fail.
//!
//! `HOTPAIR_PLANTED=all` looks for each, a name for one; else the commit chooses three.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};

use hotpair::promotion::controller::planted::PlantedRule;
use hotpair::replica::planted::Planted;
use hotpair::units::ReplicationMode;

use crate::alone::AlonePlan;
use crate::plan::Plan;
use crate::run::run;
use crate::scenarios::{alone, failover, moments, pledge, services};
use crate::witness::WitnessPlan;

/// Seeds in which a planted bug must show.
const SEEDS_MAX: u64 = 400;

#[test]
fn planted_bugs_are_found() {
    let chosen = chosen();
    let mut needed = Vec::new();
    let mut missed = Vec::new();
    for bug in chosen {
        if is_walked_into(bug) {
            println!("planted {bug:?}: found by a scenario");
        } else if let Some((count, invariant)) = seeds_until_found(bug) {
            println!("planted {bug:?}: found after {count} seeds by {invariant}");
            needed.push(count);
        } else {
            println!("planted {bug:?}: NOT found in {SEEDS_MAX} seeds");
            missed.push(bug);
        }
    }
    needed.sort_unstable();
    println!("planted: median {:?} seeds, {} missed", needed.get(needed.len() / 2), missed.len());
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// The rules of who may serve: each broken one must show within some seeds with an arbiter.
#[test]
fn broken_rules_of_promotion_are_found() {
    let wanted = env::var("HOTPAIR_PLANTED").unwrap_or_default();
    let mut missed = Vec::new();
    let chosen: Vec<PlantedRule> = match wanted.as_str() {
        "" => {
            let at = usize::try_from(crate::fresh::seed_of_the_commit() % 7919).unwrap();
            (0..2).map(|step| PlantedRule::ALL[(at + step * 4) % PlantedRule::ALL.len()]).collect()
        }
        "all" => PlantedRule::ALL.to_vec(),
        name => {
            let named = |rule: &PlantedRule| format!("{rule:?}").eq_ignore_ascii_case(name);
            PlantedRule::ALL.into_iter().filter(named).collect()
        }
    };
    for rule in chosen {
        if is_rule_walked_into(rule) {
            println!("planted {rule:?}: found by a scenario");
            continue;
        }
        let found = (1..=SEEDS_MAX).find_map(|count| {
            let mut plan = Plan::draw_with_witness(0xa_0000_0000 + count);
            if let Some(witness) = &mut plan.witness {
                witness.planted = Some(rule);
            }
            run(&plan, None).broken.map(|broken| (count, broken.invariant))
        });
        if let Some((count, invariant)) = found {
            println!("planted {rule:?}: found after {count} seeds by {invariant}");
        } else {
            println!("planted {rule:?}: NOT found in {SEEDS_MAX} seeds");
            missed.push(rule);
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

fn seeds_until_found(bug: Planted) -> Option<(u64, &'static str)> {
    (1..=SEEDS_MAX).find_map(|count| {
        let mut plan = Plan::draw(0x9_0000_0000 + count);
        plan.planted = Some(bug);
        run(&plan, None).broken.map(|broken| (count, broken.invariant))
    })
}

/// A scenario that walks into a bug.
type Walk = fn(Plan);

/// Bugs that seeds seldom meet, and a scenario for each.
const WALKED_INTO: &[(Planted, Walk)] = &[
    (Planted::LowerEpochAccepted, moments::comes_back_after_a_promotion),
    (Planted::EndBeforeTargetSynced, moments::flushes_alone_near_the_end),
    (Planted::FuaIgnoredOnZeroes, moments::zeroes_before_both_lose_power),
];

/// Whether the scenario of a bug fails, if it has one.
fn is_walked_into(bug: Planted) -> bool {
    WALKED_INTO.iter().filter(|(walked, _)| *walked == bug).any(|(_, walk)| {
        let plan = Plan { planted: Some(bug), ..Plan::calm(ReplicationMode::Sync, 16 << 20) };
        catch_unwind(AssertUnwindSafe(|| walk(plan))).is_err()
    })
}

/// A scenario that walks into a broken rule.
type WalkWithWitness = fn(WitnessPlan);

/// Rules that seeds seldom need, and a scenario for each.
const RULES_WALKED_INTO: &[(PlantedRule, WalkWithWitness)] = &[
    (PlantedRule::LeaseNotNeeded, failover::reads_across_a_pause),
    (PlantedRule::GrantsIgnored, failover::promotes_before_its_grant_is_over),
    (PlantedRule::GrantsForgotten, failover::promotes_after_a_restart),
    (PlantedRule::SoloOutlivesPair, failover::loses_the_answer_to_pair),
    (PlantedRule::NoStopBudget, services::loses_its_lease),
    (PlantedRule::PledgeLiftedEarly, pledge::loses_its_peer_when_the_pledge_is_void),
    (PlantedRule::PledgeLiftedAlone, pledge::loses_its_peer_when_the_pledge_is_void),
];

fn is_rule_walked_into(rule: PlantedRule) -> bool {
    RULES_WALKED_INTO.iter().filter(|(walked, _)| *walked == rule).any(|(_, walk)| {
        let witness = WitnessPlan { planted: Some(rule), ..WitnessPlan::calm() };
        catch_unwind(AssertUnwindSafe(|| walk(witness))).is_err()
    })
}

/// The rules of a pair without an arbiter: that a peer cannot be reached is never that it is off.
#[test]
fn broken_rules_without_an_arbiter_are_found() {
    for rule in [
        PlantedRule::PeerAssumedDead,
        PlantedRule::PromotedBySilence,
        PlantedRule::UnreachableIsOff,
    ] {
        let plan = AlonePlan { planted: Some(rule), ..AlonePlan::fenced() };
        let walk = || alone::cannot_fence(&plan);
        assert!(catch_unwind(AssertUnwindSafe(walk)).is_err(), "{rule:?} is not found");
    }
}

fn chosen() -> Vec<Planted> {
    let all = Planted::ALL.to_vec();
    match env::var("HOTPAIR_PLANTED").ok() {
        Some(word) if word == "all" => all,
        Some(word) => {
            let named = |bug: &Planted| format!("{bug:?}").eq_ignore_ascii_case(&word);
            all.into_iter().filter(named).collect()
        }
        None => {
            let at = usize::try_from(crate::fresh::seed_of_the_commit() % 7919).unwrap();
            (0..3).map(|step| all[(at + step * 7) % all.len()]).collect()
        }
    }
}
