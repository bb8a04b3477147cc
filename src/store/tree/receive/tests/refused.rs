//! What is not taken: wrong bytes, hostile records, other roots, trees that somebody else wrote to.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::world::{Pair, name, noise, scope};
use super::{CHUNK, settled};
use crate::manifest::apply::JournalNumber;
use crate::manifest::{
    Body, ChunkHash, LeaveOut, LeftOut, ManifestError, Metadata, Object, Record, TreePath,
};
use crate::store::tree::receive::{ForeignWhy, Limits, ReceiveError, Received, Site, Staging};
use crate::units::{ObjectId, TreeRoot};

const ROOT: ObjectId = ObjectId::ROOT;

fn refusal(result: Result<Received, ReceiveError>) -> ReceiveError {
    result.err().unwrap()
}

#[test]
fn wrong_bytes_and_bytes_that_nobody_asked_for_are_refused() {
    let mut pair = settled();
    pair.source.write("new", &noise(1, 2 * CHUNK + 5));
    pair.capture();
    let (received, id) = (pair.receive(), pair.id("new"));
    let left_out = LeftOut::default();
    let site = Site { tree: &pair.target.tree, work: &pair.target.work, left_out: &left_out };
    let mut staging = Staging::new(received, site, &BTreeSet::new()).unwrap();
    assert!(matches!(
        staging.put_chunk(id, 0, &pair.chunk(id, 0)),
        Err(ReceiveError::NotWanted { .. })
    ));
    let wants = staging.wants(2).unwrap();
    assert_eq!((wants.chunks, wants.is_all), (vec![(id, 0), (id, 1)], false));
    for wrong in [vec![], noise(2, CHUNK), pair.chunk(id, 1), pair.chunk(id, 0)[1..].to_vec()] {
        let put = staging.put_chunk(id, 0, &wrong);
        assert!(matches!(put, Err(ReceiveError::WrongBytes { .. })));
    }
    assert!(matches!(
        staging.put_chunk(id, 2, &pair.chunk(id, 2)),
        Err(ReceiveError::NotWanted { .. })
    ));
    staging.put_chunk(id, 0, &pair.chunk(id, 0)).unwrap();
    let again = staging.put_chunk(id, 0, &pair.chunk(id, 0));
    assert!(matches!(again, Err(ReceiveError::NotWanted { .. })));
    staging.put_chunk(id, 1, &pair.chunk(id, 1)).unwrap();
    assert_eq!(staging.unfinished(), Some(id));
    let prepared =
        staging.prepare(&pair.target.index, &scope(), JournalNumber(9), &pair.target.clock());
    assert!(matches!(prepared, Err(ReceiveError::Incomplete { .. })));
}

fn file(id: ObjectId, bytes: &[u8], text: &str) -> Vec<Record> {
    let (metadata, body) = (Metadata::default(), super::scan::body_of(bytes));
    vec![
        Record::Object { id, object: Object { metadata, body } },
        Record::Chunks { id, first: 0, hashes: super::scan::chunks_of(bytes) },
        Record::Name { directory: ROOT, name: name(text), id },
    ]
}

#[test]
fn hostile_records_are_refused_and_nothing_is_staged() {
    let mut pair = settled();
    pair.source.write("x", b"x");
    pair.capture();
    let good = file(ObjectId(50), b"hello", "hello");
    let receive = |records| pair.receive_as(records, LeftOut::default(), |_| false);
    let manifest = |records| match refusal(receive(records)) {
        ReceiveError::Manifest(why) => why,
        other => panic!("{other}"),
    };
    assert!(receive(good.clone()).is_ok());
    let mut lies = good.clone();
    lies[1] = Record::Chunks { id: ObjectId(50), first: 0, hashes: vec![ChunkHash([7; 32])] };
    assert_eq!(manifest(lies), ManifestError::Content { id: ObjectId(50) });
    let without = |at: usize| {
        let mut records = good.clone();
        records.remove(at);
        records
    };
    assert_eq!(manifest(without(1)), ManifestError::ChunkMissing { id: ObjectId(50), chunk: 0 });
    assert_eq!(manifest(without(0)), ManifestError::ChunksOfOther { id: ObjectId(50) });
    assert_eq!(manifest(without(2)), ManifestError::Nameless { id: ObjectId(50) });
    let reserved = file(ObjectId(50), b"x", ".hotpair");
    assert!(matches!(manifest(reserved), ManifestError::Name(_)));
    let gone = |text| vec![Record::Gone { directory: ROOT, name: name(text) }];
    assert!(matches!(manifest(gone("dir")), ManifestError::NotEmpty { .. }));
    assert!(pair.target.staged().is_empty());
}

#[test]
fn a_content_that_does_not_follow_from_the_base_is_refused() {
    let mut pair = settled();
    pair.source.write_at("file", 0, b"changed");
    pair.capture();
    let mut records = pair.records();
    for record in &mut records {
        match record {
            Record::Chunks { hashes, .. } => hashes[30] = ChunkHash([9; 32]),
            Record::Object { .. }
            | Record::Zeroes { .. }
            | Record::Name { .. }
            | Record::Gone { .. } => {}
        }
    }
    let id = pair.id("file");
    let refused = refusal(pair.receive_as(records, LeftOut::default(), |_| false));
    assert!(
        matches!(refused, ReceiveError::Manifest(ManifestError::Content { id: of }) if of == id)
    );
}

#[test]
fn what_is_left_out_or_excluded_here_is_refused() {
    let mut pair = settled();
    pair.source.write("x", b"x");
    pair.capture();
    let with = |metadata: Metadata, body: Body| {
        let id = ObjectId(50);
        let object = Object { metadata, body };
        vec![Record::Object { id, object }, Record::Name { directory: ROOT, name: name("n"), id }]
    };
    let device = || with(Metadata::default(), Body::CharDevice { major: 1, minor: 3 });
    let setuid = || with(Metadata { mode: 0o4755, ..Metadata::default() }, Body::Fifo);
    let without = |word| LeftOut([word].into());
    let is_left_out = |records, word| {
        let result = pair.receive_as(records, without(word), |_| false);
        matches!(result, Err(ReceiveError::LeftOut { id: ObjectId(50) }))
    };
    assert!(is_left_out(device(), LeaveOut::Devices));
    assert!(is_left_out(setuid(), LeaveOut::Setid));
    assert!(!is_left_out(device(), LeaveOut::Setid));
    assert!(!is_left_out(setuid(), LeaveOut::Devices));
    let dir = pair.id("dir");
    let mut records = file(ObjectId(50), b"x", "n");
    records[2] = Record::Name { directory: dir, name: name("n.tmp"), id: ObjectId(50) };
    let excludes = |path: &TreePath| path.bytes() == b"dir/n.tmp";
    let refused = refusal(pair.receive_as(records.clone(), LeftOut::default(), excludes));
    assert!(matches!(refused, ReceiveError::LeftOut { id: ObjectId(50) }));
    assert!(pair.receive_as(records, LeftOut::default(), |path| path.bytes() == b"n.tmp").is_ok());
}

#[test]
fn a_delta_beyond_the_limits_is_refused() {
    let mut pair = settled();
    for at in 0..20 {
        pair.source.write(&format!("file-{at}"), &noise(at, CHUNK));
    }
    pair.capture();
    let records = pair.records();
    let push = |limits| {
        let mut incoming = pair.incoming(LeftOut::default(), limits);
        records.iter().cloned().try_for_each(|record| incoming.push(record))
    };
    push(Limits::default()).unwrap();
    let few = push(Limits { records: 40, ..Limits::default() });
    assert!(matches!(few, Err(ReceiveError::Manifest(ManifestError::TooMany))));
    for limits in
        [Limits { memory: 5000, ..Limits::default() }, Limits { spool: 2000, ..Limits::default() }]
    {
        assert!(matches!(push(limits), Err(ReceiveError::TooLarge { .. })));
    }
}

#[test]
fn a_delta_for_another_tree_or_with_another_root_is_refused() {
    let mut pair = settled();
    pair.source.write("new", b"new");
    let old = pair.position;
    let announced = pair.capture();
    pair.position = crate::units::TreePosition { root: TreeRoot([7; 32]), ..announced };
    let received = pair.receive();
    let left_out = LeftOut::default();
    let target = &pair.target;
    let site = Site { tree: &target.tree, work: &target.work, left_out: &left_out };
    let mut staging = Staging::new(received, site, &BTreeSet::new()).unwrap();
    let wants = staging.wants(10).unwrap();
    for (id, chunk) in wants.chunks {
        staging.put_chunk(id, chunk, &pair.chunk(id, chunk)).unwrap();
    }
    let prepared = staging.prepare(&target.index, &scope(), JournalNumber(3), &target.clock());
    match prepared.err().unwrap() {
        ReceiveError::Root { announced: said, found } => {
            assert_eq!((said, found), (TreeRoot([7; 32]), announced.root));
        }
        other => panic!("{other}"),
    }
    for (from, to) in [(announced, announced), (old, old)] {
        let mut incoming = pair.incoming(LeftOut::default(), Limits::default());
        pair.records().into_iter().try_for_each(|record| incoming.push(record)).unwrap();
        let refused = refusal(incoming.finish((from, to), |_| false));
        assert!(matches!(refused, ReceiveError::Position { .. }));
    }
}

/// What is found when the target was changed like this, and the source changed a lot.
fn foreign(change: impl Fn(&Pair)) -> Vec<(String, ForeignWhy)> {
    let mut pair = settled();
    change(&pair);
    pair.source.write_at("file", 0, b"changed");
    pair.source.write("dir/new", b"new");
    fs::remove_file(pair.source.path("dir/other")).unwrap();
    pair.source.write("fresh", b"fresh");
    pair.capture();
    let received = pair.receive();
    let Err(found) = pair.try_prepare(received) else { return Vec::new() };
    let text =
        |name: Option<crate::manifest::Name>| name.map_or(String::new(), |it| it.to_string());
    assert!(!pair.target.staged().iter().any(|it| it.starts_with("new-")), "nothing is complete");
    found.into_iter().map(|it| (text(it.name), it.why)).collect()
}

#[test]
fn foreign_writes_are_listed_and_innocent_stamps_are_not() {
    let target = |pair: &Pair, inner: &str| pair.target.path(inner);
    assert_eq!(foreign(|_| ()), []);
    let mode = |path: std::path::PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let one = |text: &str, why| vec![(text.to_owned(), why)];
    let edited = foreign(|pair| pair.target.write_at("file", 70_000, b"foreign"));
    assert_eq!(edited, one("file", ForeignWhy::Changed));
    let gone = foreign(|pair| fs::remove_file(target(pair, "dir/other")).unwrap());
    assert_eq!(gone, one("other", ForeignWhy::Missing));
    let occupied = foreign(|pair| fs::write(target(pair, "fresh"), "mine").unwrap());
    assert_eq!(occupied, one("fresh", ForeignWhy::Occupied));
    let chmod = foreign(|pair| mode(target(pair, "dir"), 0o700));
    assert_eq!(chmod, one("dir", ForeignWhy::Changed));
    let replaced = foreign(|pair| {
        let bytes = fs::read(target(pair, "file")).unwrap();
        fs::remove_file(target(pair, "file")).unwrap();
        fs::write(target(pair, "file"), bytes).unwrap();
    });
    assert_eq!(replaced, one("file", ForeignWhy::Replaced));
    let moved = foreign(|pair| {
        let tree = &pair.target.tree;
        tree.rename(&name("dir"), tree, &name("away")).unwrap();
    });
    let missing = |text: &str| (text.to_owned(), ForeignWhy::Missing);
    assert_eq!(moved, [missing("dir"), missing("other")]);
    // A link to the same content somewhere else is not followed.
    let linked = foreign(|pair| {
        let tree = &pair.target.tree;
        tree.rename(&name("dir"), tree, &name("away")).unwrap();
        std::os::unix::fs::symlink("away", target(pair, "dir")).unwrap();
    });
    assert_eq!(linked, [("dir".to_owned(), ForeignWhy::Replaced), missing("other")]);
    // Elsewhere in the tree, excluded beside, or a link that came and went.
    let innocent = foreign(|pair| {
        fs::write(target(pair, "dir/excluded"), "x").unwrap();
        fs::write(target(pair, "excluded"), "x").unwrap();
        fs::hard_link(target(pair, "file"), target(pair, "again")).unwrap();
        fs::remove_file(target(pair, "again")).unwrap();
    });
    assert_eq!(innocent, []);
    // With the time put back, too.
    let hidden = foreign(|pair| {
        let file = fs::OpenOptions::new().write(true).open(target(pair, "file")).unwrap();
        let modified = file.metadata().unwrap().modified().unwrap();
        pair.target.write_at("file", 70_000, b"foreign");
        file.set_times(fs::FileTimes::new().set_modified(modified)).unwrap();
    });
    assert_eq!(hidden, one("file", ForeignWhy::Changed));
}

#[test]
fn what_stands_in_an_unknown_tree_is_foreign_where_a_name_is_to_go() {
    let mut pair = Pair::new();
    pair.source.write("a", b"theirs");
    pair.source.write("b", b"theirs");
    pair.target.write("b", b"mine");
    pair.target.write("c", b"mine");
    pair.capture();
    let received = pair.receive();
    let Err(found) = pair.try_prepare(received) else { panic!("nothing foreign") };
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].name.as_ref(), found[0].why), (Some(&name("b")), ForeignWhy::Occupied));
}

#[test]
fn a_staging_that_failed_says_so_ever_after() {
    let mut pair = settled();
    pair.source.write("new", &noise(1, CHUNK));
    pair.capture();
    let received = pair.receive();
    let left_out = LeftOut::default();
    let target = &pair.target;
    let site = Site { tree: &target.tree, work: &target.work, left_out: &left_out };
    let mut staging = Staging::new(received, site, &BTreeSet::new()).unwrap();
    // Nothing can be made in a folder that is gone.
    fs::remove_dir(target.stage()).unwrap();
    assert!(matches!(staging.wants(10), Err(ReceiveError::Kernel { .. })));
    assert!(matches!(staging.wants(10), Err(ReceiveError::Incomplete { .. })));
    let prepared = staging.prepare(&target.index, &scope(), JournalNumber(3), &target.clock());
    assert!(matches!(prepared, Err(ReceiveError::Incomplete { .. })));
}
