//! Connections that were turned away: counted each, logged seldom.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

/// Why a connection was turned away before it counted for anything.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Cause {
    /// Too many others had not said who they are yet.
    TooMany,
    /// The handshake failed: another key, another protocol, plain text, or a network error.
    Handshake,
    /// It took too long to say who it is.
    Silent,
    /// It began with something else than a Hello.
    NotHello,
    /// A node of another cluster.
    OtherCluster,
    /// A resource that is not configured here.
    UnknownResource,
    /// Not the node that has the other replica, or not the one whose key it proved.
    OtherNode,
    /// The resource does not take connections at the moment.
    NotReady,
}

impl Cause {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [
        Self::TooMany,
        Self::Handshake,
        Self::Silent,
        Self::NotHello,
        Self::OtherCluster,
        Self::UnknownResource,
        Self::OtherNode,
        Self::NotReady,
    ];

    fn index(self) -> usize {
        Self::ALL.iter().position(|cause| *cause == self).expect("ALL has every cause")
    }
}

/// How many were turned away, by cause.
#[derive(Debug, Default)]
pub struct Refusals {
    counts: [AtomicU64; Cause::ALL.len()],
    logged: Mutex<[Option<Logged>; Cause::ALL.len()]>,
}

/// The last line about a cause.
#[derive(Clone, Copy, Debug)]
struct Logged {
    at: Instant,
    count: u64,
}

impl Refusals {
    /// How many were turned away for `cause`.
    pub fn count(&self, cause: Cause) -> u64 {
        self.counts[cause.index()].load(Ordering::Relaxed)
    }

    /// How many were turned away.
    pub fn total(&self) -> u64 {
        Cause::ALL.into_iter().map(|cause| self.count(cause)).sum()
    }

    /// Counts one more, and logs it unless that cause was logged a short while ago: whoever can
    /// reach the port must not be able to fill the disk.
    pub(super) fn add(&self, cause: Cause, remote: SocketAddr, reason: &dyn std::fmt::Display) {
        let count = self.counts[cause.index()].fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = &mut logged[cause.index()];
        if last.is_some_and(|last| now.duration_since(last.at) < LOG_EVERY) {
            return;
        }
        let unlogged = count - 1 - last.map_or(0, |last| last.count);
        *last = Some(Logged { at: now, count });
        warn!(peer = %remote, cause = ?cause, %reason, unlogged, "connection of a peer refused");
    }
}

/// Time between two lines about one cause.
const LOG_EVERY: Duration = Duration::from_mins(1);

/// An error with all its sources in one line, without control characters: part of it may be what
/// a stranger sent.
pub(super) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        line = format!("{line}: {inner}");
        source = inner.source();
    }
    line.replace(|letter: char| letter.is_control(), " ")
}
