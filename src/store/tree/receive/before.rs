//! What a generation was before the delta that is applied: the rows of the index that it changes, and the names
//! in `undo/` under which its content is held afterwards.

use std::collections::{BTreeMap, BTreeSet};

use super::super::index::Rows;
use super::super::kept::{About, Hold, Kept};
use super::content::{Piece, Pieces, number};
use super::incoming::size_of;
use super::{Prepared, ReceiveError};
use crate::manifest::apply::{Operation, Place, Slot};
use crate::manifest::{Body, ChunkHash, Identity, SEGMENT_CHUNKS, segment_count};
use crate::units::{ObjectId, TreeNumber};

impl Prepared {
    /// What is to be told of the generation that it leads to, but for what only its source knows.
    pub(in super::super) fn about(&self) -> Result<About, ReceiveError> {
        let base = self.received.base();
        let mut about = About::unknown(self.received.target());
        about.label = self.label;
        about.captured_at = self.captured_at;
        about.changed = self.received.objects().len() as u64;
        let (mut won, mut lost) = (0, 0);
        for ((directory, name), id) in self.received.names() {
            let old = base.view().name(*directory, name)?;
            won += u64::from(id.is_some() && old.is_none());
            lost += u64::from(id.is_none() && old.is_some());
        }
        about.entries = (base.view().name_count()? + won).saturating_sub(lost);
        about.deleted = lost;
        Ok(about)
    }

    /// Whether what is kept leads back to the generation before. Where the records of a whole tree were taken
    /// the objects have other numbers since, and what only this node had is not in `undo/` any more.
    pub(in super::super) fn leads_back(&self) -> bool {
        self.received.reconciled().is_none()
    }

    /// Gives all that tells what the generation before was. Of the tree before the first one nothing is told.
    pub(in super::super) fn before<E: From<ReceiveError>>(
        &self,
        mut take: impl FnMut(&Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        let base = self.received.base();
        if base.position().number == TreeNumber(0) {
            return Ok(());
        }
        let mut ids: BTreeSet<ObjectId> = self.received.objects().keys().copied().collect();
        for (directory, name) in self.received.names().keys() {
            let old = base.view().name(*directory, name).map_err(ReceiveError::from)?;
            ids.extend(old);
        }
        for id in ids {
            self.object_before(id, &mut take)?;
        }
        for (directory, name) in self.received.names().keys() {
            let old = base.view().name(*directory, name).map_err(ReceiveError::from)?;
            take(&Kept::Name(*directory, name.clone(), old))?;
        }
        for hold in self.holds() {
            take(&Kept::Hold(hold))?;
        }
        Ok(())
    }

    fn object_before<E: From<ReceiveError>>(
        &self,
        id: ObjectId,
        take: &mut impl FnMut(&Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(old) = self.received.base_object(id)? else { return take(&Kept::Born(id)) };
        let new = self.sides.target.objects.get(&id);
        if new == Some(&old) {
            return Ok(());
        }
        let size = size_of(&old);
        let has_new_content = new.is_some_and(|new| new.body != old.body);
        take(&Kept::Object(id, old))?;
        match new {
            None => self.segments_before(id, 0..segment_count(size), take),
            Some(_) if has_new_content => self.changed_segments(id, size, take),
            Some(_) => Ok(()),
        }
    }

    /// The segments of a file that are not what they were, and those behind its end.
    fn changed_segments<E: From<ReceiveError>>(
        &self,
        id: ObjectId,
        old_size: u64,
        take: &mut impl FnMut(&Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        let (view, spool) = (self.received.base().view(), self.received.spool());
        let old_count = segment_count(old_size);
        let mut pieces = Pieces::new(&self.received, id)?;
        let whole = u64::from(SEGMENT_CHUNKS);
        while let Some(piece) = pieces.next(view, spool)? {
            let (first, count) = piece.chunks();
            let segment = first / whole;
            let end = (first + count).div_ceil(whole).min(old_count);
            for at in segment..end {
                let old = view.segment(id, number(at)).map_err(ReceiveError::from)?.1;
                let is_same = match &piece {
                    Piece::Segment { hashes, .. } => *hashes == old,
                    Piece::Zeroes { .. } => {
                        let len = (first + count - at * whole).min(whole);
                        old.len() as u64 == len && old.iter().all(|hash| *hash == ChunkHash::ZERO)
                    }
                };
                if !is_same {
                    take(&Kept::Segment(id, number(at), old))?;
                }
            }
        }
        let new_count = segment_count(self.received.size(id));
        self.segments_before(id, new_count..old_count, take)
    }

    fn segments_before<E: From<ReceiveError>>(
        &self,
        id: ObjectId,
        segments: std::ops::Range<u64>,
        take: &mut impl FnMut(&Kept) -> Result<(), E>,
    ) -> Result<(), E> {
        for segment in segments {
            let view = self.received.base().view();
            let old = view.segment(id, number(segment)).map_err(ReceiveError::from)?.1;
            take(&Kept::Segment(id, number(segment), old))?;
        }
        Ok(())
    }

    /// Where the journal puts content that the generation before has.
    fn holds(&self) -> Vec<Hold> {
        let files = self.change.base.objects.iter();
        let files = files.filter(|(_, object)| matches!(object.body, Body::Regular { .. }));
        let by_identity: BTreeMap<Identity, ObjectId> =
            files.filter_map(|(id, _)| Some((*self.change.found.get(id)?, *id))).collect();
        let mut holds = Vec::new();
        let mut hold = |what: &Identity, to: &Place| {
            if let Some(slot) = self.slot_of(to)
                && let Some(id) = by_identity.get(what)
            {
                holds.push(Hold { id: *id, slot, is_patch: false });
            }
        };
        for operation in self.journal.operations() {
            match operation {
                Operation::Move(it) => hold(&it.what, &it.to),
                Operation::Exchange(it) => hold(&it.old, &it.to),
                Operation::Link(_)
                | Operation::Patch(_)
                | Operation::Set(_)
                | Operation::Empty { .. }
                | Operation::Finish(_) => {}
            }
        }
        for (id, (_, back)) in &self.change.patches {
            holds.extend(self.slot_of(back).map(|slot| Hold { id: *id, slot, is_patch: true }));
        }
        holds
    }

    /// The name of a place in the journal's own folder of `undo/`.
    fn slot_of(&self, place: &Place) -> Option<Slot> {
        match place {
            Place::Undo { journal, slot } if *journal == self.journal.number => Some(*slot),
            Place::Undo { .. }
            | Place::Tree { .. }
            | Place::Stage(_)
            | Place::Park { .. }
            | Place::Link { .. } => None,
        }
    }
}
