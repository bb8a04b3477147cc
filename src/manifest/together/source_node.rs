//! The node that serves: index, hints, captures, and as much of the core as the register needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::world::{Content, Event, Wire, World, ms, root_of};
use crate::manifest::Pace;
use crate::manifest::source::{
    CaptureEnd, Closed, DirtyFacts, Register, Serving, Source, SourceEffect, SourceInput,
    SourceSettings,
};
use crate::units::{Instant, Label, ObjectId, TreeNumber, TreePosition};
use crate::wire::{ChunkPlace, Packing, TreeNote, WantedChunks};

pub(super) const SCOPE: [u8; 32] = [3; 32];
const FILES: u64 = 6;

const SETTINGS: SourceSettings = SourceSettings {
    max_lag: Duration::from_secs(5),
    pace: Pace { settle: ms_const(200), oldest_max: ms_const(2500) },
    full_scan: Duration::from_secs(20),
    scope_digest: SCOPE,
};

const fn ms_const(count: u64) -> Duration {
    Duration::from_millis(count)
}

struct Capture {
    run: u64,
    everything: bool,
    taken: BTreeMap<u64, Instant>,
    /// What it found, if it looked at its begin; else it looks at its end.
    found: Option<Content>,
}

pub(super) struct SourceNode {
    pub(super) machine: Source,
    pub(super) run: u64,
    pub(super) is_serving: bool,
    pub(super) live: Content,
    versions: u64,
    /// Files with a hint, and when it came first and last.
    hints: BTreeMap<u64, (Instant, Instant)>,
    capture: Option<Capture>,
    pub(super) newest: Option<Closed>,
    pub(super) history: BTreeSet<TreePosition>,
    pub(super) is_index_whole: bool,
    pub(super) sending: Option<Closed>,
    /// Positions that the target can commit or did, as said in this session.
    pub(super) staged: BTreeSet<TreePosition>,
    /// Changes that were seen: file, version, when.
    seen: Vec<(u64, u64, Instant)>,
    /// What the target said last to have.
    told: TreePosition,
    pub(super) syncs: BTreeMap<u64, Content>,
    requests: u64,
    pub(super) is_last_sync_done: bool,
    pub(super) register: Option<Register>,
    pub(super) pending: Vec<(u64, Register)>,
    pub(super) is_peer_in_sync: bool,
    pub(super) is_gate_open: bool,
    pub(super) is_alone: bool,
    pub(super) is_excluded: bool,
}

impl SourceNode {
    pub(super) fn new() -> Self {
        Self {
            machine: Source::new(SETTINGS),
            run: 1,
            is_serving: false,
            live: Content::new(),
            versions: 0,
            hints: BTreeMap::new(),
            capture: None,
            newest: None,
            history: BTreeSet::from([TreePosition::default()]),
            is_index_whole: true,
            sending: None,
            staged: BTreeSet::new(),
            seen: Vec::new(),
            told: TreePosition::default(),
            syncs: BTreeMap::new(),
            requests: 0,
            is_last_sync_done: false,
            register: None,
            pending: Vec::new(),
            is_peer_in_sync: false,
            is_gate_open: false,
            is_alone: false,
            is_excluded: false,
        }
    }

    fn facts(&self) -> DirtyFacts {
        let taken = self.capture.iter().flat_map(|capture| capture.taken.values().copied());
        DirtyFacts {
            oldest: self.hints.values().map(|(first, _)| *first).chain(taken).min(),
            next_due: self.hints.values().map(|(_, last)| last.plus(ms(200))).min(),
            count: self.hints.len(),
        }
    }

    fn take_hints(&mut self) -> BTreeMap<u64, Instant> {
        let all = std::mem::take(&mut self.hints);
        all.into_iter().map(|(file, (first, _))| (file, first)).collect()
    }
}

impl World {
    pub(super) fn tell_source(&mut self, input: SourceInput) {
        let mut effects = Vec::new();
        self.log(|| format!("source: {input:?}"));
        self.source.machine.step(self.now, input, &mut effects);
        for effect in effects {
            self.log(|| format!("source does {effect:?}"));
            self.source_effect(effect);
        }
    }

    fn source_effect(&mut self, effect: SourceEffect) {
        match effect {
            SourceEffect::Capture { everything, .. } => self.capture_begins(everything),
            SourceEffect::Send { to, base } => self.send_generation(to, base),
            SourceEffect::StopSending => assert!(self.source.sending.take().is_some()),
            SourceEffect::SendChunks(chunks) => self.send_chunks(&chunks),
            SourceEffect::Say(note) => self.send(Wire::ToTarget(note)),
            SourceEffect::Record { number, register } => self.core_writes(number, register),
            SourceEffect::Admit => {
                assert!(!self.source.is_gate_open, "once in a session");
                self.source.is_gate_open = true;
                if !self.source.is_peer_in_sync {
                    self.transfer_register();
                }
            }
            SourceEffect::Exclude => {
                assert!(!self.source.is_excluded, "once");
                self.source.is_excluded = true;
                self.seen.note("excluded");
                self.lose_session();
            }
            SourceEffect::AnswerSync { request, result } => {
                let Some(asked) = self.source.syncs.remove(&request) else {
                    panic!("an answer to nobody");
                };
                self.source.is_last_sync_done = result.is_ok();
                self.seen.note(if result.is_ok() { "sync done" } else { "sync failed" });
                if let Ok(closed) = result {
                    let tree = &self.generations[&self.target.tree];
                    let has = |(file, version): (&u64, &u64)| tree.get(file) >= Some(version);
                    assert!(asked.iter().all(has), "{asked:?} is not in {tree:?}, {closed:?}");
                }
            }
            SourceEffect::Standing(_) => {}
            SourceEffect::Close { what } => panic!("an honest target is refused: {what}"),
        }
    }

    pub(super) fn change(&mut self) {
        let file = self.dice.below(FILES);
        self.source.versions += 1;
        let version = self.source.versions;
        self.source.live.insert(file, version);
        // Some stores give no event; only a scan finds them.
        if self.dice.percent(85) {
            self.hint(file);
            self.source.seen.push((file, version, self.now));
        }
    }

    fn hint(&mut self, file: u64) {
        let now = self.now;
        self.source.hints.entry(file).or_insert((now, now)).1 = now;
    }

    pub(super) fn tick(&mut self) {
        self.tell_source(SourceInput::Tick(self.source.facts()));
        if !self.source.is_serving {
            return;
        }
        let complete = &self.generations[&self.source.told];
        self.source.seen.retain(|(file, version, _)| complete.get(file) < Some(version));
        let oldest = self.source.seen.iter().map(|(_, _, at)| *at).min();
        let truth = oldest.map_or(Duration::ZERO, |oldest| self.now.since(oldest));
        let lag = self.source.machine.lag(self.now);
        assert!(lag >= truth, "lag is said to be {lag:?}, it is {truth:?}");
        if lag > SETTINGS.max_lag {
            self.seen.note("late");
        }
    }

    fn capture_begins(&mut self, everything: bool) {
        assert!(self.source.capture.is_none(), "one capture at a time");
        if self.source.sending.is_some() {
            self.seen.note("overlap");
        }
        let run = self.source.run;
        let taken = self.source.take_hints();
        let found = self.dice.percent(50).then(|| self.source.live.clone());
        self.source.capture = Some(Capture { run, everything, taken, found });
        let most = if self.is_faulty && self.dice.percent(10) { 6000 } else { 100 };
        self.after(most, Event::Captured { run });
    }

    pub(super) fn capture_ends(&mut self, run: u64) {
        let Some(mut capture) = self.source.capture.take_if(|it| it.run == run) else { return };
        if self.is_faulty && self.dice.percent(12) {
            let oldest = capture.taken.values().copied().min();
            for file in capture.taken.into_keys() {
                self.hint(file);
            }
            let is_halted = self.dice.percent(30);
            self.seen.note(if is_halted { "halted" } else { "capture failed" });
            self.tell_source(if is_halted {
                SourceInput::Halted { oldest }
            } else {
                SourceInput::CaptureFailed { oldest }
            });
            return;
        }
        if capture.found.is_none() {
            for (file, first) in self.source.take_hints() {
                capture.taken.entry(file).or_insert(first);
            }
        }
        let before = self.source.newest.map(|it| it.position).unwrap_or_default();
        let mut content = self.generations[&before].clone();
        for (file, version) in capture.found.as_ref().unwrap_or(&self.source.live) {
            if capture.everything || capture.taken.contains_key(file) {
                content.insert(*file, *version);
            }
        }
        let root = root_of(&content);
        let is_new = self.source.newest.is_none() || root != before.root;
        if is_new {
            let position = TreePosition { number: TreeNumber(before.number.0 + 1), root };
            self.generations.insert(position, content);
            self.source.history.insert(position);
            self.source.newest = Some(Closed { position, label: Label::Stable, fuzzy_count: 0 });
        }
        let closed = self.source.newest.expect("just made");
        let oldest = capture.taken.values().copied().min();
        let was_full = capture.everything;
        self.tell_source(SourceInput::Captured(CaptureEnd { closed, is_new, oldest, was_full }));
    }

    fn send_generation(&mut self, to: Closed, base: Option<TreePosition>) {
        assert!(self.session.is_some() && self.source.sending.is_none(), "one at a time");
        assert_eq!(Some(to), self.source.newest, "always the newest");
        assert!(base.is_none_or(|base| self.source.history.contains(&base)));
        if base.is_none() {
            self.seen.note("whole");
        }
        self.source.sending = Some(to);
        let base = base.unwrap_or_default();
        let Closed { position, label, fuzzy_count } = to;
        let number = position.number;
        for note in [
            TreeNote::DeltaOpen { base, number, entries: 1, bytes: 1 },
            TreeNote::DeltaRecords { packing: Packing::Raw },
            TreeNote::DeltaEnd { position, label, fuzzy_count },
        ] {
            self.send(Wire::ToTarget(note));
        }
    }

    /// Chunks are numbered by the version of their file; a version that was overwritten is gone.
    fn send_chunks(&mut self, chunks: &[WantedChunks]) {
        assert!(self.source.sending.is_some(), "only of what is being sent");
        let run = self.source.run;
        for it in chunks {
            let (object, chunk) = (it.object, it.first);
            if self.source.live.get(&(object.0 - 1)) == Some(&chunk) {
                let table = vec![ChunkPlace { object, chunk, len: 1 }];
                self.send(Wire::ToTarget(TreeNote::Chunks { table, packing: Packing::Raw }));
                let input = SourceInput::ChunksSent { count: 1 };
                self.after(5, Event::Source { run, input });
            } else {
                self.seen.note("chunk gone");
                self.hint(object.0 - 1);
                let input = SourceInput::ChunkGone { object: ObjectId(object.0), chunk };
                self.after(0, Event::Source { run, input });
                return;
            }
        }
    }

    pub(super) fn note_to_source(&mut self, note: TreeNote) {
        match &note {
            TreeNote::Position { position, .. } => {
                self.source.told = *position;
                self.source.staged.insert(*position);
            }
            TreeNote::Committed { position } => self.source.told = *position,
            TreeNote::Staged { position } => {
                self.source.staged.insert(*position);
            }
            TreeNote::TreeRefused { .. } => self.seen.note("refused"),
            _ => {}
        }
        if let TreeNote::Position { position, scope_digest, .. } = note {
            let is_known = self.source.is_index_whole && self.source.history.contains(&position);
            if !is_known {
                self.seen.note("unknown");
            }
            self.tell_source(SourceInput::Position { position, scope_digest, is_known });
        } else {
            self.tell_source(SourceInput::Said(note));
        }
    }

    pub(super) fn ask_sync(&mut self) {
        if !self.source.is_serving {
            return;
        }
        self.source.requests += 1;
        let request = self.source.requests;
        self.source.syncs.insert(request, self.source.live.clone());
        let freeze = self.dice.percent(20);
        self.tell_source(SourceInput::Sync { request, freeze });
    }

    pub(super) fn serve(&mut self) {
        if self.source.is_serving {
            return;
        }
        self.source.is_serving = true;
        let now = self.now;
        for seen in &mut self.source.seen {
            seen.2 = now;
        }
        self.source.told = self.source.register.and_then(|it| it.position()).unwrap_or_default();
        let serving = Serving {
            newest: self.source.newest,
            register: self.source.register,
            is_alone: self.source.is_alone,
            since: now,
        };
        self.tell_source(SourceInput::Serve(serving));
        // A start suspects everything.
        for file in 0..FILES {
            self.hint(file);
        }
        self.after(500, Event::Connect);
    }

    pub(super) fn restart_source(&mut self) {
        self.lose_session();
        self.source.run += 1;
        self.source.machine = Source::new(SETTINGS);
        self.source.is_serving = false;
        (self.source.capture, self.source.sending) = (None, None);
        self.source.syncs.clear();
        self.source.pending.clear();
        self.source.hints.clear();
        self.source.is_excluded = false;
        self.after(2000, Event::Serve);
    }

    pub(super) fn pause_serving(&mut self) {
        self.tell_source(SourceInput::StopServing);
        self.lose_session();
        self.source.is_serving = false;
        self.source.pending.clear();
        self.source.is_excluded = false;
        assert!(self.source.syncs.is_empty(), "whoever waits is told");
        self.after(2000, Event::Serve);
    }
}
