//! The one connection between the nodes: frames arrive in order, or the connection is lost.
//!
//! A loss drops what is in flight. Each end learns of it at a moment of its own; until then it
//! speaks into the void. What a node sent before it died or before the loss is either delivered
//! before or not at all, so nothing is left in flight after it.

use std::collections::VecDeque;

use hotpair::replica::LinkId;
use hotpair::wire::message::{Frame, Message};

/// The connection, and how many there were.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Net {
    pub(crate) connections: u8,
    /// How often a node said on this one what it has.
    hellos: u8,
    /// How often one asked the other to flush.
    flushes: u8,
    /// What carries frames; `None` once it is lost.
    alive: Option<LinkId>,
    /// Ends that have not closed it.
    is_open: [bool; 2],
    /// Frames on their way to each node.
    to: [VecDeque<Frame>; 2],
}

impl Net {
    /// Opens the next connection.
    pub(crate) fn connect(&mut self) -> LinkId {
        self.connections += 1;
        let link = LinkId(self.connections.into());
        self.alive = Some(link);
        self.is_open = [true; 2];
        self.hellos = 0;
        self.flushes = 0;
        self.to = Default::default();
        link
    }

    /// Whether the nodes repeat themselves on this connection: they meet again and again while one
    /// waits for the other's consent, and flush again and again while a local write is slow.
    pub(crate) fn is_worn(&self) -> bool {
        self.hellos > HELLOS_MAX || self.flushes > FLUSHES_MAX
    }

    /// Whether there is something to lose.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.is_some()
    }

    /// Whether nothing is on its way and nothing is lost.
    pub(crate) fn is_quiet(&self) -> bool {
        self.alive.is_some() && self.is_open == [true; 2] && self.to.iter().all(VecDeque::is_empty)
    }

    /// The connection is lost.
    pub(crate) fn cut(&mut self) {
        self.alive = None;
        self.to = Default::default();
    }

    /// Node `from` says `frame`.
    pub(crate) fn send(&mut self, from: usize, link: LinkId, frame: Frame) {
        if self.alive == Some(link) && self.is_open == [true; 2] {
            self.hellos += u8::from(matches!(frame.message, Message::Hello(_)));
            self.flushes += u8::from(matches!(frame.message, Message::Flush(_)));
            self.to[1 - from].push_back(frame);
        }
    }

    /// Node `at` closes its end, after what it said before left.
    pub(crate) fn close(&mut self, at: usize, link: LinkId) {
        if self.alive == Some(link) {
            self.is_open[at] = false;
            self.to[at].clear();
            if self.is_open == [false; 2] {
                self.cut();
            }
        }
    }

    /// The next frame for a node whose end is `link`.
    pub(crate) fn has_frame(&self, at: usize, link: LinkId) -> bool {
        self.alive == Some(link) && !self.to[at].is_empty()
    }

    pub(crate) fn take_frame(&mut self, at: usize) -> Option<Frame> {
        self.to[at].pop_front()
    }

    /// Whether a node whose end is `link` can find out that it is lost.
    pub(crate) fn is_lost(&self, at: usize, link: LinkId) -> bool {
        self.alive != Some(link) || (!self.is_open[1 - at] && self.to[at].is_empty())
    }
}

/// Hellos on one connection, and flushes: more than any search needs.
const HELLOS_MAX: u8 = 8;
const FLUSHES_MAX: u8 = 6;
