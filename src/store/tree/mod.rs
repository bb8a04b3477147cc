//! Directory trees: looked at, watched and changed through held directories.
//!
//! The kernel gets single names from here, never a path, and follows no link: whatever happens to the
//! tree meanwhile, nothing outside is read or touched. `folder.rs` holds a directory, `make.rs` makes,
//! moves and removes entries of one, `attributes.rs` reads and sets extended attributes, `watch.rs` says
//! where something changed. `work_area.rs` is the folder beside the tree in which objects are born.

mod attributes;
mod folder;
#[cfg(feature = "directory")]
pub mod index;
mod make;
mod watch;
mod work_area;

pub use attributes::{read_xattrs, write_xattrs};
pub use folder::{Folder, Found, Listing};
pub use make::set_metadata;
pub use watch::{Hint, Watch, WatchError};
pub use work_area::{WorkArea, WorkAreaError};
