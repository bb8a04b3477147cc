//! The index follows where a journal has brought the tree.
//!
//! It needs the records that the journal was made from: of a start they are in the state folder. Where they do not
//! lead on from what the index is, or are damaged, the tree is what it should be all the same, and the index stays:
//! then nobody knows by it what the tree is, and it is made anew.

use std::sync::Arc;

use rustix::io::Errno;
use tracing::warn;

use super::exclude::Exclude;
use super::folder::Folder;
use super::index::{Index, IndexError, Rows};
use super::receive::{
    Base, Incoming, Limits, ReceiveError, Received, Sides, look_again, write_index,
};
use super::target::{Agreement, DELTA_FILE, TargetError, file_in, is_excluded};
use crate::manifest::TreeClock;
use crate::manifest::apply::{Direction, Journal, JournalHash, encode};

/// The index that a delta of a whole tree was made for, until it counts.
pub(super) const WHOLE_INDEX: &str = "index.redb.whole";

/// What brings the index to where a journal has brought the tree.
pub(super) struct IndexSite<'t> {
    pub(super) root: Folder,
    pub(super) clock: TreeClock,
    pub(super) index: &'t mut Arc<Index>,
    pub(super) agreement: &'t Agreement,
    pub(super) state: &'t Folder,
}

impl IndexSite<'_> {
    /// Brings the index to the target of `journal`, or leaves it if it cannot be brought there.
    ///
    /// # Errors
    /// What may not be so the next time: the disk.
    pub(super) fn follow(
        &mut self,
        journal: &Journal,
        received: &mut Option<(Received, Sides)>,
    ) -> Result<(), TargetError> {
        match self.try_to_follow(journal, received.take()) {
            Err(error) if is_lasting(&error) => {
                warn!(error = %error, journal = journal.number.0, "the index does not follow");
                Ok(())
            }
            followed => followed,
        }
    }

    fn try_to_follow(
        &mut self,
        journal: &Journal,
        received: Option<(Received, Sides)>,
    ) -> Result<(), TargetError> {
        if let Some(made) = self.made_for(journal, received.as_ref())? {
            return self.replace(journal, made, received);
        }
        let view = self.index.view()?;
        if view.position()? == journal.target || is_made_for(self.index, journal)? {
            // It followed before the apply was cut; or the tree went back to where the index is.
            return Ok(());
        }
        // What led to the target of a way back is not kept.
        if view.position()? != journal.base || journal.direction == Direction::Back {
            return Err(TargetError::Unknown);
        }
        let (received, sides) = match received {
            Some(received) => received,
            None => self.again(journal, self.index)?,
        };
        self.write(self.index, &received, &sides)
    }

    /// The index that the delta of `journal` was made for, if that is not the one that counts.
    fn made_for(
        &self,
        journal: &Journal,
        received: Option<&(Received, Sides)>,
    ) -> Result<Option<Arc<Index>>, TargetError> {
        let found = match received {
            Some((received, _)) => received.reconciled().map(|made| Arc::clone(&made.index)),
            None => Index::find_in(self.state, WHOLE_INDEX)?.map(Arc::new),
        };
        // It is not for a journal that leads back.
        Ok(match found {
            Some(found) if is_made_for(&found, journal)? => Some(found),
            Some(_) | None => None,
        })
    }

    /// The index that the delta was made for becomes the one that counts.
    fn replace(
        &mut self,
        journal: &Journal,
        made: Arc<Index>,
        received: Option<(Received, Sides)>,
    ) -> Result<(), TargetError> {
        if made.view()?.position()? != journal.target {
            let (received, sides) = match received {
                Some(received) => received,
                None => self.again(journal, &made)?,
            };
            self.write(&made, &received, &sides)?;
        }
        Index::take_place(self.state, WHOLE_INDEX)?;
        *self.index = made;
        Ok(())
    }

    fn write(&self, index: &Index, received: &Received, sides: &Sides) -> Result<(), TargetError> {
        let looks = look_again(&self.root, &sides.target, &self.clock)?;
        Ok(write_index(index, &self.agreement.scope, received, &looks)?)
    }

    /// Takes the records of the delta from where they were kept.
    fn again(&self, journal: &Journal, index: &Index) -> Result<(Received, Sides), TargetError> {
        let base = Arc::new(Base::new(index.view()?)?);
        let left_out = self.agreement.left_out.clone();
        let spool = file_in(self.state, DELTA_FILE).map_err(TargetError::State)?;
        let incoming = Incoming::again(base, left_out, Limits::default(), spool)?.unordered();
        let ends = (journal.base, journal.target);
        let exclude: &Exclude = &self.agreement.exclude;
        let received = incoming.finish(ends, |path| is_excluded(exclude, path))?;
        let sides = Sides::of(&received)?;
        Ok((received, sides))
    }
}

/// Whether an index is the one that the delta of a journal was made for.
fn is_made_for(index: &Index, journal: &Journal) -> Result<bool, TargetError> {
    let made_for = index.view()?.made_for()?;
    let is_number = made_for.is_some_and(|(number, _)| number == journal.number);
    // A number is used again if it was never committed.
    Ok(is_number && made_for.is_some_and(|it| it.1 == JournalHash::of(&encode(journal))))
}

/// Whether an error is one of what is there, and not of the disk that would not give it.
fn is_lasting(error: &TargetError) -> bool {
    match error {
        TargetError::Unknown => true,
        TargetError::Index(error) => is_lasting_of_index(error),
        TargetError::Receive(error) => match &**error {
            ReceiveError::Index(error) => is_lasting_of_index(error),
            ReceiveError::Kernel { source, .. } => {
                // Somebody else changed the tree since.
                let errno = Errno::from_io_error(source);
                matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV))
            }
            ReceiveError::Patch(_) | ReceiveError::NoRoom { .. } => false,
            ReceiveError::Manifest(_)
            | ReceiveError::LeftOut { .. }
            | ReceiveError::TooLarge { .. }
            | ReceiveError::Position { .. }
            | ReceiveError::Root { .. }
            | ReceiveError::NotWanted { .. }
            | ReceiveError::WrongBytes { .. }
            | ReceiveError::Incomplete { .. }
            | ReceiveError::Spool(_)
            | ReceiveError::Plan(_) => true,
        },
        TargetError::Apply(_)
        | TargetError::NotSurveyed
        | TargetError::Survey(_)
        | TargetError::Kept(_)
        | TargetError::NotKept(_)
        | TargetError::NotHeld { .. }
        | TargetError::UnderWay
        | TargetError::State(_) => false,
    }
}

fn is_lasting_of_index(error: &IndexError) -> bool {
    match error {
        IndexError::Database(_) | IndexError::File { .. } => false,
        IndexError::Row { .. }
        | IndexError::Missing { .. }
        | IndexError::Numbers
        | IndexError::Root
        | IndexError::Abandoned
        | IndexError::Tree(_) => true,
    }
}
