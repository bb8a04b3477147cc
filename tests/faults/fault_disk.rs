//! A file system on a disk that can lose power: nbdkit with `disk.py`, nbdfuse, a loop device, ext4.
//!
//! A cut drops everything that was not flushed, page cache included, because the file system is
//! mounted anew from what the disk kept.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::real::harness::Need;
use crate::real::nbd_client::NbdClient;
use crate::real::process::{self, News, Process};

/// What a fault disk needs of the machine.
pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("setpriv"),
    Need::Program("nbdkit"),
    Need::Program("nbdfuse"),
    Need::Program("fusermount3"),
    Need::Program("losetup"),
    Need::Program("mkfs.ext4"),
    Need::Program("unshare"),
    Need::Device("/dev/fuse"),
    Need::Device("/dev/loop-control"),
];

/// How long the kernel may take to let go of a file system that nobody uses.
const DETACH_LIMIT: Duration = Duration::from_secs(20);

/// The disk, and the file system on it while it is mounted.
#[derive(Debug)]
pub(crate) struct FaultDisk {
    folder: PathBuf,
    news: News,
    /// nbdkit; it holds the image.
    _server: Process,
    mounted: Option<Mounted>,
}

#[derive(Debug)]
struct Mounted {
    /// `/dev/loopN`.
    device: String,
    fuse: Process,
}

impl FaultDisk {
    /// A disk of `size` bytes with an empty ext4 on it, mounted; its files are below `folder`.
    pub(crate) fn new(folder: &Path, size: u64, news: &News) -> Self {
        fs::create_dir_all(folder.join("mount")).unwrap();
        fs::write(folder.join("control"), "").unwrap();
        fs::write(folder.join("disk"), "").unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/disk.py");
        let socket = text(&folder.join("socket"));
        let size = format!("size={size}");
        let control = format!("ctl={}", folder.join("control").display());
        let words = ["-f", "-U", &socket, "python", script, &size, &control];
        let server = Process::start("disk", "nbdkit", &words, news);
        let mut disk =
            Self { folder: folder.to_owned(), news: news.clone(), _server: server, mounted: None };
        let device = disk.attach();
        process::run_well("mkfs.ext4", &["-q", "-E", "nodiscard", &device]);
        disk.mount(&device);
        disk
    }

    /// Where the file system is.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// All that is mounted for it, in the order to unmount it.
    pub(crate) fn mounts(&self) -> [PathBuf; 2] {
        [self.mount_point(), self.folder.join("disk")]
    }

    /// Makes the disk's content a loop device.
    fn attach(&mut self) -> String {
        let (socket, disk) = (self.folder.join("socket"), text(&self.folder.join("disk")));
        self.news.wait_for("nbdkit", || NbdClient::connect(&socket, "").ok().map(drop));
        let words = [disk.as_str(), "--unix", &text(&socket)];
        let fuse = Process::start("nbdfuse", "nbdfuse", &words, &self.news);
        self.news.wait_for("nbdfuse", || {
            fs::metadata(&disk).is_ok_and(|metadata| metadata.len() > 0).then_some(())
        });
        let device = process::run_well("losetup", &["--find", "--show", &disk]).trim().to_owned();
        self.mounted = Some(Mounted { device: device.clone(), fuse });
        device
    }

    fn mount(&self, device: &str) {
        process::run_well("mount", &["-t", "ext4", device, &text(&self.mount_point())]);
    }

    /// The power fails: whatever was not flushed is at the mercy of `seed`. The processes that use
    /// the disk must stand still, and be gone before [`FaultDisk::restore_power`].
    pub(crate) fn cut_power(&self, seed: u64) {
        self.command(&format!("crash {}", seed % (1 << 31)));
        let mut client = NbdClient::connect(&self.folder.join("socket"), "").unwrap();
        assert!(client.read(0, 512).is_err(), "the disk still has power");
    }

    /// The power is back, and the file system is mounted from what the disk kept.
    pub(crate) fn restore_power(&mut self) {
        assert!(self.detach(), "somebody holds the file system of {}", self.folder.display());
        self.command("on");
        let device = self.attach();
        self.mount(&device);
    }

    fn command(&self, line: &str) {
        let mut control =
            fs::OpenOptions::new().append(true).open(self.folder.join("control")).unwrap();
        writeln!(control, "{line}").unwrap();
    }

    /// Gives the file system, the loop device and the mount of nbdfuse back; whether it worked.
    fn detach(&mut self) -> bool {
        let Some(mounted) = self.mounted.take() else { return true };
        // Each may complain about a disk without power; what counts is that they are gone.
        process::run("umount", &["-l", &text(&self.mount_point())]);
        process::run("losetup", &["-d", &mounted.device]);
        let is_gone = || {
            let name = mounted.device.trim_start_matches("/dev/");
            let backing = format!("/sys/block/{name}/loop/backing_file");
            (!Path::new(&backing).exists()).then_some(())
        };
        let is_detached = self.news.wait_within(DETACH_LIMIT, is_gone).is_some();
        process::run("fusermount3", &["-u", &text(&self.folder.join("disk"))]);
        let Mounted { mut fuse, .. } = mounted;
        let has_ended = || (!fuse.is_running()).then_some(());
        is_detached && self.news.wait_within(DETACH_LIMIT, has_ended).is_some()
    }
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        self.detach();
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("an ASCII path").to_owned()
}
