//! What can be asked, and how each answer and each refusal looks.
//!
//! Every error is JSON: `{"error":{"why":"..","next":".."}}`. A refusal by the core has status 409,
//! all others mean that the core was not asked. `order.rs` is the way of a command.

mod order;
mod tree;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::sync::{Semaphore, watch};
use tokio_stream::{Stream, StreamExt as _};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use self::order::{Asked, carry_out};
pub(crate) use self::tree::{ResumeBody, RollbackBody, SyncBody};
use super::audit::AuditTrail;
use super::events::Events;
use super::socket::Caller;
use super::status::{Histories, NodeStatus, ResourceStatus};
use super::{ArbiterReach, Facts, Paths, ResourceHandle};
use crate::replica::{AgentCommand, Answer, Command, Refused};
use crate::units::Side;

/// What the handlers share.
#[derive(Debug)]
pub(super) struct Api {
    facts: Facts,
    around: Around,
    resources: BTreeMap<String, ResourceHandle>,
    pub(super) events: Events,
    /// Places for the orders of each resource that are under way: one whose disk hangs answers none,
    /// and must not be in the way of the others.
    under_way: BTreeMap<String, Arc<Semaphore>>,
    /// Places for orders to resources that there are not.
    for_nobody: Arc<Semaphore>,
}

/// What changes around a node.
#[derive(Debug)]
pub(super) struct Around {
    pub(super) arbiter: Option<watch::Receiver<ArbiterReach>>,
    pub(super) paths: Option<watch::Receiver<Paths>>,
    pub(super) audit: AuditTrail,
}

type Shared = State<Arc<Api>>;

impl Api {
    pub(super) fn new(facts: Facts, around: Around, resources: Vec<ResourceHandle>) -> Self {
        let events = Events::new(&facts.node);
        let named = resources.into_iter().map(|resource| (resource.facts.name.clone(), resource));
        let resources: BTreeMap<_, _> = named.collect();
        let places = || Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let under_way = resources.keys().map(|name| (name.clone(), places())).collect();
        Self { facts, around, resources, events, under_way, for_nobody: places() }
    }

    fn resource(&self, name: &str) -> Result<&ResourceHandle, Failure> {
        self.resources.get(name).ok_or_else(|| {
            let known: Vec<_> = self.resources.keys().map(String::as_str).collect();
            let next = if known.is_empty() {
                "add it to the configuration and restart the daemon".to_owned()
            } else {
                format!("it has {}", known.join(", "))
            };
            let why = format!("there is no resource {name:?} on node {}", self.facts.node);
            Failure::new(StatusCode::NOT_FOUND, why, next)
        })
    }

    /// The state of each at this moment; what a data thread that is stuck said last.
    async fn status_of_all(&self, resources: &[&ResourceHandle]) -> Vec<ResourceStatus> {
        refresh(resources).await;
        resources.iter().map(|resource| self.status_of(resource)).collect()
    }

    fn status_of(&self, resource: &ResourceHandle) -> ResourceStatus {
        ResourceStatus::new(&self.facts, &resource.facts, &resource.snapshot.borrow())
    }
}

/// Has the data threads show their newest state.
async fn refresh(resources: &[&ResourceHandle]) {
    let ask = |resource: &&ResourceHandle| {
        let (answer, answered) = oneshot::channel();
        resource.looks.try_send(answer).is_ok().then_some(answered)
    };
    let asked: Vec<_> = resources.iter().filter_map(ask).collect();
    let all = async {
        for answered in asked {
            // A data thread that ends says nothing more: its last word stays.
            let _ = answered.await;
        }
    };
    let _ = tokio::time::timeout(FRESH_WITHIN, all).await;
}

/// Time that data threads get to show their newest state; they take a millisecond.
const FRESH_WITHIN: Duration = Duration::from_secs(1);
/// Most orders of one resource under way; its data thread takes them one after the other.
const UNDER_WAY_MAX: usize = 128;
/// Longest body of a request in bytes; the largest command has about 100.
const BODY_LEN_MAX: usize = 64 << 10;
/// Longest time for one answer. A switchover waits for a flush on both nodes.
const ANSWER_WITHIN: Duration = Duration::from_mins(2);
/// A listener that is gone is noticed within this time.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// All that can be asked.
pub(super) fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/events", get(events))
        .route("/api/v1/resources/{name}/explain", get(explain))
        .route("/api/v1/resources/{name}/split-brain", get(split_brain))
        .route("/api/v1/resources/{name}/generations", get(tree::generations))
        .route("/api/v1/resources/{name}/split-brain/resolve", post(resolve))
        .route("/api/v1/resources/{name}/{command}", post(command))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, ANSWER_WITHIN))
        // These end by themselves, and nobody knows when: they read or send as much as there is.
        .route("/api/v1/resources/{name}/verify", post(verify))
        .route("/api/v1/resources/{name}/sync", post(tree::sync))
        .route("/api/v1/resources/{name}/rollback", post(tree::rollback))
        .layer(RequestBodyLimitLayer::new(BODY_LEN_MAX))
        .layer(middleware::from_fn(gate))
        .with_state(api)
}

/// An error as JSON.
#[derive(Debug)]
struct Failure {
    status: StatusCode,
    refused: Refused,
}

/// The body of every error.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ErrorBody {
    /// Why, and what to type next.
    pub(crate) error: Refused,
}

impl Failure {
    fn new(status: StatusCode, why: impl Into<String>, next: impl Into<String>) -> Self {
        Self { status, refused: Refused { why: why.into(), next: next.into() } }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.refused })).into_response()
    }
}

/// Lets in who may come in, and makes every error JSON, also those of the libraries below.
async fn gate(ConnectInfo(caller): ConnectInfo<Caller>, request: Request, next: Next) -> Response {
    if !caller.is_allowed() {
        tracing::warn!(uid = caller.uid, pid = caller.pid, "control connection refused");
        let why = "only root and the user of the daemon may use this socket";
        return Failure::new(StatusCode::FORBIDDEN, why, "try again as root").into_response();
    }
    if request.method() == axum::http::Method::POST {
        let path = request.uri().path();
        tracing::info!(uid = caller.uid, pid = caller.pid, path, "operator command");
    }
    let response = next.run(request).await;
    let status = response.status();
    let is_json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (why, next) = match status {
        StatusCode::NOT_FOUND => ("there is nothing at this path", SEE_DOCS),
        StatusCode::METHOD_NOT_ALLOWED => ("this path takes another method", SEE_DOCS),
        StatusCode::PAYLOAD_TOO_LARGE => ("the request is longer than 64 KiB", SEE_DOCS),
        StatusCode::GATEWAY_TIMEOUT => (
            "there was no answer within 2 minutes; the command may still be carried out",
            "hotpair status",
        ),
        _ => ("the request is malformed", SEE_DOCS),
    };
    Failure::new(status, why, next).into_response()
}

const SEE_DOCS: &str = "docs/OPERATIONS.md has the list of paths";

#[derive(Debug, Deserialize)]
struct StatusQuery {
    resource: Option<String>,
}

async fn status(
    State(api): Shared,
    Query(query): Query<StatusQuery>,
) -> Result<Json<NodeStatus>, Failure> {
    let resources = match query.resource {
        Some(name) => vec![api.resource(&name)?],
        None => api.resources.values().collect(),
    };
    let resources = api.status_of_all(&resources).await;
    let reach = api.around.arbiter.as_ref().map(|reach| reach.borrow().clone());
    let paths = api.around.paths.as_ref().map(|paths| paths.borrow().clone()).unwrap_or_default();
    let mut status = NodeStatus::new(&api.facts, reach.as_ref(), &paths, resources);
    status.warnings.extend(api.around.audit.warning());
    Ok(Json(status))
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    /// Number of the last event that the listener has.
    #[serde(default)]
    after: u64,
    /// Whether the stream goes on after what is remembered.
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

async fn events(
    State(api): Shared,
    Query(query): Query<EventsQuery>,
) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let feed = api.events.listen(query.after, query.follow);
    let lines = feed.filter_map(|line| {
        let text = serde_json::to_string(&line).ok()?;
        let event = SseEvent::default().event(line.kind).data(text);
        Some(Ok(if line.seq == 0 { event } else { event.id(line.seq.to_string()) }))
    });
    Sse::new(lines).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn explain(State(api): Shared, Path(name): Path<String>) -> Result<Json<Refused>, Failure> {
    let resource = api.resource(&name)?;
    refresh(&[resource]).await;
    let snapshot = resource.snapshot.borrow();
    let core = snapshot.core.explain.clone();
    Ok(Json(match &snapshot.tree {
        Some(tree) => tree.explain(core),
        None => core,
    }))
}

/// What `split-brain show` gets.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SplitBrainBody {
    /// Null if there is none.
    pub(crate) split_brain: Option<Histories>,
}

async fn split_brain(
    State(api): Shared,
    Path(name): Path<String>,
) -> Result<Json<SplitBrainBody>, Failure> {
    let resource = api.resource(&name)?;
    refresh(&[resource]).await;
    let split_brain = api.status_of(resource).split_brain;
    Ok(Json(SplitBrainBody { split_brain }))
}

/// Body of `promote`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PromoteBody {
    /// The peer cannot be asked.
    pub(crate) force: bool,
    /// The operator vouches that it is off; `force` needs it.
    pub(crate) peer_is_fenced: bool,
    /// Acknowledged writes may be given up; needs `force`.
    pub(crate) accept_data_loss: bool,
    /// As in [`RoleBody`].
    pub(crate) resource_instance: Option<String>,
}

/// Body of `demote` and `switchover`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RoleBody {
    /// A resource agent of a cluster asks, for this instance: what it has in `OCF_RESOURCE_INSTANCE`.
    pub(crate) resource_instance: Option<String>,
}

/// For which instance an agent asks. Nothing in it names none.
fn instance_of(written: Option<&String>) -> Option<&String> {
    written.filter(|instance| !instance.is_empty())
}

/// Body of `verify`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct VerifyBody {
    /// Send what differs from the primary.
    pub(crate) repair: bool,
}

/// Body of `resize`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResizeBody {
    /// New size.
    pub(crate) size_bytes: u64,
}

/// Body of `split-brain/resolve`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResolveBody {
    /// Node whose data stays.
    pub(crate) keep: String,
}

/// Body of all other commands.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NoBody {}

type Body = Result<Bytes, BytesRejection>;

async fn command(
    State(api): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path((name, command)): Path<(String, String)>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let body = bytes_of(body);
    let agent = body.as_ref().ok().and_then(|body| agent_of(body));
    let order = body.and_then(|body| read_command(&command, &body));
    carry_out(&api, Asked { caller, name, command, agent }, order).await
}

/// The instance of the resource agent that asks, if one does.
fn agent_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Agent {
        resource_instance: Option<String>,
    }
    let Agent { resource_instance } = serde_json::from_slice(body).ok()?;
    instance_of(resource_instance.as_ref()).cloned()
}

async fn verify(
    State(api): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let order = bytes_of(body).and_then(|body| {
        let VerifyBody { repair } = read(&body)?;
        Ok(Command::Verify { repair })
    });
    carry_out(&api, Asked { caller, name, command: "verify".to_owned(), agent: None }, order).await
}

fn read_command(command: &str, body: &[u8]) -> Result<Command, Failure> {
    let plain = |command: Command| read::<NoBody>(body).map(|_| command);
    let role = |asked: AgentCommand| {
        let RoleBody { resource_instance } = read(body)?;
        Ok(by_whom(resource_instance.as_ref(), asked))
    };
    match command {
        "promote" => promote(&read(body)?),
        "demote" => role(AgentCommand::Demote),
        "switchover" => role(AgentCommand::Switchover),
        "connect" => plain(Command::Connect),
        "disconnect" => plain(Command::Disconnect),
        "pause-resync" => plain(Command::PauseResync),
        "resume-resync" => Ok(tree::resume(&read(body)?)),
        "invalidate" => plain(Command::Invalidate),
        "resize" => {
            let ResizeBody { size_bytes } = read(body)?;
            Ok(Command::Resize { size: size_bytes })
        }
        _ => {
            let why = format!("there is no command {command:?}");
            Err(Failure::new(StatusCode::NOT_FOUND, why, SEE_DOCS))
        }
    }
}

fn by_whom(instance: Option<&String>, asked: AgentCommand) -> Command {
    if instance_of(instance).is_some() { Command::Agent(asked) } else { asked.as_typed() }
}

/// Both dangers are said aloud, or nothing is asked for.
fn promote(body: &PromoteBody) -> Result<Command, Failure> {
    let &PromoteBody { force, peer_is_fenced, accept_data_loss, .. } = body;
    if force != peer_is_fenced || accept_data_loss && !force {
        let why = "`force` needs `peer_is_fenced` and the other way round, and `accept_data_loss` \
                   needs both";
        let next = "make sure that the peer is off, then send all that apply as true";
        return Err(Failure::new(StatusCode::BAD_REQUEST, why, next));
    }
    let asked = AgentCommand::Promote { force, accept_data_loss };
    Ok(by_whom(body.resource_instance.as_ref(), asked))
}

async fn resolve(
    State(api): Shared,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let order = bytes_of(body).and_then(|body| read_resolve(&api.facts, &body));
    let command = "split-brain resolve".to_owned();
    carry_out(&api, Asked { caller, name, command, agent: None }, order).await
}

fn read_resolve(facts: &Facts, body: &[u8]) -> Result<Command, Failure> {
    let ResolveBody { keep } = read(body)?;
    let Facts { node, peer, .. } = facts;
    if keep != *node && keep != *peer {
        let why = format!("there is no node {keep:?}");
        let next = format!("the nodes are {node} and {peer}");
        return Err(Failure::new(StatusCode::BAD_REQUEST, why, next));
    }
    let other = if keep == *node { peer } else { node };
    let keep = if keep < *other { Side::First } else { Side::Second };
    Ok(Command::Resolve { keep })
}

fn bytes_of(body: Body) -> Result<Bytes, Failure> {
    body.map_err(|err| {
        Failure::new(err.status(), "the body is too long or ended early", "send it again")
    })
}

/// Reads a JSON body; none at all means `{}`.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|err| {
        let why = format!("the body is not what this command takes: {err}");
        Failure::new(StatusCode::BAD_REQUEST, why, SEE_DOCS)
    })
}

#[cfg(test)]
mod tests;
