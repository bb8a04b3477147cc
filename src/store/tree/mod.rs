//! Directory trees: looked at, watched and changed through held directories.
//!
//! The kernel gets single names from here, never a path, and follows no link: whatever happens to the
//! tree meanwhile, nothing outside is read or touched. `folder.rs` holds a directory, `attributes.rs`
//! reads and sets extended attributes, `watch.rs` says where something changed.

mod attributes;
mod folder;
#[cfg(feature = "directory")]
pub mod index;
mod watch;

pub use attributes::{read_xattrs, write_xattrs};
pub use folder::{Folder, Found, Listing};
pub use watch::{Hint, Watch, WatchError};
