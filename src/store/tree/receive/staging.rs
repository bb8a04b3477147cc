//! Where each chunk of each new content comes from, and the files in which they come together.
//!
//! Files are gone through in the order of their objects, chunk by chunk: staged already, in the old version,
//! elsewhere in the tree, or staged for another file. What is nowhere is wanted from the peer. Each call
//! does a bounded piece of that, and remembers a bounded number of chunks that were asked for.

use std::collections::{BTreeMap, BTreeSet};

use super::super::index::Rows;
use super::super::kept::Held;
use super::super::{Folder, WorkArea};
use super::content::{Piece, Pieces, number};
use super::part::{Part, are_of};
use super::patch::{HUGE_LEN, changed_chunks};
use super::sources::Sources;
use super::{ReceiveError, Received, reclaim, span_of};
use crate::manifest::apply::JournalNumber;
use crate::manifest::{ChunkHash, LeftOut, SEGMENT_CHUNKS};
use crate::units::{CHUNK_LEN, ObjectId};

/// Chunks that are waited for at once, with all places where they go.
const OWED_MAX: usize = 64 << 10;
/// Bytes that one call looks through for chunks that are there already.
const WORK_LEN: u64 = 256 << 20;
/// Staged files that are open at once.
const OPEN_MAX: usize = 64;
/// Chunks from the peer that are remembered for other files of the same delta.
const ARRIVED_MAX: usize = 256 << 10;

/// What is worked on.
#[derive(Clone, Copy, Debug)]
pub struct Site<'t> {
    /// The root of the tree.
    pub tree: &'t Folder,
    /// The folder beside it.
    pub work: &'t WorkArea,
    /// What of objects is kept on neither node.
    pub left_out: &'t LeftOut,
}

/// What is wanted from the peer.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Wants {
    /// Objects and chunks, in order.
    pub chunks: Vec<(ObjectId, u64)>,
    /// Nothing else will be wanted. If not, there may be more after another call, or after chunks that
    /// were asked for have come.
    pub is_all: bool,
}

/// Stages a delta.
pub struct Staging<'t> {
    pub(super) site: Site<'t>,
    pub(super) received: Received,
    pub(super) sources: Sources<'t>,
    /// Files that are patched in place.
    pub(super) patched: BTreeSet<ObjectId>,
    /// Files with new content, and how many of them were begun.
    files: Vec<ObjectId>,
    begun: usize,
    current: Option<Current>,
    wanted: BTreeMap<(ObjectId, u64), Wanted>,
    /// Which of them has a hash.
    by_hash: BTreeMap<ChunkHash, (ObjectId, u64)>,
    /// Places of all that are wanted.
    owed: usize,
    arrived: BTreeMap<ChunkHash, (ObjectId, u64)>,
    parts: BTreeMap<ObjectId, Part>,
    can_clone: bool,
    /// A call failed in the middle of a file: nobody knows what that one lacks.
    is_broken: bool,
    /// Where chunks are looked for that are nowhere in the tree.
    held: Option<Held<'t>>,
}

/// A chunk that the peer was asked for.
#[derive(Debug)]
struct Wanted {
    hash: ChunkHash,
    len: usize,
    /// Where else the same bytes go.
    also: Vec<(ObjectId, u64)>,
}

/// The file that is gone through.
#[derive(Debug)]
struct Current {
    id: ObjectId,
    size: u64,
    pieces: Pieces,
    /// Chunks that are as in the old version need nothing: they stay, or came by a clone.
    keeps_same: bool,
    segment: Option<Segment>,
}

/// The rest of a segment.
#[derive(Debug)]
struct Segment {
    /// Its next chunk, and which one of the segment that is.
    chunk: u64,
    at: usize,
    hashes: Vec<ChunkHash>,
    old: Vec<ChunkHash>,
}

/// A chunk of the file that is gone through.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    id: ObjectId,
    number: u64,
    start: u64,
    len: usize,
    hash: ChunkHash,
    /// The old version has it at the same place.
    is_same: bool,
}

impl<'t> Staging<'t> {
    /// Begins to stage. What earlier attempts left in `stage/` is taken up or removed, but for that of the
    /// journals in `kept`.
    ///
    /// # Errors
    /// [`ReceiveError::Kernel`], [`ReceiveError::Index`].
    pub fn new(
        received: Received,
        site: Site<'t>,
        kept: &BTreeSet<JournalNumber>,
    ) -> Result<Self, ReceiveError> {
        let files = received.files()?;
        reclaim::reclaim(site.work.stage(), &files, kept)?;
        Ok(Self {
            site,
            received,
            sources: Sources::new(site.tree),
            patched: BTreeSet::new(),
            files,
            begun: 0,
            current: None,
            wanted: BTreeMap::new(),
            by_hash: BTreeMap::new(),
            owed: 0,
            arrived: BTreeMap::new(),
            parts: BTreeMap::new(),
            can_clone: true,
            is_broken: false,
            held: None,
        })
    }

    /// Looks for chunks in `held`, too.
    pub(in super::super) fn look_in(&mut self, held: Held<'t>) {
        self.held = Some(held);
    }

    /// What it stages.
    pub fn received(&self) -> &Received {
        &self.received
    }

    /// Goes on staging what this node has, and says what it wants next from the peer: at most `limit`
    /// chunks.
    ///
    /// # Errors
    /// [`ReceiveError`] if index or spool cannot be read, or `stage/` cannot be written. After that only a
    /// new attempt helps, which finds what is staged by then.
    pub fn wants(&mut self, limit: usize) -> Result<Wants, ReceiveError> {
        if self.is_broken {
            return Err(ReceiveError::Incomplete { id: ObjectId::ROOT });
        }
        let wants = self.go_on(limit);
        self.is_broken = wants.is_err();
        wants
    }

    fn go_on(&mut self, limit: usize) -> Result<Wants, ReceiveError> {
        let mut wants = Wants::default();
        let mut work = 0;
        while wants.chunks.len() < limit && work < WORK_LEN && self.owed < OWED_MAX {
            let Some(mut current) = self.next_file()? else {
                wants.is_all = true;
                break;
            };
            match self.next_chunk(&mut current)? {
                Some(chunk) => {
                    work += CHUNK_LEN;
                    self.current = Some(current);
                    if !self.stage_here(chunk)? && self.want(chunk) {
                        wants.chunks.push((chunk.id, chunk.number));
                    }
                }
                // The end of the file; a small one costs some calls of the kernel as well.
                None => work += CHUNK_LEN,
            }
        }
        Ok(wants)
    }

    /// The file that is gone through, or the next one, begun.
    fn next_file(&mut self) -> Result<Option<Current>, ReceiveError> {
        if let Some(current) = self.current.take() {
            return Ok(Some(current));
        }
        let Some(id) = self.files.get(self.begun).copied() else { return Ok(None) };
        self.begun += 1;
        let size = self.received.size(id);
        let mut part = Part::open(self.site.work.stage(), id)?;
        let old = self.sources.file(self.received.base(), id)?;
        let is_fresh = !part.may_hold_old;
        let mut keeps_same = false;
        if let Some(old) = old {
            let is_cloned = is_fresh && self.can_clone && part.clone_from(&old.file);
            self.can_clone &= is_cloned || !is_fresh;
            let can_patch = !is_cloned && size >= HUGE_LEN && old.is_same;
            keeps_same = is_cloned && old.is_known();
            if can_patch && changed_chunks(&self.received, id)?.is_some() {
                self.patched.insert(id);
                keeps_same = true;
            }
        }
        part.resize(size)?;
        self.keep_part(id, part);
        let pieces = Pieces::new(&self.received, id)?;
        Ok(Some(Current { id, size, pieces, keeps_same, segment: None }))
    }

    /// The next chunk that is no hole and has to come from somewhere.
    fn next_chunk(&mut self, current: &mut Current) -> Result<Option<Chunk>, ReceiveError> {
        loop {
            if let Some(segment) = &mut current.segment {
                let Some(hash) = segment.hashes.get(segment.at).copied() else {
                    current.segment = None;
                    continue;
                };
                let (chunk, id) = (segment.chunk, current.id);
                let (start, len) = span_of(chunk, current.size);
                let is_same = segment.old.get(segment.at) == Some(&hash);
                (segment.chunk, segment.at) = (chunk + 1, segment.at + 1);
                if hash == ChunkHash::ZERO && len as u64 == CHUNK_LEN {
                    self.part(id)?.clear(chunk, 1)?;
                } else if !(is_same && current.keeps_same) {
                    return Ok(Some(Chunk { id, number: chunk, start, len, hash, is_same }));
                }
                continue;
            }
            let base = self.received.base().view();
            match current.pieces.next(base, self.received.spool())? {
                None => return Ok(None),
                Some(Piece::Zeroes { first, count, .. }) => {
                    self.part(current.id)?.clear(first, count)?;
                }
                Some(Piece::Segment { segment, hashes }) => {
                    let old = base.segment(current.id, number(segment))?.1;
                    let chunk = segment * u64::from(SEGMENT_CHUNKS);
                    current.segment = Some(Segment { chunk, at: 0, hashes, old });
                }
            }
        }
    }

    /// Stages a chunk from what this node has; whether it could.
    fn stage_here(&mut self, chunk: Chunk) -> Result<bool, ReceiveError> {
        let Chunk { id, start, len, hash, .. } = chunk;
        let part = self.part(id)?;
        if part.may_hold_old && part.has(start, len, &hash) {
            return Ok(true);
        }
        let base = self.received.base();
        let mut bytes = None;
        if chunk.is_same {
            bytes = self.sources.read(base, (id, chunk.number), &hash, len)?;
        }
        if bytes.is_none() {
            bytes = self.sources.find(base, &hash, len)?;
        }
        if bytes.is_none()
            && let Some((from, at)) = self.arrived.get(&hash).copied()
        {
            let start = span_of(at, self.received.size(from)).0;
            bytes = self.part(from)?.read(start, len, &hash);
        }
        if bytes.is_none() {
            let at = (id, chunk.number);
            bytes = self.held.as_mut().and_then(|held| held.read(at, &hash, len));
        }
        let Some(bytes) = bytes else { return Ok(false) };
        self.part(id)?.write(start, &bytes)?;
        Ok(true)
    }

    /// Notes that a chunk is wanted; whether the peer is to be asked for it: not if the same bytes are on
    /// their way already.
    fn want(&mut self, chunk: Chunk) -> bool {
        let at = (chunk.id, chunk.number);
        self.owed += 1;
        let known = self.by_hash.get(&chunk.hash).and_then(|first| self.wanted.get_mut(first));
        if let Some(wanted) = known.filter(|wanted| wanted.len == chunk.len) {
            wanted.also.push(at);
            return false;
        }
        self.by_hash.insert(chunk.hash, at);
        self.wanted.insert(at, Wanted { hash: chunk.hash, len: chunk.len, also: Vec::new() });
        true
    }

    /// Takes the bytes of a chunk that was wanted.
    ///
    /// # Errors
    /// [`ReceiveError::NotWanted`], [`ReceiveError::WrongBytes`]: then it is still wanted. Else `stage/`
    /// cannot be written.
    pub fn put_chunk(
        &mut self,
        id: ObjectId,
        chunk: u64,
        bytes: &[u8],
    ) -> Result<(), ReceiveError> {
        let wanted = self.wanted.get(&(id, chunk)).ok_or(ReceiveError::NotWanted { id, chunk })?;
        if !are_of(bytes, wanted.len, &wanted.hash) {
            return Err(ReceiveError::WrongBytes { id, chunk });
        }
        let places: Vec<_> = [(id, chunk)].into_iter().chain(wanted.also.iter().copied()).collect();
        let hash = wanted.hash;
        for (id, chunk) in &places {
            let start = span_of(*chunk, self.received.size(*id)).0;
            self.part(*id)?.write(start, bytes)?;
        }
        self.owed -= places.len();
        self.wanted.remove(&(id, chunk));
        self.by_hash.remove(&hash);
        if self.arrived.len() < ARRIVED_MAX {
            self.arrived.insert(hash, (id, chunk));
        }
        Ok(())
    }

    /// A file that is not whole; `None` if all are.
    pub fn unfinished(&self) -> Option<ObjectId> {
        let waits = self.wanted.keys().next().map(|(id, _)| *id);
        let broken = self.is_broken.then_some(ObjectId::ROOT);
        let current = self.current.as_ref().map(|current| current.id).or(broken);
        waits.or(current).or_else(|| self.files.get(self.begun).copied())
    }

    /// The staged file of an object, opened again if it has to be.
    pub(super) fn part(&mut self, id: ObjectId) -> Result<&Part, ReceiveError> {
        if !self.parts.contains_key(&id) {
            let part = Part::open(self.site.work.stage(), id)?;
            self.keep_part(id, part);
        }
        self.parts.get(&id).ok_or(ReceiveError::Incomplete { id })
    }

    fn keep_part(&mut self, id: ObjectId, part: Part) {
        if self.parts.len() >= OPEN_MAX {
            self.parts.clear();
        }
        self.parts.insert(id, part);
    }
}
