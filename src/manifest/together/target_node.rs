//! The other node: what is staged, committed, applied, and its register.

use std::collections::{BTreeMap, BTreeSet};

use super::source_node::SCOPE;
use super::world::{Event, Wire, World};
use crate::manifest::source::Register;
use crate::manifest::target::{
    ApplyEnd, Attempt, CommitEnd, Io, Outcome, Preparation, Refusal, Space, Target, TargetEffect,
    TargetInput,
};
use crate::units::{ObjectId, TreePosition};
use crate::wire::{Payload, TreeMessage, TreeNote, TreeRefusal, WantedChunks};

/// A delta on its way.
struct Delta {
    attempt: Attempt,
    base: Option<TreePosition>,
    to: Option<TreePosition>,
    asked: BTreeSet<(u64, u64)>,
    is_all: bool,
    is_prepared: bool,
}

pub(super) struct TargetNode {
    machine: Target,
    pub(super) run: u64,
    /// What was committed last, and whether the tree is that.
    pub(super) position: TreePosition,
    pub(super) is_applied: bool,
    /// What the tree is, or was before the apply that is under way.
    pub(super) tree: TreePosition,
    pub(super) register: Option<Register>,
    /// Versions of files that are staged.
    staged: BTreeSet<(u64, u64)>,
    delta: Option<Delta>,
    /// Writes of the register that are not answered.
    asked: BTreeMap<Io, (u64, Register)>,
    committing: Option<Register>,
    requests: u64,
    /// Something that was staged or committed in this session is not any more.
    pub(super) is_refusing: bool,
}

impl TargetNode {
    pub(super) fn new() -> Self {
        Self {
            machine: Target::new(SCOPE, TreePosition::default()),
            run: 1,
            position: TreePosition::default(),
            is_applied: true,
            tree: TreePosition::default(),
            register: None,
            staged: BTreeSet::new(),
            delta: None,
            asked: BTreeMap::new(),
            committing: None,
            requests: 0,
            is_refusing: false,
        }
    }

    pub(super) fn is_committing(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn space(&self) -> Space {
        Space { staged_bytes: self.staged.len() as u64, free_bytes: 1000 }
    }
}

fn refusal(why: TreeRefusal) -> Refusal {
    Refusal { why, words: String::new() }
}

impl World {
    pub(super) fn tell_target(&mut self, input: TargetInput) {
        let mut effects = Vec::new();
        self.log(|| format!("target: {input:?}"));
        self.target.machine.step(input, &mut effects);
        for effect in effects {
            self.log(|| format!("target does {effect:?}"));
            self.target_effect(effect);
        }
    }

    fn report(&mut self, input: TargetInput) {
        let run = self.target.run;
        let most = if self.is_faulty && self.dice.percent(10) { 2500 } else { 30 };
        self.after(most, Event::Target { run, input });
    }

    pub(super) fn note_to_target(&mut self, note: TreeNote) {
        let bytes = match &note {
            TreeNote::DeltaRecords { .. } | TreeNote::Chunks { .. } => vec![0; 1],
            _ => Vec::new(),
        };
        let payload = Payload::unhashed(bytes.into());
        let is_whole = self.target.delta.as_ref().is_some_and(|delta| delta.is_prepared);
        if is_whole && matches!(note, TreeNote::DeltaOpen { .. }) {
            self.seen.note("repeated");
        }
        self.tell_target(TargetInput::Said(TreeMessage { note, payload }));
    }

    fn target_effect(&mut self, effect: TargetEffect) {
        match effect {
            TargetEffect::Say(note) => self.send(Wire::ToSource(note)),
            TargetEffect::Begin { attempt, base, .. } => {
                assert!(self.target.delta.is_none(), "one delta at a time");
                let asked = BTreeSet::new();
                let delta =
                    Delta { attempt, base, to: None, asked, is_all: false, is_prepared: false };
                self.target.delta = Some(delta);
            }
            TargetEffect::Push { attempt, .. } => self.assert_current(attempt),
            TargetEffect::End { attempt, position, .. } => {
                self.assert_current(attempt);
                if let Some(delta) = &mut self.target.delta {
                    delta.to = Some(position);
                }
                let why = [TreeRefusal::Root, TreeRefusal::Space, TreeRefusal::Limit]
                    [usize::try_from(self.dice.below(3)).unwrap()];
                let is_bad = self.is_faulty && self.dice.percent(4);
                let result = if is_bad { Err(refusal(why)) } else { Ok(()) };
                self.report(TargetInput::Checked { attempt, result });
            }
            TargetEffect::StageMore { attempt, chunks_max } => self.look_for(attempt, chunks_max),
            TargetEffect::Put { attempt, table, .. } => {
                self.assert_current(attempt);
                for place in table {
                    self.target.staged.insert((place.object.0 - 1, place.chunk));
                }
                self.note_whole(attempt);
            }
            TargetEffect::Prepare { attempt } => self.plan(attempt),
            TargetEffect::Commit { io, attempt, position } => {
                let delta = self.target.delta.take().expect("something is prepared");
                assert!(delta.is_prepared && delta.attempt == attempt);
                assert_eq!(delta.to, Some(position));
                let register = io.map_or(self.target.register, |io| {
                    self.target.asked.get(&io).map(|(_, register)| *register)
                });
                if io.is_none() {
                    self.seen.note("named already");
                }
                self.target.committing = register;
                let is_bad = self.is_faulty && self.dice.percent(4);
                let refused = CommitEnd::Refused(refusal(TreeRefusal::Space));
                let end = if is_bad { refused } else { CommitEnd::Done };
                if end != CommitEnd::Done {
                    self.target.is_refusing = true;
                    self.seen.note("commit refused");
                }
                self.report(TargetInput::Committed(end));
            }
            TargetEffect::Store { io } => {
                let named = self.target.asked[&io].1.position();
                assert_eq!(named, Some(self.target.position), "the tree is what is recorded");
                self.complete(io, Outcome::Done);
            }
            TargetEffect::Complete { io, outcome } => self.complete(io, outcome),
            TargetEffect::Apply => {
                let is_bad = self.is_faulty && self.dice.percent(4);
                let (position, refusal) = (self.target.tree, refusal(TreeRefusal::Space));
                let undone = ApplyEnd::Undone { position, refusal };
                let end = if is_bad { undone } else { ApplyEnd::Done };
                let space = self.target.space();
                self.report(TargetInput::Applied { end, space });
            }
            TargetEffect::Drop { attempt } => {
                self.assert_current(attempt);
                self.target.delta = None;
            }
            TargetEffect::Close { what } => panic!("an honest source is refused: {what}"),
        }
    }

    fn assert_current(&self, attempt: Attempt) {
        assert_eq!(self.target.delta.as_ref().map(|delta| delta.attempt), Some(attempt));
    }

    /// Versions of the delta that this node does not have.
    fn missing(&self) -> BTreeSet<(u64, u64)> {
        let to = self.target.delta.as_ref().and_then(|delta| delta.to).expect("all records came");
        let (wanted, tree) = (&self.generations[&to], &self.generations[&self.target.tree]);
        let has = |file: &u64, version: &u64| {
            tree.get(file) == Some(version) || self.target.staged.contains(&(*file, *version))
        };
        wanted.iter().filter(|(f, v)| !has(f, v)).map(|(f, v)| (*f, *v)).collect()
    }

    fn look_for(&mut self, attempt: Attempt, chunks_max: u64) {
        self.assert_current(attempt);
        let missing = self.missing();
        // Few at a time, so that there is more than one round.
        let most = usize::try_from(chunks_max.min(2)).unwrap();
        let delta = self.target.delta.as_mut().expect("it is current");
        let fresh: Vec<_> = missing.difference(&delta.asked).copied().collect();
        let found: Vec<_> = fresh.iter().take(most).copied().collect();
        delta.is_all = found.len() == fresh.len();
        delta.asked.extend(&found);
        let run =
            |(file, version)| WantedChunks { object: ObjectId(file + 1), first: version, count: 1 };
        let chunks: Vec<_> = found.into_iter().map(run).collect();
        let is_all = delta.is_all;
        self.report(TargetInput::Wants { attempt, chunks, is_all });
    }

    /// What a driver says once it has all.
    fn note_whole(&mut self, attempt: Attempt) {
        let is_all = self.target.delta.as_ref().is_some_and(|delta| delta.is_all);
        if is_all && self.missing().is_empty() {
            self.report(TargetInput::AllStaged { attempt });
        }
    }

    fn plan(&mut self, attempt: Attempt) {
        self.assert_current(attempt);
        assert!(self.target.is_applied, "only once the generation before is applied");
        let base = self.target.delta.as_ref().and_then(|delta| delta.base);
        assert!(base.is_none_or(|base| base == self.target.tree), "from what the tree is");
        assert!(self.missing().is_empty(), "only what is whole");
        let result = match self.dice.below(50) {
            0 if self.is_faulty => Preparation::Foreign,
            1 if self.is_faulty => Preparation::Refused(refusal(TreeRefusal::Root)),
            _ => Preparation::Ready,
        };
        if result == Preparation::Foreign {
            self.seen.note("foreign");
        }
        self.report(TargetInput::Prepared { attempt, result });
    }

    /// What a driver did is true from the moment at which it says so.
    pub(super) fn target_reports(&mut self, input: TargetInput) {
        match &input {
            TargetInput::Wants { attempt, .. } => {
                let attempt = *attempt;
                self.tell_target(input);
                if self.target.delta.as_ref().is_some_and(|delta| delta.attempt == attempt) {
                    self.note_whole(attempt);
                }
                return;
            }
            TargetInput::Prepared { attempt, result: Preparation::Ready } => {
                let delta = self.target.delta.as_mut().filter(|it| it.attempt == *attempt);
                if let Some(delta) = delta {
                    delta.is_prepared = true;
                }
            }
            TargetInput::Committed(CommitEnd::Done) => {
                let register = self.target.committing.expect("the core asked for it");
                self.target.register = Some(register);
                self.target.position = register.position().expect("a generation");
                self.target.is_applied = false;
            }
            TargetInput::Applied { end: ApplyEnd::Done, .. } => {
                self.target.is_applied = true;
                self.target.tree = self.target.position;
                // What the tree has is not in the stage any more; the next delta may be there.
                let tree = &self.generations[&self.target.tree];
                self.target.staged.retain(|(file, version)| tree.get(file) != Some(version));
            }
            TargetInput::Applied { end: ApplyEnd::Undone { position, .. }, .. } => {
                self.seen.note("undone");
                self.target.is_refusing = true;
                self.target.is_applied = true;
                self.target.position = *position;
            }
            _ => {}
        }
        self.tell_target(input);
    }

    pub(super) fn register_arrives(&mut self, number: u64, register: Register) {
        self.target.requests += 1;
        let io = Io(self.target.requests);
        self.target.asked.insert(io, (number, register));
        self.tell_target(TargetInput::RegisterAsked { io, position: register.position() });
    }

    pub(super) fn ask_sync_of_data(&mut self) {
        self.target.requests += 1;
        let io = Io(self.target.requests);
        if !self.target.is_applied {
            self.seen.note("waited");
        }
        self.tell_target(TargetInput::SyncAsked { io });
    }

    fn complete(&mut self, io: Io, outcome: Outcome) {
        let Some((number, register)) = self.target.asked.remove(&io) else {
            assert!(
                outcome != Outcome::Done || self.target.is_applied,
                "a sync waits for the apply"
            );
            return;
        };
        match outcome {
            Outcome::Done => self.target.register = Some(register),
            Outcome::NotStaged => {
                assert!(
                    self.target.is_refusing,
                    "{register:?} is asked for and cannot be committed"
                );
            }
            Outcome::Busy | Outcome::Undone | Outcome::Failed => panic!("{outcome:?}"),
        }
        let is_done = outcome == Outcome::Done;
        self.send(Wire::RegisterDone { number, is_done });
    }

    /// What is on the disk survives, and what was committed is applied before anything else.
    pub(super) fn restart_target(&mut self) {
        self.lose_session();
        self.target.run += 1;
        self.target.tree = self.target.position;
        self.target.is_applied = true;
        self.target.machine = Target::new(SCOPE, self.target.position);
        (self.target.delta, self.target.committing) = (None, None);
        self.target.asked.clear();
        self.target.is_refusing = false;
        if self.dice.percent(30) {
            // It served meanwhile and crashed: nobody knows what its tree is. What its register names is true.
            self.target.position = TreePosition::default();
            self.target.tree = TreePosition::default();
            self.target.machine = Target::new(SCOPE, TreePosition::default());
        }
    }
}
