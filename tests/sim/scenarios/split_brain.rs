//! A split brain that is resolved while the node that is kept serves at the lower epoch.

use hotpair::replica::{Command, ReplicationStatus};
use hotpair::units::{ReplicationMode, Role, Side};

use crate::script::{A, B, Script, force, promote};

/// A serves, and B, which was promoted by force meanwhile and has gone down again, has the higher
/// epoch. Both have what the other lacks.
fn kept_below() -> Script {
    let mut script = Script::pair(ReplicationMode::Sync);
    script.part_ways();
    script.command(B, force()).unwrap();
    script.until("B serves", |world| world.status(B).is_some_and(|status| status.serving));
    while script.world.clients.node_of(0) != Some(B) {
        script.world.disconnect_clients(A);
        script.pass(50);
    }
    script.write(16, 8);
    script.kill(B);
    script.start(B);
    script.mend();
    script.until("both say split brain", |world| {
        [A, B].iter().all(|at| world.status(*at).is_some_and(|it| it.split_brain.is_some()))
    });
    script
}

#[test]
fn opposite_resolutions_count_for_nothing_and_the_next_one_ends_it() {
    for keep in [Side::First, Side::Second] {
        let mut script = kept_below();
        // Each names the other one's data, at the same time.
        let typed = [(A, Side::Second), (B, Side::First)].map(|(at, keep)| {
            let typed = script.world.command(at, Command::Resolve { keep });
            typed.unwrap_or_else(|broken| panic!("{broken}"))
        });
        script.pass(5_000);
        for (at, request) in [A, B].into_iter().zip(typed) {
            assert!(script.world.operator.take_answer(request).is_some(), "node {at}");
            let status = script.status(at);
            assert_eq!(
                (status.role, status.replication),
                (Role::Secondary, ReplicationStatus::Off)
            );
            assert!(status.explain.why.contains("neither counts"), "{status:?}");
            assert!(status.explain.next.contains("split-brain show"), "{status:?}");
            assert!(status.explain.next.contains("on one node only"), "{status:?}");
        }
        script.command(B, Command::Resolve { keep }).unwrap();
        script.until_in_sync();
        for at in [A, B] {
            assert!(script.status(at).explain.next.contains("hotpair promote"));
        }
        script.command(A, promote()).unwrap();
        script.until_serving(A);
    }
}

#[test]
fn a_node_whose_data_is_dropped_gives_up_its_claim_to_serve() {
    for typed_at in [A, B] {
        let mut script = kept_below();
        let kept = script.world.nodes[A].files.data.clone();
        let refused = script.command(B, Command::Invalidate).unwrap_err();
        assert!(refused.next.contains("split-brain resolve"), "{refused:?}");
        script.command(typed_at, Command::Resolve { keep: Side::First }).unwrap();
        script.until("A must let go of its epoch", |world| {
            [A, B].iter().all(|at| {
                world.status(*at).is_some_and(|it| {
                    it.explain.next.contains("hotpair demote")
                        && it.replication == ReplicationStatus::Off
                })
            })
        });
        assert!(!script.status(A).explain.next.starts_with("on "));
        assert!(script.status(B).explain.next.starts_with("on "));
        script.command(A, Command::Demote).unwrap();
        script.until_in_sync();
        script.pass(5_000);
        for at in [A, B] {
            assert_eq!(script.status(at).role, Role::Secondary);
            for block in 0..64 {
                assert!(script.world.nodes[at].files.data.has_same_block(&kept, block), "{block}");
            }
        }
        script.command(A, promote()).unwrap();
        script.until_serving(A);
        script.until_in_sync();
    }
}
