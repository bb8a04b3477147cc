//! What becomes of a tree: generations without content are brought here from another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as plain;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::super::super::orders::{Ahead, Order, Report};
use super::super::super::worker::{RootMark, Terms, UnderWay, Worker, closed_of, local_register};
use super::super::{Wanted, has_foreign, set_went_back, went_back};
use super::complete;
use crate::manifest::target::{ApplyEnd, Attempt, CommitEnd};
use crate::manifest::{
    Allowed, Deletes, Due, FileTime, Guard, LeftOut, MassDelete, Name, Pace, Scope,
};
use crate::store::tree::apply::{Folders, Moment, RECORDS_FILE, Steps};
use crate::store::tree::capture::{Progress, Subject, capture};
use crate::store::tree::index::{Index, Rows as _};
use crate::store::tree::outgoing::{Outgoing, OutgoingError};
use crate::store::tree::target::{Agreement, Target};
use crate::store::tree::{Exclude, Folder, Observer, WorkArea};
use crate::units::{Epoch, Instant, Label, ObjectId, ResourceId, TreeNumber, TreePosition};
use crate::wire::{ChunkPlace, Packer, Packing, Payload};

fn scope() -> Scope {
    Scope { resource: ResourceId(11), exclude: [].into(), leave_out: [].into() }
}

fn folder(path: &Path) -> Folder {
    fs::create_dir_all(path).unwrap();
    Folder::open(path).unwrap()
}

fn work(above: &Folder, root: &Folder) -> WorkArea {
    let name = Name::new(b".hotpair-r").unwrap();
    WorkArea::open(above, &name, &root.look_at_self().unwrap()).unwrap()
}

struct Bench {
    outer: TempDir,
    index: Index,
    observer: Observer,
    root: Folder,
    worker: Worker,
    under_way: UnderWay,
    queue: mpsc::Sender<Order>,
    reports: mpsc::Receiver<Report>,
    attempts: u64,
    packer: Packer,
}

impl Bench {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let above = folder(&outer.path().join("a"));
        let root = folder(&outer.path().join("a/tree"));
        let index = Index::open_in(&folder(&outer.path().join("a/state"))).unwrap().0;
        let observer = Observer::start(&work(&above, &root), false, || Instant(0), || ()).unwrap();
        let (queue, orders) = mpsc::channel(64);
        let (says, reports) = mpsc::channel(4096);
        let (sender, _) = plain::sync_channel(1);
        let worker = Worker {
            target: target(&outer.path().join("b")),
            terms: terms(&outer.path().join("b/tree")),
            orders,
            reports: says,
            sender,
            progress: Arc::default(),
            observer: None,
            newest: None,
            accepted: None,
            counted: None,
            ahead: Arc::<Ahead>::default(),
            is_compare_wanted: false,
            unpacked: Vec::new(),
        };
        let (under_way, attempts, packer) = (UnderWay::default(), 0, Packer::default());
        Self { outer, index, observer, root, worker, under_way, queue, reports, attempts, packer }
    }

    fn tree(&self, path: &str) -> PathBuf {
        self.outer.path().join("b/tree").join(path)
    }

    /// Captures the other tree after `change`.
    fn capture(&mut self, change: impl FnOnce(&Path)) -> TreePosition {
        change(&self.outer.path().join("a/tree"));
        let go = |_: Deletes| Guard::Go;
        let (scope, left_out) = (scope(), LeftOut::default());
        let exclude = Exclude::new(&scope.exclude).unwrap();
        let (root, scope, exclude, left_out) = (&self.root, &scope, &exclude, &left_out);
        let subject = Subject { root, scope, exclude, left_out, guard: &go };
        let due = Due { everything: true, ..Due::default() };
        let captured =
            capture(&self.index, &subject, &mut self.observer, due, &Progress::default());
        captured.unwrap().position
    }

    fn order(&mut self, order: Order) {
        self.worker.carry_out(order, &mut self.under_way);
    }

    /// Brings the newest generation here, as what changed after `base` or as a whole.
    fn bring(&mut self, base: TreePosition) -> Vec<Report> {
        let position = self.prepare(base);
        let reports = self.commit_and_apply(position);
        let is_applied = |it: &Report| matches!(it, Report::Applied { end: ApplyEnd::Done, .. });
        assert!(reports.iter().any(is_applied));
        assert_eq!(self.worker.target.position(), position);
        reports
    }

    fn prepare(&mut self, base: TreePosition) -> TreePosition {
        self.prepare_with(base, |_| ())
    }

    /// `change` is made to the tree once it was surveyed.
    fn prepare_with(&mut self, base: TreePosition, change: impl FnOnce(&Path)) -> TreePosition {
        self.attempts += 1;
        let attempt = Attempt(self.attempts);
        let view = self.index.view().unwrap();
        let position = view.position().unwrap();
        let outgoing = Outgoing::new(view, &self.root);
        let mut batches = Vec::new();
        outgoing
            .records(base.number, 1 << 20, |batch| -> Result<(), OutgoingError> {
                batches.push(batch);
                Ok(())
            })
            .unwrap();
        self.worker.carry_out(Order::Begin { attempt, base: Some(base) }, &mut self.under_way);
        change(&self.outer.path().join("b/tree"));
        for batch in batches {
            let packed = self.packer.pack(&batch);
            let (packing, bytes) = packed.unwrap_or_else(|| (Packing::Raw, Bytes::from(batch)));
            let records = Payload::unhashed(bytes);
            self.order(Order::Push { attempt, packing, records });
        }
        self.queue.try_send(Order::StageMore { attempt, chunks_max: 1000 }).unwrap();
        self.queue.try_send(Order::Prepare { attempt }).unwrap();
        self.order(Order::End { attempt, position, label: Label::Stable });
        position
    }

    fn commit_and_apply(&mut self, position: TreePosition) -> Vec<Report> {
        let attempt = Attempt(self.attempts);
        let register = local_register(Some(&complete(position)), false);
        self.order(Order::Commit { attempt, register });
        self.order(Order::Apply);
        self.reports()
    }

    fn next(&mut self, change: impl FnOnce(&Path)) -> TreePosition {
        let base = self.worker.target.position();
        let position = self.capture(change);
        self.bring(base);
        position
    }

    fn reports(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }

    fn finds_foreign(&mut self) -> bool {
        self.reports().iter().any(|it| matches!(it, Report::Foreign { .. }))
    }

    fn register(&self) -> [u8; 512] {
        self.worker.target.applier().records().register
    }
}

fn target(outer: &Path) -> Target {
    let above = folder(outer);
    let root = folder(&outer.join("tree"));
    let work = work(&above, &root);
    let state = folder(&outer.join("state"));
    let (index, _) = Index::open_in(&state).unwrap();
    let scope = scope();
    let exclude = Exclude::new(&scope.exclude).unwrap();
    let agreement = Agreement { exclude, left_out: LeftOut::default(), scope };
    let moment = Moment { epoch: Epoch(3), now: FileTime::default() };
    Target::open(Folders { root, work, state }, index, agreement, moment).unwrap().0
}

fn terms(tree: &Path) -> Terms {
    Terms {
        name: "r".to_owned(),
        root: RootMark { path: tree.to_owned(), marker: Vec::new() },
        pace: Pace { settle: Duration::from_secs(1), oldest_max: Duration::from_secs(30) },
        allowed: Allowed { percent: 50, beyond: MassDelete::Pin },
        events: false,
        epoch: Epoch(3),
        at_least: TreeNumber(0),
        lost_power: false,
        wanted: Wanted { count: 9, limit_bytes: 1 << 30 },
    }
}

fn make(tree: &Path, name: &str) {
    fs::write(tree.join(name), "").unwrap();
}

/// Two generations; only the first one has `old`.
fn with_two() -> (Bench, TreePosition) {
    let mut bench = Bench::new();
    let old = bench.next(|tree| make(tree, "old"));
    bench.next(|tree| {
        fs::remove_file(tree.join("old")).unwrap();
        make(tree, "new");
    });
    (bench, old)
}

#[test]
fn what_an_operator_went_back_to_is_set_aside_when_the_other_node_leads() {
    let (mut bench, old) = with_two();
    bench.order(Order::RollBack { request: 1, to: old.number });
    assert!(bench.tree("old").exists() && !bench.tree("new").exists());
    assert!(went_back(&bench.register()));
    bench.reports();
    bench.capture(|tree| make(tree, "more"));
    // Its source knows nothing of what the tree is here.
    let reports = bench.bring(TreePosition::default());
    let cut_off = reports.iter().find_map(|it| match it {
        Report::CutOff { numbers } => Some(numbers.clone()),
        _ => None,
    });
    // Nothing leads back to what was gone back to, nor to what was left by that.
    assert_eq!(cut_off, Some(vec![old.number.0, old.number.0 + 1]));
    assert!(bench.tree("more").exists() && !bench.tree("old").exists());
    assert!(bench.outer.path().join("b/.hotpair-r/lost+hotpair/3/old").exists());
    assert!(!went_back(&bench.register()));
}

#[test]
fn a_way_back_that_is_undone_leaves_what_the_node_remembers() {
    let mut undone = 0;
    for count in 0.. {
        let (mut bench, old) = with_two();
        let (before, position) = (bench.register(), bench.worker.target.position());
        bench.worker.target.applier_mut().limit(Steps::failing(count, Errno::NOSPC));
        bench.order(Order::RollBack { request: 1, to: old.number });
        let reports = bench.reports();
        let is_back = reports.iter().any(|it| matches!(it, Report::WentBack { result: Ok(_), .. }));
        if is_back && bench.worker.target.applier().steps().taken() < count {
            break;
        }
        if is_back || reports.iter().any(|it| matches!(it, Report::Failed { .. })) {
            // What failed came after it, or the disk is not used any more.
            continue;
        }
        let why = reports.iter().find_map(|it| match it {
            Report::WentBack { result, .. } => result.clone().err(),
            _ => None,
        });
        if why.as_ref().is_some_and(|why| why.contains(RECORDS_FILE)) {
            // Its space is taken from the start on, so that is a disk that failed.
            continue;
        }
        assert_eq!(bench.worker.target.position(), position, "{count}: {why:?}");
        assert_eq!(bench.register(), before, "{count}");
        assert_eq!(closed_of(&before).map(|it| it.position), Some(position));
        undone += usize::from(bench.tree("new").exists());
    }
    assert!(undone > 3, "{undone}");
}

#[test]
fn what_an_operator_went_back_to_is_set_aside_although_it_was_brought_back_once() {
    let (mut undone, mut set_aside) = (0, 0);
    for count in 0.. {
        let (mut bench, old) = with_two();
        bench.order(Order::RollBack { request: 1, to: old.number });
        bench.capture(|tree| make(tree, "more"));
        let position = bench.prepare(TreePosition::default());
        bench.worker.target.applier_mut().limit(Steps::failing(count, Errno::NOSPC));
        let reports = bench.commit_and_apply(position);
        let is_over = bench.worker.target.applier().steps().taken() < count;
        bench.worker.target.applier_mut().limit(Steps::unlimited());
        let end = reports.iter().find_map(|it| match it {
            Report::Applied { end, .. } => Some(end),
            _ => None,
        });
        let quarantined = bench.outer.path().join("b/.hotpair-r/lost+hotpair/3/old");
        match end {
            Some(ApplyEnd::Undone { .. }) => {
                undone += 1;
                assert!(bench.tree("old").exists() && went_back(&bench.register()), "{count}");
                bench.bring(TreePosition::default());
            }
            Some(ApplyEnd::Done) => {}
            // It was not committed, or the disk is not used any more.
            Some(ApplyEnd::Failed) | None => continue,
        }
        if reports.iter().any(|it| matches!(it, Report::Failed { .. })) {
            // The disk is not used any more, though the tree had come to rest.
            continue;
        }
        assert!(!bench.tree("old").exists() && !went_back(&bench.register()), "{count}");
        // Where there was no space for it, it waits; what failed after that ends the use of the disk.
        if bench.worker.target.bring_displaced(bench.worker.moment()).is_err() {
            continue;
        }
        set_aside += usize::from(quarantined.exists());
        assert!(quarantined.exists(), "{count}");
        if is_over {
            break;
        }
    }
    assert!(undone > 3 && set_aside > undone, "{undone} {set_aside}");
}

#[test]
fn what_was_served_after_a_way_back_only_this_node_has() {
    let (mut bench, old) = with_two();
    bench.order(Order::RollBack { request: 1, to: old.number });
    // It serves, and crashes before a generation was captured.
    let mut register = local_register(None, true);
    set_went_back(&mut register);
    let before = bench.register();
    bench.order(Order::Serve);
    assert!(went_back(&before) && bench.register() == *register);
    bench.worker.observer = None;
    bench.worker.target.doubt();
    bench.capture(|tree| make(tree, "more"));
    bench.bring(TreePosition::default());
    assert!(bench.outer.path().join("b/.hotpair-r/lost+hotpair/3/old").exists());
    assert!(!went_back(&bench.register()));
}

#[test]
fn what_is_written_after_a_generation_was_prepared_is_not_overwritten() {
    let mut bench = Bench::new();
    bench.next(|tree| make(tree, "file"));
    let base = bench.worker.target.position();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    bench.capture(|tree| fs::set_permissions(tree.join("file"), private).unwrap());
    let position = bench.prepare(base);
    fs::write(bench.tree("file"), "mine!").unwrap();
    let reports = bench.commit_and_apply(position);
    let is_refused = |it: &Report| matches!(it, Report::Committed(CommitEnd::Refused(_)));
    assert!(reports.iter().any(is_refused));
    assert!(reports.iter().any(|it| matches!(it, Report::Foreign { count: 1, .. })));
    assert_eq!(fs::read(bench.tree("file")).unwrap(), b"mine!");
    bench.bring(TreePosition::default());
    let aside = bench.outer.path().join("b/.hotpair-r/lost+hotpair/3/file");
    assert_eq!(fs::read(aside).unwrap(), b"mine!");
}

#[test]
fn whoever_goes_on_writing_to_what_is_set_aside_does_not_keep_a_tree_from_its_generation() {
    let mut bench = Bench::new();
    let base = bench.next(|tree| make(tree, "file"));
    fs::write(bench.tree("file"), "mine").unwrap();
    fs::write(bench.tree("log"), "a").unwrap();
    bench.worker.target.doubt();
    bench.prepare_with(TreePosition::default(), |tree| {
        for name in ["file", "log"] {
            fs::write(tree.join(name), "written after the survey").unwrap();
        }
    });
    for name in ["file", "log"] {
        fs::write(bench.tree(name), "written after it was prepared").unwrap();
    }
    bench.commit_and_apply(base);
    assert_eq!(bench.worker.target.position(), base);
    assert_eq!(fs::read(bench.tree("file")).unwrap(), b"");
    for name in ["file", "log"] {
        let aside = bench.outer.path().join("b/.hotpair-r/lost+hotpair/3").join(name);
        assert_eq!(fs::read(aside).unwrap(), b"written after it was prepared");
    }
}

#[test]
fn a_busy_pair_compares_between_two_generations() {
    let (mut bench, _) = with_two();
    fs::write(bench.tree("mine"), "mine").unwrap();
    bench.order(Order::Compare);
    bench.queue.try_send(Order::Generations { request: 1 }).unwrap();
    let base = bench.worker.target.position();
    bench.capture(|tree| make(tree, "more"));
    // Orders wait for the worker all the time.
    let position = bench.prepare(base);
    bench.queue.try_send(Order::Generations { request: 1 }).unwrap();
    let reports = bench.commit_and_apply(position);
    assert!(reports.iter().any(|it| matches!(it, Report::Foreign { .. })));
}

#[test]
fn compressed_bytes_that_are_not_what_they_say_end_a_delta() {
    let (mut bench, _) = with_two();
    let base = bench.worker.target.position();
    let to = bench.capture(|tree| fs::write(tree.join("more"), [5; 300]).unwrap());
    let view = bench.index.view().unwrap();
    let mut records = Vec::new();
    Outgoing::new(view, &bench.root)
        .records(base.number, 1 << 20, |mut batch| -> Result<(), OutgoingError> {
            records.append(&mut batch);
            Ok(())
        })
        .unwrap();
    let garbage = || Payload::unhashed(Bytes::from_static(&[0x5a; 12]));
    let (raw, packed) = (Packing::Raw, Packing::Lz4 { raw_len: 300 });
    let good = Payload::unhashed(records.into());
    let is_garbled =
        |of| move |it: &Report| matches!(it, Report::Garbled { attempt } if *attempt == of);

    let attempt = Attempt(98);
    bench.order(Order::Begin { attempt, base: Some(base) });
    bench.order(Order::Push { attempt, packing: packed, records: garbage() });
    bench.order(Order::Push { attempt, packing: raw, records: good.clone() });
    bench.order(Order::End { attempt, position: to, label: Label::Stable });
    let reports = bench.reports();
    assert_eq!(reports.iter().filter(|it| matches!(it, Report::Taken)).count(), 2);
    assert!(reports.iter().any(is_garbled(attempt)) && reports.len() == 3);

    let attempt = Attempt(99);
    bench.order(Order::Begin { attempt, base: Some(base) });
    bench.order(Order::Push { attempt, packing: raw, records: good });
    let place = ChunkPlace { object: ObjectId(9), chunk: 0, len: 300 };
    let put = Order::Put { attempt, table: vec![place], packing: packed, bytes: garbage() };
    bench.queue.try_send(put).unwrap();
    bench.order(Order::End { attempt, position: to, label: Label::Stable });
    let reports = bench.reports();
    assert!(matches!(
        reports[..],
        [Report::Taken, Report::Checked { result: Ok(()), .. }, Report::Garbled { .. }]
    ));
    // The tree is as it was, and the generation can still be taken.
    assert_eq!(bench.worker.target.position(), base);
}

#[test]
fn a_tree_is_compared_when_nothing_else_is_to_be_done() {
    let (mut bench, _) = with_two();
    let base = bench.worker.target.position();
    fs::write(bench.tree("mine"), "mine").unwrap();
    let attempt = Attempt(99);
    bench.order(Order::Begin { attempt, base: Some(base) });
    bench.order(Order::Compare);
    assert!(!bench.worker.is_compare_due(&bench.under_way));
    bench.order(Order::Drop { attempt });
    assert!(bench.worker.is_compare_due(&bench.under_way));
    bench.worker.compare();
    assert!(bench.finds_foreign() && has_foreign(&bench.register()));
    assert!(!bench.worker.is_compare_due(&bench.under_way));
}

#[test]
fn an_order_ends_a_comparison_which_goes_on_after_it() {
    let mut bench = Bench::new();
    bench.next(|tree| (0..700).for_each(|number| make(tree, &format!("{number}"))));
    fs::write(bench.tree("mine"), "mine").unwrap();
    bench.order(Order::Compare);
    bench.queue.try_send(Order::Generations { request: 1 }).unwrap();
    bench.worker.compare();
    assert!(!bench.finds_foreign() && bench.worker.is_compare_due(&bench.under_way));
    // Whoever is always called away comes to the end, too.
    for round in 0.. {
        assert!(round < 9);
        bench.worker.compare();
        if bench.finds_foreign() {
            break;
        }
    }
}

#[test]
fn whoever_is_about_to_serve_compares_nothing() {
    let (mut bench, _) = with_two();
    fs::write(bench.tree("mine"), "mine").unwrap();
    bench.order(Order::Compare);
    bench.worker.ahead.serves.store(true, Ordering::Relaxed);
    bench.worker.compare();
    assert!(!bench.finds_foreign() && !has_foreign(&bench.register()));
    assert!(!bench.worker.is_compare_due(&bench.under_way));
}
