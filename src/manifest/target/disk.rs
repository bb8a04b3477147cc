//! What the tree of a target is, what was committed, and what the core waits for.

use super::Target;
use super::terms::{ApplyEnd, CommitEnd, Io, Outcome, Refusal, Space, TargetEffect};
use crate::units::TreePosition;
use crate::wire::TreeNote;

/// Syncs of the core that wait for an apply.
const SYNCS_MAX: usize = 1024;
/// Writes of the register that wait for the commit of what they name.
const STORES_MAX: usize = 16;

/// What is done to the tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Nothing.
    Rest,
    /// A commit record is written, for this request if there is one.
    Committing { io: Option<Io>, to: TreePosition },
    /// The tree goes to what was committed.
    Applying,
    /// The disk has failed: nothing from it counts.
    Failed,
}

#[derive(Clone, Debug)]
pub(super) struct Disk {
    /// What the tree is, or goes to across any crash.
    position: TreePosition,
    /// What the register names.
    named: Option<TreePosition>,
    phase: Phase,
    syncs: Vec<Io>,
    /// More writes of a register that names what is being committed.
    stores: Vec<Io>,
}

impl Disk {
    pub(super) fn new(position: TreePosition) -> Self {
        Self { position, named: None, phase: Phase::Rest, syncs: Vec::new(), stores: Vec::new() }
    }

    pub(super) fn position(&self) -> TreePosition {
        self.position
    }

    /// What the tree will be if the commit that is under way is done.
    pub(super) fn goes_to(&self) -> TreePosition {
        match self.phase {
            Phase::Committing { to, .. } => to,
            Phase::Rest | Phase::Applying | Phase::Failed => self.position,
        }
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.phase == Phase::Rest
    }

    pub(super) fn is_failed(&self) -> bool {
        self.phase == Phase::Failed
    }

    pub(super) fn is_committing(&self) -> bool {
        matches!(self.phase, Phase::Committing { .. })
    }

    /// Between two sessions the node may have been a source.
    pub(super) fn on_found(&mut self, position: TreePosition) {
        if self.is_at_rest() {
            self.position = position;
        }
    }

    pub(super) fn on_register(&mut self, named: Option<TreePosition>) {
        self.named = named;
    }

    pub(super) fn on_sync_asked(&mut self, io: Io, effects: &mut Vec<TargetEffect>) {
        let outcome = match self.phase {
            Phase::Rest => Outcome::Done,
            Phase::Failed => Outcome::Failed,
            Phase::Committing { .. } | Phase::Applying if self.syncs.len() >= SYNCS_MAX => {
                Outcome::Busy
            }
            Phase::Committing { .. } | Phase::Applying => {
                self.syncs.push(io);
                return;
            }
        };
        effects.push(TargetEffect::Complete { io, outcome });
    }

    fn complete_syncs(&mut self, outcome: Outcome, effects: &mut Vec<TargetEffect>) {
        let all = std::mem::take(&mut self.syncs);
        effects.extend(all.into_iter().map(|io| TargetEffect::Complete { io, outcome }));
    }

    /// The commit that they wait for ended; `None`: it is done.
    fn release_stores(&mut self, outcome: Option<Outcome>, effects: &mut Vec<TargetEffect>) {
        let all = std::mem::take(&mut self.stores).into_iter();
        effects.extend(all.map(|io| match outcome {
            Some(outcome) => TargetEffect::Complete { io, outcome },
            None => TargetEffect::Store { io },
        }));
    }

    fn fail(&mut self, effects: &mut Vec<TargetEffect>) {
        self.phase = Phase::Failed;
        self.release_stores(Some(Outcome::Failed), effects);
        self.complete_syncs(Outcome::Failed, effects);
    }
}

impl Target {
    /// Whether what is prepared is what the register names.
    pub(super) fn is_named(&self) -> bool {
        let prepared = self.stage.as_ref().and_then(super::stage::Stage::prepared);
        prepared.is_some() && prepared == self.disk.named
    }

    /// The core has decided already for what is prepared, and both nodes have that register: nobody will write
    /// it again.
    pub(super) fn commit_named(&mut self, effects: &mut Vec<TargetEffect>) {
        if !self.disk.is_at_rest() || !self.is_named() {
            return;
        }
        if let Some(stage) = self.stage.take()
            && let Some(position) = stage.to
        {
            self.disk.phase = Phase::Committing { io: None, to: position };
            effects.push(TargetEffect::Commit { io: None, attempt: stage.attempt, position });
        }
    }

    /// A register that names what is prepared is the order to commit it.
    pub(super) fn on_register_asked(
        &mut self,
        io: Io,
        position: Option<TreePosition>,
        effects: &mut Vec<TargetEffect>,
    ) {
        let outcome = if self.disk.is_failed() { Outcome::Failed } else { Outcome::NotStaged };
        let refused = TargetEffect::Complete { io, outcome };
        let Some(position) = position.filter(|_| !self.disk.is_failed()) else {
            effects.push(refused);
            return;
        };
        if position == self.disk.position && !self.disk.is_committing() {
            self.disk.named = Some(position);
            effects.push(TargetEffect::Store { io });
            return;
        }
        if matches!(self.disk.phase, Phase::Committing { to, .. } if to == position)
            && self.disk.stores.len() < STORES_MAX
        {
            self.disk.stores.push(io);
            return;
        }
        let prepared = self.stage.take_if(|stage| stage.prepared() == Some(position));
        let Some(stage) = prepared else {
            effects.push(refused);
            return;
        };
        // It is prepared only while the tree is at rest, and nothing but a commit ends that.
        let io = Some(io);
        self.disk.phase = Phase::Committing { io, to: position };
        effects.push(TargetEffect::Commit { io, attempt: stage.attempt, position });
    }

    pub(super) fn on_committed(&mut self, end: CommitEnd, effects: &mut Vec<TargetEffect>) {
        let Phase::Committing { io, to } = self.disk.phase else { return };
        let complete = |outcome| io.map(|io| TargetEffect::Complete { io, outcome });
        match end {
            CommitEnd::Done => {
                self.disk.position = to;
                self.disk.named = Some(to);
                self.disk.phase = Phase::Applying;
                effects.extend(complete(Outcome::Done));
                self.disk.release_stores(None, effects);
                if io.is_some() {
                    self.say(TreeNote::Committed { position: to }, effects);
                } else {
                    // Of what the source has not recorded in this session it hears by these.
                    self.say(TreeNote::Staged { position: to }, effects);
                    self.say_position(effects);
                }
                effects.push(TargetEffect::Apply);
            }
            CommitEnd::Refused(refusal) => {
                self.disk.phase = Phase::Rest;
                effects.extend(complete(Outcome::NotStaged));
                self.disk.release_stores(Some(Outcome::NotStaged), effects);
                self.disk.complete_syncs(Outcome::Done, effects);
                self.refuse(refusal, effects);
            }
            CommitEnd::Failed => {
                effects.extend(complete(Outcome::Failed));
                self.disk.fail(effects);
            }
        }
        // A session that began meanwhile.
        self.drop_outdated(effects);
        self.say_first(effects);
    }

    pub(super) fn on_applied(
        &mut self,
        end: ApplyEnd,
        space: Space,
        effects: &mut Vec<TargetEffect>,
    ) {
        if self.disk.phase != Phase::Applying {
            return;
        }
        self.space = space;
        match end {
            ApplyEnd::Done => {
                self.disk.phase = Phase::Rest;
                self.disk.complete_syncs(Outcome::Done, effects);
                let position = self.disk.position;
                self.say(TreeNote::Applied { position }, effects);
                self.say_position(effects);
            }
            ApplyEnd::Undone { position, refusal } => self.on_undone(position, refusal, effects),
            ApplyEnd::Failed => self.disk.fail(effects),
        }
    }

    /// What the core was told to be done is not, and it learns that from its syncs. The source learns it from
    /// the position, before it learns why.
    fn on_undone(
        &mut self,
        position: TreePosition,
        refusal: Refusal,
        effects: &mut Vec<TargetEffect>,
    ) {
        self.disk.position = position;
        self.disk.phase = Phase::Rest;
        self.disk.complete_syncs(Outcome::Undone, effects);
        self.say_position(effects);
        self.refuse(refusal, effects);
    }
}
