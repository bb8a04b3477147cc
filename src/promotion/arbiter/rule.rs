//! The compare-and-set rule: one function, so that a witness, etcd and `explain` cannot differ.

use super::record::{ArbiterRecord, Eligible};
use super::request::{Half, Operation, Refused, Request, RequestId};
use crate::units::{ArbiterId, Epoch, Generation, Instance, Side};

/// What an arbiter knows beside the record, in memory only.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Known<'a> {
    /// The runs of the owner that have a lease. A request of an older run may arrive late, and must
    /// neither hide nor end the lease of the one that serves: so each run has its own.
    pub leases: &'a [Instance],
    /// It may have granted leases before its start.
    pub is_in_hold_down: bool,
}

/// What becomes of the owner's leases.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum LeaseChange {
    /// They go on.
    Stay,
    /// They are over.
    End,
    /// That of one run is over.
    Release(Instance),
    /// The caller's run has one for at most so many milliseconds.
    Grant {
        /// Of the request and of the record the shorter one.
        lease_ms: u32,
    },
}

/// What follows from a request.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Ruling {
    /// Nothing changes: the record as it is, or what stands in the way of a promotion.
    Look(Result<(), Refused>),
    /// A new record, which is stable before the answer; and the lease as of then.
    Change(Box<ArbiterRecord>, LeaseChange),
    /// Only the lease changes.
    Lease(LeaseChange),
    /// The request made this very record before: its answer was lost.
    Repeated,
    /// It was made for another epoch.
    Conflict,
    /// It may not be.
    Refuse(Refused),
}

/// Decides on a request about a resource that has a record.
pub fn judge(record: &ArbiterRecord, known: Known<'_>, request: &Request) -> Ruling {
    // A node that was made anew knows no store yet: it may look, which changes nothing.
    let looks_first = request.arbiter == ArbiterId(0)
        && matches!(request.operation, Operation::Read | Operation::PreVote { .. });
    if request.arbiter != record.arbiter && !looks_first {
        return Ruling::Refuse(Refused::WrongStore);
    }
    if request.arbiter_epoch > record.epoch {
        return Ruling::Refuse(Refused::RolledBack);
    }
    match &request.operation {
        Operation::Read => return Ruling::Look(Ok(())),
        Operation::PreVote { history } => {
            let wish = Wish { from: request.from, history, dead: None, by_operator: false };
            return Ruling::Look(may_promote(record, known, wish));
        }
        Operation::Enroll(_) if record.was_made_by(request.from, request.id) => {
            return Ruling::Repeated;
        }
        Operation::Enroll(_) => return Ruling::Refuse(Refused::Enrolled),
        Operation::Renew
        | Operation::Solo { .. }
        | Operation::Promote { .. }
        | Operation::Pair { .. }
        | Operation::Handover
        | Operation::Keep
        | Operation::Stop
        | Operation::Release { .. }
        | Operation::Force { .. } => {}
    }
    if record.was_made_by(request.from, request.id) {
        return Ruling::Repeated;
    }
    if request.epoch != record.epoch {
        return Ruling::Conflict;
    }
    match check(record, known, request) {
        Ok(ruling) => ruling,
        Err(refused) => Ruling::Refuse(refused),
    }
}

/// The guards of an operation and what it makes, at the right epoch.
fn check(record: &ArbiterRecord, known: Known<'_>, request: &Request) -> Result<Ruling, Refused> {
    let needs = |claim: bool, refused: Refused| if claim { Ok(()) } else { Err(refused) };
    let is_owner = || needs(record.owner == request.from, Refused::NotOwner);
    let is = |eligible| needs(record.eligible == eligible, Refused::OtherState);
    // The caller's own leases go on: it counts them still, and the other node may become eligible
    // before they are over.
    let of_others =
        || if record.owner == request.from { LeaseChange::Stay } else { LeaseChange::End };
    let mut new = record.clone();
    let mut lease = LeaseChange::Stay;
    match &request.operation {
        Operation::Renew => {
            is_owner()?;
            let lease_ms = request.lease_ms.min(record.lease_ms);
            return Ok(Ruling::Lease(LeaseChange::Grant { lease_ms }));
        }
        Operation::Release { instance } => {
            is_owner()?;
            return Ok(Ruling::Lease(LeaseChange::Release(*instance)));
        }
        Operation::Solo { generation } => {
            is_owner()?;
            (new.eligible, new.generation) = (Eligible::Owner, *generation);
        }
        Operation::Promote { history, dead, by_operator } => {
            let wish = Wish { from: request.from, history, dead: *dead, by_operator: *by_operator };
            may_promote(record, known, wish)?;
            (new.owner, new.eligible) = (request.from, Eligible::Owner);
            (new.stopped, lease) = (false, of_others());
        }
        Operation::Pair { generation, history } => {
            is_owner()?;
            is(Eligible::Owner)?;
            needs(history.contains(generation), Refused::OtherGeneration)?;
            (new.eligible, new.generation) = (Eligible::Both, *generation);
        }
        Operation::Handover => {
            is_owner()?;
            is(Eligible::Both)?;
            (new.owner, lease) = (request.from.other(), LeaseChange::End);
        }
        Operation::Keep => {
            is_owner()?;
            new.stopped = false;
        }
        Operation::Stop => {
            is_owner()?;
            (new.stopped, lease) = (true, LeaseChange::End);
        }
        Operation::Force { floor } => {
            let is_free = record.owner == request.from || known.leases.is_empty();
            needs(is_free, Refused::PeerAlive)?;
            new.epoch = record.epoch.max(*floor).forced_by_arbiter();
            (new.owner, new.eligible) = (request.from, Eligible::Owner);
            (new.forced, new.stopped, lease) = (true, false, of_others());
        }
        Operation::Read | Operation::PreVote { .. } | Operation::Enroll(_) => {
            return Err(Refused::OtherState);
        }
    }
    if new.epoch == record.epoch {
        new.epoch = record.epoch.next_by_arbiter();
        new.forced &= new.owner == record.owner;
    }
    new.lease_ms = request.lease_ms;
    new.requests[request.from.index()] = request.id;
    new.changed_by = request.from;
    Ok(Ruling::Change(Box::new(new), lease))
}

/// Who wants to be promoted.
#[derive(Clone, Copy)]
struct Wish<'a> {
    from: Side,
    history: &'a [Generation],
    dead: Option<Instance>,
    by_operator: bool,
}

/// What stands in the way of a promotion, in the order in which it is told.
fn may_promote(record: &ArbiterRecord, known: Known<'_>, wish: Wish<'_>) -> Result<(), Refused> {
    let Wish { from, history, dead, by_operator } = wish;
    let is_others = record.owner != from;
    let is_held = is_others && known.leases.iter().any(|holder| Some(*holder) != dead);
    if !record.lists(from) {
        Err(Refused::NotEligible)
    } else if record.stopped && !by_operator {
        Err(Refused::Stopped)
    } else if !history.contains(&record.generation) {
        Err(Refused::OtherGeneration)
    } else if known.is_in_hold_down {
        Err(Refused::HoldDown)
    } else if is_held {
        Err(Refused::LeaseHeld)
    } else {
        Ok(())
    }
}

/// The first record, from what both nodes say of themselves, or from the one that is alone.
/// `old` is the record that the store had before it was found to be rolled back.
///
/// Nodes that believe another store change to this one first, each on its own disk, and one after the
/// other. Each change is to a higher turn, and a record is of one turn: both nodes were there, and whoever
/// acts by it is there still. A node at a higher turn can be promoted by a record of that turn only, which
/// needs the other one to be there as well. So no two records count at once, however old the halves are.
///
/// # Errors
/// [`Refused::HalfMissing`] if they do not say the same; [`Refused::NotOwner`] if the one that is
/// alone does not serve; [`Refused::MayMove`] and [`Refused::PeerMoved`] if the caller believes
/// another store.
pub fn enroll(
    arbiter: ArbiterId,
    old: Option<&ArbiterRecord>,
    request: &Request,
    mine: &Half,
    theirs: Option<&(Half, RequestId)>,
) -> Result<ArbiterRecord, Refused> {
    let is_same = |half: &Half| {
        (half.identities, half.owner, half.in_sync, half.generation, half.stopped)
            == (mine.identities, mine.owner, mine.in_sync, mine.generation, mine.stopped)
            && !half.alone
    };
    let next = |turn| ArbiterId::at_turn_after(arbiter, turn);
    let (epoch, other) = if mine.alone {
        if mine.owner != request.from {
            return Err(Refused::NotOwner);
        }
        if !mine.store.is_of(arbiter) {
            return Err(Refused::MayMove { store: next(mine.store.turn()) });
        }
        (mine.epoch, RequestId::default())
    } else {
        let (half, id) = theirs.filter(|(half, _)| is_same(half)).ok_or(Refused::HalfMissing)?;
        let (here, there) = (mine.store, half.store);
        let leads =
            |one: ArbiterId, other: ArbiterId| one.is_of(arbiter) && one.turn() > other.turn();
        if leads(here, there) {
            return Err(Refused::HalfMissing); // the other one is to follow
        } else if leads(there, here) {
            return Err(Refused::PeerMoved { store: there });
        }
        let turn_here = old.map_or(0, |record| record.arbiter.turn());
        let turns = here.turn().max(there.turn()).max(turn_here);
        if here != there || !here.is_of(arbiter) || turn_here > here.turn() {
            return Err(Refused::MayMove { store: next(turns) });
        }
        (mine.epoch.max(half.epoch), *id)
    };
    let floor = old.map_or(Epoch(0), |record| record.epoch);
    let mut requests = [other; 2];
    requests[request.from.index()] = request.id;
    Ok(ArbiterRecord {
        arbiter: mine.store,
        epoch: epoch.max(floor).next_by_arbiter(),
        owner: mine.owner,
        eligible: if mine.in_sync && !mine.alone { Eligible::Both } else { Eligible::Owner },
        generation: mine.generation,
        lease_ms: request.lease_ms,
        stopped: mine.stopped,
        forced: false,
        identities: mine.identities,
        requests,
        changed_by: request.from,
    })
}
