//! What makes one tree another: two sorted lists of rows in, records out, in memory that does not
//! depend on the size of the trees.
//!
//! Objects and names are compared apart, by their keys: so a renamed directory is one name that
//! goes and one that comes, whatever is in it. An object without a name in the new tree needs no
//! record: its last name going says it.

use std::collections::VecDeque;
use std::iter::Peekable;

use super::content::ChunkHash;
use super::limits::{SEGMENT_CHUNKS, chunk_count, segment_count};
use super::{Body, Name, Object, Record, whole_chunk_count};
use crate::units::ObjectId;

/// The stored chunk hashes of one tree generation.
pub trait Segments {
    /// The chunk hashes of one segment of a file, from its first on; fewer than [`SEGMENT_CHUNKS`]
    /// only in its last segment, none behind its end.
    fn segment(&self, id: ObjectId, segment: u32) -> Vec<ChunkHash>;
}

/// Compares names: rows of (directory, name) and object, in rising order.
pub fn diff_names(
    old: impl IntoIterator<Item = ((ObjectId, Name), ObjectId)>,
    new: impl IntoIterator<Item = ((ObjectId, Name), ObjectId)>,
) -> impl Iterator<Item = Record> {
    join(old, new).filter_map(|pair| match pair {
        (key, old, Some(id)) => {
            let (directory, name) = key;
            (old != Some(id)).then_some(Record::Name { directory, name, id })
        }
        ((directory, name), _, None) => Some(Record::Gone { directory, name }),
    })
}

/// Compares objects: rows of number and object in rising order, with the chunk hashes of both
/// sides.
pub fn diff_objects<'a, A: Segments, B: Segments>(
    old: impl IntoIterator<Item = (ObjectId, Object)> + 'a,
    new: impl IntoIterator<Item = (ObjectId, Object)> + 'a,
    old_segments: &'a A,
    new_segments: &'a B,
) -> impl Iterator<Item = Record> + 'a {
    join(old, new).filter(|(_, old, new)| old != new).flat_map(move |(id, old, new)| {
        let chunks = new.as_ref().map(|new| {
            let change = ContentChange::of(id, old.as_ref(), new);
            ChunkDiff::new(change, old_segments, new_segments)
        });
        let object = new.map(|object| Record::Object { id, object });
        object.into_iter().chain(chunks.into_iter().flatten())
    })
}

/// Both lists by their common key.
fn join<K: Ord, V>(
    old: impl IntoIterator<Item = (K, V)>,
    new: impl IntoIterator<Item = (K, V)>,
) -> impl Iterator<Item = (K, Option<V>, Option<V>)> {
    let mut old = old.into_iter().peekable();
    let mut new = new.into_iter().peekable();
    std::iter::from_fn(move || next_of(&mut old, &mut new))
}

fn next_of<K: Ord, V>(
    old: &mut Peekable<impl Iterator<Item = (K, V)>>,
    new: &mut Peekable<impl Iterator<Item = (K, V)>>,
) -> Option<(K, Option<V>, Option<V>)> {
    let order = match (old.peek(), new.peek()) {
        (Some((old, _)), Some((new, _))) => old.cmp(new),
        (Some(_), None) => std::cmp::Ordering::Less,
        (None, _) => std::cmp::Ordering::Greater,
    };
    match order {
        std::cmp::Ordering::Less => old.next().map(|(key, value)| (key, Some(value), None)),
        std::cmp::Ordering::Greater => new.next().map(|(key, value)| (key, None, Some(value))),
        std::cmp::Ordering::Equal => {
            let before = old.next().map(|(_, value)| value);
            new.next().map(|(key, value)| (key, before, Some(value)))
        }
    }
}

/// The file whose chunks are to be compared.
#[derive(Clone, Copy, Debug)]
struct ContentChange {
    id: ObjectId,
    /// Size of the new version; zero if the content is the same, or the object no regular file.
    size: u64,
    /// Chunks of the old version; none if it was no file.
    old_count: u64,
}

impl ContentChange {
    fn of(id: ObjectId, old: Option<&Object>, new: &Object) -> Self {
        let content = |object: &Object| match &object.body {
            Body::Regular { size, content } => Some((*size, *content)),
            Body::Directory
            | Body::Symlink { .. }
            | Body::Fifo
            | Body::Socket
            | Body::CharDevice { .. }
            | Body::BlockDevice { .. } => None,
        };
        let (before, after) = (old.and_then(content), content(new));
        let size = after.filter(|after| before != Some(*after)).map_or(0, |(size, _)| size);
        Self { id, size, old_count: before.map_or(0, |(size, _)| chunk_count(size)) }
    }
}

/// Gives the chunk records of one file, one segment at a time.
struct ChunkDiff<'a, A, B> {
    change: ContentChange,
    old: &'a A,
    new: &'a B,
    /// The segment to be compared next.
    segment: u32,
    /// A run of zero chunks that may go on in the next segment.
    zeroes: Option<(u64, u64)>,
    ready: VecDeque<Record>,
}

impl<'a, A: Segments, B: Segments> ChunkDiff<'a, A, B> {
    fn new(change: ContentChange, old: &'a A, new: &'a B) -> Self {
        Self { change, old, new, segment: 0, zeroes: None, ready: VecDeque::new() }
    }

    fn compare_next(&mut self) {
        let ContentChange { id, size, old_count } = self.change;
        let first = u64::from(self.segment) * u64::from(SEGMENT_CHUNKS);
        let new = self.new.segment(id, self.segment);
        let old = if first < old_count { self.old.segment(id, self.segment) } else { Vec::new() };
        self.segment += 1;
        let mut list: Option<(u64, Vec<ChunkHash>)> = None;
        for (chunk, (at, hash)) in (first..).zip(new.iter().enumerate()) {
            let is_changed = old.get(at) != Some(hash);
            // A hash of the zero chunk for a short last chunk is not one of whole zeroes; it cannot
            // be.
            let is_zero = *hash == ChunkHash::ZERO && chunk < whole_chunk_count(size);
            if !is_changed || is_zero {
                self.end_list(list.take());
            }
            if !is_changed || !is_zero {
                self.end_zeroes();
            }
            match (is_changed, is_zero) {
                (true, true) => self.zeroes.get_or_insert((chunk, 0)).1 += 1,
                (true, false) => list.get_or_insert((chunk, Vec::new())).1.push(*hash),
                (false, _) => {}
            }
        }
        self.end_list(list);
    }

    fn end_list(&mut self, list: Option<(u64, Vec<ChunkHash>)>) {
        let id = self.change.id;
        self.ready.extend(list.map(|(first, hashes)| Record::Chunks { id, first, hashes }));
    }

    fn end_zeroes(&mut self) {
        let id = self.change.id;
        self.ready.extend(self.zeroes.take().map(|(first, count)| Record::Zeroes {
            id,
            first,
            count,
        }));
    }
}

impl<A: Segments, B: Segments> Iterator for ChunkDiff<'_, A, B> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(record);
            }
            if u64::from(self.segment) < segment_count(self.change.size) {
                self.compare_next();
                continue;
            }
            self.end_zeroes();
            return self.ready.pop_front();
        }
    }
}
