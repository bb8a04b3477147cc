//! A node's side of promotion by an arbiter: who may serve when one of three is silent.
//!
//! The controller keeps nothing that must survive; it is shown the stable record and the state of
//! the replica ([`Facts`]) before each step, compares them with the arbiter's newest record, and
//! asks for what is missing. What it asks for it asks for again until the facts show it, so a lost
//! reply, a crash and a late message need no rules of their own.
//!
//! Reading order: `facts.rs`, `effect.rs`; `owner.rs` is the primary's part, `candidate.rs` how a
//! secondary is promoted, `fence.rs` what happens to the old owner, `force.rs` how an operator does it
//! against the rules, `lease.rs` who may answer reads, `lost.rs` what an old image of the record may do,
//! `failback.rs` and `flapping.rs` how the role moves back and how often it may move, `pledge.rs` and
//! `give_way.rs` who goes on without the arbiter or the disk, `asking.rs` the requests.

#![deny(clippy::wildcard_enum_match_arm)]

mod asking;
mod candidate;
mod effect;
mod facts;
mod failback;
mod fence;
mod flapping;
mod force;
mod give_way;
mod lease;
mod lost;
mod owner;
pub mod planted;
mod pledge;
mod store;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use effect::{
    Act, ArbiterChange, Bound, ControllerEffect, ControllerInput, ControllerTimer, Obstacle,
    PeerWord, RecordStep, Won,
};
pub use facts::{Facts, Leaving, Standing};
pub use failback::Moving;
pub use fence::FenceUse;
pub use flapping::FlapLimit;

use super::arbiter::{ArbiterRecord, Refused, grant_end};
use super::fencing::Fencing;
use super::grant::Permit;
use crate::units::{ArbiterId, Epoch, Instance, Instant, Role, ServeMode, Side};
use asking::Asking;
use candidate::Candidacy;
use lease::{Leases, Released};
use planted::PlantedRule;

/// What the controller must know of the configuration.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct ControllerSettings {
    /// This node's place in the pair.
    pub side: Side,
    /// `auto` lets this node be promoted without an operator.
    pub promotes: bool,
    /// `promotion.lease`.
    pub lease: Duration,
    /// How long the services of the peer may take to stop once its leases are over; zero if nothing
    /// has to.
    pub stop_budget: Duration,
    /// What the fence command is for, if there is one.
    pub fence: Option<FenceUse>,
    /// How long neither node must have reached the arbiter before the secondary pledges not to ask for
    /// promotion; `None` if it never does.
    pub arbiter_grace: Option<Duration>,
    /// Fingerprints of the keys of both nodes, in order of [`Side`]; zero without TLS.
    pub identities: [[u8; 32]; 2],
    /// How the resource moves by itself, beside a failover.
    pub moving: Moving,
    /// The bug to be found.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<planted::PlantedRule>,
}

impl ControllerSettings {
    fn lease_ms(&self) -> u32 {
        u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX)
    }
}

/// The controller of one resource on one node.
#[derive(Clone, Debug, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Controller {
    settings: ControllerSettings,
    instance: Instance,
    now: Instant,
    asking: Asking,
    /// The newest record of the arbiter that was seen in this run.
    known: Option<Box<ArbiterRecord>>,
    /// It was looked at since this run began and since the last session ended.
    has_looked: bool,
    /// Why the arbiter refused last; `None` if it did not.
    refused: Option<Refused>,
    /// The epoch made by the last `Solo`, as long as nothing was asked since that could make the
    /// peer eligible again.
    solo: Option<Epoch>,
    /// A `Keep` was answered, so no late `Handover` can be granted.
    is_kept: bool,
    /// A `Stop` was asked for, and may be granted late.
    may_be_stopped: bool,
    candidacy: Option<Candidacy>,
    /// A promotion was granted, and the services of the old owner have their time to stop.
    stops_there: bool,
    fencing: Fencing,
    /// The old owner must be fenced before this node serves.
    must_fence: bool,
    leases: Leases,
    /// The time runs after which the arbiter counts as away for long.
    grace_runs: bool,
    misses_arbiter: bool,
    /// This run says, or may come to say, that it serves nothing more up to this epoch.
    gave_way: Option<Epoch>,
    /// What was asked for until then is of no use: the peer counts it as given back.
    gave_way_at: Instant,
    is_silent: bool,
    /// A run of the peer that serves nothing more at any epoch up to this one.
    released: Option<Released>,
    was_session: bool,
    /// The owner has not yet had its time to come back.
    owner_first: bool,
    /// The owner is connected and serves nobody: its time to begin runs.
    waits_for_owner: bool,
    /// That time is over.
    nobody_serves: bool,
    /// By its last beat.
    peer_hears_arbiter: bool,
    /// The store that the stable record named at the last look.
    believed: ArbiterId,
    /// The peer is to be looked for at the arbiter.
    is_peer_due: bool,
    /// The store without a record that the peer has changed to, as that store says.
    peer_store: Option<ArbiterId>,
    quiet: failback::Quiet,
    flapping: flapping::Flapping,
}

impl Controller {
    /// The controller of a node that starts.
    pub fn new(settings: ControllerSettings, instance: Instance, facts: &Facts<'_>) -> Self {
        let granted_before = facts.record.arbitration.lease_ms > 0
            && !settings.is_planted(PlantedRule::GrantsForgotten);
        Self {
            settings,
            instance,
            now: Instant(0),
            asking: Asking::default(),
            known: None,
            has_looked: false,
            refused: None,
            solo: None,
            is_kept: false,
            may_be_stopped: false,
            candidacy: None,
            stops_there: false,
            fencing: Fencing::default(),
            must_fence: false,
            leases: Leases::new(granted_before),
            grace_runs: false,
            misses_arbiter: false,
            gave_way: None,
            gave_way_at: Instant(0),
            is_silent: false,
            released: None,
            was_session: false,
            owner_first: true,
            waits_for_owner: false,
            nobody_serves: false,
            peer_hears_arbiter: false,
            believed: ArbiterId(0),
            is_peer_due: false,
            peer_store: None,
            quiet: failback::Quiet::default(),
            flapping: flapping::Flapping::default(),
        }
    }

    /// The first step.
    pub fn start(&mut self, now: Instant, facts: &Facts<'_>, effects: &mut Vec<ControllerEffect>) {
        self.now = now;
        if self.leases.is_in_hold_down() {
            let after = grant_end(facts.record.arbitration.lease_ms);
            self.set_timer(ControllerTimer::HoldDown, after, Bound::Late, effects);
        }
        let after = (5 * self.settings.lease).max(PREFERENCE_MIN);
        self.set_timer(ControllerTimer::Preference, after, Bound::Late, effects);
        self.settle(now, facts, effects);
    }

    /// Takes one input, and goes on with everything that it makes possible.
    pub fn step(
        &mut self,
        now: Instant,
        input: ControllerInput,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        self.now = now;
        match input {
            ControllerInput::Reply { id, reply } => self.on_reply(id, reply, facts, effects),
            ControllerInput::Pushed(record) => self.on_pushed(record, facts, effects),
            ControllerInput::ArbiterBack => self.on_arbiter_back(effects),
            ControllerInput::Timer(timer) => self.on_timer(timer, facts, effects),
            ControllerInput::Silent(is_silent) => self.is_silent = is_silent,
            ControllerInput::LeaseAsked { instance, epoch } => {
                self.on_lease_asked(instance, epoch, facts, effects);
            }
            ControllerInput::LeaseGranted { asked } => {
                self.on_peer_lease(asked, facts, effects);
            }
            ControllerInput::Released { instance, epoch } => {
                self.on_released(instance, epoch);
            }
            ControllerInput::Fence { run, answer } => {
                self.on_fence_answer(run, answer, facts, effects);
            }
            ControllerInput::PeerTold(word) => {
                self.peer_hears_arbiter = word.hears_arbiter;
                self.on_promotions_told(word, facts);
            }
            ControllerInput::Promote { request } => self.on_promote(request, facts, effects),
            ControllerInput::Force { request, accept_data_loss } => {
                self.on_force(request, accept_data_loss, facts, effects);
            }
        }
        self.settle(now, facts, effects);
    }

    /// Goes on with whatever the facts allow: to be called whenever they may have changed. Each
    /// call asks for at most one change of the record or act, since either changes the facts.
    pub fn settle(&mut self, now: Instant, facts: &Facts<'_>, effects: &mut Vec<ControllerEffect>) {
        self.now = now;
        self.note_store(facts, effects);
        self.note(facts);
        self.note_flapping();
        self.note_quiet(facts);
        self.look_for_service(facts, effects);
        self.count_grace(effects);
        self.settle_candidacy(facts, effects);
        self.settle_fencing(facts);
        if let Some(effect) = self.next_move(facts) {
            if let ControllerEffect::Act(act) = &effect {
                self.on_act(*act);
                self.note_move(*act, facts);
            }
            effects.push(effect);
            return;
        }
        self.ask_for_more(facts, effects);
    }

    /// Whether the peer has no veto against what this node acknowledges alone.
    pub fn permit(&self) -> Option<Permit> {
        let known = self.known.as_deref()?;
        if self.is_silent && self.settings.is_planted(PlantedRule::PeerAssumedDead) {
            return Some(Permit::ArbiterSolo);
        }
        (self.solo == Some(known.epoch) && known.owner == self.settings.side)
            .then_some(Permit::ArbiterSolo)
    }

    /// The lease by which reads are answered, in milliseconds; `None` if there is none, or none is
    /// needed.
    pub fn lease_held(&self, mode: ServeMode) -> Option<u32> {
        let needs_one = matches!(mode, ServeMode::Paired | ServeMode::Gated);
        (needs_one && self.leases.is_held()).then(|| self.settings.lease_ms())
    }

    /// Why the arbiter refused what was asked last; `None` if it did not.
    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// The newest record of the arbiter that this run has seen.
    pub fn known(&self) -> Option<&ArbiterRecord> {
        self.known.as_deref()
    }

    /// Whether a promotion is asked for: then nothing is promised to the peer.
    pub fn is_candidate(&self) -> bool {
        self.candidacy.is_some()
    }

    /// Whether an operator asked for the promotion that is under way.
    pub fn is_operators(&self) -> bool {
        self.candidacy.as_ref().is_some_and(|candidacy| candidacy.request.is_some())
    }

    fn note(&mut self, facts: &Facts<'_>) {
        let is_session = facts.peer.is_session();
        if self.was_session && !is_session {
            self.has_looked = false;
        }
        self.was_session = is_session;
        let follows_or_owns = facts.is_primary || facts.leaving.is_some() || facts.is_promoting;
        if !follows_or_owns {
            self.leases.give_up();
            self.solo = None;
        }
        let is_primary_there = facts.claim.is_some_and(|claim| claim.role == Role::Primary);
        if facts.peer == Standing::InSync && is_primary_there {
            self.owner_first = false; // it had its turn
        }
        if let Some(instance) = facts.peer_instance {
            self.leases.keep_only(instance);
            let served = facts.claim.filter(|_| is_primary_there).map(|claim| claim.epoch);
            self.released = self.released.filter(|it| it.holds_of(instance, served));
        }
    }

    /// An owner that cannot hear the arbiter does not learn that it was made owner, as after a
    /// handover: then the other node takes the resource back.
    fn look_for_service(&mut self, facts: &Facts<'_>, effects: &mut Vec<ControllerEffect>) {
        let serves_here = facts.is_primary || facts.is_promoting || facts.leaving.is_some();
        let is_idle = facts.claim.is_some_and(|claim| claim.role == Role::Secondary)
            && self.known().is_some_and(|it| it.owner != self.settings.side && !it.stopped);
        if serves_here || !is_idle {
            (self.waits_for_owner, self.nobody_serves) = (false, false);
        } else if !self.waits_for_owner {
            self.waits_for_owner = true;
            let after = 3 * self.settings.lease;
            self.set_timer(ControllerTimer::Idle, after, Bound::Late, effects);
        }
    }

    /// The first change of the record, or act, that is due.
    fn next_move(&self, facts: &Facts<'_>) -> Option<ControllerEffect> {
        if facts.is_recording {
            return None;
        }
        if let Some(act) = self.force_act(facts) {
            return Some(ControllerEffect::Act(act));
        }
        if let Some(act) = self.pledged_act(facts) {
            return Some(ControllerEffect::Act(act));
        }
        if let Some(step) = self.store_step(facts) {
            return Some(ControllerEffect::Record(self.change(step, facts)));
        }
        if let Some(known) = self.known.as_deref() {
            if let Some(act) = self.owner_act(known, facts) {
                return Some(ControllerEffect::Act(act));
            }
            if let Some(step) = self.record_step(known, facts) {
                return Some(ControllerEffect::Record(self.change(step, facts)));
            }
            if self.is_failback_due() {
                return Some(ControllerEffect::Act(Act::FailBack));
            }
        } else if let Some(step) = self.follow_step(facts) {
            return Some(ControllerEffect::Record(self.change(step, facts)));
        }
        None
    }

    /// An act is ordered that may count as one of too many, or as one of an operator.
    fn note_move(&mut self, act: Act, facts: &Facts<'_>) {
        match act {
            Act::Promote(_) => self.begin_counting(self.is_operators(), facts.record.owner),
            // As planned.
            Act::TakeOver(_) => self.forget_promotions(),
            Act::FailBack => self.on_failback(),
            Act::Force { .. }
            | Act::Resume
            | Act::StepDown(_)
            | Act::HandedOver
            | Act::TakenBack
            | Act::Stopped => {}
        }
    }

    fn record_step(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> Option<RecordStep> {
        self.lost_step(known, facts)
            .or_else(|| self.settle_step(known, facts))
            .or_else(|| self.follow_step(facts))
            .or_else(|| self.owner_step(known, facts))
            .or_else(|| self.candidate_step(known, facts))
            .or_else(|| self.veto_step(known, facts))
            .or_else(|| {
                let noted = facts.record.arbitration;
                let is_new = known.epoch > noted.epoch
                    || known.arbiter != noted.arbiter
                    || self.settings.lease_ms() > noted.lease_ms
                    || self.is_run_to_be_noted(known, facts);
                is_new.then_some(RecordStep::Learn)
            })
    }

    fn change(&self, step: RecordStep, facts: &Facts<'_>) -> ArbiterChange {
        let noted = facts.record.arbitration;
        let (arbiter, epoch) = match self.known.as_deref() {
            Some(known) => (known.arbiter, known.epoch.max(noted.epoch)),
            None => (noted.arbiter, noted.epoch),
        };
        let arbiter = if let RecordStep::Change(store) = step { store } else { arbiter };
        let lease_ms = noted.lease_ms.max(self.settings.lease_ms());
        let asked_in = self.known.as_deref().and_then(|known| self.noted_run(known, facts));
        ArbiterChange { arbiter, epoch, lease_ms, asked_in, step }
    }

    /// Takes note of the arbiter's record, unless it is another store's or older than what is
    /// known. A node that was made anew believes no store yet.
    fn learn(&mut self, record: Box<ArbiterRecord>, facts: &Facts<'_>) {
        let noted = facts.record.arbitration;
        let is_ours = noted.arbiter == record.arbiter;
        let newest = self.known.as_ref().map_or(noted.epoch, |known| known.epoch);
        if is_ours && record.epoch >= newest {
            self.known = Some(record);
        }
    }

    fn set_timer(
        &self,
        timer: ControllerTimer,
        after: Duration,
        bound: Bound,
        effects: &mut Vec<ControllerEffect>,
    ) {
        effects.push(ControllerEffect::SetTimer { timer, from: self.now, after, bound });
    }
}

/// The least time that an owner has to come back after this node's start.
const PREFERENCE_MIN: Duration = Duration::from_secs(15);
