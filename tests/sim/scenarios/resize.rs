//! A resource that grows while both nodes run, and what interrupts that.

use hotpair::replica::{Command, Effect};
use hotpair::units::{ReplicationMode, Role};

use crate::plan::Plan;
use crate::script::{A, B, Script, force};
use crate::world::millis;

const OLD: u64 = 16 << 20;
/// Two pages of the dirty map instead of one, and a short last block.
const NEW: u64 = (200 << 20) + 700;
/// The first block of the new part.
const FIRST_NEW: u64 = OLD / 4096;

fn pair() -> Script {
    Script::with_plan(Plan { grown: vec![NEW], ..Plan::calm(ReplicationMode::Sync, OLD) })
}

fn resize() -> Command {
    Command::Resize { size: NEW }
}

fn sizes(script: &Script) -> [(u64, u64); 2] {
    [A, B].map(|at| {
        let record = script.world.nodes[at].superblock();
        (record.size, record.size_next)
    })
}

fn until_both_have(script: &mut Script, size: u64) {
    script.until("both have that size", |world| {
        [A, B].iter().all(|at| {
            let record = world.nodes[*at].superblock();
            world.nodes[*at].core().is_some() && (record.size, record.size_next) == (size, 0)
        })
    });
    script.until_in_sync();
}

/// The new part reads as zero, and what is written there is on both nodes.
fn check_new_part(script: &mut Script) {
    script.world.disconnect_client(0);
    script.read(FIRST_NEW, 8);
    script.write(FIRST_NEW, 16);
    script.read(FIRST_NEW, 16);
    script.until_in_sync();
    script.check_copies();
}

#[test]
fn a_pair_grows_wherever_it_is_typed() {
    for at in [A, B] {
        let mut script = pair();
        script.write(0, 64);
        let request = script.begin_write(64, 64);
        let answer = script.command(at, resize()).unwrap();
        assert!(answer.text.contains(&format!("{NEW}B")), "{answer:?}");
        assert_eq!(sizes(&script), [(NEW, 0); 2]);
        script.until("the write is answered", |world| world.clients.is_settled(request));
        check_new_part(&mut script);
        assert_eq!(script.command(at, resize()).unwrap().text, "it has that size already");
        let refused = script.command(at, Command::Resize { size: OLD }).unwrap_err();
        assert!(refused.why.contains("only grows"), "{refused:?}");
        for at in [A, B] {
            script.kill(at);
            script.start(at);
            script.until_in_sync();
        }
        script.check_copies();
    }
}

#[test]
fn a_node_without_space_refuses_and_nothing_changes() {
    for full in [A, B] {
        let mut refusals = 0;
        for seed in 1..=8 {
            let calm = Plan::calm(ReplicationMode::Sync, OLD);
            let mut script = Script::with_plan(Plan { seed, grown: vec![NEW], ..calm });
            let until = script.world.now + millis(3_600_000);
            // The model of a full disk lets some of what is asked of it through.
            script.world.nodes[full].trouble.full_until = until;
            if let Err(refused) = script.command(A, resize()) {
                refusals += 1;
                assert!(refused.why.contains("no space"), "{refused:?}");
                assert_eq!(sizes(&script), [(OLD, 0); 2]);
                assert!(script.world.is_in_sync());
            }
            script.world.nodes[full].trouble.full_until = 0;
            let _ = script.command(A, resize()).unwrap();
            until_both_have(&mut script, NEW);
            check_new_part(&mut script);
        }
        assert!(refusals > 0);
    }
}

#[test]
fn a_lost_link_takes_a_resize_forward_or_back_on_both() {
    // One after the other, the moments from the command to its answer.
    let mut ends = Vec::new();
    for step in 0..50 {
        let mut script = pair();
        script.write(0, 8);
        let _ = script.world.command(A, resize()).unwrap();
        script.world.run_until(script.world.now + step * millis(3)).unwrap();
        let now = script.world.now;
        script.world.net.reset_any(now);
        script.until("both agree", |world| {
            let records = [A, B].map(|at| world.nodes[at].superblock());
            world.is_in_sync() && records[0].size == records[1].size && records[1].size_next == 0
        });
        let [one, two] = sizes(&script);
        assert_eq!(one, two);
        ends.push(one.0);
        script.until_in_sync();
        if one.0 == OLD {
            let _ = script.command(A, resize()).unwrap();
        }
        check_new_part(&mut script);
    }
    assert!(ends.contains(&OLD) && ends.contains(&NEW), "{ends:?}");
}

#[test]
fn a_node_that_dies_in_the_middle_follows_when_it_is_back() {
    for dead in [A, B] {
        for step in 0..40 {
            let mut script = pair();
            script.write(0, 8);
            let _ = script.world.command(A, resize()).unwrap();
            script.world.run_until(script.world.now + step * millis(3)).unwrap();
            if step % 2 == 0 {
                script.lose_power(dead);
            } else {
                script.kill(dead);
            }
            script.pass(200);
            script.start(dead);
            script.until("both agree", |world| {
                let records = [A, B].map(|at| world.nodes[at].superblock());
                world.is_in_sync()
                    && records[0].size == records[1].size
                    && records.iter().all(|record| record.size_next == 0)
            });
            script.until_in_sync();
            script.until_serving(A);
            if sizes(&script)[A].0 == OLD {
                let _ = script.command(A, resize()).unwrap();
            }
            check_new_part(&mut script);
        }
    }
}

#[test]
fn a_primary_that_is_alone_grows_and_its_peer_follows() {
    let mut script = pair();
    script.write(0, 8);
    script.kill(B);
    script.write(8, 8);
    script.until("solo", |world| world.status(A).is_some_and(|status| status.solo));
    script.command(A, resize()).unwrap();
    script.world.disconnect_client(0);
    script.write(FIRST_NEW, 4);
    script.start(B);
    until_both_have(&mut script, NEW);
    check_new_part(&mut script);
}

#[test]
fn the_shorter_one_grows_before_an_operator_must_choose() {
    let mut script = pair();
    script.write(0, 8);
    script.cut();
    script.write(8, 8);
    script.until("solo", |world| world.status(A).is_some_and(|status| status.solo));
    script.command(A, resize()).unwrap();
    script.world.ghost.is_split = true;
    script.world.operator.split_is_explained = true;
    script.world.command(B, force()).unwrap();
    script.until("both are primary", |world| {
        world.status(B).is_some_and(|status| status.role == Role::Primary)
    });
    script.world.disconnect_client(0);
    script.until("a client is there", |world| world.clients.node_of(0).is_some());
    script.pass(3_000);
    script.mend();
    script.until("the sizes are the same", |world| {
        world.nodes[B].superblock().size_next == NEW || world.nodes[B].superblock().size == NEW
    });
}

#[test]
fn a_verify_and_a_resize_do_not_meet() {
    let mut script = pair();
    script.write(0, 64);
    let typed = script.world.command(A, Command::Verify { repair: false }).unwrap();
    let refused = script.command(A, resize()).unwrap_err();
    assert!(refused.why.contains("a verify is running"), "{refused:?}");
    script.until("the verify ends", |world| {
        world.status(A).is_some_and(|status| status.last_verify.is_some())
    });
    assert!(script.world.operator.take_answer(typed).unwrap().is_ok());
    let typed = script.world.command(A, resize()).unwrap();
    let refused = script.command(B, Command::Verify { repair: false }).unwrap_err();
    assert!(refused.why.contains("a resize is under way"), "{refused:?}");
    script.until("the resize ends", |world| world.nodes[A].superblock().size == NEW);
    script.pass(100);
    assert!(script.world.operator.take_answer(typed).unwrap().is_ok());
    script.command(B, Command::Verify { repair: false }).unwrap();
}

#[test]
fn room_is_asked_for_once_and_only_for_more() {
    let mut script = pair();
    let clock = script.world.nodes[A].clock(script.world.now);
    let process = script.world.nodes[A].process.as_mut().unwrap();
    let mut effects = Vec::new();
    for (request, size) in [(901, NEW), (902, NEW), (903, OLD - 1), (904, u64::MAX)] {
        let command = Command::Resize { size };
        let input = hotpair::replica::Input::Operator { request, command };
        process.core.step(clock, input, &mut effects);
    }
    let grows = effects.iter().filter(|effect| matches!(effect, Effect::Grow { .. })).count();
    let refused: Vec<u64> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Answer { request, result: Err(_) } => Some(*request),
            _ => None,
        })
        .collect();
    assert_eq!((grows, refused), (1, vec![902, 903, 904]));
}
