//! A disk that hangs under a primary: a file system that is frozen takes no write, and says nothing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::scene::{Scene, measured, since};
use crate::real::harness::Need;
use crate::real::pair::Plan;
use crate::real::process;

pub(crate) const NEEDS: &[Need] = &[
    Need::Root,
    Need::Program("setpriv"),
    Need::Program("timeout"),
    Need::Program("mkfs.ext4"),
    Need::Program("fsfreeze"),
    Need::Device("/dev/loop-control"),
];

/// A file system of its own, and beside it a place that does not freeze with it.
struct Disk {
    mount: PathBuf,
    keeps_state: bool,
    /// Thaws it once this process lets go, even if that is killed.
    guard: Child,
}

impl Disk {
    /// `keeps_state`: the metadata of a node is on it as well.
    fn make(folder: &Path, keeps_state: bool) -> Self {
        let (image, mount) = (folder.join("image"), folder.join("mount"));
        std::fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
        std::fs::create_dir(&mount).unwrap();
        process::run_well("mkfs.ext4", &["-q", text(&image)]);
        process::run_well("mount", &["-o", "loop", text(&image), text(&mount)]);
        let guard = guard(&mount);
        let disk = Self { mount, keeps_state, guard };
        if !keeps_state {
            let elsewhere = folder.join("state");
            for state in [&elsewhere, &disk.state()] {
                std::fs::create_dir(state).unwrap();
                std::fs::set_permissions(state, Permissions::from_mode(0o700)).unwrap();
            }
            process::run_well("mount", &["--bind", text(&elsewhere), text(&disk.state())]);
        }
        disk
    }

    fn state(&self) -> PathBuf {
        self.mount.join("state")
    }

    fn freeze(&self) {
        process::run_well("fsfreeze", &["--freeze", text(&self.mount)]);
    }

    fn thaw(&self) {
        process::run_well("fsfreeze", &["--unfreeze", text(&self.mount)]);
    }

    /// A pair whose first node has its data here.
    fn pair(&self, seed: u64) -> Scene {
        let folders = [Some(self.mount.clone()), None];
        Scene::with(Plan { has_witness: true, folders, ..Plan::default() }, seed)
    }
}

/// Whatever the test ends with, nothing waits for a frozen file system.
impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        drop(self.guard.wait());
        if !self.keeps_state {
            process::run("umount", &["-l", text(&self.state())]);
        }
        process::run("umount", &["-l", text(&self.mount)]);
    }
}

/// Waits for the end of its input, and thaws. It is in no group that a signal goes to.
fn guard(mount: &Path) -> Child {
    let script = "read -r _; fsfreeze --unfreeze \"$1\"";
    Command::new("sh")
        .args(["-c", script, "sh", text(mount)])
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the folder of a test")
}

/// The other node serves while the disk of the old primary still hangs, and both are the same once it
/// does not.
pub(crate) fn a_stalled_disk() {
    is_replaced(false, 3);
}

/// The same if the metadata hangs, too.
pub(crate) fn a_stalled_node() {
    is_replaced(true, 5);
}

/// The old primary gives way by itself if the thread that sees to it does not hang as well. That is up to
/// the kernel: a write into the page cache of a frozen file system may wait there. Then its lease ends.
fn is_replaced(keeps_state: bool, seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::make(folder.path(), keeps_state);
    let mut scene = disk.pair(seed);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(500);
    let start = process::now();
    disk.freeze();
    drop(scene.pair.nodes[1].connect());
    measured("disk-stall", since(start));
    disk.thaw();
    // What it learns first is that it is replaced.
    let ended = load.join();
    assert!(ended.broken.is_some(), "the client of a primary that was replaced saw no end");
    ended.record.check_errors("errors from a disk that only hangs");
    scene.record = Some(ended.record);
    comes_back(scene);
}

/// It goes on alone, and the other one comes back while it does.
fn comes_back(mut scene: Scene) {
    scene.serves_all(1);
    let load = scene.pair.load(1, scene.record.take().unwrap());
    load.wait_for_answers(500);
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    ended.record.check_errors("errors while the other node came back");
    scene.record = Some(ended.record);
    // The data files are let go before the disk is.
    scene.is_whole_again();
}

/// A disk that hangs for less than it takes to be given up costs nothing but the time.
pub(crate) fn a_short_stall() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::make(folder.path(), false);
    let mut scene = disk.pair(4);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    load.wait_for_answers(500);
    disk.freeze();
    let start = process::now();
    // It is the length of the stall that is tested.
    scene.pair.news.wait_within(Duration::from_millis(700), || None::<()>);
    disk.thaw();
    assert!(since(start) < Duration::from_millis(2_500), "the machine was too slow to say");
    load.wait_for_answers(500);
    let ended = load.stop();
    assert!(ended.broken.is_none(), "{:?}", ended.broken);
    ended.record.check_errors("errors from a disk that hung for a moment");
    scene.record = Some(ended.record);
    scene.is_whole_again();
    drop(scene);
}
