//! Asks the daemon of this node: HTTP and JSON over its control socket.
//!
//! Each request has a connection of its own. That nobody answers is an error of its own kind: it
//! says nothing about the resource, and scripts tell the two apart by the exit code.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::failure::{Failure, chain};
use crate::config::NodeConfig;
use crate::control::ErrorBody;
use crate::replica::Answer;

/// The way to the daemon of one node.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
    /// The node whose daemon it is.
    pub(super) node: String,
    /// The other one.
    pub(super) peer: String,
}

/// The state changes at once; a daemon that shows none for so long is stuck.
const STATE_WITHIN: Duration = Duration::from_secs(10);
/// A little longer than the daemon takes before it says itself that it took too long.
const ORDER_WITHIN: Duration = Duration::from_secs(150);
/// Longest answer that is read, in bytes; 256 resources have about 500 KiB.
const ANSWER_LEN_MAX: usize = 16 << 20;

/// Runs a conversation to its end.
pub(super) fn block_on(talk: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        let error = anyhow::Error::new(error).context("cannot start a runtime");
        Failure::failed(&error, "")
    })?;
    runtime.block_on(talk)
}

/// The path of something that belongs to a resource.
pub(super) fn path_of(resource: &str, what: &str) -> String {
    format!("/api/v1/resources/{resource}/{what}")
}

impl Client {
    pub(super) fn new(node: &NodeConfig) -> Self {
        Self {
            socket: node.node.control.clone(),
            node: node.node.name.clone(),
            peer: node.peer.name.clone(),
        }
    }

    /// Asks what is so.
    pub(super) async fn look<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answered = async { self.read(self.send(Method::GET, path, Bytes::new()).await?).await };
        self.within(STATE_WITHIN, answered).await
    }

    /// Gives an order, and waits until it is carried out.
    pub(super) async fn order(&self, path: &str, body: &impl Serialize) -> Result<Answer, Failure> {
        self.within(ORDER_WITHIN, self.order_without_limit(path, body)).await
    }

    /// As [`Client::order`], for what may take hours.
    pub(super) async fn order_without_limit(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Answer, Failure> {
        let body = serde_json::to_vec(body).expect("no body of ours is unfit for JSON");
        self.read(self.send(Method::POST, path, body.into()).await?).await
    }

    /// Opens a stream; an answer that is none is an error.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, Failure> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let answer: Result<serde::de::IgnoredAny, Failure> = self.read(response).await;
        Err(answer.err().unwrap_or_else(|| self.no_sense("no stream")))
    }

    async fn within<T>(
        &self,
        limit: Duration,
        answered: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::time::timeout(limit, answered).await.unwrap_or_else(|_| {
            let why = format!(
                "the daemon of {} does not answer at {} for {limit:?}",
                self.node,
                self.socket.display()
            );
            Err(Failure::NotReachable { why, next: "look at its log, then restart it".to_owned() })
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Failure> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| self.no_daemon(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        // It carries the bytes of this request, and ends with it; `sender` says how.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .expect("names of resources are fit for a path");
        sender.send_request(request).await.map_err(|error| self.broken(&error))
    }

    async fn read<T: DeserializeOwned>(&self, response: Response<Incoming>) -> Result<T, Failure> {
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_LEN_MAX).collect().await;
        let body = body.map_err(|error| self.broken(error.as_ref()))?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map_err(|error| self.no_sense(&error.to_string()));
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(ErrorBody { error }) => Err(Failure::Refused(error)),
            Err(error) => Err(self.no_sense(&format!("status {status}, {error}"))),
        }
    }

    fn no_daemon(&self, error: &io::Error) -> Failure {
        let (node, socket) = (&self.node, self.socket.display());
        let next = match error.kind() {
            io::ErrorKind::PermissionDenied => "try again as root, or as the user of the daemon",
            _ => "start the daemon: hotpair run",
        };
        Failure::NotReachable {
            why: format!("the daemon of {node} does not answer at {socket}: {error}"),
            next: next.to_owned(),
        }
    }

    /// The daemon ended, or was killed, between the question and the answer.
    pub(super) fn broken(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::NotReachable {
            why: format!("the daemon of {} went away: {}", self.node, chain(error)),
            next: "hotpair status, once it runs again; what was asked may have been done"
                .to_owned(),
        }
    }

    fn no_sense(&self, what: &str) -> Failure {
        Failure::Failed {
            why: format!("what answers at {} speaks differently: {what}", self.socket.display()),
            next: "use the same release of hotpair as the daemon: hotpair --version".to_owned(),
        }
    }
}
