//! A worker is killed and its supervisor lives (1 of the design's list): the peer need not wait.

use hotpair::units::ReplicationMode;

use super::failover::{is_whole_again, pair_of};
use crate::script::{A, B, Script};
use crate::witness::WitnessPlan;

fn pair(has_supervisor: bool) -> Script {
    pair_of(ReplicationMode::Sync, WitnessPlan { has_supervisor, ..WitnessPlan::calm() })
}

/// Milliseconds until the other node serves.
fn outage(script: &mut Script) -> u64 {
    let began = script.world.now;
    script.kill(A);
    script.until_serving(B);
    (script.world.now - began) / 1_000_000
}

#[test]
fn a_peer_takes_over_at_once_by_the_word_of_the_supervisor() {
    let mut script = pair(true);
    let millis = outage(&mut script);
    assert!(millis < 500, "{millis} ms");
    script.write(3, 3);
    script.start(A);
    is_whole_again(&mut script);
}

#[test]
fn without_a_supervisor_it_waits_for_the_lease() {
    let mut script = pair(false);
    let millis = outage(&mut script);
    assert!(millis > 2_000, "{millis} ms");
}

/// The word that was sent last arrives when the same node serves again, in another run.
#[test]
fn a_late_word_of_a_dead_run_says_nothing_of_the_next_one() {
    let mut script = pair(true);
    script.world.hold_exchanges_of(A, true);
    script.kill(A);
    script.pass(100);
    script.start(A);
    script.until_serving(A);
    script.until_in_sync();
    script.world.hold_exchanges_of(A, false);
    script.pass(10_000);
    script.write(3, 3);
    assert_eq!(script.world.clients.node_of(0), Some(A));
    is_whole_again(&mut script);
}
