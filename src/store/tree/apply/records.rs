//! The commit record, the applied record and one block of the caller's, in a file of two slots.
//!
//! A write goes over the older slot, so a torn one leaves its predecessor; then the same goes over the other
//! slot. So at rest both say the same, and one that rots costs nothing: with one copy the predecessor would
//! count, and a generation that was acknowledged would be taken for one that never was. A write is stable
//! when it returns; a write or a sync that failed is never tried again, because nobody can tell which slot
//! counts after that until a start reads them.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Mode, OFlags, fdatasync, fsync, openat2};
use rustix::io::Errno;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::super::folder::{BENEATH, Folder, os};
use super::error::ApplyError;
use super::steps::Steps;
use crate::manifest::Name;
use crate::manifest::apply::{Applied, Committed, JournalHash, JournalNumber};
use crate::metadata::{Damage, PAGE_LEN, TWO_SLOTS_LEN, newest_of_two, slot_offset};
use crate::units::{TreeNumber, TreePosition, TreeRoot};

/// Length in bytes of the block that the caller keeps with the records.
pub const REGISTER_LEN: usize = 512;
/// Name of the file in the state folder.
pub const RECORDS_FILE: &str = "tree.records";
/// Version of the format. History: 1, the first.
const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"HPTREER1";

/// What a node remembers of its tree, all of which changes in one write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Records {
    /// Where the tree is to be.
    pub committed: Committed,
    /// What it was at its last rest.
    pub applied: Applied,
    /// Whatever the caller wants to change together with these.
    pub register: [u8; REGISTER_LEN],
}

impl Default for Records {
    fn default() -> Self {
        let (committed, applied) = (Committed::default(), Applied::default());
        Self { committed, applied, register: [0; REGISTER_LEN] }
    }
}

/// The open file.
#[derive(Debug)]
pub struct RecordsFile {
    file: File,
    counter: u64,
    records: Records,
    failed: bool,
}

impl RecordsFile {
    /// Makes the file, with space for both slots, so that a full disk is met here.
    ///
    /// # Errors
    /// [`ApplyError::Refused`] if it is there already, [`ApplyError::NoSpace`],
    /// [`ApplyError::Failed`].
    pub fn make(state: &Folder, records: &Records) -> Result<Self, ApplyError> {
        let counter = 1;
        let bytes = [encode(0, records), encode(counter, records)].concat();
        let (name, new) = (name(RECORDS_FILE), name("tree.records.new"));
        match state.remove_file(&new) {
            // Left behind by an attempt that was interrupted.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("remove", errno)),
        }
        let mut file = state.make_file(&new).map_err(|errno| failed("make", errno))?;
        file.write_all(&bytes).map_err(|error| failed("write", errno_of(&error)))?;
        // Its bytes are stable before it has its name.
        fsync(&file).map_err(|errno| ApplyError::sync(RECORDS_FILE, errno))?;
        state.rename(&new, state, &name).map_err(|errno| failed("rename", errno))?;
        // Its name is stable before anybody relies on what it says.
        state.sync().map_err(|errno| ApplyError::sync(RECORDS_FILE, errno))?;
        Ok(Self { file, counter, records: *records, failed: false })
    }

    /// Opens the file; `None` if there is none.
    ///
    /// # Errors
    /// [`ApplyError::Records`] if neither slot can be read, else what the kernel says.
    pub fn open(state: &Folder) -> Result<Option<Self>, ApplyError> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = name(RECORDS_FILE);
        let file = match openat2(state, os(&name), flags, Mode::empty(), BENEATH) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("open", errno)),
        };
        let mut bytes = Vec::new();
        (&file)
            .take(TWO_SLOTS_LEN)
            .read_to_end(&mut bytes)
            .map_err(|error| failed("read", errno_of(&error)))?;
        let newest = newest_of_two(RECORDS_FILE, &bytes, decode, |(counter, _)| *counter);
        let (counter, records) = newest.map_err(ApplyError::Records)?;
        let mut opened = Self { file, counter, records, failed: false };
        let says_the_same = |slot: &[u8]| decode(slot).is_ok_and(|(_, it)| it == records);
        if !bytes.chunks(PAGE_LEN).all(says_the_same) {
            // A crash came between the two writes, or one of the slots has rotted.
            opened.write_slot(&records)?;
        }
        Ok(Some(opened))
    }

    /// What it says.
    pub fn records(&self) -> &Records {
        &self.records
    }

    /// Makes `records` stable.
    ///
    /// # Errors
    /// [`ApplyError::Failed`], and from then on [`ApplyError::FailedBefore`].
    pub fn write(&mut self, steps: &Steps, records: &Records) -> Result<(), ApplyError> {
        if self.failed {
            return Err(ApplyError::FailedBefore);
        }
        steps.take("write", || RECORDS_FILE.to_owned())?;
        self.write_slot(records)?;
        self.write_slot(records)
    }

    /// Writes over the older slot.
    fn write_slot(&mut self, records: &Records) -> Result<(), ApplyError> {
        let counter = self.counter + 1;
        let written = self
            .file
            .write_all_at(&encode(counter, records), slot_offset(counter))
            .map_err(|error| errno_of(&error))
            // Orders the record behind all that it speaks of, and ahead of whoever is told of it; the second
            // one behind the first, so that one of them is whole at any time.
            .and_then(|()| fdatasync(&self.file));
        match written {
            Ok(()) => {
                (self.counter, self.records) = (counter, *records);
                Ok(())
            }
            Err(errno) => {
                self.failed = true;
                Err(ApplyError::sync(RECORDS_FILE, errno))
            }
        }
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("our own words are names")
}

fn failed(action: &'static str, errno: Errno) -> ApplyError {
    ApplyError::kernel(action, RECORDS_FILE, errno)
}

/// What the kernel said. What it did not say, such as a file that ends too early, is an I/O error.
pub(super) fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPosition {
    number: U64,
    root: [u8; 32],
}

#[derive(FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecords {
    magic: [u8; 8],
    format: U32,
    zero: U32,
    counter: U64,
    committed: U64,
    hash: [u8; 32],
    base: RawPosition,
    target: RawPosition,
    applied: U64,
    position: RawPosition,
    register: [u8; REGISTER_LEN],
    reserved: [u8; RESERVED_LEN],
    sum: U32,
}
/// What is left of a page.
const RESERVED_LEN: usize = PAGE_LEN - 196 - REGISTER_LEN;

impl RawRecords {
    fn computed_sum(&self) -> u32 {
        let (covered, _) = self.as_bytes().split_at(size_of::<Self>() - size_of::<U32>());
        crc32c::crc32c(covered)
    }
}

fn encode(counter: u64, records: &Records) -> [u8; PAGE_LEN] {
    let Records { committed, applied, register } = records;
    let mut raw = RawRecords::new_zeroed();
    raw.magic = MAGIC;
    raw.format = U32::new(FORMAT);
    raw.counter = U64::new(counter);
    raw.committed = U64::new(committed.journal.0);
    raw.hash = committed.hash.0;
    raw.base = raw_position(committed.base);
    raw.target = raw_position(committed.target);
    raw.applied = U64::new(applied.journal.0);
    raw.position = raw_position(applied.position);
    raw.register = *register;
    raw.sum = U32::new(raw.computed_sum());
    let mut page = [0; PAGE_LEN];
    raw.write_to(&mut page).expect("the records are a page");
    page
}

fn decode(bytes: &[u8]) -> Result<(u64, Records), Damage> {
    let file = RECORDS_FILE;
    let short = || Damage::Short { file, len: bytes.len() as u64, needed: PAGE_LEN as u64 };
    let raw = RawRecords::ref_from_bytes(bytes).map_err(|_| short())?;
    if raw.magic != MAGIC {
        return Err(Damage::BadMagic { file });
    }
    if raw.sum.get() != raw.computed_sum() {
        return Err(Damage::Checksum { file });
    }
    if raw.format.get() > FORMAT {
        return Err(Damage::Format { file, found: raw.format.get(), newest: FORMAT });
    }
    let committed = Committed {
        journal: JournalNumber(raw.committed.get()),
        hash: JournalHash(raw.hash),
        base: position(&raw.base),
        target: position(&raw.target),
    };
    let applied =
        Applied { journal: JournalNumber(raw.applied.get()), position: position(&raw.position) };
    let records = Records { committed, applied, register: raw.register };
    if encode(raw.counter.get(), &records) != *bytes {
        return Err(Damage::Value { file, field: "a reserved byte" });
    }
    Ok((raw.counter.get(), records))
}

fn raw_position(position: TreePosition) -> RawPosition {
    RawPosition { number: U64::new(position.number.0), root: position.root.0 }
}

fn position(raw: &RawPosition) -> TreePosition {
    TreePosition { number: TreeNumber(raw.number.get()), root: TreeRoot(raw.root) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(number: u64) -> Records {
        let at =
            |number, byte| TreePosition { number: TreeNumber(number), root: TreeRoot([byte; 32]) };
        Records {
            committed: Committed {
                journal: JournalNumber(number),
                hash: JournalHash([1; 32]),
                base: at(2, 3),
                target: at(4, 5),
            },
            applied: Applied { journal: JournalNumber(6), position: at(7, 8) },
            register: [9; REGISTER_LEN],
        }
    }

    fn state() -> (tempfile::TempDir, Folder) {
        let outer = tempfile::tempdir().unwrap();
        let folder = Folder::open(outer.path()).unwrap();
        (outer, folder)
    }

    fn read(folder: &Folder) -> Records {
        *RecordsFile::open(folder).unwrap().unwrap().records()
    }

    #[test]
    fn what_was_written_last_is_read() {
        let (_outer, folder) = state();
        assert!(RecordsFile::open(&folder).unwrap().is_none());
        let mut file = RecordsFile::make(&folder, &Records::default()).unwrap();
        assert_eq!(read(&folder), Records::default());
        for number in 1..6 {
            file.write(&Steps::unlimited(), &sample(number)).unwrap();
            assert_eq!(*file.records(), sample(number));
            assert_eq!(read(&folder), sample(number));
            file = RecordsFile::open(&folder).unwrap().unwrap();
        }
        let again = RecordsFile::make(&folder, &Records::default());
        assert!(matches!(again, Err(ApplyError::Refused { errno: Errno::EXIST, .. })));
        assert_eq!(read(&folder), sample(5));
    }

    #[test]
    fn a_slot_that_rots_leaves_the_same_and_two_are_an_error_that_names_the_file() {
        let (outer, folder) = state();
        let path = outer.path().join(RECORDS_FILE);
        let mut file = RecordsFile::make(&folder, &sample(9)).unwrap();
        for number in 0..4 {
            let whole = std::fs::read(&path).unwrap();
            for (slot, len) in
                [0, 1].into_iter().flat_map(|it| [(it, 0), (it, 1), (it, 100), (it, 4095)])
            {
                let mut rotten = whole.clone();
                rotten[slot * PAGE_LEN + len..(slot + 1) * PAGE_LEN].fill(0xa5);
                std::fs::write(&path, &rotten).unwrap();
                assert_eq!(read(&folder), *file.records(), "slot {slot} from {len} on");
                // The start has made it good.
                let mended = std::fs::read(&path).unwrap();
                let slots: Vec<_> =
                    mended.chunks(PAGE_LEN).map(|it| decode(it).unwrap().1).collect();
                assert_eq!(slots, [*file.records(); 2]);
            }
            file = RecordsFile::open(&folder).unwrap().unwrap();
            file.write(&Steps::unlimited(), &sample(number)).unwrap();
        }
        let mut both = std::fs::read(&path).unwrap();
        both[20] ^= 1;
        both[PAGE_LEN + 20] ^= 1;
        std::fs::write(&path, &both).unwrap();
        let error = RecordsFile::open(&folder).unwrap_err();
        assert!(error.to_string().contains(RECORDS_FILE), "{error}");
        std::fs::write(&path, &both[..100]).unwrap();
        assert!(matches!(RecordsFile::open(&folder), Err(ApplyError::Records(_))));
    }

    #[test]
    fn a_write_that_is_cut_anywhere_leaves_what_was_or_what_is_written() {
        let (outer, folder) = state();
        let path = outer.path().join(RECORDS_FILE);
        let mut file = RecordsFile::make(&folder, &sample(1)).unwrap();
        let before = std::fs::read(&path).unwrap();
        let first = usize::try_from(slot_offset(file.counter + 1)).unwrap();
        file.write(&Steps::unlimited(), &sample(2)).unwrap();
        let after = std::fs::read(&path).unwrap();
        for len in [0, 1, 100, 512, 4095, PAGE_LEN] {
            let mut cut = before.clone();
            cut[first..first + len].copy_from_slice(&after[first..first + len]);
            std::fs::write(&path, &cut).unwrap();
            let expected = if len == PAGE_LEN { sample(2) } else { sample(1) };
            assert_eq!(read(&folder), expected, "{len} bytes of the first");
            let second = PAGE_LEN - first;
            let mut cut = after.clone();
            cut[second + len..second + PAGE_LEN]
                .copy_from_slice(&before[second + len..second + PAGE_LEN]);
            std::fs::write(&path, &cut).unwrap();
            assert_eq!(read(&folder), sample(2), "{len} bytes of the second");
        }
    }

    #[test]
    fn no_flipped_bit_and_no_newer_format_is_taken_for_records() {
        let page = encode(7, &sample(1));
        assert_eq!(decode(&page), Ok((7, sample(1))));
        for bit in 0..PAGE_LEN * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit}");
        }
        let mut newer = RawRecords::read_from_bytes(&page).unwrap();
        newer.format = U32::new(2);
        newer.sum = U32::new(newer.computed_sum());
        assert!(matches!(decode(newer.as_bytes()), Err(Damage::Format { found: 2, .. })));
        let mut reserved = RawRecords::read_from_bytes(&page).unwrap();
        reserved.reserved[9] = 1;
        reserved.sum = U32::new(reserved.computed_sum());
        assert!(matches!(decode(reserved.as_bytes()), Err(Damage::Value { .. })));
    }

    #[test]
    fn after_a_failure_nothing_is_written_any_more() {
        let (outer, folder) = state();
        let mut file = RecordsFile::make(&folder, &Records::default()).unwrap();
        // A descriptor that cannot be written stands for a disk that fails.
        file.file = File::open(outer.path().join(RECORDS_FILE)).unwrap();
        let steps = Steps::unlimited();
        assert!(matches!(file.write(&steps, &sample(1)), Err(ApplyError::Failed { .. })));
        let path = outer.path().join(RECORDS_FILE);
        file.file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        assert!(matches!(file.write(&steps, &sample(1)), Err(ApplyError::FailedBefore)));
        assert_eq!((read(&folder), *file.records()), (Records::default(), Records::default()));
    }
}
