//! A file system on a disk that can lose power: nbdkit with `disk.py`, nbdfuse, a loop device, ext4.
//!
//! A cut drops everything that was not flushed, page cache included, because the file system is
//! mounted anew from what the disk kept.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::real::harness::Need;
use crate::real::nbd_client::NbdClient;
use crate::real::process::{self, News, Process};
use crate::real::volume::{self, Volume};

/// What a fault disk needs of the machine.
pub(crate) const NEEDS: &[Need] = &[
    Need::All(volume::NEEDS),
    Need::Program("nbdkit"),
    Need::Program("mkfs.ext4"),
    Need::Program("unshare"),
    Need::FileSystem("ext4"),
];

/// The disk, and the file system on it while it is mounted.
#[derive(Debug)]
pub(crate) struct FaultDisk {
    folder: PathBuf,
    news: News,
    /// Goes before the server that it is on.
    volume: Option<Volume>,
    /// nbdkit; it holds the image.
    _server: Process,
}

impl FaultDisk {
    /// A disk of `size` bytes with an empty ext4 on it, mounted; its files are below `folder`.
    pub(crate) fn new(folder: &Path, size: u64, news: &News) -> Self {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("control"), "").unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/disk.py");
        let socket = text(&folder.join("socket"));
        let size = format!("size={size}");
        let control = format!("ctl={}", folder.join("control").display());
        let words = ["-f", "-U", &socket, "python", script, &size, &control];
        let server = Process::start("disk", "nbdkit", &words, news);
        let (folder, news) = (folder.to_owned(), news.clone());
        let mut disk = Self { folder, news, volume: None, _server: server };
        let volume = disk.attach();
        process::run_well("mkfs.ext4", &["-q", "-E", "nodiscard", volume.device()]);
        volume.mount("ext4");
        disk.volume = Some(volume);
        disk
    }

    /// Where the file system is.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.volume.as_ref().expect("it has power").mount_point()
    }

    /// All that is mounted for it, in the order to unmount it.
    pub(crate) fn mounts(&self) -> [PathBuf; 2] {
        self.volume.as_ref().expect("it has power").mounts()
    }

    fn attach(&self) -> Volume {
        let socket = self.folder.join("socket");
        self.news.wait_for("nbdkit", || NbdClient::connect(&socket, "").ok().map(drop));
        let uri = format!("nbd+unix:///?socket={}", socket.display());
        Volume::attach(&self.folder, &uri, &self.news)
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
        let is_released = self.volume.take().is_none_or(Volume::detach);
        assert!(is_released, "somebody holds the file system of {}", self.folder.display());
        self.command("on");
        let volume = self.attach();
        volume.mount("ext4");
        self.volume = Some(volume);
    }

    fn command(&self, line: &str) {
        let mut control =
            fs::OpenOptions::new().append(true).open(self.folder.join("control")).unwrap();
        writeln!(control, "{line}").unwrap();
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("an ASCII path").to_owned()
}
