//! Which objects of a tree that is here are objects of a tree that a peer tells of as a whole.
//!
//! The two have nothing in common but what they hold, so an object here is one of the peer's if it is of
//! the same kind under the same path. Of a file with several names the first one in order decides, and
//! no object is two. Whatever is here and is none of the peer's goes; whatever is there alone is new.
//! Which objects are paired decides what the way from one to the other costs, never where it leads.

use std::collections::{BTreeMap, BTreeSet};

use super::check::View;
use super::{Body, ContentHash, Kind, Name, Object};
use crate::units::ObjectId;

/// What becomes of that which only this node has.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Keep {
    /// It can be taken back, as everything that a generation replaces or deletes, as long as that is kept.
    Undo,
    /// It goes to the quarantine, and nothing of it is written over: nobody else has it.
    #[default]
    Quarantine,
}

/// How two trees differ, in names but that of the root. A file with three names counts three times.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Preview {
    /// Both have it, and it is the same.
    pub identical: u64,
    /// Both have it with the same content: owner, mode, times or attributes are set.
    pub changed: u64,
    /// Both have the name, and here it leads to something else.
    pub replaced: u64,
    /// Only this node has it.
    pub deleted: u64,
    /// Only the peer has it.
    pub new: u64,
}

/// The tree of the peer, all of it.
pub trait Whole {
    /// An object; `None` if there is none of that number.
    fn object(&self, id: ObjectId) -> Option<&Object>;
    /// The names in a directory, in order.
    fn entries(&self, directory: ObjectId) -> impl Iterator<Item = (&Name, ObjectId)>;
    /// All objects.
    fn objects(&self) -> impl Iterator<Item = (ObjectId, &Object)>;
    /// How many names there are.
    fn entry_count(&self) -> u64;
}

/// The numbers that objects of this node get: those that the peer has for them, or others that it has for
/// none. In memory are all objects that were given one: about a hundred bytes each.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Numbers {
    theirs: BTreeMap<ObjectId, ObjectId>,
    /// Those of the peer's that are here.
    taken: BTreeSet<ObjectId>,
    /// The next one that the peer has for nothing.
    next: ObjectId,
}

/// Contents that only the peer has names for.
pub type Wanted = BTreeMap<(u64, ContentHash), Vec<ObjectId>>;

impl Numbers {
    /// Pairs the objects of two trees by their paths.
    pub fn by_path(whole: &impl Whole, here: &impl View, keep: Keep) -> (Self, Preview) {
        let last = whole.objects().map(|(id, _)| id).max().unwrap_or(ObjectId::ROOT);
        let mut numbers = Self {
            theirs: BTreeMap::from([(ObjectId::ROOT, ObjectId::ROOT)]),
            taken: BTreeSet::from([ObjectId::ROOT]),
            next: ObjectId(last.max(ObjectId::ROOT).0.saturating_add(1)),
        };
        let mut preview = Preview::default();
        let mut open = vec![(ObjectId::ROOT, whole.entries(ObjectId::ROOT))];
        while let Some((directory, entries)) = open.last_mut() {
            let Some((name, theirs)) = entries.next() else {
                open.pop();
                continue;
            };
            let Some(mine) = here.name(*directory, name) else { continue };
            let pair = here.object(mine).zip(whole.object(theirs));
            let Some((old, new)) = pair else {
                preview.replaced += 1;
                continue;
            };
            if may_stay(keep, &old, new) {
                numbers.pair(mine, theirs);
            }
            let is_paired = numbers.theirs.get(&mine) == Some(&theirs);
            *preview.place(is_paired, &old, new) += 1;
            if is_paired && new.kind() == Kind::Directory {
                open.push((mine, whole.entries(theirs)));
            }
        }
        let both = preview.identical + preview.changed + preview.replaced;
        preview.deleted = here.entries().saturating_sub(both);
        preview.new = whole.entry_count().saturating_sub(both);
        (numbers, preview)
    }

    fn pair(&mut self, mine: ObjectId, theirs: ObjectId) {
        if !self.theirs.contains_key(&mine) && self.taken.insert(theirs) {
            self.theirs.insert(mine, theirs);
        }
    }

    /// The contents of the peer's files that are none of this node's so far, for [`Numbers::offer`].
    pub fn wanted(&self, whole: &impl Whole) -> Wanted {
        let mut wanted = Wanted::new();
        for (id, object) in whole.objects().filter(|(id, _)| !self.taken.contains(id)) {
            if let Some(content) = content_of(object) {
                wanted.entry(content).or_default().push(id);
            }
        }
        wanted
    }

    /// An object of this node: if it is none of the peer's so far, but a file with a content that is wanted,
    /// it was moved. Not for what is to be kept: whoever looks for that looks where it was.
    pub fn offer(&mut self, wanted: &mut Wanted, mine: ObjectId, object: &Object) {
        if self.theirs.contains_key(&mine) {
            return;
        }
        let ids = content_of(object).and_then(|content| wanted.get_mut(&content));
        if let Some(theirs) = ids.and_then(Vec::pop) {
            self.pair(mine, theirs);
        }
    }

    /// The number that an object of this node gets; `None` if there are no more.
    pub fn of(&mut self, mine: ObjectId) -> Option<ObjectId> {
        if let Some(theirs) = self.theirs.get(&mine) {
            return Some(*theirs);
        }
        let id = Some(self.next).filter(|next| *next <= ObjectId::MAX)?;
        self.next = ObjectId(id.0 + 1);
        self.theirs.insert(mine, id);
        Some(id)
    }
}

impl Preview {
    /// Where an entry counts that both have.
    fn place(&mut self, is_paired: bool, old: &Object, new: &Object) -> &mut u64 {
        if !is_paired || old.body != new.body {
            &mut self.replaced
        } else if old.metadata == new.metadata {
            &mut self.identical
        } else {
            &mut self.changed
        }
    }
}

/// Whether an object of this node can become one of the peer's.
fn may_stay(keep: Keep, old: &Object, new: &Object) -> bool {
    if old.kind() != new.kind() {
        return false;
    }
    match keep {
        Keep::Undo => true,
        // Of a directory only metadata is changed; what is in it is judged by itself.
        Keep::Quarantine => {
            old.kind() == Kind::Directory || (old.body == new.body && has_nothing_more(old, new))
        }
    }
}

/// Whether applications have put nothing beside the content of an object that the other one lacks.
fn has_nothing_more(old: &Object, new: &Object) -> bool {
    let mut kept = old.metadata.xattrs.iter().filter(|(name, _)| name.starts_with(b"user."));
    kept.all(|it| new.metadata.xattrs.contains(it))
}

/// What a file holds, if that is anything.
fn content_of(object: &Object) -> Option<(u64, ContentHash)> {
    match object.body {
        Body::Regular { size, content } => (size > 0).then_some((size, content)),
        Body::Directory
        | Body::Symlink { .. }
        | Body::Fifo
        | Body::Socket
        | Body::CharDevice { .. }
        | Body::BlockDevice { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{ChunkHash, Metadata, Node, Tree};

    impl Whole for Tree {
        fn object(&self, id: ObjectId) -> Option<&Object> {
            self.objects.get(&id).map(|node| &node.object)
        }

        fn entries(&self, directory: ObjectId) -> impl Iterator<Item = (&Name, ObjectId)> {
            self.names_in(directory)
        }

        fn objects(&self) -> impl Iterator<Item = (ObjectId, &Object)> {
            self.objects.iter().map(|(id, node)| (*id, &node.object))
        }

        fn entry_count(&self) -> u64 {
            self.names.len() as u64
        }
    }

    fn file(text: u8) -> Node {
        Node::file(Metadata::default(), 5, vec![ChunkHash([text; 32])]).unwrap()
    }

    fn directory() -> Node {
        Node::other(Object { metadata: Metadata::default(), body: Body::Directory })
    }

    /// Names below directories given by their numbers.
    fn tree(nodes: &[(u64, Node)], names: &[(u64, &str, u64)]) -> Tree {
        let mut tree = Tree::empty(Metadata::default());
        tree.objects.extend(nodes.iter().map(|(id, node)| (ObjectId(*id), node.clone())));
        for (directory, name, id) in names {
            let name = Name::new(name.as_bytes()).unwrap();
            tree.names.insert((ObjectId(*directory), name), ObjectId(*id));
        }
        tree
    }

    fn paired(numbers: &Numbers) -> Vec<(u64, u64)> {
        numbers.theirs.iter().map(|(mine, theirs)| (mine.0, theirs.0)).collect()
    }

    fn preview(counts: [u64; 5]) -> Preview {
        let [identical, changed, replaced, deleted, new] = counts;
        Preview { identical, changed, replaced, deleted, new }
    }

    #[test]
    fn equal_paths_and_kinds_are_one_object_and_the_rest_gets_numbers_above() {
        let whole = tree(
            &[(10, directory()), (20, file(1)), (30, file(2)), (40, directory())],
            &[(1, "d", 10), (10, "f", 20), (1, "x", 30), (1, "only", 40)],
        );
        let here = tree(
            &[(2, directory()), (3, file(1)), (4, directory()), (5, file(9))],
            &[(1, "d", 2), (2, "f", 3), (1, "x", 4), (4, "inner", 5)],
        );
        for keep in [Keep::Undo, Keep::Quarantine] {
            let (mut numbers, counts) = Numbers::by_path(&whole, &here, keep);
            assert_eq!(paired(&numbers), [(1, 1), (2, 10), (3, 20)]);
            assert_eq!(counts, preview([2, 0, 1, 1, 1]));
            let given = [4, 5, 4, 2].map(|id| numbers.of(ObjectId(id)).unwrap().0);
            assert_eq!(given, [41, 42, 41, 10]);
        }
    }

    #[test]
    fn other_content_stays_the_object_only_where_nothing_is_to_be_kept() {
        let attribute = |text: &[u8]| (b"user.a".as_slice().into(), text.into());
        let with = |metadata: Metadata, text| {
            let mut node = file(text);
            node.object.metadata = metadata;
            node
        };
        let mode = Metadata { mode: 0o600, ..Metadata::default() };
        let noted = Metadata { xattrs: vec![attribute(b"mine")], ..Metadata::default() };
        let whole = tree(
            &[(10, file(1)), (11, file(2)), (12, file(3)), (13, with(noted.clone(), 4))],
            &[(1, "a", 10), (1, "b", 11), (1, "c", 12), (1, "d", 13)],
        );
        let here = tree(
            &[(2, file(7)), (3, with(mode, 2)), (4, with(noted, 3)), (5, file(4))],
            &[(1, "a", 2), (1, "b", 3), (1, "c", 4), (1, "d", 5)],
        );
        let (numbers, counts) = Numbers::by_path(&whole, &here, Keep::Undo);
        assert_eq!(paired(&numbers), [(1, 1), (2, 10), (3, 11), (4, 12), (5, 13)]);
        assert_eq!(counts, preview([0, 3, 1, 0, 0]));
        let (numbers, counts) = Numbers::by_path(&whole, &here, Keep::Quarantine);
        assert_eq!(paired(&numbers), [(1, 1), (3, 11), (5, 13)]);
        assert_eq!(counts, preview([0, 2, 2, 0, 0]));
    }

    #[test]
    fn link_groups_are_paired_by_their_first_name_and_none_is_two() {
        let names: [(u64, &str, u64); 4] = [(1, "a", 2), (1, "b", 2), (1, "c", 3), (1, "d", 3)];
        let here = tree(&[(2, file(1)), (3, file(1))], &names);
        let names = [(1, "a", 10), (1, "b", 11), (1, "c", 11), (1, "d", 11)];
        let whole = tree(&[(10, file(1)), (11, file(1))], &names);
        let (numbers, counts) = Numbers::by_path(&whole, &here, Keep::Quarantine);
        assert_eq!(paired(&numbers), [(1, 1), (2, 10), (3, 11)]);
        // The name b leads to another file than before.
        assert_eq!(counts, preview([3, 0, 1, 0, 0]));
    }

    #[test]
    fn what_was_moved_is_found_by_its_content() {
        let whole = tree(
            &[(10, directory()), (11, file(1)), (12, file(1)), (13, file(2))],
            &[(1, "new", 10), (10, "f", 11), (10, "g", 12), (1, "x", 13)],
        );
        let here = tree(
            &[(2, directory()), (3, file(1)), (4, file(1)), (5, file(1)), (6, file(2))],
            &[(1, "old", 2), (2, "f", 3), (2, "g", 4), (2, "h", 5), (1, "x", 6)],
        );
        let (mut numbers, counts) = Numbers::by_path(&whole, &here, Keep::Undo);
        assert_eq!(counts, preview([1, 0, 0, 4, 3]));
        let mut wanted = numbers.wanted(&whole);
        for (id, node) in &here.objects {
            numbers.offer(&mut wanted, *id, &node.object);
        }
        assert_eq!(paired(&numbers), [(1, 1), (3, 12), (4, 11), (6, 13)]);
    }

    #[test]
    fn numbers_that_cannot_be_said_are_not_given() {
        let whole = tree(&[(ObjectId::MAX.0, file(1))], &[(1, "a", ObjectId::MAX.0)]);
        let here = tree(&[(2, file(1)), (3, file(1))], &[(1, "a", 2), (1, "b", 3)]);
        let (mut numbers, _) = Numbers::by_path(&whole, &here, Keep::Undo);
        assert_eq!(numbers.of(ObjectId(2)), Some(ObjectId::MAX));
        assert_eq!(numbers.of(ObjectId(3)), None);
    }
}
