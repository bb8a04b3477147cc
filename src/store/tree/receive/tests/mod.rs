//! Deltas between two real trees, received, staged and planned.

mod attempts;
mod random;
mod refused;
mod scan;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use self::world::{Pair, assert_same, blocks, name, noise};
use super::reclaim::new_name;
use super::{Site, Staging};
use crate::manifest::apply::{Operation, Phase};
use crate::manifest::{Kind, LeftOut, Name, Record};
use crate::store::tree::{Folder, write_xattrs};
use crate::units::{CHUNK_LEN, ObjectId};

const CHUNK: usize = 64 << 10;

/// A tree with everything in it.
fn furnish(pair: &Pair) {
    let source = &pair.source;
    fs::create_dir_all(source.path("dir/inner/empty")).unwrap();
    source.write("dir/inner/large", &noise(1, 5 * CHUNK + 17));
    source.write("dir/small", b"small");
    source.write("nothing", b"");
    source.write("exact", &noise(2, CHUNK));
    let mut holes = vec![0; 40 * CHUNK];
    holes[7 * CHUNK..8 * CHUNK].copy_from_slice(&noise(3, CHUNK));
    source.write("holes", &[]);
    source.write_at("holes", 7 * CHUNK as u64, &holes[7 * CHUNK..8 * CHUNK]);
    source.write_at("holes", 39 * CHUNK as u64 + 100, b"end");
    fs::hard_link(source.path("exact"), source.path("dir/inner/linked")).unwrap();
    fs::hard_link(source.path("dir/small"), source.path("dir/inner/both")).unwrap();
    symlink("../nowhere", source.path("dir/link")).unwrap();
    rustix::fs::mkfifoat(&source.tree, "pipe", 0o640.into()).unwrap();
    let set = |inner: &str, mode| {
        fs::set_permissions(source.path(inner), fs::Permissions::from_mode(mode)).unwrap();
    };
    set("exact", 0o4711);
    set("dir/inner", 0o2750);
    set("dir", 0o555);
    let held = source.tree.object(&name("exact")).unwrap();
    let xattrs = vec![(b"user.a".as_slice().into(), b"\0\xff".as_slice().into())];
    write_xattrs(&held, &xattrs, &LeftOut::default()).unwrap();
    let _ = std::os::unix::fs::lchown(source.path("dir/link"), Some(7), Some(8));
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    fs::File::open(source.path("dir/inner/empty")).unwrap().set_times(times).unwrap();
}

/// A tree that both have: `file` of 40 chunks, and a directory with a file.
fn settled() -> Pair {
    let mut pair = Pair::new();
    fs::create_dir(pair.source.path("dir")).unwrap();
    pair.source.write("file", &noise(9, 40 * CHUNK));
    pair.source.write("dir/other", &noise(10, 3 * CHUNK + 5));
    pair.capture();
    pair.mirror();
    pair
}

#[test]
fn a_whole_tree_is_born_in_the_work_area() {
    let mut pair = Pair::new();
    furnish(&pair);
    pair.capture();
    let prepared = pair.prepare();
    let stage = pair.target.work.stage();
    let mut slots = 0;
    for ((directory, name), id) in &prepared.change.target.names {
        let staged = prepared.change.staged[id];
        let Some(slot) = staged.slot.filter(|_| *directory == ObjectId::ROOT) else { continue };
        slots += 1;
        assert_eq!(stage.look(&new_name(slot)).unwrap().unwrap().stamp.identity, staged.identity);
        assert_names_but(&pair, name, &new_name(slot));
    }
    // What has a name in the root and one in a new directory is born for the root.
    assert_eq!(slots, 5);
    assert_eq!(pair.target.tree.list().unwrap().names, Vec::<Name>::new());
    let holes = blocks(&pair.target.stage());
    assert!(holes.values().all(|blocks| *blocks < 6 * 128), "{holes:?}");
    let asked: BTreeSet<_> = pair.asked.iter().collect();
    assert_eq!(asked.len(), pair.asked.len(), "each chunk once");
    assert_eq!(pair.asked.len(), 6 + 1 + 1 + 2);
    let first = prepared.journal.list(Phase::Directories);
    assert!(matches!(first, [Operation::Move(_)]), "{first:?}");
}

/// The staged object is as the source has it, but for names that are made later.
fn assert_names_but(pair: &Pair, name: &Name, slot: &Name) {
    let stage = pair.target.work.stage();
    if name.bytes() != b"dir" {
        return assert_same((&pair.source.tree, name), (stage, slot));
    }
    let (dir, staged) = (pair.source.tree.child(name).unwrap(), stage.child(slot).unwrap());
    for inner in ["small", "link"] {
        assert_same((&dir, &self::name(inner)), (&staged, &self::name(inner)));
    }
    let (dir, staged) =
        (dir.child(&self::name("inner")).unwrap(), staged.child(&self::name("inner")).unwrap());
    for inner in ["large", "empty"] {
        assert_same((&dir, &self::name(inner)), (&staged, &self::name(inner)));
    }
    // `linked` is a further name of `exact`, `both` one of `small`: whichever is first was born.
    let names: BTreeSet<String> =
        staged.list().unwrap().names.iter().map(ToString::to_string).collect();
    assert!(!names.contains("linked"));
    let (one, other) = (dir.look_at_self().unwrap().stamp, staged.look_at_self().unwrap().stamp);
    assert_eq!((one.mode, one.mtime), (other.mode, other.mtime));
}

#[test]
fn what_the_target_has_is_never_asked_for() {
    let mut pair = settled();
    let root = pair.source.path(".");
    let path = |inner: &str| root.join(inner);
    rustix::fs::renameat(&pair.source.tree, "dir", &pair.source.tree, "moved").unwrap();
    fs::copy(path("file"), path("copy")).unwrap();
    let bytes = fs::read(path("moved/other")).unwrap();
    fs::remove_file(path("moved/other")).unwrap();
    fs::write(path("moved/again"), &bytes).unwrap();
    fs::write(path("twice"), [&bytes[CHUNK..2 * CHUNK], &bytes[..CHUNK]].concat()).unwrap();
    pair.capture();
    let prepared = pair.prepare();
    assert_eq!(pair.asked, []);
    let staged = |inner: &str| prepared.change.staged[&pair.id(inner)];
    for inner in ["copy", "twice", "moved/again"] {
        let slot = new_name(staged(inner).slot.unwrap());
        let (folder, last) = match inner.split_once('/') {
            None => (Folder::open(&path(".")).unwrap(), name(inner)),
            Some((up, last)) => (Folder::open(&path(up)).unwrap(), name(last)),
        };
        assert_same((&folder, &last), (pair.target.work.stage(), &slot));
    }
    assert!(!prepared.change.staged.contains_key(&pair.id("moved")));
}

#[test]
fn two_new_files_with_the_same_bytes_are_asked_for_once() {
    let mut pair = settled();
    let bytes = noise(5, 20 * CHUNK + 9);
    for inner in ["one", "two", "dir/three"] {
        pair.source.write(inner, &bytes);
    }
    // The same chunk all over.
    pair.source.write("dull", &noise(6, CHUNK).repeat(30));
    pair.capture();
    pair.prepare();
    assert_eq!(pair.asked.len(), 21 + 1);
}

#[test]
fn four_kilobytes_changed_in_a_large_file_ask_for_one_chunk() {
    let mut pair = settled();
    pair.source.write_at("file", 12 * CHUNK as u64 + 4096, &noise(7, 4096));
    pair.capture();
    let prepared = pair.prepare();
    assert_eq!(pair.asked, [(pair.id("file"), 12)]);
    let staged = prepared.change.staged[&pair.id("file")];
    let slot = new_name(staged.slot.unwrap());
    assert_same((&pair.source.tree, &name("file")), (pair.target.work.stage(), &slot));
    assert!(matches!(prepared.journal.list(Phase::Files), [Operation::Exchange(_)]));
}

#[test]
fn metadata_alone_stages_nothing_and_links_need_no_bytes() {
    let mut pair = settled();
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(pair.source.path("file"), mode).unwrap();
    fs::hard_link(pair.source.path("dir/other"), pair.source.path("further")).unwrap();
    pair.capture();
    let prepared = pair.prepare();
    assert_eq!(pair.asked, []);
    assert!(prepared.change.staged.is_empty());
    assert!(matches!(prepared.journal.list(Phase::Metadata), [Operation::Set(_)]));
    assert_eq!(prepared.journal.list(Phase::Links).len(), 2);
}

#[test]
fn what_rotted_on_the_target_is_asked_for_and_not_copied() {
    let mut pair = settled();
    // As a disk would, without a stamp that tells: the index takes the new one for the old.
    pair.target.write_at("file", 30 * CHUNK as u64, b"rot");
    pair.look_at_all();
    pair.source.write_at("file", 0, b"changed");
    fs::copy(pair.source.path("dir/other"), pair.source.path("copy")).unwrap();
    pair.target.write_at("dir/other", CHUNK as u64, b"rot");
    pair.look_at_all();
    pair.capture();
    pair.prepare();
    let file = pair.id("file");
    assert_eq!(pair.asked, [(file, 0), (file, 30), (pair.id("copy"), 1)]);
}

#[test]
fn files_that_grow_and_shrink_keep_what_they_have() {
    let mut pair = settled();
    let old = fs::read(pair.source.path("file")).unwrap();
    for (len, asked) in [(40 * CHUNK + 10, 1), (44 * CHUNK, 4), (10 * CHUNK + 5, 1), (0, 0)] {
        let mut new = old.clone();
        new.resize(len.max(old.len()), 0);
        let tail = noise(len as u64, new.len() - old.len());
        new[old.len()..].copy_from_slice(&tail);
        new.truncate(len);
        pair.source.write("file", &new);
        pair.asked.clear();
        world::empty(&pair.target.stage());
        pair.capture();
        let prepared = pair.prepare();
        assert_eq!(pair.asked.len(), asked, "{len}");
        let slot = new_name(prepared.change.staged[&pair.id("file")].slot.unwrap());
        assert_same((&pair.source.tree, &name("file")), (pair.target.work.stage(), &slot));
        // Back to what the target has, with the same inode.
        pair.source.write("file", &old);
        pair.capture();
    }
}

#[test]
fn a_huge_file_with_few_changes_is_patched() {
    let mut pair = Pair::new();
    let chunk = |number: u64| number * CHUNK_LEN;
    let file = fs::File::create(pair.source.path("huge")).unwrap();
    file.set_len(chunk(1100) + 50).unwrap();
    for at in [0, 3, 500, 1090] {
        pair.source.write_at("huge", chunk(at), &noise(at, CHUNK));
    }
    pair.capture();
    pair.mirror();
    pair.source.write_at("huge", chunk(3) + 7, b"new");
    pair.source.write_at("huge", chunk(500), &vec![0; CHUNK]);
    pair.source.write_at("huge", chunk(700), &noise(700, CHUNK));
    file.set_len(chunk(1080) + 9).unwrap();
    pair.source.write_at("huge", chunk(1080), b"the end!!");
    pair.capture();
    let before = fs::read(pair.target.path("huge")).unwrap();
    let prepared = pair.prepare();
    let id = pair.id("huge");
    assert_eq!(pair.asked, [(id, 3), (id, 700), (id, 1080)]);
    assert!(prepared.change.staged.is_empty());
    let (source, back) = prepared.change.patches[&id].clone();
    let crate::manifest::apply::Place::Stage(slot) = source else { panic!("{source:?}") };
    let staged = fs::read(pair.target.stage().join(new_name(slot).to_string())).unwrap();
    let crate::manifest::apply::Place::Undo { journal, slot } = back else { panic!("{back:?}") };
    let undo = pair.target.undo().join(journal.0.to_string()).join(slot.0.to_string());
    let old = fs::read(undo).unwrap();
    let after = patched(&before, &staged);
    assert!(after == fs::read(pair.source.path("huge")).unwrap());
    assert!(patched(&after, &old) == before);
    assert_eq!(fs::read(pair.target.path("huge")).unwrap(), before, "nothing is changed yet");
    assert!(prepared.journal.list(Phase::Files).iter().any(|it| matches!(it, Operation::Patch(_))));
    // More than half of it: staged whole.
    for at in 0..700 {
        pair.source.write_at("huge", chunk(at), &at.to_le_bytes());
    }
    pair.capture();
    let prepared = pair.prepare();
    assert!(prepared.change.patches.is_empty());
    let slot = new_name(prepared.change.staged[&id].slot.unwrap());
    assert_same((&pair.source.tree, &name("huge")), (pair.target.work.stage(), &slot));
}

/// A file after a patch, read as the format says.
fn patched(file: &[u8], patch: &[u8]) -> Vec<u8> {
    let number = |at: usize| u64::from_le_bytes(patch[at..at + 8].try_into().unwrap());
    assert_eq!(patch[..8], *b"HPPATCH1");
    let (len, count) = (number(12), number(20));
    let mut result = file.to_vec();
    result.resize(usize::try_from(len).unwrap(), 0);
    let mut at = 32;
    for _ in 0..count {
        let start = usize::try_from(number(at) * CHUNK_LEN).unwrap();
        at += 12;
        let some = (result.len() - start).min(CHUNK);
        result[start..start + some].copy_from_slice(&patch[at..at + some]);
        at += some;
    }
    assert_eq!(at, patch.len());
    result
}

#[test]
fn a_hole_as_long_as_a_file_can_be_costs_nothing() {
    let mut pair = settled();
    let file = fs::File::create(pair.source.path("hole")).unwrap();
    file.set_len(3 << 40).unwrap();
    drop(file);
    // Too long to be read: what the source would say of it.
    let len = 3_u64 << 40;
    let count = len / CHUNK_LEN;
    let mut builder = crate::manifest::ContentBuilder::new(len).unwrap();
    builder.push_zeroes(count);
    let content = builder.finish().unwrap();
    fs::remove_file(pair.source.path("hole")).unwrap();
    let id = ObjectId(100);
    let object = crate::manifest::Object {
        metadata: crate::manifest::Metadata { mode: 0o600, ..Default::default() },
        body: crate::manifest::Body::Regular { size: len, content },
    };
    let records = vec![
        Record::Object { id, object },
        Record::Zeroes { id, first: 0, count },
        Record::Name { directory: ObjectId::ROOT, name: name("hole"), id },
    ];
    pair.capture();
    let received = pair.receive_as(records, LeftOut::default(), |_| false).unwrap();
    let left_out = LeftOut::default();
    let site = Site { tree: &pair.target.tree, work: &pair.target.work, left_out: &left_out };
    let mut staging = Staging::new(received, site, &BTreeSet::new()).unwrap();
    let wants = staging.wants(10).unwrap();
    assert!(wants.is_all && wants.chunks.is_empty());
    let sizes: BTreeMap<_, _> = blocks(&pair.target.stage());
    assert_eq!(sizes.into_values().collect::<Vec<_>>(), [0]);
    assert_eq!(staging.received().object(id).unwrap().unwrap().kind(), Kind::Regular);
}
