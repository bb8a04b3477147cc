//! What a replica remembers on disk: bytes to types and back, and pure recovery.
//!
//! A replica has a folder of its own with four files: the [`Superblock`], the [`DirtyMap`] with
//! the sums of its pages, and the [`ActivityLog`]. [`recover()`] takes their bytes as a start finds
//! them and says what may be believed; only its result can become a replica. [`birth()`] makes the
//! files of a new one. Nothing here touches a file: reading, mapping, writing and syncing are left
//! to `store`, and to a `Vec<u8>` in the simulator.
//!
//! Assumed of the medium: a successful fdatasync makes earlier writes stable; until then they land
//! in any order and in part, per sector of 512 bytes; a sector that is not being written does not
//! change; the page cache survives our process.
#![deny(clippy::indexing_slicing)]

mod activity_log;
mod birth;
mod damage;
mod dirty_map;
mod dirty_sum;
mod durable;
pub mod generation;
mod log_file;
mod page;
mod recover;
mod slots;
mod superblock;

pub use activity_log::{ActivityLog, LogAppend, SLOTS, Want};
pub use birth::{Birth, BirthFile, Newborn, birth, recovered_at_birth};
pub use damage::Damage;
pub use dirty_map::{DirtyMap, MapMemory};
pub use dirty_sum::{grown_sums, sum_file_len, sum_head, sum_image, sum_offset};
pub use durable::Durable;
pub use page::{FileIds, PAGE_LEN};
pub use recover::{Crash, Found, Recovered, recover};
pub use slots::{TWO_SLOTS_LEN, newest_of_two, slot_offset};
pub use superblock::{
    Arbitration, Asked, FORMAT, HISTORY_LEN_MAX, INSTANCES_LEN_MAX, Place, SUPERBLOCK_FILE_LEN,
    Superblock,
};

/// Name of the superblock's file in the folder of a replica.
pub const SUPERBLOCK_FILE: &str = "superblock";
/// Name of the dirty map's file.
pub const DIRTY_MAP_FILE: &str = "dirty.map";
/// Name of the file with the sums of the dirty map's pages.
pub const DIRTY_SUM_FILE: &str = "dirty.sum";
/// Name of the activity log's file.
pub const ACTIVITY_LOG_FILE: &str = "activity.log";
