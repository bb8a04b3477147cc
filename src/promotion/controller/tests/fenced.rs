//! The winner fences the old owner.

use super::*;
use crate::promotion::controller::FenceUse;
use crate::promotion::fencing::FenceAnswer;

/// A secondary whose promotion was granted at epoch 8 while the owner was silent.
fn winner(fence: FenceUse, stop_budget: Duration, request: Option<u64>) -> Node {
    let mut node = Node::secondary();
    node.controller.settings.fence = Some(fence);
    node.controller.settings.stop_budget = stop_budget;
    node.lose_peer();
    if let Some(request) = request {
        node.tell(ControllerInput::Promote { request });
    }
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
    let record = granted(&node, 8);
    node.answer(Reply::Done(record));
    node
}

fn answer(node: &mut Node, run: u64, code: i32) {
    node.tell(ControllerInput::Fence { run, answer: FenceAnswer::Exit(code) });
}

fn runs(node: &Node) -> usize {
    node.effects.iter().filter(|it| matches!(it, ControllerEffect::Fence(_))).count()
}

#[test]
fn what_is_required_is_confirmed_before_anything_is_served() {
    let mut node = winner(FenceUse::Required, Duration::ZERO, None);
    assert_eq!(runs(&node), 1);
    assert_eq!(node.controller.fence_obstacle(), Some(Obstacle::Fencing));
    for (run, code) in [(1, 5), (2, 4), (3, 6)] {
        answer(&mut node, run, code);
        let told = Obstacle::NotFenced(FenceAnswer::Exit(code));
        assert_eq!(node.controller.fence_obstacle(), Some(told));
        node.tell(ControllerInput::Timer(ControllerTimer::Fence));
    }
    assert_eq!(runs(&node), 4);
    assert!(!node.has_acted(Act::Promote(Epoch(8))));
    answer(&mut node, 4, 0);
    assert!(node.has_acted(Act::Promote(Epoch(8))));
}

#[test]
fn an_old_owner_that_says_itself_that_it_serves_nothing_is_not_waited_for() {
    let mut node = winner(FenceUse::Required, Duration::ZERO, None);
    answer(&mut node, 1, 5);
    node.peer = Standing::Meeting;
    node.look();
    assert!(!node.has_acted(Act::Promote(Epoch(8))), "it has said nothing yet");
    node.claim = Some(Claim { role: Role::Secondary, epoch: Epoch(4), promised: Epoch(4) });
    node.look();
    assert!(node.has_acted(Act::Promote(Epoch(8))));
}

#[test]
fn an_operator_is_told_of_the_first_failure_and_the_promotion_goes_on() {
    let mut node = winner(FenceUse::Required, Duration::ZERO, Some(77));
    answer(&mut node, 1, 5);
    let why = Obstacle::NotFenced(FenceAnswer::Exit(5));
    let told = ControllerEffect::Settled { request: 77, result: Err(why) };
    assert!(node.effects.contains(&told));
    node.tell(ControllerInput::Timer(ControllerTimer::Fence));
    answer(&mut node, 2, 7);
    assert!(node.has_acted(Act::Promote(Epoch(8))));
}

#[test]
fn at_best_it_takes_the_place_of_the_time_to_stop() {
    let budget = Duration::from_secs(9);
    let mut node = winner(FenceUse::BestEffort, budget, None);
    assert_eq!(runs(&node), 1);
    assert!(!node.has_acted(Act::Promote(Epoch(8))));
    answer(&mut node, 1, 0);
    assert!(node.has_acted(Act::Promote(Epoch(8))));
    let mut node = winner(FenceUse::BestEffort, budget, None);
    answer(&mut node, 1, 5);
    node.tell(ControllerInput::Timer(ControllerTimer::Fence));
    assert_eq!(runs(&node), 1, "it is tried once");
    assert!(!node.has_acted(Act::Promote(Epoch(8))));
    node.tell(ControllerInput::Timer(ControllerTimer::StopBudget));
    assert!(node.has_acted(Act::Promote(Epoch(8))));
}

#[test]
fn a_loser_fences_nobody() {
    let mut node = Node::secondary();
    node.controller.settings.fence = Some(FenceUse::Required);
    node.lose_peer();
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
    node.answer(Reply::Conflict(Box::new(arbiter_record(8, Side::First, Eligible::Owner))));
    assert_eq!(runs(&node), 0);
}

#[test]
fn an_answer_that_was_lost_does_not_save_the_old_owner() {
    let mut node = Node::secondary();
    node.controller.settings.fence = Some(FenceUse::Required);
    node.lose_peer();
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
    // It was granted, and the record is all that is seen of it: the node asks anew.
    node.answer(Reply::Conflict(Box::new(arbiter_record(8, Side::Second, Eligible::Owner))));
    node.answer_view(arbiter_record(8, Side::Second, Eligible::Owner), Ok(()));
    let record = granted(&node, 12);
    node.answer(Reply::Done(record));
    assert_eq!(runs(&node), 1);
    assert!(!node.has_acted(Act::Promote(Epoch(12))));
}
