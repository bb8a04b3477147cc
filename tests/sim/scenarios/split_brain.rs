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
