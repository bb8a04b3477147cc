//! A witness that is killed, or whose disk fails, at each of its system calls in turn.

use std::process::Command;

use hotpair::promotion::arbiter::{Eligible, Operation, Refused, Reply, Request};
use hotpair::units::Epoch;

use crate::harness::{A, Home, Node, Pair, Running, Security, done, solo};

/// The calls that a record and its answer go through.
const CALLS: &[&str] = &["pwrite64", "fsync", "renameat", "fdatasync", "sendto"];

/// Whether this machine lets one process change the calls of another.
#[allow(clippy::print_stdout, reason = "a test says why it was skipped")]
fn can_trace(name: &str) -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    let can = traced.as_ref().is_ok_and(std::process::ExitStatus::success);
    if !can {
        println!("skipped: {name}: strace does not work here: {traced:?}");
    }
    can
}

/// Starts a witness in which the call number `nth` of that name ends so.
fn start_with(home: &Home, call: &str, what: &str, nth: u32) -> Running {
    let traced = format!("trace={call}");
    let injected = format!("inject={call}:{what}:when={nth}");
    let under = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &traced, "-e", &injected];
    home.start_under(&under, &[])
}

/// A pair's node, and a witness that may end at any moment.
struct Script<'a> {
    home: &'a Home,
    pair: &'a Pair,
    /// `None` once it was killed by its call.
    traced: Option<Running>,
    again: Option<Running>,
    node: Option<Node>,
}

impl Script<'_> {
    /// Starts a witness without faults, after the end of the other one.
    fn restart(&mut self) {
        self.traced.take().expect("only one fault was injected").kill_child();
        self.again = Some(self.home.start(&[]));
        self.node = None;
    }

    /// Connects, unless that is done; a witness may end before its Welcome.
    async fn connect(&mut self, epoch: Epoch) {
        while self.node.is_none() {
            let witness = self.again.as_ref().or(self.traced.as_ref()).expect("one of them runs");
            let mut node = Node::start(self.pair.settings(A, witness));
            match node.said().await {
                hotpair::arbiter::News::Reachable { arbiter } => {
                    node.arbiter = arbiter;
                    self.node = Some(node);
                }
                _ => self.restart(),
            }
        }
        if let Some(node) = &mut self.node {
            node.epoch = epoch;
        }
    }

    /// Asks until there is an answer, and gives the new epoch.
    async fn change(&mut self, operation: Operation, epoch: Epoch) -> Epoch {
        let mut request: Option<Request> = None;
        loop {
            self.connect(epoch).await;
            let node = self.node.as_mut().expect("connected");
            let request = request.get_or_insert_with(|| node.request(operation.clone()));
            node.order("vm1", request).await;
            match node.answer_or_end(request.id).await {
                Ok(reply) => return done(reply).epoch,
                Err(_) => self.restart(),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_every_change_happens_once() {
    if !can_trace("killed_at_any_call_every_change_happens_once") {
        return;
    }
    let pair = Pair::new(Security::Plain);
    for call in CALLS {
        for nth in 1.. {
            let home = Home::new(Security::Plain);
            // The id is made by a run without faults.
            home.start(&[]).stop();
            let traced = Some(start_with(&home, call, "signal=KILL", nth));
            let mut script = Script { home: &home, pair: &pair, traced, again: None, node: None };
            let first = script.change(Operation::Enroll(pair.half(true)), Epoch(0)).await;
            let second = script.change(solo(), first).await;
            let third = script.change(Operation::Keep, second).await;
            let expected = first.next_by_arbiter();
            assert_eq!((second, third), (expected, expected.next_by_arbiter()), "{call} {nth}");
            if let Some(unharmed) = script.traced.take() {
                unharmed.kill_child();
                assert!(nth > 1, "{call} was never called");
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_failed_once_is_final_for_its_record_until_the_next_start() {
    if !can_trace("a_sync_that_failed_once_is_final_for_its_record") {
        return;
    }
    let home = Home::new(Security::Plain);
    home.start(&[]).stop();
    let witness = start_with(&home, "fdatasync", "error=EIO", 1);
    let pair = Pair::new(Security::Plain);
    let mut alpha = pair.node(A, &witness).await;
    let enroll = Operation::Enroll(pair.half(true));
    alpha.epoch = done(alpha.ask_for(enroll.clone()).await).epoch;
    let other = alpha.request(enroll);
    done(alpha.ask("vm2", &other).await);
    let change = alpha.request(solo());
    for _ in 0..3 {
        // Only the first one failed; that a later one would succeed proves nothing.
        assert_eq!(alpha.ask("vm1", &change).await, Reply::Refused(Refused::DiskFailed));
        assert!(matches!(alpha.ask_for(Operation::Renew).await, Reply::Lease { .. }));
    }
    let keep = alpha.request(Operation::Keep);
    assert!(matches!(alpha.ask("vm2", &keep).await, Reply::Done(_)), "the others go on");
    witness.kill_child();
    let witness = home.start(&[]);
    let epoch = alpha.epoch;
    let mut alpha = pair.node(A, &witness).await;
    alpha.epoch = epoch;
    // Whether it reached the disk or not, the same request makes the same record.
    let record = done(alpha.ask("vm1", &change).await);
    assert_eq!((record.epoch, record.eligible), (epoch.next_by_arbiter(), Eligible::Owner));
}
