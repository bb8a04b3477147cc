//! What a generation replaced or deleted that nobody else has: it goes from `undo/` to the quarantine.
//!
//! Which things those are is a list in the state folder, stable before the commit record of the journal that
//! takes them out of the tree. Once that is carried out they are brought away one by one, which can be cut and
//! goes on at the next start. Then the journal goes: nothing leads back from there.

use std::cmp::Reverse;
use std::fs::File;
use std::io::{Read as _, Write as _};

use rustix::fs::{fsync, syncfs};
use rustix::io::Errno;

use super::super::folder::Folder;
use super::error::ApplyError;
use super::journals::{JOURNAL_LEN_MAX, Purpose};
use super::quarantine::{Moment, Quarantine};
use super::records::errno_of;
use super::{Applier, Steps};
use crate::manifest::apply::{Journal, JournalHash, JournalNumber, Place, Slot, encode};
use crate::manifest::{Name, TreePath};

/// Name of the list in the state folder.
const LIST_FILE: &str = "tree.displaced";
const NEW_FILE: &str = "tree.displaced.new";
const MAGIC: [u8; 8] = *b"HPTREED1";
/// Magic, number and hash of the journal, how many entries.
const HEADER_LEN: usize = 56;
/// Slot, whether it is a directory, length of the path.
const ENTRY_LEN: usize = 11;
/// What `WHY.jsonl` says.
const WHY: &str = "only this node had it, and the generation that was taken replaced or deleted it";

/// One thing that goes to the quarantine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Displaced {
    /// Its name in the folder of the journal in `undo/`.
    pub slot: Slot,
    /// Whether it is a directory. What was in it has slots of its own.
    pub is_directory: bool,
    /// What it was called in the tree.
    pub path: TreePath,
}

/// The list of one journal.
#[derive(Debug, Eq, PartialEq)]
struct List {
    journal: JournalNumber,
    hash: JournalHash,
    entries: Vec<Displaced>,
}

impl Applier {
    /// Makes stable what `journal`, which is not committed yet, takes from this node for good.
    ///
    /// # Errors
    /// [`ApplyError::OutOfTurn`] if what an earlier one took is not in the quarantine yet, or it is too much;
    /// [`ApplyError::NoSpace`], [`ApplyError::Failed`].
    pub fn list_displaced(
        &mut self,
        journal: &Journal,
        entries: Vec<Displaced>,
    ) -> Result<(), ApplyError> {
        let number = journal.number;
        let refused = |why| Err(ApplyError::OutOfTurn { number, why });
        if self.displaced()?.is_some() {
            return refused("what an earlier one displaced is not in the quarantine yet");
        }
        let hash = JournalHash::of(&encode(journal));
        let bytes = encode_list(&List { journal: number, hash, entries });
        if bytes.len() as u64 > JOURNAL_LEN_MAX {
            return refused("it displaces too much");
        }
        self.remember(|it| write(it.journals.state(), &it.steps, &bytes))
    }

    /// The journal whose displaced things wait for the quarantine, if one is carried out.
    ///
    /// # Errors
    /// What the kernel says; [`ApplyError::Refused`] if the list is damaged.
    pub fn displaced(&self) -> Result<Option<JournalNumber>, ApplyError> {
        let Some(list) = read(self.journals.state())? else { return Ok(None) };
        Ok(self.is_carried_out(&list)?.then_some(list.journal))
    }

    /// Whether the list is of a journal that is kept and carried out. The number of one that was never
    /// committed is used again, so the hash decides.
    fn is_carried_out(&self, list: &List) -> Result<bool, ApplyError> {
        if list.journal > self.records().applied.journal {
            return Ok(false);
        }
        let bytes = self.journals.read(Purpose::On, list.journal)?;
        Ok(bytes.is_some_and(|bytes| JournalHash::of(&bytes) == list.hash))
    }

    /// Brings to the quarantine what waits for it; gives how much that was. The tree is at rest.
    ///
    /// # Errors
    /// [`ApplyError`]; the next call goes on.
    pub fn bring_displaced(&mut self, moment: Moment) -> Result<u64, ApplyError> {
        self.remember(|it| {
            let Some(list) = read(it.journals.state())? else { return Ok(0) };
            let mut count = 0;
            if it.is_carried_out(&list)? {
                count = it.bring_listed(&list, moment)?;
                it.quarantined += count;
                it.steps.take("sync", || "lost+hotpair".to_owned())?;
                // What was brought away is stable there before nothing says any more where it was.
                syncfs(&it.root).map_err(|errno| ApplyError::sync("lost+hotpair", errno))?;
                it.journals.remove(&it.steps, list.journal)?;
                it.remove_folder_of(list.journal)?;
            }
            it.remove_list()?;
            Ok(count)
        })
    }

    fn bring_listed(&self, list: &List, moment: Moment) -> Result<u64, ApplyError> {
        let failed = |errno| ApplyError::kernel("open", "undo", errno);
        let digits = list.journal.0.to_string();
        let folder = match self.work.undo().child(&name(&digits)) {
            Ok(folder) => folder,
            Err(Errno::NOENT) => return Ok(0),
            Err(errno) => return Err(failed(errno)),
        };
        let mut quarantine = Quarantine::new(self.work.lost(), moment);
        let (mut directories, others): (Vec<_>, Vec<_>) =
            list.entries.iter().partition(|it| it.is_directory);
        // A directory whose contents are there has its folder there; one that was empty comes itself.
        directories.sort_by_key(|it| Reverse(it.path.names().count()));
        for it in others.into_iter().chain(directories) {
            let mut names: Vec<Name> =
                it.path.names().filter_map(|it| Name::new(it).ok()).collect();
            let Some(name) = names.pop() else { continue };
            if it.is_directory && quarantine.has_folder(&names, &name) {
                continue;
            }
            let slot = self::name(&it.slot.0.to_string());
            if folder.look(&slot).map_err(failed)?.is_none() {
                // It was brought before this was cut.
                continue;
            }
            quarantine.bring_as(&self.steps, (&folder, &slot), (&names, &name), WHY)?;
        }
        Ok(quarantine.count())
    }

    fn remove_folder_of(&self, number: JournalNumber) -> Result<(), ApplyError> {
        let path = || format!("undo/{}", number.0);
        self.steps.take("remove", path)?;
        match self.work.undo().remove_tree(&name(&number.0.to_string())) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(ApplyError::kernel("remove", path(), errno)),
        }
    }

    fn remove_list(&self) -> Result<(), ApplyError> {
        self.steps.take("remove", || LIST_FILE.to_owned())?;
        match self.journals.state().remove_file(&name(LIST_FILE)) {
            // Not synced: a list that is there again after a crash is of a journal that is gone.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove", errno)),
        }
    }
}

/// What of the place of an object is in a folder of `undo/`.
pub fn undo_slot(place: &Place) -> Option<Slot> {
    match place {
        Place::Undo { journal: _, slot } => Some(*slot),
        Place::Tree { .. } | Place::Stage(_) | Place::Park { .. } | Place::Link { .. } => None,
    }
}

fn write(state: &Folder, steps: &Steps, bytes: &[u8]) -> Result<(), ApplyError> {
    let (list, new) = (name(LIST_FILE), name(NEW_FILE));
    for old in [&new, &list] {
        match state.remove_file(old) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed("remove", errno)),
        }
    }
    steps.take("write", || LIST_FILE.to_owned())?;
    let mut file = state.make_file(&new).map_err(|errno| failed("make", errno))?;
    if let Err(error) = file.write_all(bytes) {
        // The part of it that found space is of no use.
        let _ = state.remove_file(&new);
        return Err(failed("write", errno_of(&error)));
    }
    // Its bytes are stable before it has its name, ...
    fsync(&file).map_err(|errno| ApplyError::sync(LIST_FILE, errno))?;
    state.rename(&new, state, &list).map_err(|errno| failed("rename", errno))?;
    // ... and its name before the commit record of its journal.
    state.sync().map_err(|errno| ApplyError::sync(LIST_FILE, errno))
}

fn read(state: &Folder) -> Result<Option<List>, ApplyError> {
    let file: File = match state.file(&name(LIST_FILE)) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed("open", errno)),
    };
    let mut bytes = Vec::new();
    let read = file.take(JOURNAL_LEN_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| failed("read", errno_of(&error)))?;
    let list = decode_list(&bytes).ok_or_else(|| failed("read", Errno::INVAL))?;
    Ok(Some(list))
}

fn encode_list(list: &List) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(list.journal.0.to_le_bytes());
    bytes.extend(list.hash.0);
    bytes.extend((list.entries.len() as u64).to_le_bytes());
    for Displaced { slot, is_directory, path } in &list.entries {
        bytes.extend(slot.0.to_le_bytes());
        bytes.push(u8::from(*is_directory));
        let len = u16::try_from(path.bytes().len()).expect("a path has 16 KiB at most");
        bytes.extend(len.to_le_bytes());
        bytes.extend(path.bytes());
    }
    let sum = crc32c::crc32c(&bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

/// `None` if it is not what was written.
fn decode_list(bytes: &[u8]) -> Option<List> {
    let (bytes, sum) = bytes.split_last_chunk::<4>()?;
    if crc32c::crc32c(bytes) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (header, mut rest) = bytes.split_at_checked(HEADER_LEN)?;
    let (magic, header) = header.split_first_chunk::<8>()?;
    let (journal, header) = header.split_first_chunk::<8>()?;
    let (hash, count) = header.split_first_chunk::<32>()?;
    let count = u64::from_le_bytes(count.try_into().ok()?);
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (entry, behind) = rest.split_at_checked(ENTRY_LEN)?;
        let (slot, entry) = entry.split_first_chunk::<8>()?;
        let (kind, len) = entry.split_first()?;
        let len = usize::from(u16::from_le_bytes(len.try_into().ok()?));
        let (path, behind) = behind.split_at_checked(len)?;
        let (slot, is_directory) = (Slot(u64::from_le_bytes(*slot)), *kind == 1);
        entries.push(Displaced { slot, is_directory, path: TreePath::new(path).ok()? });
        rest = behind;
    }
    let is_whole = *magic == MAGIC && entries.len() as u64 == count;
    let journal = JournalNumber(u64::from_le_bytes(*journal));
    is_whole.then_some(List { journal, hash: JournalHash(*hash), entries })
}

fn failed(action: &'static str, errno: Errno) -> ApplyError {
    ApplyError::kernel(action, LIST_FILE, errno)
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("words and numbers are names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_it_was_written_and_nothing_else_is_one() {
        let entry = |slot, is_directory, path: &[u8]| {
            let path = TreePath::new(path).unwrap();
            Displaced { slot: Slot(slot), is_directory, path }
        };
        let long = [b"d/".repeat(500), vec![0xff]].concat();
        let entries =
            vec![entry(3, false, b"a/b"), entry(1 << 40, true, b"a"), entry(4, false, &long)];
        let list = List { journal: JournalNumber(7), hash: JournalHash([5; 32]), entries };
        let bytes = encode_list(&list);
        assert_eq!(decode_list(&bytes), Some(list));
        for len in 0..bytes.len() {
            assert_eq!(decode_list(&bytes[..len]), None);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_list(&flipped), None);
        }
    }
}
