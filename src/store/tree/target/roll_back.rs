//! The way back: a new generation with what an earlier one held.
//!
//! It is a delta from what the tree is, made of what was kept instead of what a peer says, and goes the way of
//! every other one. Chunks come from the tree and from `undo/`, by copies that share their blocks where the file
//! system can do that. So everything that was kept stays, and the way back can be gone back.

use super::{Target, TargetError};
use crate::store::tree::kept::{Compose, Held};
use crate::store::tree::receive::{Limits, Prepare, Prepared};
use crate::units::{TreeNumber, TreePosition};

/// Chunks that are looked for before it is asked whether one is missing.
const WANTS: usize = 64;

impl Target {
    /// Prepares a new generation with the content of `to`. Its number is the next one, or `at_least` if that is
    /// higher: none that a peer may know of. To be committed and applied as any other.
    ///
    /// # Errors
    /// [`TargetError::NotKept`]; [`TargetError::NotHeld`] if bytes of it have been damaged or are gone;
    /// [`TargetError::UnderWay`]; else as of a delta. Nothing has changed then.
    pub fn roll_back(
        &self,
        to: TreeNumber,
        at_least: TreeNumber,
    ) -> Result<Prepare<'_>, TargetError> {
        let records = self.applier.records();
        if records.committed.journal > records.applied.journal {
            return Err(TargetError::UnderWay);
        }
        let chain = self.chain()?;
        let at = chain.links.iter().position(|link| link.from.position.number == to);
        let links = at.and_then(|at| chain.links.get(..=at)).ok_or(TargetError::NotKept(to))?;
        let mut compose = Compose::default();
        let mut about = chain.now;
        for link in links {
            about = compose.add(&self.state, link.journal)?.from;
        }
        let way = compose.end();
        let next = TreeNumber(self.position().number.0.saturating_add(1)).max(at_least);
        let target = TreePosition { number: next, root: about.position.root };
        let mut incoming = self.begin(Limits::default())?;
        way.records(&self.index.view()?, |record| -> Result<(), TargetError> {
            Ok(incoming.push(record)?)
        })?;
        let received = self.end(incoming, target)?;
        let mut staging = self.stage(received)?;
        staging.look_in(Held::new(self.applier.work(), way.holds()));
        loop {
            let wants = staging.wants(WANTS)?;
            if let Some((object, chunk)) = wants.chunks.first() {
                return Err(TargetError::NotHeld { object: *object, chunk: *chunk });
            }
            if wants.is_all {
                break;
            }
        }
        Ok(match self.prepare(staging)? {
            Prepare::Ready(prepared) => {
                let (label, captured_at) = (about.label, about.captured_at);
                Prepare::Ready(Box::new(Prepared { label, captured_at, ..*prepared }))
            }
            foreign @ Prepare::Foreign(..) => foreign,
        })
    }
}
