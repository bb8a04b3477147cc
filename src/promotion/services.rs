//! What runs beside a primary: the commands and the virtual address that hooks start and stop.
//!
//! One run of hooks is under way at a time. A start gives way to a stop at once; a stop is never
//! given up for a start, so that what is half stopped is not started over. After a start of the
//! daemon nobody knows what runs, and the first order is to stop it.

use std::time::Duration;

use crate::units::{Epoch, Instant};

/// What hooks do to the services of a resource.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ServiceAction {
    /// `promote` in order, the virtual address last.
    Start,
    /// The virtual address first, `demote` in order; each may take `timeout`.
    Stop,
    /// The same, and all of it within `stop_within`: the peer may be promoted soon.
    StopNow,
}

/// Why; hooks see it as `HOTPAIR_REASON`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ServiceReason {
    /// The resource is served for the first time; or the daemon starts, and something may run that it
    /// does not know of.
    #[default]
    Start,
    /// The other node was lost; on the one that stops: the other node was promoted.
    Failover,
    /// The role moves as planned.
    Switchover,
    /// An operator promoted or demoted.
    Manual,
    /// An operator promoted by force.
    Forced,
    /// A primary serves again: after a restart, or after its lease was over.
    Resumed,
    /// A primary's right to serve was over.
    LeaseLost,
    /// Both nodes were written to.
    SplitBrain,
    /// The daemon stops.
    Shutdown,
}

impl ServiceReason {
    /// As hooks and events name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Failover => "failover",
            Self::Switchover => "switchover",
            Self::Manual => "manual",
            Self::Forced => "forced",
            Self::Resumed => "resumed",
            Self::LeaseLost => "lease-lost",
            Self::SplitBrain => "split-brain",
            Self::Shutdown => "shutdown",
        }
    }
}

/// One run of hooks. A newer one takes the place of the one that is under way.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ServiceOrder {
    /// Counts up; the end of a run names it.
    pub run: u64,
    /// What is done.
    pub action: ServiceAction,
    /// Why.
    pub reason: ServiceReason,
    /// The epoch of the record.
    pub epoch: Epoch,
}

/// What the services should be now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Wanted {
    /// On, or how they are stopped.
    pub action: ServiceAction,
    /// Why.
    pub reason: ServiceReason,
    /// The epoch of the record.
    pub epoch: Epoch,
}

/// How far they are.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum State {
    Unknown,
    Off,
    Starting,
    On,
    Stopping(ServiceAction),
}

/// The services of one resource on this node.
#[derive(Clone, Debug, Hash)]
pub struct Services {
    state: State,
    run: u64,
    failure: Option<String>,
    ended: Instant,
}

impl Default for Services {
    fn default() -> Self {
        Self { state: State::Unknown, run: 0, failure: None, ended: Instant(0) }
    }
}

impl Services {
    /// Orders the next run, if one is due.
    pub fn settle(&mut self, now: Instant, wanted: Wanted) -> Option<ServiceOrder> {
        let is_to_be_repeated = self.failure.is_some() && now.since(self.ended) >= REPEAT_AFTER;
        let (action, reason) = match (self.state, wanted.action) {
            // What an earlier run of the daemon left has no more time than after a lost lease.
            (State::Unknown, _) if self.run == 0 => (ServiceAction::StopNow, ServiceReason::Start),
            (State::Unknown, ServiceAction::Start) => (ServiceAction::Stop, wanted.reason),
            (
                State::Unknown | State::Starting | State::On,
                ServiceAction::Stop | ServiceAction::StopNow,
            )
            | (State::Off, ServiceAction::Start)
            | (State::Stopping(ServiceAction::Stop), ServiceAction::StopNow) => {
                (wanted.action, wanted.reason)
            }
            // The other node may serve, so what did not stop is asked to again and again.
            (State::Off, ServiceAction::StopNow) if is_to_be_repeated => {
                (wanted.action, wanted.reason)
            }
            (State::Off, ServiceAction::Stop | ServiceAction::StopNow)
            | (State::Starting | State::On, ServiceAction::Start)
            | (State::Stopping(_), _) => return None,
        };
        self.run += 1;
        self.state = match action {
            ServiceAction::Start => State::Starting,
            ServiceAction::Stop | ServiceAction::StopNow => State::Stopping(action),
        };
        Some(ServiceOrder { run: self.run, action, reason, epoch: wanted.epoch })
    }

    /// A run ended. One that gave way to another does not count. Returns whether it did. Run 0 was ordered
    /// by nobody: the services stopped with their lease while this core did not run, whatever it thinks.
    pub fn on_ended(&mut self, now: Instant, run: u64, result: Result<(), String>) -> bool {
        if run == 0 {
            if matches!(self.state, State::Starting | State::On) {
                (self.state, self.failure) = (State::Unknown, result.err());
            }
            return true;
        }
        if run != self.run {
            return false;
        }
        self.state = match self.state {
            State::Starting | State::On => State::On,
            State::Stopping(_) | State::Off | State::Unknown => State::Off,
        };
        (self.failure, self.ended) = (result.err(), now);
        true
    }

    /// What did not stop is asked to once more.
    pub fn try_again(&mut self) {
        if self.state == State::Off && self.failure.is_some() {
            self.state = State::Unknown;
        }
    }

    /// Whether a stop has ended, well or not.
    pub fn is_off(&self) -> bool {
        self.state == State::Off
    }

    /// What the last run failed by.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// As `status` shows it.
    pub fn name(&self) -> &'static str {
        match (self.state, &self.failure) {
            (State::Unknown, _) => "unknown",
            (State::Off | State::On, Some(_)) => "failed",
            (State::Off, None) => "stopped",
            (State::Starting, _) => "starting",
            (State::On, None) => "running",
            (State::Stopping(_), _) => "stopping",
        }
    }
}

/// Time between two stops of what does not stop.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::{ServiceAction, ServiceOrder, ServiceReason, Services, Wanted};
    use crate::units::{Epoch, Instant};

    fn wanted(action: ServiceAction) -> Wanted {
        Wanted { action, reason: ServiceReason::Manual, epoch: Epoch(4) }
    }

    fn order(services: &mut Services, action: ServiceAction) -> Option<(u64, ServiceAction)> {
        let order = services.settle(Instant(0), wanted(action));
        order.map(|ServiceOrder { run, action, .. }| (run, action))
    }

    #[test]
    fn what_runs_after_a_start_is_stopped_before_anything_is_started() {
        let mut services = Services::default();
        let first = services.settle(Instant(0), wanted(ServiceAction::Start)).expect("an order");
        assert_eq!((first.action, first.reason), (ServiceAction::StopNow, ServiceReason::Start));
        assert_eq!(order(&mut services, ServiceAction::Start), None);
        assert_eq!(order(&mut services, ServiceAction::StopNow), None);
        assert!(services.on_ended(Instant(0), first.run, Ok(())));
        assert_eq!(order(&mut services, ServiceAction::Start), Some((2, ServiceAction::Start)));
    }

    #[test]
    fn a_start_gives_way_to_a_stop_and_a_stop_to_none_but_a_faster_one() {
        let mut services = Services::default();
        assert!(order(&mut services, ServiceAction::Stop).is_some());
        assert!(services.on_ended(Instant(0), 1, Ok(())) && services.is_off());
        assert!(order(&mut services, ServiceAction::Start).is_some());
        assert_eq!(order(&mut services, ServiceAction::Stop), Some((3, ServiceAction::Stop)));
        assert!(!services.on_ended(Instant(0), 2, Ok(())), "the start gave way");
        assert_eq!(order(&mut services, ServiceAction::Start), None);
        assert_eq!(order(&mut services, ServiceAction::StopNow), Some((4, ServiceAction::StopNow)));
        assert_eq!(order(&mut services, ServiceAction::Stop), None);
        assert!(!services.is_off());
        assert!(services.on_ended(Instant(0), 4, Ok(())) && services.is_off());
    }

    #[test]
    fn a_failure_is_told_until_a_later_run_goes_well() {
        let mut services = Services::default();
        assert!(order(&mut services, ServiceAction::StopNow).is_some());
        services.on_ended(Instant(0), 1, Err("it hangs".to_owned()));
        assert_eq!((services.name(), services.failure()), ("failed", Some("it hangs")));
        assert_eq!(order(&mut services, ServiceAction::Stop), None);
        services.try_again();
        assert_eq!(order(&mut services, ServiceAction::Stop), Some((2, ServiceAction::Stop)));
        services.on_ended(Instant(0), 2, Ok(()));
        assert_eq!((services.name(), services.failure()), ("stopped", None));
        services.try_again();
        assert_eq!(order(&mut services, ServiceAction::Stop), None);
    }

    #[test]
    fn what_does_not_stop_where_nobody_serves_is_asked_to_again() {
        let mut services = Services::default();
        assert!(order(&mut services, ServiceAction::StopNow).is_some());
        services.on_ended(Instant(0), 1, Err("it hangs".to_owned()));
        let later = Instant(0).plus(super::REPEAT_AFTER);
        let at =
            |services: &mut Services, now| services.settle(now, wanted(ServiceAction::StopNow));
        assert_eq!(at(&mut services, Instant(1)), None);
        assert_eq!(at(&mut services, later).map(|order| order.run), Some(2));
    }

    #[test]
    fn services_that_stopped_by_themselves_are_started_again() {
        let mut services = Services::default();
        assert!(order(&mut services, ServiceAction::Start).is_some());
        services.on_ended(Instant(0), 1, Ok(()));
        assert!(order(&mut services, ServiceAction::Start).is_some());
        services.on_ended(Instant(0), 2, Ok(()));
        assert_eq!(services.name(), "running");
        assert!(services.on_ended(Instant(0), 0, Ok(())));
        assert_eq!(order(&mut services, ServiceAction::Start), Some((3, ServiceAction::Stop)));
    }
}
