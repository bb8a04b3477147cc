//! The third party: the arbiter's core on a machine of its own, what passes between it and the
//! nodes, and the leases.
//!
//! No clock is read. A lease ends at its holder whenever the checker likes, and at its grantor at
//! any moment after that: those are all orders that clocks within their bound allow. What is stale
//! by then is gone. Requests and replies of a node keep their order, unless the bounds let some of
//! them overtake, come twice or get lost; of the records that are pushed only the newest arrives.

use std::collections::{BTreeSet, VecDeque};

use hotpair::promotion::arbiter::{
    Arbiter, ArbiterEffect, ArbiterInput, ArbiterRecord, ArbiterTimer, Eligible, Operation, Reply,
    Request, RequestId,
};
use hotpair::promotion::controller::{ControllerInput, ControllerTimer};
use hotpair::replica::{Input, Replica};
use hotpair::units::{ArbiterId, Epoch, Instance, Instant};

use crate::bounds::Bounds;
use crate::datagrams::Datagrams;
use crate::ghost::Broken;
use crate::pair::{Action, Pair, side};

/// The arbiter, and what is on its way to or from it.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Third {
    pub(crate) seat: Arbiter,
    /// The stable record.
    pub(crate) disk: Option<ArbiterRecord>,
    /// Its timers that run.
    timers: BTreeSet<ArbiterTimer>,
    /// Timers of each node that run.
    pub(crate) node_timers: [BTreeSet<ControllerTimer>; 2],
    pub(crate) asks: [VecDeque<Box<Request>>; 2],
    tells: [VecDeque<(RequestId, Reply)>; 2],
    pushes: [Option<Box<ArbiterRecord>>; 2],
    /// The peer's grant of a lease on its way to that run of the node.
    grants: [Option<Instance>; 2],
    /// The run of the peer for which a lease of that node is not over by its clock.
    pub(crate) granted_to: [Option<Instance>; 2],
    /// What the supervisor of a node that died says: that run serves nothing more up to there.
    wills: [Option<(Instance, Epoch)>; 2],
    /// That node believes that every path to its peer is silent.
    is_silent: [bool; 2],
    /// One node alone was eligible.
    was_alone: bool,
    /// Nothing passes between that node and the arbiter.
    pub(crate) is_away: [bool; 2],
    /// The record that is on its way to the disk, and who asked for it.
    storing: Option<(Box<ArbiterRecord>, Option<Box<Request>>)>,
    pub(crate) datagrams: Datagrams,
    pub(crate) left: ThirdLeft,
}

/// What may still happen to the third party; it only falls.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) struct ThirdLeft {
    /// Renewals and looks at the record.
    pub(crate) looks: u8,
    /// Requests that are sent again although the answer is only late.
    pub(crate) repeats: u8,
    /// Heartbeats that ask for a lease.
    pub(crate) beats: u8,
    pub(crate) suspicions: u8,
    /// Starts of the arbiter.
    pub(crate) restarts: u8,
    /// Messages that overtake, or come twice.
    pub(crate) disorder: u8,
    /// Replies that are lost.
    pub(crate) losses: u8,
    /// Ends of the time that the owner has after a start, or while it serves nobody.
    pub(crate) waits: u8,
    /// New records of the arbiter.
    pub(crate) epochs: u8,
    /// Datagrams by which a primary asks its peer to veto itself, and which arrive.
    pub(crate) datagrams: u8,
    /// Nodes that lose the arbiter.
    pub(crate) absences: u8,
    /// Nodes that reach it again.
    pub(crate) returns: u8,
    /// Records that are slow to get stable at the arbiter.
    pub(crate) slow_stores: u8,
}

/// One thing that can happen there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Word {
    /// A request arrives.
    Ask { from: usize, place: usize },
    /// It arrives, and will again.
    AskTwice { from: usize },
    /// A reply arrives.
    Tell { to: usize, place: usize },
    /// A reply never does.
    Lose { to: usize },
    /// The newest record arrives.
    Push { to: usize },
    /// The arbiter dies and starts.
    Restart,
    /// A timer of a node fires.
    Fire { at: usize, timer: ControllerTimer },
    /// One of the arbiter does.
    FireThird { timer: ArbiterTimer },
    /// A heartbeat arrives: its sender lives, and may want a lease.
    Beat { to: usize },
    /// Every path to the peer is silent.
    Suspect { at: usize },
    /// The peer's lease arrives.
    Grant { to: usize },
    /// The supervisor's word about a dead run arrives at the peer.
    Will { of: usize },
    /// The record is stable at the arbiter.
    Stored,
    /// The arbiter dies and starts, with the record that was on its way to the disk or without.
    Crash { is_landed: bool },
    /// That node does not reach the arbiter any more; what was on its way is lost.
    Vanish { at: usize },
    /// It reaches it again.
    Return { at: usize },
    /// The peer's primary asks by datagram for a veto.
    OutdateAsk { to: usize },
    /// The answer arrives.
    OutdateAnswer { to: usize },
}

/// The one store.
const STORE: ArbiterId = ArbiterId(77);

impl Third {
    pub(crate) fn new() -> Self {
        let seat = Arbiter::new(STORE, None, &mut Vec::new());
        Self {
            seat,
            disk: None,
            timers: BTreeSet::new(),
            node_timers: Default::default(),
            asks: Default::default(),
            tells: Default::default(),
            pushes: [None, None],
            grants: [None; 2],
            granted_to: [None; 2],
            wills: [None; 2],
            is_silent: [false; 2],
            was_alone: false,
            is_away: [false; 2],
            storing: None,
            datagrams: Datagrams::default(),
            left: ThirdLeft::default(),
        }
    }

    /// Whether the record lists only that node.
    pub(crate) fn lists_only(&self, at: usize) -> bool {
        let is_out =
            |record: &ArbiterRecord| record.owner == side(at) && !record.lists(side(1 - at));
        self.disk.as_ref().is_some_and(is_out)
    }

    /// Whether both are eligible again after one was not.
    pub(crate) fn was_paired(&self) -> Option<bool> {
        let record = self.disk.as_ref()?;
        Some(self.was_alone && record.eligible == Eligible::Both)
    }

    /// A process of that node ended.
    pub(crate) fn forget_process(&mut self, at: usize) {
        self.node_timers[at].clear();
        self.is_silent[at] = false;
        self.grants[at] = None;
        self.datagrams.forget(at);
    }

    /// A process of that node was killed, and its supervisor says so.
    pub(crate) fn leave_will(&mut self, at: usize, instance: Instance, epoch: Epoch) {
        self.wills[at] = Some((instance, epoch));
    }

    /// Whether a lease by this timer is counted at node `at` still.
    fn holds(&self, at: usize, timer: ControllerTimer) -> bool {
        self.node_timers[at].contains(&timer)
    }

    /// Replies that grant a lease to that node, and are too late now.
    fn drop_stale_leases(&mut self, to: usize, instance: Instance) {
        self.tells[to]
            .retain(|(id, reply)| id.instance != instance || !matches!(reply, Reply::Lease { .. }));
    }
}

impl Pair {
    /// What goes on by itself between the three: messages that arrive.
    pub(crate) fn words_under_way(&self, actions: &mut Vec<Action>) {
        let Some(third) = &self.third else { return };
        self.datagrams_under_way(actions);
        let mut may = |word| actions.push(Action::Word(word));
        if third.storing.is_some() {
            may(Word::Stored);
        }
        for at in 0..2 {
            let places = |len: usize| if third.left.disorder > 0 { len } else { len.min(1) };
            for place in 0..places(third.asks[at].len()) {
                may(Word::Ask { from: at, place });
            }
            if third.left.disorder > 0 && !third.asks[at].is_empty() {
                may(Word::AskTwice { from: at });
            }
            if self.nodes[at].process.is_none() {
                continue;
            }
            for place in 0..places(third.tells[at].len()) {
                may(Word::Tell { to: at, place });
            }
            if third.pushes[at].is_some() {
                may(Word::Push { to: at });
            }
            if third.grants[at].is_some() {
                may(Word::Grant { to: at });
            }
            if third.wills[1 - at].is_some() {
                may(Word::Will { of: 1 - at });
            }
        }
    }

    /// What time and faults do to the three.
    pub(crate) fn words_of_time(&self, bounds: &Bounds, actions: &mut Vec<Action>) {
        let Some(third) = &self.third else { return };
        let left = third.left;
        let mut may = |word| actions.push(Action::Word(word));
        for at in 0..2 {
            if self.nodes[at].process.is_none() {
                continue;
            }
            for &timer in &third.node_timers[at] {
                let is_due = match timer {
                    ControllerTimer::Look => left.looks > 0,
                    ControllerTimer::Repeat => left.repeats > 0,
                    ControllerTimer::Preference | ControllerTimer::Idle => left.waits > 0,
                    // It is longer than any lease.
                    ControllerTimer::Grace => {
                        left.waits > 0 && !third.holds(at, ControllerTimer::ArbiterLease)
                    }
                    ControllerTimer::ArbiterLease
                    | ControllerTimer::PeerLease
                    | ControllerTimer::StopBudget
                    | ControllerTimer::Fence
                    | ControllerTimer::Silence => true,
                    ControllerTimer::Grant | ControllerTimer::HoldDown => {
                        bounds.is_clock_broken || !third.holds(1 - at, ControllerTimer::PeerLease)
                    }
                };
                if is_due {
                    may(Word::Fire { at, timer });
                }
            }
            let peer_runs = self.nodes[1 - at].process.is_some();
            if left.beats > 0 && peer_runs {
                may(Word::Beat { to: at });
            }
            if left.suspicions > 0 && !third.is_silent[at] {
                may(Word::Suspect { at });
            }
            if left.losses > 0 && !third.tells[at].is_empty() {
                may(Word::Lose { to: at });
            }
        }
        for at in 0..2 {
            if left.absences > 0 && !third.is_away[at] {
                may(Word::Vanish { at });
            }
            if left.returns > 0 && third.is_away[at] {
                may(Word::Return { at });
            }
        }
        for &timer in &third.timers {
            let is_held = |at: usize| {
                let counts = match timer {
                    ArbiterTimer::Lease(run) => self.instance(at) == Some(run),
                    ArbiterTimer::HoldDown => true,
                };
                counts && third.holds(at, ControllerTimer::ArbiterLease)
            };
            if bounds.is_clock_broken || !(0..2).any(is_held) {
                may(Word::FireThird { timer });
            }
        }
        if left.restarts > 0 && third.storing.is_none() {
            may(Word::Restart);
        }
        if left.restarts > 0 && third.storing.is_some() {
            may(Word::Crash { is_landed: false });
            may(Word::Crash { is_landed: true });
        }
    }

    /// Whether a node counts a lease still, so that not so much time can have passed.
    pub(crate) fn has_lease(&self) -> bool {
        let counts = |third: &Third, at| {
            third.holds(at, ControllerTimer::ArbiterLease)
                || third.holds(at, ControllerTimer::PeerLease)
        };
        self.third.as_ref().is_some_and(|third| (0..2).any(|at| counts(third, at)))
    }

    /// The run of a node, if it runs.
    pub(crate) fn instance(&self, at: usize) -> Option<Instance> {
        self.nodes[at].core().map(Replica::instance)
    }

    pub(crate) fn third(&mut self) -> &mut Third {
        self.third.as_mut().expect("there is an arbiter")
    }

    pub(crate) fn carry_out_word(&mut self, word: Word, bounds: &Bounds) -> Result<(), Broken> {
        let now = self.now();
        match word {
            Word::Ask { from, place } => {
                let third = self.third();
                third.left.disorder -= u8::from(place > 0);
                let request = third.asks[from].remove(place).expect("it is there");
                self.arrive(request, bounds)
            }
            Word::AskTwice { from } => {
                let third = self.third();
                third.left.disorder -= 1;
                let request = third.asks[from].front().expect("it is there").clone();
                self.arrive(request, bounds)
            }
            Word::Tell { to, place } => {
                let third = self.third();
                third.left.disorder -= u8::from(place > 0);
                let (id, reply) = third.tells[to].remove(place).expect("it is there");
                self.tell(to, ControllerInput::Reply { id, reply }, bounds)
            }
            Word::Lose { to } => {
                let third = self.third();
                third.left.losses -= 1;
                third.tells[to].pop_front();
                Ok(())
            }
            Word::Push { to } => {
                let record = self.third().pushes[to].take().expect("it is there");
                self.tell(to, ControllerInput::Pushed(record), bounds)
            }
            Word::OutdateAsk { to } => self.ask_to_outdate(to, bounds),
            Word::OutdateAnswer { to } => self.answer_outdated(to, bounds),
            Word::Fire { at, timer } => self.fire(at, timer, bounds),
            Word::FireThird { timer } => {
                for at in 0..2 {
                    if let Some(run) = self.instance(at) {
                        self.third().drop_stale_leases(at, run);
                    }
                }
                let third = self.third();
                third.timers.remove(&timer);
                third.seat.step(now, ArbiterInput::Timer(timer), &mut Vec::new());
                Ok(())
            }
            Word::Beat { to } => self.beat(to, bounds),
            Word::Suspect { at } => {
                let third = self.third();
                third.left.suspicions -= 1;
                third.is_silent[at] = true;
                self.tell(at, ControllerInput::Silent(true), bounds)
            }
            Word::Grant { to } => {
                let run = self.third().grants[to].take();
                if self.instance(to) != run {
                    return Ok(());
                }
                self.tell(to, ControllerInput::LeaseGranted { asked: now }, bounds)
            }
            Word::Will { of } => {
                let will = self.third().wills[of].take();
                let (instance, epoch) = will.expect("there is one");
                let granted = &mut self.third().granted_to[1 - of];
                *granted = granted.filter(|run| *run != instance);
                self.tell(1 - of, ControllerInput::Released { instance, epoch }, bounds)
            }
            other => self.carry_out_word_of_third(other, bounds),
        }
    }

    /// The arbiter dies, its disk is done, or a node loses it and reaches it again.
    fn carry_out_word_of_third(&mut self, word: Word, bounds: &Bounds) -> Result<(), Broken> {
        let now = self.now();
        match word {
            Word::Restart | Word::Crash { is_landed: false } => self.restart_third(bounds),
            Word::Crash { is_landed: true } => {
                self.lands(bounds)?;
                self.restart_third(bounds)
            }
            Word::Stored => {
                let asked = self.lands(bounds)?;
                let mut effects = Vec::new();
                self.third().seat.step(now, ArbiterInput::Stored(true), &mut effects);
                self.carry_out_third(effects, asked.as_deref(), bounds)
            }
            Word::Vanish { at } => {
                let third = self.third();
                third.left.absences -= 1;
                third.is_away[at] = true;
                third.asks[at].clear();
                third.tells[at].clear();
                third.pushes[at] = None;
                Ok(())
            }
            Word::Return { at } => {
                let third = self.third();
                third.left.returns -= 1;
                third.is_away[at] = false;
                self.tell(at, ControllerInput::ArbiterBack, bounds)
            }
            _ => unreachable!("the others pass between the three"),
        }
    }

    pub(crate) fn tell(
        &mut self,
        to: usize,
        input: ControllerInput,
        bounds: &Bounds,
    ) -> Result<(), Broken> {
        self.step(to, Input::Controller(input), bounds)
    }

    fn fire(&mut self, at: usize, timer: ControllerTimer, bounds: &Bounds) -> Result<(), Broken> {
        let third = self.third();
        third.node_timers[at].remove(&timer);
        match timer {
            ControllerTimer::Look => third.left.looks -= 1,
            ControllerTimer::Repeat => third.left.repeats -= 1,
            ControllerTimer::Preference | ControllerTimer::Idle | ControllerTimer::Grace => {
                third.left.waits -= 1;
            }
            ControllerTimer::Grant | ControllerTimer::HoldDown => {
                // By now the holder has counted from its asking and longer.
                third.granted_to[at] = None;
                third.grants[1 - at] = None;
            }
            ControllerTimer::ArbiterLease
            | ControllerTimer::PeerLease
            | ControllerTimer::StopBudget
            | ControllerTimer::Fence
            | ControllerTimer::Silence => {}
        }
        self.tell(at, ControllerInput::Timer(timer), bounds)
    }

    fn arrive(&mut self, request: Box<Request>, bounds: &Bounds) -> Result<(), Broken> {
        let now = self.now();
        let mut effects = Vec::new();
        let asked = request.clone();
        self.third().seat.step(now, ArbiterInput::Request(request), &mut effects);
        self.carry_out_third(effects, Some(&asked), bounds)
    }

    fn carry_out_third(
        &mut self,
        effects: Vec<ArbiterEffect>,
        asked: Option<&Request>,
        bounds: &Bounds,
    ) -> Result<(), Broken> {
        let now: Instant = self.now();
        for effect in effects {
            match effect {
                ArbiterEffect::Store(record) => {
                    let third = self.third();
                    third.storing = Some((record, asked.map(|asked| Box::new(asked.clone()))));
                    if third.left.slow_stores > 0 {
                        third.left.slow_stores -= 1;
                        continue;
                    }
                    self.lands(bounds)?;
                    let third = self.third();
                    let mut effects = Vec::new();
                    third.seat.step(now, ArbiterInput::Stored(true), &mut effects);
                    self.carry_out_third(effects, asked, bounds)?;
                }
                ArbiterEffect::Reply { to, id, reply } => {
                    let third = self.third();
                    if !third.is_away[to.index()] {
                        third.tells[to.index()].push_back((id, reply));
                    }
                }
                ArbiterEffect::Push(record) => {
                    let third = self.third();
                    let is_away = third.is_away;
                    third.pushes = is_away.map(|is_away| (!is_away).then(|| record.clone()));
                }
                ArbiterEffect::SetTimer { timer, .. } => {
                    self.third().timers.insert(timer);
                }
            }
        }
        Ok(())
    }

    /// What was on its way to the arbiter's disk is there.
    fn lands(&mut self, bounds: &Bounds) -> Result<Option<Box<Request>>, Broken> {
        let (record, asked) = self.third().storing.take().expect("a record is on its way");
        self.stores(&record, asked.as_deref(), bounds)?;
        self.third().disk = Some(*record);
        Ok(asked)
    }

    /// The arbiter's record changes.
    fn stores(
        &mut self,
        record: &ArbiterRecord,
        asked: Option<&Request>,
        bounds: &Bounds,
    ) -> Result<(), Broken> {
        let third = self.third.as_mut().expect("there is an arbiter");
        let Some(old) = &third.disk else { return Ok(()) };
        self.told.is_worn |= third.left.epochs == 0;
        third.left.epochs = third.left.epochs.saturating_sub(1);
        third.was_alone |= record.eligible == Eligible::Owner;
        if record.epoch <= old.epoch {
            bounds.breaks("EpochMono")?;
        }
        let changes_owner = record.owner != old.owner;
        let operation = asked.map(|request| &request.operation);
        let counts = |timer: &ArbiterTimer| match (operation, timer) {
            (Some(Operation::Promote { dead, .. }), ArbiterTimer::Lease(run)) => {
                Some(*run) != *dead
            }
            (Some(Operation::Promote { .. }), ArbiterTimer::HoldDown) => true,
            // An operator vouches for what was granted before the arbiter's start.
            (Some(Operation::Force { .. }), timer) => *timer != ArbiterTimer::HoldDown,
            _ => false,
        };
        if changes_owner && third.timers.iter().any(counts) {
            bounds.breaks("RevokeBeforeGrant")?;
        }
        if changes_owner || matches!(operation, Some(Operation::Stop)) {
            third.timers.retain(|timer| *timer == ArbiterTimer::HoldDown);
        }
        Ok(())
    }

    /// A timer of a node runs.
    #[expect(clippy::unnecessary_wraps, reason = "as other effects are carried out")]
    pub(crate) fn set_timer(&mut self, at: usize, timer: ControllerTimer) -> Result<(), Broken> {
        self.third().node_timers[at].insert(timer);
        Ok(())
    }

    /// A node grants its peer's run a lease.
    #[expect(clippy::unnecessary_wraps, reason = "as other effects are carried out")]
    pub(crate) fn grant_lease(&mut self, at: usize, to: Instance) -> Result<(), Broken> {
        let third = self.third();
        third.granted_to[at] = Some(to);
        third.grants[1 - at] = Some(to);
        Ok(())
    }

    /// The arbiter dies, and starts with what is stable.
    fn restart_third(&mut self, bounds: &Bounds) -> Result<(), Broken> {
        let third = self.third();
        third.left.restarts -= 1;
        third.storing = None;
        let mut effects = Vec::new();
        third.seat = Arbiter::new(STORE, third.disk.clone(), &mut effects);
        bounds.plant_at_arbiter(&mut third.seat);
        third.timers.clear();
        self.carry_out_third(effects, None, bounds)
    }

    fn beat(&mut self, to: usize, bounds: &Bounds) -> Result<(), Broken> {
        self.third().left.beats -= 1;
        if std::mem::take(&mut self.third().is_silent[to]) {
            self.tell(to, ControllerInput::Silent(false), bounds)?;
        }
        if let Some(word) = self.nodes[1 - to].core().map(Replica::word_to_peer) {
            self.tell(to, ControllerInput::PeerTold(word), bounds)?;
        }
        let peer = self.nodes[1 - to].core().filter(|core| core.wants_lease());
        match peer.map(|core| (core.instance(), core.superblock().epoch)) {
            Some((instance, epoch)) => {
                self.tell(to, ControllerInput::LeaseAsked { instance, epoch }, bounds)
            }
            None => Ok(()),
        }
    }
}
