//! Automatic promotion in a pair without an arbiter: by a fence command, or by silence alone; and what a
//! pair under Pacemaker does by itself, which is not to promote anybody.
//!
//! Two nodes that miss each other see the same. With `auto = "fenced"` only the one whose command
//! confirms that the other is off goes on, so that one serves whatever the network does. With
//! `"heartbeat-only"` both go on: that is split brain whenever they are both alive, and an operator
//! asked for it by name.
//!
//! Under Pacemaker a primary that loses its peer runs the fence command as well, and so does a node before
//! it is promoted while the peer is away: the command keeps Pacemaker from promoting that one while it
//! lacks what is acknowledged here, and fails where the peer did so first. It lifts that when both are the
//! same again: the primary needs its peer then for every acknowledgement, and its stable record says so. A
//! loss after that begins with the command that forbids, and a newer run takes the place of an older one,
//! so what is lifted late is forbidden anew before it matters.
//!
//! What the cluster was told may be unknown to a node that was off then, and that starts with a quorum of its
//! own. So no node is promoted without its peer that only has its copy to show: in this run it was in sync
//! when the peer was lost, or served; or its record says that it served alone when it ended.
//!
//! A node that has just started never promotes itself and never fences: it cannot know what became of
//! the pair while it was away.

use std::time::Duration;

use super::Permit;
use super::controller::planted::PlantedRule;
use super::controller::{
    Act, Bound, ControllerEffect, ControllerInput, ControllerTimer, Facts, Obstacle, Standing,
};
use super::fencing::{FenceAction, FenceAnswer, FenceOrder, FenceStep, Fencing};
use crate::units::{DiskState, Instant, Role, ServeMode, Side};

/// What it must know of the configuration.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct AloneSettings {
    /// This node's place in the pair.
    pub side: Side,
    /// What promotes a secondary.
    pub by: AloneBy,
    /// `heartbeat.suspect_after`.
    pub suspect_after: Duration,
    /// The bug to be found.
    #[cfg(feature = "planted-bugs")]
    pub planted: Option<PlantedRule>,
}

/// What promotes a secondary without an operator and without an arbiter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum AloneBy {
    /// The fence command confirms that the primary is off.
    Fence {
        /// The time that a silent primary has before a secondary fences it.
        delay: Duration,
    },
    /// Every path is silent. Two primaries are possible.
    Silence {
        /// For so long, beyond `suspect_after`.
        lease: Duration,
    },
    /// Pacemaker, through its resource agent. No node promotes itself; a primary that loses its peer
    /// waits for the fence command, as with [`AloneBy::Fence`].
    Pacemaker,
}

impl AloneSettings {
    /// Whether this bug is planted.
    #[cfg(feature = "planted-bugs")]
    fn is_planted(&self, rule: PlantedRule) -> bool {
        self.planted == Some(rule)
    }

    /// Never, in this build.
    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "same shape as with the feature planted-bugs")]
    fn is_planted(&self, _rule: PlantedRule) -> bool {
        false
    }
}

/// One resource on one node of such a pair.
#[derive(Clone, Debug, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Alone {
    settings: AloneSettings,
    now: Instant,
    /// Heartbeats of the peer have stopped.
    is_silent: bool,
    /// When the connection brought something last.
    link_heard: Instant,
    /// This run followed the primary in sync, and has lacked nothing since.
    has_followed: bool,
    /// This run was in sync with the peer, or served, and has lacked nothing since.
    has_all: bool,
    /// The peer was in sync in this run, and nothing was acknowledged without it since.
    peer_has_all: bool,
    fencing: Fencing,
    /// What the runs of the command are for; `None` while there is nothing for it to do.
    fencing_for: Option<FenceAction>,
    /// The peer may be kept from being promoted: by this run, or by one before it.
    may_be_fenced: bool,
    /// A run for [`FenceAction::Fence`] of this daemon may have kept the peer from being promoted.
    has_placed: bool,
    /// The run that was ordered last, until it ends.
    under_way: Option<u64>,
    /// The resource agent waits for the command, to have this node promoted while the peer is away.
    agent_waits: bool,
    /// By silence: the time that the primary has runs, or is over.
    silence: Silence,
    /// Why this primary may acknowledge alone, until the peer is met again.
    permit: Option<Permit>,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Silence {
    No,
    Counted,
    Over,
}

/// What it is shown of its node before each step.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The node as it is now.
    pub facts: Facts<'a>,
    /// This primary holds writes since it has lost the peer, and has no other permit to go on alone.
    pub holds_writes: bool,
    /// When the connection that is there brought something last.
    pub link_heard: Option<Instant>,
    /// A resource agent wants this node promoted, and nothing but the fence command is missing.
    pub agent_waits: bool,
}

/// What such a node waits for while its peer is away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Waits {
    /// For the peer to come back, or to be fenced in a moment.
    ForPeer,
    /// For the fence command that runs.
    ForFence,
    /// For the next run of the fence command; the last one answered this.
    AfterFailure(FenceAnswer),
}

/// One condition of a promotion.
type Guard = (Obstacle, fn(&Alone, &Facts<'_>) -> bool);

/// Every condition of a promotion, in the order in which they are told. Used by `explain`, too, so that
/// the explanation cannot drift from the behaviour.
const GUARDS: &[Guard] = &[
    (Obstacle::Primary, |_, facts| {
        !facts.is_primary && !facts.is_promoting && facts.leaving.is_none()
    }),
    (Obstacle::Stopping, |_, facts| !facts.is_stopping),
    (Obstacle::Stopped, |_, facts| !facts.record.stopped),
    (Obstacle::SplitBrain, |_, facts| !facts.record.split),
    (Obstacle::NotUpToDate, |_, facts| facts.record.disk == DiskState::UpToDate),
    (Obstacle::Vetoed, |_, facts| facts.record.veto.is_none()),
    (Obstacle::PeerAhead, |_, facts| !facts.peer_is_ahead),
    (Obstacle::NotFollowed, |it, facts| {
        if it.is_under_pacemaker() { it.may_serve_without_peer(facts) } else { it.has_followed }
    }),
    (Obstacle::Connected, |_, facts| facts.peer == Standing::Away),
    (Obstacle::PeerHeard, |it, _| it.is_silent_everywhere()),
];

impl Alone {
    /// That of a node that starts.
    pub fn new(settings: AloneSettings) -> Self {
        Self {
            settings,
            now: Instant(0),
            is_silent: false,
            link_heard: Instant(0),
            has_followed: false,
            has_all: false,
            peer_has_all: false,
            fencing: Fencing::default(),
            fencing_for: None,
            may_be_fenced: true,
            has_placed: false,
            under_way: None,
            agent_waits: false,
            silence: Silence::No,
            permit: None,
        }
    }

    /// Takes one input, and goes on with everything that it makes possible.
    pub fn step(
        &mut self,
        now: Instant,
        input: &ControllerInput,
        seen: &Seen<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        self.now = now;
        // What was true before may be void by what has just changed.
        self.note(seen);
        let facts = &seen.facts;
        match input {
            ControllerInput::Silent(is_silent) => self.is_silent = *is_silent,
            ControllerInput::Timer(ControllerTimer::Fence) => {
                let step = self.fencing.on_timer();
                self.take_step(step, facts, effects);
            }
            ControllerInput::Timer(ControllerTimer::Silence) => {
                if self.silence == Silence::Counted {
                    self.silence = Silence::Over;
                }
            }
            ControllerInput::Fence { run, answer } => {
                self.under_way = self.under_way.filter(|it| it != run);
                self.on_answer(*run, *answer, facts, effects);
            }
            // These are an arbiter's, or about leases, which it grants.
            ControllerInput::Timer(_)
            | ControllerInput::Reply { .. }
            | ControllerInput::Pushed(_)
            | ControllerInput::ArbiterBack
            | ControllerInput::LeaseAsked { .. }
            | ControllerInput::LeaseGranted { .. }
            | ControllerInput::Released { .. }
            | ControllerInput::PeerTold(_)
            | ControllerInput::Promote { .. }
            | ControllerInput::Force { .. } => {}
        }
        self.settle(now, seen, effects);
    }

    /// Goes on with whatever the facts allow: to be called whenever they may have changed.
    pub fn settle(&mut self, now: Instant, seen: &Seen<'_>, effects: &mut Vec<ControllerEffect>) {
        self.now = now;
        self.note(seen);
        let facts = &seen.facts;
        if seen.holds_writes && self.permit.is_none() {
            self.exclude_peer(facts, effects);
        }
        if self.may_replace_peer(facts) {
            self.replace_peer(facts, effects);
        }
        let lifts = matches!(self.fencing_for, Some(FenceAction::Unfence | FenceAction::Withdraw));
        if self.agent_waits || lifts {
            let step = self.fencing.begin(Duration::ZERO);
            self.take_step(step, facts, effects);
        }
    }

    /// What the command answered that the resource agent waits for; `None` while it runs.
    pub fn agents_fence(&self) -> Option<Result<FenceAnswer, FenceAnswer>> {
        let confirmed = self.fencing.confirmed().map(Ok);
        confirmed.or_else(|| self.fencing.failed().map(Err)).filter(|_| self.agent_waits)
    }

    /// The resource agent had this node promoted while the peer was away.
    pub fn note_agents_promotion(&mut self) {
        self.permit = Some(Permit::Pacemaker);
    }

    /// Why this primary may acknowledge what the peer lacks.
    pub fn permit(&self) -> Option<Permit> {
        self.permit
    }

    /// Whether two primaries are possible.
    pub fn risks_split_brain(&self) -> bool {
        match self.settings.by {
            AloneBy::Silence { .. } => true,
            AloneBy::Fence { .. } | AloneBy::Pacemaker => false,
        }
    }

    /// Whether Pacemaker says who serves.
    pub fn is_under_pacemaker(&self) -> bool {
        self.settings.by == AloneBy::Pacemaker
    }

    /// What the command answered that was to let the peer be promoted again, if it failed.
    pub fn not_lifted(&self) -> Option<FenceAnswer> {
        self.fencing.failed().filter(|_| self.fencing_for == Some(FenceAction::Unfence))
    }

    /// Whether nothing can be missing here while the peer is away, as far as this node can know it.
    /// Without such a reason Pacemaker's word does not count: its configuration here may be older than
    /// what keeps this node from being promoted.
    pub fn may_serve_without_peer(&self, facts: &Facts<'_>) -> bool {
        self.has_all || self.served_alone(facts) || facts.record.peer_replica_id.0 == 0
    }

    /// Whether the record says that this node serves alone, or did so when its run ended: the peer cannot
    /// have been promoted since, as that lacks what was written.
    fn served_alone(&self, facts: &Facts<'_>) -> bool {
        facts.record.owner == Some(self.settings.side) && facts.record.serve_mode == ServeMode::Solo
    }

    /// Whether this secondary may take the primary's place by itself, now.
    fn may_replace_peer(&self, facts: &Facts<'_>) -> bool {
        !self.is_under_pacemaker() && self.obstacle(facts).is_none()
    }

    /// The first thing that stands in the way of an automatic promotion.
    pub fn obstacle(&self, facts: &Facts<'_>) -> Option<Obstacle> {
        let fails = |(_, holds): &&Guard| !holds(self, facts);
        GUARDS.iter().find(fails).map(|(obstacle, _)| *obstacle)
    }

    /// What would stand in the way if the primary were lost now. Pacemaker knows itself what it stopped.
    pub fn obstacle_after_loss(&self, facts: &Facts<'_>) -> Option<Obstacle> {
        let is_pacemakers = self.is_under_pacemaker();
        let lasts = |(obstacle, _): &&Guard| {
            let passes = matches!(obstacle, Obstacle::Connected | Obstacle::PeerHeard);
            !(passes || *obstacle == Obstacle::Stopped && is_pacemakers)
        };
        let fails = |(_, holds): &&Guard| !holds(self, facts);
        GUARDS.iter().filter(lasts).find(fails).map(|(obstacle, _)| *obstacle)
    }

    /// What this node waits for while the peer is away.
    pub fn waits(&self) -> Waits {
        match self.fencing.failed() {
            _ if self.fencing.is_running() => Waits::ForFence,
            Some(answer) => Waits::AfterFailure(answer),
            None => Waits::ForPeer,
        }
    }

    /// Whether neither heartbeats nor the connection have brought anything for `suspect_after`.
    fn is_silent_everywhere(&self) -> bool {
        self.is_silent && self.now.since(self.link_heard) >= self.settings.suspect_after
    }

    fn note(&mut self, seen: &Seen<'_>) {
        let (facts, holds) = (&seen.facts, seen.holds_writes);
        self.link_heard = seen.link_heard.unwrap_or(self.link_heard);
        let is_primary_there = facts.claim.is_some_and(|claim| claim.role == Role::Primary);
        match facts.peer {
            Standing::InSync => self.has_followed = is_primary_there && !facts.is_primary,
            Standing::Behind | Standing::Apart => self.has_followed = false,
            // A primary cannot have gone on without this node unless it vetoed itself or was off.
            Standing::Away | Standing::Meeting | Standing::Needed => {
                self.has_followed &= !facts.is_primary;
            }
        }
        self.note_copies(facts);
        if facts.peer != Standing::Away || !facts.is_primary {
            // What is known of a peer that is gone says nothing of one that is back.
            self.permit = None;
        }
        if self.permit == Some(Permit::AssumedDead) && holds && !self.is_silent_everywhere() {
            self.permit = None;
        }
        let is_open = self.may_replace_peer(facts);
        if !is_open {
            self.silence = Silence::No;
        }
        self.agent_waits = seen.agent_waits;
        let wanted = if is_open || self.agent_waits || holds && facts.peer == Standing::Away {
            Some(FenceAction::Fence)
        } else if self.lifts_fence(facts) {
            Some(FenceAction::Unfence)
        } else if self.withdraws(facts) {
            Some(FenceAction::Withdraw)
        } else {
            None
        };
        if wanted.is_none() || wanted != self.fencing_for {
            self.fencing.stop();
            self.fencing_for = wanted;
        }
    }

    /// What is known of both copies.
    fn note_copies(&mut self, facts: &Facts<'_>) {
        match facts.peer {
            Standing::InSync => (self.has_all, self.peer_has_all) = (true, true),
            Standing::Behind | Standing::Apart => {
                (self.has_all, self.peer_has_all) = (false, false);
            }
            Standing::Away | Standing::Meeting | Standing::Needed => {}
        }
        self.has_all |= facts.is_primary;
        if self.served_alone(facts) || self.permit.is_some() {
            self.peer_has_all = false;
        }
    }

    /// Whether what this node had placed is for nothing: it was neither promoted nor went on alone. It
    /// waits for the run to end, which might place it after this one looked.
    fn withdraws(&self, facts: &Facts<'_>) -> bool {
        self.is_under_pacemaker()
            && self.has_placed
            && self.peer_has_all
            && !facts.is_primary
            && !facts.is_promoting
            && !facts.is_recording
            && (self.under_way.is_none() || self.fencing_for == Some(FenceAction::Withdraw))
    }

    /// Whether the peer may be promoted again: it has every acknowledged write, and from here on every
    /// acknowledgement needs it, by the stable record.
    fn lifts_fence(&self, facts: &Facts<'_>) -> bool {
        self.is_under_pacemaker()
            && self.may_be_fenced
            && facts.is_primary
            && facts.peer == Standing::InSync
            && facts.record.serve_mode == ServeMode::Paired
            && facts.leaving.is_none()
    }

    /// A primary that lost the secondary: it must not be promoted, or not be able to.
    fn exclude_peer(&mut self, facts: &Facts<'_>, effects: &mut Vec<ControllerEffect>) {
        if facts.peer != Standing::Away {
            return;
        }
        let assumes = match self.settings.by {
            AloneBy::Silence { .. } => true,
            AloneBy::Fence { .. } | AloneBy::Pacemaker => {
                self.settings.is_planted(PlantedRule::PeerAssumedDead)
            }
        };
        if assumes {
            if self.is_silent_everywhere() {
                self.permit = Some(Permit::AssumedDead);
                let reason = "every path to the peer is silent, and it is taken for dead: two \
                              primaries are possible";
                tell("peer-assumed-dead", reason.to_owned(), effects);
            }
            return;
        }
        // A connection that breaks while heartbeats go on comes back in a moment; a secondary waits
        // longer before it fences.
        let mut step = self.fencing.begin(self.settings.suspect_after);
        if self.is_silent_everywhere() {
            step = self.fencing.hurry().or(step);
        }
        self.take_step(step, facts, effects);
        if let Some(answer) = self.fencing.confirmed() {
            self.permit = Some(Permit::Fenced);
            let reason =
                format!("writes go on without the peer; the fence command ended with {answer}");
            tell("fenced", reason, effects);
        }
    }

    /// A secondary that lost the primary, and may take its place.
    fn replace_peer(&mut self, facts: &Facts<'_>, effects: &mut Vec<ControllerEffect>) {
        match self.settings.by {
            AloneBy::Pacemaker => {}
            AloneBy::Fence { .. } if self.settings.is_planted(PlantedRule::PromotedBySilence) => {
                self.promote(facts, effects);
            }
            AloneBy::Fence { delay } => {
                let step = self.fencing.begin(delay);
                self.take_step(step, facts, effects);
                if let Some(answer) = self.fencing.confirmed()
                    && self.promote(facts, effects)
                {
                    let reason =
                        format!("this node takes over; the fence command ended with {answer}");
                    tell("fenced", reason, effects);
                }
            }
            AloneBy::Silence { lease } => match self.silence {
                Silence::No => {
                    self.silence = Silence::Counted;
                    self.set_timer(ControllerTimer::Silence, lease, effects);
                }
                Silence::Counted => {}
                Silence::Over => {
                    if self.promote(facts, effects) {
                        let reason = "this node takes over, since every path to the primary is \
                                      silent: two primaries are possible";
                        tell("peer-assumed-dead", reason.to_owned(), effects);
                    }
                }
            },
        }
    }

    /// Orders the promotion, unless the record is about to change, or has to be seen first.
    fn promote(&self, facts: &Facts<'_>, effects: &mut Vec<ControllerEffect>) -> bool {
        if facts.is_recording {
            return false;
        }
        let epoch = facts.record.epoch.max(facts.record.promised).next_by(self.settings.side);
        effects.push(ControllerEffect::Act(Act::Promote(epoch)));
        true
    }

    fn on_answer(
        &mut self,
        run: u64,
        answer: FenceAnswer,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        if matches!(self.fencing_for, Some(FenceAction::Unfence | FenceAction::Withdraw)) {
            return self.on_lifted(run, answer, facts, effects);
        }
        let takes_any = self.settings.is_planted(PlantedRule::UnreachableIsOff);
        let is_primary = facts.is_primary;
        let is_enough_alone = is_primary || self.agent_waits;
        let is_enough = |answer: FenceAnswer| {
            takes_any || answer.is_off() || is_enough_alone && answer.is_no_candidate()
        };
        if let Some(Err(step)) = self.fencing.on_answer(run, answer, is_enough) {
            let goes_on = if is_primary { "writes stay held" } else { "this node stays secondary" };
            tell(
                "fence-failed",
                format!("the fence command ended with {answer}; {goes_on}"),
                effects,
            );
            self.take_step(Some(step), facts, effects);
        }
    }

    /// A run ended that was to let the peer be promoted again.
    fn on_lifted(
        &mut self,
        run: u64,
        answer: FenceAnswer,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        match self.fencing.on_answer(run, answer, FenceAnswer::is_lifted) {
            None => {}
            Some(Ok(())) => {
                let reason = if self.fencing_for == Some(FenceAction::Withdraw) {
                    "nothing was written without the peer, and Pacemaker may promote either node"
                } else {
                    self.may_be_fenced = false;
                    "the peer has everything again, and Pacemaker may promote it"
                };
                self.has_placed = false;
                self.fencing_for = None;
                self.fencing.stop();
                tell("unfenced", reason.to_owned(), effects);
            }
            Some(Err(step)) => {
                let how = answer.ended();
                let reason = format!(
                    "the fence command {how}, and was to let the peer be promoted again: Pacemaker does \
                     not promote it before that"
                );
                tell("fence-failed", reason, effects);
                self.take_step(Some(step), facts, effects);
            }
        }
    }

    fn take_step(
        &mut self,
        step: Option<FenceStep>,
        facts: &Facts<'_>,
        effects: &mut Vec<ControllerEffect>,
    ) {
        match step {
            None => {}
            Some(FenceStep::Wait(after)) => self.set_timer(ControllerTimer::Fence, after, effects),
            Some(FenceStep::Run(run)) => {
                let action = self.fencing_for.unwrap_or(FenceAction::Fence);
                self.under_way = Some(run);
                if action == FenceAction::Fence {
                    (self.may_be_fenced, self.has_placed) = (true, true);
                    tell("fencing", "the peer is lost: the fence command runs".to_owned(), effects);
                }
                let epoch = facts.record.epoch;
                effects.push(ControllerEffect::Fence(FenceOrder { action, run, epoch }));
            }
        }
    }

    fn set_timer(
        &self,
        timer: ControllerTimer,
        after: Duration,
        effects: &mut Vec<ControllerEffect>,
    ) {
        let (from, bound) = (self.now, Bound::Late);
        effects.push(ControllerEffect::SetTimer { timer, from, after, bound });
    }
}

fn tell(kind: &'static str, reason: String, effects: &mut Vec<ControllerEffect>) {
    effects.push(ControllerEffect::Event { kind, reason });
}

#[cfg(test)]
mod tests;
