//! The way of an order: into the audit log, to the data thread, and its outcome into the log.
//!
//! It goes that way to the end also if nobody waits for the answer any more: whoever closes the
//! connection must not leave a log that does not say what came of it.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::{Api, Failure};
use crate::control::audit::{AuditEntry, AuditOutcome, words_of};
use crate::control::socket::Caller;
use crate::control::{NodeEvent, Order, ResourceHandle};
use crate::replica::{ARBITER_CHANGED, Answer, Command};

/// What was asked for, and by whom.
pub(super) struct Asked {
    pub(super) caller: Caller,
    /// Name of the resource, as it was sent.
    pub(super) name: String,
    /// Name of the command, as it was sent.
    pub(super) command: String,
    /// The instance of the resource agent that asks, if one does.
    pub(super) agent: Option<String>,
}

/// Hands an order to the data thread, which takes them one after the other, and waits. What made no
/// order of the body is written down as well.
pub(super) async fn carry_out(
    api: &Arc<Api>,
    asked: Asked,
    order: Result<Command, Failure>,
) -> Result<Json<Answer>, Failure> {
    let permits = Arc::clone(api.under_way.get(&asked.name).unwrap_or(&api.for_nobody));
    let permit = permits.acquire_owned().await.map_err(|_| stopping())?;
    let api = Arc::clone(api);
    let task = tokio::spawn(async move {
        let answer = api.carry_out(asked, order).await;
        drop(permit);
        answer
    });
    task.await.map_err(|_| stopping())?
}

fn stopping() -> Failure {
    let why = "the daemon is stopping";
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, why, "start it and try again")
}

impl Api {
    async fn carry_out(
        &self,
        asked: Asked,
        order: Result<Command, Failure>,
    ) -> Result<Json<Answer>, Failure> {
        let mut entry = self.entry(&asked);
        let found = self.resource(&asked.name);
        let (resource, command) = match found.and_then(|resource| Ok((resource, order?))) {
            Ok(ready) => ready,
            Err(failure) => {
                entry.outcome = AuditOutcome::Refused;
                entry.reason = Some(reason_of(&failure));
                self.around.audit.write(entry).await;
                return Err(failure);
            }
        };
        entry.arguments = words_of(&command, &self.facts);
        entry.arguments.extend(asked.agent.map(|agent| format!("OCF_RESOURCE_INSTANCE={agent}")));
        // What took effect is in the log: the line is stable before anybody acts on the order.
        self.around.audit.write(entry.clone()).await;
        let answer = ask(resource, command).await;
        (entry.outcome, entry.reason) = match &answer {
            Ok(answer) => (AuditOutcome::Done, Some(answer.0.text.clone())),
            Err(failure) if failure.status == StatusCode::CONFLICT => {
                (AuditOutcome::Refused, Some(failure.refused.why.clone()))
            }
            Err(failure) => (AuditOutcome::Unanswered, Some(failure.refused.why.clone())),
        };
        // And before the answer leaves, so that the log never knows less than who asked.
        self.around.audit.write(entry).await;
        answer
    }

    fn entry(&self, asked: &Asked) -> AuditEntry {
        AuditEntry {
            action: self.around.audit.next_action(),
            uid: asked.caller.uid,
            pid: asked.caller.pid,
            resource: Some(asked.name.clone()),
            command: asked.command.clone(),
            arguments: Vec::new(),
            outcome: AuditOutcome::Accepted,
            reason: None,
        }
    }

    /// Some things that nobody typed are for the audit log as well.
    pub(in crate::control) fn note(&self, event: &NodeEvent) {
        if event.event.kind == ARBITER_CHANGED {
            self.around.audit.note(AuditEntry {
                action: self.around.audit.next_action(),
                uid: None,
                pid: None,
                resource: event.resource.clone(),
                command: ARBITER_CHANGED.to_owned(),
                arguments: Vec::new(),
                outcome: AuditOutcome::Done,
                reason: Some(event.event.reason.clone()),
            });
        }
    }
}

/// Why an order was none. What a body held instead is nobody's business: it may be a secret that was
/// sent to the wrong place.
fn reason_of(failure: &Failure) -> String {
    if failure.status == StatusCode::NOT_FOUND {
        failure.refused.why.clone()
    } else {
        "the body is not what this command takes".to_owned()
    }
}

/// Asks the data thread for what changes nothing: it is not in the log.
pub(super) async fn look(
    api: &Arc<Api>,
    name: &str,
    command: Command,
) -> Result<Json<Answer>, Failure> {
    let resource = api.resource(name)?;
    let permits = Arc::clone(api.under_way.get(name).unwrap_or(&api.for_nobody));
    let _permit = permits.acquire_owned().await.map_err(|_| stopping())?;
    ask(resource, command).await
}

async fn ask(resource: &ResourceHandle, command: Command) -> Result<Json<Answer>, Failure> {
    let (answer, answered) = oneshot::channel();
    resource.orders.send(Order { command, answer }).await.map_err(|_| stopping())?;
    match answered.await {
        Ok(Ok(answer)) => Ok(Json(answer)),
        Ok(Err(refused)) => Err(Failure { status: StatusCode::CONFLICT, refused }),
        Err(_) => Err(stopping()),
    }
}
