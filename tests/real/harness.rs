//! Runs cases that need more than the Rust toolchain, and says which could not run and why.
//!
//! It prints `ok NAME`, `FAILED NAME` or `skipped: NAME: why`, then `N passed, N failed, N skipped`.
//! With `HOTPAIR_TESTS=all` a skip is a failure. It takes the arguments that cargo and nextest give
//! to a test binary: filters, `--exact`, `--list`.
//!
//! Each case is a process of its own ([`worlds`]), and three run at a time; `HOTPAIR_JOBS` says
//! another number. What a case prints comes in one block when it ends, or at once with one job.

#![expect(clippy::print_stdout, reason = "a harness talks")]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use super::process::{self, lock};
use super::worlds::{self, Ended, Worlds};

/// One test.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// The fact it shows.
    pub(crate) name: &'static str,
    /// What the machine must have.
    pub(crate) needs: &'static [Need],
    /// Panics if the fact does not hold.
    pub(crate) run: fn(),
}

/// Something that not every machine has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// User id 0.
    Root,
    /// A program in `PATH`.
    Program(&'static str),
    /// A device or file that can be opened.
    Device(&'static str),
    /// A file of a package.
    File(&'static str),
    /// A module of the Python that Debian's packages are for.
    Python(&'static str),
    /// A file system that the kernel can mount.
    FileSystem(&'static str),
    /// A queue that the kernel can put before a network card, in the words of `tc`.
    Queue(&'static str),
    /// Rules for packets that the kernel knows, in the words of `nft`.
    Rules(&'static str),
    /// No other case at the same time: what it shows depends on how soon something happens.
    Alone,
    /// Each of these.
    All(&'static [Self]),
}

/// The interpreter that sees the modules of Debian's packages.
pub(crate) const PYTHON: &str = "/usr/bin/python3";

impl Need {
    fn what_is_missing(self) -> Option<String> {
        match self {
            Self::Root => (!rustix::process::geteuid().is_root()).then(|| "needs root".to_owned()),
            Self::Program(name) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let is_there = std::env::split_paths(&path).any(|dir| dir.join(name).is_file());
                (!is_there).then(|| format!("no `{name}` (tools/install-test-packages)"))
            }
            Self::Device(path) => {
                (!Path::new(path).exists()).then(|| format!("the kernel has no {path}"))
            }
            Self::File(path) => (!Path::new(path).exists())
                .then(|| format!("no {path} (tools/install-test-packages)")),
            Self::Python(module) => {
                let import = format!("import {module}");
                let is_there = Path::new(PYTHON).exists()
                    && process::run(PYTHON, &["-c", &import]).code == Some(0);
                (!is_there)
                    .then(|| format!("{PYTHON} has no `{module}` (tools/install-test-packages)"))
            }
            Self::FileSystem(name) => {
                let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
                let is_there = known.lines().any(|line| line.trim() == name);
                (!is_there).then(|| format!("the kernel has no {name}"))
            }
            Self::Queue(words) => {
                let add = format!("tc qdisc add dev lo root {words}");
                let is_there = process::run("unshare", &["-n", "sh", "-c", &add]).code == Some(0);
                (!is_there).then(|| format!("the kernel has no queue `{words}`"))
            }
            Self::Rules(words) => {
                let is_there = process::run("unshare", &["-n", "nft", words]).code == Some(0);
                (!is_there).then(|| format!("the kernel has no rules `{words}`"))
            }
            Self::Alone => None,
            Self::All(needs) => needs.iter().find_map(|need| need.what_is_missing()),
        }
    }

    fn is_alone(self) -> bool {
        match self {
            Self::Alone => true,
            Self::All(needs) => needs.iter().any(|need| need.is_alone()),
            Self::Root
            | Self::Program(_)
            | Self::Device(_)
            | Self::File(_)
            | Self::Python(_)
            | Self::FileSystem(_)
            | Self::Queue(_)
            | Self::Rules(_) => false,
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Default)]
struct Arguments {
    filters: Vec<String>,
    skips: Vec<String>,
    is_exact: bool,
    is_list: bool,
    /// `--ignored`: there are none of those.
    is_ignored: bool,
    /// The case that this process is for, which another one started.
    inside: Option<String>,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--exact" => arguments.is_exact = true,
                "--list" => arguments.is_list = true,
                "--ignored" => arguments.is_ignored = true,
                worlds::INSIDE => arguments.inside = words.next(),
                "--skip" => arguments.skips.extend(words.next()),
                "--format" | "--test-threads" | "--color" | "-Z" => drop(words.next()),
                flag if flag.starts_with('-') => {}
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |filter: &String| {
            if self.is_exact { filter == name } else { name.contains(filter.as_str()) }
        };
        !self.is_ignored
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skips.iter().any(fits)
    }
}

/// Runs the cases that the command line asks for: first those that share the machine, several at a time,
/// then each of the others.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    if let Some(name) = &arguments.inside {
        return worlds::run_inside(cases, name);
    }
    let wanted: Vec<Case> =
        cases.iter().filter(|case| arguments.wants(case.name)).copied().collect();
    if arguments.is_list {
        for case in &wanted {
            println!("{}: test", case.name);
        }
        return ExitCode::SUCCESS;
    }
    worlds::sweep();
    let jobs = jobs().min(wanted.len());
    let worlds = Worlds::new(jobs > 1);
    let (alone, beside): (Vec<Case>, Vec<Case>) =
        wanted.into_iter().partition(|case| case.needs.iter().any(|need| need.is_alone()));
    let tally = Mutex::new(Tally::default());
    let next = Mutex::new(beside.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(case) = take(&next) {
                    tell(&tally, case, &run_one(&worlds, case));
                }
            });
        }
    });
    for case in alone {
        tell(&tally, case, &run_one(&worlds, case));
    }
    let Tally { passed, failed, skipped } = *lock(&tally);
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many cases run at a time: `HOTPAIR_JOBS`, else 3. They wait most of the time.
fn jobs() -> usize {
    let text = std::env::var("HOTPAIR_JOBS").ok();
    let number = |text: String| {
        let jobs = text.parse().ok().filter(|jobs| *jobs > 0);
        jobs.unwrap_or_else(|| panic!("HOTPAIR_JOBS={text}: give a number from 1 on"))
    };
    text.map_or(3, number)
}

fn take(next: &Mutex<impl Iterator<Item = Case>>) -> Option<Case> {
    lock(next).next()
}

/// What became of a case.
enum Outcome {
    /// What is missing.
    Skipped(String),
    Ended(Ended),
}

fn run_one(worlds: &Worlds, case: Case) -> Outcome {
    match case.needs.iter().find_map(|need| need.what_is_missing()) {
        Some(why) => Outcome::Skipped(why),
        None => Outcome::Ended(worlds.run(case.name)),
    }
}

/// How many cases ended in which way.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    passed: u32,
    failed: u32,
    skipped: u32,
}

/// Counts a case, and prints all about it in one block.
fn tell(tally: &Mutex<Tally>, case: Case, outcome: &Outcome) {
    let mut tally = lock(tally);
    match outcome {
        Outcome::Skipped(why) => {
            println!("skipped: {}: {why}", case.name);
            if std::env::var("HOTPAIR_TESTS").is_ok_and(|value| value == "all") {
                tally.failed += 1;
            } else {
                tally.skipped += 1;
            }
        }
        Outcome::Ended(Ended { has_passed: true, took, said }) => {
            println!("{said}ok {} ({})", case.name, seconds(*took));
            tally.passed += 1;
        }
        Outcome::Ended(Ended { has_passed: false, took, said }) => {
            println!("{said}FAILED {} ({})", case.name, seconds(*took));
            let target = env!("CARGO_CRATE_NAME");
            println!("  again: cargo test --test {target} -- --exact {}", case.name);
            tally.failed += 1;
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}
