//! The owner's part: alone or paired, resumed, handed over, superseded.

use super::Controller;
use super::asking::history;
use super::effect::{Act, RecordStep};
use super::facts::{Facts, Leaving, Standing};
use super::planted::PlantedRule;
use crate::promotion::arbiter::{ArbiterRecord, Eligible, Operation};
use crate::units::{DiskState, ServeMode, VetoReason};

impl Controller {
    /// What the owner of the resource asks the arbiter for, the most urgent first.
    pub(super) fn owner_wants(
        &self,
        known: &ArbiterRecord,
        facts: &Facts<'_>,
    ) -> Option<Operation> {
        if let Some(force) = self.line_up(facts) {
            return Some(force);
        }
        if known.owner != self.settings.side {
            return None;
        }
        match facts.leaving {
            Some(Leaving::Handover) => return Some(Operation::Handover),
            Some(Leaving::Stop) => return Some(Operation::Stop),
            Some(Leaving::TakeBack) | None if self.wants_keep(facts) => {
                return Some(Operation::Keep);
            }
            Some(Leaving::TakeBack | Leaving::Recording) => return None,
            None => {}
        }
        if !facts.is_primary {
            return None;
        }
        let generation = facts.record.generation?;
        if self.needs_solo(known, facts) {
            return Some(Operation::Solo { generation });
        }
        let is_paired = self.may_pair(facts) && !facts.is_recording;
        if is_paired && known.eligible == Eligible::Owner {
            // From then on a lease is needed: without one there would be a moment in which nothing may
            // be read, and services would stop.
            if !self.leases.is_held() {
                return Some(Operation::Renew);
            }
            return Some(Operation::Pair { generation, history: history(facts) });
        }
        None
    }

    /// Whether each acknowledgement needs the peer, which has everything.
    pub(super) fn may_pair(&self, facts: &Facts<'_>) -> bool {
        facts.record.serve_mode == ServeMode::Paired && facts.peer == Standing::InSync
            || self.settings.is_planted(PlantedRule::PairBeforePaired) && facts.peer.is_session()
    }

    /// Whether the arbiter must make the peer ineligible, by a new epoch each time: a `Pair` that
    /// was asked for before may be on its way still.
    fn needs_solo(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> bool {
        match facts.record.serve_mode {
            ServeMode::Paired => facts.peer.is_lost() && self.solo != Some(known.epoch),
            ServeMode::Solo | ServeMode::Gated => {
                facts.peer != Standing::InSync && known.eligible == Eligible::Both
            }
            ServeMode::None | ServeMode::HandingOver => false,
        }
    }

    /// A node that went away in the middle of a handover must know that no late request of its own
    /// gives the resource away, before it goes on as primary. One whose demotion was taken back serves
    /// meanwhile, by the peer's lease or alone, but it must not stay stopped at the arbiter: else
    /// nobody would be promoted when it dies.
    pub(super) fn wants_keep(&self, facts: &Facts<'_>) -> bool {
        let is_ours = match facts.leaving {
            Some(Leaving::TakeBack) => true,
            Some(Leaving::Handover | Leaving::Stop | Leaving::Recording) => false,
            None if facts.is_primary => return self.is_stop_open(),
            None if self.must_serve_anew() => {
                return self.may_resume(facts) && !self.is_stopped();
            }
            None => {
                facts.record.serve_mode == ServeMode::HandingOver
                    && self.may_resume(facts)
                    && !self.is_stopped()
            }
        };
        is_ours && !self.is_kept
    }

    /// Whether the arbiter's record says, or may come to say, that an operator stopped what this
    /// primary serves.
    fn is_stop_open(&self) -> bool {
        self.may_be_stopped || self.is_stopped()
    }

    fn is_stopped(&self) -> bool {
        self.known.as_ref().is_some_and(|known| known.stopped)
    }

    /// Whether this node was primary and is fit to go on, if the arbiter says that it may.
    pub(super) fn may_resume(&self, facts: &Facts<'_>) -> bool {
        let record = facts.record;
        let was_primary = record.owner == Some(self.settings.side)
            && match record.serve_mode {
                ServeMode::Paired | ServeMode::Gated | ServeMode::Solo | ServeMode::HandingOver => {
                    true
                }
                ServeMode::None => false,
            };
        let is_free = !facts.is_primary
            && !facts.is_promoting
            && !facts.is_stopping
            && !facts.is_disk_unfit
            && self.candidacy.is_none()
            && record.arbitration.asked.is_none()
            && !self.is_superseded(facts);
        was_primary && is_free && is_fit(facts) && !self.is_record_lost(facts)
    }

    /// Whether a node that was primary may go on because its peer says that it was not promoted.
    /// That is enough while the arbiter is away or has no record that counts. Else it is asked
    /// first: its record may say that an operator stopped the resource, or gave it to the peer.
    pub fn may_resume_in_session(&self, facts: &Facts<'_>) -> bool {
        let known = self.known.as_deref();
        let is_mine = |known: &ArbiterRecord| known.owner == self.settings.side && !known.stopped;
        let has_asked = self.has_looked || self.refused.is_some() || self.is_arbiter_away();
        let is_anew = self.gave_way.is_none_or(|epoch| facts.record.epoch > epoch);
        has_asked && known.is_none_or(is_mine) && !self.is_record_lost(facts) && is_anew
    }

    /// What is to be done about who serves.
    pub(super) fn owner_act(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> Option<Act> {
        let record = facts.record;
        if self.settings.is_planted(PlantedRule::PromotedBySilence)
            && let Some(epoch) = self.granted_epoch()
            && !facts.is_primary
            && !facts.is_promoting
        {
            return Some(Act::Promote(epoch.next_by_arbiter()));
        }
        if known.owner != self.settings.side {
            let is_over = known.epoch > record.epoch && facts.is_primary;
            return is_over.then_some(Act::StepDown(known.epoch));
        }
        if facts.leaving == Some(Leaving::TakeBack) && self.is_kept {
            return Some(Act::TakenBack);
        }
        if facts.is_primary || facts.is_promoting || facts.leaving.is_some() {
            return None;
        }
        if let Some(epoch) = self.granted_epoch()
            && epoch == known.epoch
            && !self.stops_there
            && self.is_fenced()
            && may_serve(facts)
        {
            return Some(Act::Promote(epoch));
        }
        if known.stopped || !self.has_looked || self.is_record_lost(facts) {
            return None;
        }
        let is_adopted = known.epoch == record.epoch && known.epoch >= record.promised;
        let is_anew = !self.must_serve_anew();
        if self.may_resume(facts)
            && is_adopted
            && is_anew
            && record.serve_mode != ServeMode::HandingOver
        {
            return Some(Act::Resume);
        }
        let is_settled = record.arbitration.asked.is_none();
        let is_handed = record.owner != Some(self.settings.side)
            && known.eligible == Eligible::Both
            && known.epoch > record.epoch
            && known.epoch >= record.promised;
        // Its leases were given back: whoever asks for a handover has closed its clients.
        let is_free = self.candidacy.is_none() && is_settled;
        let may_begin = is_handed && is_free && !facts.is_stopping && is_fit(facts) && !record.hold;
        may_begin.then_some(Act::TakeOver(known.epoch))
    }

    /// What the owner's record must say first.
    pub(super) fn owner_step(
        &self,
        known: &ArbiterRecord,
        facts: &Facts<'_>,
    ) -> Option<RecordStep> {
        let is_mine = known.owner == self.settings.side;
        let is_new = known.epoch > facts.record.epoch;
        let resumes = self.may_resume(facts)
            && !known.stopped
            && self.has_looked
            && known.epoch >= facts.record.promised
            && !self.must_serve_anew()
            && (facts.record.serve_mode != ServeMode::HandingOver || self.is_kept);
        let is_given_back =
            resumes && facts.record.serve_mode == ServeMode::HandingOver && self.is_kept;
        let adopts = is_mine && ((is_new && (facts.is_primary || resumes)) || is_given_back);
        adopts.then_some(RecordStep::Adopt)
    }

    /// A secondary that the arbiter does not list may lack writes, and says so for the time when
    /// the arbiter is away.
    pub(super) fn veto_step(&self, known: &ArbiterRecord, facts: &Facts<'_>) -> Option<RecordStep> {
        let side = self.settings.side;
        let is_bound = facts.is_primary || facts.is_promoting || facts.leaving.is_some();
        if is_bound || !self.has_looked || facts.peer != Standing::Away {
            return None;
        }
        let record = facts.record;
        let is_free = self.candidacy.is_none() && record.arbitration.asked.is_none();
        match record.veto {
            None if !known.lists(side) && is_free && record.generation.is_some() => {
                Some(RecordStep::Veto(VetoReason::NotEligible))
            }
            Some(veto) if known.owner == side && known.eligible == Eligible::Owner => {
                let is_void = match veto.reason {
                    VetoReason::Evicted
                    | VetoReason::Left
                    | VetoReason::NotEligible
                    | VetoReason::Superseded => true,
                    VetoReason::PowerLoss
                    | VetoReason::RecordLost
                    | VetoReason::IoError
                    | VetoReason::Inconsistent => false,
                };
                let is_later = known.epoch > veto.epoch;
                (is_void && is_later && is_free && is_whole(facts)).then_some(RecordStep::LiftVeto)
            }
            None | Some(_) => None,
        }
    }

    /// An act is ordered: what was true before it is not any more.
    pub(super) fn on_act(&mut self, act: Act) {
        match act {
            Act::StepDown(_) | Act::HandedOver | Act::Stopped => {
                self.leases.give_up();
                self.solo = None;
                (self.is_kept, self.may_be_stopped) = (false, false);
            }
            Act::Resume | Act::TakeOver(_) | Act::TakenBack => {
                self.leases.give_up();
                self.solo = None;
                self.is_kept = false;
                self.candidacy = None;
            }
            Act::Promote(epoch) | Act::Force { epoch, .. } => {
                self.leases.give_up();
                // The arbiter's grant listed this node alone. An epoch of its own is not the
                // arbiter's.
                self.solo = Some(epoch);
            }
            Act::FailBack => {}
        }
    }
}

/// Whether the node may go on as primary without an operator.
fn is_fit(facts: &Facts<'_>) -> bool {
    may_serve(facts) && !facts.record.stopped
}

/// Whether the copy may be served.
fn may_serve(facts: &Facts<'_>) -> bool {
    is_whole(facts) && facts.record.veto.is_none() && !facts.record.split
}

/// Whether the copy lacks nothing that was acknowledged when it was last in sync.
fn is_whole(facts: &Facts<'_>) -> bool {
    facts.record.disk == DiskState::UpToDate
}
