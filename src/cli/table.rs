//! A status as people read it: one row for a resource, and below what is going on.

use clap::builder::styling::Style;
use comfy_table::{Table, presets};

use super::say::{self, BAD, BOLD, CAREFUL, GOOD};
use super::tree_table;
use crate::control::status::{Direction, NodeStatus, Progress, ResourceStatus, Resync};
use crate::units::DiskReason;

/// All of a node.
pub(super) fn of_node(status: &NodeStatus) -> String {
    let mut text = head(status);
    if status.resources.is_empty() {
        text.push_str("\nthere is no resource in the configuration of this node\n");
    } else {
        text.push_str(&paint(&rows(&status.resources)));
    }
    for resource in &status.resources {
        push_lines(&mut text, &below(resource));
    }
    push_lines(&mut text, &warnings(status));
    text
}

/// One resource with everything that is known of it.
pub(super) fn of_resource(status: &NodeStatus, resource: &ResourceStatus) -> String {
    let mut text = head(status);
    text.push_str(&paint(&details(resource)));
    push_lines(&mut text, &below(resource));
    push_lines(&mut text, &warnings(status));
    text
}

fn head(status: &NodeStatus) -> String {
    format!("{BOLD}{}{BOLD:#}: node {BOLD}{}{BOLD:#}\n", status.cluster, status.node)
}

fn push_lines(text: &mut String, lines: &[String]) {
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
}

fn rows(resources: &[ResourceStatus]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "RESOURCE",
        "ROLE",
        "DISK",
        "PEER",
        "LINK",
        "ROLE",
        "DISK",
        "REPLICATION",
        "DIFFERS",
        "CLIENTS",
    ]);
    for resource in resources {
        let peer = &resource.peer;
        table.add_row([
            resource.name.clone(),
            role(resource),
            resource.disk.to_string(),
            peer.node.clone(),
            word(&peer.link),
            peer.role.map_or_else(unknown, |role| role.to_string()),
            peer.disk.map_or_else(unknown, |disk| disk.to_string()),
            word(&peer.replication),
            resource.out_of_sync_bytes.map_or_else(unknown, say::size),
            clients(resource),
        ]);
    }
    // Its cells are padded on both sides, up to the last column of the widest row.
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A directory has none.
fn clients(resource: &ResourceStatus) -> String {
    if resource.export.is_some() { resource.clients.to_string() } else { unknown() }
}

fn role(resource: &ResourceStatus) -> String {
    let solo = if resource.solo { " (alone)" } else { "" };
    format!("{}{solo}", resource.role)
}

fn disk(resource: &ResourceStatus) -> String {
    match resource.disk_reason {
        DiskReason::None => resource.disk.to_string(),
        _ => format!("{} ({})", resource.disk, word(&resource.disk_reason)),
    }
}

/// A count and the word for what is counted, which has an `s` unless there is one.
pub(super) fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// What stands where nothing is known.
pub(super) fn unknown() -> String {
    "-".to_owned()
}

/// A word as the JSON has it.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(_) | Err(_) => unknown(),
    }
}

fn details(resource: &ResourceStatus) -> String {
    let peer = &resource.peer;
    let at_risk = &resource.at_risk;
    let mode = resource.mode.map_or_else(String::new, |mode| format!(" in mode {mode}"));
    let mut lines = vec![
        ("resource", format!("{}, {}{mode}", resource.name, resource.kind)),
        ("role", format!("{}, state {}, epoch {}", role(resource), resource.state, resource.epoch)),
        ("disk", disk(resource)),
        ("generation", resource.generation.clone().unwrap_or_else(unknown)),
    ];
    if let Some(size) = resource.size_bytes {
        lines.push(("size", format!("{} ({size} bytes)", say::size(size))));
        lines.push(("differs", differs(resource)));
    }
    if let Some(export) = &resource.export {
        lines.push(("export", format!("{export}, {}", count(resource.clients, "client"))));
    }
    lines.extend([
        ("peer", format!("{}, {}{}", peer.node, word(&peer.link), encrypted(peer.encrypted))),
        ("peer role", peer.role.map_or_else(unknown, |role| role.to_string())),
        ("peer disk", peer.disk.map_or_else(unknown, |disk| disk.to_string())),
        ("replication", word(&peer.replication)),
    ]);
    if let Some(prefer) = &resource.prefer {
        lines.push(("prefers", prefer.clone()));
    }
    if let Some(services) = &resource.services {
        let why = services.failure.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        lines.push(("services", format!("{}{why}", services.state)));
    }
    if let Some(tree) = &resource.tree {
        lines.extend(tree_table::details(resource, tree));
    } else if at_risk.writes > 0 {
        let (writes, age) = (count(at_risk.writes, "write"), at_risk.age_ms);
        let bytes = say::size(at_risk.bytes);
        lines.push(("at risk", format!("{writes}, {bytes}, the oldest {age} ms old")));
    }
    if let Some(verify) = &resource.last_verify {
        let differences = count(verify.differences, "difference");
        lines.push(("verified", format!("{}: {differences}", verify.at)));
    }
    let mut text = String::new();
    for (key, value) in lines {
        text.push_str(&[format!("{key:>12}: "), value, "\n".to_owned()].concat());
    }
    text
}

fn differs(resource: &ResourceStatus) -> String {
    match resource.out_of_sync_bytes {
        Some(bytes) => format!("{} may differ from the peer", say::size(bytes)),
        None => "unknown while nothing is replicated".to_owned(),
    }
}

fn encrypted(is_so: bool) -> &'static str {
    if is_so { ", encrypted" } else { ", in the clear" }
}

/// What is going on with a resource, and what is wrong with it.
fn below(resource: &ResourceStatus) -> Vec<String> {
    let name = &resource.name;
    let mut lines = Vec::new();
    if let Some(tree) = &resource.tree {
        lines.extend(tree_table::below(resource, tree));
    }
    // Two equal copies begin to replicate with a resync of nothing.
    if let Some(resync) = resource.resync.as_ref().filter(|resync| resync.total_bytes > 0) {
        lines.push(format!("{name}: {}", resync_line(resync, &resource.peer.node)));
    }
    if let Some(verify) = &resource.verify {
        lines.push(format!("{name}: verify {}", bar(*verify)));
    }
    if let Some(split) = &resource.split_brain {
        let (mine, theirs) = (&split.mine, &split.theirs);
        lines.push(format!(
            "{BAD}{name}: split brain{BAD:#}: {} and {} both took writes alone; type: hotpair \
             split-brain show {name}",
            mine.node, theirs.node
        ));
    }
    for warning in &resource.warnings {
        lines.push(format!("{CAREFUL}{name}: warning{CAREFUL:#}: {warning}"));
    }
    lines
}

fn warnings(status: &NodeStatus) -> Vec<String> {
    let warnings = status.warnings.iter();
    warnings.map(|warning| format!("{CAREFUL}warning{CAREFUL:#}: {warning}")).collect()
}

/// How far a resync is, in one line.
pub(super) fn resync_line(resync: &Resync, peer: &str) -> String {
    let way = match resync.direction {
        Direction::Source => "to",
        Direction::Target => "from",
    };
    let done_bytes = resync.total_bytes.saturating_sub(resync.remaining_bytes);
    let bar = bar(Progress { done_bytes, total_bytes: resync.total_bytes });
    let pace = match (resync.paused, resync.eta_s) {
        (true, _) => ", paused".to_owned(),
        (false, None) => String::new(),
        (false, Some(seconds)) => {
            format!(", {}/s, {} left", say::size(resync.rate_bytes_per_s), time(seconds))
        }
    };
    format!("resync {way} {peer} {bar}{pace}")
}

/// A time in the two units that say most.
pub(super) fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A bar, and how much it is of what.
pub(super) fn bar(progress: Progress) -> String {
    let Progress { done_bytes, total_bytes } = progress;
    let done = done_bytes.min(total_bytes);
    let part = |of: u64| match total_bytes {
        0 => of,
        total => u64::try_from(u128::from(done) * u128::from(of) / u128::from(total)).unwrap_or(of),
    };
    let full = usize::try_from(part(BAR_LEN)).unwrap_or(0);
    let empty = usize::try_from(BAR_LEN).unwrap_or(0) - full;
    format!(
        "[{}{}] {}% of {}",
        "=".repeat(full),
        " ".repeat(empty),
        part(100),
        say::size(total_bytes)
    )
}

/// Characters of a full bar.
const BAR_LEN: u64 = 30;

/// Colours the words that say whether all is well; their width stays.
fn paint(text: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, tail) = rest.split_at(rest.find(|c| !is_of_word(c)).unwrap_or(rest.len()));
        let (gap, tail) = tail.split_at(tail.find(is_of_word).unwrap_or(tail.len()));
        let style = match word {
            "up-to-date" | "established" | "connected" => GOOD,
            "primary" => BOLD,
            "outdated" | "connecting" | "alone" | "sync-source" | "sync-target" => CAREFUL,
            "inconsistent" | "failed" | "missing" | "stand-alone" => BAD,
            _ => Style::new(),
        };
        parts.push(format!("{style}{word}{style:#}{gap}"));
        rest = tail;
    }
    parts.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_longer_than_full_and_nothing_is_all_of_nothing() {
        let line = |done_bytes, total_bytes| bar(Progress { done_bytes, total_bytes });
        assert!(line(0, 100).starts_with("[                              ] 0%"));
        assert!(line(50, 100).starts_with("[===============               ] 50%"));
        assert!(line(200, 100).starts_with("[==============================] 100%"));
        assert!(line(0, 0).starts_with("[==============================] 100%"));
        assert!(line(u64::MAX, u64::MAX).contains("] 100%"));
    }

    #[test]
    fn a_directory_has_no_size_and_no_clients() {
        use crate::control::status::{Paths, sample};
        use crate::control::tree_status::sample_tree;

        let (facts, resource, mut snapshot) = sample();
        let text = |snapshot: &crate::control::Snapshot| {
            let status = ResourceStatus::new(&facts, &resource, snapshot);
            let node = NodeStatus::new(&facts, None, &Paths::default(), vec![status.clone()]);
            [of_node(&node), of_resource(&node, &status)]
                .map(|text| anstream::adapter::strip_str(&text).to_string())
        };
        let [row, details] = text(&snapshot);
        assert!(row.contains("established  0 B      1\n"), "{row}");
        assert!(details.contains("vm1, block in mode sync\n"), "{details}");
        assert!(details.contains("size: 20.0 GiB (21474836480 bytes)\n"), "{details}");
        assert!(details.contains("export: unix:/run/hotpair/vm1.nbd, 1 client\n"), "{details}");
        snapshot.tree = Some(sample_tree());
        let [row, details] = text(&snapshot);
        assert!(row.contains("established  -        -\n"), "{row}");
        assert!(row.contains("\nvm1: generation 41 (fuzzy), lag 1200 ms"), "{row}");
        assert!(details.contains("resource: vm1, directory\n"), "{details}");
        assert!(details.contains("        root: 9f3c9f3c"), "{details}");
        for key in [" size:", " differs:", " export:"] {
            assert!(!details.contains(key), "{details}");
        }
    }

    #[test]
    fn colours_do_not_change_the_text() {
        let text = " vm1  primary (alone)  up-to-date  tcp:127.0.0.1:1\n";
        let painted = paint(text);
        assert_ne!(painted, text);
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), text);
    }
}
