//! The index as it is after a generation: its rows are what the delta says, with this node's stamps.
//!
//! The same function makes the rows that are tried out before anything is staged for good, so what is
//! compared with the announced root is what the index will be.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Folder;
use super::super::index::{Index, IndexError, Rows, Tables};
use super::content::{Piece, Pieces, number};
use super::doors::Doors;
use super::side::places_in;
use super::{ReceiveError, Received, failed};
use crate::manifest::apply::Side;
use crate::manifest::{
    Beside, ChunkHash, DirectoryHash, Entry, FileTime, Identity, Kind, Object, Row, SEGMENT_CHUNKS,
    Scope, Stamp, TreeClock, is_too_young, segment_count,
};
use crate::units::{ObjectId, TreeRoot};

/// What the file system says of objects, and whether that is too young to prove anything.
pub type Looks = BTreeMap<ObjectId, (Stamp, bool)>;

/// Looks at everything that a generation touched, after it was applied: names in `undo/` and renames have
/// changed stamps that no plan could know. `target` is what the tree is by then.
///
/// # Errors
/// [`ReceiveError::Kernel`]: also if something is not where the generation has it.
pub fn look_again(tree: &Folder, target: &Side, clock: &TreeClock) -> Result<Looks, ReceiveError> {
    let places = places_in(target);
    let mut doors = Doors::new(tree);
    let mut looks = Looks::new();
    let mut note = |id, stamp: Stamp| {
        looks.insert(id, (stamp, is_too_young(&stamp, clock)));
    };
    let root = tree.look_at_self().map_err(failed("look at the root of the tree"))?;
    note(ObjectId::ROOT, root.stamp);
    let gone = || failed("find an entry of the tree that was just made")(rustix::io::Errno::NOENT);
    let mut seen = BTreeSet::new();
    for ((directory, name), id) in &target.names {
        if seen.insert(*id) {
            let folder = doors.folder(*directory, &places)?.ok_or_else(gone)?;
            let found = folder.look(name).map_err(failed("look at an entry of the tree"))?;
            note(*id, found.ok_or_else(gone)?.stamp);
        }
    }
    Ok(looks)
}

/// Brings the index from the base of `received` to its target, which is compared with what was announced.
///
/// # Errors
/// [`ReceiveError::Root`], [`ReceiveError::Position`], [`ReceiveError::Index`]; nothing of it stays.
pub fn write_index(
    index: &Index,
    scope: &Scope,
    received: &Received,
    looks: &Looks,
) -> Result<(), ReceiveError> {
    let mut refused = None;
    let written = index.change(|tables| {
        match write_all(tables, scope, received, looks) {
            Ok(()) => return Ok(()),
            Err(ReceiveError::Index(error)) => return Err(error),
            Err(error) => refused = Some(error),
        }
        // Any error ends the transaction; the reason is the one above.
        Err(IndexError::Missing { table: "objects", object: ObjectId::ROOT.0 })
    });
    refused.map_or(written.map_err(ReceiveError::Index), Err)
}

fn write_all(
    tables: &mut Tables<'_>,
    scope: &Scope,
    received: &Received,
    looks: &Looks,
) -> Result<(), ReceiveError> {
    let found = root_of(tables, scope, received, looks)?;
    let target = received.target();
    if found != target.root {
        return Err(ReceiveError::Root { announced: target.root, found });
    }
    tables.put_position(target)?;
    Ok(())
}

/// What the root will be, of which nothing stays in the index; an error if that is not the announced one.
pub(super) fn try_root(
    index: &Index,
    scope: &Scope,
    received: &Received,
) -> Result<(), ReceiveError> {
    let mut refused = None;
    index.try_out(|tables| {
        refused = write_all(tables, scope, received, &Looks::new()).err();
        Ok(())
    })?;
    refused.map_or(Ok(()), Err)
}

/// Makes all rows, and folds them.
fn root_of(
    tables: &mut Tables<'_>,
    scope: &Scope,
    received: &Received,
    looks: &Looks,
) -> Result<TreeRoot, ReceiveError> {
    let (from, to) = (received.base().position(), received.target());
    let mine = tables.position()?;
    if mine != from {
        return Err(ReceiveError::Position { from, to, mine });
    }
    let number = to.number;
    let mut last = ObjectId::ROOT;
    let mut displaced = BTreeSet::new();
    for ((directory, name), id) in received.names() {
        displaced.extend(tables.name(*directory, name)?);
        match id {
            Some(id) => tables.put_name(number, (*directory, name), *id)?,
            None => tables.remove_name(number, *directory, name)?,
        }
    }
    for (id, described) in received.objects() {
        put_object(tables, received, (*id, &described.object), looks)?;
        last = last.max(*id);
    }
    for (id, look) in looks.iter().filter(|(id, _)| !received.objects().contains_key(*id)) {
        if let Some(old) = tables.object(*id)? {
            let (stamp, is_unsure) = stamped(Some(&old), Some(look));
            tables.put_object(*id, &Row { is_unsure, stamp, ..old })?;
        }
    }
    for id in displaced {
        if id != ObjectId::ROOT && tables.places_of(id, 1)?.is_empty() {
            tables.drop_object(id)?;
        }
    }
    tables.note_objects(last)?;
    Ok(tables.fold(scope)?)
}

fn put_object(
    tables: &mut Tables<'_>,
    received: &Received,
    (id, object): (ObjectId, &Object),
    looks: &Looks,
) -> Result<(), ReceiveError> {
    let old = tables.object(id)?;
    let beside = match (&old, object.kind()) {
        (Some(old), _) => old.entry.beside().clone(),
        (None, Kind::Directory) => Beside::Inside(DirectoryHash([0; 32])),
        (
            None,
            Kind::Regular
            | Kind::Symlink
            | Kind::Fifo
            | Kind::Socket
            | Kind::CharDevice
            | Kind::BlockDevice,
        ) => Beside::Nothing,
    };
    let (stamp, is_unsure) = stamped(old.as_ref(), looks.get(&id));
    let entry = Entry::new(object.clone(), beside)?;
    let changed_in = received.target().number;
    tables.put_object(id, &Row { changed_in, is_unsure, stamp, entry })?;
    if !received.has_new_content(id)? {
        return Ok(());
    }
    let view = received.base().view();
    let mut pieces = Pieces::new(received, id)?;
    while let Some(piece) = pieces.next(view, received.spool())? {
        match piece {
            Piece::Segment { segment, hashes } => {
                put_segment(tables, (changed_in, id, segment), &hashes)?;
            }
            Piece::Zeroes { segment, count, .. } => {
                let mut left = count;
                let whole = u64::from(SEGMENT_CHUNKS);
                for segment in segment..segment + count.div_ceil(whole) {
                    let some = usize::try_from(left.min(whole)).expect("a segment has few chunks");
                    let zeroes = vec![ChunkHash::ZERO; some];
                    put_segment(tables, (changed_in, id, segment), &zeroes)?;
                    left -= left.min(whole);
                }
            }
        }
    }
    tables.cut_segments(id, number(segment_count(received.size(id))))?;
    Ok(())
}

/// Segments that are as they were keep the generation that they changed in: nobody is sent them again.
fn put_segment(
    tables: &mut Tables<'_>,
    (changed_in, id, segment): (crate::units::TreeNumber, ObjectId, u64),
    hashes: &[ChunkHash],
) -> Result<(), ReceiveError> {
    let at = number(segment);
    if tables.segment(id, at)?.1 != hashes {
        tables.put_segment(changed_in, (id, at), hashes)?;
    }
    Ok(())
}

/// The stamp of a row, and whether its content is unsure. Who was unsure and is the same inode stays so:
/// no chunk of it was read.
fn stamped(old: Option<&Row>, look: Option<&(Stamp, bool)>) -> (Stamp, bool) {
    match (old, look) {
        (Some(old), Some((stamp, is_young))) => {
            let is_kept = old.stamp.identity == stamp.identity;
            (*stamp, *is_young || (is_kept && old.is_unsure))
        }
        (None, Some((stamp, is_young))) => (*stamp, *is_young),
        (Some(old), None) => (old.stamp, old.is_unsure),
        (None, None) => (NOWHERE, true),
    }
}

/// Of an object that is nowhere yet.
const NOWHERE: Stamp = Stamp {
    identity: Identity { inode: 0, birth: None },
    size: 0,
    mtime: FileTime { seconds: 0, nanos: 0 },
    ctime: FileTime { seconds: 0, nanos: 0 },
    mode: 0,
    uid: 0,
    gid: 0,
    nlink: 0,
    rdev: (0, 0),
};
