//! The data thread of one resource: feeds the core, carries out its effects.
//!
//! One task polls everything and nothing on it waits: completions, the peer, time, operators, and
//! clients last, and those only while the core takes requests. Then what was answered leaves, in
//! batches. Nothing is handed to another task, since waking one costs more than a write.

mod tree;

use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tracing::{debug, info, warn};

use super::controller::ControllerEnds;
use super::exports::ExportOrder;
use super::guide::Guide;
use super::open::Opened;
use super::outdate::OutdateEnds;
use super::reads::Reads;
use super::services::ServiceEnds;
use super::tree::TreeDesk;
use super::{clock, random, warnings};
use crate::control::{NodeEvent, Order, Snapshot};
use crate::hooks::{FenceNews, HookNews};
use crate::link::{Connection, Handover, LinkError, Trouble};
use crate::metadata::Superblock;
use crate::nbd::{Clients, Export, Extent, Incoming, Opened as Client};
use crate::promotion::Clocks;
use crate::promotion::controller::ControllerInput;
use crate::replica::{
    Closing, Command, Effect, Event, Input, LinkId, Replica, RequestError, RequestId,
};
use crate::store::{CanaryCopy, Completion, MappedMap, Run, Shortage, Store, Via};
use crate::units::{Epoch, Instant};
use crate::wire::BufferPool;
use crate::wire::message::Frame;

/// The other ends of a data thread.
pub(super) struct Ends {
    pub(super) name: String,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) looks: mpsc::Receiver<oneshot::Sender<()>>,
    pub(super) handovers: mpsc::Receiver<Handover>,
    pub(super) wants_link: watch::Sender<bool>,
    /// Why no connection comes about.
    pub(super) trouble: watch::Receiver<Option<Trouble>>,
    pub(super) guide: Guide,
    /// With an arbiter.
    pub(super) controller: Option<ControllerEnds>,
    /// With paths of heartbeats.
    pub(super) outdate: Option<OutdateEnds>,
    /// With hooks.
    pub(super) services: Option<ServiceEnds>,
    pub(super) exports: mpsc::Sender<ExportOrder>,
    pub(super) snapshot: watch::Sender<Snapshot>,
    pub(super) events: mpsc::Sender<NodeEvent>,
}

/// Everything of one resource that lives on its data thread.
pub(super) struct DataThread {
    ends: Ends,
    core: Replica<MappedMap>,
    store: Store,
    canary: Option<CanaryCopy>,
    /// Of a directory.
    tree: Option<TreeDesk>,
    pool: BufferPool,
    clients: Clients,
    opened: mpsc::Receiver<Client>,
    opened_sender: mpsc::Sender<Client>,
    link: Option<(LinkId, Connection)>,
    leaving: Vec<(Instant, Connection)>,
    last_link: u64,
    inputs: VecDeque<Input>,
    effects: Vec<Effect>,
    completions: Vec<Completion>,
    frames: Vec<Frame>,
    incoming: VecDeque<Incoming>,
    reads: Reads,
    /// What was found about places of the file, and may not be said without a lease.
    held_runs: Vec<(RequestId, Vec<Run>)>,
    answers: BTreeMap<u64, oneshot::Sender<Answered>>,
    /// Answers of this turn. They leave once what they say can be seen in the status.
    answered: Vec<(oneshot::Sender<Answered>, Answered)>,
    /// Who waits for the newest state.
    lookers: Vec<oneshot::Sender<()>>,
    last_answer: u64,
    stop_request: Option<u64>,
    is_stopped: bool,
    export_epoch: Option<Epoch>,
    /// What new clients are offered.
    export: Option<Export>,
    clients_closing: bool,
    tick: Interval,
    /// The moment of the newest step.
    now: Clocks,
    identity_check: IdentityCheck,
    /// As the last look at the data file found it.
    shortage: Option<Shortage>,
    /// Permission bits that others have on the folder of the metadata, as that look found them.
    open_to_others: Option<u32>,
    last_snapshot: Instant,
    has_news: bool,
}

/// The look at the path of the data file: one at a time, however long it takes.
#[derive(Clone, Copy, Debug)]
enum IdentityCheck {
    UnderWay,
    Ended(Instant),
}

type Answered = Result<crate::replica::Answer, crate::replica::Refused>;

/// Time between two ticks of the core.
const TICK: Duration = Duration::from_millis(50);
/// Time between two looks at the data file: was it replaced or cut?
const IDENTITY_PERIOD: Duration = Duration::from_secs(1);
/// Time between two snapshots for status, while nothing remarkable happens.
const SNAPSHOT_PERIOD: Duration = Duration::from_millis(250);
/// Time that a connection gets to say its last words.
const FAREWELL: Duration = Duration::from_secs(2);
/// Turns before the runtime is given a chance to look at its sockets.
const TURNS_MAX: usize = 16;

impl DataThread {
    /// Takes over a resource. Call it on the runtime of the data thread.
    pub(super) fn new(opened: Opened, ends: Ends) -> Self {
        let Opened { core, store, canary, pool, tree } = opened;
        let (tree, fell_back) = tree.unzip();
        let fell_back = fell_back.flatten().map(|why| Input::FellBack { why });
        let (opened_sender, opened) = mpsc::channel(OPENED_MAX);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = clock::now();
        Self {
            ends,
            core,
            store,
            canary,
            tree,
            clients: Clients::new(pool.clone()),
            pool,
            opened,
            opened_sender,
            link: None,
            leaving: Vec::new(),
            last_link: 0,
            inputs: [Input::Started].into_iter().chain(fell_back).collect(),
            effects: Vec::new(),
            completions: Vec::new(),
            frames: Vec::new(),
            incoming: VecDeque::new(),
            reads: Reads::default(),
            held_runs: Vec::new(),
            answers: BTreeMap::new(),
            answered: Vec::new(),
            lookers: Vec::new(),
            last_answer: 0,
            stop_request: None,
            is_stopped: false,
            export_epoch: None,
            export: None,
            clients_closing: false,
            tick,
            now: Clocks { boottime: now, raw: Instant(0) },
            identity_check: IdentityCheck::Ended(now),
            shortage: None,
            open_to_others: None,
            last_snapshot: now,
            has_news: true,
        }
    }

    /// Runs until it was told to stop and did so cleanly.
    pub(super) async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS_MAX {
            let has_more = self.turn(cx);
            if self.is_stopped {
                return Poll::Ready(());
            }
            if !has_more {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Takes what is there from every source, steps the core for each, and sends what came of it.
    /// Says whether there may be more at once.
    fn turn(&mut self, cx: &mut Context<'_>) -> bool {
        let mut has_more = self.poll_disk(cx);
        has_more |= self.poll_link(cx);
        self.poll_time(cx);
        self.poll_operators(cx);
        if let Some(controller) = &mut self.ends.controller {
            controller.poll(cx, &mut self.inputs);
        }
        if let Some(outdate) = &mut self.ends.outdate {
            outdate.poll(cx, &mut self.inputs);
        }
        self.poll_services(cx);
        self.poll_fence(cx);
        self.poll_tree(cx);
        self.run_inputs();
        has_more |= self.poll_clients(cx);
        self.run_inputs();
        self.reply_runs();
        if let Some(controller) = &mut self.ends.controller {
            controller.advertise(&self.core);
            if let Some(services) = &self.ends.services {
                services.lease(controller.lease(&self.core));
            }
        }
        self.flush(cx);
        self.publish();
        has_more || !self.inputs.is_empty()
    }

    fn poll_disk(&mut self, cx: &mut Context<'_>) -> bool {
        let is_ready = self.store.poll_completions(cx, &mut self.completions).is_ready();
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        is_ready
    }

    fn complete(&mut self, completion: Completion) {
        let input = match completion {
            Completion::Disk { io, outcome } => {
                if let Some(tree) = &mut self.tree
                    && tree.takes_disk(io, &outcome)
                {
                    return self.carry_out_deeds();
                }
                Input::Disk { io, outcome }
            }
            Completion::ClientRead { io, buffer, outcome } => {
                self.reads.end(io, buffer);
                Input::Disk { io, outcome }
            }
            Completion::Metadata { ticket, result } => Input::Metadata { ticket, result },
            Completion::Runs { request, runs } => {
                self.held_runs.push((request, runs));
                return;
            }
            Completion::Identity { result, shortage, open_to_others } => {
                self.identity_check = IdentityCheck::Ended(clock::now());
                self.note_shortage(shortage);
                self.note_permissions(open_to_others);
                let Err(error) = result else { return };
                warn!(resource = %self.ends.name, error = &error as &dyn std::error::Error,
                    "the data file is not what it was");
                Input::DiskGone
            }
            Completion::Grown { ticket, result } => {
                let result = result.map(|memory| self.core.hand_map(memory));
                Input::Grown { ticket, result }
            }
        };
        self.inputs.push_back(input);
    }

    /// The status shows it each time; the log has it when it begins.
    fn note_shortage(&mut self, shortage: Option<Shortage>) {
        if let (None, Some(Shortage { holes_bytes, free_bytes })) = (self.shortage, shortage) {
            warn!(resource = %self.ends.name, holes_bytes, free_bytes,
                "the file system has less room than the data file has holes");
        }
        self.has_news |= self.shortage.is_some() != shortage.is_some();
        self.shortage = shortage;
    }

    fn note_permissions(&mut self, open_to_others: Option<u32>) {
        if let (None, Some(mode)) = (self.open_to_others, open_to_others) {
            let folder = self.store.sidecar().folder();
            warn!(resource = %self.ends.name, folder = %folder.display(),
                mode = %format_args!("{mode:04o}"), "others can enter the folder of the metadata");
        }
        self.has_news |= self.open_to_others != open_to_others;
        self.open_to_others = open_to_others;
    }

    fn poll_link(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(Some(handover)) = self.ends.handovers.poll_recv(cx) {
            self.attach(handover);
        }
        self.run_inputs();
        let Some((id, connection)) = &mut self.link else { return false };
        let link = *id;
        match connection.poll_frames(cx, &mut self.frames) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => {
                let frames = self.frames.drain(..);
                self.inputs.extend(frames.map(|frame| Input::Peer { link, frame }));
                true
            }
            Poll::Ready(Err(error)) => {
                let was_silent = connection.counters().frames_in == 0;
                self.lose_link(link, &error, was_silent);
                false
            }
        }
    }

    fn lose_link(&mut self, link: LinkId, error: &LinkError, was_silent: bool) {
        info!(resource = %self.ends.name, error = error as &dyn std::error::Error, "link lost");
        self.link = None;
        self.inputs.push_back(Input::LinkLost { link });
        if was_silent {
            // A node that refuses our key closes what looked like a connection to us.
            self.inputs.push_back(self.ends.guide.silent_peer(error));
        }
    }

    /// What those who make connections say about why there is none.
    fn poll_trouble(&mut self) {
        if self.ends.trouble.has_changed().unwrap_or(false) {
            let trouble = self.ends.trouble.borrow_and_update();
            self.inputs.extend(trouble.as_ref().map(|trouble| self.ends.guide.no_link(trouble)));
        }
    }

    fn attach(&mut self, handover: Handover) {
        let exporter = handover.exporter;
        let nonce = random::bytes().expect(DRAWS);
        match handover.attach(self.pool.clone(), self.core.size()) {
            Ok(connection) => {
                self.last_link += 1;
                let link = LinkId(self.last_link);
                if let Some((old, _)) = self.link.replace((link, connection)) {
                    self.inputs.push_back(Input::LinkLost { link: old });
                }
                self.inputs.push_back(Input::LinkUp { link, nonce, exporter });
                if let Some(controller) = &mut self.ends.controller {
                    controller.new_session(exporter);
                }
                if let Some(outdate) = &self.ends.outdate {
                    outdate.new_session(exporter);
                }
            }
            Err(error) => warn!(resource = %self.ends.name, %error, "connection not taken"),
        }
    }

    fn poll_time(&mut self, cx: &mut Context<'_>) {
        while self.tick.poll_tick(cx).is_ready() {
            let now = clock::now();
            self.poll_trouble();
            self.inputs.push_back(Input::Tick);
            if let Some(controller) = &mut self.ends.controller {
                controller.is_alive(now);
            }
            self.clients.tick(now);
            if let Some(tree) = &mut self.tree {
                tree.tick(now);
            }
            self.leaving.retain(|(since, _)| now.since(*since) < FAREWELL);
            if let IdentityCheck::Ended(at) = self.identity_check
                && now.since(at) >= IDENTITY_PERIOD
            {
                self.identity_check = IdentityCheck::UnderWay;
                if let Some(completion) = self.store.check_identity() {
                    self.complete(completion);
                }
            }
        }
    }

    fn poll_operators(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(looker)) = self.ends.looks.poll_recv(cx) {
            self.lookers.push(looker);
            self.has_news = true;
        }
        while let Poll::Ready(Some(Order { command, answer })) = self.ends.orders.poll_recv(cx) {
            self.last_answer += 1;
            let request = self.last_answer;
            if command == Command::Stop {
                self.stop_request = Some(request);
            }
            self.answers.insert(request, answer);
            match (command, &mut self.tree) {
                (Command::Tree(command), Some(tree)) => tree.on_command(request, command),
                (command, _) => self.inputs.push_back(Input::Operator { request, command }),
            }
        }
    }

    fn poll_clients(&mut self, cx: &mut Context<'_>) -> bool {
        while let Poll::Ready(Some(client)) = self.opened.poll_recv(cx) {
            self.clients.admit(client);
        }
        let mut has_more = false;
        if self.core.accepts_requests() {
            has_more = self.clients.poll_requests(cx, &mut self.incoming).is_ready();
            while let Some(incoming) = self.incoming.pop_front() {
                self.take_request(incoming);
            }
        }
        if self.clients_closing && self.clients.count() == 0 {
            self.clients_closing = false;
            self.inputs.push_back(Input::ClientsGone);
        }
        has_more
    }

    fn take_request(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Request(request) => {
                if let Some(epoch) = self.export_epoch {
                    self.inputs.push_back(Input::Request { epoch, request });
                }
            }
            Incoming::BlockStatus { id, range, single } => {
                let most = if single { 1 } else { EXTENTS_MAX };
                if let Some(completion) = self.store.runs(id, range, most) {
                    self.complete(completion);
                }
            }
            Incoming::Cache { id, range: _ } => self.clients.reply(id, Ok(())),
        }
    }

    /// Says where the file has holes. It is a read: without a lease the answer waits.
    fn reply_runs(&mut self) {
        if self.held_runs.is_empty() {
            return;
        }
        self.fire_timers();
        if !self.core.may_answer_reads() {
            return;
        }
        for (request, runs) in self.held_runs.drain(..) {
            let extents: Vec<Extent> =
                runs.iter().map(|run| Extent { len: run.len, is_hole: run.is_hole }).collect();
            self.clients.reply_extents(request, &extents);
        }
    }

    /// Steps the core for every input, and carries out what it answers.
    fn run_inputs(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.fire_timers();
            let input = self.take_tree_message(input);
            self.step(input);
            if let Some(tree) = &mut self.tree {
                tree.follow(self.core.following());
                self.carry_out_deeds();
            }
        }
    }

    /// Whatever is over is over before anything else is looked at: a thread that was kept from
    /// running must not answer by a lease that ended meanwhile.
    fn fire_timers(&mut self) {
        while let Some(controller) = &mut self.ends.controller
            && let Some(input) = controller.fire(clock::both())
        {
            self.step(input);
        }
    }

    fn step(&mut self, input: Input) {
        // Only leases are counted by both clocks.
        self.now = match &self.ends.controller {
            Some(_) => clock::both(),
            None => Clocks { boottime: clock::now(), raw: Instant(0) },
        };
        let mut effects = std::mem::take(&mut self.effects);
        self.core.step(self.now.boottime, input, &mut effects);
        self.follow_size();
        if let Some(canary) = &mut self.canary {
            let value = self.core.dirty().canary();
            if value != canary.value() {
                canary.store(value);
            }
        }
        for effect in effects.drain(..) {
            self.carry_out(effect);
        }
        self.effects = effects;
    }

    /// The resource may have grown in this step: the file, the peer's frames and new clients follow
    /// before anything that the step asks for. Connections of clients keep what they were told.
    fn follow_size(&mut self) {
        let size = self.core.size();
        if size == self.store.data().size() {
            return;
        }
        self.store.data().set_size(size);
        if let Some((_, connection)) = &mut self.link {
            connection.set_size(size);
        }
        if let Some(export) = self.export.take() {
            self.offer(export.with_size(size));
        }
        self.has_news = true;
    }

    fn carry_out(&mut self, effect: Effect) {
        let Some(effect) = self.carry_out_by_tree(effect) else { return };
        let done = match effect {
            Effect::Reply { request, result } => return self.reply(request, result),
            Effect::OpenExport(grant) => return self.open_export(grant.epoch()),
            Effect::CloseExport(closing) => return self.close_export(closing),
            Effect::Answer { request, result } => return self.answer(request, result),
            Effect::CloseLink { link, back_off } => return self.close_link(link, back_off),
            Effect::Event(event) => return self.tell(event),
            Effect::Write { io, range, bytes } => self.store.write(io, range, bytes),
            Effect::Zero { io, range, kind } => self.store.zero(io, range, kind),
            Effect::ReadForClient { io, request, range } => {
                let len = usize::try_from(range.len()).expect("a request is at most 32 MiB");
                self.reads.begin(io, request);
                self.store.read_for_client(io, range, self.pool.get(len))
            }
            Effect::ReadRange { io, range } => self.store.read_range(io, range),
            Effect::HashChunk { io, chunk } => self.store.hash_chunk(io, chunk, Via::Cache),
            Effect::SyncData { io } => self.store.sync_data(io),
            Effect::Probe { io } => self.store.probe(io),
            Effect::WriteSuperblock { ticket, record } => {
                let start = Superblock::slot_offset(record.counter);
                self.store.write_superblock(ticket, start, Box::from(record.encode()))
            }
            Effect::AppendLog { ticket, append } => {
                self.store.append_log(ticket, append.offset, append.bytes)
            }
            Effect::SyncMap { ticket, sums } => self.store.sync_map(ticket, sums),
            Effect::Grow { ticket, old, new } => self.store.grow(ticket, old, new),
            Effect::Send { link, frame } => {
                if let Some((id, connection)) = &mut self.link
                    && *id == link
                {
                    connection.send(&frame);
                }
                None
            }
            Effect::Connect(wanted) => {
                self.ends.wants_link.send_replace(wanted);
                None
            }
            Effect::DrawId => {
                // Without one no generation can be made, and nothing would ask again.
                self.inputs.push_back(Input::FreshId(random::id().expect(DRAWS)));
                None
            }
            Effect::Outdate(order) => {
                if let Some(outdate) = &self.ends.outdate {
                    outdate.order(order);
                }
                None
            }
            effect @ (Effect::AskArbiter(_)
            | Effect::SetTimer { .. }
            | Effect::GrantLease(_)
            | Effect::Fence(_)) => {
                if let Some(controller) = &mut self.ends.controller {
                    controller.carry_out(self.now, effect);
                }
                None
            }
            // Only the core of a directory settles.
            Effect::Settle => None,
            Effect::Services(order) => {
                if let Some(services) = &self.ends.services {
                    services.order(order);
                }
                None
            }
        };
        if let Some(completion) = done {
            self.complete(completion);
        }
    }

    /// What became of the hooks.
    fn poll_services(&mut self, cx: &mut Context<'_>) {
        while let Some(services) = &mut self.ends.services
            && let Poll::Ready(news) = services.poll(cx)
        {
            match news {
                HookNews::Ended { run, result } => {
                    self.inputs.push_back(Input::ServicesEnded { run, result });
                }
                HookNews::Event { kind, reason } => {
                    self.tell(Event { kind, epoch: self.core.superblock().epoch, reason });
                }
            }
        }
    }

    /// What became of the fence command.
    fn poll_fence(&mut self, cx: &mut Context<'_>) {
        while let Some(controller) = &mut self.ends.controller
            && let Poll::Ready(news) = controller.poll_fence(cx)
        {
            match news {
                FenceNews::Ended { run, answer } => {
                    let ended = ControllerInput::Fence { run, answer };
                    self.inputs.push_back(Input::Controller(ended));
                }
                FenceNews::Event { kind, reason } => {
                    self.tell(Event { kind, epoch: self.core.superblock().epoch, reason });
                }
            }
        }
    }

    fn tell(&mut self, event: Event) {
        info!(resource = %self.ends.name, kind = event.kind, epoch = %event.epoch,
            reason = %event.reason, "event");
        let resource = Some(self.ends.name.clone());
        if self.ends.events.try_send(NodeEvent { resource, event }).is_err() {
            debug!("an event was dropped: nobody keeps up");
        }
        self.has_news = true;
    }

    fn reply(&mut self, request: RequestId, result: Result<(), RequestError>) {
        match (self.reads.take(request), result) {
            (Some(buffer), Ok(())) => self.clients.reply_data(request, [buffer.freeze()]),
            (_, result) => self.clients.reply(request, result),
        }
    }

    fn close_link(&mut self, link: LinkId, back_off: bool) {
        if let Some((id, mut connection)) = self.link.take() {
            if id == link {
                if back_off {
                    connection.back_off();
                }
                self.leaving.push((clock::now(), connection));
            } else {
                self.link = Some((id, connection));
            }
        }
    }

    fn open_export(&mut self, epoch: Epoch) {
        self.export_epoch = Some(epoch);
        self.clients.open(epoch);
        let export =
            Export::new(&self.ends.name, self.core.size(), epoch, self.opened_sender.clone());
        self.offer(export);
    }

    fn offer(&mut self, export: Export) {
        self.export = Some(export.clone());
        self.order_export(ExportOrder::Open {
            resource: self.ends.name.clone(),
            export: Box::new(export),
        });
    }

    fn close_export(&mut self, closing: Closing) {
        self.order_export(ExportOrder::Close { resource: self.ends.name.clone() });
        self.export_epoch = None;
        self.export = None;
        self.clients.close(closing);
        self.reads.forget();
        self.held_runs.clear();
        self.clients_closing = true;
    }

    fn order_export(&mut self, order: ExportOrder) {
        if self.ends.exports.try_send(order).is_err() {
            warn!(resource = %self.ends.name, "the export cannot be changed: the node stops");
        }
    }

    fn answer(&mut self, request: u64, result: Answered) {
        if self.stop_request == Some(request) {
            self.is_stopped = true;
        }
        if let Some(asker) = self.answers.remove(&request) {
            self.answered.push((asker, result));
        }
        self.has_news = true;
    }

    /// Sends what was answered and said in this turn.
    fn flush(&mut self, cx: &mut Context<'_>) {
        let _ = self.clients.poll_flush(cx);
        if let Some((link, connection)) = &mut self.link {
            let link = *link;
            if let Poll::Ready(Err(error)) = connection.poll_flush(cx) {
                let was_silent = connection.counters().frames_in == 0;
                self.lose_link(link, &error, was_silent);
            }
        }
        self.leaving.retain_mut(|(_, connection)| connection.poll_close(cx).is_pending());
    }

    /// Shows the newest state to whoever asks for status.
    fn publish(&mut self) {
        let now = clock::now();
        if !self.has_news && now.since(self.last_snapshot) < SNAPSHOT_PERIOD {
            return;
        }
        self.has_news = false;
        self.last_snapshot = now;
        let mut snapshot = snapshot(&self.core, self.clients.count(), now);
        snapshot.tree = self.tree.as_ref().map(TreeDesk::status);
        let path = self.store.data().path();
        let folder = self.store.sidecar().folder();
        let warnings = &mut snapshot.warnings;
        warnings.extend(self.shortage.map(|shortage| warnings::shortage(shortage, path)));
        warnings.extend(self.open_to_others.map(|mode| warnings::open_folder(mode, folder)));
        self.ends.snapshot.send_replace(snapshot);
        for looker in self.lookers.drain(..) {
            // It may have waited long enough.
            let _ = looker.send(());
        }
        for (asker, result) in self.answered.drain(..) {
            // Whoever typed it may be gone.
            let _ = asker.send(result);
        }
    }
}

/// Why drawing a number cannot fail here.
const DRAWS: &str = "the kernel draws random numbers once it has booted";
/// Extents in one answer; the client asks again for the rest.
const EXTENTS_MAX: usize = 256;
/// Connections that wait to be taken over.
const OPENED_MAX: usize = 64;

/// What status shows of a core; what the daemon found is added by its data thread.
pub(super) fn snapshot(core: &Replica<MappedMap>, clients: usize, now: Instant) -> Snapshot {
    Snapshot {
        core: core.status(now),
        tree: None,
        clients: u64::try_from(clients).unwrap_or(u64::MAX),
        warnings: Vec::new(),
        taken: now,
        taken_at: jiff::Timestamp::now(),
    }
}
