//! Clients that ask for more at once than the peer takes.

use hotpair::replica::{Effect, Input, Request, RequestId, RequestKind};
use hotpair::units::{ByteRange, ReplicationMode, ZeroKind};
use hotpair::wire::{Ack, AckStage, Message, Payload};

use crate::rig::Rig;

fn ask(rig: &mut Rig, id: u64, kind: RequestKind) {
    let epoch = rig.core.superblock().epoch;
    rig.input(Input::Request { epoch, request: Request { id: RequestId(id), kind } });
}

/// Writes that the core sent and of which the peer said nothing.
fn sent(rig: &Rig) -> Vec<u64> {
    let sequence = |message: &Message| match message {
        Message::Write(write) => Some(write.sequence.0),
        Message::Zero(zero) => Some(zero.sequence.0),
        _ => None,
    };
    rig.said.iter().filter_map(sequence).collect()
}

fn acknowledge(rig: &mut Rig, sequences: &[u64]) {
    let ack = |sequence: &u64| Ack {
        sequence: hotpair::units::Sequence(*sequence),
        stage: AckStage::Applied,
    };
    rig.said.clear();
    rig.say(Message::Acks(sequences.iter().map(ack).collect())).unwrap();
}

#[test]
fn a_secondary_that_falls_behind_is_not_sent_more_than_it_takes() {
    let mut rig = Rig::primary_with(1 << 20, |settings| {
        settings.mode = ReplicationMode::Async;
        settings.in_flight_parts_max = 64;
    });
    rig.said.clear();
    let size = rig.core.size();
    for id in 0..200 {
        let range = ByteRange::new(id * 4096, 4096, size).unwrap();
        let parts = vec![Payload::hash(vec![7; 4096].into())];
        ask(&mut rig, id, RequestKind::Write { range, parts, fua: false });
    }
    let mut answered = 0;
    for _ in 0..10 {
        let sequences = sent(&rig);
        assert!(sequences.len() <= 64, "{} writes are sent", sequences.len());
        answered += sequences.len();
        acknowledge(&mut rig, &sequences);
    }
    assert_eq!((answered, rig.replies), (200, 200));
}

#[test]
fn zeroes_of_any_length_stay_within_the_unflushed_window() {
    let len = 512 << 20;
    let mut rig = Rig::primary_with(len, |settings| settings.unflushed_blocks_max = 64);
    rig.said.clear();
    let range = rig.core.size().whole();
    ask(
        &mut rig,
        1,
        RequestKind::Zero { range, kind: ZeroKind::Trim, fua: false, fast_only: false },
    );
    let mut all = 0;
    for _ in 0..100 {
        let sequences = sent(&rig);
        assert!(sequences.len() <= 1, "each is longer than the window");
        all += sequences.len();
        let flushes: Vec<_> = rig
            .said
            .iter()
            .filter_map(|it| if let Message::Flush(flush) = it { Some(*flush) } else { None })
            .collect();
        acknowledge(&mut rig, &sequences);
        for flush in flushes {
            rig.say(Message::FlushDone(flush)).unwrap();
        }
    }
    assert_eq!((all, rig.replies), (8, 1));
}

#[test]
fn a_slow_disk_here_does_not_make_the_peer_flush_without_end() {
    let mut rig = Rig::primary_with(1 << 20, |settings| settings.unflushed_blocks_max = 8);
    rig.said.clear();
    rig.holds = |effect| matches!(effect, Effect::Write { .. });
    for id in 0..6 {
        let range = ByteRange::new(id * 4096, 4096, rig.core.size()).unwrap();
        let parts = vec![Payload::hash(vec![7; 4096].into())];
        ask(&mut rig, id, RequestKind::Write { range, parts, fua: false });
    }
    let ack = |sequence: u64| Ack {
        sequence: hotpair::units::Sequence(sequence),
        stage: AckStage::Applied,
    };
    let acks = sent(&rig).into_iter().map(ack).collect();
    rig.say(Message::Acks(acks)).unwrap();
    let asked = |rig: &Rig| {
        rig.said.iter().find_map(|it| if let Message::Flush(it) = it { Some(*it) } else { None })
    };
    let mut flushes = 0;
    while let Some(flush) = asked(&rig).filter(|_| flushes < 100) {
        flushes += 1;
        rig.said.clear();
        rig.say(Message::FlushDone(flush)).unwrap();
    }
    assert!(flushes <= 1, "{flushes} flushes, and none could clear a mark");
    rig.release();
    let flush = asked(&rig).expect("the window is bounded once the disk has written");
    rig.say(Message::FlushDone(flush)).unwrap();
    assert_eq!(rig.core.dirty().count(), 0);
}
