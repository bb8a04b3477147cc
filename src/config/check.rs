//! From what the file says to what the program uses.
//!
//! One pass over all sections collects every mistake, so that a file is mended in one go.

use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use super::file::{File, HeartbeatSection, KeyFolders, Later, NodeSection};
use super::mistake::{Caution, ConfigError, Marked, Mistake, Warning};
use super::values::{Name, Text as _, TimeSpan, Written};
use super::{CONTROL, Config, Encryption, Node, Parsed, RESOURCES_MAX, STATE_DIR};

/// Reads a configuration.
///
/// # Errors
/// With every mistake that was found; [`ConfigError::render`] shows them at their lines.
pub fn parse(text: &str) -> Result<Parsed, ConfigError> {
    let file: File = toml::from_str(text).map_err(|err| unreadable(&err))?;
    let mut check = Check::default();
    let config = check.file(&file);
    match config {
        Some(config) if check.mistakes.is_empty() => {
            check.warnings.sort_by_key(Warning::start);
            Ok(Parsed { config, warnings: check.warnings })
        }
        _ => Err(ConfigError::new(check.mistakes)),
    }
}

/// Each node that a file names, with its `state_dir`, though the rest may be unfinished.
///
/// # Errors
/// If the file cannot be read as TOML with known keys.
pub fn state_dirs(text: &str) -> Result<Vec<(String, PathBuf)>, ConfigError> {
    let file: KeyFolders = toml::from_str(text).map_err(|err| unreadable(&err))?;
    let nodes = file.node.iter().map(|(name, section)| {
        let state_dir =
            section.state_dir.as_ref().map_or(STATE_DIR.into(), |dir| of(dir).0.clone());
        (name.get_ref().clone(), state_dir)
    });
    Ok(nodes.collect())
}

/// The parser's words are "WHAT, expected THIS"; the second half is how to mend it.
fn unreadable(err: &toml::de::Error) -> ConfigError {
    let words = err.message().trim_end().replace('\n', ", ");
    let (message, expected) = match words.split_once(", expected ") {
        Some((message, expected)) => (message.to_owned(), Some(expected.to_owned())),
        None => (words, None),
    };
    let what = Mistake::Unreadable { message, expected };
    ConfigError::new(vec![Marked { span: err.span().unwrap_or(0..0), what }])
}

/// What was found so far.
#[derive(Default)]
pub(super) struct Check {
    mistakes: Vec<Marked<Mistake>>,
    pub(super) warnings: Vec<Warning>,
}

impl Check {
    pub(super) fn wrong(&mut self, span: Range<usize>, what: Mistake) {
        self.mistakes.push(Marked { span, what });
    }

    pub(super) fn warn(&mut self, span: Range<usize>, what: Caution) {
        let warning = Warning::new(span, what);
        // What both nodes take from a common section is looked at twice.
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn not_yet(&mut self, keys: &[(&'static str, &Later)]) {
        for (key, value) in keys {
            if let Some(value) = value {
                self.warn(value.span(), Caution::NotYet { key });
            }
        }
    }

    fn file(&mut self, file: &File) -> Option<Config> {
        let cluster = match &file.cluster {
            Some(cluster) => Some(of(cluster).0.clone()),
            None => self.missing(0..0, "the file", "cluster", "cluster = \"office\""),
        };
        let encryption = self.encryption(file);
        let (interval, suspect_after) = self.heartbeat(&file.heartbeat);
        let promotion = self.promotion(file, encryption, suspect_after);
        let nodes = self.nodes(file, encryption);
        if file.resource.is_empty() {
            self.warn(0..0, Caution::NoResource);
        }
        if let Some(name) = file.resource.keys().nth(RESOURCES_MAX) {
            self.wrong(name.span(), Mistake::TooManyResources { max: RESOURCES_MAX });
            return None;
        }
        let (mut nodes, promotion) = (nodes?, promotion?);
        self.both_paths(file, &mut nodes, &promotion);
        self.way_back(file, &promotion);
        let multicast = self.multicast(file, &nodes);
        let resources = file.resource.iter();
        let resources: Vec<_> =
            resources.map(|(name, section)| self.resource(name, section, &nodes)).collect();
        let resources = resources.into_iter().collect::<Option<Vec<_>>>()?;
        self.shared_files(file, &nodes, &resources);
        self.nesting(file, &nodes, &resources);
        Some(Config {
            cluster: cluster?,
            nodes,
            encryption,
            interval,
            suspect_after,
            multicast,
            promotion,
            resources,
        })
    }

    pub(super) fn missing<T>(
        &mut self,
        span: Range<usize>,
        section: &str,
        key: &'static str,
        example: &str,
    ) -> Option<T> {
        let (section, example) = (section.to_owned(), example.to_owned());
        self.wrong(span, Mistake::Missing { section, key, example });
        None
    }

    pub(super) fn name(&mut self, name: &Spanned<String>) {
        if Name::read(name.get_ref()).is_none() {
            self.wrong(name.span(), Mistake::BadName { name: name.get_ref().clone() });
        }
    }

    fn encryption(&mut self, file: &File) -> Encryption {
        let Some(written) = &file.link.encryption else {
            if !cfg!(feature = "_tls") {
                self.wrong(0..0, Mistake::NoTls);
            }
            return Encryption::Tls;
        };
        let encryption = *of(written);
        match encryption {
            Encryption::Tls if !cfg!(feature = "_tls") => {
                self.wrong(written.span(), Mistake::NoTls);
            }
            Encryption::Tls => (),
            Encryption::None => self.warn(written.span(), Caution::InTheClear),
        }
        encryption
    }

    fn heartbeat(&mut self, section: &HeartbeatSection) -> (Duration, Duration) {
        let interval = span_of(section.interval.as_ref()).unwrap_or(INTERVAL);
        let suspect_after = span_of(section.suspect_after.as_ref()).unwrap_or(SUSPECT_AFTER);
        if let Some(written) = &section.interval
            && interval < INTERVAL_MIN
        {
            let why = "beats that are closer wake the nodes without finding anything sooner";
            let least = "10ms";
            self.wrong(written.span(), Mistake::TooSmall { key: "interval", least, why });
        }
        self.timers(
            ("suspect_after", section.suspect_after.as_ref(), suspect_after),
            4,
            ("interval", section.interval.as_ref(), interval),
        );
        (interval, suspect_after)
    }

    /// Says so if `longer` is not `factor` times `shorter`, at the one that is written out.
    pub(super) fn timers(&mut self, longer: Timer<'_>, factor: u32, shorter: Timer<'_>) {
        let Some(written) = longer.1.or(shorter.1) else {
            return;
        };
        if shorter.2.saturating_mul(factor) > longer.2 {
            let what = Mistake::Timers {
                longer: longer.0,
                longer_is: longer.2,
                factor,
                shorter: shorter.0,
                shorter_is: shorter.2,
            };
            self.wrong(written.span(), what);
        }
    }

    fn nodes(&mut self, file: &File, encryption: Encryption) -> Option<[Node; 2]> {
        for (name, section) in &file.node {
            self.name(name);
            self.not_yet(&[("http", &section.http)]);
        }
        let count = file.node.len();
        let mut nodes = file.node.iter();
        let (Some(first), Some(second), None) = (nodes.next(), nodes.next(), nodes.next()) else {
            let last = file.node.keys().max_by_key(|name| name.span().start);
            let span = last.map_or(0..0, Spanned::span);
            self.wrong(span, Mistake::NodeCount { found: count });
            return None;
        };
        let made = (self.node(first, encryption), self.node(second, encryption));
        self.own_values(first.1, second.1);
        Some([made.0?, made.1?])
    }

    fn node(
        &mut self,
        (name, section): (&Spanned<String>, &NodeSection),
        encryption: Encryption,
    ) -> Option<Node> {
        let at = format!("[node.{}]", name.get_ref());
        let replication = if let Some(address) = &section.replication {
            Some(of(address).0)
        } else {
            let example = "replication = \"192.0.2.1:7788\"";
            self.missing(name.span(), &at, "replication", example)
        };
        let heartbeat = self.heartbeat_paths(section);
        let identity = section.identity.as_ref().map(|identity| of(identity).clone());
        if identity.is_none() && encryption == Encryption::Tls {
            let example = "identity = \"sha256//..\", which `hotpair identity` prints on that node";
            self.missing::<()>(name.span(), &at, "identity", example);
        }
        let state_dir = section.state_dir.as_ref().map(|path| of(path).0.clone());
        let control = section.control.as_ref().map(|path| of(path).0.clone());
        Some(Node {
            name: name.get_ref().clone(),
            replication: replication?,
            heartbeat,
            identity,
            state_dir: state_dir.unwrap_or_else(|| PathBuf::from(STATE_DIR)),
            control: control.unwrap_or_else(|| PathBuf::from(CONTROL)),
        })
    }

    /// Two nodes are two: an address and a key name one of them. On one host they need folders and
    /// sockets of their own, too.
    fn own_values(&mut self, first: &NodeSection, second: &NodeSection) {
        let (Some(mine), Some(theirs)) = (&first.replication, &second.replication) else {
            return;
        };
        if of(mine).0 == of(theirs).0 {
            let mend = "give each node its own address, or on one host its own port";
            self.same(theirs.span(), "replication", of(theirs).0.to_string(), mend);
        }
        if let (Some(mine), Some(theirs)) = (&first.identity, &second.identity)
            && of(mine) == of(theirs)
        {
            let mend = "each node has its own key: run `hotpair identity` on both";
            self.same(theirs.span(), "identity", of(theirs).to_string(), mend);
        }
        if !is_one_host(of(mine).0.ip(), of(theirs).0.ip()) {
            return;
        }
        let mend = "both nodes are on one host: give each its own";
        let dir = |section: &NodeSection| {
            let written = section.state_dir.as_ref();
            written.map_or_else(|| PathBuf::from(STATE_DIR), |path| of(path).0.clone())
        };
        if dir(first) == dir(second) {
            let span = span_or(second.state_dir.as_ref(), theirs.span());
            self.same(span, "state_dir", dir(second).display().to_string(), mend);
        }
        let control = |section: &NodeSection| {
            let written = section.control.as_ref();
            written.map_or_else(|| PathBuf::from(CONTROL), |path| of(path).0.clone())
        };
        if control(first) == control(second) {
            let span = span_or(second.control.as_ref(), theirs.span());
            self.same(span, "control", control(second).display().to_string(), mend);
        }
    }

    pub(super) fn same(
        &mut self,
        span: Range<usize>,
        key: &'static str,
        value: String,
        mend: &'static str,
    ) {
        self.wrong(span, Mistake::SameOnBoth { key, value, mend });
    }
}

/// A timer's key, how it is written, and what it is.
pub(super) type Timer<'a> = (&'static str, Option<&'a Spanned<Written<TimeSpan>>>, Duration);

pub(super) fn of<T>(written: &Spanned<Written<T>>) -> &T {
    &written.get_ref().0
}

pub(super) fn span_of(written: Option<&Spanned<Written<TimeSpan>>>) -> Option<Duration> {
    written.map(|written| of(written).0)
}

fn span_or<T>(written: Option<&Spanned<T>>, otherwise: Range<usize>) -> Range<usize> {
    written.map_or(otherwise, Spanned::span)
}

pub(super) fn is_one_host(first: IpAddr, second: IpAddr) -> bool {
    first == second || first.is_loopback() && second.is_loopback()
}

/// Defaults and limits of timers. Source: promotion.md 16.
const INTERVAL: Duration = Duration::from_millis(200);
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
pub(super) const LEASE: Duration = Duration::from_secs(3);
