//! What a witness does when its folder or its disk is not as it should be.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::process::Command;

use hotpair::promotion::arbiter::{
    ArbiterRecord, Eligible, Operation, Refused, Reply, RequestId, StoredRecord,
};
use hotpair::units::{ArbiterId, Epoch};

use crate::harness::{A, Home, LEASE_MS, Pair, Security, done, generation, solo};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_slot_leaves_the_record_before_it() {
    let home = Home::new(Security::Plain);
    let witness = home.start(&[]);
    let pair = Pair::new(Security::Plain);
    let (mut alpha, _) = pair.enrolled(&witness).await;
    let before = alpha.epoch;
    let request = alpha.request(solo());
    done(alpha.ask("vm1", &request).await);
    witness.stop();
    // The second record lies in the first slot.
    let path = home.state_dir().join("office@vm1.record");
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0x5a; 200], 100).unwrap();
    let witness = home.start(&[]);
    let mut alpha = pair.node(A, &witness).await;
    alpha.epoch = before;
    let Reply::View(view) = alpha.ask_for(Operation::Read).await else { panic!("a view") };
    assert_eq!((view.record.epoch, view.record.eligible), (before, Eligible::Both));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_is_refused_and_the_others_are_not() {
    let home = Home::new(Security::Plain);
    let witness = home.start(&[]);
    let pair = Pair::new(Security::Plain);
    let (mut alpha, _) = pair.enrolled(&witness).await;
    let enroll = alpha.request(Operation::Enroll(pair.half(true)));
    let other = done(alpha.ask("vm2", &enroll).await);
    witness.stop();
    let path = home.state_dir().join("office@vm1.record");
    fs::write(path, [0x55; 8192]).unwrap();
    let witness = home.start(&[]);
    let mut alpha = pair.node(A, &witness).await;
    for operation in [Operation::Read, Operation::Renew, Operation::Enroll(pair.half(true))] {
        assert_eq!(alpha.ask_for(operation).await, Reply::Refused(Refused::DiskFailed));
    }
    alpha.epoch = other.epoch;
    let keep = alpha.request(Operation::Keep);
    assert!(matches!(alpha.ask("vm2", &keep).await, Reply::Done(_)));
}

#[test]
fn a_folder_is_for_one_witness_and_for_nobody_else() {
    let home = Home::new(Security::Plain);
    let witness = home.start(&[]);
    let said = home.refused(&[]);
    assert!(said.contains("in use by another process") && said.contains("--state-dir"), "{said}");
    witness.stop();
    fs::set_permissions(home.state_dir(), Permissions::from_mode(0o755)).unwrap();
    assert!(home.refused(&[]).contains("chmod 700"));
    fs::set_permissions(home.state_dir(), Permissions::from_mode(0o700)).unwrap();
    fs::write(home.state_dir().join("id"), "junk").unwrap();
    assert!(home.refused(&[]).contains("--new-identity"));
    home.start(&["--new-identity"]).stop();
    fs::write(home.state_dir().join("allow"), "office\nnot a line\n").unwrap();
    assert!(home.refused(&[]).contains("allow:2"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_allow_says_who_may_enroll() {
    for security in Security::each() {
        let home = Home::new(security);
        home.start(&[]).stop();
        let pair = Pair::new(security);
        for (line, may) in [("lab", false), ("office", true)] {
            fs::write(home.state_dir().join("allow"), format!("{line} # a comment\n")).unwrap();
            let witness = home.start(&[]);
            let mut alpha = pair.node(A, &witness).await;
            let reply = alpha.ask_for(Operation::Enroll(pair.half(true))).await;
            assert_eq!(matches!(reply, Reply::Done(_)), may, "{line}: {reply:?}");
            assert_eq!(reply == Reply::Refused(Refused::NotAllowed), !may);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn record_1025_is_refused() {
    let home = Home::new(Security::Plain);
    let witness = home.start(&[]);
    let store = u128::from_str_radix(&witness.store[..32], 16).unwrap();
    witness.stop();
    let pair = Pair::new(Security::Plain);
    for number in 0..1024 {
        let stored = StoredRecord {
            counter: 1,
            cluster: "office".to_owned(),
            resource: format!("vm{number}"),
            record: ArbiterRecord {
                arbiter: ArbiterId(store),
                epoch: Epoch(40),
                owner: A,
                eligible: Eligible::Both,
                generation: generation(3),
                lease_ms: LEASE_MS,
                stopped: false,
                forced: false,
                identities: pair.identities,
                requests: [RequestId::default(); 2],
                changed_by: A,
            },
        };
        let path = home.state_dir().join(format!("office@vm{number}.record"));
        fs::write(&path, [&[0; 4096][..], &stored.encode()].concat()).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
    let witness = home.start(&[]);
    assert!(witness.store.ends_with(" with 1024 records"), "{}", witness.store);
    let mut alpha = pair.node(A, &witness).await;
    let enroll = alpha.request(Operation::Enroll(pair.half(true)));
    assert_eq!(alpha.ask("more", &enroll).await, Reply::Refused(Refused::NoRoom));
    alpha.epoch = Epoch(40);
    let renew = alpha.request(Operation::Renew);
    assert!(matches!(alpha.ask("vm1023", &renew).await, Reply::Lease { .. }));
}

/// A small file system in memory, gone with this.
struct SmallDisk<'a>(&'a str);

impl SmallDisk<'_> {
    fn mount(&self, len: &str) -> Result<(), String> {
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={len},mode=0700"), "tmpfs", self.0])
            .output()
            .map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["-l", self.0]).output());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "a test says why it was skipped")]
async fn a_full_disk_refuses_new_records_and_serves_those_that_are_there() {
    let home = Home::new(Security::Plain);
    let folder = home.state_dir();
    fs::create_dir(&folder).unwrap();
    let disk = SmallDisk(folder.to_str().unwrap());
    if let Err(why) = disk.mount("64k") {
        println!("skipped: a_full_disk_refuses_new_records: cannot mount a tmpfs: {why}");
        return;
    }
    let filler = folder.join("filler");
    fs::write(&filler, [0; 16 << 10]).unwrap();
    let witness = home.start(&[]);
    let pair = Pair::new(Security::Plain);
    let mut alpha = pair.node(A, &witness).await;
    let record = done(alpha.ask_for(Operation::Enroll(pair.half(true))).await);
    let mut refused = None;
    for number in 2..20 {
        let enroll = alpha.request(Operation::Enroll(pair.half(true)));
        match alpha.ask(&format!("vm{number}"), &enroll).await {
            Reply::Done(_) => {}
            Reply::Refused(Refused::DiskFailed) => {
                refused = Some((number, enroll));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    let (number, enroll) = refused.expect("64 KiB are full after that many records");
    // What is there has its place: it goes on, and so do renewals.
    alpha.epoch = record.epoch;
    assert!(matches!(alpha.ask_for(Operation::Renew).await, Reply::Lease { .. }));
    alpha.change(solo()).await;
    // With room again, the same request is done.
    fs::remove_file(&filler).unwrap();
    done(alpha.ask(&format!("vm{number}"), &enroll).await);
    witness.stop();
    let witness = home.start(&[]);
    assert!(witness.store.ends_with(&format!(" with {number} records")), "{}", witness.store);
    witness.kill();
}
