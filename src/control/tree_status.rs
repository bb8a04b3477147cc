//! What `status --json` says of a directory beside what it says of every resource.
//!
//! Whoever drives the tree fills it in; nothing here is worked out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::replica::{AtRisk, Refused};

/// Most entries of each list in a status; how many there are in all is in the counts.
pub const LISTED_MAX: usize = 100;

/// A tree at one moment, as its data thread publishes it.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeStatus {
    /// Number of the newest generation that is complete on this node; `None` before the first.
    pub tree_generation: Option<u64>,
    /// Age of the oldest change seen that is in no complete generation of the secondary; `None` on a
    /// node that cannot know.
    pub lag_ms: Option<u64>,
    /// Names of regular files in that generation.
    pub files: Option<u64>,
    /// What would be lost with the primary: entries that wait to be captured, or are in a generation
    /// that is not complete on the secondary.
    pub at_risk: AtRisk,
    /// The rest.
    pub tree: TreeState,
}

impl TreeStatus {
    /// What `explain` says, after `core`, which knows nothing of a tree that is halted: whatever else is the
    /// matter with the pair then mostly follows from that.
    pub(super) fn explain(&self, core: Refused) -> Refused {
        let Some(halted) = &self.tree.halted else { return core };
        let why = format!("nothing of the tree is sent: {}; {}", halted.reason, core.why);
        Refused { why, next: halted.next.clone() }
    }
}

/// The state of a tree.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TreeState {
    /// What the newest complete generation promises: `fuzzy`, `stable`, `frozen` or `quiesced`; null
    /// before the first.
    pub label: Option<String>,
    /// When its capture ended.
    pub captured_at: Option<Timestamp>,
    /// One hash over all of it, in hexadecimal digits.
    pub root: Option<String>,
    /// Names in it.
    pub entries: Option<u64>,
    /// The first of its entries that did not hold still, with `mixed`, `skewed`, `unverified` or
    /// `unreadable`.
    pub fuzzy: Vec<ListedEntry>,
    /// How many of them there are.
    pub fuzzy_count: u64,
    /// How old a change can be that gave no event; null where nobody looks for changes.
    pub unseen_bound_ms: Option<u64>,
    /// How changes are seen: `inotify`, `partial` or `scan`.
    pub watch: String,
    /// How often events were lost, and the tree was looked at as a whole therefore.
    pub overflows: u64,
    /// Stores through a mapping move no timestamp on this file system: nothing finds them but a
    /// comparison of all content.
    pub mmap_blind: bool,
    /// What keeps others from writing to a secondary's tree: `mount` or `watch`.
    pub guard: String,
    /// Where generations are staged and kept.
    pub work_dir: String,
    /// Records and content that were sent to the other node since the daemon started, as they travelled.
    pub sent_bytes: u64,
    /// What is in the tree and not kept.
    pub skipped: Skipped,
    /// The first of these, with the name of the count that they are in.
    pub skipped_entries: Vec<ListedEntry>,
    /// Further names of files in the tree that are outside of it: writes through them give no event.
    pub links_outside: u64,
    /// What was found in a secondary's tree that its primary had not put there.
    pub quarantine: Quarantine,
    /// Earlier generations that this node can go back to.
    pub undo: Undo,
    /// Why nothing is sent or applied; null if nothing stops it.
    pub halted: Option<Halted>,
    /// What is going on; null if nothing is.
    pub phase: Option<TreePhase>,
}

impl TreeState {
    /// The same with lists that fit a status.
    pub(super) fn shortened(&self) -> Self {
        let mut short = self.clone();
        short.fuzzy.truncate(LISTED_MAX);
        short.skipped_entries.truncate(LISTED_MAX);
        short
    }
}

/// One entry of a list.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ListedEntry {
    /// Its path from the root of the tree; escaped if it is not UTF-8.
    pub path: String,
    /// Its bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// Why it is listed, in one word.
    pub why: String,
}

#[cfg(feature = "directory")]
impl ListedEntry {
    /// An entry with this path from the root of the tree, byte for byte.
    pub fn new(path: &[u8], why: &str) -> Self {
        use base64::Engine as _;

        let is_text = std::str::from_utf8(path).is_ok();
        let encode = || base64::engine::general_purpose::STANDARD.encode(path);
        Self { path: path_text(path), path_base64: (!is_text).then(encode), why: why.to_owned() }
    }
}

/// A path as text: as it is if it is UTF-8, else with every byte escaped that is not ASCII.
pub fn path_text(path: &[u8]) -> String {
    let text = std::str::from_utf8(path).map(str::to_owned);
    text.unwrap_or_else(|_| path.escape_ascii().to_string())
}

/// How many entries are not kept, or not as they are.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Skipped {
    /// File systems that are mounted in the tree.
    pub mounts: u64,
    /// Entries that are immutable or append-only, which is not kept.
    pub flags: u64,
    /// Objects of a kind that is not known.
    pub kinds: u64,
    /// Devices, where these are left out.
    pub devices: u64,
    /// Names and paths that are too long.
    pub paths: u64,
}

impl Skipped {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { mounts, flags, kinds, devices, paths } = *self;
        mounts + flags + kinds + devices + paths
    }
}

/// What is kept of foreign writes; it is never removed by itself.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Quarantine {
    /// How many files.
    pub files: u64,
    /// How much they hold.
    pub bytes: u64,
}

/// What is kept for the way back.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Undo {
    /// How many generations before the current one.
    pub generations: u64,
    /// What is held for them.
    pub bytes: u64,
    /// Numbers of those that are kept until an operator accepts the deletes after them.
    pub pinned: Vec<u64>,
}

/// Why nothing is sent or applied.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Halted {
    /// In words.
    pub reason: String,
    /// The entry that it is about, if it is about one.
    pub path: Option<String>,
    /// What to type, or to do, next.
    pub next: String,
}

/// What is going on with a tree.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct TreePhase {
    /// `scan`, `hash`, `transfer`, `apply` or `scrub`.
    pub step: String,
    /// Entries behind us.
    pub done_entries: u64,
    /// In all; null until that is known.
    pub total_entries: Option<u64>,
    /// Bytes behind us; those of one huge file count as they move.
    pub done_bytes: u64,
    /// In all; null until that is known.
    pub total_bytes: Option<u64>,
    /// Over the last seconds.
    pub rate_bytes_per_s: u64,
    /// Time to the end at this rate; null while nothing moves, or nobody knows.
    pub eta_s: Option<u64>,
    /// Path of the entry that is worked on.
    pub entry: Option<String>,
}

/// A tree with something in each field, for tests of what is around it.
#[cfg(test)]
pub(crate) fn sample_tree() -> TreeStatus {
    let entry = |path: &str, path_base64: Option<&str>, why: &str| ListedEntry {
        path: path.to_owned(),
        path_base64: path_base64.map(str::to_owned),
        why: why.to_owned(),
    };
    TreeStatus {
        tree_generation: Some(41),
        lag_ms: Some(1200),
        files: Some(70_000),
        at_risk: AtRisk { writes: 3, bytes: 8192, age_ms: 1200 },
        tree: TreeState {
            label: Some("fuzzy".to_owned()),
            captured_at: Some("2026-01-01T00:00:00Z".parse().expect("a timestamp")),
            root: Some("9f3c".repeat(16)),
            entries: Some(81_234),
            fuzzy: vec![entry("log/a\u{1b}b", None, "mixed")],
            fuzzy_count: 2,
            unseen_bound_ms: Some(41_000),
            watch: "inotify".to_owned(),
            overflows: 1,
            mmap_blind: true,
            guard: "watch".to_owned(),
            work_dir: "/srv/.hotpair-uploads".to_owned(),
            sent_bytes: 5 << 20,
            skipped: Skipped { mounts: 1, ..Skipped::default() },
            skipped_entries: vec![entry("m\\xff", Some("bf8="), "mounts")],
            links_outside: 4,
            quarantine: Quarantine { files: 2, bytes: 4096 },
            undo: Undo { generations: 3, bytes: 1 << 20, pinned: vec![38] },
            halted: Some(Halted {
                reason: "700 of 1000 entries would be deleted".to_owned(),
                path: None,
                next: "hotpair resume-resync uploads --accept-deletes 700".to_owned(),
            }),
            phase: Some(TreePhase {
                step: "transfer".to_owned(),
                done_entries: 10,
                total_entries: Some(40),
                done_bytes: 1 << 20,
                total_bytes: Some(4 << 20),
                rate_bytes_per_s: 1 << 20,
                eta_s: Some(3),
                entry: Some("a/b".to_owned()),
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::control::status::{NodeStatus, Paths, ResourceStatus, sample};

    fn node(tree: TreeStatus) -> NodeStatus {
        let (facts, resource, mut snapshot) = sample();
        snapshot.tree = Some(tree);
        // What the core says of the block that names the generation is nobody's business.
        snapshot.core.at_risk = AtRisk { writes: 9, bytes: 9, age_ms: 9 };
        let status = ResourceStatus::new(&facts, &resource, &snapshot);
        NodeStatus::new(&facts, None, &Paths::default(), vec![status])
    }

    #[test]
    fn the_text_of_a_directory_is_the_contract() {
        let node = node(sample_tree());
        let text = serde_json::to_string(&node).unwrap();
        let tree = concat!(
            r#""tree_generation":41,"lag_ms":1200,"files":70000,"#,
            r#""tree":{"label":"fuzzy","captured_at":"2026-01-01T00:00:00Z","root":"ROOT","entries":81234,"#,
            r#""fuzzy":[{"path":"log/a\u001bb","why":"mixed"}],"fuzzy_count":2,"unseen_bound_ms":41000,"#,
            r#""watch":"inotify","overflows":1,"mmap_blind":true,"guard":"watch","#,
            r#""work_dir":"/srv/.hotpair-uploads","sent_bytes":5242880,"#,
            r#""skipped":{"mounts":1,"flags":0,"kinds":0,"devices":0,"paths":0},"#,
            r#""skipped_entries":[{"path":"m\\xff","path_base64":"bf8=","why":"mounts"}],"#,
            r#""links_outside":4,"quarantine":{"files":2,"bytes":4096},"#,
            r#""undo":{"generations":3,"bytes":1048576,"pinned":[38]},"#,
            r#""halted":{"reason":"700 of 1000 entries would be deleted","path":null,"#,
            r#""next":"hotpair resume-resync uploads --accept-deletes 700"},"#,
            r#""phase":{"step":"transfer","done_entries":10,"total_entries":40,"done_bytes":1048576,"#,
            r#""total_bytes":4194304,"rate_bytes_per_s":1048576,"eta_s":3,"entry":"a/b"}}"#,
        );
        assert!(text.contains(&tree.replace("ROOT", &"9f3c".repeat(16))), "{text}");
        for part in [
            r#""kind":"directory","mode":null,"#,
            r#""size_bytes":null,"out_of_sync_bytes":null,"#,
            r#""at_risk":{"writes":3,"bytes":8192,"age_ms":1200}"#,
            r#""export":null,"#,
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(serde_json::from_str::<NodeStatus>(&text).unwrap(), node);
    }

    #[test]
    fn a_tree_that_is_halted_comes_first() {
        let mut tree = sample_tree();
        let core = Refused { why: "in sync; this node serves".to_owned(), next: String::new() };
        let said = tree.explain(core.clone());
        let why = "nothing of the tree is sent: 700 of 1000 entries would be deleted; in sync; this node \
                   serves";
        assert_eq!(said.why, why);
        assert_eq!(said.next, "hotpair resume-resync uploads --accept-deletes 700");
        tree.tree.halted = None;
        assert_eq!(tree.explain(core.clone()), core);
    }

    #[test]
    fn a_list_of_a_status_has_an_end() {
        let mut tree = sample_tree();
        tree.tree.fuzzy = vec![tree.tree.fuzzy[0].clone(); LISTED_MAX + 7];
        tree.tree.skipped_entries = tree.tree.fuzzy.clone();
        tree.tree.fuzzy_count = 10_000;
        let shown = node(tree).resources[0].tree.clone().unwrap();
        assert_eq!((shown.fuzzy.len(), shown.skipped_entries.len()), (LISTED_MAX, LISTED_MAX));
        assert_eq!(shown.fuzzy_count, 10_000);
    }

    #[cfg(feature = "directory")]
    #[test]
    fn a_path_that_is_no_text_is_there_byte_for_byte() {
        let odd = ListedEntry::new(b"m\xff\n", "mixed");
        assert_eq!(odd.path, "m\\xff\\n");
        assert_eq!(odd.path_base64.as_deref(), Some("bf8K"));
        let plain = ListedEntry::new("m\u{e4}\n".as_bytes(), "mixed");
        assert_eq!((plain.path.as_str(), plain.path_base64), ("m\u{e4}\n", None));
    }

    /// Names of keys, those that are nested with a dot; of a list, those of its first element.
    fn push_keys(keys: &mut BTreeSet<String>, above: &str, value: &Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let dot = if above.is_empty() { "" } else { "." };
                    push_keys(keys, &format!("{above}{dot}{key}"), value);
                }
            }
            Value::Array(list) if list.first().is_some_and(Value::is_object) => {
                push_keys(keys, above, &list[0]);
            }
            _ => {
                keys.insert(above.to_owned());
            }
        }
    }

    #[test]
    fn every_key_of_a_tree_is_described_and_no_other() {
        let mut tree = sample_tree().tree;
        tree.fuzzy.clone_from(&tree.skipped_entries);
        let mut keys = BTreeSet::new();
        push_keys(&mut keys, "tree", &serde_json::to_value(&tree).unwrap());
        let page = include_str!("../../docs/OPERATIONS.md");
        let section = page.split("\n### `tree` in `status --json`\n").nth(1).unwrap();
        let section = section.split("\n##").next().unwrap();
        let cells =
            section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        let described = cells.flat_map(|cell| cell.split(", "));
        let described = described.map(|key| key.trim_matches('`').to_owned()).collect();
        assert_eq!(keys, described);
    }
}
