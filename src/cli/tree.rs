//! Commands for directories: `sync`, `generations`, `rollback`, `resume-resync --accept-deletes`.

use std::time::Duration;

use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::args::{Generations, Rollback, Sync};
use super::client::{Client, path_of};
use super::failure::Failure;
use super::progress::Bar;
use super::{say, status, table};
use crate::control::{ResumeBody, RollbackBody, SyncBody};
use crate::replica::{Answer, KeptGeneration};

/// Time between two looks at how far it is.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

pub(super) async fn sync(client: &Client, sync: &Sync) -> Result<(), Failure> {
    let name = &sync.resource;
    let body = SyncBody { freeze: sync.freeze };
    let done = wait(client, name, "sync", &body);
    let answer = match sync.timeout {
        None => done.await?,
        Some(limit) => tokio::time::timeout(limit, done).await.unwrap_or_else(|_| {
            let why = format!("{} does not have it yet after {limit:?}", client.peer);
            let next = format!("the node goes on with it: hotpair status {name} --watch");
            Err(Failure::refused(why, next))
        })?,
    };
    say::result(&format!("{name}: {}", answer.text))
}

pub(super) async fn rollback(client: &Client, rollback: &Rollback) -> Result<(), Failure> {
    let name = &rollback.resource;
    let answer = wait(client, name, "rollback", &RollbackBody { to: rollback.to }).await?;
    say::result(&format!("{name}: {}", answer.text))
}

pub(super) async fn accept_deletes(client: &Client, name: &str, count: u64) -> Result<(), Failure> {
    let body = ResumeBody { accept_deletes: Some(count) };
    let answer = client.order(&path_of(name, "resume-resync"), &body).await?;
    say::result(&format!("{name}: {}", answer.text))
}

/// Waits for the end of what may take long, with a bar while it is known how far it is.
async fn wait(
    client: &Client,
    name: &str,
    order: &str,
    body: &impl Serialize,
) -> Result<Answer, Failure> {
    let path = path_of(name, order);
    let mut end = std::pin::pin!(client.order_without_limit(&path, body));
    let mut bar = None;
    loop {
        tokio::select! {
            biased;
            answer = &mut end => return answer,
            () = tokio::time::sleep(LOOK_AGAIN) => {}
        }
        // That it cannot be asked now is for the order itself to find out.
        let Ok(found) = status::of_resource(client, name).await else { continue };
        let phase = found.tree.and_then(|tree| tree.phase);
        match phase.and_then(|phase| Some((phase.done_bytes, phase.total_bytes?))) {
            Some((done, total)) => bar.get_or_insert_with(|| Bar::new(name)).show(done, total),
            None => bar = None,
        }
    }
}

pub(super) async fn generations(client: &Client, asked: &Generations) -> Result<(), Failure> {
    let name = &asked.resource;
    let answer: Answer = client.look(&path_of(name, "generations")).await?;
    let generations = answer.generations.unwrap_or_default();
    if asked.json {
        return say::json(&json!({ "resource": name, "generations": generations }));
    }
    if generations.is_empty() {
        return say::result(&format!("{name}: there is no complete generation on this node yet"));
    }
    say::bytes(rows(&generations, Timestamp::now()).as_bytes())
}

/// One row for each, the newest first.
fn rows(generations: &[KeptGeneration], now: Timestamp) -> String {
    let mut text = Table::new();
    text.load_style(presets::NOTHING);
    text.set_header([
        "NUMBER", "LABEL", "CAPTURED", "AGE", "ENTRIES", "CHANGED", "DELETED", "HELD", "KEPT",
        "ROOT",
    ]);
    let number = |count: Option<u64>| count.map_or_else(table::unknown, |it| it.to_string());
    for one in generations {
        let age = one.captured_at.and_then(|at| age(at, now));
        text.add_row([
            one.number.to_string(),
            one.label.clone(),
            one.captured_at.map_or_else(table::unknown, |at| at.to_string()),
            age.map_or_else(table::unknown, table::time),
            number(one.entries),
            number(one.changed),
            number(one.deleted),
            say::size(one.held_bytes),
            one.kept.clone(),
            one.root.chars().take(ROOT_SHOWN).collect(),
        ]);
    }
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Whole seconds from `at` to `now`; of a clock that was set back nothing is known.
fn age(at: Timestamp, now: Timestamp) -> Option<u64> {
    u64::try_from(now.duration_since(at).as_secs()).ok()
}

/// Digits of a root that tell generations apart; all are in the JSON.
const ROOT_SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_has_a_row_and_what_is_unknown_a_dash() {
        let one = KeptGeneration {
            number: 41,
            label: "stable".to_owned(),
            captured_at: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            root: "9f3c".repeat(16),
            entries: Some(81_234),
            changed: Some(3),
            deleted: Some(0),
            held_bytes: 0,
            kept: "current".to_owned(),
        };
        let old = KeptGeneration { number: 38, captured_at: None, entries: None, ..one.clone() };
        let text = rows(&[one, old], "2026-01-01T01:02:03Z".parse().unwrap());
        let cells: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect())
            .collect();
        assert_eq!(cells[0].len(), 10);
        assert_eq!(
            cells[1],
            [
                "41",
                "stable",
                "2026-01-01T00:00:00Z",
                "1 h 2 min",
                "81234",
                "3",
                "0",
                "0 B",
                "current",
                "9f3c9f3c9f3c9f3c"
            ]
        );
        assert_eq!(cells[2][..5], ["38", "stable", "-", "-", "-"]);
    }

    #[test]
    fn a_generation_of_the_future_has_no_age() {
        let [early, late] =
            ["2026-01-01T00:00:00Z", "2026-01-01T00:00:07Z"].map(|it| it.parse().unwrap());
        assert_eq!((age(early, late), age(late, early)), (Some(7), None));
    }
}
