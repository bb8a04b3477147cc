//! `hotpair events`: what happened, a line each.

use http_body_util::BodyExt as _;

use super::args::Events;
use super::client::Client;
use super::failure::Failure;
use super::say::{self, BOLD, DIM};
use super::status;
use crate::control::{DROPPED, EventLine};

pub(super) async fn events(client: &Client, events: &Events) -> Result<(), Failure> {
    if let Some(name) = &events.resource {
        // A name that nothing ever happens to must not look like a quiet resource.
        status::of_resource(client, name).await?;
    }
    let mut after = 0;
    loop {
        let was_dropped = read_stream(client, events, &mut after).await?;
        if was_dropped {
            continue;
        }
        if events.no_follow {
            return Ok(());
        }
        let why = format!("the daemon of {} stopped", client.node);
        return Err(Failure::NotReachable { why, next: "start it again: hotpair run".to_owned() });
    }
}

/// What the daemon remembers, oldest first.
pub(super) async fn remembered(client: &Client) -> Result<Vec<EventLine>, Failure> {
    let mut stream = client.stream("/api/v1/events?after=0&follow=false").await?;
    let mut lines = Lines::default();
    let mut events = Vec::new();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| client.broken(&error))?;
        events.extend(frame.data_ref().map(|bytes| lines.push(bytes)).unwrap_or_default());
    }
    Ok(events)
}

/// Prints one stream to its end. Says whether the daemon ended it because we were too slow.
async fn read_stream(client: &Client, events: &Events, after: &mut u64) -> Result<bool, Failure> {
    let follow = !events.no_follow;
    let path = format!("/api/v1/events?after={after}&follow={follow}");
    let mut stream = client.stream(&path).await?;
    let mut lines = Lines::default();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|error| client.broken(&error))?;
        let Some(bytes) = frame.data_ref() else { continue };
        for event in lines.push(bytes) {
            if event.kind == DROPPED {
                show(&event, events.json)?;
                return Ok(true);
            }
            *after = event.seq;
            let is_wanted = events.resource.is_none() || event.resource == events.resource;
            if is_wanted {
                show(&event, events.json)?;
            }
        }
    }
    Ok(false)
}

fn show(event: &EventLine, as_json: bool) -> Result<(), Failure> {
    if as_json {
        return say::json_line(event);
    }
    let subject = event.resource.as_deref().unwrap_or(&event.node);
    let (at, kind, reason) = (event.at, &event.kind, &event.reason);
    say::result(&format!("{DIM}{at:.3}{DIM:#} {subject} {BOLD}{kind}{BOLD:#}: {reason}"))
}

/// Cuts a stream of server-sent events into events. Source: HTML Living Standard, "Server-sent
/// events": ours have one `data` line each, and all other fields can be left out.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Takes what arrived and gives the events that are complete with it.
    fn push(&mut self, bytes: &[u8]) -> Vec<EventLine> {
        self.rest.extend_from_slice(bytes);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        let lines = whole.split(|byte| *byte == b'\n');
        let texts = lines.filter_map(|line| line.strip_prefix(b"data: "));
        // A line of a later release may have what this one cannot read: it is left out.
        texts.filter_map(|text| serde_json::from_slice(text).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let line = r#"{"seq":1,"at":"1970-01-01T00:00:00Z","node":"alpha","resource":"vm1","kind":"test","epoch":0,"reason":"x"}"#;
        let stream = format!(": hello\n\nevent: test\nid: 1\ndata: {line}\n\ndata: {line}\n\n");
        for cut in 0..stream.len() {
            let mut lines = Lines::default();
            let (head, tail) = stream.as_bytes().split_at(cut);
            let found = [lines.push(head), lines.push(tail)].concat();
            assert_eq!(found.len(), 2, "cut at {cut}");
            assert_eq!(found[1].resource.as_deref(), Some("vm1"));
        }
    }
}
