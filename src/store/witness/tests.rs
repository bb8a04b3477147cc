//! A witness's folder on a real file system: starts, crashes between its steps, damage.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use super::*;
use crate::promotion::arbiter::{Eligible, RequestId};
use crate::units::{Epoch, Generation, Side};

/// As they are drawn: the high bits are not the turn of any pair.
const NEW: ArbiterId = ArbiterId(0xab << 120 | 0x4d);

fn record(id: ArbiterId, epoch: u64) -> ArbiterRecord {
    ArbiterRecord {
        arbiter: id,
        epoch: Epoch(epoch),
        owner: Side::First,
        eligible: Eligible::Both,
        generation: Generation { number: 1, id: 1 },
        lease_ms: 3_000,
        stopped: false,
        forced: false,
        identities: [[1; 32], [2; 32]],
        requests: [RequestId::default(); 2],
        changed_by: Side::First,
    }
}

fn open(folder: &Path) -> Result<(WitnessFolder, Vec<FoundRecord>), StoreError> {
    WitnessFolder::open(folder, WitnessStart::Keep, NEW)
}

fn epochs(found: &[FoundRecord]) -> Vec<(String, Option<u64>)> {
    let epoch = |it: &FoundRecord| it.record.as_ref().map(|record| record.epoch.0);
    found.iter().map(|it| (it.resource.clone(), epoch(it))).collect()
}

fn home() -> (tempfile::TempDir, PathBuf) {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("witness");
    (above, folder)
}

#[test]
fn records_are_there_after_a_start_and_the_folder_is_ours_alone() {
    let (_above, path) = home();
    let (mut folder, found) = open(&path).unwrap();
    assert!(found.is_empty() && folder.id() == NEW);
    for epoch in [4, 8, 12] {
        folder.write("office", "vm1", &record(NEW, epoch)).unwrap();
    }
    // The name that a pair has for this store.
    let named = ArbiterId::at_turn_after(NEW, 3);
    folder.write("lab", "vm2", &record(named, 40)).unwrap();
    drop(folder);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    let (folder, found) = WitnessFolder::open(&path, WitnessStart::Keep, ArbiterId(5)).unwrap();
    assert_eq!(folder.id(), NEW, "an id that is there stays");
    assert_eq!(epochs(&found), [("vm2".to_owned(), Some(40)), ("vm1".to_owned(), Some(12))]);
    let file = path.join("office@vm1.record");
    assert_eq!(fs::metadata(file).unwrap().len(), TWO_SLOTS_LEN);
}

#[test]
fn two_witnesses_never_share_a_folder() {
    let (_above, path) = home();
    let first = open(&path).unwrap();
    assert!(matches!(open(&path), Err(StoreError::Locked { .. })));
    drop(first);
    open(&path).unwrap();
}

#[test]
fn a_torn_slot_leaves_the_record_before_it() {
    let (_above, path) = home();
    let (mut folder, _) = open(&path).unwrap();
    for epoch in [4, 8] {
        folder.write("office", "vm1", &record(NEW, epoch)).unwrap();
    }
    drop(folder);
    // The second record has an even counter: it lies in the first slot.
    let file = File::options().write(true).open(path.join("office@vm1.record")).unwrap();
    file.write_all_at(&[0xff; 64], 100).unwrap();
    let (mut folder, found) = open(&path).unwrap();
    assert_eq!(epochs(&found), [("vm1".to_owned(), Some(4))]);
    // It goes on from there, and not over the slot that is whole.
    folder.write("office", "vm1", &record(NEW, 12)).unwrap();
    drop(folder);
    assert_eq!(epochs(&open(&path).unwrap().1), [("vm1".to_owned(), Some(12))]);
}

#[test]
fn a_record_that_cannot_be_read_is_found_without_what_it_said() {
    let (_above, path) = home();
    let (mut folder, _) = open(&path).unwrap();
    folder.write("office", "vm1", &record(NEW, 4)).unwrap();
    folder.write("office", "vm2", &record(NEW, 4)).unwrap();
    drop(folder);
    let damaged = path.join("office@vm1.record");
    for bytes in [&[0xaa; 8192][..], b"", b"HPARBIT1"] {
        fs::write(&damaged, bytes).unwrap();
        let (_folder, found) = open(&path).unwrap();
        assert_eq!(epochs(&found), [("vm1".to_owned(), None), ("vm2".to_owned(), Some(4))]);
    }
    // Another record under its name is none either.
    fs::copy(path.join("office@vm2.record"), &damaged).unwrap();
    assert_eq!(epochs(&open(&path).unwrap().1)[0], ("vm1".to_owned(), None));
}

#[test]
fn a_new_identity_forgets_all_and_a_crash_in_between_leaves_nothing_to_trust() {
    let (_above, path) = home();
    let (mut folder, _) = open(&path).unwrap();
    folder.write("office", "vm1", &record(NEW, 4)).unwrap();
    drop(folder);
    let kept = fs::read(path.join("office@vm1.record")).unwrap();
    let forget = |id| WitnessFolder::open(&path, WitnessStart::Forget, id).unwrap();
    let (folder, found) = forget(ArbiterId(9));
    assert!(found.is_empty() && folder.id() == ArbiterId(9));
    drop(folder);
    // As if it had ended after the id was stable and before the record was removed.
    fs::write(path.join("office@vm1.record"), kept).unwrap();
    fs::set_permissions(path.join("office@vm1.record"), fs::Permissions::from_mode(0o600)).unwrap();
    let (mut folder, found) = open(&path).unwrap();
    assert!(found.is_empty() && folder.id() == ArbiterId(9));
    folder.write("office", "vm1", &record(ArbiterId(9), 40)).unwrap();
    drop(folder);
    assert_eq!(epochs(&open(&path).unwrap().1), [("vm1".to_owned(), Some(40))]);
}

#[test]
fn a_damaged_id_is_never_replaced_by_itself() {
    let (_above, path) = home();
    drop(open(&path).unwrap());
    let whole = fs::read(path.join(ID_FILE)).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(path.join(ID_FILE), &bytes).unwrap();
        assert!(matches!(open(&path), Err(StoreError::Unreadable { .. })), "byte {at}");
        assert_eq!(fs::read(path.join(ID_FILE)).unwrap(), bytes);
    }
    fs::write(path.join(ID_FILE), &whole[..20]).unwrap();
    assert!(open(&path).is_err());
    let (folder, _) = WitnessFolder::open(&path, WitnessStart::Forget, ArbiterId(3)).unwrap();
    assert_eq!(folder.id(), ArbiterId(3));
}

#[test]
fn a_folder_or_file_that_others_reach_is_refused() {
    let (_above, path) = home();
    let (mut folder, _) = open(&path).unwrap();
    folder.write("office", "vm1", &record(NEW, 4)).unwrap();
    drop(folder);
    let chmod = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    for mode in [0o701, 0o710, 0o777] {
        chmod(&path, mode);
        assert!(matches!(open(&path), Err(StoreError::NotOurs { .. })), "{mode:o}");
    }
    chmod(&path, 0o700);
    chmod(&path.join("office@vm1.record"), 0o644);
    assert!(matches!(open(&path), Err(StoreError::NotOurs { .. })));
}

#[test]
fn what_failed_once_fails_until_the_next_start_and_the_others_go_on() {
    let (_above, path) = home();
    let (mut folder, _) = open(&path).unwrap();
    folder.write("office", "vm1", &record(NEW, 4)).unwrap();
    folder.write("office", "vm2", &record(NEW, 4)).unwrap();
    // A descriptor that cannot write stands in for a disk that fails once.
    let slots = folder.slots.get_mut("office@vm1.record").unwrap();
    let whole =
        std::mem::replace(&mut slots.file, File::open(path.join("office@vm1.record")).unwrap());
    let failed = folder.write("office", "vm1", &record(NEW, 8));
    assert!(matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");
    folder.slots.get_mut("office@vm1.record").unwrap().file = whole;
    let failed = folder.write("office", "vm1", &record(NEW, 8));
    assert!(matches!(failed, Err(StoreError::FailedBefore { .. })), "{failed:?}");
    folder.write("office", "vm2", &record(NEW, 8)).unwrap();
    drop(folder);
    let (mut folder, found) = open(&path).unwrap();
    assert_eq!(epochs(&found)[0], ("vm1".to_owned(), Some(4)));
    folder.write("office", "vm1", &record(NEW, 12)).unwrap();
}

#[test]
fn leftovers_and_foreign_files_do_no_harm() {
    let (_above, path) = home();
    drop(open(&path).unwrap());
    for name in ["office@vm1.record.new", "notes.txt", ".record", "allow", "identity.pem"] {
        fs::write(path.join(name), "office\n").unwrap();
    }
    let (mut folder, found) = open(&path).unwrap();
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(folder.read_allow().unwrap().as_deref(), Some("office\n"));
    folder.write("office", "vm1", &record(NEW, 4)).unwrap();
    fs::write(path.join("allow"), [0xff]).unwrap();
    assert!(folder.read_allow().is_err());
}
