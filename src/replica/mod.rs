//! One block resource on one node: the pure core.
//!
//! It is told what happened ([`Input`]) and answers what to do ([`Effect`]); it does no I/O, reads
//! no clock and draws no numbers. The daemon, the simulator and the model checker run this code.
//!
//! Reading order: `writes.rs` is the primary's write path, `apply.rs` the secondary's;
//! `session.rs` is how two nodes meet, `source.rs` and `target.rs` how one gets what it lacks;
//! `role.rs` is promote, demote and switchover; `resize.rs` is how it grows; `records.rs` what must
//! be stable first.

#![deny(clippy::wildcard_enum_match_arm)]

mod alone;
mod apply;
mod arbitrate;
mod background;
mod desk;
mod effect;
mod exit;
mod explain;
mod explain_alone;
mod explain_arbiter;
mod explain_pacemaker;
mod fingerprint;
mod flush;
mod io;
mod meet;
mod moving;
mod operator;
mod outdate;
mod pace;
mod parts;
pub mod planted;
mod pledge;
mod promote;
mod records;
mod request;
mod resize;
mod role;
mod services;
mod session;
mod settings;
mod source;
mod stall;
mod status;
mod succession;
mod target;
mod verify;
mod window;
mod writes;

use std::collections::VecDeque;

pub use arbitrate::ARBITER_CHANGED;
pub use effect::{
    Closing, DiskOutcome, Effect, GrowFailed, Input, IoId, LinkId, MetadataFailed, Ticket,
};
pub use operator::{
    AgentCommand, Answer, AtRisk, Command, Event, KeptGeneration, LinkStatus, PeerStatus,
    PromotionStatus, Refused, ReplicationStatus, ResyncStatus, ServiceStatus, SplitBrain, Status,
    TreeCommand, VerifyStatus,
};
pub use outdate::{OutdateAnswer, OutdateAsk, OutdateNews, OutdateOrder};
pub use request::{
    PART_LEN_MAX, Request, RequestError, RequestId, RequestKind, RequestResult, ZERO_PART_LEN_MAX,
};
pub use session::Following;
pub use settings::Settings;
pub use stall::DiskAnswers;

use crate::metadata::Place;
use crate::metadata::{ActivityLog, DirtyMap, MapMemory, Recovered, Superblock};
use crate::promotion::alone::Alone;
use crate::promotion::controller::Controller;
use crate::promotion::services::Services;
use crate::units::{
    BlockRange, ByteRange, DiskReason, ExtentIndex, Instance, Instant, ResourceSize,
};
use apply::Applier;
use background::Background;
use desk::Desk;
use flush::Flushes;
use io::IoTable;
use outdate::Outdating;
use records::Records;
use resize::Resize;
use role::RoleState;
use session::Link;
use stall::DiskWatch;
use verify::VerifyState;
use window::Window;
use writes::Writes;

/// Effects of one step, unordered.
pub type Effects = Vec<Effect>;

/// What the core is given at its start, beside what was recovered.
#[derive(Clone, Debug)]
pub struct Start {
    /// This run of the daemon.
    pub instance: Instance,
    /// Random ids for generations; more come as [`Input::FreshId`].
    pub fresh_ids: Vec<u128>,
    /// The clock.
    pub now: Instant,
    /// Where the data and the metadata are now.
    pub place: Place,
}

/// The core of one block resource on one node.
#[derive(Clone, Debug)]
pub struct Replica<M> {
    settings: Settings,
    size: ResourceSize,
    start: Start,
    now: Instant,
    doubt: Option<DiskReason>,
    records: Records,
    dirty: DirtyMap<M>,
    log: ActivityLog,
    io: IoTable,
    role: RoleState,
    link: Link,
    writes: Writes,
    applier: Applier,
    window: Window,
    flushes: Flushes,
    background: Background,
    disk_watch: DiskWatch,
    verify: VerifyState,
    desk: Desk,
    resize: Resize<M>,
    outdating: Outdating,
    /// Only with hooks, once the first step was taken.
    services: Option<Services>,
    /// Only with an arbiter.
    controller: Option<Box<Controller>>,
    /// Only without one, where a node promotes itself all the same.
    alone: Option<Box<Alone>>,
    fresh_ids: VecDeque<u128>,
    events: Vec<Event>,
    has_marked: bool,
    /// Ranges of writes whose session or grant is over: pinned until all of them ended.
    orphaned: Vec<ByteRange>,
}

impl<M: MapMemory> Replica<M> {
    /// Makes the core of a resource whose metadata was recovered. Nothing happens before
    /// [`Input::Started`].
    pub fn new(settings: Settings, recovered: Recovered<M>, start: Start) -> Self {
        let size = ResourceSize::new(recovered.superblock.size)
            .expect("recovery refuses a size outside the limits");
        // What was written to a register is stable since it was reported.
        let doubt = recovered.doubt().filter(|_| !settings.is_register);
        Self {
            size,
            now: start.now,
            doubt,
            records: Records::new(recovered.superblock),
            dirty: recovered.dirty,
            log: recovered.log,
            io: IoTable::default(),
            role: RoleState::default(),
            link: Link::default(),
            writes: Writes::default(),
            applier: Applier::default(),
            window: Window::default(),
            flushes: Flushes::default(),
            background: Background::new(start.now),
            disk_watch: DiskWatch::new(start.now),
            verify: VerifyState::default(),
            desk: Desk::default(),
            resize: Resize::default(),
            outdating: Outdating::default(),
            services: None,
            controller: None,
            alone: None,
            fresh_ids: start.fresh_ids.iter().copied().collect(),
            events: Vec::new(),
            has_marked: false,
            orphaned: Vec::new(),
            settings,
            start,
        }
    }

    /// Takes one input and answers with effects, which may be carried out in any order.
    pub fn step(&mut self, now: Instant, input: Input, effects: &mut Effects) {
        self.now = now;
        self.io.set_now(now);
        match input {
            Input::Started => self.on_started(effects),
            Input::Request { epoch, request } => self.on_request(epoch, request, effects),
            Input::ClientsGone => self.on_clients_gone(effects),
            Input::Disk { io, outcome } => self.on_disk(io, outcome, effects),
            Input::Metadata { ticket, result } => self.on_metadata(ticket, result, effects),
            Input::Grown { ticket, result } => self.on_grown(ticket, result, effects),
            Input::LinkUp { link, nonce, exporter } => {
                self.on_link_up(link, nonce, exporter, effects);
            }
            Input::Peer { link, frame } => self.on_peer(link, frame, effects),
            Input::Heard { link } => self.on_heard(link),
            Input::LinkLost { link } => self.on_link_lost(link, effects),
            Input::NoLink { why, next } => self.on_no_link(why, next),
            Input::Tick => self.on_tick(effects),
            Input::DiskGone => self.on_disk_failed(effects),
            Input::FreshId(id) => self.fresh_ids.push_back(id),
            Input::Operator { request, command } => self.on_operator(request, &command, effects),
            Input::Controller(input) => self.on_controller(input, effects),
            Input::Outdate(news) => self.on_outdate_news(news, effects),
            Input::Admit => self.on_admit(),
            Input::FellBack { why } => self.on_fallen_back(&why, effects),
            Input::Settled { result } => self.on_settled(result, effects),
            Input::ServicesEnded { run, result } => self.on_services(run, result),
        }
        self.settle(effects);
        self.check_invariants();
    }

    /// Whether clients may be read: this node serves and has room for more requests.
    pub fn accepts_requests(&self) -> bool {
        self.role.intake_is_open()
            && self.writes.part_count() < self.settings.in_flight_parts_max
            && self.writes.bytes() < self.settings.in_flight_bytes_max
            && self.flushes.ticket_count() < self.settings.in_flight_parts_max
    }

    /// The stable record.
    pub fn superblock(&self) -> &Superblock {
        self.records.stable()
    }

    /// The dirty map.
    pub fn dirty(&self) -> &DirtyMap<M> {
        &self.dirty
    }

    /// Size of the resource.
    pub fn size(&self) -> ResourceSize {
        self.size
    }

    /// Extents that the activity log holds.
    pub fn hot_extents(&self) -> Vec<ExtentIndex> {
        self.log.hot().into_iter().collect()
    }

    /// Blocks of writes that were admitted and not answered yet, or that the peer has not applied.
    pub fn in_flight(&self) -> Vec<BlockRange> {
        let transferred = self.link.in_motion(self.size);
        self.writes.in_flight().chain(self.applier.blocks()).chain(transferred).collect()
    }

    /// Goes on with everything that the last input may have made possible.
    fn settle(&mut self, effects: &mut Effects) {
        self.pump_controller(effects);
        self.pump_session(effects);
        self.pump_disconnect(effects);
        self.pump_services(effects);
        self.pump_role(effects);
        self.pump_outdate(effects);
        self.pump_pledge(effects);
        self.pump_writes(effects);
        self.pump_applier(effects);
        self.pump_transfer(effects);
        self.pump_verify(effects);
        self.pump_flushes(effects);
        self.pump_resize(effects);
        self.pump_background(effects);
        self.pump_log(effects);
        self.pump_controller(effects);
        self.pump_records(effects);
        self.raise_canary();
        effects.extend(self.events.drain(..).map(Effect::Event));
    }

    /// The canary of the map rises with every step that marks, so that a later start can tell
    /// whether it sees this very map.
    fn raise_canary(&mut self) {
        if std::mem::take(&mut self.has_marked) {
            self.dirty.raise_canary();
        }
    }

    fn event(&mut self, kind: &'static str, reason: impl Into<String>) {
        if self.events.len() >= EVENTS_MAX {
            return; // one step that says so much was made to say it
        }
        let epoch = self.records.stable().epoch;
        self.events.push(Event { kind, epoch, reason: reason.into() });
    }
}

/// Events of one step.
const EVENTS_MAX: usize = 64;
