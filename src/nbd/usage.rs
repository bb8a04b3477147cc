//! What clients occupy, and how much of it there may be.
//!
//! One slow client must not use up what the others need, so each has a share below the limit of
//! the export, and a small request of a client that occupies nothing is always taken.

/// Most parts of requests in flight per export. Source: replication.md, W1.
const PARTS_MAX: u64 = 4096;
/// Most bytes of payloads in flight per export. Source: replication.md, W1.
const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of replies, asked for or not yet taken, per export.
const REPLY_BYTES_MAX: u64 = 64 << 20;
/// The same for one connection, unless a single request is longer.
const REPLY_BYTES_SHARE: u64 = 16 << 20;
/// A request up to this long is taken from a connection that occupies nothing.
const SMALL_LEN: u64 = 256 << 10;

/// What is occupied.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Usage {
    /// Parts of requests in flight.
    pub(super) parts: u64,
    /// Bytes of payloads, arriving or in flight.
    pub(super) payload_bytes: u64,
    /// Bytes of replies, asked for or not yet taken by the client.
    pub(super) reply_bytes: u64,
}

impl Usage {
    pub(super) fn add(&mut self, other: Self) {
        self.parts += other.parts;
        self.payload_bytes += other.payload_bytes;
        self.reply_bytes += other.reply_bytes;
    }

    pub(super) fn remove(&mut self, other: Self) {
        self.parts -= other.parts;
        self.payload_bytes -= other.payload_bytes;
        self.reply_bytes -= other.reply_bytes;
    }

    pub(super) fn plus_unsent(mut self, bytes: u64) -> Self {
        self.reply_bytes += bytes;
        self
    }
}

/// What is left for further requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    used: Usage,
    /// A request had to wait for what others occupy.
    pub(super) is_short: bool,
}

impl Room {
    /// The room beside what all connections occupy.
    pub(super) fn beside(used: Usage) -> Self {
        Self { used, is_short: false }
    }

    /// Whether a request that will occupy `more` is taken from a connection that occupies `mine`.
    pub(super) fn admits(&mut self, mine: Usage, more: Usage) -> bool {
        let in_share =
            mine.reply_bytes == 0 || mine.reply_bytes + more.reply_bytes <= REPLY_BYTES_SHARE;
        if !in_share {
            return false;
        }
        let fits = |used: u64, more: u64, max: u64, mine: u64| {
            used + more <= max || (mine == 0 && more <= SMALL_LEN)
        };
        let used = self.used;
        let admits = used.parts + more.parts <= PARTS_MAX
            && fits(used.payload_bytes, more.payload_bytes, PAYLOAD_BYTES_MAX, mine.payload_bytes)
            && fits(used.reply_bytes, more.reply_bytes, REPLY_BYTES_MAX, mine.reply_bytes);
        self.is_short |= !admits;
        admits
    }

    pub(super) fn take(&mut self, more: Usage) {
        self.used.add(more);
    }
}
