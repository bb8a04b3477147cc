//! The desk with made-up clocks, connections and disk: who is told what, and what has a limit.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::desk::{ConnectionId, Desk, Effect, Key, RECORDS_MAX, STRANGERS_MAX, Stock};
use crate::config;
use crate::promotion::Clocks;
use crate::promotion::arbiter::{
    Allowed, ArbiterRecord, Ask, Asked, Eligible, Half, Hello, Operation, Refused, Reply, Request,
    RequestId, Tell, grant_end, is_name, parse_allowed,
};
use crate::units::{ArbiterId, Epoch, Generation, Instance, Instant, Side};

const STORE: ArbiterId = ArbiterId(7);
const A: Side = Side::First;
const B: Side = Side::Second;
const KEYS: [[u8; 32]; 2] = [[1; 32], [2; 32]];
const STRANGER: [u8; 32] = [9; 32];
const LEASE_MS: u32 = 3_000;

/// A desk, its disk, and a count for connections and requests.
struct Rig {
    desk: Desk,
    now: Clocks,
    disk_works: bool,
    stored: Vec<(Key, ArbiterRecord)>,
    count: u64,
    /// Letters that each connection was told and has heard.
    heard: BTreeMap<ConnectionId, u64>,
}

impl Rig {
    fn with(records: Vec<(Key, ArbiterRecord)>) -> Self {
        Self::of(Stock { id: STORE, records, damaged: BTreeSet::new(), allowed: None })
    }

    fn of(stock: Stock) -> Self {
        let now = Clocks { boottime: Instant(1 << 40), raw: Instant(5) };
        let (desk, stored, heard) = (Desk::new(now, stock), Vec::new(), BTreeMap::new());
        Self { desk, now, disk_works: true, stored, count: 0, heard }
    }

    fn hello(&mut self, cluster: &str, side: Side, key: [u8; 32]) -> (ConnectionId, Vec<Effect>) {
        self.count += 1;
        let from = ConnectionId(self.count);
        let (cluster, node) = (cluster.to_owned(), "node".to_owned());
        let hello = Hello { versions: (1, 1), cluster, node, side, instance: Instance(1) };
        let mut effects = Vec::new();
        self.desk.on_hello(from, hello, key, &mut effects);
        self.hear(&effects);
        (from, effects)
    }

    fn node(&mut self, side: Side) -> ConnectionId {
        self.hello("office", side, KEYS[side.index()]).0
    }

    fn request(&mut self, from: Side, epoch: Epoch, operation: Operation) -> Request {
        self.count += 1;
        let id = RequestId { instance: Instance(10 + from.index() as u64), number: self.count };
        Request {
            from,
            id,
            arbiter: STORE,
            arbiter_epoch: epoch,
            epoch,
            lease_ms: LEASE_MS,
            operation,
        }
    }

    /// Says a letter, and the disk does what it does.
    fn say(&mut self, from: ConnectionId, ask: Ask) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.desk.on_ask(self.now, from, ask, &mut effects);
        let mut said = Vec::new();
        while !effects.is_empty() {
            let stores: Vec<_> =
                effects.extract_if(.., |effect| matches!(effect, Effect::Store(..))).collect();
            said.append(&mut effects);
            for store in stores {
                let Effect::Store(key, record) = store else { unreachable!() };
                self.desk.on_stored(self.now, &key, self.disk_works, &mut effects);
                if self.disk_works {
                    self.stored.push((key, *record));
                }
            }
        }
        self.hear(&said);
        said
    }

    /// Everybody hears what was said.
    fn hear(&mut self, said: &[Effect]) {
        for effect in said {
            if let Effect::Tell(to, _) = effect {
                *self.heard.entry(*to).or_default() += 1;
            }
        }
    }

    /// A request of a connection that has heard all or not.
    fn asks(&self, from: ConnectionId, resource: &str, request: &Request) -> Ask {
        let heard = self.heard.get(&from).copied().unwrap_or_default();
        let asked = Asked { resource: resource.to_owned(), request: request.clone() };
        Ask::Request { heard, asked: Box::new(asked) }
    }

    fn ask(&mut self, from: ConnectionId, resource: &str, request: &Request) -> Vec<Effect> {
        let ask = self.asks(from, resource, request);
        self.say(from, ask)
    }

    /// Asks about `vm1`, and what it gets.
    fn done(&mut self, from: ConnectionId, request: &Request) -> Reply {
        let effects = self.ask(from, "vm1", request);
        reply_to(&effects, from, request.id).unwrap_or_else(|| panic!("no reply: {effects:?}"))
    }

    fn record(&mut self, from: ConnectionId, request: &Request) -> Box<ArbiterRecord> {
        match self.done(from, request) {
            Reply::Done(record) => record,
            other => panic!("{other:?}"),
        }
    }

    /// Both nodes are there, enrolled and in sync; their connections, and the epoch.
    fn pair(&mut self) -> (ConnectionId, ConnectionId, Epoch) {
        let (alpha, beta) = (self.node(A), self.node(B));
        let first = self.request(A, Epoch(0), Operation::Enroll(half(false)));
        assert_eq!(self.done(alpha, &first), Reply::Refused(Refused::HalfMissing));
        let second = self.request(B, Epoch(0), Operation::Enroll(half(false)));
        let record = self.record(beta, &second);
        (alpha, beta, record.epoch)
    }
}

fn reply_to(effects: &[Effect], to: ConnectionId, wanted: RequestId) -> Option<Reply> {
    effects.iter().find_map(|effect| match effect {
        Effect::Tell(connection, Tell::Answer { id, reply, .. })
            if (*connection, *id) == (to, wanted) =>
        {
            Some(reply.clone())
        }
        _ => None,
    })
}

fn generation() -> Generation {
    Generation { number: 3, id: 3 }
}

fn half(alone: bool) -> Half {
    Half {
        identities: KEYS,
        epoch: Epoch(9),
        owner: A,
        in_sync: !alone,
        generation: generation(),
        alone,
        stopped: false,
        store: STORE,
    }
}

fn promote() -> Operation {
    Operation::Promote { history: vec![generation()], dead: None, by_operator: false }
}

fn key(resource: &str) -> Key {
    Key { cluster: "office".to_owned(), resource: resource.to_owned() }
}

fn record(epoch: u64) -> ArbiterRecord {
    ArbiterRecord {
        arbiter: STORE,
        epoch: Epoch(epoch),
        owner: A,
        eligible: Eligible::Both,
        generation: generation(),
        lease_ms: LEASE_MS,
        stopped: false,
        forced: false,
        identities: KEYS,
        requests: [RequestId::default(); 2],
        changed_by: A,
    }
}

fn is_closed(effects: &[Effect], connection: ConnectionId) -> bool {
    effects.contains(&Effect::Close(connection))
}

#[test]
fn a_change_is_answered_once_it_is_stable_and_shown_to_both_nodes() {
    let mut rig = Rig::with(Vec::new());
    let (alpha, beta, epoch) = rig.pair();
    let stranger = rig.hello("office", B, STRANGER).0;
    let solo = rig.request(A, epoch, Operation::Solo { generation: generation() });
    let mut effects = Vec::new();
    let ask = rig.asks(alpha, "vm1", &solo);
    rig.desk.on_ask(rig.now, alpha, ask, &mut effects);
    assert!(matches!(effects[..], [Effect::Store(..)]), "{effects:?}");
    effects.clear();
    rig.desk.on_stored(rig.now, &key("vm1"), true, &mut effects);
    let told = |connection| {
        let is_changed = |effect: &&Effect| matches!(effect, Effect::Tell(to, Tell::Changed { .. }) if *to == connection);
        effects.iter().filter(is_changed).count()
    };
    assert_eq!((told(alpha), told(beta), told(stranger)), (1, 1, 0));
    assert!(matches!(reply_to(&effects, alpha, solo.id), Some(Reply::Done(_))));
}

#[test]
fn an_answer_that_was_lost_comes_again_over_the_next_connection() {
    let mut rig = Rig::with(Vec::new());
    let (alpha, _, epoch) = rig.pair();
    let solo = rig.request(A, epoch, Operation::Solo { generation: generation() });
    let mut effects = Vec::new();
    let ask = rig.asks(alpha, "vm1", &solo);
    rig.desk.on_ask(rig.now, alpha, ask, &mut effects);
    // The connection ends before the record is stable.
    rig.desk.on_gone(alpha);
    effects.clear();
    rig.desk.on_stored(rig.now, &key("vm1"), true, &mut effects);
    assert_eq!(reply_to(&effects, alpha, solo.id), None);
    let again = rig.node(A);
    let made = rig.record(again, &solo);
    assert!(made.eligible == Eligible::Owner && made.epoch > epoch);
    assert_eq!(rig.stored.len(), 1, "only the enrolment was stored through the rig");
}

#[test]
fn a_promotion_waits_until_both_clocks_say_that_the_lease_is_over() {
    let mut rig = Rig::with(Vec::new());
    let (alpha, beta, epoch) = rig.pair();
    let renew = rig.request(A, epoch, Operation::Renew);
    assert!(matches!(rig.done(alpha, &renew), Reply::Lease { lease_ms: LEASE_MS, .. }));
    let started = rig.now;
    let (end, tick) = (grant_end(LEASE_MS), Duration::from_nanos(1));
    let before = end.checked_sub(tick).unwrap();
    let whole = started.plus(end);
    let early = started.plus(before);
    for now in [
        started,
        early,
        // Suspended, or slewed: one clock is ahead of the other.
        Clocks { boottime: whole.boottime, raw: early.raw },
        Clocks { boottime: early.boottime, raw: whole.raw },
        Clocks { boottime: whole.plus(end * 9).boottime, raw: started.raw },
    ] {
        rig.now = now;
        let take = rig.request(B, epoch, promote());
        assert_eq!(rig.done(beta, &take), Reply::Refused(Refused::LeaseHeld), "{now:?}");
    }
    rig.now = whole;
    let take = rig.request(B, epoch, promote());
    assert_eq!(rig.record(beta, &take).owner, B);
}

#[test]
fn after_a_start_promotions_are_held_down_by_both_clocks() {
    let mut rig = Rig::with(vec![(key("vm1"), record(40))]);
    let beta = rig.node(B);
    let whole = rig.now.plus(grant_end(LEASE_MS));
    let take = rig.request(B, Epoch(40), promote());
    assert_eq!(rig.done(beta, &take), Reply::Refused(Refused::HoldDown));
    rig.now = Clocks { boottime: whole.boottime, ..rig.now };
    assert_eq!(rig.done(beta, &take), Reply::Refused(Refused::HoldDown));
    rig.now = whole;
    assert_eq!(rig.record(beta, &take).owner, B);
}

#[test]
fn a_disk_that_fails_refuses_changes_and_renewals_go_on() {
    let mut rig = Rig::with(Vec::new());
    let (alpha, beta, epoch) = rig.pair();
    rig.disk_works = false;
    for _ in 0..3 {
        let solo = rig.request(A, epoch, Operation::Solo { generation: generation() });
        assert_eq!(rig.done(alpha, &solo), Reply::Refused(Refused::DiskFailed));
        let renew = rig.request(A, epoch, Operation::Renew);
        assert!(matches!(rig.done(alpha, &renew), Reply::Lease { .. }));
        let read = rig.request(B, epoch, Operation::Read);
        let Reply::View(view) = rig.done(beta, &read) else { panic!("a view") };
        assert_eq!(view.record.epoch, epoch);
    }
}

#[test]
fn nothing_is_said_about_a_record_that_cannot_be_read() {
    let damaged = BTreeSet::from([key("vm1")]);
    let stock = Stock { id: STORE, records: Vec::new(), damaged, allowed: None };
    let mut rig = Rig::of(stock);
    let alpha = rig.node(A);
    for operation in [Operation::Read, Operation::Renew, Operation::Enroll(half(true)), promote()] {
        let asked = rig.request(A, Epoch(40), operation);
        assert_eq!(rig.done(alpha, &asked), Reply::Refused(Refused::DiskFailed));
    }
}

#[test]
fn a_key_speaks_for_its_side_only() {
    let mut rig = Rig::with(vec![(key("vm1"), record(40))]);
    let stranger = rig.hello("office", A, STRANGER).0;
    let plain = rig.hello("office", A, [0; 32]).0;
    // The other node's key, used for this side.
    let crossed = rig.hello("office", A, KEYS[1]).0;
    for connection in [stranger, plain, crossed] {
        for operation in [Operation::Read, Operation::Renew, Operation::Keep] {
            let asked = rig.request(A, Epoch(40), operation);
            assert_eq!(rig.done(connection, &asked), Reply::Refused(Refused::OtherIdentity));
        }
        let enroll = rig.request(A, Epoch(40), Operation::Enroll(half(true)));
        assert_eq!(rig.done(connection, &enroll), Reply::Refused(Refused::OtherIdentity));
    }
    let alpha = rig.node(A);
    let crossed = rig.request(B, Epoch(40), Operation::Read);
    let effects = rig.ask(alpha, "vm1", &crossed);
    assert!(is_closed(&effects, alpha) && reply_to(&effects, alpha, crossed.id).is_none());
    // Another cluster has resources of its own.
    let elsewhere = rig.hello("lab", A, KEYS[0]).0;
    let read = rig.request(A, Epoch(40), Operation::Read);
    assert_eq!(rig.done(elsewhere, &read), Reply::Refused(Refused::NoRecord));
}

#[test]
fn a_node_that_knew_another_store_learns_that() {
    let mut rig = Rig::with(Vec::new());
    let alpha = rig.node(A);
    let renew = rig.request(A, Epoch(40), Operation::Renew);
    let renew = Request { arbiter: ArbiterId(6), ..renew };
    assert_eq!(rig.done(alpha, &renew), Reply::Refused(Refused::WrongStore));
}

#[test]
fn the_newest_connection_of_a_node_is_the_one() {
    let mut rig = Rig::with(Vec::new());
    let (first, _, epoch) = rig.pair();
    let (second, effects) = rig.hello("office", A, KEYS[0]);
    assert!(is_closed(&effects, first) && !is_closed(&effects, second));
    let renew = rig.request(A, epoch, Operation::Renew);
    assert!(matches!(rig.done(second, &renew), Reply::Lease { .. }));
}

#[test]
fn a_half_is_forgotten_with_the_connection_that_said_it() {
    let mut rig = Rig::with(Vec::new());
    let alpha = rig.node(A);
    let first = rig.request(A, Epoch(0), Operation::Enroll(half(false)));
    rig.done(alpha, &first);
    rig.desk.on_gone(alpha);
    let beta = rig.node(B);
    let second = rig.request(B, Epoch(0), Operation::Enroll(half(false)));
    assert_eq!(rig.done(beta, &second), Reply::Refused(Refused::HalfMissing));
    let alpha = rig.node(A);
    rig.record(alpha, &first);
}

#[test]
fn there_is_a_limit_to_records_and_it_counts_those_that_cannot_be_read() {
    let records = (0..RECORDS_MAX - 2).map(|number| (key(&format!("vm{number}")), record(40)));
    let damaged = BTreeSet::from([key("bad")]);
    let stock = Stock { id: STORE, records: records.collect(), damaged, allowed: None };
    let mut rig = Rig::of(stock);
    let alpha = rig.node(A);
    let mut enroll = |resource: &str| {
        let enroll = rig.request(A, Epoch(0), Operation::Enroll(half(true)));
        let effects = rig.ask(alpha, resource, &enroll);
        reply_to(&effects, alpha, enroll.id).unwrap()
    };
    assert!(matches!(enroll("last"), Reply::Done(_)));
    assert_eq!(enroll("more"), Reply::Refused(Refused::NoRoom));
    assert_eq!(enroll("last"), Reply::Refused(Refused::Enrolled));
}

#[test]
fn halves_that_never_meet_are_few_for_each_connection() {
    let mut rig = Rig::with(Vec::new());
    let alpha = rig.node(A);
    let mut refused = 0;
    for number in 0..300 {
        let enroll = rig.request(A, Epoch(0), Operation::Enroll(half(false)));
        let effects = rig.ask(alpha, &format!("vm{number}"), &enroll);
        let reply = reply_to(&effects, alpha, enroll.id).unwrap();
        refused += u32::from(reply == Reply::Refused(Refused::NoRoom));
    }
    assert_eq!(refused, 300 - 256);
}

#[test]
fn strangers_cannot_take_the_places_of_nodes_that_a_record_names() {
    let mut rig = Rig::with(vec![(key("vm1"), record(40))]);
    let mut refused = 0;
    for number in 0..STRANGERS_MAX + 5 {
        let mut stranger = STRANGER;
        stranger[1] = u8::try_from(number).unwrap();
        let (connection, effects) = rig.hello("office", A, stranger);
        refused += u32::from(is_closed(&effects, connection));
    }
    assert_eq!(refused, 5);
    for side in [A, B] {
        let (connection, effects) = rig.hello("office", side, KEYS[side.index()]);
        assert!(!is_closed(&effects, connection), "{side:?}");
    }
}

#[test]
fn only_who_is_allowed_enrolls_and_who_has_a_record_needs_no_leave() {
    let allowed: Vec<Allowed> = parse_allowed("lab", |_| None).unwrap();
    let records = vec![(key("vm1"), record(40))];
    let stock = Stock { id: STORE, records, damaged: BTreeSet::new(), allowed: Some(allowed) };
    let mut rig = Rig::of(stock);
    let alpha = rig.node(A);
    let enroll = rig.request(A, Epoch(0), Operation::Enroll(half(true)));
    let effects = rig.ask(alpha, "vm2", &enroll);
    assert_eq!(reply_to(&effects, alpha, enroll.id), Some(Reply::Refused(Refused::NotAllowed)));
    let keep = rig.request(A, Epoch(40), Operation::Keep);
    rig.record(alpha, &keep);
    let lab = rig.hello("lab", A, KEYS[0]).0;
    let effects = rig.ask(lab, "vm2", &enroll);
    assert!(matches!(reply_to(&effects, lab, enroll.id), Some(Reply::Done(_))));
}

#[test]
fn one_letter_renews_many_leases() {
    let resources = ["vm1", "vm2", "vm3"];
    let mut rig = Rig::with(resources.map(|name| (key(name), record(40))).into());
    let alpha = rig.node(A);
    let all: Vec<Asked> = resources
        .map(|name| {
            let request = rig.request(A, Epoch(40), Operation::Renew);
            Asked { resource: name.to_owned(), request }
        })
        .into();
    let effects = rig.say(alpha, Ask::Renew { heard: 1, all: all.clone() });
    for Asked { request, .. } in &all {
        let reply = reply_to(&effects, alpha, request.id);
        assert!(matches!(reply, Some(Reply::Lease { .. })), "{reply:?}");
    }
}

#[test]
fn whoever_does_not_hear_the_witness_changes_nothing() {
    let mut rig = Rig::with(Vec::new());
    let (alpha, _, epoch) = rig.pair();
    let ms = Duration::from_millis;
    // It is idle for an hour, and hears everything: it is listened to at once.
    for _ in 0..3_600 {
        rig.now = rig.now.plus(ms(1_000));
        rig.say(alpha, Ask::Ping(1));
    }
    let renew = rig.request(A, epoch, Operation::Renew);
    assert!(matches!(rig.done(alpha, &renew), Reply::Lease { .. }));
    // From here on it hears nothing of what it is told.
    let deaf = rig.heard.clone();
    rig.say(alpha, Ask::Ping(2));
    for (after, is_carried_out) in [(800, true), (1, false), (10_000, false)] {
        rig.heard.clone_from(&deaf);
        rig.now = rig.now.plus(ms(after));
        let ping = rig.say(alpha, Ask::Ping(3));
        assert!(matches!(ping[..], [Effect::Tell(_, Tell::Pong(3))]), "it is answered");
        for operation in [Operation::Read, Operation::Solo { generation: generation() }] {
            rig.heard.clone_from(&deaf);
            let epoch = rig.stored.last().map_or(epoch, |(_, record)| record.epoch);
            let request = rig.request(A, epoch, operation);
            let effects = rig.ask(alpha, "vm1", &request);
            let reply = reply_to(&effects, alpha, request.id);
            assert_eq!((reply.is_some(), effects.is_empty()), (is_carried_out, !is_carried_out));
        }
        let renew = rig.request(A, epoch, Operation::Renew);
        let asked = Asked { resource: "vm1".to_owned(), request: renew };
        let all = vec![asked];
        let effects = rig.say(alpha, Ask::Renew { heard: deaf[&alpha], all });
        assert_eq!(effects.is_empty(), !is_carried_out);
    }
    assert_eq!(rig.stored.len(), 2, "the enrolment, and the change in time");
}

#[test]
fn nobody_hears_more_than_was_said() {
    let mut rig = Rig::with(vec![(key("vm1"), record(40))]);
    let alpha = rig.node(A);
    *rig.heard.get_mut(&alpha).unwrap() += 1;
    let read = rig.request(A, Epoch(40), Operation::Read);
    let effects = rig.ask(alpha, "vm1", &read);
    assert!(is_closed(&effects, alpha) && reply_to(&effects, alpha, read.id).is_none());
}

#[test]
fn every_name_of_a_configuration_is_one_that_a_witness_takes() {
    let long = "n".repeat(64);
    let longer = "n".repeat(65);
    for name in ["a", "vm-1.root_x", "9", &long, &longer, "", ".a", "-", "a/b", "a b", "\u{e9}"] {
        assert_eq!(config::is_name(name), is_name(name), "{name:?}");
    }
}
