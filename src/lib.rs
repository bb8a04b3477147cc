//! hotpair keeps a block file identical on two Linux nodes and fails over between them without
//! losing an acknowledged write.
//!
//! From the bottom: [`units`] are the shared words. [`config`], [`wire`] and [`metadata`] turn
//! bytes into types. [`promotion`], [`replica`] and [`manifest`] are the pure cores: they are told
//! and they answer, so the daemon, the simulator and the model checker run the same code. The
//! drivers [`store`], [`link`], [`nbd`], [`heartbeat`], [`arbiter`] and [`control`] carry out one effect each and
//! decide nothing. [`daemon`] owns the cores and feeds them; [`cli`] prints.

pub mod arbiter;
pub mod cli;
pub mod config;
pub mod control;
pub mod daemon;
pub mod heartbeat;
pub mod hooks;
pub mod link;
pub mod manifest;
pub mod metadata;
pub mod nbd;
pub mod promotion;
pub mod replica;
pub mod store;
pub mod units;
pub mod wire;
