//! What one seed is: the resource, its limits, the load and which faults happen how often.
//!
//! Each seed turns each class of faults on or off (swarm testing): a seed with everything on finds
//! less than many seeds with a few things each.

use std::time::Duration;

use fastrand::Rng;
use hotpair::promotion::controller::ControllerSettings;
use hotpair::replica::Settings;
use hotpair::units::{ReplicationMode, Side};

use crate::alone::{AlonePlan, draw_fence};
use crate::services::ServicesPlan;
use crate::witness::WitnessPlan;

/// The names of the parts that draw numbers, so that one part's draws do not move another's.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Plan,
    Spots,
    Disk,
    Net,
    Process,
    Clients,
    Operator,
    Order,
    Resize,
    Witness,
    Alone,
    Stores,
    Cluster,
}

/// The generator of one part of one seed.
pub(crate) fn generator(seed: u64, part: Part) -> Rng {
    let salt = u64::from(part as u8) + 1;
    Rng::with_seed(
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.wrapping_mul(0xd1b5_4a32_d192_ed03),
    )
}

/// Everything that is drawn once for a seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mode: ReplicationMode,
    pub(crate) flush_both: bool,
    pub(crate) size: u64,
    /// The sizes that an operator lets it grow to, one after the other.
    pub(crate) grown: Vec<u64>,
    pub(crate) log_slots: usize,
    pub(crate) limits: Limits,
    pub(crate) load: Load,
    pub(crate) faults: Faults,
    pub(crate) chaos: Duration,
    /// Clock rates of the two nodes in thousandths of the true rate.
    pub(crate) clock_rates: [u64; 2],
    /// With an arbiter: what goes wrong with it.
    pub(crate) witness: Option<WitnessPlan>,
    /// Without one: how a node is promoted all the same.
    pub(crate) alone: Option<AlonePlan>,
    /// With hooks.
    pub(crate) services: Option<ServicesPlan>,
    /// The data is the register of a directory. Only scenarios have one: its disk is not simulated.
    pub(crate) is_register: bool,
    /// The bug to be found.
    #[cfg(feature = "planted-bugs")]
    pub(crate) planted: Option<hotpair::replica::planted::Planted>,
}

/// Limits of the core that are shrunk, so that their edges are met.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) in_flight_parts_max: usize,
    pub(crate) in_flight_bytes_max: u64,
    pub(crate) unflushed_blocks_max: usize,
    pub(crate) unflushed_age: Duration,
    pub(crate) resync_chunks_max: usize,
    pub(crate) cool_after: Duration,
    pub(crate) checkpoint_every: Duration,
    pub(crate) gate_bytes: u64,
    pub(crate) at_risk_bytes: u64,
    pub(crate) at_risk_age: Duration,
    pub(crate) resync_rate: Option<u64>,
    pub(crate) zeroing_is_cheap: [bool; 2],
}

/// What clients do.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) depth_max: usize,
    pub(crate) operations_max: u64,
    /// Mean pause of a client between operations.
    pub(crate) pause: Duration,
    pub(crate) spots: usize,
    /// Of 100 operations each.
    pub(crate) reads: u8,
    pub(crate) zeroes: u8,
    pub(crate) flushes: u8,
    pub(crate) fua: u8,
}

/// Mean time between faults of each class; `None` if the class is off in this seed.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each class is on or off by itself")]
pub(crate) struct Faults {
    pub(crate) kill: Option<Duration>,
    pub(crate) power: Option<Duration>,
    pub(crate) power_both: Option<Duration>,
    pub(crate) pause: Option<Duration>,
    pub(crate) stop: Option<Duration>,
    pub(crate) cut: Option<Duration>,
    pub(crate) reset: Option<Duration>,
    pub(crate) flip: Option<Duration>,
    pub(crate) disk_error: Option<Duration>,
    pub(crate) sync_error: Option<Duration>,
    pub(crate) metadata_error: Option<Duration>,
    pub(crate) no_space: Option<Duration>,
    pub(crate) stall: Option<Duration>,
    pub(crate) slow_disk: bool,
    pub(crate) slow_net: bool,
    pub(crate) client_leaves: Option<Duration>,
    pub(crate) commands: Option<Duration>,
    pub(crate) failover: bool,
    pub(crate) accept_loss: bool,
    pub(crate) split_brain: bool,
    pub(crate) resize: Option<Duration>,
}

impl Plan {
    /// Draws everything of `seed`.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut rng = generator(seed, Part::Plan);
        let mode = match rng.u8(..10) {
            0..=5 => ReplicationMode::Sync,
            6..=7 => ReplicationMode::MemSync,
            _ => ReplicationMode::Async,
        };
        let drifts = rng.u8(..4) == 0;
        let mut rate = || if drifts { rng.u64(800..=1200) } else { 1000 };
        let clock_rates = [rate(), rate()];
        let flush_both = mode != ReplicationMode::Async || rng.bool();
        let mut plan = Self {
            seed,
            mode,
            flush_both,
            size: draw_size(&mut rng),
            grown: Vec::new(),
            log_slots: *rng.choice(&[2, 3, 4, 8, 64, 2048]).unwrap(),
            limits: Limits::draw(&mut rng),
            load: Load::draw(&mut rng),
            faults: Faults::draw(&mut rng),
            chaos: Duration::from_secs(*rng.choice(&[20, 40, 90, 180]).unwrap()),
            clock_rates,
            witness: None,
            alone: None,
            services: None,
            is_register: false,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        };
        plan.draw_resize();
        plan
    }

    /// The same seed, with an arbiter that promotes automatically.
    pub(crate) fn draw_with_witness(seed: u64) -> Self {
        let mut plan = Self::draw(seed);
        let mut rng = generator(seed, Part::Witness);
        plan.witness = Some(WitnessPlan {
            fence: draw_fence(&mut generator(seed, Part::Alone)),
            ..WitnessPlan::draw(&mut rng)
        });
        // Leases are for clocks that go equally fast, but for one in a hundred.
        plan.clock_rates = [rng.u64(996..=1004), rng.u64(996..=1004)];
        let faults = &mut plan.faults;
        (faults.accept_loss, faults.split_brain) = (false, false);
        plan.services = rng.bool().then(|| ServicesPlan::draw(&mut rng));
        let mut rng = generator(seed, Part::Stores);
        if rng.u8(..3) == 0
            && let Some(witness) = &mut plan.witness
        {
            witness.replace = Some(Duration::from_millis(rng.u64(2_000..=30_000)));
        }
        plan
    }

    /// The same seed without an arbiter, with nodes that promote themselves.
    pub(crate) fn draw_alone(seed: u64) -> Self {
        let mut plan = Self::draw(seed);
        let mut rng = generator(seed, Part::Alone);
        plan.alone = Some(AlonePlan::draw(&mut rng));
        plan.clock_rates = [rng.u64(990..=1010), rng.u64(990..=1010)];
        let faults = &mut plan.faults;
        (faults.accept_loss, faults.split_brain) = (false, false);
        plan
    }

    /// The same seed under Pacemaker.
    pub(crate) fn draw_with_pacemaker(seed: u64) -> Self {
        let mut rng = generator(seed, Part::Alone);
        let alone = Some(AlonePlan::draw_pacemaker(&mut rng));
        Self { alone, ..Self::draw_alone(seed) }
    }

    fn draw_resize(&mut self) {
        let mut rng = generator(self.seed, Part::Resize);
        if rng.u8(..3) == 0 {
            self.faults.resize = Some(Duration::from_millis(rng.u64(1..=20) * 1000));
            let mut size = self.size;
            for _ in 0..rng.u8(1..=3) {
                size += *rng.choice(&[1, 4096, 70_000, 5 << 20, 150 << 20]).unwrap();
                size += *rng.choice(&[0, 0, 33, 512]).unwrap();
                self.grown.push(size);
            }
        }
    }

    /// No faults, no load, usual limits: a script makes what happens.
    pub(crate) fn calm(mode: ReplicationMode, size: u64) -> Self {
        let millis = Duration::from_millis;
        Self {
            seed: 1,
            mode,
            flush_both: true,
            size,
            grown: Vec::new(),
            log_slots: 64,
            limits: Limits {
                in_flight_parts_max: 4096,
                in_flight_bytes_max: 64 << 20,
                unflushed_blocks_max: 65_536,
                unflushed_age: millis(1_000),
                resync_chunks_max: 128,
                cool_after: millis(5_000),
                checkpoint_every: millis(30_000),
                gate_bytes: 16 << 20,
                at_risk_bytes: 64 << 20,
                at_risk_age: millis(5_000),
                resync_rate: None,
                zeroing_is_cheap: [true; 2],
            },
            load: Load {
                clients: 1,
                depth_max: 32,
                operations_max: 0,
                pause: millis(20),
                spots: 0,
                reads: 0,
                zeroes: 0,
                flushes: 0,
                fua: 0,
            },
            faults: Faults::default(),
            chaos: Duration::ZERO,
            clock_rates: [1000; 2],
            witness: None,
            alone: None,
            services: None,
            is_register: false,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// The settings of one node.
    pub(crate) fn settings(&self, side: Side) -> Settings {
        let names = ["alpha", "beta"];
        let mine = index(side);
        let limits = &self.limits;
        Settings {
            side,
            cluster: "office".into(),
            node: names[mine].into(),
            peer: names[1 - mine].into(),
            resource: "vm1".into(),
            mode: self.mode,
            flush_both: self.flush_both,
            at_risk_bytes: limits.at_risk_bytes,
            at_risk_age: limits.at_risk_age,
            resync_rate: limits.resync_rate,
            settings_hash: 7,
            zeroing_is_cheap: limits.zeroing_is_cheap[mine],
            ping_interval: Duration::from_millis(200),
            suspect_after: Duration::from_secs(1),
            io_timeout: Duration::from_secs(3),
            in_flight_parts_max: limits.in_flight_parts_max,
            in_flight_bytes_max: limits.in_flight_bytes_max,
            unflushed_blocks_max: limits.unflushed_blocks_max,
            unflushed_age: limits.unflushed_age,
            resync_chunks_max: limits.resync_chunks_max,
            cool_after: limits.cool_after,
            checkpoint_every: limits.checkpoint_every,
            gate_bytes: limits.gate_bytes,
            prefer: self.witness.as_ref().and_then(|witness| witness.moving.prefer),
            is_register: self.is_register,
            has_services: self.services.is_some(),
            asks_by_datagram: self.witness.is_some() || self.alone.is_some(),
            controller: self.witness.as_ref().map(|witness| ControllerSettings {
                side,
                promotes: true,
                lease: witness.lease,
                arbiter_grace: witness.grace,
                stop_budget: self.services.as_ref().map_or(Duration::ZERO, |it| it.stop_within),
                fence: witness.fence.map(|(how, _)| how),
                identities: [[1; 32], [2; 32]],
                moving: witness.moving,
                #[cfg(feature = "planted-bugs")]
                planted: witness.planted,
            }),
            alone: self.alone.as_ref().map(|alone| alone.settings(side)),
            #[cfg(feature = "planted-bugs")]
            planted: self.planted,
        }
    }
}

/// Index of a node's place in arrays of two.
pub(crate) fn index(side: Side) -> usize {
    match side {
        Side::First => 0,
        Side::Second => 1,
    }
}

/// The place at that index.
pub(crate) fn side(index: usize) -> Side {
    if index == 0 { Side::First } else { Side::Second }
}

fn draw_size(rng: &mut Rng) -> u64 {
    let mebibytes = match rng.u8(..64) {
        0 => 1024,
        1..=4 => 256,
        5..=20 => 64,
        _ => *rng.choice(&[1, 3, 16, 32]).unwrap(),
    };
    let tail = *rng.choice(&[0, 0, 512, 511, 4000, 4095, 65_535, 33]).unwrap();
    (mebibytes << 20) + tail
}

impl Limits {
    fn draw(rng: &mut Rng) -> Self {
        let millis =
            |rng: &mut Rng, choices: &[u64]| Duration::from_millis(*rng.choice(choices).unwrap());
        Self {
            in_flight_parts_max: *rng.choice(&[1, 2, 8, 64, 4096, 4096]).unwrap(),
            in_flight_bytes_max: *rng.choice(&[1 << 20, 4 << 20, 64 << 20, 64 << 20]).unwrap(),
            unflushed_blocks_max: *rng.choice(&[1, 16, 256, 65_536, 65_536]).unwrap(),
            unflushed_age: millis(rng, &[50, 200, 1_000, 1_000]),
            resync_chunks_max: *rng.choice(&[1, 4, 128, 128]).unwrap(),
            cool_after: millis(rng, &[100, 1_000, 5_000]),
            checkpoint_every: millis(rng, &[300, 2_000, 30_000]),
            gate_bytes: *rng.choice(&[0, 64 << 10, 1 << 20, 16 << 20, 16 << 20]).unwrap(),
            at_risk_bytes: *rng.choice(&[4 << 10, 64 << 10, 1 << 20, 64 << 20]).unwrap(),
            at_risk_age: millis(rng, &[50, 500, 5_000]),
            resync_rate: (rng.u8(..6) == 0).then(|| rng.u64(1..=32) << 20),
            zeroing_is_cheap: [rng.bool(), rng.bool()],
        }
    }
}

impl Load {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            clients: rng.usize(1..=3),
            depth_max: *rng.choice(&[1, 4, 16, 32]).unwrap(),
            operations_max: *rng.choice(&[500, 2_000, 2_000, 4_000]).unwrap(),
            pause: Duration::from_micros(*rng.choice(&[200, 5_000, 20_000, 80_000]).unwrap()),
            spots: rng.usize(1..=40),
            reads: *rng.choice(&[10, 30, 60]).unwrap(),
            zeroes: *rng.choice(&[0, 6]).unwrap(),
            flushes: *rng.choice(&[0, 2, 10]).unwrap(),
            fua: *rng.choice(&[0, 5, 30]).unwrap(),
        }
    }
}

impl Faults {
    fn draw(rng: &mut Rng) -> Self {
        let class = |rng: &mut Rng, one_in: u8, seconds: std::ops::RangeInclusive<u64>| {
            (rng.u8(..one_in) == 0).then(|| Duration::from_millis(rng.u64(seconds) * 1000))
        };
        Self {
            kill: class(rng, 2, 2..=30),
            power: class(rng, 3, 5..=40),
            power_both: class(rng, 6, 10..=60),
            pause: class(rng, 4, 2..=30),
            stop: class(rng, 5, 5..=40),
            cut: class(rng, 2, 2..=30),
            reset: class(rng, 2, 1..=20),
            flip: class(rng, 5, 2..=20),
            disk_error: class(rng, 8, 5..=60),
            sync_error: class(rng, 8, 5..=60),
            metadata_error: class(rng, 10, 5..=60),
            no_space: class(rng, 8, 5..=40),
            stall: class(rng, 6, 5..=40),
            slow_disk: rng.u8(..5) == 0,
            slow_net: rng.u8(..5) == 0,
            client_leaves: class(rng, 4, 2..=20),
            commands: class(rng, 2, 1..=15),
            failover: rng.bool(),
            accept_loss: rng.u8(..8) == 0,
            split_brain: rng.u8(..20) == 0,
            resize: None,
        }
    }
}
