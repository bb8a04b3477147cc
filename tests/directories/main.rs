//! Real daemons that keep a directory, judged by rsync and by a walk of our own.
//!
//! Numbers of cases are those of the design's list.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::print_stdout, reason = "a seed that fails is to be told")]
#![allow(clippy::disallowed_methods, reason = "trees are changed as applications change them")]

#[allow(unused_imports, reason = "its own tests run where the harness is libtest's")]
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../real/mod.rs"]
mod real;
#[allow(unused_imports, reason = "its own tests run where the harness is libtest's")]
#[path = "../trees/mod.rs"]
mod trees;

mod kept;
mod losses;
mod nodes;
mod steady;
mod watched;

use std::process::ExitCode;

use real::harness::{self, Case, Need};

const CASES: &[Case] = &[
    case("01_everything_that_is_kept_is_equal_after_a_sync", steady::everything_is_equal),
    case("a_storm_of_changes_is_equal_after_each_sync", steady::a_storm_is_equal),
    case("what_shrinks_travels_compressed", steady::what_shrinks_travels_compressed),
    case("changes_arrive_by_themselves", steady::changes_arrive_by_themselves),
    case(
        "a_new_pair_is_equal_before_anybody_serves",
        watched::a_new_pair_is_equal_before_anybody_serves,
    ),
    case(
        "a_tree_that_nobody_serves_and_somebody_writes_to_waits",
        watched::a_tree_that_nobody_serves_and_somebody_writes_to_waits,
    ),
    case("the_loss_of_a_primary_needs_nobody", watched::the_loss_of_a_primary_needs_nobody),
    case("each_node_in_turn_takes_over", watched::each_node_in_turn_takes_over),
    case("a_switchover_hands_over_every_change", steady::a_switchover_hands_over_every_change),
    case("31_what_was_synced_survives_the_loss_of_the_primary", losses::what_was_synced_survives),
    case("48_killed_daemons_leave_a_generation", losses::killed_daemons_leave_a_generation),
    case(
        "35_a_foreign_write_is_healed_by_the_next_generation",
        kept::a_foreign_write_is_healed_by_the_next_generation,
    ),
    case(
        "35_a_foreign_write_is_found_although_nothing_changes",
        kept::a_foreign_write_is_found_although_nothing_changes,
    ),
    case(
        "43_earlier_generations_are_listed_and_gone_back_to",
        kept::earlier_generations_are_listed_and_gone_back_to,
    ),
    case("43_a_rollback_survives_the_daemon", kept::a_rollback_survives_the_daemon),
    case(
        "43_a_rollback_that_the_other_node_overtakes_is_gone",
        kept::a_rollback_that_the_other_node_overtakes_is_gone,
    ),
    case("43_a_rollback_is_served_with_a_witness", kept::a_rollback_is_served_with_a_witness),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &[
            Need::Root,
            Need::Program("rsync"),
            Need::Program("setpriv"),
            Need::Program("timeout"),
        ],
        run,
    }
}

fn main() -> ExitCode {
    harness::run(CASES)
}
