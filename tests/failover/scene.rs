//! A pair with a witness under load, and how often a case repeats.

#![expect(clippy::print_stdout, reason = "tools/failover reads the times")]

use std::time::{Duration, Instant};

use crate::oracle::ledger::Floor;
use crate::real::pair::{Node, Pair, Plan};
use crate::real::process;
use crate::real::record::Record;

/// The longest time for which writes may wait for a party that is lost or late: five times the lease of 3 s
/// and the second after which a silent party is suspected, since machines of tests are slow.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(20);

/// A pair that a witness watches.
pub(crate) struct Scene {
    pub(crate) pair: Pair,
    /// What its client did; taken while a load runs.
    pub(crate) record: Option<Record>,
    pub(crate) primary: usize,
}

impl Scene {
    /// Both nodes in sync, the first one primary.
    pub(crate) fn new(seed: u64) -> Self {
        Self::with(Plan { has_witness: true, ..Plan::default() }, seed)
    }

    pub(crate) fn with(plan: Plan, seed: u64) -> Self {
        let record = Record::new(plan.size, seed);
        let pair = Pair::start(plan, &record.first_image());
        let scene = Self { pair, record: Some(record), primary: 0 };
        scene.wait_eligible();
        scene
    }

    /// Waits until the secondary could take over: both are in sync and the arbiter knows.
    pub(crate) fn wait_eligible(&self) {
        self.pair.wait_in_sync();
        let node = &self.pair.nodes[1 - self.primary];
        self.pair.news.wait_for("the secondary to be eligible", || {
            let reaches =
                !self.pair.plan.has_arbiter() || self.pair.nodes.iter().all(Node::reaches_arbiter);
            let is_ready = reaches && node.field("/promotion/takes_over") == true;
            is_ready.then_some(())
        });
    }

    /// The epoch in which a node serves clients now.
    pub(crate) fn serves(&self, at: usize) -> Option<u64> {
        let status = self.pair.nodes[at].status()?;
        let state = &status["promotion"]["state"];
        let serves = status["serving"] == true && state != "withheld" && state != "frozen";
        serves.then(|| status["epoch"].as_u64().expect("an epoch"))
    }

    /// Panics if both nodes serve. One that serves in the same epoch before and after a look at the other
    /// did so all the time.
    pub(crate) fn never_two(&self) {
        let before = self.serves(0);
        if before.is_some() && self.serves(1).is_some() {
            assert_ne!(before, self.serves(0), "two primaries");
        }
    }

    /// Writes something and reads all of it back; what was acknowledged is there.
    pub(crate) fn serves_all(&mut self, at: usize) {
        let mut client = self.pair.nodes[at].connect();
        let record = self.record.as_mut().expect("no load runs");
        record.epoch_serves();
        record.read_whole(&client.read_all().unwrap());
        record.check_reads();
        self.primary = at;
    }

    /// Everything that must hold once both nodes are back and nobody writes.
    pub(crate) fn is_whole_again(&mut self) {
        self.wait_eligible();
        let record = self.record.as_mut().expect("no load runs");
        record.check_reads();
        let image = self.pair.equal_image();
        record.check_image("both data files", &image, Floor::Acknowledged);
        record.settle(&image);
    }
}

/// How often a measured case is repeated: `HOTPAIR_CYCLES`, else `count`.
pub(crate) fn cycles(count: u64) -> u64 {
    number("HOTPAIR_CYCLES", count)
}

/// A number that the environment says, else `usual`.
pub(crate) fn number(variable: &str, usual: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// What a case that draws begins with: `HOTPAIR_FIRST_SEED` (hexadecimal), else something new each time.
/// It is printed, so that the same can be drawn again.
pub(crate) fn first_seed() -> u64 {
    let text = std::env::var("HOTPAIR_FIRST_SEED").ok();
    let seed = text.map_or_else(
        || fastrand::u64(..),
        |text| {
            let seed = u64::from_str_radix(&text, 16);
            seed.unwrap_or_else(|error| panic!("HOTPAIR_FIRST_SEED={text}: {error}"))
        },
    );
    println!("HOTPAIR_FIRST_SEED={seed:x}");
    seed
}

/// Prints a measured time as `measured: NAME MILLISECONDS`.
pub(crate) fn measured(name: &str, took: Duration) {
    println!("measured: {name} {}", took.as_millis());
}

/// The time since `start`, on the clock of the tests.
pub(crate) fn since(start: Instant) -> Duration {
    process::now() - start
}
