//! What the target of a tree does when: take records, want chunks, prepare, commit, apply, answer.
//!
//! It is told what happened ([`TargetInput`]) and answers what to do ([`TargetEffect`]), in order. One delta is
//! staged while the generation before it is applied, and prepared after that. What is prepared is committed
//! when the core writes a register that names it, or if the register names it already, which the core may never
//! write again: who serves, and what counts, is the core's to decide. What is whole survives a lost session.
//!
//! `terms.rs` has inputs and effects, `stage.rs` a delta on its way, `disk.rs` what follows from the core and from
//! what was committed.

mod disk;
mod stage;
mod terms;
#[cfg(test)]
mod tests;

pub use terms::{
    ApplyEnd, Attempt, CommitEnd, Io, Outcome, Preparation, Refusal, Space, TargetEffect,
    TargetInput,
};

use crate::units::{Label, TreeNumber, TreePosition};
use crate::wire::{ChunkPlace, Packing, Payload, TreeMessage, TreeNote, TreeRefusal};
use disk::Disk;
use stage::{Stage, Step, Wanted};

/// The session with a source.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Session {
    /// None.
    Down,
    /// It waits for the first word: what the tree is has to be certain first.
    Owed,
    /// The first word was said.
    Up,
}

/// The target of one tree.
#[derive(Clone, Debug)]
pub struct Target {
    scope_digest: [u8; 32],
    session: Session,
    space: Space,
    disk: Disk,
    stage: Option<Stage>,
    attempts: u64,
    /// The source sends a delta again that is whole here; it is not taken twice.
    repeated: Option<TreeNumber>,
}

impl Target {
    /// A target whose tree is at rest at `position`. `scope_digest` is the BLAKE3 of what is excluded and left
    /// out.
    pub fn new(scope_digest: [u8; 32], position: TreePosition) -> Self {
        Self {
            scope_digest,
            session: Session::Down,
            space: Space::default(),
            disk: Disk::new(position),
            stage: None,
            attempts: 0,
            repeated: None,
        }
    }

    /// Takes one input and appends what follows from it to `effects`.
    pub fn step(&mut self, input: TargetInput, effects: &mut Vec<TargetEffect>) {
        match input {
            TargetInput::SessionUp { position, space, register } => {
                self.disk.on_register(register);
                self.on_session_up(position, space, effects);
            }
            TargetInput::SessionLost => self.on_session_lost(effects),
            TargetInput::Said(message) => self.on_said(message, effects),
            TargetInput::Checked { attempt, result } => {
                self.on_checked(attempt, result, effects);
            }
            TargetInput::Wants { attempt, chunks, is_all } => {
                self.on_wants(attempt, (&chunks, is_all), effects);
            }
            TargetInput::AllStaged { attempt } => self.on_all_staged(attempt),
            TargetInput::StageFailed { attempt, refusal } => {
                if self.is_current(attempt) {
                    self.refuse(refusal, effects);
                }
            }
            TargetInput::Garbled { attempt } => self.on_garbled(attempt, effects),
            TargetInput::Prepared { attempt, result } => {
                self.on_prepared(attempt, result, effects);
            }
            TargetInput::RegisterAsked { io, position } => {
                self.on_register_asked(io, position, effects);
            }
            TargetInput::Committed(end) => self.on_committed(end, effects),
            TargetInput::Applied { end, space } => self.on_applied(end, space, effects),
            TargetInput::SyncAsked { io } => self.disk.on_sync_asked(io, effects),
        }
        self.commit_named(effects);
        self.prepare(effects);
    }

    /// The generation that the tree is, or goes to across any crash.
    pub fn position(&self) -> TreePosition {
        self.disk.position()
    }

    /// Whether what was committed is not applied yet.
    pub fn is_applying(&self) -> bool {
        !self.disk.is_at_rest()
    }

    fn on_session_up(
        &mut self,
        position: TreePosition,
        space: Space,
        effects: &mut Vec<TargetEffect>,
    ) {
        self.space = space;
        self.repeated = None;
        self.disk.on_found(position);
        self.drop_outdated(effects);
        self.session = Session::Owed;
        self.commit_named(effects);
        self.say_first(effects);
    }

    /// A delta that is not whole cannot go on: the source begins anew. Its chunks stay.
    fn on_session_lost(&mut self, effects: &mut Vec<TargetEffect>) {
        self.session = Session::Down;
        self.repeated = None;
        if self.stage.as_ref().is_some_and(|stage| !stage.is_whole()) {
            self.drop_stage(effects);
        }
    }

    /// The first words of a session, once it is certain what the tree is.
    fn say_first(&mut self, effects: &mut Vec<TargetEffect>) {
        if self.session != Session::Owed || self.disk.is_committing() || self.disk.is_failed() {
            return;
        }
        self.session = Session::Up;
        self.say_position(effects);
        let position = self.disk.position();
        if self.disk.is_at_rest() && position.number > TreeNumber(0) {
            self.say(TreeNote::Applied { position }, effects);
        }
        self.say_staged(effects);
    }

    fn say(&self, note: TreeNote, effects: &mut Vec<TargetEffect>) {
        if self.session == Session::Up {
            effects.push(TargetEffect::Say(note));
        }
    }

    fn say_position(&self, effects: &mut Vec<TargetEffect>) {
        let note = TreeNote::Position {
            position: self.disk.position(),
            scope_digest: self.scope_digest,
            staged_bytes: self.space.staged_bytes,
            free_bytes: self.space.free_bytes,
        };
        self.say(note, effects);
    }

    fn say_staged(&self, effects: &mut Vec<TargetEffect>) {
        if let Some(position) = self.stage.as_ref().and_then(Stage::prepared) {
            self.say(TreeNote::Staged { position }, effects);
        }
    }

    fn on_said(&mut self, message: TreeMessage, effects: &mut Vec<TargetEffect>) {
        let TreeMessage { note, payload } = message;
        match note {
            // Before its first word nothing that the source says can be about this session.
            _ if self.session != Session::Up => {}
            TreeNote::DeltaOpen { base, number, .. } => self.on_open(base, number, effects),
            TreeNote::DeltaRecords { packing } => self.on_records(packing, payload, effects),
            TreeNote::DeltaEnd { position, label, fuzzy_count } => {
                self.on_end(position, (label, fuzzy_count), effects);
            }
            TreeNote::Chunks { table, packing } => {
                self.on_chunks(table, (packing, payload), effects);
            }
            TreeNote::ChunkGone { object, chunk } => {
                if self.stage.as_ref().is_some_and(|stage| !stage.is_whole()) {
                    self.drop_stage(effects);
                }
                self.repeated = None;
                self.say(TreeNote::ChunkGone { object, chunk }, effects);
            }
            TreeNote::TreeRefused { .. } => self.repeated = None,
            TreeNote::Position { .. }
            | TreeNote::Want { .. }
            | TreeNote::Staged { .. }
            | TreeNote::Committed { .. }
            | TreeNote::Applied { .. }
            | TreeNote::RecordsTaken { .. } => {
                effects.push(TargetEffect::Close { what: "the source says what a target says" });
            }
        }
    }

    fn on_open(&mut self, base: TreePosition, number: TreeNumber, effects: &mut Vec<TargetEffect>) {
        self.repeated = None;
        // The order to commit may have overtaken it.
        let is_whole = self.stage.as_ref().is_some_and(|it| it.is_whole() && it.number == number);
        if is_whole || self.disk.goes_to().number == number {
            self.repeated = Some(number);
            return;
        }
        self.drop_stage(effects);
        let base = Some(base).filter(|base| *base != TreePosition::default());
        if base.is_some_and(|base| base != self.disk.position()) {
            let words = "the delta does not start from what this tree is".to_owned();
            self.refuse(Refusal { why: TreeRefusal::Position, words }, effects);
            return;
        }
        self.attempts += 1;
        let attempt = Attempt(self.attempts);
        self.stage = Some(Stage { attempt, base, number, to: None, step: Step::Receiving });
        effects.push(TargetEffect::Begin { attempt, base, number });
    }

    fn on_records(&mut self, packing: Packing, records: Payload, effects: &mut Vec<TargetEffect>) {
        // Without a stage they are of a delta that was refused.
        let Some(stage) = self.stage.as_ref().filter(|_| self.repeated.is_none()) else { return };
        match stage.step {
            Step::Receiving => {
                let attempt = stage.attempt;
                effects.push(TargetEffect::Push { attempt, packing, records });
            }
            Step::Checking | Step::Staging(_) | Step::Whole | Step::Preparing | Step::Prepared => {
                let what = "records after the end of a delta";
                effects.push(TargetEffect::Close { what });
            }
        }
    }

    fn on_end(
        &mut self,
        position: TreePosition,
        (label, fuzzy_count): (Label, u64),
        effects: &mut Vec<TargetEffect>,
    ) {
        if self.repeated.take().is_some() {
            self.on_repeated_end(position, effects);
            return;
        }
        // Without a stage it is the end of a delta that was refused.
        let Some(stage) = &mut self.stage else { return };
        let is_its_end = matches!(stage.step, Step::Receiving) && stage.number == position.number;
        if !is_its_end {
            effects.push(TargetEffect::Close { what: "the end of a delta that was not begun" });
            return;
        }
        (stage.to, stage.step) = (Some(position), Step::Checking);
        let attempt = stage.attempt;
        effects.push(TargetEffect::End { attempt, position, label, fuzzy_count });
    }

    /// What was sent again is here already, unless it is something else.
    fn on_repeated_end(&mut self, position: TreePosition, effects: &mut Vec<TargetEffect>) {
        if self.stage.as_ref().is_some_and(|stage| stage.to == Some(position)) {
            self.say_staged(effects);
        } else if self.disk.position() == position {
            self.say(TreeNote::Committed { position }, effects);
        } else if self.disk.goes_to() != position {
            let words = "two generations have one number".to_owned();
            self.refuse(Refusal { why: TreeRefusal::Root, words }, effects);
        }
    }

    fn on_checked(
        &mut self,
        attempt: Attempt,
        result: Result<(), Refusal>,
        effects: &mut Vec<TargetEffect>,
    ) {
        let Some(stage) = self.stage.as_mut().filter(|it| it.attempt == attempt) else { return };
        match result {
            Ok(()) => {
                if matches!(stage.step, Step::Checking) {
                    let mut wanted = Wanted::default();
                    wanted.ask(attempt, effects);
                    stage.step = Step::Staging(wanted);
                }
            }
            Err(refusal) => self.refuse(refusal, effects),
        }
    }

    fn on_wants(
        &mut self,
        attempt: Attempt,
        (chunks, is_all): (&[crate::wire::WantedChunks], bool),
        effects: &mut Vec<TargetEffect>,
    ) {
        let Some(stage) = self.stage.as_mut().filter(|it| it.attempt == attempt) else { return };
        let Step::Staging(wanted) = &mut stage.step else { return };
        if !wanted.on_found(chunks, is_all, effects) {
            let words = "more chunks are wanted than were asked for".to_owned();
            self.refuse(Refusal { why: TreeRefusal::Limit, words }, effects);
            return;
        }
        // Nothing found while chunks are to come: these may be what is waited for.
        if !(chunks.is_empty() && wanted.is_missing_some()) {
            wanted.ask(attempt, effects);
        }
    }

    fn on_chunks(
        &mut self,
        table: Vec<ChunkPlace>,
        (packing, bytes): (Packing, Payload),
        effects: &mut Vec<TargetEffect>,
    ) {
        // Without a stage they are of a delta that was refused.
        let Some(stage) = &mut self.stage else { return };
        let attempt = stage.attempt;
        let is_wanted = match &mut stage.step {
            Step::Staging(wanted) => wanted.on_chunks(&table),
            Step::Receiving | Step::Checking | Step::Whole | Step::Preparing | Step::Prepared => {
                false
            }
        };
        if !is_wanted {
            effects.push(TargetEffect::Close { what: "chunks that nobody wanted" });
            return;
        }
        effects.push(TargetEffect::Put { attempt, table, packing, bytes });
        if let Step::Staging(wanted) = &mut stage.step {
            wanted.ask(attempt, effects);
        }
    }

    /// The peer broke a rule that shows only when its bytes are used.
    fn on_garbled(&mut self, attempt: Attempt, effects: &mut Vec<TargetEffect>) {
        if self.is_current(attempt) {
            self.drop_stage(effects);
            self.repeated = None;
            effects
                .push(TargetEffect::Close { what: "compressed bytes that are not what they say" });
        }
    }

    fn on_all_staged(&mut self, attempt: Attempt) {
        let Some(stage) = self.stage.as_mut().filter(|it| it.attempt == attempt) else { return };
        if matches!(&stage.step, Step::Staging(wanted) if !wanted.is_missing_some()) {
            stage.step = Step::Whole;
        }
    }

    /// Plans what is whole, once the tree is what it starts from.
    fn prepare(&mut self, effects: &mut Vec<TargetEffect>) {
        let is_at_rest = self.disk.is_at_rest() && !self.disk.is_failed();
        let Some(stage) = self.stage.as_mut().filter(|_| is_at_rest) else { return };
        if matches!(stage.step, Step::Whole) {
            stage.step = Step::Preparing;
            effects.push(TargetEffect::Prepare { attempt: stage.attempt });
        }
    }

    fn on_prepared(
        &mut self,
        attempt: Attempt,
        result: Preparation,
        effects: &mut Vec<TargetEffect>,
    ) {
        let Some(stage) = self.stage.as_mut().filter(|it| it.attempt == attempt) else { return };
        match result {
            Preparation::Ready => {
                stage.step = Step::Prepared;
                // The source hears that it is committed if that follows now.
                if !self.is_named() {
                    self.say_staged(effects);
                }
            }
            Preparation::Foreign => {
                let words = "the tree was changed by somebody else".to_owned();
                self.refuse(Refusal { why: TreeRefusal::Foreign, words }, effects);
            }
            Preparation::Refused(refusal) => self.refuse(refusal, effects),
        }
    }

    fn is_current(&self, attempt: Attempt) -> bool {
        self.stage.as_ref().is_some_and(|stage| stage.attempt == attempt)
    }

    /// Gives up the delta, and says why.
    fn refuse(&mut self, refusal: Refusal, effects: &mut Vec<TargetEffect>) {
        self.drop_stage(effects);
        self.repeated = None;
        let Refusal { why, words } = refusal;
        self.say(TreeNote::TreeRefused { why, words }, effects);
    }

    fn drop_stage(&mut self, effects: &mut Vec<TargetEffect>) {
        if let Some(stage) = self.stage.take() {
            effects.push(TargetEffect::Drop { attempt: stage.attempt });
        }
    }

    /// Gives up a delta that starts from another generation than the tree is.
    fn drop_outdated(&mut self, effects: &mut Vec<TargetEffect>) {
        let base = self.stage.as_ref().and_then(|stage| stage.base);
        if base.is_some_and(|base| base != self.disk.position()) {
            self.drop_stage(effects);
        }
    }
}
