//! Requests and replies beside the beats: when each is sent, and which of the peer count.
//!
//! A request goes out at once and then with each tick, on every path, as long as the resource wants it:
//! never more than one for each tick and path. A reply goes out once for each request that was taken,
//! and a request is taken once, whatever paths it came on.

use crate::replica::{OutdateAnswer, OutdateAsk};
use crate::units::{Epoch, Instance};
use crate::wire::heartbeat::HeartbeatKey;
use crate::wire::heartbeat::{ENTRIES_MAX, Sender};
use crate::wire::outdate::{ExchangeEntry, ExchangeHead, seal_reply, seal_request};

/// What one resource has to say; its data thread writes it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct OutdateSays {
    /// It asks the peer to veto itself.
    pub ask: Option<OutdateAsk>,
    /// It has vetoed itself, and the how manieth answer of this run that is.
    pub answer: Option<(u64, OutdateAnswer)>,
}

/// What is sent of requests and replies. Told the time by ticks; no I/O.
#[derive(Debug)]
pub(super) struct Exchange {
    tags: Vec<u64>,
    /// By resource: what was asked last, unless nothing is.
    asked: Vec<Option<OutdateAsk>>,
    /// By resource: the last answer that was sent.
    answered: Vec<u64>,
    /// A request went out since the last tick.
    has_asked: bool,
    /// Datagrams of this run.
    count: u64,
}

/// What is to be sent on every path.
#[derive(Debug)]
pub(super) struct Exchanges {
    number: u64,
    to: Instance,
    entries: Vec<ExchangeEntry>,
    pub(super) is_reply: bool,
}

impl Exchange {
    pub(super) fn new(tags: Vec<u64>) -> Self {
        let count = tags.len();
        Self {
            tags,
            asked: vec![None; count],
            answered: vec![0; count],
            has_asked: false,
            count: 0,
        }
    }

    /// What has to be said now, to the run `to` of the peer.
    pub(super) fn due(
        &mut self,
        says: &[OutdateSays],
        to: Option<Instance>,
        is_tick: bool,
    ) -> Vec<Exchanges> {
        let is_new = says.iter().zip(&self.asked).any(|(says, asked)| says.ask != *asked);
        let may_ask = if is_tick { !std::mem::take(&mut self.has_asked) } else { !self.has_asked };
        // Nobody is there to be asked; and what was answered is asked again.
        let Some(to) = to else { return Vec::new() };
        let mut due = Vec::new();
        if may_ask && (is_tick || is_new) {
            let asks = self.tags.iter().zip(says).filter_map(|(tag, says)| {
                let OutdateAsk { number: ask, epoch } = says.ask?;
                Some(ExchangeEntry { tag: *tag, epoch, promised: Epoch(0), ask })
            });
            let asks: Vec<_> = asks.collect();
            for (asked, says) in self.asked.iter_mut().zip(says) {
                *asked = says.ask;
            }
            self.has_asked = !is_tick && !asks.is_empty();
            self.push(&mut due, to, &asks, false);
        }
        let mut answers = Vec::new();
        for ((tag, says), answered) in self.tags.iter().zip(says).zip(&mut self.answered) {
            let Some((number, answer)) = says.answer else { continue };
            // A run that is over hears nothing.
            if std::mem::replace(answered, number) != number && answer.to == to {
                let OutdateAnswer { ask, promised, .. } = answer;
                let (epoch, ask) = (ask.epoch, ask.number);
                answers.push(ExchangeEntry { tag: *tag, epoch, promised, ask });
            }
        }
        self.push(&mut due, to, &answers, true);
        due
    }

    fn push(
        &mut self,
        due: &mut Vec<Exchanges>,
        to: Instance,
        entries: &[ExchangeEntry],
        is_reply: bool,
    ) {
        for some in entries.chunks(ENTRIES_MAX) {
            self.count += 1;
            due.push(Exchanges { number: self.count, to, entries: some.to_vec(), is_reply });
        }
    }
}

impl Exchanges {
    /// The datagram for one path.
    pub(super) fn seal(&self, key: &HeartbeatKey, sender: Sender, path: usize) -> Vec<u8> {
        let path = u8::try_from(path).expect("at most 9 paths");
        let head = ExchangeHead { path, to: self.to, number: self.number };
        let seal = if self.is_reply { seal_reply } else { seal_request };
        seal(key, sender, head, &self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Option<Instance> = Some(Instance(2));

    fn asks(number: u64) -> OutdateSays {
        OutdateSays { ask: Some(OutdateAsk { number, epoch: Epoch(8) }), answer: None }
    }

    #[test]
    fn a_request_goes_out_at_once_and_then_once_a_tick() {
        let mut exchange = Exchange::new(vec![7]);
        let mut sent = |says: OutdateSays, is_tick: bool| {
            let due = exchange.due(&[says], PEER, is_tick);
            due.iter().map(|it| (it.number, it.entries[0].ask)).collect::<Vec<_>>()
        };
        assert_eq!(sent(OutdateSays::default(), true), []);
        assert_eq!(sent(asks(1), false), [(1, 1)]);
        assert_eq!(sent(asks(1), false), [], "nothing is new");
        assert_eq!(sent(asks(2), false), [], "one in each interval");
        assert_eq!(sent(asks(2), true), [], "the one of this interval went out");
        assert_eq!(sent(asks(2), true), [(2, 2)]);
        assert_eq!(sent(asks(2), true), [(3, 2)]);
        assert_eq!(sent(OutdateSays::default(), false), []);
        assert_eq!(sent(asks(3), false), [(4, 3)]);
    }

    #[test]
    fn a_reply_goes_out_once_and_to_who_asked() {
        let mut exchange = Exchange::new(vec![7]);
        let answer = |number: u64, to: u64| {
            let ask = OutdateAsk { number: 4, epoch: Epoch(8) };
            let answer = OutdateAnswer { to: Instance(to), ask, promised: Epoch(8) };
            OutdateSays { ask: None, answer: Some((number, answer)) }
        };
        let mut sent = |says: OutdateSays| exchange.due(&[says], PEER, false).len();
        assert_eq!([sent(answer(1, 2)), sent(answer(1, 2))], [1, 0]);
        assert_eq!([sent(answer(2, 2)), sent(answer(3, 9))], [1, 0]);
        assert!(exchange.due(&[asks(1)], None, false).is_empty(), "nobody is there");
    }
}
