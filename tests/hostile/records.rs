//! What a peer says that ends in this node's record.

use hotpair::metadata::Birth;
use hotpair::units::{DiskState, Epoch, Generation, Resolution, Sequence, VetoReason};
use hotpair::wire::{
    Ack, AckStage, Ask, Flush, HandOver, Message, Outdate, PeerCommand, ResyncEnd, Write,
};

use crate::rig::{EPOCH, GENERATION, Rig};

#[test]
fn a_transfer_cannot_end_in_a_generation_that_has_no_id() {
    let mut rig = Rig::target();
    for generation in [Generation { number: 3, id: 0 }, Generation { number: 0, id: 0xabc }] {
        let end = ResyncEnd { generation, history: Vec::new() };
        assert!(rig.say(Message::ResyncEnd(end)).is_err());
        let end = ResyncEnd { generation: GENERATION, history: vec![generation] };
        assert!(rig.say(Message::ResyncEnd(end)).is_err());
    }
    assert_eq!(rig.core.superblock().disk, DiskState::Inconsistent);
}

#[test]
fn a_transfer_cannot_end_in_data_that_is_not_what_it_began_with() {
    let other = Generation { number: 4, id: 0x999 };
    let mut rig = Rig::target();
    rig.say(Message::ResyncEnd(ResyncEnd { generation: other, history: vec![other] })).unwrap();
    rig.assert_closed("ResyncEnd");
    assert_eq!(rig.core.superblock().disk, DiskState::Inconsistent);
    // A source that went on alone meanwhile has a child of it.
    let mut rig = Rig::target();
    let end = ResyncEnd { generation: other, history: vec![GENERATION] };
    rig.say(Message::ResyncEnd(end)).unwrap();
    assert_eq!(rig.core.superblock().generation, Some(other));
    assert_eq!(rig.core.superblock().disk, DiskState::UpToDate);
}

#[test]
fn no_number_near_the_end_of_its_type_gets_past_the_wire() {
    let mut rig = Rig::secondary();
    let most = Sequence(u64::MAX);
    let range = rig.core.size().whole();
    let write = Write {
        sequence: most,
        after: Sequence(0),
        range: hotpair::units::ByteRange::new(range.start(), 4096, rig.core.size()).unwrap(),
        fua: false,
        payload: hotpair::wire::Payload::hash(vec![1; 4096].into()),
    };
    assert!(rig.say(Message::Write(write)).is_err());
    assert!(rig.say(Message::Flush(Flush { request: 1, covers: most })).is_err());
    let ack = Ack { sequence: most, stage: AckStage::Applied };
    assert!(rig.say(Message::Acks(vec![ack])).is_err());
    let epoch = Epoch(u64::MAX);
    let outdate = Outdate { epoch, reason: VetoReason::Evicted };
    assert!(rig.say(Message::Outdate(outdate)).is_err());
    let hand = HandOver { epoch, last: Sequence(0), generation: GENERATION };
    assert!(rig.say(Message::HandOver(hand)).is_err());
    assert_eq!(rig.core.superblock().promised, EPOCH);
    assert!(rig.is_open, "the link closes it, the core was not even told");
}

#[test]
fn a_promotion_above_the_highest_epoch_that_is_taken_is_higher() {
    let mut rig = Rig::secondary();
    let outdate = Outdate { epoch: Epoch::TAKEN_MAX, reason: VetoReason::Evicted };
    rig.say(Message::Outdate(outdate)).unwrap();
    assert_eq!(rig.core.superblock().promised, Epoch::TAKEN_MAX);
    let command = hotpair::replica::Command::Promote { force: true, accept_data_loss: true };
    rig.input(hotpair::replica::Input::LinkLost { link: hotpair::replica::LinkId(1) });
    rig.input(hotpair::replica::Input::Operator { request: 1, command });
    assert!(rig.core.superblock().epoch > Epoch::TAKEN_MAX);
}

#[test]
fn a_resolution_counts_only_in_a_split_brain() {
    let mut rig = Rig::primary();
    let generation = rig.core.superblock().generation.unwrap();
    let resolution = Resolution { kept: generation, dropped: generation };
    let command = PeerCommand::Resolve(resolution);
    rig.say(Message::Ask(Ask { request: 1, command })).unwrap();
    assert!(rig.core.accepts_requests(), "it serves on");
    assert_eq!(rig.core.superblock().resolution, None);
    let told = rig.said.iter().any(|it| {
        matches!(it, Message::Told(told) if told.refused.as_deref() == Some("there is no split brain"))
    });
    assert!(told, "{:?}", rig.said);
}

#[test]
fn changes_of_the_record_do_not_pile_up_behind_a_slow_disk() {
    let mut rig = Rig::secondary();
    rig.holds = |effect| matches!(effect, hotpair::replica::Effect::WriteSuperblock { .. });
    for step in 0..1000 {
        let outdate = Outdate { epoch: Epoch(EPOCH.0 + 4 * step), reason: VetoReason::Evicted };
        rig.say(Message::Outdate(outdate)).unwrap();
    }
    rig.assert_closed("changes");
    rig.release();
    assert!(rig.core.superblock().promised < Epoch(EPOCH.0 + 4 * 100));
}

#[test]
fn a_new_replica_tells_a_peer_without_history_nothing_wrong() {
    let mut rig = Rig::new(Birth::Peer);
    rig.connect();
    let mut hello = rig.hello();
    hello.generation = Some(Generation { number: 1, id: 0 });
    assert!(rig.say(Message::Hello(Box::new(hello))).is_err());
    assert_eq!(rig.core.superblock().resync_source, None);
}
