//! Facts about the verdict of any two standpoints.

use super::*;
use crate::units::{Sequence, Transfer};

/// Generation 1, 2 or 3; the number says nothing.
pub(super) fn generation(id: u128) -> Generation {
    Generation { number: 7, id: id << 64 }
}

/// A node that was last paired with the other one of these, has its data and nothing to say.
pub(super) fn node(side: Side) -> Standpoint {
    let (mine, theirs) = match side {
        Side::First => (11, 22),
        Side::Second => (22, 11),
    };
    let applied = Applied { epoch: Epoch(5), sequence: Sequence(100) };
    Standpoint {
        side,
        resource_id: ResourceId(1),
        replica_id: ReplicaId(mine),
        peer_replica_id: ReplicaId(theirs),
        size: 1 << 30,
        size_next: 0,
        generation: Some(generation(1)),
        history: Vec::new(),
        disk: DiskState::UpToDate,
        disk_reason: DiskReason::None,
        role: Role::Secondary,
        serve_mode: ServeMode::None,
        epoch: Epoch(5),
        served_epoch: Epoch(5),
        marks: 0,
        at_risk_bytes: 0,
        mode: ReplicationMode::Sync,
        applied,
        peer_applied: applied,
        instances: vec![Instance(u64::try_from(mine).unwrap())],
        peer_instance: Instance(u64::try_from(theirs).unwrap()),
        resync_source: None,
        resolution: None,
    }
}

/// None, and each of three generations with every history over the other two, possible or not.
fn lineages() -> Vec<(Option<Generation>, Vec<Generation>)> {
    let mut all = vec![(None, Vec::new())];
    for [current, a, b] in [[1, 2, 3], [2, 1, 3], [3, 1, 2]] {
        for history in [vec![], vec![a], vec![b], vec![a, b], vec![b, a]] {
            all.push((Some(generation(current)), history.into_iter().map(generation).collect()));
        }
    }
    all
}

/// Every state of a disk that the verdict distinguishes.
fn disks() -> Vec<(DiskState, DiskReason, Option<Generation>)> {
    let filled_from = |id| (DiskState::Inconsistent, DiskReason::Resync, Some(generation(id)));
    vec![
        (DiskState::UpToDate, DiskReason::None, None),
        (DiskState::Outdated, DiskReason::None, None),
        (DiskState::Outdated, DiskReason::LostPower, None),
        (DiskState::Outdated, DiskReason::HeldInMemory, None),
        (DiskState::Outdated, DiskReason::Invalidated, None),
        (DiskState::Inconsistent, DiskReason::Rebuilt, None),
        (DiskState::Inconsistent, DiskReason::Fresh, None),
        (DiskState::Inconsistent, DiskReason::Resync, None),
        filled_from(1),
        filled_from(2),
        (DiskState::Failed, DiskReason::IoError, None),
        (DiskState::Missing, DiskReason::None, None),
    ]
}

/// Every combination of what the verdict looks at, but for the resolution.
fn states(side: Side) -> Vec<Standpoint> {
    let mut all = Vec::new();
    for (generation, history) in lineages() {
        for (disk, disk_reason, resync_source) in disks() {
            for bits in 0..16_u64 {
                let mut one = Standpoint {
                    generation,
                    history: history.clone(),
                    disk,
                    disk_reason,
                    resync_source,
                    marks: bits & 1,
                    served_epoch: Epoch(5 + (bits >> 1 & 1)),
                    ..node(side)
                };
                if bits & 4 != 0 {
                    one.role = Role::Primary;
                }
                if bits & 8 != 0 {
                    one.instances = vec![Instance(99)];
                }
                all.push(one);
            }
        }
    }
    all
}

fn source_and_target<'a>(
    outcome: Outcome,
    mine: &'a Standpoint,
    theirs: &'a Standpoint,
) -> Option<(&'a Standpoint, &'a Standpoint, Transfer)> {
    match outcome {
        Outcome::Source(transfer) => Some((mine, theirs, transfer)),
        Outcome::Target(transfer) => Some((theirs, mine, transfer)),
        Outcome::InSync | Outcome::SplitBrain | Outcome::Unrelated | Outcome::Refused => None,
    }
}

fn relation(one: &Standpoint, other: &Standpoint) -> Option<Relation> {
    Some(one.lineage()?.relation_to(&other.lineage()?))
}

fn is_complete(node: &Standpoint) -> bool {
    matches!(node.disk, DiskState::UpToDate | DiskState::Outdated) && node.generation.is_some()
}

/// What must hold of every verdict between `a` and `b` that no operator has settled.
fn check_verdict(a: &Standpoint, b: &Standpoint, outcome: Outcome) {
    let relation = relation(a, b);
    let back_in_time = rolled_back(a, b) || rolled_back(b, a);
    if outcome == Outcome::InSync {
        assert!(is_complete(a) && is_complete(b) && a.marks + b.marks == 0 && !back_in_time);
        assert_eq!(relation, Some(Relation::Equal));
    }
    if let Some((source, target, transfer)) = source_and_target(outcome, a, b) {
        assert!(is_complete(source), "the source has nothing to give");
        assert_eq!(target.role, Role::Secondary, "a primary is overwritten");
        if is_complete(target) {
            let stands = source.lineage().zip(target.lineage()).map(|(s, t)| s.relation_to(&t));
            let has_all = matches!(stands, Some(Relation::Equal | Relation::Ahead));
            assert!(has_all, "the target has what its source lacks");
            assert!(
                relation != Some(Relation::Equal)
                    || !source.is_doubtful()
                    || target.is_doubtful()
                    || back_in_time
                    || target.disk_reason == DiskReason::Invalidated,
                "a doubtful node overwrites one that is not"
            );
        }
        let is_replay_safe = relation == Some(Relation::Equal)
            && is_complete(target)
            && !target.is_doubtful()
            && target.marks == 0;
        assert!(transfer != Transfer::Replay || is_replay_safe);
        let is_invalid = |node: &Standpoint| node.disk_reason == DiskReason::Invalidated;
        let is_unknown = back_in_time || target.is_fresh() || is_invalid(a) || is_invalid(b);
        assert!(!is_unknown || transfer == Transfer::ResyncAll, "marks are not enough");
    }
    let both_primary = a.role == Role::Primary && b.role == Role::Primary;
    if is_complete(a) && is_complete(b) && relation == Some(Relation::Diverged) {
        let contradict = a.lineage().unwrap().contradicts(&b.lineage().unwrap());
        let expected = if contradict { Outcome::Refused } else { Outcome::SplitBrain };
        assert_eq!(outcome, expected, "diverged stands still");
    }
    if both_primary {
        assert!(matches!(outcome, Outcome::Refused | Outcome::SplitBrain | Outcome::Unrelated));
    }
}

#[test]
fn any_two_nodes_reach_mirrored_and_safe_verdicts() {
    let (firsts, seconds) = (states(Side::First), states(Side::Second));
    let check_all = |firsts: &[Standpoint]| {
        for a in firsts {
            for b in &seconds {
                let (mine, theirs) = (rule(a, b), rule(b, a));
                let outcome = mine.outcome(a.side);
                assert_eq!(outcome, theirs.outcome(b.side).mirrored(), "{a:?}\n{b:?}");
                let checked = std::panic::catch_unwind(|| check_verdict(a, b, outcome));
                assert!(checked.is_ok(), "{mine:?}\n{a:?}\n{b:?}");
            }
        }
    };
    let (one, other) = firsts.split_at(firsts.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| check_all(one));
        check_all(other);
    });
}

#[test]
fn equal_and_complete_nodes_always_find_a_way() {
    for a in states(Side::First).iter().filter(|a| is_complete(a)) {
        for b in states(Side::Second).iter().filter(|b| is_complete(b)) {
            let stuck = relation(a, b) != Some(Relation::Equal)
                || a.role == Role::Primary
                || b.role == Role::Primary;
            let decision = decide(a, b);
            assert!(
                stuck
                    || decision.outcome == Outcome::InSync
                    || source_and_target(decision.outcome, a, b).is_some()
                    || decision.row == 17
            );
        }
    }
}

/// All ways in which three generations can have come from each other: each one's parent, zero
/// for none, is a smaller one.
fn family_trees() -> Vec<[usize; 4]> {
    let mut all = Vec::new();
    for second in 0..=1 {
        for third in 0..=2 {
            all.push([0, 0, second, third]);
        }
    }
    all
}

/// The generation itself and all it was made from, newest first.
fn ancestors(tree: [usize; 4], of: usize) -> Vec<usize> {
    let mut line = vec![of];
    while let Some(&last) = line.last()
        && tree[last] != 0
    {
        line.push(tree[last]);
    }
    line
}

#[test]
fn the_verdict_knows_what_a_family_tree_knows() {
    for tree in family_trees() {
        for (one, other) in (1..=3).flat_map(|one| (1..=3).map(move |other| (one, other))) {
            let (lines, marks) = ([one, other].map(|of| ancestors(tree, of)), 1);
            let [a, b] =
                [(Side::First, &lines[0]), (Side::Second, &lines[1])].map(|(side, line)| {
                    let mut ids = line.iter().map(|&id| generation(u128::try_from(id).unwrap()));
                    let generation = ids.next();
                    Standpoint { generation, history: ids.collect(), marks, ..node(side) }
                });
            let common = lines[0].iter().find(|id| lines[1].contains(id));
            let found = a.lineage().unwrap().common_ancestor(&b.lineage().unwrap());
            assert_eq!(found, common.map(|&id| generation(u128::try_from(id).unwrap())));
            let (relation, row) = if one == other {
                (Relation::Equal, 22)
            } else if lines[0].contains(&other) {
                (Relation::Ahead, 14)
            } else if lines[1].contains(&one) {
                (Relation::Behind, 15)
            } else if common.is_some() {
                (Relation::Diverged, 13)
            } else {
                (Relation::Unrelated, 11)
            };
            let found = a.lineage().unwrap().relation_to(&b.lineage().unwrap());
            assert_eq!(found, relation, "{tree:?} {one} {other}");
            assert_eq!(decide(&a, &b).row, row, "{tree:?} {one} {other}");
        }
    }
}

#[test]
fn a_resolution_settles_exactly_what_it_names() {
    let ids = || (1..=3_u128).map(generation);
    let pairs = ids().flat_map(|kept| ids().map(move |dropped| Resolution { kept, dropped }));
    let resolutions: Vec<_> = std::iter::once(None).chain(pairs.map(Some)).collect();
    let choices = |side| {
        let mut all = Vec::new();
        for (generation, history) in lineages() {
            for disk in [DiskState::UpToDate, DiskState::Outdated, DiskState::Inconsistent] {
                for &resolution in &resolutions {
                    let history = history.clone();
                    all.push(Standpoint { generation, history, disk, resolution, ..node(side) });
                }
            }
        }
        all
    };
    let seconds = choices(Side::Second);
    for a in &choices(Side::First) {
        for b in &seconds {
            let (mine, theirs) = (decide(a, b), decide(b, a));
            assert_eq!(mine.outcome, theirs.outcome.mirrored(), "{a:?}\n{b:?}");
            if mine.row != 7 {
                continue;
            }
            let (source, target, _) = source_and_target(mine.outcome, a, b).unwrap();
            let named = Resolution {
                kept: source.generation.unwrap(),
                dropped: target.generation.unwrap(),
            };
            assert!(is_complete(source) && named.kept != named.dropped);
            let stored: Vec<_> = [a, b].iter().filter_map(|node| node.resolution).collect();
            assert!(!stored.is_empty() && stored.iter().all(|stored| *stored == named));
        }
    }
}

#[test]
fn a_resolution_does_not_overwrite_a_primary() {
    let resolution = Some(Resolution { kept: generation(2), dropped: generation(3) });
    let a = Standpoint {
        generation: Some(generation(2)),
        history: vec![generation(1)],
        resolution,
        ..node(Side::First)
    };
    let b = Standpoint {
        generation: Some(generation(3)),
        history: vec![generation(1)],
        role: Role::Primary,
        ..node(Side::Second)
    };
    assert_eq!((decide(&a, &b).outcome, decide(&a, &b).row), (Outcome::Refused, 0));
    let b = Standpoint { role: Role::Secondary, ..b };
    assert_eq!(decide(&a, &b).outcome, Outcome::Source(Transfer::Resync));
    let b = Standpoint { generation: Some(generation(4)), ..b };
    assert_eq!(decide(&a, &b).outcome, Outcome::SplitBrain, "it wrote since it was settled");
}

#[test]
fn marks_about_another_replica_mean_nothing() {
    let primary = Standpoint { role: Role::Primary, ..node(Side::First) };
    let strangers = [
        (Standpoint { peer_replica_id: ReplicaId(33), ..primary.clone() }, node(Side::Second)),
        (primary, Standpoint { peer_replica_id: ReplicaId(0), ..node(Side::Second) }),
    ];
    for (a, b) in &strangers {
        assert_eq!(decide(a, b).outcome, Outcome::Source(Transfer::ResyncAll));
    }
}

#[test]
fn what_was_stored_of_another_replica_says_nothing_about_this_one() {
    let a = Standpoint { instances: vec![Instance(99)], ..node(Side::First) };
    let b = node(Side::Second);
    assert!(rolled_back(&a, &b));
    assert!(!rolled_back(&a, &Standpoint { peer_replica_id: ReplicaId(33), ..b.clone() }));
    let never_met = Standpoint { peer_instance: Instance(0), ..b.clone() };
    assert!(!rolled_back(&a, &never_met));
    let older = Applied { epoch: Epoch(5), sequence: Sequence(99) };
    assert!(rolled_back(&Standpoint { applied: older, ..node(Side::First) }, &never_met));
}

#[test]
fn an_operators_word_on_the_data_counts_as_rolled_back() {
    let b = node(Side::Second);
    for disk_reason in [DiskReason::Invalidated, DiskReason::Rebuilt] {
        let disk = DiskState::Outdated;
        let a = Standpoint { disk, disk_reason, served_epoch: Epoch(9), ..node(Side::First) };
        let decision = decide(&a, &b);
        assert_eq!((decision.outcome, decision.row), (Outcome::Target(Transfer::ResyncAll), 17));
    }
}

#[test]
fn sizes_may_differ_only_by_the_resize_under_way() {
    let a = node(Side::First);
    let with = |size, size_next| Standpoint { size, size_next, ..node(Side::Second) };
    let grown = 2 << 30;
    for (b, outcome) in [
        (with(1 << 30, grown), Outcome::InSync),
        (with(grown, 0), Outcome::Refused),
        (with(512, 1 << 30), Outcome::InSync),
        (with(512, grown), Outcome::Refused),
    ] {
        assert_eq!(decide(&a, &b).outcome, outcome, "{} {}", b.size, b.size_next);
    }
    let a = Standpoint { size_next: grown, ..a };
    assert_eq!(decide(&a, &with(grown, 0)).outcome, Outcome::InSync);
}

#[test]
fn identities_are_checked_before_anything_else() {
    let a = node(Side::First);
    let cases = [
        (Standpoint { resource_id: ResourceId(2), ..node(Side::Second) }, Outcome::Unrelated, 1),
        (Standpoint { replica_id: ReplicaId(11), ..node(Side::Second) }, Outcome::Refused, 2),
        (node(Side::First), Outcome::Refused, 2),
    ];
    for (b, outcome, row) in cases {
        let decision = decide(&a, &b);
        assert_eq!((decision.outcome, decision.row), (outcome, row));
        assert_eq!(decide(&b, &a).outcome, outcome);
    }
}

#[test]
fn a_first_resync_that_was_cut_goes_on_where_it_was() {
    let a = Standpoint { marks: 500, ..node(Side::First) };
    let b = Standpoint {
        resource_id: ResourceId(0),
        generation: None,
        disk: DiskState::Inconsistent,
        disk_reason: DiskReason::Resync,
        resync_source: a.generation,
        ..node(Side::Second)
    };
    let decision = decide(&a, &b);
    assert_eq!((decision.outcome, decision.row), (Outcome::Source(Transfer::Resync), 9));
    let elsewhere = Standpoint { resync_source: Some(generation(3)), ..b };
    assert_eq!(
        (decide(&a, &elsewhere).outcome, decide(&a, &elsewhere).row),
        (Outcome::Unrelated, 10)
    );
}

/// Whoever stays apart is told what to type, on both nodes, and for `init` that a daemon which runs
/// does not let it in.
#[test]
fn every_verdict_that_needs_an_operator_says_what_to_type() {
    for a in states(Side::First).iter().step_by(7) {
        for b in states(Side::Second).iter().step_by(311) {
            for (mine, theirs) in [(a, b), (b, a)] {
                let decision = decide(mine, theirs);
                let mend = mend(mine, theirs);
                let needs_one = matches!(
                    decision.outcome,
                    Outcome::Refused | Outcome::Unrelated | Outcome::SplitBrain
                );
                assert_eq!(mend.is_some(), needs_one, "{decision:?}: {mend:?}");
                let Some(mend) = mend else { continue };
                assert!(mend.contains("hotpair "), "{mend}");
                assert_eq!(mend.contains("hotpair init"), mend.contains("stop hotpair"), "{mend}");
            }
        }
    }
}

#[test]
fn every_reason_names_the_nodes_from_the_point_of_view_of_its_reader() {
    let a = Standpoint { role: Role::Primary, marks: 1, ..node(Side::First) };
    let b = node(Side::Second);
    assert_eq!(decide(&a, &b).reason, "both have one generation, and this node is primary");
    assert_eq!(decide(&b, &a).reason, "both have one generation, and the peer is primary");
    for a in states(Side::First).iter().step_by(7) {
        for b in states(Side::Second).iter().step_by(311) {
            let reason = decide(a, b).reason;
            assert!(!reason.contains(['{', '}', '\n']) && reason.len() <= 512, "{reason}");
            for command in reason.split("`hotpair ").skip(1) {
                let command = command.split('`').next().unwrap();
                assert!(command.contains(RESOURCE), "{reason}");
                // Both have met, so both have metadata.
                assert_eq!(command.starts_with("init "), command.contains("--rebuild"), "{reason}");
            }
        }
    }
}
