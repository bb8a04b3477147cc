//! What happened, for whoever listens: numbered, dated, and kept for a while.
//!
//! The data threads only put an event into a bounded queue. Here it gets its number and its time,
//! goes into a short memory for those who ask later, and out to all listeners. A listener that does
//! not keep up is told so and dropped: nobody waits for it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio_stream::Stream;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::replica::Event;

/// An event as a daemon reports it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeEvent {
    /// The resource it is about, if it is about one.
    pub resource: Option<String>,
    /// What happened.
    pub event: Event,
}

/// An event as people and scripts get it: one line of `events --json`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct EventLine {
    /// Counts up from 1 since the daemon started.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The node that says so.
    pub node: String,
    /// The resource; null if it is about the node.
    pub resource: Option<String>,
    /// Short constant name, as `role-changed`.
    pub kind: String,
    /// The node's epoch at that moment; null if it is about the node.
    pub epoch: Option<u64>,
    /// One sentence.
    pub reason: String,
}

/// Kind of the last line that a listener gets who did not keep up.
pub const DROPPED: &str = "listener-dropped";

/// The memory and the listeners of one node.
#[derive(Debug)]
pub(super) struct Events {
    node: String,
    /// Held only to copy small things, and never on a data thread.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    seq: u64,
    recent: VecDeque<EventLine>,
    /// `None` once the daemon ends.
    listeners: Option<broadcast::Sender<EventLine>>,
}

/// Events that are remembered for those who ask later.
const RECENT_MAX: usize = 256;
/// Events that a listener may be behind.
const BEHIND_MAX: usize = 1024;

impl Events {
    pub(super) fn new(node: &str) -> Self {
        let (listeners, _) = broadcast::channel(BEHIND_MAX);
        let state = State { seq: 0, recent: VecDeque::new(), listeners: Some(listeners) };
        Self { node: node.to_owned(), state: Mutex::new(state) }
    }

    /// Numbers, dates, remembers and tells.
    pub(super) fn publish(&self, event: NodeEvent, at: Timestamp) {
        let mut state = self.state();
        state.seq += 1;
        let line = EventLine {
            seq: state.seq,
            at,
            node: self.node.clone(),
            epoch: event.resource.is_some().then_some(event.event.epoch.0),
            resource: event.resource,
            kind: event.event.kind.to_owned(),
            reason: event.event.reason,
        };
        if state.recent.len() == RECENT_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back(line.clone());
        if let Some(listeners) = &state.listeners {
            // Nobody listens: nothing is lost that anybody asked for.
            let _ = listeners.send(line);
        }
    }

    /// What is remembered after number `after`, and then, if `follow`, what happens.
    pub(super) fn listen(&self, after: u64, follow: bool) -> Feed {
        let state = self.state();
        let recent = state.recent.iter().filter(|line| line.seq > after).cloned().collect();
        let live = state.listeners.as_ref().filter(|_| follow).map(broadcast::Sender::subscribe);
        Feed { recent, live: live.map(BroadcastStream::new), node: self.node.clone() }
    }

    /// Ends all listeners once they have read what is there.
    pub(super) fn close(&self) {
        self.state().listeners = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds the lock")
    }
}

/// The events of one listener. Ends when the daemon does, or when the listener was too slow.
#[derive(Debug)]
pub(super) struct Feed {
    recent: VecDeque<EventLine>,
    live: Option<BroadcastStream<EventLine>>,
    node: String,
}

impl Stream for Feed {
    type Item = EventLine;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<EventLine>> {
        if let Some(line) = self.recent.pop_front() {
            return Poll::Ready(Some(line));
        }
        let Some(live) = &mut self.live else { return Poll::Ready(None) };
        match std::task::ready!(Pin::new(live).poll_next(cx)) {
            Some(Ok(next)) => Poll::Ready(Some(next)),
            Some(Err(BroadcastStreamRecvError::Lagged(missed))) => {
                self.live = None;
                Poll::Ready(Some(dropped(&self.node, missed)))
            }
            None => Poll::Ready(None),
        }
    }
}

fn dropped(node: &str, missed: u64) -> EventLine {
    EventLine {
        seq: 0,
        at: Timestamp::now(),
        node: node.to_owned(),
        resource: None,
        kind: DROPPED.to_owned(),
        epoch: None,
        reason: format!("this listener was too slow and missed {missed} events: connect again"),
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::units::Epoch;

    fn event(n: u64) -> NodeEvent {
        let event = Event { kind: "test", epoch: Epoch(n), reason: format!("{n}.") };
        NodeEvent { resource: Some("vm1".to_owned()), event }
    }

    fn publish(events: &Events, range: std::ops::Range<u64>) {
        range.for_each(|n| events.publish(event(n), Timestamp::UNIX_EPOCH));
    }

    fn read_all(feed: Feed) -> Vec<EventLine> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(feed.collect())
    }

    #[test]
    fn a_listener_gets_what_was_and_what_comes_in_order() {
        let events = Events::new("alpha");
        publish(&events, 0..5);
        let feed = events.listen(2, true);
        publish(&events, 5..8);
        events.close();
        let seqs: Vec<_> = read_all(feed).iter().map(|line| line.seq).collect();
        assert_eq!(seqs, [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn the_memory_is_bounded() {
        let events = Events::new("alpha");
        publish(&events, 0..1000);
        let lines = read_all(events.listen(0, false));
        assert_eq!(lines.len(), RECENT_MAX);
        assert_eq!(lines.last().unwrap().seq, 1000);
    }

    #[test]
    fn a_slow_listener_is_told_and_dropped() {
        let events = Events::new("alpha");
        let feed = events.listen(0, true);
        publish(&events, 0..2000);
        let lines = read_all(feed);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].kind, DROPPED);
        assert!(lines[0].reason.contains("missed 976 events"), "{}", lines[0].reason);
    }

    #[test]
    fn a_line_has_the_keys_of_the_contract() {
        let events = Events::new("alpha");
        publish(&events, 0..1);
        let line = &read_all(events.listen(0, false))[0];
        assert_eq!(
            serde_json::to_string(line).unwrap(),
            r#"{"seq":1,"at":"1970-01-01T00:00:00Z","node":"alpha","resource":"vm1","kind":"test","epoch":0,"reason":"0."}"#
        );
    }
}
