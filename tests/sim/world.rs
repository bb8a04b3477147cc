//! Everything of one seed, and the events that move it.
//!
//! This does what `daemon` does, around the real core: it feeds inputs and carries out effects. One
//! thread, virtual time, one queue of events; equal moments go in the order they were scheduled.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use hotpair::metadata::Birth;
use hotpair::promotion::fencing::{FenceAnswer, FenceOrder};
use hotpair::replica::{Input, LinkId};
use hotpair::units::{ResourceSize, SessionId};

use crate::broken::{Broken, Checked};
use crate::checks::Differences;
use crate::clients::Clients;
use crate::faults::Fault;
use crate::ghost::Ghost;
use crate::io::End;
use crate::load::{self, Spot};
use crate::marks::Marks;
use crate::net::{Net, NetEvent, Time, Wire};
use crate::node::{Node, id};
use crate::operator::Operator;
use crate::pacemaker::Cluster;
use crate::plan::{Part, Plan, generator, side};
use crate::services::Services;
use crate::trace::{Lines, Trace};
use crate::witness::{Witness, WitnessEvent};

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    Tick {
        node: usize,
        life: u64,
    },
    Io {
        node: usize,
        life: u64,
        io: u64,
    },
    FreshId {
        node: usize,
        life: u64,
    },
    ClientsGone {
        node: usize,
        life: u64,
    },
    Services {
        node: usize,
        life: u64,
        run: u64,
        fails: bool,
    },
    Register {
        node: usize,
        life: u64,
        says: RegisterSays,
    },
    FenceCuts {
        node: usize,
        life: u64,
        run: u64,
        answer: FenceAnswer,
    },
    FenceAnswers {
        node: usize,
        life: u64,
        run: u64,
        answer: FenceAnswer,
    },
    ScriptActs {
        node: usize,
        life: u64,
        order: FenceOrder,
        hangs: bool,
        seen: Option<(usize, u64)>,
    },
    Net(NetEvent),
    Dial,
    Client(usize),
    Fault(Fault),
    Start(usize),
    Resume(usize),
    Mend(usize),
    Operator,
    Witness(WitnessEvent),
}

/// What the driver of a register says.
#[derive(Clone, Debug)]
pub(crate) enum RegisterSays {
    Admit,
    Settled(Result<(), String>),
    FellBack,
}

/// Time between ticks.
const TICK: Time = 50_000_000;

/// More than any load makes.
const EVENTS_PER_SECOND_MAX: u64 = 2_000_000;

/// One seed.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now: Time,
    queue: BTreeMap<(Time, u64), Event>,
    scheduled: u64,
    /// When the last second began, and how many events had been scheduled then.
    second: (Time, u64),
    pub(crate) nodes: [Node; 2],
    pub(crate) net: Net,
    pub(crate) clients: Clients,
    pub(crate) ghost: Ghost,
    pub(crate) operator: Operator,
    pub(crate) witness: Witness,
    pub(crate) services: [Services; 2],
    /// The newest run of each node's fence command.
    pub(crate) fence_runs: [u64; 2],
    /// Under Pacemaker: what that knows.
    pub(crate) cluster: Cluster,
    pub(crate) differences: Differences,
    pub(crate) trace: Trace,
    pub(crate) disk_rng: Rng,
    pub(crate) process_rng: Rng,
    pub(crate) order_rng: Rng,
    /// No dialing before this moment: a side asked for it.
    pub(crate) back_off_until: Time,
    /// How often rare paths ran.
    pub(crate) marks: Marks,
    /// Nodes that go on alone because the other one cannot be a candidate, as they were told.
    pub(crate) counts_on_veto: [bool; 2],
    /// Chaos is over: no more faults.
    pub(crate) is_healing: bool,
    /// Of registers: whether targets have staged what the source's says.
    pub(crate) admits: bool,
    /// Of registers: how the last of what clients did is brought to the peer; `None`: not at all.
    pub(crate) settles: Option<Result<(), String>>,
    /// Sessions in which that was said, by node.
    pub(crate) admitted: [Option<SessionId>; 2],
}

/// A duration in the simulator's nanoseconds.
pub(crate) fn nanos(duration: Duration) -> Time {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// So many milliseconds.
pub(crate) fn millis(count: u64) -> Time {
    count * 1_000_000
}

impl World {
    /// A pair whose first node was made from an image, and whose second one joins it.
    pub(crate) fn new(plan: Plan, lines: Option<Lines>) -> Self {
        let size = ResourceSize::new(plan.size).expect("drawn inside the limits");
        let mut rng = generator(plan.seed, Part::Spots);
        let spots = load::draw_spots(&plan.load, size, &mut rng);
        let late = load::draw_late_spots(plan.size, &plan.grown, &mut rng);
        Self::with_spots(plan, spots, late, lines)
    }

    /// The same, with clients that write there; in `late` once the resource has grown.
    pub(crate) fn with_spots(
        plan: Plan,
        spots: Vec<Spot>,
        late: Vec<Spot>,
        lines: Option<Lines>,
    ) -> Self {
        let seed = plan.seed;
        let size = ResourceSize::new(plan.size).expect("drawn inside the limits");
        let mut process_rng = generator(seed, Part::Process);
        let clients_rng = generator(seed, Part::Clients);
        let run = u32::try_from(seed & 0xffff_ffff).unwrap();
        let mut nodes = [0, 1].map(|at| {
            let settings = plan.settings(side(at));
            Node::new(settings, size, plan.clock_rates[at], &mut process_rng)
        });
        for spot in &spots {
            let content = load::first_content(spot, run);
            nodes[0].files.data.write(spot.start, &content, &mut |_| true);
        }
        let newest = nodes[0].files.data.newest();
        nodes[0].files.data.sync(newest);
        let resource_id = id(&mut process_rng);
        nodes[0].init(Birth::This, resource_id, &mut process_rng);
        nodes[1].init(Birth::Peer, resource_id, &mut process_rng);
        let mut differences = Differences::default();
        differences.begin(&mut nodes);
        Self {
            now: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            second: (0, 0),
            nodes,
            net: Net::new(draw_wire(&plan), generator(seed, Part::Net)),
            ghost: Ghost::new(run, &plan, &spots, &late),
            clients: Clients::new(&plan, run, [spots, late].concat(), clients_rng),
            operator: Operator::new(generator(seed, Part::Operator)),
            witness: Witness::new(generator(seed, Part::Witness)),
            services: Default::default(),
            fence_runs: [0; 2],
            cluster: Cluster::new(generator(seed, Part::Cluster)),
            differences,
            trace: Trace::new(lines),
            disk_rng: generator(seed, Part::Disk),
            process_rng,
            order_rng: generator(seed, Part::Order),
            back_off_until: 0,
            marks: Marks::default(),
            counts_on_veto: [false; 2],
            is_healing: false,
            admits: true,
            settles: Some(Ok(())),
            admitted: [None; 2],
            plan,
        }
    }

    /// Lets `event` happen after so long.
    pub(crate) fn after(&mut self, delay: Time, event: Event) {
        self.scheduled += 1;
        self.queue.insert((self.now + delay, self.scheduled), event);
    }

    /// Runs until the moment `end`.
    pub(crate) fn run_until(&mut self, end: Time) -> Checked {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > end {
                break;
            }
            self.now = entry.key().0;
            if self.now - self.second.0 >= millis(1_000) {
                self.second = (self.now, self.scheduled);
            } else if self.scheduled - self.second.1 > EVENTS_PER_SECOND_MAX {
                return Err(Broken::new("Storm", "something asks without end"));
            }
            let event = entry.remove();
            self.on_event(event)?;
            for (at, event) in std::mem::take(&mut self.net.due) {
                self.after(at.saturating_sub(self.now), Event::Net(event));
            }
        }
        self.now = end;
        Ok(())
    }

    fn on_event(&mut self, event: Event) -> Checked {
        let Some(event) = self.defer_if_paused(event) else { return Ok(()) };
        match event {
            Event::Tick { node, life } if self.lives(node, life) => {
                self.after(TICK, Event::Tick { node, life });
                self.feed(node, Input::Tick)?;
                self.note_services(node);
                self.check_tick(node)
            }
            Event::Io { node, life, io } if self.lives(node, life) => self.on_io(node, io),
            Event::FreshId { node, life } if self.lives(node, life) => {
                let fresh = id(&mut self.process_rng);
                self.feed(node, Input::FreshId(fresh))
            }
            Event::ClientsGone { node, life } if self.lives(node, life) => {
                self.feed(node, Input::ClientsGone)
            }
            Event::Services { node, life, run, fails } if self.lives(node, life) => {
                self.on_services(node, run, fails)
            }
            Event::Register { node, life, says } if self.lives(node, life) => {
                self.feed(node, says.input())
            }
            Event::FenceAnswers { node, life, run, answer } if self.lives(node, life) => {
                self.on_fence_answers(node, run, answer)
            }
            Event::FenceCuts { node, life, run, answer } => {
                self.on_fence_cuts((node, life, run), answer)
            }
            Event::ScriptActs { node, life, order, hangs, seen } => {
                self.on_script_acts((node, life, order), hangs, seen);
                Ok(())
            }
            Event::Tick { .. }
            | Event::FenceAnswers { .. }
            | Event::Services { .. }
            | Event::Register { .. }
            | Event::Io { .. }
            | Event::FreshId { .. }
            | Event::ClientsGone { .. } => Ok(()),
            Event::Net(event) => self.on_net(event),
            Event::Dial => self.on_dial(),
            Event::Client(client) => self.on_client_turn(client),
            Event::Fault(fault) => self.on_fault(fault),
            Event::Start(node) => self.on_start(node),
            Event::Resume(node) => {
                self.on_resume(node);
                Ok(())
            }
            Event::Mend(from) => {
                self.net.mend(self.now, from);
                Ok(())
            }
            Event::Operator => self.on_operator_turn(),
            Event::Witness(event) => self.on_witness_event(event),
        }
    }

    /// What a paused process would see waits for it.
    fn defer_if_paused(&mut self, event: Event) -> Option<Event> {
        let node = match &event {
            Event::Tick { node, .. }
            | Event::Io { node, .. }
            | Event::FreshId { node, .. }
            | Event::ClientsGone { node, .. }
            | Event::FenceAnswers { node, .. }
            | Event::Register { node, .. }
            | Event::Services { node, .. } => *node,
            Event::Net(NetEvent::Arrive { to: node, .. } | NetEvent::Reset { at: node, .. }) => {
                *node
            }
            Event::Dial
            | Event::FenceCuts { .. }
            | Event::ScriptActs { .. }
            | Event::Client(_)
            | Event::Fault(_)
            | Event::Start(_)
            | Event::Resume(_)
            | Event::Mend(_)
            | Event::Witness(_)
            | Event::Operator => return Some(event),
        };
        match &mut self.nodes[node].process {
            Some(process) if process.is_paused => {
                process.deferred.push_back(event);
                None
            }
            _ => Some(event),
        }
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        self.nodes[node].process.is_some() && self.nodes[node].life == life
    }

    fn on_io(&mut self, at: usize, io: u64) -> Checked {
        let (now, life) = (self.now, self.nodes[at].life);
        let stalled_until = self.nodes[at].trouble.stalled_until;
        if now < stalled_until {
            self.after(stalled_until - now, Event::Io { node: at, life, io });
            return Ok(());
        }
        let node = &mut self.nodes[at];
        let Some(work) = node.process.as_mut().and_then(|process| process.io.remove(&io)) else {
            return Ok(());
        };
        let end = work.draw_end(now, node, &mut self.disk_rng);
        if end != End::Well {
            self.trace.note(&[now, 77], || format!("{at}: {end:?}: {work:?}"));
        }
        let done = work.finish(end, node, &mut self.disk_rng);
        if let Some(process) = &mut node.process {
            process.found.extend(done.found);
            if let Some(map) = done.map {
                process.core.hand_map(map);
            }
        }
        self.feed(at, done.input)
    }

    fn on_net(&mut self, event: NetEvent) -> Checked {
        if !self.net.lets_through(event) {
            return Ok(());
        }
        match event {
            NetEvent::Arrive { link, to } => {
                let received = self.net.arrive(self.now, to, link, self.nodes[to].size);
                for frame in received.frames {
                    if self.net.is_open(to, link) {
                        self.feed(to, Input::Peer { link, frame })?;
                    }
                }
                if received.is_over && self.net.is_open(to, link) {
                    self.net.drop_end(self.now, to, link);
                    self.lose_link(to, link)?;
                }
                Ok(())
            }
            NetEvent::Reset { link, at } => {
                let is_open = self.net.is_open(at, link);
                if is_open {
                    self.net.close(self.now, at, link);
                    self.lose_link(at, link)?;
                }
                Ok(())
            }
        }
    }

    fn lose_link(&mut self, at: usize, link: LinkId) -> Checked {
        let Some(process) = &mut self.nodes[at].process else { return Ok(()) };
        if process.link != Some(link) {
            return Ok(());
        }
        process.link = None;
        self.feed(at, Input::LinkLost { link })
    }

    /// The first node dials, when it has no connection and both want one.
    fn on_dial(&mut self) -> Checked {
        let pause = self.process_rng.u64(millis(20)..millis(400));
        self.after(pause, Event::Dial);
        self.net.forget_closed();
        let wants = |node: &Node| node.awake().is_some_and(|process| process.wants_link);
        let is_free = self.nodes[0].awake().is_some_and(|process| process.link.is_none());
        if !is_free || !self.nodes.iter().all(wants) || self.now < self.back_off_until {
            return Ok(());
        }
        let Some(link) = self.net.connect() else { return Ok(()) };
        let first = usize::from(self.process_rng.bool());
        for at in [first, 1 - first] {
            let old = self.nodes[at].process.as_ref().and_then(|process| process.link);
            if let Some(old) = old {
                self.net.drop_end(self.now, at, old);
                self.lose_link(at, old)?;
            }
        }
        for at in [first, 1 - first] {
            let Some(process) = &mut self.nodes[at].process else { continue };
            process.link = Some(link);
            let mut nonce = [0; 32];
            self.process_rng.fill(&mut nonce);
            self.feed(at, Input::LinkUp { link, nonce, exporter: [0; 32] })?;
        }
        Ok(())
    }

    /// Starts the process of a node, unless it runs or must not.
    pub(crate) fn on_start(&mut self, at: usize) -> Checked {
        if self.nodes[at].process.is_some() || self.nodes[at].is_held_down {
            return Ok(());
        }
        self.net.node_back(at);
        self.joins_cluster(at);
        self.trace.note(&[self.now, 90], || format!("{at}: starts"));
        self.nodes[at].start(self.now, self.plan.log_slots, &mut self.process_rng)?;
        let life = self.nodes[at].life;
        self.collect_changes(at)?;
        self.check_all_differences()?;
        self.feed(at, Input::Started)?;
        let offset = self.process_rng.u64(0..TICK);
        self.after(offset, Event::Tick { node: at, life });
        self.begin_beats(at);
        Ok(())
    }

    /// Compares the two data files whole, after one of them was replaced.
    pub(crate) fn compare_all(&mut self) {
        self.differences = Differences::default();
        self.differences.begin(&mut self.nodes);
    }

    fn on_resume(&mut self, at: usize) {
        let Some(process) = &mut self.nodes[at].process else { return };
        process.is_paused = false;
        for event in std::mem::take(&mut process.deferred) {
            self.after(0, event);
        }
    }

    /// Feeds one input, then what clients have sent meanwhile.
    pub(crate) fn feed(&mut self, at: usize, input: Input) -> Checked {
        self.fire_timers(at)?;
        self.step(at, input)?;
        self.pump_requests(at)
    }

    /// One step of a core, and its effects.
    pub(crate) fn step(&mut self, at: usize, input: Input) -> Checked {
        let node = &mut self.nodes[at];
        let clock = node.clock(self.now);
        let Some(process) = &mut node.process else { return Ok(()) };
        let numbers = [self.now, u64::try_from(at).unwrap(), crate::effects::input_code(&input)];
        self.trace.note(&numbers, || format!("{} {at} <- {input:?}", self.now));
        let is_record = matches!(input, Input::Metadata { .. });
        let was = is_record.then(|| process.core.superblock().clone());
        let mut effects = Vec::new();
        process.core.step(clock, input, &mut effects);
        node.size = process.core.size();
        self.carry_out(at, effects)?;
        if let Some(old) = was {
            self.check_record(at, &old)?;
        }
        self.collect_changes(at)?;
        self.admit(at);
        self.end_if_stopped(at)
    }

    pub(crate) fn draw_id(&mut self, at: usize) {
        let life = self.nodes[at].life;
        self.after(1_000, Event::FreshId { node: at, life });
    }

    /// The driver of a register brings the last of what clients did to the peer, or cannot.
    pub(crate) fn settle(&mut self, at: usize) {
        if let Some(result) = self.settles.clone() {
            let (life, says) = (self.nodes[at].life, RegisterSays::Settled(result));
            self.after(millis(1), Event::Register { node: at, life, says });
        }
    }

    /// The driver of a register says once in each session that a transfer may go on.
    fn admit(&mut self, at: usize) {
        if !self.plan.is_register || !self.admits {
            return;
        }
        let following = self.nodes[at].core().and_then(hotpair::replica::Replica::following);
        let Some(session) = following.filter(|it| it.is_source).map(|it| it.session) else {
            return;
        };
        if self.admitted[at].replace(session) != Some(session) {
            let life = self.nodes[at].life;
            self.after(millis(1), Event::Register { node: at, life, says: RegisterSays::Admit });
        }
    }
}

impl RegisterSays {
    fn input(self) -> Input {
        match self {
            Self::Admit => Input::Admit,
            Self::Settled(result) => Input::Settled { result },
            Self::FellBack => Input::FellBack { why: "it was told to".to_owned() },
        }
    }
}

fn draw_wire(plan: &Plan) -> Wire {
    let mut rng = generator(plan.seed, Part::Net);
    if plan.faults.slow_net {
        Wire {
            latency_max: millis(rng.u64(5..=80)),
            bytes_per_ms: rng.u64(200..=5_000),
            window: rng.usize(1..=64) << 10,
        }
    } else {
        Wire {
            latency_max: rng.u64(50_000..=2_000_000),
            bytes_per_ms: rng.u64(20_000..=1_000_000),
            window: 256 << 10,
        }
    }
}
