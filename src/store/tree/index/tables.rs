//! The tables of the index, and what is read from them and written to them.

use std::collections::{BTreeMap, BTreeSet};

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table, TableDefinition,
    WriteTransaction,
};

use super::hashes::{decode_segment, encode_segment, hash_key};
use super::{IndexError, lost};
use crate::manifest::apply::{JournalHash, JournalNumber};
use crate::manifest::{
    ChunkHash, Identity, Kind, ManifestError, Name, NameError, PATH_DEPTH_MAX, Row, SEGMENT_CHUNKS,
};
use crate::units::{ObjectId, TreeNumber, TreePosition, TreeRoot};

type NameKey = (u64, &'static [u8]);
type PlaceKey = (u64, u64, &'static [u8]);
/// First half of a chunk hash, object, chunk.
pub(super) type HashKey = (u128, u64, u32);

/// (directory, name) -> object, and the generation that the name changed last in.
const NAMES: TableDefinition<'_, NameKey, (u64, u64)> = TableDefinition::new("names");
/// (directory, name) -> the generation that the name went in.
const GONE: TableDefinition<'_, NameKey, u64> = TableDefinition::new("gone");
/// (object, directory, name): where an object stands.
const PLACES: TableDefinition<'_, PlaceKey, ()> = TableDefinition::new("places");
/// object -> [`Row`].
const OBJECTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("objects");
/// (object, segment) -> the generation that it changed last in, and its chunk hashes.
const SEGMENTS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("segments");
/// (inode, birth) -> object.
const INODES: TableDefinition<'_, (u64, i64, u32), u64> = TableDefinition::new("inodes");
/// (directory, first name) -> hash of the bucket.
const BUCKETS: TableDefinition<'_, NameKey, [u8; 32]> = TableDefinition::new("buckets");
/// (generation, object): objects by the generation that they changed last in.
const CHANGED: TableDefinition<'_, (u64, u64), ()> = TableDefinition::new("changed");
/// (generation, directory, name): names by the generation that they changed last or went in.
const CHANGED_NAMES: TableDefinition<'_, PlaceKey, ()> = TableDefinition::new("changed names");
/// directory -> how many names are in it; no row if there are none.
const COUNTS: TableDefinition<'_, u64, u64> = TableDefinition::new("counts");
/// (first half of a chunk hash, object, chunk): where bytes with that hash stood at the last look.
const HASHES: TableDefinition<'_, HashKey, ()> = TableDefinition::new("hashes");
/// Objects with several names.
const LINKED: TableDefinition<'_, u64, ()> = TableDefinition::new("linked");
/// Generation -> its root: those from which all changes are known.
const ROOTS: TableDefinition<'_, u64, [u8; 32]> = TableDefinition::new("roots");
/// Single numbers, by name.
const FACTS: TableDefinition<'_, &str, [u8; 40]> = TableDefinition::new("facts");

/// The newest generation: its number and its root.
const POSITION: &str = "position";
/// The number that the next new object gets.
const NEXT_OBJECT: &str = "next object";
/// The journal for which the index was made anew: its number and its hash.
const MADE_FOR: &str = "made for";

/// Names of one directory whose buckets are computed again one by one; of more, all are.
const STALE_MAX: usize = 4096;

/// Which buckets of a directory are to be computed again.
pub(super) enum Stale {
    /// Those of these names.
    Names(BTreeSet<Name>),
    /// All.
    All,
}

impl Default for Stale {
    fn default() -> Self {
        Self::Names(BTreeSet::new())
    }
}

impl Stale {
    fn add(&mut self, name: &Name) {
        if let Self::Names(names) = self {
            names.insert(name.clone());
            if names.len() > STALE_MAX {
                *self = Self::All;
            }
        }
    }
}

/// Everything that can be read, in a transaction that changes the index and in one that does not.
pub trait Rows {
    /// (directory, name) -> object, generation.
    fn names(&self) -> &impl ReadableTable<NameKey, (u64, u64)>;
    /// (object, directory, name).
    fn places(&self) -> &impl ReadableTable<PlaceKey, ()>;
    /// object -> row.
    fn objects(&self) -> &impl ReadableTable<u64, &'static [u8]>;
    /// directory -> names in it.
    fn counts(&self) -> &impl ReadableTable<u64, u64>;
    /// (half of a hash, object, chunk).
    fn hashes(&self) -> &impl ReadableTable<HashKey, ()>;
    /// (object, segment) -> generation, chunk hashes.
    fn segments(&self) -> &impl ReadableTable<(u64, u32), &'static [u8]>;
    /// (generation, object).
    fn changed(&self) -> &impl ReadableTable<(u64, u64), ()>;
    /// (generation, directory, name).
    fn changed_names(&self) -> &impl ReadableTable<PlaceKey, ()>;
    /// name -> number.
    fn facts(&self) -> &impl ReadableTable<&'static str, [u8; 40]>;

    /// An object; `None` if there is none of that number.
    ///
    /// # Errors
    /// [`IndexError`] if the database fails or the row is none.
    fn object(&self, id: ObjectId) -> Result<Option<Row>, IndexError> {
        let Some(bytes) = self.objects().get(id.0).map_err(lost)? else { return Ok(None) };
        let row = Row::decode(bytes.value());
        row.map(Some).map_err(|why| IndexError::Row { table: "objects", why })
    }

    /// What a name points to.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    fn name(&self, directory: ObjectId, name: &Name) -> Result<Option<ObjectId>, IndexError> {
        let found = self.names().get((directory.0, name.bytes())).map_err(lost)?;
        Ok(found.map(|value| ObjectId(value.value().0)))
    }

    /// The entries of a directory in order of their names, at most `limit`, the first of which is the
    /// first whose name is not below `from`.
    ///
    /// # Errors
    /// [`IndexError`] if the database fails or a row is none.
    fn entries(
        &self,
        directory: ObjectId,
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Name, ObjectId)>, IndexError> {
        let end = (directory.0 + 1, &[][..]);
        let mut entries = Vec::new();
        for row in self.names().range((directory.0, from)..end).map_err(lost)?.take(limit) {
            let (key, value) = row.map_err(lost)?;
            entries.push((name_of("names", key.value().1)?, ObjectId(value.value().0)));
        }
        Ok(entries)
    }

    /// All places where an object stands, at most `limit`.
    ///
    /// # Errors
    /// [`IndexError`] if the database fails or a row is none.
    fn places_of(&self, id: ObjectId, limit: usize) -> Result<Vec<(ObjectId, Name)>, IndexError> {
        let range = (id.0, 0, &[][..])..(id.0 + 1, 0, &[][..]);
        let mut places = Vec::new();
        for row in self.places().range(range).map_err(lost)?.take(limit) {
            let key = row.map_err(lost)?.0;
            let (_, directory, name) = key.value();
            places.push((ObjectId(directory), name_of("places", name)?));
        }
        Ok(places)
    }

    /// How many names an object has.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    fn links(&self, id: ObjectId) -> Result<u64, IndexError> {
        let mut count = 0;
        for row in self.places().range((id.0, 0, &[][..])..(id.0 + 1, 0, &[][..])).map_err(lost)? {
            row.map_err(lost)?;
            count += 1;
        }
        Ok(count)
    }

    /// How many names are in a directory.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    fn count(&self, directory: ObjectId) -> Result<u64, IndexError> {
        Ok(self.counts().get(directory.0).map_err(lost)?.map_or(0, |count| count.value()))
    }

    /// How many names the tree has.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    fn name_count(&self) -> Result<u64, IndexError> {
        // Stored with the table: nothing is counted.
        self.names().len().map_err(lost)
    }

    /// Chunks, at most `limit`, whose hash may be this one: half of it is. What stands there is read and
    /// hashed before it is used.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    fn chunks_like(
        &self,
        hash: &ChunkHash,
        limit: usize,
    ) -> Result<Vec<(ObjectId, u64)>, IndexError> {
        let range = hash_key(hash, 0, 0)..=hash_key(hash, u64::MAX, u32::MAX);
        let mut chunks = Vec::new();
        for row in self.hashes().range(range).map_err(lost)?.take(limit) {
            let (_, id, chunk) = row.map_err(lost)?.0.value();
            chunks.push((ObjectId(id), u64::from(chunk)));
        }
        Ok(chunks)
    }

    /// The chunk hashes of a segment and the generation that it changed last in; empty behind the end of
    /// the file.
    ///
    /// # Errors
    /// [`IndexError`] if the database fails or the row is none.
    fn segment(
        &self,
        id: ObjectId,
        segment: u32,
    ) -> Result<(TreeNumber, Vec<ChunkHash>), IndexError> {
        match self.segments().get((id.0, segment)).map_err(lost)? {
            None => Ok((TreeNumber(0), Vec::new())),
            Some(bytes) => decode_segment(bytes.value()),
        }
    }

    /// The names that lead to a directory, from the top down.
    ///
    /// # Errors
    /// [`IndexError`]; [`IndexError::Tree`] if they are too many.
    fn names_above(&self, directory: ObjectId) -> Result<Vec<Name>, IndexError> {
        let mut names = Vec::new();
        let mut at = directory;
        while at != ObjectId::ROOT {
            if names.len() == PATH_DEPTH_MAX {
                return Err(IndexError::Tree(ManifestError::from(NameError::TooDeep)));
            }
            let place = self.places_of(at, 1)?.pop();
            let (parent, name) =
                place.ok_or(IndexError::Missing { table: "places", object: at.0 })?;
            names.push(name);
            at = parent;
        }
        names.reverse();
        Ok(names)
    }

    /// The newest generation.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    fn position(&self) -> Result<TreePosition, IndexError> {
        let Some(bytes) = self.facts().get(POSITION).map_err(lost)? else {
            return Ok(TreePosition::default());
        };
        let bytes = bytes.value();
        let mut root = [0; 32];
        root.copy_from_slice(&bytes[8..]);
        Ok(TreePosition { number: TreeNumber(number_in(&bytes)), root: TreeRoot(root) })
    }

    /// The number that the next new object gets, if any was given out.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    fn next_object(&self) -> Result<Option<ObjectId>, IndexError> {
        let bytes = self.facts().get(NEXT_OBJECT).map_err(lost)?;
        Ok(bytes.map(|bytes| ObjectId(number_in(&bytes.value()))))
    }

    /// The journal for which the index was made anew, if it was.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    fn made_for(&self) -> Result<Option<(JournalNumber, JournalHash)>, IndexError> {
        let Some(bytes) = self.facts().get(MADE_FOR).map_err(lost)? else { return Ok(None) };
        let bytes = bytes.value();
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[8..]);
        Ok(Some((JournalNumber(number_in(&bytes)), JournalHash(hash))))
    }
}

/// The index in a transaction that changes it.
pub struct Tables<'t> {
    names: Table<'t, NameKey, (u64, u64)>,
    gone: Table<'t, NameKey, u64>,
    places: Table<'t, PlaceKey, ()>,
    counts: Table<'t, u64, u64>,
    hashes: Table<'t, HashKey, ()>,
    objects: Table<'t, u64, &'static [u8]>,
    segments: Table<'t, (u64, u32), &'static [u8]>,
    inodes: Table<'t, (u64, i64, u32), u64>,
    pub(super) buckets: Table<'t, NameKey, [u8; 32]>,
    pub(super) linked: Table<'t, u64, ()>,
    changed: Table<'t, (u64, u64), ()>,
    changed_names: Table<'t, PlaceKey, ()>,
    roots: Table<'t, u64, [u8; 32]>,
    facts: Table<'t, &'static str, [u8; 40]>,
    /// Names whose bucket is to be computed again, by their directories.
    pub(super) stale: BTreeMap<ObjectId, Stale>,
    /// Objects that won or lost a name.
    pub(super) relinked: BTreeSet<ObjectId>,
    /// Those that lost one.
    pub(super) displaced: BTreeSet<ObjectId>,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, IndexError> {
        Ok(Self {
            names: transaction.open_table(NAMES).map_err(lost)?,
            gone: transaction.open_table(GONE).map_err(lost)?,
            places: transaction.open_table(PLACES).map_err(lost)?,
            counts: transaction.open_table(COUNTS).map_err(lost)?,
            hashes: transaction.open_table(HASHES).map_err(lost)?,
            objects: transaction.open_table(OBJECTS).map_err(lost)?,
            segments: transaction.open_table(SEGMENTS).map_err(lost)?,
            inodes: transaction.open_table(INODES).map_err(lost)?,
            buckets: transaction.open_table(BUCKETS).map_err(lost)?,
            linked: transaction.open_table(LINKED).map_err(lost)?,
            changed: transaction.open_table(CHANGED).map_err(lost)?,
            changed_names: transaction.open_table(CHANGED_NAMES).map_err(lost)?,
            roots: transaction.open_table(ROOTS).map_err(lost)?,
            facts: transaction.open_table(FACTS).map_err(lost)?,
            stale: BTreeMap::new(),
            relinked: BTreeSet::new(),
            displaced: BTreeSet::new(),
        })
    }

    /// The object with this identity on this node.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn by_identity(&self, identity: Identity) -> Result<Option<ObjectId>, IndexError> {
        let found = self.inodes.get(inode_key(identity)).map_err(lost)?;
        Ok(found.map(|id| ObjectId(id.value())))
    }

    /// A number that no object had.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn new_object(&mut self) -> Result<ObjectId, IndexError> {
        let next =
            self.facts.get(NEXT_OBJECT).map_err(lost)?.map(|bytes| number_in(&bytes.value()));
        let id = next.unwrap_or(ObjectId::ROOT.0 + 1);
        self.facts.insert(NEXT_OBJECT, fact(id + 1, &[0; 32])).map_err(lost)?;
        Ok(ObjectId(id))
    }

    /// Numbers up to `last` were given out, by this node or by its peer.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn note_objects(&mut self, last: ObjectId) -> Result<(), IndexError> {
        let next =
            self.facts.get(NEXT_OBJECT).map_err(lost)?.map(|bytes| number_in(&bytes.value()));
        if next.is_none_or(|next| next <= last.0) {
            self.facts.insert(NEXT_OBJECT, fact(last.0 + 1, &[0; 32])).map_err(lost)?;
        }
        Ok(())
    }

    /// Writes the row of an object. Its places' buckets are computed again if what is hashed changed.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn put_object(&mut self, id: ObjectId, row: &Row) -> Result<(), IndexError> {
        let old = self.object(id)?;
        if let Some(old) = &old {
            self.changed.remove((old.changed_in.0, id.0)).map_err(lost)?;
            if old.stamp.identity != row.stamp.identity {
                self.forget_identity(id, old.stamp.identity)?;
            }
        }
        self.changed.insert((row.changed_in.0, id.0), ()).map_err(lost)?;
        self.inodes.insert(inode_key(row.stamp.identity), id.0).map_err(lost)?;
        self.objects.insert(id.0, &*row.encode()).map_err(lost)?;
        if old.is_none() && row.entry.object().kind() == Kind::Directory {
            // One without entries has a hash, too; and all that it will have are new.
            self.stale.insert(id, Stale::All);
        }
        if old.is_none_or(|old| old.entry != row.entry) {
            self.mark_places(id)?;
        }
        Ok(())
    }

    /// An object that no name leads to is forgotten.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn drop_object(&mut self, id: ObjectId) -> Result<(), IndexError> {
        let Some(old) = self.object(id)? else { return Ok(()) };
        self.changed.remove((old.changed_in.0, id.0)).map_err(lost)?;
        self.forget_identity(id, old.stamp.identity)?;
        self.objects.remove(id.0).map_err(lost)?;
        self.cut_segments(id, 0)?;
        self.linked.remove(id.0).map_err(lost)?;
        self.stale.remove(&id);
        self.buckets.retain_in((id.0, &[][..])..(id.0 + 1, &[][..]), |_, _| false).map_err(lost)
    }

    /// A name points to an object from generation `number` on.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn put_name(
        &mut self,
        number: TreeNumber,
        (directory, name): (ObjectId, &Name),
        id: ObjectId,
    ) -> Result<(), IndexError> {
        self.forget_name(directory, name)?;
        let key = (directory.0, name.bytes());
        self.names.insert(key, (id.0, number.0)).map_err(lost)?;
        self.places.insert((id.0, directory.0, name.bytes()), ()).map_err(lost)?;
        let count = self.count(directory)?;
        self.counts.insert(directory.0, count + 1).map_err(lost)?;
        self.changed_names.insert((number.0, directory.0, name.bytes()), ()).map_err(lost)?;
        self.relinked.insert(id);
        self.mark(directory, name);
        Ok(())
    }

    /// A name goes in generation `number`. Whoever removes the last name of an object drops that, too.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn remove_name(
        &mut self,
        number: TreeNumber,
        directory: ObjectId,
        name: &Name,
    ) -> Result<(), IndexError> {
        self.forget_name(directory, name)?;
        self.gone.insert((directory.0, name.bytes()), number.0).map_err(lost)?;
        self.changed_names.insert((number.0, directory.0, name.bytes()), ()).map_err(lost)?;
        self.mark(directory, name);
        Ok(())
    }

    /// Writes the chunk hashes of one segment.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn put_segment(
        &mut self,
        number: TreeNumber,
        (id, segment): (ObjectId, u32),
        hashes: &[ChunkHash],
    ) -> Result<(), IndexError> {
        let old = self.segment(id, segment)?.1;
        self.note_hashes((id, segment), &old, hashes)?;
        let bytes = encode_segment(number, hashes);
        self.segments.insert((id.0, segment), &*bytes).map_err(lost)?;
        Ok(())
    }

    /// A file has no segments from `first` on.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn cut_segments(&mut self, id: ObjectId, first: u32) -> Result<(), IndexError> {
        loop {
            let range = (id.0, first)..(id.0 + 1, 0);
            let Some(row) = self.segments.range(range).map_err(lost)?.next() else { return Ok(()) };
            let (key, value) = row.map_err(lost)?;
            let (segment, hashes) = (key.value().1, decode_segment(value.value())?.1);
            drop((key, value));
            self.note_hashes((id, segment), &hashes, &[])?;
            self.segments.remove((id.0, segment)).map_err(lost)?;
        }
    }

    /// Where chunks can be found by their hashes follows what a segment holds. Zeroes are holes: nobody
    /// looks for them.
    fn note_hashes(
        &mut self,
        (id, segment): (ObjectId, u32),
        old: &[ChunkHash],
        new: &[ChunkHash],
    ) -> Result<(), IndexError> {
        let first = segment.saturating_mul(SEGMENT_CHUNKS);
        let is_looked_for = |hash: &&ChunkHash| **hash != ChunkHash::ZERO;
        for at in 0..old.len().max(new.len()) {
            let chunk = first.saturating_add(u32::try_from(at).unwrap_or(u32::MAX));
            let (old, new) = (old.get(at), new.get(at));
            if old == new {
                continue;
            }
            if let Some(hash) = old.filter(is_looked_for) {
                self.hashes.remove(hash_key(hash, id.0, chunk)).map_err(lost)?;
            }
            if let Some(hash) = new.filter(is_looked_for) {
                self.hashes.insert(hash_key(hash, id.0, chunk), ()).map_err(lost)?;
            }
        }
        Ok(())
    }

    /// Notes the newest generation.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn put_position(&mut self, position: TreePosition) -> Result<(), IndexError> {
        let bytes = fact(position.number.0, &position.root.0);
        self.facts.insert(POSITION, bytes).map_err(lost)?;
        self.roots.insert(position.number.0, position.root.0).map_err(lost)?;
        Ok(())
    }

    /// Notes the journal for which this index was made anew.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn put_made_for(
        &mut self,
        number: JournalNumber,
        hash: JournalHash,
    ) -> Result<(), IndexError> {
        self.facts.insert(MADE_FOR, fact(number.0, &hash.0)).map_err(lost)?;
        Ok(())
    }

    /// Forgets names that went before generation `number`: no peer that is further back is told by them.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn prune_gone(&mut self, number: TreeNumber) -> Result<(), IndexError> {
        let gone = &mut self.gone;
        let changed_names = &mut self.changed_names;
        let mut failed = None;
        gone.retain(|(directory, name), went| {
            let is_old = went < number.0;
            if is_old && let Err(error) = changed_names.remove((went, directory, name)) {
                failed = Some(error);
            }
            !is_old
        })
        .map_err(lost)?;
        self.roots.retain(|known, _| known.saturating_add(1) >= number.0).map_err(lost)?;
        failed.map_or(Ok(()), |error| Err(lost(error)))
    }

    /// The bucket of a name is computed again.
    pub(super) fn mark(&mut self, directory: ObjectId, name: &Name) {
        self.stale.entry(directory).or_default().add(name);
    }

    fn mark_places(&mut self, id: ObjectId) -> Result<(), IndexError> {
        for (directory, name) in self.places_of(id, usize::MAX)? {
            self.mark(directory, &name);
        }
        Ok(())
    }

    /// Removes a name from every table, and what was known of its going.
    fn forget_name(&mut self, directory: ObjectId, name: &Name) -> Result<(), IndexError> {
        let key = (directory.0, name.bytes());
        let old = self.names.remove(key).map_err(lost)?.map(|value| value.value());
        if let Some((id, number)) = old {
            self.places.remove((id, directory.0, name.bytes())).map_err(lost)?;
            match self.count(directory)? {
                0 | 1 => self.counts.remove(directory.0).map_err(lost)?,
                count => self.counts.insert(directory.0, count - 1).map_err(lost)?,
            };
            self.changed_names.remove((number, directory.0, name.bytes())).map_err(lost)?;
            self.relinked.insert(ObjectId(id));
            self.displaced.insert(ObjectId(id));
        }
        let went = self.gone.remove(key).map_err(lost)?.map(|value| value.value());
        if let Some(number) = went {
            self.changed_names.remove((number, directory.0, name.bytes())).map_err(lost)?;
        }
        Ok(())
    }

    fn forget_identity(&mut self, id: ObjectId, identity: Identity) -> Result<(), IndexError> {
        let key = inode_key(identity);
        let is_ours = self.inodes.get(key).map_err(lost)?.is_some_and(|it| it.value() == id.0);
        if is_ours {
            self.inodes.remove(key).map_err(lost)?;
        }
        Ok(())
    }
}

impl Rows for Tables<'_> {
    fn names(&self) -> &impl ReadableTable<NameKey, (u64, u64)> {
        &self.names
    }

    fn places(&self) -> &impl ReadableTable<PlaceKey, ()> {
        &self.places
    }

    fn counts(&self) -> &impl ReadableTable<u64, u64> {
        &self.counts
    }

    fn hashes(&self) -> &impl ReadableTable<HashKey, ()> {
        &self.hashes
    }

    fn objects(&self) -> &impl ReadableTable<u64, &'static [u8]> {
        &self.objects
    }

    fn segments(&self) -> &impl ReadableTable<(u64, u32), &'static [u8]> {
        &self.segments
    }

    fn changed(&self) -> &impl ReadableTable<(u64, u64), ()> {
        &self.changed
    }

    fn changed_names(&self) -> &impl ReadableTable<PlaceKey, ()> {
        &self.changed_names
    }

    fn facts(&self) -> &impl ReadableTable<&'static str, [u8; 40]> {
        &self.facts
    }
}

/// The index as it was at one moment.
pub struct View {
    names: ReadOnlyTable<NameKey, (u64, u64)>,
    places: ReadOnlyTable<PlaceKey, ()>,
    counts: ReadOnlyTable<u64, u64>,
    hashes: ReadOnlyTable<HashKey, ()>,
    objects: ReadOnlyTable<u64, &'static [u8]>,
    segments: ReadOnlyTable<(u64, u32), &'static [u8]>,
    changed: ReadOnlyTable<(u64, u64), ()>,
    changed_names: ReadOnlyTable<PlaceKey, ()>,
    roots: ReadOnlyTable<u64, [u8; 32]>,
    facts: ReadOnlyTable<&'static str, [u8; 40]>,
}

impl View {
    pub(super) fn open(transaction: &ReadTransaction) -> Result<Self, IndexError> {
        Ok(Self {
            names: transaction.open_table(NAMES).map_err(lost)?,
            places: transaction.open_table(PLACES).map_err(lost)?,
            counts: transaction.open_table(COUNTS).map_err(lost)?,
            hashes: transaction.open_table(HASHES).map_err(lost)?,
            objects: transaction.open_table(OBJECTS).map_err(lost)?,
            segments: transaction.open_table(SEGMENTS).map_err(lost)?,
            changed: transaction.open_table(CHANGED).map_err(lost)?,
            changed_names: transaction.open_table(CHANGED_NAMES).map_err(lost)?,
            roots: transaction.open_table(ROOTS).map_err(lost)?,
            facts: transaction.open_table(FACTS).map_err(lost)?,
        })
    }

    /// Gives all objects in their order to `take`.
    ///
    /// # Errors
    /// [`IndexError`], and what `take` returns.
    pub fn all_objects<E: From<IndexError>>(
        &self,
        mut take: impl FnMut(ObjectId, Row) -> Result<(), E>,
    ) -> Result<(), E> {
        for row in self.objects.iter().map_err(lost)? {
            let (id, row) = row.map_err(lost)?;
            let row = Row::decode(row.value());
            let row = row.map_err(|why| IndexError::Row { table: "objects", why })?;
            take(ObjectId(id.value()), row)?;
        }
        Ok(())
    }

    /// Gives all names in their order to `take`: directory, name, and the object that it leads to.
    ///
    /// # Errors
    /// [`IndexError`], and what `take` returns.
    pub fn all_names<E: From<IndexError>>(
        &self,
        mut take: impl FnMut(ObjectId, Name, ObjectId) -> Result<(), E>,
    ) -> Result<(), E> {
        for row in self.names.iter().map_err(lost)? {
            let (key, value) = row.map_err(lost)?;
            let (directory, name) = key.value();
            take(ObjectId(directory), name_of("names", name)?, ObjectId(value.value().0))?;
        }
        Ok(())
    }

    /// Whether the index was at this generation, and tells of all that changed since.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn reaches(&self, position: TreePosition) -> Result<bool, IndexError> {
        let root = self.roots.get(position.number.0).map_err(lost)?;
        Ok(root.is_some_and(|root| root.value() == position.root.0))
    }
}

impl Rows for View {
    fn names(&self) -> &impl ReadableTable<NameKey, (u64, u64)> {
        &self.names
    }

    fn places(&self) -> &impl ReadableTable<PlaceKey, ()> {
        &self.places
    }

    fn counts(&self) -> &impl ReadableTable<u64, u64> {
        &self.counts
    }

    fn hashes(&self) -> &impl ReadableTable<HashKey, ()> {
        &self.hashes
    }

    fn objects(&self) -> &impl ReadableTable<u64, &'static [u8]> {
        &self.objects
    }

    fn segments(&self) -> &impl ReadableTable<(u64, u32), &'static [u8]> {
        &self.segments
    }

    fn changed(&self) -> &impl ReadableTable<(u64, u64), ()> {
        &self.changed
    }

    fn changed_names(&self) -> &impl ReadableTable<PlaceKey, ()> {
        &self.changed_names
    }

    fn facts(&self) -> &impl ReadableTable<&'static str, [u8; 40]> {
        &self.facts
    }
}

pub(super) fn name_of(table: &'static str, bytes: &[u8]) -> Result<Name, IndexError> {
    Name::new(bytes).map_err(|why| IndexError::Row { table, why: ManifestError::from(why) })
}

fn inode_key(identity: Identity) -> (u64, i64, u32) {
    let birth = identity.birth.unwrap_or_default();
    (identity.inode, birth.seconds, birth.nanos)
}

fn number_in(bytes: &[u8; 40]) -> u64 {
    let (number, _) = bytes.split_first_chunk::<8>().expect("a fact has 40 bytes");
    u64::from_le_bytes(*number)
}

fn fact(number: u64, rest: &[u8; 32]) -> [u8; 40] {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8..].copy_from_slice(rest);
    bytes
}
