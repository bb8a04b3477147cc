//! What single values of the file may look like.
//!
//! Each type here is made from the text between two quotes and from nothing else, so a value that
//! has one of these types was checked. What values mean together is up to `check`.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::hooks::Hook;
use super::promotion::Auto;
use crate::units::ReplicationMode;

/// A value that a user writes as text.
pub(super) trait Text: Sized {
    /// What to write instead, as in "expected ..".
    const EXPECTED: &'static str;

    /// Takes `text`, or says what it is not.
    fn read(text: &str) -> Option<Self>;
}

/// A [`Text`] as serde sees it.
#[derive(Clone, Debug)]
pub(super) struct Written<T>(pub(super) T);

impl<'de, T: Text> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

struct TextVisitor<T>(PhantomData<T>);

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = Written<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Written<T>, E> {
        T::read(text)
            .map(Written)
            .ok_or_else(|| E::custom(format_args!("bad value {text:?}, expected {}", T::EXPECTED)))
    }
}

/// A span of time above zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeSpan(pub(super) Duration);

impl Text for TimeSpan {
    const EXPECTED: &'static str = "a time span in quotes, such as \"200ms\", \"5s\" or \"10m\"";

    fn read(text: &str) -> Option<Self> {
        let signed = jiff::SignedDuration::from_str(text).ok()?;
        let span = Duration::try_from(signed).ok()?;
        (Duration::ZERO < span && span <= TIME_SPAN_MAX).then_some(Self(span))
    }
}

/// Reads a time as the file and `sync --timeout` have it.
pub fn parse_time(text: &str) -> Option<Duration> {
    TimeSpan::read(text).map(|span| span.0)
}

/// Longest time span that a key may have: far above anything useful, and far below where sums of
/// a few of them overflow nanoseconds in 64 bits.
const TIME_SPAN_MAX: Duration = Duration::from_hours(30 * 24);

/// A number of bytes above zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByteCount(pub(super) u64);

impl Text for ByteCount {
    const EXPECTED: &'static str =
        "a size in quotes with a binary unit, such as \"64MiB\" or \"20GiB\"";

    fn read(text: &str) -> Option<Self> {
        parse_size(text).map(Self)
    }
}

/// Reads a size as the file and `resize --size` have it: a number and one of B, KiB, MiB, GiB and
/// TiB. A decimal unit would be a size that people do not mean, so it is none.
pub fn parse_size(text: &str) -> Option<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim_start();
    if !["B", "KiB", "MiB", "GiB", "TiB"].contains(&unit) {
        return None;
    }
    // A factor beyond the range would be clamped below; `MAX` is no size of anything.
    let bytes = bytesize::ByteSize::from_str(text).ok()?.as_u64();
    (0 < bytes && bytes < u64::MAX).then_some(bytes)
}

/// Whether `text` can be the name of a cluster, a node or a resource.
pub fn is_name(text: &str) -> bool {
    Name::read(text).is_some()
}

/// Name of a cluster, a node or a resource. It becomes part of paths and of what is printed, so
/// it holds nothing that means something to a shell, a path or a terminal.
#[derive(Clone, Debug)]
pub(super) struct Name(pub(super) String);

impl Text for Name {
    const EXPECTED: &'static str =
        "a name of 1 to 64 letters, digits, '.', '_' and '-' that starts with a letter or digit";

    fn read(text: &str) -> Option<Self> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        let is_clean = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        (starts_well && is_clean && text.len() <= 64).then(|| Self(text.to_owned()))
    }
}

/// Where the other node finds this one.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

impl Text for PeerAddress {
    const EXPECTED: &'static str = "the node's own IP address and a port, such as \"192.0.2.1:7788\" or \"[2001:db8::1]:7788\"";

    fn read(text: &str) -> Option<Self> {
        let address: SocketAddr = text.parse().ok()?;
        let can_be_dialled = !address.ip().is_unspecified() && !address.ip().is_multicast();
        (can_be_dialled && address.port() != 0).then_some(Self(address))
    }
}

/// An absolute path without `..`.
#[derive(Clone, Debug)]
pub(super) struct AbsolutePath(pub(super) PathBuf);

impl Text for AbsolutePath {
    const EXPECTED: &'static str = "an absolute path without \"..\", such as \"/srv/vm1.img\"";

    fn read(text: &str) -> Option<Self> {
        let path = Path::new(text);
        let climbs = path.components().any(|part| part == Component::ParentDir);
        let is_text = !text.chars().any(char::is_control);
        (path.is_absolute() && path.file_name().is_some() && !climbs && is_text)
            .then(|| Self(path.to_owned()))
    }
}

/// One hook: a file, or a unit of systemd.
#[derive(Clone, Debug)]
pub(super) struct HookWord(pub(super) Hook);

impl Text for HookWord {
    const EXPECTED: &'static str = "an absolute path without \"..\" and arguments, such as \"/etc/hotpair/start-site\", or a \
         unit, such as \"systemd:postgresql.service\"";

    fn read(text: &str) -> Option<Self> {
        if let Some(unit) = text.strip_prefix("systemd:") {
            let is_known = |c: char| c.is_ascii_alphanumeric() || "-_.@:\\".contains(c);
            let is_unit = unit.chars().all(is_known)
                && unit.contains('.')
                && unit.len() <= UNIT_LEN_MAX
                && !unit.starts_with('-');
            return is_unit.then(|| Self(Hook::Unit(unit.to_owned())));
        }
        (text.len() <= HOOK_LEN_MAX)
            .then(|| AbsolutePath::read(text))?
            .map(|AbsolutePath(path)| Self(Hook::Command(path)))
    }
}

/// Longest name of a unit in bytes. Source: systemd.unit(5).
const UNIT_LEN_MAX: usize = 255;
/// Longest path of a hook in bytes, so that all of them fit what a daemon leaves to its supervisor.
const HOOK_LEN_MAX: usize = 1024;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressWord {
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
}

impl Text for AddressWord {
    const EXPECTED: &'static str =
        "an address of one host and a prefix length, such as \"192.0.2.10/24\"";

    fn read(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let is_of_a_host =
            !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
        (is_of_a_host && (1..=longest).contains(&prefix)).then_some(Self { address, prefix })
    }
}

/// A network interface.
#[derive(Clone, Debug)]
pub(super) struct DeviceWord(pub(super) String);

impl Text for DeviceWord {
    const EXPECTED: &'static str = "the name of a network interface, such as \"eth0\"";

    fn read(text: &str) -> Option<Self> {
        let is_known = |c: char| c.is_ascii_graphic() && !"/:%\"'\\".contains(c);
        let is_name = !text.is_empty()
            && text.len() <= DEVICE_LEN_MAX
            && !text.starts_with(['-', '.'])
            && text.chars().all(is_known);
        is_name.then(|| Self(text.to_owned()))
    }
}

/// Longest name of an interface in bytes. Source: IFNAMSIZ of linux/if.h, with its NUL.
const DEVICE_LEN_MAX: usize = 15;

/// Path of a unix socket.
#[derive(Clone, Debug)]
pub(super) struct SocketPath(pub(super) PathBuf);

impl Text for SocketPath {
    const EXPECTED: &'static str =
        "an absolute path of at most 107 bytes, such as \"/run/hotpair/control.sock\"";

    fn read(text: &str) -> Option<Self> {
        let AbsolutePath(path) = AbsolutePath::read(text)?;
        (text.len() <= SOCKET_PATH_LEN_MAX).then_some(Self(path))
    }
}

/// Longest path of a unix socket in bytes. Source: unix(7), `sun_path` is 108 bytes with its NUL.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// Where clients of a resource connect.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Export {
    /// A unix socket at this path.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

impl Text for Export {
    const EXPECTED: &'static str =
        "\"unix:/run/hotpair/NAME.nbd\" (at most 107 bytes of path) or \"tcp:ADDRESS:PORT\"";

    fn read(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return SocketPath::read(path).map(|path| Self::Unix(path.0));
        }
        let address: SocketAddr = text.strip_prefix("tcp:")?.parse().ok()?;
        (address.port() != 0).then_some(Self::Tcp(address))
    }
}

/// SHA-256 of a node's public key, in the one way curl writes it: `sha256//` and base64. Two equal
/// texts are equal keys, because no other text is accepted for the same bytes.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Identity(String);

impl Identity {
    /// As it is written in the file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads what `hotpair identity` printed.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256//")?.strip_suffix('=')?;
        let is_base64 = digits.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b));
        // 32 bytes are 43 digits, the last of which carries four bits and two zeroes.
        let ends_well = digits.ends_with(|c: char| "AEIMQUYcgkosw048".contains(c));
        (digits.len() == 43 && is_base64 && ends_well).then(|| Self(text.to_owned()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Text for Identity {
    const EXPECTED: &'static str =
        "what `hotpair identity` prints on that node: \"sha256//\" and 44 characters";

    fn read(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// How the two nodes talk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Encryption {
    /// TLS 1.3, both keys pinned.
    Tls,
    /// In the clear: whoever reaches the port can read and alter what is replicated.
    None,
}

impl fmt::Display for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "tls",
            Self::None => "none",
        })
    }
}

impl Text for Encryption {
    const EXPECTED: &'static str = "\"tls\" or \"none\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "tls" => Some(Self::Tls),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

impl Text for ReplicationMode {
    const EXPECTED: &'static str = "\"sync\", \"memsync\" or \"async\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "sync" => Some(Self::Sync),
            "memsync" => Some(Self::MemSync),
            "async" => Some(Self::Async),
            _ => None,
        }
    }
}

/// One of a few words.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Block,
    Directory,
}

impl Text for Kind {
    const EXPECTED: &'static str = "\"block\" or \"directory\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "block" => Some(Self::Block),
            "directory" => Some(Self::Directory),
            _ => None,
        }
    }
}

/// Who must have flushed data before a FLUSH of mode `async` returns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum FlushOn {
    Local,
    Both,
}

impl Text for FlushOn {
    const EXPECTED: &'static str = "\"local\" or \"both\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "local" => Some(Self::Local),
            "both" => Some(Self::Both),
            _ => None,
        }
    }
}

/// Who promotes by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct AutoWord(pub(super) Auto);

impl Text for AutoWord {
    const EXPECTED: &'static str = "\"off\", \"arbiter\", \"fenced\" or \"heartbeat-only\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self(Auto::Off)),
            "arbiter" => Some(Self(Auto::Arbiter)),
            "fenced" => Some(Self(Auto::Fenced)),
            "heartbeat-only" => Some(Self(Auto::HeartbeatOnly)),
            _ => None,
        }
    }
}

/// Who remembers who may serve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ArbiterWord {
    None,
    Witness,
    Etcd,
    Pacemaker,
}

impl Text for ArbiterWord {
    const EXPECTED: &'static str = "\"none\", \"witness\", \"etcd\" or \"pacemaker\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "none" => Some(Self::None),
            "witness" => Some(Self::Witness),
            "etcd" => Some(Self::Etcd),
            "pacemaker" => Some(Self::Pacemaker),
            _ => None,
        }
    }
}

/// What becomes of a pair that misses its arbiter for long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ArbiterLoss {
    PrimaryStays,
    Symmetric,
}

impl Text for ArbiterLoss {
    const EXPECTED: &'static str = "\"primary-stays\" or \"symmetric\"";

    fn read(text: &str) -> Option<Self> {
        match text {
            "primary-stays" => Some(Self::PrimaryStays),
            "symmetric" => Some(Self::Symmetric),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units_and_are_exact() {
        assert_eq!(parse_size("20GiB"), Some(20 << 30));
        assert_eq!(parse_size("1.5 MiB"), Some(3 << 19));
        assert_eq!(parse_size("9007199254740993B"), Some(9_007_199_254_740_993));
        for bad in ["20GB", "20G", "20", "0B", "-1GiB", "GiB", "", "99999999999999TiB", "1e3KiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn time_spans_are_positive_and_have_a_unit() {
        assert_eq!(TimeSpan::read("200ms").unwrap().0, Duration::from_millis(200));
        assert_eq!(TimeSpan::read("1h 30m").unwrap().0, Duration::from_mins(90));
        for bad in ["200", "", "-5s", "0s", "5 parsecs", "9999999h"] {
            assert!(TimeSpan::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_hold_nothing_that_a_path_or_a_terminal_reads() {
        assert!(Name::read("vm-1.disk_a").is_some());
        for bad in
            ["", ".", "..", "-a", "a/b", "a b", "a\n", "\u{1b}[31m", "\u{e4}", &"x".repeat(65)]
        {
            assert!(Name::read(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_can_be_dialled() {
        assert!(PeerAddress::read("192.0.2.1:7788").is_some());
        assert!(PeerAddress::read("[2001:db8::1]:7788").is_some());
        for bad in ["alpha:7788", "192.0.2.1", "0.0.0.0:1", "[::]:1", "192.0.2.1:0", "224.0.0.1:1"]
        {
            assert!(PeerAddress::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_identity_has_one_way_to_be_written() {
        let good = format!("sha256//{}A=", "b".repeat(42));
        assert_eq!(Identity::parse(&good).unwrap().as_str(), good);
        let loose_bits = format!("sha256//{}B=", "b".repeat(42));
        let short = format!("sha256//{}A=", "b".repeat(41));
        for bad in [loose_bits.as_str(), short.as_str(), "sha256//", "", &good[8..], &good[..51]] {
            assert!(Identity::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn an_export_is_a_socket_path_or_a_port() {
        assert_eq!(Export::read("unix:/run/a.nbd").unwrap().to_string(), "unix:/run/a.nbd");
        assert_eq!(Export::read("tcp:0.0.0.0:10809").unwrap().to_string(), "tcp:0.0.0.0:10809");
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in ["/run/a.nbd", "unix:a.nbd", "unix:/", "tcp:10809", "tcp:1.2.3.4:0", &long] {
            assert!(Export::read(bad).is_none(), "{bad}");
        }
    }
}
