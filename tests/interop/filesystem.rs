//! A file system on the export, whose primary dies while files are written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::server::{noise, text, uri};
use crate::real::harness::Need;
use crate::real::pair::{Pair, Plan, RESOURCE};
use crate::real::process::{News, PATIENCE, run_well};
use crate::real::volume::{self, Volume};

pub(crate) const EXT4_NEEDS: &[Need] = &[
    Need::All(volume::NEEDS),
    Need::Program("mkfs.ext4"),
    Need::Program("e2fsck"),
    Need::FileSystem("ext4"),
];
pub(crate) const XFS_NEEDS: &[Need] = &[
    Need::All(volume::NEEDS),
    Need::Program("mkfs.xfs"),
    Need::Program("xfs_repair"),
    Need::FileSystem("xfs"),
];

/// Synced files before the kill, and after the failover.
const FILES: u64 = 60;
const FILES_PER_FOLDER: u64 = 16;
const FILE_LEN_MAX: u64 = 200_000;

/// A file system, with what makes and examines it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    name: &'static str,
    /// mkfs refuses less.
    size: u64,
    make: &'static [&'static str],
    /// Examines a device or an image, changes nothing, and fails if anything is wrong.
    check: &'static [&'static str],
}

pub(crate) const EXT4: Kind =
    Kind { name: "ext4", size: 128 << 20, make: &["mkfs.ext4", "-q"], check: &["e2fsck", "-fn"] };
pub(crate) const XFS: Kind =
    Kind { name: "xfs", size: 304 << 20, make: &["mkfs.xfs", "-q"], check: &["xfs_repair", "-n"] };

/// Files that were synced before the primary died are on the other node, the file system is clean
/// there, goes on, and at rest both data files hold the same clean file system.
pub(crate) fn synced_files_survive_a_failover(kind: Kind) {
    let mut pair = Pair::start_empty(Plan { size: kind.size, ..Plan::default() });
    let volume = attach(&pair, 0);
    run_well(kind.make[0], &[&kind.make[1..], &[volume.device()]].concat());
    volume.mount(kind.name);
    let unpacking = Unpacking::start(&volume.mount_point(), 0, &pair.news);
    unpacking.wait_for(FILES);
    pair.nodes[0].kill();
    let synced = unpacking.join();
    assert!(synced >= FILES, "{synced} files were synced");
    assert!(volume.detach(), "the kernel holds on to the disk of the dead node");

    pair.nodes[1].well(&["promote", RESOURCE, "--force", "--peer-is-fenced"]);
    let volume = attach(&pair, 1);
    // Replays the journal.
    volume.mount(kind.name);
    check_files(&volume.mount_point(), synced);
    volume.unmount();
    check(kind, volume.device());

    // The other node comes back while files are written.
    volume.mount(kind.name);
    let unpacking = Unpacking::start(&volume.mount_point(), synced, &pair.news);
    unpacking.wait_for(FILES / 2);
    pair.nodes[0].run();
    unpacking.wait_for(FILES / 2);
    let synced = unpacking.stop();
    check_files(&volume.mount_point(), synced);
    volume.unmount();
    assert!(volume.detach(), "the kernel holds on to the disk");
    pair.wait_in_sync();
    for node in &mut pair.nodes {
        node.stop();
    }
    pair.equal_image();
    for node in &pair.nodes {
        check(kind, text(&node.data));
    }
}

/// The export of a node, which was just made primary, as a disk.
fn attach(pair: &Pair, at: usize) -> Volume {
    drop(pair.nodes[at].connect());
    let folder = pair.folder().join(format!("{}-volume", pair.nodes[at].name));
    Volume::attach(&folder, &uri(&pair.nodes[at].export, RESOURCE), &pair.news)
}

fn check(kind: Kind, place: &str) {
    run_well(kind.check[0], &[&kind.check[1..], &[place]].concat());
}

/// Unpacks a tree, file by file, on a thread of its own. Each file counts once it and its folder
/// are synced. Between them are files that come, move and go and are never synced.
struct Unpacking {
    thread: JoinHandle<()>,
    state: Arc<State>,
    news: News,
}

#[derive(Default)]
struct State {
    must_stop: AtomicBool,
    has_ended: AtomicBool,
    /// All files below this number are synced.
    synced: AtomicU64,
}

impl Unpacking {
    /// Begins with the file of number `first`.
    fn start(root: &Path, first: u64, news: &News) -> Self {
        let state = Arc::new(State { synced: AtomicU64::new(first), ..State::default() });
        let (shared, wake, root) = (Arc::clone(&state), news.clone(), root.to_owned());
        let thread = std::thread::spawn(move || {
            let mut number = first;
            while !shared.must_stop.load(Ordering::Acquire) && unpack(&root, number).is_ok() {
                number += 1;
                shared.synced.store(number, Ordering::Release);
                wake.tell();
            }
            shared.has_ended.store(true, Ordering::Release);
            wake.tell();
        });
        Self { thread, state, news: news.clone() }
    }

    /// Waits until `count` more files are synced.
    fn wait_for(&self, count: u64) {
        let goal = self.state.synced.load(Ordering::Acquire) + count;
        self.news.wait_for("files to be synced", || {
            let has_ended = self.state.has_ended.load(Ordering::Acquire);
            assert!(!has_ended, "a file could not be written");
            (self.state.synced.load(Ordering::Acquire) >= goal).then_some(())
        });
    }

    /// Stops after the file at hand, which must be written; says how many there are.
    fn stop(self) -> u64 {
        assert!(!self.state.has_ended.load(Ordering::Acquire), "a file could not be written");
        self.state.must_stop.store(true, Ordering::Release);
        self.join()
    }

    /// Waits for the end; says how many files there are.
    fn join(self) -> u64 {
        let ended = || self.state.has_ended.load(Ordering::Acquire).then_some(());
        assert!(self.news.wait_within(PATIENCE, ended).is_some(), "a call on the mount hangs");
        self.thread.join().expect("it does not panic");
        self.state.synced.load(Ordering::Acquire)
    }
}

fn unpack(root: &Path, number: u64) -> io::Result<()> {
    let path = path_of(root, number);
    let folder = path.parent().expect("a file in a folder");
    if number.is_multiple_of(FILES_PER_FOLDER) {
        fs::create_dir_all(folder)?;
        fs::File::open(root)?.sync_all()?;
    }
    let passing = folder.join(format!("passing-{number}"));
    fs::write(&passing, noise(!number, 5_000))?;
    move_file(&passing, &folder.join("passing"))?;
    fs::write(&path, content_of(number))?;
    fs::File::open(&path)?.sync_all()?;
    fs::File::open(folder)?.sync_all()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this rename is meant to be as volatile as it can be"
)]
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)
}

fn path_of(root: &Path, number: u64) -> PathBuf {
    root.join(format!("folder-{}", number / FILES_PER_FOLDER)).join(format!("file-{number}"))
}

fn content_of(number: u64) -> Vec<u8> {
    let len = fastrand::Rng::with_seed(number).u64(..FILE_LEN_MAX);
    noise(number, len)
}

/// Panics unless the files below `count` are there, each with its content.
fn check_files(root: &Path, count: u64) {
    for number in 0..count {
        let path = path_of(root, number);
        let found = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(found == content_of(number), "{} holds something else", path.display());
    }
}
