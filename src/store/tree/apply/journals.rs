//! The files of journals in the state folder.
//!
//! A journal is one file. It is written whole and synced before the commit record has its hash, so
//! what a crash leaves of one is either committed and whole, or nobody relies on it. One that takes
//! back what was never applied has a name of its own: it leads to no generation that is kept, and is
//! of no use once it is carried out.

use std::fs::File;
use std::io::{Read as _, Write as _};

use rustix::fs::fsync;
use rustix::io::Errno;

use super::super::folder::Folder;
use super::error::ApplyError;
use super::records::errno_of;
use super::steps::Steps;
use crate::manifest::Name;
use crate::manifest::apply::JournalNumber;

/// Longest journal in bytes. An operation has some hundred bytes, so it holds millions; a journal is
/// in memory as a whole, and one that is longer would take all of it.
pub(super) const JOURNAL_LEN_MAX: u64 = 1 << 30;

/// What a journal is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// It leads to a generation, and is kept for the way back from there.
    On,
    /// It takes back one that was committed and never applied.
    Back,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::On, Self::Back];

    /// What the name of its file begins with; the number follows.
    fn prefix(self) -> &'static str {
        match self {
            Self::On => "journal-",
            Self::Back => "back-",
        }
    }
}

/// The folder that they are in.
#[derive(Debug)]
pub(super) struct Journals {
    state: Folder,
}

impl Journals {
    pub(super) fn new(state: Folder) -> Self {
        Self { state }
    }

    /// The folder.
    pub(super) fn state(&self) -> &Folder {
        &self.state
    }

    /// Writes the journal `number`, which is stable when this returns. One that was never committed
    /// is written over.
    pub(super) fn write(
        &self,
        steps: &Steps,
        (purpose, number): (Purpose, JournalNumber),
        bytes: &[u8],
    ) -> Result<(), ApplyError> {
        self.remove(steps, number)?;
        let name = name_of(purpose, number);
        let failed = |action| {
            let path = name.to_string();
            move |errno| ApplyError::kernel(action, path, errno)
        };
        let path = || name.to_string();
        steps.take("make", path)?;
        let mut file = self.state.make_file(&name).map_err(failed("make"))?;
        let written = steps.take("write", path).and_then(|()| {
            file.write_all(bytes).map_err(|error| failed("write")(errno_of(&error)))
        });
        if let Err(error @ ApplyError::NoSpace { .. }) = written {
            // The part of it that found space is of no use, and in the way of what may be.
            let _ = self.state.remove_file(&name);
            return Err(error);
        }
        written?;
        steps.take("sync", path)?;
        // Its bytes are stable before the commit record says their hash.
        fsync(&file).map_err(|errno| ApplyError::sync(name.to_string(), errno))?;
        self.sync(steps)
    }

    /// The bytes of the journal `number`, for this purpose; `None` if there is none.
    pub(super) fn read(
        &self,
        purpose: Purpose,
        number: JournalNumber,
    ) -> Result<Option<Vec<u8>>, ApplyError> {
        let name = name_of(purpose, number);
        let failed = |action, errno| ApplyError::kernel(action, name.to_string(), errno);
        let file: File = match self.state.file(&name) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(failed("open", errno)),
        };
        let mut bytes = Vec::new();
        file.take(JOURNAL_LEN_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| failed("read", errno_of(&error)))?;
        if bytes.len() as u64 > JOURNAL_LEN_MAX {
            return Err(failed("read", Errno::FBIG));
        }
        Ok(Some(bytes))
    }

    /// Removes the journal `number`, if it is there, and makes that stable.
    pub(super) fn remove(&self, steps: &Steps, number: JournalNumber) -> Result<(), ApplyError> {
        for purpose in Purpose::ALL {
            let name = name_of(purpose, number);
            let failed = |errno| ApplyError::kernel("remove", name.to_string(), errno);
            if self.state.look(&name).map_err(failed)?.is_some() {
                steps.take("remove", || name.to_string())?;
                self.state.remove_file(&name).map_err(failed)?;
                self.sync(steps)?;
            }
        }
        Ok(())
    }

    /// The numbers of all that are there for this purpose, in rising order.
    pub(super) fn numbers(&self, purpose: Purpose) -> Result<Vec<JournalNumber>, ApplyError> {
        let listing = self.state.list();
        let names =
            listing.map_err(|errno| ApplyError::kernel("list", "the state folder", errno))?;
        let prefix = purpose.prefix().as_bytes();
        let mut numbers: Vec<JournalNumber> = names
            .names
            .iter()
            .filter_map(|name| number_of(name.bytes().strip_prefix(prefix)?))
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn sync(&self, steps: &Steps) -> Result<(), ApplyError> {
        let path = "the state folder";
        steps.take("sync", || path.to_owned())?;
        // The name is there before the commit record speaks of it, or gone before what it kept is.
        self.state.sync().map_err(|errno| ApplyError::sync(path, errno))
    }
}

/// The number that these digits are the one way to write.
pub(super) fn number_of(digits: &[u8]) -> Option<JournalNumber> {
    let text = std::str::from_utf8(digits).ok()?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(JournalNumber(number))
}

fn name_of(purpose: Purpose, number: JournalNumber) -> Name {
    let text = format!("{}{}", purpose.prefix(), number.0);
    Name::new(text.as_bytes()).expect("a word and digits are a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journals_are_written_read_and_removed_by_their_number() {
        let outer = tempfile::tempdir().unwrap();
        let journals = Journals::new(Folder::open(outer.path()).unwrap());
        let steps = Steps::unlimited();
        let numbers = |purpose| journals.numbers(purpose).unwrap();
        let read = |purpose, number| journals.read(purpose, JournalNumber(number)).unwrap();
        assert_eq!(numbers(Purpose::On), []);
        for number in [9, 10, 1] {
            let bytes = vec![u8::try_from(number).unwrap(); 100_000];
            journals.write(&steps, (Purpose::On, JournalNumber(number)), &bytes).unwrap();
            assert_eq!(read(Purpose::On, number), Some(bytes));
            assert_eq!(read(Purpose::Back, number), None);
        }
        for stray in ["journal-", "journal-01", "journal-x", "journal-+3", "other"] {
            std::fs::write(outer.path().join(stray), "").unwrap();
        }
        assert_eq!(numbers(Purpose::On), [1, 9, 10].map(JournalNumber));
        journals.write(&steps, (Purpose::Back, JournalNumber(9)), b"short").unwrap();
        assert_eq!(numbers(Purpose::On), [1, 10].map(JournalNumber));
        assert_eq!(numbers(Purpose::Back), [JournalNumber(9)]);
        assert_eq!(read(Purpose::Back, 9), Some(b"short".to_vec()));
        journals.remove(&steps, JournalNumber(9)).unwrap();
        journals.remove(&steps, JournalNumber(9)).unwrap();
        assert_eq!((read(Purpose::On, 9), read(Purpose::Back, 9)), (None, None));
    }
}
