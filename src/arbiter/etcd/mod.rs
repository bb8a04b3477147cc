//! etcd as the arbiter: a node's way to it, as [`run_client`](super::run_client) is its way to a
//! witness.
//!
//! Nobody decides at etcd, so each node does: it reads the record, asks the rule of
//! `promotion::arbiter`, and changes the record in a transaction that demands what the rule saw.
//! `plan.rs` is that, without I/O; `stored.rs` and `message.rs` are its values and words; `lane.rs` carries
//! it out at one member, `driver.rs` finds one that answers. etcd's recipes for locks and elections are not used: they do not exclude that two
//! hold one.

mod driver;
mod error;
mod http;
mod keys;
mod lane;
mod message;
mod plan;
mod stored;
mod watch;

use std::fmt;
use std::time::Duration;

pub use driver::run_etcd;

use super::security::EtcdSecurity;
use crate::config::EtcdEndpoint;

/// A node, and the etcd that it asks.
#[derive(Clone, Debug)]
pub struct EtcdSettings {
    /// Its members, asked in this order until one answers.
    pub endpoints: Vec<EtcdEndpoint>,
    /// How connections are protected.
    pub security: EtcdSecurity,
    /// Who we are there, if anybody must say so.
    pub login: Option<Login>,
    /// Name of our cluster.
    pub cluster: String,
    /// Names of both nodes, in order of [`Side`](crate::units::Side).
    pub nodes: [String; 2],
    /// Names of the resources.
    pub resources: Vec<String>,
    /// How long etcd keeps a lease; whole seconds.
    pub lease: Duration,
    /// How long a member may take to answer before the next one is asked.
    pub limit: Duration,
    /// A random number that names a store which has no name yet.
    pub fresh_id: u128,
}

/// A user of etcd.
#[derive(Clone)]
pub struct Login {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
