//! What a data thread asks its peer, and answers it, by datagram.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{Notify, mpsc, watch};

use crate::heartbeat::OutdateSays;
use crate::replica::{Input, OutdateNews, OutdateOrder};

/// The ends of one resource.
#[derive(Debug)]
pub(super) struct OutdateEnds {
    pub(super) says: watch::Sender<OutdateSays>,
    pub(super) news: mpsc::Receiver<OutdateNews>,
    /// What is said anew does not wait for the next tick.
    pub(super) wake: Arc<Notify>,
    /// Where it brings what a new session of the nodes is known by; `None` where another resource
    /// does so.
    pub(super) sessions: Option<mpsc::Sender<[u8; 32]>>,
}

impl OutdateEnds {
    /// Takes what the peer said.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, inputs: &mut VecDeque<Input>) {
        while let Poll::Ready(Some(news)) = self.news.poll_recv(cx) {
            inputs.push_back(Input::Outdate(news));
        }
    }

    pub(super) fn order(&self, order: OutdateOrder) {
        self.says.send_modify(|says| match order {
            OutdateOrder::Ask(ask) => says.ask = ask,
            OutdateOrder::Answer(answer) => {
                let number = says.answer.map_or(0, |(number, _)| number) + 1;
                says.answer = Some((number, answer));
            }
        });
        self.wake.notify_one();
    }

    /// The nodes have a session: both know this of it, and nobody else does.
    pub(super) fn new_session(&self, exporter: [u8; 32]) {
        if let Some(sessions) = &self.sessions {
            // One that is not taken brings no secret; another one will.
            let _ = sessions.try_send(exporter);
        }
    }
}
