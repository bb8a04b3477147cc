//! Words of directory resources: which object, which generation of the tree, how much it promises.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What names in a tree point to. The primary gives out the numbers; they rise, and none is used
/// twice in the life of a resource. A rename keeps the object, a file with three names is one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ObjectId(pub u64);

impl ObjectId {
    /// The directory that the resource's path names: it has no name of its own.
    pub const ROOT: Self = Self(1);
    /// The highest number that counts: what follows it is a number, too, so nothing overflows.
    pub const MAX: Self = Self(u64::MAX >> 1);
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Number of a tree generation: they rise and may skip. Zero is the tree before the first one.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct TreeNumber(pub u64);

impl TreeNumber {
    /// The highest number that counts: what follows it is a number, too, so nothing overflows.
    pub const MAX: Self = Self(u64::MAX >> 1);
}

impl fmt::Display for TreeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One hash over everything that a tree generation keeps: equal roots prove equal trees.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct TreeRoot(pub [u8; 32]);

impl fmt::Display for TreeRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which state of a tree a node has. Together with the *generation* of the data it names exactly one.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize,
)]
pub struct TreePosition {
    /// Its number.
    pub number: TreeNumber,
    /// What it holds.
    pub root: TreeRoot,
}

/// How well the instants agree at which the parts of a tree generation were read. The order is that
/// of the promise: a later one says more.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Label {
    /// Some entries did not hold still; each is listed.
    Fuzzy,
    /// Nobody was held, but each entry was seen twice and was the same both times.
    Stable,
    /// The kernel held all writers, or a snapshot was read: the tree at one instant.
    Frozen,
    /// The application promised that nobody writes, and no change was seen.
    Quiesced,
}

impl Label {
    /// As `status` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuzzy => "fuzzy",
            Self::Stable => "stable",
            Self::Frozen => "frozen",
            Self::Quiesced => "quiesced",
        }
    }
}

/// Why an entry of a fuzzy generation is not what it was at one instant together with the others.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum FuzzyWhy {
    /// Its bytes are of several instants.
    Mixed,
    /// It is whole, but of another instant than the rest.
    Skewed,
    /// Its hash is the known one; it was not read again yet.
    Unverified,
    /// It cannot be read; the last known version is kept.
    Unreadable,
}

impl FuzzyWhy {
    /// As `status` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::Skewed => "skewed",
            Self::Unverified => "unverified",
            Self::Unreadable => "unreadable",
        }
    }
}
