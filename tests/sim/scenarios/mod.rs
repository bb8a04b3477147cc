//! Scenarios with a name: what must follow when this happens.

pub(crate) mod alone;
mod datagrams;
pub(crate) mod failover;
mod forced;
mod metadata;
pub(crate) mod moments;
mod moving;
mod pacemaker;
pub(crate) mod pledge;
mod reconnect;
mod register;
mod resize;
pub(crate) mod services;
mod split_brain;
mod stall;
mod stops;
mod store;
mod supervisor;
