//! Moments at which something else happens: each was a bug once.

use hotpair::units::{DiskState, ReplicationMode, ServeMode};

use crate::plan::Plan;
use crate::script::{A, B, Script};
use crate::world::World;

const SYNC: ReplicationMode = ReplicationMode::Sync;

/// A pair whose disks and network take other times than those of another number.
fn pair(mode: ReplicationMode, seed: u64) -> Script {
    Script::with_plan(Plan { seed, ..Plan::calm(mode, 16 << 20) })
}

fn is_solo(world: &World) -> bool {
    world.status(A).is_some_and(|status| status.solo)
}

#[test]
fn a_source_that_sent_the_end_does_not_count_on_the_veto_of_its_target() {
    for seed in 1..=10 {
        let mut script = pair(SYNC, seed);
        script.write(0, 32);
        script.kill(B);
        script.write(100, 50);
        script.until("solo", is_solo);
        script.start(B);
        script.until_exactly("the end is sent", |world| {
            let [a, b] = [A, B].map(|at| world.nodes[at].superblock());
            a.serve_mode == ServeMode::Paired && b.disk == DiskState::Inconsistent
        });
        // The end arrives, and what it did is never heard of.
        script.world.net.cut(B);
        script.until("solo again", is_solo);
        assert_eq!(script.status(B).disk, DiskState::UpToDate);
        script.write(200, 4);
        script.mend();
        script.until_in_sync();
        script.check_copies();
    }
}
