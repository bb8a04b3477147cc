//! fio with its NBD engine: it writes, reads back, and checks a checksum of every block.

use serde_json::Value;

use super::server::{Server, text};
use crate::real::process::{self, News, PATIENCE, Process};

/// The command line of a run on `uri`, whose report goes to `report`.
pub(crate) fn words(uri: &str, report: &str, jobs: u64, more: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = [
        "--name=v",
        "--ioengine=nbd",
        "--rw=randrw",
        "--bsrange=512-256k",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_backlog=256",
        "--verify_fatal=1",
        // Else it leaves a file in the folder it runs in.
        "--verify_state_save=0",
        "--fsync=8",
        "--randseed=1",
        "--output-format=json",
    ]
    .map(str::to_owned)
    .into();
    words.extend([
        format!("--uri={uri}"),
        format!("--output={report}"),
        format!("--numjobs={jobs}"),
    ]);
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words
}

/// Panics unless the report says that bytes were written, read back, and found right.
pub(crate) fn check_report(path: &std::path::Path) {
    let report = std::fs::read_to_string(path).unwrap();
    // Notes may precede the report itself.
    let start = report.find('{').unwrap_or_else(|| panic!("fio made no report: {report}"));
    let report: Value = serde_json::from_str(&report[start..]).unwrap();
    for job in report["jobs"].as_array().unwrap() {
        assert_eq!(job["error"], 0, "{job}");
        assert_eq!(job["total_err"].as_u64().unwrap_or(0), 0, "{job}");
        for way in ["read", "write"] {
            assert!(job[way]["total_ios"].as_u64().unwrap() > 20, "too little {way}: {job}");
        }
    }
}

/// Random blocks of all sizes over four connections, with a sync now and then.
pub(crate) fn fio_finds_no_verify_error(server: &Server) {
    let report = server.file("report");
    let more = ["--size=16m", "--offset_increment=16m"];
    let words = words(&server.uri(), text(&report), 4, &more);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    process::run_well("fio", &words);
    check_report(&report);
    server.image_at_rest();
}

/// Zeroes and trims among the writes.
pub(crate) fn fio_trims_among_its_writes(server: &Server) {
    let report = server.file("trims");
    let uri = format!("--uri={}", server.uri());
    let report_word = format!("--output={}", report.display());
    let fixed = ["--name=t", "--ioengine=nbd", "--rw=randtrimwrite", "--bs=64k", "--iodepth=8"];
    let rest = ["--size=32m", "--randseed=2", "--output-format=json", &uri, &report_word];
    process::run_well("fio", &[&fixed[..], &rest].concat());
    let report = std::fs::read_to_string(report).unwrap();
    let report: Value = serde_json::from_str(&report[report.find('{').unwrap()..]).unwrap();
    let job = &report["jobs"][0];
    assert_eq!(job["error"], 0, "{job}");
    assert!(job["trim"]["total_ios"].as_u64().unwrap() > 100, "{job}");
    server.image_at_rest();
}

/// A run under way. It ends with the test.
pub(crate) fn start(words: &[String], news: &News) -> Process {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Process::start("fio", "fio", &words, news)
}

/// Waits for the end of a run that was told to take some seconds.
pub(crate) fn wait_for_end(fio: &mut Process, news: &News) {
    let ended = news.wait_within(2 * PATIENCE, || (!fio.is_running()).then_some(()));
    assert!(ended.is_some(), "fio does not end: {:?}", fio.lines());
}
