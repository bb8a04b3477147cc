//! Programs of the system that tests of trees use, and what they answer.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Folders where Debian has the programs of an administrator, which not every `PATH` names.
const MORE_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Whether `program` can be started.
pub(crate) fn is_there(program: &str) -> bool {
    folders().iter().any(|folder| folder.join(program).is_file())
}

/// A command that speaks English, reads nothing, and is found in the folders of an administrator.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::join_paths(folders()).expect("they were separated before");
    command.env("PATH", path).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// Runs it to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or failed: then with what it said.
pub(crate) fn output_of(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = Path::new(command.get_program()).display().to_string();
    let output = command.output().map_err(|err| format!("{name}: {err}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name}: {}: {}", output.status, said.trim()));
    }
    Ok(output.stdout)
}

/// Says that a test, or a part of one, could not run here.
#[allow(clippy::print_stdout, reason = "a test says why it was skipped")]
pub(crate) fn say_skipped(name: &str, why: &str) {
    println!("skipped: {name}: {why}");
}

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(MORE_FOLDERS.map(PathBuf::from)).collect()
}
