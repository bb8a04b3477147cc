//! What happens when there is no room for a generation.

use std::fs;

use crate::pair::{Mount, ShipError, Source, Terms, ship, ship_with, target};
use crate::trees::judge;
use hotpair::manifest::Policy;

/// Tests 27 and 44.
#[test]
fn without_room_nothing_is_staged_the_oldest_generations_go_and_it_goes_on() {
    let outer = tempfile::tempdir().unwrap();
    let here = outer.path().join("b");
    let mount = match Mount::new(&here, "size=64m") {
        Ok(mount) => mount,
        Err(why) => {
            println!("skipped: mount: {why}");
            return;
        }
    };
    let mut source = Source::new(&outer.path().join("a"), &Terms::default());
    let (mut there, _) = target(&here, &Terms::default()).unwrap();
    let mut state = Vec::new();
    let mut write = |source: &mut Source, seed: u8, len: usize| {
        state = (0..len).map(|at| u8::try_from(at / 7 % 251).unwrap() ^ seed).collect();
        fs::write(source.tree.join("large"), &state).unwrap();
        source.scan().unwrap();
    };
    let len = 8 << 20;
    write(&mut source, 1, len);
    ship(&source, &mut there).unwrap();
    let policy = Policy { keep: 20, limit_bytes: 0, wanted_bytes: 0 };
    let (mut refused, mut dropped) = (0, 0);
    for seed in 2..12 {
        write(&mut source, seed, len);
        let before = there.space().unwrap();
        match ship(&source, &mut there) {
            Ok(_) => {}
            Err(ShipError::Target(error)) => {
                let wanted_bytes = error.missing_bytes().unwrap_or_else(|| panic!("{error}"));
                assert!(error.to_string().contains("bytes are needed"), "{error}");
                assert_eq!(there.space().unwrap().staged_bytes, before.staged_bytes);
                refused += 1;
                let pruned = there.prune(&Policy { wanted_bytes, ..policy }).unwrap();
                dropped += pruned.dropped.len();
                assert!(pruned.freed_bytes >= wanted_bytes, "{pruned:?}");
                ship(&source, &mut there).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
        judge::equal(&source.tree, &here.join("tree")).unwrap();
    }
    assert!(refused > 2 && dropped >= refused, "{refused}, {dropped}");
    // More than there can ever be: it waits for an operator, and what is there stays.
    let before = there.position();
    write(&mut source, 99, 60 << 20);
    for _ in 0..2 {
        let Err(ShipError::Target(error)) = ship(&source, &mut there) else { panic!("no room") };
        let wanted_bytes = error.missing_bytes().unwrap_or_else(|| panic!("{error}"));
        let pruned = there.prune(&Policy { wanted_bytes, ..policy }).unwrap();
        assert_eq!(pruned.dropped, [], "all of them together would not be enough");
    }
    assert_eq!((there.position(), there.find_foreign().unwrap().len()), (before, 0));
    mount.resize("200m");
    ship(&source, &mut there).unwrap();
    judge::equal(&source.tree, &here.join("tree")).unwrap();
    drop(there);
    drop(mount);
}

/// Test 27: what was free when it was asked for is gone by now.
#[test]
fn a_disk_that_fills_while_chunks_come_waits_for_room() {
    let outer = tempfile::tempdir().unwrap();
    let here = outer.path().join("b");
    let mount = match Mount::new(&here, "size=64m") {
        Ok(mount) => mount,
        Err(why) => {
            println!("skipped: mount: {why}");
            return;
        }
    };
    let mut source = Source::new(&outer.path().join("a"), &Terms::default());
    fs::write(
        source.tree.join("large"),
        (0..4_u32 << 20).flat_map(u32::to_le_bytes).collect::<Vec<_>>(),
    )
    .unwrap();
    source.scan().unwrap();
    let (mut there, _) = target(&here, &Terms::default()).unwrap();
    let filler = here.join("filler");
    let result = ship_with(
        &source,
        &mut there,
        |_| (),
        |count| {
            if count == 40 {
                let file = fs::File::create(&filler).unwrap();
                let bytes = vec![1; 1 << 20];
                while std::io::Write::write_all(&mut &file, &bytes).is_ok() {}
            }
        },
    );
    let Err(ShipError::Target(error)) = result else { panic!("there was no room") };
    assert!(error.missing_bytes().is_some(), "{error}");
    fs::remove_file(&filler).unwrap();
    let shipped = ship(&source, &mut there).unwrap();
    // What was staged by then is not sent again.
    assert!(shipped.chunks < 256 - 30, "{shipped:?}");
    judge::equal(&source.tree, &here.join("tree")).unwrap();
    drop(there);
    drop(mount);
}
