//! What is shown of a tree.

use std::path::PathBuf;

use jiff::Timestamp;

use super::{Service, TreeDesk};
use crate::control::tree_status::{Quarantine, TreeState, TreeStatus, Undo};
use crate::manifest::Standing;
use crate::manifest::source::{CaptureEnd, Register};
use crate::replica::AtRisk;
use crate::store::tree::capture::{Captured, SkippedWhy};

/// What was found last.
#[derive(Debug)]
pub(super) struct TreeView {
    pub(super) standing: Option<Standing>,
    work_dir: PathBuf,
    /// Records and content that were handed to connections.
    pub(super) sent_bytes: u64,
    captured_at: Option<Timestamp>,
    entries: Option<u64>,
    fuzzy: Vec<crate::control::tree_status::ListedEntry>,
    fuzzy_count: u64,
    skipped: crate::control::tree_status::Skipped,
    skipped_entries: Vec<crate::control::tree_status::ListedEntry>,
    is_partial: bool,
    pub(super) halted: Option<crate::control::tree_status::Halted>,
}

impl TreeView {
    pub(super) fn new(work_dir: PathBuf) -> Self {
        Self {
            standing: None,
            work_dir,
            sent_bytes: 0,
            captured_at: None,
            entries: None,
            fuzzy: Vec::new(),
            fuzzy_count: 0,
            skipped: crate::control::tree_status::Skipped::default(),
            skipped_entries: Vec::new(),
            is_partial: false,
            halted: None,
        }
    }

    pub(super) fn captured(&mut self, end: CaptureEnd, captured: &Captured, entries: u64) {
        self.halted = None;
        self.captured_at = Some(Timestamp::now());
        self.entries = Some(entries);
        self.fuzzy_count = captured.fuzzy.count();
        self.is_partial = captured.unwatched > 0;
        self.fuzzy = captured
            .fuzzy
            .listed()
            .take(crate::control::tree_status::LISTED_MAX)
            .map(|((_, name), why)| {
                crate::control::tree_status::ListedEntry::new(name.bytes(), why.name())
            })
            .collect();
        if end.was_full {
            let count = |why| captured.skipped.counts.get(&why).copied().unwrap_or_default();
            self.skipped = crate::control::tree_status::Skipped {
                mounts: count(SkippedWhy::Mount),
                flags: count(SkippedWhy::Flags),
                kinds: count(SkippedWhy::Kind),
                devices: count(SkippedWhy::Device),
                paths: count(SkippedWhy::Path),
            };
            let listed = captured.skipped.paths.iter();
            self.skipped_entries = listed
                .map(|(why, path)| crate::control::tree_status::ListedEntry::new(path, why.name()))
                .collect();
        }
    }
}

impl TreeDesk {
    /// What `status` shows.
    pub(in crate::daemon) fn status(&self) -> TreeStatus {
        let is_serving = self.service == Service::On;
        let register = self.register.as_ref();
        let (position, label) = match (self.keeping.own(), register) {
            (Some(own), _) => (Some(own.position), Some(own.label)),
            (None, Some(Register::Complete { position, label })) => (Some(*position), Some(*label)),
            (None, Some(Register::Open) | None) => (None, None),
        };
        let millis =
            |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let lag = is_serving.then(|| millis(self.source.lag(self.now)));
        let look = self.look.as_ref();
        let usage = &self.keeping.usage;
        // What was captured last is of no account once the tree follows another one.
        let entries = if is_serving { self.view.entries } else { usage.entries };
        let count = look.map_or(0, crate::store::tree::DirtyLook::count) as u64;
        TreeStatus {
            tree_generation: position.map(|it| it.number.0),
            lag_ms: lag,
            files: None,
            at_risk: AtRisk { writes: count, bytes: 0, age_ms: lag.unwrap_or_default() },
            tree: TreeState {
                label: label.map(|label| label.name().to_owned()),
                captured_at: self.view.captured_at,
                root: position.map(|it| it.root.to_string()),
                entries,
                fuzzy: self.view.fuzzy.clone(),
                fuzzy_count: self.view.fuzzy_count,
                unseen_bound_ms: is_serving.then(|| millis(self.source.unseen_bound(self.now))),
                watch: self.watch_word().to_owned(),
                overflows: look.map_or(0, crate::store::tree::DirtyLook::overflows),
                mmap_blind: false,
                guard: "watch".to_owned(),
                work_dir: self.view.work_dir.display().to_string(),
                sent_bytes: self.view.sent_bytes,
                skipped: self.view.skipped,
                skipped_entries: self.view.skipped_entries.clone(),
                links_outside: 0,
                quarantine: Quarantine {
                    files: usage.quarantined.files,
                    bytes: usage.quarantined.bytes,
                },
                undo: Undo {
                    generations: usage.generations,
                    bytes: usage.bytes,
                    pinned: usage.pinned.clone(),
                },
                halted: self.view.halted.clone(),
                phase: None,
            },
        }
    }

    fn watch_word(&self) -> &'static str {
        match (self.has_events, self.view.is_partial) {
            (false, _) => "scan",
            (true, true) => "partial",
            (true, false) => "inotify",
        }
    }
}
