//! The index of a tree: what the last look saw, in one database file.
//!
//! It is a cache of the truth, which is the tree itself and the superblock: lost or damaged, it costs one
//! read of the tree. Keys hold the directory *object*, so renaming a directory of any size changes one
//! row. Each generation is one transaction, and it is stable before anybody hears of the generation.

mod delta;
mod files;
mod fold;
mod hashes;
mod renumber;
mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;

use redb::backends::InMemoryBackend;
use redb::{Builder, Database, ReadableDatabase};
use rustix::io::Errno;

pub use delta::{Delta, Runs};
pub use files::INDEX_FILE;
pub use tables::{Rows, Tables, View};

use crate::manifest::ManifestError;

/// Bytes of the database that are kept in memory. Source: directory.md 7.
const CACHE_LEN: usize = 64 << 20;

/// Why the index cannot be used; the tree is read anew then.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database, or the disk below it, failed.
    #[error("the index of the tree: {0}")]
    Database(Box<redb::Error>),
    /// A row is not one that we write.
    #[error("the index of the tree: a row of {table} is none: {why}")]
    Row {
        /// Which table.
        table: &'static str,
        /// Why.
        why: ManifestError,
    },
    /// Two tables do not fit each other.
    #[error("the index of the tree: {table} has no row for object {object}")]
    Missing {
        /// Which table.
        table: &'static str,
        /// What for.
        object: u64,
    },
    /// Its file cannot be made or moved.
    #[error("the index of the tree: cannot {action}: {errno}")]
    File {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        errno: Errno,
    },
    /// Objects of the tree cannot be given numbers that a record can say.
    #[error("the index of the tree: there are no more object numbers")]
    Numbers,
    /// What its rows say is not what its root says.
    #[error("the index of the tree: its rows are not those of its root")]
    Root,
    /// Whoever changed it gave up, for a reason of its own.
    #[error("the index of the tree: a change was given up")]
    Abandoned,
    /// The entries of the tree cannot be kept.
    #[error(transparent)]
    Tree(#[from] ManifestError),
}

/// The database of one tree.
#[derive(Debug)]
pub struct Index {
    database: Database,
}

impl Index {
    /// Opens the index at `path`, or makes an empty one.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        Self::of(Builder::new().set_cache_size(CACHE_LEN).create(path).map_err(lost)?)
    }

    /// An empty index that is nowhere on disk: the base of a tree of which nothing is known.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn in_memory() -> Result<Self, IndexError> {
        let backend = InMemoryBackend::new();
        Self::of(Builder::new().create_with_backend(backend).map_err(lost)?)
    }

    fn of(database: Database) -> Result<Self, IndexError> {
        let index = Self { database };
        // Tables are made once, so that whoever only reads finds them.
        index.change(|_| Ok(()))?;
        Ok(index)
    }

    /// Changes the index: all that `change` does is stable when this returns, or nothing of it if it
    /// failed.
    ///
    /// # Errors
    /// What `change` returns, and [`IndexError::Database`].
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let transaction = self.database.begin_write().map_err(lost)?;
        let mut tables = Tables::open(&transaction)?;
        let result = change(&mut tables);
        drop(tables);
        match result {
            Ok(value) => {
                transaction.commit().map_err(lost)?;
                Ok(value)
            }
            Err(error) => {
                transaction.abort().map_err(lost)?;
                Err(error)
            }
        }
    }

    /// Tries a change: what `change` makes of the index, of which nothing stays.
    ///
    /// # Errors
    /// As [`Index::change`].
    pub fn try_out<T>(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let transaction = self.database.begin_write().map_err(lost)?;
        let mut tables = Tables::open(&transaction)?;
        let result = change(&mut tables);
        drop(tables);
        transaction.abort().map_err(lost)?;
        result
    }

    /// The index as it is now, whatever is changed meanwhile.
    ///
    /// # Errors
    /// [`IndexError::Database`].
    pub fn view(&self) -> Result<View, IndexError> {
        View::open(&self.database.begin_read().map_err(lost)?)
    }
}

fn lost(error: impl Into<redb::Error>) -> IndexError {
    IndexError::Database(Box::new(error.into()))
}
