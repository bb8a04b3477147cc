//! A whole tree in memory: what sorted rows and deltas mean, said in the plainest way.
//!
//! For tests and for the simulator. The daemon keeps its trees in an index on disk.

use std::collections::BTreeMap;

use super::content::{ChunkHash, ContentBuilder};
use super::limits::{SEGMENT_CHUNKS, chunk_count};
use super::{
    Beside, Body, Entry, EntryHash, Kind, ManifestError, Metadata, Name, Object, Record, Scope,
    TreePath, fold,
};
use crate::units::{ObjectId, TreeRoot};

/// An object, and the hashes of its chunks if it is a regular file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Node {
    /// What it is.
    pub object: Object,
    /// Chunk hashes, from the first on.
    pub chunks: Vec<ChunkHash>,
}

impl Node {
    /// A regular file.
    ///
    /// # Errors
    /// [`ManifestError`] if `size` is too long, or not that of so many chunks.
    pub fn file(
        metadata: Metadata,
        size: u64,
        chunks: Vec<ChunkHash>,
    ) -> Result<Self, ManifestError> {
        let content = content_of(size, &chunks)?.ok_or(ManifestError::Chunks { first: 0 })?;
        Ok(Self { object: Object { metadata, body: Body::Regular { size, content } }, chunks })
    }

    /// Anything but a regular file.
    pub fn other(object: Object) -> Self {
        Self { object, chunks: Vec::new() }
    }
}

fn content_of(
    size: u64,
    chunks: &[ChunkHash],
) -> Result<Option<super::ContentHash>, ManifestError> {
    let mut builder = ContentBuilder::new(size)?;
    for chunk in chunks {
        builder.push(*chunk);
    }
    Ok(builder.finish())
}

/// Objects and names. It can be any: [`Tree::root`] and [`check`](super::check()) say whether it is
/// one tree.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Tree {
    /// All objects, the root directory among them.
    pub objects: BTreeMap<ObjectId, Node>,
    /// All names but that of the root directory, which has none.
    pub names: BTreeMap<(ObjectId, Name), ObjectId>,
}

impl Tree {
    /// A tree with nothing in it.
    pub fn empty(root: Metadata) -> Self {
        let root = Node::other(Object { metadata: root, body: Body::Directory });
        Self { objects: BTreeMap::from([(ObjectId::ROOT, root)]), names: BTreeMap::new() }
    }

    /// The names in one directory, in order.
    pub fn names_in(&self, directory: ObjectId) -> impl Iterator<Item = (&Name, ObjectId)> {
        self.names
            .iter()
            .skip_while(move |((parent, _), _)| *parent < directory)
            .take_while(move |((parent, _), _)| *parent == directory)
            .map(|((_, name), id)| (name, *id))
    }

    /// How many names each object has.
    pub fn link_counts(&self) -> BTreeMap<ObjectId, u64> {
        let mut links = BTreeMap::new();
        for id in self.names.values() {
            *links.entry(*id).or_default() += 1;
        }
        links
    }

    /// Removes what no name leads to.
    pub fn sweep(&mut self) {
        let links = self.link_counts();
        self.objects.retain(|id, _| *id == ObjectId::ROOT || links.contains_key(id));
    }

    /// The root over all of it.
    ///
    /// # Errors
    /// [`ManifestError`] if it is no tree that can be kept.
    pub fn root(&self, scope: &Scope) -> Result<TreeRoot, ManifestError> {
        let Walk { order, smallest } = self.walk()?;
        let links = self.link_counts();
        let mut hashes: BTreeMap<ObjectId, EntryHash> = BTreeMap::new();
        for (id, node) in &self.objects {
            if node.object.kind() == Kind::Directory {
                continue;
            }
            let path = smallest.get(id).filter(|_| links.get(id).is_some_and(|links| *links > 1));
            let beside = match path {
                None => Beside::Nothing,
                Some(path) => Beside::Smallest(TreePath::new(path)?),
            };
            hashes.insert(*id, EntryHash::of(&Entry::new(node.object.clone(), beside)?));
        }
        // Children come after their directories in the walk, so backwards they are known before
        // them.
        for directory in order.iter().rev() {
            let mut entries = Vec::new();
            for (name, id) in self.names_in(*directory) {
                let hash = hashes.get(&id).ok_or(ManifestError::Unknown { id })?;
                entries.push((name, *hash));
            }
            let inside = fold(entries)?;
            let node = self.objects.get(directory).ok_or(ManifestError::Root)?;
            let entry = Entry::new(node.object.clone(), Beside::Inside(inside))?;
            hashes.insert(*directory, EntryHash::of(&entry));
        }
        hashes.get(&ObjectId::ROOT).map(|hash| scope.root(*hash)).ok_or(ManifestError::Root)
    }

    /// Goes to everything that has a path.
    pub(super) fn walk(&self) -> Result<Walk, ManifestError> {
        let mut order = Vec::new();
        let mut smallest: BTreeMap<ObjectId, Vec<u8>> = BTreeMap::new();
        let mut open = vec![(ObjectId::ROOT, Vec::new())];
        while let Some((directory, prefix)) = open.pop() {
            order.push(directory);
            for (name, id) in self.names_in(directory) {
                let mut path = prefix.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name.bytes());
                let node = self.objects.get(&id).ok_or(ManifestError::Unknown { id })?;
                if node.object.kind() == Kind::Directory {
                    if smallest.contains_key(&id) || id == ObjectId::ROOT {
                        return Err(ManifestError::SecondName { id, names: 2 });
                    }
                    TreePath::new(&path)?;
                    open.push((id, path.clone()));
                }
                let known = smallest.entry(id).or_insert_with(|| path.clone());
                if path < *known {
                    *known = path;
                }
            }
        }
        Ok(Walk { order, smallest })
    }
}

/// What can be reached from the root.
#[derive(Debug)]
pub(super) struct Walk {
    /// Directories, each before what is in it.
    pub(super) order: Vec<ObjectId>,
    /// The byte-wise smallest path of each object but the root.
    smallest: BTreeMap<ObjectId, Vec<u8>>,
}

/// Carries out a delta that [`check`](super::check()) found to be one for this tree.
///
/// # Errors
/// [`ManifestError`] if the chunks of a file are not those of its content hash, or belong to none.
pub fn apply(
    delta: impl IntoIterator<Item = Record>,
    tree: &mut Tree,
) -> Result<(), ManifestError> {
    let mut changed = Vec::new();
    for record in delta {
        match record {
            Record::Object { id, object } => {
                let chunks = tree.objects.remove(&id).map(|node| node.chunks).unwrap_or_default();
                changed.push(id);
                tree.objects.insert(id, Node { object, chunks });
            }
            Record::Chunks { id, first, hashes } => put_chunks(tree, id, first, &hashes)?,
            Record::Zeroes { id, first, count } => {
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                put_chunks(tree, id, first, &vec![ChunkHash::ZERO; count])?;
            }
            Record::Name { directory, name, id } => {
                tree.names.insert((directory, name), id);
            }
            Record::Gone { directory, name } => {
                tree.names.remove(&(directory, name));
            }
        }
    }
    for id in changed {
        let Some(node) = tree.objects.get_mut(&id) else { continue };
        let Body::Regular { size, content } = node.object.body else { continue };
        node.chunks.truncate(usize::try_from(chunk_count(size)).unwrap_or(usize::MAX));
        if content_of(size, &node.chunks)? != Some(content) {
            return Err(ManifestError::Content { id });
        }
    }
    tree.sweep();
    Ok(())
}

fn put_chunks(
    tree: &mut Tree,
    id: ObjectId,
    first: u64,
    hashes: &[ChunkHash],
) -> Result<(), ManifestError> {
    let node = tree.objects.get_mut(&id).ok_or(ManifestError::ChunksOfOther { id })?;
    let first = usize::try_from(first).unwrap_or(usize::MAX);
    if first > node.chunks.len() {
        return Err(ManifestError::ChunkMissing { id, chunk: node.chunks.len() as u64 });
    }
    let end = (first + hashes.len()).max(node.chunks.len());
    node.chunks.resize(end, ChunkHash::ZERO);
    for (chunk, hash) in node.chunks.iter_mut().skip(first).zip(hashes) {
        *chunk = *hash;
    }
    Ok(())
}

impl super::diff::Segments for Tree {
    fn segment(&self, id: ObjectId, segment: u32) -> Vec<ChunkHash> {
        let len = usize::try_from(SEGMENT_CHUNKS).unwrap_or(usize::MAX);
        let at = usize::try_from(segment).unwrap_or(usize::MAX);
        let chunks = self.objects.get(&id).and_then(|node| node.chunks.chunks(len).nth(at));
        chunks.map(<[ChunkHash]>::to_vec).unwrap_or_default()
    }
}

impl super::check::View for Tree {
    fn object(&self, id: ObjectId) -> Option<Object> {
        self.objects.get(&id).map(|node| node.object.clone())
    }

    fn links(&self, id: ObjectId) -> u64 {
        self.names.values().filter(|one| **one == id).count() as u64
    }

    fn name(&self, directory: ObjectId, name: &Name) -> Option<ObjectId> {
        self.names.get(&(directory, name.clone())).copied()
    }

    fn place(&self, directory: ObjectId) -> Option<(ObjectId, Name)> {
        let found = self.names.iter().find(|(_, id)| **id == directory);
        found.map(|((parent, name), _)| (*parent, name.clone()))
    }

    fn count(&self, directory: ObjectId) -> u64 {
        self.names_in(directory).count() as u64
    }

    fn next_name(&self, directory: ObjectId, after: Option<&Name>) -> Option<(Name, ObjectId)> {
        let mut names = self.names_in(directory);
        let found = names.find(|(name, _)| after.is_none_or(|after| *name > after));
        found.map(|(name, id)| (name.clone(), id))
    }

    fn entries(&self) -> u64 {
        self.names.len() as u64
    }
}

#[cfg(test)]
pub(super) mod tests;
