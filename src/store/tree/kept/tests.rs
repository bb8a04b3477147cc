//! What is written is read, and nothing else is.

use super::super::folder::Folder;
use super::file::{Reader, head, name_of};
use super::*;
use crate::manifest::apply::{JournalNumber, Slot};
use crate::manifest::{Body, ChunkHash, ContentHash, FileTime, Metadata, Name, Object};
use crate::units::{Label, ObjectId, TreeNumber, TreePosition, TreeRoot};

const JOURNAL: JournalNumber = JournalNumber(7);

fn about(number: u64, label: Label) -> About {
    let position = TreePosition { number: TreeNumber(number), root: TreeRoot([3; 32]) };
    let captured_at = FileTime { seconds: -5, nanos: 9 };
    About { position, label, captured_at, entries: 4, changed: 5, deleted: 6 }
}

fn sample() -> (Head, Vec<Kept>) {
    let (from, to) = (about(1, Label::Quiesced), about(2, Label::Fuzzy));
    let head = Head { journal: JOURNAL, from, to, leads_back: true };
    let content = ContentHash([4; 32]);
    let object =
        Object { metadata: Metadata::default(), body: Body::Regular { size: 70_000, content } };
    let name = Name::new(b"\xff\n").unwrap();
    let all = vec![
        Kept::Born(ObjectId(9)),
        Kept::Object(ObjectId(5), object),
        Kept::Segment(ObjectId(5), 0, vec![ChunkHash([1; 32]), ChunkHash([2; 32])]),
        Kept::Name(ObjectId(1), name.clone(), Some(ObjectId(5))),
        Kept::Name(ObjectId(2), name, None),
        Kept::Hold(Hold { id: ObjectId(5), slot: Slot(1 << 40), is_patch: true }),
    ];
    (head, all)
}

fn written() -> (tempfile::TempDir, Folder) {
    let outer = tempfile::tempdir().unwrap();
    let state = Folder::open(outer.path()).unwrap();
    let (head, all) = sample();
    for _ in 0..2 {
        let mut writer = Writer::new(&state, &head).unwrap();
        for kept in &all {
            writer.push(kept).unwrap();
        }
        writer.end().unwrap();
    }
    (outer, state)
}

fn read(state: &Folder) -> Result<(Head, Vec<Kept>), KeptError> {
    let (mut reader, head) = Reader::open(state, JOURNAL)?.unwrap();
    let mut all = Vec::new();
    while let Some((kept, _)) = reader.next()? {
        all.push(kept);
    }
    Ok((head, all))
}

#[test]
fn what_is_written_is_read() {
    let (_outer, state) = written();
    assert_eq!(read(&state).unwrap(), sample());
    assert_eq!(head(&state, JOURNAL).unwrap(), Some(sample().0));
    assert_eq!(head(&state, JournalNumber(8)).unwrap(), None);
    let name = name_of(JOURNAL);
    assert_eq!(number_of(&name, FILE_PREFIX), Some(JOURNAL));
    for other in ["kept-", "kept-07", "kept-+7", "kept-x", "other-7"] {
        assert_eq!(number_of(&Name::new(other.as_bytes()).unwrap(), FILE_PREFIX), None);
    }
}

#[test]
fn no_flipped_bit_no_cut_and_nothing_behind_the_end_is_read() {
    let (outer, state) = written();
    let path = outer.path().join("kept-7");
    let whole = std::fs::read(&path).unwrap();
    let is_damaged = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        matches!(read(&state), Err(KeptError::Damaged { .. }))
    };
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(is_damaged(&flipped), "bit {bit}");
    }
    for len in 0..whole.len() {
        assert!(is_damaged(&whole[..len]), "{len} bytes");
    }
    assert!(is_damaged(&[&whole[..], &[0]].concat()));
    std::fs::write(outer.path().join("kept-8"), &whole).unwrap();
    assert!(matches!(head(&state, JournalNumber(8)), Err(KeptError::Damaged { .. })));
}
