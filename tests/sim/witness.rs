//! The third party: the arbiter's core on a machine of its own, and the datagrams between the nodes.
//!
//! Only seeds with an arbiter have it. What is sent may be lost, late, or come twice.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use hotpair::promotion::arbiter::{
    Arbiter, ArbiterEffect, ArbiterInput, ArbiterRecord, ArbiterTimer, Operation, Reply, Request,
    RequestId,
};
use hotpair::promotion::controller::{
    ControllerInput, ControllerTimer, FenceUse, FlapLimit, Moving, PeerWord,
};
use hotpair::replica::{Input, OutdateAnswer, OutdateAsk, OutdateNews, OutdateOrder};
use hotpair::units::{ArbiterId, Epoch, Instance, Instant};

use crate::alone::FencePlan;
use crate::broken::Checked;
use crate::net::Time;
use crate::node::Process;
use crate::plan::{index, side};
use crate::supervisor::{LastWord, SupervisorEvent};
use crate::world::{Event, World, millis, nanos};

/// Time between two heartbeats of a node.
const BEAT: Time = 200_000_000;
/// Silence after which a peer is suspected.
const SUSPECT_AFTER: Time = 1_000_000_000;

/// A node that has not heard the witness for so long is not listened to.
const HEARD_MAX: Time = 800_000_000;

impl Process {
    /// Whether what it says by datagram reaches the peer, and the answer comes back.
    fn has_fresh_echo(&self, now: Time) -> bool {
        now - self.last_up < SUSPECT_AFTER / 4 * 3
    }
}

/// What goes wrong with it in one seed.
#[derive(Clone, Debug)]
pub(crate) struct WitnessPlan {
    /// The lease of both nodes.
    pub(crate) lease: Duration,
    /// How long both must miss it before the secondary pledges; `None` if it never does.
    pub(crate) grace: Option<Duration>,
    /// Mean time between cuts of one node from the witness.
    pub(crate) cut: Option<Duration>,
    /// Mean time between its crashes.
    pub(crate) kill: Option<Duration>,
    /// Mean time until another one, with an empty store, takes its place.
    pub(crate) replace: Option<Duration>,
    /// Of 100 messages, so many are lost, late by seconds, or come twice.
    pub(crate) trouble: u8,
    /// With a fence command: what it is for, and what both nodes' devices do.
    pub(crate) fence: Option<(FenceUse, FencePlan)>,
    /// How the resource moves by itself.
    pub(crate) moving: Moving,
    /// Workers have a supervisor, which says so when one of them died.
    pub(crate) has_supervisor: bool,
    /// What cuts the connection of the nodes leaves their datagrams alone: another network.
    pub(crate) beats_pass_cuts: bool,
    /// The bug to be found.
    #[cfg(feature = "planted-bugs")]
    pub(crate) planted: Option<hotpair::promotion::controller::planted::PlantedRule>,
}

impl WitnessPlan {
    /// Nothing goes wrong.
    pub(crate) fn calm() -> Self {
        Self {
            lease: Duration::from_secs(3),
            grace: None,
            cut: None,
            kill: None,
            replace: None,
            trouble: 0,
            fence: None,
            moving: Moving::default(),
            has_supervisor: false,
            beats_pass_cuts: false,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let class = |rng: &mut Rng, one_in: u8| {
            (rng.u8(..one_in) == 0).then(|| Duration::from_millis(rng.u64(2_000..=30_000)))
        };
        let lease = Duration::from_millis(*rng.choice(&[600, 1_000, 3_000]).unwrap());
        Self {
            lease,
            grace: rng.bool().then_some(3 * lease),
            cut: class(rng, 2),
            kill: class(rng, 3),
            replace: None,
            trouble: *rng.choice(&[0, 0, 2, 15]).unwrap(),
            fence: None,
            moving: draw_moving(rng),
            beats_pass_cuts: rng.u8(..3) == 0,
            has_supervisor: rng.u8(..4) > 0,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }
}

/// A preferred node, a short wait for it, a tight limit, or neither.
fn draw_moving(rng: &mut Rng) -> Moving {
    let seconds =
        |rng: &mut Rng, choices: &[u64]| Duration::from_secs(*rng.choice(choices).unwrap());
    let prefer = (rng.u8(..3) > 0).then(|| side(rng.usize(..2)));
    let failback = (rng.u8(..2) == 0).then(|| seconds(rng, &[1, 5, 20]));
    let promotions = rng.u8(1..=3);
    let within = seconds(rng, &[5, 30, 600]);
    let flap_limit = (rng.u8(..2) == 0).then_some(FlapLimit { promotions, within });
    Moving { prefer, failback, flap_limit }
}

/// The witness's machines.
#[derive(Debug)]
pub(crate) struct Witness {
    pub(crate) rng: Rng,
    /// The first one, and each that took the place of the one before it. All of them run.
    stores: Vec<Store>,
    /// Which of them each node's connection leads to.
    route: [usize; 2],
    /// Nothing passes from that node to it, and from it to that node, before this moment.
    cut_until: [[Time; 2]; 2],
    /// Requests and replies of that node wait here, while they are held.
    held: [Option<Vec<Message>>; 2],
}

/// One machine with a store of its own.
#[derive(Debug, Default)]
struct Store {
    seat: Option<Arbiter>,
    /// What is stable.
    disk: Option<ArbiterRecord>,
    storing: Option<ArbiterRecord>,
    /// Counts its starts.
    life: u64,
    /// Which setting of a timer counts.
    timers: BTreeMap<ArbiterTimer, u64>,
    settings: u64,
}

/// Who the first store is; the next ones have the numbers after it.
const FIRST_STORE: u128 = 0xab << 120 | 0x4d;

/// Most stores of one run.
const STORES_MAX: usize = 4;

/// What passes between the three.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// To the witness, and when the node heard it last.
    Ask(Box<Request>, Time),
    /// To a node: the witness lives and hears it.
    Tick,
    /// To a node.
    Tell(Box<(RequestId, Reply)>),
    /// To a node.
    Push(Box<ArbiterRecord>),
    /// From a node to its peer: it lives, may want a lease, and hears the peer or not; and what it says
    /// of itself beside.
    Beat {
        wants_lease: Option<(Instance, Epoch)>,
        released: Option<(Instance, Epoch)>,
        sent: Instant,
        hears_you: bool,
        word: PeerWord,
    },
    /// The lease that was asked for then is granted.
    Grant { asked: Instant },
    /// That run of the primary asks its peer to veto itself.
    Outdate { by: Instance, ask: OutdateAsk },
    /// It has.
    Outdated(OutdateAnswer),
    /// From the supervisor of a worker that died, to the peer.
    Release(LastWord),
}

/// A party.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Party {
    Node(usize),
    /// One of the witness's machines.
    Witness(usize),
}

/// What happens here.
#[derive(Clone, Debug)]
pub(crate) enum WitnessEvent {
    Arrive {
        from: Party,
        to: Party,
        message: Message,
    },
    Stored {
        store: usize,
        life: u64,
    },
    Timer {
        store: usize,
        life: u64,
        timer: ArbiterTimer,
        setting: u64,
    },
    Beat {
        node: usize,
        life: u64,
    },
    Wake {
        node: usize,
        life: u64,
    },
    Supervisor(SupervisorEvent),
    Cut,
    Kill,
    Start,
    /// It is replaced by one with an empty store.
    Replace,
    /// That node's connection leads to that store from now on.
    Route {
        node: usize,
        store: usize,
    },
}

impl Witness {
    pub(crate) fn new(rng: Rng) -> Self {
        Self {
            rng,
            stores: vec![Store::default()],
            route: [0; 2],
            cut_until: [[0; 2]; 2],
            held: [None, None],
        }
    }
}

impl World {
    /// Nothing passes from that node to the witness (way 0) or back (way 1) any more.
    pub(crate) fn cut_witness(&mut self, node: usize, way: usize) {
        self.witness.cut_until[node][way] = Time::MAX;
    }

    /// Requests and replies of `node` wait from now on, or come now.
    pub(crate) fn hold_exchanges_of(&mut self, node: usize, is_held: bool) {
        let waiting = std::mem::replace(&mut self.witness.held[node], is_held.then(Vec::new));
        for message in waiting.into_iter().flatten() {
            self.say(Party::Node(node), Party::Node(1 - node), &message);
        }
    }

    /// The witness ends without warning and stays down.
    pub(crate) fn kill_witness(&mut self) {
        for store in &mut self.witness.stores {
            store.storing = None;
            store.seat = None;
            store.life += 1;
        }
    }

    /// The witness is replaced by one that knows nothing; the old one runs on. Each node is led to the
    /// new one by itself.
    pub(crate) fn replace_witness(&mut self) {
        self.witness.stores.push(Store::default());
        self.after(0, Event::Witness(WitnessEvent::Start));
    }

    /// That node finds this store from now on: the first one is number 0.
    pub(crate) fn lead_to_store(&mut self, node: usize, store: usize) {
        let before = std::mem::replace(&mut self.witness.route[node], store);
        // Its connection to the one before ends.
        if before != store
            && let Some(seat) = &mut self.witness.stores[before].seat
        {
            seat.forget_half(side(node));
        }
    }

    /// What that node's connection leads to.
    pub(crate) fn witness_of(&self, node: usize) -> Party {
        Party::Witness(self.witness.route[node])
    }

    /// An older copy of its store is put back while the witness is down.
    pub(crate) fn roll_witness_back(&mut self, record: ArbiterRecord) {
        let store = self.witness.stores.last_mut().expect("there is one");
        assert!(store.seat.is_none(), "it runs");
        store.disk = Some(record);
    }

    /// What the newest witness has stored.
    pub(crate) fn witness_record(&self) -> Option<&ArbiterRecord> {
        self.witness.stores.last().and_then(|store| store.disk.as_ref())
    }

    /// The place of the newest store.
    pub(crate) fn newest_store(&self) -> usize {
        self.witness.stores.len() - 1
    }

    /// What that store has: the first one is number 0.
    pub(crate) fn witness_record_of_store(&self, store: usize) -> Option<&ArbiterRecord> {
        self.witness.stores[store].disk.as_ref()
    }

    /// What the store has that `node` believes.
    pub(crate) fn witness_record_of(&self, node: usize) -> Option<&ArbiterRecord> {
        let believed = self.nodes[node].superblock().arbitration.arbiter;
        if believed == ArbiterId(0) {
            return self.witness_record();
        }
        let records = self.witness.stores.iter().filter_map(|store| store.disk.as_ref());
        records.into_iter().find(|record| record.arbiter == believed)
    }

    /// The same, if the node can still be led to it: once everything is mended there is one witness, and
    /// those before it are gone for good.
    pub(crate) fn lasting_record_of(&self, node: usize) -> Option<&ArbiterRecord> {
        let record = self.witness_record_of(node)?;
        let newest = self.witness_record().map(|newest| newest.arbiter);
        (!self.is_healing || newest == Some(record.arbiter)).then_some(record)
    }

    /// The witness starts.
    pub(crate) fn begin_witness(&mut self) {
        if self.plan.witness.is_some() {
            self.after(0, Event::Witness(WitnessEvent::Start));
        }
    }

    pub(crate) fn begin_witness_faults(&mut self) {
        let Some(plan) = self.plan.witness.clone() else { return };
        for (mean, event) in [
            (plan.cut, WitnessEvent::Cut),
            (plan.kill, WitnessEvent::Kill),
            (plan.replace, WitnessEvent::Replace),
        ] {
            if let Some(mean) = mean {
                let delay = self.witness.rng.u64(0..2 * nanos(mean));
                self.after(delay, Event::Witness(event));
            }
        }
    }

    /// The witness runs, and that node reaches it; another one that was cut off does not.
    pub(crate) fn heal_witness_for(&mut self, node: usize) {
        let mut cuts = self.witness.cut_until;
        cuts[node] = [0; 2];
        self.heal_witness();
        self.witness.cut_until = cuts;
    }

    pub(crate) fn heal_witness(&mut self) {
        self.witness.cut_until = [[0; 2]; 2];
        for node in 0..2 {
            self.lead_to_store(node, self.witness.stores.len() - 1);
        }
        if self.plan.witness.is_some() {
            self.after(0, Event::Witness(WitnessEvent::Start));
        }
    }

    pub(crate) fn on_witness_event(&mut self, event: WitnessEvent) -> Checked {
        match event {
            WitnessEvent::Arrive { from, to, message } => self.on_arrive(from, to, message),
            WitnessEvent::Stored { store: at, life } if life == self.witness.stores[at].life => {
                let store = &mut self.witness.stores[at];
                store.disk = store.storing.take().or(store.disk.take());
                self.step_witness(at, ArbiterInput::Stored(true));
                self.check_lone_primary()
            }
            WitnessEvent::Timer { store: at, life, timer, setting } => {
                let store = &self.witness.stores[at];
                if life == store.life && store.timers.get(&timer) == Some(&setting) {
                    self.step_witness(at, ArbiterInput::Timer(timer));
                }
                Ok(())
            }
            WitnessEvent::Stored { .. } => Ok(()),
            WitnessEvent::Beat { node, life } => self.on_beat(node, life),
            WitnessEvent::Wake { node, life } => {
                if self.nodes[node].life == life {
                    self.fire_timers(node)
                } else {
                    Ok(())
                }
            }
            WitnessEvent::Supervisor(event) => {
                self.on_supervisor(event);
                Ok(())
            }
            WitnessEvent::Cut => {
                self.witness_fault(WitnessEvent::Cut);
                if !self.is_healing {
                    let node = self.witness.rng.usize(..2);
                    let until = self.now + self.witness.rng.u64(millis(50)..millis(9_000));
                    let which = self.witness.rng.u8(..4);
                    for way in 0..2 {
                        if which >= 2 || usize::from(which) == way {
                            self.witness.cut_until[node][way] = until;
                        }
                    }
                }
                Ok(())
            }
            WitnessEvent::Kill => {
                self.kill_at_random();
                Ok(())
            }
            WitnessEvent::Start => {
                for at in 0..self.witness.stores.len() {
                    self.start_store(at);
                }
                Ok(())
            }
            WitnessEvent::Replace => {
                self.replace_at_random();
                Ok(())
            }
            WitnessEvent::Route { node, store } => {
                let newest = self.witness.stores.len() - 1;
                self.lead_to_store(node, if self.is_healing { newest } else { store });
                Ok(())
            }
        }
    }

    fn kill_at_random(&mut self) {
        self.witness_fault(WitnessEvent::Kill);
        if !self.is_healing {
            self.trace.note(&[self.now, 80], || format!("{}: the witness dies", self.now));
            for store in &mut self.witness.stores {
                // What was on its way to the disk is there, or not.
                if self.witness.rng.bool()
                    && let Some(record) = store.storing.take()
                {
                    store.disk = Some(record);
                }
                store.storing = None;
                store.seat = None;
                store.life += 1;
            }
            let delay = self.witness.rng.u64(millis(10)..millis(8_000));
            self.after(delay, Event::Witness(WitnessEvent::Start));
        }
    }

    fn replace_at_random(&mut self) {
        self.witness_fault(WitnessEvent::Replace);
        if !self.is_healing && self.witness.stores.len() < STORES_MAX {
            self.trace.note(&[self.now, 83], || format!("{}: another witness", self.now));
            self.marks.add("witness replaced");
            self.replace_witness();
            for node in 0..2 {
                // Each finds it when it connects again, and may be led back once.
                let (newest, before) = (self.witness.stores.len() - 1, self.witness.route[node]);
                let returns = self.witness.rng.u8(..3) == 0;
                let routes: &[usize] = if returns { &[newest, before, newest] } else { &[newest] };
                let mut delay = 0;
                for store in routes {
                    delay += self.witness.rng.u64(0..millis(6_000));
                    let event = WitnessEvent::Route { node, store: *store };
                    self.after(delay, Event::Witness(event));
                }
            }
        }
    }

    fn start_store(&mut self, at: usize) {
        let store = &mut self.witness.stores[at];
        if store.seat.is_some() {
            return;
        }
        store.life += 1;
        let mut effects = Vec::new();
        let id = ArbiterId(FIRST_STORE + at as u128);
        store.seat = Some(Arbiter::new(id, store.disk.clone(), &mut effects));
        self.carry_out_witness(at, effects);
    }

    fn witness_fault(&mut self, event: WitnessEvent) {
        let Some(plan) = &self.plan.witness else { return };
        let mean = match event {
            WitnessEvent::Cut => plan.cut,
            WitnessEvent::Replace => plan.replace,
            _ => plan.kill,
        };
        if let Some(mean) = mean {
            let delay = self.witness.rng.u64(0..2 * nanos(mean));
            self.after(delay, Event::Witness(event));
        }
    }

    fn step_witness(&mut self, at: usize, input: ArbiterInput) {
        let now = Instant(self.now);
        self.trace.note(&[self.now, 81], || format!("{} W{at} <- {input:?}", self.now));
        let Some(seat) = &mut self.witness.stores[at].seat else { return };
        let mut effects = Vec::new();
        seat.step(now, input, &mut effects);
        self.carry_out_witness(at, effects);
    }

    fn carry_out_witness(&mut self, at: usize, effects: Vec<ArbiterEffect>) {
        for effect in effects {
            self.trace.note(&[self.now, 82], || format!("{} W{at} -> {effect:?}", self.now));
            match effect {
                ArbiterEffect::Store(record) => {
                    self.witness.stores[at].storing = Some(*record);
                    let delay = self.witness.rng.u64(100_000..millis(20));
                    let life = self.witness.stores[at].life;
                    self.after(delay, Event::Witness(WitnessEvent::Stored { store: at, life }));
                }
                ArbiterEffect::Reply { to, id, reply } => {
                    let message = Message::Tell(Box::new((id, reply)));
                    self.say(Party::Witness(at), Party::Node(index(to)), &message);
                }
                ArbiterEffect::Push(record) => {
                    for node in 0..2 {
                        let message = Message::Push(record.clone());
                        self.say(Party::Witness(at), Party::Node(node), &message);
                    }
                }
                ArbiterEffect::SetTimer { timer, after } => {
                    let store = &mut self.witness.stores[at];
                    store.settings += 1;
                    let (life, setting) = (store.life, store.settings);
                    store.timers.insert(timer, setting);
                    let event = WitnessEvent::Timer { store: at, life, timer, setting };
                    self.after(nanos(after), Event::Witness(event));
                }
            }
        }
    }

    /// Sends a datagram.
    pub(crate) fn say(&mut self, from: Party, to: Party, message: &Message) {
        if let (
            Party::Node(node),
            Message::Outdate { .. } | Message::Outdated(_) | Message::Release(_),
        ) = (from, message)
            && let Some(held) = &mut self.witness.held[node]
        {
            held.push(message.clone());
            return;
        }
        let trouble = self.plan.witness.as_ref().map_or(0, |plan| plan.trouble);
        let has_trouble = !self.is_healing && self.witness.rng.u8(..100) < trouble;
        let mut copies = 1;
        let mut latest = millis(3);
        if has_trouble {
            match self.witness.rng.u8(..3) {
                0 => copies = 0,
                1 => copies = 2,
                _ => {}
            }
            latest = millis(*self.witness.rng.choice(&[50, 1_000, 8_000]).unwrap());
        }
        for _ in 0..copies {
            let delay = self.witness.rng.u64(50_000..latest);
            let message = message.clone();
            self.after(delay, Event::Witness(WitnessEvent::Arrive { from, to, message }));
        }
    }

    fn is_reachable(&self, from: Party, to: Party) -> bool {
        match (from, to) {
            (Party::Node(from), Party::Node(_)) => {
                let is_apart = self.plan.witness.as_ref().is_some_and(|it| it.beats_pass_cuts);
                is_apart || !self.net.is_cut_from(from)
            }
            // A request that was on its way when the node was led elsewhere arrives all the same.
            (Party::Node(node), Party::Witness(_)) => self.now >= self.witness.cut_until[node][0],
            (Party::Witness(store), Party::Node(node)) => {
                self.witness.route[node] == store && self.now >= self.witness.cut_until[node][1]
            }
            (Party::Witness(_), Party::Witness(_)) => true,
        }
    }

    fn on_arrive(&mut self, from: Party, to: Party, message: Message) -> Checked {
        if !self.is_reachable(from, to) {
            return Ok(());
        }
        match (to, message) {
            // What arrives from a connection that has ended since is carried out, but no half outlives it.
            (Party::Witness(store), Message::Ask(request, _))
                if matches!(request.operation, Operation::Enroll(_))
                    && self.witness.route[index(request.from)] != store =>
            {
                Ok(())
            }
            (Party::Witness(store), Message::Ask(request, heard)) => {
                if self.now - heard > HEARD_MAX {
                    // Whoever does not hear the witness must not change its record: it would not
                    // learn that it did, and nobody could serve.
                    self.say(Party::Witness(store), from, &Message::Tick);
                } else {
                    self.step_witness(store, ArbiterInput::Request(request));
                }
                Ok(())
            }
            (Party::Node(at), message) => {
                let event = WitnessEvent::Arrive { from, to, message };
                if let Some(process) = &mut self.nodes[at].process
                    && process.is_paused
                {
                    process.deferred.push_back(Event::Witness(event));
                    return Ok(());
                }
                let WitnessEvent::Arrive { message, .. } = event else { return Ok(()) };
                self.on_told(at, message)
            }
            (Party::Witness(_), _) => Ok(()),
        }
    }

    fn on_told(&mut self, at: usize, message: Message) -> Checked {
        let now = self.now;
        let Some(process) = &mut self.nodes[at].process else { return Ok(()) };
        if let Message::Tell(_) | Message::Push(_) | Message::Tick = message {
            process.witness_heard = now;
        }
        let input = match message {
            Message::Tell(told) => ControllerInput::Reply { id: told.0, reply: told.1 },
            Message::Push(record) => ControllerInput::Pushed(record),
            Message::Beat { wants_lease, released, sent, hears_you, word } => {
                process.last_heard = now;
                if hears_you {
                    // A path that passes one way only is none.
                    process.last_up = now;
                }
                process.lease_asked = wants_lease.map(|_| sent).or(process.lease_asked);
                self.feed(at, Input::Controller(ControllerInput::PeerTold(word)))?;
                if let Some((instance, epoch)) = released {
                    let released = ControllerInput::Released { instance, epoch };
                    self.feed(at, Input::Controller(released))?;
                }
                let Some((instance, epoch)) = wants_lease else { return Ok(()) };
                ControllerInput::LeaseAsked { instance, epoch }
            }
            Message::Grant { asked } => ControllerInput::LeaseGranted { asked },
            Message::Outdate { .. } if !process.has_fresh_echo(now) => return Ok(()),
            Message::Outdate { by, ask } => {
                let news = OutdateNews::Asked { by, ask };
                return self.feed(at, Input::Outdate(news));
            }
            // For another run: a driver does not pass it on.
            Message::Outdated(answer) if answer.to != process.core.instance() => return Ok(()),
            Message::Outdated(OutdateAnswer { ask, promised, .. }) => {
                self.marks.add("veto by datagram");
                let news = OutdateNews::Answered { ask, promised };
                return self.feed(at, Input::Outdate(news));
            }
            Message::Release(LastWord { instance, epoch }) => {
                self.marks.add("release by a supervisor");
                ControllerInput::Released { instance, epoch }
            }
            Message::Ask(..) | Message::Tick => return Ok(()),
        };
        self.feed(at, Input::Controller(input))
    }

    /// A request or reply beside the beats. A request is repeated with each of them.
    pub(crate) fn order_outdate(&mut self, at: usize, order: OutdateOrder) {
        match order {
            OutdateOrder::Ask(ask) => {
                if let Some(process) = &mut self.nodes[at].process {
                    process.outdate_asked = ask;
                }
                self.say_outdate(at);
            }
            OutdateOrder::Answer(answer) => {
                let message = Message::Outdated(answer);
                self.say(Party::Node(at), Party::Node(1 - at), &message);
            }
        }
    }

    fn say_outdate(&mut self, at: usize) {
        let Some(process) = &self.nodes[at].process else { return };
        if let Some(ask) = process.outdate_asked
            && process.has_fresh_echo(self.now)
        {
            let by = process.core.instance();
            self.say(Party::Node(at), Party::Node(1 - at), &Message::Outdate { by, ask });
        }
    }

    /// The peer's request for a lease is granted.
    pub(crate) fn grant_lease(&mut self, at: usize) {
        let asked = self.nodes[at].process.as_mut().and_then(|process| process.lease_asked.take());
        if let Some(asked) = asked {
            self.say(Party::Node(at), Party::Node(1 - at), &Message::Grant { asked });
        }
    }

    /// A node begins to send heartbeats.
    pub(crate) fn begin_beats(&mut self, node: usize) {
        if self.plan.witness.is_some() || self.plan.alone.is_some() {
            let life = self.nodes[node].life;
            let delay = self.witness.rng.u64(0..BEAT);
            self.after(delay, Event::Witness(WitnessEvent::Beat { node, life }));
        }
    }

    fn on_beat(&mut self, node: usize, life: u64) -> Checked {
        if self.nodes[node].life != life {
            return Ok(());
        }
        let (now, clock) = (self.now, self.nodes[node].clock(self.now));
        self.after(BEAT, Event::Witness(WitnessEvent::Beat { node, life }));
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        if process.is_paused {
            return Ok(());
        }
        // What was missed while this process slept is not silence.
        let slept = now - process.last_beat > 2 * BEAT;
        process.last_beat = now;
        if slept {
            let lately = now.saturating_sub(SUSPECT_AFTER / 2);
            process.last_heard = process.last_heard.max(lately);
            process.last_up = process.last_up.max(lately);
        }
        let hears_you = now - process.last_heard < SUSPECT_AFTER;
        let is_silent = now - process.last_up >= SUSPECT_AFTER;
        let has_changed = process.is_silent != is_silent;
        process.is_silent = is_silent;
        let core = &process.core;
        let wants_lease = core.wants_lease().then(|| (core.instance(), core.superblock().epoch));
        let word = core.word_to_peer();
        let released = core.released().map(|epoch| (core.instance(), epoch));
        let message = Message::Beat { wants_lease, released, sent: clock, hears_you, word };
        self.say(Party::Node(node), Party::Node(1 - node), &message);
        self.say_outdate(node);
        if has_changed {
            self.feed(node, Input::Controller(ControllerInput::Silent(is_silent)))?;
        }
        Ok(())
    }

    /// Sets a timer of a core; it is looked at before whatever the core is told.
    pub(crate) fn set_timer(
        &mut self,
        at: usize,
        timer: ControllerTimer,
        from: Instant,
        after: Duration,
    ) {
        let clock = self.nodes[at].clock(self.now);
        let life = self.nodes[at].life;
        let due = from.plus(after);
        let rate = self.plan.clock_rates[at];
        let Some(process) = &mut self.nodes[at].process else { return };
        process.timers.insert(timer, due);
        let left = nanos(due.since(clock)) * 1000 / rate + 2_000;
        self.after(left, Event::Witness(WitnessEvent::Wake { node: at, life }));
    }

    /// Fires what is due by the node's own clock.
    pub(crate) fn fire_timers(&mut self, at: usize) -> Checked {
        let clock = self.nodes[at].clock(self.now);
        loop {
            let Some(process) = &mut self.nodes[at].process else { return Ok(()) };
            if process.is_paused {
                return Ok(());
            }
            let due = process.timers.iter().find(|(_, due)| **due <= clock).map(|(it, _)| *it);
            let Some(timer) = due else { return Ok(()) };
            process.timers.remove(&timer);
            self.step(at, Input::Controller(ControllerInput::Timer(timer)))?;
        }
    }
}
