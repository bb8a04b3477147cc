//! A primary that says of its own run that it serves nothing more.

use super::super::PeerWord;
use super::{
    Act, ControllerInput, Eligible, Epoch, Facts, Node, Operation, Reply, Side, Standing,
    arbiter_record,
};
use crate::promotion::arbiter::ArbiterRecord;
use crate::units::Instant;

/// Its peer has said that the arbiter answers it.
fn primary() -> Node {
    let mut node = Node::primary();
    assert!(!node.controller.can_give_way(&node.facts()), "does the arbiter answer the peer?");
    let word = PeerWord { hears_arbiter: true, ..PeerWord::default() };
    node.tell(ControllerInput::PeerTold(word));
    node
}

/// It gave way at epoch 4, and its peer is away.
fn gave_way() -> Node {
    let mut node = primary();
    let facts = node.facts();
    assert!(node.controller.can_give_way(&facts));
    let mut controller = node.controller.clone();
    controller.give_way(Instant(7), &facts);
    node.controller = controller;
    (node.is_primary, node.peer) = (false, Standing::Away);
    node
}

fn mine(epoch: u64, node: &Node) -> Box<ArbiterRecord> {
    let mut record = arbiter_record(epoch, Side::Second, Eligible::Both);
    record.requests[1] = node.asked().id;
    record.changed_by = Side::Second;
    Box::new(record)
}

#[test]
fn the_same_run_serves_again_only_at_an_epoch_that_it_asked_for_afterwards() {
    let mut node = gave_way();
    assert_eq!(node.controller.gave_way(), Some(Epoch(4)));
    node.look();
    assert!(!node.has_acted(Act::Resume), "at the epoch of which it said that it serves nothing");
    assert!(!node.controller.may_resume_in_session(&node.facts()), "nor by the peer's word");
    // What was asked before is answered, and changes nothing.
    if !matches!(node.asked().operation, Operation::Keep) {
        let record = Box::new(arbiter_record(4, Side::Second, Eligible::Both));
        node.answer(Reply::Lease { lease_ms: 3000, record });
    }
    assert!(matches!(node.asked().operation, Operation::Keep), "{:?}", node.asked());
    let record = mine(8, &node);
    node.answer(Reply::Done(record));
    assert_eq!(node.record.epoch, Epoch(8));
    assert!(node.has_acted(Act::Resume));
}

#[test]
fn a_disk_that_does_not_answer_asks_for_nothing() {
    let node = gave_way();
    let facts = Facts { is_disk_unfit: true, ..node.facts() };
    let known = node.controller.known().unwrap().clone();
    assert!(node.controller.owner_wants(&known, &facts).is_none());
    let facts = node.facts();
    assert_eq!(node.controller.owner_wants(&known, &facts), Some(Operation::Keep));
}

#[test]
fn nobody_gives_way_to_a_peer_that_would_not_be_promoted() {
    let node = primary();
    for peer in [Standing::Away, Standing::Apart, Standing::Behind, Standing::Needed] {
        let facts = Facts { peer, ..node.facts() };
        assert!(!node.controller.can_give_way(&facts), "{peer:?}");
    }
    for (eligible, stopped) in [(Eligible::Owner, false), (Eligible::Both, true)] {
        let mut node = primary();
        let mut record = arbiter_record(8, Side::Second, eligible);
        record.stopped = stopped;
        node.tell(ControllerInput::Pushed(Box::new(record)));
        assert!(!node.controller.can_give_way(&node.facts()), "{eligible:?} {stopped}");
    }
    let mut node = primary();
    node.controller.settings.promotes = false;
    assert!(!node.controller.can_give_way(&node.facts()), "an operator promotes");
}
