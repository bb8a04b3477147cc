//! The searches with an arbiter.

use crate::bounds::{Begin, Bounds, Left, Quick};
use crate::pair::{Action, Pair, Typed, Wanted};
use crate::search::{holds, search};
use crate::third::{Third, ThirdLeft, Word};
use hotpair::promotion::arbiter::Eligible;
use hotpair::promotion::controller::ControllerTimer;

impl Bounds {
    /// The first node serves, both are eligible, and both of its leases hold.
    pub(crate) fn first_state_with_arbiter(&self) -> Pair {
        let plenty = ThirdLeft { looks: 99, beats: 99, epochs: 99, ..ThirdLeft::default() };
        let sound = Self {
            flaw: None,
            third: Some(plenty),
            only: None,
            is_clock_broken: false,
            #[cfg(feature = "planted-bugs")]
            planted: None,
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
        pair.goes(Action::Word(Word::Beat { to: 1 }), &sound);
        if self.begin != Begin::InSync {
            pair.goes(Action::Ask { at: 0, what: Wanted::Write }, &sound);
        }
        pair.left = Left { next_request: pair.left.next_request, ..self.left };
        if let Some(third) = &mut pair.third {
            third.left = self.third.expect("there is an arbiter");
        }
        pair
    }
}

impl Pair {
    fn goes(&mut self, action: Action, bounds: &Bounds) {
        *self = self.happens(action, bounds).expect("nothing refuses it");
        self.settles(bounds);
        assert_eq!(self.broken, None, "while the first state is made, after {action:?}");
    }
}

const ALL_QUICK: Quick = Quick { data: true, records: true, frames: true, words: false };

/// A node dies, and the other one goes on.
pub(crate) fn node_loss() -> Bounds {
    Bounds {
        left: Left { writes: 2, kills: 1, connections: 1, ..Left::default() },
        third: Some(ThirdLeft { looks: 2, suspicions: 1, epochs: 3, ..ThirdLeft::default() }),
        quick: ALL_QUICK,
        mortal: &[0, 1],
        ..Bounds::nothing("node loss", Begin::InSync)
    }
}

#[test]
fn a_node_that_dies_is_replaced() {
    holds(&node_loss());
}
