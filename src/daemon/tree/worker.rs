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
use super::orders::{Order, Report};
use super::sender::ToSender;
use super::start::time_of_day;
use crate::manifest::source::{CaptureEnd, Closed, Register};
use crate::manifest::target::{ApplyEnd, Attempt, CommitEnd, Preparation, Refusal, Space};
use crate::manifest::{
    Allowed, Deletes, Due, Guard, Held, Keep, MARKER, Pace, REGISTER_BLOCK_LEN, Record, Remedy,
    RootFacts, Window, decode_register, encode_register, guard, label,
};
use crate::store::tree::apply::{ApplyError, Moment, Outcome, REGISTER_LEN};
use crate::store::tree::capture::{CaptureError, Captured, Progress, Subject, capture};
use crate::store::tree::index::Rows;
use crate::store::tree::receive::{
    Incoming, Limits, Prepare, Prepared, ReceiveError, Received, Staging,
};
use crate::store::tree::reconcile::Reading;
use crate::store::tree::target::{Target, TargetError};
use crate::store::tree::{Folder, Observer};
use crate::units::{CHUNK_LEN, Epoch, Label, ObjectId, TreeNumber, TreePosition};
use crate::wire::{TREE_CHUNKS_MAX, TreeRefusal, WantedChunks};

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
    /// Given up, for an order that is still to be done, if there is one.
    Dropped(Option<Order>),
}

impl Worker {
    /// Runs until the data thread is gone.
    pub(super) fn run(mut self) {
        let mut delta: Option<Delta> = None;
        let mut behind: VecDeque<Order> = VecDeque::new();
        let mut committed: Option<Box<Prepared>> = None;
        while let Some(order) = behind.pop_front().or_else(|| self.orders.blocking_recv()) {
            match order {
                Order::Serve => self.serve(),
                Order::Lend => self.lend(),
                Order::Rest { at } => self.rest(at),
                Order::Capture { everything, is_quiesced } => {
                    self.capture(everything, is_quiesced);
                }
                Order::Touch { object } => self.touch(object),
                Order::AcceptDeletes { count } => self.accepted = Some(count),
                Order::Begin { attempt, base } => delta = Some(self.begin(attempt, base)),
                Order::Push { attempt, records } => {
                    delta = self.push(delta.take(), attempt, records.bytes());
                    self.say(Report::Taken);
                }
                Order::End { attempt, position } => match delta.take() {
                    Some(Delta::Receiving(of, incoming)) if of == attempt => {
                        match self.end(attempt, *incoming, position) {
                            Staged::Prepared(prepared) => {
                                delta = Some(Delta::Prepared(attempt, prepared));
                            }
                            Staged::Dropped(order) => behind.extend(order),
                        }
                    }
                    other => delta = other,
                },
                Order::Commit { attempt, register } => match delta.take() {
                    Some(Delta::Prepared(of, prepared)) if of == attempt => {
                        committed = self.commit(prepared, &register);
                    }
                    other => {
                        delta = other;
                        let words = "it is not prepared any more".to_owned();
                        let refusal = Refusal { why: TreeRefusal::Position, words };
                        self.say(Report::Committed(CommitEnd::Refused(refusal)));
                    }
                },
                Order::Apply => self.apply(committed.take()),
                Order::Drop { attempt } => {
                    delta = delta.take().filter(|delta| delta.attempt() != attempt);
                }
                // Of a delta that was given up.
                Order::StageMore { .. } | Order::Put { .. } | Order::Prepare { .. } => {}
            }
        }
    }

    fn say(&self, report: Report) {
        // Without a data thread the next order is none, and this thread ends.
        let _ = self.reports.blocking_send(report);
    }

    fn fail(&self, what: &str, error: &dyn std::error::Error) {
        let why = format!("{what}: {}", in_one_line(error));
        warn!(%why, "the tree cannot be used");
        self.say(Report::Failed { why });
    }

    fn moment(&self) -> Moment {
        Moment { epoch: self.terms.epoch, now: time_of_day() }
    }

    /// From here on somebody may write to the tree, which the records say before that.
    fn serve(&mut self) {
        let mut register = local_register(None, true);
        register[REGISTER_LEN - 2] = u8::from(self.terms.lost_power);
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
    fn lend(&self) {
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
        let keep = match self.target.generation()? {
            Some(_) => Keep::Undo,
            None => Keep::Quarantine,
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

    fn push(&self, delta: Option<Delta>, attempt: Attempt, records: &[u8]) -> Option<Delta> {
        let Some(Delta::Receiving(of, mut incoming)) = delta else { return delta };
        if of != attempt {
            return Some(Delta::Receiving(of, incoming));
        }
        let mut rest = records;
        while !rest.is_empty() {
            let pushed = match Record::decode(rest) {
                Ok((record, behind)) => {
                    rest = behind;
                    incoming.push(record)
                }
                Err(error) => Err(ReceiveError::from(error)),
            };
            if let Err(error) = pushed {
                self.refuse(attempt, &error.into());
                return Some(Delta::Refused(attempt));
            }
        }
        Some(Delta::Receiving(of, incoming))
    }

    /// All records are there: checks them together, stages what they tell of, and plans.
    fn end(&mut self, attempt: Attempt, incoming: Incoming, position: TreePosition) -> Staged {
        let received = match self.target.end(incoming, position) {
            Ok(received) => received,
            Err(error) => {
                self.refuse(attempt, &error);
                return Staged::Dropped(None);
            }
        };
        self.say(Report::Checked { attempt, result: Ok(()) });
        match self.stage(attempt, received) {
            Ok(Staged::Prepared(prepared)) => match self.target.make_ready(&prepared) {
                Ok(()) => {
                    self.say(Report::Prepared { attempt, result: Preparation::Ready });
                    Staged::Prepared(prepared)
                }
                Err(error) => {
                    self.refuse(attempt, &error);
                    Staged::Dropped(None)
                }
            },
            Ok(dropped @ Staged::Dropped(_)) => dropped,
            Err(error) => {
                self.refuse(attempt, &error);
                Staged::Dropped(None)
            }
        }
    }

    /// Takes orders until all is staged and planned, or given up.
    fn stage(&mut self, attempt: Attempt, received: Received) -> Result<Staged, TargetError> {
        let Self { target, orders, reports, .. } = self;
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
                Order::Put { attempt: of, table, bytes } if of == attempt => {
                    let mut at = 0;
                    for place in table {
                        let end = at + usize::try_from(place.len).unwrap_or(usize::MAX);
                        let part = bytes.bytes().get(at..end).unwrap_or_default();
                        staging.put_chunk(place.object, place.chunk, part)?;
                        at = end;
                    }
                }
                Order::Prepare { attempt: of } if of == attempt => {
                    return Ok(match target.prepare(staging)? {
                        Prepare::Ready(prepared) => Staged::Prepared(prepared),
                        Prepare::Foreign(_, list) => {
                            warn!(count = list.len(), first = ?list.first(),
                                "the tree was changed by somebody else");
                            say(Report::Prepared { attempt, result: Preparation::Foreign });
                            Staged::Dropped(None)
                        }
                    });
                }
                Order::Drop { attempt: of } if of == attempt => return Ok(Staged::Dropped(None)),
                // Of deltas before this one.
                Order::Drop { .. }
                | Order::StageMore { .. }
                | Order::Put { .. }
                | Order::Prepare { .. } => {}
                other => return Ok(Staged::Dropped(Some(other))),
            }
            if is_all_found && !is_told && staging.unfinished().is_none() {
                is_told = true;
                say(Report::AllStaged { attempt });
            }
        }
        Ok(Staged::Dropped(None))
    }

    fn commit(
        &mut self,
        prepared: Box<Prepared>,
        register: &[u8; REGISTER_LEN],
    ) -> Option<Box<Prepared>> {
        match self.target.commit(&prepared, register) {
            Ok(()) => {
                self.newest = closed_of(register);
                self.say(Report::Committed(CommitEnd::Done));
                return Some(prepared);
            }
            Err(error) => {
                if let Some(refusal) = refusal_of(&error) {
                    self.say(Report::Committed(CommitEnd::Refused(refusal)));
                } else {
                    self.say(Report::Committed(CommitEnd::Failed));
                    self.fail("a generation cannot be committed", &error);
                }
            }
        }
        None
    }

    fn apply(&mut self, prepared: Option<Box<Prepared>>) {
        let Some(prepared) = prepared else { return };
        let moment = self.moment();
        let end = match self.target.apply(*prepared, moment) {
            Ok(Outcome::Applied(_) | Outcome::Rest) => ApplyEnd::Done,
            Ok(Outcome::Undone { position, why }) => {
                let words = why.map_or_else(String::new, |why| in_one_line(&why));
                let why = TreeRefusal::Space;
                ApplyEnd::Undone { position, refusal: Refusal { why, words } }
            }
            Err(error) => {
                self.fail("a generation cannot be applied", &error);
                ApplyEnd::Failed
            }
        };
        self.say(Report::Applied { end, space: Space::default() });
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
    block[..REGISTER_LEN - 1].copy_from_slice(&local[..REGISTER_LEN - 1]);
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

/// What the peer is told; `None` if this node's disk is at fault.
fn refusal_of(error: &TargetError) -> Option<Refusal> {
    let why = match error {
        TargetError::Receive(error) => match &**error {
            ReceiveError::Manifest(_) | ReceiveError::LeftOut { .. } => TreeRefusal::Record,
            ReceiveError::NotWanted { .. } | ReceiveError::WrongBytes { .. } => TreeRefusal::Record,
            ReceiveError::TooLarge { .. } => TreeRefusal::Limit,
            ReceiveError::Position { .. } | ReceiveError::Incomplete { .. } => {
                TreeRefusal::Position
            }
            ReceiveError::Root { .. } => TreeRefusal::Root,
            ReceiveError::Kernel { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                    TreeRefusal::Space
                }
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::Unsupported => {
                    TreeRefusal::Kind
                }
                _ => return None,
            },
            ReceiveError::Spool(_)
            | ReceiveError::Index(_)
            | ReceiveError::Patch(_)
            | ReceiveError::Plan(_) => return None,
        },
        TargetError::Apply(ApplyError::NoSpace { .. }) => TreeRefusal::Space,
        TargetError::Apply(ApplyError::OutOfTurn { .. } | ApplyError::Missing(_)) => {
            TreeRefusal::Position
        }
        TargetError::Apply(_)
        | TargetError::Index(_)
        | TargetError::Unknown
        | TargetError::NotSurveyed
        | TargetError::Survey(_)
        | TargetError::State(_) => return None,
    };
    Some(Refusal { why, words: in_one_line(error) })
}

/// An error with all its causes.
fn in_one_line(error: &dyn std::error::Error) -> String {
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
