//! From a tree of which nobody knows what generation it is to one of the peer's.
//!
//! It is looked at first: [`Target::survey`] reads all of it into an index. Then the records of all of the
//! peer's tree are taken: [`Target::begin_whole`]. What is here and there is one object from then on, and what is
//! to be done is a delta like any other. The index that it needs is made beside the one that counts, and takes
//! its place after the tree has changed; so a stop leaves the tree either as it was, with nothing lost that was
//! known of it, or at the generation that was taken.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustix::io::Errno;

use super::apply::{Displaced, REGISTER_LEN, undo_slot};
use super::capture::{CaptureError, Captured, Progress, Subject, capture};
use super::follow::WHOLE_INDEX;
use super::index::{Index, Rows};
use super::observer::Observer;
use super::receive::{Here, Incoming, Limits, Prepared, ReceiveError, Received};
use super::target::{Knowledge, Target, TargetError, file_in};
use crate::manifest::apply::{
    Change, Journal, JournalHash, Operation, Place, PlanError, Slot, encode,
};
use crate::manifest::{
    Deletes, Due, Guard, Keep, Kind, ManifestError, Name, PATH_DEPTH_MAX, TreePath,
};
use crate::units::{Instant, ObjectId, TreeNumber, TreePosition, TreeRoot};

/// The index that a survey makes, until it counts.
pub(super) const SURVEY_INDEX: &str = "index.redb.survey";
/// Name of the file in the state folder for the records of a whole tree, until they are a delta.
const WHOLE_FILE: &str = "tree.whole";
/// Object numbers that one generation can use up at most: as many as a tree has entries.
const OBJECTS_OF_GENERATION: u64 = 1 << 32;

/// What of a tree is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reading {
    /// All of it.
    Everything,
    /// What is not as the index has it, by the stamps that this node gave it. Only where the index was written
    /// by this node for this tree, and the node did not lose power since.
    Changes,
}

impl Target {
    /// Looks at all of the tree, and makes an index of it. Chunks that are here are known then, and what differs
    /// from the tree of a peer. Whoever serves after this has a generation above `at_least`, and objects with
    /// numbers that no peer has for others.
    ///
    /// # Errors
    /// [`TargetError::Survey`], [`TargetError::Index`]; the tree is not changed.
    pub fn survey(
        &mut self,
        reading: Reading,
        at_least: TreeNumber,
        progress: &Progress,
    ) -> Result<Captured, TargetError> {
        let applied = self.applier.records().applied.position;
        let known = self.index.view().and_then(|view| Ok((view.position()?, view.next_object()?)));
        let captured = match reading {
            Reading::Changes => {
                let (was, _) = known?;
                let index = Arc::clone(&self.index);
                if self.knowledge != Knowledge::Known || at_least > was.number {
                    // Whatever it finds is no generation that anybody else has.
                    let number = at_least.max(applied.number).max(was.number);
                    let number = TreeNumber(number.0.saturating_add(1)).min(TreeNumber::MAX);
                    index.change(|tables| tables.put_position(TreePosition { number, ..was }))?;
                    self.knowledge = Knowledge::None;
                }
                self.look(&index, progress)?
            }
            Reading::Everything => {
                // One that cannot be read says nothing of its numbers.
                let (was, next) = known.unwrap_or_default();
                let number = at_least.max(applied.number).max(was.number);
                self.look_at_everything(number.min(TreeNumber::MAX), next, progress)?
            }
        };
        let is_known = captured.position == applied && self.knowledge == Knowledge::Known;
        self.knowledge = if is_known { Knowledge::Known } else { Knowledge::Surveyed };
        Ok(captured)
    }

    /// Makes a new index, with a generation above `number` and objects from `next` on.
    fn look_at_everything(
        &mut self,
        number: TreeNumber,
        next: Option<ObjectId>,
        progress: &Progress,
    ) -> Result<Captured, TargetError> {
        let last =
            next.map_or_else(|| last_object_of(number), |next| ObjectId(next.0.saturating_sub(1)));
        let made = Arc::new(Index::make_in(&self.state, SURVEY_INDEX)?);
        made.change(|tables| {
            tables.note_objects(last.min(ObjectId(ObjectId::MAX.0 / 2)))?;
            tables.put_position(TreePosition { number, root: TreeRoot::default() })
        })?;
        let captured = self.look(&made, progress)?;
        self.applier.steps().take("give it its place", || SURVEY_INDEX.to_owned())?;
        Index::take_place(&self.state, SURVEY_INDEX)?;
        self.index = made;
        self.knowledge = Knowledge::None;
        Ok(captured)
    }

    fn look(&self, index: &Index, progress: &Progress) -> Result<Captured, TargetError> {
        let agreement = &self.agreement;
        let go = |_: Deletes| Guard::Go;
        let subject = Subject {
            root: self.applier.root(),
            scope: &agreement.scope,
            exclude: &agreement.exclude,
            left_out: &agreement.left_out,
            guard: &go,
        };
        // Without events each pass looks at everything: the second one is the closing check.
        let observer = Observer::start(self.applier.work(), false, || Instant(0), || ());
        let mut observer = observer.map_err(CaptureError::Cookie)?;
        let due = Due { everything: true, ..Due::default() };
        Ok(capture(index, &subject, &mut observer, due, progress)?)
    }

    /// The complete generation that the tree holds, if it is known or was found to be one: that of the records,
    /// if what was surveyed has its root. Whatever numbers its objects have, it can be served.
    ///
    /// # Errors
    /// [`TargetError::Index`].
    pub fn generation(&self) -> Result<Option<TreePosition>, TargetError> {
        let applied = self.applier.records().applied.position;
        Ok(match self.knowledge {
            Knowledge::Known => Some(applied),
            Knowledge::Surveyed => {
                let found = self.index.view()?.position()?.root == applied.root;
                Some(applied).filter(|_| found && applied.number > TreeNumber(0))
            }
            Knowledge::None => None,
        })
    }

    /// The tree is the generation that its index has: this node has captured it as the source, last with
    /// nobody writing. The caller's block changes with that, if one is given.
    /// Gives which; zero if it is none.
    ///
    /// # Errors
    /// [`TargetError::Apply`].
    pub fn adopt(
        &mut self,
        register: Option<&[u8; REGISTER_LEN]>,
    ) -> Result<TreePosition, TargetError> {
        let position = self.index.view()?.position()?;
        self.applier.adopt(position, register)?;
        self.note_knowledge()?;
        Ok(self.position())
    }

    /// Begins to take the records of all of a tree, whatever the tree is here; [`Target::end`] says how the
    /// two differ. What only this node has is treated as `keep` says.
    ///
    /// # Errors
    /// [`TargetError::NotSurveyed`] if the index is not that of the tree, else what failed.
    pub fn begin_whole(&self, limits: Limits, keep: Keep) -> Result<Incoming, TargetError> {
        if self.knowledge == Knowledge::None {
            return Err(TargetError::NotSurveyed);
        }
        let spool = file_in(&self.state, WHOLE_FILE).map_err(TargetError::State)?;
        let left_out = self.agreement.left_out.clone();
        Ok(Incoming::new_whole(left_out, limits, keep, spool)?)
    }

    /// Makes a delta of the records.
    pub(super) fn end_whole(
        &self,
        incoming: Incoming,
        to: TreePosition,
    ) -> Result<Received, TargetError> {
        let here = Here {
            view: self.index.view()?,
            // What is taken back leads to what was known before.
            position: self.position(),
            index: Arc::new(Index::make_in(&self.state, WHOLE_INDEX)?),
            scope: &self.agreement.scope,
            left_out: &self.agreement.left_out,
            spool: self.delta_file()?,
        };
        let received = incoming.reconcile(to, here, |path| self.is_excluded(path))?;
        // The records are in the delta now.
        self.remove_whole_file()?;
        Ok(received)
    }

    /// Removes what attempts that came to nothing have left.
    pub(super) fn remove_leftovers(&self) -> Result<(), TargetError> {
        for file in [WHOLE_INDEX, SURVEY_INDEX] {
            Index::remove_in(&self.state, file)?;
        }
        self.remove_whole_file()
    }

    fn remove_whole_file(&self) -> Result<(), TargetError> {
        let name = Name::new(WHOLE_FILE.as_bytes()).expect("a word is a name");
        match self.state.remove_file(&name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(TargetError::State(errno)),
        }
    }

    /// Before the commit: what a start needs to know of a delta that was made of a whole tree.
    pub(super) fn commit_whole(&mut self, prepared: &Prepared) -> Result<(), TargetError> {
        let Prepared { journal, change, received, .. } = prepared;
        let Some(made) = received.reconciled() else { return Ok(()) };
        self.applier.steps().take("write", || WHOLE_INDEX.to_owned())?;
        let hash = JournalHash::of(&encode(journal));
        // A start that finds the commit record finds the index that the delta is for.
        made.index.change(|tables| tables.put_made_for(journal.number, hash))?;
        match made.keep {
            Keep::Undo => {}
            Keep::Quarantine => {
                let entries = displaced(journal, change)?;
                self.applier.list_displaced(journal, entries)?;
            }
        }
        Ok(())
    }
}

/// The highest object number that a source can have given out up to generation `number`, if it began with
/// one: each can have as many new objects as a tree has entries.
fn last_object_of(number: TreeNumber) -> ObjectId {
    ObjectId(number.0.saturating_add(1).saturating_mul(OBJECTS_OF_GENERATION))
}

/// What of the tree is gone after `journal`, and where in `undo/` it is. Further names of what stays are not
/// among it.
fn displaced(journal: &Journal, change: &Change) -> Result<Vec<Displaced>, ReceiveError> {
    let mut slots: BTreeMap<&Place, Slot> = BTreeMap::new();
    for operation in journal.operations() {
        let (from, to) = match operation {
            Operation::Move(it) => (&it.from, &it.to),
            Operation::Exchange(it) => (&it.at, &it.to),
            Operation::Link(_)
            | Operation::Patch(_)
            | Operation::Set(_)
            | Operation::Empty { .. }
            | Operation::Finish(_) => continue,
        };
        if let Some(slot) = undo_slot(to) {
            slots.insert(from, slot);
        }
    }
    let base = &change.base;
    let is_directory =
        |id: &ObjectId| base.objects.get(id).is_some_and(|it| it.kind() == Kind::Directory);
    let directories = base.names.iter().filter(|(_, id)| is_directory(id));
    let places: BTreeMap<ObjectId, &(ObjectId, Name)> =
        directories.map(|(key, id)| (*id, key)).collect();
    let mut result = Vec::new();
    for (key, id) in base.names.iter().filter(|(_, id)| !change.target.objects.contains_key(id)) {
        let directory = change.identity_in_base(key.0)?;
        let place = Place::Tree { directory, name: key.1.clone() };
        // What is not listed would be lost with the journal.
        let slot = slots.get(&place).copied().ok_or(PlanError::Undescribed(*id))?;
        let mut names = vec![&key.1];
        let mut at = key.0;
        while let Some((up, name)) = places.get(&at).filter(|_| names.len() <= PATH_DEPTH_MAX) {
            names.push(name);
            at = *up;
        }
        let path = TreePath::of(names.into_iter().rev()).map_err(ManifestError::from)?;
        result.push(Displaced { slot, is_directory: is_directory(id), path });
    }
    Ok(result)
}
