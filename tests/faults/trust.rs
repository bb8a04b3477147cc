//! Whether the tools of these tests can fail: a false disk is caught, and a power cut loses data.

use std::fs;
use std::io::Write as _;
use std::panic;

use super::fault_disk::FaultDisk;
use crate::oracle::ledger::Floor;
use crate::real::load::Load;
use crate::real::nbd_client::NbdClient;
use crate::real::process::{News, Process};
use crate::real::record::Record;

const SIZE: u64 = 8 << 20;
const DEPTH: usize = 32;

/// The same load on a disk that keeps its word and on one that loses power: the record accepts all
/// the first one holds, and of the second one only that what was flushed is there.
pub(crate) fn the_record_catches_a_false_disk() {
    let news = News::default();
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let control = folder.path().join("control");
    fs::write(&control, "").unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/disk.py");
    let size = format!("size={SIZE}");
    let ctl = format!("ctl={}", control.display());
    let words = ["-f", "-U", socket.to_str().unwrap(), "python", script, &size, &ctl];
    let _server = Process::start("disk", "nbdkit", &words, &news);
    let mut client = news.wait_for("nbdkit", || NbdClient::connect(&socket, "").ok());

    let mut record = Record::new(SIZE, 20);
    for (at, part) in record.first_image().chunks(1 << 20).enumerate() {
        client.write(u64::try_from(at).unwrap() << 20, part).unwrap();
    }
    client.flush().unwrap();
    for seed in 0..3 {
        let load = Load::start(&socket, "", DEPTH, record, &news);
        load.wait_for_answers(2_000);
        let ended = load.stop();
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        record = ended.record;
        record.check_errors("a healthy disk");
        record.epoch_serves();
        // The load may have ended with a flush: this much is at risk in any case.
        record.write(&mut client, 0, SIZE / 8);
        let image = client.read_all().unwrap();
        record.read_whole(&image);
        record.check_reads();
        record.check_image("a true disk", &image, Floor::Acknowledged);

        let mut commands = fs::OpenOptions::new().append(true).open(&control).unwrap();
        writeln!(commands, "crash {seed}").unwrap();
        assert!(client.read(0, 512).is_err(), "no power");
        writeln!(commands, "on").unwrap();
        let image = client.read_all().unwrap();
        record.check_image("a disk after a power cut", &image, Floor::Flushed);
        assert!(
            is_caught(|| record.check_image("it", &image, Floor::Acknowledged)),
            "what was acknowledged and not flushed is gone, and nobody says so"
        );
        let mut reader = record.clone();
        assert!(
            is_caught(|| {
                reader.read_whole(&image);
                reader.check_reads();
            }),
            "reads went back in time, and nobody says so"
        );
        record.settle(&image);
    }
}

fn is_caught(check: impl FnOnce()) -> bool {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let result = panic::catch_unwind(panic::AssertUnwindSafe(check));
    panic::set_hook(hook);
    result.is_err()
}

/// Through ext4 and the page cache: a file that was synced survives every cut, and of files that
/// were not, some do not.
pub(crate) fn a_fault_disk_forgets_the_rest() {
    let news = News::default();
    let folder = tempfile::tempdir().unwrap();
    let mut disk = FaultDisk::new(folder.path(), 64 << 20, &news);
    let kept = vec![7; 100_000];
    let mut lost = 0;
    for seed in 0..3 {
        let synced = disk.mount_point().join(format!("synced-{seed}"));
        fs::write(&synced, &kept).unwrap();
        fs::File::open(&synced).unwrap().sync_all().unwrap();
        fs::File::open(disk.mount_point()).unwrap().sync_all().unwrap();
        let volatile = disk.mount_point().join(format!("volatile-{seed}"));
        fs::write(&volatile, &kept).unwrap();
        disk.cut_power(seed);
        disk.restore_power();
        assert!(fs::read(&synced).unwrap() == kept, "a synced file was lost");
        lost += u32::from(!fs::read(&volatile).is_ok_and(|bytes| bytes == kept));
    }
    assert!(lost > 0, "a power cut that loses nothing");
}
