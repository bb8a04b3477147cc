//! What a worker leaves to its supervisor: how far it is, and what is to be said once it is dead.
//!
//! The worker writes letters to a socket that it was started with; nothing comes back. A will is
//! replaced as a whole, so that a worker that dies while it writes one leaves the one before.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdStream;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::error::DaemonError;
use super::services::LeftBehinds;
use crate::hooks::{LeftBehind, Plan};
use crate::wire::letter::{HEAD_LEN, open_body, open_head, seal};

/// A datagram that says to the peer: this run of the node serves nothing more.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct LastWord {
    /// The address that it must come from.
    pub(super) from: SocketAddr,
    /// Where it goes.
    pub(super) to: SocketAddr,
    /// Ready to be sent.
    pub(super) bytes: Vec<u8>,
}

/// One letter of a worker.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Said {
    /// It takes commands.
    Ready,
    /// It was asked to stop, and does so.
    Stopping,
    /// A part of the next will: what is said.
    LastWord(LastWord),
    /// A part of the next will: what is stopped before.
    Left {
        /// The process group of a hook that runs.
        group: Option<i32>,
        /// The commands that stop the services.
        plan: Option<Plan>,
    },
    /// The next will is complete, and counts from here on.
    Will,
}

/// A whole will.
#[derive(Clone, Debug, Default)]
pub(super) struct Will {
    /// What is said.
    pub(super) words: Vec<LastWord>,
    /// What is stopped before: of each resource that has something to stop.
    pub(super) left: Vec<LeftBehind>,
}

/// The most datagrams of a will: 8 paths, and 256 resources with 15 in each datagram.
pub(super) const LAST_WORDS_MAX: usize = 8 * 18;

/// The worker's end.
#[derive(Debug)]
pub(super) struct Supervisor {
    stream: UnixStream,
}

impl Supervisor {
    /// The socket that this process was started with as its standard input. Call it on a runtime.
    ///
    /// # Errors
    /// If that is no socket.
    pub(super) fn of_this_process() -> Result<Self, DaemonError> {
        let system = |source| DaemonError::System { action: "reach the supervisor", source };
        let input = std::io::stdin().as_fd().try_clone_to_owned().map_err(system)?;
        let stream = StdStream::from(input);
        stream.set_nonblocking(true).map_err(system)?;
        Ok(Self { stream: UnixStream::from_std(stream).map_err(system)? })
    }

    /// Tells it. A supervisor that is gone takes this process with it, so errors mean nothing.
    pub(super) async fn say(&mut self, said: &Said) {
        let _ = self.stream.write_all(&seal(said)).await;
    }

    /// Tells what is said here, and every new will, as long as anything can be said.
    pub(super) async fn keep_informed(
        mut self,
        mut said: mpsc::Receiver<Said>,
        mut wills: watch::Receiver<Vec<LastWord>>,
        mut left: watch::Receiver<LeftBehinds>,
    ) {
        loop {
            tokio::select! {
                said = said.recv() => match said {
                    Some(said) => {
                        self.say(&said).await;
                        continue;
                    }
                    None => return,
                },
                Ok(()) = wills.changed() => {}
                Ok(()) = left.changed() => {}
            }
            let words = wills.borrow_and_update().clone();
            for word in words {
                self.say(&Said::LastWord(word)).await;
            }
            let left = left.borrow_and_update().clone();
            for LeftBehind { group, plan } in left.into_values() {
                self.say(&Said::Left { group, plan }).await;
            }
            self.say(&Said::Will).await;
        }
    }
}

/// Reads the next letter of a worker; `None` once there is none any more.
pub(super) async fn read(stream: &mut UnixStream) -> Option<Said> {
    let mut head = [0; HEAD_LEN];
    stream.read_exact(&mut head).await.ok()?;
    let head = open_head(&head).ok()?;
    let mut body = vec![0; head.body_len()];
    stream.read_exact(&mut body).await.ok()?;
    open_body(head, &body).ok()
}
