//! One command of a run: in a process group of its own, without anything of ours open, and not for
//! longer than it may.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use super::plan::Step;
use super::run::Told;

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The file is missing, not executable, or no program.
    #[error("{program} cannot be started: {source}")]
    NotStarted {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It says so by its exit code.
    #[error("{program} failed: {status}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// It was killed, with all that it had started.
    #[error("{program} was killed: it did not end within {limit:?}")]
    TookTooLong {
        /// Which.
        program: String,
        /// What it had.
        limit: Duration,
    },
}

/// Kills all processes of a group, if there are any.
pub fn kill_group(group: i32) {
    if let Some(group) = Pid::from_raw(group) {
        // It may be over just now.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// Kills the group of a command that nobody waits for any more.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            kill_group(group);
        }
    }
}

/// Runs it until it ends or `deadline` passes.
///
/// # Errors
/// See [`HookError`].
pub(super) async fn execute(
    step: &Step,
    environment: &BTreeMap<String, String>,
    limit: Duration,
    tell: &mut (dyn FnMut(Told<'_>) + Send),
) -> Result<(), HookError> {
    let program = || step.program.clone();
    let deadline = Instant::now() + limit;
    let mut command = Command::new(&step.program);
    command
        .args(&step.arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .envs(environment)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let spawned = timeout_at(deadline, spawn(command)).await;
    let took_too_long = HookError::TookTooLong { program: program(), limit };
    let mut child = spawned
        .map_err(|_| took_too_long)?
        .map_err(|source| HookError::NotStarted { program: program(), source })?;
    let id = child.id().and_then(|id| i32::try_from(id).ok());
    let mut group = Group(id);
    tell(Told::Group(id));
    let (lines, mut lines_out) = mpsc::channel(LINES_WAITING);
    let outputs = [
        child.stdout.take().map(|it| tokio::spawn(read(it, lines.clone()))),
        child.stderr.take().map(|it| tokio::spawn(read(it, lines.clone()))),
    ];
    drop(lines);
    let mut shown = 0;
    let mut show = |text: &str, tell: &mut (dyn FnMut(Told<'_>) + Send)| {
        shown += 1;
        if shown <= LINES_MAX {
            tell(Told::Line { program: &step.program, text });
        }
    };
    let ended = loop {
        tokio::select! {
            status = child.wait() => break status.ok(),
            Some(line) = lines_out.recv() => show(&line, tell),
            () = tokio::time::sleep_until(deadline) => break None,
        }
    };
    let Some(status) = ended else {
        drop(group);
        // What hangs in the kernel does not end even so; nobody waits for it.
        let _ = timeout(KILLED, child.wait()).await;
        for output in outputs.into_iter().flatten() {
            output.abort();
        }
        tell(Told::Group(None));
        return Err(HookError::TookTooLong { program: program(), limit });
    };
    // What it left running belongs to it no more, and may keep its output open for ever.
    group.0 = None;
    let end = Instant::now() + LAST_LINES;
    while let Ok(Some(line)) = timeout_at(end, lines_out.recv()).await {
        show(&line, tell);
    }
    for output in outputs.into_iter().flatten() {
        output.abort();
    }
    tell(Told::Group(None));
    if status.success() { Ok(()) } else { Err(HookError::Failed { program: program(), status }) }
}

/// A script that was written a moment ago may be open for writing in a process that is being forked
/// somewhere: then the kernel calls it busy, for an instant.
async fn spawn(mut command: Command) -> io::Result<Child> {
    for _ in 0..BUSY_TRIES {
        let spawned;
        (command, spawned) = start(command).await?;
        match spawned {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            spawned => return spawned,
        }
    }
    start(command).await?.1
}

/// On a thread that may wait: the file may be on a disk that hangs. If many hang no more are begun.
#[expect(clippy::disallowed_methods, reason = "`STARTING` is the limit")]
async fn start(mut command: Command) -> io::Result<(Command, io::Result<Child>)> {
    let place = STARTING.acquire().await.map_err(io::Error::other)?;
    let start = move || {
        let spawned = command.spawn();
        drop(place);
        (command, spawned)
    };
    tokio::task::spawn_blocking(start).await.map_err(io::Error::other)
}

/// Reads to the end, so that the command never waits for us; lines that are too long are cut.
async fn read(output: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut output = BufReader::with_capacity(LINE_LEN_MAX, output);
    loop {
        let Ok(bytes) = output.fill_buf().await else { return };
        if bytes.is_empty() {
            return;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let line = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
        let line: String = line.trim().chars().filter(|c| !c.is_control()).collect();
        let used = end.map_or(bytes.len(), |end| end + 1);
        output.consume(used);
        if !line.is_empty() {
            // What nobody takes is dropped, too.
            let _ = lines.try_send(line);
        }
    }
}

/// Where programs are looked for if the daemon has no `PATH`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Lines of one command that are told.
const LINES_MAX: usize = 16;
const LINES_WAITING: usize = 64;
/// Longest line in bytes.
const LINE_LEN_MAX: usize = 256;
/// Time for the last lines of a command that ended.
const LAST_LINES: Duration = Duration::from_millis(50);
/// Time to end for a command that was killed.
const KILLED: Duration = Duration::from_secs(1);
/// Commands that are being started at the same time, of all resources.
static STARTING: Semaphore = Semaphore::const_new(16);
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
