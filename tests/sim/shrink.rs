//! A smaller plan that breaks the same invariant.

use std::time::Duration;

use crate::plan::Plan;
use crate::run::run;

/// One thing to leave out.
type Cut = fn(&mut Plan);

const CUTS: &[(&str, Cut)] = &[
    ("kill", |plan| plan.faults.kill = None),
    ("power", |plan| plan.faults.power = None),
    ("power of both", |plan| plan.faults.power_both = None),
    ("pause", |plan| plan.faults.pause = None),
    ("stop", |plan| plan.faults.stop = None),
    ("cut", |plan| plan.faults.cut = None),
    ("reset", |plan| plan.faults.reset = None),
    ("flip", |plan| plan.faults.flip = None),
    ("disk error", |plan| plan.faults.disk_error = None),
    ("sync error", |plan| plan.faults.sync_error = None),
    ("metadata error", |plan| plan.faults.metadata_error = None),
    ("no space", |plan| plan.faults.no_space = None),
    ("stall", |plan| plan.faults.stall = None),
    ("clients that leave", |plan| plan.faults.client_leaves = None),
    ("commands", |plan| plan.faults.commands = None),
    ("failover", |plan| plan.faults.failover = false),
    ("accepted loss", |plan| plan.faults.accept_loss = false),
    ("split brain", |plan| plan.faults.split_brain = false),
    ("resize", |plan| plan.faults.resize = None),
    ("slow disk", |plan| plan.faults.slow_disk = false),
    ("slow net", |plan| plan.faults.slow_net = false),
    ("zeroes", |plan| plan.load.zeroes = 0),
    ("flushes", |plan| plan.load.flushes = 0),
    ("fua", |plan| plan.load.fua = 0),
    ("reads", |plan| plan.load.reads = 0),
    ("clients", |plan| plan.load.clients = 1),
    ("depth", |plan| plan.load.depth_max = 1),
    ("spots", |plan| plan.load.spots = 1),
    ("half the operations", |plan| plan.load.operations_max /= 2),
    ("drift", |plan| plan.clock_rates = [1000; 2]),
    ("half the time", |plan| plan.chaos = plan.chaos.max(Duration::from_secs(1)) / 2),
];

/// Leaves things out while the same invariant breaks.
pub(crate) fn shrink(plan: &Plan) -> Plan {
    let mut best = plan.clone();
    let Some(broken) = run(&best, None).broken else { return best };
    let mut is_smaller = true;
    while is_smaller {
        is_smaller = false;
        for (name, cut) in CUTS {
            let mut next = best.clone();
            cut(&mut next);
            if format!("{next:?}") == format!("{best:?}") {
                continue;
            }
            if run(&next, None).broken.is_some_and(|it| it.invariant == broken.invariant) {
                println!("without {name}: still {}", broken.invariant);
                best = next;
                is_smaller = true;
            }
        }
    }
    best
}
