//! A pair of nodes as the checker sees it: a state, what can happen in it, and what follows.

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hotpair::metadata::Birth;
use hotpair::replica::{Closing, Command, Effect, Input, LinkId, Request, RequestId, RequestKind};
use hotpair::units::{ByteRange, Epoch, Instant, ServeMode, Side};
use hotpair::wire::message::{Frame, Message, RefusalCode};
use hotpair::wire::payload::Payload;

use crate::bounds::{Bounds, Flaw, Left, Quick};
use crate::checks;
use crate::disk::{Files, Work, size};
use crate::ghost::{Broken, ForcedBy, Ghost, have_diverged};
use crate::net::Net;
use crate::node::{Ask, Asked, Name, Node, Process, read_at_once};
use crate::promises;
use crate::third::{Third, Word};

/// Both nodes, the connection, and what may still happen.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) nodes: [Node; 2],
    pub(crate) net: Net,
    /// With an arbiter only.
    pub(crate) third: Option<Box<Third>>,
    pub(crate) ghost: Ghost,
    pub(crate) left: Left,
    /// What each node had when the search began: the same in all states of a search.
    pub(crate) images: [Option<Arc<Files>>; 2],
    /// Nodes that never start again: only while it is asked whether service comes back.
    pub(crate) is_dead: [bool; 2],
    /// Time passes in one step, after which everything that waits for time is due.
    has_time_passed: bool,
    /// The property that does not hold.
    pub(crate) broken: Option<Broken>,
    /// What this step was: not a part of the state.
    pub(crate) told: Told,
}

/// The checker knows states by their fingerprints.
impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        stable_hash(self) == stable_hash(other)
    }
}

fn stable_hash(pair: &Pair) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    pair.hash(&mut hasher);
    hasher.finish()
}

/// What the last step told people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<(usize, &'static str, String)>,
    pub(crate) answered: Option<(usize, Ask, bool)>,
    is_refused: bool,
    /// The bounds do not let it go on.
    pub(crate) is_worn: bool,
}

impl Hash for Pair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.nodes, &self.net, &self.third, &self.ghost, self.left).hash(state);
        (self.has_time_passed, self.broken).hash(state);
    }
}

/// One thing that can happen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Action {
    /// The next frame arrives at a node.
    Deliver {
        to: usize,
    },
    /// An I/O ends well.
    End {
        at: usize,
        work: usize,
    },
    /// A moment passes at a node that has nothing else to do: what its last step left undone goes on.
    Tick {
        at: usize,
    },
    /// The connection is lost.
    Cut,
    /// A node finds out.
    Notice {
        at: usize,
    },
    Connect,
    Ask {
        at: usize,
        what: Wanted,
    },
    /// The process ends; what was under way happened or not.
    Kill {
        at: usize,
        is_landed: bool,
    },
    /// The machine ends, and one version of what was not synced is left.
    LosePower {
        at: usize,
        is_landed: bool,
        version: usize,
        map_is_kept: bool,
    },
    Start {
        at: usize,
    },
    Type {
        at: usize,
        typed: Typed,
    },
    PassTime,
    /// The machine ends, and comes back with what it had when the search began.
    PutBack {
        at: usize,
    },
    /// Something between the nodes and the arbiter.
    Word(Word),
}

/// What a client may want.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    Write,
    Read,
    Flush,
}

/// What an operator may type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Typed {
    Promote,
    /// With `--force --peer-is-fenced`, and `--accept-data-loss`.
    Force {
        accepts_loss: bool,
    },
    Demote,
    Switchover,
    Stop,
    /// The same, of the second node only.
    Leave,
    /// `split-brain resolve --keep` this node.
    Keep,
}

/// Operators' commands carry these numbers: only a stop's answer ends something.
const STOP: u64 = 1;
const OTHER: u64 = 2;

impl Pair {
    /// Two machines after `hotpair init`, not started.
    pub(crate) fn new(left: Left) -> Self {
        let node = |kind, at| {
            let files =
                Files::new(kind, at, hotpair::metadata::Place { boot_id: 1, ..Default::default() });
            Node::new(files)
        };
        Self {
            nodes: [node(Birth::This, 0), node(Birth::Peer, 1)],
            net: Net::default(),
            third: None,
            ghost: Ghost::default(),
            left,
            images: [None, None],
            is_dead: [false; 2],
            has_time_passed: false,
            broken: None,
            told: Told::default(),
        }
    }

    /// Whether a tick would make node `at` do something.
    pub(crate) fn tick_matters(&self, at: usize) -> bool {
        let Some(process) = &self.nodes[at].process else { return false };
        let mut effects = Vec::new();
        process.core.clone().step(self.now(), Input::Tick, &mut effects);
        !effects.is_empty()
    }

    pub(crate) fn now(&self) -> Instant {
        Instant(if self.has_time_passed { 2 << 40 } else { 1 << 40 })
    }

    /// Carries out `action`; `None` if it changes nothing worth a state.
    pub(crate) fn happens(&self, action: Action, bounds: &Bounds) -> Option<Self> {
        let mut next = self.clone();
        next.told = Told::default();
        let mut result = next.carry_out(action, bounds);
        let is_typed = self.third.is_none() || matches!(action, Action::Type { .. });
        if (next.told.is_refused && is_typed) || next.told.is_worn || next.net.is_worn() {
            return None;
        }
        while result.is_ok()
            && let Some(action) = next.quick_action(bounds)
        {
            result = next.carry_out(action, bounds);
        }
        let result =
            result.and_then(|()| checks::look(&next)).and_then(|()| promises::look(&next, bounds));
        next.broken = result.err();
        if next.told.is_worn || next.net.is_worn() || !bounds.is_of_interest(next.broken) {
            return None;
        }
        Some(next)
    }

    /// What people want to know of a state, in a line.
    pub(crate) fn brief(&self) -> String {
        let node = |node: &Node| {
            let works = node.process.as_ref().map(|it| {
                let kinds = it.works.iter().map(|(_, work)| match work {
                    Work::Record(_) => "Record".to_owned(),
                    Work::Append(_) => "Append".to_owned(),
                    other => format!("{other:?}"),
                });
                (kinds.collect::<Vec<_>>(), it.export)
            });
            let record = &node.files.record;
            let marked = node.files.map.is_marked();
            format!("{:?} {:?} {marked} {works:?}", node.files.data, record.serve_mode)
        };
        format!("{} | {} | {:?}", node(&self.nodes[0]), node(&self.nodes[1]), self.ghost.floor)
    }

    /// What goes on by itself, and is not worth an order of its own in this search.
    fn quick_action(&self, bounds: &Bounds) -> Option<Action> {
        let is_quick = |action: &Action| match *action {
            Action::End { at, work } => {
                let process = self.nodes[at].process.as_ref();
                let is_record =
                    process.is_some_and(|it| matches!(it.works[work].1, Work::Record(_)));
                if is_record { bounds.quick.records } else { bounds.quick.data }
            }
            Action::Deliver { .. } => bounds.quick.frames,
            Action::Tick { .. } => bounds.quick.data,
            Action::Word(Word::Ask { place: 0, .. } | Word::Tell { place: 0, .. }) => {
                bounds.quick.words
            }
            Action::Word(Word::Grant { .. } | Word::Push { .. }) => bounds.quick.words,
            _ => false,
        };
        if bounds.quick == Quick::default() {
            return None;
        }
        let mut actions = Vec::new();
        self.progress(&mut actions);
        actions.into_iter().find(is_quick)
    }

    fn carry_out(&mut self, action: Action, bounds: &Bounds) -> Result<(), Broken> {
        match action {
            Action::Deliver { to } => {
                let link = self.process(to).link.expect("it has an end");
                let frame = self.net.take_frame(to).expect("one is there");
                self.step(to, Input::Peer { link, frame }, bounds)
            }
            Action::End { at, work } => self.end(at, work, bounds),
            Action::Tick { at } => self.step(at, Input::Tick, bounds),
            Action::Cut => {
                self.left.cuts -= 1;
                self.net.cut();
                Ok(())
            }
            Action::Notice { at } => {
                let link = self.process(at).link.take().expect("it has an end");
                self.net.close(at, link);
                self.step(at, Input::LinkLost { link }, bounds)
            }
            Action::Connect => self.connect(bounds),
            Action::Ask { at, what } => self.ask(at, what, bounds),
            Action::Kill { at, is_landed } => {
                self.left.kills -= 1;
                self.leave_will(at);
                self.crash(at, is_landed);
                if bounds.flaw == Some(Flaw::Marks) {
                    self.nodes[at].files.forget_marks();
                }
                Ok(())
            }
            Action::LosePower { at, is_landed, version, map_is_kept } => {
                self.left.power_losses -= 1;
                self.crash(at, is_landed);
                let files = &mut self.nodes[at].files;
                let shown = files.data.shown();
                files.lose_power(version, map_is_kept);
                let has_lost = files.data.shown() != shown;
                self.ghost.lost_power(at, has_lost, &self.nodes);
                Ok(())
            }
            Action::PutBack { at } => {
                self.left.put_backs -= 1;
                self.crash(at, false);
                let image = self.images[at].clone().expect("the search has one");
                let nodes = &mut self.nodes;
                let was_alone = nodes[at].files.record.serve_mode == ServeMode::Solo;
                nodes[at].files.put_back(&image);
                let shown = nodes[at].files.data.shown();
                self.ghost.was_put_back(at, shown, was_alone);
                Ok(())
            }
            Action::Start { at } => {
                let (settings, now) = (bounds.settings(at), self.now());
                self.nodes[at].start(settings, now);
                self.step(at, Input::Started, bounds)
            }
            Action::Type { at, typed } => self.type_command(at, typed, bounds),
            Action::PassTime => {
                self.left.time -= 1;
                self.has_time_passed = true;
                for at in 0..2 {
                    if self.nodes[at].process.is_some() {
                        self.step(at, Input::Tick, bounds)?;
                    }
                }
                Ok(())
            }
            Action::Word(word) => self.carry_out_word(word, bounds),
        }
    }

    fn process(&mut self, at: usize) -> &mut Process {
        self.nodes[at].process.as_mut().expect("it runs")
    }

    /// One step of a core, and all that follows at once.
    pub(crate) fn step(&mut self, at: usize, input: Input, bounds: &Bounds) -> Result<(), Broken> {
        let now = self.now();
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(process) = &mut self.nodes[at].process else { return Ok(()) };
            let was_marked = self.nodes[at].files.map.is_marked();
            let is_durable_answer = checks::says_durable(&input);
            let mut effects = Vec::new();
            let core = &mut process.core;
            catch_unwind(AssertUnwindSafe(|| core.step(now, input, &mut effects)))
                .map_err(|_| "CoreAsserts")?;
            self.nodes[at].note_map();
            if is_durable_answer && was_marked && !self.nodes[at].files.map.is_marked() {
                checks::clear_by_version(at, &self.nodes)?;
            }
            for effect in effects {
                self.carry_out_effect(at, effect, &mut inputs, bounds)?;
            }
        }
        Ok(())
    }

    fn carry_out_effect(
        &mut self,
        at: usize,
        effect: Effect,
        inputs: &mut std::collections::VecDeque<Input>,
        bounds: &Bounds,
    ) -> Result<(), Broken> {
        if let Some(input) = read_at_once(&effect, &self.nodes[at].files) {
            inputs.push_back(input);
            return Ok(());
        }
        let Node { files, process, .. } = &mut self.nodes[at];
        let Some(process) = process else { return Ok(()) };
        let is_write = matches!(effect, Effect::Write { .. } | Effect::Zero { .. });
        if is_write && process.core.hot_extents().is_empty() {
            return Err("LogBeforeWrite");
        }
        let is_append = matches!(effect, Effect::AppendLog { .. });
        let is_cold = process.core.hot_extents().is_empty();
        if is_append && is_cold && files.data.version_count() > 1 {
            return Err("StableBeforeCooling");
        }
        if process.begin(&effect, files) {
            return Ok(());
        }
        match effect {
            Effect::Send { link, frame } => self.send(at, link, frame),
            Effect::CloseLink { link, .. } => {
                process.link = process.link.filter(|open| *open != link);
                self.net.close(at, link);
                Ok(())
            }
            Effect::Connect(wanted) => {
                process.wants_link = wanted;
                Ok(())
            }
            Effect::OpenExport(grant) => self.open(at, grant.epoch()),
            Effect::CloseExport(closing) => {
                process.export = None;
                let is_answered = std::mem::take(&mut process.asked).is_empty();
                inputs.push_back(Input::ClientsGone);
                if closing == Closing::Drained && !is_answered { Err("Drained") } else { Ok(()) }
            }
            Effect::Reply { request, result } => self.reply(at, request, result.is_ok()),
            Effect::DrawId => {
                let id = self.nodes[at].fresh_id(&bounds.settings(at));
                inputs.push_back(Input::FreshId(id));
                Ok(())
            }
            Effect::Answer { request, result } => {
                self.told.is_refused |= result.is_err() && request == OTHER;
                if request == STOP && result.is_ok() {
                    self.crash(at, false);
                }
                Ok(())
            }
            Effect::Event(event) => {
                match event.kind {
                    "going-solo" => {
                        self.ghost.counts_on_veto[at] = event.reason.contains("PeerVeto");
                    }
                    "role-changed" => self.ghost.counts_on_veto[at] = false,
                    _ => {}
                }
                self.told.events.push((at, event.kind, event.reason));
                Ok(())
            }
            Effect::AskArbiter(request) => self.asks_third(at, request, bounds),
            Effect::SetTimer { timer, .. } => self.set_timer(at, timer),
            Effect::GrantLease(to) => self.grant_lease(at, to),
            Effect::Outdate(order) => self.outdates(at, order),
            _ => unreachable!("the others are I/O"),
        }
    }

    fn send(&mut self, at: usize, link: LinkId, frame: Frame) -> Result<(), Broken> {
        let is_data = matches!(
            frame.message,
            Message::Write(_) | Message::Zero(_) | Message::ChunkData(_) | Message::ChunkZero(_)
        );
        if is_data && have_diverged(&self.nodes) {
            let is_settled = |node: &Node| node.files.record.resolution.is_some();
            if !self.nodes.iter().any(is_settled) {
                return Err("DivergedStandsStill");
            }
        }
        if let Message::Refusal(refusal) = &frame.message {
            match refusal.code {
                RefusalCode::VerdictsDiffer => return Err("MirroredVerdict"),
                RefusalCode::Protocol => return Err("HonestPeersAgree"),
                _ => {}
            }
        }
        self.net.send(at, link, frame);
        Ok(())
    }

    fn open(&mut self, at: usize, epoch: Epoch) -> Result<(), Broken> {
        self.ghost.opens(at, epoch, &self.nodes, self.third.is_some())?;
        self.process(at).export = Some(epoch);
        Ok(())
    }

    fn reply(&mut self, at: usize, request: RequestId, is_ok: bool) -> Result<(), Broken> {
        let asked = &mut self.process(at).asked;
        let place = asked.iter().position(|asked| asked.request == request).ok_or("OneReply")?;
        let asked = asked.remove(place);
        self.told.answered = Some((at, asked.what, is_ok));
        match asked.what {
            _ if !is_ok => Ok(()),
            Ask::Write(value) => self.ghost.told(at, value, &self.nodes),
            Ask::Read => {
                let found = asked.found.expect("it was read before it was answered");
                self.ghost.read(at, found, &self.nodes)
            }
            Ask::Flush => self.ghost.flushed(at, asked.after, &self.nodes),
        }
    }

    /// An I/O ends well: the files change, and the core is told.
    fn end(&mut self, at: usize, work: usize, bounds: &Bounds) -> Result<(), Broken> {
        let (name, work) = self.process(at).end(work);
        let old = self.nodes[at].files.record.clone();
        let is_forgotten = match work {
            Work::Sync(_) => bounds.flaw == Some(Flaw::Syncs),
            Work::Record(_) => bounds.flaw == Some(Flaw::Records),
            _ => false,
        };
        if !is_forgotten {
            self.nodes[at].files.land(&work);
        }
        match work {
            Work::Write(value) => self.ghost.wrote(at, value),
            Work::Record(_) => {
                let theirs = &self.nodes[1 - at].files.record;
                let is_only_one = self.third.as_ref().is_some_and(|third| third.lists_only(at))
                    || promises::is_pledged(theirs, 1 - at)
                    || !bounds.is_of_interest(Some("VetoBeforeSolo"));
                self.ghost.recorded(at, &old, &self.nodes, is_only_one)?;
                self.note_force(at, &old);
            }
            Work::Read => {
                let found = self.nodes[at].files.data.shown();
                let reads = |asked: &&mut Asked| asked.what == Ask::Read;
                if let Some(asked) = self.process(at).asked.iter_mut().find(reads) {
                    asked.found = Some(found);
                }
            }
            _ => {}
        }
        let input = match name {
            Name::Io(io) => Input::Disk { io, outcome: hotpair::replica::DiskOutcome::Done },
            Name::Ticket(ticket) => Input::Metadata { ticket, result: Ok(()) },
        };
        self.step(at, input, bounds)
    }

    /// A promotion by force is the only thing that raises an epoch beyond the next 65,536.
    fn note_force(&mut self, at: usize, old: &hotpair::metadata::Superblock) {
        let files = &self.nodes[at].files;
        let is_forced =
            files.record.owner == Some(side(at)) && files.record.epoch.0 >> 16 > old.epoch.0 >> 16;
        if is_forced {
            let peer = self.nodes[1 - at].process.as_ref();
            let peer_serves = peer.is_some_and(|it| it.export.is_some());
            let accepts_loss = self.left.has_accepted_loss;
            // Whoever was primary learns of what the arbiter was not asked for when the nodes meet.
            let is_unheard = self.third.is_some() && !files.record.epoch.is_by_arbiter();
            let by = ForcedBy { peer_serves, is_unheard };
            self.ghost.forced(at, accepts_loss, files.data.shown(), by);
        }
    }

    fn connect(&mut self, bounds: &Bounds) -> Result<(), Broken> {
        self.left.connections -= 1;
        let link = self.net.connect();
        for at in 0..2 {
            if let Some(old) = self.process(at).link.take() {
                self.step(at, Input::LinkLost { link: old }, bounds)?;
            }
        }
        for at in 0..2 {
            self.process(at).link = Some(link);
            let nonce = [u8::try_from(at).unwrap() + 2 * self.net.connections; 32];
            self.step(at, Input::LinkUp { link, nonce, exporter: [0; 32] }, bounds)?;
        }
        Ok(())
    }

    fn ask(&mut self, at: usize, what: Wanted, bounds: &Bounds) -> Result<(), Broken> {
        let request = RequestId(self.left.next_request.into());
        self.left.next_request += 1;
        let range = ByteRange::new(0, 1, size()).unwrap();
        let (what, kind) = match what {
            Wanted::Write => {
                self.left.writes -= 1;
                self.ghost.asked += 1;
                let value = self.ghost.asked;
                let parts = vec![Payload::unhashed(vec![value].into())];
                (Ask::Write(value), RequestKind::Write { range, parts, fua: false })
            }
            Wanted::Read => {
                self.left.reads -= 1;
                (Ask::Read, RequestKind::Read { range })
            }
            Wanted::Flush => {
                self.left.flushes -= 1;
                (Ask::Flush, RequestKind::Flush)
            }
        };
        let after = self.ghost.floor[at];
        let process = self.process(at);
        process.asked.push(Asked { request, what, after, found: None });
        let epoch = process.export.expect("it serves");
        self.step(at, Input::Request { epoch, request: Request { id: request, kind } }, bounds)
    }

    pub(crate) fn crash(&mut self, at: usize, is_landed: bool) {
        self.ghost.counts_on_veto[at] = false;
        if let Some(third) = &mut self.third {
            third.forget_process(at);
        }
        if let Some(value) = self.nodes[at].crash(is_landed) {
            self.ghost.wrote(at, value);
        }
        self.net.cut();
    }

    /// The supervisor of a primary that is killed says that it serves nothing more.
    pub(crate) fn leave_will(&mut self, at: usize) {
        let Some(core) = self.nodes[at].core() else { return };
        let (run, epoch, serves) = (core.instance(), core.superblock().epoch, core.is_primary());
        if let Some(third) = self.third.as_mut().filter(|_| serves) {
            third.leave_will(at, run, epoch);
        }
    }

    fn type_command(&mut self, at: usize, typed: Typed, bounds: &Bounds) -> Result<(), Broken> {
        self.left.commands -= 1;
        let (request, command) = match typed {
            Typed::Promote => (OTHER, Command::Promote { force: false, accept_data_loss: false }),
            Typed::Force { accepts_loss } => {
                self.left.has_accepted_loss |= accepts_loss;
                (OTHER, Command::Promote { force: true, accept_data_loss: accepts_loss })
            }
            Typed::Demote => (OTHER, Command::Demote),
            Typed::Switchover => (OTHER, Command::Switchover),
            Typed::Stop | Typed::Leave => (STOP, Command::Stop),
            Typed::Keep => (OTHER, Command::Resolve { keep: side(at) }),
        };
        self.step(at, Input::Operator { request, command }, bounds)
    }
}

/// The node's place in the pair.
pub(crate) fn side(at: usize) -> Side {
    [Side::First, Side::Second][at]
}
