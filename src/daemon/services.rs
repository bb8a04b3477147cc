//! Starts what carries out the hooks of each resource, and collects what they leave behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::clock;
use crate::config::{NodeConfig, NodeResource};
use crate::hooks::{Driver, HookNews, Lease, Leaving, LeftBehind, Scene};
use crate::promotion::services::ServiceOrder;

/// What a data thread orders and hears.
#[derive(Debug)]
pub(super) struct ServiceEnds {
    orders: watch::Sender<Option<ServiceOrder>>,
    lease: watch::Sender<Lease>,
    news: mpsc::Receiver<HookNews>,
}

impl ServiceEnds {
    /// The newest order takes the place of the one before.
    pub(super) fn order(&self, order: ServiceOrder) {
        self.orders.send_replace(Some(order));
    }

    /// How long the services may run if this thread says nothing more.
    pub(super) fn lease(&self, lease: Lease) {
        self.lease.send_if_modified(|old| std::mem::replace(old, lease) != lease);
    }

    /// What came of one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<HookNews> {
        match self.news.poll_recv(cx) {
            Poll::Ready(Some(news)) => Poll::Ready(news),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// What has to be done for each resource if this process dies now.
pub(super) type LeftBehinds = BTreeMap<String, LeftBehind>;

/// News that may wait; a command tells 16 lines.
const NEWS_MAX: usize = 64;

/// Starts the hooks of a resource, if it has any. Call it on the control runtime.
pub(super) fn start_services(
    node: &NodeConfig,
    resource: &NodeResource,
    left: &watch::Sender<LeftBehinds>,
    stop: CancellationToken,
) -> Option<ServiceEnds> {
    let hooks = resource.local.hooks.clone()?;
    let scene = scene(node, resource);
    let (orders, orders_out) = watch::channel(None);
    let (news, news_out) = mpsc::channel(NEWS_MAX);
    let (lease, lease_out) = watch::channel(Lease::default());
    let driver = Driver { hooks, scene, lease: lease_out, clock: Arc::new(clock::both) };
    let (mine, mine_out) = watch::channel(driver.left_at_first());
    left.send_modify(|left| {
        left.insert(resource.name.clone(), driver.left_at_first());
    });
    tokio::spawn(collect(resource.name.clone(), mine_out, left.clone(), stop));
    tokio::spawn(driver.run(Leaving { orders: orders_out, news, left: mine }));
    Some(ServiceEnds { orders, lease, news: news_out })
}

/// What commands are told of where they run.
pub(super) fn scene(node: &NodeConfig, resource: &NodeResource) -> Scene {
    Scene {
        cluster: node.cluster.clone(),
        resource: resource.name.clone(),
        node: node.node.name.clone(),
        peer: node.peer.name.clone(),
        path: resource.local.path.display().to_string(),
        export: resource.directory.is_none().then(|| resource.local.export.to_string()),
    }
}

/// Keeps the place of one resource among what all of them leave behind, until the daemon ends.
async fn collect(
    resource: String,
    mut mine: watch::Receiver<LeftBehind>,
    all: watch::Sender<LeftBehinds>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            changed = mine.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        let left = mine.borrow_and_update().clone();
        all.send_modify(|all| {
            all.insert(resource.clone(), left);
        });
    }
}
