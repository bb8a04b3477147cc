//! The way from the data threads to the arbiter and back.
//!
//! One connection serves every resource. What does not get through is dropped: the core asks again.

use std::collections::BTreeMap;

use tokio::sync::{mpsc, watch};

use super::error::DaemonError;
use crate::arbiter::{ClientSecurity, ClientSettings, News, Order, run_client};
use crate::config::{
    Arbiter, Encryption, Failback, FlapLimit, Identity, NodeConfig, NodeResource, WitnessAt,
};
use crate::control::ArbiterReach;
use crate::promotion::controller::{self, ControllerInput, ControllerSettings, Moving};
use crate::units::Instance;

/// Where a data thread asks, and hears.
#[derive(Debug)]
pub(super) struct ArbiterEnds {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) news: mpsc::Receiver<ControllerInput>,
}

/// The way to the arbiter: for the data thread of each resource, and for `status`.
#[derive(Debug)]
pub(super) struct ArbiterWay {
    pub(super) resources: BTreeMap<String, ArbiterEnds>,
    pub(super) reach: watch::Receiver<ArbiterReach>,
}

/// Requests and answers that may wait; a core has one request under way, and more is dropped.
const ORDERS_MAX: usize = 512;
const NEWS_MAX: usize = 64;

/// Silence after which the connection counts as dead, as a part of the lease: a new one must be
/// there before the lease is over.
const DEAD_AFTER_PART: u32 = 3;

/// Whom to ask, and how.
enum Way {
    Witness(ClientSettings),
    #[cfg(feature = "etcd")]
    Etcd(crate::arbiter::EtcdSettings),
}

/// Starts the connection to the arbiter, if there is one, with an end for each resource in order.
/// Call it on the control runtime.
///
/// # Errors
/// If the key of this node or of the witness cannot be used, or a file that etcd needs.
pub(super) fn start_arbiter(
    node: &NodeConfig,
    instance: Instance,
) -> Result<Option<ArbiterWay>, DaemonError> {
    let dead_after = (node.promotion.lease / DEAD_AFTER_PART).max(node.suspect_after);
    let way = match &node.promotion.arbiter {
        Arbiter::None | Arbiter::Pacemaker => return Ok(None),
        Arbiter::Witness(witness) => Way::Witness(ClientSettings {
            address: witness.address,
            security: security(node, witness)?,
            cluster: node.cluster.clone(),
            node: node.node.name.clone(),
            side: node.side,
            instance,
            ping_every: node.interval,
            dead_after,
        }),
        #[cfg(feature = "etcd")]
        Arbiter::Etcd(etcd) => Way::Etcd(super::etcd::settings(node, etcd, dead_after)?),
        #[cfg(not(feature = "etcd"))]
        Arbiter::Etcd(_) => unreachable!("the configuration is refused without the feature"),
    };
    let (orders, orders_out) = mpsc::channel(ORDERS_MAX);
    let (news, news_out) = mpsc::channel(NEWS_MAX);
    let (reach, reach_out) = watch::channel(ArbiterReach::default());
    let mut resources = BTreeMap::new();
    let mut ends = BTreeMap::new();
    for resource in &node.resources {
        let (told, told_out) = mpsc::channel(NEWS_MAX);
        resources.insert(resource.name.clone(), told);
        ends.insert(resource.name.clone(), ArbiterEnds { orders: orders.clone(), news: told_out });
    }
    match way {
        Way::Witness(settings) => tokio::spawn(run_client(settings, orders_out, news)),
        #[cfg(feature = "etcd")]
        Way::Etcd(settings) => tokio::spawn(crate::arbiter::run_etcd(settings, orders_out, news)),
    };
    tokio::spawn(pass_on(resources, news_out, reach));
    Ok(Some(ArbiterWay { resources: ends, reach: reach_out }))
}

/// Hands each data thread what is said to its resource.
async fn pass_on(
    resources: BTreeMap<String, mpsc::Sender<ControllerInput>>,
    mut news: mpsc::Receiver<News>,
    reach: watch::Sender<ArbiterReach>,
) {
    while let Some(news) = news.recv().await {
        let (resource, input) = match news {
            News::Reachable { .. } => {
                reach.send_modify(|reach| (reach.is_reachable, reach.trouble) = (true, None));
                // A data thread that does not keep up asks again by itself.
                for told in resources.values() {
                    let _ = told.try_send(ControllerInput::ArbiterBack);
                }
                continue;
            }
            News::Unreachable { why } => {
                reach.send_modify(|reach| (reach.is_reachable, reach.trouble) = (false, Some(why)));
                continue;
            }
            News::Spoiled { resource, why } => {
                reach.send_modify(|reach| {
                    match why {
                        Some(why) => reach.spoiled.insert(resource, why),
                        None => reach.spoiled.remove(&resource),
                    };
                });
                continue;
            }
            News::Answer { resource, id, reply } => {
                (resource, ControllerInput::Reply { id, reply })
            }
            News::Changed { resource, record } => (resource, ControllerInput::Pushed(record)),
        };
        if let Some(told) = resources.get(&resource) {
            // A data thread that does not keep up asks again.
            let _ = told.try_send(input);
        }
    }
}

/// What the core must know of the arbiter; `None` without one.
pub(super) fn controller_settings(
    node: &NodeConfig,
    resource: &NodeResource,
) -> Option<ControllerSettings> {
    if !node.promotion.arbiter.is_asked() {
        return None;
    }
    let mut identities = [[0; 32]; 2];
    if node.encryption == Encryption::Tls {
        for (side, config) in [(node.side, &node.node), (node.side.other(), &node.peer)] {
            identities[side.index()] = key_of(config.identity.as_ref());
        }
    }
    Some(ControllerSettings {
        side: node.side,
        promotes: node.promotion.auto.promotes(),
        lease: node.promotion.lease,
        stop_budget: resource.peer_stop_budget,
        fence: super::fence::fence_use(node),
        arbiter_grace: node.promotion.arbiter_grace,
        identities,
        moving: moving(node, resource),
        #[cfg(feature = "planted-bugs")]
        planted: None,
    })
}

/// How the resource moves by itself.
fn moving(node: &NodeConfig, resource: &NodeResource) -> Moving {
    let FlapLimit { promotions, within } = node.promotion.flap_limit;
    Moving {
        prefer: resource.prefer,
        failback: match node.promotion.failback {
            Failback::Manual => None,
            Failback::After(after) => Some(after),
        },
        flap_limit: Some(controller::FlapLimit { promotions, within }),
    }
}

/// The hash of a public key; zeroes if there is none, as without encryption.
fn key_of(identity: Option<&Identity>) -> [u8; 32] {
    identity.and_then(|identity| super::witness::key_of(identity.as_str())).unwrap_or_default()
}

/// How the connection is protected.
#[cfg_attr(not(feature = "_tls"), expect(unused_variables, reason = "there are no keys"))]
fn security(node: &NodeConfig, witness: &WitnessAt) -> Result<ClientSecurity, DaemonError> {
    match node.encryption {
        Encryption::None => Ok(ClientSecurity::Plain),
        #[cfg(feature = "_tls")]
        Encryption::Tls => {
            let pin = witness.identity.as_ref().map(ToString::to_string).unwrap_or_default();
            let made = crate::link::witness_client(&node.node.state_dir, &pin)
                .map_err(|source| DaemonError::Identity { source })?;
            let crate::link::WitnessClient { config, is_witness, other_key } = made;
            Ok(ClientSecurity::Tls { config, is_witness, other_key })
        }
        #[cfg(not(feature = "_tls"))]
        Encryption::Tls => Err(DaemonError::Identity { source: crate::link::IdentityError::NoTls }),
    }
}
