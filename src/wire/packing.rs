//! How the bytes of a tree travel: as they are, or as one block of LZ4.
//!
//! What a peer says of a length is checked with its message, before anything is reserved for it. Blocks are
//! made and read in `packer.rs`.

use serde::{Deserialize, Serialize};

use super::kind::TREE_PAYLOAD_LEN_MAX;
use super::plausible::Checked;

/// What the bytes of a message are.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Packing {
    /// The content.
    Raw,
    /// One block of LZ4.
    Lz4 {
        /// Length of the content in bytes, more than the block has.
        raw_len: u32,
    },
}

impl Packing {
    /// Refuses a length that no content of a message has.
    pub(super) fn check(self, packed_len: usize) -> Checked {
        let Self::Lz4 { raw_len } = self else { return Ok(()) };
        let is_shorter = u32::try_from(packed_len).is_ok_and(|packed| packed < raw_len);
        if raw_len > TREE_PAYLOAD_LEN_MAX {
            Err("compressed bytes of more than a message has")
        } else if packed_len == 0 || !is_shorter {
            Err("compressed bytes that are not less than their content")
        } else {
            Ok(())
        }
    }

    /// Length of the content in bytes, if `packed_len` of them travel.
    pub(super) fn raw_len(self, packed_len: usize) -> u64 {
        match self {
            Self::Raw => packed_len as u64,
            Self::Lz4 { raw_len } => u64::from(raw_len),
        }
    }
}
