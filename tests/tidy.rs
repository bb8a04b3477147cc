//! The rules of the source that no other tool knows.
//!
//! Which module may import which, what the pure cores must not touch, where each outside crate
//! belongs, and the few words and habits that we keep out. A new folder or dependency fails here
//! until it has chosen its place.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every module of the crate, from the bottom, with the modules of ours it may import. The parser
/// of what clients say is a layer of its own, below the driver whose folder it lies in.
const LAYERS: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("config", &["units"]),
    ("wire", &["units"]),
    ("metadata", &["units"]),
    ("nbd/protocol", &["units"]),
    ("promotion", &["units", "wire", "metadata"]),
    ("replica", &["units", "wire", "metadata", "promotion"]),
    ("manifest", &["units", "wire", "metadata", "promotion"]),
    ("store", DRIVER),
    ("link", DRIVER),
    ("nbd", DRIVER),
    ("heartbeat", DRIVER),
    ("hooks", DRIVER),
    ("arbiter", DRIVER),
    ("control", DRIVER),
    ("daemon", ALL_BUT_CLI),
    ("cli", ALL),
    ("main", ALL),
    ("lib", ALL),
];
const DRIVER: &[&str] =
    &["units", "config", "wire", "metadata", "promotion", "replica", "manifest"];
const ALL_BUT_CLI: &[&str] = &[
    "units",
    "config",
    "wire",
    "metadata",
    "promotion",
    "replica",
    "manifest",
    "store",
    "link",
    "nbd",
    "heartbeat",
    "hooks",
    "arbiter",
    "control",
];
const ALL: &[&str] = &[
    "units",
    "config",
    "wire",
    "metadata",
    "promotion",
    "replica",
    "manifest",
    "store",
    "link",
    "nbd",
    "heartbeat",
    "hooks",
    "arbiter",
    "control",
    "daemon",
    "cli",
];

/// Modules that are told everything: no I/O, no clock, no randomness, no threads.
const PURE: &[&str] =
    &["units", "wire", "metadata", "nbd/protocol", "promotion", "replica", "manifest"];
const NOT_IN_PURE: &[&str] = &[
    "tokio::",
    "rustix::",
    "socket2::",
    "memmap2::",
    "fastrand::",
    "std::fs",
    "std::net",
    "std::io::Read",
    "std::thread",
    "std::process",
    "Instant::now",
    "SystemTime",
    "async fn",
    "HashMap",
    "HashSet",
];

/// Crates that have one place, as paths below `src` that may name them.
const PLACES: &[(&str, &[&str])] = &[
    (
        "tokio::",
        &[
            "store",
            "link",
            "nbd",
            "heartbeat",
            "arbiter",
            "hooks",
            "control",
            "daemon",
            "cli",
            "main",
        ],
    ),
    ("rustix::", &["store", "link", "nbd", "arbiter", "hooks", "control", "daemon", "cli", "main"]),
    ("bincode::", &["wire/body.rs"]),
    ("memmap2::", &["store/map.rs"]),
    ("redb::", &["store/tree/index"]),
    ("globset::", &["store/tree/exclude.rs"]),
    ("lz4_flex::", &["wire/packer.rs"]),
    ("toml::", &["config"]),
    ("annotate_snippets::", &["config", "cli"]),
    ("axum::", &["control"]),
    ("rustls::", &["link", "arbiter/security.rs"]),
    ("tokio_rustls::", &["link", "arbiter/security.rs"]),
    ("rcgen::", &["link"]),
    ("clap::", &["cli", "main"]),
    ("clap_complete::", &["cli"]),
    ("anyhow::", &["cli", "main"]),
    ("comfy_table::", &["cli"]),
    ("indicatif::", &["cli"]),
    ("sd_notify::", &["daemon"]),
    ("unsafe_code", &["store/map.rs"]),
];

/// The direct dependencies. Whoever adds one says in docs/ARCHITECTURE.md what it is for, why this
/// one, and how we would get rid of it.
const DEPENDENCIES: &[&str] = &[
    "annotate-snippets",
    "anstream",
    "anyhow",
    "axum",
    "base64",
    "bincode",
    "blake3",
    "bytes",
    "bytesize",
    "clap",
    "clap_complete",
    "comfy-table",
    "crc32c",
    "crossbeam-channel",
    "fastrand",
    "globset",
    "http-body-util",
    "hyper",
    "hyper-util",
    "indicatif",
    "jiff",
    "lz4_flex",
    "memmap2",
    "rcgen",
    "redb",
    "rustix",
    "rustls",
    "sd-notify",
    "serde",
    "serde_json",
    "socket2",
    "thiserror",
    "tokio",
    "tokio-rustls",
    "tokio-stream",
    "tokio-util",
    "toml",
    "tower-http",
    "tracing",
    "tracing-subscriber",
    "zerocopy",
];
const DEV_DEPENDENCIES: &[&str] = &["criterion", "proptest", "stateright", "tempfile"];

/// Parts of names that say nothing, or that this project has other words for.
const BANNED_WORDS: &[&str] = &[
    "master", "slave", "standby", "manager", "handler", "helper", "helpers", "util", "utils", "job",
];
const BANNED_VERBS: &[&str] = &["get", "process", "handle", "manage", "do"];

const LINES_MAX: usize = 800;

#[test]
fn modules_import_only_lower_layers() {
    for source in sources(&["src"]) {
        let layer = source.layer();
        let (_, allowed) = LAYERS
            .iter()
            .find(|(name, _)| *name == layer)
            .unwrap_or_else(|| panic!("{}: `{layer}` has no layer in LAYERS", source.name));
        for target in imports_of(&source.code()) {
            let own = target == layer || (layer.starts_with("nbd") && target == "nbd");
            assert!(
                own || allowed.contains(&target.as_str()),
                "{}: {layer} imports {target}",
                source.name
            );
        }
    }
}

#[test]
fn the_parser_of_clients_does_not_import_the_driver_around_it() {
    for source in sources(&["src/nbd"]).iter().filter(|source| source.layer() == "nbd/protocol") {
        for path in source.code().split("crate::nbd::").skip(1) {
            assert!(path.starts_with("protocol"), "{}: imports the NBD driver", source.name);
        }
    }
}

#[test]
fn the_cores_are_told_and_never_look() {
    for source in sources(&["src"]).iter().filter(|s| PURE.contains(&s.layer().as_str())) {
        for (line, text) in source.numbered_product() {
            for word in NOT_IN_PURE {
                let ours = source.layer() == "units" && *word == "Instant::now";
                assert!(ours || !text.contains(word), "{}:{line}: `{word}`", source.name);
            }
        }
    }
}

#[test]
fn outside_crates_stay_in_their_place() {
    for source in sources(&["src"]) {
        let path = source.name.strip_prefix("src/").unwrap();
        for (line, text) in source.numbered_code() {
            for (word, places) in PLACES {
                let is_allowed = places.iter().any(|place| {
                    path == *place
                        || path.starts_with(&format!("{place}/"))
                        || path == format!("{place}.rs")
                });
                assert!(is_allowed || !names(text, word), "{}:{line}: `{word}`", source.name);
            }
        }
    }
}

#[test]
fn every_file_starts_with_a_header_and_is_short_and_ascii() {
    for source in sources(&["src", "tests", "benches"]) {
        assert!(source.text.starts_with("//! "), "{}: no //! header", source.name);
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "{}: {lines} lines, {LINES_MAX} at most", source.name);
        assert!(source.text.is_ascii(), "{}: not ASCII", source.name);
    }
}

#[test]
fn names_say_something() {
    for source in sources(&["src"]) {
        let product: Vec<&str> = source.numbered_product().map(|(_, line)| line).collect();
        for name in definitions_of(&product.join("\n")) {
            let words = words_of(&name);
            for word in &words {
                assert!(
                    !BANNED_WORDS.contains(&word.as_str()),
                    "{}: `{name}`: `{word}`",
                    source.name
                );
            }
            let is_snake = name.starts_with(char::is_lowercase);
            assert!(
                words.len() == 1 || !is_snake || !BANNED_VERBS.contains(&words[0].as_str()),
                "{}: `{name}` starts with `{}_`",
                source.name,
                words[0]
            );
        }
    }
}

#[test]
fn nothing_is_left_for_later() {
    // Put together here, so that a search for them finds leftovers only.
    let leftovers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("#[ig", "nore"),
    ];
    for source in sources(&["src", "tests", "benches"]) {
        for (line, text) in source.text.lines().enumerate() {
            for word in leftovers {
                assert!(!text.contains(word), "{}:{}: {word}", source.name, line + 1);
            }
        }
    }
}

#[test]
fn tests_wait_for_facts_and_never_sleep() {
    let sleeps = [concat!("thread::", "sleep"), concat!("time::", "sleep(")];
    for source in sources(&["src", "tests", "benches"]) {
        for (line, text) in source.numbered_code() {
            for word in sleeps {
                let is_driver = source.name.starts_with("src/") && word.starts_with("time");
                assert!(is_driver || !text.contains(word), "{}:{line}: {word}", source.name);
            }
        }
    }
}

#[test]
fn the_direct_dependencies_are_the_ones_we_chose() {
    let manifest: toml::Table =
        fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    for (section, chosen) in
        [("dependencies", DEPENDENCIES), ("dev-dependencies", DEV_DEPENDENCIES)]
    {
        let mut found: Vec<&str> =
            manifest[section].as_table().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found, chosen, "[{section}] of Cargo.toml");
    }
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let imports = |text: &str| imports_of(text);
    assert_eq!(imports("use crate::wire::Frame;"), ["wire"]);
    assert_eq!(imports("let x = crate::store::open(crate::units::A);"), ["store", "units"]);
    assert_eq!(imports("use crate::{units::{self, B}, wire::frame::{C, D}};"), ["units", "wire"]);
    assert_eq!(imports("pub(crate) fn f() {} my_crate::x();"), Vec::<String>::new());
}

#[test]
fn a_name_is_cut_into_its_words() {
    assert_eq!(words_of("get_HTTPHandler2"), ["get", "httphandler2"]);
    assert_eq!(words_of("OpenHandler"), ["open", "handler"]);
    assert_eq!(words_of("ACTIVITY_LOG"), ["activity", "log"]);
}

/// One file of ours.
struct Source {
    /// Path from the root of the repository.
    name: String,
    text: String,
}

impl Source {
    /// The entry of [`LAYERS`] that a file under `src` falls under.
    fn layer(&self) -> String {
        let path = self.name.strip_prefix("src/").unwrap();
        if path.starts_with("nbd/protocol") {
            return "nbd/protocol".to_owned();
        }
        path.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
    }

    /// The text without comments, so that a doc link is not an import.
    fn code(&self) -> String {
        self.numbered_code().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
    }

    fn numbered_code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The code without its tests, which come last and may read files.
    fn numbered_product(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_product = !self.name.ends_with("/tests.rs");
        self.numbered_code().take_while(move |(_, line)| is_product && *line != "mod tests {")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below the given folders, but this one, in a fixed order.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut paths: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut found = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            found.push(Source { name, text: fs::read_to_string(&path).unwrap() });
        }
    }
    found.retain(|source| source.name != file!());
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The modules of ours that `code` names by a path from the root of the crate.
fn imports_of(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "hotpair::"] {
        for (at, _) in code.match_indices(root) {
            if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                None => found.push(identifier_at(rest)),
                Some(group) => found.extend(heads_of_group(group)),
            }
        }
    }
    found.retain(|name| name.starts_with(char::is_lowercase));
    found.sort();
    found.dedup();
    found
}

/// The first identifier of each entry of a `use` group, up to the brace that closes it.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut depth = 1;
    let mut heads = vec![identifier_at(group)];
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => heads.push(identifier_at(&group[at + 1..])),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn identifier_at(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Whether `text` names `word`, and not merely something that ends like it.
fn names(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[..at].ends_with(|before: char| before.is_alphanumeric() || "_:".contains(before))
    })
}

/// The names that `code` gives to items.
fn definitions_of(code: &str) -> Vec<String> {
    let keywords = ["fn", "struct", "enum", "trait", "type", "mod", "const", "static"];
    let mut words = code.split_whitespace();
    let mut found = Vec::new();
    while let Some(word) = words.next() {
        if keywords.contains(&word) {
            let name = words.clone().next().map(identifier_at).unwrap_or_default();
            if !name.is_empty() && !keywords.contains(&name.as_str()) {
                found.push(name);
            }
        }
    }
    found
}

/// The words of a name in snake or camel case, in lower case.
fn words_of(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut after_lower = false;
    for character in name.chars() {
        if character == '_' || (character.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        if character != '_' {
            words.last_mut().unwrap().extend(character.to_lowercase());
        }
        after_lower = character.is_lowercase() || character.is_ascii_digit();
    }
    words.retain(|word| !word.is_empty());
    words
}
