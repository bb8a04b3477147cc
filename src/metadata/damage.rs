//! Why metadata cannot be used.

/// Why these bytes are not metadata that we can use. Nothing was touched. What to type is for
/// whoever knows the resource to say.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Damage {
    /// Something else lies there.
    #[error("{file}: not hotpair metadata")]
    BadMagic {
        /// Name of the file.
        file: &'static str,
    },
    /// A newer release wrote it.
    #[error("{file}: format {found}, this build reads up to {newest}")]
    Format {
        /// Name of the file.
        file: &'static str,
        /// What was found.
        found: u32,
        /// The newest that is understood.
        newest: u32,
    },
    /// A page or a slot differs from its checksum.
    #[error("{file}: the checksum does not match")]
    Checksum {
        /// Name of the file.
        file: &'static str,
    },
    /// No slot can be read.
    #[error("{file}: both slots are damaged")]
    BothSlots {
        /// Name of the file.
        file: &'static str,
    },
    /// The checksum is right and the content is not: never written by this format.
    #[error("{file}: {field} has an impossible value")]
    Value {
        /// Name of the file.
        file: &'static str,
        /// What is impossible.
        field: &'static str,
    },
    /// The file ends too early.
    #[error("{file}: {len} bytes, at least {needed} are needed")]
    Short {
        /// Name of the file.
        file: &'static str,
        /// Its length in bytes.
        len: u64,
        /// What it must have.
        needed: u64,
    },
    /// It is metadata of another replica.
    #[error("{file}: belongs to replica {found:032x}, the superblock to {expected:032x}")]
    Foreign {
        /// Name of the file.
        file: &'static str,
        /// Identity in the file.
        found: u128,
        /// Identity in the superblock.
        expected: u128,
    },
    /// The activity log cannot be trusted; recovery then takes every extent for hot.
    #[error("activity.log: no readable area, or a committed record is damaged")]
    LogUnreadable,
    /// The data file is not the one that this metadata is about.
    #[error(
        "the data file is inode {inode} on device {device}, the metadata was written for inode \
         {recorded_inode} on device {recorded_device}"
    )]
    OtherData {
        /// Device number found.
        device: u64,
        /// Inode found.
        inode: u64,
        /// Device number in the superblock.
        recorded_device: u64,
        /// Inode in the superblock.
        recorded_inode: u64,
    },
    /// The data file lost its end.
    #[error("the data file has {len} bytes, the resource has {size}")]
    DataShort {
        /// Its length in bytes.
        len: u64,
        /// What it must have.
        size: u64,
    },
}
