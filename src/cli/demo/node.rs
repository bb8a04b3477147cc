//! One node of the demo: its folder, its daemon, and what is typed on it.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use super::scene::Scene;
use super::{Subject, failed};
use crate::cli::args::Common;
use crate::cli::client::Client;
use crate::cli::configuration;
use crate::cli::failure::Failure;
use crate::cli::status;
use crate::control::status::ResourceStatus;

/// A node. Its daemon ends with it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    /// The resource.
    pub(super) resource: &'static str,
    /// The block file, or the directory.
    pub(super) data: PathBuf,
    /// Keys and metadata.
    pub(super) state_dir: PathBuf,
    /// Where the daemon takes commands.
    pub(super) control: PathBuf,
    /// Where clients connect.
    pub(super) export: PathBuf,
    /// What the daemon says.
    pub(super) log: PathBuf,
    config: PathBuf,
    binary: PathBuf,
    daemon: Option<Child>,
}

/// A command that takes so long is stuck.
pub(super) const COMMAND_WITHIN: Duration = Duration::from_secs(30);
/// Lines of a log that are shown when something failed.
const TAIL_LINES: usize = 12;

impl Node {
    /// A node with everything below `folder`.
    pub(super) fn new(name: &'static str, subject: Subject, folder: &Path, binary: &Path) -> Self {
        let home = folder.join(name);
        Self {
            name,
            resource: subject.name,
            data: home.join(subject.file),
            state_dir: home.join("state"),
            control: home.join("control.sock"),
            export: home.join("client.nbd"),
            log: folder.join(format!("{name}.log")),
            config: folder.join(super::pair::CONFIG_FILE),
            binary: binary.to_owned(),
            daemon: None,
        }
    }

    /// Runs a command of the command line as an operator of this node would, and shows it. Returns
    /// what it printed.
    pub(super) async fn type_in(&self, scene: &Scene, words: &[&str]) -> Result<String, Failure> {
        scene.typed(self.name, words);
        let mut command = tokio::process::Command::new(&self.binary);
        command.args(words).arg("--config").arg(&self.config).args(["--node", self.name]);
        command.env("NO_COLOR", "1").stdin(Stdio::null()).kill_on_drop(true);
        let shown = format!("`hotpair {}` on {}", words.join(" "), self.name);
        let output = timeout(COMMAND_WITHIN, command.output())
            .await
            .map_err(|_| failed(format!("{shown} did not end within {COMMAND_WITHIN:?}")))?
            .map_err(|error| failed(format!("{shown} cannot be run: {error}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!("{shown} failed, {}: {}", output.status, said.trim())))
    }

    /// Starts the daemon, which ends with this process, and does not wait for it.
    pub(super) fn start(&mut self, scene: &Scene) -> Result<(), Failure> {
        assert!(self.daemon.is_none(), "it runs already");
        scene.typed(self.name, &["run", "&"]);
        let me = std::process::id().to_string();
        let start = || -> anyhow::Result<Child> {
            let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.log)?;
            let mut command = std::process::Command::new(&self.binary);
            command.args(["run", "--ends-with", &me, "--node", self.name, "--config"]);
            command.arg(&self.config).env("NO_COLOR", "1").env_remove("NOTIFY_SOCKET");
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            // Ctrl-C is for the demo, which ends its daemons itself.
            command.process_group(0);
            Ok(command.spawn()?)
        };
        let child = start().with_context(|| format!("cannot start the daemon of {}", self.name));
        self.daemon = Some(child.map_err(|error| Failure::failed(&error, ""))?);
        Ok(())
    }

    /// An error if the daemon ended though nobody ended it.
    pub(super) fn check_alive(&mut self) -> Result<(), Failure> {
        match self.daemon.as_mut().map(Child::try_wait) {
            Some(Ok(Some(status))) => {
                Err(failed(format!("the daemon of {} ended by itself, {status}", self.name)))
            }
            Some(Ok(None)) | None => Ok(()),
            Some(Err(error)) => Err(failed(format!("the daemon of {}: {error}", self.name))),
        }
    }

    /// kill -9; the process is gone when this returns.
    pub(super) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // Both fail only for a process that has ended.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }

    /// kill -9 of the worker alone: its supervisor lives, and says so to the peer.
    pub(super) fn kill_worker(&self) -> Result<(), Failure> {
        let supervisor = self.daemon.as_ref().expect("it was started").id();
        let kill = || -> anyhow::Result<()> {
            let children = format!("/proc/{supervisor}/task/{supervisor}/children");
            let children = std::fs::read_to_string(&children)
                .with_context(|| format!("cannot read {children}"))?;
            let worker = children.split_whitespace().next().and_then(|id| id.parse().ok());
            let worker = worker.and_then(Pid::from_raw).context("there is no worker")?;
            Ok(kill_process(worker, Signal::KILL)?)
        };
        let killed = kill().with_context(|| format!("cannot kill the worker of {}", self.name));
        killed.map_err(|error| Failure::failed(&error, ""))
    }

    /// SIGTERM.
    pub(super) fn ask_to_stop(&self) -> Result<(), Failure> {
        let id = self.daemon.as_ref().and_then(|daemon| i32::try_from(daemon.id()).ok());
        let id = id.and_then(Pid::from_raw).expect("it was started");
        kill_process(id, Signal::TERM)
            .map_err(|error| failed(format!("cannot stop the daemon of {}: {error}", self.name)))
    }

    /// How the daemon ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.daemon.as_mut()?.try_wait().ok().flatten()?;
        self.daemon = None;
        Some(status)
    }

    /// The way to its daemon.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let (config, node) = (Some(self.config.clone()), Some(self.name.to_owned()));
        Ok(Client::new(&configuration::node(&Common { config, node })?))
    }

    /// What its daemon says of the resource; `None` while it takes no commands.
    pub(super) async fn look(&self, client: &Client) -> Result<Option<ResourceStatus>, Failure> {
        match status::of_resource(client, self.resource).await {
            Ok(status) => Ok(Some(status)),
            Err(Failure::NotReachable { .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The last lines of its daemon's log.
    pub(super) fn log_tail(&self) -> Vec<String> {
        let Ok(log) = File::open(&self.log) else { return Vec::new() };
        let mut tail = VecDeque::new();
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        tail.into()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
