//! Power cuts: of one node nothing acknowledged is lost, of both nothing flushed.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use tempfile::TempDir;

use super::cycles::repeat;
use super::fault_disk::FaultDisk;
use crate::oracle::ledger::Floor;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::process::News;
use crate::real::record::Record;

const DISK_LEN: u64 = 192 << 20;

/// Cuts the power of the secondary, of the primary, and of both, in the middle of writes. The node
/// comes back with what its disk kept and with another boot id.
pub(crate) fn flushed_data_survives_power_loss() {
    let mut bench: Option<Bench> = None;
    repeat("powerloss", 6, |seed| {
        let mut now = bench.take().unwrap_or_else(|| Bench::start(seed));
        match seed % 3 {
            0 => now.cut_the_secondary(seed),
            1 => now.cut_the_primary(seed),
            _ => now.cut_both(seed),
        }
        bench = Some(now);
    });
}

/// A pair whose data and metadata lie on fault disks.
struct Bench {
    // Dropped in this order: the daemons before their disks.
    pair: Pair,
    disks: [FaultDisk; 2],
    record: Option<Record>,
    primary: usize,
    boots: u64,
    _folder: TempDir,
}

impl Bench {
    fn start(seed: u64) -> Self {
        let news = News::default();
        let folder = tempfile::Builder::new().prefix("hotpair-").tempdir().unwrap();
        let disks = ["alpha", "beta"]
            .map(|name| FaultDisk::new(&folder.path().join(name), DISK_LEN, &news));
        let folders = disks.each_ref().map(|disk| Some(disk.mount_point().join("home")));
        let plan = Plan { folders, ..Plan::default() };
        let record = Record::new(plan.size, seed);
        let pair = Pair::prepare(plan);
        fs::write(&pair.nodes[0].data, record.first_image()).unwrap();
        pair.nodes[0].well(&["init", RESOURCE, "--from", "this"]);
        pair.nodes[1].well(&["init", RESOURCE, "--from", "peer"]);
        let mut bench =
            Self { pair, disks, record: Some(record), primary: 0, boots: 0, _folder: folder };
        bench.boot(0);
        bench.boot(1);
        bench.pair.wait_in_sync();
        bench.pair.nodes[0].well(&["promote", RESOURCE]);
        bench
    }

    /// Starts a node as after a boot of its host: with a boot id that it has not seen.
    fn boot(&mut self, at: usize) {
        self.boots += 1;
        let file = self.pair.folder().join(format!("boot-id-{at}"));
        let boots = self.boots;
        fs::write(&file, format!("00000000-0000-4000-8000-{boots:012x}\n")).unwrap();
        let others = self.disks[1 - at].mounts();
        self.pair.nodes[at].wrapper = in_a_world_with_boot_id(&file, &others);
        self.pair.nodes[at].run();
    }

    /// The node's host loses power: it stands still, its disk forgets, it is gone.
    fn cut(&mut self, at: usize, seed: u64) {
        self.pair.nodes[at].daemon().signal(Signal::STOP);
        self.disks[at].cut_power(seed);
        self.pair.nodes[at].kill();
        self.disks[at].restore_power();
    }

    fn cut_the_secondary(&mut self, seed: u64) {
        let secondary = 1 - self.primary;
        let mut record = self.record.take().unwrap();
        let answers = 100 + record.draw(2_000);
        let load = self.pair.load(self.primary, record);
        load.wait_for_answers(answers);
        self.cut(secondary, seed);
        load.wait_for_answers(100);
        self.boot(secondary);
        load.wait_for_answers(100);
        let ended = load.stop();
        assert!(ended.broken.is_none(), "{:?}", ended.broken);
        ended.record.check_errors("the client must not notice");
        self.check(ended.record, Floor::Acknowledged);
    }

    fn cut_the_primary(&mut self, seed: u64) {
        let (old, new) = (self.primary, 1 - self.primary);
        let mut record = self.record.take().unwrap();
        let answers = 100 + record.draw(2_000);
        let load = self.pair.load(old, record);
        load.wait_for_answers(answers);
        self.cut(old, seed);
        let mut record = load.join().record;
        self.pair.nodes[new].well(&["promote", RESOURCE, "--force", "--peer-is-fenced"]);
        let mut client = self.pair.nodes[new].connect();
        record.epoch_serves();
        record.read_whole(&client.read_all().unwrap());
        self.primary = new;
        self.boot(old);
        self.check(record, Floor::Acknowledged);
    }

    fn cut_both(&mut self, seed: u64) {
        let mut record = self.record.take().unwrap();
        let answers = 100 + record.draw(2_000);
        let load = self.pair.load(self.primary, record);
        load.wait_for_answers(answers);
        for at in [0, 1] {
            self.pair.nodes[at].daemon().signal(Signal::STOP);
        }
        self.cut(self.primary, seed);
        self.cut(1 - self.primary, seed ^ 0x5555);
        let mut record = load.join().record;
        self.boot(0);
        self.boot(1);
        self.pair.wait_connected();
        self.pair.nodes[self.primary].well(&["promote", RESOURCE]);
        let mut client = self.pair.nodes[self.primary].connect();
        record.epoch_serves();
        let image = client.read_all().unwrap();
        record.check_image("the export", &image, Floor::Flushed);
        // What was not flushed may be gone; from here on what is there counts.
        record.settle(&image);
        self.check(record, Floor::Acknowledged);
    }

    /// Everything that must hold at a quiet point.
    fn check(&mut self, mut record: Record, floor: Floor) {
        record.check_reads();
        self.pair.wait_in_sync();
        let image = self.pair.equal_image();
        record.check_image("both data files", &image, floor);
        record.settle(&image);
        self.record = Some(record);
    }
}

/// Words that run a command with the boot id in `file`, in a mount namespace of its own without the
/// mounts of the other node's disk: else that could not be given back while the command runs.
fn in_a_world_with_boot_id(file: &Path, others: &[PathBuf; 2]) -> Vec<String> {
    let [others_files, others_disk] = others.each_ref().map(|path| path.display());
    let file = file.display();
    let script = format!(
        "umount {others_files} {others_disk} && \
         mount --bind {file} /proc/sys/kernel/random/boot_id && exec \"$@\""
    );
    ["unshare", "--mount", "sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}
