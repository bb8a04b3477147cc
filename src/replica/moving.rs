//! How a resource moves by itself: back to the node that it prefers, and not too often.

use std::time::Duration;

use super::exit::ExitWhy;
use super::operator::Refused;
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion;
use crate::promotion::controller::{Controller, Moving, PeerWord};

impl<M: MapMemory> Replica<M> {
    /// The preferred node is to be primary again: an ordinary switchover that nobody waits for.
    pub(super) fn on_failback(&mut self, effects: &mut Effects) {
        // What an operator began goes on; the controller asks again after as long.
        let is_busy =
            self.role.exit.is_some() || self.verify.compared().is_some() || self.is_resizing();
        if is_busy || !self.role.is_primary() {
            return;
        }
        let refusal = promotion::check_switchover(self.peer_for_promotion()).err();
        let refused = self
            .why_not_asked(ExitWhy::Switchover)
            .or_else(|| refusal.map(|refusal| refusal.to_string()));
        if let Some(why) = refused {
            self.tell_failback_failed(&why);
            return;
        }
        let peer = &self.settings.peer;
        let after = self.moving().and_then(|moving| moving.failback).unwrap_or_default();
        let text =
            format!("{peer} is the preferred node, and nothing has happened for {}", time(after));
        self.event("failback", text);
        self.begin_exit(ExitWhy::Switchover, None, effects);
        if let Some(exit) = &mut self.role.exit {
            exit.is_failback = true;
        }
    }

    pub(super) fn tell_failback_failed(&mut self, why: &str) {
        let after = self.moving().and_then(|moving| moving.failback).unwrap_or_default();
        let text = format!("{why}; the next attempt is after {} without an event", time(after));
        self.event("failback-failed", text);
    }

    /// Tells people when the limit of automatic promotions is reached, and when it holds no more.
    pub(super) fn tell_flapping(&mut self, was_flapping: bool) {
        let Some(controller) = &self.controller else { return };
        let pause = controller.flap_pause();
        let text = match pause {
            Some(pause) if !was_flapping => {
                format!("{}; {}", self.flapped(controller), rest(pause))
            }
            None if was_flapping => "promotions without an operator are allowed again".to_owned(),
            Some(_) | None => return,
        };
        self.event("flap-limit", text);
    }

    /// Why nobody is promoted without an operator now, and what to type.
    pub(super) fn explain_flapping(&self) -> Option<Refused> {
        let controller = self.controller.as_ref()?;
        let pause = controller.flap_pause()?;
        let why = format!("{}; {}", self.flapped(controller), rest(pause));
        let resource = &self.settings.resource;
        let next = if self.is_in_sync() {
            format!(
                "find out why it moves so often: hotpair events; then: hotpair switchover {resource}"
            )
        } else {
            format!("hotpair promote {resource}")
        };
        Some(Refused { why, next })
    }

    /// Where the resource would rather be; nothing if it is there.
    pub(super) fn explain_preference(&self) -> Option<Refused> {
        if self.settings.prefer != Some(self.settings.side.other()) {
            return None;
        }
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let failback = self.moving().and_then(|moving| moving.failback);
        let left = self.controller.as_ref().and_then(|controller| controller.failback_in());
        let when = match (failback, left) {
            (None, _) => format!("{peer} is preferred"),
            (Some(_), Some(left)) => {
                format!(
                    "{peer} is preferred, and becomes primary in {} if nothing happens",
                    time(left)
                )
            }
            (Some(_), None) => {
                format!("{peer} is preferred, and becomes primary once nothing happens")
            }
        };
        let why = format!("in sync; this node serves; {when}");
        Some(Refused { why, next: format!("hotpair switchover {resource}") })
    }

    /// What heartbeats say of this node, beside leases.
    pub fn word_to_peer(&self) -> PeerWord {
        let word = |controller: &Controller| controller.word(&self.facts());
        self.controller.as_deref().map(word).unwrap_or_default()
    }

    fn flapped(&self, controller: &Controller) -> String {
        let count = controller.promotions_counted();
        let limit = self.moving().and_then(|moving| moving.flap_limit);
        let within = limit.map_or(Duration::ZERO, |limit| limit.within);
        let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
        format!(
            "{} was promoted {times} without an operator within {}: `flap_limit`",
            self.settings.resource,
            time(within)
        )
    }

    fn moving(&self) -> Option<Moving> {
        self.settings.controller.as_ref().map(|settings| settings.moving)
    }
}

fn rest(pause: Duration) -> String {
    format!("without one nobody is promoted for another {}", time(pause))
}

/// A time for people: in seconds if it is short, else in minutes.
fn time(span: Duration) -> String {
    let seconds = span.as_secs();
    if seconds < 120 { format!("{seconds} s") } else { format!("{} min", seconds.div_ceil(60)) }
}
