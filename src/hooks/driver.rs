//! Carries out what the core orders for the services of one resource.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::command::HookError;
use super::plan::{Plan, Scene};
use super::run::{Told, run};
use super::virtual_ip;
use crate::config::Hooks;
use crate::promotion::services::{ServiceAction, ServiceOrder, ServiceReason};
use crate::promotion::{Clocks, Early};
use crate::units::Epoch;

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
#[derive(Clone, Debug, Eq, PartialEq)]
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

/// How long the node serves without a further word.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lease {
    /// It serves by a lease.
    pub is_needed: bool,
    /// Those that it holds; one is enough.
    pub held: [Option<Early>; 2],
}

impl Lease {
    fn is_over(self, now: Clocks) -> bool {
        self.is_needed && self.held.iter().flatten().all(|lease| lease.is_over(now))
    }
}

/// The hooks of one resource.
pub struct Driver {
    /// What runs.
    pub hooks: Hooks,
    /// What they are told.
    pub scene: Scene,
    /// Until when they may run if the core says nothing more: its thread may hang in the kernel.
    pub lease: watch::Receiver<Lease>,
    /// Both clocks, now.
    pub clock: Arc<dyn Fn() -> Clocks + Send + Sync>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("scene", &self.scene).finish_non_exhaustive()
    }
}

impl Driver {
    /// Works until nobody orders anything any more. What runs then is left to itself.
    pub async fn run(self, ends: Leaving) {
        let Leaving { mut orders, news, left } = ends;
        let mut is_announced = false;
        let mut started = None;
        loop {
            let order = tokio::select! {
                changed = orders.changed() => match changed {
                    Ok(()) => *orders.borrow_and_update(),
                    Err(_) => return,
                },
                () = self.announce(&news), if is_announced => continue,
                () = self.lapse(), if started.is_some() => started.take().map(stop_by_itself),
            };
            let Some(order) = order else { continue };
            is_announced = false;
            started = (order.action == ServiceAction::Start).then_some(order);
            let ended = tokio::select! {
                ended = self.carry_out(order, &news, &left) => ended,
                // The next turn takes the newer order, or stops by itself; what ran is killed.
                () = async {
                    tokio::select! {
                        () = wait_for_another(&orders) => {}
                        () = self.lapse(), if started.is_some() => {}
                    }
                } => {
                    left.send_modify(|left| left.group = None);
                    continue;
                }
            };
            is_announced = order.action == ServiceAction::Start && ended.is_ok();
            let result = ended.map_err(|error| error.to_string());
            // A core that hangs has room for this, and one that is gone waits for nothing.
            let _ = news.try_send(HookNews::Ended { run: order.run, result });
        }
    }

    /// Ends when the lease by which the services run is over, and the core did not say so itself.
    async fn lapse(&self) {
        let mut looks = 0;
        while looks < LOOKS {
            tokio::time::sleep(LOOK).await;
            let is_over = self.lease.borrow().is_over((self.clock)());
            looks = if is_over { looks + 1 } else { 0 };
        }
    }

    /// What has to be done before it has run: nobody knows what an earlier run of the daemon left.
    pub fn left_at_first(&self) -> LeftBehind {
        LeftBehind { group: None, plan: Some(self.stop_plan(Epoch(0))) }
    }

    /// How the services stop if this process cannot stop them.
    fn stop_plan(&self, epoch: Epoch) -> Plan {
        let (action, reason) = (ServiceAction::StopNow, ServiceReason::Failover);
        Plan::of(ServiceOrder { run: 0, action, reason, epoch }, &self.hooks, &self.scene)
    }

    async fn carry_out(
        &self,
        order: ServiceOrder,
        news: &mpsc::Sender<HookNews>,
        left: &watch::Sender<LeftBehind>,
    ) -> Result<(), HookError> {
        let plan = Plan::of(order, &self.hooks, &self.scene);
        if order.action == ServiceAction::Start {
            let stop = self.stop_plan(order.epoch);
            left.send_modify(|left| left.plan = Some(stop));
        }
        let mut tell = |told: Told<'_>| match told {
            Told::Group(group) => left.send_modify(|left| left.group = group),
            Told::Line { program, text } => {
                let reason = format!("{program}: {text}");
                // Lines that nobody takes must not keep the end of a run from being told.
                if news.capacity() > FOR_ENDS {
                    let _ = news.try_send(HookNews::Event { kind: "hook-output", reason });
                }
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

/// What the core would have ordered. Its own order comes when it runs again, under another number.
fn stop_by_itself(started: ServiceOrder) -> ServiceOrder {
    let (action, reason) = (ServiceAction::StopNow, ServiceReason::LeaseLost);
    ServiceOrder { run: 0, action, reason, ..started }
}

/// Ends when there is an order that was not seen yet. It is not marked as seen.
async fn wait_for_another(orders: &watch::Receiver<Option<ServiceOrder>>) {
    // Without anybody who could order something what runs goes on.
    if orders.clone().changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Places for news that lines of output do not take: a core that hangs orders nothing, so few runs end.
const FOR_ENDS: usize = 8;
/// Time between two looks at the lease, and how many in a row find it over before the services stop:
/// the core is faster if it runs at all.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 5;
