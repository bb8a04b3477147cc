//! Facts about whole trees: what a delta makes of one, and what a root says.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::manifest::diff::{diff_names, diff_objects};
use crate::manifest::{FileTime, LeaveOut};
use crate::units::{CHUNK_LEN, ResourceId};

fn scope() -> Scope {
    Scope {
        resource: ResourceId(1),
        exclude: BTreeSet::new(),
        leave_out: BTreeSet::from([LeaveOut::Acl]),
    }
}

/// What makes `old` into `new`.
pub(in crate::manifest) fn diff(old: &Tree, new: &Tree) -> Vec<Record> {
    let objects = |tree: &Tree| {
        tree.objects.iter().map(|(id, node)| (*id, node.object.clone())).collect::<Vec<_>>()
    };
    let names = |tree: &Tree| tree.names.clone();
    diff_objects(objects(old), objects(new), old, new)
        .chain(diff_names(names(old), names(new)))
        .collect()
}

/// A step that turns one tree into another. Which objects it takes is relative, so that it fits any
/// tree.
#[derive(Clone, Debug)]
pub(in crate::manifest) enum Step {
    Make { at: Index, name: Name, object: Object },
    File { at: Index, name: Name, size: u64, chunks: Vec<u8> },
    Link { from: Index, to: Index, name: Name },
    Move { from: Index, to: Index, name: Name },
    Swap { one: Index, other: Index },
    Write { of: Index, size: u64, chunks: Vec<u8> },
    Chmod { of: Index, mode: u16 },
    Delete { of: Index },
}

/// Makes trees, and never uses the number of an object twice.
#[derive(Clone, Debug)]
pub(in crate::manifest) struct Maker {
    pub(in crate::manifest) tree: Tree,
    next: u64,
}

fn chunk(value: u8) -> ChunkHash {
    if value == 0 { ChunkHash::ZERO } else { ChunkHash(*blake3::hash(&[value]).as_bytes()) }
}

/// As many chunks as `size` needs. The last is not that of whole zeroes unless it is whole.
fn chunks_of(size: u64, values: &[u8]) -> Vec<ChunkHash> {
    let all = (0..chunk_count(size)).zip(values.iter().cycle());
    all.map(|(at, value)| {
        let is_whole = (at + 1) * CHUNK_LEN <= size;
        chunk(if is_whole { *value } else { value.saturating_add(1) })
    })
    .collect()
}

impl Maker {
    pub(in crate::manifest) fn new() -> Self {
        Self { tree: Tree::empty(Metadata::default()), next: 2 }
    }

    fn directory(&self, at: Index) -> ObjectId {
        let is_directory = |node: &Node| node.object.kind() == Kind::Directory;
        let all: Vec<_> = self
            .tree
            .objects
            .iter()
            .filter(|(_, node)| is_directory(node))
            .map(|(id, _)| *id)
            .collect();
        *at.get(&all)
    }

    fn entry(&self, at: Index) -> Option<((ObjectId, Name), ObjectId)> {
        let all: Vec<_> = self.tree.names.iter().collect();
        (!all.is_empty()).then(|| {
            let (key, id) = at.get(&all);
            ((*key).clone(), **id)
        })
    }

    fn is_below(&self, mut inner: ObjectId, outer: ObjectId) -> bool {
        loop {
            if inner == outer {
                return true;
            }
            let up = self.tree.names.iter().find(|(_, id)| **id == inner);
            let Some(((parent, _), _)) = up else { return false };
            inner = *parent;
        }
    }

    fn add(&mut self, at: Index, name: &Name, node: Node) {
        let key = (self.directory(at), name.clone());
        if !self.tree.names.contains_key(&key) {
            let id = ObjectId(self.next);
            self.next += 1;
            self.tree.objects.insert(id, node);
            self.tree.names.insert(key, id);
        }
    }

    fn remove(&mut self, key: &(ObjectId, Name)) {
        self.tree.names.remove(key);
        loop {
            let before = self.tree.objects.len();
            self.tree.sweep();
            let Tree { objects, names } = &mut self.tree;
            names.retain(|(parent, _), _| objects.contains_key(parent));
            if objects.len() == before {
                return;
            }
        }
    }

    /// Carries out a step as far as it can be.
    pub(in crate::manifest) fn step(&mut self, step: &Step) {
        match step {
            Step::Make { at, name, object } => self.add(*at, name, Node::other(object.clone())),
            Step::File { at, name, size, chunks } => {
                let metadata = Metadata { mode: 0o644, ..Metadata::default() };
                let node = Node::file(metadata, *size, chunks_of(*size, chunks)).unwrap();
                self.add(*at, name, node);
            }
            Step::Link { from, to, name } => {
                let Some((_, id)) = self.entry(*from) else { return };
                let key = (self.directory(*to), name.clone());
                let is_directory = self.tree.objects[&id].object.kind() == Kind::Directory;
                if !is_directory && !self.tree.names.contains_key(&key) {
                    self.tree.names.insert(key, id);
                }
            }
            Step::Move { from, to, name } => {
                let Some((old, id)) = self.entry(*from) else { return };
                let to = (self.directory(*to), name.clone());
                if !self.is_below(to.0, id) && !self.tree.names.contains_key(&to) {
                    self.tree.names.remove(&old);
                    self.tree.names.insert(to, id);
                }
            }
            Step::Swap { one, other } => {
                let (Some(one), Some(other)) = (self.entry(*one), self.entry(*other)) else {
                    return;
                };
                let nested = self.is_below(one.0.0, other.1) || self.is_below(other.0.0, one.1);
                if !nested {
                    self.tree.names.insert(one.0, other.1);
                    self.tree.names.insert(other.0, one.1);
                }
            }
            Step::Write { of, size, chunks } => {
                let Some((_, id)) = self.entry(*of) else { return };
                let node = self.tree.objects.get_mut(&id).unwrap();
                if node.object.kind() == Kind::Regular {
                    let metadata = node.object.metadata.clone();
                    *node = Node::file(metadata, *size, chunks_of(*size, chunks)).unwrap();
                }
            }
            Step::Chmod { of, mode } => {
                let Some((_, id)) = self.entry(*of) else { return };
                let node = self.tree.objects.get_mut(&id).unwrap();
                if node.object.kind() != Kind::Symlink {
                    node.object.metadata.mode = *mode;
                }
            }
            Step::Delete { of } => {
                let Some((key, _)) = self.entry(*of) else { return };
                self.remove(&key);
            }
        }
    }
}

fn any_name() -> impl Strategy<Value = Name> {
    let byte = prop_oneof![Just(b'a'), Just(b'b'), Just(0xff), Just(b'.')];
    vec(byte, 1..4).prop_filter_map("dots", |bytes| Name::new(&bytes).ok())
}

fn any_object() -> impl Strategy<Value = Object> {
    let body = prop_oneof![
        4 => Just(Body::Directory),
        1 => Just(Body::Fifo),
        1 => vec(1..=255_u8, 1..5)
            .prop_map(|target| Body::Symlink { target: target.into_boxed_slice() }),
        1 => any::<(u32, u32)>().prop_map(|(major, minor)| Body::CharDevice { major, minor }),
    ];
    let xattrs = prop_oneof![
        Just(Vec::new()),
        any::<[u8; 2]>().prop_map(|value| vec![((*b"user.a").into(), value.into())])
    ];
    (body, 0..=0o7777_u16, any::<u32>(), any::<i64>(), xattrs).prop_map(
        |(body, mode, uid, seconds, xattrs)| {
            let mode = if matches!(body, Body::Symlink { .. }) { 0 } else { mode };
            let mtime = FileTime { seconds, nanos: uid % 1000 };
            Object { metadata: Metadata { mode, uid, gid: 7, mtime, xattrs }, body }
        },
    )
}

/// Mostly small files, some of them longer than a segment.
fn any_size() -> impl Strategy<Value = u64> {
    let segment = u64::from(SEGMENT_CHUNKS) * CHUNK_LEN;
    prop_oneof![
        6 => 0..CHUNK_LEN * 5,
        1 => segment - CHUNK_LEN..segment + 3 * CHUNK_LEN,
        1 => Just(segment * 2),
    ]
}

pub(in crate::manifest) fn any_step() -> impl Strategy<Value = Step> {
    let at = any::<Index>;
    let chunks = || vec(0..3_u8, 1..6);
    prop_oneof![
        3 => (at(), any_name(), any_object())
            .prop_map(|(at, name, object)| Step::Make { at, name, object }),
        3 => (at(), any_name(), any_size(), chunks())
            .prop_map(|(at, name, size, chunks)| Step::File { at, name, size, chunks }),
        2 => (at(), at(), any_name()).prop_map(|(from, to, name)| Step::Link { from, to, name }),
        3 => (at(), at(), any_name()).prop_map(|(from, to, name)| Step::Move { from, to, name }),
        2 => (at(), at()).prop_map(|(one, other)| Step::Swap { one, other }),
        2 => (at(), any_size(), chunks())
            .prop_map(|(of, size, chunks)| Step::Write { of, size, chunks }),
        1 => (at(), 0..=0o7777_u16).prop_map(|(of, mode)| Step::Chmod { of, mode }),
        1 => at().prop_map(|of| Step::Delete { of }),
    ]
}

/// Two trees of one history, or of two that have nothing in common but what they began with.
pub(in crate::manifest) fn any_trees() -> impl Strategy<Value = (Tree, Tree)> {
    (vec(any_step(), 0..14), vec(any_step(), 0..10)).prop_map(|(first, second)| {
        let mut maker = Maker::new();
        for step in &first {
            maker.step(step);
        }
        let old = maker.tree.clone();
        for step in &second {
            maker.step(step);
        }
        (old, maker.tree)
    })
}

/// The tree with every object under another number, as another node could have given them.
fn renumbered(tree: &Tree) -> Tree {
    let new = |id: ObjectId| if id == ObjectId::ROOT { id } else { ObjectId(u64::MAX - id.0) };
    Tree {
        objects: tree.objects.iter().map(|(id, node)| (new(*id), node.clone())).collect(),
        names: tree
            .names
            .iter()
            .map(|((parent, name), id)| ((new(*parent), name.clone()), new(*id)))
            .collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_delta_makes_the_old_tree_the_new_one_and_back((old, new) in any_trees()) {
        for (old, new) in [(&old, &new), (&new, &old)] {
            let mut tree = old.clone();
            apply(diff(old, new), &mut tree).unwrap();
            prop_assert_eq!(&tree, new);
        }
    }

    #[test]
    fn roots_are_equal_if_and_only_if_trees_are((old, new) in any_trees()) {
        let roots = [old.root(&scope()).unwrap(), new.root(&scope()).unwrap()];
        let is_same = shown(&old) == shown(&new);
        prop_assert_eq!(roots[0] == roots[1], is_same);
        prop_assert_eq!(renumbered(&old).root(&scope()).unwrap(), roots[0]);
    }

    #[test]
    fn what_a_delta_says_survives_its_bytes((old, new) in any_trees()) {
        let delta = diff(&old, &new);
        let mut bytes = Vec::new();
        for record in &delta { record.encode(&mut bytes); }
        let mut rest = &bytes[..];
        for record in delta {
            let (read, behind) = Record::decode(rest).unwrap();
            prop_assert_eq!(read, record);
            rest = behind;
        }
        prop_assert!(rest.is_empty());
    }
}

/// All that a reader of the tree can see: paths, what stands there, and which of them are one
/// object.
fn shown(tree: &Tree) -> Vec<(Vec<u8>, Object, Vec<Vec<u8>>)> {
    let mut paths: BTreeMap<ObjectId, Vec<Vec<u8>>> = BTreeMap::new();
    let mut open = vec![(ObjectId::ROOT, Vec::new())];
    while let Some((directory, path)) = open.pop() {
        for (name, id) in tree.names_in(directory) {
            let path = [&path[..], b"/", name.bytes()].concat();
            open.push((id, path.clone()));
            paths.entry(id).or_default().push(path);
        }
    }
    paths.insert(ObjectId::ROOT, vec![Vec::new()]);
    let mut all = Vec::new();
    for (id, mut paths) in paths {
        paths.sort();
        let object = &tree.objects[&id].object;
        all.extend(paths.iter().map(|path| (path.clone(), object.clone(), paths.clone())));
    }
    all.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    all
}

#[test]
fn a_renamed_directory_is_two_records_whatever_is_in_it() {
    let mut old = Tree::empty(Metadata::default());
    let directory = Object { metadata: Metadata::default(), body: Body::Directory };
    let name = |text: &str| Name::new(text.as_bytes()).unwrap();
    old.objects.insert(ObjectId(2), Node::other(directory));
    old.names.insert((ObjectId::ROOT, name("a")), ObjectId(2));
    for number in 3..1000 {
        old.objects
            .insert(ObjectId(number), Node::file(Metadata::default(), 0, Vec::new()).unwrap());
        old.names.insert((ObjectId(2), name(&number.to_string())), ObjectId(number));
    }
    let mut new = old.clone();
    new.names.remove(&(ObjectId::ROOT, name("a")));
    new.names.insert((ObjectId::ROOT, name("b")), ObjectId(2));
    let gone = Record::Gone { directory: ObjectId::ROOT, name: name("a") };
    let came = Record::Name { directory: ObjectId::ROOT, name: name("b"), id: ObjectId(2) };
    assert_eq!(diff(&old, &new), [gone, came]);
}

#[test]
fn a_run_of_zeroes_is_one_record_across_segments() {
    let size = u64::from(SEGMENT_CHUNKS) * CHUNK_LEN * 3;
    let mut old = Tree::empty(Metadata::default());
    let mut new = old.clone();
    let mut values = vec![1; usize::try_from(chunk_count(size)).unwrap()];
    let file =
        |values: &[u8]| Node::file(Metadata::default(), size, chunks_of(size, values)).unwrap();
    old.objects.insert(ObjectId(2), file(&values));
    values[1000..2100].fill(0);
    values[3000] = 2;
    new.objects.insert(ObjectId(2), file(&values));
    let object = new.objects[&ObjectId(2)].object.clone();
    let id = ObjectId(2);
    assert_eq!(
        diff(&old, &new),
        [
            Record::Object { id, object },
            Record::Zeroes { id, first: 1000, count: 1100 },
            Record::Chunks { id, first: 3000, hashes: vec![chunk(2)] },
        ]
    );
}

#[test]
fn chunks_that_are_not_those_of_the_content_hash_are_found() {
    let mut tree = Tree::empty(Metadata::default());
    let node = Node::file(Metadata::default(), 1, vec![chunk(1)]).unwrap();
    let id = ObjectId(2);
    let delta = [
        Record::Object { id, object: node.object },
        Record::Chunks { id, first: 0, hashes: vec![chunk(2)] },
    ];
    assert_eq!(apply(delta, &mut tree), Err(ManifestError::Content { id }));
}

/// A directory with a bucket that ends in it, a file of two segments under three names, a link.
fn sample() -> Tree {
    let name = |bytes: &[u8]| Name::new(bytes).unwrap();
    let directory = Object { metadata: Metadata::default(), body: Body::Directory };
    let target = (*b"a").into();
    let link = Object { metadata: Metadata::default(), body: Body::Symlink { target } };
    let size = (u64::from(SEGMENT_CHUNKS) + 1) * CHUNK_LEN;
    let file = Node::file(Metadata::default(), size, chunks_of(size, &[0, 1])).unwrap();
    let mut tree = Tree::empty(Metadata::default());
    tree.objects.insert(ObjectId(2), Node::other(directory));
    tree.objects.insert(ObjectId(3), file);
    tree.objects.insert(ObjectId(4), Node::other(link));
    tree.names.insert((ObjectId::ROOT, name(b"a")), ObjectId(2));
    for number in 0..600 {
        let key = (ObjectId(2), name(format!("{number}").as_bytes()));
        tree.names.insert(key, ObjectId(4));
    }
    tree.names.insert((ObjectId::ROOT, name(b"z")), ObjectId(3));
    tree.names.insert((ObjectId::ROOT, name(b"a.")), ObjectId(3));
    tree.names.insert((ObjectId(2), name(b"\xff")), ObjectId(3));
    tree
}

#[test]
fn the_root_of_a_tree_is_that_of_the_first_release() {
    let root = sample().root(&scope()).unwrap().to_string();
    assert_eq!(
        root, "619356b3a1ffc1e2f9b001237c2653bb5e26b17dcbc95ede87147961734042f1",
        "every root changes"
    );
}

#[test]
fn the_path_of_an_object_with_several_names_is_the_smallest_of_bytes() {
    let walk = sample().walk().unwrap();
    assert_eq!(walk.smallest[&ObjectId(3)], b"a.", "a dot comes before a slash");
    assert_eq!(walk.smallest[&ObjectId(4)], b"a/0");
}
