//! What must happen somewhere in a search, so that what holds in all of it says something.

use stateright::Property;

use hotpair::units::{DiskState, ServeMode, VetoReason};

use crate::bounds::Bounds;
use crate::node::{Ask, Node};
use crate::pair::Pair;

/// One thing that some state must show.
pub(crate) struct Fact {
    pub(crate) name: &'static str,
    pub(crate) is_so: fn(&Bounds, &Pair) -> bool,
}

/// All of them.
pub(crate) const FACTS: &[Fact] = &[
    Fact {
        name: "a write is acknowledged by both",
        is_so: |_, pair| pair.answers(ServeMode::Paired, |what| matches!(what, Ask::Write(_))),
    },
    Fact {
        name: "a write is acknowledged alone",
        is_so: |_, pair| pair.answers(ServeMode::Solo, |what| matches!(what, Ask::Write(_))),
    },
    Fact {
        name: "a read is answered",
        is_so: |_, pair| {
            let is_read = |what: Ask| what == Ask::Read;
            pair.answers(ServeMode::Paired, is_read) || pair.answers(ServeMode::Solo, is_read)
        },
    },
    Fact {
        name: "a flush is answered by both",
        is_so: |_, pair| pair.answers(ServeMode::Paired, |what| what == Ask::Flush),
    },
    Fact {
        name: "a node goes on alone",
        is_so: |_, pair| pair.is_told(0, "solo", "") || pair.is_told(1, "solo", ""),
    },
    Fact {
        name: "the second node is promoted by force",
        is_so: |_, pair| pair.is_told(1, "role-changed", "forced by an operator"),
    },
    Fact {
        name: "the second node is promoted with consent",
        is_so: |_, pair| pair.is_told(1, "role-changed", ": by an operator"),
    },
    Fact {
        name: "the role is handed over",
        is_so: |_, pair| pair.is_told(0, "role-changed", "handed over"),
    },
    Fact {
        name: "the first node is demoted",
        is_so: |_, pair| pair.is_told(0, "role-changed", "demoted by an operator"),
    },
    Fact {
        name: "the first node resumes",
        is_so: |_, pair| pair.is_told(0, "role-changed", "it was primary"),
    },
    Fact {
        name: "a primary steps down",
        is_so: |_, pair| pair.is_told(0, "role-changed", "the peer is primary at epoch"),
    },
    Fact {
        name: "the first node is resynced",
        is_so: |_, pair| pair.is_told(0, "verdict", "target of a resync"),
    },
    Fact {
        name: "the second node is resynced",
        is_so: |_, pair| pair.is_told(1, "verdict", "target of a resync"),
    },
    Fact {
        name: "the first node gets a replay",
        is_so: |_, pair| pair.is_told(0, "verdict", "target of a replay"),
    },
    Fact {
        name: "the second node gets a replay",
        is_so: |_, pair| pair.is_told(1, "verdict", "target of a replay"),
    },
    Fact {
        name: "both are in sync again",
        is_so: |_, pair| pair.is_told(0, "in-sync", "") || pair.is_told(1, "in-sync", ""),
    },
    Fact {
        name: "a node that lost power says that it is doubtful",
        is_so: |_, pair| (0..2).any(|at| pair.is_told(at, "started", "outdated")),
    },
    Fact {
        name: "split brain is found",
        is_so: |_, pair| pair.is_told(0, "split-brain", "") || pair.is_told(1, "split-brain", ""),
    },
    Fact {
        name: "a split brain is settled",
        is_so: |_, pair| {
            let settled = |at| pair.is_told(at, "in-sync", "");
            (settled(0) || settled(1)) && pair.left.commands == 0 && pair.ghost.is_settled
        },
    },
    Fact {
        name: "a node is stopped cleanly",
        is_so: |_, pair| pair.nodes.iter().any(|it| it.process.is_none() && it.files.record.clean),
    },
    Fact {
        name: "a target dies inconsistent",
        is_so: |_, pair| {
            let is_torn = |disk| disk == DiskState::Inconsistent;
            pair.nodes.iter().any(|it| it.process.is_none() && is_torn(it.files.record.disk))
        },
    },
    Fact {
        name: "the second node asks to be promoted",
        is_so: |_, pair| pair.nodes[1].files.record.arbitration.asked.is_some(),
    },
    Fact {
        name: "a node follows again what it left",
        is_so: |_, pair| {
            let follows = |node: &Node| {
                let record = &node.files.record;
                record.arbitration.asked.is_some_and(|asked| record.promised < asked.last)
            };
            pair.nodes.iter().any(follows)
        },
    },
    Fact {
        name: "the arbiter promotes the second node",
        is_so: |_, pair| pair.is_told(1, "role-changed", ": by the arbiter"),
    },
    Fact {
        name: "the arbiter says that a node resumes",
        is_so: |_, pair| {
            (0..2).any(|at| pair.is_told(at, "role-changed", "the arbiter says it owns it"))
        },
    },
    Fact {
        name: "a node goes on alone by the arbiter",
        is_so: |_, pair| (0..2).any(|at| pair.is_told(at, "going-solo", "ArbiterSolo")),
    },
    Fact {
        name: "a node goes on alone by the peer's veto",
        is_so: |_, pair| (0..2).any(|at| pair.is_told(at, "going-solo", "PeerVeto")),
    },
    Fact {
        name: "a node goes on alone by the pledge",
        is_so: |_, pair| (0..2).any(|at| pair.is_told(at, "going-solo", "Pledged")),
    },
    Fact {
        name: "the pledge is lifted",
        is_so: |_, pair| {
            (0..2).any(|at| pair.is_told(at, "pledge-changed", "may be promoted again"))
        },
    },
    Fact {
        name: "a node's record is lost",
        is_so: |_, pair| {
            let is_lost = |node: &Node| {
                let veto = node.files.record.veto;
                veto.is_some_and(|veto| veto.reason == VetoReason::RecordLost)
            };
            pair.nodes.iter().any(is_lost)
        },
    },
    Fact {
        name: "a primary waits for the arbiter",
        is_so: |_, pair| (0..2).any(|at| pair.is_told(at, "writes-held", "")),
    },
    Fact {
        name: "a primary has no lease",
        is_so: |_, pair| {
            let is_withheld = |node: &Node| {
                let process = node.process.as_ref().filter(|it| it.export.is_some());
                process.is_some_and(|it| !it.core.may_answer_reads())
            };
            pair.nodes.iter().any(is_withheld)
        },
    },
    Fact {
        name: "a node has a veto",
        is_so: |_, pair| pair.nodes.iter().any(|node| node.files.record.veto.is_some()),
    },
    Fact {
        name: "a handover is under way",
        is_so: |_, pair| {
            let hands_over = |mode| mode == ServeMode::HandingOver;
            pair.nodes.iter().any(|node| hands_over(node.files.record.serve_mode))
        },
    },
    Fact {
        name: "both are eligible again",
        is_so: |_, pair| {
            let asks = |pair: &Pair| pair.third.as_ref().and_then(|third| third.was_paired());
            asks(pair) == Some(true)
        },
    },
];

impl Pair {
    /// Whether the last step answered such a request with success, in that mode.
    fn answers(&self, mode: ServeMode, is_meant: fn(Ask) -> bool) -> bool {
        self.told.answered.is_some_and(|(at, what, is_ok)| {
            is_ok && is_meant(what) && self.nodes[at].files.record.serve_mode == mode
        })
    }

    /// Whether the last step told people that, on node `at`.
    fn is_told(&self, at: usize, kind: &str, words: &str) -> bool {
        let fits = |it: &(usize, &str, String)| it.0 == at && it.1 == kind && it.2.contains(words);
        self.told.events.iter().any(fits)
    }
}

/// The property that a state shows the fact of this name.
pub(crate) fn sometimes(name: &'static str) -> Property<Bounds> {
    let fact = FACTS.iter().find(|fact| fact.name == name).expect("a fact of this name");
    Property::sometimes(fact.name, fact.is_so)
}
