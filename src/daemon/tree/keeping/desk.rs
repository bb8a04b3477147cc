//! The part of the data thread: what is asked of the worker, and what follows from what it says.

use super::super::orders::{Order, Report};
use super::super::{Deed, Service, TreeDesk};
use super::WayBack;
use crate::manifest::source::Closed;
use crate::replica::{Answer, Input, KeptGeneration};
use crate::units::{Instant, TreeNumber, TreePosition};

impl TreeDesk {
    /// Whether an earlier generation is on its way back into the tree.
    pub(in super::super) fn goes_back(&self) -> bool {
        self.keeping.goes_back
    }

    /// A secondary looks from time to time whether its tree is what its index says.
    pub(in super::super) fn compare(&mut self, now: Instant) {
        let is_target = self.session.is_some_and(|session| !session.is_source);
        let since = *self.keeping.compared_at.get_or_insert(now);
        if is_target
            && self.service == Service::Off
            && !self.target.is_applying()
            && now.since(since) >= self.keeping.every
        {
            self.keeping.compared_at = Some(now);
            self.order(Order::Compare);
        }
    }

    /// This node follows another one. Whatever that serves counts, and a tree that an operator went back on, or
    /// that somebody else has written to, is nothing to take over with until the other one was brought here. A new
    /// session is not told again.
    pub(in super::super) fn note_overtaken(&mut self) {
        let has_foreign = std::mem::take(&mut self.keeping.has_foreign);
        let why = if self.keeping.way_back == WayBack::Gone {
            self.keeping.way_back = WayBack::Overtaken;
            "the tree went back to an earlier generation, and the other node leads"
        } else if has_foreign {
            "somebody else has written to the tree"
        } else {
            return;
        };
        self.input(Input::FellBack { why: why.to_owned() });
    }

    /// An operator asks what the tree can go back to.
    pub(in super::super) fn on_generations(&mut self, request: u64) {
        self.order(Order::Generations { request });
    }

    /// An operator wants an earlier generation back. It is brought as a new one into the tree of this node; the
    /// peer gets it once this node serves.
    pub(in super::super) fn on_rollback(&mut self, request: u64, to: u64) {
        let name = &self.name;
        let status = format!("hotpair status {name}");
        let refused = if !matches!(self.service, Service::Off | Service::Looking | Service::Lending)
        {
            let why = "this node serves the tree, and it must not change under whoever uses it";
            Some((why, format!("hotpair demote {name}")))
        } else if self.session.is_some_and(|session| session.is_source) {
            let why = "the other node is being brought to the generation of this one";
            Some((why, status))
        } else if self.session.is_some() {
            let why = "the other node serves the tree, and this one follows it";
            Some((why, format!("hotpair demote {name} (on the other node)")))
        } else if self.target.is_applying() || self.keeping.goes_back {
            Some(("the tree is on its way to another generation", status))
        } else {
            None
        };
        if let Some((why, next)) = refused {
            return self.refuse(request, why.to_owned(), next);
        }
        self.keeping.goes_back = true;
        self.order(Order::RollBack { request, to: TreeNumber(to) });
    }

    pub(in super::super) fn on_keeping_report(&mut self, report: Report) {
        match report {
            Report::Foreign { count, first } => self.on_foreign(count, &first),
            Report::Usage(usage) => self.keeping.usage = usage,
            Report::Dropped { numbers, freed_bytes } => {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                let reason = format!(
                    "for want of room generations {} cannot be gone back to any more; {freed_bytes} \
                     bytes are free by that",
                    numbers.join(", ")
                );
                self.deeds.push_back(Deed::Event { kind: "generations-dropped", reason });
            }
            Report::CutOff { numbers } => {
                let numbers: Vec<_> = numbers.iter().map(ToString::to_string).collect();
                let reason = format!(
                    "generations {} cannot be gone back to any more: all of the other node's tree was \
                     taken since, or what was kept cannot be read",
                    numbers.join(", ")
                );
                self.deeds.push_back(Deed::Event { kind: "generations-dropped", reason });
            }
            Report::Generations { request, result } => self.answer_generations(request, result),
            Report::WentBack { request, result } => self.on_went_back(request, result),
            Report::Serves { .. }
            | Report::Lends { .. }
            | Report::Rests { .. }
            | Report::Captured { .. }
            | Report::CaptureFailed { .. }
            | Report::Halted { .. }
            | Report::Taken
            | Report::Checked { .. }
            | Report::Wants { .. }
            | Report::AllStaged { .. }
            | Report::StageFailed { .. }
            | Report::Garbled { .. }
            | Report::Prepared { .. }
            | Report::Committed(_)
            | Report::Applied { .. }
            | Report::Failed { .. } => {}
        }
    }

    /// The copy is no generation until the peer has brought it to one. That is said before a new session asks. Of a
    /// node that serves by now it is of no account: what its tree is comes into its next generation.
    fn on_foreign(&mut self, count: usize, first: &str) {
        if !self.rests() {
            return;
        }
        self.rested = Some(TreePosition::default());
        let more = match count.saturating_sub(1) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let why = format!(
            "somebody else has written to the tree of this secondary: {first}{more}; the primary's \
             tree is brought here, and what is foreign goes to lost+hotpair"
        );
        self.deeds.push_back(Deed::Event { kind: "foreign-writes", reason: why });
        self.keeping.has_foreign = true;
        // Whoever lends its tree is followed because nobody has a better one.
        if self.session.is_some_and(|session| !session.is_source) {
            self.note_overtaken();
        }
    }

    fn answer_generations(&mut self, request: u64, result: Result<Vec<KeptGeneration>, String>) {
        match result {
            Ok(generations) => {
                let text = match generations.len() {
                    0 => "there is no complete generation on this node".to_owned(),
                    1 => "nothing is kept before the current generation".to_owned(),
                    count => format!("{} generations before the current one are kept", count - 1),
                };
                let answer = Answer { generations: Some(generations), ..Answer::new(text) };
                self.deeds.push_back(Deed::Answer { request, result: Ok(answer) });
            }
            Err(why) => {
                let next = format!("hotpair status {}", self.name);
                self.refuse(request, why, next);
            }
        }
    }

    fn on_went_back(&mut self, request: u64, result: Result<(TreePosition, TreeNumber), String>) {
        self.keeping.goes_back = false;
        match result {
            Ok((position, to)) => {
                if self.rests() {
                    self.keeping.way_back = WayBack::Gone;
                    let label = crate::units::Label::Fuzzy;
                    self.keeping.own = Some(Closed { position, label, fuzzy_count: 0 });
                }
                // The peer has nothing of that number, so it is nothing that a peer can build on.
                self.rested = Some(TreePosition::default());
                let text = format!(
                    "the tree has the content of generation {to}, as generation {}; promote this node \
                     to serve it and to bring it to the other one",
                    position.number
                );
                self.deeds.push_back(Deed::Answer { request, result: Ok(Answer::new(text)) });
            }
            Err(why) => {
                let next = format!("hotpair generations {}", self.name);
                self.refuse(request, why, next);
            }
        }
        self.release_syncs();
        self.greet();
    }
}
