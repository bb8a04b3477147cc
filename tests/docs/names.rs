//! Names that the pages list: commands, keys, events, paths, tests, files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::page::{self, Page, What};
use crate::real::pair::{self, Pair, Plan};
use crate::real::process;
use crate::world::{self, RESOURCE};
use crate::{OPERATIONS, PAGES};

/// What stands for something in running text, and one such thing.
const PLACEHOLDERS: &[(&str, &str)] = &[
    ("COMMAND", "init"),
    ("RESOURCE", RESOURCE),
    ("NODE", "alpha"),
    ("SIZE", "24MiB"),
    ("LEVEL", "debug"),
    ("SHELL", "bash"),
    ("ADDR", "192.0.2.3:7787"),
    ("DIR", "/nonexistent"),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The exit code of a command that finds no configuration: 2 only if it is no command at all.
fn exit_code(words: &[String]) -> Option<i32> {
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["--config", "/nonexistent/hotpair.toml"]);
    process::run(&pair::binary(), &words).code
}

#[test]
fn every_command_in_running_text_is_one() {
    for page in PAGES.map(Page::read) {
        for (line, code) in page.inline_code() {
            let Some(command) = code.strip_prefix("hotpair ") else { continue };
            let words = page::words(command);
            let is_placeholder = |word: &String| PLACEHOLDERS.iter().find(|(name, _)| name == word);
            let words: Vec<String> = words
                .iter()
                .map(|word| is_placeholder(word).map_or(word.clone(), |(_, is)| (*is).to_owned()))
                .collect();
            // A command named without what it needs: that there is help for it must do.
            let mut asks_help = words.clone();
            asks_help.push("--help".to_owned());
            let is_one = exit_code(&words) != Some(2) || exit_code(&asks_help) == Some(0);
            assert!(is_one, "{}:{line}: `{code}` is no command", page.name);
        }
    }
}

#[test]
fn every_command_is_in_the_operations_page() {
    let help = process::run_well(&pair::binary(), &["--help"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let listed = Page::read(OPERATIONS).keys_of_table("## 4. Commands");
    for command in commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()) {
        let is_listed = listed.iter().any(|cell| cell.split(' ').next() == Some(command));
        assert!(is_listed || command.is_empty() || command == "help", "`{command}` is missing");
    }
}

#[test]
fn every_configuration_that_is_shown_is_correct() {
    let base = world::base_config();
    for page in PAGES.map(Page::read) {
        for section in page.sections() {
            for piece in section.pieces {
                let What::Toml(text) = piece.what else { continue };
                let place = format!("{}:{}", page.name, piece.line);
                let part = text.parse().unwrap_or_else(|error| panic!("{place}: {error}"));
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("hotpair.toml");
                let whole = world::merged(&base, &part);
                std::fs::write(&path, toml::to_string(&whole).unwrap()).unwrap();
                let path = path.to_str().unwrap();
                let said = process::run(&pair::binary(), &["config", "check", "--config", path]);
                assert_eq!(said.code, Some(0), "{place}: {}", said.stderr);
                assert_eq!(said.stderr, "", "{place}");
            }
        }
    }
}

#[test]
fn the_units_start_the_daemon_and_the_witness() {
    let page = Page::read("README.md");
    let units: Vec<String> = page
        .sections()
        .into_iter()
        .flat_map(|section| section.pieces)
        .filter_map(|piece| match piece.what {
            What::Other(language, text) if language == "ini" => Some(text),
            _ => None,
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let state_dir = folder.path().join("witness").display().to_string();
    let starts = units.iter().map(|unit| {
        assert!(unit.contains("\nType=notify\n") && unit.contains("\nRestart=on-failure\n"));
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let start = start.strip_prefix("/usr/local/bin/hotpair ").unwrap();
        // No host of a test has the address of the page, so a witness ends as a daemon does.
        let words = page::words(&start.replace("/var/lib/hotpair-witness", &state_dir));
        assert_eq!(exit_code(&words), Some(1), "{start}");
        words[0].clone()
    });
    assert_eq!(starts.collect::<Vec<_>>(), ["run", "witness"]);
}

/// Kinds of events in the source: the first word of each call that makes one, and of each `kind`.
fn kinds_of_source() -> BTreeSet<String> {
    let mut kinds = BTreeSet::new();
    for (folder, calls) in [
        ("src/replica", [".event(", "kind: "]),
        ("src/promotion", ["tell(", "kind: "]),
        ("src/hooks", ["kind: "; 2]),
    ] {
        for text in rust_files(&root().join(folder)) {
            let after = |call: &'static str| {
                text.match_indices(call).map(|(at, word)| &text[at + word.len()..])
            };
            for after in calls.into_iter().flat_map(after) {
                if let Some(rest) = after.trim_start().strip_prefix('"') {
                    kinds.insert(rest.split('"').next().unwrap().to_owned());
                }
            }
        }
    }
    for text in ["src/hooks", "src/daemon"].into_iter().flat_map(|at| rust_files(&root().join(at)))
    {
        for (at, word) in text.match_indices("kind: \"") {
            kinds.insert(text[at + word.len()..].split('"').next().unwrap().to_owned());
        }
    }
    kinds
}

fn rust_files(folder: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            texts.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(std::fs::read_to_string(&path).unwrap());
        }
    }
    texts
}

#[test]
fn every_kind_of_event_is_described() {
    let mut kinds = kinds_of_source();
    kinds.extend(["listener-dropped", "arbiter-changed"].map(str::to_owned));
    let described: BTreeSet<String> =
        Page::read(OPERATIONS).keys_of_table("Kinds of events").into_iter().collect();
    assert_eq!(described, kinds);
}

#[test]
fn every_path_of_the_control_socket_answers() {
    let mut pair = Pair::prepare(Plan { size: 1 << 20, ..Plan::default() });
    pair.nodes[0].well(&["init", "--from", "empty"]);
    pair.nodes[0].run();
    let socket = pair.nodes[0].control.to_str().unwrap().to_owned();
    let rows = Page::read(OPERATIONS).keys_of_table("### HTTP");
    assert!(rows.len() > 5, "{rows:?}");
    for row in rows {
        let (method, path) = row.split_once(' ').unwrap();
        let path = path.replace("RESOURCE", pair::RESOURCE);
        // A body that no command takes: the path is known if that is what is wrong.
        let (body, expected) = match method {
            "POST" => ("{\"nonsense\":1}", 400),
            // The pair has a block resource, which has none.
            _ if path.ends_with("/generations") => ("", 409),
            _ => ("", 200),
        };
        let path = path.replace("/events", "/events?follow=false");
        let (status, answer) = world::request(&socket, method, &path, body);
        assert_eq!(status, expected, "{row}: {answer}");
    }
    let event: Value = pair.news.wait_for("an event", || {
        let (_, answer) = world::request(&socket, "GET", "/api/v1/events?follow=false", "");
        let line = answer.lines().find_map(|line| line.strip_prefix("data: "))?;
        Some(serde_json::from_str(line).unwrap())
    });
    let mut keys = BTreeSet::new();
    world::push_keys(&mut keys, "", &event);
    let described = Page::read(OPERATIONS).keys_of_table("### `events --json`");
    assert_eq!(described.into_iter().collect::<BTreeSet<_>>(), keys);
}

#[test]
fn every_test_and_file_that_is_named_exists() {
    let tests = [rust_files(&root().join("tests")), rust_files(&root().join("src"))].concat();
    for page in PAGES.map(Page::read) {
        let folder = root().join(page.name);
        let folder = folder.parent().unwrap();
        for (line, code) in page.inline_code() {
            let place = format!("{}:{line}", page.name);
            let is_test = code.matches('_').count() >= 3
                && code.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
            if is_test {
                let names = [format!("fn {code}("), format!("\"{code}\"")];
                let exists = tests.iter().any(|text| names.iter().any(|name| text.contains(name)));
                assert!(exists, "{place}: there is no test {code}");
            }
        }
        for target in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            let is_elsewhere = target.contains("://") || file.is_empty();
            assert!(is_elsewhere || folder.join(file).exists(), "{}: {target}", page.name);
        }
    }
}
