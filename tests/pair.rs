//! Two real daemons on the loopback, a real client, and everything an operator can type.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod oracle;
mod real;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::statvfs;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use real::pair::{self, Pair, Plan, RESOURCE};
use real::process::{News, Process};

const BLOCK_LEN: u64 = 4096;
/// A line of the demo after which its client writes.
const DEMO_WRITES: &str = "the witness made alpha primary";
/// Processes of the two daemons: a supervisor and a worker each.
const DEMO_PROCESSES: usize = 4;

/// Both nodes run, are in sync, and none is primary.
fn running() -> Pair {
    let mut pair = Pair::prepare(Plan { size: 8 << 20, ..Plan::default() });
    pair.nodes[0].well(&["init", "--from", "empty"]);
    pair.nodes[1].well(&["init", RESOURCE, "--from", "peer"]);
    pair.nodes[0].run();
    pair.nodes[1].run();
    pair.wait_in_sync();
    pair
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| seed.wrapping_add(u8::try_from(at % 251).unwrap())).collect()
}

/// Panics unless the refusal names its reason and a command.
fn refused(pair: &Pair, at: usize, words: &[&str], why: &str, next: &str) {
    let text = pair.nodes[at].refused(words);
    let has = |label: &str, part: &str| {
        text.lines().any(|line| line.trim_start().starts_with(label) && line.contains(part))
    };
    assert!(has("refused: ", why) && has("next: ", next), "{words:?}: {text}");
}

#[test]
fn what_is_written_on_one_node_is_read_on_the_other_after_a_switchover() {
    let pair = running();
    let [alpha, beta] = &pair.nodes;
    alpha.well(&["promote", RESOURCE]);
    assert_eq!(alpha.field("/role"), "primary");
    let mut client = alpha.connect();
    assert_eq!(client.size, pair.plan.size);
    let bytes = pattern(1, 100_000);
    client.write(12_345, &bytes).unwrap();
    client.flush().unwrap();
    assert_eq!(client.read(12_345, 100_000).unwrap(), bytes);
    assert_eq!(alpha.field("/clients"), 1);
    // Typed on either node, and the roles are as it says when it returns.
    for (typed_on, primary) in [(1, 1), (1, 0), (0, 1)] {
        pair.wait_in_sync();
        pair.nodes[typed_on].well(&["switchover", RESOURCE]);
        assert_eq!(pair.nodes[primary].field("/role"), "primary");
        assert_eq!(pair.nodes[primary].field("/serving"), true);
        let mut client = pair.nodes[primary].connect();
        assert_eq!(client.read(12_345, 100_000).unwrap(), bytes);
    }
    pair.wait_in_sync();
    beta.well(&["demote", RESOURCE]);
    assert_eq!(beta.field("/role"), "secondary");
    assert_eq!(&pair.equal_image()[12_345..112_345], bytes);
}

#[test]
fn a_verdict_says_what_to_type_and_that_mends_it() {
    let mut pair = Pair::prepare(Plan { size: 8 << 20, ..Plan::default() });
    for node in &mut pair.nodes {
        node.well(&["init", RESOURCE, "--from", "peer"]);
        node.run();
    }
    let way_out = format!("hotpair init {RESOURCE} --from this --rebuild");
    for node in &pair.nodes {
        pair.news.wait_for("the verdict", || {
            node.well(&["explain", RESOURCE]).contains(&way_out).then_some(())
        });
    }
    pair.nodes[0].stop();
    pair.nodes[0].well(&way_out.split(' ').skip(1).collect::<Vec<_>>());
    pair.nodes[0].run();
    pair.wait_in_sync();
}

#[test]
fn what_is_so_already_is_success() {
    let pair = running();
    let alpha = &pair.nodes[0];
    for words in [
        &["connect", RESOURCE][..],
        &["demote", RESOURCE],
        &["promote", RESOURCE],
        &["disconnect", RESOURCE],
        &["connect", RESOURCE],
    ] {
        alpha.well(words);
        alpha.well(words);
    }
}

#[test]
fn status_has_every_key_of_the_contract() {
    let pair = running();
    let alpha = &pair.nodes[0];
    alpha.well(&["promote", RESOURCE]);
    pair.wait_in_sync();
    let status: Value = serde_json::from_str(&alpha.well(&["status", "--json"])).unwrap();
    for (key, value) in [
        ("/format", Value::from(1)),
        ("/cluster", "test".into()),
        ("/node", "alpha".into()),
        ("/arbiter/kind", "none".into()),
        ("/resources/0/name", RESOURCE.into()),
        ("/resources/0/kind", "block".into()),
        ("/resources/0/mode", "sync".into()),
        ("/resources/0/role", "primary".into()),
        ("/resources/0/disk", "up-to-date".into()),
        ("/resources/0/serving", true.into()),
        ("/resources/0/solo", false.into()),
        ("/resources/0/size_bytes", pair.plan.size.into()),
        ("/resources/0/out_of_sync_bytes", 0.into()),
        ("/resources/0/at_risk/writes", 0.into()),
        ("/resources/0/at_risk/bytes", 0.into()),
        ("/resources/0/at_risk/age_ms", 0.into()),
        ("/resources/0/peer/node", "beta".into()),
        ("/resources/0/peer/link", "connected".into()),
        ("/resources/0/peer/role", "secondary".into()),
        ("/resources/0/peer/disk", "up-to-date".into()),
        ("/resources/0/peer/replication", "established".into()),
        ("/resources/0/peer/encrypted", true.into()),
        ("/resources/0/resync", Value::Null),
        ("/resources/0/export", format!("unix:{}", alpha.export.display()).into()),
        ("/resources/0/clients", 0.into()),
        ("/resources/0/last_verify", Value::Null),
        ("/resources/0/warnings", Value::Array(Vec::new())),
    ] {
        assert_eq!(status.pointer(key), Some(&value), "{key}");
    }
    assert!(status["resources"][0]["epoch"].as_u64() >= Some(1));
    assert!(status["resources"][0]["generation"].as_str().unwrap().starts_with("1-"));

    let text = alpha.well(&["status"]);
    for word in ["test: node alpha", "primary", "up-to-date", "connected", "established"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let text = alpha.well(&["status", RESOURCE]);
    assert!(text.contains("generation: 1-") && text.contains("state paired"), "{text}");
    let one: Value = serde_json::from_str(&alpha.well(&["status", RESOURCE, "--json"])).unwrap();
    assert_eq!(one["resources"].as_array().unwrap().len(), 1);
}

#[test]
fn status_warns_when_the_disk_has_less_room_than_the_data_file_has_holes() {
    let system = statvfs(std::env::temp_dir()).unwrap();
    // Others may free some of it meanwhile, but not as much again.
    let size = 2 * system.f_bavail * system.f_frsize + (1 << 30);
    let plan = Plan { size, ..Plan::default() };
    let mut pair = Pair::prepare(plan);
    let alpha = &mut pair.nodes[0];
    alpha.well(&["init", RESOURCE, "--from", "empty"]);
    alpha.run();
    let found = || Some(alpha.field("/warnings/0").as_str()?.to_owned());
    let warning = pair.news.wait_for("a warning", found);
    let data = alpha.data.to_str().unwrap();
    let holes = format!("{data} has holes of {} bytes", pair.plan.size);
    assert!(warning.contains(&holes) && warning.contains("bytes free"), "{warning}");
    let text = alpha.well(&["status"]);
    assert!(text.contains(&format!("{RESOURCE}: warning: {data}")), "{text}");
}

#[test]
fn a_pair_that_was_parted_by_hand_meets_again() {
    let pair = running();
    let [alpha, beta] = &pair.nodes;
    alpha.well(&["promote", RESOURCE]);
    let mut client = alpha.connect();
    alpha.well(&["disconnect", RESOURCE]);
    assert_eq!(alpha.field("/peer/link"), "stand-alone");
    client.write(0, &pattern(2, 4 << 20)).unwrap();
    assert_eq!(alpha.field("/out_of_sync_bytes"), 4 << 20);
    assert_eq!(alpha.field("/solo"), true);
    let text = alpha.well(&["explain", RESOURCE]);
    assert!(text.contains("hotpair connect"), "{text}");
    refused(&pair, 0, &["verify", RESOURCE], "in sync", "hotpair explain");
    refused(&pair, 1, &["promote", RESOURCE], "", "hotpair");
    refused(&pair, 0, &["pause-resync", RESOURCE], "no resync", "hotpair status");
    refused(&pair, 0, &["resume-resync", RESOURCE], "no resync", "hotpair status");
    alpha.well(&["connect", RESOURCE]);
    pair.wait_in_sync();
    pair.equal_image();
    let text = beta.well(&["explain", RESOURCE]);
    assert!(text.contains("in sync"), "{text}");
    let reply: Value = serde_json::from_str(&beta.well(&["explain", RESOURCE, "--json"])).unwrap();
    assert!(reply["why"].is_string() && reply["next"].is_string());
}

#[test]
fn verify_finds_what_differs_and_repairs_it() {
    let pair = running();
    let [alpha, beta] = &pair.nodes;
    alpha.well(&["promote", RESOURCE]);
    alpha.connect().write(0, &pattern(3, 1 << 20)).unwrap();
    pair.wait_in_sync();
    assert!(alpha.well(&["verify", RESOURCE]).contains("no differences"));
    // Typed on either node, the result is the same.
    assert!(beta.well(&["verify", RESOURCE]).contains("no differences"));

    // Behind the daemon's back, as a disk that rots.
    let rot = fs::OpenOptions::new().write(true).open(&beta.data).unwrap();
    rot.write_all_at(b"rot", 5 * BLOCK_LEN).unwrap();
    rot.write_all_at(b"rot", 6 * BLOCK_LEN).unwrap();
    rot.write_all_at(b"rot", 300 * BLOCK_LEN + 7).unwrap();
    let said = alpha.say(&["verify", RESOURCE]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("bytes 20480 to 28672 differ"), "{said:?}");
    assert!(said.stdout.contains("bytes 1228800 to 1232896 differ"), "{said:?}");
    assert!(
        said.stderr.contains("3 different blocks") && said.stderr.contains("--repair"),
        "{said:?}"
    );
    assert_eq!(alpha.field("/last_verify/differences"), 3);
    let said = beta.say(&["verify", RESOURCE]);
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.stdout.contains("bytes 20480 to 28672 differ"), "{said:?}");
    assert!(said.stderr.contains("the copy of beta like that of the primary"), "{said:?}");

    let said = alpha.say(&["verify", RESOURCE, "--repair", "--json"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let found: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(found["differences"], 3);
    pair.wait_in_sync();
    pair.equal_image();
    assert!(alpha.well(&["verify", RESOURCE]).contains("no differences"));
}

#[test]
fn a_copy_that_was_given_up_is_compared_with_the_peers() {
    let pair = running();
    let [alpha, beta] = &pair.nodes;
    alpha.well(&["promote", RESOURCE]);
    alpha.connect().write(0, &pattern(4, 1 << 20)).unwrap();
    pair.wait_in_sync();
    refused(&pair, 0, &["invalidate", RESOURCE], "primary", "hotpair switchover");
    let rot = fs::OpenOptions::new().write(true).open(&beta.data).unwrap();
    rot.write_all_at(b"rot", 9 * BLOCK_LEN).unwrap();
    beta.well(&["invalidate", RESOURCE]);
    pair.wait_in_sync();
    pair.equal_image();
}

#[test]
fn refusals_say_why_and_what_to_type_next() {
    let pair = running();
    pair.nodes[0].well(&["promote", RESOURCE]);
    pair.wait_in_sync();
    for (at, words, why, next) in [
        (1, &["promote", RESOURCE][..], "primary", "hotpair switchover"),
        (1, &["promote", RESOURCE, "--force", "--peer-is-fenced"], "primary", "switchover"),
        (0, &["status", "nothing"], "nothing", RESOURCE),
        (0, &["promote", "nothing"], "nothing", RESOURCE),
        (0, &["events", "--no-follow", "nothing"], "nothing", RESOURCE),
        (0, &["split-brain", "resolve", RESOURCE, "--keep", "beta"], "no split brain", "hotpair"),
        (0, &["split-brain", "resolve", RESOURCE, "--keep", "gamma"], "gamma", "alpha and beta"),
        (0, &["resize", RESOURCE, "--size", "4MiB"], "only grows", "another resource"),
        (0, &["resize", RESOURCE, "--size", "17TiB"], "at most", "--size"),
    ] {
        refused(&pair, at, words, why, next);
    }
    let text = pair.nodes[0].well(&["split-brain", "show", RESOURCE]);
    assert!(text.contains("no split brain"), "{text}");
    let text = pair.nodes[0].refused(&["check", "--offline"]);
    assert!(text.contains("next: stop the daemon"), "{text}");
}

#[test]
fn a_stopped_pair_grows_and_goes_on() {
    let mut pair = running();
    pair.nodes[0].well(&["promote", RESOURCE]);
    let bytes = pattern(5, 100_000);
    pair.nodes[0].connect().write(0, &bytes).unwrap();
    pair.wait_in_sync();
    pair.nodes[0].well(&["demote", RESOURCE]);
    pair.nodes[0].stop();
    pair.nodes[1].stop();
    // Something lies behind the old end, on one node alone.
    let mut longer = fs::read(&pair.nodes[1].data).unwrap();
    longer.extend(pattern(6, 10_000));
    fs::write(&pair.nodes[1].data, longer).unwrap();
    for node in &pair.nodes {
        let said = node.say(&["resize", RESOURCE, "--size", "1MiB"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("only grows"), "{said:?}");
        node.well(&["resize", RESOURCE, "--size", "12MiB"]);
        node.well(&["resize", RESOURCE, "--size", "12MiB"]);
        let said = node.say(&["run"]);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.stderr.contains("`size`"), "{said:?}");
        let text = fs::read_to_string(&node.config).unwrap();
        fs::write(&node.config, text.replace("8388608B", "12MiB")).unwrap();
        node.well(&["check", "--offline"]);
    }
    pair.nodes[0].run();
    pair.nodes[1].run();
    pair.wait_in_sync();
    pair.nodes[0].well(&["promote", RESOURCE]);
    let mut client = pair.nodes[0].connect();
    assert_eq!(client.size, 12 << 20);
    assert_eq!(client.read(0, 100_000).unwrap(), bytes);
    client.write((12 << 20) - 4096, &pattern(7, 4096)).unwrap();
    pair.wait_in_sync();
    assert_eq!(pair.equal_image().len(), 12 << 20);
}

#[test]
fn events_are_lines_and_say_who_what_and_why() {
    let pair = running();
    pair.nodes[0].well(&["promote", RESOURCE]);
    let text = pair.nodes[0].well(&["events", "--json", "--no-follow"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (at, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], at + 1);
        assert_eq!(line["node"], "alpha");
        assert!(line["at"].is_string() && line["reason"].is_string(), "{line}");
    }
    assert!(
        lines.iter().any(|line| line["kind"] == "role-changed" && line["resource"] == RESOURCE)
    );
    let text = pair.nodes[0].well(&["events", "--no-follow", RESOURCE]);
    assert!(text.contains("role-changed: "), "{text}");
}

#[test]
fn whoever_has_seen_enough_of_a_watch_closes_the_pipe() {
    let pair = running();
    let alpha = &pair.nodes[0];
    let mut watch = Command::new(pair::binary())
        .args(["status", "--json", "--watch", "--node", "alpha", "--config"])
        .arg(&alpha.config)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(watch.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(status["resources"][0]["role"], "secondary");
    // The next change meets the closed pipe.
    alpha.well(&["promote", RESOURCE]);
    let code = pair.news.wait_for("the watch to end", || watch.try_wait().unwrap());
    assert!(code.success(), "{code}");
}

#[test]
fn a_daemon_stops_cleanly_and_its_copy_is_whole() {
    let mut pair = running();
    pair.nodes[0].well(&["promote", RESOURCE]);
    pair.nodes[0].connect().write(0, &pattern(8, 1 << 20)).unwrap();
    pair.nodes[0].stop();
    pair.nodes[1].stop();
    for node in &pair.nodes {
        let text = node.well(&["check", "--offline"]);
        assert!(text.contains("stopped cleanly"), "{text}");
        assert_eq!(node.say(&["status"]).code, Some(3));
    }
}

/// A demo in a folder of its own.
struct Demo {
    folder: TempDir,
    program: Process,
    news: News,
}

impl Demo {
    fn start(words: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("hotpair-").tempdir().unwrap();
        let news = News::default();
        let place = format!("TMPDIR={}", folder.path().display());
        let binary = pair::binary();
        let mut command = vec![place.as_str(), &binary, "demo"];
        command.extend(words);
        let program = Process::start("demo", "env", &command, &news);
        Self { folder, program, news }
    }

    fn wait_for_line(&mut self, part: &str) {
        self.news.wait_for(part, || {
            let lines = self.program.lines();
            assert!(self.program.is_running(), "{lines:?}");
            lines.iter().any(|line| line.contains(part)).then_some(())
        });
    }

    /// Waits for the end; returns the exit code.
    fn end(&mut self) -> Option<i32> {
        self.news.wait_for("the end of the demo", || self.program.ended()).code()
    }

    /// Daemons of the demo that run.
    fn daemons(&self) -> Vec<Pid> {
        let folder = self.folder.path().to_str().unwrap();
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes
            .filter(|process| {
                let words = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
                words.contains("\0run\0") && words.contains(folder)
            })
            .filter_map(|process| process.file_name().to_str()?.parse().ok())
            .filter_map(Pid::from_raw)
            .collect()
    }

    /// A worker ends a moment after its supervisor.
    fn wait_for_end_of_daemons(&self) {
        self.news.wait_for("the daemons to end", || self.daemons().is_empty().then_some(()));
    }

    /// Waits until everything the demo said was read, and joins it.
    fn text(&self, last: &str) -> String {
        self.news.wait_for(last, || {
            let text = self.program.lines().join("\n");
            text.contains(last).then_some(text)
        })
    }

    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn the_demo_checks_a_whole_failover_and_leaves_nothing_behind() {
    let mut demo = Demo::start(&["--size", "16MiB"]);
    let code = demo.end();
    let text = demo.text("\ndemo: ");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.lines().last().unwrap().starts_with("demo: every check held, in "), "{text}");
    for part in [
        "kill -9 of all of alpha",
        "beta promoted itself",
        "kill -9 of beta's worker",
        "alpha promoted itself",
        "all 4096 blocks read back from beta: every acknowledged write is there",
        "0 writes lost",
        "ms from the kill to the first write on the other node",
        "ms from the crash to the first write on the other node",
        "sent for a file of 16.0 MiB",
        "equal, BLAKE3 ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(demo.leftovers(), Vec::<String>::new());
    demo.wait_for_end_of_daemons();
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut demo = Demo::start(&["--size", "1MiB"]);
        demo.wait_for_line(DEMO_WRITES);
        assert_eq!(demo.daemons().len(), DEMO_PROCESSES);
        demo.program.signal(signal);
        assert_eq!(demo.end(), Some(1));
        demo.text("refused: the demo was interrupted");
        assert_eq!(demo.leftovers(), Vec::<String>::new());
        demo.wait_for_end_of_daemons();
    }
}

#[test]
fn the_daemons_of_a_demo_end_with_it_even_if_it_is_killed() {
    let mut demo = Demo::start(&["--size", "1MiB"]);
    demo.wait_for_line(DEMO_WRITES);
    assert_eq!(demo.daemons().len(), DEMO_PROCESSES);
    demo.program.signal(Signal::KILL);
    demo.wait_for_end_of_daemons();
}

#[test]
fn a_demo_that_fails_says_why_and_keeps_its_logs() {
    let mut demo = Demo::start(&["--size", "1MiB"]);
    demo.wait_for_line(DEMO_WRITES);
    for daemon in demo.daemons() {
        // All are gone before the demo ends its own. A worker may have ended with its supervisor.
        let _ = kill_process(daemon, Signal::KILL);
    }
    assert_eq!(demo.end(), Some(1));
    let text = demo.text("next: ");
    assert!(text.contains("error: ") && text.contains("alpha| "), "{text}");
    let [folder] = &demo.leftovers()[..] else { panic!("{:?}", demo.leftovers()) };
    for log in ["alpha.log", "beta.log"] {
        let path = demo.folder.path().join(folder).join(log);
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(is_a_log(&path), "{}", path.display());
    }
}

fn is_a_log(path: &Path) -> bool {
    fs::read_to_string(path).unwrap().contains("started")
}

#[cfg(feature = "directory")]
#[test]
fn the_demo_of_a_directory_checks_a_whole_failover_and_leaves_nothing_behind() {
    let mut demo = Demo::start(&["--kind", "directory", "--size", "2MiB"]);
    let code = demo.end();
    let text = demo.text("\ndemo: ");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.lines().last().unwrap().starts_with("demo: every check held, in "), "{text}");
    for part in [
        "a file of 512.0 KiB: ",
        " entries renamed: ",
        "whichever is lost, nothing of that is",
        "kill -9 of all of alpha",
        "beta promoted itself",
        "with all that was synced",
        "what only alpha had is set aside there, ",
        "kill -9 of beta's worker",
        "alpha promoted itself",
        "of what was synced, 0 lost",
        "ms from the kill until the other node served",
        "ms from the crash until the other node served",
        "equal, BLAKE3 ",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(demo.leftovers(), Vec::<String>::new());
    demo.wait_for_end_of_daemons();
}

#[cfg(feature = "directory")]
#[test]
fn an_interrupted_demo_of_a_directory_leaves_nothing_behind() {
    let mut demo = Demo::start(&["--kind", "directory", "--size", "1MiB"]);
    demo.wait_for_line("takes over if alpha is lost");
    assert_eq!(demo.daemons().len(), DEMO_PROCESSES);
    demo.program.signal(Signal::INT);
    assert_eq!(demo.end(), Some(1));
    demo.text("refused: the demo was interrupted");
    assert_eq!(demo.leftovers(), Vec::<String>::new());
    demo.wait_for_end_of_daemons();
}

/// What the audit log of a node says: outcome, command and reason of each line.
fn audit(folder: &Path) -> Vec<[String; 3]> {
    let text = fs::read_to_string(folder.join("audit.log")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .map(|line| {
            let me = rustix::process::getuid().as_raw();
            assert!(line["uid"] == me || line["command"] == "arbiter-changed", "{line}");
            ["outcome", "command", "reason"].map(|key| line[key].as_str().unwrap_or("").to_owned())
        })
        .collect()
}

#[test]
fn what_operators_do_is_in_the_audit_log_and_a_log_that_is_none_stops_nobody() {
    let pair = running();
    let [alpha, beta] = &pair.nodes;
    alpha.well(&["promote", RESOURCE]);
    pair.wait_in_sync();
    refused(&pair, 1, &["promote", RESOURCE], "and primary", "switchover");
    let words = |at: usize| -> Vec<[String; 2]> {
        audit(&pair.nodes[at].state_dir).into_iter().map(|[out, what, _]| [out, what]).collect()
    };
    let line = |outcome: &str, command: &str| [outcome, command].map(str::to_owned);
    let started = ["accepted init", "done init", "done run"].map(|words| {
        let (outcome, command) = words.split_once(' ').unwrap();
        line(outcome, command)
    });
    assert_eq!(words(0)[..3], started);
    assert_eq!(words(0)[3..], [line("accepted", "promote"), line("done", "promote")]);
    assert_eq!(words(1)[3..], [line("accepted", "promote"), line("refused", "promote")]);
    let last = audit(&beta.state_dir).pop().unwrap();
    assert!(last[2].contains("and primary"), "{last:?}");

    // A folder is at its place: nothing can be appended, and the pair is operated all the same.
    let log = beta.state_dir.join("audit.log");
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    beta.well(&["switchover", RESOURCE]);
    assert_eq!(beta.field("/role"), "primary");
    let node: Value = serde_json::from_str(&beta.well(&["status", "--json"])).unwrap();
    let warning = node["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("the audit log cannot be written, and 2 lines"), "{warning}");
    assert!(beta.well(&["events", "--no-follow"]).contains("audit-failed"));

    fs::remove_dir(&log).unwrap();
    beta.well(&["switchover", RESOURCE]);
    let lines = audit(&beta.state_dir);
    let outcomes: Vec<_> = lines.iter().map(|[outcome, ..]| outcome.as_str()).collect();
    assert_eq!(outcomes, ["missing", "accepted", "done"]);
    assert_eq!(lines[0][2], "2 lines could not be written");
    let node: Value = serde_json::from_str(&beta.well(&["status", "--json"])).unwrap();
    assert_eq!(node["warnings"], Value::Array(Vec::new()));
}
