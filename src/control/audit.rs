//! What an operator did: the words of the audit log, and the way to it.
//!
//! An action is told of twice. The line `accepted` is stable before the order is handed on, so
//! whatever took effect is in the log, whenever the power fails. The line with the outcome is stable
//! before the answer leaves. Both have the same `action`. A log that cannot be written stops nobody:
//! it is waited for only within [`STABLE_WITHIN`], and while it is stuck not at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tracing::warn;

use super::Facts;
use crate::replica::{Command, TreeCommand};
use crate::units::{Instance, Side};

/// How an action ended, or that it begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditOutcome {
    /// It is handed on from here.
    Accepted,
    /// It was carried out.
    Done,
    /// It was not; the reason says why.
    Refused,
    /// The daemon ended before it was known.
    Unanswered,
    /// Lines before this one could not be written; the reason says how many.
    Missing,
}

/// One line of the log, but for when and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditEntry {
    /// The same in all lines of one action.
    pub action: String,
    /// The user; `None` for what no user asked for.
    pub uid: Option<u32>,
    /// Its process.
    pub pid: Option<i32>,
    /// The resource, if it is about one.
    pub resource: Option<String>,
    /// What was typed: the first word.
    pub command: String,
    /// And the others.
    pub arguments: Vec<String>,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// One sentence.
    pub reason: Option<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: Timestamp,
    node: &'a str,
    action: &'a str,
    uid: Option<u32>,
    user: Option<&'a str>,
    pid: Option<i32>,
    resource: Option<&'a str>,
    command: &'a str,
    arguments: Vec<&'a str>,
    outcome: AuditOutcome,
    reason: Option<&'a str>,
}

/// Longest name, argument and reason in bytes, and most arguments: with every byte escaped a line
/// stays below 16 KiB.
const NAME_LEN_MAX: usize = 128;
const REASON_LEN_MAX: usize = 512;
const ARGUMENTS_MAX: usize = 8;

impl AuditEntry {
    /// The line as JSON, without its end. What is too long is cut.
    pub fn line(&self, at: Timestamp, node: &str, user: Option<&str>) -> Vec<u8> {
        let arguments = self.arguments.iter().take(ARGUMENTS_MAX);
        let line = Line {
            at,
            node: cut(node, NAME_LEN_MAX),
            action: cut(&self.action, NAME_LEN_MAX),
            uid: self.uid,
            user: user.map(|user| cut(user, NAME_LEN_MAX)),
            pid: self.pid,
            resource: self.resource.as_deref().map(|name| cut(name, NAME_LEN_MAX)),
            command: cut(&self.command, NAME_LEN_MAX),
            arguments: arguments.map(|word| cut(word, NAME_LEN_MAX)).collect(),
            outcome: self.outcome,
            reason: self.reason.as_deref().map(|reason| cut(reason, REASON_LEN_MAX)),
        };
        serde_json::to_vec(&line).expect("no line of ours is unfit for JSON")
    }
}

fn cut(text: &str, len_max: usize) -> &str {
    &text[..text.floor_char_boundary(len_max)]
}

/// An entry on its way to the thread that writes it.
#[derive(Debug)]
pub struct AuditOrder {
    /// What happened.
    pub entry: AuditEntry,
    /// When.
    pub at: Timestamp,
    /// Told when the line is stable, or never will be.
    pub written: oneshot::Sender<()>,
}

/// Why lines are missing in the log; nothing of it while they are not.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AuditTrouble {
    /// In a few words; `None` while the log can be written.
    pub why: Option<String>,
    /// The disk does not answer: nobody waits for it.
    pub is_stuck: bool,
    /// Lines that are missing since.
    pub missing: u64,
}

/// The way to the log of a node. There is one thread behind it, which waits for the disk.
#[derive(Clone, Debug)]
pub struct AuditTrail {
    orders: SyncSender<AuditOrder>,
    trouble: Arc<watch::Sender<AuditTrouble>>,
    run: Instance,
    actions: Arc<AtomicU64>,
    stable_within: Duration,
}

/// Longest time that an action waits for its line. Short, since an operator in an emergency may have
/// a disk that hangs; longer than what a busy disk takes.
const STABLE_WITHIN: Duration = Duration::from_secs(2);

impl AuditTrail {
    /// The way to the thread that takes `orders` and says how the log is in `trouble`.
    pub fn new(
        orders: SyncSender<AuditOrder>,
        trouble: Arc<watch::Sender<AuditTrouble>>,
        run: Instance,
    ) -> Self {
        let actions = Arc::new(AtomicU64::new(0));
        Self { orders, trouble, run, actions, stable_within: STABLE_WITHIN }
    }

    /// A name for an action, of which no other has the same.
    pub fn next_action(&self) -> String {
        // Only that each number is drawn once matters.
        let number = self.actions.fetch_add(1, Ordering::Relaxed) + 1;
        format!("{:016x}-{number}", self.run.0)
    }

    /// Puts a line into the log and waits until it is stable, unless that takes too long.
    pub async fn write(&self, entry: AuditEntry) {
        if let Some(is_written) = self.hand_on(entry)
            && !self.trouble.borrow().is_stuck
            && tokio::time::timeout(self.stable_within, is_written).await.is_err()
        {
            self.trouble.send_modify(|trouble| {
                trouble.is_stuck = true;
                trouble.why.get_or_insert_with(|| {
                    format!("its disk has not answered for {} s", self.stable_within.as_secs())
                });
            });
        }
    }

    /// Puts a line into the log and does not wait.
    pub fn note(&self, entry: AuditEntry) {
        self.hand_on(entry);
    }

    fn hand_on(&self, entry: AuditEntry) -> Option<oneshot::Receiver<()>> {
        let (written, is_written) = oneshot::channel();
        match self.orders.try_send(AuditOrder { entry, at: Timestamp::now(), written }) {
            Ok(()) => Some(is_written),
            Err(TrySendError::Full(order) | TrySendError::Disconnected(order)) => {
                let AuditEntry { command, outcome, .. } = order.entry;
                warn!(command, ?outcome, "a line of the audit log is lost: its disk hangs");
                self.trouble.send_modify(|trouble| {
                    trouble.missing += 1;
                    trouble.why.get_or_insert_with(|| "its disk does not answer".to_owned());
                });
                None
            }
        }
    }

    /// What `status` warns of.
    pub fn warning(&self) -> Option<String> {
        let AuditTrouble { why, missing, .. } = self.trouble.borrow().clone();
        let why = why?;
        Some(format!(
            "the audit log cannot be written, and {missing} lines are missing; commands are carried \
             out all the same: {why}"
        ))
    }
}

/// What follows the name of a command when it is typed.
pub(super) fn words_of(command: &Command, facts: &Facts) -> Vec<String> {
    let flags = |flags: &[(&str, bool)]| {
        flags.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| (*name).to_owned()).collect()
    };
    match command {
        Command::Promote { force, accept_data_loss } => flags(&[
            ("--force", *force),
            ("--peer-is-fenced", *force),
            ("--accept-data-loss", *accept_data_loss),
        ]),
        Command::Verify { repair } => flags(&[("--repair", *repair)]),
        Command::Resize { size } => vec![size.to_string()],
        Command::Resolve { keep } => {
            let mut names = [facts.node.as_str(), facts.peer.as_str()];
            names.sort_unstable();
            let kept = match keep {
                Side::First => names[0],
                Side::Second => names[1],
            };
            vec!["--keep".to_owned(), kept.to_owned()]
        }
        Command::Tree(asked) => words_of_tree(*asked),
        Command::Agent(asked) => words_of(&asked.as_typed(), facts),
        Command::Demote
        | Command::Switchover
        | Command::Connect
        | Command::Disconnect
        | Command::PauseResync
        | Command::ResumeResync
        | Command::Invalidate
        | Command::Stop => Vec::new(),
    }
}

fn words_of_tree(command: TreeCommand) -> Vec<String> {
    let with = |flag: &str, number: u64| vec![flag.to_owned(), number.to_string()];
    match command {
        TreeCommand::Sync { freeze: true } => vec!["--wait".to_owned(), "--freeze".to_owned()],
        TreeCommand::Sync { freeze: false } => vec!["--wait".to_owned()],
        TreeCommand::Generations => Vec::new(),
        TreeCommand::Rollback { to } => with("--to", to),
        TreeCommand::AcceptDeletes { count } => with("--accept-deletes", count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> AuditEntry {
        AuditEntry {
            action: "00000000000000ab-1".to_owned(),
            uid: Some(0),
            pid: Some(4711),
            resource: Some("vm1".to_owned()),
            command: "promote".to_owned(),
            arguments: vec!["--force".to_owned()],
            outcome: AuditOutcome::Accepted,
            reason: None,
        }
    }

    #[test]
    fn commands_for_directories_are_written_as_they_are_typed() {
        let (facts, ..) = super::super::status::sample();
        for (command, words) in [
            (TreeCommand::Sync { freeze: false }, &["--wait"][..]),
            (TreeCommand::Sync { freeze: true }, &["--wait", "--freeze"]),
            (TreeCommand::Rollback { to: 41 }, &["--to", "41"]),
            (TreeCommand::AcceptDeletes { count: 700 }, &["--accept-deletes", "700"]),
        ] {
            assert_eq!(words_of(&Command::Tree(command), &facts), words);
        }
    }

    #[test]
    fn a_line_has_the_keys_of_the_contract() {
        let line = entry().line(Timestamp::UNIX_EPOCH, "alpha", Some("root"));
        assert_eq!(
            String::from_utf8(line).unwrap(),
            r#"{"at":"1970-01-01T00:00:00Z","node":"alpha","action":"00000000000000ab-1","#
                .to_owned()
                + r#""uid":0,"user":"root","pid":4711,"resource":"vm1","command":"promote","#
                + r#""arguments":["--force"],"outcome":"accepted","reason":null}"#
        );
    }

    #[test]
    fn whatever_was_asked_for_makes_one_short_line() {
        let long = "\u{1}\n\u{e4}".repeat(4096);
        let entry = AuditEntry {
            action: long.clone(),
            resource: Some(long.clone()),
            command: long.clone(),
            arguments: vec![long.clone(); 100],
            reason: Some(long.clone()),
            ..entry()
        };
        let line = entry.line(Timestamp::UNIX_EPOCH, &long, Some(&long));
        assert!(line.len() <= 16 << 10, "{} bytes", line.len());
        assert!(!line.contains(&b'\n'));
        serde_json::from_slice::<serde_json::Value>(&line).unwrap();
    }

    #[test]
    fn a_disk_that_hangs_is_waited_for_once() {
        let (orders, _orders_out) = std::sync::mpsc::sync_channel(2);
        let trouble = Arc::new(watch::Sender::new(AuditTrouble::default()));
        let mut trail = AuditTrail::new(orders, Arc::clone(&trouble), Instance(1));
        trail.stable_within = Duration::from_millis(1);
        assert_eq!(trail.warning(), None);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(trail.write(entry()));
        assert!(trouble.borrow().is_stuck);
        // Longer than any test takes: it must not be waited for.
        trail.stable_within = Duration::from_hours(1);
        runtime.block_on(trail.write(entry()));
        runtime.block_on(trail.write(entry()));
        assert_eq!(trouble.borrow().missing, 1, "the third one found no room");
        assert!(trail.warning().unwrap().contains("1 lines are missing"));
    }
}
