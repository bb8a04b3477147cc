//! Time, the link, faults, and what must hold at the end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::source_node::SourceNode;
use super::target_node::TargetNode;
use crate::manifest::source::{Register, SourceInput};
use crate::manifest::target::TargetInput;
use crate::units::{Instant, TreePosition, TreeRoot};
use crate::wire::TreeNote;

/// Versions of files.
pub(super) type Content = BTreeMap<u64, u64>;

pub(super) fn root_of(content: &Content) -> TreeRoot {
    TreeRoot(*blake3::hash(format!("{content:?}").as_bytes()).as_bytes())
}

pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Numbers that look random, the same for each seed.
#[derive(Clone, Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What goes over the link. Registers have lanes of their own and may overtake notes.
#[derive(Clone, Debug)]
pub(super) enum Wire {
    ToTarget(TreeNote),
    ToSource(TreeNote),
    Register { number: u64, register: Register },
    RegisterDone { number: u64, is_done: bool },
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Tick,
    Change,
    Fault,
    Ask,
    Arrives { session: u64, wire: Wire },
    Connect,
    Exclude,
    Serve,
    Captured { run: u64 },
    Source { run: u64, input: SourceInput },
    Target { run: u64, input: TargetInput },
}

/// What has happened at least once in all runs, so that none of it is tested in vain.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(pub(super) BTreeMap<&'static str, u64>);

impl Seen {
    pub(super) fn note(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub(super) fn assert_all(&self) {
        let all = [
            "sync done",
            "sync failed",
            "excluded",
            "joined",
            "chunk gone",
            "undone",
            "refused",
            "foreign",
            "commit refused",
            "halted",
            "capture failed",
            "overlap",
            "whole",
            "repeated",
            "alone",
            "source restart",
            "target restart",
            "link lost",
            "unknown",
            "late",
            "waited",
            "named already",
        ];
        for what in all {
            assert!(self.0.get(what).is_some_and(|count| *count > 5), "{what}: {:?}", self.0);
        }
    }
}

/// When faults end, and by when all is to be at rest.
const FAULTS_END: u64 = 60_000;
const REST: u64 = 200_000;

pub(super) struct World {
    pub(super) dice: Dice,
    pub(super) now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    scheduled: u64,
    pub(super) session: Option<u64>,
    sessions: u64,
    /// When the last message of a lane arrives: none overtakes another.
    lanes: [Instant; 4],
    pub(super) is_faulty: bool,
    pub(super) source: SourceNode,
    pub(super) target: TargetNode,
    /// Every generation that was closed.
    pub(super) generations: BTreeMap<TreePosition, Content>,
    pub(super) seen: Seen,
    /// Only a run that is replayed says what it does: to write it all costs more than to run it.
    pub(super) is_replay: bool,
    pub(super) log: VecDeque<String>,
}

impl World {
    pub(super) fn new(dice: Dice, is_replay: bool) -> Self {
        let mut world = Self {
            dice,
            now: Instant(0),
            events: BTreeMap::new(),
            scheduled: 0,
            session: None,
            sessions: 0,
            lanes: [Instant(0); 4],
            is_faulty: true,
            source: SourceNode::new(),
            target: TargetNode::new(),
            generations: BTreeMap::from([(TreePosition::default(), Content::new())]),
            seen: Seen::default(),
            is_replay,
            log: VecDeque::new(),
        };
        for event in [Event::Tick, Event::Change, Event::Fault, Event::Ask, Event::Connect] {
            world.after(0, event);
        }
        world.after(0, Event::Serve);
        world
    }

    pub(super) fn after(&mut self, most_ms: u64, event: Event) {
        let at = self.now.plus(ms(self.dice.below(most_ms + 1)));
        self.at(at, event);
    }

    fn at(&mut self, at: Instant, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    pub(super) fn log(&mut self, line: impl FnOnce() -> String) {
        if self.is_replay {
            if self.log.len() >= 4000 {
                self.log.pop_front();
            }
            let line = format!("{} ms: {}", self.now.0 / 1_000_000, line());
            self.log.push_back(line);
        }
    }

    pub(super) fn send(&mut self, wire: Wire) {
        let Some(session) = self.session else { return };
        let lane = match wire {
            Wire::ToTarget(_) => 0,
            Wire::ToSource(_) => 1,
            Wire::Register { .. } => 2,
            Wire::RegisterDone { .. } => 3,
        };
        let most = if self.is_faulty && self.dice.percent(3) { 4000 } else { 20 };
        let at = self.now.plus(ms(self.dice.below(most))).max(self.lanes[lane]);
        self.lanes[lane] = at;
        self.at(at, Event::Arrives { session, wire });
    }

    /// Both ends learn at once; what is on its way is lost.
    pub(super) fn lose_session(&mut self) {
        if self.session.take().is_some() {
            self.log(|| "the session is lost".into());
            self.seen.note("link lost");
            self.tell_source(SourceInput::PeerLost);
            self.tell_target(TargetInput::SessionLost);
            self.source_left();
        }
        self.after(3000, Event::Connect);
    }

    pub(super) fn run(&mut self) {
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            if self.is_faulty && at >= Instant(0).plus(ms(FAULTS_END)) {
                self.end_faults();
            }
            if at >= Instant(0).plus(ms(REST)) {
                break;
            }
            self.on_event(event);
        }
        self.assert_at_rest();
    }

    fn end_faults(&mut self) {
        self.is_faulty = false;
        self.source.is_index_whole = true;
        self.source.is_last_sync_done = false;
        if self.session.is_none() {
            self.after(0, Event::Connect);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Tick => {
                self.tick();
                self.at(self.now.plus(ms(250)), Event::Tick);
            }
            Event::Change if self.is_faulty => {
                self.change();
                let pause = if self.dice.percent(20) { 4000 } else { 300 };
                self.after(pause, Event::Change);
            }
            Event::Ask => {
                let is_idle = self.source.syncs.is_empty() && !self.source.is_last_sync_done;
                if self.is_faulty || is_idle {
                    self.ask_sync();
                    self.ask_sync_of_data();
                }
                self.after(6000, Event::Ask);
            }
            Event::Fault if self.is_faulty => {
                self.fault();
                self.after(9000, Event::Fault);
            }
            Event::Change | Event::Fault => {}
            Event::Connect => self.connect(),
            Event::Exclude => self.exclude(),
            Event::Serve => self.serve(),
            Event::Captured { run } => self.capture_ends(run),
            Event::Source { run, input } if run == self.source.run => self.tell_source(input),
            Event::Target { run, input } if run == self.target.run => self.target_reports(input),
            Event::Source { .. } | Event::Target { .. } => {}
            Event::Arrives { session, wire } => {
                if self.session == Some(session) {
                    self.arrive(wire);
                }
            }
        }
    }

    fn arrive(&mut self, wire: Wire) {
        self.log(|| format!("arrives {wire:?}"));
        match wire {
            Wire::ToTarget(note) => self.note_to_target(note),
            Wire::ToSource(note) => self.note_to_source(note),
            Wire::Register { number, register } => self.register_arrives(number, register),
            Wire::RegisterDone { number, is_done } => self.register_done(number, is_done),
        }
    }

    fn connect(&mut self) {
        if self.session.is_some() || !self.source.is_serving {
            return;
        }
        if self.target.is_committing() {
            // A core says Hello when nothing of the last session is under way.
            self.after(500, Event::Connect);
            return;
        }
        self.sessions += 1;
        self.session = Some(self.sessions);
        self.lanes = [self.now; 4];
        self.log(|| "a session begins".into());
        self.source_met();
        self.target.is_refusing = false;
        let (position, space) = (self.target.position, self.target.space());
        let register = self.target.register.as_ref().and_then(Register::position);
        self.tell_target(TargetInput::SessionUp { position, space, register });
    }

    fn fault(&mut self) {
        match self.dice.below(10) {
            0..4 => self.lose_session(),
            4 | 5 => {
                self.seen.note("source restart");
                self.restart_source();
            }
            6 | 7 => {
                self.seen.note("target restart");
                self.restart_target();
            }
            8 => self.pause_serving(),
            _ => self.source.is_index_whole = self.dice.percent(50),
        }
    }

    fn assert_at_rest(&self) {
        let newest = self.source.newest.expect("something was captured");
        let content = &self.generations[&newest.position];
        assert_eq!(content, &self.source.live, "all changes are in the newest generation");
        assert_eq!(self.target.position, newest.position, "which is complete on the target");
        assert!(self.target.is_applied, "and applied");
        assert_eq!(self.source.register, Some(Register::of(&newest)), "and recorded");
        assert_eq!(self.target.register, self.source.register, "on both nodes");
        assert!(self.source.pending.is_empty() && self.source.is_peer_in_sync);
        assert!(self.source.syncs.is_empty(), "no sync waits");
        assert_eq!(self.source.machine.lag(self.now), Duration::ZERO);
        let fit = Some(crate::manifest::Standing::Fit);
        assert_eq!(self.source.machine.standing(), fit);
        assert!(self.source.is_last_sync_done, "a sync without faults is done");
    }
}
