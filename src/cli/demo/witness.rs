//! The witness of the demo: a third process that says which node may serve.

use std::fs::OpenOptions;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::node::COMMAND_WITHIN;
use super::pair::Pair;
use super::scene::Scene;
use super::{ENCRYPTION, failed};
use crate::cli::failure::Failure;

/// A witness that runs. It ends with the demo.
#[derive(Debug)]
pub(super) struct Witness {
    /// Where nodes reach it.
    pub(super) address: String,
    /// What they pin; nothing without TLS.
    pub(super) identity: Option<String>,
    _process: Child,
}

impl Witness {
    /// Starts it in its own part of `folder`, and waits until nodes can connect.
    pub(super) async fn start(scene: &Scene, pair: &Pair) -> Result<Self, Failure> {
        let folder = &pair.folder;
        scene.typed("third", &["witness", "--listen", "ADDRESS", "--state-dir", "DIR", "&"]);
        let mut process = spawn(folder, &pair.binary, pair.address(3))
            .context("cannot start the witness")
            .map_err(|error| Failure::failed(&error, ""))?;
        let output = process.stdout.take().expect("it is piped");
        let mut lines = BufReader::new(output).lines();
        let (mut address, mut identity) = (None, None);
        let told = async {
            while let Ok(Some(line)) = lines.next_line().await {
                match line.split_once(' ') {
                    Some(("identity", key)) if key.starts_with("sha256//") => {
                        identity = Some(key.to_owned());
                    }
                    Some(("listening", at)) => address = Some(at.to_owned()),
                    _ if line == "ready" => return,
                    _ => {}
                }
            }
        };
        timeout(COMMAND_WITHIN, told)
            .await
            .map_err(|_| failed(format!("the witness was not ready within {COMMAND_WITHIN:?}")))?;
        let log = log(folder);
        let address = address.ok_or_else(|| {
            failed(format!("the witness ended at once; its log is {}", log.display()))
        })?;
        Ok(Self { address, identity, _process: process })
    }
}

fn log(folder: &Path) -> PathBuf {
    folder.join("witness.log")
}

fn spawn(folder: &Path, binary: &Path, ip: Ipv4Addr) -> anyhow::Result<Child> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log(folder))?;
    let mut command = std::process::Command::new(binary);
    command.args(["witness", "--listen", &format!("{ip}:0")]);
    command.args(["--encryption", ENCRYPTION, "--ends-with", &std::process::id().to_string()]);
    command.arg("--state-dir").arg(folder.join("witness"));
    command.env("NO_COLOR", "1").env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    // Ctrl-C is for the demo, which ends what it started itself.
    command.process_group(0);
    Ok(Command::from(command).kill_on_drop(true).spawn()?)
}
