//! One seed from its beginning to its end: chaos, then healing.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use hotpair::replica::Command;
use hotpair::units::BLOCK_LEN;

use crate::broken::{Broken, Checked};
use crate::marks::Marks;
use crate::net::Time;
use crate::plan::Plan;
use crate::trace::Lines;
use crate::world::{Event, World, millis, nanos};

/// What came of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    /// Hash of the trace.
    pub(crate) hash: u64,
    pub(crate) events: u64,
    /// Operations that clients were answered.
    pub(crate) answered: u64,
    pub(crate) virtual_seconds: u64,
    pub(crate) marks: Marks,
    pub(crate) broken: Option<Broken>,
}

/// Runs a plan; a panic of the core is a broken invariant like any other.
pub(crate) fn run(plan: &Plan, lines: Option<&Lines>) -> Outcome {
    let seed = plan.seed;
    let whole = || {
        let mut world = World::new(plan.clone(), lines.cloned());
        let broken = chaos_then_heal(&mut world).err();
        Outcome {
            seed,
            hash: world.trace.hash(),
            events: world.trace.events(),
            answered: world.clients.answered,
            virtual_seconds: world.now / millis(1000),
            marks: world.marks,
            broken,
        }
    };
    match catch_unwind(AssertUnwindSafe(whole)) {
        Ok(outcome) => outcome,
        Err(payload) => {
            let text = payload
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
            let broken = Some(Broken::new("Panic", text.unwrap_or_default()));
            let marks = Marks::default();
            Outcome { seed, hash: 0, events: 0, answered: 0, virtual_seconds: 0, marks, broken }
        }
    }
}

/// Runs a plan again with its trace, and returns the trace's last lines.
pub(crate) fn last_lines(plan: &Plan, count: usize) -> Vec<String> {
    let lines: Lines = Rc::new(RefCell::new(VecDeque::new()));
    run(plan, Some(&lines));
    let lines = lines.borrow();
    lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
}

fn chaos_then_heal(world: &mut World) -> Checked {
    world.after(0, Event::Start(0));
    world.after(millis(20), Event::Start(1));
    world.begin_witness();
    world.after(millis(30), Event::Dial);
    world.after(millis(100), Event::Operator);
    for client in 0..world.plan.load.clients {
        world.after(millis(200), Event::Client(client));
    }
    let calm = if world.process_rng.bool() { 0 } else { millis(15_000) };
    world.run_until(calm)?;
    world.begin_faults();
    world.begin_witness_faults();
    world.run_until(calm + nanos(world.plan.chaos))?;
    world.ghost.check_history()?;
    heal(world)
}

fn heal(world: &mut World) -> Checked {
    world.is_healing = true;
    world.clients.are_quiet = true;
    world.heal_witness();
    for at in 0..2 {
        world.net.mend(world.now, at);
        world.nodes[at].trouble = crate::node::Trouble::default();
        world.after(0, Event::Resume(at));
        world.after(millis(10), Event::Start(at));
    }
    let deadline = world.now + healing_time(world);
    while world.now < deadline {
        world.run_until(world.now + millis(500))?;
        if still_wrong(world).is_none() {
            return at_rest(world);
        }
    }
    let why = still_wrong(world).unwrap_or_default();
    Err(Broken::new("Converges", format!("after {} s: {why}", healing_time(world) / millis(1000))))
}

/// 60 seconds, and what the bytes of a whole resync take.
fn healing_time(world: &World) -> Time {
    let bytes_per_s = if world.plan.faults.slow_net { 100 << 10 } else { 8 << 20 };
    let rate = world.plan.limits.resync_rate.unwrap_or(u64::MAX).min(bytes_per_s);
    let most = u64::try_from(world.differences.count()).unwrap() * BLOCK_LEN + (1 << 20);
    let in_motion = u64::try_from(world.plan.limits.resync_chunks_max).unwrap();
    let size = world.nodes[0].size.max(world.nodes[1].size);
    // A comparison of everything is paced like what it sends.
    let compared = world.plan.limits.resync_rate.map_or(0, |rate| size.bytes() * 1000 / rate);
    let turns = size.chunk_count().div_ceil(in_motion.min(16));
    let paced = millis(compared) + most * 1000 / rate * millis(1);
    // A second of the cap is one of the node's own clock.
    let slowest = world.plan.clock_rates.into_iter().min().unwrap_or(1000);
    millis(60_000) + paced * 1000 / slowest + turns * (2 * world.net.latency_max() + millis(2))
}

/// What is missing until the pair is whole and everyone was answered.
fn still_wrong(world: &World) -> Option<String> {
    if !world.is_in_sync() {
        let words = [0, 1].map(|at| {
            world.status(at).map_or("down".to_string(), |status| {
                format!(
                    "{} {} {:?} {:?} solo {} {} oos {:?} explain {:?}",
                    status.role,
                    status.disk,
                    status.link,
                    status.replication,
                    status.solo,
                    status.state,
                    status.out_of_sync_bytes,
                    status.explain
                )
            })
        });
        return Some(format!("not in sync: {words:#?}"));
    }
    let serving = world
        .nodes
        .iter()
        .filter(|node| node.process.as_ref().is_some_and(|process| process.export.is_some()))
        .count();
    if serving != 1 {
        return Some(format!("{serving} nodes serve"));
    }
    if let Some((id, at)) = world.clients.oldest() {
        return Some(format!("{id:?} waits since {} ms", at / millis(1)));
    }
    let sizes = [0, 1].map(|at| {
        let record = world.nodes[at].superblock();
        (record.size, record.size_next)
    });
    if sizes[0] != sizes[1] || sizes[0].1 != 0 {
        return Some(format!("sizes {sizes:?}"));
    }
    if world.differences.count() > 0 {
        return Some(format!("{} blocks differ", world.differences.count()));
    }
    for (at, node) in world.nodes.iter().enumerate() {
        let marks = node.core().map_or(0, |core| core.dirty().count());
        if marks > 0 {
            return Some(format!("node {at} has {marks} marks"));
        }
    }
    None
}

fn at_rest(world: &mut World) -> Checked {
    if world.ghost.is_split {
        let data = world.nodes[0].files.data.clone();
        world.ghost.settled(&data)?;
    }
    world.ghost.check_copy(&world.nodes[0].files.data)?;
    world.ghost.check_copy(&world.nodes[1].files.data)?;
    world.ghost.check_history()?;
    if world.process_rng.u8(..4) == 0 { stop_and_start(world) } else { Ok(()) }
}

/// A clean stop leaves nothing to compare.
fn stop_and_start(world: &mut World) -> Checked {
    let before = world.net.resync_bytes;
    let first = usize::from(world.process_rng.bool());
    for at in [first, 1 - first] {
        let life = world.nodes[at].life;
        let fenced = world.marks.count("fenced");
        world.command(at, Command::Stop)?;
        let deadline = world.now + millis(30_000);
        while world.nodes[at].life == life {
            if world.now > deadline {
                let detail = format!("node {at} does not stop: {:?}", world.status(at));
                return Err(Broken::new("CleanStop", detail));
            }
            world.run_until(world.now + millis(50))?;
        }
        if world.marks.count("fenced") > fenced {
            // A command that was given long before switched the machine off, which no stop can prevent.
            return Ok(());
        }
        if !world.nodes[at].superblock().clean && world.nodes[at].process.is_none() {
            return Err(Broken::new(
                "CleanStop",
                format!("node {at} stops without the clean flag"),
            ));
        }
    }
    let deadline = world.now + millis(60_000);
    while let Some(why) = still_wrong(world) {
        if world.now > deadline {
            return Err(Broken::new("Converges", format!("after a clean stop: {why}")));
        }
        world.run_until(world.now + millis(500))?;
    }
    if world.net.resync_bytes != before {
        let detail = format!("{} bytes were sent", world.net.resync_bytes - before);
        return Err(Broken::new("CleanStop", detail));
    }
    world.marks.add("clean stop of both");
    Ok(())
}
