//! Wall clocks that jump. Nobody may set the clock of a machine that others use, so the processes see one
//! of their own: libfaketime takes the place of the C library's wall clock and of no other.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::scene::Scene;
use crate::real::harness::Need;
use crate::real::pair::{Plan, RESOURCE};
use crate::real::process;

pub(crate) const NEEDS: &[Need] =
    &[Need::Program("setpriv"), Need::Program("timeout"), Need::Program("faketime")];

/// The time between two jumps: longer than it takes to suspect somebody.
const WHILE: Duration = Duration::from_millis(1_200);
/// Longer than a lease and its margin.
const LONG: Duration = Duration::from_secs(4);

/// How far a clock is from that of the machine, in a file that the library reads again and again.
fn offset_file(folder: &Path, at: usize) -> PathBuf {
    folder.join(format!("offset-{at}"))
}

/// A file is put in place of the old one, so that nobody reads half of it.
#[expect(clippy::disallowed_methods, reason = "nothing here has to outlive a loss of power")]
fn jump(folder: &Path, at: usize, offset: &str) {
    let new = folder.join("new");
    fs::write(&new, format!("{offset}\n")).unwrap();
    fs::rename(new, offset_file(folder, at)).unwrap();
}

fn wrapper(folder: &Path, at: usize) -> Vec<String> {
    // The linker knows what $LIB is on this machine. Source: ld.so(8).
    let file = offset_file(folder, at).display().to_string();
    [
        "env",
        "LD_PRELOAD=/usr/$LIB/faketime/libfaketimeMT.so.1",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "FAKETIME_NO_CACHE=1",
        "NO_FAKE_STAT=1",
        &format!("FAKETIME_TIMESTAMP_FILE={file}"),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// How far the clock that a process logged by is from that of the machine, to the hour: lines are read late.
fn offset_of(lines: &[String], what: &str) -> SignedDuration {
    let line = lines.iter().rev().find(|line| line.contains(what));
    let line = line.unwrap_or_else(|| panic!("no {what} in {lines:#?}"));
    let time = line.split_whitespace().next().unwrap_or_default();
    let time: Timestamp = time.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
    time.duration_since(Timestamp::now()).round(jiff::Unit::Hour).unwrap()
}

/// The clock of each party jumps an hour one way and two the other way, under load: nobody notices. Then the
/// role moves while all clocks are wrong, and what the parties log shows that they are.
pub(crate) fn jumps() {
    let folder = tempfile::tempdir().unwrap();
    for at in 0..3 {
        jump(folder.path(), at, "+0");
    }
    let wrappers = [0, 1, 2].map(|at| wrapper(folder.path(), at));
    let mut scene = Scene::with(Plan { has_witness: true, wrappers, ..Plan::default() }, 29);
    let load = scene.pair.load(0, scene.record.take().unwrap());
    let go_on = |time: Duration| {
        let until = process::now() + time;
        while process::now() < until {
            load.wait_for_answers(50);
        }
    };
    let hours = [-1, 1, -1];
    for (at, last) in hours.into_iter().enumerate() {
        for hours in [-last, last] {
            jump(folder.path(), at, &format!("{:+}", hours * 3600));
            go_on(WHILE);
        }
    }
    go_on(LONG);
    let [alpha, beta] = &scene.pair.nodes;
    assert_eq!((alpha.field("/role"), beta.field("/role")), ("primary".into(), "secondary".into()));
    assert_eq!(beta.field("/promotion/promotions"), 0);
    scene.pair.nodes[0].well(&["switchover", RESOURCE]);
    let ended = load.join();
    ended.record.check_errors("a planned change sends no errors");
    scene.record = Some(ended.record);
    scene.serves_all(1);
    scene.is_whole_again();
    let [alpha, beta] = &mut scene.pair.nodes;
    let seen = [
        offset_of(&alpha.daemon().lines(), "role-changed"),
        offset_of(&beta.daemon().lines(), "role-changed"),
        offset_of(&scene.pair.witness.as_mut().unwrap().process().lines(), "record changes"),
    ];
    assert_eq!(seen, hours.map(SignedDuration::from_hours), "clocks that the parties saw");
}
