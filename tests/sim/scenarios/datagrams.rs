//! The connection of the nodes is cut, and their datagrams pass: the primary asks its peer there to
//! veto itself, and goes on alone by that.

use hotpair::promotion::arbiter::Eligible;
use hotpair::units::{DiskState, ServeMode, VetoReason};

use super::failover::{is_whole_again, pair_of, serves, until_eligible};
use crate::script::{A, B, Script};
use crate::witness::WitnessPlan;

/// A pair in sync, whose heartbeats have a network of their own; nobody reaches the witness.
fn pair_without_witness(trouble: u8) -> Script {
    let plan = WitnessPlan { beats_pass_cuts: true, ..WitnessPlan::calm() };
    let mut script = pair_of(hotpair::units::ReplicationMode::Sync, plan);
    script.world.plan.witness.as_mut().unwrap().trouble = trouble;
    for node in [A, B] {
        script.world.cut_witness(node, 0);
        script.world.cut_witness(node, 1);
    }
    script
}

fn mode(script: &Script, at: usize) -> ServeMode {
    script.world.nodes[at].superblock().serve_mode
}

fn until_both_know(script: &mut Script) {
    script.until("both nodes know that the connection is dead", |world| {
        [A, B].iter().all(|at| {
            world.status(*at).is_some_and(|it| it.link == hotpair::replica::LinkStatus::Connecting)
        })
    });
}

#[test]
fn a_primary_goes_on_alone_by_the_veto_that_its_peer_gave_by_datagram() {
    for trouble in [0, 15, 40] {
        let mut script = pair_without_witness(trouble);
        script.cut();
        let write = script.begin_write(6, 2);
        until_both_know(&mut script);
        let known = script.world.now;
        script.until("the write is answered", |world| world.clients.is_settled(write));
        if trouble == 0 {
            // A request, a veto, a reply, a record: milliseconds each. A request that came before the peer
            // knew is said again with the next beat.
            let took = script.world.now - known;
            assert!(took < 300_000_000, "{took} ns");
        }
        assert_eq!(mode(&script, A), ServeMode::Solo);
        assert_eq!(script.status(A).promotion.unwrap().permit, Some("peer-veto"));
        let theirs = script.world.nodes[B].superblock();
        assert_eq!(theirs.veto.map(|veto| veto.reason), Some(VetoReason::Evicted));
        assert_eq!(theirs.disk, DiskState::Outdated);
        // It stays so, and the vetoed one is not promoted when the primary is gone.
        script.kill(A);
        script.world.heal_witness();
        script.world.plan.witness.as_mut().unwrap().trouble = 0;
        script.pass(20_000);
        assert!(!serves(&script, B));
        script.start(A);
        script.mend();
        is_whole_again(&mut script);
    }
}

/// Its record cannot become stable: nothing is answered, and nobody goes on alone.
#[test]
fn without_a_stable_veto_nobody_goes_on_alone() {
    let mut script = pair_without_witness(0);
    let until = script.world.now + 30_000_000_000;
    script.world.nodes[B].trouble.stalled_until = until;
    script.cut();
    let write = script.begin_write(6, 2);
    script.pass(20_000);
    assert!(!script.world.clients.is_settled(write), "nobody vouches for it");
    assert_eq!(mode(&script, A), ServeMode::Paired);
    assert_eq!(script.world.nodes[B].superblock().veto, None);
    script.until("the veto is stable", |world| world.nodes[B].superblock().veto.is_some());
    script.until("the write is answered", |world| world.clients.is_settled(write));
    script.world.heal_witness();
    script.mend();
    is_whole_again(&mut script);
}

/// A reply that was given before the nodes met again says nothing of what came after.
#[test]
fn a_reply_from_before_the_last_meeting_permits_nothing() {
    let mut script = pair_without_witness(0);
    // What B says comes late: B has vetoed itself, and A does not know.
    script.world.hold_exchanges_of(B, true);
    script.cut();
    let write = script.begin_write(6, 2);
    script.until("B has vetoed itself", |world| world.nodes[B].superblock().veto.is_some());
    script.mend();
    script.until("the write is on both", |world| world.clients.is_settled(write));
    script.until_in_sync();
    assert_eq!(
        (mode(&script, A), script.world.nodes[B].superblock().veto),
        (ServeMode::Paired, None)
    );
    // The connection is lost again, and no new request comes through.
    script.world.hold_exchanges_of(A, true);
    script.cut();
    let write = script.begin_write(9, 2);
    script.pass(3_000);
    script.world.hold_exchanges_of(B, false);
    script.pass(3_000);
    assert!(!script.world.clients.is_settled(write), "the old reply was taken for a new one");
    assert_eq!(
        (mode(&script, A), script.world.nodes[B].superblock().veto),
        (ServeMode::Paired, None)
    );
    script.world.hold_exchanges_of(A, false);
    script.until("the write is answered", |world| world.clients.is_settled(write));
    assert_eq!(mode(&script, A), ServeMode::Solo);
    script.world.heal_witness();
    script.mend();
    until_eligible(&mut script, Eligible::Both);
    is_whole_again(&mut script);
}
