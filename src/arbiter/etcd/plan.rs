//! From what is stored and what a node asks to the transaction that does it.
//!
//! The rule is [`judge`], on the record as it was read at one revision. The transaction demands that
//! nobody changed the record since, so rule and change are one step although they are two requests.
//! Leases are keys that etcd removes: `serving` is there as long as the run of the owner that it
//! names may serve.

use std::time::Duration;

use super::keys::Keys;
use super::message::{Change, Guard, Outcome, Stored, Transaction};
use super::stored::{Garbage, Place, Serving, arbiter_of};
use crate::promotion::arbiter::{
    ArbiterRecord, Half, Known, LeaseChange, Operation, Refused, Reply, Request, RequestId, Ruling,
    View, enroll, judge, no_record,
};
use crate::units::{ArbiterId, Side};

/// One resource as it is stored, at one revision.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    arbiter: ArbiterId,
    record: Option<(ArbiterRecord, u64)>,
    serving: Option<(Serving, Vec<u8>, i64)>,
    halves: [Option<((Half, RequestId), u64)>; 2],
}

/// A value under one of our keys that is none of ours.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the value of the key {key} cannot be used: {why}")]
pub(super) struct Spoiled {
    pub(super) key: String,
    pub(super) why: Garbage,
}

/// What is to be done for a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// Nothing.
    Answer(Reply),
    /// The answer counts if the transaction succeeds.
    Commit(Box<Transaction>, Reply),
    /// This node's half is written, and what there is then is looked at again.
    Propose(Box<Transaction>),
}

/// The keys that a request about `resource` needs to see at one moment.
pub(super) fn keys_of(keys: &Keys, resource: &str) -> [String; 4] {
    let half = |side| keys.half(resource, side);
    [keys.record(resource), keys.serving(resource), half(Side::First), half(Side::Second)]
}

/// What a look at [`keys_of`] and the key `id` found.
///
/// # Errors
/// The first value that is none of ours.
pub(super) fn read_entry(
    place: Place<'_>,
    keys: &Keys,
    arbiter: ArbiterId,
    found: &Outcome,
) -> Result<Entry, Spoiled> {
    let spoiled = |key: &str| {
        let key = key.to_owned();
        move |why| Spoiled { key, why }
    };
    let read = |key: String| found.found(&key).map(|stored| (stored, key));
    let record = match read(keys.record(place.resource)) {
        None => None,
        Some((stored, key)) => {
            let record = place.decode_record(&stored.value).map_err(spoiled(&key))?;
            Some((record, stored.mod_revision))
        }
    };
    let serving = match read(keys.serving(place.resource)) {
        None => None,
        Some((stored, key)) => {
            let serving = place.decode_serving(&stored.value).map_err(spoiled(&key))?;
            Some((serving, stored.value.clone(), stored.lease))
        }
    };
    let mut halves = [None, None];
    for side in [Side::First, Side::Second] {
        if let Some((stored, key)) = read(keys.half(place.resource, side)) {
            let half = place.decode_half(side, &stored.value).map_err(spoiled(&key))?;
            halves[side.index()] = Some((half, stored.mod_revision));
        }
    }
    Ok(Entry { arbiter, record, serving, halves })
}

/// Who this arbiter is, from the look that found the key `id`.
///
/// # Errors
/// If that is none of ours.
pub(super) fn read_arbiter(
    keys: &Keys,
    cluster_id: u64,
    id: &Stored,
) -> Result<ArbiterId, Spoiled> {
    arbiter_of(cluster_id, &id.value).map_err(|why| Spoiled { key: keys.id(), why })
}

/// How long a lease counts that etcd keeps for `lease_ms`: its holder stops that much before the
/// slower clock of the grantor says that it is over.
pub(super) fn counted_ms(lease_ms: u32) -> u32 {
    let lease = Duration::from_millis(u64::from(lease_ms));
    let slack = (lease / 60).clamp(Duration::from_millis(20), Duration::from_millis(200));
    let counted = (lease * 100 / 101).saturating_sub(slack);
    u32::try_from(counted.as_millis()).expect("shorter than a number of 32 bits")
}

impl Entry {
    /// The record, and the revision at which it was written.
    pub(super) fn record(&self) -> Option<(&ArbiterRecord, u64)> {
        self.record.as_ref().map(|(record, revision)| (record, *revision))
    }

    /// Who this arbiter is.
    pub(super) fn arbiter(&self) -> ArbiterId {
        self.arbiter
    }

    /// What is to be done for `request`, whose node has the etcd lease `lease`.
    pub(super) fn plan(
        &self,
        place: Place<'_>,
        keys: &Keys,
        lease: i64,
        request: &Request,
    ) -> Step {
        let desk = Desk { entry: self, place, keys, lease, request };
        desk.plan()
    }
}

/// One request about one resource.
struct Desk<'a> {
    entry: &'a Entry,
    place: Place<'a>,
    keys: &'a Keys,
    lease: i64,
    request: &'a Request,
}

impl Desk<'_> {
    fn plan(&self) -> Step {
        let refuse = |refused| Step::Answer(Reply::Refused(refused));
        let Some((record, revision)) = self.entry.record() else {
            return match &self.request.operation {
                Operation::Enroll(half) => self.enroll(half, None).unwrap_or_else(refuse),
                Operation::Read
                | Operation::PreVote { .. }
                | Operation::Renew
                | Operation::Solo { .. }
                | Operation::Promote { .. }
                | Operation::Pair { .. }
                | Operation::Handover
                | Operation::Keep
                | Operation::Stop
                | Operation::Release { .. }
                | Operation::Force { .. } => {
                    refuse(no_record(self.entry.arbiter, self.request.arbiter))
                }
            };
        };
        // It came here from another etcd, as by a restored copy.
        let is_foreign = !record.arbiter.is_of(self.entry.arbiter);
        if let Operation::Enroll(half) = &self.request.operation {
            // Whoever enrolls may know no store yet, and the rule is for those who know one.
            if !is_foreign && record.was_made_by(self.request.from, self.request.id) {
                return Step::Answer(Reply::Done(Box::new(record.clone())));
            }
            return self.enroll(half, Some((record, revision))).unwrap_or_else(refuse);
        }
        if is_foreign {
            return refuse(Refused::WrongStore);
        }
        let holder = self.entry.serving.as_ref().map(|(serving, ..)| serving.instance);
        let known = Known { leases: holder.as_slice(), is_in_hold_down: false };
        let done = || Box::new(record.clone());
        match judge(record, known, self.request) {
            Ruling::Refuse(refused) => refuse(refused),
            Ruling::Repeated => Step::Answer(Reply::Done(done())),
            Ruling::Conflict => Step::Answer(Reply::Conflict(done())),
            Ruling::Look(promotion) => Step::Answer(Reply::View(Box::new(View {
                promotion,
                lease_remaining_ms: if self.is_held_by_other() { record.lease_ms } else { 0 },
                owner_last_seen_ms: None,
                record: record.clone(),
            }))),
            Ruling::Lease(LeaseChange::Grant { lease_ms }) => self.grant(lease_ms, revision),
            Ruling::Lease(LeaseChange::Release(instance)) => {
                let serving = Serving { side: self.request.from, instance };
                self.release(serving, done())
            }
            Ruling::Lease(LeaseChange::Stay | LeaseChange::End) => {
                Step::Answer(Reply::Done(done()))
            }
            Ruling::Change(new, lease) => self.change(*new, revision, lease),
        }
    }

    fn serving_key(&self) -> String {
        self.keys.serving(self.place.resource)
    }

    fn record_key(&self) -> String {
        self.keys.record(self.place.resource)
    }

    fn is_held_by_other(&self) -> bool {
        self.entry.serving.as_ref().is_some_and(|(serving, ..)| serving.side != self.request.from)
    }

    /// That nobody touched `serving` since it was read.
    fn serving_as_read(&self) -> Guard {
        let key = self.serving_key();
        match &self.entry.serving {
            None => Guard::Absent { key },
            Some((_, value, _)) => Guard::Is { key, value: value.clone() },
        }
    }

    fn put_record(&self, record: &ArbiterRecord) -> Change {
        let value = self.place.encode_record(record);
        Change::Put { key: self.record_key(), value, lease: 0 }
    }

    fn take_serving(&self) -> Change {
        let side = self.request.from;
        let value = self.place.encode_serving(Serving { side, instance: self.request.id.instance });
        Change::Put { key: self.serving_key(), value, lease: self.lease }
    }

    fn commit(&self, guards: Vec<Guard>, changes: Vec<Change>, reply: Reply) -> Step {
        let looks = vec![self.record_key()];
        Step::Commit(Box::new(Transaction { guards, changes, looks }), reply)
    }

    fn change(&self, new: ArbiterRecord, revision: u64, lease: LeaseChange) -> Step {
        let mut guards = vec![Guard::Unchanged { key: self.record_key(), revision }];
        let mut changes = vec![self.put_record(&new)];
        let is_promotion = matches!(self.request.operation, Operation::Promote { .. });
        let is_forced = matches!(self.request.operation, Operation::Force { .. });
        match lease {
            // The rule has looked: there is no lease, or one of a run that is known to be dead.
            LeaseChange::End if is_promotion => {
                guards.push(self.serving_as_read());
                changes.push(self.take_serving());
            }
            LeaseChange::End if is_forced => guards.push(self.serving_as_read()),
            LeaseChange::End => changes.push(Change::Delete { key: self.serving_key() }),
            // Left behind by a record that was removed: whoever has it may serve until it is over.
            _ if (is_promotion || is_forced) && self.is_held_by_other() => {
                let refused = if is_forced { Refused::PeerAlive } else { Refused::LeaseHeld };
                return Step::Answer(Reply::Refused(refused));
            }
            LeaseChange::Stay | LeaseChange::Release(_) | LeaseChange::Grant { .. } => {}
        }
        self.commit(guards, changes, Reply::Done(Box::new(new)))
    }

    fn grant(&self, lease_ms: u32, revision: u64) -> Step {
        let (record, _) = self.entry.record().expect("the rule has seen it");
        let lease_ms = counted_ms(lease_ms);
        let reply = Reply::Lease { lease_ms, record: Box::new(record.clone()) };
        let mine = Serving { side: self.request.from, instance: self.request.id.instance };
        match &self.entry.serving {
            Some((serving, _, lease)) if *serving == mine && *lease == self.lease => {
                return Step::Answer(reply);
            }
            // A lease of this run that it does not know any more.
            Some((serving, ..)) if *serving == mine => {}
            Some((serving, ..)) if serving.side == mine.side => {
                return Step::Answer(Reply::Refused(Refused::TooManyRuns));
            }
            Some(_) => return Step::Answer(Reply::Refused(Refused::LeaseHeld)),
            None => {}
        }
        let unchanged = Guard::Unchanged { key: self.record_key(), revision };
        self.commit(vec![unchanged, self.serving_as_read()], vec![self.take_serving()], reply)
    }

    fn release(&self, serving: Serving, record: Box<ArbiterRecord>) -> Step {
        let reply = Reply::Done(record);
        match &self.entry.serving {
            Some((held, ..)) if *held == serving => {
                let gone = Change::Delete { key: self.serving_key() };
                self.commit(vec![self.serving_as_read()], vec![gone], reply)
            }
            _ => Step::Answer(reply),
        }
    }

    /// The first record, or one in the place of `old`, which is older than what the nodes know. Halves
    /// lie beside it, on the leases of their nodes: what a node said is forgotten when it ends.
    fn enroll(&self, half: &Half, old: Option<(&ArbiterRecord, u64)>) -> Result<Step, Refused> {
        let Request { from, id, .. } = *self.request;
        if let Some((record, _)) = old {
            if record.identities != half.identities {
                return Err(Refused::OtherIdentity);
            }
            if half.alone {
                return Err(Refused::HalfMissing);
            }
        }
        if self.entry.serving.as_ref().is_some_and(|(serving, ..)| serving.side != half.owner) {
            // Its record was removed under it, and it may serve until its lease is over.
            return Err(Refused::LeaseHeld);
        }
        let as_read = || match old {
            None => Guard::Absent { key: self.record_key() },
            Some((_, revision)) => Guard::Unchanged { key: self.record_key(), revision },
        };
        let half_key = |side| self.keys.half(self.place.resource, side);
        let mine = &self.entry.halves[from.index()];
        if !half.alone && mine.as_ref().is_none_or(|(said, _)| *said != (half.clone(), id)) {
            let value = self.place.encode_half(from, half, id);
            let put = Change::Put { key: half_key(from), value, lease: self.lease };
            let transaction =
                Transaction { guards: vec![as_read()], changes: vec![put], looks: Vec::new() };
            return Ok(Step::Propose(Box::new(transaction)));
        }
        let other = from.other();
        let theirs = self.entry.halves[other.index()].as_ref();
        let said = theirs.map(|(said, _)| said);
        let made =
            enroll(self.entry.arbiter, old.map(|(record, _)| record), self.request, half, said);
        // Whoever comes from elsewhere finds it here, and says so.
        let is_current = old.is_some_and(|(record, _)| {
            half.store == record.arbiter && self.request.arbiter_epoch <= record.epoch
        });
        let is_found = is_current && matches!(made, Err(Refused::HalfMissing) | Ok(_));
        let record = if is_found { Err(Refused::Enrolled) } else { made }?;
        let mut guards = vec![as_read(), self.serving_as_read()];
        if let Some((_, revision)) = theirs {
            guards.push(Guard::Unchanged { key: half_key(other), revision: *revision });
        }
        let mut changes = vec![self.put_record(&record)];
        changes.extend([from, other].map(|side| Change::Delete { key: half_key(side) }));
        Ok(self.commit(guards, changes, Reply::Done(Box::new(record))))
    }
}
