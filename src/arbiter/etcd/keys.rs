//! Where everything lies in etcd.
//!
//! Names of clusters, resources and nodes have no slash, so no two keys are the same.

use crate::units::Side;

/// The keys of one cluster of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Keys {
    prefix: String,
    /// Both nodes, in order of [`Side`].
    nodes: [String; 2],
}

impl Keys {
    pub(super) fn of(cluster: &str, nodes: [String; 2]) -> Self {
        Self { prefix: format!("/hotpair/v1/{cluster}/"), nodes }
    }

    /// What all keys begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The first key behind all of them: the prefix with its slash counted up.
    pub(super) fn prefix_end(&self) -> String {
        format!("{}0", self.prefix.trim_end_matches('/'))
    }

    /// A random number, which makes this store another one if it is made anew.
    pub(super) fn id(&self) -> String {
        format!("{}id", self.prefix)
    }

    /// What is remembered of a resource.
    pub(super) fn record(&self, resource: &str) -> String {
        format!("{}{resource}/record", self.prefix)
    }

    /// Which run of the owner has a lease; gone when that is over.
    pub(super) fn serving(&self, resource: &str) -> String {
        format!("{}{resource}/serving", self.prefix)
    }

    /// What a node says of a resource that has no record.
    pub(super) fn half(&self, resource: &str, side: Side) -> String {
        format!("{}{resource}/half/{}", self.prefix, self.nodes[side.index()])
    }
}
