//! Processes that a test started, what they said, and waiting for it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How long a test waits for anything. It is a guard against hanging, not a claim about speed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at something that wakes nobody.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Lines of output that are kept for the report of a failure.
const TAIL_LINES: usize = 400;

/// The clock of this machine.
#[expect(clippy::disallowed_methods, reason = "tests of real processes wait in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Wakes whoever waits when any process of the test says something.
#[derive(Clone, Debug, Default)]
pub(crate) struct News(Arc<(Mutex<u64>, Condvar)>);

impl News {
    /// Something happened.
    pub(crate) fn tell(&self) {
        *lock(&self.0.0) += 1;
        self.0.1.notify_all();
    }

    /// Looks until `look` has an answer. The looks follow the news, and come at least every 50 ms.
    ///
    /// Panics, naming `what`, when [`PATIENCE`] is over.
    pub(crate) fn wait_for<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        self.wait_within(PATIENCE, look).unwrap_or_else(|| panic!("waited {PATIENCE:?} for {what}"))
    }

    /// As [`News::wait_for`], with a limit of its own and without a panic.
    pub(crate) fn wait_within<T>(
        &self,
        limit: Duration,
        mut look: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let deadline = now() + limit;
        loop {
            let seen = *lock(&self.0.0);
            if let Some(answer) = look() {
                return Some(answer);
            }
            if now() >= deadline {
                return None;
            }
            let count = lock(&self.0.0);
            if *count == seen {
                drop(self.0.1.wait_timeout(count, LOOK_AGAIN));
            }
        }
    }
}

/// A process that ends with the test, at the latest.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts `program` so that it dies with the thread that started it. All it says is kept, and
    /// is news.
    pub(crate) fn start(name: &str, program: &str, arguments: &[&str], news: &News) -> Self {
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        let output = Arc::new(Mutex::new(VecDeque::new()));
        keep(child.stdout.take().unwrap(), &output, news);
        keep(child.stderr.take().unwrap(), &output, news);
        Self { name: name.to_owned(), child, output }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// The lines that were said, oldest first; of many, the last ones.
    pub(crate) fn lines(&self) -> Vec<String> {
        lock(&self.output).iter().cloned().collect()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// kill -9, and the process is gone when this returns.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, then waits for the end.
    pub(crate) fn stop(mut self, news: &News) -> ExitStatus {
        self.signal(Signal::TERM);
        let what = format!("{} to end after SIGTERM", self.name);
        news.wait_for(&what, || self.child.try_wait().unwrap())
    }

    /// Bytes it has passed to write calls so far, to files and sockets. Source: proc(5), `wchar`.
    pub(crate) fn written_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/io", self.id())).unwrap();
        let count = text.lines().find_map(|line| line.strip_prefix("wchar:")).unwrap();
        count.trim().parse().unwrap()
    }

    /// Peak of resident memory so far, in bytes. Source: proc(5), `VmHWM`.
    pub(crate) fn resident_peak(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            let lines = self.lines();
            let tail = &lines[lines.len().saturating_sub(60)..];
            let name = &self.name;
            let text: String = tail.iter().flat_map(|line| [name, "| ", line, "\n"]).collect();
            report(&text);
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test shows what its processes said")]
fn report(text: &str) {
    eprint!("{text}");
}

/// Keeps the last lines of `stream` on a thread of its own, which ends with the stream.
fn keep(stream: impl Read + Send + 'static, output: &Arc<Mutex<VecDeque<String>>>, news: &News) {
    let (output, news) = (Arc::clone(output), news.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let mut lines = lock(&output);
            if lines.len() == TAIL_LINES {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(&line).into_owned());
            drop(lines);
            news.tell();
        }
        news.tell();
    });
}

/// A test that failed while it held the lock has already said so.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether `id` is that of a process which has ended: what is named by it belongs to nobody.
pub(crate) fn is_over(id: &str) -> bool {
    id.parse::<u32>().is_ok() && !Path::new("/proc").join(id).exists()
}

/// What a command that ran to its end said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `program` to its end, with a limit on time.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Said {
    let limit = PATIENCE.as_secs().to_string();
    let output = Command::new("timeout")
        .args(["--kill-after=5", &limit, program])
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    Said {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs `program`, which must succeed, and returns what it printed.
pub(crate) fn run_well<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> String {
    let said = run(program, arguments);
    let words: Vec<&OsStr> = arguments.iter().map(S::as_ref).collect();
    assert_eq!(said.code, Some(0), "{program} {words:?}: {}{}", said.stdout, said.stderr);
    said.stdout
}
