//! What a node of a pair without an arbiter does when its peer is lost, step by step.

use super::*;
use crate::metadata::{Birth, Newborn, Place, Superblock, recovered_at_birth};
use crate::promotion::Claim;
use crate::units::{Epoch, ReplicaId, ResourceId, ResourceSize, ServeMode, Veto, VetoReason};

const SECOND: u64 = 1_000_000_000;

/// A node in sync with its peer at epoch 5, made by the first node.
struct Node {
    alone: Alone,
    record: Superblock,
    peer: Standing,
    is_primary: bool,
    is_promoting: bool,
    agent_waits: bool,
    now: u64,
    link_heard: u64,
    effects: Vec<ControllerEffect>,
}

impl Node {
    fn new(by: AloneBy, is_primary: bool) -> Self {
        let newborn = Newborn {
            resource_id: ResourceId(1),
            replica_id: ReplicaId(2),
            generation_id: 3,
            size: ResourceSize::new(4096).unwrap(),
            place: Place::default(),
        };
        let record = Superblock {
            peer_replica_id: ReplicaId(9),
            owner: Some(if is_primary { Side::Second } else { Side::First }),
            serve_mode: if is_primary { ServeMode::Paired } else { ServeMode::None },
            epoch: Epoch(5),
            promised: Epoch(5),
            ..recovered_at_birth(Birth::This, &newborn).superblock
        };
        let alone = Alone::new(AloneSettings {
            side: Side::Second,
            by,
            suspect_after: Duration::from_secs(1),
            #[cfg(feature = "planted-bugs")]
            planted: None,
        });
        let mut node = Self {
            alone,
            record,
            peer: Standing::InSync,
            is_primary,
            is_promoting: false,
            agent_waits: false,
            now: 0,
            link_heard: 0,
            effects: Vec::new(),
        };
        node.pass(0);
        node
    }

    fn fenced(is_primary: bool) -> Self {
        Self::new(AloneBy::Fence { delay: Duration::from_secs(5) }, is_primary)
    }

    fn by_silence(is_primary: bool) -> Self {
        Self::new(AloneBy::Silence { lease: Duration::from_secs(3) }, is_primary)
    }

    fn facts(&self) -> Facts<'_> {
        let role = if self.is_primary { Role::Secondary } else { Role::Primary };
        let claim = Claim { role, epoch: Epoch(5), promised: Epoch(5) };
        Facts {
            record: &self.record,
            is_recording: false,
            is_primary: self.is_primary,
            is_disk_unfit: false,
            is_promoting: self.is_promoting,
            peer: self.peer,
            claim: (self.peer != Standing::Away).then_some(claim),
            said: None,
            peer_cannot_serve: false,
            peer_is_ahead: false,
            peer_instance: None,
            is_stopping: false,
            leaving: None,
        }
    }

    fn step(&mut self, input: Option<&ControllerInput>) {
        let mut alone = self.alone.clone();
        let mut effects = Vec::new();
        if self.peer != Standing::Away {
            self.link_heard = self.now;
        }
        let seen = Seen {
            facts: self.facts(),
            holds_writes: self.is_primary
                && self.peer == Standing::Away
                && self.record.serve_mode == ServeMode::Paired,
            link_heard: (self.peer != Standing::Away).then_some(Instant(self.link_heard)),
            agent_waits: self.agent_waits,
        };
        match input {
            Some(input) => alone.step(Instant(self.now), input, &seen, &mut effects),
            None => alone.settle(Instant(self.now), &seen, &mut effects),
        }
        self.alone = alone;
        self.effects = effects;
    }

    fn tell(&mut self, input: &ControllerInput) {
        self.step(Some(input));
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
        self.step(None);
    }

    /// Both the connection and the heartbeats end, and `suspect_after` passes.
    fn lose_peer(&mut self) {
        self.meet(Standing::Away);
        self.pass(1);
        self.tell(&ControllerInput::Silent(true));
    }

    fn meet(&mut self, peer: Standing) {
        self.peer = peer;
        self.step(None);
    }

    fn answer(&mut self, run: u64, code: i32) {
        let answer = FenceAnswer::Exit(code);
        self.tell(&ControllerInput::Fence { run, answer });
    }

    /// The run that is ordered by the last step.
    fn runs(&self) -> Option<u64> {
        self.effects.iter().find_map(|effect| {
            if let ControllerEffect::Fence(order) = effect { Some(order.run) } else { None }
        })
    }

    fn waits(&self) -> Option<(ControllerTimer, u64)> {
        self.effects.iter().find_map(|effect| {
            if let ControllerEffect::SetTimer { timer, after, .. } = effect {
                Some((*timer, after.as_secs()))
            } else {
                None
            }
        })
    }

    fn is_promoted(&self) -> bool {
        // The smallest epoch above 5 that the second node makes.
        self.effects.contains(&ControllerEffect::Act(Act::Promote(Epoch(6))))
    }

    fn fire(&mut self, timer: ControllerTimer) {
        self.tell(&ControllerInput::Timer(timer));
    }
}

#[test]
fn a_secondary_waits_then_fences_and_takes_over_when_it_is_confirmed() {
    for (code, takes_over) in [(0, true), (7, true), (3, false), (4, false), (5, false), (6, false)]
    {
        let mut node = Node::fenced(false);
        node.lose_peer();
        assert_eq!((node.waits(), node.runs()), (Some((ControllerTimer::Fence, 5)), None));
        node.fire(ControllerTimer::Fence);
        assert_eq!(node.runs(), Some(1));
        node.answer(1, code);
        assert_eq!(node.is_promoted(), takes_over, "exit code {code}");
        if !takes_over {
            assert_eq!(node.waits(), Some((ControllerTimer::Fence, 5)), "it is tried again");
            assert_eq!(node.alone.waits(), Waits::AfterFailure(FenceAnswer::Exit(code)));
        }
    }
}

#[test]
fn a_primary_goes_on_alone_when_the_peer_is_no_candidate() {
    for (code, goes_on) in [(0, true), (4, true), (7, true), (3, false), (5, false), (6, false)] {
        let mut node = Node::fenced(true);
        node.lose_peer();
        assert_eq!(node.runs(), Some(1), "all is silent");
        node.answer(1, code);
        let permit = goes_on.then_some(Permit::Fenced);
        assert_eq!(node.alone.permit(), permit, "exit code {code}");
    }
}

#[test]
fn a_primary_whose_connection_breaks_gives_it_a_moment() {
    let mut node = Node::fenced(true);
    node.meet(Standing::Away);
    assert_eq!((node.runs(), node.waits()), (None, Some((ControllerTimer::Fence, 1))));
    node.meet(Standing::Meeting);
    node.fire(ControllerTimer::Fence);
    assert_eq!(node.runs(), None, "it is back");
}

#[test]
fn heartbeats_that_stopped_long_ago_are_not_silence_on_a_connection_that_just_broke() {
    let mut node = Node::by_silence(true);
    node.tell(&ControllerInput::Silent(true));
    node.pass(60);
    node.meet(Standing::Away);
    assert_eq!(node.alone.permit(), None);
    node.pass(1);
    assert_eq!(node.alone.permit(), Some(Permit::AssumedDead));
}

#[test]
fn what_is_known_of_a_peer_that_is_gone_says_nothing_of_one_that_is_back() {
    let mut node = Node::fenced(true);
    node.lose_peer();
    node.answer(1, 7);
    assert_eq!(node.alone.permit(), Some(Permit::Fenced));
    node.meet(Standing::Meeting);
    assert_eq!(node.alone.permit(), None);
    node.meet(Standing::InSync);
    node.lose_peer();
    // The answer of a run that began before the peer was met again.
    let mut late = Node { alone: node.alone.clone(), ..Node::fenced(true) };
    (late.peer, late.now) = (Standing::Away, node.now);
    late.answer(1, 0);
    assert_eq!(late.alone.permit(), None);
    node.answer(2, 0);
    assert_eq!(node.alone.permit(), Some(Permit::Fenced));
}

#[test]
fn a_secondary_that_hears_the_primary_again_stops_at_once() {
    let mut node = Node::fenced(false);
    node.lose_peer();
    node.fire(ControllerTimer::Fence);
    node.tell(&ControllerInput::Silent(false));
    node.answer(1, 0);
    assert!(!node.is_promoted(), "it lives, or did a moment ago");
    node.pass(60);
    node.tell(&ControllerInput::Silent(true));
    assert_eq!(node.waits(), Some((ControllerTimer::Fence, 5)), "from the beginning");
}

#[test]
fn who_has_not_followed_in_this_run_neither_fences_nor_takes_over() {
    for mut node in [Node::fenced(false), Node::by_silence(false)] {
        for unknown in [Standing::Behind, Standing::Apart] {
            node.meet(Standing::InSync);
            node.meet(unknown);
            node.lose_peer();
            assert_eq!(node.alone.obstacle(&node.facts()), Some(Obstacle::NotFollowed));
            assert_eq!((node.runs(), node.waits()), (None, None));
        }
    }
    let mut node = Node::fenced(false);
    node.alone = Alone::new(node.alone.settings.clone());
    node.lose_peer();
    assert_eq!(node.alone.obstacle(&node.facts()), Some(Obstacle::NotFollowed));
}

/// Makes a record one that may not be promoted.
type Breaks = fn(&mut Superblock);

#[test]
fn a_veto_a_demotion_and_a_split_brain_keep_a_secondary_from_it() {
    let broken: [(Breaks, Obstacle); 4] = [
        (|it| it.stopped = true, Obstacle::Stopped),
        (|it| it.split = true, Obstacle::SplitBrain),
        (|it| it.disk = DiskState::Outdated, Obstacle::NotUpToDate),
        (
            |it| it.veto = Some(Veto { reason: VetoReason::Evicted, epoch: Epoch(5) }),
            Obstacle::Vetoed,
        ),
    ];
    for (breaks, obstacle) in broken {
        for mut node in [Node::fenced(false), Node::by_silence(false)] {
            breaks(&mut node.record);
            node.lose_peer();
            assert_eq!(node.alone.obstacle(&node.facts()), Some(obstacle));
            assert_eq!((node.runs(), node.waits()), (None, None));
        }
        // What was true when the command was begun is looked at again.
        let mut node = Node::fenced(false);
        node.lose_peer();
        node.fire(ControllerTimer::Fence);
        breaks(&mut node.record);
        node.answer(1, 0);
        assert!(!node.is_promoted(), "{obstacle}");
    }
}

#[test]
fn silence_alone_promotes_after_the_lease_and_only_where_it_was_chosen() {
    let mut node = Node::by_silence(false);
    node.lose_peer();
    assert_eq!(node.waits(), Some((ControllerTimer::Silence, 3)));
    node.tell(&ControllerInput::Silent(false));
    node.fire(ControllerTimer::Silence);
    assert!(!node.is_promoted(), "it was heard");
    node.tell(&ControllerInput::Silent(true));
    node.fire(ControllerTimer::Silence);
    assert!(node.is_promoted());
    for is_primary in [false, true] {
        let mut node = Node::fenced(is_primary);
        node.lose_peer();
        node.fire(ControllerTimer::Silence);
        node.pass(3600);
        assert!(!node.is_promoted() && node.alone.permit().is_none());
    }
}

#[test]
fn a_promotion_is_ordered_once_and_only_from_a_stable_record() {
    let mut node = Node::fenced(false);
    node.lose_peer();
    node.fire(ControllerTimer::Fence);
    node.answer(1, 0);
    assert!(node.is_promoted());
    node.is_promoting = true;
    node.pass(0);
    assert!(!node.is_promoted());
    // It was given up since the primary was heard: that needs another confirmation.
    node.is_promoting = false;
    node.pass(0);
    assert!(!node.is_promoted());
    assert_eq!(node.waits(), Some((ControllerTimer::Fence, 5)));
}

/// What the last step ordered to run, and for what.
fn ordered(node: &Node) -> Option<(u64, FenceAction)> {
    node.effects.iter().find_map(|effect| {
        if let ControllerEffect::Fence(order) = effect {
            Some((order.run, order.action))
        } else {
            None
        }
    })
}

#[test]
fn under_pacemaker_a_secondary_neither_fences_nor_takes_over() {
    let mut node = Node::new(AloneBy::Pacemaker, false);
    node.lose_peer();
    node.pass(100);
    assert!(node.effects.is_empty(), "{:?}", node.effects);
    assert_eq!(node.alone.obstacle_after_loss(&node.facts()), None, "Pacemaker may promote it");
    node.record.veto = Some(Veto { reason: VetoReason::Evicted, epoch: Epoch(5) });
    assert_eq!(node.alone.obstacle_after_loss(&node.facts()), Some(Obstacle::Vetoed));
}

#[test]
fn under_pacemaker_a_peer_that_has_everything_may_be_promoted_again() {
    let mut node = Node::new(AloneBy::Pacemaker, true);
    node.pass(1);
    assert_eq!(node.effects, [], "it was ordered when the two were in sync first");
    node.answer(1, 1);
    assert_eq!(node.waits(), Some((ControllerTimer::Fence, 5)));
    assert_eq!(node.alone.not_lifted(), Some(FenceAnswer::Exit(1)));
    node.fire(ControllerTimer::Fence);
    assert_eq!(ordered(&node), Some((2, FenceAction::Unfence)));
    // The peer is lost before that ends: the newer run takes its place, and its answer counts alone.
    node.lose_peer();
    assert_eq!(ordered(&node), Some((3, FenceAction::Fence)));
    node.answer(2, 0);
    assert_eq!(node.alone.permit(), None);
    node.answer(3, 4);
    assert_eq!(node.alone.permit(), Some(Permit::Fenced));
    node.record.serve_mode = ServeMode::Solo;
    node.meet(Standing::Meeting);
    node.meet(Standing::InSync);
    assert_eq!(ordered(&node), None, "the record does not say yet that it is needed");
    node.record.serve_mode = ServeMode::Paired;
    node.pass(0);
    assert_eq!(ordered(&node), Some((4, FenceAction::Unfence)));
    node.answer(4, 0);
    assert_eq!((ordered(&node), node.alone.not_lifted()), (None, None));
    // Nothing was placed since.
    node.meet(Standing::Meeting);
    node.meet(Standing::InSync);
    assert_eq!(ordered(&node), None);
}

#[test]
fn under_pacemaker_a_promotion_without_the_peer_waits_for_the_command() {
    for (code, is_enough) in [(0, true), (4, true), (7, true), (3, false), (5, false), (6, false)] {
        let mut node = Node::new(AloneBy::Pacemaker, false);
        node.lose_peer();
        (node.agent_waits, node.is_promoting) = (true, true);
        node.pass(0);
        assert_eq!(ordered(&node), Some((1, FenceAction::Fence)), "at once");
        assert_eq!(node.alone.agents_fence(), None);
        node.answer(1, code);
        let answer = FenceAnswer::Exit(code);
        let expected = if is_enough { Ok(answer) } else { Err(answer) };
        assert_eq!(node.alone.agents_fence(), Some(expected));
        assert_eq!(node.alone.permit(), None, "it is none before the record says so");
        (node.agent_waits, node.is_promoting, node.is_primary) = (false, false, is_enough);
        if is_enough {
            node.record.serve_mode = ServeMode::Solo;
            node.alone.note_agents_promotion();
        }
        node.pass(100);
        assert_eq!(node.alone.permit(), is_enough.then_some(Permit::Pacemaker));
        let withdrawn = (!is_enough).then_some((2, FenceAction::Withdraw));
        assert_eq!(ordered(&node), withdrawn, "what was for nothing does not stay");
    }
}

/// A node that has just started, and has met nobody.
fn just_started(is_owner: bool, serve_mode: ServeMode) -> Node {
    let mut node = Node::new(AloneBy::Pacemaker, is_owner);
    (node.peer, node.is_primary, node.record.serve_mode) = (Standing::Away, false, serve_mode);
    node.alone = Alone::new(node.alone.settings.clone());
    node.pass(1);
    node
}

#[test]
fn under_pacemaker_only_who_can_have_missed_nothing_serves_without_the_peer() {
    let may = |node: &Node| node.alone.may_serve_without_peer(&node.facts());
    for (is_owner, mode, expected) in [
        (true, ServeMode::Solo, true),
        (true, ServeMode::Paired, false),
        (true, ServeMode::None, false),
        (false, ServeMode::None, false),
        (false, ServeMode::Solo, false),
    ] {
        let mut node = just_started(is_owner, mode);
        assert_eq!(may(&node), expected, "{is_owner} {mode:?}");
        assert_eq!(node.alone.obstacle_after_loss(&node.facts()).is_none(), expected);
        node.meet(Standing::Behind);
        node.meet(Standing::InSync);
        node.lose_peer();
        assert!(may(&node), "{is_owner} {mode:?}");
        node.meet(Standing::Apart);
        node.lose_peer();
        assert_eq!(may(&node), expected, "the peer had something else");
    }
    let mut node = just_started(false, ServeMode::None);
    node.record.peer_replica_id = ReplicaId(0);
    assert!(may(&node), "there never was a peer");
}

#[test]
fn under_pacemaker_what_was_placed_for_nothing_is_withdrawn_once_the_run_has_ended() {
    // A promotion that was refused while its run went on.
    let mut node = Node::new(AloneBy::Pacemaker, false);
    node.lose_peer();
    (node.agent_waits, node.is_promoting) = (true, true);
    node.pass(0);
    assert_eq!(ordered(&node), Some((1, FenceAction::Fence)));
    (node.agent_waits, node.is_promoting) = (false, false);
    node.pass(1);
    assert_eq!(ordered(&node), None, "it may place the constraint still");
    node.answer(1, 4);
    assert_eq!(ordered(&node), Some((2, FenceAction::Withdraw)));
    node.answer(2, 1);
    assert_eq!(node.waits(), Some((ControllerTimer::Fence, 5)));
    node.fire(ControllerTimer::Fence);
    assert_eq!(ordered(&node), Some((3, FenceAction::Withdraw)));
    node.answer(3, 0);
    node.pass(100);
    assert_eq!(ordered(&node), None, "once");
    // A primary that went on alone and was demoted has what the peer lacks.
    let mut node = Node::new(AloneBy::Pacemaker, true);
    node.answer(1, 0);
    node.lose_peer();
    node.pass(2);
    node.answer(2, 4);
    assert_eq!(node.alone.permit(), Some(Permit::Fenced));
    node.record.serve_mode = ServeMode::Solo;
    node.pass(1);
    (node.is_primary, node.record.serve_mode) = (false, ServeMode::None);
    node.pass(100);
    assert_eq!(ordered(&node), None);
}
