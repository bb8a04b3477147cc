//! The life of a record: made, changed, kept over crashes, forgotten.

use std::fs;

use hotpair::promotion::arbiter::{Eligible, Half, Operation, Refused, Reply, Request};

use crate::harness::{A, B, Home, Pair, Security, done, generation, promote, solo};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_enrolls_goes_solo_pairs_and_changes_its_owner() {
    for security in Security::each() {
        let home = Home::new(security);
        let witness = home.start(&[]);
        let pair = Pair::new(security);
        let (mut alpha, mut beta) = pair.enrolled(&witness).await;
        let made = alpha.push().await;
        assert_eq!((made.eligible, made.identities), (Eligible::Both, pair.identities));
        assert_eq!(made.arbiter, alpha.arbiter);

        assert_eq!(alpha.change(solo()).await.eligible, Eligible::Owner);
        assert_eq!(beta.push().await.eligible, Eligible::Both, "its own enrolment");
        beta.epoch = beta.push().await.epoch;
        let refused = beta.ask_for(promote(false)).await;
        assert_eq!(refused, Reply::Refused(Refused::NotEligible), "{security:?}");

        let pairs = Operation::Pair { generation: generation(3), history: vec![generation(3)] };
        assert_eq!(alpha.change(pairs).await.eligible, Eligible::Both);
        beta.epoch = beta.push().await.epoch;

        let renewed = alpha.ask_for(Operation::Renew).await;
        assert!(matches!(renewed, Reply::Lease { .. }), "{renewed:?}");
        assert_eq!(beta.ask_for(promote(false)).await, Reply::Refused(Refused::LeaseHeld));
        let instance = alpha.request(Operation::Renew).id.instance;
        done(alpha.ask_for(Operation::Release { instance }).await);
        assert_eq!(beta.change(promote(false)).await.owner, B);
        let late = alpha.ask_for(solo()).await;
        assert!(matches!(late, Reply::Conflict(_)), "{late:?}");
        witness.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_keeps_the_record_and_holds_promotions_down() {
    for security in Security::each() {
        let home = Home::new(security);
        let witness = home.start(&[]);
        let pair = Pair::new(security);
        let (alpha, _beta) = pair.enrolled(&witness).await;
        let (epoch, store) = (alpha.epoch, witness.store.clone());
        let fingerprint = witness.fingerprint.clone();
        witness.stop();

        let witness = home.start(&[]);
        assert_eq!(witness.fingerprint, fingerprint);
        assert!(witness.store.ends_with(" with 1 records"), "{}", witness.store);
        assert_eq!(witness.store[..32], store[..32]);
        let mut beta = pair.node(B, &witness).await;
        beta.epoch = epoch;
        assert_eq!(beta.ask_for(promote(true)).await, Reply::Refused(Refused::HoldDown));
        let Reply::View(view) = beta.ask_for(Operation::Read).await else { panic!("a view") };
        assert_eq!((view.record.epoch, view.record.eligible), (epoch, Eligible::Both));
        witness.kill();
    }
}

/// Short enough that waiting for its end by asking again is no trouble.
const SHORT_LEASE_MS: u32 = 1;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hold_down_of_a_start_ends_by_the_clocks_of_the_machine() {
    let home = Home::new(Security::Plain);
    let witness = home.start(&[]);
    let pair = Pair::new(Security::Plain);
    let (mut alpha, _beta) = pair.enrolled(&witness).await;
    let keep = alpha.request(Operation::Keep);
    let record = done(alpha.ask("vm1", &Request { lease_ms: SHORT_LEASE_MS, ..keep }).await);
    witness.kill();
    let witness = home.start(&[]);
    let mut beta = pair.node(B, &witness).await;
    beta.epoch = record.epoch;
    let granted = loop {
        match beta.ask_for(promote(false)).await {
            Reply::Refused(Refused::HoldDown) => {}
            reply => break done(reply),
        }
    };
    assert_eq!(granted.owner, B);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_record_and_reply_loses_neither() {
    let security = *Security::each().last().unwrap();
    let home = Home::new(security);
    let pair = Pair::new(security);
    let mut witness = home.start(&[]);
    let (mut alpha, _) = pair.enrolled(&witness).await;
    let file = home.state_dir().join("office@vm1.record");
    for round in 0..5 {
        let before = fs::read(&file).unwrap();
        let request = alpha.request(solo());
        alpha.order("vm1", &request).await;
        // Nobody looks at the reply; the record is on its way to the disk, or there.
        home.news().wait_for("the record to change", || {
            (fs::read(&file).unwrap() != before).then_some(())
        });
        witness.kill();
        witness = home.start(&[]);
        let epoch = alpha.epoch;
        alpha = pair.node(A, &witness).await;
        alpha.epoch = epoch;
        let record = done(alpha.ask("vm1", &request).await);
        assert!(record.epoch > epoch && record.eligible == Eligible::Owner, "round {round}");
        assert_eq!(done(alpha.ask("vm1", &request).await), record, "the same answer again");
        alpha.epoch = record.epoch;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_killed_at_any_moment_happened_once_or_not_at_all() {
    let security = Security::Plain;
    let home = Home::new(security);
    let pair = Pair::new(security);
    let mut witness = home.start(&[]);
    let (mut alpha, _) = pair.enrolled(&witness).await;
    for _ in 0..10 {
        let request = alpha.request(solo());
        alpha.order("vm1", &request).await;
        witness.kill();
        witness = home.start(&[]);
        let epoch = alpha.epoch;
        alpha = pair.node(A, &witness).await;
        alpha.epoch = epoch;
        let record = done(alpha.ask("vm1", &request).await);
        // One epoch of the arbiter further: it was done once.
        assert_eq!(record.epoch, epoch.next_by_arbiter());
        alpha.epoch = record.epoch;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_identity_is_another_store_and_nodes_notice() {
    for security in Security::each() {
        let home = Home::new(security);
        let witness = home.start(&[]);
        let pair = Pair::new(security);
        let (alpha, _) = pair.enrolled(&witness).await;
        let (known, epoch, fingerprint) = (alpha.arbiter, alpha.epoch, witness.fingerprint.clone());
        witness.stop();
        home.start(&[]).stop();
        let witness = home.start(&["--new-identity"]);
        assert_eq!(witness.fingerprint, fingerprint, "the key of the witness stays");
        assert!(witness.store.ends_with(" with 0 records"), "{}", witness.store);
        let log = fs::read_to_string(home.state_dir().join("audit.log")).unwrap();
        let [first, second] = log.lines().collect::<Vec<_>>()[..] else { panic!("{log}") };
        assert!(first.contains(r#""arguments":[]"#) && second.contains("--new-identity"), "{log}");
        let id = witness.store.split(' ').next().unwrap();
        assert!(second.contains(&format!("store {id} is new")), "{log}");
        let mut alpha = pair.node(A, &witness).await;
        assert_ne!(alpha.arbiter, known);
        (alpha.arbiter, alpha.epoch) = (known, epoch);
        for operation in [Operation::Renew, solo(), Operation::Read] {
            let reply = alpha.ask_for(operation).await;
            assert_eq!(reply, Reply::Refused(Refused::WrongStore), "{security:?}");
        }
        // Enrolling again makes a record above everything that both nodes know.
        let (alpha, _) = pair.enrolled(&witness).await;
        assert!(alpha.epoch.0 > 9);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_put_back_is_found_out() {
    let home = Home::new(Security::Plain);
    let witness = home.start(&[]);
    let pair = Pair::new(Security::Plain);
    let (mut alpha, _) = pair.enrolled(&witness).await;
    let file = home.state_dir().join("office@vm1.record");
    let old = fs::read(&file).unwrap();
    alpha.change(solo()).await;
    alpha.change(Operation::Keep).await;
    let epoch = alpha.epoch;
    witness.stop();
    fs::write(&file, old).unwrap();
    let witness = home.start(&[]);
    let mut alpha = pair.node(A, &witness).await;
    alpha.epoch = epoch;
    assert_eq!(alpha.ask_for(Operation::Keep).await, Reply::Refused(Refused::RolledBack));
    // The other node learns it too, although the old record would make it eligible.
    let mut beta = pair.node(B, &witness).await;
    assert_eq!(beta.ask_for(Operation::Renew).await, Reply::Refused(Refused::RolledBack));
    // Both enroll again, above what each of them knows.
    let enroll = Operation::Enroll(Half { epoch, ..pair.half(false) });
    assert_eq!(alpha.ask_for(enroll.clone()).await, Reply::Refused(Refused::HalfMissing));
    assert!(beta.change(enroll).await.epoch > epoch);
}
