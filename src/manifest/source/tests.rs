//! Facts about single steps.

use super::*;
use crate::manifest::{CALM, Pace};
use crate::units::{Label, ObjectId, TreePosition, TreeRoot};
use crate::wire::{Packing, TreeNote, TreeRefusal, WantedChunks};

const SETTINGS: SourceSettings = SourceSettings {
    max_lag: Duration::from_secs(10),
    pace: Pace { settle: Duration::from_millis(200), oldest_max: Duration::from_secs(5) },
    full_scan: Duration::from_mins(10),
    scope_digest: [4; 32],
};

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

fn closed(number: u64) -> Closed {
    let root = TreeRoot([u8::try_from(number).unwrap(); 32]);
    let position = TreePosition { number: TreeNumber(number), root };
    Closed { position, label: Label::Stable, fuzzy_count: 0 }
}

struct Rig {
    source: Source,
    said: Vec<SourceEffect>,
}

impl Rig {
    /// Serves, everything was looked at, and generation 1 is complete on both nodes.
    fn in_sync() -> Self {
        let mut rig = Self { source: Source::new(SETTINGS), said: Vec::new() };
        let register = Some(Register::of(&closed(1)));
        let newest = Some(closed(1));
        rig.step(
            0,
            SourceInput::Serve(Serving { newest, register, is_alone: false, since: at(0) }),
        );
        rig.captured(0, 1, true);
        rig.meet(0, 1);
        rig.said.clear();
        rig
    }

    fn step(&mut self, ms: u64, input: SourceInput) {
        self.source.step(at(ms), input, &mut self.said);
    }

    fn meet(&mut self, ms: u64, number: u64) {
        let position = closed(number).position;
        self.step(ms, SourceInput::Position { position, scope_digest: [4; 32], is_known: true });
        self.say(ms, TreeNote::Applied { position });
    }

    fn say(&mut self, ms: u64, note: TreeNote) {
        self.step(ms, SourceInput::Said(note));
    }

    fn tick(&mut self, ms: u64, oldest: Option<u64>) {
        let oldest = oldest.map(at);
        let next_due = oldest.map(|oldest| oldest.plus(SETTINGS.pace.settle));
        let count = usize::from(oldest.is_some());
        self.step(ms, SourceInput::Tick(DirtyFacts { oldest, next_due, count }));
    }

    fn captured(&mut self, ms: u64, number: u64, was_full: bool) {
        let newest = self.source.newest.map(|it| it.position);
        let is_new = newest != Some(closed(number).position);
        let end = CaptureEnd { closed: closed(number), is_new, oldest: None, was_full };
        self.step(ms, SourceInput::Captured(end));
    }

    fn take(&mut self) -> Vec<SourceEffect> {
        let all = std::mem::take(&mut self.said);
        all.into_iter().filter(|it| !matches!(it, SourceEffect::Standing(_))).collect()
    }

    /// A change at `ms` is captured as `number` and sent from `base`.
    fn send(&mut self, ms: u64, number: u64, base: u64) {
        self.tick(ms + 200, Some(ms));
        self.captured(ms + 210, number, false);
        let base = Some(closed(base).position);
        let capture = SourceEffect::Capture { everything: false, freeze: false };
        assert_eq!(self.take(), [capture, SourceEffect::Send { to: closed(number), base }]);
    }
}

fn record(number: u64, register: Register) -> SourceEffect {
    SourceEffect::Record { number, register }
}

fn capture(everything: bool) -> SourceEffect {
    SourceEffect::Capture { everything, freeze: false }
}

#[test]
fn a_change_is_captured_once_it_settled_then_sent_recorded_and_complete() {
    let mut rig = Rig::in_sync();
    rig.tick(1100, Some(1000));
    assert_eq!(rig.take(), []);
    rig.send(1000, 2, 1);
    let position = closed(2).position;
    rig.say(1300, TreeNote::Staged { position });
    let register = Register::of(&closed(2));
    assert_eq!(rig.take(), [SourceEffect::StopSending, record(1, register)]);
    rig.tick(1400, None);
    assert_eq!(rig.source.lag(at(1400)), Duration::from_millis(400));
    rig.say(1400, TreeNote::Committed { position });
    assert_eq!(rig.source.lag(at(1400)), Duration::ZERO);
    rig.step(1500, SourceInput::Recorded { number: 1 });
    rig.say(1500, TreeNote::Applied { position });
    assert_eq!(rig.take(), []);
}

#[test]
fn the_next_generation_is_sent_only_from_what_the_target_says_to_have() {
    let mut rig = Rig::in_sync();
    rig.send(1000, 2, 1);
    rig.say(1300, TreeNote::Staged { position: closed(2).position });
    rig.tick(2200, Some(2000));
    rig.captured(2300, 3, false);
    rig.step(2300, SourceInput::Recorded { number: 1 });
    rig.take();
    rig.say(2400, TreeNote::Committed { position: closed(2).position });
    let base = Some(closed(2).position);
    assert_eq!(rig.take(), [SourceEffect::Send { to: closed(3), base }]);
}

#[test]
fn a_sync_needs_a_full_capture_of_after_it_and_what_the_target_applied() {
    let mut rig = Rig::in_sync();
    rig.tick(1200, Some(1000));
    assert_eq!(rig.take(), [capture(false)]);
    rig.step(1300, SourceInput::Sync { request: 7, freeze: true });
    rig.captured(1400, 2, false);
    let everything = SourceEffect::Capture { everything: true, freeze: true };
    let send = |number: u64, base: u64| SourceEffect::Send {
        to: closed(number),
        base: Some(closed(base).position),
    };
    assert_eq!(rig.take(), [send(2, 1), everything]);
    rig.captured(1500, 3, true);
    rig.say(1600, TreeNote::Staged { position: closed(2).position });
    rig.say(1700, TreeNote::Committed { position: closed(2).position });
    rig.say(1700, TreeNote::Applied { position: closed(2).position });
    rig.step(1700, SourceInput::Recorded { number: 1 });
    rig.say(1800, TreeNote::Staged { position: closed(3).position });
    rig.say(1900, TreeNote::Committed { position: closed(3).position });
    let early = rig.take();
    let is_answer = |it: &SourceEffect| matches!(it, SourceEffect::AnswerSync { .. });
    assert!(!early.iter().any(is_answer), "{early:?}");
    rig.say(2000, TreeNote::Applied { position: closed(3).position });
    assert_eq!(rig.take(), [answer(7, Ok(closed(3)))]);
}

#[test]
fn a_sync_of_a_tree_that_did_not_change_is_answered_after_a_look_at_it() {
    let mut rig = Rig::in_sync();
    rig.step(1000, SourceInput::Sync { request: 7, freeze: false });
    assert_eq!(rig.take(), [capture(true)]);
    rig.captured(1100, 1, true);
    assert_eq!(rig.take(), [answer(7, Ok(closed(1)))]);
}

#[test]
fn syncs_are_limited_and_fail_at_once_when_they_cannot_be_done() {
    let mut rig = Rig::in_sync();
    for request in 0..65 {
        rig.step(1000, SourceInput::Sync { request, freeze: false });
    }
    assert_eq!(rig.take(), [capture(true), answer(64, Err(SyncError::Busy))]);
    rig.step(1000, SourceInput::SyncGivenUp { request: 0 });
    rig.step(1100, SourceInput::Halted { oldest: None });
    let failed = rig.take();
    assert_eq!(failed.len(), 63, "{failed:?}");
    let mut rig = Rig::in_sync();
    rig.step(1000, SourceInput::Sync { request: 1, freeze: false });
    rig.step(1000, SourceInput::PeerLost);
    rig.step(1000, SourceInput::Sync { request: 2, freeze: false });
    rig.step(1000, SourceInput::StopServing);
    rig.step(1000, SourceInput::Sync { request: 3, freeze: false });
    let lost = |request| answer(request, Err(SyncError::PeerLost));
    let stopped = answer(3, Err(SyncError::Stopped));
    assert_eq!(rig.take(), [capture(true), lost(1), lost(2), stopped]);
}

#[test]
fn a_target_that_is_too_far_behind_is_excluded_once_and_joins_again_after_a_calm() {
    let mut rig = Rig::in_sync();
    rig.tick(1200, Some(1000));
    rig.captured(1300, 2, false);
    rig.take();
    rig.tick(9000, None);
    assert_eq!(rig.take(), [], "at 80 % it is fit");
    rig.tick(9001, None);
    let excluded = [SourceEffect::Exclude, SourceEffect::StopSending, record(1, Register::Open)];
    assert_eq!(rig.take(), excluded);
    rig.tick(20_000, None);
    rig.step(20_000, SourceInput::Recorded { number: 1 });
    assert_eq!(rig.take(), [], "once");
    rig.meet(20_000, 1);
    rig.say(21_000, TreeNote::Staged { position: closed(2).position });
    let base = Some(closed(1).position);
    assert_eq!(rig.take(), [SourceEffect::Send { to: closed(2), base }, SourceEffect::StopSending]);
    let calm = 9001 + u64::try_from(CALM.as_millis()).unwrap();
    rig.tick(calm - 1, None);
    assert_eq!(rig.take(), []);
    rig.tick(calm, None);
    let joined = [record(2, Register::of(&closed(2))), SourceEffect::Admit];
    assert_eq!(rig.take(), joined);
    // What it is about to commit counts, not what it has.
    rig.tick(calm + 1, None);
    assert_eq!(rig.take(), []);
}

#[test]
fn an_excluded_target_stays_out_while_what_it_staged_is_old() {
    let mut rig = Rig::in_sync();
    rig.tick(1200, Some(1000));
    rig.captured(1300, 2, false);
    rig.tick(9001, None);
    rig.meet(10_000, 1);
    rig.say(10_000, TreeNote::Staged { position: closed(2).position });
    rig.take();
    // The tree changed, and the capture of that does not end.
    rig.tick(45_200, Some(45_000));
    rig.tick(50_000, Some(45_000));
    let joins = |it: &SourceEffect| matches!(it, SourceEffect::Record { .. });
    assert!(rig.take().iter().any(joins), "it may join while that is below half of the bound");
    let mut rig = Rig::in_sync();
    rig.tick(1200, Some(1000));
    rig.captured(1300, 2, false);
    rig.tick(9001, None);
    rig.meet(10_000, 1);
    rig.say(10_000, TreeNote::Staged { position: closed(2).position });
    rig.tick(30_200, Some(30_000));
    rig.take();
    rig.tick(60_000, Some(30_000));
    assert_eq!(rig.take(), []);
}

#[test]
fn what_was_staged_in_another_session_is_not_recorded() {
    let mut rig = Rig::in_sync();
    rig.send(1000, 2, 1);
    rig.step(1300, SourceInput::PeerLost);
    rig.say(1300, TreeNote::Staged { position: closed(2).position });
    assert_eq!(rig.take(), [SourceEffect::StopSending]);
    rig.meet(1400, 1);
    let base = Some(closed(1).position);
    let again = [SourceEffect::Admit, SourceEffect::Send { to: closed(2), base }];
    assert_eq!(rig.take(), again);
}

#[test]
fn a_node_alone_says_at_once_that_a_generation_is_open() {
    let mut rig = Rig::in_sync();
    rig.step(1000, SourceInput::PeerLost);
    rig.step(1000, SourceInput::BecameAlone);
    rig.step(1000, SourceInput::BecameAlone);
    assert_eq!(rig.take(), [record(1, Register::Open)]);
    let mut rig = Rig { source: Source::new(SETTINGS), said: Vec::new() };
    let (newest, register) = (Some(closed(1)), Some(Register::of(&closed(1))));
    rig.step(0, SourceInput::Serve(Serving { newest, register, is_alone: true, since: at(0) }));
    assert_eq!(rig.take(), [record(1, Register::Open), capture(true)]);
    // A target that has just that is counted again, without a transfer.
    rig.step(1000, SourceInput::Recorded { number: 1 });
    rig.meet(1000, 1);
    assert_eq!(rig.take(), [record(2, Register::of(&closed(1))), SourceEffect::Admit]);
}

#[test]
fn a_chunk_that_is_gone_costs_a_capture_and_an_answer_before_anything_else_is_sent() {
    let mut rig = Rig::in_sync();
    rig.send(1000, 2, 1);
    let (object, chunk) = (ObjectId(5), 3);
    rig.step(1300, SourceInput::ChunkGone { object, chunk });
    let gone = TreeNote::ChunkGone { object, chunk };
    let say = SourceEffect::Say(gone.clone());
    assert_eq!(rig.take(), [SourceEffect::StopSending, say, capture(false)]);
    rig.step(1300, SourceInput::ChunkGone { object, chunk });
    rig.tick(1900, None);
    assert_eq!(rig.take(), []);
    rig.captured(2000, 3, false);
    assert_eq!(rig.take(), []);
    rig.say(2000, TreeNote::ChunkGone { object, chunk: chunk + 1 });
    assert_eq!(rig.take(), []);
    rig.say(2000, gone);
    let base = Some(closed(1).position);
    assert_eq!(rig.take(), [SourceEffect::Send { to: closed(3), base }]);
}

#[test]
fn what_the_target_gave_up_after_it_was_recorded_is_recorded_again() {
    let mut rig = Rig::in_sync();
    rig.send(1000, 2, 1);
    let (position, register) = (closed(2).position, Register::of(&closed(2)));
    rig.say(1300, TreeNote::Staged { position });
    rig.step(1300, SourceInput::Recorded { number: 1 });
    assert_eq!(rig.take(), [SourceEffect::StopSending, record(1, register)]);
    rig.say(1400, TreeNote::TreeRefused { why: TreeRefusal::Space, words: String::new() });
    rig.tick(2000, None);
    rig.say(2100, TreeNote::Staged { position });
    let send = SourceEffect::Send { to: closed(2), base: Some(closed(1).position) };
    assert_eq!(rig.take(), [send, SourceEffect::StopSending, record(2, register)]);
    rig.say(2100, TreeNote::Staged { position });
    assert_eq!(rig.take(), []);
}

#[test]
fn a_root_that_does_not_come_out_is_answered_with_the_whole_tree() {
    let mut rig = Rig::in_sync();
    rig.send(1000, 2, 1);
    let words = String::new();
    rig.say(1300, TreeNote::TreeRefused { why: TreeRefusal::Root, words });
    assert_eq!(rig.take(), [SourceEffect::StopSending]);
    rig.tick(1400, None);
    assert_eq!(rig.take(), [], "after a pause");
    rig.tick(1500, None);
    assert_eq!(rig.take(), [SourceEffect::Send { to: closed(2), base: None }]);
}

#[test]
fn a_halted_source_sends_nothing_and_is_judged_anew() {
    let mut rig = Rig::in_sync();
    rig.tick(1200, Some(1000));
    rig.step(1300, SourceInput::Halted { oldest: Some(at(900)) });
    assert_eq!(rig.source.lag(at(1300)), Duration::from_millis(400));
    let halted = Standing::Unfit { why: UnfitWhy::Halted, calm_since: None };
    assert_eq!(rig.source.standing(), Some(halted));
    rig.take();
    rig.tick(1400, Some(1300));
    assert_eq!(rig.take(), []);
    rig.tick(1500, Some(1300));
    assert_eq!(rig.take(), [capture(false)]);
    rig.captured(1600, 2, false);
    assert_eq!(rig.source.standing(), Some(Standing::Fit));
}

#[test]
fn a_target_with_another_scope_is_no_peer() {
    let mut rig = Rig::in_sync();
    let position = closed(1).position;
    rig.step(1000, SourceInput::Position { position, scope_digest: [5; 32], is_known: true });
    let said = rig.take();
    let refused = matches!(
        &said[..],
        [SourceEffect::Say(TreeNote::TreeRefused { why: TreeRefusal::Scope, .. })]
    );
    assert!(refused, "{said:?}");
    rig.say(1000, TreeNote::Applied { position: closed(9).position });
    assert_eq!(rig.take(), []);
}

#[test]
fn a_target_that_breaks_a_rule_is_left() {
    let gone = closed(9).position;
    for note in [
        TreeNote::DeltaRecords { packing: Packing::Raw },
        TreeNote::Committed { position: gone },
        TreeNote::Applied { position: gone },
        TreeNote::Chunks { table: vec![], packing: Packing::Raw },
    ] {
        let mut rig = Rig::in_sync();
        rig.say(1000, note.clone());
        let said = rig.take();
        assert!(matches!(said[..], [SourceEffect::Close { .. }]), "{note:?}: {said:?}");
        assert_eq!(rig.source.lag(at(1000)), Duration::ZERO);
    }
}

#[test]
fn no_more_chunks_are_wanted_than_may_be_on_their_way() {
    let mut rig = Rig::in_sync();
    let want = |count| TreeNote::Want {
        chunks: vec![WantedChunks { object: ObjectId(5), first: 0, count }],
    };
    rig.say(1000, want(9));
    assert_eq!(rig.take(), [], "nothing is being sent");
    rig.send(1000, 2, 1);
    rig.say(1300, want(512));
    rig.step(1300, SourceInput::ChunksSent { count: 100 });
    rig.say(1300, want(100));
    let said = rig.take();
    assert!(said.iter().all(|it| matches!(it, SourceEffect::SendChunks(_))), "{said:?}");
    rig.say(1300, want(1));
    assert!(matches!(rig.take()[..], [SourceEffect::Close { .. }]));
}

#[test]
fn records_that_lost_sessions_leave_behind_are_limited() {
    let mut rig = Rig::in_sync();
    for number in 2..30 {
        let ms = number * 300;
        rig.tick(ms, Some(ms - 250));
        rig.captured(ms, number, false);
        rig.say(ms, TreeNote::Staged { position: closed(number).position });
        rig.step(ms, SourceInput::PeerLost);
        rig.meet(ms, 1);
    }
    let said = rig.take();
    let is_complete = |it: &&SourceEffect| {
        matches!(it, SourceEffect::Record { register: Register::Complete { .. }, .. })
    };
    assert_eq!(said.iter().filter(is_complete).count(), 8);
}

#[test]
fn a_target_that_had_what_it_is_sent_is_sent_the_next_generation_from_there() {
    let mut rig = Rig { source: Source::new(SETTINGS), said: Vec::new() };
    // Before this node serves nobody can say what the position means.
    let position = closed(1).position;
    rig.step(0, SourceInput::Position { position, scope_digest: [4; 32], is_known: false });
    let register = Some(Register::of(&closed(1)));
    let newest = Some(closed(1));
    rig.step(0, SourceInput::Serve(Serving { newest, register, is_alone: false, since: at(0) }));
    assert!(rig.take().contains(&SourceEffect::Send { to: closed(1), base: None }));
    rig.captured(10, 2, true);
    assert_eq!(rig.take(), [], "one at a time");
    rig.say(20, TreeNote::Committed { position });
    let all = rig.take();
    assert!(all.contains(&SourceEffect::StopSending), "{all:?}");
    let next = SourceEffect::Send { to: closed(2), base: Some(position) };
    assert!(all.contains(&next), "{all:?}");
}

/// A node that nobody writes to sends what its register names, and only that.
fn lending() -> Rig {
    let mut rig = Rig { source: Source::new(SETTINGS), said: Vec::new() };
    rig.step(0, SourceInput::Lend { newest: closed(1) });
    let position = TreePosition::default();
    rig.step(1, SourceInput::Position { position, scope_digest: [4; 32], is_known: false });
    assert_eq!(rig.take(), [SourceEffect::Send { to: closed(1), base: None }]);
    rig
}

#[test]
fn a_node_that_does_not_serve_sends_what_the_register_names_and_captures_nothing() {
    let mut rig = lending();
    rig.tick(60_000, None);
    assert_eq!(rig.take(), []);
    rig.say(60_000, TreeNote::Staged { position: closed(1).position });
    assert_eq!(rig.take(), [SourceEffect::StopSending, SourceEffect::Admit]);
    rig.say(60_010, TreeNote::Committed { position: closed(1).position });
    rig.say(60_020, TreeNote::Applied { position: closed(1).position });
    rig.step(60_030, SourceInput::Sync { request: 1, freeze: false });
    let result = Err(SyncError::Stopped);
    assert_eq!(rig.take(), [SourceEffect::AnswerSync { request: 1, result }]);
}

#[test]
fn a_node_that_does_not_serve_sends_nothing_of_a_tree_that_was_changed() {
    let mut rig = lending();
    let (object, chunk) = (ObjectId(9), 0);
    rig.step(10, SourceInput::ChunkGone { object, chunk });
    let gone = SourceEffect::Say(TreeNote::ChunkGone { object, chunk });
    assert_eq!(rig.take(), [SourceEffect::StopSending, gone]);
    rig.say(20, TreeNote::ChunkGone { object, chunk });
    rig.tick(600_000, None);
    assert_eq!(rig.take(), []);
    // Once it serves the change is captured, and what was captured is sent.
    let register = Some(Register::of(&closed(1)));
    let newest = Some(closed(1));
    let since = at(600_000);
    rig.step(600_000, SourceInput::Serve(Serving { newest, register, is_alone: false, since }));
    rig.take();
    rig.captured(600_100, 2, true);
    let sent = rig.take();
    assert!(sent.contains(&SourceEffect::Send { to: closed(2), base: None }), "{sent:?}");
}

#[test]
fn what_is_being_sent_goes_on_when_the_node_begins_to_serve() {
    let mut rig = lending();
    let register = Some(Register::of(&closed(1)));
    let serving = Serving { newest: Some(closed(1)), register, is_alone: false, since: at(10) };
    rig.step(10, SourceInput::Serve(serving));
    assert_eq!(rig.take(), [capture(true)]);
    rig.captured(20, 1, true);
    rig.say(30, TreeNote::Staged { position: closed(1).position });
    assert_eq!(rig.take(), [SourceEffect::StopSending, SourceEffect::Admit]);
}
