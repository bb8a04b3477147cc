//! Operators: what was typed here, and what is relayed to and from the peer.

use std::collections::BTreeMap;

use super::effect::Effect;
use super::exit::{Asker, ExitWhy};
use super::operator::{AgentCommand, Answer, Command, Refused};
use super::records::Change;
use super::session::{Phase, Standing};
use super::{Effects, Replica};
use crate::metadata::MapMemory;
use crate::promotion::PromoteHow;
use crate::units::{
    DiskReason, DiskState, Generation, Instant, Outcome, Resolution, Role, SessionId, Side,
    VetoReason,
};
use crate::wire::message::{Ask, Message, Outdate, PeerCommand, Told, Verified};

/// Commands that wait for something.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Desk {
    next_ask: u64,
    asked: BTreeMap<u64, Asked>,
    disconnecting: Option<Disconnecting>,
    stopping: Vec<u64>,
    is_stopping: bool,
    stop_began: bool,
    /// Until when the peer may take over before a primary stops.
    pub(super) succession_ends: Option<Instant>,
    connecting: Vec<u64>,
    invalidating: Vec<u64>,
}

/// A command that the peer was asked to carry out.
#[derive(Clone, Debug, Hash)]
struct Asked {
    request: u64,
    at: Instant,
    text: &'static str,
    /// In which session; another one will not answer it.
    session: Option<SessionId>,
}

/// A disconnect that waits for the peer's consent, or for our own veto.
#[derive(Clone, Debug, Hash)]
struct Disconnecting {
    request: u64,
    since: Instant,
    step: Leaving,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Leaving {
    /// The nodes may be meeting: nothing can be said yet.
    Waiting,
    /// The peer was asked to veto itself, or our own veto is on its way.
    Vetoing,
    /// The record is to say that this node stands alone.
    Recording,
}

impl Desk {
    /// Whether the daemon stops.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// A number for the next question to the peer.
    pub(super) fn next_ask(&mut self) -> u64 {
        self.next_ask += 1;
        self.next_ask
    }

    pub(super) fn is_disconnecting(&self) -> bool {
        self.disconnecting.is_some()
    }
}

impl<M: MapMemory> Replica<M> {
    pub(super) fn on_operator(&mut self, request: u64, command: &Command, effects: &mut Effects) {
        let here = Asker::Local(request);
        if self.desk.is_stopping && *command != Command::Stop {
            let next = format!("hotpair status {}, once it runs again", self.settings.resource);
            refuse(request, "this daemon stops", &next, effects);
            return;
        }
        let needs_record = !matches!(
            command,
            Command::Stop | Command::Demote | Command::Agent(AgentCommand::Demote)
        );
        if self.records.has_failed() && needs_record {
            let next = "make sure that the folder of the metadata can be written (hotpair events \
                        says since when it cannot), and restart the daemon";
            refuse(request, "this node cannot write its metadata", next, effects);
            return;
        }
        let is_agents = matches!(command, Command::Agent(_)) && self.is_under_pacemaker();
        let plain;
        let typed = if let Command::Agent(asked) = command {
            plain = asked.as_typed();
            &plain
        } else {
            command
        };
        if let Some(refused) = self.refuse_behind_pacemaker(typed).filter(|_| !is_agents) {
            effects.push(Effect::Answer { request, result: Err(refused) });
            return;
        }
        match *typed {
            Command::Promote { force, accept_data_loss } => {
                let how = PromoteHow { force, accept_data_loss, by_pacemaker: is_agents };
                self.on_promote(request, how, effects);
            }
            Command::Agent(_) => {} // it was taken for what it asks
            Command::Demote if !self.role.is_primary() => {
                answer(request, "this node is secondary already", effects);
            }
            Command::Demote => self.on_demote(here, effects),
            Command::Switchover if self.role.is_primary() => self.on_switchover(here, effects),
            Command::Switchover => self.relay(request, PeerCommand::Switchover, effects),
            Command::Connect => self.on_connect(request, effects),
            Command::Disconnect => self.on_disconnect(request, effects),
            Command::PauseResync => self.on_pause(request, true, effects),
            Command::ResumeResync => self.on_pause(request, false, effects),
            Command::Verify { repair } => {
                if self.role.is_primary() || !self.link.peer_is_primary() {
                    self.begin_verify(here, repair, effects);
                } else {
                    self.relay(request, PeerCommand::Verify { repair }, effects);
                }
            }
            Command::Invalidate => self.on_invalidate(request, effects),
            Command::Resolve { keep } => self.on_resolve(request, keep, effects),
            Command::Resize { .. } if self.settings.is_register => {
                let next = format!("hotpair status {}", self.settings.resource);
                refuse(request, "a directory has no size of its own", &next, effects);
            }
            Command::Resize { size } => self.on_resize(request, size, effects),
            Command::Tree(_) => {
                let next = format!("hotpair status {}", self.settings.resource);
                refuse(request, BLOCK_NEEDS_NONE, &next, effects);
            }
            Command::Stop => self.on_stop(request, effects),
        }
    }

    pub(super) fn answer_done(&mut self, asker: Asker, text: &str, effects: &mut Effects) {
        match asker {
            Asker::Local(request) => answer(request, text, effects),
            Asker::Peer(request) => self.tell(request, Ok(None), effects),
        }
    }

    pub(super) fn answer_refused(&mut self, asker: Asker, why: &str, effects: &mut Effects) {
        match asker {
            Asker::Local(request) => {
                let next = format!("hotpair explain {}", self.settings.resource);
                refuse(request, why, &next, effects);
            }
            Asker::Peer(request) => self.tell(request, Err(why.to_owned()), effects),
        }
    }

    /// Tells the peer what became of what it asked: done, and what a verify found, or why not.
    pub(super) fn tell(
        &mut self,
        request: u64,
        result: Result<Option<Verified>, String>,
        effects: &mut Effects,
    ) {
        let (refused, verified) = match result {
            Ok(verified) => (None, verified),
            Err(why) => (Some(why), None),
        };
        self.send(Message::Told(Told { request, refused, verified }), effects);
    }

    /// Asks the peer to carry out a command that was typed here.
    fn relay(&mut self, request: u64, command: PeerCommand, effects: &mut Effects) {
        let text = match &command {
            PeerCommand::Switchover => RELAYED_SWITCHOVER,
            PeerCommand::Verify { .. } => "both copies were compared",
            PeerCommand::Resolve(_) => RELAYED_RESOLUTION,
            PeerCommand::ResizePrepare(_) | PeerCommand::ResizeCommit(_) => "resized",
        };
        match self.link.standing() {
            Standing::Running { .. } | Standing::Apart if self.desk.asked.len() >= ASKED_MAX => {
                let why = format!("{} has not answered {ASKED_MAX} commands", self.settings.peer);
                let resource = &self.settings.resource;
                let next = format!("wait for them, or type: hotpair disconnect {resource}");
                refuse(request, &why, &next, effects);
            }
            Standing::Running { .. } | Standing::Apart => {
                let id = self.desk.next_ask();
                let session = self.link.up.as_ref().and_then(|up| up.session);
                let at = self.now;
                self.desk.asked.insert(id, Asked { request, at, text, session });
                self.send(Message::Ask(Ask { request: id, command }), effects);
            }
            Standing::Down | Standing::Meeting => {
                let why = format!("{} is not connected", self.settings.peer);
                let next = format!("hotpair status {}", self.settings.resource);
                refuse(request, &why, &next, effects);
            }
        }
    }

    /// A command that was typed at the peer.
    pub(super) fn on_ask(&mut self, ask: &Ask, effects: &mut Effects) {
        let there = Asker::Peer(ask.request);
        match &ask.command {
            PeerCommand::Switchover if self.role.is_primary() => self.on_switchover(there, effects),
            PeerCommand::Switchover => {
                let resource = &self.settings.resource;
                let why = format!("no node is primary: type `hotpair promote {resource}` on one");
                self.answer_refused(there, &why, effects);
            }
            PeerCommand::Verify { repair } => self.begin_verify(there, *repair, effects),
            PeerCommand::Resolve(resolution) => {
                self.accept_resolution(there, *resolution, effects);
            }
            PeerCommand::ResizePrepare(size) => self.on_resize_prepare(there, *size, effects),
            PeerCommand::ResizeCommit(size) => self.on_resize_commit(there, *size, effects),
        }
    }

    pub(super) fn on_told(&mut self, told: Told, effects: &mut Effects) {
        if self.on_resize_told(&told, effects) {
            return;
        }
        let Some(asked) = self.desk.asked.remove(&told.request) else {
            return; // it was given up here
        };
        if let Some(found) = told.verified {
            self.verify.note_result(self.now, found);
        }
        match told.refused {
            None => answer(asked.request, asked.text, effects),
            Some(why) => {
                let next = format!("hotpair explain {}", self.settings.resource);
                refuse(asked.request, &why, &next, effects);
            }
        }
    }

    /// What was asked of the peer is not answered any more. A switchover is answered by its
    /// effect: this node is primary when it succeeded.
    pub(super) fn desk_lost_link(&mut self, effects: &mut Effects) {
        for (_, asked) in std::mem::take(&mut self.desk.asked) {
            let next = format!("hotpair status {}", self.settings.resource);
            refuse(asked.request, "the connection was lost meanwhile", &next, effects);
        }
        self.record_disconnect();
    }

    /// The peer handed over what was asked for here.
    pub(super) fn answer_switchover(&mut self, effects: &mut Effects) {
        self.answer_relayed(RELAYED_SWITCHOVER, effects);
    }

    /// Answers every relayed command of this kind.
    fn answer_relayed(&mut self, text: &str, effects: &mut Effects) {
        self.desk.asked.retain(|_, asked| {
            let is_other = asked.text != text;
            if !is_other {
                answer(asked.request, text, effects);
            }
            is_other
        });
    }

    pub(super) fn tick_desk(&mut self, effects: &mut Effects) {
        let limit = 3 * self.settings.io_timeout;
        let session = self.link.up.as_ref().and_then(|up| up.session);
        let late: Vec<u64> = self
            .desk
            .asked
            .iter()
            .filter(|(_, asked)| {
                let age = self.now.since(asked.at);
                (asked.text == RELAYED_SWITCHOVER && age >= limit)
                    || (asked.session != session && age >= self.settings.io_timeout)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(asked) = self.desk.asked.remove(&id) {
                let why = format!("{} does not answer", self.settings.peer);
                let next = format!("hotpair status {}", self.settings.resource);
                refuse(asked.request, &why, &next, effects);
            }
        }
        let is_late = self
            .desk
            .disconnecting
            .as_ref()
            .is_some_and(|d| self.now.since(d.since) >= self.settings.suspect_after);
        if is_late {
            self.record_disconnect();
        }
        self.pump_stop_command(effects);
    }

    fn on_connect(&mut self, request: u64, effects: &mut Effects) {
        if self.desk.disconnecting.is_some() {
            let next = format!("once it is done: hotpair connect {}", self.settings.resource);
            refuse(request, "a disconnect is under way", &next, effects);
        } else if self.records.stable().stand_alone {
            self.desk.connecting.push(request);
            self.records.change(Change::StandAlone(false));
        } else {
            effects.push(Effect::Connect(true));
            self.resize.try_again();
            if self.link.standing() == Standing::Apart {
                self.restart_session();
            }
            answer(request, "this node connects whenever the peer is there", effects);
        }
    }

    fn on_disconnect(&mut self, request: u64, effects: &mut Effects) {
        if self.records.stable().stand_alone {
            answer(request, "this node is disconnected already", effects);
            return;
        }
        if self.role.promoting.is_some() || self.role.exit.is_some() {
            let next = format!("hotpair status {}", self.settings.resource);
            refuse(request, "a change of role is under way", &next, effects);
            return;
        }
        if self.desk.disconnecting.is_some() {
            refuse(request, "a disconnect is under way", "hotpair status", effects);
            return;
        }
        let (since, step) = (self.now, Leaving::Waiting);
        self.desk.disconnecting = Some(Disconnecting { request, since, step });
    }

    /// Leaves as soon as it is known whether the nodes follow each other: the one that stays must
    /// not wait for one that left on purpose, so a veto comes first.
    pub(super) fn pump_disconnect(&mut self, effects: &mut Effects) {
        let standing = self.link.standing();
        let Some(disconnecting) = &mut self.desk.disconnecting else { return };
        if disconnecting.step != Leaving::Waiting || standing == Standing::Meeting {
            return;
        }
        disconnecting.step = Leaving::Vetoing;
        match standing {
            Standing::Running { .. } if self.role.is_primary() => {
                // What is still sent in this session must stay above the veto.
                let record_epoch = self.records.stable().epoch;
                let epoch = self.link.session().map_or(record_epoch, |session| session.epoch);
                let outdate = Outdate { epoch, reason: VetoReason::Evicted };
                self.send(Message::Outdate(outdate), effects);
            }
            Standing::Running { .. } if self.may_veto() => self.veto_before_leaving(),
            // A promotion that it asked for may still be granted, so it promises nothing.
            Standing::Running { .. } | Standing::Down | Standing::Apart | Standing::Meeting => {
                self.record_disconnect();
            }
        }
    }

    /// The peer confirmed that it vetoed itself.
    pub(super) fn on_peer_vetoed(&mut self, _effects: &mut Effects) {
        if self.role.is_primary() && self.desk.disconnecting.is_some() {
            self.record_disconnect();
        }
    }

    /// Our own veto is stable: the peer need not wait for anything when we leave.
    pub(super) fn on_leave_recorded(&mut self, outdate: Outdate, effects: &mut Effects) {
        self.send(Message::Leave(outdate), effects);
        if self.desk.disconnecting.is_some() {
            self.record_disconnect();
        } else if self.desk.is_stopping {
            self.close_link(true, effects);
        }
    }

    fn record_disconnect(&mut self) {
        if let Some(disconnecting) = &mut self.desk.disconnecting
            && disconnecting.step != Leaving::Recording
        {
            disconnecting.step = Leaving::Recording;
            self.records.change(Change::StandAlone(true));
        }
    }

    pub(super) fn on_stand_alone_recorded(&mut self, is_apart: bool, effects: &mut Effects) {
        effects.push(Effect::Connect(!is_apart));
        if is_apart {
            self.event("disconnected", "by an operator");
            let asker = self.desk.disconnecting.take();
            self.close_link(true, effects);
            if let Some(disconnecting) = asker {
                answer(disconnecting.request, "this node stands alone", effects);
            }
        } else {
            self.event("connecting", "by an operator");
            for request in std::mem::take(&mut self.desk.connecting) {
                let text = "this node connects whenever the peer is there";
                answer(request, text, effects);
            }
        }
    }

    fn on_pause(&mut self, request: u64, is_paused: bool, effects: &mut Effects) {
        let is_sending = self.link.source().is_some_and(|source| !source.is_complete());
        let is_receiving = self.link.target().is_some_and(|target| !target.is_complete());
        if !is_sending && !is_receiving {
            let next = format!("hotpair status {}", self.settings.resource);
            refuse(request, "no resync is running", &next, effects);
            return;
        }
        self.pause_transfer(is_paused, effects);
        let (resource, peer) = (&self.settings.resource, &self.settings.peer);
        let text = match (is_paused, self.is_paused_there()) {
            (true, _) => "the resync is paused".to_owned(),
            (false, false) => "the resync goes on".to_owned(),
            (false, true) => {
                format!("it was paused on {peer}; type there: hotpair resume-resync {resource}")
            }
        };
        answer(request, &text, effects);
    }

    /// The operator of the peer lets it wait.
    pub(super) fn is_paused_there(&self) -> bool {
        self.link.source().is_some_and(|source| source.paused_there)
            || self.link.target().is_some_and(|target| target.paused_there)
    }

    fn on_invalidate(&mut self, request: u64, effects: &mut Effects) {
        if self.role.is_primary() {
            let next = format!("hotpair switchover {}", self.settings.resource);
            refuse(request, "this node is primary: its copy is the right one", &next, effects);
        } else if self.records.stable().split || self.must_choose() {
            // It would not settle which of the two histories stays.
            let (resource, peer) = (&self.settings.resource, &self.settings.peer);
            let next = format!("hotpair split-brain resolve {resource} --keep {peer}");
            refuse(request, "the split brain is not resolved", &next, effects);
        } else if let Some(why) = self.is_no_copy() {
            let next = format!("hotpair explain {}", self.settings.resource);
            refuse(request, why, &next, effects);
        } else if self.records.stable().disk == DiskState::UpToDate && !self.peer_has_a_copy() {
            let why = "the peer has no up-to-date copy, or is not connected";
            let next = format!("hotpair explain {}", self.settings.resource);
            refuse(request, why, &next, effects);
        } else {
            self.desk.invalidating.push(request);
            self.records.change(Change::Invalidate);
        }
    }

    /// Why there is nothing here to give up. What was given up is outdated, and by force that may be
    /// promoted, or fill another node: a mix of old and new must never get there.
    fn is_no_copy(&self) -> Option<&'static str> {
        match self.disk_state() {
            DiskState::UpToDate | DiskState::Outdated => None,
            DiskState::Inconsistent => Some("this copy is no whole one: a resync has to fill it"),
            DiskState::Failed | DiskState::Missing => Some("the local disk failed"),
        }
    }

    fn peer_has_a_copy(&self) -> bool {
        self.link.peer_hello().is_some_and(|hello| hello.disk == DiskState::UpToDate)
    }

    pub(super) fn on_invalidated(&mut self, effects: &mut Effects) {
        if self.records.stable().disk_reason != DiskReason::Invalidated {
            let next = format!("hotpair status {} --watch", self.settings.resource);
            for request in std::mem::take(&mut self.desk.invalidating) {
                refuse(request, "a resync to this copy began meanwhile", &next, effects);
            }
            return;
        }
        self.event("invalidated", "all of this copy is compared with the peer's");
        self.restart_session();
        let text = if self.link.up.is_some() {
            "all of this copy is compared with the peer's"
        } else {
            "all of this copy is compared with the peer's as soon as the two meet"
        };
        for request in std::mem::take(&mut self.desk.invalidating) {
            answer(request, text, effects);
        }
    }

    fn on_resolve(&mut self, request: u64, keep: Side, effects: &mut Effects) {
        if self.records.stable().stand_alone {
            let next = format!("hotpair connect {}", self.settings.resource);
            refuse(request, "an operator disconnected this node", &next, effects);
            return;
        }
        let is_split = self.must_choose();
        let generations = self
            .link
            .peer_hello()
            .and_then(|hello| Some((self.records.stable().generation?, hello.generation?)));
        let (true, Some((mine, theirs))) = (is_split, generations) else {
            let why = if self.is_split() {
                "both nodes must be connected to settle a split brain, and they are not"
            } else {
                "there is no split brain"
            };
            let next = format!("hotpair explain {}", self.settings.resource);
            refuse(request, why, &next, effects);
            return;
        };
        let resolution = if keep == self.settings.side {
            Resolution { kept: mine, dropped: theirs }
        } else {
            Resolution { kept: theirs, dropped: mine }
        };
        self.relay(request, PeerCommand::Resolve(resolution), effects);
        self.adopt_resolution(resolution, effects);
    }

    /// Whether both agree, now, that an operator must choose.
    pub(super) fn must_choose(&self) -> bool {
        matches!(self.link.up.as_ref().map(|up| &up.phase), Some(Phase::Apart(Outcome::SplitBrain)))
    }

    /// A resolution typed at the peer counts only in a split brain, which the peer's verdict told
    /// before, and only if it names exactly what both have.
    fn accept_resolution(&mut self, asker: Asker, resolution: Resolution, effects: &mut Effects) {
        let theirs = self.link.peer_hello().and_then(|hello| hello.generation);
        let mine = self.records.stable().generation;
        let names = [Some(resolution.kept), Some(resolution.dropped)];
        let fits = names == [mine, theirs] || names == [theirs, mine];
        if !self.must_choose() {
            self.answer_refused(asker, "there is no split brain", effects);
            return;
        }
        if !fits {
            self.answer_refused(asker, "a generation changed meanwhile", effects);
            return;
        }
        self.answer_done(asker, "", effects);
        self.adopt_resolution(resolution, effects);
    }

    fn adopt_resolution(&mut self, resolution: Resolution, effects: &mut Effects) {
        let mine: Option<Generation> = self.records.stable().generation;
        if mine == Some(resolution.dropped) {
            self.stop_serving_for_resolution(effects);
        }
        self.event("split-brain-resolved", format!("{} is kept", resolution.kept));
        self.records.change(Change::Resolve(resolution));
    }

    pub(super) fn on_resolution_recorded(&mut self, effects: &mut Effects) {
        self.answer_relayed(RELAYED_RESOLUTION, effects);
        self.restart_session();
    }

    fn on_stop(&mut self, request: u64, effects: &mut Effects) {
        self.desk.stopping.push(request);
        if self.desk.is_stopping {
            return;
        }
        self.desk.is_stopping = true;
        effects.push(Effect::Connect(false));
        if self.keeps_switchover_for_stop() {
            return;
        }
        if self.role.exit.as_ref().is_some_and(|exit| exit.asks_arbiter().is_some()) {
            // What the arbiter says is found in its record at the next start.
            self.abort_exit("this daemon stops", effects);
        }
        if self.role.is_primary() {
            self.abort_exit("this daemon stops", effects);
            self.begin_last_exit(effects);
        } else if self.link.peer_is_primary()
            && matches!(self.link.standing(), Standing::Running { .. })
            && self.may_veto()
        {
            self.veto_before_leaving();
        } else {
            self.close_link(false, effects);
        }
        self.pump_stop_command(effects);
    }

    /// A secondary's clean stop begins when it has left.
    fn pump_stop_command(&mut self, effects: &mut Effects) {
        if self.desk.is_stopping && self.role.is_primary() && self.role.exit.is_none() {
            // Its promotion was on the way to the record when the stop was asked for.
            self.begin_exit(ExitWhy::Stop, None, effects);
        }
        let may_begin = self.desk.is_stopping
            && !self.desk.stop_began
            && !self.role.is_primary()
            && self.role.exit.is_none()
            && self.records.is_idle();
        if !may_begin || self.leaves_successor() {
            return;
        }
        if self.link.standing() == Standing::Down {
            self.desk.stop_began = true;
            self.begin_clean_stop();
        } else {
            // It has said that it leaves, or was primary until a moment ago.
            self.close_link(false, effects);
        }
    }

    /// Whoever waits for the end of the process.
    pub(super) fn desk_stop_askers(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.desk.stopping)
    }

    /// Whether this node is primary, for status.
    pub(super) fn role_now(&self) -> Role {
        if self.role.is_primary() { Role::Primary } else { Role::Secondary }
    }
}

/// Answers an operator that it is done.
pub(super) fn answer(request: u64, text: &str, effects: &mut Effects) {
    let result = Ok(Answer::new(text));
    effects.push(Effect::Answer { request, result });
}

/// Refuses an operator's command.
pub(super) fn refuse(request: u64, why: &str, next: &str, effects: &mut Effects) {
    let result = Err(Refused { why: why.to_owned(), next: next.to_owned() });
    effects.push(Effect::Answer { request, result });
}

/// Why a command for directories is refused.
const BLOCK_NEEDS_NONE: &str =
    "it is for directories: a block resource is replicated write by write";
/// Commands that may wait for the peer.
const ASKED_MAX: usize = 64;
/// What a switchover says when it is done; it alone must be answered in bounded time.
const RELAYED_SWITCHOVER: &str = "the roles are exchanged";
/// What a resolution says when it is on record here.
const RELAYED_RESOLUTION: &str = "settled: the data that is kept is sent to the other node";
