//! Scenarios with a name: what must follow when this happens.

mod reconnect;
mod resize;
mod split_brain;
