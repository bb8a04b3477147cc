//! The bytes of a journal, and the hash of them that a commit record has.
//!
//! Everything is little-endian. A header, then records, each with its length and a checksum that
//! goes on from the record before, so that none can be missing, doubled or out of order: anchors,
//! operations in the order in which they are carried out, and an end that counts them. There is one
//! way to write a journal, and only that is read. The file is this node's own and is never sent;
//! lengths are limited all the same, because a disk is not trusted either.

use std::fmt;

use super::operation::{Anchor, Direction, Finish, Journal, Operation, Phase};
use super::place::{JournalNumber, Place, Slot};
use super::reader::{Reader, operation, position};
use crate::manifest::{Identity, Metadata};
use crate::units::TreePosition;

/// Format of the bytes.
pub const JOURNAL_FORMAT: u32 = 1;
/// Longest record in bytes, without length and checksum: two times all extended attributes that an
/// object can have, of the shortest names and values, and room for the rest.
pub const RECORD_LEN_MAX: u32 = 4 << 20;
/// First bytes of a journal.
pub(super) const MAGIC: [u8; 8] = *b"hpjourn\0";

pub(super) const TAG_ANCHOR: u8 = 1;
pub(super) const TAG_OPERATION: u8 = 2;
pub(super) const TAG_END: u8 = 3;

/// BLAKE3 of all bytes of a journal.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct JournalHash(pub [u8; 32]);

impl JournalHash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl fmt::Debug for JournalHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why these bytes are no journal.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JournalError {
    /// It begins with something else.
    #[error("not a journal")]
    Magic,
    /// Another release wrote it.
    #[error("journal format {found}, this build reads {JOURNAL_FORMAT}")]
    Format {
        /// Its format.
        found: u32,
    },
    /// It ends within something.
    #[error("the journal is cut short")]
    Short,
    /// What was read is not what was written.
    #[error("record {record} of the journal is damaged")]
    Checksum {
        /// Counted from one; zero is the header.
        record: u64,
    },
    /// A value that nobody writes.
    #[error("record {record} of the journal: {field} is not what it can be")]
    Value {
        /// Counted from one; zero is the header.
        record: u64,
        /// Which value.
        field: &'static str,
    },
    /// Records in an order that nobody writes, or bytes behind the end.
    #[error("record {record} of the journal is out of order")]
    Order {
        /// Counted from one.
        record: u64,
    },
}

/// The one way to write `journal`.
pub fn encode(journal: &Journal) -> Vec<u8> {
    let mut bytes = header(journal);
    let mut sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
    let mut append = |payload: &[u8]| {
        let len =
            u32::try_from(payload.len()).expect("objects within the limits make short records");
        sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &len.to_le_bytes()), payload);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes.extend_from_slice(payload);
    };
    for anchor in &journal.anchors {
        append(&anchor_payload(anchor));
    }
    for phase in journal.direction.phases() {
        for operation in journal.list(phase) {
            append(&operation_payload(phase, operation));
        }
    }
    let mut end = vec![TAG_END];
    let operation_count: usize = journal.lists.iter().map(Vec::len).sum();
    let records = journal.anchors.len() as u64 + operation_count as u64;
    end.extend_from_slice(&records.to_le_bytes());
    append(&end);
    bytes
}

/// The journal that `bytes` are.
///
/// # Errors
/// [`JournalError`] if they are not exactly what [`encode`] makes of one.
pub fn decode(bytes: &[u8]) -> Result<Journal, JournalError> {
    let mut file = Reader::new(bytes, 0);
    let mut journal = read_header(&mut file)?;
    let header_len = bytes.len() - file.rest().len();
    let mut sum = crc32c::crc32c(bytes.get(..header_len).unwrap_or_default());
    if file.u32()? != sum {
        return Err(JournalError::Checksum { record: 0 });
    }
    let mut phases = journal.direction.phases().into_iter().peekable();
    let mut has_operations = false;
    for record in 1.. {
        let mut payload = read_record(&mut file, &mut sum, record)?;
        match payload.u8()? {
            TAG_ANCHOR if !has_operations => {
                let anchor = read_anchor(&mut payload)?;
                if journal.anchors.last().is_some_and(|last| last.directory >= anchor.directory) {
                    return Err(JournalError::Order { record });
                }
                journal.anchors.push(anchor);
            }
            TAG_OPERATION => {
                let phase = payload.u8()?;
                while phases.next_if(|next| *next as u8 != phase).is_some() {}
                if phases.peek().is_none() {
                    return Err(JournalError::Order { record });
                }
                has_operations = true;
                let operation = operation(&mut payload)?;
                journal.lists[usize::from(phase)].push(operation);
            }
            TAG_END if payload.u64()? == record - 1 && file.rest().is_empty() => {
                payload.end("the end")?;
                return Ok(journal);
            }
            TAG_ANCHOR | TAG_END => return Err(JournalError::Order { record }),
            _ => return Err(JournalError::Value { record, field: "the tag" }),
        }
        payload.end("the length")?;
    }
    Err(JournalError::Short)
}

/// The next record, if its checksum goes on from `sum`.
fn read_record<'a>(
    file: &mut Reader<'a>,
    sum: &mut u32,
    record: u64,
) -> Result<Reader<'a>, JournalError> {
    let len = file.u32()?;
    if len > RECORD_LEN_MAX {
        return Err(JournalError::Value { record, field: "the length" });
    }
    let expected = file.u32()?;
    let payload = file.bytes(usize::try_from(len).map_err(|_| JournalError::Short)?)?;
    *sum = crc32c::crc32c_append(crc32c::crc32c_append(*sum, &len.to_le_bytes()), payload);
    if expected != *sum {
        return Err(JournalError::Checksum { record });
    }
    Ok(Reader::new(payload, record))
}

fn header(journal: &Journal) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&JOURNAL_FORMAT.to_le_bytes());
    bytes.extend_from_slice(&journal.number.0.to_le_bytes());
    bytes.push(journal.direction as u8);
    put_position(&mut bytes, &journal.base);
    put_position(&mut bytes, &journal.target);
    put_identity(&mut bytes, journal.root);
    bytes
}

fn read_header(file: &mut Reader<'_>) -> Result<Journal, JournalError> {
    if file.bytes(MAGIC.len())? != MAGIC {
        return Err(JournalError::Magic);
    }
    let found = file.u32()?;
    if found != JOURNAL_FORMAT {
        return Err(JournalError::Format { found });
    }
    Ok(Journal {
        number: JournalNumber(file.u64()?),
        direction: match file.u8()? {
            1 => Direction::Forward,
            2 => Direction::Back,
            _ => return Err(file.error("the direction")),
        },
        base: position(file)?,
        target: position(file)?,
        root: file.identity()?,
        anchors: Vec::new(),
        lists: Default::default(),
    })
}

fn anchor_payload(anchor: &Anchor) -> Vec<u8> {
    let mut bytes = vec![TAG_ANCHOR];
    put_identity(&mut bytes, anchor.directory);
    put_place(&mut bytes, &anchor.at);
    bytes
}

fn read_anchor(payload: &mut Reader<'_>) -> Result<Anchor, JournalError> {
    let directory = payload.identity()?;
    let at = payload.place()?;
    match at.directory() {
        Some(_) => Ok(Anchor { directory, at }),
        None => Err(payload.error("the place of a directory")),
    }
}

fn operation_payload(phase: Phase, operation: &Operation) -> Vec<u8> {
    let mut bytes = vec![TAG_OPERATION, phase as u8];
    let out = &mut bytes;
    match operation {
        Operation::Move(it) => {
            out.push(1);
            put_identity(out, it.what);
            put_places(out, &it.before);
            put_place(out, &it.from);
            put_place(out, &it.to);
            put_places(out, &it.after);
        }
        Operation::Exchange(it) => {
            out.push(2);
            put_identity(out, it.new);
            put_places(out, &it.before);
            put_place(out, &it.from);
            put_place(out, &it.at);
            put_identity(out, it.old);
            put_place(out, &it.to);
            put_places(out, &it.after);
        }
        Operation::Link(it) => {
            out.push(3);
            put_identity(out, it.what);
            put_place(out, &it.existing);
            put_place(out, &it.slot);
            put_place(out, &it.after);
        }
        Operation::Patch(it) => {
            out.push(4);
            put_identity(out, it.what);
            put_places(out, &it.at);
            put_place(out, &it.source);
            put_place(out, &it.back);
        }
        Operation::Set(it) => {
            out.push(5);
            put_identity(out, it.what);
            put_places(out, &it.at);
            put_metadata(out, &it.old);
            put_metadata(out, &it.new);
        }
        Operation::Empty { directory } => {
            out.push(6);
            put_identity(out, *directory);
        }
        Operation::Finish(it) => put_finish(out, it),
    }
    bytes
}

fn put_finish(out: &mut Vec<u8>, it: &Finish) {
    out.push(7);
    put_identity(out, it.directory);
    for side in [&it.old, &it.new] {
        out.push(u8::from(side.is_some()));
        if let Some((depth, metadata)) = side {
            out.extend_from_slice(&depth.to_le_bytes());
            put_metadata(out, metadata);
        }
    }
}

fn put_position(out: &mut Vec<u8>, position: &TreePosition) {
    out.extend_from_slice(&position.number.0.to_le_bytes());
    out.extend_from_slice(&position.root.0);
}

fn put_identity(out: &mut Vec<u8>, identity: Identity) {
    out.extend_from_slice(&identity.inode.to_le_bytes());
    out.push(u8::from(identity.birth.is_some()));
    if let Some(birth) = identity.birth {
        out.extend_from_slice(&birth.seconds.to_le_bytes());
        out.extend_from_slice(&birth.nanos.to_le_bytes());
    }
}

fn put_place(out: &mut Vec<u8>, place: &Place) {
    let mut put_slot = |tag: u8, Slot(slot): &Slot, journal: Option<&JournalNumber>| {
        out.push(tag);
        out.extend_from_slice(&slot.to_le_bytes());
        if let Some(JournalNumber(journal)) = journal {
            out.extend_from_slice(&journal.to_le_bytes());
        }
    };
    match place {
        Place::Stage(slot) => put_slot(1, slot, None),
        Place::Park { journal, slot } => put_slot(2, slot, Some(journal)),
        Place::Link { journal, slot } => put_slot(3, slot, Some(journal)),
        Place::Undo { journal, slot } => put_slot(4, slot, Some(journal)),
        Place::Tree { directory, name } => {
            out.push(5);
            put_identity(out, *directory);
            put_short(out, name.bytes());
        }
    }
}

fn put_places(out: &mut Vec<u8>, places: &[Place]) {
    out.push(u8::try_from(places.len()).expect("four places at most"));
    for place in places {
        put_place(out, place);
    }
}

/// At most 255 bytes, behind their length.
fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(u8::try_from(bytes.len()).expect("names are that short"));
    out.extend_from_slice(bytes);
}

fn put_metadata(out: &mut Vec<u8>, metadata: &Metadata) {
    out.extend_from_slice(&metadata.mode.to_le_bytes());
    out.extend_from_slice(&metadata.uid.to_le_bytes());
    out.extend_from_slice(&metadata.gid.to_le_bytes());
    out.extend_from_slice(&metadata.mtime.seconds.to_le_bytes());
    out.extend_from_slice(&metadata.mtime.nanos.to_le_bytes());
    let count = u32::try_from(metadata.xattrs.len()).expect("the limit of all is small");
    out.extend_from_slice(&count.to_le_bytes());
    for (name, value) in &metadata.xattrs {
        put_short(out, name);
        let len = u32::try_from(value.len()).expect("the limit of a value is small");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::operation::{Exchange, Link, Move, Patch, Set};
    use super::*;
    use crate::manifest::{FileTime, Name};
    use crate::units::{TreeNumber, TreeRoot};

    fn identity(inode: u64) -> Identity {
        let birth = FileTime { seconds: -1, nanos: 999_999_999 };
        Identity { inode, birth: (inode % 2 == 1).then_some(birth) }
    }

    fn at(directory: u64, name: &[u8]) -> Place {
        Place::Tree { directory: identity(directory), name: Name::new(name).unwrap() }
    }

    fn metadata(mode: u16) -> Metadata {
        let xattrs = vec![
            (Box::from(*b"user.a"), Box::from(*b"")),
            (Box::from(*b"user.b"), Box::from(*b"\0value")),
        ];
        let mtime = FileTime { seconds: 1_700_000_000, nanos: 1 };
        Metadata { mode, uid: 1000, gid: 100, mtime, xattrs }
    }

    /// One with every operation and every place.
    fn sample() -> Journal {
        let (journal, slot) = (JournalNumber(9), Slot(7));
        let park = Place::Park { journal, slot };
        let link = Place::Link { journal, slot: Slot(8) };
        let undo = Place::Undo { journal, slot: Slot(9) };
        let stage = Place::Stage(Slot(u64::MAX));
        let mut result = Journal {
            number: journal,
            direction: Direction::Forward,
            base: TreePosition { number: TreeNumber(41), root: TreeRoot([1; 32]) },
            target: TreePosition { number: TreeNumber(43), root: TreeRoot([2; 32]) },
            root: identity(1),
            anchors: vec![
                Anchor { directory: identity(2), at: at(1, b"lib") },
                Anchor { directory: identity(3), at: at(2, &[0xff, b'\n']) },
            ],
            lists: Default::default(),
        };
        let parked = Move {
            what: identity(4),
            before: Vec::new(),
            from: at(3, b"x"),
            to: park.clone(),
            after: vec![at(2, b"y"), undo.clone()],
        };
        let exchange = Exchange {
            new: identity(4),
            before: vec![at(3, b"x")],
            from: park,
            at: at(2, b"y"),
            old: identity(5),
            to: undo.clone(),
            after: Vec::new(),
        };
        let further =
            Link { what: identity(4), existing: at(2, b"y"), slot: link, after: at(1, b"z") };
        let what = identity(6);
        let patch = Patch { what, at: vec![at(1, b"huge")], source: stage, back: undo };
        let set = Set { what, at: vec![at(1, b"huge")], old: metadata(0o644), new: metadata(0) };
        let finish = Finish { directory: identity(2), old: Some((1, metadata(0o755))), new: None };
        result.lists = [
            vec![Operation::Move(parked)],
            Vec::new(),
            vec![Operation::Patch(patch)],
            vec![Operation::Exchange(exchange), Operation::Link(further)],
            vec![Operation::Set(set)],
            vec![Operation::Empty { directory: identity(2) }],
            vec![Operation::Finish(finish)],
        ];
        result
    }

    #[test]
    fn a_journal_survives_its_bytes_both_ways() {
        let forward = sample();
        let mut lists = sample().lists;
        for list in &mut lists {
            list.reverse();
        }
        let back = Journal { direction: Direction::Back, lists, ..sample() };
        for journal in [forward, back] {
            assert_eq!(decode(&encode(&journal)), Ok(journal));
        }
    }

    #[test]
    fn no_truncation_and_no_flipped_bit_is_taken_for_a_journal() {
        let bytes = encode(&sample());
        assert!((0..bytes.len()).all(|len| decode(&bytes[..len]).is_err()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
            assert_ne!(JournalHash::of(&flipped), JournalHash::of(&bytes));
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(matches!(decode(&longer), Err(JournalError::Order { .. })));
    }

    /// Offset and length of each record, with its length and checksum.
    fn records(bytes: &[u8]) -> Vec<&[u8]> {
        let header = header(&sample());
        let mut rest = &bytes[header.len() + 4..];
        let mut result = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_le_bytes(rest[..4].try_into().unwrap());
            let (record, after) = rest.split_at(8 + usize::try_from(len).unwrap());
            result.push(record);
            rest = after;
        }
        result
    }

    /// A journal of records that are whole, whatever they say.
    fn sealed(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = header(&sample());
        let mut sum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        for payload in payloads {
            let len = u32::try_from(payload.len()).unwrap().to_le_bytes();
            sum = crc32c::crc32c_append(crc32c::crc32c_append(sum, &len), payload);
            bytes.extend_from_slice(&len);
            bytes.extend_from_slice(&sum.to_le_bytes());
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    #[test]
    fn what_has_right_sums_but_is_not_canonical_is_refused() {
        let bytes = encode(&sample());
        let payloads: Vec<Vec<u8>> = records(&bytes).iter().map(|it| it[8..].to_vec()).collect();
        assert_eq!(sealed(&payloads), bytes);
        for first in 0..payloads.len() - 1 {
            let mut swapped = payloads.clone();
            swapped.swap(first, first + 1);
            // Within one phase another order is another journal.
            let one_phase = payloads[first][..2] == payloads[first + 1][..2]
                && payloads[first][0] == TAG_OPERATION;
            assert_eq!(decode(&sealed(&swapped)).is_ok(), one_phase, "record {first}");
            let mut missing = payloads.clone();
            missing.remove(first);
            assert!(decode(&sealed(&missing)).is_err(), "record {first}");
        }
        for index in 0..payloads.len() {
            let mut longer = payloads.clone();
            longer[index].push(0);
            assert!(decode(&sealed(&longer)).is_err(), "record {index}");
        }
        let mut unknown = payloads.clone();
        unknown[2][1] = 7;
        assert_eq!(decode(&sealed(&unknown)), Err(JournalError::Order { record: 3 }));
        let mut upwards = payloads;
        let name = upwards[0].len() - 3;
        upwards[0].truncate(name);
        upwards[0].extend_from_slice(b"../");
        let field = "the name";
        assert_eq!(decode(&sealed(&upwards)), Err(JournalError::Value { record: 1, field }));
    }

    #[test]
    fn the_bytes_of_the_sample_are_the_ones_that_were_written_first() {
        let bytes = encode(&sample());
        let golden = "ae9b885654a187cd54ffa4cedd669246c9a23513c3e865bb07975a9877e12e89";
        let found = format!("{:?}", JournalHash::of(&bytes));
        assert_eq!((bytes.len(), found.as_str()), (836, golden));
        assert_eq!(bytes[..13], *b"hpjourn\0\x01\0\0\0\x09");
        // The first anchor: length, sum, tag, directory without birth, tag of the place, the root
        // with its birth, name.
        let anchor = records(&bytes)[0];
        assert_eq!(anchor[..4], *b"\x24\0\0\0");
        assert_eq!(anchor[8..19], *b"\x01\x02\0\0\0\0\0\0\0\0\x05");
        assert_eq!(anchor[19..28], *b"\x01\0\0\0\0\0\0\0\x01");
        assert_eq!(anchor[28..40], *b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xc9\x9a\x3b");
        assert_eq!(anchor[40..], *b"\x03lib");
    }
}
