//! Commands that are one order to the daemon, and its answer.

use serde::Serialize;

use super::args::{Explain, Promote, Resize};
use super::client::{Client, path_of};
use super::failure::Failure;
use super::say::{self, BOLD};
use crate::control::{NoBody, PromoteBody, ResizeBody, RoleBody};
use crate::replica::Refused;

/// An order without anything but its name.
pub(super) async fn plain(client: &Client, resource: &str, order: &str) -> Result<(), Failure> {
    give(client, resource, order, &NoBody {}).await
}

/// `demote` and `switchover`.
pub(super) async fn change_role(
    client: &Client,
    resource: &str,
    order: &str,
) -> Result<(), Failure> {
    give(client, resource, order, &RoleBody { resource_instance: agent() }).await
}

/// The instance for which the resource agent of a cluster runs this program, if one does: every
/// agent has it in its environment (OCF Resource Agent API, "Parameter passing").
fn agent() -> Option<String> {
    let instance = std::env::var_os("OCF_RESOURCE_INSTANCE")?;
    Some(instance.to_string_lossy().into_owned())
}

pub(super) async fn promote(client: &Client, promote: &Promote) -> Result<(), Failure> {
    let &Promote { force, peer_is_fenced, accept_data_loss, .. } = promote;
    let resource_instance = agent();
    let body = PromoteBody { force, peer_is_fenced, accept_data_loss, resource_instance };
    give(client, &promote.resource, "promote", &body).await
}

pub(super) async fn resize(client: &Client, resize: &Resize) -> Result<(), Failure> {
    give(client, &resize.resource, "resize", &ResizeBody { size_bytes: resize.size }).await
}

async fn give(
    client: &Client,
    resource: &str,
    order: &str,
    body: &impl Serialize,
) -> Result<(), Failure> {
    let answer = client.order(&path_of(resource, order), body).await?;
    say::result(&format!("{resource}: {}", answer.text))
}

/// Why it is as it is.
pub(super) async fn explain(client: &Client, explain: &Explain) -> Result<(), Failure> {
    let answer: Refused = client.look(&path_of(&explain.resource, "explain")).await?;
    if explain.json {
        return say::json(&answer);
    }
    let Refused { why, next } = answer;
    say::result(&format!("{BOLD} why{BOLD:#}: {why}"))?;
    let next = if next.is_empty() { "nothing: all is well" } else { &next };
    say::result(&format!("{BOLD}next{BOLD:#}: {next}"))
}
