//! What a peer says of the size of the resource.

use hotpair::metadata::Birth;
use hotpair::replica::Effect;
use hotpair::units::{
    DiskReason, DiskState, Outcome, RESOURCE_LEN_MAX, ResourceId, Role, ServeMode,
};
use hotpair::wire::{Hello, Message};

use crate::rig::{OWN_GENERATION, Rig};

const LEN: u64 = 1 << 20;

fn fresh(hello: &mut Hello) {
    (hello.role, hello.serve_mode) = (Role::Secondary, ServeMode::None);
    (hello.generation, hello.resource_id) = (None, ResourceId(0));
    (hello.disk, hello.disk_reason) = (DiskState::Inconsistent, DiskReason::Fresh);
}

#[test]
fn a_size_that_no_resize_leads_to_is_refused() {
    let edits: [fn(&mut Hello); 2] = [|_| {}, fresh];
    for edit in edits {
        for (size, size_next) in [
            (2 * LEN, LEN),
            (RESOURCE_LEN_MAX + 1, LEN),
            (u64::MAX, LEN),
            (LEN, u64::MAX),
            (0, LEN),
        ] {
            let mut rig = Rig::new(Birth::This);
            rig.connect();
            let mut hello = Hello { history: vec![OWN_GENERATION], ..rig.hello() };
            edit(&mut hello);
            (hello.size, hello.size_next) = (size, size_next);
            if rig.say(Message::Hello(Box::new(hello))).is_ok() && rig.is_open {
                let outcome = rig.outcome();
                if outcome.is_some_and(|outcome| outcome != Outcome::Refused) {
                    rig.mirror();
                }
            }
            assert_eq!(rig.core.superblock().size, LEN);
        }
    }
}

#[test]
fn a_verdict_on_a_size_that_changed_meanwhile_counts_for_nothing() {
    let mut rig = Rig::new(Birth::Peer);
    rig.connect();
    rig.say(Message::Hello(Box::new(rig.hello()))).unwrap();
    let verdict = rig.mirrored();
    rig.holds = |effect| matches!(effect, Effect::Grow { .. });
    let hello = Hello { size: 2 * LEN, counter: 2, ..rig.hello() };
    rig.say(Message::Hello(Box::new(hello))).unwrap();
    assert_eq!(rig.held.len(), 1);
    rig.say(Message::Verdict(verdict)).unwrap();
    assert_eq!(rig.core.superblock().size, LEN);
}
