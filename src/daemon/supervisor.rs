//! The small parent of a worker: it starts it, and says to the peer that it is dead once it is.
//!
//! That the kernel gave back the worker's end proves that none of its threads runs and that its
//! sockets are closed. Only then the peer is told, by datagrams that the worker made ready while it
//! lived; the supervisor has no key and reads nothing from outside. It runs on one thread. If it is
//! killed the worker goes with it, and nobody tells the peer: then the lease decides.

use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::runtime;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info, warn};

use super::error::DaemonError;
use super::will::{LAST_WORDS_MAX, LastWord, Said, Will, read};
use crate::config::RESOURCES_MAX;
use crate::hooks::{self, LeftBehind, Told, kill_group};

/// How often the peer is told at once, and the time between; one datagram may be lost.
const TELL_TIMES: u32 = 5;
const TELL_EVERY: Duration = Duration::from_millis(20);
/// Time between two tellings while no worker runs.
const TELL_ON_EVERY: Duration = Duration::from_millis(200);
/// Pauses before a worker is started again. The first one leaves the peer the time to be promoted.
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A worker that lived so long was well.
const LIVED_WELL: Duration = Duration::from_mins(1);
/// Workers that may die one after the other before they took a command.
const STILLBORN_MAX: u32 = 5;

/// Runs workers until one ends by itself or on a signal, and returns how it ended; `None` if it was
/// told to stop and did. `worker` makes the command that starts one; its standard input is set here.
///
/// # Errors
/// [`DaemonError::System`] if processes or signals cannot be had.
pub fn supervise(worker: impl Fn() -> Command) -> Result<Option<ExitStatus>, DaemonError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("start the runtime of the supervisor"))?;
    runtime.block_on(async {
        let mut supervisor = Supervisor {
            stop: [
                signal(SignalKind::terminate()).map_err(system("wait for SIGTERM"))?,
                signal(SignalKind::interrupt()).map_err(system("wait for SIGINT"))?,
            ],
            was_ready: false,
            is_stopping: false,
        };
        supervisor.run(worker).await
    })
}

fn system(action: &'static str) -> impl Fn(std::io::Error) -> DaemonError {
    move |source| DaemonError::System { action, source }
}

struct Supervisor {
    stop: [Signals; 2],
    /// A worker took commands: systemd was told.
    was_ready: bool,
    is_stopping: bool,
}

/// How one worker ended.
struct Ended {
    status: ExitStatus,
    was_ready: bool,
    will: Will,
}

impl Supervisor {
    async fn run(
        &mut self,
        worker: impl Fn() -> Command,
    ) -> Result<Option<ExitStatus>, DaemonError> {
        let mut pause = PAUSE_MIN;
        let mut stillborn = 0;
        loop {
            let started = Instant::now();
            let Ended { status, was_ready, will } = self.live(worker()).await?;
            // Whoever is promoted by the last words counts on services that have stopped.
            let words = if stop_services(will.left).await { will.words } else { Vec::new() };
            tell(&words, TELL_TIMES, TELL_EVERY).await;
            // A signal that comes before the worker can take it ends it just as well.
            let is_told = self.is_stopping && status.signal() == Some(Signal::TERM.as_raw());
            if status.success() || is_told {
                return Ok(None);
            }
            if self.is_stopping || !self.was_ready {
                return Ok(Some(status));
            }
            stillborn = if was_ready { 0 } else { stillborn + 1 };
            if stillborn == STILLBORN_MAX {
                error!(%status, "the worker does not start any more");
                return Ok(Some(status));
            }
            if started.elapsed() >= LIVED_WELL {
                pause = PAUSE_MIN;
            }
            warn!(%status, ?pause, "the worker died, it is started again");
            let times = u32::try_from(pause.as_millis() / TELL_ON_EVERY.as_millis()).unwrap_or(1);
            tokio::select! {
                () = async {
                    tell(&words, times, TELL_ON_EVERY).await;
                    sleep(TELL_ON_EVERY).await;
                } => {}
                () = stopped(&mut self.stop) => return Ok(None),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Starts a worker and waits for its end.
    async fn live(&mut self, mut command: Command) -> Result<Ended, DaemonError> {
        let (ours, theirs) = StdStream::pair().map_err(system("make a socket for the worker"))?;
        ours.set_nonblocking(true).map_err(system("make a socket for the worker"))?;
        let stream = UnixStream::from_std(ours).map_err(system("make a socket"))?;
        let mut said = listen(stream);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        let mut child: Child =
            tokio::process::Command::from(command).spawn().map_err(system("start the worker"))?;
        let mut heard = Heard::default();
        let status = loop {
            tokio::select! {
                said = said.recv(), if !heard.is_over => self.on_said(said, &mut heard),
                status = child.wait() => break status.map_err(system("wait for the worker"))?,
                () = stopped(&mut self.stop) => {
                    self.is_stopping = true;
                    pass_on(&child);
                }
            }
        };
        // What it said before it died may still be in the socket.
        while !heard.is_over {
            let said = said.recv().await;
            self.on_said(said, &mut heard);
        }
        Ok(Ended { status, was_ready: heard.was_ready, will: heard.will })
    }

    fn on_said(&mut self, said: Option<Said>, heard: &mut Heard) {
        match said {
            Some(Said::Ready) => {
                heard.was_ready = true;
                self.was_ready = true;
                // Without systemd there is nobody to tell.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            }
            Some(Said::Stopping) => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
            }
            Some(Said::LastWord(word)) if heard.next.words.len() < LAST_WORDS_MAX => {
                heard.next.words.push(word);
            }
            Some(Said::Left { group, plan }) if heard.next.left.len() < RESOURCES_MAX => {
                heard.next.left.push(LeftBehind { group, plan });
            }
            Some(Said::LastWord(_) | Said::Left { .. }) => {
                warn!("a will is longer than any that a worker writes");
            }
            Some(Said::Will) => heard.will = std::mem::take(&mut heard.next),
            None => heard.is_over = true,
        }
    }
}

/// Reads on a task of its own, so that no letter is left half read.
fn listen(mut stream: UnixStream) -> mpsc::Receiver<Said> {
    let (said, said_out) = mpsc::channel(LAST_WORDS_MAX);
    tokio::spawn(async move {
        while let Some(letter) = read(&mut stream).await {
            if said.send(letter).await.is_err() {
                return;
            }
        }
    });
    said_out
}

/// What a worker said.
#[derive(Debug, Default)]
struct Heard {
    was_ready: bool,
    will: Will,
    /// The parts of the next one.
    next: Will,
    /// It has closed its end.
    is_over: bool,
}

/// Stops what a dead worker left running, all at once. Returns whether all of it is stopped.
async fn stop_services(left: Vec<LeftBehind>) -> bool {
    let mut runs = JoinSet::new();
    for LeftBehind { group, plan } in left {
        if let Some(group) = group {
            kill_group(group);
        }
        let Some(plan) = plan else { continue };
        runs.spawn(async move {
            let mut tell = |told: Told<'_>| {
                if let Told::Line { program, text } = told {
                    info!(program, text, "a hook says");
                }
            };
            hooks::run(&plan, &mut tell).await
        });
    }
    let mut are_stopped = true;
    while let Some(ended) = runs.join_next().await {
        if !matches!(ended, Ok(Ok(()))) {
            are_stopped = false;
            let why = match ended {
                Ok(ended) => ended.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            error!(?why, "the services of the dead worker do not stop: the peer is not told");
        }
    }
    are_stopped
}

async fn stopped([terminate, interrupt]: &mut [Signals; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn pass_on(child: &Child) {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        // It may have ended just now.
        let _ = kill_process(id, Signal::TERM);
    }
}

/// Says the last words of a dead worker. Its addresses are free again, and must be when the next
/// worker starts, so the sockets live only here.
async fn tell(will: &[LastWord], times: u32, every: Duration) {
    if will.is_empty() {
        return;
    }
    let open = |word: &LastWord| {
        let socket = UdpSocket::bind(word.from)?;
        socket.set_ttl(TTL)?;
        socket.set_nonblocking(true)?;
        socket.connect(word.to)?;
        Ok(socket)
    };
    let mut sockets: Vec<(&LastWord, UdpSocket)> = Vec::new();
    for word in will {
        if sockets.iter().any(|(other, _)| (other.from, other.to) == (word.from, word.to)) {
            continue;
        }
        match open(word) {
            Ok(socket) => sockets.push((word, socket)),
            Err::<_, std::io::Error>(error) => {
                warn!(from = %word.from, %error, "the peer is not told on this path");
            }
        }
    }
    info!(paths = sockets.len(), "the worker is dead; the peer is told");
    for time in 0..times {
        if time > 0 {
            sleep(every).await;
        }
        for word in will {
            let path = sockets.iter().find(|(it, _)| (it.from, it.to) == (word.from, word.to));
            if let Some((_, socket)) = path
                && let Err(error) = socket.send(&word.bytes)
            {
                debug!(to = %word.to, %error, "not sent");
            }
        }
    }
}

/// As heartbeats have: whoever is further away than the next host has less left.
const TTL: u32 = 255;
