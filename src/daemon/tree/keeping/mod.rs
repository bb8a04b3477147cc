//! What becomes of generations that a tree has left, and of what somebody else writes to a tree.
//!
//! A node that does not serve keeps earlier generations: it lists them, gives up those that nobody wants or that
//! take the room of the next one, and goes back to one of them while neither node serves. It also looks from time
//! to time whether its tree is what its index says. Where it is not, nobody knows what the tree is: the core is
//! told that this copy fell back, and the peer's whole tree leads on from there, which sets aside what is foreign.
//!
//! `worker.rs` is the part of the thread that has the tree, `desk.rs` that of the data thread, `flags.rs` what the
//! node remembers of it.

mod desk;
mod flags;
#[cfg(test)]
mod tests;
mod worker;

#[cfg(test)]
pub(super) use flags::set_foreign;
pub(super) use flags::{
    FLAGS_LEN, has_foreign, leaves_way_back, mend_way_back, set_leaves_way_back, set_went_back,
    went_back,
};
pub(super) use worker::{captured, list, tell};

use std::time::Duration;

use crate::manifest::Policy;
use crate::manifest::source::Closed;
use crate::store::tree::target::Quarantined;
use crate::units::Instant;

/// How many earlier generations the operator wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// Before the current one, in any case.
    pub(super) count: usize,
    /// Bytes that may be held for one more that is labelled stable or better.
    pub(super) limit_bytes: u64,
}

impl Wanted {
    /// What is kept if so many bytes have to become free.
    pub(super) fn policy(self, wanted_bytes: u64) -> Policy {
        Policy { keep: self.count, limit_bytes: self.limit_bytes, wanted_bytes }
    }
}

/// What is in the folders beside the tree.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    /// Generations before the current one.
    pub(super) generations: u64,
    /// What is held for them, in bytes.
    pub(super) bytes: u64,
    /// Numbers of those that are pinned.
    pub(super) pinned: Vec<u64>,
    pub(super) quarantined: Quarantined,
    /// Names in the tree, if it is known what it is.
    pub(super) entries: Option<u64>,
}

/// What the data thread knows of all of that.
#[derive(Debug)]
pub(super) struct Keeping {
    /// Time between two looks whether the tree is what the index says.
    every: Duration,
    compared_at: Option<Instant>,
    /// The worker brings an earlier generation back.
    goes_back: bool,
    way_back: WayBack,
    /// What the tree is while only this node knows.
    own: Option<Closed>,
    /// Somebody else has written to the tree, which the core is told once another node leads: without one this
    /// may be the only copy that is left.
    has_foreign: bool,
    pub(super) usage: Usage,
}

/// Whether the tree is what an operator went back to, of which the core knows nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum WayBack {
    /// The core has what the tree is.
    None,
    /// It was gone, and nobody has served since.
    Gone,
    /// Another node leads since, and the core was told that this copy does not count.
    Overtaken,
}

impl Keeping {
    /// `own`: what the tree is, if an operator went back to that. `has_foreign`: somebody else wrote to it.
    pub(super) fn new(every: Duration, own: Option<Closed>, has_foreign: bool) -> Self {
        let way_back = if own.is_some() { WayBack::Gone } else { WayBack::None };
        let (compared_at, goes_back, usage) = (None, false, Usage::default());
        Self { every, compared_at, goes_back, way_back, own, has_foreign, usage }
    }

    /// This node serves the tree, or goes to a generation of the peer.
    pub(super) fn forget_way_back(&mut self) {
        (self.way_back, self.own, self.has_foreign) = (WayBack::None, None, false);
    }

    /// What the tree is, if the core does not know.
    pub(super) fn own(&self) -> Option<Closed> {
        self.own
    }
}
