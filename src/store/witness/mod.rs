//! The state folder of a witness: its id, and a file of two slots for each record.
//!
//! A record is stable when [`WitnessFolder::write`] returns. A write or sync that failed is never
//! tried again: that record cannot change until the witness is started anew. The folder is locked,
//! so that two witnesses never share one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fdatasync, fstat, openat, unlinkat};
use tracing::warn;
use zerocopy::IntoBytes as _;
use zerocopy::little_endian::{U32, U128};

use super::StoreError;
use super::data_file::lock;
use super::files::{
    NewFile, make_folder, read_file, replace_file, sync_folder, write_at, write_new,
};
use super::map::check_ours;
use crate::metadata::{Damage, TWO_SLOTS_LEN, slot_offset};
use crate::promotion::arbiter::{ArbiterRecord, StoredRecord};
use crate::units::ArbiterId;

/// What becomes of the records that are there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WitnessStart {
    /// They are kept; a folder without an id gets the new one.
    Keep,
    /// They are forgotten, and the store has the new id (`--new-identity`).
    Forget,
}

/// The open, locked folder.
#[derive(Debug)]
pub struct WitnessFolder {
    directory: File,
    folder: PathBuf,
    id: ArbiterId,
    slots: BTreeMap<String, Slots>,
    /// Records whose file could not be made under its name: the folder is in doubt.
    failed: BTreeSet<String>,
    _lock: File,
}

/// The file of one record.
#[derive(Debug)]
struct Slots {
    file: File,
    counter: u64,
    failed: bool,
}

/// A record as a start finds it.
#[derive(Debug)]
pub struct FoundRecord {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the resource.
    pub resource: String,
    /// `None`: neither slot can be read.
    pub record: Option<ArbiterRecord>,
}

/// Name of the file with the id.
const ID_FILE: &str = "id";
/// Name of the file that is locked.
const LOCK_FILE: &str = "lock";
/// Name of the file that says who may enroll.
const ALLOW_FILE: &str = "allow";
/// What names of files of records end in; between cluster and resource is an `@`.
const RECORD_SUFFIX: &str = ".record";
/// Longest `allow` file that is read, in bytes.
const ALLOW_LEN_MAX: usize = 1 << 20;

impl WitnessFolder {
    /// Opens the folder, which is made if it is not there, and reads its records. `new_id` is
    /// random and not zero.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another witness uses it, [`StoreError::NotOurs`] if others can
    /// change it, [`StoreError::Unreadable`] if the id is damaged or a record is of a newer
    /// release, [`StoreError::Io`], [`StoreError::NoSpace`].
    pub fn open(
        folder: &Path,
        start: WitnessStart,
        new_id: ArbiterId,
    ) -> Result<(Self, Vec<FoundRecord>), StoreError> {
        let directory = make_folder(folder)?;
        check_folder(&directory, folder)?;
        let lock_path = folder.join(LOCK_FILE);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock_file = openat(&directory, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)
            .map(File::from)
            .map_err(|errno| StoreError::from_open(&lock_path, "open", errno))?;
        lock(&lock_file, &lock_path)?;
        let id_path = folder.join(ID_FILE);
        let known = match start {
            WitnessStart::Forget => None,
            WitnessStart::Keep => read_id(&id_path)?,
        };
        if known.is_none() {
            // Before a record is forgotten: a store with the old id and without its records would
            // be taken for what it was.
            replace_file(&id_path, &encode_id(new_id))?;
        }
        let id = known.unwrap_or(new_id);
        let mut it = Self {
            directory,
            folder: folder.to_owned(),
            id,
            slots: BTreeMap::new(),
            failed: BTreeSet::new(),
            _lock: lock_file,
        };
        let names = it.record_names()?;
        if start == WitnessStart::Forget {
            it.forget(&names)?;
            return Ok((it, Vec::new()));
        }
        let mut found = Vec::new();
        for name in names {
            found.extend(it.read_record(&name)?);
        }
        Ok((it, found))
    }

    /// The identity of the store.
    pub fn id(&self) -> ArbiterId {
        self.id
    }

    /// The text of the file `allow`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Io`] if it cannot be read or is no text: that must not pass for none.
    pub fn read_allow(&self) -> Result<Option<String>, StoreError> {
        let path = self.folder.join(ALLOW_FILE);
        match read_file(&path, ALLOW_LEN_MAX) {
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(bytes) => String::from_utf8(bytes)
                .map(Some)
                .map_err(|_| StoreError::other(&path, "read", ErrorKind::InvalidData)),
        }
    }

    /// Where the file `allow` is looked for.
    pub fn allow_path(&self) -> PathBuf {
        self.folder.join(ALLOW_FILE)
    }

    /// Makes a record stable. Names are those that the codec takes.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`], [`StoreError::Io`]; [`StoreError::FailedBefore`] for every later
    /// write of a record whose write or sync failed once.
    pub fn write(
        &mut self,
        cluster: &str,
        resource: &str,
        record: &ArbiterRecord,
    ) -> Result<(), StoreError> {
        let name = file_name(cluster, resource);
        let path = self.folder.join(&name);
        let counter = self.slots.get(&name).map_or(0, |slots| slots.counter) + 1;
        let stored = StoredRecord {
            counter,
            cluster: cluster.to_owned(),
            resource: resource.to_owned(),
            record: record.clone(),
        };
        let Some(slots) = self.slots.get_mut(&name) else {
            return self.create(name, &path, &stored);
        };
        if slots.failed {
            return Err(StoreError::FailedBefore { path });
        }
        let written = write_at(&slots.file, &path, slot_offset(counter), &stored.encode())
            // Orders the record ahead of the reply that relies on it.
            .and_then(|()| {
                fdatasync(&slots.file).map_err(|errno| StoreError::from_sync(&path, errno))
            });
        match written {
            Ok(()) => slots.counter = counter,
            Err(_) => slots.failed = true,
        }
        written
    }

    /// Makes the file of a record, with both slots allocated, so that a full disk is met here.
    fn create(
        &mut self,
        name: String,
        path: &Path,
        stored: &StoredRecord,
    ) -> Result<(), StoreError> {
        if self.failed.contains(&name) {
            return Err(StoreError::FailedBefore { path: path.to_owned() });
        }
        let mut head = vec![0; usize::try_from(slot_offset(stored.counter)).expect("a page")];
        head.extend_from_slice(&stored.encode());
        let file = NewFile { name: &name, head: &head, len: TWO_SLOTS_LEN };
        // Until it has its name nothing relies on it, and the next attempt makes another file.
        write_new(&self.directory, &self.folder, file)?;
        let opened =
            sync_folder(&self.directory, &self.folder).and_then(|()| self.open_file(&name));
        match opened {
            Ok(file) => {
                let slots = Slots { file, counter: stored.counter, failed: false };
                self.slots.insert(name, slots);
                Ok(())
            }
            Err(error) => {
                self.failed.insert(name);
                Err(error)
            }
        }
    }

    fn open_file(&self, name: &str) -> Result<File, StoreError> {
        let path = self.folder.join(name);
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| StoreError::from_open(&path, "open", errno))?;
        check_ours(&file, &path)?;
        Ok(file)
    }

    /// Names of files that records have.
    fn record_names(&self) -> Result<Vec<String>, StoreError> {
        let failed = |errno| StoreError::from_errno(&self.folder, "list", errno);
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if let Some(name) = name.to_str()
                && name.strip_suffix(RECORD_SUFFIX).is_some_and(|stem| stem.contains('@'))
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn forget(&self, names: &[String]) -> Result<(), StoreError> {
        for name in names {
            unlinkat(&self.directory, name, AtFlags::empty()).map_err(|errno| {
                StoreError::from_errno(&self.folder.join(name), "remove", errno)
            })?;
        }
        sync_folder(&self.directory, &self.folder)
    }

    /// Reads a record, unless it is another store's.
    fn read_record(&mut self, name: &str) -> Result<Option<FoundRecord>, StoreError> {
        let path = self.folder.join(name);
        let Some((cluster, resource)) =
            name.strip_suffix(RECORD_SUFFIX).and_then(|stem| stem.split_once('@'))
        else {
            return Ok(None);
        };
        let (cluster, resource) = (cluster.to_owned(), resource.to_owned());
        let mut file = self.open_file(name)?;
        let mut bytes = Vec::new();
        let stored = match (&mut file).take(TWO_SLOTS_LEN).read_to_end(&mut bytes) {
            Ok(_) => StoredRecord::newest(&bytes),
            Err(source) => {
                warn!(path = %path.display(), %source, "a record cannot be read");
                return Ok(Some(FoundRecord { cluster, resource, record: None }));
            }
        };
        match stored {
            Ok(stored) if !stored.record.arbiter.is_of(self.id) => {
                warn!(path = %path.display(), "a record of another store, which is not used");
                Ok(None)
            }
            Ok(stored) if (&stored.cluster, &stored.resource) == (&cluster, &resource) => {
                let slots = Slots { file, counter: stored.counter, failed: false };
                self.slots.insert(name.to_owned(), slots);
                Ok(Some(FoundRecord { cluster, resource, record: Some(stored.record) }))
            }
            Ok(_) => {
                warn!(path = %path.display(), "a record under the name of another one");
                Ok(Some(FoundRecord { cluster, resource, record: None }))
            }
            Err(source @ Damage::Format { .. }) => Err(StoreError::Unreadable { path, source }),
            Err(damage) => {
                warn!(path = %path.display(), %damage, "a record cannot be used");
                Ok(Some(FoundRecord { cluster, resource, record: None }))
            }
        }
    }
}

fn file_name(cluster: &str, resource: &str) -> String {
    format!("{cluster}@{resource}{RECORD_SUFFIX}")
}

/// Only we may reach into the folder: a record that others can put there is worth nothing.
fn check_folder(directory: &File, folder: &Path) -> Result<(), StoreError> {
    let status =
        fstat(directory).map_err(|errno| StoreError::from_errno(folder, "look at", errno))?;
    let not_ours = |why| Err(StoreError::NotOurs { path: folder.to_owned(), why });
    if FileType::from_raw_mode(status.st_mode) != FileType::Directory {
        return not_ours("not a folder");
    }
    if status.st_uid != rustix::process::geteuid().as_raw() {
        return not_ours("belongs to another user: chown it to the user of the witness");
    }
    if Mode::from_raw_mode(status.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        return not_ours("others can reach into this folder: chmod 700");
    }
    Ok(())
}

const ID_MAGIC: [u8; 8] = *b"HPWITID1";
/// Magic, format, zero, id, sum.
const ID_LEN: usize = 36;

fn encode_id(id: ArbiterId) -> Vec<u8> {
    let mut bytes = ID_MAGIC.to_vec();
    bytes.extend_from_slice(U32::new(1).as_bytes());
    bytes.extend_from_slice(U32::new(0).as_bytes());
    bytes.extend_from_slice(U128::new(id.0).as_bytes());
    let sum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(U32::new(sum).as_bytes());
    bytes
}

fn read_id(path: &Path) -> Result<Option<ArbiterId>, StoreError> {
    let bytes = match read_file(path, ID_LEN) {
        Err(StoreError::Missing { .. }) => return Ok(None),
        read => read?,
    };
    let id = bytes.get(16..32).and_then(|id| <[u8; 16]>::try_from(id).ok());
    let id = id.map(|id| ArbiterId(u128::from_le_bytes(id)));
    match id {
        Some(id) if id.0 != 0 && encode_id(id) == bytes => Ok(Some(id)),
        _ => {
            let source = Damage::Checksum { file: ID_FILE };
            Err(StoreError::Unreadable { path: path.to_owned(), source })
        }
    }
}

#[cfg(test)]
mod tests;
