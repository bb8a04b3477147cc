//! Each rule that a delta must keep, and a record that breaks it.

use proptest::prelude::*;

use super::*;
use crate::manifest::tree::tests::{any_trees, diff};
use crate::manifest::{ChunkHash, ContentHash, FILE_LEN_MAX, Metadata, Node, Tree};
use crate::units::CHUNK_LEN;

/// With room for any of the deltas here.
fn check(delta: impl IntoIterator<Item = Record>, base: &impl View) -> Result<(), ManifestError> {
    super::check(delta, base, 10_000)
}

const ROOT: ObjectId = ObjectId::ROOT;

fn id(number: u64) -> ObjectId {
    ObjectId(number)
}

fn named(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn of(body: Body) -> Object {
    Object { metadata: Metadata::default(), body }
}

fn object(number: u64, body: Body) -> Record {
    Record::Object { id: id(number), object: of(body) }
}

fn file(number: u64, size: u64) -> Record {
    object(number, Body::Regular { size, content: ContentHash([1; 32]) })
}

fn name(directory: u64, name: &str, to: u64) -> Record {
    Record::Name { directory: id(directory), name: named(name), id: id(to) }
}

fn gone(directory: u64, name: &str) -> Record {
    Record::Gone { directory: id(directory), name: named(name) }
}

fn zeroes(number: u64, first: u64, count: u64) -> Record {
    Record::Zeroes { id: id(number), first, count }
}

fn chunks(number: u64, first: u64, count: usize) -> Record {
    Record::Chunks { id: id(number), first, hashes: vec![ChunkHash([7; 32]); count] }
}

/// a/ (2) with a/b/ (3) and in it c (4), which is a/d too; a link e (5) at the top.
fn base() -> Tree {
    let mut tree = Tree::empty(Metadata::default());
    for directory in [2, 3] {
        tree.objects.insert(id(directory), Node::other(of(Body::Directory)));
    }
    let chunk = ChunkHash([7; 32]);
    let size = 2 * CHUNK_LEN + 5;
    let node = Node::file(Metadata::default(), size, vec![chunk; 3]).unwrap();
    tree.objects.insert(id(4), node);
    tree.objects.insert(id(5), Node::other(of(Body::Symlink { target: (*b"x").into() })));
    for (directory, text, to) in [(1, "a", 2), (2, "b", 3), (3, "c", 4), (2, "d", 4), (1, "e", 5)] {
        tree.names.insert((id(directory), named(text)), id(to));
    }
    tree
}

#[track_caller]
fn refused(delta: &[Record], error: ManifestError) {
    assert_eq!(check(delta.to_vec(), &base()), Err(error), "{delta:?}");
}

#[track_caller]
fn accepted(delta: &[Record]) {
    assert_eq!(check(delta.to_vec(), &base()), Ok(()), "{delta:?}");
}

#[test]
fn records_rise_and_objects_come_before_names() {
    let fifo = |number| object(number, Body::Fifo);
    accepted(&[fifo(6), fifo(7), name(1, "f", 6), name(1, "g", 7)]);
    refused(&[fifo(7), fifo(6)], ManifestError::Order);
    refused(&[fifo(6), fifo(6)], ManifestError::Order);
    refused(&[fifo(6), name(1, "f", 6), fifo(7)], ManifestError::Order);
    refused(&[fifo(6), name(1, "g", 6), name(1, "f", 6)], ManifestError::Order);
    refused(&[fifo(6), name(1, "f", 6), gone(1, "f")], ManifestError::Order);
    refused(&[fifo(6), name(2, "f", 6), name(1, "g", 6)], ManifestError::Order);
}

#[test]
fn an_object_keeps_its_rules_its_number_and_its_kind() {
    refused(&[object(0, Body::Fifo)], ManifestError::ObjectZero);
    let target = Box::default();
    refused(&[object(6, Body::Symlink { target })], ManifestError::Target { len: 0 });
    refused(&[file(6, 1 << 63)], ManifestError::FileTooLong { found: 1 << 63 });
    refused(&[object(4, Body::Fifo)], ManifestError::KindChanged { id: id(4) });
    refused(&[object(2, Body::Fifo)], ManifestError::KindChanged { id: id(2) });
    accepted(&[object(5, Body::Symlink { target: (*b"y").into() })]);
}

#[test]
fn the_root_is_a_directory_without_a_name() {
    refused(&[object(1, Body::Fifo)], ManifestError::Root);
    refused(&[name(2, "up", 1)], ManifestError::Root);
    accepted(&[object(1, Body::Directory)]);
    assert_eq!(check([], &Tree::default()), Err(ManifestError::Root));
    assert_eq!(check([object(1, Body::Directory)], &Tree::default()), Ok(()));
}

#[test]
fn the_work_area_is_not_in_a_tree() {
    let fifo = object(6, Body::Fifo);
    refused(&[fifo.clone(), name(1, ".hotpair", 6)], NameError::Reserved.into());
    refused(&[gone(1, ".hotpair")], NameError::Reserved.into());
    accepted(&[fifo, name(2, ".hotpair", 6)]);
}

#[test]
fn a_name_stands_in_a_directory_of_the_result() {
    let fifo = object(6, Body::Fifo);
    let parent = |number| ManifestError::Parent { directory: id(number) };
    refused(&[fifo.clone(), name(4, "x", 6)], parent(4));
    refused(&[fifo.clone(), name(9, "x", 6)], parent(9));
    refused(&[fifo.clone(), name(6, "x", 6)], parent(6));
    let left = ManifestError::NotEmpty { directory: id(3), entries: 1 };
    refused(&[fifo, gone(2, "b"), gone(3, "c"), name(3, "x", 6)], left);
    accepted(&[object(6, Body::Directory), name(1, "n", 6), name(6, "m", 4)]);
}

#[test]
fn a_name_points_to_an_object_that_is_there() {
    refused(&[name(1, "x", 9)], ManifestError::Unknown { id: id(9) });
    refused(&[gone(1, "x")], ManifestError::NoChange { directory: ROOT });
    refused(&[name(1, "a", 2)], ManifestError::NoChange { directory: ROOT });
}

#[test]
fn every_object_has_a_name() {
    refused(&[object(6, Body::Fifo)], ManifestError::Nameless { id: id(6) });
    refused(
        &[object(5, Body::Symlink { target: (*b"y").into() }), gone(1, "e")],
        ManifestError::Nameless { id: id(5) },
    );
    accepted(&[gone(1, "e")]);
}

#[test]
fn a_directory_has_one_name_and_goes_empty() {
    let second = ManifestError::SecondName { id: id(3), names: 2 };
    refused(&[name(1, "x", 3)], second);
    let new = object(6, Body::Directory);
    let second = ManifestError::SecondName { id: id(6), names: 2 };
    refused(&[new, name(1, "x", 6), name(1, "y", 6)], second);
    refused(&[gone(1, "a")], ManifestError::NotEmpty { directory: id(2), entries: 2 });
    accepted(&[gone(1, "a"), gone(2, "b"), gone(2, "d"), gone(3, "c")]);
    accepted(&[name(1, "x", 3), gone(2, "b")]);
    accepted(&[name(1, "a", 3), gone(2, "b"), gone(2, "d")]);
}

#[test]
fn no_directory_is_below_itself() {
    // a/b takes the place of a, and a moves into it: that is no cycle.
    accepted(&[name(1, "a", 3), gone(2, "b"), name(3, "a", 2)]);
    let rings = [
        vec![gone(1, "a"), name(3, "a", 2)],
        vec![gone(1, "a"), name(2, "self", 2)],
        vec![
            object(6, Body::Directory),
            object(7, Body::Directory),
            name(6, "x", 7),
            name(7, "y", 6),
        ],
    ];
    for ring in rings {
        let error = check(ring.clone(), &base()).unwrap_err();
        assert!(matches!(error, ManifestError::Cycle { .. }), "{error}: {ring:?}");
    }
}

#[test]
fn chunks_are_those_of_the_file_before_them() {
    let size = 3 * CHUNK_LEN + 5;
    let good = |more: &[Record]| [&[file(6, size)], more, &[name(1, "f", 6)]].concat();
    accepted(&good(&[chunks(6, 0, 4)]));
    accepted(&good(&[zeroes(6, 0, 3), chunks(6, 3, 1)]));
    accepted(&good(&[chunks(6, 0, 1), zeroes(6, 1, 1), chunks(6, 2, 2)]));
    let other = |number| ManifestError::ChunksOfOther { id: id(number) };
    refused(&[chunks(6, 0, 1)], other(6));
    refused(&[file(6, size), chunks(7, 0, 1)], other(7));
    refused(&[object(6, Body::Fifo), chunks(6, 0, 1)], other(6));
    let same = base().objects[&id(4)].object.clone();
    refused(&[Record::Object { id: id(4), object: same }, chunks(4, 0, 1)], other(4));
    let beyond = ManifestError::ChunksBeyond { id: id(6) };
    refused(&good(&[chunks(6, 0, 5)]), beyond);
    refused(&good(&[zeroes(6, 0, 4)]), beyond);
    let missing = |chunk| ManifestError::ChunkMissing { id: id(6), chunk };
    refused(&good(&[]), missing(0));
    refused(&good(&[chunks(6, 0, 3)]), missing(3));
    refused(&good(&[chunks(6, 1, 3)]), missing(0));
    refused(&good(&[chunks(6, 0, 1), chunks(6, 2, 2)]), missing(1));
    refused(&good(&[chunks(6, 0, 0)]), ManifestError::Chunks { first: 0 });
    refused(&good(&[zeroes(6, 0, 0)]), ManifestError::Chunks { first: 0 });
}

#[test]
fn chunks_are_written_in_one_way_only() {
    let good = |more: &[Record]| [&[file(6, FILE_LEN_MAX)], more].concat();
    refused(&good(&[zeroes(6, 0, 2), zeroes(6, 2, 1)]), ManifestError::Order);
    refused(&good(&[chunks(6, 0, 2), chunks(6, 2, 1)]), ManifestError::Order);
    refused(&good(&[chunks(6, 0, 2), chunks(6, 1, 1)]), ManifestError::Order);
    refused(
        &good(&[zeroes(6, 0, 1023), chunks(6, 1023, 2)]),
        ManifestError::Chunks { first: 1023 },
    );
    let size = 2048 * CHUNK_LEN;
    accepted(&[file(6, size), chunks(6, 0, 1024), chunks(6, 1024, 1024), name(1, "f", 6)]);
}

#[test]
fn a_file_that_grows_has_the_hashes_of_what_it_grew_by() {
    let missing = ManifestError::ChunkMissing { id: id(4), chunk: 3 };
    refused(&[file(4, 4 * CHUNK_LEN), chunks(4, 2, 1)], missing);
    accepted(&[file(4, 4 * CHUNK_LEN), chunks(4, 2, 2)]);
    accepted(&[file(4, CHUNK_LEN)]);
}

/// Directories nested so deep, from `first` on, below the root.
fn nested(first: u64, depth: u64, text: &str) -> Vec<Record> {
    let numbers = first..first + depth;
    let mut delta: Vec<_> = numbers.clone().map(|one| object(one, Body::Directory)).collect();
    delta.push(name(1, text, first));
    delta.extend(numbers.skip(1).map(|one| name(one - 1, text, one)));
    delta
}

#[test]
fn paths_are_not_too_deep_and_not_too_long() {
    accepted(&nested(6, 1024, "n"));
    refused(&nested(6, 1025, "n"), NameError::TooDeep.into());
    let text = "n".repeat(255);
    accepted(&nested(6, 64, &text));
    refused(&nested(6, 65, &text), NameError::PathTooLong { len: 65 * 256 - 1 }.into());
    refused(&[nested(6, 1024, "n"), vec![name(1029, "f", 5)]].concat(), NameError::TooDeep.into());
}

#[test]
fn what_moves_with_a_directory_is_not_too_deep_either() {
    let mut deep = base();
    let other = |delta: Vec<Record>, tree: &mut Tree| crate::manifest::apply(delta, tree).unwrap();
    other(nested(6, 1020, "n"), &mut deep);
    // a holds b, and b holds c: below 1,021 others that is 1,024, below 1,022 it is not.
    let under = |number| [gone(1, "a"), name(number, "a", 2)];
    assert_eq!(check(under(6 + 1019), &deep), Ok(()));
    other(vec![object(2000, Body::Directory), name(6 + 1019, "m", 2000)], &mut deep);
    other(vec![object(2001, Body::Directory), name(2000, "m", 2001)], &mut deep);
    assert_eq!(check(under(2000), &deep), Ok(()));
    assert_eq!(check(under(2001), &deep), Err(NameError::TooDeep.into()));
    let without = [gone(1, "a"), gone(3, "c"), name(2001, "a", 2)];
    assert_eq!(check(without, &deep), Ok(()), "what goes is not too deep");
}

/// A base that says to have as many entries as a tree can have.
struct Full(Tree);

impl View for Full {
    fn object(&self, id: ObjectId) -> Option<Object> {
        self.0.object(id)
    }
    fn links(&self, id: ObjectId) -> u64 {
        View::links(&self.0, id)
    }
    fn name(&self, directory: ObjectId, name: &Name) -> Option<ObjectId> {
        self.0.name(directory, name)
    }
    fn place(&self, directory: ObjectId) -> Option<(ObjectId, Name)> {
        self.0.place(directory)
    }
    fn count(&self, directory: ObjectId) -> u64 {
        self.0.count(directory)
    }
    fn next_name(&self, directory: ObjectId, after: Option<&Name>) -> Option<(Name, ObjectId)> {
        self.0.next_name(directory, after)
    }
    fn entries(&self) -> u64 {
        ENTRIES_MAX
    }
}

#[test]
fn a_tree_has_so_many_entries_and_no_more() {
    let more = [name(1, "f", 5)];
    let found = ENTRIES_MAX + 1;
    assert_eq!(check(more.clone(), &Full(base())), Err(ManifestError::Entries { found }));
    assert_eq!(check([gone(1, "e"), more[0].clone()], &Full(base())), Ok(()));
}

#[test]
fn a_delta_without_end_is_refused_before_it_costs_memory() {
    let mut taken = 0;
    let endless = (6..).inspect(|_| taken += 1).map(|number| object(number, Body::Fifo));
    assert_eq!(super::check(endless, &base(), 100), Err(ManifestError::TooMany));
    assert_eq!(taken, 101);
    let names = [name(1, "x", 5), name(1, "y", 5)];
    assert_eq!(super::check(names.clone(), &base(), 1), Err(ManifestError::TooMany));
    assert_eq!(super::check(names, &base(), 2), Ok(()));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_makes_one_tree_another_is_accepted((old, new) in any_trees()) {
        prop_assert_eq!(check(diff(&old, &new), &old), Ok(()));
        prop_assert_eq!(check(diff(&new, &old), &new), Ok(()));
    }

    /// Whatever is left out or comes twice: it is refused, or makes a tree.
    #[test]
    fn what_is_accepted_makes_a_tree(
        (old, new) in any_trees(),
        at in any::<prop::sample::Index>(),
        is_twice: bool,
    ) {
        let mut delta = diff(&old, &new);
        if delta.is_empty() {
            return Ok(());
        }
        let at = at.index(delta.len());
        if is_twice {
            delta.insert(at, delta[at].clone());
        } else {
            delta.remove(at);
        }
        if check(delta.clone(), &old).is_ok() {
            prop_assert!(!is_twice);
            let mut tree = old.clone();
            if let Err(error) = crate::manifest::apply(delta, &mut tree) {
                // Which hashes the chunks have is found when they are staged.
                let is_content = matches!(error, ManifestError::Content { .. });
                prop_assert!(is_content, "{error}");
                return Ok(());
            }
            let mut swept = tree.clone();
            swept.sweep();
            prop_assert_eq!(&swept, &tree, "nothing without a name");
            let scope = crate::manifest::Scope {
                resource: crate::units::ResourceId(1),
                exclude: BTreeSet::new(),
                leave_out: BTreeSet::new(),
            };
            prop_assert!(tree.root(&scope).is_ok());
            let reached = tree.walk().unwrap().order;
            let is_directory = |node: &&Node| node.object.kind() == Kind::Directory;
            let all = tree.objects.values().filter(is_directory).count();
            prop_assert_eq!(reached.len(), all, "no ring apart from the tree");
        }
    }
}
