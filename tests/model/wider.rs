//! More searches with an arbiter, each for one thing that seldom happens: a veto by datagram, the
//! pledge, a record that is lost, a promotion by force, an arbiter whose disk is slow.

use crate::bounds::{Begin, Bounds, Left};
use crate::pair::Typed;
use crate::search::{holds, is_large};
use crate::third::ThirdLeft;
use crate::witnessed::{ALL_QUICK, LITTLE, SLOW_DATA, SLOW_RECORDS, SLOW_WORDS};

/// The second node stops with a veto, the first goes on alone by it and writes, and the second comes
/// back. The arbiter learns nothing of that, so the veto alone keeps the second from being promoted.
pub(crate) fn left_alone() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { commands: 1, connections: 1, writes: 1, cuts: large, ..Left::default() },
        third: Some(ThirdLeft { suspicions: 0, ..LITTLE }),
        quick: SLOW_RECORDS,
        typed: &[Typed::Leave],
        expected: &[
            "a node has a veto",
            "a write is acknowledged alone",
            "the second node is resynced",
            "both are in sync again",
        ],
        ..Bounds::nothing("left alone", Begin::Unheard)
    }
}

/// The connection is lost, and the first node asks for a veto by datagram while it asks the arbiter.
pub(crate) fn outdated() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { datagrams: 1 + large, epochs: 1 + large, ..LITTLE }),
        quick: SLOW_WORDS,
        expected: &[
            "a node has a veto",
            "a node goes on alone by the peer's veto",
            "a node goes on alone by the arbiter",
            "the arbiter promotes the second node",
        ],
        ..Bounds::nothing("outdated", Begin::InSync)
    }
}

/// The second node asked for its promotion and follows again, and what it asked for comes late: it
/// must give no veto until then.
pub(crate) fn followed() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { datagrams: 1, epochs: 1 + large, suspicions: 0, ..LITTLE }),
        quick: SLOW_WORDS,
        expected: &["a primary has no lease", "a write is acknowledged by both"],
        ..Bounds::nothing("followed", Begin::Followed)
    }
}

/// The pledge is given, and either node dies or reaches the arbiter again.
pub(crate) fn pledged() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, kills: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { returns: 2, looks: large, waits: 1, epochs: 1, ..LITTLE }),
        quick: ALL_QUICK,
        mortal: &[0, 1],
        pledges: true,
        expected: &["a node goes on alone by the pledge", "the pledge is lifted"],
        ..Bounds::nothing("pledged", Begin::Pledged)
    }
}

/// The pledge is given and lifted, and the nodes are cut apart at any moment of that.
pub(crate) fn pledging() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: large, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { waits: 2, returns: 1, epochs: 1, ..LITTLE }),
        quick: SLOW_RECORDS,
        pledges: true,
        expected: &["a node goes on alone by the pledge", "the pledge is lifted"],
        ..Bounds::nothing("pledging", Begin::Missing)
    }
}

/// An old image of everything is put back at a node that has changed the arbiter's record since.
pub(crate) fn put_back() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, put_backs: 1, connections: 1 + large, ..Left::default() },
        third: Some(ThirdLeft { looks: large, beats: large, ..LITTLE }),
        quick: ALL_QUICK,
        mortal: &[0, 1],
        expected: &["a node's record is lost", "the arbiter promotes the second node"],
        ..Bounds::nothing("put back", Begin::Restarted)
    }
}

/// The nodes are cut apart, with a write and its syncs under way at either.
pub(crate) fn slow_data() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { epochs: 1 + large, ..LITTLE }),
        quick: SLOW_DATA,
        expected: &[
            "a write is acknowledged alone",
            "a node goes on alone by the arbiter",
            "the arbiter promotes the second node",
        ],
        ..Bounds::nothing("slow data", Begin::InSync)
    }
}

/// The role is handed over with a write and its syncs under way, and the link is lost.
pub(crate) fn slow_drain() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, commands: 1, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { suspicions: large, ..LITTLE }),
        quick: SLOW_DATA,
        typed: &[Typed::Switchover],
        expected: &["the role is handed over", "a handover is under way"],
        ..Bounds::nothing("slow drain", Begin::InSync)
    }
}

/// The second node does not reach the arbiter, and hears nothing of the first.
pub(crate) fn deaf() -> Bounds {
    Bounds {
        left: Left { writes: 1, cuts: 1, ..Left::default() },
        third: Some(ThirdLeft { repeats: 1, epochs: 1, ..LITTLE }),
        quick: ALL_QUICK,
        expected: &["a node goes on alone by the arbiter"],
        ..Bounds::nothing("deaf", Begin::Deaf)
    }
}

/// Either node loses the arbiter at any moment, and reaches it again.
pub(crate) fn absence() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { absences: 1, returns: 1, repeats: 1, looks: large, ..LITTLE }),
        quick: ALL_QUICK,
        expected: &[
            "a primary waits for the arbiter",
            "a node goes on alone by the arbiter",
            "the arbiter promotes the second node",
        ],
        ..Bounds::nothing("absence", Begin::InSync)
    }
}

/// The first node dies and the second one is promoted by force.
pub(crate) fn forced() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, kills: 1, commands: 1, connections: 1, ..Left::default() },
        third: Some(ThirdLeft { looks: 1, epochs: 2 + large, ..LITTLE }),
        quick: ALL_QUICK,
        typed: FORCE,
        mortal: &[0, 1],
        expected: &["the second node is promoted by force"],
        ..Bounds::nothing("forced", Begin::InSync)
    }
}

/// A promotion by force of a node that pledged not to ask for one, while the arbiter is away.
pub(crate) fn forced_away() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, kills: 1, commands: 1, connections: 1 + large, ..Left::default() },
        third: Some(ThirdLeft { repeats: 2, returns: 1, epochs: 1, suspicions: 0, ..LITTLE }),
        quick: ALL_QUICK,
        typed: FORCE,
        mortal: &[0],
        pledges: true,
        expected: &[
            "the second node is promoted by force",
            "a write is acknowledged alone",
            "the first node is resynced",
            "both are in sync again",
        ],
        ..Bounds::nothing("forced away", Begin::Pledged)
    }
}

const FORCE: &[Typed] =
    &[Typed::Force { accepts_loss: false }, Typed::Force { accepts_loss: true }];

/// The arbiter's disk is slow, and the arbiter dies while a record is on its way there.
pub(crate) fn slow_store() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { writes: 1, cuts: 1, connections: 1, ..Left::default() },
        third: Some(ThirdLeft {
            slow_stores: 1 + large,
            restarts: 1,
            repeats: 1,
            looks: large,
            ..LITTLE
        }),
        quick: ALL_QUICK,
        expected: &["a node goes on alone by the arbiter", "the arbiter promotes the second node"],
        ..Bounds::nothing("slow store", Begin::InSync)
    }
}

/// The role is handed over, and power is lost.
pub(crate) fn handed() -> Bounds {
    let large = u8::from(is_large());
    Bounds {
        left: Left { commands: 1, power_losses: 1, connections: large, ..Left::default() },
        third: Some(ThirdLeft { suspicions: large, ..LITTLE }),
        quick: ALL_QUICK,
        typed: &[Typed::Switchover],
        mortal: &[0, 1],
        flushes_at_once: false,
        expected: &["the role is handed over"],
        ..Bounds::nothing("handed", Begin::Written)
    }
}

#[test]
fn a_peer_that_left_is_complete_only_when_it_is_needed() {
    holds(&left_alone());
}

#[test]
fn a_veto_by_datagram_and_a_promotion_exclude_each_other() {
    holds(&outdated());
    holds(&followed());
}

#[test]
fn a_pledge_binds_as_long_as_it_is_relied_upon() {
    holds(&pledged());
    holds(&Bounds { comes_back: true, ..pledging() });
}

#[test]
fn who_has_an_old_record_promises_nothing() {
    holds(&put_back());
}

#[test]
fn what_a_disk_has_not_done_is_waited_for() {
    holds(&slow_data());
    holds(&slow_drain());
}

#[test]
fn an_arbiter_that_is_lost_midway_promotes_nobody_twice() {
    holds(&absence());
    holds(&deaf());
}

#[test]
fn a_promotion_by_force_ends_what_was_before() {
    holds(&forced());
    holds(&forced_away());
}

#[test]
fn what_the_arbiter_stores_slowly_counts_when_it_is_stable() {
    holds(&slow_store());
}

/// The node that the arbiter says owns the resource needs nobody else.
#[test]
fn service_comes_back_without_the_peer() {
    for bounds in [outdated(), followed()] {
        let left = Left { writes: 0, ..bounds.left };
        holds(&Bounds { left, comes_back: true, expected: &[], ..bounds });
    }
    holds(&handed());
}
