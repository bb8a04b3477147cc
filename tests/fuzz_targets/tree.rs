//! Records of trees, as a delta carries them and as they are hashed, and paths.
//!
//! The first byte says which: an entry, records one behind the other, or a path.

use std::collections::BTreeSet;

use hotpair::manifest::{
    Beside, Body, ChunkHash, ContentBuilder, DirectoryHash, Entry, FileTime, ManifestError,
    Metadata, Name, Object, RECORD_LEN_MAX, Record, Scope, Tree, TreePath, apply, check,
};
use hotpair::units::{ObjectId, ResourceId};

const ENTRY: u8 = 0;
const RECORDS: u8 = 1;
const PATH: u8 = 2;
/// Objects and names that a delta may have here.
const RECORDS_MAX: u64 = 1000;

/// Reads what `bytes` say to be.
pub(crate) fn run(bytes: &[u8]) {
    let Some((which, bytes)) = bytes.split_first() else { return };
    match *which {
        ENTRY => on_entry(bytes),
        RECORDS => on_records(bytes),
        PATH => on_path(bytes),
        _ => {}
    }
}

fn on_entry(bytes: &[u8]) {
    if let Ok(entry) = Entry::decode(bytes) {
        assert!(entry.encode() == bytes, "{entry:?} encodes to other bytes");
        assert!(bytes.len() <= RECORD_LEN_MAX);
    }
}

fn on_path(bytes: &[u8]) {
    if let Ok(path) = TreePath::new(bytes) {
        assert!(path.bytes() == bytes);
        let names: Vec<_> = path.names().map(|name| Name::new(name).unwrap()).collect();
        assert!(TreePath::of(&names) == Ok(path), "a path is its names");
    }
}

/// Reads records until one is refused, and changes a tree by them if they are a delta for it.
fn on_records(mut bytes: &[u8]) {
    let mut delta = Vec::new();
    while let Ok((record, rest)) = Record::decode(bytes) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert!(again == bytes[..bytes.len() - rest.len()], "{record:?} encodes to other bytes");
        delta.push(record);
        bytes = rest;
    }
    let mut tree = base();
    // A run of zeroes of the longest file costs a tree in memory more than a test should take.
    let is_long =
        |record: &Record| matches!(record, Record::Zeroes { count, .. } if *count > 1 << 12);
    if check(delta.clone(), &tree, RECORDS_MAX).is_err() || delta.iter().any(is_long) {
        return;
    }
    match apply(delta, &mut tree) {
        Err(error) => assert!(matches!(error, ManifestError::Content { .. }), "{error}"),
        Ok(()) => {
            tree.root(&scope()).unwrap();
        }
    }
}

fn scope() -> Scope {
    Scope { resource: ResourceId(1), exclude: BTreeSet::new(), leave_out: BTreeSet::new() }
}

fn name(text: &[u8]) -> Name {
    Name::new(text).unwrap()
}

fn of(body: Body) -> Object {
    let mtime = FileTime { seconds: 1_700_000_000, nanos: 5 };
    let mode = if matches!(body, Body::Symlink { .. }) { 0 } else { 0o755 };
    Object { metadata: Metadata { mode, uid: 1, gid: 2, mtime, xattrs: Vec::new() }, body }
}

fn file(size: u64, chunks: &[ChunkHash]) -> Body {
    let mut content = ContentBuilder::new(size).unwrap();
    for chunk in chunks {
        content.push(*chunk);
    }
    Body::Regular { size, content: content.finish().unwrap() }
}

/// A tree with nothing in it, made into one with a few things by [`first`].
fn base() -> Tree {
    let mut tree = Tree::empty(Metadata::default());
    apply(first(), &mut tree).unwrap();
    tree
}

fn first() -> Vec<Record> {
    let hash = ChunkHash([7; 32]);
    let directory = ObjectId::ROOT;
    vec![
        Record::Object { id: ObjectId(2), object: of(Body::Directory) },
        Record::Object { id: ObjectId(3), object: of(Body::Directory) },
        Record::Object { id: ObjectId(4), object: of(file(5, &[hash])) },
        Record::Chunks { id: ObjectId(4), first: 0, hashes: vec![hash] },
        Record::Name { directory, name: name(b"a"), id: ObjectId(2) },
        Record::Name { directory, name: name(b"f"), id: ObjectId(4) },
        Record::Name { directory: ObjectId(2), name: name(b"b"), id: ObjectId(3) },
        Record::Name { directory: ObjectId(3), name: name(b"f"), id: ObjectId(4) },
    ]
}

/// What the tree of [`first`] can become: more of everything, moves, swaps and deletes.
fn second() -> Vec<Record> {
    let hash = ChunkHash([8; 32]);
    let directory = ObjectId::ROOT;
    let size = 4 << 16;
    let chunks = [hash, ChunkHash::ZERO, ChunkHash::ZERO, hash];
    let target = (*b"../x").into();
    vec![
        Record::Object { id: ObjectId(4), object: of(file(size, &chunks)) },
        Record::Chunks { id: ObjectId(4), first: 0, hashes: vec![hash] },
        Record::Zeroes { id: ObjectId(4), first: 1, count: 2 },
        Record::Chunks { id: ObjectId(4), first: 3, hashes: vec![hash] },
        Record::Object { id: ObjectId(5), object: of(Body::Symlink { target }) },
        Record::Object { id: ObjectId(6), object: of(Body::CharDevice { major: 1, minor: 3 }) },
        Record::Name { directory, name: name(b"a"), id: ObjectId(3) },
        Record::Gone { directory, name: name(b"f") },
        Record::Gone { directory: ObjectId(2), name: name(b"b") },
        Record::Name { directory: ObjectId(2), name: name(b"l"), id: ObjectId(5) },
        Record::Name { directory: ObjectId(3), name: name(b"a"), id: ObjectId(2) },
        Record::Name { directory: ObjectId(3), name: name(b"n\xff"), id: ObjectId(6) },
    ]
}

/// Deltas that a tree takes, beside the single records of the golden folder, and paths.
pub(crate) fn made() -> Vec<Vec<u8>> {
    assert_eq!(check(first(), &Tree::empty(Metadata::default()), RECORDS_MAX), Ok(()));
    assert_eq!(check(second(), &base(), RECORDS_MAX), Ok(()));
    let delta = second();
    let mut bytes = vec![RECORDS];
    for record in &delta {
        record.encode(&mut bytes);
    }
    let inside = Beside::Inside(DirectoryHash([3; 32]));
    let entry = Entry::new(of(Body::Directory), inside).unwrap();
    let path = [&[PATH][..], b"a/b c/\xff"].concat();
    vec![bytes, [vec![ENTRY], entry.encode()].concat(), path]
}
