//! The index against the plain tree in memory: equal roots, and deltas that make one into the next.

use std::collections::BTreeSet;

use super::tables::Rows;
use super::*;
use crate::manifest::{
    Beside, Body, ChunkHash, DirectoryHash, Entry, FileTime, Identity, Kind, Metadata, Name, Node,
    Object, Record, Row, SEGMENT_CHUNKS, Scope, Stamp, Tree, apply,
};
use crate::units::{CHUNK_LEN, ObjectId, ResourceId, TreeNumber, TreePosition};

fn scope() -> Scope {
    Scope { resource: ResourceId(1), exclude: BTreeSet::new(), leave_out: BTreeSet::new() }
}

fn stamp(id: ObjectId) -> Stamp {
    let time = FileTime::default();
    Stamp {
        identity: Identity { inode: id.0 + 1000, birth: Some(FileTime { seconds: 1, nanos: 2 }) },
        size: 0,
        mtime: time,
        ctime: time,
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 1,
        rdev: (0, 0),
    }
}

/// Makes the index hold `new`, of which it holds `old`.
fn bring(tables: &mut Tables<'_>, number: TreeNumber, old: &Tree, new: &Tree) {
    for (key, id) in &new.names {
        if old.names.get(key) != Some(id) {
            tables.put_name(number, (key.0, &key.1), *id).unwrap();
        }
    }
    for key in old.names.keys().filter(|key| !new.names.contains_key(*key)) {
        tables.remove_name(number, key.0, &key.1).unwrap();
    }
    for (id, node) in &new.objects {
        if old.objects.get(id) == Some(node) {
            continue;
        }
        let beside = match (tables.object(*id).unwrap(), node.object.kind()) {
            (Some(row), _) => row.entry.beside().clone(),
            (None, Kind::Directory) => Beside::Inside(DirectoryHash([0; 32])),
            (None, _) => Beside::Nothing,
        };
        let entry = Entry::new(node.object.clone(), beside).unwrap();
        let row = Row { changed_in: number, is_unsure: false, stamp: stamp(*id), entry };
        tables.put_object(*id, &row).unwrap();
        let count = usize::try_from(SEGMENT_CHUNKS).unwrap();
        let mut segments = 0;
        for hashes in node.chunks.chunks(count) {
            if tables.segment(*id, segments).unwrap().1 != hashes {
                tables.put_segment(number, (*id, segments), hashes).unwrap();
            }
            segments += 1;
        }
        tables.cut_segments(*id, segments).unwrap();
    }
    for id in old.objects.keys().filter(|id| !new.objects.contains_key(id)) {
        tables.drop_object(*id).unwrap();
    }
}

/// Random changes of a tree, which stays one.
struct Maker {
    random: fastrand::Rng,
    tree: Tree,
    next: u64,
}

impl Maker {
    fn directory(&mut self) -> ObjectId {
        let is_directory = |node: &Node| node.object.kind() == Kind::Directory;
        let all = self.tree.objects.iter().filter(|(_, node)| is_directory(node));
        let all: Vec<ObjectId> = all.map(|(id, _)| *id).collect();
        all[self.random.usize(..all.len())]
    }

    fn key(&mut self) -> (ObjectId, Name) {
        let number = self.random.u32(..400);
        (self.directory(), Name::new(format!("n{number}").as_bytes()).unwrap())
    }

    fn entry(&mut self) -> Option<((ObjectId, Name), ObjectId)> {
        let count = self.tree.names.len();
        let (key, id) = self.tree.names.iter().nth(self.random.usize(..count.max(1)))?;
        Some((key.clone(), *id))
    }

    fn metadata(&mut self) -> Metadata {
        Metadata { mode: self.random.u16(..0o777), ..Metadata::default() }
    }

    fn node(&mut self) -> Node {
        let metadata = self.metadata();
        if self.random.u8(..4) == 0 {
            return Node::other(Object { metadata, body: Body::Directory });
        }
        let count = [0, 1, 3, 1024, 1500, 2049][self.random.usize(..6)];
        let chunks = (0..count).map(|_| self.chunk()).collect();
        Node::file(metadata, count * CHUNK_LEN, chunks).unwrap()
    }

    fn chunk(&mut self) -> ChunkHash {
        match self.random.u8(..8) {
            0..6 => ChunkHash::ZERO,
            value => ChunkHash([value; 32]),
        }
    }

    fn is_below(&self, mut inner: ObjectId, outer: ObjectId) -> bool {
        while inner != outer {
            let up = self.tree.names.iter().find(|(_, id)| **id == inner);
            let Some(((parent, _), _)) = up else { return false };
            inner = *parent;
        }
        true
    }

    fn change(&mut self) {
        let key = self.key();
        let is_free = !self.tree.names.contains_key(&key);
        let Some((old, id)) = self.entry() else { return self.make(key) };
        let is_directory = self.tree.objects[&id].object.kind() == Kind::Directory;
        match self.random.u8(..10) {
            0..4 if is_free => self.make(key),
            4 if is_free && !is_directory => {
                self.tree.names.insert(key, id);
            }
            5 if is_free && !(is_directory && self.is_below(key.0, id)) => {
                self.tree.names.remove(&old);
                self.tree.names.insert(key, id);
            }
            6 if is_directory => {
                let metadata = self.metadata();
                self.tree.objects.get_mut(&id).unwrap().object.metadata = metadata;
            }
            6 => {
                let node = self.node();
                if node.object.kind() != Kind::Directory {
                    self.tree.objects.insert(id, node);
                }
            }
            7 => {
                self.tree.names.remove(&old);
                self.sweep();
            }
            _ => {}
        }
    }

    fn make(&mut self, key: (ObjectId, Name)) {
        if self.tree.names.contains_key(&key) {
            return;
        }
        let (id, node) = (ObjectId(self.next), self.node());
        self.next += 1;
        self.tree.objects.insert(id, node);
        self.tree.names.insert(key, id);
    }

    fn sweep(&mut self) {
        loop {
            let count = self.tree.objects.len();
            self.tree.sweep();
            let Tree { objects, names } = &mut self.tree;
            names.retain(|(parent, _), _| objects.contains_key(parent));
            if objects.len() == count {
                return;
            }
        }
    }
}

fn delta(index: &Index, base: TreeNumber) -> Vec<Record> {
    let view = index.view().unwrap();
    let mut records = Vec::new();
    let delta = Delta::since(&view, base).unwrap();
    let take = |record| {
        records.push(record);
        Ok::<(), IndexError>(())
    };
    delta.records(take).unwrap();
    records
}

#[test]
fn the_index_has_the_root_of_its_tree_and_tells_what_changed_since_each_generation() {
    for seed in 0..6 {
        let folder = tempfile::tempdir().unwrap();
        let index = Index::open(&folder.path().join("index.redb")).unwrap();
        let tree = Tree::empty(Metadata::default());
        let mut maker = Maker { random: fastrand::Rng::with_seed(seed), tree, next: 2 };
        let mut generations = vec![Tree::default()];
        for number in 1..40 {
            let old = generations.last().unwrap().clone();
            for _ in 0..maker.random.usize(1..40) {
                maker.change();
            }
            let position = index.change(|tables| {
                bring(tables, TreeNumber(number), &old, &maker.tree);
                let root = tables.fold(&scope())?;
                let position = TreePosition { number: TreeNumber(number), root };
                tables.put_position(position)?;
                Ok(position)
            });
            let position = position.unwrap();
            let expected = maker.tree.root(&scope()).unwrap();
            assert_eq!(position.root, expected, "seed {seed}, generation {number}");
            assert_eq!(index.view().unwrap().position().unwrap(), position);
            generations.push(maker.tree.clone());
        }
        for (base, old) in (0..).zip(&generations).skip(1) {
            let mut tree = old.clone();
            apply(delta(&index, TreeNumber(base)), &mut tree).unwrap();
            assert_eq!(tree, maker.tree, "seed {seed}, from generation {base}");
        }
    }
}

#[test]
fn a_change_that_fails_or_is_tried_out_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let index = Index::open(&folder.path().join("index.redb")).unwrap();
    let tree = Tree::empty(Metadata::default());
    let number = TreeNumber(1);
    let root = index.try_out(|tables| {
        bring(tables, number, &Tree::default(), &tree);
        tables.fold(&scope())
    });
    assert_eq!(root.unwrap(), tree.root(&scope()).unwrap());
    let failed = index.change(|tables| {
        bring(tables, number, &Tree::default(), &tree);
        Err::<(), _>(IndexError::Missing { table: "objects", object: 1 })
    });
    assert!(failed.is_err());
    assert!(index.view().unwrap().object(ObjectId::ROOT).unwrap().is_none());
    assert_eq!(delta(&index, TreeNumber(0)), []);
}

#[test]
fn names_that_went_long_ago_are_forgotten_and_numbers_are_not_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.redb");
    let index = Index::open(&path).unwrap();
    let mut old = Tree::empty(Metadata::default());
    let fifo = Object { metadata: Metadata::default(), body: Body::Fifo };
    let names = ["a", "b"].map(|name| Name::new(name.as_bytes()).unwrap());
    for (number, name) in (2..).zip(&names) {
        old.objects.insert(ObjectId(number), Node::other(fifo.clone()));
        old.names.insert((ObjectId::ROOT, name.clone()), ObjectId(number));
    }
    index
        .change(|tables| {
            bring(tables, TreeNumber(1), &Tree::default(), &old);
            tables.remove_name(TreeNumber(2), ObjectId::ROOT, &names[0])?;
            tables.remove_name(TreeNumber(3), ObjectId::ROOT, &names[1])?;
            tables.prune_gone(TreeNumber(3))?;
            tables.note_objects(ObjectId(7))?;
            assert_eq!(tables.new_object()?, ObjectId(8));
            tables.note_objects(ObjectId(3))
        })
        .unwrap();
    drop(index);
    let index = Index::open(&path).unwrap();
    let gone = Record::Gone { directory: ObjectId::ROOT, name: names[1].clone() };
    assert_eq!(delta(&index, TreeNumber(1)), [gone]);
    let next = index.change(|tables| {
        tables.note_objects(ObjectId(8))?;
        tables.new_object()
    });
    assert_eq!(next.unwrap(), ObjectId(9));
}
