//! The same tree with other object numbers.

use redb::ReadableTable;

use super::hashes::decode_segment;
use super::tables::{Rows, View, name_of};
use super::{Index, IndexError, lost};
use crate::manifest::{Numbers, Row, Scope};
use crate::units::{ObjectId, TreeNumber, TreePosition};

impl Index {
    /// Fills this index, which is empty, with what `from` has, under the numbers of `numbers`. All of it counts
    /// as changed in generation `number`: when it changed before is not known by the other numbers.
    /// `position` is what the tree is called.
    ///
    /// Takes time and space on disk as the index has entries; memory for a number of each.
    ///
    /// # Errors
    /// [`IndexError::Numbers`]; [`IndexError::Root`] and others if `from` is damaged.
    pub(in crate::store::tree) fn fill(
        &self,
        from: &View,
        numbers: &mut Numbers,
        (number, position): (TreeNumber, TreePosition),
        scope: &Scope,
    ) -> Result<(), IndexError> {
        self.change(|tables| {
            let mut of = |id| numbers.of(ObjectId(id)).ok_or(IndexError::Numbers);
            let mut last = ObjectId::ROOT;
            for row in from.objects().iter().map_err(lost)? {
                let (key, value) = row.map_err(lost)?;
                let row = Row::decode(value.value());
                let row = row.map_err(|why| IndexError::Row { table: "objects", why })?;
                let id = of(key.value())?;
                tables.put_object(id, &Row { changed_in: number, ..row })?;
                last = last.max(id);
            }
            for row in from.segments().iter().map_err(lost)? {
                let (key, value) = row.map_err(lost)?;
                let (id, segment) = key.value();
                let hashes = decode_segment(value.value())?.1;
                tables.put_segment(number, (of(id)?, segment), &hashes)?;
            }
            for row in from.names().iter().map_err(lost)? {
                let (key, value) = row.map_err(lost)?;
                let (directory, name) = key.value();
                let (directory, name) = (of(directory)?, name_of("names", name)?);
                tables.put_name(number, (directory, &name), of(value.value().0)?)?;
            }
            tables.note_objects(last)?;
            // An index of nothing has no root. Numbers are in no hash, so any other has the one that it had.
            let is_empty = tables.object(ObjectId::ROOT)?.is_none();
            if !is_empty && tables.fold(scope)? != from.position()?.root {
                return Err(IndexError::Root);
            }
            tables.put_position(position)
        })
    }
}
