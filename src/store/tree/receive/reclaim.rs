//! What earlier attempts have left in `stage/`.
//!
//! Files that were about to become part of a plan were given other names, some of them within new
//! directories. Which, is in a log of that plan, written before: by it each goes back to the name under which
//! it is looked for. What nobody can want is removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::super::Folder;
use super::part::{PART, part_name, remove};
use super::{ReceiveError, failed};
use crate::manifest::apply::{JournalNumber, Slot};
use crate::manifest::{Name, PATH_DEPTH_MAX};
use crate::units::ObjectId;

/// How names in `stage/` begin: a log; an object without content in the making; one that is in a plan.
const LOG: &str = "born-";
const MADE: &str = "made-";
const NEW: &str = "new-";
/// Longest log that is read, in bytes.
const LOG_LEN_MAX: u64 = 1 << 30;

/// Where an object was brought.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Born {
    /// Under a name of its own.
    Slot(Slot),
    /// Into a new directory.
    Within(ObjectId, Name),
}

/// The slots of a journal are its own: none is used twice.
pub(super) fn slot_of(journal: JournalNumber, count: u32) -> Slot {
    Slot((journal.0 << 32) | u64::from(count))
}

fn journal_of(slot: u64) -> JournalNumber {
    JournalNumber(slot >> 32)
}

/// The name of an object without content until it is complete.
pub(super) fn made_name(id: ObjectId) -> Name {
    ours(&format!("{MADE}{id}"))
}

fn log_name(journal: JournalNumber) -> Name {
    ours(&format!("{LOG}{}", journal.0))
}

fn ours(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a word and a number are a name")
}

/// Writes the log of a journal.
pub(super) fn write_log(
    stage: &Folder,
    journal: JournalNumber,
    born: &BTreeMap<ObjectId, Born>,
) -> Result<(), ReceiveError> {
    let name = log_name(journal);
    remove(stage, &name)?;
    let file = stage.make_file(&name).map_err(failed("make a log of what is staged"))?;
    let mut bytes = Vec::new();
    for (id, place) in born {
        bytes.extend(id.0.to_le_bytes());
        match place {
            Born::Slot(slot) => {
                bytes.push(0);
                bytes.extend(slot.0.to_le_bytes());
            }
            Born::Within(directory, name) => {
                let len = u8::try_from(name.bytes().len()).expect("a name is short");
                bytes.push(len);
                bytes.extend(directory.0.to_le_bytes());
                bytes.extend(name.bytes());
            }
        }
    }
    // Not synced: a log that a crash took costs that its files are sent again.
    file.write_all_at(&bytes, 0).map_err(failed("write a log of what is staged"))
}

/// As much of a log as can be read.
fn parse(mut bytes: &[u8]) -> BTreeMap<ObjectId, Born> {
    let mut born = BTreeMap::new();
    while let Some((id, rest)) = bytes.split_first_chunk::<8>() {
        let Some(([len], rest)) = rest.split_first_chunk::<1>() else { break };
        let Some((number, rest)) = rest.split_first_chunk::<8>() else { break };
        let (id, number) = (ObjectId(u64::from_le_bytes(*id)), u64::from_le_bytes(*number));
        if *len == 0 {
            born.insert(id, Born::Slot(Slot(number)));
            bytes = rest;
            continue;
        }
        let Some((name, rest)) = rest.split_at_checked(usize::from(*len)) else { break };
        let Ok(name) = Name::new(name) else { break };
        born.insert(id, Born::Within(ObjectId(number), name));
        bytes = rest;
    }
    born
}

/// Brings files that were in plans of journals not in `kept` back to where staging looks for them, and
/// removes what is of no use to the new content of `files`, which are in rising order.
pub(super) fn reclaim(
    stage: &Folder,
    files: &[ObjectId],
    kept: &BTreeSet<JournalNumber>,
) -> Result<(), ReceiveError> {
    let names = stage.list().map_err(failed("list what is staged"))?.names;
    let with = |prefix: &str| {
        let numbered = names.iter().filter_map(move |name| Some((name, number_in(name, prefix)?)));
        numbered.collect::<Vec<_>>()
    };
    let is_kept = |journal: JournalNumber| kept.contains(&journal);
    for (name, journal) in with(LOG).into_iter().filter(|(_, it)| !is_kept(JournalNumber(*it))) {
        take_back(stage, name, JournalNumber(journal), files)?;
        remove(stage, name)?;
    }
    for (name, slot) in with(NEW) {
        if !is_kept(journal_of(slot)) {
            remove(stage, name)?;
        }
    }
    for (name, _) in with(MADE) {
        remove(stage, name)?;
    }
    for (name, id) in with(PART) {
        if files.binary_search(&ObjectId(id)).is_err() {
            remove(stage, name)?;
        }
    }
    Ok(())
}

fn number_in(name: &Name, prefix: &str) -> Option<u64> {
    let digits = name.bytes().strip_prefix(prefix.as_bytes())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn take_back(
    stage: &Folder,
    log: &Name,
    journal: JournalNumber,
    files: &[ObjectId],
) -> Result<(), ReceiveError> {
    // Without its log, whatever it told of is sent again.
    let Ok(bytes) = stage.file(log).and_then(|file| read_all(&file)) else { return Ok(()) };
    let born = parse(&bytes);
    for (id, place) in &born {
        if files.binary_search(id).is_err() {
            continue;
        }
        let moved = match place {
            Born::Slot(slot) if journal_of(slot.0) == journal => {
                stage.rename(&new_name(*slot), stage, &part_name(*id))
            }
            Born::Slot(_) => Ok(()),
            Born::Within(directory, name) => match folder(stage, &born, *directory) {
                Some(folder) => folder.rename(name, stage, &part_name(*id)),
                None => Ok(()),
            },
        };
        match moved {
            // Not there: the crash came before. Taken: a newer attempt has begun it again.
            Ok(()) | Err(Errno::NOENT | Errno::EXIST | Errno::NOTDIR) => {}
            Err(errno) => return Err(failed("take up what is staged")(errno)),
        }
    }
    Ok(())
}

fn read_all(file: &File) -> Result<Vec<u8>, Errno> {
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let len = file.metadata().map_err(io)?.len().min(LOG_LEN_MAX);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0).map_err(io)?;
    Ok(bytes)
}

pub(super) fn new_name(slot: Slot) -> Name {
    ours(&format!("{NEW}{}", slot.0))
}

/// A new directory, wherever in `stage/` it is.
fn folder(stage: &Folder, born: &BTreeMap<ObjectId, Born>, id: ObjectId) -> Option<Folder> {
    let mut way = Vec::new();
    let mut at = id;
    let mut folder = loop {
        if let Ok(folder) = stage.child(&made_name(at)) {
            break folder;
        }
        match born.get(&at)? {
            Born::Slot(slot) => break stage.child(&new_name(*slot)).ok()?,
            Born::Within(up, name) if way.len() <= PATH_DEPTH_MAX => {
                way.push(name);
                at = *up;
            }
            Born::Within(..) => return None,
        }
    };
    while let Some(name) = way.pop() {
        folder = folder.child(name).ok()?;
    }
    Some(folder)
}
