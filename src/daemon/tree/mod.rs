//! A directory resource on its data thread: between the core, the two machines of the tree, and the threads
//! that work on it.
//!
//! To the core the data is a register of one block. What serves it writes there, as a client does, which
//! generation of the tree the peer has staged; where the core writes a block that came from the peer, the
//! generation that it names is committed first. `source_side.rs` and `target_side.rs` carry out what the
//! machines say, `worker.rs` and `sender.rs` are the threads, `committing.rs` is what the worker does to the
//! tree, `register_file.rs` is the block on disk, `start.rs` opens all of it, `keeping` is about earlier
//! generations and foreign writes.

mod committing;
mod keeping;
mod orders;
mod register_file;
mod sender;
mod source_side;
mod start;
mod target_side;
mod view;
mod worker;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc as plain;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tracing::{debug, warn};

pub(super) use start::{OpenedTree, capture_first, open_tree, prepare_register, register_path};

use crate::control::tree_status::Halted;
use crate::manifest::source::{Closed, Register, Source, SourceEffect, SourceInput};
use crate::manifest::target::{Target, TargetEffect, TargetInput};
use crate::manifest::{Pace, REGISTER_BLOCK_LEN, decode_register, encode_register};
use crate::replica::{
    Answer, Closing, DiskOutcome, Following, Input, IoId, Refused, RequestId, RequestResult,
    TreeCommand,
};
use crate::store::tree::DirtyLook;
use crate::store::tree::capture::Progress;
use crate::units::{ByteRange, Epoch, Instant, ServeMode, TreePosition};
use crate::wire::{TreeMessage, TreeNote};
use keeping::Keeping;
use orders::{Ahead, Order, Report, SendOrder, Sent};
use register_file::{Block, RegisterFile, Step};
use sender::ToSender;
use view::TreeView;

/// Orders that may wait for the worker. What the peer sends is not taken if less than `ROOM_LEFT` of it is
/// free, so that there is always room for what this node itself has to order.
const ORDERS_MAX: usize = 4096;
const ROOM_LEFT: usize = 256;
/// Bytes that wait for the connection before the sender is asked for more.
const QUEUED_MAX: usize = 4 << 20;
/// Notes of the target that wait until it is known what it has.
const NOTES_MAX: usize = 64;
/// Operators who may wait for a sync before the tree is watched.
const EARLY_SYNCS_MAX: usize = 64;
/// Longest that the last generation of a planned end may take.
const SETTLE_MAX: std::time::Duration = std::time::Duration::from_mins(1);

/// Something for the data thread to do, in order.
#[derive(Debug)]
pub(super) enum Deed {
    /// Tell the core.
    Input(Input),
    /// Write the register's file.
    Write { io: IoId, block: Block },
    /// Make it stable.
    Sync { io: IoId },
    /// Say something to the peer.
    Say { to: Following, message: TreeMessage },
    /// The peer broke a rule.
    CloseLink { what: &'static str },
    /// Answer an operator.
    Answer { request: u64, result: Result<Answer, Refused> },
    /// Tell whoever listens.
    Event { kind: &'static str, reason: String },
}

/// How far this node is in serving the tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Service {
    Off,
    /// The tree rests, and the peer follows: the worker looks what could be sent.
    Looking,
    /// What the register names is sent.
    Lending,
    /// The worker begins to watch.
    Starting,
    On,
    /// The worker ends that.
    Stopping,
}

/// Who waits for a sync.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Waits {
    Operator(u64),
    /// The core, for the end of serving.
    Settling,
}

/// What the data thread knows of its core at this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    pub(super) now: Instant,
    pub(super) serve_mode: ServeMode,
    pub(super) accepts_requests: bool,
    pub(super) export_epoch: Option<Epoch>,
    /// Bytes that wait for the connection; `None` without one.
    pub(super) queued: Option<usize>,
}

/// The tree of one resource.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct TreeDesk {
    name: String,
    source: Source,
    target: Target,
    pace: Pace,
    orders: mpsc::Sender<Order>,
    reports: mpsc::Receiver<Report>,
    to_sender: plain::SyncSender<ToSender>,
    sent: mpsc::Receiver<Sent>,
    progress: Arc<Progress>,
    ahead: Arc<Ahead>,
    look: Option<DirtyLook>,
    service: Service,
    session: Option<Following>,
    /// Counts sessions, so that what comes late from a thread is told apart.
    session_number: u64,
    /// It is not asked yet what the peer's position means; what it said since.
    is_asking: bool,
    notes: VecDeque<TreeNote>,
    /// Batches of records that the worker has not taken.
    untaken: u32,
    file: RegisterFile,
    /// What the register is to say while this node serves.
    block: Block,
    register: Option<Register>,
    /// The newest write of the register that the core was not given yet.
    record: Option<u64>,
    /// It is stable in the file, so the core may have it, and then transfer it.
    is_record_ready: bool,
    admits: bool,
    requests: BTreeMap<u64, u64>,
    last_request: u64,
    is_alone: bool,
    /// Blocks of writes of the core that the target machine decides on.
    asked: BTreeMap<u64, Block>,
    /// Syncs of the core that wait for the tree to come to rest.
    held_syncs: Vec<IoId>,
    syncs: BTreeMap<u64, Waits>,
    /// Those of operators who asked before the tree was watched.
    early_syncs: Vec<(u64, bool)>,
    last_sync: u64,
    settling_since: Option<Instant>,
    /// The generation with which serving ended as planned.
    settled: Option<Closed>,
    closing: bool,
    /// The core wants to settle, and waits until this node serves.
    settles_later: bool,
    /// What the tree became while this node served, if that is over.
    rested: Option<TreePosition>,
    has_events: bool,
    keeping: Keeping,
    view: TreeView,
    source_effects: Vec<SourceEffect>,
    target_effects: Vec<TargetEffect>,
    deeds: VecDeque<Deed>,
    now: Instant,
}

impl TreeDesk {
    /// What is to be done next.
    pub(super) fn next_deed(&mut self) -> Option<Deed> {
        if let Some(step) = self.file.next() {
            self.push_step(step);
        }
        self.deeds.pop_front()
    }

    fn push_step(&mut self, step: Step) {
        self.deeds.push_back(match step {
            Step::Write(io, block) => Deed::Write { io, block },
            Step::Sync(io) => Deed::Sync { io },
        });
    }

    fn input(&mut self, input: Input) {
        self.deeds.push_back(Deed::Input(input));
    }

    fn order(&mut self, order: Order) {
        if self.orders.try_send(order).is_err() {
            // The peer is kept from filling it, so the worker is gone or stuck.
            warn!("the worker of the tree takes no order");
            self.input(Input::DiskGone);
        }
    }

    fn order_sender(&mut self, order: SendOrder) {
        // Without that thread a report said so.
        if let Err(plain::TrySendError::Full(_)) = self.to_sender.try_send(ToSender::Order(order)) {
            let what = "the target says more than it has to";
            self.deeds.push_back(Deed::CloseLink { what });
        }
    }

    /// Takes what the threads say, and goes on with what waits for the core.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, around: Around) {
        self.now = around.now;
        while let Poll::Ready(Some(report)) = self.reports.poll_recv(cx) {
            self.on_report(report);
        }
        while around.queued.is_none_or(|queued| queued < QUEUED_MAX)
            && let Poll::Ready(Some(sent)) = self.sent.poll_recv(cx)
        {
            let is_message = matches!(sent, Sent::Message { .. });
            self.on_sent(sent);
            if is_message {
                // How much waits is known once it was handed over.
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.note_alone(around.serve_mode);
        self.pump_record(around);
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        if self.takes_notes() {
            let facts = self.facts();
            self.tell_source(SourceInput::Tick(facts));
        }
        self.compare(now);
        if self.settling_since.is_some_and(|since| now.since(since) >= SETTLE_MAX) {
            self.end_settling(Err("the last generation took too long".to_owned()));
        }
    }

    /// The session of the core, as it is now.
    pub(super) fn follow(&mut self, session: Option<Following>) {
        if session == self.session {
            return;
        }
        if let Some(old) = self.session.take() {
            if old.is_source {
                self.tell_source(SourceInput::PeerLost);
                self.order_sender(SendOrder::Stop);
            } else {
                self.tell_target(TargetInput::SessionLost);
            }
        }
        self.stop_lending();
        self.session = session;
        self.session_number += 1;
        self.is_asking = false;
        self.notes.clear();
        self.admits = false;
        self.untaken = 0;
        self.greet();
        self.lend();
    }

    /// The first word of a target, once it is certain what the tree is.
    fn greet(&mut self) {
        let is_target = self.session.is_some_and(|session| !session.is_source);
        if is_target && self.service == Service::Off && !self.goes_back() {
            let position = self.rested.take().unwrap_or_else(|| self.target.position());
            let space = crate::manifest::target::Space::default();
            let register = self.register.as_ref().and_then(Register::position);
            self.tell_target(TargetInput::SessionUp { position, space, register });
            self.note_overtaken();
        }
    }

    fn say(&mut self, message: TreeMessage) {
        if let Some(to) = self.session {
            self.view.sent_bytes += message.payload.bytes().len() as u64;
            self.deeds.push_back(Deed::Say { to, message });
        }
    }

    /// The peer said something in the session that [`Self::follow`] was told of.
    pub(super) fn on_message(&mut self, message: TreeMessage) {
        match self.session {
            Some(session) if session.is_source => self.on_note(message.note),
            Some(_) => self.on_bulk(message),
            None => {}
        }
    }

    /// The core writes the register.
    pub(super) fn on_write(&mut self, io: IoId, range: ByteRange, bytes: &[u8]) {
        let whole = <&[u8; REGISTER_BLOCK_LEN]>::try_from(bytes).ok();
        let Some(block) = whole.filter(|_| range.start() == 0) else {
            // No peer of this version writes a part of it.
            return self.input(Input::Disk { io, outcome: DiskOutcome::NoSpace });
        };
        if self.rests() {
            self.on_commit_asked(io, Box::new(*block));
        } else {
            // An earlier write that the peer never got is not undone by the order in which it is repeated:
            // the file says the newest that was asked for.
            let block = self.block.clone();
            self.file.write(Some(io), block);
        }
    }

    /// The core makes a part of it zero.
    pub(super) fn on_zero(&mut self, io: IoId, range: ByteRange) {
        self.on_write(io, range, &[0; REGISTER_BLOCK_LEN]);
    }

    /// The core wants stable what was written. What was reported is stable, but a promotion waits until
    /// the tree is what the register says.
    pub(super) fn on_sync(&mut self, io: IoId) {
        let is_following = self.session.is_some_and(|session| !session.is_source);
        if (self.target.is_applying() && !is_following) || self.goes_back() {
            self.held_syncs.push(io);
        } else {
            self.deeds.push_back(Deed::Sync { io });
        }
    }

    fn release_syncs(&mut self) {
        for io in std::mem::take(&mut self.held_syncs) {
            self.deeds.push_back(Deed::Sync { io });
        }
    }

    /// Whether an I/O that ended was asked for by this desk; then it is done with.
    pub(super) fn takes_disk(&mut self, io: IoId, outcome: &DiskOutcome) -> bool {
        if !RegisterFile::is_ours(io) {
            return false;
        }
        let (step, ended) = self.file.on_done(io, outcome.clone());
        if let Some(step) = step {
            self.push_step(step);
        }
        if let Some(ended) = ended {
            match ended.io {
                Some(io) => self.input(Input::Disk { io, outcome: ended.outcome }),
                None if ended.outcome != DiskOutcome::Done => self.input(Input::DiskGone),
                None => self.is_record_ready = !self.file.has_own(),
            }
        }
        true
    }

    /// The core answers a request of this desk.
    pub(super) fn on_reply(&mut self, request: RequestId, result: RequestResult) {
        let Some(number) = self.requests.remove(&request.0) else { return };
        if result.is_ok() {
            self.tell_source(SourceInput::Recorded { number });
        }
    }

    /// This node serves.
    pub(super) fn on_open(&mut self) {
        self.service = Service::Starting;
        self.ahead.serves.store(true, Ordering::Relaxed);
        // Whatever the tree is, the core has it from here on.
        self.keeping.forget_way_back();
        self.settled = None;
        self.closing = false;
        self.order(Order::Serve);
    }

    /// It does not any more.
    pub(super) fn on_close(&mut self, closing: Closing) {
        self.settles_later = false;
        let settled = self.settled.take().filter(|_| closing == Closing::Drained);
        self.end_settling(Err("the resource is not served any more".to_owned()));
        self.tell_source(SourceInput::StopServing);
        self.requests.clear();
        (self.record, self.admits) = (None, false);
        self.look = None;
        // A capture that runs is of no use to anybody.
        self.progress.stop.store(true, Ordering::Relaxed);
        self.ahead.serves.store(false, Ordering::Relaxed);
        self.service = Service::Stopping;
        self.take_early_syncs();
        self.closing = true;
        self.order(Order::Rest { at: settled });
    }

    fn on_rests(&mut self) {
        self.progress.stop.store(false, Ordering::Relaxed);
        self.service = Service::Off;
        if std::mem::take(&mut self.closing) {
            self.input(Input::ClientsGone);
        }
        self.greet();
        self.lend();
    }

    /// Whether nobody writes to the tree by this node's leave.
    fn rests(&self) -> bool {
        matches!(self.service, Service::Off | Service::Looking | Service::Lending)
    }

    /// Whether it is known what a position of the target means: the index was looked at.
    fn takes_notes(&self) -> bool {
        matches!(self.service, Service::On | Service::Lending)
    }

    fn tell_source(&mut self, input: SourceInput) {
        debug!(?input, "source");
        let mut effects = std::mem::take(&mut self.source_effects);
        self.source.step(self.now, input, &mut effects);
        for effect in effects.drain(..) {
            debug!(?effect, "source");
            self.carry_out_source(effect);
        }
        self.source_effects = effects;
    }

    fn tell_target(&mut self, input: TargetInput) {
        debug!(?input, "target");
        let mut effects = std::mem::take(&mut self.target_effects);
        self.target.step(input, &mut effects);
        for effect in effects.drain(..) {
            debug!(?effect, "target");
            self.carry_out_target(effect);
        }
        self.target_effects = effects;
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Serves { newest, look } => self.on_serves(newest, look),
            Report::Lends { newest } => self.on_lends(newest),
            Report::Rests { position } => {
                self.rested = Some(position);
                self.on_rests();
            }
            Report::Captured { end, captured, entries } => {
                self.on_captured(end, &captured, entries);
            }
            Report::CaptureFailed { oldest, why } => {
                self.deeds.push_back(Deed::Event { kind: "capture-failed", reason: why });
                self.tell_source(SourceInput::CaptureFailed { oldest });
            }
            Report::Halted { oldest, why, next } => {
                let reason = format!("nothing of the tree is sent: {why}; type: {next}");
                self.view.halted = Some(Halted { reason: why, path: None, next });
                self.deeds.push_back(Deed::Event { kind: "halted", reason });
                self.tell_source(SourceInput::Halted { oldest });
            }
            Report::Failed { why } => {
                self.deeds.push_back(Deed::Event { kind: "tree-failed", reason: why });
                self.input(Input::DiskGone);
            }
            other @ (Report::Foreign { .. }
            | Report::Usage(_)
            | Report::Dropped { .. }
            | Report::CutOff { .. }
            | Report::Generations { .. }
            | Report::WentBack { .. }) => self.on_keeping_report(other),
            other => self.on_target_report(other),
        }
    }

    /// An operator wants something of the tree.
    pub(super) fn on_command(&mut self, request: u64, command: TreeCommand) {
        match command {
            TreeCommand::Sync { freeze } => self.on_sync_command(request, freeze),
            TreeCommand::AcceptDeletes { count } => self.on_accept_deletes(request, count),
            TreeCommand::Generations => self.on_generations(request),
            TreeCommand::Rollback { to } => self.on_rollback(request, to),
        }
    }

    /// A driver of the register does not know what a block says that its peer cannot have written.
    fn named_by(block: &Block) -> Option<TreePosition> {
        decode_register(&**block).ok().flatten().and_then(|register| register.position())
    }
}
