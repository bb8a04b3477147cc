//! What only a directory can be asked for.

use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, Path, State};
use serde::{Deserialize, Serialize};

use super::order::{Asked, carry_out, look};
use super::{Api, Body, Failure, bytes_of, read};
use crate::control::socket::Caller;
use crate::replica::{Answer, Command, TreeCommand};

/// Body of `sync`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SyncBody {
    /// Run the hooks that hold writers around the capture.
    pub(crate) freeze: bool,
}

/// Body of `rollback`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RollbackBody {
    /// Number of the generation.
    pub(crate) to: u64,
}

/// Body of `resume-resync`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ResumeBody {
    /// So many entries may be deleted.
    pub(crate) accept_deletes: Option<u64>,
}

pub(super) fn resume(body: &ResumeBody) -> Command {
    match body.accept_deletes {
        None => Command::ResumeResync,
        Some(count) => Command::Tree(TreeCommand::AcceptDeletes { count }),
    }
}

pub(super) async fn sync(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let order = bytes_of(body).and_then(|body| {
        let SyncBody { freeze } = read(&body)?;
        Ok(Command::Tree(TreeCommand::Sync { freeze }))
    });
    carry_out(&api, Asked { caller, name, command: "sync".to_owned(), agent: None }, order).await
}

pub(super) async fn rollback(
    State(api): State<Arc<Api>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Answer>, Failure> {
    let order = bytes_of(body).and_then(|body| {
        let RollbackBody { to } = read(&body)?;
        Ok(Command::Tree(TreeCommand::Rollback { to }))
    });
    carry_out(&api, Asked { caller, name, command: "rollback".to_owned(), agent: None }, order)
        .await
}

pub(super) async fn generations(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<Answer>, Failure> {
    look(&api, &name, Command::Tree(TreeCommand::Generations)).await
}
