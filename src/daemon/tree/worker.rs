//! The thread that has the tree of a node in its hands: captures it, or brings it what the peer sends.
//!
//! It does one order after the other and decides nothing. What is staged is held across orders by the
//! function that stages, which therefore takes the orders itself for as long.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as plain;

use tokio::sync::mpsc;
use tracing::{info, warn};

use super::super::clock;
use super::committing::refusal_of;
use super::keeping::{FLAGS_LEN, Wanted, captured, list, set_went_back, tell, went_back};
use super::orders::{Ahead, Order, Report};
use super::sender::ToSender;
use super::start::time_of_day;
use crate::manifest::source::{CaptureEnd, Closed, Register};
use crate::manifest::target::{Attempt, CommitEnd, Preparation, Refusal};
use crate::manifest::{
    Allowed, Deletes, Due, Guard, Held, Keep, MARKER, Pace, REGISTER_BLOCK_LEN, Remedy, RootFacts,
    Window, decode_register, encode_register, guard, label,
};
use crate::store::tree::apply::{Moment, REGISTER_LEN};
use crate::store::tree::capture::{CaptureError, Captured, Progress, Subject, capture};
use crate::store::tree::index::Rows;
use crate::store::tree::receive::{
    Foreign, Incoming, Limits, Prepare, Prepared, Received, Staging,
};
use crate::store::tree::reconcile::Reading;
use crate::store::tree::target::{Quarantined, Target, TargetError};
use crate::store::tree::{Folder, Observer};
use crate::units::{CHUNK_LEN, Epoch, Label, ObjectId, TreeNumber, TreePosition};
use crate::wire::{Packing, TREE_CHUNKS_MAX, TreeRefusal, WantedChunks};

/// Which directory the path has to lead to.
#[derive(Clone, Debug)]
pub(super) struct RootMark {
    pub(super) path: PathBuf,
    /// What the root carries.
    pub(super) marker: Vec<u8>,
}

impl RootMark {
    /// Whether the path still leads to `root`, which is held.
    fn facts(&self, root: &Folder) -> Result<RootFacts, CaptureError> {
        let held = root.look_at_self().map_err(CaptureError::Root)?;
        let names = root.list().map_err(CaptureError::Root)?.names.len() as u64;
        let found = Folder::open(&self.path).ok();
        let look = found.as_ref().and_then(|found| found.look_at_self().ok());
        let is_on_filesystem = look.is_some_and(|look| look.mount == held.mount);
        let is_same_object = look.is_some_and(|look| look.stamp.identity == held.stamp.identity);
        let marker = found.as_ref().and_then(marker_of);
        let has_marker = marker.is_some_and(|marker| marker == self.marker);
        Ok(RootFacts { has_marker, is_on_filesystem, is_same_object, names })
    }
}

/// What says whose tree a directory is.
pub(super) fn marker_of(root: &Folder) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let len = rustix::fs::fgetxattr(root, MARKER, &mut value).ok()?;
    value.truncate(len);
    Some(value)
}

/// What does not change while the daemon runs.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) name: String,
    pub(super) root: RootMark,
    pub(super) pace: Pace,
    pub(super) allowed: Allowed,
    /// Events of the kernel are used.
    pub(super) events: bool,
    /// The epoch in which the daemon started, for the quarantine.
    pub(super) epoch: Epoch,
    /// The number that the register had at the start.
    pub(super) at_least: TreeNumber,
    /// The node lost power while something was written: stamps prove nothing.
    pub(super) lost_power: bool,
    /// How many earlier generations are kept.
    pub(super) wanted: Wanted,
}

/// The thread.
pub(super) struct Worker {
    pub(super) target: Target,
    pub(super) terms: Terms,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) sender: plain::SyncSender<ToSender>,
    pub(super) progress: Arc<Progress>,
    pub(super) observer: Option<Observer>,
    /// What the last generation was closed as.
    pub(super) newest: Option<Closed>,
    /// So many deletes an operator has accepted, for one generation.
    pub(super) accepted: Option<u64>,
    /// What is in the quarantine, and how much was brought there by then.
    pub(super) counted: Option<(u64, Quarantined)>,
    pub(super) ahead: Arc<Ahead>,
    /// The tree is to be compared with its index, or what an earlier comparison left of it.
    pub(super) is_compare_wanted: bool,
    /// What travelled compressed, while it is used; as long as one message at most.
    pub(super) unpacked: Vec<u8>,
}

/// What is held from one order to the next.
#[derive(Default)]
pub(super) struct UnderWay {
    delta: Option<Delta>,
    /// To be done before those that wait.
    behind: VecDeque<Order>,
    committed: Option<Box<Prepared>>,
}

/// A delta on its way.
enum Delta {
    Receiving(Attempt, Box<Incoming>),
    /// A record was refused: what else comes of it is dropped.
    Refused(Attempt),
    Prepared(Attempt, Box<Prepared>),
}

/// What came of staging.
enum Staged {
    Prepared(Box<Prepared>),
    /// The tree is not what the index says.
    Foreign(Vec<Foreign>),
    /// Given up, for an order that is still to be done, if there is one.
    Dropped(Option<Order>),
}

impl Worker {
    /// Runs until the data thread is gone.
    pub(super) fn run(mut self) {
        let mut under_way = UnderWay::default();
        self.say_usage();
        while let Some(order) = self.next_order(&mut under_way) {
            self.carry_out(order, &mut under_way);
        }
    }

    fn next_order(&mut self, under_way: &mut UnderWay) -> Option<Order> {
        if let Some(order) = under_way.behind.pop_front() {
            return Some(order);
        }
        while self.is_compare_due(under_way) {
            match self.orders.try_recv() {
                Ok(order) => return Some(order),
                Err(mpsc::error::TryRecvError::Empty) => self.compare(),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
            }
        }
        self.orders.blocking_recv()
    }

    /// Whether there is time to compare the tree. What is staged is for the tree as the index has it, so that is
    /// brought to its end first.
    pub(super) fn is_compare_due(&self, under_way: &UnderWay) -> bool {
        self.is_compare_wanted && under_way.delta.is_none() && under_way.committed.is_none()
    }

    /// Does what one order says.
    pub(super) fn carry_out(&mut self, order: Order, under_way: &mut UnderWay) {
        let UnderWay { delta, behind, committed } = under_way;
        match order {
            Order::Serve => self.serve(),
            Order::Lend => self.lend(),
            Order::Rest { at } => self.rest(at),
            Order::Capture { everything, is_quiesced } => self.capture(everything, is_quiesced),
            Order::Touch { object } => self.touch(object),
            Order::AcceptDeletes { count } => self.accepted = Some(count),
            Order::Begin { attempt, base } => *delta = Some(self.begin(attempt, base)),
            Order::Push { attempt, packing, records } => {
                *delta = self.push(delta.take(), attempt, (packing, records.bytes()));
                self.say(Report::Taken);
            }
            Order::End { attempt, position, label } => match delta.take() {
                Some(Delta::Receiving(of, incoming)) if of == attempt => {
                    match self.end(attempt, *incoming, (position, label)) {
                        Staged::Prepared(prepared) => {
                            *delta = Some(Delta::Prepared(attempt, prepared));
                        }
                        Staged::Foreign(_) => {}
                        Staged::Dropped(order) => behind.extend(order),
                    }
                }
                other => *delta = other,
            },
            Order::Commit { attempt, register } => match delta.take() {
                Some(Delta::Prepared(of, prepared)) if of == attempt => {
                    *committed = self.commit(prepared, &register);
                }
                other => {
                    *delta = other;
                    let words = "it is not prepared any more".to_owned();
                    let refusal = Refusal { why: TreeRefusal::Position, words };
                    self.say(Report::Committed(CommitEnd::Refused(refusal)));
                }
            },
            Order::Apply => self.apply(committed.take()),
            Order::Drop { attempt } => {
                *delta = delta.take().filter(|delta| delta.attempt() != attempt);
            }
            Order::Compare => self.is_compare_wanted = true,
            Order::Generations { request } => self.list(request),
            Order::RollBack { request, to } => {
                // What is prepared starts from what the tree is now.
                *delta = None;
                self.go_back(request, to);
            }
            // Of a delta that was given up.
            Order::StageMore { .. } | Order::Put { .. } | Order::Prepare { .. } => {}
        }
    }

    fn list(&self, request: u64) {
        let result = match &self.observer {
            Some(_) => Ok(self.newest.map(captured).into_iter().collect()),
            None => list(&self.target, &self.terms),
        };
        self.say(Report::Generations { request, result });
    }

    pub(super) fn say(&self, report: Report) {
        // Without a data thread the next order is none, and this thread ends.
        let _ = self.reports.blocking_send(report);
    }

    pub(super) fn fail(&self, what: &str, error: &dyn std::error::Error) {
        let why = format!("{what}: {}", in_one_line(error));
        warn!(%why, "the tree cannot be used");
        self.say(Report::Failed { why });
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { epoch: self.terms.epoch, now: time_of_day() }
    }

    /// From here on somebody may write to the tree, which the records say before that.
    fn serve(&mut self) {
        self.is_compare_wanted = false;
        let mut register = local_register(None, true);
        register[REGISTER_LEN - 2] = u8::from(self.terms.lost_power);
        // Until a generation is captured only this node has what it went back to.
        if went_back(&self.target.applier().records().register) {
            set_went_back(&mut register);
        }
        if let Err(error) = self.target.applier_mut().write_register(&register) {
            return self.fail("the records of the tree cannot be written", &error);
        }
        let work = self.target.applier().work();
        // The data thread looks by itself: a hint has to settle anyway.
        let started = Observer::start(work, self.terms.events, clock::now, || ());
        let observer = match started {
            Ok(observer) => observer,
            Err(errno) => {
                let error = std::io::Error::from(errno);
                return self.fail("the tree cannot be watched", &error);
            }
        };
        let look = observer.look();
        self.observer = Some(observer);
        if let Err(error) = self.raise_number() {
            return self.fail("the index of the tree cannot be written", &error);
        }
        if self.terms.lost_power {
            // What was written last may be on the disk under a stamp that is older.
            let at_least = self.terms.at_least;
            match self.target.survey(Reading::Everything, at_least, &self.progress) {
                Ok(_) => self.terms.lost_power = false,
                Err(error) => return self.fail("the tree cannot be read anew", &error),
            }
        }
        let newest = match self.fresh_view() {
            Ok(position) if position == TreePosition::default() => None,
            Ok(position) => {
                let known = self.newest.filter(|closed| closed.position == position);
                let unknown = Closed { position, label: Label::Fuzzy, fuzzy_count: 0 };
                Some(known.unwrap_or(unknown))
            }
            Err(error) => return self.fail("the index of the tree cannot be read", &error),
        };
        self.say(Report::Serves { newest, look });
    }

    /// Nobody has written to the tree since it was the generation that the records name.
    fn lend(&mut self) {
        self.is_compare_wanted = false;
        let position = self.target.position();
        let recorded = closed_of(&self.target.applier().records().register);
        let recorded = recorded.filter(|it| self.target.is_known() && it.position == position);
        if recorded.is_some()
            && let Err(error) = self.fresh_view()
        {
            return self.fail("the index of the tree cannot be read", &error);
        }
        self.say(Report::Lends { newest: recorded });
    }

    /// No number is used twice, also by a node whose index was lost.
    fn raise_number(&self) -> Result<(), TargetError> {
        let applied = self.target.applier().records().applied.position.number;
        let at_least = applied.max(self.terms.at_least);
        let mine = self.target.index().view()?.position()?;
        if mine.number < at_least {
            let raised = TreePosition { number: at_least, ..mine };
            self.target.index().change(|tables| tables.put_position(raised))?;
        }
        Ok(())
    }

    fn rest(&mut self, at: Option<Closed>) {
        self.observer = None;
        let _ = self.sender.send(ToSender::Forget);
        let mine = self.target.index().view().and_then(|view| view.position());
        let mine = mine.unwrap_or_default();
        let mut position = TreePosition::default();
        if let Some(closed) = at.filter(|closed| closed.position == mine) {
            position = mine;
            let register = Register::Complete { position: closed.position, label: closed.label };
            let register = local_register(Some(&register), false);
            if let Err(error) = self.target.adopt(Some(&register)) {
                return self.fail("the records of the tree cannot be written", &error);
            }
            self.newest = Some(closed);
        } else {
            self.target.doubt();
        }
        self.say(Report::Rests { position });
    }

    /// Gives the sender the index as it is now.
    fn fresh_view(&self) -> Result<TreePosition, TargetError> {
        let view = self.target.index().view()?;
        let position = view.position()?;
        let _ = self.sender.send(ToSender::Fresh(Box::new(view)));
        Ok(position)
    }

    fn capture(&mut self, everything: bool, is_quiesced: bool) {
        let Some(observer) = &mut self.observer else {
            let why = "the tree is not watched".to_owned();
            return self.say(Report::CaptureFailed { oldest: None, why });
        };
        let mut due = observer.take_due(clock::now(), self.terms.pace);
        due.everything |= everything;
        let oldest = due.oldest;
        let was_full = due.everything;
        let terms = (&self.terms, self.accepted);
        let captured = capture_tree(&self.target, observer, due, terms, &self.progress);
        match captured {
            Ok(captured) => self.captured(captured, (oldest, was_full), is_quiesced),
            Err(CaptureError::Halted { guard: Guard::Halt { reason, next } }) => {
                let next = match next {
                    Remedy::AcceptDeletes { count } => {
                        format!(
                            "hotpair resume-resync {} --accept-deletes {count}",
                            self.terms.name
                        )
                    }
                    Remedy::Rebuild => {
                        format!("hotpair init {} --from this --rebuild", self.terms.name)
                    }
                };
                self.say(Report::Halted { oldest, why: reason.to_string(), next });
            }
            Err(error @ (CaptureError::Sync(_) | CaptureError::Index(_))) => {
                self.fail("the tree cannot be captured", &error);
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "the tree was not captured");
                self.say(Report::CaptureFailed { oldest, why: in_one_line(&error) });
            }
        }
    }

    fn captured(
        &mut self,
        captured: Captured,
        (oldest, was_full): (Option<crate::units::Instant>, bool),
        is_quiesced: bool,
    ) {
        self.accepted = None;
        let held = if is_quiesced { Held::Application } else { Held::Nobody };
        let found = closed_as(&captured, held);
        // What was seen again as it was keeps the better of two labels.
        let before = self.newest.filter(|it| it.position == found.position);
        let closed = match before {
            Some(before) if before.label > found.label => before,
            Some(_) | None => found,
        };
        self.newest = Some(closed);
        if let Err(error) = self.fresh_view() {
            return self.fail("the index of the tree cannot be read", &error);
        }
        let entries = self.target.index().view().and_then(|view| view.name_count());
        let end = CaptureEnd { closed, is_new: captured.is_new, oldest, was_full };
        let entries = entries.unwrap_or_default();
        self.say(Report::Captured { end, captured: Box::new(captured), entries });
    }

    /// The file is to be looked at under all its names.
    fn touch(&self, object: ObjectId) {
        let places = self.target.index().view().and_then(|view| view.places_of(object, usize::MAX));
        let (Some(observer), Ok(places)) = (&self.observer, places) else { return };
        for (directory, name) in places {
            observer.touch(clock::now(), directory, name);
        }
    }

    fn begin(&mut self, attempt: Attempt, base: Option<TreePosition>) -> Delta {
        // A view of when this node lent its tree would keep what the index replaces.
        let _ = self.sender.send(ToSender::Forget);
        let base = base.unwrap_or_default();
        let begun = if base == self.target.position() && self.target.is_known() {
            self.target.begin(Limits::default())
        } else if base == TreePosition::default() {
            self.begin_whole()
        } else {
            let words = format!("this tree is at generation {}", self.target.position().number);
            let refusal = Refusal { why: TreeRefusal::Position, words };
            self.say(Report::Checked { attempt, result: Err(refusal) });
            return Delta::Refused(attempt);
        };
        match begun {
            Ok(incoming) => Delta::Receiving(attempt, Box::new(incoming)),
            Err(error) => {
                self.refuse(attempt, &error);
                Delta::Refused(attempt)
            }
        }
    }

    /// The peer sends all of its tree, because nobody knows what it and this one have in common. What
    /// only this node has is set aside, unless all of it is a generation that the peer had, too.
    fn begin_whole(&mut self) -> Result<Incoming, TargetError> {
        if !self.target.is_known() {
            let reading =
                if self.terms.lost_power { Reading::Everything } else { Reading::Changes };
            let found = self.target.survey(reading, TreeNumber(0), &self.progress)?;
            info!(generation = found.position.number.0, "the tree was read");
        }
        // What an operator went back to only this node has, and nothing leads to it afterwards.
        let is_own = went_back(&self.target.applier().records().register);
        let keep = match self.target.generation()? {
            Some(_) if !is_own => Keep::Undo,
            Some(_) | None => Keep::Quarantine,
        };
        self.target.begin_whole(Limits::default(), keep)
    }

    /// Says that a delta is not taken, and whether that is the fault of this node's disk.
    fn refuse(&self, attempt: Attempt, error: &TargetError) {
        info!(error = %in_one_line(error), "a generation is not taken");
        match refusal_of(error) {
            Some(refusal) => self.say(Report::StageFailed { attempt, refusal }),
            None => self.fail("a generation cannot be taken", error),
        }
    }

    fn push(
        &mut self,
        delta: Option<Delta>,
        attempt: Attempt,
        (packing, records): (Packing, &[u8]),
    ) -> Option<Delta> {
        let Some(Delta::Receiving(of, mut incoming)) = delta else { return delta };
        if of != attempt {
            return Some(Delta::Receiving(of, incoming));
        }
        let mut unpacked = std::mem::take(&mut self.unpacked);
        let pushed = match packing.content(records, &mut unpacked) {
            Some(records) => incoming.push_all(records).map_err(Some),
            None => Err(None),
        };
        self.unpacked = unpacked;
        match pushed {
            Ok(()) => return Some(Delta::Receiving(of, incoming)),
            Err(Some(error)) => self.refuse(attempt, &error.into()),
            Err(None) => self.say(Report::Garbled { attempt }),
        }
        Some(Delta::Refused(attempt))
    }

    /// All records are there: checks them together, stages what they tell of, and plans.
    fn end(
        &mut self,
        attempt: Attempt,
        incoming: Incoming,
        (position, label): (TreePosition, Label),
    ) -> Staged {
        let received = match self.target.end(incoming, position) {
            Ok(received) => received,
            Err(error) => {
                self.refuse(attempt, &error);
                return Staged::Dropped(None);
            }
        };
        self.say(Report::Checked { attempt, result: Ok(()) });
        match self.stage(attempt, received) {
            Ok(Staged::Prepared(prepared)) => match self.make_ready(prepared, label) {
                Ok(prepared) => {
                    self.say(Report::Prepared { attempt, result: Preparation::Ready });
                    Staged::Prepared(prepared)
                }
                Err(error) => {
                    self.make_room(&error);
                    self.refuse(attempt, &error);
                    Staged::Dropped(None)
                }
            },
            Ok(Staged::Foreign(found)) => {
                self.met_foreign(attempt, &found);
                Staged::Dropped(None)
            }
            Ok(dropped @ Staged::Dropped(_)) => dropped,
            Err(error) => {
                self.make_room(&error);
                self.refuse(attempt, &error);
                Staged::Dropped(None)
            }
        }
    }

    /// Makes all stable that a commit needs.
    fn make_ready(
        &mut self,
        mut prepared: Box<Prepared>,
        label: Label,
    ) -> Result<Box<Prepared>, TargetError> {
        // When its capture began only its source knows: this is when all of it was here.
        (prepared.label, prepared.captured_at) = (label, time_of_day());
        self.target.make_ready(&prepared)?;
        Ok(prepared)
    }

    /// What the delta touches is not what the index says.
    fn met_foreign(&mut self, attempt: Attempt, found: &[Foreign]) {
        warn!(count = found.len(), first = ?found.first(), "the tree was changed by somebody else");
        if let Some(it) = found.iter().find(|it| it.why.is_obstacle()) {
            // No generation can be brought here before that ends.
            let words = tell(&self.target, it);
            let result = Preparation::Refused(Refusal { why: TreeRefusal::Kind, words });
            return self.say(Report::Prepared { attempt, result });
        }
        self.say(Report::Prepared { attempt, result: Preparation::Foreign });
        self.found_foreign(found);
    }

    /// Takes orders until all is staged and planned, or given up.
    fn stage(&mut self, attempt: Attempt, received: Received) -> Result<Staged, TargetError> {
        let Self { target, orders, reports, terms, unpacked, is_compare_wanted, .. } = self;
        let say = |report| {
            let _ = reports.blocking_send(report);
        };
        let mut staging: Staging<'_> = target.stage(received)?;
        let mut is_all_found = false;
        let mut is_told = false;
        while let Some(order) = orders.blocking_recv() {
            match order {
                Order::StageMore { attempt: of, chunks_max } if of == attempt => {
                    let limit = usize::try_from(chunks_max).unwrap_or(usize::MAX);
                    let wants = staging.wants(limit)?;
                    is_all_found = wants.is_all;
                    let chunks = runs_of(&wants.chunks);
                    say(Report::Wants { attempt, chunks, is_all: wants.is_all });
                }
                Order::Put { attempt: of, table, packing, bytes } if of == attempt => {
                    let Some(bytes) = packing.content(bytes.bytes(), unpacked) else {
                        say(Report::Garbled { attempt });
                        return Ok(Staged::Dropped(None));
                    };
                    let mut at = 0;
                    for place in table {
                        let end = at + usize::try_from(place.len).unwrap_or(usize::MAX);
                        let part = bytes.get(at..end).unwrap_or_default();
                        staging.put_chunk(place.object, place.chunk, part)?;
                        at = end;
                    }
                }
                Order::Prepare { attempt: of } if of == attempt => {
                    return Ok(match target.prepare(staging)? {
                        Prepare::Ready(prepared) => Staged::Prepared(prepared),
                        Prepare::Foreign(_, found) => Staged::Foreign(found),
                    });
                }
                Order::Drop { attempt: of } if of == attempt => return Ok(Staged::Dropped(None)),
                // Of deltas before this one.
                Order::Drop { .. }
                | Order::StageMore { .. }
                | Order::Put { .. }
                | Order::Prepare { .. } => {}
                Order::Compare => *is_compare_wanted = true,
                Order::Generations { request } => {
                    let result = list(target, terms);
                    say(Report::Generations { request, result });
                }
                other => return Ok(Staged::Dropped(Some(other))),
            }
            if is_all_found && !is_told && staging.unfinished().is_none() {
                is_told = true;
                say(Report::AllStaged { attempt });
            }
        }
        Ok(Staged::Dropped(None))
    }
}

impl Delta {
    fn attempt(&self) -> Attempt {
        match self {
            Self::Receiving(attempt, _) | Self::Refused(attempt) | Self::Prepared(attempt, _) => {
                *attempt
            }
        }
    }
}

fn capture_tree(
    target: &Target,
    observer: &mut Observer,
    due: Due,
    (terms, accepted): (&Terms, Option<u64>),
    progress: &Progress,
) -> Result<Captured, CaptureError> {
    let agreement = target.agreement();
    let root = target.applier().root();
    let facts = terms.root.facts(root)?;
    let allowed = terms.allowed;
    let go = move |deletes: Deletes| guard(&facts, &Deletes { accepted, ..deletes }, &allowed);
    let subject = Subject {
        root,
        scope: &agreement.scope,
        exclude: &agreement.exclude,
        left_out: &agreement.left_out,
        guard: &go,
    };
    capture(target.index(), &subject, observer, due, progress)
}

/// What a capture closed, with what it promises.
pub(super) fn closed_as(captured: &Captured, held: Held) -> Closed {
    let fuzzy_count = captured.fuzzy.count();
    let window = Window {
        held,
        change_seen: captured.change_seen,
        is_closed: captured.is_closed,
        fuzzy_count,
    };
    Closed { position: captured.position, label: label(&window), fuzzy_count }
}

/// What a node keeps with the records of its tree: the head of the register's block, and whether somebody
/// may have written to the tree since.
pub(super) fn local_register(
    register: Option<&Register>,
    is_serving: bool,
) -> Box<[u8; REGISTER_LEN]> {
    let block = encode_register(register);
    let mut local = Box::new([0; REGISTER_LEN]);
    local.copy_from_slice(&block[..REGISTER_LEN]);
    local[REGISTER_LEN - 1] = u8::from(is_serving);
    local
}

/// The generation that such a block names. Whether all its entries held still is in the label.
pub(super) fn closed_of(local: &[u8; REGISTER_LEN]) -> Option<Closed> {
    let mut block = [0; REGISTER_BLOCK_LEN];
    let len = REGISTER_LEN - FLAGS_LEN;
    block[..len].copy_from_slice(&local[..len]);
    match decode_register(&block) {
        Ok(Some(Register::Complete { position, label })) => {
            Some(Closed { position, label, fuzzy_count: 0 })
        }
        Ok(Some(Register::Open) | None) | Err(_) => None,
    }
}

/// Chunks in order as runs.
fn runs_of(chunks: &[(ObjectId, u64)]) -> Vec<WantedChunks> {
    let mut runs: Vec<WantedChunks> = Vec::new();
    for (object, chunk) in chunks {
        match runs.last_mut() {
            Some(run) if run.object == *object && run.first + u64::from(run.count) == *chunk => {
                run.count += 1;
            }
            Some(_) | None => {
                runs.push(WantedChunks { object: *object, first: *chunk, count: 1 });
            }
        }
    }
    runs
}

/// An error with all its causes.
pub(super) fn in_one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Chunks of one `Want` fit one message.
const _: () = assert!(TREE_CHUNKS_MAX as u64 * CHUNK_LEN >= 32 << 20);
