//! Real daemons, real files, and what may happen to them.
//!
//! Each case is a fact. It needs the tools that `tools/install-test-packages` installs; a case whose
//! needs the machine does not meet says so.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[allow(unused_imports, reason = "its own tests run where the harness is libtest's")]
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../real/mod.rs"]
mod real;

mod cycles;
mod failover;
mod fault_disk;
mod input;
mod memory;
mod power;
mod resize;
mod resync;
mod split_brain;
mod strangers;
mod trust;

use std::process::ExitCode;

use real::harness::{self, Case, Need};

const CASES: &[Case] = &[
    Case {
        name: "the_record_agrees_with_a_true_disk_and_catches_a_false_one",
        needs: &[Need::Program("setpriv"), Need::Program("nbdkit")],
        run: trust::the_record_catches_a_false_disk,
    },
    Case {
        name: "a_fault_disk_keeps_what_was_flushed_and_forgets_the_rest",
        needs: fault_disk::NEEDS,
        run: trust::a_fault_disk_forgets_the_rest,
    },
    case("kill_and_promote_loses_nothing", failover::kill_and_promote_loses_nothing),
    case("a_killed_secondary_comes_back_by_itself", failover::a_killed_secondary_comes_back),
    case("switchover_under_load_loses_nothing", failover::switchover_under_load_loses_nothing),
    case("resync_sends_only_differences", resync::resync_sends_only_differences),
    case("an_interrupted_resync_goes_on", resync::an_interrupted_resync_goes_on),
    case("a_pair_grows_under_load", resize::a_pair_grows_under_load),
    case("a_node_without_space_refuses_to_grow", resize::a_node_without_space_refuses_to_grow),
    case("a_node_that_was_away_grows_when_it_is_back", resize::a_node_that_was_away_grows),
    case("split_brain_is_shown_and_resolved", split_brain::split_brain_is_shown_and_resolved),
    case("strangers_are_refused", strangers::strangers_are_refused),
    case("an_impostor_with_another_key_is_refused", strangers::an_impostor_is_refused),
    case("malformed_clients_harm_nobody", input::malformed_clients_harm_nobody),
    case("metadata_of_another_resource_is_refused", input::foreign_metadata_is_refused),
    case("a_file_that_does_not_fit_is_refused", input::a_file_that_does_not_fit_is_refused),
    case("two_nodes_on_one_file_are_refused", input::two_nodes_on_one_file_are_refused),
    case("memory_stays_bounded", memory::memory_stays_bounded),
    Case {
        name: "flushed_data_survives_power_loss",
        needs: fault_disk::NEEDS,
        run: power::flushed_data_survives_power_loss,
    },
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case { name, needs: &[Need::Program("setpriv"), Need::Program("timeout")], run }
}

fn main() -> ExitCode {
    harness::run(CASES)
}
