//! What the demo shows while it goes on: commands, steps with their times, and numbers at the end.

use tokio::time::Instant;

use crate::cli::failure::Failure;
use crate::cli::progress::Spinner;
use crate::cli::say::{self, BAD, BOLD, DIM, GOOD};

/// The stage of one demo.
#[derive(Debug)]
pub(super) struct Scene {
    started: Instant,
    spinner: Spinner,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self { started: Instant::now(), spinner: Spinner::new() }
    }

    /// Shows what it is about.
    pub(super) fn title(&self, text: &str) -> Result<(), Failure> {
        self.line(&format!("{BOLD}hotpair demo{BOLD:#}: {text}\n"))
    }

    /// Shows what goes on, where that can be painted over.
    pub(super) fn goes_on(&self, what: &str) {
        self.spinner.show(what);
    }

    /// Shows a command as it is typed on a node.
    pub(super) fn typed(&self, node: &str, words: &[&str]) {
        let prompt = format!("{node}$");
        let words = words.join(" ");
        // The next line of the result meets the same trouble, and says so.
        let _ = self.line(&format!("{:INDENT$}{DIM}{prompt:<7}hotpair {words}{DIM:#}", ""));
    }

    /// Shows something that is done to a node from outside.
    pub(super) fn happens(&self, what: &str) -> Result<(), Failure> {
        self.line(&format!("{:INDENT$}{BAD}{what}{BAD:#}", ""))
    }

    /// Shows a step that is done, and what was checked, in one line or more.
    pub(super) fn done(&self, what: &str) -> Result<(), Failure> {
        let seconds = self.seconds();
        let what = what.replace('\n', &format!("\n{:INDENT$}", ""));
        self.line(&format!("{seconds:>6.2} s  {GOOD}ok{GOOD:#}  {what}"))
    }

    /// Shows the numbers.
    pub(super) fn numbers(&self, numbers: &[(&str, String)]) -> Result<(), Failure> {
        self.line("")?;
        numbers
            .iter()
            .try_for_each(|(name, value)| self.line(&format!("{BOLD}{name:>12}{BOLD:#}  {value}")))
    }

    /// Shows the last line.
    pub(super) fn end(&self) -> Result<(), Failure> {
        let seconds = self.seconds();
        self.line(&format!("\n{GOOD}demo: every check held{GOOD:#}, in {seconds:.1} s"))
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Whoever has seen enough closes the pipe; the checks go on, and the exit code tells.
    fn line(&self, text: &str) -> Result<(), Failure> {
        self.spinner.hide_while(|| match say::result(text) {
            Ok(()) | Err(Failure::ClosedPipe) => Ok(()),
            Err(failure) => Err(failure),
        })
    }
}

/// Where what belongs to a step begins.
const INDENT: usize = 14;
