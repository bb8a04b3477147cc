//! Facts about the API over a real socket, with a data thread that only writes down its orders.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::control::{
    AuditEntry, AuditOrder, AuditOutcome, ControlSocket, Handle, NodeEvent, Order, serve, status,
};
use crate::replica::{AgentCommand, Event, KeptGeneration, TreeCommand};
use crate::units::{Epoch, Instance};

struct Server {
    _dir: tempfile::TempDir,
    path: PathBuf,
    orders: mpsc::Receiver<Order>,
    events: mpsc::Sender<NodeEvent>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
    _snapshot: watch::Sender<status::Snapshot>,
}

/// A server whose audit log is always stable at once.
fn start() -> Server {
    start_with(stable_trail())
}

fn stable_trail() -> AuditTrail {
    let (audit, lines) = trail();
    std::thread::spawn(move || {
        for AuditOrder { written, .. } in lines {
            let _ = written.send(());
        }
    });
    audit
}

fn trail() -> (AuditTrail, std::sync::mpsc::Receiver<AuditOrder>) {
    let (lines, lines_out) = std::sync::mpsc::sync_channel(16);
    (AuditTrail::new(lines, Arc::default(), Instance(1)), lines_out)
}

fn start_with(audit: AuditTrail) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/control.sock");
    let socket = ControlSocket::bind(&path).unwrap();
    let (facts, resource, snapshot) = status::sample();
    let (snapshot_sender, snapshot) = watch::channel(snapshot);
    let (order_sender, orders) = mpsc::channel(4);
    let (events, event_receiver) = mpsc::channel(4);
    let (looks, _) = mpsc::channel(1);
    let handle = ResourceHandle { facts: resource, snapshot, orders: order_sender, looks };
    let resources = vec![handle];
    let events_out = event_receiver;
    let handle = Handle { facts, arbiter: None, paths: None, resources, events: events_out, audit };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serve(socket, handle, stop.clone()));
    Server { _dir: dir, path, orders, events, stop, served, _snapshot: snapshot_sender }
}

/// Sends `text` as it is and returns all that comes back until the server closes.
async fn raw(path: &PathBuf, text: &[u8]) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    // The server may answer and close before it has read all.
    let _ = stream.write_all(text).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

async fn ask(path: &PathBuf, method: &str, target: &str, body: &str) -> (u16, String) {
    let len = body.len();
    let text = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {len}\r\n\r\n{body}"
    );
    let answer = raw(path, text.as_bytes()).await;
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(test);
}

#[test]
fn status_and_explain_show_the_snapshot() {
    run(async {
        let server = start();
        let (code, all) = ask(&server.path, "GET", "/api/v1/status", "").await;
        assert_eq!(code, 200);
        let all: NodeStatus = serde_json::from_str(&all).unwrap();
        assert_eq!((all.node.as_str(), all.resources.len()), ("alpha", 1));
        let (_, one) = ask(&server.path, "GET", "/api/v1/status?resource=vm1", "").await;
        assert_eq!(serde_json::from_str::<NodeStatus>(&one).unwrap(), all);
        let (_, why) = ask(&server.path, "GET", "/api/v1/resources/vm1/explain", "").await;
        assert_eq!(why, r#"{"why":"Both nodes hold the same.","next":""}"#);
        let (_, split) = ask(&server.path, "GET", "/api/v1/resources/vm1/split-brain", "").await;
        assert_eq!(split, r#"{"split_brain":null}"#);
    });
}

/// Command, body and what the data thread gets.
const COMMANDS: &[(&str, &str, Command)] = &[
    ("promote", "", Command::Promote { force: false, accept_data_loss: false }),
    (
        "promote",
        r#"{"force":true,"peer_is_fenced":true,"accept_data_loss":true}"#,
        Command::Promote { force: true, accept_data_loss: true },
    ),
    ("demote", "", Command::Demote),
    ("switchover", "{}", Command::Switchover),
    ("connect", "", Command::Connect),
    ("disconnect", "", Command::Disconnect),
    ("pause-resync", "", Command::PauseResync),
    ("resume-resync", "", Command::ResumeResync),
    ("verify", r#"{"repair":true}"#, Command::Verify { repair: true }),
    ("invalidate", "", Command::Invalidate),
    ("demote", r#"{"resource_instance":"vm1:0"}"#, Command::Agent(AgentCommand::Demote)),
    ("demote", r#"{"resource_instance":""}"#, Command::Demote),
    ("switchover", r#"{"resource_instance":"vm1:0"}"#, Command::Agent(AgentCommand::Switchover)),
    (
        "promote",
        r#"{"resource_instance":"vm1:0"}"#,
        Command::Agent(AgentCommand::Promote { force: false, accept_data_loss: false }),
    ),
    (
        "resume-resync",
        r#"{"accept_deletes":700}"#,
        Command::Tree(TreeCommand::AcceptDeletes { count: 700 }),
    ),
    ("sync", "", Command::Tree(TreeCommand::Sync { freeze: false })),
    ("sync", r#"{"freeze":true}"#, Command::Tree(TreeCommand::Sync { freeze: true })),
    ("rollback", r#"{"to":41}"#, Command::Tree(TreeCommand::Rollback { to: 41 })),
    ("resize", r#"{"size_bytes":4096}"#, Command::Resize { size: 4096 }),
    ("split-brain/resolve", r#"{"keep":"alpha"}"#, Command::Resolve { keep: Side::First }),
    ("split-brain/resolve", r#"{"keep":"beta"}"#, Command::Resolve { keep: Side::Second }),
];

#[test]
fn commands_reach_the_data_thread_and_its_answer_comes_back() {
    run(async {
        let mut server = start();
        for (command, body, expected) in COMMANDS {
            let target = format!("/api/v1/resources/vm1/{command}");
            let answered = async {
                let Order { command, answer } = server.orders.recv().await.unwrap();
                assert_eq!(command, *expected);
                answer.send(Ok(Answer::new("Done."))).unwrap();
            };
            let ((code, text), ()) =
                tokio::join!(ask(&server.path, "POST", &target, body), answered);
            assert_eq!((code, text.as_str()), (200, r#"{"text":"Done."}"#), "{command}");
        }
    });
}

#[test]
fn generations_are_looked_at_without_a_line_in_the_log() {
    run(async {
        let (audit, lines) = trail();
        let mut server = start_with(audit);
        let one = KeptGeneration {
            number: 41,
            label: "stable".to_owned(),
            captured_at: None,
            root: "9f".repeat(32),
            entries: Some(3),
            changed: None,
            deleted: None,
            held_bytes: 0,
            kept: "current".to_owned(),
        };
        let said = Answer { generations: Some(vec![one]), ..Answer::new("One.") };
        let answered = async {
            let Order { command, answer } = server.orders.recv().await.unwrap();
            assert_eq!(command, Command::Tree(TreeCommand::Generations));
            answer.send(Ok(said.clone())).unwrap();
        };
        let asked = ask(&server.path, "GET", "/api/v1/resources/vm1/generations", "");
        let ((code, text), ()) = tokio::join!(asked, answered);
        assert_eq!((code, serde_json::from_str::<Answer>(&text).unwrap()), (200, said));
        assert!(lines.try_recv().is_err(), "who reads changes nothing");
    });
}

#[test]
fn a_refusal_says_why_and_what_is_next() {
    run(async {
        let mut server = start();
        let answered = async {
            let order = server.orders.recv().await.unwrap();
            let refused = Refused { why: "No.".to_owned(), next: "Wait.".to_owned() };
            order.answer.send(Err(refused)).unwrap();
        };
        let asked = ask(&server.path, "POST", "/api/v1/resources/vm1/demote", "");
        let (answer, ()) = tokio::join!(asked, answered);
        assert_eq!(answer, (409, r#"{"error":{"why":"No.","next":"Wait."}}"#.to_owned()));
    });
}

#[test]
fn every_error_is_json_and_changes_nothing() {
    run(async {
        let mut server = start();
        let deep = "[".repeat(10_000);
        let long = "x".repeat(BODY_LEN_MAX + 1);
        let cases: [(&str, &str, &str, u16, &str); 16] = [
            ("GET", "/", "", 404, "there is nothing at this path"),
            ("GET", "/api/v1/status?resource=vm2", "", 404, "there is no resource \"vm2\""),
            ("GET", "/api/v1/status?resource=%1b%0a", "", 404, r#"no resource "\u{1b}\n""#),
            ("POST", "/api/v1/status", "", 405, "this path takes another method"),
            ("GET", "/api/v1/resources/vm1/promote", "", 405, "this path takes another method"),
            ("POST", "/api/v1/resources/vm2/promote", "", 404, "there is no resource"),
            ("POST", "/api/v1/resources/vm1/explode", "", 404, "there is no command"),
            ("POST", "/api/v1/resources/vm1/promote", r#"{"forse":true}"#, 400, "unknown field"),
            ("POST", "/api/v1/resources/vm1/promote", r#"{"force":true}"#, 400, "`force` needs"),
            ("POST", "/api/v1/resources/vm1/resize", "", 400, "missing field"),
            ("POST", "/api/v1/resources/vm1/rollback", "", 400, "missing field"),
            (
                "POST",
                "/api/v1/resources/vm1/generations",
                "",
                405,
                "this path takes another method",
            ),
            ("GET", "/api/v1/resources/vm2/generations", "", 404, "there is no resource"),
            ("POST", "/api/v1/resources/vm1/verify", &deep, 400, "is not what this command takes"),
            ("POST", "/api/v1/resources/vm1/demote", &long, 413, "longer than 64 KiB"),
            (
                "POST",
                "/api/v1/resources/vm1/split-brain/resolve",
                r#"{"keep":"gamma"}"#,
                400,
                "there is no node",
            ),
        ];
        for (method, target, body, code, words) in cases {
            let (found, text) = ask(&server.path, method, target, body).await;
            assert_eq!(found, code, "{method} {target}: {text}");
            let error: ErrorBody = serde_json::from_str(&text).unwrap();
            assert!(error.error.why.contains(words), "{target}: {text}");
            assert!(!error.error.next.is_empty(), "{text}");
        }
        assert!(server.orders.try_recv().is_err(), "no order was given");
    });
}

#[test]
fn garbage_does_not_stop_the_server() {
    run(async {
        let server = start();
        for text in [&b"\0\xff\xfe\r\n\r\n"[..], b"GET", b"POST / HTTP/9.9\r\n\r\n"] {
            let mut stream = UnixStream::connect(&server.path).await.unwrap();
            stream.write_all(text).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
        let endless = "GET / HTTP/1.1\r\nX: ".to_owned() + &"x".repeat(1 << 20);
        assert!(!raw(&server.path, endless.as_bytes()).await.starts_with("HTTP/1.1 2"));
        assert_eq!(ask(&server.path, "GET", "/api/v1/status", "").await.0, 200);
    });
}

#[test]
fn another_user_is_refused_before_anything_is_read() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("open.sock");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let (facts, ..) = status::sample();
        let around = super::Around { arbiter: None, paths: None, audit: trail().0 };
        let stranger = Caller { uid: Some(rustix::process::geteuid().as_raw() + 1), pid: None };
        let router = router(Arc::new(Api::new(facts, around, Vec::new())))
            .layer(axum::Extension(ConnectInfo(stranger)));
        tokio::spawn(axum::serve(listener, router).into_future());
        let (code, text) = ask(&path, "GET", "/api/v1/status", "").await;
        assert_eq!(code, 403);
        assert_eq!(
            text,
            "{\"error\":{\"why\":\"only root and the user of the daemon may use this socket\",\
             \"next\":\"try again as root\"}}"
        );
    });
}

#[test]
fn a_hundred_orders_at_once_are_taken_one_after_the_other() {
    run(async {
        let Server { path, mut orders, _dir, _snapshot, stop, .. } = start();
        let answering = tokio::spawn(async move {
            let mut count = 0;
            while let Some(order) = orders.recv().await {
                count += 1;
                order.answer.send(Ok(Answer::new("Done."))).unwrap();
            }
            count
        });
        let mut asking = tokio::task::JoinSet::new();
        for n in 0..100 {
            let path = path.clone();
            let command = if n % 2 == 0 { "promote" } else { "demote" };
            let target = format!("/api/v1/resources/vm1/{command}");
            asking.spawn(async move { ask(&path, "POST", &target, "").await.0 });
        }
        assert!(asking.join_all().await.into_iter().all(|code| code == 200));
        stop.cancel();
        assert_eq!(answering.await.unwrap(), 100);
    });
}

#[test]
fn orders_that_never_end_leave_place_for_those_to_another_resource() {
    run(async {
        let (facts, resource, snapshot) = status::sample();
        let (_snapshots, snapshot) = watch::channel(snapshot);
        let (order_sender, mut orders) = mpsc::channel(4);
        let (looks, _) = mpsc::channel(1);
        let handle = ResourceHandle { facts: resource, snapshot, orders: order_sender, looks };
        let around = Around { arbiter: None, paths: None, audit: stable_trail() };
        let api = Arc::new(Api::new(facts, around, vec![handle]));
        let demote = |name: &str| {
            let api = Arc::clone(&api);
            let caller = Caller { uid: None, pid: None };
            let (name, command) = (name.to_owned(), "demote".to_owned());
            let asked = Asked { caller, agent: None, name, command };
            async move { carry_out(&api, asked, Ok(Command::Demote)).await }
        };
        let mut asking = tokio::task::JoinSet::new();
        let mut unanswered = Vec::new();
        for _ in 0..UNDER_WAY_MAX {
            asking.spawn(demote("vm1"));
            unanswered.push(orders.recv().await.unwrap());
        }
        let refused = demote("vm2").await.unwrap_err();
        assert_eq!(refused.status, StatusCode::NOT_FOUND);
        // As when the data thread ends.
        drop(unanswered);
        assert!(asking.join_all().await.into_iter().all(|answer| answer.is_err()));
    });
}

#[test]
fn events_are_streamed_until_the_daemon_stops() {
    run(async {
        let server = start();
        let event = |kind| NodeEvent {
            resource: Some("vm1".to_owned()),
            event: Event { kind, epoch: Epoch(9), reason: "So it is.".to_owned() },
        };
        server.events.send(event("first")).await.unwrap();
        let listening = {
            let path = server.path.clone();
            tokio::spawn(async move { ask(&path, "GET", "/api/v1/events", "").await })
        };
        server.events.send(event("second")).await.unwrap();
        while ask(&server.path, "GET", "/api/v1/events?follow=false", "").await.1.len() < 300 {}
        server.stop.cancel();
        let (code, text) = listening.await.unwrap();
        assert_eq!(code, 200);
        assert!(text.contains("event: first\ndata: {\"seq\":1,"), "{text}");
        assert!(text.contains("\"reason\":\"So it is.\"}\nid: 1\n"), "{text}");
        assert!(text.contains("event: second"), "{text}");
        server.served.await.unwrap().unwrap();
        assert!(!server.path.exists());
    });
}

/// The next line of the log, which is not stable before the test says so.
async fn line(lines: &std::sync::mpsc::Receiver<AuditOrder>) -> AuditOrder {
    loop {
        match lines.try_recv() {
            Ok(order) => return order,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

#[test]
fn an_order_is_in_the_log_before_it_is_given_and_its_outcome_before_it_is_answered() {
    run(async {
        let (audit, lines) = trail();
        let mut server = start_with(audit);
        let path = server.path.clone();
        let body = r#"{"force":true,"peer_is_fenced":true,"resource_instance":"vm1:0"}"#;
        let asking =
            tokio::spawn(
                async move { ask(&path, "POST", "/api/v1/resources/vm1/promote", body).await },
            );
        let AuditOrder { entry: first, written, .. } = line(&lines).await;
        assert_eq!(first.outcome, AuditOutcome::Accepted);
        assert_eq!(first.uid, Some(rustix::process::geteuid().as_raw()));
        assert_eq!((first.resource.as_deref(), first.command.as_str()), (Some("vm1"), "promote"));
        let typed = ["--force", "--peer-is-fenced", "OCF_RESOURCE_INSTANCE=vm1:0"];
        assert_eq!(first.arguments, typed);
        assert!(server.orders.try_recv().is_err(), "nothing is done before the line is stable");
        written.send(()).unwrap();
        let Order { answer, .. } = server.orders.recv().await.unwrap();
        answer.send(Err(Refused { why: "No.".to_owned(), next: "Wait.".to_owned() })).unwrap();
        let AuditOrder { entry: second, written, .. } = line(&lines).await;
        let reason = Some("No.".to_owned());
        assert_eq!(second, AuditEntry { outcome: AuditOutcome::Refused, reason, ..first });
        assert!(!asking.is_finished(), "no answer before its line is stable");
        written.send(()).unwrap();
        assert_eq!(asking.await.unwrap().0, 409);
    });
}

#[test]
fn the_outcome_is_in_the_log_also_if_nobody_waits_for_the_answer() {
    run(async {
        let (audit, lines) = trail();
        let mut server = start_with(audit);
        let mut stream = UnixStream::connect(&server.path).await.unwrap();
        let text = b"POST /api/v1/resources/vm1/demote HTTP/1.1\r\nHost: a\r\n\r\n";
        stream.write_all(text).await.unwrap();
        let AuditOrder { written, .. } = line(&lines).await;
        drop(stream);
        written.send(()).unwrap();
        let Order { answer, .. } = server.orders.recv().await.unwrap();
        answer.send(Ok(Answer::new("Done."))).unwrap();
        assert_eq!(line(&lines).await.entry.outcome, AuditOutcome::Done);
    });
}

#[test]
fn what_is_no_order_is_in_the_log_without_the_body_that_it_had() {
    run(async {
        let (audit, lines) = trail();
        let server = start_with(audit);
        let cases = [
            ("/api/v1/resources/vm1/promote", r#"{"force":"hunter2"}"#),
            ("/api/v1/resources/vm1/split-brain/resolve", r#"{"keep":"hunter2"}"#),
            ("/api/v1/resources/vm1/verify", r#"{"hunter2":1}"#),
            ("/api/v1/resources/vm2/demote", ""),
        ];
        for (target, body) in cases {
            let logged = async {
                let AuditOrder { entry, written, .. } = line(&lines).await;
                written.send(()).unwrap();
                entry
            };
            let (_, entry) = tokio::join!(ask(&server.path, "POST", target, body), logged);
            assert_eq!(entry.outcome, AuditOutcome::Refused, "{target}");
            assert!(!format!("{entry:?}").contains("hunter2"), "{entry:?}");
            assert!(entry.reason.is_some());
        }
        let reads = ask(&server.path, "GET", "/api/v1/resources/vm1/explain", "").await;
        assert_eq!((reads.0, lines.try_recv().is_err()), (200, true), "who reads changes nothing");
    });
}

#[test]
fn a_log_that_cannot_be_written_stops_nobody_and_is_a_warning() {
    run(async {
        let (audit, lines) = trail();
        drop(lines);
        let mut server = start_with(audit);
        let answered = async {
            let Order { answer, .. } = server.orders.recv().await.unwrap();
            answer.send(Ok(Answer::new("Done."))).unwrap();
        };
        let asked = ask(&server.path, "POST", "/api/v1/resources/vm1/promote", "");
        let ((code, _), ()) = tokio::join!(asked, answered);
        assert_eq!(code, 200);
        let (_, text) = ask(&server.path, "GET", "/api/v1/status", "").await;
        let status: NodeStatus = serde_json::from_str(&text).unwrap();
        assert!(status.warnings[0].contains("2 lines are missing"), "{:?}", status.warnings);
    });
}

#[test]
fn another_store_of_the_arbiter_is_in_the_log() {
    run(async {
        let (audit, lines) = trail();
        let server = start_with(audit);
        for kind in ["solo", crate::replica::ARBITER_CHANGED] {
            let event = Event { kind, epoch: Epoch(9), reason: "So it is.".to_owned() };
            let event = NodeEvent { resource: Some("vm1".to_owned()), event };
            server.events.send(event).await.unwrap();
        }
        let entry = line(&lines).await.entry;
        assert_eq!((entry.command.as_str(), entry.uid), ("arbiter-changed", None));
        assert_eq!(entry.reason.as_deref(), Some("So it is."));
    });
}
