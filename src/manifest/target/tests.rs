//! Facts about single steps.

use super::*;
use crate::units::{ObjectId, TreeRoot};
use crate::wire::WantedChunks;

fn position(number: u64) -> TreePosition {
    TreePosition { number: TreeNumber(number), root: TreeRoot([u8::try_from(number).unwrap(); 32]) }
}

fn run(first: u64, count: u32) -> WantedChunks {
    WantedChunks { object: ObjectId(5), first, count }
}

const RECORDS: TreeNote = TreeNote::DeltaRecords { packing: Packing::Raw };
const SPACE: Space = Space { staged_bytes: 1, free_bytes: 2 };

struct Rig {
    target: Target,
    did: Vec<TargetEffect>,
}

impl Rig {
    /// In a session, with generation 1.
    fn new() -> Self {
        let mut rig = Self { target: Target::new([4; 32], position(1)), did: Vec::new() };
        rig.step(TargetInput::SessionUp { position: position(1), space: SPACE, register: None });
        let applied = TargetEffect::Say(TreeNote::Applied { position: position(1) });
        assert_eq!(rig.take(), [said_position(1), applied]);
        rig
    }

    fn step(&mut self, input: TargetInput) {
        self.target.step(input, &mut self.did);
    }

    fn say(&mut self, note: TreeNote) {
        let len =
            usize::from(matches!(note, TreeNote::DeltaRecords { .. } | TreeNote::Chunks { .. }));
        let payload = Payload::unhashed(vec![0; len].into());
        self.step(TargetInput::Said(TreeMessage { note, payload }));
    }

    fn take(&mut self) -> Vec<TargetEffect> {
        std::mem::take(&mut self.did)
    }

    fn open(&mut self, number: u64, base: TreePosition) {
        self.say(TreeNote::DeltaOpen { base, number: TreeNumber(number), entries: 1, bytes: 1 });
    }

    fn end(&mut self, to: TreePosition) {
        self.say(TreeNote::DeltaEnd { position: to, label: Label::Stable, fuzzy_count: 0 });
    }

    /// A delta to `number` is checked, as this attempt.
    fn check(&mut self, number: u64, attempt: u64) {
        self.open(number, position(number - 1));
        self.say(RECORDS);
        self.end(position(number));
        self.step(TargetInput::Checked { attempt: Attempt(attempt), result: Ok(()) });
    }

    /// All of it is there.
    fn stage(&mut self, number: u64, attempt: u64) {
        self.check(number, attempt);
        let attempt = Attempt(attempt);
        self.step(TargetInput::Wants { attempt, chunks: vec![], is_all: true });
        self.step(TargetInput::AllStaged { attempt });
    }

    fn prepare(&mut self, number: u64, attempt: u64) {
        self.stage(number, attempt);
        let (attempt, result) = (Attempt(attempt), Preparation::Ready);
        self.step(TargetInput::Prepared { attempt, result });
        assert_eq!(self.take().last(), Some(&staged(number)));
    }

    fn ask(&mut self, io: u64, number: u64) {
        let position = Some(position(number));
        self.step(TargetInput::RegisterAsked { io: Io(io), position });
    }

    fn refused(&mut self) -> Option<TreeRefusal> {
        self.take().into_iter().find_map(|it| {
            if let TargetEffect::Say(TreeNote::TreeRefused { why, .. }) = it {
                Some(why)
            } else {
                None
            }
        })
    }
}

fn said_position(number: u64) -> TargetEffect {
    TargetEffect::Say(TreeNote::Position {
        position: position(number),
        scope_digest: [4; 32],
        staged_bytes: 1,
        free_bytes: 2,
    })
}

fn staged(number: u64) -> TargetEffect {
    TargetEffect::Say(TreeNote::Staged { position: position(number) })
}

fn complete(io: u64, outcome: Outcome) -> TargetEffect {
    TargetEffect::Complete { io: Io(io), outcome }
}

fn commit(io: u64, attempt: u64, number: u64) -> TargetEffect {
    TargetEffect::Commit { io: Some(Io(io)), attempt: Attempt(attempt), position: position(number) }
}

fn refusal(why: TreeRefusal) -> Refusal {
    Refusal { why, words: String::new() }
}

#[test]
fn a_register_commits_what_is_prepared_and_nothing_else() {
    let mut rig = Rig::new();
    rig.stage(2, 1);
    rig.take();
    rig.ask(1, 2);
    assert_eq!(rig.take(), [complete(1, Outcome::NotStaged)], "not prepared");
    rig.step(TargetInput::Prepared { attempt: Attempt(1), result: Preparation::Ready });
    rig.take();
    rig.ask(2, 3);
    rig.step(TargetInput::RegisterAsked { io: Io(3), position: None });
    assert_eq!(rig.take(), [complete(2, Outcome::NotStaged), complete(3, Outcome::NotStaged)]);
    rig.ask(4, 1);
    assert_eq!(rig.take(), [TargetEffect::Store { io: Io(4) }], "the tree is that");
    rig.ask(5, 2);
    assert_eq!(rig.take(), [commit(5, 1, 2)]);
    rig.ask(6, 2);
    rig.ask(7, 1);
    assert_eq!(rig.take(), [complete(7, Outcome::NotStaged)]);
    rig.step(TargetInput::Committed(CommitEnd::Done));
    let committed = TargetEffect::Say(TreeNote::Committed { position: position(2) });
    let store = TargetEffect::Store { io: Io(6) };
    let done = [complete(5, Outcome::Done), store, committed, TargetEffect::Apply];
    assert_eq!(rig.take(), done);
    assert_eq!(rig.target.position(), position(2));
}

#[test]
fn the_next_generation_is_staged_while_this_one_is_applied_and_prepared_after_that() {
    let mut rig = Rig::new();
    rig.prepare(2, 1);
    rig.ask(1, 2);
    rig.step(TargetInput::Committed(CommitEnd::Done));
    rig.stage(3, 2);
    let did = rig.take();
    assert!(!did.iter().any(|it| matches!(it, TargetEffect::Prepare { .. })), "{did:?}");
    rig.step(TargetInput::SyncAsked { io: Io(2) });
    assert_eq!(rig.take(), [], "a sync waits for the apply");
    rig.step(TargetInput::Applied { end: ApplyEnd::Done, space: SPACE });
    let applied = TargetEffect::Say(TreeNote::Applied { position: position(2) });
    let prepare = TargetEffect::Prepare { attempt: Attempt(2) };
    assert_eq!(rig.take(), [complete(2, Outcome::Done), applied, said_position(2), prepare]);
    rig.step(TargetInput::SyncAsked { io: Io(3) });
    assert_eq!(rig.take(), [complete(3, Outcome::Done)]);
}

#[test]
fn no_more_is_wanted_than_the_credit_and_more_once_half_of_it_is_free() {
    let mut rig = Rig::new();
    rig.check(2, 1);
    let attempt = Attempt(1);
    let more = |chunks_max| TargetEffect::StageMore { attempt, chunks_max };
    assert_eq!(rig.take().last(), Some(&more(512)));
    rig.step(TargetInput::Wants { attempt, chunks: vec![run(0, 512)], is_all: false });
    let want = TargetEffect::Say(TreeNote::Want { chunks: vec![run(0, 512)] });
    assert_eq!(rig.take(), [want]);
    let place = |chunk| ChunkPlace { object: ObjectId(5), chunk, len: 1 };
    let came = |from: u64, to: u64| TreeNote::Chunks {
        table: (from..to).map(place).collect(),
        packing: Packing::Raw,
    };
    rig.say(came(0, 255));
    assert!(matches!(rig.take()[..], [TargetEffect::Put { .. }]));
    rig.say(came(255, 256));
    let did = rig.take();
    assert!(matches!(&did[..], [TargetEffect::Put { .. }, last] if *last == more(256)), "{did:?}");
    rig.step(TargetInput::AllStaged { attempt });
    assert_eq!(rig.take(), [], "chunks are still to come");
    rig.step(TargetInput::Wants { attempt, chunks: vec![run(600, 257)], is_all: true });
    assert_eq!(rig.refused(), Some(TreeRefusal::Limit), "more than was asked for");
}

#[test]
fn chunks_that_were_not_wanted_and_notes_that_cannot_come_close_the_link() {
    let closes = |rig: &mut Rig, note: TreeNote| {
        rig.say(note);
        rig.take().iter().any(|it| matches!(it, TargetEffect::Close { .. }))
    };
    let place = ChunkPlace { object: ObjectId(5), chunk: 0, len: 1 };
    let chunks = TreeNote::Chunks { table: vec![place], packing: Packing::Raw };
    let end = |number| TreeNote::DeltaEnd {
        position: position(number),
        label: Label::Fuzzy,
        fuzzy_count: 0,
    };
    let mut rig = Rig::new();
    assert!(!closes(&mut rig, chunks.clone()), "of a delta that was refused");
    assert!(!closes(&mut rig, RECORDS) && !closes(&mut rig, end(2)));
    rig.check(2, 1);
    assert!(closes(&mut rig, chunks.clone()), "nothing is wanted yet");
    let attempt = Attempt(1);
    rig.step(TargetInput::Wants { attempt, chunks: vec![run(0, 1)], is_all: true });
    assert!(!closes(&mut rig, chunks.clone()));
    assert!(closes(&mut rig, chunks), "it came already");
    assert!(closes(&mut rig, RECORDS), "all records came");
    assert!(closes(&mut rig, end(2)), "twice");
    assert!(closes(&mut rig, TreeNote::Staged { position: position(2) }));
    assert!(closes(&mut rig, TreeNote::Want { chunks: vec![run(0, 1)] }));
    let mut rig = Rig::new();
    rig.open(2, position(1));
    assert!(closes(&mut rig, end(3)), "another one ends");
}

#[test]
fn compressed_bytes_that_are_not_what_they_say_close_the_link_and_end_the_delta() {
    let mut rig = Rig::new();
    rig.open(2, position(1));
    rig.say(TreeNote::DeltaRecords { packing: Packing::Lz4 { raw_len: 5 } });
    let did = rig.take();
    let packed = Packing::Lz4 { raw_len: 5 };
    let is_passed_on =
        matches!(did.last(), Some(TargetEffect::Push { packing, .. }) if *packing == packed);
    assert!(is_passed_on, "{did:?}");
    rig.step(TargetInput::Garbled { attempt: Attempt(2) });
    assert_eq!(rig.take(), [], "of a delta that was given up");
    let attempt = Attempt(1);
    rig.step(TargetInput::Garbled { attempt });
    let did = rig.take();
    assert!(matches!(did[..], [TargetEffect::Drop { .. }, TargetEffect::Close { .. }]), "{did:?}");
    rig.step(TargetInput::Garbled { attempt });
    assert_eq!(rig.take(), [], "once");
}

#[test]
fn what_is_whole_survives_a_lost_session_and_what_is_not_does_not() {
    let mut rig = Rig::new();
    rig.stage(2, 1);
    rig.take();
    rig.step(TargetInput::SessionLost);
    rig.step(TargetInput::Prepared { attempt: Attempt(1), result: Preparation::Ready });
    assert_eq!(rig.take(), [], "nobody to tell");
    rig.step(TargetInput::SessionUp { position: position(1), space: SPACE, register: None });
    let applied = TargetEffect::Say(TreeNote::Applied { position: position(1) });
    assert_eq!(rig.take(), [said_position(1), applied, staged(2)]);
    rig.open(2, position(1));
    rig.say(RECORDS);
    assert_eq!(rig.take(), [], "it is not taken twice");
    rig.end(position(2));
    assert_eq!(rig.take(), [staged(2)]);
    rig.open(3, position(1));
    let dropped = TargetEffect::Drop { attempt: Attempt(1) };
    assert_eq!(rig.take().first(), Some(&dropped), "a newer one replaces it");
    rig.step(TargetInput::SessionLost);
    assert_eq!(rig.take(), [TargetEffect::Drop { attempt: Attempt(2) }]);
    rig.step(TargetInput::Checked { attempt: Attempt(2), result: Ok(()) });
    assert_eq!(rig.take(), [], "what a driver says of it is late");
}

#[test]
fn another_generation_under_a_number_that_is_here_is_refused() {
    let mut rig = Rig::new();
    rig.prepare(2, 1);
    rig.open(2, position(1));
    rig.end(TreePosition { root: TreeRoot([9; 32]), ..position(2) });
    assert_eq!(rig.refused(), Some(TreeRefusal::Root));
    rig.ask(1, 2);
    assert_eq!(rig.take(), [complete(1, Outcome::NotStaged)]);
}

#[test]
fn a_delta_that_the_order_to_commit_it_has_overtaken_is_not_begun_again() {
    let mut rig = Rig::new();
    rig.prepare(2, 1);
    rig.ask(1, 2);
    rig.take();
    rig.open(2, TreePosition::default());
    rig.say(RECORDS);
    rig.end(position(2));
    assert_eq!(rig.take(), []);
    rig.step(TargetInput::Committed(CommitEnd::Done));
    rig.take();
    rig.open(2, TreePosition::default());
    rig.end(position(2));
    let committed = TargetEffect::Say(TreeNote::Committed { position: position(2) });
    assert_eq!(rig.take(), [committed]);
}

#[test]
fn a_delta_from_elsewhere_is_refused_but_one_of_a_whole_tree_is_taken() {
    let mut rig = Rig::new();
    rig.open(9, position(8));
    assert_eq!(rig.refused(), Some(TreeRefusal::Position));
    rig.open(9, TreePosition::default());
    let (attempt, number) = (Attempt(1), TreeNumber(9));
    assert_eq!(rig.take(), [TargetEffect::Begin { attempt, base: None, number }]);
}

#[test]
fn the_first_word_waits_for_a_commit_and_not_for_an_apply() {
    let mut rig = Rig::new();
    rig.prepare(2, 1);
    rig.ask(1, 2);
    rig.step(TargetInput::SessionLost);
    rig.take();
    rig.step(TargetInput::SessionUp { position: position(1), space: SPACE, register: None });
    rig.open(3, position(1));
    assert_eq!(rig.take(), []);
    rig.step(TargetInput::Committed(CommitEnd::Done));
    assert_eq!(rig.take(), [complete(1, Outcome::Done), TargetEffect::Apply, said_position(2)]);
}

#[test]
fn a_chunk_that_is_gone_ends_the_delta_and_is_repeated() {
    let mut rig = Rig::new();
    rig.check(2, 1);
    rig.take();
    let gone = TreeNote::ChunkGone { object: ObjectId(5), chunk: 0 };
    rig.say(gone.clone());
    assert_eq!(rig.take(), [TargetEffect::Drop { attempt: Attempt(1) }, TargetEffect::Say(gone)]);
}

#[test]
fn what_is_refused_is_dropped_and_said() {
    let foreign = TargetInput::Prepared { attempt: Attempt(1), result: Preparation::Foreign };
    let space =
        TargetInput::StageFailed { attempt: Attempt(1), refusal: refusal(TreeRefusal::Space) };
    let record =
        TargetInput::Checked { attempt: Attempt(1), result: Err(refusal(TreeRefusal::Record)) };
    for (input, why) in [
        (foreign, TreeRefusal::Foreign),
        (space, TreeRefusal::Space),
        (record, TreeRefusal::Record),
    ] {
        let mut rig = Rig::new();
        rig.check(2, 1);
        rig.take();
        rig.step(input);
        let did = rig.take();
        assert_eq!(did.first(), Some(&TargetEffect::Drop { attempt: Attempt(1) }));
        rig.did = did;
        assert_eq!(rig.refused(), Some(why));
    }
}

#[test]
fn an_undone_apply_is_told_to_whoever_relies_on_it() {
    let mut rig = Rig::new();
    rig.prepare(2, 1);
    rig.ask(1, 2);
    rig.step(TargetInput::Committed(CommitEnd::Done));
    rig.step(TargetInput::SyncAsked { io: Io(2) });
    rig.take();
    let end = ApplyEnd::Undone { position: position(1), refusal: refusal(TreeRefusal::Space) };
    rig.step(TargetInput::Applied { end, space: SPACE });
    let did = rig.take();
    assert_eq!(did[..2], [complete(2, Outcome::Undone), said_position(1)]);
    rig.did = did;
    assert_eq!(rig.refused(), Some(TreeRefusal::Space));
    assert_eq!(rig.target.position(), position(1));
}

#[test]
fn nothing_comes_from_a_disk_that_failed() {
    let mut rig = Rig::new();
    rig.prepare(2, 1);
    rig.ask(1, 2);
    rig.ask(2, 2);
    rig.step(TargetInput::SyncAsked { io: Io(3) });
    rig.take();
    rig.step(TargetInput::Committed(CommitEnd::Failed));
    assert_eq!(rig.take(), [1, 2, 3].map(|io| complete(io, Outcome::Failed)));
    rig.ask(4, 1);
    rig.step(TargetInput::SyncAsked { io: Io(5) });
    assert_eq!(rig.take(), [4, 5].map(|io| complete(io, Outcome::Failed)));
    rig.step(TargetInput::SessionUp { position: position(1), space: SPACE, register: None });
    assert_eq!(rig.take(), []);
}

#[test]
fn requests_that_wait_are_limited() {
    let mut rig = Rig::new();
    rig.prepare(2, 1);
    rig.ask(1, 2);
    rig.take();
    for io in 2..2000 {
        rig.step(TargetInput::SyncAsked { io: Io(io) });
    }
    for io in 2000..2100 {
        rig.ask(io, 2);
    }
    let did = rig.take();
    let refused = |it: &&TargetEffect, outcome| matches!(it, TargetEffect::Complete { outcome: found, .. } if *found == outcome);
    assert_eq!(did.iter().filter(|it| refused(it, Outcome::Busy)).count(), 1998 - 1024);
    assert_eq!(did.iter().filter(|it| refused(it, Outcome::NotStaged)).count(), 84);
}

#[test]
fn what_the_register_names_already_is_committed_as_soon_as_it_is_prepared() {
    // It served, and crashed: what its tree is nobody knows, what its register names is true.
    let mut rig = Rig { target: Target::new([4; 32], TreePosition::default()), did: Vec::new() };
    let (register, space) = (Some(position(2)), SPACE);
    rig.step(TargetInput::SessionUp { position: TreePosition::default(), space, register });
    rig.open(2, TreePosition::default());
    rig.say(RECORDS);
    rig.end(position(2));
    let attempt = Attempt(1);
    rig.step(TargetInput::Checked { attempt, result: Ok(()) });
    rig.step(TargetInput::Wants { attempt, chunks: vec![], is_all: true });
    rig.step(TargetInput::AllStaged { attempt });
    rig.take();
    rig.step(TargetInput::Prepared { attempt, result: Preparation::Ready });
    assert_eq!(rig.take(), [TargetEffect::Commit { io: None, attempt, position: position(2) }]);
    // A transfer that writes it all the same waits for the commit, and is answered.
    rig.ask(1, 2);
    assert_eq!(rig.take(), []);
    rig.step(TargetInput::Committed(CommitEnd::Done));
    let store = TargetEffect::Store { io: Io(1) };
    assert_eq!(rig.take(), [store, staged(2), said_position(2), TargetEffect::Apply]);
}
