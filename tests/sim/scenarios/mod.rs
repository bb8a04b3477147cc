//! Scenarios with a name: what must follow when this happens.

pub(crate) mod failover;
pub(crate) mod moments;
mod reconnect;
mod resize;
mod split_brain;
