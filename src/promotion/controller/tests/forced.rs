//! Promotions by force: what is asked, what is done without the arbiter, and what it is told later.

use super::super::Won;
use super::*;

/// What is different about a node.
type Change = fn(&mut Node);

/// A secondary that has lost its peer, whose operator has typed a forced promotion and which has
/// asked the arbiter to look.
fn forcing(accept_data_loss: bool, change: Change) -> Node {
    let mut node = Node::secondary();
    change(&mut node);
    (node.peer, node.claim) = (Standing::Away, None);
    node.look();
    node.answer_view(node.controller.known().unwrap().clone(), Ok(()));
    node.tell(ControllerInput::Force { request: 5, accept_data_loss });
    node
}

impl Node {
    /// How the operator's promotion ended.
    fn settled(&self) -> Option<Result<Won, Obstacle>> {
        self.effects.iter().rev().find_map(|effect| {
            if let ControllerEffect::Settled { request: 5, result } = effect {
                Some(*result)
            } else {
                None
            }
        })
    }

    fn forced_at(&self) -> Option<Epoch> {
        self.effects.iter().rev().find_map(|effect| {
            if let ControllerEffect::Act(Act::Force { epoch, .. }) = effect {
                Some(*epoch)
            } else {
                None
            }
        })
    }

    fn wait_in_vain(&mut self) {
        self.tell(ControllerInput::Timer(ControllerTimer::Repeat));
    }
}

#[test]
fn a_forced_promotion_is_promised_and_asked_for_like_any_other() {
    let mut node = forcing(false, |_| {});
    assert!(matches!(node.asked().operation, Operation::PreVote { .. }));
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Err(Refused::HoldDown));
    let promised = Epoch(65_536);
    assert_eq!(node.record.promised, promised);
    assert_eq!(node.record.arbitration.asked, Some(Asked { first: Epoch(8), last: promised }));
    assert_eq!(node.asked().operation, Operation::Force { floor: Epoch(65_535) });
    assert_eq!((node.asked().epoch, node.forced_at()), (Epoch(4), None));
    let record = granted(&node, promised.0);
    node.answer(Reply::Done(record));
    assert_eq!(node.forced_at(), Some(promised));
    node.record.arbitration.asked = None;
    (node.record.epoch, node.is_primary) = (promised, true);
    node.look();
    assert_eq!(node.settled(), Some(Ok(Won::ByForce { accept_data_loss: false })));
}

#[test]
fn an_owner_that_lives_is_not_forced_out() {
    let mut node = forcing(true, |_| {});
    let record = arbiter_record(8, Side::First, Eligible::Owner);
    let alive = View { lease_remaining_ms: 900, ..view(record, Err(Refused::NotEligible)) };
    node.answer(Reply::View(Box::new(alive)));
    assert_eq!(node.settled(), Some(Err(Obstacle::Arbiter(Refused::PeerAlive))));
    assert_eq!((node.record.promised, node.forced_at()), (Epoch(4), None));
    // It took a lease between the look and the request.
    let mut node = forcing(false, |_| {});
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
    node.answer(Reply::Refused(Refused::PeerAlive));
    assert_eq!(node.settled(), Some(Err(Obstacle::Arbiter(Refused::PeerAlive))));
    assert_eq!(node.forced_at(), None);
    // What was asked for is void as soon as the record is another one.
    node.tell(ControllerInput::Pushed(Box::new(arbiter_record(8, Side::First, Eligible::Owner))));
    assert_eq!(node.record.arbitration.asked, None);
}

#[test]
fn without_an_answer_a_forced_promotion_has_an_epoch_of_the_nodes_own() {
    for asks in [false, true] {
        let mut node = forcing(false, |_| {});
        if asks {
            node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
            assert!(matches!(node.asked().operation, Operation::Force { .. }));
        }
        node.wait_in_vain();
        assert_eq!(node.forced_at(), None, "one answer may be lost by chance");
        node.wait_in_vain();
        // Above what the arbiter may have made of the request that it did not answer.
        let epoch = if asks { Epoch(2 * 65_536 + 2) } else { Epoch(65_536 + 2) };
        assert_eq!(node.forced_at(), Some(epoch));
    }
}

#[test]
fn an_arbiter_that_says_nothing_that_counts_is_done_without() {
    for why in [Refused::NoRecord, Refused::WrongStore, Refused::RolledBack] {
        let mut node = forcing(false, |_| {});
        node.answer(Reply::Refused(why));
        assert_eq!(node.forced_at(), Some(Epoch(65_538)), "{why:?}");
    }
}

#[test]
fn what_may_be_missing_must_be_given_up_in_words() {
    let changes: [(Change, Obstacle); 3] = [
        (|node| node.record.hold = true, Obstacle::Pledged),
        (
            |node| {
                let veto = Veto { reason: VetoReason::NotEligible, epoch: Epoch(4) };
                node.record.veto = Some(veto);
            },
            Obstacle::Vetoed,
        ),
        (|_| {}, Obstacle::Arbiter(Refused::NotEligible)),
    ];
    for (change, obstacle) in changes {
        for accept_data_loss in [false, true] {
            let mut node = forcing(accept_data_loss, change);
            let is_out = obstacle == Obstacle::Arbiter(Refused::NotEligible);
            let eligible = if is_out { Eligible::Owner } else { Eligible::Both };
            node.answer_view(arbiter_record(4, Side::First, eligible), Ok(()));
            let refused = if accept_data_loss { None } else { Some(Err(obstacle)) };
            assert_eq!(node.settled(), refused);
            let is_asked = matches!(node.asked().operation, Operation::Force { .. });
            assert_eq!(is_asked, accept_data_loss, "{obstacle:?}");
        }
    }
}

/// Primary by a force that the arbiter does not know of.
fn out_of_line() -> Node {
    let mut node = Node::new(Side::Second, ServeMode::Solo, Standing::Away);
    node.is_primary = true;
    node.record.forced = true;
    (node.record.epoch, node.record.promised) = (Epoch(65_538), Epoch(65_538));
    node
}

#[test]
fn the_arbiters_record_is_brought_in_line_with_a_force_unless_it_is_past_it() {
    for was_restarted in [false, true] {
        let mut node = out_of_line();
        node.is_primary = !was_restarted;
        node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
        assert_eq!(node.asked().operation, Operation::Force { floor: Epoch(65_538) });
        assert!(!node.has_acted(Act::Resume) && !node.has_acted(Act::StepDown(Epoch(4))));
        let record = granted(&node, 2 * 65_536);
        node.answer(Reply::Done(record));
        assert_eq!(node.record.epoch, Epoch(2 * 65_536));
        if !was_restarted {
            assert_eq!(node.controller.permit(), Some(Permit::ArbiterSolo));
        }
        assert_eq!(node.has_acted(Act::Resume), was_restarted);
    }
    let mut node = out_of_line();
    let record = arbiter_record(2 * 65_536, Side::First, Eligible::Owner);
    node.answer_view(record, Ok(()));
    assert!(node.has_acted(Act::StepDown(Epoch(2 * 65_536))));
}

#[test]
fn nobody_is_promoted_by_a_record_that_is_older_than_what_it_followed() {
    let mut node = Node::secondary();
    (node.record.epoch, node.record.promised) = (Epoch(65_537), Epoch(65_537));
    node.lose_peer();
    node.answer_view(arbiter_record(4, Side::First, Eligible::Both), Ok(()));
    assert_eq!(node.controller.obstacle(&node.facts(), true), Some(Obstacle::ArbiterBehind));
    assert!(node.record.arbitration.asked.is_none() && !node.has_asked_for_promotion());
}

#[test]
fn nobody_resumes_beside_a_primary_that_was_forced() {
    for is_there in [false, true] {
        let mut node = Node::new(Side::Second, ServeMode::Paired, Standing::Meeting);
        let role = if is_there { Role::Primary } else { Role::Secondary };
        node.claim = Some(Claim { role, epoch: Epoch(65_537), promised: Epoch(65_537) });
        node.answer_view(arbiter_record(4, Side::Second, Eligible::Both), Ok(()));
        assert_eq!(node.has_acted(Act::Resume), !is_there);
    }
}

#[test]
fn a_force_waits_until_the_leases_that_this_node_granted_are_over() {
    let mut node = Node::secondary();
    node.tell(ControllerInput::LeaseAsked { instance: PEER, epoch: Epoch(4) });
    (node.peer, node.claim) = (Standing::Away, None);
    node.tell(ControllerInput::Force { request: 5, accept_data_loss: true });
    assert_eq!(node.settled(), Some(Err(Obstacle::GrantHeld)));
    node.tell(ControllerInput::Timer(ControllerTimer::Grant));
    node.tell(ControllerInput::Force { request: 6, accept_data_loss: true });
    node.wait_in_vain();
    node.wait_in_vain();
    node.wait_in_vain();
    assert!(node.forced_at().is_some());
}

#[test]
fn a_node_that_has_never_heard_the_arbiter_can_be_forced() {
    let mut node = Node::new(Side::First, ServeMode::None, Standing::Away);
    node.tell(ControllerInput::Timer(ControllerTimer::HoldDown));
    node.tell(ControllerInput::Force { request: 5, accept_data_loss: false });
    assert!(matches!(node.asked().operation, Operation::Read));
    node.wait_in_vain();
    assert_eq!(node.forced_at(), None);
    node.wait_in_vain();
    assert_eq!(node.forced_at(), Some(Epoch(65_538)));
}
