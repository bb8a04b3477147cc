//! The searches with an arbiter.

use std::sync::Arc;

use crate::bounds::{Begin, Bounds, Left, Quick};
use crate::pair::{Action, Pair, Typed, Wanted};
use crate::search::{holds, is_large, search};
use crate::third::{Third, ThirdLeft, Word};
use hotpair::promotion::arbiter::{ArbiterTimer, Eligible};
use hotpair::promotion::controller::ControllerTimer;

impl Bounds {
    /// The first node serves, both are eligible, and both of its leases hold.
    pub(crate) fn first_state_with_arbiter(&self) -> Pair {
        let plenty = ThirdLeft {
            looks: 99,
            beats: 99,
            epochs: 99,
            repeats: 99,
            waits: 99,
            absences: 2,
            datagrams: self.third.map_or(0, |third| third.datagrams),
            ..ThirdLeft::default()
        };
        let sound = Self {
            flaw: None,
            third: Some(plenty),
            comes_back: false,
            is_clock_broken: false,
            ..self.clone()
        };
        let left = Left { commands: 1, connections: 1, writes: 1, kills: 1, ..Left::default() };
        let mut pair = Pair::new(left);
        let mut third = Third::new();
        third.left = plenty;
        pair.third = Some(Box::new(third));
        for action in [Action::Start { at: 0 }, Action::Start { at: 1 }, Action::Connect] {
            pair.goes(action, &sound);
        }
        for round in 0..8 {
            for at in 0..2 {
                pair.goes(Action::Word(Word::Fire { at, timer: ControllerTimer::Look }), &sound);
            }
            if round == 2 {
                pair.goes(Action::Type { at: 0, typed: Typed::Promote }, &sound);
            }
        }
        let record = pair.third.as_ref().and_then(|third| third.disk.clone());
        assert_eq!(record.map(|record| record.eligible), Some(Eligible::Both), "it begins in sync");
        for to in [0, 1] {
            pair.goes(Action::Word(Word::Beat { to }), &sound);
        }
        self.go_on_to_begin(&mut pair, &sound);
        pair.left = Left { next_request: pair.left.next_request, ..self.left };
        if let Some(third) = &mut pair.third {
            self.plant_at_arbiter(&mut third.seat);
            third.left = self.third.expect("there is an arbiter");
        }
        pair
    }

    fn go_on_to_begin(&self, pair: &mut Pair, sound: &Self) {
        if matches!(self.begin, Begin::Written | Begin::Alone | Begin::Pledged) {
            pair.goes(Action::Ask { at: 0, what: Wanted::Write }, sound);
        }
        if matches!(self.begin, Begin::Missing | Begin::Pledged) {
            pair.misses_arbiter(self.begin == Begin::Pledged, sound);
        }
        if self.begin == Begin::Unheard {
            pair.goes(Action::Word(Word::Vanish { at: 0 }), sound);
            pair.fires(0, ControllerTimer::ArbiterLease, sound);
        }
        if self.begin == Begin::Deaf {
            pair.goes(Action::Word(Word::Vanish { at: 1 }), sound);
        }
        if self.begin == Begin::Followed {
            pair.asks_and_follows(sound);
        }
        if self.begin == Begin::Restarted {
            pair.restarts(sound);
        }
        if self.begin == Begin::Alone {
            pair.left.writes = 1;
            pair.goes(Action::Kill { at: 1, is_landed: false }, sound);
            pair.goes(Action::Notice { at: 0 }, sound);
            pair.goes(Action::Ask { at: 0, what: Wanted::Write }, sound);
            let third = pair.third.as_ref().expect("there is an arbiter");
            assert!(third.lists_only(0), "the first node is alone");
        }
    }
}

impl Pair {
    fn fires(&mut self, at: usize, timer: ControllerTimer, bounds: &Bounds) {
        self.goes(Action::Word(Word::Fire { at, timer }), bounds);
    }

    /// Neither node gets an answer of the arbiter, so that the time of grace runs; and is over.
    fn misses_arbiter(&mut self, is_over: bool, bounds: &Bounds) {
        for at in 0..2 {
            self.goes(Action::Word(Word::Vanish { at }), bounds);
        }
        for at in 0..2 {
            self.fires(at, ControllerTimer::Look, bounds);
            self.fires(at, ControllerTimer::Repeat, bounds);
            self.fires(at, ControllerTimer::Repeat, bounds);
        }
        self.fires(0, ControllerTimer::ArbiterLease, bounds);
        for at in (0..2).filter(|_| is_over) {
            self.fires(at, ControllerTimer::Grace, bounds);
        }
        let is_bound = |at: usize| self.nodes[at].files.record.hold;
        assert_eq!([is_bound(0), is_bound(1)], [is_over; 2], "who is bound");
    }

    /// The nodes are cut apart, the second asks for its promotion, and they meet before that arrives.
    fn asks_and_follows(&mut self, bounds: &Bounds) {
        let slow = Bounds { quick: SLOW_WORDS, ..bounds.clone() };
        self.left.cuts = 1;
        self.left.connections = 1;
        self.third().left.suspicions = 1;
        let run = self.instance(0).expect("it runs");
        self.goes(Action::Cut, bounds);
        // The first finds out when they meet again, so it does not ask to go on alone.
        self.goes(Action::Notice { at: 1 }, bounds);
        self.fires(0, ControllerTimer::PeerLease, bounds);
        self.fires(0, ControllerTimer::ArbiterLease, bounds);
        self.fires(1, ControllerTimer::Grant, bounds);
        let lease = ArbiterTimer::Lease(run);
        self.goes(Action::Word(Word::FireThird { timer: lease }), bounds);
        let steps = [
            Action::Word(Word::Suspect { at: 1 }),
            Action::Word(Word::Ask { from: 1, place: 0 }),
            Action::Word(Word::Tell { to: 1, place: 0 }),
            Action::Connect,
            // It hears the first again, so that it is no candidate whenever the link is lost.
            Action::Word(Word::Beat { to: 1 }),
        ];
        for action in steps {
            *self = self.happens(action, &slow).expect("nothing refuses it");
            assert_eq!(self.broken, None, "after {action:?}");
        }
        let record = &self.nodes[1].files.record;
        assert!(record.arbitration.asked.is_some(), "it asks");
        assert_eq!(record.promised, self.nodes[0].files.record.epoch, "and follows");
    }

    /// Both are restarted, one after the other, after their images were taken.
    fn restarts(&mut self, bounds: &Bounds) {
        self.images = [0, 1].map(|at| Some(Arc::new(self.nodes[at].files.clone())));
        for at in [1, 0] {
            self.left.kills = 1;
            self.left.connections = 1;
            self.goes(Action::Kill { at, is_landed: false }, bounds);
            self.goes(Action::Notice { at: 1 - at }, bounds);
            self.goes(Action::Start { at }, bounds);
            self.goes(Action::Connect, bounds);
            for at in 0..2 {
                self.fires(at, ControllerTimer::Look, bounds);
            }
        }
        for to in [0, 1] {
            self.goes(Action::Word(Word::Beat { to }), bounds);
        }
    }

    fn goes(&mut self, action: Action, bounds: &Bounds) {
        *self = self.happens(action, bounds).expect("nothing refuses it");
        self.settles(bounds);
        assert_eq!(self.broken, None, "while the first state is made, after {action:?}");
    }
}

/// All but what passes between the nodes and the arbiter.
pub(crate) const SLOW_WORDS: Quick =
    Quick { data: true, records: true, frames: true, words: false };
/// All but what a disk does to the data, the activity log and the map.
pub(crate) const SLOW_DATA: Quick = Quick { data: false, records: true, frames: true, words: true };
/// All but the writes of records.
pub(crate) const SLOW_RECORDS: Quick =
    Quick { data: true, records: false, frames: true, words: true };
/// All but the frames between the nodes.
pub(crate) const SLOW_FRAMES: Quick =
    Quick { data: true, records: true, frames: false, words: true };
/// Everything: what is left are faults, people and time.
pub(crate) const ALL_QUICK: Quick = Quick { data: true, records: true, frames: true, words: true };

/// What every search lets happen.
pub(crate) const LITTLE: ThirdLeft = ThirdLeft {
    looks: 0,
    repeats: 0,
    beats: 0,
    suspicions: 1,
    restarts: 0,
    disorder: 0,
    losses: 0,
    waits: 0,
    epochs: 2,
    datagrams: 0,
    absences: 0,
    returns: 0,
    slow_stores: 0,
};

/// A node dies, and the other one goes on: every order of requests, replies and leases.
pub(crate) fn node_loss() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, kills: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { epochs: 1 + large, looks: large, ..LITTLE }),
        quick: SLOW_WORDS,
        mortal: &[0, 1],
        expected: &[
            "the second node asks to be promoted",
            "the arbiter promotes the second node",
            "a node goes on alone by the arbiter",
            "a primary has no lease",
            "a write is acknowledged by both",
            "a write is acknowledged alone",
        ],
        ..Bounds::nothing("node loss", Begin::InSync)
    }
}

/// The nodes are cut apart, and meet again.
pub(crate) fn partition() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 2, cuts: 1, connections: 1, kills: large, ..Left::default() },
        third: Some(ThirdLeft { looks: 1, beats: 1, epochs: 2 + large, ..LITTLE }),
        quick: ALL_QUICK,
        mortal: &[0, 1],
        expected: &[
            "a primary waits for the arbiter",
            "a node goes on alone by the arbiter",
            "the arbiter promotes the second node",
            "a primary steps down",
            "a node has a veto",
            "both are in sync again",
            "both are eligible again",
        ],
        ..Bounds::nothing("partition", Begin::InSync)
    }
}

/// The same, with the writes of records in any order with the rest.
pub(crate) fn records() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, connections: 1, kills: large, ..Left::default() },
        third: Some(ThirdLeft { looks: large, beats: 1, ..LITTLE }),
        quick: SLOW_RECORDS,
        mortal: &[0, 1],
        expected: &["a node goes on alone by the arbiter", "the arbiter promotes the second node"],
        ..Bounds::nothing("records", Begin::InSync)
    }
}

/// The nodes are cut apart, and whatever is said after that is slow.
pub(crate) fn cut_off() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1 + large, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { epochs: 1 + large, ..LITTLE }),
        quick: SLOW_WORDS,
        expected: &[
            "a primary waits for the arbiter",
            "a primary has no lease",
            "the second node asks to be promoted",
            "the arbiter promotes the second node",
            "a node goes on alone by the arbiter",
        ],
        ..Bounds::nothing("cut off", Begin::InSync)
    }
}

/// Replies are lost, and what was asked is asked again.
pub(crate) fn lost() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { repeats: 1, losses: 1, epochs: 1 + large, ..LITTLE }),
        quick: SLOW_WORDS,
        expected: &["a node goes on alone by the arbiter", "the arbiter promotes the second node"],
        ..Bounds::nothing("lost", Begin::InSync)
    }
}

/// The reply to a handover is lost, and it is asked for again.
pub(crate) fn lost_handover() -> Bounds {
    let third = ThirdLeft { suspicions: 0, losses: 1, repeats: 1, ..LITTLE };
    let left = Left { kills: 0, ..slow_handover().left };
    Bounds { name: "lost handover", left, third: Some(third), mortal: &[], ..slow_handover() }
}

/// Requests overtake each other or come twice, and so do replies.
pub(crate) fn disorder() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { disorder: 1, repeats: large, losses: large, ..LITTLE }),
        quick: SLOW_WORDS,
        expected: &["a node goes on alone by the arbiter"],
        ..Bounds::nothing("disorder", Begin::InSync)
    }
}

/// Nodes and the arbiter restart: what was granted before counts still.
pub(crate) fn restarts() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, kills: 1, connections: 1, cuts: large, ..Left::default() },
        third: Some(ThirdLeft { restarts: 1, looks: 1, waits: large, ..LITTLE }),
        quick: ALL_QUICK,
        mortal: &[0, 1],
        expected: &["the arbiter says that a node resumes", "the arbiter promotes the second node"],
        ..Bounds::nothing("restarts", Begin::InSync)
    }
}

/// The role is handed over or given up by operators, and a node dies or the link is lost.
pub(crate) fn handover() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { commands: 1, cuts: 1, kills: large, connections: 1, ..Left::default() },
        third: Some(ThirdLeft { suspicions: large, ..LITTLE }),
        quick: SLOW_FRAMES,
        typed: &[Typed::Switchover],
        mortal: &[0, 1],
        expected: &["the role is handed over", "a handover is under way"],
        ..Bounds::nothing("handover", Begin::Written)
    }
}

/// A handover whose requests and replies are slow.
pub(crate) fn slow_handover() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { commands: 1, kills: 1, time: large, connections: large, ..Left::default() },
        third: Some(ThirdLeft { suspicions: 0, losses: large, repeats: large, ..LITTLE }),
        quick: SLOW_WORDS,
        typed: &[Typed::Switchover],
        mortal: &[0, 1],
        expected: &["the role is handed over", "a handover is under way"],
        ..Bounds::nothing("slow handover", Begin::InSync)
    }
}

/// A node that was away is filled and made eligible, and the link is lost in the middle.
pub(crate) fn repairing() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: large, cuts: 1, connections: 1 + large, ..Left::default() },
        third: Some(ThirdLeft { disorder: 1, suspicions: large, ..LITTLE }),
        quick: SLOW_WORDS,
        expected: &["both are eligible again", "the second node is resynced"],
        ..Bounds::nothing("repairing", Begin::Alone)
    }
}

/// The second node dies and comes back while the first one still counts on its lease.
pub(crate) fn secondary_restart() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, kills: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { waits: 1, epochs: 1, ..LITTLE }),
        quick: SLOW_WORDS,
        mortal: &[1],
        expected: &["a primary has no lease", "the arbiter promotes the second node"],
        ..Bounds::nothing("secondary restart", Begin::InSync)
    }
}

/// The second node leaves with a veto, and comes back before the arbiter knows that it left.
pub(crate) fn leaving() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { commands: 1, connections: 1, writes: large, ..Left::default() },
        third: Some(ThirdLeft { suspicions: 0, epochs: 1 + large, ..LITTLE }),
        quick: Quick { words: false, ..SLOW_RECORDS },
        typed: &[Typed::Stop],
        expected: &["a node has a veto", "both are in sync again"],
        ..Bounds::nothing("leaving", Begin::InSync)
    }
}

/// The second node asks to be promoted while the first one comes back.
pub(crate) fn returning() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { cuts: 1 + large, connections: 1, ..Left::default() },
        third: Some(ThirdLeft { epochs: 1 + large, ..LITTLE }),
        quick: SLOW_WORDS,
        expected: &["the second node asks to be promoted", "a node follows again what it left"],
        ..Bounds::nothing("returning", Begin::InSync)
    }
}

/// Power is lost with a write that is not flushed.
pub(crate) fn blackout() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, power_losses: 2, connections: 1 + large, ..Left::default() },
        third: Some(ThirdLeft { waits: 1, looks: large, ..LITTLE }),
        quick: ALL_QUICK,
        mortal: &[0, 1],
        expected: &[
            "a node that lost power says that it is doubtful",
            "the arbiter promotes the second node",
        ],
        ..Bounds::nothing("blackout", Begin::Written)
    }
}

/// As [`holds`], and from each state service comes back once nothing fails any more and time passes.
fn holds_and_comes_back(bounds: &Bounds) {
    holds(&Bounds { comes_back: true, ..bounds.clone() });
}

#[test]
fn a_node_that_dies_is_replaced() {
    holds(&node_loss());
}

#[test]
fn of_two_nodes_that_are_cut_apart_one_goes_on() {
    holds_and_comes_back(&partition());
    holds_and_comes_back(&cut_off());
}

#[test]
fn records_are_stable_before_what_needs_them() {
    holds(&records());
}

#[test]
fn a_candidate_whose_primary_lives_follows_it_again() {
    holds_and_comes_back(&returning());
}

#[test]
fn late_repeated_and_lost_requests_change_nothing() {
    holds(&disorder());
    holds(&lost());
}

#[test]
fn restarts_forget_no_lease() {
    holds(&restarts());
    holds(&secondary_restart());
}

#[test]
fn a_handover_has_one_owner_at_each_moment() {
    holds_and_comes_back(&handover());
    holds(&slow_handover());
    holds(&lost_handover());
}

#[test]
fn a_node_is_eligible_only_while_it_is_needed() {
    holds(&repairing());
    holds(&leaving());
}

#[test]
fn service_comes_back_after_a_power_loss() {
    let bounds = blackout();
    let left = Left { power_losses: 1, ..bounds.left };
    holds_and_comes_back(&Bounds { left, expected: &[], ..bounds });
}

#[test]
fn a_power_loss_promotes_nobody_who_may_lack_writes() {
    holds(&blackout());
}

/// Whether a grantor that ends first lets only reads be stale.
#[test]
fn a_broken_clock_makes_reads_stale_and_nothing_else() {
    let broken = |bounds: Bounds| Bounds { is_clock_broken: true, expected: &[], ..bounds };
    let mut is_stale = false;
    for bounds in [cut_off(), partition()] {
        is_stale |= search(&Bounds { only: Some("FreshRead"), ..broken(bounds.clone()) }).is_some();
        let others = search(&Bounds { but: Some("FreshRead"), ..broken(bounds) });
        assert_eq!(others, None, "beside FreshRead");
    }
    assert!(is_stale, "FreshRead");
}
