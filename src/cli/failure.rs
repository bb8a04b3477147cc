//! How a command ends when it is not done: why, and what to type next.

use std::error::Error;
use std::io;

use super::Outcome;
use super::say::{self, BAD, BOLD};
use crate::daemon::DaemonError;
use crate::replica::Refused;

/// Why a command was not carried out.
#[derive(Debug)]
pub(super) enum Failure {
    /// A valid answer: no.
    Refused(Refused),
    /// Something broke.
    Failed {
        /// What, with its causes.
        why: String,
        /// What to type next; may be empty.
        next: String,
    },
    /// Nobody answers at the control socket.
    NotReachable {
        /// What was tried, with its causes.
        why: String,
        /// What to type next.
        next: String,
    },
    /// The configuration is wrong; the text shows the lines.
    Configuration(String),
    /// Another process has said why.
    Said(Outcome),
    /// Whoever reads the results has enough of them: that is success.
    ClosedPipe,
}

impl Failure {
    pub(super) fn refused(why: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Refused(Refused { why: why.into(), next: next.into() })
    }

    /// A failure of a library or of the system, with a way out.
    pub(super) fn failed(error: &anyhow::Error, next: impl Into<String>) -> Self {
        Self::Failed { why: chain(error.as_ref()), next: next.into() }
    }

    /// From an error of a write to stdout.
    pub(super) fn from_stdout(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ClosedPipe;
        }
        let error = anyhow::Error::new(error).context("cannot print the result");
        Self::failed(&error, "")
    }

    /// Shows it, and says how the command ended.
    pub(super) fn show(&self) -> Outcome {
        match self {
            Self::Refused(Refused { why, next }) => {
                show("refused", why, next);
                Outcome::Refused
            }
            Self::Failed { why, next } => {
                show("error", why, next);
                Outcome::Refused
            }
            Self::NotReachable { why, next } => {
                show("error", why, next);
                Outcome::NotReachable
            }
            Self::Configuration(text) => {
                say::talk(text);
                Outcome::Refused
            }
            Self::Said(outcome) => *outcome,
            Self::ClosedPipe => Outcome::Done,
        }
    }
}

fn show(what: &str, why: &str, next: &str) {
    say::talk(&format!("{BAD}{what}{BAD:#}: {why}"));
    if !next.is_empty() {
        let width = what.len();
        say::talk(&format!("{BOLD}{:>width$}{BOLD:#}: {next}", "next"));
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Self {
        Self::Failed { why: chain(&error), next: error.mend().unwrap_or_default() }
    }
}

/// An error and its causes, each said once.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
