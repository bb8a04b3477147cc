//! Real daemons and a real witness: who serves when one of the three is lost.
//!
//! Nobody types a promotion here. Each case is a fact; `tools/failover` repeats the measured ones
//! and writes the figures down.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/cluster.rs"]
#[allow(dead_code, reason = "its own test uses all of it")]
mod cluster;
#[allow(unused_imports, reason = "its own tests run where the harness is libtest's")]
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../real/mod.rs"]
mod real;

mod clocks;
mod database;
mod datagrams;
mod fencing;
mod links;
mod losses;
mod multicast;
mod pacemaker;
mod pauses;
mod random;
mod rivals;
mod scene;
mod services;
mod stalls;
mod supervisors;
mod topologies;

use std::process::ExitCode;

use real::harness::{self, Case, Need};
use real::lab::{LAB, LOSSY, SLOW};

const CASES: &[Case] = &[
    case("a_crashed_worker_is_replaced_at_once", losses::a_crashed_worker_is_replaced_at_once),
    case("a_lost_node_is_replaced_when_its_lease_is_over", losses::a_lost_node_is_replaced),
    case("a_daemon_that_is_stopped_is_replaced", losses::a_stopped_daemon_is_replaced),
    case("a_lost_secondary_stops_nobody", losses::a_lost_secondary_stops_nobody),
    case("a_lost_witness_stops_nobody", losses::a_lost_witness_stops_nobody),
    case("without_the_witness_nobody_is_promoted", losses::without_the_witness_nobody_is_promoted),
    case("a_switchover_under_load_has_no_error", losses::a_switchover_under_load_has_no_error),
    case("a_stopped_resource_waits_for_an_operator", losses::a_stopped_resource_waits),
    case("both_nodes_lost_resume_by_themselves", losses::both_nodes_lost_resume),
    case("a_paused_primary_is_replaced_and_answers_nothing_late", pauses::a_paused_primary),
    case("a_short_pause_changes_nothing", pauses::a_short_pause),
    case("a_lost_supervisor_is_replaced_when_the_lease_is_over", supervisors::a_lost_supervisor),
    case("a_supervisor_that_sleeps_says_nothing", supervisors::a_paused_supervisor),
    case("two_writers_are_noticed", rivals::two_writers_are_noticed),
    case("random_kills_lose_nothing", random::parties),
    case("a_lost_node_is_fenced_and_replaced_without_a_witness", fencing::a_lost_node_is_fenced),
    Case {
        name: "a_partition_without_a_witness_has_one_winner",
        needs: &[LAB],
        run: fencing::a_partition_has_one_winner,
    },
    case("a_cluster_fences_before_it_promotes", pacemaker::a_cluster_fences_before_it_promotes),
    Case { name: "a_stalled_disk_is_replaced", needs: stalls::NEEDS, run: stalls::a_stalled_disk },
    Case { name: "a_stalled_node_is_replaced", needs: stalls::NEEDS, run: stalls::a_stalled_node },
    Case {
        name: "a_short_stall_changes_nothing",
        needs: stalls::NEEDS,
        run: stalls::a_short_stall,
    },
    Case { name: "services_follow_the_role", needs: SERVICES, run: services::follow_the_role },
    Case {
        name: "services_follow_the_role_by_ipv6",
        needs: &[LAB, Need::Program("sysctl")],
        run: services::follow_the_role_by_ipv6,
    },
    Case {
        name: "services_that_do_not_stop_keep_the_role_but_not_for_ever",
        needs: SERVICES,
        run: services::that_do_not_stop,
    },
    Case {
        name: "a_primary_goes_on_alone_by_a_datagram_of_its_peer",
        needs: &[LAB],
        run: datagrams::veto,
    },
    Case {
        name: "a_swallowed_group_is_a_path_less_and_nothing_else",
        needs: &[LAB],
        run: multicast::swallowed,
    },
    Case {
        name: "what_postgresql_committed_survives_a_failover_and_a_switchover",
        needs: real::postgres::NEEDS,
        run: database::commits,
    },
    Case { name: "wall_clocks_that_jump_change_nothing", needs: clocks::NEEDS, run: clocks::jumps },
    Case {
        name: "a_lossy_network_changes_nothing",
        needs: &[LOSSY, Need::Alone],
        run: links::lossy,
    },
    Case { name: "a_slow_network_changes_nothing", needs: &[SLOW, Need::Alone], run: links::slow },
    Case {
        name: "flapping_links_change_nothing",
        needs: &[LAB, Need::Alone],
        run: links::flapping,
    },
    Case { name: "the_role_moves_no_oftener_than_allowed", needs: &[LAB], run: links::flap_limit },
    Case { name: "each_topology_serves_where_it_must", needs: &[LAB], run: topologies::each },
];

const SERVICES: &[Need] = &[LAB, Need::Program("arping")];

const fn case(name: &'static str, run: fn()) -> Case {
    Case { name, needs: &[Need::Program("setpriv"), Need::Program("timeout")], run }
}

fn main() -> ExitCode {
    harness::run(CASES)
}
