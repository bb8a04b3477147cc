//! What makes the next generation of a tree of a journal: commit, apply, undo, recovery.
//!
//! [`Applier::commit`] makes stable, in this order: what is staged, the journal, the commit record.
//! From then on the tree goes to the target. [`Applier::apply`] brings it there by the journal
//! alone, however often it is cut, or back to the base if it cannot get there; at a start it is the
//! recovery. Reading order: `records.rs` and `journals.rs` say what is remembered, `folders.rs`
//! finds directories, `carrier.rs` carries operations out, `quarantine.rs` is where foreign things
//! go and `displaced.rs` which of our own do, `patch.rs` writes huge files over in place.

mod carrier;
mod displaced;
mod error;
mod folders;
#[cfg(test)]
mod foreign;
mod journals;
mod patch;
mod quarantine;
mod records;
mod steps;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::error::Error;

use rustix::fs::{fsync, syncfs};
use rustix::io::Errno;
use tracing::warn;

use carrier::{Carrier, Ground};
pub use displaced::{Displaced, undo_slot};
pub use error::ApplyError;
use journals::{JOURNAL_LEN_MAX, Journals, Purpose, number_of};
pub use patch::{PatchReader, PatchWriter, save_pre_image};
pub use quarantine::Moment;
use quarantine::Quarantine;
pub use records::{RECORDS_FILE, REGISTER_LEN, Records, RecordsFile};
pub use steps::Steps;

use super::folder::Folder;
use super::work_area::WorkArea;
use crate::manifest::apply::{
    Applied, Committed, Journal, JournalHash, JournalNumber, Operation, Place, Recovery, decode,
    encode, recover, undo,
};
use crate::manifest::{Identity, Kind, LeftOut, Name};
use crate::units::TreePosition;

/// Most staged files that are synced one by one; of more, the whole file system is synced. Source:
/// directory.md 9.
const SYNCED_MAX: usize = 64;

/// Why the index did not follow: whatever its owner says.
pub type IndexFailure = Box<dyn Error + Send + Sync>;

/// The folders that an apply works on, all of one node and one resource.
#[derive(Debug)]
pub struct Folders {
    /// The root of the tree. It is opened before anything is staged, because an error of the file
    /// system is told only to those who held it open then.
    pub root: Folder,
    /// Beside it.
    pub work: WorkArea,
    /// Where records and journals are.
    pub state: Folder,
}

/// Where an apply has brought the tree.
#[derive(Debug)]
pub enum Outcome {
    /// Nowhere: nothing waited. Journals that were never committed are gone.
    Rest,
    /// To the target of the journal.
    Applied(TreePosition),
    /// Back to where it was before.
    Undone {
        /// What it is again.
        position: TreePosition,
        /// Why it could not go on; `None` if that was before a start.
        why: Option<Box<ApplyError>>,
    },
}

/// Commits journals and carries them out.
#[derive(Debug)]
pub struct Applier {
    root: Folder,
    work: WorkArea,
    left_out: LeftOut,
    journals: Journals,
    records: RecordsFile,
    steps: Steps,
    failed: bool,
    quarantined: u64,
    /// The journal that is stable with all that it needs, and not committed.
    ready: Option<(JournalNumber, JournalHash)>,
}

impl Applier {
    /// What `folders` and `records`, which lie in the state folder, make up.
    pub fn new(folders: Folders, records: RecordsFile, left_out: LeftOut) -> Self {
        let Folders { root, work, state } = folders;
        Self {
            root,
            work,
            left_out,
            journals: Journals::new(state),
            records,
            steps: Steps::unlimited(),
            failed: false,
            quarantined: 0,
            ready: None,
        }
    }

    /// Limits what is done from now on: for tests that stop it.
    pub fn limit(&mut self, steps: Steps) {
        self.steps = steps;
    }

    /// What was done, and is left to do, of the limit.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// What the node remembers of its tree.
    pub fn records(&self) -> &Records {
        self.records.records()
    }

    /// The work area, to stage in.
    pub fn work(&self) -> &WorkArea {
        &self.work
    }

    /// The root of the tree.
    pub fn root(&self) -> &Folder {
        &self.root
    }

    /// How many foreign things were brought to the quarantine since this was made.
    pub fn quarantined(&self) -> u64 {
        self.quarantined
    }

    /// Makes the caller's block stable, and nothing else of the records.
    ///
    /// # Errors
    /// [`ApplyError::Failed`], [`ApplyError::FailedBefore`].
    pub fn write_register(&mut self, register: &[u8; REGISTER_LEN]) -> Result<(), ApplyError> {
        let records = Records { register: *register, ..*self.records() };
        self.remember(|it| it.records.write(&it.steps, &records))
    }

    /// A number that no journal had.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn next_number(&self) -> Result<JournalNumber, ApplyError> {
        let Records { committed, applied, register: _ } = self.records();
        let used = self.kept()?.last().copied().unwrap_or_default();
        let newest = used.max(committed.journal).max(applied.journal);
        // Nobody commits that often; if a file says otherwise, its number is taken and refused.
        Ok(JournalNumber(newest.0.saturating_add(1)))
    }

    /// The numbers of all journals that are kept, or of which something is kept, in rising order. Of
    /// one that was taken back before it was applied only the folder is left.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn kept(&self) -> Result<Vec<JournalNumber>, ApplyError> {
        let listing = self.work.undo().list();
        let names = listing.map_err(|errno| ApplyError::kernel("list", "undo", errno))?.names;
        let mut numbers = self.journals.numbers(Purpose::On)?;
        numbers.extend(names.iter().filter_map(|name| number_of(name.bytes())));
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }

    /// The journal that is kept under `number`, to roll it back; `None` if there is none, or it is
    /// damaged.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn journal(&self, number: JournalNumber) -> Result<Option<Journal>, ApplyError> {
        let bytes = self.journals.read(Purpose::On, number)?;
        let journal = bytes.and_then(|bytes| decode(&bytes).ok());
        Ok(journal.filter(|journal| journal.number == number))
    }

    /// Whether there is a journal of this number: whether it can be gone back to where it began.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn has_journal(&self, number: JournalNumber) -> Result<bool, ApplyError> {
        Ok(self.journals.numbers(Purpose::On)?.binary_search(&number).is_ok())
    }

    /// Gives up what is kept to take journal `number` back. What it replaced or deleted is gone
    /// then.
    ///
    /// # Errors
    /// [`ApplyError::Needed`] if it is not applied yet, else what the kernel says.
    pub fn remove_undo(&mut self, number: JournalNumber) -> Result<(), ApplyError> {
        if self.is_needed(number)? {
            return Err(ApplyError::Needed(number));
        }
        self.remember(|it| {
            // First of all it cannot be gone back to; then that is gone which would be needed.
            it.journals.remove(&it.steps, number)?;
            let name = Name::new(number.0.to_string().as_bytes()).expect("digits are a name");
            let path = || format!("undo/{name}");
            it.steps.take("remove", path)?;
            match it.work.undo().remove_tree(&name) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(ApplyError::kernel("remove", path(), errno)),
            }
        })
    }

    /// The tree is what somebody else says that it is, who brought it there: at rest, and stable. The
    /// caller's block changes with it, if one is given.
    ///
    /// # Errors
    /// [`ApplyError::OutOfTurn`] if it is not at rest, [`ApplyError::Failed`].
    pub fn adopt(
        &mut self,
        position: TreePosition,
        register: Option<&[u8; REGISTER_LEN]>,
    ) -> Result<(), ApplyError> {
        let Records { mut committed, mut applied, register: before } = *self.records();
        if committed.journal != applied.journal {
            let (number, why) = (committed.journal, "it is not applied");
            return Err(ApplyError::OutOfTurn { number, why });
        }
        // Where both are the same number the tree is at rest, and they say the same of it.
        (committed.target, applied.position) = (position, position);
        let records = Records { committed, applied, register: *register.unwrap_or(&before) };
        self.remember(|it| it.records.write(&it.steps, &records))
    }

    /// Whether an apply may still take something from the folder of `number`, or the quarantine may.
    fn is_needed(&self, number: JournalNumber) -> Result<bool, ApplyError> {
        if self.displaced()? == Some(number) {
            return Ok(true);
        }
        Ok(match self.look()? {
            Recovery::Clean | Recovery::Drop => number > self.records().applied.journal,
            Recovery::Redo(journal) | Recovery::Undo(journal) => {
                number >= journal.number || speaks_of(&journal, number)
            }
            Recovery::Damage(_) => true,
        })
    }

    /// Makes everything stable that `journal` needs, and the journal itself, so that little is left for
    /// [`Self::commit`]. All that it takes from `stage/` is whole by now, and the pre-images of its
    /// patches are in its folder.
    ///
    /// # Errors
    /// [`ApplyError::OutOfTurn`] if the one before is not applied, or it does not follow on it;
    /// [`ApplyError::Missing`] if what it takes is not staged, [`ApplyError::NoSpace`].
    pub fn make_ready(&mut self, journal: &Journal) -> Result<(), ApplyError> {
        self.check_turn(journal)?;
        self.remember(|it| {
            it.drop_uncommitted()?;
            it.sync_staged(journal)?;
            let hash = it.write_journal(Purpose::On, journal)?;
            it.ready = Some((journal.number, hash));
            Ok(())
        })
    }

    /// Makes `journal` what the tree goes by, together with the caller's block: from here on it goes
    /// to the target of the journal. What [`Self::make_ready`] did not do before is done now.
    ///
    /// # Errors
    /// Those of [`Self::make_ready`]; then nothing has changed. [`ApplyError::Failed`]: what counts is
    /// found at the next start.
    pub fn commit(
        &mut self,
        journal: &Journal,
        register: &[u8; REGISTER_LEN],
    ) -> Result<(), ApplyError> {
        self.check_turn(journal)?;
        if !self.is_ready(journal.number) {
            self.make_ready(journal)?;
        }
        let Some((_, hash)) = self.ready.take() else { return Err(ApplyError::FailedBefore) };
        self.remember(|it| it.write_commit(Purpose::On, (journal, hash), register))
    }

    /// Whether [`Self::make_ready`] was done for this journal, and nothing else since.
    pub fn is_ready(&self, number: JournalNumber) -> bool {
        self.ready.is_some_and(|(ready, _)| ready == number)
    }

    fn check_turn(&self, journal: &Journal) -> Result<(), ApplyError> {
        let Records { committed, applied, register: _ } = *self.records();
        let number = journal.number;
        let refused = |why| Err(ApplyError::OutOfTurn { number, why });
        if committed.journal > applied.journal {
            return refused("the one before is not applied");
        }
        if number <= committed.journal {
            return refused("its number was used");
        }
        // From the zero position leads what was made without knowing what the tree is.
        if journal.base != applied.position && journal.base != TreePosition::default() {
            return refused("its base is not what the tree is");
        }
        if journal.base == journal.target {
            return refused("it leads nowhere");
        }
        Ok(())
    }

    /// Brings the tree to rest: carries out what is committed, or takes it back if that cannot be
    /// done. A start begins with it. `index` is called once the tree is stable at the target of the
    /// journal that it is given, and again if the apply was cut after that.
    ///
    /// # Errors
    /// [`ApplyError::Damage`]: only the peer leads to a generation. [`ApplyError::Failed`]: the disk
    /// is not used any more. Of all others the tree is still on its way; the next call goes on.
    pub fn apply(
        &mut self,
        moment: Moment,
        index: &mut dyn FnMut(&Journal) -> Result<(), IndexFailure>,
    ) -> Result<Outcome, ApplyError> {
        self.ready = None;
        self.remember(|it| match it.look()? {
            Recovery::Clean | Recovery::Drop => {
                it.drop_uncommitted()?;
                Ok(Outcome::Rest)
            }
            Recovery::Redo(journal) => {
                it.drop_uncommitted()?;
                match it.run(&journal, moment, index) {
                    Ok(()) => Ok(Outcome::Applied(journal.target)),
                    Err(why) if why.turns_back() => {
                        warn!(error = %why, journal = journal.number.0, "the apply is taken back");
                        let position = it.turn(&journal, moment, index)?;
                        Ok(Outcome::Undone { position, why: Some(Box::new(why)) })
                    }
                    Err(error) => Err(error),
                }
            }
            Recovery::Undo(journal) => {
                it.drop_uncommitted()?;
                let position = it.run_back(&journal, moment, index)?;
                Ok(Outcome::Undone { position, why: None })
            }
            Recovery::Damage(damage) => Err(damage.into()),
        })
    }

    /// Takes back what is committed and not applied, instead of going on with it.
    ///
    /// # Errors
    /// As [`Applier::apply`].
    pub fn turn_back(
        &mut self,
        moment: Moment,
        index: &mut dyn FnMut(&Journal) -> Result<(), IndexFailure>,
    ) -> Result<Outcome, ApplyError> {
        let found = self.remember(|it| it.look())?;
        match found {
            Recovery::Redo(journal) => self.remember(|it| {
                it.drop_uncommitted()?;
                let position = it.turn(&journal, moment, index)?;
                Ok(Outcome::Undone { position, why: None })
            }),
            Recovery::Clean | Recovery::Drop | Recovery::Undo(_) | Recovery::Damage(_) => {
                self.apply(moment, index)
            }
        }
    }

    /// Does something that may show that the disk has failed; after that, nothing.
    fn remember<T>(
        &mut self,
        action: impl FnOnce(&mut Self) -> Result<T, ApplyError>,
    ) -> Result<T, ApplyError> {
        if self.failed {
            return Err(ApplyError::FailedBefore);
        }
        let result = action(self);
        self.failed = matches!(result, Err(ApplyError::Failed { .. } | ApplyError::FailedBefore));
        result
    }

    /// What the records and the journals call for.
    fn look(&self) -> Result<Recovery, ApplyError> {
        let Records { committed, applied, register: _ } = self.records();
        let number = if committed.journal > applied.journal {
            committed.journal
        } else {
            // One that is older than what is applied is kept for the way back, and calls for nothing.
            let newest = self.journals.numbers(Purpose::On)?.last().copied().unwrap_or_default();
            newest.max(committed.journal)
        };
        let bytes = match self.journals.read(Purpose::On, number)? {
            Some(bytes) => Some(bytes),
            None => self.journals.read(Purpose::Back, number)?,
        };
        Ok(recover(committed, applied, bytes.as_deref()))
    }

    /// Removes journals that were never committed, and those that only led back and have done so.
    /// What is staged stays.
    fn drop_uncommitted(&self) -> Result<(), ApplyError> {
        let Records { committed, applied, register: _ } = self.records();
        let on =
            self.journals.numbers(Purpose::On)?.into_iter().filter(|it| *it > committed.journal);
        let is_under_way = committed.journal > applied.journal;
        let back = self.journals.numbers(Purpose::Back)?.into_iter();
        let back = back.filter(|it| !is_under_way || *it != committed.journal);
        for number in on.chain(back) {
            self.journals.remove(&self.steps, number)?;
        }
        Ok(())
    }

    /// The journal and its commit record, each stable before the next.
    fn write(
        &mut self,
        purpose: Purpose,
        journal: &Journal,
        register: &[u8; REGISTER_LEN],
    ) -> Result<(), ApplyError> {
        let hash = self.write_journal(purpose, journal)?;
        self.write_commit(purpose, (journal, hash), register)
    }

    fn write_journal(
        &self,
        purpose: Purpose,
        journal: &Journal,
    ) -> Result<JournalHash, ApplyError> {
        let bytes = encode(journal);
        if bytes.len() as u64 > JOURNAL_LEN_MAX {
            let (number, why) = (journal.number, "it is too long");
            return Err(ApplyError::OutOfTurn { number, why });
        }
        self.journals.write(&self.steps, (purpose, journal.number), &bytes)?;
        Ok(JournalHash::of(&bytes))
    }

    fn write_commit(
        &mut self,
        purpose: Purpose,
        (journal, hash): (&Journal, JournalHash),
        register: &[u8; REGISTER_LEN],
    ) -> Result<(), ApplyError> {
        let Journal { number, base, target, .. } = *journal;
        let committed = Committed { journal: number, hash, base, target };
        let mut applied = self.records().applied;
        if purpose == Purpose::On {
            // On the way nobody knows more than the journal does; if it is taken back, neither.
            applied.position = base;
        }
        let records = Records { committed, applied, register: *register };
        self.records.write(&self.steps, &records)
    }

    /// Takes `journal` back, by a journal with a commit record of its own.
    fn turn(
        &mut self,
        journal: &Journal,
        moment: Moment,
        index: &mut dyn FnMut(&Journal) -> Result<(), IndexFailure>,
    ) -> Result<TreePosition, ApplyError> {
        let back = undo(journal, self.next_number()?);
        let register = self.records().register;
        self.write(Purpose::Back, &back, &register)?;
        self.run_back(&back, moment, index)
    }

    /// Carries a committed journal out that takes another one back. Neither is kept: what they hold
    /// is the generation that the tree is again.
    fn run_back(
        &mut self,
        back: &Journal,
        moment: Moment,
        index: &mut dyn FnMut(&Journal) -> Result<(), IndexFailure>,
    ) -> Result<TreePosition, ApplyError> {
        let last = self.records().applied.journal;
        // The way back is committed, so nothing asks for the one that it takes back any more.
        for number in self.journals.numbers(Purpose::On)?.into_iter().filter(|it| *it > last) {
            self.journals.remove(&self.steps, number)?;
        }
        self.run(back, moment, index)?;
        self.drop_uncommitted()?;
        Ok(back.target)
    }

    /// Carries a committed journal out, from wherever the tree stands.
    fn run(
        &mut self,
        journal: &Journal,
        moment: Moment,
        index: &mut dyn FnMut(&Journal) -> Result<(), IndexFailure>,
    ) -> Result<(), ApplyError> {
        let Self { root, work, left_out, steps, .. } = &*self;
        let ground = Ground { root, work, left_out, steps };
        let mut carrier = Carrier::new(&ground, Quarantine::new(work.lost(), moment), journal)?;
        let ended = carrier.carry_out();
        let quarantined = carrier.quarantined();
        drop(carrier);
        self.quarantined += quarantined;
        ended?;
        self.steps.take("sync", || ".".to_owned())?;
        // All renames, patches and metadata are stable before anything says that they are.
        syncfs(&self.root).map_err(|errno| ApplyError::sync(".", errno))?;
        self.steps.take("write the index", || ".".to_owned())?;
        index(journal).map_err(|source| ApplyError::Index { source })?;
        let applied = Applied { journal: journal.number, position: journal.target };
        let records = Records { applied, ..*self.records() };
        self.records.write(&self.steps, &records)
    }

    /// Makes stable what `journal` takes from `stage/`, and the pre-images in its folder.
    fn sync_staged(&self, journal: &Journal) -> Result<(), ApplyError> {
        let staged = staged_of(journal);
        let mut files = Vec::new();
        let mut is_few = staged.len() <= SYNCED_MAX;
        for (what, place) in &staged {
            let Some((folder, name)) = self.staged_at(place)? else { continue };
            let path = || format!("(work area)/{name}");
            let found = folder.look(&name).map_err(|e| ApplyError::kernel("look", path(), e))?;
            let identity = found.map(|found| found.stamp.identity);
            if identity.is_none() || what.is_some_and(|what| identity != Some(what)) {
                return Err(match what {
                    Some(what) => ApplyError::Missing(*what),
                    None => ApplyError::kernel("open", path(), Errno::NOENT),
                });
            }
            // What is no file cannot be synced by itself, and a directory may hold more.
            is_few &= found.and_then(|found| found.kind) == Some(Kind::Regular);
            if is_few {
                let file = folder.file(&name).map_err(|e| ApplyError::kernel("open", path(), e))?;
                files.push((file, name));
            }
        }
        if !is_few {
            self.steps.take("sync", || "stage".to_owned())?;
            // All that is staged is stable before a journal takes it for granted.
            return syncfs(&self.root).map_err(|errno| ApplyError::sync("stage", errno));
        }
        for (file, name) in files {
            self.steps.take("sync", || name.to_string())?;
            // The same, file by file, ...
            fsync(file).map_err(|errno| ApplyError::sync(name.to_string(), errno))?;
        }
        self.steps.take("sync", || "stage".to_owned())?;
        // ... with their names.
        self.work.stage().sync().map_err(|errno| ApplyError::sync("stage", errno))?;
        if staged.iter().any(|(_, place)| matches!(place, Place::Undo { .. })) {
            let undo = self.work.undo_of(journal.number);
            let undo = undo.map_err(|errno| ApplyError::kernel("open", "undo", errno))?;
            undo.sync().map_err(|errno| ApplyError::sync("undo", errno))?;
        }
        Ok(())
    }

    fn staged_at(&self, place: &Place) -> Result<Option<(Folder, Name)>, ApplyError> {
        let Some(name) = WorkArea::name_of(place) else { return Ok(None) };
        let folder = match place {
            Place::Undo { journal, slot: _ } => self.work.undo_of(*journal),
            Place::Stage(_) | Place::Park { .. } | Place::Link { .. } | Place::Tree { .. } => {
                self.work.stage().again()
            }
        };
        let folder = folder.map_err(|errno| ApplyError::kernel("open", "the work area", errno))?;
        Ok(Some((folder, name)))
    }
}

/// What `journal` takes from `stage/`, and the patches that it may need.
fn staged_of(journal: &Journal) -> Vec<(Option<Identity>, &Place)> {
    let mut result = Vec::new();
    for operation in journal.operations() {
        match operation {
            Operation::Move(it) => result.push((Some(it.what), &it.from)),
            Operation::Exchange(it) => result.push((Some(it.new), &it.from)),
            Operation::Patch(it) => result.extend([(None, &it.source), (None, &it.back)]),
            Operation::Link(_)
            | Operation::Set(_)
            | Operation::Empty { .. }
            | Operation::Finish(_) => {}
        }
    }
    result.retain(|(what, place)| what.is_none() || matches!(place, Place::Stage(_)));
    result
}

/// Whether `journal` takes something from the folder of `number`, or puts something there.
fn speaks_of(journal: &Journal, number: JournalNumber) -> bool {
    let is_there = |place: &Place| match place {
        Place::Undo { journal, slot: _ } => *journal == number,
        Place::Tree { .. } | Place::Stage(_) | Place::Park { .. } | Place::Link { .. } => false,
    };
    journal.operations().any(|operation| match operation {
        Operation::Move(it) => is_there(&it.from) || is_there(&it.to),
        Operation::Exchange(it) => is_there(&it.from) || is_there(&it.to),
        Operation::Patch(it) => is_there(&it.source) || is_there(&it.back),
        Operation::Link(_) | Operation::Set(_) | Operation::Empty { .. } | Operation::Finish(_) => {
            false
        }
    })
}
