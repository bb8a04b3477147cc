//! Records of a whole tree that are none: nothing is changed by them.

use std::fs;

use hotpair::manifest::{Keep, Kind, Metadata, Object, Record};
use hotpair::store::tree::index::IndexError;
use hotpair::store::tree::receive::{Limits, Prepare, ReceiveError};
use hotpair::store::tree::reconcile::Reading;
use hotpair::store::tree::target::{Target, TargetError};
use hotpair::units::{ObjectId, TreeNumber, TreePosition, TreeRoot};

use super::{World, stamps};
use crate::pair::ShipError;

const ROOT: ObjectId = ObjectId::ROOT;

/// All records of the newest generation of the source.
fn records(world: &World) -> Vec<Record> {
    let mut records = Vec::new();
    let take = |batch: Vec<u8>| -> Result<(), ShipError> {
        let mut rest = &*batch;
        while !rest.is_empty() {
            let (record, behind) = Record::decode(rest).unwrap();
            records.push(record);
            rest = behind;
        }
        Ok(())
    };
    world.source.outgoing().records(TreeNumber(0), 1 << 20, take).unwrap();
    records
}

/// Why the records are refused, or what they would lead to.
fn refusal(there: &Target, records: &[Record], to: TreePosition) -> Result<bool, TargetError> {
    let mut incoming = there.begin_whole(Limits::default(), Keep::Quarantine)?;
    for record in records {
        incoming.push(record.clone())?;
    }
    let mut staging = there.stage(there.end(incoming, to)?)?;
    while !staging.wants(100)?.is_all {}
    Ok(matches!(there.prepare(staging)?, Prepare::Ready(_)))
}

/// One change of a list of records.
type Change = fn(&mut Vec<Record>);

const CHANGES: [Change; 8] = [
    // Each object and each name is missed.
    |records| drop(records.remove(0)),
    |records| drop(records.pop()),
    |records| records.push(records[records.len() - 1].clone()),
    |records| records.swap(0, 1),
    |records| records[0] = Record::Object { id: ROOT, object: object_of(records, Kind::Regular) },
    // A directory gets a second name.
    |records| {
        let Some(Record::Name { directory, name, .. }) = records.pop() else { panic!() };
        let id = records.iter().find_map(|record| match record {
            Record::Name { id, directory: ROOT, .. } => Some(*id),
            _ => None,
        });
        records.push(Record::Name { directory, name, id: id.unwrap() });
    },
    // Nothing leads to it.
    |records| {
        let object = object_of(records, Kind::Directory);
        records.insert(first_name(records), Record::Object { id: ObjectId::MAX, object });
    },
    Vec::clear,
];

fn object_of(records: &[Record], kind: Kind) -> Object {
    let body = records.iter().find_map(|record| match record {
        Record::Object { object, .. } if object.kind() == kind => Some(object.body.clone()),
        _ => None,
    });
    Object { metadata: Metadata::default(), body: body.unwrap() }
}

fn first_name(records: &[Record]) -> usize {
    records.iter().position(|it| matches!(it, Record::Name { .. })).unwrap()
}

/// The file that the last name leads to gets the highest number that a record can have.
fn number_highest(records: &mut Vec<Record>) {
    let Some(Record::Name { id: old, .. }) = records.last().cloned() else { panic!() };
    let (mut others, mut moved) = (Vec::new(), Vec::new());
    let new = ObjectId::MAX;
    for record in records.drain(..) {
        match record {
            Record::Object { id, object } if id == old => {
                moved.push(Record::Object { id: new, object });
            }
            Record::Chunks { id, first, hashes } if id == old => {
                moved.push(Record::Chunks { id: new, first, hashes });
            }
            Record::Name { directory, name, id } if id == old => {
                others.push(Record::Name { directory, name, id: new });
            }
            record => others.push(record),
        }
    }
    let at = first_name(&others);
    others.splice(at..at, moved);
    *records = others;
}

fn received(refused: Result<bool, TargetError>) -> ReceiveError {
    match refused {
        Err(TargetError::Receive(error)) => *error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn records_that_are_no_whole_tree_change_nothing() {
    let world = World::new(|tree| {
        fs::create_dir_all(tree.join("d/e")).unwrap();
        fs::write(tree.join("d/f"), "text").unwrap();
        fs::write(tree.join("g"), "other text").unwrap();
    });
    world.seed();
    fs::write(world.tree().join("mine"), "mine").unwrap();
    let there = world.surveyed(Reading::Everything);
    let before = stamps(&world.tree());
    let (good, to) = (records(&world), world.source.position());
    let after = |change: Change| {
        let mut records = good.clone();
        change(&mut records);
        let refused = refusal(&there, &records, to);
        assert_eq!(stamps(&world.tree()), before);
        refused
    };
    assert!(after(|_| ()).unwrap());
    for (index, change) in CHANGES.into_iter().enumerate() {
        let error = received(after(change));
        assert!(matches!(error, ReceiveError::Manifest(_)), "change {index}: {error}");
    }
    // What only this node has needs a number, too.
    let error = received(after(number_highest));
    assert!(matches!(error, ReceiveError::Index(IndexError::Numbers)), "{error}");
    let wrong = TreePosition { root: TreeRoot([9; 32]), ..to };
    let error = received(refusal(&there, &good, wrong));
    assert!(matches!(error, ReceiveError::Root { .. }), "{error}");
    let nowhere = TreePosition { number: TreeNumber(0), ..to };
    let error = received(refusal(&there, &good, nowhere));
    assert!(matches!(error, ReceiveError::Position { .. }), "{error}");
    assert!(after(|_| ()).unwrap());
    drop(there);
    assert!(!world.open().is_known());
}
