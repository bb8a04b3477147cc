//! Whether somebody else has written to the tree of a target.

use super::{Target, TargetError};
use crate::store::tree::index::Rows as _;
use crate::store::tree::receive::{Base, Compared, Foreign, Prepared, Rest, Site, Until, compare};

impl Target {
    /// Compares the whole tree with the index: a full scan of a tree that nobody else should write to. What was
    /// read for it needs not be read again. Nothing is found where nobody knows what the tree is.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn find_foreign(&self) -> Result<Vec<Foreign>, TargetError> {
        Ok(self.compare_from(Rest::default(), &Until::THE_END)?.0)
    }

    /// The same, for as long as `until` says; the next call goes on where this one ended. Gives what it found, and
    /// whether all entries were looked at by now.
    ///
    /// # Errors
    /// As [`Target::find_foreign`]; the next call begins anew.
    pub fn look_for_foreign(
        &mut self,
        until: &Until<'_>,
    ) -> Result<(Vec<Foreign>, bool), TargetError> {
        let rest = std::mem::take(&mut self.uncompared);
        let (foreign, rest) = self.compare_from(rest, until)?;
        self.uncompared = rest;
        Ok((foreign, !self.uncompared.has_entries()))
    }

    fn compare_from(
        &self,
        mut rest: Rest,
        until: &Until<'_>,
    ) -> Result<(Vec<Foreign>, Rest), TargetError> {
        let Until { stop, entries, mut bytes } = *until;
        if !self.is_known() || self.index.view()?.name_count()? == 0 {
            return Ok((Vec::new(), Rest::default()));
        }
        loop {
            let base = Base::new(self.index.view()?)?;
            let clock = self.applier.work().clock().map_err(TargetError::State)?;
            let exclude = &self.agreement.exclude;
            let until = Until { stop, entries, bytes };
            let compared = compare(self.site(), (&base, &clock), exclude, &until, rest)?;
            compared.settle(&self.index)?;
            let Compared { foreign, read_bytes, .. } = compared;
            rest = compared.rest;
            bytes = bytes.saturating_sub(read_bytes);
            if !foreign.is_empty() || !rest.has_entries() || stop() {
                return Ok((foreign, rest));
            }
        }
    }

    /// What somebody has written to what `prepared` touches, since that was compared: the last look before the
    /// commit. What is written after it goes to `undo/` with what the generation replaces.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn look_again(&self, prepared: &Prepared) -> Result<Vec<Foreign>, TargetError> {
        let clock = self.applier.work().clock().map_err(TargetError::State)?;
        Ok(prepared.look_again(self.site(), &clock)?)
    }

    /// The folders that deltas are staged in and compared with.
    pub(super) fn site(&self) -> Site<'_> {
        let (tree, work) = (self.applier.root(), self.applier.work());
        Site { tree, work, left_out: &self.agreement.left_out }
    }
}
