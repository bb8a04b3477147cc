//! The driver alone, with one member that is well.

use hotpair::arbiter::EtcdSettings;
use hotpair::promotion::arbiter::{Eligible, Operation, Refused, Reply};
use hotpair::units::Instance;

use crate::cluster::Cluster;
use crate::node::{
    A, B, LEASE, Node, RECORD, RESOURCE, SERVING, enroll, enrolled, generation, half, login,
    promote, settings, solo,
};
use crate::real::process;

/// Two halves make a record, which both see; its owner gets leases, and nobody else does.
pub(crate) fn a_pair_enrolls() {
    let cluster = Cluster::start(1);
    let mut a = Node::start(&cluster, A);
    assert_eq!(a.ask(Operation::Read), Reply::Refused(Refused::NoRecord));
    assert_eq!(a.ask(Operation::Renew), Reply::Refused(Refused::NoRecord));
    assert_eq!(a.ask(Operation::Enroll(half())), Reply::Refused(Refused::HalfMissing));
    let mut b = Node::start(&cluster, B);
    let request = b.request(Operation::Enroll(half()));
    let Reply::Done(record) = b.answer_to(&request) else { panic!("no record") };
    assert_eq!((record.owner, record.eligible, record.arbiter), (A, Eligible::Both, b.arbiter));
    assert_eq!(b.answer_to(&request), Reply::Done(record.clone()), "a repeated request");
    a.wait("the record to be pushed", |node| node.pushed.last() == Some(&record));
    assert!(cluster.value(RECORD).starts_with(r#"{"format":1,"cluster":"office""#));
    assert!(
        cluster.ctl(&["get", "--prefix", "--keys-only", "/hotpair/v1/office/vm1/half"]).is_empty()
    );
    assert_eq!(a.ask(Operation::Enroll(half())), Reply::Refused(Refused::Enrolled));

    a.epoch = record.epoch;
    let Reply::Lease { lease_ms, record: seen } = a.ask(Operation::Renew) else {
        panic!("no lease")
    };
    assert_eq!((lease_ms, &seen), (1_946, &record), "2 s / 1.01, less 33 ms");
    let run = format!("{{\"format\":1,\"node\":\"alpha\",\"instance\":\"{:016x}\"}}", a.instance.0);
    assert_eq!(cluster.value(SERVING), run);
    assert_eq!(b.ask(Operation::Renew), Reply::Refused(Refused::NotOwner));
    assert!(matches!(a.ask(Operation::Renew), Reply::Lease { .. }));
    assert_eq!(b.ask(promote(None)), Reply::Refused(Refused::LeaseHeld));

    let before = a.epoch;
    let Reply::Done(alone) = a.ask(solo()) else { panic!("not alone") };
    assert!(alone.epoch > before && alone.eligible == Eligible::Owner);
    assert_eq!(b.ask(promote(None)), Reply::Conflict(alone.clone()));
    assert_eq!(b.ask(promote(None)), Reply::Refused(Refused::NotEligible));
    b.wait("that to be pushed", |node| node.pushed.last() == Some(&alone));
}

/// The other node takes over once the lease is over, and not before; the old run gets none again.
pub(crate) fn a_dead_owner_is_replaced() {
    let cluster = Cluster::start(1);
    let [mut a, mut b] = enrolled(&cluster);
    let (asked, counted) = a.lease();
    assert!(counted < LEASE);
    let won = b.insist(&promote(None));
    assert!(process::now() > asked + counted, "promoted while the lease counted");
    assert_eq!(won.owner, B);
    assert!(matches!(a.ask(Operation::Renew), Reply::Conflict(record) if record.owner == B));
    assert_eq!(a.ask(Operation::Renew), Reply::Refused(Refused::NotOwner));
    b.lease();
}

/// A supervisor's word that a run is dead spares the wait, for that run only.
pub(crate) fn a_dead_run_is_replaced() {
    let cluster = Cluster::start(1);
    let [mut a, mut b] = enrolled(&cluster);
    a.lease();
    let other = Instance(a.instance.0 ^ 1);
    assert_eq!(b.ask(promote(Some(other))), Reply::Refused(Refused::LeaseHeld));
    let Reply::Done(won) = b.ask(promote(Some(a.instance))) else { panic!("not promoted") };
    assert_eq!((won.owner, won.eligible), (B, Eligible::Owner));
    let run = format!("{{\"format\":1,\"node\":\"beta\",\"instance\":\"{:016x}\"}}", b.instance.0);
    assert_eq!(cluster.value(SERVING), run);
    // The dead one may be late: it finds the other's record.
    assert!(matches!(a.ask(Operation::Renew), Reply::Conflict(record) if record.owner == B));
}

/// An owner that slept gets a lease again, unless somebody was promoted meanwhile. A new run of the
/// owner waits for the lease of the old one, or ends it.
pub(crate) fn a_lease_that_ended() {
    let cluster = Cluster::start(1);
    let [mut a, mut b] = enrolled(&cluster);
    a.lease();
    cluster.news.wait_for("the lease to end", || cluster.value(SERVING).is_empty().then_some(()));
    a.lease();
    let mut newer = Node::start(&cluster, A);
    newer.wait("etcd", |node| node.arbiter == a.arbiter);
    newer.epoch = a.epoch;
    assert_eq!(newer.ask(Operation::Renew), Reply::Refused(Refused::TooManyRuns));
    let released = newer.ask(Operation::Release { instance: a.instance });
    assert!(matches!(released, Reply::Done(_)), "{released:?}");
    newer.lease();
    // The lease of the etcd lease that an operator revokes is as good as over.
    let lease = cluster.ctl(&["lease", "list"]);
    for id in lease.lines().skip(1) {
        cluster.ctl(&["lease", "revoke", id]);
    }
    assert_eq!(cluster.value(SERVING), "");
    let Reply::Done(won) = b.ask(promote(None)) else { panic!("not promoted") };
    assert_eq!(won.owner, B);
    assert!(matches!(newer.ask(Operation::Renew), Reply::Conflict(record) if record.owner == B));
}

/// A resource that is served no more is free, while the same run serves another one.
pub(crate) fn each_resource_has_its_own_lease() {
    let cluster = Cluster::start(1);
    let mut nodes = [A, B].map(|side| {
        let mut settings = settings(&cluster);
        settings.resources.push("vm2".to_owned());
        Node::with(settings, side)
    });
    enroll(&mut nodes);
    for node in &mut nodes {
        node.resource = "vm2";
    }
    enroll(&mut nodes);
    let [mut a, mut b] = nodes;
    a.lease();
    a.resource = RESOURCE;
    a.lease();
    a.resource = "vm2";
    cluster.news.wait_for("the lease of the first one to end", || {
        a.lease();
        cluster.value(SERVING).is_empty().then_some(())
    });
    assert_ne!(cluster.value("/hotpair/v1/office/vm2/serving"), "");
    assert_eq!(
        b.ask(promote(None)),
        Reply::Refused(Refused::LeaseHeld),
        "the second one is served"
    );
    b.resource = RESOURCE;
    let Reply::Done(won) = b.ask(promote(None)) else { panic!("not promoted") };
    assert_eq!(won.owner, B);
}

/// The owner goes alone while the other node takes over: exactly one of them is told that it did.
pub(crate) fn of_two_requests_one_wins() {
    let cluster = Cluster::start(1);
    let [mut a, mut b] = enrolled(&cluster);
    for _ in 0..20 {
        b.epoch = b.epoch.max(a.epoch);
        a.epoch = b.epoch;
        let (alone, over) = (a.request(solo()), b.request(promote(None)));
        a.order(&alone);
        b.order(&over);
        let (alone, over) = (a.answer_to(&alone), b.answer_to(&over));
        match (&alone, &over) {
            (Reply::Done(record), Reply::Conflict(seen)) => {
                assert_eq!((record.owner, record), (A, seen));
                let pair =
                    Operation::Pair { generation: generation(3), history: vec![generation(3)] };
                a.insist(&pair);
            }
            (Reply::Conflict(seen), Reply::Done(record)) => {
                assert_eq!((record.owner, record), (B, seen));
                let pair =
                    Operation::Pair { generation: generation(3), history: vec![generation(3)] };
                b.insist(&pair);
                b.insist(&Operation::Handover);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// The same request, from a run that heard no answer, is answered with what it made.
pub(crate) fn a_lost_answer() {
    let cluster = Cluster::start(1);
    let [mut a, mut b] = enrolled(&cluster);
    let request = a.request(solo());
    for _ in 0..3 {
        a.order(&request);
    }
    let Reply::Done(made) = a.answer_to(&request) else { panic!("not alone") };
    assert_eq!(a.answer_to(&request), Reply::Done(made.clone()));
    b.ask(Operation::Read);
    let Reply::View(seen) = b.ask(Operation::Read) else { panic!("no view") };
    assert_eq!(seen.record, *made, "it was made once");
    a.insist(&Operation::Keep);
    assert!(matches!(a.answer_to(&request), Reply::Conflict(_)), "it is not the newest any more");
}

/// Keys that are made anew are another arbiter, and an older copy of the record is found out.
pub(crate) fn another_store() {
    let cluster = Cluster::start(1);
    let [mut a, mut b] = enrolled(&cluster);
    let old = cluster.value(RECORD);
    a.insist(&solo());
    b.epoch = a.epoch;
    cluster.ctl(&["put", RECORD, &old]);
    assert_eq!(a.ask(solo()), Reply::Refused(Refused::RolledBack));
    assert_eq!(b.ask(promote(None)), Reply::Refused(Refused::RolledBack));
    cluster.ctl(&["del", "--prefix", "/hotpair/v1/office/"]);
    a.wait("the loss to be noticed", |node| node.trouble.is_some() || node.is_lost);
    for node in [&mut a, &mut b] {
        assert_eq!(node.ask(Operation::Read), Reply::Refused(Refused::WrongStore));
    }
}

/// What docs/OPERATIONS.md shows about users of etcd, typed line by line.
pub(crate) fn the_page_is_right() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/OPERATIONS.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once("\n## 24. With etcd\n").unwrap();
    let commands: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("etcdctl ")).collect();
    let (last, setup) = commands.split_last().unwrap();
    assert!(setup.contains(&"auth enable"), "{setup:?}");
    let cluster = Cluster::start(1);
    let ctl = |command: &str| cluster.ctl(&command.split_whitespace().collect::<Vec<_>>());
    for command in setup {
        ctl(command);
    }
    let with = || EtcdSettings { login: Some(login("hotpair", "PASSWORD")), ..settings(&cluster) };
    let mut nodes = [Node::with(with(), A), Node::with(with(), B)];
    enroll(&mut nodes);
    nodes[0].lease();
    let shown = ctl(last);
    for key in ["/hotpair/v1/office/id", RECORD, SERVING] {
        assert!(shown.contains(key), "{shown}");
    }
}

/// With authentication every request needs a token, which comes from the password.
pub(crate) fn a_user_logs_in() {
    let cluster = Cluster::start(1);
    for words in [
        &["user", "add", "root:rootpw"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "hotpair:secret"],
        &["role", "add", "hotpair"],
        &[
            "role",
            "grant-permission",
            "hotpair",
            "--prefix=true",
            "readwrite",
            "/hotpair/v1/office/",
        ],
        &["user", "grant-role", "hotpair", "hotpair"],
        &["auth", "enable"],
    ] {
        cluster.ctl(words);
    }
    let mut stranger = Node::start(&cluster, B);
    stranger.wait("a refusal", |node| node.trouble.is_some());
    let why = stranger.trouble.take().unwrap();
    assert!(why.contains("user name is empty") || why.contains("denied"), "{why}");
    let with = |password: &str| EtcdSettings {
        login: Some(login("hotpair", password)),
        ..settings(&cluster)
    };
    let mut wrong = Node::with(with("wrong"), B);
    // Where etcd takes long to check a password, that it did not answer in time comes first.
    let is_told = |why: &String| why.contains("invalid user ID or password");
    wrong.wait("a refusal", |node| node.trouble.as_ref().is_some_and(is_told));
    let why = wrong.trouble.take().unwrap();
    assert!(!why.contains("wrong"), "{why}");
    let mut nodes = [Node::with(with("secret"), A), Node::with(with("secret"), B)];
    enroll(&mut nodes);
    nodes[0].lease();
}
