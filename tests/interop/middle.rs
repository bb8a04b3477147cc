//! nbdkit as a middle client: its filters between the export and whoever uses it.
//!
//! The retry filter has one address to connect to, so a symbolic link leads to the export of
//! whichever node is primary, as a virtual IP would.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::fio;
use super::server::{text, uri};
use crate::oracle::ledger::Floor;
use crate::real::load::Load;
use crate::real::nbd_client::NbdClient;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::process::Process;
use crate::real::record::Record;

const DEPTH: usize = 32;
/// Bytes that fio has written when the primary dies.
const FIO_BYTES: u64 = 24 << 20;

/// nbdkit with filters on one side, and a link to the export of the primary on the other.
struct Middle {
    socket: PathBuf,
    link: PathBuf,
    _nbdkit: Process,
}

impl Middle {
    fn start(pair: &Pair, filters: &[&str], parameters: &[&str]) -> Self {
        let folder = pair.folder();
        let (socket, link) = (folder.join("middle"), folder.join("primary"));
        point(&link, &pair.nodes[0].export);
        drop(pair.nodes[0].connect());
        let target = format!("uri={}", uri(&link, RESOURCE));
        let mut words = vec!["-f", "-U", text(&socket)];
        words.extend(filters);
        words.extend(["nbd", &target]);
        words.extend(parameters);
        let nbdkit = Process::start("nbdkit", "nbdkit", &words, &pair.news);
        pair.news.wait_for("nbdkit", || NbdClient::connect(&socket, "").ok().map(drop));
        Self { socket, link, _nbdkit: nbdkit }
    }

    fn retrying(pair: &Pair) -> Self {
        let patience = ["retries=60", "retry-delay=1", "retry-exponential=no"];
        Self::start(pair, &["--filter=retry"], &patience)
    }
}

fn point(link: &Path, export: &Path) {
    if link.is_symlink() {
        std::fs::remove_file(link).unwrap();
    }
    symlink(export, link).unwrap();
}

/// Kills the primary, and makes the other node the primary that the link leads to.
fn fail_over(pair: &mut Pair, middle: &Middle, old: usize) {
    pair.nodes[old].kill();
    let new = &pair.nodes[1 - old];
    new.well(&["promote", RESOURCE, "--force", "--peer-is-fenced"]);
    point(&middle.link, &new.export);
}

/// The client behind the filter notices nothing, and every answer it got was true.
pub(crate) fn a_retrying_client_sees_no_error_across_a_failover() {
    let plan = Plan::default();
    let record = Record::new(plan.size, 21);
    let mut pair = Pair::start(plan, &record.first_image());
    let middle = Middle::retrying(&pair);
    let load = Load::start(&middle.socket, "", DEPTH, record, &pair.news);
    for old in [0, 1] {
        load.wait_for_answers(500);
        fail_over(&mut pair, &middle, old);
        load.wait_for_answers(500);
        pair.nodes[old].run();
        pair.wait_in_sync();
    }
    let ended = load.stop();
    let mut record = ended.record;
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    record.check_errors("the client must see one stall and no error");
    record.check_reads();
    pair.wait_in_sync();
    record.epoch_serves();
    record.check_image("both data files", &pair.equal_image(), Floor::Acknowledged);
}

/// The same with fio, which checks what it wrote before and after.
pub(crate) fn fio_sees_no_verify_error_across_a_failover() {
    let mut pair = Pair::start_empty(Plan { size: 96 << 20, ..Plan::default() });
    let middle = Middle::retrying(&pair);
    let report = pair.folder().join("report");
    let target = uri(&middle.socket, "");
    let words = fio::words(&target, text(&report), 2, &["--size=40m", "--offset_increment=40m"]);
    let news = pair.news.clone();
    let mut fio = fio::start(&words, &news);
    news.wait_for("fio to be in the middle", || {
        assert!(fio.is_running(), "fio ended early: {:?}", fio.lines());
        (pair.nodes[0].daemon().written_bytes() > FIO_BYTES).then_some(())
    });
    fail_over(&mut pair, &middle, 0);
    pair.nodes[0].run();
    fio::wait_for_end(&mut fio, &news);
    fio::check_report(&report);
    pair.wait_in_sync();
    pair.equal_image();
}

/// Filters that cut requests into other ones, and flush after each of them.
pub(crate) fn filters_that_cut_and_flush_change_nothing() {
    let plan = Plan::default();
    let record = Record::new(plan.size, 22);
    let pair = Pair::start(plan, &record.first_image());
    let filters = ["--filter=blocksize", "--filter=fua"];
    let middle = Middle::start(&pair, &filters, &["maxdata=64k", "maxlen=128k", "fuamode=force"]);
    let load = Load::start(&middle.socket, "", DEPTH, record, &pair.news);
    load.wait_for_answers(1_000);
    let ended = load.stop();
    let record = ended.record;
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    record.check_errors("a filter made an error");
    record.check_reads();
    pair.wait_in_sync();
    record.check_image("both data files", &pair.equal_image(), Floor::Acknowledged);
}
