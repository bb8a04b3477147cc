//! What a core must know of the configuration.

use std::time::Duration;

use crate::promotion::alone::AloneSettings;
use crate::promotion::controller::ControllerSettings;
use crate::units::{ReplicationMode, Side};

/// Names, modes and limits of one resource. The limits are fields so that tests can shrink them.
#[expect(clippy::struct_excessive_bools, reason = "each is a setting of its own")]
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Settings {
    /// This node's place in the pair.
    pub side: Side,
    /// Name of the cluster.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// The peer's name.
    pub peer: String,
    /// Name of the resource.
    pub resource: String,
    /// When a write is acknowledged.
    pub mode: ReplicationMode,
    /// `async`: FLUSH waits for both nodes. Always true in the other modes.
    pub flush_both: bool,
    /// `async`: most acknowledged bytes that the peer has not applied.
    pub at_risk_bytes: u64,
    /// `async`: greatest age of the oldest of them.
    pub at_risk_age: Duration,
    /// Cap of a resync in bytes per second.
    pub resync_rate: Option<u64>,
    /// Hash of the settings both nodes must agree on.
    pub settings_hash: u32,
    /// The store zeroes ranges without writing them.
    pub zeroing_is_cheap: bool,
    /// Nothing sent for this long: Ping.
    pub ping_interval: Duration,
    /// Nothing heard for this long: the link is lost.
    pub suspect_after: Duration,
    /// Oldest unacknowledged write: older than this, the link is lost.
    pub io_timeout: Duration,
    /// Parts in flight.
    pub in_flight_parts_max: usize,
    /// Bytes in flight.
    pub in_flight_bytes_max: u64,
    /// Blocks that the peer has applied and not flushed, before it is asked to.
    pub unflushed_blocks_max: usize,
    /// The longest that such a block stays so.
    pub unflushed_age: Duration,
    /// Chunks in motion of a resync.
    pub resync_chunks_max: usize,
    /// An extent without a write for this long may leave the activity log.
    pub cool_after: Duration,
    /// Time between checkpoints while something changes.
    pub checkpoint_every: Duration,
    /// Remaining bytes of a resync at which a solo primary starts to wait for the target.
    pub gate_bytes: u64,
    /// The node that should serve while both are well.
    pub prefer: Option<Side>,
    /// Hooks start and stop services beside a primary.
    pub has_services: bool,
    /// The data is the register of a directory tree: a write of it is whole or not there, and stable
    /// when it is reported. So a copy that is being filled stays one that clients could have seen, and
    /// nothing of it is lost with the power. A transfer waits for [`Input::Admit`], the end of serving
    /// for [`Input::Settled`].
    ///
    /// [`Input::Admit`]: super::effect::Input::Admit
    /// [`Input::Settled`]: super::effect::Input::Settled
    pub is_register: bool,
    /// There are paths of heartbeats: a primary without a connection asks its peer there to veto
    /// itself.
    pub asks_by_datagram: bool,
    /// With an arbiter: what its word is asked for.
    pub controller: Option<ControllerSettings>,
    /// Without an arbiter: how a node promotes itself, if it does.
    pub alone: Option<AloneSettings>,
    /// The bug to be found.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<super::planted::Planted>,
}

impl Settings {
    /// The longest that the peer may take to acknowledge. In `async` it may be behind by the age
    /// that the budget allows, which is no sign of failure.
    pub(super) fn peer_timeout(&self) -> Duration {
        match self.mode {
            ReplicationMode::Sync | ReplicationMode::MemSync => self.io_timeout,
            ReplicationMode::Async => self.io_timeout + self.at_risk_age,
        }
    }
}

impl Default for Settings {
    /// The limits of a release, timers as configured by default, and names to be replaced.
    fn default() -> Self {
        Self {
            side: Side::First,
            cluster: String::new(),
            node: String::new(),
            peer: String::new(),
            resource: String::new(),
            mode: ReplicationMode::Sync,
            flush_both: true,
            at_risk_bytes: 64 << 20,
            at_risk_age: Duration::from_secs(5),
            resync_rate: None,
            settings_hash: 0,
            zeroing_is_cheap: true,
            ping_interval: Duration::from_millis(200),
            suspect_after: Duration::from_secs(1),
            io_timeout: Duration::from_secs(3),
            in_flight_parts_max: 4096,
            in_flight_bytes_max: 64 << 20,
            unflushed_blocks_max: 65_536,
            unflushed_age: Duration::from_secs(1),
            resync_chunks_max: 128,
            cool_after: Duration::from_secs(5),
            checkpoint_every: Duration::from_secs(30),
            prefer: None,
            has_services: false,
            is_register: false,
            asks_by_datagram: false,
            controller: None,
            alone: None,
            gate_bytes: 16 << 20,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}
