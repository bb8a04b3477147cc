//! What README.md and docs/OPERATIONS.md show is so: every command is typed into a real pair, and
//! every table that lists names lists those that there are.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "../support/cluster.rs"]
#[allow(dead_code, reason = "its own test uses all of it")]
mod cluster;
#[path = "../oracle/mod.rs"]
#[allow(unused_imports, reason = "loads of the other tests use it")]
mod oracle;
#[path = "../real/mod.rs"]
mod real;

mod names;
mod page;
mod world;

use std::collections::BTreeSet;
use std::sync::Mutex;

use page::{Page, Section, What};

/// The page that whoever runs a pair reads.
const OPERATIONS: &str = "docs/OPERATIONS.md";
/// Both pages.
const PAGES: [&str; 2] = ["README.md", OPERATIONS];
/// Pairs that run at the same time.
const PAIRS: usize = 4;

/// Keys of a status that no command of the page waits long enough to see, or that need a tree which
/// does not hold still, has in it what is not kept, or is too large for a test.
const RARELY_SEEN: &[&str] = &[
    "verify.done_bytes",
    "verify.total_bytes",
    "tree.fuzzy.path",
    "tree.fuzzy.path_base64",
    "tree.fuzzy.why",
    "tree.skipped_entries.path",
    "tree.skipped_entries.path_base64",
    "tree.skipped_entries.why",
    "tree.phase.step",
    "tree.phase.done_entries",
    "tree.phase.total_entries",
    "tree.phase.done_bytes",
    "tree.phase.total_bytes",
    "tree.phase.rate_bytes_per_s",
    "tree.phase.eta_s",
    "tree.phase.entry",
];

#[test]
fn the_quick_start_of_the_readme_works() {
    follow_all(&Page::read("README.md"));
}

#[test]
fn every_command_of_the_operations_page_does_what_it_says() {
    let page = Page::read(OPERATIONS);
    let seen = follow_all(&page);
    let tables = ["### `status --json`", "### `tree` in `status --json`"];
    let described: BTreeSet<String> =
        tables.iter().flat_map(|title| page.keys_of_table(title)).collect();
    let is_described = |key: &&String| {
        described.contains(*key)
            || described.iter().any(|known| known.starts_with(&format!("{key}.")))
    };
    let missing: Vec<_> = seen.iter().filter(|key| !is_described(key)).collect();
    assert!(missing.is_empty(), "{OPERATIONS} does not describe {missing:?}");
    let invented: Vec<_> = described
        .difference(&seen)
        .filter(|key| !RARELY_SEEN.contains(&key.as_str()) && !NODE_KEYS.contains(&key.as_str()))
        .collect();
    assert!(invented.is_empty(), "no status had {invented:?}");
}

/// Keys of the node, which stand above the resources.
const NODE_KEYS: &[&str] =
    &["format", "cluster", "node", "arbiter.kind", "arbiter.reachable", "warnings", "resources"];

/// Types all sections of a page, some at a time; each begins with a world of its own.
fn follow_all(page: &Page) -> BTreeSet<String> {
    let base = world::base_config();
    let sections = page.sections();
    let waiting: Mutex<Vec<&Section>> = Mutex::new(sections.iter().rev().collect());
    let seen = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..PAIRS {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap().pop();
                    let Some(section) = next else { return };
                    let keys = world::follow(page, section, &base);
                    seen.lock().unwrap().extend(keys);
                }
            });
        }
    });
    seen.into_inner().unwrap()
}

#[test]
fn no_command_hides_where_nobody_types_it() {
    let mut typed = Vec::new();
    for page in PAGES.map(Page::read) {
        let commands = typed.len();
        for piece in page.sections().into_iter().flat_map(|section| section.pieces) {
            let place = format!("{}:{}", page.name, piece.line);
            match piece.what {
                What::Typed(command) => typed.push(command.command),
                What::Other(language, text) => {
                    let is_known = ["text", "json", "ini"].contains(&language.as_str());
                    assert!(is_known, "{place}: {language}");
                    let is_bare = |line: &str| line.trim_start().starts_with("hotpair ");
                    assert!(!text.lines().any(is_bare), "{place} belongs into a console block");
                }
                What::Stage(_) | What::Toml(_) => {}
            }
        }
        let prompts = page.text.lines().filter(|line| page::prompt(line.trim_start()).is_some());
        assert_eq!(prompts.count(), typed.len() - commands, "{}: a prompt hides", page.name);
    }
    // Whatever is excused is there to be excused.
    for (start, why) in world::NOT_RUN {
        assert!(typed.iter().any(|command| command.starts_with(start)), "no {start:?}: {why}");
    }
}
