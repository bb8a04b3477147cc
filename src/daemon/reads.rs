//! Bytes that clients asked for, from the disk until their answer leaves.

use std::collections::BTreeMap;

use crate::replica::{IoId, RequestId};
use crate::wire::Buffer;

/// Reads under way, and what those that ended found.
#[derive(Debug, Default)]
pub(super) struct Reads {
    under_way: BTreeMap<IoId, RequestId>,
    /// Waits for the core's word.
    found: BTreeMap<RequestId, Buffer>,
}

impl Reads {
    /// `io` reads for `request`.
    pub(super) fn begin(&mut self, io: IoId, request: RequestId) {
        self.under_way.insert(io, request);
    }

    /// `io` ended. What it read is kept only if somebody still waits for it.
    pub(super) fn end(&mut self, io: IoId, buffer: Buffer) {
        if let Some(request) = self.under_way.remove(&io) {
            self.found.insert(request, buffer);
        }
    }

    /// What was read for `request`.
    pub(super) fn take(&mut self, request: RequestId) -> Option<Buffer> {
        self.found.remove(&request)
    }

    /// The clients are gone: no request is answered any more, also not those still being read.
    pub(super) fn forget(&mut self) {
        self.under_way.clear();
        self.found.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::BufferPool;
    use crate::wire::payload::PoolLimits;

    #[test]
    fn what_is_read_for_clients_that_are_gone_is_not_kept() {
        let pool = BufferPool::new(PoolLimits::default());
        let mut reads = Reads::default();
        reads.begin(IoId(1), RequestId(10));
        reads.begin(IoId(2), RequestId(11));
        reads.end(IoId(1), pool.get(4096));
        reads.forget();
        reads.end(IoId(2), pool.get(4096));
        assert!(reads.take(RequestId(10)).is_none() && reads.take(RequestId(11)).is_none());
        assert!(reads.under_way.is_empty() && reads.found.is_empty());
        reads.begin(IoId(3), RequestId(12));
        reads.end(IoId(3), pool.get(512));
        assert_eq!(reads.take(RequestId(12)).map(|buffer| buffer.len()), Some(512));
        assert!(reads.found.is_empty());
    }
}
