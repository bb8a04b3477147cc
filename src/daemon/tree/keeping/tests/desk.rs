//! What the core is told of a tree that went back, or that somebody else has written to.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as plain;
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::super::orders::{Ahead, Order, Report};
use super::super::super::start::Threads;
use super::super::super::view::TreeView;
use super::super::super::{Deed, TreeDesk};
use super::{at, complete};
use crate::manifest::source::SourceSettings;
use crate::manifest::target::CommitEnd;
use crate::manifest::{Pace, encode_register};
use crate::replica::{Closing, DiskOutcome, Following, Input, IoId, LinkId, TreeCommand};
use crate::store::tree::capture::Progress;
use crate::units::{Epoch, Instant, SessionId, TreeNumber};

struct Bench {
    desk: TreeDesk,
    orders: mpsc::Receiver<Order>,
    ahead: Arc<Ahead>,
    session: u64,
}

impl Bench {
    fn new() -> Self {
        let (orders, orders_out) = mpsc::channel(64);
        let (_, reports) = mpsc::channel(1);
        let (to_sender, _) = plain::sync_channel(64);
        let (_, sent) = mpsc::channel(1);
        let ahead = Arc::<Ahead>::default();
        let progress = Arc::<Progress>::default();
        let ends = Arc::clone(&ahead);
        let threads = Threads { orders, reports, to_sender, sent, progress, ahead: ends };
        let settings = SourceSettings {
            max_lag: Duration::from_mins(1),
            pace: Pace { settle: Duration::from_secs(1), oldest_max: Duration::from_secs(30) },
            full_scan: Duration::from_mins(10),
            scope_digest: [1; 32],
        };
        let view = TreeView::new(PathBuf::from("/nowhere"));
        let block = encode_register(Some(&complete(at(5))));
        let desk = TreeDesk::new("r", (settings, at(5)), (threads, view), (block, true));
        Self { desk, orders: orders_out, ahead, session: 0 }
    }

    /// A new session that this node follows.
    fn follow(&mut self) {
        self.session += 1;
        let session = SessionId(self.session);
        let (link, epoch) = (LinkId(self.session), Epoch(3));
        let following = Following { link, session, epoch, is_source: false };
        self.desk.follow(Some(following));
    }

    fn report(&mut self, report: Report) {
        self.desk.on_report(report);
    }

    fn went_back(&mut self) {
        let result = Ok((at(6), TreeNumber(4)));
        self.report(Report::WentBack { request: 1, result });
    }

    /// What the core is told, without what else is to be done.
    fn inputs(&mut self) -> Vec<Input> {
        let deeds = std::iter::from_fn(|| self.desk.next_deed());
        deeds
            .filter_map(|it| if let Deed::Input(input) = it { Some(input) } else { None })
            .collect()
    }

    fn falls_back(&mut self) -> bool {
        self.inputs().iter().any(|input| matches!(input, Input::FellBack { .. }))
    }
}

#[test]
fn a_tree_that_went_back_does_not_count_once_another_node_leads() {
    let mut bench = Bench::new();
    bench.follow();
    assert!(!bench.falls_back());
    bench.desk.follow(None);
    bench.went_back();
    assert!(!bench.falls_back(), "it may be promoted");
    bench.follow();
    assert!(bench.falls_back());
    bench.desk.follow(None);
    bench.follow();
    assert!(!bench.falls_back(), "once");
    // The peer's tree is brought here: there is nothing to tell of after that.
    bench.report(Report::Committed(CommitEnd::Done));
    bench.desk.follow(None);
    bench.follow();
    assert!(!bench.falls_back());
}

#[test]
fn a_tree_that_went_back_and_is_served_counts() {
    let mut bench = Bench::new();
    bench.went_back();
    bench.desk.on_open();
    bench.desk.on_close(Closing::Drained);
    bench.report(Report::Rests { position: at(7) });
    bench.follow();
    assert!(!bench.falls_back());
}

#[test]
fn a_tree_on_its_way_back_is_no_generation_that_the_core_may_name() {
    let mut bench = Bench::new();
    bench.desk.on_rollback(1, 4);
    bench.inputs();
    bench.desk.on_commit_asked(IoId(9), encode_register(Some(&complete(at(5)))));
    let inputs = bench.inputs();
    let refused =
        matches!(inputs[..], [Input::Disk { io: IoId(9), outcome: DiskOutcome::NoSpace }]);
    assert!(refused, "{inputs:?}");
}

#[test]
fn what_was_foreign_is_of_no_account_for_a_node_that_serves() {
    let foreign = || Report::Foreign { count: 1, first: "x (it was added)".to_owned() };
    let mut bench = Bench::new();
    bench.desk.on_open();
    assert!(bench.ahead.serves.load(Ordering::Relaxed));
    bench.report(foreign());
    assert!(!bench.falls_back());
    bench.desk.on_close(Closing::Drained);
    assert!(!bench.ahead.serves.load(Ordering::Relaxed));
    bench.report(Report::Rests { position: at(7) });
    bench.report(foreign());
    assert!(!bench.falls_back(), "without another node this may be the only copy");
    bench.follow();
    assert!(bench.falls_back());
    // While the other node leads that is told at once.
    bench.report(foreign());
    assert!(bench.falls_back());
    bench.desk.follow(None);
    bench.follow();
    assert!(!bench.falls_back(), "once");
}

#[test]
fn what_was_found_while_the_other_node_was_away_is_of_no_account_once_this_one_serves() {
    let mut bench = Bench::new();
    bench.report(Report::Foreign { count: 1, first: "x (it was added)".to_owned() });
    bench.desk.on_open();
    bench.desk.on_close(Closing::Drained);
    bench.report(Report::Rests { position: at(7) });
    bench.follow();
    assert!(!bench.falls_back());
}

#[test]
fn a_tree_that_could_not_go_back_before_the_node_serves_is_none_that_went_back() {
    let mut bench = Bench::new();
    bench.desk.on_open();
    bench.went_back();
    bench.desk.on_close(Closing::Drained);
    bench.report(Report::Rests { position: at(7) });
    bench.follow();
    assert!(!bench.falls_back());
}

#[test]
fn what_a_tree_went_back_to_is_what_is_shown() {
    let mut bench = Bench::new();
    assert_eq!(bench.desk.status().tree_generation, Some(5));
    bench.went_back();
    let status = bench.desk.status();
    assert_eq!((status.tree_generation, status.tree.root), (Some(6), Some(at(6).root.to_string())));
    bench.desk.on_open();
    assert_eq!(bench.desk.status().tree_generation, Some(5));
}

#[test]
fn whoever_asks_for_a_sync_before_the_tree_is_watched_is_answered_once_it_is_or_will_not_be() {
    let mut bench = Bench::new();
    let answers = |bench: &mut Bench| {
        let deeds = std::iter::from_fn(|| bench.desk.next_deed());
        deeds.filter(|it| matches!(it, Deed::Answer { request: 7, result: Err(_) })).count()
    };
    let sync = TreeCommand::Sync { freeze: false };
    bench.desk.on_command(7, sync);
    assert_eq!(answers(&mut bench), 1, "nobody promoted it");
    bench.desk.on_open();
    bench.desk.on_command(7, sync);
    assert_eq!(answers(&mut bench), 0);
    bench.desk.on_close(Closing::Drained);
    assert_eq!(answers(&mut bench), 1);
}

#[test]
fn a_secondary_looks_at_its_tree_from_time_to_time() {
    let mut bench = Bench::new();
    bench.follow();
    let after = |seconds: u64| Instant(seconds * 1_000_000_000);
    for (seconds, is_asked) in [(1, false), (600, false), (601, true), (602, false), (1201, true)] {
        bench.desk.tick(after(seconds));
        let orders: Vec<Order> = std::iter::from_fn(|| bench.orders.try_recv().ok()).collect();
        let found = orders.iter().any(|order| matches!(order, Order::Compare));
        assert_eq!(found, is_asked, "{seconds}");
    }
}
