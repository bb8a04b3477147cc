//! One resource at a witness: one request after the other, stable before it is answered.
//!
//! Time is not compared here. The driver fires a timer when the *slower* of its two clocks says so
//! (a grantor waits longer than a holder), and tells the time only so that people can be told how
//! long something takes.

use std::time::Duration;

use super::record::ArbiterRecord;
use super::request::{Half, Operation, Refused, Reply, Request, RequestId, View};
use super::rule::{Known, LeaseChange, Ruling, enroll, judge};
use crate::promotion::controller::planted::PlantedRule;
use crate::units::{ArbiterId, Instance, Instant, Side};

/// What happens to the arbiter of one resource.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ArbiterInput {
    /// A node asks.
    Request(Box<Request>),
    /// The record of the last [`ArbiterEffect::Store`] is stable, or could not be made so.
    Stored(bool),
    /// A timer fired.
    Timer(ArbiterTimer),
}

/// What the arbiter of one resource wants done, in this order.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum ArbiterEffect {
    /// Make the record stable, and say so. None is stored before the last one was answered for.
    Store(Box<ArbiterRecord>),
    /// Answer a request.
    Reply {
        /// Whose.
        to: Side,
        /// Which one.
        id: RequestId,
        /// What it gets.
        reply: Reply,
    },
    /// Show the record to both nodes: it changed.
    Push(Box<ArbiterRecord>),
    /// Fire a timer when both clocks say that so much time has passed.
    SetTimer {
        /// Which one; one that is set again fires only for the last time.
        timer: ArbiterTimer,
        /// After how long.
        after: Duration,
    },
}

/// What the arbiter waits for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ArbiterTimer {
    /// The lease of this run is over.
    Lease(Instance),
    /// Every lease that may have been granted before the start is over.
    HoldDown,
}

/// The arbiter of one resource.
#[derive(Clone, Debug, Hash)]
pub struct Arbiter {
    id: ArbiterId,
    record: Option<ArbiterRecord>,
    /// The store was found to be older than what a node learnt from it: only enrolling helps.
    is_rolled_back: bool,
    is_in_hold_down: bool,
    leases: Vec<Lease>,
    halves: [Option<(Half, RequestId)>; 2],
    storing: Option<Storing>,
    /// What each node asked while a record was on its way to the disk.
    waiting: [Option<Box<Request>>; 2],
    owner_seen: Option<Instant>,
    /// The bug to be found.
    #[cfg(feature = "planted-bugs")]
    planted: Option<PlantedRule>,
}

/// A lease that was granted to a run of the owner. Its end is told, not acted upon.
#[derive(Clone, Copy, Debug, Hash)]
struct Lease {
    instance: Instance,
    ends: Instant,
}

#[derive(Clone, Debug, Hash)]
struct Storing {
    record: Box<ArbiterRecord>,
    lease: LeaseChange,
    to: Side,
    id: RequestId,
}

/// When a grantor counts a lease as over: 1 % and a sixtieth, 20 to 200 ms, after its length.
pub fn grant_end(lease_ms: u32) -> Duration {
    let lease = Duration::from_millis(u64::from(lease_ms));
    let slack = (lease / 60).clamp(Duration::from_millis(20), Duration::from_millis(200));
    lease + lease / 100 + slack
}

/// Why the store `id` answers nothing about a resource without a record. Whoever knows another
/// store must learn that this is not the one that it trusts.
pub fn no_record(id: ArbiterId, known: ArbiterId) -> Refused {
    if known.is_of(id) || known == ArbiterId::default() {
        Refused::NoRecord
    } else {
        Refused::WrongStore
    }
}

impl Arbiter {
    /// The arbiter of a resource with what its store has. It holds promotions down until every
    /// lease it may have granted before is over.
    pub fn new(
        id: ArbiterId,
        record: Option<ArbiterRecord>,
        effects: &mut Vec<ArbiterEffect>,
    ) -> Self {
        if let Some(record) = &record {
            let after = grant_end(record.lease_ms);
            effects.push(ArbiterEffect::SetTimer { timer: ArbiterTimer::HoldDown, after });
        }
        Self {
            id,
            is_rolled_back: false,
            is_in_hold_down: record.is_some(),
            record,
            leases: Vec::new(),
            halves: [None, None],
            storing: None,
            waiting: [None, None],
            owner_seen: None,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// Plants a bug to be found.
    #[cfg(feature = "planted-bugs")]
    pub fn plant(&mut self, rule: Option<PlantedRule>) {
        self.planted = rule;
    }

    #[cfg(feature = "planted-bugs")]
    fn is_planted(&self, rule: PlantedRule) -> bool {
        self.planted == Some(rule)
    }

    /// Never, in this build.
    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "same shape as with the feature planted-bugs")]
    fn is_planted(&self, _rule: PlantedRule) -> bool {
        false
    }

    /// The stable record.
    pub fn record(&self) -> Option<&ArbiterRecord> {
        self.record.as_ref()
    }

    /// The connection of that node ended: what it said of itself counts as long as it is there.
    pub fn forget_half(&mut self, of: Side) {
        self.halves[of.index()] = None;
    }

    /// Goes one step.
    pub fn step(&mut self, now: Instant, input: ArbiterInput, effects: &mut Vec<ArbiterEffect>) {
        match input {
            ArbiterInput::Request(request) => self.on_request(now, request, effects),
            ArbiterInput::Stored(is_stable) => self.on_stored(now, is_stable, effects),
            ArbiterInput::Timer(ArbiterTimer::HoldDown) => self.is_in_hold_down = false,
            ArbiterInput::Timer(ArbiterTimer::Lease(instance)) => {
                self.leases.retain(|lease| lease.instance != instance);
            }
        }
    }

    fn on_request(
        &mut self,
        now: Instant,
        request: Box<Request>,
        effects: &mut Vec<ArbiterEffect>,
    ) {
        if self.record.as_ref().is_some_and(|record| record.owner == request.from) {
            self.owner_seen = Some(now);
        }
        let looks = matches!(request.operation, Operation::Read | Operation::PreVote { .. });
        if self.storing.is_some() && !looks {
            // A lease that is granted now would not be seen by the promotion that is being stored.
            let place = &mut self.waiting[request.from.index()];
            // Renewals come all the time: one must not push out a change that is asked for seldom.
            if request.operation != Operation::Renew || place.is_none() {
                *place = Some(request);
            }
            return;
        }
        let (to, id) = (request.from, request.id);
        let mut say = |reply| effects.push(ArbiterEffect::Reply { to, id, reply });
        if let Operation::Enroll(half) = &request.operation {
            if let Some(record) = &self.record
                && !self.is_rolled_back
                && record.was_made_by(to, id)
            {
                say(Reply::Done(Box::new(record.clone())));
                return;
            }
            match self.on_enroll(&request, half) {
                // Leases that were granted before stay what they are.
                Ok(record) => {
                    let lease = LeaseChange::Stay;
                    self.store(Storing { record, lease, to, id }, effects);
                }
                Err(refused) => say(Reply::Refused(refused)),
            }
            return;
        }
        let Some(record) = &self.record else {
            say(Reply::Refused(no_record(self.id, request.arbiter)));
            return;
        };
        let holders = self.holders();
        let known = Known { leases: &holders, is_in_hold_down: self.is_in_hold_down };
        match judge(record, known, &request) {
            Ruling::Refuse(Refused::RolledBack) => {
                self.is_rolled_back = true;
                say(Reply::Refused(Refused::RolledBack));
            }
            Ruling::Refuse(refused) => say(Reply::Refused(refused)),
            _ if self.is_rolled_back => say(Reply::Refused(Refused::RolledBack)),
            Ruling::Look(promotion) => {
                let view = self.view(now, promotion, record.clone());
                say(Reply::View(Box::new(view)));
            }
            Ruling::Repeated => say(Reply::Done(Box::new(record.clone()))),
            Ruling::Conflict => say(Reply::Conflict(Box::new(record.clone()))),
            Ruling::Lease(change) => {
                let record = Box::new(record.clone());
                let granted = self.change_lease(now, change, id.instance, effects);
                let reply = match (granted, change) {
                    (Err(refused), _) => Reply::Refused(refused),
                    (Ok(()), LeaseChange::Grant { lease_ms }) => Reply::Lease { lease_ms, record },
                    (Ok(()), _) => Reply::Done(record),
                };
                effects.push(ArbiterEffect::Reply { to, id, reply });
            }
            Ruling::Change(new, _)
                if self.is_planted(PlantedRule::SoloKeepsEpoch)
                    && (new.owner, new.eligible) == (record.owner, record.eligible)
                    && matches!(request.operation, Operation::Solo { .. }) =>
            {
                say(Reply::Done(Box::new(record.clone())));
            }
            Ruling::Change(record, lease) => {
                self.store(Storing { record, lease, to, id }, effects);
            }
        }
    }

    /// The runs that have a lease.
    fn holders(&self) -> Vec<Instance> {
        if self.is_planted(PlantedRule::LeaseIgnored) {
            return Vec::new();
        }
        self.leases.iter().map(|lease| lease.instance).collect()
    }

    fn view(&self, now: Instant, promotion: Result<(), Refused>, record: ArbiterRecord) -> View {
        let left = self.leases.iter().map(|lease| lease.ends.since(now)).max();
        View {
            promotion: if self.is_rolled_back { Err(Refused::RolledBack) } else { promotion },
            lease_remaining_ms: millis(left.unwrap_or_default()),
            owner_last_seen_ms: self.owner_seen.map(|seen| millis(now.since(seen))),
            record,
        }
    }

    /// A record is made from two halves that say the same, or from one node that is alone.
    fn on_enroll(&mut self, request: &Request, half: &Half) -> Result<Box<ArbiterRecord>, Refused> {
        let mut is_current = false;
        if let Some(record) = &self.record {
            let is_same = half.store == record.arbiter;
            // The store is an older copy.
            self.is_rolled_back |= is_same && request.arbiter_epoch > record.epoch;
            is_current = is_same && !self.is_rolled_back;
            if record.identities != half.identities {
                return Err(Refused::OtherIdentity);
            }
            if half.alone {
                return Err(if is_current { Refused::Enrolled } else { Refused::HalfMissing });
            }
        }
        self.halves[request.from.index()] = Some((half.clone(), request.id));
        let theirs = self.halves[request.from.other().index()].as_ref();
        match enroll(self.id, self.record.as_ref(), request, half, theirs) {
            // Whoever comes from elsewhere finds it here, and says so.
            Err(Refused::HalfMissing) | Ok(_) if is_current => Err(Refused::Enrolled),
            made => made.map(Box::new),
        }
    }

    fn store(&mut self, storing: Storing, effects: &mut Vec<ArbiterEffect>) {
        effects.push(ArbiterEffect::Store(storing.record.clone()));
        self.storing = Some(storing);
    }

    fn on_stored(&mut self, now: Instant, is_stable: bool, effects: &mut Vec<ArbiterEffect>) {
        let Some(Storing { record, lease, to, id }) = self.storing.take() else { return };
        let reply = if is_stable {
            let is_new_owner = self.record.as_ref().is_none_or(|old| old.owner != record.owner);
            if is_new_owner {
                self.owner_seen = (record.owner == to).then_some(now);
            }
            self.record = Some((*record).clone());
            self.is_rolled_back = false;
            self.halves = [None, None];
            if lease == LeaseChange::End {
                self.leases.clear();
            }
            effects.push(ArbiterEffect::Push(record.clone()));
            Reply::Done(record)
        } else {
            Reply::Refused(Refused::DiskFailed)
        };
        effects.push(ArbiterEffect::Reply { to, id, reply });
        for place in 0..2 {
            if let Some(request) = self.waiting[place].take() {
                self.on_request(now, request, effects);
            }
        }
    }

    fn change_lease(
        &mut self,
        now: Instant,
        change: LeaseChange,
        caller: Instance,
        effects: &mut Vec<ArbiterEffect>,
    ) -> Result<(), Refused> {
        match change {
            LeaseChange::Stay => {}
            LeaseChange::End => self.leases.clear(),
            LeaseChange::Release(instance) => {
                self.leases.retain(|lease| lease.instance != instance);
            }
            LeaseChange::Grant { lease_ms } => {
                let after = grant_end(lease_ms);
                let ends = now.plus(after);
                let place = self.leases.iter().position(|lease| lease.instance == caller);
                match place {
                    Some(place) => self.leases[place].ends = ends,
                    None if self.leases.len() >= RUNS_MAX => return Err(Refused::TooManyRuns),
                    None => self.leases.push(Lease { instance: caller, ends }),
                }
                effects.push(ArbiterEffect::SetTimer { timer: ArbiterTimer::Lease(caller), after });
            }
        }
        Ok(())
    }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Runs of one node that have a lease at once.
const RUNS_MAX: usize = 8;
