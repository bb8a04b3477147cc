//! "Veto yourself" by datagram: what a primary whose connection is dead asks its peer.
//!
//! Such datagrams pass whether or not the connection does. An ask is repeated until it is withdrawn,
//! so it may arrive at any moment until then, and an answer at any moment after it was given.

use hotpair::replica::{Input, OutdateAnswer, OutdateAsk, OutdateNews, OutdateOrder};

use crate::bounds::Bounds;
use crate::ghost::Broken;
use crate::pair::{Action, Pair};
use crate::third::Word;

/// What is on its way.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Datagrams {
    /// What each node asks its peer.
    asks: [Option<OutdateAsk>; 2],
    /// The newest answer to each node.
    answers: [Option<OutdateAnswer>; 2],
}

impl Datagrams {
    /// The process of that node ended.
    pub(crate) fn forget(&mut self, at: usize) {
        self.asks[at] = None;
    }
}

impl Pair {
    pub(crate) fn datagrams_under_way(&self, actions: &mut Vec<Action>) {
        let Some(third) = &self.third else { return };
        for at in 0..2 {
            if self.nodes[at].process.is_none() {
                continue;
            }
            if third.left.datagrams > 0 && third.datagrams.asks[1 - at].is_some() {
                actions.push(Action::Word(Word::OutdateAsk { to: at }));
            }
            if third.datagrams.answers[at].is_some() {
                actions.push(Action::Word(Word::OutdateAnswer { to: at }));
            }
        }
    }

    /// What the driver of node `at` is told to do.
    #[expect(clippy::unnecessary_wraps, reason = "as other effects are carried out")]
    pub(crate) fn outdates(&mut self, at: usize, order: OutdateOrder) -> Result<(), Broken> {
        let datagrams = &mut self.third().datagrams;
        match order {
            OutdateOrder::Ask(ask) => datagrams.asks[at] = ask,
            OutdateOrder::Answer(answer) => datagrams.answers[1 - at] = Some(answer),
        }
        Ok(())
    }

    pub(crate) fn ask_to_outdate(&mut self, to: usize, bounds: &Bounds) -> Result<(), Broken> {
        let by = self.instance(1 - to).expect("it runs, since it asks");
        let third = self.third();
        third.left.datagrams -= 1;
        let ask = third.datagrams.asks[1 - to].expect("it asks");
        self.step(to, Input::Outdate(OutdateNews::Asked { by, ask }), bounds)
    }

    pub(crate) fn answer_outdated(&mut self, to: usize, bounds: &Bounds) -> Result<(), Broken> {
        let answer = self.third().datagrams.answers[to].take().expect("one is there");
        if self.instance(to) != Some(answer.to) {
            return Ok(());
        }
        let OutdateAnswer { ask, promised, .. } = answer;
        self.step(to, Input::Outdate(OutdateNews::Answered { ask, promised }), bounds)
    }
}
