//! A plain scan for tests: reads a whole tree and brings an index to what it is.

use std::collections::BTreeMap;
use std::io::Read;

use super::super::sources::hash_of;
use crate::manifest::{
    Beside, Body, ChunkHash, ContentBuilder, DirectoryHash, Entry, Identity, Kind, LeftOut,
    Metadata, Name, Object, Row, SEGMENT_CHUNKS, Scope, Stamp,
};
use crate::store::tree::index::{Index, Rows, Tables};
use crate::store::tree::{Folder, Found, read_xattrs};
use crate::units::{CHUNK_LEN, ObjectId, TreeNumber, TreePosition};

/// Everything that was found.
#[derive(Default)]
pub(super) struct Scanned {
    pub(super) names: BTreeMap<(ObjectId, Name), ObjectId>,
    pub(super) objects: BTreeMap<ObjectId, (Object, Stamp, Vec<ChunkHash>)>,
    known: BTreeMap<Identity, ObjectId>,
}

pub(super) fn chunks_of(bytes: &[u8]) -> Vec<ChunkHash> {
    bytes.chunks(usize::try_from(CHUNK_LEN).unwrap()).map(hash_of).collect()
}

pub(super) fn body_of(bytes: &[u8]) -> Body {
    let size = bytes.len() as u64;
    let mut builder = ContentBuilder::new(size).unwrap();
    for hash in chunks_of(bytes) {
        builder.push(hash);
    }
    Body::Regular { size, content: builder.finish().unwrap() }
}

/// What an object is, read in full; with its bytes if it is a regular file.
pub(super) fn read(folder: &Folder, name: &Name, found: &Found) -> (Object, Vec<u8>) {
    let held = folder.object(name).unwrap();
    let mut bytes = Vec::new();
    let (major, minor) = found.stamp.rdev;
    let body = match found.kind.unwrap() {
        Kind::Regular => {
            folder.file(name).unwrap().read_to_end(&mut bytes).unwrap();
            body_of(&bytes)
        }
        Kind::Directory => Body::Directory,
        Kind::Symlink => Body::Symlink { target: folder.target(name).unwrap() },
        Kind::Fifo => Body::Fifo,
        Kind::Socket => Body::Socket,
        Kind::CharDevice => Body::CharDevice { major, minor },
        Kind::BlockDevice => Body::BlockDevice { major, minor },
    };
    let xattrs = read_xattrs(&held, &LeftOut::default()).unwrap();
    (Object { metadata: metadata(found, xattrs), body }, bytes)
}

fn metadata(found: &Found, xattrs: crate::manifest::Xattrs) -> Metadata {
    let stamp = &found.stamp;
    let is_link = found.kind == Some(Kind::Symlink);
    Metadata {
        mode: if is_link { 0 } else { u16::try_from(stamp.mode & 0o7777).unwrap() },
        uid: stamp.uid,
        gid: stamp.gid,
        mtime: stamp.mtime,
        xattrs,
    }
}

fn walk(tables: &mut Tables<'_>, tree: &Folder) -> Scanned {
    let mut scanned = Scanned::default();
    let found = tree.look_at_self().unwrap();
    let xattrs = read_xattrs(tree, &LeftOut::default()).unwrap();
    let root = Object { metadata: metadata(&found, xattrs), body: Body::Directory };
    scanned.objects.insert(ObjectId::ROOT, (root, found.stamp, Vec::new()));
    let mut open = vec![(ObjectId::ROOT, again(tree))];
    while let Some((directory, folder)) = open.pop() {
        for name in folder.list().unwrap().names {
            let found = folder.look(&name).unwrap().unwrap();
            let id = identify(tables, &mut scanned, &found);
            scanned.names.insert((directory, name.clone()), id);
            if found.kind == Some(Kind::Directory) {
                open.push((id, folder.child(&name).unwrap()));
            }
            scanned.objects.entry(id).or_insert_with(|| {
                let (object, bytes) = read(&folder, &name, &found);
                (object, found.stamp, chunks_of(&bytes))
            });
        }
    }
    scanned
}

fn identify(tables: &mut Tables<'_>, scanned: &mut Scanned, found: &Found) -> ObjectId {
    let identity = found.stamp.identity;
    if let Some(id) = scanned.known.get(&identity) {
        return *id;
    }
    let old = tables.by_identity(identity).unwrap();
    let is_kind = |id: &ObjectId| {
        let row = tables.object(*id).unwrap();
        row.is_some_and(|row| Some(row.entry.object().kind()) == found.kind)
    };
    let id = old.filter(is_kind).unwrap_or_else(|| tables.new_object().unwrap());
    scanned.known.insert(identity, id);
    id
}

/// All names that an index has.
pub(super) fn names_of(rows: &impl Rows) -> BTreeMap<(ObjectId, Name), ObjectId> {
    let mut names = BTreeMap::new();
    let mut open = vec![ObjectId::ROOT];
    while let Some(directory) = open.pop() {
        for (name, id) in rows.entries(directory, &[], usize::MAX).unwrap() {
            names.insert((directory, name), id);
            let row = rows.object(id).unwrap().unwrap();
            if row.entry.object().kind() == Kind::Directory {
                open.push(id);
            }
        }
    }
    names
}

/// Brings `index` to what `tree` is, as generation `number`.
pub(super) fn scan(
    index: &Index,
    tree: &Folder,
    number: TreeNumber,
    scope: &Scope,
) -> TreePosition {
    let scanned = index.change(|tables| {
        let scanned = walk(tables, tree);
        let old = names_of(tables);
        for (key, id) in scanned.names.iter().filter(|(key, id)| old.get(*key) != Some(*id)) {
            tables.put_name(number, (key.0, &key.1), *id)?;
        }
        for key in old.keys().filter(|key| !scanned.names.contains_key(*key)) {
            tables.remove_name(number, key.0, &key.1)?;
        }
        for (id, (object, stamp, chunks)) in &scanned.objects {
            put(tables, number, (*id, object), (*stamp, chunks));
        }
        for id in old.values().filter(|id| !scanned.objects.contains_key(*id)) {
            tables.drop_object(*id)?;
        }
        let position = TreePosition { number, root: tables.fold(scope)? };
        tables.put_position(position)?;
        Ok(position)
    });
    scanned.unwrap()
}

fn put(
    tables: &mut Tables<'_>,
    number: TreeNumber,
    (id, object): (ObjectId, &Object),
    (stamp, chunks): (Stamp, &[ChunkHash]),
) {
    let old = tables.object(id).unwrap();
    if old.as_ref().is_some_and(|old| old.entry.object() == object) {
        return;
    }
    let beside = match (old, object.kind()) {
        (Some(old), _) => old.entry.beside().clone(),
        (None, Kind::Directory) => Beside::Inside(DirectoryHash([0; 32])),
        (None, _) => Beside::Nothing,
    };
    let entry = Entry::new(object.clone(), beside).unwrap();
    tables.put_object(id, &Row { changed_in: number, is_unsure: false, stamp, entry }).unwrap();
    let mut count = 0;
    for hashes in chunks.chunks(usize::try_from(SEGMENT_CHUNKS).unwrap()) {
        if tables.segment(id, count).unwrap().1 != hashes {
            tables.put_segment(number, (id, count), hashes).unwrap();
        }
        count += 1;
    }
    tables.cut_segments(id, count).unwrap();
}

/// The same directory, held once more.
fn again(folder: &Folder) -> Folder {
    use std::os::fd::{AsFd, AsRawFd};
    let held = folder.as_fd().as_raw_fd();
    let path = std::fs::read_link(format!("/proc/self/fd/{held}")).unwrap();
    Folder::open(&path).unwrap()
}
