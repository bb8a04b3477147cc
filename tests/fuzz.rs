//! Foreign bytes never harm: what once did, and valid messages broken in many ways.
//!
//! Each target gets broken messages for three seconds, or as many as `PROPTEST_CASES` says.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod fuzz_targets;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use fuzz_targets::{TARGETS, Target};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

/// One way to break bytes. Places are relative, so that a mutation fits inputs of any length.
#[derive(Clone, Debug)]
enum Mutation {
    Flip { at: Index, bit: u8 },
    Cut { at: Index },
    Splice { at: Index, from: Vec<u8> },
    SetNumber { at: Index, value: u64, len_bytes: usize },
    Repeat { at: Index, len: usize },
}

fn apply(mutation: &Mutation, bytes: &mut Vec<u8>) {
    let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1).min(bytes.len());
    match mutation {
        Mutation::Flip { at, bit } => {
            let at = place(at, bytes);
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        Mutation::Cut { at } => bytes.truncate(place(at, bytes)),
        Mutation::Splice { at, from } => {
            bytes.truncate(place(at, bytes));
            bytes.extend_from_slice(from);
        }
        Mutation::SetNumber { at, value, len_bytes } => {
            let at = place(at, bytes);
            let value = value.to_le_bytes();
            for (byte, new) in bytes.iter_mut().skip(at).zip(&value[..*len_bytes]) {
                *byte = *new;
            }
        }
        Mutation::Repeat { at, len } => {
            let at = place(at, bytes);
            let end = (at + len).min(bytes.len());
            bytes.extend_from_within(at..end);
        }
    }
}

/// `seeds` are what a splice continues with.
fn any_mutation(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    let number = prop_oneof![
        0..=300_u64,
        select(vec![1 << 12, 1 << 16, (1 << 16) + 1, 1 << 20, 1 << 31, 1 << 32, 1 << 63]),
        u64::MAX - 3..=u64::MAX,
        any::<u64>(),
    ];
    prop_oneof![
        4 => (at(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip { at, bit }),
        1 => at().prop_map(|at| Mutation::Cut { at }),
        1 => (at(), select(seeds)).prop_map(|(at, from)| Mutation::Splice { at, from }),
        4 => (at(), number, select(vec![1, 2, 4, 8])).prop_map(|(at, value, len_bytes)| {
            Mutation::SetNumber { at, value, len_bytes }
        }),
        1 => (at(), 1..256_usize).prop_map(|(at, len)| Mutation::Repeat { at, len }),
    ]
}

/// Recorded, golden and made inputs of a target, with the names of their files.
fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut all = Vec::new();
    for folder in ["corpus", "golden"] {
        let Ok(entries) = fs::read_dir(tests.join(folder).join(target.name)) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            all.push((path.display().to_string(), fs::read(path).unwrap()));
        }
    }
    // The order of a folder is not the same everywhere, and a failure should be.
    all.sort();
    let made = (target.made)().into_iter().enumerate();
    all.extend(made.map(|(at, bytes)| (format!("{}, made: {at}", target.name), bytes)));
    assert!(!all.is_empty(), "{} has nothing to begin with", target.name);
    all
}

/// Time for the broken messages of one target.
const TIME_PER_TARGET: Duration = Duration::from_secs(3);

#[expect(clippy::disallowed_methods, reason = "how long it goes on is limited, not asserted")]
fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}

fn survives(target: &Target, bytes: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[test]
fn every_input_that_was_once_kept_is_survived() {
    for target in TARGETS {
        for (name, bytes) in seeds(target) {
            assert!(survives(target, &bytes), "{name}");
            for len in 0..bytes.len().min(1024) {
                assert!(survives(target, &bytes[..len]), "{name} cut to {len}");
            }
        }
    }
}

#[test]
fn broken_messages_are_survived() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let budget = cases.is_none().then_some(TIME_PER_TARGET);
    let cases = cases.unwrap_or(100_000);
    for target in TARGETS {
        let began = stopwatch();
        let seeds: Vec<_> = seeds(target).into_iter().map(|(_, bytes)| bytes).collect();
        let input = (select(seeds.clone()), vec(any_mutation(seeds), 1..4), any::<bool>());
        let config = Config { cases, failure_persistence: None, ..Config::default() };
        let result = TestRunner::new(config).run(&input, |(mut bytes, mutations, repair)| {
            if budget.is_some_and(|budget| began.elapsed() > budget) {
                return Ok(());
            }
            for mutation in &mutations {
                apply(mutation, &mut bytes);
            }
            if repair {
                (target.repair)(&mut bytes);
            }
            prop_assert!(
                survives(target, &bytes),
                "keep this as a file in tests/corpus/{}: {}",
                target.name,
                hex(&bytes)
            );
            Ok(())
        });
        if let Err(error) = result {
            panic!("{}: {error}", target.name);
        }
    }
}
