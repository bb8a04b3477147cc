//! Runs cases that need more than the Rust toolchain, and says which could not run and why.
//!
//! It prints `ok NAME`, `FAILED NAME` or `skipped: NAME: why`, then `N passed, N failed, N skipped`.
//! With `HOTPAIR_TESTS=all` a skip is a failure. It takes the arguments that cargo and nextest give
//! to a test binary: filters, `--exact`, `--list`.

#![expect(clippy::print_stdout, reason = "a harness talks")]

use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::process;

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
            Self::All(needs) => needs.iter().find_map(|need| need.what_is_missing()),
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
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--exact" => arguments.is_exact = true,
                "--list" => arguments.is_list = true,
                "--ignored" => arguments.is_ignored = true,
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

/// Runs the cases that the command line asks for, one after the other.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let wanted = cases.iter().filter(|case| arguments.wants(case.name));
    if arguments.is_list {
        wanted.for_each(|case| println!("{}: test", case.name));
        return ExitCode::SUCCESS;
    }
    let a_skip_fails = std::env::var("HOTPAIR_TESTS").is_ok_and(|value| value == "all");
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in wanted {
        if let Some(why) = case.needs.iter().find_map(|need| need.what_is_missing()) {
            println!("skipped: {}: {why}", case.name);
            if a_skip_fails {
                failed += 1;
            } else {
                skipped += 1;
            }
            continue;
        }
        let start = process::now();
        let result = panic::catch_unwind(case.run);
        let took = seconds(process::now() - start);
        if result.is_ok() {
            println!("ok {} ({took})", case.name);
            passed += 1;
        } else {
            println!("FAILED {} ({took})", case.name);
            let target = env!("CARGO_CRATE_NAME");
            println!("  again: cargo test --test {target} -- --exact {}", case.name);
            failed += 1;
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}
