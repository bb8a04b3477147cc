//! Room for generations.

use std::io;

use super::{Target, TargetError};
use crate::manifest::target::Space;
use crate::store::tree::apply::ApplyError;
use crate::store::tree::kept::KeptError;
use crate::store::tree::receive::{ReceiveError, Received, room};
use rustix::io::Errno;

/// What has to become free where the kernel only said that there is no space.
pub const UNKNOWN_BYTES: u64 = 1;

impl Target {
    /// What is staged, and what is free in the file system of the tree.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn space(&self) -> Result<Space, TargetError> {
        let free_bytes = room(self.applier.root())?.free;
        Ok(Space { staged_bytes: self.staged_bytes()?, free_bytes })
    }

    /// Whether less is free in the file system of the tree than is to stay free there.
    pub(in crate::store::tree) fn has_reserve(&self) -> Result<bool, TargetError> {
        Ok(room(self.applier.root())?.has_reserve())
    }

    /// Whether what is given up there may help whoever finds no room. An error says nothing against it.
    pub fn is_short_of_room(&self) -> bool {
        !self.has_reserve().unwrap_or(false)
    }

    /// Whether there is room to stage `received`: that, what patches write over, and a twentieth of the file
    /// system.
    pub(super) fn check_room(&self, received: &Received) -> Result<(), TargetError> {
        let needed = received.needed_bytes()?;
        let staged = if needed > 0 { self.staged_bytes()? } else { 0 };
        Ok(room(self.applier.root())?.check(needed, staged)?)
    }

    fn staged_bytes(&self) -> Result<u64, TargetError> {
        let mut sum = 0_u64;
        let mut add = |taken: super::usage::Taken| sum = sum.saturating_add(taken.bytes);
        super::usage::add_all(self.applier.work().stage(), false, &mut add)
            .map_err(TargetError::State)?;
        Ok(sum)
    }
}

impl TargetError {
    /// Whether there is no room, and the same may succeed once there is some. If so, how many bytes must become
    /// free before it is tried again; [`UNKNOWN_BYTES`] if that is not known.
    pub fn missing_bytes(&self) -> Option<u64> {
        let of_apply = |error: &ApplyError| {
            matches!(error, ApplyError::NoSpace { .. }).then_some(UNKNOWN_BYTES)
        };
        match self {
            Self::Apply(error) => of_apply(error),
            Self::Receive(error) => match &**error {
                ReceiveError::NoRoom { needed, free } => Some(needed.saturating_sub(*free)),
                ReceiveError::Kernel { source, .. } => is_full(source).then_some(UNKNOWN_BYTES),
                ReceiveError::Patch(error) => of_apply(error),
                ReceiveError::Manifest(_)
                | ReceiveError::LeftOut { .. }
                | ReceiveError::TooLarge { .. }
                | ReceiveError::Position { .. }
                | ReceiveError::Root { .. }
                | ReceiveError::NotWanted { .. }
                | ReceiveError::WrongBytes { .. }
                | ReceiveError::Incomplete { .. }
                | ReceiveError::Spool(_)
                | ReceiveError::Index(_)
                | ReceiveError::Plan(_) => None,
            },
            Self::Kept(KeptError::Kernel { errno, .. }) | Self::State(errno) => {
                matches!(*errno, Errno::NOSPC | Errno::DQUOT).then_some(UNKNOWN_BYTES)
            }
            Self::Kept(KeptError::Damaged { .. } | KeptError::Failed { .. })
            | Self::Index(_)
            | Self::Unknown
            | Self::NotSurveyed
            | Self::Survey(_)
            | Self::NotKept(_)
            | Self::NotHeld { .. }
            | Self::UnderWay => None,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}
