//! Chunks of earlier versions, in `undo/`.

use std::collections::BTreeMap;
use std::fs::File;

use super::super::apply::PatchReader;
use super::super::folder::Folder;
use super::super::work_area::WorkArea;
use super::file::Hold;
use crate::manifest::ChunkHash;
use crate::manifest::apply::{JournalNumber, Place};
use crate::units::{CHUNK_LEN, ObjectId};
use std::os::unix::fs::FileExt;

/// Files that are held open at once.
const OPEN_MAX: usize = 64;

/// A file in `undo/`.
#[derive(Debug)]
enum Open {
    Whole(File),
    Patch(PatchReader),
}

/// Finds chunks of files that were replaced, deleted or patched.
#[derive(Debug)]
pub(in super::super) struct Held<'w> {
    work: &'w WorkArea,
    holds: BTreeMap<ObjectId, Vec<(JournalNumber, Hold)>>,
    open: BTreeMap<(JournalNumber, u64), Option<Open>>,
}

impl<'w> Held<'w> {
    /// Looks in what `holds` say, the first that says something of a file first.
    pub(in super::super) fn new(
        work: &'w WorkArea,
        holds: impl Iterator<Item = (JournalNumber, Hold)>,
    ) -> Self {
        let mut by_object: BTreeMap<ObjectId, Vec<(JournalNumber, Hold)>> = BTreeMap::new();
        for (journal, hold) in holds {
            by_object.entry(hold.id).or_default().push((journal, hold));
        }
        Self { work, holds: by_object, open: BTreeMap::new() }
    }

    /// The bytes of a chunk, if they are held and have this hash.
    pub(in super::super) fn read(
        &mut self,
        (id, chunk): (ObjectId, u64),
        hash: &ChunkHash,
        len: usize,
    ) -> Option<Vec<u8>> {
        let holds = self.holds.get(&id).cloned().unwrap_or_default();
        holds.into_iter().find_map(|(journal, hold)| {
            let bytes = match self.file(journal, hold)? {
                Open::Whole(file) => {
                    let mut bytes = vec![0; len];
                    file.read_exact_at(&mut bytes, chunk.checked_mul(CHUNK_LEN)?).ok()?;
                    bytes
                }
                Open::Patch(patch) => patch.read(chunk)?,
            };
            let is_it = bytes.len() == len && blake3::hash(&bytes).as_bytes() == &hash.0;
            is_it.then_some(bytes)
        })
    }

    /// What cannot be opened is not held.
    fn file(&mut self, journal: JournalNumber, hold: Hold) -> Option<&Open> {
        let key = (journal, hold.slot.0);
        if !self.open.contains_key(&key) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let opened = self.open(journal, hold);
            self.open.insert(key, opened);
        }
        self.open.get(&key).and_then(Option::as_ref)
    }

    fn open(&self, journal: JournalNumber, hold: Hold) -> Option<Open> {
        let name = WorkArea::name_of(&Place::Undo { journal, slot: hold.slot })?;
        let folder: Folder = self.work.undo_of(journal).ok()?;
        let file = folder.file(&name).ok()?;
        Some(if hold.is_patch { Open::Patch(PatchReader::new(file)?) } else { Open::Whole(file) })
    }
}
