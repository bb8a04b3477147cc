//! Debian's etcd as the arbiter: the driver alone, then a pair of real daemons.
//!
//! Every member is a real process on ports that the kernel chose. Every wait is for an event; where
//! nothing may happen, the test waits for the moment at which it may again, and checks the order.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cluster;
mod daemons;
mod faults;
mod life;
mod node;
#[allow(unused_imports, reason = "its own tests run where the harness is libtest's")]
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../real/mod.rs"]
mod real;
mod strangers;
#[cfg(feature = "_tls")]
mod tls;

use std::process::ExitCode;

use real::harness::{self, Case, Need};

const CASES: &[Case] = &[
    case("a_pair_enrolls_and_the_owner_gets_leases", life::a_pair_enrolls),
    case("a_dead_owner_is_replaced_when_its_lease_is_over", life::a_dead_owner_is_replaced),
    case("a_run_that_is_known_to_be_dead_is_replaced_at_once", life::a_dead_run_is_replaced),
    case("each_resource_has_its_own_lease", life::each_resource_has_its_own_lease),
    case("a_lease_that_ended_is_taken_again_by_the_owner_only", life::a_lease_that_ended),
    case("of_two_requests_at_one_epoch_one_wins", life::of_two_requests_one_wins),
    case("a_request_whose_answer_was_lost_is_done_once", life::a_lost_answer),
    case("another_store_or_an_older_one_is_not_believed", life::another_store),
    case("a_user_logs_in_with_its_password", life::a_user_logs_in),
    case("the_commands_of_the_operations_page_let_a_node_in", life::the_page_is_right),
    #[cfg(feature = "_tls")]
    case("both_ends_show_a_certificate_where_etcd_asks_for_one", tls::both_ends_are_known),
    case("a_value_of_a_stranger_stops_the_resource_and_is_named", faults::a_stranger_writes),
    Case {
        name: "something_else_than_etcd_harms_nobody",
        needs: &[],
        run: strangers::strangers_harm_nobody,
    },
    case("a_lost_leader_stops_nobody", faults::a_lost_leader),
    case("a_member_that_is_cut_off_is_left", faults::a_silent_member),
    case("no_leader_that_was_cut_off_renews_a_lease", faults::a_stale_leader),
    case("a_compacted_watch_loses_no_change", faults::a_compaction),
    case("without_a_majority_nothing_is_granted", faults::no_majority),
    Case {
        name: "a_file_that_cannot_be_used_is_named",
        needs: &[Need::Program("setpriv"), Need::Program("timeout")],
        run: daemons::a_bad_file_is_named,
    },
    case("a_pair_with_etcd_fails_over", daemons::a_pair_fails_over),
    case("garbage_in_etcd_halts_a_pair_safely_and_is_named", daemons::garbage_halts_safely),
];

const fn case(name: &'static str, run: fn()) -> Case {
    const NEEDS: &[Need] = &[
        Need::Program("etcd"),
        Need::Program("etcdctl"),
        Need::Program("setpriv"),
        Need::Program("timeout"),
    ];
    Case { name, needs: NEEDS, run }
}

fn main() -> ExitCode {
    harness::run(CASES)
}
