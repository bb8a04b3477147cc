//! Directory trees: looked at, watched and changed through held directories.
//!
//! The kernel gets single names from here, never a path, and follows no link: whatever happens to the
//! tree meanwhile, nothing outside is read or touched. `folder.rs` holds a directory, `make.rs` makes,
//! moves and removes entries of one, `attributes.rs` reads and sets extended attributes, `watch.rs` says
//! where something changed, `observer.rs` remembers it. `capture` reads what is there into the `index`.
//! `exclude.rs` says what is not looked at, `outgoing.rs` what a peer is sent. `work_area.rs` is the folder
//! beside the tree in which objects are born; `receive` brings them there, `apply` from there into the tree,
//! and `target` does one after the other; `reconcile.rs` begins where nobody knows what the tree is, and
//! `follow.rs` brings the index along. `kept` is what leads
//! back to earlier generations.

pub mod apply;
mod attributes;
#[cfg(feature = "directory")]
pub mod capture;
#[cfg(feature = "directory")]
mod exclude;
mod folder;
#[cfg(feature = "directory")]
mod follow;
#[cfg(feature = "directory")]
pub mod index;
#[cfg(feature = "directory")]
mod kept;
mod make;
mod observer;
#[cfg(feature = "directory")]
pub mod outgoing;
#[cfg(feature = "directory")]
pub mod receive;
#[cfg(feature = "directory")]
pub mod reconcile;
#[cfg(feature = "directory")]
pub mod target;
mod watch;
mod work_area;

pub use attributes::{read_xattrs, write_xattrs};
#[cfg(feature = "directory")]
pub use exclude::{Exclude, ExcludeError};
pub use folder::{Folder, Found, Listing};
#[cfg(feature = "directory")]
pub use kept::{About, KeptError};
pub use make::set_metadata;
pub use observer::{DirtyLook, Observer};
pub use watch::{Hint, Watch, WatchError};
pub use work_area::{WorkArea, WorkAreaError};
