//! Mail as servers keep it: a file for each message, written in `tmp`, moved to `new` when whole,
//! to `cur` when seen, and renamed for each flag.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{RenameFlags, renameat_with};

use super::super::stamped;

const FOLDERS: [&str; 3] = ["tmp", "new", "cur"];
/// Drafts, flagged, answered, seen, deleted; in this order in a name.
const FLAGS: &str = "DFRST";
/// Messages of one writer, above which it deletes more than it delivers.
const MESSAGES_MAX: usize = 200;

/// One of the programs that write to a folder of mail. Each only touches messages of its own.
#[derive(Debug)]
pub(crate) struct Writer {
    root: PathBuf,
    /// Differs between the writers of one folder.
    number: u32,
    random: fastrand::Rng,
    delivered: u32,
    /// Where each message is: its number, and the path relative to the folder of mail.
    messages: BTreeMap<u32, PathBuf>,
}

impl Writer {
    /// A writer that has delivered nothing yet; makes the folders that are missing.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn new(root: &Path, number: u32, seed: u64) -> io::Result<Self> {
        for folder in FOLDERS {
            fs::create_dir_all(root.join(folder))?;
        }
        let random = fastrand::Rng::with_seed(seed);
        let (root, messages) = (root.to_owned(), BTreeMap::new());
        Ok(Self { root, number, random, delivered: 0, messages })
    }

    /// Delivers, sees, flags or deletes a message.
    ///
    /// # Errors
    /// What the system says. The message in question may be where it was, or where it should be.
    pub(crate) fn step(&mut self) -> io::Result<()> {
        let message = (!self.messages.is_empty()).then(|| {
            let at = self.random.usize(..self.messages.len());
            self.messages.iter().nth(at).map(|(number, path)| (*number, path.clone()))
        });
        let Some((number, path)) = message.flatten() else { return self.deliver() };
        let is_full = self.messages.len() >= MESSAGES_MAX;
        match self.random.u8(0..10) {
            0..=3 if !is_full => self.deliver(),
            8..=9 if is_full || self.messages.len() > 20 => {
                fs::remove_file(self.root.join(path))?;
                self.messages.remove(&number);
                Ok(())
            }
            _ => self.flag(number, &path),
        }
    }

    /// How many messages there should be of this writer.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Each message of this writer is in `root`, a copy or the folder itself, where it was left,
    /// whole, and no other one of its.
    ///
    /// # Errors
    /// The first message that is not.
    pub(crate) fn check(&self, root: &Path) -> Result<(), String> {
        for (number, path) in &self.messages {
            stamped::check_whole(&root.join(path), self.id(*number))
                .map_err(|torn| format!("{}: {torn:?}", path.display()))?;
        }
        let mut found = messages_in(root).map_err(|err| err.to_string())?;
        found.retain(|(_, id)| id >> 32 == u64::from(self.number));
        if found.len() == self.messages.len() {
            return Ok(());
        }
        let is_known = |path: &PathBuf| self.messages.values().any(|known| known == path);
        let strange: Vec<_> = found.iter().filter(|(path, _)| !is_known(path)).take(5).collect();
        Err(format!("{} messages, {} expected: {strange:?}", found.len(), self.messages.len()))
    }

    fn id(&self, number: u32) -> u64 {
        u64::from(self.number) << 32 | u64::from(number)
    }

    fn deliver(&mut self) -> io::Result<()> {
        self.delivered += 1;
        let number = self.delivered;
        let id = self.id(number);
        let name = format!("{}.M{id}.host", 1_600_000_000 + number);
        let aside = self.root.join("tmp").join(&name);
        let len = self.random.u64(stamped::LEN_MIN..20_000);
        stamped::write_version(&aside, id, 1, len)?;
        // The message is on disk before its name in `new` acknowledges it.
        File::open(&aside)?.sync_all()?;
        let path = Path::new("new").join(name);
        if self.random.bool() {
            fs::hard_link(&aside, self.root.join(&path))?;
            self.messages.insert(number, path);
            return fs::remove_file(aside);
        }
        rename(&aside, &self.root.join(&path))?;
        self.messages.insert(number, path);
        Ok(())
    }

    /// Moves a message to `cur`, or gives it other flags there.
    fn flag(&mut self, number: u32, path: &Path) -> io::Result<()> {
        let flags: String = FLAGS.chars().filter(|_| self.random.bool()).collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let base = name.split(':').next().unwrap_or_default();
        let target = Path::new("cur").join(format!("{base}:2,{flags}"));
        if target != path {
            rename(&self.root.join(path), &self.root.join(&target))?;
            self.messages.insert(number, target);
        }
        Ok(())
    }
}

/// Each message in `new` and `cur` of a folder of mail is whole, whoever wrote it; how many.
///
/// # Errors
/// The first that is not, or why it could not be looked at.
pub(crate) fn check_messages(root: &Path) -> Result<usize, String> {
    let found = messages_in(root).map_err(|err| err.to_string())?;
    for (path, id) in &found {
        stamped::check_whole(&root.join(path), *id)
            .map_err(|torn| format!("{}: {torn:?}", path.display()))?;
    }
    Ok(found.len())
}

/// The messages that were delivered, with the number that their name says.
fn messages_in(root: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for folder in &FOLDERS[1..] {
        for entry in fs::read_dir(root.join(folder))? {
            let name = entry?.file_name();
            let id = name.to_string_lossy().split(['.', ':']).nth(1).and_then(|part| {
                part.strip_prefix('M').and_then(|digits| digits.parse::<u64>().ok())
            });
            let strange = || io::Error::other(format!("{}: no message", name.display()));
            found.push((Path::new(folder).join(&name), id.ok_or_else(strange)?));
        }
    }
    Ok(found)
}

/// To a name that must be free.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let here = rustix::fs::CWD;
    Ok(renameat_with(here, from, here, to, RenameFlags::NOREPLACE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writers_leave_is_what_they_know() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("mail");
        let mut writers: Vec<_> =
            (0..3).map(|it| Writer::new(&root, it, u64::from(it)).unwrap()).collect();
        for _ in 0..300 {
            for writer in &mut writers {
                writer.step().unwrap();
            }
        }
        for writer in &writers {
            writer.check(&root).unwrap();
            assert!(writer.len() > 20 && writer.delivered as usize > writer.len());
        }
        let expected = writers.iter().map(Writer::len).sum::<usize>();
        assert_eq!(check_messages(&root), Ok(expected));
        let moved = writers.iter().flat_map(|writer| writer.messages.values());
        assert!(moved.into_iter().any(|path| path.starts_with("cur")));
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_lost_a_torn_and_an_old_message_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_owned();
        let mut writer = Writer::new(&root, 1, 1).unwrap();
        for _ in 0..50 {
            writer.step().unwrap();
        }
        let path = root.join(writer.messages.values().next().unwrap());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(writer.check(&root).is_err() && check_messages(&root).is_err());
        fs::write(&path, &bytes).unwrap();
        writer.check(&root).unwrap();

        let copy = root.join("new/1.M4294967999.host");
        stamped::write_version(&copy, 4_294_967_999, 1, 100).unwrap();
        assert!(writer.check(&root).is_err() && check_messages(&root).is_ok());
        fs::remove_file(copy).unwrap();
        fs::remove_file(path).unwrap();
        assert!(writer.check(&root).is_err() && check_messages(&root).is_ok());
    }
}
