//! The durable record of one resource.

use serde::{Deserialize, Serialize};

use super::request::RequestId;
use crate::units::{ArbiterId, Epoch, Generation, Side};

/// Who owns a resource and who may be promoted without an operator.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct ArbiterRecord {
    /// The store that it belongs to.
    pub arbiter: ArbiterId,
    /// Every change makes a new one.
    pub epoch: Epoch,
    /// The node that serves, or is the next to.
    pub owner: Side,
    /// The nodes that may be promoted without an operator.
    pub eligible: Eligible,
    /// What the eligible nodes have.
    pub generation: Generation,
    /// The longest lease that the arbiter grants, in milliseconds.
    pub lease_ms: u32,
    /// An operator demoted the owner: only an operator's promotion ends that.
    pub stopped: bool,
    /// The owner was made by force.
    pub forced: bool,
    /// Fingerprints of the keys of both nodes; zero with `encryption = "none"`.
    pub identities: [[u8; 32]; 2],
    /// The last request of each node that changed the record.
    pub requests: [RequestId; 2],
    /// Whose request made this very version.
    pub changed_by: Side,
}

/// The set of nodes that may be promoted; it always contains the owner.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Eligible {
    /// The owner alone: it may acknowledge writes that the other node lacks.
    Owner,
    /// Both: every acknowledged write is on both.
    Both,
}

impl ArbiterRecord {
    /// Whether `side` may be promoted without an operator.
    pub fn lists(&self, side: Side) -> bool {
        self.owner == side || self.eligible == Eligible::Both
    }

    /// Whether this very version is what that request of `side` made. An equal epoch and owner
    /// would not do: a candidate would take a handover's record for its own promotion.
    pub fn was_made_by(&self, side: Side, id: RequestId) -> bool {
        self.changed_by == side && self.requests[side.index()] == id
    }
}
