//! The file that is kept beside the journal of an apply.
//!
//! Everything is little-endian: eight bytes that say what it is, the format, then frames, each with its length
//! and a checksum that goes on from the frame before. The first frame is the head, the last one counts the
//! others. It is written whole and synced before the commit record of its journal.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write as _};

use rustix::fs::fsync;
use rustix::io::Errno;

use super::super::folder::Folder;
use crate::manifest::apply::{JournalNumber, Slot};
use crate::manifest::{ChunkHash, FileTime, Name, Object, RECORD_LEN_MAX, Record, SEGMENT_CHUNKS};
use crate::units::{Label, ObjectId, TreeNumber, TreePosition, TreeRoot};

/// How the name of such a file begins; the number of the journal follows.
pub(in super::super) const FILE_PREFIX: &str = "kept-";
const MAGIC: [u8; 8] = *b"HPKEPT01";
/// Version of the format. History: 1, the first.
const FORMAT: u32 = 1;
/// Bytes of magic and format.
const HEADER_LEN: usize = 12;
/// Length and checksum in front of each frame.
const FRAME_HEADER_LEN: usize = 8;
/// Longest frame: a record and what stands in front of it.
const FRAME_LEN_MAX: usize = RECORD_LEN_MAX + 64;

const TAG_HEAD: u8 = 1;
const TAG_BORN: u8 = 2;
const TAG_OBJECT: u8 = 3;
const TAG_SEGMENT: u8 = 4;
const TAG_NAME: u8 = 5;
const TAG_HOLD: u8 = 6;
const TAG_END: u8 = 7;

/// Why what is kept cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The kernel refused. `NOSPC` ends when there is room again.
    #[error("{path}: cannot {action}: {errno}")]
    Kernel {
        /// Which file.
        path: String,
        /// What was tried.
        action: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// It is not what was written.
    #[error("{path} is damaged: {why}")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A sync failed: the disk is not used any more.
    #[error("{path}: cannot sync, the disk failed: {errno}")]
    Failed {
        /// Which file.
        path: String,
        /// What the kernel said.
        errno: Errno,
    },
}

/// What is told of a generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct About {
    /// Its number and root.
    pub position: TreePosition,
    /// How much it promises.
    pub label: Label,
    /// The time of day at which its capture began, as its source has it; zero if nobody said so.
    pub captured_at: FileTime,
    /// Names in it.
    pub entries: u64,
    /// Objects that are new in it or not what they were.
    pub changed: u64,
    /// Names that are gone in it.
    pub deleted: u64,
}

impl About {
    /// Of a generation of which nothing else was said.
    pub fn unknown(position: TreePosition) -> Self {
        let captured_at = FileTime { seconds: 0, nanos: 0 };
        let label = Label::Fuzzy;
        Self { position, label, captured_at, entries: 0, changed: 0, deleted: 0 }
    }
}

/// The beginning of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) struct Head {
    /// The journal.
    pub(in super::super) journal: JournalNumber,
    /// The generation before.
    pub(in super::super) from: About,
    /// The generation that it leads to.
    pub(in super::super) to: About,
    /// Whether the file leads back to the generation before.
    pub(in super::super) leads_back: bool,
}

/// Where content is held in `undo/`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in super::super) struct Hold {
    /// Of which file.
    pub(in super::super) id: ObjectId,
    /// Under which name, in the folder of the journal.
    pub(in super::super) slot: Slot,
    /// Only chunks of it that were written over: a patch.
    pub(in super::super) is_patch: bool,
}

/// Something of the generation before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in super::super) enum Kept {
    /// It did not have this object.
    Born(ObjectId),
    /// An object as it was.
    Object(ObjectId, Object),
    /// Chunk hashes of one segment as they were.
    Segment(ObjectId, u32, Vec<ChunkHash>),
    /// What a name led to.
    Name(ObjectId, Name, Option<ObjectId>),
    /// Where content is held.
    Hold(Hold),
}

/// The number in the name of a file.
pub(in super::super) fn number_of(name: &Name, prefix: &str) -> Option<JournalNumber> {
    let digits = name.bytes().strip_prefix(prefix.as_bytes())?;
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == digits).then_some(JournalNumber(number))
}

pub(super) fn name_of(journal: JournalNumber) -> Name {
    let text = format!("{FILE_PREFIX}{}", journal.0);
    Name::new(text.as_bytes()).expect("a word and a number are a name")
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Writes a file.
#[derive(Debug)]
pub(in super::super) struct Writer<'s> {
    state: &'s Folder,
    name: Name,
    file: BufWriter<File>,
    sum: u32,
    count: u64,
}

impl<'s> Writer<'s> {
    /// Begins the file of `head.journal`. One that is there was never committed, and is written over.
    pub(in super::super) fn new(state: &'s Folder, head: &Head) -> Result<Self, KeptError> {
        let name = name_of(head.journal);
        let failed = |action, errno| KeptError::Kernel { path: name.to_string(), action, errno };
        match state.remove_file(&name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("remove", errno)),
        }
        let file = state.make_file(&name).map_err(|errno| failed("make", errno))?;
        let header = header();
        let sum = crc32c::crc32c(&header);
        let mut writer = Self { state, name, file: BufWriter::new(file), sum, count: 0 };
        writer.write(&header)?;
        writer.frame(&head_payload(head))?;
        Ok(writer)
    }

    /// Appends one thing.
    pub(in super::super) fn push(&mut self, kept: &Kept) -> Result<(), KeptError> {
        self.count += 1;
        let mut payload = Vec::new();
        match kept {
            Kept::Born(id) => {
                payload.push(TAG_BORN);
                payload.extend(id.0.to_le_bytes());
            }
            Kept::Object(id, object) => {
                payload.push(TAG_OBJECT);
                Record::Object { id: *id, object: object.clone() }.encode(&mut payload);
            }
            Kept::Segment(id, segment, hashes) => {
                payload.push(TAG_SEGMENT);
                payload.extend(id.0.to_le_bytes());
                payload.extend(segment.to_le_bytes());
                payload.extend(hashes.iter().flat_map(|hash| hash.0));
            }
            Kept::Name(directory, name, id) => {
                payload.push(TAG_NAME);
                let (directory, name) = (*directory, name.clone());
                let record = match id {
                    Some(id) => Record::Name { directory, name, id: *id },
                    None => Record::Gone { directory, name },
                };
                record.encode(&mut payload);
            }
            Kept::Hold(Hold { id, slot, is_patch }) => {
                payload.push(TAG_HOLD);
                payload.extend(id.0.to_le_bytes());
                payload.extend(slot.0.to_le_bytes());
                payload.push(u8::from(*is_patch));
            }
        }
        self.frame(&payload)
    }

    /// Makes the file stable.
    pub(in super::super) fn end(mut self) -> Result<(), KeptError> {
        let mut end = vec![TAG_END];
        end.extend(self.count.to_le_bytes());
        self.frame(&end)?;
        let path = self.name.to_string();
        self.file.flush().map_err(|error| self.failed(&error))?;
        let failed = |errno| KeptError::Failed { path: path.clone(), errno };
        // Before the commit record of its journal: what was applied can be gone back from.
        fsync(self.file.get_ref()).map_err(failed)?;
        // The same of its name.
        self.state.sync().map_err(failed)
    }

    /// Removes what was written so far.
    pub(in super::super) fn give_up(self) {
        // It is of no use, and in the way of what may be written instead: nobody relies on it being gone.
        let _ = self.state.remove_file(&self.name);
    }

    fn frame(&mut self, payload: &[u8]) -> Result<(), KeptError> {
        let len = u32::try_from(payload.len()).expect("records are short");
        self.sum = next_sum(self.sum, len, payload);
        self.write(&len.to_le_bytes())?;
        self.write(&self.sum.to_le_bytes())?;
        self.write(payload)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), KeptError> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &std::io::Error) -> KeptError {
        let path = self.name.to_string();
        KeptError::Kernel { path, action: "write", errno: errno_of(error) }
    }
}

fn next_sum(sum: u32, len: u32, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(sum, &len.to_le_bytes()), payload)
}

fn header() -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..8].copy_from_slice(&MAGIC);
    header[8..].copy_from_slice(&FORMAT.to_le_bytes());
    header
}

fn head_payload(head: &Head) -> Vec<u8> {
    let Head { journal, from, to, leads_back } = head;
    let mut payload = vec![TAG_HEAD];
    payload.extend(journal.0.to_le_bytes());
    for About { position, label, captured_at, entries, changed, deleted } in [from, to] {
        payload.extend(position.number.0.to_le_bytes());
        payload.extend(position.root.0);
        payload.push(match label {
            Label::Fuzzy => 0,
            Label::Stable => 1,
            Label::Frozen => 2,
            Label::Quiesced => 3,
        });
        payload.extend(captured_at.seconds.to_le_bytes());
        payload.extend(captured_at.nanos.to_le_bytes());
        for count in [entries, changed, deleted] {
            payload.extend(count.to_le_bytes());
        }
    }
    payload.push(u8::from(*leads_back));
    payload
}

/// Reads a file frame by frame.
#[derive(Debug)]
pub(super) struct Reader {
    path: String,
    file: BufReader<File>,
    /// Where the next frame begins.
    at: u64,
    sum: u32,
    count: u64,
}

impl Reader {
    /// Opens the file of a journal and reads its head; `None` if there is none.
    pub(super) fn open(
        state: &Folder,
        journal: JournalNumber,
    ) -> Result<Option<(Self, Head)>, KeptError> {
        let name = name_of(journal);
        let path = name.to_string();
        let file = match state.file(&name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(KeptError::Kernel { path, action: "open", errno }),
        };
        let mut reader = Self { path, file: BufReader::new(file), at: 0, sum: 0, count: 0 };
        let mut found = [0; HEADER_LEN];
        reader.read(&mut found)?;
        if found != header() {
            return Err(reader.damaged("it is no such file, or of another format"));
        }
        (reader.at, reader.sum) = (HEADER_LEN as u64, crc32c::crc32c(&found));
        let payload = reader.frame()?;
        let head = take_head(&payload).filter(|head| head.journal == journal);
        let head = head.ok_or_else(|| reader.damaged("its head is not what it can be"))?;
        Ok(Some((reader, head)))
    }

    /// The next thing, and where in the file its payload begins; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(Kept, u64)>, KeptError> {
        let at = self.at + FRAME_HEADER_LEN as u64;
        let payload = self.frame()?;
        let value = || self.damaged("a value is not what it can be");
        let (tag, rest) = payload.split_first().ok_or_else(value)?;
        if *tag == TAG_END {
            let count = rest.try_into().ok().map(u64::from_le_bytes);
            let is_last = count == Some(self.count) && self.is_at_end()?;
            return if is_last { Ok(None) } else { Err(self.damaged("it does not end well")) };
        }
        let kept = take_kept(*tag, rest).ok_or_else(value)?;
        self.count += 1;
        Ok(Some((kept, at)))
    }

    /// The file itself, to read again what was found in it.
    pub(super) fn into_file(self) -> File {
        self.file.into_inner()
    }

    fn frame(&mut self) -> Result<Vec<u8>, KeptError> {
        let mut head = [0; FRAME_HEADER_LEN];
        self.read(&mut head)?;
        let [a, b, c, d, sum @ ..] = head;
        let len = u32::from_le_bytes([a, b, c, d]);
        let short = usize::try_from(len).ok().filter(|len| *len <= FRAME_LEN_MAX);
        let mut payload = vec![0; short.ok_or_else(|| self.damaged("a frame is too long"))?];
        self.read(&mut payload)?;
        self.sum = next_sum(self.sum, len, &payload);
        if self.sum != u32::from_le_bytes(sum) {
            return Err(self.damaged("a checksum is wrong"));
        }
        self.at += (FRAME_HEADER_LEN + payload.len()) as u64;
        Ok(payload)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), KeptError> {
        let read = self.file.read_exact(buffer);
        read.map_err(|error| match Errno::from_io_error(&error) {
            Some(errno) => KeptError::Kernel { path: self.path.clone(), action: "read", errno },
            None => self.damaged("it is cut short"),
        })
    }

    fn is_at_end(&mut self) -> Result<bool, KeptError> {
        let read = self.file.read(&mut [0]);
        read.map(|count| count == 0).map_err(|error| KeptError::Kernel {
            path: self.path.clone(),
            action: "read",
            errno: errno_of(&error),
        })
    }

    fn damaged(&self, why: &'static str) -> KeptError {
        KeptError::Damaged { path: self.path.clone(), why }
    }
}

/// Reads from the front.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*array)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// `value`, if nothing is left.
    fn end<T>(&self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

fn take_head(payload: &[u8]) -> Option<Head> {
    let mut from = Bytes(payload);
    let is_head = from.u8()? == TAG_HEAD;
    let journal = JournalNumber(from.u64().filter(|_| is_head)?);
    let (before, after) = (take_about(&mut from)?, take_about(&mut from)?);
    let leads_back = from.flag()?;
    from.end(Head { journal, from: before, to: after, leads_back })
}

fn take_about(from: &mut Bytes<'_>) -> Option<About> {
    let position = TreePosition { number: TreeNumber(from.u64()?), root: TreeRoot(from.array()?) };
    let label = match from.u8()? {
        0 => Label::Fuzzy,
        1 => Label::Stable,
        2 => Label::Frozen,
        3 => Label::Quiesced,
        _ => return None,
    };
    let seconds = i64::from_le_bytes(from.array()?);
    let captured_at = FileTime { seconds, nanos: from.u32()? };
    let (entries, changed, deleted) = (from.u64()?, from.u64()?, from.u64()?);
    Some(About { position, label, captured_at, entries, changed, deleted })
}

fn take_kept(tag: u8, rest: &[u8]) -> Option<Kept> {
    let record = || Record::decode(rest).ok().filter(|(_, rest)| rest.is_empty());
    let mut from = Bytes(rest);
    match tag {
        TAG_BORN => {
            let id = ObjectId(from.u64()?);
            from.end(Kept::Born(id))
        }
        TAG_OBJECT => match record()?.0 {
            Record::Object { id, object } => Some(Kept::Object(id, object)),
            Record::Chunks { .. }
            | Record::Zeroes { .. }
            | Record::Name { .. }
            | Record::Gone { .. } => None,
        },
        TAG_SEGMENT => {
            let (id, segment) = (ObjectId(from.u64()?), from.u32()?);
            let (hashes, more) = from.0.as_chunks::<32>();
            let is_one = more.is_empty() && hashes.len() as u64 <= u64::from(SEGMENT_CHUNKS);
            let hashes = hashes.iter().map(|hash| ChunkHash(*hash)).collect();
            is_one.then_some(Kept::Segment(id, segment, hashes))
        }
        TAG_NAME => match record()?.0 {
            Record::Name { directory, name, id } => Some(Kept::Name(directory, name, Some(id))),
            Record::Gone { directory, name } => Some(Kept::Name(directory, name, None)),
            Record::Object { .. } | Record::Chunks { .. } | Record::Zeroes { .. } => None,
        },
        TAG_HOLD => {
            let (id, slot) = (ObjectId(from.u64()?), Slot(from.u64()?));
            let is_patch = from.flag()?;
            from.end(Kept::Hold(Hold { id, slot, is_patch }))
        }
        _ => None,
    }
}

/// The head of the file of a journal; `None` if there is none.
///
/// # Errors
/// [`KeptError`]; also [`KeptError::Damaged`] where the disk cannot read it.
pub(in super::super) fn head(
    state: &Folder,
    journal: JournalNumber,
) -> Result<Option<Head>, KeptError> {
    match Reader::open(state, journal) {
        Ok(found) => Ok(found.map(|(_, head)| head)),
        Err(error) => Err(as_damage(error)),
    }
}

/// What the disk cannot read is as good as damaged: this node can go on without it.
fn as_damage(error: KeptError) -> KeptError {
    match error {
        KeptError::Kernel { path, action: _, errno: Errno::IO } => {
            KeptError::Damaged { path, why: "the disk cannot read it" }
        }
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_that_cannot_be_read_is_damage_and_no_failed_disk() {
        let failed = |errno| KeptError::Kernel { path: "kept-7".to_owned(), action: "read", errno };
        assert!(matches!(as_damage(failed(Errno::IO)), KeptError::Damaged { .. }));
        let other = as_damage(failed(Errno::MFILE));
        assert!(matches!(other, KeptError::Kernel { errno: Errno::MFILE, .. }), "{other}");
    }
}
