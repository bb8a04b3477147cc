//! A watch of our keys, as a bell: it says that something changed, never what.
//!
//! What changed is then read, at the members' common word. So a watch that was compacted, that ended
//! or that lags loses nothing: the records are looked at all the same, only later.

use http_body_util::BodyExt as _;
use tokio::sync::mpsc;
use tracing::debug;

use super::EtcdSettings;
use super::error::EtcdError;
use super::http::Link;
use super::keys::Keys;
use super::message::{Watched, watch_body};
use crate::arbiter::error::in_one_line;
use crate::config::EtcdEndpoint;

/// Longest line, in bytes. A longer one is of a stranger's value, and ends the watch.
const LINE_LEN_MAX: usize = 256 << 10;

/// Rings until the watch ends. One ring may wait; more would say nothing new.
pub(super) async fn ring(
    settings: EtcdSettings,
    endpoint: EtcdEndpoint,
    keys: Keys,
    bell: mpsc::Sender<()>,
) {
    if let Err(error) = follow(&settings, &endpoint, &keys, &bell).await {
        debug!(why = in_one_line(&error), "the watch ended");
    }
}

async fn follow(
    settings: &EtcdSettings,
    endpoint: &EtcdEndpoint,
    keys: &Keys,
    bell: &mpsc::Sender<()>,
) -> Result<(), EtcdError> {
    let mut link = Link::open(settings, endpoint).await?;
    let body = watch_body(keys.prefix(), &keys.prefix_end());
    let mut stream = link.stream("/v3/watch", &body).await?;
    let mut unread = Vec::new();
    while let Some(frame) = stream.frame().await {
        let frame = frame.map_err(|source| {
            let endpoint = link.endpoint();
            EtcdError::Http { endpoint, source }
        })?;
        let Some(bytes) = frame.data_ref() else { continue };
        let mut parts = bytes.split(|byte| *byte == b'\n');
        unread.extend_from_slice(parts.next().unwrap_or_default());
        for next in parts {
            let full = std::mem::replace(&mut unread, next.to_vec());
            if ends(&full) {
                return Ok(());
            }
            // Full: it has not been heard yet, and says the same.
            let _ = bell.try_send(());
        }
        if unread.len() > LINE_LEN_MAX {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether a line is the last one. What makes no sense is an error of the gateway.
fn ends(line: &[u8]) -> bool {
    serde_json::from_slice::<Watched>(line).map_or(true, |watched| watched.result.canceled)
}

#[cfg(test)]
mod tests {
    use super::ends;

    #[test]
    fn a_compacted_or_broken_watch_ends() {
        let created = br#"{"result":{"header":{"raft_term":"2"},"created":true}}"#;
        let event = br#"{"result":{"header":{},"events":[{"type":"DELETE","kv":{}}]}}"#;
        let compacted = br#"{"result":{"header":{},"canceled":true,"compact_revision":"7"}}"#;
        assert!(!ends(created) && !ends(event));
        assert!(ends(compacted) && ends(b"") && ends(br#"{"error":{"grpc_code":14}}"#));
    }
}
