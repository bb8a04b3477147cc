//! One block resource on one node: the pure core.
//!
//! It is told what happened ([`Input`]) and answers what to do ([`Effect`]); it does no I/O, reads
//! no clock and draws no numbers.

mod effect;
mod operator;
mod request;
mod settings;

pub use effect::{Closing, DiskOutcome, Effect, Input, IoId, LinkId, MetadataFailed, Ticket};
pub use operator::{
    Answer, AtRisk, Command, Event, LinkStatus, PeerStatus, Refused, ReplicationStatus,
    ResyncStatus, SplitBrain, Status, VerifyStatus,
};
pub use request::{
    PART_LEN_MAX, Request, RequestError, RequestId, RequestKind, RequestResult, ZERO_PART_LEN_MAX,
};
pub use settings::Settings;
