//! An NBD export as a disk of the kernel: nbdfuse makes it a file, a loop device makes that a disk,
//! and a file system goes on it.
//!
//! Whatever the test ends with, the mount, the loop device and nbdfuse are gone afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use super::harness::Need;
use super::process::{self, News, PATIENCE, Process};

/// What a volume needs of the machine, beside the program that makes its file system.
pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("setpriv"),
    Need::Program("timeout"),
    Need::Program("nbdfuse"),
    Need::Program("fusermount3"),
    Need::Program("losetup"),
    Need::Device("/dev/fuse"),
    Need::Device("/dev/loop-control"),
];

/// The disk, and the file system on it while it is mounted.
#[derive(Debug)]
pub(crate) struct Volume {
    folder: PathBuf,
    /// The export as a file, named by the process that attached it.
    disk: PathBuf,
    fuse: Process,
    /// `/dev/loopN`; empty until there is one.
    device: String,
    news: News,
    is_attached: bool,
}

impl Volume {
    /// Makes the export at `uri` a loop device; what belongs to it is below `folder`.
    pub(crate) fn attach(folder: &Path, uri: &str, news: &News) -> Self {
        sweep();
        fs::create_dir_all(folder.join("mount")).unwrap();
        let path = folder.join(format!("disk-{}", std::process::id()));
        let disk = text(&path);
        fs::write(&disk, "").unwrap();
        let fuse = Process::start("nbdfuse", "nbdfuse", &[&disk, uri], news);
        let (folder, news) = (folder.to_owned(), news.clone());
        let device = String::new();
        let mut volume =
            Self { folder, disk: path, fuse, device, news: news.clone(), is_attached: true };
        news.wait_for("nbdfuse", || {
            assert!(volume.fuse.is_running(), "nbdfuse ended: {:?}", volume.fuse.lines());
            fs::metadata(&disk).is_ok_and(|metadata| metadata.len() > 0).then_some(())
        });
        let said = process::run_well("losetup", &["--find", "--show", &disk]);
        said.trim().clone_into(&mut volume.device);
        volume
    }

    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// Where the file system is.
    pub(crate) fn mount_point(&self) -> PathBuf {
        self.folder.join("mount")
    }

    /// All that is mounted for it, in the order to unmount it.
    pub(crate) fn mounts(&self) -> [PathBuf; 2] {
        [self.mount_point(), self.disk.clone()]
    }

    pub(crate) fn mount(&self, kind: &str) {
        process::run_well("mount", &["-t", kind, &self.device, &text(&self.mount_point())]);
    }

    /// As an operator does it: everything is written back.
    pub(crate) fn unmount(&self) {
        process::run_well("umount", &[&text(&self.mount_point())]);
    }

    /// Gives everything back; whether it worked. A disk that has failed may complain.
    pub(crate) fn detach(mut self) -> bool {
        self.release()
    }

    fn release(&mut self) -> bool {
        if !std::mem::take(&mut self.is_attached) {
            return true;
        }
        process::run("umount", &["-l", &text(&self.mount_point())]);
        let mut is_released = true;
        if !self.device.is_empty() {
            process::run("losetup", &["-d", &self.device]);
            let name = self.device.trim_start_matches("/dev/");
            let backing = format!("/sys/block/{name}/loop/backing_file");
            let is_gone = || (!Path::new(&backing).exists()).then_some(());
            is_released = self.news.wait_within(PATIENCE, is_gone).is_some();
        }
        process::run("fusermount3", &["-u", "-z", &text(&self.disk)]);
        let has_ended = || (!self.fuse.is_running()).then_some(());
        self.news.wait_within(PATIENCE, has_ended).is_some() && is_released
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.release();
    }
}

/// Gives back what tests that were killed left to the kernel.
fn sweep() {
    let list = process::run_well("losetup", &["--noheadings", "--output", "NAME,BACK-FILE"]);
    for (device, disk) in list.lines().filter_map(|line| line.split_once(' ')) {
        let disk = disk.trim();
        // The mounts of a case that was killed are gone with it: then its disk is a file without a place.
        let is_lost = disk == "/";
        if is_lost || disk.rsplit_once("/disk-").is_some_and(|(_, id)| process::is_over(id)) {
            process::run("umount", &["-l", device]);
            process::run("losetup", &["-d", device]);
            process::run("fusermount3", &["-u", "-z", disk]);
        }
    }
}

/// An export on a unix socket, as libnbd and QEMU name it.
pub(crate) fn uri(socket: &Path, export: &str) -> String {
    format!("nbd+unix:///{export}?socket={}", socket.display())
}

fn text(path: &Path) -> String {
    path.to_str().expect("an ASCII path").to_owned()
}
