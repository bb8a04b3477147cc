//! What hooks start on each machine. It outlives the process that ordered it, and clients find it
//! there: on two machines at once it is a split brain of its own.

use std::time::Duration;

use fastrand::Rng;
use hotpair::promotion::services::{ServiceAction, ServiceOrder};
use hotpair::replica::Input;

use crate::broken::{Broken, Checked};
use crate::net::Time;
use crate::world::{Event, World, nanos};

/// What hooks do in one seed.
#[derive(Clone, Debug)]
pub(crate) struct ServicesPlan {
    /// Longest that they take to stop at once.
    pub(crate) stop_within: Duration,
    /// Of 100 runs, so many fail.
    pub(crate) failures: u8,
    /// Each takes as long as it may.
    pub(crate) is_slow: bool,
}

impl ServicesPlan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        Self {
            stop_within: Duration::from_millis(*rng.choice(&[300, 1_000, 5_000]).unwrap()),
            failures: *rng.choice(&[0, 0, 5, 30]).unwrap(),
            is_slow: rng.u8(..4) == 0,
        }
    }
}

/// The services of one machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Services {
    /// They may do something.
    run: bool,
    /// The newest order.
    order: Option<ServiceOrder>,
    /// Nobody there could have stopped them: the process was killed or slept, or they did not stop
    /// within their budget.
    excused: bool,
}

impl World {
    /// What hooks do of what the core orders. On the old owner they stop before they start on the new
    /// one: the invariant `StopBeforeStart`.
    pub(crate) fn order_services(&mut self, at: usize, order: ServiceOrder) -> Checked {
        let Some(plan) = self.plan.services.clone() else { return Ok(()) };
        let other = &self.services[1 - at];
        let is_start = order.action == ServiceAction::Start;
        if is_start && other.run && !other.excused && !self.ghost.is_split {
            let detail = format!("node {at} starts services that node {} still runs", 1 - at);
            return Err(Broken::new("StopBeforeStart", detail));
        }
        let mine = &mut self.services[at];
        mine.order = Some(order);
        if is_start {
            (mine.run, mine.excused) = (true, false);
        }
        let fails = self.process_rng.u8(..100) < plan.failures;
        let longest = match order.action {
            ServiceAction::StopNow => nanos(plan.stop_within),
            ServiceAction::Start | ServiceAction::Stop => SLOW,
        };
        // What fails may be what did not end in time.
        let delay =
            if fails || plan.is_slow { longest } else { self.process_rng.u64(1_000_000..longest) };
        self.marks.add(match order.action {
            ServiceAction::Start => "services start",
            ServiceAction::Stop => "services stop",
            ServiceAction::StopNow => "services stop at once",
        });
        let life = self.nodes[at].life;
        self.after(delay, Event::Services { node: at, life, run: order.run, fails });
        Ok(())
    }

    /// A run of hooks came to its end, unless another took its place.
    pub(crate) fn on_services(&mut self, at: usize, run: u64, fails: bool) -> Checked {
        let mine = &mut self.services[at];
        let Some(order) = mine.order.filter(|order| order.run == run) else { return Ok(()) };
        match order.action {
            ServiceAction::Start => {}
            ServiceAction::Stop | ServiceAction::StopNow if !fails => {
                (mine.run, mine.excused) = (false, false);
            }
            ServiceAction::StopNow => mine.excused = true,
            ServiceAction::Stop => {}
        }
        let result = if fails { Err("a hook failed".to_owned()) } else { Ok(()) };
        self.feed(at, Input::ServicesEnded { run, result })
    }

    /// The process there can do nothing about them.
    pub(crate) fn excuse_services(&mut self, at: usize) {
        self.services[at].excused = true;
    }

    /// Without power nothing runs.
    pub(crate) fn services_lose_power(&mut self, at: usize) {
        self.services[at] = Services::default();
    }

    /// A process that slept and serves still has nothing to be excused for.
    pub(crate) fn note_services(&mut self, at: usize) {
        let serves = self.nodes[at]
            .awake()
            .is_some_and(|it| it.core.is_primary() && it.core.may_answer_reads());
        if serves {
            self.services[at].excused = false;
        }
    }

    /// The newest order there.
    pub(crate) fn services_order(&self, at: usize) -> Option<ServiceOrder> {
        self.services[at].order
    }

    /// Whether the services of a machine may do something.
    pub(crate) fn services_run(&self, at: usize) -> bool {
        self.services[at].run
    }
}

/// The slowest run of hooks that is not in a hurry.
const SLOW: Time = 3_000_000_000;
