//! Clients that we did not write, on a real pair.
//!
//! Each case is a fact. Cases of plain clients run a second time against the control, a plain
//! nbdkit, so that only differences are ours to explain. What they need comes from
//! `tools/install-test-packages`; a case whose needs the machine does not meet says so.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[allow(unused_imports, reason = "other tests use more of it")]
#[path = "../oracle/mod.rs"]
mod oracle;
#[path = "../real/mod.rs"]
mod real;

mod filesystem;
mod fio;
mod libnbd;
mod middle;
mod postgres;
mod qemu;
mod rules;
mod server;

use std::process::ExitCode;

use libnbd::ODD_SIZE;
use qemu::SECTORS_SIZE;
use real::harness::{self, Case, Need};
use server::Server;

const CASES: &[Case] = &[
    client("nbdinfo_shows_what_is_true", || {
        libnbd::nbdinfo_shows_what_is_true(&Server::pair(ODD_SIZE));
    }),
    client("what_the_map_calls_zero_reads_zero", || {
        libnbd::what_the_map_calls_zero_reads_zero(&Server::pair(ODD_SIZE));
    }),
    client("nbdcopy_brings_back_what_it_took", || {
        libnbd::nbdcopy_brings_back_what_it_took(&Server::pair(ODD_SIZE));
    }),
    client("nbdcopy_keeps_holes", || libnbd::nbdcopy_keeps_holes(&Server::pair(ODD_SIZE))),
    client("qemu_img_finds_the_images_identical", || {
        qemu::qemu_img_finds_the_images_identical(&Server::pair(SECTORS_SIZE));
    }),
    client("qemu_io_finds_its_patterns", || {
        qemu::qemu_io_finds_its_patterns(&Server::pair(ODD_SIZE));
    }),
    client("qemu_lists_and_maps_the_export", || {
        qemu::qemu_lists_and_maps_the_export(&Server::pair(ODD_SIZE));
    }),
    client("fio_finds_no_verify_error", || {
        fio::fio_finds_no_verify_error(&Server::pair(ODD_SIZE));
    }),
    client("fio_trims_among_its_writes", || {
        fio::fio_trims_among_its_writes(&Server::pair(ODD_SIZE));
    }),
    client("the_control_passes_the_cases_of_plain_clients", the_control_passes),
    client(
        "a_retrying_client_sees_no_error_across_a_failover",
        middle::a_retrying_client_sees_no_error_across_a_failover,
    ),
    client(
        "fio_sees_no_verify_error_across_a_failover",
        middle::fio_sees_no_verify_error_across_a_failover,
    ),
    client(
        "filters_that_cut_and_flush_change_nothing",
        middle::filters_that_cut_and_flush_change_nothing,
    ),
    Case {
        name: "files_synced_to_ext4_survive_a_failover",
        needs: filesystem::EXT4_NEEDS,
        run: || filesystem::synced_files_survive_a_failover(filesystem::EXT4),
    },
    Case {
        name: "files_synced_to_xfs_survive_a_failover",
        needs: filesystem::XFS_NEEDS,
        run: || filesystem::synced_files_survive_a_failover(filesystem::XFS),
    },
    Case {
        name: "what_postgresql_committed_survives_a_kill_of_the_primary",
        needs: real::postgres::NEEDS,
        run: postgres::what_was_committed_survives_a_kill_of_the_primary,
    },
];

/// A case that needs the packages and no privilege.
const fn client(name: &'static str, run: fn()) -> Case {
    const NEEDS: &[Need] = &[
        Need::Program("setpriv"),
        Need::Program("timeout"),
        Need::Program("nbdkit"),
        Need::Program("nbdinfo"),
        Need::Program("nbdcopy"),
        Need::Program("qemu-img"),
        Need::Program("qemu-io"),
        Need::Program("qemu-nbd"),
        Need::Program("fio"),
    ];
    Case { name, needs: NEEDS, run }
}

/// What a pair must do, a plain nbdkit does too: the cases ask for nothing that is ours alone.
fn the_control_passes() {
    let cases: [fn(&Server); 8] = [
        libnbd::nbdinfo_shows_what_is_true,
        libnbd::what_the_map_calls_zero_reads_zero,
        libnbd::nbdcopy_brings_back_what_it_took,
        libnbd::nbdcopy_keeps_holes,
        qemu::qemu_io_finds_its_patterns,
        qemu::qemu_lists_and_maps_the_export,
        fio::fio_finds_no_verify_error,
        fio::fio_trims_among_its_writes,
    ];
    for run in cases {
        run(&Server::control(ODD_SIZE));
    }
    qemu::qemu_img_finds_the_images_identical(&Server::control(SECTORS_SIZE));
}

fn main() -> ExitCode {
    harness::run(&[CASES, rules::CASES].concat())
}
