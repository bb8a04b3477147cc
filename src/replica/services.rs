//! The services beside a primary: when hooks start and stop them.
//!
//! They run while clients are served. As planned they stop first, while the resource still works, and
//! what does not stop keeps the role here. A right to serve that was lost stops them at once.

use super::effect::Effect;
use super::exit::ExitWhy;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion::services::{ServiceAction, ServiceReason, Services, Wanted};

impl<M: MapMemory> Replica<M> {
    /// Orders what the role needs. Nothing without hooks.
    pub(super) fn pump_services(&mut self, effects: &mut Effects) {
        if self.settings.has_services && self.services.is_none() {
            self.services = Some(Services::default());
        }
        let wanted = self.wanted_services();
        let now = self.now;
        let Some(order) = self.services.as_mut().and_then(|services| services.settle(now, wanted))
        else {
            return;
        };
        if order.action == ServiceAction::Start {
            self.role.why_primary = ServiceReason::Resumed; // when they are started once more
        }
        effects.push(Effect::Services(order));
    }

    /// A run of hooks ended.
    pub(super) fn on_services(&mut self, run: u64, result: Result<(), String>) {
        let failure = result.as_ref().err().cloned();
        let now = self.now;
        let Some(services) = &mut self.services else { return };
        if !services.on_ended(now, run, result) {
            return;
        }
        let state = services.name();
        match failure {
            Some(why) => self.event("hook-failed", why),
            None => self.event("services-changed", format!("the services are {state}")),
        }
    }

    /// Whether the services are stopped, or there are none: then a planned end of serving goes on.
    /// `Err`: they did not stop.
    pub(super) fn services_are_off(&self) -> Result<bool, String> {
        match &self.services {
            None => Ok(true),
            Some(services) if services.is_off() => match services.failure() {
                None => Ok(true),
                Some(why) => Err(format!("the services of this node do not stop: {why}")),
            },
            Some(_) => Ok(false),
        }
    }

    /// How the services stand, and what the last hook failed by.
    pub(super) fn service_status(&self) -> Option<super::operator::ServiceStatus> {
        let services = self.services.as_ref()?;
        let failure = services.failure().map(str::to_owned);
        Some(super::operator::ServiceStatus { state: services.name(), failure })
    }

    fn wanted_services(&self) -> Wanted {
        let epoch = self.records.stable().epoch;
        let leaves_as = self.role.exit.as_ref().and_then(super::exit::Exit::stops_services);
        let is_withheld = self.role.is_primary() && !self.may_answer_reads();
        let (action, reason) = if is_withheld {
            (ServiceAction::StopNow, ServiceReason::LeaseLost)
        } else if let Some(why) = leaves_as {
            let reason = match why {
                ExitWhy::Demote => ServiceReason::Manual,
                ExitWhy::Switchover if self.desk.is_stopping() => ServiceReason::Shutdown,
                ExitWhy::Switchover => ServiceReason::Switchover,
                ExitWhy::Stop => ServiceReason::Shutdown,
            };
            (ServiceAction::Stop, reason)
        } else if self.role.is_exported() {
            (ServiceAction::Start, self.role.why_primary)
        } else if self.is_split() {
            (ServiceAction::StopNow, ServiceReason::SplitBrain)
        } else {
            (ServiceAction::StopNow, ServiceReason::Failover)
        };
        Wanted { action, reason, epoch }
    }
}
