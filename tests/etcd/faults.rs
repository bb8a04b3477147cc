//! Members that are lost, and values of strangers.

use std::time::Duration;

use hotpair::promotion::arbiter::{Operation, Refused, Reply};

use crate::cluster::Cluster;
use crate::node::{B, Node, RECORD, SERVING, enrolled, promote, settings, solo};
use crate::real::process;

/// What is none of ours under one of our keys is refused, named, and left as it is; when it is mended
/// everything goes on.
pub(crate) fn a_stranger_writes() {
    let cluster = Cluster::start(1);
    let [mut a, mut b] = enrolled(&cluster);
    a.lease();
    for key in [RECORD, SERVING, "/hotpair/v1/office/vm1/half/alpha"] {
        let sound = cluster.value(key);
        for garbage in ["garbage", "", "{}", r#"{"format":1}"#, "\u{1}\u{fffd}"] {
            cluster.ctl(&["put", key, "--", garbage]);
            for node in [&mut a, &mut b] {
                let unreadable = Reply::Refused(Refused::Unreadable);
                assert_eq!(node.ask(Operation::Read), unreadable, "{key} {garbage:?}");
                assert_eq!(node.ask(Operation::Renew), unreadable);
                assert_eq!(node.ask(promote(None)), unreadable);
                assert!(node.spoiled.as_ref().is_some_and(|why| why.contains(key)), "{key}");
            }
            assert_eq!(cluster.value(key), garbage.trim_end(), "it is not overwritten");
        }
        cluster.ctl(&["del", key]);
        if key == RECORD {
            cluster.ctl(&["put", key, &sound]);
        }
        a.lease();
        a.wait("the alarm to end", |node| node.spoiled.is_none());
        b.wait("the alarm to end", |node| node.spoiled.is_none());
    }
    // A value as long as etcd takes one is read in one piece with the others, and named as well.
    let long = "x".repeat(100_000);
    cluster.ctl(&["put", RECORD, &long]);
    assert_eq!(a.ask(Operation::Read), Reply::Refused(Refused::Unreadable));
    // Nobody knows which store this is: that is no answer at all.
    cluster.ctl(&["put", "/hotpair/v1/office/id", "garbage"]);
    b.wait("an alarm", |node| {
        node.trouble.as_ref().is_some_and(|why| why.contains("/hotpair/v1/office/id"))
    });
}

/// The members elect another leader; leases go on, and nobody is promoted meanwhile.
pub(crate) fn a_lost_leader() {
    let mut cluster = Cluster::start(3);
    let [mut a, mut b] = enrolled(&cluster);
    a.lease();
    let leader = cluster.leader();
    cluster.kill(leader);
    let (asked, counted) = a.lease();
    assert_eq!(b.ask(promote(None)), Reply::Refused(Refused::LeaseHeld));
    cluster.spawn(leader);
    let won = b.insist(&promote(None));
    assert!(process::now() > asked + counted, "promoted while the lease counted");
    assert_eq!(won.owner, B);
}

/// A member that takes connections and answers nothing is left for the next one.
pub(crate) fn a_silent_member() {
    let cluster = Cluster::start(3);
    let [mut a, mut b] = enrolled(&cluster);
    // Both ask the first one as long as it answers.
    cluster.pause(0);
    a.lease();
    let made = a.insist(&solo());
    b.epoch = a.epoch;
    b.wait("the change to be pushed", |node| node.pushed.last() == Some(&made));
    cluster.resume(0);
    a.lease();
}

/// A leader that slept keeps a lease alive by itself for a moment after the others have elected
/// another one. It does not count.
pub(crate) fn a_stale_leader() {
    let cluster = Cluster::start(3);
    let leader = cluster.leader();
    let mut only = settings(&cluster);
    only.endpoints = vec![only.endpoints[leader].clone()];
    let [mut a, mut b] = enrolled(&cluster);
    let mut bound = Node::with(only, a.side);
    bound.epoch = a.epoch;
    // The lease of the first run was never taken, so the bound one has it.
    bound.lease();
    cluster.pause(leader);
    let request = bound.request(Operation::Renew);
    bound.order(&request);
    let won = b.insist(&promote(None));
    assert_eq!(won.owner, B);
    cluster.resume(leader);
    // Whatever the old leader says of the old request, it is no lease.
    let reply = bound.answer_to(&request);
    assert!(!matches!(reply, Reply::Lease { .. }), "{reply:?}");
    let reply = a.ask(Operation::Renew);
    assert!(matches!(&reply, Reply::Conflict(record) if record.owner == B), "{reply:?}");
}

/// Compaction takes what a watch may not have told yet; the records are looked at all the same.
pub(crate) fn a_compaction() {
    let cluster = Cluster::start(1);
    let [mut a, mut b] = enrolled(&cluster);
    let mut made = a.insist(&solo());
    for _ in 0..30 {
        made = a.insist(&Operation::Keep);
        let status = cluster.ctl(&["endpoint", "status", "-w", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        let revision = status[0]["Status"]["header"]["revision"].to_string();
        cluster.ctl(&["compact", &revision]);
    }
    b.wait("the last change to be pushed", |node| node.pushed.last() == Some(&made));
    b.epoch = made.epoch;
    assert_eq!(b.ask(promote(None)), Reply::Refused(Refused::NotEligible));
}

/// Of three members one is left: it neither renews nor promotes, and says why.
pub(crate) fn no_majority() {
    let mut cluster = Cluster::start(3);
    let [mut a, mut b] = enrolled(&cluster);
    let (asked, counted) = a.lease();
    cluster.kill(1);
    cluster.kill(2);
    for node in [&mut a, &mut b] {
        node.wait("a word that nobody answers", |node| node.trouble.is_some());
    }
    // Long after every lease there is no answer, since an answer needs a majority.
    let over = asked + counted + Duration::from_secs(3);
    let (renewal, promotion) = (a.request(Operation::Renew), b.request(promote(None)));
    while process::now() < over {
        a.order(&renewal);
        b.order(&promotion);
        assert_eq!(a.next_answer(), None);
        assert_eq!(b.next_answer(), None);
    }
    cluster.spawn(1);
    cluster.spawn(2);
    cluster.wait_ready();
    let won = b.insist(&promote(None));
    assert_eq!(won.owner, B);
}
