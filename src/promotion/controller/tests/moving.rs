//! The primary that is to move back, and the node that was promoted too often.

use super::*;
use crate::promotion::controller::{FlapLimit, PeerWord};

const WAIT: Duration = Duration::from_mins(10);

fn after(span: Duration) -> Instant {
    Instant(0).plus(span)
}

fn told(promotions: Option<u8>, is_primary: bool) -> ControllerInput {
    ControllerInput::PeerTold(PeerWord { promotions, is_primary, hears_arbiter: true })
}

impl Node {
    /// As the primary that is not preferred: in sync, with a lease, and both eligible.
    fn away_from_home() -> Self {
        let mut node = Self::new(Side::Second, ServeMode::Paired, Standing::InSync);
        node.is_primary = true;
        node.controller.settings.moving =
            Moving { prefer: Some(Side::First), failback: Some(WAIT), flap_limit: None };
        node
    }

    fn settle_at(&mut self, now: Instant) -> Vec<ControllerEffect> {
        let mut controller = self.controller.clone();
        let mut effects = Vec::new();
        controller.settle(now, &self.facts(), &mut effects);
        self.controller = controller;
        effects
    }

    fn has_moved_back(&mut self, now: Instant) -> bool {
        self.settle_at(now).contains(&ControllerEffect::Act(Act::FailBack))
    }
}

#[test]
fn promotions_count_until_they_are_old_and_pause_when_there_are_too_many() {
    let mut node = Node::new(Side::First, ServeMode::Paired, Standing::Away);
    let limit = FlapLimit { promotions: 2, within: WAIT };
    node.controller.settings.moving.flap_limit = Some(limit);
    assert_eq!(node.controller.promotions_known(), None, "it may have forgotten some");
    node.tell(told(Some(1), false));
    assert_eq!(node.controller.promotions_known(), Some(1), "the first word is believed");
    node.tell(told(Some(9), false));
    assert_eq!(node.controller.promotions_known(), Some(1), "a later one only of a primary");
    node.settle_at(after(WAIT / 2));
    assert_eq!((node.controller.promotions_known(), node.controller.flap_pause()), (Some(1), None));
    node.settle_at(after(WAIT));
    assert_eq!(node.controller.promotions_known(), Some(0), "it is old");
    node.controller.begin_counting(false, Some(Side::First));
    node.controller.count_promotion(false);
    node.controller.count_promotion(false);
    assert_eq!(node.controller.promotions_known(), Some(1), "each counts once");
    node.tell(told(Some(2), true));
    assert!(node.controller.flap_pause().is_some());
    let obstacle = node.controller.obstacle(&node.facts(), false);
    assert_ne!(obstacle, None);
    // What the primary says goes, also if it is less.
    node.tell(told(Some(0), true));
    assert_eq!((node.controller.promotions_known(), node.controller.flap_pause()), (Some(0), None));
}

#[test]
fn an_operator_ends_the_pause_and_what_the_peer_said_before_does_not_begin_it_anew() {
    let mut node = Node::new(Side::First, ServeMode::Paired, Standing::Away);
    node.controller.settings.moving.flap_limit = Some(FlapLimit { promotions: 1, within: WAIT });
    node.tell(told(Some(3), false));
    assert!(node.controller.flap_pause().is_some());
    node.controller.count_promotion(true);
    assert_eq!(node.controller.flap_pause(), None);
    node.tell(told(Some(3), false));
    assert_eq!(node.controller.flap_pause(), None);
}

#[test]
fn a_promotion_that_moves_nothing_is_not_counted() {
    let mut node = Node::new(Side::First, ServeMode::Paired, Standing::Away);
    node.controller.settings.moving.flap_limit = Some(FlapLimit { promotions: 1, within: WAIT });
    node.controller.begin_counting(false, Some(Side::Second));
    node.controller.count_promotion(false);
    assert_eq!(node.controller.promotions_counted(), 0, "it was this node's own");
    node.controller.begin_counting(true, Some(Side::First));
    node.controller.count_promotion(true);
    assert_eq!(node.controller.promotions_counted(), 0, "an operator asked");
}

#[test]
fn the_role_moves_back_after_the_time_without_an_event_and_waits_again() {
    let mut node = Node::away_from_home();
    let known = Box::new(arbiter_record(4, Side::Second, Eligible::Both));
    node.tell(ControllerInput::Pushed(known));
    assert!(!node.has_moved_back(after(2 * WAIT)), "without a lease");
    node.tell(ControllerInput::LeaseGranted { asked: Instant(0) });
    assert!(!node.has_moved_back(after(2 * WAIT)), "the arbiter may not answer the peer");
    node.tell(told(Some(0), false));
    assert!(!node.has_moved_back(Instant(0)));
    assert!(!node.has_moved_back(after(WAIT / 2)));
    assert!(node.has_moved_back(after(WAIT)));
    assert!(!node.has_moved_back(after(WAIT + WAIT / 2)), "as long again");
    // Whatever happens begins the time anew.
    node.controller.is_silent = true;
    assert!(!node.has_moved_back(after(3 * WAIT)));
    node.controller.is_silent = false;
    assert!(!node.has_moved_back(after(3 * WAIT)));
    assert!(node.has_moved_back(after(4 * WAIT)));
}
