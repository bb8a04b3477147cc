//! Floods: more of something than an honest peer says.

use std::time::Duration;

use hotpair::metadata::Birth;
use hotpair::promotion::controller::{ControllerSettings, Moving};
use hotpair::replica::{Command, Effect, Input};
use hotpair::units::{ByteRange, ChunkIndex, Role, Sequence, ServeMode, Side};
use hotpair::wire::{
    Ask, HandOver, Hello, Message, Payload, PeerCommand, Pledge, SettleAsk, SettleTell, Verdict,
    Write,
};

use crate::rig::{EPOCH, GENERATION, Rig};

fn is_hash(effect: &Effect) -> bool {
    matches!(effect, Effect::HashChunk { .. })
}

fn is_sync(effect: &Effect) -> bool {
    matches!(effect, Effect::SyncData { .. })
}

#[test]
fn meetings_without_end_leave_nothing_behind() {
    let mut rig = Rig::new(Birth::Peer);
    rig.connect();
    for counter in 1..2000 {
        let mut hello = rig.hello();
        hello.counter = counter;
        rig.say(Message::Hello(Box::new(hello))).unwrap();
        rig.said.drain(..rig.said.len().saturating_sub(8));
    }
    assert!(rig.is_open);
    let debug = format!("{:?}", rig.core);
    let ended = debug.split("ended: [").nth(1).unwrap().split(']').next().unwrap();
    assert!(ended.matches("SessionId").count() <= 16, "{ended}");
}

#[test]
fn a_peer_that_has_room_for_nothing_is_refused() {
    let none: [fn(&mut Verdict); 4] = [
        |verdict| verdict.client_credit.frames = 0,
        |verdict| verdict.client_credit.bytes = (1 << 20) - 1,
        |verdict| verdict.resync_credit.frames = 0,
        |verdict| verdict.resync_credit.bytes = (64 << 10) - 1,
    ];
    for edit in none {
        let mut rig = Rig::new(Birth::Peer);
        rig.connect();
        rig.say(Message::Hello(Box::new(rig.hello()))).unwrap();
        let mut verdict = rig.mirrored();
        edit(&mut verdict);
        rig.say(Message::Verdict(verdict)).unwrap();
        rig.assert_closed("no room for");
    }
}

#[test]
fn a_promotion_that_waits_for_consent_does_not_make_both_meet_without_end() {
    let mut rig = Rig::new(Birth::Peer);
    let to_secondary = |hello: &mut Hello| {
        (hello.role, hello.serve_mode) = (Role::Secondary, ServeMode::None);
    };
    rig.meet(to_secondary);
    rig.fill();
    let command = Command::Promote { force: false, accept_data_loss: false };
    rig.input(Input::Operator { request: 7, command });
    assert!(rig.said.iter().any(|it| matches!(it, Message::Outdate(_))), "{:?}", rig.said);
    rig.said.clear();
    // Instead of an answer the peer says Hello, and the verdicts that follow.
    let mut hello = rig.hello();
    to_secondary(&mut hello);
    hello.counter = 2;
    rig.say(Message::Hello(Box::new(hello))).unwrap();
    for _ in 0..100 {
        rig.mirror();
    }
    let hellos = rig.said.iter().filter(|it| matches!(it, Message::Hello(_))).count();
    assert!(hellos <= 2, "{hellos} Hellos for one of the peer");
}

#[test]
fn a_copy_that_cannot_be_read_is_not_called_different() {
    let mut rig = Rig::primary();
    let command = Command::Verify { repair: true };
    rig.input(Input::Operator { request: 7, command });
    let asked = rig.said.iter().find_map(|it| match it {
        Message::SettleAsk(ask) => Some(ask.chunk),
        _ => None,
    });
    let chunk = asked.expect("the peer is asked for its hashes");
    rig.say(Message::SettleTell(SettleTell { chunk, blocks: None })).unwrap();
    assert_eq!((rig.core.status(rig.now).last_verify, rig.core.dirty().count()), (None, 0));
    assert!(rig.is_open);
}

#[test]
fn askers_of_one_switchover_are_limited() {
    let mut rig = Rig::primary();
    for request in 0..1000 {
        let command = PeerCommand::Switchover;
        rig.say(Message::Ask(Ask { request, command })).unwrap();
    }
    let refused =
        rig.said.iter().filter(|it| matches!(it, Message::Told(told) if told.refused.is_some()));
    assert!(refused.count() >= 900, "{:?}", rig.refusals);
}

#[test]
fn comparisons_asked_for_are_limited_while_the_disk_is_slow() {
    let mut rig = Rig::secondary();
    rig.holds = is_hash;
    for _ in 0..20_000 {
        let ask = SettleAsk { chunk: ChunkIndex(1), sequence: Sequence(0) };
        rig.say(Message::SettleAsk(ask)).unwrap();
    }
    rig.assert_closed("reads");
    assert!(rig.held.len() <= 1024, "{}", rig.held.len());
}

#[test]
fn beginning_anew_does_not_get_around_the_limit_of_reads() {
    let mut rig = Rig::secondary();
    rig.holds = is_hash;
    for _ in 0..20 {
        for _ in 0..100 {
            let ask = SettleAsk { chunk: ChunkIndex(1), sequence: Sequence(0) };
            rig.say(Message::SettleAsk(ask)).unwrap();
        }
        rig.meet(|hello| hello.peer_replica_id = hotpair::units::ReplicaId(0x22));
    }
    assert!(rig.held.len() <= 1024, "{}", rig.held.len());
    assert!(rig.refusals.iter().any(|text| text.contains("reads")), "{:?}", rig.refusals);
}

#[test]
fn a_handover_offered_again_asks_for_no_second_sync() {
    let mut rig = Rig::secondary();
    rig.holds = is_sync;
    for _ in 0..100 {
        let hand = HandOver { epoch: EPOCH, last: Sequence(0), generation: GENERATION };
        rig.say(Message::HandOver(hand)).unwrap();
    }
    assert_eq!(rig.held.len(), 1);
    rig.assert_closed("cannot take over");
}

#[test]
fn a_handover_that_was_given_up_is_offered_again() {
    let mut rig = Rig::secondary();
    for _ in 0..2 {
        rig.said.clear();
        let hand = HandOver { epoch: EPOCH, last: Sequence(0), generation: GENERATION };
        rig.say(Message::HandOver(hand)).unwrap();
        assert!(rig.said.contains(&Message::HandReady(hand)), "{:?}", rig.said);
    }
    assert!(rig.is_open);
}

#[test]
fn many_writes_behind_one_that_waits_cost_nothing() {
    let mut rig = Rig::secondary();
    let size = rig.core.size();
    let write = |sequence: u64, start: u64| {
        Message::Write(Write {
            sequence: Sequence(sequence),
            after: Sequence(0),
            range: ByteRange::new(start, 512, size).unwrap(),
            fua: false,
            payload: Payload::hash(vec![7; 512].into()),
        })
    };
    rig.say(write(1, 8192)).unwrap();
    rig.holds = |effect| matches!(effect, Effect::Write { range, .. } if range.start() == 0);
    rig.say(write(2, 0)).unwrap();
    for sequence in 3..20_000 {
        rig.say(write(sequence, 4096)).unwrap();
        rig.said.clear();
    }
    assert!(rig.is_open, "{:?}", rig.refusals);
    let debug = format!("{:?}", rig.core);
    let beyond = debug.split("applied_beyond: {").nth(1).unwrap().split('}').next().unwrap();
    assert!(beyond.matches("Sequence").count() <= 4, "{beyond}");
    rig.release();
    assert!(rig.is_open);
}

#[test]
fn unsynced_writes_are_limited_while_the_disk_is_slow() {
    let mut rig = Rig::secondary();
    let size = rig.core.size();
    rig.holds = is_sync;
    for sequence in 1..20_000 {
        rig.said.clear();
        rig.say(Message::Write(Write {
            sequence: Sequence(sequence),
            after: Sequence(sequence - 1),
            range: ByteRange::new(0, 512, size).unwrap(),
            fua: true,
            payload: Payload::hash(vec![7; 512].into()),
        }))
        .unwrap();
    }
    rig.assert_closed("unsynced");
}

#[test]
fn a_pledge_that_nobody_can_ask_for_does_nothing() {
    for mut rig in [Rig::primary(), Rig::secondary()] {
        for (number, on) in [(u64::MAX, true), (u64::MAX, false), (0, true), (1, false)] {
            let pledge = Pledge { number, on };
            rig.say(Message::Pledge(pledge)).unwrap();
            rig.say(Message::Pledged(pledge)).unwrap();
        }
        assert!(rig.is_open && !rig.core.superblock().hold);
        assert!(!rig.said.iter().any(|it| matches!(it, Message::Pledge(_) | Message::Pledged(_))));
    }
}

#[test]
fn the_number_of_a_pledge_that_the_peer_asks_for_is_not_counted_on() {
    let controller = ControllerSettings {
        side: Side::Second,
        promotes: true,
        lease: Duration::from_secs(3),
        stop_budget: Duration::ZERO,
        fence: None,
        arbiter_grace: Some(Duration::from_secs(9)),
        identities: [[0; 32]; 2],
        moving: Moving::default(),
        #[cfg(feature = "planted-bugs")]
        planted: None,
    };
    let mut rig =
        Rig::with(Birth::Peer, 1 << 20, |settings| settings.controller = Some(controller));
    rig.meet(|_| {});
    rig.fill();
    rig.said.clear();
    // Both have the same, and the peer says that it has pledged: it is let go, by a number of ours.
    let (number, on) = (u64::MAX, true);
    let mut hello = rig.hello();
    (hello.role, hello.serve_mode) = (Role::Secondary, ServeMode::None);
    (hello.hold, hello.counter) = (true, 2);
    rig.say(Message::Hello(Box::new(hello))).unwrap();
    rig.mirror();
    rig.say(Message::Pledge(Pledge { number, on })).unwrap();
    rig.fill();
    let asked: Vec<_> = rig
        .said
        .iter()
        .filter_map(|it| if let Message::Pledge(pledge) = it { Some(*pledge) } else { None })
        .collect();
    assert_eq!(asked, [Pledge { number: 1, on: false }]);
    assert!(rig.is_open);
}
