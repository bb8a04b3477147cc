//! What the controller asks, promises and orders, step by step.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use super::{
    Act, ArbiterChange, Controller, ControllerEffect, ControllerInput, ControllerSettings,
    ControllerTimer, Facts, Leaving, Moving, Obstacle, RecordStep, Standing,
};
use crate::metadata::{Arbitration, Asked, Birth, Newborn, Place, Superblock, recovered_at_birth};
use crate::promotion::arbiter::{
    ArbiterRecord, Eligible, Operation, Refused, Reply, Request, RequestId, View,
};
use crate::promotion::{Claim, Permit};
use crate::units::{
    ArbiterId, Epoch, Generation, Instance, Instant, ReplicaId, ResourceId, ResourceSize, Role,
    ServeMode, Side, Veto, VetoReason,
};

mod fenced;
mod forced;
mod give_way;
mod moving;

const ME: Instance = Instance(1);
const PEER: Instance = Instance(2);

/// The second node of a pair that is in sync at epoch 4, and what it sees.
struct Node {
    controller: Controller,
    record: Superblock,
    peer: Standing,
    claim: Option<Claim>,
    is_primary: bool,
    is_stopping: bool,
    leaving: Option<Leaving>,
    effects: Vec<ControllerEffect>,
}

impl Node {
    /// It followed the primary, has looked at the arbiter's record, and waits for nothing.
    fn secondary() -> Self {
        let mut node = Self::new(Side::First, ServeMode::None, Standing::InSync);
        node.claim = Some(Claim { role: Role::Primary, epoch: Epoch(4), promised: Epoch(4) });
        node.tell(ControllerInput::Timer(ControllerTimer::HoldDown));
        node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
        node
    }

    /// It is primary and has a lease.
    fn primary() -> Self {
        let mut node = Self::new(Side::Second, ServeMode::Paired, Standing::InSync);
        node.is_primary = true;
        node.tell(ControllerInput::Timer(ControllerTimer::HoldDown));
        let record = Box::new(arbiter_record(4, Side::Second, Eligible::Both));
        node.answer(Reply::View(Box::new(view(*record.clone(), Ok(())))));
        node.tell(ControllerInput::Timer(ControllerTimer::Look));
        node.answer(Reply::Lease { lease_ms: 3000, record });
        node
    }

    fn new(owner: Side, serve_mode: ServeMode, peer: Standing) -> Self {
        let newborn = Newborn {
            resource_id: ResourceId(1),
            replica_id: ReplicaId(2),
            generation_id: 3,
            size: ResourceSize::new(4096).unwrap(),
            place: Place::default(),
        };
        let born = recovered_at_birth(Birth::This, &newborn).superblock;
        let mut record = Superblock {
            peer_replica_id: ReplicaId(9),
            owner: Some(owner),
            serve_mode,
            epoch: Epoch(4),
            promised: Epoch(4),
            ..born
        };
        record.arbitration.arbiter = ArbiterId(7);
        record.arbitration.epoch = Epoch(4);
        record.arbitration.lease_ms = 3000;
        let settings = ControllerSettings {
            side: Side::Second,
            promotes: true,
            lease: Duration::from_secs(3),
            stop_budget: Duration::ZERO,
            fence: None,
            arbiter_grace: None,
            identities: [[0; 32]; 2],
            moving: Moving::default(),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        };
        let facts = facts_of(&record, peer, None, false, None);
        let mut controller = Controller::new(settings, ME, &facts);
        let mut effects = Vec::new();
        controller.start(Instant(0), &facts, &mut effects);
        let (claim, is_primary, is_stopping, leaving) = (None, false, false, None);
        Self { controller, record, peer, claim, is_primary, is_stopping, leaving, effects }
    }

    fn facts(&self) -> Facts<'_> {
        let facts = facts_of(&self.record, self.peer, self.claim, self.is_primary, self.leaving);
        Facts { is_stopping: self.is_stopping, ..facts }
    }

    fn tell(&mut self, input: ControllerInput) {
        let mut controller = self.controller.clone();
        let mut effects = Vec::new();
        controller.step(Instant(0), input, &self.facts(), &mut effects);
        self.controller = controller;
        self.take(effects);
    }

    /// Records what it wants recorded, until it wants nothing more.
    fn take(&mut self, effects: Vec<ControllerEffect>) {
        let changes: Vec<ArbiterChange> = effects
            .iter()
            .filter_map(|effect| {
                if let ControllerEffect::Record(change) = effect { Some(*change) } else { None }
            })
            .collect();
        self.effects.extend(effects);
        for change in changes {
            self.record.arbitration.arbiter = change.arbiter;
            self.record.arbitration.epoch = change.epoch;
            self.record.arbitration.lease_ms = change.lease_ms;
            if let Some(run) = change.asked_in {
                self.record.instances.retain(|instance| *instance != run);
                self.record.instances.insert(1, run);
            }
            match change.step {
                RecordStep::Promise(asked) => {
                    self.record.promised = asked.last;
                    self.record.arbitration.asked = Some(asked);
                }
                RecordStep::Settle => self.record.arbitration.asked = None,
                RecordStep::Follow(epoch) => self.record.promised = epoch,
                RecordStep::Adopt => {
                    (self.record.epoch, self.record.promised) = (change.epoch, change.epoch);
                    self.record.serve_mode = ServeMode::Paired;
                }
                RecordStep::Veto(reason) => {
                    self.record.veto = Some(Veto { reason, epoch: change.epoch });
                }
                RecordStep::LiftVeto => self.record.veto = None,
                RecordStep::Learn | RecordStep::Change(_) => {}
            }
            self.look();
        }
    }

    /// The facts may have changed.
    fn look(&mut self) {
        let mut controller = self.controller.clone();
        let mut effects = Vec::new();
        controller.settle(Instant(0), &self.facts(), &mut effects);
        self.controller = controller;
        self.take(effects);
    }

    /// The peer is lost and silent.
    fn lose_peer(&mut self) {
        (self.peer, self.claim) = (Standing::Away, None);
        self.tell(ControllerInput::Silent(true));
        // What it looks at first is whether the record has changed.
        if matches!(self.asked().operation, Operation::Read) {
            let known = self.controller.known().unwrap().clone();
            self.answer_view(known, Ok(()));
        }
    }

    /// The last request.
    fn asked(&self) -> Request {
        let asks = self.effects.iter().rev().find_map(|effect| {
            if let ControllerEffect::Ask(request) = effect { Some(request) } else { None }
        });
        (**asks.unwrap()).clone()
    }

    fn answer(&mut self, reply: Reply) {
        let id = self.asked().id;
        self.tell(ControllerInput::Reply { id, reply });
    }

    fn answer_view(&mut self, record: ArbiterRecord, promotion: Result<(), Refused>) {
        self.answer(Reply::View(Box::new(view(record, promotion))));
    }

    fn has_acted(&self, act: Act) -> bool {
        self.effects.contains(&ControllerEffect::Act(act))
    }

    fn has_granted(&self) -> bool {
        self.effects.iter().any(|it| matches!(it, ControllerEffect::GrantLease(_)))
    }

    fn has_asked_for_promotion(&self) -> bool {
        matches!(self.asked().operation, Operation::Promote { .. })
    }
}

fn facts_of(
    record: &Superblock,
    peer: Standing,
    claim: Option<Claim>,
    is_primary: bool,
    leaving: Option<Leaving>,
) -> Facts<'_> {
    Facts {
        record,
        is_recording: false,
        is_primary,
        is_disk_unfit: false,
        is_promoting: false,
        peer,
        claim,
        said: None,
        peer_cannot_serve: false,
        peer_is_ahead: false,
        peer_instance: claim.map(|_| PEER),
        is_stopping: false,
        leaving,
    }
}

fn arbiter_record(epoch: u64, owner: Side, eligible: Eligible) -> ArbiterRecord {
    ArbiterRecord {
        arbiter: ArbiterId(7),
        epoch: Epoch(epoch),
        owner,
        eligible,
        generation: Generation { number: 1, id: 3 },
        lease_ms: 3000,
        stopped: false,
        forced: false,
        identities: [[0; 32]; 2],
        requests: [RequestId::default(); 2],
        changed_by: Side::First,
    }
}

fn view(record: ArbiterRecord, promotion: Result<(), Refused>) -> View {
    View { promotion, lease_remaining_ms: 0, owner_last_seen_ms: None, record }
}

fn granted(node: &Node, epoch: u64) -> Box<ArbiterRecord> {
    let mut record = arbiter_record(epoch, Side::Second, Eligible::Owner);
    record.requests[1] = node.asked().id;
    record.changed_by = Side::Second;
    Box::new(record)
}

#[test]
fn a_candidate_looks_promises_asks_and_then_serves() {
    let mut node = Node::secondary();
    node.lose_peer();
    assert!(matches!(node.asked().operation, Operation::PreVote { .. }));
    let both = arbiter_record(4, Side::First, Eligible::Both);
    node.answer_view(both, Ok(()));
    assert_eq!(node.record.promised, Epoch(8));
    assert_eq!(node.record.arbitration.asked, Some(Asked { first: Epoch(8), last: Epoch(8) }));
    assert!(node.has_asked_for_promotion());
    let record = granted(&node, 8);
    node.answer(Reply::Done(record));
    assert!(node.has_acted(Act::Promote(Epoch(8))));
}

#[test]
fn the_record_that_is_pushed_is_the_answer_too() {
    let mut node = Node::secondary();
    node.lose_peer();
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
    let record = granted(&node, 8);
    node.tell(ControllerInput::Pushed(record));
    assert!(node.has_acted(Act::Promote(Epoch(8))));
    // A record of this node that another request made is none.
    let mut node = Node::secondary();
    node.lose_peer();
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
    node.tell(ControllerInput::Pushed(Box::new(arbiter_record(8, Side::Second, Eligible::Owner))));
    assert!(!node.has_acted(Act::Promote(Epoch(8))));
}

#[test]
fn nobody_asks_while_a_lease_of_its_own_may_hold() {
    let mut node = Node::secondary();
    node.tell(ControllerInput::LeaseAsked { instance: PEER, epoch: Epoch(4) });
    assert!(node.has_granted());
    node.lose_peer();
    assert_eq!(node.controller.obstacle(&node.facts(), false), Some(Obstacle::GrantHeld));
    assert!(!matches!(node.asked().operation, Operation::PreVote { .. }));
    // A release ends it at once, the timer after its time.
    let mut released = Node { ..node };
    let released_lease = ControllerInput::Released { instance: PEER, epoch: Epoch(4) };
    released.tell(released_lease);
    assert!(matches!(released.asked().operation, Operation::PreVote { .. }));
}

#[test]
fn a_release_that_comes_after_a_refusal_is_used_at_once() {
    let mut node = Node::secondary();
    node.lose_peer();
    let held = Err(Refused::LeaseHeld);
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), held);
    assert!(!node.has_asked_for_promotion(), "the lease is not over");
    node.tell(ControllerInput::Released { instance: PEER, epoch: Epoch(4) });
    assert!(matches!(node.asked().operation, Operation::PreVote { .. }));
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), held);
    assert!(node.has_asked_for_promotion(), "of a run that is dead");
}

#[test]
fn a_release_ends_only_what_was_granted_up_to_its_epoch() {
    let mut node = Node::secondary();
    node.tell(ControllerInput::LeaseAsked { instance: PEER, epoch: Epoch(8) });
    node.lose_peer();
    let obstacle = |node: &Node| node.controller.obstacle(&node.facts(), false);
    node.tell(ControllerInput::Released { instance: PEER, epoch: Epoch(4) });
    assert_eq!(obstacle(&node), Some(Obstacle::GrantHeld), "it serves at 8");
    node.tell(ControllerInput::Released { instance: PEER, epoch: Epoch(8) });
    assert_ne!(obstacle(&node), Some(Obstacle::GrantHeld));
    // An older one that comes late takes nothing back.
    node.tell(ControllerInput::Released { instance: PEER, epoch: Epoch(4) });
    node.tell(ControllerInput::Silent(false));
    assert_ne!(obstacle(&node), Some(Obstacle::PeerHeard));
}

#[test]
fn a_run_that_was_released_and_serves_again_is_not_released() {
    let serves_again: [fn(&mut Node); 2] = [
        |node| {
            let epoch = Epoch(8);
            node.claim = Some(Claim { role: Role::Primary, epoch, promised: epoch });
            node.look();
        },
        |node| {
            node.tell(ControllerInput::LeaseAsked { instance: PEER, epoch: Epoch(8) });
            node.tell(ControllerInput::Timer(ControllerTimer::Grant));
        },
    ];
    for serves_again in serves_again {
        let mut node = Node::secondary();
        node.tell(ControllerInput::Released { instance: PEER, epoch: Epoch(4) });
        serves_again(&mut node);
        (node.peer, node.claim) = (Standing::Away, None);
        node.look();
        assert_eq!(node.controller.obstacle(&node.facts(), false), Some(Obstacle::PeerHeard));
    }
}

#[test]
fn a_release_of_an_older_epoch_than_the_record_is_no_silence() {
    let mut node = Node::secondary();
    node.tell(ControllerInput::Pushed(Box::new(arbiter_record(8, Side::First, Eligible::Both))));
    (node.peer, node.claim) = (Standing::Away, None);
    node.tell(ControllerInput::Released { instance: PEER, epoch: Epoch(4) });
    assert_eq!(node.controller.obstacle(&node.facts(), false), Some(Obstacle::PeerHeard));
}

#[test]
fn a_candidate_grants_no_lease() {
    let mut node = Node::secondary();
    node.lose_peer();
    node.effects.clear();
    node.tell(ControllerInput::LeaseAsked { instance: PEER, epoch: Epoch(4) });
    assert!(!node.has_granted());
}

#[test]
fn a_late_grant_to_one_that_follows_again_is_not_used() {
    let mut node = Node::secondary();
    node.lose_peer();
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
    let late = granted(&node, 8);
    let id = node.asked().id;
    // The primary lives.
    node.peer = Standing::Meeting;
    node.claim = Some(Claim { role: Role::Primary, epoch: Epoch(4), promised: Epoch(4) });
    node.look();
    node.look();
    assert_eq!(node.record.promised, Epoch(4), "it is followed again");
    assert!(node.record.arbitration.asked.is_some(), "what was asked for is not settled");
    assert!(!node.controller.is_candidate());
    node.tell(ControllerInput::Reply { id, reply: Reply::Done(late.clone()) });
    assert!(!node.has_acted(Act::Promote(Epoch(8))));
    // It owns the resource by it: nobody else serves, so it asks anew once the primary stepped down.
    node.claim = Some(Claim { role: Role::Secondary, epoch: Epoch(4), promised: Epoch(8) });
    node.tell(ControllerInput::Pushed(late));
    assert!(matches!(node.asked().operation, Operation::PreVote { .. }));
}

#[test]
fn what_was_asked_for_is_settled_once_the_record_is_past_it() {
    let mut node = Node::secondary();
    node.record.arbitration.asked = Some(Asked { first: Epoch(8), last: Epoch(8) });
    node.tell(ControllerInput::Pushed(Box::new(arbiter_record(4, Side::First, Eligible::Both))));
    assert!(node.record.arbitration.asked.is_some(), "it could still be granted");
    node.tell(ControllerInput::Pushed(Box::new(arbiter_record(8, Side::First, Eligible::Both))));
    assert_eq!(node.record.arbitration.asked, None);
}

#[test]
fn a_primary_that_loses_its_peer_asks_anew_each_time() {
    let mut node = Node::primary();
    assert!(node.controller.may_read(ServeMode::Paired));
    node.peer = Standing::Away;
    node.look();
    assert!(matches!(node.asked().operation, Operation::Solo { .. }));
    assert_eq!(node.controller.permit(), None);
    let record = granted(&node, 8);
    node.answer(Reply::Done(record));
    assert_eq!(node.controller.permit(), Some(Permit::ArbiterSolo));
    // The peer is back: it is made eligible again, and that takes the permit.
    node.peer = Standing::InSync;
    node.look();
    node.look();
    assert!(matches!(node.asked().operation, Operation::Pair { .. }));
    assert_eq!(node.controller.permit(), None);
    // Lost again while that is on its way: it may be granted, so a conflict must be answered anew.
    node.peer = Standing::Away;
    node.look();
    assert!(matches!(node.asked().operation, Operation::Solo { .. }));
    assert_eq!(node.controller.permit(), None);
    node.answer(Reply::Conflict(Box::new(arbiter_record(12, Side::Second, Eligible::Both))));
    node.look();
    let again = node.asked();
    assert!(matches!(again.operation, Operation::Solo { .. }) && again.epoch == Epoch(12));
    assert_eq!(node.controller.permit(), None);
}

#[test]
fn a_primary_that_was_replaced_steps_down() {
    let mut node = Node::primary();
    node.peer = Standing::Away;
    node.look();
    node.answer(Reply::Conflict(Box::new(arbiter_record(8, Side::First, Eligible::Owner))));
    assert!(node.has_acted(Act::StepDown(Epoch(8))));
}

#[test]
fn reads_end_with_the_last_lease() {
    let mut node = Node::primary();
    node.tell(ControllerInput::LeaseGranted { asked: Instant(0) });
    node.tell(ControllerInput::Timer(ControllerTimer::ArbiterLease));
    assert!(node.controller.may_read(ServeMode::Paired), "the peer's lease holds");
    node.tell(ControllerInput::Timer(ControllerTimer::PeerLease));
    assert!(!node.controller.may_read(ServeMode::Paired));
    assert!(node.controller.may_read(ServeMode::Solo), "nobody else can be promoted");
}

#[test]
fn a_grant_that_comes_after_its_own_end_counts_for_no_moment() {
    let mut node = Node::primary();
    node.tell(ControllerInput::Timer(ControllerTimer::ArbiterLease));
    let woken = Instant(10_000_000_000);
    let input = ControllerInput::LeaseGranted { asked: Instant(0) };
    let mut controller = node.controller.clone();
    controller.step(woken, input, &node.facts(), &mut Vec::new());
    assert!(!controller.may_read(ServeMode::Paired));
    let input = ControllerInput::LeaseGranted { asked: Instant(9_000_000_000) };
    controller.step(woken, input, &node.facts(), &mut Vec::new());
    assert!(controller.may_read(ServeMode::Paired));
}

#[test]
fn an_owner_that_cannot_resume_is_promoted_anew() {
    let mut node = Node::new(Side::Second, ServeMode::None, Standing::InSync);
    node.tell(ControllerInput::Timer(ControllerTimer::HoldDown));
    node.answer_view(arbiter_record(4, Side::Second, Eligible::Both), Ok(()));
    assert!(matches!(node.asked().operation, Operation::PreVote { .. }));
}

#[test]
fn an_arbiter_that_is_back_is_asked_at_once_and_nobody_is_refused_for_its_absence() {
    let mut node = Node::secondary();
    (node.peer, node.claim) = (Standing::Away, None);
    node.tell(ControllerInput::Promote { request: 5 });
    let before = node.asked();
    node.tell(ControllerInput::ArbiterBack);
    assert_ne!(node.asked().id, before.id, "it is asked anew");
    assert!(!node.effects.iter().any(|it| matches!(it, ControllerEffect::Settled { .. })));
}

#[test]
fn the_lease_of_a_dead_run_is_not_waited_for() {
    let mut node = Node::secondary();
    (node.peer, node.claim) = (Standing::Away, None);
    node.tell(ControllerInput::Released { instance: PEER, epoch: Epoch(4) });
    let known = arbiter_record(4, Side::First, Eligible::Both);
    if matches!(node.asked().operation, Operation::Read) {
        node.answer_view(known.clone(), Ok(()));
    }
    assert!(matches!(node.asked().operation, Operation::PreVote { .. }));
    node.answer_view(known, Err(Refused::LeaseHeld));
    let Operation::Promote { dead, .. } = node.asked().operation else {
        panic!("it waits: {:?}", node.asked())
    };
    assert_eq!(dead, Some(PEER));
}

#[test]
fn a_daemon_that_stops_becomes_primary_no_more() {
    let mine = arbiter_record(4, Side::Second, Eligible::Owner);
    let mut node = Node::new(Side::Second, ServeMode::Solo, Standing::Away);
    node.is_stopping = true;
    node.tell(ControllerInput::Timer(ControllerTimer::HoldDown));
    node.answer_view(mine, Ok(()));
    assert!(!node.has_acted(Act::Resume));
    let mut node = Node::secondary();
    node.is_stopping = true;
    node.lose_peer();
    assert!(!matches!(node.asked().operation, Operation::PreVote { .. }));
    let facts = node.facts();
    assert_eq!(node.controller.obstacle(&facts, true), Some(Obstacle::Stopping));
}

#[test]
fn after_an_unfinished_handover_a_node_resumes_only_with_a_new_epoch() {
    let mut node = Node::new(Side::Second, ServeMode::HandingOver, Standing::Away);
    node.answer_view(arbiter_record(4, Side::Second, Eligible::Both), Ok(()));
    assert_eq!(node.asked().operation, Operation::Keep);
    assert!(!node.has_acted(Act::Resume));
    let mut kept = *granted(&node, 8);
    kept.eligible = Eligible::Both;
    node.answer(Reply::Done(Box::new(kept)));
    assert_eq!((node.record.epoch, node.record.serve_mode), (Epoch(8), ServeMode::Paired));
    assert!(node.has_acted(Act::Resume));
}

#[test]
fn a_session_lets_a_node_resume_only_if_the_arbiter_is_away_or_says_that_it_may() {
    let resumes = |node: &Node| node.controller.may_resume_in_session(&node.facts());
    let unheard = || Node::new(Side::Second, ServeMode::Paired, Standing::Meeting);
    let mut node = unheard();
    assert!(!resumes(&node), "the arbiter has not had time to answer");
    for _ in 0..2 {
        node.tell(ControllerInput::Timer(ControllerTimer::Repeat));
    }
    assert!(resumes(&node), "the word of the peer is enough while the arbiter is away");
    let mine = arbiter_record(4, Side::Second, Eligible::Both);
    let stopped =
        ArbiterRecord { stopped: true, ..arbiter_record(8, Side::Second, Eligible::Both) };
    let theirs = arbiter_record(8, Side::First, Eligible::Both);
    for (record, may) in [(mine, true), (stopped, false), (theirs, false)] {
        let mut node = unheard();
        node.answer_view(record, Ok(()));
        assert_eq!(resumes(&node), may);
    }
    let mut node = unheard();
    node.answer(Reply::Refused(Refused::RolledBack));
    assert!(resumes(&node), "one that cannot be believed is as good as away");
}

#[test]
fn a_demotion_that_was_taken_back_is_not_left_to_be_granted_late() {
    let mut node = Node::primary();
    assert!(node.controller.may_read(ServeMode::Paired));
    node.leaving = Some(Leaving::Stop);
    node.look();
    assert_eq!(node.asked().operation, Operation::Stop);
    // It is answered in time: nothing takes it back while the record is on its way.
    let mut demoted = Node { controller: node.controller.clone(), ..Node::primary() };
    let record = ArbiterRecord { stopped: true, ..arbiter_record(8, Side::Second, Eligible::Both) };
    let (id, reply) = (node.asked().id, Reply::Done(Box::new(record)));
    demoted.leaving = Some(Leaving::Stop);
    demoted.tell(ControllerInput::Reply { id, reply });
    assert!(demoted.has_acted(Act::Stopped));
    demoted.effects.clear();
    demoted.leaving = Some(Leaving::Recording);
    demoted.look();
    assert!(!demoted.effects.iter().any(|effect| matches!(effect, ControllerEffect::Ask(_))));
    node.leaving = None;
    node.look();
    assert_eq!(node.asked().operation, Operation::Keep);
    assert!(!node.controller.may_read(ServeMode::Paired), "the stop may have ended the lease");
    // It was granted meanwhile.
    let stopped =
        ArbiterRecord { stopped: true, ..arbiter_record(8, Side::Second, Eligible::Both) };
    node.answer(Reply::Conflict(Box::new(stopped)));
    node.look();
    let again = node.asked();
    assert_eq!((again.operation, again.epoch), (Operation::Keep, Epoch(8)));
    let mut kept = *granted(&node, 12);
    kept.eligible = Eligible::Both;
    node.answer(Reply::Done(Box::new(kept)));
    node.tell(ControllerInput::Timer(ControllerTimer::Look));
    assert_eq!(node.asked().operation, Operation::Renew);
}

/// The arbiter's record at epoch 8, which this node changed last in a run.
fn changed_in(run: Instance, owner: Side) -> ArbiterRecord {
    let mut record = arbiter_record(8, owner, Eligible::Both);
    record.requests[1] = RequestId { instance: run, number: 3 };
    record
}

#[test]
fn an_old_image_of_the_record_neither_serves_nor_promises() {
    for (serve_mode, owner) in [(ServeMode::Paired, Side::Second), (ServeMode::None, Side::First)] {
        for is_old in [false, true] {
            let mut node = Node::new(owner, serve_mode, Standing::Away);
            node.record.instances = vec![ME, Instance(4)];
            node.tell(ControllerInput::Timer(ControllerTimer::HoldDown));
            let run = Instance(if is_old { 5 } else { 4 });
            node.answer_view(changed_in(run, owner), Ok(()));
            node.tell(ControllerInput::Silent(true));
            node.tell(ControllerInput::Timer(ControllerTimer::Preference));
            assert_eq!(node.controller.is_record_lost(&node.facts()), is_old);
            assert_eq!(node.controller.obstacle(&node.facts(), true).is_some(), is_old);
            assert_eq!(node.has_acted(Act::Resume), !is_old && owner == Side::Second);
            if is_old {
                let veto = Veto { reason: VetoReason::RecordLost, epoch: Epoch(8) };
                assert_eq!(node.record.veto, Some(veto));
            }
        }
    }
}

#[test]
fn an_old_image_grants_no_lease_and_counts_again_once_it_was_filled() {
    let mut node = Node::secondary();
    node.record.instances = vec![ME];
    node.peer = Standing::Behind;
    node.tell(ControllerInput::Pushed(Box::new(changed_in(Instance(5), Side::First))));
    node.tell(ControllerInput::LeaseAsked { instance: PEER, epoch: Epoch(8) });
    assert!(!node.has_granted());
    assert!(node.controller.is_record_lost(&node.facts()));
    // A primary has filled it.
    (node.peer, node.record.veto) = (Standing::InSync, None);
    node.look();
    let notes = |effect: &ControllerEffect| matches!(effect, ControllerEffect::Record(change) if change.asked_in == Some(Instance(5)));
    assert!(node.effects.iter().any(notes));
    assert!(!node.controller.is_record_lost(&node.facts()));
    node.tell(ControllerInput::LeaseAsked { instance: PEER, epoch: Epoch(8) });
    assert!(node.has_granted());
}

#[test]
fn a_replica_that_was_made_anew_believes_what_its_peer_believes_and_is_no_old_image() {
    let mut node = Node::new(Side::First, ServeMode::None, Standing::InSync);
    node.claim = Some(Claim { role: Role::Primary, epoch: Epoch(4), promised: Epoch(4) });
    node.record.instances = vec![ME];
    node.record.arbitration = Arbitration::default();
    let store = ArbiterId::at_turn_after(ArbiterId(7), 0);
    let record = ArbiterRecord { arbiter: store, ..changed_in(Instance(5), Side::First) };
    node.tell(ControllerInput::Pushed(Box::new(record.clone())));
    node.answer_view(record.clone(), Ok(()));
    assert_eq!((node.controller.known(), node.record.arbitration.arbiter), (None, ArbiterId(0)));
    assert!(matches!(node.asked().operation, Operation::Enroll(_)));
    node.answer(Reply::Refused(Refused::PeerMoved { store }));
    assert_eq!(node.record.arbitration.arbiter, store);
    assert!(!node.controller.is_record_lost(&node.facts()));
    node.answer_view(record, Ok(()));
    assert!(!node.controller.is_record_lost(&node.facts()));
    assert_eq!(node.record.instances, [ME, Instance(5)], "nor will it be one");
    assert!(!node.controller.is_record_lost(&node.facts()));
}

#[test]
fn the_run_that_changed_the_record_last_never_falls_off_the_list() {
    let mut node = Node::secondary();
    node.record.instances = vec![ME];
    node.tell(ControllerInput::Pushed(Box::new(changed_in(ME, Side::First))));
    node.record.instances = (100..132).map(Instance).chain([Instance(5)]).collect();
    node.effects.clear();
    node.tell(ControllerInput::Pushed(Box::new(changed_in(Instance(5), Side::First))));
    assert_eq!(node.record.instances[1], Instance(5));
    assert!(!node.controller.is_record_lost(&node.facts()));
}

#[test]
fn one_that_the_arbiter_does_not_list_vetoes_itself() {
    let mut node = Node::secondary();
    node.lose_peer();
    node.answer_view(arbiter_record(8, Side::First, Eligible::Owner), Err(Refused::NotEligible));
    let vetoes = |effect: &ControllerEffect| {
        matches!(
            effect,
            ControllerEffect::Record(ArbiterChange {
                step: RecordStep::Veto(VetoReason::NotEligible),
                ..
            })
        )
    };
    assert!(node.effects.iter().any(vetoes));
}

#[test]
fn an_operator_is_told_what_stands_in_the_way() {
    let mut node = Node::secondary();
    node.tell(ControllerInput::Promote { request: 5 });
    let settled = ControllerEffect::Settled { request: 5, result: Err(Obstacle::Connected) };
    assert!(node.effects.contains(&settled));
    let mut node = Node::secondary();
    (node.peer, node.claim) = (Standing::Away, None);
    node.tell(ControllerInput::Promote { request: 6 });
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Err(Refused::LeaseHeld));
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Err(Refused::LeaseHeld));
    let why = Obstacle::Arbiter(Refused::LeaseHeld);
    let settled = ControllerEffect::Settled { request: 6, result: Err(why) };
    assert!(node.effects.contains(&settled), "{:?}", node.effects.last());
}
