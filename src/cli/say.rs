//! Printing: results to stdout, talk to stderr, questions to a terminal.
//!
//! Colours are written always; `anstream` takes them away where they are not wanted: in pipes, on
//! terminals without any, and with `NO_COLOR`.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::builder::styling::{AnsiColor, Style};

use super::failure::Failure;

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const CAREFUL: Style = AnsiColor::Yellow.on_default().bold();
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();

/// Prints a line of the result.
pub(super) fn result(line: &str) -> Result<(), Failure> {
    bytes(format!("{line}\n").as_bytes())
}

/// Prints a value as JSON, indented for people who look at it.
pub(super) fn json(value: &impl serde::Serialize) -> Result<(), Failure> {
    result(&serde_json::to_string_pretty(value).expect("no value of ours is unfit for JSON"))
}

/// Prints a value as one line of JSON.
pub(super) fn json_line(value: &impl serde::Serialize) -> Result<(), Failure> {
    result(&serde_json::to_string(value).expect("no value of ours is unfit for JSON"))
}

/// Prints a result as it is.
pub(super) fn bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = anstream::stdout();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::from_stdout)
}

/// Says a line that is not the result. That nobody listens is no failure.
pub(super) fn talk(line: &str) {
    let _ = writeln!(anstream::stderr(), "{line}");
}

/// Whether a person sits in front of this command and can answer.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Whether results go to a terminal, which can be painted over.
pub(super) fn is_on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Asks, if a person can answer; anything but yes is no.
pub(super) fn ask(question: &str) -> bool {
    if !can_ask() {
        return true;
    }
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{BOLD}{question}{BOLD:#} [y/N] ");
    let _ = stderr.flush();
    let mut answer = String::new();
    let is_read = io::stdin().lock().read_line(&mut answer).is_ok();
    is_read && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())
}

/// Bytes for people: the exact number is in the JSON.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes).display().iec().to_string()
}
