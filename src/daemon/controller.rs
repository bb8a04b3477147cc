//! What the controller of one resource needs of the world: the arbiter and two clocks.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use super::arbiter::ArbiterEnds;
use super::timers::Timers;
use crate::arbiter::Order;
use crate::promotion::Clocks;
use crate::promotion::arbiter::{Asked, Request};
use crate::promotion::controller::{Bound, ControllerInput, ControllerTimer};
use crate::replica::Input;
use crate::units::Instant;

/// Its drivers, as the data thread sees them.
#[derive(Debug)]
pub(super) struct ControllerEnds {
    resource: String,
    arbiter: ArbiterEnds,
    timers: Timers,
}

impl ControllerEnds {
    pub(super) fn new(resource: String, arbiter: ArbiterEnds) -> Self {
        Self { resource, arbiter, timers: Timers::default() }
    }

    /// Takes what was said to the controller.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, inputs: &mut VecDeque<Input>) {
        while let Poll::Ready(Some(input)) = self.arbiter.news.poll_recv(cx) {
            inputs.push_back(Input::Controller(input));
        }
    }

    /// A timer that is over. To be looked at before the core is told anything else.
    pub(super) fn fire(&mut self, now: Clocks) -> Option<Input> {
        let timer = self.timers.fire(now)?;
        Some(Input::Controller(ControllerInput::Timer(timer)))
    }

    pub(super) fn set_timer(
        &mut self,
        now: Clocks,
        timer: ControllerTimer,
        from: (Instant, Duration),
        bound: Bound,
    ) {
        self.timers.set(now, timer, from, bound);
    }

    /// Asks the arbiter. Without a connection nothing is asked, and the core asks again.
    pub(super) fn ask(&mut self, now: Clocks, request: Request) {
        self.timers.mark(now);
        let resource = self.resource.clone();
        let _ = self.arbiter.orders.try_send(Order::Ask(Asked { resource, request }));
    }
}
