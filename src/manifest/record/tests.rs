//! Facts about the bytes of records.

use std::path::PathBuf;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::manifest::{MODE_MASK, XATTR_VALUE_LEN_MAX, XATTRS_LEN_MAX};

fn metadata(mode: u16) -> Metadata {
    Metadata {
        mode,
        uid: 0x0102_0304,
        gid: 0x0506_0708,
        mtime: FileTime { seconds: -2, nanos: 0x0807_0605 },
        xattrs: vec![
            ((*b"security.capability").into(), (*b"\x01\x00").into()),
            ((*b"user.empty").into(), Box::default()),
        ],
    }
}

fn bodies() -> Vec<(&'static str, Body)> {
    vec![
        ("regular", Body::Regular { size: 0x1122_3344, content: ContentHash([0xcc; 32]) }),
        ("directory", Body::Directory),
        ("symlink", Body::Symlink { target: (*b"../x\xff").into() }),
        ("fifo", Body::Fifo),
        ("socket", Body::Socket),
        ("char-device", Body::CharDevice { major: 1, minor: 3 }),
        ("block-device", Body::BlockDevice { major: 8, minor: 0x10 }),
    ]
}

fn objects() -> Vec<(&'static str, Object)> {
    let object = |(name, body): (&'static str, Body)| {
        let mode = if matches!(body, Body::Symlink { .. }) { 0 } else { 0o4755 };
        (name, Object { metadata: metadata(mode), body })
    };
    bodies().into_iter().map(object).collect()
}

fn entries() -> Vec<(String, Entry)> {
    let mut all = Vec::new();
    for (name, object) in objects() {
        if object.kind() == Kind::Directory {
            let inside = Beside::Inside(DirectoryHash([0xdd; 32]));
            all.push((name.to_owned(), Entry::new(object, inside).unwrap()));
            continue;
        }
        let path = Beside::Smallest(TreePath::new(b"a/b\xff").unwrap());
        all.push((name.to_owned(), Entry::new(object.clone(), Beside::Nothing).unwrap()));
        all.push((format!("{name}-linked"), Entry::new(object, path).unwrap()));
    }
    all
}

fn records() -> Vec<(String, Record)> {
    let id = ObjectId(0x0807_0605_0403_0201);
    let name = Name::new(b"na\xffme").unwrap();
    let mut all: Vec<_> = objects()
        .into_iter()
        .map(|(name, object)| (format!("object-{name}"), Record::Object { id, object }))
        .collect();
    let hashes = vec![ChunkHash([1; 32]), ChunkHash([2; 32])];
    all.push(("chunks".to_owned(), Record::Chunks { id, first: 1022, hashes }));
    all.push(("zeroes".to_owned(), Record::Zeroes { id, first: 5, count: 1 << 20 }));
    let directory = ObjectId::ROOT;
    all.push(("name".to_owned(), Record::Name { directory, name: name.clone(), id }));
    all.push(("gone".to_owned(), Record::Gone { directory: id, name }));
    all
}

fn bytes_of(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

/// One record and nothing else.
fn read(bytes: &[u8]) -> Result<Record, ManifestError> {
    let (record, rest) = Record::decode(bytes)?;
    if rest.is_empty() { Ok(record) } else { Err(ManifestError::Trailing { len: rest.len() }) }
}

#[test]
fn the_bytes_of_every_record_are_those_of_the_first_release() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tree");
    let entries = entries().into_iter().map(|(name, entry)| {
        assert_eq!(Entry::decode(&entry.encode()).as_ref(), Ok(&entry), "{name}");
        (format!("v1-entry-{name}"), entry.encode(), 0)
    });
    let records = records().into_iter().map(|(name, record)| {
        assert_eq!(read(&bytes_of(&record)).as_ref(), Ok(&record), "{name}");
        (format!("v1-record-{name}"), bytes_of(&record), 1)
    });
    // The first byte says which of the two it is; it belongs to the file, not to the record.
    for (name, bytes, which) in entries.chain(records) {
        let bytes = [&[which][..], &bytes].concat();
        let path = folder.join(&name);
        if std::env::var_os("HOTPAIR_BLESS").is_some() {
            std::fs::write(&path, &bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            bytes == golden,
            "{name} looks different: every root changes, make it a new format"
        );
    }
}

#[test]
fn no_truncation_is_taken_for_a_record() {
    for (name, record) in records() {
        let bytes = bytes_of(&record);
        for len in 0..bytes.len() {
            let error = Record::decode(&bytes[..len]).unwrap_err();
            assert!(matches!(error, ManifestError::Short { .. }), "{name} cut to {len}: {error}");
        }
    }
    for (name, entry) in entries() {
        let bytes = entry.encode();
        for len in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..len]).is_err(), "{name} cut to {len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Entry::decode(&longer), Err(ManifestError::Trailing { len: 1 }), "{name}");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_means_something_else() {
    for (name, record) in records() {
        let good = bytes_of(&record);
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok((changed, rest)) = Record::decode(&bytes) {
                assert_ne!(changed, record, "{name} with bit {bit} flipped");
                let used = bytes.len() - rest.len();
                assert_eq!(bytes_of(&changed), bytes[..used], "{name} with bit {bit} flipped");
            }
        }
    }
    for (name, entry) in entries() {
        let good = entry.encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(changed) = Entry::decode(&bytes) {
                assert_ne!(changed, entry, "{name} with bit {bit} flipped");
                assert_eq!(changed.encode(), bytes, "{name} with bit {bit} flipped");
            }
        }
    }
}

#[test]
fn what_is_not_canonical_is_an_error() {
    let chunks = |first, hashes| bytes_of(&Record::Chunks { id: ObjectId(1), first, hashes });
    let zeroes = |first, count| bytes_of(&Record::Zeroes { id: ObjectId(1), first, count });
    let name = Name::new(b"x").unwrap();
    let gone =
        |directory| bytes_of(&Record::Gone { directory: ObjectId(directory), name: name.clone() });
    let hash = ChunkHash([1; 32]);
    let wrong = |first| ManifestError::Chunks { first };
    let mut dots = gone(1);
    dots[10] = b'.';
    let cases = [
        (vec![0], ManifestError::RecordKind { found: 0 }),
        (vec![6], ManifestError::RecordKind { found: 6 }),
        (gone(0), ManifestError::ObjectZero),
        (gone(u64::MAX), ManifestError::ObjectTooHigh { found: u64::MAX }),
        (dots, ManifestError::Name(crate::manifest::NameError::Dots)),
        (chunks(0, Vec::new()), wrong(0)),
        (chunks(1023, vec![hash; 2]), wrong(1023)),
        (chunks(0, vec![hash, ChunkHash::ZERO]), wrong(0)),
        (chunks(u64::MAX, vec![hash]), wrong(u64::MAX)),
        (zeroes(0, 0), wrong(0)),
        (zeroes(7, u64::MAX), wrong(7)),
        (zeroes(1 << 63, 1 << 62), wrong(1 << 63)),
    ];
    for (bytes, error) in cases {
        assert_eq!(Record::decode(&bytes).map(|(record, _)| record), Err(error));
    }
    let mut flag = Entry::new(objects()[3].1.clone(), Beside::Nothing).unwrap().encode();
    *flag.last_mut().unwrap() = 2;
    assert_eq!(Entry::decode(&flag), Err(ManifestError::Flag { found: 2 }));
    flag[0] = 8;
    assert_eq!(Entry::decode(&flag), Err(ManifestError::Kind { found: 8 }));
}

#[test]
fn only_a_directory_has_something_inside() {
    let objects = objects();
    let of = |at: usize, beside| Entry::new(objects[at].1.clone(), beside).map(|_| ());
    let inside = || Beside::Inside(DirectoryHash([0; 32]));
    let path = Beside::Smallest(TreePath::new(b"a").unwrap());
    assert_eq!(of(0, inside()), Err(ManifestError::DirectoryPath));
    assert_eq!(of(1, Beside::Nothing), Err(ManifestError::DirectoryPath));
    assert_eq!(of(1, path), Err(ManifestError::DirectoryPath));
    assert_eq!(of(1, inside()), Ok(()));
}

#[test]
fn the_longest_record_is_within_its_limit() {
    let mut xattrs = Vec::new();
    let mut len = 0;
    for number in 0_u32.. {
        // Names of six bytes are the shortest; there are 254 of them, then some of seven.
        let bytes = number.to_be_bytes().map(|byte| byte.saturating_add(1));
        let suffix = if number < 255 { &bytes[3..] } else { &bytes[1..] };
        let name = [b"user.", suffix].concat();
        if len + name.len() > XATTRS_LEN_MAX {
            break;
        }
        len += name.len();
        xattrs.push((name.into_boxed_slice(), Box::default()));
    }
    xattrs.sort();
    xattrs.dedup();
    let body = Body::Symlink { target: vec![b'x'; 4095].into() };
    let metadata = Metadata { xattrs, ..Metadata::default() };
    let path = vec!["x".repeat(255); 64].join("/");
    let path = Beside::Smallest(TreePath::new(path.as_bytes()).unwrap());
    let entry = Entry::new(Object { metadata, body }, path).unwrap();
    let bytes = entry.encode();
    assert!(bytes.len() > RECORD_LEN_MAX / 2, "{}", bytes.len());
    assert_eq!(Entry::decode(&bytes), Ok(entry));
    // The most that fits: each attribute costs its length of one byte and that of its value.
    let overhead = XATTRS_LEN_MAX / 6 * 5 + 4095 + (16 << 10) + 64 + 64;
    assert!(XATTRS_LEN_MAX + overhead <= RECORD_LEN_MAX);
}

#[test]
fn a_record_that_says_to_be_longer_than_the_limit_is_refused() {
    let object = Object { metadata: Metadata::default(), body: Body::Fifo };
    let mut bytes = bytes_of(&Record::Object { id: ObjectId(2), object });
    let count_at = 1 + 8 + 1 + 2 + 4 + 4 + 12;
    bytes[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    for number in 0..20_u8 {
        bytes.extend_from_slice(b"\x06user.");
        bytes.push(number + 1);
        bytes.extend_from_slice(&(64_u32 << 10).to_le_bytes());
        bytes.resize(bytes.len() + XATTR_VALUE_LEN_MAX, 0);
    }
    let error = Record::decode(&bytes).unwrap_err();
    assert!(matches!(error, ManifestError::RecordTooLong { .. }), "{error}");
    assert!(matches!(Entry::decode(&bytes), Err(ManifestError::RecordTooLong { .. })));
}

fn any_object() -> impl Strategy<Value = Object> {
    let body = prop_oneof![
        (0..=FILE_LEN_MAX, any::<[u8; 32]>())
            .prop_map(|(size, content)| Body::Regular { size, content: ContentHash(content) }),
        Just(Body::Directory),
        vec(1..=255_u8, 1..40).prop_map(|target| Body::Symlink { target: target.into() }),
        Just(Body::Fifo),
        Just(Body::Socket),
        any::<(u32, u32)>().prop_map(|(major, minor)| Body::CharDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Body::BlockDevice { major, minor }),
    ];
    let xattr = (vec(1..=255_u8, 1..8), vec(any::<u8>(), 0..9));
    let xattrs = vec(xattr, 0..4).prop_map(|xattrs| {
        let named = |(name, value): (Vec<u8>, Vec<u8>)| ([b"user.", &name[..]].concat(), value);
        let sorted: std::collections::BTreeMap<_, _> = xattrs.into_iter().map(named).collect();
        sorted.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
    });
    let numbers = (0..=MODE_MASK, any::<u32>(), any::<u32>(), any::<i64>(), 0..1_000_000_000_u32);
    (body, numbers, xattrs).prop_map(|(body, (mode, uid, gid, seconds, nanos), xattrs)| {
        let mode = if matches!(body, Body::Symlink { .. }) { 0 } else { mode };
        let mtime = FileTime { seconds, nanos };
        Object { metadata: Metadata { mode, uid, gid, mtime, xattrs }, body }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_object_survives_its_bytes(object in any_object(), id in 1..=ObjectId::MAX.0) {
        let record = Record::Object { id: ObjectId(id), object };
        prop_assert_eq!(read(&bytes_of(&record)), Ok(record));
    }

    #[test]
    fn any_bytes_are_refused_or_written_back(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok((record, rest)) = Record::decode(&bytes) {
            prop_assert_eq!(bytes_of(&record), &bytes[..bytes.len() - rest.len()]);
        }
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.encode(), bytes);
        }
    }
}
