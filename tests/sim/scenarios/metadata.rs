//! A node that cannot write its metadata any more: it says nothing of itself that is not stable.

use hotpair::replica::{Command, LinkStatus};
use hotpair::units::{DiskState, ReplicationMode};

use super::failover::{is_whole_again, pair, serves};
use crate::io::Work;
use crate::script::{A, B, Script};
use crate::world::World;

/// The next write of B's map or activity log fails.
fn lose_metadata_of_b(script: &mut Script) {
    script.begin_write(900, 1);
    let is_due = |world: &World| {
        let process = world.nodes[B].process.as_ref().unwrap();
        let next = process.io.values().find(|work| {
            matches!(work, Work::Map { .. } | Work::Append { .. } | Work::Record { .. })
        });
        next.is_some_and(|work| !matches!(work, Work::Record { .. }))
    };
    script.until_exactly("B writes its map or its log", is_due);
    script.world.nodes[B].trouble.fail_next_metadata = true;
    script.until("it fails", |world| {
        world.status(B).is_some_and(|status| status.disk == DiskState::Failed)
    });
}

/// Its stable record says that it is up-to-date, and the arbiter lists it: after its next start it can be
/// promoted, so its peer must not go on alone by what it hears before.
#[test]
fn a_secondary_that_cannot_write_its_metadata_meets_nobody() {
    let mut script = pair();
    script.world.kill_witness();
    lose_metadata_of_b(&mut script);
    assert_eq!(script.world.nodes[B].superblock().disk, DiskState::UpToDate);
    let write = script.begin_write(3, 3);
    let typed = script.command(B, Command::Connect);
    script.pass(20_000);
    assert!(!script.world.clients.is_settled(write), "no veto is stable");
    assert!(!script.status(A).solo && serves(&script, A));
    let refused = typed.unwrap_err();
    assert!(refused.why.contains("metadata"), "{refused:?}");
    assert!(refused.next.contains("restart"), "{refused:?}");
    script.kill(B);
    script.start(B);
    script.until("the write is answered", |world| world.clients.is_settled(write));
    script.world.heal_witness();
    is_whole_again(&mut script);
}

/// Its peer dials by itself.
#[test]
fn a_node_that_cannot_write_its_metadata_says_so_to_a_peer_that_connects() {
    let mut script = Script::pair(ReplicationMode::Sync);
    lose_metadata_of_b(&mut script);
    script.world.nodes[B].process.as_mut().unwrap().wants_link = true;
    script.until("B refuses", |world| {
        world.status(A).is_some_and(|status| status.explain.why.contains("metadata"))
    });
    let status = script.status(A);
    assert_ne!(status.link, LinkStatus::Connected);
    assert!(status.explain.next.contains("beta"), "{:?}", status.explain);
}

#[test]
fn a_node_whose_disk_had_failed_leaves_when_it_cannot_write_its_metadata_either() {
    let mut script = Script::pair(ReplicationMode::Sync);
    script.world.operator.broken_disk = Some(B);
    script.world.nodes[B].trouble.fail_next_io = true;
    script.begin_write(6, 2);
    script.until_exactly("B writes that its disk failed", |world| {
        let process = world.nodes[B].process.as_ref().unwrap();
        let is_failed = world.status(B).is_some_and(|it| it.disk == DiskState::Failed);
        is_failed && process.io.values().any(|work| matches!(work, Work::Record { .. }))
    });
    script.world.nodes[B].trouble.fail_next_metadata = true;
    script.until("B leaves", |world| {
        world.status(B).is_some_and(|status| status.link == LinkStatus::Connecting)
            && world.nodes[B].process.as_ref().is_some_and(|process| !process.wants_link)
    });
}
