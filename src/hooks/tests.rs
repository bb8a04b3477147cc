//! Hooks as they are: scripts that work, fail, hang, and leave something running.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::{
    Driver, FenceNews, Fencer, HookNews, Lease, Leaving, LeftBehind, Plan, Scene, Told, run,
};
use crate::config::{Fence, Hook, Hooks, VirtualIp};
use crate::promotion::fencing::{FenceAction, FenceAnswer, FenceOrder};
use crate::promotion::services::{ServiceAction, ServiceOrder, ServiceReason};
use crate::promotion::{Clocks, Early};
use crate::units::{Epoch, Instant};

fn scene() -> Scene {
    Scene {
        cluster: "office".into(),
        resource: "vm1".into(),
        node: "alpha".into(),
        peer: "beta".into(),
        path: "/srv/vm1.img".into(),
        export: Some("unix:/run/hotpair/vm1.nbd".into()),
    }
}

fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn hooks(promote: Vec<PathBuf>, demote: Vec<PathBuf>) -> Hooks {
    let list = |paths: Vec<PathBuf>| paths.into_iter().map(Hook::Command).collect();
    Hooks {
        promote: list(promote),
        demote: list(demote),
        virtual_ip: None,
        stop_within: Duration::from_secs(1),
        timeout: Duration::from_secs(20),
    }
}

fn order(run: u64, action: ServiceAction) -> ServiceOrder {
    ServiceOrder { run, action, reason: ServiceReason::Switchover, epoch: Epoch(8) }
}

async fn carry_out(hooks: &Hooks, action: ServiceAction) -> (Result<(), String>, Vec<String>) {
    let plan = Plan::of(order(1, action), hooks, &scene());
    let mut lines = Vec::new();
    let mut tell = |told: Told<'_>| {
        if let Told::Line { text, .. } = told {
            lines.push(text.to_owned());
        }
    };
    let ended = run(&plan, &mut tell).await.map_err(|error| error.to_string());
    (ended, lines)
}

#[tokio::test]
async fn hooks_run_in_order_and_know_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let shown = "echo $HOTPAIR_ACTION $HOTPAIR_REASON $HOTPAIR_RESOURCE $HOTPAIR_EPOCH";
    let first = script(folder.path(), "first", shown);
    let own = folder.path().join("ours");
    let file = fs::File::create(&own).unwrap();
    let others = "env | grep -c -v -e HOTPAIR_ -e PATH= -e PWD= -e _= -e SHLVL=";
    let second = format!("{others}; ls -l /proc/self/fd | grep -c {}", own.display());
    let second = script(folder.path(), "second", &(second + "; true"));
    let (ended, lines) = carry_out(&hooks(vec![first, second], vec![]), ServiceAction::Start).await;
    drop(file);
    assert_eq!(ended, Ok(()));
    assert_eq!(lines, ["promote switchover vm1 8", "0", "0"]);
}

#[test]
fn hooks_hear_what_is_replicated_and_a_directory_has_no_export() {
    let of = |export: Option<&str>| {
        let scene = Scene { export: export.map(str::to_owned), ..scene() };
        let plan = Plan::of(order(1, ServiceAction::Start), &hooks(vec![], vec![]), &scene);
        ["HOTPAIR_KIND", "HOTPAIR_EXPORT"].map(|name| plan.environment[name].clone())
    };
    assert_eq!(of(Some("unix:/run/x")), ["block", "unix:/run/x"]);
    assert_eq!(of(None), ["directory", ""]);
}

#[tokio::test]
async fn a_hook_that_fails_is_tried_twice_more_and_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let fails = script(folder.path(), "fails", "echo try; exit 3");
    let never = script(folder.path(), "never", "echo never");
    let (ended, lines) = carry_out(&hooks(vec![fails, never], vec![]), ServiceAction::Start).await;
    assert!(ended.unwrap_err().ends_with("fails failed: exit status: 3"));
    assert_eq!(lines, ["try", "try", "try"]);
}

#[tokio::test]
async fn what_hangs_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let alive = folder.path().join("alive");
    // Held open by everything that the script starts.
    let hold = format!("exec 9>{}\nflock 9\nsleep 600 & wait", alive.display());
    let hangs = script(folder.path(), "hangs", &hold);
    let fails = script(folder.path(), "fails", "echo fails; exit 1");
    let (ended, lines) =
        carry_out(&hooks(vec![], vec![fails, hangs]), ServiceAction::StopNow).await;
    // The first failure is told, and did not keep the next one from being stopped.
    assert!(ended.unwrap_err().ends_with("fails failed: exit status: 1"));
    assert_eq!(lines, ["fails"; 3]);
    let file = fs::File::open(&alive).expect("the other one ran");
    file.lock().expect("nobody holds it any more");
    let hangs = hooks(vec![], vec![script(folder.path(), "hangs", &hold)]);
    let (ended, _) = carry_out(&hangs, ServiceAction::StopNow).await;
    assert!(ended.unwrap_err().contains("hangs was killed: it did not end within"));
}

#[tokio::test]
async fn what_a_hook_leaves_running_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let leaves = format!("sleep 600 & echo $! > {}; echo ready", pid.display());
    let leaves = script(folder.path(), "leaves", &leaves);
    let (ended, lines) = carry_out(&hooks(vec![leaves], vec![]), ServiceAction::Start).await;
    assert_eq!((ended, lines), (Ok(()), vec!["ready".to_owned()]));
    let pid = fs::read_to_string(&pid).unwrap().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it still runs");
}

#[tokio::test]
async fn a_hook_that_is_not_there_is_named() {
    let gone = hooks(vec![PathBuf::from("/nonexistent/start-site")], vec![]);
    let (ended, _) = carry_out(&gone, ServiceAction::Start).await;
    assert!(ended.unwrap_err().starts_with("/nonexistent/start-site cannot be started: No such"));
}

/// A driver, how long it may run, and its clocks.
fn driver(hooks: Hooks) -> (Driver, watch::Sender<Lease>, Arc<AtomicU64>) {
    let (lease, lease_out) = watch::channel(Lease::default());
    let now = Arc::new(AtomicU64::new(0));
    let shown = Arc::clone(&now);
    let clock = move || {
        let now = Instant(shown.load(Ordering::Relaxed));
        Clocks { boottime: now, raw: now }
    };
    let driver = Driver { hooks, scene: scene(), lease: lease_out, clock: Arc::new(clock) };
    (driver, lease, now)
}

#[tokio::test]
async fn services_stop_with_their_lease_although_the_core_says_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let start = script(folder.path(), "start", "true");
    let stop = script(folder.path(), "stop", "echo $HOTPAIR_REASON");
    let (driver, lease, now) = driver(hooks(vec![start], vec![stop]));
    let (orders, orders_out) = watch::channel(None);
    let (news, mut news_out) = mpsc::channel(16);
    let (left, mut left_out) = watch::channel(driver.left_at_first());
    let until = |end: u64| Some(Early::new(Clocks::default(), Duration::from_nanos(end)));
    lease.send_replace(Lease { is_needed: true, held: [until(1_000), until(2_000)] });
    let task = tokio::spawn(driver.run(Leaving { orders: orders_out, news, left }));
    orders.send_replace(Some(order(1, ServiceAction::Start)));
    assert_eq!(news_out.recv().await, Some(HookNews::Ended { run: 1, result: Ok(()) }));
    now.store(1_999, Ordering::Relaxed);
    assert!(left_out.borrow_and_update().plan.is_some());
    now.store(2_000, Ordering::Relaxed);
    let said = HookNews::Event {
        kind: "hook-output",
        reason: format!("{}: lease-lost", folder.path().join("stop").display()),
    };
    assert_eq!(news_out.recv().await, Some(said));
    // The core is told, since it may find its lease renewed and think that they run.
    assert_eq!(news_out.recv().await, Some(HookNews::Ended { run: 0, result: Ok(()) }));
    left_out.wait_for(|left| left.plan.is_none()).await.unwrap();
    drop(orders);
    task.await.unwrap();
}

#[tokio::test]
async fn a_new_order_kills_what_runs_and_what_is_left_behind_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let began = script(folder.path(), "began", "echo began; sleep 600");
    let stop = script(folder.path(), "stop", "true");
    let (driver, _lease, _now) = driver(hooks(vec![began], vec![stop]));
    let (orders, orders_out) = watch::channel(None);
    let (news, mut news_out) = mpsc::channel(16);
    let (left, mut left_out) = watch::channel(driver.left_at_first());
    let task = tokio::spawn(driver.run(Leaving { orders: orders_out, news, left }));
    orders.send_replace(Some(order(1, ServiceAction::Start)));
    let HookNews::Event { kind: "hook-output", .. } = news_out.recv().await.unwrap() else {
        panic!("it says that it began");
    };
    let runs = left_out.wait_for(|left| left.group.is_some() && left.plan.is_some()).await.unwrap();
    assert_eq!(runs.plan.as_ref().unwrap().environment["HOTPAIR_ACTION"], "demote");
    drop(runs);
    orders.send_replace(Some(order(2, ServiceAction::Stop)));
    let ended = HookNews::Ended { run: 2, result: Ok(()) };
    assert_eq!(news_out.recv().await, Some(ended));
    assert_eq!(*left_out.borrow_and_update(), LeftBehind { group: None, plan: None });
    drop(orders);
    task.await.unwrap();
}

/// What a fence command of this text tells, to its end.
async fn fence(folder: &Path, text: &str, timeout: Duration) -> Vec<FenceNews> {
    let command = script(folder, "fence", text);
    let fence = Fence { command, unfence: None, timeout, delay: Duration::from_secs(5) };
    let (orders, orders_out) = watch::channel(None);
    let (news, mut news_out) = mpsc::channel(64);
    let task = tokio::spawn(Fencer { fence, scene: scene() }.run(orders_out, news));
    orders.send_replace(Some(FenceOrder { action: FenceAction::Fence, run: 3, epoch: Epoch(8) }));
    let mut told = Vec::new();
    while let Some(news) = news_out.recv().await {
        let is_end = matches!(news, FenceNews::Ended { .. });
        told.push(news);
        if is_end {
            break;
        }
    }
    drop(orders);
    task.await.unwrap();
    told
}

#[tokio::test]
async fn a_fence_command_knows_whom_to_fence_and_its_exit_code_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let minute = Duration::from_mins(1);
    let text = "echo $1 $HOTPAIR_ACTION $HOTPAIR_PEER $HOTPAIR_NODE $HOTPAIR_EPOCH; exit 7";
    let told = fence(folder.path(), text, minute).await;
    let [FenceNews::Event { kind: "hook-output", reason }, end] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(reason.ends_with(": beta fence beta alpha 8"), "{reason}");
    assert_eq!(*end, FenceNews::Ended { run: 3, answer: FenceAnswer::Exit(7) });
    for (text, answer) in [
        ("true", FenceAnswer::Exit(0)),
        ("exit 5", FenceAnswer::Exit(5)),
        ("kill -9 $$", FenceAnswer::Broken),
    ] {
        let told = fence(folder.path(), text, minute).await;
        assert_eq!(told, [FenceNews::Ended { run: 3, answer }], "{text}");
    }
}

#[tokio::test]
async fn a_fence_command_that_hangs_is_killed_and_has_confirmed_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let alive = folder.path().join("alive");
    let text = format!("exec 9>{}\nflock 9\nsleep 600 & wait", alive.display());
    let told = fence(folder.path(), &text, Duration::from_secs(1)).await;
    assert_eq!(told, [FenceNews::Ended { run: 3, answer: FenceAnswer::TookTooLong }]);
    let file = fs::File::open(&alive).expect("it ran");
    file.lock().expect("nobody holds it any more");
}

#[test]
fn an_address_comes_last_and_goes_first() {
    let virtual_ip = |address: &str| VirtualIp {
        address: address.parse().unwrap(),
        prefix: 24,
        device: "eth0".into(),
    };
    let unit = Hook::Unit("postgresql.service".into());
    let hooks = Hooks {
        promote: vec![unit.clone()],
        demote: vec![unit],
        virtual_ip: Some(virtual_ip("192.0.2.10")),
        ..hooks(vec![], vec![])
    };
    let words = |hooks: &Hooks, action| {
        let plan = Plan::of(order(1, action), hooks, &scene());
        let line = |step: &super::Step| format!("{} {}", step.program, step.arguments.join(" "));
        plan.steps.iter().map(line).collect::<Vec<_>>()
    };
    let start = ["systemctl start postgresql.service", "ip address replace 192.0.2.10/24 dev eth0"];
    assert_eq!(words(&hooks, ServiceAction::Start), start);
    // Only this very address: the network may have others on the same card.
    let stop = ["ip address flush dev eth0 to 192.0.2.10/32", "systemctl stop postgresql.service"];
    assert_eq!(words(&hooks, ServiceAction::StopNow), stop);
    let six = Hooks { virtual_ip: Some(virtual_ip("2001:db8::a")), ..hooks };
    assert_eq!(
        words(&six, ServiceAction::Start)[1..],
        [
            "sysctl -q -w net/ipv6/conf/eth0/ndisc_notify=1",
            "ip address replace 2001:db8::a/24 dev eth0 nodad"
        ]
    );
}
