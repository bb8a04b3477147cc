//! Captures of real folders: what is found step by step is what a look at everything finds.
#![expect(clippy::disallowed_methods, reason = "trees are changed as applications change them")]

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, RenameFlags, mkfifoat, renameat_with};
use tempfile::TempDir;

use super::super::index::View;
use super::super::work_area::WorkArea;
use super::*;
use crate::manifest::{Body, HaltReason, Kind, Remedy, Row};
use crate::units::{Instant, ResourceId, TreeRoot};

/// A tree with its work area and index.
struct World {
    outer: TempDir,
    root: Folder,
    scope: Scope,
    exclude: Exclude,
    left_out: LeftOut,
    index: Index,
    observer: Observer,
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn everything() -> Due {
    Due { everything: true, ..Due::default() }
}

fn go(_: Deletes) -> Guard {
    Guard::Go
}

impl World {
    fn new(events: bool) -> Self {
        Self::with(events, &[])
    }

    fn with(events: bool, patterns: &[&str]) -> Self {
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("tree")).unwrap();
        let root = Folder::open(&outer.path().join("tree")).unwrap();
        let above = Folder::open(outer.path()).unwrap();
        let area = WorkArea::open(&above, &name(".work"), &root.look_at_self().unwrap()).unwrap();
        let ticks = AtomicU64::new(1);
        let now = move || Instant(ticks.fetch_add(1, Ordering::Relaxed));
        let scope = Scope {
            resource: ResourceId(7),
            exclude: patterns.iter().map(|it| (*it).to_owned()).collect(),
            leave_out: BTreeSet::new(),
        };
        Self {
            index: Index::open(&outer.path().join("index")).unwrap(),
            observer: Observer::start(&area, events, now, || ()).unwrap(),
            exclude: Exclude::new(&scope.exclude).unwrap(),
            left_out: LeftOut(scope.leave_out.clone()),
            root,
            outer,
            scope,
        }
    }

    fn tree(&self) -> PathBuf {
        self.outer.path().join("tree")
    }

    fn path(&self, below: &str) -> PathBuf {
        self.tree().join(below)
    }

    fn write(&self, below: &str, bytes: &[u8]) {
        fs::write(self.path(below), bytes).unwrap();
    }

    fn capture_of(
        &mut self,
        due: Due,
        guard: &dyn Fn(Deletes) -> Guard,
    ) -> Result<Captured, CaptureError> {
        self.capture_with(due, guard, &Progress::default())
    }

    fn capture_with(
        &mut self,
        due: Due,
        guard: &dyn Fn(Deletes) -> Guard,
        progress: &Progress,
    ) -> Result<Captured, CaptureError> {
        let subject = Subject {
            root: &self.root,
            scope: &self.scope,
            exclude: &self.exclude,
            left_out: &self.left_out,
            guard,
        };
        capture(&self.index, &subject, &mut self.observer, due, progress)
    }

    /// What was said so far is captured.
    fn capture(&mut self) -> Captured {
        self.capture_of(Due::default(), &go).unwrap()
    }

    fn scan(&mut self) -> Captured {
        self.capture_of(everything(), &go).unwrap()
    }

    /// The root that a look at everything with an empty index finds.
    fn fresh_root(&self) -> TreeRoot {
        let index = Index::open(&self.outer.path().join("fresh")).unwrap();
        let above = Folder::open(self.outer.path()).unwrap();
        let area =
            WorkArea::open(&above, &name(".fresh"), &self.root.look_at_self().unwrap()).unwrap();
        let mut observer = Observer::start(&area, false, || Instant(1), || ()).unwrap();
        let subject = Subject {
            root: &self.root,
            scope: &self.scope,
            exclude: &self.exclude,
            left_out: &self.left_out,
            guard: &go,
        };
        let progress = Progress::default();
        let captured = capture(&index, &subject, &mut observer, everything(), &progress);
        fs::remove_file(self.outer.path().join("fresh")).unwrap();
        captured.unwrap().position.root
    }

    fn view(&self) -> View {
        self.index.view().unwrap()
    }

    fn row(&self, path: &str) -> (ObjectId, Row) {
        let view = self.view();
        let mut at = ObjectId::ROOT;
        for part in path.split('/') {
            at = view.name(at, &name(part)).unwrap().unwrap_or_else(|| panic!("no {path}"));
        }
        (at, view.object(at).unwrap().unwrap())
    }

    fn has(&self, top: &str) -> bool {
        self.view().name(ObjectId::ROOT, &name(top)).unwrap().is_some()
    }
}

fn put_back_mtime(path: &Path, time: SystemTime) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// Until the clock of the file system has gone on by more than it is coarse.
fn tick(world: &mut World) {
    let first = world.observer.cookie().unwrap();
    let is_near = |clock: TreeClock| {
        let ns = |at: crate::manifest::FileTime| {
            i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos)
        };
        ns(clock.now) - ns(first.now) <= i128::from(clock.granularity.0)
    };
    while is_near(world.observer.cookie().unwrap()) {}
}

#[test]
fn each_kind_of_object_is_found_and_a_second_look_changes_nothing() {
    let mut world = World::new(true);
    fs::create_dir_all(world.path("a/b/empty")).unwrap();
    world.write("a/b/file", &vec![7; 200_000]);
    fs::hard_link(world.path("a/b/file"), world.path("link")).unwrap();
    symlink("/nowhere", world.path("dangling")).unwrap();
    mkfifoat(CWD, world.path("pipe"), Mode::RUSR).unwrap();
    drop(std::os::unix::net::UnixListener::bind(world.path("socket")).unwrap());
    tick(&mut world);
    let captured = world.scan();
    assert!(captured.is_new && captured.is_closed, "{captured:?}");
    assert_eq!((captured.position.number, captured.fuzzy.count()), (TreeNumber(1), 0));
    let (id, row) = world.row("a/b/file");
    assert_eq!(world.row("link").0, id);
    assert!(matches!(row.entry.object().body, Body::Regular { size: 200_000, .. }));
    assert_eq!(world.view().segment(id, 0).unwrap().1.len(), 4);
    for (path, kind) in [
        ("a/b/empty", Kind::Directory),
        ("dangling", Kind::Symlink),
        ("pipe", Kind::Fifo),
        ("socket", Kind::Socket),
    ] {
        assert_eq!(world.row(path).1.entry.object().kind(), kind);
    }
    assert_eq!(captured.position.root, world.fresh_root());
    for again in [world.capture(), world.scan()] {
        assert!(!again.is_new && again.is_closed && !again.change_seen, "{again:?}");
        assert_eq!(again.position, captured.position);
    }
}

/// What is done to a tree.
type Change<'a> = &'a dyn Fn(&World);

#[test]
fn each_change_is_found_by_its_event_and_no_directory_is_read_for_it() {
    let mut world = World::new(true);
    fs::create_dir_all(world.path("d/e")).unwrap();
    world.write("d/e/f", b"one");
    world.write("d/g", b"two");
    world.write("h", b"three");
    world.scan();
    let changes: [(&str, Change<'_>); 12] = [
        ("content", &|it| it.write("d/e/f", b"other")),
        ("same size", &|it| it.write("d/g", b"owt")),
        ("mode", &|it| {
            fs::set_permissions(it.path("h"), fs::Permissions::from_mode(0o600)).unwrap();
        }),
        ("rename", &|it| fs::rename(it.path("h"), it.path("d/h")).unwrap()),
        ("over", &|it| fs::rename(it.path("d/h"), it.path("d/g")).unwrap()),
        ("remove", &|it| fs::remove_file(it.path("d/e/f")).unwrap()),
        ("rename of a directory", &|it| fs::rename(it.path("d"), it.path("x")).unwrap()),
        ("below it", &|it| it.write("x/e/new", b"new")),
        ("deep", &|it| {
            fs::create_dir_all(it.path("x/e/1/2/3/4")).unwrap();
            it.write("x/e/1/2/3/4/5", b"bottom");
        }),
        ("link", &|it| fs::hard_link(it.path("x/g"), it.path("x/e/1/again")).unwrap()),
        ("swap", &|it| {
            let (one, two) = (it.path("x/e"), it.path("x/g"));
            renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).unwrap();
        }),
        ("remove all", &|it| fs::remove_dir_all(it.path("x")).unwrap()),
    ];
    let mut before = world.view().position().unwrap();
    for (what, change) in changes {
        change(&world);
        let captured = world.capture();
        assert!(captured.is_new && captured.is_closed, "{what}: {captured:?}");
        assert_ne!(captured.position.root, before.root, "{what}");
        assert_eq!(captured.position.number.0, before.number.0 + 1, "{what}");
        assert_eq!(captured.position.root, world.fresh_root(), "{what}");
        before = captured.position;
    }
    assert_eq!(world.view().name_count().unwrap(), 0);
    assert_eq!(world.observer.watch().unwrap().count(), 1);
}

#[test]
fn a_rename_keeps_the_object_and_all_that_is_below_it() {
    let mut world = World::new(true);
    fs::create_dir_all(world.path("d/e")).unwrap();
    world.write("d/e/f", b"one");
    world.scan();
    let (before, old) = (world.row("d/e/f"), world.row("d").0);
    fs::create_dir(world.path("to")).unwrap();
    fs::rename(world.path("d"), world.path("to/x")).unwrap();
    world.capture();
    assert_eq!(world.row("to/x/e/f"), before);
    assert_eq!(world.row("to/x").0, old);
    // A directory that goes below its own child.
    fs::rename(world.path("to/x/e"), world.path("e")).unwrap();
    fs::rename(world.path("to/x"), world.path("e/x")).unwrap();
    world.capture();
    assert_eq!(world.row("e/f").0, before.0);
    assert_eq!(world.row("e/x").0, old);
}

#[test]
fn an_edit_that_puts_the_mtime_back_or_falls_into_the_same_tick_is_found() {
    for events in [true, false] {
        let mut world = World::new(events);
        world.write("f", b"aaaa");
        world.scan();
        let path = world.path("f");
        let mtime = fs::metadata(&path).unwrap().modified().unwrap();
        for round in 0..50_u8 {
            fs::write(&path, [b'b' + round % 20; 4]).unwrap();
            put_back_mtime(&path, mtime);
            let captured = if events { world.capture() } else { world.scan() };
            assert_eq!(captured.position.root, world.fresh_root(), "{round}");
        }
    }
}

#[test]
fn a_stamp_that_proves_nothing_is_not_relied_on() {
    let mut world = World::new(true);
    world.write("future", b"aaaa");
    world.write("past", b"aaaa");
    put_back_mtime(&world.path("future"), SystemTime::now() + Duration::from_secs(1 << 31));
    tick(&mut world);
    for _ in 0..2 {
        let progress = Progress::default();
        let captured = world.capture_with(everything(), &go, &progress).unwrap();
        assert!(captured.is_closed && captured.fuzzy.count() == 0, "{captured:?}");
        assert!(world.row("future").1.is_unsure && !world.row("past").1.is_unsure);
        // Both are read by the first pass of all, then that one alone, by each pass.
        assert!([12, 8].contains(&progress.bytes.load(Ordering::Relaxed)));
    }
}

#[test]
fn stores_through_a_mapping_are_found_by_a_scan() {
    let mut world = World::new(true);
    world.write("f", &[1; 8192]);
    let file = OpenOptions::new().read(true).write(true).open(world.path("f")).unwrap();
    world.scan();
    // The page is dirty already when the file is captured: only that a sync cleans it shows the next store.
    let mut map = Mapped::of(file);
    for round in 0..20_u8 {
        map.store(100, round);
        let first = world.scan().position.root;
        map.store(101, round.wrapping_add(100));
        let second = world.scan().position.root;
        assert_ne!(first, second, "{round}");
        assert_eq!(second, world.fresh_root(), "{round}");
    }
}

/// A shared mapping of a file, in another process.
struct Mapped(Child);

impl Mapped {
    fn of(file: File) -> Self {
        let mut command = Command::new("python3");
        command.args(["-c", MAPPER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        Self(command.spawn().unwrap())
    }

    fn store(&mut self, at: u64, value: u8) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{at} {value}").unwrap();
        self.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Maps what it has for its descriptor 2.
const MAPPER: &str = "import mmap, sys
m = mmap.mmap(2, 0)
for line in sys.stdin:
    at, value = line.split()
    m[int(at)] = int(value)
    print('.', end='', flush=True)
";

#[test]
fn a_file_that_is_written_all_the_time_is_fuzzy_and_holds_nothing_up() {
    let mut world = World::new(true);
    world.write("busy", b"");
    world.write("calm", b"calm");
    world.scan();
    let stop = Arc::new(AtomicBool::new(false));
    let (path, stopped) = (world.path("busy"), Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        let mut file = OpenOptions::new().write(true).open(path).unwrap();
        let mut round = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            file.seek(SeekFrom::Start(0)).unwrap();
            file.write_all(&round.to_le_bytes().repeat(20_000)).unwrap();
            round += 1;
        }
    });
    let mut fuzzy = 0;
    for round in 0..20_u8 {
        world.write("calm", &[round; 10]);
        let captured = world.capture();
        let busy = (ObjectId::ROOT, name("busy"));
        assert!(captured.fuzzy.listed().all(|(key, _)| *key == busy), "{captured:?}");
        fuzzy += captured.fuzzy.count();
        assert_eq!(captured.fuzzy.count() == 0, captured.is_closed, "{captured:?}");
        let (_, row) = world.row("calm");
        assert!(matches!(row.entry.object().body, Body::Regular { size: 10, .. }));
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(fuzzy > 0);
    let captured = world.capture();
    assert!(captured.is_closed);
    assert_eq!(captured.position.root, world.fresh_root());
}

#[test]
fn a_name_that_comes_and_goes_all_the_time_is_listed_if_it_keeps_a_generation_open() {
    let mut world = World::new(true);
    world.write("calm", b"calm");
    world.scan();
    let stop = Arc::new(AtomicBool::new(false));
    let (path, stopped) = (world.path("brief"), Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            File::create(&path).unwrap();
            fs::remove_file(&path).unwrap();
        }
    });
    let mut open = 0;
    for round in 0..20_u8 {
        world.write("calm", &[round; 10]);
        let captured = world.capture();
        assert_eq!(captured.fuzzy.count() == 0, captured.is_closed, "{captured:?}");
        open += u32::from(!captured.is_closed);
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert!(open > 0);
}

#[test]
fn a_directory_that_is_touched_all_the_time_is_told_of_if_it_keeps_a_generation_open() {
    let mut world = World::new(true);
    fs::create_dir(world.path("folder")).unwrap();
    world.scan();
    let stop = Arc::new(AtomicBool::new(false));
    let (paths, stopped) = ([world.path("folder"), world.path(".")], Arc::clone(&stop));
    let writer = std::thread::spawn(move || {
        for round in 0_u64.. {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(round);
            for path in &paths {
                File::open(path).unwrap().set_modified(time).unwrap();
            }
        }
    });
    for round in 0..20_u8 {
        world.write("calm", &[round; 10]);
        let captured = world.capture();
        assert_eq!(captured.fuzzy.count() == 0, captured.is_closed, "{captured:?}");
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
}

#[test]
fn what_matches_a_pattern_is_not_there() {
    let mut world = World::with(true, &["*.tmp", "cache/**"]);
    fs::create_dir(world.path("cache")).unwrap();
    fs::create_dir(world.path(".hotpair")).unwrap();
    world.write("a.tmp", b"x");
    world.write("cache/b", b"x");
    world.write(".hotpair/x", b"x");
    world.write("c", b"x");
    world.scan();
    assert!(world.has("c") && world.has("cache") && !world.has("a.tmp"));
    assert!(!world.has(".hotpair"));
    assert_eq!(world.view().name_count().unwrap(), 2);
    fs::rename(world.path("c"), world.path("c.tmp")).unwrap();
    let captured = world.capture();
    assert_eq!(world.view().name_count().unwrap(), 1);
    assert_eq!(captured.deleted, 1);
}

#[test]
fn too_many_deletes_halt_and_leave_the_index_as_it_was() {
    let mut world = World::new(true);
    fs::create_dir(world.path("d")).unwrap();
    for index in 0..50 {
        world.write(&format!("d/{index}"), b"x");
    }
    let before = world.scan();
    fs::remove_dir_all(world.path("d")).unwrap();
    let halt = |deletes: Deletes| {
        assert_eq!((deletes.count, deletes.known), (51, 51));
        Guard::Halt {
            reason: HaltReason::Deletes { count: deletes.count, known: deletes.known },
            next: Remedy::AcceptDeletes { count: deletes.count },
        }
    };
    let halted = world.capture_of(Due::default(), &halt);
    assert!(matches!(halted, Err(CaptureError::Halted { .. })), "{halted:?}");
    assert_eq!(world.view().position().unwrap(), before.position);
    assert_eq!(world.view().name_count().unwrap(), 51);
    // What was due is looked at again; then it may go.
    let captured = world.capture_of(Due::default(), &|_| Guard::Pin).unwrap();
    assert!(captured.is_pinned);
    assert_eq!((captured.deleted, world.view().name_count().unwrap()), (51, 0));
}

#[test]
fn events_that_were_lost_make_everything_due() {
    let mut world = World::new(true);
    world.write("a", b"x");
    world.scan();
    world.observer.suspect(Instant(5));
    world.write("b", b"x");
    world.capture();
    assert!(world.has("b"));
}

#[test]
fn a_capture_can_be_stopped() {
    let mut world = World::new(true);
    world.write("a", b"x");
    let progress = Progress::default();
    progress.stop.store(true, Ordering::Relaxed);
    let stopped = world.capture_with(everything(), &go, &progress);
    assert!(matches!(stopped, Err(CaptureError::Stopped)));
    assert_eq!(world.view().name_count().unwrap(), 0);
}

#[test]
fn a_change_through_a_name_that_is_gone_is_found_at_the_others() {
    let mut world = World::new(true);
    fs::create_dir_all(world.path("d/e")).unwrap();
    world.write("stays", b"one");
    fs::hard_link(world.path("stays"), world.path("goes")).unwrap();
    fs::hard_link(world.path("stays"), world.path("d/e/deep")).unwrap();
    world.scan();
    world.write("goes", b"changed");
    fs::remove_file(world.path("goes")).unwrap();
    let captured = world.capture();
    assert_eq!(captured.position.root, world.fresh_root());
    world.write("d/e/deep", b"once more");
    fs::remove_dir_all(world.path("d")).unwrap();
    let captured = world.capture();
    assert_eq!(captured.position.root, world.fresh_root());
}
