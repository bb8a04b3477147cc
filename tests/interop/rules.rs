//! Rules of the NBD protocol, tried with libnbd's own checks off: `rules.py`, one case per rule.

use super::server::{Server, text};
use crate::real::harness::{Case, Need, PYTHON};
use crate::real::pair::RESOURCE;
use crate::real::process;

/// Large enough for the longest request and what it must not touch.
const SIZE: u64 = (96 << 20) + 511;

pub(crate) const CASES: &[Case] = &[
    rule("export_name_without_fixed_newstyle_opens_the_export", || {
        check("export_name_without_fixed_newstyle_opens_the_export");
    }),
    rule("abort_is_acknowledged", || check("abort_is_acknowledged")),
    rule("info_and_go_say_the_same", || check("info_and_go_say_the_same")),
    rule("an_unknown_export_leaves_the_negotiation_going", || {
        check("an_unknown_export_leaves_the_negotiation_going");
    }),
    rule("the_list_names_the_export", || check("the_list_names_the_export")),
    rule("contexts_are_listed_and_unknown_ones_ignored", || {
        check("contexts_are_listed_and_unknown_ones_ignored");
    }),
    rule("reads_work_without_structured_replies", || {
        check("reads_work_without_structured_replies");
    }),
    rule("a_read_that_must_not_be_cut_is_one_chunk", || {
        check("a_read_that_must_not_be_cut_is_one_chunk");
    }),
    rule("beyond_the_end_is_refused_with_the_error_of_its_command", || {
        check("beyond_the_end_is_refused_with_the_error_of_its_command");
    }),
    rule("unknown_flags_are_refused_and_the_connection_stays_in_step", || {
        check("unknown_flags_are_refused_and_the_connection_stays_in_step");
    }),
    rule("a_request_of_no_bytes_succeeds_and_changes_nothing", || {
        check("a_request_of_no_bytes_succeeds_and_changes_nothing");
    }),
    rule("a_read_of_more_than_the_maximum_is_refused", || {
        check("a_read_of_more_than_the_maximum_is_refused");
    }),
    rule("a_write_of_the_maximum_is_taken", || check("a_write_of_the_maximum_is_taken")),
    rule("forced_unit_access_is_taken_on_every_command", || {
        check("forced_unit_access_is_taken_on_every_command");
    }),
    rule("zeroed_ranges_read_zero_and_their_neighbours_are_kept", || {
        check("zeroed_ranges_read_zero_and_their_neighbours_are_kept");
    }),
    rule("more_is_zeroed_at_once_than_a_payload_may_hold", || {
        check("more_is_zeroed_at_once_than_a_payload_may_hold");
    }),
    rule("fast_zero_is_done_or_changes_nothing", || check("fast_zero_is_done_or_changes_nothing")),
    rule("trimmed_ranges_read_zero", || check("trimmed_ranges_read_zero")),
    rule("the_block_status_covers_what_was_asked_and_calls_only_zeroes_zero", || {
        check("the_block_status_covers_what_was_asked_and_calls_only_zeroes_zero");
    }),
    rule("a_block_status_without_a_context_is_refused", || {
        check("a_block_status_without_a_context_is_refused");
    }),
    rule("reading_ahead_changes_nothing", || check("reading_ahead_changes_nothing")),
    rule("what_one_connection_wrote_the_other_reads_and_flushes", || {
        check("what_one_connection_wrote_the_other_reads_and_flushes");
    }),
    rule("two_writers_of_one_sector_keep_each_others_bytes", || {
        check("two_writers_of_one_sector_keep_each_others_bytes");
    }),
    rule("sixty_four_requests_in_flight_are_all_answered", || {
        check("sixty_four_requests_in_flight_are_all_answered");
    }),
    rule("a_disconnect_finishes_what_was_asked_before_it", || {
        check("a_disconnect_finishes_what_was_asked_before_it");
    }),
    rule("the_control_keeps_the_rules_too", || check_control(OF_THE_CONTROL)),
];

/// The rules that a plain nbdkit keeps as well. The others are about the name of the export, which
/// it does not look at, are choices that the protocol leaves to the server, or are about requests
/// in flight at a disconnect, which it fails.
const OF_THE_CONTROL: &[&str] = &[
    "export_name_without_fixed_newstyle_opens_the_export",
    "abort_is_acknowledged",
    "info_and_go_say_the_same",
    "contexts_are_listed_and_unknown_ones_ignored",
    "reads_work_without_structured_replies",
    "a_read_that_must_not_be_cut_is_one_chunk",
    "beyond_the_end_is_refused_with_the_error_of_its_command",
    "unknown_flags_are_refused_and_the_connection_stays_in_step",
    "a_write_of_the_maximum_is_taken",
    "forced_unit_access_is_taken_on_every_command",
    "zeroed_ranges_read_zero_and_their_neighbours_are_kept",
    "more_is_zeroed_at_once_than_a_payload_may_hold",
    "fast_zero_is_done_or_changes_nothing",
    "trimmed_ranges_read_zero",
    "the_block_status_covers_what_was_asked_and_calls_only_zeroes_zero",
    "a_block_status_without_a_context_is_refused",
    "reading_ahead_changes_nothing",
    "what_one_connection_wrote_the_other_reads_and_flushes",
    "two_writers_of_one_sector_keep_each_others_bytes",
    "sixty_four_requests_in_flight_are_all_answered",
];

/// A rule of the protocol, tried by a script.
const fn rule(name: &'static str, run: fn()) -> Case {
    const NEEDS: &[Need] = &[
        Need::Program("setpriv"),
        Need::Program("timeout"),
        Need::Program("nbdkit"),
        Need::Python("nbd"),
    ];
    Case { name, needs: NEEDS, run }
}

/// Runs one rule against a pair, whose daemon must be there afterwards, the disks equal.
fn check(rule: &str) {
    let server = Server::pair(SIZE);
    run(&server, rule);
    server.image_at_rest();
}

/// Runs rules against the control, which shows that the script asks for no more than they say.
fn check_control(rules: &[&str]) {
    let server = Server::control(SIZE);
    for rule in rules {
        run(&server, rule);
    }
}

fn run(server: &Server, rule: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/rules.py");
    process::run_well(PYTHON, &[script, rule, text(server.socket()), RESOURCE]);
}
