//! The plan with made-up answers of etcd: what is demanded, what is changed, what is refused.

use serde_json::json;

use super::keys::Keys;
use super::message::{Change, Guard, Outcome, Transaction};
use super::plan::{Entry, Spoiled, Step, counted_ms, read_arbiter, read_entry};
use super::stored::{Place, Serving, encode_id};
use crate::promotion::arbiter::{
    ArbiterRecord, Eligible, Half, Operation, Refused, Reply, Request, RequestId, grant_end,
};
use crate::units::{ArbiterId, Epoch, Generation, Instance, Side};

const A: Side = Side::First;
const B: Side = Side::Second;
const RUN: Instance = Instance(7);
const OTHER_RUN: Instance = Instance(8);
const LEASE: i64 = 70;
const REVISION: u64 = 5;

fn keys() -> Keys {
    Keys::of("office", ["alpha".to_owned(), "beta".to_owned()])
}

fn nodes() -> [String; 2] {
    ["alpha".to_owned(), "beta".to_owned()]
}

fn place(nodes: &[String; 2]) -> Place<'_> {
    Place { cluster: "office", resource: "vm1", nodes }
}

fn generation() -> Generation {
    Generation { number: 3, id: 9 }
}

fn arbiter() -> ArbiterId {
    super::stored::arbiter_of(1, &encode_id(77)).unwrap()
}

/// Both are eligible, and `A` owns it.
fn record() -> ArbiterRecord {
    ArbiterRecord {
        arbiter: arbiter(),
        epoch: Epoch(44),
        owner: A,
        eligible: Eligible::Both,
        generation: generation(),
        lease_ms: 3_000,
        stopped: false,
        forced: false,
        identities: [[1; 32], [2; 32]],
        requests: [RequestId { instance: RUN, number: 1 }, RequestId::default()],
        changed_by: A,
    }
}

fn half() -> Half {
    Half {
        identities: [[1; 32], [2; 32]],
        epoch: Epoch(9),
        owner: A,
        in_sync: true,
        generation: generation(),
        alone: false,
        stopped: false,
        store: arbiter(),
    }
}

/// What etcd has of the resource.
#[derive(Clone, Default)]
struct Store {
    record: Option<Vec<u8>>,
    serving: Option<(Vec<u8>, i64)>,
    halves: [Option<Vec<u8>>; 2],
}

impl Store {
    fn with(record: &ArbiterRecord) -> Self {
        Self { record: Some(place(&nodes()).encode_record(record)), ..Self::default() }
    }

    fn serving(mut self, side: Side, instance: Instance, lease: i64) -> Self {
        self.serving = Some((run(side, instance), lease));
        self
    }

    fn outcome(&self) -> Outcome {
        let keys = keys();
        let base64 = |bytes: &[u8]| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(bytes)
        };
        let mut all = vec![(keys.id(), encode_id(77), 0)];
        all.extend(self.record.clone().map(|value| (keys.record("vm1"), value, 0)));
        all.extend(self.serving.clone().map(|(value, lease)| (keys.serving("vm1"), value, lease)));
        for side in [A, B] {
            let half = self.halves[side.index()].clone();
            all.extend(half.map(|value| (keys.half("vm1", side), value, 9)));
        }
        let kvs: Vec<_> = all
            .iter()
            .map(|(key, value, lease)| {
                json!({
                    "key": base64(key.as_bytes()), "value": base64(value),
                    "mod_revision": REVISION.to_string(), "lease": lease.to_string(),
                })
            })
            .collect();
        let header = json!({"cluster_id": "1", "member_id": "2", "raft_term": "3"});
        let answer = json!({"header": header, "responses": [{"response_range": {"kvs": kvs}}]});
        serde_json::from_value(answer).unwrap()
    }

    fn entry(&self) -> Result<Entry, Spoiled> {
        let (keys, outcome) = (keys(), self.outcome());
        let id = outcome.found(&keys.id()).unwrap();
        let arbiter = read_arbiter(&keys, outcome.header.cluster_id, id)?;
        read_entry(place(&nodes()), &keys, arbiter, &outcome)
    }

    fn plan(&self, request: &Request) -> Step {
        self.entry().unwrap().plan(place(&nodes()), &keys(), LEASE, request)
    }
}

fn run(side: Side, instance: Instance) -> Vec<u8> {
    place(&nodes()).encode_serving(Serving { side, instance })
}

/// Asked at the epoch of [`record`].
fn request(from: Side, operation: Operation) -> Request {
    Request {
        from,
        id: RequestId { instance: RUN, number: 4 },
        arbiter: arbiter(),
        arbiter_epoch: Epoch(44),
        epoch: Epoch(44),
        lease_ms: 3_000,
        operation,
    }
}

fn promote(dead: Option<Instance>) -> Operation {
    Operation::Promote { history: vec![generation()], dead, by_operator: false }
}

fn refused(step: &Step) -> Refused {
    match step {
        Step::Answer(Reply::Refused(refused)) => *refused,
        other => panic!("{other:?}"),
    }
}

fn commit(step: Step) -> (Transaction, Reply) {
    match step {
        Step::Commit(transaction, reply) => (*transaction, reply),
        other => panic!("{other:?}"),
    }
}

fn unchanged() -> Guard {
    Guard::Unchanged { key: keys().record("vm1"), revision: REVISION }
}

fn nobody_serves() -> Guard {
    Guard::Absent { key: keys().serving("vm1") }
}

fn serves(side: Side, instance: Instance) -> Guard {
    Guard::Is { key: keys().serving("vm1"), value: run(side, instance) }
}

fn put_run(side: Side) -> Change {
    Change::Put { key: keys().serving("vm1"), value: run(side, RUN), lease: LEASE }
}

fn nobody_serves_more() -> Change {
    Change::Delete { key: keys().serving("vm1") }
}

/// The record that a transaction writes, and its other changes.
fn changes(transaction: &Transaction) -> (ArbiterRecord, &[Change]) {
    let (Change::Put { key, value, lease: 0 }, rest) = transaction.changes.split_first().unwrap()
    else {
        panic!("{transaction:?}")
    };
    assert_eq!(*key, keys().record("vm1"));
    assert_eq!(transaction.looks, std::slice::from_ref(key), "a lost answer must be found");
    (place(&nodes()).decode_record(value).unwrap(), rest)
}

#[test]
fn every_change_demands_the_record_as_it_was_read() {
    let store = Store::with(&record()).serving(A, RUN, LEASE);
    let alone = Store::with(&ArbiterRecord { eligible: Eligible::Owner, ..record() });
    let history = vec![generation()];
    let pair = Operation::Pair { generation: generation(), history };
    for (store, operation, others) in [
        (&store, Operation::Solo { generation: generation() }, vec![]),
        (&store, Operation::Keep, vec![]),
        (&store, Operation::Handover, vec![nobody_serves_more()]),
        (&store, Operation::Stop, vec![nobody_serves_more()]),
        (&alone, pair, vec![]),
    ] {
        let (transaction, reply) = commit(store.plan(&request(A, operation.clone())));
        assert_eq!(transaction.guards, [unchanged()], "{operation:?}");
        let (new, rest) = changes(&transaction);
        assert_eq!(rest, others, "{operation:?}");
        assert!(new.epoch > record().epoch && new.was_made_by(A, request(A, Operation::Keep).id));
        assert_eq!(reply, Reply::Done(Box::new(new)));
    }
}

#[test]
fn a_promotion_demands_that_nobody_serves_or_that_the_dead_run_does() {
    let free = Store::with(&record());
    let (transaction, reply) = commit(free.plan(&request(B, promote(None))));
    assert_eq!(transaction.guards, [unchanged(), nobody_serves()]);
    let (new, rest) = changes(&transaction);
    assert_eq!((new.owner, new.eligible), (B, Eligible::Owner));
    assert_eq!(rest, [put_run(B)], "the winner serves from here on");
    assert_eq!(reply, Reply::Done(Box::new(new)));

    let held = Store::with(&record()).serving(A, OTHER_RUN, 9);
    assert_eq!(refused(&held.plan(&request(B, promote(None)))), Refused::LeaseHeld);
    assert_eq!(refused(&held.plan(&request(B, promote(Some(RUN))))), Refused::LeaseHeld);
    let (transaction, _) = commit(held.plan(&request(B, promote(Some(OTHER_RUN)))));
    assert_eq!(transaction.guards, [unchanged(), serves(A, OTHER_RUN)]);
    assert_eq!(changes(&transaction).1, [put_run(B)]);

    let Step::Answer(Reply::View(view)) =
        held.plan(&request(B, Operation::PreVote { history: vec![generation()] }))
    else {
        panic!("no view")
    };
    assert_eq!((view.promotion, view.lease_remaining_ms), (Err(Refused::LeaseHeld), 3_000));
}

#[test]
fn a_force_demands_that_the_other_node_has_no_lease() {
    let force = || Operation::Force { floor: Epoch(50) };
    let (transaction, _) = commit(Store::with(&record()).plan(&request(B, force())));
    assert_eq!(transaction.guards, [unchanged(), nobody_serves()]);
    let (new, rest) = changes(&transaction);
    assert!(new.forced && new.epoch == Epoch(65_536) && rest.is_empty());
    let held = Store::with(&record()).serving(A, RUN, 9);
    assert_eq!(refused(&held.plan(&request(B, force()))), Refused::PeerAlive);
    assert!(matches!(held.plan(&request(A, force())), Step::Commit(..)), "its own is no obstacle");
}

#[test]
fn a_run_of_the_owner_takes_the_lease_and_keeps_it() {
    let renew = || request(A, Operation::Renew);
    let lease = Reply::Lease { lease_ms: 2_920, record: Box::new(record()) };
    let (transaction, reply) = commit(Store::with(&record()).plan(&renew()));
    assert_eq!(transaction.guards, [unchanged(), nobody_serves()]);
    assert_eq!((transaction.changes, &reply), (vec![put_run(A)], &lease));
    let mine = Store::with(&record()).serving(A, RUN, LEASE);
    assert_eq!(mine.plan(&renew()), Step::Answer(lease));
    let forgotten = Store::with(&record()).serving(A, RUN, 9);
    let (transaction, _) = commit(forgotten.plan(&renew()));
    assert_eq!(transaction.guards, [unchanged(), serves(A, RUN)]);
    assert_eq!(transaction.changes, [put_run(A)]);
    let older = Store::with(&record()).serving(A, OTHER_RUN, 9);
    assert_eq!(refused(&older.plan(&renew())), Refused::TooManyRuns, "it has its own");
    let left = Store::with(&record()).serving(B, OTHER_RUN, 9);
    assert_eq!(refused(&left.plan(&renew())), Refused::LeaseHeld);
    assert_eq!(
        refused(&Store::with(&record()).plan(&request(B, Operation::Renew))),
        Refused::NotOwner
    );
}

#[test]
fn a_release_ends_the_lease_of_that_run_only() {
    let older = Store::with(&record()).serving(A, OTHER_RUN, 9);
    let release = |instance| request(A, Operation::Release { instance });
    let (transaction, reply) = commit(older.plan(&release(OTHER_RUN)));
    assert_eq!(transaction.guards, [serves(A, OTHER_RUN)]);
    assert_eq!(transaction.changes, [nobody_serves_more()]);
    assert_eq!(reply, Reply::Done(Box::new(record())));
    assert_eq!(older.plan(&release(RUN)), Step::Answer(Reply::Done(Box::new(record()))));
}

#[test]
fn two_halves_that_say_the_same_make_a_record() {
    let enroll = |from| request(from, Operation::Enroll(half()));
    let mut store = Store::default();
    let Step::Propose(transaction) = store.plan(&enroll(A)) else { panic!("no half") };
    let absent = Guard::Absent { key: keys().record("vm1") };
    assert_eq!(transaction.guards, std::slice::from_ref(&absent));
    let id = enroll(A).id;
    let mine = place(&nodes()).encode_half(A, &half(), id);
    let put = Change::Put { key: keys().half("vm1", A), value: mine.clone(), lease: LEASE };
    assert_eq!(transaction.changes, [put], "it is forgotten with its node");
    store.halves[0] = Some(mine);
    assert_eq!(refused(&store.plan(&enroll(A))), Refused::HalfMissing);
    let other = Half { owner: B, ..half() };
    store.halves[1] = Some(place(&nodes()).encode_half(B, &other, id));
    assert_eq!(refused(&store.plan(&enroll(A))), Refused::HalfMissing, "it says something else");
    store.halves[1] = Some(place(&nodes()).encode_half(B, &half(), id));
    let (transaction, reply) = commit(store.plan(&enroll(A)));
    let theirs = Guard::Unchanged { key: keys().half("vm1", B), revision: REVISION };
    assert_eq!(transaction.guards, [absent, nobody_serves(), theirs]);
    let (new, rest) = changes(&transaction);
    assert_eq!((new.owner, new.eligible, new.arbiter), (A, Eligible::Both, arbiter()));
    assert_eq!(rest, [A, B].map(|side| Change::Delete { key: keys().half("vm1", side) }));
    assert_eq!(reply, Reply::Done(Box::new(new.clone())));
    let made = Store::with(&new);
    let again = Request { arbiter: ArbiterId(0), ..enroll(A) };
    assert_eq!(made.plan(&again), Step::Answer(Reply::Done(Box::new(new))), "it was lost");
    let late = Request { arbiter_epoch: Epoch(0), ..request(B, Operation::Enroll(half())) };
    assert!(matches!(made.plan(&late), Step::Propose(_)), "whoever comes from elsewhere finds it");
    let held = store.serving(B, OTHER_RUN, 9);
    assert_eq!(refused(&held.plan(&enroll(A))), Refused::LeaseHeld, "of a record that was removed");
}

#[test]
fn two_halves_take_the_place_of_a_record_that_is_older_than_what_they_know() {
    let elsewhere = ArbiterRecord { arbiter: ArbiterId(1), ..record() };
    for (found, arbiter_epoch) in [(record(), Epoch(48)), (elsewhere, Epoch(0))] {
        let ours = half();
        let enroll = |from, half: &Half| Request {
            arbiter_epoch,
            ..request(from, Operation::Enroll(half.clone()))
        };
        let mut store = Store::with(&found);
        let unchanged = Guard::Unchanged { key: keys().record("vm1"), revision: REVISION };
        let Step::Propose(transaction) = store.plan(&enroll(A, &ours)) else { panic!("no half") };
        assert_eq!(transaction.guards, std::slice::from_ref(&unchanged));
        let id = enroll(A, &ours).id;
        store.halves = [A, B].map(|side| Some(place(&nodes()).encode_half(side, &ours, id)));
        let (transaction, _) = commit(store.plan(&enroll(A, &ours)));
        assert_eq!(transaction.guards[0], unchanged);
        let (new, _) = changes(&transaction);
        assert_eq!(new.arbiter, arbiter());
        assert!(new.epoch > found.epoch);
        let stranger = Half { identities: [[8; 32]; 2], ..ours.clone() };
        assert_eq!(refused(&store.plan(&enroll(A, &stranger))), Refused::OtherIdentity);
        let alone = Half { alone: true, in_sync: false, ..ours };
        assert_eq!(refused(&store.plan(&enroll(A, &alone))), Refused::HalfMissing);
    }
}

#[test]
fn another_store_and_an_older_one_answer_nothing() {
    let looks = || request(A, Operation::Read);
    let elsewhere = ArbiterRecord { arbiter: ArbiterId(1), ..record() };
    assert_eq!(refused(&Store::with(&elsewhere).plan(&looks())), Refused::WrongStore);
    let knows = Request { arbiter: ArbiterId(1), ..looks() };
    assert_eq!(refused(&Store::with(&record()).plan(&knows)), Refused::WrongStore);
    assert_eq!(refused(&Store::default().plan(&knows)), Refused::WrongStore);
    assert_eq!(refused(&Store::default().plan(&looks())), Refused::NoRecord);
    let newer = Request { arbiter_epoch: Epoch(48), ..looks() };
    assert_eq!(refused(&Store::with(&record()).plan(&newer)), Refused::RolledBack);
    let stale = Request { epoch: Epoch(40), ..request(A, Operation::Keep) };
    let told = Step::Answer(Reply::Conflict(Box::new(record())));
    assert_eq!(Store::with(&record()).plan(&stale), told);
    let id = record().requests[0];
    let again = Request { id, ..request(A, Operation::Keep) };
    assert_eq!(Store::with(&record()).plan(&again), Step::Answer(Reply::Done(Box::new(record()))));
}

#[test]
fn a_value_of_a_stranger_is_named_by_its_key() {
    let garbage = Some(b"garbage".to_vec());
    let sound = Store::with(&record());
    for (store, key) in [
        (Store { record: garbage.clone(), ..sound.clone() }, "vm1/record"),
        (Store { serving: Some((b"{}".to_vec(), 0)), ..sound.clone() }, "vm1/serving"),
        (Store { halves: [garbage, None], ..sound }, "vm1/half/alpha"),
    ] {
        let spoiled = store.entry().unwrap_err();
        assert_eq!(spoiled.key, format!("/hotpair/v1/office/{key}"));
        assert!(spoiled.to_string().contains(&spoiled.key));
    }
}

#[test]
fn a_lease_counts_less_than_etcd_keeps_it() {
    for lease_ms in (2_000..=600_000).step_by(1_000) {
        let counted = counted_ms(lease_ms);
        assert!(grant_end(counted).as_millis() <= u128::from(lease_ms));
        assert!(counted > lease_ms * 9 / 10);
    }
}

#[test]
fn keys_of_others_are_not_watched() {
    let keys = keys();
    assert_eq!(
        (keys.prefix(), keys.prefix_end().as_str()),
        ("/hotpair/v1/office/", "/hotpair/v1/office0")
    );
    assert!(keys.record("vm1").as_str() < keys.prefix_end().as_str());
}
