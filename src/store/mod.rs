//! The data file and the metadata files: every fsync rule lives here.
