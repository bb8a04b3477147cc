//! What a cut, a restart or an earlier attempt leaves is used, and nothing else stays.

use std::collections::BTreeSet;
use std::fs;

use super::world::{Pair, assert_same, name, noise, scope};
use super::{CHUNK, settled};
use crate::manifest::apply::JournalNumber;
use crate::manifest::{LeftOut, Record};
use crate::store::tree::index::Rows;
use crate::store::tree::receive::reclaim::new_name;
use crate::store::tree::receive::{Limits, ReceiveError, Site, Staging, look_again, write_index};
use crate::units::ObjectId;

/// Stages `most` chunks from the peer, and is cut off.
fn cut_after(pair: &mut Pair, most: usize) {
    let received = pair.receive();
    let mut other = Pair::new();
    std::mem::swap(&mut other.target, &mut pair.target);
    let left_out = LeftOut::default();
    let site = Site { tree: &other.target.tree, work: &other.target.work, left_out: &left_out };
    let mut staging = Staging::new(received, site, &BTreeSet::new()).unwrap();
    pair.serve(&mut staging, most);
    assert!(staging.unfinished().is_some());
    drop(staging);
    std::mem::swap(&mut other.target, &mut pair.target);
}

#[test]
fn an_interrupted_transfer_goes_on_where_it_stopped() {
    let mut pair = settled();
    pair.source.write("new", &noise(20, 50 * CHUNK));
    pair.source.write_at("file", 5 * CHUNK as u64, &noise(21, 10 * CHUNK));
    pair.capture();
    cut_after(&mut pair, 8);
    cut_after(&mut pair, 20);
    assert_eq!(pair.asked.len(), 28);
    // Another generation by now: one chunk of what was staged is not what it was.
    pair.source.write_at("new", 3, b"newer");
    pair.capture();
    let prepared = pair.prepare();
    let asked: BTreeSet<_> = pair.asked.iter().collect();
    assert_eq!((pair.asked.len(), asked.len()), (61, 60));
    for inner in ["new", "file"] {
        let slot = new_name(prepared.change.staged[&pair.id(inner)].slot.unwrap());
        assert_same((&pair.source.tree, &name(inner)), (pair.target.work.stage(), &slot));
    }
}

#[test]
fn a_plan_that_was_never_committed_leaves_its_bytes_to_the_next() {
    let mut pair = settled();
    fs::create_dir_all(pair.source.path("new/deep")).unwrap();
    pair.source.write("new/deep/a", &noise(30, 3 * CHUNK));
    pair.source.write("new/b", &noise(31, CHUNK + 1));
    pair.source.write("c", &noise(32, 100));
    pair.capture();
    pair.prepare();
    let first = std::mem::take(&mut pair.asked);
    assert_eq!(first.len(), 3 + 2 + 1);
    // The next generation leaves one of them out.
    fs::remove_file(pair.source.path("c")).unwrap();
    pair.source.write("d", b"d");
    pair.capture();
    let prepared = pair.prepare();
    assert_eq!(pair.asked, [(pair.id("d"), 0)]);
    let staged = prepared.change.staged[&pair.id("new")];
    let slot = new_name(staged.slot.unwrap());
    assert_same((&pair.source.tree, &name("new")), (pair.target.work.stage(), &slot));
    // The log, and the two that are in the plan.
    assert_eq!(pair.target.staged().len(), 3, "{:?}", pair.target.staged());
}

#[test]
fn what_a_journal_still_needs_is_left_alone() {
    let mut pair = settled();
    pair.source.write("new", &noise(40, CHUNK));
    pair.capture();
    pair.prepare();
    let before = pair.target.staged();
    let received = pair.receive();
    let left_out = LeftOut::default();
    let site = Site { tree: &pair.target.tree, work: &pair.target.work, left_out: &left_out };
    let kept = BTreeSet::from([JournalNumber(pair.number)]);
    Staging::new(received, site, &kept).unwrap();
    assert_eq!(pair.target.staged(), before);
    let received = pair.receive();
    Staging::new(received, site, &BTreeSet::new()).unwrap();
    assert_eq!(pair.target.staged(), [format!("part-{}", pair.id("new"))]);
}

#[test]
fn what_is_staged_for_nobody_is_removed_and_foreign_names_stay() {
    let mut pair = settled();
    pair.source.write("new", &noise(50, 4 * CHUNK));
    pair.capture();
    cut_after(&mut pair, 2);
    let stage = pair.target.stage();
    for inner in ["part-999", "made-4", "new-77", "park-1-2", "link-3-4", "part-x"] {
        fs::write(stage.join(inner), "x").unwrap();
    }
    fs::create_dir_all(stage.join("new-78/inner")).unwrap();
    // Shares its inode with a file of the tree: it is never written.
    fs::remove_file(stage.join(format!("part-{}", pair.id("new")))).unwrap();
    fs::hard_link(pair.target.path("file"), stage.join(format!("part-{}", pair.id("new"))))
        .unwrap();
    let before = fs::read(pair.target.path("file")).unwrap();
    pair.asked.clear();
    pair.look_at_all();
    pair.prepare();
    assert_eq!(pair.asked.len(), 4);
    assert!(fs::read(pair.target.path("file")).unwrap() == before);
    let staged = pair.target.staged();
    for inner in ["park-1-2", "link-3-4", "part-x"] {
        assert!(staged.contains(&inner.to_owned()), "{staged:?}");
    }
    assert_eq!(staged.len(), 3 + 2, "{staged:?}");
}

#[test]
fn records_that_were_kept_bring_the_index_to_what_was_committed() {
    let mut pair = settled();
    pair.source.write_at("file", 0, b"changed");
    rustix::fs::renameat(&pair.source.tree, "dir", &pair.source.tree, "moved").unwrap();
    pair.source.write("moved/new", &noise(60, 2 * CHUNK));
    pair.capture();
    let received = pair.receive();
    received.sync().unwrap();
    drop(received);
    let received = pair.again().unwrap();
    pair.mirror_with(&received);
    assert_eq!(pair.target.index.view().unwrap().position().unwrap(), pair.position);
    // A damaged one is found.
    pair.source.write("third", &noise(61, CHUNK));
    pair.capture();
    drop(pair.receive());
    let path = pair.target.path("../records");
    let bytes = fs::read(&path).unwrap();
    let mut refused = 0;
    for len in (0..bytes.len()).rev() {
        fs::write(&path, &bytes[..len]).unwrap();
        let again = pair.again();
        refused += u32::from(again.is_err());
        if let Ok(received) = again {
            let looks = look_again(
                &pair.target.tree,
                &crate::manifest::apply::Side::default(),
                &pair.target.clock(),
            );
            let written = write_index(&pair.target.index, &scope(), &received, &looks.unwrap());
            assert!(written.is_err(), "{len}");
        }
    }
    assert!(refused > 0);
}

#[test]
fn the_index_of_the_target_can_be_a_source_afterwards() {
    let mut pair = settled();
    // Two segments, of which one changes: nobody is to be sent the other one.
    pair.source.write("long", b"");
    pair.source.write_at("long", 1030 * CHUNK as u64, b"end");
    pair.source.write_at("long", 0, &noise(80, CHUNK));
    pair.capture();
    pair.mirror();
    let first = pair.number;
    pair.source.write_at("long", 1026 * CHUNK as u64, b"changed");
    pair.source.write_at("file", 3 * CHUNK as u64, b"changed");
    fs::remove_file(pair.source.path("dir/other")).unwrap();
    pair.source.write("dir/new", b"new");
    pair.capture();
    pair.mirror();
    let records = |node: &super::world::Node| {
        let view = node.index.view().unwrap();
        let mut records = Vec::new();
        let delta = crate::store::tree::index::Delta::since(&view, crate::units::TreeNumber(first))
            .unwrap();
        let take = |record| {
            records.push(record);
            Ok::<_, crate::store::tree::index::IndexError>(())
        };
        delta.records(take).unwrap();
        records
    };
    assert_eq!(records(&pair.source), records(&pair.target));
    let next = |node: &super::world::Node| {
        let tried = node.index.try_out(|tables| Ok((tables.new_object()?, tables.position()?)));
        tried.unwrap().0
    };
    assert!(next(&pair.target) > pair.id("dir/new"));
    assert_ne!(next(&pair.target), ObjectId::ROOT);
}

#[test]
fn what_changed_and_was_put_back_before_the_target_heard_of_it_is_no_change() {
    let mut pair = settled();
    let old = fs::read(pair.source.path("file")).unwrap();
    pair.source.write("brief", b"brief");
    fs::create_dir(pair.source.path("passing")).unwrap();
    pair.source.write("passing/inner", b"x");
    pair.source.write("file", b"other");
    let rename = |from: &str, to: &str| {
        pair.source.tree.rename(&name(from), &pair.source.tree, &name(to)).unwrap();
    };
    rename("dir", "away");
    pair.capture();
    pair.source.write("file", &old);
    fs::remove_file(pair.source.path("brief")).unwrap();
    fs::remove_dir_all(pair.source.path("passing")).unwrap();
    let rename = |from: &str, to: &str| {
        pair.source.tree.rename(&name(from), &pair.source.tree, &name(to)).unwrap();
    };
    rename("away", "dir");
    pair.capture();
    let prepared = pair.prepare();
    assert_eq!(pair.asked, []);
    assert!(prepared.change.staged.is_empty());
    pair.mirror();
    // Without an end it is no delta either.
    let mut incoming =
        pair.incoming(LeftOut::default(), Limits { records: 3, ..Limits::default() });
    let idle = Record::Gone { directory: ObjectId::ROOT, name: name("nowhere") };
    for _ in 0..3 {
        incoming.push(idle.clone()).unwrap();
    }
    assert!(matches!(incoming.push(idle), Err(ReceiveError::TooLarge { .. })));
}

#[test]
fn a_crash_in_the_middle_of_births_costs_no_bytes() {
    let mut pair = settled();
    fs::create_dir_all(pair.source.path("new/deep")).unwrap();
    pair.source.write("new/deep/a", &noise(70, 3 * CHUNK));
    pair.source.write("new/b", &noise(71, CHUNK));
    pair.capture();
    let prepared = pair.prepare();
    assert_eq!(pair.asked.len(), 4);
    // The directory has what goes into it, and no slot yet.
    let id = pair.id("new");
    let slot = new_name(prepared.change.staged[&id].slot.unwrap());
    let stage = pair.target.work.stage();
    stage.rename(&slot, stage, &name(&format!("made-{id}"))).unwrap();
    pair.prepare();
    assert_eq!(pair.asked.len(), 4);
}
