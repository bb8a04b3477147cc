//! Writes the audit log of a node: a thread for the daemon, and at once for what works without one.
//!
//! The thread is the only one that waits for this disk. While lines are missing it tries again every
//! [`TRY_AGAIN`], and the first line that it writes then says how many.

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use super::error::DaemonError;
use super::random;
use crate::config::NodeConfig;
use crate::control::{AuditEntry, AuditOrder, AuditOutcome, AuditTrail, AuditTrouble, NodeEvent};
use crate::replica::Event;
use crate::store::{AuditLog, StoreError, read_file};
use crate::units::{Epoch, Instance};

/// Lines that may wait.
const ORDERS_MAX: usize = 256;
/// Time between two attempts to write what is missing.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// Where names of users are looked up. Users of a directory service have a number only.
const USERS_FILE: &str = "/etc/passwd";
/// Longest such file that is read, in bytes.
const USERS_LEN_MAX: usize = 1 << 20;

/// Starts the thread, and tells of a log that cannot be written in `events`. The first line says that
/// this run began: that finds out at once whether there can be any.
///
/// # Errors
/// If there is no thread.
pub(super) fn start_audit(
    node: &NodeConfig,
    run: Instance,
    events: mpsc::Sender<NodeEvent>,
) -> Result<AuditTrail, DaemonError> {
    let (orders, orders_out) = sync_channel(ORDERS_MAX);
    let (trouble, trouble_out) = watch::channel(AuditTrouble::default());
    let trouble = Arc::new(trouble);
    let writer = Writer {
        log: AuditLog::new(&node.node.state_dir),
        node: node.node.name.clone(),
        trouble: Arc::clone(&trouble),
    };
    std::thread::Builder::new()
        .name("audit-log".to_owned())
        .spawn(move || writer.run(&orders_out))
        .map_err(|source| DaemonError::System {
            action: "start the thread of the audit log",
            source,
        })?;
    tokio::spawn(tell(trouble_out, events));
    let trail = AuditTrail::new(orders, trouble, run);
    trail.note(of_this_process(trail.next_action(), "run", Vec::new(), AuditOutcome::Done));
    Ok(trail)
}

/// An entry about what the user of this process does with it.
fn of_this_process(
    action: String,
    command: &str,
    arguments: Vec<String>,
    outcome: AuditOutcome,
) -> AuditEntry {
    AuditEntry {
        action,
        uid: Some(rustix::process::getuid().as_raw()),
        pid: Some(rustix::process::getpid().as_raw_nonzero().get()),
        resource: None,
        command: command.to_owned(),
        arguments,
        outcome,
        reason: None,
    }
}

/// Says when lines begin to be missing, and when no longer.
async fn tell(mut trouble: watch::Receiver<AuditTrouble>, events: mpsc::Sender<NodeEvent>) {
    let mut known = AuditTrouble::default();
    while trouble.changed().await.is_ok() {
        let now = trouble.borrow_and_update().clone();
        let event = match (&known.why, &now.why) {
            (None, Some(why)) => Event {
                kind: "audit-failed",
                epoch: Epoch(0),
                reason: format!("what operators do is not in the audit log: {why}"),
            },
            (Some(_), None) => Event {
                kind: "audit-works",
                epoch: Epoch(0),
                reason: "what operators do is in the audit log again".to_owned(),
            },
            (None, None) | (Some(_), Some(_)) => continue,
        };
        known = now;
        // One that finds no room is lost: `status` says the same.
        let _ = events.try_send(NodeEvent { resource: None, event });
    }
}

/// What the thread has.
struct Writer {
    log: AuditLog,
    node: String,
    trouble: Arc<watch::Sender<AuditTrouble>>,
}

impl Writer {
    fn run(&self, orders: &Receiver<AuditOrder>) {
        loop {
            let order = if self.trouble.borrow().why.is_some() {
                orders.recv_timeout(TRY_AGAIN)
            } else {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match order {
                Ok(AuditOrder { entry, at, written }) => {
                    self.write(&entry, at);
                    // Who asked may have stopped waiting.
                    let _ = written.send(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.catch_up() {
                        self.note_trouble(&error, 0);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&self, entry: &AuditEntry, at: Timestamp) {
        let line = entry.line(at, &self.node, user_of(entry.uid).as_deref());
        let written = self.catch_up().and_then(|()| self.log.append(&line));
        if let Err(error) = written {
            warn!(line = %String::from_utf8_lossy(&line), error = &error as &dyn std::error::Error,
                "a line of the audit log could not be written");
            self.note_trouble(&error, 1);
        }
    }

    /// Says in the log how many lines it lacks, if it lacks any.
    fn catch_up(&self) -> Result<(), StoreError> {
        let AuditTrouble { why, missing, .. } = self.trouble.borrow().clone();
        if why.is_none() {
            return Ok(());
        }
        if missing > 0 {
            let outcome = AuditOutcome::Missing;
            let mut entry = of_this_process(String::new(), "audit-log", Vec::new(), outcome);
            entry.reason = Some(format!("{missing} lines could not be written"));
            self.log.append(&entry.line(Timestamp::now(), &self.node, None))?;
        }
        // What was lost meanwhile is told of the next time.
        self.trouble.send_modify(|trouble| {
            trouble.missing -= missing;
            trouble.is_stuck = false;
            if trouble.missing == 0 {
                trouble.why = None;
            }
        });
        info!(path = %self.log.path().display(), "the audit log is written again");
        Ok(())
    }

    fn note_trouble(&self, error: &StoreError, lines: u64) {
        self.trouble.send_modify(|trouble| {
            trouble.missing += lines;
            trouble.is_stuck = false;
            trouble.why = Some(error.to_string());
        });
    }
}

/// The name of a user, if this host has one for the number.
fn user_of(uid: Option<u32>) -> Option<String> {
    let uid = uid?;
    let bytes = read_file(Path::new(USERS_FILE), USERS_LEN_MAX).ok()?;
    name_in(&String::from_utf8_lossy(&bytes), uid)
}

/// Source: passwd(5).
fn name_in(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid && !name.is_empty()).then(|| name.to_owned())
    })
}

/// An action of a command that works without the daemon: told of before and after.
#[derive(Debug)]
pub struct OfflineAction {
    log: AuditLog,
    node: String,
    entry: AuditEntry,
    /// What kept the log from being written; the action goes on all the same.
    pub trouble: Option<String>,
}

impl OfflineAction {
    /// The user of this process is about to carry out `command` on `resource`.
    ///
    /// # Errors
    /// If the kernel has no random bytes.
    pub fn begin(
        node: &NodeConfig,
        resource: &str,
        command: &str,
        arguments: Vec<String>,
    ) -> Result<Self, DaemonError> {
        let action = format!("{:016x}-1", random::instance()?);
        let mut entry = of_this_process(action, command, arguments, AuditOutcome::Accepted);
        entry.resource = Some(resource.to_owned());
        let log = AuditLog::new(&node.node.state_dir);
        let mut it = Self { log, node: node.node.name.clone(), entry, trouble: None };
        it.append();
        Ok(it)
    }

    /// It ended so. Hands back what kept the log from being written.
    pub fn end(mut self, result: &Result<(), DaemonError>) -> Option<String> {
        self.entry.outcome = match result {
            Ok(()) => AuditOutcome::Done,
            Err(_) => AuditOutcome::Refused,
        };
        self.entry.reason = result.as_ref().err().map(chain);
        self.append();
        self.trouble
    }

    fn append(&mut self) {
        let line =
            self.entry.line(Timestamp::now(), &self.node, user_of(self.entry.uid).as_deref());
        if let Err(error) = self.log.append(&line) {
            self.trouble = Some(format!("this is not in the audit log: {error}"));
        }
    }
}

/// An error and its causes, in one sentence.
fn chain(error: &DaemonError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// A witness starts with this store: in its own folder, before a node can reach it. An id that a
/// node learnt is in the log.
pub(super) fn note_witness(folder: &Path, new_identity: bool, words: &str) {
    let arguments = if new_identity { vec!["--new-identity".to_owned()] } else { Vec::new() };
    let action = random::instance().map(|run| format!("{run:016x}-1")).unwrap_or_default();
    let mut entry = of_this_process(action, "witness", arguments, AuditOutcome::Done);
    entry.reason = Some(words.to_owned());
    let line = entry.line(Timestamp::now(), "witness", user_of(entry.uid).as_deref());
    if let Err(error) = AuditLog::new(folder).append(&line) {
        warn!(error = &error as &dyn std::error::Error, "this start is not in the audit log");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn names_of_users_are_looked_up() {
        let users = "root:x:0:0::/root:/bin/sh\nbroken\n:x:5::\nada:x:1000:1000::/home/ada:\n";
        assert_eq!(name_in(users, 0).as_deref(), Some("root"));
        assert_eq!(name_in(users, 1000).as_deref(), Some("ada"));
        assert_eq!(name_in(users, 5), None);
        assert_eq!(name_in(users, 7), None);
    }

    fn writer(folder: &Path) -> Writer {
        let trouble = Arc::new(watch::Sender::new(AuditTrouble::default()));
        Writer { log: AuditLog::new(folder), node: "alpha".to_owned(), trouble }
    }

    fn entry(command: &str) -> AuditEntry {
        of_this_process("1-1".to_owned(), command, Vec::new(), AuditOutcome::Accepted)
    }

    fn words(folder: &Path, key: &str) -> Vec<String> {
        let text = fs::read_to_string(folder.join("audit.log")).unwrap();
        let lines =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line[key].as_str().unwrap_or("none").to_owned()).collect()
    }

    #[test]
    fn lines_that_could_not_be_written_are_counted_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        // Not even root makes a folder where a file is.
        fs::write(&state, "").unwrap();
        let writer = writer(&state);
        for command in ["promote", "demote"] {
            writer.write(&entry(command), Timestamp::now());
        }
        let known = writer.trouble.borrow().clone();
        assert_eq!(known.missing, 2);
        assert!(known.why.unwrap().contains("state: cannot"));
        fs::remove_file(&state).unwrap();
        writer.write(&entry("switchover"), Timestamp::now());
        assert_eq!(*writer.trouble.borrow(), AuditTrouble::default());
        assert_eq!(words(&state, "command"), ["audit-log", "switchover"]);
        assert_eq!(words(&state, "reason"), ["2 lines could not be written", "none"]);
        assert_eq!(words(&state, "outcome"), ["missing", "accepted"]);
    }

    #[test]
    fn who_asked_is_told_when_the_line_is_stable_and_also_if_it_never_will_be() {
        for is_writable in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let state = folder.path().join("state");
            if !is_writable {
                fs::write(&state, "").unwrap();
            }
            let writer = writer(&state);
            let (orders, orders_out) = sync_channel(1);
            let thread = std::thread::spawn(move || writer.run(&orders_out));
            let (written, is_written) = oneshot::channel();
            orders
                .send(AuditOrder { entry: entry("demote"), at: Timestamp::now(), written })
                .unwrap();
            is_written.blocking_recv().unwrap();
            if is_writable {
                assert_eq!(words(&state, "command"), ["demote"]);
            }
            drop(orders);
            thread.join().unwrap();
        }
    }
}
