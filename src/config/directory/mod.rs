//! The keys of `kind = "directory"`: what they may be, and what they say together.
//!
//! A directory is replicated in complete generations, so what bounds a loss is a time, and what holds
//! writers for a moment are hooks. Its core is that of a block resource over one block.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;

use super::check::{Check, of, span_of};
use super::file::{HooksSection, ResourceSection, Words};
use super::hooks::Hook;
use super::mistake::{Caution, Mistake};
use super::values::{Kind, Text, TimeSpan};

/// What only a directory has, the same on both nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Directory {
    /// Patterns of what is never read, and never deleted on the other node.
    pub exclude: BTreeSet<String>,
    /// What of an entry is not kept.
    pub leave_out: BTreeSet<LeaveOut>,
    /// How old a change may be that the secondary lacks, for it to take over all the same.
    pub max_lag: Duration,
    /// A name is read when it was quiet for so long; at most a quarter of `max_lag`.
    pub settle: Duration,
    /// Time between two looks at the whole tree.
    pub full_scan: Duration,
    /// More deletes in one generation, in percent of the entries, are taken for a mistake.
    pub max_delete_percent: u8,
    /// What happens then.
    pub mass_delete: MassDelete,
    /// How changes are seen.
    pub watch: Watch,
    /// What keeps others from writing to a secondary's tree.
    pub guard: Guard,
    /// How many generations before the current one are kept in any case.
    pub keep_generations: u32,
    /// Most bytes that are held for one more, labelled stable or better.
    pub keep_limit_bytes: u64,
    /// What the hooks that hold writers promise.
    pub freeze_label: FreezeLabel,
    /// Time between two generations that are captured while writers are held; `None`: only when an
    /// operator asks for it.
    pub freeze_every: Option<Duration>,
    /// Longest that writers are held.
    pub freeze_limit: Duration,
}

impl Directory {
    /// What both nodes must agree on of this, as text.
    pub(super) fn settings_text(&self) -> String {
        let left_out: Vec<_> = self.leave_out.iter().map(|it| it.name()).collect();
        format!(
            " exclude={:?} leave_out={left_out:?} max_lag={}",
            self.exclude,
            self.max_lag.as_nanos()
        )
    }
}

/// What holds writers while a generation is captured, on one node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FreezeHooks {
    /// Run in this order before; units are started.
    pub freeze: Vec<Hook>,
    /// Run in this order afterwards; units are stopped. Never empty.
    pub thaw: Vec<Hook>,
    /// Longest run of one of them.
    pub timeout: Duration,
}

/// What of an entry can be left out of the manifest, on both nodes alike.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum LeaveOut {
    /// Owner and group.
    Owner,
    /// Extended attributes that have no word of their own here.
    Xattr,
    /// POSIX ACLs.
    Acl,
    /// Block and character devices.
    Devices,
    /// The setuid and setgid bits.
    Setid,
    /// File capabilities.
    Capabilities,
}

impl LeaveOut {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Owner, Self::Xattr, Self::Acl, Self::Devices, Self::Setid, Self::Capabilities];

    /// As it is written in the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Xattr => "xattr",
            Self::Acl => "acl",
            Self::Devices => "devices",
            Self::Setid => "setid",
            Self::Capabilities => "capabilities",
        }
    }
}

impl Text for LeaveOut {
    const EXPECTED: &'static str =
        "\"owner\", \"xattr\", \"acl\", \"devices\", \"setid\" or \"capabilities\"";

    fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == text)
    }
}

/// What becomes of a generation that deletes more than `max_delete`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MassDelete {
    /// It is sent, and the one before is kept until an operator accepts the deletes.
    Pin,
    /// Nothing is sent until an operator accepts them.
    Halt,
}

impl Text for MassDelete {
    const EXPECTED: &'static str = "\"pin\" or \"halt\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "pin" => Some(Self::Pin),
            "halt" => Some(Self::Halt),
            _ => None,
        }
    }
}

/// How changes of a tree are seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Watch {
    /// The best way that there is: inotify, and scans where that does not work.
    Auto,
    /// By inotify, and by scans every `full_scan`.
    Inotify,
    /// By scans alone.
    Scan,
}

/// A [`Watch`], or one that is not there yet.
#[derive(Clone, Copy, Debug)]
pub(super) enum WatchWord {
    Now(Watch),
    Fanotify,
}

impl Text for WatchWord {
    const EXPECTED: &'static str = "\"auto\", \"inotify\" or \"scan\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Now(Watch::Auto)),
            "inotify" => Some(Self::Now(Watch::Inotify)),
            "scan" => Some(Self::Now(Watch::Scan)),
            "fanotify" => Some(Self::Fanotify),
            _ => None,
        }
    }
}

/// What keeps others from writing to a secondary's tree.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Guard {
    /// The mount is read-only where the tree is a mount point and we may; and it is watched.
    Auto,
    /// It is only watched.
    Watch,
}

impl Text for Guard {
    const EXPECTED: &'static str = "\"auto\" or \"watch\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "watch" => Some(Self::Watch),
            _ => None,
        }
    }
}

/// What the hooks that hold writers promise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FreezeLabel {
    /// The application writes nothing until `thaw`.
    Quiesced,
    /// The kernel holds all writers, or a snapshot is read.
    Frozen,
}

impl Text for FreezeLabel {
    const EXPECTED: &'static str = "\"quiesced\" or \"frozen\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "quiesced" => Some(Self::Quiesced),
            "frozen" => Some(Self::Frozen),
            _ => None,
        }
    }
}

/// A time between two, or never.
#[derive(Clone, Copy, Debug)]
pub(super) struct Every(Option<TimeSpan>);

impl Text for Every {
    const EXPECTED: &'static str = "\"off\" or a time span in quotes, such as \"15m\"";

    fn read(text: &str) -> Option<Self> {
        if text == "off" { Some(Self(None)) } else { TimeSpan::read(text).map(|it| Self(Some(it))) }
    }
}

/// A part of a whole, from 0 to 100.
#[derive(Clone, Copy, Debug)]
pub(super) struct Percent(u8);

impl Text for Percent {
    const EXPECTED: &'static str = "a whole number of percent in quotes, from \"0%\" to \"100%\"";

    fn read(text: &str) -> Option<Self> {
        let digits = text.strip_suffix('%')?;
        let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
        digits.parse().ok().filter(|percent| is_number && *percent <= 100).map(Self)
    }
}

/// A pattern of names that are left alone. Whether it can be read is up to who uses it.
#[derive(Clone, Debug)]
pub(super) struct Pattern(String);

impl Text for Pattern {
    const EXPECTED: &'static str = "a pattern without a slash at its end, such as \"*.tmp\" for a name anywhere or \
         \"/cache\" for a path in the tree";

    fn read(text: &str) -> Option<Self> {
        // What ends with a slash matches no name, and would be left out in the belief that it does.
        let is_one = !text.is_empty()
            && text.len() <= PATTERN_LEN_MAX
            && !text.ends_with('/')
            && !text.contains('\0');
        is_one.then(|| Self(text.to_owned()))
    }
}

/// How many generations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Generations(pub(super) u32);

impl<'de> serde::Deserialize<'de> for Generations {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_i64(GenerationsVisitor)
    }
}

struct GenerationsVisitor;

impl serde::de::Visitor<'_> for GenerationsVisitor {
    type Value = Generations;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(GENERATIONS_EXPECTED)
    }

    fn visit_i64<E: serde::de::Error>(self, count: i64) -> Result<Generations, E> {
        u32::try_from(count)
            .ok()
            .filter(|count| *count <= GENERATIONS_MAX)
            .map(Generations)
            .ok_or_else(|| {
                E::custom(format_args!("bad value {count}, expected {GENERATIONS_EXPECTED}"))
            })
    }
}

const GENERATIONS_EXPECTED: &str = "a whole number from 0 to 1000";

impl Check {
    /// What a directory has for itself; `None` of a block resource.
    pub(super) fn directory(&mut self, section: &ResourceSection, kind: Kind) -> Option<Directory> {
        if kind == Kind::Block {
            return None;
        }
        let time = |written, otherwise| span_of(written).unwrap_or(otherwise);
        let max_lag = time(section.max_lag.as_ref(), MAX_LAG);
        let settle = time(section.settle.as_ref(), SETTLE);
        let full_scan = time(section.full_scan.as_ref(), FULL_SCAN);
        let freeze_limit = time(section.freeze_limit.as_ref(), FREEZE_LIMIT);
        let every = section.freeze_every.as_ref().and_then(|it| of(it).0).map(|every| every.0);
        self.directory_times(section, (max_lag, settle), full_scan);
        if let (Some(every), Some(written)) = (every, &section.freeze_every)
            && freeze_limit.saturating_mul(2) > every
        {
            let what = Mistake::Timers {
                longer: "freeze_every",
                longer_is: every,
                factor: 2,
                shorter: "freeze_limit",
                shorter_is: freeze_limit,
            };
            self.wrong(written.span(), what);
        }
        let limit = section.keep_limit.as_ref().map(|limit| of(limit).0);
        let percent = section.max_delete.as_ref().map(|percent| of(percent).0);
        Some(Directory {
            exclude: self.exclude(section.exclude.as_ref()),
            leave_out: set_of(section.leave_out.as_ref()),
            max_lag,
            settle,
            full_scan,
            max_delete_percent: percent.unwrap_or(MAX_DELETE_PERCENT),
            mass_delete: section.mass_delete.as_ref().map_or(MassDelete::Pin, |it| *of(it)),
            watch: self.watch(section),
            guard: section.guard.as_ref().map_or(Guard::Auto, |guard| *of(guard)),
            keep_generations: section
                .keep_generations
                .as_ref()
                .map_or(KEEP_GENERATIONS, |count| count.get_ref().0),
            keep_limit_bytes: limit.unwrap_or(KEEP_LIMIT_BYTES),
            freeze_label: section.freeze_label.as_ref().map_or(FreezeLabel::Quiesced, |it| *of(it)),
            freeze_every: every,
            freeze_limit,
        })
    }

    fn directory_times(
        &mut self,
        section: &ResourceSection,
        (max_lag, settle): (Duration, Duration),
        full_scan: Duration,
    ) {
        if let Some(written) = section.max_lag.as_ref().filter(|_| max_lag < MAX_LAG_MIN) {
            let (key, least) = ("max_lag", "1s");
            let why =
                "a capture, its way to the other node and its durability there take some time";
            self.wrong(written.span(), Mistake::TooSmall { key, least, why });
        }
        if let Some(written) = section.full_scan.as_ref().filter(|_| full_scan < FULL_SCAN_MIN) {
            let (key, least) = ("full_scan", "10s");
            let why = "it looks at every entry of the tree";
            self.wrong(written.span(), Mistake::TooSmall { key, least, why });
        }
        self.timers(
            ("max_lag", section.max_lag.as_ref(), max_lag),
            4,
            ("settle", section.settle.as_ref(), settle),
        );
    }

    fn exclude(&mut self, written: Option<&Words<Pattern>>) -> BTreeSet<String> {
        let Some(list) = written else { return BTreeSet::new() };
        let found = list.get_ref().len();
        if found > PATTERNS_MAX {
            self.wrong(list.span(), Mistake::TooManyPatterns { found, max: PATTERNS_MAX });
        }
        list.get_ref().iter().map(|pattern| of(pattern).0.clone()).collect()
    }

    fn watch(&mut self, section: &ResourceSection) -> Watch {
        let Some(written) = &section.watch else { return Watch::Auto };
        match of(written) {
            WatchWord::Now(watch) => *watch,
            WatchWord::Fanotify => {
                let (key, value) = ("watch", "fanotify".to_owned());
                let instead = "this release sees changes by inotify and by scans: watch = \"auto\"";
                self.wrong(written.span(), Mistake::ComesLater { key, value, instead });
                Watch::Auto
            }
        }
    }

    /// What holds writers on one node: its own section first, key by key, then the common one.
    /// `None` if nothing does.
    pub(super) fn freeze_hooks(
        &mut self,
        common: Option<&Spanned<HooksSection>>,
        own: Option<&Spanned<HooksSection>>,
        timeout: Duration,
    ) -> Option<FreezeHooks> {
        let sections = [own, common];
        let sections = || sections.into_iter().flatten().map(Spanned::get_ref);
        let freeze = sections().find_map(|it| it.freeze.as_ref());
        let thaw = sections().find_map(|it| it.thaw.as_ref());
        let hooks = FreezeHooks { freeze: self.list(freeze), thaw: self.list(thaw), timeout };
        match (freeze, thaw) {
            (Some(freeze), _) if !hooks.freeze.is_empty() && hooks.thaw.is_empty() => {
                let example = "thaw = [\"/etc/hotpair/thaw\"], or the writers that `freeze` holds \
                               are held for ever";
                self.missing(freeze.span(), "the section of hooks with `freeze`", "thaw", example)
            }
            (_, Some(thaw)) if hooks.freeze.is_empty() && !hooks.thaw.is_empty() => {
                self.warn(thaw.span(), Caution::FreezeOnly { key: "thaw" });
                None
            }
            _ => (!hooks.freeze.is_empty()).then_some(hooks),
        }
    }

    /// Keys of what holds writers, where nothing does.
    pub(super) fn freeze_keys(&mut self, section: &ResourceSection, holds_writers: bool) {
        let spans = [
            ("freeze_label", section.freeze_label.as_ref().map(Spanned::span)),
            ("freeze_every", section.freeze_every.as_ref().map(Spanned::span)),
            ("freeze_limit", section.freeze_limit.as_ref().map(Spanned::span)),
        ];
        for (key, span) in spans {
            if let Some(span) = span.filter(|_| !holds_writers) {
                self.warn(span, Caution::FreezeOnly { key });
            }
        }
    }
}

fn set_of<T: Copy + Ord + Text>(written: Option<&Words<T>>) -> BTreeSet<T> {
    written.into_iter().flat_map(Spanned::get_ref).map(|word| *of(word)).collect()
}

/// Defaults. Source: directory.md 4, 5, 10 and 14.
const MAX_LAG: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(200);
const FULL_SCAN: Duration = Duration::from_mins(10);
const MAX_DELETE_PERCENT: u8 = 50;
const KEEP_GENERATIONS: u32 = 3;
const KEEP_LIMIT_BYTES: u64 = 10 << 30;
const FREEZE_LIMIT: Duration = Duration::from_secs(10);
/// Least values of two times.
const MAX_LAG_MIN: Duration = Duration::from_secs(1);
const FULL_SCAN_MIN: Duration = Duration::from_secs(10);
/// Each generation that is kept has a folder, and all of them are listed in one answer.
const GENERATIONS_MAX: u32 = 1000;
/// Most patterns, and the longest in bytes: all of them are tried on each name.
const PATTERNS_MAX: usize = 256;
const PATTERN_LEN_MAX: usize = 1024;

#[cfg(test)]
#[cfg(feature = "directory")]
mod tests;
