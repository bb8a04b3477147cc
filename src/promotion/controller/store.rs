//! Another store of the arbiter: how its record is made, and how the nodes change to it.
//!
//! A node believes one store only, the one that its stable record names. Of a store that was made anew,
//! or of another arbiter, it learns by a refusal. A node that was made anew itself believes none: a record
//! that it finds may be an old one, by which its peer goes no more. If the pair is in sync it says so there,
//! and so does the peer; then the secondary changes to the new store on its disk, and says its half again, and the
//! primary follows. Only then is there a record. Whoever has changed is promoted by nobody's word but
//! the new store's, and that has no word to give before both have changed: so the primary may go on
//! alone, should it lose the secondary in between.
//!
//! A primary that has handed its role over, and waits for the old store to say whether that counts, does the
//! same. Whatever that store granted is void once the secondary has changed: the new store's first record
//! says who owns the resource.

use super::Controller;
use super::effect::{ControllerEffect, Obstacle, RecordStep};
use super::facts::{Facts, Leaving, Standing};
use crate::promotion::arbiter::{Half, Refused};
use crate::units::{ArbiterId, Role, Side};

impl Controller {
    /// What it says of the pair to an arbiter that has no record: both nodes must say the same.
    /// If nobody serves, the owner is the preferred node, else the first one, since somebody has to be
    /// it; where only an operator promotes, it waits for one.
    pub(super) fn half(&self, facts: &Facts<'_>) -> Option<Half> {
        let (record, side) = (facts.record, self.settings.side);
        let store = record.arbitration.arbiter;
        let is_noted = self.known().is_none_or(|known| known.arbiter == store);
        let in_sync = facts.peer == Standing::InSync;
        let alone = record.peer_replica_id.0 == 0 || (!in_sync && self.has_peer_changed(facts));
        let is_asked = self.candidacy.as_ref().is_some_and(|it| it.request.is_some());
        let takes_back = takes_back(facts);
        let may = if alone { facts.is_primary || takes_back || is_asked } else { in_sync };
        // One that takes a handover back is what the peer takes it for.
        let serves = facts.is_primary || (takes_back && facts.said == Some(Role::Primary));
        let peer_serves = facts.claim.is_some_and(|claim| claim.role == Role::Primary);
        let owner = if alone || serves {
            side
        } else if peer_serves {
            side.other()
        } else {
            self.settings.moving.prefer.unwrap_or(Side::First)
        };
        let generation = record.generation?;
        let newest = record.epoch.max(record.promised).max(record.arbitration.epoch);
        // The old store may have made the next one when it granted the handover.
        let epoch = if takes_back { newest.next_by_arbiter() } else { newest };
        let identities = self.settings.identities;
        let stopped = !self.settings.promotes && !alone && !serves && !peer_serves;
        let half = Half { identities, epoch, owner, in_sync, generation, alone, stopped, store };
        let is_bound = facts.is_promoting || (facts.leaving.is_some() && !takes_back);
        (may && is_noted && !is_bound && !self.is_record_lost(facts)).then_some(half)
    }

    /// The change to the store that the arbiter's last answer came from.
    pub(super) fn store_step(&self, facts: &Facts<'_>) -> Option<RecordStep> {
        let half = self.half(facts)?;
        // The secondary first: the primary goes on with the old store until then.
        let is_first = half.alone || half.owner != self.settings.side;
        let store = match self.refused {
            Some(Refused::MayMove { store }) if is_first => Some(store),
            Some(Refused::PeerMoved { store }) => Some(store),
            Some(_) | None => None,
        }?;
        // What the old store may still grant to an earlier request is not learnt any more, and settled by
        // the first record of the new one, whose epoch is above.
        let is_later = store.turn() > half.store.turn();
        (is_later && !self.is_granted_or_forced()).then_some(RecordStep::Change(store))
    }

    /// What another store said counts no more once the record names a new one.
    pub(super) fn note_store(&mut self, facts: &Facts<'_>, effects: &mut Vec<ControllerEffect>) {
        let store = facts.record.arbitration.arbiter;
        if let Some(Refused::PeerMoved { store }) = self.refused {
            self.peer_store = Some(store);
        }
        if self.believed != store {
            self.believed = store;
            self.put_off_no_more();
        }
        let is_other = |known: ArbiterId| store != ArbiterId(0) && known != store;
        if self.known().is_some_and(|known| is_other(known.arbiter)) {
            self.known = None;
            self.has_looked = false;
            self.solo = None;
            (self.is_kept, self.may_be_stopped) = (false, false);
            self.leases.give_up_arbiters();
            if let Some(candidacy) = self.candidacy.take() {
                let refused = Obstacle::Arbiter(Refused::WrongStore);
                Self::tell_operator(candidacy.request, Err(refused), effects);
            }
        } else if self.known.is_some() {
            self.peer_store = None;
        }
    }

    /// Whether the store is gone that granted a promotion which is not carried out yet, while the primary
    /// lives: it cannot learn that it was replaced, and is followed again.
    pub(super) fn is_grant_void(&self, facts: &Facts<'_>) -> bool {
        let peer = facts.claim.filter(|claim| claim.role == Role::Primary);
        self.refused.is_some_and(Refused::asks_to_enroll)
            && !facts.is_promoting
            && peer.is_some_and(|claim| claim.epoch >= facts.record.epoch)
    }

    /// Whether the peer believes another store, or none, though the arbiter answers this node: it says its
    /// half, so that the peer finds it. A primary does; if nobody serves, either does, or a node that was
    /// made anew would never learn why it is not promoted.
    pub(super) fn looks_for_peer(&self, facts: &Facts<'_>) -> bool {
        let nobody_serves = facts.claim.is_some_and(|claim| claim.role != Role::Primary);
        (facts.is_primary || nobody_serves)
            && facts.peer == Standing::InSync
            && !self.peer_hears_arbiter
            && self.hears_arbiter()
    }

    /// Whether the peer believes the store of this node's record, which has no record yet.
    fn has_peer_changed(&self, facts: &Facts<'_>) -> bool {
        let store = facts.record.arbitration.arbiter;
        let is_owner = facts.is_primary || takes_back(facts);
        is_owner && self.known.is_none() && self.peer_store == Some(store)
    }
}

/// Whether this node has handed its role over, and waits for the word that it goes on.
fn takes_back(facts: &Facts<'_>) -> bool {
    facts.leaving == Some(Leaving::TakeBack)
}
