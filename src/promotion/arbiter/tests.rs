//! What each operation may do, over every record and lease, and a seat whose disk and clock a test
//! moves.
#![allow(clippy::wildcard_enum_match_arm, reason = "a test names what it expects")]

use std::time::Duration;

use super::*;
use crate::units::{ArbiterId, Epoch, Generation, Instance, Instant, Side};

const STORE: ArbiterId = ArbiterId(7);
const EPOCH: Epoch = Epoch(40);
const A: Side = Side::First;
const B: Side = Side::Second;

fn generation(number: u64) -> Generation {
    Generation { number, id: u128::from(number) }
}

fn record(owner: Side, eligible: Eligible) -> ArbiterRecord {
    ArbiterRecord {
        arbiter: STORE,
        epoch: EPOCH,
        owner,
        eligible,
        generation: generation(3),
        lease_ms: 3_000,
        stopped: false,
        forced: false,
        identities: [[1; 32], [2; 32]],
        requests: [RequestId::default(); 2],
        changed_by: owner,
    }
}

fn request(from: Side, operation: Operation) -> Request {
    let instance = Instance(if from == A { 0xa } else { 0xb });
    Request {
        from,
        id: RequestId { instance, number: 9 },
        arbiter: STORE,
        arbiter_epoch: EPOCH,
        epoch: EPOCH,
        lease_ms: 3_000,
        operation,
    }
}

fn promote(numbers: &[u64], dead: Option<u64>, by_operator: bool) -> Operation {
    let history = numbers.iter().map(|number| generation(*number)).collect();
    Operation::Promote { history, dead: dead.map(Instance), by_operator }
}

fn operations() -> Vec<Operation> {
    let mut all = vec![
        Operation::Renew,
        Operation::Solo { generation: generation(4) },
        Operation::Handover,
        Operation::Keep,
        Operation::Stop,
        Operation::Release { instance: Instance(0xa) },
        Operation::Force { floor: Epoch(1 << 20) },
    ];
    for history in [vec![generation(3)], vec![generation(4), generation(3)], vec![generation(2)]] {
        all.push(Operation::PreVote { history: history.clone() });
        all.push(Operation::Pair { generation: generation(3), history: history.clone() });
        for dead in [None, Some(Instance(0xa)), Some(Instance(0xb))] {
            for by_operator in [false, true] {
                let history = history.clone();
                all.push(Operation::Promote { history, dead, by_operator });
            }
        }
    }
    all
}

/// Every record, what is known beside it, and every request at its epoch.
fn for_all(mut check: impl FnMut(&ArbiterRecord, Known<'_>, &Request)) {
    let holders: [&[Instance]; 3] = [&[], &[Instance(0xa)], &[Instance(0xa), Instance(0xb)]];
    for (owner, eligible) in
        [(A, Eligible::Owner), (A, Eligible::Both), (B, Eligible::Owner), (B, Eligible::Both)]
    {
        for stopped in [false, true] {
            let record = ArbiterRecord { stopped, ..record(owner, eligible) };
            for leases in holders {
                for is_in_hold_down in [false, true] {
                    let known = Known { leases, is_in_hold_down };
                    for operation in operations() {
                        for from in [A, B] {
                            check(&record, known, &request(from, operation.clone()));
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_change_makes_a_new_epoch_of_the_arbiters_own_and_names_its_request() {
    for_all(|record, known, request| {
        if let Ruling::Change(new, _) = judge(record, known, request) {
            assert!(new.epoch > record.epoch && new.epoch.0 % 4 == 0, "{request:?}");
            assert!(new.was_made_by(request.from, request.id));
            assert_eq!(judge(&new, known, request), Ruling::Repeated);
            let later = Request { epoch: new.epoch, ..request.clone() };
            let other = RequestId { number: 10, ..request.id };
            assert_ne!(judge(&new, known, &Request { id: other, ..later }), Ruling::Repeated);
        }
    });
}

#[test]
fn the_owner_changes_only_by_its_own_word_or_once_its_leases_are_over() {
    for_all(|record, known, request| {
        let Ruling::Change(new, lease) = judge(record, known, request) else { return };
        if new.owner == record.owner {
            let is_given_up = matches!(request.operation, Operation::Stop);
            assert_eq!(lease == LeaseChange::End, is_given_up, "{request:?}");
            return;
        }
        assert_eq!(lease, LeaseChange::End);
        match &request.operation {
            Operation::Handover => assert_eq!(record.eligible, Eligible::Both),
            Operation::Force { floor } => {
                assert!(known.leases.is_empty() && new.forced && new.epoch > *floor);
                assert_eq!(new.epoch.0 % 65_536, 0);
            }
            Operation::Promote { history, dead, by_operator } => {
                assert_eq!((request.from, new.eligible), (new.owner, Eligible::Owner));
                assert!(record.eligible == Eligible::Both && !known.is_in_hold_down);
                assert!(history.contains(&record.generation) && !new.stopped);
                assert!(!record.stopped || *by_operator);
                assert!(known.leases.iter().all(|run| Some(*run) == *dead));
            }
            other => panic!("{other:?} made another owner"),
        }
    });
}

#[test]
fn only_the_owner_says_who_is_eligible() {
    for_all(|record, known, request| {
        let Ruling::Change(new, _) = judge(record, known, request) else { return };
        let (was, is) = (record.lists(request.from.other()), new.lists(request.from.other()));
        match &request.operation {
            Operation::Solo { generation } => {
                assert_eq!((record.owner, new.owner), (request.from, request.from));
                assert_eq!((new.eligible, new.generation), (Eligible::Owner, *generation));
            }
            Operation::Pair { history, generation } => {
                assert_eq!((record.owner, record.eligible), (request.from, Eligible::Owner));
                assert!(is && history.contains(generation));
            }
            Operation::Promote { .. } | Operation::Force { .. } => assert!(!is),
            Operation::Handover | Operation::Keep | Operation::Stop => {
                assert_eq!(record.owner, request.from);
                assert_eq!((was, new.eligible), (is, record.eligible));
            }
            other => panic!("{other:?} changes nothing"),
        }
    });
}

#[test]
fn keep_takes_back_a_stop_and_a_late_one_of_either_fails() {
    let known = Known { leases: &[], is_in_hold_down: false };
    let stop = request(A, Operation::Stop);
    let mut keep = request(A, Operation::Keep);
    keep.id.number += 1;
    let both = record(A, Eligible::Both);
    let Ruling::Change(stopped, _) = judge(&both, known, &stop) else { panic!("a stop") };
    assert!(stopped.stopped);
    assert_eq!(judge(&stopped, known, &keep), Ruling::Conflict);
    let again = Request { epoch: stopped.epoch, ..keep.clone() };
    let Ruling::Change(kept, _) = judge(&stopped, known, &again) else { panic!("a keep") };
    assert!(!kept.stopped && kept.eligible == Eligible::Both);
    let Ruling::Change(kept, _) = judge(&both, known, &keep) else { panic!("a keep") };
    assert_eq!(judge(&kept, known, &stop), Ruling::Conflict);
}

#[test]
fn solo_keeps_out_a_late_promotion_and_a_promotion_a_late_solo() {
    let both = record(A, Eligible::Both);
    let known = Known { leases: &[], is_in_hold_down: false };
    let solo = request(A, Operation::Solo { generation: generation(3) });
    let take = request(B, promote(&[3], None, false));
    for (first, late) in [(&solo, &take), (&take, &solo)] {
        let Ruling::Change(new, _) = judge(&both, known, first) else { panic!("{first:?}") };
        assert_eq!(judge(&new, known, late), Ruling::Conflict);
        let again = Request { epoch: new.epoch, ..late.clone() };
        assert!(matches!(judge(&new, known, &again), Ruling::Refuse(_)), "{again:?}");
        // Also a solo that finds it solo already makes an epoch, so that a late pair fails.
        if first == &solo {
            let pair = Operation::Pair { generation: generation(3), history: vec![generation(3)] };
            let pair = Request { epoch: new.epoch, ..request(A, pair) };
            let id = RequestId { number: 10, ..solo.id };
            let second = Request { id, epoch: new.epoch, ..solo.clone() };
            let Ruling::Change(newer, _) = judge(&new, known, &second) else { panic!() };
            let pair = Request { id: RequestId { number: 11, ..id }, ..pair };
            assert_eq!(judge(&newer, known, &pair), Ruling::Conflict);
        }
    }
}

#[test]
fn a_node_that_knows_no_store_may_look_and_nothing_else() {
    for_all(|record, known, request| {
        let unknowing =
            Request { arbiter: ArbiterId(0), arbiter_epoch: Epoch(0), ..request.clone() };
        let ruling = judge(record, known, &unknowing);
        match request.operation {
            Operation::Read | Operation::PreVote { .. } => {
                assert!(matches!(ruling, Ruling::Look(_)), "{ruling:?}");
            }
            _ => assert_eq!(ruling, Ruling::Refuse(Refused::WrongStore)),
        }
    });
}

#[test]
fn another_epoch_is_a_conflict_and_another_store_is_refused() {
    for_all(|record, known, request| {
        let is_about_the_epoch = !matches!(request.operation, Operation::PreVote { .. });
        for epoch in [Epoch(36), Epoch(44)] {
            let other = Request { epoch, ..request.clone() };
            if is_about_the_epoch {
                assert_eq!(judge(record, known, &other), Ruling::Conflict);
            }
        }
        let other = Request { arbiter: ArbiterId(8), ..request.clone() };
        assert_eq!(judge(record, known, &other), Ruling::Refuse(Refused::WrongStore));
        let later = Request { arbiter_epoch: Epoch(44), ..request.clone() };
        assert_eq!(judge(record, known, &later), Ruling::Refuse(Refused::RolledBack));
    });
}

/// A witness of one resource whose disk and clock do what the test says.
struct Seat {
    arbiter: Arbiter,
    effects: Vec<ArbiterEffect>,
}

impl Seat {
    fn new(record: Option<ArbiterRecord>) -> Self {
        let mut effects = Vec::new();
        let arbiter = Arbiter::new(STORE, record, &mut effects);
        Self { arbiter, effects }
    }

    /// With a record, and no lease of before.
    fn rested(record: ArbiterRecord) -> Self {
        let mut seat = Self::new(Some(record));
        seat.input(ArbiterInput::Timer(ArbiterTimer::HoldDown));
        seat
    }

    fn input(&mut self, input: ArbiterInput) -> Vec<ArbiterEffect> {
        self.arbiter.step(Instant(0), input, &mut self.effects);
        std::mem::take(&mut self.effects)
    }

    fn ask(&mut self, request: Request) -> Vec<ArbiterEffect> {
        self.input(ArbiterInput::Request(Box::new(request)))
    }

    /// Asks, and the disk works; the last reply.
    fn done(&mut self, request: Request) -> Reply {
        let mut effects = self.ask(request);
        if effects.iter().any(|it| matches!(it, ArbiterEffect::Store(_))) {
            effects = self.input(ArbiterInput::Stored(true));
        }
        replies(&effects).pop().expect("an answer")
    }
}

fn replies(effects: &[ArbiterEffect]) -> Vec<Reply> {
    let reply = |it: &ArbiterEffect| match it {
        ArbiterEffect::Reply { reply, .. } => Some(reply.clone()),
        ArbiterEffect::Store(_) | ArbiterEffect::Push(_) | ArbiterEffect::SetTimer { .. } => None,
    };
    effects.iter().filter_map(reply).collect()
}

#[test]
fn nothing_is_answered_before_it_is_stable() {
    let mut seat = Seat::rested(record(A, Eligible::Both));
    let solo = request(A, Operation::Solo { generation: generation(4) });
    let effects = seat.ask(solo.clone());
    assert!(matches!(effects[..], [ArbiterEffect::Store(_)]), "{effects:?}");
    let effects = seat.input(ArbiterInput::Stored(false));
    assert_eq!(replies(&effects), [Reply::Refused(Refused::DiskFailed)]);
    assert_eq!(seat.arbiter.record().unwrap().epoch, EPOCH);
    assert!(matches!(seat.done(solo), Reply::Done(_)));
}

#[test]
fn a_lease_asked_for_while_a_promotion_is_stored_comes_too_late() {
    let mut seat = Seat::rested(record(A, Eligible::Both));
    let effects = seat.ask(request(B, promote(&[3], None, false)));
    assert!(matches!(effects[..], [ArbiterEffect::Store(_)]), "{effects:?}");
    assert_eq!(seat.ask(request(A, Operation::Renew)), []);
    let answers = replies(&seat.input(ArbiterInput::Stored(true)));
    assert!(matches!(answers[..], [Reply::Done(_), Reply::Conflict(_)]), "{answers:?}");
}

#[test]
fn a_renewal_does_not_push_out_a_change_that_waits_for_the_disk() {
    let mut seat = Seat::rested(record(A, Eligible::Both));
    let numbered = |number, operation| {
        let asked = request(A, operation);
        Request { id: RequestId { number, ..asked.id }, ..asked }
    };
    seat.ask(request(B, promote(&[3], None, false)));
    for (number, operation) in [
        (20, Operation::Renew),
        (21, Operation::Solo { generation: generation(3) }),
        (22, Operation::Renew),
    ] {
        assert_eq!(seat.ask(numbered(number, operation)), []);
    }
    let effects = seat.input(ArbiterInput::Stored(true));
    let answered = |it: &ArbiterEffect| match it {
        ArbiterEffect::Reply { to: A, id, .. } => Some(id.number),
        _ => None,
    };
    assert_eq!(effects.iter().filter_map(answered).collect::<Vec<_>>(), [21]);
}

#[test]
fn a_lease_keeps_the_other_node_out_until_its_timer_or_its_release() {
    for ends_by_release in [false, true] {
        let mut seat = Seat::rested(record(A, Eligible::Both));
        let effects = seat.ask(request(A, Operation::Renew));
        let timer = ArbiterTimer::Lease(Instance(0xa));
        assert_eq!(effects[0], ArbiterEffect::SetTimer { timer, after: grant_end(3_000) });
        let take = |dead| request(B, promote(&[3], dead, false));
        assert_eq!(seat.done(take(None)), Reply::Refused(Refused::LeaseHeld));
        assert_eq!(seat.done(take(Some(0xc))), Reply::Refused(Refused::LeaseHeld));
        let force = request(B, Operation::Force { floor: EPOCH });
        assert_eq!(seat.done(force), Reply::Refused(Refused::PeerAlive));
        if ends_by_release {
            let instance = Instance(0xa);
            seat.done(request(A, Operation::Release { instance }));
        } else {
            seat.input(ArbiterInput::Timer(timer));
        }
        assert!(matches!(seat.done(take(None)), Reply::Done(_)));
    }
}

#[test]
fn late_words_of_an_older_run_do_not_touch_the_lease_of_the_new_one() {
    let mut seat = Seat::rested(record(A, Eligible::Both));
    let of = |instance: u64, operation| {
        let id = RequestId { instance: Instance(instance), number: 1 };
        Request { id, ..request(A, operation) }
    };
    seat.done(of(2, Operation::Renew));
    seat.done(of(1, Operation::Renew));
    seat.done(of(1, Operation::Release { instance: Instance(1) }));
    let take = request(B, promote(&[3], Some(1), false));
    assert_eq!(seat.done(take), Reply::Refused(Refused::LeaseHeld));
}

#[test]
fn a_node_that_restarts_all_the_time_gets_no_more_leases_than_there_is_room_for() {
    let mut seat = Seat::rested(record(A, Eligible::Both));
    let mut refused = 0;
    for number in 1..100 {
        let id = RequestId { instance: Instance(number), number: 1 };
        let reply = seat.done(Request { id, ..request(A, Operation::Renew) });
        refused += u32::from(reply == Reply::Refused(Refused::TooManyRuns));
    }
    assert_eq!(refused, 91);
}

#[test]
fn after_a_start_nobody_is_promoted_before_old_leases_are_over() {
    let mut seat = Seat::new(Some(record(A, Eligible::Both)));
    let after = grant_end(3_000);
    assert_eq!(after, Duration::from_millis(3_080));
    assert_eq!(seat.effects, [ArbiterEffect::SetTimer { timer: ArbiterTimer::HoldDown, after }]);
    seat.effects.clear();
    let take = request(B, promote(&[3], None, false));
    assert_eq!(seat.done(take.clone()), Reply::Refused(Refused::HoldDown));
    seat.input(ArbiterInput::Timer(ArbiterTimer::HoldDown));
    assert!(matches!(seat.done(take), Reply::Done(_)));
}

fn half(owner: Side, epoch: u64) -> Half {
    Half {
        identities: [[1; 32], [2; 32]],
        epoch: Epoch(epoch),
        owner,
        in_sync: true,
        generation: generation(3),
        alone: false,
        stopped: false,
        store: STORE,
    }
}

#[test]
fn a_record_is_made_from_two_halves_that_say_the_same() {
    let mut seat = Seat::new(None);
    assert_eq!(seat.done(request(A, Operation::Keep)), Reply::Refused(Refused::NoRecord));
    let enroll =
        |from, half| Request { arbiter_epoch: Epoch(0), ..request(from, Operation::Enroll(half)) };
    let missing = Reply::Refused(Refused::HalfMissing);
    assert_eq!(seat.done(enroll(A, half(A, 9))), missing);
    assert_eq!(seat.done(enroll(B, half(B, 14))), missing, "they name different owners");
    let stopped = Half { stopped: true, ..half(A, 14) };
    assert_eq!(seat.done(enroll(B, stopped)), missing, "one of them lets nobody serve");
    let Reply::Done(made) = seat.done(enroll(B, half(A, 14))) else { panic!("both halves") };
    assert_eq!((made.owner, made.eligible, made.epoch), (A, Eligible::Both, Epoch(16)));
    let again = seat.done(enroll(A, half(A, 9)));
    assert_eq!(again, Reply::Refused(Refused::Enrolled));
}

#[test]
fn an_enrolment_whose_answer_was_lost_is_answered_again() {
    let mut seat = Seat::new(None);
    let alone = Half { alone: true, in_sync: false, ..half(A, 1) };
    let enroll = request(A, Operation::Enroll(alone));
    let made = seat.done(enroll.clone());
    assert!(matches!(made, Reply::Done(_)), "{made:?}");
    assert_eq!(seat.done(enroll.clone()), made);
    let record = seat.arbiter.record().unwrap().clone();
    let known = Known { leases: &[], is_in_hold_down: false };
    let enroll = Request { arbiter_epoch: Epoch(0), ..enroll };
    assert_eq!(judge(&record, known, &enroll), Ruling::Repeated);
    // Not once the record has changed: then it is not what that request made.
    seat.done(Request {
        id: RequestId { instance: Instance(0xa), number: 10 },
        arbiter_epoch: record.epoch,
        epoch: record.epoch,
        ..request(A, Operation::Keep)
    });
    assert_eq!(seat.done(enroll), Reply::Refused(Refused::Enrolled));
}

#[test]
fn a_store_that_was_made_anew_is_another_one_to_whoever_knew_the_old_one() {
    let mut seat = Seat::new(None);
    for (arbiter, refused) in [
        (ArbiterId(0), Refused::NoRecord),
        (STORE, Refused::NoRecord),
        (ArbiterId(8), Refused::WrongStore),
    ] {
        for operation in [Operation::Read, Operation::Renew, Operation::Keep] {
            let asked = Request { arbiter, ..request(A, operation) };
            assert_eq!(seat.done(asked), Reply::Refused(refused), "{arbiter:?}");
        }
    }
}

#[test]
fn a_node_that_was_never_paired_enrolls_alone() {
    let mut seat = Seat::new(None);
    let alone = Half { alone: true, in_sync: false, ..half(A, 1) };
    let Reply::Done(made) = seat.done(request(A, Operation::Enroll(alone))) else { panic!() };
    assert_eq!((made.owner, made.eligible, made.epoch), (A, Eligible::Owner, Epoch(4)));
}

#[test]
fn a_store_that_went_back_in_time_does_nothing_until_both_enroll_again() {
    let mut seat = Seat::rested(record(A, Eligible::Both));
    let newer = Request { arbiter_epoch: Epoch(80), ..request(A, Operation::Keep) };
    assert_eq!(seat.done(newer), Reply::Refused(Refused::RolledBack));
    // The other node has not noticed; it must not get what the old record would give it.
    let take = request(B, promote(&[3], None, false));
    assert_eq!(seat.done(take), Reply::Refused(Refused::RolledBack));
    let alone = Half { alone: true, ..half(A, 80) };
    let enroll = |from, half| request(from, Operation::Enroll(half));
    assert_eq!(seat.done(enroll(A, alone)), Reply::Refused(Refused::HalfMissing));
    seat.done(enroll(A, half(A, 80)));
    let Reply::Done(made) = seat.done(enroll(B, half(A, 77))) else { panic!("both halves") };
    assert_eq!(made.epoch, Epoch(84));
}

/// The store of these tests at a turn.
fn at_turn(turn: u32) -> ArbiterId {
    ArbiterId::at_turn_after(STORE, turn - 1)
}

#[test]
fn nodes_change_to_another_store_one_after_the_other() {
    const ELSEWHERE: ArbiterId = ArbiterId(8);
    const NEW: ArbiterId = ArbiterId(0);
    let may = |turn| Some(Refused::MayMove { store: at_turn(turn) });
    let moved = |turn| Some(Refused::PeerMoved { store: at_turn(turn) });
    let missing = Refused::HalfMissing;
    let later_elsewhere = ArbiterId::at_turn_after(ELSEWHERE, 4);
    for (mine, theirs, expected) in [
        (at_turn(1), at_turn(1), None),
        // Whoever knows no store yet would believe whatever it sees first.
        (NEW, NEW, may(1)),
        (ELSEWHERE, ELSEWHERE, may(1)),
        (ELSEWHERE, ArbiterId(9), may(1)),
        (NEW, ELSEWHERE, may(1)),
        (at_turn(3), later_elsewhere, may(6)),
        (later_elsewhere, at_turn(3), may(6)),
        // One has changed, and the other one follows.
        (ELSEWHERE, at_turn(2), moved(2)),
        (NEW, at_turn(2), moved(2)),
        (at_turn(1), at_turn(2), moved(2)),
        (at_turn(2), at_turn(1), Some(missing)),
        (at_turn(2), ELSEWHERE, Some(missing)),
        (at_turn(2), NEW, Some(missing)),
    ] {
        let mut seat = Seat::new(None);
        let enroll = |from, store| request(from, Operation::Enroll(Half { store, ..half(A, 9) }));
        assert_eq!(seat.done(enroll(B, theirs)), Reply::Refused(missing));
        match (seat.done(enroll(A, mine)), expected) {
            (Reply::Done(made), None) => assert_eq!(made.arbiter, mine),
            (Reply::Refused(refused), Some(expected)) => assert_eq!(refused, expected),
            (reply, expected) => panic!("{mine:?} and {theirs:?}: {reply:?}, not {expected:?}"),
        }
    }
    let mut seat = Seat::new(None);
    let alone = |store| Half { alone: true, in_sync: false, store, ..half(A, 1) };
    for store in [NEW, ELSEWHERE] {
        let reply = seat.done(request(A, Operation::Enroll(alone(store))));
        assert_eq!(Some(reply), may(1).map(Reply::Refused));
    }
    let reply = seat.done(request(A, Operation::Enroll(alone(at_turn(1)))));
    assert!(matches!(reply, Reply::Done(_)), "{reply:?}");
}

#[test]
fn a_half_is_forgotten_with_its_node() {
    let mut seat = Seat::new(None);
    let enroll = |from| request(from, Operation::Enroll(half(A, 9)));
    assert_eq!(seat.done(enroll(B)), Reply::Refused(Refused::HalfMissing));
    seat.arbiter.forget_half(B);
    assert_eq!(seat.done(enroll(A)), Reply::Refused(Refused::HalfMissing));
    assert!(matches!(seat.done(enroll(B)), Reply::Done(_)));
}

#[test]
fn a_node_that_comes_back_from_elsewhere_finds_its_peer_by_the_half_that_it_says() {
    let mut seat = Seat::rested(record(A, Eligible::Both));
    let current = seat.arbiter.record().unwrap().arbiter;
    let enroll = |from, store| Request {
        arbiter: store,
        ..request(from, Operation::Enroll(Half { store, ..half(A, 80) }))
    };
    assert_eq!(seat.done(enroll(A, current)), Reply::Refused(Refused::Enrolled), "nobody is there");
    let elsewhere = ArbiterId::at_turn_after(ArbiterId(8), 0);
    let may = Refused::MayMove { store: at_turn(2) };
    assert_eq!(seat.done(enroll(B, elsewhere)), Reply::Refused(may));
    assert_eq!(seat.done(enroll(B, at_turn(2))), Reply::Refused(Refused::HalfMissing));
    let moved = Refused::PeerMoved { store: at_turn(2) };
    assert_eq!(seat.done(enroll(A, current)), Reply::Refused(moved));
    let old = seat.arbiter.record().unwrap().epoch;
    let Reply::Done(made) = seat.done(enroll(A, at_turn(2))) else { panic!("both halves") };
    assert!(made.epoch > old && made.arbiter == at_turn(2));
}
