//! The searches: each exhausts what its bounds allow.

use std::env;
use std::time::Duration;

use stateright::{Checker, HasDiscoveries, Model, Property};

use crate::bounds::{Begin, Bounds, Flaw, Left};
use crate::facts::sometimes;
use crate::pair::{Action, Pair, Typed};

impl Model for Bounds {
    type State = Pair;
    type Action = Action;

    fn init_states(&self) -> Vec<Pair> {
        vec![self.first_state()]
    }

    fn actions(&self, pair: &Pair, actions: &mut Vec<Action>) {
        if pair.broken.is_none() {
            pair.progress(actions);
            pair.interference(self, actions);
        }
    }

    fn next_state(&self, pair: &Pair, action: Action) -> Option<Pair> {
        pair.happens(action, self)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = always();
        properties.extend(self.expected.iter().map(|name| sometimes(name)));
        properties
    }
}

/// One property for each name that a state can break.
macro_rules! always {
    ($($name:literal)*) => {
        /// What must hold in every state.
        fn always() -> Vec<Property<Bounds>> {
            vec![$(Property::always($name, |_, pair: &Pair| pair.broken != Some($name))),*]
        }

        /// The names of them.
        const ALWAYS: &[&str] = &[$($name),*];
    };
}

always! {
    "NoLostAck" "OneWriter" "FreshRead" "EpochMono" "AckRule" "GenerationBeforeAck"
    "VetoBeforeSolo" "StableBeforeSolo" "PairedBeforeCandidate" "FlushOnBoth" "DoubtfulNeverServes"
    "NoUnmarkedDifference" "ClearByVersion" "LogBeforeWrite" "StableBeforeCooling" "MirroredVerdict" "HonestPeersAgree"
    "DivergedStandsStill" "SplitIsReported" "VerdictTrue" "Converges" "HonestStatus"
    "RequestsAreAnswered" "OneReply" "Drained" "CoreAsserts"
    "EligibleInSync" "RevokeBeforeGrant" "PromiseBeforeAsking" "PairedBeforeEligible" "FlushedBeforeHandover"
    "NoFabricatedEpoch" "ServiceComesBack"
}

/// Searches until something is broken, or to the end. Returns what was broken.
pub(crate) fn search(bounds: &Bounds) -> Option<&'static str> {
    search_and_count(bounds).0
}

/// The same, and how many states there are.
#[expect(clippy::disallowed_methods, reason = "how long it took is printed for people")]
fn search_and_count(bounds: &Bounds) -> (Option<&'static str>, usize) {
    let began = std::time::Instant::now();
    let checker = bounds.clone().checker().threads(1).finish_when(HasDiscoveries::AnyFailures);
    let limit = seconds_max();
    let checker = match limit {
        Some(limit) => checker.timeout(limit).spawn_dfs().join(),
        None => checker.spawn_dfs().join(),
    };
    let is_cut_short = limit.is_some_and(|limit| began.elapsed() >= limit);
    println!(
        "model {}: {} states, {} steps, depth {}, {:.1} s{}",
        bounds.name,
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64(),
        if is_cut_short { ", not exhausted" } else { "" }
    );
    let found = checker.discoveries();
    let broken = ALWAYS.iter().find(|name| found.contains_key(*name)).copied();
    if broken.is_none() && !is_cut_short {
        let missing: Vec<_> =
            bounds.expected.iter().filter(|name| !found.contains_key(*name)).collect();
        assert!(missing.is_empty(), "{}: never seen: {missing:?}", bounds.name);
    }
    (broken, checker.unique_state_count())
}

/// Searches again, breadth first for a while: the shortest way to what is broken.
fn explain(bounds: &Bounds) {
    let checker = bounds.clone().checker().threads(1).finish_when(HasDiscoveries::AnyFailures);
    let mut found = checker.timeout(EXPLAIN_MAX).spawn_bfs().join().discoveries();
    found.retain(|name, _| ALWAYS.contains(name));
    if found.is_empty() {
        println!("no short way to it was found in time; this is a long one");
        let checker = bounds.clone().checker().threads(1);
        found = checker.finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join().discoveries();
        found.retain(|name, _| ALWAYS.contains(name));
    }
    for (name, path) in found {
        println!("{name}:");
        for (pair, action) in path.into_vec() {
            pair.told.events.iter().for_each(|event| println!("      {event:?}"));
            println!("    {}", pair.brief());
            println!("  {action:?}");
        }
    }
}

/// How long the shortest way is looked for.
const EXPLAIN_MAX: Duration = Duration::from_secs(20);

pub(crate) fn holds(bounds: &Bounds) {
    let (broken, states) = search_and_count(bounds);
    println!("{}", bounds.row(states));
    if broken.is_some() {
        println!("model {}: breaks {broken:?}", bounds.name);
        explain(bounds);
    }
    assert_eq!(broken, None, "in the search {}", bounds.name);
}

/// How long one search may take, if that was asked for: it then says that it was cut short.
fn seconds_max() -> Option<Duration> {
    let seconds = env::var("HOTPAIR_MODEL_SECONDS").ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Whether the larger bounds were asked for.
pub(crate) fn is_large() -> bool {
    env::var("HOTPAIR_MODEL").is_ok_and(|value| value == "large")
}

const FORCE: &[Typed] =
    &[Typed::Force { accepts_loss: false }, Typed::Force { accepts_loss: true }];

/// Either node dies and the second one may be promoted by force.
pub(crate) fn failover() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left {
            writes: 1 + large,
            kills: 1,
            commands: 1,
            connections: 1 + large,
            ..Left::default()
        },
        typed: FORCE,
        mortal: &[0, 1],
        expected: &[
            "a write is acknowledged by both",
            "a write is acknowledged alone",
            "a node goes on alone",
            "the second node is promoted by force",
            "the first node is resynced",
            "the second node is resynced",
            "the second node gets a replay",
            "the first node resumes",
            "both are in sync again",
        ],
        ..Bounds::nothing("failover", Begin::InSync)
    }
}

/// Either node loses power, with a write that is not flushed.
pub(crate) fn power_loss() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left {
            writes: 1,
            flushes: 1,
            power_losses: 1 + large,
            commands: large,
            connections: 1 + large,
            ..Left::default()
        },
        typed: FORCE,
        mortal: &[0, 1],
        expected: &[
            "a flush is answered by both",
            "a node that lost power says that it is doubtful",
            "both are in sync again",
        ],
        ..Bounds::nothing("power loss", Begin::InSync)
    }
}

/// A node that was away is filled up, and something comes in between.
pub(crate) fn resync() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left {
            writes: 1,
            reads: large,
            flushes: large,
            kills: 1,
            cuts: large,
            connections: 2,
            ..Left::default()
        },
        mortal: &[0, 1],
        gates_early: false,
        expected: &[
            "a write is acknowledged alone",
            "the second node is resynced",
            "a target dies inconsistent",
            "both are in sync again",
        ],
        ..Bounds::nothing("resync", Begin::Alone)
    }
}

/// The link is lost with writes, reads and flushes under way.
pub(crate) fn blips() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left {
            writes: 2,
            reads: 1,
            flushes: large,
            cuts: 1 + large,
            connections: 1 + large,
            ..Left::default()
        },
        expected: &[
            "a write is acknowledged by both",
            "a write is acknowledged alone",
            "a read is answered",
            "the second node gets a replay",
        ],
        ..Bounds::nothing("blips", Begin::InSync)
    }
}

/// The role changes as planned, again and again.
pub(crate) fn planned() -> Bounds {
    Bounds {
        left: Left { writes: 1, reads: 1, commands: 2, connections: 1, ..Left::default() },
        typed: PLANNED,
        expected: &[
            "the role is handed over",
            "the first node is demoted",
            "the second node is promoted with consent",
            "a read is answered",
        ],
        ..Bounds::nothing("planned", Begin::InSync)
    }
}

/// The role changes as planned, and the link is lost or a node dies in the middle.
fn interrupted() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left {
            writes: large,
            kills: 1,
            cuts: large,
            commands: 1 + large,
            connections: 1 + large,
            ..Left::default()
        },
        typed: PLANNED,
        mortal: &[0, 1],
        expected: &["the role is handed over", "the first node is demoted"],
        ..Bounds::nothing("interrupted", Begin::Written)
    }
}

const PLANNED: &[Typed] = &[Typed::Promote, Typed::Demote, Typed::Switchover];

/// A node stops, and a power loss comes before, during or after.
fn stop() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left {
            writes: large,
            power_losses: 1,
            commands: 1,
            connections: 1 + large,
            ..Left::default()
        },
        typed: &[Typed::Stop],
        mortal: &[0, 1],
        expected: &["a node is stopped cleanly"],
        ..Bounds::nothing("stop", Begin::Written)
    }
}

/// Time passes: what was hot cools, and the record says what is stable.
pub(crate) fn cooling() -> Bounds {
    Bounds {
        left: Left { writes: 1, time: 1, connections: 1, ..Left::default() },
        expected: &["a write is acknowledged by both"],
        ..Bounds::nothing("cooling", Begin::Written)
    }
}

/// The operator says that the first node is fenced, and it is not.
fn lie() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left {
            writes: 2,
            cuts: 1,
            kills: large,
            commands: 2,
            connections: 1 + large,
            ..Left::default()
        },
        typed: &[Typed::Force { accepts_loss: false }, Typed::Keep],
        mortal: &[0, 1],
        lies: true,
        expected: &[
            "a node goes on alone",
            "the second node is promoted by force",
            "a primary steps down",
            "split brain is found",
            "a split brain is settled",
        ],
        ..Bounds::nothing("lie", Begin::InSync)
    }
}

#[test]
fn a_failover_loses_nothing() {
    holds(&failover());
}

#[test]
fn a_power_loss_takes_nothing_that_was_flushed() {
    holds(&power_loss());
}

#[test]
fn an_interrupted_resync_ends_with_equal_copies() {
    holds(&resync());
}

#[test]
fn a_lost_link_changes_nothing_that_clients_can_see() {
    holds(&blips());
}

#[test]
fn a_planned_change_of_role_loses_nothing() {
    holds(&planned());
}

#[test]
fn an_interrupted_change_of_role_loses_nothing() {
    holds(&interrupted());
}

#[test]
fn a_clean_stop_needs_no_comparison() {
    holds(&stop());
}

#[test]
fn an_extent_cools_only_when_its_data_is_stable() {
    holds(&cooling());
}

#[test]
fn a_lie_about_fencing_is_found_and_nothing_is_merged() {
    holds(&lie());
}

#[test]
fn a_world_that_breaks_its_promises_is_noticed() {
    let flawed =
        [(Flaw::Syncs, power_loss()), (Flaw::Marks, failover()), (Flaw::Records, failover())];
    for (flaw, bounds) in flawed {
        let broken = search(&Bounds { flaw: Some(flaw), ..bounds });
        println!("model: {flaw:?} breaks {broken:?}");
        assert!(broken.is_some(), "{flaw:?} was not noticed");
    }
}
