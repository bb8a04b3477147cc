//! The chunk hashes that a file of the target has: those of the base, and what the delta tells of it.
//!
//! They come segment by segment, and a run of segments that are nothing but a hole comes as one, so that a
//! file with a hole as large as a file can be costs what its records cost.

use super::super::index::{Rows, View};
use super::spool::{Records, Spool, Told};
use super::{ReceiveError, Received};
use crate::manifest::{
    ChunkHash, ContentBuilder, ContentHash, ManifestError, SEGMENT_CHUNKS, chunk_count,
    segment_count,
};
use crate::units::ObjectId;

/// A part of a file.
#[derive(Debug)]
pub(super) enum Piece {
    /// Whole chunks of zeroes, from the beginning of a segment to the end of one.
    Zeroes {
        /// The first segment.
        segment: u64,
        /// The first chunk.
        first: u64,
        /// How many.
        count: u64,
    },
    /// One segment.
    Segment {
        /// Which.
        segment: u64,
        /// All of its hashes.
        hashes: Vec<ChunkHash>,
    },
}

impl Piece {
    /// Its first chunk, and how many it has.
    pub(super) fn chunks(&self) -> (u64, u64) {
        match self {
            Self::Zeroes { first, count, .. } => (*first, *count),
            Self::Segment { segment, hashes } => {
                (segment * u64::from(SEGMENT_CHUNKS), hashes.len() as u64)
            }
        }
    }

    /// The hash of a chunk of it, counted from its first.
    pub(super) fn hash(&self, at: u64) -> Option<ChunkHash> {
        match self {
            Self::Zeroes { count, .. } => (at < *count).then_some(ChunkHash::ZERO),
            Self::Segment { hashes, .. } => hashes.get(usize::try_from(at).ok()?).copied(),
        }
    }
}

/// Walks over one file.
#[derive(Debug)]
pub(super) struct Pieces {
    id: ObjectId,
    chunks: u64,
    segments: u64,
    /// The next segment.
    next: u64,
    /// Segments that the base has of it.
    base_segments: u64,
    records: Records,
    told: Option<Told>,
}

impl Pieces {
    pub(super) fn new(received: &Received, id: ObjectId) -> Result<Self, ReceiveError> {
        let size = received.size(id);
        let part = received.chunks_of(id);
        let base_size = received.base_size(id)?;
        Ok(Self::over(id, (size, base_size), Records::new(part)))
    }

    pub(super) fn over(id: ObjectId, (size, base_size): (u64, u64), records: Records) -> Self {
        Self {
            id,
            chunks: chunk_count(size),
            segments: segment_count(size),
            next: 0,
            base_segments: segment_count(base_size),
            records,
            told: None,
        }
    }

    pub(super) fn next(
        &mut self,
        view: &View,
        spool: &Spool,
    ) -> Result<Option<Piece>, ReceiveError> {
        if self.next >= self.segments {
            return Ok(None);
        }
        let segment = self.next;
        let first = segment * u64::from(SEGMENT_CHUNKS);
        self.load(spool)?;
        if let Some(end) = self.hole(first) {
            let whole = end / u64::from(SEGMENT_CHUNKS);
            let is_last = end == self.chunks;
            self.next = if is_last { self.segments } else { whole };
            let until = if is_last { end } else { whole * u64::from(SEGMENT_CHUNKS) };
            return Ok(Some(Piece::Zeroes { segment, first, count: until - first }));
        }
        let end = (first + u64::from(SEGMENT_CHUNKS)).min(self.chunks);
        let len = usize::try_from(end - first).expect("a segment has few chunks");
        let mut hashes = Vec::new();
        if segment < self.base_segments {
            hashes = view.segment(self.id, number(segment))?.1;
            hashes.truncate(len);
        }
        while let Some(told) = self.told.as_ref().filter(|told| told.first() < end) {
            self.overlay(&mut hashes, told, (first, end))?;
            if told.end() > end {
                break;
            }
            self.told = None;
            self.load(spool)?;
        }
        if hashes.len() < len {
            let chunk = first + hashes.len() as u64;
            return Err(ManifestError::ChunkMissing { id: self.id, chunk }.into());
        }
        self.next += 1;
        Ok(Some(Piece::Segment { segment, hashes }))
    }

    /// The next chunks that the delta tells of.
    fn load(&mut self, spool: &Spool) -> Result<(), ReceiveError> {
        let from = self.next * u64::from(SEGMENT_CHUNKS);
        while self.told.as_ref().is_none_or(|told| told.end() <= from) {
            let Some(record) = self.records.next(spool)? else {
                self.told = None;
                return Ok(());
            };
            self.told = Some(Told::of(record, self.id)?);
        }
        Ok(())
    }

    /// Where the hole ends that takes up at least the whole segment that begins with `first`.
    fn hole(&self, first: u64) -> Option<u64> {
        let Some(Told::Zeroes(start, count)) = &self.told else { return None };
        let end = start.saturating_add(*count).min(self.chunks);
        let is_whole = end >= first + u64::from(SEGMENT_CHUNKS) || end == self.chunks;
        (*start <= first && is_whole).then_some(end)
    }

    fn overlay(
        &self,
        hashes: &mut Vec<ChunkHash>,
        told: &Told,
        (first, end): (u64, u64),
    ) -> Result<(), ReceiveError> {
        for chunk in told.first().max(first)..told.end().min(end) {
            let hash = match told {
                Told::Zeroes(..) => ChunkHash::ZERO,
                Told::Hashes(start, hashes) => {
                    let at = usize::try_from(chunk - start).unwrap_or(usize::MAX);
                    hashes.get(at).copied().ok_or(ManifestError::Chunks { first: *start })?
                }
            };
            let at = usize::try_from(chunk - first).expect("a segment has few chunks");
            let len = hashes.len();
            match hashes.get_mut(at) {
                Some(place) => *place = hash,
                None if len == at => hashes.push(hash),
                None => {
                    let chunk = first + len as u64;
                    return Err(ManifestError::ChunkMissing { id: self.id, chunk }.into());
                }
            }
        }
        Ok(())
    }
}

/// The content hash over all of it.
pub(super) fn content_of(
    mut pieces: Pieces,
    size: u64,
    view: &View,
    spool: &Spool,
) -> Result<Option<ContentHash>, ReceiveError> {
    let mut builder = ContentBuilder::new(size)?;
    while let Some(piece) = pieces.next(view, spool)? {
        match piece {
            Piece::Zeroes { count, .. } => builder.push_zeroes(count),
            Piece::Segment { hashes, .. } => {
                for hash in hashes {
                    builder.push(hash);
                }
            }
        }
    }
    Ok(builder.finish())
}

/// The number of a segment as the index has it. Files are limited, so it fits.
pub(super) fn number(segment: u64) -> u32 {
    u32::try_from(segment).unwrap_or(u32::MAX)
}
