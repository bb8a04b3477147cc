//! The pledge as the two nodes agree on it: given durably before it is relied upon, and dropped durably
//! before it is lifted (the rule O5 of the design).
//!
//! One flag of the record holds it. On a secondary it means "I do not ask for promotion", on a primary
//! "my peer does not, and I may go on alone by that". The secondary lifts it only when the primary says
//! so, and the primary says so only when its record does not rely on it any more; a secondary that
//! reaches the arbiter asks for that. A Hello says so, too: what a primary does not rely upon when the
//! nodes meet is lifted, and asked for anew.

use super::Effects;
use super::Replica;
use super::records::Change;
use super::session::{SessionPart, Standing};
use crate::metadata::MapMemory;
use crate::promotion::controller::Controller;
use crate::promotion::controller::planted::PlantedRule;
use crate::units::ServeMode;
use crate::wire::message::{Message, Pledge};

/// What was said of it in this session.
#[derive(Clone, Copy, Debug, Default, Hash)]
pub(super) struct PledgeTalk {
    /// What this node asked for last.
    asked: Option<Pledge>,
    /// What the peer asked for last.
    wanted: Option<Pledge>,
    /// The primary: the peer's pledge holds, as far as it was told; `None` if that is as its Hello said.
    is_given: Option<bool>,
    /// The primary: the peer reaches the arbiter.
    is_void: bool,
    /// The secondary: what it said last.
    said: Option<Pledge>,
}

impl<M: MapMemory> Replica<M> {
    /// Goes on with it, one step of the record at a time.
    pub(super) fn pump_pledge(&mut self, effects: &mut Effects) {
        let is_leaving = self.role.exit.as_ref().is_some_and(|exit| !exit.takes_requests());
        if self.controller.is_none() || !self.records.is_idle() || is_leaving {
            return;
        }
        if self.lift_by_hello() {
            return;
        }
        if self.role.is_primary() {
            self.pump_pledge_of_primary(effects);
        } else if self.link.peer_is_primary() {
            self.pump_pledge_of_secondary(effects);
        } else {
            self.pump_pledge_of_equals(effects);
        }
    }

    /// Whether this node looks at the peer's Hello now, and lifts what the peer does not rely upon. Once
    /// for each Hello: what is given afterwards is given anew.
    fn lift_by_hello(&mut self) -> bool {
        let record = self.records.stable();
        let is_given = record.hold && record.owner != Some(self.settings.side);
        if self.link.standing() == Standing::Meeting {
            return false;
        }
        let Some(up) = &mut self.link.up else { return false };
        let Some(theirs) = &up.theirs else { return false };
        let is_new = std::mem::replace(&mut up.pledge_seen, theirs.counter) != theirs.counter;
        let lifts = is_new && is_given && !theirs.hold;
        if lifts {
            self.lift_pledge();
        }
        lifts
    }

    fn lift_pledge(&mut self) {
        self.event("pledge-changed", "this node may be promoted again");
        self.records.change(Change::Pledge(false));
    }

    /// Both have the same, and nobody is primary: nobody relies on anything, but for one whose record
    /// says that it goes on alone. That one resumes, and drops it when they are paired.
    fn pump_pledge_of_equals(&mut self, effects: &mut Effects) {
        let record = self.records.stable();
        let (holds, is_mine) = (record.hold, record.owner == Some(self.settings.side));
        let goes_alone = is_mine && record.serve_mode == ServeMode::Solo;
        let peer_holds = self.link.peer_hello().is_some_and(|hello| hello.hold);
        let Some(session) = self.link.session() else { return };
        if !self.is_in_sync() || goes_alone {
            return;
        }
        let is_let_go = session.pledge.wanted.is_some_and(|wanted| !wanted.on);
        if holds && (is_mine || is_let_go) {
            self.lift_pledge();
        } else if !holds && peer_holds {
            self.ask_for_pledge(false, effects);
        }
    }

    /// Whether neither node is bound by a pledge, as far as this primary knows: else the peer could not
    /// take over.
    pub(super) fn is_free_of_pledges(&self) -> bool {
        let said_before = self.link.peer_hello().is_some_and(|hello| hello.hold);
        let talk = self.link.session().map(|session| session.pledge).unwrap_or_default();
        !self.records.stable().hold && !talk.is_given.unwrap_or(said_before)
    }

    fn misses_arbiter(&self) -> bool {
        self.controller.as_deref().is_some_and(Controller::misses_arbiter)
    }

    fn pump_pledge_of_primary(&mut self, effects: &mut Effects) {
        let record = self.records.stable();
        // One that goes on alone may do so by the pledge: it is dropped when they are paired again.
        if record.serve_mode != ServeMode::Paired || !self.is_in_sync() {
            return;
        }
        let relies = record.hold;
        let said_before = self.link.peer_hello().is_some_and(|hello| hello.hold);
        let Some(session) = self.link.session() else { return };
        let talk = session.pledge;
        // What was said before this session is kept, and not relied upon anew.
        let is_given = talk.is_given.unwrap_or(said_before && relies);
        let wants = self.misses_arbiter() && !talk.is_void;
        let lifts_early = self.has_planted_rule(PlantedRule::PledgeLiftedEarly);
        if relies && (!is_given || !wants) && !lifts_early {
            self.event("pledge-changed", "this node does not go on alone by its peer's pledge");
            self.records.change(Change::Pledge(false));
        } else if !relies && is_given && wants {
            let peer = &self.settings.peer;
            let why = format!("the arbiter is away, and {peer} pledged not to ask for promotion");
            self.event("pledge-changed", why);
            self.records.change(Change::Pledge(true));
        } else if wants && !is_given {
            self.ask_for_pledge(true, effects);
        } else if !wants && (is_given || said_before || talk.asked.is_some_and(|asked| asked.on)) {
            self.ask_for_pledge(false, effects);
        }
    }

    fn ask_for_pledge(&mut self, on: bool, effects: &mut Effects) {
        let Some(session) = self.link.session_mut() else { return };
        let talk = &mut session.pledge;
        if talk.asked.is_some_and(|asked| asked.on == on) {
            return;
        }
        let number = talk.asked.map_or(1, |asked| asked.number.saturating_add(1));
        let pledge = Pledge { number, on };
        talk.asked = Some(pledge);
        if !on {
            (talk.is_given, talk.is_void) = (Some(false), false);
        }
        self.send(Message::Pledge(pledge), effects);
    }

    /// The primary asks for it, or relies on it no more. A primary is asked for none.
    pub(super) fn on_pledge(&mut self, pledge: Pledge) {
        if let Some(session) = self.link.session_mut() {
            session.pledge.wanted = Some(pledge);
        }
    }

    fn pump_pledge_of_secondary(&mut self, effects: &mut Effects) {
        let holds = self.records.stable().hold;
        let misses = self.misses_arbiter();
        let Some(talk) = self.link.session().map(|session| session.pledge) else { return };
        let has_said = talk.said.is_some_and(|said| said.on);
        if holds && has_said && self.has_planted_rule(PlantedRule::PledgeLiftedAlone) {
            self.records.change(Change::Pledge(false));
            return;
        }
        match talk.wanted {
            Some(Pledge { on: false, .. }) if holds => self.lift_pledge(),
            Some(asked @ Pledge { on: true, .. }) if holds && misses => {
                self.say_of_pledge(asked, effects);
            }
            Some(Pledge { on: true, .. }) if misses && self.may_pledge() => {
                let why = "this node pledged not to ask for promotion: the arbiter is away";
                self.event("pledge-changed", why);
                self.records.change(Change::Pledge(true));
            }
            // The arbiter answers this node, which nobody needs to be bound for any more.
            asked if holds && !misses => {
                let number = asked.map_or(0, |asked| asked.number);
                self.say_of_pledge(Pledge { number, on: false }, effects);
            }
            Some(_) | None => {}
        }
    }

    /// Says it once.
    fn say_of_pledge(&mut self, pledge: Pledge, effects: &mut Effects) {
        let Some(session) = self.link.session_mut() else { return };
        if session.pledge.said != Some(pledge) {
            session.pledge.said = Some(pledge);
            self.send(Message::Pledged(pledge), effects);
        }
    }

    /// Nothing is promised while something else is: a promotion that is not settled, a role that comes.
    fn may_pledge(&self) -> bool {
        let is_target = self
            .link
            .session()
            .is_some_and(|session| matches!(session.part, SessionPart::Target(_)));
        is_target
            && self.is_in_sync()
            && self.may_veto()
            && self.records.stable().veto.is_none()
            && self.role.promoting.is_none()
            && self.role.take_over.is_none()
    }

    /// What the secondary says of it.
    pub(super) fn on_pledged(&mut self, pledge: Pledge) {
        let Some(session) = self.link.session_mut() else { return };
        let talk = &mut session.pledge;
        if !pledge.on {
            talk.is_void = true;
        } else if talk.asked == Some(pledge) {
            // An answer to what was asked before the last word was already lifted again.
            talk.is_given = Some(true);
        }
    }

    pub(super) fn has_planted_rule(&self, rule: PlantedRule) -> bool {
        self.settings.controller.as_ref().is_some_and(|settings| settings.is_planted(rule))
    }
}
