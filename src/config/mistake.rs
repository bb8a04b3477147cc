//! What can be wrong with a file, in words: the line, the reason and how to mend it.

use super::multicast;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::fence::AutoMistake;

/// Why a file is no configuration. Holds every mistake that was found, in the order of the file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{} in the configuration", count_of(self.mistakes.len()))]
pub struct ConfigError {
    mistakes: Vec<Marked<Mistake>>,
}

fn count_of(mistakes: usize) -> String {
    if mistakes == 1 { "1 mistake".to_owned() } else { format!("{mistakes} mistakes") }
}

impl ConfigError {
    /// Made from at least one mistake.
    pub(super) fn new(mut mistakes: Vec<Marked<Mistake>>) -> Self {
        mistakes.sort_by_key(|marked| (marked.span.start, marked.span.end));
        // What both nodes take from a common section is looked at twice.
        mistakes.dedup();
        Self { mistakes }
    }

    /// What is wrong, in the order of the file.
    pub fn mistakes(&self) -> impl Iterator<Item = &Mistake> {
        self.mistakes.iter().map(|marked| &marked.what)
    }

    /// Each mistake with the byte of the file it starts at.
    #[cfg(test)]
    pub(super) fn marked(&self) -> impl Iterator<Item = (usize, &Mistake)> {
        self.mistakes.iter().map(|marked| (marked.span.start, &marked.what))
    }

    /// Shows each mistake at its line of `text`, which was read from `path`. At most
    /// `SHOWN_MAX` of them, so that a broken file does not flood a terminal.
    pub fn render(&self, path: &str, text: &str, renderer: &Renderer) -> String {
        let shown = self.mistakes.iter().take(SHOWN_MAX).map(|marked| {
            let words = Words { title: marked.what.to_string(), help: marked.what.mend() };
            render(Level::ERROR, &words, Place { path, text, span: &marked.span }, renderer)
        });
        let mut out = shown.collect::<Vec<_>>().join("\n\n");
        if let Some(more) = self.mistakes.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
            // Writing to a string does not fail.
            let _ = write!(out, "\n\n... and {more} more");
        }
        out
    }
}

/// Most mistakes that are shown at once.
const SHOWN_MAX: usize = 10;

/// A key or value that has no effect, or a risk that was accepted by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Warning {
    marked: Marked<Caution>,
}

impl Warning {
    pub(super) fn new(span: Range<usize>, what: Caution) -> Self {
        Self { marked: Marked { span, what } }
    }

    /// Where it stands in the file, to put several in order.
    pub(super) fn start(&self) -> usize {
        self.marked.span.start
    }

    /// What it is.
    pub fn what(&self) -> &Caution {
        &self.marked.what
    }

    /// Shows it at its line of `text`, which was read from `path`.
    pub fn render(&self, path: &str, text: &str, renderer: &Renderer) -> String {
        let words = Words { title: self.marked.what.to_string(), help: self.marked.what.mend() };
        render(Level::WARNING, &words, Place { path, text, span: &self.marked.span }, renderer)
    }
}

struct Words {
    title: String,
    help: String,
}

#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a str,
    text: &'a str,
    span: &'a Range<usize>,
}

fn render(level: Level<'_>, words: &Words, place: Place<'_>, renderer: &Renderer) -> String {
    // One mark on one line: the span of a whole table would show all of it.
    let start = place.span.start.min(place.text.len());
    let line_len = place.text.get(start..).and_then(|rest| rest.find('\n'));
    let line_end = line_len.map_or(place.text.len(), |len| start + len);
    let end = place.span.end.clamp(start, line_end.max(start));
    let snippet = Snippet::source(place.text)
        .path(place.path)
        .annotation(AnnotationKind::Primary.span(start..end));
    let group = level
        .primary_title(words.title.as_str())
        .element(snippet)
        .element(Level::HELP.message(words.help.as_str()));
    renderer.render(&[group])
}

/// Something, and the bytes of the file it is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Marked<T> {
    pub(super) span: Range<usize>,
    pub(super) what: T,
}

/// One thing that is wrong.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Mistake {
    /// Not TOML, an unknown or doubled key, or a value that is none.
    #[error("{message}")]
    Unreadable {
        /// What the parser says.
        message: String,
        /// What it expected.
        expected: Option<String>,
    },
    /// A key without which nothing works.
    #[error("{section} has no `{key}`")]
    Missing {
        /// Section it belongs to, with its brackets.
        section: String,
        /// The key.
        key: &'static str,
        /// A line that would be right.
        example: String,
    },
    /// The name in a section's header is none.
    #[error("bad name {name:?}")]
    BadName {
        /// As it is written.
        name: String,
    },
    /// A pair has two nodes.
    #[error("there must be exactly two [node.NAME] sections, found {found}")]
    NodeCount {
        /// How many there are.
        found: usize,
    },
    /// More resources than one daemon takes.
    #[error("more than {max} resources")]
    TooManyResources {
        /// The limit.
        max: usize,
    },
    /// More hooks than a role should need.
    #[error("at most {max} hooks run at a change of role, found {found}")]
    TooManyHooks {
        /// How many there are.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// More patterns than can be tried on each name.
    #[error("`exclude` has {found} patterns, the most is {max}")]
    TooManyPatterns {
        /// How many there are.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// A section or key names a node that is not there.
    #[error("there is no node {name:?}")]
    UnknownNode {
        /// As it is written.
        name: String,
        /// The nodes that are there.
        nodes: [String; 2],
    },
    /// The two nodes have one value where each needs its own.
    #[error("both nodes have `{key}` {value}")]
    SameOnBoth {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// How to mend it.
        mend: &'static str,
    },
    /// Two resources of one node use one file.
    #[error("resources {first:?} and {second:?} use the same file {path} on node {node}")]
    SharedFile {
        /// One of them.
        first: String,
        /// The other one.
        second: String,
        /// The file.
        path: String,
        /// Where.
        node: String,
    },
    /// An export listens where the peers talk.
    #[error("the export {export} is the replication address of node {node}")]
    ExportIsReplication {
        /// The export.
        export: String,
        /// Whose address it is.
        node: String,
    },
    /// A value that a later release brings.
    #[error("{key} = \"{value}\" comes with a later release")]
    ComesLater {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What works now.
        instead: &'static str,
    },
    /// `auto` does not fit what else there is.
    #[error("{0}")]
    Auto(AutoMistake),
    /// A resource cannot move back by itself.
    #[error("failback = \"{value}\" {why}")]
    Failback {
        /// Its value.
        value: String,
        /// What it lacks.
        why: &'static str,
        /// How to mend it.
        mend: String,
    },
    /// The build cannot ask etcd.
    #[error("arbiter = \"etcd\", and this build of hotpair has no etcd")]
    NoEtcd,
    /// The build has no TLS for etcd.
    #[error("a member of etcd is `https://`, and this build of hotpair has no TLS")]
    NoTlsForEtcd,
    /// No members, or too many.
    #[error("`etcd` names 1 to {max} members, found {found}")]
    EndpointCount {
        /// How many there are.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// One member twice.
    #[error("the member {endpoint} of etcd stands twice")]
    SameEndpoint {
        /// Which.
        endpoint: String,
    },
    /// A lease that etcd does not keep so.
    #[error("`lease` ({}) must be 2s to 10m in whole seconds with etcd", time(*.lease))]
    EtcdLease {
        /// As it is written.
        lease: Duration,
        /// The nearest one that works.
        instead: Duration,
    },
    /// No paths, or too many.
    #[error("a node has 1 to {max} paths of heartbeats, found {found}")]
    PathCount {
        /// How many there are.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// One path twice.
    #[error("the path {address} stands twice")]
    SamePath {
        /// The address.
        address: SocketAddr,
    },
    /// Paths are pairs of addresses.
    #[error("the nodes have {} and {} paths of heartbeats", .found[0], .found[1])]
    UnevenPaths {
        /// Of each node, in order of name.
        found: [usize; 2],
    },
    /// Multicast alone is no path to rely on.
    #[error("`multicast` would be the only path of heartbeats")]
    OnlyMulticast,
    /// No address that belongs to the group.
    #[error("a node has no path of heartbeats of the family of {group}")]
    MulticastFamily {
        /// The group.
        group: SocketAddr,
    },
    /// Both nodes must agree on this key.
    #[error("`{key}` must be the same on both nodes")]
    NotPerNode {
        /// The key.
        key: &'static str,
        /// Where it belongs.
        section: String,
    },
    /// A key of mode `async`.
    #[error("`{key}` has a meaning in mode \"async\" only, this resource is \"{mode}\"")]
    AsyncOnly {
        /// The key.
        key: &'static str,
        /// The resource's mode.
        mode: String,
    },
    /// A key of block resources.
    #[error("`{key}` has a meaning on a block resource only, this one is a directory")]
    BlockOnly {
        /// The key.
        key: &'static str,
    },
    /// A key of directories.
    #[error("`{key}` has a meaning on a directory only, this resource is a block file")]
    DirectoryOnly {
        /// The key.
        key: &'static str,
    },
    /// Something is in a tree that must not be, or the other way round.
    #[error("on node {node} {inner} {how} {outer}")]
    Nested {
        /// The node.
        node: String,
        /// What is inside, with its path.
        inner: String,
        /// Inside, or the same.
        how: &'static str,
        /// What holds it, with its path.
        outer: String,
        /// How to mend it.
        mend: &'static str,
    },
    /// The build has no directories.
    #[error("kind = \"directory\", and this build of hotpair keeps block files only")]
    NoDirectories,
    /// A size that no resource can have.
    #[error("a resource of {size} is too large, the most is 16TiB")]
    SizeTooLarge {
        /// As it is written.
        size: String,
    },
    /// A number below what works.
    #[error("`{key}` is below {least}")]
    TooSmall {
        /// The key.
        key: &'static str,
        /// The limit.
        least: &'static str,
        /// Why there is one.
        why: &'static str,
    },
    /// Two timers that do not fit.
    #[error(
        "`{longer}` ({}) must be at least {factor} x `{shorter}` ({})",
        time(*.longer_is), time(*.shorter_is)
    )]
    Timers {
        /// The key with the longer time.
        longer: &'static str,
        /// Its value.
        longer_is: Duration,
        /// How many times the other one it must be.
        factor: u32,
        /// The key with the shorter time.
        shorter: &'static str,
        /// Its value.
        shorter_is: Duration,
    },
    /// The build has no TLS.
    #[error("encryption = \"tls\", and this build of hotpair has no TLS")]
    NoTls,
    /// Others can write the file.
    #[error("others can write this file (mode {mode:04o})")]
    Writable {
        /// Its permissions.
        mode: u32,
    },
    /// Somebody else owns the file.
    #[error("this file belongs to user {owner}, who can change it at any time")]
    Owner {
        /// Who.
        owner: u32,
    },
    /// Too long for a configuration.
    #[error("this file has {len} bytes, the most is {max}")]
    TooLong {
        /// Its length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// Not text.
    #[error("this file is not UTF-8 text")]
    NotText,
}

/// How to mend paths that do not pair up.
const UNEVEN_PATHS: &str = "the first address of one node belongs to the first of the other, and so on: name as many on both";

/// What to write on a directory instead of a key of block resources.
fn block_only(key: &str) -> &'static str {
    match key {
        "size" => "remove the line: a directory is as large as what is in it",
        "mode" => {
            "remove the line: a directory goes to the other node in complete generations, and \
             `max_lag` bounds how far it may be behind"
        }
        "flush" => {
            "remove the line: `hotpair sync RESOURCE --wait` returns when all that was written \
             before is on both nodes"
        }
        "export" => "remove the line: programs use the files below `path` on the primary",
        "at_risk_budget" => {
            "write how old a change may be that the other node lacks instead, such as max_lag = \"5s\""
        }
        _ => "remove the line",
    }
}

impl Mistake {
    /// How to mend it, as a sentence.
    pub fn mend(&self) -> String {
        match self {
            Self::Unreadable { expected: Some(expected), .. } => format!("expected {expected}"),
            Self::Unreadable { message, .. } if message.starts_with("duplicate key") => {
                "each key and section may stand once: remove one of the two".to_owned()
            }
            Self::Unreadable { .. } => "correct the syntax (TOML) at the mark".to_owned(),
            Self::Missing { example, .. } => format!("add a line such as: {example}"),
            Self::BadName { .. } => {
                "use 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit; \
                 quote a name with a dot: [node.\"a.example\"]"
                    .to_owned()
            }
            Self::NodeCount { .. } => {
                "a pair has two nodes: write one section for each, the same on both".to_owned()
            }
            Self::TooManyResources { max } => {
                format!("run a second pair of daemons for what is beyond {max}")
            }
            Self::UnknownNode { nodes: [first, second], .. } => {
                format!("the nodes of this file are {first} and {second}")
            }
            Self::SameOnBoth { mend, .. } => (*mend).to_owned(),
            Self::SharedFile { .. } => "give each resource a file of its own".to_owned(),
            Self::ExportIsReplication { .. } => "choose another port for one of them".to_owned(),
            Self::ComesLater { instead, .. } => (*instead).to_owned(),
            Self::Auto(what) => what.mend().to_owned(),
            Self::Failback { mend, .. } => mend.clone(),
            Self::TooManyHooks { .. } => {
                "let one command, or one target of systemd, start the others".to_owned()
            }
            Self::NoEtcd => "build it with the feature \"etcd\", or use a witness".to_owned(),
            Self::NoTlsForEtcd => "build it with the feature \"tls\"".to_owned(),
            Self::EndpointCount { .. } => {
                "name the address for clients of each member: etcd = [\"http://192.0.2.3:2379\"]"
                    .to_owned()
            }
            Self::SameEndpoint { .. } => "name each member once".to_owned(),
            Self::EtcdLease { instead, .. } => format!(
                "etcd counts whole seconds, and makes shorter leases longer: set `lease` to {}",
                time(*instead)
            ),
            Self::PathCount { .. } => {
                "name one address of each network that both nodes are on".to_owned()
            }
            Self::SamePath { .. } => "a second path needs a network of its own".to_owned(),
            Self::UnevenPaths { .. } => UNEVEN_PATHS.to_owned(),
            Self::OnlyMulticast => multicast::mend(None),
            Self::MulticastFamily { group } => multicast::mend(Some(*group)),
            Self::NotPerNode { section, .. } => format!("write it under [{section}]"),
            Self::AsyncOnly { .. } => "remove the line, or set mode = \"async\"".to_owned(),
            Self::TooManyPatterns { .. } => {
                "move what is to be left alone into one directory, and exclude that".to_owned()
            }
            Self::BlockOnly { key } => block_only(key).to_owned(),
            Self::DirectoryOnly { .. } => "remove the line, or set kind = \"directory\"".to_owned(),
            Self::Nested { mend, .. } => (*mend).to_owned(),
            Self::NoDirectories => "build it with the feature \"directory\"".to_owned(),
            Self::SizeTooLarge { .. } => "split the data over several resources".to_owned(),
            Self::TooSmall { least, why, .. } => format!("{why}: write {least} or more"),
            Self::Timers { longer, factor, shorter, shorter_is, .. } => {
                let least = time(shorter_is.saturating_mul(*factor));
                format!("set `{longer}` to {least} or more, or make `{shorter}` shorter")
            }
            Self::NoTls => "build it with the feature \"tls\"".to_owned(),
            Self::Writable { .. } => "take that right away: chmod go-w FILE".to_owned(),
            Self::Owner { .. } => CHOWN.to_owned(),
            Self::TooLong { .. } => "is it the right file?".to_owned(),
            Self::NotText => "save it as UTF-8".to_owned(),
        }
    }
}

const CHOWN: &str = "make it a file of root or of the user that runs hotpair: chown root FILE";

/// One thing that is allowed and worth saying.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Caution {
    /// A key of a release to come.
    #[error("`{key}` has no effect yet")]
    NotYet {
        /// The key.
        key: &'static str,
    },
    /// A key that an arbiter needs, and there is none.
    #[error("`{key}` has no effect without an arbiter")]
    ArbiterOnly {
        /// The key.
        key: &'static str,
    },
    /// A key that is of use only where nodes are promoted without an operator.
    #[error("`{key}` has no effect with auto = \"off\"")]
    AutomaticOnly {
        /// The key.
        key: &'static str,
    },
    /// A key of another kind of arbiter.
    #[error("`{key}` has no effect without arbiter = \"{arbiter}\"")]
    OtherArbiter {
        /// The key.
        key: &'static str,
        /// The kind that it belongs to.
        arbiter: &'static str,
    },
    /// A key of TLS, and no member has TLS.
    #[error("`{key}` has no effect: no member of etcd is `https://`")]
    HttpsOnly {
        /// The key.
        key: &'static str,
    },
    /// Whoever is on the way to etcd decides who serves.
    #[error("what is said to {endpoint} is neither encrypted nor authenticated")]
    EtcdInTheClear {
        /// Which member.
        endpoint: String,
    },
    /// A key of the fence command.
    #[error("`{key}` has no effect: {why}")]
    NoFence {
        /// The key.
        key: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// A key that is of use only under Pacemaker.
    #[error("`{key}` has no effect without arbiter = \"pacemaker\"")]
    PacemakerOnly {
        /// The key.
        key: &'static str,
    },
    /// A key of what Pacemaker decides.
    #[error("`{key}` has no effect: Pacemaker decides that")]
    PacemakersOwn {
        /// The key.
        key: &'static str,
    },
    /// Split brain, accepted by name.
    #[error("auto = \"heartbeat-only\" makes two primaries whenever the nodes miss each other")]
    TwoPrimaries,
    /// One cable decides.
    #[error("there is a single path of heartbeats")]
    SinglePath,
    /// A key of what holds writers, and nothing does.
    #[error("`{key}` has no effect without a `freeze` hook")]
    FreezeOnly {
        /// The key.
        key: &'static str,
    },
    /// No TLS.
    #[error("replication is neither encrypted nor authenticated")]
    InTheClear,
    /// A TCP export that everybody reaches.
    #[error("the export tcp:{address} takes clients from any host, without asking who they are")]
    OpenExport {
        /// Where.
        address: SocketAddr,
    },
    /// Nothing to do.
    #[error("there is no [resource.NAME] section")]
    NoResource,
}

impl Caution {
    /// What to do about it, as a sentence.
    pub fn mend(&self) -> String {
        match self {
            Self::NotYet { .. } => {
                "it belongs to a later release: keep it for then, or remove it".to_owned()
            }
            Self::ArbiterOnly { .. } => {
                "add arbiter = \"witness\" and witness = \"ADDRESS:PORT\", or remove it".to_owned()
            }
            Self::AutomaticOnly { .. } => {
                "set auto = \"arbiter\" with an arbiter, or remove it".to_owned()
            }
            Self::OtherArbiter { arbiter, .. } => {
                format!("set arbiter = \"{arbiter}\", or remove it")
            }
            Self::HttpsOnly { .. } => "write https://, or remove it".to_owned(),
            Self::EtcdInTheClear { .. } => {
                "whoever reaches that network can decide who serves: write https:// and `etcd_ca`"
                    .to_owned()
            }
            Self::NoFence { .. } => "set auto = \"fenced\", or remove it".to_owned(),
            Self::PacemakerOnly { .. } => "remove it".to_owned(),
            Self::PacemakersOwn { .. } => {
                "give Pacemaker a migration-threshold or a location constraint, and remove it".to_owned()
            }
            Self::TwoPrimaries => {
                "each then acknowledges writes that the other lacks, and one side's are given up by \
                 hand; with a witness, or with auto = \"fenced\", that cannot happen"
                    .to_owned()
            }
            Self::SinglePath => {
                "add a second network: heartbeat = [\"192.0.2.1:7789\", \"198.51.100.1:7789\"]"
                    .to_owned()
            }
            Self::FreezeOnly { .. } => {
                "write under the hooks of the resource what holds its writers, and what lets them go: \
                 freeze = [\"/etc/hotpair/freeze\"], thaw = [\"/etc/hotpair/thaw\"]; or remove it"
                    .to_owned()
            }
            Self::InTheClear => {
                "whoever reaches the replication port can read and alter the data; for TLS, remove \
                 the line and give both nodes an `identity`"
                    .to_owned()
            }
            Self::OpenExport { .. } => {
                "name one address of this host, or use \"unix:PATH\"; else let a firewall decide"
                    .to_owned()
            }
            Self::NoResource => "add one for each file or directory to keep identical".to_owned(),
        }
    }
}

/// A time as it would be written in the file.
pub(super) fn time(span: Duration) -> String {
    jiff::SignedDuration::try_from(span)
        .map_or_else(|_| format!("{}s", span.as_secs()), |span| format!("{span:#}"))
}
