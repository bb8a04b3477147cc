//! The control API: HTTP and JSON on a unix socket, for `hotpair` itself and for scripts.
//!
//! It decides nothing: it shows what the data threads publish and hands them what operators ask
//! for, one order after the other. [`ControlSocket`] says who may connect, `api` what can be
//! asked, `status` how a node is told, `events` what happened, `audit` who asked.

mod api;
mod audit;
mod events;
mod socket;
pub mod status;
pub mod tree_status;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::api::{Api, Around};
pub(crate) use self::api::{
    ErrorBody, NoBody, PromoteBody, ResizeBody, ResolveBody, ResumeBody, RoleBody, RollbackBody,
    SplitBrainBody, SyncBody, VerifyBody,
};
pub use self::audit::{AuditEntry, AuditOrder, AuditOutcome, AuditTrail, AuditTrouble};
pub use self::events::{DROPPED, EventLine, NodeEvent};
pub use self::socket::{ControlSocket, SocketError};
pub use self::status::{ArbiterReach, Facts, PathDrops, PathState, Paths, ResourceFacts, Snapshot};
pub use self::tree_status::{TreeState, TreeStatus};
use crate::replica::{Answer, Command, Refused};

/// An operator's command on its way to a data thread.
#[derive(Debug)]
pub struct Order {
    /// What was typed.
    pub command: Command,
    /// Where the answer goes; nobody may be left to hear it.
    pub answer: oneshot::Sender<Result<Answer, Refused>>,
}

/// The way to one resource.
#[derive(Clone, Debug)]
pub struct ResourceHandle {
    /// What does not change.
    pub facts: ResourceFacts,
    /// The newest snapshot; the data thread replaces it.
    pub snapshot: watch::Receiver<Snapshot>,
    /// Bounded; the data thread takes them in order and answers each.
    pub orders: mpsc::Sender<Order>,
    /// Bounded; the data thread replaces the snapshot, then answers.
    pub looks: mpsc::Sender<oneshot::Sender<()>>,
}

/// What the daemon hands to the server.
#[derive(Debug)]
pub struct Handle {
    /// What does not change.
    pub facts: Facts,
    /// The newest word of the arbiter; `None` without one.
    pub arbiter: Option<watch::Receiver<ArbiterReach>>,
    /// What heartbeats tell; `None` without any.
    pub paths: Option<watch::Receiver<Paths>>,
    /// Every resource, in any order.
    pub resources: Vec<ResourceHandle>,
    /// What happens; bounded, the data threads put it there and do not wait.
    pub events: mpsc::Receiver<NodeEvent>,
    /// Where it is written down who asked for what.
    pub audit: AuditTrail,
}

/// Answers on `socket` until `stop`. Then no connection is accepted, streams of events end, and
/// what is being answered has `STOP_WITHIN`.
///
/// # Errors
/// If the socket fails for good.
pub async fn serve(
    socket: ControlSocket,
    handle: Handle,
    stop: CancellationToken,
) -> io::Result<()> {
    let Handle { facts, arbiter, paths, resources, mut events, audit } = handle;
    let api = Arc::new(Api::new(facts, Around { arbiter, paths, audit }, resources));
    let drain = async {
        while let Some(event) = events.recv().await {
            api.note(&event);
            api.events.publish(event, Timestamp::now());
        }
        std::future::pending::<Infallible>().await
    };
    let late = async {
        stop.cancelled().await;
        api.events.close();
        tokio::time::sleep(STOP_WITHIN).await;
    };
    let router = api::router(Arc::clone(&api));
    let service = router.into_make_service_with_connect_info::<socket::Caller>();
    let server =
        axum::serve(socket, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        result = server => result,
        () = late => Ok(()),
        never = drain => match never {},
    }
}

/// Time for requests that are under way when the daemon stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);
