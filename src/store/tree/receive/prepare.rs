//! From what is staged to a plan that can be committed.
//!
//! What is checked first costs nothing: positions, the root, whether the tree is still what the index says.
//! Then the staged objects become complete, and all that follows goes by the plan alone.

use super::super::index::Index;
use super::super::{WorkArea, read_xattrs};
use super::births::{Slots, bear};
use super::foreign::look;
use super::part::remove;
use super::patch::{changed_chunks, overwritten, write_patch};
use super::staging::Site;
use super::write_index::try_root;
use super::{Foreign, ForeignWhy, ReceiveError, Received, Sides, Staging, failed, span_of};
use crate::manifest::apply::{Change, Journal, JournalNumber, Place, Slot, plan};
use crate::manifest::{Body, ChunkHash, FileTime, Keep, Metadata, Object, Scope, TreeClock};
use crate::units::{CHUNK_LEN, Label, ObjectId};

/// The first slot in the folder of a journal for chunks that are patched: a plan counts its own from one, and
/// no tree has as many entries.
const FIRST_PRE_IMAGE: u64 = 1 << 32;

/// What became of an attempt to prepare.
pub enum Prepare<'t> {
    /// All is staged and planned.
    Ready(Box<Prepared>),
    /// The tree is not what the index says. When that is mended the attempt is repeated; where the index had
    /// to change for that, from the beginning.
    Foreign(Box<Staging<'t>>, Vec<Foreign>),
}

/// A generation that can be committed.
pub struct Prepared {
    /// The plan.
    pub journal: Journal,
    /// What it was made from: the staged objects among it, which are to be stable before the commit record.
    pub change: Change,
    /// The delta, for the index.
    pub received: Received,
    /// What it touches, for the index.
    pub sides: Sides,
    /// How much the generation promises: what its source said, to be set before the commit.
    pub label: Label,
    /// The time of day at which its capture began, as its source has it; zero if it is not known.
    pub captured_at: FileTime,
    /// The generation before is kept until the operator has accepted what this one deletes.
    pub pins_base: bool,
}

impl<'t> Staging<'t> {
    /// Plans the generation, as journal `number`. `clock` is that of the tree just before.
    ///
    /// # Errors
    /// [`ReceiveError::Incomplete`] if chunks are missing, [`ReceiveError::Position`] if the index went on,
    /// [`ReceiveError::Root`] if the result would not be what was announced; else what failed. What is staged
    /// stays, for another attempt.
    pub fn prepare(
        mut self,
        index: &Index,
        scope: &Scope,
        number: JournalNumber,
        clock: &TreeClock,
    ) -> Result<Prepare<'t>, ReceiveError> {
        if let Some(id) = self.unfinished() {
            return Err(ReceiveError::Incomplete { id });
        }
        try_root(index, scope, &self.received)?;
        let sides = Sides::of(&self.received)?;
        let base = self.received.base();
        let mut looked = look(self.site, base, &sides, clock)?;
        looked.foreign.retain(|it| !is_set_aside(&self.received, &sides, it));
        if !looked.foreign.is_empty() {
            return Ok(Prepare::Foreign(Box::new(self), looked.foreign));
        }
        let mut change = Change {
            base: sides.base.clone(),
            target: sides.target.clone(),
            found: looked.found,
            ..Change::default()
        };
        self.add_root(&mut change)?;
        let mut slots = Slots::new(number);
        self.write_patches(&mut change, number, &mut slots)?;
        bear(self.site, &mut change, (number, &mut slots))?;
        let (from, to) = (self.received.base().position(), self.received.target());
        let journal = plan(&change, number, from, to)?;
        let received = self.received;
        Ok(Prepare::Ready(Box::new(Prepared {
            journal,
            change,
            received,
            sides,
            label: Label::Fuzzy,
            captured_at: FileTime::default(),
            pins_base: false,
        })))
    }

    /// An index that knows nothing of the tree does not know its root either: it is what it is.
    fn add_root(&self, change: &mut Change) -> Result<(), ReceiveError> {
        if change.base.objects.contains_key(&ObjectId::ROOT) {
            return Ok(());
        }
        let (tree, left_out) = (self.site.tree, self.site.left_out);
        let stamp = tree.look_at_self().map_err(failed("look at the root of the tree"))?.stamp;
        let (uid, gid) = left_out.owner(stamp.uid, stamp.gid);
        let metadata = Metadata {
            mode: left_out.mode(u16::try_from(stamp.mode & 0o7777).unwrap_or(0)),
            uid,
            gid,
            mtime: stamp.mtime,
            xattrs: read_xattrs(tree, left_out)
                .map_err(failed("read the attributes of the root of the tree"))?,
        };
        let root = Object { metadata, body: Body::Directory };
        change.base.objects.insert(ObjectId::ROOT, root);
        Ok(())
    }

    /// For each huge file that is patched: the chunks to write, and those that are there now.
    fn write_patches(
        &mut self,
        change: &mut Change,
        number: JournalNumber,
        slots: &mut Slots,
    ) -> Result<(), ReceiveError> {
        let patched: Vec<ObjectId> = self.patched.iter().copied().collect();
        for (count, id) in (0..).zip(patched) {
            // Judged by the same rows as when it was staged.
            let changed = changed_chunks(&self.received, id)?;
            let changed = changed.ok_or(ReceiveError::Incomplete { id })?;
            let source = Place::Stage(slots.next()?);
            let back = Place::Undo { journal: number, slot: Slot(FIRST_PRE_IMAGE + count) };
            self.write_new(id, &changed, &source)?;
            self.write_old(id, &changed, number, &back)?;
            change.patches.insert(id, (source, back));
        }
        Ok(())
    }

    fn write_new(
        &mut self,
        id: ObjectId,
        changed: &[u64],
        place: &Place,
    ) -> Result<(), ReceiveError> {
        let Some(name) = WorkArea::name_of(place) else { return Ok(()) };
        let stage = self.site.work.stage();
        remove(stage, &name)?;
        let size = self.received.size(id);
        let hashes = self.received.hashes_of(id, changed)?;
        let part = self.part(id)?;
        let mut hashes = changed.iter().zip(hashes);
        write_patch((stage, &name), size, changed, |chunk| {
            let (start, len) = span_of(chunk, size);
            let hash = hashes.next().map(|(_, hash)| hash);
            let hash = hash.ok_or(ReceiveError::Incomplete { id })?;
            if hash == ChunkHash::ZERO && len as u64 == CHUNK_LEN {
                return Ok(None);
            }
            let bytes = part.read(start, len, &hash);
            bytes.map(Some).ok_or(ReceiveError::Incomplete { id })
        })
    }

    fn write_old(
        &mut self,
        id: ObjectId,
        changed: &[u64],
        number: JournalNumber,
        place: &Place,
    ) -> Result<(), ReceiveError> {
        let Some(name) = WorkArea::name_of(place) else { return Ok(()) };
        let undo = self.site.work.undo_of(number).map_err(failed("open a folder of `undo/`"))?;
        remove(&undo, &name)?;
        let (size, old_size) = (self.received.size(id), self.received.base_size(id)?);
        let old = self.sources.file(self.received.base(), id)?;
        let old = old.ok_or(ReceiveError::Incomplete { id })?;
        let numbers = overwritten(changed, size, old_size);
        write_patch((&undo, &name), old_size, &numbers, |chunk| old.read_raw(chunk))?;
        // Before the commit record, as the chunks themselves: the name goes with them.
        undo.sync().map_err(failed("sync a folder of `undo/`"))
    }
}

impl Prepared {
    /// What was written to what it touches since that was compared.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub(in super::super) fn look_again(
        &self,
        site: Site<'_>,
        clock: &TreeClock,
    ) -> Result<Vec<Foreign>, ReceiveError> {
        let mut found = look(site, self.received.base(), &self.sides, clock)?.foreign;
        found.retain(|it| !is_set_aside(&self.received, &self.sides, it));
        Ok(found)
    }
}

/// Whether an object goes to the quarantine whole, so that it does not matter what is written to it until then.
fn is_set_aside(received: &Received, sides: &Sides, foreign: &Foreign) -> bool {
    let goes = received.reconciled().is_some_and(|it| it.keep == Keep::Quarantine);
    let is_gone = foreign.object.is_some_and(|id| !sides.target.objects.contains_key(&id));
    goes && is_gone && foreign.why == ForeignWhy::Changed
}

impl Received {
    /// The hashes of some chunks of a file, in rising order.
    fn hashes_of(&self, id: ObjectId, chunks: &[u64]) -> Result<Vec<ChunkHash>, ReceiveError> {
        let view = self.base().view();
        let mut pieces = super::content::Pieces::new(self, id)?;
        let mut hashes = Vec::with_capacity(chunks.len());
        let mut wanted = chunks.iter().copied().peekable();
        let missing = ReceiveError::Incomplete { id };
        while let Some(piece) = pieces.next(view, self.spool())? {
            let (first, count) = piece.chunks();
            while let Some(chunk) = wanted.next_if(|chunk| *chunk < first + count) {
                let Some(hash) = piece.hash(chunk - first) else { return Err(missing) };
                hashes.push(hash);
            }
        }
        Ok(hashes)
    }
}
