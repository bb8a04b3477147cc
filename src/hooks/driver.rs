//! Carries out what the core orders for the services of one resource.

use tokio::sync::{mpsc, watch};

use super::command::HookError;
use super::plan::{Plan, Scene};
use super::run::{Told, run};
use super::virtual_ip;
use crate::config::Hooks;
use crate::promotion::services::{ServiceAction, ServiceOrder, ServiceReason};

/// What it tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HookNews {
    /// A run ended.
    Ended {
        /// Which.
        run: u64,
        /// Why it failed, if it did.
        result: Result<(), String>,
    },
    /// For people.
    Event {
        /// Short constant name.
        kind: &'static str,
        /// One sentence.
        reason: String,
    },
}

/// What somebody else has to do if this process dies now.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LeftBehind {
    /// The process group of the command that runs; it is killed first.
    pub group: Option<i32>,
    /// How the services stop; `None` if they are stopped.
    pub plan: Option<Plan>,
}

/// The driver's ends.
#[derive(Debug)]
pub struct Leaving {
    /// The newest order takes the place of the one that is under way.
    pub orders: watch::Receiver<Option<ServiceOrder>>,
    /// What ended.
    pub news: mpsc::Sender<HookNews>,
    /// What is left behind.
    pub left: watch::Sender<LeftBehind>,
}

/// The hooks of one resource.
#[derive(Debug)]
pub struct Driver {
    /// What runs.
    pub hooks: Hooks,
    /// What they are told.
    pub scene: Scene,
}

impl Driver {
    /// Works until nobody orders anything any more. What runs then is left to itself.
    pub async fn run(self, ends: Leaving) {
        let Leaving { mut orders, news, left } = ends;
        let mut is_announced = false;
        loop {
            let order = tokio::select! {
                changed = orders.changed() => match changed {
                    Ok(()) => *orders.borrow_and_update(),
                    Err(_) => return,
                },
                () = self.announce(&news), if is_announced => continue,
            };
            let Some(order) = order else { continue };
            is_announced = false;
            let ended = tokio::select! {
                ended = self.carry_out(order, &news, &left) => ended,
                // The next turn takes the newer order; what ran is killed.
                Ok(()) = wait_for_another(&orders, order) => {
                    left.send_modify(|left| left.group = None);
                    continue;
                }
            };
            is_announced = order.action == ServiceAction::Start && ended.is_ok();
            let result = ended.map_err(|error| error.to_string());
            // A core that is gone waits for nothing.
            let _ = news.send(HookNews::Ended { run: order.run, result }).await;
        }
    }

    async fn carry_out(
        &self,
        order: ServiceOrder,
        news: &mpsc::Sender<HookNews>,
        left: &watch::Sender<LeftBehind>,
    ) -> Result<(), HookError> {
        let plan = Plan::of(order, &self.hooks, &self.scene);
        if order.action == ServiceAction::Start {
            let stop = ServiceOrder {
                action: ServiceAction::StopNow,
                reason: ServiceReason::Failover,
                ..order
            };
            let stop = Plan::of(stop, &self.hooks, &self.scene);
            left.send_modify(|left| left.plan = Some(stop));
        }
        let mut tell = |told: Told<'_>| match told {
            Told::Group(group) => left.send_modify(|left| left.group = group),
            Told::Line { program, text } => {
                let reason = format!("{program}: {text}");
                let _ = news.try_send(HookNews::Event { kind: "hook-output", reason });
            }
        };
        let ended = run(&plan, &mut tell).await;
        if order.action != ServiceAction::Start && ended.is_ok() {
            left.send_modify(|left| left.plan = None);
        }
        ended
    }

    /// Never ends.
    async fn announce(&self, news: &mpsc::Sender<HookNews>) {
        let Some(address) = &self.hooks.virtual_ip else {
            return std::future::pending().await;
        };
        let conflict = |reason| {
            let _ = news.try_send(HookNews::Event { kind: "vip-conflict", reason });
        };
        virtual_ip::announce(address, conflict).await;
    }
}

/// Ends when there is another order than this one. It is not marked as seen.
async fn wait_for_another(
    orders: &watch::Receiver<Option<ServiceOrder>>,
    order: ServiceOrder,
) -> Result<(), watch::error::RecvError> {
    let mut orders = orders.clone();
    orders.wait_for(|newest| *newest != Some(order)).await.map(drop)
}
