//! Many seeds, each a different world.
//!
//! `HOTPAIR_SEED=7f3a21` runs one seed and prints the last `HOTPAIR_LINES` lines of its trace; `HOTPAIR_SEEDS` is how many to run,
//! `HOTPAIR_SHRINK=1` first leaves out what it does not need,
//! `HOTPAIR_FIRST_SEED` where to begin, `HOTPAIR_SIM_SECONDS` when to stop early.

use std::env;
use std::process::Command;

use crate::marks::Marks;
use crate::plan::Plan;
use crate::run::{Outcome, last_lines, run};
use crate::shrink::shrink;

/// Lines of a trace that are printed.
const LINES_SHOWN: usize = 200;
/// Seeds of a run without further orders.
const SEEDS: u64 = 200;
/// How often a long run says how far it is.
const SEEDS_PER_LINE: u64 = 500;

/// One kind of world.
struct Kind {
    name: &'static str,
    /// `HOTPAIR_<this>SEED` runs one seed, `HOTPAIR_<this>SEEDS` is how many to run.
    variable: &'static str,
    test: &'static str,
    draw: fn(u64) -> Plan,
}

#[test]
fn fresh_seeds() {
    run_kind(&Kind { name: "sim", variable: "", test: "fresh_seeds", draw: Plan::draw });
}

/// Seeds with an arbiter.
#[test]
fn fresh_seeds_with_a_witness() {
    run_kind(&Kind {
        name: "witness",
        variable: "WITNESS_",
        test: "fresh_seeds_with_a_witness",
        draw: Plan::draw_with_witness,
    });
}

/// Seeds without an arbiter in which nodes promote themselves.
#[test]
fn fresh_seeds_alone() {
    run_kind(&Kind {
        name: "alone",
        variable: "ALONE_",
        test: "fresh_seeds_alone",
        draw: Plan::draw_alone,
    });
}

/// Seeds in which a cluster decides who serves.
#[test]
fn fresh_seeds_under_pacemaker() {
    run_kind(&Kind {
        name: "pacemaker",
        variable: "PACEMAKER_",
        test: "fresh_seeds_under_pacemaker",
        draw: Plan::draw_with_pacemaker,
    });
}

/// Runs one seed, so many, or until the time that was given is over.
fn run_kind(kind: &Kind) {
    if let Some(seed) = hex(&format!("HOTPAIR_{}SEED", kind.variable)) {
        replay_plan((kind.draw)(seed));
        return;
    }
    let count = number(&format!("HOTPAIR_{}SEEDS", kind.variable));
    let first = hex("HOTPAIR_FIRST_SEED").unwrap_or_else(seed_of_the_commit);
    let budget = number("HOTPAIR_SIM_SECONDS").map(std::time::Duration::from_secs);
    let began = stopwatch();
    let mut totals = Totals::of(kind);
    for seed in (0..count.unwrap_or(SEEDS)).map(|at| first.wrapping_add(at)) {
        totals.add(&run(&(kind.draw)(seed), None));
        if totals.seeds.is_multiple_of(SEEDS_PER_LINE) {
            totals.tell(first, began.elapsed().as_secs());
        }
        if budget.is_some_and(|budget| began.elapsed() > budget) {
            break;
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    totals.print(first, seconds);
    totals.tell(first, began.elapsed().as_secs());
    assert!(totals.failed.is_empty(), "{} seeds broke something", totals.failed.len());
}

#[test]
fn the_same_seed_has_the_same_trace() {
    for seed in 0..50 {
        let mut plan = Plan::draw(seed);
        plan.chaos = plan.chaos.min(std::time::Duration::from_secs(20));
        assert_eq!(run(&plan, None).hash, run(&plan, None).hash, "seed {seed:x}");
    }
}

struct Totals<'a> {
    kind: &'a Kind,
    seeds: u64,
    events: u64,
    answered: u64,
    virtual_seconds: u64,
    hash: u64,
    marks: Marks,
    failed: Vec<u64>,
}

impl<'a> Totals<'a> {
    fn of(kind: &'a Kind) -> Self {
        Self {
            kind,
            seeds: 0,
            events: 0,
            answered: 0,
            virtual_seconds: 0,
            hash: 0,
            marks: Marks::default(),
            failed: Vec::new(),
        }
    }

    fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.events += outcome.events;
        self.answered += outcome.answered;
        self.virtual_seconds += outcome.virtual_seconds;
        self.hash = self.hash.rotate_left(1) ^ outcome.hash;
        self.marks.merge(&outcome.marks);
        if let Some(broken) = &outcome.broken {
            if self.failed.is_empty() {
                explain(outcome, self.kind);
            }
            println!("FAILED seed {:x}: {broken}", outcome.seed);
            self.failed.push(outcome.seed);
        }
    }

    /// The line that `tools/campaign` looks for, also of a run that is stopped.
    fn tell(&self, first: u64, seconds: u64) {
        let (seeds, failures) = (self.seeds, self.failed.len());
        println!(
            "{}: seeds={seeds} first={first:x} failures={failures} seconds={seconds}",
            self.kind.name
        );
    }

    fn print(&self, first: u64, seconds: f64) {
        let rate = f64::from(u32::try_from(self.seeds).unwrap_or(u32::MAX)) / seconds.max(0.001);
        println!(
            "sim: {} seeds from {first:x}, {} failed, {seconds:.1} s, {rate:.1} seeds/s, \
             {} virtual s, {} operations, {} events, trace {:016x}",
            self.seeds,
            self.failed.len(),
            self.virtual_seconds,
            self.answered,
            self.events,
            self.hash,
        );
        println!("sim: {}", self.marks.list());
    }
}

fn explain(outcome: &Outcome, kind: &Kind) {
    let (seed, Kind { variable, test, draw, .. }) = (outcome.seed, kind);
    println!("seed {seed:x}: replay with");
    println!("  HOTPAIR_{variable}SEED={seed:x} cargo test --test sim {test} -- --nocapture");
    for line in last_lines(&draw(seed), LINES_SHOWN) {
        println!("  {line:.300}");
    }
}

fn replay_plan(mut plan: Plan) {
    if env::var("HOTPAIR_SHRINK").is_ok() {
        plan = shrink(&plan);
    }
    println!("{plan:#?}");
    let outcome = run(&plan, None);
    let count = number("HOTPAIR_LINES").and_then(|count| usize::try_from(count).ok());
    for line in last_lines(&plan, count.unwrap_or(LINES_SHOWN)) {
        println!("{line:.2600}");
    }
    println!("{outcome:#?}");
    assert_eq!(outcome.broken, None);
}

/// A rerun of one commit is the same run, and another commit runs other seeds.
pub(crate) fn seed_of_the_commit() -> u64 {
    let head = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let text = head.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let digits: String = text.unwrap_or_default().chars().take(12).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(1)
}

fn hex(name: &str) -> Option<u64> {
    u64::from_str_radix(&env::var(name).ok()?, 16).ok()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "how long the seeds take is printed, not asserted")]
fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}
