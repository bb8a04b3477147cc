//! `hotpair status`: once, or until interrupted.

use std::time::Duration;

use super::args::Status;
use super::client::Client;
use super::failure::Failure;
use super::{say, table};
use crate::control::status::{NodeStatus, ResourceStatus};

/// Time between two looks of `--watch`.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Cursor to the upper left corner, and an empty screen. Source: ECMA-48, CUP and ED.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// The state of one resource.
pub(super) async fn of_resource(client: &Client, name: &str) -> Result<ResourceStatus, Failure> {
    let status: NodeStatus = client.look(&format!("/api/v1/status?resource={name}")).await?;
    status
        .resources
        .into_iter()
        .next()
        .ok_or_else(|| Failure::refused(format!("there is no resource {name}"), "hotpair status"))
}

pub(super) async fn status(client: &Client, status: &Status) -> Result<(), Failure> {
    let path = match &status.resource {
        Some(name) => format!("/api/v1/status?resource={name}"),
        None => "/api/v1/status".to_owned(),
    };
    if !status.watch {
        let found: NodeStatus = client.look(&path).await?;
        return if status.json {
            say::json(&found)
        } else {
            say::bytes(text(status, &found).as_bytes())
        };
    }
    let mut last = None;
    loop {
        let found: NodeStatus = client.look(&path).await?;
        if last.as_ref() != Some(&found) {
            show_change(status, &found)?;
            last = Some(found);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn show_change(status: &Status, found: &NodeStatus) -> Result<(), Failure> {
    if status.json {
        return say::json_line(found);
    }
    let clear = if say::is_on_terminal() { CLEAR } else { "" };
    say::bytes(format!("{clear}{}", text(status, found)).as_bytes())
}

fn text(status: &Status, found: &NodeStatus) -> String {
    match (&status.resource, found.resources.first()) {
        (Some(_), Some(resource)) => table::of_resource(found, resource),
        _ => table::of_node(found),
    }
}
