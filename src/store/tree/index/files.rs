//! The files of indexes in the state folder: the one that counts, and one that is about to replace it.
//!
//! A file that is none of ours, or that is damaged, is moved aside, for the index can be made from the tree.
//! Where the disk cannot be read nothing is moved: that is no fault of the file.

use std::fs::File;
use std::io::ErrorKind;

use redb::Builder;
use redb::backends::FileBackend;
use rustix::fs::{Mode, OFlags, openat2};
use rustix::io::Errno;

use super::super::folder::{BENEATH, Folder, os};
use super::{CACHE_LEN, Index, IndexError, lost};
use crate::manifest::Name;

/// Name of the index in the state folder.
pub const INDEX_FILE: &str = "index.redb";
/// Name of the damaged file that was moved aside last.
const DAMAGED_FILE: &str = "index.redb.damaged";

impl Index {
    /// Opens the index in a state folder, or makes an empty one. Also gives what was wrong with a damaged one,
    /// which is called `index.redb.damaged` then; an older one of that name is gone.
    ///
    /// # Errors
    /// [`IndexError::Database`] if the disk fails or somebody else has it open, [`IndexError::File`].
    pub fn open_in(state: &Folder) -> Result<(Self, Option<IndexError>), IndexError> {
        let name = name(INDEX_FILE);
        match Self::open_file(state, &name) {
            Ok(index) => Ok((index, None)),
            Err(damage) if is_damage(&damage) => {
                let aside = self::name(DAMAGED_FILE);
                remove(state, &aside)?;
                let moved = state.rename(&name, state, &aside);
                moved.map_err(failed("move a damaged one aside"))?;
                Ok((Self::open_file(state, &name)?, Some(damage)))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes an empty index beside the one that counts; what was left under that name is gone.
    ///
    /// # Errors
    /// [`IndexError`].
    pub(in crate::store::tree) fn make_in(
        state: &Folder,
        file: &'static str,
    ) -> Result<Self, IndexError> {
        let name = name(file);
        remove(state, &name)?;
        Self::open_file(state, &name)
    }

    /// Opens the index of this name; `None` if there is none, or it is damaged.
    ///
    /// # Errors
    /// [`IndexError`].
    pub(in crate::store::tree) fn find_in(
        state: &Folder,
        file: &'static str,
    ) -> Result<Option<Self>, IndexError> {
        let name = name(file);
        match state.look(&name) {
            Ok(None) => return Ok(None),
            Ok(Some(_)) => {}
            Err(errno) => return Err(failed("look for it")(errno)),
        }
        match Self::open_file(state, &name) {
            Ok(index) => Ok(Some(index)),
            Err(error) if is_damage(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The index of this name becomes the one that counts. Whoever has the other one open keeps that.
    ///
    /// # Errors
    /// [`IndexError::File`].
    pub(in crate::store::tree) fn take_place(
        state: &Folder,
        file: &'static str,
    ) -> Result<(), IndexError> {
        let (new, name) = (name(file), name(INDEX_FILE));
        let moved = match state.exchange(&new, state, &name) {
            // There was none.
            Err(Errno::NOENT) => state.rename(&new, state, &name),
            moved => moved,
        };
        moved.map_err(failed("give it its name"))?;
        // Its name is stable before anything says that the tree is what it has.
        state.sync().map_err(failed("sync its folder"))?;
        remove(state, &new)
    }

    /// Removes the index of this name, if there is one.
    ///
    /// # Errors
    /// [`IndexError::File`].
    pub(in crate::store::tree) fn remove_in(
        state: &Folder,
        file: &'static str,
    ) -> Result<(), IndexError> {
        remove(state, &name(file))
    }

    fn open_file(state: &Folder, name: &Name) -> Result<Self, IndexError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat2(state, os(name), flags, Mode::RUSR | Mode::WUSR, BENEATH);
        let file = opened.map(File::from).map_err(failed("open it"))?;
        let backend = FileBackend::new(file).map_err(lost)?;
        let database = Builder::new().set_cache_size(CACHE_LEN).create_with_backend(backend);
        Self::of(database.map_err(lost)?)
    }
}

/// Whether the file is at fault, and not the disk or whoever else has it open.
fn is_damage(error: &IndexError) -> bool {
    match error {
        IndexError::Database(error) => match &**error {
            redb::Error::Io(error) => {
                matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
            }
            redb::Error::Corrupted(_)
            | redb::Error::UpgradeRequired(_)
            | redb::Error::RepairAborted
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => true,
            _ => false,
        },
        IndexError::Row { .. } | IndexError::Missing { .. } | IndexError::Root => true,
        IndexError::File { .. }
        | IndexError::Numbers
        | IndexError::Abandoned
        | IndexError::Tree(_) => false,
    }
}

fn remove(state: &Folder, name: &Name) -> Result<(), IndexError> {
    match state.remove_file(name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove an old one")(errno)),
    }
}

fn failed(action: &'static str) -> impl FnOnce(Errno) -> IndexError {
    move |errno| IndexError::File { action, errno }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("our own words are names")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Rows;
    use super::*;
    use crate::units::{TreeNumber, TreePosition};

    fn number(index: &Index) -> u64 {
        index.view().unwrap().position().unwrap().number.0
    }

    fn put(index: &Index, number: u64) {
        let position = TreePosition { number: TreeNumber(number), ..TreePosition::default() };
        index.change(|tables| tables.put_position(position)).unwrap();
    }

    #[test]
    fn a_damaged_file_is_moved_aside_and_the_next_one_replaces_it() {
        let outer = tempfile::tempdir().unwrap();
        let state = Folder::open(outer.path()).unwrap();
        let path = outer.path().join(INDEX_FILE);
        let (index, damage) = Index::open_in(&state).unwrap();
        assert!(damage.is_none());
        put(&index, 7);
        drop(index);
        let whole = fs::read(&path).unwrap();
        let header = [&[0; 64], &whole[64..]].concat();
        let damages = [b"no database at all".to_vec(), whole[..100].to_vec(), header];
        for damaged in &damages {
            fs::write(&path, damaged).unwrap();
            let (index, damage) = Index::open_in(&state).unwrap();
            assert!(damage.is_some());
            assert_eq!(number(&index), 0);
            put(&index, 8);
            drop(index);
            assert_eq!(fs::read(outer.path().join(DAMAGED_FILE)).unwrap(), *damaged);
        }
        let (index, damage) = Index::open_in(&state).unwrap();
        assert_eq!((number(&index), damage.is_none()), (8, true));
        // One that is used is not damaged.
        assert!(Index::open_in(&state).is_err());
        assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_new_index_takes_the_place_of_the_one_that_counts() {
        let outer = tempfile::tempdir().unwrap();
        let state = Folder::open(outer.path()).unwrap();
        assert!(Index::find_in(&state, "new").unwrap().is_none());
        for count in 1..=2 {
            put(&Index::make_in(&state, "new").unwrap(), count);
            assert_eq!(number(&Index::find_in(&state, "new").unwrap().unwrap()), count);
            Index::take_place(&state, "new").unwrap();
            assert_eq!(number(&Index::open_in(&state).unwrap().0), count);
            assert!(Index::find_in(&state, "new").unwrap().is_none());
        }
        let (index, _) = Index::open_in(&state).unwrap();
        let made = Index::make_in(&state, "new").unwrap();
        Index::take_place(&state, "new").unwrap();
        put(&index, 5);
        assert_eq!((number(&index), number(&made)), (5, 0));
        fs::write(outer.path().join("new"), "none").unwrap();
        assert!(Index::find_in(&state, "new").unwrap().is_none());
    }
}
