//! A lost record: an older image of this node's metadata was put back, or the copy that the arbiter lists
//! alone was made anew.
//!
//! Such a node does not know what it promised and acknowledged since. The arbiter's record gives it
//! away: the run in which this node changed it last is missing in the node's own list of runs. It
//! vetoes itself, and neither serves nor promises anything before a primary has filled it again.

use super::Controller;
use super::effect::RecordStep;
use super::facts::{Facts, Standing};
use super::planted::PlantedRule;
use crate::metadata::INSTANCES_LEN_MAX;
use crate::promotion::arbiter::{ArbiterRecord, Eligible};
use crate::units::{ArbiterId, DiskState, Epoch, Instance, Role, VetoReason};

impl Controller {
    /// Whether an older image of the record was put back, and this node was not filled since.
    pub fn is_record_lost(&self, facts: &Facts<'_>) -> bool {
        if self.settings.is_planted(PlantedRule::LostRecordTrusted) {
            return false;
        }
        let is_noted = facts.record.veto.is_some_and(|veto| veto.reason == VetoReason::RecordLost);
        is_noted || self.known().is_some_and(|known| self.is_run_missing(known, facts))
    }

    /// The run in which this node changed the arbiter's record last.
    fn last_run(&self, known: &ArbiterRecord) -> Option<Instance> {
        let run = known.requests[self.settings.side.index()].instance;
        (run != Instance::default() && run != self.instance).then_some(run)
    }

    fn is_run_missing(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> bool {
        let run = self.last_run(known).filter(|_| !self.is_new_beside_another(known, facts));
        run.is_some_and(|run| !facts.record.instances.contains(&run))
    }

    /// Whether this replica was made anew, and the arbiter does not list this node alone. It has no older
    /// state, and whoever fills it has what was acknowledged. A copy that is listed alone is another matter:
    /// this one took its place, and nobody has what only that one had.
    fn is_new_beside_another(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> bool {
        let is_alone = known.owner == self.settings.side && known.eligible == Eligible::Owner;
        is_made_anew(facts) && !is_alone
    }

    /// The veto, with the epoch of the arbiter's record as the promise.
    pub(super) fn lost_step(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> Option<RecordStep> {
        let is_bound = facts.is_primary || facts.is_promoting || facts.leaving.is_some();
        let is_trusted = self.settings.is_planted(PlantedRule::LostRecordTrusted);
        if is_bound || is_trusted || !self.is_run_missing(known, facts) || is_filled(facts) {
            return None;
        }
        let is_vetoed = facts.record.veto.is_some_and(|veto| {
            // One that is being filled says that its copy is a mix.
            matches!(veto.reason, VetoReason::RecordLost | VetoReason::Inconsistent)
        });
        (!is_vetoed).then_some(RecordStep::Veto(VetoReason::RecordLost))
    }

    /// The run that the list of runs must keep, or take up once this node was filled.
    pub(super) fn noted_run(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> Option<Instance> {
        let is_counted = is_filled(facts) || self.is_new_beside_another(known, facts);
        let is_known = |run: &Instance| is_counted || facts.record.instances.contains(run);
        self.last_run(known).filter(is_known)
    }

    /// Whether that run is about to fall off the list, or is missing in that of a node that was
    /// filled.
    pub(super) fn is_run_to_be_noted(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> bool {
        let Some(run) = self.noted_run(known, facts) else { return false };
        let place = facts.record.instances.iter().position(|instance| *instance == run);
        place.is_none_or(|place| place >= INSTANCES_LEN_MAX / 2)
    }
}

/// Whether an operator made this replica anew: it has never learnt of a record of the arbiter.
fn is_made_anew(facts: &Facts<'_>) -> bool {
    facts.record.arbitration.epoch == Epoch::default()
}

/// Whether this node believes no store yet: then it learns from its peer which one the pair believes.
pub(super) fn knows_no_store(facts: &Facts<'_>) -> bool {
    facts.record.arbitration.arbiter == ArbiterId::default()
}

/// Whether this node follows a primary and has everything.
fn is_filled(facts: &Facts<'_>) -> bool {
    facts.peer == Standing::InSync
        && facts.claim.is_some_and(|claim| claim.role == Role::Primary)
        && facts.record.disk == DiskState::UpToDate
        && facts.record.veto.is_none()
}
