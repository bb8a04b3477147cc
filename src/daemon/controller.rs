//! What the controller of one resource needs of the world: the arbiter, heartbeats and two clocks.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use super::arbiter::ArbiterEnds;
use super::fence::FenceEnds;
use super::heartbeat::HeartbeatEnds;
use super::timers::Timers;
use crate::arbiter::Order;
use crate::heartbeat::{Advert, HeartbeatNews};
use crate::hooks::{FenceNews, Lease};
use crate::promotion::Clocks;
use crate::promotion::arbiter::{Asked, Request};
use crate::promotion::controller::{ControllerInput, ControllerTimer};
use crate::replica::{Effect, Input, Replica};
use crate::store::MappedMap;
use crate::units::{DiskState, Instance, Instant, ServeMode};

/// Its drivers, as the data thread sees them.
#[derive(Debug)]
pub(super) struct ControllerEnds {
    resource: String,
    arbiter: Option<ArbiterEnds>,
    heartbeat: HeartbeatEnds,
    fence: Option<FenceEnds>,
    /// The run of the peer that asked for a lease last, and in which tick.
    asked: (Instance, u64),
    timers: Timers,
}

impl ControllerEnds {
    pub(super) fn new(
        resource: String,
        arbiter: Option<ArbiterEnds>,
        heartbeat: HeartbeatEnds,
        fence: Option<FenceEnds>,
    ) -> Self {
        let (asked, timers) = ((Instance(0), 0), Timers::default());
        Self { resource, arbiter, heartbeat, fence, asked, timers }
    }

    /// Takes what was said to the controller.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, inputs: &mut VecDeque<Input>) {
        while let Some(arbiter) = &mut self.arbiter
            && let Poll::Ready(Some(input)) = arbiter.news.poll_recv(cx)
        {
            inputs.push_back(Input::Controller(input));
        }
        while let Poll::Ready(Some(news)) = self.heartbeat.news.poll_recv(cx) {
            inputs.push_back(Input::Controller(self.heard(news)));
        }
    }

    /// What became of the fence command.
    pub(super) fn poll_fence(&mut self, cx: &mut Context<'_>) -> Poll<FenceNews> {
        self.fence.as_mut().map_or(Poll::Pending, |fence| fence.poll(cx))
    }

    fn heard(&mut self, news: HeartbeatNews) -> ControllerInput {
        match news {
            HeartbeatNews::Silent(is_silent) => ControllerInput::Silent(is_silent),
            HeartbeatNews::LeaseAsked { instance, epoch, tick } => {
                self.asked = (instance, tick);
                ControllerInput::LeaseAsked { instance, epoch }
            }
            HeartbeatNews::LeaseGranted { asked } => {
                self.timers.mark(asked);
                ControllerInput::LeaseGranted { asked: asked.boottime }
            }
            HeartbeatNews::Word(word) => ControllerInput::PeerTold(word),
            HeartbeatNews::Released { instance, epoch } => {
                ControllerInput::Released { instance, epoch }
            }
        }
    }

    /// The peer's request for a lease is granted: the next beat says so.
    fn grant_lease(&mut self, to: Instance) {
        // Another run has asked meanwhile: it is not the one that is granted something.
        if self.asked.0 == to {
            let granted = self.asked;
            self.heartbeat.advert.send_modify(|advert| advert.granted = granted);
        }
    }

    /// What beats say of the resource from here on.
    pub(super) fn advertise(&mut self, core: &Replica<MappedMap>) {
        let (record, word) = (core.superblock(), core.word_to_peer());
        let mut has_new_epoch = false;
        self.heartbeat.advert.send_if_modified(|advert| {
            let new = Advert {
                epoch: record.epoch,
                promised: record.promised,
                wants_lease: core.wants_lease(),
                is_primary: core.is_primary(),
                is_solo: record.serve_mode == ServeMode::Solo,
                has_veto: record.veto.is_some(),
                is_stopped: record.stopped,
                is_split: record.split,
                is_up_to_date: record.disk == DiskState::UpToDate,
                granted: advert.granted,
                promotions: word.promotions,
                hears_arbiter: word.hears_arbiter,
                released: core.released(),
                alive: advert.alive,
            };
            let is_new = *advert != new;
            has_new_epoch = (advert.epoch, advert.released) != (new.epoch, new.released);
            *advert = new;
            is_new
        });
        if has_new_epoch {
            self.heartbeat.epochs.notify_one();
        }
    }

    /// How long this node serves without a further word.
    pub(super) fn lease(&self, core: &Replica<MappedMap>) -> Lease {
        let held = [ControllerTimer::ArbiterLease, ControllerTimer::PeerLease];
        Lease { is_needed: core.needs_lease(), held: held.map(|timer| self.timers.end_of(timer)) }
    }

    /// The data thread runs.
    pub(super) fn is_alive(&mut self, now: Instant) {
        self.heartbeat.advert.send_modify(|advert| advert.alive = now);
    }

    /// The nodes have a session: both know this of it, and nobody else does.
    pub(super) fn new_session(&mut self, exporter: [u8; 32]) {
        if let Some(sessions) = &self.heartbeat.sessions {
            // One that is not taken brings no secret; another one will.
            let _ = sessions.try_send(exporter);
        }
    }

    /// A timer that is over. To be looked at before the core is told anything else.
    pub(super) fn fire(&mut self, now: Clocks) -> Option<Input> {
        let timer = self.timers.fire(now)?;
        Some(Input::Controller(ControllerInput::Timer(timer)))
    }

    /// Carries out what the core wants of the arbiter, the peer or the clocks.
    pub(super) fn carry_out(&mut self, now: Clocks, effect: Effect) {
        match effect {
            Effect::AskArbiter(request) => self.ask(now, *request),
            Effect::SetTimer { timer, from, after, bound } => {
                self.timers.set(now, timer, (from, after), bound);
            }
            Effect::GrantLease(to) => self.grant_lease(to),
            Effect::Fence(order) => {
                if let Some(fence) = &self.fence {
                    fence.order(order);
                }
            }
            other => unreachable!("the data thread keeps {other:?} for itself"),
        }
    }

    /// Asks the arbiter. Without a connection nothing is asked, and the core asks again.
    fn ask(&mut self, now: Clocks, request: Request) {
        self.timers.mark(now);
        let resource = self.resource.clone();
        if let Some(arbiter) = &self.arbiter {
            let _ = arbiter.orders.try_send(Order::Ask(Asked { resource, request }));
        }
    }
}
