//! Chunks that this node has already, in files of its tree.
//!
//! What the index says of a chunk is a hint: the bytes are read and hashed before they count. So what
//! rotted on the disk, or was written by somebody else, is never copied into a new version.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::super::index::Rows;
use super::super::{Folder, folder::look_at};
use super::doors::Doors;
use super::incoming::size_of;
use super::{Base, ReceiveError, failed, span_of};
use crate::manifest::{ChunkHash, Kind, Row, View as _};
use crate::units::ObjectId;

/// Files that are held open at once.
const OPEN_MAX: usize = 32;
/// Places that are looked at for one hash: if the first few are not what they should be, asking the peer
/// is cheaper.
const TRIES: usize = 4;

/// An open file of the tree.
#[derive(Debug)]
pub(super) struct OldFile {
    pub(super) file: File,
    /// It has the stamp that the index has.
    pub(super) is_same: bool,
    pub(super) row: Row,
}

impl OldFile {
    /// Nothing speaks of other content than the index has.
    pub(super) fn is_known(&self) -> bool {
        self.is_same && !self.row.is_unsure
    }

    /// The bytes of a chunk, whatever they are; `None` if they are zeroes.
    pub(super) fn read_raw(&self, chunk: u64) -> Result<Option<Vec<u8>>, ReceiveError> {
        let (start, len) = span_of(chunk, size_of(self.row.entry.object()));
        let mut bytes = vec![0; len];
        let read = self.file.read_exact_at(&mut bytes, start);
        read.map_err(failed("read a file that is to be patched"))?;
        Ok(bytes.iter().any(|byte| *byte != 0).then_some(bytes))
    }
}

/// The files of a tree at one generation.
#[derive(Debug)]
pub(super) struct Sources<'t> {
    doors: Doors<'t>,
    open: BTreeMap<ObjectId, Option<OldFile>>,
}

impl<'t> Sources<'t> {
    pub(super) fn new(tree: &'t Folder) -> Self {
        Self { doors: Doors::new(tree), open: BTreeMap::new() }
    }

    /// The bytes with this hash, if the chunk of that file still has them.
    pub(super) fn read(
        &mut self,
        base: &Base,
        (id, chunk): (ObjectId, u64),
        hash: &ChunkHash,
        len: usize,
    ) -> Result<Option<Vec<u8>>, ReceiveError> {
        let Some(old) = self.file(base, id)? else { return Ok(None) };
        let (start, has) = span_of(chunk, size_of(old.row.entry.object()));
        Ok(if has == len { read_verified(&old.file, start, len, hash) } else { None })
    }

    /// The bytes with this hash, if any file of the tree has them where the index says so.
    pub(super) fn find(
        &mut self,
        base: &Base,
        hash: &ChunkHash,
        len: usize,
    ) -> Result<Option<Vec<u8>>, ReceiveError> {
        for at in base.view().chunks_like(hash, TRIES)? {
            if let Some(bytes) = self.read(base, at, hash, len)? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// A regular file of the base; `None` if it cannot be opened where it should be, or is none.
    pub(super) fn file(
        &mut self,
        base: &Base,
        id: ObjectId,
    ) -> Result<Option<&OldFile>, ReceiveError> {
        if !self.open.contains_key(&id) {
            let file = self.open_file(base, id)?;
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            self.open.insert(id, file);
        }
        Ok(self.open.get(&id).and_then(Option::as_ref))
    }

    fn open_file(&mut self, base: &Base, id: ObjectId) -> Result<Option<OldFile>, ReceiveError> {
        let Some(row) = base.view().object(id)? else { return Ok(None) };
        let place = base.place(id);
        base.check()?;
        let Some((directory, name)) = place else { return Ok(None) };
        let Some(folder) = self.doors.folder(directory, base)? else { return Ok(None) };
        // One that cannot be read is one that this node does not have.
        let Ok(file) = folder.file(&name) else { return Ok(None) };
        let Ok(found) = look_at(&file) else { return Ok(None) };
        if found.kind != Some(Kind::Regular) {
            return Ok(None);
        }
        Ok(Some(OldFile { file, is_same: found.stamp == row.stamp, row }))
    }
}

/// Bytes of a file, if all are there and have this hash.
pub(super) fn read_verified(
    file: &File,
    start: u64,
    len: usize,
    hash: &ChunkHash,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    // A disk that cannot read a chunk does not have it: the peer does.
    file.read_exact_at(&mut bytes, start).ok()?;
    (hash_of(&bytes) == *hash).then_some(bytes)
}

pub(super) fn hash_of(bytes: &[u8]) -> ChunkHash {
    ChunkHash(*blake3::hash(bytes).as_bytes())
}
