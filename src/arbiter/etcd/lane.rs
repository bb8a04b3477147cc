//! What a node does at one member for one request: look, plan, commit.

use std::collections::BTreeMap;

use tracing::debug;

use super::EtcdSettings;
use super::error::EtcdError;
use super::http::Link;
use super::keys::Keys;
use super::message::{
    Change, Granted, Guard, Header, KeptAlive, Outcome, Transaction, grant_body, keepalive_body,
    look_body,
};
use super::plan::{Entry, Spoiled, Step, keys_of, read_arbiter, read_entry};
use super::stored::{Place, encode_id};
use crate::promotion::arbiter::{Asked, Operation, Reply};
use crate::units::ArbiterId;

/// What a member did, or why it did not.
pub(super) type Did<T> = Result<T, EtcdError>;

/// How often a request is planned anew because something changed in between: for the two halves of
/// a new record, and for a race with the other node.
const ROUNDS_MAX: usize = 4;

/// What requests need that does not change with the connection.
pub(super) struct Lane {
    pub(super) settings: EtcdSettings,
    pub(super) keys: Keys,
    /// The etcd lease of this run for each resource, as long as it is not known to be over. One that is
    /// served no more ends, while another one is served on.
    pub(super) leases: BTreeMap<String, i64>,
}

/// A lease that holds.
#[derive(Clone, Copy)]
pub(super) struct Lease {
    pub(super) id: i64,
    /// Who kept it alive. A leader that was cut off keeps a lease alive by itself for a while; an
    /// answer of the same member and term shows that it was the leader still. A new lease needs no
    /// such thing: a majority has made it.
    pub(super) kept_by: Option<Header>,
}

/// What became of a request.
pub(super) enum Answered {
    Reply(Reply),
    Spoiled(Spoiled),
    Unsettled,
}

impl Lane {
    pub(super) fn place<'a>(&'a self, resource: &'a str) -> Place<'a> {
        Place { cluster: &self.settings.cluster, resource, nodes: &self.settings.nodes }
    }

    /// Reads everything that is stored of these resources, at one moment.
    pub(super) async fn look(
        &self,
        link: &mut Link,
        resources: &[&str],
    ) -> Did<(ArbiterId, Outcome)> {
        let mut keys = vec![self.keys.id()];
        for (place, resource) in resources.iter().enumerate() {
            if !resources[..place].contains(resource) {
                keys.extend(keys_of(&self.keys, resource));
            }
        }
        let found: Outcome = link.call("/v3/kv/txn", &look_body(&keys)).await?;
        if !found.has_looked(&keys) {
            let what = "it did not answer all of a transaction";
            return Err(EtcdError::Odd { endpoint: link.endpoint(), what });
        }
        let Some(id) = found.found(&self.keys.id()) else {
            let what = "our keys were removed from etcd";
            return Err(EtcdError::Odd { endpoint: link.endpoint(), what });
        };
        let arbiter = read_arbiter(&self.keys, found.header.cluster_id, id);
        Ok((arbiter.map_err(EtcdError::Spoiled)?, found))
    }

    pub(super) fn entry(
        &self,
        resource: &str,
        found: &(ArbiterId, Outcome),
    ) -> Result<Entry, Spoiled> {
        read_entry(self.place(resource), &self.keys, found.0, &found.1)
    }

    /// Keeps the lease of this run for what is asked alive, or asks for one, if that needs a lease.
    /// What is put on it is there at least as long as the lease counts from before this.
    pub(super) async fn keep_lease(&mut self, link: &mut Link, asked: &Asked) -> Did<Lease> {
        if !needs_lease(&asked.request.operation) {
            return Ok(Lease { id: 0, kept_by: None });
        }
        let resource = asked.resource.as_str();
        let ttl_s = self.settings.lease.as_millis().div_ceil(1_000);
        let ttl_s = u64::try_from(ttl_s).expect("a lease has at most ten minutes");
        if let Some(&id) = self.leases.get(resource) {
            let kept: KeptAlive = link.call("/v3/lease/keepalive", &keepalive_body(id)).await?;
            if kept.result.ttl_s > 0 && kept.result.ttl_s.unsigned_abs() >= ttl_s {
                return Ok(Lease { id, kept_by: Some(kept.result.header) });
            }
            debug!(resource, "the etcd lease is over");
            self.leases.remove(resource);
        }
        let granted: Granted = link.call("/v3/lease/grant", &grant_body(ttl_s)).await?;
        if granted.id == 0 || granted.ttl_s.unsigned_abs() < ttl_s {
            let what = "it granted no lease, or a shorter one";
            return Err(EtcdError::Odd { endpoint: link.endpoint(), what });
        }
        self.leases.insert(resource.to_owned(), granted.id);
        Ok(Lease { id: granted.id, kept_by: None })
    }

    pub(super) async fn answer(
        &mut self,
        link: &mut Link,
        lease: Lease,
        asked: &Asked,
        found: &(ArbiterId, Outcome),
    ) -> Did<Answered> {
        let Asked { resource, request } = asked;
        let mut again;
        let mut found = found;
        for _ in 0..ROUNDS_MAX {
            let entry = match self.entry(resource, found) {
                Ok(entry) => entry,
                Err(spoiled) => return Ok(Answered::Spoiled(spoiled)),
            };
            let step = entry.plan(self.place(resource), &self.keys, lease.id, request);
            let (transaction, reply) = match step {
                Step::Answer(reply) => return Ok(settled(reply, lease, found.1.header)),
                Step::Commit(transaction, reply) => (transaction, Some(reply)),
                Step::Propose(transaction) => (transaction, None),
            };
            let done: Outcome = match link.call("/v3/kv/txn", &transaction.body()).await {
                // It ended since it was kept alive: the next request takes a new one.
                Err(error) if error.is_of_lease() => {
                    self.leases.remove(resource);
                    return Ok(Answered::Unsettled);
                }
                done => done?,
            };
            if let Some(reply) = reply
                && (done.succeeded || is_made(&transaction, &done))
            {
                return Ok(settled(reply, lease, done.header));
            }
            again = self.look(link, &[resource]).await?;
            found = &again;
        }
        Ok(Answered::Unsettled)
    }
}

/// Whether a transaction that failed has been carried out before: its record is there, word by word,
/// with the id of the request.
pub(super) fn is_made(transaction: &Transaction, done: &Outcome) -> bool {
    transaction.changes.iter().any(|change| match change {
        Change::Put { key, value, lease: 0 } => {
            transaction.looks.contains(key)
                && done.found(key).is_some_and(|stored| stored.value == *value)
        }
        Change::Put { .. } | Change::Delete { .. } => false,
    })
}

/// A lease counts only if whoever kept it alive was the leader still.
pub(super) fn settled(reply: Reply, lease: Lease, header: Header) -> Answered {
    let is_lease = matches!(reply, Reply::Lease { .. });
    let is_sure = lease.kept_by.is_none_or(|kept| kept.is_of_one_term(header));
    if is_lease && !is_sure { Answered::Unsettled } else { Answered::Reply(reply) }
}

/// Finds out which store this is; names it if it has no name.
pub(super) async fn introduce(
    link: &mut Link,
    settings: &EtcdSettings,
    keys: &Keys,
) -> Did<ArbiterId> {
    let key = keys.id();
    let id = settings.fresh_id ^ fastrand::u128(..);
    let naming = Transaction {
        guards: vec![Guard::Absent { key: key.clone() }],
        changes: vec![Change::Put { key: key.clone(), value: encode_id(id), lease: 0 }],
        looks: vec![key.clone()],
    };
    // Of two nodes that name it at once one finds what the other one wrote.
    let done: Outcome = link.call("/v3/kv/txn", &naming.body()).await?;
    if done.succeeded {
        let found: Outcome = link.call("/v3/kv/txn", &look_body(&naming.looks)).await?;
        return named(link, keys, &found);
    }
    named(link, keys, &done)
}

pub(super) fn named(link: &Link, keys: &Keys, found: &Outcome) -> Did<ArbiterId> {
    let Some(id) = found.found(&keys.id()) else {
        let what = "it did not say which store it is";
        return Err(EtcdError::Odd { endpoint: link.endpoint(), what });
    };
    read_arbiter(keys, found.header.cluster_id, id).map_err(EtcdError::Spoiled)
}

fn needs_lease(operation: &Operation) -> bool {
    match operation {
        Operation::Renew | Operation::Promote { .. } | Operation::Enroll(_) => true,
        Operation::Read
        | Operation::PreVote { .. }
        | Operation::Solo { .. }
        | Operation::Pair { .. }
        | Operation::Handover
        | Operation::Keep
        | Operation::Stop
        | Operation::Release { .. }
        | Operation::Force { .. } => false,
    }
}
