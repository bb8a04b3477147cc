//! A directory as people read it: what a status says of it beside what it says of every resource.

use super::say::{self, BAD, CAREFUL};
use super::table::{bar, count, time, unknown};
use crate::control::status::{Progress, ResourceStatus};
use crate::control::tree_status::{Halted, ListedEntry, TreePhase, TreeState};

/// The lines of one directory with everything that is known of it.
pub(super) fn details(resource: &ResourceStatus, tree: &TreeState) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("tree", generation(resource, tree)),
        ("captured", tree.captured_at.map_or_else(unknown, |at| at.to_string())),
        ("root", tree.root.clone().unwrap_or_else(unknown)),
        ("entries", entries(resource, tree)),
        ("behind", lag(resource)),
        ("unseen", unseen(tree)),
        ("watch", watch(tree)),
        ("guard", tree.guard.clone()),
        ("work area", shown(&tree.work_dir)),
        ("sent", say::size(tree.sent_bytes)),
        ("undo", undo(tree)),
    ];
    if tree.fuzzy_count > 0 {
        lines.push(("fuzzy", listed(&tree.fuzzy, tree.fuzzy_count)));
    }
    if tree.skipped.total() > 0 {
        lines.push(("skipped", listed(&tree.skipped_entries, tree.skipped.total())));
    }
    if tree.links_outside > 0 {
        let names = count(tree.links_outside, "name");
        lines.push(("outside", format!("{names} of files in the tree are outside of it")));
    }
    lines
}

/// What is going on with a directory, and what is wrong with it, in lines of their own.
pub(super) fn below(resource: &ResourceStatus, tree: &TreeState) -> Vec<String> {
    let name = &resource.name;
    let mut lines = vec![format!("{name}: {}, {}", generation(resource, tree), lag(resource))];
    if let Some(phase) = &tree.phase {
        lines.push(format!("{name}: {}", phase_line(phase)));
    }
    if let Some(Halted { reason, path, next }) = &tree.halted {
        let path = path.as_ref().map_or_else(String::new, |path| format!(" ({})", shown(path)));
        let (reason, next) = (shown(reason), shown(next));
        lines.push(format!("{BAD}{name}: halted{BAD:#}: {reason}{path}; next: {next}"));
    }
    if tree.quarantine.files > 0 {
        lines.push(format!(
            "{CAREFUL}{name}: quarantine{CAREFUL:#}: {}, {}, that the primary did not write are in \
             {}/lost+hotpair",
            count(tree.quarantine.files, "file"),
            say::size(tree.quarantine.bytes),
            shown(&tree.work_dir)
        ));
    }
    lines
}

fn generation(resource: &ResourceStatus, tree: &TreeState) -> String {
    let Some(number) = resource.tree_generation else {
        return "no complete generation yet".to_owned();
    };
    let label = tree.label.clone().unwrap_or_else(unknown);
    format!("generation {number} ({label})")
}

fn entries(resource: &ResourceStatus, tree: &TreeState) -> String {
    let number = |it: Option<u64>| it.map_or_else(unknown, |it| it.to_string());
    format!("{}, of them {} files", number(tree.entries), number(resource.files))
}

/// How far the secondary is behind, and what would be lost with the primary.
fn lag(resource: &ResourceStatus) -> String {
    let at_risk = &resource.at_risk;
    let lag = resource.lag_ms.map_or_else(unknown, |lag| format!("{lag} ms"));
    if at_risk.writes == 0 {
        return format!("lag {lag}");
    }
    let (entries, bytes) = (at_risk.writes, say::size(at_risk.bytes));
    let plural = if entries == 1 { "entry" } else { "entries" };
    format!("lag {lag}, at risk {entries} {plural}, {bytes}")
}

fn unseen(tree: &TreeState) -> String {
    let seconds = tree.unseen_bound_ms.map(|bound| time(bound / 1000));
    seconds.map_or_else(unknown, |bound| format!("a change without event is at most {bound} old"))
}

fn watch(tree: &TreeState) -> String {
    let lost = match tree.overflows {
        0 => String::new(),
        overflows => format!(", events lost {}", count(overflows, "time")),
    };
    let blind = if tree.mmap_blind { ", stores through mappings are not seen" } else { "" };
    format!("{}{lost}{blind}", tree.watch)
}

fn undo(tree: &TreeState) -> String {
    let undo = &tree.undo;
    let pinned: Vec<_> = undo.pinned.iter().map(u64::to_string).collect();
    let pinned =
        if pinned.is_empty() { String::new() } else { format!(", pinned: {}", pinned.join(", ")) };
    format!("{}, {}{pinned}", count(undo.generations, "generation"), say::size(undo.bytes))
}

/// The first of them, and how many there are.
fn listed(entries: &[ListedEntry], total: u64) -> String {
    let first = entries.iter().take(LISTED_SHOWN);
    let first: Vec<_> = first.map(|it| format!("{} ({})", shown(&it.path), it.why)).collect();
    let more = total.saturating_sub(u64::try_from(first.len()).unwrap_or(u64::MAX));
    match (first.is_empty(), more) {
        (true, more) => more.to_string(),
        (false, 0) => first.join(", "),
        (false, more) => format!("{} and {more} more", first.join(", ")),
    }
}

/// How far something is, in one line.
fn phase_line(phase: &TreePhase) -> String {
    let done = match (phase.total_bytes, phase.total_entries) {
        (Some(total_bytes), _) => bar(Progress { done_bytes: phase.done_bytes, total_bytes }),
        (None, Some(total)) => format!("{} of {total} entries", phase.done_entries),
        (None, None) => format!("{} entries", phase.done_entries),
    };
    let rate = match phase.rate_bytes_per_s {
        0 => String::new(),
        rate => format!(", {}/s", say::size(rate)),
    };
    let left = phase.eta_s.map_or_else(String::new, |eta| format!(", {} left", time(eta)));
    let entry = phase.entry.as_ref().map_or_else(String::new, |it| format!(", {}", shown(it)));
    format!("{} {done}{rate}{left}{entry}", phase.step)
}

/// Names in a tree can hold anything, also what a terminal obeys.
fn shown(text: &str) -> String {
    let is_plain = |c: char| "\\'\"".contains(c) || c.escape_debug().count() == 1;
    let mut safe = String::new();
    for c in text.chars() {
        if is_plain(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_unicode());
        }
    }
    safe
}

/// Entries of a list that are shown; the JSON has more.
const LISTED_SHOWN: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::sample;
    use crate::control::tree_status::sample_tree;

    fn resource(change: impl FnOnce(&mut crate::control::TreeStatus)) -> ResourceStatus {
        let (facts, resource, mut snapshot) = sample();
        let mut tree = sample_tree();
        change(&mut tree);
        snapshot.tree = Some(tree);
        ResourceStatus::new(&facts, &resource, &snapshot)
    }

    fn plain(lines: &[String]) -> Vec<String> {
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
    }

    fn lines_below(resource: &ResourceStatus) -> Vec<String> {
        plain(&below(resource, resource.tree.as_ref().unwrap()))
    }

    #[test]
    fn what_goes_on_and_what_is_wrong_has_a_line_of_its_own() {
        assert_eq!(
            lines_below(&resource(|_| ())),
            [
                "vm1: generation 41 (fuzzy), lag 1200 ms, at risk 3 entries, 8.0 KiB",
                "vm1: transfer [=======                       ] 25% of 4.0 MiB, 1.0 MiB/s, 3 s left, a/b",
                "vm1: halted: 700 of 1000 entries would be deleted; next: hotpair resume-resync uploads \
                 --accept-deletes 700",
                "vm1: quarantine: 2 files, 4.0 KiB, that the primary did not write are in \
                 /srv/.hotpair-uploads/lost+hotpair",
            ]
        );
        let quiet = resource(|tree| {
            tree.tree_generation = None;
            tree.lag_ms = None;
            tree.at_risk = crate::replica::AtRisk::default();
            tree.tree.halted = None;
            tree.tree.phase = None;
            tree.tree.quarantine.files = 0;
        });
        assert_eq!(lines_below(&quiet), ["vm1: no complete generation yet, lag -"]);
    }

    #[test]
    fn a_phase_says_what_is_known_of_it() {
        let mut phase = sample_tree().tree.phase.unwrap();
        phase.total_bytes = None;
        assert_eq!(phase_line(&phase), "transfer 10 of 40 entries, 1.0 MiB/s, 3 s left, a/b");
        (phase.total_entries, phase.eta_s, phase.entry) = (None, None, None);
        phase.rate_bytes_per_s = 0;
        assert_eq!(phase_line(&phase), "transfer 10 entries");
    }

    #[test]
    fn details_have_everything_and_nothing_that_a_terminal_obeys() {
        let resource = resource(|tree| {
            tree.tree.halted.as_mut().unwrap().path = Some("a\u{1b}[2J\nb".to_owned());
        });
        let lines = details(&resource, resource.tree.as_ref().unwrap());
        let find = |key| lines.iter().find(|line| line.0 == key).map(|line| line.1.as_str());
        for (key, value) in [
            ("tree", "generation 41 (fuzzy)"),
            ("captured", "2026-01-01T00:00:00Z"),
            ("entries", "81234, of them 70000 files"),
            ("behind", "lag 1200 ms, at risk 3 entries, 8.0 KiB"),
            ("unseen", "a change without event is at most 41 s old"),
            ("watch", "inotify, events lost 1 time, stores through mappings are not seen"),
            ("sent", "5.0 MiB"),
            ("undo", "3 generations, 1.0 MiB, pinned: 38"),
            ("fuzzy", "log/a\\u{1b}b (mixed) and 1 more"),
            ("skipped", "m\\xff (mounts)"),
            ("outside", "4 names of files in the tree are outside of it"),
        ] {
            assert_eq!(find(key), Some(value), "{key}");
        }
        let halted = &lines_below(&resource)[2];
        assert!(halted.contains("(a\\u{1b}[2J\\u{a}b)") && !halted.contains('\u{1b}'), "{halted}");
    }
}
