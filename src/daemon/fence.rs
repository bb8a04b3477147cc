//! Between the data thread of a resource and its fence command.

use std::task::{Context, Poll};

use tokio::sync::{mpsc, watch};

use super::services::scene;
use crate::config::{Arbiter, Auto, NodeConfig, NodeResource};
use crate::hooks::{FenceNews, Fencer};
use crate::promotion::alone::{AloneBy, AloneSettings};
use crate::promotion::controller::FenceUse;
use crate::promotion::fencing::FenceOrder;

/// What a data thread orders and hears.
#[derive(Debug)]
pub(super) struct FenceEnds {
    orders: watch::Sender<Option<FenceOrder>>,
    news: mpsc::Receiver<FenceNews>,
}

impl FenceEnds {
    /// The newest order takes the place of the one before.
    pub(super) fn order(&self, order: FenceOrder) {
        self.orders.send_replace(Some(order));
    }

    /// What came of one.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<FenceNews> {
        match self.news.poll_recv(cx) {
            Poll::Ready(Some(news)) => Poll::Ready(news),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// News that may wait; a command tells 16 lines.
const NEWS_MAX: usize = 64;

/// Makes ready to run the fence command of a resource, if there is one. Call it on the control runtime.
pub(super) fn start_fence(node: &NodeConfig, resource: &NodeResource) -> Option<FenceEnds> {
    let fence = node.promotion.fence.clone()?;
    let (orders, orders_out) = watch::channel(None);
    let (news, news_out) = mpsc::channel(NEWS_MAX);
    let fencer = Fencer { fence, scene: scene(node, resource) };
    tokio::spawn(fencer.run(orders_out, news));
    Some(FenceEnds { orders, news: news_out })
}

/// What a node that is promoted by an arbiter uses it for.
pub(super) fn fence_use(node: &NodeConfig) -> Option<FenceUse> {
    node.promotion.fence.as_ref()?;
    match node.promotion.auto {
        Auto::Fenced => Some(FenceUse::Required),
        Auto::Arbiter => Some(FenceUse::BestEffort),
        Auto::Off | Auto::HeartbeatOnly => None,
    }
}

/// What the core must know to promote this node without an arbiter; `None` if nothing does.
pub(super) fn alone_settings(node: &NodeConfig) -> Option<AloneSettings> {
    let promotion = &node.promotion;
    let by = match (&promotion.arbiter, promotion.auto, &promotion.fence) {
        (Arbiter::Pacemaker, ..) => AloneBy::Pacemaker,
        (Arbiter::None, Auto::Fenced, Some(fence)) => AloneBy::Fence { delay: fence.delay },
        (Arbiter::None, Auto::HeartbeatOnly, _) => AloneBy::Silence { lease: promotion.lease },
        (Arbiter::None | Arbiter::Witness(_) | Arbiter::Etcd(_), ..) => return None,
    };
    Some(AloneSettings {
        side: node.side,
        by,
        suspect_after: node.suspect_after,
        #[cfg(feature = "planted-bugs")]
        planted: None,
    })
}
