//! What hooks start and stop as the role moves, fails to move, and is lost.

use std::time::Duration;

use hotpair::promotion::services::ServiceAction;
use hotpair::replica::Command;
use hotpair::units::{ReplicationMode, Role};

use super::failover::{is_whole_again, serves, until_eligible};
use crate::plan::Plan;
use crate::script::{A, B, Script};
use crate::services::ServicesPlan;
use crate::witness::WitnessPlan;
use crate::world::World;

/// A pair in sync that the witness knows, A serving with services that take their time.
fn pair(witness: WitnessPlan, failures: u8) -> Script {
    let stop_within = Duration::from_secs(5);
    let services = ServicesPlan { stop_within, failures, is_slow: true };
    let calm = Plan::calm(ReplicationMode::Sync, 16 << 20);
    let plan = Plan { witness: Some(witness), services: Some(services), ..calm };
    let mut script = Script::with_plan(plan);
    until_eligible(&mut script, hotpair::promotion::arbiter::Eligible::Both);
    script.until("the services of A run", |world| world.services_run(A));
    script.write(0, 8);
    script
}

fn services(script: &Script, at: usize) -> (&'static str, Option<String>) {
    let status = script.status(at).services.expect("there are hooks");
    (status.state, status.failure)
}

#[test]
fn a_switchover_stops_services_while_clients_are_served() {
    let mut script = pair(WitnessPlan::calm(), 0);
    script.pass(4_000);
    let write = script.begin_write(3, 2);
    script.command(A, Command::Switchover).unwrap();
    assert!(script.world.clients.is_settled(write), "the services may write until they stopped");
    assert!(!script.world.services_run(A));
    script.until_serving(B);
    script.until("the services of B run", |world| world.services_run(B));
    script.pass(4_000);
    assert_eq!(services(&script, B), ("running", None));
    assert_eq!(services(&script, A), ("stopped", None));
    is_whole_again(&mut script);
}

#[test]
fn services_that_do_not_stop_keep_the_role_where_it_is() {
    let mut script = pair(WitnessPlan::calm(), 100);
    script.pass(4_000);
    for command in [Command::Switchover, Command::Demote] {
        let refused = script.command(A, command).unwrap_err();
        assert!(refused.why.contains("do not stop: a hook failed"), "{refused:?}");
        assert!(serves(&script, A) && !serves(&script, B));
        script.write(6, 2);
    }
    // What is stopped halfway is started again.
    script.pass(4_000);
    assert!(script.world.services_run(A));
    assert_eq!(services(&script, A).0, "failed");
    // A daemon that was told to stop does not wait for ever.
    let life = script.world.nodes[A].life;
    script.world.command(A, Command::Stop).unwrap_or_else(|broken| panic!("{broken}"));
    script.until("A has stopped", |world| world.nodes[A].life != life);
}

#[test]
fn the_other_node_gives_services_their_time_to_stop() {
    loses_its_lease(WitnessPlan::calm());
}

/// The primary is cut off from everything, and stops its services when its lease is over.
pub(crate) fn loses_its_lease(witness: WitnessPlan) {
    let mut script = pair(witness, 0);
    script.cut();
    for direction in 0..2 {
        script.world.cut_witness(A, direction);
    }
    script.until("A withholds", |world| {
        !world.nodes[A].core().is_some_and(hotpair::replica::Replica::may_answer_reads)
    });
    assert!(script.world.services_run(A), "they are being stopped");
    script.until("B serves", |world| {
        world.nodes[B].process.as_ref().is_some_and(|process| process.export.is_some())
    });
    assert!(!script.world.services_run(A));
    script.mend();
    script.world.heal_witness();
    script.until("A follows", |world| {
        world.status(A).is_some_and(|status| status.role == Role::Secondary)
    });
    is_whole_again(&mut script);
}

#[test]
fn what_a_dead_daemon_left_is_stopped_before_the_next_one_starts_it() {
    let mut script = pair(WitnessPlan::calm(), 0);
    script.pass(4_000);
    script.kill(A);
    assert!(script.world.services_run(A));
    script.start(A);
    let order = |world: &World, run| world.services_order(A).filter(|order| order.run == run);
    script.until_exactly("nobody knows what runs there", |world| {
        order(world, 1).is_some_and(|order| order.action == ServiceAction::StopNow)
    });
    script.until_exactly("they are started by a daemon that knows", |world| {
        order(world, 2).is_some_and(|order| order.action == ServiceAction::Start)
    });
    is_whole_again(&mut script);
}
