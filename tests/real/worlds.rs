//! Each case in a process of its own, with temporary files of its own and, where the machine lets us,
//! mounts of its own.
//!
//! So no case sees what another one mounts, what a case leaves is found and removed, and a case
//! that is killed takes its processes and mounts with it.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use super::harness::Case;
use super::process;

/// The word before the name of the case that a process is for.
pub(crate) const INSIDE: &str = "--inside";
/// The name of a folder of a case: this, the process that made it, and something random.
const PREFIX: &str = "hotpair-case-";

/// How cases are started.
pub(crate) struct Worlds {
    /// What a case says is kept until it ends.
    keeps_output: bool,
    /// Whether this machine gives a process mounts of its own.
    has_mounts: bool,
}

/// How a case ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) has_passed: bool,
    pub(crate) took: Duration,
    /// What it said, if that was kept.
    pub(crate) said: String,
}

impl Worlds {
    pub(crate) fn new(keeps_output: bool) -> Self {
        let has_mounts = rustix::process::geteuid().is_root()
            && process::run("unshare", &["--mount", "true"]).code == Some(0);
        Self { keeps_output, has_mounts }
    }

    /// Runs a case to its end. This thread must live that long, since the case ends with it.
    pub(crate) fn run(&self, name: &str) -> Ended {
        let folder = folder();
        let program = std::env::current_exe().unwrap();
        let mut command = if self.has_mounts {
            // What is mounted inside stays inside, and what others mount outside is not seen.
            let mut command = Command::new("unshare");
            command.args(["--mount", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.args([INSIDE, name]).env("TMPDIR", folder.path()).stdin(Stdio::null());
        // A file ends nowhere: nothing that outlives the case keeps us waiting for the end of it.
        let mut output = tempfile::tempfile().unwrap();
        if self.keeps_output {
            command.stdout(output.try_clone().unwrap()).stderr(output.try_clone().unwrap());
        }
        let start = process::now();
        let has_passed = command.status().unwrap().success();
        Ended { has_passed, took: process::now() - start, said: read(&mut output) }
    }
}

/// What was written, from its beginning.
fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A folder that other users may look into, as the one of a database does.
fn folder() -> TempDir {
    let prefix = format!("{PREFIX}{}-", std::process::id());
    let folder = tempfile::Builder::new().prefix(&prefix).tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Runs the one case that this process is for. A panic ends the process, which is how it fails.
pub(crate) fn run_inside(cases: &[Case], name: &str) -> ExitCode {
    // Whoever kills the harness kills its cases.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let case = cases.iter().find(|case| case.name == name).expect("a case of this target");
    (case.run)();
    ExitCode::SUCCESS
}

/// Removes the folders of cases whose harness was killed. What was mounted there went with them.
pub(crate) fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        if process.is_some_and(|(id, _)| process::is_over(id)) {
            // A case may be just ending, and something of it may be mounted: the next one sweeps again.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
